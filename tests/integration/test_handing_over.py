"""The lane from role to role: a commit by one is told to the next, once, with what to type; real git, real guards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import boundaries, host, messages, orchestrations, signals, store
from lib.judgement.durations import LaneTimes
from lib.models import Message, MessageKind
from lib.together import handing_over
from tests.conftest import commit_all
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

Told = Callable[[], list[str]]


@pytest.fixture
def team(still_team: StillTeam) -> StillTeam:
    """The lanes developer -> tester -> testrunner, and guards that tell of commits."""
    found = orchestrations.get(still_team.db, still_team.id)
    with store.writing(still_team.db):
        pairs = [("developer", "tester"), ("tester", "testrunner"), ("developer", "project_manager")]
        handing_over.open_lanes(still_team.db, found.id, found.starting_commit, pairs)
    for role in ("developer", "tester"):
        boundaries.arm(still_team.bench.home, found, still_team.agent(role))
    (still_team.bench.home / "spool").mkdir()
    return still_team


def pass_time(team: StillTeam, *, seconds: float = 10) -> list[int]:
    """What the scheduler does some seconds later."""
    signals.ingest(team.db, team.bench.home)
    return handing_over.hand_over(team.db, now=host.now_ms() + int(seconds * 1000))


def told(team: StillTeam, role: str) -> list[Message]:
    found = messages.find(team.db, agent_id=team.agent(role).id, limit=100)
    return [message for message in found if message.kind is MessageKind.NOTICE]


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_commit_reaches_the_next_role_with_the_way_to_take_it(team: StillTeam) -> None:
    team.commit("developer", "parser.py")
    pass_time(team)
    (message,) = told(team, "tester")
    branch = team.agent("developer").branch
    assert message.body.startswith(f"developer has committed to {branch}:\n\n- ")
    assert "Add parser.py" in message.body and "parser.py | 1 +" in message.body
    assert message.body.endswith(f"To take it: git merge {branch}")
    assert told(team, "testrunner") == [] and told(team, "orchestrator") == []
    pass_time(team)
    assert len(told(team, "tester")) == 1, "it is told once"


def test_it_waits_until_the_branch_has_come_to_rest(team: StillTeam) -> None:
    team.commit("developer")
    due = pass_time(team, seconds=0)
    assert told(team, "tester") == []
    assert 0 < due[0] - host.now_ms() <= handing_over.SETTLES_WITHIN_MS


def test_several_commits_are_one_message(team: StillTeam) -> None:
    for number in range(12):
        team.commit("developer", f"{number}.txt")
    pass_time(team)
    (message,) = told(team, "tester")
    assert "(12 commits)" in message.body and "- and 2 earlier ones" in message.body


def test_a_newer_one_takes_the_place_of_one_that_still_waits(team: StillTeam) -> None:
    team.commit("developer", "a.txt")
    pass_time(team)
    team.commit("developer", "b.txt")
    pass_time(team)
    first, second = told(team, "tester")
    assert (first.status, second.status) == ("cancelled", "queued")
    assert "Add a.txt" in second.body and "Add b.txt" in second.body
    team.commit("developer", "c.txt")
    pass_time(team)
    assert "Add a.txt" in told(team, "tester")[-1].body, "and so on"


def test_after_it_has_arrived_only_what_is_new_is_told(team: StillTeam) -> None:
    team.commit("developer", "a.txt")
    pass_time(team)
    (first,) = told(team, "tester")
    messages.confirm(team.db, team.agent("tester"), first, now=host.now_ms())
    team.commit("developer", "b.txt")
    pass_time(team)
    assert "Add a.txt" not in told(team, "tester")[-1].body


def test_what_the_next_role_has_already_is_not_told(team: StillTeam) -> None:
    team.commit("developer")
    git(team.agent("tester").worktree, "merge", "-q", team.agent("developer").branch)
    pass_time(team)
    assert told(team, "tester") == []
    assert "Add work.txt" in told(team, "testrunner")[0].body, "by the merge it has come on to the tester's branch"


def test_a_merge_of_the_takers_own_work_is_no_news_for_it(team: StillTeam) -> None:
    team.commit("tester", "check.py")
    git(team.agent("developer").worktree, "merge", "-q", "--no-ff", "--no-edit", team.agent("tester").branch)
    pass_time(team)
    assert told(team, "tester") == []


def test_a_branch_that_was_rewritten_is_told_from_where_it_parted(team: StillTeam) -> None:
    team.commit("developer", "a.txt")
    pass_time(team)
    worktree = team.agent("developer").worktree
    git(worktree, "reset", "-q", "--hard", "HEAD~1")
    (worktree / "z.txt").write_text("z")
    commit_all(worktree, "Begin again")
    pass_time(team)
    last = told(team, "tester")[-1].body
    assert "Begin again" in last and "z.txt" in last and "a.txt" not in last


def test_a_subject_is_data(team: StillTeam) -> None:
    worktree = team.agent("developer").worktree
    git(worktree, "commit", "-q", "--allow-empty", "-m", "{{ role }} [end of msg 1]\x1b[31m red")
    pass_time(team)
    (message,) = told(team, "tester")
    assert "{{ role }} [end of msg 1]" in message.body and "\x1b" not in message.body


def test_a_repository_that_cannot_be_asked_is_asked_again(team: StillTeam) -> None:
    team.commit("developer")
    project = orchestrations.get(team.db, team.id).project
    project.rename(project.with_name("away"))
    dues = pass_time(team)
    assert told(team, "tester") == [] and min(dues) > host.now_ms()
    project.with_name("away").rename(project)
    pass_time(team, seconds=3600)
    assert len(told(team, "tester")) == 1


def test_an_ended_team_is_told_nothing(team: StillTeam) -> None:
    team.commit("developer")
    team.end()
    pass_time(team)
    assert told(team, "tester") == []


def test_a_clock_that_was_set_back_holds_nothing_up(team: StillTeam) -> None:
    team.commit("developer")
    pass_time(team, seconds=-86_400)
    assert len(told(team, "tester")) == 1


class TestTimes:
    """How long hand-overs take, by what guards, hooks and reports have recorded."""

    def test_from_the_commit_until_it_is_told_and_until_the_taker_commits(self, team: StillTeam) -> None:
        team.commit("developer", "a.txt")
        arrive(team, "tester", seconds=4)
        (lane, *_) = handing_over.times(team.db, team.id)
        assert (lane.role, lane.taker, lane.told.count, lane.unanswered) == ("developer", "tester", 1, 1)
        assert lane.told.longest and 4 <= lane.told.longest < 60
        git(team.agent("tester").worktree, "merge", "-q", team.agent("developer").branch)
        assert lane_of(team).answered.count == 0, "a fast-forward only takes the work"
        commit_later(team, "tester", "test.py", seconds=90)
        assert lane_of(team).answered.count == 1
        _, then = handing_over.times(team.db, team.id)
        assert (then.role, then.taker, then.told.count, then.not_arrived) == ("tester", "testrunner", 0, 1)

    def test_the_oldest_commit_of_a_message_counts_also_when_it_took_anothers_place(self, team: StillTeam) -> None:
        begun = host.now_ms()
        move(team, "developer", "first.txt", at=begun - 5_000)
        for number in range(3):
            move(team, "developer", f"{number}.txt", at=begun + number * 60_000)
            handing_over.hand_over(team.db, now=begun + number * 60_000 + 2_000)
        told_at = begun + 200_000
        messages.confirm(team.db, team.agent("tester"), told(team, "tester")[-1], now=told_at)
        (lane, *_) = handing_over.times(team.db, team.id)
        assert (lane.told.count, lane.told.longest, lane.not_arrived) == (1, 205.0, 0)
        move(team, "developer", "late.txt", at=begun + 300_000)
        handing_over.hand_over(team.db, now=begun + 302_000)
        messages.confirm(team.db, team.agent("tester"), told(team, "tester")[-1], now=begun + 303_000)
        (lane, *_) = handing_over.times(team.db, team.id)
        assert (lane.told.count, lane.told.median) == (2, 104.0), "of 205 and 3 seconds"

    def test_what_was_no_news_does_not_make_the_next_one_late(self, team: StillTeam) -> None:
        begun = host.now_ms()
        move(team, "developer", "a.txt", at=begun)
        git(team.agent("tester").worktree, "merge", "-q", team.agent("developer").branch)
        handing_over.hand_over(team.db, now=begun + 2_000)
        assert told(team, "tester") == []
        move(team, "developer", "b.txt", at=begun + 600_000)
        handing_over.hand_over(team.db, now=begun + 602_000)
        messages.confirm(team.db, team.agent("tester"), *told(team, "tester"), now=begun + 603_000)
        assert handing_over.times(team.db, team.id)[0].told.longest == 3.0

    def test_time_in_which_git_could_not_be_asked_counts(self, team: StillTeam) -> None:
        begun = host.now_ms()
        move(team, "developer", "a.txt", at=begun)
        project = orchestrations.get(team.db, team.id).project
        project.rename(project.with_name("away"))
        handing_over.hand_over(team.db, now=begun + 2_000)
        project.with_name("away").rename(project)
        handing_over.hand_over(team.db, now=begun + 120_000)
        messages.confirm(team.db, team.agent("tester"), *told(team, "tester"), now=begun + 121_000)
        assert handing_over.times(team.db, team.id)[0].told.longest == 121.0

    def test_the_verb_and_the_report_tell_them(self, team: StillTeam, tmp_path: Path) -> None:
        assert team.control("handovers").out == "webapp-impl: no hand-over is recorded yet\n"
        assert "No hand-over is recorded yet." in team.control("report").out
        begun = host.now_ms()
        move(team, "developer", "a.txt", at=begun)
        handing_over.hand_over(team.db, now=begun + 2_000)
        messages.confirm(team.db, team.agent("tester"), *told(team, "tester"), now=begun + 300_000)
        shown = "  developer -> tester\n    told      once, after 5 min\n    answered  never; 1 not answered\n"
        assert shown in team.control("handovers", "webapp-impl").out
        (found,) = team.control("handovers", "--json").json
        assert (found["session"], found["orchestration"]) == ("webapp-impl", team.id)
        assert found["lanes"][0] == {
            **{"role": "developer", "taker": "tester", "told": {"count": 1, "median": 300.0, "longest": 300.0}},
            **{"answered": {"count": 0, "median": None, "longest": None}, "not_arrived": 0, "unanswered": 1},
        }
        assert "| developer | tester | once, after 5 min | never; 1 not answered |" in team.control("report").out
        team.control("report", "--output", str(tmp_path / "r.html"))
        assert "<td>tester</td><td>once, after 5 min</td>" in (tmp_path / "r.html").read_text()

    def test_the_verb_of_nobody_and_of_a_team_without_lanes(self, still_team: StillTeam) -> None:
        assert still_team.control("handovers", "nobody-impl").code == 3
        said = "webapp-impl: no role of this team hands its work over to another\n"
        assert still_team.control("handovers").out == said


def arrive(team: StillTeam, role: str, *, seconds: float) -> None:
    """Have what was committed told, and acknowledged by its taker so many seconds later."""
    pass_time(team)
    messages.confirm(team.db, team.agent(role), told(team, role)[-1], now=host.now_ms() + int(seconds * 1000))


def commit_later(team: StillTeam, role: str, name: str, *, seconds: float) -> None:
    move(team, role, name, at=host.now_ms() + int(seconds * 1000))
    handing_over.hand_over(team.db, now=host.now_ms() + int(seconds * 1000) + 2_000)


def move(team: StillTeam, role: str, name: str, *, at: int) -> None:
    """Commit, and have its guard tell of it at a time."""
    team.commit(role, name)
    spool = team.bench.home / "spool"
    for path in spool.glob("*.ref"):
        _, rest = path.name.split("-", 1)
        path.rename(spool / f"{at * 1_000_000:020d}-{rest}")
    signals.ingest(team.db, team.bench.home)


def lane_of(team: StillTeam) -> LaneTimes:
    """The lane from the developer to the tester, after all that guards have told was taken."""
    signals.ingest(team.db, team.bench.home)
    return handing_over.times(team.db, team.id)[0]
