"""Merges, by git itself: what two lines of work make together, in a checkout or without one.

No hook runs and no editor opens. Resolutions that were made once are remembered (`git rerere`) and made again.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from lib.errors import Busy, OrchestratorError, Unavailable
from lib.git import repository
from lib.git.repository import Objects
from lib.records import dataclass

#: Whatever a user has set: no key is asked for, nothing is stashed, and only what was said is merged.
_SETTINGS = (
    "rerere.enabled=true",
    "rerere.autoUpdate=true",
    "commit.gpgSign=false",
    "merge.autoStash=false",
    "merge.verifySignatures=false",
    "core.fsmonitor=false",
)
_COMMITTER = {name: value for name, value in repository.IDENTITY.items() if "COMMITTER" in name}
#: The first git that merges without a checkout (`merge-tree --write-tree`).
WITHOUT_CHECKOUT = (2, 38)
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
#: A side: its mode and its blob.
_Side = tuple[str, str]
_MARK = re.compile(rb"^(<{7}|>{7})( |\r?$)", re.MULTILINE)


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


def rebase(checkout: Path, onto: str, *, favour: Strategy | None = None, seconds: float | None = None) -> Merge:
    """Put what is checked out on top of a commit. A conflict is settled for the side to `favour`, or all is as before.

    Sides are as in a merge: `ours` is what is checked out. Raises `OrchestratorError`, with nothing changed, when git
    refuses to begin.
    """
    before = head(checkout)
    if contains(checkout, before, onto):
        return Merge(Outcome.CONTAINED, before)
    # For git it is the other way round: it merges each of our commits into theirs.
    sides = {Strategy.OURS: ("-X", "theirs"), Strategy.THEIRS: ("-X", "ours")}
    words = ("rebase", "--quiet", "--no-autostash", "--no-stat", *(sides[favour] if favour else ()), onto)
    environment = {**_COMMITTER, "GIT_EDITOR": "true"}
    done = repository.run(checkout, *words, settings=_SETTINGS, environment=environment, hooks=False, seconds=seconds)
    while done.returncode and under_way(checkout) == "rebase" and not conflicts(checkout):
        # What was resolved before in the same way is staged, and git stops all the same.
        words = ("rebase", "--continue")
        done = repository.run(
            checkout, *words, settings=_SETTINGS, environment=environment, hooks=False, seconds=seconds
        )
    if done.returncode == 0:
        now = head(checkout)
        return Merge(Outcome.FAST_FORWARD if now == onto else Outcome.MERGED, now)
    if under_way(checkout) != "rebase":
        raise repository.failed(checkout, done)
    left = conflicts(checkout)
    repository.ask(checkout, "rebase", "--abort", settings=_SETTINGS, hooks=False)
    return Merge(Outcome.CONFLICT, before, left)


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
    """Settle the conflicts of these paths: where both sides changed the same lines, those of one side or of both count.

    What cannot be merged by lines is taken from one side as a whole; a side that removed it removes it. Raises
    `OrchestratorError`, before anything is changed, for a path without a conflict, and for one that a union of lines
    cannot settle.
    """
    sides: dict[str, dict[int, _Side]] = {path: {} for path in paths}
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


def _settled(checkout: Path, path: str, sides: dict[int, _Side], strategy: Strategy) -> _Side | None:
    """Mode and blob that a path is settled with; None when it goes."""
    try:
        return _by_lines(checkout, path, sides, strategy)
    except OrchestratorError:
        if strategy is Strategy.UNION:
            raise
        return sides.get(_OURS if strategy is Strategy.OURS else _THEIRS)


def _by_lines(checkout: Path, path: str, sides: dict[int, _Side], strategy: Strategy) -> _Side:
    ours, theirs = sides.get(_OURS), sides.get(_THEIRS)
    if ours is None or theirs is None or ours[0] not in _PLAIN_FILES or theirs[0] not in _PLAIN_FILES:
        raise OrchestratorError(
            f"{path} cannot be settled by {strategy}: it is not a file on both sides", hint="choose ours or theirs"
        )
    with tempfile.TemporaryDirectory(prefix="tmux-orchestrator-") as folder:
        files = []
        for number, side in enumerate((ours, sides.get(_BASE), theirs)):
            file = Path(folder) / str(number)
            file.write_bytes(_content(checkout, side) if side else b"")
            files.append(str(file))
        done = repository.run(checkout, "merge-file", f"--{strategy}", "-p", *files)
        if done.returncode:
            raise OrchestratorError(f"{path} cannot be settled by {strategy}: {repository.words_of(done)}")
        blob = repository.ask(checkout, "hash-object", "-w", "--stdin", text=done.stdout).strip()
    return (theirs if strategy is Strategy.THEIRS else ours)[0], blob


def _content(checkout: Path, side: _Side) -> bytes:
    return os.fsencode(repository.ask(checkout, "cat-file", "blob", side[1]))


def take_settled(checkout: Path) -> tuple[str, ...]:
    """Stage the files whose conflicts somebody has settled by hand: the marks that git has put in are gone.

    Returns their paths. A file that git puts no marks in, a link or a file that one side removed, is none of them.
    """
    sides: dict[str, dict[int, _Side]] = {}
    for path, stage, mode, blob in _unmerged(checkout):
        sides.setdefault(path, {})[stage] = (mode, blob)
    settled = tuple(path for path, found in sides.items() if _is_settled(checkout, path, found))
    for path in settled:
        _literally(checkout, "add", "--", path)
    return settled


def _is_settled(checkout: Path, path: str, sides: dict[int, _Side]) -> bool:
    both = [side for stage in (_OURS, _THEIRS) if (side := sides.get(stage))]
    if len(both) < 2 or any(mode not in _PLAIN_FILES for mode, _ in both):
        return False
    if any(b"\0" in _content(checkout, side) for side in both):  # what git takes for binary gets no marks
        return False
    try:
        return _MARK.search((checkout / path).read_bytes()) is None
    except OSError:
        return False


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
    """What is under way in a checkout: merge, rebase, cherry-pick or revert; None when nothing is.

    It looks at git's own files: views ask this of twenty worktrees at once.
    """
    folder = checkout / ".git"
    if folder.is_file():  # of a linked worktree it says where git keeps what is the worktree's own
        folder = checkout / os.fsdecode(folder.read_bytes()).removeprefix("gitdir: ").removesuffix("\n")
    return next((word for name, word in _UNDER_WAY if (folder / name).exists()), None)


def head(checkout: Path) -> str:
    """The commit that is checked out."""
    return repository.ask(checkout, "rev-parse", "--verify", "HEAD^{commit}").strip()


# -- between two lines of work --


def move(project: Path, ref: str, commit: str, *, before: str | None, why: str) -> None:
    """Move a ref from where it was found, None for a new one. Raises `Busy` when it is somewhere else by now."""
    expected = before or "0" * len(commit)
    done = repository.run(project, "update-ref", "-m", why, ref, commit, expected, hooks=False)
    if done.returncode:
        found = repository.run(project, "rev-parse", "--quiet", "--verify", ref)
        if found.stdout.strip() != (before or ""):
            raise Busy(f"{ref} of {project} has moved meanwhile", hint="look: git log --oneline " + ref)
        raise repository.failed(project, done)


def tree(project: Path, commit: str) -> str:
    """The tree of a commit: the same for the same files."""
    return repository.ask(project, "rev-parse", "--verify", f"{commit}^{{tree}}").strip()


def last_change(project: Path, path: str, *, since: str | None, until: str) -> str | None:
    """The last commit on the way from `since` to `until` that changed a path; None when none did."""
    span = [until, *([f"^{since}"] if since else [])]
    words = ("log", "--no-merges", "--no-show-signature", "--max-count=1", "--format=%H", *span, "--", path)
    return repository.ask(project, *words, environment={"GIT_LITERAL_PATHSPECS": "1"}).strip() or None


def contains(project: Path, one: str, commit: str) -> bool:
    """Whether a line of work holds a commit."""
    done = repository.run(project, "merge-base", "--is-ancestor", commit, one)
    if done.returncode not in (0, 1):
        raise repository.failed(project, done)
    return done.returncode == 0


def distance(project: Path, one: str, other: str, *, seconds: float | None = None) -> Distance:
    """How far `one` is ahead of `other`, and behind it, in commits."""
    words = ("rev-list", "--left-right", "--count", f"{one}...{other}")
    ahead, behind = repository.ask(project, *words, seconds=seconds).split()
    return Distance(int(ahead), int(behind))


def count(project: Path, commit: str, *, without: Sequence[str], seconds: float | None = None) -> int:
    """How many commits a line of work has that these others have not."""
    others = [f"^{one}" for one in without]
    return int(repository.ask(project, "rev-list", "--count", commit, *others, "--", seconds=seconds))


def merge_base(project: Path, one: str, other: str) -> str | None:
    """The commit that both come from; None when there is none."""
    done = repository.run(project, "merge-base", one, other)
    if done.returncode not in (0, 1):
        raise repository.failed(project, done)
    return done.stdout.strip() or None


def are_related(project: Path, one: str, other: str) -> bool:
    """Whether two lines have a commit in common; git refuses to merge those that have none."""
    return merge_base(project, one, other) is not None


def would_conflict(
    project: Path, one: str, other: str, *, seconds: float | None = None, objects: Objects | None = None
) -> tuple[str, ...]:
    """The paths that would be in conflict if two lines were merged now; nothing is checked out and no ref moves.

    What the merge makes is written into `objects` when they are given. What `git rerere` knows is not asked. Raises
    `Unavailable` before git 2.38, `OrchestratorError` for what git cannot merge at all.
    """
    words = ("merge-tree", "--write-tree", "--allow-unrelated-histories", "--name-only", "--no-messages", "-z")
    environment = objects.environment if objects else None
    done = repository.run(project, *words, one, other, environment=environment, hooks=False, seconds=seconds)
    if done.returncode == 0:
        return ()
    if done.returncode == 1 and done.stdout:  # a name that is none leaves with 1 too, and writes no tree
        return tuple(name for name in done.stdout.split("\0")[1:] if name)
    if (found := repository.version()) < WITHOUT_CHECKOUT:
        raise Unavailable(
            f"git {'.'.join(map(str, found))} cannot merge without a checkout: 2.38 is needed",
            hint="update git, or merge in a worktree of your own",
        )
    raise repository.failed(project, done)
