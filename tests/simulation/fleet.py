"""Simulated fleets: the links of several hosts as they are, each with its store, and a server in memory.

Real are all of `lib/fleet/` between connection and store, the fencing of the scheduler, and the host's own queue.
Simulated are the server (`jetstream.py`), time (`clockwork.py`), git and files, and the teams: each works for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import random
import shutil
import sqlite3
import tempfile
import time as real_time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from lib import config, host, orchestrations, service, stopping, store
from lib.config import FleetSettings, QueueSettings, Settings
from lib.fleet import buckets, connection, fencing, hosts, link, putting, record, taking, travel, trying, working
from lib.fleet import entries as fleet_entries
from lib.fleet.link import Link, Parts
from lib.fleet.travel import Ground
from lib.models import OrchestrationStatus
from lib.queue import entries as local_entries
from lib.store import writing
from tests.agents import an_orchestration
from tests.simulation import jetstream
from tests.simulation.clockwork import Loop
from tests.simulation.runs import Operation, Verdict, blank_store, memory
from tests.simulation.world import BEGINS_AT, Broken

ACK_WAIT_SECONDS = 30.0
NAMES = ("home", "red", "green", "blue")
#: How long a world is in trouble, and how long it may take to settle after it.
SECONDS, SETTLES_WITHIN_SECONDS = 240.0, 1200.0
#: How often it is looked who is at work.
_LOOK_SECONDS = 0.1
#: All that a link does; tidying up begins after ten minutes.
PARTS = Parts(
    tasks=(
        *(hosts.tell, hosts.hear_hosts, hosts.hear_orders, record.hear),
        *(taking.make_consumers, taking.take, working.keep, putting.bring_home),
    ),
    senders=putting.SENDERS,
)
SETTINGS = Settings(queue=QueueSettings(max_concurrent=2))
_COMMIT = "a" * 40


class Host:
    """A host: its store outlives it, its link and its scheduler are tasks."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.home = world.folder / name
        self.home.mkdir()
        (self.home / "orchestrator.db").write_bytes(blank_store())
        self.chance = random.Random(f"{world.seed} {name}")
        #: By how much its clock is ahead (seconds).
        self.ahead = 0.0
        self.looking = sqlite3.connect(self.home / "orchestrator.db", isolation_level=None)
        #: What its teams have still to do (seconds), by their ids.
        self.left: dict[str, float] = {}
        #: Whether its machine runs, and its scheduler has looked around since.
        self.is_on = self.has_looked = False
        self.link: asyncio.Task[str] | None = None
        self.scheduler: asyncio.Task[None] | None = None
        self._dbs: list[sqlite3.Connection] = []
        if name == world.names[0]:
            local_entries.set_paused(self._db(), True, now=0)

    def clock(self) -> int:
        return round((BEGINS_AT + self.world.loop.time() + self.ahead) * 1000)

    def start(self) -> None:
        self.is_on = True
        self.start_link()
        self.start_scheduler()

    def start_link(self) -> None:
        if self.is_on and self.link is None:
            settings = FleetSettings(
                url="nats://127.0.0.1:4222", host=self.name, agents=8, ack_wait_seconds=ACK_WAIT_SECONDS
            )
            self._link_db = self._db()
            made = Link(self.home, settings, self._link_db, clock=self.clock)
            self.link = asyncio.create_task(link.run(made, PARTS, _for_ever))

    def trace_link(self, heard: Callable[[str], object]) -> None:
        """Tell of every statement of its link on its store."""
        self._link_db.set_trace_callback(heard)

    def start_scheduler(self) -> None:
        if self.is_on and self.scheduler is None:
            self.scheduler = asyncio.create_task(self._schedule(self._db()))

    def kill_link(self) -> None:
        """kill -9: it writes nothing more, and nothing more of it is sent."""
        if self.link:
            self._link_db.close()
            self.world.server.drop(self.name)
            self.world.end(self.link)
            self.link = None

    def kill_scheduler(self) -> None:
        if self.scheduler:
            self.world.end(self.scheduler)
            self.scheduler = None

    def kill(self) -> None:
        """The whole machine loses its power."""
        self.is_on = self.has_looked = False
        self.kill_link()
        self.kill_scheduler()

    def _db(self) -> sqlite3.Connection:
        made = store.connect(self.home)
        self._dbs.append(made)
        return made

    async def _schedule(self, db: sqlite3.Connection) -> None:
        errands: Any = SimpleNamespace(start=lambda *_: True)
        last = self.world.loop.time()
        while True:
            now = self.clock()
            fencing.fence(db, errands, now=now)
            self.has_looked = True
            self._work(db, self.world.loop.time() - last, now)
            last = self.world.loop.time()
            self._launch(db, now)
            await asyncio.sleep(self.chance.uniform(0.3, 0.9))

    def _launch(self, db: sqlite3.Connection, now: int) -> None:
        def is_held(entry: Any) -> bool:
            return fencing.hold_of(db, entry.id, now=now) is not None

        attempt = local_entries.claim(db, now=now, max_concurrent=2, is_held=is_held)
        if attempt is None:
            return
        project = local_entries.get(db, attempt.entry_id).project
        found = an_orchestration(project=project, session=f"team-{attempt.entry_id}", unattended=True)
        with writing(db):
            orchestrations.add(db, found)
            local_entries.link(db, attempt, found.id, now=now)
        self.left[found.id] = self.chance.uniform(5.0, 90.0)

    def _work(self, db: sqlite3.Connection, seconds: float, now: int) -> None:
        for found in orchestrations.live(db):
            if found.status is not OrchestrationStatus.RUNNING:
                continue
            self.left[found.id] -= seconds
            attempt = next((one for one in local_entries.open_attempts(db) if one.orchestration_id == found.id), None)
            if self.left[found.id] <= 0 and attempt:
                with writing(db):
                    orchestrations.set_status(db, found.id, OrchestrationStatus.COMPLETED, now=now, outcome="done")
                local_entries.settle(db, attempt, orchestrations.get(db, found.id), SETTINGS.queue, now=now)
                local_entries.close(db, attempt, now=now)

    def at_work(self) -> list[str]:
        """The entries of the fleet at which a team works here now, one for each team."""
        if not self.is_on or not self.has_looked:
            return []
        rows = self.looking.execute(
            "SELECT json_extract(queue_entries.options, '$.fleet') FROM orchestrations"
            " JOIN attempts ON attempts.orchestration_id = orchestrations.id"
            " JOIN queue_entries ON queue_entries.id = attempts.entry_id WHERE orchestrations.status = 'running'"
        )
        return [row[0] for row in rows]


async def _for_ever(_: Link) -> str:
    await asyncio.Event().wait()
    return "never"


class World:
    """A fleet with all that lives in it."""

    def __init__(self, seed: int, folder: Path, loop: Loop, names: Sequence[str] = NAMES) -> None:
        self.seed, self.folder, self.loop = seed, folder, loop
        self.server = jetstream.Server(loop, random.Random(f"{seed} server"))
        self.names = names
        self.hosts = [Host(self, name) for name in names]
        self.trace: list[str] = []
        self.put: list[str] = []
        self._ended: list[asyncio.Task[Any]] = []
        self._checked = 0

    @property
    def home(self) -> Host:
        """The host that puts all entries; it works at none."""
        return self.hosts[0]

    def tell(self, what: str) -> None:
        self.trace.append(f"{self.loop.now:9.2f} {what}")

    def end(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self._ended.append(task)

    async def live(self, plan: Sequence[Operation], seconds: float) -> None:
        for one in self.hosts:
            one.start()
        for operation in plan:
            await self._until(operation.at)
            self.tell(f"-- {operation.verb}{operation.words}")
            OPERATIONS[operation.verb](self, *operation.words)
        await self._until(seconds) if plan else await self.pass_by(seconds)

    async def pass_by(self, at: float) -> None:
        """Let time pass in which nobody looks."""
        await asyncio.sleep(at - self.loop.now)

    async def settle(self) -> None:
        """Nothing goes wrong any more; wait until all has come to its end, and judge that."""
        self.tell("-- all is well from now on")
        self.server.lost_answers.clear()
        self.server.doubled = 0
        for one in self.hosts:
            self.server.heal(one.name)
            one.start()
        if not self.server.is_up:
            self.server.start()
        end = self.loop.now + SETTLES_WITHIN_SECONDS
        while self.loop.now < end and not is_settled(self):
            await self._until(self.loop.now + 5.0)
        await self._until(self.loop.now + 10.0)
        no_entry_of_the_fleet_is_lost(self)
        results_come_home_once(self)
        nothing_is_left_behind(self)

    async def close(self) -> None:
        for one in self.hosts:
            one.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(self._ended, timeout=60)

    async def _until(self, at: float) -> None:
        while self.loop.now < at:
            await asyncio.sleep(min(_LOOK_SECONDS, at - self.loop.now))
            entries_run_in_one_place(self)
            for task in [task for one in self.hosts for task in (one.link, one.scheduler) if task and task.done()]:
                task.result()  # it ends only when it is killed
            for write in self.server.writes[self._checked :]:
                self.tell(f"{write.writer} writes {write.key}: {write.after['state']}, term {write.after['term']}")
                the_superseded_write_nothing(write)
                what_is_over_stays_so(write)
            self._checked = len(self.server.writes)


# -- what happens, by its name in a plan --


def put(world: World, number: int) -> None:
    """A person puts so many specs."""
    home = world.home
    for _ in range(number):
        spec = f"# Spec {len(world.put)}"
        body = {
            **{"path": str(world.folder / "webapp"), "spec": spec, "spec_name": "spec.md", "tags": [], "priority": 0},
            **{"options": {"agent": "rehearsal"}, "budget_minutes": None, "label": "any", "agents": 1},
        }
        paths = {"project": world.folder / "webapp", "spec_path": world.folder / "spec.md"}
        with contextlib.closing(store.connect(home.home)) as db:
            world.put.append(fleet_entries.put(db, body, **paths, now=home.clock()))


def partition(world: World, number: int, seconds: float) -> None:
    name = world.hosts[number].name
    world.server.cut_off(name)
    world.loop.call_later(seconds, world.server.heal, name)


def kill_host(world: World, number: int, seconds: float) -> None:
    world.hosts[number].kill()
    world.loop.call_later(seconds, world.hosts[number].start)


def kill_link(world: World, number: int, seconds: float) -> None:
    """Its scheduler starts it again; with both gone nobody would hold its teams (docs/fleet.md)."""
    if world.hosts[number].scheduler:
        world.hosts[number].kill_link()
        world.loop.call_later(seconds, world.hosts[number].start_link)


def kill_scheduler(world: World, number: int, seconds: float) -> None:
    if world.hosts[number].link:
        world.hosts[number].kill_scheduler()
        world.loop.call_later(seconds, world.hosts[number].start_scheduler)


def restart_server(world: World, seconds: float) -> None:
    world.server.kill()
    world.loop.call_later(seconds, world.server.start)


def lose_answer(world: World, number: int) -> None:
    """The next write of a host happens, and it does not hear of it."""
    world.server.lost_answers[world.hosts[number].name] += 1


def double_news(world: World, number: int) -> None:
    world.server.doubled += number


def double_put(world: World) -> None:
    """A link that is killed between sending and noting that: the outbox has it again."""
    with contextlib.closing(store.connect(world.home.home)) as db:
        for entry in fleet_entries.every(db)[:1]:
            spec = {"path": str(world.folder / "webapp"), "spec": "# Again", "spec_name": "spec.md", "tags": []}
            body = {**spec, **{name: entry.record[name] for name in ("priority", "options", "label", "agents")}}
            with writing(db):
                db.execute(
                    "INSERT INTO fleet_outbox (kind, body, queued_at) VALUES (?, ?, ?)",
                    (fleet_entries.PUT, json.dumps({**body, "id": entry.id}), world.home.clock()),
                )


def skew(world: World, number: int, seconds: float) -> None:
    """The clock of a host is set forward."""
    world.hosts[number].ahead += seconds


OPERATIONS: Mapping[str, Callable[..., None]] = {
    one.__name__: one
    for one in (
        *(put, partition, kill_host, kill_link, kill_scheduler, restart_server),
        *(lose_answer, double_news, double_put, skew),
    )
}

_HARM: tuple[tuple[int, str, Callable[[random.Random], tuple[Any, ...]]], ...] = (
    (6, "partition", lambda c: (c.randrange(4), round(c.uniform(2, 100), 1))),
    (3, "kill_host", lambda c: (c.randint(1, 3), round(c.uniform(1, 100), 1))),
    (3, "kill_link", lambda c: (c.randrange(4), round(c.uniform(1, 60), 1))),
    (2, "kill_scheduler", lambda c: (c.randint(1, 3), round(c.uniform(1, 60), 1))),
    (3, "restart_server", lambda c: (round(c.uniform(0.5, 60), 1),)),
    (4, "lose_answer", lambda c: (c.randrange(4),)),
    (1, "double_news", lambda c: (c.randint(1, 5),)),
    (1, "double_put", lambda c: ()),
    (1, "skew", lambda c: (c.randrange(4), round(c.uniform(1, 600), 1))),
)


def plan(seed: int, seconds: float = SECONDS) -> tuple[Operation, ...]:
    """What happens in the world of a seed; the first thing is that entries are put, and clocks differ."""
    chance = random.Random(f"{seed} plan")
    found = [Operation(0.5, "skew", (number, round(chance.uniform(-90, 90), 1))) for number in range(4)]
    found += [Operation(round(chance.uniform(1, seconds / 2), 1), "put", (chance.randint(1, 2),)) for _ in range(3)]
    for _ in range(chance.choice((0, 3, 6, 10, 15))):
        _, verb, draw = chance.choices(_HARM, [weight for weight, *_ in _HARM])[0]
        found.append(Operation(round(chance.uniform(5, seconds), 1), verb, draw(chance)))
    return tuple(sorted(found, key=lambda one: one.at))


# -- what has to hold --


def entries_run_in_one_place(world: World) -> None:
    """At an entry of the fleet one team works at a time, on one host."""
    seen: dict[str, str] = {}
    for one in world.hosts:
        for entry in one.at_work():
            if entry in seen:
                raise Broken("entries_run_in_one_place", f"{seen[entry]} and {one.name} work at {entry}")
            seen[entry] = one.name


def the_superseded_write_nothing(write: jetstream.Write) -> None:
    """While a host has an entry, no other changes its record, but by taking it or by a person's order."""
    before, after = write.before, write.after
    if before is None or before["state"] != "running" or write.writer == before["host"]:
        return
    is_taken = (after["host"], after["term"]) == (write.writer, before["term"] + 1)
    if not is_taken:
        raise Broken("the_superseded_write_nothing", f"{write.writer} has written {write.key} of {before['host']}")


def what_is_over_stays_so(write: jetstream.Write) -> None:
    """The record of an entry that is over is written no more."""
    if write.before and write.before["state"] not in ("queued", "running"):
        raise Broken("what_is_over_stays_so", f"{write.writer} has written {write.key}, which was over")


def is_settled(world: World) -> bool:
    return not _not_home(world) and not world.server.queue.messages


def _not_home(world: World) -> set[str]:
    rows = world.home.looking.execute("SELECT entry_id FROM fleet_puts WHERE fetched_at IS NOT NULL")
    return set(world.put) - {row[0] for row in rows}


def no_entry_of_the_fleet_is_lost(world: World) -> None:
    """In the end every entry has succeeded, and its results are home."""
    records = {key: json.loads(value.data) for key, value in world.server.values["entries"].items()}
    left = [key for key in world.put if records.get(key, {}).get("state") != "succeeded"]
    if left or (left := sorted(_not_home(world))):
        raise Broken("no_entry_of_the_fleet_is_lost", f"{left} have not come to their end")


def results_come_home_once(world: World) -> None:
    """The results of an entry are brought home once."""
    rows = world.home.looking.execute("SELECT data FROM events WHERE kind = 'fleet.brought_home'")
    entries = [json.loads(row[0])["entry"] for row in rows]
    if len(entries) != len(set(entries)):
        raise Broken("results_come_home_once", f"of {sorted(entries)} one is there twice")


def nothing_is_left_behind(world: World) -> None:
    """In the end no host has a team or an entry, and the queue holds no message."""
    for one in world.hosts:
        teams = one.looking.execute("SELECT id FROM orchestrations WHERE status IN ('running', 'paused')").fetchall()
        leases = one.looking.execute("SELECT entry_id FROM fleet_leases WHERE ended_at IS NULL").fetchall()
        if teams or leases:
            raise Broken("nothing_is_left_behind", f"{one.name} has {leases} and {len(teams)} teams")
    if world.server.queue.messages:
        raise Broken("nothing_is_left_behind", f"the queue holds {world.server.queue.messages}")


# -- one run --


def live_through(seed: int, operations: Sequence[Operation] | None = None, *, seconds: float = SECONDS) -> Verdict:
    """Run the fleet of a seed, or other operations in it, and judge it."""
    operations = plan(seed, seconds) if operations is None else operations
    began, broken = real_time.perf_counter(), None
    with fleet(seed) as world:
        try:
            world.loop.run_until_complete(_lived(world, operations, seconds))
        except Broken as error:
            broken = error
            world.tell(str(error))
        world.loop.run_until_complete(world.close())
    digest = hashlib.sha256("\n".join(world.trace).encode()).hexdigest()[:16]
    return Verdict(
        *(seed, tuple(operations), str(broken) if broken else None, broken.invariant if broken else None),
        *(digest, tuple(world.trace), world.loop.now / 3600, real_time.perf_counter() - began),
    )


async def _lived(world: World, operations: Sequence[Operation], seconds: float) -> None:
    await world.live(operations, seconds)
    await world.settle()


@contextlib.contextmanager
def fleet(seed: int, names: Sequence[str] = NAMES) -> Iterator[World]:
    """A fleet for the block; all that `lib/fleet/` finds around itself is simulated."""
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory()))
    loop = Loop()
    # What was killed may stumble when it unwinds: its store is closed, so that it writes nothing more.
    loop.set_exception_handler(lambda *_: None)
    was_disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    world = World(seed, folder, loop, names)
    try:
        with _inhabited(world):
            yield world
    finally:
        logging.disable(was_disabled)
        for one in world.hosts:
            one.looking.close()
            for db in one._dbs:
                db.close()
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _inhabited(world: World) -> Iterator[None]:
    numbers = itertools.count(1)
    clock = SimpleNamespace(monotonic=world.loop.time)
    memory_of = SimpleNamespace(available=2**36, total=2**36)
    own: dict[tuple[Any, str], Any] = {
        (connection, "connect"): world.server.connect,
        (connection, "prepare"): _nothing,
        (asyncio, "to_thread"): _at_once,
        (host, "now_ms"): lambda: round((BEGINS_AT + world.loop.time()) * 1000),
        (host, "wake"): lambda home: None,
        (config, "load"): lambda *_: SETTINGS,
        (service, "running"): lambda home: _scheduler_of(world, home),
        (service, "drains_queue"): lambda home: True,
        (stopping, "end_processes"): lambda *_: None,
        (taking, "psutil"): SimpleNamespace(virtual_memory=lambda: memory_of),
        (hosts, "psutil"): SimpleNamespace(virtual_memory=lambda: memory_of),
        (hosts, "metadata"): SimpleNamespace(version=lambda name: "0.1.0"),
        (link, "random"): random.Random(f"{world.seed} links"),
        (fleet_entries, "mint_id"): lambda: f"f{next(numbers):08x}",
        (orchestrations, "mint_id"): lambda: f"{next(numbers):08x}",
        (travel, "ground_of"): lambda name, path: Ground("webapp-1", "webapp", _COMMIT, "main", "file:///webapp", ()),
        (travel, "receive_project"): _receive_project,
        (travel, "receive_branches"): _receive_branches,
        (travel, "send_branches"): _send_branches,
        (travel, "branches_of"): lambda project, prefixes: {f"{one}/orchestrator": _COMMIT for one in prefixes},
        (travel, "make_branches"): lambda *_: [],
        **{(module, "time"): clock for module in (hosts, link, taking, trying, working)},
        **{
            (buckets, name): getattr(jetstream, name)
            for name in ("put_object", "has_object", "drop_object", "get_object")
        },
    }
    with contextlib.ExitStack() as stack:
        for (place, name), value in own.items():
            stack.enter_context(mock.patch.object(place, name, value))
        (world.folder / "webapp").mkdir()
        yield


def _scheduler_of(world: World, home: Path) -> object:
    return next(one.scheduler for one in world.hosts if one.home == home)


async def _nothing(*_: object) -> None:
    return None


async def _at_once(call: Callable[..., Any], *given: Any) -> Any:
    await asyncio.sleep(0.02)
    return call(*given)


async def _receive_project(made: Any, ground: Ground, *, kept: Path, into: Path) -> None:
    await asyncio.sleep(0.5)
    into.mkdir(parents=True, exist_ok=True)


async def _receive_branches(made: Any, data: Mapping[str, Any], project: Path, place: str) -> dict[str, str]:
    await asyncio.sleep(0.1)
    return dict(data.get("branches", {}))


async def _send_branches(made: Any, name: str, project: Path, branches: Mapping[str, str], *, base: str) -> None:
    await made.nc.ask(lambda: None)
