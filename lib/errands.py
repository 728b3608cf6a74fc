"""Errands: what takes longer than a beat may. A door runs beside the daemon, and outlives it.

Each errand holds a lock of its own while it works and reads again what it is about, so that one which a
killed daemon has left and one that the next daemon starts do the work once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from lib import config, host
from lib.records import dataclass

#: What a service manager has set for the daemon alone.
_OF_THE_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass
class Errands:
    """The errands of one daemon, by name."""

    home: Path
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, door: str, *arguments: str) -> bool:
        """Run a door as `name` unless that runs already, in our own environment. Returns whether it was started.

        What it prints goes to `logs/NAME.out` of the state home, which holds the last run only.
        """
        return self._start(name, [sys.executable, str(config.ROOT / door), *arguments])

    def start_in_its_own(self, name: str, door: str, *arguments: str) -> bool:
        """The same for a door that needs more than our environment has: by its shebang, which finds its own."""
        return self._start(name, [str(config.ROOT / door), *arguments])

    def _start(self, name: str, command: list[str]) -> bool:
        if self.is_running(name):
            return False
        logs = self.home / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (logs / f"{name}.out").open("wb") as output:
            self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env={name: value for name, value in os.environ.items() if name not in _OF_THE_SERVICE},
            )
        return True

    def is_running(self, name: str) -> bool:
        """Whether an errand runs: one of this daemon, which may not have come to its lock yet, or another's."""
        self.reap()
        return name in self._running or is_at_work(self.home, name)

    def reap(self) -> dict[str, int]:
        """The errands that have ended since the last call, with their exit codes."""
        ended = {name: code for name, child in self._running.items() if (code := child.poll()) is not None}
        for name in ended:
            del self._running[name]
        return ended


def is_at_work(home: Path, name: str) -> bool:
    """Whether an errand holds its lock now, whoever has started it."""
    return host.is_held(_lock_path(home, name))


@contextlib.contextmanager
def working(home: Path, name: str) -> Iterator[None]:
    """Hold the lock of an errand for the block, and wake the daemon at its end. Raises `Busy` when another holds it."""
    try:
        # Who asks whether an errand is at work holds the lock for an instant: that is no errand.
        with host.lock(_lock_path(home, name), wait_seconds=0.5, sentence=f"{name} is at work already"):
            yield
    finally:
        host.wake(home)


def last_words(home: Path, name: str) -> str:
    """What the last run of an errand has printed last, an error with what helps; "" when there is nothing."""
    try:
        with (home / "logs" / f"{name}.out").open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in output.read().decode("utf-8", "replace").strip().splitlines()]
    except FileNotFoundError:
        return ""
    has_hint = len(lines) > 1 and lines[-1].startswith("next: ")
    return "; ".join(lines[-2:] if has_hint else lines[-1:]).removeprefix("error: ")


def _lock_path(home: Path, name: str) -> Path:
    return home / "locks" / f"{name}.lock"
