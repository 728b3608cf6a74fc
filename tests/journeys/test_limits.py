"""Journey D with rehearsal agents: a short limit, from the refusal until the last agent has gone on."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Bench, wait_for

SPEC = "# A spec that takes its time\n\nrehearse: hold\n"


def test_a_team_goes_on_by_itself_after_a_limit(bench: Bench) -> None:
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("agent: rehearsal\nlimits: {grace_seconds: 1, spacing_seconds: 1}\n")
    project = bench.project(spec=SPEC)
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer")
    bench.ok("claude_control.py", "send", "webapp-impl:developer", "rehearse: limit 0.25")
    wait_for(lambda: bench.rows("SELECT 1 FROM limits"), "the refusal")
    done = bench.ok("claude_control.py", "send", "webapp-impl:orchestrator", "Are you there?")
    assert done.out.startswith("queued: limited until ")
    status = bench.ok("claude_control.py", "status").out
    assert "limited" in status and "limited until " in status
    assert bench.door("credit_management/check_agent_health.sh", "webapp-impl").code == 5
    wait_for(lambda: bench.rows("SELECT 1 FROM limits WHERE ended_at IS NOT NULL"), "the end of the limit")
    assert bench.door("credit_management/check_agent_health.sh", "webapp-impl").code == 0
    wait_for(
        lambda: not bench.rows("SELECT 1 FROM messages WHERE status NOT IN ('acknowledged')"), "all to have arrived"
    )
    kinds = [row["kind"] for row in bench.rows("SELECT kind FROM events WHERE kind LIKE 'limit.%' ORDER BY id")]
    assert kinds == ["limit.hit", "limit.tried", "limit.released", "limit.over", "limit.released", "limit.ended"]
    (note,) = bench.rows("SELECT agent_id FROM messages WHERE body LIKE 'Your last turn was cut off%'")
    (refused,) = bench.rows("SELECT refused_by FROM limits")
    assert note["agent_id"] == refused["refused_by"]
