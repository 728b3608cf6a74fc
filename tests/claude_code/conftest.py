"""A home, an environment and a terminal of its own for the real Claude Code CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .model_server import ModelServer

DEV_FOLDER = Path(__file__).parents[2] / ".dev" / "claude"
FAKE_KEY = "sk-ant-api03-not-a-real-key-0123456789-ABCDEFGHIJ"


@dataclass(frozen=True)
class ClaudeHome:
    """A HOME in which Claude Code has nothing left to ask: onboarded, key approved, folders trusted."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / ".claude.json"

    def trust(self, *folders: Path) -> None:
        """Accept the trust dialog for these folders; what is below them is then trusted too."""
        with_trust = json.loads(self.settings.read_text())
        for folder in folders:
            project = with_trust.setdefault("projects", {}).setdefault(str(folder.resolve()), {})
            project.update(hasTrustDialogAccepted=True, hasCompletedProjectOnboarding=True)
        self.settings.write_text(json.dumps(with_trust))

    def sessions(self) -> list[dict[str, Any]]:
        """What the running CLIs of this home say of themselves."""
        return [json.loads(f.read_text()) for f in (self.path / ".claude" / "sessions").glob("*.json")]


@dataclass(frozen=True)
class ClaudeTerminal:
    """One pane of a private tmux server, with a person's hands and eyes."""

    server: str
    environment: dict[str, str]

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self.server, "-f", "/dev/null", *words]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def start(self, folder: Path, *command: str, columns: int = 100, rows: int = 30) -> None:
        size = ("-x", str(columns), "-y", str(rows))
        self.tmux("new-session", "-d", "-s", "claude", *size, "-c", str(folder), *command)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-e", "-p", "-t", "=claude:")

    def paste(self, text: str) -> None:
        self.tmux("set-buffer", "-b", "prompt", "--", text)
        self.tmux("paste-buffer", "-p", "-d", "-b", "prompt", "-t", "=claude:")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "=claude:", *keys)

    def wait_until(self, shows: Callable[[str], bool], *, timeout_seconds: float = 20.0) -> str:
        """Wait until the screen shows it, and give that screen."""
        deadline = time.monotonic() + timeout_seconds
        while not shows(screen := self.screen()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the screen still shows:\n{screen}")
            time.sleep(0.05)
        return screen

    def close(self) -> None:
        command = ["tmux", "-L", self.server, "kill-server"]
        subprocess.run(command, env=self.environment, check=False, capture_output=True, timeout=20)
        folder = Path(self.environment.get("TMUX_TMPDIR", "/tmp")) / f"tmux-{os.getuid()}"
        (folder / self.server).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def claude_binary() -> Path:
    """The real CLI in the project's own folder. Absent is a failure: a skipped proof proves nothing."""
    found = sorted(DEV_FOLDER.glob("node_modules/@anthropic-ai/claude-code-*/claude"))
    runnable = [path for path in found if os.access(path, os.X_OK)]
    if not runnable:
        pytest.fail(f"no Claude Code CLI below {DEV_FOLDER}: run ./setup.sh --dev", pytrace=False)
    return runnable[0]


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def claude_home(tmp_path: Path) -> ClaudeHome:
    home = ClaudeHome(tmp_path / "claude-home")
    (home.path / ".claude").mkdir(parents=True)
    approved = {"approved": [FAKE_KEY[-20:]], "rejected": []}
    onboarded = {"hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": approved}
    home.settings.write_text(json.dumps(onboarded))
    return home


@pytest.fixture
def claude_environment(claude_binary: Path, model_server: ModelServer, claude_home: ClaudeHome) -> dict[str, str]:
    """The whole environment, from nothing: what this machine has set does not reach the CLI."""
    programs = claude_home.path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude_binary)
    tools = [shutil.which(name) for name in ("tmux", "git", "bash", "uv")]
    folders = [str(Path(path).parent) for path in (sys.executable, *tools) if path]
    return {
        "HOME": str(claude_home.path),
        "PATH": os.pathsep.join(dict.fromkeys([str(programs), *folders, "/usr/bin", "/bin"])),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "ANTHROPIC_BASE_URL": model_server.url,
        "ANTHROPIC_API_KEY": FAKE_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # lets root use --dangerously-skip-permissions
    }


@pytest.fixture
def claude_terminal(claude_environment: dict[str, str]) -> Iterator[ClaudeTerminal]:
    terminal = ClaudeTerminal(f"claude-{uuid.uuid4().hex[:12]}", claude_environment)
    yield terminal
    terminal.close()
