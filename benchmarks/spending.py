"""What counting costs: a look at a hundred agents' transcripts, what they have gained, and one that is very long."""

from __future__ import annotations

import json
import resource
import sqlite3
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib import agents, host
from lib.models import Agent, Usage
from lib.spending import ledger
from tests.agents import a_team
from tests.transcripts import answer

AGENTS = 100
HELPERS = 20
#: Between an agent's answers: results of tools and what else fills a transcript.
FILLING_BYTES = 9_000
_AT = host.now_ms()


def spending(counts: Counts) -> list[Figure]:
    """The ledger of a hundred agents, and of one transcript as long as a few weeks of work."""
    with rehearsal() as machine:
        crowd = _crowd(machine, counts)
    return [*crowd, *_long(counts)]


def _crowd(machine: Machine, counts: Counts) -> list[Figure]:
    db, now = machine.db(), host.now_ms()
    paths = [_main(agent) for agent in _team(db, machine.folder)]
    for path in paths:
        _grow(path, 5)
        for number in range(HELPERS):
            _grow(path.with_suffix("") / "subagents" / f"agent-{number}.jsonl", 1)
    while ledger.keep_up(db, ledger.Watch(), now=now):
        pass
    idle = [_look(db, now) for _ in range(counts.looks)]
    gained = []
    for _ in range(counts.looks):
        for path in paths:
            _grow(path, 1)
        gained.append(_look(db, now))
    about = f"{AGENTS} agents with {HELPERS} helpers each"
    return [
        Figure(f"a look at the transcripts of {about}, nothing new", "ms", tuple(idle), target=50, headline=True),
        Figure(f"the same, each with one answer more ({AGENTS * FILLING_BYTES // 1000} KB)", "ms", tuple(gained)),
    ]


def _look(db: sqlite3.Connection, now: int) -> float:
    watch, began = ledger.Watch(), time.perf_counter()
    while ledger.keep_up(db, watch, now=now):
        pass
    return (time.perf_counter() - began) * 1000


def _long(counts: Counts) -> list[Figure]:
    """A file of a gigabyte, in the machine's folder."""
    with rehearsal() as machine:
        db, now = machine.db(), host.now_ms()
        (agent,) = _team(db, machine.folder / "long", number=1)
        path = _main(agent)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            while file.tell() < counts.transcript_bytes:
                file.writelines(_lines(file.tell() + number) for number in range(1000))
        before, began, watch = _peak_mb(), time.perf_counter(), ledger.Watch()
        blocks, left = [], True
        while left:
            start = time.perf_counter()
            left = bool(ledger.keep_up(db, watch, now=now))
            blocks.append((time.perf_counter() - start) * 1000)
        seconds = time.perf_counter() - began
        size = path.stat().st_size / 1e9
        return [
            Figure(f"a transcript of {size:.1f} GB, from its beginning", "s", (seconds,)),
            Figure("one block of it: what a beat may take", "ms", tuple(blocks), target=100),
            Figure("memory that it took beside", "MB", (max(0.0, _peak_mb() - before),), target=64),
            Figure("the same transcript once more", "ms", (_look(db, now),), target=5),
        ]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _main(agent: Agent) -> Path:
    return agent.config_dir / "projects" / f"-{agent.role}" / f"{agent.conversation_id}.jsonl"


def _grow(path: Path, answers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for _ in range(answers):
            file.write(_lines(time.perf_counter_ns()))


def _lines(number: int) -> bytes:
    """An answer in two parts, and the result of the tool that it asks for."""
    part = answer(Usage(4, 300, 80_000, 900), at=_AT, id=f"msg_{number}")
    result = {"tool_use_id": "toolu_1", "type": "tool_result", "content": "x" * FILLING_BYTES}
    tool = {"message": {"role": "user", "content": [result]}, "type": "user", "timestamp": part["timestamp"]}
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in (part, part, tool))


def _team(db: sqlite3.Connection, folder: Path, *, number: int = AGENTS) -> list[Agent]:
    team = a_team(db, *(f"role-{one}" for one in range(number)), home=folder)
    db.execute("UPDATE agents SET config_dir = ?", (str(folder / "claude"),))
    assert team[0].orchestration_id
    return agents.of_orchestration(db, team[0].orchestration_id)
