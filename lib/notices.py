"""Notices: what a person should hear of outside of the terminal. Recorded with what they tell of, sent later.

A dispatch is one notice to one address. Its attempt is recorded before it is sent and what became of it afterwards:
a kill in between sends it once more, and loses nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

from lib.judgement import cleaning
from lib.models import NOTICE_KINDS, Notice, NoticeStatus
from lib.store import record, writing

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
#: Minutes from each attempt at an address to the next; after the last one the dispatch has failed. Ten hours: a night.
PAUSE_MINUTES = (1, 5, 15, 60, 180, 360)
MOST_ATTEMPTS = len(PAUSE_MINUTES) + 1
#: What is to wait for longer than any pause was written before the clock was set back.
_LONGEST_WAIT_MS = max(PAUSE_MINUTES) * MINUTE_MS
#: How long what is over is kept.
KEPT_MS = 30 * 24 * HOUR_MS
_LONGEST_TITLE = 150
_LONGEST_BODY = 4_000
_LONGEST_DIGEST = 20_000


def tell(db: sqlite3.Connection, kind: str, title: str, body: str, *, now: int) -> None:
    """Record a notice; call it in the transaction of what it tells of, so that it is told exactly once.

    `kind` is one of `NOTICE_KINDS`. Whether anybody wants it is asked when it is sent.
    """
    assert kind in NOTICE_KINDS, kind
    db.execute(
        "INSERT INTO notices (kind, title, body, status, not_before, queued_at) VALUES (?, ?, ?, 'queued', ?, ?)",
        (kind, title, body, now, now),
    )


# -- what is to be done --


def next_due(db: sqlite3.Connection, *, now: int) -> int | None:
    """When the next notice is to be looked at (UTC milliseconds), or None when none waits."""
    due = db.execute("SELECT min(not_before) FROM notices WHERE status = 'queued'").fetchone()[0]
    if due is None:
        return None
    return now if due > now + _LONGEST_WAIT_MS else int(due)


def sort_out(db: sqlite3.Connection, addresses: Collection[str], kinds: Collection[str], *, now: int) -> None:
    """Decide who gets what waits. `addresses` are the keys of those that are configured, `kinds` what is wanted.

    A notice that somebody still waits for goes to an address that was added meanwhile, and no longer to one that was
    taken away. Drops what nobody wants, and what there is no address for.
    """
    with writing(db):
        for notice in queued(db):
            if notice.kind not in kinds:
                _settle(db, notice.id, NoticeStatus.DROPPED, f"{notice.kind} is not in notify.events", now)
            elif not addresses:
                _settle(db, notice.id, NoticeStatus.DROPPED, "no address is configured", now)
            else:
                _address(db, notice, addresses, now)


def _address(db: sqlite3.Connection, notice: Notice, addresses: Collection[str], now: int) -> None:
    for address in addresses:
        db.execute(
            "INSERT INTO dispatches (notice_id, address, status, not_before) VALUES (?, ?, 'queued', ?)"
            " ON CONFLICT DO NOTHING",
            (notice.id, address, notice.queued_at),
        )
    marks = ", ".join("?" * len(addresses))
    db.execute(
        "UPDATE dispatches SET status = 'dropped', reason = 'its address is no longer configured'"
        f" WHERE notice_id = ? AND status = 'queued' AND address NOT IN ({marks})",
        (notice.id, *addresses),
    )
    _refresh(db, [notice.id], now)


def begin(db: sqlite3.Connection, address: str, *, per_hour: int, now: int) -> list[Notice]:
    """Take what an address is to get now, oldest first, and record the attempt. Several go as one digest.

    Empty when nothing is due, and when the address has got `per_hour` within the last hour: that waits until it may.
    """
    with writing(db):
        rows = db.execute(
            "SELECT notice_id, attempts FROM dispatches WHERE address = ? AND status = 'queued'"
            " AND (not_before <= ? OR not_before > ?) ORDER BY notice_id",
            (address, now, now + _LONGEST_WAIT_MS),
        ).fetchall()
        worn = [row["notice_id"] for row in rows if row["attempts"] >= MOST_ATTEMPTS]
        if worn:
            _fail(db, address, worn, f"its sending was cut off {MOST_ATTEMPTS} times", now)
        due = [row for row in rows if row["attempts"] < MOST_ATTEMPTS]
        allowed_at = _allowed_at(db, address, per_hour, now)
        for row in due:
            if allowed_at > now:
                values = (row["attempts"], allowed_at)
            else:
                values = (row["attempts"] + 1, now + _pause_ms(row["attempts"]))
            db.execute(
                "UPDATE dispatches SET attempts = ?, not_before = ? WHERE notice_id = ? AND address = ?",
                (*values, row["notice_id"], address),
            )
        ids = [int(row["notice_id"]) for row in due]
        _refresh(db, ids, now)
    return [get(db, number) for number in ids] if allowed_at <= now else []


def _pause_ms(attempts: int) -> int:
    return PAUSE_MINUTES[min(attempts, len(PAUSE_MINUTES) - 1)] * MINUTE_MS


def _allowed_at(db: sqlite3.Connection, address: str, per_hour: int, now: int) -> int:
    """From when an address may get something: the hour after the oldest of the last `per_hour` sendings."""
    row = db.execute(
        "SELECT DISTINCT sent_at FROM dispatches WHERE address = ? AND status = 'sent' AND sent_at > ? AND sent_at <= ?"
        " ORDER BY sent_at DESC LIMIT 1 OFFSET ?",
        (address, now - HOUR_MS, now, per_hour - 1),
    ).fetchone()
    return int(row["sent_at"]) + HOUR_MS if row else now


# -- what became of it --


def taken(db: sqlite3.Connection, address: str, ids: Sequence[int], *, now: int) -> None:
    """An address has taken what was begun: these notices, at once."""
    with writing(db):
        for number in ids:
            db.execute(
                "UPDATE dispatches SET status = 'sent', reason = NULL, sent_at = ?"
                " WHERE notice_id = ? AND address = ? AND status = 'queued'",
                (now, number, address),
            )
            db.execute("UPDATE notices SET sent_at = ? WHERE id = ? AND sent_at IS NULL", (now, number))
        _refresh(db, ids, now)


def refused(db: sqlite3.Connection, address: str, ids: Sequence[int], reason: str, *, now: int) -> None:
    """An address has not taken what was begun. It goes again after its pause; after the last attempt it has failed."""
    with writing(db):
        for number in ids:
            db.execute(
                "UPDATE dispatches SET reason = ? WHERE notice_id = ? AND address = ? AND status = 'queued'",
                (reason, number, address),
            )
        rows = db.execute(
            "SELECT notice_id FROM dispatches WHERE address = ? AND attempts >= ?", (address, MOST_ATTEMPTS)
        )
        worn = {row["notice_id"] for row in rows} & set(ids)
        _fail(db, address, sorted(worn), reason, now)


def _fail(db: sqlite3.Connection, address: str, ids: Sequence[int], reason: str, now: int) -> None:
    for number in ids:
        db.execute(
            "UPDATE dispatches SET status = 'failed', reason = coalesce(reason, ?)"
            " WHERE notice_id = ? AND address = ? AND status = 'queued'",
            (reason, number, address),
        )
    _refresh(db, ids, now)


def _refresh(db: sqlite3.Connection, ids: Sequence[int], now: int) -> None:
    """Bring notices to what their dispatches say."""
    for number in ids:
        rows = db.execute("SELECT * FROM dispatches WHERE notice_id = ? ORDER BY address", (number,)).fetchall()
        waiting = [row["not_before"] for row in rows if row["status"] == NoticeStatus.QUEUED]
        if waiting:
            db.execute("UPDATE notices SET not_before = ? WHERE id = ?", (min(waiting), number))
            continue
        for status in (NoticeStatus.FAILED, NoticeStatus.SENT, NoticeStatus.DROPPED):
            of_it = [row for row in rows if row["status"] == status]
            if of_it:
                reasons = dict.fromkeys(row["reason"] for row in of_it if row["reason"])
                _settle(db, number, status, "; ".join(reasons) or None, now)
                break


def _settle(db: sqlite3.Connection, notice_id: int, status: NoticeStatus, reason: str | None, now: int) -> None:
    changed = db.execute(
        "UPDATE notices SET status = ?, reason = ? WHERE id = ? AND status = 'queued'", (status, reason, notice_id)
    ).rowcount
    if not changed:
        return
    db.execute(
        "UPDATE dispatches SET status = 'dropped', reason = ? WHERE notice_id = ? AND status = 'queued'",
        (reason, notice_id),
    )
    notice = get(db, notice_id)
    record(
        db, f"notice.{status}", now=now, notice=notice_id, about=notice.kind, title=notice.title, reason=notice.reason
    )


def prune(db: sqlite3.Connection, *, now: int) -> None:
    """Remove what has been over for long."""
    db.execute(
        "DELETE FROM notices WHERE status != 'queued' AND queued_at < ?1 AND coalesce(sent_at, 0) < ?1",
        (now - KEPT_MS,),
    )


# -- reading --


def get(db: sqlite3.Connection, notice_id: int) -> Notice:
    """A notice by its id, which has to be there."""
    return _notice(db.execute("SELECT * FROM notices WHERE id = ?", (notice_id,)).fetchone())


def queued(db: sqlite3.Connection) -> list[Notice]:
    """The notices that are still to be sent, oldest first."""
    return [_notice(row) for row in db.execute("SELECT * FROM notices WHERE status = 'queued' ORDER BY id")]


def counts(db: sqlite3.Connection) -> dict[NoticeStatus, int]:
    """How many notices there are in each status; what is over is kept for 30 days."""
    rows = db.execute("SELECT status, count(*) AS number FROM notices GROUP BY status")
    found = {row["status"]: row["number"] for row in rows}
    return {status: found.get(status, 0) for status in NoticeStatus}


def last_failure(db: sqlite3.Connection) -> Notice | None:
    """The newest notice that an address has not taken at last, or None."""
    row = db.execute("SELECT * FROM notices WHERE status = 'failed' ORDER BY id DESC LIMIT 1").fetchone()
    return _notice(row) if row else None


# -- what is read by a person --


def as_letter(found: Sequence[Notice], *, machine: str) -> tuple[str, str]:
    """The title and the text of what is sent: of one notice its own, of several a digest."""
    if len(found) == 1:
        return _title(found[0]), f"{_body(found[0])}\n\n{machine}, {_at(found[0])}".strip()
    title = f"{len(found)} notices, the last: {_title(found[-1])}"
    parts: list[str] = []
    for notice in found:
        body = "\n".join(f"    {line}" for line in _body(notice).splitlines())
        parts.append(f"{_at(notice)}  {_title(notice)}\n{body}".rstrip())
    kept: list[str] = []
    while parts and sum(map(len, kept)) + len(parts[-1]) <= _LONGEST_DIGEST:  # the newest tell the most
        kept.insert(0, parts.pop())
    if parts:
        kept.insert(0, f"{len(parts)} older ones are left out.")
    return title, "\n\n".join([*kept, machine])


def _title(notice: Notice) -> str:
    return _cut(" ".join(cleaning.clean(notice.title).split()), _LONGEST_TITLE)


def _body(notice: Notice) -> str:
    return _cut(cleaning.clean(notice.body).strip(), _LONGEST_BODY)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _at(notice: Notice) -> str:
    return datetime.fromtimestamp(notice.queued_at / 1000).strftime("%Y-%m-%d %H:%M")


def _notice(row: sqlite3.Row) -> Notice:
    return Notice(
        id=row["id"],
        kind=row["kind"],
        title=row["title"],
        body=row["body"],
        status=NoticeStatus(row["status"]),
        not_before=row["not_before"],
        reason=row["reason"],
        queued_at=row["queued_at"],
        sent_at=row["sent_at"],
    )
