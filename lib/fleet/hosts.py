"""What hosts tell one another: each its own record every few seconds, and a person's orders to them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from importlib import metadata

import psutil
from nats.errors import Error as NatsError
from nats.js.errors import NoStreamResponseError

from lib import agents, orchestrations
from lib.config import FleetSettings
from lib.errors import OrchestratorError
from lib.fleet import buckets, connection, members, outbox
from lib.fleet.buckets import Stored
from lib.fleet.envelopes import Unreadable, pack, unpack
from lib.fleet.link import Link
from lib.fleet.members import Sighting, Standing
from lib.models import AgentState, EntryStatus
from lib.queue import entries

HOSTS, ORDERS = "hosts", "orders"
#: Our own record is news with each heartbeat: when it was not heard for so many, nothing is.
SILENT_HEARTBEATS = 4
#: What comes within so long is written to the store together.
TOGETHER_SECONDS = 0.5
#: How often it is looked who has come to the fleet, or was removed from it.
ROOM_SECONDS = 30.0
#: Without a setting a machine has room for one agent in each of these.
MB_OF_THE_MACHINE = 1000


async def tell(link: Link) -> None:
    """Tell of this host, every few seconds."""
    while True:
        try:
            await tell_once(link)
        except (NatsError, TimeoutError):
            # Cut off from the other servers of its cluster it reads and does not write: another one may.
            if link.fleet.is_of_a_cluster:
                link.fleet.lost.set()
            raise
        await asyncio.sleep(members.own_heartbeat_seconds(link.db))


async def tell_once(link: Link) -> None:
    await _put(link, HOSTS, link.fleet.host, pack(record_of(link)))


async def _put(link: Link, bucket: str, key: str, value: bytes) -> None:
    await link.fleet.js.publish(f"$KV.{bucket}.{key}", value)


def record_of(link: Link) -> dict[str, object]:
    """What this host tells of itself."""
    running = [one for one in agents.live(link.db) if agents.state_of(one) is not AgentState.GONE]
    memory = psutil.virtual_memory()
    return {
        "host": link.fleet.host,
        "version": metadata.version("tmux-orchestrator"),
        "at": link.clock(),
        "every_seconds": members.own_heartbeat_seconds(link.db),
        "labels": list(link.settings.labels),
        "agents": len(running),
        "capacity": capacity(link.settings),
        "cpus": os.cpu_count() or 1,
        "memory_free_mb": memory.available // 2**20,
        "load": round(os.getloadavg()[0], 2),
        "standing": members.standing_of(link.db, link.fleet.host),
        "teams": [
            {"session": one.session, "project": one.project.name, "status": one.status}
            for one in orchestrations.live(link.db)
        ],
        "entries": sum(one.status is EntryStatus.RUNNING for one in entries.unfinished(link.db)),
    }


def capacity(settings: FleetSettings) -> int:
    """How many agents may run on this host."""
    return settings.agents or max(1, psutil.virtual_memory().total // 2**20 // MB_OF_THE_MACHINE)


async def make_room(link: Link) -> None:
    """Have the server keep what it should for hosts that have come or gone, where this host may."""
    while True:
        await connection.prepare(link.fleet, link.settings, link.home)
        await asyncio.sleep(ROOM_SECONDS)


# -- hearing --


async def hear_hosts(link: Link) -> None:
    """Keep what hosts tell of themselves, each with its age."""
    await tell_once(link)  # so that the newest of all is of now
    found = await buckets.every(link.fleet, HOSTS)
    members.are(link.db, _sightings(found, link.clock()), now=link.clock())
    kept = {(one.key, one.revision) for one in found}
    news: dict[str, Sighting | None] = {}
    async with asyncio.TaskGroup() as group:
        group.create_task(_write(link, news))
        async for stored in buckets.watch(link.fleet, HOSTS):
            if (stored.key, stored.revision) not in kept:
                now = link.clock()
                news[stored.key] = _sighting(stored, now) if stored.value is not None else None


async def _write(link: Link, news: dict[str, Sighting | None]) -> None:
    """Keep the news of hosts, what has come together as one."""
    heard_at = time.monotonic()
    while time.monotonic() - heard_at < SILENT_HEARTBEATS * members.own_heartbeat_seconds(link.db):
        await asyncio.sleep(TOGETHER_SECONDS)
        if link.fleet.host in news:
            heard_at = time.monotonic()
        if news:
            found = [one for one in news.values() if one]
            members.saw(link.db, found, [name for name, one in news.items() if one is None], now=link.clock())
            news.clear()
    # It answers and does nothing: of a cluster another server may do better.
    link.fleet.lost.set()
    raise OrchestratorError("the fleet's server has told no news for a while")


def _sightings(found: Sequence[Stored], now: int) -> list[Sighting]:
    """What lies in the bucket, where our own record was just put.

    The server's clock alone says how much older the others are: so no host's clock matters, and one that has been
    silent for days is not taken for new.
    """
    newest = max((one.at or 0 for one in found), default=0)
    return [_sighting(one, now - (newest - (one.at or 0))) for one in found if one.value is not None]


def _sighting(stored: Stored, seen_at: int) -> Sighting:
    try:
        record = members.checked(unpack(stored.value or b""))
    except Unreadable as error:
        return Sighting(stored.key, {}, seen_at, 0, error.sentence)
    return Sighting(stored.key, record, seen_at, record["at"] - seen_at)


async def hear_orders(link: Link) -> None:
    """Keep what is ordered of hosts; to an order of its own a host answers at once with its record."""
    async for stored in buckets.watch(link.fleet, ORDERS):
        members.heard_order(link.db, stored.key, _standing(stored.value))
        if stored.key == link.fleet.host:
            await tell_once(link)


def _standing(value: bytes | None) -> Standing:
    if value is None:
        return Standing.OPEN
    try:
        return Standing(str(unpack(value).get("standing")))
    except (Unreadable, ValueError):
        return Standing.CORDONED  # what it cannot read may be an order to take nothing new


# -- ordering --


async def send_order(link: Link, item: outbox.Item) -> None:
    """Order something of a host. Raises `Refused` when this host may not."""
    host, standing = str(item.body["host"]), Standing(str(item.body["standing"]))
    try:
        await _put(link, ORDERS, host, pack({**item.body, "by": link.fleet.host}))
    except NoStreamResponseError:  # to a host that may not write there, nothing is there
        raise outbox.Refused(
            f"this host may not order anything of {host}",
            hint="type it there, or on the machine that founded the fleet",
        ) from None
    members.heard_order(link.db, host, standing)
