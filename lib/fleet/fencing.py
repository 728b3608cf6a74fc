"""Self-fencing: a team of the fleet's stands still when its host could not say for too long that it has the entry.

After the ack wait the queue gives an entry to another host. What could not be extended for two thirds of that is held
here, by the daemon, which needs no connection for it; the link lets it go on when it has proved that it is this host's.
"""

from __future__ import annotations

import sqlite3

from lib import host, orchestrations, pauses
from lib.errands import Errands
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import Lease
from lib.models import LIVE, Hold, Orchestration, OrchestrationStatus
from lib.queue import entries
from lib.store import writing

#: A team that is just being launched cannot be paused: it is looked at again so soon.
_LOOK_AGAIN_MS = 1000


def fences_at(lease: Lease) -> int:
    """When an entry is not this host's for certain any more (UTC milliseconds)."""
    return lease.extended_at + lease.ack_wait_ms * 2 // 3


def is_certain(lease: Lease, now: int) -> bool:
    """Whether no other host can have an entry now. A clock that was set back tells nothing."""
    return lease.fenced_at is None and now < fences_at(lease) and not host.was_set_back(lease.extended_at, now)


def hold_of(db: sqlite3.Connection, local_id: int, *, now: int) -> Hold | None:
    """What keeps an entry of this host's queue from being started: it may be another host's by now."""
    lease = fleet_entries.lease_of_local(db, local_id)
    if lease is None or is_certain(lease, now):
        return None
    return Hold("it may be another host's: the fleet cannot be reached", None)


def fence(db: sqlite3.Connection, running: Errands, *, now: int, is_alone: bool = False) -> list[int]:
    """Pause the teams whose entries may be another host's. Returns when to look again.

    All of them for who `is_alone`: a link that knows that no scheduler does this.
    """
    dues = []
    for lease in fleet_entries.leases(db):
        if is_certain(lease, now) and not is_alone:
            dues.append(fences_at(lease))
        else:
            dues += _pause(db, running, lease, now)
    return dues


def _pause(db: sqlite3.Connection, running: Errands, lease: Lease, now: int) -> list[int]:
    found = team_of(db, lease)
    if found is None or found.paused_at is not None:
        if lease.fenced_at is None:
            with writing(db):
                fleet_entries.fence(db, lease, has_paused=False, now=now)
        return []
    if found.status is OrchestrationStatus.STARTING:
        return [now + _LOOK_AGAIN_MS]
    with writing(db):
        has_paused = pauses.pause(db, found, now=now, why="it may be another host's by now; it goes on by itself")
        fleet_entries.fence(db, lease, has_paused=has_paused, now=now)
    # Whoever is at work is interrupted: that types, which takes longer than a beat may. By then it may go on again.
    running.start(f"fence-{found.id}", "claude_control.py", "pause", found.session, "--now", "--if-paused", "--quiet")
    return []


def go_on(db: sqlite3.Connection, lease: Lease, *, now: int) -> None:
    """Let a team go on whose entry is this host's for certain again, unless a person has paused it too."""
    with writing(db):
        found = team_of(db, lease)
        if found and lease.has_paused:
            pauses.resume(db, found, now=now)
        fleet_entries.unfence(db, lease, now=now)


def team_of(db: sqlite3.Connection, lease: Lease) -> Orchestration | None:
    """The live team that works an entry here, or None."""
    attempt = entries.open_attempt(db, lease.local_id) if lease.local_id is not None else None
    if attempt is None or attempt.orchestration_id is None:
        return None
    found = orchestrations.get(db, attempt.orchestration_id)
    return found if found.status in LIVE else None
