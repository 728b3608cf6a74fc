"""Screens as they are kept: colours stay, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.judgement import cleaning

SCREENS = sorted((Path(__file__).parent / "screens").glob("*.ansi"))

CAPTURED = [
    ("plain\nlines", "plain\nlines"),
    # Colours, of 16, of 256 and of all, in both forms.
    ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    ("\x1b[38;5;9m\x1b[48:2::1:2:3mx\x1b[m", "\x1b[38;5;9m\x1b[48:2::1:2:3mx\x1b[m"),
    # The cursor is moved, the screen cleared, the terminal asked, keys are changed.
    ("a\x1b[2J\x1b[1;1H\x1b[6n\x1b[?1049h\x1b[>4;1mb", "ab"),
    # A title and a link, ended in either way; one that does not end takes the rest of its line.
    ("\x1b]0;t\x07a\x1b]8;;http://x/\x1b\\b\x1b]8;;\x07c", "abc"),
    ("a\x1b]52;c;eA==\nb", "a\nb"),
    # Other strings of the terminal: DCS, APC, PM.
    ("a\x1bP1$r0m\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d", "abcd"),
    # A sequence in another one.
    ("\x1b\x1b[31m[2J", "\x1b[31m[2J"),
    # Eight-bit controls, and those that are one character.
    ("a\x9b2Jb\x07\x08\r\x00c\x7f", "a2Jbc"),
    # What turns text around.
    ("a\u202eb\u2066c", "abc"),
    # Line drawing: its letters only, and with its end on another row.
    ("\x0elqk\x0fq", "┌─┐q"),
    ("\x0ex\x1b[31mx\x1b[0m", "│\x1b[31m│\x1b[0m"),
    ("\x0eq\nq\x0fq", "─\n─q"),
]


@pytest.mark.parametrize(("captured", "kept"), CAPTURED)
def test_a_screen_keeps_its_colours_alone(captured: str, kept: str) -> None:
    assert cleaning.coloured(captured) == kept


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_a_screen_of_claude_code_stays_as_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert cleaning.coloured(text) == text


@given(st.text(st.sampled_from("\x1b[]()0;12mHJq\x07\x0e\x0f\x9b\x90\\P\n a\u202e?:")))
def test_whatever_is_captured_commands_nothing(text: str) -> None:
    kept = cleaning.coloured(text)
    assert re.sub(r"\x1b\[[0-9;:]*m", "", kept).translate({10: None}).isprintable()
    assert cleaning.coloured(kept) == kept or "\x1b" in kept
    assert "\x1b" not in cleaning.uncoloured(text)
    assert "\n" not in cleaning.one_line(text)
