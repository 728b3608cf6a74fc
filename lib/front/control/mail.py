"""Verbs about messages: send, inbox, messages, resend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from lib import agents, delivery, history, hub, messages, store
from lib.errors import OrchestratorError, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller, ensure_scheduler
from lib.models import PENDING, Agent, Message, MessageKind, MessageStatus, Priority

#: How long `send` waits for an agent that could take the message at once.
DEFAULT_WAIT_SECONDS = 5.0


def message_text(words: Sequence[str], path: Path | None = None) -> str:
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


@cli.verb(
    main,
    examples="""
    claude_control.py send webapp-impl:1 "Please implement the login endpoint"
    claude_control.py send webapp-impl:developer --file notes.md
    claude_control.py send webapp-impl:developer --priority high "The API has changed"
    claude_control.py send webapp-impl:developer --command /compact
    claude_control.py send build-1/webapp-impl:developer "The API is at v2"
    claude_control.py send --hub webapp-impl:tester "Deployed the API to staging"
    """,
    text_arguments=True,
)
@click.argument("target")
@click.argument("words", metavar="MESSAGE", nargs=-1)
@click.option("--file", "path", type=click.Path(path_type=Path), metavar="PATH", help="Send what this file holds.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait this long for the acknowledgement (default 5).")
@click.option("--no-wait", is_flag=True, help="Record it and leave the delivery to the scheduler.")
@click.option(
    "--priority",
    type=click.Choice([priority.name.lower() for priority in Priority]),
    default="normal",
    help="What goes first; emergency goes in between two tool calls.",
)
@click.option("--command", "is_command", is_flag=True, help="MESSAGE is a slash command, such as /compact.")
@click.option("--interrupt", is_flag=True, help="End the agent's turn first (Escape).")
@click.option("--hub", "through_hub", is_flag=True, help="Send the Orchestrator a copy of news; log the message.")
@click.option("--no-enforce", is_flag=True, help="With --hub: no copy, only the log.")
@cli.pass_output
def send(
    output: Output,
    target: str,
    words: tuple[str, ...],
    path: Path | None,
    wait: float | None,
    no_wait: bool,
    priority: str,
    is_command: bool,
    interrupt: bool,
    through_hub: bool,
    no_enforce: bool,
) -> int:
    """Send a message to an agent and see it arrive. MESSAGE may be - for standard input.

    TARGET is SESSION:ROLE, SESSION:WINDOW, a pane id, or inside a team just a role; on another host of the fleet
    HOST/SESSION:ROLE. News are what a message says of completion, deployment and failure (docs/hub-and-spoke.md).
    """
    if no_enforce and not through_hub:
        raise Usage("--no-enforce only says something with --hub")
    desk = caller()
    sent = hub.send(
        desk,
        hub.recipient(desk, target, sender=desk.agent),
        message_text(words, path),
        caller=desk.agent,
        sender=desk.name,
        wait_seconds=0.0 if no_wait else DEFAULT_WAIT_SECONDS if wait is None else wait,
        kind=MessageKind.COMMAND if is_command else MessageKind.MESSAGE,
        priority=Priority[priority.upper()],
        interrupt=interrupt,
        through_hub=through_hub,
        enforce=not no_enforce,
    )
    output.answer(what_is_known_of(desk, sent), data_of_sent(desk, sent))
    return _see_to(output, desk, sent.message, sent.copy)


def tell(output: Output, desk: delivery.Desk, message: Message) -> int:
    """Print what is known of a message, have the rest done later, and return the exit code."""
    agent = agents.get(desk.db, message.agent_id)
    output.answer(what_is_known(message, agent), data_of(message, agent))
    return _see_to(output, desk, message)


def _see_to(output: Output, desk: delivery.Desk, message: Message, copy: Message | None = None) -> int:
    """Have what has not arrived be delivered later. Returns the exit code."""
    if any(one.status in PENDING for one in (message, copy) if one):
        ensure_scheduler(output, desk)
    return 1 if message.status is MessageStatus.FAILED else 0


def what_is_known_of(desk: delivery.Desk, sent: hub.Sent) -> str:
    """Where a message is that was sent under the policy, and where its copy is."""
    agent = agents.get(desk.db, sent.message.agent_id)
    text = what_is_known(sent.message, agent)
    if sent.route and sent.is_rerouted:
        text += f", instead of {sent.intended.target}: the policy's rule {sent.route.rule!r}"
    if sent.copy:
        text += f"; copy to {agents.get(desk.db, sent.copy.agent_id).role}: {_progress(sent.copy)}"
    return text


def what_is_known(message: Message, agent: Agent) -> str:
    """Where a message is, as a line for its sender."""
    name = f"message {message.id} to {agent.target}"
    if message.status is MessageStatus.ACKNOWLEDGED:
        return f"{_progress(message)}: {name}"
    return f"{_progress(message)} ({name})"


def _progress(message: Message) -> str:
    match message.status:
        case MessageStatus.ACKNOWLEDGED:
            seconds = ((message.acknowledged_at or message.queued_at) - message.queued_at) / 1000
            return f"acknowledged in {seconds:.1f} s"
        case MessageStatus.QUEUED:
            return f"queued: {message.reason or 'the scheduler delivers it'}"
        case _:
            return f"{message.status}: {message.reason or 'delivered, not confirmed'}"


def data_of_sent(desk: delivery.Desk, sent: hub.Sent) -> dict[str, Any]:
    """A message that was sent under the policy, for --json."""
    data = data_of(sent.message, agents.get(desk.db, sent.message.agent_id))
    if sent.route:
        data |= {
            "intended": sent.intended.target,
            "class": sent.route.classification.message_class,
            "rule": sent.route.rule,
            "verdict": sent.route.verdict.action,
            "copy": data_of(sent.copy, agents.get(desk.db, sent.copy.agent_id)) if sent.copy else None,
        }
    return data


def data_of(message: Message, agent: Agent) -> dict[str, Any]:
    """A message for --json."""
    return {**vars(message), "target": agent.target, "priority": message.priority.name.lower()}


@cli.verb(main, examples="claude_control.py inbox webapp-impl:developer")
@click.argument("target")
@click.option("--limit", type=click.IntRange(1), default=20, metavar="COUNT", help="How many (default 20).")
@cli.pass_output
def inbox(output: Output, target: str, limit: int) -> None:
    """Show what was sent to an agent, newest last."""
    desk = caller()
    agent = agents.resolve(desk.db, desk.tmux, target, sender=desk.agent)
    _list(output, desk, messages.find(desk.db, agent_id=agent.id, limit=limit))


@cli.verb(
    main,
    "messages",
    examples="""
    claude_control.py messages --state failed
    claude_control.py messages show 17
    """,
)
@click.argument("words", metavar="[show ID]", nargs=-1)
@click.option("--state", type=click.Choice([str(status) for status in MessageStatus]), help="Only these.")
@click.option("--limit", type=click.IntRange(1), default=20, metavar="COUNT", help="How many (default 20).")
@cli.pass_output
def list_or_show(output: Output, words: tuple[str, ...], state: str | None, limit: int) -> None:
    """List messages, newest last; `show ID` prints one with its whole history."""
    desk = caller()
    if words:
        if len(words) != 2 or words[0] != "show" or not (words[1].isdecimal() and len(words[1]) < 19):
            raise Usage(f"unexpected words: {' '.join(words)}", hint="claude_control.py messages show 17")
        _show(output, desk, messages.get(desk.db, int(words[1])))
        return
    status = MessageStatus(state) if state else None
    _list(output, desk, messages.find(desk.db, status=status, limit=limit))


def _list(output: Output, desk: delivery.Desk, found: list[Message]) -> None:
    lines = []
    for message in found:
        first = next((line for line in message.body.splitlines() if line.strip()), "")
        target = agents.get(desk.db, message.agent_id).target
        reason = f"  ({message.reason})" if message.reason else ""
        who = f"{message.sender} -> {target}"
        lines.append(
            f"{message.id:>5}  {clock(message.queued_at)}  {message.status:12}  {who:45}  {first[:60]}{reason}"
        )
    data = [data_of(message, agents.get(desk.db, message.agent_id)) for message in found]
    output.answer("\n".join(lines) or "no messages", data)


def _show(output: Output, desk: delivery.Desk, message: Message) -> None:
    agent = agents.get(desk.db, message.agent_id)
    past = store.events(desk.db, message=message.id)
    lines = [f"message {message.id} from {message.sender} to {agent.target}: {message.status}"]
    lines += [f"  {clock(event.at)}  {history.step(event)}" for event in past]
    data = {**data_of(message, agent), "history": [vars(event) for event in past]}
    output.answer("\n".join([*lines, "", message.body]), data)


@cli.verb(main, examples="claude_control.py resend 17")
@click.argument("message_id", metavar="ID", type=int)
@cli.pass_output
def resend(output: Output, message_id: int) -> int:
    """Send a message that has failed once more, under the same id."""
    desk = caller()
    message = delivery.resend(desk, messages.get(desk.db, message_id), wait_seconds=DEFAULT_WAIT_SECONDS)
    return tell(output, desk, message)


def clock(at: int) -> str:
    """A time of today as people say it, an older one with its day."""
    moment = datetime.fromtimestamp(at / 1000)
    return moment.strftime("%H:%M:%S" if moment.date() == datetime.now().date() else "%Y-%m-%d %H:%M")
