"""Reads one capture of a Claude Code pane and says what may be typed into it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from lib.records import dataclass


class ScreenKind(StrEnum):
    """What the keys that are pressed now would go to."""

    COMPOSER = "composer"
    BASH_MODE = "bash_mode"
    DIALOG = "dialog"
    OTHER = "other"


@dataclass(frozen=True)
class Screen:
    """What a pane shows.

    `draft` is the text that stands in the composer: "" when it is blank or holds only a dim placeholder,
    soft-wrapped lines stay split, and of a draft that scrolls only the visible part is here.
    `busy` is whether the agent shows that it works; a dialog hides it.
    """

    kind: ScreenKind
    draft: str
    busy: bool


@dataclass(frozen=True)
class Choice:
    """One choice of a dialog: the key that takes it, and its words."""

    key: str
    text: str


@dataclass(frozen=True)
class Dialog:
    """A question that a window asks: what it shows of it, and the choices that a key takes."""

    text: str
    choices: tuple[Choice, ...]


class _Cell(NamedTuple):
    """A tuple, and no record: a look at one screen makes thousands."""

    char: str
    dim: bool
    reverse: bool


@dataclass(frozen=True)
class _Row:
    cells: tuple[_Cell, ...]

    @property
    def text(self) -> str:
        return "".join(cell.char for cell in self.cells)

    @property
    def has_cursor(self) -> bool:
        return any(cell.reverse for cell in self.cells)


@dataclass(frozen=True)
class _Composer:
    rows: Sequence[_Row]
    above: Sequence[_Row]
    footer: str

    @property
    def is_bash(self) -> bool:
        """The prompt says so, or the footer: a long draft of the classic renderer leaves the screen."""
        has_sign = self.footer.startswith(_BASH_FOOTER) and _SHORTCUTS not in self.footer
        return self.rows[0].text.startswith(_BASH_PROMPT) or has_sign

    @property
    def draft(self) -> str:
        text = "\n".join(_typed(row.cells[len(_PROMPT) :]) for row in self.rows)
        return text if text.strip() else ""


# All of it was measured with Claude Code 2.1.330 in tmux 3.3a, from 40x15 to 200x50, in both renderers.
_PROMPT = "❯\xa0"
_BASH_PROMPT = "!\xa0"
_INDENT = "  "
# Bare, with a session's name at its right end, or with "↑ 54 more" when the draft scrolls.
_RULE = re.compile(r"──.*─")
_SCROLLED = re.compile(r"─+ ↑ \d+ more ─")
# Below a composer that is drawn while the keys go elsewhere: ctrl+r in the classic renderer. "Esc to
# cancel" is no such sign: it stands below a usable composer while Claude Code waits for a usage limit.
_ELSEWHERE = re.compile(r"search prompts:|no matching prompt:|Enter to (select|confirm|use)")
_CHOICE = re.compile(r"^ {0,4}❯ (\d+\. |No, exit$|Yes)")
_EDGE = re.compile(r"[─▔]{8}")
_NUMBERED = re.compile(r"^ {0,4}(?P<mark>❯ )? {0,2}(?P<key>[1-9])\. (?P<words>.+)$")
_TAKES_TEXT = re.compile(r"Type something|Chat about this|No, and tell Claude")
_ASKS = re.compile(r"\b(Esc to (cancel|close|go back)|Enter to (select|confirm|save))\b")
# The spinner of a turn and of a retried request; "✻ Cooked for 4s" of a finished turn has neither sign.
_SPINNER = re.compile(r"[·✢✳✶✻✽*∗] \S.*(…|· retrying )")
#: How many rows a spinner's tip, what stands beside the footer and a rehearsal's queue may take above the composer.
_BELOW_SPINNER = 12
_COUNTS = re.compile(r"[\d.,]+k? tokens|attempt \d+/\d+")
_DURATION = re.compile(r"\b(?:\d+(?:\.\d+)?(?:ms|[smhd])\b ?)*\d+(?:\.\d+)?(?:ms|[smhd])\b")
#: Bullets of what runs just now come and go; spinners stand in front of what is said of helpers, too.
_BLINKING = " \xa0●⏺·✢✳✶✻✽*∗"
_BUSY_FOOTER = "esc to interrupt"
_BASH_FOOTER = "! for shell mode"
_SHORTCUTS = "/ for commands"  # the help of "?" begins like the footer of the shell mode
_LIMIT_FOOTER = re.compile(r"Usage limit reached · limit resets [^·]*?(?= Continuing|$)")
_CONTINUES = "Continuing "  # automatically at 8:10am, or shortly
_LIMIT_CHOICE = re.compile(r"^(❯ )?\d\. Stop and wait for limit to reset$")
_LIMIT_WAITS = re.compile(r"^(?:❯ )?\d\. Wait here, then continue automatically at (.+)$")
_LIMIT_DIALOG_ROWS = 8
_ESCAPE = re.compile(r"\x1b\[(?P<sgr>[0-9;:]*)m|\x1b\[[0-9;:?]*[A-Za-ln-z]|\x1b\].*?(?:\x1b\\|\x07)|\x1b.|[\x0e\x0f\r]")


def read(capture: str) -> Screen:
    """Say what `tmux capture-pane -e -p` shows. Whatever is not surely a composer is not one.

    A shell, an editor, a transcript view and a search are OTHER or DIALOG; so is what a later version
    draws in another way: then nothing may be typed. Two things a picture cannot tell: whether the
    process behind it still lives (a dead pane keeps its last frame), and the normal mode of vim keys.
    """
    rows = _rows(capture)
    composer = _composer(rows)
    if composer is None:
        return Screen(ScreenKind.DIALOG if _is_dialog(rows) else ScreenKind.OTHER, "", False)
    kind = ScreenKind.BASH_MODE if composer.is_bash else ScreenKind.COMPOSER
    return Screen(kind, composer.draft, _is_busy(composer))


def limit(capture: str) -> str | None:
    """What a window says of a usage limit that is in force: below the composer, or in the dialog that it opens.

    What stands above is conversation: it may be old, or talk about limits.
    """
    rows = _rows(capture)
    composer = _composer(rows)
    if composer is not None:
        found = _LIMIT_FOOTER.search(composer.footer)
        return found[0] if found else None
    return _limit_dialog(rows)


def continues_by_itself(capture: str) -> bool | None:
    """Whether a window says that its turn goes on by itself after a limit; None when it does not show its composer.

    Escape ends that, and the line below the composer with it.
    """
    composer = _composer(_rows(capture))
    return None if composer is None else _CONTINUES in composer.footer


def has_limit_dialog(capture: str) -> bool:
    """Whether a window shows the dialog that a weekly limit opens. Escape closes it and chooses nothing."""
    rows = _rows(capture)
    return _composer(rows) is None and _limit_dialog(rows) is not None


def dialog(capture: str) -> Dialog | None:
    """The dialog that a window shows, if its choices have numbers: a permission, or a question with answers.

    A choice that takes a text of one's own is none for a key. One that does not fit the window is not there.
    """
    rows = _rows(capture)
    if _composer(rows) is not None or not _is_dialog(rows):
        return None
    lines = [row.text.rstrip() for row in rows]
    numbered = [(at, found) for at, line in enumerate(lines) if (found := _NUMBERED.match(line))]
    start = next((at for at, found in reversed(numbered) if found["key"] == "1"), None)
    if start is None or not any(found["mark"] for at, found in numbered if at >= start):
        return None
    choices = tuple(_choices(lines[start:]))
    top = next((at + 1 for at in reversed(range(start)) if _EDGE.match(lines[at].strip())), 0)
    return Dialog("\n".join(line for line in lines[top:start] if line.strip()), choices) if choices else None


def _choices(lines: Sequence[str]) -> Iterator[Choice]:
    """The choices from the first one on: they are numbered without a gap, and what is indented more goes on."""
    key, words, column = 0, "", 0
    for line in [*lines, ""]:
        found = _NUMBERED.match(line)
        if not found and line.strip() and len(line) - len(line.lstrip()) >= column:
            words = f"{words} {line.strip()}"
            continue
        if key and not _TAKES_TEXT.match(words):
            yield Choice(str(key), words)
        if not found or int(found["key"]) != key + 1:
            return
        key, words, column = key + 1, found["words"].strip(), found.start("words")


def _limit_dialog(rows: Sequence[_Row]) -> str | None:
    """The choice that names the reset time, or "" when none does; None when it is another dialog."""
    last = [row.text.strip() for row in rows if row.text.strip()][-_LIMIT_DIALOG_ROWS:]
    if not _is_dialog(rows) or not any(_LIMIT_CHOICE.search(text) for text in last):
        return None
    waits = (found for text in last if (found := _LIMIT_WAITS.search(text)))
    return next((f"resets {found[1]}" for found in waits), "")


def ends_with_line(draft: str, line: str) -> bool:
    """Whether the draft ends with this line, however narrow the pane that wrapped it."""
    wanted = _without_space(line)
    return bool(wanted) and _without_space(draft).endswith(wanted)


def without_clock(capture: str) -> str:
    """What a capture shows of an agent's doing, without what moves by itself: two that are equal show no progress.

    Left out are the spinner with its seconds, blinking bullets, durations, tips, the composer and the footer. Of the
    spinner's line only the count of tokens stays, which grows while the model speaks.
    """
    rows = _rows(capture)
    composer = _composer(rows)
    shown = [row.text for row in (rows if composer is None else composer.above)]
    spinners = [number for number, text in enumerate(shown) if _SPINNER.match(text)]
    if spinners and spinners[-1] >= len(shown) - _BELOW_SPINNER:
        shown[spinners[-1] :] = _COUNTS.findall(shown[spinners[-1]])
    still = (_DURATION.sub("", text).strip(_BLINKING) for text in shown)
    return "\n".join(text for text in still if text)


def _composer(rows: Sequence[_Row]) -> _Composer | None:
    """The rows between the lowest rule and the one above it, if they can be nothing else."""
    rules = [number for number, row in enumerate(rows) if _is_rule(row)]
    if not rules:
        return None
    bottom = rules[-1]
    top = rules[-2] if len(rules) > 1 else None
    inside = rows[:bottom] if top is None else rows[top + 1 : bottom]
    below = rows[bottom + 1 :]
    if not inside or not _is_prompted(inside, None if top is None else rows[top]):
        return None
    if not all(_is_indented(row) for row in (*inside[1:], *below)):
        return None
    footer = " ".join(" ".join(row.text for row in below).split())
    has_cursor = any(row.has_cursor for row in inside)
    # The cursor of a pane that has lost the focus is not drawn at all; one in the footer is a search's.
    if _ELSEWHERE.search(footer) or (not has_cursor and any(row.has_cursor for row in below)):
        return None
    if top is None and not has_cursor:
        return None
    return _Composer(inside, [] if top is None else rows[:top], footer)


def _is_rule(row: _Row) -> bool:
    """A rule from edge to edge. The transcript view draws a dim one, and what a model says is indented."""
    return bool(_RULE.fullmatch(row.text.rstrip())) and not row.cells[0].dim


def _is_prompted(inside: Sequence[_Row], top: _Row | None) -> bool:
    """Whether the first row has the prompt; a draft that has scrolled has shed it."""
    first = inside[0]
    if first.text.startswith((_PROMPT, _BASH_PROMPT)):
        return True
    has_scrolled = top is None or bool(_SCROLLED.match(top.text))
    return has_scrolled and _is_indented(first)


def _is_indented(row: _Row) -> bool:
    return not row.text.strip() or row.text.startswith(_INDENT)


def _typed(cells: Sequence[_Cell]) -> str:
    """The text without its placeholder, whose first letter is under the cursor and whose rest is dim."""
    seen = [cell for cell in cells if not cell.char.isspace()]
    ghosts = {id(cell) for cell in seen if cell.dim}
    ghosts |= {id(cell) for cell, after in pairwise(seen) if cell.reverse and after.dim}
    return "".join(cell.char for cell in cells if id(cell) not in ghosts).rstrip()


def _is_busy(composer: _Composer) -> bool:
    if _BUSY_FOOTER in composer.footer:
        return True
    return any(_SPINNER.match(row.text) for row in composer.above[-8:])


def _is_dialog(rows: Sequence[_Row]) -> bool:
    last = [row.text for row in rows if row.text.strip()][-12:]
    said = " ".join(" ".join(last[-3:]).split())
    return bool(_ASKS.search(said)) or any(_CHOICE.match(text) for text in last)


def _without_space(text: str) -> str:
    return "".join(text.split())


def _rows(capture: str) -> list[_Row]:
    """The capture's cells, row by row: tmux lets an attribute run on into the next row."""
    dim = reverse = False
    rows = []
    for line in capture.split("\n"):
        cells: list[_Cell] = []
        at = 0
        for escape in _ESCAPE.finditer(line):
            cells += [_Cell(char, dim, reverse) for char in line[at : escape.start()]]
            at = escape.end()
            if (sgr := escape["sgr"]) is not None:
                dim, reverse = _after(sgr, dim, reverse)
        cells += [_Cell(char, dim, reverse) for char in line[at:]]
        if reverse:  # a blank cell under the cursor, which tmux trimmed from the end of the row
            cells.append(_Cell(" ", dim, reverse))
        rows.append(_Row(tuple(cells)))
    return rows


def _after(sgr: str, dim: bool, reverse: bool) -> tuple[bool, bool]:
    codes = iter(sgr.split(";"))
    for code in codes:
        match code:
            case "" | "0":
                dim = reverse = False
            case "2":
                dim = True
            case "22":
                dim = False
            case "7":
                reverse = True
            case "27":
                reverse = False
            case "38" | "48" | "58":  # a colour: its numbers are not attributes
                for _ in range(3 if next(codes, "") == "2" else 1):
                    next(codes, "")
    return dim, reverse
