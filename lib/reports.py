"""Completion reports: what an agent says is done, with the commit that shows it."""

from __future__ import annotations

import json
import sqlite3

from lib import agents, messages, orchestrations, templates, worktrees
from lib.errors import OrchestratorError
from lib.models import LIVE, Agent, Message, MessageKind, OrchestrationStatus
from lib.store import record, writing
from lib.teams import ORCHESTRATOR


def complete(db: sqlite3.Connection, agent: Agent, summary: str, *, sender: str, now: int) -> Message | None:
    """Record that an agent's part is done, and tell the orchestrator.

    The Orchestrator's own report ends the orchestration. Either needs evidence: a commit beyond the starting
    commit. Raises `OrchestratorError` without one. Returns the message to the orchestrator, None for its own.
    """
    found = orchestrations.of_agent(db, agent)
    if found.status not in LIVE:
        raise OrchestratorError(f"{found.session} is {found.status}: there is nothing left to report")
    work = worktrees.work_since(agent.worktree, found.starting_commit, agent.branch)
    if not work.commits:
        raise OrchestratorError(
            f"{agent.role} has no commit on {agent.branch} since the start: there is nothing to report as done",
            hint=f"commit the work in {agent.worktree}, then report again",
        )
    with writing(db):
        db.execute(
            "INSERT INTO reports (agent_id, summary, branch, head, commits, files, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (agent.id, summary, work.branch, work.head, work.commits, json.dumps(work.files), now),
        )
        record(
            db,
            "report.completion",
            now=now,
            orchestration=found.id,
            agent=agent.id,
            summary=summary,
            commit=work.head,
            commits=work.commits,
        )
        if agent.role == ORCHESTRATOR:
            outcome = f"{summary} (commit {work.head[:12]} on {work.branch})"
            orchestrations.set_status(db, found.id, OrchestrationStatus.COMPLETED, now=now, outcome=outcome)
            return None
        hub = next((mate for mate in agents.of_orchestration(db, found.id) if mate.role == ORCHESTRATOR), None)
        if hub is None:
            return None
        text = templates.render("completion_report.md", role=agent.role, summary=summary, work=work)
        return messages.queue(db, hub, text, sender=sender, kind=MessageKind.REPORT, now=now)


def reported_roles(db: sqlite3.Connection, orchestration_id: str) -> set[str]:
    """The roles of a team that have reported completion."""
    rows = db.execute(
        "SELECT DISTINCT agents.role FROM reports JOIN agents ON agents.id = reports.agent_id"
        " WHERE agents.orchestration_id = ?",
        (orchestration_id,),
    )
    return {row[0] for row in rows}
