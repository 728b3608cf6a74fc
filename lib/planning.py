"""Planning a launch: everything is decided, and told when it cannot be done, before anything is made."""

from __future__ import annotations

import functools
import shutil
import sqlite3
import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from lib import (
    agents,
    analysis,
    boundaries,
    checkins,
    config,
    criteria,
    dependencies,
    named_locks,
    news,
    orchestrations,
    preparing,
    relations,
    store,
    templates,
)
from lib.analysis import Asked
from lib.claude import installed
from lib.config import Settings, config_path
from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.git import repository, worktrees
from lib.judgement import analyses, cleaning, specs, teams
from lib.judgement.analyses import Analysis
from lib.models import GitMode, Orchestration, OrchestrationStatus, Program
from lib.records import dataclass
from lib.spending import budgets
from lib.tmux import Tmux
from lib.together import handing_over

#: The first part of every branch that a team works on.
_BRANCHES = "orchestration"
#: The id in a plan that is only shown: a launch mints its own.
SHOWN_ID = "<id>"


@dataclass(frozen=True)
class Plan:
    """Everything that a launch would do, decided before anything is done."""

    orchestration: Orchestration
    spec: specs.Spec
    team: teams.Team
    agents: tuple[agents.NewAgent, ...]
    asked: Asked


@dataclass(frozen=True)
class Stage:
    """Where a launch happens."""

    home: Path
    tmux: Tmux
    settings: Settings


def path_of(cwd: Path, named: str) -> Path:
    """A path as a person writes it, seen from `cwd`. Raises `NotFound` for the home of an unknown user."""
    try:
        return cwd / Path(named).expanduser()
    except RuntimeError:  # pathlib's word for ~somebody who is not known here
        raise NotFound(f"{named}: there is no such user") from None


def project_of(cwd: Path, named: str) -> Path:
    """The repository that a person names: by a path, or by a folder of PROJECTS_DIR."""
    path = path_of(cwd, named)
    projects = config.projects_dir()
    if not path.exists() and "/" not in named and projects and (projects / named).exists():
        path = projects / named
    return worktrees.project_root(path)


def read_spec(path: Path) -> specs.Spec:
    """Read a spec file. Raises `NotFound` or `OrchestratorError` with a sentence that names it."""
    return specs.parse(spec_content(path), path)


def spec_content(path: Path) -> bytes:
    """What is in a spec file, up to one byte more than a spec may have. Raises as `read_spec`."""
    try:
        if not path.exists():
            raise NotFound(f"no spec at {path}")
        if not path.is_file():  # a pipe would be waited for
            raise OrchestratorError(f"the spec {path} is not a file")
        with path.open("rb") as file:
            return file.read(specs.MAXIMUM_BYTES + 1)
    except OSError as error:
        raise OrchestratorError(f"the spec {path} cannot be read: {error.strerror}", hint=f"ls -l {path}") from None


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
    git_mode: GitMode | None = None,
    spec: specs.Spec | None = None,
    add_roles: Sequence[str] = (),
    asked: Asked | None = None,
    is_only_shown: bool = False,
) -> Plan:
    """Decide everything about a launch; changes nothing. Raises what would stop the launch.

    Without a `git_mode` the project's own setting decides. `spec` is what `spec_path` held when it was read; without
    it the file is read now. `asked` is what came of the analysis. A plan that `is_only_shown` has no id of its own,
    since nothing could be found by it later.
    """
    check_names(project, spec_path.resolve())
    spec = spec or read_spec(spec_path)
    asked = asked or Asked()
    team = choose_team(
        stage.settings,
        spec.text,
        project,
        roles=roles,
        team_type=team_type,
        size=size,
        team_plan=team_plan,
        add_roles=add_roles,
        found=asked.found,
    )
    if "integration" in team.roles:
        raise OrchestratorError("no role can be called integration: its branch is where all work is brought together")
    _check_prerequisites(team.roles)
    if found := orchestrations.live_in(db, project):
        raise orchestrations.already_running(found, project)
    named_locks.check_free(stage.home, project)
    start = check_project(project)
    orchestration_id = SHOWN_ID if is_only_shown else orchestrations.mint_id()
    branches = f"{_BRANCHES}/{orchestration_id}-{specs.slug(spec_path.stem, longest=30)}"
    config_dir = installed.rehearsal(stage.home).config_dir if program is Program.REHEARSAL else installed.config_dir()
    orchestration = Orchestration(
        id=orchestration_id,
        project=project,
        session=_free_session(db, stage.tmux, f"{specs.slug(project.name)}-impl"),
        spec_path=spec_path.resolve(),
        spec_title=cleaning.clean(spec.title).strip() or spec_path.stem,
        spec_text=spec.text,
        status=OrchestrationStatus.STARTING,
        program=program,
        config_dir=config_dir,
        starting_branch=start.branch,
        starting_commit=start.commit,
        branches=branches,
        git_mode=git_mode or GitMode(config.load_project(project).git_mode),
        messages_per_minute=stage.settings.messages_per_minute,
        unattended=False,
        outcome=None,
        created_at=now,
        updated_at=now,
    )
    preparing.check_leases(config.load_project(project).lease)
    boundaries.read_openings(config.policy_path())
    folder, registered = worktrees.folder_of(project), worktrees.worktrees(project)
    new = tuple(
        agents.NewAgent(
            role=role,
            window=window,
            worktree=_free_worktree(folder, role, orchestration_id, registered),
            branch=f"{branches}/{role}",
            conversation_id=str(uuid.uuid4()),
        )
        for window, role in enumerate(team.roles)
    )
    return Plan(orchestration, spec, team, new, asked)


def choose_team(
    settings: Settings,
    spec_text: str,
    project: Path | None,
    *,
    roles: Sequence[str] = (),
    team_type: str | None = None,
    size: str | None = None,
    team_plan: str | None = None,
    most: int | None = None,
    add_roles: Sequence[str] = (),
    found: Analysis | None = None,
) -> teams.Team:
    """The team for a spec in a project, which is None when it is not made yet.

    What an analysis has `found` chooses the roles, unless a person has named roles or a type. Raises `Usage` for a
    role or type that is none, listing what is valid.
    """
    known, types = templates.roles(), templates.team_types()
    _check_settings(settings, list(known))
    is_said = bool(roles or team_type)
    plans = templates.plans() if team_plan else {}
    choose = functools.partial(
        teams.choose,
        spec_text,
        known_roles=list(known),
        types=types,
        plans=plans,
        team_type=team_type,
        size=size,
        plan=team_plan,
        files=() if is_said or project is None else repository.tracked_files(project),
        needs={role.name: role.needed_for for role in known.values() if role.needed_for},
        most=most,
    )
    team = choose(roles=roles)
    if found and not is_said:
        caps = (most, plans[team_plan].agents if team_plan else None, teams.SIZES["large"])
        picked = analyses.team(
            found, team.roles, types[team.kind].roles, most=min(cap for cap in caps if cap), size=size
        )
        team = _explained(choose(roles=picked), team, found, size=size, team_plan=team_plan)
    if add_roles:
        larger = choose(roles=(*team.roles, *add_roles))
        whys = {role: team.whys.get(role, "added by --add-roles") for role in larger.roles}
        reason = f"{team.reason}, with --add-roles"
        team = replace(team, roles=larger.roles, depends=larger.depends, reason=reason, whys=whys)
    return team


def _explained(
    picked: teams.Team, rules: teams.Team, found: Analysis, *, size: str | None, team_plan: str | None
) -> teams.Team:
    """A team that an analysis has picked, with the why of each role."""
    known = {**rules.whys, **found.roles, teams.ORCHESTRATOR: rules.whys[teams.ORCHESTRATOR]}
    whys = {role: known.get(role, f"code is written in a {rules.kind}") for role in picked.roles}
    said = [
        f"{rules.kind} by the analysis",
        f"{size or found.size} size",
        *([f"plan {team_plan}"] if team_plan else []),
    ]
    return replace(picked, reason=", ".join(said), whys=whys, kind=rules.kind, detection=rules.detection)


def check_project(project: Path) -> worktrees.StartingPoint:
    """Where the work in a project would begin. Raises what would keep a team from working there."""
    start = worktrees.starting_point(project)
    worktrees.check_room(project, worktrees.folder_of(project), _BRANCHES)
    return start


def _check_settings(settings: Settings, known_roles: Sequence[str]) -> None:
    if strange := set(settings.check_in_minutes) - set(known_roles):
        raise OrchestratorError(
            f"{config_path()}: check_in_minutes names {', '.join(sorted(strange))}, which is no role",
            hint=f"valid roles: {', '.join(known_roles)}",
        )


def _check_prerequisites(roles: Sequence[str]) -> None:
    known = templates.roles()
    for role in roles:
        if missing := [name for name in known[role].prerequisites if not shutil.which(name)]:
            raise Unavailable(
                f"the role {role} needs {', '.join(missing)}, which PATH does not have",
                hint="install it, or name the roles without this one: --roles",
            )


def check_names(*paths: Path) -> None:
    """Raises `OrchestratorError` for a path that is no text: the store, tmux and the agents take text."""
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


def _free_worktree(folder: Path, role: str, orchestration_id: str, registered: Collection[Path]) -> Path:
    # An earlier orchestration's worktree may hold work: a new one never takes its place, not even when only git
    # remembers it, since its folder may be on a disk that is not mounted now.
    path = folder / role
    is_taken = path.exists() or path.is_symlink() or path.resolve() in registered
    return folder / f"{role}-{orchestration_id}" if is_taken else path


def record(db: sqlite3.Connection, stage: Stage, decided: Plan) -> None:
    """Write orchestration, agents, check-ins and dependencies in one transaction: from here on it can be resumed."""
    roles = templates.roles()
    now = decided.orchestration.created_at
    with store.writing(db):
        # Again, and in the transaction: who takes the lock from here on looks at the store, and waits for this.
        named_locks.check_free(stage.home, decided.orchestration.project)
        if decided.orchestration.session in orchestrations.sessions(db):
            # Somebody has launched a project of the same name since the plan was made.
            wanted = f"{specs.slug(decided.orchestration.project.name)}-impl"
            named = replace(decided.orchestration, session=_free_session(db, stage.tmux, wanted))
            decided = replace(decided, orchestration=named)
        orchestrations.add(db, decided.orchestration)
        relations.claim(db, decided.orchestration.id, decided.orchestration.project)
        analysis.record(db, decided.orchestration.id, decided.asked, now=now)
        criteria.begin(db, decided.orchestration.id, decided.spec.criteria)
        budgets.begin(db, decided.orchestration.id, stage.settings.budget, now=now)
        for new in decided.agents:
            agent_id = agents.add(db, decided.orchestration, new)
            role = roles[new.role]
            minutes = stage.settings.check_in_minutes.get(new.role, role.check_in_minutes)
            note = templates.render("recurring_check_in.md", role=new.role)
            seen = news.Looking(db).seen(agents.get(db, agent_id)) if role.check_in_if_changed else None
            terms = checkins.Terms(if_changed=role.check_in_if_changed, seen=seen)
            checkins.add(db, agent_id, note, minutes=minutes, now=now, recurring=True, terms=terms)
        dependencies.declare(db, decided.orchestration.id, decided.team.depends)
        lanes = [(new.role, taker) for new in decided.agents for taker in roles[new.role].hands_over_to]
        handing_over.open_lanes(db, decided.orchestration.id, decided.orchestration.starting_commit, lanes)
