"""The world of one run: a virtual clock, an agenda of what is to come, and processes that live until they are killed.

A process is a greenlet, so that the code of lib/ runs in it as it is: whatever it asks of the machine is a crossing, at
which time passes, others get their turn, and a fault may strike. Nothing here knows the real time, and all chance comes
from one seed.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import greenlet

from lib.models import Process

#: When every world begins: a Monday morning (UTC seconds).
BEGINS_AT = 1_772_438_400
#: How long a crossing takes at most: a tmux call, a transaction.
_CROSSING_SECONDS = 0.004


class Killed(greenlet.GreenletExit):  # type: ignore[misc]  # greenlet has no types
    """The process was killed: it unwinds, and whatever it would still do outside raises this again."""


class Broken(BaseException):
    """An invariant does not hold; the sentence says which, and what is wrong.

    It is found in the middle of the code that is judged, which catches every `Exception` at some places.
    """

    def __init__(self, invariant: str, sentence: str) -> None:
        super().__init__(f"{invariant}: {sentence}")
        self.invariant = invariant


class Fault(Protocol):
    """What is armed and strikes at a crossing."""

    def strikes(self, process: SimulatedProcess, where: str) -> bool:
        """Whether it strikes here; then it is used up, and `strike` is called."""

    def strike(self, world: World, process: SimulatedProcess, where: str) -> None:
        """Do the harm: raise what the caller would see, kill it, or let time pass."""


@dataclass
class Entry:
    """Something to come. Cancelled, it has no call, stays on the agenda, and does nothing."""

    call: Callable[[], object] | None


class Thread:
    """One line of execution of a process."""

    def __init__(self, process: SimulatedProcess, call: Callable[[], object], hub: greenlet.greenlet) -> None:
        self.process = process
        self.greenlet = greenlet.greenlet(call, parent=hub)
        self.timer: Entry | None = None


class SimulatedProcess:
    """A program that runs on the machine: the daemon, an errand, a command of a person, a Claude Code."""

    def __init__(self, pid: int, started: int, boot: str, name: str) -> None:
        self.identity = Process(pid, started, boot)
        self.name = name
        self.is_alive = True
        self.exit_code: int | None = None
        self.threads: list[Thread] = []
        #: What ends with it: connections, and whoever waits for its end.
        self.at_end: list[Callable[[], object]] = []

    @property
    def pid(self) -> int:
        return self.identity.pid


class World:
    """One machine and its time. `home` is the state home, on a disk in memory."""

    def __init__(self, seed: int, home: Path) -> None:
        self.seed = seed
        self.home = home
        self.now = 0.0
        #: By how much the clock on the wall was set forward or back (seconds).
        self.wall_offset = 0.0
        self.boots = 1
        self.processes: dict[int, SimulatedProcess] = {}
        self.faults: list[Fault] = []
        #: Until when something that has gone wrong may be felt.
        self.troubled_at = 0.0
        self.crossings = 0
        self.trace: list[str] = []
        #: Called after every step, with what is committed.
        self.check: Callable[[], None] = lambda: None
        self.thread: Thread | None = None
        self._hub = greenlet.getcurrent()
        #: By time, and of the same time in order.
        self._agenda: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count(1)
        self._horizon = 0.0
        self._pids = itertools.count(1000)
        self._pace = self.chance("pace")
        self._broken: BaseException | None = None

    # -- chance and time --

    def chance(self, name: str) -> random.Random:
        """A source of chance of its own: what one draws changes nothing for the others."""
        return random.Random(f"{self.seed} {name}")

    @property
    def wall_ms(self) -> int:
        """The time by the clock on the wall (UTC milliseconds)."""
        return int((BEGINS_AT + self.now + self.wall_offset) * 1000)

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    def tell(self, what: str) -> None:
        """Keep a line of what has happened."""
        self.trace.append(f"{self.now:11.3f} {what}")

    def trouble(self, seconds: float = 0.0) -> None:
        """Something goes wrong, and may be felt for so long."""
        self.troubled_at = max(self.troubled_at, self.now + seconds)

    def digest(self) -> str:
        """Names everything that has happened."""
        told = "\n".join([*self.trace, str(self.crossings)])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    # -- the agenda --

    def after(self, seconds: float, call: Callable[[], object]) -> Entry:
        """Have something called later; nothing that is called may wait."""
        entry = Entry(call)
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), entry))
        return entry

    def _at_once(self, call: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (self.now, -next(self._numbers), Entry(call)))

    def run(self, until: float) -> None:
        """Let time pass. Raises what a check finds, and what no process may raise."""
        self._horizon = until
        while self._agenda and self._agenda[0][0] <= until:
            at, _, entry = heapq.heappop(self._agenda)
            if entry.call is None:
                continue
            self.now = max(self.now, at)
            call, entry.call = entry.call, None
            call()
            if self._broken:
                raise self._broken
        self.now = until

    # -- processes --

    @property
    def current(self) -> SimulatedProcess | None:
        """The process that runs now; None for the world itself."""
        return self.thread.process if self.thread else None

    def begin(self, name: str) -> SimulatedProcess:
        """A process of which only the identity matters: what it does is on the agenda."""
        pid = next(self._pids)
        made = SimulatedProcess(pid, pid * 7, self.boot, name)
        self.processes[pid] = made
        return made

    def spawn(self, name: str, main: Callable[[], object], *, after: float = 0.0) -> SimulatedProcess:
        """Start a process that runs code of ours; its exit code is what `main` returns, or 0."""
        made = self.begin(name)

        def live() -> None:
            code = main()
            self.end(made, code if isinstance(code, int) else 0)

        self.start_thread(made, live, after=after)
        return made

    def start_thread(self, process: SimulatedProcess, call: Callable[[], object], *, after: float = 0.0) -> Thread:
        """Start one more line of execution in a process."""
        made = Thread(process, lambda: self._guarded(process, call), self._hub)
        process.threads.append(made)
        made.timer = self.after(after, lambda: self._resume(made))
        return made

    def _guarded(self, process: SimulatedProcess, call: Callable[[], object]) -> None:
        try:
            call()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the world raises it again
            # A process that unwinds after its end may stumble over what was taken away from it.
            if process.is_alive:
                self._broken = self._broken or error
        self.thread = None

    def end(self, process: SimulatedProcess, code: int = 0) -> None:
        """A process is over, whoever ends it: nothing of it runs any more."""
        if not process.is_alive:
            return
        process.is_alive = False
        process.exit_code = code
        self.processes.pop(process.pid, None)
        # Before anybody else gets a turn: locks and transactions end with their process.
        self._at_once(lambda: self._unwind(process))
        if code == -9:
            self.tell(f"killed {process.name}")

    def _unwind(self, process: SimulatedProcess) -> None:
        for call in process.at_end:
            call()
        for thread in process.threads:
            if not thread.greenlet.dead and thread.greenlet is not greenlet.getcurrent():
                self.thread = thread
                thread.greenlet.throw(Killed)
                self.thread = None

    def kill(self, process: SimulatedProcess) -> None:
        """kill -9."""
        self.end(process, -9)

    def close(self) -> None:
        """End all that still runs, so that nothing of this world is left."""
        self._agenda.clear()
        for process in list(self.processes.values()):
            self.end(process)
        for _, _, entry in sorted(self._agenda, key=lambda one: one[:2]):
            if entry.call:
                entry.call()
        self.thread = None

    def named(self, prefix: str) -> list[SimulatedProcess]:
        """The living processes whose name begins so."""
        return [one for one in self.processes.values() if one.name.startswith(prefix)]

    # -- inside of a process --

    def _resume(self, thread: Thread) -> None:
        thread.timer = None
        if thread.greenlet.dead or not thread.process.is_alive:
            return
        self.thread = thread
        thread.greenlet.switch()
        self.thread = None

    def sleep(self, seconds: float) -> None:
        """Let time pass for the process that runs now."""
        due = self.now + max(0.0, seconds)
        while self._agenda and self._agenda[0][2].call is None:
            heapq.heappop(self._agenda)
        if due <= self._horizon and (not self._agenda or self._agenda[0][0] > due):
            self.now = due  # nobody else would do anything meanwhile
            return
        self.wait(seconds)

    def wait(self, seconds: float | None) -> None:
        """Stop the thread that runs now until it is woken, or the time is over."""
        thread = self.thread
        assert thread, "only a process waits"
        if seconds is not None:
            thread.timer = self.after(max(0.0, seconds), lambda: self._resume(thread))
        self._hub.switch()
        if not thread.process.is_alive:
            raise Killed

    def wake(self, threads: Iterable[Thread]) -> None:
        """Have threads that wait go on."""
        for thread in threads:
            if thread.timer:
                thread.timer.call = None
            thread.timer = self.after(0.0, lambda thread=thread: self._resume(thread))  # type: ignore[misc]

    def cross(self, where: str) -> None:
        """A process reaches for something outside of itself. Raises `Killed` when this is its end."""
        process = self.current
        if process is None:
            return
        if not process.is_alive:
            raise Killed
        self.crossings += 1
        for fault in self.faults:
            if fault.strikes(process, where):
                self.faults.remove(fault)
                self.tell(f"{type(fault).__name__.lower()} strikes {process.name} at {where}")
                self.trouble()
                fault.strike(self, process, where)
                self.trouble()
                break
        self.sleep(self._pace.random() * _CROSSING_SECONDS)

    def die(self, process: SimulatedProcess) -> None:
        """Kill the process that runs now."""
        self.kill(process)
        raise Killed


class Pool:
    """The shape of a ThreadPoolExecutor: so many threads of the process that runs now."""

    def __init__(self, world: World, most: int) -> None:
        self._world, self._most = world, most
        self._running = 0
        self._waiting: list[tuple[Future, Callable[..., Any], tuple[Any, ...]]] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future:
        made = Future(self._world)
        self._waiting.append((made, call, arguments))
        self._fill()
        return made

    def map(self, call: Callable[..., Any], values: Iterable[Any]) -> list[Any]:
        made = [self.submit(call, value) for value in values]
        return [one.result() for one in made]

    def shutdown(self, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            self._waiting.clear()
        while self._running or self._waiting:
            self._world.sleep(0.01)

    def _fill(self) -> None:
        process = self._world.current
        assert process
        while self._waiting and self._running < self._most:
            made, call, arguments = self._waiting.pop(0)
            self._running += 1
            self._world.start_thread(process, functools.partial(self._work, made, call, arguments))

    def _work(self, made: Future, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            value, error = call(*arguments), None
        except Exception as raised:  # noqa: BLE001 - whoever asks for the result gets it
            value, error = None, raised
        made.settle(value, error)
        self._running -= 1
        self._fill()


class Future:
    """What a pool will have come to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiters: list[Thread] = []
        self._is_done = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        self._value, self._error, self._is_done = value, error, True
        self._world.wake(self._waiters)
        self._waiters.clear()

    def done(self) -> bool:
        return self._is_done

    def exception(self) -> Exception | None:
        self._join(None)
        return self._error

    def result(self) -> Any:
        if error := self.exception():
            raise error
        return self._value

    def _join(self, until: float | None) -> None:
        world = self._world
        while not self._is_done and (until is None or world.now < until):
            assert world.thread
            self._waiters.append(world.thread)
            world.wait(None if until is None else until - world.now)
            self._waiters = [one for one in self._waiters if one is not world.thread]

    @staticmethod
    def wait(futures: Iterable[Future], timeout: float | None = None) -> None:
        """The shape of `concurrent.futures.wait`."""
        waited_for = list(futures)
        until = waited_for[0]._world.now + timeout if waited_for and timeout is not None else None
        for one in waited_for:
            one._join(until)
