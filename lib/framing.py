"""The frame around every message, and the cleaning that lets ledger and agent hold the same text.

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

_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])")
_WRAPPER = re.compile(
    r'(?:\A\s*|\n\n)<pasted_content id="(?P<id>\w+)">\n(?P<text>.*?)\n</pasted_content id="(?P=id)">(?:\n|\Z)',
    re.DOTALL,
)
_FRAME = re.compile(
    r"\A\s*\[msg (?P<id>[0-9]{1,18}) from [^\]\n]+\]\n(?P<body>.*)\n\[end of msg (?P=id)\]\s*\Z", re.DOTALL
)
_ZERO_WIDTH_JOINER = "\u200d"


def clean(text: str) -> str:
    """The text as a terminal can carry it: what is recorded, sent and acknowledged.

    CR and CRLF become LF, a tab four spaces; escape sequences, control and format characters (except the
    joiner inside emoji) vanish; letters are composed (NFC).
    """
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).replace("\t", "    ")
    kept = (
        character
        for character in text
        if character in ("\n", _ZERO_WIDTH_JOINER) or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )
    return unicodedata.normalize("NFC", "".join(kept))


def head(message_id: int, sender: str) -> str:
    return f"[msg {message_id} from {sender}]"


def tail(message_id: int) -> str:
    return f"[end of msg {message_id}]"


def frame(message_id: int, sender: str, body: str) -> str:
    """The text that is typed: a head line, the body, a tail line."""
    return f"{head(message_id, sender)}\n{body}\n{tail(message_id)}"


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
    parts = [f"{len(messages)} messages have come faster than they could be handed over. They are, in order:"]
    parts += [f"--- message {number} from {sender}\n{body}" for number, sender, body in messages]
    return "\n\n".join(parts)


def chunks(text: str) -> Iterator[str]:
    """Cut text into pastes that Claude Code takes as typed by the user."""
    chunk = ""
    for line in text.splitlines(keepends=True):
        while line:
            room = CHUNK_CHARACTERS - len(chunk)
            if chunk and (room < len(line) or chunk.count("\n") + line.count("\n") > CHUNK_NEWLINES):
                yield chunk
                chunk, room = "", CHUNK_CHARACTERS
            chunk, line = chunk + line[:room], line[room:]
    if chunk:
        yield chunk
