"""What has happened while an agent was away, as a few short lines: pure over rows of the history and commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from lib.models import Event
from lib.records import dataclass

#: The agent reads all of it before it goes on: what is more stands in its messages and in git.
MOST_LINES = 12
LONGEST_LINE = 160

#: The kinds of events that are told, for who reads them from the store.
KINDS = (
    "orchestration.needs_attention",
    "agent.starting",
    "hook.StopFailure",
    "report.completion",
)


@dataclass(frozen=True)
class Commits:
    """What a teammate has committed: how many, and the newest by its short id and subject."""

    role: str
    number: int
    newest: str
    subject: str


def told(
    agent_id: int,
    *,
    roles: Mapping[int, str],
    gone: Collection[int],
    events: Sequence[Event],
    commits: Sequence[Commits],
    senders: Sequence[str],
) -> list[str]:
    """The lines for an agent. `roles` is its team by the agents' ids, `gone` those that are started again with it.

    `events` are its team's, those of one kind in their order; `senders` wrote what waits for it. What agents have
    written is quoted, on one line each.
    """
    others = [event for event in events if event.agent_id != agent_id]
    lines = [
        *_interrupted(agent_id, roles, gone, others),
        *_team(others, roles),
        *_reports(others, roles),
        *_commits(commits),
        *_waiting(senders),
    ]
    lines = [_short(line) for line in lines]
    if len(lines) <= MOST_LINES:
        return lines
    # What waits comes last and matters most.
    kept = [*lines[: MOST_LINES - 2], *lines[-1:]]
    return [*kept[:-1], f"and {len(lines) - len(kept)} more", kept[-1]]


def _interrupted(
    agent_id: int, roles: Mapping[int, str], gone: Collection[int], events: Sequence[Event]
) -> Iterator[str]:
    again = {*gone, *(event.agent_id for event in events if event.kind == "agent.starting")} - {agent_id}
    names = [role for number, role in roles.items() if number in again]
    if names and len(names) == len(roles) - 1:
        yield "the whole team was interrupted and is started again"
    elif names:
        yield f"also started again: {', '.join(names)}"


def _team(events: Sequence[Event], roles: Mapping[int, str]) -> Iterator[str]:
    for event in events:
        if event.kind == "orchestration.needs_attention":
            yield f"the team needed a person's attention: {event.data.get('outcome')}"
    for role, event in _named(events, roles, "hook.StopFailure").items():
        details = event.data.get("details")
        error = details.get("error") if isinstance(details, dict) else None
        yield f"a turn of the {role} ended with an error: {error or 'unknown'}"


def _reports(events: Sequence[Event], roles: Mapping[int, str]) -> Iterator[str]:
    for role, event in _named(events, roles, "report.completion").items():
        commit = str(event.data.get("commit"))[:7]
        yield f"the {role} reported completion with commit {commit}: {event.data.get('summary')}"


def _named(events: Sequence[Event], roles: Mapping[int, str], kind: str) -> dict[str, Event]:
    """The newest event of a kind for each role."""
    of_kind = [event for event in events if event.kind == kind]
    return {roles[event.agent_id]: event for event in of_kind if event.agent_id is not None and event.agent_id in roles}


def _commits(commits: Sequence[Commits]) -> Iterator[str]:
    for one in commits:
        number = "1 new commit" if one.number == 1 else f"{one.number} new commits"
        yield f"the {one.role} has {number}, the newest {one.newest}: {one.subject}"


def _waiting(senders: Sequence[str]) -> Iterator[str]:
    if senders:
        counted = Counter(senders).items()
        named = ", ".join(sender if number == 1 else f"{sender} ({number})" for sender, number in counted)
        wait = "1 message waits" if len(senders) == 1 else f"{len(senders)} messages wait"
        yield f"{wait} for you, from {named}, and will come now"


def _short(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."
