"""Journey J and the radar: a team of rehearsal agents hears of an overlap and of what has come into its branches."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lib import host
from tests.conftest import Bench, commit_all, wait_for

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"


def worktree(bench: Bench, role: str) -> Path:
    (row,) = bench.rows("SELECT worktree FROM agents WHERE role = ?", role)
    return Path(row["worktree"])


def heard(bench: Bench, text: str) -> list[str]:
    """The roles that have acknowledged a notice which holds a text."""
    rows = bench.rows(
        "SELECT role FROM messages JOIN agents ON agents.id = agent_id WHERE kind = 'notice'"
        " AND messages.status = 'acknowledged' AND instr(body, ?) ORDER BY window",
        text,
    )
    return [row["role"] for row in rows]


def test_a_team_is_told_by_the_scheduler_alone_and_brought_together_by_a_person(bench: Bench) -> None:
    project = bench.project(spec=HOLDS)
    words = ("--spec", str(project / "spec.md"), "--roles", "orchestrator,developer,tester", "--agent", "rehearsal")
    bench.ok("auto_orchestrate.py", *words)
    for role in ("developer", "tester"):
        (worktree(bench, role) / "app.py").write_text(f"by {role}\n")

    # A minute goes by.
    bench.db().execute("UPDATE orchestrations SET created_at = created_at - 60000")
    host.wake(bench.home)
    wait_for(lambda: heard(bench, "- app.py\n") == ["developer", "tester"], "both to hear of the overlap")

    commit_all(worktree(bench, "developer"), "The app")
    (project / "README").write_text("by the user\n")
    commit_all(project, "The user goes on")
    assert bench.ok("sync_coordinator.py", "sync", "webapp-impl").code == 0
    wait_for(lambda: len(heard(bench, "main has come into your branch")) == 3, "all to hear of what came in")
    assert (worktree(bench, "tester") / "README").read_text() == "by the user\n"
    assert (worktree(bench, "tester") / "app.py").read_text() == "by tester\n"

    (team,) = bench.ok("sync_dashboard.py", "--json").json["teams"]
    assert {one["role"]: (one["ahead"], one["behind"], one["dirty"]) for one in team["agents"]} == {
        "orchestrator": (0, 0, 0),
        "developer": (2, 0, 0),
        "tester": (0, 0, 1),
    }
    assert [one["overlaps"] for one in team["agents"]] == [
        [],
        [{"role": "tester", "files": ["app.py"]}],
        [{"role": "developer", "files": ["app.py"]}],
    ]
    done = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == "", "the user's checkout is as it was"
