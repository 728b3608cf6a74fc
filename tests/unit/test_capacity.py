"""What the figures of a load mean: the steps in which it grows, where it bends, and what was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lib.judgement import capacity, loads
from lib.judgement.capacity import Knee, Losses, Step, Taken
from lib.judgement.durations import Spread, spread
from lib.judgement.loads import Rung
from lib.models import Message, MessageKind, MessageStatus, Priority

NOTHING = Taken(0.0, 0.0, 0, 0, 0)
SPREADS = [
    # Nothing was measured.
    ([], Spread(0, None, None, None, None)),
    # One is all of them.
    ([7.0], Spread(1, 7.0, 7.0, 7.0, 7.0)),
    # By nearest rank: of a hundred the 50th, the 95th, the 99th and the last, in any order.
    ([float(one) for one in range(100, 0, -1)], Spread(100, 50.0, 95.0, 99.0, 100.0)),
    # The slowest of ten is their 99th of 100.
    ([1.0] * 9 + [500.0], Spread(10, 1.0, 500.0, 500.0, 500.0)),
    # A clock that was set back.
    ([-4.0, 2.0], Spread(2, 0.0, 2.0, 2.0, 2.0)),
]


@pytest.mark.parametrize(("milliseconds", "found"), SPREADS)
def test_what_many_durations_come_to(milliseconds: list[float], found: Spread) -> None:
    assert spread(milliseconds) == found


def step(number: int, *, p95: float | None = 100.0, late: float | None = 10.0, sent: int = 100, lost: int = 0) -> Step:
    return Step(
        orchestrations=number,
        agents=5 * number,
        seconds=10.0,
        launches=spread([]),
        wanted=100,
        messages=Spread(sent, p95, p95, p95, p95),
        check_ins=Spread(1, late, late, late, late),
        beats=spread([]),
        scheduler=NOTHING,
        agents_took=NOTHING,
        tmux=NOTHING,
        tester=NOTHING,
        busy_percent=50.0,
        lost=lost,
    )


KNEES: list[tuple[list[Step], Knee]] = [
    # All is well.
    ([step(1), step(2)], Knee(2, None, "nothing bends up to here")),
    # Something was lost, however fast the rest was.
    ([step(1), step(2, lost=3)], Knee(1, 2, "3 messages are lost")),
    # Already the first.
    ([step(5, lost=1)], Knee(0, 5, "1 messages are lost")),
    # Senders have fallen behind; a tenth less is within what a short step gives.
    ([step(1, sent=90)], Knee(1, None, "nothing bends up to here")),
    ([step(1), step(4, sent=89)], Knee(1, 4, "89 of 100 messages were sent in time")),
    # Check-ins late, to the millisecond.
    ([step(1, late=2000.0)], Knee(1, None, "nothing bends up to here")),
    ([step(1), step(2, late=2001.0)], Knee(1, 2, "check-ins are 2001 ms late, p99")),
    # Nothing is known of check-ins and messages: nothing is said of them.
    ([step(1, late=None, p95=None)], Knee(1, None, "nothing bends up to here")),
    # Ten times as slow is still prompt.
    ([step(1), step(2, p95=1000.0)], Knee(2, None, "nothing bends up to here")),
    # Beyond a second, and more than three times the fastest step, which need not be the first.
    ([step(1, p95=900.0), step(2, p95=400.0), step(3, p95=1201.0)], Knee(2, 3, "messages take 1201 ms, p95")),
    ([step(1, p95=900.0), step(2, p95=2600.0)], Knee(2, None, "nothing bends up to here")),
    # The only step has nothing to be compared with.
    ([step(9, p95=1001.0)], Knee(0, 9, "messages take 1001 ms, p95")),
    # What comes after the bend is not asked.
    ([step(1), step(2, lost=1), step(3)], Knee(1, 2, "1 messages are lost")),
]


@pytest.mark.parametrize(("steps", "found"), KNEES)
def test_the_knee(steps: list[Step], found: Knee) -> None:
    assert capacity.knee(steps) == found


def message(number: int, status: str = "acknowledged", **more: Any) -> Message:
    return Message(
        id=number,
        agent_id=1,
        sender="developer",
        kind=more.get("kind", MessageKind.MESSAGE),
        body="hello",
        priority=Priority.NORMAL,
        status=MessageStatus(status),
        attempts=1,
        reason=None,
        held=False,
        carried_by=more.get("carried_by"),
        queued_at=1000,
        pasted_at=None,
        submitted_at=None,
        acknowledged_at=1100 if status == "acknowledged" else None,
    )


LOSSES: list[tuple[list[Message], Mapping[int, int], Losses]] = [
    # Arrived, once.
    ([message(1), message(2)], {1: 1, 2: 1}, Losses()),
    # Still on its way at the end, at whatever step of it.
    ([message(1, "queued"), message(2, "pasted"), message(3, "submitted")], {}, Losses(unacknowledged=3)),
    ([message(1, "failed")], {}, Losses(unacknowledged=1)),
    # Acknowledged, and the agent has never got it.
    ([message(1), message(2)], {2: 1}, Losses(not_received=1)),
    # Twice.
    ([message(1)], {1: 2}, Losses(doubled=1)),
    # Not acknowledged, but twice there.
    ([message(1, "pasted")], {1: 2}, Losses(unacknowledged=1, doubled=1)),
    # A check-in is a message too.
    ([message(1, "queued", kind=MessageKind.CHECK_IN)], {}, Losses(unacknowledged=1)),
    # What a digest carries is in no transcript as itself; a command has no frame; nobody waits for a cancelled one.
    ([message(1, carried_by=2), message(2, kind=MessageKind.DIGEST)], {2: 1}, Losses()),
    ([message(1, kind=MessageKind.COMMAND), message(2, "cancelled")], {}, Losses()),
]


@pytest.mark.parametrize(("ledger", "received", "found"), LOSSES)
def test_what_was_lost(ledger: list[Message], received: Mapping[int, int], found: Losses) -> None:
    assert capacity.losses_of(ledger, received) == found


@pytest.mark.parametrize("name", [*vars(Losses())])
def test_anything_that_was_lost_counts(name: str) -> None:
    assert Losses(**{name: 1}).any
    assert not Losses().any


def test_all_at_once_is_one_step() -> None:
    plan = loads.concurrent(10, interval=2.0, hold=60.0, rate=0.5)
    assert plan.rungs == (Rung(10, 60.0, 60.0),)
    assert (plan.interval_seconds, plan.seconds, plan.most) == (2.0, 60.0, 10)


RAMPS = [
    # A step for each, the last of them held.
    (3, [1, 2, 3], 30.0),
    (1, [1], 90.0),
    # Ten at most, evenly.
    (20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20], 9.0),
    (15, [2, 3, 5, 6, 8, 9, 11, 12, 14, 15], 9.0),
]


@pytest.mark.parametrize(("most", "counts", "each"), RAMPS)
def test_a_ramp_has_its_steps(most: int, counts: list[int], each: float) -> None:
    plan = loads.ramp(most, duration=90.0, hold=60.0, rate=0.5)
    assert [one.orchestrations for one in plan.rungs] == counts
    assert {one.seconds for one in plan.rungs[:-1]} <= {each}
    assert plan.rungs[-1] == Rung(most, each + 60.0, each / 2 + 60.0)
    assert plan.seconds == pytest.approx(150.0)
