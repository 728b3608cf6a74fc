"""The message ledger: every text to an agent, from queued to acknowledged, with a time for each step."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lib.errors import NotFound, Usage
from lib.judgement import cleaning, framing
from lib.models import PENDING, Agent, Message, MessageKind, MessageStatus, Priority
from lib.records import dataclass
from lib.store import record, writing

#: Why a message to an agent of another host waits at first.
WAITS_FOR_FLEET = "waits for the fleet"

_IS_PENDING = f"status IN ({', '.join(repr(str(status)) for status in PENDING)})"


def queue(
    db: sqlite3.Connection,
    agent: Agent,
    body: str,
    *,
    sender: str,
    kind: MessageKind,
    now: int,
    priority: Priority = Priority.NORMAL,
) -> Message:
    """Record a message to an agent; delivering it is another step (`delivery.py`).

    The body is cleaned first, so that ledger and agent hold the same text. Raises `Usage` when nothing is left.
    """
    body = cleaned(body, kind)
    with writing(db):
        cursor = db.execute(
            "INSERT INTO messages (agent_id, sender, kind, priority, body, status, reason, queued_at)"
            " VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)",
            (agent.id, sender, kind, priority, body, WAITS_FOR_FLEET if agent.host else None, now),
        )
        message_id = int(cursor.lastrowid or 0)
        _tell(db, "message.queued", agent, message_id, now, sender=sender, kind=kind)
    return get(db, message_id)


def cleaned(body: str, kind: MessageKind) -> str:
    """A text as it is recorded. Raises `Usage` for one that cannot be a message of this kind."""
    body = cleaning.clean(body)
    if not body.strip():
        raise Usage("the message is empty")
    if kind is MessageKind.COMMAND and not framing.is_command(body):
        raise Usage(f"{body!r} is no slash command", hint="a command is one line that begins with /, such as /compact")
    return body


def get(db: sqlite3.Connection, message_id: int) -> Message:
    """A message by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise NotFound(f"no message has the id {message_id}")
    return _message(row)


def find(
    db: sqlite3.Connection, *, agent_id: int | None = None, status: MessageStatus | None = None, limit: int
) -> list[Message]:
    """The newest messages, oldest of them first; of one agent or in one status, when named."""
    rows = db.execute(
        "SELECT * FROM messages WHERE (? IS NULL OR agent_id = ?) AND (? IS NULL OR status = ?)"
        " ORDER BY id DESC LIMIT ?",
        (agent_id, agent_id, status, status, limit),
    ).fetchall()
    return [_message(row) for row in reversed(rows)]


def of_team(db: sqlite3.Connection, orchestration_id: str, *, before: int | None, limit: int) -> list[Message]:
    """The newest messages to a team, oldest of them first; only those with smaller ids than `before`."""
    rows = db.execute(
        "SELECT messages.* FROM messages JOIN agents ON agents.id = messages.agent_id"
        " WHERE agents.orchestration_id = ? AND (? IS NULL OR messages.id < ?) ORDER BY messages.id DESC LIMIT ?",
        (orchestration_id, before, before, limit),
    ).fetchall()
    return [_message(row) for row in reversed(rows)]


def between(
    db: sqlite3.Connection, since: int, until: int, *, orchestration: str | None = None, limit: int
) -> list[Message]:
    """The newest messages that were queued after a time, up to and with another (UTC milliseconds), oldest first.

    Of one orchestration when it is named. They are as they are now.
    """
    of_team = "" if orchestration is None else "agent_id IN (SELECT id FROM agents WHERE orchestration_id = ?) AND "
    values = () if orchestration is None else (orchestration,)
    rows = db.execute(
        f"SELECT * FROM messages WHERE {of_team}queued_at > ? AND queued_at <= ?"
        " ORDER BY queued_at DESC, id DESC LIMIT ?",
        (*values, since, until, limit),
    ).fetchall()
    return [_message(row) for row in reversed(rows)]


@dataclass(frozen=True)
class Flow:
    """How much has gone from a sender to a role.

    `last_at` is when the last one was queued (UTC milliseconds), `mean_ms` how long it took on average until one was
    acknowledged; None when none was.
    """

    sender: str
    role: str
    messages: int
    pending: int
    failed: int
    last_at: int
    mean_ms: int | None


def flows(db: sqlite3.Connection, orchestration_id: str) -> list[Flow]:
    """Who has written to whom in a team, copies and digests too."""
    rows = db.execute(
        f"SELECT sender, role, count(*), sum({_IS_PENDING}), sum(status = 'failed'), max(queued_at),"
        " CAST(avg(acknowledged_at - queued_at) AS INTEGER)"
        " FROM messages JOIN agents ON agents.id = messages.agent_id"
        " WHERE agents.orchestration_id = ? GROUP BY sender, role ORDER BY sender, role",
        (orchestration_id,),
    )
    return [Flow(*row) for row in rows]


def briefing_of(db: sqlite3.Connection, agent_id: int) -> Message | None:
    """The one briefing of an agent, or None before it was written."""
    row = db.execute("SELECT * FROM messages WHERE agent_id = ? AND kind = 'briefing'", (agent_id,)).fetchone()
    return _message(row) if row else None


def pending(db: sqlite3.Connection, agent_id: int) -> list[Message]:
    """What still has to arrive at an agent, in the order in which it will: its briefing, then by priority and age.

    What has been pasted comes first: it may stand in the composer, and nothing may be typed after it.
    """
    rows = db.execute(
        f"SELECT * FROM messages WHERE agent_id = ? AND {_IS_PENDING} AND carried_by IS NULL"
        " ORDER BY status = 'queued', kind != 'briefing', priority DESC, id",
        (agent_id,),
    )
    return [_message(row) for row in rows]


def is_under_way(db: sqlite3.Connection, agent_id: int, message_id: int) -> bool:
    """Whether a message was put into an agent's composer and has not arrived or been given up since."""
    found = db.execute(
        "SELECT 1 FROM messages WHERE id = ? AND agent_id = ? AND status IN ('pasted', 'submitted')",
        (message_id, agent_id),
    )
    return found.fetchone() is not None


def agents_with_pending(db: sqlite3.Connection) -> list[int]:
    """The ids of agents of this host that have messages to get, first whose oldest has waited longest."""
    rows = db.execute(
        f"SELECT agent_id FROM messages WHERE {_IS_PENDING}"
        " AND agent_id NOT IN (SELECT id FROM agents WHERE host IS NOT NULL) GROUP BY agent_id ORDER BY min(id)"
    )
    return [row[0] for row in rows]


def pasting(db: sqlite3.Connection, message: Message, agent: Agent, *, now: int) -> bool:
    """Record, before it happens, that the text is put into the composer. False when it does not wait any more."""
    with writing(db):
        changed = db.execute(
            "UPDATE messages SET status = 'pasted', pasted_at = ?, attempts = attempts + 1, reason = NULL"
            " WHERE id = ? AND status = 'queued'",
            (now, message.id),
        ).rowcount
        if changed:
            _tell(db, "message.pasted", agent, message.id, now, attempt=message.attempts + 1)
    return bool(changed)


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
    for text in dict.fromkeys((prompt, framing.unwrap(prompt))):
        framed = framing.unframe(text)
        if framed and _acknowledge(db, agent, *framed, proof=proof, now=now):
            return True
    return False


def _acknowledge(db: sqlite3.Connection, agent: Agent, message_id: int, body: str, *, proof: str, now: int) -> bool:
    with writing(db):
        row = db.execute(
            f"SELECT 1 FROM messages WHERE id = ? AND agent_id = ? AND body = ? AND {_IS_PENDING}",
            (message_id, agent.id, body),
        ).fetchone()
        if row:
            _mark_acknowledged(db, agent, message_id, proof, now)
    return row is not None


def confirm(db: sqlite3.Connection, agent: Agent, message: Message, *, now: int) -> None:
    """Take a message as arrived that the transcript holds without being a prompt of its own.

    That is a slash command that was run, and a frame to which a person has typed something.
    """
    with writing(db):
        _mark_acknowledged(db, agent, message.id, "transcript", now)


def _mark_acknowledged(db: sqlite3.Connection, agent: Agent, message_id: int, proof: str, now: int) -> None:
    """A message has arrived, and with a digest those that it carries."""
    rows = db.execute(
        "UPDATE messages SET status = 'acknowledged', acknowledged_at = ?, reason = NULL"
        f" WHERE (id = ? OR carried_by = ?) AND {_IS_PENDING} RETURNING id",
        (now, message_id, message_id),
    ).fetchall()
    for row in rows:
        _tell(db, "message.acknowledged", agent, row["id"], now, proof=proof)


def requeue(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Put a message back: it is known that the agent has not got it. One that has moved on meanwhile stays."""
    with writing(db):
        changed = db.execute(
            "UPDATE messages SET status = 'queued', reason = ? WHERE id = ? AND status = ?",
            (reason, message.id, message.status),
        ).rowcount
        if changed:
            _tell(db, "message.requeued", agent, message.id, now, reason=reason)


def take_back(db: sqlite3.Connection, agent: Agent, prompt: str, *, now: int) -> None:
    """Queue a message again that the agent had accepted and was killed before it read it."""
    framed = framing.unframe(prompt) or framing.unframe(framing.unwrap(prompt))
    if framed is None:
        return
    row = db.execute(
        "SELECT * FROM messages WHERE id = ? AND agent_id = ? AND status = 'acknowledged'", (framed[0], agent.id)
    ).fetchone()
    if row:
        with writing(db):
            requeue(db, _message(row), agent, "accepted, but not read before the agent was killed", now=now)
            # The transcript still holds what was accepted then: from now on it proves nothing.
            db.execute("UPDATE messages SET pasted_at = NULL, submitted_at = NULL WHERE id = ?", (row["id"],))


def acknowledged_since(db: sqlite3.Connection, agent_id: int, since: int) -> list[Message]:
    """The framed messages that an agent has acknowledged after a time (UTC milliseconds), by its hook's word."""
    rows = db.execute(
        "SELECT * FROM messages WHERE agent_id = ? AND status = 'acknowledged' AND acknowledged_at > ?"
        " AND kind != 'command' AND carried_by IS NULL ORDER BY id",
        (agent_id, since),
    )
    return [_message(row) for row in rows]


def last_before(db: sqlite3.Connection, agent_id: int, at: int) -> Message | None:
    """The last message that an agent had acknowledged when a time (UTC milliseconds) came, or None."""
    row = db.execute(
        "SELECT * FROM messages WHERE agent_id = ? AND status = 'acknowledged' AND acknowledged_at <= ?"
        " AND kind != 'command' AND carried_by IS NULL ORDER BY acknowledged_at DESC, id DESC LIMIT 1",
        (agent_id, at),
    ).fetchone()
    return _message(row) if row else None


def newest_arrived(db: sqlite3.Connection, agent_id: int) -> Message | None:
    """What an agent works on, or has worked on last: the newest message that it got. By an index of its own."""
    row = db.execute(
        "SELECT * FROM messages WHERE agent_id = ? AND status = 'acknowledged' AND kind != 'command'"
        " AND carried_by IS NULL ORDER BY pasted_at DESC LIMIT 1",
        (agent_id,),
    ).fetchone()
    return _message(row) if row else None


def newest_id(db: sqlite3.Connection) -> int:
    """The id of the newest message to anybody; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()[0])


def count_since(db: sqlite3.Connection, agent_id: int, after: int, kinds: Sequence[MessageKind]) -> int:
    """How many messages of these kinds were sent to an agent after the one with an id."""
    marks = ", ".join("?" * len(kinds))
    row = db.execute(
        f"SELECT count(*) FROM messages WHERE agent_id = ? AND id > ? AND kind IN ({marks})", (agent_id, after, *kinds)
    ).fetchone()
    return int(row[0])


def ways(db: sqlite3.Connection, orchestration_id: str) -> list[tuple[int, int, int | None]]:
    """Of each message to a team that arrived or failed: its agent, when it was queued, and when it arrived or None."""
    rows = db.execute(
        "SELECT agent_id, queued_at, acknowledged_at FROM messages JOIN agents ON agents.id = messages.agent_id"
        " WHERE agents.orchestration_id = ? AND messages.status IN ('acknowledged', 'failed') ORDER BY messages.id",
        (orchestration_id,),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def hold(db: sqlite3.Connection, message: Message, reason: str) -> None:
    """Note why a message waits; no event, since this is looked at on every beat."""
    if message.reason != reason:
        with writing(db):
            db.execute(f"UPDATE messages SET reason = ? WHERE id = ? AND {_IS_PENDING}", (reason, message.id))


def fail(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Give a message up, with the reason; a digest takes along what it carries."""
    with writing(db):
        rows = db.execute(
            f"UPDATE messages SET status = 'failed', reason = ? WHERE (id = ? OR carried_by = ?) AND {_IS_PENDING}"
            " RETURNING id",
            (reason, message.id, message.id),
        ).fetchall()
        for row in rows:  # none when it has arrived meanwhile
            _tell(db, "message.failed", agent, row["id"], now, reason=reason)


def fail_pending(db: sqlite3.Connection, agent_id: int, reason: str, *, now: int) -> None:
    """Give up what a guest has not got and never will; call it in the transaction that ends it."""
    rows = db.execute(
        f"UPDATE messages SET status = 'failed', reason = ? WHERE agent_id = ? AND {_IS_PENDING} RETURNING id",
        (reason, agent_id),
    ).fetchall()
    for row in rows:
        record(db, "message.failed", now=now, agent=agent_id, message=row["id"], reason=reason)


def cancel(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Cancel a message that has not arrived: nobody needs it any more."""
    with writing(db):
        changed = db.execute(
            f"UPDATE messages SET status = 'cancelled', reason = ? WHERE id = ? AND {_IS_PENDING}",
            (reason, message.id),
        ).rowcount
        if changed:
            _tell(db, "message.cancelled", agent, message.id, now, reason=reason)


def cancel_pending(db: sqlite3.Connection, orchestration_id: str, reason: str, *, now: int) -> None:
    """Cancel what was still to be delivered to a team that has ended; call it in the transaction that ends it."""
    rows = db.execute(
        "UPDATE messages SET status = 'cancelled', reason = ?"
        f" WHERE agent_id IN (SELECT id FROM agents WHERE orchestration_id = ?) AND {_IS_PENDING}"
        " RETURNING id, agent_id",
        (reason, orchestration_id),
    ).fetchall()
    for row in rows:
        told = {"orchestration": orchestration_id, "agent": row["agent_id"], "message": row["id"]}
        record(db, "message.cancelled", now=now, **told, reason=reason)


# -- to agents of other hosts: lib/fleet/letters.py --

_ELSEWHERE = "agent_id IN (SELECT id FROM agents WHERE host IS NOT NULL)"


def hosts_written_to(db: sqlite3.Connection, *, is_sent: bool = True) -> list[str]:
    """The hosts of the fleet to whose agents something is still to arrive; without what they have got already."""
    status = _IS_PENDING if is_sent else f"{_IS_PENDING} AND status = 'queued'"
    rows = db.execute(
        f"SELECT DISTINCT host FROM messages JOIN agents ON agents.id = agent_id WHERE {_ELSEWHERE} AND {status}"
    )
    return [row[0] for row in rows]


def pending_at(db: sqlite3.Connection, host: str) -> list[Message]:
    """What has still to arrive at the agents of another host, oldest first."""
    rows = db.execute(
        f"SELECT * FROM messages WHERE agent_id IN (SELECT id FROM agents WHERE host = ?) AND {_IS_PENDING}"
        " ORDER BY id",
        (host,),
    )
    return [_message(row) for row in rows]


def count_unsent(db: sqlite3.Connection) -> int:
    """How many messages to agents of other hosts are with this host alone."""
    row = db.execute(
        f"SELECT count(*) FROM messages WHERE {_ELSEWHERE} AND {_IS_PENDING} AND status = 'queued'"
    ).fetchone()
    return int(row[0])


def handed_over(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Record that the other host has a message; one whose outcome is known already stays."""
    with writing(db):
        changed = db.execute(
            "UPDATE messages SET status = 'submitted', submitted_at = ?, reason = ? WHERE id = ? AND status = 'queued'",
            (now, reason, message.id),
        ).rowcount
        if changed:
            _tell(db, "message.submitted", agent, message.id, now, host=agent.host)


def arrived(db: sqlite3.Connection, message: Message, agent: Agent, *, at: int, now: int) -> None:
    """Record that an agent of another host has acknowledged a message at a time (UTC milliseconds)."""
    with writing(db):
        changed = db.execute(
            f"UPDATE messages SET status = 'acknowledged', acknowledged_at = ?, reason = NULL"
            f" WHERE id = ? AND {_IS_PENDING}",
            (at, message.id),
        ).rowcount
        if changed:
            _tell(db, "message.acknowledged", agent, message.id, now, proof=agent.host)


def send_anew(db: sqlite3.Connection, message: Message, agent: Agent, reason: str, *, now: int) -> None:
    """Put back one that has failed, as another attempt: the other host takes it for a new one."""
    with writing(db):
        requeue(db, message, agent, reason, now=now)
        db.execute("UPDATE messages SET attempts = attempts + 1 WHERE id = ? AND status = 'queued'", (message.id,))


# -- flood control --

RATE_WINDOW_MS = 60_000
_UNDER_RATE = f"priority <= {int(Priority.NORMAL)} AND kind NOT IN ('briefing', 'command')"


def next_place(db: sqlite3.Connection, agent: Agent, *, now: int) -> int | None:
    """When an agent's rate has room for one more message (UTC milliseconds); None when it has now."""
    rows = db.execute(
        f"SELECT pasted_at FROM messages WHERE agent_id = ? AND pasted_at > ? AND {_UNDER_RATE}"
        " ORDER BY pasted_at DESC LIMIT ?",
        (agent.id, now - RATE_WINDOW_MS, agent.messages_per_minute),
    ).fetchall()
    return None if len(rows) < agent.messages_per_minute else int(rows[-1][0]) + RATE_WINDOW_MS


def is_under_rate(message: Message) -> bool:
    """Whether flood control applies to a message."""
    return message.priority <= Priority.NORMAL and message.kind not in (MessageKind.BRIEFING, MessageKind.COMMAND)


def hold_back(db: sqlite3.Connection, agent: Agent, reason: str, *, now: int) -> None:
    """Hold what waits under the rate, to be delivered together when there is room."""
    with writing(db):
        held = db.execute(
            f"UPDATE messages SET held = 1, reason = ? WHERE agent_id = ? AND status = 'queued' AND held = 0"
            f" AND carried_by IS NULL AND {_UNDER_RATE} RETURNING id",
            (reason, agent.id),
        ).fetchall()
        for row in held:
            _tell(db, "message.held", agent, row["id"], now, reason=reason)


def bundle_held(db: sqlite3.Connection, agent: Agent, *, now: int) -> None:
    """Make one digest of what was held back; a single message stays what it is."""
    with writing(db):
        rows = db.execute(
            "SELECT * FROM messages WHERE agent_id = ? AND status = 'queued' AND held = 1 AND carried_by IS NULL"
            " ORDER BY priority DESC, id",
            (agent.id,),
        ).fetchall()
        if len(rows) < 2:
            return
        body = framing.digest([(row["id"], row["sender"], row["body"]) for row in rows])
        made = queue(db, agent, body, sender="scheduler", kind=MessageKind.DIGEST, now=now)
        # What a digest that was lost has carried comes with the new one now.
        db.executemany(
            "UPDATE messages SET carried_by = ?1 WHERE id = ?2 OR carried_by = ?2",
            [(made.id, row["id"]) for row in rows],
        )


def carried_by(db: sqlite3.Connection, digest_id: int) -> list[Message]:
    """The messages that a digest carries; none for any other message."""
    return [
        _message(row) for row in db.execute("SELECT * FROM messages WHERE carried_by = ? ORDER BY id", (digest_id,))
    ]


def count_pending(db: sqlite3.Connection, agent_id: int) -> int:
    """How many messages an agent has still to get."""
    row = db.execute(f"SELECT count(*) FROM messages WHERE agent_id = ? AND {_IS_PENDING}", (agent_id,)).fetchone()
    return int(row[0])


def pending_bodies(db: sqlite3.Connection, agent_id: int, kind: MessageKind) -> list[str]:
    """The texts of this kind that have still to arrive at an agent."""
    rows = db.execute(f"SELECT body FROM messages WHERE agent_id = ? AND kind = ? AND {_IS_PENDING}", (agent_id, kind))
    return [row["body"] for row in rows]


def _tell(db: sqlite3.Connection, event: str, agent: Agent, message_id: int, now: int, **data: object) -> None:
    record(db, event, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=message_id, **data)


def _message(row: sqlite3.Row) -> Message:
    return Message(
        id=row["id"],
        agent_id=row["agent_id"],
        sender=row["sender"],
        kind=MessageKind(row["kind"]),
        body=row["body"],
        priority=Priority(row["priority"]),
        status=MessageStatus(row["status"]),
        attempts=row["attempts"],
        reason=row["reason"],
        held=bool(row["held"]),
        carried_by=row["carried_by"],
        queued_at=row["queued_at"],
        pasted_at=row["pasted_at"],
        submitted_at=row["submitted_at"],
        acknowledged_at=row["acknowledged_at"],
    )
