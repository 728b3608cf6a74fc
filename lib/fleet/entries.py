"""The entries of the fleet's queue: all as they were last heard of, what this host has put, and what it has taken.

The link writes most of it, and doors and the daemon read it: nothing here knows of NATS.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from lib.errors import Busy, NotFound
from lib.fleet import outbox
from lib.fleet.envelopes import Unreadable
from lib.judgement import cleaning
from lib.records import dataclass
from lib.store import record, writing

#: What waits in the outbox: an entry to be queued, to be cancelled, to be queued again.
PUT, CANCEL, RETRY = "entry.put", "entry.cancel", "entry.retry"
#: How an entry's id looks: no number of this host's own queue does.
ID_FORM = r"f[0-9a-f]{8}"
#: The label of an entry that any host may take.
ANY = "any"


class State(StrEnum):
    """Of an entry of the fleet's queue; why an attempt has failed is its host's to know."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    ABANDONED = "abandoned"
    CANCELLED = "cancelled"


#: The states of an entry that has still something to do.
UNFINISHED = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Entry:
    """An entry as the fleet has it: its record, and the revision of that, which is the fencing token."""

    id: str
    revision: int
    record: Mapping[str, Any]

    @property
    def state(self) -> State:
        """How it stands."""
        return State(self.record["state"])

    @property
    def host(self) -> str | None:
        """Who has it, or had it last."""
        return self.record.get("host")

    @property
    def term(self) -> int:
        """How often it was taken."""
        return int(self.record.get("term", 0))

    def is_held_by(self, host: str, term: int) -> bool:
        """Whether a host has it still, as it once took it."""
        return self.state is State.RUNNING and (self.host, self.term) == (host, term)


@dataclass(frozen=True)
class Put:
    """An entry that this host has put. `fetched_at` is when its results were brought home."""

    entry_id: str
    project: Path
    spec_path: Path
    put_at: int
    fetched_at: int | None
    outcome: str | None


@dataclass(frozen=True)
class Lease:
    """An entry that this host has taken; the columns of its table tell what each field is."""

    entry_id: str
    term: int
    message: int
    ack: str
    ack_wait_ms: int
    extended_at: int
    local_id: int | None
    kept_at: int
    begins_at: int
    fenced_at: int | None
    has_paused: int
    ended_at: int | None


def mint_id() -> str:
    """A new id."""
    return f"f{os.urandom(4).hex()}"


def is_id(text: str) -> bool:
    """Whether a text has the form of an entry's id."""
    return re.fullmatch(ID_FORM, text) is not None


# -- as they were heard of --

#: What every record has, and of which kind. What else is in one is of a newer version.
_FIELDS: Mapping[str, type] = {
    **{"id": str, "state": str, "label": str, "priority": int, "added_at": int, "origin": str, "project": dict},
    **{"spec_name": str, "options": dict, "agents": int, "term": int},
}


#: What of a record is shown to people as it is.
_SHOWN = ("spec_name", "says", "outcome", "host", "origin", "label")


def checked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it may be kept and shown: its texts in one line. Raises `Unreadable` for one that is none."""
    wrong = [name for name, kind in _FIELDS.items() if type(fields.get(name)) is not kind]
    if wrong or fields["state"] not in tuple(State):
        raise Unreadable(f"an entry of the fleet's queue cannot be read: {(wrong or ['state'])[0]} is missing or wrong")
    project = {name: _plain(value) for name, value in fields["project"].items()}
    return {**fields, **{name: _plain(fields.get(name)) for name in _SHOWN}, "project": project}


def _plain(value: Any) -> Any:
    return cleaning.one_line(value) if isinstance(value, str) else value


def heard(db: sqlite3.Connection, found: Iterable[Entry]) -> None:
    """Keep what was heard of entries; what is older than what is known is left out."""
    with writing(db):
        db.executemany(
            "INSERT INTO fleet_entries (id, revision, record, state, label, priority, added_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET revision = excluded.revision,"
            " record = excluded.record, state = excluded.state, priority = excluded.priority"
            " WHERE excluded.revision > revision",
            [
                (
                    *(one.id, one.revision, json.dumps(one.record, ensure_ascii=False), str(one.state)),
                    *(one.record["label"], one.record["priority"], one.record["added_at"]),
                )
                for one in found
            ],
        )
        # One that was queued again comes home again.
        db.execute(
            "UPDATE fleet_puts SET fetched_at = NULL, outcome = NULL WHERE fetched_at IS NOT NULL AND entry_id IN"
            " (SELECT id FROM fleet_entries WHERE state IN ('queued', 'running'))"
        )


def forget(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Forget entries that the fleet has no more."""
    with writing(db):
        db.executemany("DELETE FROM fleet_entries WHERE id = ?", [(one,) for one in ids])


def every(db: sqlite3.Connection) -> list[Entry]:
    """All entries, oldest first."""
    rows = db.execute("SELECT id, revision, record FROM fleet_entries ORDER BY added_at, id").fetchall()
    # As one text: reading ten thousand takes half as long.
    records = json.loads(f"[{','.join([row['record'] for row in rows])}]")
    return [Entry(row["id"], row["revision"], record) for row, record in zip(rows, records, strict=True)]


def wanting_bundles(db: sqlite3.Connection, host: str) -> list[Entry]:
    """What a host has put and another one could not get from its remote."""
    rows = db.execute(
        "SELECT id, revision, record FROM fleet_entries WHERE state = 'queued'"
        " AND record LIKE '%\"wants_bundles\": true%' AND json_extract(record, '$.origin') = ?",
        (host,),
    )
    return [_entry(row) for row in rows]


def get(db: sqlite3.Connection, entry_id: str) -> Entry | None:
    """An entry as it was last heard of; None when it was not."""
    row = db.execute("SELECT id, revision, record FROM fleet_entries WHERE id = ?", (entry_id,)).fetchone()
    return _entry(row) if row else None


def subjects(db: sqlite3.Connection, labels: Sequence[str], *, host: str) -> list[tuple[str, int]]:
    """Label and priority of what a host with these labels might get: of what waits, and of what others have.

    In the order in which a host looks there: what has the highest priority first, then what has waited longest.
    """
    marks = ", ".join("?" * (len(labels) + 1))
    rows = db.execute(
        "SELECT label, priority FROM fleet_entries WHERE state IN ('queued', 'running')"
        f" AND label IN ({marks}) AND NOT (state = 'running' AND json_extract(record, '$.host') = ?)"
        " GROUP BY label, priority ORDER BY priority DESC, min(added_at)",
        (ANY, *labels, host),
    )
    return [(row["label"], row["priority"]) for row in rows]


def all_subjects(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Label and priority of all that has still something to do."""
    rows = db.execute("SELECT DISTINCT label, priority FROM fleet_entries WHERE state IN ('queued', 'running')")
    return [(row["label"], row["priority"]) for row in rows]


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(row["id"], row["revision"], json.loads(row["record"]))


# -- what this host has put --


def put(db: sqlite3.Connection, body: Mapping[str, Any], *, project: Path, spec_path: Path, now: int) -> str:
    """Have an entry queued in the fleet, when the link is next connected. Returns its id.

    `body` is what the link makes its record of.
    """
    entry_id = mint_id()
    with writing(db):
        db.execute(
            "INSERT INTO fleet_puts (entry_id, project, spec_path, put_at) VALUES (?, ?, ?, ?)",
            (entry_id, str(project), str(spec_path), now),
        )
        outbox.add(db, PUT, {**body, "id": entry_id}, now=now)
        record(db, "fleet.put", now=now, entry=entry_id, spec=str(spec_path), project=str(project))
    return entry_id


def puts(db: sqlite3.Connection) -> list[Put]:
    """All that this host has put, oldest first."""
    return [Put(**_paths(row)) for row in db.execute("SELECT * FROM fleet_puts ORDER BY put_at, entry_id")]


def put_of(db: sqlite3.Connection, entry_id: str) -> Put | None:
    """An entry that this host has put; None when it has not."""
    row = db.execute("SELECT * FROM fleet_puts WHERE entry_id = ?", (entry_id,)).fetchone()
    return Put(**_paths(row)) if row else None


def to_fetch(db: sqlite3.Connection) -> list[tuple[Put, Entry]]:
    """What this host has put, is over, and was not brought home yet."""
    rows = db.execute(
        "SELECT fleet_puts.*, id, revision, record FROM fleet_puts JOIN fleet_entries ON id = entry_id"
        " WHERE fetched_at IS NULL AND state NOT IN ('queued', 'running') ORDER BY put_at"
    )
    return [(Put(**_paths(row)), _entry(row)) for row in rows]


def fetched(db: sqlite3.Connection, entry_id: str, outcome: str, *, now: int) -> None:
    """Record what came of bringing an entry's results home; call it in the transaction that tells of it."""
    db.execute("UPDATE fleet_puts SET fetched_at = ?, outcome = ? WHERE entry_id = ?", (now, outcome, entry_id))


def _paths(row: sqlite3.Row) -> dict[str, Any]:
    names = ("entry_id", "put_at", "fetched_at", "outcome")
    return {name: row[name] for name in names} | {name: Path(row[name]) for name in ("project", "spec_path")}


def bundles_of(db: sqlite3.Connection, project: Path) -> list[tuple[str, str]]:
    """What of a project the fleet's store holds: name and commit of each bundle, each beyond those before it."""
    rows = db.execute("SELECT name, commit_id FROM fleet_bundles WHERE project = ? ORDER BY rowid", (str(project),))
    return [(row["name"], row["commit_id"]) for row in rows]


def keep_bundles(db: sqlite3.Connection, project: Path, found: Sequence[tuple[str, str]]) -> None:
    """Record which bundles of a project the fleet's store holds, in their order."""
    with writing(db):
        db.execute("DELETE FROM fleet_bundles WHERE project = ?", (str(project),))
        db.executemany(
            "INSERT INTO fleet_bundles (project, name, commit_id) VALUES (?, ?, ?)",
            [(str(project), name, commit) for name, commit in found],
        )


def order(db: sqlite3.Connection, kind: str, entry_id: str, *, now: int) -> Entry:
    """Have an entry cancelled or queued again, when the link is next connected. Returns it as it stands.

    Raises `NotFound`, and `Busy` for one of which that cannot be done.
    """
    found = get(db, entry_id)
    if found is None:
        raise NotFound(f"the fleet has no entry {entry_id}, as far as is known here", hint="scheduler.py --queue-list")
    is_over = found.state not in UNFINISHED
    if is_over is (kind == CANCEL):
        raise Busy(f"entry {entry_id} is {found.state}", hint=f"scheduler.py --queue-status {entry_id}")
    outbox.add(db, kind, {"id": entry_id}, now=now)
    return found


# -- what this host has taken --


def lease_of(db: sqlite3.Connection, entry_id: str) -> Lease | None:
    """What this host has of an entry, or had; None when it never took it."""
    row = db.execute("SELECT * FROM fleet_leases WHERE entry_id = ?", (entry_id,)).fetchone()
    return Lease(**row) if row else None


def open_lease(db: sqlite3.Connection, entry_id: str) -> Lease | None:
    """What this host has of an entry, and has still as far as it knows; None when it has nothing of it."""
    found = lease_of(db, entry_id)
    return found if found and found.ended_at is None else None


def leases(db: sqlite3.Connection) -> list[Lease]:
    """What this host has taken, and has still."""
    return [Lease(**row) for row in db.execute("SELECT * FROM fleet_leases WHERE ended_at IS NULL ORDER BY entry_id")]


def lease_of_local(db: sqlite3.Connection, local_id: int) -> Lease | None:
    """What this host has taken that is this entry of its own queue; None for an entry of nobody else's."""
    row = db.execute("SELECT * FROM fleet_leases WHERE local_id = ? AND ended_at IS NULL", (local_id,)).fetchone()
    return Lease(**row) if row else None


def take(
    db: sqlite3.Connection, entry: Entry, *, message: int, ack: str, ack_wait_ms: int, begins_at: int, now: int
) -> Lease:
    """Record that this host has taken an entry, with the time at which it was told so at the latest."""
    with writing(db):
        db.execute(
            "INSERT INTO fleet_leases (entry_id, term, message, ack, ack_wait_ms, extended_at, kept_at, begins_at)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7) ON CONFLICT (entry_id) DO UPDATE SET term = ?2, message = ?3,"
            " ack = ?4, ack_wait_ms = ?5, extended_at = ?6, kept_at = ?6, begins_at = ?7, local_id = NULL,"
            " fenced_at = NULL, has_paused = 0, ended_at = NULL",
            (entry.id, entry.term, message, ack, ack_wait_ms, now, begins_at),
        )
        record(db, "fleet.taken", now=now, entry=entry.id, term=entry.term)
    found = lease_of(db, entry.id)
    assert found
    return found


def readdress(db: sqlite3.Connection, lease: Lease, *, message: int, ack: str) -> None:
    """Record where an entry of this host is acknowledged now: the queue has given it out again, to this host."""
    db.execute(
        "UPDATE fleet_leases SET message = ?, ack = ? WHERE entry_id = ? AND term = ?",
        (message, ack, lease.entry_id, lease.term),
    )


def queued_here(db: sqlite3.Connection, lease: Lease, local_id: int) -> bool:
    """Record which entry of its own queue this host has made of one; call it in the transaction that makes it.

    Returns whether this host has it still.
    """
    changed = db.execute(
        "UPDATE fleet_leases SET local_id = ? WHERE entry_id = ? AND term = ? AND ended_at IS NULL",
        (local_id, lease.entry_id, lease.term),
    )
    return bool(changed.rowcount)


def extended(db: sqlite3.Connection, lease: Lease, *, now: int) -> None:
    """Record that the fleet has heard at this time that this host has an entry still."""
    db.execute(
        "UPDATE fleet_leases SET extended_at = ? WHERE entry_id = ? AND term = ?", (now, lease.entry_id, lease.term)
    )


def kept(db: sqlite3.Connection, lease: Lease, *, now: int) -> None:
    """Record that the branches of an entry's team were looked at, and pushed when there was something new."""
    db.execute("UPDATE fleet_leases SET kept_at = ? WHERE entry_id = ? AND term = ?", (now, lease.entry_id, lease.term))


def fence(db: sqlite3.Connection, lease: Lease, *, has_paused: bool, now: int) -> None:
    """Record that an entry's team is held, since another host may have it; call it in the transaction of its pause."""
    if lease.fenced_at is None:
        record(db, "fleet.fenced", now=now, entry=lease.entry_id, since=lease.extended_at)
    db.execute(
        "UPDATE fleet_leases SET fenced_at = coalesce(fenced_at, ?), has_paused = max(has_paused, ?)"
        " WHERE entry_id = ? AND term = ?",
        (now, has_paused, lease.entry_id, lease.term),
    )


def unfence(db: sqlite3.Connection, lease: Lease, *, now: int) -> None:
    """Record that an entry is this host's for certain again; call it in the transaction in which its team goes on."""
    record(db, "fleet.unfenced", now=now, entry=lease.entry_id, since=lease.fenced_at)
    db.execute(
        "UPDATE fleet_leases SET fenced_at = NULL, has_paused = 0 WHERE entry_id = ? AND term = ?",
        (lease.entry_id, lease.term),
    )


def ended(db: sqlite3.Connection, lease: Lease, why: str, *, now: int) -> None:
    """Record that this host has no part in an entry any more, and why."""
    with writing(db):
        changed = db.execute(
            "UPDATE fleet_leases SET ended_at = ? WHERE entry_id = ? AND term = ? AND ended_at IS NULL",
            (now, lease.entry_id, lease.term),
        ).rowcount
        if changed:
            record(db, "fleet.ended", now=now, entry=lease.entry_id, term=lease.term, why=why)
