"""The outbox: what doors want told to the fleet. The link sends it, now or when it is connected again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from lib.errors import NotFound, OrchestratorError
from lib.records import dataclass
from lib.store import writing

#: How long it is told that something was refused.
_TOLD_FOR_MS = 24 * 3600 * 1000


class Refused(OrchestratorError):
    """The fleet does not take it, now or later."""


@dataclass(frozen=True)
class Item:
    """One thing to be sent; `refusal` says why it never will be."""

    id: int
    kind: str
    body: Mapping[str, Any]
    queued_at: int
    refused_at: int | None
    refusal: str | None


def add(db: sqlite3.Connection, kind: str, body: Mapping[str, Any], *, now: int) -> int:
    """Queue something. Returns its id, which no later item has: sent twice after a crash, it is known by that."""
    with writing(db):
        row = db.execute(
            "INSERT INTO fleet_outbox (kind, body, queued_at) VALUES (?, ?, ?)", (kind, json.dumps(body), now)
        )
        return int(row.lastrowid or 0)


def get(db: sqlite3.Connection, item_id: int) -> Item:
    """An item that waits or was refused. Raises `NotFound` for one that was sent."""
    row = db.execute("SELECT * FROM fleet_outbox WHERE id = ?", (item_id,)).fetchone()
    if row is None:
        raise NotFound(f"nothing in the outbox has the id {item_id}")
    return _item(row)


def waiting(db: sqlite3.Connection, kind: str | None = None) -> list[Item]:
    """What waits to be sent, oldest first; of one kind when named."""
    rows = db.execute(
        "SELECT * FROM fleet_outbox WHERE refused_at IS NULL AND (?1 IS NULL OR kind = ?1) ORDER BY id", (kind,)
    )
    return [_item(row) for row in rows]


def refused(db: sqlite3.Connection) -> list[Item]:
    """What was refused within a day, oldest first."""
    return [_item(row) for row in db.execute("SELECT * FROM fleet_outbox WHERE refused_at IS NOT NULL ORDER BY id")]


def sent(db: sqlite3.Connection, item_id: int) -> None:
    """Take out what the fleet has."""
    with writing(db):
        db.execute("DELETE FROM fleet_outbox WHERE id = ?", (item_id,))


def refuse(db: sqlite3.Connection, item_id: int, refusal: str, *, now: int) -> None:
    """Keep why the fleet does not take something; what was refused a day ago is forgotten."""
    with writing(db):
        db.execute("UPDATE fleet_outbox SET refused_at = ?, refusal = ? WHERE id = ?", (now, refusal, item_id))
        db.execute("DELETE FROM fleet_outbox WHERE refused_at < ?", (now - _TOLD_FOR_MS,))


def _item(row: sqlite3.Row) -> Item:
    return Item(
        id=row["id"],
        kind=row["kind"],
        body=json.loads(row["body"]),
        queued_at=row["queued_at"],
        refused_at=row["refused_at"],
        refusal=row["refusal"],
    )
