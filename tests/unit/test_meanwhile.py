"""What an agent is told of the time that it was away."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lib import templates
from lib.judgement import meanwhile
from lib.judgement.meanwhile import Commits, told
from lib.models import Event

ROLES = {1: "orchestrator", 2: "developer", 3: "tester"}


def event(kind: str, agent_id: int | None = None, **data: object) -> Event:
    return Event(1, 0, kind, "a1b2c3", agent_id, None, data)


def report(agent_id: int, summary: str) -> Event:
    return event("report.completion", agent_id, summary=summary, commit="0123456789abcdef")


def lines(
    agent_id: int = 1,
    gone: Collection[int] = (),
    events: Sequence[Event] = (),
    commits: Sequence[Commits] = (),
    senders: Sequence[str] = (),
) -> list[str]:
    return told(agent_id, roles=ROLES, gone=gone, events=events, commits=commits, senders=senders)


def test_nothing_has_happened() -> None:
    assert lines() == []
    assert lines(gone={1}) == []


def test_who_else_was_interrupted() -> None:
    assert lines(gone={1, 3}) == ["also started again: tester"]
    assert lines(gone={1, 2, 3}) == ["the whole team was interrupted and is started again"]
    # One that was started again while this one was still gone, and ourselves.
    starts = [event("agent.starting", 2, resumed=True), event("agent.starting", 1)]
    assert lines(gone={1}, events=starts) == ["also started again: developer"]


def test_reports_errors_and_the_state_of_the_team() -> None:
    events = [
        event("orchestration.needs_attention", outcome="the tester has ended"),
        event("hook.StopFailure", 3, details={"error": "rate_limit"}),
        event("hook.StopFailure", 2, details={}),
        report(2, "The first part"),
        report(2, "All of it"),
        report(1, "our own"),
    ]
    assert lines(events=events) == [
        "the team needed a person's attention: the tester has ended",
        "a turn of the tester ended with an error: rate_limit",
        "a turn of the developer ended with an error: unknown",
        "the developer reported completion with commit 0123456: All of it",
    ]


def test_commits_and_messages_that_wait() -> None:
    commits = [Commits("developer", 1, "abc1234", "Add a form"), Commits("tester", 12, "def5678", "Test it")]
    assert lines(commits=commits, senders=["tester", "user", "tester"]) == [
        "the developer has 1 new commit, the newest abc1234: Add a form",
        "the tester has 12 new commits, the newest def5678: Test it",
        "3 messages wait for you, from tester (2), user, and will come now",
    ]
    assert lines(senders=["user"]) == ["1 message waits for you, from user, and will come now"]


def test_it_is_short_however_much_there_was() -> None:
    text = "long\nlines with\ttabs " * 100
    commits = [Commits(f"role{number}", 3, "abc1234", text) for number in range(50)]
    told = lines(commits=commits, senders=["user"])
    assert len(told) == meanwhile.MOST_LINES
    assert told[-2:] == ["and 40 more", "1 message waits for you, from user, and will come now"]
    assert all(len(line) <= meanwhile.LONGEST_LINE and "\n" not in line for line in told)


def test_the_note_holds_it_and_takes_none_of_it_for_a_template() -> None:
    subject = "{{ away }} {% raw %} `rm -rf .`"
    text = templates.render(
        "interrupted.md",
        away="2 h 5 min",
        since="2026-11-24 05:12",
        lines=lines(commits=[Commits("developer", 1, "abc1234", subject)]),
    )
    assert text.startswith("You were interrupted")
    assert "2 h 5 min ago, at 2026-11-24 05:12" in text
    assert text.rstrip().endswith(f"- the developer has 1 new commit, the newest abc1234: {subject}")
    assert "meanwhile:" not in templates.render("interrupted.md", away="3 s", since="2026-11-24 05:12", lines=[])
