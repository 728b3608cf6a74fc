"""Merges, with real repositories: what comes of one, how conflicts are settled, and what would happen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.errors import OrchestratorError, Unavailable
from lib.git import merges
from lib.git.merges import Distance, Merge, Outcome, Strategy
from tests.conftest import Bench, commit_all


@dataclass(frozen=True)
class Two:
    """A repository with two lines of work: `main`, which is checked out, and `side`."""

    folder: Path

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, branch: str, **files: str | None) -> str:
        """Commit files (None removes one; `a_txt` is a.txt) on a branch, and come back to main."""
        self.git("checkout", "-q", branch)
        for name, text in files.items():
            path = self.folder / name.replace("_", ".")
            path.unlink() if text is None else path.write_text(text)
        commit_all(self.folder, f"{branch}: {', '.join(files)}")
        made = self.git("rev-parse", "HEAD")
        self.git("checkout", "-q", "main")
        return made

    def status(self) -> str:
        return self.git("status", "--porcelain")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def two(bench: Bench) -> Two:
    found = Two(bench.project())
    found.commit("main", a_txt="one\ntwo\nthree\n")
    found.git("branch", "side")
    return found


@pytest.fixture
def in_conflict(two: Two) -> Two:
    two.commit("main", a_txt="one\nmain\nthree\n")
    two.commit("side", a_txt="one\nside\nthree\n", b_txt="b\n")
    assert merges.merge(two.folder, "side", message="Merge side").outcome is Outcome.CONFLICT
    return two


class TestMerging:
    def test_what_is_contained_already_changes_nothing(self, two: Two) -> None:
        head = two.commit("main", b_txt="b\n")
        assert merges.merge(two.folder, "side", message="Merge side") == Merge(Outcome.CONTAINED, head)

    def test_what_is_only_ahead_is_followed(self, two: Two) -> None:
        side = two.commit("side", b_txt="b\n")
        assert merges.merge(two.folder, "side", message="Merge side") == Merge(Outcome.FAST_FORWARD, side)

    def test_a_merge_commit_says_what_it_is_and_is_ours(self, two: Two) -> None:
        main, side = two.commit("main", m_txt="m\n"), two.commit("side", b_txt="b\n")
        made = merges.merge(two.folder, "side", message="Merge the side")
        assert made == Merge(Outcome.MERGED, two.git("rev-parse", "HEAD"))
        assert two.git("log", "-1", "--format=%s %an %P") == f"Merge the side Tmux Orchestrator {main} {side}"
        assert two.status() == ""

    def test_a_merge_commit_can_be_asked_for(self, two: Two) -> None:
        two.commit("side", b_txt="b\n")
        assert merges.merge(two.folder, "side", message="Merge", fast_forward=False).outcome is Outcome.MERGED

    def test_two_lines_cannot_be_followed(self, two: Two) -> None:
        head = two.commit("main", m_txt="m\n")
        two.commit("side", b_txt="b\n")
        with pytest.raises(OrchestratorError, match="fast-forward"):
            merges.merge(two.folder, "side", message="Merge", only_fast_forward=True)
        assert (merges.head(two.folder), two.status()) == (head, "")

    def test_a_conflict_is_under_way_until_it_is_aborted(self, two: Two) -> None:
        head = two.commit("main", a_txt="one\nmain\nthree\n")
        two.commit("side", a_txt="one\nside\nthree\n", b_txt="b\n")
        assert merges.merge(two.folder, "side", message="Merge") == Merge(Outcome.CONFLICT, head, ("a.txt",))
        assert (merges.conflicts(two.folder), merges.under_way(two.folder)) == (("a.txt",), "merge")
        merges.abort(two.folder)
        assert (merges.under_way(two.folder), two.status(), two.read("a.txt")) == (None, "", "one\nmain\nthree\n")
        merges.abort(two.folder)  # and once more: nothing happens

    def test_what_git_refuses_to_begin_changes_nothing(self, two: Two) -> None:
        two.commit("side", new_txt="theirs\n")
        (two.folder / "new.txt").write_text("mine, and in no commit\n")
        with pytest.raises(OrchestratorError, match="would be overwritten"):
            merges.merge(two.folder, "side", message="Merge")
        assert (two.read("new.txt"), merges.under_way(two.folder)) == ("mine, and in no commit\n", None)

    def test_neither_hooks_nor_settings_of_the_user_have_a_say(self, two: Two) -> None:
        two.commit("main", m_txt="m\n")
        two.commit("side", b_txt="b\n")
        for name in ("pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-merge"):
            hook = two.folder / ".git" / "hooks" / name
            hook.parent.mkdir(exist_ok=True)
            hook.write_text("#!/bin/sh\ntouch RAN\nexit 1\n")
            hook.chmod(0o755)
        for name, value in (("merge.ff", "only"), ("commit.gpgSign", "true"), ("gpg.program", "false")):
            two.git("config", name, value)
        two.git("config", "branch.main.mergeOptions", "--squash")
        assert merges.merge(two.folder, "side", message="Merge").outcome is Outcome.MERGED
        assert not (two.folder / "RAN").exists()

    def test_a_resolution_that_was_made_once_is_made_again(self, in_conflict: Two) -> None:
        merges.settle(in_conflict.folder, ["a.txt"], Strategy.UNION)
        merges.conclude(in_conflict.folder)
        in_conflict.git("reset", "-q", "--hard", "HEAD~1")
        assert merges.merge(in_conflict.folder, "side", message="Again").outcome is Outcome.MERGED
        assert in_conflict.read("a.txt") == "one\nmain\nside\nthree\n"

    def test_a_worktree_with_a_detached_head_merges_as_well(self, two: Two, bench: Bench) -> None:
        main = two.commit("main", m_txt="m\n")
        two.commit("side", b_txt="b\n")
        scratch = bench.folder / "scratch"
        two.git("worktree", "add", "-q", "--detach", str(scratch), main)
        assert merges.merge(scratch, "side", message="Merge").outcome is Outcome.MERGED
        assert two.git("rev-parse", "main") == main


SETTLED = [
    (Strategy.OURS, "one\nmain\nthree\n"),
    (Strategy.THEIRS, "one\nside\nthree\n"),
    (Strategy.UNION, "one\nmain\nside\nthree\n"),
]


class TestSettling:
    @pytest.mark.parametrize(("strategy", "text"), SETTLED)
    def test_a_conflict_is_settled_for_a_side_or_with_the_lines_of_both(
        self, in_conflict: Two, strategy: Strategy, text: str
    ) -> None:
        merges.settle(in_conflict.folder, ["a.txt"], strategy)
        assert merges.conflicts(in_conflict.folder) == ()
        merges.conclude(in_conflict.folder)
        assert (in_conflict.read("a.txt"), in_conflict.read("b.txt"), in_conflict.status()) == (text, "b\n", "")

    @pytest.mark.parametrize(("strategy", "is_there"), [(Strategy.OURS, False), (Strategy.THEIRS, True)])
    def test_a_side_that_removed_the_file_removes_it(self, two: Two, strategy: Strategy, is_there: bool) -> None:
        two.commit("main", a_txt=None)
        two.commit("side", a_txt="one\nside\nthree\n")
        assert merges.merge(two.folder, "side", message="Merge").conflicts == ("a.txt",)
        merges.settle(two.folder, ["a.txt"], strategy)
        merges.conclude(two.folder)
        assert ((two.folder / "a.txt").exists(), two.status()) == (is_there, "")

    def test_what_only_one_side_has_is_not_settled_by_union(self, two: Two) -> None:
        two.commit("main", a_txt=None)
        two.commit("side", a_txt="one\nside\nthree\n")
        merges.merge(two.folder, "side", message="Merge")
        with pytest.raises(OrchestratorError, match="not a file on both sides"):
            merges.settle(two.folder, ["a.txt"], Strategy.UNION)
        assert merges.conflicts(two.folder) == ("a.txt",)

    def test_a_file_without_a_conflict_is_named(self, in_conflict: Two) -> None:
        with pytest.raises(OrchestratorError, match=r"b\.txt: no conflict"):
            merges.settle(in_conflict.folder, ["a.txt", "b.txt"], Strategy.OURS)
        assert merges.conflicts(in_conflict.folder) == ("a.txt",)

    def test_a_name_that_looks_like_a_pattern_is_a_name(self, two: Two) -> None:
        for branch in ("main", "side"):
            two.git("checkout", "-q", branch)
            (two.folder / "*\n.txt").write_text(branch)
            commit_all(two.folder, "A strange name")
        two.git("checkout", "-q", "main")
        assert merges.merge(two.folder, "side", message="Merge").conflicts == ("*\n.txt",)
        merges.settle(two.folder, ["*\n.txt"], Strategy.THEIRS)
        merges.conclude(two.folder)
        assert two.read("*\n.txt") == "side"


UNDER_WAY: list[tuple[str, Callable[[Two], object]]] = [
    ("rebase", lambda two: two.git("rebase", "-q", "side")),
    ("cherry-pick", lambda two: two.git("cherry-pick", "side")),
    ("revert", lambda two: two.git("revert", "--no-edit", "main~1")),
]


@pytest.mark.parametrize(("word", "begin"), UNDER_WAY, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_under_way_is_named(two: Two, word: str, begin: Callable[[Two], object]) -> None:
    two.git("config", "user.name", "Test")
    two.git("config", "user.email", "test@localhost")
    two.commit("main", a_txt="one\nmain\nthree\n")
    two.commit("main", a_txt="one\nmain again\nthree\n")
    two.commit("side", a_txt="one\nside\nthree\n")
    with pytest.raises(subprocess.CalledProcessError):
        begin(two)
    assert merges.under_way(two.folder) == word


class TestWithoutACheckout:
    def test_what_would_conflict_is_named_and_nothing_changes(self, two: Two) -> None:
        main = two.commit("main", a_txt="one\nmain\nthree\n", c_txt="m\n", d_txt="d\n")
        two.commit("side", a_txt="one\nside\nthree\n", c_txt="s\n")
        assert merges.would_conflict(two.folder, "main", "side") == ("a.txt", "c.txt")
        assert (two.git("rev-parse", "main"), two.status()) == (main, "")

    def test_what_would_merge_has_no_conflicts(self, two: Two) -> None:
        two.commit("main", m_txt="m\n")
        two.commit("side", b_txt="b\n")
        assert merges.would_conflict(two.folder, "main", "side") == ()

    def test_a_branch_that_is_not_there_is_no_conflict(self, two: Two) -> None:
        with pytest.raises(OrchestratorError, match="merge-tree"):
            merges.would_conflict(two.folder, "main", "nowhere")

    def test_an_old_git_cannot_look(self, two: Two, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        old = tmp_path / "old" / "git"
        old.parent.mkdir()
        old.write_text('#!/bin/sh\ncase "$*" in *--version*) echo git version 2.30.2;; *) exit 129;; esac\n')
        old.chmod(0o755)
        monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
        with pytest.raises(Unavailable, match=r"git 2\.30 cannot merge without a checkout: 2\.38 is needed"):
            merges.would_conflict(two.folder, "main", "side")

    def test_ahead_and_behind_are_counted(self, two: Two) -> None:
        two.commit("main", m_txt="m\n")
        for text in "12":
            two.commit("side", b_txt=text)
        assert merges.distance(two.folder, "side", "main") == Distance(ahead=2, behind=1)

    def test_lines_with_nothing_in_common_have_no_base(self, two: Two) -> None:
        two.git("checkout", "-q", "--orphan", "other")
        commit_all(two.folder, "Another beginning")
        assert merges.merge_base(two.folder, "main", "other") is None
        assert merges.merge_base(two.folder, "main", "side") == two.git("rev-parse", "main")
