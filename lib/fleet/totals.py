"""Whose accounts the agents of this host use, and what each host has spent on one in a day of UTC, as it has told.

A host that is silent still counts. The link writes this, and budgets read it: nothing here knows of NATS.
"""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lib.fleet.envelopes import Unreadable
from lib.records import dataclass
from lib.store import writing

DAY_MS = 24 * 60 * 60_000
#: More than this no host has to tell, and no host spends.
_MOST_ACCOUNTS, _MOST_DAYS, _MOST_USD, _MOST_TOKENS = 64, 3, 1e9, 10**15


class Total(NamedTuple):
    """What was spent, in US dollars at list prices and in tokens."""

    usd: float
    tokens: int

    def and_also(self, other: Total) -> Total:
        """Both."""
        return Total(self.usd + other.usd, self.tokens + other.tokens)


NOTHING = Total(0.0, 0)


# -- whose accounts --


def use(db: sqlite3.Connection, found: Mapping[Path, str]) -> bool:
    """Keep which account each configuration folder uses. Returns whether another one is used than before."""
    if found == {folder: account for account, folders in accounts(db).items() for folder in folders}:
        return False
    with writing(db):
        db.execute("DELETE FROM fleet_accounts")
        db.executemany(
            "INSERT INTO fleet_accounts (config_dir, account) VALUES (?, ?)",
            [(str(folder), account) for folder, account in found.items()],
        )
    return True


def leave(db: sqlite3.Connection) -> None:
    """Forget all of it, as this machine is no host of a fleet any more."""
    with writing(db):
        db.execute("DELETE FROM fleet_accounts")
        db.execute("DELETE FROM fleet_totals")


def accounts(db: sqlite3.Connection) -> dict[str, list[Path]]:
    """The accounts of this host, each with its configuration folders."""
    found: dict[str, list[Path]] = {}
    for row in db.execute("SELECT account, config_dir FROM fleet_accounts ORDER BY config_dir"):
        found.setdefault(row["account"], []).append(Path(row["config_dir"]))
    return found


def account_of(db: sqlite3.Connection, config_dir: Path) -> str | None:
    """The account of a configuration folder; None where there is no fleet, or it is not known yet."""
    row = db.execute("SELECT account FROM fleet_accounts WHERE config_dir = ?", (str(config_dir),)).fetchone()
    return str(row[0]) if row else None


def folders_beside(db: sqlite3.Connection, config_dir: Path) -> list[Path]:
    """The configuration folders of the same account as this one, with it."""
    account = account_of(db, config_dir)
    return accounts(db)[account] if account else [config_dir]


# -- what was told --


@dataclass(frozen=True)
class Told:
    """What a host has told: of each account what it has spent on a day, or why that cannot be read (`trouble`)."""

    host: str
    spent: Mapping[str, Mapping[int, Total]]
    trouble: str | None = None
    #: Whether it is this host itself.
    is_own: bool = False


def day_of(at: int) -> int:
    """The beginning of the day of UTC that a time is in (UTC milliseconds)."""
    return at - at % DAY_MS


def packed(spent: Mapping[str, Mapping[int, Total]]) -> dict[str, object]:
    """What a host tells, as the fields of its record."""
    return {
        "spent": {
            account: {str(day): [round(total.usd, 4), total.tokens] for day, total in days.items()}
            for account, days in spent.items()
        }
    }


def checked(host: str, record: Mapping[str, Any], *, is_own: bool = False) -> Told:
    """What a host has told. Raises `Unreadable` for what no host spends."""
    try:
        spent = {
            account: {int(day): _total(*pair) for day, pair in days.items()}
            for account, days in record["spent"].items()
        }
        is_sound = (
            len(spent) <= _MOST_ACCOUNTS
            and all(len(days) <= _MOST_DAYS for days in spent.values())
            and all(re.fullmatch(r"[0-9a-f]{32}", account) for account in spent)
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        is_sound = False
    if not is_sound:
        raise Unreadable("what it tells of its spending cannot be read")
    return Told(host, spent, is_own=is_own)


def _total(usd: object, tokens: object) -> Total:
    if type(usd) not in (int, float) or type(tokens) is not int:
        raise ValueError("these are no amounts")
    assert isinstance(usd, int | float)
    if not (0 <= usd <= _MOST_USD and 0 <= tokens <= _MOST_TOKENS):
        raise ValueError("nobody spends that")
    return Total(float(usd), tokens)


def are(db: sqlite3.Connection, found: Collection[Told], *, now: int) -> None:
    """Keep what hosts have told, and forget the others: these are all that there are."""
    there = {one.host for one in found}
    with writing(db):
        heard(
            db, found, [row[0] for row in db.execute("SELECT host FROM fleet_totals") if row[0] not in there], now=now
        )


def heard(db: sqlite3.Connection, found: Iterable[Told], gone: Iterable[str] = (), *, now: int) -> None:
    """Keep what hosts have told, and forget those that were taken out of the fleet."""
    with writing(db):
        db.executemany("DELETE FROM fleet_totals WHERE host = ?", [(name,) for name in gone])
        db.executemany(
            "INSERT INTO fleet_totals (host, record, trouble, is_own, heard_at) VALUES (?, ?, ?, ?, ?)"
            # What cannot be read leaves what was told before: it was spent.
            " ON CONFLICT (host) DO UPDATE SET record = iif(excluded.trouble IS NULL, excluded.record, record),"
            " trouble = excluded.trouble, is_own = excluded.is_own, heard_at = excluded.heard_at",
            [(one.host, json.dumps(packed(one.spent)), one.trouble, one.is_own, now) for one in found],
        )


def every(db: sqlite3.Connection) -> list[Told]:
    """What all hosts have told, by name."""
    found = []
    for row in db.execute("SELECT host, record, trouble, is_own FROM fleet_totals ORDER BY host"):
        told = checked(row["host"], json.loads(row["record"]), is_own=bool(row["is_own"]))
        found.append(replace(told, trouble=row["trouble"]))
    return found


def here(db: sqlite3.Connection, account: str, day: int) -> Total:
    """What this host has told that it spent on an account on a day."""
    return _of(db, account, day, is_own=True)


def elsewhere(db: sqlite3.Connection, account: str | None, day: int) -> Total:
    """What the other hosts have spent on an account on a day; nothing on none."""
    return _of(db, account, day, is_own=False) if account else NOTHING


def _of(db: sqlite3.Connection, account: str, day: int, *, is_own: bool) -> Total:
    told = (one.spent.get(account, {}).get(day, NOTHING) for one in every(db) if one.is_own is is_own)
    return functools.reduce(Total.and_also, told, NOTHING)


def hosts_of(db: sqlite3.Connection, account: str) -> list[str]:
    """The hosts whose agents use an account, by name."""
    return [one.host for one in every(db) if account in one.spent]


def heard_at(db: sqlite3.Connection) -> int:
    """When another host has told last (UTC milliseconds); 0 when none has."""
    row = db.execute("SELECT coalesce(max(heard_at), 0) FROM fleet_totals WHERE NOT is_own").fetchone()
    return int(row[0])
