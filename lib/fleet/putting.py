"""The side of the host that has put an entry: puts it, cancels it, has it tried again, and brings its results home."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from nats.js.errors import KeyWrongLastSequenceError

from lib import host, notices, store
from lib.errors import OrchestratorError
from lib.fleet import buckets, outbox, permissions, record, travel, trying
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import UNFINISHED, Entry, Put, State
from lib.fleet.envelopes import pack
from lib.fleet.link import Link
from lib.fleet.travel import Ground, Parcel
from lib.store import writing

log = logging.getLogger(__name__)


async def send_put(link: Link, item: outbox.Item) -> None:
    """Put an entry into the queue; twice is once."""
    entry_id = str(item.body["id"])
    async with link.files:
        if await record.read(link, entry_id) is None:
            await _create(link, item)
    await _publish(link, entry_id, item.body["label"], item.body["priority"], name=entry_id)


async def _create(link: Link, item: outbox.Item) -> None:
    """Put the files of an entry, then its record."""
    body = dict(item.body)
    entry_id, spec, project = str(body.pop("id")), str(body.pop("spec")), Path(str(body.pop("path")))
    try:
        ground = await asyncio.to_thread(travel.ground_of, link.fleet.host, project)
        fields = {
            **body,
            **{"id": entry_id, "state": State.QUEUED, "origin": link.fleet.host, "host": None, "term": 0},
            **{"project": (await _with_bundles(link, project, ground)).as_data(), "added_at": item.queued_at},
            **{"spec": await _send_spec(link, entry_id, spec), "updated_at": link.clock()},
        }
    except OrchestratorError as error:
        raise outbox.Refused(travel.in_words(error)) from error
    bucket = await link.fleet.js.key_value("entries")
    try:
        await bucket.create(entry_id, pack(fields))
    except KeyWrongLastSequenceError:
        log.info("entry %s was put before", entry_id)


async def _with_bundles(link: Link, project: Path, ground: Ground, *, is_asked: bool = False) -> Ground:
    """The same with bundles in the store, unless it can be had from a remote and nobody has asked for more."""
    if ground.remote is not None and not is_asked:
        return ground
    name, there = link.fleet.host, fleet_entries.bundles_of(link.db, project)
    chain = await travel.send_project(link.fleet, project, ground, there)
    fleet_entries.keep_bundles(link.db, project, chain)
    parcels = tuple((Parcel(name, one), commit) for one, commit in chain)
    return Ground(ground.key, ground.name, ground.commit, ground.branch, ground.remote, parcels)


async def _send_spec(link: Link, entry_id: str, spec: str) -> dict[str, str]:
    """Put a spec's text into the store: beside the record it would travel with each of its changes."""
    name = f"{entry_id}/spec"
    with tempfile.TemporaryDirectory(prefix="orchestrator-spec-") as folder:
        path = Path(folder) / "spec"
        path.write_text(spec, encoding="utf-8")
        await buckets.put_object(link.fleet, name, path)
    return Parcel(link.fleet.host, name).as_data()


async def _publish(link: Link, entry_id: str, label: str, priority: int, *, name: str) -> None:
    """Have the queue give an entry out. The same `name` within an hour is the same message."""
    subject = f"{permissions.QUEUE_SUBJECT}.{label}.{priority}"
    await link.fleet.js.publish(subject, pack({"id": entry_id}), headers={"Nats-Msg-Id": name})


async def send_cancel(link: Link, item: outbox.Item) -> None:
    """Have an entry end: one that waits at once, one that runs by its host."""

    def of(found: Entry) -> Mapping[str, object] | None:
        if found.state not in UNFINISHED:
            raise outbox.Refused(f"entry {found.id} is {found.state} already")
        if found.state is State.QUEUED:
            return {"state": State.CANCELLED, "outcome": "cancelled by hand", "ended_at": link.clock()}
        return {"is_cancelled": True}

    await record.change(link, str(item.body["id"]), of)


async def send_retry(link: Link, item: outbox.Item) -> None:
    """Have an entry that is over queued again, with all its attempts; its team begins anew."""

    def of(found: Entry) -> Mapping[str, object] | None:
        if found.record.get("retry") == name:
            return None  # this very order was sent before
        if found.state in UNFINISHED:
            raise outbox.Refused(f"entry {found.id} is {found.state}")
        over = dict.fromkeys(("host", "outcome", "ended_at", "result", "is_cancelled", "kept"))
        return {**over, "state": State.QUEUED, "retry": name, "troubles": 0}

    name = f"{link.fleet.host}.{item.id}.{item.queued_at}"
    found = await record.change(link, str(item.body["id"]), of)
    await _publish(link, found.id, found.record["label"], found.record["priority"], name=f"{found.id}.{name}")


SENDERS = {fleet_entries.PUT: send_put, fleet_entries.CANCEL: send_cancel, fleet_entries.RETRY: send_retry}


async def bring_home(link: Link) -> None:
    """Bring the results of what this host has put into its projects, and bundles to who cannot reach a remote."""
    again: dict[str, float] = {}
    while True:
        for put, entry in fleet_entries.to_fetch(link.db):
            await trying.guarded(entry.id, again, partial(_fetch, link, put, entry))
        for entry in fleet_entries.wanting_bundles(link.db, link.fleet.host):
            await trying.guarded(entry.id, again, partial(_bring_bundles, link, entry))
        await asyncio.sleep(trying.LOOK_AROUND_SECONDS)


async def _fetch(link: Link, put: Put, entry: Entry) -> None:
    place, result = f"refs/orchestrator/fleet/{entry.id}", entry.record.get("result")
    lines = [f"{entry.state} on {entry.host}" if entry.host else str(entry.state)]
    if entry.record.get("outcome"):
        lines.append(str(entry.record["outcome"]))
    if result and put.project.exists():
        branches = await travel.receive_branches(link.fleet, result, put.project, place)
        taken = await asyncio.to_thread(travel.make_branches, put.project, branches, place)
        lines += [f"branch {name}" for name in sorted(branches) if name not in taken]
        lines += [f"the branch {name} has another commit here; theirs is {place}/{name}" for name in taken]
    elif result:
        lines.append(f"its branches could not be brought home: {put.project} is gone")
    with writing(link.db):
        fleet_entries.fetched(link.db, entry.id, "\n".join(lines), now=link.clock())
        store.record(link.db, "fleet.brought_home", now=link.clock(), entry=entry.id, state=entry.state)
        kind = {State.SUCCEEDED: "completed", State.ABANDONED: "abandoned"}.get(entry.state)
        if kind:
            title = f"{kind}: {put.spec_path.name} in {put.project.name}"
            notices.tell(link.db, kind, title, "\n".join(lines), now=link.clock())
    host.wake(link.home)


async def _bring_bundles(link: Link, entry: Entry) -> None:
    """Put a project into the store that a host could not get from its remote."""
    put = fleet_entries.put_of(link.db, entry.id)
    ground = Ground.of(entry.record["project"])
    if put is None or ground.chain:
        return
    async with link.files:
        ground = await _with_bundles(link, put.project, ground, is_asked=True)

        def of(found: Entry) -> Mapping[str, object] | None:
            return {"project": ground.as_data(), "wants_bundles": False}

        await record.change(link, entry.id, of)
