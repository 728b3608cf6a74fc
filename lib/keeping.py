"""Keeping teams: what has ended of a team that should run is started again, with a stop for crash loops."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lib import agents, errands, orchestrations, retries, store
from lib.errands import Errands
from lib.models import AgentState, Orchestration, OrchestrationStatus

#: A launch holds its lock soon after it is recorded; one that is younger may not have come to that yet.
_JUST_RECORDED_MS = 5_000


def revive(db: sqlite3.Connection, home: Path, running: Errands, *, now: int) -> list[int]:
    """Resume every team that should run and of which something has ended. Returns when it has to be looked at again.

    A team that was resumed too often in a short time needs attention: it is left alone and a person is told.
    """
    dues: list[int] = []
    for found in orchestrations.live(db):
        if found.status not in (OrchestrationStatus.STARTING, OrchestrationStatus.RUNNING):
            continue
        missing = _missing(db, found, now)
        errand = f"launch-{found.id}"
        if not missing or errands.is_at_work(home, errand):
            continue
        at = _next_revival(db, found, now)
        if at is None:
            _give_up(db, home, found, missing, now)
        elif at > now:
            dues.append(at)
        else:
            with store.writing(db):
                store.record(db, "orchestration.reviving", now=now, orchestration=found.id, missing=missing)
            running.start(errand, "auto_orchestrate.py", "--project", str(found.project), "--resume", "--quiet")
    return dues


def _missing(db: sqlite3.Connection, found: Orchestration, now: int) -> str | None:
    """What a team lacks, in words; None when nothing does."""
    team = agents.of_orchestration(db, found.id)
    gone = [agent.role for agent in team if agents.state_of(agent) is AgentState.GONE]
    if found.status is OrchestrationStatus.STARTING:
        return "its launch did not end" if now - found.created_at > _JUST_RECORDED_MS else None
    return f"{', '.join(gone)} {'has' if len(gone) == 1 else 'have'} ended" if gone else None


def _next_revival(db: sqlite3.Connection, found: Orchestration, now: int) -> int | None:
    since = now - retries.CRASH_LOOP_MS
    told = store.events(db, orchestration=found.id, kind="orchestration.reviving", since=since)
    return retries.next_revival([event.at for event in told], now=now)


def _give_up(db: sqlite3.Connection, home: Path, found: Orchestration, missing: str, now: int) -> None:
    said = errands.last_words(home, f"launch-{found.id}")
    outcome = (
        f"{missing}, and resuming it {retries.CRASH_LOOP_REVIVALS} times within"
        f" {retries.CRASH_LOOP_MS // retries.MINUTE_MS} minutes has not helped{f': {said}' if said else ''};"
        f" next: auto_orchestrate.py --project {found.project} --resume"
    )
    orchestrations.set_status(db, found.id, OrchestrationStatus.NEEDS_ATTENTION, now=now, outcome=outcome)
