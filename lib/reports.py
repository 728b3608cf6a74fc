"""Completion reports: what an agent says is done, with the commit and the check that show it.

The Orchestrator's own report is done when every criterion holds at its commit; until that is known it waits.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence

from lib import agents, commands, criteria, dependencies, messages, orchestrations, templates
from lib.commands import Ran
from lib.errors import OrchestratorError, Usage
from lib.git import merges, worktrees
from lib.judgement import cleaning
from lib.judgement.teams import ORCHESTRATOR
from lib.merging import candidates, integrations
from lib.models import Agent, Message, MessageKind, Orchestration, OrchestrationStatus, Priority
from lib.records import dataclass
from lib.store import events, record, writing

#: How long a check may take unless the report says otherwise.
CHECK_SECONDS = 600.0
#: The sender of what the criteria say to the Orchestrator.
SENDER = "criteria"


@dataclass(frozen=True)
class Report:
    """A completion that is recorded. `is_new` is False when the same was reported before.

    It waits for the criteria `waits_for`: their checks decide whether it is one.
    """

    commit: str
    check: Ran | None
    message: Message | None
    notices: tuple[Message, ...]
    is_new: bool
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiting:
    """The Orchestrator's report of a commit, while criteria are checked there; older checks than this do not count."""

    id: int
    agent_id: int
    summary: str
    branch: str
    head: str
    after_check: int


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
    then all that was offered is delivered. With criteria that have not been checked at its commit it waits for these.
    `caller` is the agent that reports, None a person. `check` is a command line (no shell) that has to succeed in the
    agent's worktree. Raises `OrchestratorError` for another's role, an ended orchestration, no commit since the start,
    a failed check, or a criterion that nothing checks and nobody has closed.
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
    is_whole = agent.role == ORCHESTRATOR
    if is_whole:
        _check_none_is_open(db, found)
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
        if is_whole:
            _check_none_is_open(db, found)
            if waits_for := _unanswered(db, found, work.head):
                _wait(db, agent, summary, work, shown, waits_for, now)
                return Report(work.head, shown, None, (), is_new=True, waits_for=waits_for)
        message = _tell_orchestrator(db, agent, summary, work, shown, sender, now)
        report_id = _record(db, agent, summary, work, shown, message, "done", now)
        notices = _finish(db, agent, _report(db, report_id), now)
    return Report(work.head, shown, message, tuple(notices), is_new=True)


def _finish(db: sqlite3.Connection, agent: Agent, report: sqlite3.Row, now: int) -> list[Message]:
    """What follows from a report that is done. Returns the notices to those who waited for it."""
    record(
        db,
        "report.completion",
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        summary=report["summary"],
        commit=report["head"],
        commits=report["commits"],
        check=report["check_command"],
    )
    candidates.offer(db, agent, report["head"], now=now)
    if agent.role == ORCHESTRATOR:
        assert agent.orchestration_id
        _supersede(db, agent)
        outcome = f"{report['summary']} (commit {report['head'][:12]} on {report['branch']})"
        orchestrations.set_status(db, agent.orchestration_id, OrchestrationStatus.COMPLETED, now=now, outcome=outcome)
        integrations.want_delivery(db, agent.orchestration_id, now=now)
    return dependencies.resolve(db, agent, now=now)


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
        "SELECT * FROM reports WHERE agent_id = ? AND head = ? AND summary = ? AND status IN ('done', 'waiting')",
        (agent.id, head, summary),
    ).fetchone()
    if row is None:
        return None
    check = Ran(row["check_command"], row["check_exit"], row["check_output"]) if row["check_command"] else None
    message = messages.get(db, row["message_id"]) if row["message_id"] else None
    waits_for = awaited(db, agent.orchestration_id or "") if row["status"] == "waiting" else ()
    return Report(head, check, message, (), is_new=False, waits_for=waits_for)


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
    status: str,
    now: int,
) -> int:
    """Write a report; one that was refused, in the same words of the same commit, begins anew. Returns its id."""
    row = db.execute(
        "INSERT INTO reports (agent_id, summary, branch, head, commits, files, check_command, check_exit, check_output,"
        " message_id, status, after_check, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (agent_id, head, summary) DO UPDATE SET status = excluded.status, at = excluded.at,"
        " after_check = excluded.after_check, check_command = excluded.check_command,"
        " check_exit = excluded.check_exit, check_output = excluded.check_output RETURNING id",
        (
            *(agent.id, summary, work.branch, work.head, work.commits, json.dumps(work.files)),
            *((check.command, check.exit_code, check.output) if check else (None, None, None)),
            *(message.id if message else None, status, criteria.newest_check(db), now),
        ),
    ).fetchone()
    return int(row["id"])


def _report(db: sqlite3.Connection, report_id: int) -> sqlite3.Row:
    row: sqlite3.Row = db.execute("SELECT * FROM reports WHERE id = ?", (report_id,)).fetchone()
    return row


# -- criteria --


def _check_none_is_open(db: sqlite3.Connection, found: Orchestration) -> None:
    if left := criteria.open_ids(db, found.id):
        are, it, them = ("is", "it", "it") if len(left) == 1 else ("are", "them", "them")
        raise OrchestratorError(
            f"{', '.join(left)} {are} open: nothing checks {it}, and nobody has closed {them} by hand",
            hint=f'claude_control.py criteria close {" ".join(left)} {found.session} --reason "how it was seen"',
        )


def _unanswered(db: sqlite3.Connection, found: Orchestration, head: str) -> tuple[str, ...]:
    """The criteria that have not held yet at a commit: what failed there before is checked once more."""
    if not criteria.of_orchestration(db, found.id):
        return ()
    tree = merges.tree(found.project, head)
    stands = criteria.standing(db, found.id, tree, after=criteria.newest_check(db))
    return tuple(one.id for one in stands.unanswered)


def _wait(
    db: sqlite3.Connection,
    agent: Agent,
    summary: str,
    work: worktrees.Work,
    check: Ran | None,
    waits_for: Sequence[str],
    now: int,
) -> None:
    assert agent.orchestration_id
    _supersede(db, agent)
    _record(db, agent, summary, work, check, None, "waiting", now)
    criteria.want(db, agent.orchestration_id, now=now)
    record(
        db,
        "report.waiting",
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        summary=summary,
        commit=work.head,
        criteria=list(waits_for),
    )


def _supersede(db: sqlite3.Connection, agent: Agent) -> None:
    db.execute("UPDATE reports SET status = 'superseded' WHERE agent_id = ? AND status = 'waiting'", (agent.id,))


def waiting(db: sqlite3.Connection, orchestration_id: str) -> Waiting | None:
    """The report that waits for the criteria of an orchestration, or None."""
    row = db.execute(
        "SELECT reports.* FROM reports JOIN agents ON agents.id = reports.agent_id"
        " WHERE agents.orchestration_id = ? AND reports.status = 'waiting'",
        (orchestration_id,),
    ).fetchone()
    if row is None:
        return None
    return Waiting(row["id"], row["agent_id"], row["summary"], row["branch"], row["head"], row["after_check"])


def awaited(db: sqlite3.Connection, orchestration_id: str) -> tuple[str, ...]:
    """The criteria that decide on the waiting report of an orchestration; none when no report waits."""
    if waiting(db, orchestration_id) is None:
        return ()
    found = criteria.of_orchestration(db, orchestration_id)
    return tuple(one.id for one in found if one.command and not one.closing)


def settle(db: sqlite3.Connection, one: Waiting, tree: str, *, now: int) -> None:
    """Decide on a report that waits: with every criterion it completes the orchestration, else it is refused.

    It goes on waiting for a check that has not been run. `tree` is its commit's. Another report may have taken its
    place meanwhile, or the orchestration may be over: then nothing is decided.
    """
    agent = agents.get(db, one.agent_id)
    with writing(db):
        found = orchestrations.of_agent(db, agent)
        if waiting(db, found.id) != one or found.status in orchestrations.ENDED:
            return
        stands = criteria.standing(db, found.id, tree, after=one.after_check)
        if stands.failing or stands.open:
            db.execute("UPDATE reports SET status = 'refused' WHERE id = ?", (one.id,))
            _tell_refused(db, agent, one, stands, now)
        elif not stands.unanswered:
            db.execute("UPDATE reports SET status = 'done', at = ? WHERE id = ?", (now, one.id))
            _finish(db, agent, _report(db, one.id), now)


def _tell_refused(db: sqlite3.Connection, agent: Agent, one: Waiting, stands: criteria.Standing, now: int) -> None:
    text = templates.render(
        "criteria_failed.md", commit=one.head, failing=stands.failing, open=stands.open, session=agent.session
    )
    message = messages.queue(db, agent, text, sender=SENDER, kind=MessageKind.NOTICE, priority=Priority.HIGH, now=now)
    left = [criterion.id for criterion, _ in stands.failing] + [criterion.id for criterion in stands.open]
    record(
        db,
        "report.refused",
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        message=message.id,
        commit=one.head,
        criteria=left,
    )


# -- what others ask --


def reported_roles(db: sqlite3.Connection, orchestration_id: str) -> set[str]:
    """The roles of a team that have reported completion."""
    rows = db.execute(
        "SELECT DISTINCT agents.role FROM reports JOIN agents ON agents.id = reports.agent_id"
        " WHERE agents.orchestration_id = ? AND reports.status = 'done'",
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
        " WHERE reports.id > ? AND agents.orchestration_id = ? AND agents.id != ? AND reports.status = 'done'",
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
