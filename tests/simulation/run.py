#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[dev]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "../..", editable = true }
# ///
"""Lives through simulated worlds, each from a seed, and says which invariants broke (docs/simulation.md)."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.errors import ExitCode, Usage
from lib.front import cli
from tests.simulation import fleet, runs
from tests.simulation.runs import Verdict


@cli.command(
    examples="""
    tests/simulation/run.py
    tests/simulation/run.py --seeds 5000 -j 2
    tests/simulation/run.py --seed 17
    tests/simulation/run.py --seed 17 --shrink
    tests/simulation/run.py --fleet --seeds 1000 -j 2
    """
)
@click.option("--seeds", metavar="NUMBER", type=click.IntRange(1), default=100, help="How many; 100 by default.")
@click.option("--first", metavar="SEED", type=int, default=0, help="The first of them; 0 by default.")
@click.option("--seed", metavar="SEED", type=int, help="Only this one, with all that happens in it.")
@click.option("--hours", metavar="HOURS", type=float, default=runs.HOURS, help="How long each world is in trouble.")
@click.option("--shrink", is_flag=True, help="Make the plan of a failing seed as small as it can be.")
@click.option("--fleet", "is_fleet", is_flag=True, help="Fleets of several hosts instead of teams on one.")
@click.option("-j", "at_once", metavar="NUMBER", type=click.IntRange(1), default=1, help="How many at once.")
@cli.pass_output
def main(
    output: cli.Output,
    seeds: int,
    first: int,
    seed: int | None,
    hours: float,
    shrink: bool,
    is_fleet: bool,
    at_once: int,
) -> int:
    """Live through simulated worlds and judge them."""
    if is_fleet and shrink:
        raise Usage("--shrink is for teams on one machine; the plan of a fleet is short")
    began = time.perf_counter()
    chosen = [seed] if seed is not None else list(range(first, first + seeds))
    broken, lived, checked = [], 0.0, 0
    for verdict in _verdicts(chosen, None if is_fleet else hours, at_once):
        lived, checked = lived + verdict.hours, checked + 1
        if verdict.broken:
            output.say(f"seed {verdict.seed}: {verdict.broken}")
            broken.append(runs.shrink(verdict, hours=hours) if shrink else verdict)
        if seed is not None and not verdict.broken:
            output.say("\n".join(verdict.trace))
    seconds = time.perf_counter() - began
    output.answer(_text(broken, checked, lived, seconds, shrink or seed is not None), _data(broken, checked, lived))
    return ExitCode.FAILED if broken else ExitCode.DONE


def _verdicts(seeds: list[int], hours: float | None, at_once: int) -> Iterator[Verdict]:
    live = fleet.live_through if hours is None else functools.partial(runs.live_through, hours=hours)
    if at_once == 1:
        yield from map(live, seeds)
        return
    with ProcessPoolExecutor(min(at_once, os.cpu_count() or 1)) as pool:
        yield from pool.map(live, seeds, chunksize=4)


def _text(broken: list[Verdict], checked: int, lived: float, seconds: float, is_whole: bool) -> str:
    lines = []
    for one in broken:
        lines.append(f"seed {one.seed}: {one.broken}")
        if is_whole:
            lines += ["its plan:", *(f"  {operation}" for operation in one.plan), "what happened:", *one.trace]
    rate = lived / max(seconds / 60, 1e-9)
    lines.append(
        f"{checked} seeds, {len(broken)} broken; {lived:.0f} simulated hours in {seconds:.0f} s,"
        f" {rate:.0f} hours a minute"
    )
    return "\n".join(lines)


def _data(broken: list[Verdict], checked: int, lived: float) -> dict[str, object]:
    found = [
        {
            "seed": one.seed,
            "invariant": one.invariant,
            "broken": one.broken,
            "digest": one.digest,
            "plan": [[operation.at, operation.verb, list(operation.words)] for operation in one.plan],
        }
        for one in broken
    ]
    return {"seeds": checked, "hours": round(lived, 1), "broken": found}


if __name__ == "__main__":
    cli.run(main)
