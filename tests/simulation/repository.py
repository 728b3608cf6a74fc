"""Git in memory, as far as the rooms of lib/git are asked for it: commits, branches, worktrees, merges and conflicts.

A commit's files are a mapping from path to content; two lines that have changed a path in different ways are in
conflict there. Every question is a crossing.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from lib.errors import NotFound, OrchestratorError
from lib.git import guards, merges, removals, repository, snapshots, worktrees
from lib.git.holdings import Holdings
from lib.git.merges import Merge, Outcome
from lib.git.removals import Place
from lib.git.snapshots import Snapshot, Taken
from lib.git.worktrees import Commit, Gain, StartingPoint, Work
from tests.simulation.world import World

MAIN = "main"


@dataclass(frozen=True)
class Made:
    """A commit: what it holds, what it comes from, and when it was made (UTC milliseconds)."""

    id: str
    parents: tuple[str, ...]
    files: Mapping[str, str]
    subject: str
    at: int


@dataclass
class Checkout:
    """A worktree: a branch, or a commit alone."""

    branch: str | None
    head: str
    is_merging: bool = False


@dataclass
class Repository:
    """One project."""

    path: Path
    commits: dict[str, Made] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    checkouts: dict[Path, Checkout] = field(default_factory=dict)
    #: Where each ref has stood, oldest first.
    history: dict[str, list[str]] = field(default_factory=dict)

    def commit(self, parents: Sequence[str], files: Mapping[str, str], subject: str, at: int) -> str:
        text = repr((tuple(parents), sorted(files.items()), subject, at))
        made = Made(hashlib.sha1(text.encode()).hexdigest(), tuple(parents), dict(files), subject, at)
        self.commits[made.id] = made
        return made.id

    def point(self, ref: str, commit: str) -> None:
        self.refs[ref] = commit
        self.history.setdefault(ref, []).append(commit)

    def resolve(self, name: str) -> str | None:
        """The commit that a branch, a tag or an id names."""
        if name in self.commits:
            return name
        bare = name.removesuffix("^{commit}")
        return self.refs.get(bare) or self.refs.get(f"refs/heads/{bare}")

    def holds(self, commit: str) -> set[str]:
        """A commit with all that it comes from."""
        found: set[str] = set()
        left = [commit]
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                left += self.commits[one].parents
        return found

    def line(self, head: str) -> Iterator[Made]:
        """A commit and its first parents, newest first."""
        at: str | None = head
        while at:
            yield self.commits[at]
            at = next(iter(self.commits[at].parents), None)

    def base(self, one: str, other: str) -> str | None:
        theirs = self.holds(other)
        common = [made for made in map(self.commits.get, self.holds(one)) if made and made.id in theirs]
        return max(common, key=lambda made: (made.at, made.id)).id if common else None


class Repositories:
    """The repositories of a world, and what replaces the functions of lib/git."""

    def __init__(self, world: World) -> None:
        self._world = world
        #: Called when code of lib/ moves a ref, with its name and whether it goes forward.
        self.on_move: Callable[[str, bool], None] = lambda ref, forward: None
        self.by_path: dict[Path, Repository] = {}

    def make(self, path: Path) -> Repository:
        """A project with one commit."""
        path.mkdir(parents=True)
        made = Repository(path)
        made.point(f"refs/heads/{MAIN}", made.commit((), {"README": "start"}, "Start", self._world.wall_ms))
        made.checkouts[path] = Checkout(MAIN, made.refs[f"refs/heads/{MAIN}"])
        self.by_path[path] = made
        return made

    def checkouts(self) -> set[Path]:
        """Every worktree that there is."""
        return {path for found in self.by_path.values() for path in found.checkouts}

    def work(self, worktree: Path, path: str) -> None:
        """Somebody commits a change of a file in a worktree."""
        found = self._of(worktree)
        place = found.checkouts[worktree]
        assert place.branch
        ref = f"refs/heads/{place.branch}"
        before, at = found.commits[found.refs[ref]], self._world.wall_ms
        files = {**before.files, path: f"{place.branch} {at} {len(found.commits)}"}
        found.point(ref, found.commit((before.id,), files, f"Change {path}", at))

    def replacements(self) -> dict[tuple[ModuleType, str], Any]:
        """Which functions are replaced: by those of the same name here."""
        names: dict[ModuleType, tuple[str, ...]] = {
            worktrees: (
                *("project_root", "main_worktree", "starting_point", "remember_starting_point", "folder_of"),
                *("worktrees", "check_room", "ensure", "has_submodules", "commits_since", "work_since"),
                *("unmerged_commits", "heads", "gain", "count_new", "new_commits", "changed_files", "log_since"),
                "uncommitted",
            ),
            merges: (
                *("merge", "abort", "under_way", "head", "move", "tree", "contains", "merge_base", "are_related"),
                "last_change",
            ),
            removals: ("places", "branch_commit"),
            repository: ("ask", "run", "tracked_files"),
            snapshots: ("take", "prune"),
            guards: ("arm", "disarm", "note_message"),
        }
        return {
            (module, name): functools.partial(self._cross, getattr(self, f"_{name}"), name)
            for module, found in names.items()
            for name in found
        }

    def _cross(self, call: Any, name: str, *arguments: Any, **options: Any) -> Any:
        self._world.cross(f"git.{name}")
        return call(*arguments, **options)

    def _of(self, path: Path) -> Repository:
        for found in self.by_path.values():
            if path == found.path or path in found.checkouts:
                return found
        raise NotFound(f"no such folder: {path}")

    def _commit_of(self, project: Path, name: str) -> str:
        found = self._of(project).resolve(name)
        if found is None:
            raise OrchestratorError(f"git: unknown revision {name}")
        return found

    # -- lib/git/worktrees.py --

    def _project_root(self, path: Path) -> Path:
        return self._of(path).path

    _main_worktree = _project_root

    def _starting_point(self, project: Path) -> StartingPoint:
        return StartingPoint(MAIN, self._of(project).refs[f"refs/heads/{MAIN}"])

    def _remember_starting_point(self, project: Path, orchestration_id: str, start: StartingPoint) -> None:
        self._of(project)

    def _folder_of(self, project: Path) -> Path:
        return project.parent / f"{project.name}-tmux-worktrees"

    def _worktrees(self, project: Path) -> dict[Path, str | None]:
        return {path: place.branch for path, place in self._of(project).checkouts.items()}

    def _check_room(self, project: Path, folder: Path, prefix: str) -> None:
        self._of(project)

    def _ensure(self, project: Path, path: Path, branch: str, commit: str) -> None:
        found, ref = self._of(project), f"refs/heads/{branch}"
        if ref not in found.refs:
            self._point(found, ref, commit)
        found.checkouts.setdefault(path, Checkout(branch, found.refs[ref]))
        path.mkdir(parents=True, exist_ok=True)
        (path / ".git").touch()

    def _has_submodules(self, project: Path, commit: str) -> bool:
        return False

    def _commits_since(self, project: Path, branch: str, start: str, since: int) -> list[Commit]:
        found = self._of(project)
        head = found.resolve(branch)
        if head is None:
            return []
        old = found.holds(start)
        own = (made for made in found.line(head) if made.id not in old and made.at >= since and len(made.parents) < 2)
        return [Commit(made.id, made.subject) for made in own]

    def _work_since(self, worktree: Path, commit: str, branch: str) -> Work:
        found = self._of(worktree)
        head = self._commit_of(found.path, branch)
        new = found.holds(head) - found.holds(commit)
        return Work(branch, head, len(new), self._changed(found, commit, head), dirty=False)

    @staticmethod
    def _changed(found: Repository, before: str, after: str) -> tuple[str, ...]:
        one, other = found.commits[before].files, found.commits[after].files
        return tuple(sorted(path for path in {*one, *other} if one.get(path) != other.get(path)))

    def _unmerged_commits(self, project: Path, branch: str, into: str) -> int:
        found = self._of(project)
        return len(found.holds(self._commit_of(project, branch)) - found.holds(self._commit_of(project, into)))

    def _heads(self, project: Path, *names: str, seconds: float) -> dict[str, str]:
        found = self._of(project)
        prefixes = tuple(f"refs/heads/{name}" for name in names)
        return {
            ref.removeprefix("refs/heads/"): commit
            for ref, commit in sorted(found.refs.items())
            if any(ref == prefix or (prefix.endswith("/") and ref.startswith(prefix)) for prefix in prefixes)
        }

    def _new(self, project: Path, head: str, beyond: Sequence[str]) -> list[Made]:
        found = self._of(project)
        old = set().union(*(found.holds(self._commit_of(project, one)) for one in beyond)) if beyond else set()
        new = (found.commits[one] for one in found.holds(self._commit_of(project, head)) - old)
        return sorted(new, key=lambda made: (made.at, made.id), reverse=True)

    def _new_commits(self, project: Path, head: str, *, beyond: Sequence[str], seconds: float) -> tuple[Commit, ...]:
        return tuple(
            Commit(made.id, made.subject) for made in self._new(project, head, beyond) if len(made.parents) < 2
        )

    def _gain(self, project: Path, head: str, *, since: str, beyond: Sequence[str], seconds: float) -> Gain:
        return Gain(self._new_commits(project, head, beyond=(since, *beyond), seconds=seconds), "")

    def _count_new(self, project: Path, head: str, *, beyond: Sequence[str], seconds: float) -> int:
        return len(self._new(project, head, beyond))

    def _changed_files(self, project: Path, before: str, after: str, *, seconds: float) -> tuple[str, ...]:
        return self._changed(self._of(project), before, after)

    def _log_since(self, project: Path, branch: str, commit: str) -> str:
        return ""

    def _uncommitted(self, worktree: Path) -> str:
        return ""

    # -- lib/git/merges.py --

    def _checkout(self, path: Path) -> tuple[Repository, Checkout]:
        found = self._of(path)
        if path not in found.checkouts:
            raise OrchestratorError(f"git: {path} is no worktree")
        return found, found.checkouts[path]

    def _head(self, checkout: Path) -> str:
        found, place = self._checkout(checkout)
        return found.refs[f"refs/heads/{place.branch}"] if place.branch else place.head

    def _merge(self, checkout: Path, commit: str, *, message: str, only_fast_forward: bool = False, **_: Any) -> Merge:
        found, place = self._checkout(checkout)
        head, other = self._head(checkout), self._commit_of(checkout, commit)
        if other in found.holds(head):
            return Merge(Outcome.CONTAINED, head)
        if head in found.holds(other):
            self._move_to(found, place, other)
            return Merge(Outcome.FAST_FORWARD, other)
        if only_fast_forward:
            raise OrchestratorError("git: not possible to fast-forward")
        base = found.commits[found.base(head, other) or head].files
        ours, theirs = found.commits[head].files, found.commits[other].files
        conflicts = tuple(
            path
            for path in sorted({*ours, *theirs})
            if ours.get(path) != theirs.get(path) and base.get(path) not in (ours.get(path), theirs.get(path))
        )
        if conflicts:
            place.is_merging = True
            return Merge(Outcome.CONFLICT, head, conflicts)
        files = {**theirs, **{path: text for path, text in ours.items() if text != base.get(path)}}
        made = found.commit((head, other), files, message, self._world.wall_ms)
        self._move_to(found, place, made)
        return Merge(Outcome.MERGED, made)

    def _move_to(self, found: Repository, place: Checkout, commit: str) -> None:
        place.head = commit
        if place.branch:
            self._point(found, f"refs/heads/{place.branch}", commit)

    def _point(self, found: Repository, ref: str, commit: str) -> None:
        before = found.refs.get(ref)
        self.on_move(ref, before is None or before in found.holds(commit))
        found.point(ref, commit)

    def _abort(self, checkout: Path) -> None:
        self._checkout(checkout)[1].is_merging = False

    def _under_way(self, checkout: Path) -> str | None:
        return "merge" if self._checkout(checkout)[1].is_merging else None

    def _move(self, project: Path, ref: str, commit: str, *, before: str | None, why: str) -> None:
        found = self._of(project)
        if found.refs.get(ref) != before:
            raise OrchestratorError(f"git: {ref} is at {found.refs.get(ref)} but expected {before}")
        self._point(found, ref, commit)

    def _tree(self, project: Path, commit: str) -> str:
        files = self._of(project).commits[self._commit_of(project, commit)].files
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()

    def _contains(self, project: Path, one: str, commit: str) -> bool:
        return commit in self._of(project).holds(self._commit_of(project, one))

    def _merge_base(self, project: Path, one: str, other: str) -> str | None:
        return self._of(project).base(self._commit_of(project, one), self._commit_of(project, other))

    def _are_related(self, project: Path, one: str, other: str) -> bool:
        return self._merge_base(project, one, other) is not None

    def _last_change(self, project: Path, path: str, *, since: str | None, until: str) -> str | None:
        found = self._of(project)
        old = found.holds(since) if since else set()
        changed = (made.id for made in found.line(until) if made.id not in old and path in made.files)
        return next(changed, None)

    # -- the others --

    def _places(self, project: Path) -> dict[Path, Place]:
        found = self._of(project)
        return {path: Place(path, one.branch, path == found.path) for path, one in found.checkouts.items()}

    def _branch_commit(self, project: Path, branch: str) -> str | None:
        return self._of(project).refs.get(f"refs/heads/{branch}")

    def _tracked_files(self, folder: Path) -> list[str]:
        return []

    def _run(self, folder: Path, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        found = self._of(folder)
        match words:
            case ("worktree", "add", "--quiet", "--detach", path, commit):
                Path(path).mkdir(parents=True)
                found.checkouts[Path(path)] = Checkout(None, commit)
            case ("worktree", "remove", *_, path):
                found.checkouts.pop(Path(path), None)
            case ("checkout", *_, commit):
                found.checkouts[folder].head = commit
            case ("reset" | "clean" | "status", *_):
                pass
            case ("rev-parse", "--quiet", "--verify", name):
                said = found.resolve(name)
                return subprocess.CompletedProcess(words, 0 if said else 1, f"{said or ''}\n", "")
            case _:
                raise NotImplementedError(f"git {' '.join(words)} is not simulated")
        return subprocess.CompletedProcess(words, 0, "", "")

    def _ask(self, folder: Path, *words: str, **_: Any) -> str:
        return self._run(folder, *words).stdout

    def _take(self, folder: Path, *, orchestration: str, role: str, branch: str, now: int, **_: Any) -> Taken:
        head = self._head(folder)
        snapshot = Snapshot(f"refs/snapshots/{orchestration}/{role}/{now}", head, orchestration, role, now)
        return Taken(snapshot, Holdings(head, branch, head, head, head), is_new=False)

    def _prune(self, project: Path, *, before: int) -> list[Snapshot]:
        return []

    def _arm(self, worktree: Path, rules: object, **_: Any) -> None:
        self._of(worktree)

    def _disarm(self, worktree: Path, **_: Any) -> None:
        self._of(worktree)

    def _note_message(self, home: Path, agent_id: int, message_id: int) -> None:
        """Commits of the simulation are not signed."""
