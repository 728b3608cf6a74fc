"""How long a team takes from the command until every agent has acknowledged its briefing, and a message to an agent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.figures import Figure, ratio
from benchmarks.machine import Machine, claude, claude_binary, rehearsal, wait_for
from lib.config import ROOT
from lib.errors import NotFound
from tests.claude_code.model_server import ModelServer

Make = Callable[[], AbstractContextManager[Machine]]

FIVE = "orchestrator,developer,tester,testrunner,project_manager"
THREE = "orchestrator,developer,tester"


@dataclass(frozen=True)
class Counts:
    """How often each thing is done."""

    launches: int = 5
    sends: int = 50
    messages: int = 200
    starts: int = 30
    completions: int = 10
    idle_seconds: float = 30.0
    looks: int = 20
    transcript_bytes: int = 1_000_000_000


QUICK = Counts(
    launches=2,
    sends=10,
    messages=12,
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


def launch(machine: Machine, roles: str, *, agent: str) -> tuple[float, float]:
    """Launch a team. Returns the seconds until the last acknowledged briefing, and until the command returned."""
    project = machine.project()
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
        Figure("rehearsal team of 5: command to all briefed", "s", tuple(one[0] for one in found), target=5.0),
        Figure("the same team of 5, until the command returns", "s", tuple(one[1] for one in found)),
    ]


def launch_claude(counts: Counts) -> list[Figure]:
    """A team of three real Claude Codes on the scripted model."""
    found = _launches(real_claude, THREE, "claude", counts.launches)
    return [
        Figure("Claude Code team of 3: command to all briefed", "s", tuple(one[0] for one in found), target=12.0),
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
    return [
        Figure(f"`send` to {whom}: start to acknowledgement", "ms", tuple(arrived)),
        Figure(f"`send` to {whom}: ours of that, until it types", "ms", tuple(ours), target=200.0),
        Figure(f"`send` to {whom}: until it returns", "ms", tuple(whole)),
        ratio(f"`send` to {whom}: until it types, in bare Python starts", ours, [seconds * 1000 for seconds in bare]),
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
    return [Figure("`complete`: report recorded and brought to an idle Claude Code", "ms", tuple(took))]


def starts(counts: Counts) -> list[Figure]:
    """The start of a door, warm, beside that of a bare Python: in turns, so that a busy moment hits both."""
    door, shell = str(ROOT / "claude_control.py"), str(ROOT / "send-claude-message.sh")
    commands = {
        "bare": (sys.executable, "-c", "pass"),
        "same": (sys.executable, door, "--help"),
        "door": (door, "--help"),
        "shell": (shell, "--help"),
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    with rehearsal() as machine:
        for name in commands:
            machine.run(*commands[name])
        for _ in range(counts.starts):
            for name, command in commands.items():
                took[name].append(machine.run(*command)[0] * 1000)
    return [
        Figure("`python -c pass`, the yardstick", "ms", tuple(took["bare"])),
        Figure("`claude_control.py --help` by the environment's Python", "ms", tuple(took["same"])),
        Figure("`claude_control.py --help` as a door, through uv", "ms", tuple(took["door"]), target=250.0),
        Figure("`send-claude-message.sh --help`", "ms", tuple(took["shell"])),
        ratio("door through uv, in bare Python starts", took["door"], took["bare"]),
    ]


def hook(counts: Counts) -> list[Figure]:
    """What one event costs an agent: the very command of its settings file, through a shell as Claude Code runs it."""
    took, bare = [], []
    with rehearsal() as machine:
        launch(machine, "orchestrator", agent="rehearsal")
        settings = json.loads((machine.home / "agents" / "1" / "settings.json").read_text(encoding="utf-8"))
        command = settings["hooks"]["Stop"][0]["hooks"][0]["command"]
        said = {"hook_event_name": "Stop", "session_id": "benchmark", "last_assistant_message": "x" * 2000}
        payload = json.dumps(said).encode()
        for _ in range(counts.starts):
            bare.append(machine.run("sh", "-c", f"exec {sys.executable} -I -S -c pass")[0] * 1000)
            took.append(machine.run("sh", "-c", command, stdin=payload)[0] * 1000)
    return [
        Figure("one hook event", "ms", tuple(took), target=60.0),
        ratio("one hook event, in starts of a bare isolated Python", took, bare),
    ]
