"""Preparing a worktree: local files that git does not carry come along, the project's setup runs once, and what only
one of a team can have, such as a port, is leased to it.

A project says what it needs in `.tmux-orchestrator.yaml` and `.worktreeinclude` at its top (docs/git.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
from dataclasses import field
from pathlib import Path

from lib import commands, host
from lib.config import ProjectSettings
from lib.errors import OrchestratorError, Usage
from lib.git import repository
from lib.judgement import specs
from lib.models import LIVE, Agent, Orchestration
from lib.records import dataclass
from lib.store import record, writing

INCLUDE = ".worktreeinclude"
#: More is a product and not a setting: `setup:` can make it again.
MOST_BYTES = 500_000_000
#: Ports that are leased: above those that programs are known by, below those that the kernel gives out.
PORTS = range(20_000, 30_000)
_LEASE = re.compile(r"(port|database)(?::([A-Za-z_][A-Za-z0-9_]*))?")
_VARIABLES = {"port": "PORT", "database": "DATABASE_NAME"}
_OUTPUT_BYTES = 2048


@dataclass(frozen=True)
class Included:
    """What came along, by its names in the project, and what did not, with the reason."""

    copied: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def prepare(db: sqlite3.Connection, found: Orchestration, agent: Agent, settings: ProjectSettings) -> dict[str, str]:
    """Have an agent's worktree prepared, once, and return the variables that its program gets.

    Interrupted before it is recorded, all of it is done again. Raises `OrchestratorError` when a setup command fails,
    with the end of what it printed.
    """
    variables = lease(db, agent, settings.lease)
    if not _is_prepared(db, agent):
        included = include(found.project, agent.worktree)
        for command in settings.setup:
            _set_up(command, agent, variables, settings.setup_timeout_seconds)
        with writing(db):
            now = host.now_ms()
            db.execute("INSERT OR REPLACE INTO preparations (agent_id, prepared_at) VALUES (?, ?)", (agent.id, now))
            record(
                db,
                "worktree.prepared",
                now=now,
                orchestration=found.id,
                agent=agent.id,
                copied=list(included.copied),
                left_out=included.left_out,
                setup=list(settings.setup),
                variables=variables,
            )
    return variables


def forget(db: sqlite3.Connection, agent: Agent) -> None:
    """A worktree is made anew: it has to be prepared again."""
    with writing(db):
        db.execute("DELETE FROM preparations WHERE agent_id = ?", (agent.id,))


def _is_prepared(db: sqlite3.Connection, agent: Agent) -> bool:
    return db.execute("SELECT 1 FROM preparations WHERE agent_id = ?", (agent.id,)).fetchone() is not None


def _set_up(command: str, agent: Agent, variables: dict[str, str], seconds: float) -> None:
    ran = commands.run(command, agent.worktree, seconds=seconds, environment=variables, output_bytes=_OUTPUT_BYTES)
    if ran.exit_code:
        raise OrchestratorError(
            f"setup of {agent.worktree} failed with exit code {ran.exit_code}: {command}\n{ran.output}",
            hint="mend the command in .tmux-orchestrator.yaml of the project, or its cause",
        )


# -- what git does not carry --


def include(project: Path, worktree: Path) -> Included:
    """Copy into a worktree what the project's `.worktreeinclude` names, in the patterns of a .gitignore file.

    Only what git ignores comes along: anything else would go into the agent's next commit. Nothing is overwritten.
    """
    if not (project / INCLUDE).is_file():
        return Included()
    listed = repository.ask(project, "ls-files", "-z", "--others", "--ignored", f"--exclude-from={INCLUDE}")
    names = [name for name in listed.split("\0")[:-1] if not name.endswith("/")]
    ignored = _ignored(project, names)
    left_out = {name: "git does not ignore it" for name in names if name not in ignored}
    copied, size = [], 0
    for name in names:
        if name not in ignored:
            continue
        source, target = project / name, worktree / name
        if os.path.lexists(target):
            left_out[name] = "the worktree has it"
            continue
        size += source.lstat().st_size
        if size > MOST_BYTES:
            raise OrchestratorError(
                f"{project / INCLUDE} names more than {MOST_BYTES // 1_000_000} MB",
                hint="name settings there, and make what is bigger by a setup command",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
        copied.append(name)
    return Included(tuple(copied), left_out)


def _ignored(project: Path, names: list[str]) -> set[str]:
    if not names:
        return set()
    done = repository.run(project, "check-ignore", "-z", "--stdin", text="".join(f"{name}\0" for name in names))
    if done.returncode not in (0, 1):  # 1: none of them
        raise repository.failed(project, done)
    return set(done.stdout.split("\0")[:-1])


# -- leases --


def check_leases(wanted: tuple[str, ...]) -> None:
    """Raises `Usage` for what cannot be leased."""
    for one in wanted:
        if not _LEASE.fullmatch(one):
            raise Usage(f"lease: {one!r} is none", hint="port, database, or with a variable's name: port:API_PORT")


def lease(db: sqlite3.Connection, agent: Agent, wanted: tuple[str, ...]) -> dict[str, str]:
    """The variables of what an agent has leased; what it lacks is leased now. A lease ends with its orchestration.

    Raises `OrchestratorError` when no port is free.
    """
    check_leases(wanted)
    variables = {}
    with writing(db):
        _end_old(db)
        mine = {
            row["variable"]: row["value"]
            for row in db.execute("SELECT variable, value FROM leases WHERE agent_id = ?", (agent.id,))
        }
        for one in wanted:
            kind, _, named = one.partition(":")
            variable = named or _VARIABLES[kind]
            if variable not in mine:
                mine[variable] = _free_port(db) if kind == "port" else _database(agent)
                db.execute(
                    "INSERT INTO leases (kind, value, agent_id, variable) VALUES (?, ?, ?, ?)",
                    (kind, mine[variable], agent.id, variable),
                )
            variables[variable] = mine[variable]
    return variables


def _end_old(db: sqlite3.Connection) -> None:
    marks = ", ".join("?" * len(LIVE))
    db.execute(
        "DELETE FROM leases WHERE agent_id NOT IN (SELECT agents.id FROM agents JOIN orchestrations"
        f" ON orchestrations.id = orchestration_id WHERE status IN ({marks}))",
        LIVE,
    )


def _free_port(db: sqlite3.Connection) -> str:
    taken = {int(row[0]) for row in db.execute("SELECT value FROM leases WHERE kind = 'port'")}
    for port in PORTS:
        if port not in taken and _is_free(port):
            return str(port)
    raise OrchestratorError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _database(agent: Agent) -> str:
    """A name that every database takes: letters, digits and underscores, at most 63."""
    assert agent.orchestration_id
    place = specs.slug(agent.session, longest=30).replace("-", "_")
    return f"{place}_{agent.role}_{agent.orchestration_id}"[:63]
