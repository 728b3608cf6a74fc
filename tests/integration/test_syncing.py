"""Bringing worktrees together by sync_coordinator.py: what comes in, what is refused, and that no work is touched."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import history, host, messages, orchestrations, store
from lib.errors import ExitCode
from lib.git import merges, snapshots
from lib.models import Agent
from lib.together import bringing
from tests.conftest import Bench, Done, commit_all, snapshot
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


def git(folder: Path, *words: str, check: bool = True) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"git {words}: {done.stderr}"
    return done.stdout.strip()


LINES = [f"line {number}\n" for number in range(20)]


def changed(number: int, text: str) -> str:
    """The common file with another line at one place."""
    return "".join([*LINES[:number], f"{text}\n", *LINES[number + 1 :]])


@dataclass
class Team:
    """A team that began on `develop`, whose project goes on; the tests act for its agents."""

    still: StillTeam

    @property
    def bench(self) -> Bench:
        return self.still.bench

    @property
    def project(self) -> Path:
        return orchestrations.get(self.still.db, self.still.id).project

    def agent(self, role: str) -> Agent:
        return self.still.agent(role)

    def worktree(self, role: str) -> Path:
        return self.agent(role).worktree

    def write(self, role: str, name: str, text: str) -> None:
        (self.worktree(role) / name).write_text(text)

    def commit(self, role: str, name: str, text: str) -> str:
        self.write(role, name, text)
        commit_all(self.worktree(role), f"{role}: {name}")
        return git(self.worktree(role), "rev-parse", "HEAD")

    def advance(self, name: str, text: str) -> str:
        """The user commits to the starting branch."""
        (self.project / name).write_text(text)
        commit_all(self.project, f"user: {name}")
        return git(self.project, "rev-parse", "develop")

    def head(self, role: str) -> str:
        return git(self.worktree(role), "rev-parse", "HEAD")

    def read(self, role: str, name: str) -> str:
        return (self.worktree(role) / name).read_text()

    def sync(self, *words: str) -> Done:
        return self.bench.door("sync_coordinator.py", "sync", *(words or ("webapp-impl",)))

    def results(self, *words: str) -> dict[str, str]:
        """What became of each role."""
        (found,) = self.sync(*(words or ("webapp-impl",)), "--json").json
        return {one["role"]: one["result"] for one in found["agents"]}

    def told(self, role: str) -> list[str]:
        return [body for _sender, body in self.still.told(role, "notice")]

    def snapshots(self, role: str) -> list[str]:
        return [one.commit for one in snapshots.every(self.project, self.still.id, role)]

    def events(self, kind: str) -> list[dict[str, object]]:
        return [event.data for event in store.events(self.still.db, kind=kind)]


@pytest.fixture
def team(still_team: StillTeam) -> Team:
    found = Team(still_team)
    for name in ("app.py", "api.py"):
        (found.project / name).write_text("".join(LINES))
    commit_all(found.project, "Files")
    git(found.project, "switch", "-q", "-c", "develop")
    base = git(found.project, "rev-parse", "HEAD")
    still_team.db.execute("UPDATE orchestrations SET starting_branch = 'develop', starting_commit = ?", (base,))
    # Two are enough to tell one from the others, and every git takes its time.
    still_team.db.execute("DELETE FROM agents WHERE role IN ('orchestrator', 'testrunner')")
    for role in ("developer", "tester"):
        git(found.worktree(role), "reset", "-q", "--hard", base)
    return found


def status_of(worktree: Path) -> str:
    return git(worktree, "status", "--porcelain", "--untracked-files=all")


class TestSync:
    def test_brings_the_starting_branch_into_every_branch(self, team: Team) -> None:
        own = team.commit("developer", "work.py", "work\n")
        new = team.advance("app.py", changed(3, "by the user"))
        done = team.sync()
        assert done.code == 0, done.err
        assert team.head("tester") == new  # there was nothing of its own
        merge = git(team.worktree("developer"), "show", "-s", "--format=%P|%an|%s", "HEAD").split("|")
        assert merge == [f"{own} {new}", "Tmux Orchestrator", "Merge develop into the work of the team"]
        assert "by the user" in team.read("developer", "app.py") and status_of(team.worktree("developer")) == ""
        assert git(team.project, "rev-parse", "develop") == new and status_of(team.project) == ""

    def test_tells_each_agent_once_what_has_come_in(self, team: Team) -> None:
        team.advance("app.py", changed(3, "by the user"))
        new = team.advance("api.py", changed(4, "by the user"))
        team.sync()
        (text,) = team.told("tester")
        assert f"develop has come into your branch {team.agent('tester').branch}." in text
        assert f"- {new[:10]} user: api.py\n" in text and "user: app.py" in text and "api.py | 2 +-" in text
        assert team.results() == dict.fromkeys(("developer", "tester"), "up_to_date")
        assert len(team.told("tester")) == 1

    def test_keeps_a_snapshot_of_before(self, team: Team) -> None:
        team.write("tester", "draft.txt", "draft\n")
        before = team.head("tester")
        team.advance("app.py", changed(3, "by the user"))
        done = team.sync()
        (commit,) = team.snapshots("tester")
        assert git(team.project, "rev-parse", f"{commit}^1") == before
        assert git(team.project, "show", f"{commit}:draft.txt") == "draft"
        name = snapshots.every(team.project, team.still.id, "tester")[0].name
        assert f"before that: {name}" in done.out and name in team.told("tester")[0]

    def test_takes_no_snapshot_when_there_is_nothing_to_do(self, team: Team) -> None:
        assert team.sync().code == 0
        assert team.snapshots("tester") == [] and team.told("tester") == []

    def test_goes_on_beside_uncommitted_work_in_other_files(self, team: Team) -> None:
        team.commit("tester", "mine.py", "mine\n")
        team.write("tester", "api.py", "half of it\n")
        team.write("tester", "draft.txt", "draft\n")
        team.advance("app.py", changed(3, "by the user"))
        assert team.results()["tester"] == "brought_in"
        assert team.read("tester", "api.py") == "half of it\n" and team.read("tester", "draft.txt") == "draft\n"
        assert status_of(team.worktree("tester")).split() == ["M", "api.py", "??", "draft.txt"]

    @pytest.mark.parametrize(
        ("name", "staged", "why"),
        [
            # A tracked file that comes in changed.
            ("app.py", False, "local changes"),
            # What is staged is not committed either.
            ("app.py", True, "local changes"),
            # An untracked file of the name of one that comes in.
            ("new.py", False, "untracked working tree files"),
        ],
    )
    def test_refuses_what_would_touch_uncommitted_work(self, team: Team, name: str, staged: bool, why: str) -> None:
        team.write("tester", name, "not committed\n")
        if staged:
            git(team.worktree("tester"), "add", name)
        team.advance("app.py", changed(3, "by the user"))
        team.advance("new.py", "by the user\n")
        before, state = team.head("tester"), status_of(team.worktree("tester"))
        done = team.sync()
        assert done.code == ExitCode.FAILED and "tester" in done.out and why in done.out
        assert team.head("tester") == before and team.read("tester", name) == "not committed\n"
        assert status_of(team.worktree("tester")) == state
        assert len(team.snapshots("tester")) == 1
        assert "by the user" in team.read("developer", "app.py"), "the others go on"
        assert team.told("tester") == []

    def test_refuses_a_worktree_in_the_middle_of_something(self, team: Team) -> None:
        team.commit("tester", "app.py", changed(3, "tester"))
        team.commit("developer", "app.py", changed(3, "developer"))
        git(team.worktree("tester"), "merge", team.agent("developer").branch, check=False)
        git(team.worktree("developer"), "rebase", team.agent("tester").branch, check=False)
        team.advance("api.py", changed(4, "by the user"))
        before = [snapshot(team.worktree(role)) for role in ("tester", "developer")]
        done = team.sync()
        assert "a merge is under way in it; sync_coordinator.py resolve webapp-impl --strategy ours" in done.out
        assert "a rebase is under way in it" in done.out and done.code == ExitCode.FAILED
        assert [snapshot(team.worktree(role)) for role in ("tester", "developer")] == before

    def test_refuses_a_worktree_on_another_branch(self, team: Team) -> None:
        git(team.worktree("tester"), "switch", "-q", "-c", "elsewhere")
        git(team.worktree("developer"), "switch", "-q", "--detach")
        team.advance("app.py", changed(3, "by the user"))
        done = team.sync()
        assert "elsewhere is checked out there" in done.out and "a detached HEAD is checked out there" in done.out
        assert team.read("tester", "app.py") == team.read("developer", "app.py") == "".join(LINES)

    def test_runs_no_hook_and_opens_no_editor(self, team: Team) -> None:
        hooks = team.project / ".git" / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in ("pre-merge-commit", "commit-msg", "post-merge", "pre-rebase", "reference-transaction"):
            (hooks / name).write_text("#!/bin/sh\nexit 1\n")
            (hooks / name).chmod(0o755)
        git(team.project, "config", "core.hooksPath", str(hooks))
        team.bench.environment["GIT_EDITOR"] = "false"
        git(team.worktree("tester"), "-c", f"core.hooksPath={os.devnull}", "commit", "-q", "--allow-empty", "-m", "own")
        (team.project / "app.py").write_text(changed(3, "by the user"))
        git(team.project, "-c", f"core.hooksPath={os.devnull}", "commit", "-qam", "user")
        assert set(team.results().values()) == {"brought_in"}

    def test_that_was_killed_before_it_could_tell_tells_the_next_time(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        team.advance("app.py", changed(3, "by the user"))
        found = orchestrations.get(team.still.db, team.still.id)

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(messages, "queue", killed)
            with pytest.raises(KeyboardInterrupt):
                bringing.bring_in(team.still.db, team.bench.home, found, rebase=False, favour=None, now=host.now_ms())
        assert "by the user" in team.read("developer", "app.py") and team.told("developer") == []
        assert team.results()["developer"] == "brought_in"
        assert len(team.told("developer")) == 1
        assert team.results()["developer"] == "up_to_date"

    def test_one_at_a_time(self, team: Team) -> None:
        team.advance("app.py", changed(3, "by the user"))
        with bringing._alone(team.bench.home, orchestrations.get(team.still.db, team.still.id)):
            done = team.sync()
        assert done.code == ExitCode.FAILED and "just being synchronised" in done.out
        assert team.read("tester", "app.py") == "".join(LINES)


class TestAConflict:
    @pytest.fixture
    def torn(self, team: Team) -> Team:
        """The tester and the user have changed the same line; and each another one, too."""
        lines = changed(3, "tester").splitlines(keepends=True)
        team.commit("tester", "app.py", "".join([*lines[:15], "tester's own\n", *lines[16:]]))
        lines = changed(3, "user").splitlines(keepends=True)
        team.advance("app.py", "".join([*lines[:9], "user's own\n", *lines[10:]]))
        return team

    def test_leaves_the_worktree_as_it_was_and_names_the_files(self, torn: Team) -> None:
        torn.write("tester", "draft.txt", "draft\n")
        torn.write("tester", "api.py", "half of it\n")
        before, state = torn.head("tester"), status_of(torn.worktree("tester"))
        done = torn.sync()
        assert done.code == ExitCode.FAILED
        assert "develop conflicts with it in app.py" in done.out
        assert torn.head("tester") == before and status_of(torn.worktree("tester")) == state
        assert torn.read("tester", "api.py") == "half of it\n"
        assert merges.under_way(torn.worktree("tester")) is None
        assert torn.told("tester") == [] and len(torn.told("developer")) == 1
        assert torn.events("branch.not_synced") == [{"reason": "conflict", "files": ["app.py"]}]

    @pytest.mark.parametrize(
        ("setting", "kept", "side"),
        [
            # The default: the agent's lines.
            (None, ["tester"], "the lines of the agent's branch"),
            ("theirs", ["user"], "the lines of what came in"),
            ("union", ["tester", "user"], "the lines of both"),
        ],
    )
    def test_is_settled_by_force_where_both_changed_the_same(
        self, torn: Team, setting: str | None, kept: list[str], side: str
    ) -> None:
        if setting:
            config = Path(torn.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
            config.write_text(f"{config.read_text()}git:\n  sync_strategy: {setting}\n")
        before = torn.head("tester")
        torn.write("tester", "api.py", "half of it\n")
        done = torn.sync("webapp-impl", "--force")
        assert done.code == 0 and "settled: app.py" in done.out
        assert status_of(torn.worktree("tester")).split() == ["M", "api.py"]
        lines = torn.read("tester", "app.py").splitlines()
        assert [line for line in lines if line in ("tester", "user")] == kept
        assert "user's own" in lines and "tester's own" in lines, "what only one has changed is in it"
        (text,) = torn.told("tester")
        assert side in text and "- app.py\n" in text
        (commit,) = torn.snapshots("tester")
        assert git(torn.project, "rev-parse", f"{commit}^1") == before

    def test_that_was_resolved_in_the_same_way_before_is_resolved_again(self, torn: Team) -> None:
        worktree = torn.worktree("tester")
        before = torn.head("tester")
        git(worktree, "-c", "rerere.enabled=true", "merge", "develop", check=False)
        torn.write("tester", "app.py", changed(3, "tester and user"))
        git(worktree, "-c", "rerere.enabled=true", "commit", "-qam", "By hand")
        git(worktree, "reset", "-q", "--hard", before)
        assert torn.results()["tester"] == "brought_in"
        assert "tester and user" in torn.read("tester", "app.py")

    def test_of_a_rebase_leaves_all_as_it_was(self, torn: Team) -> None:
        before = torn.head("tester")
        assert torn.results("webapp-impl", "--rebase")["tester"] == "conflict"
        assert torn.head("tester") == before and merges.under_way(torn.worktree("tester")) is None

    def test_of_a_rebase_is_settled_by_force_for_the_agent(self, torn: Team) -> None:
        new = git(torn.project, "rev-parse", "develop")
        assert torn.results("webapp-impl", "--rebase", "--force")["tester"] == "brought_in"
        lines = torn.read("tester", "app.py").splitlines()
        assert "tester" in lines and "user" not in lines and "user's own" in lines and "tester's own" in lines
        assert git(torn.worktree("tester"), "rev-parse", "HEAD^") == new


class TestRebase:
    def test_puts_the_agents_own_commits_on_top(self, team: Team) -> None:
        team.commit("developer", "work.py", "work\n")
        new = team.advance("app.py", changed(3, "by the user"))
        assert team.sync("webapp-impl", "--rebase").code == 0
        assert git(team.worktree("developer"), "rev-parse", "HEAD^") == new
        assert git(team.worktree("developer"), "show", "-s", "--format=%an %s", "HEAD") == "Test developer: work.py"
        assert "your own commits now stand on top of it" in team.told("developer")[0]

    def test_is_refused_over_uncommitted_work(self, team: Team) -> None:
        team.commit("developer", "work.py", "work\n")
        team.write("developer", "api.py", "half of it\n")
        team.advance("app.py", changed(3, "by the user"))
        done = team.sync("webapp-impl", "--rebase")
        assert done.code == ExitCode.FAILED and "cannot rebase: You have unstaged changes" in done.out
        assert team.read("developer", "api.py") == "half of it\n"

    def test_is_refused_for_commits_that_others_have(self, team: Team) -> None:
        own = team.commit("developer", "work.py", "work\n")
        git(team.worktree("tester"), "merge", "-q", team.agent("developer").branch)
        team.advance("app.py", changed(3, "by the user"))
        done = team.sync("webapp-impl", "--rebase")
        assert done.out.count("would make them twice") == 2
        assert team.head("developer") == team.head("tester") == own

    def test_takes_no_union(self, team: Team) -> None:
        config = Path(team.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        config.write_text(f"{config.read_text()}git:\n  sync_strategy: union\n")
        assert team.sync("webapp-impl", "--rebase", "--force").code == ExitCode.USAGE


class TestWhichTeams:
    def test_all_live_ones(self, team: Team) -> None:
        new = team.advance("app.py", changed(3, "by the user"))
        assert team.sync("--all", "--force").code == 0
        assert team.head("tester") == new

    def test_the_only_one_without_a_name(self, team: Team) -> None:
        new = team.advance("app.py", changed(3, "by the user"))
        assert team.bench.ok("sync_coordinator.py", "sync").code == 0
        assert team.head("tester") == new

    @pytest.mark.parametrize(
        ("words", "code"),
        [(("webapp-impl", "--all"), ExitCode.USAGE), (("nobody-impl",), ExitCode.NOT_FOUND)],
        ids=["both", "unknown"],
    )
    def test_wrong_words(self, team: Team, words: tuple[str, ...], code: ExitCode) -> None:
        assert team.sync(*words).code == code

    def test_none_that_is_over(self, team: Team) -> None:
        team.still.end()
        done = team.sync()
        assert done.code == ExitCode.FAILED and "is over: stopped" in done.out
        assert team.sync("--all").out == "no team is running\n"

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("UPDATE orchestrations SET starting_branch = NULL", "started from a detached HEAD"),
            ("UPDATE orchestrations SET starting_branch = 'gone'", "has no branch gone any more"),
        ],
        ids=["detached", "gone"],
    )
    def test_none_without_a_starting_branch(self, team: Team, change: str, says: str) -> None:
        team.still.db.execute(change)
        done = team.sync()
        assert done.code == ExitCode.FAILED and says in done.out


class TestResolve:
    @pytest.fixture
    def merging(self, team: Team) -> Team:
        """The tester has begun to merge the developer's branch: two files in conflict, and one merged by git."""
        for name in ("app.py", "api.py"):
            team.write("developer", name, changed(3, "developer"))
            team.write("tester", name, changed(3, "tester"))
        team.write("developer", "new.py", "new\n")
        for role in ("developer", "tester"):
            commit_all(team.worktree(role), role)
        git(team.worktree("tester"), "merge", team.agent("developer").branch, check=False)
        assert merges.conflicts(team.worktree("tester")) == ("api.py", "app.py")
        return team

    def resolve(self, team: Team, strategy: str, *words: str) -> Done:
        return team.bench.door("sync_coordinator.py", "resolve", "webapp-impl", "--strategy", strategy, *words)

    @pytest.mark.parametrize(
        ("strategy", "kept"),
        [("ours", ["tester"]), ("theirs", ["developer"]), ("union", ["tester", "developer"])],
    )
    def test_settles_by_a_side_and_commits_the_merge(self, merging: Team, strategy: str, kept: list[str]) -> None:
        before = merging.head("tester")
        done = self.resolve(merging, strategy)
        assert done.code == 0, done.err
        for name in ("app.py", "api.py"):
            lines = merging.read("tester", name).splitlines()
            assert [line for line in lines if line in ("tester", "developer")] == kept
        parents = git(merging.worktree("tester"), "show", "-s", "--format=%P").split()
        assert parents == [before, merging.head("developer")]
        assert status_of(merging.worktree("tester")) == "" and merging.read("tester", "new.py") == "new\n"
        (text,) = merging.told("tester")
        assert "- api.py\n- app.py\n" in text and f"committed as {merging.head('tester')[:10]}" in text

    def test_keeps_a_snapshot_of_before_and_prints_its_name(self, merging: Team) -> None:
        marked = merging.read("tester", "app.py")
        done = self.resolve(merging, "ours")
        (one,) = snapshots.every(merging.project, merging.still.id, "tester")
        assert one.name in done.out and "<<<<<<<" in marked
        assert git(merging.project, "show", f"{one.commit}:app.py") + "\n" == marked

    def test_leaves_what_the_agent_has_settled_by_hand(self, merging: Team) -> None:
        merging.write("tester", "app.py", changed(3, "both of us"))
        done = self.resolve(merging, "theirs")
        assert done.code == 0 and "as the agent has settled them: app.py" in done.out
        assert "both of us" in merging.read("tester", "app.py")
        assert "developer" in merging.read("tester", "api.py")

    def test_by_union_names_and_leaves_what_has_no_lines_to_unite(self, merging: Team) -> None:
        git(merging.worktree("tester"), "merge", "--abort")
        for role, byte in (("developer", b"\0d"), ("tester", b"\0t")):
            (merging.worktree(role) / "picture.png").write_bytes(byte)
        (merging.worktree("developer") / "spec.md").unlink()
        merging.write("tester", "spec.md", "changed\n")
        for role in ("developer", "tester"):
            commit_all(merging.worktree(role), f"{role} again")
        git(merging.worktree("tester"), "merge", merging.agent("developer").branch, check=False)
        done = self.resolve(merging, "union")
        assert done.code == ExitCode.FAILED
        assert "settled api.py, app.py" in done.out and "cannot be settled so: picture.png, spec.md" in done.out
        assert merges.conflicts(merging.worktree("tester")) == ("picture.png", "spec.md")
        assert "The merge is still under way" in merging.told("tester")[0]
        done = self.resolve(merging, "ours", "--json")
        assert done.code == 0 and done.json["agents"][1]["files"] == ["picture.png", "spec.md"]
        assert (merging.worktree("tester") / "picture.png").read_bytes() == b"\0t"
        assert merging.read("tester", "spec.md") == "changed\n" and status_of(merging.worktree("tester")) == ""

    def test_settles_only_merges(self, team: Team) -> None:
        team.commit("tester", "app.py", changed(3, "tester"))
        team.commit("developer", "app.py", changed(3, "developer"))
        git(team.worktree("developer"), "rebase", team.agent("tester").branch, check=False)
        done = self.resolve(team, "ours")
        assert done.code == ExitCode.FAILED and "only merges are settled" in done.out
        assert merges.under_way(team.worktree("developer")) == "rebase"

    def test_tells_nobody_whose_team_is_over(self, merging: Team) -> None:
        merging.still.end()
        assert self.resolve(merging, "ours").code == 0
        assert status_of(merging.worktree("tester")) == "" and merging.told("tester") == []

    def test_is_history_in_a_sentence(self, merging: Team) -> None:
        self.resolve(merging, "ours")
        for name in ("README", "LICENSE"):
            merging.advance(name, "by the user\n")
        merging.sync()
        said = [history.sentence(merging.still.db, one) for one in store.events(merging.still.db)]
        assert "the merge of tester was settled (ours): api.py, app.py" in said
        assert "develop has come into the branch of tester, with 2 new commits" in said

    def test_says_when_there_is_nothing(self, team: Team) -> None:
        assert self.resolve(team, "ours").out == "webapp-impl: no merge is under way\n"

    def test_wants_a_strategy(self, team: Team) -> None:
        assert self.resolve(team, "mine").code == ExitCode.USAGE


class TestStart:
    def test_starts_the_scheduler_and_says_what_it_does(self, bench: Bench) -> None:
        done = bench.ok("sync_coordinator.py", "start")
        assert "started the scheduler (pid" in done.out
        for deed in ("snapshots", "radar", "fast lane", "merge hub"):
            assert f"\n  {deed}" in done.out
        again = bench.ok("sync_coordinator.py", "start", "--json").json
        assert again["running"] and again["pid"] == int(done.out.partition("pid ")[2].partition(")")[0])

    def test_says_when_it_may_not(self, still_team: StillTeam) -> None:
        done = still_team.bench.door("sync_coordinator.py", "start")
        assert done.code == ExitCode.NOT_NOW and "auto_start is off" in done.out
