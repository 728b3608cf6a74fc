"""Delivery: how a queued message becomes one that the agent itself has acknowledged.

One message is in flight per agent. Each step is recorded before it is taken, so that whoever comes after a crash
knows what may stand in the composer; nothing is typed twice without a look, and no key is pressed into a screen
that is not known (docs/delivery.md has the diagram).
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from lib import claude, framing, host, messages, screens, signals
from lib.errors import Busy, NotFound, Unavailable
from lib.models import Agent, AgentState, Message, MessageKind, MessageStatus
from lib.tmux import Look, Tmux

#: Claude Code shows a paste of 10 KB within 0.4 s and one of 100 KB within 5 s.
_SHOWN_WITHIN_SECONDS = 3.0
_SHOWN_SECONDS_PER_CHARACTER = 1e-4
#: An idle agent acknowledges within 0.4 s; after this long the composer is looked at again.
_LOOK_AGAIN_SECONDS = 2.5
#: How long after Enter a message that is nowhere to be found counts as lost.
_LOST_AFTER_MS = 10_000
_ATTEMPTS = 3


@dataclass(frozen=True)
class Desk:
    """What delivering takes: the ledger, the terminal, and the state home with spool and locks."""

    db: sqlite3.Connection
    tmux: Tmux
    home: Path


def state_of(agent: Agent) -> AgentState:
    """What an agent does right now, by its process and its own session file."""
    if agent.process is None or not host.is_alive(agent.process):
        return AgentState.GONE
    return claude.state(agent.config_dir, agent.conversation_id, agent.process)


def deliver(desk: Desk, agent: Agent, *, until: int | None = None, wait_seconds: float = 0.0) -> None:
    """Deliver what waits for an agent, in order: all of it, or up to the message `until`.

    Returns when that is done, when something is in the way (the message's `reason` says what), or after
    `wait_seconds` without an acknowledgement. Who comes while another delivers to the same agent waits for
    `until` to arrive by the other's hand.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            with host.lock(desk.home / "locks" / f"agent-{agent.id}.lock"):
                _deliver_in_order(desk, agent, until, deadline)
                return
        except Busy:
            if until is None or time.monotonic() >= deadline or _has_arrived(desk, until):
                return
            time.sleep(0.02)


def _has_arrived(desk: Desk, message_id: int) -> bool:
    return messages.get(desk.db, message_id).status not in (
        MessageStatus.QUEUED,
        MessageStatus.PASTED,
        MessageStatus.SUBMITTED,
    )


def _deliver_in_order(desk: Desk, agent: Agent, until: int | None, deadline: float) -> None:
    signals.ingest(desk.db, desk.home)
    while waiting := messages.pending(desk.db, agent.id):
        message = waiting[0]
        reason = _bring(desk, agent, message, deadline)
        if reason:
            messages.hold(desk.db, message, reason)
            return
        if message.id == until:
            return


def _bring(desk: Desk, agent: Agent, message: Message, deadline: float) -> str | None:
    """Bring one message to its acknowledgement. Returns None, or what is in the way."""
    if message.status is MessageStatus.QUEUED:
        obstacle = _obstacle(desk, agent)
        if obstacle:
            return obstacle
        trouble = _type(desk, agent, message)
    else:
        trouble = _settle(desk, agent, message)
    return trouble or _await_acknowledgement(desk, agent, message, deadline)


def _obstacle(desk: Desk, agent: Agent) -> str | None:
    """Why nothing may be typed to the agent now, or None."""
    look = _look(desk, agent)
    if look is None:
        return f"{agent.role} is gone"
    match state_of(agent):
        case AgentState.GONE:
            return f"{agent.role} is gone"
        case AgentState.STARTING:
            return f"{agent.role} is starting"
        case AgentState.WORKING:
            return f"{agent.role} is working"
        case AgentState.ASKING:
            return f"{agent.role} waits for an answer in its window"
    screen = screens.read(look.screen)
    if screen.kind is not screens.ScreenKind.COMPOSER:
        return f"{agent.role}'s window shows something else than its composer"
    if screen.draft:
        return f"somebody is typing to {agent.role}"
    return None


def _look(desk: Desk, agent: Agent) -> Look | None:
    """The agent's pane, or None when it is not the living process that we started."""
    if agent.pane_id is None or agent.process is None:
        return None
    try:
        look = desk.tmux.look(agent.pane_id)
    except NotFound:
        return None
    return None if look.dead or look.pid != agent.process.pid else look


def _type(desk: Desk, agent: Agent, message: Message) -> str | None:
    assert agent.pane_id and agent.process  # _obstacle has looked
    messages.pasting(desk.db, message, agent, now=host.now_ms())
    text = framing.frame(message.id, message.sender, message.body)
    desk.tmux.paste(agent.pane_id, agent.process.pid, list(framing.chunks(text)))
    shown_by = time.monotonic() + _SHOWN_WITHIN_SECONDS + _SHOWN_SECONDS_PER_CHARACTER * len(text)
    while not _composer_holds(desk, agent, message):
        if time.monotonic() >= shown_by:
            return f"pasted to {agent.role}, whose composer does not show it"
        time.sleep(0.01)
    return _press_enter(desk, agent, message)


def _composer_holds(desk: Desk, agent: Agent, message: Message) -> bool:
    look = _look(desk, agent)
    return look is not None and screens.ends_with_line(screens.read(look.screen).draft, framing.tail(message.id))


def _press_enter(desk: Desk, agent: Agent, message: Message) -> str | None:
    assert agent.pane_id and agent.process  # _composer_holds has looked
    if state_of(agent) is AgentState.ASKING:
        return f"{agent.role} waits for an answer in its window"
    messages.submitting(desk.db, message, agent, now=host.now_ms())
    desk.tmux.press_enter(agent.pane_id, agent.process.pid)
    return None


def _settle(desk: Desk, agent: Agent, message: Message) -> str | None:
    """Find out what became of a message that somebody has pasted or submitted and nobody has seen arrive."""
    if _in_transcript(desk, agent, message):
        return None
    if _composer_holds(desk, agent, message):
        return _press_enter(desk, agent, message)
    obstacle = _obstacle(desk, agent)
    if obstacle:
        return obstacle
    now = host.now_ms()
    if now - max(message.pasted_at or 0, message.submitted_at or 0) < _LOST_AFTER_MS:
        return "delivered, not confirmed"
    if message.attempts >= _ATTEMPTS:
        messages.fail(desk.db, message, agent, f"lost {_ATTEMPTS} times on the way to {agent.role}", now=now)
    else:
        messages.requeue(desk.db, message, agent, "not in the composer and not in the transcript", now=now)
    return "not confirmed; it will be sent again under the same id"


def _in_transcript(desk: Desk, agent: Agent, message: Message) -> bool:
    path = claude.transcript(agent.config_dir, agent.conversation_id)
    if path is None:
        return False
    mark = framing.head(message.id, message.sender)
    found = [prompt for prompt in claude.prompts(path) if mark in prompt]
    return any(messages.acknowledge(desk.db, agent, prompt, proof="transcript", now=host.now_ms()) for prompt in found)


def _await_acknowledgement(desk: Desk, agent: Agent, message: Message, deadline: float) -> str | None:
    look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
    while True:
        signals.ingest(desk.db, desk.home)
        if messages.get(desk.db, message.id).status is MessageStatus.ACKNOWLEDGED:
            return None
        now = time.monotonic()
        if now >= deadline:
            return "delivered, not confirmed"
        if now >= look_again:
            look_again = now + _LOOK_AGAIN_SECONDS
            if _composer_holds(desk, agent, message):
                # The text stands there once, so another Enter cannot submit it twice.
                _press_enter(desk, agent, message)
        time.sleep(0.01)


def send(
    desk: Desk,
    agent: Agent,
    body: str,
    *,
    sender: str,
    wait_seconds: float,
    kind: MessageKind = MessageKind.MESSAGE,
) -> Message:
    """Record a message and deliver it if the agent can take it now. Returns it as the ledger then has it.

    Raises `Unavailable` when the agent is gone: nothing is recorded, and nothing typed.
    """
    if state_of(agent) is AgentState.GONE:
        raise Unavailable(
            f"{agent.target} is gone: its process has ended",
            hint="auto_orchestrate.py --project PROJECT --resume",
        )
    message = messages.queue(desk.db, agent, body, sender=sender, kind=kind, now=host.now_ms())
    if wait_seconds > 0:
        deliver(desk, agent, until=message.id, wait_seconds=wait_seconds)
    return messages.get(desk.db, message.id)
