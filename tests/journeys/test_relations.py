"""Journey L: a backend's insights and its delivery reach the team of the frontend once, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lib import host, service
from lib.claude import transcripts
from tests.conftest import Bench, commit_all, wait_for

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
TEAM = ("--roles", "orchestrator,developer", "--agent", "rehearsal")


def launch(bench: Bench, project: Path) -> str:
    """Launch a team. Returns what is said meanwhile."""
    return bench.ok("auto_orchestrate.py", "--project", str(project), "--spec", str(project / "spec.md"), *TEAM).err


def learn(bench: Bench, text: str) -> str:
    return bench.ok("claude_control.py", "insight", "add", text, "--project", "backend").out


def told(bench: Bench) -> list[tuple[str, str]]:
    """Session and status of every message that tells of a related project."""
    rows = bench.rows(
        "SELECT session, messages.status FROM messages JOIN agents ON agents.id = agent_id"
        " WHERE sender = 'related-project' ORDER BY messages.id"
    )
    return [(row["session"], row["status"]) for row in rows]


def times_read(bench: Bench, text: str) -> int:
    """How many prompts of the frontend's Orchestrators hold a text, by their own transcripts."""
    rows = bench.rows(
        "SELECT config_dir, conversation_id FROM agents WHERE session = 'frontend-impl' AND role = 'orchestrator'"
    )
    found = [transcripts.find(Path(row["config_dir"]), row["conversation_id"]) for row in rows]
    return sum(text in prompt for path in found if path for prompt in transcripts.prompts(path))


def kill(bench: Bench, *, errand: str = "") -> None:
    """End the daemon at once, and an errand by the words of its command line; what they do is left as it is."""
    running = service.running(bench.home)
    assert running
    pids = [running.pid]
    if errand:
        pids += [pid for pid, words in bench.command_lines().items() if errand in words]
        assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(host.process(pid) for pid in pids), "them to end")


def test_what_is_new_in_a_project_reaches_the_team_that_it_concerns_once(bench: Bench) -> None:
    backend, frontend = bench.project("backend"), bench.project("frontend", spec=HOLDS)
    begun, go = bench.folder / "begun", bench.folder / "go"
    check = f"sh -c 'touch {begun}; while test ! -e {go}; do sleep 0.05; done'"
    (backend / ".tmux-orchestrator.yaml").write_text(f"relates_to: [../frontend]\ncheck: {check}\n")
    (frontend / ".tmux-orchestrator.yaml").write_text("relates_to: [../backend, ../docs]\n")
    for project in (backend, frontend):
        commit_all(project, "Say whom it concerns")
    bench.environment["PROJECTS_DIR"] = str(bench.folder)
    assert "relates_to: '../docs' names no project" in launch(bench, frontend)

    # An insight is recorded, and whoever would bring it is killed before it can.
    bench.ok("claude_control.py", "pause", "frontend-impl")
    assert "notice" in learn(bench, "Amounts are cents")
    kill(bench)
    assert told(bench) == [("frontend-impl", "queued")]
    bench.ok("claude_control.py", "resume", "frontend-impl")
    wait_for(lambda: told(bench) == [("frontend-impl", "acknowledged")], "the insight to arrive")
    assert "known already" in learn(bench, "Amounts are cents")

    # The same for a delivery, whose errand is killed at work.
    launch(bench, backend)
    wait_for(begun.exists, "the check of the backend's work", seconds=60)
    kill(bench, errand="merge-run")
    go.touch()
    learn(bench, "Dates are UTC")
    wait_for(lambda: told(bench) == [("frontend-impl", "acknowledged")] * 3, "the delivery to arrive", seconds=60)
    # A prompt is acknowledged by its hook, right before it stands in the transcript.
    wait_for(lambda: times_read(bench, "has delivered"), "the delivery in the transcript")
    assert [times_read(bench, text) for text in ("Amounts are cents", "Dates are UTC", "has delivered")] == [1, 1, 1]
    assert bench.rows("SELECT delivery FROM integrations") == [{"delivery": "delivered"}]
    assert bench.rows("SELECT 1 FROM bulletins WHERE for_project = ?", str(backend)) == [], "nobody is told of it again"

    # Nobody is there: the next team is briefed of it, and the one after that is not.
    bench.ok("claude_control.py", "stop", "frontend-impl")
    assert "comes with the next briefing" in learn(bench, "Ids are strings")
    launch(bench, frontend)
    wait_for(lambda: times_read(bench, "Ids are strings") == 1, "the briefing in the transcript")
    bench.ok("claude_control.py", "stop", "frontend-impl")
    launch(bench, frontend)
    assert [times_read(bench, text) for text in ("Ids are strings", "Amounts are cents", "has delivered")] == [1, 1, 1]
    assert len(told(bench)) == 3
