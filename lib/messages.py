"""The message ledger: every text to an agent, from queued to acknowledged, with a time for each step."""

from __future__ import annotations

import sqlite3

from lib import framing
from lib.errors import NotFound, Usage
from lib.models import PENDING, Agent, Message, MessageKind, MessageStatus
from lib.store import record, writing

_IS_PENDING = f"status IN ({', '.join(repr(str(status)) for status in PENDING)})"


def queue(db: sqlite3.Connection, agent: Agent, body: str, *, sender: str, kind: MessageKind, now: int) -> Message:
    """Record a message to an agent; delivering it is another step (`delivery.py`).

    The body is cleaned first, so that ledger and agent hold the same text. Raises `Usage` when nothing is left.
    """
    body = framing.clean(body)
    if not body.strip():
        raise Usage("the message is empty")
    with writing(db):
        cursor = db.execute(
            "INSERT INTO messages (agent_id, sender, kind, body, status, queued_at) VALUES (?, ?, ?, ?, 'queued', ?)",
            (agent.id, sender, kind, body, now),
        )
        message_id = int(cursor.lastrowid or 0)
        _tell(db, "message.queued", agent, message_id, now, sender=sender, kind=kind)
    return get(db, message_id)


def get(db: sqlite3.Connection, message_id: int) -> Message:
    """A message by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise NotFound(f"no message has the id {message_id}")
    return _message(row)


def briefing_of(db: sqlite3.Connection, agent_id: int) -> Message | None:
    """The one briefing of an agent, or None before it was written."""
    row = db.execute("SELECT * FROM messages WHERE agent_id = ? AND kind = 'briefing'", (agent_id,)).fetchone()
    return _message(row) if row else None


def pending(db: sqlite3.Connection, agent_id: int) -> list[Message]:
    """What still has to arrive at an agent, in the order in which it will.

    What has been pasted comes first: it may stand in the composer, and nothing may be typed after it.
    """
    rows = db.execute(
        f"SELECT * FROM messages WHERE agent_id = ? AND {_IS_PENDING} ORDER BY status = 'queued', id",
        (agent_id,),
    )
    return [_message(row) for row in rows]


def agents_with_pending(db: sqlite3.Connection) -> list[int]:
    """The ids of agents that have messages to get."""
    return [row[0] for row in db.execute(f"SELECT DISTINCT agent_id FROM messages WHERE {_IS_PENDING}")]


def pasting(db: sqlite3.Connection, message: Message, agent: Agent, *, now: int) -> None:
    """Record, before it happens, that the text is put into the composer."""
    with writing(db):
        db.execute(
            "UPDATE messages SET status = 'pasted', pasted_at = ?, attempts = attempts + 1, reason = NULL WHERE id = ?",
            (now, message.id),
        )
        _tell(db, "message.pasted", agent, message.id, now, attempt=message.attempts + 1)


def submitting(db: sqlite3.Connection, message: Message, agent: Agent, *, now: int) -> None:
    """Record, before it happens, that Enter is pressed."""
    with writing(db):
        db.execute(
            "UPDATE messages SET status = 'submitted', submitted_at = ? WHERE id = ? AND status = 'pasted'",
            (now, message.id),
        )
        _tell(db, "message.submitted", agent, message.id, now)


def acknowledge(db: sqlite3.Connection, agent: Agent, prompt: str, *, proof: str, now: int) -> bool:
    """Take a prompt that the agent itself has received as the proof of a message, if it is one.

    `proof` is "hook" or "transcript". Only the same agent, id and text count. Returns whether a message was
    acknowledged now; a proof that comes twice changes nothing.
    """
    framed = framing.unframe(prompt)
    if framed is None:
        return False
    message_id, body = framed
    with writing(db):
        changed = db.execute(
            "UPDATE messages SET status = 'acknowledged', acknowledged_at = ?, reason = NULL"
            f" WHERE id = ? AND agent_id = ? AND body = ? AND {_IS_PENDING}",
            (now, message_id, agent.id, body),
        ).rowcount
        if changed:
            _tell(db, "message.acknowledged", agent, message_id, now, proof=proof)
    return bool(changed)


def requeue(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Put a message back: it is known that the agent has not got it."""
    with writing(db):
        db.execute("UPDATE messages SET status = 'queued', reason = ? WHERE id = ?", (reason, message.id))
        _tell(db, "message.requeued", agent, message.id, now, reason=reason)


def hold(db: sqlite3.Connection, message: Message, reason: str) -> None:
    """Note why a message waits; no event, since this is looked at on every beat."""
    if message.reason != reason:
        with writing(db):
            db.execute(f"UPDATE messages SET reason = ? WHERE id = ? AND {_IS_PENDING}", (reason, message.id))


def fail(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Give a message up, with the reason."""
    with writing(db):
        db.execute("UPDATE messages SET status = 'failed', reason = ? WHERE id = ?", (reason, message.id))
        _tell(db, "message.failed", agent, message.id, now, reason=reason)


def cancel_pending(db: sqlite3.Connection, orchestration_id: str, reason: str) -> None:
    """Cancel what was still to be delivered to a team that has ended; call it in the transaction that ends it."""
    db.execute(
        "UPDATE messages SET status = 'cancelled', reason = ?"
        f" WHERE agent_id IN (SELECT id FROM agents WHERE orchestration_id = ?) AND {_IS_PENDING}",
        (reason, orchestration_id),
    )


def count_pending(db: sqlite3.Connection, agent_id: int) -> int:
    """How many messages an agent has still to get."""
    row = db.execute(f"SELECT count(*) FROM messages WHERE agent_id = ? AND {_IS_PENDING}", (agent_id,)).fetchone()
    return int(row[0])


def has_pending(db: sqlite3.Connection, agent_id: int, kind: MessageKind) -> bool:
    """Whether a message of this kind has still to arrive at an agent."""
    row = db.execute(f"SELECT 1 FROM messages WHERE agent_id = ? AND kind = ? AND {_IS_PENDING}", (agent_id, kind))
    return row.fetchone() is not None


def _tell(db: sqlite3.Connection, event: str, agent: Agent, message_id: int, now: int, **data: object) -> None:
    record(db, event, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=message_id, **data)


def _message(row: sqlite3.Row) -> Message:
    return Message(
        id=row["id"],
        agent_id=row["agent_id"],
        sender=row["sender"],
        kind=MessageKind(row["kind"]),
        body=row["body"],
        status=MessageStatus(row["status"]),
        attempts=row["attempts"],
        reason=row["reason"],
        queued_at=row["queued_at"],
        pasted_at=row["pasted_at"],
        submitted_at=row["submitted_at"],
        acknowledged_at=row["acknowledged_at"],
    )
