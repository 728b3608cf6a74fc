"""What measurements of the machine and the store mean: findings with what mends them; what is worth a clean-up."""

from __future__ import annotations

from lib.records import dataclass

MEGABYTE = 1_000_000
#: Below the smaller of the two a disk is short: a share says little of a big disk, an amount little of a small one.
LEAST_FREE_SHARE, LEAST_FREE_BYTES = 0.1, 5_000 * MEGABYTE
#: A machine with less memory left begins to swap.
LEAST_MEMORY_SHARE = 0.1
#: What people and agents notice. Usual figures are in docs/performance-tuner.md.
SLOW_TMUX_MS, SLOW_STORE_MS = 250.0, 100.0
#: A check-in is told at the beat after its time, at the longest a minute later.
LATE_MS = 120_000
#: SQLite checkpoints from 4 MB on: a log this long was kept by somebody who reads for long.
LONG_WAL_BYTES = 64 * MEGABYTE
LARGE_LOGS_BYTES = 20 * MEGABYTE
#: A file is rotated from this size on, and what is older than this is removed.
ROTATED_BYTES, OLD_MS = MEGABYTE, 30 * 24 * 3_600_000


@dataclass(frozen=True)
class Load:
    """What processes use: percent of one core, bytes of resident memory, how many; and how many were not to be seen."""

    cpu_percent: float = 0.0
    memory_bytes: int = 0
    processes: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class AgentLoad:
    """One agent of a live team with all that it has started; `load` is None when its process has ended."""

    target: str
    pid: int | None
    load: Load | None


@dataclass(frozen=True)
class TeamLoad:
    """A live orchestration, the sum of its agents."""

    session: str
    project: str
    status: str
    load: Load
    agents: tuple[AgentLoad, ...]


@dataclass(frozen=True)
class Daemon:
    """Whether the scheduler lives, None when that was not to be seen; its `pid` and `load` likewise."""

    is_alive: bool | None
    pid: int | None = None
    load: Load | None = None


@dataclass(frozen=True)
class Disk:
    """The room where some of our files are."""

    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Store:
    """The database: its files, its pages, and the median of a few questions and of a few rolled back changes."""

    database_bytes: int
    wal_bytes: int
    pages: int
    free_pages: int
    page_bytes: int
    read_ms: float
    write_ms: float | None


@dataclass(frozen=True)
class Logs:
    """The files below logs/; `grown_bytes` in `over_seconds`, both None at a first look."""

    size_bytes: int
    files: int
    grown_bytes: int | None
    over_seconds: float | None


@dataclass(frozen=True)
class Lateness:
    """How late the check-ins of the last 24 hours were."""

    fired: int
    p50_ms: int | None
    p95_ms: int | None
    max_ms: int | None


@dataclass(frozen=True)
class Orphan:
    """A process that bears an agent's mark and is below no live agent."""

    pid: int
    command: str
    agent: str
    is_agent_alive: bool


@dataclass(frozen=True)
class Look:
    """All measurements of one moment. What could not be looked at is None, and has its sentence in `unseen`."""

    at: int
    cores: int
    memory_bytes: int
    memory_available_bytes: int
    teams: tuple[TeamLoad, ...]
    daemon: Daemon
    disks: tuple[Disk, ...]
    tmux_ms: float | None
    store: Store | None
    logs: Logs | None
    check_ins: Lateness | None
    orphans: tuple[Orphan, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A sentence, and the command that mends what it tells."""

    sentence: str
    command: str


def is_vacuum_worth(pages: int, free_pages: int, page_bytes: int) -> bool:
    """Whether so much of a database is free that writing all of it anew pays: above a quarter, and above 10 MB."""
    return free_pages * 4 > pages and free_pages * page_bytes > 10 * MEGABYTE


def is_short(disk: Disk) -> bool:
    """Whether a disk has so little room left that work may stop."""
    return disk.free_bytes < min(LEAST_FREE_SHARE * disk.total_bytes, LEAST_FREE_BYTES)


def findings(look: Look) -> list[Finding]:
    """What is not as it should be; empty when all is well."""
    return [*_of_teams(look), *_of_machine(look), *_of_store(look), *_of_orphans(look)]


def _of_teams(look: Look) -> list[Finding]:
    found = []
    if look.teams and look.daemon.is_alive is False:
        found.append(Finding("the scheduler does not run, and a team is live", "scheduler.py --daemon"))
    for team in look.teams:
        gone = [agent.target for agent in team.agents if agent.load is None]
        if gone and team.status == "running":
            resume = f"auto_orchestrate.py --project {team.project} --resume"
            found.append(Finding(f"{', '.join(gone)}: no process lives", resume))
    late = look.check_ins.p95_ms if look.check_ins else None
    if late is not None and late > LATE_MS:
        said = f"one check-in of twenty was later than {late / 1000:.0f} s in the last 24 h"
        found.append(Finding(said, "scheduler.py --status"))
    return found


def _of_machine(look: Look) -> list[Finding]:
    found = [
        Finding(
            f"{size(disk.free_bytes)} of {size(disk.total_bytes)} are free at {disk.path}", "sync_coordinator.py clean"
        )
        for disk in look.disks
        if is_short(disk)
    ]
    biggest = max(look.teams, key=lambda team: team.load.memory_bytes, default=None)
    if look.memory_available_bytes < LEAST_MEMORY_SHARE * look.memory_bytes:
        said = f"{size(look.memory_available_bytes)} of {size(look.memory_bytes)} of memory are left"
        if biggest:
            said += f"; {biggest.session} uses {size(biggest.load.memory_bytes)}, the most of the teams"
        command = f"claude_control.py stop {biggest.session}" if biggest else "ps -e -o pid,rss,args --sort=-rss"
        found.append(Finding(said, command))
    busiest = max(look.teams, key=lambda team: team.load.cpu_percent, default=None)
    if look.tmux_ms is not None and look.tmux_ms > SLOW_TMUX_MS:
        command = f"claude_control.py stop {busiest.session}" if busiest else "tmux ls"
        found.append(Finding(f"tmux takes {look.tmux_ms:.0f} ms to answer", command))
    if look.logs and look.logs.size_bytes > LARGE_LOGS_BYTES:
        found.append(Finding(f"the logs have {size(look.logs.size_bytes)}", "performance_tuner.py --clean-logs"))
    return found


def _of_store(look: Look) -> list[Finding]:
    store, found = look.store, []
    if store is None:
        return []
    slowest = max(store.read_ms, store.write_ms or 0.0)
    if slowest > SLOW_STORE_MS:
        found.append(Finding(f"the store takes {slowest:.0f} ms to answer", "scheduler.py --status"))
    if store.wal_bytes > LONG_WAL_BYTES:
        found.append(Finding(f"the store's log has {size(store.wal_bytes)}", "performance_tuner.py"))
    if is_vacuum_worth(store.pages, store.free_pages, store.page_bytes):
        said = f"{size(store.free_pages * store.page_bytes)} of the store are free pages; it shrinks while nothing runs"
        found.append(Finding(said, "scheduler.py --stop && performance_tuner.py"))
    return found


def _of_orphans(look: Look) -> list[Finding]:
    return [
        Finding(
            f"process {one.pid} ({one.command}) was started by {one.agent}"
            + (" and is not below it any more" if one.is_agent_alive else ", which has ended"),
            # What a live agent has started may still be wanted.
            f"ps -fp {one.pid}" if one.is_agent_alive else f"kill {one.pid}",
        )
        for one in look.orphans
    ]


def size(number: int) -> str:
    """Bytes as people say them: `1.5 MB`."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
