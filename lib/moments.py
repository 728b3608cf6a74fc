"""Moments: all that is known of teams at a time, and what has changed between two of them.

States, messages and criteria are told by the events, screens by the recording. What agents did is told by the recording
too, where there is one: it has looked at them.
"""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from lib import agents, criteria, messages, orchestrations, store
from lib.judgement import cleaning, hindsight
from lib.models import (
    Agent,
    AgentState,
    CriterionState,
    Event,
    Message,
    MessageStatus,
    Orchestration,
    OrchestrationStatus,
)
from lib.recordings import Picture, Reader, Shot
from lib.records import dataclass

#: How long an orchestration that is over is still part of a moment.
SHOWN_AFTER_END_MS = 24 * 3600 * 1000
#: How many events and messages a moment holds at most, the newest.
MOST = 500
#: The kinds of events that tell of commits.
COMMIT_KINDS = ("branch.moved", "report.completion", "candidate.merged", "integration.delivered")
_STATUS_KINDS = tuple(f"orchestration.{status}" for status in OrchestrationStatus)


class Known(StrEnum):
    """What is known of a screen. A blank one is `shown`, with an empty text."""

    SHOWN = "shown"
    NO_WINDOW = "no window"
    NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Screen:
    """What an agent's window showed: since when (UTC milliseconds), and what; both None when that is not known."""

    known: Known
    since: int | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class AgentThen:
    """An agent at a time. `state` is None when nothing tells what it did; `was_seen` when the recording does."""

    id: int
    target: str
    role: str
    window: int
    state: AgentState | None
    was_seen: bool
    screen: Screen


@dataclass(frozen=True)
class CriterionThen:
    id: str
    text: str
    state: CriterionState


@dataclass(frozen=True)
class TeamThen:
    """An orchestration at a time. `is_paused` is whether a person had it paused."""

    id: str
    session: str
    title: str
    project: str
    status: OrchestrationStatus
    is_paused: bool
    agents: tuple[AgentThen, ...]
    criteria: tuple[CriterionThen, ...]


@dataclass(frozen=True)
class MessageThen:
    """A message at a time: its status then, whatever became of it."""

    message: Message
    target: str
    status: MessageStatus


@dataclass(frozen=True)
class Moment:
    """All that is known at a time, with what happened since `since` (both UTC milliseconds), oldest first.

    Of events and messages there are at most `MOST`, the newest.
    """

    at: int
    since: int
    teams: tuple[TeamThen, ...]
    messages: tuple[MessageThen, ...]
    events: tuple[Event, ...]


def look(
    db: sqlite3.Connection, recording: Reader | None, at: int, *, since: int, team: Orchestration | None = None
) -> Moment:
    """What was known at a time, of all teams or of one.

    Raises `Unavailable` when the recording is damaged; without one (None) all screens are not recorded.
    """
    found = [team] if team else orchestrations.at(db, at, ended_since=at - SHOWN_AFTER_END_MS)
    found = [one for one in found if one.created_at <= at]
    mates = {one.id: agents.of_orchestration(db, one.id) for one in found}
    shots = recording.at([agent.id for team_mates in mates.values() for agent in team_mates], at) if recording else {}
    only = team.id if team else None
    return Moment(
        at,
        since,
        tuple(_team(db, one, mates[one.id], shots, at) for one in found),
        _messages(db, since, at, only),
        tuple(store.between(db, since, at, orchestration=only, limit=MOST)),
    )


def _team(
    db: sqlite3.Connection, one: Orchestration, mates: Sequence[Agent], shots: Mapping[int, Shot], at: int
) -> TeamThen:
    told = store.of_kinds(db, _STATUS_KINDS, orchestration=one.id, until=at)
    status = OrchestrationStatus(told[-1].kind.partition(".")[2]) if told else OrchestrationStatus.STARTING
    paused = store.of_kinds(db, ("pause.begun", "pause.over"), orchestration=one.id, until=at)
    return TeamThen(
        one.id,
        one.session,
        one.spec_title,
        str(one.project),
        status,
        bool(paused) and paused[-1].kind == "pause.begun",
        tuple(_agent(db, agent, status, shots.get(agent.id), at) for agent in mates),
        _criteria(db, one.id, at),
    )


def _agent(db: sqlite3.Connection, agent: Agent, status: OrchestrationStatus, shot: Shot | None, at: int) -> AgentThen:
    state = shot.seen.state if shot else None
    if state is None and status is OrchestrationStatus.STOPPED:  # that ends its processes, and no event tells of each
        state = AgentState.GONE
    if state is None:
        state = hindsight.state(store.last_of_each(db, hindsight.STATE_KINDS, agent=agent.id, until=at))
    was_seen = shot is not None
    return AgentThen(agent.id, agent.target, agent.role, agent.window, state, was_seen, _screen(shot))


def _screen(shot: Shot | None) -> Screen:
    if shot is None:
        return Screen(Known.NOT_RECORDED)
    if shot.seen.picture is None:
        return Screen(Known.NO_WINDOW, shot.at)
    return Screen(Known.SHOWN, shot.at, shot.seen.picture)


def _criteria(db: sqlite3.Connection, orchestration: str, at: int) -> tuple[CriterionThen, ...]:
    found = {one.id: one.text for one in criteria.of_orchestration(db, orchestration)}
    if not found:
        return ()
    told = store.of_kinds(db, hindsight.CRITERION_KINDS, orchestration=orchestration, until=at)
    then = hindsight.criteria(list(found), told)
    return tuple(CriterionThen(name, text, then[name]) for name, text in found.items())


def _messages(db: sqlite3.Connection, since: int, at: int, orchestration: str | None) -> tuple[MessageThen, ...]:
    return _as_of(db, messages.between(db, since, at, orchestration=orchestration, limit=MOST), at)


def _as_of(db: sqlite3.Connection, found: Sequence[Message], at: int) -> tuple[MessageThen, ...]:
    told = hindsight.statuses(store.told_of_messages(db, [one.id for one in found], until=at))
    targets = {number: agents.get(db, number).target for number in {one.agent_id for one in found}}
    return tuple(MessageThen(one, targets[one.agent_id], told.get(one.id, MessageStatus.QUEUED)) for one in found)


# -- two moments --


@dataclass(frozen=True)
class Change:
    """Of something with a name, what it was and what it became; None for what was not there, or is not known."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ScreenChange:
    """How an agent's screen changed: the lines of a unified diff, without colours. Empty when only colours changed."""

    target: str
    before: Known
    after: Known
    diff: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """What has changed from one time to a later one (UTC milliseconds).

    There are at most `MOST` messages and as many commits, the newest.
    """

    since: int
    until: int
    teams: tuple[Change, ...]
    agents: tuple[Change, ...]
    criteria: tuple[Change, ...]
    messages: tuple[tuple[MessageThen, MessageStatus | None], ...]  # as they are then, and what they were before
    commits: tuple[Event, ...]
    screens: tuple[ScreenChange, ...] = ()


def compare(db: sqlite3.Connection, first: Moment, second: Moment, *, team: Orchestration | None = None) -> Difference:
    """What has changed from the earlier of two moments to the later one; `team` is the one that both are of, if any."""
    before, after = sorted((first, second), key=lambda one: one.at)
    only = team.id if team else None
    told = store.messages_told_of(db, before.at, after.at, orchestration=only, limit=MOST)
    commits = store.between(db, before.at, after.at, orchestration=only, kinds=COMMIT_KINDS, limit=MOST)
    return Difference(
        before.at,
        after.at,
        _changes(before, after, lambda one: [(one.session, one.status)]),
        _changes(before, after, lambda one: [(agent.target, agent.state) for agent in one.agents]),
        _changes(before, after, lambda one: [(f"{one.session} {each.id}", each.state) for each in one.criteria]),
        _moved(db, told, before.at, after.at),
        tuple(commits),
        tuple(_screen_changes(before, after)),
    )


def _changes(
    before: Moment, after: Moment, named: Callable[[TeamThen], Iterable[tuple[str, str | None]]]
) -> tuple[Change, ...]:
    # By the orchestration as well: a later one may bear the session of an earlier one.
    was, became = (
        {(one.id, name): value for one in moment.teams for name, value in named(one)} for moment in (before, after)
    )
    keys = dict.fromkeys([*was, *became])
    return tuple(Change(key[1], was.get(key), became.get(key)) for key in keys if was.get(key) != became.get(key))


def _moved(
    db: sqlite3.Connection, ids: Sequence[int], since: int, until: int
) -> tuple[tuple[MessageThen, MessageStatus | None], ...]:
    """Of the messages that were told of in between those that stand elsewhere than before."""
    found = [messages.get(db, number) for number in ids]
    was = hindsight.statuses(store.told_of_messages(db, ids, until=since))
    return tuple(
        (one, was.get(one.message.id)) for one in _as_of(db, found, until) if was.get(one.message.id) is not one.status
    )


def _screen_changes(before: Moment, after: Moment) -> Iterable[ScreenChange]:
    was = {agent.id: agent.screen for one in before.teams for agent in one.agents}
    for agent in (agent for one in after.teams for agent in one.agents):
        earlier = was.get(agent.id, Screen(Known.NOT_RECORDED))
        if (earlier.known, earlier.picture) != (agent.screen.known, agent.screen.picture):
            yield ScreenChange(agent.target, earlier.known, agent.screen.known, _diff(earlier, agent.screen))


def _diff(before: Screen, after: Screen) -> tuple[str, ...]:
    return tuple(difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=2))[2:]


def _lines(screen: Screen) -> list[str]:
    text = cleaning.uncoloured(screen.picture.text) if screen.picture else ""
    return [line.rstrip() for line in text.split("\n")] if text else []
