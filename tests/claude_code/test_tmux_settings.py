"""The real Claude Code below settings of tmux that reach it: its shell, its terminal, its size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.probing.model import say, tool
from tests.compatibility.machines import attached
from tests.conftest import sampled, wait_for

from .conftest import Person, launch, machine

pytestmark = pytest.mark.claude_code

SETTINGS = {
    "no shell": "set -g default-shell /bin/false\nset -g default-command 'exit 1'",
    "a dumb terminal": "set -g default-terminal dumb",
    "screen": "set -g default-terminal screen",
    "xterm": "set -g default-terminal xterm-256color\nset -s extended-keys on\nset -g focus-events on",
    "no alternate screen": "setw -g alternate-screen off\nset -g history-limit 0",
    "small": "setw -g window-size smallest\nsetw -g pane-border-status top\nset -g status 2",
}


@pytest.mark.parametrize("name", sampled(SETTINGS, ["no shell"]))
def test_claude_code_is_told_things_and_runs_commands(name: str, tmp_path: Path, claude_binary: Path) -> None:
    with machine(tmp_path, claude_binary) as (bench, server, home):
        (home.path / ".tmux.conf").write_text(f"{SETTINGS[name]}\n")
        server.on("Please calculate", tool("Bash", {"command": "echo $((6 * 7)) > answer"}), say("Written."))
        project = bench.project()
        home.trust(project)
        launch(bench, project, "orchestrator")
        with attached(bench.tmux, "webapp-impl", bench.environment):
            (agent,) = bench.rows("SELECT pane_id, worktree FROM agents")
            person = Person(bench, server, home, "webapp-impl:orchestrator", agent["pane_id"])
            wait_for(lambda: bench.rows("SELECT 1 FROM events WHERE kind = 'hook.Stop'"), "the first turn to end")
            person.await_status("idle")
            sent = json.loads(person.send("Please calculate\n" + "a line of it\n" * 60, "--json", "--wait", "30").out)
            assert sent["status"] == "acknowledged", sent
            answer = Path(agent["worktree"]) / "answer"
            wait_for(lambda: answer.exists() and answer.read_text() == "42\n", "the answer")
            person.await_free()
