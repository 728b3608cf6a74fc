"""What is known of each version of Claude Code: what its last probe has found, and whether a team may run by itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from lib import store
from lib.claude.installed import TESTED_VERSIONS, Installation
from lib.errors import NotFound, Unavailable
from lib.models import Program
from lib.records import dataclass

#: The command that finds out.
PROBE = "claude_control.py doctor --probe"
#: The command that has a version used all the same.
FORCE = "claude_control.py doctor --force"


@dataclass(frozen=True)
class Known:
    """The last probe of a version: when (UTC milliseconds), and the checks that failed, each with what was seen.

    `forced_at` is since when a person wants it used all the same, None when nobody does.
    """

    version: str
    at: int
    failed: tuple[tuple[str, str], ...]
    forced_at: int | None

    @property
    def names(self) -> str:
        """What failed, in one line."""
        return ", ".join(name for name, _ in self.failed)


def keep(db: sqlite3.Connection, version: str, failed: Sequence[tuple[str, str]], *, now: int) -> None:
    """Remember what a probe has found: the checks that failed, none when all hold.

    The last one of a version counts, and what a person has said of the one before does not.
    """
    with store.writing(db):
        db.execute(
            "INSERT INTO verdicts (version, at, failed) VALUES (?, ?, ?)"
            " ON CONFLICT (version) DO UPDATE SET at = excluded.at, failed = excluded.failed, forced_at = NULL",
            (version, now, json.dumps(list(failed), ensure_ascii=False)),
        )
        store.record(db, "claude.probed", now=now, version=version, failed=[name for name, _ in failed])


def of(db: sqlite3.Connection, version: str) -> Known | None:
    """The last probe of a version; None when it never was probed here."""
    row = db.execute("SELECT * FROM verdicts WHERE version = ?", (version,)).fetchone()
    if row is None:
        return None
    failed = tuple((str(name), str(said)) for name, said in json.loads(row["failed"]))
    return Known(row["version"], row["at"], failed, row["forced_at"])


def force(db: sqlite3.Connection, version: str, *, now: int) -> Known:
    """A person wants a version used by itself although its probe has failed. Raises `NotFound` when it has not."""
    known = of(db, version)
    if known is None or not known.failed:
        raise NotFound(f"no probe of Claude Code {version} has failed: nothing keeps it from being used")
    with store.writing(db):
        db.execute("UPDATE verdicts SET forced_at = ? WHERE version = ?", (now, version))
        store.record(db, "claude.forced", now=now, version=version, failed=[name for name, _ in known.failed])
    return known


def doubt(db: sqlite3.Connection, installation: Installation) -> str | None:
    """What a person should hear before a team runs on an installed Claude Code; None when nothing speaks against it."""
    if installation.program is Program.REHEARSAL:
        return None
    version = installation.version
    known = of(db, version)
    if known and known.failed:
        return f"Claude Code {version} does not do all that a team needs ({known.names}): {PROBE}"
    if known is None and version not in TESTED_VERSIONS:
        return f"Claude Code {version} is not known to this toolkit, and was not probed: {PROBE}"
    return None


def check_unattended(db: sqlite3.Connection, installation: Installation) -> None:
    """Raises `Unavailable` when nobody watches a run, and the last probe of its Claude Code has failed."""
    known = None if installation.program is Program.REHEARSAL else of(db, installation.version)
    if known and known.failed and known.forced_at is None:
        raise Unavailable(
            f"the probe of Claude Code {known.version} has failed ({known.names}), and nobody would watch this run",
            hint=f"{PROBE}; or use it all the same: {FORCE}",
        )
