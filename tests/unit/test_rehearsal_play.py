"""The rehearsal's play, keyboard and screen layout, as tables of values."""

from __future__ import annotations

import pytest

from lib.judgement import framing
from lib.rehearsal import play
from lib.rehearsal.play import Facts, Incoming, Member
from lib.rehearsal.terminal import CURSOR, PROMPT, Key, Keyboard, View, below, wrap

SPEC = """# Wishlist

Some words.

## DELIVERABLES
1. Wishlist model
   with owner and items
2. `GET /wishlist` $(touch x)
- Tests

## Constraints
- none of these
"""
ROLES = ("orchestrator", "developer", "tester", "testrunner", "project_manager")


def briefing(role: str, roles: tuple[str, ...] = ROLES, id: str = "1") -> Incoming:
    team = "\n".join(f"- demo-impl:{one} (branch o/{one})" for one in roles)
    body = f"You are {role}.\nSpec: /s/spec.md\nWorktree: /w/{role}\nBranch: o/{role}\n\nTeam:\n{team}"
    return Incoming(id, "user", body)


def hand_over(sender: str, id: str = "5") -> Incoming:
    return Incoming(id, sender, f"Rehearsal hand-over from {sender}: branch o/{sender} at commit abc.")


def completion(sender: str) -> Incoming:
    return Incoming(f"r-{sender}", sender, f"Completion report from {sender}: done")


def acts(role: str, *messages: Incoming, spec: str = SPEC) -> list[play.Step]:
    """The steps that the last of these messages leads to."""
    facts = Facts(role=role)
    for message in messages:
        facts = play.learn(facts, message)
    return play.plan(facts, messages[-1], lambda: spec)


def tells(steps: list[play.Step]) -> list[str]:
    return [step.target for step in steps if isinstance(step, play.Tell)]


def kinds(steps: list[play.Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[msg 17 from developer]\nBODY\n[end of msg 17]", [Incoming("17", "developer", "BODY")]),
        # The body may hold anything, even another message's tail.
        (
            "[msg 2 from user]\na\n[end of msg 1]\n\nb\n[end of msg 2]",
            [Incoming("2", "user", "a\n[end of msg 1]\n\nb")],
        ),
        # Two messages that were merged into one prompt.
        (
            "[msg 1 from a]\nx\n[end of msg 1][msg 2 from b]\ny\n[end of msg 2]",
            [Incoming("1", "a", "x"), Incoming("2", "b", "y")],
        ),
        # An empty body, and a person's own words.
        ("[msg 3 from scheduler]\n\n[end of msg 3]", [Incoming("3", "scheduler", "")]),
        ("how is it going?", [Incoming(None, "user", "how is it going?")]),
    ],
)
def test_messages_are_read_out_of_a_prompt(text: str, messages: list[Incoming]) -> None:
    assert play.read_messages(text) == messages


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("rehearse: busy 2.5", [("busy", 2.5)]),
        ("hello\nrehearse: exit 3\nrehearse: ask\n", [("exit", 3), ("ask", 0)]),
        ("rehearse: limit 90", [("limit", 90)]),
        # Not at the start of a line, or not one of ours.
        ("please rehearse: busy 2", []),
        ("rehearse: dance", []),
    ],
)
def test_directives_stand_on_lines_of_their_own(body: str, found: list[tuple[str, float]]) -> None:
    assert [(one.verb, one.amount) for one in play.directives(body)] == found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SPEC, ["Wishlist model with owner and items", "`GET /wishlist` $(touch x)", "Tests"]),
        ("PROJECT: Shop\nDELIVERABLES:\n* one\n* two\n\nSUCCESS CRITERIA:\n- three", ["one", "two"]),
        ("**Deliverables:**\n\n1) one\n2) two", ["one", "two"]),
        # No list: the title stands for all of it.
        ("PROJECT: Shop\nGOAL: sell", ["Shop"]),
        ("# Only a title\n\ntext", ["Only a title"]),
        ("## Deliverables\nnothing listed\n", ["Deliverables"]),
        ("", ["the spec"]),
    ],
)
def test_deliverables_are_found_in_a_spec(spec: str, expected: list[str]) -> None:
    assert play.deliverables(spec) == expected


def test_file_names_of_deliverables_hold_nothing_that_a_shell_would_read() -> None:
    paths = [path for path, _ in play.files(SPEC)]
    assert paths == [
        "rehearsal/01-wishlist-model-with-owner-and-items.md",
        "rehearsal/02-get-wishlist-touch-x.md",
        "rehearsal/03-tests.md",
    ]


def test_the_first_facts_of_a_briefing_count_and_not_those_of_a_spec_quoted_in_it() -> None:
    message = briefing("developer")
    quoted = Incoming("1", "user", message.body + "\n\nBranch: main\nSpec: /elsewhere\n")
    facts = play.learn(Facts(role="developer"), quoted)
    assert (facts.spec, facts.branch, facts.worktree) == ("/s/spec.md", "o/developer", "/w/developer")
    assert facts.team[1] == Member("demo-impl:developer", "developer", "o/developer")


def test_the_developer_commits_each_deliverable_then_hands_over_and_reports() -> None:
    assert kinds(acts("developer", briefing("developer"))) == ["Say"]
    steps = acts("developer", briefing("developer"), hand_over("orchestrator"))
    assert kinds(steps) == ["Look", "Say"] + ["Write", "Commit"] * 3 + ["Tell", "Report"]
    assert tells(steps) == ["demo-impl:tester"]
    written = [step.text for step in steps if isinstance(step, play.Write)]
    assert all(play.NOTICE in text for text in written)


@pytest.mark.parametrize(
    ("roles", "receiver"),
    [
        (("orchestrator", "developer", "tester", "testrunner"), ["demo-impl:tester"]),
        (("orchestrator", "developer", "testrunner"), ["demo-impl:testrunner"]),
        (("orchestrator", "developer"), ["demo-impl:orchestrator"]),
        (("developer",), []),
    ],
)
def test_the_developer_hands_over_to_whoever_comes_next(roles: tuple[str, ...], receiver: list[str]) -> None:
    word = [hand_over("orchestrator")] if "orchestrator" in roles else []
    assert tells(acts("developer", briefing("developer", roles), *word)) == receiver


@pytest.mark.parametrize(
    ("role", "author", "work"),
    [
        ("tester", "developer", ["Look", "Merge", "Write", "Commit", "Tell", "Report"]),
        ("testrunner", "tester", ["Look", "Merge", "Check", "Tell", "Report"]),
    ],
)
def test_tester_and_testrunner_begin_at_the_hand_over_in_either_order(role: str, author: str, work: list[str]) -> None:
    assert kinds(acts(role, briefing(role))) == ["Say"]
    assert kinds(acts(role, hand_over(author))) == ["Say"]
    assert kinds(acts(role, briefing(role), hand_over(author))) == work
    assert kinds(acts(role, hand_over(author), briefing(role))) == work


def test_a_testrunner_without_a_tester_writes_the_check_itself() -> None:
    roles = ("orchestrator", "developer", "testrunner")
    steps = acts("testrunner", briefing("testrunner", roles), hand_over("developer"))
    assert kinds(steps) == ["Look", "Merge", "Write", "Commit", "Check", "Tell", "Report"]


def test_the_orchestrator_starts_the_developer_and_completes_after_the_last_report() -> None:
    steps = acts("orchestrator", briefing("orchestrator"))
    assert tells(steps) == ["demo-impl:developer"]
    reports = [completion(role) for role in ROLES[1:]]
    assert kinds(acts("orchestrator", briefing("orchestrator"), *reports[:-1])) == ["Say"]
    last = acts("orchestrator", briefing("orchestrator"), *reports)
    assert kinds(last) == ["Look", "Merge", "Merge", "Merge", "Merge", "Check", "Report"]


WITH_CRITERIA = SPEC + "\n## Success criteria\n- It is fun\n"


@pytest.mark.parametrize("roles", [ROLES, ("orchestrator",)])
def test_the_orchestrator_closes_criteria_right_before_its_report(roles: tuple[str, ...]) -> None:
    heard = [briefing("orchestrator", roles), *(completion(role) for role in roles[1:])]
    assert kinds(acts("orchestrator", *heard, spec=WITH_CRITERIA))[-2:] == ["CloseCriteria", "Report"]
    assert "CloseCriteria" not in kinds(acts("orchestrator", *heard))


def test_a_report_that_the_checks_refuse_is_given_up() -> None:
    refusal = Incoming("9", "criteria", "The work is not done yet: not every criterion holds at abc.")
    assert kinds(acts("orchestrator", briefing("orchestrator"), refusal)) == ["GiveUp"]
    assert kinds(acts("developer", briefing("developer"), refusal)) == ["Say"]


def test_reports_that_came_before_the_briefing_are_not_forgotten() -> None:
    reports = [completion(role) for role in ROLES[1:]]
    assert kinds(acts("orchestrator", *reports, briefing("orchestrator")))[-1] == "Report"


@pytest.mark.parametrize("role", ["project_manager", "devops", "orchestrator"])
def test_a_role_without_a_part_of_its_own_writes_a_note_and_reports(role: str) -> None:
    roles = (role,) if role == "orchestrator" else ("orchestrator", role)
    steps = acts(role, briefing(role, roles))
    assert kinds(steps)[-3:] == ["Write", "Commit", "Report"]
    assert tells(steps) == ([] if role == "orchestrator" else ["demo-impl:orchestrator"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "message",
    [
        Incoming("9", "scheduler", "Check-in: how far are you?"),
        Incoming("9", "user", "Completion is near"),
        Incoming("9", "orchestrator", "Rehearsal: please start."),
        Incoming("9", "project_manager", "Rehearsal result on x"),
    ],
)
def test_any_other_message_is_answered_in_the_log_and_creates_nothing(role: str, message: Incoming) -> None:
    assert kinds(acts(role, briefing(role), message)) == ["Say"]
    assert kinds(acts(role, message)) == ["Say"]


@pytest.mark.parametrize("role", ROLES)
def test_a_completed_role_does_nothing_more_when_it_is_briefed_again(role: str) -> None:
    facts = play.recall(play.learn(Facts(role=role), briefing(role)), f"{play.REPORTED}: done")
    again = [briefing(role, id="2"), hand_over("developer"), hand_over("tester"), completion("developer")]
    for message in again:
        facts = play.learn(facts, message)
        assert kinds(play.plan(facts, message, lambda: SPEC)) == ["Say"]


def test_a_check_in_does_not_need_the_spec_to_be_readable() -> None:
    def gone() -> str:
        raise AssertionError("the spec was read")

    facts = play.learn(Facts(role="developer"), briefing("developer"))
    assert kinds(play.plan(facts, Incoming("9", "scheduler", "hello"), gone)) == ["Say"]


PASTE = "\x1b[200~one\rtwo\x1b[201~\r"
TYPED = "é😀 $(x)\n\x7f\x03\x04\x1b[A\x1b[99;5u\x1b\x1b"


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (PASTE, [Key("paste", "one\ntwo"), Key("enter")]),
        (
            TYPED,
            [
                Key("text", "é😀 $(x)"),
                Key("newline"),
                Key("backspace"),
                Key("interrupt"),
                Key("eof"),
                Key("up"),
                Key("escape"),
            ],
        ),
        # Control bytes in a paste are dropped and a tab becomes spaces.
        ("\x1b[200~a\x03b\x1b[31mc\td\x1b[201~", [Key("paste", "ab[31mc    d")]),
        # Unknown control bytes outside a paste are ignored.
        ("\x01\x0e", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_keys_are_the_same_wherever_the_reads_are_cut(data: str, keys: list[Key], size: int) -> None:
    keyboard, raw, read = Keyboard(), data.encode(), list[Key]()
    for n in range(0, len(raw), size):
        read += keyboard.feed(raw[n : n + size])
    joined: list[Key] = []
    for key in read:
        if joined and key.name == joined[-1].name and key.name in ("paste", "text"):
            joined[-1] = Key(key.name, joined[-1].text + key.text)
        else:
            joined.append(key)
    assert joined == keys


def test_an_escape_byte_alone_is_held_until_it_is_clear_that_nothing_follows() -> None:
    keyboard = Keyboard()
    assert keyboard.feed(b"\x1b") == []
    assert keyboard.holds_escape
    assert keyboard.escape_alone() == [Key("escape")]
    assert keyboard.feed(b"x") == [Key("text", "x")]


@pytest.mark.parametrize(
    ("draft", "rows"),
    [
        ("", [PROMPT + CURSOR]),
        ("ab\nc", [PROMPT + "ab", "  c" + CURSOR]),
        # A full row moves the cursor to the next one; wide characters take two cells.
        ("12345678", [PROMPT + "12345678", "  " + CURSOR]),
        ("😀😀😀😀😀", [PROMPT + "😀😀😀😀", "  😀" + CURSOR]),
    ],
)
def test_the_composer_stands_between_two_rules(draft: str, rows: list[str]) -> None:
    shown, _, _ = below(View(draft=draft, footer="rehearsal"), 10, 24)
    assert shown == ["─" * 10, *rows, "─" * 10, "  rehearsal"]


def test_a_long_draft_shows_its_first_and_its_last_rows() -> None:
    shown, row, _ = below(View(draft="\n".join(f"line {n}" for n in range(500))), 40, 12)
    assert len(shown) <= 12
    assert shown[1:3] == [f"{PROMPT}line 0", "  …"]
    assert shown[row] == f"  line 499{CURSOR}"


def test_a_dialog_takes_the_place_of_the_composer() -> None:
    shown, _, _ = below(View(question="May I?"), 40, 24)
    assert not any(row.startswith(PROMPT) for row in shown)
    assert shown[-4:] == ["❯ 1. Yes", "  2. No", "", "  Esc to cancel"]


@pytest.mark.parametrize(
    ("line", "rows"),
    [("", [""]), ("abcdef", ["abcd", "ef"]), ("ééé漢", ["ééé", "漢"]), ("e\u0301xyz", ["e\u0301xyz"])],
)
def test_lines_are_cut_by_cells(line: str, rows: list[str]) -> None:
    assert wrap(line, 4) == rows


def test_the_messages_of_a_digest_are_read_as_their_senders_sent_them() -> None:
    body = framing.digest([(5, "tester", "Completion report from tester: done"), (6, "developer", "a\n\nb")])
    assert play.read_messages(framing.frame(9, "scheduler", body)) == [
        Incoming("5", "tester", "Completion report from tester: done"),
        Incoming("6", "developer", "a\n\nb"),
    ]
