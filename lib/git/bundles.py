"""Bundles: commits as one file, for a repository that cannot reach this one.

A bundle holds what some commits need beyond those that the other side has. What comes in one is checked before anything
of it is kept, and goes to refs that are named by who takes it in: no branch of a person's is ever moved.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lib.errors import OrchestratorError
from lib.git import repository
from lib.git.repository import ask

#: Below this stand the commits that are just being written to a bundle.
_PASSING = "refs/orchestrator/passing"
#: Packing a repository of gigabytes takes minutes; more is a disk that hangs.
LONGEST_SECONDS = 1800.0
_REF = re.compile(r"refs/orchestrator(/[\w.@+-]+)+")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def write(project: Path, path: Path, commits: Sequence[str], *, known: Sequence[str] = ()) -> bool:
    """Write a bundle of commits to a file, without what `known` commits hold that this repository has too.

    Returns False, and writes nothing, when the other side has all of it already. Raises `OrchestratorError` for a
    commit that is not there, and for a shallow clone, whose history cannot be given on.
    """
    if ask(project, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise OrchestratorError(
            f"{project} is a shallow clone, and its history cannot be given on",
            hint=f"get all of it: git -C {project} fetch --unshallow",
        )
    known = [commit for commit in known if has(project, commit)]
    without = [f"^{commit}" for commit in known]
    if ask(project, "rev-list", "--max-count=1", *commits, *without, "--").strip() == "":
        return False
    place = f"{_PASSING}/{uuid.uuid4().hex}"
    refs = {f"{place}/{number}": commit for number, commit in enumerate(dict.fromkeys(commits))}
    draft = path.with_name(f"{path.name}.new")
    try:
        _point(project, refs)
        # Git leaves out of a bundle a ref whose commit the other side has.
        ask(project, "bundle", "create", str(draft), *refs, *without, hooks=False, seconds=LONGEST_SECONDS)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        forget(project, refs)
    return True


def take_in(project: Path, path: Path | None, refs: Mapping[str, str]) -> None:
    """Have these refs of ours name these commits, with what a bundle brings of them; None when nothing was missing.

    All of it or nothing: raises `OrchestratorError` when the bundle is damaged, when it needs what is not here, and
    when it does not bring what was said. A ref that is there is moved; none can be a branch or a tag.
    """
    _check_names(refs)
    if path is not None:
        _verify(project, path)
        ask(project, "bundle", "unbundle", str(path.absolute()), hooks=False, seconds=LONGEST_SECONDS)
    for commit in dict.fromkeys(refs.values()):
        _check_whole(project, commit)
    _point(project, refs)


def make_branches(project: Path, commits: Mapping[str, str]) -> dict[str, str]:
    """Make branches that are not there, by name. Returns those whose name another commit has: they stay as they are."""
    taken = {}
    for name, commit in commits.items():
        ref = f"refs/heads/{name}"
        # The empty word: only when there is none of this name.
        if repository.run(project, "update-ref", ref, commit, "", hooks=False).returncode == 0:
            continue
        there = repository.run(project, "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}").stdout.strip()
        if there != commit:
            taken[name] = there
    return taken


def forget(project: Path, refs: Iterable[str]) -> None:
    """Take away refs of ours, those of them that are there."""
    lines = "".join(f"delete {ref}\n" for ref in refs)
    if lines:
        ask(project, "update-ref", "--stdin", text=lines, hooks=False)


def has(project: Path, commit: str) -> bool:
    """Whether a repository has a commit."""
    return repository.run(project, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _verify(project: Path, path: Path) -> None:
    done = repository.run(project, "bundle", "verify", str(path.absolute()), hooks=False)
    if done.returncode:
        raise OrchestratorError(f"the bundle {path.name} cannot be used in {project}: {repository.words_of(done)}")


def _check_names(refs: Mapping[str, str]) -> None:
    for ref, commit in refs.items():
        if not _REF.fullmatch(ref):
            raise OrchestratorError(f"{ref[:80]!r} is no ref of ours")
        if not _COMMIT.fullmatch(commit):
            raise OrchestratorError(f"{commit[:80]!r} is no commit's name")


def _check_whole(project: Path, commit: str) -> None:
    """Raises `OrchestratorError` unless a commit is here with all of it that no ref holds yet."""
    words = ("rev-list", "--objects", "--quiet", commit, "--not", "--all")
    done = repository.run(project, *words, hooks=False, seconds=LONGEST_SECONDS)
    if done.returncode:
        raise OrchestratorError(
            f"the commit {commit[:12]} did not come whole to {project}: {repository.words_of(done)}"
        )


def _point(project: Path, refs: Mapping[str, str]) -> None:
    lines = "".join(f"update {ref} {commit}\n" for ref, commit in refs.items())
    ask(project, "update-ref", "--stdin", text=lines, hooks=False)
