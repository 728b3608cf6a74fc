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
#: Claude Code's mark of a paste: it writes a backslash into whatever looks like one, in letters of any kind.
_MARK = re.compile(r"<(?=[^\w-]{0,40}pasted[-_\u2010-\u2015]content(?![\w-]))(?!\\)", re.ASCII | re.IGNORECASE)
_LOOKALIKES = str.maketrans("‹арѕсоеԁтαο", "<apscoedtao")

_LINE_ENDS = re.compile(r"\r\n|[\r\u2028\u2029]")

#: \p{Emoji} that is \p{Extended_Pictographic}, as of Unicode 14.
_EMOJI_RANGES = (
    "A9 AE 203C 2049 2122 2139 2194-2199 21A9-21AA 231A-231B 2328 23CF 23E9-23F3 23F8-23FA 24C2 25AA-25AB 25B6 25C0"
    " 25FB-25FE 2600-2604 260E 2611 2614-2615 2618 261D 2620 2622-2623 2626 262A 262E-262F 2638-263A 2640 2642"
    " 2648-2653 265F-2660 2663 2665-2666 2668 267B 267E-267F 2692-2697 2699 269B-269C 26A0-26A1 26A7 26AA-26AB"
    " 26B0-26B1 26BD-26BE 26C4-26C5 26C8 26CE-26CF 26D1 26D3-26D4 26E9-26EA 26F0-26F5 26F7-26FA 26FD 2702 2705"
    " 2708-270D 270F 2712 2714 2716 271D 2721 2728 2733-2734 2744 2747 274C 274E 2753-2755 2757 2763-2764 2795-2797"
    " 27A1 27B0 27BF 2934-2935 2B05-2B07 2B1B-2B1C 2B50 2B55 3030 303D 3297 3299 1F004 1F0CF 1F170-1F171 1F17E-1F17F"
    " 1F18E 1F191-1F19A 1F201-1F202 1F21A 1F22F 1F232-1F23A 1F250-1F251 1F300-1F321 1F324-1F393 1F396-1F397"
    " 1F399-1F39B 1F39E-1F3F0 1F3F3-1F3F5 1F3F7-1F3FA 1F400-1F4FD 1F4FF-1F53D 1F549-1F54E 1F550-1F567 1F56F-1F570"
    " 1F573-1F57A 1F587 1F58A-1F58D 1F590 1F595-1F596 1F5A4-1F5A5 1F5A8 1F5B1-1F5B2 1F5BC 1F5C2-1F5C4 1F5D1-1F5D3"
    " 1F5DC-1F5DE 1F5E1 1F5E3 1F5E8 1F5EF 1F5F3 1F5FA-1F64F 1F680-1F6C5 1F6CB-1F6D2 1F6D5-1F6D7 1F6DD-1F6E5 1F6E9"
    " 1F6EB-1F6EC 1F6F0 1F6F3-1F6FC 1F7E0-1F7EB 1F7F0 1F90C-1F93A 1F93C-1F945 1F947-1F9FF 1FA70-1FA74 1FA78-1FA7C"
    " 1FA80-1FA86 1FA90-1FAAC 1FAB0-1FABA 1FAC0-1FAC5 1FAD0-1FAD9 1FAE0-1FAE7 1FAF0-1FAF6"
)


def _class_of(ranges: str) -> str:
    return "".join("-".join(f"\\U{int(end, 16):08X}" for end in part.split("-")) for part in ranges.split())


_EMOJI = f"[{_class_of(_EMOJI_RANGES)}]"
#: Control and format characters and lone surrogates, and what Unicode calls default ignorable. The format
#: characters that stand before Arabic numbers are text (U+0600 and its kind).
_INVISIBLE = (
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_UNCARRIED = re.compile(_INVISIBLE)
#: What is invisible by itself and carried as a part of something: measured, character by character.
_CARRIED = "|".join(
    (
        # the flags of England, Scotland and Wales; those of other regions are not carried
        r"\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074"
        r"|\U000e0077\U000e006c\U000e0073)\U000e007f",
        # emoji, alone or joined, with their colour
        rf"{_EMOJI}(?:\ufe0e|[\ufe0f\U0001f3fb-\U0001f3ff]?(?:\u200d(?={_EMOJI}))?)",
        r"[\U0001f3fb-\U0001f3ff]\ufe0f",
        r"[#*0-9]\ufe0f\u20e3",
    )
)
_JOINER = "\u200d"
#: Regional indicators make flags in pairs, and Hangul letters make syllables.
_JOINS_ITS_NEIGHBOUR = re.compile(r"[\U0001f1e6-\U0001f1ff\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]")
_PART = re.compile(f"({_CARRIED})|{_INVISIBLE}")


def clean(text: str) -> str:
    """The text as a terminal and Claude Code can carry it: what is recorded, sent and acknowledged.

    All kinds of line ends become LF, a tab four spaces. Escape sequences, control and invisible characters vanish,
    but for those inside emoji and flags. Letters are composed (NFC). Claude Code's mark of a paste
    (`<pasted_content>`) gets the backslash that Claude Code itself would write into it.
    """
    text = _LINE_ENDS.sub("\n", _ESCAPE_SEQUENCE.sub("", text)).replace("\t", "    ")
    while True:
        cleaned = unicodedata.normalize("NFC", text)
        if _UNCARRIED.search(cleaned):
            cleaned = _PART.sub(lambda part: part[1] or "", cleaned)
        if cleaned == text:
            return _escape_marks(text)
        text = cleaned  # what has vanished may have stood between a letter and its accent


def _escape_marks(text: str) -> str:
    folded = text
    if not text.isascii():
        folded = "".join(_folded(character) for character in text).translate(_LOOKALIKES)
    escaped, at = "", 0
    for mark in _MARK.finditer(folded):
        escaped, at = f"{escaped}{text[at : mark.start()]}<\\", mark.end()
    return escaped + text[at:]


def _folded(character: str) -> str:
    plain = character if character.isascii() else unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 else character


def head(message_id: int, sender: str) -> str:
    return f"[msg {message_id} from {sender}]"


def tail(message_id: int) -> str:
    return f"[end of msg {message_id}]"


def frame(message_id: int, sender: str, body: str) -> str:
    """The text that is typed: a head line, the body, a tail line."""
    return f"{head(message_id, sender)}\n{body}\n{tail(message_id)}"


def holds_frame(text: str) -> bool:
    """Whether a text holds the end of a framed message, however a narrow window has wrapped it."""
    return re.search(r"\[endofmsg\d+\]", "".join(text.split())) is not None


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
