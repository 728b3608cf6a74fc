"""Pauses by hand: a person has a team stand still, and go on later where it was.

Nothing new reaches a paused team. Whoever is at work ends the turn, or is interrupted when that is wanted; processes,
conversations and worktrees stay.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from lib import agents, checkins, delivery, messages, orchestrations, store, templates
from lib.delivery import Desk
from lib.errors import Busy
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, AgentState, MessageKind, Orchestration, OrchestrationStatus, Priority
from lib.spending import budgets


def pause(db: sqlite3.Connection, found: Orchestration, *, now: int, why: str | None = None) -> bool:
    """Have a team stand still. Returns whether it was not paused already. Without a `why` a person has asked for it.

    Raises `OrchestratorError` for one that is over, and `Busy` for one that is still being launched.
    """
    with store.writing(db):
        found = orchestrations.get(db, found.id)
        orchestrations.check_runs(found)
        if found.status is OrchestrationStatus.STARTING:
            raise Busy(f"{found.session} is still being launched", hint="pause it when it runs")
        if not orchestrations.set_paused(db, found.id, now):
            return False
        store.record(db, "pause.begun", now=now, orchestration=found.id)
        if found.status is OrchestrationStatus.RUNNING:
            outcome = why or f"paused by hand; next: claude_control.py resume {found.session}"
            orchestrations.set_status(db, found.id, OrchestrationStatus.PAUSED, now=now, outcome=outcome)
    return True


def interrupt(desk: Desk, found: Orchestration, *, now: int) -> dict[str, str | None]:
    """Interrupt whoever of a paused team is at work, as a person would. Returns what was in the way, by role."""
    stopped = {}
    for agent in agents.of_orchestration(desk.db, found.id):
        if agents.state_of(agent) is AgentState.WORKING:
            # Before it happens: whoever was interrupted has to hear of it in any case.
            with store.writing(desk.db):
                store.record(
                    desk.db, "agent.interrupted", now=now, orchestration=found.id, agent=agent.id, why="paused by hand"
                )
            stopped[agent.role] = delivery.interrupt(desk, agent)
    return stopped


def resume(db: sqlite3.Connection, found: Orchestration, *, now: int) -> Orchestration | None:
    """Have a paused team go on, unless a budget holds it too. None when it was not paused."""
    with store.writing(db):
        found = orchestrations.get(db, found.id)
        if not orchestrations.set_paused(db, found.id, None):
            return None
        store.record(db, "pause.over", now=now, orchestration=found.id)
        if found.status is OrchestrationStatus.PAUSED:
            orchestrations.set_status(db, found.id, OrchestrationStatus.RUNNING, now=now)
            if budget := budgets.that_pauses(db, found.id):
                why = budgets.reason(budget, found.session)
                orchestrations.set_status(db, found.id, OrchestrationStatus.PAUSED, now=now, outcome=why)
        if found.status not in orchestrations.ENDED:
            for agent in agents.of_orchestration(db, found.id):
                _go_on(db, found, agent, now)
    return orchestrations.get(db, found.id)


def _go_on(db: sqlite3.Connection, found: Orchestration, agent: Agent, now: int) -> None:
    assert found.paused_at is not None
    checkins.wait_no_longer(db, agent.id, now=now)
    last = store.last_event(db, "agent.interrupted", orchestration=found.id, agent=agent.id)
    was_interrupted = last is not None and last.at >= found.paused_at and last.data.get("why") == "paused by hand"
    if was_interrupted or agent.role == ORCHESTRATOR:
        text = templates.render("pause_over.md", since=_clock(found.paused_at), interrupted=was_interrupted)
        kind, sender = MessageKind.NOTICE, checkins.SENDER
        messages.queue(db, agent, text, sender=sender, kind=kind, priority=Priority.HIGH, now=now)


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")
