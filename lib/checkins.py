"""Check-ins: notes that become messages at their time, once or again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lib import agents, messages
from lib.errors import NotFound, Usage
from lib.models import Agent, CatchUp, CheckIn, CheckInStatus, MessageKind
from lib.store import record, writing

SENDER = "scheduler"
MINUTE_MS = 60_000
#: How often a check-in looks for an agent that is gone before it ends as dead, and how long apart.
TRIES_WHEN_GONE = 3
RETRY_MINUTES = 5
#: A year; a later time is more likely a wrong unit.
LONGEST_MINUTES = 366 * 24 * 60

_SELECT = """
SELECT check_ins.*, agents.session || ':' || iif(agents.orchestration_id IS NULL, agents.window, agents.role) AS target
FROM check_ins JOIN agents ON agents.id = check_ins.agent_id
"""


def add(
    db: sqlite3.Connection, agent_id: int, note: str, *, minutes: int, now: int, recurring: bool = False
) -> CheckIn:
    """Schedule a note for an agent in `minutes`, and every so many minutes when recurring.

    Raises `Usage` for an empty note or a time that is out of bounds.
    """
    if not note.strip():
        raise Usage("the note is empty")
    if not 0 < minutes <= LONGEST_MINUTES:
        raise Usage(f"MINUTES must be between 1 and {LONGEST_MINUTES}, not {minutes}")
    agent = agents.get(db, agent_id)
    with writing(db):
        if recurring:  # an agent has one recurring check-in: a new one takes the place of the old
            db.execute(
                "UPDATE check_ins SET status = 'cancelled', reason = 'replaced' WHERE agent_id = ?"
                " AND status = 'scheduled' AND interval_minutes IS NOT NULL",
                (agent_id,),
            )
        cursor = db.execute(
            "INSERT INTO check_ins (agent_id, note, planned_at, due_at, interval_minutes, catch_up, jitter_seconds,"
            " if_changed, status) VALUES (?, ?, ?, ?, ?, 'once', 0, 0, 'scheduled')",
            (agent_id, note.strip(), *[now + minutes * MINUTE_MS] * 2, minutes if recurring else None),
        )
        check_in_id = int(cursor.lastrowid or 0)
        _tell(db, "check_in.scheduled", agent, now, check_in=check_in_id, minutes=minutes, recurring=recurring)
    return get(db, check_in_id)


def get(db: sqlite3.Connection, check_in_id: int) -> CheckIn:
    """A check-in by its id. Raises `NotFound`."""
    row = db.execute(f"{_SELECT} WHERE check_ins.id = ?", (check_in_id,)).fetchone()
    if row is None:
        raise NotFound(f"no check-in has the id {check_in_id}", hint="scheduler.py --list")
    return _check_in(row)


def scheduled(db: sqlite3.Connection) -> list[CheckIn]:
    """Every check-in that is still to come, by time, and those that died, which a person should see."""
    rows = db.execute(f"{_SELECT} WHERE check_ins.status IN ('scheduled', 'dead') ORDER BY due_at")
    return [_check_in(row) for row in rows]


def next_due(db: sqlite3.Connection) -> int | None:
    """When the next check-in is due (UTC milliseconds), or None."""
    row = db.execute("SELECT min(due_at) FROM check_ins WHERE status = 'scheduled'").fetchone()
    return int(row[0]) if row[0] is not None else None


def remove(db: sqlite3.Connection, check_in_id: int, *, now: int) -> CheckIn:
    """Cancel a check-in. Raises `NotFound` when there is none that is still to come."""
    found = get(db, check_in_id)
    if found.status is not CheckInStatus.SCHEDULED:
        raise NotFound(f"check-in {check_in_id} is already {found.status}", hint="scheduler.py --list")
    with writing(db):
        db.execute("UPDATE check_ins SET status = 'cancelled' WHERE id = ? AND status = 'scheduled'", (check_in_id,))
        _tell(db, "check_in.cancelled", agents.get(db, found.agent_id), now, check_in=check_in_id)
    return get(db, check_in_id)


def cancel_all(db: sqlite3.Connection, orchestration_id: str) -> None:
    """Cancel the check-ins of a team that has ended; call it in the transaction that ends it."""
    db.execute(
        "UPDATE check_ins SET status = 'cancelled', reason = 'the orchestration has ended' WHERE status = 'scheduled'"
        " AND agent_id IN (SELECT id FROM agents WHERE orchestration_id = ?)",
        (orchestration_id,),
    )


def fire_due(db: sqlite3.Connection, *, now: int, is_gone: Callable[[Agent], bool] = lambda agent: False) -> int:
    """Turn every due check-in into a message, an event and its next occurrence, each in one transaction.

    After a downtime a check-in fires once and says how late it is. One that finds the last check-in of the same
    agent still undelivered is not added to it, nor is a note of which an equal one waits. One whose agent is gone is
    tried again a few times and then ends as dead. Returns how many fired.
    """
    rows = db.execute(f"{_SELECT} WHERE check_ins.status = 'scheduled' AND due_at <= ? ORDER BY due_at", (now,))
    due = [_check_in(row) for row in rows]
    fired = 0
    for check_in in due:
        agent = agents.get(db, check_in.agent_id)
        if is_gone(agent):
            _miss(db, check_in, agent, now)
        else:
            fired += _fire(db, check_in, agent, now)
    return fired


def _miss(db: sqlite3.Connection, check_in: CheckIn, agent: Agent, now: int) -> None:
    reason = f"{agent.target} is gone"
    if check_in.attempts + 1 >= TRIES_WHEN_GONE:
        change, later = "status = 'dead'", check_in.due_at
    else:
        change, later = "status = 'scheduled'", now + RETRY_MINUTES * MINUTE_MS
    with writing(db):
        db.execute(
            f"UPDATE check_ins SET {change}, attempts = attempts + 1, due_at = ?, reason = ?"
            " WHERE id = ? AND status = 'scheduled'",
            (later, reason, check_in.id),
        )
        _tell(
            db,
            "check_in.missed",
            agent,
            now,
            check_in=check_in.id,
            attempt=check_in.attempts + 1,
            reason=reason,
        )


def _fire(db: sqlite3.Connection, check_in: CheckIn, agent: Agent, now: int) -> bool:
    late_ms = now - check_in.due_at
    with writing(db):
        if check_in.interval_minutes is None:
            claim = db.execute(
                "UPDATE check_ins SET status = 'fired', fired_at = ?, reason = NULL"
                " WHERE id = ? AND status = 'scheduled'",
                (now, check_in.id),
            )
        else:
            claim = db.execute(
                "UPDATE check_ins SET due_at = ?, fired_at = ?, attempts = 0, reason = NULL"
                " WHERE id = ? AND status = 'scheduled' AND due_at = ?",
                (_next_occurrence(check_in, now), now, check_in.id, check_in.due_at),
            )
        if not claim.rowcount:  # somebody else has fired or cancelled it
            return False
        if reason := _why_skipped(check_in, messages.pending_bodies(db, agent.id, MessageKind.CHECK_IN)):
            _tell(db, "check_in.skipped", agent, now, check_in=check_in.id, reason=reason)
            return False
        body = f"Check-in{lateness(late_ms)}: {check_in.note}"
        message = messages.queue(db, agent, body, sender=SENDER, kind=MessageKind.CHECK_IN, now=now)
        _tell(db, "check_in.fired", agent, now, check_in=check_in.id, message_id=message.id, late_ms=late_ms)
    return True


def _why_skipped(check_in: CheckIn, waiting: Sequence[str]) -> str | None:
    """Why a due check-in adds nothing to those that the agent has still to get; None when it does."""
    if check_in.interval_minutes is not None and waiting:
        return "the last one still waits"
    # What stands before the first ": " is only how late it was.
    is_equal = any(body.partition(": ")[2] == check_in.note for body in waiting)
    return "an equal one still waits" if is_equal else None


def _next_occurrence(check_in: CheckIn, now: int) -> int:
    # On the grid of the first time, and after now: what was missed is not made up for.
    step = (check_in.interval_minutes or 1) * MINUTE_MS
    return check_in.due_at + ((now - check_in.due_at) // step + 1) * step


def lateness(late_ms: int) -> str:
    """` (2 h 5 min late)`, or nothing below a minute."""
    minutes = late_ms // MINUTE_MS
    if minutes < 1:
        return ""
    hours, minutes = divmod(minutes, 60)
    return f" ({f'{hours} h ' if hours else ''}{minutes} min late)"


def revive(db: sqlite3.Connection, agent_id: int) -> None:
    """Take up the check-ins that died while an agent was gone; call it in the transaction that brings it back."""
    db.execute(
        "UPDATE OR IGNORE check_ins SET status = 'scheduled', attempts = 0, reason = NULL"
        " WHERE agent_id = ? AND status = 'dead'",
        (agent_id,),
    )


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    message_id = data.pop("message_id", None)
    record(
        db,
        kind,
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        message=message_id if isinstance(message_id, int) else None,
        **data,
    )


def _check_in(row: sqlite3.Row) -> CheckIn:
    return CheckIn(
        id=row["id"],
        agent_id=row["agent_id"],
        target=row["target"],
        note=row["note"],
        planned_at=row["planned_at"],
        due_at=row["due_at"],
        interval_minutes=row["interval_minutes"],
        cron=row["cron"],
        catch_up=CatchUp(row["catch_up"]),
        deadline_minutes=row["deadline_minutes"],
        jitter_seconds=row["jitter_seconds"],
        if_changed=bool(row["if_changed"]),
        seen=row["seen"],
        status=CheckInStatus(row["status"]),
        attempts=row["attempts"],
        reason=row["reason"],
        fired_at=row["fired_at"],
    )
