"""What ai_team_refiner.py says without asking anybody: the rules alone, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Bench, commit_all, snapshot

DOOR = "ai_team_refiner.py"
TEAM = ("--team", "orchestrator,developer,tester")


@pytest.fixture
def project(bench: Bench) -> Path:
    path = bench.project()
    (path / "main.tf").write_text("")
    commit_all(path, "Infrastructure")
    # Nobody could be asked.
    bench.environment["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:9"
    return path


def test_the_rules_alone_say_so_and_change_nothing(bench: Bench, project: Path) -> None:
    before = snapshot(project)
    words = ("--project", str(project), *TEAM, "--mock")
    text = bench.ok(DOOR, *words).out
    assert text.splitlines() == [
        f"{project}: orchestrator, developer, tester",
        "by the rules alone (--mock): no AI was asked",
        "  + devops        number 2 of the roles of infrastructure_as_code, most needed first",
        "  + sysadmin      number 3 of the roles of infrastructure_as_code, most needed first",
        "  + securityops   number 5 of the roles of infrastructure_as_code, most needed first",
        "  - developer     no role of infrastructure_as_code, and the spec does not need it",
        "summary: infrastructure_as_code by the files of the project, medium size",
        "nothing is launched; this launches it:",
        f"  auto_orchestrate.py --project {project} --spec SPEC"
        " --roles orchestrator,tester,devops,sysadmin,securityops",
    ]
    assert bench.ok(DOOR, *words).out == text
    found = bench.ok(DOOR, *words, "--json").json
    assert (found["mock"], found["by"], found["cost_usd"]) == (True, "rules", None)
    assert [one["role"] for one in found["add"]] == ["devops", "sysadmin", "securityops"]
    assert snapshot(project) == before
    assert not bench.home.exists()


def test_the_command_that_it_prints_launches_that_team(bench: Bench, project: Path) -> None:
    spec = project / "a spec.md"
    spec.write_text("# A wish\n\nImplement it.\n")
    found = bench.ok(DOOR, "--project", str(project), *TEAM, "--spec", str(spec), "--mock", "--json").json
    # The spec says a word that needs the developer.
    assert found["leave_out"] == []
    assert f"--spec '{spec}'" in found["command"]
    done = subprocess.run(
        ["bash", "-c", f"./{found['command']} --dry-run --json"],
        cwd=Path(__file__).parents[2],
        env=bench.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(f'"{role}"' in done.stdout for role in found["roles"])


def test_without_a_team_it_begins_with_the_one_that_a_launch_would_get(bench: Bench, project: Path) -> None:
    found = bench.ok(DOOR, "--project", str(project), "--mock", "--json").json
    assert found["team"] == found["roles"] == ["orchestrator", "tester", "devops", "sysadmin", "securityops"]
    (project / "wish.md").write_text("Implement it.\n")
    spec = ("--spec", str(project / "wish.md"))
    assert "developer" in bench.ok(DOOR, "--project", str(project), *spec, "--mock", "--json").json["team"]
    assert "nothing to change" in bench.ok(DOOR, "--project", str(project), "--mock").out


REFUSED = [
    (2, "unknown role wizard", ("--team", "developer,wizard", "--mock")),
    (2, "unknown role (none given)", ("--team", "", "--mock")),
    (2, "--mock asks nobody", ("--mock", "--by", "api")),
    (3, "no spec at", ("--spec", "none.md", "--mock")),
    (5, "ANTHROPIC_API_KEY is not set", ("--by", "api")),
    (5, "Claude Code is not installed", ()),
]


@pytest.mark.parametrize(("code", "words", "options"), REFUSED)
def test_what_is_refused(bench: Bench, project: Path, code: int, words: str, options: tuple[str, ...]) -> None:
    bench.environment["PATH"] = "/usr/bin:/bin"
    done = bench.door(DOOR, "--project", str(project), *options)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
