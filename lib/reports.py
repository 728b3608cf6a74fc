"""Completion reports: what an agent says is done, with the commit and the check that show it."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass

from lib import agents, commands, dependencies, messages, orchestrations, templates
from lib.commands import Ran
from lib.errors import OrchestratorError, Usage
from lib.git import worktrees
from lib.judgement import cleaning
from lib.judgement.teams import ORCHESTRATOR
from lib.merging import candidates, integrations
from lib.models import Agent, Message, MessageKind, Orchestration, OrchestrationStatus
from lib.store import events, record, writing

#: How long a check may take unless the report says otherwise.
CHECK_SECONDS = 600.0


@dataclass(frozen=True)
class Report:
    """A completion that is recorded. `is_new` is False when the same was reported before."""

    commit: str
    check: Ran | None
    message: Message | None
    notices: tuple[Message, ...]
    is_new: bool


def complete(
    db: sqlite3.Connection,
    agent: Agent,
    summary: str,
    *,
    caller: Agent | None,
    sender: str,
    now: int,
    check: str | None = None,
    check_seconds: float = CHECK_SECONDS,
) -> Report:
    """Record that an agent's part is done, tell the orchestrator, and tell once each role that waited for it.

    The commit is offered to the merge hub. The Orchestrator's own report ends the orchestration, and is told to nobody;
    then all that was offered is delivered. `caller` is the agent that reports,
    None a person. `check` is a command line (no shell) that has to succeed in the agent's worktree. Raises
    `OrchestratorError` for another's role, an ended orchestration, no commit since the start, or a failed check.
    """
    if caller is not None and caller.id != agent.id:
        raise OrchestratorError(
            f"only {agent.target} or a person can report for it: this is {caller.target}",
            hint=f'report-completion.sh {caller.role} "what was done"',
        )
    summary = cleaning.clean(summary).strip()
    if not summary:
        raise Usage("the report says nothing: describe in a sentence what is done")
    found = orchestrations.of_agent(db, agent)
    orchestrations.check_runs(found)
    work = _evidence(agent, found)
    if same := _same(db, agent, work.head, summary):
        return same
    shown = None
    if check is not None:
        started = time.monotonic()
        shown = _shown_by(db, agent, found, check, check_seconds, now)
        now += round((time.monotonic() - started) * 1000)
        if _evidence(agent, found).head != work.head:
            raise OrchestratorError(f"{agent.branch} got new commits during the check", hint="report again")
    with writing(db):
        # Both again: a check takes its time, and somebody else may report meanwhile.
        orchestrations.check_runs(orchestrations.of_agent(db, agent))
        if same := _same(db, agent, work.head, summary):
            return same
        message = _tell_orchestrator(db, agent, summary, work, shown, sender, now)
        _record(db, agent, summary, work, shown, message, now)
        candidates.offer(db, agent, work.head, now=now)
        if agent.role == ORCHESTRATOR:
            outcome = f"{summary} (commit {work.head[:12]} on {work.branch})"
            orchestrations.set_status(db, found.id, OrchestrationStatus.COMPLETED, now=now, outcome=outcome)
            integrations.want_delivery(db, found.id, now=now)
        notices = dependencies.resolve(db, agent, now=now)
    return Report(work.head, shown, message, tuple(notices), is_new=True)


def fail(db: sqlite3.Connection, agent: Agent, reason: str, *, caller: Agent | None, now: int) -> Orchestration:
    """Record that the whole cannot be done, which the Orchestrator alone can say, or a person for it.

    It needs no commit, and ends the orchestration as failed. Raises `OrchestratorError` for another role, or when the
    orchestration is over in another way.
    """
    if agent.role != ORCHESTRATOR or (caller is not None and caller.id != agent.id):
        raise OrchestratorError(
            "only the orchestrator can say that the whole has failed",
            hint=f'send-claude-message.sh {agent.session}:{ORCHESTRATOR} "what stands in the way"',
        )
    reason = cleaning.clean(reason).strip()
    if not reason:
        raise Usage("the report says nothing: say in a sentence why it cannot be done")
    with writing(db):
        found = orchestrations.of_agent(db, agent)
        if found.status is not OrchestrationStatus.FAILED:
            orchestrations.check_runs(found)
            orchestrations.set_status(db, found.id, OrchestrationStatus.FAILED, now=now, outcome=reason)
    return orchestrations.get(db, found.id)


def _evidence(agent: Agent, found: Orchestration) -> worktrees.Work:
    work = worktrees.work_since(agent.worktree, found.starting_commit, agent.branch)
    if not work.commits:
        raise OrchestratorError(
            f"{agent.role} has no commit on {agent.branch} since the start: there is nothing to report as done",
            hint=f"commit the work in {agent.worktree}, then report again",
        )
    return work


def _same(db: sqlite3.Connection, agent: Agent, head: str, summary: str) -> Report | None:
    """The report of the same commit in the same words, if there is one: a repetition is not a second report."""
    row = db.execute(
        "SELECT * FROM reports WHERE agent_id = ? AND head = ? AND summary = ?", (agent.id, head, summary)
    ).fetchone()
    if row is None:
        return None
    check = Ran(row["check_command"], row["check_exit"], row["check_output"]) if row["check_command"] else None
    message = messages.get(db, row["message_id"]) if row["message_id"] else None
    return Report(head, check, message, (), is_new=False)


def _tell_orchestrator(
    db: sqlite3.Connection,
    agent: Agent,
    summary: str,
    work: worktrees.Work,
    check: Ran | None,
    sender: str,
    now: int,
) -> Message | None:
    hub = agents.in_role(db, agent.orchestration_id, ORCHESTRATOR)
    if hub is None or hub.id == agent.id:
        return None
    text = templates.render("completion_report.md", role=agent.role, summary=summary, work=work, check=check)
    return messages.queue(db, hub, text, sender=sender, kind=MessageKind.REPORT, now=now)


def _record(
    db: sqlite3.Connection,
    agent: Agent,
    summary: str,
    work: worktrees.Work,
    check: Ran | None,
    message: Message | None,
    now: int,
) -> None:
    db.execute(
        "INSERT INTO reports (agent_id, summary, branch, head, commits, files, check_command, check_exit, check_output,"
        " message_id, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(agent.id, summary, work.branch, work.head, work.commits, json.dumps(work.files)),
            *((check.command, check.exit_code, check.output) if check else (None, None, None)),
            *(message.id if message else None, now),
        ),
    )
    record(
        db,
        "report.completion",
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        summary=summary,
        commit=work.head,
        commits=work.commits,
        check=check.command if check else None,
    )


def reported_roles(db: sqlite3.Connection, orchestration_id: str) -> set[str]:
    """The roles of a team that have reported completion."""
    rows = db.execute(
        "SELECT DISTINCT agents.role FROM reports JOIN agents ON agents.id = reports.agent_id"
        " WHERE agents.orchestration_id = ?",
        (orchestration_id,),
    )
    return {row[0] for row in rows}


def newest_id(db: sqlite3.Connection) -> int:
    """The id of the newest report of anybody; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM reports").fetchone()[0])


def by_others_since(db: sqlite3.Connection, agent: Agent, after: int) -> tuple[int, int]:
    """How many completions an agent's teammates have reported after the one with an id, and with how many checks."""
    row = db.execute(
        "SELECT count(*), count(check_command) FROM reports JOIN agents ON agents.id = reports.agent_id"
        " WHERE reports.id > ? AND agents.orchestration_id = ? AND agents.id != ?",
        (after, agent.orchestration_id, agent.id),
    ).fetchone()
    return int(row[0]), int(row[1])


def failed_checks_since(db: sqlite3.Connection, agent: Agent, after: int) -> int:
    """How many checks of an agent's teammates have failed after the event with an id."""
    found = events(db, orchestration=agent.orchestration_id, kind="report.check_failed", after=after)
    return sum(event.agent_id != agent.id for event in found)


# -- checks --


def _shown_by(
    db: sqlite3.Connection, agent: Agent, found: Orchestration, command: str, seconds: float, now: int
) -> Ran:
    """Run a check. One that fails is an event, and raises `OrchestratorError` with the end of its output."""
    check = commands.run(command, agent.worktree, seconds=seconds)
    if check.exit_code == 0:
        return check
    with writing(db):
        record(
            db,
            "report.check_failed",
            now=now,
            orchestration=found.id,
            agent=agent.id,
            command=check.command,
            exit=check.exit_code,
            output=check.output,
        )
    said = f"; it printed last:\n{check.output}" if check.output else "; it printed nothing"
    raise OrchestratorError(
        f"the check `{check.command}` left with {check.exit_code}, so {agent.role} is not done{said}",
        hint="mend what it shows, commit, and report again",
    )
