"""Draining the queue: the daemon's step, and the errand that brings one entry to a running team."""

from __future__ import annotations

import dataclasses
import functools
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lib import (
    agents,
    analysis,
    config,
    errands,
    holds,
    host,
    launch,
    orchestrations,
    planning,
    stopping,
    store,
    templates,
    verdicts,
)
from lib.agents import NewAgent
from lib.claude import installed
from lib.config import Settings
from lib.errands import Errands
from lib.errors import Busy, OrchestratorError, Unavailable
from lib.fleet import fencing
from lib.git import bundles, worktrees
from lib.judgement import specs
from lib.merging import integrations
from lib.models import (
    AgentState,
    Attempt,
    AttemptOutcome,
    EntryStatus,
    GitMode,
    Hold,
    Orchestration,
    OrchestrationStatus,
    Program,
    QueueEntry,
)
from lib.queue import entries, evidence, research
from lib.store import writing
from lib.tmux import Tmux

#: How far apart two counts of active time may lie; more is a sleep of the machine or a downtime.
_LONGEST_COUNT_MS = 5 * entries.MINUTE_MS
#: How exact the active time is kept.
_COUNT_EVERY_MS = entries.MINUTE_MS


def drain(
    db: sqlite3.Connection, tmux: Tmux, home: Path, running: Errands, settings: Settings, *, now: int
) -> list[int]:
    """Settle what is over, close its windows, and start what may run. Returns when to look again."""
    dues: list[int] = []
    for attempt in entries.open_attempts(db):
        _settle(db, tmux, home, attempt, settings, now)
    for attempt in entries.open_attempts(db):
        dues += _count(db, attempt, settings, now)
    for attempt in entries.not_closed(db):
        dues += _close(db, tmux, home, attempt, settings, now)
    hold = functools.partial(hold_of, db, home, settings, now=now)
    while entries.claim(
        db, now=now, max_concurrent=settings.queue.max_concurrent, is_held=lambda entry: hold(entry) is not None
    ):
        pass
    for attempt in entries.open_attempts(db):
        if attempt.orchestration_id is None:
            _send(db, home, running, attempt, settings, now)
    due = entries.next_due(db)
    return [*dues, due] if due is not None and due > now else dues


def hold_of(db: sqlite3.Connection, home: Path, settings: Settings, entry: QueueEntry, *, now: int) -> Hold | None:
    """What keeps an entry from being started: whatever holds the account that its agents would use, or the fleet."""
    account = holds.of_account(db, installed.config_dir_of(_program(entry, settings), home))
    return account or (fencing.hold_of(db, entry.id, now=now) if entry.of_fleet else None)


def _program(entry: QueueEntry, settings: Settings) -> Program:
    return Program(str(entry.options["agent"])) if entry.options.get("agent") else settings.agent


def errand(entry_id: int) -> str:
    """The name of the errand that launches an entry."""
    return f"queue-{entry_id}"


def _settle(db: sqlite3.Connection, tmux: Tmux, home: Path, attempt: Attempt, settings: Settings, now: int) -> None:
    if attempt.orchestration_id is None:
        return
    found = orchestrations.get(db, attempt.orchestration_id)
    # What comes next in the same project starts from what this one delivers.
    if found.status in orchestrations.ENDED and not integrations.is_delivering(db, found.id):
        if found.status is OrchestrationStatus.FAILED:  # its screens are the best witnesses, and go with its windows
            evidence.keep_screens(db, tmux, home, attempt)
        entries.settle(db, attempt, found, settings.queue, now=now)


def _count(db: sqlite3.Connection, attempt: Attempt, settings: Settings, now: int) -> list[int]:
    """Count the time that a team was at work; one that is over its budget needs attention, and goes on."""
    entry = entries.get(db, attempt.entry_id)
    budget = entry.budget_minutes or settings.queue.budget_minutes
    if budget is None or attempt.orchestration_id is None or attempt.over_budget:
        return []
    found = orchestrations.get(db, attempt.orchestration_id)
    if now - attempt.counted_at >= _COUNT_EVERY_MS or now < attempt.counted_at:
        attempt = entries.count_time(db, attempt, active=_is_active(db, found), longest_ms=_LONGEST_COUNT_MS, now=now)
    if attempt.active_ms >= budget * entries.MINUTE_MS and found.status is OrchestrationStatus.RUNNING:
        with store.writing(db):
            if entries.note_over_budget(db, attempt):
                outcome = f"entry {entry.id} has worked for {budget} minutes, which is its budget; its team goes on"
                orchestrations.set_status(db, found.id, OrchestrationStatus.NEEDS_ATTENTION, now=now, outcome=outcome)
        return []
    return [attempt.counted_at + _COUNT_EVERY_MS]


def _is_active(db: sqlite3.Connection, found: Orchestration) -> bool:
    """Whether a team's clock runs: it should run, somebody of it lives, and nothing holds any of it."""
    if found.status is not OrchestrationStatus.RUNNING:
        return False
    team = agents.of_orchestration(db, found.id)
    if any(holds.of(db, agent) for agent in team):
        return False
    return any(agents.state_of(agent) is not AgentState.GONE for agent in team)


def _close(db: sqlite3.Connection, tmux: Tmux, home: Path, attempt: Attempt, settings: Settings, now: int) -> list[int]:
    """End the processes of a team that is over: at once when it has failed, otherwise after a while to look at it."""
    assert attempt.orchestration_id and attempt.ended_at
    linger = 0 if attempt.outcome is not AttemptOutcome.SUCCEEDED else settings.queue.linger_minutes
    due = attempt.ended_at + round(linger * entries.MINUTE_MS)
    if now < due and not host.was_set_back(attempt.ended_at, now):
        return [due]
    found = orchestrations.get(db, attempt.orchestration_id)
    if tmux.is_attached(found.session) and tmux.orchestration_of(found.session) == found.id:
        return [now + entries.MINUTE_MS]  # somebody looks at it
    stopping.end_processes(db, tmux, found)
    entries.close(db, attempt, now=now)
    return []


def _send(db: sqlite3.Connection, home: Path, running: Errands, attempt: Attempt, settings: Settings, now: int) -> None:
    name = errand(attempt.entry_id)
    if errands.is_at_work(home, name):
        return
    if attempt.launches >= entries.MOST_LAUNCHES:
        said = errands.last_words(home, name)
        reason = f"its launch has ended {attempt.launches} times without a word" + (
            f"; the last was: {said}" if said else ""
        )
        entries.fail(db, attempt, reason, settings.queue, now=now)
        return
    running.start(name, "scheduler.py", "--queue-run", str(attempt.entry_id), "--quiet")


# -- the errand --


def run(home: Path, entry_id: int) -> Orchestration | None:
    """Bring the open attempt of an entry to a running team: research, plan, analysis, record, launch.

    What the entry lacks becomes the attempt's outcome; None when there is nothing to launch, or nothing came of it.
    Raises `Busy` when another process is at it.
    """
    with errands.working(home, errand(entry_id)):
        db = store.connect(home)
        settings = config.load()
        attempt = entries.open_attempt(db, entry_id)
        if attempt is None or attempt.orchestration_id is not None:
            return None
        attempt = entries.begin_launch(db, attempt)
        entry = entries.get(db, entry_id)
        if entry.of_fleet:  # a checkout that was just made: nobody can have told Claude Code yet to trust it
            settings = dataclasses.replace(settings, trust_project=True)
        tmux = Tmux.from_environment()
        stage = planning.Stage(home, tmux, settings)
        try:
            if attempt.number > 1 and attempt.research is None:
                attempt = research.before_attempt(db, stage, entry, attempt, now=host.now_ms())
            decided = _decide(db, stage, entry, attempt)
            installation = launch.preflight(stage, decided.orchestration)
            verdicts.check_unattended(db, installation)
            decided = _analysed(db, stage, entry, attempt, decided)
            # Before the team is recorded: whoever resumes it takes the branches that are there.
            bundles.make_branches(decided.orchestration.project, _begun(entry, attempt, decided.agents))
            with store.writing(db):
                planning.record(db, stage, decided)
                entries.link(db, attempt, decided.orchestration.id, now=host.now_ms())
        except (Busy, Unavailable) as error:
            entries.defer(db, attempt, _in_words(error), now=host.now_ms())
            return None
        except OrchestratorError as error:
            entries.fail(db, attempt, _in_words(error), settings.queue, now=host.now_ms())
            return None
        return launch.bring_about(db, stage, decided.orchestration.id, installation, progress=lambda role, what: None)


def _analysed(
    db: sqlite3.Connection, stage: planning.Stage, entry: QueueEntry, attempt: Attempt, decided: planning.Plan
) -> planning.Plan:
    """The same plan with what the analysis of the spec has come to."""
    options, found = entry.options, decided.orchestration
    if analysis.left_out(stage.settings, found.program, use_ai=not options.get("no_ai")):
        return decided
    asked = analysis.for_launch(
        stage.settings,
        stage.home,
        project=found.project,
        # The original: what agents have said of an earlier attempt must not choose the team.
        spec_text=entry.spec_text,
        team=decided.team.roles if options.get("roles") or options.get("team_type") else (),
        also=_names(options.get("add_roles")),
    )
    return _decide(db, stage, entry, attempt, asked)


def _decide(
    db: sqlite3.Connection,
    stage: planning.Stage,
    entry: QueueEntry,
    attempt: Attempt,
    asked: analysis.Asked | None = None,
) -> planning.Plan:
    stage.tmux.check()
    project = worktrees.project_root(entry.project)
    options = entry.options
    program = _program(entry, stage.settings)
    decided = planning.decide(
        db,
        stage,
        project=project,
        spec_path=entry.spec_path,
        # Title and team are the original's: what research says must not choose them.
        spec=specs.parse(entry.spec_text.encode(), entry.spec_path),
        program=program,
        now=host.now_ms(),
        roles=_names(options.get("roles")),
        add_roles=_names(options.get("add_roles")),
        asked=asked,
        team_type=_text(options.get("team_type")),
        size=_text(options.get("size")),
        team_plan=_text(options.get("plan")),
        git_mode=GitMode(str(options["git_mode"])) if options.get("git_mode") else None,
    )
    given = dataclasses.replace(decided.orchestration, unattended=True, spec_text=_spec_text(entry, attempt))
    return dataclasses.replace(decided, orchestration=given)


def _begun(entry: QueueEntry, attempt: Attempt, team: Sequence[NewAgent]) -> dict[str, str]:
    """The branches of a first attempt on which another host's team has worked, with the commits that came from there.

    A later attempt begins anew, as it does on one machine.
    """
    commits = entry.options.get("begin_from")
    if attempt.number > 1 or not isinstance(commits, dict):
        return {}
    return {one.branch: str(commits[one.role]) for one in team if one.role in commits}


def _spec_text(entry: QueueEntry, attempt: Attempt) -> str:
    """What the team of an attempt reads: the spec, with what others have begun; the enhanced one when there is one."""
    if attempt.spec_path is None:
        begun = entry.options.get("begin_from")
        if attempt.number > 1 or not isinstance(begun, dict):
            return entry.spec_text
        size = len(entry.spec_text.encode())
        return templates.render("begun_elsewhere.md", spec=entry.spec_text, size=size, roles=sorted(begun))
    try:
        return attempt.spec_path.read_bytes().decode()
    except OSError as error:
        raise OrchestratorError(f"its enhanced spec {attempt.spec_path} cannot be read: {error.strerror}") from error


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _in_words(error: OrchestratorError) -> str:
    return f"{error.sentence}; next: {error.hint}" if error.hint else error.sentence


def cancel(
    db: sqlite3.Connection,
    tmux: Tmux,
    home: Path,
    entry_id: int,
    *,
    now: int,
    reason: str = entries.BY_HAND,
) -> tuple[QueueEntry, bool]:
    """End an entry for good, a running one with its team, whose work stays. Returns it, and whether it had a team.

    Raises `Busy` when it is over already.
    """
    with writing(db):
        attempt = entries.open_attempt(db, entry_id)
        gone = entries.cancel(db, entry_id, now=now, reason=reason)
        if attempt and attempt.orchestration_id:
            orchestrations.set_status(db, attempt.orchestration_id, OrchestrationStatus.STOPPED, now=now)
    if attempt and attempt.orchestration_id:
        stopping.end_processes(db, tmux, orchestrations.get(db, attempt.orchestration_id))
        entries.close(db, attempt, now=now)
    host.wake(home)
    return gone, bool(attempt and attempt.orchestration_id)


def status_of(db: sqlite3.Connection, entry: QueueEntry) -> str:
    """An entry's status in words: one that runs may need attention."""
    if entry.status is EntryStatus.RUNNING:
        attempt = entries.open_attempt(db, entry.id)
        if attempt and attempt.orchestration_id:
            found = orchestrations.get(db, attempt.orchestration_id)
            return str(found.status).replace("_", " ")
        return "launching"
    return str(entry.status)
