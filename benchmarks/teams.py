"""How long a team takes from the command until every agent has acknowledged its briefing, and a message to an agent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.figures import Alternative, Figure
from benchmarks.machine import SPEC, Machine, claude, claude_binary, rehearsal, wait_for
from lib.errors import NotFound
from lib.probing.model import ModelServer

Make = Callable[[], AbstractContextManager[Machine]]

FIVE = "orchestrator,developer,tester,testrunner,project_manager"
THREE = "orchestrator,developer,tester"
#: A team that waits for its messages, and has nothing of its own to do.
HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"


@dataclass(frozen=True)
class Counts:
    """How often each thing is done."""

    launches: int = 5
    sends: int = 50
    messages: int = 200
    ways: int = 10
    starts: int = 30
    completions: int = 10
    idle_seconds: float = 30.0
    looks: int = 20
    transcript_bytes: int = 1_000_000_000


QUICK = Counts(
    launches=2,
    sends=10,
    messages=12,
    ways=2,
    starts=8,
    completions=3,
    idle_seconds=8.0,
    looks=5,
    transcript_bytes=50_000_000,
)


@contextmanager
def real_claude() -> Iterator[Machine]:
    """A machine with the pinned Claude Code and a model that says "ok". Raises `NotFound` without the binary."""
    binary = claude_binary()
    if binary is None:
        raise NotFound("the pinned Claude Code is missing", hint="./setup.sh --dev")
    with ExitStack() as stack:
        server = stack.enter_context(ModelServer())
        yield stack.enter_context(claude(binary, server.url))


def launch(machine: Machine, roles: str, *, agent: str, spec: str = SPEC) -> tuple[float, float]:
    """Launch a team. Returns the seconds until the last acknowledged briefing, and until the command returned."""
    project = machine.project()
    (project / "spec.md").write_text(spec, encoding="utf-8")
    began = time.time()
    took, _ = machine.door(
        "auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", roles, "--agent", agent
    )
    rows = machine.db().execute("SELECT acknowledged_at FROM messages WHERE kind = 'briefing'").fetchall()
    return max(row["acknowledged_at"] for row in rows) / 1000 - began, took


def _launches(make: Make, roles: str, agent: str, runs: int) -> list[tuple[float, float]]:
    found = []
    for _ in range(runs):
        with make() as machine:
            found.append(launch(machine, roles, agent=agent))
    return found


def launch_rehearsal(counts: Counts) -> list[Figure]:
    """A team of five rehearsal agents."""
    found = _launches(rehearsal, FIVE, "rehearsal", counts.launches)
    return [
        Figure(
            "rehearsal team of 5: command to all briefed",
            "s",
            tuple(one[0] for one in found),
            target=5.0,
            headline=True,
        ),
        Figure("the same team of 5, until the command returns", "s", tuple(one[1] for one in found)),
    ]


def launch_claude(counts: Counts) -> list[Figure]:
    """A team of three real Claude Codes on the scripted model."""
    found = _launches(real_claude, THREE, "claude", counts.launches)
    return [
        Figure(
            "Claude Code team of 3: command to all briefed",
            "s",
            tuple(one[0] for one in found),
            target=12.0,
            headline=True,
        ),
        Figure("the same team of 3, until the command returns", "s", tuple(one[1] for one in found)),
    ]


def send_rehearsal(counts: Counts) -> list[Figure]:
    """Messages to an idle rehearsal agent."""
    with rehearsal() as machine:
        launch(machine, THREE, agent="rehearsal")
        _wait_completed(machine)
        return _sends(machine, "an idle rehearsal agent", counts.sends)


def send_claude(counts: Counts) -> list[Figure]:
    """Messages to an idle Claude Code."""
    with real_claude() as machine:
        launch(machine, THREE, agent="claude")
        return _sends(machine, "an idle Claude Code", counts.sends)


def _wait_completed(machine: Machine) -> None:
    db = machine.db()
    wait_for(
        lambda: db.execute("SELECT 1 FROM orchestrations WHERE status = 'completed'").fetchone(), "the team to complete"
    )
    for role in THREE.split(","):
        machine.wait_idle(role)


def _sends(machine: Machine, whom: str, runs: int) -> list[Figure]:
    db, target = machine.db(), machine.agent("developer").target
    arrived, ours, whole, bare = [], [], [], []
    for number in range(runs):
        machine.wait_idle("developer")
        bare.append(machine.run(sys.executable, "-c", "pass")[0])
        began = time.time()
        took, answer = machine.door("send-claude-message.sh", "--json", target, f"Benchmark message {number}.")
        row = db.execute("SELECT * FROM messages WHERE id = ?", (json.loads(answer)["id"],)).fetchone()
        if row["acknowledged_at"] is None:
            wait_for(
                lambda: db.execute("SELECT 1 FROM messages WHERE acknowledged_at IS NULL").fetchone() is None, "it"
            )
            row = db.execute("SELECT * FROM messages WHERE id = ?", (row["id"],)).fetchone()
        arrived.append((row["acknowledged_at"] / 1000 - began) * 1000)
        ours.append((row["pasted_at"] / 1000 - began) * 1000)
        whole.append(took * 1000)
    other = (Alternative("`python -c pass`", tuple(seconds * 1000 for seconds in bare)),)
    return [
        Figure(f"`send` to {whom}: start to acknowledgement", "ms", tuple(arrived)),
        Figure(f"`send` to {whom}: ours of that, until it types", "ms", tuple(ours), target=200.0, alternatives=other),
        Figure(f"`send` to {whom}: until it returns", "ms", tuple(whole)),
    ]


def complete(counts: Counts) -> list[Figure]:
    """Completion reports, each with its commit as evidence and its message to an idle orchestrator."""
    took = []
    with real_claude() as machine:
        launch(machine, THREE, agent="claude")
        developer = machine.agent("developer")
        identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
        for number in range(counts.completions):
            words = ("commit", "-q", "--allow-empty", "-m", f"Step {number}")
            machine.run("git", "-C", str(developer.worktree), *identity, *words)
            machine.wait_idle("orchestrator")
            report = ("developer", f"Benchmark report {number}.", "--session", developer.session)
            took.append(machine.door("report-completion.sh", *report)[0] * 1000)
    return [Figure("`complete`: report recorded and brought to an idle Claude Code", "ms", tuple(took), headline=True)]
