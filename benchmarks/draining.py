"""The queue and the keeping of teams: how long a spec waits for its team, and a team for its agents to come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.idle import fill
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import FIVE, HOLDS, THREE, Counts
from lib import agents, config, daemon, errands, host, service, store
from lib.errands import Errands
from lib.models import AgentState, MessageKind
from lib.queue import entries
from lib.tmux import Tmux

FINISHED = 1000


def queue(counts: Counts) -> list[Figure]:
    """From an entry to a briefed team, and a beat and the list beside a long history."""
    waits = []
    for _ in range(counts.launches):
        with rehearsal() as machine:
            waits.append(_from_entry_to_team(machine))
    return [
        Figure(
            "queued spec: from its entry until its team of 5 is briefed", "s", tuple(waits), target=10.0, headline=True
        ),
        *_beats(counts),
    ]


def _from_entry_to_team(machine: Machine) -> float:
    project = machine.project()
    machine.door("scheduler.py", "--queue-resume")
    wait_for(lambda: service.running(machine.home), "the scheduler")
    options = {"roles": FIVE.split(","), "agent": "rehearsal"}
    began = time.time()
    entries.add(machine.db(), [entries.NewEntry(project / "spec.md", HOLDS, project, options)], now=host.now_ms())
    host.wake(machine.home)
    wait_for(lambda: len(_briefed(machine)) == 5, "the team")
    return max(_briefed(machine)) / 1000 - began


def _briefed(machine: Machine) -> list[int]:
    rows = machine.db().execute("SELECT acknowledged_at FROM messages WHERE kind = 'briefing'").fetchall()
    return [row[0] for row in rows if row[0] is not None]


def _beats(counts: Counts) -> list[Figure]:
    """One beat with nothing due, and the list, beside a store with a history."""
    with rehearsal() as machine, fill(machine):
        _finish(machine)
        db, tmux = machine.db(), Tmux(machine.tmux.socket)
        life = daemon.Life(config.Settings(), Errands(machine.home))
        beats = []
        for _ in range(counts.starts):
            began = time.perf_counter()
            daemon.tick(db, tmux, machine.home, now=host.now_ms(), life=life)
            beats.append((time.perf_counter() - began) * 1000)
        lists = [machine.door("scheduler.py", "--queue-list", "--json")[0] * 1000 for _ in range(3)]
    situation = f"20 agents, 1000 check-ins, {FINISHED} finished entries"
    return [
        Figure(f"a beat with nothing due: {situation}", "ms", tuple(beats)),
        Figure(f"`scheduler.py --queue-list` of {FINISHED} entries", "ms", tuple(lists)),
    ]


def _finish(machine: Machine) -> None:
    db, now = machine.db(), host.now_ms()
    with store.writing(db):
        for number in range(FINISHED):
            project = Path(f"/projects/{number}")
            (entry,) = entries.add(db, [entries.NewEntry(project / "spec.md", "x", project)], now=now).entries
            entries.cancel(db, entry.id, now=now)


def recovery(counts: Counts) -> list[Figure]:
    """From a death until the note of the agent that has come back is acknowledged, by the daemon alone."""
    killed, gone = [], []
    for _ in range(counts.launches):
        with rehearsal() as machine:
            _team(machine)
            killed.append(_until_back(machine, lambda m: os.kill(_pid(m, "developer"), signal.SIGKILL), ("developer",)))
        with rehearsal() as machine:
            _team(machine)
            roles = tuple(THREE.split(","))
            gone.append(_until_back(machine, lambda m: m.tmux.run("kill-server"), roles))
    return [
        Figure(
            "agent killed with -9: until it is back and has heard so", "s", tuple(killed), target=10.0, headline=True
        ),
        Figure(
            "tmux server killed: until a team of 3 is back and has heard so",
            "s",
            tuple(gone),
            target=15.0,
            headline=True,
        ),
    ]


def _team(machine: Machine) -> None:
    project = machine.project()
    (project / "spec.md").write_text(HOLDS)
    spec = str(project / "spec.md")
    machine.door("auto_orchestrate.py", "--spec", spec, "--roles", THREE, "--agent", "rehearsal")
    for role in THREE.split(","):
        machine.wait_idle(role)


def _pid(machine: Machine, role: str) -> int:
    process = machine.agent(role).process
    assert process
    return process.pid


def _until_back(machine: Machine, end: Callable[[Machine], object], roles: tuple[str, ...]) -> float:
    before = {role: machine.agent(role).epoch for role in roles}
    began = time.time()
    end(machine)

    def heard() -> list[int]:
        rows = machine.db().execute(
            "SELECT acknowledged_at FROM messages WHERE sender = 'scheduler' AND kind != ? AND queued_at >= ?"
            " AND acknowledged_at IS NOT NULL",
            (MessageKind.CHECK_IN, int(began * 1000)),
        )
        return [row[0] for row in rows]

    wait_for(lambda: len(heard()) >= len(roles), "the agents to come back")
    assert all(machine.agent(role).epoch == before[role] + 1 for role in roles)
    assert all(agents.state_of(machine.agent(role)) is not AgentState.GONE for role in roles)
    wait_for(lambda: not _is_launching(machine), "the resume to end")
    return max(heard()) / 1000 - began


def _is_launching(machine: Machine) -> bool:
    row = machine.db().execute("SELECT id FROM orchestrations").fetchone()
    return errands.is_at_work(machine.home, f"launch-{row['id']}")
