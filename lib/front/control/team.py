"""Verbs about teams: status, attach, screen, answer, pause, resume, stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from lib import agents, host, orchestrations
from lib.errors import NotFound, Unavailable, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller, ensure_scheduler
from lib.models import AgentState, Orchestration, OrchestrationStatus

if TYPE_CHECKING:
    from lib.stopping import Stopped


@cli.verb(main, "status", examples="claude_control.py status\nclaude_control.py status webapp-impl --json")
@click.argument("session", required=False)
@cli.pass_output
def show_status(output: Output, session: str | None) -> None:
    """Show every team and what each agent does now."""
    from lib import service, status  # noqa: PLC0415 - the view's own rooms
    from lib.looks import Looks  # noqa: PLC0415 - as above

    desk = caller()
    found = status.snapshot(desk.db, now=host.now_ms(), session=session, looks=Looks())
    if session is not None and not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    scheduler = service.running(desk.home)
    text = status.as_text(found, now=host.now_ms())
    text += f"\nscheduler: {f'running (pid {scheduler.pid})' if scheduler else 'not running'}"
    data = {"orchestrations": status.as_data(found), "scheduler_pid": scheduler.pid if scheduler else None}
    output.answer(text, data)


@cli.verb(main, examples="claude_control.py attach webapp-impl\nclaude_control.py attach webapp-impl:developer")
@click.argument("target", metavar="[TARGET]", required=False)
def attach(target: str | None) -> None:
    """Look at a team or an agent in your terminal (detach with C-b d)."""
    desk = caller()
    if target and (":" in target or target.startswith("%")):
        agent = agents.resolve(desk.db, desk.tmux, target)
        if agent.pane_id is None:
            raise Unavailable(f"{agent.target} has no window yet", hint="claude_control.py status")
        place = agent.pane_id
    else:
        place = f"={agents.of_orchestration(desk.db, agents.team_of(desk.db, target, None))[0].session}"
    if not desk.tmux.has_target(place):
        raise NotFound(f"the tmux session of {target or place[1:]} is gone", hint="auto_orchestrate.py --resume")
    inside = os.environ.get("TMUX", "").split(",")[0]
    verb = "switch-client" if inside and desk.tmux.is_at(inside) else "attach-session"
    command = desk.tmux.command(verb, "-t", place)
    os.execvp(command[0], command)


@cli.verb(
    main,
    examples="""
    claude_control.py screen webapp-impl:developer
    claude_control.py screen webapp-impl:developer --lines 200
    """,
)
@click.argument("target")
@click.option(
    "--lines", type=click.IntRange(1, 100_000), metavar="N", help="The last N lines, also those scrolled out."
)
@cli.pass_output
def screen(output: Output, target: str, lines: int | None) -> None:
    """Print what an agent's window shows, without going there."""
    desk = caller()
    agent = agents.resolve(desk.db, desk.tmux, target)
    shown = desk.tmux.text(agent.pane_id, agent=agent.id, lines=lines) if agent.pane_id else None
    if shown is None:
        raise NotFound(f"{agent.target} has no window now", hint="claude_control.py status")
    output.answer(shown, {"target": agent.target, "lines": shown.splitlines()})


@cli.verb(
    main,
    examples="""
    claude_control.py answer webapp-impl:developer
    claude_control.py answer webapp-impl:developer 1 --question 3f2a9c0d1e5b7a86
    """,
)
@click.argument("target")
@click.argument("key", required=False)
@click.option(
    "--question", metavar="NAME", help="Which question KEY answers, as it was shown: no other one is answered."
)
@cli.pass_output
def answer(output: Output, target: str, key: str | None, question: str | None) -> None:
    """Show what an agent asks in its window, and answer it with the KEY of a choice."""
    from lib import dialogs  # noqa: PLC0415 - the verbs beside this one need it not

    if (key is None) != (question is None):
        raise Usage("a KEY goes with the --question that it answers", hint=f"claude_control.py answer {target}")
    desk = caller()
    agent = agents.resolve(desk.db, desk.tmux, target)
    if key and question:
        if desk.agent:
            raise Usage(
                f"a person answers what {agent.target} asks, and no agent",
                hint=f"claude_control.py send {agent.target}",
            )
        words = dialogs.answer(desk, agent, question, key, now=host.now_ms())
        output.answer(f"answered {agent.target}: {words}", {"target": agent.target, "choice": words})
        return
    asked = dialogs.shown(desk, agent)
    if asked is None:
        is_asking = agents.state_of(agent) is AgentState.ASKING
        what = "asks what only its window can answer" if is_asking else "asks nothing now"
        raise NotFound(f"{agent.target} {what}", hint=f"claude_control.py attach {agent.target}")
    name = dialogs.name(asked)
    choices = [f"  {one.key}  {one.text}" for one in asked.choices]
    how = f"answer it: claude_control.py answer {agent.target} KEY --question {name}"
    data = {"target": agent.target, "question": name, "text": asked.text, "choices": list(map(vars, asked.choices))}
    output.answer("\n".join([asked.text, *choices, how]), data)


@cli.verb(main, examples="claude_control.py pause webapp-impl\nclaude_control.py pause webapp-impl --now")
@click.argument("session", required=False)
@click.option(
    "--now", "at_once", is_flag=True, help="Interrupt whoever is at work instead of waiting for the turn's end."
)
@click.option("--if-paused", is_flag=True, hidden=True, help="Nothing unless it is paused: for the scheduler's errand.")
@cli.pass_output
def pause(output: Output, session: str | None, at_once: bool, if_paused: bool) -> None:
    """Have a team stand still: no message, no check-in and no new turn until it is resumed. Nothing is ended."""
    from lib import pauses  # noqa: PLC0415 - the verbs beside this one need it not

    desk = caller()
    found = orchestrations.get(desk.db, agents.team_of(desk.db, session, desk.agent))
    if if_paused and found.paused_at is None:  # it was let go on before the errand has begun
        output.answer(f"{found.session} is not paused", {"session": found.session, "new": False, "interrupted": {}})
        return
    is_new = pauses.pause(desk.db, found, now=host.now_ms())
    stopped = _interrupted(output, desk, found) if at_once else {}
    host.wake(desk.home)
    lines = [f"{found.session} is paused{'' if is_new else ' already'}; claude_control.py resume {found.session}"]
    lines += [f"{role} was interrupted" for role, trouble in stopped.items() if trouble is None]
    lines += [f"{role} may still be at work: {trouble}" for role, trouble in stopped.items() if trouble]
    output.answer("\n".join(lines), {"session": found.session, "new": is_new, "interrupted": stopped})


def _interrupted(output: Output, desk: Caller, found: Orchestration) -> dict[str, str | None]:
    from lib import pauses  # noqa: PLC0415 - as in `pause`
    from lib.front import progress  # noqa: PLC0415 - only who waits needs it

    with progress.waiting(output, "whoever is at work is interrupted"):
        return pauses.interrupt(desk, found, now=host.now_ms())


@cli.verb(main, examples="claude_control.py resume webapp-impl")
@click.argument("session", required=False)
@cli.pass_output
def resume(output: Output, session: str | None) -> None:
    """Have a team go on that was paused by hand; what was held meanwhile arrives then."""
    from lib import pauses  # noqa: PLC0415 - the verbs beside this one need it not

    desk = caller()
    team = orchestrations.get(desk.db, agents.team_of(desk.db, session, desk.agent))
    found = pauses.resume(desk.db, team, now=host.now_ms())
    if found is None:
        raise Usage(
            f"{team.session} is not paused by hand: it is {team.status}",
            hint=f"after a crash: auto_orchestrate.py --project {team.project} --resume",
        )
    ensure_scheduler(output, desk)  # somebody has to bring what waits
    host.wake(desk.home)
    still = f": {found.outcome}" if found.status is not OrchestrationStatus.RUNNING and found.outcome else ""
    output.answer(f"{found.session} is {found.status}{still}", {"session": found.session, "status": found.status})


@cli.verb(main, examples="claude_control.py stop webapp-impl")
@click.argument("session", required=False)
@cli.pass_output
def stop(output: Output, session: str | None) -> None:
    """End a team's agents; worktrees and branches stay, and what is unmerged is named."""
    from lib import stopping  # noqa: PLC0415 - asks git, which the other verbs need not
    from lib.front import progress  # noqa: PLC0415 - only who waits needs it

    desk = caller()
    team = agents.team_of(desk.db, session, desk.agent)
    with progress.waiting(output, "snapshots of the worktrees are taken, then the agents are ended"):
        done = stopping.stop(desk.db, desk.tmux, team, now=host.now_ms())
    output.answer("\n".join(_stopped_lines(done)), stopped_data(done))


def _stopped_lines(done: Stopped) -> list[str]:
    found, leftovers = done.orchestration, done.leftovers
    problems = {kept.agent.role: kept.problem for kept in done.kept if kept.problem}
    lines = [f"{found.session}: {found.status}; its agents have ended, worktrees and branches stay"]
    for left in leftovers:
        state = f"{left.unmerged} unmerged commits" if left.unmerged else "nothing unmerged"
        lines.append(f"  {left.role:20} {state}{', uncommitted changes' if left.dirty else ''}  {left.worktree}")
    lines += [f"no snapshot of {role}'s worktree could be taken before: {why}" for role, why in problems.items()]
    if any(left.unmerged for left in leftovers):
        lines.append(f"to see a branch's work: git -C {found.project} log {found.starting_commit[:12]}..BRANCH")
    return lines


def stopped_data(done: Stopped) -> dict[str, Any]:
    """What a stopped team leaves, for --json."""
    return {
        "session": done.orchestration.session,
        "status": done.orchestration.status,
        "left": [vars(left) for left in done.leftovers],
        "snapshots": {kept.agent.role: kept.taken.snapshot.ref for kept in done.kept if kept.taken},
        "snapshots_failed": {kept.agent.role: kept.problem for kept in done.kept if kept.problem},
    }
