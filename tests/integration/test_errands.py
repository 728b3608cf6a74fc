"""Errands: doors that run beside the daemon, once each, and outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import errands, host
from lib.errands import Errands
from lib.errors import Busy
from tests.conftest import ROOT, Bench, wait_for

#: A door that holds the lock of an errand until it is told to end.
HOLDS = """
import sys, time
from pathlib import Path
from lib import errands
with errands.working(Path(sys.argv[1]), sys.argv[2]):
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def mine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Errands:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    return Errands(bench.home)


def hold(home: Path, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(home), name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "at work\n"
    return process


def test_one_runs_beside_us_and_its_words_are_kept(bench: Bench, mine: Errands) -> None:
    assert mine.start("look", "scheduler.py", "--queue-list")
    assert wait_for(mine.reap, "its end") == {"look": 0}
    assert "the queue is empty" in errands.last_words(bench.home, "look")
    assert mine.start("look", "scheduler.py", "--queue-status", "7")
    assert wait_for(mine.reap, "its end") == {"look": 3}
    assert errands.last_words(bench.home, "look").endswith("; next: scheduler.py --queue-list")
    assert errands.last_words(bench.home, "never") == ""


def test_the_same_one_is_not_started_twice(bench: Bench, mine: Errands) -> None:
    assert mine.start("look", "scheduler.py", "--status")
    assert not mine.start("look", "scheduler.py", "--status")
    wait_for(mine.reap, "its end")
    assert mine.start("look", "scheduler.py", "--status")
    wait_for(mine.reap, "its end")


def test_one_that_an_earlier_daemon_has_left_at_work_is_not_started_again(bench: Bench, mine: Errands) -> None:
    other = hold(bench.home, "look")
    try:
        assert errands.is_at_work(bench.home, "look")
        assert not errands.is_at_work(bench.home, "another")
        assert not mine.start("look", "scheduler.py", "--status")
        with pytest.raises(Busy, match="look is at work already"), errands.working(bench.home, "look"):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert not errands.is_at_work(bench.home, "look")
    assert mine.start("look", "scheduler.py", "--status")
    wait_for(mine.reap, "its end")


def test_its_end_wakes_the_daemon(bench: Bench) -> None:
    bench.home.mkdir()
    pipe = host.make_wake_pipe(bench.home)
    with pytest.raises(BlockingIOError):
        os.read(pipe, 1)
    with pytest.raises(ZeroDivisionError), errands.working(bench.home, "look"):
        raise ZeroDivisionError
    assert os.read(pipe, 10) == b"!"
    os.close(pipe)


def test_it_does_not_speak_to_the_service_manager(bench: Bench, mine: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    def note(*words: object, env: dict[str, str], **more: object) -> None:
        started.append(env)
        raise InterruptedError

    monkeypatch.setenv("NOTIFY_SOCKET", "/run/somewhere")
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", note)
        with pytest.raises(InterruptedError):
            mine.start("look", "scheduler.py", "--status")
    assert started[0]["HOME"] == bench.environment["HOME"]
    assert "NOTIFY_SOCKET" not in started[0]
