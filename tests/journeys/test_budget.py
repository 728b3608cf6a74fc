"""A budget from the configuration to the pause and back, with rehearsal agents and a daemon that runs."""

from __future__ import annotations

from pathlib import Path

from lib import agents, host, messages
from lib.claude import transcripts
from lib.models import AgentState, MessageKind, Usage
from tests.conftest import Bench, wait_for
from tests.transcripts import Transcript, answer

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"


def launch(bench: Bench) -> Path:
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("agent: rehearsal\nbudget: {usd_per_day: 10}\n")
    project = bench.project(spec=HOLDS)
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer")
    return project


def status(bench: Bench, table: str) -> str:
    return str(bench.rows(f"SELECT status FROM {table}")[0]["status"])


def message(bench: Bench, role: str, body: str, *, sender: str) -> int:
    """Record a message as a sender does who leaves its delivery to the daemon."""
    db = bench.db()
    agent = next(one for one in agents.live(db) if one.role == role)
    made = messages.queue(db, agent, body, sender=sender, kind=MessageKind.MESSAGE, now=host.now_ms())
    db.close()
    host.wake(bench.home)
    return made.id


def await_message(bench: Bench, message_id: int, wanted: str, *, reason: str = "") -> None:
    def is_there() -> bool:
        (row,) = bench.rows("SELECT status, reason FROM messages WHERE id = ?", message_id)
        return row["status"] == wanted and reason in (row["reason"] or "")

    wait_for(is_there, f"message {message_id} to be {wanted} {reason}")


def test_a_budget_of_the_configuration_holds_a_team_until_it_is_extended(bench: Bench) -> None:
    project = launch(bench)
    assert bench.ok("claude_control.py", "budget", "show").out == "webapp-impl: $10.00 a day, $0.00 used (0%), open\n"
    db = bench.db()
    team = {agent.role: agent for agent in agents.live(db)}
    wait_for(lambda: {agents.state_of(one) for one in team.values()} == {AgentState.IDLE}, "the first turns to end")
    path = transcripts.find(team["developer"].config_dir, team["developer"].conversation_id)
    assert path
    Transcript(path).write(answer(Usage(output=600_000), at=host.now_ms()))
    message(bench, "developer", "hello", sender="user")  # the end of its turn is when it is counted
    wait_for(lambda: status(bench, "budgets") == "spent", "the budget to be spent")

    (told,) = bench.rows("SELECT * FROM messages WHERE kind = 'notice' AND sender = 'scheduler'")
    await_message(bench, told["id"], "acknowledged")
    held = message(bench, "developer", "something new", sender="user")
    await_message(bench, held, "queued", reason="wraps up until ")
    to_wrap_up = message(bench, "developer", "commit what you have", sender="orchestrator")
    await_message(bench, to_wrap_up, "acknowledged")
    await_message(bench, held, "queued", reason="wraps up until ")

    db.execute("UPDATE budgets SET pause_at = ?", (host.now_ms(),))  # the grace is over
    host.wake(bench.home)
    wait_for(lambda: status(bench, "orchestrations") == "paused", "the team to be paused")
    refused = bench.door("auto_orchestrate.py", "--project", str(project), "--resume")
    assert (refused.code, "claude_control.py budget extend webapp-impl --usd 5" in refused.err) == (5, True)
    late = message(bench, "developer", "commit what you have", sender="orchestrator")
    await_message(bench, late, "queued", reason="paused: the budget of $10.00 a day is used up")
    assert "paused: the budget" in bench.ok("claude_control.py", "status").out

    bench.ok("claude_control.py", "budget", "extend", "webapp-impl", "--usd", "5")
    assert status(bench, "orchestrations") == "running"
    (row,) = bench.rows("SELECT id FROM messages WHERE body LIKE 'A budget was used up%'")
    for number in (row["id"], held, late):
        wait_for(lambda number=number: not _waits(bench, number), f"message {number} to arrive")  # type: ignore[misc]
    db.close()


def _waits(bench: Bench, message_id: int) -> bool:
    (row,) = bench.rows("SELECT status, carried_by FROM messages WHERE id = ?", message_id)
    return str(row["status"]) != "acknowledged"
