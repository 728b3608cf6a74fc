"""A machine to measure on: the sandbox of `lib/front/sandbox.py`, with what benchmarks do there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from lib import agents, store
from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.front import sandbox
from lib.front.sandbox import Sandbox
from lib.models import Agent, AgentState

#: A shape of key that Claude Code takes without asking; it is sent to the scripted server only.
FAKE_KEY = "sk-ant-api03-not-a-real-key-0123456789-ABCDEFGHIJ"

SPEC = """# Greeting

PROJECT: Greeting
GOAL: Say hello.

DELIVERABLES:
1. A greeting file
2. A farewell file
"""


#: What is measured is the way of a message, not the wait of a flood.
_SETTINGS = "messages_per_minute: 100000\n"


class Machine(Sandbox):
    """Doors run here as a person or an agent runs them: by their own first line."""

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
def claude(binary: Path, model_url: str, *, settings: str = "") -> Iterator[Machine]:
    """A machine with the real Claude Code, onboarded, that talks to a model server on loopback only."""
    variables = {
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_API_KEY": FAKE_KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }
    with _made(variables, settings) as machine:
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
def _made(variables: dict[str, str], settings: str = "") -> Iterator[Machine]:
    everywhere = {"UV_OFFLINE": "1"} | variables
    with sandbox.made("benchmark", settings=_SETTINGS + settings, variables=everywhere) as place:
        yield Machine(place.folder, place.environment, place.tmux)


# -- what it is --


def described() -> str:
    """The machine that this runs on, in words: cores, memory, system."""
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB of memory, {system}"


def versions() -> dict[str, str]:
    """What everything is built on, by name."""
    binary = claude_binary()
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    found |= {name: _version(name, word) for name, word in (("tmux", "-V"), ("git", "--version"), ("uv", "--version"))}
    return found | ({"Claude Code": _version(str(binary), "--version")} if binary else {})


def _version(program: str, word: str) -> str:
    """The number in what a program says of itself: "git version 2.39.5", "2.1.330 (Claude Code)"."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent"}
    said = subprocess.run([program, word], capture_output=True, text=True, check=False, env=environment).stdout
    return next((part for part in said.split() if part[0].isdigit()), said.strip())
