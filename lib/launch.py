"""Launching: from a spec to a team that is briefed and working.

Every step is an ensure, so that resuming is launching again and not a second way.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lib import (
    agents,
    checkins,
    claude,
    delivery,
    dependencies,
    host,
    messages,
    orchestrations,
    screens,
    specs,
    store,
    teams,
    templates,
    worktrees,
)
from lib.config import Settings
from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.models import (
    Agent,
    AgentState,
    MessageKind,
    MessageStatus,
    Orchestration,
    OrchestrationStatus,
    Process,
    Program,
)
from lib.tmux import Tmux

#: The first part of every branch that a team works on.
_BRANCHES = "orchestration"

#: How long a launch waits for the acknowledgement of a note to an agent that has come back.
_NOTE_WAIT_SECONDS = 5.0

#: Called with a role (or "team") and what is happening to it.
Progress = Callable[[str, str], None]


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


def plan(
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
) -> Plan:
    """Decide everything about a launch; changes nothing. Raises what would stop the launch."""
    _check_names(project, spec_path.resolve())
    spec = read_spec(spec_path)
    team = teams.choose(
        spec.text,
        known_roles=list(templates.roles()),
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


def launch(db: sqlite3.Connection, stage: Stage, decided: Plan, *, progress: Progress) -> Orchestration:
    """Start a team: recorded first, then brought about. Returns when every agent has acknowledged its briefing."""
    installation = _preflight(stage, decided.orchestration)
    _record(db, stage, decided)
    return bring_about(db, stage, decided.orchestration.id, installation, progress=progress)


def _record(db: sqlite3.Connection, stage: Stage, decided: Plan) -> None:
    """Write orchestration, agents and their check-ins in one transaction."""
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


def resume(db: sqlite3.Connection, stage: Stage, project: Path, *, progress: Progress) -> Orchestration:
    """Bring the live orchestration of a project about again: what stands stays, what is missing is started."""
    found = orchestrations.live_in(db, project)
    if found is None:
        ended = orchestrations.latest_in(db, project)
        raise NotFound(
            f"{project} has no orchestration to resume" + (f": the last one is {ended.status}" if ended else ""),
            hint=f"auto_orchestrate.py --project {project} --spec SPEC",
        )
    return bring_about(db, stage, found.id, _preflight(stage, found), progress=progress)


def _preflight(stage: Stage, found: Orchestration) -> claude.Installation:
    # Agents work in worktrees of the repository: what counts for them is the trust in its first checkout.
    repository = worktrees.main_worktree(found.project)
    return claude.preflight(stage.settings, found.program, home=stage.home, project=repository)


def bring_about(
    db: sqlite3.Connection,
    stage: Stage,
    orchestration_id: str,
    installation: claude.Installation,
    *,
    progress: Progress,
) -> Orchestration:
    """Make what is recorded of an orchestration true: session, worktrees, agents, briefings.

    Raises the first agent's error after all have been tried; nothing is removed, and the orchestration stays as
    recorded, so that resuming goes on where this stopped.
    """
    found = orchestrations.get(db, orchestration_id)
    with host.lock(
        stage.home / "locks" / f"launch-{found.id}.lock",
        sentence=f"{found.session} is being launched or resumed",
    ):
        try:
            _write_spec(stage.home, found)
            worktrees.remember_starting_point(
                found.project, found.id, worktrees.StartingPoint(found.starting_branch, found.starting_commit)
            )
            _ensure_session(stage, found, progress)
            _bring_all_up(db, stage, found, installation, progress)
            stage.tmux.remove_placeholder(found.session)
            orchestrations.set_status(db, found.id, OrchestrationStatus.RUNNING, now=host.now_ms())
        except (OrchestratorError, OSError, sqlite3.Error) as error:
            raise _with_resume_hint(error, stage, found) from error
    return orchestrations.get(db, found.id)


def _bring_all_up(
    db: sqlite3.Connection,
    stage: Stage,
    found: Orchestration,
    installation: claude.Installation,
    progress: Progress,
) -> None:
    team = agents.of_orchestration(db, found.id)
    git_lock = threading.Lock()
    with ThreadPoolExecutor(len(team)) as pool:
        tasks = [pool.submit(_bring_up, stage, found, agent, team, installation, progress, git_lock) for agent in team]
    errors = [error for task in tasks if (error := task.exception())]
    if errors:
        raise errors[0]


def _with_resume_hint(error: Exception, stage: Stage, found: Orchestration) -> Exception:
    known = error
    if isinstance(error, OSError):  # a write to a full disk names no file
        known = OrchestratorError(f"{error.strerror or error}: {error.filename or stage.home}")
    elif isinstance(error, sqlite3.Error):
        known = store.trouble(error, stage.home) or error
    if isinstance(known, OrchestratorError):
        again = f"auto_orchestrate.py --project {found.project} --resume"
        known.hint = f"{known.hint}; then {again}" if known.hint else again
    return known


def _write_spec(home: Path, found: Orchestration) -> None:
    # The team works from the text that was launched, whatever happens to the user's file meanwhile. Whole or not
    # at all: half of a spec, which a full disk leaves, would be taken for the spec by the next resume.
    path = spec_copy(home, found.id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.write_text(found.spec_text, encoding="utf-8")
    draft.replace(path)


def spec_copy(home: Path, orchestration_id: str) -> Path:
    """Where a team reads its spec."""
    return home / "orchestrations" / orchestration_id / "spec.md"


def _ensure_session(stage: Stage, found: Orchestration, progress: Progress) -> None:
    mark = stage.tmux.orchestration_of(found.session)
    if mark is None:
        stage.tmux.new_session(found.session, orchestration=found.id)
        progress("team", f"session {found.session}")
    elif mark != found.id:
        raise OrchestratorError(
            f"the tmux session {found.session} is not ours",
            hint=f"tmux rename-session -t {found.session} other",
        )
    stage.tmux.set_environment(found.session, claude.passed_environment(stage.settings, os.environ))


def _bring_up(
    stage: Stage,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    installation: claude.Installation,
    progress: Progress,
    git_lock: threading.Lock,
) -> None:
    """Bring one agent to work; runs in a thread of its own, so it has its own connection."""
    db = store.connect(stage.home)
    try:
        with git_lock:  # two `git worktree add` at once contend for the same lock files
            worktrees.ensure(found.project, agent.worktree, agent.branch, found.starting_commit)
        progress(agent.role, "worktree")
        agent, restarted = _ensure_process(db, stage, found, agent, installation)
        progress(agent.role, "started" if restarted else "running")
        _await_ready(stage, agent)
        progress(agent.role, "ready")
        _ensure_briefed(db, stage, found, agent, team, restarted)
        progress(agent.role, "briefed")
    finally:
        db.close()


def _ensure_process(
    db: sqlite3.Connection,
    stage: Stage,
    found: Orchestration,
    agent: Agent,
    installation: claude.Installation,
) -> tuple[Agent, bool]:
    """Have the agent's process run in its window. Returns the agent and whether it was started now."""
    if host.is_alive(agent.process):
        return agent, False
    # A conversation that has a transcript goes on; one that never had a turn cannot be resumed.
    transcript = claude.transcript(agent.config_dir, agent.conversation_id)
    goes_on = transcript is not None
    if transcript:
        for prompt in claude.unread(transcript):
            messages.take_back(db, agent, prompt, now=host.now_ms())
    conversation = agent.conversation_id if goes_on or agent.epoch == 0 else str(uuid.uuid4())
    agent = agents.start_epoch(db, agent.id, conversation_id=conversation)
    with store.writing(db):
        checkins.revive(db, agent.id)
        store.record(
            db,
            "agent.starting",
            now=host.now_ms(),
            orchestration=found.id,
            agent=agent.id,
            epoch=agent.epoch,
            resumed=goes_on,
        )
    role_text = templates.render(
        "role.md",
        role=agent.role,
        role_text=templates.roles()[agent.role].text,
        session=agent.session,
        worktree=agent.worktree,
        branch=agent.branch,
    )
    claude.write_launch_files(agent, home=stage.home, socket=stage.tmux.socket, role_text=role_text)
    pane_id, pid = stage.tmux.new_window(
        agent.session,
        index=agent.window,
        name=agent.role,
        cwd=agent.worktree,
        agent=agent.id,
        argv=claude.launch_command(
            installation, agent, stage.settings, home=stage.home, socket=stage.tmux.socket, resume=goes_on
        ),
        replace=_own_pane(stage.tmux, agent),
    )
    # A process that has ended already is recorded all the same: waiting for it will say how it ended.
    process = host.process(pid) or Process(pid, 0)
    return agents.started(db, agent.id, pane_id=pane_id, process=process), True


def _own_pane(tmux: Tmux, agent: Agent) -> str | None:
    """The pane of this agent, if it is still there: of a process that has ended, or of one that nobody recorded.

    The second is what a launch leaves that was killed between the two; nothing has been said to it yet.
    """
    panes = (pane for pane in tmux.panes() if pane.session == agent.session and pane.agent == str(agent.id))
    return next((pane.id for pane in panes), None)


def _await_ready(stage: Stage, agent: Agent) -> None:
    """Wait until the agent shows its composer. Raises `Unavailable` with what it shows instead."""
    assert agent.pane_id
    deadline = time.monotonic() + stage.settings.launch_timeout_seconds
    while time.monotonic() < deadline:
        if agents.state_of(agent) is AgentState.GONE:
            raise Unavailable(f"{agent.role} ended at its start: {_last_words(stage.tmux, agent)}")
        if agents.state_of(agent) is not AgentState.STARTING:
            screen = screens.read(stage.tmux.look(agent.pane_id).screen)
            if screen.kind is screens.ScreenKind.COMPOSER or agents.state_of(agent) is AgentState.WORKING:
                return
        time.sleep(0.02)
    raise Unavailable(
        f"{agent.role} was not ready after {stage.settings.launch_timeout_seconds:.0f} s;"
        f" its window shows: {_last_words(stage.tmux, agent)}",
        hint=f"look: tmux attach -t {agent.target}",
    )


def _last_words(tmux: Tmux, agent: Agent) -> str:
    try:
        # With the lines above: remain-on-exit scrolls the screen by one, and the first line may be the only one.
        text = tmux.run("capture-pane", "-p", "-S", "-20", "-t", agent.pane_id or "")
    except NotFound:
        return "its window is gone"
    # The line that remain-on-exit adds says only that the pane is dead.
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Pane is dead")]
    return lines[-1] if lines else "nothing"


def _ensure_briefed(
    db: sqlite3.Connection,
    stage: Stage,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    restarted: bool,
) -> None:
    """Have the briefing acknowledged exactly once; an agent that was interrupted hears that instead."""
    desk = delivery.Desk(db, stage.tmux, stage.home)
    briefing = messages.briefing_of(db, agent.id)
    knows = claude.transcript(agent.config_dir, agent.conversation_id) is not None
    if briefing and briefing.status is MessageStatus.ACKNOWLEDGED and not knows:
        messages.requeue(db, briefing, agent, "the conversation was lost", now=host.now_ms())
    elif briefing and briefing.status is MessageStatus.ACKNOWLEDGED:
        if restarted:
            messages.queue(
                db,
                agent,
                templates.render("interrupted.md"),
                sender=checkins.SENDER,
                kind=MessageKind.MESSAGE,
                now=host.now_ms(),
            )
            delivery.deliver(desk, agent, wait_seconds=_NOTE_WAIT_SECONDS)
        return
    if briefing is None:
        text = templates.render(
            "briefing.md",
            title=found.spec_title,
            spec=spec_copy(stage.home, found.id),
            role=agent.role,
            worktree=agent.worktree,
            branch=agent.branch,
            starting_branch=found.starting_branch or "(detached HEAD)",
            starting_commit=found.starting_commit,
            session=found.session,
            team=team,
        )
        briefing = messages.queue(db, agent, text, sender=checkins.SENDER, kind=MessageKind.BRIEFING, now=host.now_ms())
    _await_briefed(desk, stage, agent, briefing.id)


def _await_briefed(desk: delivery.Desk, stage: Stage, agent: Agent, message_id: int) -> None:
    deadline = time.monotonic() + stage.settings.launch_timeout_seconds
    while (left := deadline - time.monotonic()) > 0:
        delivery.deliver(desk, agent, until=message_id, wait_seconds=left)
        message = messages.get(desk.db, message_id)
        if message.status is MessageStatus.ACKNOWLEDGED:
            return
        if agents.state_of(agent) is AgentState.GONE:
            raise Unavailable(f"{agent.role} ended before it was briefed: {_last_words(stage.tmux, agent)}")
        time.sleep(0.05)
    raise Unavailable(
        f"{agent.role} has not acknowledged its briefing: {messages.get(desk.db, message_id).reason}",
        hint=f"look: tmux attach -t {agent.target}",
    )
