"""Messages to a real Claude Code, ours and two usual ways over the same bodies; and a crowd of senders at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.figures import Alternative, Figure
from benchmarks.machine import Machine, claude, claude_binary, rehearsal
from benchmarks.teams import Counts, launch
from lib.claude import transcripts
from lib.config import ROOT
from lib.errors import NotFound, OrchestratorError
from lib.judgement import framing
from lib.models import Agent
from lib.probing.model import ModelServer

TEN = (
    "orchestrator,developer,tester,testrunner,project_manager,"
    "researcher,devops,code_reviewer,documentation_writer,logtracker"
)
SENDERS = 50
_OURS = "`send`"
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
    """Two hundred messages of many sizes to an idle Claude Code, and a fifth of them by what most tools do.

    Each way has a machine of its own, one after the other; what one message leaves in a composer, the next one meets.
    Of `send` the ledger knows when a message was typed and when it was acknowledged; its target of p99 is 1000 ms.
    """
    binary = claude_binary()
    if binary is None:
        raise NotFound("the pinned Claude Code is missing", hint="./setup.sh --dev")
    texts = bodies(counts.messages)
    few = texts[: counts.messages // 5]
    found = {}
    for name, way, chosen in (
        (_OURS, _by_send, texts),
        (f"send-keys and Enter at once, {len(few)} of them", _by_keys_at_once, few),
        (f"send-keys, sleep 0.5, Enter, {len(few)} of them", _by_keys_with_sleep, few),
    ):
        with ExitStack() as stack:
            server = stack.enter_context(ModelServer(keep=5000))
            machine = stack.enter_context(claude(binary, server.url))
            launch(machine, "orchestrator", agent="claude")
            found[name] = _measure(machine, way, chosen)
    return _figures(found, len(texts))


@dataclass(frozen=True)
class _Sent:
    """What became of the messages of one way; milliseconds from its start."""

    share_once: float
    until_transcript: tuple[float, ...]
    until_acknowledged: tuple[float, ...] = ()
    until_typed: tuple[float, ...] = ()


def _figures(found: dict[str, _Sent], count: int) -> list[Figure]:
    ours = found[_OURS]
    others = {name: sent for name, sent in found.items() if name != _OURS}
    what = "messages of 20 B to 10 KB to an idle Claude Code"
    return [
        Figure(
            f"{what}: exactly once, of {count}",
            "%",
            (ours.share_once,),
            alternatives=tuple(Alternative(name, (sent.share_once,)) for name, sent in others.items()),
            headline=True,
        ),
        Figure(
            f"{what}: start to the agent's transcript",
            "ms",
            ours.until_transcript,
            alternatives=tuple(Alternative(name, sent.until_transcript) for name, sent in others.items()),
        ),
        Figure(f"{what}: start to the acknowledgement", "ms", ours.until_acknowledged, target=350.0, headline=True),
        Figure(f"{what}: ours of that, until it types", "ms", ours.until_typed, target=200.0, headline=True),
    ]


def _measure(machine: Machine, way: Callable[[Machine, Agent, str], None], texts: Sequence[str]) -> _Sent:
    agent = machine.agent("orchestrator")
    took = []
    starts = {}
    for text in texts:
        machine.wait_idle("orchestrator")
        began = starts[text] = time.time()
        way(machine, agent, text)
        if (seconds := _arrived_after(agent, text, began)) is not None:
            took.append(1000 * seconds)
    prompts = [plain(prompt) for prompt in _prompts(agent)]
    once = sum(1 for text in texts if prompts.count(text.rstrip()) == 1)
    acknowledged, typed = _ledger(machine, starts) if way is _by_send else ((), ())
    return _Sent(100 * once / len(texts), tuple(took), acknowledged, typed)


def _ledger(machine: Machine, starts: dict[str, float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the ledger knows of our own messages: when they were acknowledged, and when they were typed."""
    rows = machine.db().execute("SELECT * FROM messages WHERE kind = 'message' AND acknowledged_at IS NOT NULL")
    found = [(row, 1000 * starts[row["body"]]) for row in rows.fetchall()]
    acknowledged = tuple(row["acknowledged_at"] - began for row, began in found)
    return acknowledged, tuple(row["pasted_at"] - began for row, began in found)


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
        if text.rstrip() in (plain(prompt) for prompt in _prompts(agent)[-3:]):
            return time.time() - began
        time.sleep(0.01)
    return None


def _prompts(agent: Agent) -> list[str]:
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    return list(transcripts.prompts(path)) if path else []


def plain(prompt: str) -> str:
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
    what = f"{SENDERS} senders to 10 agents at once"
    return [
        Figure(f"{what}: lost or doubled", "messages", (lost + doubled,), target=0.0, note=note, headline=True),
        Figure(f"{what}: until the last has returned", "s", (took,)),
    ]
