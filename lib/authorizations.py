"""Authorizations: an agent asks to be allowed something, and hears an answer once: yes, no, or that none came."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lib import agents, messages, templates
from lib.errors import NotFound, OrchestratorError, Usage
from lib.judgement import cleaning
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, Authorization, AuthorizationStatus, Message, MessageKind
from lib.store import record, writing

DEFAULT_MINUTES = 30
#: A week; a later time is more likely a wrong unit.
LONGEST_MINUTES = 7 * 24 * 60

_MINUTE_MS = 60_000
#: Who tells the requester that no answer came.
_SENDER = "scheduler"
_OPEN = (AuthorizationStatus.PENDING, AuthorizationStatus.ESCALATED)
_IS_OPEN = f"status IN ({', '.join(repr(str(status)) for status in _OPEN)})"


def request(
    db: sqlite3.Connection, requester: Agent, target: Agent, what: str, *, minutes: int = DEFAULT_MINUTES, now: int
) -> tuple[Authorization, Message | None]:
    """Ask an agent's teammate for an authorization. Returns it with the message that asks.

    Asking again for the same while nobody has answered is the same request, and sends nothing. Raises `Usage` for
    an empty request, oneself, another team, or a time that is out of bounds.
    """
    what = cleaning.clean(what).strip()
    if not what:
        raise Usage("say what shall be authorized")
    if not 0 < minutes <= LONGEST_MINUTES:
        raise Usage(f"MINUTES must be between 1 and {LONGEST_MINUTES}, not {minutes}")
    if target.id == requester.id:
        raise Usage(f"{requester.role} cannot authorize itself")
    if target.orchestration_id != requester.orchestration_id:
        raise Usage(f"{target.target} is not in the team of {requester.role}")
    with writing(db):
        row = db.execute(
            f"SELECT * FROM authorizations WHERE requester_id = ? AND target_id = ? AND what = ? AND {_IS_OPEN}",
            (requester.id, target.id, what),
        ).fetchone()
        if row:
            return _authorization(row), None
        cursor = db.execute(
            "INSERT INTO authorizations (requester_id, target_id, what, status, period_minutes, requested_at, due_at)"
            " VALUES (?, ?, ?, 'pending', ?, ?, ?)",
            (requester.id, target.id, what, minutes, now, now + minutes * _MINUTE_MS),
        )
        made = get(db, int(cursor.lastrowid or 0))
        text = templates.render(
            "authorization_request.md",
            requester=requester.role,
            what=what,
            id=made.id,
            minutes=minutes,
            escalates=_hub_for(db, requester, target) is not None,
        )
        message = messages.queue(db, target, text, sender=requester.role, kind=MessageKind.MESSAGE, now=now)
        _tell(db, "authorization.requested", requester, made, message, now, target=target.role, what=what)
    return made, message


def answer(
    db: sqlite3.Connection, authorization_id: int, *, yes: bool, by: Agent | None, name: str, reason: str, now: int
) -> tuple[Authorization, Message | None]:
    """Grant or refuse a request. Returns it with the notice to the requester, None when it was so answered before.

    `by` is the agent that answers, None a person; `name` what the requester is told. Raises `OrchestratorError` when
    it may not answer, or when the request is decided otherwise or over.
    """
    status = AuthorizationStatus.GRANTED if yes else AuthorizationStatus.REFUSED
    with writing(db):
        found = get(db, authorization_id)
        requester = agents.get(db, found.requester_id)
        _check_may_answer(db, found, requester, by)
        if found.status is status:
            return found, None
        if found.status not in _OPEN:
            who = f" by {found.decided_by}" if found.decided_by else f" ({found.reason})"
            raise OrchestratorError(f"authorization {found.id} is already {found.status}{who}")
        message = _decide(db, found, requester, status, name, reason.strip() or None, now)
    return get(db, found.id), message


def _check_may_answer(db: sqlite3.Connection, found: Authorization, requester: Agent, by: Agent | None) -> None:
    is_hub = by is not None and by.role == ORCHESTRATOR and by.orchestration_id == requester.orchestration_id
    if by is None or (by.id != requester.id and (by.id == found.target_id or is_hub)):
        return
    target = agents.get(db, found.target_id)
    who = target.role if ORCHESTRATOR in (target.role, requester.role) else f"{target.role} or the {ORCHESTRATOR}"
    raise OrchestratorError(f"authorization {found.id} is for {who} to answer: this is {by.target}")


def escalate_due(db: sqlite3.Connection, *, now: int, is_held: Callable[[Agent], bool] = lambda agent: False) -> int:
    """What nobody has answered in time goes to the orchestrator for another period, and after that is over.

    While something holds both sides the time stands (`extend`).

    Each step is one transaction with its message, so whoever comes after a crash does nothing twice. Returns how
    many steps were taken.
    """
    rows = db.execute(f"SELECT * FROM authorizations WHERE {_IS_OPEN} AND due_at <= ? ORDER BY due_at", (now,))
    due = [one for one in map(_authorization, rows.fetchall()) if not _both_held(db, one, is_held)]
    return sum(_escalate(db, one, now) for one in due)


def _both_held(db: sqlite3.Connection, found: Authorization, is_held: Callable[[Agent], bool]) -> bool:
    return all(is_held(agents.get(db, number)) for number in (found.requester_id, found.target_id))


def extend(db: sqlite3.Connection, held: Sequence[int], *, since: int, now: int) -> None:
    """Give the open requests between agents that were held since a time as much more time as that has taken.

    Call it in the transaction that ends the hold.
    """
    marks = ", ".join("?" * len(held))
    db.execute(
        "UPDATE authorizations SET due_at = due_at + max(0, ? - max(?, requested_at))"
        f" WHERE {_IS_OPEN} AND requester_id IN ({marks}) AND target_id IN ({marks})",
        (now, since, *held, *held),
    )


def _escalate(db: sqlite3.Connection, seen: Authorization, now: int) -> bool:
    with writing(db):
        found = get(db, seen.id)
        if (found.status, found.due_at) != (seen.status, seen.due_at):  # answered since it was listed
            return False
        requester, target = agents.get(db, found.requester_id), agents.get(db, found.target_id)
        hub = _hub_for(db, requester, target) if found.status is AuthorizationStatus.PENDING else None
        if hub is None:
            _decide(db, found, requester, AuthorizationStatus.EXPIRED, None, "no answer", now)
            return True
        db.execute(
            "UPDATE authorizations SET status = 'escalated', due_at = ? WHERE id = ?",
            (now + found.period_minutes * _MINUTE_MS, found.id),
        )
        text = templates.render(
            "authorization_escalated.md",
            requester=requester.role,
            target=target.role,
            what=found.what,
            id=found.id,
            minutes=found.period_minutes,
        )
        message = messages.queue(db, hub, text, sender=requester.role, kind=MessageKind.MESSAGE, now=now)
        _tell(db, "authorization.escalated", requester, found, message, now, target=target.role)
    return True


def _decide(
    db: sqlite3.Connection,
    found: Authorization,
    requester: Agent,
    status: AuthorizationStatus,
    decided_by: str | None,
    reason: str | None,
    now: int,
) -> Message:
    """Close a request and tell the requester, in the transaction of the caller."""
    db.execute(
        "UPDATE authorizations SET status = ?, decided_by = ?, decided_at = ?, reason = ? WHERE id = ?",
        (status, decided_by, now, reason, found.id),
    )
    text = templates.render(
        "authorization_answer.md",
        id=found.id,
        status=str(status),
        decided_by=decided_by,
        target=agents.get(db, found.target_id).role,
        what=found.what,
        reason=reason,
    )
    message = messages.queue(db, requester, text, sender=decided_by or _SENDER, kind=MessageKind.NOTICE, now=now)
    _tell(db, f"authorization.{status}", requester, found, message, now, by=decided_by, reason=reason)
    return message


def next_due(db: sqlite3.Connection, *, is_held: Callable[[Agent], bool] = lambda agent: False) -> int | None:
    """When the next request runs out of time (UTC milliseconds) of which the time does not stand, or None."""
    rows = db.execute(f"SELECT * FROM authorizations WHERE {_IS_OPEN} ORDER BY due_at")
    return next((one.due_at for one in map(_authorization, rows) if not _both_held(db, one, is_held)), None)


def expire_all(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> None:
    """End the open requests of a team that has ended; call it in the transaction that ends it."""
    db.execute(
        "UPDATE authorizations SET status = 'expired', decided_at = ?, reason = 'the orchestration has ended'"
        f" WHERE {_IS_OPEN} AND requester_id IN (SELECT id FROM agents WHERE orchestration_id = ?)",
        (now, orchestration_id),
    )


def get(db: sqlite3.Connection, authorization_id: int) -> Authorization:
    """An authorization by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM authorizations WHERE id = ?", (authorization_id,)).fetchone()
    if row is None:
        raise NotFound(f"no authorization has the id {authorization_id}")
    return _authorization(row)


def open_of(db: sqlite3.Connection, orchestration_id: str) -> list[Authorization]:
    """What of a team waits for an answer, oldest first."""
    rows = db.execute(
        f"SELECT authorizations.* FROM authorizations JOIN agents ON agents.id = requester_id"
        f" WHERE agents.orchestration_id = ? AND {_IS_OPEN} ORDER BY authorizations.id",
        (orchestration_id,),
    )
    return [_authorization(row) for row in rows]


def _hub_for(db: sqlite3.Connection, requester: Agent, target: Agent) -> Agent | None:
    """The orchestrator that decides in the target's place; None when it is one of the two, or there is none."""
    if ORCHESTRATOR in (requester.role, target.role):
        return None
    return agents.in_role(db, requester.orchestration_id, ORCHESTRATOR)


def _tell(
    db: sqlite3.Connection,
    event: str,
    requester: Agent,
    found: Authorization,
    message: Message,
    now: int,
    **data: object,
) -> None:
    record(
        db,
        event,
        now=now,
        orchestration=requester.orchestration_id,
        agent=requester.id,
        message=message.id,
        authorization=found.id,
        **data,
    )


def _authorization(row: sqlite3.Row) -> Authorization:
    return Authorization(
        id=row["id"],
        requester_id=row["requester_id"],
        target_id=row["target_id"],
        what=row["what"],
        status=AuthorizationStatus(row["status"]),
        period_minutes=row["period_minutes"],
        requested_at=row["requested_at"],
        due_at=row["due_at"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        reason=row["reason"],
    )
