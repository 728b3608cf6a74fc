"""One snapshot of everything, for every view: from the store and one look at tmux."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from lib import agents, criteria, dependencies, holds, messages, orchestrations, reports
from lib.looks import Context, LastCommit, Looks, Seen
from lib.merging import candidates, integrations
from lib.models import (
    LIVE,
    Agent,
    AgentState,
    CandidateStatus,
    DeliveryStatus,
    Message,
    MessageKind,
    Orchestration,
    Program,
)
from lib.records import dataclass

#: How long an orchestration that has ended is still shown.
SHOWN_AFTER_END_MS = 24 * 3600 * 1000

#: What a person is told of a candidate beside its agent.
CANDIDATES: dict[str | None, str] = {
    CandidateStatus.QUEUED: "waits to be merged",
    CandidateStatus.MERGING: "is being merged",
    CandidateStatus.CONFLICT: "went back: conflict",
    CandidateStatus.RED: "went back: the check is red",
}


#: How much of a message says what an agent works on.
_LONGEST_LINE = 160


@dataclass(frozen=True)
class Received:
    """The message that an agent works on, or has worked on last: its first line, from whom, and since when (UTC ms)."""

    message: int
    sender: str
    text: str
    since: int | None


@dataclass(frozen=True)
class AgentStatus:
    """One agent now. `held` says what keeps it from new work, None when nothing does, and `held_until` when that ends.

    It is in its state `since` (UTC ms; None when that is not known). `waiting` counts the messages that have not
    arrived; `seen_at` is its last hook (UTC ms). `candidate` is what became of the commit that it has offered last,
    None before it has offered one. `context` and `commit` are there when somebody has looked for them (`looks.py`).
    """

    id: int
    target: str
    role: str
    window: int
    state: AgentState
    since: int | None
    works_on: Received | None
    context: Context | None
    commit: LastCommit | None
    held: str | None
    held_until: int | None
    waiting: int
    reported: bool
    waits_for: tuple[str, ...]
    candidate: str | None
    seen_at: int | None
    worktree: str
    branch: str
    pane_id: str | None
    pid: int | None
    epoch: int


@dataclass(frozen=True)
class OrchestrationStatus:
    """One orchestration now."""

    id: str
    session: str
    project: str
    spec: str
    title: str
    program: str
    status: str
    outcome: str | None
    starting_branch: str | None
    integration_branch: str
    delivery: str
    delivery_outcome: str | None
    merge_trouble: str | None
    commits_unseen: str | None  # why the last commits of its agents could not be looked at
    criteria: criteria.Counts
    waits_for: tuple[str, ...]  # the criteria that decide on the Orchestrator's report
    created_at: int
    updated_at: int
    agents: tuple[AgentStatus, ...]


def snapshot(
    db: sqlite3.Connection, *, now: int, session: str | None = None, looks: Looks | None = None
) -> list[OrchestrationStatus]:
    """The live orchestrations, and those that ended within a day; of one session when named.

    With `looks` each agent's context and last commit are looked for as well.
    """
    found = [one for one in orchestrations.recent(db, since=now - SHOWN_AFTER_END_MS) if session in (None, one.session)]
    return [of(db, one, now=now, looks=looks) for one in found]


def of(
    db: sqlite3.Connection, found: Orchestration, *, now: int = 0, looks: Looks | None = None
) -> OrchestrationStatus:
    """The snapshot of one orchestration; `now` is only for `looks`."""
    team = agents.of_orchestration(db, found.id)
    seen = looks.of(found, team, now=now) if looks else {}
    return _orchestration(db, found, team, seen, looks.trouble(found) if looks else None)


def as_data(snapshots: list[OrchestrationStatus]) -> list[dict[str, object]]:
    """The same for --json."""
    return [asdict(one) for one in snapshots]


def as_text(snapshots: list[OrchestrationStatus], *, now: int) -> str:
    """The same as plain lines that fit a terminal of 100 columns."""
    if not snapshots:
        return "no team is running: auto_orchestrate.py --spec SPEC, or --demo"
    return "\n\n".join(_team_text(one, now) for one in snapshots)


def _team_text(one: OrchestrationStatus, now: int) -> str:
    label = "  (rehearsal)" if one.program == Program.REHEARSAL else ""
    lines = [f"{one.session}: {one.status}{label}  {one.title}", f"  project {one.project}"]
    if one.outcome:
        lines.append(f"  outcome {one.outcome}")
    if one.delivery_outcome:
        lines.append(f"  work    {one.delivery_outcome}")
    elif one.merge_trouble:
        lines.append(f"  work    is not merged now: {one.merge_trouble}")
    elif one.delivery == DeliveryStatus.DUE:
        lines.append("  work    on its way to the starting branch")
    if one.criteria.total:
        lines.append(f"  {one.criteria}")
    if one.waits_for:
        lines.append(f"  report  of the Orchestrator waits for {', '.join(one.waits_for)}")
    for agent in one.agents:
        seen = f"heard from {ago(now - agent.seen_at)} ago" if agent.seen_at else "not heard from yet"
        lines.append(f"  {agent.window:>2} {agent.role:20} {agent.state:9} {', '.join([seen, *notes(agent)])}")
    return "\n".join(lines)


def notes(agent: AgentStatus) -> list[str]:
    """What else a person is told of an agent, in a few words each."""
    found = [agent.held] if agent.held else []
    found += [f"context {agent.context.share:.0%} full"] if agent.context and agent.context.share >= 0.5 else []
    found += [f"{agent.waiting} waiting"] if agent.waiting else []
    found += ["reported done"] if agent.reported else []
    found += [CANDIDATES[agent.candidate]] if agent.candidate in CANDIDATES else []
    found += [f"waits for {', '.join(agent.waits_for)}"] if agent.waits_for else []
    return found


def ago(milliseconds: int) -> str:
    """A duration in the two units that matter: `42 s`, `7 min`, `3 h 5 min`, `2 d 4 h`."""
    seconds = max(0, milliseconds) // 1000
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _works_on(found: Message | None) -> Received | None:
    if found is None:
        return None
    if found.kind is MessageKind.BRIEFING:
        return Received(found.id, found.sender, "its briefing", found.acknowledged_at)
    first = next((line.strip() for line in found.body.splitlines() if line.strip()), "")
    text = first if len(first) <= _LONGEST_LINE else f"{first[: _LONGEST_LINE - 3]}..."
    return Received(found.id, found.sender, text, found.acknowledged_at)


def _orchestration(
    db: sqlite3.Connection, found: Orchestration, team: list[Agent], seen: dict[int, Seen], commits_unseen: str | None
) -> OrchestrationStatus:
    reported = reports.reported_roles(db, found.id)
    waits = dependencies.of_orchestration(db, found.id)
    offered, state = candidates.last_of_each(db, found.id), integrations.of(db, found.id)
    shown = []
    for agent in team:
        hold, one = holds.of(db, agent), seen.get(agent.id, Seen())
        shown.append(
            AgentStatus(
                id=agent.id,
                target=agent.target,
                role=agent.role,
                window=agent.window,
                state=holds.state_of(db, agent),
                since=agents.state_since(agent),
                works_on=_works_on(messages.newest_arrived(db, agent.id)),
                context=one.context,
                commit=one.commit,
                held=hold.why if hold else None,
                held_until=hold.until if hold else None,
                waiting=messages.count_pending(db, agent.id),
                reported=agent.role in reported,
                waits_for=dependencies.awaited(waits, agent.role),
                candidate=offered[agent.id].status if agent.id in offered else None,
                seen_at=agent.last_hook_at,
                worktree=str(agent.worktree),
                branch=agent.branch,
                pane_id=agent.pane_id,
                pid=agent.process.pid if agent.process else None,
                epoch=agent.epoch,
            )
        )
    return OrchestrationStatus(
        id=found.id,
        session=found.session,
        project=str(found.project),
        spec=str(found.spec_path),
        title=found.spec_title,
        program=found.program,
        status=found.status,
        outcome=found.outcome,
        starting_branch=found.starting_branch,
        integration_branch=found.integration_branch,
        delivery=state.delivery if state else DeliveryStatus.NOT_YET,
        delivery_outcome=state.outcome if state else None,
        merge_trouble=state.trouble if state else None,
        commits_unseen=commits_unseen,
        criteria=criteria.counts(db, found.id),
        waits_for=reports.awaited(db, found.id) if found.status in LIVE else (),
        created_at=found.created_at,
        updated_at=found.updated_at,
        agents=tuple(shown),
    )
