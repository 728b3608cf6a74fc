"""Git: a project's starting point, and one worktree with a branch of its own for every agent.

The user's checkout, index and branch are never changed. GitPython reads and makes; the few questions that
agents ask all day go to git itself, since GitPython takes 0.2 s to import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import NotFound, OrchestratorError, Unavailable, Usage
from lib.git import repository
from lib.records import dataclass

if TYPE_CHECKING:
    import git

#: Where the worktrees of a project go, in its repository's own configuration; seen from the repository.
_FOLDER = "orchestration.worktreesFolder"
#: Who signs a commit of ours when git knows nobody.
_NOBODY = "Tmux Orchestrator"
#: The first git that finds the worktrees of a repository again that was moved.
_RELINKS = (2, 30)


@dataclass(frozen=True)
class StartingPoint:
    """Where the work begins: a branch (None for a detached HEAD) and its commit."""

    branch: str | None
    commit: str


@dataclass(frozen=True)
class Work:
    """What stands on a branch since a commit."""

    branch: str
    head: str
    commits: int
    files: tuple[str, ...]
    dirty: bool


@dataclass(frozen=True)
class Commit:
    """One commit, by its full id."""

    id: str
    subject: str


@dataclass(frozen=True)
class Signed:
    """A commit and what the guards have signed it with; None where it is not. `at` is UTC milliseconds."""

    id: str
    subject: str
    at: int
    orchestration: str | None
    role: str | None
    message_id: int | None


@dataclass(frozen=True)
class Gain:
    """What a branch has won: commits, newest first, merges left out; and how much of each file is different."""

    commits: tuple[Commit, ...]
    stat: str


def project_root(path: Path) -> Path:
    """The top of the git repository that holds `path`. Raises `NotFound` or `Usage` when there is none."""
    if not path.exists():
        raise NotFound(f"no such folder: {path}")
    _check_git()
    import git  # noqa: PLC0415 - see the module's docstring

    folder = path if path.is_dir() else path.parent
    try:
        repository = git.Repo(folder, search_parent_directories=True, expand_vars=False)
    except git.InvalidGitRepositoryError:
        raise Usage(
            f"{path} is not in a git repository", hint=f"name one with --project, or: git init {folder}"
        ) from None
    if repository.working_tree_dir is None:
        raise Usage(f"{path} is a bare repository", hint="name a checkout of it with --project")
    return Path(repository.working_tree_dir).resolve()


def starting_point(project: Path) -> StartingPoint:
    """The commit that the project stands on. Raises `OrchestratorError` for a repository without one."""
    _ask(project, "rev-parse", "--git-dir")
    try:
        commit = _ask(project, "rev-parse", "--verify", "HEAD^{commit}").strip()
    except OrchestratorError:
        raise OrchestratorError(
            f"{project} has no commit yet", hint=f"git -C {project} commit --allow-empty -m 'Start'"
        ) from None
    branch = _ask(project, "rev-parse", "--symbolic-full-name", "HEAD").strip()
    return StartingPoint(None if branch == "HEAD" else branch.removeprefix("refs/heads/"), commit)


def make_repository(folder: Path, *, subject: str, author: str | None = None) -> None:
    """Make a folder a git repository on branch main, with one commit that holds all its files.

    Without an `author` the user signs it, as their git knows them, else a neutral name. No hook of the user's runs
    and no key is asked for: nobody may be there.
    """
    _ask(folder, "init", "-q")
    _ask(folder, "symbolic-ref", "HEAD", "refs/heads/main")  # init -b needs git 2.28
    _ask(folder, "add", "--all", "--force")  # whatever the user's own ignore file says
    name = author or _NOBODY
    settings = {"core.hooksPath": os.devnull, "commit.gpgSign": "false"}
    person = {"user.name": name, "user.email": f"{name.lower().replace(' ', '-')}@localhost"}
    settings |= {key: value for key, value in person.items() if author or not _setting(folder, key)}
    given = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    _ask(folder, *given, "commit", "-q", "-m", subject)


def folder_of(project: Path) -> Path:
    """Where the worktrees of a project's agents go: beside it, or as its own configuration says."""
    if named := _setting(project, _FOLDER):
        # Seen from the repository, so that both can be moved together.
        return Path(os.path.normpath(main_worktree(project) / named))
    return project.parent / f"{project.name}-tmux-worktrees"


def remember_folder(project: Path, folder: Path) -> None:
    """Record where the worktrees of a project's agents go, in the repository's own configuration."""
    _ask(project, "config", "--local", _FOLDER, os.path.relpath(folder, project))


def remember_starting_point(project: Path, orchestration_id: str, start: StartingPoint) -> None:
    """Record the starting point in the repository's own configuration, where it outlives our store."""
    # By git and not by GitPython, which writes the whole file anew without the user's comments.
    _ask(project, "config", "--local", f"orchestration.{orchestration_id}.startingCommit", start.commit)
    if start.branch:
        _ask(project, "config", "--local", f"orchestration.{orchestration_id}.startingBranch", start.branch)


def check_room(project: Path, folder: Path, prefix: str) -> None:
    """Look whether worktrees can be made in `folder`, on branches below `prefix`. Raises what would stop that."""
    if prefix in _ask(project, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/heads/{prefix}").splitlines():
        raise OrchestratorError(
            f"{project} has a branch {prefix}, so that git can make none below that name",
            hint=f"git -C {project} branch -m {prefix} OTHER_NAME",
        )
    if folder.exists() and not folder.is_dir():
        raise OrchestratorError(f"{folder} is no folder, and the worktrees go there", hint=f"move {folder} away")
    store = project / _ask(project, "rev-parse", "--git-common-dir").rstrip("\n")
    for place in (store, folder if folder.exists() else folder.parent):
        if not os.access(place, os.W_OK):
            raise OrchestratorError(f"{place} cannot be written", hint=f"ls -ld {place}")


def ensure(project: Path, path: Path, branch: str, commit: str) -> None:
    """Have a worktree at `path` on `branch`, made from `commit` unless it is there already.

    Raises `OrchestratorError` when something else is at `path`: nothing is ever removed or forced.
    """
    found = worktrees(project)
    if found.get(path.resolve()) == branch and path.exists():
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OrchestratorError(f"{path} exists and is not the worktree of {branch}", hint=f"move {path} away")
    if path.resolve() in found and not path.exists():
        _forget_missing(project, path, found[path.resolve()], branch)
    repository = _repository(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    if branch in (head.name for head in repository.heads):
        _add(project, str(path), branch)
    else:
        _add(project, "-b", branch, str(path), commit)


def _add(project: Path, *words: str) -> None:
    try:
        _ask(project, "worktree", "add", "--quiet", *words)
    except OrchestratorError as error:
        if "lfs" in error.sentence.lower():  # its filter must run, and is not there or has nothing to read
            error.hint = "install git-lfs and run git lfs pull, or launch with GIT_LFS_SKIP_SMUDGE=1"
        raise


def _forget_missing(project: Path, path: Path, registered: str | None, branch: str) -> None:
    """Have git forget a worktree of ours whose folder was removed; its branch stays. Nobody else's is forgotten."""
    if registered != branch:
        raise OrchestratorError(
            f"git still has a worktree at {path}, whose folder is gone (branch {registered or 'detached'})",
            hint=f"git -C {project} worktree prune",
        )
    try:
        _ask(project, "worktree", "remove", "--force", str(path))
    except OrchestratorError as error:
        error.hint = f"git -C {project} worktree unlock {path}"
        raise


def has_submodules(project: Path, commit: str) -> bool:
    """Whether a commit names submodules: git leaves their folders empty in a new worktree."""
    return bool(_ask(project, "ls-tree", "--name-only", commit, "--", ".gitmodules"))


def worktrees(project: Path) -> dict[Path, str | None]:
    """The worktrees of a project, with their branches (None when detached)."""
    found: dict[Path, str | None] = {}
    path = None
    for line in _ask(project, "worktree", "list", "--porcelain").splitlines():
        name, _, value = line.partition(" ")
        if name == "worktree":
            path = Path(value).resolve()
            found[path] = None
        elif name == "branch" and path is not None:
            found[path] = value.removeprefix("refs/heads/")
    return found


def main_worktree(project: Path) -> Path:
    """The top of the repository's first checkout: `project` itself unless that is a linked worktree."""
    return next(iter(worktrees(project)), project)


def linked(project: Path) -> list[Path]:
    """The linked worktrees of a project that are there. Raises `OrchestratorError` for one that is another's now."""
    found = [path for path in list(worktrees(project))[1:] if (path / ".git").is_file()]
    for path in found:
        try:
            holder = main_worktree(path)
        except OrchestratorError:  # its link is broken: no other has it
            continue
        if holder != project:
            raise OrchestratorError(
                f"{path} is in {project}'s list of worktrees, and belongs to {holder}",
                hint=f"move {project} away yourself",
            )
    return found


def find_each_other(project: Path, paths: Sequence[Path]) -> bool:
    """Whether these are worktrees of a project, by its list and by their own links."""
    try:
        return set(paths) <= set(worktrees(project)) and all(main_worktree(path) == project for path in paths)
    except OrchestratorError:  # a link leads nowhere
        return False


def check_relinks() -> None:
    """Raises `Unavailable` when this git cannot find a moved repository's worktrees again."""
    said = _ask(Path("/"), "--version").split()
    number = tuple(int(part) for part in said[2].split(".")[:2]) if len(said) > 2 else ()
    if number < _RELINKS:
        raise Unavailable(f"{' '.join(said)} is too old to move a repository that has worktrees: 2.30 is needed")


def relink(project: Path, *moved: Path) -> None:
    """Have a repository that was moved, and those of its worktrees that were moved, find each other again."""
    _ask(project, "worktree", "repair", *map(str, moved))


def is_untouched(project: Path, name: str, content: bytes) -> bool:
    """Whether a repository is as `make_repository` has left it: one branch, one commit, and only this file."""
    try:
        return (
            (project / name).read_bytes() == content
            and _ask(project, "for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]
            and _ask(project, "rev-list", "--count", "HEAD").strip() == "1"
            and _ask(project, "ls-tree", "--name-only", "-r", "-z", "HEAD") == f"{name}\0"
            and not _ask(project, "status", "--porcelain", "--ignored")
        )
    except (OrchestratorError, OSError):  # whatever it is, it is not what we have made
        return False


def work_since(worktree: Path, commit: str, branch: str) -> Work:
    """What an agent's branch holds beyond `commit`. Raises `NotFound` when the worktree is gone."""
    if not worktree.exists():
        raise NotFound(f"the worktree {worktree} is gone")
    head = _ask(worktree, "rev-parse", "--verify", f"refs/heads/{branch}").strip()
    return Work(
        branch=branch,
        head=head,
        commits=int(_ask(worktree, "rev-list", "--count", f"{commit}..{head}")),
        files=tuple(_ask(worktree, "diff", "--name-only", "-z", commit, head).split("\0")[:-1]),
        dirty=bool(_ask(worktree, "status", "--porcelain").strip()),
    )


def commits_since(project: Path, branch: str, start: str, since: int) -> list[Commit]:
    """The commits that were made on a branch itself after `start` and a time (UTC milliseconds), newest first.

    What was merged into it is not its own. Empty when the branch is gone.
    """
    if not _ask(project, "for-each-ref", "--format=%(refname)", f"refs/heads/{branch}"):
        return []
    own = ("--first-parent", "--no-merges", f"--since=@{since // 1000}", f"{start}..refs/heads/{branch}")
    return _commits(_ask(project, "log", "--format=%H %s", *own))


def _commits(said: str) -> list[Commit]:
    found = (line.partition(" ") for line in said.splitlines())
    # A subject may be in an encoding of its own.
    return [Commit(one, text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) for one, _, text in found]


def gain(project: Path, head: str, *, since: str, beyond: Sequence[str], seconds: float) -> Gain:
    """What is new on the way from `since` to `head` that these others do not hold; the files against `since`.

    Where the branch was rewritten, files are compared with where the two parted. Raises as `heads`.
    """
    commits = new_commits(project, head, beyond=(since, *beyond), seconds=seconds)
    words = ("diff", "--no-color", "--no-ext-diff", "--stat=80", "--stat-count=20")
    stat = repository.ask(project, *words, f"{since}...{head}", "--", seconds=seconds)
    return Gain(commits, stat.rstrip("\n"))


def new_commits(project: Path, head: str, *, beyond: Sequence[str], seconds: float) -> tuple[Commit, ...]:
    """The commits of `head` that these others do not hold, newest first and without merges. Raises as `heads`."""
    without = [f"^{commit}" for commit in beyond]
    log = repository.ask(
        project, "log", "--no-merges", "--no-show-signature", "--format=%H %s", head, *without, "--", seconds=seconds
    )
    return tuple(_commits(log))


def changed_files(project: Path, before: str, after: str, *, seconds: float) -> tuple[str, ...]:
    """The files in which two commits differ. Raises as `heads`."""
    said = repository.ask(project, "diff", "--no-ext-diff", "--name-only", "-z", before, after, "--", seconds=seconds)
    return tuple(said.split("\0")[:-1])


def heads(project: Path, *names: str, seconds: float) -> dict[str, str]:
    """The commits that branches stand on, by branch: those of these names, and all in a folder whose name ends with /.

    Raises `OrchestratorError`, also when git takes longer than `seconds`.
    """
    patterns = [f"refs/heads/{name}" for name in names]
    said = repository.ask(project, "for-each-ref", "--format=%(objectname) %(refname)", *patterns, seconds=seconds)
    lines = [line.split(" ", 1) for line in said.splitlines()]
    return {name.removeprefix("refs/heads/"): commit for commit, name in lines}


def count_new(project: Path, head: str, *, beyond: Sequence[str], seconds: float) -> int:
    """How many commits were made on the way to `head` that these others do not hold; a merge counts as one.

    Raises as `heads`, also for a commit that is there no more.
    """
    others = [f"^{commit}" for commit in beyond]
    said = repository.ask(project, "rev-list", "--count", "--first-parent", head, *others, "--", seconds=seconds)
    return int(said)


def signed(project: Path, commit: str) -> Signed:
    """A commit with its signature. Raises `NotFound` when there is no such commit."""
    words = ("log", "-1", "--no-show-signature", "--format=%H%n%ct%n%s%n%(trailers:unfold)", commit, "--")
    done = repository.run(project, *words) if not commit.startswith("-") else None  # an option is no commit
    if done is None or done.returncode or not done.stdout:
        raise NotFound(f"{project} has no commit {commit!r}", hint=f"git -C {project} log")
    found, at, subject, *trailers = done.stdout.splitlines()
    said = {word: value.strip() for word, _, value in (line.partition(":") for line in trailers)}
    message = said.get("Message-Id", "")
    return Signed(
        id=found,
        subject=subject.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        at=int(at) * 1000 + 999,  # git counts seconds: of that one, the whole
        orchestration=said.get("Orchestration") or None,
        role=said.get("Agent-Role") or None,
        message_id=int(message) if message.isdecimal() and len(message) < 19 else None,
    )


def log_since(project: Path, branch: str, commit: str) -> str:
    """What a branch holds beyond a commit: its own commits, newest first, and how much of each file is different.

    "" for a branch that holds nothing more, or is gone.
    """
    if not _ask(project, "for-each-ref", "--format=%(refname)", f"refs/heads/{branch}"):
        return ""
    span = f"{commit}..refs/heads/{branch}"
    words = ("--first-parent", "--no-show-signature", "--max-count=50", "--format=%h %an, %ad: %s", "--date=iso-strict")
    log = _ask(project, "log", "--no-color", *words, span)
    stat = _ask(project, "diff", "--no-color", "--no-ext-diff", "--stat=100", "--stat-count=50", span)
    return "\n".join(text for text in (log, stat) if text).rstrip()


def uncommitted(worktree: Path) -> str:
    """What a worktree holds that is in no commit, as `git status --short` names it; "" also when it is gone."""
    return _ask(worktree, "status", "--short").rstrip() if worktree.exists() else ""


def unmerged_commits(project: Path, branch: str, into: str) -> int:
    """How many commits of a branch are not in `into` (a branch or a commit)."""
    return int(_ask(project, "rev-list", "--count", f"{into}..{branch}"))


def _repository(path: Path) -> git.Repo:
    import git  # noqa: PLC0415 - see the module's docstring

    return git.Repo(path, expand_vars=False)  # a folder may be called $HOME


def _check_git() -> None:
    if shutil.which("git") is None:
        raise Unavailable("git is not installed", hint="./setup.sh")


def _setting(folder: Path, key: str) -> str:
    """A setting of git's as it holds in a folder; "" when it is not set."""
    return _ask(folder, "config", "--default", "", "--get", key).rstrip("\n")


def _ask(folder: Path, *arguments: str) -> str:
    _check_git()
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        words = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise OrchestratorError(f"git {' '.join(arguments[:2])} failed in {folder}: {words}")
    return done.stdout
