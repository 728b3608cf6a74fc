"""The errand of the criteria: their checks are run on a commit, in a clean worktree of ours, and a completion that
waits for them is settled.

Nothing of an agent's worktree counts but what it has committed. Each result is recorded as soon as it is there, so that
a run which is started again does the rest.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from lib import commands, config, criteria, errands, host, orchestrations, reports, store
from lib.commands import Ran
from lib.config import ProjectSettings
from lib.criteria import Criterion
from lib.errors import OrchestratorError
from lib.git import merges, removals
from lib.merging import checks, scratch
from lib.models import LIVE, Orchestration, OrchestrationStatus
from lib.records import dataclass


@dataclass(frozen=True)
class _Bench:
    """What one run works with."""

    db: sqlite3.Connection
    found: Orchestration
    place: Path
    settings: ProjectSettings


def run(home: Path, orchestration_id: str) -> None:
    """Check what is to be checked, and settle what waits for it. Raises `Busy` when another is at it.

    What keeps it from working is recorded, and tried again later; after some tries a person is told.
    """
    with errands.working(home, criteria.errand(orchestration_id)):
        db = store.connect(home)
        found = orchestrations.get(db, orchestration_id)
        asked = criteria.judging_of(db, found.id)
        if asked is None or found.status not in LIVE:
            return
        if asked.failures >= criteria.MOST_FAILURES:
            _give_up(db, found, asked.trouble or "the errand was ended again and again")
            return
        criteria.begin_judging(db, found.id, now=host.now_ms())
        try:
            settings = config.load_project(found.project)
            _work(_Bench(db, found, scratch.place_of_checks(home, found.id), settings), asked)
        except OrchestratorError as error:
            criteria.note_trouble(db, found.id, error.sentence, now=host.now_ms())
            raise
        criteria.end_judging(db, asked)


def _work(bench: _Bench, asked: criteria.Judging) -> None:
    scratch.remove(bench.found.project, bench.place)  # of a run that was killed after its last check
    if waiting := reports.waiting(bench.db, bench.found.id):
        tree = merges.tree(bench.found.project, waiting.head)
        stands = criteria.standing(bench.db, bench.found.id, tree, after=waiting.after_check)
        _check(bench, waiting.head, tree, stands.unanswered)
        reports.settle(bench.db, waiting, tree, now=host.now_ms())
    if asked.progress > asked.done and _is_live(bench):
        commit = removals.branch_commit(bench.found.project, bench.found.integration_branch)
        commit = commit or bench.found.starting_commit
        tree = merges.tree(bench.found.project, commit)
        _check(bench, commit, tree, criteria.lacking(bench.db, bench.found.id, tree, after=asked.fresh_after))


def _is_live(bench: _Bench) -> bool:
    return orchestrations.get(bench.db, bench.found.id).status in LIVE


def _check(bench: _Bench, commit: str, tree: str, wanted: Sequence[Criterion]) -> None:
    """Run checks on a commit, each in a checkout as clean as the first finds it."""
    if not wanted:
        return
    with scratch.worktree(bench.found.project, bench.place, commit) as checkout:
        for one in wanted:
            if not _is_live(bench):
                return
            scratch.reset(checkout, commit)
            began = time.monotonic()
            ran = _run(checkout, one.command or "", bench.settings)
            took = round((time.monotonic() - began) * 1000)
            criteria.add_check(bench.db, one, ran, commit=commit, tree=tree, duration_ms=took, now=host.now_ms())


def _run(checkout: Path, command: str, settings: ProjectSettings) -> Ran:
    """Run the project's setup, then a check; a setup that fails is why the check does."""
    environment = {"CI": "true"}
    for setup in settings.setup:
        seconds = settings.setup_timeout_seconds
        ran = commands.run(setup, checkout, seconds=seconds, environment=environment, output_bytes=checks.LOG_BYTES)
        if ran.exit_code:
            said = f"the setup `{setup}` left with {ran.exit_code}, so the check was not run\n{ran.output}".strip()
            return Ran(command, ran.exit_code, said)
    seconds = settings.check_timeout_seconds
    return commands.run(command, checkout, seconds=seconds, environment=environment, output_bytes=checks.LOG_BYTES)


def _give_up(db: sqlite3.Connection, found: Orchestration, trouble: str) -> None:
    """The criteria cannot be checked: a person is told when a completion waits for that."""
    if reports.waiting(db, found.id):
        outcome = f"the criteria cannot be checked: {trouble}; next: claude_control.py criteria check {found.session}"
        status = OrchestrationStatus.NEEDS_ATTENTION
        orchestrations.set_status(db, found.id, status, now=host.now_ms(), outcome=outcome)
    # The last time: whoever is killed before it tells nothing twice.
    criteria.begin_judging(db, found.id, now=host.now_ms())
