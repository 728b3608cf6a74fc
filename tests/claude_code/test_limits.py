"""Journey D with the real Claude Code CLI: limits as the API tells them, with resets seconds away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib import host, service
from lib.judgement import screens
from lib.probing.model import ModelServer, Turn, fail, reach_limit, tool
from tests.conftest import Bench, wait_for

from .conftest import FAKE_TOKEN, ClaudeHome, launch, machine

pytestmark = pytest.mark.claude_code

NOTE = "Your last turn was cut off by a usage limit, which is over."
#: Resets are seconds away here, and so is what follows them.
CONFIG = "limits: {grace_seconds: 1, spacing_seconds: 1, look_again_minutes: 0.05}\n"
WORK = "Begin with the work"
TEAM = ("orchestrator", "developer", "tester")


@dataclass
class Account:
    """A team of real agents that share one account, and the API behind them, which refuses as long as it is told to."""

    bench: Bench
    server: ModelServer
    home: ClaudeHome
    project: Path
    #: When the API stops to refuse (seconds).
    allowed_from: float = 0.0

    def refuse(self, *turns: Turn, seconds: float) -> None:
        """Answer every turn of any agent so for so long, the last answer again and again."""
        until = self.allowed_from = time.time() + seconds
        self.server.on(lambda request: time.time() < until, *turns, repeat_last=True)

    def control(self, *words: str) -> str:
        return self.bench.ok("claude_control.py", *words).out

    def tell(self, role: str, text: str, *options: str) -> str:
        return self.control("send", f"webapp-impl:{role}", text, *options)

    def have_all_at_work(self, *roles: str) -> None:
        """Have these agents run a tool that ends when it is told to."""
        wait = tool("Bash", {"command": f"until [ -e {self.bench.folder}/gate ]; do sleep 0.1; done"})
        self.server.on(lambda request: WORK in request.prompt and not request.tool_results, *[wait] * len(roles))
        for role in roles:
            self.tell(role, WORK)
        for role in roles:
            self.await_screen(role, "until [ -e")

    def let_tools_end(self) -> None:
        (self.bench.folder / "gate").touch()

    def state_of(self, role: str) -> str:
        (team,) = self.bench.ok("claude_control.py", "status", "--json").json["orchestrations"]
        return str(next(agent["state"] for agent in team["agents"] if agent["role"] == role))

    def pane(self, role: str) -> str:
        return str(self.bench.rows("SELECT pane_id FROM agents WHERE role = ?", role)[0]["pane_id"])

    def press(self, role: str, *keys: str) -> None:
        """A person's hands in a window."""
        self.bench.tmux.run("send-keys", "-t", self.pane(role), *keys)

    def screen(self, role: str) -> str:
        return self.bench.tmux.look(self.pane(role)).screen

    def await_screen(self, role: str, text: str) -> None:
        wait_for(lambda: text in self.screen(role), f"{role}'s window to show {text!r}")

    def stop_continuing(self, role: str) -> None:
        """A person presses Escape where the client would go on by itself."""
        wait_for(lambda: screens.continues_by_itself(self.screen(role)), f"{role} to wait for the reset")
        self.press(role, "Escape")
        wait_for(lambda: screens.continues_by_itself(self.screen(role)) is False, f"{role} to wait no longer")

    def limit(self) -> dict[str, Any]:
        return self.bench.rows("SELECT * FROM limits ORDER BY id DESC LIMIT 1")[0]

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = "SELECT at, role FROM events LEFT JOIN agents ON agents.id = agent_id WHERE kind = ? ORDER BY events.id"
        return self.bench.rows(found, kind)

    def await_events(self, kind: str, number: int = 1) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.events(kind)) >= number, f"{number} {kind}", seconds=40)
        return self.events(kind)

    def told_to_go_on(self) -> list[str]:
        """The roles that their models have seen told to go on, in order, as often as they were."""
        roles = {row["conversation_id"]: row["role"] for row in self.bench.rows("SELECT * FROM agents")}
        return [roles[one.conversation] for one in self.server.turns(NOTE) if any(NOTE in text for text in one.said)]


@contextlib.contextmanager
def team(folder: Path, binary: Path, *roles: str, is_subscriber: bool = True) -> Iterator[Account]:
    with machine(folder, binary, CONFIG) as (bench, server, home):
        if is_subscriber:
            del bench.environment["ANTHROPIC_API_KEY"]
            bench.environment["CLAUDE_CODE_OAUTH_TOKEN"] = FAKE_TOKEN
        bench.environment["CLAUDE_CODE_MAX_RETRIES"] = "1"  # ten would take three minutes
        project = bench.project()
        home.trust(project)
        launch(bench, project, *roles)
        wait_for(lambda: all(one["status"] == "idle" for one in home.sessions()), "idle agents")
        yield Account(bench, server, home, project)


def kill_daemon(bench: Bench) -> None:
    process = service.running(bench.home)
    assert process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not host.is_alive(process), "the end of the daemon")


class TestSubscription:
    def test_one_goes_first_and_each_is_told_once_though_the_daemon_dies_and_the_reset_moves(
        self, tmp_path: Path, claude_binary: Path
    ) -> None:
        with team(tmp_path, claude_binary, *TEAM) as account:
            account.have_all_at_work(*TEAM)
            first = time.time() + 5
            account.refuse(reach_limit("five_hour", first), seconds=5)
            account.let_tools_end()
            account.await_screen(TEAM[0], "Usage limit reached")
            account.await_events("limit.hit")
            for role in TEAM:  # a person ends that, so that it is the scheduler's to do
                account.stop_continuing(role)
            kill_daemon(account.bench)
            done = account.tell(TEAM[1], "What I said meanwhile")
            assert done.startswith("queued: limited until "), "and the daemon is started again"
            # At the reset the first is refused again, with a new time.
            second = first + 6
            account.refuse(reach_limit("five_hour", second), seconds=second - time.time())
            (again,) = account.await_events("limit.again")
            account.stop_continuing(again["role"])
            account.await_events("limit.ended")
            assert account.limit()["resets_at"] == int(second) * 1000
            assert [one["role"] for one in account.events("limit.tried")] == [again["role"]] * 2
            (over,) = account.events("limit.over")
            assert over["role"] == again["role"], "it was seen at work before the others went on"
            released = account.events("limit.released")[2:]
            assert min(one["at"] for one in released) >= over["at"]
            assert released[1]["at"] - released[0]["at"] >= 1000
            wait_for(lambda: len(account.told_to_go_on()) == len(TEAM) + 1, "all to be told")
            assert sorted(account.told_to_go_on()) == sorted([*TEAM, again["role"]]), "once for each refusal"
            # What had waited came with the note, in one message.
            (prompt,) = account.server.prompts("What I said meanwhile")
            assert NOTE in prompt
            assert [row["kind"] for row in account.bench.rows("SELECT kind FROM notices")] == ["limit"]

    def test_a_person_goes_on_and_a_weekly_limit_is_over_for_all(self, tmp_path: Path, claude_binary: Path) -> None:
        with team(tmp_path, claude_binary, "orchestrator", "developer") as account:
            account.have_all_at_work("orchestrator", "developer")
            resets_at = int(time.time()) + 3 * 86_400
            account.refuse(reach_limit("seven_day", resets_at), seconds=8)
            account.let_tools_end()
            for role in ("orchestrator", "developer"):
                account.await_screen(role, "What do you want to do?")
                wait_for(lambda role=role: account.state_of(role) == "limited", "the limit")  # type: ignore[misc]
            wait_for(lambda: account.limit()["resets_at"] == resets_at * 1000, "the exact time")
            assert account.limit()["kind"] == "weekly"
            # The API allows it again, long before. A person closes the dialog in one window, and goes on.
            wait_for(lambda: time.time() > account.allowed_from, "the API to allow it")
            account.press("orchestrator", "Escape")
            account.await_screen("orchestrator", "bypass permissions on")
            account.press("orchestrator", "-l", "Go on, please")
            account.await_screen("orchestrator", "Go on, please")
            account.press("orchestrator", "Enter")
            account.await_events("limit.ended")
            wait_for(lambda: account.told_to_go_on() == ["developer"], "the other one to be told")
            assert account.limit()["resets_at"] > time.time() * 1000
            assert account.state_of("developer") != "limited"


class TestTroubles:
    def test_what_the_service_cannot_do_is_one_agents_and_what_the_account_cannot_is_a_persons(
        self, tmp_path: Path, claude_binary: Path
    ) -> None:
        with team(tmp_path, claude_binary, "orchestrator", "developer", is_subscriber=False) as account:
            # Overloaded: the client gives up, and this agent alone tries again later.
            account.server.on("Ask too much", fail(529, "overloaded_error", "Overloaded"), repeat_last=True)
            account.tell("orchestrator", "Ask too much")
            account.await_events("limit.hit")
            limit = account.limit()
            assert (limit["kind"], limit["agent_id"], limit["resets_at"]) == ("overloaded", limit["refused_by"], None)
            assert 50_000 < limit["look_at"] - limit["refused_at"] < 70_000
            assert account.tell("orchestrator", "More", "--no-wait").startswith("queued")
            assert account.tell("developer", "You are free").startswith("acknowledged")
            assert account.bench.rows("SELECT 1 FROM notices") == []
            # Out of credit: no retry, the team needs attention, and the client's own words name the address.
            account.server.on("Spend it", fail(400, "invalid_request_error", "Your credit balance is too low"))
            account.tell("developer", "Spend it")
            account.await_events("limit.hit", 2)
            assert (account.limit()["kind"], account.limit()["look_at"]) == ("spend", None)
            (status,) = account.bench.rows("SELECT status, outcome FROM orchestrations")
            assert status["status"] == "needs_attention"
            assert "Credit balance" in status["outcome"] and "--resume" in status["outcome"]
            assert account.tell("developer", "Still there?").startswith("queued: out of credit")
            # A person has paid: resuming the team lets it go on.
            account.bench.ok("auto_orchestrate.py", "--project", str(account.project), "--resume")
            (prompt,) = account.server.wait_for("Still there?")
            assert NOTE in prompt.prompt
            assert account.bench.rows("SELECT status FROM orchestrations") == [{"status": "running"}]

    def test_an_account_that_is_logged_out_waits_for_its_person(self, tmp_path: Path, claude_binary: Path) -> None:
        with team(tmp_path, claude_binary, "orchestrator") as account:
            account.server.on("Work", fail(401, "authentication_error", "OAuth token has expired."), repeat_last=True)
            account.tell("orchestrator", "Work")
            account.await_events("limit.hit")
            assert (account.limit()["kind"], account.limit()["look_at"]) == ("login", None)
            (status,) = account.bench.rows("SELECT status, outcome FROM orchestrations")
            assert status["status"] == "needs_attention" and "claude auth login" in status["outcome"]
            requests = len(account.server.requests)
            assert account.tell("orchestrator", "Hello?").startswith("queued: logged out; next: claude auth login")
            assert len(account.server.requests) == requests
