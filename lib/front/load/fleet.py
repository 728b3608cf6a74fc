"""The orchestrations of a trial: each a project of its own, launched by the door as a person would."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from lib import agents, checkins, host, orchestrations, store
from lib.errors import OrchestratorError
from lib.front.sandbox import Sandbox
from lib.git import worktrees
from lib.models import Agent
from lib.records import dataclass

#: A team of five that works and then waits; whoever waits takes messages.
ROLES = "orchestrator,developer,tester,testrunner,project_manager"
SPEC = """# Load

PROJECT: Load {number}
GOAL: Wait, and take messages.
rehearse: hold

DELIVERABLES:
1. A file that nobody writes
"""
_LAUNCHED_WITHIN_SECONDS = 300.0
#: Check-ins come once a minute; their first times are spread over it by the golden ratio, evenly for any number.
_CHECK_IN_MINUTES, _GOLDEN = 1, 0.618034


@dataclass(frozen=True)
class Launch:
    """One launch that is over: how long it took, and what it said when it failed."""

    number: int
    began_at: int
    milliseconds: float
    failure: str = ""


@dataclass
class Fleet:
    """What stands so far. It is used by one thread."""

    sandbox: Sandbox
    launches: list[Launch] = field(default_factory=list)
    _launched: dict[int, tuple[subprocess.Popen[bytes], float, int]] = field(default_factory=dict)
    _reminded: set[int] = field(default_factory=set)

    @property
    def started(self) -> int:
        """How many launches have begun."""
        return len(self.launches) + len(self._launched)

    def grow_to(self, count: int, *, interval: float, told: Callable[[int], None]) -> None:
        """Start what is missing, one every `interval` seconds, and wait for all; `told` hears how many are over.

        A launch that fails is among `launches` with its last line.
        """
        due = time.monotonic()
        while self.started < count or self._launched:
            if self.started < count and time.monotonic() >= due:
                due += interval
                self._launch(self.started + 1)
            self._settle()
            told(len(self.launches))
            time.sleep(0.02)

    def _launch(self, number: int) -> None:
        project = _project(self.sandbox.folder / "projects" / f"load-{number:02d}", number)
        words = ("--spec", str(project / "spec.md"), "--roles", ROLES, "--agent", "rehearsal", "--quiet")
        door = self.sandbox.start("auto_orchestrate.py", "--project", str(project), *words)
        self._launched[number] = door, time.monotonic(), host.now_ms()

    def _settle(self) -> None:
        for number, (door, began, at) in list(self._launched.items()):
            took = time.monotonic() - began
            if took > _LAUNCHED_WITHIN_SECONDS:
                door.kill()
            elif door.poll() is None:
                continue
            said = door.communicate()[1].decode(errors="replace").strip()
            failure = "" if door.returncode == 0 else said or f"exit code {door.returncode}"
            self.launches.append(Launch(number, at, took * 1000, failure))
            del self._launched[number]

    def teams(self) -> list[list[Agent]]:
        """The agents of each team that stands."""
        with self._store() as db:
            return [agents.of_orchestration(db, one.id) for one in orchestrations.live(db)]

    def remind(self, *, within_seconds: float) -> None:
        """Give each agent that has none yet a check-in that comes every minute, for the first time within so long."""
        with self._store() as db:
            for agent in agents.live(db):
                if agent.id not in self._reminded:
                    self._reminded.add(agent.id)
                    _remind(db, agent, within_seconds)

    @contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        db = store.connect(self.sandbox.home)
        try:
            yield db
        finally:
            db.close()


def _project(path: Path, number: int) -> Path:
    path.mkdir(parents=True)
    (path / "spec.md").write_text(SPEC.format(number=number), encoding="utf-8")
    worktrees.make_repository(path, author="Rehearsal", subject="The spec")
    return path


def _remind(db: sqlite3.Connection, agent: Agent, within_seconds: float) -> None:
    minute = _CHECK_IN_MINUTES * 60_000
    first_in = round(agent.id * _GOLDEN % 1 * min(minute, within_seconds * 1000))
    # As if it were scheduled so long ago that the first comes then.
    checkins.add(
        db,
        agent.id,
        "How does the work get on?",
        minutes=_CHECK_IN_MINUTES,
        recurring=True,
        now=host.now_ms() + first_in - minute,
    )


def check_launched(fleet: Fleet) -> None:
    """Raise `OrchestratorError` when no launch has come to anything: there is nothing to measure."""
    failures = [one.failure for one in fleet.launches if one.failure]
    if fleet.launches and len(failures) == len(fleet.launches):
        raise OrchestratorError(f"no orchestration could be launched: {failures[0].splitlines()[-1]}")
