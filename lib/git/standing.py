"""Where a worktree stands: branch, commit, what is not committed and what is under way, by one question to git."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from lib.errors import NotFound, OrchestratorError
from lib.git import merges, repository
from lib.records import dataclass

#: Nothing is asked of a daemon of git's, whatever a user has set.
_SETTINGS = ("core.fsmonitor=false",)
_WORDS = ("--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames", "--no-ahead-behind")
#: How many fields stand before the name in a line of each kind.
_FIELDS = {"1": 8, "2": 9, "u": 10, "?": 1}


@dataclass(frozen=True)
class Standing:
    """A worktree now. `head` is None before the first commit, `branch` (short) when HEAD is detached.

    `changed` are tracked files that differ from HEAD, `conflicts` those of them that are in conflict. `under_way` is
    what git is in the middle of: merge, rebase, cherry-pick, revert. `stamp` is another one whenever the worktree may
    hold something else.
    """

    head: str | None
    branch: str | None
    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    conflicts: tuple[str, ...]
    under_way: str | None
    stamp: str

    @property
    def dirty(self) -> int:
        """How many files are not committed."""
        return len(self.changed) + len(self.untracked)


def look(worktree: Path, *, seconds: float | None = None) -> Standing:
    """Ask git, once, where a worktree stands; nothing is written, no index refreshed.

    Raises `NotFound` when the worktree is gone, `OrchestratorError` when the folder is none or cannot be read,
    `Unavailable` when git takes longer than `seconds`.
    """
    if not worktree.exists():
        raise NotFound(f"the worktree {worktree} is gone")
    if not (worktree / ".git").exists():
        # git would answer for the repository that the folder lies in.
        raise OrchestratorError(f"{worktree} is no worktree any more", hint=f"git worktree repair {worktree}")
    said = repository.ask(worktree, "status", *_WORDS, settings=_SETTINGS, hooks=False, seconds=seconds)
    return _read(worktree, said)


def _read(worktree: Path, said: str) -> Standing:
    about: dict[str, str] = {}
    names: dict[str, list[str]] = {kind: [] for kind in _FIELDS}
    for line in said.split("\0")[:-1]:
        if line.startswith("# "):
            key, _, value = line[2:].partition(" ")
            about[key] = value
        else:
            names[line[0]].append(line.split(" ", _FIELDS[line[0]])[-1])
    changed = [*names["1"], *names["2"], *names["u"]]
    head, branch = about.get("branch.oid"), about.get("branch.head")
    under_way = merges.under_way(worktree)
    return Standing(
        head=None if head == "(initial)" else head,
        branch=None if branch == "(detached)" else branch,
        changed=tuple(changed),
        untracked=tuple(names["?"]),
        conflicts=tuple(names["u"]),
        under_way=under_way,
        stamp=_stamp(worktree, f"{said}{under_way}", [*changed, *names["?"]]),
    )


def _stamp(worktree: Path, said: str, names: list[str]) -> str:
    """git's word for what differs, and of those files what changes with every write."""
    found = hashlib.sha256(os.fsencode(said))
    for name in names:
        with contextlib.suppress(OSError):  # deleted, or gone since
            state = (worktree / name).lstat()
            found.update(f"{state.st_ino} {state.st_mode} {state.st_size} {state.st_mtime_ns}\n".encode())
    return found.hexdigest()
