"""When to try again: pure decisions about failures, by counts and times (UTC milliseconds)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from lib.models import LimitKind

MINUTE_MS = 60_000
#: How much longer the pause is after each further failure of a spec.
_TIMES_LONGER = 6

#: A team that had to be started again so often within this time is in a crash loop.
CRASH_LOOP_REVIVALS = 5
CRASH_LOOP_MS = 15 * MINUTE_MS
#: The pause before the first revival of a while, and before each further one.
_REVIVAL_PAUSES_MS = (0, 5_000, 15_000, 45_000, 120_000)


#: How long after each refusal in a row an agent tries again that the service was too busy for.
_OVERLOAD_MINUTES = (1, 2, 5, 10, 15)


class Refused(TypedDict):
    """A refusal: of what kind, until when it says (UTC milliseconds), after how many trials that were refused too,
    when; after how long one tries that names no time; and how long after its time.
    """

    kind: LimitKind
    resets_at: int | None
    tries: int
    at: int
    again_ms: int
    grace_ms: int


def next_attempt(failures: int, *, max_attempts: int, first_pause_minutes: float, now: int) -> int | None:
    """When a spec that has failed so often is tried again; None when it has had its last attempt."""
    if failures >= max_attempts:
        return None
    return now + int(first_pause_minutes * MINUTE_MS * _TIMES_LONGER ** max(0, failures - 1))


def next_revival(revived_at: Sequence[int], *, now: int) -> int | None:
    """When a team of which something has ended may be started again; None when it is in a crash loop.

    `revived_at` are the times of its revivals since a person has last looked after it. One in the future is from
    before the clock was set back: nobody knows how long ago, and to wait for it could take days.
    """
    recent = sorted(at for at in revived_at if now - CRASH_LOOP_MS < at <= now)
    if len(recent) >= CRASH_LOOP_REVIVALS:
        return None
    return recent[-1] + _REVIVAL_PAUSES_MS[len(recent)] if recent else now


def next_trial(
    *, kind: LimitKind, resets_at: int | None, tries: int, at: int, again_ms: int, grace_ms: int
) -> int | None:
    """When one agent tries whether a limit is over; None when a person has to do something first (see `Refused`)."""
    if kind is LimitKind.OVERLOADED:
        return at + _OVERLOAD_MINUTES[min(tries, len(_OVERLOAD_MINUTES) - 1)] * MINUTE_MS
    if kind is LimitKind.LOGIN or (kind is LimitKind.SPEND and resets_at is None):
        return None
    if resets_at is None:
        return at + again_ms
    # A reset that lies behind us has not helped, or the clocks differ: each time a while longer.
    return max(resets_at + grace_ms, at + min(again_ms, grace_ms << min(tries, 20)))
