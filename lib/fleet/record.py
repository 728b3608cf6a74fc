"""An entry as the fleet has it: a record in the bucket `entries`, and a message in the work queue.

Who gets the message writes the record by comparing its revision: so an entry has one holder, whatever the queue gives
out twice. docs/fleet.md tells what follows for a host that has it no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from lib.errors import OrchestratorError
from lib.fleet import buckets, outbox
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import Entry, Lease, State
from lib.fleet.envelopes import Unreadable, pack, unpack
from lib.fleet.link import Link

log = logging.getLogger(__name__)

#: A question to the fleet that takes longer has failed.
ASK_SECONDS = 5.0

#: What comes within so long is written to the store together; after so long all is heard anew.
TOGETHER_SECONDS, HEAR_ANEW_SECONDS = 0.2, 900.0


class Superseded(OrchestratorError):
    """Another host has the entry now, or nobody."""


async def read(link: Link, entry_id: str) -> Entry | None:
    """An entry as the fleet has it now; None when it has none of that name."""
    bucket = await link.fleet.js.key_value("entries")
    try:
        found = await bucket.get(entry_id)
    except KeyNotFoundError:  # or deleted
        return None
    return _entry(entry_id, found.revision or 0, found.value or b"")


def _entry(entry_id: str, revision: int, value: bytes) -> Entry:
    return Entry(entry_id, revision, fleet_entries.checked(unpack(value)))


async def write(link: Link, found: Entry, changes: Mapping[str, object]) -> Entry:
    """Write a record that nobody has written since it was read. Raises `KeyWrongLastSequenceError` otherwise."""
    bucket = await link.fleet.js.key_value("entries")
    fields = {**found.record, **changes, "updated_at": link.clock()}
    revision = await bucket.update(found.id, pack(fields), last=found.revision)
    written = Entry(found.id, revision, fields)
    fleet_entries.heard(link.db, [written])
    return written


async def change(link: Link, entry_id: str, changes: Callable[[Entry], Mapping[str, object] | None]) -> Entry:
    """Change a record as it stands, however often others write it meanwhile; None is no change."""
    while True:
        found = await read(link, entry_id)
        if found is None:
            raise outbox.Refused(f"the fleet has no entry {entry_id}")
        wanted = changes(found)
        if wanted is None:
            return found
        try:
            return await write(link, found, wanted)
        except KeyWrongLastSequenceError:
            continue


async def change_own(link: Link, lease: Lease, changes: Mapping[str, object]) -> Entry:
    """Change the record of what this host has. Raises `Superseded` when it has it no more: nothing is written then."""

    def of(found: Entry) -> Mapping[str, object]:
        if not found.is_held_by(link.fleet.host, lease.term):
            raise Superseded(who(found))
        return changes

    try:
        return await change(link, lease.entry_id, of)
    except outbox.Refused as error:
        raise Superseded(who(None)) from error


def who(found: Entry | None) -> str:
    """Whose an entry is, as the reason that it is not this host's."""
    if found is None:
        return "the fleet has it no more"
    return f"it is {found.state}{f' on {found.host}' if found.state is State.RUNNING else ''}"


async def acknowledge(link: Link, ack: str) -> None:
    """Take a message off the queue, and see that it is."""
    await link.fleet.nc.request(ack, b"+ACK", timeout=ASK_SECONDS)


async def put_back(link: Link, ack: str, *, seconds: float) -> None:
    """Have the queue give a message out again, after so long."""
    await link.fleet.nc.request(ack, b'-NAK {"delay": %d}' % round(seconds * 1e9), timeout=ASK_SECONDS)


async def let_go(link: Link, lease: Lease, changes: Mapping[str, object], why: str) -> None:
    """Let any host have an entry that this one has. Raises `Superseded` when it has it no more."""
    await change_own(link, lease, {"host": None, **changes, "state": State.QUEUED})
    fleet_entries.ended(link.db, lease, why, now=link.clock())
    await put_back(link, lease.ack, seconds=1.0)


async def hear(link: Link) -> None:
    """Keep the entries of the fleet's queue as they are."""
    news: dict[str, Entry] = {}
    async with asyncio.TaskGroup() as group:
        writing_them = group.create_task(_write_news(link, news))
        # From the beginning now and then: news may be lost on the way.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAR_ANEW_SECONDS):
                async for stored in buckets.watch(link.fleet, "entries"):
                    if stored.value is None:  # over for long, and tidied up
                        news.pop(stored.key, None)
                        fleet_entries.forget(link.db, [stored.key])
                        continue
                    try:
                        news[stored.key] = _entry(stored.key, stored.revision, stored.value)
                    except Unreadable as error:  # of a newer version: it is not for this host
                        log.warning("the entry %s: %s", stored.key, error.sentence)
        writing_them.cancel()


async def _write_news(link: Link, news: dict[str, Entry]) -> None:
    """Keep what has come together as one."""
    while True:
        if news:
            fleet_entries.heard(link.db, list(news.values()))
            news.clear()
        await asyncio.sleep(TOGETHER_SECONDS)
