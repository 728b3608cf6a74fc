"""Tidies the state home: rotates and removes old logs, and keeps the store's file small and its questions fast."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from lib import errands, host
from lib.errors import Busy
from lib.judgement.findings import OLD_MS, ROTATED_BYTES, is_vacuum_worth, size
from lib.records import dataclass

#: What we write below logs/; any other file there is somebody else's.
_OF_SCHEDULER = re.compile(r"(scheduler\.(?:log|out))(?:\.(\d{1,3}))?")
_OF_BUGS = re.compile(r"(bugs\.log)(?:\.(\d{1,3}))?")
_OF_ERRAND = re.compile(r"(notices|snapshots|radar|stop-spending|(?:merge|queue|launch)-[0-9a-f]+)\.out")
#: How many rotated files are kept of one.
_KEPT = 5


@dataclass(frozen=True)
class Cleaned:
    """What cleaning did, a sentence for each file, and how many bytes that freed."""

    freed_bytes: int
    told: tuple[str, ...]


def clean_logs(home: Path, *, now: int) -> Cleaned:
    """Rotate large logs, remove old ones. Nothing is lost that somebody writes meanwhile.

    Raises `Busy` when another cleans, and `OSError` when the files cannot be changed.
    """
    folder = home / "logs"
    if folder.is_symlink():
        return Cleaned(0, (f"{folder} is a link: left alone",))
    if not folder.is_dir():
        return Cleaned(0, (f"there are no logs yet in {home}",))
    with host.lock(home / "locks" / "tidying.lock", sentence="the logs are being cleaned already"):
        done = [*_clean(folder, _OF_BUGS, now), *_clean_errands(home, folder, now)]
        try:
            # The scheduler holds scheduler.log open and rotates it by itself: two who rename lose lines.
            with host.lock(home / "scheduler.lock", wait_seconds=0.2):
                done += _clean(folder, _OF_SCHEDULER, now)
        except Busy:
            done.append((0, "scheduler.log: left alone, the scheduler lives and rotates it by itself"))
    return Cleaned(sum(freed for freed, _ in done), tuple(said for _, said in done))


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The plain files of a folder that bear names of ours; links are none."""
    for path in sorted(folder.iterdir()):
        if any(pattern.fullmatch(path.name) for pattern in (_OF_SCHEDULER, _OF_BUGS, _OF_ERRAND)):
            with contextlib.suppress(FileNotFoundError):  # the scheduler has just rotated it
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    yield path, about


def _clean(folder: Path, names: re.Pattern[str], now: int) -> Iterator[tuple[int, str]]:
    """Remove rotated files that are old, then rotate what is large; who has it open writes on into the rotated file."""
    for path, about in list(files(folder)):
        found = names.fullmatch(path.name)
        if found and found[2] and now - about.st_mtime_ns // 1_000_000 > OLD_MS:
            path.unlink()
            yield about.st_size, f"{path.name}: removed, {size(about.st_size)} older than 30 days"
    for path, about in list(files(folder)):
        found = names.fullmatch(path.name)
        if found and not found[2] and about.st_size > ROTATED_BYTES:
            yield _rotate(path), f"{path.name}: rotated, {size(about.st_size)}"


def _rotate(path: Path) -> int:
    """Move a file to NAME.1, that one to NAME.2, and so on. Returns the bytes of the one that falls off the end."""
    numbered = [path.with_name(f"{path.name}.{number}") for number in range(1, _KEPT + 1)]
    # Only up to the first gap: no file is moved without need.
    there = next((place for place, one in enumerate(numbered) if not os.path.lexists(one)), _KEPT)
    freed = numbered[-1].lstat().st_size if there == _KEPT else 0
    for place in reversed(range(min(there, _KEPT - 1))):
        numbered[place].replace(numbered[place + 1])
    path.replace(numbered[0])
    return freed


def _clean_errands(home: Path, folder: Path, now: int) -> Iterator[tuple[int, str]]:
    for path, about in list(files(folder)):
        found = _OF_ERRAND.fullmatch(path.name)
        is_old = now - about.st_mtime_ns // 1_000_000 > OLD_MS
        if found and is_old and not errands.is_at_work(home, found[1]) and _remove_unchanged(path, about):
            yield about.st_size, f"{path.name}: removed, {size(about.st_size)} older than 30 days"


def _remove_unchanged(path: Path, seen: os.stat_result) -> bool:
    """Remove a file unless an errand has opened it since it was seen: that empties it, and is a change."""
    aside = path.with_name(f".{path.name}.aside")
    path.replace(aside)
    is_unchanged = aside.lstat().st_mtime_ns == seen.st_mtime_ns
    if not is_unchanged:
        with contextlib.suppress(FileExistsError):  # a later run of it has written another
            os.link(aside, path)
    aside.unlink()
    return is_unchanged


# -- the store --


def optimize(db: sqlite3.Connection, home: Path, *, is_quiet: bool) -> list[str]:
    """Let SQLite renew its statistics, bring its log into the database, and shrink that when it is worth it.

    `is_quiet` says that no scheduler and no agent lives. It waits for nobody: where somebody is in the
    way, that is left for another time. Returns what was done, in sentences.
    """
    waits = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 0")
    try:
        return [_renew_statistics(db), _vacuum(db, home, is_quiet=is_quiet), _checkpoint(db, is_quiet=is_quiet)]
    finally:
        db.execute(f"PRAGMA busy_timeout = {waits}")


def _is_in_the_way(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _renew_statistics(db: sqlite3.Connection) -> str:
    try:
        db.execute("PRAGMA optimize").fetchall()
    except sqlite3.OperationalError as error:
        if not _is_in_the_way(error):
            raise
        return "statistics: left alone, somebody writes"
    return "statistics: looked at, and renewed where it was due"


def _checkpoint(db: sqlite3.Connection, *, is_quiet: bool) -> str:
    kind = "TRUNCATE" if is_quiet else "PASSIVE"
    try:
        busy, pages, moved = db.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
    except sqlite3.OperationalError as error:
        if not _is_in_the_way(error):
            raise
        return "log: left alone, somebody writes"
    if kind == "TRUNCATE" and not busy:
        return "log: all of it is in the database, and the file is empty"
    return f"log: {moved} of {pages} pages are in the database; the file stays, somebody else is at work"


def _vacuum(db: sqlite3.Connection, home: Path, *, is_quiet: bool) -> str:
    pages, free, page_bytes = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    said = f"{size(free * page_bytes)} of {size(pages * page_bytes)} are free"
    if not is_vacuum_worth(pages, free, page_bytes):
        return f"vacuum: not worth it, {said}"
    if not is_quiet:
        return f"vacuum: left alone, {said}, but the scheduler or an agent lives"
    if shutil.disk_usage(home).free < 3 * pages * page_bytes:  # a copy, and the log of it
        return f"vacuum: left alone, {said}, but the disk has no room for a copy"
    try:
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if not _is_in_the_way(error):
            raise
        return f"vacuum: left alone, {said}, but somebody writes"
    left = int(db.execute("PRAGMA page_count").fetchone()[0]) * page_bytes
    return f"vacuum: {size(pages * page_bytes)} became {size(left)}"
