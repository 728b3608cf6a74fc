"""The occurrences of a check-in that is due: which is told, which are left out and why, and which is the next."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from lib.models import CatchUp, CheckIn
from lib.records import dataclass

MINUTE_MS = 60_000
#: With catch_up all the newest so many of what was missed are told.
MOST_CAUGHT_UP = 24
#: Occurrences of a cron line are counted one by one, up to here.
_MOST_COUNTED = 1000

TOO_LATE = "later than its deadline"
MISSED = "missed, and the next has come too"
TOO_MANY = f"more than {MOST_CAUGHT_UP} were missed"


@dataclass(frozen=True)
class Left:
    """So many occurrences that are not told, and the reason."""

    reason: str
    count: int


@dataclass(frozen=True)
class Turn:
    """What becomes of a check-in that is due. Times are planned ones (UTC milliseconds).

    `told` is the occurrence to tell, None for none; it stands for `stands_for` ones. `next_at` is what comes then, None
    when that was the last.
    """

    told: int | None
    stands_for: int
    left: tuple[Left, ...]
    next_at: int | None


#: The first occurrence of a check-in after a time, None when there is none.
After = Callable[[int], int | None]


def due_at(check_in_id: int, planned_at: int, jitter_seconds: int) -> int:
    """When an occurrence is due: its jitter is the same whoever asks, and however often."""
    if not jitter_seconds:
        return planned_at
    return planned_at + zlib.crc32(f"{check_in_id} {planned_at}".encode()) % (jitter_seconds * 1000 + 1)


def on_grid(planned_at: int, interval_minutes: int, at: int) -> int:
    """The first time after `at` on the grid that goes through `planned_at`: minutes that pass, whatever clocks show."""
    step = interval_minutes * MINUTE_MS
    return planned_at + ((at - planned_at) // step + 1) * step


def turn(check_in: CheckIn, *, after: After, newest: After, now: int) -> Turn:
    """Decide about a check-in whose time has come.

    `newest(at)` is the occurrence from which on there are about `MOST_CAUGHT_UP` before `at`, None when there are
    fewer.
    """
    first = check_in.planned_at
    coming = _coming(check_in, after, now)
    if coming is None:  # once, or the last time of its line
        late = _is_too_late(check_in, first, now)
        return Turn(None if late else first, 0 if late else 1, (Left(TOO_LATE, 1),) if late else (), None)

    def count(start: int, end: int) -> int:
        return _count(check_in, start, end, after)

    if check_in.catch_up is CatchUp.SKIP and after(first) != coming:
        return Turn(None, 0, (Left(MISSED, count(first, coming)),), coming)
    left: list[Left] = []
    if check_in.deadline_minutes and _is_too_late(check_in, first, now):
        in_time = after(now - check_in.deadline_minutes * MINUTE_MS - 1)
        start = coming if in_time is None or in_time >= coming else in_time
        left.append(Left(TOO_LATE, count(first, start)))
        if start == coming:
            return Turn(None, 0, tuple(left), coming)
        first = start
    if check_in.catch_up is not CatchUp.ALL:
        return Turn(first, count(first, coming), tuple(left), coming)
    kept = newest(coming)
    if kept is not None and first < kept < coming:
        left.append(Left(TOO_MANY, count(first, kept)))
        first = kept
    return Turn(first, 1, tuple(left), after(first))


def _coming(check_in: CheckIn, after: After, now: int) -> int | None:
    """The first occurrence that is not yet due."""
    found = after(max(check_in.planned_at, now - check_in.jitter_seconds * 1000))
    while found is not None and due_at(check_in.id, found, check_in.jitter_seconds) <= now:
        found = after(found)
    return found


def _is_too_late(check_in: CheckIn, planned_at: int, now: int) -> bool:
    if check_in.deadline_minutes is None:
        return False
    meant_at = due_at(check_in.id, planned_at, check_in.jitter_seconds)
    return now - meant_at > check_in.deadline_minutes * MINUTE_MS


def _count(check_in: CheckIn, start: int, end: int, after: After) -> int:
    """How many occurrences there are from `start` on, which is one, to before `end`."""
    if check_in.interval_minutes:
        return (end - start) // (check_in.interval_minutes * MINUTE_MS)
    number, at = 0, start
    while at < end and number < _MOST_COUNTED:
        found = after(at)
        number, at = number + 1, end if found is None else found
    return number
