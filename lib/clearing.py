"""Clearing away the worktrees and branches of ended teams: only with proof that nothing is lost by it."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

from lib import agents, host, orchestrations, safekeeping, store
from lib.errors import Busy, OrchestratorError
from lib.git import holdings, removals, snapshots, worktrees
from lib.git.holdings import Holdings
from lib.git.removals import Ignored
from lib.git.snapshots import Taken
from lib.models import LIVE, Agent, Orchestration
from lib.records import dataclass
from lib.safekeeping import Kept

WHY = "before its worktree and branch are removed"


@dataclass(frozen=True)
class Remains:
    """What an ended agent has left. `commits` are those that the starting branch has not, `uncommitted` files.

    `obstacles` are why it stays; without any it may be removed, once a snapshot holds it.
    """

    agent: Agent
    worktree: Path | None
    branch: str | None
    commits: int = 0
    uncommitted: int = 0
    ignored: tuple[Ignored, ...] = ()
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cleared:
    """What became of the remains of an agent: removed and held by a snapshot, or left, with the reason."""

    remains: Remains
    taken: Taken | None = None
    problem: str | None = None


def remains_of(db: sqlite3.Connection, found: Orchestration, *, ignored_too: bool) -> list[Remains]:
    """What the agents of an ended orchestration have left; nothing is changed.

    Raises `OrchestratorError` when the project cannot be asked.
    """
    team = agents.of_orchestration(db, found.id)
    if not found.project.exists():
        return []
    listed = [_look(db, found, agent, ignored_too=ignored_too)[0] for agent in team]
    return [one for one in listed if one.worktree or one.branch]


def clear(db: sqlite3.Connection, home: Path, remains: Remains, *, ignored_too: bool, now: int) -> Cleared:
    """Remove what an agent has left, after a snapshot of all of it; a look right before decides anew.

    git removes the worktree, by force only when it is as the snapshot holds it. What does not come about is told,
    and stays.
    """
    agent = remains.agent
    assert agent.orchestration_id
    found = orchestrations.get(db, agent.orchestration_id)
    try:
        with host.lock(home / "locks" / f"launch-{found.id}.lock", sentence=f"{found.session} is being launched"):
            return _clear(db, found, agent, ignored_too=ignored_too, now=now)
    except OrchestratorError as error:
        return Cleared(remains, problem=error.sentence)


def _clear(db: sqlite3.Connection, found: Orchestration, agent: Agent, *, ignored_too: bool, now: int) -> Cleared:
    remains, _ = _look(db, found, agent, ignored_too=ignored_too)
    if remains.obstacles:
        return Cleared(remains, problem="; ".join(remains.obstacles))
    if remains.worktree is None and remains.branch is None:
        return Cleared(remains, problem="it is gone already")
    if remains.worktree:
        taken = safekeeping.take(agent, why=WHY, now=now, fresh=True)
    else:
        taken = snapshots.take_branch(
            found.project, orchestration=found.id, role=agent.role, branch=agent.branch, now=now, why=WHY
        )
    safekeeping.note(db, Kept(agent, taken), now=now)
    tip = removals.branch_commit(found.project, agent.branch)
    if remains.worktree:
        _remove_worktree(db, found, agent, taken, ignored_too=ignored_too, now=now)
    if tip:
        _delete_branch(db, found, agent, taken, tip, now=now)
    _delete_integration(db, found, now=now)
    return Cleared(remains, taken)


def _remove_worktree(
    db: sqlite3.Connection, found: Orchestration, agent: Agent, taken: Taken, *, ignored_too: bool, now: int
) -> None:
    again, held = _look(db, found, agent, ignored_too=ignored_too)
    if again.obstacles or held is None or not snapshots.holds(agent.worktree, taken.snapshot, held):
        raise Busy(f"{agent.worktree} has changed since its snapshot was taken", hint="sync_coordinator.py clean")
    removals.remove_worktree(found.project, agent.worktree, force=held.is_dirty)
    if agent.worktree.parent == worktrees.folder_of(found.project):
        with contextlib.suppress(OSError):  # others are in it
            agent.worktree.parent.rmdir()
    _tell(db, "worktree.removed", agent, now, worktree=str(agent.worktree), snapshot=taken.snapshot.ref)


def _delete_branch(
    db: sqlite3.Connection, found: Orchestration, agent: Agent, taken: Taken, tip: str, *, now: int
) -> None:
    if not removals.is_in(found.project, tip, taken.snapshot.ref):
        raise Busy(f"{agent.branch} has moved since its snapshot was taken", hint="sync_coordinator.py clean")
    removals.delete_branch(found.project, agent.branch, tip)
    _tell(db, "branch.removed", agent, now, branch=agent.branch, commit=tip, snapshot=taken.snapshot.ref)


def _delete_integration(db: sqlite3.Connection, found: Orchestration, *, now: int) -> None:
    """The integration branch goes with the last of its team's branches, when the starting branch holds it."""
    branch = found.integration_branch
    tip = removals.branch_commit(found.project, branch)
    team = agents.of_orchestration(db, found.id)
    if tip is None or any(removals.branch_commit(found.project, agent.branch) for agent in team):
        return
    if removals.is_in(found.project, tip, _into(found)):
        removals.delete_branch(found.project, branch, tip)
        with store.writing(db):
            store.record(db, "branch.removed", now=now, orchestration=found.id, branch=branch, commit=tip)


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    with store.writing(db):
        store.record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)


def _look(
    db: sqlite3.Connection, found: Orchestration, agent: Agent, *, ignored_too: bool
) -> tuple[Remains, Holdings | None]:
    """What an agent has left, and what its worktree holds, when there is one that can be read."""
    project, listed = found.project, removals.places(found.project)
    tip = removals.branch_commit(project, agent.branch)
    commits = worktrees.unmerged_commits(project, tip, _into(found)) if tip else 0
    remains = Remains(agent, None, agent.branch if tip else None, commits)
    obstacles = []
    if orchestrations.get(db, found.id).status in LIVE or host.is_alive(agent.process):
        obstacles.append(f"its team still runs: claude_control.py stop {found.session}")
    place = listed.get(agent.worktree.resolve())
    elsewhere = [one for one in listed.values() if one.branch == agent.branch and one is not place]
    obstacles += [f"its branch is checked out in {one.path}" for one in elsewhere]
    held = None
    if place is None or agents.newest_at(db, agent.worktree) != agent.id:
        # Nobody's worktree, or by now a later agent's: only the branch is left of this one.
        if place is not None and place.branch == agent.branch:
            obstacles.append(f"its branch is checked out in {place.path}, which is another agent's now")
    elif place.is_main:
        obstacles.append(f"{place.path} is the project itself")
    else:
        remains = dataclasses.replace(remains, worktree=agent.worktree)
        if place.is_locked:
            obstacles.append(f"its worktree is locked: git -C {project} worktree unlock {agent.worktree}")
        elif not agent.worktree.exists():
            obstacles.append(f"the folder of its worktree is gone: git -C {project} worktree prune")
        else:
            remains, held = _look_inside(found, remains, obstacles, ignored_too=ignored_too)
    return dataclasses.replace(remains, obstacles=tuple(obstacles)), held


def _into(found: Orchestration) -> str:
    """Where an orchestration's work is merged to: its starting branch, while there is one."""
    branch = found.starting_branch
    return (branch and removals.branch_commit(found.project, branch)) or found.starting_commit


def _look_inside(
    found: Orchestration, remains: Remains, obstacles: list[str], *, ignored_too: bool
) -> tuple[Remains, Holdings | None]:
    agent = remains.agent
    try:
        held = holdings.look(agent.worktree, branch=agent.branch, kept_by=snapshots.place(found.id, agent.role))
        ignored = removals.ignored(agent.worktree, found.project)
    except OrchestratorError as error:
        obstacles.append(error.sentence)
        return remains, None
    obstacles += [f"no snapshot can hold {one.name}: {one.why}" for one in held.left_out]
    if ignored and not ignored_too:
        obstacles.append(f"{len(ignored)} ignored, which no snapshot holds: --ignored-too removes them")
    return dataclasses.replace(remains, uncommitted=len(held.changed), ignored=tuple(ignored)), held
