"""The rehearsal's terminal: keys in, a log above a composer out, in the look of Claude Code's screen."""

from __future__ import annotations

import codecs
import os
import termios
import tty
import unicodedata
from types import TracebackType

from lib.records import dataclass
from lib.rehearsal import BANNER

PROMPT = "❯\xa0"
CURSOR = "\x1b[7m \x1b[0m"
RULE = "─"
#: Log rows that are kept to be drawn again after a resize; older ones are in the terminal's own history.
KEPT_LINES = 2000

_PASTE_BEGINS = "\x1b[200~"
_PASTE_ENDS = "\x1b[201~"
_KEYS = {
    "\r": "enter",
    "\n": "newline",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "interrupt",
    "\x04": "eof",
    "\x13": "stash",
}
_ARROWS = {"\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down"}


@dataclass(frozen=True)
class Key:
    """`name` is "text" or "paste" (with its `text`), or the key's name."""

    name: str
    text: str = ""


def printable(text: str) -> str:
    """The text without control bytes, tabs as four spaces; line ends are kept."""
    if text.isprintable():
        return text
    kept = (char for char in text.replace("\t", "    ") if char == "\n" or unicodedata.category(char) != "Cc")
    return "".join(kept)


class Keyboard:
    """Turns the terminal's bytes into keys, wherever the reads happen to be cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left = ""
        self._pasting = False

    @property
    def holds_escape(self) -> bool:
        """An escape byte stands alone: the Esc key, unless more follows at once."""
        return self._left == "\x1b" and not self._pasting

    def escape_alone(self) -> list[Key]:
        self._left = ""
        return [Key("escape")]

    def feed(self, data: bytes) -> list[Key]:
        self._left += self._decoder.decode(data)
        keys: list[Key] = []
        while self._left:
            key, used = self._paste() if self._pasting else self._key()
            if not used:
                break
            self._left = self._left[used:]
            if key:
                keys.append(key)
        return keys

    def _paste(self) -> tuple[Key | None, int]:
        end = self._left.find(_PASTE_ENDS)
        if end >= 0:
            self._pasting = False
            return _pasted(self._left[:end]), end + len(_PASTE_ENDS)
        begun = (n for n in range(len(_PASTE_ENDS) - 1, 0, -1) if self._left.endswith(_PASTE_ENDS[:n]))
        held = next(begun, 0)
        whole = len(self._left) - held
        return _pasted(self._left[:whole]), whole

    def _key(self) -> tuple[Key | None, int]:
        first = self._left[0]
        if first == "\x1b":
            return self._escape()
        if first in _KEYS:
            return Key(_KEYS[first]), 1
        control = (n for n, char in enumerate(self._left) if char < " " or char == "\x7f")
        plain = next(control, len(self._left))
        return (Key("text", printable(self._left[:plain])), plain) if plain else (None, 1)

    def _escape(self) -> tuple[Key | None, int]:
        """A key that begins with an escape byte; 0 used when its end has not been read yet."""
        text = self._left
        if text.startswith(_PASTE_BEGINS):
            self._pasting = True
            return None, len(_PASTE_BEGINS)
        if len(text) == 1:
            return None, 0
        if text[1] == "\r":
            return Key("newline"), 2
        if text[1] not in "[O":
            return Key("escape"), 1
        end = next((n for n in range(2, len(text)) if "@" <= text[n] <= "~"), None)
        if end is None:
            return None, 0
        arrow = _ARROWS.get(text[: end + 1])
        return (Key(arrow) if arrow else None), end + 1


def _pasted(text: str) -> Key | None:
    # tmux sends the line ends of a paste as CR (paste-buffer without -r).
    return Key("paste", printable(text.replace("\r", "\n"))) if text else None


def width_of(char: str) -> int:
    if char in "\u200d\ufe0f" or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrap(line: str, width: int) -> list[str]:
    """Cut one line into rows of at most `width` cells."""
    if line.isascii():
        return [line[n : n + width] for n in range(0, len(line), width)] or [""]
    rows, row, used = [], "", 0
    for char in line:
        cells = width_of(char)
        if used + cells > width and row:
            rows.append(row)
            row, used = "", 0
        row, used = row + char, used + cells
    return [*rows, row]


def cells_of(text: str) -> int:
    return len(text) if text.isascii() else sum(width_of(char) for char in text)


def block(head: str, text: str, columns: int) -> list[str]:
    """Text behind a two-cell head, continuation rows indented by as much."""
    rows = [row for line in text.split("\n") for row in wrap(line, max(columns - 2, 1))]
    return [(head if n == 0 else "  ") + row for n, row in enumerate(rows)]


@dataclass(frozen=True)
class View:
    """All that is on the screen below the log."""

    draft: str = ""
    spinner: str = ""
    queued: tuple[str, ...] = ()
    question: str = ""
    chosen: int = 0
    footer: str = ""


def below(view: View, columns: int, rows: int) -> tuple[list[str], int, int]:
    """The rows below the log, and row and column of the cursor within them."""
    busy = ["", view.spinner] if view.spinner else []
    busy += [block("  ⎿ Queued: ", text.split("\n")[0], columns - 10)[0] for text in view.queued]
    rule = RULE * columns
    if view.question:
        heads = ["❯ ", "  "] if view.chosen == 0 else ["  ", "❯ "]
        options = [f"{heads[0]}1. Yes", f"{heads[1]}2. No"]
        asked = [rule, *block("  ", view.question, columns), "", *options, "", "  Esc to cancel"]
        return [*busy, *asked], len(busy) + len(asked) - 1, 0
    composer = block(PROMPT, view.draft, columns)
    if cells_of(composer[-1]) >= columns:
        composer.append("  ")
    column = cells_of(composer[-1])
    composer[-1] += CURSOR
    most = max(rows - len(busy) - 5, 3)
    if len(composer) > most:
        composer = [composer[0], "  …", *composer[len(composer) - most + 2 :]]
    shown = [*busy, rule, *composer, rule, f"  {view.footer}"]
    return shown, len(busy) + len(composer), column


class Screen:
    """The raw terminal of our pane. Only one thread may draw."""

    def __init__(self, keys: int = 0, screen: int = 1) -> None:
        self._keys, self._screen = keys, screen
        self._log: list[tuple[str, str]] = [("  ", BANNER)]
        self._rows: list[str] = []
        self._scrolled = 0
        self._size = (0, 0)
        self._drawn: list[str] = []

    def __enter__(self) -> Screen:
        self._before = termios.tcgetattr(self._keys)
        tty.setraw(self._keys)
        self._write("\x1b[?2004h\x1b[?25l\x1b[?7l")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(f"\x1b[{len(self._drawn) + 1};1H\x1b[?2004l\x1b[?25h\x1b[?7h\r\n")
        try:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
        except termios.error:
            return  # the terminal is gone, so there is nothing to put back

    def log(self, head: str, text: str) -> None:
        self._log.append((head, printable(text)))
        del self._log[:-KEPT_LINES]
        if self._size[0]:
            self._rows += block(head, printable(text), self._size[0])

    def draw(self, view: View) -> None:
        try:
            size = os.get_terminal_size(self._screen)
        except OSError:
            return  # the terminal is gone; the read side notices it and ends us
        columns, rows = max(size.columns, 4), max(size.lines, 6)
        live, cursor_row, cursor_column = below(view, columns, rows)
        room = max(rows - len(live), 0)
        if (columns, rows) != self._size:
            self._start_over(columns, rows, room)
        elif len(self._rows) - self._scrolled > room:
            self._scroll(live, room)
        shown = [*self._rows[self._scrolled :], *live]
        over = max(len(shown) - rows, 0)
        self._show(shown[over:], rows)
        row = len(self._rows) - self._scrolled - over + cursor_row
        self._write(f"\x1b[{row + 1};{cursor_column + 1}H")

    def _start_over(self, columns: int, rows: int, room: int) -> None:
        self._size = (columns, rows)
        self._rows = [row for head, text in self._log for row in block(head, text, columns)]
        self._scrolled = max(len(self._rows) - room, 0)
        self._drawn = []
        self._write("\x1b[H\x1b[2J")

    def _scroll(self, live: list[str], room: int) -> None:
        """Print from the top down, so that the log's rows above the screen go into the terminal's history."""
        page = [*self._rows[self._scrolled :], *live]
        self._write("\x1b[H" + "\r\n".join(f"\x1b[K{row}" for row in page))
        del self._rows[: len(self._rows) - room]
        self._scrolled = 0
        self._drawn = page[-self._size[1] :]

    def _show(self, page: list[str], rows: int) -> None:
        page = page + [""] * (rows - len(page))
        changed = [
            f"\x1b[{n + 1};1H\x1b[K{row}"
            for n, row in enumerate(page)
            if n >= len(self._drawn) or self._drawn[n] != row
        ]
        self._drawn = page
        self._write("".join(changed))

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        try:
            while data:
                data = data[os.write(self._screen, data) :]
        except OSError:
            return  # the terminal is gone; the read side notices it and ends us
