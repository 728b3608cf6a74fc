"""What a terminal shows, as text and as HTML: colours become classes, and nothing of it is markup or a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from markupsafe import escape
from rich.ansi import AnsiDecoder
from rich.color import Color, ColorSystem
from rich.style import Style
from rich.text import Text

#: Titles, links and the like: what a program tells the terminal beside what it shows.
_COMMAND = re.compile(r"\x1b\][^\x07\x1b]*(\x07|\x1b\\)")
_ATTRIBUTES = ("bold", "dim", "italic", "underline", "reverse", "strike")


def render(capture: str) -> tuple[str, str]:
    """A capture with escape sequences, as plain text and as HTML. The classes are those of `stylesheet`.

    The page's policy forbids styles in attributes, so a colour is the nearest of the 256 of a terminal.
    """
    lines = [Text(_plain(line.plain), spans=line.spans) for line in AnsiDecoder().decode(_COMMAND.sub("", capture))]
    return "\n".join(line.plain for line in lines), "\n".join("".join(_line(line)) for line in lines)


def _plain(text: str) -> str:
    # Of the same length: the spans count letters.
    return "".join(letter if letter.isprintable() or letter == "\xa0" else " " for letter in text)


def _line(line: Text) -> Iterator[str]:
    plain, places = line.plain, {0, len(line.plain)}
    for span in line.spans:
        places |= {span.start, span.end}
    edges = sorted(places)
    for start, end in pairwise(edges):
        styles = [span.style for span in line.spans if span.start <= start and span.end >= end]
        names = _classes(tuple(style for style in styles if isinstance(style, Style)))
        text = escape(plain[start:end])
        yield f'<span class="{names}">{text}</span>' if names else str(text)


@lru_cache(maxsize=4096)
def _classes(styles: tuple[Style, ...]) -> str:
    style = Style.combine(styles) if styles else Style.null()
    names = [name for name in _ATTRIBUTES if getattr(style, name)]
    for ground, color in (("fg", style.color), ("bg", style.bgcolor)):
        number = _number(color)
        names += [f"{ground}-{number}"] if number is not None else []
    return " ".join(names)


def _number(color: Color | None) -> int | None:
    return None if color is None or color.is_default else color.downgrade(ColorSystem.EIGHT_BIT).number


@lru_cache(maxsize=1)
def stylesheet() -> str:
    """The classes of the 256 colours; those of the attributes are the pages' own."""
    rules = []
    for number in range(256):
        red, green, blue = Color.from_ansi(number).get_truecolor()
        value = f"#{red:02x}{green:02x}{blue:02x}"
        rules.append(f".fg-{number}{{color:{value}}}.bg-{number}{{background-color:{value}}}")
    return "\n".join(rules) + "\n"
