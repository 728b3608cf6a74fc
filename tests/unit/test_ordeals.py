"""The plan of a chaos test, and what of its promises counts as broken."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from lib.judgement import ordeals
from lib.judgement.ordeals import KINDS, Outcome, Promise, Severity, Strike


def plan(seed: int = 3, **changed: Any) -> tuple[Strike, ...]:
    values: dict[str, Any] = {"duration": 600.0, "severity": Severity.HIGH, "intervals": (5.0, 20.0)}
    return ordeals.plan(seed, **values | changed)


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan() == plan()
    assert plan() != plan(4)


def test_a_seed_means_the_same_on_every_machine() -> None:
    # As it was when this was written: who reports a seed must be understood.
    found = plan(duration=20.0, only=("kill-agent", "kill-daemon"))
    assert [(one.at, one.kind.name, one.draw) for one in found] == [
        (0.0, "kill-daemon", 1956438824),
        (19.5, "kill-agent", 236828207),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_kind_comes_again_before_each_has_come(seed: int) -> None:
    names = [one.kind.name for one in plan(seed)]
    assert len(names) > len(KINDS)
    assert sorted(names[: len(KINDS)]) == sorted(kind.name for kind in KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_strikes_begin_at_once_and_keep_their_pauses_and_the_duration(seed: int) -> None:
    times = [one.at for one in plan(seed)]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0.0
    assert min(pauses) >= 5.0 - 0.1
    assert max(pauses) <= 20.0 + 0.1
    assert 600.0 - 20.1 <= times[-1] <= 600.0


@pytest.mark.parametrize("severity", Severity)
def test_a_severity_includes_those_below_it(severity: Severity) -> None:
    order = list(Severity)
    found = {one.kind for one in plan(severity=severity)}
    assert found == {kind for kind in KINDS if order.index(kind.severity) <= order.index(severity)}


def test_named_kinds_come_whatever_their_severity() -> None:
    assert {one.kind.name for one in plan(severity=Severity.LOW, only=("kill-server",))} == {"kill-server"}


BROKEN = [
    # All has arrived.
    (True, 1, []),
    # Nobody has said that it is safe: it need not arrive, but not twice either.
    (False, 0, []),
    (False, 1, []),
    (False, 2, ["message m came 2 times"]),
    (True, 0, ["message m is lost"]),
    (True, 3, ["message m came 3 times"]),
]


@pytest.mark.parametrize(("is_certain", "count", "said"), BROKEN)
def test_what_is_lost_or_doubled_is_named(is_certain: bool, count: int, said: list[str]) -> None:
    assert ordeals.broken([Promise("message", "m", is_certain)], {"m": count}) == said


def test_what_was_never_looked_at_is_lost() -> None:
    assert ordeals.broken([Promise("commit", "c")], {}) == ["commit c is lost"]


def test_a_strike_holds_only_when_it_was_done_and_nothing_is_wrong() -> None:
    (strike,) = plan(duration=1.0)
    assert Outcome(strike, recovered=1.0).held
    assert not Outcome(strike, skipped="no compiler").held
    assert not Outcome(strike, recovered=1.0, problems=("lost",)).held
