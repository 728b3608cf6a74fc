"""The orchestrations table: what should be running, and how each one ended."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from lib import authorizations, checkins, messages, notices
from lib.errors import Busy, NotFound, OrchestratorError
from lib.merging import candidates
from lib.models import LIVE, Agent, GitMode, Orchestration, OrchestrationStatus, Program
from lib.store import record, writing

#: An orchestration in one of these is over.
ENDED = (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.STOPPED)


def mint_id() -> str:
    """A new id: six hexadecimal digits, part of branch names, so it must differ between state homes too."""
    return os.urandom(3).hex()


def add(db: sqlite3.Connection, new: Orchestration) -> None:
    """Record an orchestration; the row is the lock of its project. Call it inside a transaction.

    Raises `Busy` when the project or the session has a live one.
    """
    try:
        db.execute(
            "INSERT INTO orchestrations (id, project, session, spec_path, spec_title, spec_text, status, program,"
            " config_dir, starting_branch, starting_commit, branches, git_mode, messages_per_minute, unattended,"
            " created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(new.id, str(new.project), new.session, str(new.spec_path), new.spec_title, new.spec_text),
                *(new.status, new.program, str(new.config_dir), new.starting_branch, new.starting_commit),
                *(new.branches, new.git_mode, new.messages_per_minute, new.unattended, new.created_at, new.updated_at),
            ),
        )
    except sqlite3.IntegrityError:
        raise already_running(live_in(db, new.project), new.project) from None
    record(db, "orchestration.starting", now=new.created_at, orchestration=new.id, session=new.session)


def already_running(found: Orchestration | None, project: Path) -> Busy:
    """The error that tells how to go on with the team that is there."""
    if found is None:
        return Busy(f"another launch for {project} has just begun", hint="claude_control.py status")
    return Busy(
        f"{project} has a live orchestration in session {found.session}",
        hint=f"watch it: claude_control.py attach {found.session}; mend it: auto_orchestrate.py --project {project}"
        f" --resume; end it: claude_control.py stop {found.session}",
    )


def get(db: sqlite3.Connection, orchestration_id: str) -> Orchestration:
    """An orchestration by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM orchestrations WHERE id = ?", (orchestration_id,)).fetchone()
    if row is None:
        raise NotFound(f"no orchestration has the id {orchestration_id}", hint="claude_control.py status")
    return _orchestration(row)


def of_agent(db: sqlite3.Connection, agent: Agent) -> Orchestration:
    """The orchestration that an agent works in. Raises `NotFound` for a guest, which works in none."""
    if agent.orchestration_id is None:
        raise NotFound(f"{agent.target} belongs to no team", hint="claude_control.py status")
    return get(db, agent.orchestration_id)


def check_runs(found: Orchestration) -> None:
    """Raises `OrchestratorError` when an orchestration is over."""
    if found.status in ENDED:
        raise OrchestratorError(
            f"the orchestration {found.session} is over: {found.status}",
            hint=f"claude_control.py status {found.session}",
        )


def check_takes_notes(db: sqlite3.Connection, agent: Agent) -> None:
    """Raises `OrchestratorError` when an agent's orchestration is over: its check-ins have ended, and stay so."""
    if not agent.is_guest:
        check_runs(of_agent(db, agent))


def live_in(db: sqlite3.Connection, project: Path) -> Orchestration | None:
    """The orchestration that works in a project now, or None."""
    return next((found for found in live(db) if found.project == project), None)


def latest_in(db: sqlite3.Connection, project: Path) -> Orchestration | None:
    """The newest orchestration of a project, live or ended, or None."""
    row = db.execute(
        "SELECT * FROM orchestrations WHERE project = ? ORDER BY created_at DESC LIMIT 1", (str(project),)
    ).fetchone()
    return _orchestration(row) if row else None


def live(db: sqlite3.Connection) -> list[Orchestration]:
    """Every orchestration that is not over, oldest first."""
    marks = ", ".join("?" * len(LIVE))
    rows = db.execute(f"SELECT * FROM orchestrations WHERE status IN ({marks}) ORDER BY created_at", LIVE)
    return [_orchestration(row) for row in rows]


def recent(db: sqlite3.Connection, *, since: int) -> list[Orchestration]:
    """The live orchestrations and those that ended after `since` (UTC milliseconds), oldest first."""
    marks = ", ".join("?" * len(LIVE))
    rows = db.execute(
        f"SELECT * FROM orchestrations WHERE status IN ({marks}) OR updated_at > ? ORDER BY created_at",
        (*LIVE, since),
    )
    return [_orchestration(row) for row in rows]


def at(db: sqlite3.Connection, moment: int, *, ended_since: int) -> list[Orchestration]:
    """The orchestrations that there were at a time (UTC milliseconds), oldest first, as they are now.

    Of those that were over by then only what ended after `ended_since`.
    """
    marks = ", ".join("?" * len(ENDED))
    rows = db.execute(
        f"SELECT * FROM orchestrations WHERE created_at <= ? AND (status NOT IN ({marks}) OR updated_at > ?)"
        " ORDER BY created_at, rowid",
        (moment, *ENDED, ended_since),
    )
    return [_orchestration(row) for row in rows]


def every(db: sqlite3.Connection) -> list[Orchestration]:
    """All orchestrations, live and over, oldest first."""
    return [_orchestration(row) for row in db.execute("SELECT * FROM orchestrations ORDER BY created_at, rowid")]


def named(db: sqlite3.Connection, name: str) -> list[Orchestration]:
    """The orchestrations of a session, live and over, oldest first; or the one that has this id."""
    rows = db.execute(
        "SELECT * FROM orchestrations WHERE session = ? OR id = ? ORDER BY created_at, rowid", (name, name)
    )
    return [_orchestration(row) for row in rows]


def projects(db: sqlite3.Connection) -> list[Path]:
    """The projects of all orchestrations, live and over."""
    return [Path(row["project"]) for row in db.execute("SELECT DISTINCT project FROM orchestrations ORDER BY project")]


def sessions(db: sqlite3.Connection) -> set[str]:
    """The session names of live orchestrations."""
    return {found.session for found in live(db)}


def set_status(
    db: sqlite3.Connection,
    orchestration_id: str,
    status: OrchestrationStatus,
    *,
    now: int,
    outcome: str | None = None,
) -> None:
    """Move an orchestration to a status; one that ends takes its check-ins, requests and messages with it.

    One that has ended stays as it ended: a team can complete before its launch has returned. What a person should
    hear of becomes a notice; how an unattended one ended is the queue's to tell.
    """
    ended = ", ".join("?" * len(ENDED))
    with writing(db):
        changed = db.execute(
            "UPDATE orchestrations SET status = ?, outcome = ?, updated_at = ?"
            f" WHERE id = ? AND status != ? AND status NOT IN ({ended})",
            (status, outcome, now, orchestration_id, status, *ENDED),
        ).rowcount
        if not changed:
            return
        if status in ENDED:
            checkins.cancel_all(db, orchestration_id)
            authorizations.expire_all(db, orchestration_id, now=now)
            if status is not OrchestrationStatus.COMPLETED:  # what a team that is done has offered is merged
                candidates.withdraw_all(db, orchestration_id, f"the orchestration is {status}", now=now)
            messages.cancel_pending(db, orchestration_id, f"the orchestration is {status}", now=now)
        record(db, f"orchestration.{status}", now=now, orchestration=orchestration_id, outcome=outcome)
        _tell_person(db, get(db, orchestration_id), now)


def set_paused(db: sqlite3.Connection, orchestration_id: str, at: int | None) -> bool:
    """Record since when a person has a team paused, or that nobody has; call it inside a transaction.

    Returns whether that changed anything.
    """
    changed = db.execute(
        "UPDATE orchestrations SET paused_at = ? WHERE id = ? AND (paused_at IS NULL) != (? IS NULL)",
        (at, orchestration_id, at),
    )
    return bool(changed.rowcount)


def paused_at(db: sqlite3.Connection, orchestration_id: str | None) -> int | None:
    """Since when a person has a team paused; None when nobody has, and for no team. It is asked on every beat."""
    row = db.execute("SELECT paused_at FROM orchestrations WHERE id = ?", (orchestration_id,)).fetchone()
    return row["paused_at"] if row else None


def _tell_person(db: sqlite3.Connection, found: Orchestration, now: int) -> None:
    told = [OrchestrationStatus.NEEDS_ATTENTION]
    if not found.unattended:
        told += [OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED]
    if found.status in told:
        title = f"{found.session}: {found.status.replace('_', ' ')}"
        notices.tell(db, found.status, title, told_of(db, found), now=now)


def told_of(db: sqlite3.Connection, found: Orchestration) -> str:
    """What a notice tells of an orchestration: its outcome, and when it is over how each criterion stands, and why."""
    from lib import criteria  # noqa: PLC0415 - it knows how commands are run, which no message need load

    shown = criteria.story(db, found.id) if found.status in ENDED else ""
    return "\n\n".join(part for part in (found.outcome or found.spec_title, shown) if part)


def _orchestration(row: sqlite3.Row) -> Orchestration:
    return Orchestration(
        id=row["id"],
        project=Path(row["project"]),
        session=row["session"],
        spec_path=Path(row["spec_path"]),
        spec_title=row["spec_title"],
        spec_text=row["spec_text"],
        status=OrchestrationStatus(row["status"]),
        program=Program(row["program"]),
        config_dir=Path(row["config_dir"]),
        starting_branch=row["starting_branch"],
        starting_commit=row["starting_commit"],
        branches=row["branches"],
        git_mode=GitMode(row["git_mode"]),
        messages_per_minute=row["messages_per_minute"],
        unattended=bool(row["unattended"]),
        outcome=row["outcome"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        paused_at=row["paused_at"],
    )
