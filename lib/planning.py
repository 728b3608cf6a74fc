"""Planning a launch: everything is decided, and told when it cannot be done, before anything is made."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib import agents, checkins, claude, dependencies, orchestrations, specs, store, teams, templates, worktrees
from lib.config import Settings, config_path
from lib.errors import NotFound, OrchestratorError
from lib.models import Orchestration, OrchestrationStatus, Program
from lib.tmux import Tmux

#: The first part of every branch that a team works on.
_BRANCHES = "orchestration"


@dataclass(frozen=True)
class Plan:
    """Everything that a launch would do, decided before anything is done."""

    orchestration: Orchestration
    spec: specs.Spec
    team: teams.Team
    agents: tuple[agents.NewAgent, ...]


@dataclass(frozen=True)
class Stage:
    """Where a launch happens."""

    home: Path
    tmux: Tmux
    settings: Settings


def read_spec(path: Path) -> specs.Spec:
    """Read a spec file. Raises `NotFound` or `OrchestratorError` with a sentence that names it."""
    if not path.exists():
        raise NotFound(f"no spec at {path}")
    if not path.is_file():
        raise OrchestratorError(f"the spec {path} is not a file")
    with path.open("rb") as file:
        return specs.parse(file.read(specs.MAXIMUM_BYTES + 1), path)


def decide(
    db: sqlite3.Connection,
    stage: Stage,
    *,
    project: Path,
    spec_path: Path,
    program: Program,
    now: int,
    roles: Sequence[str] = (),
    team_type: str | None = None,
    size: str | None = None,
    team_plan: str | None = None,
    spec: specs.Spec | None = None,
) -> Plan:
    """Decide everything about a launch; changes nothing. Raises what would stop the launch.

    `spec` is what `spec_path` held when it was read; without it the file is read now.
    """
    _check_names(project, spec_path.resolve())
    spec = spec or read_spec(spec_path)
    known_roles = list(templates.roles())
    _check_settings(stage.settings, known_roles)
    team = teams.choose(
        spec.text,
        known_roles=known_roles,
        types=templates.team_types(),
        roles=roles,
        team_type=team_type,
        size=size,
        plan=team_plan,
    )
    if found := orchestrations.live_in(db, project):
        raise orchestrations.already_running(found, project)
    start = worktrees.starting_point(project)
    worktrees.check_room(project, _worktrees_folder(project), _BRANCHES)
    orchestration_id = orchestrations.mint_id()
    config_dir = claude.rehearsal(stage.home).config_dir if program is Program.REHEARSAL else claude.config_dir()
    orchestration = Orchestration(
        id=orchestration_id,
        project=project,
        session=_free_session(db, stage.tmux, f"{specs.slug(project.name)}-impl"),
        spec_path=spec_path.resolve(),
        spec_title=spec.title,
        spec_text=spec.text,
        status=OrchestrationStatus.STARTING,
        program=program,
        config_dir=config_dir,
        starting_branch=start.branch,
        starting_commit=start.commit,
        messages_per_minute=stage.settings.messages_per_minute,
        unattended=False,
        outcome=None,
        created_at=now,
        updated_at=now,
    )
    branches = f"{_BRANCHES}/{orchestration_id}-{specs.slug(spec_path.stem, longest=30)}"
    new = tuple(
        agents.NewAgent(
            role=role,
            window=window,
            worktree=_free_worktree(project, role, orchestration_id),
            branch=f"{branches}/{role}",
            conversation_id=str(uuid.uuid4()),
        )
        for window, role in enumerate(team.roles)
    )
    return Plan(orchestration, spec, team, new)


def _check_settings(settings: Settings, known_roles: Sequence[str]) -> None:
    if strange := set(settings.check_in_minutes) - set(known_roles):
        raise OrchestratorError(
            f"{config_path()}: check_in_minutes names {', '.join(sorted(strange))}, which is no role",
            hint=f"valid roles: {', '.join(known_roles)}",
        )


def _check_names(*paths: Path) -> None:
    # The store, tmux and the agents take text.
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            shown = str(path).encode(errors="backslashreplace").decode()
            raise OrchestratorError(f"the path {shown} is not UTF-8", hint="rename it, then launch again") from None


def _free_session(db: sqlite3.Connection, tmux: Tmux, wanted: str) -> str:
    # A session of that name may be somebody's own, or an ended team's that is still looked at: both stay as they are.
    taken = orchestrations.sessions(db) | {pane.session for pane in tmux.panes()}
    names = (wanted if number == 1 else f"{wanted}-{number}" for number in range(1, 1000))
    return next(name for name in names if name not in taken)


def _free_worktree(project: Path, role: str, orchestration_id: str) -> Path:
    # An earlier orchestration's worktree may hold work: a new one never takes its place.
    folder = _worktrees_folder(project)
    path = folder / role
    return folder / f"{role}-{orchestration_id}" if path.exists() or path.is_symlink() else path


def _worktrees_folder(project: Path) -> Path:
    return project.parent / f"{project.name}-tmux-worktrees"


def record(db: sqlite3.Connection, stage: Stage, decided: Plan) -> None:
    """Write orchestration, agents, check-ins and dependencies in one transaction: from here on it can be resumed."""
    roles = templates.roles()
    now = decided.orchestration.created_at
    with store.writing(db):
        if decided.orchestration.session in orchestrations.sessions(db):
            # Somebody has launched a project of the same name since the plan was made.
            wanted = f"{specs.slug(decided.orchestration.project.name)}-impl"
            named = replace(decided.orchestration, session=_free_session(db, stage.tmux, wanted))
            decided = replace(decided, orchestration=named)
        orchestrations.add(db, decided.orchestration)
        for new in decided.agents:
            agent_id = agents.add(db, decided.orchestration, new)
            minutes = stage.settings.check_in_minutes.get(new.role, roles[new.role].check_in_minutes)
            note = templates.render("recurring_check_in.md", role=new.role)
            checkins.add(db, agent_id, note, minutes=minutes, now=now, recurring=True)
        dependencies.declare(db, decided.orchestration.id, decided.team.depends)
