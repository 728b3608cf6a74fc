"""What claude_control.py does and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import agents, delivery, host, store
from lib.cli import Output
from lib.errors import NotFound, OrchestratorError, Unavailable, Usage
from lib.models import Agent, AgentState, Message, MessageStatus
from lib.tmux import Tmux

PERSON = "user"
#: How long `send` waits for an idle agent.
DEFAULT_WAIT_SECONDS = 5.0


def message_text(words: Sequence[str], path: Path | None) -> str:
    """The text of a message: from the arguments, from standard input (-), or from a file."""
    if path is not None:
        if words:
            raise Usage("give MESSAGE or --file, not both")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise OrchestratorError(f"{path} is not UTF-8 text") from None
    if not words:
        raise Usage("the message is missing", hint='claude_control.py send TARGET "MESSAGE"')
    if list(words) == ["-"]:
        return sys.stdin.read()
    return " ".join(words)


def send(output: Output, home: Path, target: str, text: str, *, wait_seconds: float | None) -> int:
    """Send, and print what is known: acknowledged, queued and why, or not confirmed."""
    db, tmux = store.connect(home), Tmux.from_environment()
    sender = agents.myself(db, tmux)
    agent = agents.resolve(db, tmux, target, sender=sender)
    wait = DEFAULT_WAIT_SECONDS if wait_seconds is None else wait_seconds
    began = host.now_ms()
    message = delivery.send(
        delivery.Desk(db, tmux, home),
        agent,
        text,
        sender=sender.role if sender else PERSON,
        wait_seconds=wait,
    )
    output.answer(_what_is_known(message, agent, began), _message_data(message, agent))
    if message.status is MessageStatus.FAILED:
        return 1
    if message.status is not MessageStatus.ACKNOWLEDGED:
        ensure_scheduler(output, home)
    return 0


def _what_is_known(message: Message, agent: Agent, began: int) -> str:
    name = f"message {message.id} to {agent.target}"
    match message.status:
        case MessageStatus.ACKNOWLEDGED:
            return f"acknowledged in {((message.acknowledged_at or began) - message.queued_at) / 1000:.1f} s: {name}"
        case MessageStatus.QUEUED:
            return f"queued: {message.reason or 'the scheduler delivers it'} ({name})"
        case _:
            return f"{message.status}: {message.reason or 'not confirmed yet'} ({name})"


def _message_data(message: Message, agent: Agent) -> dict[str, object]:
    return {
        "id": message.id,
        "target": agent.target,
        "sender": message.sender,
        "status": message.status,
        "reason": message.reason,
        "queued_at": message.queued_at,
        "submitted_at": message.submitted_at,
        "acknowledged_at": message.acknowledged_at,
    }


def ensure_scheduler(output: Output, home: Path) -> None:
    """Something waits to be done later: have somebody who does it, or say that nobody will."""
    from lib import config, daemon  # noqa: PLC0415 - 30 ms that a message which has arrived need not pay

    if daemon.running(home):
        host.wake(home)
    elif config.load().auto_start:
        process = daemon.start(home)
        output.say(f"started the scheduler (pid {process.pid})")
    else:
        output.say("the scheduler is not running, and auto_start is off: start it with scheduler.py --daemon")


def complete(output: Output, home: Path, role: str, summary: str, session: str | None) -> None:
    """Report completion for a role, and print what followed."""
    from lib import orchestrations, reports  # noqa: PLC0415 - asks git; the other verbs need neither

    db, tmux = store.connect(home), Tmux.from_environment()
    sender = agents.myself(db, tmux)
    team = agents.of_orchestration(db, agents.team_of(db, session, sender))
    agent = next((mate for mate in team if mate.role == role), None)
    if agent is None:
        raise NotFound(f"no role {role!r} in {team[0].session}", hint=f"roles: {', '.join(mate.role for mate in team)}")
    by = sender.role if sender else PERSON
    message = reports.complete(db, agent, summary, sender=by, now=host.now_ms())
    found = orchestrations.get(db, agent.orchestration_id)
    if message is None:
        text = f"recorded: {role} is done; the orchestration {found.session} is {found.status}"
    else:
        hub = agents.get(db, message.agent_id)
        # The hub is often busy: the report is recorded, and whoever delivers next brings it.
        if delivery.state_of(hub) is not AgentState.GONE:
            delivery.deliver(delivery.Desk(db, tmux, home), hub, until=message.id, wait_seconds=1.0)
        text = f"recorded: {role} is done; reported to {hub.target}"
        ensure_scheduler(output, home)
    output.answer(text, {"role": role, "session": found.session, "orchestration": found.status})


def attach_command(home: Path, target: str | None) -> list[str]:
    """The tmux command that shows a team or an agent, in a terminal or inside tmux."""
    db, tmux = store.connect(home), Tmux.from_environment()
    if target and (":" in target or target.startswith("%")):
        agent = agents.resolve(db, tmux, target)
        if agent.pane_id is None:
            raise Unavailable(f"{agent.target} has no window yet", hint="claude_control.py status")
        place = agent.pane_id
    else:
        place = f"={agents.of_orchestration(db, agents.team_of(db, target, None))[0].session}"
    if not tmux.has_target(place):
        raise NotFound(f"the tmux session of {target or place[1:]} is gone", hint="auto_orchestrate.py --resume")
    inside = os.environ.get("TMUX", "").split(",")[0]
    return tmux.command("switch-client" if inside and tmux.is_at(inside) else "attach-session", "-t", place)


def stop(output: Output, home: Path, session: str | None) -> None:
    """Stop a team and say what it leaves."""
    from lib import stopping  # noqa: PLC0415 - asks git; the other verbs need not

    db, tmux = store.connect(home), Tmux.from_environment()
    found, leftovers = stopping.stop(db, tmux, agents.team_of(db, session, None), now=host.now_ms())
    lines = [f"{found.session}: {found.status}; its agents have ended, worktrees and branches stay"]
    for left in leftovers:
        state = f"{left.unmerged} unmerged commits" if left.unmerged else "nothing unmerged"
        lines.append(f"  {left.role:20} {state}{', uncommitted changes' if left.dirty else ''}  {left.worktree}")
    if any(left.unmerged for left in leftovers):
        lines.append(f"to see a branch's work: git -C {found.project} log {found.starting_commit[:12]}..BRANCH")
    data = {"session": found.session, "status": found.status, "left": [vars(left) for left in leftovers]}
    output.answer("\n".join(lines), data)


def status(output: Output, home: Path, session: str | None) -> None:
    """Print the teams and their agents."""
    from lib import daemon, status  # noqa: PLC0415 - the view's own rooms

    db = store.connect(home)
    found = status.snapshot(db, now=host.now_ms(), session=session)
    if session is not None and not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    scheduler = daemon.running(home)
    text = status.as_text(found, now=host.now_ms())
    text += f"\nscheduler: {f'running (pid {scheduler.pid})' if scheduler else 'not running'}"
    data = {"orchestrations": status.as_data(found), "scheduler_pid": scheduler.pid if scheduler else None}
    output.answer(text, data)
