"""What sync_dashboard.py shows: the worktrees of the live teams, once or again and again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib import host, orchestrations, service, store
from lib.front import live
from lib.front.cli import Output
from lib.git import worktrees
from lib.records import dataclass
from lib.together import sync_status
from lib.together.sync_status import Board, Looking, TeamStanding, WorktreeStanding, age

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


#: From so many columns on there is room for long names.
_WIDE = 120


@dataclass(frozen=True)
class Request:
    """What is to be shown, how often (seconds), and where the JSON goes."""

    refresh: float
    project: Path | None
    export: Path | None
    once: bool


def show(output: Output, home: Path, request: Request) -> None:
    """Show the worktrees: live on a terminal until Ctrl-C, else once. Raises as `worktrees.project_root` does."""
    db, looking = store.connect(home), Looking()
    project = worktrees.project_root(request.project) if request.project else None

    def look() -> Board:
        found = [one for one in orchestrations.live(db) if project in (None, one.project)]
        board = replace(looking.board(db, found, now=host.now_ms()), project=str(project) if project else None)
        if request.export:
            write(request.export, board)
        return board

    def drawn(board: Board, columns: int, how: str = "") -> RenderableType:
        return picture(board, columns=columns, warning=_warning(home), how=how)

    if not live.is_seen(output):
        board = look()
        output.answer(sync_status.as_text(board), sync_status.as_data(board))
    elif request.once:
        live.draw(lambda columns: drawn(look(), columns))
    else:
        how = live.how(request.refresh)
        live.watch(look, lambda board, columns: drawn(board, columns, how), seconds=request.refresh)


def write(path: Path, board: Board) -> None:
    """Write the board as JSON, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(json.dumps(sync_status.as_data(board), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _warning(home: Path) -> str:
    return "" if service.running(home) else "the scheduler does not run: scheduler.py --daemon"


# -- the picture --


def picture(board: Board, *, columns: int, warning: str = "", how: str = "") -> RenderableType:
    """The board for a terminal of so many columns; made for 100 and more. `how` is how it is shown."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = [live.head("Worktrees", board.at, warning=warning, how=how)]
    for team in board.teams:
        parts += [Padding(one, (0, 0, 0, 1)) for one in _team(team, board.at, columns)]
    if not board.teams:
        parts += [Text(), Text(f" {sync_status.nobody(board)}")]
    if board.radar_off:
        parts += [Text(), Text(f" {board.radar_off}", style="yellow")]
    return Group(*parts)


def _team(team: TeamStanding, now: int, columns: int) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    yield Text()
    start = f"from {team.starting_branch or 'a detached HEAD'} at {team.starting_commit[:7]}"
    yield live.spread(
        Text.assemble((team.session, "bold cyan"), f"  {team.title}"),
        Text.assemble((team.status, "green" if team.status == "running" else "yellow")),
    )
    yield Text(f"{team.project}, {start}", style="bright_black", overflow="ellipsis", no_wrap=True)
    if team.problem:
        yield Text(f"the project could not be asked: {team.problem}", style="red")
    if not team.is_alive:
        yield Text(sync_status.nobody_lives(team), style="yellow")
        return
    yield Text()
    yield _table(team, now, columns)
    yield from _in_the_way(team)


def _table(team: TeamStanding, now: int, columns: int) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415 - as above

    # The same widths for every team: the eye goes down the columns.
    role, branch = (20, 20) if columns >= _WIDE else (15, 12)
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    table.add_column("role", no_wrap=True, width=role)
    table.add_column("branch", no_wrap=True, width=branch)
    for name in ("ahead", "behind", "dirty"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("conflicts", no_wrap=True, width=11)
    table.add_column("last commit", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("snapshot", no_wrap=True, justify="right", width=8)
    for one in team.agents:
        table.add_row(*_cells(one, now), style="" if one.is_alive else "bright_black")
    return table


def _cells(one: WorktreeStanding, now: int) -> Iterator[Text]:
    from rich.text import Text  # noqa: PLC0415 - as above

    yield Text(one.role, style="bold" if one.is_alive else "")
    yield Text(sync_status.short_branch(one), style="" if one.on == one.branch else "yellow")
    for number, colour in ((one.ahead, "green"), (one.behind, "default"), (one.dirty, "yellow")):
        yield Text(_count(number), style=colour if number else "bright_black")
    yield Text(*_conflicts(one))
    if one.subject is None:
        yield Text()
    else:
        yield Text.assemble((f"{_about(one.committed_at, now):7}", "bright_black"), one.subject)
    yield Text(_about(one.snapshot_at, now) or "none", style="bright_black")


def _about(at: int | None, now: int) -> str:
    """How long ago something was, in its first unit: `2 h`."""
    return " ".join(age(at, now).split()[:2])


def _count(number: int | None) -> str:
    return "?" if number is None else str(number) if number else "\N{MIDDLE DOT}"


def _conflicts(one: WorktreeStanding) -> tuple[str, str]:
    """In a word or two what is in the way, and its colour."""
    if one.problem:
        return "not seen", "red"
    if one.under_way:
        return (f"{one.under_way}: {len(one.conflicts)}" if one.conflicts else one.under_way), "red"
    met = {name for mate in one.overlaps for name in mate.files}
    return (f"overlap: {len(met)}", "yellow") if met else ("\N{MIDDLE DOT}", "bright_black")


def _in_the_way(team: TeamStanding) -> Iterator[RenderableType]:
    """Below the table, a line for each thing; an overlap stands once for the two."""
    from rich.text import Text  # noqa: PLC0415 - as above

    lines = []
    for place, one in enumerate(team.agents):
        before = {other.role for other in team.agents[:place]}
        for line, is_now in sync_status.conflict_lines(one, but=before):
            lines.append(Text.assemble((one.role, "bold"), f" {line}", style="red" if is_now else "yellow"))
    yield from [Text(), *lines] if lines else []
