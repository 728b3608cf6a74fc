"""What the daemon takes of the machine while nothing is to do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import Counts
from lib import agents, checkins, host, orchestrations, service, store
from lib.config import ROOT
from lib.models import GitMode, Orchestration, OrchestrationStatus, Program

AGENTS = 20
CHECK_INS = 1000
#: Far enough that none becomes due while it is measured.
MINUTES = 60


def idle(counts: Counts) -> list[Figure]:
    """The daemon beside an empty store, and beside a full one."""
    with rehearsal() as machine:
        empty = _watch(machine, counts.idle_seconds, "empty")
    with rehearsal() as machine, fill(machine):
        full = _watch(machine, counts.idle_seconds, f"{AGENTS} agents, {CHECK_INS} check-ins")
    return [*empty, *full]


@contextlib.contextmanager
def fill(machine: Machine, *, agents_number: int = AGENTS) -> Iterator[None]:
    """A team of agents that live and do nothing, with check-ins that are far away, for the block."""
    db, now = machine.db(), host.now_ms()
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(agents_number)]
    with store.writing(db):
        team = _orchestration(machine, now)
        orchestrations.add(db, team)
        ids = [agents.add(db, team, _agent(machine, number)) for number in range(agents_number)]
        for agent_id, sleeper in zip(ids, sleepers, strict=True):
            process = host.process(sleeper.pid)
            assert process
            agents.started(db, agent_id, pane_id=f"%{agent_id}", process=process)
        for number in range(CHECK_INS):
            checkins.add(db, ids[number % agents_number], "Look at the work.", minutes=MINUTES + number % 600, now=now)
    try:
        yield
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def _orchestration(machine: Machine, now: int) -> Orchestration:
    return Orchestration(
        id="000000",
        project=machine.folder / "webapp",
        session="webapp-impl",
        spec_path=Path("spec.md"),
        spec_title="Benchmark",
        spec_text="",
        status=OrchestrationStatus.RUNNING,
        program=Program.REHEARSAL,
        config_dir=machine.home / "rehearsal",
        starting_branch="main",
        starting_commit="0" * 40,
        branches="orchestration/000000-spec",
        git_mode=GitMode.LOCAL,
        messages_per_minute=10,
        unattended=False,
        outcome=None,
        created_at=now,
        updated_at=now,
    )


def _agent(machine: Machine, number: int) -> agents.NewAgent:
    return agents.NewAgent(
        role=f"role{number}",
        window=number,
        worktree=machine.folder / f"role{number}",
        branch=f"branch{number}",
        conversation_id=str(uuid.uuid4()),
    )


def _watch(machine: Machine, seconds: float, situation: str) -> list[Figure]:
    # As service.start does: the door by its interpreter, without uv above it.
    command = [sys.executable, str(ROOT / "scheduler.py"), "--queue-daemon", "--quiet"]
    with subprocess.Popen(command, env=machine.environment, cwd=machine.folder) as child:
        try:
            wait_for(lambda: service.running(machine.home), "the scheduler")
            time.sleep(2)  # its start and first beat are not idleness
            process = psutil.Process(child.pid)
            before = process.cpu_times()
            time.sleep(seconds)
            after = process.cpu_times()
            memory = process.memory_info().rss / 1e6
        finally:
            child.terminate()
    used = max(0.0, after.user + after.system - before.user - before.system) / seconds * 100
    return [
        Figure(
            f"idle daemon, {situation}: share of one core",
            "%",
            (used,),
            target=0.5,
            note=f"over {seconds:.0f} s",
            headline=True,
        ),
        Figure(f"idle daemon, {situation}: memory (RSS)", "MB", (memory,), target=60.0, headline=True),
    ]
