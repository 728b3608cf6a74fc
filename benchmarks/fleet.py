"""What a link to a fleet takes of a host, and how long the views of a large fleet take."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import Counts
from lib import daemon, host, service
from lib.config import ROOT, Settings
from lib.errands import Errands
from lib.fleet import members, views
from lib.fleet.members import Sighting
from lib.tmux import Tmux
from tests import nats
from tests.simulation import fleet as simulated

HOSTS = 200
#: How many hosts a fleet has, when it is measured what it costs each.
SIZES = (10, 50, HOSTS)
#: For how long the fleets live whose messages are counted, after all hosts know one another.
SIMULATED_SECONDS = 120.0


def fleet(counts: Counts) -> list[Figure]:
    """A link that only tells of its host and hears of it, then one that hears of ever more; and what fleets cost."""
    found = _views(counts)
    if nats.PROGRAM is None:
        return found
    with rehearsal() as machine, nats.running(machine.folder / "nats") as server:
        _configure(machine, server.url)
        # The lock of a scheduler, without which a link ends by itself.
        with host.lock(service.lock_path(machine.home)), _linked(machine) as (wrapper, link):
            found += _watch(wrapper, link, counts.idle_seconds, "alone")
            for size in SIZES:
                with _others(server.url, size):
                    _wait_until_known(machine, size)
                    found += _watch(wrapper, link, counts.idle_seconds, f"{size} other hosts")
    return [*found, *(figure for size in SIZES for figure in _costs(size))]


def _wait_until_known(machine: Machine, number: int) -> None:
    wait_for(lambda: len(members.every(machine.db())) > number, "all hosts to be known")


def _costs(size: int) -> list[Figure]:
    """What hosts of a simulated fleet ask, hear and do in a minute: their links as they are, all in this process.

    Its processor time is no figure of a host: with ever more stores in one process the same steps take longer.
    """
    names = [f"host-{number}" for number in range(size)]
    statements: list[str] = []
    with simulated.fleet(1, names) as world:
        world.loop.run_until_complete(world.live((), 60.0))
        for one in world.hosts:
            one.trace_link(statements.append)
        asked, told = world.server.asked.total(), world.server.told.total()
        world.loop.run_until_complete(world.pass_by(60.0 + SIMULATED_SECONDS))
        asked, told = world.server.asked.total() - asked, world.server.told.total() - told
        world.loop.run_until_complete(world.close())
    minutes = size * SIMULATED_SECONDS / 60
    said = f"fleet, a simulated one of {size} hosts: a host"
    return [
        Figure(f"{said}'s requests in a minute", "requests", (asked / minutes,)),
        Figure(f"{said}'s news in a minute", "news", (told / minutes,)),
        Figure(f"{said}'s statements on its store in a minute", "statements", (len(statements) / minutes,)),
    ]


def record(at: int) -> dict[str, object]:
    """What a host at work tells of itself."""
    return {
        **{"version": "0.1.0", "at": at, "labels": ["gpu"], "agents": 5, "capacity": 24, "cpus": 8},
        **{"memory_free_mb": 22_000, "load": 1.5, "entries": 1, "standing": "open"},
        "teams": [{"session": "webapp-impl", "project": "webapp", "status": "running"}],
    }


def _configure(machine: Machine, url: str) -> None:
    path = Path(machine.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"fleet:\n  url: {url}\n  host: box\n", encoding="utf-8")


@contextlib.contextmanager
def _linked(machine: Machine) -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A link as the scheduler starts it, by its shebang: uv, which waits, and the link itself."""
    environment = {**machine.environment, "UV_OFFLINE": "1"}
    wrapper = subprocess.Popen([str(ROOT / "fleet.py"), "link", "--quiet"], env=environment)
    try:
        wait_for(lambda: [one for one in members.every(machine.db()) if one.name == "box"], "the link")
        yield psutil.Process(wrapper.pid), psutil.Process(wrapper.pid).children()[0]
    finally:
        wrapper.terminate()
        wrapper.wait()


_TELLS = """
import asyncio, sys
from pathlib import Path
from lib import host
from lib.config import FleetSettings
from lib.fleet import connection, envelopes, members
from benchmarks.fleet import record

async def tell(url, number):
    made = await connection.connect(FleetSettings(url=url, host="all"), Path("/nowhere"))
    while True:
        for one in range(number):
            await made.nc.publish(f"$KV.hosts.box-{one}", envelopes.pack(record(host.now_ms())))
            await asyncio.sleep(members.heartbeat_seconds(number) / number)

asyncio.run(tell(sys.argv[1], int(sys.argv[2])))
"""


@contextlib.contextmanager
def _others(url: str, number: int) -> Iterator[None]:
    """The heartbeats of so many hosts, from a process beside."""
    words = [sys.executable, "-c", _TELLS, url, str(number)]
    process = subprocess.Popen(words, cwd=ROOT)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _watch(wrapper: psutil.Process, link: psutil.Process, seconds: float, said: str) -> list[Figure]:
    time.sleep(1)
    before = link.cpu_times()
    time.sleep(seconds)
    after = link.cpu_times()
    used = after.user + after.system - before.user - before.system
    megabyte = 1_000_000
    return [
        Figure(f"fleet, a link, {said}: processor", "%", (100 * used / seconds,)),
        Figure(f"fleet, a link, {said}: memory", "MB", (link.memory_info().rss / megabyte,)),
        Figure(f"fleet, a link, {said}: memory of uv, its parent", "MB", (wrapper.memory_info().rss / megabyte,)),
    ]


def _views(counts: Counts) -> list[Figure]:
    with rehearsal() as machine:
        _configure(machine, "nats://127.0.0.1:1")
        db, now = machine.db(), host.now_ms()
        members.tell_link(db, "nats://127.0.0.1:1", host="box", now=now)
        told = record(now)
        members.saw(db, [Sighting(f"box-{number}", told, now, 0) for number in range(HOSTS)], now=now)
        looks = [_timed(lambda: views.table(views.look(db, machine.home, now=now))) for _ in range(counts.sends)]
        writes = [
            _timed(lambda: members.saw(db, [Sighting(f"box-{n}", told, now, 0) for n in range(40)], now=now))
            for _ in range(counts.sends)
        ]
        times = range(max(5, counts.sends // 10))
        doors = [_timed(lambda: machine.door("claude_control.py", "fleet", "hosts")) for _ in times]
        alone = daemon.Beat(db, Tmux("none"), machine.home, now, daemon.Life(Settings(), Errands(machine.home)))
        daemon.keep_link(alone)  # the first one looks whether something is kept of a fleet
        steps = [_timed(lambda: _beats(alone, 1000)) for _ in range(counts.sends)]
    return [
        Figure("fleet, on a machine that is of none: its step in a thousand beats", "ms", tuple(steps), target=10.0),
        Figure(f"fleet, {HOSTS} hosts: the look and the table", "ms", tuple(looks)),
        Figure(f"fleet, {HOSTS} hosts: keeping a second's news", "ms", tuple(writes)),
        Figure(f"fleet, {HOSTS} hosts: claude_control.py fleet hosts", "ms", tuple(doors), target=1000.0),
    ]


def _beats(beat: daemon.Beat, number: int) -> None:
    for _ in range(number):
        daemon.keep_link(beat)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
