"""One run: a plan drawn from a seed is lived through in a world, healed, and judged; a failing one is made small."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import store
from lib.config import QueueSettings, RecordingSettings, Settings
from lib.models import Program
from tests.simulation import people
from tests.simulation.claude import Anthropic, Habits
from tests.simulation.faults import FAULTS
from tests.simulation.invariants import Watcher, foreign_files_stay
from tests.simulation.machine import Machine, inhabited
from tests.simulation.people import OPERATIONS
from tests.simulation.repository import Repositories
from tests.simulation.tmux import Shell, SimulatedTmux
from tests.simulation.world import Broken, World

#: How long each world is in trouble when nothing else is said.
HOURS = 0.5
#: How long a world may take to settle when nothing goes wrong any more, and how often people look after it.
_SETTLES_WITHIN_SECONDS = 2 * 3600.0
_LOOKED_AFTER_EVERY_SECONDS = 300.0


@dataclass(frozen=True)
class Operation:
    """Something that is done or goes wrong at a time (seconds of the world)."""

    at: float
    verb: str
    words: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:9.1f} {self.verb}{self.words}"


@dataclass(frozen=True)
class Verdict:
    """What a run has come to: `broken` is None when all invariants have held."""

    seed: int
    plan: tuple[Operation, ...]
    broken: str | None
    invariant: str | None
    digest: str
    trace: tuple[str, ...]
    hours: float
    seconds: float


# -- plans --


def plan(seed: int, hours: float = HOURS) -> tuple[Operation, ...]:
    """What happens in the run of a seed."""
    chance = random.Random(f"{seed} plan")
    span = hours * 3600
    calm = chance.choice((0.0, 0.5, 1.0, 2.0))  # some worlds are kinder
    found = [Operation(0.0, "queue", (0, chance.randint(0, 2)))]
    found += [_operation(chance, span, _PEOPLE) for _ in range(round(chance.uniform(10, 24) * hours))]
    found += [_operation(chance, span, _HARM) for _ in range(round(chance.uniform(4, 14) * hours * calm))]
    return tuple(sorted(found, key=lambda one: one.at))


Draw = Callable[[random.Random], tuple[Any, ...]]


def _seconds(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda chance: round(chance.uniform(low, high), 1)


_DELAY = _seconds(0.5, 45.0)
#: What people do: how often, and with what.
_PEOPLE: tuple[tuple[int, str, Draw], ...] = (
    (12, "send", lambda c: (c.randrange(9), c.choice(("user", "developer")), c.choice((1, 1, 3, 30)), *_urgency(c))),
    (6, "note", lambda c: (c.randrange(9), c.choice(("a", "b")), c.randint(1, 40), False, *_terms(c))),
    (3, "note", lambda c: (c.randrange(9), c.choice(("c", "d")), c.randint(6, 40), True, *_terms(c))),
    (6, "work", lambda c: (c.randrange(9), c.randrange(4))),
    (3, "report", lambda c: (c.randrange(9),)),
    (2, "queue", lambda c: (c.randrange(3), c.randint(0, 2))),
    (1, "complete", lambda c: (c.randrange(3),)),
    (1, "fail", lambda c: (c.randrange(3),)),
    (1, "pause", lambda c: (c.randrange(3),)),
    (2, "go_on", lambda c: (c.randrange(3),)),
    (1, "cancel", lambda c: (c.randrange(3),)),
    (1, "resume", lambda c: (c.randrange(3),)),
    (1, "restart_daemon", lambda c: ()),
)
#: What goes wrong.
_HARM: tuple[tuple[int, str, Draw], ...] = (
    (5, "kill_agent", lambda c: (c.randrange(9),)),
    (5, "kill_daemon", lambda c: (c.randrange(120),)),
    (4, "kill_errand", lambda c: (c.randrange(60),)),
    (3, "kill_command", lambda c: (c.randrange(20),)),
    (1, "kill_server", lambda c: ()),
    (2, "tmux_fails", lambda c: (c.randrange(10),)),
    (2, "tmux_hangs", lambda c: (c.randrange(10), _DELAY(c))),
    (1, "git_fails", lambda c: (c.randrange(10),)),
    (1, "git_hangs", lambda c: (c.randrange(10), _DELAY(c))),
    (2, "disk_is_full", lambda c: (c.randrange(10),)),
    (2, "store_is_busy", lambda c: (c.randrange(10), _DELAY(c))),
    (3, "swallow_keys", lambda c: (c.randint(1, 2),)),
    (2, "lose_paste", lambda c: ()),
    (3, "delay_paste", lambda c: (_DELAY(c),)),
    (3, "lose_hook", lambda c: ()),
    (3, "delay_hook", lambda c: (_DELAY(c),)),
    (2, "orphan_hook", lambda c: (_seconds(1, 20)(c),)),
    (3, "ask", lambda c: (c.randrange(9), _seconds(5, 300)(c))),
    (2, "type_draft", lambda c: (c.randrange(9),)),
    (2, "set_clock", lambda c: (c.choice((-1, 1)) * _seconds(1, 2400)(c),)),
    (1, "reboot", lambda c: (_seconds(20, 1800)(c),)),
    (3, "limit", lambda c: (_seconds(2, 40)(c), c.random() < 0.7, "session")),
)


def _urgency(chance: random.Random) -> tuple[int, float]:
    return chance.choice((1, 1, 1, 2, 3)), chance.choice((0.0, 5.0))


def _terms(chance: random.Random) -> tuple[str, int]:
    return chance.choice(("once", "skip", "all")), chance.choice((0, 0, 30))


def _operation(chance: random.Random, span: float, kinds: Sequence[tuple[int, str, Draw]]) -> Operation:
    at = round(chance.uniform(10, span), 1)
    _, verb, draw = chance.choices(kinds, [weight for weight, *_ in kinds])[0]
    return Operation(at, verb, draw(chance))


# -- one run --


class Run:
    """A world with all that lives in it."""

    def __init__(self, seed: int, folder: Path) -> None:
        home = folder / "state"
        home.mkdir()
        (home / "orchestrator.db").write_bytes(blank_store())
        chance = random.Random(f"{seed} run")
        self.world = World(seed, home)
        self.anthropic = Anthropic(self.world)
        self.tmux = SimulatedTmux(self.world, self.anthropic.start)
        settings = Settings(
            agent=chance.choice((Program.REHEARSAL, Program.CLAUDE)),
            recording=RecordingSettings(enabled=False),
            queue=QueueSettings(max_concurrent=chance.randint(1, 2), retry_minutes=1.0, linger_minutes=1.0),
        )
        self.machine = Machine(self.world, self.tmux, settings)
        self.machine.session_files = self.anthropic.session_files
        self.anthropic.on_hook = self.machine.wake_daemon
        self.git = Repositories(self.world)
        self.projects = [self.git.make(folder / name).path for name in ("webapp", "library")]
        self.configs = [home / "rehearsal", folder / "claude"]
        self.own_folders = (str(home), str(folder / "claude"), *(f"{path}-tmux-worktrees" for path in self.projects))
        self.looking = _looking_at(home)
        self.watcher = Watcher(self)
        self.world.check = self.watcher.look
        self.tmux.add_session("private", "", Shell(self.world.begin("a person's shell")), 0)

    def is_over(self, agent: int) -> bool:
        """Whether an agent's team is over."""
        row = self.looking.execute(
            "SELECT status FROM orchestrations JOIN agents ON orchestration_id = orchestrations.id WHERE agents.id = ?",
            (agent,),
        ).fetchone()
        return bool(row) and row[0] in ("completed", "failed", "stopped")

    def live(self, operations: Sequence[Operation], until: float) -> None:
        """Let the plan happen."""
        for one in operations:
            self.world.after(one.at - self.world.now, functools.partial(self._do, one))
        self.world.run(until)

    def _do(self, one: Operation) -> None:
        if self.machine.is_off:
            return
        self.world.tell(f"-- {one.verb}{one.words}")
        if one.verb in FAULTS:
            self.world.trouble()
        (OPERATIONS.get(one.verb) or FAULTS[one.verb])(self, *one.words)

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.world.tell("-- all is well from now on")
        self.world.faults.clear()
        self.anthropic.habits = Habits(work=(1.0, 30.0))

    def settle(self) -> None:
        """Let people see everything to its end, and look whether it has come to one."""
        until = self.world.now + _SETTLES_WITHIN_SECONDS
        while self.world.now < until and not self._is_settled():
            for session in list(self.anthropic.sessions.values()):
                session.answer()
            people.finish(self)
            self.world.run(self.world.now + _LOOKED_AFTER_EVERY_SECONDS)
        self.watcher.look()
        self.watcher.settle()

    def _is_settled(self) -> bool:
        row = self.looking.execute(
            "SELECT (SELECT count(*) FROM queue_entries WHERE status IN ('queued', 'running', 'failed'))"
            " + (SELECT count(*) FROM messages WHERE status IN ('queued', 'pasted', 'submitted'))"
            " + (SELECT count(*) FROM limits WHERE ended_at IS NULL)"
            " + (SELECT count(*) FROM orchestrations WHERE status NOT IN ('completed', 'failed', 'stopped'))"
        ).fetchone()
        return not row[0]


def _looking_at(home: Path) -> sqlite3.Connection:
    db = sqlite3.connect(home / "orchestrator.db", isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


@functools.cache
def blank_store() -> bytes:
    """An empty store, made once."""
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        store.connect(Path(folder)).close()
        return (Path(folder) / "orchestrator.db").read_bytes()


def memory() -> Path:
    """A folder in memory, where there is one."""
    return Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


def live_through(seed: int, operations: Sequence[Operation] | None = None, *, hours: float = HOURS) -> Verdict:
    """Run a seed, or other operations in its world, and judge it."""
    operations = plan(seed, hours) if operations is None else operations
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory()))
    began, broken = time.perf_counter(), None
    run = Run(seed, folder)
    try:
        with inhabited(run.machine, run.git.replacements()), _files_watched(run):
            run.machine.start_daemon()
            try:
                run.live(operations, hours * 3600)
                run.heal()
                run.settle()
            except Broken as error:
                broken = error
            finally:
                run.world.close()
    finally:
        run.looking.close()
        shutil.rmtree(folder, ignore_errors=True)
    return Verdict(
        *(seed, tuple(operations), str(broken) if broken else None, broken.invariant if broken else None),
        *(run.world.digest(), tuple(run.world.trace), run.world.now / 3600, time.perf_counter() - began),
    )


# -- files --

_watched: list[Run] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Hear of every file that is opened, moved or removed. A hook like this stays as long as its interpreter."""
    if not _watched:
        return
    run = _watched[-1]
    if run.world.current is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes | os.PathLike):
            foreign_files_stay(run, os.fsdecode(path))
    elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink"):
        foreign_files_stay(run, os.fsdecode(arguments[0]))


@functools.cache
def _install_audit() -> None:
    sys.addaudithook(_audit)


@contextlib.contextmanager
def _files_watched(run: Run) -> Iterator[None]:
    _install_audit()
    _watched.append(run)
    try:
        yield
    finally:
        _watched.pop()


# -- making a failing plan small --


def shrink(verdict: Verdict, *, hours: float = HOURS, most: int = 300) -> Verdict:
    """Leave out operations for as long as the same invariant breaks (delta debugging), in at most so many runs."""
    assert verdict.invariant, "only a failing run is made smaller"
    smallest, pieces, left = verdict, 2, most
    while len(smallest.plan) > 1 and left > 0:
        size = max(1, len(smallest.plan) // pieces)
        for start in range(0, len(smallest.plan), size):
            left -= 1
            fewer = smallest.plan[:start] + smallest.plan[start + size :]
            again = live_through(verdict.seed, fewer, hours=hours)
            if again.invariant == verdict.invariant:
                smallest, pieces = again, max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(smallest.plan), pieces * 2)
    return smallest
