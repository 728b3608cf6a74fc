"""Hub and spoke: sending under the policy, the copies that keep the Orchestrator informed, and the log of both."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib import agents, config, delivery, host, messages, store, templates
from lib.errors import NotFound, OrchestratorError
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, AgentState, Event, Message, MessageKind, Priority
from lib.records import dataclass

if TYPE_CHECKING:
    from lib.judgement.routing import Classification, Policy, Verdict

#: The event that is a line of the compliance log.
ROUTED = "message.routed"

#: The Orchestrator is often at work: then its copy stays queued, and whoever delivers next brings it.
_COPY_WAIT_SECONDS = 2.0

# Plain constants and no templates: rendering would cost a send 60 ms.
_COPY = "Copy for you: message {id} from {sender} to {recipient} ({message_class}).\n\n{body}"
_REROUTED = (
    "Message from {sender} that was meant for {recipient}; the policy's rule {rule!r} brings it to you."
    " Hand it on if it should go there.\n\n{body}"
)


def recipient(desk: delivery.Desk, target: str, *, sender: Agent | None) -> Agent:
    """The agent that a message to `target` is for, here or on another host of the fleet. Raises `NotFound`, `Usage`."""
    if "/" not in target:
        try:
            return agents.resolve(desk.db, desk.tmux, target, sender=sender)
        except NotFound:
            if ":" not in target:
                raise
    from lib.fleet import addressing  # noqa: PLC0415 - who names an agent of this host does not pay for it

    return addressing.resolve(desk.db, desk.tmux, target, sender=sender)


@dataclass(frozen=True)
class Sent:
    """A message, for whom it was meant, and what routing made of it; `route` is None when it just went."""

    message: Message
    intended: Agent
    route: Route | None = None
    copy: Message | None = None

    @property
    def is_rerouted(self) -> bool:
        return self.message.agent_id != self.intended.id


def send(
    desk: delivery.Desk,
    agent: Agent,
    body: str,
    *,
    caller: Agent | None,
    sender: str,
    wait_seconds: float,
    kind: MessageKind = MessageKind.MESSAGE,
    priority: Priority = Priority.NORMAL,
    interrupt: bool = False,
    through_hub: bool = False,
    enforce: bool = True,
) -> Sent:
    """Send a message as the policy wants it; `through_hub` sends the Orchestrator a copy of news, unless not `enforce`.

    `caller` is the agent that sends, None for a person. Raises what `delivery.send` raises, and
    `OrchestratorError` with the rule's name when the policy forbids it: then only the log knows of it.
    """
    if agent.host:
        from lib.fleet import letters  # noqa: PLC0415 - only a message to another host pays for it

        letters.check(agent, body, interrupt=interrupt)
        sender = letters.sender_of(caller, sender)
    verdict = _verdict(caller, agent)
    if not through_hub and (verdict is None or verdict.action == "allow"):
        message = delivery.send(
            desk,
            agent,
            body,
            sender=sender,
            wait_seconds=wait_seconds,
            kind=kind,
            priority=priority,
            interrupt=interrupt,
        )
        return Sent(message, agent)
    body = messages.cleaned(body, kind)
    from lib.judgement import routing  # noqa: PLC0415 - an everyday send asks for no route, and its patterns cost 10 ms

    route = Route(desk, caller, sender, agent, routing.classify(body, kind), verdict or routing.ALLOWED)
    if route.verdict.action is routing.Action.REFUSE:
        raise route.refuse()
    if route.verdict.action is routing.Action.HUB:
        return route.send_to_hub(body, priority=priority, wait_seconds=wait_seconds)
    delivery.check_is_there(agent)
    with store.writing(desk.db):
        message = messages.queue(desk.db, agent, body, sender=sender, kind=kind, now=host.now_ms(), priority=priority)
        copy = route.queue_copy(message) if enforce else None
        route.log(message, copy)
    message = delivery.attempt(desk, agent, message, wait_seconds=wait_seconds, interrupt=interrupt)
    if copy:
        copy = _bring_copy(desk, copy, wait_seconds=min(wait_seconds, _COPY_WAIT_SECONDS))
    return Sent(message, agent, route, copy)


@dataclass(frozen=True)
class Route:
    """One message on its way: from whom, for whom, what it is, and what the policy says."""

    desk: delivery.Desk
    caller: Agent | None
    sender: str
    recipient: Agent
    classification: Classification
    verdict: Verdict

    @property
    def rule(self) -> str:
        from lib.judgement import routing  # noqa: PLC0415 - it is loaded when there is a route

        return routing.deciding_rule(self.classification, self.verdict)

    @property
    def hub(self) -> Agent | None:
        """The Orchestrator that hears of it: the one of the sender's team, and of the recipient's for a person."""
        team = self.caller.orchestration_id if self.caller else self.recipient.orchestration_id
        return agents.in_role(self.desk.db, team, ORCHESTRATOR) if team else None

    def refuse(self, why: str = "") -> OrchestratorError:
        """Log the refusal. Returns its error."""
        from lib.judgement import routing  # noqa: PLC0415 - as in `rule`

        refused = replace(self, verdict=routing.Verdict(routing.Action.REFUSE, self.verdict.rule))
        with store.writing(self.desk.db):
            refused.log(None, None)
        return OrchestratorError(
            f"the policy's rule {self.verdict.rule!r} does not let {self.sender} write to {self.recipient.role}{why}",
            hint=f"ask the orchestrator, or change {config.policy_path()}",
        )

    def send_to_hub(self, body: str, *, priority: Priority, wait_seconds: float) -> Sent:
        """Bring the message to the Orchestrator instead, as a text: it is for it to read, whatever it was."""
        hub = self.hub
        if hub is None:
            raise self.refuse(": it goes through the orchestrator, and the team has none")
        delivery.check_is_there(hub)
        names = {"sender": self.sender, "recipient": self.recipient.role, "rule": self.verdict.rule}
        with store.writing(self.desk.db):
            message = messages.queue(
                self.desk.db,
                hub,
                _REROUTED.format(**names, body=body),
                sender=self.sender,
                kind=MessageKind.MESSAGE,
                now=host.now_ms(),
                priority=priority,
            )
            self.log(message, None)
        message = delivery.attempt(self.desk, hub, message, wait_seconds=wait_seconds)
        return Sent(message, self.recipient, self)

    def queue_copy(self, message: Message) -> Message | None:
        """Record the Orchestrator's copy, if the message is news that it would not have otherwise."""
        hub = self.hub
        if not self.classification.is_news or hub is None:
            return None
        if hub.id in (self.recipient.id, self.caller.id if self.caller else None):
            return None
        text = _COPY.format(
            id=message.id,
            sender=self.sender,
            recipient=self.recipient.role,
            message_class=self.classification.message_class,
            body=message.body,
        )
        # At the priority of everyday: copies of an alarm are under the rate like any other.
        return messages.queue(self.desk.db, hub, text, sender=self.sender, kind=MessageKind.COPY, now=host.now_ms())

    def log(self, message: Message | None, copy: Message | None) -> None:
        """Write the line of the compliance log; call it in the transaction of the messages."""
        store.record(
            self.desk.db,
            ROUTED,
            now=host.now_ms(),
            orchestration=self.recipient.orchestration_id,
            agent=self.recipient.id,
            message=message.id if message else None,
            sender=self.caller.target if self.caller else self.sender,
            recipient=self.recipient.target,
            verdict=self.verdict.action,
            rule=self.rule,
            copied=copy is not None,
            copy_id=copy.id if copy else None,
            **{"class": self.classification.message_class},
        )


def _bring_copy(desk: delivery.Desk, copy: Message, *, wait_seconds: float) -> Message:
    hub = agents.get(desk.db, copy.agent_id)
    if agents.state_of(hub) is AgentState.GONE:
        messages.hold(desk.db, copy, f"{hub.role} is gone; it gets this when the team is resumed")
        return messages.get(desk.db, copy.id)
    return delivery.attempt(desk, hub, copy, wait_seconds=wait_seconds)


# -- the policy --


def _verdict(caller: Agent | None, agent: Agent) -> Verdict | None:
    """What the policy says, or None where there is none: for people, guests, other teams and oneself."""
    if caller is None or caller.is_guest or caller.orchestration_id != agent.orchestration_id or caller.id == agent.id:
        return None
    path = config.policy_path()
    if not path.exists():
        return None
    from lib.judgement import routing  # noqa: PLC0415 - only who has a policy pays for it

    return routing.decide(read_policy(path), caller.role, agent.role, hub=ORCHESTRATOR)


def read_policy(path: Path) -> Policy:
    """Read a policy.yaml. Raises `OrchestratorError` naming the file, and the rule that is wrong.

    A policy that cannot be read stops every send of a team: to take it for no policy would let everything go.
    """
    from lib.judgement import routing  # noqa: PLC0415 - as in `send`

    entries = config.read_yaml(path, hint='any role is "*", in quotes')
    try:
        return routing.parse_policy(entries, roles=templates.role_names())
    except OrchestratorError as error:
        raise OrchestratorError(f"{path}: {error.sentence}", hint=error.hint) from None


# -- the compliance log --


def compliance(db: sqlite3.Connection, *, since: int, session: str | None = None) -> list[Event]:
    """Every routed message since a time (UTC milliseconds), oldest first; of one session, when named."""
    found = store.events(db, kind=ROUTED, since=since, limit=-1)  # SQLite: no limit
    return [event for event in found if session is None or session in _sessions(event)]


def _sessions(event: Event) -> set[str]:
    return {str(event.data[side]).rpartition(":")[0] for side in ("sender", "recipient")}
