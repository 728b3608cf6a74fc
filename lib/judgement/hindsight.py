"""Hindsight: what agents did and which criteria held at a time, by the events until then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lib.models import AgentState, CriterionState, Event, MessageStatus

#: What an event says of what its agent does from then on. Of a Notification its own word says it.
_STATES: Mapping[str, AgentState] = {
    "agent.starting": AgentState.STARTING,
    "hook.SessionStart": AgentState.IDLE,
    "message.acknowledged": AgentState.WORKING,
    "hook.Stop": AgentState.IDLE,
    "hook.StopFailure": AgentState.IDLE,
    "limit.hit": AgentState.LIMITED,
    "limit.again": AgentState.LIMITED,
    "limit.released": AgentState.IDLE,
    "hook.SessionEnd": AgentState.GONE,
}
_ASKS = "hook.Notification"
_QUESTIONS = ("permission_prompt", "elicitation_dialog")
#: The kinds of events by which a state is told.
STATE_KINDS = (*_STATES, _ASKS)

#: The kinds of events by which a criterion's state is told, and a message's.
CRITERION_KINDS = ("criterion.holds", "criterion.fails", "criterion.closed", "criterion.reopened")
_MESSAGES: Mapping[str, MessageStatus] = {
    "message.queued": MessageStatus.QUEUED,
    "message.requeued": MessageStatus.QUEUED,
    "message.pasted": MessageStatus.PASTED,
    "message.submitted": MessageStatus.SUBMITTED,
    "message.acknowledged": MessageStatus.ACKNOWLEDGED,
    "message.failed": MessageStatus.FAILED,
    "message.cancelled": MessageStatus.CANCELLED,
}


def state(last: Iterable[Event]) -> AgentState | None:
    """What an agent did after the newest of these events, of which there is one of each kind; None when none says it.

    It is less than a look at the agent: a turn that a person has begun by hand or interrupted leaves no event.
    """
    for event in sorted(last, key=lambda one: (one.at, one.id), reverse=True):
        if event.kind != _ASKS:
            return _STATES[event.kind]
        if event.data.get("about") in _QUESTIONS:
            return AgentState.ASKING
    return None


def criteria(ids: Sequence[str], events: Iterable[Event]) -> dict[str, CriterionState]:
    """The state of each criterion after these events, oldest first. A closing by hand holds until it is reopened."""
    checked = dict.fromkeys(ids, CriterionState.OPEN)
    closed: set[str] = set()
    for event in events:
        name, said = str(event.data.get("criterion")), event.kind.partition(".")[2]
        if said == "closed":
            closed.add(name)
        elif said == "reopened":
            closed.discard(name)
        elif name in checked:
            checked[name] = CriterionState(said)
    return {name: CriterionState.CLOSED if name in closed else found for name, found in checked.items()}


def statuses(told: Iterable[tuple[int, str]]) -> dict[int, MessageStatus]:
    """The status of each message after its events, as (message, kind), oldest first."""
    return {message: _MESSAGES[kind] for message, kind in told if kind in _MESSAGES}
