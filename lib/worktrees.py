"""Git: a project's starting point, and one worktree with a branch of its own for every agent.

The user's checkout, index and branch are never changed. GitPython reads and makes; the few questions that
agents ask all day go to git itself, since GitPython takes 0.2 s to import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.errors import NotFound, OrchestratorError, Unavailable, Usage

if TYPE_CHECKING:
    import git


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


def make_repository(folder: Path, *, author: str, subject: str) -> None:
    """Make a folder a git repository on branch main, with one commit that holds all its files."""
    _ask(folder, "init", "-q", "-b", "main")
    _ask(folder, "add", "--all")
    person = ("-c", f"user.name={author}", "-c", f"user.email={author.lower()}@localhost")
    _ask(folder, *person, "commit", "-q", "-m", subject)


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
    repository = _repository(project)
    path.parent.mkdir(parents=True, exist_ok=True)
    if branch in (head.name for head in repository.heads):
        # The folder was removed and the branch is still there: prune only forgets folders that are gone.
        _ask(project, "worktree", "prune")
        _ask(project, "worktree", "add", "--quiet", str(path), branch)
    else:
        _ask(project, "worktree", "add", "--quiet", "-b", branch, str(path), commit)


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


def unmerged_commits(project: Path, branch: str, into: str) -> int:
    """How many commits of a branch are not in `into` (a branch or a commit)."""
    return int(_ask(project, "rev-list", "--count", f"{into}..{branch}"))


def _repository(path: Path) -> git.Repo:
    import git  # noqa: PLC0415 - see the module's docstring

    return git.Repo(path, expand_vars=False)  # a folder may be called $HOME


def _check_git() -> None:
    if shutil.which("git") is None:
        raise Unavailable("git is not installed", hint="./setup.sh")


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
