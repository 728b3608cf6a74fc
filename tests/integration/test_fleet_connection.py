"""The connection to a fleet's server on this machine, against a real one."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
from pathlib import Path

import pytest

from lib.config import FleetSettings
from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.fleet import buckets, connection, founding
from lib.fleet.connection import Connection
from tests import nats
from tests.fleets import until
from tests.nats import NatsServer


def settings(server: NatsServer, host: str = "box") -> FleetSettings:
    return FleetSettings(url=server.url, host=host)


def test_what_the_fleet_keeps_is_made_once(nats_server: NatsServer, tmp_path: Path) -> None:
    async def found_twice() -> tuple[bytes | None, bytes | None]:
        a = await connection.connect(settings(nats_server), tmp_path)
        b = await connection.connect(settings(nats_server, "other"), tmp_path)
        await connection.found(a.js, ["box"])
        await (await a.js.key_value("hosts")).put("box", b"here")
        await (await a.js.object_store("projects-box")).put("webapp", b"bundle")
        await connection.found(b.js, ["box", "other"])
        kept = (await (await b.js.key_value("hosts")).get("box")).value
        bundle = (await (await b.js.object_store("projects-box")).get("webapp")).data
        await a.close()
        await b.close()
        return kept, bundle

    assert asyncio.run(found_twice()) == (b"here", b"bundle")


def test_a_bucket_is_watched_from_what_it_holds_to_what_comes(nats_server: NatsServer, tmp_path: Path) -> None:
    async def watch() -> list[tuple[str, bytes | None]]:
        made = await connection.connect(settings(nats_server), tmp_path)
        await connection.found(made.js, ["box"])
        hosts, seen = await made.js.key_value("hosts"), []
        await hosts.put("a", b"1")
        await hosts.put("b", b"1")
        async for stored in buckets.watch(made, "hosts"):
            seen.append((stored.key, stored.value))
            if len(seen) == 2:
                await hosts.put("a", b"2")
                await hosts.delete("b")
            if len(seen) == 4:
                nats_server.kill()
        return seen

    assert asyncio.run(watch()) == [("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", None)]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_file_travels_through_a_hosts_object_store(nats_server: NatsServer, tmp_path: Path, size: int) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"

    async def travel() -> None:
        made = await connection.connect(settings(nats_server), tmp_path)
        await connection.found(made.js, ["box"])
        for content in (b"an older one", os.urandom(size)):
            source.write_bytes(content)
            await buckets.put_object(made, "webapp.bundle", source)
        await buckets.get_object(made, "box", "webapp.bundle", copy)
        with pytest.raises(NotFound, match="holds no other"):
            await buckets.get_object(made, "box", "other", tmp_path / "nothing")
        await made.close()

    asyncio.run(travel())
    assert copy.read_bytes() == source.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("copy.", "nothing"))] == []


def test_a_connection_tells_that_it_is_lost(nats_server: NatsServer, tmp_path: Path) -> None:
    async def lose() -> None:
        made = await connection.connect(settings(nats_server), tmp_path)
        assert not made.lost.is_set()
        nats_server.kill()
        await asyncio.wait_for(made.lost.wait(), 20)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await connection.connect(settings(nats_server), tmp_path)
        nats_server.start()
        await (await connection.connect(settings(nats_server), tmp_path)).close()

    asyncio.run(lose())


def test_one_whose_other_side_is_gone_without_a_word_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a pulled cable, over TLS, and with more to send than the system takes."""
    if nats.PROGRAM is None:
        pytest.skip("this system has no nats-server; ./setup.sh --dev")
    monkeypatch.setattr(connection, "PING_SECONDS", 0.2)
    port, now = nats.free_port(), datetime.datetime.now(datetime.UTC)
    founding.found(tmp_path, "box", ["127.0.0.1"], f"127.0.0.1:{port}", now)
    config = tmp_path / "fleet" / "server" / "server.conf"

    async def push(made: Connection) -> None:
        while True:
            await made.nc.publish("fleet.news.nothing", bytes(100_000))

    async def lose(server: NatsServer) -> None:
        made = await connection.connect(settings(server), tmp_path)
        assert server.process
        server.process.send_signal(signal.SIGSTOP)
        pushing = asyncio.create_task(push(made))
        await until(made.lost.is_set, "the loss to be noticed", seconds=20)
        pushing.cancel()
        await asyncio.wait_for(made.close(), 20)
        await until(lambda: not _of_nats(), "its tasks to end", seconds=20)

    with nats.running(tmp_path / "nats", port, config) as server:
        asyncio.run(lose(server))


def _of_nats() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "Client" in getattr(task.get_coro(), "__qualname__", "")]


def test_a_server_elsewhere_has_to_have_tls(tmp_path: Path) -> None:
    with pytest.raises(OrchestratorError) as raised:
        asyncio.run(connection.connect(FleetSettings(url="nats://10.0.0.7:4222"), tmp_path))
    assert "only a server on this machine may be without it" in raised.value.sentence
    assert "--fleet-init" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("nats://127.0.0.1:4222", True),
        ("nats://localhost:4222", True),
        ("nats://[::1]:4222", True),
        # Names that only begin like one.
        ("nats://127.0.0.1.example.org:4222", False),
        ("nats://localhost.example.org:4222", False),
        ("nats://10.0.0.7:4222", False),
        ("nats://:4222", False),
    ],
)
def test_what_counts_as_this_machine_alone(url: str, is_one: bool) -> None:
    assert connection.is_loopback(url) is is_one
