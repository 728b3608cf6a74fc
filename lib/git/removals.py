"""Removing a worktree or a branch: what git needs to know of it before, and nothing that git has not been told."""

from __future__ import annotations

import filecmp
import os
import stat
from pathlib import Path

from lib.errors import OrchestratorError
from lib.git import repository
from lib.git.repository import ask
from lib.records import dataclass


@dataclass(frozen=True)
class Place:
    """A worktree as the repository lists it. `branch` is None when HEAD is detached."""

    path: Path
    branch: str | None = None
    is_main: bool = False
    is_locked: bool = False


@dataclass(frozen=True)
class Ignored:
    """An ignored file, or a folder of them (its name ends in a slash), with its size in bytes."""

    name: str
    size: int


def places(project: Path) -> dict[Path, Place]:
    """The worktrees of a project, by their paths."""
    found: list[Place] = []
    for block in ask(project, "worktree", "list", "--porcelain").strip("\n").split("\n\n"):
        said = dict(line.partition(" ")[::2] for line in block.splitlines())
        branch = said.get("branch", "").removeprefix("refs/heads/") or None
        found.append(Place(Path(said["worktree"]).resolve(), branch, not found, "locked" in said))
    return {place.path: place for place in found}


def branch_commit(project: Path, branch: str) -> str | None:
    """The commit of a branch; None when there is no such branch."""
    done = repository.run(project, "rev-parse", "--quiet", "--verify", f"refs/heads/{branch}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


def ignored(worktree: Path, like: Path) -> list[Ignored]:
    """What no snapshot holds, since git is told to ignore it; but for files of which `like` has the same."""
    words = ("-z", "--others", "--ignored", "--exclude-standard", "--directory")
    names = ask(worktree, "ls-files", *words, hooks=False).split("\0")[:-1]
    return [Ignored(name, _size(worktree / name)) for name in names if not _is_same(worktree / name, like / name)]


def _is_same(one: Path, other: Path) -> bool:
    try:
        if not all(stat.S_ISREG(path.lstat().st_mode) for path in (one, other)):
            return False
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            return path.lstat().st_size
        with os.scandir(path) as inner:
            return sum(_size(Path(entry)) for entry in inner)
    except OSError:  # it cannot be read, or has gone
        return 0


def is_in(project: Path, commit: str, into: str) -> bool:
    """Whether a commit can be reached from another one, or from a ref."""
    done = repository.run(project, "merge-base", "--is-ancestor", commit, into)
    if done.returncode not in (0, 1):
        raise repository.failed(project, done)
    return done.returncode == 0


def remove_worktree(project: Path, path: Path, *, force: bool) -> None:
    """Have git remove a worktree. Without `force` git itself refuses one that holds more than its commit."""
    ask(project, "worktree", "remove", *(["--force"] if force else []), str(path), hooks=False)


def delete_branch(project: Path, branch: str, commit: str) -> None:
    """Delete a branch while it is at this commit and checked out nowhere. Raises `OrchestratorError` otherwise."""
    for place in places(project).values():
        if place.branch == branch:
            raise OrchestratorError(f"{branch} is checked out in {place.path}")
    # At once with the comparison, which `git branch -D` does not make.
    ask(project, "update-ref", "-d", f"refs/heads/{branch}", commit, hooks=False)
    repository.run(project, "config", "--local", "--remove-section", f"branch.{branch}")  # it may have none
