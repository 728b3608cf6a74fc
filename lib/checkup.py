"""A check-up: all that a team stands on, a finding for each thing, with the command that mends it. Changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path

from lib import boundaries, config, host, hub, orchestrations, recordings, service, status, store, verdicts
from lib.claude import installed
from lib.config import Settings
from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.fleet import views
from lib.git import repository
from lib.judgement import findings
from lib.models import Orchestration, Program
from lib.records import dataclass
from lib.tmux import TESTED_VERSIONS, Tmux, is_tested

NEEDED_PYTHON = (3, 11)
NEEDED_GIT = (2, 20)
#: Git tells its hooks of every change of a ref from here on; before, guards see only pushes.
GUARDING_GIT = (2, 28)
#: Programs that only some uses need, with that use.
OPTIONAL = {"gh": "git_mode: github", "shellcheck": "the tests"}


class State(StrEnum):
    """How something was found. UNSEEN is "could not look", and says nothing of the thing."""

    FOUND = "found"
    MISSING = "missing"
    WRONG = "wrong"
    UNSEEN = "not looked at"


@dataclass(frozen=True)
class Finding:
    """One thing. `mends` is the command that mends it; without `is_needed` a team can do without it."""

    name: str
    state: State
    said: str = ""
    mends: str = ""
    is_needed: bool = True


@dataclass(frozen=True)
class Place:
    """What is looked at: the state home, its tmux server, and the settings as far as they can be read."""

    home: Path
    tmux: Tmux
    settings: Settings
    now: int


def look(home: Path, tmux: Tmux, *, now: int) -> Iterator[Finding]:
    """Look at everything, one thing after the other, and give each finding as it comes (`now` in UTC milliseconds)."""
    try:
        settings = config.load()
    except (OrchestratorError, OSError):
        settings = Settings()  # what is wrong with it is a finding of its own
    place = Place(home, tmux, settings, now)
    for part in (_tools, _claude, _configuration, _state_home, _disk, _store, _scheduler, _fleet, _tmux_options):
        yield from part(place)


def _of_error(name: str, error: OrchestratorError, *, is_needed: bool = True) -> Finding:
    """An error as a finding. One that has come of another error, such as a time-out, is one of looking."""
    state = State.WRONG if error.__cause__ is None else State.UNSEEN
    return Finding(name, state, error.sentence, error.hint or "", is_needed)


# -- programs --


def _tools(place: Place) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info >= NEEDED_PYTHON
    yield Finding("python", State.FOUND if is_new else State.WRONG, python, "" if is_new else "./setup.sh")
    yield _program("uv", lambda: _first_line("uv", "--version").removeprefix("uv "))
    yield _program("tmux", lambda: _tmux(place.tmux))
    yield _program("git", _git)
    for name, use in OPTIONAL.items():
        found = shutil.which(name)
        said = found or f"only {use} needs it"
        yield Finding(name, State.FOUND if found else State.MISSING, said, is_needed=False)


def _program(name: str, version: Callable[[], str]) -> Finding:
    if shutil.which(name) is None:
        return Finding(name, State.MISSING, "not on PATH", "./setup.sh")
    try:
        return Finding(name, State.FOUND, version())
    except OrchestratorError as error:
        return _of_error(name, error)


def _tmux(tmux: Tmux) -> str:
    version = tmux.check()
    oldest, newest = (".".join(map(str, one)) for one in TESTED_VERSIONS)
    return version if is_tested(version) else f"{version}; tested were {oldest} to {newest}"


def _git() -> str:
    version = repository.version()
    said = ".".join(map(str, version))
    if version < NEEDED_GIT:
        raise Unavailable(f"git {said} is too old: {'.'.join(map(str, NEEDED_GIT))} or newer", hint="./setup.sh")
    return said if version >= GUARDING_GIT else f"{said}; below 2.28 guards see only pushes"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise Unavailable(f"{command[0]} fails: {done.stderr.strip()[:200]}", hint="./setup.sh")
    return done.stdout.partition("\n")[0]


def _claude(place: Place) -> Iterator[Finding]:
    settings, is_needed = place.settings, place.settings.agent is Program.CLAUDE
    executable = shutil.which(settings.claude_command)
    if executable is None:
        said = f"no command {settings.claude_command!r} on PATH; rehearsal agents need none"
        yield Finding("claude", State.MISSING, said, "npm install -g @anthropic-ai/claude-code", is_needed)
        return
    try:
        version = installed.version_of(executable)
    except Unavailable as error:
        yield _of_error("claude", error, is_needed=is_needed)
        return
    yield Finding("claude", State.FOUND, f"{version} ({executable})", is_needed=is_needed)
    yield _tried("claude login", lambda: installed.check_login(executable), "logged in", is_needed)
    mode = settings.permission_mode
    yield _tried("permission mode", lambda: installed.check_permission_mode(mode), mode, is_needed)
    yield _probe(place, version)


def _tried(name: str, check: Callable[[], None], said: str, is_needed: bool) -> Finding:
    try:
        check()
    except Unavailable as error:
        return _of_error(name, error, is_needed=is_needed)
    return Finding(name, State.FOUND, said, is_needed=is_needed)


def _probe(place: Place, version: str) -> Finding:
    try:
        with closing(store.connect(place.home, read_only=True)) as db:
            known = verdicts.of(db, version)
    except (OrchestratorError, sqlite3.Error):
        known = None  # a store that is not there, or is older: nothing was probed with it
    if known and known.failed:
        said = f"the last probe of {version} has failed: " + "; ".join(f"{name} ({why})" for name, why in known.failed)
        if known.forced_at is not None:
            return Finding("claude probe", State.FOUND, f"{said}; it is used all the same, as a person wants it")
        return Finding("claude probe", State.WRONG, said, verdicts.PROBE)
    if known:
        since = status.ago(max(0, place.now - known.at))
        return Finding("claude probe", State.FOUND, f"{version} does what a team needs, probed {since} ago")
    if version in installed.TESTED_VERSIONS:
        return Finding("claude probe", State.FOUND, f"{version} is the version that the toolkit is tested with")
    said = f"{version} is not known to the toolkit, and was not probed"
    return Finding("claude probe", State.MISSING, said, verdicts.PROBE, is_needed=False)


# -- configuration --


def _configuration(place: Place) -> Iterator[Finding]:
    path = config.config_path()
    if not _is_there(path):
        yield Finding("config", State.MISSING, f"no {path}: the defaults are used", "./setup.sh", is_needed=False)
    else:
        yield _file("config", path, config.load)
        notify = place.settings.notify
        if (notify.urls or notify.ping_url) and path.stat().st_mode & 0o077:
            yield Finding("config mode", State.WRONG, f"others can read the addresses in {path}", f"chmod 600 {path}")
    policy = config.policy_path()
    if _is_there(policy):
        yield _file("policy", policy, lambda: (hub.read_policy(policy), boundaries.read_openings(policy)))
    projects = config.projects_dir()
    if projects and not projects.is_dir():
        yield Finding("projects folder", State.MISSING, f"no folder {projects}", f"mkdir -p {projects}", False)


def _is_there(path: Path) -> bool:
    """Whether a file is there, or cannot be looked at: then reading it tells why."""
    try:
        return path.exists()
    except OSError:
        return True


def _file(name: str, path: Path, read: Callable[[], object]) -> Finding:
    try:
        read()
    except OrchestratorError as error:
        return Finding(name, State.WRONG, error.sentence, error.hint or f"edit {path}")
    except OSError as error:
        return Finding(name, State.UNSEEN, f"{path} cannot be read: {error.strerror}", f"ls -l {path}")
    return Finding(name, State.FOUND, str(path))


# -- the state home --


def _state_home(place: Place) -> Iterator[Finding]:
    home = place.home
    try:
        about = home.stat()
    except FileNotFoundError:
        yield Finding("state home", State.MISSING, f"no {home}: the first launch makes it", "./setup.sh", False)
        return
    except OSError as error:
        yield Finding("state home", State.UNSEEN, f"{home} cannot be looked at: {error.strerror}", f"ls -ld {home}")
        return
    if not stat.S_ISDIR(about.st_mode):
        yield Finding("state home", State.WRONG, f"{home} is no folder", f"mv {home} {home}.old && ./setup.sh")
    elif about.st_uid != os.geteuid():
        yield Finding("state home", State.WRONG, f"{home} belongs to another user", f"chown -R $USER {home}")
    elif not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state home", State.WRONG, f"{home} cannot be written", f"chmod 700 {home}")
    elif about.st_mode & 0o077:
        said = f"{home} is open to others (mode {stat.S_IMODE(about.st_mode):03o}): it holds specs and messages"
        yield Finding("state home", State.WRONG, said, f"chmod 700 {home}")
    else:
        yield Finding("state home", State.FOUND, str(home))


def _disk(place: Place) -> Iterator[Finding]:
    try:
        there = next(one for one in (place.home, *place.home.parents) if one.exists())
        usage = shutil.disk_usage(there)
    except OSError as error:
        yield Finding("disk", State.UNSEEN, f"the disk of {place.home} cannot be looked at: {error.strerror}")
        return
    said = f"{findings.size(usage.free)} of {findings.size(usage.total)} free at {there}"
    is_short = findings.is_short(findings.Disk(str(there), usage.free, usage.total))
    yield Finding("disk", State.WRONG if is_short else State.FOUND, said, "sync_coordinator.py clean" * is_short)


def _store(place: Place) -> Iterator[Finding]:
    path = place.home / "orchestrator.db"
    try:
        if not path.exists():
            yield Finding("store", State.MISSING, f"no {path}: the first launch makes it", is_needed=False)
            return
        with closing(store.connect(place.home, read_only=True)) as db:
            yield _whole("store", path, db)
        screens = recordings.path_in(place.home)
        if screens.exists():
            with closing(store.open_read_only(screens)) as db:
                yield _whole("recording", screens, db)
    except OrchestratorError as error:
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            yield Finding("store", State.WRONG, f"{path} is damaged: {error.__cause__}", _restore(path))
        else:
            yield _of_error("store", error)
    except (OSError, sqlite3.Error) as error:
        yield Finding("store", State.UNSEEN, f"{path} cannot be read: {error}", f"ls -l {place.home}")


def _whole(name: str, path: Path, db: sqlite3.Connection) -> Finding:
    """Whether a database is whole, by SQLite's own two checks."""
    try:
        wrong = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        wrong += [f"a row of {row[0]} refers to nothing" for row in db.execute("PRAGMA foreign_key_check").fetchmany(3)]
    except sqlite3.DatabaseError as error:
        wrong = [str(error)]
    if wrong:
        return Finding(name, State.WRONG, f"{path} is damaged: {'; '.join(wrong)[:300]}", _restore(path))
    return Finding(name, State.FOUND, f"{findings.size(path.stat().st_size)}, whole")


def _restore(path: Path) -> str:
    return f"scheduler.py --stop && cp -a {path} {path}.damaged, then docs/doctor.md"


def _scheduler(place: Place) -> Iterator[Finding]:
    try:
        if host.is_held(place.home / "scheduler.lock"):
            process = service.running(place.home)
            yield Finding("scheduler", State.FOUND, f"runs, pid {process.pid}" if process else "runs")
            return
        live = _live(place.home)
    except (OrchestratorError, sqlite3.Error, OSError) as error:
        yield Finding("scheduler", State.UNSEEN, f"whether it runs, or should, cannot be looked at: {error}")
        return
    if live:
        said = f"does not run, and {', '.join(one.session for one in live)} should"
        yield Finding("scheduler", State.MISSING, said, "scheduler.py --daemon")
    else:
        yield Finding("scheduler", State.FOUND, "does not run; nothing needs it now")


def _live(home: Path) -> list[Orchestration]:
    """The teams that should run; none without a store."""
    if not (home / "orchestrator.db").exists():
        return []
    with closing(store.connect(home, read_only=True)) as db:
        return orchestrations.live(db)


def _fleet(place: Place) -> Iterator[Finding]:
    if place.settings.fleet.url is None:
        return
    try:
        with closing(store.connect(place.home, read_only=True)) as db:
            seen = views.look(db, place.home, now=place.now)
    except (OrchestratorError, sqlite3.Error, OSError) as error:
        yield Finding("fleet link", State.UNSEEN, f"whether it is connected cannot be looked at: {error}")
        return
    link = seen.link
    if link is None or not link.is_running:
        said = link.sentence(place.now) if link else f"the link to {place.settings.fleet.url} has never run"
        yield Finding("fleet link", State.MISSING, said, "scheduler.py --daemon")
        return
    is_connected = link.is_connected(place.now)
    state = State.FOUND if is_connected else State.WRONG
    yield Finding("fleet link", state, link.sentence(place.now), "" if is_connected else link.next_step or "")
    for one in seen.hosts:
        if odd := one.trouble or one.skew:
            yield Finding("fleet host", State.WRONG, f"{one.name}: {odd}", is_needed=False)


# -- tmux --

#: Options that are asked of the server, with the words of `show-options` for where they live. Of these only the first
#: two can be wrong: the others are set for our own windows, or do not matter where panes are named by their ids.
_OPTIONS = {
    "exit-unattached": "-sv",
    "default-shell": "-gv",
    "base-index": "-gv",
    "destroy-unattached": "-gv",
    "renumber-windows": "-gv",
    "remain-on-exit": "-gwv",
    "automatic-rename": "-gwv",
    "allow-rename": "-gwv",
}


def _tmux_options(place: Place) -> Iterator[Finding]:
    if shutil.which("tmux") is None:
        return
    asked = [word for name, where in _OPTIONS.items() for word in ("show-options", where, name, ";")]
    try:
        values = dict(zip(_OPTIONS, place.tmux.run(*asked[:-1]).splitlines(), strict=True))
    except NotFound:
        said = "no server runs now, so its options are not known"
        yield Finding("tmux options", State.UNSEEN, said, is_needed=False)
        return
    except (OrchestratorError, ValueError) as error:
        yield Finding("tmux options", State.UNSEEN, f"tmux does not tell them: {error}", "tmux show-options -g")
        return
    wrong = False
    if values["exit-unattached"] == "on":
        wrong = True
        said = "exit-unattached is on: the server ends, with all agents, as soon as nobody looks at it"
        yield Finding("tmux options", State.WRONG, said, "tmux set-option -s exit-unattached off, also in ~/.tmux.conf")
    if not os.access(values["default-shell"], os.X_OK):
        wrong = True
        said = f"default-shell is {values['default-shell']}, which is no program: no window of your own opens"
        yield Finding("tmux options", State.WRONG, said, "tmux set-option -g default-shell /bin/sh")
    if not wrong:
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        yield Finding("tmux options", State.FOUND, shown)
