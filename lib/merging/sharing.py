"""What git mode `github` adds: pushes at milestones, and a pull request at the end. What fails stops nothing."""

from __future__ import annotations

import sqlite3

from lib import notices, store
from lib.errors import OrchestratorError
from lib.git import remotes
from lib.merging import integrations
from lib.models import GitMode, Orchestration


def push(db: sqlite3.Connection, found: Orchestration, branch: str, *, now: int) -> None:
    """Push a branch of a team in git mode github. A failure is an event, and a notice unless the last was the same."""
    if found.git_mode is not GitMode.GITHUB:
        return
    try:
        remotes.push(found.project, remotes.remote_of(found.project, found.starting_branch), branch)
    except OrchestratorError as error:
        _tell(db, found, f"{branch} was not pushed", error, now)
        return
    with store.writing(db):
        store.record(db, "integration.pushed", now=now, orchestration=found.id, branch=branch)


def open_pull_request(db: sqlite3.Connection, found: Orchestration, *, now: int) -> None:
    """Open the one pull request of a team in git mode github, when gh is installed."""
    state = integrations.of(db, found.id)
    if found.git_mode is not GitMode.GITHUB or found.starting_branch is None or not remotes.has_gh():
        return
    if state is None or state.pull_request is not None:
        return
    try:
        address = remotes.open_pull_request(
            found.project,
            head=found.integration_branch,
            base=found.starting_branch,
            title=found.spec_title,
            body=found.outcome or found.spec_title,
        )
    except OrchestratorError as error:
        _tell(db, found, "no pull request was opened", error, now)
        return
    integrations.note_pull_request(db, found.id, address, now=now)


def _tell(db: sqlite3.Connection, found: Orchestration, what: str, error: OrchestratorError, now: int) -> None:
    sentence = f"{what}: {error.sentence}" + (f"; next: {error.hint}" if error.hint else "")
    last = store.last_event(db, "integration.not_shared", orchestration=found.id)
    with store.writing(db):
        store.record(db, "integration.not_shared", now=now, orchestration=found.id, reason=sentence)
        if last is None or last.data.get("reason") != sentence:
            notices.tell(db, "needs_attention", f"{found.session}: {what}", sentence, now=now)
