"""The repository that a project was cloned from: what is pushed there, and the pull requests of GitHub's `gh`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lib.errors import OrchestratorError, Unavailable
from lib.git import repository

#: A push of a team's work takes seconds; more is a network that hangs, or somebody who is asked for a password.
PUSH_SECONDS = 120.0
_GH_SECONDS = 60.0
#: Nobody is there to be asked.
_UNASKED = {"GIT_TERMINAL_PROMPT": "0", "GH_PROMPT_DISABLED": "1"}


def remote_of(project: Path, branch: str | None) -> str:
    """Where a project's work is pushed to: its branch's remote, else the only one, else origin.

    Raises `OrchestratorError` when there is none.
    """
    names = repository.ask(project, "remote").split()
    own = repository.run(project, "config", "--get", f"branch.{branch}.remote").stdout.strip() if branch else ""
    for name in (own, names[0] if len(names) == 1 else "", "origin"):
        if name in names:
            return name
    raise OrchestratorError(
        f"{project} has no remote to push to", hint=f"add one: git -C {project} remote add origin URL"
    )


def push(project: Path, remote: str, branch: str) -> None:
    """Push exactly this branch under its own name, never by force. Raises `OrchestratorError` with git's words.

    Unlike all other acts of ours this runs the user's hooks: `pre-push` is where people stop secrets, and where
    git-lfs sends its files.
    """
    ref = f"refs/heads/{branch}"
    # An empty --push-option and no --follow-tags: whatever the user has set, nothing else goes with it.
    words = ("push", "--quiet", "--no-follow-tags", "--recurse-submodules=check", remote, f"{ref}:{ref}")
    repository.ask(project, *words, environment=_UNASKED, seconds=PUSH_SECONDS)


def has_gh() -> bool:
    """Whether GitHub's command line is installed."""
    return shutil.which("gh") is not None


def open_pull_request(project: Path, *, head: str, base: str, title: str, body: str) -> str:
    """Open a pull request, or find the one that is open already. Returns its address.

    Raises `OrchestratorError` with the words of gh, `Unavailable` when it takes too long.
    """
    found = _gh(project, "pr", "view", head, "--json=url", "--jq=.url")
    if found.returncode == 0 and found.stdout.strip():
        return found.stdout.strip()
    made = _gh(project, "pr", "create", f"--base={base}", f"--head={head}", f"--title={title}", f"--body={body}")
    if made.returncode:
        words = "; ".join(line.strip() for line in made.stderr.splitlines() if line.strip())
        raise OrchestratorError(f"gh pr create failed: {words}", hint="gh auth status")
    lines = made.stdout.split()
    return lines[-1] if lines else head


def _gh(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["gh", *words],
            cwd=project,
            env={**os.environ, **_UNASKED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"gh {' '.join(words[:2])} took longer than {_GH_SECONDS:.0f} s") from None
