"""What the code of lib/ finds around itself in a simulated world: the one place where anything of lib/ is replaced.

Replaced are the clock, processes and signals, tmux, git, threads, Claude Code with its session files, and SQLite's
waiting for a lock. Real are the store, the spool with its hooks, locks, launch files and transcripts: files on a disk
in memory.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from lib import (
    agents,
    config,
    couriers,
    daemon,
    errands,
    host,
    launch,
    logs,
    orchestrations,
    planning,
    safekeeping,
    store,
    templates,
)
from lib.claude import installed, sessions, transcripts
from lib.config import Settings
from lib.errors import OrchestratorError
from lib.judgement import screens
from lib.merging import hub
from lib.models import Process, Program
from lib.queue import draining
from lib.tmux import Tmux
from tests.simulation import claude as claude_code
from tests.simulation.world import Future, Killed, Pool, SimulatedProcess, Thread, World

#: How long a program of ours takes to start, at most.
_START_SECONDS = 0.4
#: How long SQLite waits for a lock, as the store tells it to.
_BUSY_SECONDS = 30.0


class Clock:
    """The module `time`, by the world's clock."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return self._world.wall_ms / 1000

    def time_ns(self) -> int:
        return self._world.wall_ms * 1_000_000

    def monotonic(self) -> float:
        return self._world.now

    def perf_counter(self) -> float:
        return self._world.now

    def process_time(self) -> float:
        """Whoever lives is at work for a fiftieth of the time."""
        return self._world.now / 50

    def sleep(self, seconds: float) -> None:
        if self._world.current and not self._world.current.is_alive:
            raise Killed
        self._world.sleep(seconds)


class System:
    """The module `os`, as far as it knows of processes, chance and the environment."""

    def __init__(self, world: World, of: ModuleType) -> None:
        self._world, self._of = world, of
        self._chance = world.chance("urandom")
        self.environ: dict[str, str] = {"PATH": "/usr/bin"}

    def __getattr__(self, name: str) -> Any:
        found = vars(self)[name] = getattr(self._of, name)
        return found

    def getpid(self) -> int:
        return self._world.current.pid if self._world.current else 1

    def urandom(self, size: int) -> bytes:
        return self._chance.randbytes(size)

    def kill(self, pid: int, number: int) -> None:
        found = self._world.processes.get(pid)
        if found is None:
            raise ProcessLookupError(pid)
        self._world.tell(f"signal {number} to {found.name}")
        self._world.end(found, -number)


class Connection(sqlite3.Connection):
    """A connection of a process: a transaction's begin and end are crossings, and a lock is waited for in its time."""

    world: World
    owner: SimulatedProcess | None = None
    _changes = 0

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self.owner is not None and not self.owner.is_alive:
            raise Killed
        if statement.startswith("SELECT"):  # most are, and none waits for anybody
            return super().execute(statement, *values)
        if statement == "PRAGMA synchronous = FULL":  # a disk in memory keeps nothing by it
            statement = "PRAGMA synchronous = OFF"
        is_end = statement == "COMMIT"
        if is_end or statement.startswith("BEGIN"):
            self.world.cross("store.commit" if is_end else "store.begin")
        try:
            done = super().execute(statement, *values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            done = self._wait_and_execute(statement, *values)
        if is_end and self.total_changes != self._changes:
            self._changes = self.total_changes
            self.world.check()
        return done

    def _wait_and_execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        until = self.world.now + _BUSY_SECONDS
        while True:
            self.world.sleep(0.02)
            try:
                return super().execute(statement, *values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or self.world.now >= until:
                    raise

    def end(self) -> None:
        """What is left of it when its process is killed: what was not committed has not happened."""
        with contextlib.suppress(sqlite3.ProgrammingError):
            if self.in_transaction:
                super().execute("ROLLBACK")
            self.close()


class Files:
    """The module `sqlite3`, whose connections belong to the process that opens them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, name: str, **options: Any) -> sqlite3.Connection:
        self._world.cross("store.connect")
        made = sqlite3.connect(name, **options | {"timeout": 0.0, "cached_statements": 512}, factory=Connection)
        assert isinstance(made, Connection)
        made.world, made.owner = self._world, self._world.current
        if made.owner:
            made.owner.at_end.append(made.end)
        return made


class Machine:
    """The simulated machine: what runs there of ours, and the doors by which it is started."""

    def __init__(self, world: World, tmux: Tmux, settings: Settings) -> None:
        self.world, self.tmux, self.settings = world, tmux, settings
        self.daemon: SimulatedProcess | None = None
        #: Whether it has no power.
        self.is_off = False
        #: What each Claude Code says of itself, by its configuration folder and pid; it outlives the process.
        self.session_files: dict[tuple[Path, int], dict[str, Any]] = {}
        self._pipe_has_bytes = False
        self._asleep: Watch | None = None
        self._starts = world.chance("starts")

    # -- the daemon --

    def start_daemon(self) -> None:
        """Have a daemon run, unless one does."""
        if not self.is_off and (self.daemon is None or not self.daemon.is_alive):
            self.world.trouble()
            self.daemon = self.world.spawn("daemon", self._be_daemon)
            self.daemon.at_end.append(self._restart)

    def _restart(self) -> None:
        """What a service manager does for a daemon that has ended."""
        self.world.after(self._starts.uniform(1.0, 20.0), self.start_daemon)

    def _be_daemon(self) -> int:
        try:
            daemon.run(self.world.home, self.tmux)
        except OrchestratorError as error:
            self.world.tell(f"the daemon has ended: {error.sentence}")
            return int(error.exit_code)
        return 0

    def wake_daemon(self) -> None:
        """A byte in the daemon's pipe."""
        self._pipe_has_bytes = True
        if self._asleep:
            self._asleep.wake()

    def take_byte(self) -> bool:
        had, self._pipe_has_bytes = self._pipe_has_bytes, False
        return had

    def watch(self) -> Watch:
        self._asleep = Watch(self)
        return self._asleep

    # -- doors --

    def command(self, name: str, call: Callable[[], object]) -> SimulatedProcess:
        """A door that somebody starts; what it refuses is told."""

        def run() -> int:
            try:
                call()
            except OrchestratorError as error:
                self.world.tell(f"{name} was refused: {error.sentence}")
                return int(error.exit_code)
            return 0

        return self.world.spawn(name, run, after=self._starts.uniform(0.05, _START_SECONDS))

    def errand(self, words: list[str]) -> SimulatedProcess:
        """What an errand's command line starts."""
        door, options = Path(words[1]).name, words[2:]
        match door, options:
            case "auto_orchestrate.py", ["--project", project, "--resume", *_]:
                return self.command(f"errand resume {Path(project).name}", lambda: self._resume(Path(project)))
            case "scheduler.py", ["--queue-run", number, *_]:
                return self.command(f"errand queue-{number}", lambda: draining.run(self.world.home, int(number)))
            case "sync_coordinator.py", ["snapshot", *_]:
                return self.command("errand snapshots", self._snapshots)
            case "sync_coordinator.py", ["merge-run", team, *_]:
                return self.command("errand merge", lambda: hub.run(self.world.home, team))
        return self.command(f"errand {door} {options[0]}", lambda: None)

    def _resume(self, project: Path) -> None:
        db = store.connect(self.world.home)
        stage = planning.Stage(self.world.home, self.tmux, self.settings)
        launch.resume(db, stage, project, progress=lambda role, what: None, is_unattended=True)

    def _snapshots(self) -> None:
        db = store.connect(self.world.home)
        with errands.working(self.world.home, safekeeping.ERRAND):
            safekeeping.keep_live(db, why="it was time", now=host.now_ms())
            safekeeping.prune(db, days=self.settings.git.snapshot_days, now=host.now_ms())

    # -- what is asked of the machine --

    def process(self, pid: int) -> Process | None:
        found = self.world.processes.get(pid)
        return found.identity if found else None

    def popen(self, words: list[str], **_: Any) -> Child:
        self.world.cross("start")
        return Child(self.errand(words))


class Child:
    """The shape of a Popen, as far as errands ask."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.exit_code


class Watch:
    """The shape of `host.Watch`: waits for the daemon's pipe and for the end of processes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._waiting: Thread | None = None
        self._followed: set[Process] = set()
        self._has_news = False

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._followed.clear()

    def follow(self, processes: list[Process]) -> None:
        for new in set(processes) - self._followed:
            found = self._machine.world.processes.get(new.pid)
            if found is None or found.identity != new:
                self._has_news = True
            else:
                found.at_end.append(functools.partial(self._ended, new))
        self._followed = set(processes)

    def _ended(self, process: Process) -> None:
        if process in self._followed:
            self._has_news = True
            self.wake()

    def wake(self) -> None:
        if self._waiting:
            self._machine.world.wake([self._waiting])
            self._waiting = None

    def wait(self, pipe: int, seconds: float) -> bool:
        world = self._machine.world
        world.cross("daemon.wait")
        if not self._is_over():
            assert world.thread
            self._waiting = world.thread
            world.wait(seconds)
            self._waiting = None
        is_over = self._is_over()
        self._machine.take_byte()
        self._has_news = False
        return is_over

    def _is_over(self) -> bool:
        return self._has_news or self._machine._pipe_has_bytes


class Lock:
    """The shape of a `threading.Lock`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            self._world.sleep(0.01)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class Shape:
    """Another module with some of its names replaced."""

    def __init__(self, of: ModuleType, **replaced: Any) -> None:
        self._of = of
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def _modules() -> dict[str, ModuleType]:
    return {name: one for name, one in sys.modules.items() if name == "lib" or name.startswith("lib.")}


@functools.cache
def _templates() -> dict[str, Callable[[], Any]]:
    """What is read of the toolkit's own files, which no world changes: once for all of them."""
    names = ("roles", "team_types", "plans", "role_names")
    return {name: functools.cache(getattr(templates, name)) for name in names}


@contextlib.contextmanager
def inhabited(machine: Machine, git: Mapping[tuple[ModuleType, str], Any]) -> Iterator[None]:
    """Have the code of lib/ live on this machine for the block. `git` replaces functions of the rooms of git."""
    import os  # noqa: PLC0415 - the module itself, which is looked for by what it is

    world = machine.world
    names = world.chance("uuid")
    shapes: dict[ModuleType, Any] = {
        time: Clock(world),
        os: System(world, os),
        uuid: Shape(uuid, uuid4=lambda: uuid.UUID(int=names.getrandbits(128), version=4)),
    }
    with contextlib.ExitStack() as stack:

        def replace(of: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(of, name, value))

        for module in _modules().values():
            for name in ("time", "os", "uuid"):
                if (shape := shapes.get(vars(module).get(name))) is not None:  # type: ignore[arg-type]
                    replace(module, name, shape)
        replace(host, "process", machine.process)
        replace(host, "boot_id", lambda: world.boot)
        replace(host, "is_below", lambda pid, ancestor: pid == ancestor)
        replace(host, "children", lambda pid: [])
        replace(host, "wake", lambda home: machine.wake_daemon())
        replace(host, "make_wake_pipe", lambda home: -1)
        replace(host, "tell_systemd", lambda state: None)
        replace(host, "Watch", machine.watch)
        replace(store, "sqlite3", Files(world))
        replace(errands, "subprocess", Shape(subprocess, Popen=machine.popen))
        replace(daemon, "signal", Shape(signal, signal=lambda number, call: None))
        replace(logs, "write_to", lambda path, *, older, of=None: None)
        replace(config, "load", lambda path=None: machine.settings)
        replace(config, "config_path", lambda: world.home / "config.yaml")
        replace(installed, "config_dir", lambda: world.home.parent / "claude")
        replace(installed, "preflight", functools.partial(_preflight, machine))
        replace(transcripts, "find", _transcript)
        replace(sessions, "_session_file", lambda config_dir, pid: machine.session_files.get((config_dir, pid)))
        # Asked for the same again and again, and nothing of it changes in a world.
        replace(screens, "_rows", functools.lru_cache(512)(screens._rows))
        for name, read in _templates().items():
            replace(templates, name, read)
        for module in (agents, orchestrations):
            replace(module, "Path", functools.cache(Path))
        replace(Tmux, "from_environment", lambda: machine.tmux)
        pool = functools.partial(Pool, world)
        for module in (couriers, launch, safekeeping):
            replace(module, "ThreadPoolExecutor", lambda most, **_: pool(most))
        replace(couriers, "wait", Future.wait)
        replace(launch, "threading", Shape(threading, Lock=lambda: Lock(world)))
        for (module, name), value in git.items():
            replace(module, name, value)
        logging.disable()  # what fails is meant to, and is an event besides
        stack.callback(logging.disable, logging.NOTSET)
        yield


def _preflight(machine: Machine, settings: Settings, program: Program, **_: Any) -> installed.Installation:
    machine.world.cross("claude.preflight")
    if program is Program.REHEARSAL:
        return installed.rehearsal(machine.world.home)
    return installed.Installation(program, ("claude",), installed.TESTED_VERSIONS[0], installed.config_dir())


def _transcript(config_dir: Path, conversation_id: str) -> Path | None:
    """Where a conversation's transcript is, without a search: every simulated one works in the same folder."""
    path = config_dir / "projects" / claude_code.FOLDER / f"{conversation_id}.jsonl"
    return path if path.exists() else None
