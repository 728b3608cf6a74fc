"""The one durable store: an SQLite database in the state home (its tables: schema.py), and the history of events."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lib import schema
from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.models import Event

#: SQLite does not serve who waits in turn: on a machine at its limit one of ten writers has waited for over 10 s.
_BUSY_SECONDS = 30.0


def connect(home: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the store of a state home, creating or migrating it. Raises `Unavailable` when it cannot be used.

    WAL, and synchronous=FULL: a power cut loses no committed message. That costs 0.3 ms a write on the
    machine of docs/decisions/store.md, and no part of this system writes a thousand times a second.
    `read_only` is for one look: it changes no file, not even those that SQLite keeps beside the database.
    """
    path = home / "orchestrator.db"
    try:
        if read_only:
            db = open_read_only(path)
        else:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            db = _open(str(path))
        if _version(db) < len(schema.MIGRATIONS) and not read_only:
            _migrate(db, path)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"the store {path} cannot be used: {error}", hint=f"check the permissions and the disk of {home}"
        ) from error
    _check_version(db, path)
    return db


def open_copy(path: Path) -> sqlite3.Connection:
    """Open a store, or a copy of one, to read it where it lies; no file is changed.

    Raises `NotFound` when there is none, `Unavailable` when it cannot be read or is of another version.
    """
    if not path.is_file():
        raise NotFound(f"there is no store at {path}")
    try:
        db = open_read_only(path.absolute())
        version = _version(db)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"the store {path} cannot be read: {error}", hint="copy it again") from error
    _check_version(db, path)
    if version < len(schema.MIGRATIONS):
        raise Unavailable(
            f"the store {path} was written by an older version of this toolkit",
            hint="look at it with that version, or have this one use it: claude_control.py status",
        )
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    if _version(db) > len(schema.MIGRATIONS):
        raise Unavailable(
            f"the store {path} was written by a newer version of this toolkit", hint="update the checkout"
        )


def _open(name: str, *, uri: bool = False) -> sqlite3.Connection:
    # isolation_level None: transactions are the explicit ones of writing().
    db = sqlite3.connect(name, uri=uri, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA synchronous = FULL")
    return db


#: A log that holds only this is left by a writer that was killed before its first page. SQLite 3.40 waits for ten
#: seconds over it and then says "locking protocol".
_LOG_HEADER_BYTES = 32
#: A writer that comes or goes may take the files away between our look at them and the opening.
_TRIES = 20


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database without changing a file.

    Plain mode=ro is not enough, measured with SQLite 3.40: it writes to the shared-memory file that is there, and
    makes one that is not.
    """
    for left in reversed(range(_TRIES)):
        try:
            db = _open_as_it_lies(path)
            _version(db)  # only now is the log opened
        except (sqlite3.OperationalError, FileNotFoundError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN)
            if not left or not path.exists() or code & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
        else:
            return db
    raise AssertionError  # the last try returns or raises


def _open_as_it_lies(path: Path) -> sqlite3.Connection:
    log, shared = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    if not log.exists() or log.stat().st_size <= _LOG_HEADER_BYTES:  # all that is committed is in the one file
        return _open(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    if shared.exists():  # somebody writes now, or was killed: then SQLite reads the log into its own memory
        return _open(f"{path.as_uri()}?mode=ro&readonly_shm=1", uri=True)
    return _open_copy(path, log)


def _open_copy(*files: Path) -> sqlite3.Connection:
    """A log without its shared memory: nobody has it open, as after a restore from a backup."""
    import shutil  # noqa: PLC0415 - this is rare
    import tempfile  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory(prefix="tmux-orchestrator-") as folder:
        for file in files:
            shutil.copyfile(file, Path(folder) / file.name)
        db = _open(str(Path(folder) / files[0].name))
        db.execute("PRAGMA query_only = ON")
        _version(db)  # it holds the files from now on, whatever becomes of their names
        return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    path.chmod(0o600)
    _use_wal(db)
    with writing(db):
        # Read again inside the transaction: another process may have migrated meanwhile.
        for number in range(_version(db), len(schema.MIGRATIONS)):
            for statement in schema.MIGRATIONS[number].split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")


def _use_wal(db: sqlite3.Connection) -> None:
    """Change to WAL, which SQLite 3.40 refuses at once, whatever the timeout, while another process does the same."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextlib.contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """One short write transaction. Nested blocks join the outer one. Raises `Unavailable` when the disk is full."""
    if db.in_transaction:
        yield
        return
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        raise _not_written(db, error) from error
    try:
        yield
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        _roll_back(db)
        raise _not_written(db, error) from error
    except BaseException:
        _roll_back(db)
        raise


def _not_written(db: sqlite3.Connection, error: sqlite3.Error) -> Unavailable:
    path = db.execute("PRAGMA database_list").fetchone()[2]
    return Unavailable(f"the store {path} cannot be written: {error}", hint="check the disk, then try again")


#: What SQLite says of the disk, of locks and of damage. Anything else that it says is a bug of ours.
_OUTSIDE = frozenset(
    (
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB),
    )
)


def trouble(error: sqlite3.Error, home: Path) -> Unavailable | None:
    """The error that a person can act on, when SQLite failed for what is outside of us; None for a bug."""
    # The lowest byte is the kind, the others say more of it.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OUTSIDE:
        return None
    path = home / "orchestrator.db"
    return Unavailable(f"the store {path} cannot be used: {error}", hint=f"check the disk and {path}, then try again")


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:  # a full disk may have rolled back already
        db.execute("ROLLBACK")


def record(
    db: sqlite3.Connection,
    event: str,
    /,
    *,
    now: int,
    orchestration: str | None = None,
    agent: int | None = None,
    message: int | None = None,
    **data: object,
) -> None:
    """Append an event; call it inside the transaction of the change that it tells of."""
    db.execute(
        "INSERT INTO events (at, kind, orchestration_id, agent_id, message_id, data) VALUES (?, ?, ?, ?, ?, ?)",
        (now, event, orchestration, agent, message, json.dumps(data, ensure_ascii=False, default=str)),
    )


def events(
    db: sqlite3.Connection,
    *,
    orchestration: str | None = None,
    message: int | None = None,
    kind: str | tuple[str, ...] | None = None,
    since: int = 0,
    after: int = 0,
    limit: int = 1000,
) -> list[Event]:
    """Events in order of their ids, after an id and a time; of one orchestration, message, kind or kinds, when named.

    A `limit` of -1 is none.
    """
    kinds = (kind,) if isinstance(kind, str) else kind or ()
    named = {"orchestration_id": orchestration, "message_id": message}
    wanted = {column: value for column, value in named.items() if value is not None}
    # Only what is named, so that its index serves: a team that runs for weeks has 100,000 events.
    clauses = "".join(f" AND {column} = ?" for column in wanted)
    clauses += f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
    rows = db.execute(
        f"SELECT * FROM events WHERE id > ? AND at >= ?{clauses} ORDER BY id LIMIT ?",
        (after, since, *wanted.values(), *kinds, limit),
    )
    return [_event(row) for row in rows]


def last_event(db: sqlite3.Connection, *kinds: str, orchestration: str, agent: int | None = None) -> Event | None:
    """The newest event of these kinds in an orchestration, or of one agent in it; None when there is none."""
    marks = ", ".join("?" * len(kinds))
    row = db.execute(
        f"SELECT * FROM events WHERE orchestration_id = ? AND kind IN ({marks}) AND (? IS NULL OR agent_id = ?)"
        " ORDER BY id DESC LIMIT 1",
        (orchestration, *kinds, agent, agent),
    ).fetchone()
    return _event(row) if row else None


def between(
    db: sqlite3.Connection,
    since: int,
    until: int,
    *,
    orchestration: str | None = None,
    kinds: Sequence[str] = (),
    limit: int,
) -> list[Event]:
    """The newest events after a time, up to and with another (UTC milliseconds), in order of their times.

    Of one orchestration, and of some kinds, when these are named.
    """
    where, values = _in_between(since, until, orchestration)
    if kinds:
        where, values = f"{where} AND kind IN ({', '.join('?' * len(kinds))})", (*values, *kinds)
    rows = db.execute(f"SELECT * FROM events WHERE {where} ORDER BY at DESC, id DESC LIMIT ?", (*values, limit))
    return [_event(row) for row in reversed(rows.fetchall())]


def count_between(db: sqlite3.Connection, since: int, until: int, *, orchestration: str | None = None) -> int:
    """How many events there are in that time."""
    where, values = _in_between(since, until, orchestration)
    return int(db.execute(f"SELECT count(*) FROM events WHERE {where}", values).fetchone()[0])


def messages_told_of(
    db: sqlite3.Connection, since: int, until: int, *, orchestration: str | None = None, limit: int
) -> list[int]:
    """The ids of the newest messages that events of that time are about, in order."""
    where, values = _in_between(since, until, orchestration)
    rows = db.execute(
        f"SELECT DISTINCT message_id FROM events WHERE {where} AND message_id IS NOT NULL AND kind LIKE 'message.%'"
        " ORDER BY message_id DESC LIMIT ?",
        (*values, limit),
    )
    return sorted(int(row[0]) for row in rows)


def _in_between(since: int, until: int, orchestration: str | None) -> tuple[str, tuple[object, ...]]:
    """The condition of a stretch of time, and its values."""
    if orchestration is None:
        return "at > ? AND at <= ?", (since, until)
    return "orchestration_id = ? AND at > ? AND at <= ?", (orchestration, since, until)


def last_of_each(db: sqlite3.Connection, kinds: Iterable[str], *, agent: int, until: int) -> list[Event]:
    """The last event of each of these kinds about an agent, up to and with a time; one seek in the index for each."""
    query = "SELECT * FROM events WHERE agent_id = ? AND kind = ? AND at <= ? ORDER BY at DESC, id DESC LIMIT 1"
    rows = (db.execute(query, (agent, kind, until)).fetchone() for kind in kinds)
    return [_event(row) for row in rows if row]


def of_kinds(db: sqlite3.Connection, kinds: Iterable[str], *, orchestration: str, until: int) -> list[Event]:
    """All events of these kinds about an orchestration, up to and with a time, in order of their times."""
    query = "SELECT * FROM events WHERE orchestration_id = ? AND kind = ? AND at <= ?"
    found = [_event(row) for kind in kinds for row in db.execute(query, (orchestration, kind, until))]
    return sorted(found, key=lambda event: (event.at, event.id))


def told_of_messages(db: sqlite3.Connection, messages: Sequence[int], *, until: int) -> list[tuple[int, str]]:
    """Message and kind of each event about these messages, up to and with a time, oldest first."""
    found: list[tuple[int, int, str]] = []
    for first in range(0, len(messages), 500):  # an SQLite of old takes 999 values
        part = messages[first : first + 500]
        marks = ", ".join("?" * len(part))
        query = f"SELECT id, message_id, kind FROM events WHERE message_id IN ({marks}) AND at <= ?"
        found += [tuple(row) for row in db.execute(query, (*part, until))]
    return [(message, kind) for _, message, kind in sorted(found)]


def newest(db: sqlite3.Connection, *kinds: str) -> Event | None:
    """The newest event of these kinds, whoever it is about; None when there is none. It may look at all events."""
    marks = ", ".join("?" * len(kinds))
    row = db.execute(f"SELECT * FROM events WHERE kind IN ({marks}) ORDER BY id DESC LIMIT 1", kinds).fetchone()
    return _event(row) if row else None


def _event(row: sqlite3.Row) -> Event:
    return Event(
        id=row["id"],
        at=row["at"],
        kind=row["kind"],
        orchestration_id=row["orchestration_id"],
        agent_id=row["agent_id"],
        message_id=row["message_id"],
        data=json.loads(row["data"]),
    )


def newest_event(db: sqlite3.Connection) -> int:
    """The id of the newest event; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def only(row: sqlite3.Row | None, sentence: str) -> sqlite3.Row:
    """A row that must be there: its absence is a bug and not an answer."""
    if row is None:
        raise OrchestratorError(sentence)
    return row
