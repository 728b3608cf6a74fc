"""Verbs about teams: status, attach, screen, pause, resume, stop."""

from __future__ import annotations

import os

import click

from lib import agents, host, orchestrations
from lib.errors import NotFound, Unavailable, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller, ensure_scheduler
from lib.models import OrchestrationStatus


@cli.verb(main, "status", examples="claude_control.py status\nclaude_control.py status webapp-impl --json")
@click.argument("session", required=False)
@cli.pass_output
def show_status(output: Output, session: str | None) -> None:
    """Show every team and what each agent does now."""
    from lib import daemon, status  # noqa: PLC0415 - the view's own rooms

    desk = caller()
    found = status.snapshot(desk.db, now=host.now_ms(), session=session)
    if session is not None and not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    scheduler = daemon.running(desk.home)
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


@cli.verb(main, examples="claude_control.py pause webapp-impl\nclaude_control.py pause webapp-impl --now")
@click.argument("session", required=False)
@click.option(
    "--now", "at_once", is_flag=True, help="Interrupt whoever is at work instead of waiting for the turn's end."
)
@cli.pass_output
def pause(output: Output, session: str | None, at_once: bool) -> None:
    """Have a team stand still: no message, no check-in and no new turn until it is resumed. Nothing is ended."""
    from lib import pauses  # noqa: PLC0415 - the verbs beside this one need it not

    desk = caller()
    found = orchestrations.get(desk.db, agents.team_of(desk.db, session, desk.agent))
    is_new = pauses.pause(desk.db, found, now=host.now_ms())
    stopped = pauses.interrupt(desk, found, now=host.now_ms()) if at_once else {}
    host.wake(desk.home)
    lines = [f"{found.session} is paused{'' if is_new else ' already'}; claude_control.py resume {found.session}"]
    lines += [f"{role} was interrupted" for role, trouble in stopped.items() if trouble is None]
    lines += [f"{role} may still be at work: {trouble}" for role, trouble in stopped.items() if trouble]
    output.answer("\n".join(lines), {"session": found.session, "new": is_new, "interrupted": stopped})


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

    desk = caller()
    done = stopping.stop(desk.db, desk.tmux, agents.team_of(desk.db, session, desk.agent), now=host.now_ms())
    found, leftovers = done.orchestration, done.leftovers
    problems = {kept.agent.role: kept.problem for kept in done.kept if kept.problem}
    lines = [f"{found.session}: {found.status}; its agents have ended, worktrees and branches stay"]
    for left in leftovers:
        state = f"{left.unmerged} unmerged commits" if left.unmerged else "nothing unmerged"
        lines.append(f"  {left.role:20} {state}{', uncommitted changes' if left.dirty else ''}  {left.worktree}")
    lines += [f"no snapshot of {role}'s worktree could be taken before: {why}" for role, why in problems.items()]
    if any(left.unmerged for left in leftovers):
        lines.append(f"to see a branch's work: git -C {found.project} log {found.starting_commit[:12]}..BRANCH")
    data = {"session": found.session, "status": found.status, "left": [vars(left) for left in leftovers]}
    refs = {kept.agent.role: kept.taken.snapshot.ref for kept in done.kept if kept.taken}
    output.answer("\n".join(lines), data | {"snapshots": refs, "snapshots_failed": problems})
