"""The main jobs of a team, one after the other, as a person and the agents have them done all day."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lib import agents, host, recordings
from lib.claude import transcripts
from lib.judgement import framing
from lib.judgement.cleaning import clean
from lib.models import Agent, AgentState
from tests.compatibility.machines import attached
from tests.conftest import Bench, wait_for

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
#: Long, of several lines, and with all that tmux, a shell and Claude Code could take for something else.
LETTER = "\n".join(
    (
        'Please read all of this; it\'s $HOME, `id`, #{pane_id}, #(touch PWNED) and 100 % "quoted" \\',
        "  indented, with a tab\tin it",
        "",
        "/clear !rm @file ~ {a} [b] ends;",
        *(f"line {number}: päste ✓ 日本語 Enter C-c -R" for number in range(120)),
        "the end;",
    )
)


def work_through(bench: Bench, session: str = "webapp-impl", *, is_watched: bool = False) -> None:
    """Launch a team, and have it do everything that a tmux is needed for, to its end.

    With `is_watched` a person looks at it in a terminal of 80x24.
    """
    launch(bench)
    with attached(bench.tmux, session, bench.environment) if is_watched else contextlib.nullcontext():
        is_told(bench, session, LETTER)
        is_told_while_somebody_reads(bench, session)
        is_seen(bench, session)
        checks_in(bench, session)
        comes_back(bench, session)
        stops(bench, session)


def launch(bench: Bench) -> None:
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("agent: rehearsal\n")
    project = bench.project(spec=HOLDS)
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer")
    windows = {pane.agent: (pane.window, pane.window_name) for pane in bench.tmux.panes() if pane.agent}
    assert sorted(windows.values()) == [(0, "orchestrator"), (1, "developer")]
    wait_for(lambda: {agents.state_of(agent) for agent in team(bench)} == {AgentState.IDLE}, "the first turns to end")


def is_told(bench: Bench, session: str, text: str) -> None:
    """The developer gets a text exactly, once, and its acknowledgement is known at once."""
    sent = bench.ok("claude_control.py", "send", f"{session}:1", "--wait", "30", "--json", "-", stdin=text).json
    assert sent["status"] == "acknowledged", sent
    framed = framing.frame(sent["id"], sent["sender"], clean(text))
    assert times(bench, framed) == 1
    wait_for(lambda: agents.state_of(developer(bench)) is AgentState.IDLE, "the developer to be idle again")


def is_told_while_somebody_reads(bench: Bench, session: str) -> None:
    """A person who scrolls back in the developer's window is left alone; where that freezes it, the message waits."""
    pane = developer(bench).pane_id or ""
    bench.tmux.run("copy-mode", "-t", pane)
    sent = bench.ok("claude_control.py", "send", f"{session}:1", "--wait", "20", "--json", "While you read").json
    look = bench.tmux.look(pane)
    assert look.in_mode
    assert sent["status"] == ("queued" if look.is_frozen else "acknowledged"), sent
    bench.tmux.run("send-keys", "-t", pane, "-X", "cancel")
    arrived = "SELECT 1 FROM messages WHERE id = ? AND status = 'acknowledged'"
    wait_for(lambda: bench.rows(arrived, sent["id"]), "the message that was sent meanwhile")
    assert times(bench, "While you read") == 1
    wait_for(lambda: agents.state_of(developer(bench)) is AgentState.IDLE, "the developer to be idle again")


def is_seen(bench: Bench, session: str) -> None:
    """Status knows every agent, and the windows are shown and recorded."""
    (known,) = bench.ok("claude_control.py", "status", "--json").json["orchestrations"]
    assert {one["role"] for one in known["agents"]} == {"orchestrator", "developer"}
    assert "the end;" in bench.ok("claude_control.py", "screen", f"{session}:developer", "--lines", "100").out
    wait_for(lambda: recordings.path_in(bench.home).exists(), "a recording")
    recorded = ("claude_control.py", "moment", session, "--at", "now", "--screens")
    wait_for(lambda: "not a real Claude Code" in bench.ok(*recorded).out, "a recorded window")


def checks_in(bench: Bench, session: str) -> None:
    """A check-in that is due becomes a message that arrives."""
    bench.ok("schedule_with_note.sh", "1", "Look at the clock", f"{session}:developer")
    db = bench.db()
    db.execute("UPDATE check_ins SET due_at = ?, planned_at = ? WHERE note = 'Look at the clock'", [host.now_ms()] * 2)
    db.commit()
    db.close()
    bench.ok("claude_control.py", "send", f"{session}:orchestrator", "--wait", "20", "Go on")  # wakes the scheduler
    arrived = "SELECT 1 FROM messages WHERE kind = 'check_in' AND status = 'acknowledged' AND body LIKE '%the clock%'"
    wait_for(lambda: bench.rows(arrived), "the check-in to arrive")
    wait_for(lambda: agents.state_of(developer(bench)) is AgentState.IDLE, "the developer to be idle again")


def comes_back(bench: Bench, session: str) -> None:
    """An agent that was killed is started again in its window, in its conversation, and can be told more."""
    before = developer(bench)
    assert before.process
    os.kill(before.process.pid, signal.SIGKILL)
    wait_for(lambda: not host.is_alive(before.process), "its end")
    bench.ok("auto_orchestrate.py", "--project", str(bench.folder / "webapp"), "--resume")
    after = developer(bench)
    assert host.is_alive(after.process) and after.process != before.process
    assert (after.window, after.conversation_id) == (before.window, before.conversation_id)
    assert sum(pane.agent == str(after.id) for pane in bench.tmux.panes()) == 1
    wait_for(lambda: agents.state_of(after) is AgentState.IDLE, "the developer to be idle again")
    is_told(bench, session, "Welcome back")


def stops(bench: Bench, session: str) -> None:
    before = team(bench)
    bench.ok("claude_control.py", "stop", session)
    assert not any(host.is_alive(agent.process) for agent in before)
    assert session not in {pane.session for pane in bench.tmux.panes()}


def team(bench: Bench) -> list[Agent]:
    db = bench.db()
    found = [agents.get(db, row["id"]) for row in db.execute("SELECT id FROM agents ORDER BY id").fetchall()]
    db.close()
    return found


def developer(bench: Bench) -> Agent:
    return next(agent for agent in team(bench) if agent.role == "developer")


def times(bench: Bench, text: str) -> int:
    """How often the developer has been told a text; it has been once, or will be soon: its hook comes first."""
    return wait_for(lambda: sum(text in prompt for prompt in prompts(developer(bench))), "it in the transcript")


def prompts(agent: Agent) -> list[str]:
    """Everything that was submitted to an agent, by its own transcript."""
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    return list(transcripts.prompts(path)) if path else []
