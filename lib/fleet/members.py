"""The hosts of the fleet as this one has last heard of them, what is ordered of them, and how its own link stands.

The link writes this, and doors read it: nothing here knows of NATS.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from lib import agents, errands, messages
from lib.errors import NotFound
from lib.fleet import outbox
from lib.fleet.envelopes import Unreadable
from lib.judgement import cleaning
from lib.records import dataclass
from lib.status import ago
from lib.store import writing

#: How often a host tells of itself, and in which fleet; in a larger one less often, so that nobody hears more.
HEARTBEAT_SECONDS, MOST_AT_FULL_PACE = 5.0, 25
#: The pace of the largest fleet.
_SLOWEST_SECONDS = 300.0
#: A host that was not heard for three heartbeats is told as not seen: more is not known of it.
_HEARTBEATS_UNTIL_UNSEEN = 3
#: So is this host's own link, which tells the store every HEARTBEAT_SECONDS.
SEEN_MS = 15_000
#: A clock that is off by more than this is told: leases and times in reports are read by it.
SKEW_MS = 5_000
#: How much free memory an agent is given room for: a Claude Code takes some hundred MB.
MB_FOR_AN_AGENT = 500
#: The errand that is the link.
LINK = "fleet-link"
#: What waits in the outbox: an order to a host.
ORDER = "order"


class Standing(StrEnum):
    """What is ordered of a host: to work, to take nothing new, or to give back what it has as well."""

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"


#: What every record has, and of which kind. What else is in one is of a newer version.
_FIELDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("at", "agents", "capacity", "cpus", "memory_free_mb", "entries"), (int, "a whole number")),
    **dict.fromkeys(("labels", "teams"), (list, "a list")),
    "load": ((int, float), "a number"),
    "version": (str, "text"),
}


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it may be kept and shown: its texts in one line. Raises `Unreadable` for one that is none."""
    for name, (kind, words) in _FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise Unreadable(f"what it tells of itself cannot be read: {name} is not {words}")
    return {name: _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return cleaning.one_line(value)
    if isinstance(value, dict):
        return {_plain(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Sighting:
    """What a host has told of itself: its record, or why that cannot be read (`trouble`)."""

    name: str
    record: Mapping[str, Any]
    seen_at: int
    skew_ms: int
    trouble: str | None = None


@dataclass(frozen=True)
class Member:
    """A host of the fleet. `wanted` is an order to it that is still on its way; None when there is none."""

    name: str
    record: Mapping[str, Any]
    seen_at: int
    skew_ms: int
    trouble: str | None
    standing: Standing
    wanted: Standing | None

    @property
    def agents(self) -> int:
        """How many agents run there."""
        return int(self.record.get("agents", 0))

    @property
    def capacity(self) -> int:
        """How many agents may run there."""
        return int(self.record.get("capacity", 0))

    @property
    def free(self) -> int:
        """For how many agents there is room: by its capacity, and by its memory."""
        if self.standing is not Standing.OPEN:
            return 0
        by_memory = int(self.record.get("memory_free_mb", 0)) // MB_FOR_AN_AGENT
        return max(0, min(self.capacity - self.agents, by_memory))

    def is_seen(self, now: int) -> bool:
        """Whether it was heard lately; not that it is gone when it was not."""
        return now - self.seen_at <= _HEARTBEATS_UNTIL_UNSEEN * self._every_seconds * 1000

    @property
    def _every_seconds(self) -> float:
        """How often it tells of itself, as it says; one of an older version does not say it."""
        said = self.record.get("every_seconds")
        if type(said) not in (int, float):
            return HEARTBEAT_SECONDS
        return min(max(float(said or 0), HEARTBEAT_SECONDS), _SLOWEST_SECONDS)

    def seen(self, now: int) -> str:
        """When it was heard last, in words."""
        age = ago(now - self.seen_at)
        return f"seen {age} ago" if self.is_seen(now) else f"not seen for {age}"

    @property
    def skew(self) -> str | None:
        """How far its clock is off, in words; None when it is not."""
        if abs(self.skew_ms) <= SKEW_MS:
            return None
        return f"its clock is {ago(abs(self.skew_ms))} {'ahead of' if self.skew_ms > 0 else 'behind'} this host's"

    def as_data(self, now: int) -> dict[str, object]:
        """The same for --json."""
        return {
            **{"name": self.name, "seen_at": self.seen_at, "is_seen": self.is_seen(now), "skew_ms": self.skew_ms},
            **{"standing": self.standing, "wanted": self.wanted, "free": self.free, "trouble": self.trouble},
            **{"record": dict(self.record)},
        }


@dataclass(frozen=True)
class LinkState:
    """How the link of this host stands: connected since a time, or not, with the reason and the next step."""

    host: str | None
    url: str
    since: int
    told_at: int
    trouble: str | None
    hint: str | None
    is_running: bool

    def is_connected(self, now: int) -> bool:
        """Whether it runs, and has said lately that it is connected."""
        return self.is_running and self.trouble is None and now - self.told_at <= SEEN_MS

    def sentence(self, now: int) -> str:
        """The same in words."""
        if not self.is_running:
            return f"the link to {self.url} does not run"
        if self.trouble:
            return f"not connected to {self.url} since {ago(now - self.since)}: {self.trouble}"
        if not self.is_connected(now):
            return f"the link to {self.url} has said nothing for {ago(now - self.told_at)}"
        return f"connected to {self.url} as {self.host} since {ago(now - self.since)}"

    @property
    def next_step(self) -> str | None:
        """What to do when it is not connected."""
        return self.hint if self.is_running else "scheduler.py --daemon"


def no_fleet() -> NotFound:
    """Why there is nothing to tell of a fleet."""
    return NotFound(
        "this machine is of no fleet: it works alone",
        hint="scheduler.py --fleet-init founds one, docs/fleet.md tells how",
    )


# -- hosts --


def every(db: sqlite3.Connection) -> list[Member]:
    """All hosts that are known, by name."""
    wanted = wanted_orders(db)
    rows = db.execute(
        "SELECT name, record, seen_at, skew_ms, trouble, coalesce(standing, 'open') AS standing FROM fleet_hosts"
        " LEFT JOIN fleet_orders ON host = name ORDER BY name"
    )
    return [
        Member(
            name=row["name"],
            record=json.loads(row["record"]),
            seen_at=row["seen_at"],
            skew_ms=row["skew_ms"],
            trouble=row["trouble"],
            standing=Standing(row["standing"]),
            wanted=wanted.get(row["name"]),
        )
        for row in rows
    ]


def heartbeat_seconds(hosts: int) -> float:
    """How often each host of a fleet of so many tells of itself."""
    return min(max(HEARTBEAT_SECONDS, HEARTBEAT_SECONDS * hosts / MOST_AT_FULL_PACE), _SLOWEST_SECONDS)


def own_heartbeat_seconds(db: sqlite3.Connection) -> float:
    """How often this host tells of itself, by the hosts that it knows."""
    return heartbeat_seconds(int(db.execute("SELECT count(*) FROM fleet_hosts").fetchone()[0]))


def are(db: sqlite3.Connection, found: Collection[Sighting], *, now: int) -> None:
    """Keep what hosts have told of themselves, and forget the others: these are all that there are."""
    there = {one.name for one in found}
    with writing(db):
        saw(db, found, [row[0] for row in db.execute("SELECT name FROM fleet_hosts") if row[0] not in there], now=now)


def saw(db: sqlite3.Connection, found: Iterable[Sighting], gone: Iterable[str] = (), *, now: int) -> None:
    """Keep what hosts have told of themselves, and forget those that were taken out of the fleet."""
    with writing(db):
        # A time that is to come was kept before the clock was set back.
        db.execute("UPDATE fleet_hosts SET seen_at = ?1 WHERE seen_at > ?1", (now,))
        db.executemany("DELETE FROM fleet_hosts WHERE name = ?", [(name,) for name in gone])
        db.executemany(
            "INSERT INTO fleet_hosts (name, record, trouble, seen_at, skew_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET record = excluded.record, trouble = excluded.trouble,"
            " seen_at = excluded.seen_at, skew_ms = excluded.skew_ms",
            [(one.name, json.dumps(one.record), one.trouble, min(now, one.seen_at), one.skew_ms) for one in found],
        )


def is_known(db: sqlite3.Connection, name: str) -> bool:
    """Whether a host belongs to the fleet, as far as this one has heard."""
    return db.execute("SELECT 1 FROM fleet_hosts WHERE name = ?", (name,)).fetchone() is not None


def teams_of(db: sqlite3.Connection, project: str) -> list[tuple[str, str]]:
    """Where other hosts work on projects whose folder has this name, as they tell: host and session."""
    own = own_name(db)
    return [
        (one.name, str(team.get("session")))
        for one in (every(db) if own else ())
        for team in one.record.get("teams", ())
        if one.name != own and isinstance(team, dict) and team.get("project") == project
    ]


# -- orders --


def standing_of(db: sqlite3.Connection, host: str) -> Standing:
    """What is ordered of a host, as far as it is known here."""
    row = db.execute("SELECT standing FROM fleet_orders WHERE host = ?", (host,)).fetchone()
    return Standing(row[0]) if row else Standing.OPEN


def heard_order(db: sqlite3.Connection, host: str, standing: Standing) -> None:
    """Keep what is ordered of a host."""
    with writing(db):
        db.execute(
            "INSERT INTO fleet_orders (host, standing) VALUES (?, ?)"
            " ON CONFLICT (host) DO UPDATE SET standing = excluded.standing",
            (host, str(standing)),
        )


def order(db: sqlite3.Connection, host: str, standing: Standing, *, now: int) -> int:
    """Queue an order to a host. Returns its id in the outbox."""
    return outbox.add(db, ORDER, {"host": host, "standing": standing, "at": now}, now=now)


def wanted_orders(db: sqlite3.Connection) -> dict[str, Standing]:
    """The orders that are on their way, by host."""
    return {str(one.body["host"]): Standing(str(one.body["standing"])) for one in outbox.waiting(db, ORDER)}


# -- the link --


def is_linked(db: sqlite3.Connection) -> bool:
    """Whether this machine has been linked to a fleet, and not left it."""
    return db.execute("SELECT 1 FROM fleet_link").fetchone() is not None


def own_name(db: sqlite3.Connection) -> str | None:
    """By which name the fleet knows this host; None until it has been connected."""
    row = db.execute("SELECT host FROM fleet_link").fetchone()
    return row[0] if row else None


def leave(db: sqlite3.Connection, *, now: int) -> None:
    """Forget the fleet that this machine is no host of any more. Nothing is written where there is none."""
    if is_linked(db):
        with writing(db):
            for message in [one for host in messages.hosts_written_to(db) for one in messages.pending_at(db, host)]:
                reason = "this machine is of no fleet any more"
                messages.fail(db, message, agents.get(db, message.agent_id), reason, now=now)
            db.execute("DELETE FROM fleet_link")
            db.execute("DELETE FROM fleet_hosts")
            db.execute("DELETE FROM fleet_orders")


def link_state(db: sqlite3.Connection, home: Path) -> LinkState | None:
    """How the link stands; None when it has never run."""
    row = db.execute("SELECT host, url, since, told_at, trouble, hint FROM fleet_link").fetchone()
    return LinkState(**dict(row), is_running=errands.is_at_work(home, LINK)) if row else None


def tell_link(
    db: sqlite3.Connection,
    url: str,
    *,
    host: str | None = None,
    trouble: str | None = None,
    hint: str | None = None,
    now: int,
) -> None:
    """Say how the link stands: `trouble` is why it is not connected. Since when is kept while that is as it was."""
    with writing(db):
        db.execute(
            "INSERT INTO fleet_link (id, host, url, since, told_at, trouble, hint) VALUES (1, ?1, ?2, ?3, ?3, ?4, ?5)"
            " ON CONFLICT (id) DO UPDATE SET host = coalesce(excluded.host, host), url = excluded.url,"
            " since = CASE WHEN (trouble IS NULL) = (excluded.trouble IS NULL) THEN since ELSE excluded.since END,"
            " told_at = excluded.told_at, trouble = excluded.trouble, hint = excluded.hint",
            (host, url, now, trouble, hint),
        )
