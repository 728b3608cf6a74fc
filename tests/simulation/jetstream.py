"""A NATS server in memory, in the shapes in which lib/fleet speaks with one: buckets, the work queue, files.

What travels takes time, is stopped by a cut network and comes late after it, and an answer may be lost. What it knows
after a restart is what nats-server 2.9.10 knows (docs/decisions/fleet.md).
"""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nats.errors
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError

from lib.config import FleetSettings
from lib.errors import NotFound, Unavailable
from lib.fleet import permissions
from lib.fleet.connection import Connection

#: How long a packet takes.
_LATENCY_SECONDS = 0.003
#: When nats-py takes a connection for lost of which it hears nothing.
_STALE_SECONDS = 15.0
#: How often what is stopped looks whether it may go on.
_LOOK_SECONDS = 0.25
_DAY = datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC)


class _Gone(Exception):
    """What was sent never arrives."""


@dataclass
class Value:
    """What a bucket holds under a key; `at` is in seconds of the server's clock."""

    data: bytes
    revision: int
    at: float


@dataclass
class Write:
    """A record of the queue as somebody has written it, and as it was before."""

    at: float
    writer: str
    key: str
    before: dict[str, Any] | None
    after: dict[str, Any]


@dataclass
class Given:
    """A message that was given out: until when nobody else gets it, and what of that is on the disk."""

    until: float
    on_disk: float
    times: int = 1


@dataclass
class Queue:
    """A work queue."""

    messages: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    #: Of each consumer its subject and ack wait, and what it has given out.
    consumers: dict[str, tuple[str, float]] = field(default_factory=dict)
    given: dict[int, Given] = field(default_factory=dict)
    last: int = 0


class Server:
    """The server, and the network to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random) -> None:
        self.loop, self._chance = loop, chance
        self.is_up = True
        self.values: dict[str, dict[str, Value]] = {bucket: {} for bucket in permissions.BUCKETS}
        self.files: dict[tuple[str, str], bytes] = {}
        self.queue = Queue()
        self.cut: dict[str, float] = {}
        #: Of how many hosts the next answer to something that was written is lost.
        self.lost_answers: Counter[str] = Counter()
        #: How many of the next news come twice.
        self.doubled = 0
        self.writes: list[Write] = []
        self.asked: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self._lives: list[_Life] = []
        self._revision = 0

    # -- what goes wrong --

    def cut_off(self, host: str) -> None:
        """Stop all that a host sends and would hear."""
        self.cut[host] = self.loop.time()
        for life in self._of(host):
            self.loop.call_later(_STALE_SECONDS, self._find_stale, life, self.cut[host])

    def heal(self, host: str) -> None:
        """Let through what is still on its way, and the rest."""
        self.cut.pop(host, None)

    def _find_stale(self, life: _Life, since: float) -> None:
        if self.cut.get(life.host) == since:
            life.end()

    def drop(self, host: str) -> None:
        """A host is no more there: nothing more comes from it."""
        for life in self._of(host):
            life.end()

    def kill(self) -> None:
        """The server is killed; what is on its disk stays."""
        self.is_up = False
        for life in self._lives:
            life.end()

    def start(self) -> None:
        """It starts anew. The times on its disk are whole seconds."""
        self.is_up = True
        for given in self.queue.given.values():
            given.until = math.floor(given.on_disk)

    def _of(self, host: str) -> list[_Life]:
        return [life for life in self._lives if life.host == host]

    # -- the network --

    async def connect(self, settings: FleetSettings, home: Path) -> Connection:
        """The shape of `lib.fleet.connection.connect`."""
        host = settings.name()
        await asyncio.sleep(_LATENCY_SECONDS)
        if host in self.cut:
            await asyncio.sleep(5)
            raise Unavailable("the fleet's server cannot be reached: timeout")
        if not self.is_up:
            raise Unavailable("the fleet's server cannot be reached: connection refused")
        life = _Life(self, host)
        self._lives.append(life)
        return Connection(life, _JetStream(life), host, life.lost, since=self.loop.time())  # type: ignore[arg-type]

    async def carry(self, life: _Life, act: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        """Bring a request to the server, and its answer back; it goes on although nobody waits any more."""
        try:
            await self._pass(life)
            wrote = len(self.writes)
            try:
                value, error = act(), None
            except Exception as raised:  # noqa: BLE001 - whoever has asked gets it
                value, error = None, raised
            if len(self.writes) > wrote and self.lost_answers[life.host]:
                self.lost_answers[life.host] -= 1
                return
            await self._pass(life)
        except _Gone:
            return
        if not answer.done():
            answer.set_exception(error) if error else answer.set_result(value)

    async def _pass(self, life: _Life) -> None:
        await asyncio.sleep(_LATENCY_SECONDS)
        while life.host in self.cut and not life.lost.is_set():
            await asyncio.sleep(_LOOK_SECONDS)
        if life.lost.is_set():
            raise _Gone

    # -- buckets --

    def put(self, host: str, bucket: str, key: str, data: bytes, *, last: int | None = None) -> int:
        """Store a value; when `last` is given, only over the one with that revision (0: over none)."""
        found = self.values[bucket].get(key)
        if last is not None and last != (found.revision if found else 0):
            raise KeyWrongLastSequenceError("wrong last sequence")
        self._revision += 1
        self.values[bucket][key] = Value(data, self._revision, self.loop.time())
        if bucket == "entries":
            before = json.loads(found.data) if found else None
            self.writes.append(Write(self.loop.time(), host, key, before, json.loads(data)))
        news = SimpleNamespace(
            subject=f"{permissions.NEWS_SUBJECT}.{bucket}.{key}",
            data=data,
            headers={"Nats-Sequence": str(self._revision)},
        )
        is_double, self.doubled = self.doubled > 0, max(0, self.doubled - 1)
        for life in self._lives:
            for _ in range(2 if is_double else 1):
                life.tell(news)
        return self._revision

    # -- the queue --

    def publish(self, subject: str, data: bytes, name: str | None) -> None:
        """Put a message into the queue; the same name is the same message."""
        queue = self.queue
        if name is not None and name in queue.names:
            return
        queue.last += 1
        queue.messages[queue.last] = (subject, data)
        if name is not None:
            queue.names.add(name)

    def next(self, consumer: str) -> SimpleNamespace:
        """Give out a message that nobody has: first what was given out before."""
        queue, now = self.queue, self.loop.time()
        subject, wait = queue.consumers[consumer]
        for number in sorted(queue.messages, key=lambda one: (one not in queue.given, one)):
            given = queue.given.get(number)
            if queue.messages[number][0] != subject or (given and given.until > now):
                continue
            if given:
                given.until, given.times = now + wait, given.times + 1
            else:
                queue.given[number] = given = Given(now + wait, now + wait)
            return SimpleNamespace(
                data=queue.messages[number][1],
                headers=None,
                reply=f"$JS.ACK.{permissions.QUEUE}.{consumer}.{number}.{given.times}",
                metadata=SimpleNamespace(sequence=SimpleNamespace(stream=number)),
            )
        return SimpleNamespace(data=b"", headers={"Status": "404"}, reply="", metadata=None)

    def acknowledge(self, ack: str, word: bytes) -> None:
        """What a host says of a message that it was given."""
        queue, number, now = self.queue, int(ack.split(".")[4]), self.loop.time()
        given = queue.given.get(number)
        if given is None:
            return
        if word == b"+WPI":
            given.until = given.on_disk = now + queue.consumers[ack.split(".")[3]][1]
        elif word.startswith(b"-NAK"):
            given.until = now + json.loads(word.removeprefix(b"-NAK"))["delay"] / 1e9
        else:
            del queue.given[number], queue.messages[number]


class _Life:
    """A connection, in the shape of nats-py's client."""

    def __init__(self, server: Server, host: str) -> None:
        self.server, self.host = server, host
        self.lost = asyncio.Event()
        self._server_info: dict[str, object] = {}
        self._transport = SimpleNamespace(
            _io_writer=SimpleNamespace(transport=SimpleNamespace(abort=lambda: None)),
        )
        self._hears: dict[str, Callable[[Any], Awaitable[None]]] = {}
        self._behind: asyncio.Task[None] | None = None
        self._news: list[Any] = []

    @property
    def is_connected(self) -> bool:
        return not self.lost.is_set()

    def end(self) -> None:
        self.lost.set()
        if self in self.server._lives:
            self.server._lives.remove(self)

    async def close(self) -> None:
        self.end()

    async def ask(self, act: Callable[[], Any], *, timeout: float = 5.0) -> Any:
        if self.lost.is_set():
            raise nats.errors.ConnectionClosedError
        self.server.asked[self.host] += 1
        answer = self.server.loop.create_future()
        _kept(asyncio.create_task(self.server.carry(self, act, answer)))
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise nats.errors.TimeoutError from None

    async def request(self, subject: str, data: bytes, *, timeout: float = 5.0, old_style: bool = False) -> Any:
        if subject.startswith("$JS.ACK."):
            return await self.ask(lambda: self.server.acknowledge(subject, data), timeout=timeout)
        return await self.ask(lambda: self.server.next(subject.rpartition(".")[2]), timeout=timeout)

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> Any:
        self._hears[subject] = cb

        async def unsubscribe() -> None:
            self._hears.pop(subject, None)

        return SimpleNamespace(unsubscribe=unsubscribe)

    def tell(self, news: Any) -> None:
        """Have it hear something, after what it was told before."""
        self._news.append(news)
        if self._behind is None or self._behind.done():
            self._behind = _kept(asyncio.create_task(self._catch_up()))

    async def _catch_up(self) -> None:
        while self._news:
            try:
                await self.server._pass(self)
            except _Gone:
                return
            several, self._news = self._news, []
            for news in several:
                for subject, call in list(self._hears.items()):
                    if re.fullmatch(subject.replace(".", r"\.").replace("*", r"[^.]+"), news.subject):
                        self.server.told[self.host] += 1
                        await call(news)


_running: set[asyncio.Task[None]] = set()


def _kept(task: asyncio.Task[None]) -> asyncio.Task[None]:
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


class _JetStream:
    """In the shape of nats-py's JetStream context."""

    def __init__(self, life: _Life) -> None:
        self._life, self._server = life, life.server

    async def publish(self, subject: str, data: bytes, *, headers: dict[str, str] | None = None) -> None:
        start, bucket, key = [*subject.split("."), ""][:3]
        if start == "$KV":
            await self._life.ask(lambda: self._server.put(self._life.host, bucket, key, data))
            return
        name = (headers or {}).get("Nats-Msg-Id")
        await self._life.ask(lambda: self._server.publish(subject, data, name))

    async def key_value(self, bucket: str) -> _Bucket:
        return _Bucket(self._life, bucket)

    async def stream_info(self, stream: str, *, subjects_filter: str | None = None) -> Any:
        bucket = stream.removeprefix("KV_")

        def look() -> Any:
            found = {f"$KV.{bucket}.{key}": 1 for key in self._server.values.get(bucket, {})}
            return SimpleNamespace(state=SimpleNamespace(subjects=found, messages=len(self._server.queue.messages)))

        return await self._life.ask(look)

    async def get_msg(self, stream: str, *, subject: str, direct: bool) -> Any:
        bucket, key = stream.removeprefix("KV_"), subject.rpartition(".")[2]

        def look() -> Any:
            found = self._server.values[bucket].get(key)
            if found is None:
                raise NotFoundError(code=404)
            time = _DAY + datetime.timedelta(seconds=found.at)
            return SimpleNamespace(subject=subject, data=found.data, headers=None, seq=found.revision, time=time)

        return await self._life.ask(look)

    async def consumer_info(self, stream: str, name: str) -> Any:
        def look() -> Any:
            if name not in self._server.queue.consumers:
                raise NotFoundError(code=404)
            return SimpleNamespace(config=SimpleNamespace(ack_wait=self._server.queue.consumers[name][1]))

        return await self._life.ask(look)

    async def add_consumer(self, stream: str, wanted: Any) -> Any:
        def make() -> Any:
            made = (wanted.filter_subject, wanted.ack_wait)
            self._server.queue.consumers.setdefault(wanted.durable_name, made)
            return SimpleNamespace(config=wanted)

        return await self._life.ask(make)


class _Bucket:
    """In the shape of nats-py's key-value bucket."""

    def __init__(self, life: _Life, name: str) -> None:
        self._life, self._server, self._name = life, life.server, name

    async def get(self, key: str) -> Value:
        def look() -> Value:
            found = self._server.values[self._name].get(key)
            if found is None:
                raise KeyNotFoundError
            return Value(found.data, found.revision, found.at)

        found: Any = await self._life.ask(look)
        return SimpleNamespace(value=found.data, revision=found.revision)  # type: ignore[return-value]

    async def update(self, key: str, data: bytes, *, last: int) -> int:
        put = self._server.put
        return int(await self._life.ask(lambda: put(self._life.host, self._name, key, data, last=last)))

    async def create(self, key: str, data: bytes) -> int:
        return await self.update(key, data, last=0)


# -- files, instead of the functions of lib/fleet/buckets.py --


async def put_object(made: Connection, name: str, path: Path) -> None:
    life: Any = made.nc
    data = path.read_bytes()
    await life.ask(lambda: life.server.files.__setitem__((made.host, name), data))


async def has_object(made: Connection, host: str, name: str) -> bool:
    life: Any = made.nc
    return bool(await life.ask(lambda: (host, name) in life.server.files))


async def drop_object(made: Connection, name: str) -> None:
    life: Any = made.nc
    await life.ask(lambda: life.server.files.pop((made.host, name), None))


async def get_object(made: Connection, host: str, name: str, path: Path) -> None:
    life: Any = made.nc
    found = await life.ask(lambda: life.server.files.get((host, name)))
    if found is None:
        raise NotFound(f"no {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found)
