"""Replay: what the daemon has decided is decided again, from what it was decided from (docs/replay.md)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lib import checkins, cron, decisions, store
from lib.decisions import Decision
from lib.judgement import choices, retries, stuck, thresholds
from lib.judgement.choices import Candidate
from lib.judgement.stuck import Signs, Told, Watched
from lib.models import BudgetStatus, CatchUp, CheckIn, CheckInStatus, LimitKind
from lib.records import dataclass

#: The events that are never without a decision.
TOLD_OF = (
    *("check_in.fired", "queue.started", "queue.failed", "queue.abandoned", "orchestration.reviving"),
    *("limit.hit", "limit.again", "limit.moved", "limit.tried", "agent.nudged", "agent.stuck"),
    *("budget.warned", "budget.spent", "budget.paused"),
)


class NotHere(Exception):
    """A decision that this machine cannot make again, with the reason."""


# -- each kind, again --


def _check_in(given: Mapping[str, Any]) -> object:
    fields = dict(given["check_in"])
    if fields["cron"] and cron.offset_minutes(fields["planned_at"]) != given["zone_minutes"]:
        raise NotHere(f"its clock was {given['zone_minutes']} minutes ahead of UTC, and this one is not: set TZ")
    fields["catch_up"] = CatchUp(fields["catch_up"])
    about: dict[str, Any] = {"target": "", "note": "", "if_changed": False, "seen": None, "attempts": 0, "reason": None}
    found = CheckIn(**fields, **about, status=CheckInStatus.SCHEDULED, fired_at=None)
    return checkins.as_decided(checkins.turn_of(found, given["now"]), given["why_skipped"])


def _queue(given: Mapping[str, Any]) -> object:
    candidates = [Candidate(**one) for one in given["candidates"]]
    return choices.next_entry(candidates, given["busy"], now=given["now"])


def _retry(given: Mapping[str, Any]) -> object:
    return retries.next_attempt(**given)


def _revival(given: Mapping[str, Any]) -> object:
    return retries.next_revival(given["revived_at"], now=given["now"])


def _limit(given: Mapping[str, Any]) -> object:
    return retries.next_trial(**{**given, "kind": LimitKind(given["kind"])})


def _trial(given: Mapping[str, Any]) -> object:
    return choices.first_to_try(given["patience"])


def _stuck(given: Mapping[str, Any]) -> object:
    before = Watched(**given["before"])
    before = replace(before, signs=Signs(**given["before"]["signs"]), told=Told(before.told))
    return stuck.watch(before, Signs(**given["signs"]), now=given["now"], stuck_ms=given["stuck_ms"]).told


def _budget(given: Mapping[str, Any]) -> object:
    return thresholds.next_status(**{**given, "status": BudgetStatus(given["status"])})


AGAIN: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "check_in": _check_in,
    "queue": _queue,
    "retry": _retry,
    "revival": _revival,
    "limit": _limit,
    "trial": _trial,
    "stuck": _stuck,
    "budget": _budget,
}


# -- all of them --


@dataclass(frozen=True)
class Different:
    """A decision that comes out otherwise: `now` is the other outcome, or the reason why it could not be made."""

    decision: Decision
    now: Any


@dataclass(frozen=True)
class Replay:
    """What deciding again has come to.

    `counts` are the decisions by kind, and `digest` stands for all their outcomes as they are now: two versions of this
    toolkit with the same digest of the same store decide alike. `different` are those that come out otherwise, and
    `not_made` those that this machine cannot make. `alone` are the ids of events that must have a decision and have
    none.
    """

    counts: dict[str, int]
    different: tuple[Different, ...]
    not_made: tuple[Different, ...]
    alone: tuple[int, ...]
    digest: str

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def replay(db: sqlite3.Connection, *, since: int, until: int) -> Replay:
    """Make the decisions of a stretch of time again (UTC milliseconds, both ends included); nothing is written."""
    counts: dict[str, int] = {}
    different: list[Different] = []
    not_made: list[Different] = []
    outcomes = hashlib.sha256()
    for one in decisions.between(db, since, until):
        counts[one.kind] = counts.get(one.kind, 0) + 1
        try:
            now = _again(one)
        except NotHere as reason:
            not_made.append(Different(one, str(reason)))
            continue
        if now != one.made:
            different.append(Different(one, now))
        outcomes.update(f"{one.id} {one.kind} {json.dumps(now, sort_keys=True)}\n".encode())
    return Replay(counts, tuple(different), tuple(not_made), _alone(db, since, until), outcomes.hexdigest())


def _again(one: Decision) -> object:
    make = AGAIN.get(one.kind)
    if make is None:
        raise NotHere(f"this version knows no decision of the kind {one.kind!r}")
    try:
        return json.loads(json.dumps(make(one.given)))
    except (KeyError, TypeError, ValueError) as error:  # of another version, which decided by other things
        raise NotHere(f"what it was decided from is not what this version decides by: {error}") from error


def _alone(db: sqlite3.Connection, since: int, until: int) -> tuple[int, ...]:
    """The events without a decision, since the first that was kept: an older store has none."""
    first = decisions.first_event(db)
    if first is None:
        return ()
    decided = decisions.of_events(db, since, until)
    found = store.events(db, kind=TOLD_OF, since=since, after=first, limit=-1)
    return tuple(event.id for event in found if event.at <= until and event.id not in decided)
