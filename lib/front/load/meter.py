"""What the processes of a trial take of the machine, between two moments."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping

import psutil

from lib import agents, service, store
from lib.front.sandbox import Sandbox
from lib.judgement.capacity import Taken
from lib.records import dataclass

#: A look at a hundred agents takes 30 ms.
_LOOK_AGAIN_SECONDS = 5.0


@dataclass(frozen=True)
class _Look:
    """What some processes have used since they started (seconds), and have now."""

    own: float = 0.0
    started: float = 0.0
    memory: int = 0
    handles: int = 0
    processes: int = 0


class Meter:
    """Measures from `begin` to `end`; meanwhile it looks every few seconds for the most of memory and handles."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._looks: list[Mapping[str, _Look]] = []
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[Meter]:
        """Measure while the block runs."""
        self._began, self._busy = time.monotonic(), _busy_seconds()
        self._looks.append(self._look())
        watch = threading.Thread(target=self._watch, name="meter")
        watch.start()
        try:
            yield self
        finally:
            self._stopped.set()
            watch.join()
            self._looks.append(self._look())
            self._seconds = time.monotonic() - self._began
            self._busy = _busy_seconds() - self._busy

    @property
    def seconds(self) -> float:
        """How long it has measured."""
        return self._seconds

    @property
    def busy_percent(self) -> float:
        """How busy all cores were, whoever used them."""
        return round(100 * self._busy / self._seconds / (psutil.cpu_count() or 1), 1)

    def taken(self, group: str) -> Taken:
        """What a group of processes has taken. One that was replaced meanwhile counts from its start."""
        looks = [look[group] for look in self._looks]
        first, last = looks[0], looks[-1]
        return Taken(
            cpu_percent=self._percent(last.own - first.own),
            started_cpu_percent=self._percent(last.started - first.started),
            memory_bytes=max(one.memory for one in looks),
            handles=max(one.handles for one in looks),
            processes=max(one.processes for one in looks),
        )

    def _percent(self, used: float) -> float:
        return round(100 * max(0.0, used) / self._seconds, 1)

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_AGAIN_SECONDS):
            self._looks.append(self._look())

    def _look(self) -> Mapping[str, _Look]:
        return {group: _look_at(pids) for group, pids in self._pids().items()}

    def _pids(self) -> Mapping[str, list[int]]:
        home, tmux = self._sandbox.home, self._sandbox.tmux
        scheduler = service.running(home)
        db = store.connect(home)
        try:
            team = agents.live(db)
        finally:
            db.close()
        server = tmux.run("display-message", "-p", "#{pid}").strip() if team else ""
        return {
            "scheduler": [scheduler.pid] if scheduler else [],
            "agents": [agent.process.pid for agent in team if agent.process],
            "tmux": [int(server)] if server else [],
            "tester": [os.getpid()],
        }


def _look_at(pids: list[int]) -> _Look:
    found = _Look()
    for pid in pids:
        with contextlib.suppress(psutil.Error):  # it has ended since
            process = psutil.Process(pid)
            times, memory, handles = process.cpu_times(), process.memory_info().rss, process.num_fds()
            found = _Look(
                found.own + times.user + times.system,
                found.started + times.children_user + times.children_system,
                found.memory + memory,
                found.handles + handles,
                found.processes + 1,
            )
    return found


def _busy_seconds() -> float:
    """What all cores have worked since the machine started."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))
