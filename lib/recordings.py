"""The recording: what agents' windows have shown and when, in an SQLite file of its own beside the store.

It is no state: nothing else depends on it, and a file that is lost or damaged is begun anew. A shot is what one window
showed from a time on. It is packed by itself, or by what it shares with an earlier shot of the same agent, its whole:
a screen on which only a clock has moved takes some 50 bytes.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lib import store
from lib.errors import Unavailable
from lib.models import AgentState
from lib.records import dataclass

#: So long after the last look of a run nothing is known any more: longer than any pause between two looks of a daemon.
GAP_MS = 3 * 60_000
#: A whole serves the shots of so long, and so many of them: what is pruned goes with its whole.
WHOLE_FOR_MS = 15 * 60_000
_WHOLE_FOR_SHOTS = 400
#: zlib looks no further back.
_DICTIONARY_BYTES = 32_768
#: How many rows one call removes, and how many pages it gives back to the disk: a few milliseconds.
PRUNED_AT_ONCE = 2_000
_PAGES_AT_ONCE = 500

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE runs ( -- of a recorder, without a longer pause between two of its looks
        id INTEGER PRIMARY KEY,
        began_at INTEGER NOT NULL,
        seen_at INTEGER NOT NULL -- its last look
    ) STRICT""",
    """CREATE TABLE shots ( -- what an agent's window showed from a time on
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL,
        agent_id INTEGER NOT NULL,
        at INTEGER NOT NULL,
        whole_id INTEGER, -- the shot that it is packed by; NULL when it is packed by itself
        columns INTEGER NOT NULL, -- of the pane
        rows INTEGER NOT NULL,
        state TEXT, -- what the agent did; NULL when it is not followed any more
        packed BLOB -- its text; NULL when it has no window
    ) STRICT""",
    "CREATE INDEX shots_of_agent ON shots (run_id, agent_id, at)",
    f"PRAGMA user_version = {_VERSION}",
)


@dataclass(frozen=True)
class Picture:
    """What a pane shows: its size in cells, and its rows with no other control sequences than those of colours."""

    columns: int
    rows: int
    text: str


@dataclass(frozen=True)
class Seen:
    """What was seen of an agent; `picture` is None when it had no window, `state` when it is not followed any more."""

    state: AgentState | None
    picture: Picture | None


@dataclass(frozen=True)
class Shot:
    """What was seen of an agent from `at` (UTC milliseconds) on, until its next shot."""

    at: int
    seen: Seen


def path_in(home: Path) -> Path:
    """The file of a state home."""
    return home / "screens.db"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether what SQLite says means that the file holds something else than it should."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(home: Path) -> Path:
    """Move a damaged file out of the way, in the place of one that was damaged before. Returns where it is now."""
    path = path_in(home)
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return aside


# -- writing --


@dataclass
class _Whole:
    """The shot that an agent's next ones are packed by."""

    id: int
    at: int
    content: bytes
    packed_bytes: int
    shots: int = 0


class Writer:
    """The file while somebody records into it: one at a time.

    All raise `sqlite3.Error` and `OSError` as they come; then it is to be closed.
    """

    def __init__(self, home: Path, *, now: int) -> None:
        """Open the file or make it, for this user alone, and begin a run."""
        self._path = path_in(home)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._path.chmod(0o600)
        self._inode = self._path.stat().st_ino
        # Nobody else writes: a lock that is in the way is a trouble to tell of, and nothing to wait for.
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=0.1)
        self._run = 0
        self._seen: dict[int, Seen] = {}
        self._wholes: dict[int, _Whole] = {}
        self._twentieths = 0
        try:
            self._prepare()
            self._begin_run(now)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        db, version = self._db, self._version()
        if version == 0:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        # Not FULL: after a power cut the last seconds of a recording may be missing, and none of it waits for the disk.
        db.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute("COMMIT")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it has the form {version}, and not {_VERSION}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _begin_run(self, now: int) -> None:
        self._run = int(
            self._db.execute("INSERT INTO runs (began_at, seen_at) VALUES (?, ?)", (now, now)).lastrowid or 0
        )
        self._looked_at = now
        self._seen, self._wholes = {}, {}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still the one at its path: a person may have removed it."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def add(self, seen: Mapping[int, Seen], *, now: int) -> int:
        """Record a look: what was seen of agents, by their ids. What has not changed takes nothing.

        An agent that is missing shows what it showed before. Returns how many shots that made.
        """
        if not 0 <= now - self._looked_at <= GAP_MS:  # the machine slept, or its clock was set
            self._begin_run(now)
        changed = {agent: one for agent, one in seen.items() if self._seen.get(agent) != one}
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("UPDATE runs SET seen_at = ? WHERE id = ?", (now, self._run))
            for agent, one in changed.items():
                self._append(agent, one, now)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._seen |= changed
        self._looked_at = now
        return len(changed)

    def last_seen(self, agent: int) -> Seen | None:
        """What was last recorded of an agent in this run; None for nothing."""
        return self._seen.get(agent)

    @property
    def followed(self) -> list[int]:
        """The agents of this run that have not been let go."""
        return [agent for agent, seen in self._seen.items() if seen.state is not None]

    def _append(self, agent: int, seen: Seen, now: int) -> None:
        picture = seen.picture
        content = picture.text.encode() if picture else None
        whole, packed = self._pack(agent, content, now)
        cursor = self._db.execute(
            "INSERT INTO shots (run_id, agent_id, at, whole_id, columns, rows, state, packed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(self._run, agent, now, whole.id if whole else None),
                *((picture.columns, picture.rows) if picture else (0, 0)),
                *(seen.state, packed),
            ),
        )
        if whole:
            whole.shots += 1
        elif content is not None and packed is not None:
            self._wholes[agent] = _Whole(int(cursor.lastrowid or 0), now, content, len(packed))
        else:
            self._wholes.pop(agent, None)

    def _pack(self, agent: int, content: bytes | None, now: int) -> tuple[_Whole | None, bytes | None]:
        """A text as it is kept, and the whole that it is packed by, if it is."""
        if content is None:
            return None, None
        whole = self._wholes.get(agent)
        if whole and now - whole.at < WHOLE_FOR_MS and whole.shots < _WHOLE_FOR_SHOTS:
            packer = zlib.compressobj(zdict=_dictionary(whole.content))
            packed = packer.compress(content) + packer.flush()
            if 2 * len(packed) < whole.packed_bytes:
                return whole, packed
        return None, zlib.compress(content)

    # -- pruning --

    def prune(self, *, now: int, days: float, most_bytes: int) -> bool:
        """Remove what is older than `days`, and the oldest of what is more than `most_bytes`; a bounded part of it.

        What still shows at the oldest time that is kept stays, so for an agent up to a quarter of an hour more. Returns
        whether there is more to do.
        """
        removed = self._remove_before(now - round(days * 86_400_000))
        if removed < PRUNED_AT_ONCE and self._used_bytes() > most_bytes:
            removed += self._remove_oldest()
        # As a script: execute() takes the first step of it, which is one page.
        self._db.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
        is_full = self._used_bytes() > most_bytes
        if not is_full:
            self._twentieths = 0
        return removed >= PRUNED_AT_ONCE or (is_full and self._twentieths < 20)

    def _used_bytes(self) -> int:
        pages, free, page_bytes = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * page_bytes

    def _remove_oldest(self) -> int:
        """Remove the first twentieth of the time that is recorded, and with each call one more."""
        row = self._db.execute("SELECT at FROM shots ORDER BY id LIMIT 1").fetchone()
        if row is None:
            return 0
        self._twentieths = min(self._twentieths + 1, 20)
        removed = self._remove_before(row[0] + (self._looked_at - row[0]) * self._twentieths // 20)
        if removed >= PRUNED_AT_ONCE:  # there is more of it
            self._twentieths -= 1
        return removed

    def _remove_before(self, cutoff: int) -> int:
        """Remove shots of runs that ended before a time, and of the others what does not show at it any more."""
        removed = self._db.execute(
            "DELETE FROM shots WHERE id IN (SELECT id FROM shots WHERE run_id IN"
            " (SELECT id FROM runs WHERE seen_at < ? AND id < ?) LIMIT ?)",
            (cutoff, self._run, PRUNED_AT_ONCE),
        ).rowcount
        if removed >= PRUNED_AT_ONCE:
            return removed
        self._db.execute("DELETE FROM runs WHERE seen_at < ? AND id < ?", (cutoff, self._run))
        for (run,) in self._db.execute("SELECT id FROM runs WHERE began_at <= ?", (cutoff,)).fetchall():
            removed += self._remove_from(run, cutoff)
        return removed

    def _remove_from(self, run: int, cutoff: int) -> int:
        removed = 0
        for agent in list(_agents_of(self._db, run)):
            shown = self._db.execute(
                "SELECT id, state FROM shots WHERE run_id = ? AND agent_id = ? AND at <= ? AND whole_id IS NULL"
                " ORDER BY at DESC, id DESC LIMIT 1",
                (run, agent, cutoff),
            ).fetchone()
            if removed >= PRUNED_AT_ONCE:
                break
            if shown:
                # An agent that was let go shows nothing: of it nothing stays.
                last = shown[0] if shown[1] is None else shown[0] - 1
                removed += self._db.execute(
                    "DELETE FROM shots WHERE id IN (SELECT id FROM shots WHERE run_id = ? AND agent_id = ?"
                    " AND at <= ? AND id <= ? LIMIT ?)",
                    (run, agent, cutoff, last, PRUNED_AT_ONCE),
                ).rowcount
        return removed


def _agents_of(db: sqlite3.Connection, run: int) -> Iterable[int]:
    """The agents of a run, one seek in the index for each."""
    agent = -1
    while row := db.execute(
        "SELECT agent_id FROM shots WHERE run_id = ? AND agent_id > ? ORDER BY agent_id LIMIT 1", (run, agent)
    ).fetchone():
        agent = int(row[0])
        yield agent


def _dictionary(content: bytes) -> bytes:
    return content[-_DICTIONARY_BYTES:]


# -- reading --


class Reader:
    """The file as others look at it, while somebody may write."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def at(self, agents: Sequence[int], moment: int) -> dict[int, Shot]:
        """What was last seen of each agent at a time (UTC milliseconds); an agent of which nothing is known is missing.

        Raises `Unavailable` when the file is damaged.
        """
        try:
            run = self._run_at(moment)
            found = {} if run is None else {agent: self._shot(run, agent, moment) for agent in agents}
        except (sqlite3.Error, zlib.error) as error:
            raise _unreadable(self._path, error) from error
        return {agent: shot for agent, shot in found.items() if shot}

    def _run_at(self, moment: int) -> int | None:
        row = self._db.execute(
            "SELECT id FROM runs WHERE began_at <= ? AND seen_at >= ? ORDER BY began_at DESC, id DESC LIMIT 1",
            (moment, moment - GAP_MS),
        ).fetchone()
        return None if row is None else int(row["id"])

    def _shot(self, run: int, agent: int, moment: int) -> Shot | None:
        row = self._db.execute(
            "SELECT * FROM shots WHERE run_id = ? AND agent_id = ? AND at <= ? ORDER BY at DESC, id DESC LIMIT 1",
            (run, agent, moment),
        ).fetchone()
        if row is None or row["state"] is None:
            return None
        state = AgentState(row["state"])
        if row["packed"] is None:
            return Shot(row["at"], Seen(state, None))
        text = self._text(row)
        return None if text is None else Shot(row["at"], Seen(state, Picture(row["columns"], row["rows"], text)))

    def _text(self, row: sqlite3.Row) -> str | None:
        """The text of a shot; None when its whole was pruned just now, and the shot is to go too."""
        if row["whole_id"] is None:
            return zlib.decompress(row["packed"]).decode()
        whole = self._db.execute("SELECT packed FROM shots WHERE id = ?", (row["whole_id"],)).fetchone()
        if whole is None:
            return None
        unpacker = zlib.decompressobj(zdict=_dictionary(zlib.decompress(whole["packed"])))
        return (unpacker.decompress(row["packed"]) + unpacker.flush()).decode()


def reader(home: Path) -> Reader | None:
    """The recording of a state home; None when there is none. Raises `Unavailable` when it cannot be read.

    Looking changes no file.
    """
    path = path_in(home)
    if not path.exists():
        return None
    try:
        db = store.open_read_only(path)
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
    except (sqlite3.Error, OSError) as error:
        raise _unreadable(path, error) from error
    if version != _VERSION:  # it is just being made, or of another version of this toolkit
        db.close()
        return None
    return Reader(db, path)


def _unreadable(path: Path, error: Exception) -> Unavailable:
    return Unavailable(
        f"the recording {path} cannot be read: {error}", hint=f"move it away, and a new one is begun: mv {path} /tmp/"
    )
