"""The scheduler as a process of this machine: whether it runs and since when, and having it run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lib import config, host
from lib.errors import Busy, NotFound, Unavailable
from lib.models import Process


def lock_path(home: Path) -> Path:
    """Who holds this lock is the scheduler."""
    return home / "scheduler.lock"


def write_who_runs(home: Path, *, queue: bool) -> None:
    """Say that this process is the scheduler, and whether it drains the queue; who says so holds the lock."""
    # Beside the lock and not in it: holding the lock is the truth, this only names the holder.
    process = host.process(os.getpid())
    assert process
    path = home / "scheduler.json"
    draft = path.with_suffix(".new")
    note = {**vars(process), "since": host.now_ms(), "queue": queue}
    draft.write_text(json.dumps(note))
    draft.replace(path)


def running(home: Path) -> Process | None:
    """The scheduler of this state home, or None when none runs, or one that has not said yet who it is."""
    if not _is_held(home):
        return None
    note = _who_runs(home)
    try:
        process = Process(int(note["pid"]), int(note["started"]), str(note["boot"]))
    except (KeyError, TypeError, ValueError):
        return None
    # Who asks holds the lock for an instant as well: the note may be of a daemon that has ended.
    return process if host.is_alive(process) else None


def _is_held(home: Path) -> bool:
    try:
        with host.lock(lock_path(home)):
            return False
    except Busy:
        return True


def drains_queue(home: Path) -> bool:
    """Whether the scheduler that runs, or ran last, drains the queue."""
    return bool(_who_runs(home).get("queue"))


def running_since(home: Path) -> int | None:
    """When the scheduler that runs, or ran last, was started (UTC milliseconds); None when that is not known."""
    since = _who_runs(home).get("since")
    return since if isinstance(since, int) else None


def _who_runs(home: Path) -> dict[str, Any]:
    try:
        note = json.loads((home / "scheduler.json").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def start(home: Path, *, wait_seconds: float = 10.0) -> Process:
    """Have a scheduler run: start one, as a process of its own that outlives the terminal, unless one runs.

    Raises `Unavailable` with the end of its log when it does not come up.
    """
    if process := running(home):
        return process
    (home / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "logs" / "scheduler.out").open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(config.ROOT / "scheduler.py"), "--daemon", "--queue-daemon"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        if process := running(home):
            if process.pid != child.pid:
                # Another launch has won the race. Our child may not have looked at the lock yet, and would take
                # the place of the other one if that is stopped now.
                child.terminate()
                child.wait()
            return process
        if child.poll() is not None and not _is_held(home):
            break
        time.sleep(0.02)
    raise Unavailable("the scheduler did not start", hint=f"read {home / 'logs' / 'scheduler.out'}")


def ensure(home: Path) -> str | None:
    """Something waits to be done later: wake the scheduler, or start it as `auto_start` allows.

    Returns what a person should hear of it, or None.
    """
    if running(home):
        host.wake(home)
        return None
    if not config.load().auto_start:
        return "the scheduler is not running, and auto_start is off: start it with scheduler.py --daemon"
    return f"started the scheduler (pid {start(home).pid})"


def stop(home: Path, *, wait_seconds: float = 15.0) -> Process:
    """End the scheduler of this state home after its beat. Raises `NotFound` when none runs."""
    process = running(home)
    if process is None or not host.is_alive(process):
        raise NotFound("the scheduler is not running", hint="scheduler.py --daemon")
    with contextlib.suppress(ProcessLookupError):  # it has ended since the look
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_seconds
    while host.is_alive(process):
        if time.monotonic() > deadline:
            raise Busy(f"the scheduler (pid {process.pid}) is still ending its beat", hint="scheduler.py --status")
        time.sleep(0.02)
    return process


def already_running(home: Path, *, wants_queue: bool) -> Busy:
    """Why another scheduler cannot run now, and what to do about that."""
    process = running(home)
    if process is None:
        return Busy("the scheduler is just starting")
    lacks = wants_queue and not drains_queue(home)
    return Busy(
        f"the scheduler is already running (pid {process.pid})" + (", without the queue" if lacks else ""),
        hint="scheduler.py --stop, then scheduler.py --queue-daemon" if lacks else None,
    )
