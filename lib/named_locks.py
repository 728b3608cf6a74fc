"""What keeps launches away from a project: its live orchestration, or a lock of its name that a person holds.

Holding a lock means that a process holds its file, as with flock(1): the one that has taken it, or what that has
started with it. The note beside it names the holder; one without a holder is stale.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from lib import agents, errands, host, orchestrations, store
from lib.errors import Busy, OrchestratorError, Usage
from lib.judgement import specs
from lib.models import LIVE, Orchestration, OrchestrationStatus, Process
from lib.records import dataclass
from lib.tmux import Tmux

#: Who only asks whether a lock is held may hold it up for an instant.
_ASKED_WITHIN_SECONDS = 0.5
#: A launch that has just been recorded may not have made anything yet.
_SETTLES_WITHIN_MS = 60_000


@dataclass(frozen=True)
class Note:
    """What a holder says of itself. `since` is UTC milliseconds; `command` is "" when nothing but the lock is run."""

    pid: int
    started: int
    boot: str
    command: str
    since: int

    @property
    def process(self) -> Process:
        return Process(self.pid, self.started, self.boot)


@dataclass(frozen=True)
class NamedLock:
    """A lock that is held, or of which a note is left."""

    name: str
    is_held: bool
    note: Note | None

    @property
    def state(self) -> str:
        """In words: who holds it, or why its note is stale."""
        if self.note is None:
            return "held by one that is just beginning" if self.is_held else "stale: its note cannot be read"
        pid = self.note.pid
        if self.is_held:
            lives = host.is_alive(self.note.process)
            return f"held by pid {pid}" if lives else f"held by what pid {pid}, which has ended, has left running"
        if self.note.boot != host.boot_id():
            return f"stale: pid {pid} held it before the last reboot"
        return f"stale: pid {pid} {'lives and does not hold it' if host.is_alive(self.note.process) else 'has ended'}"

    @property
    def sentence(self) -> str:
        """`state`, and the first line of the command that the holder runs, or ran."""
        lines = self.note.command.splitlines() if self.note else []
        return f"{self.state}: {lines[0]}" if lines else self.state


@dataclass(frozen=True)
class Hold:
    """A lock in this process's hands. A child that gets `descriptor` holds it too."""

    home: Path
    name: str
    descriptor: int
    note: Note

    def is_now_of(self, process: Process) -> None:
        """Have the note name another process: the child that the lock is held for."""
        _write(self.home, self.name, replace(self.note, **vars(process)))


def name_of(project: Path) -> str:
    """The name whose lock keeps launches away from a project."""
    return specs.slug(project.name)


def check_name(name: str) -> str:
    """The name as a lock has it. Raises `Usage` for a path, and for a name without a letter or a digit."""
    if "/" in name or not any(sign.isascii() and sign.isalnum() for sign in name):
        raise Usage(
            f"{name!r} is no name of a project", hint="the name of its folder: concurrent_orchestration.py --list"
        )
    return specs.slug(name)


def check_free(home: Path, project: Path) -> None:
    """Raises `Busy` naming the holder when the lock of a project's name is held."""
    name = name_of(project)
    if host.is_held(_lock_path(home, name)):
        raise _busy(home, name)


def every(home: Path) -> list[NamedLock]:
    """The locks that are held and those of which a note is left, by name. Changes nothing."""
    found = {path.stem: path for path in sorted(_folder(home).glob("*.lock"))}
    locks = [_look(home, name) for name in found]
    return [lock for lock in locks if lock.is_held or _note_path(home, lock.name).exists()]


def _look(home: Path, name: str) -> NamedLock:
    held, note = host.is_held(_lock_path(home, name)), _read(home, name)
    if not held and note is not None and host.is_alive(note.process):  # taken or left between the two looks
        held, note = host.is_held(_lock_path(home, name)), _read(home, name)
    return NamedLock(name, held, note)


@contextlib.contextmanager
def holding(db: sqlite3.Connection, home: Path, name: str, command: str, *, now: int) -> Iterator[Hold]:
    """Hold a lock for the block.

    Raises `Busy` naming who has it, or the live orchestration of a project of that name.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(host.lock(_lock_path(home, name), wait_seconds=_ASKED_WITHIN_SECONDS))
        except Busy:
            raise _busy(home, name) from None
        # A transaction: a launch that has looked at the lock before it was taken is then recorded, or not begun.
        with store.writing(db):
            for found in orchestrations.live(db):
                if name_of(found.project) == name:
                    raise orchestrations.already_running(found, found.project)
        process = host.process(os.getpid())
        assert process
        note = Note(process.pid, process.started, process.boot, command, now)
        _write(home, name, note)
        stack.callback(_note_path(home, name).unlink, missing_ok=True)
        yield Hold(home, name, descriptor, note)


def _busy(home: Path, name: str) -> Busy:
    return Busy(f"the name {name} is {_look(home, name).sentence}", hint="concurrent_orchestration.py --list")


def remove_stale(home: Path, name: str) -> bool:
    """Remove a note that nobody stands behind. Returns False when somebody holds the lock now."""
    try:
        with host.lock(_lock_path(home, name), wait_seconds=_ASKED_WITHIN_SECONDS):
            _note_path(home, name).unlink(missing_ok=True)
    except Busy:
        return False
    return True


def _folder(home: Path) -> Path:
    return home / "locks" / "named"


def _lock_path(home: Path, name: str) -> Path:
    return _folder(home) / f"{name}.lock"


def _note_path(home: Path, name: str) -> Path:
    return _folder(home) / f"{name}.json"


def _write(home: Path, name: str, note: Note) -> None:
    path = _note_path(home, name)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(note)), encoding="utf-8")
    draft.replace(path)


def _read(home: Path, name: str) -> Note | None:
    try:
        told = json.loads(_note_path(home, name).read_text(encoding="utf-8"))
        return Note(int(told["pid"]), int(told["started"]), str(told["boot"]), str(told["command"]), int(told["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# -- live orchestrations: the row of one is the lock of its project --


@dataclass(frozen=True)
class Standing:
    """A live orchestration, and what of it is there; `has_session` is None when tmux could not be asked."""

    orchestration: Orchestration
    agents: int
    alive: int
    has_session: bool | None
    is_launching: bool

    def is_abandoned(self, *, now: int) -> bool:
        """Whether nothing of it is there, and nobody is about to make it."""
        settled = now - self.orchestration.created_at > _SETTLES_WITHIN_MS
        return self.has_session is False and self.alive == 0 and settled and not self.is_launching


def standings(db: sqlite3.Connection, tmux: Tmux, home: Path) -> list[Standing]:
    """Every live orchestration with what is there of it, oldest first. Changes nothing."""
    return [
        _standing(db, tmux, found, errands.is_at_work(home, _launch(found.id))) for found in orchestrations.live(db)
    ]


def _standing(db: sqlite3.Connection, tmux: Tmux, found: Orchestration, is_launching: bool) -> Standing:
    team = agents.of_orchestration(db, found.id)
    try:
        has_session = tmux.orchestration_of(found.session) == found.id
    except OrchestratorError:
        has_session = None
    return Standing(found, len(team), sum(host.is_alive(agent.process) for agent in team), has_session, is_launching)


def end_abandoned(db: sqlite3.Connection, tmux: Tmux, home: Path, orchestration_id: str, *, now: int) -> bool:
    """Mark an orchestration of which nothing is there as stopped; its work stays.

    Returns False when that is not so any more, or a launch is at it.
    """
    try:
        with errands.working(home, _launch(orchestration_id)):
            found = orchestrations.get(db, orchestration_id)
            if found.status not in LIVE or not _standing(db, tmux, found, False).is_abandoned(now=now):
                return False
            outcome = "cleaned up: neither its session nor any of its agents was there"
            orchestrations.set_status(db, found.id, OrchestrationStatus.STOPPED, now=now, outcome=outcome)
    except Busy:
        return False
    return True


def _launch(orchestration_id: str) -> str:
    return f"launch-{orchestration_id}"
