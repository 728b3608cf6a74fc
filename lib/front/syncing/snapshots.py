"""Verbs about snapshots: snapshot, snapshots, restore."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lib import agents, config, errands, host, orchestrations, safekeeping
from lib.errors import ExitCode, NotFound, Usage
from lib.front import cli, progress
from lib.front.cli import Output
from lib.front.syncing import main
from lib.front.syncing.desk import desk, of_session, team
from lib.git import snapshots, worktrees
from lib.git.snapshots import Note, Snapshot
from lib.models import Orchestration
from lib.records import dataclass
from lib.safekeeping import Kept
from lib.status import ago


@dataclass(frozen=True)
class Numbered:
    """A snapshot as the list shows it: by its place among all, the oldest first."""

    number: int
    project: Path
    snapshot: Snapshot


# -- snapshot --

_TAKING = "snapshots of worktrees are taken"


@cli.verb(
    main,
    examples="""
    sync_coordinator.py snapshot
    sync_coordinator.py snapshot webapp-impl
    sync_coordinator.py snapshot --all
    """,
)
@click.argument("session", required=False)
@click.option("--all", "is_all", is_flag=True, help="Of every live team, as the scheduler does every 30 minutes.")
@cli.pass_output
def snapshot(output: Output, session: str | None, is_all: bool) -> int:
    """Keep what the worktrees of a team hold now; they do not notice."""
    if is_all and session:
        raise Usage("give SESSION or --all, not both")
    here = desk()
    if is_all:
        many = len(agents.live(here.db))
        with errands.working(here.home, safekeeping.ERRAND), progress.counted(output, _TAKING, many) as tell:
            kept = safekeeping.keep_live(here.db, why="every 30 minutes", now=host.now_ms(), tell=tell)
            if safekeeping.is_pruning_due(here.db, now=host.now_ms()):
                days = config.load().git.snapshot_days
                pruned = safekeeping.prune(here.db, days=days, now=host.now_ms())
                output.detail(f"pruned {len(pruned)} snapshots older than {days} days")
    else:
        mates = agents.of_orchestration(here.db, team(here, session).id)
        with progress.counted(output, _TAKING, len(mates)) as tell:
            kept = safekeeping.keep(here.db, mates, why="asked for", now=host.now_ms(), tell=tell)
    output.answer("\n".join(map(_kept_line, kept)) or "no team is running", [_kept_data(one) for one in kept])
    return ExitCode.FAILED if any(one.problem for one in kept) else ExitCode.DONE


def _kept_line(kept: Kept) -> str:
    who = f"{kept.agent.target:40}"
    if kept.problem:
        return f"{who} failed: {kept.problem}"
    if kept.taken is None:
        return f"{who} has no worktree"
    left_out = "".join(f"\n    not in it: {one.name} ({one.why})" for one in kept.taken.held.left_out)
    what = "kept as" if kept.taken.is_new else "unchanged since"
    return f"{who} {what} {kept.taken.snapshot.name}{left_out}"


def _kept_data(kept: Kept) -> dict[str, Any]:
    taken = kept.taken
    return {
        "session": kept.agent.session,
        "role": kept.agent.role,
        "worktree": str(kept.agent.worktree),
        "ref": taken.snapshot.ref if taken else None,
        "commit": taken.snapshot.commit if taken else None,
        "new": taken.is_new if taken else None,
        "uncommitted": list(taken.held.changed) if taken else None,
        "left_out": [vars(one) for one in taken.held.left_out] if taken else None,
        "problem": kept.problem,
    }


# -- snapshots --


@cli.verb(
    main,
    "snapshots",
    examples="""
    sync_coordinator.py snapshots
    sync_coordinator.py snapshots webapp-impl --role developer
    sync_coordinator.py snapshots --json
    """,
)
@click.argument("session", required=False)
@click.option("--role", metavar="ROLE", help="Only of this role.")
@click.option("--limit", type=click.IntRange(1), default=20, metavar="COUNT", help="How many (default 20).")
@cli.pass_output
def list_them(output: Output, session: str | None, role: str | None, limit: int) -> None:
    """List snapshots, newest last."""
    here, now = desk(), host.now_ms()
    ids = {one.id for one in of_session(here.db, session)} if session else None
    found = [
        one
        for one in _numbered(output, here.db)
        if (ids is None or one.snapshot.orchestration in ids) and role in (None, one.snapshot.role)
    ]
    shown = found[-limit:]
    lines, data = [], []
    teams = {one.id: one for one in orchestrations.every(here.db)}
    for one, note, changed in _with_notes(teams, shown):
        of = teams.get(one.snapshot.orchestration)
        lines.append(_line(one, of, note, changed, now))
        data.append(_data(one, of, note, changed))
    if len(found) > len(shown):
        lines.insert(0, f"{len(found) - len(shown)} older ones are not shown: --limit {len(found)}")
    output.answer("\n".join(lines) or "no snapshots", data)


def _numbered(output: Output, db: sqlite3.Connection) -> list[Numbered]:
    found, problems = safekeeping.every(orchestrations.projects(db))
    for problem in problems:
        output.say(problem)
    return [Numbered(number, project, one) for number, (project, one) in enumerate(found, start=1)]


def _with_notes(teams: dict[str, Orchestration], shown: Sequence[Numbered]) -> list[tuple[Numbered, Note, int | None]]:
    """Each snapshot with what it tells of itself, and how many of its files the starting point has otherwise."""
    read: dict[str, tuple[Note, int | None]] = {}
    for place in {(one.project, one.snapshot.orchestration) for one in shown}:
        project, orchestration = place
        mine = [one.snapshot for one in shown if (one.project, one.snapshot.orchestration) == place]
        notes = snapshots.notes(project, mine)
        of = teams.get(orchestration)
        counts: Sequence[int | None] = [None] * len(mine)
        if of:
            counts = snapshots.files_changed(project, of.starting_commit, notes)
        read |= {one.ref: pair for one, pair in zip(mine, zip(notes, counts, strict=True), strict=True)}
    return [(one, *read[one.snapshot.ref]) for one in shown]


def _line(one: Numbered, of: Orchestration | None, note: Note, changed: int | None, now: int) -> str:
    who = of.session if of else one.snapshot.orchestration
    files = "" if changed is None else f"{changed} file{'' if changed == 1 else 's'} changed, "
    missing = f", {len(note.left_out)} left out" if note.left_out else ""
    age = f"{ago(now - one.snapshot.at)} ago"
    about = f"{files}{note.why}{missing}"
    return f"{one.number:>5}  {one.snapshot.name:32}  {age:15}  {who:14}  {one.snapshot.commit[:8]}  {about}"


def _data(one: Numbered, of: Orchestration | None, note: Note, changed: int | None) -> dict[str, Any]:
    return {
        "number": one.number,
        "ref": one.snapshot.ref,
        "commit": one.snapshot.commit,
        "time": datetime.fromtimestamp(one.snapshot.at / 1000, UTC).isoformat(),
        "at": one.snapshot.at,
        "session": of.session if of else None,
        "orchestration": one.snapshot.orchestration,
        "project": str(one.project),
        "role": one.snapshot.role,
        "files_changed": changed,
        **_data_of(note),
    }


def _data_of(note: Note) -> dict[str, Any]:
    return vars(note) | {"left_out": [vars(one) for one in note.left_out]}


# -- restore --


@cli.verb(
    main,
    examples="""
    sync_coordinator.py restore 12
    sync_coordinator.py restore developer/20300131T080000Z --into ~/projects/webapp-again
    sync_coordinator.py restore 1a2b3c4d --branch rescue/parser
    """,
)
@click.argument("named", metavar="SNAPSHOT")
@click.option(
    "--into", type=click.Path(path_type=Path), metavar="DIR", help="The new worktree (default: a new folder)."
)
@click.option("--branch", metavar="NAME", help="The new branch (default: restored/ROLE-TIME).")
@cli.pass_output
def restore(output: Output, named: str, into: Path | None, branch: str | None) -> None:
    """Make a new worktree that is as a worktree was; everything that is there stays as it is.

    SNAPSHOT is a number of the list, ROLE/TIME, a time, a ref, or the beginning of a commit.
    """
    here = desk()
    one = _find(_numbered(output, here.db), named)
    stamp = one.snapshot.name.replace("/", "-")
    branch = branch or f"restored/{stamp}"
    path = into or worktrees.folder_of(one.project) / f"restored-{stamp}"
    path = Path(host.working_folder() / path.expanduser())
    note = snapshots.restore(one.project, one.snapshot, path=path, branch=branch)
    safekeeping.note_restored(here.db, one.snapshot, path, branch, now=host.now_ms())
    lines = [f"restored {one.snapshot.name} in {path}, on the new branch {branch}"]
    lines += [f"  it was under way: {line}" for line in note.under_way]
    lines += [f"  not in it: {left.name} ({left.why})" for left in note.left_out]
    data = {"path": str(path), "branch": branch, "ref": one.snapshot.ref, "commit": one.snapshot.commit}
    output.answer("\n".join(lines), data | _data_of(note))


def _find(found: Sequence[Numbered], named: str) -> Numbered:
    """The one snapshot that a word names. Raises `NotFound` or `Usage` with what to say instead."""
    if named.isdecimal() and len(named) < 10:
        chosen = [one for one in found if one.number == int(named)]
    else:
        chosen = [one for one in found if _is_named(one.snapshot, named)]
    if len({one.snapshot.commit for one in chosen}) == 1:
        return chosen[-1]
    if not chosen:
        raise NotFound(f"no snapshot is named {named!r}", hint="sync_coordinator.py snapshots")
    refs = ", ".join(one.snapshot.ref for one in chosen[:5])
    raise Usage(f"{named!r} names {len(chosen)} snapshots", hint=f"name one by its ref: {refs}")


def _is_named(one: Snapshot, named: str) -> bool:
    is_commit = re.fullmatch(r"[0-9a-f]{6,64}", named) is not None and one.commit.startswith(named)
    return is_commit or f"/{one.ref}".endswith(f"/{named.removeprefix('/')}")
