"""Bringing together: the starting branch comes into the agents' branches, and conflicts of their merges are settled.

It is done in the agents' worktrees, by git. A snapshot is always taken before. Where git itself cannot go on without
touching what is not committed, nothing is done, and the reason is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from lib import agents, host, messages, orchestrations, safekeeping, templates
from lib.errors import OrchestratorError
from lib.git import merges, removals, standing, worktrees
from lib.git.merges import Merge, Outcome, Strategy
from lib.git.repository import legible
from lib.git.standing import Standing
from lib.judgement import cleaning
from lib.models import LIVE, Agent, MessageKind, Orchestration
from lib.records import dataclass
from lib.safekeeping import Kept
from lib.store import last_event, record, writing

#: No single question to git takes longer, unless a file system hangs.
_GIT_SECONDS = 60.0
#: A checkout of many files, or a rebase of many commits.
_MERGE_SECONDS = 600.0
_MOST_COMMITS = 10
_SENDER = "scheduler"
#: Whose lines a strategy takes, in the words of a message.
SIDES = {
    Strategy.OURS: "the lines of the agent's branch",
    Strategy.THEIRS: "the lines of what came in",
    Strategy.UNION: "the lines of both",
}


class Result(StrEnum):
    """What became of one agent's worktree."""

    UP_TO_DATE = "up_to_date"
    BROUGHT_IN = "brought_in"
    CONFLICT = "conflict"
    REFUSED = "refused"
    NOTHING_TO_SETTLE = "nothing_to_settle"
    SETTLED = "settled"
    PARTLY_SETTLED = "partly_settled"


@dataclass(frozen=True)
class Done:
    """What was done in a worktree, or why not. `snapshot` names what was there before.

    `files` are those in conflict, or that were settled; `left` those that stay in conflict, `by_hand` those that the
    agent had settled. `commits` is how many came in, `head` what the branch stands on now.
    """

    agent: Agent
    result: Result
    reason: str | None = None
    head: str | None = None
    commits: int = 0
    files: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    snapshot: str | None = None


# -- the starting branch --


@dataclass(frozen=True)
class Source:
    """What comes in: the starting branch of a team and the commit that it stands on."""

    branch: str
    commit: str


def source_of(found: Orchestration) -> Source:
    """What there is to bring into a team's branches. Raises `OrchestratorError` when it has no starting branch."""
    if found.starting_branch is None:
        raise OrchestratorError(f"{found.session} started from a detached HEAD: there is no branch to bring in")
    commit = removals.branch_commit(found.project, found.starting_branch)
    if commit is None:
        raise OrchestratorError(f"{found.project} has no branch {found.starting_branch} any more")
    return Source(found.starting_branch, commit)


def _tell_nobody(role: str) -> None:
    """What is done with a worktree, when nobody waits to hear of it."""


def bring_in(
    db: sqlite3.Connection,
    home: Path,
    found: Orchestration,
    *,
    rebase: bool,
    favour: Strategy | None,
    now: int,
    tell: Callable[[str], None] = _tell_nobody,
) -> list[Done]:
    """Bring the starting branch into the branch of every agent of a team, in its worktree.

    A conflict leaves the worktree as it was, unless there is a side to `favour`. What is refused stops no other.
    `tell` hears the target of each agent whose worktree is done.
    Raises `Busy` while another does it, `OrchestratorError` when there is nothing to bring in.
    """
    with _alone(home, found):
        source = source_of(found)
        step = _Step(db, found, source, rebase, favour, now)
        return _each(agents.of_orchestration(db, found.id), step.bring_in, tell)


def _each(team: Sequence[Agent], work: Callable[[Agent], Done], tell: Callable[[str], None]) -> list[Done]:
    done = []
    for agent in team:
        done.append(_tried(agent, work))
        tell(agent.target)
    return done


@dataclass(frozen=True)
class _Step:
    """What happens to each worktree of a team."""

    db: sqlite3.Connection
    found: Orchestration
    source: Source
    rebase: bool
    favour: Strategy | None
    now: int

    def bring_in(self, agent: Agent) -> Done:
        worktree, commit = agent.worktree, self.source.commit
        _check_may_be_changed(agent, standing.look(worktree, seconds=_GIT_SECONDS))
        before = merges.head(worktree)
        if merges.contains(worktree, before, commit):
            return self._catch_up(agent, before) or Done(agent, Result.UP_TO_DATE, head=before)
        if self.rebase:
            _check_may_be_rewritten(self.db, agent, before, commit)
        snapshot = _keep(self.db, agent, f"before {self.source.branch} comes in", self.now)
        self._record(agent, "branch.syncing", before=before, commit=commit, snapshot=snapshot, rebase=self.rebase)
        try:
            merge, settled = self._rebase(worktree) if self.rebase else self._merge(worktree)
        except OrchestratorError as error:
            self._record(agent, "branch.not_synced", reason=error.sentence)
            raise
        if merge.outcome is Outcome.CONFLICT:
            self._record(agent, "branch.not_synced", reason="conflict", files=[*map(legible, merge.conflicts)])
            return Done(agent, Result.CONFLICT, head=before, files=merge.conflicts, snapshot=snapshot)
        return self._tell(agent, before, merge.head, snapshot, settled)

    def _merge(self, worktree: Path) -> tuple[Merge, tuple[str, ...]]:
        """The merge, or how it would end, and which conflicts were settled; a conflict is not left under way."""
        message = f"Merge {self.source.branch} into the work of the team\n"
        merge = merges.merge(worktree, self.source.commit, message=message, seconds=_MERGE_SECONDS)
        if merge.outcome is not Outcome.CONFLICT:
            return merge, ()
        if self.favour is None:
            merges.abort(worktree)
            return merge, ()
        try:
            merges.settle(worktree, merge.conflicts, self.favour)
        except OrchestratorError:
            merges.abort(worktree)
            raise
        return Merge(Outcome.MERGED, merges.conclude(worktree)), merge.conflicts

    def _rebase(self, worktree: Path) -> tuple[Merge, tuple[str, ...]]:
        # Which conflicts a favoured side has settled on the way, git does not say.
        return merges.rebase(worktree, self.source.commit, favour=self.favour, seconds=_MERGE_SECONDS), ()

    def _catch_up(self, agent: Agent, head: str) -> Done | None:
        """Tell of what an earlier run has brought in that was killed before it could tell; None when there is none."""
        last = last_event(
            self.db,
            *("branch.syncing", "branch.synced", "branch.not_synced"),
            orchestration=self.found.id,
            agent=agent.id,
        )
        if last is None or last.kind != "branch.syncing":
            return None
        before, commit = str(last.data["before"]), str(last.data["commit"])
        if merges.contains(agent.worktree, before, commit) or not merges.contains(agent.worktree, head, commit):
            return None
        earlier = replace(self, rebase=bool(last.data["rebase"]))
        return earlier._tell(agent, before, head, str(last.data["snapshot"]), ())

    def _tell(self, agent: Agent, before: str, head: str, snapshot: str, settled: Sequence[str]) -> Done:
        new = worktrees.gain(self.found.project, self.source.commit, since=before, beyond=(), seconds=_GIT_SECONDS)
        text = templates.render(
            "brought_in.md",
            source=self.source.branch,
            branch=agent.branch,
            is_rebased=self.rebase,
            count=len(new.commits),
            commits=[f"{one.id[:10]} {cleaning.clean(one.subject)}" for one in new.commits[:_MOST_COMMITS]],
            stat=cleaning.clean(new.stat),
            settled=[*map(legible, settled)],
            side=SIDES[self.favour] if self.favour else "",
            snapshot=snapshot,
        )
        with writing(self.db):
            messages.queue(self.db, agent, text, sender=_SENDER, kind=MessageKind.NOTICE, now=self.now)
            self._record(
                agent,
                "branch.synced",
                **{"from": self.source.branch, "before": before, "head": head, "commits": len(new.commits)},
                settled=[*map(legible, settled)],
            )
        return Done(
            agent, Result.BROUGHT_IN, head=head, commits=len(new.commits), files=tuple(settled), snapshot=snapshot
        )

    def _record(self, agent: Agent, kind: str, **data: object) -> None:
        _record(self.db, kind, agent, self.now, **data)


def _check_may_be_changed(agent: Agent, stood: Standing) -> None:
    if stood.under_way:
        hint = f"sync_coordinator.py resolve {agent.session} --strategy ours"
        if stood.under_way != "merge":
            hint = f"end it: git -C {agent.worktree} {stood.under_way} --abort"
        raise OrchestratorError(f"a {stood.under_way} is under way in it", hint=hint)
    if stood.branch != agent.branch:
        there = stood.branch or "a detached HEAD"
        raise OrchestratorError(
            f"{there} is checked out there, and not its own branch",
            hint=f"go back: git -C {agent.worktree} switch {agent.branch}",
        )


def _check_may_be_rewritten(db: sqlite3.Connection, agent: Agent, head: str, start: str) -> None:
    """A rebase makes new commits of an agent's own: not of what others have made, and not of what others have."""
    assert agent.orchestration_id
    project = orchestrations.get(db, agent.orchestration_id).project
    mates = [one.branch for one in agents.of_orchestration(db, agent.orchestration_id) if one.id != agent.id]
    others = worktrees.heads(project, *mates, seconds=_GIT_SECONDS).values()
    if merges.count(project, head, without=[start]) != merges.count(project, head, without=[start, *others]):
        raise OrchestratorError(
            "others of the team have commits of it already, or it has theirs, and a rebase would make them twice",
            hint="leave --rebase away",
        )


# -- conflicts --


def settle(
    db: sqlite3.Connection,
    home: Path,
    found: Orchestration,
    strategy: Strategy,
    *,
    now: int,
    tell: Callable[[str], None] = _tell_nobody,
) -> list[Done]:
    """Settle the conflicts of the merges that are under way in a team's worktrees, whoever began them, and commit.

    What an agent has settled by hand stays so. What cannot be settled in this way is named and left, and its merge
    stays under way. `tell` as in `bring_in`. Raises `Busy` while another does it.
    """
    with _alone(home, found):
        team = agents.of_orchestration(db, found.id)
        return _each(team, lambda agent: _settle(db, found, agent, strategy, now), tell)


def _settle(db: sqlite3.Connection, found: Orchestration, agent: Agent, strategy: Strategy, now: int) -> Done:
    worktree = agent.worktree
    stood = standing.look(worktree, seconds=_GIT_SECONDS)
    if stood.under_way is None:
        return Done(agent, Result.NOTHING_TO_SETTLE, head=stood.head)
    if stood.under_way != "merge":
        raise OrchestratorError(
            f"a {stood.under_way} is under way in it, and only merges are settled",
            hint=f"end it: git -C {worktree} {stood.under_way} --abort",
        )
    snapshot = _keep(db, agent, "before its conflicts are settled", now)
    by_hand = merges.take_settled(worktree)
    files, left = _settle_each(worktree, merges.conflicts(worktree), strategy)
    head = None if left else merges.conclude(worktree)
    done = Done(
        agent,
        Result.PARTLY_SETTLED if left else Result.SETTLED,
        head=head,
        files=files,
        by_hand=by_hand,
        left=left,
        snapshot=snapshot,
    )
    with writing(db):
        if found.status in LIVE:
            text = _settled_text(done, strategy)
            messages.queue(db, agent, text, sender=_SENDER, kind=MessageKind.NOTICE, now=now)
        named = {name: [*map(legible, getattr(done, name))] for name in ("files", "by_hand", "left")}
        _record(db, "branch.settled", agent, now, strategy=strategy, head=head, snapshot=snapshot, **named)
    return done


def _settle_each(worktree: Path, paths: Sequence[str], strategy: Strategy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What could be settled, and what not."""
    settled, left = [], []
    for path in paths:
        try:
            merges.settle(worktree, [path], strategy)
            settled.append(path)
        except OrchestratorError:
            left.append(path)
    return tuple(settled), tuple(left)


def _settled_text(done: Done, strategy: Strategy) -> str:
    return templates.render(
        "settled.md",
        side=SIDES[strategy],
        files=[*map(legible, done.files)],
        by_hand=[*map(legible, done.by_hand)],
        left=[*map(legible, done.left)],
        head=(done.head or "")[:10],
        snapshot=done.snapshot,
    )


# -- of both --


def _alone(home: Path, found: Orchestration) -> AbstractContextManager[int]:
    return host.lock(home / "locks" / f"sync-{found.id}.lock", sentence=f"{found.session} is just being synchronised")


def _tried(agent: Agent, step: Callable[[Agent], Done]) -> Done:
    try:
        return step(agent)
    except OrchestratorError as error:
        return Done(agent, Result.REFUSED, reason=f"{error.sentence}; {error.hint}" if error.hint else error.sentence)
    except OSError as error:
        return Done(agent, Result.REFUSED, reason=str(error))


def _keep(db: sqlite3.Connection, agent: Agent, why: str, now: int) -> str:
    """Take a snapshot of a worktree. Returns its name."""
    taken = safekeeping.take(agent, why=why, now=now)
    safekeeping.note(db, Kept(agent, taken), now=now)
    return taken.snapshot.name


def _record(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    with writing(db):
        record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)
