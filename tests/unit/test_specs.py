"""Reading a spec: headings, keys, lists, titles, and what is no spec."""

from __future__ import annotations

import re
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import OrchestratorError
from lib.judgement.specs import MAXIMUM_BYTES, parse, slug

PATH = PurePath("specs/auth-system.md")


def sections(text: str) -> dict[str, tuple[str, ...]]:
    return parse(text.encode(), PATH).sections


SECTIONS = [
    # A heading and its lines.
    ("# Goal\nSay hello.\nTwice.\n", {"goal": ("Say hello.", "Twice.")}),
    # Lists of every kind lose their marks.
    ("## Deliverables\n- a\n* b\n+ c\n1. d\n2) e\n", {"deliverables": ("a", "b", "c", "d", "e")}),
    # A list that is indented.
    ("DELIVERABLES:\n  - a\n    - b\n", {"deliverables": ("a", "b")}),
    # A key with its value on the line, and below it.
    ("GOAL: Say hello.\n", {"goal": ("Say hello.",)}),
    ("GOAL:\nSay hello.\n", {"goal": ("Say hello.",)}),
    # A key of two words.
    ("SUCCESS CRITERIA:\n- works\n", {"success criteria": ("works",)}),
    # A heading with a colon, and one that is closed.
    ("## Constraints:\nnone\n", {"constraints": ("none",)}),
    ("## Constraints ##\nnone\n", {"constraints": ("none",)}),
    # The same name twice is one section.
    ("# Goal\na\n# Other\nb\n# GOAL\nc\n", {"goal": ("a", "c"), "other": ("b",)}),
    # Text before the first heading belongs to none.
    ("hello\n# Goal\na\n", {"goal": ("a",)}),
    # A word in capitals in the middle of a sentence, a short one, a lower-case one: no keys.
    ("# Goal\nsee NOTE: this\nOK: fine\nnote: that\n", {"goal": ("see NOTE: this", "OK: fine", "note: that")}),
    # A heading needs its space: this is a reference.
    ("# Goal\n#12 is open\n", {"goal": ("#12 is open",)}),
    # An empty section is there.
    ("# Goal\n\n# Next\nx\n", {"goal": (), "next": ("x",)}),
    # Ends of lines of Windows, and a byte order mark.
    ("\ufeffGOAL:\r\n- a\r\n- b\r\n", {"goal": ("a", "b")}),
]


@pytest.mark.parametrize(("text", "found"), SECTIONS)
def test_sections_are_read(text: str, found: dict[str, tuple[str, ...]]) -> None:
    assert sections(text) == found


TITLES = [
    # The project's own line wins over a heading.
    ("# Heading\nPROJECT: Greeting\n", "Greeting"),
    ("PROJECT:\nGreeting\n", "Greeting"),
    ("## Project\n- Greeting\n", "Greeting"),
    # A project line that says nothing.
    ("# Heading\nPROJECT:\n", "Heading"),
    # The first heading of any depth.
    ("hello\n### Third\n# First\n", "Third"),
    # Neither: the file's name.
    ("Please build a thing.\n", "auth-system"),
]


@pytest.mark.parametrize(("text", "title"), TITLES)
def test_a_spec_has_a_title(text: str, title: str) -> None:
    assert parse(text.encode(), PATH).title == title


REFUSED = [
    # Nothing in it.
    (b"", "is empty"),
    (b" \n\t\n", "is empty"),
    ("\ufeff\n".encode(), "is empty"),
    # Not text.
    (b"# Goal\n\xff\xfe", r"is not UTF-8 text \(line 2, byte 7\)"),
    (b"# Goal\n\0", "is a binary file"),
    # Not a spec.
    (b"x" * (MAXIMUM_BYTES + 1), "more than 1,000,000 bytes"),
]


@pytest.mark.parametrize(("content", "words"), REFUSED)
def test_what_is_no_spec_is_refused_by_name(content: bytes, words: str) -> None:
    with pytest.raises(OrchestratorError, match=words) as raised:
        parse(content, PATH)
    assert str(PATH) in raised.value.sentence


def test_the_text_is_kept_as_it_was_written() -> None:
    text = "# Goal\r\n\r\n  Say  hello.\t\r\n"
    spec = parse(text.encode(), PATH)
    assert spec.text == text
    assert spec.deliverables == ()


def test_the_digest_names_the_content() -> None:
    one, same, other = (parse(text, PATH) for text in (b"# A\n", b"# A\n", b"# B\n"))
    assert one.digest == same.digest != other.digest
    assert re.fullmatch(r"[0-9a-f]{12}", one.digest)


SLUGS = [
    ("webapp", "webapp"),
    ("My Web.App", "my-web-app"),
    ("--x--", "x"),
    # What tmux would read as a target.
    ("a:b.c", "a-b-c"),
    # No letter is left.
    ("日本語", "project"),
    ("", "project"),
    ("...", "project"),
    # Cut, and not behind a dash.
    ("x" * 50, "x" * 40),
    ("x" * 39 + " tail", "x" * 39),
]


@pytest.mark.parametrize(("text", "name"), SLUGS)
def test_a_slug_is_a_name_for_every_tool(text: str, name: str) -> None:
    assert slug(text) == name


@given(st.text(), st.integers(7, 60))
def test_every_slug_is_a_name(text: str, longest: int) -> None:
    name = slug(text, longest=longest)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(name) <= longest
    assert slug(name, longest=longest) == name


@given(st.text(min_size=1).filter(lambda text: text.strip(" \n\t") and "\0" not in text))
def test_every_text_is_a_spec_or_refused(text: str) -> None:
    try:
        spec = parse(text.encode("utf-8", "replace"), PATH)
    except OrchestratorError as error:
        assert "empty" in error.sentence or "front matter" in error.sentence
    else:
        assert spec.title


CRITERIA = [
    (
        "# Success criteria\n- all forms validate  [check: pytest tests -q]",
        [("C1", "all forms validate", "pytest tests -q", 2)],
    ),
    ("SUCCESS CRITERIA:\n- a\n- b", [("C1", "a", None, 2), ("C2", "b", None, 3)]),
    ("Success criteria:\n1. a", [("C1", "a", None, 2)]),
    ("## Acceptance Criteria ##\n- a [check: test [ -f x ]]", [("C1", "a", "test [ -f x ]", 2)]),
    ("# Definition of done\n- a\n  goes on\n  [check: make]", [("C1", "a goes on", "make", 2)]),
    ("# Success criteria\n```\n# Goal\n- no item\n```\n- a", [("C1", "a", None, 6)]),
    ("```\n# Success criteria\n- a\n```", []),
    ("~~~\nSUCCESS CRITERIA:\n```\n- a", []),
    ("# Goal\nNote: a [check:", []),
]


@pytest.mark.parametrize(("text", "read"), CRITERIA)
def test_criteria(text: str, read: list[tuple[str, str, str | None, int]]) -> None:
    found = parse(text.encode(), PurePath("spec.md")).criteria
    assert [(one.id, one.text, one.check, one.line) for one in found] == read


@pytest.mark.parametrize("check", ["[check: ]", "[check: make", "[check: a] [check: b]"])
def test_a_wrong_check_is_refused_with_its_line(check: str) -> None:
    with pytest.raises(OrchestratorError, match=r"spec\.md, line 3: the check"):
        parse(f"# Done\n# Success criteria\n- a {check}".encode(), PurePath("spec.md"))


#: A spec; what is read of it: title, criteria with their checks, deliverables.
READ = [
    ("Say hello.", "auth-system", [], []),
    ("# Login\n\nPeople can log in.\n", "Login", [], []),
    ("Login\n=====\n", "auth-system", [], []),
    ("PROJECT: Login\n", "Login", [], []),
    ("project: Login\n", "Login", [], []),
    ("Project : Login\n", "Login", [], []),
    ("# A heading\nPROJECT: Login\n", "Login", [], []),
    ("# PROJECT\nLogin\n", "Login", [], []),
    ("---\nproject: Login\n---\n", "Login", [], []),
    ("---\nTitle: Login\n---\n# Another\n", "Login", [], []),
    ("---\ntitle: A\nproject: B\n---\n", "B", [], []),
    ("---\nauthor: nobody\n---\n# Login\n", "Login", [], []),
    ("---\ntitle: Login\n", "auth-system", [], []),
    ("---\nsome prose\n---\n# Login\n", "Login", [], []),
    ("\n---\ntitle: A\n---\n# Login\n", "Login", [], []),
    ("# Login\n---\ntitle: A\n---\n", "Login", [], []),
    ("# L\nDELIVERABLES:\n- a page\n- a form\n", "L", [], ["a page", "a form"]),
    ("# L\nDeliverables: a page\n", "L", [], ["a page"]),
    ("# L\nA sentence with\nDeliverables: a page\n", "L", [], []),
    ("# L\n\nDeliverables: a page\n", "L", [], ["a page"]),
    ("# L\n## Deliverables\n1. a page\n2) a form\n", "L", [], ["a page", "a form"]),
    ("# L\n## DELIVERABLES:\na page\na form\n", "L", [], ["a page", "a form"]),
    ("# L\nDELIVERABLES:\n- a page\n  with a form\n", "L", [], ["a page with a form"]),
    ("# L\nDELIVERABLES:\n- a page\n\n- a form\n", "L", [], ["a page", "a form"]),
    ("# L\nDELIVERABLES:\n```\n- code\n```\n- a page\n", "L", [], ["a page"]),
    ("---\ndeliverables: [a page, a form]\n---\n# L\n", "L", [], ["a page", "a form"]),
    ("---\ndeliverables:\n- a page\n---\n# L\n# Deliverables\n- a form\n", "L", [], ["a page", "a form"]),
    ("# L\nSUCCESS CRITERIA:\n- it works\n", "L", [("it works", None)], []),
    ("# L\nACCEPTANCE CRITERIA:\n- it works\n", "L", [("it works", None)], []),
    ("# L\nDefinition of done:\n- it works\n", "L", [("it works", None)], []),
    ("# L\nsuccess criteria:\n- a [check: make]\n", "L", [("a", "make")], []),
    (
        "# L\n# Success Criteria\n- a [check: pytest tests/x -q]\n- b\n",
        "L",
        [("a", "pytest tests/x -q"), ("b", None)],
        [],
    ),
    ("# L\n# Success Criteria\n- a [check: sh -c '[ -f x ]']\n", "L", [("a", "sh -c '[ -f x ]'")], []),
    ("# L\n# Success Criteria\n- a [1] of [2]\n", "L", [("a [1] of [2]", None)], []),
    ("# L\n# Success Criteria\n\n~~~sh\nmake check\n~~~\n- a\n", "L", [("a", None)], []),
    ("---\nsuccess criteria:\n- 'a [check: make]'\n---\n# L\n", "L", [("a", "make")], []),
    ("---\nsuccess criteria: |\n  a\n  b\n---\n# L\n", "L", [("a b", None)], []),
    ("# L\n# Success criteria\n- a\n# Goal\n- no criterion\n", "L", [("a", None)], []),
    (
        "# L\n# Success criteria\n- a\n- the page names its\nGoal: a word in a sentence\n",
        "L",
        [("a", None), ("the page names its", None), ("Goal: a word in a sentence", None)],
        [],
    ),
    ("# L\n# Success criteria\n- a\nSecurity:\n- no criterion\n", "L", [("a", None)], []),
    ("# L\n# Success criteria\n- a\nSECURITY: none\n- no criterion\n", "L", [("a", None)], []),
    ("# L\n# Success criteria\n- a\n\n# Definition of done\n- b\n", "L", [("a", None), ("b", None)], []),
    ("Goal: a\nConstraints:\n- b\nDeliverables:\n- c\nSuccess criteria:\n- d\n", "auth-system", [("d", None)], ["c"]),
    ("# L\r\n## Deliverables\r\n- a page\r\n", "L", [], ["a page"]),
    ("\N{ZERO WIDTH NO-BREAK SPACE}# L\nDELIVERABLES:\n- a page\n", "L", [], ["a page"]),
]


@pytest.mark.parametrize(("text", "title", "criteria", "deliverables"), READ)
def test_a_spec_is_read(text: str, title: str, criteria: list[tuple[str, str | None]], deliverables: list[str]) -> None:
    spec = parse(text.encode(), PATH)
    assert spec.title == title
    assert [(one.text, one.check) for one in spec.criteria] == criteria
    assert [one.id for one in spec.criteria] == [f"C{number}" for number in range(1, len(criteria) + 1)]
    assert [one.text for one in spec.deliverables] == deliverables


WRONG = [
    (b"# L\n# Success criteria\n- a [check: make\n", "line 3: the check is not closed"),
    (b"# L\n\n# Success criteria\n- a\n  [check: ]\n", "line 4: the check is empty"),
    (
        b"# L\n# Success criteria\n- a\n- b\n  [check: grep 'it works page]\n",
        "line 4: the check cannot be split into words: No",
    ),
    (b"# L\n# Success criteria\n- a [check: make \\]\n", "line 3: the check cannot be split into words: No escaped"),
    (b"---\nsuccess criteria: ['a [check: b] [check: c]']\n---\n", "line 2: the check is not the only one"),
    (b"---\ntitle: [a\n---\n# L\n", "line 2: the front matter cannot be read"),
    (b"---\ntitle: L\ndeliverables:\n- {a: b}\n---\n", "line 4: deliverables in the front matter must be text"),
    (b"---\na: " + b"[" * 15_000 + b"\n---\n", "the front matter cannot be read"),
    (b"---\na: " + b"x" * 30_000 + b"\n---\n", "line 1: the front matter has more than 20,000 characters"),
    (b"# L\n\n\xff\n", "not UTF-8 text (line 3, byte 5)"),
    (b"# L\n\0\n", "a binary file (line 2 holds a null character)"),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_what_is_wrong_is_told_with_its_line(content: bytes, words: str) -> None:
    with pytest.raises(OrchestratorError) as caught:
        parse(content, PATH)
    assert words in caught.value.sentence


def test_a_known_key_counts_in_any_case_and_others_are_prose() -> None:
    assert list(parse(b"goal: a\nNote: b\nTEAM: c", PurePath("spec.md")).sections) == ["goal", "team"]


@pytest.mark.parametrize("text", ["# " + " " * 900_000 + "x", "# " + "#" * 900_000 + "x", "- a\n" * 200_000])
def test_awkward_text_is_read_before_the_test_runner_gives_up(text: str) -> None:
    parse(text.encode(), PurePath("spec.md"))
