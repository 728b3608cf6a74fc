"""Boundaries: the rules of each agent's worktree, made from its team and the policy; and what its guards have told."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib import config, store, templates
from lib.errors import OrchestratorError
from lib.git import guards
from lib.git.guards import Word
from lib.models import Agent, Event, Orchestration
from lib.together import handing_over

if TYPE_CHECKING:
    from lib.judgement.guarding import Opening

#: What guards tell of that a person may want to read (`claude_control.py audit`).
AUDITED = ("guard.refused", "guard.unverified")


def arm(home: Path, found: Orchestration, agent: Agent) -> None:
    """Guard the worktree of an agent that is about to be started.

    Raises `OrchestratorError` with what is wrong in the policy, or with git's words.
    """
    from lib.judgement import guarding  # noqa: PLC0415 - what only takes a guard's word need not pay for it

    opened = guarding.opened(read_openings(config.policy_path()), agent.role)
    rules = guards.Rules(
        orchestration=found.id,
        role=agent.role,
        branch=agent.branch,
        integration=found.integration_branch,
        free=opened.free,
        forced=opened.forced,
    )
    guards.arm(agent.worktree, rules, home=home, agent_id=agent.id, epoch=agent.epoch)


def lift(team: Collection[Agent]) -> None:
    """Take the guards off the worktrees of a team that has ended."""
    for agent in team:
        with contextlib.suppress(OrchestratorError):  # a folder that is no worktree any more has no guards either
            guards.disarm(agent.worktree, agent_id=agent.id)


def read_openings(path: Path) -> tuple[Opening, ...]:
    """What a policy.yaml opens; nothing without the file. Raises `OrchestratorError` naming the file and the entry."""
    from lib.judgement import guarding  # noqa: PLC0415 - as in `arm`

    if not path.exists():
        return ()
    entries = config.read_yaml(path, hint='any role is "*", in quotes')
    try:
        return guarding.parse((entries or {}).get("git"), roles=templates.role_names())
    except OrchestratorError as error:
        raise OrchestratorError(f"{path}: {error.sentence}", hint=error.hint) from None


def note(db: sqlite3.Connection, agent: Agent, word: Word, *, at: int) -> None:
    """Record what a guard has told; call it in the transaction that takes its word from the spool."""
    if word.kind == "moved":
        handing_over.note_moved(db, agent.id, at=at)
        event, data = "branch.moved", {"old": word.old, "new": word.new}
    else:
        event, data = f"guard.{word.kind}", {"ref": word.ref, "old": word.old, "new": word.new}
    store.record(db, event, now=at, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)


def audit(db: sqlite3.Connection, orchestrations: Sequence[str], *, since: int) -> list[Event]:
    """What guards have refused, and what went around them, in these orchestrations; oldest first."""
    return sorted(
        (
            event
            for one in orchestrations
            for event in store.events(db, orchestration=one, kind=AUDITED, since=since, limit=-1)
        ),
        key=lambda event: event.id,
    )
