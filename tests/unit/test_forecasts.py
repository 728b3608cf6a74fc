"""What is said of the future, and when nothing is."""

from __future__ import annotations

import pytest

from lib.judgement import forecasts
from lib.judgement.forecasts import HOUR_MS, MINUTE_MS, QUARTER_MS, Pace, Waiting

NOW = 1_795_867_200_000  # at a quarter
BUDGET = "the budget of $20.00"


def clock(at: int) -> str:
    """Minutes from now, as a clock of a test shows them."""
    return f"+{(at - NOW) / MINUTE_MS:g}"


@pytest.mark.parametrize(
    ("used", "pace", "until", "expected"),
    [
        (10.0, Pace(5, 60, 20), None, f"at this rate {BUDGET} is used up at +120"),
        (19.5, Pace(30, 60, 20), None, f"at this rate {BUDGET} is used up at +1"),
        (10.0, Pace(5, 60, 20), NOW + 119 * MINUTE_MS, f"at this rate {BUDGET} lasts until +119, when it begins anew"),
        (10.0, Pace(5, 60, 20), NOW + 121 * MINUTE_MS, f"at this rate {BUDGET} is used up at +120"),
        (20.0, Pace(5, 60, 20), None, f"{BUDGET} is used up"),
        (25.0, Pace(0, 0, 0), None, f"{BUDGET} is used up"),  # whatever the pace is
        (10.0, Pace(5, 60, 4), None, f"not enough history to say when {BUDGET} is used up: 4 answers in 60 minutes"),
        (10.0, Pace(5, 9, 20), None, f"not enough history to say when {BUDGET} is used up: 20 answers in 9 minutes"),
        (0.0, Pace(0, 0, 1), None, f"not enough history to say when {BUDGET} is used up: 1 answer in 0 minutes"),
        (1.0, Pace(0, 60, 5), None, f"{BUDGET} lasts: nothing was spent in the last 60 minutes"),
        (1.0, Pace(0.01, 60, 5), None, f"at this rate {BUDGET} lasts for more than 10 days"),
    ],
)
def test_when_a_budget_is_used_up(used: float, pace: Pace, until: int | None, expected: str) -> None:
    said = forecasts.used_up(BUDGET, limit=20, used=used, pace=pace, now=NOW, until=until, clock=clock)
    assert said.sentence == expected
    assert (said.at is None) is expected.startswith(
        ("not enough", "at this rate the budget of $20.00 lasts", f"{BUDGET} lasts")
    )


@pytest.mark.parametrize(
    ("quarters", "since", "expected"),
    [
        ([(-1, 2.0, 3), (-2, 2.0, 3)], -8, Pace(4, 60, 6)),
        ([(-4, 1.0, 1), (-5, 9.0, 9)], -8, Pace(1, 60, 1)),  # what is older than an hour does not count
        ([(-1, 2.0, 3)], -1, Pace(2, 15, 3)),  # a team that has just begun
        ([(0, 2.0, 3)], 0, Pace(2, 0, 3)),
        ([], -8, Pace(0, 60, 0)),
        ([(-1, 2.0, 3)], 5, Pace(0, 0, 0)),  # begun by a clock that was ahead
    ],
)
def test_the_pace_of_the_last_hour(quarters: list[tuple[int, float, int]], since: int, expected: Pace) -> None:
    spent = [(NOW + at * QUARTER_MS, amount, answers) for at, amount, answers in quarters]
    found = forecasts.pace(spent, since=NOW + since * QUARTER_MS, now=NOW)
    assert found == expected


def test_a_pace_between_two_quarters_counts_the_minutes_that_have_passed() -> None:
    now = NOW + 10 * MINUTE_MS
    spent = [(NOW - number * QUARTER_MS, 1.0, 1) for number in range(8)]
    assert forecasts.pace(spent, since=0, now=now) == Pace(5, 70, 5)  # from the quarter that an hour ago lies in


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([], None),
        ([-1.0], (-1.0, 4.0)),
        ([-6.0], None),  # it has ended
        ([-5.0], None),  # just now
        ([-6.0, -4.0, -2.0], None),  # all within one that has ended an hour ago
        ([-6.0, -4.0, -0.5], (-0.5, 4.5)),  # the first use after that begins the next
        ([-12.0, -6.5, -3.0, -1.0], (-1.0, 4.0)),
    ],
)
def test_the_window_that_runs_now(hours: list[float], expected: tuple[float, float] | None) -> None:
    found = forecasts.window([round(NOW + hour * HOUR_MS) for hour in hours], hours=5, now=NOW)
    assert found == (None if expected is None else tuple(round(NOW + hour * HOUR_MS) for hour in expected))


def minutes(*numbers: float) -> list[int]:
    return [round(number * MINUTE_MS) for number in numbers]


@pytest.mark.parametrize(
    ("begun", "took", "expected"),
    [
        ([], [], "the five-hour window ends at +60"),
        ([(7, 0)], minutes(10, 20), "; not enough history to say what gets done before: 2 finished specs"),
        ([(7, 0)], minutes(10, 20, 30), "; what is queued gets done before"),
        ([(7, 0)], minutes(70, 80, 90), "; queue entry 7 will not finish before: a spec takes 1 h 20 min"),
        ([(7, 0), (3, -30)], minutes(70, 80, 90), "; queue entry 7 will not finish before: a spec takes 1 h 20 min"),
        (
            [(7, 0), (3, -10)],
            minutes(70, 80, 90),
            "; queue entries 3, 7 will not finish before: a spec takes 1 h 20 min",
        ),
    ],
)
def test_what_is_not_done_before_a_window_ends(begun: list[tuple[int, float]], took: list[int], expected: str) -> None:
    waiting = [Waiting(entry, round(NOW + at * MINUTE_MS)) for entry, at in begun]
    said = forecasts.window_ends(NOW + HOUR_MS, waiting, took, hours=5, is_told=True, clock=clock)
    assert said.sentence.endswith(expected)
    assert said.at == NOW + HOUR_MS


def test_a_window_that_nobody_has_told_of_ends_about_then() -> None:
    said = forecasts.window_ends(NOW + HOUR_MS, [], [], hours=5, is_told=False, clock=clock)
    assert said.sentence == "the five-hour window ends at about +60"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (Pace(12, 600, 100), "agents have cost $1.20 in an hour of work each: $4.80 for 4 of them"),
        (Pace(12, 59, 100), "not enough history to say what it would cost: 100 answers in 59 minutes of work"),
        (Pace(12, 600, 4), "not enough history to say what it would cost: 4 answers in 600 minutes of work"),
        (Pace(0, 600, 100), "agents have cost nothing so far"),
    ],
)
def test_what_a_launch_would_cost(history: Pace, expected: str) -> None:
    assert forecasts.of_a_launch(4, [], history)[0].sentence == expected


def test_how_long_budgets_would_last() -> None:
    _, first, second = forecasts.of_a_launch(4, [("the budget of $20.00", 20), ("another", 2.4)], Pace(12, 600, 100))
    assert first.sentence == "the budget of $20.00 lasts 4 h 10 min of that"
    assert second.sentence == "another lasts 30 min of that"


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(0, "0 min"), (59.4, "59 min"), (60, "1 h"), (125, "2 h 5 min"), (24 * 60, "1 d"), (27 * 60, "1 d 3 h")],
)
def test_durations(minutes: float, expected: str) -> None:
    assert forecasts.duration(minutes * MINUTE_MS) == expected
