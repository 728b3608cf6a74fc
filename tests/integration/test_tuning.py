"""performance_tuner.py: a real tmux, real processes, a real store."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib import errands, host, service, store, tidying, tuning
from lib.errors import ExitCode
from lib.models import Process
from lib.tuning import Tuner
from tests.conftest import ROOT, Bench, Done, snapshot, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

DAY_MS = 24 * 3_600_000
DOOR = "performance_tuner.py"


def only_look(bench: Bench, *words: str) -> Any:
    return bench.ok(DOOR, "--no-optimize-db", "--json", *words).json


def log_file(bench: Bench, name: str, *, length: int = 10, days: float = 0) -> Path:
    """A file below logs/ of so many bytes, last written so many days ago."""
    path = bench.home / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * length)
    at = path.stat().st_mtime - days * DAY_MS / 1000
    os.utime(path, (at, at))
    return path


def below(bench: Bench) -> set[str]:
    return {path.name for path in (bench.home / "logs").iterdir()}


@contextlib.contextmanager
def scheduler(bench: Bench) -> Iterator[Process]:
    """A scheduler that runs for the block."""
    command = [sys.executable, str(ROOT / "scheduler.py"), "--daemon", "--quiet"]
    with subprocess.Popen(command, env=bench.environment, start_new_session=True) as door:
        found = wait_for(lambda: service.running(bench.home), "the scheduler")
        assert found
        try:
            yield found
        finally:
            door.terminate()


@contextlib.contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs for the block, on its own."""
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def marked(still_team: StillTeam) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the mark of the developer that is not below it."""
    env = still_team.bench.environment | {"TMUX_ORCHESTRATOR_AGENT": str(still_team.agent("developer").id)}
    with running("sleep", "1000", env=env) as process:
        yield process


class TestALook:
    def test_measures_every_agent_by_its_recorded_process(self, still_team: StillTeam) -> None:
        (team,) = only_look(still_team.bench)["teams"]
        processes = [still_team.agent(role).process for role in ("orchestrator", "developer", "tester", "testrunner")]
        assert [agent["pid"] for agent in team["agents"]] == [process.pid for process in processes if process]
        assert all(agent["load"]["memory_bytes"] > 0 for agent in team["agents"])
        assert team["load"]["processes"] == 4

    def test_counts_what_an_agent_has_started(self, still_team: StillTeam) -> None:
        agent, tmux = still_team.agent("developer"), still_team.bench.tmux
        script = "while :; do :; done & sleep 1000"
        tmux.run("respawn-pane", "-k", "-t", agent.pane_id or "", f"sh -c {shlex.quote(script)}")
        pid = next(pane.pid for pane in tmux.panes() if pane.id == agent.pane_id)
        wait_for(lambda: len(host.children(pid)) == 2, "what it starts")
        still_team.db.execute("UPDATE agents SET pid = ?, started = ? WHERE id = ?", (pid, started(pid), agent.id))
        (team,) = only_look(still_team.bench)["teams"]
        load = team["agents"][1]["load"]
        assert load["processes"] == 3 and load["cpu_percent"] > 0  # by itself it would sleep
        assert team["load"]["cpu_percent"] >= load["cpu_percent"] - 1

    def test_tells_of_an_agent_that_has_ended(self, still_team: StillTeam) -> None:
        process = still_team.agent("tester").process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(process), "its end")
        found = only_look(still_team.bench)
        assert found["teams"][0]["agents"][2]["load"] is None
        assert [one["sentence"] for one in found["findings"] if "--resume" in one["command"]] == [
            "webapp-impl:tester: no process lives"
        ]

    def test_times_tmux_and_the_store_and_writes_nothing(self, still_team: StillTeam) -> None:
        rows = "SELECT (SELECT count(*) FROM events) AS events, (SELECT seq FROM sqlite_sequence WHERE name = 'events')"
        before = still_team.bench.rows(rows)
        found = only_look(still_team.bench)
        assert 0 < found["tmux_ms"] < 5000
        assert found["store"]["read_ms"] > 0 and found["store"]["write_ms"] > 0
        assert found["store"]["database_bytes"] > 0 and found["store"]["pages"] > 0
        assert still_team.bench.rows(rows) == before

    def test_shows_the_scheduler(self, bench: Bench) -> None:
        assert only_look(bench)["daemon"] == {"is_alive": False, "pid": None, "load": None}
        with scheduler(bench) as process:
            found = only_look(bench)["daemon"]
        assert (found["is_alive"], found["pid"], found["load"]["processes"]) == (True, process.pid, 1)

    def test_shows_how_late_check_ins_were(self, still_team: StillTeam) -> None:
        with store.writing(still_team.db):
            for late_ms in (100, 200, 300_000):
                told: dict[str, Any] = {"late_ms": late_ms, "stands_for": 1}
                store.record(still_team.db, "check_in.fired", now=host.now_ms(), **told)
        late = only_look(still_team.bench)["check_ins"]
        assert late == {"fired": 3, "p50_ms": 200, "p95_ms": 300_000, "max_ms": 300_000}

    def test_shows_each_disk_once(self, still_team: StillTeam) -> None:
        (disk,) = only_look(still_team.bench)["disks"]
        assert disk["path"] == str(still_team.bench.home) and 0 < disk["free_bytes"] < disk["total_bytes"]

    def test_shows_what_logs_have_grown_by(self, bench: Bench) -> None:
        log_file(bench, "bugs.log", length=100)
        tuner = Tuner(bench.home, bench.tmux, sample_seconds=0.01)
        first = tuner.look(now=1).logs
        log_file(bench, "bugs.log", length=350)
        again = tuner.look(now=2).logs
        assert first and (first.size_bytes, first.grown_bytes) == (100, None)
        assert again and (again.size_bytes, again.grown_bytes) == (350, 250)

    def test_is_plain_where_nobody_sees_it(self, still_team: StillTeam) -> None:
        out = still_team.bench.ok(DOOR, "--no-optimize-db").out
        developer = next(line.split() for line in out.splitlines() if line.startswith("  developer"))
        process = still_team.agent("developer").process
        assert process and developer[1] == str(process.pid)
        assert "tmux: " in out and "  next: scheduler.py --daemon" in out and "\x1b" not in out


def started(pid: int) -> int:
    found = host.process(pid)
    assert found
    return found.started


class TestWhatCannotBeLookedAt:
    def test_a_machine_without_anything_is_left_as_it_is(self, bench: Bench) -> None:
        found = bench.ok(DOOR, "--json", "--clean-logs").json
        assert found["store"] is None and found["tmux_ms"] is None and found["findings"] == []
        assert f"there is no store yet in {bench.home}: auto_orchestrate.py makes it" in found["unseen"]
        assert "tmux was not asked: no tmux server is running" in found["unseen"]
        assert not bench.home.exists()

    def test_a_missing_tmux_has_a_sentence(self, bench: Bench, tmp_path: Path) -> None:
        bench.environment["PATH"] = str(tmp_path)
        assert "tmux was not asked: tmux is not installed" in only_look(bench)["unseen"]

    def test_a_store_that_is_being_written_has_a_sentence(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect = store.connect

        def hasty(home: Path, *, read_only: bool = False) -> sqlite3.Connection:
            db = connect(home, read_only=read_only)
            db.execute("PRAGMA busy_timeout = 10")
            return db

        monkeypatch.setattr(store, "connect", hasty)
        with store.writing(still_team.db):
            look = Tuner(still_team.bench.home, still_team.bench.tmux, sample_seconds=0.01).look(now=1)
        assert look.store and look.store.write_ms is None and look.store.read_ms > 0
        assert any("was not to be measured" in sentence and "locked" in sentence for sentence in look.unseen)

    def test_a_home_that_cannot_be_written_is_only_read(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The tests may run as root, whom no permission stops: only the answer of the system is another.
        monkeypatch.setattr(tuning, "may_write", lambda home: False)
        home = still_team.bench.home
        still_team.db.close()  # a writer of this process would share its memory with the reader
        before = snapshot(home)
        look = Tuner(home, still_team.bench.tmux, sample_seconds=0.01).look(now=1)
        assert look.store and look.store.write_ms is None and len(look.teams) == 1
        assert any("readonly" in sentence for sentence in look.unseen)
        assert snapshot(home) == before


class TestOrphans:
    def test_a_process_that_bears_a_mark_is_listed_and_lives_on(
        self, still_team: StillTeam, marked: subprocess.Popen[bytes]
    ) -> None:
        (orphan,) = only_look(still_team.bench)["orphans"]
        assert orphan == {
            **{"pid": marked.pid, "command": "sleep 1000"},
            **{"agent": "webapp-impl:developer", "is_agent_alive": True},
        }
        assert marked.poll() is None

    def test_of_an_agent_that_has_ended_can_be_killed(
        self, still_team: StillTeam, marked: subprocess.Popen[bytes]
    ) -> None:
        process = still_team.agent("developer").process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(process), "its end")
        assert f"kill {marked.pid}" in [one["command"] for one in only_look(still_team.bench)["findings"]]

    def test_of_another_state_home_are_not_ours(self, bench: Bench, tmp_path: Path) -> None:
        env = bench.environment | {"TMUX_ORCHESTRATOR_AGENT": "1", "TMUX_ORCHESTRATOR_HOME": str(tmp_path / "other")}
        with running("sleep", "1000", env=env):
            assert only_look(bench)["orphans"] == []

    def test_somebody_who_reads_an_agents_files_is_none(self, bench: Bench) -> None:
        bench.db().close()
        file = bench.home / "agents" / "1" / "settings.json"
        with running("sh", "-c", "sleep 1000; true", "sh", str(file), "+1"):
            assert only_look(bench)["orphans"] == []

    def test_a_launch_of_an_agent_that_nobody_knows_is_listed(self, bench: Bench) -> None:
        file = bench.home / "agents" / "1" / "settings.json"
        with running("sh", "-c", "sleep 1000; true", "sh", "--settings", str(file), "--name") as process:
            (orphan,) = only_look(bench)["orphans"]
        assert (orphan["pid"], orphan["agent"], orphan["is_agent_alive"]) == (process.pid, "agent 1", False)

    def test_an_errand_that_bears_an_agents_mark_is_none(self, still_team: StillTeam) -> None:
        env = still_team.bench.environment | {"TMUX_ORCHESTRATOR_AGENT": str(still_team.agent("developer").id)}
        watch = str(ROOT / "credit_management" / "credit_monitor.py")
        with running(sys.executable, watch, "--interval", "300", env=env) as process:
            wait_for(lambda: watch in psutil.Process(process.pid).cmdline(), "it to begin")
            assert only_look(still_team.bench)["orphans"] == []

    def test_a_scheduler_that_an_agent_has_started_is_none(self, still_team: StillTeam) -> None:
        bench = still_team.bench
        bench.environment["TMUX_ORCHESTRATOR_AGENT"] = str(still_team.agent("developer").id)
        with scheduler(bench):
            assert only_look(bench)["orphans"] == []


def test_a_team_of_rehearsal_agents_is_seen_whole_and_nothing_of_it_is_left_behind(bench: Bench) -> None:
    project = bench.project()
    words = ("--project", str(project), "--spec", str(project / "spec.md"), "--agent", "rehearsal")
    bench.ok("auto_orchestrate.py", *words, "--roles", "orchestrator,developer")
    found = only_look(bench)
    (team,) = found["teams"]
    assert all(agent["load"]["memory_bytes"] > 5_000_000 for agent in team["agents"])
    assert found["daemon"]["is_alive"] and found["daemon"]["load"]["memory_bytes"] > 5_000_000
    assert found["orphans"] == [], "neither agents, nor their hooks, nor the scheduler and its errands"


class TestLogs:
    def test_rotates_by_size_and_removes_by_age(self, bench: Bench) -> None:
        log_file(bench, "bugs.log", length=1_000_001)
        log_file(bench, "bugs.log.1", length=20, days=1)
        log_file(bench, "bugs.log.2", length=300, days=31)
        log_file(bench, "scheduler.log.1", length=4_000, days=31)
        log_file(bench, "scheduler.log", days=31)
        log_file(bench, "merge-a1b2c3.out", length=50_000, days=31)
        log_file(bench, "radar.out", days=29)
        done = bench.ok(DOOR, "--clean-logs", "--json").json["cleaned"]
        assert done["freed_bytes"] == 54_300
        assert below(bench) == {"bugs.log.1", "bugs.log.2", "scheduler.log", "radar.out"}
        assert (bench.home / "logs" / "bugs.log.2").read_bytes() == b"x" * 20
        assert bench.ok(DOOR, "--clean-logs").out.count("cleaned ") == 1, "again there is nothing to do"

    def test_drops_the_oldest_of_five(self, bench: Bench) -> None:
        log_file(bench, "bugs.log", length=1_000_001)
        for number in range(1, 6):
            log_file(bench, f"bugs.log.{number}", length=number)
        assert tidying.clean_logs(bench.home, now=host.now_ms()).freed_bytes == 5
        sizes = [(bench.home / "logs" / f"bugs.log.{number}").stat().st_size for number in range(1, 6)]
        assert sizes == [1_000_001, 1, 2, 3, 4]

    def test_leaves_what_is_not_ours_and_links_and_state(self, bench: Bench, tmp_path: Path) -> None:
        bench.db().close()
        log_file(bench, "notes.log", length=2_000_000, days=99)
        log_file(bench, "scheduler.json", days=99)
        outside = tmp_path / "outside.log"
        outside.write_bytes(b"x" * 2_000_000)
        for name in ("bugs.log", "bugs.log.1"):
            (bench.home / "logs" / name).symlink_to(outside)
            os.utime(bench.home / "logs" / name, (1, 1), follow_symlinks=False)
        before = snapshot(tmp_path / "outside.log", bench.home / "logs", bench.home / "orchestrator.db")
        assert tidying.clean_logs(bench.home, now=host.now_ms()).freed_bytes == 0
        assert snapshot(tmp_path / "outside.log", bench.home / "logs", bench.home / "orchestrator.db") == before

    def test_leaves_a_folder_that_is_a_link(self, bench: Bench, tmp_path: Path) -> None:
        bench.home.mkdir()
        (tmp_path / "elsewhere").mkdir()
        (bench.home / "logs").symlink_to(tmp_path / "elsewhere")
        log_file(bench, "bugs.log", length=2_000_000)
        assert "is a link" in tidying.clean_logs(bench.home, now=host.now_ms()).told[0]
        assert below(bench) == {"bugs.log"}

    def test_leaves_what_a_living_scheduler_has_open(self, bench: Bench) -> None:
        log_file(bench, "scheduler.log", length=2_000_000)
        log_file(bench, "scheduler.log.1", days=99)
        with host.lock(bench.home / "scheduler.lock"):
            told = tidying.clean_logs(bench.home, now=host.now_ms()).told
        assert told == ("scheduler.log: left alone, the scheduler lives and rotates it by itself",)
        assert below(bench) == {"scheduler.log", "scheduler.log.1"}
        tidying.clean_logs(bench.home, now=host.now_ms())
        assert (bench.home / "logs" / "scheduler.log.1").stat().st_size == 2_000_000

    def test_leaves_the_output_of_an_errand_at_work(self, bench: Bench) -> None:
        log_file(bench, "radar.out", days=99)
        with errands.working(bench.home, "radar"):
            tidying.clean_logs(bench.home, now=host.now_ms())
        assert below(bench) == {"radar.out"}

    def test_an_errand_that_begins_meanwhile_keeps_its_output(self, bench: Bench) -> None:
        path = log_file(bench, "radar.out", days=99)
        seen = path.lstat()
        with path.open("wb") as output:
            assert not tidying._remove_unchanged(path, seen)
            output.write(b"a line")
        assert path.read_bytes() == b"a line" and below(bench) == {"radar.out"}

    def test_two_do_not_clean_at_once(self, bench: Bench) -> None:
        log_file(bench, "bugs.log", length=2_000_000)
        with host.lock(bench.home / "locks" / "tidying.lock"):
            out = bench.ok(DOOR, "--clean-logs").out
        assert "left alone: the logs are being cleaned already" in out and below(bench) == {"bugs.log"}


def fill(db: sqlite3.Connection, megabytes: int) -> None:
    """Let a store have so much that is free."""
    with store.writing(db):
        for _ in range(megabytes):
            store.record(db, "filling", now=1, text="x" * 1_000_000)
    db.execute("DELETE FROM events WHERE kind = 'filling'")


class TestTheStore:
    def test_shrinks_while_nothing_runs(self, bench: Bench) -> None:
        db = bench.db()
        fill(db, 15)
        db.close()
        path = bench.home / "orchestrator.db"
        before = path.stat().st_size
        done = bench.ok(DOOR, "--json").json
        assert before > 15_000_000 and path.stat().st_size < 1_000_000
        assert any(said.startswith("vacuum: 15.") and " became " in said for said in done["optimized"])
        assert done["store"]["free_pages"] == 0 and done["findings"] == []

    def test_is_left_as_it_is_when_nobody_asks(self, bench: Bench) -> None:
        db = bench.db()
        fill(db, 15)
        db.close()
        done = bench.ok(DOOR, "--no-optimize-db", "--json").json
        assert done["optimized"] is None and (bench.home / "orchestrator.db").stat().st_size > 15_000_000
        assert [one["command"] for one in done["findings"]] == ["scheduler.py --stop && performance_tuner.py"]

    def test_is_not_shrunk_while_an_agent_lives(self, still_team: StillTeam) -> None:
        fill(still_team.db, 15)
        said = still_team.bench.ok(DOOR, "--json").json["optimized"]
        assert "the scheduler or an agent lives" in said[1] and "somebody else is at work" in said[2]
        assert still_team.db.execute("PRAGMA freelist_count").fetchone()[0] > 2500

    def test_a_writer_in_the_way_is_not_waited_for(self, bench: Bench) -> None:
        db, other = bench.db(), bench.db()
        fill(db, 15)
        with store.writing(other):
            store.record(other, "held", now=1)
            said = tidying.optimize(db, bench.home, is_quiet=True)
        assert said[1].endswith("but somebody writes") and "somebody else is at work" in said[2]
        assert db.execute("PRAGMA busy_timeout").fetchone()[0] == 30_000
        assert len(store.events(db, kind="held")) == 1

    def test_its_log_becomes_empty_when_nobody_is_there(self, bench: Bench) -> None:
        db = bench.db()
        log = bench.home / "orchestrator.db-wal"
        assert log.stat().st_size > 0
        assert tidying.optimize(db, bench.home, is_quiet=True)[2].endswith("the file is empty")
        assert log.stat().st_size == 0

    @pytest.mark.parametrize("holds", ["nobody", "the scheduler", "an agent"])
    def test_is_quiet_when_neither_scheduler_nor_agent_lives(self, still_team: StillTeam, holds: str) -> None:
        home = still_team.bench.home
        if holds != "an agent":
            still_team.bench.tmux.run("kill-server")
            ended: list[Process | None] = [still_team.agent(role).process for role in ("orchestrator", "tester")]
            wait_for(lambda: not any(map(host.is_alive, ended)), "the end of the agents")
        if holds == "the scheduler":
            with host.lock(home / "scheduler.lock"):
                assert not tuning.is_quiet(still_team.db, home)
        else:
            wait_for(lambda: tuning.is_quiet(still_team.db, home) == (holds == "nobody"), "it to be seen")


class TestWatching:
    def test_writes_a_line_of_json_for_each_look_until_ctrl_c(self, still_team: StillTeam) -> None:
        command = [sys.executable, str(ROOT / DOOR), "--watch", "--interval", "1", "--json"]
        with subprocess.Popen(command, env=still_team.bench.environment, stdout=subprocess.PIPE, text=True) as door:
            assert door.stdout
            first, second = (json.loads(door.stdout.readline()) for _ in range(2))
            door.send_signal(signal.SIGINT)
            assert door.wait(timeout=30) == ExitCode.DONE
        assert first["optimized"] and second["optimized"] is None and second["at"] >= first["at"] + 1000
        assert second["logs"]["grown_bytes"] == 0 and len(second["teams"]) == 1

    def test_shows_the_table_on_a_terminal(self, still_team: StillTeam) -> None:
        bench = still_team.bench
        given = shlex.join(f"{name}={value}" for name, value in bench.environment.items())
        door = shlex.join([sys.executable, str(ROOT / DOOR), "--watch", "--interval", "1"])
        script = f"trap : INT; env -i {given} {door}; echo left with $?; exec cat"
        size = ("-x", "120", "-y", "40")
        bench.tmux.run("new-session", "-d", "-s", "watch", *size, "-n", "watch", f"sh -c {shlex.quote(script)}")

        def shows(*texts: str) -> bool:
            screen = bench.screen("watch:watch")
            return all(text in screen for text in texts)

        wait_for(lambda: shows("Performance", "testrunner", "next: scheduler.py --daemon", "Ctrl-C leaves"), "it")
        bench.tmux.run("send-keys", "-t", "watch:watch", "C-c")
        wait_for(lambda: shows("left with 0") and not shows("Performance"), "the terminal as it was")

    @pytest.mark.parametrize("words", [("--interval", "5"), ("--watch", "--interval", "0")])
    def test_refuses_what_means_nothing(self, bench: Bench, words: tuple[str, ...]) -> None:
        done: Done = bench.door(DOOR, *words)
        assert done.code == ExitCode.USAGE and not bench.home.exists()
