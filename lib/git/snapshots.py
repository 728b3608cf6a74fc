"""Snapshots: all that a worktree holds becomes a commit below a ref of ours, and the worktree does not notice.

A snapshot's tree is every tracked and untracked file that is not ignored. Its first parent is HEAD. What is staged
and differs from both is a parent too, as `git stash` does it, and so are the commits of a merge or a rebase under way
and those that only reflogs still name. So nothing of it can be collected as garbage, whatever becomes of branch,
index and worktree. Its message tells what it is, so that git alone is enough to read it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lib.errors import NotFound, OrchestratorError
from lib.git import holdings, repository
from lib.git.holdings import UNMERGED, Holdings, Omission
from lib.git.repository import ask
from lib.records import dataclass

#: Below this every snapshot has a ref: `ORCHESTRATION/ROLE/TIME`; a second one of the same second ends in `-2`.
REFS = "refs/orchestrator/snapshots"
#: How long the newest snapshot stands for a worktree that does not change; then it gets a new ref, before the old one
#: is pruned.
FRESH_MS = 24 * 60 * 60_000
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot, by its ref. `at` is UTC milliseconds."""

    ref: str
    commit: str
    orchestration: str
    role: str
    at: int

    @property
    def name(self) -> str:
        """How a person names it: role and time."""
        return "/".join(self.ref.split("/")[-2:])


@dataclass(frozen=True)
class Taken:
    """A worktree as it was found, and the snapshot that holds it, which may have been there already."""

    snapshot: Snapshot
    held: Holdings
    is_new: bool


@dataclass(frozen=True)
class Note:
    """What a snapshot's own message tells of it. `head` is None before the first commit."""

    why: str
    tree: str
    head: str | None
    branch: str | None
    index: str
    under_way: tuple[str, ...]
    left_out: tuple[Omission, ...]
    unfiltered: tuple[str, ...]


def take(
    worktree: Path,
    *,
    orchestration: str,
    role: str,
    branch: str,
    now: int,
    why: str,
    fresh: bool = False,
    seconds: float | None = None,
) -> Taken:
    """Keep what a worktree holds. `branch` is the role's own, whether it is checked out or not.

    When the newest snapshot holds the same, that one is returned; with `fresh` there is always a new one. `seconds`
    limits each question to git. Neither the index nor any file of the worktree is touched. Raises `NotFound` when
    the worktree is gone, and `OrchestratorError` with git's words when it cannot be read.
    """
    if not worktree.exists():
        raise NotFound(f"the worktree {worktree} is gone")
    held = holdings.look(worktree, branch=branch, kept_by=place(orchestration, role), seconds=seconds)
    return _keep(worktree, held, orchestration, role, now=now, why=why, fresh=fresh)


def take_branch(project: Path, *, orchestration: str, role: str, branch: str, now: int, why: str) -> Taken:
    """Keep what a branch without a worktree holds, with the commits that only its reflog still names."""
    held = holdings.look_at_branch(project, branch, kept_by=place(orchestration, role))
    return _keep(project, held, orchestration, role, now=now, why=why, fresh=True)


def holds(folder: Path, snapshot: Snapshot, held: Holdings) -> bool:
    """Whether a snapshot has exactly what was found: files, index, HEAD, what was under way, and nothing lost since."""
    return not held.lost and _body(folder, snapshot.commit) == (held.tree, _text(held))


def _keep(folder: Path, held: Holdings, orchestration: str, role: str, *, now: int, why: str, fresh: bool) -> Taken:
    last = None if fresh else latest(folder, orchestration, role)
    if last and 0 <= now - last.at < FRESH_MS and holds(folder, last, held):
        return Taken(last, held, is_new=False)
    parents = [held.head] if held.head else []
    if held.index not in (held.tree, held.head_tree):
        parents.append(_commit(folder, held.index, parents, "What was staged\n", now))
    parents += [line.split()[1] for line in held.under_way]
    commit = _commit(
        folder,
        held.tree,
        list(dict.fromkeys([*parents, *held.lost])),
        f"Snapshot of {role}: {why}\n\n{_text(held)}",
        now,
    )
    ref = _point(folder, f"{place(orchestration, role)}/{_stamp(now)}", commit)
    _check_whole(folder, ref, commit, held.head)
    return Taken(Snapshot(ref, commit, orchestration, role, now // 1000 * 1000), held, is_new=True)


# -- looking --


def every(project: Path, orchestration: str = "*", role: str = "*") -> list[Snapshot]:
    """The snapshots of a project, oldest first; of one orchestration or role, when named."""
    said = ask(project, "for-each-ref", "--format=%(refname) %(objectname)", f"{place(orchestration, role)}/*")
    found = [_snapshot(*line.split()) for line in said.splitlines()]
    return sorted((one for one in found if one), key=lambda one: (one.at, one.orchestration, one.role, one.ref))


def latest(project: Path, orchestration: str, role: str) -> Snapshot | None:
    """The newest snapshot of a role, or None."""
    return next(iter(reversed(every(project, orchestration, role))), None)


def _snapshot(ref: str, commit: str) -> Snapshot | None:
    """None for a ref that somebody else has put there."""
    *_, orchestration, role, stamp = ref.split("/")
    with contextlib.suppress(ValueError):
        at = datetime.strptime(stamp.partition("-")[0], _TIME).replace(tzinfo=UTC)
        return Snapshot(ref, commit, orchestration, role, int(at.timestamp() * 1000))
    return None


def notes(project: Path, found: Sequence[Snapshot]) -> list[Note]:
    """What each of these snapshots tells of itself."""
    said = ask(project, "cat-file", "--batch", text="".join(f"{one.commit}\n" for one in found))
    read = []
    # Each as a line with its size, its bytes, and a line feed.
    rest = said.encode("utf-8", "surrogateescape")
    for _ in found:
        about, _, rest = rest.partition(b"\n")
        size = int(about.split()[2])
        read.append(_note(rest[:size].decode("utf-8", "surrogateescape")))
        rest = rest[size + 1 :]
    return read


def _note(text: str) -> Note:
    head, _, message = text.partition("\n\n")
    subject, _, body = message.partition("\n\n")
    lines = [line.partition(": ")[::2] for line in body.splitlines()]
    said = dict(lines)
    return Note(
        why=subject.partition(": ")[2],
        tree=head.split()[1],
        head=said.get("Head"),
        branch=said.get("Branch"),
        index=said.get("Index", ""),
        under_way=tuple(value for key, value in lines if key == "Under-Way"),
        left_out=tuple(Omission(*json.loads(value)) for key, value in lines if key == "Left-Out"),
        unfiltered=tuple(json.loads(value) for key, value in lines if key == "Unfiltered"),
    )


def files_changed(project: Path, since: str, found: Sequence[Note]) -> list[int]:
    """How many files of each snapshot differ from a commit."""
    start = ask(project, "rev-parse", "--verify", f"{since}^{{tree}}").strip()
    pairs = [f"{start} {one.tree}" for one in found]
    words = ("diff-tree", "-r", "--no-renames", "--name-only", "--stdin")
    counts = dict.fromkeys(pairs, 0)
    current = ""
    for line in ask(project, *words, text="".join(f"{pair}\n" for pair in counts)).splitlines():
        if line in counts:
            current = line
        else:
            counts[current] += 1
    return [counts[pair] for pair in pairs]


# -- restoring and pruning --


def restore(project: Path, snapshot: Snapshot, *, path: Path, branch: str) -> Note:
    """Make a new worktree on a new branch at the snapshot's HEAD, with its files, and staged what was staged.

    Nothing that is there is changed. Of conflicts the files come back with their marks. Raises `OrchestratorError`
    when the path or the branch exists.
    """
    if path.exists():
        raise OrchestratorError(f"{path} exists", hint="name another folder with --into")
    if repository.run(project, "rev-parse", "--quiet", "--verify", f"refs/heads/{branch}").returncode == 0:
        raise OrchestratorError(f"{project} has a branch {branch}", hint="name another one with --branch")
    (note,) = notes(project, [snapshot])
    words = ("worktree", "add", "--quiet", "--no-checkout", "-b", branch, str(path), note.head or snapshot.commit)
    _make(project, *words)
    _make(path, "read-tree", "--reset", "-u", note.tree)
    _make(path, "read-tree", "--reset", note.index or note.tree)
    _settle_conflicts(path, note)
    _make(path, "update-index", "-q", "--refresh", can_differ=True)
    return note


def _settle_conflicts(path: Path, note: Note) -> None:
    """Stage HEAD's version of what was in conflict: its sides are no files."""
    sides = _make(path, "ls-files", "-z", "--", f"{UNMERGED}/").split("\0")[:-1]
    if not sides:
        return
    names = {side.split("/", 2)[2] for side in sides}
    listed = ask(path, "ls-tree", "-r", "-z", note.head).split("\0")[:-1] if note.head else []
    lines = []
    for about, _, name in (line.partition("\t") for line in listed):
        mode, _, thing = about.split(" ")
        lines += [f"{mode} {thing}\t{name}\0"] if name in names else []
    _make(path, "update-index", "-z", "--force-remove", "--stdin", text="".join(f"{side}\0" for side in sides))
    _make(path, "update-index", "-z", "--add", "--index-info", text="".join(lines))


def _make(folder: Path, *arguments: str, text: str | None = None, can_differ: bool = False) -> str:
    """Run git in a worktree that is just being made, and that nobody watches yet."""
    done = repository.run(folder, *arguments, text=text, settings=("core.fsmonitor=false",), hooks=False)
    if done.returncode and not can_differ:  # the exit code of a refresh tells of changes
        raise repository.failed(folder, done)
    return done.stdout


def prune(project: Path, *, before: int) -> list[Snapshot]:
    """Forget the snapshots from before a time (UTC milliseconds). Returns them."""
    old = [one for one in every(project) if one.at < before]
    lines = "".join(f"delete {one.ref} {one.commit}\n" for one in old)
    if old:
        ask(project, "update-ref", "--stdin", text=lines, hooks=False)
    return old


# -- plumbing --


def place(orchestration: str, role: str) -> str:
    """Where the refs of a role's snapshots are."""
    return f"{REFS}/{orchestration}/{role}"


def _stamp(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, UTC).strftime(_TIME)


def _text(held: Holdings) -> str:
    """The body of a snapshot's message: the same for the same holdings."""
    lines = [f"Head: {held.head}"] if held.head else []
    lines += [f"Branch: {held.branch}"] if held.branch else []
    lines += [f"Index: {held.index}"]
    lines += [f"Under-Way: {one}" for one in held.under_way]
    lines += [f"Left-Out: {json.dumps([one.name, one.why])}" for one in held.left_out]
    lines += [f"Unfiltered: {json.dumps(name)}" for name in held.unfiltered]
    return "\n".join(lines) + "\n"


def _body(folder: Path, commit: str) -> tuple[str, str]:
    """The tree of a commit, and the body of its message."""
    head, _, message = ask(folder, "cat-file", "commit", commit).partition("\n\n")
    return head.split()[1], message.partition("\n\n")[2]


def _commit(folder: Path, tree: str, parents: Sequence[str], message: str, now: int) -> str:
    dates = {f"GIT_{who}_DATE": f"{now // 1000} +0000" for who in ("AUTHOR", "COMMITTER")}
    words = [word for parent in parents for word in ("-p", parent)]
    return ask(
        folder,
        *("commit-tree", "--no-gpg-sign", *words, tree),
        text=message,
        environment={**repository.IDENTITY, **dates},
        settings=("i18n.commitEncoding=UTF-8",),
        hooks=False,
    ).strip()


def _point(folder: Path, ref: str, commit: str) -> str:
    """Have a new ref name a commit, and never move one that is there. Returns its name."""
    for number in itertools.count(1):
        name = ref if number == 1 else f"{ref}-{number}"
        # The empty word: only when there is none of this name.
        done = repository.run(folder, "update-ref", name, commit, "", hooks=False)
        if done.returncode == 0:
            break
        there = repository.run(folder, "rev-parse", "--quiet", "--verify", name)
        if there.returncode:
            raise repository.failed(folder, done)
        if there.stdout.strip() == commit:
            break
    return name


def _check_whole(folder: Path, ref: str, commit: str, head: str | None) -> None:
    """Raises `OrchestratorError` when objects of a snapshot were collected before its ref was there."""
    others = ("--not", head) if head else ()
    done = repository.run(folder, "rev-list", "--objects", "--quiet", commit, *others)
    if done.returncode:
        ask(folder, "update-ref", "-d", ref, commit, hooks=False)
        raise OrchestratorError(
            f"a snapshot of {folder} came to nothing, since git was just removing objects: {repository.words_of(done)}",
            hint="sync_coordinator.py snapshot --all",
        )
