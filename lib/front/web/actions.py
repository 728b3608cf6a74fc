"""The API's changes: what the verbs of the doors do, by the same rooms. Who asks is a person."""

from __future__ import annotations

from typing import Any

from lib import (
    agents,
    authorizations,
    delivery,
    dialogs,
    host,
    hub,
    messages,
    orchestrations,
    pauses,
    service,
    stopping,
)
from lib.errors import OrchestratorError
from lib.front.control import mail, team
from lib.front.control.desk import PERSON
from lib.front.web import schemas
from lib.front.web.contract import Contract
from lib.front.web.site import desk, have_scheduler
from lib.models import Agent, AgentState, Message, MessageKind, Priority

contract = Contract("actions")
part = contract.part

#: With a scheduler the page need not wait: it brings the message, and the stream tells how that goes.
_WAIT_SECONDS = 3.0
_LONGEST = 50_000
#: Something of it can be seen: what cannot does not reach an agent.
_TEXT = {"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": r"[^\s\x00-\x1f\x7f-\x9f\xad]"}
_YES = {"type": "boolean"}
_OUTCOME = schemas.things(session=schemas.TEXT, status=schemas.TEXT)


@contract.post(
    "/agents/{agent}/messages",
    "Send a message to an agent. It is recorded when this answers; the stream tells how it arrives.",
    schemas.MESSAGE,
    {
        "text": _TEXT,
        "priority": {"type": "string", "enum": [one.name.lower() for one in Priority]},
        "interrupt": _YES | {"description": "End the agent's turn first."},
    },
    needs=("text",),
    status=201,
)
def send(agent: int, text: str, priority: str = "normal", interrupt: bool = False) -> dict[str, Any]:
    """Record a message, and have it delivered."""
    return _send(agent, text, MessageKind.MESSAGE, Priority[priority.upper()], interrupt)


@contract.post(
    "/agents/{agent}/commands",
    "Have an agent run a slash command, such as /compact.",
    schemas.MESSAGE,
    {"command": {"type": "string", "maxLength": 1000, "pattern": r"^/[A-Za-z][A-Za-z0-9_:-]*( [ -~]*)?$"}},
    needs=("command",),
    status=201,
)
def command(agent: int, command: str) -> dict[str, Any]:
    """Record a command, and have it run."""
    return _send(agent, command, MessageKind.COMMAND, Priority.NORMAL, False)


def _send(number: int, text: str, kind: MessageKind, priority: Priority, interrupt: bool) -> dict[str, Any]:
    here = desk()
    sent = hub.send(
        here,
        agents.get(here.db, number),
        text,
        caller=None,
        sender=PERSON,
        wait_seconds=0.0 if service.running(here.home) else _WAIT_SECONDS,
        kind=kind,
        priority=priority,
        interrupt=interrupt,
    )
    return mail.data_of_sent(here, sent) | {"said": have_scheduler()}


@contract.post("/messages/{message}/resend", "Send a message that has failed once more.", schemas.MESSAGE)
def resend(message: int) -> dict[str, Any]:
    """Send it again, under the same id."""
    here = desk()
    found = delivery.resend(here, messages.get(here.db, message), wait_seconds=_WAIT_SECONDS)
    return _told(found)


def _told(message: Message) -> dict[str, Any]:
    here = desk()
    return mail.data_of(message, agents.get(here.db, message.agent_id)) | {"said": have_scheduler()}


@contract.post(
    "/agents/{agent}/answer",
    "Answer the question that an agent asks in its window.",
    schemas.things(target=schemas.TEXT, choice=schemas.TEXT),
    {"dialog": {"type": "string", "pattern": "^[0-9a-f]{16}$"}, "key": {"type": "string", "pattern": "^[1-9]$"}},
    needs=("dialog", "key"),
)
def answer(agent: int, dialog: str, key: str) -> dict[str, Any]:
    """Take one of the choices that GET /agents/{agent}/screen has shown; `dialog` is the name of that question."""
    here = desk()
    found = agents.get(here.db, agent)
    return {"target": found.target, "choice": dialogs.answer(here, found, dialog, key, now=host.now_ms())}


@contract.post(
    "/authorizations/{authorization}",
    "Answer an agent's request for an authorization.",
    schemas.things(id=schemas.WHOLE, status=schemas.TEXT),
    {"yes": _YES, "reason": {"type": "string", "maxLength": _LONGEST}},
    needs=("yes",),
)
def authorize(authorization: int, yes: bool, reason: str = "") -> dict[str, Any]:
    """Grant it or refuse it; the agent hears of it."""
    here = desk()
    made, message = authorizations.answer(
        here.db, authorization, yes=yes, by=None, name=PERSON, reason=reason, now=host.now_ms()
    )
    if message:
        _bring(message)
    return vars(made)


def _bring(message: Message) -> None:
    here = desk()
    agent = agents.get(here.db, message.agent_id)
    if not service.running(here.home) and agents.state_of(agent) is not AgentState.GONE:
        delivery.deliver(here, agent, until=message.id, wait_seconds=_WAIT_SECONDS)
    have_scheduler()


# -- teams --


@contract.post(
    "/orchestrations/{orchestration}/pause",
    "Have a team stand still; `now` interrupts whoever is at work.",
    _OUTCOME,
    {"now": _YES},
)
def pause(orchestration: str, now: bool = False) -> dict[str, Any]:
    """Pause a team by hand. `trouble` says by role what was in the way of an interrupt."""
    here = desk()
    found = orchestrations.get(here.db, orchestration)
    is_new = pauses.pause(here.db, found, now=host.now_ms())
    stopped = pauses.interrupt(here, found, now=host.now_ms()) if now else {}
    host.wake(here.home)
    trouble = {role: why for role, why in stopped.items() if why}
    state = orchestrations.get(here.db, orchestration).status
    return {"session": found.session, "status": state, "new": is_new, "trouble": trouble}


@contract.post("/orchestrations/{orchestration}/resume", "Have a team go on that was paused by hand.", _OUTCOME)
def resume(orchestration: str) -> dict[str, Any]:
    """Let a team go on. Raises `OrchestratorError` when no person has paused it."""
    here = desk()
    found = orchestrations.get(here.db, orchestration)
    gone_on = pauses.resume(here.db, found, now=host.now_ms())
    if gone_on is None:
        raise OrchestratorError(f"{found.session} is not paused by hand: it is {found.status}")
    said = have_scheduler()
    return {"session": found.session, "status": gone_on.status, "outcome": gone_on.outcome, "said": said}


@contract.post("/orchestrations/{orchestration}/stop", "End a team's agents; worktrees and branches stay.", _OUTCOME)
def stop(orchestration: str) -> dict[str, Any]:
    """End a team, and tell what it leaves."""
    here = desk()
    return team.stopped_data(stopping.stop(here.db, here.tmux, orchestration, now=host.now_ms()))


@contract.post("/agents/{agent}/interrupt", "End the turn that an agent is in.", schemas.things(target=schemas.TEXT))
def interrupt(agent: int) -> dict[str, Any]:
    """Press Escape for a person. Raises `OrchestratorError` with what is in the way."""
    here = desk()
    found: Agent = agents.get(here.db, agent)
    if agents.state_of(found) is not AgentState.WORKING:
        raise OrchestratorError(f"{found.target} is not at work")
    if why := delivery.interrupt(here, found):
        raise OrchestratorError(why)
    return {"target": found.target}
