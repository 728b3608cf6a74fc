"""This machine: the clock, processes that cannot be mistaken, locks that end with their holder, the wake-up pipe."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import math
import os
import select
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib.errors import Busy, NotFound
from lib.models import Process


def now_ms() -> int:
    """Now, in UTC milliseconds. Rooms take the time as an argument; doors and the daemon call this."""
    return time.time_ns() // 1_000_000


#: A clock is mended by less than this all the time, and what others write during a beat is later than the beat's `now`.
CLOCK_SLACK_MS = 60_000


def was_set_back(written_at: int, now: int) -> bool:
    """Whether the clock was set back since something was written: it lies in what is the future now."""
    return written_at > now + CLOCK_SLACK_MS


def process(pid: int) -> Process | None:
    """The process that has this pid now, or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # the second: it ends between the opening and the reading
        return None if Path("/proc/self/stat").exists() else _process_without_proc(pid)
    # The command stands in brackets and may hold spaces and brackets: what follows the last one is regular.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), boot_id())


def _process_without_proc(pid: int) -> Process | None:
    import psutil  # noqa: PLC0415 - only where there is no /proc (macOS)

    try:
        return Process(pid, int(psutil.Process(pid).create_time() * 1000), boot_id())
    except psutil.NoSuchProcess:
        return None


def ended(pid: int) -> Process:
    """A process that has ended before anybody could look at it; it is never alive."""
    return Process(pid, 0, boot_id())


@functools.cache
def boot_id() -> str:
    """Names this boot of the machine; "" where the system has no name for it (a start time is absolute there)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def is_below(pid: int, ancestor: int) -> bool:
    """Whether a process is `ancestor` or one of its descendants."""
    while pid > 1:
        if pid == ancestor:
            return True
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
        )
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return 0
    import psutil  # noqa: PLC0415 - only where there is no /proc (macOS)

    try:
        return int(psutil.Process(pid).ppid())
    except psutil.NoSuchProcess:
        return 0


def children(pid: int) -> list[Process]:
    """The processes that a process has started itself and that still run; empty when it has ended."""
    pids = _children(pid) if Path("/proc/thread-self/children").exists() else _children_without_proc(pid)
    return [found for child in pids if (found := process(child))]


def _children(pid: int) -> list[int]:
    # The kernel lists them by the thread that has started them.
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _children_without_proc(pid: int) -> list[int]:
    import psutil  # noqa: PLC0415 - only where the kernel does not list them (macOS)

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def started_after_seconds(later: Process, first: Process) -> float:
    """How long after one process another of the same boot has started."""
    per_second = os.sysconf("SC_CLK_TCK") if Path("/proc/self/stat").exists() else 1000
    return (later.started - first.started) / per_second


def is_alive(known: Process | None) -> bool:
    """Whether exactly this process still runs (a later one with the same pid is another)."""
    return known is not None and process(known.pid) == known


class Watch:
    """Waits for a pipe and for the end of processes at once, without looking around meanwhile.

    Where the kernel has no descriptors of processes (macOS), their end is not waited for.
    """

    def __init__(self) -> None:
        self._descriptors: dict[Process, int] = {}
        self._ended: set[Process] = set()
        self._has_news = False
        self._poll = select.poll()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.follow([])

    def follow(self, processes: Iterable[Process]) -> None:
        """Wait for the end of these processes, and of no others.

        One that has ended already ends the next wait at once, and only that: it may have ended since the caller looked.
        """
        wanted = set(processes)
        for gone in self._descriptors.keys() - wanted:
            self._forget(gone)
        self._ended &= wanted
        if hasattr(os, "pidfd_open"):
            for new in wanted - self._descriptors.keys() - self._ended:
                self._begin(new)

    def wait(self, pipe: int, seconds: float) -> bool:
        """Wait until the pipe is written to, a process has ended, or the time is over. Returns False for the last."""
        self._poll.register(pipe, select.POLLIN)
        milliseconds = 0 if self._has_news else math.ceil(seconds * 1000)
        ready = {descriptor for descriptor, _ in self._poll.poll(milliseconds)}
        if pipe in ready:
            os.read(pipe, 4096)
        for ended in [process for process, descriptor in self._descriptors.items() if descriptor in ready]:
            self._forget(ended)
            self._ended.add(ended)
        had_news, self._has_news = self._has_news, False
        return bool(ready) or had_news

    def _begin(self, new: Process) -> None:
        try:
            descriptor = os.pidfd_open(new.pid)
        except ProcessLookupError:
            descriptor = None
        except OSError:  # too many descriptors, or a kernel without them: the next beat looks by itself
            return
        # Asked after the descriptor is there: from now on no other process can get this pid unnoticed.
        if descriptor is not None and is_alive(new):
            self._descriptors[new] = descriptor
            self._poll.register(descriptor, select.POLLIN)
            return
        if descriptor is not None:
            os.close(descriptor)
        self._ended.add(new)
        self._has_news = True

    def _forget(self, process: Process) -> None:
        descriptor = self._descriptors.pop(process)
        self._poll.unregister(descriptor)
        os.close(descriptor)


def tell_systemd(state: str) -> None:
    """Tell the service manager how a service of Type=notify is (sd_notify(3)); nothing where none asks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    import socket  # noqa: PLC0415 - 4 ms, and only a service needs it

    # Whatever keeps it from being told is no reason to end: a service that stays silent is started again.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        # An address that begins with @ is abstract: no file.
        channel.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def working_folder() -> Path:
    """Where this process stands. Raises `NotFound` when that folder was removed under it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise NotFound("the working folder is gone", hint="cd to one that is there") from None


@contextlib.contextmanager
def lock(path: Path, *, wait_seconds: float = 0.0, sentence: str = "") -> Iterator[int]:
    """Hold an advisory lock for the block; it ends with the process, whatever happens.

    The file is never truncated or unlinked: holding means that the descriptor, which the block gets, is held.
    Raises `Busy` with `sentence` when somebody else holds it for longer than `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, wait_seconds, sentence or f"{path.name} is held by another process")
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait_seconds: float, sentence: str) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(sentence) from None
            time.sleep(0.01)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock now. Any number may ask at once; who takes it may meet them for an instant."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_wake_pipe(home: Path, name: str = "wake") -> int:
    """Open the pipe that wakes the daemon, or the pipe of another name. Returns a descriptor to select on and to drain.

    Opened for reading and writing, so that it never reports end of file between two writers.
    """
    path = home / name
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def wake(home: Path, name: str = "wake") -> None:
    """Wake the daemon of this state home, or who listens at another pipe, if somebody does. Never blocks or fails."""
    try:
        descriptor = os.open(home / name, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):  # no daemon has ever run, or none listens now
            return
        raise
    with contextlib.suppress(BlockingIOError):  # a full pipe will wake it as well
        os.write(descriptor, b"!")
    os.close(descriptor)
