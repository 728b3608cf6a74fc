"""Measures the machine under the teams: what agents and the scheduler use, how fast tmux and the store answer."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import field
from pathlib import Path

import psutil

from lib import agents, checkins, config, host, orchestrations, service, store, tidying
from lib.errors import OrchestratorError
from lib.judgement import findings
from lib.judgement.findings import AgentLoad, Disk, Lateness, Load, Logs, Look, Orphan, TeamLoad
from lib.models import Agent, Orchestration, Process
from lib.records import dataclass
from lib.tmux import Tmux

#: How long processes are watched for their use of the processor.
SAMPLE_SECONDS = 0.5
#: The median of so many round trips counts.
_ROUNDS = 5
DAY_MS = 24 * 3_600_000
_COMMAND_LENGTH = 60


class _Undone(Exception):
    """Ends a transaction without its changes."""


@dataclass
class Tuner:
    """Looks at one state home, again and again; it remembers the last look for what has grown since."""

    home: Path
    tmux: Tmux
    sample_seconds: float = SAMPLE_SECONDS
    _logs: tuple[int, float] | None = None
    _unseen: list[str] = field(default_factory=list)

    def look(self, *, now: int) -> Look:
        """Measure everything. What cannot be looked at becomes a sentence and stops nothing."""
        self._unseen = []
        with contextlib.ExitStack() as stack:
            db = self._open()
            if db:
                stack.callback(db.close)
            live = [(one, agents.of_orchestration(db, one.id)) for one in orchestrations.live(db)] if db else []
            recorded = agents.with_process(db) if db else []
            machine = _Machine(self.sample_seconds)
            scheduler = self._daemon(machine)
            worktrees = [agent.worktree.parent for _, team in live for agent in team]
            memory = psutil.virtual_memory()
            return Look(
                at=now,
                cores=psutil.cpu_count() or 1,
                memory_bytes=memory.total,
                memory_available_bytes=memory.available,
                teams=tuple(_team(machine, one, team) for one, team in live),
                daemon=scheduler,
                disks=tuple(self._disks([self.home, *worktrees])),
                tmux_ms=self._tmux_ms(),
                store=self._store(db, now) if db else None,
                logs=self._log_sizes(),
                check_ins=_lateness(db, now) if db else None,
                orphans=self._orphans(machine, recorded, scheduler.pid),
                unseen=tuple(self._unseen),
            )

    def _open(self) -> sqlite3.Connection | None:
        try:
            return open_store(self.home)
        except OrchestratorError as error:
            self._unseen.append(error.sentence)
        except FileNotFoundError:
            self._unseen.append(f"there is no store yet in {self.home}: auto_orchestrate.py makes it")
        except PermissionError as error:
            self._unseen.append(f"the state home {self.home} cannot be looked into: {error.strerror}")
        return None

    def _daemon(self, machine: _Machine) -> findings.Daemon:
        try:
            if not host.is_held(self.home / "scheduler.lock"):
                return findings.Daemon(is_alive=False)
        except OSError as error:
            self._unseen.append(f"whether the scheduler runs was not to be seen: {error.strerror}")
            return findings.Daemon(is_alive=None)
        try:
            process = service.running(self.home)
        except OSError:  # it is asked by a file that is opened to be written
            process = None
        if process is None:
            self._unseen.append("the scheduler runs; which process it is was not to be seen")
            return findings.Daemon(is_alive=True)
        return findings.Daemon(True, process.pid, machine.load([process]))

    def _disks(self, places: Iterable[Path]) -> Iterable[Disk]:
        """One for each file system that holds a place."""
        seen = set()
        for place in dict.fromkeys(places):
            # What is not there yet will be where its parent is.
            there = next((one for one in (place, *place.parents) if one.exists()), Path("/"))
            try:
                device, usage = there.stat().st_dev, shutil.disk_usage(there)
            except OSError as error:
                self._unseen.append(f"the disk of {place} was not to be seen: {error.strerror}")
                continue
            if device not in seen:
                seen.add(device)
                yield Disk(str(there), usage.free, usage.total)

    def _tmux_ms(self) -> float | None:
        try:
            return _median_ms(lambda: self.tmux.run("list-sessions", "-F", "#{session_name}"))
        except OrchestratorError as error:
            self._unseen.append(f"tmux was not asked: {error.sentence}")
            return None

    def _store(self, db: sqlite3.Connection, now: int) -> findings.Store:
        def write() -> None:
            with contextlib.suppress(_Undone), store.writing(db):
                store.record(db, "tuning.measured", now=now)
                raise _Undone

        path = self.home / "orchestrator.db"
        write_ms = None
        try:
            write_ms = _median_ms(write)
        except (OrchestratorError, sqlite3.OperationalError) as error:
            self._unseen.append(f"how fast the store is written was not to be measured: {error}")
        pages, free, page_bytes = (
            int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
        )
        return findings.Store(
            database_bytes=_bytes(path),
            wal_bytes=_bytes(path.with_name(f"{path.name}-wal")),
            pages=pages,
            free_pages=free,
            page_bytes=page_bytes,
            read_ms=_median_ms(lambda: store.newest_event(db)),
            write_ms=write_ms,
        )

    def _log_sizes(self) -> Logs | None:
        try:
            sizes = [about.st_size for _, about in tidying.files(self.home / "logs")]
        except FileNotFoundError:
            sizes = []
        except PermissionError as error:
            self._unseen.append(f"the logs were not to be seen: {error.strerror}")
            return None
        before, self._logs = self._logs, (sum(sizes), time.monotonic())
        if before is None:
            return Logs(sum(sizes), len(sizes), None, None)
        return Logs(sum(sizes), len(sizes), sum(sizes) - before[0], round(self._logs[1] - before[1], 1))

    def _orphans(self, machine: _Machine, recorded: list[Agent], scheduler: int | None) -> tuple[Orphan, ...]:
        """Processes that bear our mark and that nothing of ours which lives has below it."""
        names = {str(agent.id): agent for agent in recorded}
        alive = {str(agent.id) for agent in recorded if host.is_alive(agent.process)}
        ours = [agent.process.pid for agent in recorded if str(agent.id) in alive and agent.process]
        # A scheduler that an agent's message has started bears that agent's mark, and so do its errands and this door.
        held = machine.below([*ours, *([scheduler] if scheduler else []), *machine.doors(), os.getpid()])
        held |= {one.pid for one in psutil.Process().parents()}
        found, hidden = [], 0
        for process in machine.others(held):
            try:
                mark = _mark(process, self.home)
                command = " ".join(process.cmdline()) or process.name()
            except psutil.AccessDenied:
                hidden += 1
                continue
            except (psutil.Error, OSError):  # it has ended since
                continue
            if mark is not None:
                agent = names[mark].target if mark in names else f"agent {mark}"
                found.append(Orphan(process.pid, _short(command), agent, mark in alive))
        if hidden:
            self._unseen.append(f"{hidden} processes of other users were not looked into for agents' marks")
        return tuple(found)


class _Machine:
    """All processes of one moment, and what they use of the processor in the time of a sample."""

    def __init__(self, sample_seconds: float) -> None:
        self._all = {process.pid: process for process in psutil.process_iter()}
        self._children: dict[int, list[int]] = {}
        for process in self._all.values():
            with contextlib.suppress(psutil.Error):
                self._children.setdefault(process.ppid(), []).append(process.pid)
        before = {pid: _cpu_seconds(process) for pid, process in self._all.items()}
        began = time.monotonic()
        time.sleep(sample_seconds)
        self._used: dict[int, float] = {}
        for pid, process in self._all.items():
            now, then = _cpu_seconds(process), before[pid]
            self._used[pid] = 0.0 if now is None or then is None else max(0.0, now - then)
        self._seconds = time.monotonic() - began

    def below(self, pids: Iterable[int]) -> set[int]:
        """These processes and all that they have started, as far as the parents still live."""
        found, left = set(), list(pids)
        while left:
            if (pid := left.pop()) not in found:
                found.add(pid)
                left += self._children.get(pid, [])
        return found

    def load(self, roots: Iterable[Process]) -> Load:
        """What processes and all below them use."""
        cpu, memory, count, unseen = 0.0, 0, 0, 0
        for pid in sorted(self.below(one.pid for one in roots)):
            process = self._all.get(pid)
            try:
                resident = process.memory_info().rss if process and process.is_running() else None
            except psutil.AccessDenied:
                unseen += 1
                continue
            except psutil.Error:  # it has ended since
                continue
            if resident is not None:
                cpu, memory, count = cpu + self._used.get(pid, 0.0), memory + resident, count + 1
        return Load(round(100 * cpu / self._seconds, 1), memory, count, unseen)

    def others(self, known: set[int]) -> list[psutil.Process]:
        """The processes that are none of these."""
        return [process for pid, process in self._all.items() if pid not in known]

    def doors(self) -> list[int]:
        """The doors of this checkout that run, since errands outlive the scheduler; that of the tools is an agent's."""
        found = []
        for pid, process in self._all.items():
            with contextlib.suppress(psutil.Error, OSError):
                script = Path((*process.cmdline(), "", "")[1])
                if script.suffix == ".py" and config.ROOT in script.parents and script.name != "mcp_server.py":
                    found.append(pid)
        return found


def open_store(home: Path) -> sqlite3.Connection:
    """The store, to be read only where nothing can be written. Raises `FileNotFoundError` when there is none yet."""
    path = home / "orchestrator.db"
    path.stat()
    return store.connect(home, read_only=not may_write(home))


def may_write(home: Path) -> bool:
    """Whether the store of a state home can be written by this process."""
    return os.access(home, os.W_OK) and os.access(home / "orchestrator.db", os.W_OK)


def is_quiet(db: sqlite3.Connection, home: Path) -> bool:
    """Whether no scheduler and no agent lives, so that nobody waits for the store."""
    return not host.is_held(home / "scheduler.lock") and not any(
        host.is_alive(agent.process) for agent in agents.with_process(db)
    )


def _team(machine: _Machine, one: Orchestration, team: Iterable[Agent]) -> TeamLoad:
    alive = [(agent, agent.process if host.is_alive(agent.process) else None) for agent in team]
    loads = tuple(
        AgentLoad(agent.target, process.pid if process else None, machine.load([process]) if process else None)
        for agent, process in alive
    )
    # Not the sum of its agents' figures: one process is counted once.
    whole = machine.load(process for _, process in alive if process)
    return TeamLoad(one.session, str(one.project), str(one.status), whole, loads)


def _lateness(db: sqlite3.Connection, now: int) -> Lateness:
    day = checkins.figures(db, since=now - DAY_MS)
    return Lateness(day.fired, day.lateness_at(0.5), day.lateness_at(0.95), day.lateness_at(1.0))


def _median_ms(act: Callable[[], object]) -> float:
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(taken), 3)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cpu_seconds(process: psutil.Process) -> float | None:
    try:
        times = process.cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(times.user + times.system)


def _mark(process: psutil.Process, home: Path) -> str | None:
    """The id of the agent whose mark a process bears, in its environment or on its command line; else None."""
    # Only what a launch writes: a person's editor may have such a file open.
    launch = re.search(
        rf"\0--settings\0{re.escape(str(home))}/agents/(\d+)/settings\.json\0", "\0".join(process.cmdline())
    )
    if launch:
        return launch[1]
    environment = process.environ()
    if environment.get("TMUX_ORCHESTRATOR_HOME") != str(home):
        return None
    return environment.get("TMUX_ORCHESTRATOR_AGENT")


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= _COMMAND_LENGTH else f"{line[:_COMMAND_LENGTH]}..."
