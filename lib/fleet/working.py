"""What this host has taken: extended while it lives here, its branches pushed, ended with its results, or lost.

The acknowledgement of its message is extended while the entry lives in the queue of this host; and before anything
leaves the host, it looks whether the record is still its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from lib import agents, host, orchestrations, service, store
from lib.errands import Errands
from lib.errors import OrchestratorError
from lib.fleet import buckets, fencing, members, record, travel, trying
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import Lease, State
from lib.fleet.link import Link
from lib.fleet.members import Standing
from lib.fleet.travel import Ground
from lib.models import UNFINISHED as UNFINISHED_HERE
from lib.models import EntryStatus, QueueEntry
from lib.queue import draining
from lib.queue import entries as local_entries
from lib.tmux import Tmux

log = logging.getLogger(__name__)

#: A scheduler that is restarted is away for less.
ALONE_SECONDS = 15.0

#: An entry that was taken, by its id and how often it was.
Lost = tuple[str, int]


async def keep(link: Link) -> None:
    """Extend what this host has, push what its teams have committed, and end what is over."""
    lost: dict[Lost, str] = {}
    async with asyncio.TaskGroup() as group:
        # Side by side: a push of gigabytes holds up no word that this host has its entries.
        group.create_task(_hold_all(link, lost))
        group.create_task(_keep_all(link, lost))


def _name(lease: Lease) -> Lost:
    return lease.entry_id, lease.term


async def _hold_all(link: Link, lost: dict[Lost, str]) -> None:
    """Say of each entry that this host has it still; of one that is another's keep why in `lost`."""
    again: dict[str, float] = {}
    running, seen_at = Errands(link.home), time.monotonic()
    while True:
        if service.running(link.home):
            seen_at = time.monotonic()
        elif time.monotonic() - seen_at > ALONE_SECONDS:
            # Nobody but this link could have its teams stand still when the fleet gives their entries away.
            fencing.fence(link.db, running, now=link.clock(), is_alone=True)
        for lease in fleet_entries.leases(link.db):
            if _name(lease) not in lost:
                await trying.guarded(lease.entry_id, again, partial(_hold, link, lease, lost))
        await asyncio.sleep(trying.LOOK_SECONDS)


async def _hold(link: Link, lease: Lease, lost: dict[Lost, str]) -> None:
    now = link.clock()
    try:
        if not fencing.is_certain(lease, now):
            await _prove(link, lease)
        elif now >= lease.extended_at + lease.ack_wait_ms // 3:
            await _extend(link, lease)
    except record.Superseded as error:
        lost[_name(lease)] = error.sentence


async def _keep_all(link: Link, lost: dict[Lost, str]) -> None:
    again: dict[str, float] = {}
    while True:
        for lease in fleet_entries.leases(link.db):
            await trying.guarded(lease.entry_id, again, partial(_keep, link, lease, lost))
        await asyncio.sleep(trying.LOOK_SECONDS)


async def _keep(link: Link, lease: Lease, lost: dict[Lost, str]) -> None:
    """Do what is due of an entry. Nothing leaves the host of one that may be another's."""
    try:
        if _name(lease) in lost:
            raise record.Superseded(lost[_name(lease)])
        if lease.local_id is None or not fencing.is_certain(lease, link.clock()):
            return
        local = local_entries.get(link.db, lease.local_id)
        if local.status not in UNFINISHED_HERE:
            await _end(link, lease, local)
        elif _is_cancelled(link, lease):
            await _stop_here(link, lease, "cancelled by hand")
        elif _is_at_rest(local) and members.standing_of(link.db, link.fleet.host) is Standing.DRAINING:
            await _give_back(link, lease)
        else:
            await _tell(link, lease, local)
            if link.clock() >= lease.kept_at + round(link.settings.snapshot_minutes * 60_000):
                await _push(link, lease, local)
    except record.Superseded as error:
        await _lose(link, lease, error.sentence)
        lost.pop(_name(lease), None)


async def _extend(link: Link, lease: Lease) -> None:
    """Say that this host has an entry still, when it has. Raises `record.Superseded` when another has it."""
    now = link.clock()
    if link.fleet.is_of_a_cluster:
        # A server that is cut off from the others reads what it has, and extends, for a while; it cannot write.
        await record.change_own(link, lease, {})
    else:
        found = await record.read(link, lease.entry_id)
        if found is None or not found.is_held_by(link.fleet.host, lease.term):
            raise record.Superseded(record.who(found))
    # With a reply: a word that nobody has heard extends nothing.
    await link.fleet.nc.request(lease.ack, b"+WPI", timeout=record.ASK_SECONDS)
    fleet_entries.extended(link.db, lease, now=now)


async def _prove(link: Link, lease: Lease) -> None:
    """Find out whether an entry is this host's still that was not extended in time, and let its team go on if so.

    Its record is written: whoever has read it before cannot take it any more, and whoever takes it from now on gives
    this host the time to find out.
    """
    now = link.clock()
    if lease.fenced_at is None or service.running(link.home) is None:
        host.wake(link.home)  # first the scheduler has its team stand still, now and the next time
        return
    await record.change_own(link, lease, {"proved": lease.term})
    await _extend(link, lease)
    fencing.go_on(link.db, lease, now=now)
    host.wake(link.home)


async def _lose(link: Link, lease: Lease, why: str) -> None:
    """Stop the team of an entry that is another host's now; its branches stay here."""
    log.warning("entry %s is not this host's any more: %s", lease.entry_id, why)
    await _stop_here(link, lease, f"it is not this host's any more: {why}")
    found = await record.read(link, lease.entry_id)
    if found is None or found.state not in fleet_entries.UNFINISHED:
        # Perhaps by this host itself, which has not heard the answer: nobody else would look there.
        await record.acknowledge(link, lease.ack)
    fleet_entries.ended(link.db, lease, why, now=link.clock())


async def _stop_here(link: Link, lease: Lease, reason: str) -> None:
    """End an entry of this host's queue for good, with its team; its branches stay."""
    if lease.local_id is None:
        return

    def stop(local_id: int) -> None:
        db = store.connect(link.home)
        try:
            if local_entries.get(db, local_id).status in UNFINISHED_HERE:
                tmux = Tmux.from_environment()
                draining.cancel(db, tmux, link.home, local_id, now=host.now_ms(), reason=reason)
        finally:
            db.close()

    await asyncio.to_thread(stop, lease.local_id)


def _is_cancelled(link: Link, lease: Lease) -> bool:
    heard = fleet_entries.get(link.db, lease.entry_id)
    return heard is not None and bool(heard.record.get("is_cancelled"))


def _is_at_rest(local: QueueEntry) -> bool:
    """Whether nothing works at an entry now: it was not begun, or waits for its next attempt."""
    return local.status is not EntryStatus.RUNNING


async def _give_back(link: Link, lease: Lease) -> None:
    """Let another host have an entry at which nothing works now."""
    await record.let_go(link, lease, {"says": None}, "this host is being drained")
    await _stop_here(link, lease, "given back: this host is being drained")


async def _tell(link: Link, lease: Lease, local: QueueEntry) -> None:
    """Have every host see how an entry stands, when that has changed."""
    heard = fleet_entries.get(link.db, lease.entry_id)
    says = draining.status_of(link.db, local) + (f": {local.reason}" if local.reason else "")
    if heard is not None and heard.record.get("says") != says[:500]:
        await record.change_own(link, lease, {"says": says[:500]})


async def _push(link: Link, lease: Lease, local: QueueEntry) -> None:
    """Push the branches of an entry's team, so that another host could go on from there."""
    now = link.clock()
    found = await record.read(link, lease.entry_id)
    if found is None or not found.is_held_by(link.fleet.host, lease.term):
        raise record.Superseded(record.who(found))
    before = found.record.get("kept") or {}
    branches = {**before.get("branches", {}), **await asyncio.to_thread(_branches, link, local)}
    team = await asyncio.to_thread(_team, link, lease, branches)
    if team and branches != before.get("branches"):
        made = await _sent(link, lease, local, branches, f"kept-{lease.term}-{now}")
        await record.change_own(link, lease, {"kept": {**made, "team": team, "at": now}})
        await _drop(link, before.get("parcel"))
    fleet_entries.kept(link.db, lease, now=now)


def _branches(link: Link, local: QueueEntry) -> dict[str, str]:
    """The branches of all teams that have worked at an entry here."""
    db = store.connect(link.home)
    try:
        ids = [one.orchestration_id for one in local_entries.attempts(db, local.id)]
        prefixes = [orchestrations.get(db, one).branches for one in ids if one]
    finally:
        db.close()
    return travel.branches_of(local.project, prefixes)


def _team(link: Link, lease: Lease, branches: Mapping[str, str]) -> dict[str, str]:
    """On which commit each agent of the team that works now stands, by role."""
    db = store.connect(link.home)
    try:
        found = fencing.team_of(db, lease)
        team = agents.of_orchestration(db, found.id) if found else []
    finally:
        db.close()
    return {agent.role: branches[agent.branch] for agent in team if agent.branch in branches}


async def _sent(
    link: Link, lease: Lease, local: QueueEntry, branches: Mapping[str, str], name: str
) -> dict[str, object]:
    """Put branches into the store. Returns what a record says of them."""
    heard = fleet_entries.get(link.db, lease.entry_id)
    assert heard
    base = Ground.of(heard.record["project"]).commit
    parcel = await travel.send_branches(link.fleet, f"{lease.entry_id}/{name}", local.project, branches, base=base)
    return {"branches": dict(branches), "parcel": parcel.as_data() if parcel else None}


async def _drop(link: Link, data: Mapping[str, Any] | None) -> None:
    """Take out of the store what nothing names any more; what another host has put there is its own."""
    if data is None or data.get("host") != link.fleet.host:
        return
    await buckets.drop_object(link.fleet, str(data["name"]))


_OVER = {EntryStatus.SUCCEEDED: State.SUCCEEDED, EntryStatus.ABANDONED: State.ABANDONED}


async def _end(link: Link, lease: Lease, local: QueueEntry) -> None:
    """Put the results of an entry that is over into the store, say so, and take it off the queue."""
    found = await record.read(link, lease.entry_id)
    if found is None or not found.is_held_by(link.fleet.host, lease.term):
        raise record.Superseded(record.who(found))
    before = found.record.get("kept") or {}
    try:
        own = await asyncio.to_thread(_branches, link, local)
        result = await _sent(link, lease, local, {**before.get("branches", {}), **own}, f"result-{lease.term}")
    except OrchestratorError as error:  # a checkout that somebody has removed: the outcome is told all the same
        result = {
            "trouble": travel.in_words(error),
            "branches": before.get("branches", {}),
            "parcel": before.get("parcel"),
        }
    over = _OVER.get(local.status, State.CANCELLED)
    outcome = local.reason or _outcome(link, local)
    await record.change_own(
        link, lease, {"state": over, "outcome": outcome, "result": result, "says": None, "ended_at": link.clock()}
    )
    await record.acknowledge(link, lease.ack)
    fleet_entries.ended(link.db, lease, str(over), now=link.clock())
    if result.get("parcel") != before.get("parcel"):
        await _drop(link, before.get("parcel"))  # the result holds all of it


def _outcome(link: Link, local: QueueEntry) -> str | None:
    made = local_entries.attempts(link.db, local.id)
    return made[-1].reason if made else None
