"""Merges, by git itself: what two lines of work make together, in a checkout or without one.

No hook runs and no editor opens. Resolutions that were made once are remembered (`git rerere`) and made again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lib import repository
from lib.errors import OrchestratorError, Unavailable

#: Whatever a user has set: no key is asked for, nothing is stashed, and only what was said is merged.
_SETTINGS = (
    "rerere.enabled=true",
    "rerere.autoUpdate=true",
    "commit.gpgSign=false",
    "merge.autoStash=false",
    "merge.verifySignatures=false",
    "core.fsmonitor=false",
)
#: The first git that merges without a checkout (`merge-tree --write-tree`).
_WITHOUT_CHECKOUT = (2, 38)
#: What git keeps in a worktree's own folder while something is under way, and git's word for it.
_UNDER_WAY = (
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
)
#: Sides of a conflict, by their stage in the index.
_BASE, _OURS, _THEIRS = 1, 2, 3
_PLAIN_FILES = ("100644", "100755")


class Outcome(StrEnum):
    CONTAINED = "contained"
    FAST_FORWARD = "fast_forward"
    MERGED = "merged"
    CONFLICT = "conflict"


class Strategy(StrEnum):
    """Which side a conflict is settled for; `union` takes the lines of both."""

    OURS = "ours"
    THEIRS = "theirs"
    UNION = "union"


@dataclass(frozen=True)
class Merge:
    """What a merge has come to. `head` is HEAD now: as before when it was a conflict, which is then under way."""

    outcome: Outcome
    head: str
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distance:
    """How many commits one line has that another lacks, and the other way round."""

    ahead: int
    behind: int


# -- in a checkout --


def merge(
    checkout: Path,
    commit: str,
    *,
    message: str,
    fast_forward: bool = True,
    only_fast_forward: bool = False,
    seconds: float | None = None,
) -> Merge:
    """Merge a commit into what is checked out. A merge commit gets `message` and is the toolkit's.

    A conflict stays under way, for `settle`, `conclude` or `abort`. One that was resolved before in the same way is
    resolved so again. Raises `OrchestratorError`, with nothing changed, when git refuses to begin.
    """
    before = head(checkout)
    wanted = repository.ask(checkout, "rev-parse", "--verify", f"{commit}^{{commit}}").strip()
    if contains(checkout, before, wanted):
        return Merge(Outcome.CONTAINED, before)
    way = "--ff-only" if only_fast_forward else "--ff" if fast_forward else "--no-ff"
    words = ("merge", "--quiet", "--no-edit", "--no-squash", "--commit", "--no-stat", way, "-m", message, wanted)
    done = repository.run(
        checkout, *words, settings=_SETTINGS, environment=repository.IDENTITY, hooks=False, seconds=seconds
    )
    if done.returncode == 0:
        now = head(checkout)
        return Merge(Outcome.FAST_FORWARD if now == wanted else Outcome.MERGED, now)
    if under_way(checkout) != "merge":
        raise repository.failed(checkout, done)
    if left := conflicts(checkout):
        return Merge(Outcome.CONFLICT, before, left)
    return Merge(Outcome.MERGED, conclude(checkout))  # all of it was resolved before


def conclude(checkout: Path) -> str:
    """Commit the merge that is under way, whose conflicts are settled. Returns the new head."""
    words = ("commit", "--quiet", "--no-edit", "--cleanup=strip")
    repository.ask(checkout, *words, settings=_SETTINGS, environment=repository.IDENTITY, hooks=False)
    return head(checkout)


def abort(checkout: Path) -> None:
    """End the merge that is under way: HEAD, index and files are as before it. None is under way: nothing happens."""
    if under_way(checkout) == "merge":
        repository.ask(checkout, "merge", "--abort", settings=_SETTINGS, hooks=False)


def conflicts(checkout: Path) -> tuple[str, ...]:
    """The paths whose conflicts are not settled, seen from the top of the checkout."""
    return tuple(dict.fromkeys(path for path, _stage, _mode, _blob in _unmerged(checkout)))


def settle(checkout: Path, paths: Sequence[str], strategy: Strategy) -> None:
    """Settle the conflicts of these paths for one side, or with the lines of both; a side that removed it removes it.

    Raises `OrchestratorError`, before anything is changed, for a path without a conflict, or one whose lines cannot
    be put together.
    """
    sides = {path: {} for path in paths}  # type: dict[str, dict[int, tuple[str, str]]]
    for path, stage, mode, blob in _unmerged(checkout):
        if path in sides:
            sides[path][stage] = (mode, blob)
    if strange := [path for path, found in sides.items() if not found]:
        raise OrchestratorError(f"{', '.join(strange)}: no conflict there", hint=f"look: git -C {checkout} status")
    wanted = {path: _settled(checkout, path, found, strategy) for path, found in sides.items()}
    for path, found in wanted.items():
        if found is None:
            _literally(checkout, "rm", "--quiet", "--force", "--cached", "--", path)
            (checkout / path).unlink(missing_ok=True)
        else:
            # The three stages go away with the one that is settled; rerere learns of it when it is committed.
            _literally(checkout, "update-index", "--add", "--cacheinfo", f"{found[0]},{found[1]},{path}")
            _literally(checkout, "checkout-index", "--force", "--", path)


def _settled(
    checkout: Path, path: str, sides: dict[int, tuple[str, str]], strategy: Strategy
) -> tuple[str, str] | None:
    """Mode and blob that a path is settled with; None when it goes."""
    if strategy is not Strategy.UNION:
        return sides.get(_OURS if strategy is Strategy.OURS else _THEIRS)
    ours, theirs = sides.get(_OURS), sides.get(_THEIRS)
    if ours is None or theirs is None or ours[0] not in _PLAIN_FILES or theirs[0] not in _PLAIN_FILES:
        raise OrchestratorError(
            f"{path} cannot be settled by union: it is not a file on both sides", hint="choose ours or theirs"
        )
    with tempfile.TemporaryDirectory(prefix="tmux-orchestrator-") as folder:
        files = []
        for number, side in enumerate((ours, sides.get(_BASE), theirs)):
            file = Path(folder) / str(number)
            file.write_bytes(os.fsencode(repository.ask(checkout, "cat-file", "blob", side[1])) if side else b"")
            files.append(str(file))
        done = repository.run(checkout, "merge-file", "--union", "-p", *files)
        if done.returncode:
            raise OrchestratorError(f"{path} cannot be settled by union: {repository.words_of(done)}")
        blob = repository.ask(checkout, "hash-object", "-w", "--stdin", text=done.stdout).strip()
    return ours[0], blob


def _unmerged(checkout: Path) -> list[tuple[str, int, str, str]]:
    """Path, stage, mode and blob of what is not merged in the index."""
    found = []
    for line in repository.ask(checkout, "ls-files", "--unmerged", "--full-name", "-z").split("\0")[:-1]:
        about, _, path = line.partition("\t")
        mode, blob, stage = about.split()
        found.append((path, int(stage), mode, blob))
    return found


def _literally(checkout: Path, *words: str) -> None:
    """git with a path that is no pattern, whatever its name is made of."""
    repository.ask(checkout, *words, environment={"GIT_LITERAL_PATHSPECS": "1"}, hooks=False)


def under_way(checkout: Path) -> str | None:
    """What is under way in a checkout: merge, rebase, cherry-pick or revert; None when nothing is."""
    names = [name for name, _word in _UNDER_WAY]
    places = repository.ask(checkout, "rev-parse", *(word for name in names for word in ("--git-path", name)))
    for place, (_name, word) in zip(places.splitlines(), _UNDER_WAY, strict=True):
        if (checkout / place).exists():
            return word
    return None


def head(checkout: Path) -> str:
    """The commit that is checked out."""
    return repository.ask(checkout, "rev-parse", "--verify", "HEAD^{commit}").strip()


# -- between two lines of work --


def contains(project: Path, one: str, commit: str) -> bool:
    """Whether a line of work holds a commit."""
    done = repository.run(project, "merge-base", "--is-ancestor", commit, one)
    if done.returncode not in (0, 1):
        raise repository.failed(project, done)
    return done.returncode == 0


def distance(project: Path, one: str, other: str) -> Distance:
    """How far `one` is ahead of `other`, and behind it, in commits."""
    ahead, behind = repository.ask(project, "rev-list", "--left-right", "--count", f"{one}...{other}").split()
    return Distance(int(ahead), int(behind))


def merge_base(project: Path, one: str, other: str) -> str | None:
    """The commit that both come from; None when there is none."""
    done = repository.run(project, "merge-base", one, other)
    if done.returncode not in (0, 1):
        raise repository.failed(project, done)
    return done.stdout.strip() or None


def would_conflict(project: Path, one: str, other: str, *, seconds: float | None = None) -> tuple[str, ...]:
    """The paths that would be in conflict if two lines were merged now; nothing is checked out and no ref moves.

    What `git rerere` knows is not asked. Raises `Unavailable` before git 2.38, `OrchestratorError` for what git
    cannot merge at all.
    """
    words = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", one, other)
    done = repository.run(project, *words, seconds=seconds)
    if done.returncode == 0:
        return ()
    if done.returncode == 1 and done.stdout:  # a name that is none leaves with 1 too, and writes no tree
        return tuple(name for name in done.stdout.split("\0")[1:] if name)
    if (found := repository.version()) < _WITHOUT_CHECKOUT:
        raise Unavailable(
            f"git {'.'.join(map(str, found))} cannot merge without a checkout: 2.38 is needed",
            hint="update git, or merge in a worktree of your own",
        )
    raise repository.failed(project, done)
