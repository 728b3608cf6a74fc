"""Whether Claude Code can be used: its version, its login, its permission mode, what it trusts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lib.config import Settings
from lib.errors import Unavailable
from lib.models import Program
from lib.records import dataclass

#: `--session-id`, `--settings` with hooks, and the session files that are read here.
MINIMUM_VERSION = (2, 1, 0)
#: What the tests of this toolkit run; of others `doctor --probe` says whether they do the same.
TESTED_VERSIONS = ("2.1.330",)


@dataclass(frozen=True)
class Installation:
    """A program that agents can run. `config_dir` is where it keeps sessions and transcripts."""

    program: Program
    command: tuple[str, ...]
    version: str
    config_dir: Path


def preflight(settings: Settings, program: Program, *, home: Path, project: Path) -> Installation:
    """Look, before anything is created, whether agents of this program would start without asking a person.

    Raises `Unavailable` with the one thing to do. Reads Claude Code's files and never writes them.
    """
    if program is Program.REHEARSAL:
        return rehearsal(home)
    executable = shutil.which(settings.claude_command)
    if executable is None:
        raise Unavailable(
            f"Claude Code is not installed: no command {settings.claude_command!r} on PATH",
            hint="npm install -g @anthropic-ai/claude-code, or try the toolkit with --agent rehearsal",
        )
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only a launch asks

    with ThreadPoolExecutor(2) as pool:  # each takes 0.1 to 0.4 s of Claude Code's own start
        version = pool.submit(version_of, executable)
        login = pool.submit(check_login, executable)
    found = version.result()
    login.result()
    check_permission_mode(settings.permission_mode)
    check_trust(settings, program, project)
    return Installation(Program.CLAUDE, (executable,), found, config_dir())


def rehearsal(home: Path) -> Installation:
    """The rehearsal agent of this checkout; its sessions and transcripts live in the state home."""
    folder = config_dir_of(Program.REHEARSAL, home)
    return Installation(Program.REHEARSAL, (sys.executable, "-m", "lib.rehearsal"), "rehearsal", folder)


def config_dir_of(program: Program, home: Path) -> Path:
    """The configuration folder of agents that are started now; those of one folder share an account and its limits."""
    return home / "rehearsal" if program is Program.REHEARSAL else config_dir()


def config_dir() -> Path:
    """Claude Code's own folder for sessions and transcripts."""
    return Path(os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude").expanduser()


def _ask(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [executable, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{executable} cannot be run: {error}", hint=f"{executable} --version") from error


def version_of(executable: str) -> str:
    """The version that an installed Claude Code tells: `2.1.330`. Raises `Unavailable`, also when it is too old."""
    answer = _ask(executable, "--version")
    number = re.match(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if not number:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        raise Unavailable(f"{answer.args[0]} does not tell its version: {said[0] if said else 'it printed nothing'}")
    if tuple(map(int, number.groups())) < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        raise Unavailable(f"Claude Code {number[0]} is too old: {needed} or newer is needed", hint="claude update")
    return number[0]


def check_login(executable: str) -> None:
    """Raises `Unavailable` when Claude Code is not logged in, or does not tell. It asks nobody outside."""
    answer = _ask(executable, "auth", "status", "--json")
    try:
        logged_in = bool(json.loads(answer.stdout)["loggedIn"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise Unavailable(
            f"Claude Code does not tell whether it is logged in: {answer.stderr.strip() or answer.stdout.strip()}",
            hint="claude auth status",
        ) from error
    if not logged_in:
        raise Unavailable("Claude Code is not logged in", hint="claude auth login, then launch again")


def check_permission_mode(mode: str) -> None:
    """Raises `Unavailable` for a permission mode that Claude Code refuses to this user."""
    # IS_SANDBOX must be exactly "1": "yes" and "true" are refused.
    if mode == "bypassPermissions" and os.geteuid() == 0 and os.environ.get("IS_SANDBOX") != "1":
        raise Unavailable(
            "Claude Code refuses permission_mode bypassPermissions for root",
            hint="launch as another user, set permission_mode: auto, or set IS_SANDBOX=1 on a sandboxed machine",
        )


def check_trust(settings: Settings, program: Program, project: Path) -> None:
    """Raises `Unavailable` when Claude Code would ask somebody whether they trust a repository.

    A repository is trusted when its own top folder was accepted, and then its git worktrees are too. An accepted
    folder above the repository does not count, nor does one linked worktree for another.
    """
    if program is Program.REHEARSAL or settings.trust_project:
        return
    path = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home()) / ".claude.json"
    try:
        is_trusted = json.loads(path.read_text(encoding="utf-8"))["projects"][str(project)]["hasTrustDialogAccepted"]
    except (FileNotFoundError, KeyError, TypeError):
        is_trusted = False
    except (OSError, ValueError) as error:
        raise Unavailable(f"{path} cannot be read: {error}", hint="claude doctor") from error
    if not is_trusted:
        raise Unavailable(
            f"Claude Code has not been told to trust {project}",
            hint=f"run claude once in {project} and accept, or set trust_project: true in config.yaml",
        )
