"""Stopping a team: its processes end, its work stays."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time

from lib import agents, boundaries, host, orchestrations, safekeeping
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.models import LIVE, Agent, Orchestration, OrchestrationStatus, Process
from lib.records import dataclass
from lib.safekeeping import Kept
from lib.tmux import Tmux

_LEAVES_WITHIN_SECONDS = 5.0
#: How long a question to git may take before a team is ended, also within a beat of the scheduler. What it ends are
#: processes: files stay, and were kept half an hour ago at the latest.
_KEPT_WITHIN_SECONDS = 5.0


@dataclass(frozen=True)
class Stopped:
    """A team that was stopped: what its agents leave, and what came of the snapshots that were taken before."""

    orchestration: Orchestration
    leftovers: list[Leftover]
    kept: list[Kept]


@dataclass(frozen=True)
class Leftover:
    """What a stopped agent leaves: its worktree, and how many commits the starting point does not have."""

    role: str
    worktree: str
    branch: str
    unmerged: int
    dirty: bool


def stop(db: sqlite3.Connection, tmux: Tmux, orchestration_id: str, *, now: int) -> Stopped:
    """End a team's agents and its session. Worktrees and branches stay, and are named.

    Only the session that bears the orchestration's mark and the processes that were recorded are ended.
    """
    found = orchestrations.get(db, orchestration_id)
    if found.status in LIVE:
        orchestrations.set_status(db, found.id, OrchestrationStatus.STOPPED, now=now)
    kept = end_processes(db, tmux, found, now=now)
    leftovers = []
    for agent in agents.of_orchestration(db, found.id):
        if not agent.worktree.exists():
            continue
        work = worktrees.work_since(agent.worktree, found.starting_commit, agent.branch)
        into = found.starting_branch or found.starting_commit
        unmerged = worktrees.unmerged_commits(found.project, agent.branch, into)
        leftovers.append(Leftover(agent.role, str(agent.worktree), agent.branch, unmerged, work.dirty))
    return Stopped(orchestrations.get(db, found.id), leftovers, kept)


def end_processes(db: sqlite3.Connection, tmux: Tmux, found: Orchestration, *, now: int | None = None) -> list[Kept]:
    """End the session that bears an orchestration's mark, and the processes that were recorded for its agents.

    A snapshot of each worktree is taken before; one that fails is told in what is returned, and prevents nothing.
    """
    kept = _keep(db, agents.of_orchestration(db, found.id), host.now_ms() if now is None else now)
    if tmux.orchestration_of(found.session) == found.id:
        tmux.kill_session(found.session)
    team = agents.of_orchestration(db, found.id)
    end([agent.process for agent in team if agent.process])
    boundaries.lift(team)
    return kept


def _keep(db: sqlite3.Connection, team: list[Agent], now: int) -> list[Kept]:
    try:
        return safekeeping.keep(db, team, why="before its team is ended", now=now, seconds=_KEPT_WITHIN_SECONDS)
    except OrchestratorError as error:  # what came of it could not be recorded
        return [Kept(agent, problem=error.sentence) for agent in team]


def end(processes: list[Process], *, at_once: bool = False) -> None:
    """Wait until processes have followed their terminal; ask, then force those that have not. `at_once`: ask first."""
    for how in (signal.SIGTERM, signal.SIGKILL) if at_once else (None, signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in processes if host.is_alive(process)]
        for process in alive:
            if how is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended since the look
                    os.kill(process.pid, how)
        deadline = time.monotonic() + _LEAVES_WITHIN_SECONDS
        while any(host.is_alive(process) for process in alive) and time.monotonic() < deadline:
            time.sleep(0.02)
    if left := [process.pid for process in processes if host.is_alive(process)]:
        raise OrchestratorError(f"processes {left} have not ended", hint=f"kill -9 {' '.join(map(str, left))}")
