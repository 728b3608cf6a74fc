"""Messages across the hosts of a fleet: real hosts on a real server, whose agents write to one another."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.errors import ExitCode
from tests import nats
from tests.conftest import Done, wait_for
from tests.fleet_machines import Host, fleet
from tests.nats import NatsServer

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


def begin(one: Host, *names: str) -> None:
    """Have the teams of these projects run on a host: an orchestrator each, which waits."""
    for name in names:
        project = one.bench.project(name, spec=HOLDS)
        one.bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator")


@contextlib.contextmanager
def as_agent(one: Host, session: str) -> Iterator[None]:
    """What is typed on a host is typed by the orchestrator of a session."""
    (row,) = one.bench.rows("SELECT pane_id FROM agents WHERE session = ? AND host IS NULL", session)
    server = one.bench.tmux.run("display-message", "-p", "#{socket_path}").strip()
    before = dict(one.bench.environment)
    one.bench.environment |= {"TMUX": f"{server},1,0", "TMUX_PANE": row["pane_id"]}
    try:
        yield
    finally:
        one.bench.environment.clear()
        one.bench.environment |= before


def send(one: Host, *words: str) -> Done:
    return one.bench.door("claude_control.py", "send", *words)


def sent(one: Host, body: str) -> dict[str, Any]:
    """A message that a host has sent to another."""
    found = one.bench.rows(
        "SELECT messages.* FROM messages JOIN agents ON agents.id = agent_id"
        " WHERE agents.host IS NOT NULL AND body = ?",
        body,
    )
    return found[0]


def got(one: Host, body: str) -> list[dict[str, Any]]:
    """The messages of this text to the agents of a host."""
    return one.bench.rows(
        "SELECT messages.* FROM messages JOIN agents ON agents.id = agent_id WHERE agents.host IS NULL AND body = ?",
        body,
    )


def is_acknowledged_once(one: Host, there: Host, body: str) -> bool:
    """Whether a message has arrived by both ledgers. It fails as soon as there are two."""
    found = got(there, body)
    assert len(found) <= 1
    return [row["status"] for row in (*found, sent(one, body))] == ["acknowledged"] * 2


def sessions_known(one: Host) -> set[str]:
    records = one.bench.ok("claude_control.py", "fleet", "hosts", "--json").json
    return {f"{host['name']}/{team['session']}" for host in records for team in host["record"]["teams"]}


def test_agents_of_three_hosts_write_to_one_another(tmp_path: Path) -> None:
    with nats.running(tmp_path / "nats") as server, fleet(tmp_path, server.url, "home", "red", "blue") as hosts:
        home, red, blue = hosts
        for one in hosts:
            one.start()
        begin(red, "webapp", "both")
        begin(blue, "api", "both")
        teams = {"red/webapp-impl", "red/both-impl", "blue/api-impl", "blue/both-impl"}
        wait_for(lambda: all(sessions_known(one) == teams for one in hosts), "all to know all teams", seconds=60)
        check_addresses(home)
        check_answers(home, red, blue)
        check_that_it_waits(red, blue, server)


def check_addresses(home: Host) -> None:
    """With the host, without it where that is one, and never by a guess."""
    done = send(home, "red/webapp-impl:orchestrator", "with its host", "--wait", "30")
    assert done.code == 0 and "acknowledged in" in done.out and "to red/webapp-impl:orchestrator" in done.out
    done = send(home, "api-impl:orchestrator", "without its host", "--wait", "30")
    assert done.code == 0 and "to blue/api-impl:orchestrator" in done.out
    for target, code, said in (
        ("both-impl:orchestrator", ExitCode.USAGE, "several hosts run 'both-impl': blue, red"),
        ("green/api-impl:orchestrator", ExitCode.NOT_FOUND, "the fleet has no host 'green'"),
        ("nobody-impl:orchestrator", ExitCode.NOT_FOUND, "no agent at 'nobody-impl:orchestrator'"),
    ):
        done = send(home, target, "to nobody")
        assert done.code == code and said in done.err
    done = send(home, "blue/api-impl:tester", "nobody is there", "--wait", "30")
    assert done.code == ExitCode.FAILED and "failed: blue: no agent at 'api-impl:tester'" in done.out
    listed = home.bench.ok("claude_control.py", "messages").out
    assert "user -> red/webapp-impl:orchestrator" in listed and "no agent at 'api-impl:tester'" in listed


def check_answers(home: Host, red: Host, blue: Host) -> None:
    """An agent writes to another host's, which answers to the name that it reads."""
    with as_agent(red, "webapp-impl"):
        assert send(red, "api-impl:orchestrator", "rehearse: answer", "--wait", "30").code == 0
    (asked,) = got(blue, "rehearse: answer")
    assert asked["sender"] == "red/webapp-impl:orchestrator"
    answer = f"Rehearsal answer of the orchestrator to message {asked['id']}."
    wait_for(lambda: got(red, answer) and is_acknowledged_once(blue, red, answer), "the answer", seconds=60)
    assert got(red, answer)[0]["sender"] == "blue/api-impl:orchestrator"
    assert got(home, answer) == []


def check_that_it_waits(red: Host, blue: Host, server: NatsServer) -> None:
    """Whatever is away: the message waits, and arrives once."""
    to = "blue/api-impl:orchestrator"
    blue.bench.ok("claude_control.py", "pause", "api-impl")
    done = send(red, to, "while it is paused", "--wait", "1")
    assert done.code == 0 and "submitted: blue has it" in done.out
    wait_for(lambda: "paused" in str(sent(red, "while it is paused")["reason"]), "the reason of the other host")
    blue.bench.ok("claude_control.py", "resume", "api-impl")
    wait_for(lambda: is_acknowledged_once(red, blue, "while it is paused"), "it to arrive", seconds=60)

    server.kill()
    wait_for(lambda: not red.is_connected() and not blue.is_connected(), "both to notice")
    done = send(red, to, "without a server", "--wait", "30")
    assert done.code == 0 and "queued: waits for the fleet" in done.out
    assert "1 message waits to be sent" in red.bench.ok("claude_control.py", "fleet", "status").out
    server.start()
    wait_for(lambda: is_acknowledged_once(red, blue, "without a server"), "it to arrive", seconds=60)

    # The link of the receiver stands still, so that the letter is with the server when it is killed; then the sender's.
    blue.signal_link(signal.SIGSTOP)
    assert send(red, to, "to a link that is killed", "--no-wait").code == 0
    wait_for(lambda: "does not answer" in str(sent(red, "to a link that is killed")["reason"]), "red to say so")
    blue.signal_link(signal.SIGKILL)
    assert send(red, to, "from a link that is killed", "--no-wait").code == 0
    red.signal_link(signal.SIGKILL)
    for body in ("to a link that is killed", "from a link that is killed"):
        wait_for(lambda body=body: is_acknowledged_once(red, blue, body), f"{body!r} to arrive", seconds=120)  # type: ignore[misc]
