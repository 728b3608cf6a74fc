"""Before a launch: what `--check-spec` has understood of a spec, and what `--dry-run` shows of the plan."""

from __future__ import annotations

import pytest

from lib import host, planning, store
from lib.config import Settings
from lib.models import Program
from tests.conftest import Bench

SPEC = """# A \x1b[31mwish

DELIVERABLES:
1. A file

ACCEPTANCE CRITERIA:
- It is there [check: test -f a]
- It is nice
"""


def test_what_was_understood(bench: Bench) -> None:
    path = bench.folder / "wish.md"
    path.write_text(SPEC)
    done = bench.ok("auto_orchestrate.py", "--check-spec", "--spec", str(path))
    assert done.out == (f"{path}: A wish\n  C1  It is there [check: test -f a]\n  C2  It is nice\n  D1  A file\n")
    (found,) = bench.ok("auto_orchestrate.py", "--check-spec", "--spec", str(path), "--json").json
    assert found["criteria"][0] == {"id": "C1", "text": "It is there", "check": "test -f a", "line": 7}
    assert found["deliverables"] == [{"id": "D1", "text": "A file", "line": 4}]
    assert not bench.home.exists(), "it only reads"


def test_what_is_wrong_and_where(bench: Bench) -> None:
    path = bench.folder / "wish.md"
    path.write_text(SPEC.replace("test -f a]", "test -f a"))
    done = bench.door("auto_orchestrate.py", "--check-spec", "--spec", str(path))
    assert (done.code, done.out) == (1, "")
    assert f"{path}, line 7: the check is not closed by ]" in done.err
    assert bench.door("auto_orchestrate.py", "--check-spec").code == 2
    assert bench.door("auto_orchestrate.py", "--check-spec", "--resume").code == 2


def test_a_dry_run_shows_no_id_that_its_launch_will_not_have(bench: Bench) -> None:
    project = bench.project()
    words = ("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal", "--dry-run")
    (project.parent / "webapp-tmux-worktrees" / "developer").mkdir(parents=True)
    plan = bench.ok(*words, "--json").json
    assert plan["integration_branch"] == "orchestration/<id>-spec/integration"
    developer = next(one for one in plan["agents"] if one["role"] == "developer")
    assert developer["branch"] == "orchestration/<id>-spec/developer"
    assert developer["worktree"].endswith("-tmux-worktrees/developer-<id>"), "the folder of that name is taken"
    assert set(developer) == {"role", "window", "worktree", "branch", "why"}
    assert bench.ok(*words).out == bench.ok(*words).out


@pytest.mark.parametrize(("title", "recorded"), [("A \x1b]0;mine\x07wish", "A wish"), ("\x1b[31m", "spec")])
def test_a_title_is_recorded_as_a_terminal_can_carry_it(bench: Bench, title: str, recorded: str) -> None:
    project = bench.project(spec=f"# {title}\n")
    decided = planning.decide(
        store.connect(bench.home),
        planning.Stage(bench.home, bench.tmux, Settings()),
        project=project,
        spec_path=project / "spec.md",
        program=Program.REHEARSAL,
        now=host.now_ms(),
    )
    assert decided.orchestration.spec_title == recorded
