"""Simulated fleets: so many seeds hold every invariant, a seed is always the same, and each invariant can fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lib.fleet import entries, fencing, putting, record, taking, working
from lib.fleet.entries import Entry, Lease, Put
from lib.fleet.link import Link
from tests.simulation import fleet
from tests.simulation.runs import Operation

#: Every change is judged by so many; with `--long` by fifty times as many.
SEEDS = 4

Patch = pytest.MonkeyPatch


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_invariant_of_a_fleet_holds_whatever_goes_wrong(seed: int, is_long: bool) -> None:
    seeds = range(seed, 50 * SEEDS, SEEDS) if is_long else (seed,)
    broken = [verdict for verdict in map(fleet.live_through, seeds) if verdict.broken]
    assert [f"tests/simulation/run.py --fleet --seed {one.seed}: {one.broken}" for one in broken] == []


PUT = Operation(1.0, "put", (1,))


def test_a_seed_of_a_fleet_is_always_the_same_run() -> None:
    one, other = (fleet.live_through(1, fleet.plan(1, 40.0), seconds=40.0) for _ in range(2))
    assert one.trace == other.trace
    assert len(one.trace) > len(fleet.plan(1, 40.0))


#: What seeds have come to, and was mended.
FOUND: Mapping[str, tuple[Operation, ...]] = {
    # Its record said that it was over, it did not hear that, and its message stayed in the queue.
    "an_answer_is_lost_at_the_end": (PUT, *(Operation(3.0, "lose_answer", (number,)) for number in (1, 2, 3))),
    # It took its own entry again, and both teams went on.
    "a_host_comes_back_for_what_it_has_lost": (
        Operation(21.3, "put", (2,)),
        Operation(31.4, "kill_host", (3, 73.9)),
        Operation(74.8, "partition", (2, 77.4)),
        Operation(83.9, "put", (1,)),
        Operation(89.6, "kill_scheduler", (1, 45.8)),
    ),
}


@pytest.mark.parametrize("plan", FOUND.values(), ids=FOUND)
def test_what_a_seed_has_found_holds(plan: tuple[Operation, ...]) -> None:
    assert fleet.live_through(6, plan, seconds=110.0).broken is None


# -- each can fail --


def nobody_stands_still(patch: Patch) -> None:
    patch.setattr(fencing, "fence", lambda *_, **__: [])


def whoever_is_given_an_entry_begins(patch: Patch) -> None:
    """At once, although a server that has just started gives out what somebody has."""
    patch.setattr(taking, "_may_be_at_work", lambda *_: False)
    patch.setattr(taking, "_say_so", _nothing)


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def whoever_writes_does_not_look(patch: Patch) -> None:
    """A host that has lost an entry says how it stands there."""

    async def anyway(link: Link, lease: Lease, changes: Mapping[str, object]) -> Entry:
        return await record.change(link, lease.entry_id, lambda found: changes)

    async def as_before(link: Link, lease: Lease) -> None:
        await anyway(link, lease, {"says": "as before"})
        await working._extend(link, lease)

    patch.setattr(working, "_prove", as_before)


def what_is_over_is_told_of(patch: Patch) -> None:
    end = working._end

    async def and_again(link: Link, lease: Lease, local: Any) -> None:
        await end(link, lease, local)
        await record.change(link, lease.entry_id, lambda found: {"says": "it was fine"})

    patch.setattr(working, "_end", and_again)


def what_is_put_is_not_in_the_queue(patch: Patch) -> None:
    patch.setattr(putting, "_publish", _nothing)


def what_came_home_is_fetched_again(patch: Patch) -> None:
    def all_that_is_over(db: sqlite3.Connection) -> list[tuple[Put, Entry]]:
        found = [(put, entries.get(db, put.entry_id)) for put in entries.puts(db)]
        return [(put, entry) for put, entry in found if entry and entry.state not in entries.UNFINISHED]

    patch.setattr(entries, "to_fetch", all_that_is_over)


def what_was_lost_stays(patch: Patch) -> None:
    """The team of what is another host's now is not stopped."""

    async def only_note(link: Link, lease: Lease, why: str) -> None:
        entries.ended(link.db, lease, why, now=link.clock())

    patch.setattr(working, "_lose", only_note)


CUT_OFF = (PUT, *(Operation(6.0, "partition", (number, 70.0)) for number in (1, 2)))
#: One host takes over what another had, and the server starts anew at once.
RESTARTED = (
    *(Operation(0.5, "kill_host", (number, 15.0)) for number in (2, 3)),
    PUT,
    *(Operation(6.0 + at, verb, words) for at, verb, words in ((0.0, "kill_host", (1, 120.0)),)),
    *(Operation(33.0 + 0.5 * number, "restart_server", (0.1,)) for number in range(12)),
)
CASES: list[tuple[str, Callable[[Patch], None], tuple[Operation, ...]]] = [
    ("entries_run_in_one_place", nobody_stands_still, CUT_OFF),
    ("entries_run_in_one_place", whoever_is_given_an_entry_begins, RESTARTED),
    ("the_superseded_write_nothing", whoever_writes_does_not_look, CUT_OFF),
    ("what_is_over_stays_so", what_is_over_is_told_of, (PUT,)),
    ("no_entry_of_the_fleet_is_lost", what_is_put_is_not_in_the_queue, (PUT,)),
    ("results_come_home_once", what_came_home_is_fetched_again, (PUT,)),
    ("nothing_is_left_behind", what_was_lost_stays, CUT_OFF),
]


@pytest.mark.parametrize(("invariant", "break_it", "plan"), CASES, ids=[case[0] for case in CASES])
def test_an_invariant_of_a_fleet_notices_code_that_is_broken(
    invariant: str, break_it: Callable[[Patch], None], plan: tuple[Operation, ...], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(fleet, "SETTLES_WITHIN_SECONDS", 120.0)
    assert fleet.live_through(1, plan, seconds=80.0).broken is None, "without the mutation all holds"
    break_it(monkeypatch)
    verdict = fleet.live_through(1, plan, seconds=80.0)
    assert verdict.invariant == invariant, verdict.broken


def test_every_invariant_of_a_fleet_is_among_them() -> None:
    raised = {
        name for name, one in vars(fleet).items() if name in getattr(getattr(one, "__code__", None), "co_consts", ())
    }
    assert raised == {case[0] for case in CASES}
