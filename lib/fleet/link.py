"""The link of this host to the fleet: connects for ever, runs its tasks side by side, and empties the outbox."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError

from lib import config, host, service, store
from lib.config import FleetSettings
from lib.errors import OrchestratorError, Unavailable
from lib.fleet import connection, members, outbox
from lib.fleet.connection import Connection
from lib.records import dataclass

log = logging.getLogger(__name__)

#: How long it waits before it connects again: longer each time, and not all hosts at once.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
#: A task that has failed or ended begins again after this.
TASK_PAUSE_SECONDS = 5.0
#: How often it looks whether the outbox holds something.
LOOK_SECONDS = 0.5
#: How often it looks whether it is still wanted; so long may the scheduler be away before it is not.
WANTED_SECONDS, ALONE_SECONDS = 2.0, 60.0


@dataclass
class Link:
    """What the tasks of a link share: the settings, a connection of its own to the store, and one to the fleet.

    `connection` is None while there is none. `clock` gives UTC milliseconds. `files` is held by who puts a file until a
    record names it, and by who takes away what no record names.
    """

    home: Path
    settings: FleetSettings
    db: sqlite3.Connection
    connection: Connection | None = None
    clock: Callable[[], int] = host.now_ms
    files: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_connected(self) -> bool:
        """Whether the fleet can be asked now."""
        return self.connection is not None and not self.connection.lost.is_set()

    @property
    def fleet(self) -> Connection:
        """The connection. Raises `OrchestratorError` when there is none now."""
        if self.connection is None:
            raise OrchestratorError("this host is not connected to the fleet")
        return self.connection


Task = Callable[[Link], Coroutine[Any, Any, None]]
#: Sends an item of the outbox; may be called again with one that it has sent. Raises `outbox.Refused`.
Sender = Callable[[Link, outbox.Item], Awaitable[None]]


@dataclass(frozen=True)
class Parts:
    """What a link does. A task is cancelled when the connection is lost, and begins anew with the next one.

    What is in `always` goes on without a connection. `senders` are by the kinds of the outbox.
    """

    tasks: Sequence[Task] = ()
    always: Sequence[Task] = ()
    senders: Mapping[str, Sender] = field(default_factory=dict)


async def run(link: Link, parts: Parts, wanted: Callable[[Link], Awaitable[str]] | None = None) -> str:
    """Keep the link until it is not wanted any more; returns why."""
    end = asyncio.ensure_future((wanted or until_unwanted)(link))
    work = asyncio.create_task(_keep_connected(link, parts))
    always = [asyncio.create_task(_again_and_again(link, task)) for task in parts.always]
    try:
        await asyncio.wait([end, work], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()  # it never ends by itself: this raises what has ended it
        return end.result()
    finally:
        await _cancelled([end, work, *always])
        members.tell_link(
            link.db,
            str(link.settings.url),
            trouble="the link has ended",
            hint="scheduler.py --daemon",
            now=link.clock(),
        )


async def until_unwanted(link: Link) -> str:
    """Wait until no scheduler has run for a while, or the configuration of the fleet is another one."""
    alone_since, read_at = None, _configured_at()
    while True:
        if host.is_held(service.lock_path(link.home)):
            alone_since = None
        elif alone_since is None:
            alone_since = time.monotonic()
        elif time.monotonic() - alone_since > ALONE_SECONDS:
            return "the scheduler does not run"
        if (at := _configured_at()) != read_at:
            read_at = at
            with contextlib.suppress(OrchestratorError):  # one that is wrong changes nothing
                if config.load().fleet != link.settings:
                    return "the configuration has changed"
        await asyncio.sleep(WANTED_SECONDS)


def _configured_at() -> int:
    try:
        return config.config_path().stat().st_mtime_ns
    except OSError:
        return 0


# -- the connection --


async def _keep_connected(link: Link, parts: Parts) -> None:
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            link.connection = await _connect(link)
        except OrchestratorError as error:
            _tell(link, error.sentence, error.hint)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            continue
        pause = FIRST_PAUSE_SECONDS
        log.info("connected to %s as %s", link.settings.url, link.connection.host)
        try:
            await _work(link, parts)
        finally:
            await link.connection.close()
            link.connection = None
        _tell(link, "the connection was lost", None)
        log.info("the connection was lost")


async def _connect(link: Link) -> Connection:
    """Connect, and have all there that the fleet keeps, where this host may make it."""
    made = await connection.connect(link.settings, link.home)
    try:
        await connection.prepare(made, link.settings, link.home)
    except (NatsError, TimeoutError) as error:
        await made.close()
        raise Unavailable(f"the fleet's server does not keep what it should: {error or 'no answer'}") from error
    return made


async def _work(link: Link, parts: Parts) -> None:
    """Run the tasks for as long as this connection lives."""
    _tell(link, None, None)
    tasks = [asyncio.create_task(_again_and_again(link, task)) for task in (*parts.tasks, _sending(parts.senders))]
    try:
        while not link.fleet.lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(link.fleet.lost.wait(), members.HEARTBEAT_SECONDS)
            _tell(link, None, None)
    finally:
        await _cancelled(tasks)


def _tell(link: Link, trouble: str | None, hint: str | None) -> None:
    name = link.connection.host if link.connection else None
    members.tell_link(link.db, str(link.settings.url), host=name, trouble=trouble, hint=hint, now=link.clock())


# -- the tasks --


async def _again_and_again(link: Link, task: Task) -> None:
    """Run a task, and again after a pause when it has failed or ended."""
    while True:
        try:
            await task(link)
        except Exception as error:
            if link.is_connected:  # what fails for the lost connection is told as that
                log.exception("the task %s failed", task.__name__)
                _record_failure(link, task.__name__, error)
        await asyncio.sleep(TASK_PAUSE_SECONDS)


def _record_failure(link: Link, task: str, error: Exception) -> None:
    try:
        with store.writing(link.db):
            store.record(
                link.db, "fleet.task_failed", now=link.clock(), task=task, error=f"{type(error).__name__}: {error}"
            )
    except (sqlite3.Error, OrchestratorError):
        log.exception("the failure of %s could not be recorded", task)  # a full disk: the log has it


async def _cancelled(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """End tasks. Until Python 3.12 `wait_for` may lose a cancellation, so it is asked for until they have ended."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.5)


def _sending(senders: Mapping[str, Sender]) -> Task:
    async def empty_outbox(link: Link) -> None:
        while True:
            for item in outbox.waiting(link.db):
                if item.kind in senders:  # a door of a newer version may have queued what this link does not know
                    await _send(link, item, senders[item.kind])
            await asyncio.sleep(LOOK_SECONDS)

    return empty_outbox


async def _send(link: Link, item: outbox.Item, sender: Sender) -> None:
    try:
        await sender(link, item)
    except outbox.Refused as error:
        outbox.refuse(link.db, item.id, error.sentence, now=link.clock())
    else:
        outbox.sent(link.db, item.id)
