"""The queue of a fleet: how soon a spec is begun, and a lost host's entry given on; how long a long one is listed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machine import rehearsal, wait_for
from benchmarks.teams import HOLDS, Counts
from lib import host, store
from lib.config import FleetSettings
from lib.fleet import connection, entries, record
from lib.fleet.entries import Entry
from lib.fleet.envelopes import pack
from lib.fleet.link import Link, Parts, run
from tests import fleet_machines, nats
from tests.fleet_machines import ACK_WAIT_SECONDS, Host

ENTRIES = 10_000


def queue(counts: Counts) -> list[Figure]:
    """A list of ten thousand entries; with a server also what hosts do."""
    found = [_listing(counts)]
    if nats.PROGRAM is None:
        return found
    begun, beyond = [], []
    for _ in range(counts.launches):
        with hosts("home", "red", "green") as (home, *workers):
            begun.append(_begin(home, workers))
            beyond.append(_lose(workers))
    return [
        *found,
        Figure("fleet's queue: from --fleet until its team is briefed on another host", "s", tuple(begun)),
        Figure(
            "fleet's queue: after the ack wait, until another host has a lost one's entry",
            "s",
            tuple(beyond),
            target=2.0,
            note=f"the ack wait was {ACK_WAIT_SECONDS} s",
        ),
        _hearing(),
    ]


def an_entry(number: int, at: int) -> Entry:
    """An entry of a long queue."""
    fields = {
        **{"id": f"f{number:08x}", "state": "queued", "label": "any", "priority": 0, "added_at": at},
        **{"origin": "home", "project": {"name": "webapp"}, "spec_name": f"feature-{number}.md", "options": {}},
        **{"agents": 5, "term": 0, "host": None, "tags": [], "spec": {"host": "home", "name": "spec"}},
    }
    return Entry(str(fields["id"]), number + 1, fields)


def _listing(counts: Counts) -> Figure:
    with rehearsal() as machine:
        entries.heard(machine.db(), [an_entry(number, host.now_ms()) for number in range(ENTRIES)])
        times = []
        for _ in range(max(5, counts.sends // 10)):
            began = time.perf_counter()
            machine.door("scheduler.py", "--queue-list")
            times.append((time.perf_counter() - began) * 1000)
    return Figure(f"fleet's queue: scheduler.py --queue-list of {ENTRIES:,} entries", "ms", tuple(times), target=1000.0)


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-fleet-") as folder,
        nats.running(Path(folder) / "nats") as server,
        fleet_machines.fleet(Path(folder), server.url, *names) as made,
    ):
        for number, one in enumerate(made):
            one.start(works=number > 0)
        yield made


def _begin(home: Host, workers: list[Host]) -> float:
    project, began = home.bench.project(), host.now_ms()
    home.put(project, HOLDS, "holds.md")
    wait_for(lambda: any(_briefed(one) for one in workers), "the team")
    return (min(at for one in workers for at in _briefed(one)) - began) / 1000


def _briefed(one: Host) -> list[int]:
    rows = one.bench.rows("SELECT acknowledged_at AS at FROM messages WHERE kind = 'briefing'")
    return [row["at"] for row in rows if row["at"] is not None]


def _lose(workers: list[Host]) -> float:
    """Seconds beyond the ack wait, from when the lost host said for the last time that it has the entry."""
    (lost,) = [one for one in workers if one.teams()]
    (other,) = [one for one in workers if not one.teams()]
    lost.lose()
    said_at = int(lost.bench.rows("SELECT extended_at FROM fleet_leases")[0]["extended_at"])
    taken = "SELECT at FROM events WHERE kind = 'fleet.taken'"
    wait_for(lambda: other.bench.rows(taken), "the other host to have it")
    return (int(other.bench.rows(taken)[0]["at"]) - said_at) / 1000 - ACK_WAIT_SECONDS


def _hearing() -> Figure:
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-fleet-") as folder,
        nats.running(Path(folder) / "nats") as server,
    ):
        seconds = asyncio.run(_heard(server.url, Path(folder)))
    return Figure(f"fleet's queue: a link that begins hears {ENTRIES:,} entries", "s", (seconds,))


async def _heard(url: str, folder: Path) -> float:
    settings = FleetSettings(url=url, host="box")
    made = await connection.connect(settings, folder)
    await connection.prepare(made, settings, folder)
    for first in range(0, ENTRIES, 500):
        several = [an_entry(number, host.now_ms()) for number in range(first, first + 500)]
        await asyncio.gather(*(made.js.publish(f"$KV.entries.{one.id}", pack(one.record)) for one in several))
    await made.close()
    link, began = Link(folder, settings, store.connect(folder)), time.perf_counter()

    async def all_heard(_: Link) -> str:
        while len(entries.every(link.db)) < ENTRIES:
            await asyncio.sleep(0.05)
        return f"{time.perf_counter() - began}"

    return float(await run(link, Parts(tasks=(record.hear,)), all_heard))
