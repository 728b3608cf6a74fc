"""Values and rows that stand for a team, where nothing runs."""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import agents, daemon, orchestrations, store
from lib.config import Settings
from lib.errands import Errands
from lib.models import Agent, GitMode, News, Orchestration, OrchestrationStatus, Program


def an_agent(**changed: Any) -> Agent:
    """An agent of whom nothing runs."""
    values: dict[str, Any] = {
        "id": 1,
        "orchestration_id": "a1b2c3",
        "session": "webapp-impl",
        "role": "developer",
        "window": 1,
        "program": Program.REHEARSAL,
        "config_dir": Path("/nowhere/config"),
        "worktree": Path("/nowhere/webapp-tmux-worktrees/developer"),
        "branch": "orchestration/a1b2c3-spec/developer",
        "conversation_id": str(uuid.uuid4()),
        "epoch": 1,
        "pane_id": None,
        "pane_pid": None,
        "process": None,
        "messages_per_minute": 10,
        "last_hook": None,
        "last_hook_at": None,
    }
    return Agent(**values | changed)


def a_life(home: Path) -> daemon.Life:
    """A daemon's life with the default settings."""
    return daemon.Life(Settings(), Errands(home))


@dataclass
class Unsent(Errands):
    """Errands that are only noted: a door would run on the machine of who runs the tests."""

    sent: list[str] = field(default_factory=list)

    def start(self, name: str, door: str, *arguments: str) -> bool:
        self.sent.append(name)
        return True


def a_look(agent: Agent, seen: str | None) -> News:
    """What somebody finds that looks for news: a report for whoever has seen only what was `before`."""
    return News("1 report" if seen == "before" else "", "after")


def an_orchestration(**changed: Any) -> Orchestration:
    """An orchestration in status running of which nothing runs."""
    project = changed.get("project", Path("/nowhere/webapp"))
    orchestration_id = orchestrations.mint_id()
    values: dict[str, Any] = {
        "id": orchestration_id,
        "project": project,
        "session": f"{project.name}-impl",
        "spec_path": project / "spec.md",
        "spec_title": "A spec",
        "spec_text": "# A spec\n",
        "status": OrchestrationStatus.RUNNING,
        "program": Program.REHEARSAL,
        "config_dir": project.parent / "rehearsal",
        "starting_branch": "main",
        "starting_commit": "0" * 40,
        "branches": f"orchestration/{changed.get('id', orchestration_id)}-spec",
        "git_mode": GitMode.LOCAL,
        "messages_per_minute": 10,
        "unattended": False,
        "outcome": None,
        "created_at": 0,
        "updated_at": 0,
    }
    return Orchestration(**values | changed)


def a_team(
    db: sqlite3.Connection, *roles: str, name: str = "webapp", home: Path = Path("/nowhere"), per_minute: int = 1000
) -> list[Agent]:
    """Record an orchestration in status running with these roles; nothing of it runs."""
    new = an_orchestration(project=home / name, messages_per_minute=per_minute)
    with store.writing(db):
        orchestrations.add(db, new)
        for window, role in enumerate(roles):
            worktree = home / f"{name}-tmux-worktrees" / role
            branch = f"{new.branches}/{role}"
            agents.add(db, new, agents.NewAgent(role, window, worktree, branch, str(uuid.uuid4())))
    return agents.of_orchestration(db, new.id)
