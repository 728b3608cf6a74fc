"""Taking entries of the fleet's queue: what this host has room for, by priority and label, into its own queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from pathlib import Path

import nats.errors
import psutil
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import KeyWrongLastSequenceError, NotFoundError

from lib import agents, holds, host, service
from lib import config as configuration
from lib.claude import installed
from lib.errors import OrchestratorError
from lib.fleet import buckets, connection, hosts, members, permissions, record, travel, trying
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import UNFINISHED, Entry, Lease, State
from lib.fleet.envelopes import Unreadable, unpack
from lib.fleet.link import Link
from lib.fleet.members import Standing
from lib.fleet.travel import Ground, Parcel
from lib.models import AgentState, GitMode, Program
from lib.queue import entries as local_entries
from lib.queue.entries import NewEntry
from lib.store import writing

log = logging.getLogger(__name__)

#: An entry that could not be begun so often, by whatever host, is given up.
MOST_TROUBLES = 5


async def take(link: Link) -> None:
    """Take what this host has room for, and bring it into its own queue."""
    known: dict[str, float] = {}
    while True:
        for lease in fleet_entries.leases(link.db):
            if lease.local_id is None and lease.fenced_at is None and link.clock() >= lease.begins_at:
                await _begin(link, lease)
        if not await _take_one(link, known):
            await asyncio.sleep(trying.LOOK_SECONDS)


async def _take_one(link: Link, known: dict[str, float]) -> bool:
    """Take one entry, or get rid of what is over. Returns whether there may be more at once."""
    subjects = fleet_entries.subjects(link.db, link.settings.labels, host=link.fleet.host)
    room = room_for(link) if subjects else 0
    if room <= 0:
        return False
    for label, priority in subjects:
        name = consumer_name(label, priority)
        ack_wait = known.get(name) or await _ensure_consumer(link, label, priority)
        if ack_wait is None:
            continue
        known[name], asked_at = ack_wait, link.clock()
        message = await _next(link, name)
        if message is not None:
            return await _consider(link, message, room, asked_at, ack_wait)
    return False


def room_for(link: Link) -> int:
    """For how many agents there is room on this host now; 0 when it may not begin anything."""
    db, settings = link.db, configuration.load()
    if members.standing_of(db, link.fleet.host) is not Standing.OPEN:
        return 0
    if service.running(link.home) is None or not service.drains_queue(link.home):
        return 0
    if local_entries.paused_at(db) is not None:
        return 0
    here = local_entries.unfinished(db)
    coming = [lease for lease in fleet_entries.leases(db) if lease.local_id is None]
    if len(here) + len(coming) >= settings.queue.max_concurrent:
        return 0
    running = sum(agents.state_of(one) is not AgentState.GONE for one in agents.live(db))
    by_memory = int(psutil.virtual_memory().available // 2**20) // members.MB_FOR_AN_AGENT
    return min(hosts.capacity(link.settings) - running, by_memory)


async def _ensure_consumer(link: Link, label: str, priority: int) -> float | None:
    """Have the consumer that gives out what has a label and a priority, where this host may make it.

    Returns its ack wait in seconds; None while there is none.
    """
    js, name = link.fleet.js, consumer_name(label, priority)
    try:
        found = await js.consumer_info(permissions.QUEUE, name)
    except NotFoundError:
        if not connection.may_found(link.settings, link.home):
            return None
        wanted = ConsumerConfig(
            durable_name=name,
            filter_subject=f"{permissions.QUEUE_SUBJECT}.{label}.{priority}",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=link.settings.ack_wait_seconds,
            max_ack_pending=100_000,
        )
        found = await js.add_consumer(permissions.QUEUE, wanted)
    return float(found.config.ack_wait or link.settings.ack_wait_seconds)


def consumer_name(label: str, priority: int) -> str:
    """What gives out the entries of a label and a priority."""
    return f"{label}_{priority}"


async def make_consumers(link: Link) -> None:
    """Have the queue give out every label and priority that there is. With TLS only who founded the fleet may."""
    known: dict[str, float] = {}
    while connection.may_found(link.settings, link.home):
        for label, priority in fleet_entries.all_subjects(link.db):
            name = consumer_name(label, priority)
            if name not in known and (wait := await _ensure_consumer(link, label, priority)):
                known[name] = wait
        await asyncio.sleep(trying.LOOK_AROUND_SECONDS)
    await link.fleet.lost.wait()


async def _next(link: Link, consumer: str) -> Msg | None:
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{permissions.QUEUE}.{consumer}"
    asked = json.dumps({"batch": 1, "no_wait": True}).encode()
    # By an inbox of its own: what the queue gives out comes with the subject under which it was put.
    found = await link.fleet.nc.request(subject, asked, timeout=record.ASK_SECONDS, old_style=True)
    return None if found.headers and "Status" in found.headers else found


async def _consider(link: Link, message: Msg, room: int, asked_at: int, ack_wait: float) -> bool:
    """Take an entry that the queue has given out, or put it back, or take it off the queue when it is over.

    Returns whether there may be more at once.
    """
    sequence = message.metadata.sequence.stream
    try:
        found = await record.read(link, str(unpack(message.data).get("id")))
    except Unreadable:  # of a newer version: for another host
        await record.put_back(link, message.reply, seconds=ack_wait)
        return False
    if found is None or found.state not in UNFINISHED:
        await record.acknowledge(link, message.reply)
        return True
    lease = fleet_entries.open_lease(link.db, found.id)
    if found.state is State.RUNNING:
        if found.record.get("message") != sequence:  # a second message of one that runs
            await record.acknowledge(link, message.reply)
            return True
        if lease and found.is_held_by(link.fleet.host, lease.term):
            fleet_entries.readdress(link.db, lease, message=sequence, ack=message.reply)
            return True
    if lease:  # this host has had it before, and its team has to be stopped first
        await record.put_back(link, message.reply, seconds=1.0)
        return False
    if found.record.get("is_cancelled"):
        over = {"state": State.CANCELLED, "outcome": "cancelled by hand", "ended_at": link.clock()}
        await record.write(link, found, {**over, "result": found.record.get("kept")})
        await record.acknowledge(link, message.reply)
        return True
    if not _fits(link, found, room):
        await record.put_back(link, message.reply, seconds=1.0)
        return False
    taken = {"state": State.RUNNING, "host": link.fleet.host, "term": found.term + 1, "message": sequence}
    try:
        mine = await record.write(link, found, {**taken, "taken_at": link.clock(), "says": None})
    except KeyWrongLastSequenceError:
        await record.put_back(link, message.reply, seconds=1.0)
        return False
    ack_wait_ms = round(ack_wait * 1000)
    # Who has had it may be at work: until that host has looked again, or has held its team.
    may_be_at_work = found.state is State.RUNNING and _may_be_at_work(link, found, ack_wait)
    begins_at = asked_at + (ack_wait_ms if may_be_at_work else 0)
    fleet_entries.take(
        *(link.db, mine),
        message=sequence,
        ack=message.reply,
        ack_wait_ms=ack_wait_ms,
        begins_at=begins_at,
        now=asked_at,
    )
    log.info("took %s, the %d. time that it was taken", mine.id, mine.term)
    await _say_so(link, message)
    return True


async def _say_so(link: Link, message: Msg) -> None:
    """Extend what was just taken.

    A server that starts anew remembers when it was told this, and not when it gave out what it had given out before.
    """
    with contextlib.suppress(nats.errors.Error, TimeoutError):
        await link.fleet.nc.request(message.reply, b"+WPI", timeout=record.ASK_SECONDS)


def _may_be_at_work(link: Link, found: Entry, ack_wait: float) -> bool:
    """Whether the host that has had an entry may hold it for its own, although the queue has given it out again.

    It does so after the ack wait, but for a server that has started meanwhile: 2.9.10 may do it within two seconds of
    that. In a cluster another server takes over without a sign.
    """
    made = link.fleet
    has_proved = found.record.get("proved") == found.term
    return has_proved or made.is_of_a_cluster or time.monotonic() - made.since < ack_wait


def _fits(link: Link, found: Entry, room: int) -> bool:
    """Whether this host can begin an entry now: room, a way to its project, and an account that nothing holds."""
    told, settings = found.record, configuration.load()
    if told["agents"] > room or told.get("wants_bundles"):
        return False
    agent = told["options"].get("agent")
    program = Program(agent) if agent in tuple(Program) else settings.agent
    return holds.of_account(link.db, installed.config_dir_of(program, link.home)) is None


async def _begin(link: Link, lease: Lease) -> None:
    """Bring an entry that this host has taken into its own queue, with a checkout of its project."""
    try:
        found = await record.read(link, lease.entry_id)
        if found is None or not found.is_held_by(link.fleet.host, lease.term):
            raise record.Superseded(record.who(found))
        await _queue_here(link, lease, found)
    except record.Superseded as error:
        fleet_entries.ended(link.db, lease, error.sentence, now=link.clock())
    except OSError as error:  # the disk
        await _give_up(link, lease, OrchestratorError(f"{error.strerror or error}: {error.filename or link.home}"))
    except OrchestratorError as error:
        await _give_up(link, lease, error)


async def _queue_here(link: Link, lease: Lease, found: Entry) -> None:
    made, told = link.fleet, found.record
    ground = Ground.of(told["project"])
    kept = link.home / "fleet" / "projects"
    # A folder for each time: what a team has left here when it was superseded stays.
    folder = kept / f"{found.id}-{lease.term}"
    project = folder / ground.name
    await travel.receive_project(made, ground, kept=kept, into=project)
    # What is pushed and delivered to people is the business of the host that has put it.
    options: dict[str, object] = {**told["options"], "git_mode": str(GitMode.LOCAL), "fleet": found.id}
    if (before := told.get("kept")) is not None:
        await travel.receive_branches(made, before, project, "refs/orchestrator/fleet/kept")
        options["begin_from"] = {str(role): str(commit) for role, commit in before.get("team", {}).items()}
    spec_path, parcel = folder / (Path(str(told["spec_name"])).name or "spec.md"), Parcel.of(told.get("spec"))
    await buckets.get_object(made, parcel.host, parcel.name, spec_path)
    spec = spec_path.read_bytes().decode(errors="replace")
    new = NewEntry(
        *(spec_path, spec, project, options, tuple(map(str, told.get("tags", ())))),
        priority=told["priority"],
        budget_minutes=told.get("budget_minutes"),
        again=True,
    )
    with writing(link.db):
        (entry,) = local_entries.add(link.db, [new], now=link.clock()).entries
        if not fleet_entries.queued_here(link.db, lease, entry.id):
            raise record.Superseded("another host has taken it meanwhile")
    host.wake(link.home)


async def _give_up(link: Link, lease: Lease, error: OrchestratorError) -> None:
    """Give an entry back that could not be begun here; after some tries, by whatever host, it is abandoned."""
    log.warning("entry %s cannot be begun here: %s", lease.entry_id, travel.in_words(error))
    found = await record.read(link, lease.entry_id)
    troubles = int(found.record.get("troubles", 0)) + 1 if found else 0
    changes: dict[str, object] = {"troubles": troubles, "outcome": travel.in_words(error), "host": None}
    if isinstance(error, travel.Unreachable):
        changes |= {"wants_bundles": True, "troubles": 0}
    if troubles < MOST_TROUBLES or isinstance(error, travel.Unreachable):
        await record.let_go(link, lease, changes, error.sentence)
    else:
        over = {**changes, "state": State.ABANDONED, "ended_at": link.clock(), "host": link.fleet.host}
        over["result"] = found.record.get("kept") if found else None
        await record.change_own(link, lease, over)
        await record.acknowledge(link, lease.ack)
        fleet_entries.ended(link.db, lease, error.sentence, now=link.clock())
