"""What auto_orchestrate.py does and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lib import analysis, config, host, launch, orchestrations, planning, service, status, store
from lib.analysis import Asked
from lib.claude import installed
from lib.errors import NotFound, Usage
from lib.front import plans, progress
from lib.front.cli import Output
from lib.git import worktrees
from lib.judgement import specs
from lib.models import GitMode, Orchestration, Program
from lib.records import dataclass
from lib.spending import outlooks
from lib.tmux import Tmux


@dataclass(frozen=True)
class Request:
    """The options of auto_orchestrate.py."""

    project: str | None = None
    specs: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    add_roles: tuple[str, ...] = ()
    team_type: str | None = None
    plan: str | None = None
    size: str | None = None
    agent: str | None = None
    git_mode: str | None = None
    no_ai: bool = False
    new_project: bool = False
    force: bool = False
    batch: bool = False
    batch_file: str | None = None
    again: bool = False
    priority: int | None = None
    tags: tuple[str, ...] = ()
    budget: int | None = None
    fleet: bool = False
    label: str | None = None
    resume: bool = False
    unattended: bool = False
    status_only: bool = False
    dry_run: bool = False
    check_spec: bool = False

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


def orchestrate(output: Output, home: Path, cwd: Path, request: Request) -> None:
    """Launch, resume or show. Raises `Usage` when the options contradict each other."""
    if request.resume or request.status_only:
        _resume(output, home, cwd, request)
    else:
        if request.unattended:
            raise Usage("--unattended goes with --resume")
        _launch(output, home, cwd, request)


def _launch(output: Output, home: Path, cwd: Path, request: Request) -> None:
    if not request.specs:
        raise Usage("name a spec with --spec", hint="try it without one: auto_orchestrate.py --demo")
    spec_path = planning.path_of(cwd, request.specs[0]).absolute()
    if not spec_path.exists():
        raise NotFound(f"no spec at {spec_path}")
    project = planning.project_of(cwd, request.project) if request.project else worktrees.project_root(spec_path)
    launch_spec(output, home, request, project=project, spec_path=spec_path)


def launch_spec(
    output: Output,
    home: Path,
    request: Request,
    *,
    project: Path,
    spec_path: Path,
    spec: specs.Spec | None = None,
    first: Sequence[str] = (),
    more: Mapping[str, object] | None = None,
) -> None:
    """Launch a team for a spec, or show what that would do. `spec` is what was read of it already.

    `first` are lines that come before the answer, and `more` belongs to its data.
    """
    settings = config.load()
    program = Program(request.agent) if request.agent else settings.agent
    tmux = Tmux.from_environment()
    tmux.check()
    stage = planning.Stage(home, tmux, settings)
    db = store.connect(home)

    def decide(asked: Asked | None = None) -> planning.Plan:
        return planning.decide(
            db,
            stage,
            project=project,
            spec_path=spec_path,
            spec=spec,
            program=program,
            now=host.now_ms(),
            roles=request.roles,
            add_roles=request.add_roles,
            team_type=request.team_type,
            size=request.size,
            team_plan=request.plan,
            git_mode=GitMode(request.git_mode) if request.git_mode else None,
            asked=asked,
            is_only_shown=request.dry_run,
        )

    # First without the analysis: what would stop the launch is told before a model is asked.
    decided = decide()
    installation = None if request.dry_run else launch.check(db, stage, decided.orchestration)
    # Then anew: an answer takes its time.
    decided = decide(_asked(output, stage, decided, request))
    if request.dry_run:
        seen = outlooks.of_launch(db, len(decided.agents), settings.budget, now=host.now_ms())
        output.answer(
            plans.plan_text(decided, [one.sentence for one in seen]),
            plans.plan_data(decided) | {"outlook": [one.as_data() for one in seen]},
        )
        return
    start_team(output, stage, decided, installation)
    found = orchestrations.get(db, decided.orchestration.id)
    data = {**status.as_data([status.of(db, found)])[0], **plans.analysis_data(decided.asked), **(more or {})}
    output.answer("\n".join([*first, _how_to_go_on(found)]), data)


def _asked(output: Output, stage: planning.Stage, decided: planning.Plan, request: Request) -> Asked:
    """What a model makes of the spec, or why there is nothing: that never stops a launch."""
    found = decided.orchestration
    if why := analysis.left_out(stage.settings, found.program, use_ai=not request.no_ai):
        return Asked(left_out=why)
    seconds = stage.settings.analysis.timeout_seconds
    with progress.waiting(output, f"Claude Code reads the spec, for {seconds:g} s at most"):
        asked = analysis.for_launch(
            stage.settings,
            stage.home,
            project=found.project,
            spec_text=decided.spec.text,
            team=decided.team.roles if request.roles or request.team_type else (),
            also=request.add_roles,
        )
    if asked.failure:
        output.say(f"the spec is not analysed, and rules choose the team: {asked.failure}")
    return asked


def start_team(
    output: Output, stage: planning.Stage, decided: planning.Plan, installation: installed.Installation | None = None
) -> None:
    """Launch a decided plan with the scheduler at its side, showing how it goes."""
    db = store.connect(stage.home)
    if decided.orchestration.program is Program.REHEARSAL:
        output.say("rehearsal: these agents are stand-ins; no model is asked and nothing is spent")
    if decided.asked.found:
        output.say("\n".join(["analysis:", *(f"  {line}" for line in plans.analysis_lines(decided.asked.found))]))
    output.say(f"team: {', '.join(decided.team.roles)} ({decided.team.reason})")
    if decided.asked.found:
        output.say("\n".join(plans.team_lines(decided.team)))
    project = decided.orchestration.project
    try:
        with progress.shown(output, decided.team.roles) as report:
            launch.launch(db, stage, decided, progress=report, installation=installation)
    except KeyboardInterrupt:
        if orchestrations.live_in(db, project):
            output.say(f"what stands stays; go on with: auto_orchestrate.py --project {project} --resume")
        raise
    if sentence := service.ensure(stage.home):
        output.say(sentence)


def _resume(output: Output, home: Path, cwd: Path, request: Request) -> None:
    if request.specs:
        raise Usage("--resume goes on with the recorded spec; leave --spec out")
    project = planning.project_of(cwd, request.project) if request.project else worktrees.project_root(cwd)
    if request.status_only:
        _show(output, home, project)
        return
    tmux = Tmux.from_environment()
    tmux.check()
    stage = planning.Stage(home, tmux, config.load())
    db = store.connect(home)
    with progress.shown(output, _roles(stage, project)) as report:
        found = launch.resume(db, stage, project, progress=report, is_unattended=request.unattended)
    if sentence := service.ensure(stage.home):
        output.say(sentence)
    output.answer(_how_to_go_on(found), status.as_data([status.of(db, found)])[0])


def _roles(stage: planning.Stage, project: Path) -> list[str]:
    db = store.connect(stage.home)
    found = orchestrations.live_in(db, project)
    return [agent.role for agent in status.of(db, found).agents] if found else []


def _show(output: Output, home: Path, project: Path) -> None:
    if not (home / "orchestrator.db").exists():
        raise NotFound(f"{project} has no orchestration", hint="auto_orchestrate.py --spec SPEC")
    db = store.connect(home, read_only=True)
    found = orchestrations.live_in(db, project) or orchestrations.latest_in(db, project)
    if found is None:
        raise NotFound(f"{project} has no orchestration", hint="auto_orchestrate.py --spec SPEC")
    one = status.of(db, found)
    output.answer(status.as_text([one], now=host.now_ms()), status.as_data([one])[0])


def _how_to_go_on(found: Orchestration) -> str:
    return "\n".join(
        (
            f"{found.session} is {found.status}: {found.spec_title}",
            f"  look:    claude_control.py attach {found.session}",
            "  watch:   claude_control.py status",
            f'  talk:    send-claude-message.sh {found.session}:orchestrator "..."',
            f"  resume:  auto_orchestrate.py --project {found.project} --resume",
            f"  stop:    claude_control.py stop {found.session}",
        )
    )
