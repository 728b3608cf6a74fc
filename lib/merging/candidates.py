"""The candidates table: commits that agents have offered, and what became of each."""

from __future__ import annotations

import sqlite3

from lib.merging import integrations
from lib.models import OFFERED, WENT_BACK, Agent, Candidate, CandidateStatus
from lib.store import only, record, writing

_IS_OPEN = f"status IN ({', '.join(repr(str(status)) for status in OFFERED)})"


def offer(db: sqlite3.Connection, agent: Agent, head: str, *, now: int) -> Candidate:
    """Have a commit of an agent brought together with the others' work. Returns its candidate.

    A commit that is merged, waits, or went back is not offered twice: its candidate is returned as it is. A newer one
    takes the place of one that waits.
    """
    assert agent.orchestration_id
    with writing(db):
        last = latest(db, agent.id)
        if last and last.head == head and last.status in (*OFFERED, *WENT_BACK, CandidateStatus.MERGED):
            return last
        return _add(db, agent, head, last, now)


def offer_again(db: sqlite3.Connection, agent: Agent, head: str, *, now: int) -> Candidate:
    """The same, also for a commit that went back: what was in its way may have gone."""
    with writing(db):
        last = latest(db, agent.id)
        return (
            _add(db, agent, head, last, now) if last and last.status in WENT_BACK else offer(db, agent, head, now=now)
        )


def _add(db: sqlite3.Connection, agent: Agent, head: str, last: Candidate | None, now: int) -> Candidate:
    assert agent.orchestration_id
    if last and last.status in OFFERED:
        settle(db, last, CandidateStatus.SUPERSEDED, now=now, reason=f"{head[:12]} was offered after it")
    tries = last.tries if last and last.status is not CandidateStatus.MERGED else 0
    cursor = db.execute(
        "INSERT INTO candidates (orchestration_id, agent_id, head, status, tries, offered_at)"
        " VALUES (?, ?, ?, 'queued', ?, ?)",
        (agent.orchestration_id, agent.id, head, tries, now),
    )
    new = get(db, int(cursor.lastrowid or 0))
    integrations.want(db, agent.orchestration_id, now=now)
    _tell(db, "candidate.offered", new, now)
    return new


def get(db: sqlite3.Connection, candidate_id: int) -> Candidate:
    """A candidate by its id."""
    row = db.execute("SELECT * FROM candidates WHERE id = ?", (candidate_id,)).fetchone()
    return _candidate(only(row, f"no candidate has the id {candidate_id}"))


def latest(db: sqlite3.Connection, agent_id: int) -> Candidate | None:
    """What an agent has offered last; None before it has offered anything."""
    row = db.execute("SELECT * FROM candidates WHERE agent_id = ? ORDER BY id DESC LIMIT 1", (agent_id,)).fetchone()
    return _candidate(row) if row else None


def waiting(db: sqlite3.Connection, orchestration_id: str) -> list[Candidate]:
    """What is still to be merged of a team's work, oldest first."""
    rows = db.execute(
        f"SELECT * FROM candidates WHERE orchestration_id = ? AND {_IS_OPEN} ORDER BY id", (orchestration_id,)
    )
    return [_candidate(row) for row in rows]


def merged(db: sqlite3.Connection, orchestration_id: str) -> list[Candidate]:
    """What is merged of a team's work, oldest first."""
    rows = db.execute(
        "SELECT * FROM candidates WHERE orchestration_id = ? AND status = 'merged' ORDER BY settled_at, id",
        (orchestration_id,),
    )
    return [_candidate(row) for row in rows]


def last_of_each(db: sqlite3.Connection, orchestration_id: str) -> dict[int, Candidate]:
    """What each agent of a team has offered last, by the agent's id."""
    rows = db.execute(
        "SELECT * FROM candidates WHERE id IN"
        " (SELECT max(id) FROM candidates WHERE orchestration_id = ? GROUP BY agent_id)",
        (orchestration_id,),
    )
    return {row["agent_id"]: _candidate(row) for row in rows}


def went_back(db: sqlite3.Connection, orchestration_id: str) -> list[Candidate]:
    """What went back to an agent of a team, and was not offered anew."""
    return [one for one in last_of_each(db, orchestration_id).values() if one.status in WENT_BACK]


def take(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> list[Candidate]:
    """Begin with all that waits, oldest first; what a run has left that was killed is among it."""
    with writing(db):
        for one in waiting(db, orchestration_id):
            if one.status is CandidateStatus.QUEUED:
                db.execute("UPDATE candidates SET status = 'merging' WHERE id = ?", (one.id,))
                _tell(db, "candidate.merging", one, now)
        return waiting(db, orchestration_id)


def settle(
    db: sqlite3.Connection,
    one: Candidate,
    status: CandidateStatus,
    *,
    now: int,
    reason: str | None = None,
    log: str | None = None,
) -> bool:
    """Record what became of a candidate; a conflict counts as a try. False when that was decided meanwhile."""
    with writing(db):
        changed = db.execute(
            "UPDATE candidates SET status = ?, reason = ?, log = ?, settled_at = ?, tries = tries + ?"
            f" WHERE id = ? AND {_IS_OPEN}",
            (status, reason, log, now, status is CandidateStatus.CONFLICT, one.id),
        ).rowcount
        if changed:
            _tell(db, f"candidate.{status}", one, now, reason=reason)
    return bool(changed)


def withdraw_all(db: sqlite3.Connection, orchestration_id: str, reason: str, *, now: int) -> None:
    """Merge nothing more of a team. Call it in the transaction of what the reason is."""
    for one in waiting(db, orchestration_id):
        settle(db, one, CandidateStatus.WITHDRAWN, now=now, reason=reason)


def _tell(db: sqlite3.Connection, kind: str, one: Candidate, now: int, **data: object) -> None:
    of, agent = one.orchestration_id, one.agent_id
    record(db, kind, now=now, orchestration=of, agent=agent, message=None, candidate=one.id, commit=one.head, **data)


def _candidate(row: sqlite3.Row) -> Candidate:
    return Candidate(**dict(row) | {"status": CandidateStatus(row["status"])})
