"""Git mode github, with a bare repository as remote and a stand-in for gh: what is pushed, and what a failure does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lib.git import remotes
from lib.models import GitMode
from tests.conftest import Bench
from tests.integration.offering_team import OfferingTeam, make

#: Records its arguments, one a line; finds no pull request and opens one.
GH = """#!/bin/sh
printf '%s\\n' "$@" >> "$GH_SAID"
echo -- >> "$GH_SAID"
[ "$2" = create ] || exit 1
echo https://github.example/pull/7
"""


@pytest.fixture
def shared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> OfferingTeam:
    """A team in git mode github, in a clone of a bare repository."""
    for name in [name for name in os.environ if name not in bench.environment]:
        monkeypatch.delenv(name)
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    programs = bench.folder / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("GH_SAID", str(bench.folder / "gh.said"))
    team = make(bench, git_mode=GitMode.GITHUB)
    team.git("init", "-q", "--bare", str(bench.folder / "remote.git"))
    team.git("remote", "add", "origin", str(bench.folder / "remote.git"))
    team.git("push", "-q", "origin", "main")
    team.git("branch", "private")
    team.git("tag", "private-tag")
    return team


def remote(team: OfferingTeam) -> dict[str, str]:
    """The refs of the remote."""
    lines = team.git("ls-remote", str(team.bench.folder / "remote.git"), "refs/*").splitlines()
    return {name.removeprefix("refs/heads/"): commit for commit, name in (line.split("\t") for line in lines)}


def install_gh(team: OfferingTeam) -> Path:
    program = team.bench.folder / "programs" / "gh"
    program.write_text(GH)
    program.chmod(0o755)
    return team.bench.folder / "gh.said"


def complete(team: OfferingTeam) -> None:
    team.commit("orchestrator", b_txt="b\n")
    team.complete()
    team.merge()


def test_the_integration_is_pushed_when_it_has_moved_and_nothing_else(shared: OfferingTeam) -> None:
    start = remote(shared)
    shared.work("developer", a_txt="a\n")
    shared.merge()
    assert remote(shared) == {**start, shared.integration: shared.git("rev-parse", shared.integration)}
    assert shared.events("integration.pushed") == 1


def test_what_is_delivered_is_pushed(shared: OfferingTeam) -> None:
    complete(shared)
    assert shared.state().delivery == "delivered"
    assert remote(shared)["main"] == shared.git("rev-parse", "main")
    assert set(remote(shared)) == {"main", shared.integration}


def test_in_git_mode_local_nothing_is_pushed(shared: OfferingTeam) -> None:
    install_gh(shared)
    shared.db.execute("UPDATE orchestrations SET git_mode = 'local'")
    start = remote(shared)
    complete(shared)
    assert (shared.state().delivery, remote(shared)) == ("delivered", start)
    assert not (shared.bench.folder / "gh.said").exists()


def test_one_pull_request_is_opened_when_the_work_is_complete(shared: OfferingTeam) -> None:
    said = install_gh(shared)
    shared.work("developer", a_txt="a\n")
    shared.merge()
    assert not said.exists()
    complete(shared)
    asked, made = (part.splitlines() for part in said.read_text().split("--\n")[:2])
    assert asked == ["pr", "view", shared.integration, "--json=url", "--jq=.url"]
    assert made[:5] == ["pr", "create", "--base=main", f"--head={shared.integration}", "--title=A spec"]
    assert shared.state().pull_request == "https://github.example/pull/7"
    shared.merge()
    assert said.read_text().count("--\n") == 2


def test_a_push_that_fails_stops_nothing_and_is_told_once(shared: OfferingTeam) -> None:
    refuse = shared.bench.folder / "remote.git" / "hooks" / "pre-receive"
    refuse.parent.mkdir(exist_ok=True)
    refuse.write_text("#!/bin/sh\necho not here >&2\nexit 1\n")
    refuse.chmod(0o755)
    for role in ("developer", "tester"):
        shared.work(role, **{f"{role}_txt": "x\n"})
        shared.merge()
    assert shared.states() == {"developer": "merged", "tester": "merged"}
    assert shared.events("integration.not_shared") == 2
    (notice,) = shared.notices()
    assert notice["title"] == f"webapp-impl: {shared.integration} was not pushed"
    assert "not here" in notice["body"]
    refuse.unlink()
    complete(shared)
    assert remote(shared)["main"] == shared.git("rev-parse", "main")


def test_a_remote_that_has_moved_is_never_forced(shared: OfferingTeam) -> None:
    shared.work("developer", a_txt="a\n")
    shared.merge()
    bare = shared.bench.folder / "remote.git"
    person = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    other = shared.git(*person, "commit-tree", "-m", "Theirs", f"{shared.git('rev-parse', 'main')}^{{tree}}", at=bare)
    shared.git("update-ref", f"refs/heads/{shared.integration}", other, at=bare)
    shared.work("tester", b_txt="b\n")
    shared.merge()
    assert remote(shared)[shared.integration] == other
    assert "rejected" in shared.notices()[0]["body"]


def test_a_pull_request_that_fails_stops_nothing(shared: OfferingTeam) -> None:
    install_gh(shared).with_name("programs").joinpath("gh").write_text("#!/bin/sh\necho not logged in >&2\nexit 4\n")
    complete(shared)
    assert (shared.state().delivery, shared.state().pull_request) == ("delivered", None)
    assert "gh pr create failed: not logged in" in shared.notices()[-1]["body"]


def test_without_a_remote_it_is_said(shared: OfferingTeam) -> None:
    shared.git("remote", "remove", "origin")
    complete(shared)
    assert shared.state().delivery == "delivered"
    assert "has no remote to push to" in shared.notices()[-1]["body"]


CHOSEN = [
    # Nobody says anything.
    ((), "", "local"),
    ((), "git_mode: github\n", "github"),
    # The command line comes before the project's settings.
    (("--git-mode", "local"), "git_mode: github\n", "local"),
    (("--git-mode", "github"), "", "github"),
]


@pytest.mark.parametrize(("words", "settings", "mode"), CHOSEN)
def test_who_says_which_git_mode_a_team_has(bench: Bench, words: tuple[str, ...], settings: str, mode: str) -> None:
    project = bench.project()
    (project / ".tmux-orchestrator.yaml").write_text(settings)
    spec = ("--spec", str(project / "spec.md"), "--agent", "rehearsal")
    plan = bench.ok("auto_orchestrate.py", *spec, *words, "--dry-run", "--json").json
    assert plan["git_mode"] == mode


def test_a_queued_spec_keeps_its_git_mode(bench: Bench) -> None:
    config = bench.folder / "config.yaml"
    config.write_text("auto_start: false\n")
    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(config)
    project = bench.project()
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--batch", "--git-mode", "github")
    (project / "other.md").write_text("# Other\n")
    batch = {"specs": [{"spec": str(project / "other.md"), "git_mode": "github"}]}
    (bench.folder / "batch.json").write_text(json.dumps(batch))
    bench.ok("auto_orchestrate.py", "--batch-file", "batch.json")
    options = [json.loads(row["options"]) for row in bench.rows("SELECT options FROM queue_entries")]
    assert options == [{"git_mode": "github"}] * 2


REMOTES = [
    # The branch's own before all others.
    (["origin", "mine"], "mine", "mine"),
    # Of several, origin.
    (["fork", "origin"], None, "origin"),
    # The only one, whatever its name is.
    (["upstream"], None, "upstream"),
    # What a branch follows in the repository itself is no remote.
    (["origin"], ".", "origin"),
]


@pytest.mark.parametrize(("names", "of_branch", "expected"), REMOTES)
def test_where_a_project_is_pushed_to(bench: Bench, names: list[str], of_branch: str | None, expected: str) -> None:
    team = make(bench)
    for name in names:
        team.git("remote", "add", name, str(bench.folder / name))
    if of_branch:
        team.git("config", "branch.main.remote", of_branch)
    assert remotes.remote_of(team.project, "main") == expected
