"""Hosts whose clocks are a minute apart drain a queue once, and tell the right ages of one another."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.front.chaos.machine import Machine
from tests import nats
from tests.conftest import wait_for
from tests.fleet_machines import ACK_WAIT_SECONDS, Host, fleet
from tests.fleet_news import listening
from tests.fleet_work import at_work, check, ended, entries_of, finish, is_at_work, is_home

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
MINUTE_MS = 60_000

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@contextlib.contextmanager
def shifted(one: Host, ahead_ms: int) -> Iterator[None]:
    """The clock of a host is off in the block, for all that runs there."""
    machine = Machine(one.bench.folder, one.bench.home)
    one.bench.environment |= machine.prepare()
    if machine.why_not:
        pytest.skip(machine.why_not)
    one.ahead_ms = ahead_ms
    with machine.clock_off(ahead_ms / 1000):
        yield


@pytest.mark.timeout(300)
def test_hosts_whose_clocks_are_a_minute_apart_drain_a_queue_once(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(nats.running(tmp_path / "nats"))
        hosts = stack.enter_context(fleet(tmp_path, server.url, "home", "ahead", "behind"))
        home, ahead, behind = hosts
        for one, ahead_ms in ((ahead, MINUTE_MS), (behind, -MINUTE_MS)):
            stack.enter_context(shifted(one, ahead_ms))
        for one in hosts:
            one.most = 2
            one.configure(server.url)
            one.start(works=one is ahead)
        news = stack.enter_context(listening(home, server.url))

        check_ages(hosts)
        project = home.bench.project()
        held = [home.put(project, f"{HOLDS}0\n", "holds0.md")]
        wait_for(lambda: is_at_work(ahead), "ahead to be at work", seconds=60)
        ahead.bench.ok("scheduler.py", "--queue-pause")
        behind.bench.ok("scheduler.py", "--queue-resume")
        held.append(home.put(project, f"{HOLDS}1\n", "holds1.md"))
        wait_for(lambda: is_at_work(behind), "behind to be at work", seconds=60)
        ahead.bench.ok("scheduler.py", "--queue-resume")

        for sender, receiver in ((home, ahead), (ahead, behind), (behind, ahead)):
            check_letter(sender, receiver)
        check_cut(ahead, behind)
        check_cut(behind, ahead)
        done = set[str]()

        def is_finished() -> bool:
            finish([ahead, behind], done)
            return is_home(home, held)

        wait_for(is_finished, "everything to be done and to have come home", seconds=90)
        check(hosts, news, held)
        for put in home.bench.rows("SELECT * FROM fleet_puts"):
            assert put["put_at"] <= put["fetched_at"] <= home.now_ms()


def check_ages(hosts: list[Host]) -> None:
    """Every host is seen as just now by every other's clock, and is told how far that is off."""
    for one in hosts:
        wait_for(lambda one=one: len(told(one)) == len(hosts), f"{one.name} to know all hosts", seconds=60)  # type: ignore[misc]
        for other in hosts:
            of_other = told(one)[other.name]
            assert of_other["is_seen"] and 0 <= one.now_ms() - of_other["seen_at"] < 10_000
            # The time that a heartbeat took is in it.
            assert -5_000 < of_other["skew_ms"] - (other.ahead_ms - one.ahead_ms) < 1_000
        text = one.bench.ok("claude_control.py", "fleet", "hosts").out
        assert text.count(" ahead of this host's") == sum(other.ahead_ms > one.ahead_ms for other in hosts), text
        assert text.count(" behind this host's") == sum(other.ahead_ms < one.ahead_ms for other in hosts), text


def told(one: Host) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in one.bench.ok("claude_control.py", "fleet", "hosts", "--json").json}


def check_letter(sender: Host, receiver: Host) -> None:
    """A message arrives once, and by both ledgers while it was waited for: each by the clock of its own host."""
    body = f"from {sender.name}"
    target = f"{receiver.name}/{at_work(receiver)[0]}:orchestrator"
    began = sender.now_ms()
    done = sender.bench.ok("claude_control.py", "send", target, body, "--wait", "30")
    assert "acknowledged in" in done.out
    took = sender.now_ms() - began
    for one in (sender, receiver):
        (row,) = one.bench.rows("SELECT * FROM messages WHERE body = ?", body)
        since = one.now_ms() - took - 10_000
        assert row["status"] == "acknowledged"
        assert since <= row["queued_at"] <= row["acknowledged_at"] <= one.now_ms()


def check_cut(lost: Host, other: Host) -> None:
    """A host that is cut off stands still before another has what it had, and ends its part when it is back."""
    had = set(entries_of(lost))
    lost.signal_link(signal.SIGSTOP)
    cut_at = lost.now_ms()
    wait_for(lambda: had & set(entries_of(other)), f"{other.name} to have something of {lost.name}", seconds=60)
    assert lost.now_ms() - cut_at >= ACK_WAIT_SECONDS * 500, "it was extended for the last time shortly before"
    assert {team["status"] for team in lost.teams()} == {"paused"}, "it stands still before another host goes on"
    wait_for(lambda: had <= set(entries_of(other)), f"{other.name} to have it all", seconds=60)
    lost.signal_link(signal.SIGCONT)
    wait_for(lambda: not lost.teams() and not lost.bench.tmux.panes(), f"{lost.name} to end it", seconds=90)
    for entry in had:
        wait_for(lambda entry=entry: ended(lost, entry), f"{lost.name} to say so")  # type: ignore[misc]
        assert ended(lost, entry).startswith(f"it is running on {other.name}")
    wait_for(lambda: len(at_work(other)) == len(entries_of(other)), f"{other.name} to be at work at it", seconds=60)
