"""Dependencies: which role waits for which other role's completion, and the one notice that ends the wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from lib import agents, messages, orchestrations, templates
from lib.errors import NotFound, OrchestratorError, Usage
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, Dependency, Message, MessageKind
from lib.store import record, writing


def declare(db: sqlite3.Connection, orchestration_id: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Record what a new team's roles (role, on_role) wait for; call it in the transaction that records the team."""
    db.executemany(
        "INSERT INTO dependencies (orchestration_id, role, on_role) VALUES (?, ?, ?)",
        [(orchestration_id, role, on_role) for role, on_role in pairs],
    )


def add(
    db: sqlite3.Connection, orchestration_id: str, role: str, on_role: str, *, by: str, now: int
) -> tuple[Dependency, Message | None]:
    """Have a role wait for another's completion. Returns it, with the notice when the other is done already.

    One that is there already stays as it is. Raises `NotFound` for a role that the team does not have, `Usage` for
    one that waits for itself or for the orchestrator, and `OrchestratorError` naming the circle that it would close.
    """
    waiting, other = (_member(db, orchestration_id, name) for name in (role, on_role))
    if role == on_role:
        raise Usage(f"{role} cannot wait for itself")
    if on_role == ORCHESTRATOR:
        raise Usage("nobody can wait for the orchestrator: its report ends the orchestration")
    with writing(db):
        orchestrations.check_runs(orchestrations.get(db, orchestration_id))
        if found := _find(db, orchestration_id, role, on_role):
            return found, None
        report = _newest_report(db, other)
        if report is None and (circle := _circle(of_orchestration(db, orchestration_id), role, on_role)):
            raise OrchestratorError(f"they would wait for each other: {' -> '.join(circle)}")
        declare(db, orchestration_id, [(role, on_role)])
        record(
            db, "dependency.added", now=now, orchestration=orchestration_id, agent=waiting.id, on_role=on_role, by=by
        )
        notice = _resolve(db, waiting, other, report, now) if report else None
    return _get(db, orchestration_id, role, on_role), notice


def resolve(db: sqlite3.Connection, completed: Agent, *, now: int) -> list[Message]:
    """Tell each role that waits for this one, once; call it in the transaction that records the report.

    Returns the notices.
    """
    report = _newest_report(db, completed)
    if report is None or completed.orchestration_id is None:
        return []
    rows = db.execute(
        "SELECT role FROM dependencies WHERE orchestration_id = ? AND on_role = ? AND resolved_at IS NULL ORDER BY id",
        (completed.orchestration_id, completed.role),
    ).fetchall()
    waiting = [_member(db, completed.orchestration_id, row["role"]) for row in rows]
    return [_resolve(db, agent, completed, report, now) for agent in waiting]


def of_orchestration(db: sqlite3.Connection, orchestration_id: str) -> list[Dependency]:
    """Every dependency of a team, in the order in which they were declared."""
    rows = db.execute("SELECT * FROM dependencies WHERE orchestration_id = ? ORDER BY id", (orchestration_id,))
    return [_dependency(row) for row in rows]


def awaited(found: Iterable[Dependency], role: str) -> tuple[str, ...]:
    """The roles that a role still waits for."""
    return tuple(one.on_role for one in found if one.role == role and one.resolved_at is None)


def _resolve(db: sqlite3.Connection, waiting: Agent, completed: Agent, report: sqlite3.Row, now: int) -> Message:
    """Write the one notice and mark the wait as over: both or none."""
    left = list(awaited(of_orchestration(db, waiting.orchestration_id or ""), waiting.role))
    left.remove(completed.role)
    text = templates.render("dependency_resolved.md", on_role=completed.role, report=report, left=left)
    notice = messages.queue(db, waiting, text, sender=completed.role, kind=MessageKind.NOTICE, now=now)
    db.execute(
        "UPDATE dependencies SET resolved_at = ?, message_id = ?"
        " WHERE orchestration_id = ? AND role = ? AND on_role = ? AND resolved_at IS NULL",
        (now, notice.id, waiting.orchestration_id, waiting.role, completed.role),
    )
    record(
        db,
        "dependency.resolved",
        now=now,
        orchestration=waiting.orchestration_id,
        agent=waiting.id,
        message=notice.id,
        on_role=completed.role,
    )
    return notice


def _circle(found: Iterable[Dependency], role: str, on_role: str) -> list[str]:
    """The circle that `role` waiting for `on_role` would close, from `role` back to itself; empty when none."""
    open_ones = [one for one in found if one.resolved_at is None]
    ways = [[role, on_role]]
    seen = {on_role}
    while ways:
        way = ways.pop(0)
        for further in awaited(open_ones, way[-1]):
            if further == role:
                return [*way, role]
            if further not in seen:
                seen.add(further)
                ways.append([*way, further])
    return []


def _member(db: sqlite3.Connection, orchestration_id: str, role: str) -> Agent:
    agent = agents.in_role(db, orchestration_id, role)
    if agent is None:
        roles = [mate.role for mate in agents.of_orchestration(db, orchestration_id)]
        raise NotFound(f"the team has no role {role!r}", hint=f"roles: {', '.join(roles)}")
    return agent


def _newest_report(db: sqlite3.Connection, agent: Agent) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM reports WHERE agent_id = ? AND status = 'done' ORDER BY id DESC LIMIT 1", (agent.id,)
    ).fetchone()
    return row


def _find(db: sqlite3.Connection, orchestration_id: str, role: str, on_role: str) -> Dependency | None:
    row = db.execute(
        "SELECT * FROM dependencies WHERE orchestration_id = ? AND role = ? AND on_role = ?",
        (orchestration_id, role, on_role),
    ).fetchone()
    return _dependency(row) if row else None


def _get(db: sqlite3.Connection, orchestration_id: str, role: str, on_role: str) -> Dependency:
    found = _find(db, orchestration_id, role, on_role)
    assert found
    return found


def _dependency(row: sqlite3.Row) -> Dependency:
    return Dependency(
        orchestration_id=row["orchestration_id"],
        role=row["role"],
        on_role=row["on_role"],
        resolved_at=row["resolved_at"],
        message_id=row["message_id"],
    )
