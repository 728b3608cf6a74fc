"""Messages to a real Claude Code, ours and two usual ways over the same bodies; and a crowd of senders at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.figures import Figure
from benchmarks.machine import Machine, claude, claude_binary, rehearsal
from benchmarks.teams import Counts, launch
from lib import claude as claude_code
from lib.config import ROOT
from lib.errors import NotFound, OrchestratorError
from lib.judgement import framing
from lib.models import Agent
from tests.claude_code.model_server import ModelServer

TEN = (
    "orchestrator,developer,tester,testrunner,project_manager,"
    "researcher,devops,code_reviewer,documentation_writer,logtracker"
)
SENDERS = 50
#: How long a message may take before it counts as not delivered.
_LOST_SECONDS = 3.0


def bodies(count: int) -> list[str]:
    """Texts of 20 B to 10 KB: one line, many lines, and ends that terminals and composers take for something else."""
    made = []
    for number in range(count):
        words = f"Message {number:04d}: please look at the login page. "
        size = (20, 200, 650, 1_000, 3_000, 10_000)[number % 6]
        text = (words * (size // len(words) + 1))[: max(size, 22)].rstrip()
        if number % 3 == 2:
            text = "\n".join(text[at : at + 70] for at in range(0, len(text), 70))
        made.append(text + ("", " ends in a semicolon;", " ends in a backslash\\")[number % 5 if number % 5 < 3 else 0])
    return made


def deliveries(counts: Counts) -> list[Figure]:
    """Our `send`, and what most tools do, to an idle Claude Code. Raises `NotFound` without the pinned one."""
    binary = claude_binary()
    if binary is None:
        raise NotFound("the pinned Claude Code is missing", hint="./setup.sh --dev")
    figures = []
    texts = bodies(counts.messages)
    few = texts[: counts.messages // 5]
    for name, way, chosen in (
        ("`send`", _by_send, texts),
        ("send-keys and Enter at once", _by_keys_at_once, few),
        ("send-keys, sleep 0.5, Enter", _by_keys_with_sleep, few),
    ):
        with ExitStack() as stack:
            server = stack.enter_context(ModelServer(keep=5000))
            machine = stack.enter_context(claude(binary, server.url))
            launch(machine, "orchestrator", agent="claude")
            figures += _measure(machine, name, way, chosen)
    return figures


def _measure(
    machine: Machine, name: str, way: Callable[[Machine, Agent, str], None], texts: Sequence[str]
) -> list[Figure]:
    agent = machine.agent("orchestrator")
    took = []
    starts = {}
    for text in texts:
        machine.wait_idle("orchestrator")
        began = starts[text] = time.time()
        way(machine, agent, text)
        if (seconds := _arrived_after(agent, text, began)) is not None:
            took.append(seconds)
    prompts = [_plain(prompt) for prompt in _prompts(agent)]
    once = sum(1 for text in texts if prompts.count(text.rstrip()) == 1)
    share = Figure(f"{name}: delivered exactly once, of {len(texts)}", "%", (100 * once / len(texts),))
    milliseconds = tuple(1000 * seconds for seconds in took) or (1000 * _LOST_SECONDS,)
    recorded = Figure(f"{name}: start to the agent's transcript, 20 B to 10 KB", "ms", milliseconds)
    return [share, recorded, *(_ledger(machine, starts) if way is _by_send else ())]


def _ledger(machine: Machine, starts: dict[str, float]) -> list[Figure]:
    """What the ledger knows of our own messages: when they were typed, and when they were acknowledged."""
    rows = machine.db().execute("SELECT * FROM messages WHERE kind = 'message' AND acknowledged_at IS NOT NULL")
    ours, whole = [], []
    for row in rows.fetchall():
        began = 1000 * starts[row["body"]]
        ours.append(row["pasted_at"] - began)
        whole.append(row["acknowledged_at"] - began)
    note = "the target of p99 is 1000 ms"
    return [
        Figure("`send`: start to the acknowledgement, 20 B to 10 KB", "ms", tuple(whole), target=350.0, note=note),
        Figure("`send`: ours of that: start of the process, ledger, look, until it types", "ms", tuple(ours)),
    ]


def _by_send(machine: Machine, agent: Agent, text: str) -> None:
    machine.run(str(ROOT / "send-claude-message.sh"), agent.target, "-", stdin=text.encode())


def _by_keys_at_once(machine: Machine, agent: Agent, text: str) -> None:
    _keys(machine, agent, text, "Enter")


def _by_keys_with_sleep(machine: Machine, agent: Agent, text: str) -> None:
    _keys(machine, agent, text)
    time.sleep(0.5)
    _keys(machine, agent, "Enter")


def _keys(machine: Machine, agent: Agent, *keys: str) -> None:
    words = machine.tmux.command("send-keys", "-t", str(agent.pane_id), *keys)
    subprocess.run(words, env=machine.environment, check=False, capture_output=True)


def _arrived_after(agent: Agent, text: str, began: float) -> float | None:
    """Seconds until the agent's own transcript holds the text, by the time that stands there; None when it does not."""
    deadline = time.monotonic() + _LOST_SECONDS
    while time.monotonic() < deadline:
        if text.rstrip() in (_plain(prompt) for prompt in _prompts(agent)[-3:]):
            return time.time() - began
        time.sleep(0.01)
    return None


def _prompts(agent: Agent) -> list[str]:
    path = claude_code.transcript(agent.config_dir, agent.conversation_id)
    return list(claude_code.prompts(path)) if path else []


def _plain(prompt: str) -> str:
    """The text of a prompt, without our frame and without the mark that Claude Code puts around a paste."""
    framed = framing.unframe(prompt)
    return (framed[1] if framed else framing.unwrap(prompt)).strip("\n").rstrip()


def crowd(counts: Counts) -> list[Figure]:
    """Fifty senders to ten rehearsal agents at once: what is lost, what is doubled, and who failed."""
    with rehearsal() as machine:
        launch(machine, TEN, agent="rehearsal")
        roles = TEN.split(",")
        for role in roles:
            machine.wait_idle(role)
        failed: list[str] = []

        def send(number: int) -> None:
            target = machine.agent(roles[number % len(roles)]).target
            try:
                machine.door("send-claude-message.sh", "--wait", "60", target, f"Crowd message {number:04d}.")
            except OrchestratorError as error:
                failed.append(error.sentence)

        began = time.perf_counter()
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, range(SENDERS)))
        took = time.perf_counter() - began
        rows = machine.db().execute("SELECT body, status FROM messages WHERE body LIKE 'Crowd message %'").fetchall()
        arrived = [prompt for role in roles for prompt in _prompts(machine.agent(role)) if "Crowd message" in prompt]
    lost = SENDERS - sum(1 for row in rows if row["status"] == "acknowledged")
    doubled = len(arrived) - len(set(arrived))
    note = f"{lost} lost, {doubled} doubled, {len(failed)} senders failed" + (f": {failed[0]}" if failed else "")
    return [Figure(f"{SENDERS} senders to 10 agents at once: until the last has returned", "s", (took,), note=note)]
