"""Handing over: a commit by one role is told to the role that takes its work on, within seconds.

The lane from role to role stands in the roles' files (`hands_over_to`). What moves a branch is told by the guards of
its worktree; what is told is read from git when the message is made, so several commits in a row are one message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from lib import agents, messages, orchestrations, store, templates
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.git.worktrees import Gain
from lib.judgement import cleaning, durations
from lib.judgement.durations import KINDS, LaneTimes
from lib.models import Agent, Event, Message, MessageKind, MessageStatus
from lib.records import dataclass
from lib.store import record, writing

SENDER = "scheduler"
#: A rebase moves a branch many times, and who commits once may commit again at once.
SETTLES_WITHIN_MS = 1_000
#: How soon it is tried again when git could not be asked.
AGAIN_MS = 60_000
_MOST_COMMITS = 10
_GIT_SECONDS = 10.0


@dataclass(frozen=True)
class Lane:
    """From whose branch, to whom; `told` is the commit that they were told of, `before` the one before that.

    The branch has moved since then from `first_moved_at` to `moved_at` (UTC milliseconds).
    """

    agent_id: int
    to_agent_id: int
    told: str
    before: str
    moved_at: int | None
    first_moved_at: int | None
    message_id: int | None


def open_lanes(db: sqlite3.Connection, orchestration_id: str, start: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Record the lanes of a new team (role, taker); call it in the transaction that records the team.

    Pairs of which one is not in the team are left out. `start` is the commit that all branches begin at.
    """
    ids = {agent.role: agent.id for agent in agents.of_orchestration(db, orchestration_id)}
    db.executemany(
        "INSERT INTO lanes (agent_id, to_agent_id, told, before) VALUES (?, ?, ?, ?)",
        [(ids[role], ids[taker], start, start) for role, taker in pairs if role in ids and taker in ids],
    )


def note_moved(db: sqlite3.Connection, agent_id: int, *, at: int) -> None:
    """An agent's branch has moved; call it in the transaction that records how that is known."""
    db.execute(
        "UPDATE lanes SET moved_at = ?1, first_moved_at = coalesce(first_moved_at, ?1) WHERE agent_id = ?2",
        (at, agent_id),
    )


def times(db: sqlite3.Connection, orchestration_id: str) -> tuple[LaneTimes, ...]:
    """How long the hand-overs of a team have taken, lane by lane, by its events."""
    return times_of(db, orchestration_id, store.events(db, orchestration=orchestration_id, kind=KINDS, limit=-1))


def times_of(db: sqlite3.Connection, orchestration_id: str, happened: Sequence[Event]) -> tuple[LaneTimes, ...]:
    """The same by events that are at hand, at least those of `durations.KINDS`."""
    roles = {agent.id: agent.role for agent in agents.of_orchestration(db, orchestration_id)}
    lanes = [
        (roles[row["agent_id"]], roles[row["to_agent_id"]])
        for row in db.execute("SELECT agent_id, to_agent_id FROM lanes ORDER BY agent_id, to_agent_id")
        if row["agent_id"] in roles
    ]
    return durations.of_lanes(lanes, roles, happened)


def hand_over(db: sqlite3.Connection, *, now: int) -> list[int]:
    """Tell of every branch that has moved and come to rest. Returns when to look again (UTC milliseconds)."""
    dues: list[int] = []
    for lane in _moved(db):
        assert lane.moved_at is not None
        due = lane.moved_at + SETTLES_WITHIN_MS
        if now < due <= now + AGAIN_MS + SETTLES_WITHIN_MS:  # else the clock was set back
            dues.append(due)
        elif not _tell(db, lane, now):
            dues.append(now + AGAIN_MS)
    return dues


def _tell(db: sqlite3.Connection, lane: Lane, now: int) -> bool:
    """Queue the message of one lane. False when git could not be asked: it is tried again later."""
    agent, taker = agents.get(db, lane.agent_id), agents.get(db, lane.to_agent_id)
    earlier = _still_waits(db, lane)
    since = lane.before if earlier else lane.told
    try:
        head, new = _look(db, agent, taker, since)
    except OrchestratorError as error:
        with writing(db):
            db.execute(
                "UPDATE lanes SET moved_at = ? WHERE agent_id = ? AND to_agent_id = ?",
                (now + AGAIN_MS, agent.id, taker.id),
            )
            _record(db, "branch.not_looked_at", agent, now, reason=error.sentence)
        return False
    text = _text(agent, new) if new else None
    with writing(db):
        # What has moved meanwhile stays noted.
        db.execute(
            "UPDATE lanes SET moved_at = nullif(moved_at, ?1), first_moved_at = nullif(moved_at, ?1), told = ?2"
            " WHERE agent_id = ?3 AND to_agent_id = ?4",
            (lane.moved_at, head, lane.agent_id, lane.to_agent_id),
        )
        if text is not None:
            if earlier:
                messages.cancel(db, earlier, taker, "a newer one takes its place", now=now)
            message = messages.queue(db, taker, text, sender=SENDER, kind=MessageKind.NOTICE, now=now)
            db.execute(
                "UPDATE lanes SET before = ?, message_id = ? WHERE agent_id = ? AND to_agent_id = ?",
                (since, message.id, lane.agent_id, lane.to_agent_id),
            )
            moved = _first_moved_at(db, lane, earlier)
            _record(db, "branch.handed_over", agent, now, message=message.id, head=head, to=taker.role, moved=moved)
    return True


def _first_moved_at(db: sqlite3.Connection, lane: Lane, earlier: Message | None) -> int | None:
    """When the oldest commit of a message was made; one that took an earlier one's place tells of its commits too."""
    if earlier is None:
        return lane.first_moved_at
    (told,) = store.events(db, message=earlier.id, kind="branch.handed_over")
    moved = told.data["moved"]
    return moved if isinstance(moved, int) else None


def _look(db: sqlite3.Connection, agent: Agent, taker: Agent, since: str) -> tuple[str, Gain | None]:
    """What a branch stands on, and what of it is new for the taker; None when nothing is."""
    project = orchestrations.of_agent(db, agent).project
    heads = worktrees.heads(project, agent.branch, taker.branch, seconds=_GIT_SECONDS)
    if agent.branch not in heads:
        return since, None
    head = heads.pop(agent.branch)
    new = worktrees.gain(project, head, since=since, beyond=tuple(heads.values()), seconds=_GIT_SECONDS)
    return head, new if new.commits else None


def _text(agent: Agent, new: Gain) -> str:
    return templates.render(
        "handed_over.md",
        role=agent.role,
        branch=agent.branch,
        count=len(new.commits),
        commits=[f"{one.id[:10]} {cleaning.clean(one.subject)}" for one in new.commits[:_MOST_COMMITS]],
        stat=cleaning.clean(new.stat),
    )


def _still_waits(db: sqlite3.Connection, lane: Lane) -> Message | None:
    """The last message of a lane while its taker is busy and has not got it: a newer one says all of it."""
    if lane.message_id is None:
        return None
    message = messages.get(db, lane.message_id)
    return message if message.status is MessageStatus.QUEUED and message.carried_by is None else None


def _moved(db: sqlite3.Connection) -> list[Lane]:
    rows = db.execute("SELECT * FROM lanes WHERE moved_at IS NOT NULL ORDER BY moved_at").fetchall()
    live = {agent.id for agent in agents.live(db)} if rows else set()
    return [Lane(**dict(row)) for row in rows if row["agent_id"] in live]


def _record(
    db: sqlite3.Connection, kind: str, agent: Agent, now: int, *, message: int | None = None, **data: object
) -> None:
    record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=message, **data)
