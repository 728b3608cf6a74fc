"""Verbs about teams: status, attach, stop."""

from __future__ import annotations

import os

import click

from lib import agents, host
from lib.errors import NotFound, Unavailable
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller


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
