"""Provenance: from a commit back to the message that its agent worked on, and from there to the spec."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lib import agents, messages, orchestrations
from lib.errors import NotFound
from lib.git import worktrees
from lib.git.worktrees import Signed
from lib.models import Agent, Message, MessageKind, Orchestration
from lib.records import dataclass

#: A chain of messages is longer only when something writes to itself.
_MOST_STEPS = 50


@dataclass(frozen=True)
class Origin:
    """Where a commit comes from: its agent, and the messages that led to it, the nearest first.

    The last of them is the briefing, unless somebody outside of the team has set things off.
    """

    commit: Signed
    orchestration: Orchestration
    agent: Agent
    steps: tuple[Message, ...]


def why(db: sqlite3.Connection, project: Path, commit: str) -> Origin:
    """Walk back from a commit to the spec. Raises `NotFound` for one that no agent of this state home has signed."""
    signed = worktrees.signed(project, commit)
    if signed.orchestration is None or signed.role is None:
        raise NotFound(
            f"{signed.id[:10]} was made by no agent: it has no Orchestration and Agent-Role in its message",
            hint=f"look: git -C {project} show {signed.id[:10]}",
        )
    found = orchestrations.get(db, signed.orchestration)
    agent = agents.in_role(db, found.id, signed.role)
    if agent is None:
        raise NotFound(f"{signed.id[:10]} names the role {signed.role}, which {found.session} has not")
    return Origin(signed, found, agent, tuple(_steps(db, found, agent, signed)))


def _steps(db: sqlite3.Connection, found: Orchestration, agent: Agent, signed: Signed) -> list[Message]:
    at_work: Agent | None = agent
    message = _signed_message(db, agent, signed)
    if message is None:
        message = messages.last_before(db, agent.id, signed.at)
    steps: list[Message] = []
    while message and at_work and len(steps) < _MOST_STEPS:
        steps.append(message)
        if message.kind is MessageKind.BRIEFING:
            break
        # Whoever has written it was at work on something too, or is nobody of the team.
        at_work = agents.in_role(db, found.id, message.sender)
        message = messages.last_before(db, at_work.id, message.queued_at) if at_work else None
    return steps


def _signed_message(db: sqlite3.Connection, agent: Agent, signed: Signed) -> Message | None:
    if signed.message_id is None:
        return None
    try:
        message = messages.get(db, signed.message_id)
    except NotFound:
        return None
    return message if message.agent_id == agent.id else None
