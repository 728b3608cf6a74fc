"""An isolated machine to measure on: a HOME, a state home, a tmux server and an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lib import agents, daemon, host, store
from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.models import Agent, AgentState
from lib.tmux import Tmux

#: All that is taken over: how programs are found, and how uv finds its warm cache. Nothing of an account.
INHERITED = ("PATH", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "TMPDIR")

#: A shape of key that Claude Code takes without asking; it is sent to the scripted server only.
FAKE_KEY = "sk-ant-api03-not-a-real-key-0123456789-ABCDEFGHIJ"

SPEC = """# Greeting

PROJECT: Greeting
GOAL: Say hello.

DELIVERABLES:
1. A greeting file
2. A farewell file
"""


@dataclass
class Machine:
    """Doors run here as a person or an agent runs them: by their own first line."""

    folder: Path
    environment: dict[str, str]
    tmux: Tmux

    @property
    def home(self) -> Path:
        """The state home."""
        return Path(self.environment["TMUX_ORCHESTRATOR_HOME"])

    def run(self, *command: str, stdin: bytes = b"") -> tuple[float, bytes]:
        """Run a command that has to succeed. Returns its seconds and what it printed."""
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, input=stdin, capture_output=True, timeout=120, check=False
        )
        took = time.perf_counter() - began
        if done.returncode:
            raise OrchestratorError(f"{command[0]} -> {done.returncode}: {done.stderr.decode(errors='replace')}")
        return took, done.stdout

    def door(self, name: str, *arguments: str) -> tuple[float, bytes]:
        """Run a door as `run` does."""
        return self.run(str(ROOT / name), *arguments)

    def project(self) -> Path:
        """A git repository with one commit that holds `spec.md`."""
        path = self.folder / "webapp"
        path.mkdir()
        (path / "spec.md").write_text(SPEC, encoding="utf-8")
        identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), (*identity, "commit", "-q", "-m", "Start")):
            self.run("git", "-C", str(path), *words)
        return path

    def db(self) -> sqlite3.Connection:
        return store.connect(self.home)

    def agent(self, role: str) -> Agent:
        """The agent that holds a role in the newest team."""
        db = self.db()
        newest = db.execute("SELECT id FROM orchestrations ORDER BY created_at DESC").fetchone()["id"]
        return next(mate for mate in agents.of_orchestration(db, newest) if mate.role == role)

    def wait_idle(self, role: str) -> None:
        """Wait until an agent is idle."""
        wait_for(lambda: agents.state_of(self.agent(role)) is AgentState.IDLE, f"{role} to be idle")

    def end(self) -> None:
        """End what the doors have started here, and nothing else."""
        pids = [pane.pid for pane in self.tmux.panes()]
        process = daemon.running(self.home) if self.home.exists() else None
        if process and host.is_alive(process):
            os.kill(process.pid, signal.SIGTERM)
            wait_for(lambda: not host.is_alive(process), "the daemon to end")
        if pids:
            self.tmux.run("kill-server")
        wait_for(lambda: not any(host.process(pid) for pid in pids), "the agents to end")


def wait_for(look: Callable[[], object], what: str, *, seconds: float = 60.0) -> None:
    """Wait until `look` returns something true. Raises `OrchestratorError` after the limit."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise OrchestratorError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def rehearsal() -> Iterator[Machine]:
    """A machine for rehearsal agents that play without pauses."""
    with _made({"TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0"}) as machine:
        yield machine


def claude_binary() -> Path | None:
    """The Claude Code that `setup.sh --dev` has put into the checkout, or None."""
    found = sorted((ROOT / ".dev" / "claude").glob("node_modules/@anthropic-ai/claude-code-*/claude"))
    return next((path for path in found if os.access(path, os.X_OK)), None)


@contextlib.contextmanager
def claude(binary: Path, model_url: str) -> Iterator[Machine]:
    """A machine with the real Claude Code, onboarded, that talks to a model server on loopback only."""
    variables = {
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_API_KEY": FAKE_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }
    with _made(variables) as machine:
        programs = machine.folder / "bin"
        programs.mkdir()
        (programs / "claude").symlink_to(binary)
        machine.environment["PATH"] = f"{programs}{os.pathsep}{machine.environment['PATH']}"
        known: dict[str, Any] = {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": [FAKE_KEY[-20:]], "rejected": []},
            "projects": {
                str(machine.folder / "webapp"): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True},
            },
        }
        (Path(machine.environment["HOME"]) / ".claude.json").write_text(json.dumps(known))
        yield machine


@contextlib.contextmanager
def _made(variables: dict[str, str]) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-benchmark-")).resolve()
    user_home = folder / "home"
    settings = user_home / ".config" / "tmux-orchestrator" / "config.yaml"
    settings.parent.mkdir(parents=True)
    # What is measured is the way of a message, not the wait of a flood.
    settings.write_text("messages_per_minute: 100000\n", encoding="utf-8")
    socket = f"orchestrator-benchmark-{uuid.uuid4().hex[:12]}"
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
        "HOME": str(user_home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TMUX_ORCHESTRATOR_HOME": str(folder / "state"),
        "TMUX_ORCHESTRATOR_SOCKET": socket,
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
        "UV_OFFLINE": "1",
    }
    machine = Machine(folder, environment | variables, Tmux(socket))
    try:
        yield machine
    finally:
        machine.end()
        (Path(os.environ.get("TMUX_TMPDIR", "/tmp")) / f"tmux-{os.getuid()}" / socket).unlink(missing_ok=True)
        # The last hooks outlive their agents, and would make their folder again.
        wait_for(lambda: not _is_used(folder), "the last hooks to end")
        shutil.rmtree(folder)


def _is_used(folder: Path) -> bool:
    processes = psutil.process_iter(["cmdline"])
    return any(str(folder) in word for process in processes for word in process.info["cmdline"] or ())
