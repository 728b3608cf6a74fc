"""Everything that a worktree holds, written as trees of its repository; index and files are only read.

git's own index is copied, with its time: the stamps in it spare git from reading what has not changed. All that
differs is added to the copy. What git would not add is found, kept where it can be, and named where it cannot.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path

from lib.errors import OrchestratorError
from lib.git import repository
from lib.git.repository import Objects
from lib.records import dataclass

#: An untracked file that is bigger is named and left out: it is more likely a product than work.
MAXIMUM_BYTES = 100_000_000
#: Where the tree of an index with conflicts has their sides: `UNMERGED/STAGE/PATH`.
UNMERGED = ".unmerged-by-snapshot"

#: Whatever a user has set: nothing is asked of a daemon, nothing is written beside the copy, no name hides another.
_SETTINGS = (
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.safecrlf=false",
    "core.ignoreCase=false",
)
#: How a merge, a rebase, a cherry-pick, a revert or a bisection that is under way names what it works on.
_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "BISECT_HEAD")
#: The same in files; no ref and no reflog has an autostash.
_FILES = (
    *("MERGE_HEAD", "MERGE_AUTOSTASH", "sequencer/head"),
    *("rebase-merge/orig-head", "rebase-merge/onto", "rebase-merge/autostash", "rebase-merge/stopped-sha"),
    *("rebase-apply/orig-head", "rebase-apply/onto", "rebase-apply/autostash", "rebase-apply/original-commit"),
)
#: Refs that a worktree has for itself: they go with it.
_OWN_REFS = ("refs/bisect", "refs/rewritten", "refs/worktree")
_GITLINK = "160000"


@dataclass(frozen=True)
class Omission:
    """Something of a worktree that is not held, by its path in the worktree, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Holdings:
    """What a worktree holds, by the names of objects.

    `head` is None before the first commit, `branch` (in full) when HEAD is detached. `tree` is every tracked and
    untracked file that is not ignored, `index` what is staged. `under_way` are lines of a name and a commit. `lost`
    are tips of commits that only reflogs and the worktree's own refs still name. `changed` are the files that differ
    from HEAD, and `changed_at` is since when, as far as their times tell (UTC milliseconds). `unfiltered` are files
    that are kept as they are, since their filter failed.
    """

    head: str | None
    branch: str | None
    tree: str
    head_tree: str | None
    index: str
    changed_at: int | None = None
    under_way: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left_out: tuple[Omission, ...] = ()
    unfiltered: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool:
        """Whether something is not committed."""
        return self.tree != self.head_tree or self.index != self.head_tree


def look(worktree: Path, *, branch: str, kept_by: str, seconds: float | None = None) -> Holdings:
    """Write down what a worktree holds. `branch` is its own, whether it is checked out or not.

    `kept_by` are refs (a prefix) whose commits need not be called lost. Only objects are written, which git removes
    again unless a ref is made for them. `seconds` limits each question to git. Raises `OrchestratorError` when
    the worktree cannot be read.
    """
    folder = _git_folder(worktree, seconds)
    with _copy_of_index(worktree, folder, seconds) as index:
        found = _list_all(index)
        staged = _staged_tree(index, found.unmerged)
        wanted = _sort_out(index, found)
        _bring_in(index, wanted)
        tree = index.ask("write-tree").strip()
        heads = _heads(index, folder, branch)
        changed = _changed(index, heads.tree, tree)
        lost = _lost(index, heads, branch, kept_by)
    return Holdings(
        head=heads.commit,
        branch=heads.branch,
        tree=tree,
        head_tree=heads.tree,
        index=staged,
        changed_at=_changed_at(index, heads.commit, changed),
        under_way=heads.under_way,
        lost=lost,
        changed=changed,
        left_out=tuple(wanted.left_out),
        unfiltered=tuple(wanted.unfiltered),
    )


def tree_of(worktree: Path, *, objects: Objects, biggest: int, seconds: float | None = None) -> str:
    """The tree of a worktree's files as `look` makes it, without untracked ones of more than `biggest` bytes.

    What it writes goes to `objects`. Raises as `look`.
    """
    folder = _git_folder(worktree, seconds)
    with _copy_of_index(worktree, folder, seconds) as index:
        index = dataclasses.replace(index, objects=objects, biggest=biggest)
        _bring_in(index, _sort_out(index, _list_all(index)))
        return index.ask("write-tree").strip()


def look_at_branch(project: Path, branch: str, *, kept_by: str, seconds: float | None = None) -> Holdings:
    """What a branch holds that is checked out nowhere: its commit, and those that only its reflog still names.

    Raises `OrchestratorError` when there is no such branch.
    """
    git = _Git(project, None, seconds)
    ref = f"refs/heads/{branch}"
    commit, tree = git.ask("rev-parse", f"{ref}^{{commit}}", f"{ref}^{{tree}}").split()
    heads = _Heads(commit, tree, ref)
    return Holdings(commit, ref, tree, tree, tree, lost=_lost(git, heads, branch, kept_by, is_checked_out=False))


# -- git, with an index of ours --


@dataclass(frozen=True)
class _Git:
    """git in a folder, with an index of our own."""

    folder: Path
    index: Path | None
    seconds: float | None
    #: Where objects are written, when not into the repository.
    objects: Objects | None = None
    #: An untracked file of more bytes is left out, when not `MAXIMUM_BYTES` decides.
    biggest: int | None = None

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        # In English, since one of git's warnings is read.
        environment = {"LC_ALL": "C"} | ({"GIT_INDEX_FILE": str(self.index)} if self.index else {})
        environment |= self.objects.environment if self.objects else {}
        return repository.run(
            self.folder,
            *arguments,
            text=text,
            environment=environment,
            settings=_SETTINGS,
            hooks=False,
            seconds=self.seconds,
        )

    def ask(self, *arguments: str, text: str | None = None) -> str:
        done = self.run(*arguments, text=text)
        if done.returncode:
            raise repository.failed(self.folder, done)
        return done.stdout


def _git_folder(worktree: Path, seconds: float | None) -> Path:
    """The git folder of a worktree. Raises `OrchestratorError` when its top is another folder."""
    said = repository.ask(worktree, "rev-parse", "--show-cdup", "--absolute-git-dir", seconds=seconds)
    above, _, folder = said.partition("\n")
    if above or not folder:
        # Its .git is gone, and the folder lies in somebody else's repository.
        raise OrchestratorError(f"{worktree} is no worktree any more", hint=f"git worktree repair {worktree}")
    return Path(folder.removesuffix("\n"))


@contextlib.contextmanager
def _copy_of_index(worktree: Path, folder: Path, seconds: float | None) -> Iterator[_Git]:
    with tempfile.TemporaryDirectory(prefix="orchestrator-index-") as place:
        copy = Path(place) / "index"
        with contextlib.suppress(FileNotFoundError):  # nothing was ever added
            _copy(folder / "index", copy)
        yield _Git(worktree, copy, seconds)


def _copy(index: Path, copy: Path) -> None:
    """Copy an index with its time, by which git knows what may have changed in the moment after it was written."""
    with index.open("rb") as source, copy.open("wb") as target:
        found = os.fstat(source.fileno())  # of what is read: an agent's git may put another in its place meanwhile
        shutil.copyfileobj(source, target)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


# -- what is there --


@dataclass(frozen=True)
class _Entry:
    """An entry of the index."""

    name: str
    mode: str
    commit: str
    stage: int


@dataclass
class _Listing:
    """What is to be looked at: of the index only what differs, and what is more than a file."""

    changed: list[str] = field(default_factory=list)
    unmerged: list[_Entry] = field(default_factory=list)
    submodules: dict[str, _Entry] = field(default_factory=dict)
    untracked: list[str] = field(default_factory=list)
    repositories: list[str] = field(default_factory=list)
    #: Entries whose changes git was told to overlook, where there is a file.
    overlooked: list[str] = field(default_factory=list)
    unread: list[Omission] = field(default_factory=list)


#: git cuts its warnings off after 4096 bytes, so that of a very long name the reason is missing.
_UNREAD = re.compile(r"^warning: could not open directory '(.*?)(?:': (.*))?$", re.MULTILINE)


def _list(index: _Git) -> _Listing:
    words = ("-z", "--stage", "-v", "--cached", "--modified", "--others", "--exclude-standard")
    done = index.run("ls-files", *words)
    if done.returncode:
        raise repository.failed(index.folder, done)
    unread = dict.fromkeys(_UNREAD.findall(done.stderr))
    found = _Listing(unread=[Omission(name, f"cannot be read: {why or 'File name too long'}") for name, why in unread])
    for line in done.stdout.split("\0")[:-1]:
        # Most of tens of thousands of lines are of a file that is as it was.
        if line.startswith("H 1") and line[2:8] != _GITLINK and line[line.index("\t") - 1] == "0":
            continue
        tag, rest = line[0], line[2:]
        if tag == "?":
            (found.repositories if rest.endswith("/") else found.untracked).append(rest)
            continue
        about, _, name = rest.partition("\t")
        mode, commit, stage = about.split(" ")
        entry = _Entry(name, mode, commit, int(stage))
        if entry.stage:
            found.unmerged.append(entry)
        if tag in "Cc" or entry.stage:
            found.changed.append(name)
        if mode == _GITLINK and stage in "02":  # of one with a conflict ours
            found.submodules[name] = entry
        if (tag.islower() or tag == "S") and os.path.lexists(index.folder / name):
            found.overlooked.append(name)
    return found


def _list_all(index: _Git) -> _Listing:
    """The same, with what git was told to overlook. Where such an entry has no file, it is sparse."""
    found = _list(index)
    if found.overlooked:
        for option in ("--no-assume-unchanged", "--no-skip-worktree"):  # of both at once git takes the first
            _update(index, found.overlooked, option)
        found = _list(index)
    return found


def _staged_tree(index: _Git, unmerged: Sequence[_Entry]) -> str:
    """The tree of what is staged. An index with conflicts has none: their sides go into a folder of their own."""
    if not unmerged:
        return index.ask("write-tree").strip()
    assert index.index
    staged = dataclasses.replace(index, index=index.index.with_name("staged"))
    assert staged.index
    _copy(index.index, staged.index)
    _update(staged, list(dict.fromkeys(one.name for one in unmerged)), "--force-remove")
    sides = [f"{one.mode} {one.commit}\t{UNMERGED}/{one.stage}/{one.name}\0" for one in dict.fromkeys(unmerged)]
    staged.ask("update-index", "-z", "--add", "--index-info", text="".join(sides))
    return staged.ask("write-tree").strip()


@dataclass
class _Wanted:
    """What is to become of the copy of the index."""

    remove: list[str] = field(default_factory=list)
    add: list[str] = field(default_factory=list)
    #: By mode and object, as `update-index --index-info` takes them.
    as_they_are: list[str] = field(default_factory=list)
    left_out: list[Omission] = field(default_factory=list)
    unfiltered: list[str] = field(default_factory=list)


def _sort_out(index: _Git, found: _Listing) -> _Wanted:
    wanted = _Wanted(left_out=list(found.unread))
    is_link = functools.cache(lambda name: (index.folder / name).is_symlink())
    for name in dict.fromkeys(found.changed):
        if name in found.submodules:
            _sort_submodule(index, found.submodules[name], wanted)
        elif any(is_link(parent) for parent in _parents(name)):
            # A link took the place of a folder: what git sees through it is elsewhere.
            wanted.remove.append(name)
        else:
            _sort_file(index, name, wanted, is_tracked=True)
    unmerged = {one.name for one in found.unmerged}
    wanted.remove += [one.name for one in wanted.left_out if one.name in unmerged]  # no tree could be made with them
    for name in found.untracked:
        _sort_file(index, name, wanted, is_tracked=False)
    for name in found.repositories:
        _sort_repository(index, name, wanted)
    for name in found.submodules:
        wanted.left_out += _of_submodule(index, name)
    return wanted


def _parents(name: str) -> Iterator[str]:
    for position, letter in enumerate(name):
        if letter == "/":
            yield name[:position]


def _sort_file(index: _Git, name: str, wanted: _Wanted, *, is_tracked: bool) -> None:
    try:
        found = (index.folder / name).lstat()
        if stat.S_ISREG(found.st_mode):
            (index.folder / name).open("rb").close()
    except (FileNotFoundError, NotADirectoryError):  # removed, or gone since the listing
        wanted.remove.append(name)
    except OSError as error:
        wanted.left_out.append(Omission(name, f"cannot be read: {error.strerror}"))
    else:
        biggest = index.biggest or MAXIMUM_BYTES
        if stat.S_ISREG(found.st_mode) and not is_tracked and found.st_size > biggest:
            wanted.left_out.append(Omission(name, f"untracked, and bigger than {biggest // 1_000_000} MB"))
        elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            wanted.add.append(name)
        else:  # a folder, whose files are listed themselves; a pipe or a socket holds nothing
            wanted.remove.append(name)


# -- repositories in the worktree --


def _sort_submodule(index: _Git, entry: _Entry, wanted: _Wanted) -> None:
    wanted.remove.append(entry.name)  # in all its stages
    if os.path.lexists(index.folder / entry.name):
        commit = _head_of(index, entry.name) or entry.commit
        wanted.as_they_are.append(f"{_GITLINK} {commit}\t{entry.name}\0")


def _inside(index: _Git, name: str) -> _Git | None:
    """git in a repository inside of the worktree; None when there is none that git can read."""
    place = index.folder / name
    if not os.path.lexists(place / ".git"):
        return None
    inside = _Git(place, None, index.seconds)
    done = inside.run("rev-parse", "--show-cdup")
    return inside if done.returncode == 0 and done.stdout == "\n" else None


def _head_of(index: _Git, name: str) -> str | None:
    inside = _inside(index, name)
    done = inside.run("rev-parse", "--quiet", "--verify", "HEAD^{commit}") if inside else None
    return done.stdout.strip() if done and done.returncode == 0 else None


def _of_submodule(index: _Git, name: str) -> list[Omission]:
    """What a submodule holds that its one line in the tree does not."""
    inside = _inside(index, name)
    if inside is None:
        try:
            is_empty = not any((index.folder / name).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [] if is_empty else [Omission(name, "files in the folder of a submodule that git cannot read")]
    found = []
    dirty = inside.run("status", "--porcelain", "--ignore-submodules=none", "-uall")
    if dirty.stdout or dirty.returncode:
        found.append(Omission(name, "what is not committed in this submodule"))
    own = inside.run("rev-list", "--max-count=1", "--all", "--reflog", "HEAD", "--not", "--remotes")
    if own.stdout or own.returncode:
        found.append(Omission(name, "commits that only this submodule has"))
    return found


def _sort_repository(index: _Git, name: str, wanted: _Wanted) -> None:
    """Keep the files of a repository that is no submodule; its history cannot be kept."""
    inside = _inside(index, name)
    if inside is None:
        wanted.left_out.append(Omission(name, "a repository that git cannot read"))
        return
    wanted.left_out.append(Omission(name, "the history of a repository inside the worktree; its files are kept"))
    listed = inside.ask("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for one in dict.fromkeys(listed.split("\0")[:-1]):
        inner = name + one
        if one.endswith("/") or _inside(index, inner):
            _sort_repository(index, inner.removesuffix("/") + "/", wanted)
        else:
            _sort_file(index, inner, wanted, is_tracked=False)


# -- into the copy --

#: How often files may go while git reads them.
_TRIES = 5


def _bring_in(index: _Git, wanted: _Wanted) -> None:
    # What goes comes first: a folder may have taken the place of a file, or a file that of a folder.
    _update(index, wanted.remove, "--force-remove")
    for _ in range(_TRIES):
        done = _try_to_add(index, wanted.add)
        if done.returncode == 0:
            break
        _take_out_what_stops_git(index, wanted)
    else:
        raise repository.failed(index.folder, done)
    if wanted.as_they_are:
        index.ask("update-index", "-z", "--add", "--replace", "--index-info", text="".join(wanted.as_they_are))
    if done.stderr:
        _name_what_git_has_not_taken(index, wanted)


def _update(index: _Git, names: Sequence[str], *options: str) -> None:
    if names:
        index.ask("update-index", "-z", *options, "--stdin", text="".join(f"{name}\0" for name in names))


def _try_to_add(index: _Git, names: Sequence[str]) -> subprocess.CompletedProcess[str]:
    text = "".join(f"{name}\0" for name in names)
    return index.run("update-index", "-z", "--add", "--remove", "--replace", "--stdin", text=text)


def _take_out_what_stops_git(index: _Git, wanted: _Wanted) -> None:
    """Take out of `wanted.add` each file that git cannot take, and keep its bytes as they are where that goes."""
    left = [name for name in wanted.add if not (index.folder / name).is_symlink()]
    while left:
        # It ends at the first that it cannot take, and has then printed a line for each one before.
        done = index.run("hash-object", "--stdin-paths", text="".join(f"{_quoted(name)}\n" for name in left))
        count = len(done.stdout.splitlines())
        if done.returncode == 0 or count >= len(left):
            return
        stopper, left = left[count], left[count + 1 :]
        wanted.add.remove(stopper)
        _keep_unfiltered(index, stopper, wanted)


def _keep_unfiltered(index: _Git, name: str, wanted: _Wanted) -> None:
    done = index.run("hash-object", "-w", "--no-filters", "--stdin-paths", text=f"{_quoted(name)}\n")
    try:
        is_program = (index.folder / name).lstat().st_mode & stat.S_IXUSR
    except OSError:  # it has gone
        return
    if done.returncode:
        wanted.left_out.append(Omission(name, f"cannot be read: {repository.words_of(done)}"))
        return
    wanted.unfiltered.append(name)
    wanted.as_they_are.append(f"{'100755' if is_program else '100644'} {done.stdout.strip()}\t{name}\0")


def _quoted(name: str) -> str:
    """A name as git reads it from a line, whatever bytes it has."""
    return '"' + "".join(f"\\{one:03o}" for one in os.fsencode(name)) + '"'


def _name_what_git_has_not_taken(index: _Git, wanted: _Wanted) -> None:
    """git passes over names that it finds dangerous, with a word and with success."""
    held = set(index.ask("ls-files", "-z", "--cached").split("\0"))
    for name in wanted.add:
        if name not in held and os.path.lexists(index.folder / name):
            wanted.left_out.append(Omission(name, "git does not take a file of this name"))


# -- commits --


@dataclass(frozen=True)
class _Heads:
    commit: str | None
    tree: str | None
    branch: str | None
    under_way: tuple[str, ...] = ()
    #: What HEAD was before the last big step.
    before: str | None = None


def _heads(git: _Git, folder: Path, branch: str) -> _Heads:
    symbolic = git.run("symbolic-ref", "--quiet", "HEAD")
    current = symbolic.stdout.strip() if symbolic.returncode == 0 else None
    named = [(name, name) for name in _HEADS]
    named += [(name, commit) for name in _FILES for commit in _commits_in(folder / name)]
    if current != f"refs/heads/{branch}":
        named.append((f"refs/heads/{branch}", f"refs/heads/{branch}"))
    asked = ["HEAD^{commit}", "HEAD^{tree}", "ORIG_HEAD^{commit}", *(f"{what}^{{commit}}" for _, what in named)]
    said = git.ask("cat-file", "--batch-check", text="".join(f"{one}\n" for one in asked)).splitlines()
    commit, tree, before, *others = [None if line.endswith(" missing") else line.split()[0] for line in said]
    under_way = [f"{name} {found}" for (name, _), found in zip(named, others, strict=True) if found]
    return _Heads(commit, tree, current, tuple(dict.fromkeys(under_way)), before)


def _commits_in(path: Path) -> list[str]:
    try:
        return re.findall(r"\b(?:[0-9a-f]{64}|[0-9a-f]{40})\b", path.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []


def _lost(git: _Git, heads: _Heads, branch: str, kept_by: str, *, is_checked_out: bool = True) -> tuple[str, ...]:
    """The tips of commits that were made or checked out here, and that nothing keeps which outlives the worktree."""
    ref = f"refs/heads/{branch}"
    is_there = (heads.commit and heads.branch == ref) or any(line.startswith(f"{ref} ") for line in heads.under_way)
    logs = ["HEAD"] if is_checked_out and heads.commit else []
    logs += [ref] if is_there else []
    found = git.ask("rev-list", "-g", *logs).split() if logs else []
    found += [heads.before] if heads.before else []
    starts = "".join(f"{commit}\n" for commit in dict.fromkeys(found))
    own = [f"--glob={refs}" for refs in _OWN_REFS] if is_checked_out else []
    kept = [line.split()[1] for line in heads.under_way] + ([heads.commit] if heads.commit else [])
    words = ("rev-list", "--parents", "--ignore-missing", "--stdin", *own, "--not", *dict.fromkeys(kept))
    if not git.ask(*words, text=starts):
        return ()
    listed = [line.split() for line in git.ask(*words, f"--glob={kept_by}/*", text=starts).splitlines()]
    inner = {parent for _, *parents in listed for parent in parents}
    return tuple(commit for commit, *_ in listed if commit not in inner)


def _changed(git: _Git, before: str | None, after: str) -> tuple[str, ...]:
    if before == after:
        return ()
    if before is None:
        said = git.ask("ls-tree", "-r", "-z", "--name-only", after)
    else:
        said = git.ask("diff-tree", "-r", "-z", "--no-renames", "--name-only", before, after)
    return tuple(said.split("\0")[:-1])


def _changed_at(git: _Git, head: str | None, changed: Sequence[str]) -> int | None:
    times = []
    for name in changed:
        with contextlib.suppress(OSError):  # deleted, or gone since
            times.append((git.folder / name).lstat().st_mtime_ns // 1_000_000)
    if not times:
        return None
    # A file may be older than its place here: it was copied, or a commit has just left it out.
    return max(min(times), int(git.ask("show", "-s", "--format=%ct", head)) * 1000 if head else 0)
