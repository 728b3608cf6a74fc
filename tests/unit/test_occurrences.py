"""What becomes of a check-in that is due: tables of values, in minutes since its first time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.judgement import occurrences
from lib.judgement.occurrences import MINUTE_MS, MISSED, MOST_CAUGHT_UP, TOO_LATE, TOO_MANY, Turn
from lib.models import CatchUp, CheckIn, CheckInStatus

START = 1_700_000_000_000
STEP = 30


def at(minutes: float) -> int:
    return START + int(minutes * MINUTE_MS)


def a_check_in(
    *, catch_up: CatchUp = CatchUp.ONCE, deadline: int | None = None, jitter: int = 0, interval: int | None = STEP
) -> CheckIn:
    """One whose time came at minute 0."""
    return CheckIn(
        id=1,
        agent_id=1,
        target="webapp-impl:developer",
        note="look",
        planned_at=START,
        due_at=occurrences.due_at(1, START, jitter),
        decided_at=START - STEP * MINUTE_MS,
        interval_minutes=interval,
        cron=None,
        catch_up=catch_up,
        deadline_minutes=deadline,
        jitter_seconds=jitter,
        if_changed=False,
        seen=None,
        status=CheckInStatus.SCHEDULED,
        attempts=0,
        reason=None,
        fired_at=None,
    )


def turn(check_in: CheckIn, now: float) -> Turn:
    interval = check_in.interval_minutes

    def after(time: int) -> int | None:
        return occurrences.on_grid(START, interval, time) if interval else None

    def newest(end: int) -> int | None:
        return end - MOST_CAUGHT_UP * interval * MINUTE_MS if interval else None

    return occurrences.turn(check_in, after=after, newest=newest, now=at(now))


@dataclass(frozen=True)
class Row:
    """A check-in every 30 minutes whose time was at 0, looked at `now` minutes later."""

    catch_up: CatchUp
    deadline: int | None
    now: float
    told: int | None
    stands_for: int
    left: tuple[tuple[str, int], ...]
    next: int


ONCE, SKIP, ALL = CatchUp
TURNS = [
    # In time, and late by less than an interval: all three are the same.
    *[Row(catch_up, None, now, 0, 1, (), 30) for catch_up in CatchUp for now in (0, 0.1, 29.9)],
    # The next has come too, at its very time.
    Row(ONCE, None, 30, 0, 2, (), 60),
    Row(SKIP, None, 30, None, 0, ((MISSED, 2),), 60),
    Row(ALL, None, 30, 0, 1, (), 30),
    # A downtime of two hours.
    Row(ONCE, None, 125, 0, 5, (), 150),
    Row(SKIP, None, 125, None, 0, ((MISSED, 5),), 150),
    Row(ALL, None, 125, 0, 1, (), 30),
    # Within its deadline, on its edge, and past it.
    Row(ONCE, 20, 19, 0, 1, (), 30),
    Row(ONCE, 20, 20, 0, 1, (), 30),
    Row(ONCE, 20, 20.1, None, 0, ((TOO_LATE, 1),), 30),
    Row(SKIP, 20, 20.1, None, 0, ((TOO_LATE, 1),), 30),
    Row(ALL, 20, 20.1, None, 0, ((TOO_LATE, 1),), 30),
    # Of what was missed, that which is within its deadline is told.
    Row(ONCE, 45, 125, 90, 2, ((TOO_LATE, 3),), 150),
    Row(ONCE, 20, 125, 120, 1, ((TOO_LATE, 4),), 150),
    Row(ONCE, 20, 145, None, 0, ((TOO_LATE, 5),), 150),
    Row(ALL, 45, 125, 90, 1, ((TOO_LATE, 3),), 120),
    Row(SKIP, 20, 125, None, 0, ((MISSED, 5),), 150),
    # All is bounded, so that a week away is no flood.
    Row(ALL, None, 30 * 23, 0, 1, (), 30),
    Row(ALL, None, 30 * 24, 30, 1, ((TOO_MANY, 1),), 60),
    Row(ALL, None, 30 * 336, 30 * 313, 1, ((TOO_MANY, 313),), 30 * 314),
    Row(ALL, 1200, 30 * 336, 30 * 313, 1, ((TOO_LATE, 296), (TOO_MANY, 17)), 30 * 314),
    Row(ONCE, None, 30 * 336 + 5, 0, 337, (), 30 * 337),
]


@pytest.mark.parametrize("row", TURNS, ids=str)
def test_what_becomes_of_one_that_comes_every_half_hour(row: Row) -> None:
    found = turn(a_check_in(catch_up=row.catch_up, deadline=row.deadline), row.now)
    assert (found.told, found.stands_for) == (None if row.told is None else at(row.told), row.stands_for)
    assert tuple((left.reason, left.count) for left in found.left) == row.left
    assert found.next_at == at(row.next)


@pytest.mark.parametrize(
    ("deadline", "now", "told"),
    [
        (None, 0, True),
        # However late: a note of a person is not lost.
        (None, 10_000, True),
        (60, 60, True),
        (60, 60.1, False),
    ],
)
def test_what_becomes_of_one_that_comes_once(deadline: int | None, now: float, told: bool) -> None:
    found = turn(a_check_in(deadline=deadline, interval=None), now)
    assert found.told == (START if told else None)
    assert [left.reason for left in found.left] == ([] if told else [TOO_LATE])
    assert found.next_at is None


class TestJitter:
    def test_it_is_the_same_whoever_asks(self) -> None:
        assert {occurrences.due_at(7, START, 600) for _ in range(10)} == {START + 92_069}

    def test_it_is_spread_over_check_ins_and_times(self) -> None:
        of_ids = [occurrences.due_at(number, START, 60) - START for number in range(1000)]
        of_times = [occurrences.due_at(1, at(30 * number), 60) - at(30 * number) for number in range(1000)]
        for found in (of_ids, of_times):
            assert 0 <= min(found) < 3_000 and 57_000 < max(found) <= 60_000
            assert 25_000 < sum(found) / len(found) < 35_000

    def test_without_it_the_time_is_the_planned_one(self) -> None:
        assert occurrences.due_at(7, START, 0) == START

    def test_the_next_has_not_come_before_its_jitter_is_over(self) -> None:
        check_in = a_check_in(jitter=1700)
        coming = occurrences.due_at(1, at(STEP), 1700)
        before = turn(check_in, (coming - 1 - START) / MINUTE_MS)
        assert (before.stands_for, before.next_at) == (1, at(30))
        assert turn(check_in, (coming + 1 - START) / MINUTE_MS).next_at == at(60)

    def test_a_deadline_counts_from_when_it_was_due(self) -> None:
        check_in = a_check_in(jitter=1700, deadline=1)
        assert turn(check_in, (check_in.due_at - START) / MINUTE_MS).told == START
        assert turn(check_in, (check_in.due_at - START) / MINUTE_MS + 1.1).told is None


@given(
    now=st.integers(0, 20_000),
    catch_up=st.sampled_from(CatchUp),
    deadline=st.none() | st.integers(1, 500),
    jitter=st.integers(0, STEP * 60 - 1),
)
def test_every_occurrence_is_told_or_left_out_once(
    now: int, catch_up: CatchUp, deadline: int | None, jitter: int
) -> None:
    check_in = a_check_in(catch_up=catch_up, deadline=deadline, jitter=jitter)
    now = max(now, (check_in.due_at - START) // MINUTE_MS + 1)
    found = turn(check_in, now)
    assert found.next_at is not None and found.next_at > START
    counted = found.stands_for + sum(left.count for left in found.left)
    assert counted == (found.next_at - START) // (STEP * MINUTE_MS)
    if catch_up is not CatchUp.ALL:
        assert occurrences.due_at(1, found.next_at, jitter) > at(now), "one look is enough"
