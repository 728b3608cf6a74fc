"""What the server of a founded fleet lets a host do, and what it refuses: each really tried, over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from lib import store
from lib.config import FleetSettings
from lib.errors import OrchestratorError, Unavailable
from lib.fleet import buckets, certificates, connection, founding, joining, members, outbox, permissions
from lib.fleet.certificates import Pair
from lib.fleet.connection import Connection
from lib.fleet.link import Link
from lib.fleet.members import Standing
from lib.fleet.roster import Places
from lib.records import dataclass
from tests import nats
from tests.conftest import wait_for
from tests.fleets import known, linked, until
from tests.nats import NatsServer

NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Fleet:
    """A founded fleet on loopback: its server runs, and three machines belong to it."""

    folder: Path
    server: NatsServer

    def home(self, host: str) -> Path:
        return self.folder / host

    def settings(self, host: str) -> FleetSettings:
        return FleetSettings(url=self.server.url, host=host)

    @contextlib.asynccontextmanager
    async def connected(self, *hosts: str) -> AsyncIterator[list[Connection]]:
        made = [await connection.connect(self.settings(host), self.home(host)) for host in hosts]
        try:
            yield made
        finally:
            for one in made:
                await one.close()

    def reload(self) -> None:
        """Tell the server of who has come and gone, and wait until it has read that for the last time.

        While it reads, it may refuse a request; the links of real hosts ask again.
        """
        before = self.readings()
        assert founding.tell_server(self.home("base"))
        wait_for(lambda: self.readings() >= before + 3, "the server to read its files")

    def readings(self) -> int:
        return (self.server.folder / "log").read_text().count("Reloaded server configuration")

    def authority(self) -> Pair:
        folder = self.home("base") / "fleet"
        return Pair((folder / "ca.pem").read_text(), (folder / "ca.key").read_text())


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    if nats.PROGRAM is None:
        pytest.skip("this system has no nats-server; ./setup.sh --dev")
    port = nats.free_port()
    home = tmp_path / "base"
    founding.found(home, "base", ["127.0.0.1"], f"127.0.0.1:{port}", NOW)
    founding.invite(home, ["a", "b"], NOW)
    for host in ("a", "b"):
        joining.join(tmp_path / host, Places.of(home).ticket(host), NOW)
    with nats.running(tmp_path / "nats", port, Places.of(home).server_conf) as server:
        made = Fleet(tmp_path, server)
        asyncio.run(_begin(made))
        yield made


async def _begin(fleet: Fleet) -> None:
    async with fleet.connected("base") as (base,):
        await connection.prepare(base, fleet.settings("base"), fleet.home("base"))
        await base.js.add_consumer(
            "FLEET_QUEUE",
            ConsumerConfig(durable_name="any", ack_policy=AckPolicy.EXPLICIT, filter_subject="fleet.queue.any.*"),
        )
        await (await base.js.key_value("hosts")).put("b", b"the record of b")
        await (await base.js.key_value("orders")).put("b", b"an order to b")
        await (await base.js.key_value("spending")).put("b", b"the spending of b")


def test_a_host_does_all_that_a_host_has_to_do(fleet: Fleet) -> None:
    async def work() -> None:
        async with fleet.connected("a", "b") as (a, b):
            await (await a.js.key_value("hosts")).put("a", b"the record of a")
            await (await a.js.key_value("orders")).put("a", b"cordoned by itself")
            seen = {one.key: one.value for one in await buckets.every(b, "hosts")}
            assert seen == {"a": b"the record of a", "b": b"the record of b"}
            # An entry: put by one, taken by the other, each change by its revision.
            entries = await a.js.key_value("entries")
            first = await entries.create("1", b"put")
            await a.js.publish("fleet.queue.any.0", b"1", headers={"Nats-Msg-Id": "a.1"})
            pulled = await b.js.pull_subscribe_bind("any", "FLEET_QUEUE")
            (message,) = await pulled.fetch(1, timeout=5)
            await message.in_progress()
            await (await b.js.key_value("entries")).update("1", b"taken", last=first)
            with pytest.raises(NatsError):
                await entries.update("1", b"taken too", last=first)
            # So is the limit of an account; what a host has spent is its own to tell.
            for bucket, key in (("limits", "a" * 32), ("spending", "a")):
                await (await a.js.key_value(bucket)).create(key, b"told")
                assert {one.key: one.value for one in await buckets.every(b, bucket)}[key] == b"told"
            limits = await b.js.key_value("limits")
            changed = await limits.update("a" * 32, b"claimed", last=1)
            with pytest.raises(NatsError):
                await (await a.js.key_value("limits")).update("a" * 32, b"claimed too", last=1)
            assert changed == 2
            # Its result travels back.
            (fleet.folder / "bundle").write_bytes(b"work" * 100_000)
            await buckets.put_object(b, "1", fleet.folder / "bundle")
            await message.ack_sync()
            await buckets.get_object(a, "b", "1", fleet.folder / "copy")
            assert (fleet.folder / "copy").read_bytes() == b"work" * 100_000

    asyncio.run(work())


def test_hosts_hear_at_once_of_what_another_stores(fleet: Fleet) -> None:
    async def hear() -> list[bytes | None]:
        async with fleet.connected("a", "b") as (a, b):
            seen = []
            async for stored in buckets.watch(b, "hosts"):
                seen.append(stored.value)
                if len(seen) == 2:
                    return seen
                await (await a.js.key_value("hosts")).put("a", b"news")
        return []

    assert asyncio.run(hear()) == [b"the record of b", b"news"]


async def _hear_letters(made: Connection, heard: list[str]) -> None:
    """Answer the letters to a host, as its link does, and keep from whom they are."""

    async def hear(message: Msg) -> None:
        heard.append(f"{message.subject.rpartition('.')[2]}: {message.data.decode()}")
        await message.respond(b"heard")

    for box in permissions.letterbox(made.host):
        await made.nc.subscribe(box, cb=hear)
    await made.nc.flush()


def test_letters_go_between_all_hosts_and_no_third_one_hears_of_them(fleet: Fleet) -> None:
    async def write() -> None:
        founding.invite(fleet.home("base"), ["c"], NOW)
        joining.join(fleet.home("c"), Places.of(fleet.home("base")).ticket("c"), NOW)
        async with fleet.connected("a", "b", "base") as found:
            fleet.reload()  # one that comes while the others are there
            async with fleet.connected("c") as (c,):
                heard: dict[str, list[str]] = {one.host: [] for one in (*found, c)}
                for one in (*found, c):
                    await _hear_letters(one, heard[one.host])
                spied: list[str] = []

                async def spy(message: Msg) -> None:
                    spied.append(message.subject)

                await c.nc.subscribe(">", cb=spy)
                await c.nc.flush()
                for sender, to in itertools.permutations(found, 2):
                    answer = await sender.nc.request(permissions.letter_to(to.host, sender.host), b"hello", timeout=5)
                    assert answer.data == b"heard"
                await c.nc.flush()
                assert spied == []
                answer = await found[0].nc.request(permissions.letter_to("c", "a"), b"hello", timeout=5)
                assert (answer.data, heard["c"]) == (b"heard", ["a: hello"])
                assert {name: sorted(told) for name, told in heard.items() if name != "c"} == {
                    "a": ["b: hello", "base: hello"],
                    "b": ["a: hello", "base: hello"],
                    "base": ["a: hello", "b: hello"],
                }
                # No host writes in another's name, and none past the fleet's account.
                for subject in ("fleet.send.b.base", "fleet.send.b.c", "fleet.mail.b.base", "fleet.mail.b.a"):
                    await found[0].nc.publish(subject, b"forged")
                # An answer comes out in nobody's record: its place is the sender's own.
                await found[0].nc.publish(permissions.letter_to("b", "a"), b"last", reply="$KV.hosts.b")
                await until(lambda: heard["b"][-1] == "a: last", "the letter")
                assert heard["b"][2:] == ["a: last"]

    asyncio.run(write())
    asyncio.run(_is_untouched(fleet))


Attempt = Callable[[Connection], Awaitable[object]]


async def _put(a: Connection, bucket: str, key: str, value: bytes) -> object:
    return await (await a.js.key_value(bucket)).put(key, value)


async def _object(a: Connection) -> object:
    return await (await a.js.object_store("projects-b")).put("1", b"forged")


async def _answered(a: Connection, subject: str, body: bytes = b"") -> None:
    """Ask the server something allowed, and name as the place of its answer what only another host may write."""
    await (await a.js.key_value("hosts")).put("a", b"forged")
    await a.nc.publish(subject, body, reply="$KV.hosts.b")
    await a.nc.flush()
    # What is asked after it is answered after it.
    await buckets.every(a, "hosts")


async def _pulled(a: Connection) -> None:
    await a.js.publish("fleet.queue.any.0", b"forged")
    await _answered(a, "$JS.API.CONSUMER.MSG.NEXT.FLEET_QUEUE.any", b"1")


def _consumer(a: Connection) -> Awaitable[object]:
    return a.js.add_consumer("KV_hosts", ConsumerConfig(name="z", deliver_subject="$KV.hosts.b"))


FORBIDDEN: list[tuple[str, Attempt]] = [
    ("another's record", lambda a: _put(a, "hosts", "b", b"forged")),
    ("another's spending", lambda a: _put(a, "spending", "b", b"forged")),
    ("orders to another", lambda a: _put(a, "orders", "b", b"forged")),
    ("another's results", _object),
    ("a stream is deleted", lambda a: a.js.delete_stream("KV_hosts")),
    ("a stream is made", lambda a: a.js.add_stream(StreamConfig(name="OWN", subjects=["own"]))),
    ("a stream is changed", lambda a: a.js.update_stream(StreamConfig(name="KV_hosts", subjects=["$KV.hosts.a"]))),
    ("a bucket is purged", lambda a: a.js.purge_stream("KV_hosts")),
    ("another's results are purged", lambda a: a.js.purge_stream("OBJ_projects-b")),
    ("the queue is purged", lambda a: a.js.purge_stream("FLEET_QUEUE")),
    ("a message is deleted", lambda a: a.js.delete_msg("KV_hosts", 1)),
    (
        "a bucket is rolled up",
        lambda a: a.js.publish("$KV.hosts.a", b"forged", headers={"Nats-Rollup": "all"}),
    ),
    ("a consumer delivers where it may not write", _consumer),
    ("the queue's consumer is deleted", lambda a: a.js.delete_consumer("FLEET_QUEUE", "any")),
    ("news are forged", lambda a: a.js.publish("fleet.news.hosts.b", b"forged")),
]


@pytest.mark.parametrize("attempt", [attempt for _, attempt in FORBIDDEN], ids=[name for name, _ in FORBIDDEN])
def test_a_host_is_refused(fleet: Fleet, attempt: Attempt) -> None:
    async def attack() -> None:
        async with fleet.connected("a") as (a,):
            with pytest.raises(NatsError):
                await attempt(a)

    asyncio.run(attack())
    asyncio.run(_is_untouched(fleet))


TRICKS: list[tuple[str, Attempt]] = [
    ("of its own record", lambda a: _answered(a, "$JS.API.DIRECT.GET.KV_hosts.$KV.hosts.a")),
    ("of the account", lambda a: _answered(a, "$JS.API.INFO")),
    ("of the queue", _pulled),
]


@pytest.mark.parametrize("attempt", [attempt for _, attempt in TRICKS], ids=[name for name, _ in TRICKS])
def test_an_answer_goes_to_who_asked_and_not_into_anothers_record(fleet: Fleet, attempt: Attempt) -> None:
    async def attack() -> None:
        async with fleet.connected("a") as (a,):
            await attempt(a)

    asyncio.run(attack())
    asyncio.run(_is_untouched(fleet))


async def _is_untouched(fleet: Fleet) -> None:
    async with fleet.connected("base") as (base,):
        assert (await (await base.js.key_value("hosts")).get("b")).value == b"the record of b"
        assert (await (await base.js.key_value("orders")).get("b")).value == b"an order to b"
        assert (await (await base.js.key_value("spending")).get("b")).value == b"the spending of b"
        assert (await base.js.stream_info("OBJ_projects-b")).state.messages == 0
        assert (await base.js.consumer_info("FLEET_QUEUE", "any")).name == "any"


def test_a_host_hears_nothing_that_is_said_to_others(fleet: Fleet) -> None:
    async def listen() -> None:
        async with fleet.connected("a", "b") as (a, b):
            heard = []

            async def hear(message: object) -> None:
                heard.append(message)

            for subject in ("_INBOX_b.>", "$JS.>", "$KV.orders.>", "$SYS.>"):
                await a.nc.subscribe(subject, cb=hear)
            await a.nc.flush()
            await (await b.js.key_value("hosts")).put("b", b"the record of b")
            await buckets.every(b, "orders")
            await a.nc.flush()
            assert heard == []

    asyncio.run(listen())


# -- who may connect --


def _refused(fleet: Fleet, host: str = "a") -> OrchestratorError:
    with pytest.raises(OrchestratorError) as raised:
        asyncio.run(_connect(fleet, host))
    return raised.value


async def _connect(fleet: Fleet, host: str) -> None:
    async with fleet.connected(host) as (made,):
        await buckets.every(made, "hosts")


def _give(fleet: Fleet, pair: Pair) -> None:
    (fleet.home("a") / "fleet" / "host.pem").write_text(pair.key + pair.certificate)


def test_who_has_no_certificate_is_told_to_join(fleet: Fleet) -> None:
    (fleet.home("a") / "fleet" / "host.pem").unlink()
    error = _refused(fleet)
    assert isinstance(error, Unavailable) and error.hint == "scheduler.py --fleet-join FILE"


def test_a_host_that_was_given_another_name_is_told(fleet: Fleet) -> None:
    with pytest.raises(OrchestratorError) as raised:
        asyncio.run(connection.connect(fleet.settings("other"), fleet.home("a")))
    assert raised.value.sentence == "this host is other by config.yaml, and a by its certificate"
    assert raised.value.hint == "set fleet.host to a there"


def test_a_client_without_a_certificate_is_not_let_in(fleet: Fleet) -> None:
    async def knock() -> None:
        context = ssl.create_default_context(cafile=fleet.home("a") / "fleet" / "ca.pem")
        made = Client()
        await made.connect(fleet.server.url, tls=context, allow_reconnect=False, max_reconnect_attempts=1)

    with pytest.raises((OSError, NatsError)):
        asyncio.run(knock())


def test_a_certificate_of_another_fleet_is_not_taken(fleet: Fleet) -> None:
    _give(fleet, certificates.for_host(certificates.authority("other", NOW), "a.1", NOW))
    assert "does not take this host" in _refused(fleet).sentence


def test_an_expired_certificate_is_not_taken(fleet: Fleet) -> None:
    _give(fleet, certificates.for_host(fleet.authority(), "a.1", NOW - datetime.timedelta(days=40), days=30))
    assert "does not take this host" in _refused(fleet).sentence


def test_a_user_whom_the_server_does_not_know_is_not_taken(fleet: Fleet) -> None:
    _give(fleet, certificates.for_host(fleet.authority(), "a.2", NOW))
    assert "does not take this host" in _refused(fleet).sentence


def test_a_server_of_another_fleet_is_not_trusted(fleet: Fleet) -> None:
    (fleet.home("a") / "fleet" / "ca.pem").write_text(certificates.authority("other", NOW).certificate)
    assert "is not the server of this host's fleet" in _refused(fleet).sentence


def test_a_stolen_host_certificate_makes_no_server(fleet: Fleet) -> None:
    stolen = fleet.home("b") / "fleet" / "host.pem"
    text = Places.of(fleet.home("base")).server_conf.read_text()
    places = Places.of(fleet.home("base")).server
    for name in ("server.pem", "server.key"):
        text = text.replace(str(places / name), str(stolen))
    fleet.server.stop()
    fleet.server.config = places / "forged.conf"
    fleet.server.config.write_text(text)
    fleet.server.start()
    assert "is not the server of this host's fleet" in _refused(fleet).sentence


def test_a_server_that_asks_nobody_for_a_certificate_is_refused(fleet: Fleet) -> None:
    places = Places.of(fleet.home("base"))
    open_one = places.server / "open.conf"
    text = places.server_conf.read_text().replace('"verify_and_map": true, ', "").replace("include accounts.conf", "")
    open_one.write_text(text)
    fleet.server.stop()
    fleet.server.config = open_one
    fleet.server.start()
    assert "asks nobody for a certificate" in _refused(fleet).sentence


def test_a_server_that_leaves_out_tls_is_not_talked_to(fleet: Fleet) -> None:
    """What a server says of itself is in clear: who stands between can say that there is no TLS."""
    said = {"server_id": "x", "version": "2.9.10", "headers": True, "max_payload": 1_000_000, "tls_verify": True}

    async def pose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {json.dumps(said)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def meet() -> None:
        async with await asyncio.start_server(pose, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = FleetSettings(url=f"tls://127.0.0.1:{port}", host="a")
            await connection.connect(settings, fleet.home("a"))

    with pytest.raises(OrchestratorError, match="answers without TLS"):
        asyncio.run(meet())


# -- hosts come and go while the server runs --


def test_a_host_that_is_removed_is_cut_off_and_no_other(fleet: Fleet) -> None:
    async def remove() -> None:
        async with fleet.connected("a", "b") as (a, b):
            founding.remove(fleet.home("base"), ["a"], NOW)
            fleet.reload()
            await asyncio.wait_for(a.lost.wait(), 20)
            await (await b.js.key_value("hosts")).put("b", b"the record of b")
            assert not b.lost.is_set()

    asyncio.run(remove())
    assert "does not take this host" in _refused(fleet).sentence
    # Nor does the old certificate count when a host of this name comes back.
    founding.invite(fleet.home("base"), ["a"], NOW)
    fleet.reload()
    assert "does not take this host" in _refused(fleet).sentence
    joining.join(fleet.home("a"), Places.of(fleet.home("base")).ticket("a"), NOW)
    asyncio.run(_connect(fleet, "a"))


def test_a_host_joins_while_the_others_work(fleet: Fleet) -> None:
    async def come() -> None:
        async with fleet.connected("a", "base") as (a, base):
            founding.invite(fleet.home("base"), ["c"], NOW)
            joining.join(fleet.home("c"), Places.of(fleet.home("base")).ticket("c"), NOW)
            fleet.reload()
            await connection.prepare(base, fleet.settings("base"), fleet.home("base"))
            async with fleet.connected("c") as (c,):
                await (await c.js.key_value("hosts")).put("c", b"new")
                (fleet.folder / "bundle").write_bytes(b"x")
                await buckets.put_object(c, "1", fleet.folder / "bundle")
            assert {one.key for one in await buckets.every(a, "hosts")} == {"b", "c"}
            assert not a.lost.is_set() and not base.lost.is_set()

    asyncio.run(come())


def test_a_renewed_certificate_makes_the_one_before_worthless(fleet: Fleet) -> None:
    founding.invite(fleet.home("base"), ["a"], NOW, renew=True)
    fleet.reload()
    assert "does not take this host" in _refused(fleet).sentence
    joining.join(fleet.home("a"), Places.of(fleet.home("base")).ticket("a"), NOW)
    asyncio.run(_connect(fleet, "a"))


# -- links --


def _order(link: Link, host: str) -> int:
    with store.writing(link.db):
        return outbox.add(link.db, members.ORDER, {"host": host, "standing": str(Standing.CORDONED)}, now=link.clock())


def test_linked_hosts_know_one_another_and_only_the_founder_orders_others(fleet: Fleet) -> None:
    async def link() -> None:
        async with linked(fleet.server, fleet.folder, "base") as base, linked(fleet.server, fleet.folder, "a") as a:
            await until(lambda: known(a) == ["a", "b", "base"] == known(base), "both to know all")
            refused = _order(a, "base")
            await until(lambda: outbox.refused(a.db), "the order of a host to be refused")
            (one,) = outbox.refused(a.db)
            assert one.id == refused and "may not order anything of base" in str(one.refusal)
            _order(base, "a")
            await until(lambda: members.standing_of(a.db, "a") is Standing.CORDONED, "the founder's order to arrive")
            assert members.standing_of(base.db, "base") is Standing.OPEN

    asyncio.run(link())


def test_the_founders_link_makes_room_for_who_comes_and_clears_away_who_is_removed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.fleet.hosts.ROOM_SECONDS", 0.1)

    async def come_and_go() -> None:
        home = fleet.home("base")
        async with linked(fleet.server, fleet.folder, "base") as base:
            await until(lambda: known(base) == ["b", "base"], "the founder to know its hosts")
            founding.invite(home, ["c"], NOW)
            joining.join(fleet.home("c"), Places.of(home).ticket("c"), NOW)
            founding.remove(home, ["b"], NOW)
            fleet.reload()
            async with linked(fleet.server, fleet.folder, "c") as c:
                await until(lambda: known(c) == ["base", "c"] == known(base), "the new one, and not the old one")
                await c.fleet.js.object_store("projects-c")

    asyncio.run(come_and_go())
