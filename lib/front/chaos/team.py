"""A rehearsal team that is to be broken: how it is made, what it looks like, and when it is whole again."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from lib import agents, host, messages, orchestrations, store
from lib.claude import transcripts
from lib.errors import NotFound, Unavailable
from lib.front.chaos.ground import Ground, wait_for
from lib.git import worktrees
from lib.merging import candidates, integrations
from lib.models import Agent, AgentState, CandidateStatus, Orchestration, OrchestrationStatus
from lib.records import dataclass

ROLES = ("orchestrator", "developer", "tester")
#: The Orchestrator of such a spec waits: what happens in the team is what the test sends.
_SPEC = "# A team that is broken on purpose\n\nrehearse: hold\n"
#: What agents of a test do when nothing is left to do, and what those of a person may do.
_QUIET = (AgentState.IDLE,)
_THERE = (AgentState.IDLE, AgentState.WORKING, AgentState.ASKING, AgentState.LIMITED)
_BRIEFED_WITHIN_SECONDS = 60.0
_LOOKS_WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class Team:
    """A team on a ground, by its orchestration."""

    ground: Ground
    id: str

    @classmethod
    def launch(cls, ground: Ground, name: str) -> Team:
        """A briefed team with nothing to do, in a repository of its own. Raises `OrchestratorError`."""
        project = ground.folder / name
        project.mkdir()
        (project / "spec.md").write_text(_SPEC)
        worktrees.make_repository(project, author="Rehearsal", subject="The spec")
        ground.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", ",".join(ROLES), "--no-ai")
        with ground.store() as db:
            found = orchestrations.live_in(db, project.resolve())
        if found is None:
            raise NotFound(f"the launch of {name} has recorded no team")
        team = cls(ground, found.id)
        wait_for(lambda: team.lacks() is None, seconds=_BRIEFED_WITHIN_SECONDS)
        return team

    @classmethod
    def of(cls, ground: Ground, session: str) -> Team:
        """The live team of a session. Raises `NotFound` when it has none, `Unavailable` when that does not run."""
        with ground.store() as db:
            team = cls(ground, agents.team_of(db, session, None))
        if lacks := team.lacks():
            raise Unavailable(f"{session} is not whole: {lacks}", hint=f"claude_control.py status {session}")
        return team

    def orchestration(self) -> Orchestration:
        """What the store has of it now."""
        with self.ground.store() as db:
            return orchestrations.get(db, self.id)

    def members(self) -> list[Agent]:
        """Its agents as the store has them now, by window. Raises `NotFound` when it has none any more."""
        with self.ground.store() as db:
            team = agents.of_orchestration(db, self.id)
        if not team:
            raise NotFound(f"the store has lost the team {self.id}")
        return team

    def worker(self) -> Agent:
        """The agent that has work to do beside its messages: the developer, if there is one."""
        team = self.members()
        return next((agent for agent in team if agent.role == "developer"), team[-1])

    def member(self, role: str) -> Agent:
        """The agent in a role."""
        return next(agent for agent in self.members() if agent.role == role)

    def lacks(self) -> str | None:
        """What it lacks to be as it should, in words; None when it is whole and nothing waits."""
        with self.ground.store() as db:
            found, team = orchestrations.get(db, self.id), agents.of_orchestration(db, self.id)
            waiting = _waiting(db, team)
        if found.status is not OrchestrationStatus.RUNNING:
            return f"the team is {found.status}"
        if not host.is_alive(self.ground.daemon()):
            return "no scheduler runs"
        wanted = _QUIET if self.ground.is_own else _THERE
        others = [f"{agent.role} is {state}" for agent in team if (state := agents.state_of(agent)) not in wanted]
        if not self.ground.is_own:  # a team at work has always something on its way
            return ", ".join(others) or None
        return ", ".join(others) or waiting or self._unread()

    def _unread(self) -> str | None:
        """What agents have told and nobody has taken yet."""
        spool = self.ground.home / "spool"
        left = len(list(spool.glob("*.json"))) if spool.exists() else 0
        return f"{left} reports of hooks are not read" if left else None

    def read(self, agent: Agent) -> list[str]:
        """All that an agent has been told in all its lives and has come to read, by its own conversation."""
        path = transcripts.find(agent.config_dir, agent.conversation_id)
        return list(transcripts.prompts(path, has_read=True)) if path else []

    def commits(self, agent: Agent) -> list[str]:
        """The subjects of the commits on an agent's branch."""
        found = self.orchestration()
        branch = f"refs/heads/{agent.branch}"
        made = worktrees.new_commits(
            found.project, branch, beyond=[found.starting_commit], seconds=_LOOKS_WITHIN_SECONDS
        )
        return [commit.subject for commit in made]

    def offered(self) -> Mapping[str, CandidateStatus]:
        """What became of the last commit that each role has offered to be merged."""
        with self.ground.store() as db:
            last = candidates.last_of_each(db, self.id)
            roles = {agent.id: agent.role for agent in agents.of_orchestration(db, self.id)}
        return {roles[agent_id]: one.status for agent_id, one in last.items()}

    def integration_trouble(self) -> str | None:
        """What keeps the merge hub from working, in its words."""
        with self.ground.store() as db:
            state = integrations.of(db, self.id)
        return state.trouble if state else None

    def forget_boot(self, victim: Agent, pid: int) -> None:
        """Have all that was recorded be of an earlier boot, in which the victim had the pid that another has now."""
        with self.ground.store() as db, store.writing(db):
            db.execute("UPDATE agents SET boot = 'an earlier one' WHERE orchestration_id = ?", (self.id,))
            db.execute("UPDATE agents SET pid = ?, pane_pid = ? WHERE id = ?", (pid, pid, victim.id))

    def stop(self) -> None:
        """End it, so that what comes after it is not about it."""
        self.ground.ok("claude_control.py", "stop", self.orchestration().session)


def _waiting(db: sqlite3.Connection, team: Sequence[Agent]) -> str | None:
    counts = {agent.role: messages.count_pending(db, agent.id) for agent in team}
    waiting = [f"{count} for {role}" for role, count in counts.items() if count]
    return f"messages wait: {', '.join(waiting)}" if waiting else None
