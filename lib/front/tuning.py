"""What performance_tuner.py does and prints: tidying when asked, then measurements and findings, once or again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lib import host, store, tidying, tuning
from lib.errors import OrchestratorError, Usage
from lib.front import live
from lib.front.cli import Output
from lib.judgement.findings import Load, Look, findings, size
from lib.records import dataclass
from lib.status import ago
from lib.tidying import Cleaned
from lib.tmux import Tmux

if TYPE_CHECKING:
    from rich.console import RenderableType

DEFAULT_INTERVAL = 10.0


@dataclass(frozen=True)
class Request:
    """What a person wants; the interval is in seconds."""

    watch: bool
    interval: float | None
    clean_logs: bool
    optimize: bool


@dataclass(frozen=True)
class Tidied:
    """What was done before the look: in sentences, and the bytes that cleaning has freed; None when nobody asked."""

    store: tuple[str, ...] | None = None
    logs: Cleaned | None = None


def run(output: Output, home: Path, request: Request) -> None:
    """Tidy, measure and print. Raises `Usage` for options that mean nothing together."""
    if request.interval is not None and not request.watch:
        raise Usage("--interval goes with --watch")
    now = host.now_ms()
    done = Tidied(_optimized(home) if request.optimize else None, _cleaned(home, now) if request.clean_logs else None)
    tuner = tuning.Tuner(home, Tmux.from_environment())
    if request.watch:
        _watch(output, tuner, done, request.interval or DEFAULT_INTERVAL)
    elif live.is_seen(output):
        live.draw(lambda _: picture(tuner.look(now=host.now_ms()), done))
    else:
        look = tuner.look(now=host.now_ms())
        output.answer("\n".join(lines(look, done)), as_data(look, done))


def _watch(output: Output, tuner: tuning.Tuner, done: Tidied, seconds: float) -> None:
    if live.is_seen(output):
        how = live.how(seconds)
        live.watch(lambda: tuner.look(now=host.now_ms()), lambda look, _: picture(look, done, how=how), seconds=seconds)
        return
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how one leaves
        while True:
            look = tuner.look(now=host.now_ms())
            if output.json:  # a line for each look
                click.echo(json.dumps(as_data(look, done), ensure_ascii=False))
            else:
                click.echo("\n".join([f"{_clock(look.at)}", *lines(look, done), ""]))
            sys.stdout.flush()
            done = Tidied()  # it was done once
            time.sleep(seconds)


# -- tidying --


def _optimized(home: Path) -> tuple[str, ...]:
    if not (home / "orchestrator.db").exists():
        return ()  # the look says that there is none
    if not tuning.may_write(home):
        return (f"left alone, {home} cannot be written",)
    try:
        with contextlib.closing(store.connect(home)) as db:
            return tuple(tidying.optimize(db, home, is_quiet=tuning.is_quiet(db, home)))
    except OrchestratorError as error:
        return (f"left alone: {error.sentence}",)
    except sqlite3.Error as error:
        found = store.trouble(error, home)
        if found is None:
            raise
        return (f"left alone: {found.sentence}",)


def _cleaned(home: Path, now: int) -> Cleaned:
    try:
        return tidying.clean_logs(home, now=now)
    except OrchestratorError as error:
        return Cleaned(0, (f"left alone: {error.sentence}",))
    except OSError as error:
        return Cleaned(0, (f"left alone: {error.filename}: {error.strerror}",))


# -- in words --


def as_data(look: Look, done: Tidied) -> dict[str, object]:
    """A look as JSON has it."""
    found = [asdict(one) for one in findings(look)]
    return {
        **asdict(look),
        "findings": found,
        "optimized": done.store,
        "cleaned": asdict(done.logs) if done.logs else None,
    }


def lines(look: Look, done: Tidied) -> Iterator[str]:
    """A look as plain lines."""
    table = list(rows(look))
    widths = [max((len(row[place]) for row in table), default=0) for place in range(5)]
    for name, *figures in table:
        cells = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True)]
        yield f"{name:{widths[0]}}  {'  '.join(cells)}".rstrip()
    yield from facts(look)
    yield from tidied(done)
    yield from (f"not seen: {sentence}" for sentence in look.unseen)
    yield from (f"finding: {one.sentence}\n  next: {one.command}" for one in findings(look))
    if not findings(look):
        yield "findings: none"


def rows(look: Look) -> Iterator[tuple[str, str, str, str, str]]:
    """Who uses what: a head, then teams with their agents, then the scheduler."""
    yield "", "pid", "CPU of a core", "memory", "processes"
    for team in look.teams:
        yield team.session, *_figures(None, team.load)
        for agent in team.agents:
            name = f"  {agent.target.rpartition(':')[2]}"
            yield (name, *_figures(agent.pid, agent.load)) if agent.load else (name, "", "", "", "ended")
    if look.daemon.load:
        yield "scheduler", *_figures(look.daemon.pid, look.daemon.load)
    else:
        yield "scheduler", "", "", "", {True: "lives", False: "does not run", None: "not seen"}[look.daemon.is_alive]


def _figures(pid: int | None, load: Load) -> tuple[str, str, str, str]:
    count = f"{load.processes}, {load.unseen} not seen" if load.unseen else str(load.processes)
    return str(pid or ""), f"{load.cpu_percent:.1f} %", size(load.memory_bytes), count


def facts(look: Look) -> Iterator[str]:
    """What is no row of the table, a line for each thing."""
    yield f"memory: {size(look.memory_available_bytes)} of {size(look.memory_bytes)} available, {look.cores} cores"
    for disk in look.disks:
        yield f"disk: {size(disk.free_bytes)} of {size(disk.total_bytes)} free at {disk.path}"
    if look.tmux_ms is not None:
        yield f"tmux: {look.tmux_ms:.1f} ms a round trip"
    if look.store:
        one = look.store
        free = size(one.free_pages * one.page_bytes)
        yield f"store: {size(one.database_bytes)}, {free} of it free pages; its log {size(one.wal_bytes)}"
        written = "not measured" if one.write_ms is None else f"{one.write_ms:.2f} ms"
        yield f"store: {one.read_ms:.2f} ms a read, {written} a write that is rolled back"
    if look.logs:
        one_log = look.logs
        grown = "" if one_log.grown_bytes is None else f", {one_log.grown_bytes:+d} B in {one_log.over_seconds:.1f} s"
        yield f"logs: {size(one_log.size_bytes)} in {one_log.files} files{grown}"
    if look.check_ins:
        late = look.check_ins
        if late.fired:
            p50, p95, most = (
                ago(value) if value and value >= 1000 else f"{value} ms"
                for value in (late.p50_ms, late.p95_ms, late.max_ms)
            )
            yield f"check-ins of 24 h: {late.fired} fired, late by p50 {p50}, p95 {p95}, max {most}"
        else:
            yield "check-ins of 24 h: none fired"


def tidied(done: Tidied) -> Iterator[str]:
    """What was done to store and logs."""
    yield from (
        f"optimized {sentence}" if not sentence.startswith("left") else f"optimized nothing: {sentence}"
        for sentence in done.store or ()
    )
    if done.logs:
        yield from (f"cleaned {sentence}" for sentence in done.logs.told)
        yield f"cleaned logs: {size(done.logs.freed_bytes)} freed"


def picture(look: Look, done: Tidied, *, how: str = "") -> RenderableType:
    """A look for a terminal."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    head, *body = rows(look)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bright_black")
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in body:
        table.add_row(*map(Text, row), style="" if row[0].startswith(" ") else "bold")
    title = live.head("Performance", look.at, how=how)
    parts: list[RenderableType] = [title, Text(), table, Text(), *map(Text, facts(look))]
    parts += [Text(line, style="bright_black") for line in tidied(done)]
    parts += [Text(f"not seen: {sentence}", style="bright_black") for sentence in look.unseen]
    found = findings(look)
    parts += [Text(), *(Text.assemble((one.sentence, "yellow"), f"\n  next: {one.command}") for one in found)]
    return Group(*parts, *([] if found else [Text("findings: none", style="green")]))


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%H:%M:%S")
