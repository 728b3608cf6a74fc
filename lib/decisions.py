"""Decisions: what the daemon has decided and from what, kept so that it can be decided again (docs/replay.md)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from lib import store
from lib.records import dataclass


@dataclass(frozen=True)
class Decision:
    """One decision: `given` is all that it depends on, `made` what was decided, both as JSON has them.

    `event_id` is the event that tells of it, None when none does; `at` is UTC milliseconds.
    """

    id: int
    at: int
    kind: str
    given: dict[str, Any]
    made: Any
    event_id: int | None


def note(
    db: sqlite3.Connection, kind: str, given: Mapping[str, object], made: object, *, now: int, is_told: bool = True
) -> None:
    """Keep a decision; call it in the transaction of what comes of it.

    `is_told` is whether the newest event tells of it: then call it right after that.
    """
    db.execute(
        "INSERT INTO decisions (at, kind, given, made, event_id) VALUES (?, ?, ?, ?, ?)",
        (now, kind, json.dumps(given, default=str), json.dumps(made), store.newest_event(db) if is_told else None),
    )


def between(db: sqlite3.Connection, since: int, until: int) -> Iterator[Decision]:
    """The decisions from a time on and up to another (UTC milliseconds, both included), in their order."""
    for row in db.execute("SELECT * FROM decisions WHERE at BETWEEN ? AND ? ORDER BY id", (since, until)):
        yield Decision(**dict(row) | {"given": json.loads(row["given"]), "made": json.loads(row["made"])})


def first_event(db: sqlite3.Connection) -> int | None:
    """The event that the first decision is told by; None when no decision was kept."""
    found = db.execute("SELECT event_id FROM decisions WHERE event_id IS NOT NULL ORDER BY id LIMIT 1").fetchone()
    return None if found is None else int(found["event_id"])


def of_events(db: sqlite3.Connection, since: int, until: int) -> set[int]:
    """The events of a stretch of time that a decision is kept of."""
    rows = db.execute(
        "SELECT event_id FROM decisions WHERE at BETWEEN ? AND ? AND event_id IS NOT NULL", (since, until)
    )
    return {int(row["event_id"]) for row in rows}
