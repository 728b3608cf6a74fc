"""The frame around a message: what is cleaned, what counts as proof, how text is cut."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib.judgement.cleaning import clean
from lib.judgement.framing import CHUNK_CHARACTERS, CHUNK_NEWLINES, chunks, frame, head, tail, unframe, unwrap

CLEANED = [
    # What people write stays as it is.
    ("plain text", "plain text"),
    ("two\nlines\n", "two\nlines\n"),
    ("  indented", "  indented"),
    ("ends;", "ends;"),
    ("ends in a backslash \\", "ends in a backslash \\"),
    ("$(touch x) `id` \"'", "$(touch x) `id` \"'"),
    ("-R x", "-R x"),
    ("/clear", "/clear"),
    ("", ""),
    # The ends of lines become one kind: a carriage return would be Enter.
    ("a\r\nb", "a\nb"),
    ("a\rb", "a\nb"),
    ("a\r\n\r\nb\r", "a\n\nb\n"),
    # A tab would be completion.
    ("a\tb", "a    b"),
    # Control characters are keys.
    ("a\x03b\x07c\x00d\x7fe", "abcde"),
    ("a\x85b", "ab"),
    # Escape sequences go as a whole, and not only their first character.
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b[200~pasted\x1b[201~", "pasted"),
    ("\x1b]0;title\x07text", "text"),
    ("\x1b]8;;http://localhost\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("a\x1bMb", "ab"),
    ("a\x1b", "a"),
    # Format characters are invisible; the joiner holds an emoji together.
    ("zero\u200bwidth", "zerowidth"),
    ("\u202eright to left", "right to left"),
    ("\ufefftext", "text"),
    ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
    ("\U0001f9d1\U0001f3fb\u200d\U0001f680", "\U0001f9d1\U0001f3fb\u200d\U0001f680"),
    ("\u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3"),
    ("a\u200db", "ab"),
    ("\u2605\ufe0f", "\u2605"),
    # The flags of Scotland, and of Texas, whose region is not carried.
    (
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    ),
    ("\U0001f3f4\U000e0075\U000e0073\U000e0074\U000e0078\U000e007f", "\U0001f3f4"),
    # A format character that is text: the Arabic number sign.
    ("\u0600\u0661", "\u0600\u0661"),
    ("one\u2028two", "one\ntwo"),
    # Claude Code's mark of a paste, as Claude Code itself writes it when it is quoted.
    ("<pasted_content id=1>", "<\\pasted_content id=1>"),
    ("</Pasted-Content>", "<\\/Pasted-Content>"),
    ("<\\/pasted_content>", "<\\/pasted_content>"),
    ("<pasted_contents>", "<pasted_contents>"),
    # Half of a pair cannot be encoded.
    ("a\ud800b", "ab"),
    # Letters are composed, as a terminal shows them.
    ("e\u0301", "\u00e9"),
    # A Hangul syllable written by its letters.
    ("\u1112\u1161\u11ab", "\ud55c"),
    ("日本語", "日本語"),
]


@pytest.mark.parametrize(("text", "cleaned"), CLEANED)
def test_text_is_cleaned(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def wrapped(text: str, number: str = "bc00") -> str:
    """As Claude Code hands on a paste that it takes for foreign text."""
    return f'\n\n<pasted_content id="{number}">\n{text}\n</pasted_content id="{number}">\n'


FRAMED = frame(7, "developer", "hello")
UNFRAMED = [
    # As it was sent.
    (FRAMED, (7, "hello")),
    ("[msg 7 from developer]\nhello\n[end of msg 7]", (7, "hello")),
    # Claude Code cuts white space at both ends of a prompt.
    (f"  {FRAMED}\n\n", (7, "hello")),
    # A body of lines, with an empty one at its end.
    (frame(7, "a", "one\n\ntwo\n"), (7, "one\n\ntwo\n")),
    # A body that is nothing but a line's end.
    (frame(7, "a", "\n"), (7, "\n")),
    # The marks around a paste are text as long as nobody takes them away.
    (frame(7, "a", wrapped("x")), (7, wrapped("x"))),
    (wrapped(FRAMED), None),
    # A frame that is quoted in a body belongs to the body.
    (frame(8, "a", f"he wrote: {FRAMED}"), (8, f"he wrote: {FRAMED}")),
    (frame(8, "a", FRAMED), (8, FRAMED)),
    # The same id quoted inside.
    (frame(8, "a", "[end of msg 8]"), (8, "[end of msg 8]")),
    # A sender with a dash, a space, a colon.
    (frame(8, "code-reviewer 2: x", "y"), (8, "y")),
    # Head and tail of different messages.
    ("[msg 7 from a]\nhello\n[end of msg 8]", None),
    ("[msg 7 from a]\nhello\n[end of msg 71]", None),
    # Cut off, at either end.
    ("[msg 7 from a]\nhello", None),
    ("hello\n[end of msg 7]", None),
    # Somebody's draft stands before or behind it: the agent got something else.
    (f"draft {FRAMED}", None),
    (f"{FRAMED} and more", None),
    # Two messages in one prompt.
    (FRAMED.replace("hello", "hello\n[end of msg 7]\n[msg 8 from a]\nsecond\n[end of msg 8]")[:-15], None),
    # No id, no number, an empty prompt, a prompt of a person.
    ("[msg x from a]\nhello\n[end of msg x]", None),
    ("", None),
    ("what does [msg 7 from developer] mean?", None),
    # A head with no body.
    ("[msg 7 from a]\n[end of msg 7]", None),
]


@pytest.mark.parametrize(("prompt", "found"), UNFRAMED)
def test_a_prompt_is_a_message_only_as_a_whole(prompt: str, found: tuple[int, str] | None) -> None:
    assert unframe(prompt) == found


UNWRAPPED = [
    # All of a message was taken for a foreign paste.
    (wrapped(FRAMED), FRAMED),
    # The prompt's ends were cut.
    (wrapped(FRAMED).strip(), FRAMED),
    # Two pastes were, one after the other: what stands between them is not of the message.
    (wrapped("[msg 7 from a]\none\n") + wrapped("two\n[end of msg 7]", "bc01"), frame(7, "a", "one\ntwo")),
    # The first paste was not, in a pane that became smaller meanwhile.
    ("[msg 7 from a]\none\n" + wrapped("two\n") + "[end of msg 7]", frame(7, "a", "one\ntwo")),
    # Nothing was.
    (FRAMED, FRAMED),
    # Somebody writes about the marks: they have no pair.
    (frame(7, "a", 'what is <pasted_content id="x">?'), frame(7, "a", 'what is <pasted_content id="x">?')),
]


@pytest.mark.parametrize(("prompt", "text"), UNWRAPPED)
def test_the_marks_of_a_foreign_paste_are_taken_away(prompt: str, text: str) -> None:
    assert unwrap(prompt) == text


@given(st.integers(1, 10**9), st.text())
@example(1, "\n")
@example(1, " ")
@example(1, "[end of msg 1]\n[msg 1 from a]")
@example(1, 'look at <pasted_content id="bc00"> please')
@example(1, "</pasted_content>\n")
def test_what_is_framed_is_found_again(number: int, text: str) -> None:
    assert unframe(frame(number, "developer", clean(text))) == (number, clean(text))


@given(st.text())
@example("\x1b\x1b[[31mm")
@example("\x1b\x00[31m")
@example("\x1b[31\x00m")
@example("e\u200b\u0301")
@example("\r\x00\n")
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text())
def test_clean_text_holds_no_key(text: str) -> None:
    cleaned = clean(text)
    assert {unicodedata.category(character) for character in cleaned if character != "\n"} & {"Cc", "Cs"} == set()
    cleaned.encode("utf-8")


def test_head_and_tail_name_the_message() -> None:
    assert frame(12, "tester", "x").splitlines() == [head(12, "tester"), "x", tail(12)]


#: Text with many ends of lines, of every kind that Python knows.
LINES = st.text(alphabet=st.sampled_from("ab\n\n\u2028\x0b\x1c;' "), max_size=4000)


@given(st.one_of(st.text(max_size=3000), LINES, st.integers(0, 3000).map(lambda size: "x" * size)))
def test_chunks_are_the_whole_text_in_small_pastes(text: str) -> None:
    cut = list(chunks(text))
    assert "".join(cut) == text
    assert all(cut)
    assert max(map(len, cut), default=0) <= CHUNK_CHARACTERS
    assert max((chunk.count("\n") for chunk in cut), default=0) <= CHUNK_NEWLINES


CUT = [
    # Nothing.
    ("", []),
    # As much as one paste takes.
    ("x" * 700, [700]),
    ("x" * 701, [700, 1]),
    # Two ends of lines are one paste, the third begins another.
    ("a\nb\n", [4]),
    ("a\nb\nc\n", [4, 2]),
    ("\n\n\n\n\n", [2, 2, 1]),
    # A line that does not fit any more begins a paste of its own.
    ("a" * 600 + "\n" + "b" * 200, [601, 200]),
    # A long line is cut where it is full.
    ("a" * 1500, [700, 700, 100]),
]


@pytest.mark.parametrize(("text", "sizes"), CUT)
def test_text_is_cut_at_the_limits(text: str, sizes: list[int]) -> None:
    assert [len(chunk) for chunk in chunks(text)] == sizes


def test_a_message_of_a_hundred_kilobytes_is_cut_quickly() -> None:
    assert sum(map(len, chunks("word " * 20_000))) == 100_000


def test_a_chunk_is_counted_as_claude_code_counts_and_cuts_nothing_apart() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    cut = list(chunks(family * 200))
    assert max(len(chunk.encode("utf-16-le")) // 2 for chunk in cut) <= CHUNK_CHARACTERS
    assert all(chunk.startswith("\U0001f468") and chunk.endswith("\U0001f467") for chunk in cut)


def test_the_last_line_is_a_chunk_of_its_own() -> None:
    assert list(chunks(frame(3, "user", "x")))[-1] == tail(3)
