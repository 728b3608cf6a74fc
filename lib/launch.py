"""Launching: from a spec to a team that is briefed and working.

Every step is an ensure, so that resuming is launching again and not a second way.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from lib import (
    agents,
    analysis,
    boundaries,
    briefing,
    checkins,
    config,
    delivery,
    holds,
    host,
    limits,
    messages,
    orchestrations,
    planning,
    preparing,
    relations,
    status,
    stopping,
    store,
    templates,
    verdicts,
)
from lib.briefing import Places
from lib.claude import installed, starting, transcripts
from lib.errors import Busy, NotFound, OrchestratorError, Unavailable
from lib.git import worktrees
from lib.judgement import framing, meanwhile, screens
from lib.judgement.teams import ORCHESTRATOR
from lib.models import (
    PENDING,
    Agent,
    AgentState,
    Message,
    MessageKind,
    MessageStatus,
    Orchestration,
    OrchestrationStatus,
    Priority,
    Process,
)
from lib.spending import budgets
from lib.tmux import Tmux

#: How long a launch waits for the acknowledgement of a note to an agent that has come back.
_NOTE_WAIT_SECONDS = 5.0

#: More of one kind within an absence are not looked at for the note.
_MOST_EVENTS = 1000


#: Called with a role (or "team") and what is happening to it.
Progress = Callable[[str, str], None]


def launch(
    db: sqlite3.Connection,
    stage: planning.Stage,
    decided: planning.Plan,
    *,
    progress: Progress,
    installation: installed.Installation | None = None,
) -> Orchestration:
    """Start a team: recorded first, then brought about. Returns when every agent has acknowledged its briefing.

    `installation` is what `check` has found. Raises as `check` does.
    """
    installation = installation or check(db, stage, decided.orchestration)
    planning.record(db, stage, decided)
    return bring_about(db, stage, decided.orchestration.id, installation, progress=progress)


def check(db: sqlite3.Connection, stage: planning.Stage, new: Orchestration) -> installed.Installation:
    """Look whether the agents of a new orchestration could begin.

    Raises `Unavailable` with the one thing to do, also when something holds their account until a time.
    """
    installation = preflight(stage, new)
    limits.lift(db, new.config_dir, now=host.now_ms())
    if hold := holds.of_account(db, new.config_dir):
        raise Unavailable(
            f"the account of these agents is {hold.why}: they could not begin",
            hint="queue it, and it starts by itself: scheduler.py --queue-add SPEC PROJECT",
        )
    return installation


def resume(
    db: sqlite3.Connection, stage: planning.Stage, project: Path, *, progress: Progress, is_unattended: bool = False
) -> Orchestration:
    """Bring the live orchestration of a project about again: what stands stays, what is missing is started.

    When nobody watches (`is_unattended`) it is refused with a Claude Code whose probe has failed.
    """
    found = orchestrations.live_in(db, project)
    if found is None:
        ended = orchestrations.latest_in(db, project)
        raise NotFound(
            f"{project} has no orchestration to resume" + (f": the last one is {ended.status}" if ended else ""),
            hint=f"auto_orchestrate.py --project {project} --spec SPEC",
        )
    if found.paused_at is not None:
        raise Unavailable(f"{found.session} is paused by hand", hint=f"claude_control.py resume {found.session}")
    if budget := budgets.that_pauses(db, found.id):
        raise Unavailable(
            f"{found.session} is paused: the budget of {budgets.words(budget)} is used up",
            hint=budgets.remedy(budget, found.session),
        )
    installation = preflight(stage, found)
    if is_unattended:
        verdicts.check_unattended(db, installation)
    if found.status is OrchestrationStatus.NEEDS_ATTENTION:  # a person has come
        limits.lift(db, found.config_dir, now=host.now_ms())
    # Whoever is at it already, such as the scheduler, is waited for: then everything stands, and nothing is made twice.
    wait_seconds = stage.settings.launch_timeout_seconds
    return bring_about(db, stage, found.id, installation, progress=progress, wait_seconds=wait_seconds)


def preflight(stage: planning.Stage, found: Orchestration) -> installed.Installation:
    """Look whether an orchestration's agents would start, and stay. Raises `Unavailable` with the one thing to do."""
    stage.tmux.check_stays()
    # Agents work in worktrees of the repository: what counts for them is the trust in its first checkout.
    repository = worktrees.main_worktree(found.project)
    return installed.preflight(stage.settings, found.program, home=stage.home, project=repository)


def bring_about(
    db: sqlite3.Connection,
    stage: planning.Stage,
    orchestration_id: str,
    installation: installed.Installation,
    *,
    progress: Progress,
    wait_seconds: float = 0.0,
) -> Orchestration:
    """Make what is recorded of an orchestration true: session, worktrees, agents, briefings.

    Raises the first agent's error after all have been tried; nothing is removed, and the orchestration stays as
    recorded, so that resuming goes on where this stopped. Raises `Busy` when another is at it for longer than
    `wait_seconds`.
    """
    found = orchestrations.get(db, orchestration_id)
    lock = stage.home / "locks" / f"launch-{found.id}.lock"
    if wait_seconds and host.is_held(lock):
        progress("team", "waits for another launch or resume of it")
    with host.lock(
        lock,
        wait_seconds=wait_seconds,
        sentence=f"{found.session} is being launched or resumed",
    ):
        orchestrations.check_runs(orchestrations.get(db, found.id))
        if doubt := verdicts.doubt(db, installation):
            progress("team", doubt)
        try:
            _write_spec_and_plan(db, stage.home, found)
            worktrees.remember_starting_point(
                found.project, found.id, worktrees.StartingPoint(found.starting_branch, found.starting_commit)
            )
            _ensure_session(stage, found, progress)
            _tell_of_submodules(found, progress)
            for sentence in relations.of(found.project).missing:
                progress("team", sentence)
            _bring_all_up(db, stage, found, installation, progress)
            stage.tmux.remove_placeholder(found.session)
            orchestrations.set_status(db, found.id, OrchestrationStatus.RUNNING, now=host.now_ms())
        except (OrchestratorError, OSError, sqlite3.Error) as error:
            raise _with_resume_hint(error, stage, found) from error
        finally:
            _end_if_stopped(db, stage, found)
    return orchestrations.get(db, found.id)


def _end_if_stopped(db: sqlite3.Connection, stage: planning.Stage, found: Orchestration) -> None:
    """A team that was stopped meanwhile gets no new agents: whoever stopped it has not seen the last of them."""
    if orchestrations.get(db, found.id).status is OrchestrationStatus.STOPPED:
        stopping.end_processes(db, stage.tmux, found)


def _bring_all_up(
    db: sqlite3.Connection,
    stage: planning.Stage,
    found: Orchestration,
    installation: installed.Installation,
    progress: Progress,
) -> None:
    team = agents.of_orchestration(db, found.id)
    gone = {agent.id for agent in team if agents.state_of(agent) is AgentState.GONE}
    git_lock = threading.Lock()
    with ThreadPoolExecutor(len(team)) as pool:
        tasks = [
            pool.submit(_bring_up, stage, found, agent, team, gone, installation, progress, git_lock) for agent in team
        ]
    errors = [error for task in tasks if (error := task.exception())]
    if errors:
        raise errors[0]


def _with_resume_hint(error: Exception, stage: planning.Stage, found: Orchestration) -> Exception:
    known = error
    if isinstance(error, OSError):  # a write to a full disk names no file
        known = OrchestratorError(f"{error.strerror or error}: {error.filename or stage.home}")
    elif isinstance(error, sqlite3.Error):
        known = store.trouble(error, stage.home) or error
    if isinstance(known, OrchestratorError):
        again = f"auto_orchestrate.py --project {found.project} --resume"
        known.hint = f"{known.hint}; then {again}" if known.hint else again
    return known


def _write_spec_and_plan(db: sqlite3.Connection, home: Path, found: Orchestration) -> None:
    # The team works from the text that was launched, whatever happens to the user's file meanwhile.
    places = Places.of(home, found.id)
    places.spec.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(places.spec, found.spec_text)
    if plan := analysis.of(db, found.id):
        _write(places.plan, analysis.plan_text(plan, [agent.role for agent in agents.of_orchestration(db, found.id)]))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: half of a spec, which a full disk leaves, would be taken for it by the next resume."""
    draft = path.with_suffix(".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _ensure_session(stage: planning.Stage, found: Orchestration, progress: Progress) -> None:
    mark = stage.tmux.orchestration_of(found.session)
    if mark is None:
        stage.tmux.new_session(found.session, orchestration=found.id)
        progress("team", f"session {found.session}")
    elif mark != found.id:
        raise OrchestratorError(
            f"the tmux session {found.session} is not ours",
            hint=f"tmux rename-session -t {found.session} other",
        )
    stage.tmux.set_environment(found.session, starting.passed_environment(stage.settings, os.environ))


def _tell_of_submodules(found: Orchestration, progress: Progress) -> None:
    setup = config.load_project(found.project).setup
    try:
        has_some = worktrees.has_submodules(found.project, found.starting_commit)
    except OrchestratorError:  # a hint less is no reason to leave a team where it is
        return
    if has_some and not any("submodule" in one for one in setup):
        progress(
            "team",
            f"its submodules are empty in worktrees: put `git submodule update --init` under setup: in"
            f" {config.PROJECT_FILE}",
        )


def _bring_up(
    stage: planning.Stage,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    gone: Collection[int],
    installation: installed.Installation,
    progress: Progress,
    git_lock: threading.Lock,
) -> None:
    """Bring one agent to work; runs in a thread of its own, so it has its own connection."""
    db = store.connect(stage.home)
    try:
        with git_lock:  # two `git worktree add` at once contend for the same lock files
            if not agent.worktree.exists():
                preparing.forget(db, agent)
            worktrees.ensure(found.project, agent.worktree, agent.branch, found.starting_commit)
            boundaries.arm(stage.home, found, agent)
        progress(agent.role, "worktree")
        variables = preparing.prepare(db, found, agent, config.load_project(found.project))
        _ensure_briefing(db, stage, found, agent, team)
        agent, restarted = _ensure_process(db, stage, found, agent, team, gone, installation, variables)
        progress(agent.role, "started" if restarted else "running")
        _await_ready(stage, agent)
        progress(agent.role, "ready")
        _ensure_briefed(db, stage, agent)
        hold = holds.of(db, agent)
        progress(agent.role, hold.why if hold else "briefed")
    finally:
        db.close()


def _ensure_process(
    db: sqlite3.Connection,
    stage: planning.Stage,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    gone: Collection[int],
    installation: installed.Installation,
    variables: Mapping[str, str],
) -> tuple[Agent, bool]:
    """Have the agent's process run in its window. Returns the agent and whether it was started now."""
    if host.is_alive(agent.process):
        return agent, False
    _check_own_pane(stage.tmux, agent)
    # A conversation that has a transcript goes on; one that never had a turn cannot be resumed.
    transcript = transcripts.find(agent.config_dir, agent.conversation_id)
    agent = _begin_epoch(db, found, agent, team, gone, transcript)
    role = templates.roles()[agent.role]
    places = Places.of(stage.home, found.id)
    starting.write_launch_files(
        agent,
        home=stage.home,
        socket=stage.tmux.socket,
        role_text=briefing.stable_part(agent, role),
        reminder=briefing.reminder(agent, team, places, has_plan=analysis.of(db, found.id) is not None),
        allow=role.allow,
        deny=role.deny,
    )
    pane_id, pid = stage.tmux.new_window(
        agent.session,
        index=agent.window,
        name=role.window,
        cwd=agent.worktree,
        agent=agent.id,
        argv=starting.launch_command(
            installation,
            agent,
            stage.settings,
            home=stage.home,
            socket=stage.tmux.socket,
            resume=transcript is not None,
            variables=variables,
            tools=role.tools,
        ),
        replace=_own_pane(stage.tmux, agent),
    )
    # A process that has ended already is recorded all the same: waiting for it will say how it ended.
    process = host.process(pid) or host.ended(pid)
    started = _record_start(db, agent, pane_id, process)
    host.wake(stage.home)  # check-ins may be due by that
    return started, True


def _begin_epoch(
    db: sqlite3.Connection,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    gone: Collection[int],
    transcript: Path | None,
) -> Agent:
    """A new epoch of the agent, with a note of what it missed for one whose conversation goes on."""
    if transcript:
        _take_back_what_was_lost(db, agent, transcript)
    conversation = agent.conversation_id if transcript or agent.epoch == 0 else str(uuid.uuid4())
    text = _note(db, found, agent, team, gone, transcript) if transcript else None
    with store.writing(db):
        if transcript:  # hooks of its last moments may have been read since: from the new epoch on none is
            _take_back_what_was_lost(db, agent, transcript)
        note = _leave_note(db, agent, text) if text else None
        agent = agents.start_epoch(db, agent.id, conversation_id=conversation)
        store.record(
            db,
            "agent.starting",
            now=host.now_ms(),
            orchestration=found.id,
            agent=agent.id,
            message=note.id if note else None,
            epoch=agent.epoch,
            resumed=transcript is not None,
        )
    return agent


def _record_start(db: sqlite3.Connection, agent: Agent, pane_id: str, process: Process) -> Agent:
    """An agent is back: until now a check-in that was due could not find it."""
    with store.writing(db):
        checkins.revive(db, agent.id)
        return agents.started(db, agent.id, pane_id=pane_id, process=process)


def _take_back_what_was_lost(db: sqlite3.Connection, agent: Agent, transcript: Path) -> None:
    """Queue again what the agent had acknowledged and does not know: it was killed before it came to it."""
    for prompt in transcripts.unread(transcript):
        messages.take_back(db, agent, prompt, now=host.now_ms())
    # The hook comes 0.1 s before the entry in the transcript.
    last_entry_at = int(transcript.stat().st_mtime * 1000)
    for message in messages.acknowledged_since(db, agent.id, last_entry_at):
        mark = framing.head(message.id, message.sender)
        if not any(mark in prompt for prompt in transcripts.prompts(transcript)):
            framed = framing.frame(message.id, message.sender, message.body)
            messages.take_back(db, agent, framed, now=host.now_ms())


# -- the note to an agent that was interrupted --


def _note(
    db: sqlite3.Connection,
    found: Orchestration,
    agent: Agent,
    team: Sequence[Agent],
    gone: Collection[int],
    transcript: Path,
) -> str | None:
    """What an agent is told when it comes back; None for one that was never briefed: its briefing is to come."""
    first = messages.briefing_of(db, agent.id)
    if first is None or first.status is not MessageStatus.ACKNOWLEDGED:
        return None
    now = host.now_ms()
    since = max(agent.last_hook_at or 0, int(transcript.stat().st_mtime * 1000))
    if earlier := _note_on_its_way(db, agent):
        since = min(since, earlier.queued_at)  # of the time before it, it has not heard either
    return templates.render(
        "interrupted.md",
        away=status.ago(now - since),
        since=datetime.fromtimestamp(since / 1000).strftime("%Y-%m-%d %H:%M"),
        lines=_meanwhile(db, found, agent, team, gone, since),
    )


def _leave_note(db: sqlite3.Connection, agent: Agent, text: str) -> Message:
    """Queue a note in the place of one that has not arrived; call it in the transaction that brings the agent back."""
    now = host.now_ms()
    if earlier := _note_on_its_way(db, agent):
        messages.cancel(db, earlier, agent, "a newer one takes its place", now=now)
    # Before all that waits, and it counts against no rate.
    return messages.queue(
        db, agent, text, sender=checkins.SENDER, kind=MessageKind.MESSAGE, priority=Priority.HIGH, now=now
    )


def _note_on_its_way(db: sqlite3.Connection, agent: Agent) -> Message | None:
    """The note of an agent's last start, while it has not arrived."""
    assert agent.orchestration_id
    start = store.last_event(db, "agent.starting", orchestration=agent.orchestration_id, agent=agent.id)
    note = messages.get(db, start.message_id) if start and start.message_id else None
    return note if note and note.status in PENDING else None


def _meanwhile(
    db: sqlite3.Connection, found: Orchestration, agent: Agent, team: Sequence[Agent], gone: Collection[int], since: int
) -> list[str]:
    events = [
        event
        for kind in meanwhile.KINDS
        for event in store.events(db, orchestration=found.id, kind=kind, since=since, limit=_MOST_EVENTS)
    ]
    return meanwhile.told(
        agent.id,
        roles={mate.id: mate.role for mate in team},
        gone=gone,
        events=events,
        commits=_commits_of_others(found, agent, team, since),
        senders=[message.sender for message in messages.pending(db, agent.id)],
    )


def _commits_of_others(
    found: Orchestration, agent: Agent, team: Sequence[Agent], since: int
) -> list[meanwhile.Commits]:
    # A commit that the Orchestrator has merged by moving its branch forward is its author's, who comes before it.
    known: set[str] = set()
    made = []
    for mate in sorted(team, key=lambda mate: mate.role == ORCHESTRATOR):
        try:
            commits = worktrees.commits_since(found.project, mate.branch, found.starting_commit, since)
        except OrchestratorError:  # a note that tells less is no reason to leave an agent where it is
            continue
        new = [commit for commit in commits if commit.id not in known]
        known |= {commit.id for commit in new}
        if new and mate.id != agent.id:
            made.append(meanwhile.Commits(mate.role, len(new), new[0].id[:7], new[0].subject))
    return made


def _check_own_pane(tmux: Tmux, agent: Agent) -> None:
    """Raises `Busy` when somebody has started a program of their own in an agent's window: it is not ours to end."""
    for pane in tmux.panes():
        is_own = pane.session == agent.session and pane.agent == str(agent.id) and not pane.dead
        if is_own and agent.pane_pid is not None and pane.pid != agent.pane_pid:
            raise Busy(
                f"{pane.command} runs in the window of {agent.target}, and it is not the agent",
                hint="end it, and leave the window",
            )


def _own_pane(tmux: Tmux, agent: Agent) -> str | None:
    """The pane of this agent, if it is still there: of a process that has ended, or of one that nobody recorded.

    The second is what a launch leaves that was killed between the two; nothing has been said to it yet.
    """
    panes = (pane for pane in tmux.panes() if pane.session == agent.session and pane.agent == str(agent.id))
    return next((pane.id for pane in panes), None)


def _await_ready(stage: planning.Stage, agent: Agent) -> None:
    """Wait until the agent shows its composer. Raises `Unavailable` with what it shows instead."""
    assert agent.pane_id
    deadline = time.monotonic() + stage.settings.launch_timeout_seconds
    while time.monotonic() < deadline:
        if agents.state_of(agent) is AgentState.GONE:
            raise Unavailable(f"{agent.role} ended at its start: {stage.tmux.last_words(agent.pane_id)}")
        if agents.state_of(agent) is not AgentState.STARTING:
            screen = screens.read(stage.tmux.look(agent.pane_id).screen)
            if screen.kind is screens.ScreenKind.COMPOSER or agents.state_of(agent) is AgentState.WORKING:
                return
        time.sleep(0.02)
    raise Unavailable(
        f"{agent.role} was not ready after {stage.settings.launch_timeout_seconds:.0f} s;"
        f" its window shows: {stage.tmux.last_words(agent.pane_id)}",
        hint=f"look: tmux attach -t {agent.target}",
    )


def _ensure_briefing(
    db: sqlite3.Connection, stage: planning.Stage, found: Orchestration, agent: Agent, team: Sequence[Agent]
) -> None:
    """Have the briefing queued before there is anybody to get it: whoever delivers to the agent begins with it."""
    if messages.briefing_of(db, agent.id):
        return
    told = briefing.matter(db, found)
    text = briefing.task_part(found, agent, team, Places.of(stage.home, found.id), told)
    with store.writing(db):
        first = messages.queue(db, agent, text, sender=checkins.SENDER, kind=MessageKind.BRIEFING, now=host.now_ms())
        if agent.role == ORCHESTRATOR:
            relations.note_briefed(db, told.bulletins, first.id)


def _ensure_briefed(db: sqlite3.Connection, stage: planning.Stage, agent: Agent) -> None:
    """Have the briefing acknowledged exactly once; an agent that was interrupted hears that instead."""
    desk = delivery.Desk(db, stage.tmux, stage.home)
    first = messages.briefing_of(db, agent.id)
    assert first
    knows = transcripts.find(agent.config_dir, agent.conversation_id) is not None
    if first.status is MessageStatus.ACKNOWLEDGED and not knows:
        messages.requeue(db, first, agent, "the conversation was lost", now=host.now_ms())
    elif first.status is MessageStatus.FAILED:  # without it the agent would never begin, however often it is resumed
        messages.requeue(db, first, agent, "its team is brought about again", now=host.now_ms())
    elif first.status is MessageStatus.ACKNOWLEDGED:
        if note := _note_on_its_way(db, agent):
            delivery.deliver(desk, agent, until=note.id, wait_seconds=_NOTE_WAIT_SECONDS)
        return
    _await_briefed(desk, stage, agent, first.id)


def _await_briefed(desk: delivery.Desk, stage: planning.Stage, agent: Agent, message_id: int) -> None:
    assert agent.pane_id
    deadline = time.monotonic() + stage.settings.launch_timeout_seconds
    while (left := deadline - time.monotonic()) > 0:
        if holds.of(desk.db, agent):  # the scheduler brings it when that is over
            return
        delivery.deliver(desk, agent, until=message_id, wait_seconds=left)
        message = messages.get(desk.db, message_id)
        if message.status is MessageStatus.ACKNOWLEDGED:
            return
        if agents.state_of(agent) is AgentState.GONE:
            raise Unavailable(f"{agent.role} ended before it was briefed: {stage.tmux.last_words(agent.pane_id)}")
        time.sleep(0.05)
    raise Unavailable(
        f"{agent.role} has not acknowledged its briefing: {messages.get(desk.db, message_id).reason}",
        hint=f"look: tmux attach -t {agent.target}",
    )
