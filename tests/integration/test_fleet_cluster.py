"""A server that is cut off from the others of its cluster: it says yes to a host, and the host does not believe it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig

from lib import store
from lib.config import FleetSettings
from lib.errors import OrchestratorError, Unavailable
from lib.fleet import connection, entries, hosts, permissions, working
from lib.fleet.connection import Connection
from lib.fleet.entries import Entry
from lib.fleet.envelopes import pack
from lib.fleet.link import Link
from tests import nats
from tests.nats import NatsServer, free_ports_of_a_cluster

NOW = 1_900_000_000_000
RECORD = {
    **{"id": "f00000001", "state": "running", "label": "any", "priority": 0, "added_at": NOW, "origin": "home"},
    **{"project": {"name": "webapp"}, "spec_name": "spec.md", "options": {}, "agents": 1, "term": 1, "host": "red"},
}

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, NatsServer]]:
    """Three servers without TLS, by name."""
    ports = free_ports_of_a_cluster()
    routes = ", ".join(f'"nats-route://127.0.0.1:{port + 2000}"' for port in ports)
    with contextlib.ExitStack() as stack:
        made = {}
        for port in ports:
            folder = tmp_path / f"nats-{port}"
            folder.mkdir()
            config = folder / "server.conf"
            config.write_text(
                f'listen: "127.0.0.1:{port}"\nserver_name: s{port}\njetstream: {{store_dir: "{folder / "store"}"}}\n'
                f'cluster: {{name: fleet, listen: "127.0.0.1:{port + 2000}", routes: [{routes}]}}\n'
            )
            made[f"s{port}"] = NatsServer(folder, port, config)
        for server in made.values():
            server.start()
            stack.callback(server.stop)
        yield made


def settings(*servers: NatsServer) -> FleetSettings:
    return FleetSettings(url=",".join(f"nats://127.0.0.1:{one.port}" for one in servers), host="red")


async def prepared(cluster: dict[str, NatsServer], home: Path) -> Connection:
    """Connect and make what the fleet keeps, as soon as the servers have found one another."""
    wanted = settings(*cluster.values())
    for _ in range(150):
        with contextlib.suppress(Unavailable):
            made = await connection.connect(wanted, home)
            try:
                await connection.prepare(made, wanted, home)
                return made
            except (NatsError, TimeoutError):
                await made.close()
        await asyncio.sleep(0.2)
    raise AssertionError("three servers make no cluster")


def test_a_server_that_is_cut_off_extends_and_the_host_does_not_count_on_it(
    cluster: dict[str, NatsServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off() -> None:
        made = await prepared(cluster, tmp_path)
        queue = await made.js.stream_info(permissions.QUEUE)
        assert queue.config.num_replicas == 3
        consumer = ConsumerConfig(durable_name="any_0", ack_policy=AckPolicy.EXPLICIT, ack_wait=60)
        found = await made.js.add_consumer(permissions.QUEUE, consumer)
        assert found.cluster and found.cluster.leader
        left = found.cluster.leader
        await lead(made, "KV_entries", left)
        await made.js.publish(f"$KV.entries.{RECORD['id']}", pack(RECORD))
        await made.js.publish(f"{permissions.QUEUE_SUBJECT}.any.0", b"an entry")
        await made.close()
        monkeypatch.setattr(connection, "_PATIENCE_SECONDS", 1.0)
        with contextlib.closing(store.connect(tmp_path)) as db:
            made = await connection.connect(settings(cluster[left]), tmp_path)
            link = Link(tmp_path, settings(cluster[left]), db, made)
            asked = f"$JS.API.CONSUMER.MSG.NEXT.{permissions.QUEUE}.any_0"
            message = await made.nc.request(asked, b'{"batch": 1}', timeout=5, old_style=True)
            own = Entry(str(RECORD["id"]), 1, RECORD)
            times = {"ack_wait_ms": 60_000, "begins_at": NOW, "now": NOW}
            lease = entries.take(db, own, message=1, ack=message.reply, **times)
            link = replace(link, clock=lambda: NOW + 1)
            await working._extend(link, lease)
            assert extended_at(link) == NOW + 1

            for name, server in cluster.items():
                if name != left:
                    server.kill()
            link = replace(link, clock=lambda: NOW + 2)
            answer = await made.nc.request(message.reply, b"+WPI", timeout=5)
            assert answer.data == b"", "it says that it has extended"
            with pytest.raises((NatsError, TimeoutError)):
                await working._extend(link, lease)
            assert extended_at(link) == NOW + 1
            assert not made.lost.is_set()
            with pytest.raises((NatsError, TimeoutError)):
                await hosts.tell(link)
            assert made.lost.is_set(), "the link looks for another server"
            await made.close()
            assert "does not reach most of its cluster" in await refusal(link)

    asyncio.run(cut_off())


async def refusal(link: Link) -> str:
    """Why a host cannot connect: one that has led the cluster notices within 20 s that it does so no more."""
    for _ in range(200):
        try:
            await (await connection.connect(link.settings, link.home)).close()
        except Unavailable as error:
            return error.sentence
        await asyncio.sleep(0.2)
    return "it can"


async def lead(made: Connection, stream: str, wanted: str) -> None:
    """Have a server lead a stream: who leads it steps down until it does."""
    for _ in range(100):
        with contextlib.suppress(NatsError, TimeoutError):
            found = (await made.js.stream_info(stream)).cluster
            if found and found.leader == wanted:
                return
            await made.nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", timeout=5)
        await asyncio.sleep(0.2)
    raise AssertionError(f"{wanted} does not come to lead {stream}")


def extended_at(link: Link) -> int:
    (lease,) = entries.leases(link.db)
    return lease.extended_at


@pytest.mark.parametrize("url", ["nats://10.0.0.7:4222", "nats://127.0.0.1:4222,nats://10.0.0.7:4222"])
def test_each_server_elsewhere_has_to_have_tls(tmp_path: Path, url: str) -> None:
    with pytest.raises(OrchestratorError, match="only a server on this machine may be without it"):
        asyncio.run(connection.connect(FleetSettings(url=url), tmp_path))
