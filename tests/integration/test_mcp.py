"""The tools of an agent over MCP, asked by the SDK's own client: what they do, and in whose name."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from lib import agents, host
from lib.models import Agent
from tests.conftest import ROOT, Bench
from tests.integration.still_team import StillTeam, become, still_team

__all__ = ["still_team"]

NASTY = """He said "it's `done`", $HOME \\ & that's; 100% <b>é 🙂
  second line, indented
!not a command
/nor this
ends in a backslash \\"""


@dataclass(frozen=True)
class Answer:
    text: str
    is_error: bool


@contextlib.asynccontextmanager
async def session(environment: dict[str, str]) -> AsyncIterator[ClientSession]:
    """One mcp_server.py, started as an agent's Claude Code would start it."""
    command = StdioServerParameters(
        command=sys.executable, args=[str(ROOT / "mcp_server.py")], env=environment, cwd="/"
    )
    async with stdio_client(command) as (reading, writing), ClientSession(reading, writing) as made:
        await made.initialize()
        yield made


@dataclass(frozen=True)
class Server:
    """A server, asked from a thread that waits for the answers."""

    portal: BlockingPortal
    session: ClientSession

    def tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in self.portal.call(self.session.list_tools).tools}

    def call(self, name: str, **arguments: object) -> Answer:
        result = self.portal.call(self.session.call_tool, name, arguments)
        (content,) = result.content
        return Answer(content.text, bool(result.is_error))


Serve = Callable[[Mapping[str, str]], Server]


@pytest.fixture
def serve(still_team: StillTeam) -> Iterator[Serve]:
    """Starts servers with these variables beside those of the bench; they end with the test."""
    with start_blocking_portal() as portal, contextlib.ExitStack() as stack:

        def start(variables: Mapping[str, str]) -> Server:
            made = session({**still_team.bench.environment, **variables})
            return Server(portal, stack.enter_context(portal.wrap_async_context_manager(made)))

        yield start


def identity(agent: Agent) -> dict[str, str]:
    """The variables that a launch gives."""
    return {"TMUX_ORCHESTRATOR_AGENT": str(agent.id), "TMUX_ORCHESTRATOR_EPOCH": str(agent.epoch)}


@pytest.fixture
def developer(still_team: StillTeam, serve: Serve) -> Server:
    """The developer's server: it runs below the process of the developer, which is that of the test."""
    return serve(identity(become(still_team, "developer")))


class TestTools:
    def test_they_are_few_and_none_asks_who_speaks(self, developer: Server) -> None:
        tools = developer.tools()
        assert {name: sorted(tool.input_schema["properties"]) for name, tool in tools.items()} == {
            "send_message": ["priority", "target", "text"],
            "report_completion": ["check", "check_seconds", "summary"],
            "report_failure": ["reason"],
            "schedule_check_in": ["if_changed", "minutes", "note", "recurring", "target"],
            "list_team": [],
            "read_inbox": ["limit"],
            "publish_insight": ["everywhere", "relates_to", "tags", "text"],
            "request_authorization": ["target", "timeout_minutes", "what"],
        }
        assert all(tool.description for tool in tools.values())
        assert all(tool.output_schema is None for tool in tools.values()), "an answer would come twice"

    def test_a_message_is_recorded_byte_for_byte(self, still_team: StillTeam, developer: Server) -> None:
        answer = developer.call("send_message", target="tester", text=NASTY)
        assert not answer.is_error, answer.text
        assert answer.text.startswith("queued: tester is starting (message 1 to webapp-impl:tester)")
        assert still_team.told("tester", "message") == [("developer", NASTY)]

    def test_an_insight_is_kept_in_the_agents_name_for_its_project(
        self, still_team: StillTeam, developer: Server
    ) -> None:
        answer = developer.call("publish_insight", text="Amounts are cents", tags="api,payments")
        assert not answer.is_error, answer.text
        (row,) = still_team.bench.rows("SELECT project, author, tags FROM insights")
        assert row["author"] == "webapp-impl:developer" and row["tags"] == '["api", "payments"]'
        assert row["project"].endswith("webapp")

    def test_an_insight_is_told_to_the_projects_that_it_concerns(
        self, still_team: StillTeam, developer: Server
    ) -> None:
        other = still_team.bench.project("frontend")
        missing = developer.call("publish_insight", text="Amounts are cents", relates_to=["../nowhere"])
        assert missing.is_error and "'../nowhere' names no project" in missing.text
        answer = developer.call("publish_insight", text="Amounts are cents", relates_to=["../frontend"])
        assert f"for {other}: comes with the next briefing" in answer.text
        assert len(still_team.bench.rows("SELECT 1 FROM insights")) == 1
        # What holds everywhere is new where the agent works, and concerns whom its own project names.
        (still_team.bench.folder / "webapp" / ".tmux-orchestrator.yaml").write_text("relates_to: [frontend]\n")
        answer = developer.call("publish_insight", text="Ids are strings", everywhere=True)
        assert f"for {other}: comes with the next briefing" in answer.text

    def test_a_report_takes_the_way_of_the_verb(self, still_team: StillTeam, developer: Server) -> None:
        still_team.commit("developer")
        failed = developer.call("report_completion", summary="Done", check="cat no-such-file")
        assert failed.is_error
        assert "the check `cat no-such-file` left with 1" in failed.text
        answer = developer.call("report_completion", summary='The "login"\nworks', check="cat work.txt")
        assert not answer.is_error, answer.text
        assert "reported to webapp-impl:orchestrator; told tester, who waited for it" in answer.text
        ((sender, text),) = still_team.told("orchestrator", "report")
        assert sender == "developer"
        assert 'The "login"\nworks' in text and "by developer" in text

    def test_a_failure_is_the_orchestrators_to_report(
        self, still_team: StillTeam, serve: Serve, developer: Server
    ) -> None:
        answer = developer.call("report_failure", reason="I cannot")
        assert answer.is_error and "only the orchestrator" in answer.text
        hub = serve(identity(become(still_team, "orchestrator")))
        assert "has failed" in hub.call("report_failure", reason="The API is gone").text
        assert still_team.bench.rows("SELECT status, outcome FROM orchestrations") == [
            {"status": "failed", "outcome": "The API is gone"}
        ]

    def test_a_check_in_for_oneself_and_for_a_teammate(self, still_team: StillTeam, developer: Server) -> None:
        assert (
            "for webapp-impl:developer in 5 minutes" in developer.call("schedule_check_in", minutes=5, note="Look").text
        )
        answer = developer.call("schedule_check_in", minutes=7, note="Test it", target="tester", recurring=True)
        assert "for webapp-impl:tester every 7 minutes" in answer.text
        rows = still_team.bench.rows("SELECT note, interval_minutes FROM check_ins ORDER BY id")
        assert [tuple(row.values()) for row in rows] == [("Look", None), ("Test it", 7)]
        assert developer.call("schedule_check_in", minutes=0, note="Now").is_error
        answer = developer.call("schedule_check_in", minutes=9, note="News", if_changed=True)
        assert "in 9 minutes, if there is something new" in answer.text
        (row,) = still_team.bench.rows("SELECT if_changed, seen FROM check_ins WHERE note = 'News'")
        assert row["if_changed"] and still_team.agent("tester").branch in row["seen"]

    def test_the_team_and_the_inbox_can_be_read(self, still_team: StillTeam, developer: Server) -> None:
        team = developer.call("list_team").text
        assert team.startswith("you are webapp-impl:developer on branch orchestration/")
        assert "tester" in team and "waits for developer" in team
        assert developer.call("read_inbox").text == "no messages"
        still_team.control("send", "webapp-impl:developer", NASTY, "--no-wait", role="tester")
        still_team.control("send", "webapp-impl:developer", "later", "--no-wait")
        inbox = developer.call("read_inbox").text
        assert f"[msg 1 from tester]\n{NASTY}\n[end of msg 1]" in inbox
        assert inbox.endswith("[msg 2 from user]\nlater\n[end of msg 2]")
        assert "msg 1" not in developer.call("read_inbox", limit=1).text

    def test_an_authorization_is_asked_for(self, still_team: StillTeam, developer: Server) -> None:
        answer = developer.call("request_authorization", target="orchestrator", what="Drop it", timeout_minutes=5)
        assert answer.text.startswith("authorization 1 is asked of webapp-impl:orchestrator")
        ((sender, text),) = still_team.told("orchestrator", "message")
        assert sender == "developer" and "authorize 1 yes" in text

    def test_an_error_is_told_with_what_to_do(self, still_team: StillTeam, developer: Server) -> None:
        answer = developer.call("send_message", target="artist", text="Hello")
        assert answer.is_error
        assert "no agent at 'artist'" in answer.text and "next: agents: webapp-impl:orchestrator" in answer.text
        assert developer.call("send_message", target="tester", text=" ").is_error
        assert developer.call("send_message", target="tester", text="Hello", priority="now").is_error
        assert developer.call("send_message", target="tester").is_error  # the SDK refuses it
        assert still_team.bench.rows("SELECT * FROM messages") == []


class TestIdentity:
    @pytest.fixture(autouse=True)
    def nothing_is_said(self, still_team: StillTeam) -> Any:
        yield
        assert still_team.bench.rows("SELECT * FROM messages") == []

    def refused(self, server: Server, sentence: str) -> None:
        """No tool answers, not even one that only looks."""
        for name, arguments in (("send_message", {"target": "tester", "text": "Hello"}), ("read_inbox", {})):
            answer = server.call(name, **arguments)
            assert answer.is_error
            assert sentence in answer.text

    def test_another_agents_number_is_of_no_use(self, still_team: StillTeam, serve: Serve) -> None:
        become(still_team, "developer")
        # Its windows have processes of their own, and this server runs below none of them.
        server = serve(identity(still_team.agent("tester")))
        self.refused(server, "does not run below the process of webapp-impl:tester")

    def test_an_earlier_life_speaks_no_more(self, still_team: StillTeam, serve: Serve) -> None:
        old = identity(become(still_team, "developer"))
        agent = still_team.agent("developer")
        agents.start_epoch(still_team.db, agent.id, conversation_id=agent.conversation_id)
        self.refused(serve(old), "has been started again since")

    def test_an_agent_whose_process_has_ended(self, still_team: StillTeam, serve: Serve) -> None:
        agent = become(still_team, "developer")
        process = host.process(os.getpid())
        assert process
        # A later process with the same pid is another.
        still_team.db.execute("UPDATE agents SET started = ? WHERE id = ?", (process.started - 1, agent.id))
        self.refused(serve(identity(agent)), "does not run below")

    VARIABLES: tuple[dict[str, str], ...] = (
        # A person at a shell.
        {},
        # Half of it, or nonsense.
        {"TMUX_ORCHESTRATOR_AGENT": "1"},
        {"TMUX_ORCHESTRATOR_AGENT": "1 OR 1", "TMUX_ORCHESTRATOR_EPOCH": "1"},
        # Somebody who never was.
        {"TMUX_ORCHESTRATOR_AGENT": "999", "TMUX_ORCHESTRATOR_EPOCH": "1"},
        {"TMUX_ORCHESTRATOR_AGENT": "9" * 40, "TMUX_ORCHESTRATOR_EPOCH": "1"},
    )

    def test_whoever_is_nobody_is_told_so(self, still_team: StillTeam, serve: Serve) -> None:
        for variables in self.VARIABLES:
            self.refused(serve(variables), "speaks for nobody")

    def test_a_team_that_has_ended(self, still_team: StillTeam, serve: Serve) -> None:
        agent = become(still_team, "developer")
        still_team.end()
        self.refused(serve(identity(agent)), "webapp-impl is over: stopped")


def test_a_person_is_sent_to_the_verbs(bench: Bench) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, str(ROOT / "mcp_server.py")],
        stdin=theirs,
        env=bench.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert "claude_control.py --help" in done.stderr
