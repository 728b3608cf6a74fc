#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[dev]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "..", editable = true }
# ///
"""Measures the paths that are used all day, beside others' ways to do the same (each in a module beside this one)."""

from __future__ import annotations

import inspect
import itertools
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import (
    briefings,
    choosing,
    claims,
    conditions,
    dashboard,
    doors,
    draining,
    fleet,
    fleet_letters,
    fleet_queue,
    git_work,
    hand_over,
    idle,
    insights,
    limits,
    looking,
    merging,
    messages,
    pages,
    recording,
    results,
    simulating,
    spending,
    tables,
    teams,
    telling,
)
from benchmarks.figures import Figure
from benchmarks.machine import described, versions
from benchmarks.results import Measured
from lib.errors import ExitCode, NotFound
from lib.front import cli

FOLDER = Path(__file__).resolve().parent

Measure = Callable[[teams.Counts], list[Figure]]

AREAS: dict[str, dict[str, Measure]] = {
    "Messages, ours and other ways": {"ways-claude": conditions.to_claude, "ways-rehearsal": conditions.to_rehearsal},
    "Messages": {
        "messages": messages.deliveries,
        "send-claude": teams.send_claude,
        "send-rehearsal": teams.send_rehearsal,
        "crowd": messages.crowd,
        "complete": teams.complete,
    },
    "Launching a team": {"launch-rehearsal": teams.launch_rehearsal, "launch-claude": teams.launch_claude},
    "Starting a script": {"starts": doors.starts, "hook": doors.hook},
    "Looking at a hundred panes": {"panes": looking.panes},
    "The queue and recovery": {
        "claims": claims.claims,
        "queue": draining.queue,
        "recovery": draining.recovery,
    },
    "Handing over": {"telling": telling.telling, "hand-over": hand_over.hand_over},
    "Git": {
        "guards": hand_over.guards_of_commits,
        "worktrees": git_work.worktrees,
        "radar": git_work.radar_rounds,
        "merging": merging.merging,
    },
    "The scheduler at rest": {"idle": idle.idle},
    "Limits and spending": {"limits": limits.quiet, "spending": spending.spending},
    "Choosing a team, and briefing it": {"choosing": choosing.choosing, "briefings": briefings.briefings},
    "Insights": {"insights": insights.among_many},
    "A fleet": {"fleet": fleet.fleet, "fleet-queue": fleet_queue.queue, "fleet-letters": fleet_letters.letters},
    "Recording and looking back": {"recording": recording.recording},
    "The dashboard": {"dashboard": dashboard.dashboard, "pages": pages.pages},
    "The simulation": {"simulation": simulating.simulating},
}
AREA_OF = {name: area for area, measurements in AREAS.items() for name in measurements}
MEASUREMENTS = {name: measure for measurements in AREAS.values() for name, measure in measurements.items()}


@cli.command(
    examples="""
    benchmarks/run.py
    benchmarks/run.py --quick
    benchmarks/run.py -k send
    benchmarks/run.py -k ways --publish
    """
)
@click.option(
    "-k", "selection", metavar="WORD", default="", help=f"Only those with WORD in: {', '.join(MEASUREMENTS)}."
)
@click.option("--quick", is_flag=True, help="Few runs: enough to see that everything works.")
@click.option("--publish", is_flag=True, help="Also merge them into what is kept in git: results.json and its tables.")
@cli.pass_output
def main(output: cli.Output, selection: str, quick: bool, publish: bool) -> int:
    """Measure, print Markdown tables, and with --publish keep the figures in benchmarks/ and README."""
    chosen = [name for name in MEASUREMENTS if selection in name]
    if not chosen:
        raise NotFound(f"no measurement has {selection!r} in its name", hint=f"there are: {', '.join(MEASUREMENTS)}")
    before, measured, notes = results.read(), [], []
    for name in chosen:
        output.say(f"measuring {name}{_expected(before.get(name), quick)}")
        try:
            measured.append(_measured(name, quick))
        except NotFound as missing:
            notes.append(f"{name} was left out: {missing.sentence} ({missing.hint}).")
            output.say(notes[-1])
            continue
        if publish:  # at once: a Ctrl-C in the next one does not take this one away
            publish_all(results.merged(results.read(), measured, order=MEASUREMENTS))
    text = "\n\n".join(itertools.chain([tables.results_page(measured).rstrip()], notes)) + "\n"
    output.answer(text, {"measured": [one.as_data() for one in measured], "notes": notes})
    return ExitCode.DONE


def publish_all(measured: Iterable[Measured], *, folder: Path = FOLDER) -> None:
    """Write results.json in this folder, and what is made of it: RESULTS.md beside it, and the table of README."""
    kept = list(measured)
    results.write(kept, folder / "results.json")
    (folder / "RESULTS.md").write_text(tables.results_page(kept), encoding="utf-8")
    readme = folder.parent / "README.md"
    text = tables.with_table(readme.read_text(encoding="utf-8"), tables.readme_table(kept))
    readme.write_text(text, encoding="utf-8")


def _measured(name: str, quick: bool) -> Measured:
    measure, at, load, began = MEASUREMENTS[name], datetime.now(UTC), os.getloadavg()[0], time.monotonic()
    figures = measure(teams.QUICK if quick else teams.Counts())
    return Measured(
        area=AREA_OF[name],
        name=name,
        about=" ".join((inspect.getdoc(measure) or "").split()),
        at=at,
        by=f"benchmarks/run.py -k {name}{' --quick' if quick else ''}",
        is_quick=quick,
        seconds=round(time.monotonic() - began, 1),
        load=(load, os.getloadavg()[0]),
        machine=described(),
        versions=versions(),
        rows=tuple(figure.row() for figure in figures),
    )


def _expected(earlier: Measured | None, quick: bool) -> str:
    if earlier is None or earlier.seconds is None or earlier.is_quick != quick:
        return ""
    return f", which took {earlier.seconds:.0f} s the last time"


if __name__ == "__main__":
    cli.run(main)
