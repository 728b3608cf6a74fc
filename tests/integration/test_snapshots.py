"""Snapshots on real git: all that a worktree holds is kept, the worktree does not notice, and all of it comes back."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.git import holdings, snapshots
from lib.git.snapshots import REFS, Note, Snapshot, Taken
from tests.conftest import commit_all

NOW = 1_900_000_000_000
STAMP = "20300317T174640Z"
BRANCH = "orchestration/a1b2c3-spec/developer"


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    # In bytes: text would turn the carriage returns of names into line feeds.
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, check=False)
    assert not check or done.returncode == 0, f"git {arguments}: {done.stderr.decode(errors='replace')}"
    return os.fsdecode(done.stdout).strip()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No settings of this machine, and no identity."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder


@dataclass
class Place:
    """A project, and the worktree of its developer."""

    project: Path
    worktree: Path

    def git(self, *arguments: str, check: bool = True) -> str:
        return git(self.worktree, *arguments, check=check)

    def write(self, name: str, content: str | bytes = "new\n") -> Path:
        path = self.worktree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def commit(self, message: str = "Work") -> str:
        commit_all(self.worktree, message)
        return self.git("rev-parse", "HEAD")

    @property
    def folder(self) -> Path:
        return Path(self.git("rev-parse", "--absolute-git-dir"))

    def take(self, *, now: int = NOW, fresh: bool = False, seconds: float | None = None) -> Taken:
        """Take a snapshot, and see that the worktree has not noticed and that the snapshot outlives a collection."""
        before = surroundings(self)
        taken = snapshots.take(
            self.worktree,
            orchestration="a1b2c3",
            role="developer",
            branch=BRANCH,
            now=now,
            why="a test",
            fresh=fresh,
            seconds=seconds,
        )
        assert surroundings(self) == before
        return taken

    def files(self, commit: str) -> dict[str, str]:
        """The files of a commit with their modes and objects."""
        lines = self.git("ls-tree", "-r", "-z", commit).split("\0")
        pairs = [line.partition("\t")[::2] for line in lines if line]
        return {name: about for about, name in pairs}

    def content(self, commit: str, name: str) -> bytes:
        return subprocess.run(
            ["git", "cat-file", "blob", f"{commit}:{name}"], cwd=self.worktree, capture_output=True, check=True
        ).stdout

    def note(self, one: Snapshot) -> Note:
        return snapshots.notes(self.project, [one])[0]


_WRITTEN = (("objects",), ("refs",), ("logs",), ("worktrees",))


def surroundings(place: Place) -> dict[str, object]:
    """Every file of the worktree, of its git folder and of the user's checkout, with contents and times."""
    found: dict[str, object] = {}
    roots = [place.worktree, place.project]
    if (place.worktree / ".git").is_file():
        roots.append(place.folder)
    for root in roots:
        for path in [root, *sorted(root.rglob("*"))]:
            inside = path.relative_to(root).parts[:2]
            if root == place.project and inside[:1] == (".git",) and inside[1:] in ((), *_WRITTEN):
                continue  # objects and refs are what a snapshot writes
            state = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(state.st_mode) and state.st_size < 10**7 else None
            # Whoever reads a shared index touches it, so that git does not tidy it away.
            time = None if path.name.startswith("sharedindex.") else state.st_mtime_ns
            found[str(path)] = (state.st_mode, time, state.st_ino, content)
    return found


@pytest.fixture(params=["webapp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    project = tmp_path / "projects" / request.param
    project.mkdir(parents=True)
    git(project, "init", "-q", "-b", "main")
    for name, content in (("README", "hello\n"), ("src/a.py", "a = 1\n"), ("src/b.py", "b = 1\n")):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(content)
    (project / ".gitignore").write_text("*.log\nbuild/\n")
    commit_all(project, "Start")
    worktree = project.parent / f"{project.name}-tmux-worktrees" / "developer"
    git(project, "worktree", "add", "-q", "-b", BRANCH, str(worktree))
    return Place(project, worktree)


def collect(place: Place) -> None:
    """Have git forget all that no ref keeps."""
    git(place.project, "reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")
    git(place.project, "gc", "-q", "--prune=now")
    git(place.project, "fsck", "--connectivity-only", "--no-dangling")


class TestWhatIsKept:
    def test_tracked_untracked_and_staged_work(self, place: Place) -> None:
        place.write("src/a.py", "a = 2\n")
        place.git("add", "src/a.py")
        place.write("src/a.py", "a = 3\n")
        place.write("draft.txt", "draft\n")
        place.write("noise.log", "ignored\n")
        (place.worktree / "README").unlink()
        taken = place.take()
        assert taken.is_new and taken.snapshot.ref == f"{REFS}/a1b2c3/developer/{STAMP}"
        commit = taken.snapshot.commit
        assert set(place.files(commit)) == {".gitignore", "src/a.py", "src/b.py", "draft.txt"}
        assert place.content(commit, "src/a.py") == b"a = 3\n"
        head, index = place.git("rev-parse", f"{commit}^1", f"{commit}^2").split()
        assert head == place.git("rev-parse", "HEAD")
        assert place.content(index, "src/a.py") == b"a = 2\n"
        assert "README" in place.files(index)
        assert set(taken.held.changed) == {"README", "src/a.py", "draft.txt"}
        assert taken.held.is_dirty and taken.held.left_out == ()
        author = place.git("show", "-s", "--format=%an <%ae> %cn %aI", commit)
        assert author == "Tmux Orchestrator <orchestrator@localhost> Tmux Orchestrator 2030-03-17T17:46:40+00:00"

    def test_all_of_it_outlives_whatever_becomes_of_the_worktree(self, place: Place) -> None:
        place.write("src/a.py", "staged\n")
        place.git("add", "src/a.py")
        place.write("src/a.py", "unstaged\n")
        commit = place.take().snapshot.commit
        git(place.project, "worktree", "remove", "--force", str(place.worktree))
        git(place.project, "branch", "-D", BRANCH)
        collect(place)
        for name, content in ((commit, "unstaged"), (f"{commit}^2", "staged"), (f"{commit}^1", "a = 1")):
            assert git(place.project, "cat-file", "blob", f"{name}:src/a.py") == content

    def test_a_clean_worktree_has_one_too(self, place: Place) -> None:
        taken = place.take()
        assert not taken.held.is_dirty
        assert place.git("rev-parse", f"{taken.snapshot.commit}^{{tree}}", f"{taken.snapshot.commit}^@").split() == (
            place.git("rev-parse", "HEAD^{tree}", "HEAD").split()
        )

    def test_the_executable_bit_links_and_kinds_that_change(self, place: Place) -> None:
        place.write("tool.sh", "#!/bin/sh\n").chmod(0o755)
        (place.worktree / "src/b.py").chmod(0o755)
        (place.worktree / "dangling").symlink_to("no\nwhere")
        (place.worktree / "README").unlink()
        (place.worktree / "README").symlink_to("src/a.py")
        place.write(".gitignore-folder/x")
        commit = place.take().snapshot.commit
        modes = {name: about.split()[0] for name, about in place.files(commit).items()}
        assert modes["tool.sh"] == modes["src/b.py"] == "100755"
        assert modes["dangling"] == modes["README"] == "120000"
        assert place.content(commit, "dangling") == b"no\nwhere"

    def test_a_file_in_the_place_of_a_folder_and_the_reverse(self, place: Place) -> None:
        shutil.rmtree(place.worktree / "src")
        place.write("src", "now a file\n")
        (place.worktree / "README").unlink()
        place.write("README/part", "now a folder\n")
        commit = place.take().snapshot.commit
        assert set(place.files(commit)) == {".gitignore", "src", "README/part"}

    @pytest.mark.parametrize("is_ignored", [False, True])
    def test_a_link_in_the_place_of_a_folder(self, place: Place, is_ignored: bool) -> None:
        (place.worktree / "src").rename(place.worktree / "moved")
        (place.worktree / "src").symlink_to("moved")
        place.write("moved/a.py", "a = 'behind the link'\n")
        if is_ignored:
            place.write(".gitignore", "/src\n")
        commit = place.take().snapshot.commit
        names = set(place.files(commit))
        assert {"moved/a.py", "moved/b.py"} <= names
        assert "src/a.py" not in names
        assert ("src" in names) is not is_ignored

    def test_names_of_any_bytes(self, place: Place) -> None:
        names = [
            "-rf",
            "two\nlines",
            "carriage\rreturn",
            "tab\t",
            '"quoted"',
            "wéb-日本語",
            "back\\slash",
            " ",
            "*?[x]",
        ]
        names += [":(top)x", os.fsdecode(b"not-utf8-\xff\xfe"), "😀/deep er/-x"]
        for name in names:
            place.write(name, f"content of {name!r}")
        place.git("add", "--", "-rf", "two\nlines")
        place.write("two\nlines", "changed")
        commit = place.take().snapshot.commit
        found = place.files(commit)
        assert set(names) <= set(found)
        for name in names:
            content = subprocess.run(
                ["git", "cat-file", "blob", found[name].split()[2]], cwd=place.worktree, capture_output=True, check=True
            ).stdout.decode()
            assert content == ("changed" if name == "two\nlines" else f"content of {name!r}")

    def test_pipes_and_sockets_hold_nothing_and_stop_nothing(self, place: Place) -> None:
        os.mkfifo(place.worktree / "pipe")
        (place.worktree / "README").unlink()
        os.mkfifo(place.worktree / "README")
        listener = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(place.worktree)  # the path of a socket is short
        listener.bind("socket")
        os.chdir(here)
        place.write("kept")
        taken = place.take()
        listener.close()
        assert set(place.files(taken.snapshot.commit)) == {".gitignore", "src/a.py", "src/b.py", "kept"}

    def test_a_file_that_was_only_announced(self, place: Place) -> None:
        place.write("soon.py", "soon = 1\n")
        place.git("add", "--intent-to-add", "soon.py")
        taken = place.take()
        assert place.content(taken.snapshot.commit, "soon.py") == b"soon = 1\n"
        assert taken.held.index == place.git("rev-parse", "HEAD^{tree}")

    @pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
    def test_changes_that_git_was_told_to_overlook(self, place: Place, flag: str) -> None:
        place.git("update-index", flag, "src/a.py", "src/b.py")
        place.write("src/a.py", "a = 'overlooked'\n")
        (place.worktree / "src/b.py").unlink()
        assert place.git("status", "--porcelain", "src/a.py") == ""
        taken = place.take()
        assert place.content(taken.snapshot.commit, "src/a.py") == b"a = 'overlooked'\n"
        assert taken.held.changed == ("src/a.py",) or flag == "--assume-unchanged"

    def test_a_change_in_the_moment_after_the_index_was_written(self, place: Place) -> None:
        place.git("config", "core.trustctime", "false")
        path = place.write("same-size", "one")
        place.git("add", "same-size")
        index = place.folder / "index"
        moment = 1_800_000_000 * 10**9
        os.utime(path, ns=(moment, moment))
        place.git("update-index", "-q", "--refresh")
        os.utime(index, ns=(moment, moment))
        path.write_text("two")
        os.utime(path, ns=(moment, moment))
        commit = place.take().snapshot.commit
        assert place.content(commit, "same-size") == b"two"

    def test_a_sparse_checkout_keeps_what_is_not_there_and_what_is(self, place: Place) -> None:
        place.write("docs/index.md", "docs\n")
        place.commit()
        place.git("sparse-checkout", "init", "--cone")
        place.git("sparse-checkout", "set", "docs")
        assert not (place.worktree / "src").exists()
        place.write("src/new.py", "outside of the cone\n")
        place.write("docs/index.md", "changed\n")
        commit = place.take().snapshot.commit
        assert set(place.files(commit)) == {
            *(".gitignore", "README", "src/a.py", "src/b.py", "src/new.py", "docs/index.md")
        }
        assert place.content(commit, "docs/index.md") == b"changed\n"

    def test_a_sparse_index(self, place: Place) -> None:
        place.write("docs/index.md", "docs\n")
        place.commit()
        place.git("sparse-checkout", "init", "--cone", "--sparse-index")
        place.git("sparse-checkout", "set", "docs")
        place.write("docs/new.md")
        commit = place.take().snapshot.commit
        assert {"src/a.py", "src/b.py", "docs/new.md"} <= set(place.files(commit))

    def test_renames_by_case_only(self, place: Place) -> None:
        place.git("config", "core.ignoreCase", "true")  # as where names of one case exclude each other
        (place.worktree / "README").rename(place.worktree / "Readme")
        place.write("Readme", "by another case\n")
        commit = place.take().snapshot.commit
        assert place.content(commit, "Readme") == b"by another case\n"

    def test_line_ends_become_what_git_would_commit(self, place: Place) -> None:
        place.git("config", "core.autocrlf", "true")
        place.git("config", "core.safecrlf", "true")
        place.write(".gitattributes", "*.bin -text\n")
        place.write("text.txt", b"one\r\ntwo\n")
        place.write("raw.bin", b"one\r\ntwo\r\n")
        commit = place.take().snapshot.commit
        assert place.content(commit, "text.txt") == b"one\ntwo\n"
        assert place.content(commit, "raw.bin") == b"one\r\ntwo\r\n"

    def test_a_filter_of_the_users_is_applied(self, place: Place) -> None:
        place.git("config", "filter.shout.clean", "tr a-z A-Z")
        place.write(".gitattributes", "*.loud filter=shout\n")
        place.write("x.loud", "quiet\n")
        taken = place.take()
        assert place.content(taken.snapshot.commit, "x.loud") == b"QUIET\n"
        assert taken.held.unfiltered == ()

    def test_where_a_filter_is_missing_the_bytes_are_kept(self, place: Place) -> None:
        place.git("config", "filter.lfs.clean", "git-lfs-that-is-missing clean -- %f")
        place.git("config", "filter.lfs.required", "true")
        place.write(".gitattributes", "*.bin filter=lfs\n")
        names = ["one.bin", "a folder/t\nwo.bin", "three.bin"]
        for name in names:
            place.write(name, b"\0\1" + name.encode()).chmod(0o755)
        place.write("plain.txt", "plain\n")
        (place.worktree / "link.bin").symlink_to("nowhere")
        taken = place.take()
        commit = taken.snapshot.commit
        found = place.files(commit)
        assert {"plain.txt", "link.bin", *names} <= set(found)
        assert [found[name].split()[0] for name in names] == ["100755"] * 3
        assert place.content(commit, "one.bin") == b"\0\1one.bin"
        assert set(taken.held.unfiltered) == set(names) == set(place.note(taken.snapshot).unfiltered)
        assert not place.take(now=NOW + 1000).is_new

    def test_before_the_first_commit(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q", "-b", "main", "fresh")
        alone = Place(tmp_path / "fresh", tmp_path / "fresh")
        assert place_is_empty(alone.take(fresh=True))
        alone.write("first.py", "first\n")
        alone.git("add", "first.py")
        alone.write("second.py", "second\n")
        taken = alone.take(now=NOW + 1000)
        assert set(alone.files(taken.snapshot.commit)) == {"first.py", "second.py"}
        assert taken.held.head is None and taken.held.is_dirty
        assert set(alone.files(f"{taken.snapshot.commit}^1")) == {"first.py"}
        back = tmp_path / "back"
        snapshots.restore(alone.project, taken.snapshot, path=back, branch="back")
        assert (back / "second.py").read_text() == "second\n"

    def test_a_detached_head_and_the_branch_that_it_has_left(self, place: Place) -> None:
        place.write("on-branch")
        on_branch = place.commit()
        place.git("checkout", "-q", "--detach", "HEAD~1")
        place.write("detached")
        detached = place.commit()
        taken = place.take()
        assert taken.held.branch is None
        parents = place.git("rev-parse", f"{taken.snapshot.commit}^@").split()
        assert parents == [detached, on_branch]
        assert place.note(taken.snapshot).under_way == (f"refs/heads/{BRANCH} {on_branch}",)

    def test_a_shallow_clone(self, place: Place, tmp_path: Path) -> None:
        for number in range(3):
            place.write("n", str(number))
            place.commit()
        git(tmp_path, "clone", "-q", "--depth", "1", "--branch", BRANCH, f"file://{place.project}", "shallow")
        shallow = Place(tmp_path / "shallow", tmp_path / "shallow")
        shallow.write("more")
        taken = shallow.take()
        collect(shallow)
        assert {"more", "n"} <= set(shallow.files(taken.snapshot.commit))

    def test_objects_by_another_hash(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256", "other")
        other = Place(tmp_path / "other", tmp_path / "other")
        other.write("a")
        other.commit()
        other.git("merge", "--no-commit", check=False)
        other.write("a", "changed")
        other.git("add", "a")
        other.write("a", "again")
        taken = other.take()
        assert len(taken.snapshot.commit) == 64
        assert not other.take(now=NOW + 1000).is_new


def place_is_empty(taken: Taken) -> bool:
    return taken.held.head is None and taken.held.changed == ()


class TestWhatIsLeftOut:
    def test_a_huge_untracked_file_is_named(self, place: Place) -> None:
        for name in ("huge.bin", "exact.bin"):
            place.write(name, b"")
        os.truncate(place.worktree / "huge.bin", holdings.MAXIMUM_BYTES + 1)
        place.write("small")
        taken = place.take()
        assert set(place.files(taken.snapshot.commit)) >= {"small", "exact.bin"}
        assert "huge.bin" not in place.files(taken.snapshot.commit)
        (left,) = taken.held.left_out
        assert (left.name, left.why) == ("huge.bin", "untracked, and bigger than 100 MB")
        assert place.note(taken.snapshot).left_out == (left,)

    def test_a_tracked_file_is_kept_whatever_its_size(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(holdings, "MAXIMUM_BYTES", 10)
        place.write("README", "longer than ten bytes\n")
        place.write("other", "longer than ten bytes\n")
        taken = place.take()
        assert place.content(taken.snapshot.commit, "README") == b"longer than ten bytes\n"
        assert [one.name for one in taken.held.left_out] == ["other"]

    def test_the_history_of_a_repository_inside_but_not_its_files(self, place: Place) -> None:
        for name in ("plain", "born/inner"):
            (place.worktree / name).mkdir(parents=True)
            git(place.worktree / name, "init", "-q")
        place.write("plain/file", "no commit yet\n")
        place.write("plain/x.log", "ignored by nobody in there\n")
        place.write("born/inner/file", "committed\n")
        place.write("born/inner/.gitignore", "*.tmp\n")
        place.write("born/inner/x.tmp", "ignored in there\n")
        commit_all(place.worktree / "born/inner", "In there")
        place.write("born/inner/draft", "not committed\n")
        (place.worktree / "born/inner/deeper").mkdir()
        git(place.worktree / "born/inner/deeper", "init", "-q")
        place.write("born/inner/deeper/file", "deeper\n")
        taken = place.take()
        found = place.files(taken.snapshot.commit)
        assert {about.split()[0] for about in found.values()} == {"100644"}
        inside = {name for name in found if name.startswith(("plain/", "born/"))}
        assert inside == {
            *("plain/file", "plain/x.log", "born/inner/file", "born/inner/.gitignore", "born/inner/draft"),
            "born/inner/deeper/file",
        }
        assert {one.name for one in taken.held.left_out} == {"plain/", "born/inner/", "born/inner/deeper/"}
        assert all("history" in one.why for one in taken.held.left_out)

    def test_a_repository_inside_that_git_cannot_read(self, place: Place) -> None:
        (place.worktree / "other").mkdir()
        git(place.worktree / "other", "init", "-q")
        place.write("other/file")
        (place.worktree / "other/.git/config").write_text("[core]\n\trepositoryformatversion = 99\n")
        place.write("kept")
        taken = place.take()
        assert "kept" in place.files(taken.snapshot.commit)
        assert [(one.name, one.why) for one in taken.held.left_out] == [("other/", "a repository that git cannot read")]

    def test_of_a_submodule_its_commit_is_kept_and_the_rest_is_named(self, place: Place, tmp_path: Path) -> None:
        library = tmp_path / "library"
        library.mkdir()
        git(library, "init", "-q", "-b", "main")
        (library / "lib.c").write_text("x\n")
        commit_all(library, "Start")
        place.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "library")
        place.commit("Add a submodule")
        clean = place.take()
        assert clean.held.left_out == () and not clean.held.is_dirty
        inside = place.worktree / "library"
        (inside / "lib.c").write_text("changed\n")
        assert [one.why for one in place.take(now=NOW + 1000).held.left_out] == [
            "what is not committed in this submodule"
        ]
        commit_all(inside, "In the submodule")
        taken = place.take(now=NOW + 2000)
        assert [(one.name, one.why) for one in taken.held.left_out] == [
            ("library", "commits that only this submodule has")
        ]
        head = git(inside, "rev-parse", "HEAD")
        assert place.files(taken.snapshot.commit)["library"] == f"160000 commit {head}"
        shutil.rmtree(inside)
        assert "library" not in place.files(place.take(now=NOW + 3000).snapshot.commit)

    def test_files_in_the_folder_of_a_submodule_that_is_not_there(self, place: Place) -> None:
        head = place.git("rev-parse", "HEAD")
        place.git("update-index", "--add", "--cacheinfo", f"160000,{head},library")
        (place.worktree / "library").mkdir()
        assert place.take().held.left_out == ()
        place.write("library/file")
        assert [one.name for one in place.take(now=NOW + 1000).held.left_out] == ["library"]

    def test_a_name_that_git_finds_dangerous(self, place: Place) -> None:
        place.write("git~1", "a short name of .git on another system\n")
        place.write("kept")
        taken = place.take()
        assert "kept" in place.files(taken.snapshot.commit)
        assert [(one.name, one.why) for one in taken.held.left_out] == [
            ("git~1", "git does not take a file of this name")
        ]

    def test_a_folder_that_cannot_be_opened(self, place: Place) -> None:
        here, part = Path.cwd(), "d" * 200
        os.chdir(place.worktree)
        try:
            for _ in range(25):  # longer than a path may be: permissions do not stop the superuser
                Path(part).mkdir()
                os.chdir(part)
            Path("lost").write_text("x")
        finally:
            os.chdir(here)
        place.write("kept")
        taken = snapshots.take(
            place.worktree, orchestration="a1b2c3", role="developer", branch=BRANCH, now=NOW, why="a test"
        )
        assert "kept" in place.files(taken.snapshot.commit)
        assert [one.why for one in taken.held.left_out] == ["cannot be read: File name too long"]
        subprocess.run(["rm", "-rf", str(place.worktree / part)], check=True)

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read everything")
    def test_a_file_that_cannot_be_read(self, place: Place) -> None:
        place.write("secret").chmod(0)
        (place.worktree / "README").chmod(0)
        place.write("README2")
        taken = place.take()
        assert {one.name for one in taken.held.left_out} >= {"secret"}
        assert "README" in place.files(taken.snapshot.commit)


class TestUnderWay:
    def diverge(self, place: Place) -> tuple[str, str]:
        """Two branches that both change README; ours is checked out."""
        place.git("checkout", "-q", "-b", "theirs")
        place.write("README", "theirs\n")
        place.write("theirs.txt")
        theirs = place.commit("Theirs")
        place.git("checkout", "-q", BRANCH)
        place.write("README", "ours\n")
        return place.commit("Ours"), theirs

    def test_a_merge_with_conflicts(self, place: Place) -> None:
        ours, theirs = self.diverge(place)
        place.git("merge", "theirs", check=False)
        assert "UU README" in place.git("status", "--porcelain")
        place.write("src/a.py", "staged meanwhile\n")
        place.git("add", "src/a.py")
        place.write("src/a.py", "and changed\n")
        taken = place.take()
        commit = taken.snapshot.commit
        assert b"<<<<<<<" in place.content(commit, "README")
        head, index, other = place.git("rev-parse", f"{commit}^@").split()
        assert (head, other) == (ours, theirs)
        assert place.content(index, "src/a.py") == b"staged meanwhile\n"
        sides = [place.content(index, f"{holdings.UNMERGED}/{stage}/README") for stage in (1, 2, 3)]
        assert sides == [b"hello\n", b"ours\n", b"theirs\n"]
        assert place.note(taken.snapshot).under_way == (f"MERGE_HEAD {theirs}",)
        assert not place.take(now=NOW + 1000).is_new
        (place.worktree / "README").unlink()  # resolved by deletion, not staged
        assert "README" not in place.files(place.take(now=NOW + 2000).snapshot.commit)

    def test_a_merge_of_several(self, place: Place) -> None:
        heads = []
        for name in ("one", "two"):
            place.git("checkout", "-q", "-b", name, "main")
            place.write(name)
            heads.append(place.commit())
        place.git("checkout", "-q", BRANCH)
        place.write("own")
        place.commit()
        place.git("merge", "-q", "--no-commit", "one", "two")
        taken = place.take()
        assert taken.held.under_way == tuple(f"MERGE_HEAD {head}" for head in heads)
        assert set(heads) <= set(place.git("rev-parse", f"{taken.snapshot.commit}^@").split())

    def test_a_rebase_that_has_stopped_with_an_autostash(self, place: Place) -> None:
        ours, theirs = self.diverge(place)
        place.write("src/b.py", "stashed away\n")
        place.git("rebase", "--autostash", "theirs", check=False)
        assert (place.folder / "rebase-merge/autostash").exists()
        assert place.git("cat-file", "blob", "HEAD:src/b.py") == "b = 1"
        taken = place.take()
        named = dict(line.split() for line in taken.held.under_way)
        assert named["rebase-merge/orig-head"] == ours
        assert named["rebase-merge/onto"] == theirs
        git(place.project, "worktree", "remove", "--force", str(place.worktree))
        git(place.project, "branch", "-D", BRANCH)
        collect(place)
        stash = git(place.project, "cat-file", "blob", f"{named['rebase-merge/autostash']}:src/b.py")
        assert stash == "stashed away"
        assert git(place.project, "cat-file", "blob", f"{ours}:README") == "ours"

    @pytest.mark.parametrize("verb", ["cherry-pick", "revert"])
    def test_a_cherry_pick_and_a_revert(self, place: Place, verb: str) -> None:
        _, theirs = self.diverge(place)
        place.git(verb, theirs if verb == "cherry-pick" else "HEAD~0", check=False)
        if verb == "revert":
            place.git("reset", "-q", "--hard")
            place.git("revert", "--no-commit", theirs, check=False)
        taken = place.take()
        assert theirs in [line.split()[1] for line in taken.held.under_way]

    def test_what_only_reflogs_name(self, place: Place) -> None:
        place.write("one", "first version\n")
        amended = place.commit("First version")
        place.write("one", "second version\n")
        place.git("add", "-A")
        place.git("commit", "-q", "--amend", "-m", "Second")
        place.write("two")
        dropped = place.commit("Dropped")
        place.git("reset", "-q", "--hard", "HEAD~1")
        place.git("checkout", "-q", "-b", "side")
        place.write("three")
        aside = place.commit("Aside")
        place.git("checkout", "-q", BRANCH)
        place.git("branch", "-q", "-D", "side")
        taken = place.take()
        assert set(taken.held.lost) == {amended, dropped, aside}
        # They are held now: the next snapshot need not name them again.
        place.write("four")
        assert place.take(now=NOW + 1000).held.lost == ()
        git(place.project, "worktree", "remove", "--force", str(place.worktree))
        git(place.project, "branch", "-D", BRANCH)
        collect(place)
        for commit, name in ((amended, "one"), (dropped, "two"), (aside, "three")):
            assert git(place.project, "cat-file", "-t", f"{commit}:{name}") == "blob"

    def test_refs_that_the_worktree_has_for_itself(self, place: Place) -> None:
        place.write("own")
        commit = place.commit()
        place.git("update-ref", "refs/worktree/mine", commit)
        place.git("reset", "-q", "--hard", "HEAD~1")
        place.git("reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")
        place.git("update-ref", "-d", "ORIG_HEAD")
        assert place.take().held.lost == (commit,)

    def test_the_stash_is_left_alone(self, place: Place) -> None:
        place.write("README", "to be stashed\n")
        place.git("stash", "push", "-q")
        stash = place.git("rev-parse", "refs/stash")
        place.take()
        assert place.git("rev-parse", "refs/stash") == stash
        assert place.git("stash", "list").count("\n") == 0


class TestMeanwhile:
    def test_an_agents_git_is_just_at_work(self, place: Place) -> None:
        (place.folder / "index.lock").write_text("")
        place.write("draft")
        assert "draft" in place.files(place.take().snapshot.commit)

    @pytest.mark.parametrize("what", ["vanishes", "becomes a folder", "grows"])
    def test_a_file_changes_while_it_is_read(self, place: Place, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        place.write("stays", "x\n")
        path = place.write("goes", "x\n")
        place.write("goes too", "x\n")
        sort_out = holdings._sort_out

        def interrupted(index: holdings._Git, found: holdings._Listing) -> holdings._Wanted:
            wanted = sort_out(index, found)
            path.unlink()
            if what == "becomes a folder":
                place.write("goes/inner")
            elif what == "grows":
                path.write_text("more\n")
            return wanted

        monkeypatch.setattr(holdings, "_sort_out", interrupted)
        taken = snapshots.take(
            place.worktree, orchestration="a1b2c3", role="developer", branch=BRANCH, now=NOW, why="a test"
        )
        found = place.files(taken.snapshot.commit)
        assert {"stays", "goes too"} <= set(found)
        assert ("goes" in found) is (what == "grows")

    def test_another_index_takes_its_place_while_it_is_copied(self, place: Place) -> None:
        index, copy = place.folder / "index", place.project.parent / "copy"
        before = index.stat().st_mtime_ns
        holdings._copy(index, copy)
        assert copy.stat().st_mtime_ns == before
        assert copy.read_bytes() == index.read_bytes()

    def test_objects_that_are_collected_before_they_have_a_ref(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.write("draft", "only in the snapshot\n")
        point = snapshots._point

        def late(folder: Path, ref: str, commit: str) -> str:
            thing = place.git("rev-parse", f"{commit}:draft")
            (place.project / ".git/objects" / thing[:2] / thing[2:]).unlink()
            return point(folder, ref, commit)

        monkeypatch.setattr(snapshots, "_point", late)
        with pytest.raises(OrchestratorError, match="came to nothing"):
            place.take()
        assert snapshots.every(place.project) == []
        monkeypatch.undo()
        assert "draft" in place.files(place.take().snapshot.commit)

    def test_a_question_that_takes_too_long(self, place: Place) -> None:
        place.git("config", "filter.slow.clean", "sleep 30")
        place.write(".gitattributes", "*.slow filter=slow\n")
        place.write("x.slow")
        with pytest.raises(Unavailable, match="took longer than"):
            place.take(seconds=0.5)

    def test_the_callers_variables_do_not_lead_astray(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.write("draft")
        (tmp_path / "other").mkdir()
        git(tmp_path / "other", "init", "-q")
        for name, value in {
            "GIT_DIR": str(tmp_path / "other/.git"),
            "GIT_WORK_TREE": str(tmp_path / "other"),
            "GIT_INDEX_FILE": str(tmp_path / "other-index"),
            "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
        }.items():
            monkeypatch.setenv(name, value)
        taken = snapshots.take(
            place.worktree, orchestration="a1b2c3", role="developer", branch=BRANCH, now=NOW, why="a test"
        )
        monkeypatch.undo()
        assert "draft" in place.files(taken.snapshot.commit)
        assert git(tmp_path / "other", "for-each-ref") == ""
        assert not (tmp_path / "other-index").exists()

    @pytest.mark.parametrize(
        "settings",
        [
            # A signature that nobody can give.
            {"commit.gpgSign": "true", "gpg.program": "/bin/false"},
            # Hooks that refuse everything.
            {"core.hooksPath": "{hooks}"},
            # What keeps its own notes in or beside the index.
            {"core.fsmonitor": "{hooks}/watch", "core.untrackedCache": "true", "core.splitIndex": "true"},
            {"index.version": "4", "feature.manyFiles": "true"},
            {"i18n.commitEncoding": "ISO-8859-1", "core.logAllRefUpdates": "always"},
            # Somebody who must not commit without saying who.
            {"user.useConfigOnly": "true"},
        ],
        ids=lambda settings: "+".join(settings),
    )
    def test_the_users_settings(self, place: Place, tmp_path: Path, settings: dict[str, str]) -> None:
        hooks = tmp_path / "hooks"
        hooks.mkdir()
        for name in ("reference-transaction", "post-index-change", "pre-commit", "watch", "post-checkout"):
            (hooks / name).write_text(f"#!/bin/sh\necho {name} >>{hooks}/ran\nexit 1\n")
            (hooks / name).chmod(0o755)
        for name, value in settings.items():
            git(place.project, "config", name, value.format(hooks=hooks))
        if "core.splitIndex" in settings:
            place.git("update-index", "--split-index", "--untracked-cache")
        (hooks / "ran").unlink(missing_ok=True)
        place.write("wéb", "ü\n")
        place.write("README", "changed\n")
        taken = place.take()
        assert not (hooks / "ran").exists()
        assert place.content(taken.snapshot.commit, "README") == b"changed\n"
        snapshots.restore(place.project, taken.snapshot, path=tmp_path / "back", branch="back")
        assert (tmp_path / "back/README").read_text() == "changed\n"
        assert not (hooks / "ran").exists()

    def test_a_folder_that_is_gone(self, place: Place) -> None:
        shutil.rmtree(place.worktree)
        with pytest.raises(NotFound, match="is gone"):
            snapshots.take(place.worktree, orchestration="a", role="b", branch=BRANCH, now=NOW, why="a test")

    def test_a_folder_that_lost_its_link_is_not_taken_for_the_repository_around_it(
        self, place: Place, tmp_path: Path
    ) -> None:
        git(tmp_path, "init", "-q")  # as where somebody keeps their whole home in git
        (place.worktree / ".git").unlink()
        with pytest.raises(OrchestratorError, match="no worktree any more") as raised:
            snapshots.take(place.worktree, orchestration="a", role="b", branch=BRANCH, now=NOW, why="a test")
        assert "worktree repair" in (raised.value.hint or "")
        assert git(tmp_path, "for-each-ref") == ""


class TestRefs:
    def test_the_same_again_is_no_second_one(self, place: Place) -> None:
        place.write("draft")
        place.write("README", "staged\n")
        place.git("add", "README")
        first = place.take()
        again = place.take(now=NOW + 60_000)
        assert not again.is_new and again.snapshot == first.snapshot
        os.utime(place.worktree / "draft")
        assert not place.take(now=NOW + 60_000).is_new

    CHANGES: tuple[Callable[[Place], object], ...] = (
        lambda place: place.write("draft", "otherwise"),
        lambda place: place.git("add", "draft"),
        lambda place: place.commit(),
        lambda place: place.git("checkout", "-q", "--detach"),
        lambda place: os.truncate(place.write("big", b""), holdings.MAXIMUM_BYTES + 1),
        lambda place: place.git("update-ref", "MERGE_HEAD", "HEAD"),
    )

    @pytest.mark.parametrize("change", CHANGES, ids=["file", "index", "commit", "head", "left out", "under way"])
    def test_whatever_changes_makes_a_new_one(self, place: Place, change: Callable[[Place], object]) -> None:
        place.write("draft")
        place.take()
        change(place)
        taken = place.take(now=NOW + 1000)
        assert taken.is_new
        assert len(snapshots.every(place.project)) == 2

    def test_one_that_stands_for_a_day_gets_a_new_ref_before_it_is_pruned(self, place: Place) -> None:
        first = place.take()
        later = place.take(now=NOW + snapshots.FRESH_MS)
        assert later.is_new and later.snapshot.ref != first.snapshot.ref

    def test_two_of_one_second_do_not_overwrite_each_other(self, place: Place) -> None:
        taken = []
        for number in range(3):
            place.write("draft", str(number))
            taken.append(place.take(now=NOW + number).snapshot)
        assert [one.ref.rpartition("/")[2] for one in taken] == [STAMP, f"{STAMP}-2", f"{STAMP}-3"]
        assert [place.content(one.commit, "draft") for one in taken] == [b"0", b"1", b"2"]
        assert snapshots.every(place.project) == taken
        assert snapshots.latest(place.project, "a1b2c3", "developer") == taken[-1]
        assert not place.take(now=NOW + 999).is_new

    def test_every_one_is_listed_by_orchestration_and_role(self, place: Place) -> None:
        for number, (orchestration, role) in enumerate((("a1b2c3", "developer"), ("a1b2c3", "tester"), ("ff", "x"))):
            snapshots.take(
                place.worktree, orchestration=orchestration, role=role, branch=BRANCH, now=NOW - number * 1000, why="x"
            )
        git(place.project, "update-ref", f"{REFS}/a1b2c3/developer/by-hand", "HEAD")
        assert [one.role for one in snapshots.every(place.project)] == ["x", "tester", "developer"]
        assert [one.role for one in snapshots.every(place.project, "a1b2c3")] == ["tester", "developer"]
        assert snapshots.latest(place.project, "a1b2c3", "nobody") is None

    def test_what_a_snapshot_tells_of_itself(self, place: Place) -> None:
        place.write("src/a.py", "a = 2\n")
        place.write("new.py")
        one = place.take().snapshot
        place.commit()
        two = place.take(now=NOW + 1000).snapshot
        start = git(place.project, "rev-parse", "main")
        notes = snapshots.notes(place.project, [two, one])
        assert [note.why for note in notes] == ["a test", "a test"]
        assert notes[1].head == start and notes[0].head == place.git("rev-parse", "HEAD")
        assert notes[1].branch == f"refs/heads/{BRANCH}"
        assert snapshots.files_changed(place.project, start, notes) == [2, 2]
        assert snapshots.files_changed(place.project, BRANCH, notes) == [0, 0]
        assert snapshots.notes(place.project, []) == []

    def test_pruning_forgets_the_old_ones_only(self, place: Place) -> None:
        taken = []
        for number in range(4):
            place.write("draft", f"version {number}\n")
            taken.append(place.take(now=NOW + number * 1000).snapshot)
        contents = [place.git("rev-parse", f"{one.commit}:draft") for one in taken]
        assert snapshots.prune(place.project, before=taken[2].at) == taken[:2]
        assert snapshots.every(place.project) == taken[2:]
        assert snapshots.prune(place.project, before=taken[2].at) == []
        place.git("checkout", "-q", "--", ".")
        collect(place)
        kept = [place.git("cat-file", "-t", content, check=False) for content in contents]
        assert kept == ["", "", "blob", "blob"]

    def test_a_branch_without_a_worktree(self, place: Place) -> None:
        place.write("one")
        first = place.commit()
        place.git("commit", "-q", "--amend", "--allow-empty", "-m", "Two")
        tip = place.git("rev-parse", "HEAD")
        git(place.project, "worktree", "remove", str(place.worktree))
        taken = snapshots.take_branch(
            place.project, orchestration="a1b2c3", role="developer", branch=BRANCH, now=NOW, why="a test"
        )
        assert (taken.held.head, taken.held.lost) == (tip, (first,))
        git(place.project, "branch", "-D", BRANCH)
        collect(place)
        assert git(place.project, "cat-file", "-t", first) == git(place.project, "cat-file", "-t", tip) == "commit"


class TestRestore:
    def test_a_worktree_comes_back_as_it_was(self, place: Place, tmp_path: Path) -> None:
        place.write("src/a.py", "staged\n")
        place.write("staged.py")
        place.git("add", "-A")
        place.write("src/a.py", "unstaged\n")
        place.write("draft.py")
        (place.worktree / "README").unlink()
        status = place.git("status", "--porcelain", "-uall")
        before = surroundings(place)
        taken = place.take()
        back = tmp_path / "with space" / "back"
        snapshots.restore(place.project, taken.snapshot, path=back, branch="restored/x")
        assert git(back, "status", "--porcelain", "-uall") == status
        assert git(back, "rev-parse", "HEAD") == place.git("rev-parse", "HEAD")
        assert git(back, "branch", "--show-current") == "restored/x"
        assert (back / "src/a.py").read_text() == "unstaged\n"
        assert git(back, "cat-file", "blob", ":src/a.py") == "staged"
        assert surroundings(place) == before

    def test_after_everything_else_is_gone(self, place: Place, tmp_path: Path) -> None:
        place.write("draft.py", "precious\n")
        one = place.take().snapshot
        git(place.project, "worktree", "remove", "--force", str(place.worktree))
        git(place.project, "branch", "-D", BRANCH)
        collect(place)
        snapshots.restore(place.project, one, path=tmp_path / "back", branch="back")
        assert (tmp_path / "back/draft.py").read_text() == "precious\n"

    def test_of_a_merge_with_conflicts_the_marks_come_back(self, place: Place, tmp_path: Path) -> None:
        _, theirs = TestUnderWay().diverge(place)
        place.git("merge", "theirs", check=False)
        taken = place.take()
        note = snapshots.restore(place.project, taken.snapshot, path=tmp_path / "back", branch="back")
        assert note.under_way == (f"MERGE_HEAD {theirs}",)
        assert "<<<<<<<" in (tmp_path / "back/README").read_text()
        assert git(tmp_path / "back", "status", "--porcelain").splitlines() == ["M README", "A  theirs.txt"]
        assert git(tmp_path / "back", "cat-file", "blob", ":README") == "ours"

    def test_nothing_is_overwritten(self, place: Place, tmp_path: Path) -> None:
        one = place.take().snapshot
        (tmp_path / "there").mkdir()
        with pytest.raises(OrchestratorError, match="exists") as raised:
            snapshots.restore(place.project, one, path=tmp_path / "there", branch="back")
        assert "--into" in (raised.value.hint or "")
        with pytest.raises(OrchestratorError, match="has a branch") as raised:
            snapshots.restore(place.project, one, path=tmp_path / "back", branch=BRANCH)
        assert "--branch" in (raised.value.hint or "")
        assert not (tmp_path / "back").exists()
        assert "back" not in git(place.project, "branch", "--list", "--format=%(refname:short)").split()


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Place]:
    """Two thousand files that nobody tracks."""
    git(tmp_path, "init", "-q", "-b", "main", "many")
    made = Place(tmp_path / "many", tmp_path / "many")
    for number in range(2000):
        made.write(f"d{number % 20}/f{number}", f"{number}\n")
    yield made


def test_thousands_of_untracked_files(many: Place) -> None:
    assert len(many.files(many.take().snapshot.commit)) == 2000
