"""How long hand-overs take, by events: which of them count, from when, and until when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lib.judgement.durations import LaneTimes, Took, of_lanes, took
from lib.models import Event

ROLES = {1: "developer", 2: "tester", 3: "testrunner"}
DEVELOPER, TESTER, TESTRUNNER = ROLES
LANES = [("developer", "tester"), ("tester", "testrunner")]
NONE = Took(0, None, None)

#: An event: its time in seconds, its kind, its agent, and of which message or what else.
Happened = tuple[float, str, int, dict[str, object]]


def moved(at: float, agent: int, new: str) -> Happened:
    return at, "branch.moved", agent, {"new": new}


def handed_over(at: float, message: int, *, since: float, agent: int = DEVELOPER, to: str = "tester") -> Happened:
    return at, "branch.handed_over", agent, {"message": message, "to": to, "moved": round(since * 1000)}


def arrived(at: float, message: int, agent: int = TESTER) -> Happened:
    return at, "message.acknowledged", agent, {"message": message}


def reported(at: float, agent: int = TESTER, kind: str = "report.completion") -> Happened:
    return at, kind, agent, {}


def dropped(at: float, message: int, kind: str = "message.cancelled") -> Happened:
    return at, kind, TESTER, {"message": message}


def synced(at: float, agent: int, head: str) -> Happened:
    return at, "branch.synced", agent, {"head": head}


def times(*happened: Happened) -> tuple[LaneTimes, ...]:
    events = [
        Event(number, round(at * 1000), kind, "a1b2c3", agent, data.get("message"), data)  # type: ignore[arg-type]
        for number, (at, kind, agent, data) in enumerate(happened, 1)
    ]
    return of_lanes(LANES, ROLES, events)


#: What a team's events say of the lane developer -> tester: told, answered, not arrived, unanswered.
OF_A_LANE: list[tuple[Sequence[Happened], tuple[Took, Took, int, int]]] = [
    # Nothing was recorded.
    ([], (NONE, NONE, 0, 0)),
    # From the commit until it was told, and from then until the taker's own commit.
    (
        [moved(1, DEVELOPER, "a"), handed_over(2, 7, since=1), arrived(4, 7), moved(64, TESTER, "b")],
        (Took(1, 3.0, 3.0), Took(1, 60.0, 60.0), 0, 0),
    ),
    # The first of several commits counts, and the first of several answers.
    (
        [handed_over(2, 7, since=0.5), arrived(3, 7), reported(9), moved(11, TESTER, "b"), reported(12)],
        (Took(1, 2.5, 2.5), Took(1, 6.0, 6.0), 0, 0),
    ),
    # A report that waits for criteria is a report.
    (
        [handed_over(2, 7, since=1), arrived(3, 7), reported(8, kind="report.waiting")],
        (Took(1, 2.0, 2.0), Took(1, 5.0, 5.0), 0, 0),
    ),
    # What the taker did before it was told is no answer, and neither is what others do.
    (
        [handed_over(2, 7, since=1), moved(2, TESTER, "b"), arrived(3, 7), moved(4, DEVELOPER, "c")],
        (Took(1, 2.0, 2.0), NONE, 0, 1),
    ),
    # A fast-forward takes the work and adds nothing; a commit on top of it does.
    (
        [
            *(moved(1, DEVELOPER, "a"), handed_over(2, 7, since=1), arrived(3, 7)),
            *(moved(5, TESTER, "a"), moved(9, TESTER, "b")),
        ],
        (Took(1, 2.0, 2.0), Took(1, 6.0, 6.0), 0, 0),
    ),
    # The starting branch that came into the taker's is not the taker's work, whenever that was recorded.
    (
        [
            *(handed_over(2, 7, since=1), arrived(3, 7), moved(4, TESTER, "s")),
            *(synced(4, TESTER, "s"), moved(8, TESTER, "b")),
        ],
        (Took(1, 2.0, 2.0), Took(1, 5.0, 5.0), 0, 0),
    ),
    # One commit may answer two.
    (
        [
            *(handed_over(1, 7, since=0), arrived(2, 7), handed_over(5, 8, since=4), arrived(6, 8)),
            moved(10, TESTER, "b"),
        ],
        (Took(2, 2.0, 2.0), Took(2, 6.0, 8.0), 0, 0),
    ),
    # One that waits has not arrived; one whose place a newer took, and one that failed, never will.
    (
        [
            *(handed_over(1, 7, since=0), handed_over(2, 8, since=0), handed_over(3, 9, since=2)),
            *(dropped(2, 7), dropped(4, 8, "message.failed")),
        ],
        (NONE, NONE, 1, 0),
    ),
    # Another's lane.
    (
        [handed_over(1, 7, since=0, agent=TESTER, to="testrunner"), arrived(2, 7, TESTRUNNER)],
        (NONE, NONE, 0, 0),
    ),
    # A clock that was set back between the two.
    ([handed_over(2, 7, since=9), arrived(3, 7)], (Took(1, 0.0, 0.0), NONE, 0, 1)),
]


@pytest.mark.parametrize(("happened", "found"), OF_A_LANE)
def test_times_of_a_lane(happened: Sequence[Happened], found: tuple[Took, Took, int, int]) -> None:
    lane, _ = times(*happened)
    assert (lane.role, lane.taker) == ("developer", "tester")
    assert (lane.told, lane.answered, lane.not_arrived, lane.unanswered) == found


def test_the_middle_and_the_longest_of_several() -> None:
    assert took([1_000, 9_000, 2_000]) == Took(3, 2.0, 9.0)
    assert took([1_000, 2_040]) == Took(2, 1.5, 2.0)
