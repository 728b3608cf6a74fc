"""Hub and spoke: who gets a copy, what the policy stops or turns, and what the log says of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib import agents, delivery, host, hub, messages, store
from lib.errors import ExitCode, OrchestratorError, Unavailable, Usage
from lib.front.times import time_of
from lib.models import Agent, MessageKind, MessageStatus, Priority
from lib.tmux import Tmux
from tests.agents import a_team
from tests.conftest import ROOT, Bench, Done, isolated, wait_for

ROLES = ("orchestrator", "developer", "tester", "sysadmin")
NEWS = "Deployed v1.2 to staging"

POLICY = """
rules:
  - {name: testers-ask-first, from: tester, to: sysadmin, action: refuse}
  - {name: host-by-the-hub, from: "*", to: sysadmin, action: hub}
"""


class Team:
    """A team of which only the rows are there; its process is that of the tests, so that it counts as alive."""

    def __init__(self, folder: Path, *roles: str, name: str = "webapp") -> None:
        self.db = store.connect(folder)
        self.desk = delivery.Desk(self.db, Tmux("no-such-server"), folder)
        self.members = {agent.role: self._alive(agent) for agent in a_team(self.db, *roles, name=name, per_minute=3)}

    def _alive(self, agent: Agent) -> Agent:
        process = host.process(os.getpid())
        assert process
        return agents.started(self.db, agent.id, pane_id=f"%{agent.id}", process=process)

    def send(self, sender: str, recipient: str | Agent, body: str, **changed: Any) -> hub.Sent:
        caller = self.members.get(sender)
        agent = self.members[recipient] if isinstance(recipient, str) else recipient
        options: dict[str, Any] = {"wait_seconds": 0.0, "caller": caller, "sender": sender} | changed
        return hub.send(self.desk, agent, body, **options)

    def rows(self) -> list[tuple[str, str, str]]:
        """What has been recorded: to whom, from whom, of which kind."""
        found = self.db.execute(
            "SELECT role, sender, kind FROM messages JOIN agents ON agents.id = agent_id ORDER BY messages.id"
        )
        return [tuple(row) for row in found]

    def log(self) -> list[dict[str, object]]:
        return [event.data for event in hub.compliance(self.db, since=0)]


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the policy would be; there is none until the test writes it."""
    monkeypatch.setenv("TMUX_ORCHESTRATOR_CONFIG", str(tmp_path / "config.yaml"))
    return tmp_path / "policy.yaml"


@pytest.fixture
def team(tmp_path: Path, policy: Path) -> Iterator[Team]:
    made = Team(tmp_path, *ROLES)
    yield made
    made.db.close()


class TestCopies:
    def test_news_between_two_spokes_goes_to_the_hub_as_well(self, team: Team) -> None:
        sent = team.send("developer", "tester", NEWS, through_hub=True)
        assert team.rows() == [("tester", "developer", "message"), ("orchestrator", "developer", "copy")]
        assert sent.copy
        assert (
            sent.copy.body
            == f"Copy for you: message {sent.message.id} from developer to tester (deployment).\n\n{NEWS}"
        )
        assert sent.message.body == NEWS

    @pytest.mark.parametrize(
        ("sender", "recipient", "body"),
        [
            # No news.
            ("developer", "tester", "Please test the login"),
            ("developer", "tester", "Is the tissue box done yet?"),
            # The hub has it already.
            ("developer", "orchestrator", NEWS),
            # The hub said it.
            ("orchestrator", "developer", "The deploy failed"),
        ],
    )
    def test_there_is_no_copy_of(self, team: Team, sender: str, recipient: str, body: str) -> None:
        sent = team.send(sender, recipient, body, through_hub=True)
        assert sent.copy is None
        assert team.rows() == [(recipient, sender, "message")]
        assert [line["copied"] for line in team.log()] == [False]

    def test_only_through_the_hub(self, team: Team) -> None:
        sent = team.send("developer", "tester", NEWS)
        assert (sent.copy, sent.route) == (None, None)
        assert team.rows() == [("tester", "developer", "message")]
        assert team.log() == []

    def test_the_orchestrator_may_do_without(self, team: Team) -> None:
        assert team.send("developer", "tester", NEWS, through_hub=True, enforce=False).copy is None
        assert team.rows() == [("tester", "developer", "message")]
        assert [(line["class"], line["copied"]) for line in team.log()] == [("deployment", False)]

    def test_what_a_person_sends_goes_to_the_hub_of_the_recipient(self, team: Team) -> None:
        team.send("user", "tester", "The build failed", through_hub=True)
        assert team.rows()[1] == ("orchestrator", "user", "copy")
        assert team.log()[0]["sender"] == "user"

    def test_what_goes_to_another_team_is_copied_to_the_own_hub(self, team: Team, tmp_path: Path) -> None:
        other = Team(tmp_path, "orchestrator", "developer", name="shop")
        sent = team.send("developer", other.members["developer"], NEWS, through_hub=True)
        assert sent.copy and sent.copy.agent_id == team.members["orchestrator"].id
        other.db.close()

    def test_a_command_is_no_news(self, team: Team) -> None:
        sent = team.send("developer", "tester", "/goal deployment done", through_hub=True, kind=MessageKind.COMMAND)
        assert sent.copy is None

    def test_copies_are_under_the_rate_of_the_hub_whatever_the_message_was(self, team: Team) -> None:
        hub_agent = team.members["orchestrator"]
        for number in range(3):
            sent = team.send(
                "developer", "tester", f"Build {number} failed", through_hub=True, priority=Priority.EMERGENCY
            )
            assert sent.copy and messages.is_under_rate(sent.copy)
            assert messages.next_place(team.db, hub_agent, now=1000) is None
            messages.pasting(team.db, sent.copy, hub_agent, now=1000)
        assert messages.next_place(team.db, hub_agent, now=1000) == 1000 + messages.RATE_WINDOW_MS

    def test_a_hub_that_is_gone_gets_its_copy_when_it_is_back(self, team: Team) -> None:
        hub_agent = team.members["orchestrator"]
        agents.start_epoch(team.db, hub_agent.id, conversation_id=hub_agent.conversation_id)
        sent = team.send("developer", "tester", NEWS, through_hub=True)
        assert sent.copy and sent.copy.status is MessageStatus.QUEUED
        assert sent.copy.reason == "orchestrator is gone; it gets this when the team is resumed"
        assert [found.id for found in messages.pending(team.db, hub_agent.id)] == [sent.copy.id]

    def test_to_an_agent_that_is_gone_nothing_is_sent_and_nothing_logged(self, team: Team) -> None:
        tester = team.members["tester"]
        gone = agents.started(team.db, tester.id, pane_id=f"%{tester.id}", process=host.ended(1))
        with pytest.raises(Unavailable, match="tester is gone"):
            team.send("developer", gone, NEWS, through_hub=True)
        assert (team.rows(), team.log()) == ([], [])

    def test_a_message_its_copy_and_its_line_are_recorded_together(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(store, "record", full)
        with pytest.raises(Unavailable, match="disk is full"):
            team.send("developer", "tester", NEWS, through_hub=True)
        assert team.rows() == []


class TestPolicy:
    def test_an_edge_that_is_forbidden(self, team: Team, policy: Path) -> None:
        policy.write_text(POLICY)
        with pytest.raises(OrchestratorError, match="rule 'testers-ask-first' does not let tester write to sysadmin"):
            team.send("tester", "sysadmin", "Please reboot the host")
        assert team.rows() == []
        (line,) = team.log()
        assert (line["sender"], line["recipient"]) == ("webapp-impl:tester", "webapp-impl:sysadmin")
        assert (line["class"], line["rule"], line["verdict"], line["copied"]) == (
            *("plain", "testers-ask-first"),
            *("refuse", False),
        )

    def test_an_edge_that_goes_through_the_hub(self, team: Team, policy: Path) -> None:
        policy.write_text(POLICY)
        sent = team.send("developer", "sysadmin", "The deploy failed")
        assert sent.is_rerouted
        assert team.rows() == [("orchestrator", "developer", "message")]
        assert sent.message.body == (
            "Message from developer that was meant for sysadmin; the policy's rule 'host-by-the-hub' brings it to you."
            " Hand it on if it should go there.\n\nThe deploy failed"
        )
        (line,) = team.log()
        assert (line["class"], line["rule"], line["verdict"]) == ("failure", "host-by-the-hub", "hub")

    def test_a_command_that_is_rerouted_is_only_read(self, team: Team, policy: Path) -> None:
        policy.write_text(POLICY)
        sent = team.send("developer", "sysadmin", "/clear", kind=MessageKind.COMMAND, interrupt=True)
        assert sent.message.kind is MessageKind.MESSAGE
        assert sent.message.body.endswith("\n\n/clear")

    def test_news_that_is_rerouted_has_no_copy(self, team: Team, policy: Path) -> None:
        policy.write_text(POLICY)
        assert team.send("developer", "sysadmin", NEWS, through_hub=True).copy is None
        assert team.rows() == [("orchestrator", "developer", "message")]
        assert len(team.log()) == 1

    @pytest.mark.parametrize(
        ("sender", "recipient"),
        [
            # No rule about it.
            ("developer", "tester"),
            # The hub itself goes straight.
            ("orchestrator", "sysadmin"),
            # A person is bound by nothing.
            ("user", "sysadmin"),
            # A note to oneself.
            ("sysadmin", "sysadmin"),
        ],
    )
    def test_a_message_that_just_goes(self, team: Team, policy: Path, sender: str, recipient: str) -> None:
        policy.write_text(POLICY)
        assert team.send(sender, recipient, "hello").route is None
        assert team.rows() == [(recipient, sender, "message")]
        assert team.log() == []

    def test_other_teams_and_guests_are_not_the_policys(self, team: Team, policy: Path, tmp_path: Path) -> None:
        policy.write_text(POLICY)
        other = Team(tmp_path, "orchestrator", "sysadmin", name="shop")
        assert team.send("tester", other.members["sysadmin"], "hello").route is None
        other.db.close()

    def test_a_team_without_an_orchestrator_cannot_reroute(self, policy: Path, tmp_path: Path) -> None:
        policy.write_text(POLICY)
        made = Team(tmp_path, "developer", "sysadmin")
        with pytest.raises(OrchestratorError, match=r"host-by-the-hub.*the team has none"):
            made.send("developer", "sysadmin", "hello")
        assert made.rows() == []
        assert [line["verdict"] for line in made.log()] == ["refuse"]
        made.db.close()

    def test_an_empty_message_is_no_matter_of_the_policy(self, team: Team, policy: Path) -> None:
        policy.write_text(POLICY)
        with pytest.raises(Usage, match="empty"):
            team.send("developer", "sysadmin", " \n")
        assert (team.rows(), team.log()) == ([], [])

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (b"rules: [", "policy.yaml is not valid YAML in line 1"),
            (b"rules:\n  - {name: x, from: *, to: tester, action: hub}\n", "policy.yaml is not valid YAML in line 2"),
            (b"caf\xe9", "policy.yaml is not valid YAML: it is not UTF-8 text"),
            (
                b"rules:\n  - {name: x, from: testers, to: sysadmin, action: hub}",
                "rule 'x' names an unknown role 'testers'",
            ),
            (
                b"rules:\n  - {name: x, from: tester, to: sysadmin, action: drop}",
                "rule 'x' has an unknown action 'drop'",
            ),
        ],
    )
    def test_a_policy_that_cannot_be_read_lets_nothing_go(
        self, team: Team, policy: Path, text: bytes, says: str
    ) -> None:
        policy.write_bytes(text)
        with pytest.raises(OrchestratorError, match=says) as refused:
            team.send("developer", "tester", "hello")
        assert str(policy) in refused.value.sentence
        assert team.rows() == []

    def test_the_example_is_a_policy(self) -> None:
        found = hub.read_policy(ROOT / "policy.example.yaml")
        assert [rule.action for rule in found.rules] == ["refuse", "allow", "hub"]


class TestTheLog:
    def test_it_is_of_a_time_and_of_a_team(self, team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = Team(tmp_path, "orchestrator", "developer", "tester", name="shop")
        monkeypatch.setattr(host, "now_ms", lambda: 1000)
        team.send("developer", "tester", "one", through_hub=True)
        monkeypatch.setattr(host, "now_ms", lambda: 2000)
        other.send("developer", "tester", "two", through_hub=True)

        def texts(**which: Any) -> list[str]:
            return [messages.get(team.db, event.message_id or 0).body for event in hub.compliance(team.db, **which)]

        assert texts(since=0) == ["one", "two"]
        assert texts(since=1001) == ["two"]
        assert texts(since=0, session="webapp-impl") == ["one"]
        assert texts(since=0, session="webapp") == []
        other.db.close()

    def test_more_than_a_thousand_lines_are_all_there(self, team: Team) -> None:
        with store.writing(team.db):
            for number in range(1500):
                store.record(team.db, hub.ROUTED, now=number, sender="user", recipient="webapp-impl:tester")
        assert len(hub.compliance(team.db, since=0)) == 1500


DAY = 86_400_000
MOMENTS = [
    ("1d", 10 * DAY, 9 * DAY),
    ("2h", 10 * DAY, 10 * DAY - 7_200_000),
    ("30m", 10 * DAY, 10 * DAY - 1_800_000),
    ("2w", 20 * DAY, 6 * DAY),
    ("0m", DAY, DAY),
    # An ISO time, with its zone.
    ("1970-01-02T00:00:00Z", 10 * DAY, DAY),
    ("1970-01-02T01:00:00+01:00", 10 * DAY, DAY),
]


@pytest.mark.parametrize(("text", "now", "at"), MOMENTS)
def test_a_moment_is_read(text: str, now: int, at: int) -> None:
    assert time_of(text, now=now) == at


@pytest.mark.parametrize("text", ["", "1", "d", "1y", "-1d", "1.5h", "²d", "yesterday", "9999999d", "2030-13-01"])
def test_a_moment_that_is_none(text: str) -> None:
    with pytest.raises(Usage, match="TIME must be like"):
        time_of(text, now=DAY)


# -- with agents that run --


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A team of rehearsal agents that has done its work, is idle, and counts as running."""
    with isolated(tmp_path_factory.mktemp("hub")) as bench:
        spec = bench.project() / "spec.md"
        bench.ok("auto_orchestrate.py", "--spec", str(spec), "--roles", ",".join(ROLES[:3]), "--agent", "rehearsal")
        wait_for(
            lambda: bench.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"), "completion", seconds=60
        )
        wait_for(lambda: bench.ok("claude_control.py", "status").out.count("idle") >= 3, "idle agents")
        db = bench.db()
        db.execute("UPDATE orchestrations SET status = 'running'")
        # The rate of the work before would hold the first messages of the tests back.
        db.execute("UPDATE messages SET pasted_at = 0")
        db.close()
        yield bench


def speak(bench: Bench, role: str, door: str, *words: str) -> Done:
    """Run a door in the window of an agent."""
    (row,) = bench.rows("SELECT pane_id FROM agents WHERE role = ?", role)
    before = dict(bench.environment)
    bench.environment |= {"TMUX": f"{bench.folder / str(bench.tmux.socket)},1,0", "TMUX_PANE": row["pane_id"]}
    try:
        return bench.door(door, *words)
    finally:
        bench.environment.clear()
        bench.environment |= before


def newest(bench: Bench, kind: str) -> dict[str, Any]:
    return bench.rows("SELECT * FROM messages WHERE kind = ? ORDER BY id DESC LIMIT 1", kind)[0]


class TestATeam:
    def test_its_agents_know_where_the_policy_is(self, running: Bench) -> None:
        # The tmux server may have been started with another environment.
        (row,) = running.rows("SELECT pid FROM agents WHERE role = 'developer'")
        path = Path(running.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        assert psutil.Process(row["pid"]).environ()["TMUX_ORCHESTRATOR_CONFIG"] == str(path)

    def test_the_hub_acknowledges_its_copy(self, running: Bench) -> None:
        done = speak(running, "developer", "send-claude-message-hubspoke.sh", "webapp-impl:tester", NEWS)
        assert done.code == ExitCode.DONE, done.err
        assert done.out.startswith("acknowledged in ")
        assert "; copy to orchestrator: acknowledged in " in done.out
        copy = newest(running, "copy")
        assert (copy["sender"], copy["status"]) == ("developer", "acknowledged")
        original = newest(running, "message")
        assert original["body"] == NEWS
        assert copy["body"].startswith(f"Copy for you: message {original['id']} from developer to tester (deployment).")

    def test_a_question_has_no_copy_and_one_line(self, running: Bench) -> None:
        before = running.ok("claude_control.py", "compliance", "--json").json
        copies = running.rows("SELECT id FROM messages WHERE kind = 'copy'")
        done = speak(running, "developer", "send-claude-message-hubspoke.sh", "tester", "Is the tissue box done yet?")
        assert "copy" not in done.out
        assert running.rows("SELECT id FROM messages WHERE kind = 'copy'") == copies
        line = running.ok("claude_control.py", "compliance", "--json").json[len(before) :]
        assert [(one["sender"], one["recipient"], one["class"], one["rule"], one["copied"]) for one in line] == [
            ("webapp-impl:developer", "webapp-impl:tester", "question", "question", False)
        ]
        assert line[0]["message_id"] == newest(running, "message")["id"]

    def test_a_hub_at_work_gets_its_copy_later(self, running: Bench) -> None:
        running.ok("claude_control.py", "send", "webapp-impl:orchestrator", "rehearse: busy 4")
        wait_for(lambda: "working" in running.ok("claude_control.py", "status").out, "the orchestrator at work")
        done = speak(
            *(running, "developer", "claude_control.py", "send", "--hub", "--json", "tester"),
            'The deploy of "app" failed',
        )
        assert done.code == ExitCode.DONE, done.err
        assert done.json["status"] == "acknowledged"
        assert (done.json["class"], done.json["rule"]) == ("failure", "failed")
        assert (done.json["copy"]["status"], done.json["copy"]["target"]) == ("queued", "webapp-impl:orchestrator")
        assert "orchestrator" in done.json["copy"]["reason"]
        wait_for(lambda: newest(running, "copy")["status"] == "acknowledged", "the copy")

    def test_a_refused_message_leaves_only_a_line(self, running: Bench) -> None:
        policy = Path(running.environment["HOME"]) / ".config" / "tmux-orchestrator" / "policy.yaml"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text("rules:\n  - {name: no-way, from: developer, to: tester, action: refuse}\n")
        sent = running.rows("SELECT count(*) AS n FROM messages")
        try:
            done = speak(running, "developer", "send-claude-message.sh", "webapp-impl:tester", "hello")
            assert (done.code, done.out) == (ExitCode.FAILED, "")
            assert "the policy's rule 'no-way' does not let developer write to tester" in done.err
            assert str(policy) in done.err
            assert running.rows("SELECT count(*) AS n FROM messages") == sent
            last = running.ok("claude_control.py", "compliance", "--session", "webapp-impl").out.splitlines()[-1]
            assert "webapp-impl:developer -> webapp-impl:tester" in last
            assert "refused (rule no-way)" in last
            # A person is not bound by it.
            assert running.door("send-claude-message.sh", "webapp-impl:tester", "hello").code == ExitCode.DONE
        finally:
            policy.unlink()

    def test_a_rerouted_message_says_where_it_went(self, running: Bench) -> None:
        policy = Path(running.environment["HOME"]) / ".config" / "tmux-orchestrator" / "policy.yaml"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text('rules:\n  - {name: star, from: "*", to: "*", action: hub}\n')
        try:
            done = speak(running, "developer", "send-claude-message.sh", "webapp-impl:tester", "hello")
        finally:
            policy.unlink()
        assert done.code == ExitCode.DONE, done.err
        assert "to webapp-impl:orchestrator, instead of webapp-impl:tester: the policy's rule 'star'" in done.out
        assert newest(running, "message")["body"].endswith("\n\nhello")


def test_compliance_without_a_line(bench: Bench) -> None:
    assert bench.ok("claude_control.py", "compliance").out == "nothing was routed\n"
    assert bench.ok("claude_control.py", "compliance", "--json").json == []
    assert bench.door("claude_control.py", "compliance", "--since", "yesterday").code == ExitCode.USAGE


def test_no_enforce_needs_the_hub(bench: Bench) -> None:
    done = bench.door("claude_control.py", "send", "--no-enforce", "webapp-impl:tester", "hello")
    assert done.code == ExitCode.USAGE
    assert "--no-enforce" in done.err


def test_an_everyday_send_loads_no_routing(bench: Bench) -> None:
    look = (
        "import sys, claude_control\n"
        "from lib.errors import NotFound\n"
        "try:\n claude_control.main(['send', 'webapp-impl:developer', 'hello'], standalone_mode=False)\n"
        "except NotFound: print(sorted({'lib.judgement.routing', 'yaml', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, env=bench.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
