"""What keeps an agent from new work, whatever the reason: it gets no message, no check-in, and its clocks stand.

Whoever would give an agent something to do asks here first; what holds it is another room's to know.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path

from lib import agents, limits, orchestrations
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, AgentState, Hold, Message, MessageKind
from lib.spending import budgets


def of(db: sqlite3.Connection, agent: Agent) -> Hold | None:
    """What holds an agent now, or None. Cheap: it is asked of every agent that something waits for, on every beat."""
    return _by_hand(db, agent) or limits.hold_of(db, agent) or budgets.hold_of(db, agent)


def _by_hand(db: sqlite3.Connection, agent: Agent) -> Hold | None:
    at = orchestrations.paused_at(db, agent.orchestration_id)
    if at is None:
        return None
    since = datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")
    return Hold(f"paused by hand since {since}", None)


def keeps_back(hold: Hold, agent: Agent, message: Message) -> bool:
    """Whether a hold keeps a message from an agent: while a team may wrap up, its Orchestrator speaks and listens."""
    if not hold.lets_wrap_up or message.kind is MessageKind.CHECK_IN:
        return True
    return ORCHESTRATOR not in (agent.role, message.sender)


def of_account(db: sqlite3.Connection, config_dir: Path) -> Hold | None:
    """What holds all agents of a configuration folder, also those that are still to be started."""
    return limits.hold_of_account(db, config_dir) or budgets.hold_of_account(db, config_dir)


def state_of(db: sqlite3.Connection, agent: Agent) -> AgentState:
    """What an agent does now; one that does nothing because something holds it is shown as that."""
    state = agents.state_of(agent)
    has_limit_dialog = state is AgentState.ASKING and agents.has_dialog_open(agent)
    if state is not AgentState.IDLE and not has_limit_dialog:
        return state
    hold = of(db, agent)
    return hold.state if hold else state
