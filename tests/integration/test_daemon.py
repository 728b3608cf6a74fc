"""The daemon as a process: one of a kind, woken in time, and not ended by what fails."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib import checkins, daemon, host, logs, messages, service, signals, store
from lib.errors import Busy, NotFound
from lib.models import Agent, MessageKind, Process
from tests.agents import a_life, a_team
from tests.conftest import ROOT, Bench, wait_for

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def db(bench: Bench) -> Iterator[sqlite3.Connection]:
    connection = store.connect(bench.home)
    yield connection
    connection.close()


@pytest.fixture
def agent(db: sqlite3.Connection, bench: Bench) -> Agent:
    return a_team(db, "developer", home=bench.home)[0]


@pytest.fixture
def start(bench: Bench) -> Iterator[Start]:
    """Start the daemon in the foreground, and wait until it sleeps."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "scheduler.py"), "--daemon", *more]
        process = subprocess.Popen(command, env=bench.environment, stderr=subprocess.DEVNULL)
        started.append(process)
        wait_for(lambda: host.is_alive(service.running(bench.home)), "the daemon")
        wait_for(lambda: (bench.home / "wake").exists(), "the daemon's pipe")
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def kinds(db: sqlite3.Connection) -> Counter[str]:
    return Counter(event.kind for event in store.events(db, limit=100_000))


def fired(db: sqlite3.Connection) -> int:
    return kinds(db)["check_in.fired"]


def hook(bench: Bench, agent: Agent) -> None:
    """What the agent's Claude Code does at the end of a turn."""
    subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "lib" / "front" / "hook.py"), str(bench.home), str(agent.id), "0"],
        input=b'{"hook_event_name": "Stop", "session_id": "c"}',
        check=True,
    )


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class TestOne:
    def test_a_second_one_is_refused_by_the_pid_of_the_first(self, bench: Bench, start: Start) -> None:
        process = start()
        done = bench.door("scheduler.py", "--daemon")
        assert done.code == 4
        assert f"already running (pid {process.pid})" in done.err
        assert bench.ok("scheduler.py", "--status", "--json").json["pid"] == process.pid

    def test_none_runs(self, bench: Bench) -> None:
        assert service.running(bench.home) is None
        with pytest.raises(NotFound, match="not running"):
            service.stop(bench.home)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '"x"', '{"pid": null, "started": 1}'])
    def test_a_note_of_another_shape_is_not_believed(self, bench: Bench, content: str) -> None:
        bench.home.mkdir()
        (bench.home / "scheduler.json").write_text(content)
        assert service.running(bench.home) is None
        with host.lock(bench.home / "scheduler.lock"):
            assert not host.is_alive(service.running(bench.home))
            with pytest.raises(NotFound):
                service.stop(bench.home)

    def test_an_old_note_does_not_end_somebody_elses_process(self, bench: Bench) -> None:
        bench.home.mkdir()
        other = subprocess.Popen(["sleep", "60"])
        try:
            (bench.home / "scheduler.json").write_text(f'{{"pid": {other.pid}, "started": 1}}')
            with host.lock(bench.home / "scheduler.lock"), pytest.raises(NotFound):
                service.stop(bench.home)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()

    def test_launches_at_once_start_one(self, bench: Bench) -> None:
        program = (
            "from pathlib import Path; import os; from lib import service\n"
            "print(service.start(Path(os.environ['TMUX_ORCHESTRATOR_HOME'])).pid)"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program], cwd=ROOT, env=bench.environment, stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        pids = {process.communicate(timeout=60)[0].strip() for process in started}
        assert len(pids) == 1 and pids != {""}
        found = service.running(bench.home)
        assert found and pids == {str(found.pid)}

    def test_one_without_the_queue_is_named_to_who_wants_it(self, bench: Bench, start: Start) -> None:
        process = start()
        assert not service.drains_queue(bench.home)
        done = bench.door("scheduler.py", "--queue-daemon")
        assert done.code == 4
        assert f"already running (pid {process.pid}), without the queue" in done.err
        assert "scheduler.py --stop, then scheduler.py --queue-daemon" in done.err
        project = bench.project()
        added = bench.ok("scheduler.py", "--queue-add", str(project / "spec.md"), str(project))
        assert "leaves the queue alone" in added.err
        assert "no scheduler drains the queue" in bench.ok("scheduler.py", "--queue-list").out
        assert bench.rows("SELECT status FROM queue_entries") == [{"status": "queued"}]


class TestConfiguration:
    def test_is_read_again_on_sighup(self, bench: Bench, start: Start) -> None:
        path = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("queue: {max_concurrent: 1}\n")
        process = start()
        log = bench.home / "logs" / "scheduler.log"
        for text, told in (
            ("queue: {max_concurrent: 2}\n", "was read again"),
            ("queue: {max_concurrent: 0}\n", "queue.max_concurrent must be above 0"),
        ):
            path.write_text(text)
            process.send_signal(signal.SIGHUP)
            wait_for(lambda told=told: told in log.read_text(), told)  # type: ignore[misc]
        assert process.poll() is None


class TestBeatsInTheLog:
    def test_verbose_logs_each_with_its_time_and_duration(self, bench: Bench, start: Start) -> None:
        began = host.now_ms()
        start("--verbose")
        wait_for(lambda: logs.beats(bench.home), "the first beat")
        host.wake(bench.home)
        (first, took), (second, _) = wait_for(lambda: logs.beats(bench.home)[1:] and logs.beats(bench.home)[:2], "")
        assert began <= first < second <= host.now_ms()
        assert took > 0

    def test_otherwise_it_logs_none(self, bench: Bench, start: Start) -> None:
        process = start()
        process.terminate()
        process.wait(10)
        assert "stopped" in (bench.home / "logs" / "scheduler.log").read_text()
        assert logs.beats(bench.home) == []

    def test_a_line_that_only_looks_like_one_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        rotated, newest = (tmp_path / "logs" / name for name in ("scheduler.log.1", "scheduler.log"))
        rotated.write_text("2026-11-29 08:00:00,000 DEBUG lib.logs: beat of 1000 took 12.5 ms\n")
        newest.write_text(
            "2026-11-29 08:00:01,000 INFO lib.daemon: beat of 1 took 1.0 ms\n"
            "2026-11-29 08:00:01,000 DEBUG lib.logs: beat of 2000 took 7.0 ms\n"
            "2026-11-29 08:00:02,000 DEBUG lib.logs: beat of 30"
        )
        assert logs.beats(tmp_path) == [(1000, 12.5), (2000, 7.0)]


class TestEnd:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_at_once_and_in_order(self, bench: Bench, start: Start, how: signal.Signals) -> None:
        process = start()
        process.send_signal(how)
        assert process.wait(60) == 0
        assert service.running(bench.home) is None
        assert "stopped" in (bench.home / "logs" / "scheduler.log").read_text()

    def test_the_door_ends_it(self, bench: Bench, start: Start) -> None:
        process = start()
        assert bench.ok("scheduler.py", "--stop", "--json").json["stopped"] == process.pid
        assert process.wait(5) == 0

    def test_one_that_was_killed_is_started_again_and_goes_on(
        self, bench: Bench, db: sqlite3.Connection, agent: Agent, start: Start
    ) -> None:
        checkins.add(db, agent.id, "before", minutes=1, now=host.now_ms() - 120_000)
        process = start()
        wait_for(lambda: kinds(db)["check_in.fired"] + kinds(db)["check_in.missed"], "the check-in to be handled")
        process.kill()
        process.wait()
        assert service.running(bench.home) is None
        assert start().pid != process.pid
        assert bench.ok("scheduler.py", "--status", "--json").json["running"]


class TestWaking:
    def test_it_sleeps_when_nothing_is_due(self, start: Start) -> None:
        process = start()
        time.sleep(0.5)
        before = cpu_seconds(process)
        time.sleep(1.5)
        assert cpu_seconds(process) - before < 0.1

    def test_a_check_in_is_handled_at_its_time_and_not_at_the_next_idle_look(
        self, db: sqlite3.Connection, agent: Agent, start: Start
    ) -> None:
        due = host.now_ms() + 2500
        checkins.add(db, agent.id, "look", minutes=1, now=due - 60_000)
        start()
        handled = wait_for(
            lambda: [event for event in store.events(db) if event.kind in ("check_in.fired", "check_in.missed")],
            "the check-in",
        )
        assert 0 <= handled[0].at - due < daemon.IDLE_SECONDS / 2 * 1000

    def test_a_hook_wakes_it(self, bench: Bench, db: sqlite3.Connection, agent: Agent, start: Start) -> None:
        start()
        time.sleep(0.5)
        hook(bench, agent)
        wait_for(lambda: kinds(db)["hook.Stop"], "the hook's event", seconds=daemon.IDLE_SECONDS / 2)

    @pytest.mark.parametrize(("spent", "rest"), [(0.0, 0.0), (0.005, 0.02), (0.05, 0.2), (3.0, 0.5)])
    def test_it_rests_for_what_it_has_spent(self, spent: float, rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
        rests: list[float] = []
        monkeypatch.setattr(time, "process_time", lambda: 10.0 + spent)
        monkeypatch.setattr(time, "sleep", rests.append)
        assert daemon.rest(since=10.0) == 10.0 + spent
        assert rests == [pytest.approx(rest)]

    def test_what_wakes_it_while_it_rests_is_not_forgotten(
        self, bench: Bench, db: sqlite3.Connection, agent: Agent, start: Start
    ) -> None:
        start()
        for _ in range(10):
            hook(bench, agent)
        wait_for(lambda: kinds(db)["hook.Stop"] == 10, "the hooks' events", seconds=daemon.IDLE_SECONDS / 2)


class TestSteps:
    def tick(self, bench: Bench, db: sqlite3.Connection) -> daemon.Beat:
        return daemon.tick(db, bench.tmux, bench.home, now=host.now_ms())

    def test_a_step_that_fails_does_not_stop_the_others_and_is_an_event(
        self, bench: Bench, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []

        def breaks(beat: daemon.Beat) -> None:
            raise ZeroDivisionError("not expected")

        def works(beat: daemon.Beat) -> None:
            done.append("works")

        monkeypatch.setattr(daemon, "STEPS", (breaks, works, breaks, works))
        beat = self.tick(bench, db)
        assert done == ["works", "works"]
        assert beat.failed
        failures = [event for event in store.events(db) if event.kind == "daemon.step_failed"]
        assert [event.data["step"] for event in failures] == ["breaks", "breaks"]
        assert "ZeroDivisionError: not expected" in str(failures[0].data["trace"])

    def test_a_failure_that_cannot_be_recorded_does_not_end_the_beat(
        self, bench: Bench, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def breaks(beat: daemon.Beat) -> None:
            raise ZeroDivisionError

        def full(*words: object, **more: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(daemon, "STEPS", (breaks,))
        monkeypatch.setattr(store, "record", full)
        assert self.tick(bench, db).failed

    def test_what_fails_is_not_tried_again_without_a_pause(
        self, db: sqlite3.Connection, agent: Agent, bench: Bench
    ) -> None:
        now = host.now_ms()
        checkins.add(db, agent.id, "due", minutes=1, now=now - 120_000)
        failed = daemon.Beat(db, bench.tmux, bench.home, now, a_life(bench.home), failed=True)
        assert daemon._seconds_to_next(db, failed, now) >= 1
        fine = daemon.Beat(db, bench.tmux, bench.home, now, a_life(bench.home))
        assert daemon._seconds_to_next(db, fine, now) == 0

    def test_a_step_that_cannot_ask_tmux_leaves_the_messages_waiting(
        self, bench: Bench, db: sqlite3.Connection, agent: Agent
    ) -> None:
        message = messages.queue(db, agent, "hello", sender="tester", kind=MessageKind.MESSAGE, now=host.now_ms())
        self.tick(bench, db)
        assert messages.get(db, message.id).status == "queued"
        assert kinds(db)["daemon.step_failed"] == 0

    def test_signals_come_first(self, bench: Bench, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        # What an agent has said decides whether it can take a message.
        order: list[str] = []

        def note(name: str, answer: object) -> Callable[..., object]:
            def noted(*words: object, **more: object) -> object:
                order.append(name)
                return answer

            return noted

        monkeypatch.setattr(signals, "ingest", note("signals", 0))
        monkeypatch.setattr(checkins, "fire_due", note("check-ins", 0))
        monkeypatch.setattr(messages, "agents_with_pending", note("messages", []))
        self.tick(bench, db)
        assert order[:3] == ["signals", "check-ins", "messages"]


def test_one_beat_is_refused_while_a_daemon_runs(bench: Bench, start: Start) -> None:
    start()
    assert bench.door("scheduler.py", "--once").code == 4


def test_asking_whether_one_runs_does_not_keep_one_from_starting(bench: Bench, start: Start) -> None:
    started = threading.Event()

    def ask() -> None:
        while not started.is_set():
            service.running(bench.home)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        process = start()
        wait_for(lambda: (bench.home / "logs" / "scheduler.log").exists(), "the daemon's log")
        assert process.poll() is None
    finally:
        started.set()
        asking.join()


def test_busy_names_nobody_while_one_is_just_starting(bench: Bench) -> None:
    with host.lock(bench.home / "scheduler.lock"), pytest.raises(Busy, match="just starting"):
        daemon.run(bench.home, bench.tmux)
    assert service.running(bench.home) is None
    assert not host.is_alive(Process(os.getpid(), 1, host.boot_id()))
