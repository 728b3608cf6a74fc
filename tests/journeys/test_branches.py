"""What a whole team does with git: its commits are signed and handed over, and lead back to the spec."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Bench, commit_all, wait_for

TEAM = ("--roles", "orchestrator,developer,tester,testrunner", "--agent", "rehearsal")


def git(folder: Path, *arguments: str, at: dict[str, Any] | None = None) -> str:
    """Run git in a folder; with `at` on the branch of an agent, for a range that ends in two dots."""
    words = [f"{word}{at['branch']}" if at and word.endswith("..") else word for word in arguments]
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class TestBranches:
    def test_a_team_hands_its_commits_over_and_each_tells_where_it_comes_from(self, bench: Bench) -> None:
        project = bench.project()
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *TEAM)
        wait_for(lambda: self.status(bench) == "completed", "completion", seconds=60)
        agents = {row["role"]: row for row in bench.rows("SELECT * FROM agents")}

        # Every commit of an agent is signed, whatever way it was made; what was merged in is its author's.
        log = git(project, "log", "--no-merges", "--format=%(trailers:unfold)", "main..", at=agents["orchestrator"])
        blocks = [block.splitlines() for block in log.split("\n\n") if block]
        assert {line for block in blocks for line in block if line.startswith("Orch")} == {
            f"Orchestration: {agents['developer']['orchestration_id']}"
        }
        assert {block[1] for block in blocks} >= {"Agent-Role: developer", "Agent-Role: tester"}

        # A commit of the developer leads to the order for it, and that to the briefing.
        commit = git(project, "rev-list", "--no-merges", "--first-parent", "-1", "main..", at=agents["developer"])
        said = bench.ok("claude_control.py", "why", commit[:10], cwd=project)
        lines = said.out.splitlines()
        assert lines[0].startswith(commit[:10]) and "by webapp-impl:developer" in lines[1]
        assert "at work on message" in lines[2] and "from orchestrator" in lines[2]
        assert "which came of its briefing" in lines[-2]
        assert lines[-1] == f"  from the spec: Greeting ({project / 'spec.md'})"
        found = bench.ok("claude_control.py", "why", commit, "--project", str(project), "--json").json
        assert (found["role"], found["messages"][-1]["kind"]) == ("developer", "briefing")

        # What is not an agent's is said to be none, and an option is no commit.
        first = git(project, "rev-list", "--max-parents=0", "main")
        for word in (first, "no-such-commit", "--output=x"):
            done = bench.door("claude_control.py", "why", "--project", str(project), "--", word)
            assert (done.code == 3 and word.strip("-") in done.err) or "made by no agent" in done.err

        # Guarded as long as the team is there, and free afterwards.
        worktree = Path(agents["developer"]["worktree"])
        refused = subprocess.run(["git", "branch", "mine"], cwd=worktree, capture_output=True, text=True, check=False)
        assert refused.returncode != 0 and "refused to change mine" in refused.stderr
        wait_for(lambda: "refused" in bench.ok("claude_control.py", "audit").out, "the audit")
        (event,) = bench.ok("claude_control.py", "audit", "webapp-impl", "--json").json
        assert (event["agent"], event["ref"]) == ("webapp-impl:developer", "refs/heads/mine")
        bench.ok("claude_control.py", "stop", "webapp-impl")
        git(worktree, "branch", "mine")

    def test_a_commit_is_told_to_the_next_role_by_the_hook_that_it_runs(self, bench: Bench) -> None:
        project = bench.project(spec="# A spec that takes its time\n\nrehearse: hold\n")
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *TEAM)
        developer = bench.rows("SELECT * FROM agents WHERE role = 'developer'")[0]
        (Path(developer["worktree"]) / "parser.py").write_text("x = 1\n")
        commit_all(Path(developer["worktree"]), "Parse the header")

        def told() -> Any:
            return bench.rows(
                "SELECT role, messages.status FROM messages JOIN agents ON agents.id = agent_id"
                " WHERE body LIKE 'developer has committed to %Parse the header%parser.py%git merge%'"
            )

        wait_for(lambda: told() == [{"role": "tester", "status": "acknowledged"}], "the tester to hear of it")
        log = git(Path(developer["worktree"]), "log", "-1", "--format=%(trailers:key=Message-Id,valueonly)")
        (briefing,) = bench.rows("SELECT id FROM messages WHERE kind = 'briefing' AND agent_id = ?", developer["id"])
        assert log == str(briefing["id"])

        # How long it took is known from what hooks of git and of the agent have told, and so is the tester's answer.
        def lane() -> Any:
            return bench.ok("claude_control.py", "handovers", "webapp-impl", "--json").json[0]["lanes"][0]

        shown = lane()
        assert (shown["role"], shown["taker"], shown["told"]["count"]) == ("developer", "tester", 1)
        assert (shown["answered"]["count"], shown["unanswered"]) == (0, 1)
        worktree = Path(bench.rows("SELECT worktree FROM agents WHERE role = 'tester'")[0]["worktree"])
        git(worktree, "merge", "-q", developer["branch"])
        (worktree / "test_parser.py").write_text("assert True\n")
        commit_all(worktree, "Test the header")
        wait_for(lambda: lane()["answered"]["count"] == 1, "the tester's answer")

    def status(self, bench: Bench) -> Any:
        return bench.rows("SELECT status FROM orchestrations")[0]["status"]
