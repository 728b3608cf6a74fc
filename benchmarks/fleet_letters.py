"""Messages across a fleet: how long until an agent of another host has one, beside one to an agent of the same host."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Alternative, Figure
from benchmarks.fleet_queue import hosts
from benchmarks.machine import wait_for
from benchmarks.teams import HOLDS, Counts
from lib import agents
from lib.models import AgentState
from tests import nats
from tests.fleet_machines import Host

SESSION = "webapp-impl"
TARGET = f"{SESSION}:orchestrator"


def letters(counts: Counts) -> list[Figure]:
    """From the ledger's first row to the acknowledgement in it, by turns on one host and across two of three."""
    if nats.PROGRAM is None:
        return []
    here: list[float] = []
    across: list[float] = []
    with hosts("home", "red", "blue") as made:
        for one in made[1:]:
            _begin(one)
        home, red, blue = made
        for number in range(counts.sends):
            here.append(_send(red, red, f"red/{TARGET}", f"here {number}"))
            sender, to = ((home, red), (red, blue), (blue, red))[number % 3]
            across.append(_send(sender, to, f"{to.name}/{TARGET}", f"across {number}"))
    own_host = Alternative("to an agent of the sender's own host", tuple(here))
    name = "fleet: a message to an idle agent of another host, until the sender's ledger has its acknowledgement"
    return [Figure(name, "ms", tuple(across), target=600.0, alternatives=(own_host,))]


def _begin(one: Host) -> None:
    """Have a team of one agent run that takes any number of messages."""
    path = Path(one.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.write_text(f"{path.read_text()}messages_per_minute: 100000\n", encoding="utf-8")
    project = one.bench.project(spec=HOLDS)
    one.bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator")
    is_known = f"SELECT 1 FROM fleet_hosts WHERE name = 'red' AND record LIKE '%{SESSION}%'"
    wait_for(lambda: one.name != "red" or one.bench.rows(is_known), "the team to be told of")


def _send(sender: Host, to: Host, target: str, body: str) -> float:
    """Milliseconds by the sender's ledger."""
    db = to.bench.db()
    (agent,) = [one for one in agents.live(db) if one.session == SESSION]
    wait_for(lambda: agents.state_of(agent) is AgentState.IDLE, "the agent to be idle")
    db.close()
    sender.bench.ok("claude_control.py", "send", target, body, "--wait", "30")
    (row,) = sender.bench.rows("SELECT queued_at, acknowledged_at FROM messages WHERE body = ?", body)
    return float(row["acknowledged_at"] - row["queued_at"])
