"""The integrations table: how bringing a team's work together goes, and its delivery in the end."""

from __future__ import annotations

import sqlite3

from lib.models import DeliveryStatus, Integration
from lib.store import record, writing

#: Seconds until an errand that did not come to its end is started again, by how often that has happened.
PAUSE_SECONDS = (2, 30, 120, 600)
#: After so many a person has to look: the next run tells that, and is the last.
MOST_FAILURES = len(PAUSE_SECONDS)
_LONGEST_PAUSE_MS = max(PAUSE_SECONDS) * 1000


def errand(orchestration_id: str) -> str:
    """The name of the errand that merges and delivers a team's work."""
    return f"merge-{orchestration_id}"


def want(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> None:
    """Something of a team is to be done now. Call it in the transaction that records what.

    What kept the errand from its end before may have gone: it begins anew.
    """
    db.execute(
        "INSERT INTO integrations (orchestration_id, not_before, delivery) VALUES (?, ?, 'not_yet')"
        " ON CONFLICT DO UPDATE SET failures = 0, not_before = excluded.not_before",
        (orchestration_id, now),
    )


def want_delivery(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> None:
    """Have a team's work delivered once all of it is merged. Call it in the transaction of its completion."""
    want(db, orchestration_id, now=now)
    db.execute(
        "UPDATE integrations SET delivery = 'due', outcome = NULL, wanted = NULL, before = NULL"
        " WHERE orchestration_id = ? AND delivery != 'delivered'",
        (orchestration_id,),
    )


def of(db: sqlite3.Connection, orchestration_id: str) -> Integration | None:
    """How it goes with a team's work; None before anything was offered."""
    row = db.execute("SELECT * FROM integrations WHERE orchestration_id = ?", (orchestration_id,)).fetchone()
    return Integration(**dict(row) | {"delivery": DeliveryStatus(row["delivery"])}) if row else None


def due(db: sqlite3.Connection, *, now: int) -> dict[str, int]:
    """The teams of which something is to be merged or delivered, and when the errand may begin (UTC milliseconds).

    A run that was killed is among it, which may have left its worktree; what a person has to look at is not.
    """
    rows = db.execute(
        "SELECT orchestration_id, not_before FROM integrations WHERE failures <= ? AND orchestration_id IN"
        " (SELECT orchestration_id FROM candidates WHERE status IN ('queued', 'merging')"
        " UNION SELECT orchestration_id FROM integrations WHERE delivery = 'due' OR failures > 0)",
        (MOST_FAILURES,),
    )
    # A pause that is longer than any was written before the clock was set back.
    return {
        row["orchestration_id"]: now if row["not_before"] > now + _LONGEST_PAUSE_MS else row["not_before"]
        for row in rows
    }


def is_delivering(db: sqlite3.Connection, orchestration_id: str) -> bool:
    """Whether a team's work is still on its way to the starting branch."""
    found = of(db, orchestration_id)
    return found is not None and found.delivery is DeliveryStatus.DUE


def begin(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> None:
    """Record, before it begins, that the errand is at it: one that is killed leaves the count behind."""
    with writing(db):
        found = of(db, orchestration_id)
        failures = found.failures if found else 0
        pause = PAUSE_SECONDS[min(failures, len(PAUSE_SECONDS) - 1)]
        db.execute(
            "UPDATE integrations SET failures = failures + 1, not_before = ? WHERE orchestration_id = ?",
            (now + pause * 1000, orchestration_id),
        )


def end(db: sqlite3.Connection, orchestration_id: str) -> None:
    """Record that the errand has come to its end."""
    with writing(db):
        db.execute(
            "UPDATE integrations SET failures = 0, trouble = NULL WHERE orchestration_id = ?", (orchestration_id,)
        )


def note_trouble(db: sqlite3.Connection, orchestration_id: str, trouble: str, *, now: int) -> Integration:
    """Record why the errand did not come to its end; the same is told once."""
    with writing(db):
        before = of(db, orchestration_id)
        if before is None or before.trouble != trouble:
            record(db, "merging.failed", now=now, orchestration=orchestration_id, reason=trouble)
        db.execute("UPDATE integrations SET trouble = ? WHERE orchestration_id = ?", (trouble, orchestration_id))
        found = of(db, orchestration_id)
    assert found
    return found


def begin_delivery(db: sqlite3.Connection, orchestration_id: str, *, wanted: str, before: str) -> None:
    """Record, before it happens, where the starting branch is moved to, and from."""
    with writing(db):
        db.execute(
            "UPDATE integrations SET wanted = ?, before = ? WHERE orchestration_id = ?",
            (wanted, before, orchestration_id),
        )


def end_delivery(
    db: sqlite3.Connection, orchestration_id: str, status: DeliveryStatus, *, tag: str | None, outcome: str
) -> None:
    """Record what became of the delivery, and in words. Call it in the transaction that tells of it."""
    db.execute(
        "UPDATE integrations SET delivery = ?, tag = ?, outcome = ? WHERE orchestration_id = ?",
        (status, tag, outcome, orchestration_id),
    )


def note_pull_request(db: sqlite3.Connection, orchestration_id: str, address: str, *, now: int) -> None:
    """Record the pull request that was opened."""
    with writing(db):
        db.execute("UPDATE integrations SET pull_request = ? WHERE orchestration_id = ?", (address, orchestration_id))
        record(db, "integration.pull_request", now=now, orchestration=orchestration_id, address=address)
