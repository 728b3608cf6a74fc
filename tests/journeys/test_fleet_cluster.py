"""A fleet on a cluster of three servers, one of which is lost in the middle of the work and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from nats.js.api import StreamInfo

from lib.config import FleetSettings
from lib.errors import Unavailable
from lib.fleet import connection, permissions
from lib.fleet.roster import Places, founded
from tests import nats
from tests.conftest import SPEC, wait_for
from tests.fleet_machines import Host, fleet
from tests.fleet_news import News, listening
from tests.fleet_work import at_work, check, finish, is_at_work, is_home
from tests.nats import NatsServer

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@dataclass
class Ground:
    """Hosts on a cluster: the first one has founded it, and only puts and looks."""

    hosts: list[Host]
    #: By the name that each has in its cluster.
    servers: dict[str, NatsServer]
    url: str
    news: News

    def queue(self) -> StreamInfo:
        """The fleet's queue as its leader tells of it. Raises `Unavailable` while it has none."""

        async def ask() -> StreamInfo:
            home = self.hosts[0]
            made = await connection.connect(FleetSettings(url=self.url, host=home.name), home.bench.home)
            try:
                return await made.js.stream_info(permissions.QUEUE)
            except (NatsError, TimeoutError) as error:
                raise Unavailable("the queue has no leader") from error
            finally:
                await made.close()

        return asyncio.run(ask())

    def leader(self) -> NatsServer:
        """The server that leads the queue."""
        found = self.queue().cluster
        assert found and found.leader
        return self.servers[found.leader]

    def is_led_without(self, lost: NatsServer) -> bool:
        """Whether a server leads the queue, and not this one."""
        with contextlib.suppress(Unavailable):
            return self.leader() is not lost
        return False

    def is_whole(self) -> bool:
        """Whether all servers have all that the queue holds."""
        with contextlib.suppress(Unavailable):
            found = self.queue().cluster
            replicas = (found and found.leader and found.replicas) or []
            return len(replicas) == 2 and all(one.current and not one.offline for one in replicas)
        return False


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(fleet(tmp_path, "", "home", "red", "green"))
        home, *others = hosts
        ports = nats.free_ports_of_a_cluster()
        listens = ("--address", "127.0.0.1", "--listen", f"127.0.0.1:{ports[0]}")
        further = [f"127.0.0.1:{port}" for port in ports[1:]]
        words = [word for one in further for word in ("--server", one)]
        home.bench.ok("fleet.py", "init", "--name", "home", *listens, *words, *(one.name for one in others))
        made, places = founded(home.bench.home), Places.of(home.bench.home)
        assert made
        for one in others:
            one.bench.ok("fleet.py", "join", str(places.ticket(one.name)))
        for one in hosts:
            one.configure(made.url)
        configs = {"home": places.server_conf}
        configs |= {one: places.other_server(one) / "server.conf" for one in further}
        servers = {
            name: NatsServer(tmp_path / f"nats-{port}", port, config)
            for (name, config), port in zip(configs.items(), ports, strict=True)
        }
        for server in servers.values():
            server.start()
            stack.callback(server.stop)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.start(works=one is not home), hosts))
        news = stack.enter_context(listening(home, made.url))
        yield Ground(hosts, servers, made.url, news)


@pytest.mark.timeout(300)
def test_a_cluster_that_loses_its_leader_goes_on_and_everything_is_done_once(ground: Ground) -> None:
    home, *workers = ground.hosts
    project = home.bench.project()
    wait_for(ground.is_whole, "three servers to keep the queue", seconds=60)
    held = [home.put(project, f"{HOLDS}{number}\n", f"holds{number}.md") for number in range(2)]
    wait_for(lambda: all(is_at_work(one) for one in workers), "red and green to be at work", seconds=60)

    assert "Authorization Violation" in called_as_a_server(workers[0], ground.servers["home"])
    home.bench.ok("fleet.py", "init", "blue")
    log = ground.servers["home"].folder / "log"
    wait_for(lambda: log.read_text().count("Reloaded server configuration") >= 2, "its server to read who has come")
    lost = ground.leader()
    lost.kill()
    held.append(home.put(project, SPEC, "quick.md"))
    (session,) = at_work(workers[0]) or [team["session"] for team in workers[0].teams()]
    to = f"{workers[0].name}/{session}:orchestrator"
    home.bench.ok("claude_control.py", "send", to, "without a leader", "--no-wait")
    wait_for(lambda: ground.is_led_without(lost), "another server to lead", seconds=60)
    wait_for(lambda: all(one.is_connected() for one in ground.hosts), "all to be connected again", seconds=60)
    wait_for(lambda: statuses(home, "without a leader") == ["acknowledged"], "the message to arrive", seconds=60)
    assert statuses(workers[0], "without a leader") == ["acknowledged"], "it has arrived once"
    done = set[str]()

    def is_finished() -> bool:
        finish(workers, done)
        return is_home(home, held)

    wait_for(is_finished, "everything to be done and to have come home", seconds=90)
    check(ground.hosts, ground.news, held)
    lost.start()
    wait_for(ground.is_whole, "the server that was lost to have caught up", seconds=60)


def statuses(one: Host, body: str) -> list[str]:
    return [row["status"] for row in one.bench.rows("SELECT status FROM messages WHERE body = ?", body)]


def called_as_a_server(one: Host, server: NatsServer) -> str:
    """What a server answers when a host calls it by its own certificate, as another server of the cluster does."""
    folder = one.bench.home / "fleet"
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "host.pem")
    with (
        socket.create_connection((server.address, server.port + 2000), 10) as plain,
        context.wrap_socket(plain, server_hostname=server.address) as called,
    ):
        called.sendall(b'CONNECT {"verbose":false,"pedantic":false,"tls_required":true,"name":"x"}\r\nPING\r\n')
        said = b""
        while b"ERR" not in said and b"PONG" not in said and (more := called.recv(65536)):
            said += more
    return said.decode()
