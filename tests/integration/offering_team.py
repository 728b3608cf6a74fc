"""A team that is recorded, with a branch for each role and no windows, where the test commits, offers and merges."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib import agents, host, orchestrations, reports, store
from lib.git import worktrees
from lib.merging import candidates, hub, integrations
from lib.models import Agent, Candidate, Integration
from tests.agents import an_orchestration
from tests.conftest import Bench, commit_all

ROLES = ("orchestrator", "developer", "tester", "testrunner")


@dataclass
class OfferingTeam:
    """The team, and hands in each of its worktrees."""

    bench: Bench
    db: sqlite3.Connection
    id: str
    project: Path

    def agent(self, role: str) -> Agent:
        found = agents.in_role(self.db, self.id, role)
        assert found
        return found

    @property
    def integration(self) -> str:
        return orchestrations.get(self.db, self.id).integration_branch

    def git(self, *words: str, at: Path | None = None) -> str:
        done = subprocess.run(["git", *words], cwd=at or self.project, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def worktree(self, role: str) -> Path:
        """The worktree of a role, made when it is first asked for."""
        agent = self.agent(role)
        if not agent.worktree.exists():
            self.git("worktree", "add", "-q", str(agent.worktree), agent.branch)
        return agent.worktree

    def commit(self, role: str, **files: str) -> str:
        """Commit files on a role's branch (`a_txt` is a.txt). Returns the commit."""
        worktree = self.worktree(role)
        for name, text in files.items():
            (worktree / name.replace("_", ".")).write_text(text)
        commit_all(worktree, f"{role}: {', '.join(files)}")
        return self.git("rev-parse", "HEAD", at=worktree)

    def offer(self, role: str) -> Candidate:
        """Offer what a role's branch holds now."""
        agent = self.agent(role)
        return candidates.offer(self.db, agent, self.git("rev-parse", agent.branch), now=host.now_ms())

    def work(self, role: str, **files: str) -> Candidate:
        """Commit and offer."""
        self.commit(role, **files)
        return self.offer(role)

    def complete(self, role: str = "orchestrator", summary: str = "All is done") -> None:
        """Report that a role's part is done."""
        reports.complete(self.db, self.agent(role), summary, caller=None, sender="user", now=host.now_ms())

    def settings(self, text: str) -> None:
        """Write the project's own settings, uncommitted as they may be."""
        (self.project / ".tmux-orchestrator.yaml").write_text(text)

    def merge(self) -> None:
        """Let the hub do its work."""
        hub.run(self.bench.home, self.id)

    def merged(self, name: str, *, ref: str | None = None) -> str:
        """A file as the integration has it."""
        return self.git("show", f"{ref or self.integration}:{name}")

    def files(self, ref: str | None = None) -> set[str]:
        """The files that the integration holds."""
        return set(self.git("ls-tree", "-r", "--name-only", ref or self.integration).split())

    def states(self) -> dict[str, str]:
        """What became of each role's last offer."""
        found = candidates.last_of_each(self.db, self.id)
        return {agents.get(self.db, agent_id).role: str(one.status) for agent_id, one in found.items()}

    def state(self) -> Integration:
        found = integrations.of(self.db, self.id)
        assert found
        return found

    def status(self) -> str:
        return str(orchestrations.get(self.db, self.id).status)

    def told(self, role: str) -> list[str]:
        """What the hub has said to a role."""
        query = "SELECT body FROM messages WHERE agent_id = ? AND sender = 'merge-hub' ORDER BY id"
        return [row["body"] for row in self.bench.rows(query, self.agent(role).id)]

    def notices(self) -> list[dict[str, Any]]:
        return self.bench.rows("SELECT kind, title, body FROM notices ORDER BY id")

    def events(self, kind: str) -> int:
        return len(self.bench.rows("SELECT 1 FROM events WHERE kind = ?", kind))

    def killed(self, number: int) -> int:
        """Run the hub in a process that kills itself before the step of this number. Returns its exit code."""
        return self.bench.killed("merge", number, self.id)


def make(bench: Bench, name: str = "webapp", **changed: Any) -> OfferingTeam:
    """A team in a project of its own, in status running."""
    project = bench.project(name)
    start = worktrees.starting_point(project)
    db = store.connect(bench.home)
    new = an_orchestration(project=project, starting_commit=start.commit, **changed)
    with store.writing(db):
        orchestrations.add(db, new)
        for window, role in enumerate(ROLES):
            worktree = worktrees.folder_of(project) / role
            agents.add(db, new, agents.NewAgent(role, window, worktree, f"{new.branches}/{role}", f"{name}-{role}"))
    made = OfferingTeam(bench, db, new.id, project)
    for role in ROLES:
        made.git("branch", made.agent(role).branch)
    return made


@pytest.fixture
def offering(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[OfferingTeam]:
    for name in [name for name in os.environ if name not in bench.environment]:
        monkeypatch.delenv(name)
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    made = make(bench)
    yield made
    made.db.close()
