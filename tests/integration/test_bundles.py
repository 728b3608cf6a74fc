"""Bundles on real git: only what is missing travels, all of it arrives or nothing, and no person's branch moves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lib.errors import OrchestratorError
from lib.git import bundles
from tests.conftest import commit_all

BASE = "refs/orchestrator/fleet/e1/base"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def repository(path: Path, *, content: bytes = b"one\n") -> Path:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    (path / "file").write_bytes(content)
    commit_all(path, "Start")
    return path


def commit(path: Path, name: str, content: bytes = b"more\n") -> str:
    (path / name).write_bytes(content)
    commit_all(path, name)
    return git(path, "rev-parse", "HEAD")


def refs(path: Path) -> dict[str, str]:
    return {line.split()[1]: line.split()[0] for line in git(path, "show-ref").splitlines()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return repository(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    path = tmp_path / "there.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    return path


def test_a_whole_project_arrives_at_one_that_has_nothing(here: Path, there: Path, tmp_path: Path) -> None:
    head = git(here, "rev-parse", "HEAD")
    before = refs(here)
    assert bundles.write(here, tmp_path / "all", [head])
    assert refs(here) == before, "nothing of ours is left behind"
    bundles.take_in(there, tmp_path / "all", {BASE: head})
    assert refs(there) == {BASE: head}
    assert git(there, "show", f"{BASE}:file") == "one"


def test_what_the_other_side_has_does_not_travel_again(here: Path, there: Path, tmp_path: Path) -> None:
    big = os.urandom(4_000_000)
    first = commit(here, "big", big)
    bundles.write(here, tmp_path / "all", [first])
    bundles.take_in(there, tmp_path / "all", {BASE: first})
    second = commit(here, "small")
    # One that is known there and not here says nothing.
    assert bundles.write(here, tmp_path / "more", [second], known=[first, "0" * 40])
    assert (tmp_path / "all").stat().st_size > len(big) > 100 * (tmp_path / "more").stat().st_size
    bundles.take_in(there, tmp_path / "more", {BASE: second})
    assert git(there, "show", f"{BASE}:small") == "more"


def test_nothing_is_written_when_nothing_is_missing(here: Path, there: Path, tmp_path: Path) -> None:
    head = git(here, "rev-parse", "HEAD")
    assert not bundles.write(here, tmp_path / "none", [head, head], known=[head])
    assert list(tmp_path.glob("none*")) == []
    bundles.write(here, tmp_path / "all", [head])
    bundles.take_in(there, tmp_path / "all", {BASE: head})
    bundles.take_in(there, None, {"refs/orchestrator/fleet/e2/base": head})
    assert refs(there) == {BASE: head, "refs/orchestrator/fleet/e2/base": head}


def test_a_commit_that_is_known_travels_by_name_beside_one_that_is_not(here: Path, there: Path, tmp_path: Path) -> None:
    base = git(here, "rev-parse", "HEAD")
    bundles.write(here, tmp_path / "all", [base])
    bundles.take_in(there, tmp_path / "all", {BASE: base})
    work = commit(here, "work")
    bundles.write(here, tmp_path / "work", [base, work], known=[base])
    wanted = {"refs/orchestrator/fleet/e1/a": base, "refs/orchestrator/fleet/e1/b": work}
    bundles.take_in(there, tmp_path / "work", wanted)
    assert refs(there) == {BASE: base, **wanted}


def test_a_detached_head_and_a_merge_travel(here: Path, there: Path, tmp_path: Path) -> None:
    git(here, "checkout", "-q", "-b", "side")
    commit(here, "side")
    git(here, "checkout", "-q", "main")
    commit(here, "main")
    git(here, "-c", "user.name=T", "-c", "user.email=t@localhost", "merge", "-q", "--no-edit", "side")
    head = git(here, "rev-parse", "HEAD")
    git(here, "checkout", "-q", "--detach")
    bundles.write(here, tmp_path / "all", [head])
    bundles.take_in(there, tmp_path / "all", {BASE: head})
    assert git(there, "rev-list", "--count", head) == "4"


_FOREIGN = [
    *("refs/heads/main", "refs/tags/v1", "HEAD", "refs/orchestrator/x y", "-d", "refs/orchestrator/.."),
    # A second line for git's list of changes.
    "refs/orchestrator/x 0\ndelete refs/orchestrator/fleet/e1/base",
]


class TestRefused:
    """All of a bundle or nothing: a wrong one leaves no ref."""

    @pytest.fixture
    def base(self, here: Path, there: Path, tmp_path: Path) -> str:
        head = git(here, "rev-parse", "HEAD")
        bundles.write(here, tmp_path / "all", [head])
        bundles.take_in(there, tmp_path / "all", {BASE: head})
        return head

    def test_one_that_was_cut_off(self, here: Path, there: Path, base: str, tmp_path: Path) -> None:
        work = commit(here, "work", os.urandom(50_000))
        bundles.write(here, tmp_path / "work", [work], known=[base])
        whole = (tmp_path / "work").read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 1):
            (tmp_path / "part").write_bytes(whole[:length])
            with pytest.raises(OrchestratorError):
                bundles.take_in(there, tmp_path / "part", {"refs/orchestrator/fleet/e1/a": work})
        assert refs(there) == {BASE: base}

    def test_one_of_which_a_byte_was_changed(self, here: Path, there: Path, base: str, tmp_path: Path) -> None:
        work = commit(here, "work", os.urandom(50_000))
        bundles.write(here, tmp_path / "work", [work], known=[base])
        content = bytearray((tmp_path / "work").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "work").write_bytes(content)
        with pytest.raises(OrchestratorError, match="failed in"):
            bundles.take_in(there, tmp_path / "work", {"refs/orchestrator/fleet/e1/a": work})
        assert refs(there) == {BASE: base}

    def test_one_that_needs_what_is_not_here(self, here: Path, there: Path, base: str, tmp_path: Path) -> None:
        between, work = commit(here, "between"), commit(here, "work")
        bundles.write(here, tmp_path / "work", [work], known=[between])
        with pytest.raises(OrchestratorError, match="lacks these prerequisite commits"):
            bundles.take_in(there, tmp_path / "work", {"refs/orchestrator/fleet/e1/a": work})
        assert refs(there) == {BASE: base}

    def test_one_that_does_not_bring_what_was_said(self, here: Path, there: Path, base: str, tmp_path: Path) -> None:
        work, other = commit(here, "work"), commit(here, "other")
        bundles.write(here, tmp_path / "work", [work], known=[base])
        wanted = {"refs/orchestrator/fleet/e1/a": work, "refs/orchestrator/fleet/e1/b": other}
        with pytest.raises(OrchestratorError, match="did not come whole"):
            bundles.take_in(there, tmp_path / "work", wanted)
        assert refs(there) == {BASE: base}

    def test_one_that_is_none(self, there: Path, base: str, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("hello")
        with pytest.raises(OrchestratorError, match="cannot be used"):
            bundles.take_in(there, tmp_path / "text", {"refs/orchestrator/fleet/e1/a": base})

    @pytest.mark.parametrize("ref", _FOREIGN)
    def test_a_ref_that_is_not_ours(self, there: Path, base: str, ref: str) -> None:
        with pytest.raises(OrchestratorError):
            bundles.take_in(there, None, {ref: base})
        assert refs(there) == {BASE: base}

    @pytest.mark.parametrize("name", ["main", "--all", "", "abc", "HEAD"])
    def test_a_commit_that_is_no_name(self, there: Path, base: str, name: str) -> None:
        with pytest.raises(OrchestratorError, match="no commit's name"):
            bundles.take_in(there, None, {"refs/orchestrator/fleet/e1/a": name})

    def test_a_shallow_clone(self, here: Path, tmp_path: Path) -> None:
        commit(here, "work")
        git(tmp_path, "clone", "-q", "--depth=1", here.as_uri(), "shallow")
        with pytest.raises(OrchestratorError, match="shallow") as told:
            bundles.write(tmp_path / "shallow", tmp_path / "all", [git(here, "rev-parse", "HEAD")])
        assert told.value.hint and "--unshallow" in told.value.hint


def test_branches_are_made_and_none_is_moved(here: Path) -> None:
    start, head = git(here, "rev-parse", "HEAD"), commit(here, "work")
    made = {"orchestration/a1-spec/developer": start, "orchestration/a1-spec/tester": head}
    assert bundles.make_branches(here, made) == {}
    assert bundles.make_branches(here, made) == {}, "again is the same"
    assert bundles.make_branches(here, {"main": start, "orchestration/a1-spec/tester": start}) == {
        "main": head,
        "orchestration/a1-spec/tester": head,
    }
    assert (git(here, "rev-parse", "main"), git(here, "status", "--porcelain")) == (head, "")
