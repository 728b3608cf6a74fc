"""Delivery: in the end a team's work becomes the starting branch, when that can be done without touching anything else.

The starting branch moves forward only, to the integration or to a clean and checked merge of the two, and only when
nobody has it checked out, or there where it is checked out and nothing stands uncommitted. Otherwise nothing is
changed, and a person is told what to type.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lib import agents, config, host, notices, relations, store
from lib.config import ProjectSettings, Settings
from lib.errors import OrchestratorError
from lib.git import merges, removals, repository, worktrees
from lib.git.merges import Outcome
from lib.git.removals import Place
from lib.judgement import specs
from lib.merging import announcing, candidates, checks, integrations, scratch, sharing
from lib.merging.checks import Verdict
from lib.models import DeliveryStatus, Orchestration
from lib.records import dataclass

_LONGEST_NAMES = 8
_MOST_TRIES = 3


class KeptBack(OrchestratorError):
    """Why the work is not delivered; `hint` is what a person types for it."""


class _MovedMeanwhile(Exception):
    """The starting branch is not any more where it was found."""


@dataclass(frozen=True)
class Delivery:
    """What is delivered: where the starting branch comes from and goes to."""

    branch: str
    before: str
    wanted: str


def deliver(db: sqlite3.Connection, home: Path, found: Orchestration, settings: Settings) -> None:
    """Bring a completed team's integration to its starting branch, or record why not and what to type."""
    sharing.push(db, found, found.integration_branch, now=host.now_ms())
    sharing.open_pull_request(db, found, now=host.now_ms())
    try:
        if not settings.git.deliver:
            raise KeptBack("git.deliver is off", hint=_by_hand(found))
        _check_complete(db, found)
        done = _confirmed(db, found) or _brought(db, home, found)
    except KeptBack as error:
        is_news = settings.git.deliver
        keep_back(db, found, error.sentence, error.hint or "", now=host.now_ms(), is_news=is_news)
        return
    tag = ensure_tag(found.project, f"stable-{specs.slug(found.spec_path.stem, longest=30)}", done.wanted)
    _record(db, found, done, tag)
    sharing.push(db, found, done.branch, now=host.now_ms())


def _check_complete(db: sqlite3.Connection, found: Orchestration) -> None:
    """Raises `KeptBack` while something that was offered is not in the integration."""
    names = {agent.id: agent.role for agent in agents.of_orchestration(db, found.id)}
    for one in candidates.went_back(db, found.id):
        if not merges.contains(found.project, found.integration_branch, one.head):
            raise KeptBack(
                f"{names[one.agent_id]}'s work ({one.head[:12]}) went back and is not in it: {one.reason}",
                hint=f"merge it into {found.integration_branch}, then {_again(found)}",
            )


def _again(found: Orchestration) -> str:
    return f"sync_coordinator.py merge {found.session}"


def _by_hand(found: Orchestration) -> str:
    return f"merge it yourself: git -C {found.project} merge {found.integration_branch}"


def _confirmed(db: sqlite3.Connection, found: Orchestration) -> Delivery | None:
    """The delivery that a run has made which was killed before it could say so."""
    state = integrations.of(db, found.id)
    branch = found.starting_branch
    if state is None or state.wanted is None or state.before is None or branch is None:
        return None
    now = removals.branch_commit(found.project, branch)
    if now is None or not merges.contains(found.project, now, state.wanted):
        return None
    return Delivery(branch, state.before, state.wanted)


def _brought(db: sqlite3.Connection, home: Path, found: Orchestration) -> Delivery:
    """Move the starting branch; when somebody else moves it meanwhile, decide anew. Raises `KeptBack`."""
    for _ in range(_MOST_TRIES):
        with contextlib.suppress(_MovedMeanwhile):
            return _move(db, home, found)
    raise KeptBack(f"{found.starting_branch} does not stand still", hint=_again(found))


def _move(db: sqlite3.Connection, home: Path, found: Orchestration) -> Delivery:
    """Move the starting branch. Raises `KeptBack` and `_MovedMeanwhile` with nothing changed."""
    branch = found.starting_branch
    if branch is None:
        raise KeptBack("the team started from a detached HEAD, so there is no branch for it", hint=_by_hand(found))
    before = removals.branch_commit(found.project, branch)
    if before is None:
        raise KeptBack(f"the starting branch {branch} is gone", hint=_by_hand(found))
    head = removals.branch_commit(found.project, found.integration_branch)
    if head is None:
        raise KeptBack(f"{found.integration_branch} is gone", hint="claude_control.py status")
    _place(found, branch)
    wanted = head if merges.contains(found.project, head, before) else _merged(home, found, before, head)
    place = _place(found, branch)  # again: a check may have taken its time
    integrations.begin_delivery(db, found.id, wanted=wanted, before=before)
    try:
        if place is None:
            why = f"delivery of {found.session}"
            merges.move(found.project, f"refs/heads/{branch}", wanted, before=before, why=why)
        else:
            # No hook of the user's runs here either: nobody is there for what it may ask, and it may take forever. No
            # limit: a git that is killed leaves files half written.
            merges.merge(place.path, wanted, message="", only_fast_forward=True)
    except OrchestratorError as error:
        if removals.branch_commit(found.project, branch) != before:
            raise _MovedMeanwhile from None
        raise KeptBack(error.sentence, hint=_by_hand(found)) from None
    return Delivery(branch, before, wanted)


def _place(found: Orchestration, branch: str) -> Place | None:
    """Where the starting branch is checked out, and clean; None when it is nowhere. Raises `KeptBack`."""
    there = [place for place in removals.places(found.project).values() if place.branch == branch]
    if len(there) > 1:
        raise KeptBack(f"{branch} is checked out in {len(there)} places", hint=_by_hand(found))
    if there and not there[0].path.exists():
        hint = f"forget it: git -C {found.project} worktree prune, then {_again(found)}"
        raise KeptBack(f"{branch} is checked out in {there[0].path}, which is gone", hint=hint)
    for place in there:
        _check_clean(place, found)
    return there[0] if there else None


def _check_clean(place: Place, found: Orchestration) -> None:
    """Raises `KeptBack` when somebody is at work where the starting branch is checked out.

    Files that git does not know may lie there: git itself refuses when one is in the way.
    """
    branch = place.branch
    by_hand = f"merge it: git -C {place.path} merge {found.integration_branch}"
    if doing := merges.under_way(place.path):
        raise KeptBack(f"a {doing} is under way in {place.path}, on {branch}", hint=f"end it, then {by_hand}")
    changed = repository.ask(place.path, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        what = f"{len(changed)} uncommitted change{'' if len(changed) == 1 else 's'}"
        raise KeptBack(f"{place.path} has {what} on {branch}", hint=f"commit, then {by_hand}")


def _merged(home: Path, found: Orchestration, before: str, head: str) -> str:
    """A clean and checked merge of the integration into a starting branch that has moved meanwhile."""
    branch = found.starting_branch
    if not merges.are_related(found.project, before, head):
        raise KeptBack(
            f"{branch} has moved, and has no commit in common with it any more",
            hint=f"join them: git -C {found.project} merge --allow-unrelated-histories {found.integration_branch}",
        )
    with scratch.worktree(found.project, scratch.place(home, found.id), before) as checkout:
        made = merges.merge(checkout, head, message=f"Merge {found.integration_branch}: {found.spec_title}")
        if made.outcome is Outcome.CONFLICT:
            paths = ", ".join(made.conflicts[:_LONGEST_NAMES])
            raise KeptBack(f"{branch} has moved, and is in conflict with it in {paths}", hint=_by_hand(found))
        settings = config.load_project(found.project)
        verdict = checks.weigh(checks.run(checkout, settings), lambda: _verdict_of(checkout, head, settings))
        if not verdict.is_green:
            said = f": {verdict.ran.output[-500:]}" if verdict.ran and verdict.ran.output else ""
            raise KeptBack(f"{branch} has moved, and together they fail: {verdict.why}{said}", hint=_by_hand(found))
        return made.head


def _verdict_of(checkout: Path, commit: str, settings: ProjectSettings) -> Verdict:
    scratch.reset(checkout, commit)
    return checks.run(checkout, settings)


def ensure_tag(project: Path, name: str, commit: str, *, now: int | None = None) -> str:
    """Have a tag of today on a commit, by a name that nobody has; one that is there is never moved."""
    day = datetime.fromtimestamp((host.now_ms() if now is None else now) / 1000, UTC).strftime("%Y-%m-%d")
    for number in range(1, 1000):
        tag = f"{name}-{day}" + (f"-{number}" if number > 1 else "")
        there = _tagged(project, tag)
        if not there:
            merges.move(project, f"refs/tags/{tag}", commit, before=None, why="delivery")
        if there in ("", commit):
            return tag
    raise OrchestratorError(f"{project} has a thousand tags {name}-{day}")


def _tagged(project: Path, tag: str) -> str:
    """The commit that a tag is on; "" when there is no such tag."""
    done = repository.run(project, "rev-parse", "--quiet", "--verify", f"refs/tags/{tag}^{{commit}}")
    return done.stdout.strip()


def _record(db: sqlite3.Connection, found: Orchestration, done: Delivery, tag: str) -> None:
    sentence = f"delivered to {done.branch} as {done.wanted[:12]} ({tag})"
    if left := _never_offered(db, found):
        sentence += f"; not in it, since it was never offered: {', '.join(left)}"
    related = relations.of(found.project)
    change = (
        announcing.change(found, done.branch, done.before, done.wanted) if related.projects or related.absent else None
    )
    now = host.now_ms()
    with store.writing(db):
        integrations.end_delivery(db, found.id, DeliveryStatus.DELIVERED, tag=tag, outcome=sentence)
        store.record(
            db,
            "integration.delivered",
            now=now,
            orchestration=found.id,
            branch=done.branch,
            commit=done.wanted,
            before=done.before,
            tag=tag,
        )
        told = relations.tell(db, change, related.projects, absent=related.absent, now=now) if change else []
        relations.note_missing(db, found.id, related.untold(told), now=now)


def _never_offered(db: sqlite3.Connection, found: Orchestration) -> Sequence[str]:
    """The roles whose branches hold commits that nobody has offered, with how many."""
    left = []
    sent_back = {one.agent_id for one in candidates.went_back(db, found.id)}
    for agent in agents.of_orchestration(db, found.id):
        if agent.id in sent_back or removals.branch_commit(found.project, agent.branch) is None:
            continue
        count = worktrees.unmerged_commits(found.project, agent.branch, found.integration_branch)
        if count:
            left.append(f"{agent.role} ({count} commit{'' if count == 1 else 's'} on {agent.branch})")
    return left


def keep_back(
    db: sqlite3.Connection, found: Orchestration, reason: str, hint: str, *, now: int, is_news: bool = True
) -> None:
    """Record why nothing is delivered, and what to type; a person is told unless they have decided it so."""
    sentence = f"not delivered: {reason}; next: {hint}"
    try:
        left = _never_offered(db, found)
    except OrchestratorError:  # the project may be what cannot be asked
        left = ()
    if left:
        sentence += f"; never offered: {', '.join(left)}"
    with store.writing(db):
        integrations.end_delivery(db, found.id, DeliveryStatus.KEPT_BACK, tag=None, outcome=sentence)
        store.record(db, "integration.kept_back", now=now, orchestration=found.id, reason=reason, hint=hint)
        if is_news:
            notices.tell(db, "needs_attention", f"{found.session}: not delivered", sentence, now=now)
