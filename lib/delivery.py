"""Delivery: how a queued message becomes one that the agent itself has acknowledged.

One message is in flight per agent. Each step is recorded before it is taken, so that whoever comes after a crash
knows what may stand in the composer; nothing is typed twice without a look, and no key is pressed into a screen
that is not known (docs/delivery.md has the diagram).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lib import agents, config, holds, host, messages, signals
from lib.claude import transcripts
from lib.composer import Composer
from lib.errors import Busy, Gone, NotFound, OrchestratorError
from lib.judgement import framing, screens
from lib.models import PENDING, Agent, AgentState, Hold, Message, MessageKind, MessageStatus, Priority
from lib.records import dataclass
from lib.tmux import Tmux

#: Claude Code shows a paste of 10 KB within 0.4 s and one of 5,000 lines (2,500 chunks) within 12 s, during which
#: its screen stands still for 6 s.
_SHOWN_WITHIN_SECONDS = 3.0
_SHOWN_SECONDS_PER_CHUNK = 0.02
#: An idle agent acknowledges within 0.4 s; after this long the composer is looked at again.
_LOOK_AGAIN_SECONDS = 2.5
#: Between two readings of a transcript, for an agent that has no hooks of ours.
_TRANSCRIPT_SECONDS = 0.1
#: Between two looks whether something has happened.
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.1
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

    Raises `Gone` when the agent is: nothing is recorded, and nothing typed. `interrupt` ends the
    turn that the agent is in, which is the only way that a key other than Enter reaches an agent at work.
    """
    check_is_there(agent)
    message = messages.queue(desk.db, agent, body, sender=sender, kind=kind, now=host.now_ms(), priority=priority)
    return attempt(desk, agent, message, wait_seconds=wait_seconds, interrupt=interrupt)


def check_is_there(agent: Agent) -> None:
    """Raise `Gone` when an agent is. One that is yet to be started gets what waits for it then."""
    if agent.process is None and not agent.is_guest:
        return  # of an agent of another host only that one knows
    if agents.state_of(agent) is AgentState.GONE:
        hint = "auto_orchestrate.py --project PROJECT --resume"
        raise Gone(f"{agent.target} is gone: its process has ended", hint=hint)


def attempt(desk: Desk, agent: Agent, message: Message, *, wait_seconds: float, interrupt: bool = False) -> Message:
    """Deliver a message that is recorded, if the agent can take it now. Returns it as the ledger then has it."""
    if agent.host:
        from lib.fleet import letters  # noqa: PLC0415 - only a message to another host pays for it

        return letters.follow(desk.db, desk.home, message, wait_seconds=wait_seconds)
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
    if agent.host:
        messages.send_anew(desk.db, message, agent, "sent again by hand", now=host.now_ms())
        return attempt(desk, agent, messages.get(desk.db, message.id), wait_seconds=wait_seconds)
    if agents.state_of(agent) is AgentState.GONE:
        raise Gone(f"{agent.target} is gone: its process has ended", hint="claude_control.py status")
    messages.requeue(desk.db, message, agent, "sent again by hand", now=host.now_ms())
    deliver(desk, agent, until=message.id, wait_seconds=wait_seconds)
    return messages.get(desk.db, message.id)


def interrupt(desk: Desk, agent: Agent) -> str | None:
    """End the turn that an agent is in. Returns None when it has none any more, else what is in the way."""
    try:
        with host.lock(lock_of(desk, agent), wait_seconds=_INTERRUPTED_WITHIN_SECONDS):
            composer = Composer(desk.tmux, agent)
            if composer.look() and composer.interrupt(within_seconds=_INTERRUPTED_WITHIN_SECONDS):
                return None
            return f"{agent.role} has not stopped for the interrupt"
    except Busy:
        return f"another message to {agent.role} is on its way"


def _interrupt(desk: Desk, agent: Agent, message: Message) -> None:
    if reason := interrupt(desk, agent):  # the message is recorded all the same, and comes after the other
        messages.hold(desk.db, message, reason)


def deliver(desk: Desk, agent: Agent, *, until: int | None = None, wait_seconds: float = 0.0) -> None:
    """Deliver what waits for an agent, in order: all of it, or up to the message `until`.

    Returns when that is done, when something is in the way (the message's `reason` says what), or after
    `wait_seconds` without an acknowledgement. Who comes while another delivers to the same agent waits for
    `until` to arrive by the other's hand.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            with host.lock(lock_of(desk, agent)):
                _deliver_in_order(desk, agent, until, deadline)
                return
        except Busy:
            if until is None or not _is_pending(desk, until):
                return
            if time.monotonic() >= deadline:
                message = messages.get(desk.db, until)
                messages.hold(desk.db, message, message.reason or f"another message to {agent.role} is on its way")
                return
            time.sleep(0.02)


def lock_of(desk: Desk, agent: Agent) -> Path:
    """Who types to an agent holds this."""
    return desk.home / "locks" / f"agent-{agent.id}.lock"


def _is_pending(desk: Desk, message_id: int) -> bool:
    return messages.get(desk.db, message_id).status in PENDING


def _deliver_in_order(desk: Desk, agent: Agent, until: int | None, deadline: float) -> None:
    signals.ingest(desk.db, desk.home)
    if agent.is_guest:
        agent = agents.follow_guest(desk.db, agent)
        if agents.state_of(agent) is AgentState.GONE:
            _give_up(desk, agent)
            return
        from lib import governor  # noqa: PLC0415 - only a guest's message pays for it

        governor.look_at_guest(desk.db, agent, now=host.now_ms(), terms=config.LimitSettings())
    while waiting := messages.pending(desk.db, agent.id):
        message = _next(desk, agent, waiting)
        if message is None:
            return
        try:
            reason = _bring(desk, agent, message, deadline)
        except NotFound:  # the window, or the whole tmux server, has gone since the look: how far it came is recorded
            reason = f"{agent.role}'s window has gone"
        if reason:
            messages.hold(desk.db, message, reason)
            _hold_behind(desk, message, until, reason)
            return
        if until is not None and not _is_pending(desk, until):
            return


def keep_waiting(db: sqlite3.Connection, agent: Agent, waiting: Sequence[Message], hold: Hold, *, now: int) -> None:
    """Note why all this waits, which then comes as one message where that is allowed."""
    messages.hold_back(db, agent, hold.why, now=now)
    for message in waiting:
        messages.hold(db, message, hold.why)


def _hold_behind(desk: Desk, first: Message, until: int | None, reason: str) -> None:
    """The one that somebody waits for waits for the same."""
    if until is not None and until != first.id:
        is_free = first.status is MessageStatus.QUEUED
        messages.hold(desk.db, messages.get(desk.db, until), reason if is_free else f"message {first.id} goes first")


def _give_up(desk: Desk, agent: Agent) -> None:
    """A guest that has ended does not come back: what it has not got has failed."""
    for message in messages.pending(desk.db, agent.id):
        if message.status is MessageStatus.QUEUED or not _look_in_transcript(desk, agent, message, 0):
            messages.fail(desk.db, message, agent, "the Claude Code that it was for has ended", now=host.now_ms())


def _next(desk: Desk, agent: Agent, waiting: list[Message]) -> Message | None:
    """The message to bring now: the first, unless something holds the agent or its rate. What was held is a digest."""
    first = waiting[0]
    if first.status is not MessageStatus.QUEUED:
        return first
    now = host.now_ms()
    if hold := holds.of(desk.db, agent):
        let_through = (one for one in waiting if not holds.keeps_back(hold, agent, one))
        if (passing := next(let_through, None)) is not None:
            return passing
        keep_waiting(desk.db, agent, waiting, hold, now=now)
        return None
    if not messages.is_under_rate(first):
        return first
    place_at = messages.next_place(desk.db, agent, now=now)
    if place_at is not None:
        when = datetime.fromtimestamp(place_at / 1000).strftime("%H:%M:%S")
        reason = f"{agent.role} gets {agent.messages_per_minute} a minute; the next goes at {when}"
        messages.hold_back(desk.db, agent, reason, now=now)
        return None
    if any(message.held for message in waiting):  # what has come since then goes along
        messages.hold_back(desk.db, agent, "goes with those before it", now=now)
    messages.bundle_held(desk.db, agent, now=now)
    return messages.pending(desk.db, agent.id)[0]


def _bring(desk: Desk, agent: Agent, message: Message, deadline: float) -> str | None:
    """Bring one message to its acknowledgement. Returns None, or what is in the way."""
    composer = Composer(desk.tmux, agent)
    if message.pasted_at and _look_in_transcript(desk, agent, message, 0):
        return None
    start = _transcript_size(agent)
    if message.status is MessageStatus.QUEUED:
        obstacle = _obstacle(desk, composer, between_tools=message.priority is Priority.EMERGENCY)
        if obstacle and not _has_come_late(composer, message):
            return obstacle
        trouble = _submit_late(desk, composer, message) if obstacle else _type(desk, composer, message)
    else:
        start = 0
        trouble = _settle(desk, composer, message)
    return trouble or _await_acknowledgement(desk, composer, messages.get(desk.db, message.id), start, deadline)


def _obstacle(desk: Desk, composer: Composer, *, between_tools: bool = False) -> str | None:
    return composer.obstacle(
        between_tools=between_tools,
        is_over=lambda message_id: not messages.is_under_way(desk.db, composer.agent.id, message_id),
    )


def _has_come_late(composer: Composer, message: Message) -> bool:
    """Whether an idle agent shows a message that was pasted and given up: its window had stood still."""
    is_idle = agents.state_of(composer.agent) is AgentState.IDLE
    return message.pasted_at is not None and is_idle and composer.ends_with(_last_line(message))


def _submit_late(desk: Desk, composer: Composer, message: Message) -> str | None:
    if not messages.pasting(desk.db, message, composer.agent, now=host.now_ms()):
        return "it does not wait any more"
    return _submit(desk, composer, message)


def _type(desk: Desk, composer: Composer, message: Message) -> str | None:
    if not messages.pasting(desk.db, message, composer.agent, now=host.now_ms()):
        return "it does not wait any more"  # its team has ended since it was read
    composer.put(framing.chunks(_typed(message)))
    if not _is_shown(composer, _last_line(message), _patience_seconds(message)):
        return f"pasted to {composer.agent.role}, whose composer does not show all of it"
    return _submit(desk, composer, message)


def _patience_seconds(message: Message) -> float:
    return _SHOWN_WITHIN_SECONDS + _SHOWN_SECONDS_PER_CHUNK * sum(1 for _ in framing.chunks(_typed(message)))


def _is_shown(composer: Composer, last_line: str, patience_seconds: float) -> bool:
    """Whether the composer comes to show the end of a paste; false when nothing has changed for so long."""
    before, began = composer.draft(), time.monotonic()
    changed_at = began
    while not screens.ends_with_line(before or "", last_line):
        if time.monotonic() >= changed_at + patience_seconds:
            return False
        _pause(began)
        draft = composer.draft()
        if draft != before:
            before, changed_at = draft, time.monotonic()
    return True


def _pause(began: float) -> None:
    """Until the next look for what began then: a tenth of the time so far, since looking takes what others wait for."""
    time.sleep(min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, (time.monotonic() - began) / 10)))


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
    agent, now = composer.agent, host.now_ms()
    if composer.ends_with(_last_line(message)):
        # Enter may just have been pressed by somebody else, and not be shown yet: then another one would submit the
        # draft that was put aside, which comes back after the first.
        is_fresh = message.submitted_at is not None and 0 <= now - message.submitted_at < _LOOK_AGAIN_SECONDS * 1000
        return None if is_fresh else _submit(desk, composer, message)
    age = now - max(message.pasted_at or 0, message.submitted_at or 0)
    is_young = age < _LOST_AFTER_MS + _patience_seconds(message) * 1000
    if message.kind is MessageKind.COMMAND and is_young:
        return _close_dialog(desk, composer, message)
    if is_young and composer.draft():
        # It may be the beginning of the message: what is put aside now would be torn apart.
        return f"pasted to {agent.role}, whose composer does not show all of it"
    obstacle = _obstacle(desk, composer)
    if obstacle:
        return obstacle
    if is_young:
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
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    return path.stat().st_size if path else 0


def _look_in_transcript(desk: Desk, agent: Agent, message: Message, start: int) -> bool:
    """Whether the agent's own transcript, from a position on, settles a message since it was pasted."""
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    if path is None:
        return False
    now, since = host.now_ms(), message.pasted_at or 0
    if message.kind is MessageKind.COMMAND:
        ran = transcripts.ran_command(path, message.body, start=start, since=since)
        if ran:
            messages.confirm(desk.db, agent, message, now=now)
        return ran
    mark = framing.head(message.id, message.sender)
    found = [prompt for prompt in transcripts.prompts(path, start=start, since=since) if mark in prompt]
    if any(messages.acknowledge(desk.db, agent, prompt, proof="transcript", now=now) for prompt in found):
        return True
    return any(_settle_changed(desk, agent, message, prompt) for prompt in found)


def _settle_changed(desk: Desk, agent: Agent, message: Message, prompt: str) -> bool:
    """Whether a prompt is this message with something before, in or after it; it is never sent again then."""
    framed = framing.unframe(prompt) or framing.unframe(framing.unwrap(prompt))
    if framing.tail(message.id) not in prompt or (framed and framed[0] != message.id):
        return False  # a quotation
    if _typed(message) in prompt:  # a person has typed before or after it
        messages.confirm(desk.db, agent, message, now=host.now_ms())
    else:
        reason = f"{agent.role} has got it with changes: look at its window"
        messages.fail(desk.db, message, agent, reason, now=host.now_ms())
    return True


def _close_dialog(desk: Desk, composer: Composer, message: Message) -> str | None:
    """Close the dialog that a command on its way has opened: nobody may be there, and all others would wait for it.

    It is the only key but Enter that is pressed without being asked for, and only for this.
    """
    agent = composer.agent
    if not composer.close_dialog():
        return None
    if not _look_in_transcript(desk, agent, message, 0):  # /model leaves an entry when it is closed, /cost none
        messages.fail(desk.db, message, agent, "it has opened a dialog, which was closed again", now=host.now_ms())
    return None


def _await_acknowledgement(desk: Desk, composer: Composer, message: Message, start: int, deadline: float) -> str | None:
    has_hooks = not composer.agent.is_guest and message.kind is not MessageKind.COMMAND
    began = time.monotonic()
    look_again = began + _LOOK_AGAIN_SECONDS
    read_again = began + (_LOOK_AGAIN_SECONDS if has_hooks else _TRANSCRIPT_SECONDS)
    while True:
        signals.ingest(desk.db, desk.home)
        if not _is_pending(desk, message.id):  # acknowledged, or cancelled with its team
            return None
        now = time.monotonic()
        if now >= read_again:
            read_again = now + _TRANSCRIPT_SECONDS
            if _look_in_transcript(desk, composer.agent, message, start):
                return None
            if message.kind is MessageKind.COMMAND:
                _close_dialog(desk, composer, message)
        if now >= deadline:
            return "delivered, not confirmed"
        if now >= look_again:
            look_again = now + _LOOK_AGAIN_SECONDS
            if composer.ends_with(_last_line(message)):
                # The text stands there once, so another Enter cannot submit it twice.
                _submit(desk, composer, message)
        _pause(began)
