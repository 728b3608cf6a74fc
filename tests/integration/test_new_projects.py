"""New projects on real git: made whole or not at all, and nothing that was there is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lib import new_projects
from lib.errors import ExitCode, OrchestratorError
from lib.git import worktrees
from tests.conftest import ROOT, Bench, commit_all, wait_for
from tests.integration.test_bad_input import GOOD_VERSION, LOGGED_IN, launch_of_claude, program, refused
from tests.integration.test_intake import configure, names, queued, specs, write

DOOR = "auto_orchestrate.py"
ALONE = ("--roles", "orchestrator", "--agent", "rehearsal")
NEW = (DOOR, "--new-project", *ALONE)


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def only_spec(project: Path, spec: Path) -> bool:
    """Whether a project is a repository on main with one commit, which holds the spec byte for byte."""
    return (
        git(project, "rev-list", "--count", "--all") == "1"
        and git(project, "branch", "--show-current") == "main"
        and git(project, "status", "--porcelain", "--ignored") == ""
        and git(project, "ls-files", "-z") == f"{spec.name}\0"
        and (project / spec.name).read_bytes() == spec.read_bytes()
    )


def hidden(folder: Path) -> list[str]:
    """What a making has left in a folder."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def notes(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.home / "new-projects").glob("*"))


@pytest.fixture
def quiet(bench: Bench) -> Bench:
    """Rehearsal agents, and what is queued is not started."""
    configure(bench)
    return bench


NAMES = [
    # The file's name, as it is.
    ("feature-spec.md", "feature-spec"),
    ("Feature_Spec.md", "Feature_Spec"),
    ("v1.2.md", "v1.2"),
    # White space, punctuation and what a shell would read become dashes.
    ("my  spec - draft.md", "my-spec-draft"),
    ("it's; $(rm -rf *) && `id`.md", "it-s-rm-rf-id"),
    ("a\\b\n\tc.md", "a-b-c"),
    # Neither a hidden folder nor an option.
    ("-rf.md", "rf"),
    ("--force.md", "force"),
    (".hidden.md", "hidden"),
    ("...md", "project"),
    # The scripts of the world, composed; what is no letter goes.
    ("日本語 仕様.md", "日本語-仕様"),
    ("cafe\u0301.md", "caf\u00e9"),
    ("हिन्दी.md", "हिन्दी"),
    ("🚀 launch.md", "launch"),
    ("🚀.md", "project"),
    # Short enough for what is put behind it, and cut between letters.
    ("x" * 240 + ".md", "x" * 120),
    ("日" * 80 + ".md", "日" * 40),
    ("x" * 119 + "-y.md", "x" * 119),
]


@pytest.mark.parametrize(("spec", "name"), NAMES)
def test_a_project_is_named_after_its_spec(spec: str, name: str) -> None:
    assert new_projects.name_of(Path("/specs") / spec) == name


class TestOneProject:
    def test_it_is_made_beside_the_repository_of_its_spec_and_launched(self, quiet: Bench) -> None:
        (spec,) = write(quiet.project("existing") / "specs", "feature-spec.md")
        done = quiet.ok(*NEW, "--spec", str(spec))
        project = quiet.folder / "feature-spec"
        assert done.out.startswith(f"made {project}\n") and "feature-spec-impl is running" in done.out
        assert git(project, "log", "--format=%s", "main") == "The spec feature-spec.md"
        assert (project / "feature-spec.md").read_bytes() == spec.read_bytes()
        (agent,) = quiet.rows("SELECT worktree FROM agents")
        assert agent["worktree"] == str(quiet.folder / "feature-spec_worktrees" / "orchestrator")
        assert (quiet.folder / "feature-spec_worktrees" / "orchestrator" / "feature-spec.md").exists()
        (team,) = quiet.rows("SELECT project, spec_path FROM orchestrations")
        assert (team["project"], team["spec_path"]) == (str(project), str(spec))
        assert hidden(quiet.folder) == [] and notes(quiet) == []
        # The repository of the spec is as it was, and nothing was queued.
        assert queued(quiet) == [] and git(quiet.folder / "existing", "log", "--format=%s") == "Start"

    def test_where_its_worktrees_go_is_known_to_whoever_comes_later(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--spec", str(spec))
        quiet.ok("claude_control.py", "stop", "tool-impl")
        project = quiet.folder / "tool"
        assert git(project, "config", "--local", "orchestration.worktreesFolder") == "../tool_worktrees"
        quiet.ok(DOOR, "--project", str(project), "--spec", str(project / "tool.md"), *ALONE)
        first, second = quiet.rows("SELECT orchestration_id, worktree FROM agents ORDER BY id")
        assert second["worktree"] == f"{first['worktree']}-{second['orchestration_id']}"
        # Also in one of its worktrees.
        assert worktrees.folder_of(Path(first["worktree"])) == quiet.folder / "tool_worktrees"
        # Both can be moved together.
        for name in ("tool", "tool_worktrees"):
            (quiet.folder / name).rename(quiet.folder / "specs" / name)
        assert worktrees.folder_of(quiet.folder / "specs" / "tool") == quiet.folder / "specs" / "tool_worktrees"
        assert not list(quiet.folder.glob("*-tmux-worktrees"))

    def test_a_spec_in_no_repository_has_its_project_beside_its_folder(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "deep" / "specs", "tool.md")
        (row,) = quiet.ok(*NEW, "--batch", "--spec", "tool.md", "--json", cwd=spec.parent).json
        assert row["project"] == str(quiet.folder / "deep" / "tool")
        assert (row["made"], row["moved_to"]) == (True, None)
        assert only_spec(quiet.folder / "deep" / "tool", spec)

    def test_a_spec_in_a_linked_worktree_has_it_beside_the_repository(self, quiet: Bench) -> None:
        project = quiet.project()
        git(project, "worktree", "add", "-q", "-b", "x", "../webapp-tmux-worktrees/developer")
        (spec,) = write(quiet.folder / "webapp-tmux-worktrees" / "developer", "tool.md")
        quiet.ok(*NEW, "--batch", "--spec", str(spec))
        assert only_spec(quiet.folder / "tool", spec)

    @pytest.mark.parametrize("name", ["my spec.md", "日本語.md", "-rf.md", "a'b;$HOME.md", "b{o}.md"])
    def test_a_spec_with_a_hard_name_is_worked(self, quiet: Bench, name: str) -> None:
        (spec,) = write(quiet.folder / "specs", name)
        quiet.ok(*NEW, f"--spec={spec}")
        (agent,) = quiet.rows("SELECT worktree FROM agents")
        made = new_projects.name_of(spec)
        assert agent["worktree"] == str(quiet.folder / f"{made}_worktrees" / "orchestrator")
        assert (Path(agent["worktree"]) / name).read_bytes() == spec.read_bytes()

    def test_the_commit_is_the_users_when_git_knows_them(self, quiet: Bench) -> None:
        settings = Path(quiet.environment["HOME"]) / ".gitconfig"
        hooks = quiet.folder / "hooks"
        program(hooks, "pre-commit", "exit 1")
        program(hooks, "commit-msg", "exit 1")
        (quiet.folder / "ignored").write_text("*.md\n")
        text = (
            "[user]\n\tname = Ada L\n\temail = ada@example.org\n"
            "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = /no/such/gpg\n"
            f"[core]\n\thooksPath = {hooks}\n\texcludesFile = {quiet.folder / 'ignored'}\n"
            "[init]\n\tdefaultBranch = trunk\n"
        )
        settings.write_text(text)
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--batch", "--spec", str(spec))
        assert git(quiet.folder / "tool", "log", "--format=%an <%ae> %cn") == "Ada L <ada@example.org> Ada L"
        assert only_spec(quiet.folder / "tool", spec)
        assert settings.read_text() == text

    def test_without_a_user_the_commit_has_a_neutral_name(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--batch", "--spec", str(spec))
        signed = git(quiet.folder / "tool", "log", "--format=%an <%ae>")
        assert signed == "Tmux Orchestrator <tmux-orchestrator@localhost>"
        assert not (Path(quiet.environment["HOME"]) / ".gitconfig").exists()
        assert "user." not in git(quiet.folder / "tool", "config", "--local", "--list")

    def test_a_dry_run_makes_nothing(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        done = quiet.ok(*NEW, "--spec", str(spec), "--dry-run")
        assert f"tool.md in the new project {quiet.folder / 'tool'}" in done.out
        assert "team orchestrator" in done.out and done.out.endswith("nothing was changed\n")
        shown = quiet.ok(*NEW, "--spec", str(spec), "--dry-run", "--json").json
        assert shown["worktrees"] == str(quiet.folder / "tool_worktrees")
        quiet.ok(*NEW, "--spec", str(spec.parent), "--dry-run")
        assert not (quiet.folder / "tool").exists() and queued(quiet) == []

    def test_what_would_keep_its_agents_from_starting_is_told_before_it_is_made(self, bench: Bench) -> None:
        launch_of_claude(bench, GOOD_VERSION, LOGGED_IN.replace("true", "false"))
        (spec,) = write(bench.folder / "specs", "tool.md")
        words = (DOOR, "--new-project", "--spec", str(spec), "--agent", "claude")
        refused(bench, ExitCode.NOT_NOW, *words, says=("not logged in",))
        assert not (bench.folder / "tool").exists()

    def test_one_that_claude_code_has_to_be_told_to_trust_goes_on_with_the_same_command(self, bench: Bench) -> None:
        launch_of_claude(bench, GOOD_VERSION, LOGGED_IN)
        configure(bench, "auto_start: false\nlaunch_timeout_seconds: 0.5\nanalysis: {timeout_seconds: 1}\n")
        (spec,) = write(bench.folder / "specs", "tool.md")
        words = (DOOR, "--new-project", "--spec", str(spec), "--roles", "orchestrator")
        done = bench.door(*words)
        project = bench.folder / "tool"
        assert done.code == ExitCode.NOT_NOW
        assert f"made {project}\n" in done.err
        assert f"has not been told to trust {project}" in done.err and "then the same command again" in done.err
        (Path(bench.environment["HOME"]) / ".claude.json").write_text(
            json.dumps({"projects": {str(project): {"hasTrustDialogAccepted": True}}})
        )
        again = bench.door(*words)  # this Claude Code only sleeps: its agent is never ready
        assert "--resume" in again.err and "exists already" not in again.err
        assert [Path(team["project"]) for team in bench.rows("SELECT project FROM orchestrations")] == [project]
        # From here on it is a project that is worked on.
        assert bench.door(*words).code in (ExitCode.FAILED, ExitCode.BUSY)


class TestSeveralProjects:
    def test_a_folder_of_specs_becomes_projects_that_are_queued_in_order(self, quiet: Bench) -> None:
        (quiet.folder / "existing").mkdir()
        subprocess.run(["git", "init", "-q"], cwd=quiet.folder / "existing", check=True)
        features = quiet.folder / "existing" / "features"
        write(features, "user-b.md", "user-a.md", "admin.md", "notes.txt", "README.md")
        done = quiet.ok(*NEW, "--spec", "features/user-*.md", cwd=features.parent)
        assert names(quiet) == [("user-a.md", "user-a"), ("user-b.md", "user-b")]
        assert [line.split()[0] for line in done.out.splitlines()] == ["made", "made", "queued", "queued"]
        for name in ("user-a", "user-b"):
            assert only_spec(quiet.folder / name, features / f"{name}.md")
        assert not (quiet.folder / "admin").exists()
        # Again: the names are taken, and nothing is changed.
        words = (*NEW, "--spec", str(features))
        says = (f"{quiet.folder / 'user-a'} exists already", f"{quiet.folder / 'user-b'} exists already", "--force")
        refused(quiet, ExitCode.FAILED, *words, says=says)
        # Whoever replaces them has to say first what becomes of their entries.
        cancel = ("scheduler.py --queue-cancel 1", "scheduler.py --queue-cancel 2")
        refused(quiet, ExitCode.BUSY, *words, "--force", says=cancel)
        assert not (quiet.folder / "admin").exists() and len(queued(quiet)) == 2

    def test_two_projects_are_worked_to_their_end(self, bench: Bench) -> None:
        configure(bench, "agent: rehearsal\nqueue: {linger_minutes: 0.005}\n")
        write(bench.folder / "specs", "one.md", "two.md")
        bench.ok(DOOR, "--new-project", "--spec", "specs", "--roles", "orchestrator")

        def is_over() -> bool:
            return [entry["status"] for entry in queued(bench)] == ["succeeded"] * 2

        wait_for(is_over, "both projects to be done", seconds=90)
        for name in ("one", "two"):
            work = bench.folder / f"{name}_worktrees" / "orchestrator"
            assert "rehearsal:" in git(work, "log", "--format=%s")
            first, *_ = git(bench.folder / name, "log", "--reverse", "--format=%s", "main").splitlines()
            assert first == f"The spec {name}.md", "what the team has made stands on it"

    def test_two_specs_of_one_name_are_refused(self, quiet: Bench) -> None:
        project = quiet.project()
        one, two, three = write(project, "a/tool.md", "b/tool.md", "c/TOOL.md")
        words = (*NEW, *specs(one, two))
        says = (f"{one} and {two} would both make {quiet.folder / 'tool'}", "rename one")
        refused(quiet, ExitCode.FAILED, *words, says=says)
        refused(quiet, ExitCode.FAILED, *NEW, *specs(two, three), says=("would both make",))
        # Nor may one be the folder of the other's worktrees.
        (four,) = write(project, "tool_worktrees.md")
        refused(quiet, ExitCode.FAILED, *NEW, *specs(one, four), says=("would both make",))

    def test_one_that_cannot_be_made_keeps_all_from_being_made(self, quiet: Bench) -> None:
        write(quiet.folder / "specs", "a.md", "b.md", "c.md")
        (quiet.folder / "c").mkdir()
        says = (f"{quiet.folder / 'c'} exists already",)
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(quiet.folder / "specs"), says=says)
        assert queued(quiet) == []

    def test_one_whose_making_fails_leaves_those_before_it_and_says_so(self, quiet: Bench) -> None:
        write(quiet.folder / "specs", "a.md", "b.md")
        breaks_git(quiet, "The spec b.md")
        words = (*NEW, "--spec", str(quiet.folder / "specs"))
        done = quiet.door(*words)
        assert done.code == ExitCode.FAILED
        assert f"{quiet.folder / 'b'} cannot be made: " in done.err and "by order of the test" in done.err
        assert f"made {quiet.folder / 'a'}" in done.err and "nothing is queued" in done.err
        assert only_spec(quiet.folder / "a", quiet.folder / "specs" / "a.md")
        assert not (quiet.folder / "b").exists() and hidden(quiet.folder) == [] and queued(quiet) == []
        mend_git(quiet)
        done = quiet.ok(*words)
        assert done.out.splitlines()[:2] == [f"{quiet.folder / 'a'} was made before", f"made {quiet.folder / 'b'}"]
        assert names(quiet) == [("a.md", "a"), ("b.md", "b")]

    def test_a_batch_file_mixes_both(self, quiet: Bench) -> None:
        project = quiet.project()
        write(project, "idea.md")
        (project / "batch.yaml").write_text(
            "defaults: {agent: rehearsal}\nspecs:\n  - {spec: spec.md}\n  - {spec: idea.md, new_project: true}\n"
        )
        rows = quiet.ok(DOOR, "--batch-file", "batch.yaml", "--json", cwd=project).json
        assert names(quiet) == [("spec.md", "webapp"), ("idea.md", "idea")]
        assert [row.get("made") for row in rows] == [None, True]
        assert len({row["batch"] for row in rows}) == 1


def breaks_git(bench: Bench, words: str) -> None:
    """Have git fail for command lines that hold these words."""
    real = shutil.which("git", path=bench.environment["PATH"])
    script = f'case "$*" in *"{words}"*) echo "by order of the test" >&2; exit 1;; esac\nexec {real} "$@"'
    program(bench.folder / "stubs", "git", script)
    bench.environment["PATH"] = f"{bench.folder / 'stubs'}:{bench.environment['PATH']}"


def mend_git(bench: Bench) -> None:
    (bench.folder / "stubs" / "git").unlink()


class TestNamesThatAreTaken:
    @pytest.mark.parametrize("kind", ["folder", "empty_folder", "file", "link", "repository", "pipe"])
    def test_by_a(self, quiet: Bench, kind: str) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        make_something(quiet, kind)
        says = (f"{quiet.folder / 'tool'} exists already", "--force moves it to tool.backup-TIME")
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), says=says)
        refused(quiet, ExitCode.FAILED, *NEW, "--batch", "--spec", str(spec), says=says)
        assert queued(quiet) == []

    def test_the_folder_of_the_worktrees_is_taken(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        write(quiet.folder / "tool_worktrees" / "developer", "work.md")
        says = (f"{quiet.folder / 'tool_worktrees'} exists already",)
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), says=says)
        # Nor is it moved away for a folder to which it does not belong.
        make_something(quiet, "repository")
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), "--force", says=says)

    def test_the_project_that_holds_the_spec(self, quiet: Bench) -> None:
        project = quiet.project("tool")
        (spec,) = write(project, "tool.md")
        for more in ((), ("--force",)):
            says = ("holds", str(spec)) if more else ("exists already",)
            refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), *more, says=says)

    def test_a_folder_in_which_nothing_can_be_made(self, quiet: Bench) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (spec,) = write(quiet.folder / "locked" / "specs", "tool.md")
        spec.parent.parent.chmod(0o500)
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), says=("cannot be written",))

    def test_what_lies_at_the_top_of_everything_has_nothing_beside_it(self) -> None:
        with pytest.raises(OrchestratorError, match="has no folder beside it"):
            new_projects.folder_for(Path("/etc"))

    def test_two_at_once_make_one(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        command = [sys.executable, str(ROOT / DOOR), *NEW[1:], "--batch", "--spec", str(spec)]
        started = [
            subprocess.Popen(command, env=quiet.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        done = [(*process.communicate(timeout=60), process.returncode) for process in started]
        assert sorted(code for _, _, code in done) == [0, 1, 1, 1], done
        assert only_spec(quiet.folder / "tool", spec)
        assert names(quiet) == [("tool.md", "tool")] and notes(quiet) == [] and hidden(quiet.folder) == []


def make_something(bench: Bench, kind: str) -> Path:
    """Have the name `tool` taken."""
    path = bench.folder / "tool"
    match kind:
        case "folder":
            path.mkdir()
            (path / "mine.txt").write_text("mine")
        case "empty_folder":
            path.mkdir()
        case "file":
            path.write_text("mine")
        case "link":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
        case "repository":
            bench.project("tool")
            (path / "mine.txt").write_text("mine")
    return path


def backup(bench: Bench) -> Path:
    (found,) = [path for path in bench.folder.glob("tool.backup-*") if not path.name.endswith("_worktrees")]
    return found


def worked_on(bench: Bench, *, linked: str = "tool_worktrees") -> dict[str, str]:
    """A project `tool` as the toolkit makes and works it: an agent's worktree with unmerged and with uncommitted work,
    and a worktree of the person's own elsewhere and inside. Returns the commit of each."""
    project = bench.project("tool")
    (project / "mine.txt").write_text("not committed")
    worktrees.remember_folder(project, bench.folder / linked)
    commits = {}
    for name, place in (
        *(("dev", f"../{linked}/developer"), ("test", f"../{linked}/tester")),
        *(("mine", "../else where/mine"), ("inner", "inner")),
    ):
        git(project, "worktree", "add", "-q", "-b", name, place)
        (project / place / f"{name}.txt").write_text(name)
        commit_all(project / place, f"Add {name}")
        (project / place / "draft.txt").write_text("draft")
        commits[name] = git(project / place, "rev-parse", "HEAD")
    return commits


def places(bench: Bench, project: Path, folder: Path) -> dict[str, Path]:
    """Where the worktrees of `worked_on` are for a project and a folder of its worktrees."""
    return {
        "dev": folder / "developer",
        "test": folder / "tester",
        "mine": bench.folder / "else where" / "mine",
        "inner": project / "inner",
    }


def assert_works(bench: Bench, project: Path, folder: Path, commits: dict[str, str]) -> None:
    """The project and all its worktrees find each other, with what was committed and what was not."""
    listed = git(project, "worktree", "list", "--porcelain")
    for name, place in places(bench, project, folder).items():
        assert f"worktree {place}\nHEAD {commits[name]}" in listed
        assert git(place, "rev-parse", "HEAD") == commits[name] == git(project, "rev-parse", name)
        assert git(place, "status", "--porcelain") == "?? draft.txt"
        assert git(place, "worktree", "list").startswith(f"{project} ")
    assert (project / "mine.txt").read_text() == "not committed"
    assert worktrees.folder_of(project) == folder
    assert "prunable" not in listed


class TestForce:
    @pytest.mark.parametrize("kind", ["folder", "empty_folder", "file", "link", "repository", "pipe"])
    def test_what_has_the_name_is_moved_and_named(self, quiet: Bench, kind: str) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        path = make_something(quiet, kind)
        before = path.lstat()
        done = quiet.ok(*NEW, "--batch", "--spec", str(spec), "--force")
        moved = backup(quiet)
        assert re.fullmatch(r"tool\.backup-\d{8}-\d{6}", moved.name)
        assert done.out.splitlines()[0] == f"moved what was {path} to {moved}"
        assert (moved.lstat().st_ino, moved.lstat().st_mode) == (before.st_ino, before.st_mode)
        if kind in ("folder", "repository"):
            assert (moved / "mine.txt").read_text() == "mine"
        assert only_spec(path, spec) and notes(quiet) == [] and hidden(quiet.folder) == []

    def test_a_repository_takes_its_worktrees_with_it(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        commits = worked_on(quiet)
        (row,) = quiet.ok(*NEW, "--batch", "--spec", str(spec), "--force", "--json").json
        moved = backup(quiet)
        assert row["moved_to"] == str(moved)
        assert_works(quiet, moved, quiet.folder / f"{moved.name}_worktrees", commits)
        assert only_spec(quiet.folder / "tool", spec)
        assert not (quiet.folder / "tool_worktrees").exists()

    def test_worktrees_of_a_project_that_is_not_ours_stay_and_are_found(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        commits = worked_on(quiet, linked="tool-tmux-worktrees")
        quiet.ok(*NEW, "--batch", "--spec", str(spec), "--force")
        assert_works(quiet, backup(quiet), quiet.folder / "tool-tmux-worktrees", commits)

    def test_it_is_launched_as_if_nothing_had_been(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--spec", str(spec))
        quiet.ok("claude_control.py", "stop", "tool-impl")
        done = quiet.ok(*NEW, "--spec", str(spec), "--force", "--json")
        assert done.json["moved_to"] == str(backup(quiet)) and done.json["status"] == "running"
        (old, new) = quiet.rows("SELECT worktree, branch FROM agents ORDER BY id")
        assert new["worktree"] == str(quiet.folder / "tool_worktrees" / "orchestrator") == old["worktree"]
        there = quiet.folder / f"{backup(quiet).name}_worktrees" / "orchestrator"
        assert git(there, "branch", "--show-current") == old["branch"]
        assert git(Path(new["worktree"]), "branch", "--show-current") == new["branch"]

    def test_what_has_succeeded_under_the_name_is_queued_again(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--batch", "--spec", str(spec))
        db = quiet.db()
        db.execute("UPDATE queue_entries SET status = 'succeeded'")
        (row,) = quiet.ok(*NEW, "--batch", "--spec", str(spec), "--force", "--json").json
        assert (row["id"], row["new"]) == (2, True)

    def test_a_live_team_keeps_its_folder(self, quiet: Bench) -> None:
        quiet.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--spec", str(spec))
        done = quiet.door(*NEW, "--spec", str(spec), "--force")
        assert done.code == ExitCode.BUSY and "claude_control.py stop tool-impl" in done.err
        assert list(quiet.folder.glob("*.backup-*")) == []

    def test_agents_that_have_done_their_work_and_are_still_there_keep_it(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--spec", str(spec))
        wait_for(
            lambda: quiet.rows("SELECT 1 FROM orchestrations WHERE status = 'completed'"), "completion", seconds=60
        )
        words = (*NEW, "--spec", str(spec), "--force")
        done = quiet.door(*words)
        assert done.code == ExitCode.BUSY and "claude_control.py stop tool-impl" in done.err
        assert list(quiet.folder.glob("*.backup-*")) == []
        quiet.ok("claude_control.py", "stop", "tool-impl")
        quiet.ok(*words)
        assert (backup(quiet) / "tool.md").exists()

    def test_an_entry_of_the_queue_keeps_it(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        quiet.ok(*NEW, "--batch", "--spec", str(spec))
        words = (*NEW, "--batch", "--spec", str(spec), "--force")
        refused(quiet, ExitCode.BUSY, *words, says=("entry 1 of the queue", "scheduler.py --queue-cancel 1"))
        quiet.ok("scheduler.py", "--queue-cancel", "1")
        quiet.ok(*words)
        assert [entry["status"] for entry in queued(quiet)] == ["cancelled", "queued"]

    def test_a_part_of_another_repository_stays(self, quiet: Bench) -> None:
        project = quiet.project()
        git(project, "worktree", "add", "-q", "-b", "x", "../tool")
        (spec,) = write(quiet.folder / "specs", "tool.md")
        says = (f"{quiet.folder / 'tool'} is a part of another repository",)
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), "--force", says=says)

    def test_a_worktree_that_has_become_anothers_is_not_taken_from_it(self, quiet: Bench) -> None:
        project = quiet.project("tool")
        git(project, "worktree", "add", "-q", "-b", "x", "../work")
        shutil.rmtree(quiet.folder / "work")
        git(quiet.project("other"), "worktree", "add", "-q", "-b", "x", "../work")
        (spec,) = write(quiet.folder / "specs", "tool.md")
        says = (f"{quiet.folder / 'work'} is in {project}'s list", f"belongs to {quiet.folder / 'other'}")
        refused(quiet, ExitCode.FAILED, *NEW, "--spec", str(spec), "--force", says=says)

    def test_what_holds_the_state_home_stays(self, quiet: Bench) -> None:
        quiet.environment["TMUX_ORCHESTRATOR_HOME"] = str(quiet.folder / "tool" / "state")
        (spec,) = write(quiet.folder / "specs", "tool.md")
        done = quiet.door(*NEW, "--batch", "--spec", str(spec), "--force")
        assert done.code == ExitCode.FAILED and "so that --force will not move it" in done.err

    def test_a_git_that_cannot_find_worktrees_again_moves_none(self, quiet: Bench) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        commits = worked_on(quiet)
        real = shutil.which("git")
        script = f'case "$*" in *--version) echo "git version 2.20.1";; *) exec {real} "$@";; esac'
        program(quiet.folder / "stubs", "git", script)
        quiet.environment["PATH"] = f"{quiet.folder / 'stubs'}:{quiet.environment['PATH']}"
        says = ("git version 2.20.1 is too old",)
        refused(quiet, ExitCode.NOT_NOW, *NEW, "--spec", str(spec), "--force", says=says)
        assert_works(quiet, quiet.folder / "tool", quiet.folder / "tool_worktrees", commits)

    @pytest.mark.parametrize("at", ["commit", "worktree repair", "backup-"])
    def test_when_the_making_fails_everything_is_as_it_was(self, quiet: Bench, at: str) -> None:
        (spec,) = write(quiet.folder / "specs", "tool.md")
        commits = worked_on(quiet)
        breaks_git(quiet, at)
        done = quiet.door(*NEW, "--batch", "--spec", str(spec), "--force")
        assert done.code == ExitCode.FAILED and "by order of the test" in done.err
        mend_git(quiet)
        if notes(quiet):  # what it needs to mend the links was broken too: the next making does it
            assert "is not taken back" in done.err
            quiet.ok(*NEW, "--batch", "--spec", str(write(quiet.folder / "specs", "other.md")[0]))
        assert_works(quiet, quiet.folder / "tool", quiet.folder / "tool_worktrees", commits)
        assert list(quiet.folder.glob("*backup-*")) == [] and hidden(quiet.folder) == [] and notes(quiet) == []


def killed(bench: Bench, number: int, words: Sequence[str]) -> int:
    """Run a door that kills itself before its step of this number. Returns its exit code."""
    done = bench.door("tests/killed_making.py", str(number), *words, cwd=ROOT)
    assert done.code in (0, -signal.SIGKILL), (number, done.out, done.err)
    return done.code


class TestKilledInTheMaking:
    """Killed before each step, and then the same command again: everything is there once, and nothing is lost."""

    def test_a_new_project(self, quiet: Bench, is_long: bool) -> None:
        number, left, step = 0, [], 1 if is_long else 4
        while True:
            number += step
            folder = quiet.folder / f"run-{number}"
            (spec,) = write(folder / "specs", "tool.md")
            words = (*NEW, "--batch", "--spec", str(spec))
            code = killed(quiet, number, words)
            if (folder / "tool").exists():
                assert only_spec(folder / "tool", spec), number
            left += [name for name in hidden(folder) if not re.fullmatch(r"\.tool\.new-[0-9a-f]{16}", name)]
            if code == 0:
                break
            again = quiet.door(*words)
            is_queued = [entry for entry in queued(quiet) if entry["project"] == str(folder / "tool")]
            if again.code != 0:  # the kill came after the last write: it is said that it is there
                assert (again.code, len(is_queued)) == (ExitCode.FAILED, 1), again.err
            assert len(is_queued) == 1, number
            assert only_spec(folder / "tool", spec), number
            assert hidden(folder) == [] and notes(quiet) == [], number
        assert left == [] and number > 15

    def test_one_that_takes_the_place_of_another(self, quiet: Bench, is_long: bool) -> None:
        number, step = 0, 1 if is_long else 5
        while True:
            number += step
            folder = quiet.folder / f"run-{number}"
            folder.mkdir()
            inside = Bench(folder, quiet.environment, quiet.tmux)
            commits = worked_on(inside)
            (spec,) = write(folder / "specs", "tool.md")
            words = (*NEW, "--batch", "--spec", str(spec), "--force")
            code = killed(quiet, number, words)
            # Wherever it stopped, the old folder is there, with all that was in it.
            old = [folder / "tool", *folder.glob("tool.backup-*[0-9]")]
            assert [path for path in old if (path / "mine.txt").exists()], number
            if code == 0:
                break
            again = quiet.door(*words)
            is_queued = [entry for entry in queued(quiet) if entry["project"] == str(folder / "tool")]
            assert again.code in (0, ExitCode.BUSY) and len(is_queued) == 1, (number, again.err)
            moved = backup(inside)
            assert_works(inside, moved, folder / f"{moved.name}_worktrees", commits)
            assert only_spec(folder / "tool", spec), number
            assert hidden(folder) == [] and notes(quiet) == [], number
        assert number > 20

    def test_what_is_taken_back_is_told(self, quiet: Bench) -> None:
        number, folder = 5, quiet.folder
        while number == 5 or (folder / "tool").exists():  # until it was killed between the two renames
            number += 1
            folder = quiet.folder / f"run-{number}"
            folder.mkdir()
            commits = worked_on(Bench(folder, quiet.environment, quiet.tmux))
            spec, other = write(folder / "specs", "tool.md", "other.md")
            killed(quiet, number, (*NEW, "--batch", "--spec", str(spec), "--force"))
        done = quiet.ok(*NEW, "--batch", "--spec", str(other))
        assert f"moved {folder / 'tool'} back, which an interrupted run had moved to" in done.err
        assert_works(Bench(folder, quiet.environment, quiet.tmux), folder / "tool", folder / "tool_worktrees", commits)
