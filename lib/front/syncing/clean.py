"""The verb clean: what ended teams have left goes, with proof that nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from lib import clearing, config, host, orchestrations
from lib.clearing import Cleared, Remains
from lib.errors import ExitCode, OrchestratorError, Usage
from lib.front import cli, progress
from lib.front.cli import Output
from lib.front.syncing import main
from lib.front.syncing.desk import Desk, desk, of_session
from lib.models import LIVE, Orchestration


@cli.verb(
    main,
    examples="""
    sync_coordinator.py clean
    sync_coordinator.py clean webapp-impl
    sync_coordinator.py clean webapp-impl --yes
    """,
)
@click.argument("session", required=False)
@click.option("--yes", is_flag=True, help="Do it.")
@click.option("--ignored-too", is_flag=True, help="Also when ignored files go with it, which no snapshot holds.")
@cli.pass_output
def clean(output: Output, session: str | None, yes: bool, ignored_too: bool) -> int:
    """Show which worktrees and branches of ended teams can go without loss, and with --yes remove them.

    A snapshot of each is taken before and kept for 30 days (setting git.snapshot_days).
    """
    here, days = desk(), config.load().git.snapshot_days
    lines: list[str] = []
    data: list[dict[str, Any]] = []
    has_failed = False
    for found, left, problem in _looked_at(output, here, session, ignored_too):
        if problem:
            lines.append(f"{found.session}: {problem}")
            has_failed = True
        if left:
            lines.append(f"{found.session} ({found.id}, {found.status}), project {found.project}")
        if yes and left:
            with progress.counted(output, f"what {found.session} has left is removed", len(left)) as tell:
                cleared = [_clear(here, one, ignored_too, tell) for one in left]
            has_failed |= any(one.problem and not one.remains.obstacles for one in cleared)
            lines += [line for one in cleared for line in _cleared_lines(one, days)]
            data += [_data(found, one.remains, one) for one in cleared]
        else:
            lines += [line for one in left for line in _lines(one)]
            data += [_data(found, one, None) for one in left]
    if not yes and any(not one["obstacles"] for one in data):
        again = " ".join(["clean", *([session] if session else []), *(["--ignored-too"] if ignored_too else [])])
        lines.append(f"nothing was changed; to do it: sync_coordinator.py {again} --yes")
    output.answer("\n".join(lines) or "nothing to clean", data)
    return ExitCode.FAILED if has_failed else ExitCode.DONE


def _ended(here: Desk, session: str | None) -> Sequence[Orchestration]:
    if session is None:
        return [one for one in orchestrations.every(here.db) if one.status not in LIVE]
    found = of_session(here.db, session)
    if all(one.status in LIVE for one in found):
        raise Usage(f"{session} is {found[-1].status}", hint=f"claude_control.py stop {session}")
    return [one for one in found if one.status not in LIVE]


def _looked_at(
    output: Output, here: Desk, session: str | None, ignored_too: bool
) -> list[tuple[Orchestration, Sequence[Remains], str | None]]:
    """What each ended team has left, or why that could not be looked at."""
    teams, found = _ended(here, session), list[tuple[Orchestration, Sequence[Remains], str | None]]()
    with progress.counted(output, "what ended teams have left is looked at", len(teams)) as tell:
        for one in teams:
            try:
                found.append((one, clearing.remains_of(here.db, one, ignored_too=ignored_too), None))
            except OrchestratorError as error:
                found.append((one, (), error.sentence))
            tell(one.session)
    return found


def _clear(here: Desk, one: Remains, ignored_too: bool, tell: Callable[[str], None]) -> Cleared:
    if one.obstacles:
        cleared = Cleared(one, problem="; ".join(one.obstacles))
    else:
        cleared = clearing.clear(here.db, here.home, one, ignored_too=ignored_too, now=host.now_ms())
    tell(one.agent.role)
    return cleared


def _what(one: Remains) -> str:
    where = str(one.worktree) if one.worktree else f"branch {one.branch}"
    state = [f"{one.commits} unmerged commit{'' if one.commits == 1 else 's'}" if one.commits else "all merged"]
    if one.uncommitted:
        state.append(f"{one.uncommitted} uncommitted file{'' if one.uncommitted == 1 else 's'}")
    return f"{one.agent.role:20}  {where}  {', '.join(state)}"


def _details(one: Remains) -> list[str]:
    lines = [f"      {reason}" for reason in one.obstacles]
    return lines + [f"      ignored: {ignored.name} ({_bytes(ignored.size)})" for ignored in one.ignored]


def _lines(one: Remains) -> list[str]:
    return [f"  {'stays       ' if one.obstacles else 'would remove'}  {_what(one)}", *_details(one)]


def _cleared_lines(one: Cleared, days: int) -> list[str]:
    if one.taken is None:
        lines = [f"  stays         {_what(one.remains)}"]
        if one.problem and not one.remains.obstacles:
            lines.append(f"      {one.problem}")
        return lines + _details(one.remains)
    held = f"kept for {days} days as {one.taken.snapshot.name}"
    return [f"  removed       {_what(one.remains)}", f"      {held}", *_details(one.remains)]


def _bytes(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size = size // 1000
    return f"{size:.0f} GB"


def _data(found: Orchestration, one: Remains, cleared: Cleared | None) -> dict[str, Any]:
    return {
        "session": found.session,
        "orchestration": found.id,
        "role": one.agent.role,
        "worktree": str(one.worktree) if one.worktree else None,
        "branch": one.branch,
        "unmerged_commits": one.commits,
        "uncommitted_files": one.uncommitted,
        "ignored": [vars(ignored) for ignored in one.ignored],
        "obstacles": list(one.obstacles),
        "removed": bool(cleared and cleared.taken),
        "snapshot": cleared.taken.snapshot.ref if cleared and cleared.taken else None,
        "problem": cleared.problem if cleared else None,
    }
