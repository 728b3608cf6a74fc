"""Journey A: from a spec to a briefed team that completes, with rehearsal agents."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from lib import host
from tests.conftest import Bench, wait_for

THREE = ("--roles", "orchestrator,developer,tester", "--agent", "rehearsal")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


class TestFullOrchestration:
    def test_a_team_works_a_spec_to_its_completion(self, bench: Bench) -> None:
        project = bench.project()
        (project / "notes.txt").write_text("not committed yet")
        before = git(project, "status", "--porcelain")

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
        # The work is on the team's own branches; the user's checkout is as it was.
        head = git(Path(team[0]["worktree"]), "log", "--format=%s", "main..HEAD")
        assert "rehearsal:" in head
        assert git(project, "status", "--porcelain") == before
        assert git(project, "rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
        assert git(project, "log", "--oneline", "main").count("\n") == 1

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


class TestResume:
    def test_a_killed_agent_comes_back_in_its_conversation(self, bench: Bench) -> None:
        project = bench.project()
        bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"  # the team is still at work meanwhile
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
        before = bench.rows("SELECT * FROM agents ORDER BY window")
        (Path(before[1]["worktree"]) / "draft.txt").write_text("not committed")
        os.kill(before[1]["pid"], signal.SIGKILL)
        wait_for(lambda: bench.ok("claude_control.py", "status", "--json").json, "status")

        done = bench.ok("auto_orchestrate.py", "--project", str(project), "--resume")

        after = bench.rows("SELECT * FROM agents ORDER BY window")
        assert [agent["epoch"] for agent in after] == [1, 2, 1]
        assert [agent["pid"] == old["pid"] for agent, old in zip(after, before, strict=True)] == [
            True,
            False,
            True,
        ]
        assert [agent["conversation_id"] for agent in after] == [agent["conversation_id"] for agent in before]
        assert after[1]["pane_id"] == before[1]["pane_id"]
        assert (Path(after[1]["worktree"]) / "draft.txt").read_text() == "not committed"
        briefings = bench.rows("SELECT attempts FROM messages WHERE kind = 'briefing'")
        assert briefings == [{"attempts": 1}] * 3
        assert "running" in done.out

    def test_a_lost_tmux_server_comes_back_with_the_same_worktrees(self, bench: Bench) -> None:
        project = bench.project()
        bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
        before = bench.rows("SELECT worktree, branch, conversation_id FROM agents ORDER BY window")
        bench.tmux.run("kill-server")
        bench.ok("auto_orchestrate.py", "--project", str(project), "--resume")
        assert bench.rows("SELECT worktree, branch, conversation_id FROM agents ORDER BY window") == before
        assert {pane.window_name for pane in bench.tmux.panes()} == {"orchestrator", "developer", "tester"}

    def test_status_only_changes_nothing(self, bench: Bench) -> None:
        project = bench.project()
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
        wait_for(
            lambda: bench.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"), "completion", seconds=60
        )
        bench.ok("scheduler.py", "--stop")
        pids = [pane.pid for pane in bench.tmux.panes()]
        bench.tmux.run("kill-server")
        wait_for(lambda: all(host.process(pid) is None for pid in pids), "the agents' end")
        before = contents(bench.folder)
        done = bench.ok("auto_orchestrate.py", "--project", str(project), "--resume", "--status-only")
        assert "webapp-impl: completed" in done.out
        assert contents(bench.folder) == before


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, but for the side files of SQLite, which a reader makes and removes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {path: path.read_bytes() for path in files}
