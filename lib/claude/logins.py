"""Which account the agents of a configuration folder use: a name that is the same on every machine and tells nothing.

Claude Code keeps who is logged in as `oauthAccount` of `.claude.json`. One login may belong to several organizations,
each with limits of its own, so both count. A key or a token of the environment comes before the login, and that file
does not tell of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

#: So much of the end of a key tells it from others; Claude Code itself keeps as much of it.
_TAIL = 20
#: What comes before a login.
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")


def account(config_dir: Path, environment: Mapping[str, str]) -> str | None:
    """The account of agents that are started in this environment; None when nothing tells it.

    It is a digest of what nobody can guess: the ids of the login, or the end of the key.
    """
    for name in _KEYS:
        if environment.get(name):
            return digest(name, environment[name][-_TAIL:])
    for path in _files(config_dir):
        if found := _login(path):
            return digest("login", *found)
    return None


def digest(*parts: str) -> str:
    """The name of an account that is known by these."""
    return hashlib.sha256("\0".join(("tmux-orchestrator account", *parts)).encode()).hexdigest()[:32]


def _files(config_dir: Path) -> tuple[Path, ...]:
    """Where Claude Code keeps it: in the folder, but for the one that it uses by itself beside it."""
    inside = config_dir / ".claude.json"
    return (inside, config_dir.with_name(".claude.json")) if config_dir.name == ".claude" else (inside,)


def _login(path: Path) -> tuple[str, str] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["oauthAccount"]
        return str(said["accountUuid"]), str(said.get("organizationUuid") or "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no login, or nothing that can be read
        return None
