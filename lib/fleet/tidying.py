"""Takes out of the fleet what has been over for long: every host the records of what it has put, and its own files.

A file goes when no record names it any more. Branches that were brought home, and checkouts, are not touched.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from nats.js.errors import BadRequestError

from lib.fleet import buckets
from lib.fleet import entries as fleet_entries
from lib.fleet.entries import UNFINISHED
from lib.fleet.hosts import HOSTS
from lib.fleet.link import Link

log = logging.getLogger(__name__)

#: How long after its start a link tidies up, and how often then.
FIRST_SECONDS, EVERY_SECONDS = 600.0, 24 * 3600.0
DAY_MS = 24 * 3600 * 1000
_WRONG_LAST_SEQUENCE = 10071
#: A file is put before the record that names it.
YOUNG_MS = DAY_MS


async def tidy(link: Link) -> None:
    """Tidy up once a day."""
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        await drop_records(link)
        await drop_files(link)
        await asyncio.sleep(EVERY_SECONDS)


async def drop_records(link: Link) -> list[str]:
    """Delete the records of what this host has put and brought home `keep_days` ago. Returns their entries."""
    bucket = await link.fleet.js.key_value("entries")
    dropped = []
    for put in fleet_entries.puts(link.db):
        found = fleet_entries.get(link.db, put.entry_id)
        if found is None or found.state in UNFINISHED or put.fetched_at is None:
            continue
        if put.fetched_at > link.clock() - link.settings.keep_days * DAY_MS:
            continue
        try:
            await bucket.delete(found.id, last=found.revision)
        except BadRequestError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            continue  # it was queued again
        fleet_entries.forget(link.db, [found.id])
        dropped.append(found.id)
    if dropped:
        log.info("%d entries that were over for %d days are gone", len(dropped), link.settings.keep_days)
    return dropped


async def drop_files(link: Link) -> list[str]:
    """Delete the files in this host's own store that no record of the fleet names. Returns their names.

    While a record cannot be read nothing is deleted: it may name any of them.
    """
    async with link.files:
        return await _drop_files(link)


async def _drop_files(link: Link) -> list[str]:
    files = await buckets.objects(link.fleet)
    records = [one.value for one in await buckets.every(link.fleet, "entries") if one.value is not None]
    try:
        named = set(_named(map(json.loads, records), link.fleet.host))
    except ValueError:
        log.warning("no file is deleted while a record of the fleet's queue cannot be read")
        return []
    # By the server's clock alone: this host has told of itself within seconds.
    own = await buckets.every(link.fleet, HOSTS, link.fleet.host)
    now = max((one.at or 0 for one in own), default=0)
    old = [one.name for one in files if one.name not in named and one.at <= now - YOUNG_MS]
    for name in old:
        await buckets.drop_object(link.fleet, name)
    if old:
        log.info("%d files that no entry names are gone", len(old))
    return old


def _named(values: Iterable[Any], host: str) -> Iterator[str]:
    """The names of the files of a host's store anywhere in records: as parcels are written, and those of newer ones."""
    for value in values:
        if isinstance(value, dict):
            if value.get("host") == host and isinstance(value.get("name"), str):
                yield value["name"]
            yield from _named(value.values(), host)
        elif isinstance(value, list):
            yield from _named(value, host)
