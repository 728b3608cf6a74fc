"""Journey A: from a spec to a briefed team that completes, with rehearsal agents."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import Bench, wait_for

THREE = ("--roles", "orchestrator,developer,tester", "--agent", "rehearsal")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


class TestFullOrchestration:
    def test_a_team_works_a_spec_to_its_completion(self, bench: Bench) -> None:
        project = bench.project()
        (project / "notes.txt").write_text("not committed yet")
        before, start = git(project, "status", "--porcelain"), git(project, "rev-parse", "HEAD").strip()

        done = bench.ok("auto_orchestrate.py", "--project", str(project), "--spec", str(project / "spec.md"), *THREE)

        assert "claude_control.py attach webapp-impl" in done.out
        team = bench.rows("SELECT * FROM agents ORDER BY window")
        assert [(agent["window"], agent["role"]) for agent in team] == [
            (0, "orchestrator"),
            (1, "developer"),
            (2, "tester"),
        ]
        panes = {pane.window: pane.window_name for pane in bench.tmux.panes() if pane.session == "webapp-impl"}
        assert panes == {0: "orchestrator", 1: "developer", 2: "tester"}
        wait_for(
            lambda: bench.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"),
            "completion",
            seconds=60,
        )
        briefings = bench.rows("SELECT status, attempts FROM messages WHERE kind = 'briefing'")
        assert briefings == [{"status": "acknowledged", "attempts": 1}] * 3
        # What the user has not committed is as it was; how the work comes to main is told by test_merging.py.
        head = git(Path(team[0]["worktree"]), "log", "--format=%s", f"{start}..HEAD")
        assert "rehearsal:" in head
        assert git(project, "status", "--porcelain") == before
        assert git(project, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"

    def test_every_agent_has_one_recurring_check_in(self, bench: Bench) -> None:
        project = bench.project()
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
        found = bench.rows(
            "SELECT agents.role, count(check_ins.id) AS n FROM agents LEFT JOIN check_ins"
            " ON check_ins.agent_id = agents.id AND interval_minutes IS NOT NULL GROUP BY agents.id"
        )
        assert found == [{"role": role, "n": 1} for role in ("orchestrator", "developer", "tester")]

    def test_launching_starts_the_scheduler(self, bench: Bench) -> None:
        project = bench.project()
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
        assert bench.ok("scheduler.py", "--status", "--json").json["running"]

    def test_the_demo_completes_and_leaves_its_result(self, bench: Bench) -> None:
        done = bench.ok("auto_orchestrate.py", "--demo", "--json")
        found = done.json
        assert found["status"] == "completed"
        assert found["program"] == "rehearsal"
        project = Path(found["project"])
        branch = found["agents"][0]["branch"]
        assert git(project, "ls-tree", "-r", "--name-only", branch).count("rehearsal/0") == 3
        # Its criteria: two closed by hand before the report, and one by the check that decided on it.
        counts = found["criteria"]
        assert (counts["total"], counts["hold"], counts["by_hand"]) == (3, 3, 2)
        shown = bench.ok("claude_control.py", "criteria", found["id"], "--json").json["criteria"]
        assert [one["state"] for one in shown] == ["closed by hand", "closed by hand", "holds"]
        assert shown[2]["last_check"]["exit_code"] == 0
