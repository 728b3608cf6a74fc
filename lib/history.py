"""Events as sentences: what a person reads of what has happened."""

from __future__ import annotations

import sqlite3

from lib import agents, messages
from lib.errors import NotFound
from lib.judgement import cleaning
from lib.models import Event

#: With a time before it a sentence fits a terminal of 100 columns; so what matters stands first, and quotes last.
LONGEST = 88

_STUCK = {
    "agent.nudged": "shows no sign of work, and is asked",
    "agent.stuck": "may be stuck",
    "agent.got_on": "gets on again",
}
_BUDGETS = {
    "budget.warned": "a budget is nearly used up",
    "budget.spent": "a budget is used up: the work is to be wrapped up",
    "budget.paused": "a budget pauses the work",
    "budget.reopened": "the work goes on: its budget has room again",
}


def sentence(db: sqlite3.Connection, event: Event, *, longest: int = LONGEST) -> str | None:
    """One plain line about an event, or None for one that is only of use to a program.

    What agents and specs say in it is text: it holds no control characters.
    """
    said = _sentence(db, event)
    if said is None:
        return None
    said = cleaning.one_line(said)
    return said if len(said) <= longest else f"{said[: longest - 3]}..."


def _sentence(db: sqlite3.Connection, event: Event) -> str | None:
    role = _role(db, event)
    data = event.data
    match event.kind:
        case "orchestration.starting":
            return f"the team starts in tmux session {data.get('session')}"
        case "analysis.made":
            return f"the spec was analysed: {data.get('summary')}"
        case "analysis.failed":
            return f"the spec was not analysed: {data.get('reason')}"
        case "agent.starting":
            return f"{role} {'goes on in its conversation' if data.get('resumed') else 'starts'}"
        case "message.acknowledged" if event.message_id:
            return _arrived(db, event.message_id, role)
        case "message.failed":
            return f"message {event.message_id} to {role} failed: {data.get('reason')}"
        case "check_in.fired":
            return f"check-in for {role}"
        case "agent.answered":
            return f"a person answered {role} in its window: {data.get('choice')}"
        case "branch.moved":
            return f"{role}'s branch moves to {str(data.get('new'))[:7]}"
        case "report.completion":
            return f"{role} reports completion with commit {str(data.get('commit'))[:7]}: {data.get('summary')}"
        case "report.waiting":
            return f"{role} reports completion, which waits for {_names(data.get('criteria'))}: {data.get('summary')}"
        case "report.refused":
            return f"{role}'s report is refused: {_names(data.get('criteria'))}"
        case "criterion.holds" | "criterion.fails":
            return f"{data.get('criterion')} {event.kind.partition('.')[2]}: {data.get('text')}"
        case "criterion.closed":
            return f"{data.get('criterion')} is closed by {data.get('by')}: {data.get('reason')}"
        case "criterion.reopened":
            return f"{data.get('criterion')} is open again: {data.get('text')}"
        case "report.check_failed":
            return f"{role}'s check failed with exit code {data.get('exit')}: {data.get('command')}"
        case "overlap.found":
            return f"{role} and {data.get('other')} overlap in {_files(data.get('files'))}"
        case "overlap.cleared":
            return f"{role} and {data.get('other')} do not overlap any more"
        case "candidate.merged":
            return f"{role}'s work is merged: {str(data.get('commit'))[:7]}"
        case "candidate.conflict" | "candidate.red":
            return f"{role}'s work went back: {data.get('reason')}"
        case "integration.delivered":
            return f"the work is delivered to {data.get('branch')} as {str(data.get('commit'))[:7]} ({data.get('tag')})"
        case "integration.kept_back":
            return f"the work is not delivered: {data.get('reason')}"
        case "bulletin.made" if event.orchestration_id:
            return f"{role} is told what is new in {data.get('project') or 'all projects'}"
        case "bulletin.not_made":
            return f"a related project was not told: {data.get('reason')}"
        case "branch.synced":
            return f"{data.get('from')} has come into the branch of {role}, with {data.get('commits')} new commits"
        case "branch.settled":
            return f"the merge of {role} was settled ({data.get('strategy')}): {_files(data.get('files'))}"
        case "integration.not_shared" | "merging.failed" | "criteria.failed" | "radar.off" | "recording.failed":
            return str(data.get("reason"))
        case "limit.hit" | "limit.moved" | "limit.again":
            again = {"limit.moved": "now ", "limit.again": "still "}.get(event.kind, "")
            who = role if event.agent_id is not None else f"the account (met on {data.get('host')})"
            return f"{who} is {again}limited ({data.get('about')}): {data.get('said')}"
        case "limit.tried":
            return f"{role} goes first after the limit"
        case "limit.alone":
            return f"this host tries by itself whether the limit is over: {data.get('why')}"
        case "limit.over":
            return "the limit is over"
        case "limit.released":
            return f"{role} may go on"
        case "hook.StopFailure":
            return f"{role}'s turn failed: {data.get('details')}"
        case "agent.nudged" | "agent.stuck" | "agent.got_on":
            return f"{role} {_STUCK[event.kind]}"
        case "authorization.requested":
            return f"{role} asks {data.get('target')}: {data.get('what')}"
        case "authorization.escalated":
            return f"nobody has answered {role}: {data.get('target')} is asked"
        case "authorization.granted" | "authorization.refused" | "authorization.expired":
            why = f": {data['reason']}" if data.get("reason") else ""
            return f"the request of {role} is {event.kind.partition('.')[2]}{why}"
        case "budget.warned" | "budget.spent" | "budget.paused" | "budget.reopened":
            return _BUDGETS[event.kind]
        case "recording.goes_on":
            return "screens are recorded again"
        case "daemon.step_failed":
            return f"the scheduler's step {data.get('step')} failed: {data.get('error')}"
        case "orchestration.reviving":
            return f"the scheduler starts it again: {data.get('missing')}"
        case "pause.begun" | "pause.over":
            return f"a person has {'paused the team' if event.kind == 'pause.begun' else 'let the team go on'}"
        case "hook.SessionEnd":
            return f"{role} has ended"
        case kind if kind.startswith("orchestration."):
            outcome = f": {data['outcome']}" if data.get("outcome") else ""
            return f"the orchestration is {kind.partition('.')[2]}{outcome}"
    return None


def _names(found: object) -> str:
    return ", ".join(map(str, found)) if isinstance(found, list) else ""


def _files(names: object) -> str:
    """The first of some files, in one line."""
    found = [str(name) for name in names] if isinstance(names, list) else []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{', '.join(found[:3])}{more}"


def step(event: Event) -> str:
    """A message's event as one step of its way: `pasted (attempt 1)`."""
    name = event.kind.partition(".")[2]
    details = ", ".join(f"{key} {value}" for key, value in event.data.items() if value is not None)
    return f"{name} ({details})" if details else name


def _role(db: sqlite3.Connection, event: Event) -> str:
    if event.agent_id is None:
        return "team"
    try:
        found = agents.get(db, event.agent_id)
        return found.target if found.host else found.role
    except NotFound:
        return f"agent {event.agent_id}"


def _arrived(db: sqlite3.Connection, message_id: int, role: str) -> str:
    message = messages.get(db, message_id)
    took = ((message.acknowledged_at or message.queued_at) - message.queued_at) / 1000
    if message.kind == "briefing":
        return f"{role} is briefed (acknowledged in {took:.1f} s)"
    first = next((line for line in message.body.splitlines() if line.strip()), "")
    return f"{message.sender} -> {role} ({took:.1f} s): {first}"
