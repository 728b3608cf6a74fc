"""What concurrent_orchestration.py does and prints."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from lib import host, named_locks, store
from lib.errors import Unavailable, Usage
from lib.front.cli import Output
from lib.named_locks import Hold, NamedLock, Standing
from lib.records import dataclass
from lib.status import ago
from lib.tmux import Tmux

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Request:
    """The options of concurrent_orchestration.py."""

    action: str | None = None
    start: str | None = None
    yes: bool = False
    command: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


def do(output: Output, home: Path, request: Request) -> int:
    """Do the one thing that is asked. Returns the exit code of a command that ran under a lock, else 0."""
    if (request.start is None) == (request.action is None):
        raise Usage("name one thing to do", hint="concurrent_orchestration.py --help")
    if request.yes and request.action != "cleanup":
        raise Usage("--yes belongs to --cleanup")
    if request.command and request.start is None:
        raise Usage(f"unexpected words: {shlex.join(request.command)}", hint="concurrent_orchestration.py --help")
    if request.start is not None:
        return hold(output, home, request.start, request.command)
    if request.action == "cleanup":
        clean_up(output, home, really=request.yes)
    else:
        show(output, home)
    return 0


# -- --list --


def show(output: Output, home: Path) -> None:
    """The live orchestrations, and the locks that are held or left."""
    standings, locks, now = _standings(home), named_locks.every(home), host.now_ms()
    lines = [line for one in standings for line in _standing_lines(one, now)]
    lines += [_lock_line(lock, now) for lock in locks]
    data = {"orchestrations": [_standing_data(one) for one in standings], "locks": [_lock_data(lock) for lock in locks]}
    output.answer("\n".join(lines) or "no orchestration is live, and no name is locked", data)


def _standings(home: Path) -> list[Standing]:
    if not (home / "orchestrator.db").exists():
        return []
    db = store.connect(home, read_only=True)
    try:
        return named_locks.standings(db, Tmux.from_environment(), home)
    finally:
        db.close()


def _standing_lines(one: Standing, now: int) -> list[str]:
    found = one.orchestration
    session = {True: "its session is there", False: "its session is gone", None: "tmux could not be asked"}
    what = f"{one.alive} of {one.agents} agents live, {session[one.has_session]}"
    what += ", it is being launched or resumed" if one.is_launching else ""
    return [
        f"{found.session}: {found.status} since {_when(found.updated_at)} ({ago(now - found.updated_at)}); {what}",
        f"  project {found.project}",
    ]


def _standing_data(one: Standing) -> dict[str, object]:
    found = one.orchestration
    return {
        "id": found.id,
        "session": found.session,
        "project": str(found.project),
        "name": named_locks.name_of(found.project),
        "status": found.status,
        "since": found.updated_at,
        "agents": one.agents,
        "agents_alive": one.alive,
        "session_exists": one.has_session,
        "launching": one.is_launching,
    }


def _lock_line(lock: NamedLock, now: int) -> str:
    since = f" (since {_when(lock.note.since)}, {ago(now - lock.note.since)} ago)" if lock.note else ""
    return f"lock {lock.name}: {lock.sentence}{since}"


def _lock_data(lock: NamedLock) -> dict[str, object]:
    note = lock.note
    return {
        "name": lock.name,
        "held": lock.is_held,
        "state": lock.state,
        "pid": note.pid if note else None,
        "command": note.command if note else None,
        "since": note.since if note else None,
        "this_boot": note.boot == host.boot_id() if note else None,
    }


def _when(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")


# -- --cleanup --


def clean_up(output: Output, home: Path, *, really: bool) -> None:
    """Show what nobody stands behind, and with `really` remove it: stale notes, and orchestrations without anything."""
    now = host.now_ms()
    abandoned = [one for one in _standings(home) if one.is_abandoned(now=now)]
    stale = [lock for lock in named_locks.every(home) if not lock.is_held]
    lines, done = [], []
    for one in abandoned:
        found = one.orchestration
        what = f"{found.session} ({found.status}): neither its session nor any of its agents is there"
        ended = really and _end(home, found.id, now)
        done.append({"orchestration": found.id, "session": found.session, "project": str(found.project), "done": ended})
        lines.append(_said(really, ended, f"mark as stopped: {what}"))
        if not really:
            lines.append(f"  or bring it back: auto_orchestrate.py --project {found.project} --resume")
    for lock in stale:
        removed = really and named_locks.remove_stale(home, lock.name)
        done.append({"lock": lock.name, "state": lock.state, "done": removed})
        lines.append(_said(really, removed, f"remove the note of the lock {lock.name}: {lock.sentence}"))
    if not lines:
        lines = ["nothing to clean up"]
    elif not really:
        lines.append("nothing was changed; to do it: concurrent_orchestration.py --cleanup --yes")
    output.answer("\n".join(lines), {"changed": any(one["done"] for one in done), "found": done})


def _end(home: Path, orchestration_id: str, now: int) -> bool:
    db = store.connect(home)
    try:
        return named_locks.end_abandoned(db, Tmux.from_environment(), home, orchestration_id, now=now)
    finally:
        db.close()


def _said(really: bool, done: bool, what: str) -> str:
    if not really:
        return f"would {what}"
    return f"did {what}" if done else f"left alone, somebody has it now: {what}"


# -- --start --


def hold(output: Output, home: Path, named: str, command: Sequence[str]) -> int:
    """Hold the lock of a name while a command runs, or until a signal. Returns the command's exit code."""
    name, db = named_locks.check_name(named), store.connect(home)
    line = shlex.join(command)
    # Held back from here on: a signal after the lock was taken must not leave the note behind.
    with _held_back(), named_locks.holding(db, home, name, line, now=host.now_ms()) as mine:
        if command:
            output.say(f"holding {name} while this runs: {line}")
            return _run(command, mine)
        pid = mine.note.pid
        text = f"holding {name} (pid {pid}): no launch begins in a project of this name; end it with Ctrl-C"
        output.answer(text, {"name": name, "pid": pid, "since": mine.note.since})
        signal.sigwait(_ENDING)
        return 0


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    # SIGCHLD needs a handler to be waited for where it is ignored by default.
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_ENDING, signal.SIGCHLD})
        signal.signal(signal.SIGCHLD, before)


def _run(command: Sequence[str], mine: Hold) -> int:
    def release() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_ENDING, signal.SIGCHLD})

    try:
        # The command holds the lock too: it stays locked when only we are killed. One thread runs here, so that what
        # is done between fork and exec is safe.
        child = subprocess.Popen(list(command), pass_fds=(mine.descriptor,), preexec_fn=release)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be run: {error.strerror}") from None
    if process := host.process(child.pid):
        mine.is_now_of(process)
    while child.poll() is None:
        number = signal.sigwait({*_ENDING, signal.SIGCHLD})
        if number in (signal.SIGTERM, signal.SIGHUP):  # Ctrl-C reaches the command from the terminal
            child.send_signal(number)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
