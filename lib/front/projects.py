"""What multi_project_monitor.py shows: a line for each team, once, live, or as a file."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib import host, overview, service, store
from lib.errors import NotFound, Usage
from lib.fleet import views
from lib.fleet.views import Fleet
from lib.front import live
from lib.front.cli import Output
from lib.overview import Line, Need, Overview
from lib.records import dataclass
from lib.status import ago

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The columns of an export; a rehearsal's cost is that of no model. Two for criteria: 3/5 is a date to a spreadsheet.
COLUMNS = (
    *("project", "session", "path", "title", "program", "status", "need", "why", "agents", "working", "idle"),
    *("asking", "limited", "gone", "reported", "criteria", "criteria_hold", "waiting", "usd", "tokens"),
    *("created_at", "updated_at", "seen_at"),
)
#: What a spreadsheet takes for the beginning of a formula. Titles and outcomes are texts of others.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_COLOURS = {Need.PERSON: "bold red", Need.LOOK: "yellow", Need.TIME: "yellow", Need.OVER: "bright_black"}


@dataclass(frozen=True)
class Request:
    """Which projects, how often to look (seconds), and in which form. `export` is a file for the figures."""

    projects: tuple[str, ...] = ()
    refresh: float = 5.0
    is_summary: bool = False
    is_once: bool = False
    export: Path | None = None


def show(output: Output, home: Path, request: Request) -> None:
    """Show the teams: live on a terminal until Ctrl-C, else once. Raises `NotFound` for a project without a team."""
    if request.export and request.export.suffix not in (".csv", ".json"):
        raise Usage(f"{request.export}: the figures are written as .csv or .json")
    db = store.connect(home)
    seen = _look(db, home, request)
    _check_named(db, seen, request)
    if request.export:
        write(request.export, seen)
        output.say(f"written to {request.export}")
    if request.is_summary:
        output.answer(overview.summary(seen), seen.as_data())
    elif request.export and not request.is_once:
        output.answer("", seen.as_data())
    elif not live.is_seen(output):
        text = "\n".join([overview.as_text(seen, now=seen.at), *filter(None, [_warning(home, seen)])])
        output.answer(text, seen.as_data())
    elif request.is_once:
        live.draw(lambda columns: picture(seen, columns, warning=_warning(home, seen)))
    else:
        how = live.how(request.refresh)
        live.watch(
            lambda: _look(db, home, request),
            lambda found, columns: picture(found, columns, warning=_warning(home, found), how=how),
            seconds=request.refresh,
        )


def _look(db: sqlite3.Connection, home: Path, request: Request) -> Overview:
    now = host.now_ms()
    seen = overview.look(db, now=now, projects=request.projects)
    return replace(seen, fleet=views.look_if_any(db, home, now=now))


def _check_named(db: sqlite3.Connection, seen: Overview, request: Request) -> None:
    for name in request.projects:
        if not overview.look(db, now=seen.at, projects=(name,)).lines:
            known = [line.name for line in overview.look(db, now=seen.at).lines]
            raise NotFound(
                f"no team works or has worked today in a project {name!r}",
                hint=f"there are: {', '.join(known)}" if known else "auto_orchestrate.py --spec SPEC",
            )


def _warning(home: Path, seen: Overview) -> str:
    is_needed = any(line.need is not Need.OVER for line in seen.lines) or bool(seen.queue)
    return "the scheduler does not run: scheduler.py --daemon" if is_needed and not service.running(home) else ""


# -- the files --


def write(path: Path, seen: Overview) -> None:
    """Write the figures by the file's ending, whole or not at all."""
    text = json.dumps(seen.as_data(), indent=2, ensure_ascii=False) + "\n" if path.suffix == ".json" else _csv(seen)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(text, encoding="utf-8", newline="")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _csv(seen: Overview) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(figure) for figure in _figures(line)] for line in seen.lines)
    return file.getvalue()


def _figures(line: Line) -> Iterator[object]:
    yield from (line.name, line.session, line.project, line.title, line.program, line.status)
    yield from (line.need.name.lower(), line.why, line.agents)
    yield from (line.states.get(state, 0) for state in ("working", "idle", "asking", "limited", "gone"))
    yield from (line.reported, line.criteria.total, line.criteria.hold, line.waiting, line.usd, line.tokens)
    yield from (line.created_at, line.updated_at, line.seen_at)


def _cell(figure: object) -> object:
    return f"'{figure}" if isinstance(figure, str) and figure.startswith(_FORMULA) else figure


# -- the picture --


def picture(seen: Overview, columns: int, *, warning: str = "", how: str = "") -> RenderableType:
    """The teams for a terminal of so many columns; made for 100 and more. `how` is how it is shown."""
    from rich.console import Group  # noqa: PLC0415 - 200 ms that only a person at a terminal pays
    from rich.text import Text  # noqa: PLC0415 - as above

    parts: list[RenderableType] = [live.head("Projects", seen.at, warning=warning, how=how), Text()]
    parts.append(_table(seen, columns) if seen.lines else Text(" no team is running: auto_orchestrate.py --spec SPEC"))
    needy = [line for line in seen.lines if line.why and line.need is not Need.OVER]
    if needy:
        parts.append(Text())
    for line in needy:
        parts.append(Text.assemble((f" {line.name}", "bold"), f"  {line.why}", style=_COLOURS.get(line.need, "")))
    parts += [Text(f"\n {sentence}", style="bright_black") for sentence in overview.queue_lines(seen)]
    if seen.fleet:
        parts += [Text(f"\n Fleet  {views.link_line(seen.fleet.link, seen.at)}"), _hosts(seen.fleet)]
    return Group(*parts)


def _hosts(seen: Fleet) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, expand=True, padding=(0, 2, 0, 1), pad_edge=False, header_style="bright_black")
    for name in ("host", "", "agents", "free", "load", "memory", "version", "labels"):
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("agents", "free", "load", "memory") else "left"
        )
    table.add_column("teams", no_wrap=True, ratio=1, overflow="ellipsis")
    for one in seen.hosts:
        heard = Text(one.seen(seen.at), style="green" if one.is_seen(seen.at) else "yellow")
        cells = views.figures(one) or ("",) * 6
        table.add_row(Text(one.name, style="bold"), heard, *cells, ", ".join(views.teams(one)))
    odd = [Text(f" {one.name}  {said}", style="yellow") for one in seen.hosts for said in views.notes(one)]
    return Group(table, *odd)


def _table(seen: Overview, columns: int) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, expand=True, padding=(0, 2, 0, 1), pad_edge=False, header_style="bright_black")
    table.add_column("project", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column("status", no_wrap=True)
    table.add_column("spec", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("agents", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("criteria", justify="right", no_wrap=True)
    table.add_column("waiting", justify="right", no_wrap=True)
    table.add_column("spent", justify="right", no_wrap=True)
    table.add_column("heard", justify="right", no_wrap=True)
    for line in seen.lines:
        table.add_row(
            Text(line.name, style="bold" if line.need is not Need.OVER else ""),
            Text(line.status.replace("_", " "), style=_COLOURS.get(line.need, "green")),
            line.title,
            overview.states(line),
            f"{line.reported}/{line.agents}",
            line.criteria.share,
            str(line.waiting),
            overview.spent(line),
            " ".join(ago(seen.at - line.seen_at).split()[:2]) if line.seen_at else "never",
            style="bright_black" if line.need is Need.OVER else "",
        )
    return table
