"""The frame around every message, and the pieces in which it is typed.

Measured with Claude Code 2.1.330: a head line keeps a body that begins with `/`, `!`, `#` or `@` from being taken
for a command, and a tail line one that ends in a backslash or a path from swallowing Enter. The id proves which
message has arrived. A paste of more than 800 characters or 2 newlines is marked as foreign text, hence the chunks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

CHUNK_CHARACTERS = 700
CHUNK_NEWLINES = 2

_WRAPPER = re.compile(
    r'(?:\A\s*|\n\n)<pasted_content id="(?P<id>\w+)">\n(?P<text>.*?)\n</pasted_content id="(?P=id)">(?:\n|\Z)',
    re.DOTALL,
)
_FRAME = re.compile(
    r"\A\s*\[msg (?P<id>[0-9]{1,18}) from [^\]\n]+\]\n(?P<body>.*)\n\[end of msg (?P=id)\]\s*\Z", re.DOTALL
)
_JOINER = "\u200d"
#: Regional indicators make flags in pairs, and Hangul letters make syllables.
_JOINS_ITS_NEIGHBOUR = re.compile(r"[\U0001f1e6-\U0001f1ff\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")


def head(message_id: int, sender: str) -> str:
    return f"[msg {message_id} from {sender}]"


def tail(message_id: int) -> str:
    return f"[end of msg {message_id}]"


def frame(message_id: int, sender: str, body: str) -> str:
    """The text that is typed: a head line, the body, a tail line."""
    return f"{head(message_id, sender)}\n{body}\n{tail(message_id)}"


def framed_in(text: str) -> list[int]:
    """The messages whose frames end in a text, however a narrow window has wrapped it."""
    return [int(found) for found in re.findall(r"\[endofmsg(\d{1,18})\]", "".join(text.split()))]


def unframe(prompt: str) -> tuple[int, str] | None:
    """The id and the body of a prompt that is one framed message; None for any other prompt.

    Only the outermost frame counts: a frame that is quoted in a body proves nothing.
    """
    found = _FRAME.match(prompt)
    return (int(found["id"]), found["body"]) if found else None


def unwrap(prompt: str) -> str:
    """A prompt without what Claude Code puts around a paste that it marks as foreign.

    A body may quote such marks: a prompt has to be read both ways.
    """
    return _WRAPPER.sub(r"\g<text>", prompt)


def is_command(text: str) -> bool:
    """Whether a text is a slash command and nothing else."""
    return re.fullmatch(r"/[A-Za-z][\w:-]*( [^\n]*)?", text) is not None


def digest(messages: Sequence[tuple[int, str, str]]) -> str:
    """One text of several messages (id, sender, body), for an agent that got more than it can read one by one."""
    parts = [f"{len(messages)} messages have waited to be handed over. They are, in order:"]
    parts += [f"--- message {number} from {sender}\n{body}" for number, sender, body in messages]
    return "\n\n".join(parts)


def chunks(text: str) -> Iterator[str]:
    """Cut text into pastes that Claude Code takes as typed by the user.

    The last line is a paste of its own: it stays visible even if a version of Claude Code shows the others as
    `[Pasted text #1 +2 lines]`, and seeing it is the proof that all has been pasted.
    """
    above, line_end, last = text.rpartition("\n")
    for part in (above + line_end, last):
        yield from _filled(part)


def _filled(text: str) -> Iterator[str]:
    chunk = ""
    for piece in _pieces(text):
        is_full = _units(chunk) + _units(piece) > CHUNK_CHARACTERS
        if chunk and (is_full or chunk.count("\n") + piece.count("\n") > CHUNK_NEWLINES):
            yield chunk
            chunk = ""
        chunk += piece
    if chunk:
        yield chunk


def _pieces(text: str) -> Iterator[str]:
    """The lines, those that are longer than a paste in parts that are as long as one."""
    for line in text.splitlines(keepends=True):
        while len(line) > CHUNK_CHARACTERS or _units(line) > CHUNK_CHARACTERS:
            end = _end_of_part(line)
            yield line[:end]
            line = line[end:]
        yield line


def _end_of_part(line: str) -> int:
    longest = CHUNK_CHARACTERS
    while _units(line[:longest]) > CHUNK_CHARACTERS:
        longest -= max(1, (_units(line[:longest]) - CHUNK_CHARACTERS) // 2)
    # What belongs together must not be cut: Claude Code composes letters within a paste. Fifty characters back is
    # far enough for every emoji that there is.
    whole = (end for end in range(longest, max(longest - 50, 0), -1) if _can_begin(line[end : end + 1], line[end - 1]))
    return next(whole, longest)


def _can_begin(character: str, before: str) -> bool:
    """Whether text can be cut before this character."""
    if character.isascii():
        return before != _JOINER
    return (
        unicodedata.category(character) in ("Lo", "Lu", "Ll", "Zs", "Po", "So")
        and before != _JOINER
        and not _JOINS_ITS_NEIGHBOUR.match(character)
    )


def _units(text: str) -> int:
    """The length as Claude Code counts it, in UTF-16: an emoji is two."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)
