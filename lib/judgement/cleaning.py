"""Cleaning: text as a terminal and Claude Code can carry it, so that ledger and agent hold the same.

Everything here was measured with Claude Code 2.1.330 in tmux 3.3a: what of a pasted text reaches the agent.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])")
#: What of a captured screen does not stay, beside its colours (group 1): what a terminal would obey, and what turns the
#: order of its text around.
_NOT_COLOUR = re.compile(
    r"(\x1b\[[0-9;:]{0,80}m)|\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
    r"|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
#: Letters that tmux captures between SO and SI are the line drawing of the VT100 (terminfo(5), "Line Graphics").
_DRAWN = re.compile(r"\x0e([^\x0f]*)\x0f?")
_DRAWING = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")
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


#: Control and format characters and lone surrogates, and what Unicode calls default ignorable. The format
#: characters that stand before Arabic numbers are text (U+0600 and its kind).
_INVISIBLE = (
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_UNCARRIED = re.compile(_INVISIBLE)


@functools.cache
def _part() -> re.Pattern[str]:
    """What is invisible by itself: its group 1 is what is carried as a part of something.

    Measured, character by character. Made when it is first needed: it takes longer than the rest of this module.
    """
    emoji = f"[{_class_of(_EMOJI_RANGES)}]"
    carried = (
        # the flags of England, Scotland and Wales; those of other regions are not carried
        r"\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074"
        r"|\U000e0077\U000e006c\U000e0073)\U000e007f",
        # emoji, alone or joined, with their colour
        rf"{emoji}(?:\ufe0e|[\ufe0f\U0001f3fb-\U0001f3ff]?(?:\u200d(?={emoji}))?)",
        r"[\U0001f3fb-\U0001f3ff]\ufe0f",
        r"[#*0-9]\ufe0f\u20e3",
    )
    return re.compile(f"({'|'.join(carried)})|{_INVISIBLE}")


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
            cleaned = _part().sub(lambda part: part[1] or "", cleaned)
        if cleaned == text:
            return _escape_marks(text)
        text = cleaned  # what has vanished may have stood between a letter and its accent


def coloured(text: str) -> str:
    """A captured screen as it may be kept and shown: of control sequences only colours (SGR) and line feeds stay.

    Line drawing becomes the characters that it looks like.
    """
    text = _DRAWN.sub(_draw, text)
    return _NOT_COLOUR.sub(lambda found: found[1] or "", text)


def _draw(found: re.Match[str]) -> str:
    # The letters of control sequences in between are no drawing.
    parts = re.split(r"(\x1b\[[0-9;:]*m)", found[1])
    return "".join(part if place % 2 else part.translate(_DRAWING) for place, part in enumerate(parts))


def uncoloured(text: str) -> str:
    """The same without colours: plain lines."""
    return _COLOUR.sub("", coloured(text))


def one_line(text: str) -> str:
    """Somebody's text as one plain line of a terminal."""
    return uncoloured(re.sub(r"[\t\r\n]+", " ", text))


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


def shortened(text: str, most_bytes: int) -> str:
    """A text of at most so many bytes: of a longer one its beginning, and more of its end."""
    content = text.encode()
    if len(content) <= most_bytes:
        return text
    mark = f"\n[... {len(content):,} bytes, of which the middle is left out ...]\n"
    room = most_bytes - len(mark.encode())
    if room <= 0:
        return content[:most_bytes].decode(errors="ignore")
    head = room // 4
    return f"{content[:head].decode(errors='ignore')}{mark}{content[head - room :].decode(errors='ignore')}"


def quoted(text: str, longest: int = 240) -> str:
    """Somebody's text as a quoted string in one line, as agents are told it; of a longer one the beginning."""
    line = " ".join(clean(text).split())
    return json.dumps(line if len(line) <= longest else f"{line[: longest - 3]}...", ensure_ascii=False)
