"""How much of a team's life the simulation lives through."""

from __future__ import annotations

import time

from benchmarks.figures import Figure
from benchmarks.teams import Counts
from tests.simulation import runs


def simulating(counts: Counts) -> list[Figure]:
    """Worlds from seeds, one after the other on one core, each with everything that goes wrong in it and its invariants
    looked at after every step (docs/simulation.md). The first is not counted: it reads the toolkit's own files.
    """
    runs.live_through(0)
    seconds, hours = [], []
    for seed in range(1, 1 + counts.looks):
        began = time.process_time()
        verdict = runs.live_through(seed)
        seconds.append(time.process_time() - began)
        hours.append(verdict.hours / seconds[-1] * 60)
    return [
        Figure("simulated hours in a minute of one core", "h", tuple(hours), headline=True),
        Figure("a seed, from its plan to its verdict: seconds of a core", "s", tuple(seconds)),
    ]
