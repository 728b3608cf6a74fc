"""Reads what the fleet keeps without a consumer on the server, which no host may make (lib/fleet/permissions.py)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from lib.errors import NotFound, OrchestratorError
from lib.fleet.connection import Connection
from lib.fleet.permissions import NEWS_SUBJECT, projects_of
from lib.records import dataclass

#: How many values are asked for at once.
_AT_ONCE = 100


@dataclass(frozen=True)
class Stored:
    """A value of a key-value bucket; None is one that was deleted.

    `at` is when the server stored it, by its clock (UTC milliseconds); None for what has come as news.
    """

    key: str
    value: bytes | None
    revision: int
    at: int | None = None


async def every(made: Connection, bucket: str, key: str = "*") -> list[Stored]:
    """What a bucket holds now, of all keys or of one."""
    stream, start = f"KV_{bucket}", f"$KV.{bucket}."
    info = await made.js.stream_info(stream, subjects_filter=start + key)
    found: list[Stored] = []
    for subjects in _chunks(sorted(info.state.subjects or ())):
        messages = await asyncio.gather(*(_last(made, stream, subject) for subject in subjects))
        found += [
            _stored(message.subject.removeprefix(start), message.data, message.headers, message.seq, message.time)
            for message in messages
            if message and message.subject and message.seq
        ]
    return found


async def watch(made: Connection, bucket: str, key: str = "*") -> AsyncIterator[Stored]:
    """What a bucket holds, then each value as the server stores it. Ends when the connection is lost."""
    start, news = f"{NEWS_SUBJECT}.{bucket}.", asyncio.Queue[Msg]()
    subscription = await made.nc.subscribe(start + key, cb=news.put)
    try:
        revisions: dict[str, int] = {}
        for stored in await every(made, bucket, key):
            revisions[stored.key] = stored.revision
            yield stored
        while message := await _next(made, news):
            headers = message.headers or {}
            revision = int(headers.get("Nats-Sequence", 0))
            name = message.subject.removeprefix(start)
            if revision > revisions.get(name, 0):
                revisions[name] = revision
                yield _stored(name, message.data, headers, revision)
    finally:
        if not made.lost.is_set():
            await subscription.unsubscribe()


async def _next(made: Connection, news: asyncio.Queue[Msg]) -> Msg | None:
    waits = asyncio.ensure_future(news.get()), asyncio.ensure_future(made.lost.wait())
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return waits[0].result() if waits[0].done() else None
    finally:
        for wait in waits:
            wait.cancel()


async def _last(made: Connection, stream: str, subject: str) -> RawStreamMsg | None:
    try:
        return await made.js.get_msg(stream, subject=subject, direct=True)
    except NotFoundError:
        return None


def _stored(
    key: str, value: bytes | None, headers: dict[str, str] | None, revision: int, time: datetime | None = None
) -> Stored:
    is_deleted = (headers or {}).get("KV-Operation") in ("DEL", "PURGE")
    at = round(time.timestamp() * 1000) if time else None
    return Stored(key, None if is_deleted else value or b"", revision, at)


def _chunks(subjects: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(subjects), _AT_ONCE):
        yield subjects[begin : begin + _AT_ONCE]


async def put_object(made: Connection, name: str, path: Path) -> None:
    """Put a file into this host's own object store; one of the same name is replaced."""
    store = await made.js.object_store(projects_of(made.host))
    with path.open("rb") as file:
        await store.put(name, file)


async def has_object(made: Connection, host: str, name: str) -> bool:
    """Whether a host's store has an object."""
    try:
        await _meta(made, projects_of(host), name)
    except NotFound:
        return False
    return True


@dataclass(frozen=True)
class File:
    """A file in an object store, and when the server stored it, by its clock (UTC milliseconds)."""

    name: str
    at: int


async def objects(made: Connection) -> list[File]:
    """The files in this host's own object store."""
    bucket = projects_of(made.host)
    start = f"$O.{bucket}.M."
    info = await made.js.stream_info(f"OBJ_{bucket}", subjects_filter=f"{start}*")
    found = []
    for subjects in _chunks(sorted(info.state.subjects or ())):
        for message in await asyncio.gather(*(_last(made, f"OBJ_{bucket}", subject) for subject in subjects)):
            if message and message.subject and message.time and not json.loads(message.data or b"{}").get("deleted"):
                name = base64.urlsafe_b64decode(message.subject.removeprefix(start)).decode()
                found.append(File(name, round(message.time.timestamp() * 1000)))
    return found


async def drop_object(made: Connection, name: str) -> None:
    """Take an object out of this host's own store; nothing when it is not there."""
    store = await made.js.object_store(projects_of(made.host))
    with contextlib.suppress(NotFoundError):
        await store.delete(name)


async def get_object(made: Connection, host: str, name: str, path: Path) -> None:
    """Write an object of a host's store to `path`, whole or not at all. Raises `NotFound` when it is not there."""
    bucket = projects_of(host)
    meta = await _meta(made, bucket, name)
    part = path.with_name(f"{path.name}.part")
    try:
        digest, sequence = hashlib.sha256(), 1
        with part.open("wb") as file:
            for _ in range(meta.chunks):
                chunk = await _chunk(made, bucket, meta.nuid, sequence)
                digest.update(chunk.data or b"")
                file.write(chunk.data or b"")
                sequence = (chunk.seq or 0) + 1
        if f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}" != meta.digest:
            raise OrchestratorError(f"what host {host} put as {name} has arrived damaged")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Object:
    nuid: str
    chunks: int
    digest: str


async def _meta(made: Connection, bucket: str, name: str) -> _Object:
    subject = f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    found = await _last(made, f"OBJ_{bucket}", subject)
    if not found:
        raise NotFound(f"the fleet's object store {bucket} holds no {name}")
    try:
        fields = json.loads(found.data or b"")
        meta = _Object(str(fields["nuid"]), int(fields["chunks"]), str(fields["digest"]))
    except (ValueError, TypeError, KeyError):
        raise OrchestratorError(f"what the fleet's object store {bucket} holds as {name} cannot be read") from None
    if fields.get("deleted") or not re.fullmatch(r"\w+", meta.nuid):
        raise NotFound(f"the fleet's object store {bucket} holds no {name}")
    return meta


async def _chunk(made: Connection, bucket: str, nuid: str, sequence: int) -> RawStreamMsg:
    subject = f"$O.{bucket}.C.{nuid}"
    return await made.js.get_msg(f"OBJ_{bucket}", seq=sequence, subject=subject, direct=True, next=True)
