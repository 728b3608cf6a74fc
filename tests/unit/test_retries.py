"""When something is tried again, as tables: minutes and seconds from a time that is now."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from lib.judgement import retries

NOW = 1_800_000_000_000
SECOND = 1000
MINUTE = retries.MINUTE_MS


@pytest.mark.parametrize(
    ("failures", "most", "first_minutes", "in_minutes"),
    [
        # The pauses of the defaults: 5 minutes, half an hour.
        (1, 3, 5, 5),
        (2, 3, 5, 30),
        # The last attempt has failed, or more have than are allowed by now.
        (3, 3, 5, None),
        (7, 3, 5, None),
        (1, 1, 5, None),
        # With more attempts they grow on.
        (3, 4, 5, 180),
        (4, 5, 5, 1080),
        # A pause of less than a minute, and none.
        (1, 3, 0.5, 0.5),
        (2, 3, 0.5, 3),
        (1, 3, 0, 0),
        # It has not failed at all: nothing is waited for longer than the first pause.
        (0, 3, 5, 5),
    ],
)
def test_when_a_spec_is_tried_again(failures: int, most: int, first_minutes: float, in_minutes: float | None) -> None:
    at = retries.next_attempt(failures, max_attempts=most, first_pause_minutes=first_minutes, now=NOW)
    assert at == (None if in_minutes is None else NOW + round(in_minutes * MINUTE))


@pytest.mark.parametrize(
    ("seconds_ago", "in_seconds"),
    [
        # The first of a while comes at once.
        ([], 0),
        ([15 * 60], 0),
        ([3600, 1800, 901], 0),
        # Each further one later after the one before.
        ([0], 5),
        ([2], 3),
        ([5, 0], 15),
        ([20, 15, 0], 45),
        ([65, 60, 45, 0], 120),
        # The pause is over: at once, and that time is not in the future.
        ([60], -55),
        # Five are a crash loop, in whatever order the times come.
        ([185, 180, 165, 120, 0], None),
        ([0, 120, 165, 180, 185], None),
        ([899, 800, 700, 600, 500], None),
        ([5, 4, 3, 2, 1, 0], None),
        # The oldest of five has just left the window.
        ([900, 800, 700, 600, 500], -380),
        # The clock was set back: what lies in the future tells nothing of now, and holds nothing up.
        ([-3600], 0),
        ([-1, -2, -3, -4, -5, -6], 0),
        ([-86_400, 0], 5),
        # The clock was set forward: all is long ago.
        ([86_400] * 5, 0),
    ],
)
def test_when_a_team_is_started_again(seconds_ago: Sequence[int], in_seconds: int | None) -> None:
    at = retries.next_revival([NOW - ago * SECOND for ago in seconds_ago], now=NOW)
    assert at == (None if in_seconds is None else NOW + in_seconds * SECOND)


def test_a_team_that_ends_at_once_each_time_is_started_five_times_within_the_window() -> None:
    revived: list[int] = []
    now = NOW
    while (at := retries.next_revival(revived, now=now)) is not None:
        now = max(now, at)
        revived.append(now)
    assert len(revived) == retries.CRASH_LOOP_REVIVALS == 5
    assert revived[-1] - revived[0] < retries.CRASH_LOOP_MS == 15 * MINUTE
    assert [after - before for before, after in itertools.pairwise(revived)] == [5000, 15000, 45000, 120000]


def test_one_that_ends_now_and_then_is_started_for_ever() -> None:
    revived: list[int] = []
    for number in range(100):
        now = NOW + number * 4 * MINUTE
        assert retries.next_revival(revived, now=now) is not None
        revived.append(now)
