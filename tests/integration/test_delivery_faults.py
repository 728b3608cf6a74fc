"""Delivery when something ends in the middle of it: the sender, the daemon, the agent, the tmux server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import agents, delivery, host, messages
from lib.claude import transcripts
from lib.judgement import cleaning, framing, screens
from lib.models import Agent, Message, MessageKind, MessageStatus, Priority
from lib.tmux import Tmux
from tests.conftest import ROOT, Bench, isolated, wait_for

TARGET = "webapp-impl:orchestrator"

#: A sender that ends at a step, with no chance to tidy up: `before` or `after` the call of a function.
DYING_SENDER = """
import os, sys
from lib import agents, delivery, messages, signals, store
from lib.config import state_home
from lib.tmux import Tmux

target, body, place, moment, name, ending = sys.argv[1:7]
room = {"messages": messages, "Tmux": Tmux, "signals": signals}[place]
real = getattr(room, name)
calls = 0

def dying(*arguments, **named):
    global calls
    calls += 1
    if calls < int(ending):
        return real(*arguments, **named)
    if moment == "after":
        real(*arguments, **named)
    os._exit(9)

db, tmux, home = store.connect(state_home()), Tmux.from_environment(), state_home()
agent = agents.resolve(db, tmux, target)
setattr(room, name, dying)
delivery.send(delivery.Desk(db, tmux, home), agent, body, sender="user", wait_seconds=5)
"""

STEPS = [
    # (where, moment, function, the how-manieth call, whether the message is recorded by then)
    ("messages", "before", "queue", 1, False),
    ("messages", "after", "queue", 1, True),
    ("messages", "before", "pasting", 1, True),
    ("messages", "after", "pasting", 1, True),
    ("Tmux", "after", "paste", 1, True),
    ("messages", "before", "submitting", 1, True),
    ("messages", "after", "submitting", 1, True),
    ("Tmux", "after", "press", 1, True),
    # the first call is the look before anything is typed
    ("signals", "before", "ingest", 2, True),
    ("signals", "after", "ingest", 2, True),
]


class Team:
    """One rehearsal agent without a daemon: what delivers is the test."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        settings_file = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        settings_file.parent.mkdir(parents=True)
        settings_file.write_text("auto_start: false\nmessages_per_minute: 100000\n")
        self.project = bench.project()
        spec = str(self.project / "spec.md")
        bench.ok("auto_orchestrate.py", "--spec", spec, "--agent", "rehearsal", "--roles", "orchestrator")
        # A team of one is soon done with its spec; a team that has ended is not brought back by --resume.
        wait_for(lambda: bench.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"), "the rehearsal's end")
        db = bench.db()
        db.execute("UPDATE orchestrations SET status = 'running'")
        db.close()
        self.await_idle()

    @property
    def agent(self) -> Agent:
        db = self.bench.db()
        try:
            return agents.get(db, 1)
        finally:
            db.close()

    def await_idle(self) -> None:
        wait_for(lambda: str(agents.state_of(self.agent)) == "idle", "the agent to be idle")

    def deliver(self, *, wait_seconds: float = 5.0) -> None:
        db = self.bench.db()
        try:
            desk = delivery.Desk(db, self.bench.tmux, self.bench.home)
            delivery.deliver(desk, agents.get(db, 1), wait_seconds=wait_seconds)
        finally:
            db.close()

    def send(self, body: str, *, priority: Priority = Priority.NORMAL, wait_seconds: float = 20.0) -> Message:
        db = self.bench.db()
        try:
            desk = delivery.Desk(db, self.bench.tmux, self.bench.home)
            return delivery.send(
                desk, agents.get(db, 1), body, sender="user", wait_seconds=wait_seconds, priority=priority
            )
        finally:
            db.close()

    def draft(self) -> str:
        return screens.read(self.bench.tmux.look(str(self.agent.pane_id)).screen).draft

    def paste(self, text: str) -> None:
        """What somebody has pasted before, and nobody has submitted."""
        agent = self.agent
        assert agent.pane_id and agent.pane_pid
        self.bench.tmux.paste(agent.pane_id, agent.pane_pid, list(framing.chunks(text)))
        wait_for(lambda: screens.ends_with_line(self.draft(), text.rpartition("\n")[2]), "the paste to be shown")

    def empty_composer(self) -> None:
        """Ctrl+C; pressed twice within two seconds it would end the agent."""
        time.sleep(2.0)
        self.bench.tmux.run("send-keys", "-t", str(self.agent.pane_id), "C-c")
        wait_for(lambda: not self.draft(), "an empty composer")

    def await_settled(self, message_id: int) -> dict[str, Any]:
        """Deliver again and again, as the daemon does, until nothing is pending."""

        def settled() -> dict[str, Any] | None:
            self.deliver()
            row = self.message(message_id)
            return row if row["status"] in ("acknowledged", "failed", "cancelled") else None

        row = wait_for(settled, f"message {message_id} to be settled", seconds=60)
        assert row
        return row

    def message(self, message_id: int) -> dict[str, Any]:
        return self.bench.rows("SELECT * FROM messages WHERE id = ?", message_id)[0]

    def prompts(self) -> list[str]:
        """What the agent has been told in all its lives, as its own transcript holds it."""
        path = transcripts.find(self.agent.config_dir, self.agent.conversation_id)
        lines = list(transcripts.entries(path, 0)) if path else []
        return [str(line["message"]["content"]) for line in lines if line.get("type") == "user"]

    def times(self, message_id: int) -> int:
        """How often the agent has been told a message; it has been once, or will be soon: its hook comes first."""
        mark = f"[msg {message_id} from "
        return wait_for(lambda: sum(mark in prompt for prompt in self.prompts()), f"{mark} in the transcript")

    def die_at(self, body: str, place: str, moment: str, name: str, call: int) -> None:
        died = self.bench.python(DYING_SENDER, TARGET, body, place, moment, name, str(call))
        assert died.code == 9


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with isolated(tmp_path_factory.mktemp("faults")) as bench:
        yield Team(bench)


@pytest.fixture
def own_team(bench: Bench) -> Team:
    """For what ends the agent or the server."""
    return Team(bench)


@pytest.mark.parametrize(("place", "moment", "name", "call", "is_recorded"), STEPS)
def test_a_sender_that_dies_loses_nothing_and_submits_nothing_twice(
    team: Team, place: str, moment: str, name: str, call: int, is_recorded: bool
) -> None:
    team.await_idle()
    count = team.bench.rows("SELECT count(*) AS count FROM messages")[0]["count"]
    body = f"Died {moment} {name}\n    with $(touch PWNED) and 'quotes'"
    team.die_at(body, place, moment, name, call)
    rows = team.bench.rows("SELECT * FROM messages WHERE body = ?", body)
    assert team.bench.rows("SELECT count(*) AS count FROM messages")[0]["count"] == count + len(rows)
    assert len(rows) == is_recorded
    if rows:
        row = team.await_settled(rows[0]["id"])
        assert row["status"] == "acknowledged"
        assert team.times(row["id"]) == 1
        assert framing.frame(row["id"], "user", body) in team.prompts()
    # Whatever was left of it, the next message comes through clean.
    team.await_idle()
    after = team.send("What comes after it")
    assert after.status is MessageStatus.ACKNOWLEDGED
    assert team.times(after.id) == 1
    assert framing.frame(after.id, "user", "What comes after it") in team.prompts()


@given(
    st.one_of(
        st.text(min_size=1, max_size=3000),
        st.text(
            alphabet=st.sampled_from("/!#@-;\\'\"$`(){}~%*? \t\n\r\x1b[]<>é\u0301\u200d\ufe0f\U0001f469"), min_size=1
        ),
        st.text(alphabet="ab \n", min_size=1, max_size=2000).map(lambda text: text * 5),
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_body_arrives_as_it_is_recorded(team: Team, body: str) -> None:
    team.await_idle()
    cleaned = cleaning.clean(body)
    if not cleaned.strip():
        return
    message = team.send(body)
    assert (message.status, message.attempts, message.body) == (MessageStatus.ACKNOWLEDGED, 1, cleaned)
    framed = framing.frame(message.id, "user", cleaned)
    assert team.times(message.id) == 1
    assert framed in team.prompts()


def test_two_senders_at_once_do_not_mix(team: Team) -> None:
    team.await_idle()
    bodies = [f"from {sender}, number {number}:\n" + f"{sender}" * 900 for sender in "ab" for number in range(4)]
    senders = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "claude_control.py"), "send", TARGET, body, "--wait", "20"],
            env=team.bench.environment,
            stdout=subprocess.DEVNULL,
        )
        for body in bodies
    ]
    assert [sender.wait() for sender in senders] == [0] * len(bodies)
    for body in bodies:
        row = team.bench.rows("SELECT * FROM messages WHERE body = ?", body)[0]
        row = team.await_settled(row["id"])
        assert (row["status"], row["attempts"]) == ("acknowledged", 1)
        assert team.times(row["id"]) == 1
        assert framing.frame(row["id"], "user", body) in team.prompts()


def test_order_is_by_priority_and_then_by_age(team: Team) -> None:
    team.await_idle()
    team.send("rehearse: busy 2")
    wait_for(lambda: str(agents.state_of(team.agent)) == "working", "the agent to work")
    sent = [
        team.send(f"number {number}", priority=priority, wait_seconds=0.2)
        for number, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL))
    ]
    assert {(message.status, message.reason) for message in sent} == {(MessageStatus.QUEUED, "orchestrator is working")}
    for message in sent:
        team.await_settled(message.id)

    def heads() -> list[str]:
        return [prompt.splitlines()[1] for prompt in team.prompts() if "\nnumber " in prompt]

    # The hook acknowledges before the transcript has it.
    wait_for(lambda: len(heads()) == len(sent), "all in the transcript")
    assert heads() == ["number 2", "number 1", "number 3", "number 0"]


def test_a_draft_is_put_aside_and_comes_back(team: Team) -> None:
    team.await_idle()
    pane = str(team.agent.pane_id)

    def draft() -> str:
        return screens.read(team.bench.tmux.look(pane).screen).draft

    team.bench.tmux.run("send-keys", "-t", pane, "-l", "half a thought")
    wait_for(lambda: draft() == "half a thought", "the draft")
    message = team.send("Excuse me")
    assert message.status is MessageStatus.ACKNOWLEDGED
    assert team.times(message.id) == 1
    wait_for(lambda: draft() == "half a thought", "the draft to come back")
    team.bench.tmux.run("send-keys", "-t", pane, "C-c")
    wait_for(lambda: not draft(), "an empty composer")


def test_enter_is_not_pressed_again_right_after_somebody_has_pressed_it(team: Team) -> None:
    """Its window may not show it yet, and the next Enter would submit a draft that comes back after the first."""
    team.await_idle()
    db = team.bench.db()
    message = messages.queue(db, team.agent, "Once", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
    assert messages.pasting(db, message, team.agent, now=host.now_ms())
    team.paste(framing.frame(message.id, "user", "Once"))
    messages.submitting(db, message, team.agent, now=host.now_ms())
    team.deliver(wait_seconds=0.0)
    assert framing.framed_in(team.draft()) == [message.id]
    assert team.await_settled(message.id)["status"] == "acknowledged"
    assert team.times(message.id) == 1
    db.close()


class TestAPasteThatIsShownLongAfterItWasGivenUp:
    """A window that has stood still shows what was pasted to it when nobody counts on that any more."""

    def test_it_is_submitted_when_it_still_waits(self, team: Team) -> None:
        team.await_idle()
        db = team.bench.db()
        message = messages.queue(db, team.agent, "Late", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        assert messages.pasting(db, message, team.agent, now=host.now_ms())
        messages.requeue(db, messages.get(db, message.id), team.agent, "not in the composer", now=host.now_ms())
        team.paste(framing.frame(message.id, "user", "Late"))
        assert team.await_settled(message.id)["status"] == "acknowledged"
        assert team.times(message.id) == 1
        db.close()

    def test_it_is_put_aside_when_the_message_has_become_part_of_a_digest(self, team: Team) -> None:
        team.await_idle()
        db = team.bench.db()
        one, two = (
            messages.queue(db, team.agent, body, sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
            for body in ("One", "Two")
        )
        assert messages.pasting(db, one, team.agent, now=host.now_ms())
        messages.requeue(db, messages.get(db, one.id), team.agent, "not in the composer", now=host.now_ms())
        messages.hold_back(db, team.agent, "limited", now=host.now_ms())
        team.paste(framing.frame(one.id, "user", "One"))
        assert [team.await_settled(each.id)["status"] for each in (one, two)] == ["acknowledged", "acknowledged"]
        db.close()
        team.empty_composer()

    def test_it_is_put_aside_when_the_message_is_over(self, team: Team) -> None:
        team.await_idle()
        first = team.send("First")
        assert first.status is MessageStatus.ACKNOWLEDGED
        team.await_idle()
        team.paste(framing.frame(first.id, "user", "First"))
        second = team.send("Second")
        assert second.status is MessageStatus.ACKNOWLEDGED
        assert (team.times(first.id), team.times(second.id)) == (1, 1)
        team.empty_composer()


def test_a_slash_command_is_proved_by_the_transcript_or_given_up(team: Team) -> None:
    team.await_idle()
    done = team.bench.ok("claude_control.py", "send", TARGET, "--command", "/compact")
    assert done.out.startswith("acknowledged in ")
    assert sum("<command-name>/compact</command-name>" in prompt for prompt in team.prompts()) == 1
    done = team.bench.ok("claude_control.py", "send", TARGET, "--command", "/no-such-command", "--wait", "1")
    assert done.out.startswith("submitted: delivered, not confirmed")
    number = team.bench.rows("SELECT max(id) AS id FROM messages")[0]["id"]
    row = team.await_settled(number)
    assert (row["status"], row["reason"]) == ("failed", "orchestrator gave no sign of having run it")
    assert team.send("And on it goes").status is MessageStatus.ACKNOWLEDGED


def test_an_agent_killed_with_a_message_in_its_composer_gets_it_once_after_the_resume(own_team: Team) -> None:
    own_team.die_at("Before the end", "Tmux", "after", "paste", 1)
    process = own_team.agent.process
    assert process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: host.process(process.pid) is None, "the agent's end")
    message_id = own_team.bench.rows("SELECT max(id) AS id FROM messages")[0]["id"]
    own_team.deliver()
    assert own_team.message(message_id)["reason"] == "orchestrator is gone"
    own_team.bench.ok("auto_orchestrate.py", "--project", str(own_team.project), "--resume")
    assert own_team.await_settled(message_id)["status"] == "acknowledged"
    assert own_team.times(message_id) == 1


def test_what_an_agent_had_accepted_and_not_read_comes_again_after_its_resume(own_team: Team) -> None:
    own_team.send("rehearse: busy 60")
    wait_for(lambda: str(agents.state_of(own_team.agent)) == "working", "the agent to work")
    message = own_team.send("Read me", priority=Priority.EMERGENCY)
    assert message.status is MessageStatus.ACKNOWLEDGED
    process = own_team.agent.process
    assert process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: host.process(process.pid) is None, "the agent's end")
    own_team.bench.ok("auto_orchestrate.py", "--project", str(own_team.project), "--resume")
    assert own_team.message(message.id)["status"] != "failed"
    own_team.bench.ok("claude_control.py", "send", TARGET, "rehearse: busy 0", "--interrupt")
    row = own_team.await_settled(message.id)
    assert (row["status"], row["attempts"]) == ("acknowledged", 2)
    assert own_team.times(message.id) == 1


def test_a_briefing_that_was_given_up_comes_with_the_next_resume(own_team: Team) -> None:
    own_team.await_idle()
    db = own_team.bench.db()
    db.execute("UPDATE messages SET status = 'failed', reason = 'lost 3 times' WHERE kind = 'briefing'")
    db.close()
    own_team.bench.ok("auto_orchestrate.py", "--project", str(own_team.project), "--resume")
    assert own_team.message(1)["status"] == "acknowledged"


def test_a_tmux_server_that_is_killed_loses_no_message(own_team: Team) -> None:
    own_team.die_at("Through the end of the server", "messages", "after", "submitting", 1)
    process = own_team.agent.process
    assert process
    own_team.bench.tmux.run("kill-server")
    wait_for(lambda: host.process(process.pid) is None, "the agent's end")
    message_id = own_team.bench.rows("SELECT max(id) AS id FROM messages")[0]["id"]
    own_team.deliver()
    done = own_team.bench.door("claude_control.py", "send", TARGET, "To nobody")
    assert done.code == 5
    own_team.bench.ok("auto_orchestrate.py", "--project", str(own_team.project), "--resume")
    assert own_team.await_settled(message_id)["status"] == "acknowledged"
    assert own_team.times(message_id) == 1


def test_a_server_that_ends_between_the_look_and_the_paste_loses_no_message(
    own_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tmux.paste

    def after_the_end(tmux: Tmux, *arguments: Any, **named: Any) -> None:
        tmux.run("kill-server")
        real(tmux, *arguments, **named)

    monkeypatch.setattr(Tmux, "paste", after_the_end)
    message = own_team.send("Into the void", wait_seconds=1)
    monkeypatch.undo()
    assert (message.status, message.reason) == (MessageStatus.PASTED, "orchestrator's window has gone")
    own_team.bench.ok("auto_orchestrate.py", "--project", str(own_team.project), "--resume")
    assert own_team.await_settled(message.id)["status"] == "acknowledged"
    assert own_team.times(message.id) == 1


def test_a_daemon_that_is_killed_in_a_delivery_is_followed_by_one_that_settles_it(own_team: Team) -> None:
    own_team.send("rehearse: busy 2")
    wait_for(lambda: str(agents.state_of(own_team.agent)) == "working", "the agent to work")
    sent = [own_team.send(f"Number {number}", wait_seconds=0.1) for number in range(6)]
    bench = own_team.bench

    def pastes() -> int:
        return int(bench.rows("SELECT count(*) AS count FROM events WHERE kind = 'message.pasted'")[0]["count"])

    for _ in range(3):
        before = pastes()
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler.py"), "--daemon"],
            env=bench.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda before=before: pastes() > before, "a paste")  # type: ignore[misc]
        child.kill()
        child.wait()
    for message in sent:
        assert own_team.await_settled(message.id)["status"] == "acknowledged"
        assert own_team.times(message.id) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "stdin", "code"),
        [
            # Nothing to say.
            ((TARGET, ""), "", 2),
            ((TARGET, "-"), " \n\t", 2),
            # Nothing but what no terminal carries.
            ((TARGET, "-"), "\x1b[31m\x07", 2),
            ((TARGET,), "", 2),
            ((), "", 2),
            (("webapp-impl:nobody", "Hello"), "", 3),
            (("%77777", "Hello"), "", 3),
            ((TARGET, "--file", "no-such-file"), "", 2),
        ],
    )
    def test_it_is_refused_with_a_sentence(self, team: Team, arguments: tuple[str, ...], stdin: str, code: int) -> None:
        team.await_idle()
        before = team.bench.screen(str(team.agent.pane_id))
        done = team.bench.door("claude_control.py", "send", *arguments, stdin=stdin)
        assert done.code in (code, 1) if "--file" in arguments else done.code == code
        assert done.err.strip()
        assert "Traceback" not in done.err
        assert team.bench.screen(str(team.agent.pane_id)) == before

    def test_a_file_that_is_no_text_is_refused(self, team: Team, tmp_path: Path) -> None:
        path = tmp_path / "picture"
        path.write_bytes(b"\x89PNG\xff\xfe")
        done = team.bench.door("claude_control.py", "send", TARGET, "--file", str(path))
        assert (done.code, "is not UTF-8 text" in done.err) == (1, True)

    def test_a_broken_ledger_is_named(self, bench: Bench) -> None:
        bench.home.mkdir()
        (bench.home / "orchestrator.db").write_bytes(b"this is no database at all" * 100)
        done = bench.door("claude_control.py", "send", TARGET, "Hello")
        assert done.code == 5
        assert str(bench.home / "orchestrator.db") in done.err

    def test_without_a_tmux_server_nobody_is_there(self, bench: Bench) -> None:
        done = bench.door("claude_control.py", "send", "webapp-impl:1", "Hello")
        assert done.code == 3
        assert "no agent at 'webapp-impl:1'" in done.err
