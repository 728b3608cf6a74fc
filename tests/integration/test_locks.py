"""What keeps launches away from a project: real holders, killed ones, and notes that lie."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import agents, errands, host, named_locks, orchestrations, planning, store
from lib.config import Settings
from lib.errors import Busy
from lib.models import AttemptOutcome, OrchestrationStatus, Process, Program
from lib.queue import draining, entries
from tests.agents import a_team
from tests.conftest import ROOT, SPEC, Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

DOOR = "concurrent_orchestration.py"
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(bench: Bench) -> Iterator[Hold]:
    """Hold a lock by the door, in a process of its own; returns when it is held."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, *command: str) -> subprocess.Popen[str]:
        words = [sys.executable, str(ROOT / DOOR), "--start", name, *(["--", *command] if command else [])]
        process = subprocess.Popen(
            words,
            env=bench.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        wait_for(lambda: pid_of(bench, name) == process.pid or command, f"{name} to be held")
        wait_for(lambda: not command or pid_of(bench, name) not in (None, process.pid), "the command to have it")
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it runs
        process.communicate()


@pytest.fixture
def db(bench: Bench) -> Iterator[sqlite3.Connection]:
    connection = store.connect(bench.home)
    yield connection
    connection.close()


def note_path(bench: Bench, name: str) -> Path:
    return bench.home / "locks" / "named" / f"{name}.json"


def note_of(bench: Bench, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(note_path(bench, name).read_text())
    except FileNotFoundError:
        return None
    return found


def pid_of(bench: Bench, name: str) -> int | None:
    """Whom the note of a lock names."""
    note = note_of(bench, name)
    return int(note["pid"]) if note else None


def write_note(bench: Bench, name: str, process: Process, **changed: object) -> None:
    """A note, as its holder has left it."""
    path = note_path(bench, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".lock").touch()
    path.write_text(json.dumps({**vars(process), "command": "make deploy", "since": 0, **changed}))


def me() -> Process:
    process = host.process(os.getpid())
    assert process
    return process


def locks(bench: Bench) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in bench.ok(DOOR, "--list", "--json").json["locks"]}


def stage_of(bench: Bench) -> planning.Stage:
    return planning.Stage(bench.home, bench.tmux, Settings())


def plan(db: sqlite3.Connection, bench: Bench, project: Path) -> planning.Plan:
    spec = project / "spec.md"
    return planning.decide(
        db, stage_of(bench), project=project, spec_path=spec, program=Program.REHEARSAL, now=host.now_ms()
    )


def files(folder: Path) -> dict[str, bytes]:
    # SQLite's own: whoever reads makes the index of the log.
    own = ("orchestrator.db-shm", "orchestrator.db-wal")
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in own}


class TestHolding:
    def test_a_command_runs_under_the_lock_and_its_exit_code_is_ours(self, bench: Bench) -> None:
        looks = f'{sys.executable} {ROOT / DOOR} --list --json; test "$1" = "two words" && exit 7'
        done = bench.door(DOOR, "--start", "webapp", "--", "sh", "-c", looks, "sh", "two words")
        assert done.code == 7
        (held,) = done.json["locks"]
        assert (held["name"], held["held"], held["this_boot"]) == ("webapp", True, True)
        assert held["command"].startswith("sh -c ") and held["command"].endswith("sh 'two words'")
        assert "holding webapp while this runs: sh -c " in done.err
        assert locks(bench) == {}

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_without_a_command_it_is_held_until_a_signal(self, bench: Bench, hold: Hold, how: signal.Signals) -> None:
        process = hold("webapp")
        assert locks(bench)["webapp"]["pid"] == process.pid
        process.send_signal(how)
        assert process.wait(20) == 0
        assert locks(bench) == {}

    def test_the_name_is_told_as_the_lock_has_it(self, bench: Bench, hold: Hold) -> None:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / DOOR), "--start", "My Project", "--json"],
            env=bench.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: note_of(bench, "my-project"), "it to be held")
        process.terminate()
        answer = json.loads(process.communicate(timeout=20)[0])
        assert (answer["name"], answer["pid"]) == ("my-project", process.pid)

    def test_a_second_holder_is_told_who_has_it(self, bench: Bench, hold: Hold) -> None:
        process = hold("webapp", "sleep", "600")
        done = bench.door(DOOR, "--start", "Webapp")
        assert done.code == 4
        assert f"the name webapp is held by pid {pid_of(bench, 'webapp')}: sleep 600" in done.err
        assert process.poll() is None
        assert bench.ok(DOOR, "--start", "other", "--", "true")

    def test_a_killed_holder_leaves_a_note_and_no_lock(self, bench: Bench, hold: Hold) -> None:
        process = hold("webapp")
        process.kill()
        process.wait()
        left = locks(bench)["webapp"]
        assert (left["held"], left["this_boot"]) == (False, True)
        assert left["state"] == f"stale: pid {process.pid} has ended"
        next_one = hold("webapp")
        wait_for(lambda: (note_of(bench, "webapp") or {})["pid"] == next_one.pid, "the next one's note")
        assert locks(bench)["webapp"]["state"] == f"held by pid {next_one.pid}"

    def test_a_command_whose_starter_was_killed_still_has_the_lock(self, bench: Bench, hold: Hold) -> None:
        process = hold("webapp", "sleep", "600")
        command = host.process(pid_of(bench, "webapp") or 0)
        assert command
        process.kill()
        process.wait()
        assert locks(bench)["webapp"]["state"] == f"held by pid {command.pid}"
        assert bench.door(DOOR, "--start", "webapp").code == 4
        os.kill(command.pid, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(command), "the command to end")
        assert locks(bench)["webapp"]["state"] == f"stale: pid {command.pid} has ended"

    def test_what_a_command_leaves_running_still_has_the_lock(self, bench: Bench, hold: Hold) -> None:
        process = hold("webapp", "sh", "-c", "sleep 600 & echo left; wait")
        assert process.stdout and process.stdout.readline() == "left\n"
        command = host.process(pid_of(bench, "webapp") or 0)
        assert command
        for one in (process.pid, command.pid):
            os.kill(one, signal.SIGKILL)
        process.wait()
        wait_for(lambda: not host.is_alive(command), "the command to end")
        state = f"held by what pid {command.pid}, which has ended, has left running"
        assert locks(bench)["webapp"]["state"] == state
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"

    def test_a_signal_reaches_the_command_and_is_its_end(self, bench: Bench, hold: Hold) -> None:
        process = hold("webapp", "sh", "-c", 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done')
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)  # from a terminal it reaches the command by itself
        process.terminate()
        assert process.wait(20) == 9
        process = hold("webapp", "sleep", "600")
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
        assert bench.door(DOOR, "--start", "webapp", "--", "sh", "-c", "kill -KILL $$").code == 128 + signal.SIGKILL

    def test_a_command_that_cannot_be_run_leaves_nothing_behind(self, bench: Bench) -> None:
        done = bench.door(DOOR, "--start", "webapp", "--", "no-such-command")
        assert done.code == 5
        assert "no-such-command cannot be run" in done.err
        assert locks(bench) == {}

    @pytest.mark.parametrize("name", ["../webapp", "a/b", "", "--", "…", "."])
    def test_a_name_that_is_none_is_refused(self, bench: Bench, name: str) -> None:
        assert bench.door(DOOR, f"--start={name}").code == 2
        assert not (bench.home / "locks").exists()

    def test_a_live_orchestration_of_the_name_is_in_the_way(self, bench: Bench, db: sqlite3.Connection) -> None:
        a_team(db, "developer", name="webapp", home=bench.folder)
        done = bench.door(DOOR, "--start", "webapp", "--", "true")
        assert done.code == 4
        assert "has a live orchestration in session webapp-impl" in done.err
        assert locks(bench) == {}
        (found,) = orchestrations.live(db)
        orchestrations.set_status(db, found.id, OrchestrationStatus.COMPLETED, now=host.now_ms())
        bench.ok(DOOR, "--start", "webapp", "--", "true")

    def test_a_launch_that_is_just_being_recorded_is_waited_for(self, bench: Bench, db: sqlite3.Connection) -> None:
        with store.writing(db):  # the launch has seen the lock free, and its transaction is open
            process = subprocess.Popen(
                [sys.executable, str(ROOT / DOOR), "--start", "webapp", "--", "true"],
                env=bench.environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            lock = bench.home / "locks" / "named" / "webapp.lock"
            wait_for(lambda: host.is_held(lock), "the lock to be taken")
            a_team(db, "developer", name="webapp", home=bench.folder)
        assert "has a live orchestration" in process.communicate(timeout=30)[1]
        assert process.returncode == 4


class TestLaunching:
    def test_a_launch_into_a_held_name_is_refused_and_nothing_is_made(self, bench: Bench, hold: Hold) -> None:
        project, other = bench.project(), bench.project("other")
        process = hold("webapp")
        words = ("--project", str(project), "--spec", str(project / "spec.md"), "--agent", "rehearsal")
        for more in ((), ("--dry-run",)):
            done = bench.door("auto_orchestrate.py", *words, *more)
            assert done.code == 4
            assert f"the name webapp is held by pid {process.pid}" in done.err
        assert bench.rows("SELECT * FROM orchestrations") == []
        bench.ok("auto_orchestrate.py", "--spec", str(other / "spec.md"), "--dry-run", "--no-ai")
        process.kill()
        process.wait()
        bench.ok("auto_orchestrate.py", *words, "--dry-run")

    def test_a_lock_that_is_taken_after_the_plan_still_keeps_it_away(
        self, bench: Bench, db: sqlite3.Connection, hold: Hold
    ) -> None:
        decided = plan(db, bench, bench.project())
        hold("webapp")
        with pytest.raises(Busy, match="the name webapp is held"):
            planning.record(db, stage_of(bench), decided)
        assert orchestrations.live(db) == []

    def test_a_queued_spec_waits_for_the_lock(
        self, bench: Bench, db: sqlite3.Connection, hold: Hold, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in bench.environment.items():
            monkeypatch.setenv(name, value)
        project = bench.project()
        entries.add(db, [entries.NewEntry(project / "spec.md", SPEC, project, {"agent": "rehearsal"})], now=0)
        attempt = entries.claim(db, now=1, max_concurrent=1)
        assert attempt
        process = hold("webapp")
        assert draining.run(bench.home, attempt.entry_id) is None
        (after,) = entries.attempts(db, attempt.entry_id)
        assert after.outcome is AttemptOutcome.DEFERRED
        assert after.reason and f"held by pid {process.pid}" in after.reason
        assert entries.get(db, attempt.entry_id).failures == 0


class TestListing:
    def test_where_nothing_is_nothing_is_made(self, bench: Bench) -> None:
        assert bench.ok(DOOR, "--list").out == "no orchestration is live, and no name is locked\n"
        assert bench.ok(DOOR, "--list", "--json").json == {"orchestrations": [], "locks": []}
        assert bench.ok(DOOR, "--cleanup").out == "nothing to clean up\n"
        assert not bench.home.exists()

    def test_a_live_orchestration_is_shown_with_what_is_there_of_it(self, still_team: StillTeam) -> None:
        bench, team = still_team.bench, agents.of_orchestration(still_team.db, still_team.id)
        (found,) = bench.ok(DOOR, "--list", "--json").json["orchestrations"]
        assert (found["session"], found["name"], found["status"]) == ("webapp-impl", "webapp", "running")
        assert (found["agents"], found["agents_alive"], found["session_exists"]) == (4, 4, True)
        process = team[0].process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(process), "an agent to end")
        said = bench.ok(DOOR, "--list").out
        assert "webapp-impl: running since" in said and "3 of 4 agents live, its session is there" in said
        bench.tmux.run("kill-server")
        wait_for(lambda: not any(host.is_alive(agent.process) for agent in team), "the agents to end")
        assert "0 of 4 agents live, its session is gone" in bench.ok(DOOR, "--list").out

    def test_what_tmux_does_not_say_is_not_taken_for_gone(self, still_team: StillTeam) -> None:
        still_team.bench.environment["PATH"] = str(still_team.bench.folder)
        (found,) = still_team.bench.ok(DOOR, "--list", "--json").json["orchestrations"]
        assert found["session_exists"] is None
        assert "tmux could not be asked" in still_team.bench.ok(DOOR, "--list").out

    @pytest.mark.parametrize(
        ("changed", "state"),
        [
            # Another boot: its pids are nobody's.
            ({"boot": "of-yesterday"}, "held it before the last reboot"),
            # The pid is somebody else's by now: it is ours, and has another start.
            ({"started": 1}, "has ended"),
            # A process that lives and has lost its lock.
            ({}, "lives and does not hold it"),
            # A note of another shape.
            ({"pid": None}, "its note cannot be read"),
            ({"started": "x"}, "its note cannot be read"),
        ],
    )
    def test_a_note_without_a_holder_is_stale_and_says_why(
        self, bench: Bench, changed: dict[str, object], state: str
    ) -> None:
        write_note(bench, "webapp", me(), **changed)
        found = locks(bench)["webapp"]
        assert not found["held"]
        assert found["state"].startswith("stale: ") and found["state"].endswith(state)
        assert found["this_boot"] == (None if "cannot" in state else "boot" not in changed)
        bench.ok(DOOR, "--start", "webapp", "--", "true")

    def test_one_that_has_not_said_its_name_yet_holds_it_all_the_same(self, bench: Bench) -> None:
        with host.lock(bench.home / "locks" / "named" / "webapp.lock"):
            assert locks(bench)["webapp"]["state"] == "held by one that is just beginning"

    def test_looking_changes_nothing(self, still_team: StillTeam, hold: Hold) -> None:
        bench = still_team.bench
        write_note(bench, "left", me())
        hold("held")
        before = files(bench.home)
        bench.ok(DOOR, "--list")
        bench.ok(DOOR, "--cleanup")
        assert files(bench.home) == before

    def test_who_looks_is_in_nobodys_way(self, bench: Bench) -> None:
        path = bench.home / "locks" / "named" / "webapp.lock"
        path.parent.mkdir(parents=True)
        path.touch()
        over, seen = threading.Event(), []

        def look() -> None:
            while not over.is_set():
                seen.append(host.is_held(path))

        lookers = [threading.Thread(target=look) for _ in range(4)]
        for looker in lookers:
            looker.start()
        try:
            wait_for(lambda: len(seen) > 2000, "many looks")
            assert not any(seen), "one who looks has taken another one for a holder"
            for _ in range(20):
                with host.lock(path, wait_seconds=5):
                    pass
        finally:
            over.set()
            for looker in lookers:
                looker.join()


class TestCleaningUp:
    def test_it_shows_first_and_changes_nothing(self, bench: Bench, db: sqlite3.Connection) -> None:
        write_note(bench, "left", me(), boot="of-yesterday")
        a_team(db, "developer", home=bench.folder)
        done = bench.ok(DOOR, "--cleanup")
        assert "would mark as stopped: webapp-impl (running)" in done.out
        assert "would remove the note of the lock left" in done.out
        assert "concurrent_orchestration.py --cleanup --yes" in done.out
        assert note_of(bench, "left")
        assert len(orchestrations.live(db)) == 1
        assert bench.ok(DOOR, "--cleanup", "--json").json["changed"] is False

    def test_with_yes_it_removes_what_nobody_stands_behind(
        self, bench: Bench, db: sqlite3.Connection, hold: Hold
    ) -> None:
        write_note(bench, "left", me(), boot="of-yesterday")
        held = hold("held")
        a_team(db, "developer", home=bench.folder)
        worktree = bench.folder / "webapp-tmux-worktrees" / "developer"
        worktree.mkdir(parents=True)
        (found,) = orchestrations.live(db)
        done = bench.ok(DOOR, "--cleanup", "--yes", "--json")
        assert done.json["changed"] is True
        assert [(one.get("lock"), one.get("session"), one["done"]) for one in done.json["found"]] == [
            (None, "webapp-impl", True),
            ("left", None, True),
        ]
        assert orchestrations.get(db, found.id).status is OrchestrationStatus.STOPPED
        assert worktree.is_dir()
        assert list(locks(bench)) == ["held"] and held.poll() is None
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"

    def test_what_lives_is_left_alone(self, still_team: StillTeam) -> None:
        db, bench = still_team.db, still_team.bench
        db.execute("UPDATE orchestrations SET created_at = 0")
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
        bench.tmux.run("rename-session", "-t", "=webapp-impl", "other")  # agents without their session
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
        bench.tmux.run("rename-session", "-t", "=other", "webapp-impl")
        for agent in agents.of_orchestration(db, still_team.id):  # a session without its agents
            assert agent.process
            os.kill(agent.process.pid, signal.SIGKILL)
        wait_for(lambda: "0 of 4 agents live" in bench.ok(DOOR, "--list").out, "the agents to end")
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
        bench.tmux.run("kill-server")
        assert "did mark as stopped" in bench.ok(DOOR, "--cleanup", "--yes").out
        assert orchestrations.live(db) == []

    def test_what_could_not_be_looked_at_is_left_alone(self, bench: Bench, db: sqlite3.Connection) -> None:
        a_team(db, "developer", home=bench.folder)
        bench.environment["PATH"] = str(bench.folder)
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
        assert len(orchestrations.live(db)) == 1

    def test_a_launch_at_work_is_left_alone(self, bench: Bench, db: sqlite3.Connection) -> None:
        a_team(db, "developer", home=bench.folder)
        (found,) = orchestrations.live(db)
        with errands.working(bench.home, f"launch-{found.id}"):
            assert "being launched or resumed" in bench.ok(DOOR, "--list").out
            assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
            assert not named_locks.end_abandoned(db, bench.tmux, bench.home, found.id, now=host.now_ms())
        db.execute("UPDATE orchestrations SET created_at = ?", (host.now_ms(),))  # and one that has just begun
        assert bench.ok(DOOR, "--cleanup", "--yes").out == "nothing to clean up\n"
        assert len(orchestrations.live(db)) == 1

    def test_what_came_back_between_the_look_and_the_deed_is_left_alone(
        self, still_team: StillTeam, hold: Hold
    ) -> None:
        db, bench, now = still_team.db, still_team.bench, host.now_ms()
        db.execute("UPDATE orchestrations SET created_at = 0")
        assert not named_locks.end_abandoned(db, bench.tmux, bench.home, still_team.id, now=now)
        assert orchestrations.get(db, still_team.id).status is OrchestrationStatus.RUNNING
        hold("held")
        assert not named_locks.remove_stale(bench.home, "held")
        assert note_of(bench, "held")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--list", "--start", "webapp"),
        ("--list", "--yes"),
        ("--start", "webapp", "--yes"),
        ("--list", "--", "true"),
        ("--cleanup", "all"),
    ],
)
def test_words_that_do_not_go_together_are_refused(bench: Bench, words: tuple[str, ...]) -> None:
    assert bench.door(DOOR, *words).code == 2
    assert not bench.home.exists()
