"""Hosts on networks of their own drain a queue once: one is cut off, one is lost, and the server starts anew."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import host
from tests import namespaces, nats
from tests.conftest import SPEC, wait_for
from tests.fleet_machines import Host, fleet
from tests.fleet_news import News, listening
from tests.fleet_work import check, ended, entries_of, entry_of, finish, is_at_work, is_home
from tests.namespaces import HUB, Inside, Network
from tests.nats import NatsServer

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
WORKERS = ("red", "green", "blue")

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@dataclass
class Ground:
    """Hosts that have joined a fleet, its server, and how a host is cut off. The first host only puts and looks."""

    hosts: list[Host]
    server: NatsServer
    news: News
    cut: Callable[[Host], None]
    heal: Callable[[Host], None]


@pytest.fixture
def ground(request: pytest.FixtureRequest, tmp_path: Path, is_long: bool) -> Iterator[Ground]:
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(fleet(tmp_path, "", "home", *WORKERS))
        if request.param == "namespaces" and (why := namespaces.trouble()):
            pytest.skip(why)
        if request.param == "loopback" and not namespaces.trouble() and not is_long:
            pytest.skip("its hosts have networks of their own here; with --long both")
        if request.param == "namespaces":
            network = stack.enter_context(namespaces.network(*WORKERS))
            _move(hosts, network)
            server = NatsServer(tmp_path / "nats", 4222, address=network.address(HUB), inside=network.inside(HUB))
            cut, heal = _by_name(network.cut), _by_name(network.heal)
        else:
            server = NatsServer(tmp_path / "nats", nats.free_port())
            cut, heal = _by_signal(signal.SIGSTOP), _by_signal(signal.SIGCONT)
        home = hosts[0]
        server.config = home.bench.home / "fleet" / "server" / "server.conf"
        _found(hosts, server)
        server.start()
        stack.callback(server.stop)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.start(works=one.name in ("red", "green")), hosts))
        news = stack.enter_context(listening(home, server.url, *server.inside))
        yield Ground(hosts, server, news, cut, heal)


def _move(hosts: list[Host], network: Network) -> None:
    """Give each host its place in the network; the first one is where the server is."""
    for one in hosts:
        place = HUB if one.name == "home" else one.name
        one.bench = Inside(one.bench.folder, one.bench.environment, one.bench.tmux, network.inside(place))


def _by_name(act: Callable[[str], None]) -> Callable[[Host], None]:
    return lambda one: act(one.name)


def _by_signal(sign: signal.Signals) -> Callable[[Host], None]:
    return lambda one: one.signal_link(sign)


def _found(hosts: list[Host], server: NatsServer) -> None:
    """Found the fleet on the first host, and have the others join it by their tickets."""
    home, *others = hosts
    where = ("--address", server.address, "--listen", f"{server.address}:{server.port}")
    home.bench.ok("fleet.py", "init", "--name", home.name, *where, *(one.name for one in others))
    for one in others:
        one.bench.ok("fleet.py", "join", str(home.bench.home / "fleet" / "hosts" / f"{one.name}.fleet"))
    for one in hosts:
        one.most = 3 if one.name == "blue" else 1
        one.configure(server.url)


GROUNDS = ("namespaces", "loopback")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ground", GROUNDS, indirect=True)
def test_hosts_that_are_cut_off_and_lost_leave_a_queue_that_is_drained_once(ground: Ground) -> None:
    home, red, green, blue = ground.hosts
    project = home.bench.project()
    held = [home.put(project, f"{HOLDS}{number}\n", f"holds{number}.md") for number in range(2)]
    wait_for(lambda: all(is_at_work(one) for one in (red, green)), "red and green to be at work", seconds=60)
    held.append(home.put(project, HOLDS, "holds2.md"))
    blue.bench.ok("scheduler.py", "--queue-resume")
    wait_for(lambda: is_at_work(blue), "blue to be at work", seconds=60)
    of_red, of_green = entry_of(red), entry_of(green)

    ground.cut(red)
    green.lose()
    lost_at = host.now_ms()
    quick = [home.put(project, f"{SPEC}{number}\n", f"quick{number}.md") for number in range(2)]
    wait_for(lambda: {of_red, of_green} <= set(entries_of(blue)), "blue to have what they had", seconds=60)
    assert [team["status"] for team in red.teams()] == ["paused"], "it stands still before another host goes on"
    ground.heal(red)
    wait_for(lambda: not red.teams() and not red.bench.tmux.panes(), "red to end what is not its own", seconds=90)
    green.start()

    ground.server.kill()
    ground.server.start()
    wait_for(lambda: all(one.is_connected() for one in ground.hosts), "all to be connected again", seconds=60)
    everything, done = [*held, *quick], set[str]()

    def is_finished() -> bool:
        finish([red, green, blue], done)
        return is_home(home, everything)

    wait_for(is_finished, "everything to be done and to have come home", seconds=90)
    check(ground.hosts, ground.news, everything, {"green": lost_at})
    assert ended(red, of_red).startswith("it is running on blue")
