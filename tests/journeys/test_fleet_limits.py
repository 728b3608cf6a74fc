"""One account on several hosts: real machines on a real server, with rehearsal agents, over a limit and a lost host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import service
from tests import nats
from tests.conftest import wait_for
from tests.fleet_machines import Host, fleet
from tests.nats import NatsServer

SPEC = "# A spec that takes its time\n\nrehearse: hold\n"

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[NatsServer, Host, Host]]:
    """A server, and two hosts of one account with a team each."""
    with nats.running(tmp_path / "nats") as server, fleet(tmp_path, server.url, "red", "blue") as (red, blue):
        for one in (red, blue):
            one.configure(server.url, account="shared")
            one.start(works=False)
            project = one.bench.project(spec=SPEC)
            words = ("--spec", str(project / "spec.md"), "--roles", "orchestrator,developer")
            one.bench.ok("auto_orchestrate.py", *words)
        yield server, red, blue


def send(one: Host, role: str, text: str) -> str:
    return one.bench.ok("claude_control.py", "send", f"webapp-impl:{role}", text).out


def limit(one: Host) -> dict[str, Any]:
    """The newest limit of its team; {} when it has had none."""
    words = "SELECT * FROM limits WHERE config_dir LIKE '%/rehearsal' ORDER BY id DESC LIMIT 1"
    return dict(next(iter(one.bench.rows(words)), {}))


def is_over(*hosts: Host) -> bool:
    return all(limit(one).get("ended_at") for one in hosts)


def tried(*hosts: Host) -> int:
    return sum(len(one.bench.rows("SELECT 1 FROM events WHERE kind = 'limit.tried'")) for one in hosts)


def has_heard(one: Host) -> Callable[[], bool]:
    """Whether all that was sent to its team has been acknowledged."""
    return lambda: not one.bench.rows("SELECT 1 FROM messages WHERE status != 'acknowledged'")


def kill_scheduler_and_link(one: Host) -> None:
    """Kill what is not tmux: the agents go on."""
    running = service.running(one.bench.home)
    assert running
    os.kill(running.pid, signal.SIGKILL)
    one.signal_link(signal.SIGKILL)


def test_a_limit_of_one_host_is_one_of_all(hosts: tuple[NatsServer, Host, Host]) -> None:
    _, red, blue = hosts
    send(red, "developer", "rehearse: limit 0.25")
    wait_for(lambda: limit(blue), "blue to hear of the limit", seconds=30)
    said = send(blue, "developer", "Are you there?")
    assert said.startswith("queued: limited until ") and "(met on red)" in said
    assert "five-hour limit until" in blue.bench.ok("claude_control.py", "fleet", "status").out
    assert "as host red has told" in blue.bench.ok("credit_management/credit_monitor.py", "--once", "--show-resets").out
    wait_for(lambda: is_over(red, blue), "both to go on", seconds=90)
    assert tried(red, blue) == 1
    wait_for(has_heard(blue), "blue's message to arrive")
    wait_for(has_heard(red), "red's agent to be told")
    notes = [
        one.bench.rows("SELECT 1 FROM messages WHERE body LIKE 'Your last turn was cut off%'") for one in (red, blue)
    ]
    assert [len(found) for found in notes] == [1, 0], "only whose turn was cut off"

    # The host that tries is lost while it does: another one tries, and does not wait for it.
    send(red, "developer", "rehearse: limit 0.2")
    wait_for(lambda: limit(blue)["ended_at"] is None, "blue to hear of the next", seconds=30)
    (agent,) = red.bench.rows("SELECT pid FROM agents WHERE role = 'developer'")
    os.kill(agent["pid"], signal.SIGSTOP)  # so that its trial takes time
    try:
        wait_for(lambda: limit(red)["tried_at"], "red to try", seconds=60)
        assert tried(red, blue) == 2
        before = tried(blue)
        kill_scheduler_and_link(red)
        send(blue, "developer", "Are you still there?")
        wait_for(lambda: is_over(blue), "blue to try, and to go on", seconds=120)
        assert (tried(red, blue), tried(blue)) == (3, before + 1)
    finally:
        os.kill(agent["pid"], signal.SIGCONT)
    wait_for(has_heard(blue), "its message to arrive")
    red.start(works=False)
    wait_for(lambda: is_over(red), "red to hear of that", seconds=60)


def test_without_the_server_a_host_goes_by_what_it_knew(hosts: tuple[NatsServer, Host, Host]) -> None:
    server, red, blue = hosts
    send(red, "developer", "rehearse: limit 0.3")
    wait_for(lambda: limit(blue), "blue to hear of the limit", seconds=30)
    server.kill()
    assert send(blue, "developer", "Are you there?").startswith("queued: limited until ")
    wait_for(lambda: is_over(red, blue), "each to try by itself", seconds=120)
    assert [tried(red), tried(blue)] == [1, 1]
    alone = blue.bench.rows("SELECT data FROM events WHERE kind = 'limit.alone'")
    assert len(alone) == 1 and "the fleet cannot be reached" in alone[0]["data"]
    wait_for(has_heard(blue), "blue's message to arrive")
    server.start()
    wait_for(lambda: red.is_connected() and blue.is_connected(), "both to be connected", seconds=60)
    wait_for(
        lambda: "five-hour limit" not in blue.bench.ok("claude_control.py", "fleet", "status").out,
        "both to agree that it is over",
        seconds=30,
    )
    assert is_over(red, blue) and [tried(red), tried(blue)] == [1, 1]
