"""Notices: what a person should hear of outside of the terminal. Recorded with what they tell of, sent later."""

from __future__ import annotations

import sqlite3

from lib.models import NOTICE_KINDS, Notice, NoticeStatus


def tell(db: sqlite3.Connection, kind: str, title: str, body: str, *, now: int) -> None:
    """Record a notice; call it in the transaction of what it tells of, so that it is told exactly once.

    `kind` is one of `NOTICE_KINDS`. Whether anybody wants it is asked when it is sent.
    """
    assert kind in NOTICE_KINDS, kind
    db.execute(
        "INSERT INTO notices (kind, title, body, status, not_before, queued_at) VALUES (?, ?, ?, 'queued', ?, ?)",
        (kind, title, body, now, now),
    )


def queued(db: sqlite3.Connection) -> list[Notice]:
    """The notices that are still to be sent, oldest first."""
    return [_notice(row) for row in db.execute("SELECT * FROM notices WHERE status = 'queued' ORDER BY id")]


def _notice(row: sqlite3.Row) -> Notice:
    return Notice(
        id=row["id"],
        kind=row["kind"],
        title=row["title"],
        body=row["body"],
        status=NoticeStatus(row["status"]),
        attempts=row["attempts"],
        not_before=row["not_before"],
        reason=row["reason"],
        queued_at=row["queued_at"],
        sent_at=row["sent_at"],
    )
