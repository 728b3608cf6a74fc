"""Halting: who is paused by a budget stops, also when it does not cooperate; what it had is kept before.

A turn is interrupted as a person would, by Escape. Whoever goes on all the same, or has left helpers that go on, loses
its process: its conversation and its worktree stay, and it is started again when there is budget.
"""

from __future__ import annotations

from lib import agents, delivery, host, safekeeping, stopping
from lib.delivery import Desk
from lib.models import Agent, AgentState
from lib.records import dataclass
from lib.spending import budgets

#: The errand that does it.
ERRAND = "stop-spending"
#: Escape sends what was queued for an agent at work as its next turn: that is interrupted as well.
_INTERRUPTS = 3


@dataclass(frozen=True)
class Halted:
    """An agent that was stopped, and how: `interrupted` or `ended`; `idle` when it was not at work."""

    agent: Agent
    how: str


def halt(desk: Desk) -> list[Halted]:
    """Stop every agent that a budget has paused. Running it twice stops nobody twice."""
    team = budgets.paused(desk.db)
    # Before anything is ended; of a worktree that is as it was nothing new is kept.
    safekeeping.keep(desk.db, team, why="before a budget pauses it", now=host.now_ms())
    found = [Halted(agent, _halt(desk, agent)) for agent in team]
    budgets.settle(desk.db, now=host.now_ms())
    return found


def _halt(desk: Desk, agent: Agent) -> str:
    if budgets.has_helpers(desk.db, agent):
        return _end(desk, agent)
    for _ in range(_INTERRUPTS):
        if agents.state_of(agent) is not AgentState.WORKING:
            break
        budgets.note_stopped(desk.db, agent, "interrupted", now=host.now_ms())
        delivery.interrupt(desk, agent)
    else:
        if agents.state_of(agent) is AgentState.WORKING:
            return _end(desk, agent)
    return budgets.how_stopped(desk.db, agent) or "idle"


def _end(desk: Desk, agent: Agent) -> str:
    budgets.note_stopped(desk.db, agent, "ended", now=host.now_ms())
    if agent.process:
        stopping.end([agent.process], at_once=True)
    return "ended"
