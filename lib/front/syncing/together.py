"""Verbs that bring worktrees together: start, sync, resolve, status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lib import agents, config, host, orchestrations, safekeeping, service
from lib.errors import ExitCode, OrchestratorError, Usage
from lib.front import cli, progress
from lib.front.cli import Output
from lib.front.syncing import main
from lib.front.syncing.desk import Desk, desk, of_session, team
from lib.git.merges import Strategy
from lib.git.repository import legible
from lib.models import Orchestration
from lib.together import bringing, radar, sync_status
from lib.together.bringing import Done, Result

MINUTE_MS = 60_000


# -- start --


@cli.verb(
    main,
    examples="""
    sync_coordinator.py start
    """,
)
@cli.pass_output
def start(output: Output) -> int:
    """Have the scheduler run, which brings worktrees together by itself, and say what it does."""
    home = config.state_home()
    said = service.ensure(home)
    process = service.running(home)
    first = said or f"the scheduler runs already (pid {process.pid if process else 'unknown'})"
    deeds = _deeds()
    output.answer(
        "\n".join([first, *(f"  {name:10} {what}" for name, what in deeds.items())]),
        {"running": process is not None, "pid": process.pid if process else None, "does": deeds},
    )
    return ExitCode.DONE if process else ExitCode.NOT_NOW


def _deeds() -> dict[str, str]:
    """What the scheduler does by itself, by the name of each."""
    git, minutes = config.load().git, safekeeping.EVERY_MS // MINUTE_MS
    end = "and delivers it to the starting branch in the end" if git.deliver else "and delivers nothing (git.deliver)"
    return {
        "snapshots": f"of each worktree every {minutes} minutes, kept for {git.snapshot_days} days",
        "radar": f"every {radar.EVERY_MS // 1000} seconds, tells two agents whose work git could not merge",
        "fast lane": "a commit by one role is told to the role that takes its work on, within seconds",
        "merge hub": f"checks what roles report as done, brings it together, {end}",
    }


# -- sync --


@cli.verb(
    main,
    examples="""
    sync_coordinator.py sync
    sync_coordinator.py sync webapp-impl
    sync_coordinator.py sync webapp-impl --rebase
    sync_coordinator.py sync --all --force
    """,
)
@click.argument("session", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every live team.")
@click.option("--force", is_flag=True, help="Settle conflicts by the setting git.sync_strategy (default: ours).")
@click.option("--rebase", is_flag=True, help="Put the agents' own commits on top instead of merging.")
@cli.pass_output
def sync(output: Output, session: str | None, is_all: bool, force: bool, rebase: bool) -> int:
    """Merge the starting branch into the branch of each agent of a team, in its worktree.

    What is not committed is never touched, and a snapshot is taken before. A conflict leaves the worktree as it was;
    with --force the lines of the agent's branch are taken where both have changed the same.
    """
    if is_all and session:
        raise Usage("give SESSION or --all, not both")
    here = desk()
    favour = Strategy(config.load().git.sync_strategy) if force else None
    if rebase and favour is Strategy.UNION:
        raise Usage("a rebase cannot take the lines of both sides", hint="leave --rebase or --force away")
    found = orchestrations.live(here.db) if is_all else [team(here, session)]
    lines: list[str] = []
    data: list[dict[str, Any]] = []
    has_failed = False
    many = sum(len(agents.of_orchestration(here.db, one.id)) for one in found)
    with progress.counted(output, "the starting branch comes into the agents' branches", many) as tell:
        results = [(one, *_sync(here, one, rebase, favour, tell)) for one in found]
    for one, done, problem in results:
        lines += [f"{one.session}: {problem}"] if problem else [line for each in done for line in _lines(one, each)]
        data.append(_data(one, done, problem))
        has_failed |= bool(problem) or any(each.result in (Result.CONFLICT, Result.REFUSED) for each in done)
    if any(each["result"] is Result.BROUGHT_IN for one in data for each in one["agents"]):
        _deliver(output, here.home)
    output.answer("\n".join(lines) or "no team is running", data)
    return ExitCode.FAILED if has_failed else ExitCode.DONE


def _sync(
    here: Desk, found: Orchestration, rebase: bool, favour: Strategy | None, tell: Callable[[str], None]
) -> tuple[list[Done], str | None]:
    """What became of each worktree, or why none was begun: another team must not be kept waiting by it."""
    try:
        orchestrations.check_runs(found)
        now = host.now_ms()
        done = bringing.bring_in(here.db, here.home, found, rebase=rebase, favour=favour, now=now, tell=tell)
    except OrchestratorError as error:
        return [], error.sentence
    return done, None


def _deliver(output: Output, home: Path) -> None:
    """Agents are to hear now of what was done in their worktrees."""
    if said := service.ensure(home):
        output.say(said)


# -- resolve --


@cli.verb(
    main,
    examples="""
    sync_coordinator.py resolve webapp-impl --strategy theirs
    sync_coordinator.py resolve webapp-impl --strategy union
    """,
)
@click.argument("session")
@click.option(
    "--strategy",
    type=click.Choice([str(one) for one in Strategy]),
    help="Whose lines count where both have changed the same: ours (the agent's), theirs (what comes in) or union.",
)
@cli.pass_output
def resolve(output: Output, session: str, strategy: str | None) -> int:
    """Settle the conflicts of merges under way in the worktrees of a team, whoever began them, and commit.

    What an agent has settled by hand stays so. A snapshot of before is kept. What cannot be settled in this way is
    named, and its merge stays under way.
    """
    if strategy is None:
        raise Usage("say whose lines count", hint="--strategy ours, theirs or union")
    here = desk()
    found = of_session(here.db, session)[-1]
    many = len(agents.of_orchestration(here.db, found.id))
    with progress.counted(output, "conflicts are settled", many) as tell:
        done = bringing.settle(here.db, here.home, found, Strategy(strategy), now=host.now_ms(), tell=tell)
    if any(one.result in (Result.SETTLED, Result.PARTLY_SETTLED) for one in done):
        _deliver(output, here.home)
    lines = [line for one in done if one.result is not Result.NOTHING_TO_SETTLE for line in _lines(found, one)]
    output.answer("\n".join(lines) or f"{session}: no merge is under way", _data(found, done, None))
    return (
        ExitCode.FAILED if any(one.result in (Result.REFUSED, Result.PARTLY_SETTLED) for one in done) else ExitCode.DONE
    )


# -- what both say --


def _lines(found: Orchestration, one: Done) -> list[str]:
    who = f"{one.agent.target:32}"
    branch, files = found.starting_branch, _named(one.files)
    match one.result:
        case Result.UP_TO_DATE:
            return [f"{who} has all of {branch} already"]
        case Result.REFUSED:
            return [f"{who} stays as it is: {one.reason}"]
        case Result.CONFLICT:
            return [f"{who} stays as it is: {branch} conflicts with it in {files}"]
        case Result.BROUGHT_IN:
            lines = [f"{who} has {_counted(one.commits, 'commit')} of {branch} now, at {(one.head or '')[:7]}"]
            lines += [f"      settled: {files}"] if files else []
        case _:
            at = f"committed as {one.head[:7]}" if one.head else "still under way"
            lines = [f"{who} {at}: settled {files or 'nothing'}"]
            lines += [f"      as the agent has settled them: {_named(one.by_hand)}"] if one.by_hand else []
            lines += [f"      cannot be settled so: {_named(one.left)}"] if one.left else []
    return [*lines, *([f"      before that: {one.snapshot}"] if one.snapshot else [])]


def _named(files: Sequence[str]) -> str:
    return ", ".join(map(legible, files))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _data(found: Orchestration, done: Sequence[Done], problem: str | None) -> dict[str, Any]:
    return {
        "session": found.session,
        "orchestration": found.id,
        "starting_branch": found.starting_branch,
        "problem": problem,
        "agents": [
            {
                "role": one.agent.role,
                "worktree": str(one.agent.worktree),
                "branch": one.agent.branch,
                "result": one.result,
                "reason": one.reason,
                "head": one.head,
                "commits": one.commits,
                "files": [*map(legible, one.files)],
                "by_hand": [*map(legible, one.by_hand)],
                "left": [*map(legible, one.left)],
                "snapshot": one.snapshot,
            }
            for one in done
        ],
    }


# -- status --


@cli.verb(
    main,
    examples="""
    sync_coordinator.py status
    sync_coordinator.py status webapp-impl
    sync_coordinator.py status --json
    """,
)
@click.argument("session", required=False)
@cli.pass_output
def status(output: Output, session: str | None) -> None:
    """Show where the worktrees of the live teams stand: commits, uncommitted files, conflicts, snapshots."""
    here = desk()
    found = [of_session(here.db, session)[-1]] if session else orchestrations.live(here.db)
    board = sync_status.Looking().board(here.db, found, now=host.now_ms())
    output.answer(sync_status.as_text(board), sync_status.as_data(board))
