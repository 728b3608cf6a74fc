"""The limit of each account that agents of this host use, as the fleet has it.

The link writes it, and the governor asks here whether this host is the one that tries. Nothing here knows of NATS.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from lib import limits
from lib.config import HOST_FORM
from lib.fleet import members, totals
from lib.fleet.envelopes import Unreadable
from lib.judgement import canaries, cleaning
from lib.judgement.canaries import Claim, Move
from lib.models import Limit, LimitKind, Refusal
from lib.records import dataclass
from lib.store import record as record_event
from lib.store import writing

#: What concerns all hosts of an account. A login is a host's own, and an overloaded service is an agent's.
SHARED_KINDS = (LimitKind.FIVE_HOUR, LimitKind.WEEKLY, LimitKind.SPEND)
#: A host that has not reached the fleet for so long goes by what it knows.
ALONE_MS = 15_000
#: How soon the governor asks again, and how long what it has asked for counts.
_LOOK_MS, _ASKED_FOR_MS = 1_000, 5_000
#: Why a host tries by itself.
_AWAY, _NO_WORD = "the fleet cannot be reached", "no other host has found it over for long"
_MOST = 2**53
#: What a record may say of why an agent was refused.
_MOST_SAID = 300


class State(StrEnum):
    """How the limit of an account stands in the fleet."""

    HELD = "held"
    TRYING = "trying"
    OVER = "over"


class Asked(StrEnum):
    """What the scheduler wants of the link."""

    TRY = "try"
    NOBODY = "nobody"
    PASS = "pass"


_ASKS = {Move.CLAIM: Asked.TRY, Move.CLAIM_FOR_NOBODY: Asked.NOBODY, Move.PASS: Asked.PASS}


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an account's limit as it may be kept. Raises `Unreadable` for one that is none."""
    found = dict(record)
    try:
        found["state"] = State(str(record["state"]))
        found["kind"] = LimitKind(str(record["kind"]))
        is_sound = (
            found["kind"] in SHARED_KINDS
            and all(_is_count(record[name]) for name in ("tries", "round", "term", "at"))
            and (record["resets_at"] is None or _is_count(record["resets_at"]))
            and isinstance(record["said"], str)
            and _is_host(record["host"])
            and (record["trier"] is None or _is_host(record["trier"]))
        )
    except (KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise Unreadable("it is not the limit of an account")
    return found | {"said": cleaning.one_line(found["said"])[:_MOST_SAID]}


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def after(count: int) -> int:
    """The next of a count that any host may write: it begins anew before it is one that nobody takes."""
    return (count + 1) % _MOST


def _is_host(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(HOST_FORM, value) is not None


# -- the limit of an account --


@dataclass(frozen=True)
class Shared:
    """The limit of an account as the fleet has it (`record`, {} when there is none), and what this host makes of it.

    `revision` is the fleet's, heard of at `heard_at` (UTC milliseconds of this host's clock); `applied` the one that
    the limits here know of, with its `round`, which grows with each refusal. Since `trier_since` the same host tries.
    """

    account: str
    revision: int
    record: Mapping[str, Any]
    heard_at: int
    trier_since: int
    applied: int
    round: int
    asked: Asked | None
    asked_at: int | None

    @property
    def state(self) -> State:
        """How it stands; where there is none it is over."""
        return State(self.record.get("state", State.OVER))

    @property
    def refusal(self) -> Refusal:
        """What was refused, and until when."""
        told = self.record
        return Refusal(LimitKind(told["kind"]), str(told["said"]), told["resets_at"])

    def wants_of_link(self, now: int) -> Asked | None:
        """What the scheduler wants now; what it has wanted a while ago counts no more."""
        return self.asked if self.asked_at and 0 <= now - self.asked_at < _ASKED_FOR_MS else None

    def claim(self, me: str | None, now: int) -> Claim | None:
        """Who tries now, or None."""
        if self.state is not State.TRYING:
            return None
        return Claim(
            is_own=self.record["trier"] == me,
            is_for_nobody=bool(self.record.get("is_for_nobody")),
            silent_ms=now - self.heard_at,
            lasts_ms=now - self.trier_since,
        )


def shared(db: sqlite3.Connection, account: str) -> Shared:
    """The limit of an account, as this host has last heard of it."""
    row = db.execute("SELECT * FROM fleet_limits WHERE account = ?", (account,)).fetchone()
    if row is None:
        return Shared(account, 0, {}, 0, 0, 0, 0, None, None)
    asked = Asked(row["asked"]) if row["asked"] else None
    return Shared(**{**dict(row), "record": json.loads(row["record"]), "asked": asked})


def heard(db: sqlite3.Connection, account: str, revision: int, record: Mapping[str, Any], *, now: int) -> bool:
    """Keep what the fleet has of an account. Returns whether that is news."""
    with writing(db):
        before = shared(db, account)
        if revision <= before.revision:
            return False
        is_same = before.record.get("term") == record.get("term") and before.record.get("trier") == record.get("trier")
        db.execute(
            "INSERT INTO fleet_limits (account, revision, record, heard_at, trier_since, applied, round)"
            " VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)"
            " ON CONFLICT (account) DO UPDATE SET revision = ?2, record = ?3, heard_at = ?4, trier_since = ?5",
            (account, revision, json.dumps(record), now, before.trier_since if is_same else now),
        )
    return True


def begin_anew(db: sqlite3.Connection) -> None:
    """Forget what was heard, to hear all anew: a server that has lost what it kept begins its revisions anew."""
    db.execute("UPDATE fleet_limits SET revision = 0, applied = 0, record = '{}'")


def apply(db: sqlite3.Connection, found: Shared) -> None:
    """Record that the limits of this host know of what was heard."""
    known = int(found.record.get("round", found.round))
    db.execute(
        "UPDATE fleet_limits SET applied = ?, round = ? WHERE account = ?", (found.revision, known, found.account)
    )


def ask(db: sqlite3.Connection, account: str, asked: Asked | None, *, now: int) -> None:
    """Have the link do something about the limit of an account, or nothing."""
    db.execute(
        "INSERT INTO fleet_limits (account, revision, record, heard_at, trier_since, applied, round, asked, asked_at)"
        " VALUES (?1, 0, '{}', 0, 0, 0, 0, ?2, ?3) ON CONFLICT (account) DO UPDATE SET asked = ?2, asked_at = ?3",
        (account, asked, now),
    )


def leave(db: sqlite3.Connection) -> None:
    """Forget what the fleet has of the accounts, as this machine is no host of it any more."""
    with writing(db):
        db.execute("DELETE FROM fleet_limits")
        totals.leave(db)


# -- who tries --


class Others:
    """The other hosts of each account, for the governor (`governor.Others`)."""

    def __init__(self, db: sqlite3.Connection, home: Path, now: int) -> None:
        self._db, self._home, self._now = db, home, now

    def wait_until(self, limit: Limit, *, wants: bool) -> int | None:
        account = totals.account_of(self._db, limit.config_dir)
        if account is None:
            return None
        if self._tries_here(limit, account):
            return self._now + _LOOK_MS
        found, link = shared(self._db, account), members.link_state(self._db, self._home)
        trouble = found.record.get("trouble")
        is_alone = trouble is not None or is_cut_off(link, self._now)
        due_for_ms = self._now - (limit.look_at or self._now)
        claim = found.claim(members.own_name(self._db), self._now)
        move = canaries.next_move(claim, wants=wants, due_for_ms=due_for_ms, is_cut_off=is_alone)
        if move is Move.TRY:
            if not (claim and claim.is_own):
                self._note_alone(limit, trouble or (_AWAY if is_alone else _NO_WORD), wants=wants)
            return None
        # An agent of another folder of the same account may want what none of this one does.
        is_wanted = found.wants_of_link(self._now) is Asked.TRY
        if move is Move.CLAIM or (not is_wanted and (move in _ASKS or found.asked)):
            ask(self._db, account, _ASKS.get(move), now=self._now)
        return self._now + _LOOK_MS

    def _note_alone(self, limit: Limit, why: str, *, wants: bool) -> None:
        """Record that this host goes by what it knows itself."""
        if wants:
            record_event(self._db, "limit.alone", now=self._now, limit=limit.id, why=why)
        else:  # it is over here as nobody wants anything: that is nothing to tell others
            limits.note_told(self._db, limit, "over")

    def _tries_here(self, limit: Limit, account: str) -> bool:
        """Whether an agent of another folder of the same account tries on this host."""
        return any(
            one.id != limit.id and one.tried_at is not None and totals.account_of(self._db, one.config_dir) == account
            for one in limits.open_limits(self._db)
        )

    def turns(self, limit: Limit) -> tuple[int, int]:
        account, me = totals.account_of(self._db, limit.config_dir), members.own_name(self._db)
        if account is None or me is None:
            return 0, 1
        hosts = sorted({me, *totals.hosts_of(self._db, account)})
        return hosts.index(me), len(hosts)


def is_cut_off(link: members.LinkState | None, now: int) -> bool:
    """Whether the fleet could not be asked for a while; what begins again at once is not that."""
    if link is None:
        return True
    if link.is_connected(now):
        return False
    since = link.since if link.trouble else link.told_at
    return not 0 <= now - since < ALONE_MS
