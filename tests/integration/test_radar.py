"""The radar on real worktrees: who is told of which files, once, and that no agent notices the look."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lib import agents, daemon, errands, history, host, orchestrations, store
from lib.config import Settings
from lib.errands import Errands
from lib.errors import Unavailable
from lib.git import repository
from lib.models import OrchestrationStatus
from lib.together import overlaps, radar
from lib.together.radar import EVERY_MS, OFF_FOR_MS, Swept
from tests.agents import a_team
from tests.conftest import Bench, commit_all, snapshot, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

NOW = 1_900_000_000_000


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class Field:
    """A team of four in a project with three files, and rounds of the radar a minute apart."""

    team: StillTeam
    now: int = NOW

    def worktree(self, role: str) -> Path:
        return self.team.agent(role).worktree

    def write(self, role: str, name: str, text: str) -> None:
        path = self.worktree(role) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, role: str) -> None:
        commit_all(self.worktree(role), f"Work of {role}")

    def sweep(self) -> Swept:
        self.now += EVERY_MS
        (found,) = radar.sweep(self.team.db, now=self.now)
        return found

    def overlaps(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The files of each overlap after another round, by the roles."""
        found = self.sweep()
        assert found.problems == {}
        name = {agent.id: agent.role for agent in agents.of_orchestration(self.team.db, self.team.id)}
        return {(name[one.agent], name[one.other]): one.files for one in found.overlaps}

    def told(self, role: str) -> list[str]:
        return [body for _sender, body in self.team.told(role, "notice")]

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event.data for event in store.events(self.team.db, kind=kind)]


@pytest.fixture
def ground(still_team: StillTeam) -> Field:
    project = still_team.agent("developer").worktree
    for name in ("app.py", "api.py", "docs/guide.md"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("".join(f"line {number}\n" for number in range(30)))
    commit_all(project, "Files")
    base = git(project, "rev-parse", "HEAD")
    for role in ("orchestrator", "tester", "testrunner"):
        git(still_team.agent(role).worktree, "reset", "-q", "--hard", base)
    return Field(still_team)


BOTH = ("developer", "tester")


def collide(ground: Field, name: str = "app.py") -> None:
    for role in BOTH:
        ground.write(role, name, f"{role}\n")


class TestAnOverlap:
    @pytest.mark.parametrize("committed", [(), ("developer",), BOTH], ids=["none", "one", "both"])
    def test_is_found_whether_it_is_committed_or_not(self, ground: Field, committed: tuple[str, ...]) -> None:
        collide(ground)
        for role in committed:
            ground.commit(role)
        assert ground.overlaps() == {BOTH: ("app.py",)}

    def test_is_told_to_both_with_the_files_the_other_and_its_branch(self, ground: Field) -> None:
        collide(ground)
        ground.sweep()
        for role, other in (BOTH, BOTH[::-1]):
            (text,) = ground.told(role)
            mate = ground.team.agent(other)
            assert f"that of {other} overlap" in text and "- app.py\n" in text
            assert f"git merge {mate.branch}" in text and f"hubspoke.sh {mate.target} " in text
        assert ground.told("orchestrator") == ground.told("testrunner") == []
        assert ground.events("overlap.found") == [{"other": "tester", "files": ["app.py"], "new": ["app.py"]}]

    def test_of_new_files_that_nobody_has_added(self, ground: Field) -> None:
        collide(ground, "new/thing.py")
        assert ground.overlaps() == {BOTH: ("new/thing.py",)}

    def test_where_one_removes_what_the_other_changes(self, ground: Field) -> None:
        (ground.worktree("developer") / "api.py").unlink()
        ground.write("tester", "api.py", "changed\n")
        assert ground.overlaps() == {BOTH: ("api.py",)}

    def test_is_none_where_git_can_merge(self, ground: Field) -> None:
        lines = (ground.worktree("developer") / "app.py").read_text().splitlines(keepends=True)
        ground.write("developer", "app.py", "".join(["first\n", *lines]))
        ground.write("tester", "app.py", "".join([*lines, "last\n"]))
        for role in BOTH:
            ground.write(role, "same.py", "the same\n")
        assert ground.overlaps() == {} and ground.told("developer") == []

    def test_is_none_of_big_files_that_nobody_has_added(self, ground: Field) -> None:
        for role in BOTH:
            ground.write(role, "build.bin", role * 200_000)
        assert ground.overlaps() == {}
        for role in BOTH:
            git(ground.worktree(role), "add", "build.bin")
        assert ground.overlaps() == {BOTH: ("build.bin",)}

    def test_has_names_as_they_are(self, ground: Field) -> None:
        odd = os.fsdecode(b"caf\xe9 \x1b[31m\nx.py")
        collide(ground, odd)
        assert ground.overlaps() == {BOTH: (odd,)}
        assert "- caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}[31m" in ground.told("tester")[0]

    def test_of_many_files_names_the_first_of_them(self, ground: Field) -> None:
        for number in range(overlaps.MOST_FILES + 3):
            collide(ground, f"many/{number:02}.py")
        ground.sweep()
        (text,) = ground.told("developer")
        assert text.count("- many/") == overlaps.MOST_FILES and "- and 3 more\n" in text


class TestItIsTold:
    def test_once(self, ground: Field) -> None:
        collide(ground)
        for _ in range(3):
            assert ground.overlaps() == {BOTH: ("app.py",)}
        ground.write("developer", "app.py", "developer again\n")
        ground.commit("tester")
        assert ground.overlaps() == {BOTH: ("app.py",)}
        assert [len(ground.told(role)) for role in BOTH] == [1, 1]

    def test_again_when_other_files_come_into_it(self, ground: Field) -> None:
        collide(ground)
        ground.sweep()
        collide(ground, "api.py")
        ground.sweep()
        _, text = ground.told("developer")
        assert "- api.py (new)\n" in text and "- app.py\n" in text
        assert ground.events("overlap.found")[-1] == {
            "other": "tester",
            "files": ["api.py", "app.py"],
            "new": ["api.py"],
        }

    def test_not_again_when_a_file_leaves_it_and_comes_back(self, ground: Field) -> None:
        for name in ("app.py", "api.py"):
            collide(ground, name)
        ground.sweep()
        git(ground.worktree("tester"), "checkout", "-q", "api.py")
        assert ground.overlaps() == {BOTH: ("app.py",)}
        ground.write("tester", "api.py", "tester\n")
        assert ground.overlaps() == {BOTH: ("api.py", "app.py")}
        assert len(ground.told("tester")) == 1

    def test_again_after_it_was_cleared(self, ground: Field) -> None:
        collide(ground)
        ground.sweep()
        git(ground.worktree("tester"), "checkout", "-q", "app.py")
        assert ground.overlaps() == {}
        assert ground.events("overlap.cleared") == [{"other": "tester", "files": ["app.py"]}]
        assert len(ground.told("tester")) == 1  # that it is over is no news for an agent
        ground.write("tester", "app.py", "tester\n")
        assert ground.overlaps() == {BOTH: ("app.py",)}
        assert len(ground.told("tester")) == 2

    def test_no_more_once_one_has_merged_the_other(self, ground: Field) -> None:
        collide(ground)
        for role in BOTH:
            ground.commit(role)
        ground.sweep()
        branch = ground.team.agent("tester").branch
        git(ground.worktree("developer"), "merge", "-q", "-X", "ours", branch)
        assert ground.overlaps() == {}

    def test_with_the_rows_or_not_at_all(self, ground: Field, monkeypatch: pytest.MonkeyPatch) -> None:
        collide(ground)

        def breaks(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("by order of the test")

        with monkeypatch.context() as patched:
            patched.setattr(overlaps, "record", breaks)
            with pytest.raises(Unavailable):
                ground.sweep()
        assert ground.told("developer") == [] and overlaps.of_team(ground.team.db, ground.team.id) == []
        assert ground.overlaps() == {BOTH: ("app.py",)} and len(ground.told("developer")) == 1

    def test_in_the_history_in_a_sentence(self, ground: Field) -> None:
        collide(ground)
        ground.sweep()
        git(ground.worktree("tester"), "checkout", "-q", "app.py")
        ground.sweep()
        db = ground.team.db
        said = [history.sentence(db, one) for one in store.events(db) if one.kind.startswith("overlap.")]
        assert said == ["developer and tester overlap in app.py", "developer and tester do not overlap any more"]


class TestNobodyNotices:
    def test_neither_files_nor_index_nor_repository_change(self, ground: Field) -> None:
        collide(ground)
        ground.write("developer", "staged.py", "staged\n")
        git(ground.worktree("developer"), "add", "staged.py")
        before = self.surroundings(ground)
        assert ground.overlaps() == {BOTH: ("app.py",)}
        assert self.surroundings(ground) == before

    def surroundings(self, ground: Field) -> dict[Path, object]:
        """Every file of the project and of all worktrees."""
        project = orchestrations.get(ground.team.db, ground.team.id).project
        found = snapshot(project, project.parent / "webapp-tmux-worktrees")
        # Of an object that is there already git renews the time.
        return {path: about[3] if "objects" in path.parts else about for path, about in found.items()}

    def test_a_merge_that_is_under_way_is_waited_for(self, ground: Field) -> None:
        collide(ground)
        for role in BOTH:
            ground.commit(role)
        subprocess.run(
            ["git", "merge", "-q", ground.team.agent("tester").branch], cwd=ground.worktree("developer"), check=False
        )
        assert ground.overlaps() == {} and ground.told("developer") == []
        git(ground.worktree("developer"), "merge", "--abort")
        assert ground.overlaps() == {BOTH: ("app.py",)}


class TestWhatHasNotChanged:
    @pytest.fixture
    def asked(self, ground: Field, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The first word of every question to git from here on."""
        found: list[str] = []
        real = repository.run

        def noting(folder: Path, *words: str, **more: object) -> object:
            found.append(words[0])
            return real(folder, *words, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(repository, "run", noting)
        return found

    def test_costs_one_question_for_each_worktree(self, ground: Field, asked: list[str]) -> None:
        collide(ground)
        ground.sweep()
        asked.clear()
        ground.sweep()
        assert sorted(asked) == ["--version", "rev-parse", "status", "status", "status", "status"]

    def test_is_not_compared_again_with_each_other(self, ground: Field, asked: list[str]) -> None:
        collide(ground)
        ground.sweep()
        asked.clear()
        ground.write("testrunner", "log.txt", "more\n")
        ground.sweep()
        assert asked.count("merge-tree") == 3  # with each of the others

    def test_a_file_that_is_written_again_in_the_same_way_is_seen(self, ground: Field) -> None:
        ground.write("developer", "app.py", "developer 1\n")
        ground.write("tester", "app.py", "developer 1\n")
        assert ground.overlaps() == {}
        ground.write("tester", "app.py", "developer 2\n")  # git's status says the same
        assert ground.overlaps() == {BOTH: ("app.py",)}


class TestWhoCannotBeLookedAt:
    def test_stops_no_other_and_is_an_event_once(self, ground: Field) -> None:
        collide(ground)
        shutil.rmtree(ground.worktree("orchestrator"))
        for _ in range(2):
            found = ground.sweep()
            assert list(found.problems) == ["orchestrator"] and "is gone" in found.problems["orchestrator"]
            assert [one.files for one in found.overlaps] == [("app.py",)]
        assert len(ground.events("radar.failed")) == 1

    def test_and_cannot_be_compared_is_an_event_once(self, ground: Field) -> None:
        collide(ground)
        driver = "*.py merge=broken\n"
        project = orchestrations.get(ground.team.db, ground.team.id).project
        (project / ".git" / "info" / "attributes").write_text(driver)
        git(project, "config", "merge.broken.driver", "kill -9 $PPID")
        for _ in range(2):
            found = ground.sweep()
            assert list(found.problems) == ["developer"] and found.overlaps == ()
        assert len(ground.events("radar.failed")) == 1

    def test_has_ended_and_keeps_what_was_found(self, ground: Field) -> None:
        collide(ground)
        ground.sweep()
        process = ground.team.agent("tester").process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(process), "the end of the tester")
        git(ground.worktree("developer"), "checkout", "-q", "app.py")
        assert ground.overlaps() == {BOTH: ("app.py",)}


class TestAGitThatIsTooOld:
    @pytest.fixture(autouse=True)
    def old(self, ground: Field, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = ground.team.bench.folder / "stubs"
        folder.mkdir()
        script = f'case "$*" in *--version) echo "git version 2.37.4";; *) exec {shutil.which("git")} "$@";; esac'
        (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def test_turns_it_off_and_says_so_once(self, ground: Field) -> None:
        collide(ground)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"needs git 2\.38, and this is 2\.37"):
                ground.sweep()
        assert [one["reason"] for one in ground.events("radar.off")] == [radar.why_off(ground.team.db)]
        assert ground.told("developer") == []
        assert radar.next_due(ground.team.db, now=ground.now) == ground.now + OFF_FOR_MS

    def test_is_said_by_the_door(self, ground: Field) -> None:
        ground.team.bench.environment["PATH"] = os.environ["PATH"]
        done = ground.team.bench.door("sync_coordinator.py", "radar")
        assert done.code == 5 and "the radar is off" in done.err
        assert ground.team.bench.ok("sync_coordinator.py", "status").out.splitlines()[-1].startswith("the radar is off")


# -- when --


@dataclass
class Noted(Errands):
    """Errands that are only noted."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    def start(self, name: str, door: str, *arguments: str) -> bool:
        self.asked.append((name, door, *arguments))
        return True


class TestTheDaemon:
    @pytest.fixture
    def beat(self, still_team: StillTeam) -> Callable[[int], tuple[int, list[int]]]:
        """A beat so many milliseconds after the launch: how often the errand was started, and what is due."""
        life = daemon.Life(Settings(), Noted(still_team.bench.home))
        began = orchestrations.get(still_team.db, still_team.id).created_at

        def one(after: int) -> tuple[int, list[int]]:
            beat = daemon.Beat(still_team.db, still_team.bench.tmux, still_team.bench.home, began + after, life)
            daemon.watch_overlaps(beat)
            assert isinstance(life.errands, Noted)
            return len(life.errands.asked), [due - began for due in beat.dues]

        return one

    def test_starts_the_errand_once_a_minute(
        self, still_team: StillTeam, beat: Callable[[int], tuple[int, list[int]]]
    ) -> None:
        assert beat(0) == (0, [EVERY_MS])
        assert beat(EVERY_MS) == (1, [])
        # It has come to nothing: it is started again a minute later, and not at every beat.
        assert beat(EVERY_MS + 100) == (1, [2 * EVERY_MS])
        assert beat(2 * EVERY_MS) == (2, [])
        began = orchestrations.get(still_team.db, still_team.id).created_at
        radar.sweep(still_team.db, now=began + 2 * EVERY_MS + 500)
        assert beat(2 * EVERY_MS + 900) == (2, [3 * EVERY_MS + 500])

    def test_leaves_a_team_alone_in_which_one_agent_lives(
        self, still_team: StillTeam, beat: Callable[[int], tuple[int, list[int]]]
    ) -> None:
        for role in ("orchestrator", "developer", "tester"):
            process = still_team.agent(role).process
            assert process
            os.kill(process.pid, signal.SIGKILL)
            wait_for(lambda process=process: not host.is_alive(process), f"the end of {role}")  # type: ignore[misc]
        assert beat(EVERY_MS) == (0, [])

    def test_leaves_a_team_alone_that_is_over(
        self, still_team: StillTeam, beat: Callable[[int], tuple[int, list[int]]]
    ) -> None:
        orchestrations.set_status(still_team.db, still_team.id, OrchestrationStatus.STOPPED, now=host.now_ms())
        assert beat(EVERY_MS) == (0, [])


def test_a_team_of_one_is_never_due(bench: Bench) -> None:
    db = bench.db()
    a_team(db, "orchestrator")
    assert radar.next_due(db, now=NOW) is None


def test_a_round_that_lies_in_the_future_is_due_now(bench: Bench) -> None:
    db = bench.db()
    a_team(db, "orchestrator", "developer")
    radar.sweep(db, now=NOW)
    assert radar.next_due(db, now=NOW - 3_600_000) == NOW - 3_600_000


class TestTheDoor:
    def test_looks_now_and_says_what_overlaps(self, ground: Field) -> None:
        collide(ground)
        bench = ground.team.bench
        assert bench.ok("sync_coordinator.py", "radar").out == "webapp-impl: developer and tester overlap in app.py\n"
        (found,) = bench.ok("sync_coordinator.py", "radar", "--json").json
        (one,) = found["overlaps"]
        assert (one["roles"], one["files"]) == (["developer", "tester"], ["app.py"])

    def test_says_that_nothing_overlaps_and_that_there_is_nobody(self, ground: Field) -> None:
        bench = ground.team.bench
        assert bench.ok("sync_coordinator.py", "radar").out == "webapp-impl: nothing overlaps\n"
        ground.team.end()
        assert bench.ok("sync_coordinator.py", "radar").out == "no team has two agents that live\n"

    def test_waits_for_no_other_round(self, ground: Field) -> None:
        bench = ground.team.bench
        with errands.working(bench.home, radar.ERRAND):
            done = bench.door("sync_coordinator.py", "radar")
        assert done.code == 4 and "radar is at work already" in done.err
