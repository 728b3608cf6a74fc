"""The governor's step on every beat: with nothing new, and with an account that is limited."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from benchmarks import idle
from benchmarks.figures import Figure
from benchmarks.machine import rehearsal
from benchmarks.teams import Counts
from lib import agents, governor, holds, limits
from lib.config import LimitSettings
from lib.models import LimitKind, LimitSource, Refusal

AGENTS = 100
#: Entries in each transcript: 200 KB.
ENTRIES = 500
TERMS = LimitSettings()
NOON = 1_800_000_000_000


def quiet(counts: Counts) -> list[Figure]:
    """A hundred agents without news: a beat within ten seconds of the last look, and one that looks at transcripts."""
    with rehearsal() as machine, idle.fill(machine, agents_number=AGENTS):
        db = machine.db()
        for agent in agents.live(db):
            path = agent.config_dir / "projects" / "webapp" / f"{agent.conversation_id}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            entry = json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": "x" * 300}]}})
            path.write_text(f"{entry}\n" * ENTRIES)
        seen = governor.Observation()
        times = iter(range(NOON, NOON + 10_000_000, 20_000))
        first = [_timed(lambda: governor.govern(db, governor.Observation(), now=next(times), terms=TERMS))]
        governor.govern(db, seen, now=NOON, terms=TERMS)
        looks = [_timed(lambda: governor.govern(db, seen, now=next(times), terms=TERMS)) for _ in range(counts.sends)]
        at = next(times)
        governor.govern(db, seen, now=at, terms=TERMS)
        beats = [_timed(lambda: governor.govern(db, seen, now=at + 1, terms=TERMS)) for _ in range(counts.sends)]
        one = agents.live(db)[0]
        asked = [_timed(lambda: holds.of(db, one)) for _ in range(counts.sends)]
        refusal = Refusal(LimitKind.FIVE_HOUR, "", NOON * 2)
        limits.refused(db, one, refusal, LimitSource.TRANSCRIPT, at=at, terms=TERMS)
        held = [_timed(lambda: governor.govern(db, seen, now=at + 2, terms=TERMS)) for _ in range(counts.sends)]
    said = f"{AGENTS} agents"
    return [
        Figure(f"limits, {said} without news: a beat", "ms", tuple(beats), target=5.0),
        Figure(
            f"limits, {said} without news: the look at their transcripts, every 10 s", "ms", tuple(looks), target=20.0
        ),
        Figure(f"limits, {said}: the first look of a daemon", "ms", tuple(first)),
        Figure(f"limits, {said}, one limit in force: a beat", "ms", tuple(held), target=20.0),
        Figure("limits: asking what holds an agent", "ms", tuple(asked), target=1.0),
    ]


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
