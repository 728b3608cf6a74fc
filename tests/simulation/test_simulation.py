"""Simulated worlds: so many seeds hold every invariant, a seed is always the same, and a failing one is made small."""

from __future__ import annotations

import pytest

from tests.simulation import runs
from tests.simulation.runs import Operation, Verdict

#: Every change is judged by so many seeds; with `--long` by ten times as many.
SEEDS = 500
_CHUNK = 10


def _lived(seed: int) -> Verdict:
    return runs.live_through(seed)


def _seeds(first: int, *, is_long: bool) -> list[int]:
    more = range(SEEDS + 9 * first, SEEDS + 9 * (first + _CHUNK)) if is_long else ()
    return [*range(first, first + _CHUNK), *more]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
def test_every_invariant_holds_whatever_goes_wrong(first: int, is_long: bool) -> None:
    broken = [verdict for verdict in map(_lived, _seeds(first, is_long=is_long)) if verdict.broken]
    assert [f"tests/simulation/run.py --seed {one.seed} --shrink: {one.broken}" for one in broken] == []


def test_a_message_that_a_late_hook_acknowledges_while_its_agent_is_brought_back_is_not_lost() -> None:
    """A plan that seed 53 has come to: git hangs in a resume, and an orphaned hook of the killed agent is read."""
    plan = (
        Operation(0.0, "queue", (0, 2)),
        Operation(232.1, "git_hangs", (9, 39.2)),
        Operation(244.3, "orphan_hook", (17.7,)),
        Operation(252.9, "send", (8, "user", 1, 1, 0.0)),
    )
    assert runs.live_through(53, plan, hours=1.0).broken is None


@pytest.mark.parametrize("seed", [1, 6])
def test_a_seed_is_always_the_same_run(seed: int) -> None:
    one, other = _lived(seed), _lived(seed)
    assert one.trace == other.trace
    assert one.digest == other.digest


def test_another_seed_is_another_run() -> None:
    assert _lived(1).digest != _lived(2).digest
    assert runs.plan(1) != runs.plan(2)


def test_a_failing_plan_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many operations the one is left without which the invariant holds."""
    plan = tuple(Operation(float(number), "work", (number, 0)) for number in range(20))

    def judged(seed: int, operations: tuple[Operation, ...], *, hours: float) -> Verdict:
        invariant = "messages_come_once" if Operation(13.0, "work", (13, 0)) in operations else None
        return Verdict(seed, tuple(operations), invariant, invariant, "", (), hours, 0.0)

    monkeypatch.setattr(runs, "live_through", judged)
    smallest = runs.shrink(judged(1, plan, hours=1.0))
    assert smallest.plan == (Operation(13.0, "work", (13, 0)),)
    assert smallest.invariant == "messages_come_once"
