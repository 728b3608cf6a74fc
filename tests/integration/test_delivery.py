"""Delivery to a real pane with a rehearsal agent in it: once, whole, in order, and into nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from lib import agents, composer, daemon, delivery, host, messages, store
from lib.claude import installed, starting, transcripts
from lib.config import Settings
from lib.errors import Unavailable
from lib.judgement import framing, screens
from lib.models import Agent, AgentState, Message, MessageKind, MessageStatus, Program
from lib.tmux import Tmux
from tests.agents import a_team
from tests.conftest import ROOT, Bench, wait_for


@dataclass
class Crew:
    """One rehearsal agent that was never briefed: it notes what it is told."""

    bench: Bench
    desk: delivery.Desk
    agent: Agent

    @property
    def tmux(self) -> Tmux:
        return self.desk.tmux

    def send(self, body: str, *, seconds: float = 20.0) -> Message:
        return delivery.send(self.desk, self.agent, body, sender="tester", wait_seconds=seconds)

    def queue(self, body: str) -> Message:
        now = host.now_ms()
        return messages.queue(self.desk.db, self.agent, body, sender="tester", kind=MessageKind.MESSAGE, now=now)

    def get(self, message: Message) -> Message:
        return messages.get(self.desk.db, message.id)

    def beat(self) -> daemon.Beat:
        return daemon.tick(self.desk.db, self.tmux, self.desk.home, now=host.now_ms())

    def beat_until_arrived(self, *sent: Message) -> None:
        """Beat as the daemon does, until the messages have arrived."""

        def arrived() -> bool:
            self.beat()
            return all(self.get(message).status is MessageStatus.ACKNOWLEDGED for message in sent)

        wait_for(arrived, "the messages to arrive")

    def prompts(self) -> list[str]:
        """Everything that was submitted to the agent, by its own transcript."""
        path = transcripts.find(self.agent.config_dir, self.agent.conversation_id)
        return list(transcripts.prompts(path)) if path else []

    def times_received(self, message: Message) -> int:
        """How often the agent has got a message, once it has ended its turn."""
        self.wait_for_state(AgentState.IDLE)
        framed = framing.frame(message.id, message.sender, message.body)
        assert sum(framing.head(message.id, message.sender) in prompt for prompt in self.prompts()) == sum(
            prompt == framed for prompt in self.prompts()
        ), "a part of it was received"
        return self.prompts().count(framed)

    def type(self, *keys: str) -> None:
        assert self.agent.pane_id
        self.tmux.run("send-keys", "-t", self.agent.pane_id, *keys)

    def draft(self) -> str:
        assert self.agent.pane_id
        return screens.read(self.tmux.look(self.agent.pane_id).screen).draft

    def wait_for_state(self, state: AgentState) -> None:
        wait_for(lambda: agents.state_of(self.agent) is state, f"the agent to be {state}")

    def kill(self) -> None:
        assert self.agent.process
        os.kill(self.agent.process.pid, signal.SIGKILL)
        self.wait_for_state(AgentState.GONE)


@pytest.fixture
def crew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    monkeypatch.setenv("HOME", bench.environment["HOME"])
    monkeypatch.setenv("TMUX_ORCHESTRATOR_REHEARSAL_PACE", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("TMUX", "TMUX_PANE"):
        monkeypatch.delenv(name, raising=False)
    db = store.connect(bench.home)
    agent = start(db, bench, a_team(db, "developer", home=bench.home)[0])
    yield Crew(bench, delivery.Desk(db, bench.tmux, bench.home), agent)
    db.close()


def start(db: object, bench: Bench, agent: Agent) -> Agent:
    """Start a recorded agent as a launch does, without a worktree of git and a briefing."""
    desk = delivery.Desk(store.connect(bench.home), bench.tmux, bench.home)
    agent.worktree.mkdir(parents=True, exist_ok=True)
    bench.tmux.new_session(agent.session, orchestration=agent.orchestration_id or "")
    agent = agents.start_epoch(desk.db, agent.id, conversation_id=agent.conversation_id)
    starting.write_launch_files(
        agent, home=bench.home, socket=bench.tmux.socket, role_text="You are a rehearsal.", reminder="Go on."
    )
    installation = installed.rehearsal(bench.home)
    assert installation.program is Program.REHEARSAL
    pane, pid = bench.tmux.new_window(
        agent.session,
        index=agent.window,
        name=agent.role,
        cwd=agent.worktree,
        agent=agent.id,
        argv=starting.launch_command(
            installation, agent, Settings(), home=bench.home, socket=bench.tmux.socket, resume=False
        ),
        replace=None,
    )
    process = host.process(pid)
    assert process
    agent = agents.started(desk.db, agent.id, pane_id=pane, process=process)
    wait_for(lambda: agents.state_of(agent) is AgentState.IDLE, "the agent to be idle")
    wait_for(
        lambda: screens.read(bench.tmux.look(pane).screen).kind is screens.ScreenKind.COMPOSER, "the agent's composer"
    )
    return agent


class TestIdle:
    def test_a_message_arrives_once_and_is_proved(self, crew: Crew) -> None:
        message = crew.send("hello")
        assert message.status is MessageStatus.ACKNOWLEDGED
        assert (message.attempts, crew.times_received(message)) == (1, 1)
        assert message.queued_at <= (message.pasted_at or 0) <= (message.submitted_at or 0)
        assert message.acknowledged_at and message.acknowledged_at - message.queued_at < 10_000

    @pytest.mark.parametrize(
        "body",
        [
            "Enter",
            "/clear",
            "!touch PWNED",
            "ends in a backslash \\",
            "see @/etc/hosts",
            "$(touch PWNED) `id`; 'x'",
            "one\n\n\ntwo\n",
            "".join(f"line {number}: it's päste ✓ 日本語\n" for number in range(200)),
        ],
        ids=range(8),
    )
    def test_a_hostile_text_arrives_as_it_is(self, crew: Crew, body: str) -> None:
        message = crew.send(body)
        assert message.status is MessageStatus.ACKNOWLEDGED
        assert crew.times_received(message) == 1
        assert list(crew.agent.worktree.glob("PWNED")) == []

    def test_somebody_who_scrolls_back_is_not_disturbed(self, crew: Crew) -> None:
        assert crew.agent.pane_id
        crew.tmux.run("copy-mode", "-t", crew.agent.pane_id)
        message = crew.send("one\ntwo\nthree")
        look = crew.tmux.look(crew.agent.pane_id)
        assert look.in_mode
        if look.is_frozen:
            assert message.status is MessageStatus.QUEUED and "somebody reads" in (message.reason or "")
            crew.tmux.run("send-keys", "-t", crew.agent.pane_id, "-X", "cancel")
            crew.beat_until_arrived(message)
        assert crew.get(message).status is MessageStatus.ACKNOWLEDGED
        assert crew.times_received(message) == 1

    def test_messages_without_waiting_arrive_in_their_order(self, crew: Crew) -> None:
        sent = [crew.queue(f"text {number}") for number in range(5)]
        crew.beat_until_arrived(*sent)
        crew.wait_for_state(AgentState.IDLE)
        assert crew.prompts() == [framing.frame(one.id, one.sender, one.body) for one in sent]


class TestInTheWay:
    def test_a_busy_agent_gets_it_after_its_turn_and_once(self, crew: Crew) -> None:
        first = crew.send("rehearse: busy 1.5")
        crew.wait_for_state(AgentState.WORKING)
        second = crew.send("later", seconds=0.3)
        assert (second.status, second.reason, second.attempts) == (MessageStatus.QUEUED, "developer is working", 0)
        assert crew.draft() == ""
        crew.beat_until_arrived(second)
        assert [crew.times_received(first), crew.times_received(second)] == [1, 1]
        assert crew.get(second).attempts == 1

    def test_a_half_typed_draft_is_not_merged_into(self, crew: Crew) -> None:
        crew.type("-l", "half a thought")
        wait_for(crew.draft, "the draft")
        message = crew.send("hello", seconds=3)
        if message.status is MessageStatus.QUEUED:
            assert "typing" in (message.reason or "")
            assert crew.draft() == "half a thought"
            crew.type("Enter")
            crew.beat_until_arrived(message)
        assert crew.times_received(message) == 1
        assert set(crew.prompts()) <= {"half a thought", framing.frame(message.id, "tester", "hello")}

    def test_a_dialog_gets_no_key(self, crew: Crew) -> None:
        crew.send("rehearse: ask")
        crew.wait_for_state(AgentState.ASKING)
        message = crew.send("hello", seconds=0.5)
        assert message.status is MessageStatus.QUEUED
        assert message.reason == "developer waits for an answer in its window"
        crew.beat()
        assert agents.state_of(crew.agent) is AgentState.ASKING
        crew.type("2")
        crew.beat_until_arrived(message)
        assert crew.times_received(message) == 1

    def test_a_dialog_that_opens_after_the_paste_gets_no_enter(
        self, crew: Crew, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pressed: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(composer.Composer, "submit", lambda self: pressed.append("enter"))
            state = agents.state_of
            asking = iter([False, False])
            patch.setattr(
                agents, "state_of", lambda one: state(one) if next(asking, True) is False else AgentState.ASKING
            )
            message = crew.send("hello", seconds=0.5)
        assert pressed == []
        assert message.status is MessageStatus.PASTED
        crew.beat_until_arrived(message)
        assert (crew.times_received(message), crew.get(message).attempts) == (1, 1)

    def test_an_agent_that_is_gone_is_said_and_nothing_is_recorded(self, crew: Crew) -> None:
        crew.kill()
        with pytest.raises(Unavailable, match="is gone"):
            crew.send("hello")
        assert messages.agents_with_pending(crew.desk.db) == []

    def test_an_agent_that_dies_between_the_look_and_the_paste_gets_nothing_and_the_server_lives(
        self, crew: Crew, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put = composer.Composer.put

        def die_first(self: composer.Composer, chunks: Iterator[str]) -> None:
            crew.kill()
            put(self, chunks)

        monkeypatch.setattr(composer.Composer, "put", die_first)
        monkeypatch.setattr(delivery, "_SHOWN_WITHIN_SECONDS", 0.3)
        message = crew.send("hello", seconds=1)
        assert message.status is MessageStatus.PASTED
        assert crew.agent.pane_id and crew.tmux.look(crew.agent.pane_id).dead
        assert crew.prompts() == []
        crew.beat()
        assert (crew.get(message).status, crew.get(message).attempts) == (MessageStatus.PASTED, 1)

    def test_a_shell_in_the_place_of_the_agent_gets_nothing(self, crew: Crew) -> None:
        message = crew.queue("touch PWNED")
        crew.kill()
        assert crew.agent.pane_id
        crew.tmux.run("respawn-pane", "-k", "-t", crew.agent.pane_id, "-c", str(crew.agent.worktree), "sh")
        for _ in range(3):
            crew.beat()
        delivery.deliver(crew.desk, crew.agent, wait_seconds=0.2)
        assert crew.get(message).status is MessageStatus.QUEUED
        assert crew.get(message).reason == "developer is gone"
        assert "msg" not in crew.tmux.look(crew.agent.pane_id).screen
        assert list(crew.agent.worktree.iterdir()) == []

    def test_what_an_older_look_knew_of_the_agent_reaches_nobody(self, crew: Crew) -> None:
        assert crew.agent.process
        old = replace(crew.agent, process=replace(crew.agent.process, started=crew.agent.process.started - 1))
        message = crew.queue("hello")
        delivery.deliver(crew.desk, old, wait_seconds=0.2)
        assert crew.get(message).status is MessageStatus.QUEUED
        assert crew.prompts() == []


#: Sends one message, and is killed at a step.
DIES = """
import os, signal, sys
from pathlib import Path
from lib import agents, composer, delivery, messages, store
from lib.tmux import Tmux

def die(*words, **more):
    os.kill(os.getpid(), signal.SIGKILL)

def die_after(step):
    def then(*words, **more):
        step(*words, **more)
        die()
    return then

home, socket, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
Composer = composer.Composer
match step:
    case "recorded":
        delivery.deliver = die
    case "pasting":
        Composer.put = die
    case "pasted":
        Composer.put = die_after(Composer.put)
    case "shown":
        messages.submitting = die
    case "submitting":
        Composer.submit = die
    case "submitted":
        Composer.submit = die_after(Composer.submit)
    case "acknowledged":
        messages.acknowledge = die
db = store.connect(home)
delivery.send(delivery.Desk(db, Tmux(socket), home), agents.get(db, 1), "one\\ntwo", sender="tester", wait_seconds=20)
"""
STEPS = ["recorded", "pasting", "pasted", "shown", "submitting", "submitted", "acknowledged"]


@pytest.mark.parametrize("step", STEPS)
def test_a_sender_that_is_killed_at_any_step_leaves_a_message_that_arrives_once(
    crew: Crew, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", DIES, str(crew.desk.home), str(crew.tmux.socket), step]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (message,) = (messages.get(crew.desk.db, row["id"]) for row in crew.bench.rows("SELECT id FROM messages"))
    monkeypatch.setattr(delivery, "_LOST_AFTER_MS", 1000)
    crew.beat_until_arrived(message)
    crew.wait_for_state(AgentState.IDLE)
    for _ in range(3):
        crew.beat()
    assert crew.times_received(message) == 1
    assert len(crew.prompts()) == 1
    assert crew.get(message).attempts == (2 if step == "pasting" else 1)


SENDS = """
import sys
from pathlib import Path
from lib import agents, delivery, store
from lib.tmux import Tmux
home = Path(sys.argv[1])
db = store.connect(home)
sys.stdin.read(1)
body = f"from sender {sys.argv[3]}"
delivery.send(delivery.Desk(db, Tmux(sys.argv[2]), home), agents.get(db, 1), body, sender="tester", wait_seconds=30)
"""


def test_many_senders_at_once_reach_the_agent_once_each_and_in_order(crew: Crew) -> None:
    command = [sys.executable, "-c", SENDS, str(crew.desk.home), str(crew.tmux.socket)]
    started = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(20)
    ]
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(0.1):
            db = store.connect(crew.desk.home)
            daemon.tick(db, crew.tmux, crew.desk.home, now=host.now_ms())
            db.close()

    beating = threading.Thread(target=beat)
    beating.start()
    for process in started:
        assert process.stdin
        process.stdin.write("!")
        process.stdin.flush()
    assert [process.communicate(timeout=90)[1] for process in started] == [""] * 20
    stopped.set()
    beating.join()
    made = [messages.get(crew.desk.db, row["id"]) for row in crew.bench.rows("SELECT id FROM messages ORDER BY id")]
    assert len(made) == 20
    crew.beat_until_arrived(*made)
    crew.wait_for_state(AgentState.IDLE)
    assert crew.prompts() == [framing.frame(one.id, one.sender, one.body) for one in made]
    assert {crew.get(one).attempts for one in made} == {1}


def test_who_delivers_holds_the_agent_for_itself(crew: Crew) -> None:
    message = crew.queue("hello")
    with host.lock(crew.desk.home / "locks" / f"agent-{crew.agent.id}.lock"):
        began = time.monotonic()
        delivery.deliver(crew.desk, crew.agent, until=message.id, wait_seconds=0.3)
        assert time.monotonic() - began >= 0.3
        assert crew.get(message).status is MessageStatus.QUEUED
    delivery.deliver(crew.desk, crew.agent, until=message.id, wait_seconds=20)
    assert crew.get(message).status is MessageStatus.ACKNOWLEDGED
