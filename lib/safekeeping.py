"""Safekeeping: whose worktree is due for a snapshot, what came of it, and who has not committed for too long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import agents, host, messages, orchestrations, templates
from lib.errors import OrchestratorError
from lib.git import snapshots
from lib.git.snapshots import Snapshot, Taken
from lib.judgement import cleaning
from lib.models import LIVE, Agent, AgentState, MessageKind
from lib.records import dataclass
from lib.store import record, writing

#: How often the worktree of a live agent is looked at.
EVERY_MS = 30 * 60_000
DAY_MS = 24 * 60 * 60_000
SENDER = "scheduler"
_REMINDER = "Your worktree holds work that has not been committed"
#: The errand that does it.
ERRAND = "snapshots"
#: Most of a look is waiting for the disk.
_AT_ONCE = 4
#: No single question to git takes longer, unless a file system hangs or somebody has left a mountain of files.
LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class Kept:
    """What came of a look at an agent's worktree: a snapshot, or a problem, or neither when there is no worktree."""

    agent: Agent
    taken: Taken | None = None
    problem: str | None = None


def next_due(db: sqlite3.Connection, *, now: int) -> int | None:
    """When a worktree is to be looked at, or old snapshots are to be pruned (UTC milliseconds); None for never."""
    dues = [due for due in (_next_look(db, now=now), _next_pruning(db, now=now)) if due is not None]
    return min(dues, default=None)


def _next_look(db: sqlite3.Connection, *, now: int) -> int | None:
    marks = ", ".join("?" * len(LIVE))
    first, last = db.execute(
        "SELECT min(coalesce(looked_at, created_at)), max(looked_at) FROM agents"
        " JOIN orchestrations ON orchestrations.id = orchestration_id"
        f" LEFT JOIN worktree_looks ON agent_id = agents.id WHERE status IN ({marks})",
        LIVE,
    ).fetchone()
    if first is None:
        return None
    # A look that is to come was written before the clock was set back.
    return now if last is not None and host.was_set_back(last, now) else int(first) + EVERY_MS


def _next_pruning(db: sqlite3.Connection, *, now: int) -> int | None:
    pruned_at = db.execute("SELECT pruned_at FROM snapshot_pruning").fetchone()[0]
    if pruned_at is None:
        pruned_at = db.execute("SELECT min(created_at) FROM orchestrations").fetchone()[0]
    if pruned_at is None:
        return None
    return now if host.was_set_back(pruned_at, now) else int(pruned_at) + DAY_MS


def keep(
    db: sqlite3.Connection,
    team: Sequence[Agent],
    *,
    why: str,
    now: int,
    seconds: float = LONGEST_SECONDS,
    tell: Callable[[str], None] | None = None,
) -> list[Kept]:
    """Take a snapshot of the worktree of each of these agents, where there is one.

    `seconds` limits each question to git; `tell` hears the target of each that is done, from any thread. What fails is
    an event, told once for each reason, and stops no other.
    """
    if not team:
        return []

    def look(agent: Agent) -> Kept:
        try:
            kept = Kept(agent, take(agent, why=why, now=now, seconds=seconds) if agent.worktree.exists() else None)
        except (OrchestratorError, OSError) as error:
            kept = Kept(agent, problem=str(error))
        if tell:
            tell(agent.target)
        return kept

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(look, team))
    for kept in found:
        note(db, kept, now=now)
    return found


def keep_live(db: sqlite3.Connection, *, why: str, now: int, tell: Callable[[str], None] | None = None) -> list[Kept]:
    """Take a snapshot of the worktree of every agent whose team is not over, and remind those who do not commit."""
    found = keep(db, agents.live(db), why=why, now=now, tell=tell)
    for kept in found:
        _remind(db, kept, now)
    return found


def _remind(db: sqlite3.Connection, kept: Kept, now: int) -> None:
    """Ask a living agent to commit what it has not committed for as long as a look is away from the next."""
    agent, since = kept.agent, uncommitted_since(db, kept.agent.id)
    if kept.taken is None or since is None or now - since < EVERY_MS or agents.state_of(agent) is AgentState.GONE:
        return
    files = [cleaning.clean(name) for name in kept.taken.held.changed]
    text = templates.render("commit_reminder.md", minutes=(now - since) // 60_000, files=files)
    with writing(db):
        if any(body.startswith(_REMINDER) for body in messages.pending_bodies(db, agent.id, MessageKind.CHECK_IN)):
            return
        message = messages.queue(db, agent, text, sender=SENDER, kind=MessageKind.CHECK_IN, now=now)
        record(db, "agent.reminded", now=now, orchestration=agent.orchestration_id, agent=agent.id, message=message.id)


def take(agent: Agent, *, why: str, now: int, fresh: bool = False, seconds: float = LONGEST_SECONDS) -> Taken:
    """Take a snapshot of an agent's worktree, and record nothing. Raises as `snapshots.take` does."""
    assert agent.orchestration_id
    if not (agent.worktree / ".git").is_file():
        # A folder of its own, or the repository that the place lies in, is not where anybody would look for it.
        raise OrchestratorError(
            f"{agent.worktree} is no worktree any more: it has no .git file",
            hint=f"git worktree repair {agent.worktree}",
        )
    return snapshots.take(
        agent.worktree,
        orchestration=agent.orchestration_id,
        role=agent.role,
        branch=agent.branch,
        now=now,
        why=why,
        fresh=fresh,
        seconds=seconds,
    )


def note(db: sqlite3.Connection, kept: Kept, *, now: int) -> None:
    """Record what came of a look."""
    agent = kept.agent
    with writing(db):
        row = db.execute("SELECT * FROM worktree_looks WHERE agent_id = ?", (agent.id,)).fetchone()
        head = kept.taken.held.head if kept.taken else None
        since = _uncommitted_since(kept.taken, row, now) if kept.taken else None
        db.execute(
            "INSERT OR REPLACE INTO worktree_looks (agent_id, looked_at, head, uncommitted_since, failure)"
            " VALUES (?, ?, ?, ?, ?)",
            (agent.id, now, head, since, kept.problem),
        )
        if kept.taken and kept.taken.is_new:
            snapshot, left_out = kept.taken.snapshot, [vars(one) for one in kept.taken.held.left_out]
            _tell(db, "snapshot.taken", agent, now, ref=snapshot.ref, commit=snapshot.commit, left_out=left_out)
        if kept.problem and (row is None or row["failure"] != kept.problem):
            _tell(db, "snapshot.failed", agent, now, reason=kept.problem)


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)


def _uncommitted_since(taken: Taken, row: sqlite3.Row | None, now: int) -> int | None:
    held = taken.held
    if not held.is_dirty:
        return None
    # While HEAD stays, work that was uncommitted at the last look still is.
    before = row["uncommitted_since"] if row and row["head"] == held.head else None
    return min([one for one in (before, held.changed_at) if one is not None] or [now])


def uncommitted_since(db: sqlite3.Connection, agent_id: int) -> int | None:
    """Since when an agent's worktree has held work that is not committed (UTC milliseconds), as of the last look.

    None when all was committed, or nobody has looked.
    """
    row = db.execute("SELECT uncommitted_since FROM worktree_looks WHERE agent_id = ?", (agent_id,)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def prune(db: sqlite3.Connection, *, days: int, now: int) -> list[Snapshot]:
    """Forget the snapshots that are older than so many days, in every project that is there. Returns them.

    A project that cannot be asked is an event, and stops no other.
    """
    old: list[Snapshot] = []
    for project in orchestrations.projects(db):
        if not project.exists():
            continue
        try:
            old += snapshots.prune(project, before=now - days * DAY_MS)
        except OrchestratorError as error:
            with writing(db):
                record(db, "snapshot.pruning_failed", now=now, project=str(project), reason=str(error))
    with writing(db):
        db.execute("UPDATE snapshot_pruning SET pruned_at = ?", (now,))
        if old:
            record(db, "snapshot.pruned", now=now, refs=[one.ref for one in old])
    return old


def is_pruning_due(db: sqlite3.Connection, *, now: int) -> bool:
    """Whether a day has gone by since the last pruning."""
    due = _next_pruning(db, now=now)
    return due is not None and due <= now


def every(projects: Sequence[Path]) -> tuple[list[tuple[Path, Snapshot]], list[str]]:
    """Every snapshot of the projects that are there, oldest first, with its project; and what could not be read."""
    found: list[tuple[Path, Snapshot]] = []
    problems = []
    for project in projects:
        if project.exists():
            try:
                found += [(project, one) for one in snapshots.every(project)]
            except OrchestratorError as error:
                problems.append(error.sentence)
    return sorted(found, key=lambda pair: (pair[1].at, str(pair[0]), pair[1].ref)), problems


def note_restored(db: sqlite3.Connection, snapshot: Snapshot, path: Path, branch: str, *, now: int) -> None:
    """Record that somebody has made a worktree from a snapshot."""
    of, ref = snapshot.orchestration, snapshot.ref
    with writing(db):
        record(db, "snapshot.restored", now=now, orchestration=of, ref=ref, path=str(path), branch=branch)
