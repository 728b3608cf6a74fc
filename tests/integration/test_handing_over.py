"""The lane from role to role: a commit by one is told to the next, once, with what to type; real git, real guards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import boundaries, host, messages, orchestrations, signals, store
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
