"""Delivery: how a queued message becomes one that the agent itself has acknowledged.

One message is in flight per agent. Each step is recorded before it is taken, so that whoever comes after a crash
knows what may stand in the composer; nothing is typed twice without a look, and no key is pressed into a screen
that is not known (docs/delivery.md has the diagram).
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lib import agents, claude, framing, host, messages, signals
from lib.composer import Composer
from lib.errors import Busy, OrchestratorError, Unavailable
from lib.models import PENDING, Agent, AgentState, Message, MessageKind, MessageStatus, Priority
from lib.tmux import Tmux

#: Claude Code shows a paste of 10 KB within 0.4 s and one of 100 KB within 5 s.
_SHOWN_WITHIN_SECONDS = 3.0
_SHOWN_SECONDS_PER_CHARACTER = 1e-4
#: An idle agent acknowledges within 0.4 s; after this long the composer is looked at again.
_LOOK_AGAIN_SECONDS = 2.5
#: Between two readings of a transcript, for an agent that has no hooks of ours.
_TRANSCRIPT_SECONDS = 0.1
#: How long after Enter a message that is nowhere to be found counts as lost.
_LOST_AFTER_MS = 10_000
_ATTEMPTS = 3
_INTERRUPTED_WITHIN_SECONDS = 5.0


@dataclass(frozen=True)
class Desk:
    """What delivering takes: the ledger, the terminal, and the state home with spool and locks."""

    db: sqlite3.Connection
    tmux: Tmux
    home: Path


def send(
    desk: Desk,
    agent: Agent,
    body: str,
    *,
    sender: str,
    wait_seconds: float,
    kind: MessageKind = MessageKind.MESSAGE,
    priority: Priority = Priority.NORMAL,
    interrupt: bool = False,
) -> Message:
    """Record a message and deliver it if the agent can take it now. Returns it as the ledger then has it.

    Raises `Unavailable` when the agent is gone: nothing is recorded, and nothing typed. `interrupt` ends the
    turn that the agent is in, which is the only way that a key other than Enter reaches an agent at work.
    """
    if agents.state_of(agent) is AgentState.GONE:
        hint = "auto_orchestrate.py --project PROJECT --resume"
        raise Unavailable(f"{agent.target} is gone: its process has ended", hint=hint)
    message = messages.queue(desk.db, agent, body, sender=sender, kind=kind, now=host.now_ms(), priority=priority)
    if interrupt:
        _interrupt(desk, agent, message)
    if wait_seconds > 0:
        deliver(desk, agent, until=message.id, wait_seconds=wait_seconds)
    return messages.get(desk.db, message.id)


def resend(desk: Desk, message: Message, *, wait_seconds: float) -> Message:
    """Bring a message that has failed once more, under the same id. Raises `OrchestratorError` for any other."""
    if message.status not in (MessageStatus.FAILED, MessageStatus.CANCELLED):
        raise OrchestratorError(
            f"message {message.id} is {message.status}: only one that has failed can be sent again",
            hint=f"claude_control.py messages show {message.id}",
        )
    agent = agents.get(desk.db, message.agent_id)
    if agents.state_of(agent) is AgentState.GONE:
        raise Unavailable(f"{agent.target} is gone: its process has ended", hint="claude_control.py status")
    messages.requeue(desk.db, message, agent, "sent again by hand", now=host.now_ms())
    deliver(desk, agent, until=message.id, wait_seconds=wait_seconds)
    return messages.get(desk.db, message.id)


def _interrupt(desk: Desk, agent: Agent, message: Message) -> None:
    with host.lock(_lock_of(desk, agent), wait_seconds=_INTERRUPTED_WITHIN_SECONDS):
        composer = Composer(desk.tmux, agent)
        if not composer.look() or not composer.interrupt(within_seconds=_INTERRUPTED_WITHIN_SECONDS):
            messages.hold(desk.db, message, f"{agent.role} has not stopped for the interrupt")


def deliver(desk: Desk, agent: Agent, *, until: int | None = None, wait_seconds: float = 0.0) -> None:
    """Deliver what waits for an agent, in order: all of it, or up to the message `until`.

    Returns when that is done, when something is in the way (the message's `reason` says what), or after
    `wait_seconds` without an acknowledgement. Who comes while another delivers to the same agent waits for
    `until` to arrive by the other's hand.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            with host.lock(_lock_of(desk, agent)):
                _deliver_in_order(desk, agent, until, deadline)
                return
        except Busy:
            if until is None or time.monotonic() >= deadline or not _is_pending(desk, until):
                return
            time.sleep(0.02)


def _lock_of(desk: Desk, agent: Agent) -> Path:
    return desk.home / "locks" / f"agent-{agent.id}.lock"


def _is_pending(desk: Desk, message_id: int) -> bool:
    return messages.get(desk.db, message_id).status in PENDING


def _deliver_in_order(desk: Desk, agent: Agent, until: int | None, deadline: float) -> None:
    signals.ingest(desk.db, desk.home)
    while waiting := messages.pending(desk.db, agent.id):
        message = _next(desk, agent, waiting)
        if message is None:
            return
        reason = _bring(desk, agent, message, deadline)
        if reason:
            messages.hold(desk.db, message, reason)
            return
        if until is not None and not _is_pending(desk, until):
            return


def _next(desk: Desk, agent: Agent, waiting: list[Message]) -> Message | None:
    """The message to bring now: the first, unless the agent's rate holds it back. What was held goes as one digest."""
    first = waiting[0]
    if first.status is not MessageStatus.QUEUED or not messages.is_under_rate(first):
        return first
    now = host.now_ms()
    place_at = messages.next_place(desk.db, agent, now=now)
    if place_at is not None:
        when = datetime.fromtimestamp(place_at / 1000).strftime("%H:%M:%S")
        reason = f"{agent.role} gets {agent.messages_per_minute} a minute; the next goes at {when}"
        messages.hold_back(desk.db, agent, reason, now=now)
        return None
    messages.bundle_held(desk.db, agent, now=now)
    return messages.pending(desk.db, agent.id)[0]


def _bring(desk: Desk, agent: Agent, message: Message, deadline: float) -> str | None:
    """Bring one message to its acknowledgement. Returns None, or what is in the way."""
    composer = Composer(desk.tmux, agent)
    start = _transcript_size(agent)
    if message.status is MessageStatus.QUEUED:
        obstacle = composer.obstacle(between_tools=message.priority is Priority.EMERGENCY)
        if obstacle:
            return obstacle
        trouble = _type(desk, composer, message)
    else:
        start = 0
        trouble = _settle(desk, composer, message)
    return trouble or _await_acknowledgement(desk, composer, message, start, deadline)


def _type(desk: Desk, composer: Composer, message: Message) -> str | None:
    if not messages.pasting(desk.db, message, composer.agent, now=host.now_ms()):
        return "it does not wait any more"  # its team has ended since it was read
    text = _typed(message)
    composer.put(framing.chunks(text))
    shown_by = time.monotonic() + _SHOWN_WITHIN_SECONDS + _SHOWN_SECONDS_PER_CHARACTER * len(text)
    while not composer.ends_with(_last_line(message)):
        if time.monotonic() >= shown_by:
            return f"pasted to {composer.agent.role}, whose composer does not show it"
        time.sleep(0.01)
    return _submit(desk, composer, message)


def _typed(message: Message) -> str:
    if message.kind is MessageKind.COMMAND:
        return message.body
    return framing.frame(message.id, message.sender, message.body)


def _last_line(message: Message) -> str:
    return message.body if message.kind is MessageKind.COMMAND else framing.tail(message.id)


def _submit(desk: Desk, composer: Composer, message: Message) -> str | None:
    if agents.state_of(composer.agent) is AgentState.ASKING:
        return f"{composer.agent.role} waits for an answer in its window"
    messages.submitting(desk.db, message, composer.agent, now=host.now_ms())
    composer.submit()
    return None


def _settle(desk: Desk, composer: Composer, message: Message) -> str | None:
    """Find out what became of a message that somebody has pasted or submitted and nobody has seen arrive."""
    agent = composer.agent
    if _in_transcript(desk, agent, message, 0):
        return None
    if composer.ends_with(_last_line(message)):
        return _submit(desk, composer, message)
    obstacle = composer.obstacle()
    if obstacle:
        return obstacle
    now = host.now_ms()
    if now - max(message.pasted_at or 0, message.submitted_at or 0) < _LOST_AFTER_MS:
        return "delivered, not confirmed"
    if message.kind is MessageKind.COMMAND:
        # A command may leave no trace, and running it twice is worse than not knowing.
        messages.fail(desk.db, message, agent, f"{agent.role} gave no sign of having run it", now=now)
        return "not confirmed"
    if message.attempts >= _ATTEMPTS:
        messages.fail(desk.db, message, agent, f"lost {_ATTEMPTS} times on the way to {agent.role}", now=now)
    else:
        messages.requeue(desk.db, message, agent, "not in the composer and not in the transcript", now=now)
    return "not confirmed; it will be sent again under the same id"


def _transcript_size(agent: Agent) -> int:
    path = claude.transcript(agent.config_dir, agent.conversation_id)
    return path.stat().st_size if path else 0


def _in_transcript(desk: Desk, agent: Agent, message: Message, start: int) -> bool:
    """Whether the agent's own transcript, from a position on, holds the message; then it is acknowledged."""
    path = claude.transcript(agent.config_dir, agent.conversation_id)
    if path is None:
        return False
    now = host.now_ms()
    if message.kind is MessageKind.COMMAND:
        # From position 0 an earlier run of the same command would count as this one.
        ran = start > 0 and claude.ran_command(path, message.body, start=start)
        if ran:
            messages.acknowledge_command(desk.db, agent, message, now=now)
        return ran
    mark = framing.head(message.id, message.sender)
    found = [prompt for prompt in claude.prompts(path, start=start) if mark in prompt]
    return any(messages.acknowledge(desk.db, agent, prompt, proof="transcript", now=now) for prompt in found)


def _await_acknowledgement(desk: Desk, composer: Composer, message: Message, start: int, deadline: float) -> str | None:
    has_hooks = not composer.agent.is_guest and message.kind is not MessageKind.COMMAND
    look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
    read_again = time.monotonic() + (_LOOK_AGAIN_SECONDS if has_hooks else _TRANSCRIPT_SECONDS)
    while True:
        signals.ingest(desk.db, desk.home)
        if messages.get(desk.db, message.id).status is MessageStatus.ACKNOWLEDGED:
            return None
        now = time.monotonic()
        if now >= read_again:
            read_again = now + _TRANSCRIPT_SECONDS
            if _in_transcript(desk, composer.agent, message, start):
                return None
        if now >= deadline:
            return "delivered, not confirmed"
        if now >= look_again:
            look_again = now + _LOOK_AGAIN_SECONDS
            if composer.ends_with(_last_line(message)):
                # The text stands there once, so another Enter cannot submit it twice.
                _submit(desk, composer, message)
        time.sleep(0.01)
