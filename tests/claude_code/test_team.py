"""Journey A to C with the real Claude Code CLI: only the model behind it is scripted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import host
from lib.claude import transcripts
from lib.judgement import framing
from lib.probing.model import ModelServer, say, tool
from tests.conftest import Bench, wait_for

from .conftest import ClaudeHome, launch, told

pytestmark = pytest.mark.claude_code

GIT = "git -c user.name=Developer -c user.email=developer@localhost"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def transcript_prompts(agent: dict[str, object], claude_home: ClaudeHome) -> list[str]:
    path = transcripts.find(claude_home.path / ".claude", str(agent["conversation_id"]))
    return list(transcripts.prompts(path)) if path else []


class TestRealClaudeCode:
    def test_a_team_works_a_spec_to_its_completion(
        self, claude_bench: Bench, claude_home: ClaudeHome, model_server: ModelServer, trusted_project: Path
    ) -> None:
        commit = f"echo hello > greeting.txt && git add greeting.txt && {GIT} commit -qm 'Add the greeting'"
        model_server.on(
            told("developer", "Worktree:"),
            tool("Bash", {"command": commit}),
            tool(
                "Bash", {"command": "send-claude-message.sh webapp-impl:tester 'The greeting is ready for \"tests\"'"}
            ),
            tool("Bash", {"command": "report-completion.sh developer 'The greeting is written'"}),
            say("My part is done."),
        )
        merge = f"{GIT} merge -q --no-edit $(git branch --list --format='%(refname:short)' 'orchestration/*/developer')"
        model_server.on(
            told("orchestrator", "Completion report from developer"),
            tool("Bash", {"command": f"{merge} && report-completion.sh orchestrator 'The greeting is merged'"}),
            say("All is done."),
        )

        launch(claude_bench, trusted_project, "orchestrator", "developer", "tester")

        wait_for(
            lambda: claude_bench.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"),
            "the orchestration to complete",
            seconds=60,
        )
        agents = claude_bench.rows("SELECT * FROM agents ORDER BY window")
        for agent in agents:
            briefing = claude_bench.rows("SELECT * FROM messages WHERE agent_id = ? AND kind = 'briefing'", agent["id"])
            assert [(row["status"], row["attempts"]) for row in briefing] == [("acknowledged", 1)]
            framed = framing.frame(briefing[0]["id"], briefing[0]["sender"], briefing[0]["body"])
            assert transcript_prompts(agent, claude_home).count(framed) == 1
            assert model_server.prompts(told(agent["role"], "")).count(framed) == 1
        worktrees = {agent["role"]: Path(agent["worktree"]) for agent in agents}
        assert git(worktrees["developer"], "log", "-1", "--format=%s").strip() == "Add the greeting"
        assert (worktrees["orchestrator"] / "greeting.txt").read_text() == "hello\n"
        assert git(trusted_project, "log", "--oneline", "main").count("\n") == 1
        # The message went through the door inside the developer's pane, and names its true sender.
        tester = wait_for(
            lambda: [text for text in model_server.prompts(told("tester", "")) if "ready for" in text], "the message"
        )
        assert len(tester) == 1
        assert tester[0].splitlines()[1:-1] == ['The greeting is ready for "tests"']
        assert " from developer]" in tester[0].splitlines()[0]

    def test_what_a_role_is_denied_is_denied_in_every_mode(
        self, claude_bench: Bench, claude_home: ClaudeHome, model_server: ModelServer, trusted_project: Path
    ) -> None:
        # The default mode bypasses permissions, and still a deny rule holds.
        roles = claude_home.path / ".config" / "tmux-orchestrator" / "roles"
        roles.mkdir(parents=True)
        rules = "permissions: {deny: ['Bash(touch forbidden *)']}"
        (roles / "artist.md").write_text(f"---\nsummary: Draws.\ncheck_in_minutes: 9\n{rules}\n---\nDraw.\n")
        touches = [tool("Bash", {"command": f"touch {name} x"}) for name in ("forbidden", "allowed")]
        model_server.on(told("artist", "Worktree:"), *touches, say("Done."))
        launch(claude_bench, trusted_project, "orchestrator", "artist")
        worktree = Path(claude_bench.rows("SELECT worktree FROM agents WHERE role = 'artist'")[0]["worktree"])
        wait_for(lambda: (worktree / "allowed").exists(), "what is not denied")
        assert not (worktree / "forbidden").exists()
        results = [text for one in model_server.turns(told("artist", "")) for text in one.tool_results]
        assert "denied" in results[0]

    def test_a_check_in_reaches_its_agent(
        self, claude_bench: Bench, model_server: ModelServer, trusted_project: Path
    ) -> None:
        launch(claude_bench, trusted_project, "orchestrator", "developer")
        claude_bench.ok("schedule_with_note.sh", "30", "Look at the greeting", "webapp-impl:1")
        # Half an hour passes.
        db = claude_bench.db()
        db.execute("UPDATE check_ins SET due_at = ? WHERE interval_minutes IS NULL", (host.now_ms() - 1000,))
        db.close()
        host.wake(claude_bench.home)
        request = model_server.wait_for(told("developer", "Look at the greeting"))[0]
        assert request.prompt.splitlines()[1] == "Check-in: Look at the greeting"

    def test_a_killed_agent_resumes_the_same_conversation(
        self, claude_bench: Bench, claude_home: ClaudeHome, model_server: ModelServer, trusted_project: Path
    ) -> None:
        model_server.on(told("developer", "Worktree:"), say("I remember the word pomegranate."))
        launch(claude_bench, trusted_project, "orchestrator", "developer")
        before = claude_bench.rows("SELECT * FROM agents WHERE role = 'developer'")[0]
        wait_for(
            lambda: "pomegranate" in claude_bench.screen(before["pane_id"]), "the developer's first turn on the screen"
        )
        path = wait_for(
            lambda: transcripts.find(claude_home.path / ".claude", before["conversation_id"]), "the transcript"
        )
        assert path
        wait_for(lambda: "pomegranate" in path.read_text(), "the first turn in the transcript")

        os.kill(before["pid"], signal.SIGKILL)
        wait_for(lambda: host.process(before["pid"]) is None, "the developer's end")
        claude_bench.ok("auto_orchestrate.py", "--project", str(trusted_project), "--resume")

        after = claude_bench.rows("SELECT * FROM agents WHERE role = 'developer'")[0]
        assert after["conversation_id"] == before["conversation_id"]
        assert (after["epoch"], after["pane_id"]) == (2, before["pane_id"])
        request = model_server.wait_for(told("developer", "You were interrupted"))[0]
        assert "pomegranate" in json.dumps(request.body["messages"])
        assert claude_bench.rows("SELECT attempts FROM messages WHERE kind = 'briefing'") == [{"attempts": 1}] * 2

    def test_a_message_to_a_working_agent_waits_for_the_end_of_its_turn(
        self, claude_bench: Bench, model_server: ModelServer, trusted_project: Path
    ) -> None:
        woken = claude_bench.folder / "woken"
        sleeping = f"until [ -e {woken} ]; do sleep 0.1; done"
        model_server.on(told("developer", "Worktree:"), tool("Bash", {"command": sleeping}), say("Slept."))
        launch(claude_bench, trusted_project, "orchestrator", "developer")
        done = claude_bench.ok("send-claude-message.sh", "webapp-impl:developer", "Are you there?")
        assert done.out.startswith("queued: developer is working")
        woken.touch()
        request = model_server.wait_for(told("developer", "Are you there?"))[0]
        assert request.said[-1].splitlines()[1] == "Are you there?"
        # It came as a prompt of its own, after the turn.
        assert "Slept." in json.dumps(request.body["messages"])


class TestPreflight:
    """What would stop an agent with a question is met before anything is made."""

    @pytest.fixture(autouse=True)
    def nothing_is_made(self, claude_bench: Bench) -> Iterator[None]:
        yield
        assert claude_bench.tmux.panes() == []
        assert claude_bench.rows("SELECT * FROM orchestrations") == []
        assert not list(claude_bench.folder.glob("*-tmux-worktrees"))

    def test_a_cli_that_is_logged_out(self, claude_bench: Bench, trusted_project: Path) -> None:
        del claude_bench.environment["ANTHROPIC_API_KEY"]
        done = claude_bench.door("auto_orchestrate.py", "--spec", str(trusted_project / "spec.md"))
        assert done.code == 5
        assert "Claude Code is not logged in" in done.err

    def test_a_folder_that_is_not_trusted(self, claude_bench: Bench) -> None:
        project = claude_bench.project()
        done = claude_bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"))
        assert done.code == 5
        assert f"has not been told to trust {project}" in done.err

    def test_root_without_a_sandbox(self, claude_bench: Bench, trusted_project: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root is refused")
        del claude_bench.environment["IS_SANDBOX"]
        done = claude_bench.door("auto_orchestrate.py", "--spec", str(trusted_project / "spec.md"))
        assert done.code == 5
        assert "bypassPermissions" in done.err


def test_trust_can_be_given_by_the_configuration(claude_bench: Bench, model_server: ModelServer) -> None:
    project = claude_bench.project()
    config = Path(claude_bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("trust_project: true\n")
    launch(claude_bench, project, "orchestrator")
    assert model_server.wait_for(told("orchestrator", "Worktree:"))
