"""Keeping what worktrees hold: by the scheduler and by hand, back again, and away only with proof."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lib import agents, boundaries, daemon, host, messages, orchestrations, safekeeping
from lib.errands import Errands
from lib.git import snapshots
from lib.models import Message, MessageKind
from tests.agents import a_life
from tests.conftest import Done, commit_all, snapshot, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def sync(team: StillTeam, *words: str, code: int = 0) -> Done:
    done = team.bench.door("sync_coordinator.py", *words)
    assert done.code == code, f"{words} -> {done.code}\n{done.out}\n{done.err}"
    return done


def project(team: StillTeam) -> Path:
    return orchestrations.get(team.db, team.id).project


def worktree(team: StillTeam, role: str = "developer") -> Path:
    return team.agent(role).worktree


def kept(team: StillTeam, role: str = "developer") -> list[snapshots.Snapshot]:
    return snapshots.every(project(team), team.id, role)


class TestReminder:
    """The rule of thirty minutes: a word to the agent first, and a snapshot always."""

    @staticmethod
    def look(team: StillTeam, minutes: float) -> list[Message]:
        """What the developer was reminded of by a look at its worktree so many minutes from now."""
        safekeeping.keep_live(team.db, why="test", now=host.now_ms() + int(minutes * MINUTE_MS))
        found = messages.find(team.db, agent_id=team.agent("developer").id, limit=100)
        return [message for message in found if "has not been committed" in message.body]

    def test_work_that_was_not_committed_for_half_an_hour_is_told_and_kept(self, still_team: StillTeam) -> None:
        (worktree(still_team) / "parser.py").write_text("x")
        assert self.look(still_team, 0) == []
        (message,) = self.look(still_team, 31)
        assert message.kind is MessageKind.CHECK_IN
        assert "for 31 minutes (1 file: parser.py)" in message.body
        assert len(kept(still_team)) == 1, "it was kept at the first look and has not changed since"

    def test_one_reminder_waits_at_a_time(self, still_team: StillTeam) -> None:
        (worktree(still_team) / "parser.py").write_text("x")
        for minutes in (0, 31, 62):
            found = self.look(still_team, minutes)
        assert len(found) == 1
        messages.confirm(still_team.db, still_team.agent("developer"), found[0], now=host.now_ms())
        assert len(self.look(still_team, 93)) == 2

    def test_who_commits_in_between_is_not_reminded(self, still_team: StillTeam) -> None:
        (worktree(still_team) / "parser.py").write_text("x")
        self.look(still_team, 0)
        still_team.commit("developer")
        (worktree(still_team) / "next.py").write_text("x")
        assert self.look(still_team, 20) == []

    def test_who_is_gone_is_not_reminded_but_kept(self, still_team: StillTeam) -> None:
        (worktree(still_team) / "parser.py").write_text("x")
        self.look(still_team, 0)
        still_team.bench.tmux.run("kill-session", "-t", f"={still_team.agent('developer').session}")
        wait_for(lambda: not host.is_alive(still_team.agent("developer").process), "its end")
        assert self.look(still_team, 31) == [] and len(kept(still_team)) == 1


class TestScheduler:
    def test_it_keeps_every_worktree_when_that_is_due(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in still_team.bench.environment.items():
            monkeypatch.setenv(name, value)
        life, home = a_life(still_team.bench.home), still_team.bench.home
        (worktree(still_team) / "draft.txt").write_text("x")

        def beat(minutes: float) -> list[int]:
            now = host.now_ms() + int(minutes * MINUTE_MS)
            return daemon.tick(still_team.db, still_team.bench.tmux, home, now=now, life=life).dues

        dues = beat(1)
        assert kept(still_team) == [] and any(abs(due - host.now_ms() - 30 * MINUTE_MS) < MINUTE_MS for due in dues)
        beat(31)
        wait_for(lambda: all(kept(still_team, agent.role) for agent in agents.live(still_team.db)), "the snapshots")
        held = git(project(still_team), "ls-tree", "--name-only", kept(still_team)[0].commit)
        assert "draft.txt" in held.splitlines()
        wait_for(lambda: not Errands(home).is_running(safekeeping.ERRAND), "the errand to end")

    def test_old_ones_are_forgotten(self, still_team: StillTeam) -> None:
        sync(still_team, "snapshot", "webapp-impl")
        (worktree(still_team) / "later.txt").write_text("x")
        now = host.now_ms()
        safekeeping.keep_live(still_team.db, why="test", now=now + 20 * DAY_MS)
        assert len(kept(still_team)) == 2
        old = safekeeping.prune(still_team.db, days=30, now=now + 31 * DAY_MS)
        assert len(old) == 4 and len(kept(still_team)) == 1


class TestByHand:
    def test_a_snapshot_is_taken_listed_and_brought_back(self, still_team: StillTeam) -> None:
        place = worktree(still_team)
        (place / "draft.txt").write_text("not committed\n")
        before = snapshot(place)
        assert "kept as developer/" in sync(still_team, "snapshot", "webapp-impl").out
        assert snapshot(place) == before
        listed = sync(still_team, "snapshots", "webapp-impl", "--role", "developer")
        (one,) = sync(still_team, "snapshots", "webapp-impl", "--role", "developer", "--json").json
        name = "/".join(one["ref"].split("/")[-2:])
        assert name in listed.out and one["files_changed"] == 1 and one["why"] == "asked for"
        (place / "draft.txt").unlink()
        done = sync(still_team, "restore", name, "--into", str(still_team.bench.folder / "again"))
        assert (still_team.bench.folder / "again" / "draft.txt").read_text() == "not committed\n"
        assert "again" in done.out and not (place / "draft.txt").exists()

    def test_what_is_unchanged_gets_no_second_one(self, still_team: StillTeam) -> None:
        sync(still_team, "snapshot", "webapp-impl")
        assert sync(still_team, "snapshot", "webapp-impl").out.count("unchanged since") == 4

    def test_words_that_make_no_sense(self, still_team: StillTeam) -> None:
        assert "no team in session 'nobody'" in sync(still_team, "snapshot", "nobody", code=3).err
        sync(still_team, "snapshot", "webapp-impl", "--all", code=2)
        sync(still_team, "restore", "nothing/like-this", code=3)

    def test_a_worktree_that_cannot_be_read_is_told_and_stops_no_other(self, still_team: StillTeam) -> None:
        (worktree(still_team, "tester") / ".git").unlink()
        done = sync(still_team, "snapshot", "webapp-impl", code=1)
        assert done.out.count("kept as") == 3 and "failed:" in done.out


class TestClean:
    """What ended teams have left goes only when all of it is held elsewhere."""

    @pytest.fixture
    def ended(self, still_team: StillTeam) -> StillTeam:
        (worktree(still_team) / "draft.txt").write_text("not committed\n")
        still_team.commit("tester")
        found = orchestrations.get(still_team.db, still_team.id)
        boundaries.arm(still_team.bench.home, found, still_team.agent("tester"))
        still_team.control("stop", "webapp-impl")
        return still_team

    def test_it_shows_first_and_changes_nothing(self, ended: StillTeam) -> None:
        refs = git(project(ended), "for-each-ref")
        done = sync(ended, "clean")
        assert done.out.count("would remove") == 4 and "clean --yes" in done.out
        assert "1 unmerged commit" in done.out and "1 uncommitted file" in done.out
        assert git(project(ended), "for-each-ref") == refs and worktree(ended).exists()

    def test_what_goes_is_held_by_a_snapshot_and_comes_back(self, ended: StillTeam) -> None:
        commit = git(worktree(ended, "tester"), "rev-parse", "HEAD")
        done = sync(ended, "clean", "webapp-impl", "--yes", "--json").json
        assert [one["removed"] for one in done] == [True] * 4
        assert not worktree(ended).exists() and not worktree(ended).parent.exists()
        assert "orchestration/" not in git(project(ended), "for-each-ref", "refs/heads")
        git(project(ended), "reflog", "expire", "--expire=now", "--all")
        git(project(ended), "gc", "-q", "--prune=now")
        assert git(project(ended), "cat-file", "-t", commit) == "commit"
        back = {one["role"]: one["snapshot"] for one in done}
        again = ended.bench.folder / "again"
        sync(ended, "restore", back["developer"], "--into", str(again))
        assert (again / "draft.txt").read_text() == "not committed\n"

    def test_a_team_that_runs_is_not_cleaned(self, still_team: StillTeam) -> None:
        assert sync(still_team, "clean").out == "nothing to clean\n"
        assert "claude_control.py stop" in sync(still_team, "clean", "webapp-impl", "--yes", code=2).err

    def test_ignored_files_stay_unless_they_are_named(self, ended: StillTeam) -> None:
        place = worktree(ended)
        (place / ".gitignore").write_text("*.log\n")
        (place / "run.log").write_text("x" * 10)
        done = sync(ended, "clean", "--yes")
        assert "stays" in done.out and "run.log (10 B)" in done.out and place.exists()
        sync(ended, "clean", "--yes", "--ignored-too")
        assert not place.exists()

    def test_somebody_who_works_there_again_keeps_it(self, ended: StillTeam) -> None:
        git(worktree(ended), "checkout", "-q", "-b", "mine")
        git(project(ended), "worktree", "lock", str(worktree(ended, "tester")))
        elsewhere = ended.bench.folder / "elsewhere"
        branch = ended.agent("developer").branch
        git(project(ended), "worktree", "add", "-q", str(elsewhere), branch)
        done = sync(ended, "clean", "--yes")
        assert f"its branch is checked out in {elsewhere}" in done.out
        assert "its worktree is locked" in done.out
        assert worktree(ended).exists() and worktree(ended, "tester").exists()

    def test_what_is_committed_by_a_person_after_the_end_is_held_too(self, ended: StillTeam) -> None:
        commit_all(worktree(ended), "By hand")
        commit = git(worktree(ended), "rev-parse", "HEAD")
        sync(ended, "clean", "--yes")
        git(project(ended), "reflog", "expire", "--expire=now", "--all")
        git(project(ended), "gc", "-q", "--prune=now")
        assert git(project(ended), "cat-file", "-t", commit) == "commit"
