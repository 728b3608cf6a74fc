"""What a terminal shows, as text and as HTML of which nothing is markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.front.web import ansi

SCREENS = sorted((Path(__file__).parent / "screens").glob("*80x24*.ansi"))

SHOWN = [
    # Plain text stays what it is.
    ("hello", "hello", "hello"),
    # Markup is text.
    ("<b>&\"'", "<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
    # An attribute, a colour, and their end.
    ("\x1b[1;31mred\x1b[0m no", "red no", '<span class="bold fg-1">red</span> no'),
    # Colours of 256 and of 16 million, before and behind.
    ("\x1b[38;5;208mo", "o", '<span class="fg-208">o</span>'),
    ("\x1b[38;2;255;0;0;48;2;0;0;255mx", "x", '<span class="fg-196 bg-21">x</span>'),
    # An attribute runs on into the next line, as tmux has it.
    ("\x1b[7ma\nb", "a\nb", '<span class="reverse">a</span>\n<span class="reverse">b</span>'),
    # A title, a bell, a cursor that moves: nothing of it is shown, and nothing is done.
    ("\x1b]0;title\x07a\x1b[2Jb\x07c", "abc", "abc"),
    # A link's address is not one here.
    ("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
]


@pytest.mark.parametrize(("capture", "text", "html"), SHOWN)
def test_what_is_shown(capture: str, text: str, html: str) -> None:
    assert ansi.render(capture) == (text, html)


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_a_real_screen_keeps_its_rows(path: Path) -> None:
    capture = path.read_text(encoding="utf-8")
    text, html = ansi.render(capture)
    rows = capture.rstrip("\n").count("\n") + 1
    assert len(text.rstrip("\n").split("\n")) <= rows and "\x1b" not in text + html
    assert html.count("<span") == html.count("</span>")


@given(st.text(alphabet=st.sampled_from("\x1b[]0;13mK<>&\"'\\\x07\nab \x00\x9b")))
def test_nothing_becomes_markup(capture: str) -> None:
    _, html = ansi.render(capture)
    left = html
    for span in {part.partition(">")[0] for part in html.split("<")[1:]}:
        assert span == "/span" or (span.startswith('span class="') and set(span[12:-1]) <= set(ALLOWED)), span
        left = left.replace(f"<{span}>", "")
    assert "<" not in left and ">" not in left and "\x1b" not in html and "\x00" not in html


ALLOWED = "abcdefghijklmnopqrstuvwxyz0123456789- "


def test_every_class_has_its_colour() -> None:
    sheet = ansi.stylesheet()
    assert ".fg-0{color:#000000}" in sheet and ".bg-255{background-color:#eeeeee}" in sheet
    assert sheet.count("{") == 512
