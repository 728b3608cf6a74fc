"""Worktrees on real git: made once, never in the place of somebody's work."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.errors import NotFound, OrchestratorError, Usage
from lib.git import worktrees
from lib.git.worktrees import StartingPoint, ensure, project_root, starting_point, work_since
from tests.conftest import commit_all


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    yield


@pytest.fixture(params=["webapp", "my web app", "wéb-日本語", "it's; $HOME"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A repository with one commit, under a name that is easy or is not."""
    path: Path = tmp_path / "projects" / request.param
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    (path / "README").write_text("hello\n")
    commit_all(path, "Start")
    return path


def state(project: Path) -> tuple[str, str, str]:
    """What must not change of the user's own checkout."""
    return git(project, "rev-parse", "HEAD"), git(project, "branch", "--show-current"), git(project, "status", "-s")


class TestStartingPoint:
    def test_a_branch_and_its_commit(self, project: Path) -> None:
        assert starting_point(project) == StartingPoint("main", git(project, "rev-parse", "HEAD"))

    def test_a_detached_head_has_no_branch(self, project: Path) -> None:
        git(project, "checkout", "-q", "--detach")
        assert starting_point(project) == StartingPoint(None, git(project, "rev-parse", "HEAD"))

    def test_a_repository_without_a_commit_is_refused(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q")
        with pytest.raises(OrchestratorError, match="has no commit yet"):
            starting_point(tmp_path)

    def test_it_is_remembered_in_the_repository_and_nothing_else_changes(self, project: Path) -> None:
        before = state(project)
        start = StartingPoint("feature/x", "0" * 40)
        worktrees.remember_starting_point(project, "a1b2c3", start)
        worktrees.remember_starting_point(project, "a1b2c3", start)
        assert git(project, "config", "--get-all", "orchestration.a1b2c3.startingCommit") == "0" * 40
        assert git(project, "config", "--get-all", "orchestration.a1b2c3.startingBranch") == "feature/x"
        assert state(project) == before


class TestProjectRoot:
    def test_the_top_is_found_from_a_file_below(self, project: Path) -> None:
        (project / "deep" / "er").mkdir(parents=True)
        (project / "deep" / "er" / "spec.md").write_text("x")
        for path in (project, project / "deep", project / "deep" / "er" / "spec.md"):
            assert project_root(path) == project.resolve()

    def test_a_folder_without_git_is_refused_with_the_way_out(self, tmp_path: Path) -> None:
        with pytest.raises(Usage, match="is not in a git repository") as raised:
            project_root(tmp_path)
        assert "--project" in (raised.value.hint or "")

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            project_root(tmp_path / "nowhere")

    def test_a_bare_repository_is_refused(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q", "--bare", "bare.git")
        with pytest.raises(Usage, match="bare"):
            project_root(tmp_path / "bare.git")


def make(project: Path, role: str = "developer") -> tuple[Path, str, str]:
    """Path, branch and commit of a worktree that is to be."""
    path = project.parent / f"{project.name}-tmux-worktrees" / role
    return path, f"orchestration/a1b2c3-spec/{role}", git(project, "rev-parse", "HEAD")


class TestEnsure:
    def test_a_worktree_is_made_on_a_branch_of_its_own(self, project: Path) -> None:
        before = state(project)
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        assert git(path, "branch", "--show-current") == branch
        assert git(path, "rev-parse", "HEAD") == commit
        assert (path / "README").read_text() == "hello\n"
        assert worktrees.worktrees(project)[path.resolve()] == branch
        assert state(project) == before

    def test_twice_changes_nothing(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        (path / "draft").write_text("not committed")
        ensure(project, path, branch, commit)
        assert (path / "draft").read_text() == "not committed"
        assert len(worktrees.worktrees(project)) == 2

    def test_one_that_has_gone_on_stays_where_it_is(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        (path / "new").write_text("x")
        commit_all(path, "More")
        head = git(path, "rev-parse", "HEAD")
        ensure(project, path, branch, commit)
        assert git(path, "rev-parse", "HEAD") == head != commit

    def test_it_begins_at_the_recorded_commit_and_not_at_the_newest(self, project: Path) -> None:
        path, branch, commit = make(project)
        (project / "later").write_text("x")
        commit_all(project, "Later")
        ensure(project, path, branch, commit)
        assert git(path, "rev-parse", "HEAD") == commit

    def test_a_foreign_folder_is_refused_and_left(self, project: Path) -> None:
        path, branch, commit = make(project)
        path.mkdir(parents=True)
        (path / "precious").write_text("work")
        with pytest.raises(OrchestratorError, match="is not the worktree of"):
            ensure(project, path, branch, commit)
        assert [child.name for child in path.iterdir()] == ["precious"]
        assert branch not in git(project, "branch", "--list", "--format=%(refname:short)").splitlines()

    def test_a_file_in_its_place_is_refused_and_left(self, project: Path) -> None:
        path, branch, commit = make(project)
        path.parent.mkdir(parents=True)
        path.write_text("work")
        with pytest.raises(OrchestratorError, match=r"is not the worktree of|exists"):
            ensure(project, path, branch, commit)
        assert path.read_text() == "work"

    def test_an_empty_folder_is_taken(self, project: Path) -> None:
        path, branch, commit = make(project)
        path.mkdir(parents=True)
        ensure(project, path, branch, commit)
        assert git(path, "branch", "--show-current") == branch

    def test_a_worktree_of_another_branch_is_refused(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        with pytest.raises(OrchestratorError, match="is not the worktree of other"):
            ensure(project, path, "other", commit)

    def test_a_removed_folder_comes_back_with_the_work_of_its_branch(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        (path / "done").write_text("work")
        commit_all(path, "Work")
        head = git(path, "rev-parse", "HEAD")
        subprocess.run(["rm", "-r", str(path)], check=True)
        ensure(project, path, branch, commit)
        assert git(path, "rev-parse", "HEAD") == head
        assert (path / "done").read_text() == "work"

    def test_a_branch_that_somebody_works_on_elsewhere_is_refused(self, project: Path) -> None:
        path, branch, commit = make(project)
        git(project, "branch", branch)
        git(project, "worktree", "add", "-q", str(project.parent / "elsewhere"), branch)
        with pytest.raises(OrchestratorError):
            ensure(project, path, branch, commit)
        assert git(project.parent / "elsewhere", "branch", "--show-current") == branch

    def test_a_commit_that_is_not_there_is_said(self, project: Path) -> None:
        path, branch, _ = make(project)
        with pytest.raises(OrchestratorError, match="git worktree add failed"):
            ensure(project, path, branch, "1" * 40)

    def test_the_project_may_be_a_worktree_itself(self, project: Path) -> None:
        side = project.parent / "side"
        git(project, "worktree", "add", "-q", "-b", "side", str(side))
        path, branch, commit = make(side)
        ensure(side, path, branch, commit)
        assert git(path, "branch", "--show-current") == branch


class TestLeftovers:
    """What git still remembers of a worktree whose folder is gone: removed, or on a disk that is not mounted."""

    def test_only_ones_own_is_forgotten(self, project: Path) -> None:
        path, branch, commit = make(project)
        other = project.parent / "other"
        git(project, "worktree", "add", "-q", "-b", "other", str(other))
        ensure(project, path, branch, commit)
        for folder in (path, other):
            subprocess.run(["rm", "-r", str(folder)], check=True)
        ensure(project, path, branch, commit)
        assert worktrees.worktrees(project)[other.resolve()] == "other", "somebody may still bring it back"

    def test_one_that_is_locked_is_named_with_the_way_out(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        git(project, "worktree", "lock", str(path))
        subprocess.run(["rm", "-r", str(path)], check=True)
        with pytest.raises(OrchestratorError, match="locked") as error:
            ensure(project, path, branch, commit)
        assert error.value.hint == f"git -C {project} worktree unlock {path}"
        git(project, "worktree", "unlock", str(path))
        ensure(project, path, branch, commit)

    def test_one_of_another_branch_is_named_and_left(self, project: Path) -> None:
        path, branch, commit = make(project)
        git(project, "worktree", "add", "-q", "-b", "other", str(path))
        subprocess.run(["rm", "-r", str(path)], check=True)
        with pytest.raises(OrchestratorError, match="whose folder is gone"):
            ensure(project, path, branch, commit)
        assert worktrees.worktrees(project)[path.resolve()] == "other"


class TestKindsOfRepositories:
    @pytest.fixture
    def origin(self, tmp_path: Path) -> Path:
        path = tmp_path / "origin"
        path.mkdir()
        git(path, "init", "-q", "-b", "main")
        for number in range(3):
            (path / "file").write_text(f"{number}\n")
            commit_all(path, f"Change {number}")
        return path

    def test_a_shallow_clone(self, origin: Path, tmp_path: Path) -> None:
        project = tmp_path / "shallow"
        git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", str(project))
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        (path / "new").write_text("x")
        commit_all(path, "Work")
        assert work_since(path, commit, branch).commits == 1

    def test_one_with_submodules_has_empty_folders_for_them(self, origin: Path, tmp_path: Path) -> None:
        project = tmp_path / "outer"
        project.mkdir()
        git(project, "init", "-q", "-b", "main")
        git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), "inner")
        commit_all(project, "Start")
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        assert list((path / "inner").iterdir()) == []
        assert worktrees.has_submodules(project, commit) and not worktrees.has_submodules(origin, "HEAD")
        git(path, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
        assert (path / "inner" / "file").read_text() == "2\n"

    def test_one_inside_of_a_bigger_one_is_worked_as_a_whole(self, origin: Path) -> None:
        (origin / "part").mkdir()
        assert project_root(origin / "part") == origin

    def test_files_of_lfs_come_as_they_are_where_it_is_not_set_up(self, origin: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3\n"
        (origin / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
        (origin / "picture.bin").write_text(pointer)
        commit_all(origin, "Add a picture")
        path, branch, commit = make(origin)
        ensure(origin, path, branch, commit)
        assert (path / "picture.bin").read_text() == pointer

    def test_an_lfs_that_is_set_up_and_missing_is_named(self, origin: Path) -> None:
        self.test_files_of_lfs_come_as_they_are_where_it_is_not_set_up(origin)
        for name, command in (("process", "filter-process"), ("smudge", "smudge -- %f")):
            git(origin, "config", f"filter.lfs.{name}", f"no-such-git-lfs {command}")
        git(origin, "config", "filter.lfs.required", "true")
        path, commit = origin.parent / "second", git(origin, "rev-parse", "HEAD")
        with pytest.raises(OrchestratorError, match="lfs") as error:
            ensure(origin, path, "orchestration/a1b2c3-spec/second", commit)
        assert error.value.hint and "GIT_LFS_SKIP_SMUDGE=1" in error.value.hint
        git(origin, "config", "--unset", "filter.lfs.required")
        for name in ("process", "smudge"):
            git(origin, "config", "--unset", f"filter.lfs.{name}")
        ensure(origin, path, "orchestration/a1b2c3-spec/second", commit)


class TestSigned:
    def test_a_signature_is_read_from_the_end_of_the_message(self, project: Path) -> None:
        message = "Parse\n\nText: no signature\n\nOrchestration: a1b2c3\nAgent-Role: developer\nMessage-Id: 17"
        commit_all(project, message)
        found = worktrees.signed(project, "HEAD")
        assert (found.subject, found.orchestration, found.role, found.message_id) == (
            "Parse",
            "a1b2c3",
            "developer",
            17,
        )

    @pytest.mark.parametrize("ending", ["", "\n\nMessage-Id: many", "\n\nSigned-off-by: Test <t@localhost>"])
    def test_what_is_not_signed_has_none(self, project: Path, ending: str) -> None:
        commit_all(project, f"Parse{ending}")
        found = worktrees.signed(project, "HEAD")
        assert (found.orchestration, found.role, found.message_id) == (None, None, None)


class TestWork:
    def test_nothing_was_done(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        work = work_since(path, commit, branch)
        assert (work.head, work.commits, work.files, work.dirty) == (commit, 0, (), False)
        assert worktrees.unmerged_commits(project, branch, "main") == 0

    def test_commits_and_files_are_counted_whatever_their_names(self, project: Path) -> None:
        path, branch, commit = make(project)
        ensure(project, path, branch, commit)
        for number, name in enumerate(("plain.txt", "with space.txt", "ünï\ncode.txt")):
            (path / name).write_text(str(number))
            commit_all(path, f"Write {number}")
        (path / "draft").write_text("x")
        work = work_since(path, commit, branch)
        assert (work.commits, work.dirty) == (3, True)
        assert set(work.files) == {"plain.txt", "with space.txt", "ünï\ncode.txt"}
        assert work.head == git(path, "rev-parse", "HEAD")
        assert worktrees.unmerged_commits(project, branch, "main") == 3

    def test_a_worktree_that_is_gone_is_not_one_without_work(self, project: Path) -> None:
        path, branch, commit = make(project)
        with pytest.raises(NotFound, match="is gone"):
            work_since(path, commit, branch)


def test_a_repository_is_made_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "spec.md").write_text("# Spec\n")
    worktrees.make_repository(tmp_path, author="Rehearsal", subject="The spec")
    assert git(tmp_path, "log", "--format=%an|%ae|%s") == "Rehearsal|rehearsal@localhost|The spec"
    assert git(tmp_path, "ls-files") == "spec.md"
    assert starting_point(tmp_path).branch == "main"
