"""A team that is recorded, with a worktree and a window for each role, where the test acts for the agents."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import agents, dependencies, host, orchestrations, planning, store
from lib.config import Settings
from lib.git import worktrees
from lib.models import Agent, OrchestrationStatus, Program
from tests.conftest import Bench, Done, commit_all

ROLES = ("orchestrator", "developer", "tester", "testrunner")


@dataclass(frozen=True)
class StillTeam:
    """The team, and hands in each of its windows."""

    bench: Bench
    db: sqlite3.Connection
    id: str

    def agent(self, role: str) -> Agent:
        found = agents.in_role(self.db, self.id, role)
        assert found
        return found

    def commit(self, role: str, name: str = "work.txt") -> None:
        """Commit a file of this name on a role's branch."""
        worktree = self.agent(role).worktree
        (worktree / name).write_text(f"by {role}\n")
        commit_all(worktree, f"Add {name}")

    def control(self, *words: str, role: str | None = None) -> Done:
        """Run claude_control.py in the window of a role; without one as a person."""
        return self.door("claude_control.py", *words, role=role)

    def door(self, name: str, *words: str, role: str | None = None) -> Done:
        """Run a door in the window of a role; without one as a person."""
        kept = dict(self.bench.environment)
        if role:
            server = self.bench.tmux.run("display-message", "-p", "#{socket_path}").strip()
            self.bench.environment |= {"TMUX": f"{server},1,0", "TMUX_PANE": self.agent(role).pane_id or ""}
        try:
            return self.bench.door(name, *words)
        finally:
            self.bench.environment.clear()
            self.bench.environment.update(kept)

    def told(self, role: str, kind: str) -> list[tuple[str, str]]:
        """Sender and text of every message of a kind to a role."""
        rows = self.bench.rows(
            "SELECT sender, body FROM messages WHERE agent_id = ? AND kind = ? ORDER BY id", self.agent(role).id, kind
        )
        return [(row["sender"], row["body"]) for row in rows]

    def events(self, kind: str) -> int:
        return len(self.bench.rows("SELECT 1 FROM events WHERE kind = ?", kind))

    def end(self) -> None:
        orchestrations.set_status(self.db, self.id, OrchestrationStatus.STOPPED, now=host.now_ms())


@pytest.fixture
def still_team(bench: Bench) -> Iterator[StillTeam]:
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("auto_start: false\n")  # nobody delivers behind the test's back
    project = bench.project()
    db = store.connect(bench.home)
    stage = planning.Stage(bench.home, bench.tmux, Settings())
    decided = planning.decide(
        db,
        stage,
        project=project,
        spec_path=project / "spec.md",
        program=Program.REHEARSAL,
        now=host.now_ms(),
        roles=ROLES,
    )
    new = decided.orchestration
    with store.writing(db):
        orchestrations.add(db, new)
        for one in decided.agents:
            agents.add(db, new, one)
        dependencies.declare(db, new.id, decided.team.depends)
    bench.tmux.new_session(new.session, orchestration=new.id)
    for agent in agents.of_orchestration(db, new.id):
        _open_window(db, bench, project, agent, new.starting_commit)
    orchestrations.set_status(db, new.id, OrchestrationStatus.RUNNING, now=host.now_ms())
    yield StillTeam(bench, db, new.id)
    db.close()


def _open_window(db: sqlite3.Connection, bench: Bench, project: Path, agent: Agent, commit: str) -> None:
    worktrees.ensure(project, agent.worktree, agent.branch, commit)
    agent = agents.start_epoch(db, agent.id, conversation_id=agent.conversation_id)
    pane, pid = bench.tmux.new_window(
        agent.session,
        index=agent.window,
        name=agent.role,
        cwd=agent.worktree,
        agent=agent.id,
        argv=["sleep", "1000"],
        replace=None,
    )
    process = host.process(pid)
    assert process
    agents.started(db, agent.id, pane_id=pane, process=process)


def become(team: StillTeam, role: str) -> Agent:
    """Let the process of the test be a role's agent, so that what the test starts runs below it."""
    process = host.process(os.getpid())
    agent = team.agent(role)
    assert process and agent.pane_id
    return agents.started(team.db, agent.id, pane_id=agent.pane_id, process=process)
