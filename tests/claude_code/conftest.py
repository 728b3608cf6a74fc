"""A home, an environment and a terminal of its own for the real Claude Code CLI."""

from __future__ import annotations

import contextlib
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

from lib.claude import transcripts
from lib.judgement import screens
from lib.models import PENDING, MessageStatus
from lib.probing.model import Match, ModelServer, Request
from tests.conftest import Bench, Done, isolated, wait_for

DEV_FOLDER = Path(__file__).parents[2] / ".dev" / "claude"
FAKE_TOKEN = "sk-ant-oat01-not-a-real-token"
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


def new_claude_home(folder: Path) -> ClaudeHome:
    home = ClaudeHome(folder / "claude-home")
    (home.path / ".claude").mkdir(parents=True)
    approved = {"approved": [FAKE_KEY[-20:]], "rejected": []}
    onboarded = {"hasCompletedOnboarding": True, "theme": "dark", "customApiKeyResponses": approved}
    home.settings.write_text(json.dumps(onboarded))
    return home


def environment_for(binary: Path, server: ModelServer, home: ClaudeHome) -> dict[str, str]:
    """The whole environment, from nothing: what this machine has set does not reach the CLI."""
    programs = home.path / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(binary)
    tools = [shutil.which(name) for name in ("tmux", "git", "bash", "uv")]
    folders = [str(Path(path).parent) for path in (sys.executable, *tools) if path]
    return {
        "HOME": str(home.path),
        "PATH": os.pathsep.join(dict.fromkeys([str(programs), *folders, "/usr/bin", "/bin"])),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": FAKE_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # lets root use --dangerously-skip-permissions
    }


@pytest.fixture
def claude_home(tmp_path: Path) -> ClaudeHome:
    return new_claude_home(tmp_path)


@pytest.fixture
def claude_environment(claude_binary: Path, model_server: ModelServer, claude_home: ClaudeHome) -> dict[str, str]:
    return environment_for(claude_binary, model_server, claude_home)


@pytest.fixture
def claude_bench(bench: Bench, claude_environment: dict[str, str]) -> Bench:
    """The isolated machine with the real `claude` on its PATH and the scripted model behind it."""
    bench.environment |= claude_environment
    return bench


@pytest.fixture
def trusted_project(claude_bench: Bench, claude_home: ClaudeHome) -> Path:
    project = claude_bench.project()
    claude_home.trust(project)
    return project


def told(role: str, text: str) -> Match:
    """The turns of a role's agent while the last thing that it was told holds `text`."""

    def match(request: Request) -> bool:
        return f"You are the {role} of a team" in request.system and text in request.prompt

    return match


def launch(bench: Bench, project: Path, *roles: str) -> None:
    bench.ok("auto_orchestrate.py", "--no-ai", "--spec", str(project / "spec.md"), "--roles", ",".join(roles))


@dataclass
class Person:
    """A real Claude Code that works alone in one pane, and somebody who sends it messages."""

    bench: Bench
    server: ModelServer
    home: ClaudeHome
    target: str
    pane: str

    def send(self, text: str, *options: str, cwd: Path | None = None) -> Done:
        return self.bench.door("claude_control.py", "send", self.target, "-", *options, stdin=text, cwd=cwd)

    def message(self, message_id: int | None = None) -> dict[str, Any]:
        """A message as the ledger has it; the newest when none is named."""
        by_id = "SELECT * FROM messages WHERE id = coalesce(?, (SELECT max(id) FROM messages))"
        return self.bench.rows(by_id, message_id)[0]

    def await_message(self, message_id: int, status: str, *, seconds: float = 40) -> dict[str, Any]:
        return wait_for(
            lambda: (row := self.message(message_id)) and row["status"] == status and row,
            f"message {message_id} to be {status}: it is {self.message(message_id)}",
            seconds=seconds,
        )

    @property
    def session(self) -> dict[str, Any]:
        """What the CLI in our pane says of itself; empty when it has none."""
        found = [one for one in self.home.sessions() if str(one.get("tmux", "")).endswith(f".{self.pane}")]
        return max(found, key=lambda one: int(one["startedAt"]), default={})

    def await_status(self, status: str) -> None:
        wait_for(lambda: self.session.get("status") == status, f"{status}, not {self.session.get('status')}")

    def await_free(self) -> None:
        """Wait until the agent has nothing to do and an empty composer."""

        def is_free() -> bool:
            screen = self.screen()
            return (
                not self._on_their_way()
                and self.session.get("status") == "idle"
                and screen == screens.Screen(screens.ScreenKind.COMPOSER, "", False)
            )

        wait_for(is_free, "a free agent")

    def _on_their_way(self) -> list[int]:
        """Messages that have not arrived, or of which the turn has not begun: the hook comes before the model."""
        rows = self.bench.rows("SELECT * FROM messages WHERE kind <> 'command' AND carried_by IS NULL")
        seen = "\n".join(self.server.prompts())
        return [
            row["id"]
            for row in rows
            if row["status"] in PENDING
            or (row["status"] == MessageStatus.ACKNOWLEDGED and f"[msg {row['id']} from " not in seen)
        ]

    def got(self, message_id: int) -> list[str]:
        """The prompts, as the model saw them, that begin with the head of this message; at least one has come."""

        def seen() -> list[str]:
            head = f"[msg {message_id} from "
            return [text for text in self.server.prompts() if text.lstrip().startswith(head)]

        return wait_for(seen, f"the model to see message {message_id}")

    def transcript(self) -> list[str]:
        path = transcripts.find(self.home.path / ".claude", self.session["sessionId"])
        return list(transcripts.prompts(path)) if path else []

    def screen(self) -> screens.Screen:
        return screens.read(self.bench.tmux.look(self.pane).screen)

    def press(self, *keys: str) -> None:
        """A person's hands in the pane."""
        self.bench.tmux.run("send-keys", "-t", self.pane, *keys)

    def await_screen(self, text: str) -> None:
        try:
            wait_for(lambda: text in self.bench.screen(self.pane), f"the screen to show {text!r}")
        except pytest.fail.Exception as failure:
            raise AssertionError(f"{failure}, instead of\n{self.bench.screen(self.pane)}") from None


@contextlib.contextmanager
def machine(folder: Path, binary: Path, config: str = "") -> Iterator[tuple[Bench, ModelServer, ClaudeHome]]:
    """A machine with the real CLI and a model of its own, for a fixture that many tests share."""
    with ModelServer() as server, isolated(folder) as bench:
        home = new_claude_home(folder)
        bench.environment |= environment_for(binary, server, home)
        settings = home.path / ".config" / "tmux-orchestrator" / "config.yaml"
        settings.parent.mkdir(parents=True)
        settings.write_text(config)
        yield bench, server, home


@contextlib.contextmanager
def working_alone(
    folder: Path, binary: Path, config: str = "messages_per_minute: 100000\n", *, is_subscriber: bool = False
) -> Iterator[Person]:
    """One launched agent that has read its briefing; a subscriber has usage limits, and no key."""
    with machine(folder, binary, config) as (bench, server, home):
        if is_subscriber:
            del bench.environment["ANTHROPIC_API_KEY"]
            bench.environment["CLAUDE_CODE_OAUTH_TOKEN"] = FAKE_TOKEN
        project = bench.project()
        home.trust(project)
        launch(bench, project, "orchestrator")
        pane = bench.rows("SELECT pane_id FROM agents")[0]["pane_id"]
        person = Person(bench, server, home, "webapp-impl:orchestrator", pane)
        person.await_status("idle")
        yield person


@pytest.fixture
def claude_terminal(claude_environment: dict[str, str]) -> Iterator[ClaudeTerminal]:
    terminal = ClaudeTerminal(f"claude-{uuid.uuid4().hex[:12]}", claude_environment)
    yield terminal
    terminal.close()
