"""Handing over: a commit by one role is told to the role that takes its work on, within seconds.

The lane from role to role stands in the roles' files (`hands_over_to`). What moves a branch is told by the guards of
its worktree; what is told is read from git when the message is made, so several commits in a row are one message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from lib import agents, messages, orchestrations, templates
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.git.worktrees import Gain
from lib.judgement import cleaning
from lib.models import Agent, Message, MessageKind, MessageStatus
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
    """From whose branch, to whom; `told` is the commit that they were told of, `before` the one before that."""

    agent_id: int
    to_agent_id: int
    told: str
    before: str
    moved_at: int | None
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
    db.execute("UPDATE lanes SET moved_at = ? WHERE agent_id = ?", (at, agent_id))


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
            note_moved(db, agent.id, at=now + AGAIN_MS)
            _record(db, "branch.not_looked_at", agent, now, reason=error.sentence)
        return False
    text = _text(agent, new) if new else None
    with writing(db):
        # What has moved meanwhile stays noted.
        db.execute(
            "UPDATE lanes SET moved_at = nullif(moved_at, ?), told = ? WHERE agent_id = ? AND to_agent_id = ?",
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
            _record(db, "branch.handed_over", agent, now, message=message.id, head=head, to=taker.role)
    return True


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
