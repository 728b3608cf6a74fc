"""How long things take: what many durations come to, and what the events of a team say of its hand-overs."""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lib.models import Event
from lib.records import dataclass

#: The events that `of_lanes` reads.
KINDS = (
    *("branch.moved", "branch.handed_over", "branch.synced", "report.completion", "report.waiting"),
    *("message.acknowledged", "message.cancelled", "message.failed"),
)


@dataclass(frozen=True)
class Took:
    """How long something took: how often it happened, half of these, and the slowest (seconds; None when it never did).

    Seconds are rounded to tenths.
    """

    count: int
    median: float | None
    longest: float | None


@dataclass(frozen=True)
class LaneTimes:
    """The hand-overs from a role to its taker, each of them one message.

    `told` is from the oldest commit that a message tells of until the taker has acknowledged it, and `answered` from
    then until the taker's next commit or report. `not_arrived` counts the messages that still wait, `unanswered` those
    that neither has followed.
    """

    role: str
    taker: str
    told: Took
    answered: Took
    not_arrived: int
    unanswered: int


@dataclass(frozen=True)
class Spread:
    """What many durations come to: how many there are, and in which of them the 50th, 95th and 99th of 100 lie (ms).

    None when there is none. By nearest rank: each figure is one that was measured.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None


def spread(milliseconds: Iterable[float]) -> Spread:
    """The spread of durations in any order. One below zero, of a clock that was set back, counts as zero."""
    found = sorted(max(0.0, one) for one in milliseconds)
    p50, p95, p99 = (_at(found, share) for share in (0.5, 0.95, 0.99))
    return Spread(len(found), p50, p95, p99, longest=round(found[-1], 1) if found else None)


def _at(found: Sequence[float], share: float) -> float | None:
    return round(found[math.ceil(share * len(found)) - 1], 1) if found else None


def took(milliseconds: Sequence[int]) -> Took:
    """What durations come to. One below zero, of a clock that was set back, counts as zero."""
    seconds = [max(0, one) / 1000 for one in milliseconds]
    if not seconds:
        return Took(0, None, None)
    return Took(len(seconds), round(statistics.median(seconds), 1), round(max(seconds), 1))


def of_lanes(
    lanes: Iterable[tuple[str, str]], roles: Mapping[int, str], happened: Sequence[Event]
) -> tuple[LaneTimes, ...]:
    """The times of each lane (role, taker) by a team's events, in order of their ids; `roles` are by agents' ids.

    A message whose place a newer one has taken is no hand-over: the newer one tells of its commits too.
    """
    arrived = {one.message_id: one.at for one in happened if one.kind == "message.acknowledged"}
    dropped = {one.message_id for one in happened if one.kind in ("message.cancelled", "message.failed")}
    signs = _signs(roles, happened)
    told: defaultdict[tuple[str | None, object], list[Event]] = defaultdict(list)
    for one in happened:
        if one.kind == "branch.handed_over" and one.message_id not in dropped:
            told[roles.get(one.agent_id or 0), one.data["to"]].append(one)
    return tuple(_lane(role, taker, told[role, taker], arrived, signs[taker]) for role, taker in lanes)


def _lane(
    role: str, taker: str, told: Sequence[Event], arrived: Mapping[int | None, int], signs: Sequence[int]
) -> LaneTimes:
    ways: list[int] = []
    answers: list[int] = []
    for one in told:
        at, moved = arrived.get(one.message_id), one.data["moved"]
        if at is None or not isinstance(moved, int):
            continue
        ways.append(at - moved)
        if (place := bisect.bisect_left(signs, at)) < len(signs):
            answers.append(signs[place] - at)
    return LaneTimes(
        role=role,
        taker=taker,
        told=took(ways),
        answered=took(answers),
        not_arrived=len(told) - len(ways),
        unanswered=len(ways) - len(answers),
    )


def _signs(roles: Mapping[int, str], happened: Sequence[Event]) -> defaultdict[str | None, list[int]]:
    """When each role has committed or reported, oldest first."""
    reports = [one for one in happened if one.kind in ("report.completion", "report.waiting")]
    found: defaultdict[str | None, list[int]] = defaultdict(list)
    for at, agent_id in sorted((one.at, one.agent_id or 0) for one in [*_commits(happened), *reports]):
        found[roles.get(agent_id)].append(at)
    return found


def _commits(happened: Sequence[Event]) -> Iterator[Event]:
    """Where a branch came to a commit that was on none before: what it only took from others is none of its own."""
    known = {one.data.get("head") for one in happened if one.kind == "branch.synced"}
    for one in happened:
        if one.kind == "branch.moved" and one.data.get("new") not in known:
            known.add(one.data.get("new"))
            yield one
