"""The ground of a chaos test: a sandbox of its own, or a person's own teams, and the machine below it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from lib import config, service, store
from lib.errors import OrchestratorError
from lib.front import sandbox
from lib.front.chaos.machine import Machine
from lib.front.sandbox import Sandbox
from lib.models import Process
from lib.records import dataclass
from lib.tmux import Tmux

#: Short pauses, so that what a limit holds goes on within seconds; no limit on what a strike may send.
_SETTINGS = """agent: rehearsal
messages_per_minute: 1000
limits:
  grace_seconds: 0.5
  spacing_seconds: 0.1
"""


@dataclass
class Ground(Sandbox):
    """Where teams are broken. `environment` is all that its doors and agents get."""

    machine: Machine
    #: Whether all of it is the tester's: else a person's own teams run here, and nothing is ended but what it began.
    is_own: bool = True
    _begun: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def door(self, name: str, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a door to its end, as a person would."""
        return subprocess.run(
            sandbox.command(name, arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            start_new_session=True,
        )

    def ok(self, name: str, *arguments: str) -> str:
        """What a door prints that has to succeed. Raises `OrchestratorError` with its last words when it does not."""
        done = self.door(name, *arguments)
        if done.returncode != 0:
            said = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-2:])
            raise OrchestratorError(f"{name} {arguments[0]} failed with exit code {done.returncode}: {said}")
        return done.stdout

    def begin(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Run a door beside the others."""
        begun = self.start(name, *words)
        self._begun.append(begun)
        return begun

    def stranger(self) -> subprocess.Popen[bytes]:
        """A process that is none of ours, and ends with the ground."""
        begun = subprocess.Popen(["sleep", "600"], env=self.environment, start_new_session=True)
        self._begun.append(begun)
        return begun

    @contextlib.contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """The store, for one look: a connection that stays open would keep what a strike is about."""
        db = store.connect(self.home)
        try:
            yield db
        finally:
            db.close()

    def newest_event(self) -> int:
        """The id of the newest event."""
        with self.store() as db:
            return store.newest_event(db)

    def daemon(self) -> Process | None:
        """The scheduler that runs here, or None."""
        return service.running(self.home) if self.home.exists() else None

    def lives(self) -> Counter[str]:
        """In how many processes each conversation runs, by the conversation's id."""
        return Counter(word for process in self.running() for word in process.cmdline())

    def end_begun(self) -> None:
        """End what runs beside the others, and know that it has ended."""
        for one in self._begun:
            one.kill()
            one.wait()


@contextlib.contextmanager
def ground(more: Mapping[str, str] | None = None) -> Iterator[Ground]:
    """A ground of its own, of which nothing is left afterwards. `more` are further variables of its environment."""
    variables = {
        "TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0",
        "UV_PYTHON_INSTALL_DIR": os.environ.get(
            "UV_PYTHON_INSTALL_DIR", str(Path.home() / ".local" / "share" / "uv" / "python")
        ),
        "UV_OFFLINE": "1",
        **(more or {}),
    }
    with sandbox.made("chaos", settings=_SETTINGS, variables=variables) as place:
        machine = Machine(place.folder, place.home)
        there = Ground(place.folder, place.environment | machine.prepare(), place.tmux, machine)
        try:
            yield there
        finally:
            there.end_begun()


@contextlib.contextmanager
def borrowed() -> Iterator[Ground]:
    """The ground of a person's own teams: their state home and tmux server. Only what is begun here is ended."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-chaos-") as name:
        folder, home = Path(name), config.state_home()
        environment = {**os.environ, "TMUX_ORCHESTRATOR_HOME": str(home)}
        there = Ground(folder, environment, Tmux.from_environment(), Machine(folder, home), is_own=False)
        with sandbox.tidied(there.end_begun):
            yield there


def wait_for(is_so: Callable[[], object], *, seconds: float) -> bool:
    """Wait until something is so; False after the limit."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
