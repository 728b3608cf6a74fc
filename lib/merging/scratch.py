"""The scratch worktree: where a team's work is merged and checked, below the state home and on no branch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from lib import preparing
from lib.git import merges, removals, repository

#: A checkout of a big repository from a slow disk; more is a file system that hangs.
LONGEST_SECONDS = 600.0


def place(home: Path, orchestration_id: str) -> Path:
    """Where the scratch worktree of a team is, while the hub works."""
    return home / "merging" / orchestration_id


def place_of_checks(home: Path, orchestration_id: str) -> Path:
    """Where the criteria of a team are checked, while that errand works: the hub's may be taken meanwhile."""
    return home / "criteria" / orchestration_id


@contextlib.contextmanager
def worktree(project: Path, path: Path, commit: str) -> Iterator[Path]:
    """Have a detached worktree of ours on a commit for the block; what a killed run has left is removed before."""
    remove(project, path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    words = ("worktree", "add", "--quiet", "--detach", str(path), commit)
    repository.ask(project, *words, hooks=False, seconds=LONGEST_SECONDS)
    try:
        preparing.include(project, path)  # local settings, which a check may need
        yield path
    finally:
        remove(project, path)


def remove(project: Path, path: Path) -> None:
    """Have no scratch worktree at a path below the state home: nothing but ours is ever there."""
    if path.resolve() in removals.places(project):
        # Twice: also when a killed `git worktree add` has left it locked.
        words = ("worktree", "remove", "--force", "--force", str(path))
        repository.run(project, *words, hooks=False, seconds=LONGEST_SECONDS)
    shutil.rmtree(path, ignore_errors=True)


def reset(path: Path, commit: str) -> None:
    """Put the scratch worktree on a commit again, whatever a merge or a check has left in it.

    Ignored files stay until it is removed: what a check has built serves the next one.
    """
    merges.abort(path)
    repository.ask(path, "reset", "--quiet", "--hard", hooks=False, seconds=LONGEST_SECONDS)
    repository.ask(path, "clean", "-ffd", "--quiet", hooks=False, seconds=LONGEST_SECONDS)
    words = ("checkout", "--quiet", "--force", "--detach", commit)
    repository.ask(path, *words, hooks=False, seconds=LONGEST_SECONDS)
