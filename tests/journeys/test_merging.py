"""Journey I: from a spec to the starting branch, with rehearsal agents and a check of the project's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import Bench, commit_all, wait_for

TEAM = ("--roles", "orchestrator,developer,tester,testrunner,project_manager", "--agent", "rehearsal")
CHECK = "check: sh -c 'echo checked >> LOG; test ! -e rehearsal/check.sh || sh rehearsal/check.sh'\n"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_teams_work_comes_to_the_branch_that_it_started_from(bench: Bench) -> None:
    project, log = bench.project(), bench.folder / "checks.log"
    (project / ".tmux-orchestrator.yaml").write_text(CHECK.replace("LOG", str(log)))
    commit_all(project, "Say how it is checked")
    (project / "notes.txt").write_text("mine, and in no commit\n")
    start = git(project, "rev-parse", "main")

    bench.ok("auto_orchestrate.py", "--project", str(project), "--spec", str(project / "spec.md"), *TEAM)

    wait_for(lambda: bench.rows("SELECT 1 FROM integrations WHERE delivery = 'delivered'"), "delivery", seconds=90)
    branches = bench.rows("SELECT branches FROM orchestrations")[0]["branches"]
    found = bench.rows("SELECT role, status FROM candidates JOIN agents ON agents.id = agent_id ORDER BY window")
    assert {(row["role"], row["status"]) for row in found} == {
        (role, "merged") for role in ("orchestrator", "developer", "tester", "testrunner", "project_manager")
    }
    assert git(project, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert git(project, "status", "--porcelain") == "?? notes.txt"
    for branch in ("integration", *(row["role"] for row in found)):
        git(project, "merge-base", "--is-ancestor", f"{branches}/{branch}", "main")
    git(project, "merge-base", "--is-ancestor", start, "main")
    assert git(project, "rev-parse", git(project, "tag")) == git(project, "rev-parse", "main")
    assert (project / "rehearsal" / "check.sh").exists()
    assert log.read_text().startswith("checked\n")
    assert "work    delivered to main as" in bench.ok("claude_control.py", "status").out
    assert list((bench.home / "merging").iterdir()) == []


def test_the_next_spec_of_a_project_starts_from_what_the_one_before_has_delivered(bench: Bench) -> None:
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("agent: rehearsal\nqueue: {linger_minutes: 0.001}\n")
    project = bench.project()
    for name in ("first", "second"):
        (project / f"{name}.md").write_text(f"# {name}\n")
    words = ("--spec", str(project / "first.md"), "--spec", str(project / "second.md"), "--roles", "orchestrator")

    bench.ok("auto_orchestrate.py", *words)

    done = "SELECT 1 FROM queue_entries WHERE status = 'succeeded'"
    wait_for(lambda: len(bench.rows(done)) == 2, "both specs", seconds=90)
    first, second = bench.rows(
        "SELECT starting_commit, wanted, tag FROM orchestrations JOIN integrations ON orchestration_id = id"
        " ORDER BY created_at"
    )
    assert second["starting_commit"] == first["wanted"]
    assert git(project, "rev-parse", "main") == second["wanted"]
    assert sorted(git(project, "tag").split()) == sorted((first["tag"], second["tag"]))
