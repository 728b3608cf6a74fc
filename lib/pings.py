"""The dead man's switch: an address that is called as long as the scheduler is well and the work gets on.

Whoever watches it hears of what cannot tell of itself: a machine that is off, a scheduler that has died, agents that
all stand still.
"""

from __future__ import annotations

import sqlite3

from lib import agents, holds, orchestrations
from lib.claude import transcripts
from lib.models import Agent, OrchestrationStatus
from lib.queue import entries
from lib.records import dataclass
from lib.store import record, writing

#: After a call that was not answered well, or that nobody carried out.
RETRY_MS = 60_000


@dataclass(frozen=True)
class Ping:
    """What is known of the calls (UTC milliseconds); `failures` counts those since `pinged_at`."""

    wanted_at: int | None
    pinged_at: int | None
    failures: int
    reason: str | None


def last(db: sqlite3.Connection) -> Ping:
    """The last call that was wanted, and the last that was answered well."""
    row = db.execute("SELECT * FROM ping").fetchone()
    return Ping(row["wanted_at"], row["pinged_at"], row["failures"], row["reason"])


def next_due(db: sqlite3.Connection, *, every_ms: int, now: int) -> int:
    """When the address is to be called again, if all is well then."""
    found = last(db)
    return max(_before(found.pinged_at, now) + every_ms, _before(found.wanted_at, now) + RETRY_MS)


def _before(at: int | None, now: int) -> int:
    """A time that has been; what lies ahead was written before the clock was set back."""
    return at if at is not None and at <= now else 0


def want(db: sqlite3.Connection, *, now: int) -> None:
    """Record that all is well now: whoever carries it out calls the address."""
    db.execute("UPDATE ping SET wanted_at = ?", (now,))


def is_wanted(db: sqlite3.Connection, *, now: int) -> bool:
    """Whether the address is to be called now. What was wanted a while ago says nothing of now."""
    found = last(db)
    return found.wanted_at is not None and abs(now - found.wanted_at) < RETRY_MS and found.wanted_at != found.pinged_at


def note(db: sqlite3.Connection, reason: str | None, *, now: int) -> None:
    """Record how a call went: `reason` says why it was not answered well."""
    found = last(db)
    with writing(db):
        if reason is None:
            db.execute("UPDATE ping SET pinged_at = wanted_at, failures = 0, reason = NULL")
            if found.failures:
                record(db, "ping.answered", now=now, failures=found.failures)
        else:
            db.execute("UPDATE ping SET failures = failures + 1, reason = ?", (reason,))
            if not found.failures:  # once, however long it lasts
                record(db, "ping.failed", now=now, reason=reason)


def gets_on(db: sqlite3.Connection, *, now: int) -> bool:
    """Whether some agent has got on since the last call, or nothing should.

    An agent gets on when its model has answered: a prompt that it was given, or a turn that ended with an error, is no
    sign of that. Nothing should get on when no team works and the queue has nothing that it could start, when all
    that is there is paused, or when something holds one of a team for a time.
    """
    since = _before(last(db).pinged_at, now)
    live = orchestrations.live(db)
    at_work = {one.id for one in live if one.status is not OrchestrationStatus.PAUSED}
    found = agents.live(db)
    if any(_has_got_on(agent, since) for agent in found):
        return True
    held = [holds.of(db, agent) for agent in found if agent.orchestration_id in at_work]
    if any(hold is not None and hold.until is not None for hold in held):  # what only a person ends is not well
        return True
    return not at_work and (bool(live) or not entries.waits_to_start(db, now=now))


def _has_got_on(agent: Agent, since: int) -> bool:
    if agent.last_hook == "Stop" and (agent.last_hook_at or 0) > since:
        return True
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    return path is not None and transcripts.has_answered_since(path, since)
