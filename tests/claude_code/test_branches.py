"""The real Claude Code CLI works under guards: its commits are signed and handed over, and it hears what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.probing.model import ModelServer, say, tool
from tests.conftest import Bench, wait_for

from .conftest import launch, told
from .test_team import GIT, git

pytestmark = pytest.mark.claude_code


def test_an_agent_is_kept_to_its_branch_and_its_commit_reaches_the_next(
    claude_bench: Bench, model_server: ModelServer, trusted_project: Path
) -> None:
    commit = f"echo hello > greeting.txt && git add greeting.txt && {GIT} commit -qm 'Add the greeting'"
    model_server.on(
        told("developer", "Worktree:"),
        tool("Bash", {"command": commit}),
        tool("Bash", {"command": "git checkout -q -b my-own-branch"}),
        say("I stay where I am."),
    )
    launch(claude_bench, trusted_project, "orchestrator", "developer", "tester")

    heard = model_server.wait_for(told("tester", "developer has committed to"))[0]
    assert "Add the greeting" in heard.prompt and "greeting.txt | 1 +" in heard.prompt
    (agent,) = claude_bench.rows("SELECT * FROM agents WHERE role = 'developer'")
    assert f"git merge {agent['branch']}" in heard.prompt
    # Its commit bears the message that it was at work on: the briefing.
    (briefing,) = claude_bench.rows("SELECT id FROM messages WHERE agent_id = ? AND kind = 'briefing'", agent["id"])
    trailers = git(Path(agent["worktree"]), "log", "-1", "--format=%(trailers:unfold)", agent["branch"]).split("\n")
    assert {f"Message-Id: {briefing['id']}", "Agent-Role: developer"} <= set(trailers)
    # What git refuses is the answer of the tool.
    wait_for(lambda: "I stay where I am." in claude_bench.screen(agent["pane_id"]), "the end of its turn")
    last = json.dumps(model_server.wait_for(told("developer", "Worktree:"))[-1].body["messages"])
    assert "refused to change my-own-branch: the developer works on" in last
    assert "my-own-branch" not in git(trusted_project, "branch", "--list")
