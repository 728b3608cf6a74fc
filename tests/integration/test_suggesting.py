"""What dynamic_team.py prints and writes, and which files of a repository count."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.errors import Unavailable
from lib.git import repository
from tests.conftest import Bench, commit_all, snapshot

DOOR = "dynamic_team.py"
INFRA = "infrastructure_as_code"


@pytest.fixture
def project(bench: Bench) -> Path:
    path = bench.project()
    (path / "main.tf").write_text("")
    commit_all(path, "Infrastructure")
    return path


def test_the_team_is_told_with_its_evidence_and_nothing_is_made(bench: Bench, project: Path) -> None:
    before = snapshot(project)
    assert bench.ok(DOOR, "--project", str(project), "--max-size", "2").out.splitlines() == [
        f"{project}: {INFRA}, detected with a weight of 10",
        "  1 tracked file matches /*.tf (7)",
        "  1 tracked file matches *.tf (3)",
        "2 roles:",
        "  orchestrator  every team has one: it takes the reports and closes the work",
        f"  devops        number 2 of the roles of {INFRA}, most needed first",
    ]
    assert snapshot(project) == before
    assert not bench.home.exists()


def test_the_team_as_json(bench: Bench, project: Path) -> None:
    (project / "wish.md").write_text("Implement it.\n")
    words = ("--project", str(project), "--spec", str(project / "wish.md"), "--max-size", "2", "--json")
    found = bench.ok(DOOR, *words).json
    assert (found["project"], found["type"], found["scores"][INFRA]) == (str(project), INFRA, 10)
    assert found["evidence"] == [
        {"what": "/*.tf", "weight": 7, "files": 1},
        {"what": "*.tf", "weight": 3, "files": 1},
    ]
    assert found["roles"][1] == {"role": "developer", "why": "the spec says 'implement'"}
    assert found["reason"] == f"{INFRA} by the files of the project, at most 2"


def test_a_team_of_one_is_the_orchestrator(bench: Bench, project: Path) -> None:
    found = bench.ok(DOOR, "--project", str(project), "--max-size", "1", "--json").json
    assert [one["role"] for one in found["roles"]] == ["orchestrator"]
    assert bench.door(DOOR, "--project", str(project), "--max-size", "0").code == 2


def test_what_is_exported_is_a_team_type_as_it_stands(bench: Bench, project: Path) -> None:
    types = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "team_types"
    types.mkdir(parents=True)
    words = ("--project", str(project), "--export", str(types / "ours.yaml"))
    told = bench.ok(DOOR, *words, "--json").json
    assert told["exported"] == str(types / "ours.yaml")
    named = bench.ok(DOOR, "--project", str(project), "--type", "ours", "--json").json
    assert {one["role"] for one in named["roles"]} == {one["role"] for one in told["roles"]}
    # Its own export may be written again; somebody else's file may not.
    bench.ok(DOOR, *words)
    (types / "ours.yaml").write_text("summary: Mine.\nroles: [tester]\n")
    done = bench.door(DOOR, *words)
    assert (done.code, done.out) == (1, "")
    assert "is there and is not from dynamic_team.py" in done.err
    assert (types / "ours.yaml").read_text().startswith("summary: Mine.")


def test_only_tracked_files_count_and_whatever_they_are_called(bench: Bench, project: Path) -> None:
    (project / ".gitignore").write_text("ignored.py\n")
    (project / "a\nb c.tf").write_text("")
    commit_all(project, "More")
    for name in ("ignored.py", "untracked.py", "pyproject.toml"):
        (project / name).write_text("")
    assert sorted(repository.tracked_files(project)) == [".gitignore", "a\nb c.tf", "main.tf", "spec.md"]
    found = bench.ok(DOOR, "--project", str(project), "--json").json
    assert found["type"] == INFRA and not found["scores"]["code_project"]


def test_a_git_that_hangs_is_not_waited_for(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(repository, "_LISTING_SECONDS", 0.2)
    with pytest.raises(Unavailable, match=r"git ls-files in .* took longer"):
        repository.tracked_files(project)
