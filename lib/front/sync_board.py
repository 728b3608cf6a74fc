"""What sync_dashboard.py shows: the worktrees of the live teams, once or again and again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lib import daemon, host, orchestrations, store
from lib.front.cli import Output
from lib.git import worktrees
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

    is_seen = sys.stdout.isatty() and not output.json
    if is_seen and not request.once:
        _watch(look, home, request.refresh)
    elif is_seen:
        from rich.console import Console  # noqa: PLC0415 - 200 ms that only a person at a terminal pays

        console = Console(highlight=False)
        console.print(picture(look(), columns=console.width, warning=_warning(home)))
    else:
        board = look()
        output.answer(sync_status.as_text(board), sync_status.as_data(board))


def write(path: Path, board: Board) -> None:
    """Write the board as JSON, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(json.dumps(sync_status.as_data(board), indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _watch(look: Callable[[], Board], home: Path, seconds: float) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.live import Live  # noqa: PLC0415

    # Whatever ends it, the terminal gets its screen back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _resizes() as resized:  # Ctrl-C is how one leaves
        board = look()
        with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
            while True:
                columns, how = live.console.width, f"every {seconds:g} s, Ctrl-C leaves"
                live.update(picture(board, columns=columns, warning=_warning(home), how=how), refresh=True)
                if not resized(seconds):
                    board = look()


@contextlib.contextmanager
def _resizes() -> Iterator[Callable[[float], bool]]:
    """A wait of so many seconds that ends early, with True, when the terminal gets another size."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # The handler may run in the middle of anything: it only leaves a byte.
    signal.signal(signal.SIGWINCH, lambda *_: _put_byte(writing))

    def wait(seconds: float) -> bool:
        if not select.select([reading], [], [], seconds)[0]:
            return False
        os.read(reading, 4096)
        return True

    try:
        yield wait
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        os.close(reading)
        os.close(writing)


def _put_byte(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is full: that is news enough
        os.write(pipe, b"!")


def _warning(home: Path) -> str:
    return "" if daemon.running(home) else "the scheduler does not run: scheduler.py --daemon"


# -- the picture --


def picture(board: Board, *, columns: int, warning: str = "", how: str = "") -> RenderableType:
    """The board for a terminal of so many columns; made for 100 and more. `how` is how it is shown."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = [_spread(Text("Worktrees", style="bold"), _head(board, warning, how))]
    for team in board.teams:
        parts += [Padding(one, (0, 0, 0, 1)) for one in _team(team, board.at, columns)]
    if not board.teams:
        parts += [Text(), Text(f" {sync_status.nobody(board)}")]
    if board.radar_off:
        parts += [Text(), Text(f" {board.radar_off}", style="yellow")]
    return Group(*parts)


def _spread(left: Text, right: Text) -> RenderableType:
    """Two texts at the two ends of a line."""
    from rich.table import Table  # noqa: PLC0415 - as above

    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _head(board: Board, warning: str, how: str) -> Text:
    from rich.text import Text  # noqa: PLC0415 - as above

    clock = datetime.fromtimestamp(board.at / 1000).strftime("%H:%M:%S")
    parts = [(warning, "yellow"), (how, "bright_black"), (clock, "bright_black")]
    return Text("   ").join(Text(*part) for part in parts if part[0])


def _team(team: TeamStanding, now: int, columns: int) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    yield Text()
    start = f"from {team.starting_branch or 'a detached HEAD'} at {team.starting_commit[:7]}"
    yield _spread(
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
