#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "..", editable = true }
# ///
"""Measures the paths that are used all day and prints a table (each in a module beside this one)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import psutil

from benchmarks import choosing, draining, git_work, hand_over, idle, limits, merging, messages, spending, teams
from benchmarks.figures import Figure, as_markdown
from benchmarks.machine import claude_binary
from lib.errors import ExitCode, NotFound
from lib.front import cli

FOLDER = Path(__file__).resolve().parent

MEASUREMENTS: dict[str, Callable[[teams.Counts], list[Figure]]] = {
    "starts": teams.starts,
    "hook": teams.hook,
    "launch-rehearsal": teams.launch_rehearsal,
    "send-rehearsal": teams.send_rehearsal,
    "complete": teams.complete,
    "launch-claude": teams.launch_claude,
    "send-claude": teams.send_claude,
    "messages": messages.deliveries,
    "crowd": messages.crowd,
    "queue": draining.queue,
    "recovery": draining.recovery,
    "guards": hand_over.guards_of_commits,
    "hand-over": hand_over.hand_over,
    "worktrees": git_work.worktrees,
    "radar": git_work.radar_rounds,
    "merging": merging.merging,
    "idle": idle.idle,
    "limits": limits.quiet,
    "spending": spending.spending,
    "choosing": choosing.choosing,
}


@cli.command(
    examples="""
    benchmarks/run.py
    benchmarks/run.py --quick
    benchmarks/run.py -k send
    benchmarks/run.py --publish
    """
)
@click.option(
    "-k", "selection", metavar="WORD", default="", help=f"Only those with WORD in: {', '.join(MEASUREMENTS)}."
)
@click.option("--quick", is_flag=True, help="Few runs: enough to see that everything works.")
@click.option("--publish", is_flag=True, help="Also write benchmarks/RESULTS.md, which is kept in git.")
@cli.pass_output
def main(output: cli.Output, selection: str, quick: bool, publish: bool) -> int:
    """Measure, print a Markdown table, and keep it in benchmarks/results/."""
    chosen = {name: measure for name, measure in MEASUREMENTS.items() if selection in name}
    if not chosen:
        raise NotFound(f"no measurement has {selection!r} in its name", hint=f"there are: {', '.join(MEASUREMENTS)}")
    counts = teams.QUICK if quick else teams.Counts()
    began, load, figures, notes = datetime.now(UTC), os.getloadavg()[0], [], []
    for name, measure in chosen.items():
        output.say(f"measuring {name}")
        try:
            figures += measure(counts)
        except NotFound as missing:
            notes.append(f"{name} was left out: {missing.sentence} ({missing.hint}).")
    text = _report(figures, notes, began, load)
    _write(text, figures, began)
    if publish:
        (FOLDER / "RESULTS.md").write_text(text, encoding="utf-8")
    output.answer(text, {"at": began.isoformat(), "figures": [figure.as_data() for figure in figures], "notes": notes})
    return ExitCode.DONE


def _report(figures: list[Figure], notes: list[str], began: datetime, load: float) -> str:
    lines = [
        "# Measurements",
        "",
        f"Taken {began:%Y-%m-%d} by `benchmarks/run.py`. {_machine()}",
        f"Load average {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end, this run included:"
        " on a busy machine compare ratios, not milliseconds.",
        "",
        as_markdown(figures),
        "",
        *notes,
    ]
    return "\n".join(lines).rstrip() + "\n"


def _machine() -> str:
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = f"{platform.system()} {platform.release()}"
    memory = psutil.virtual_memory().total / 1e9
    versions = [f"Python {platform.python_version()}", _version("tmux", "-V"), _version("uv", "--version")]
    versions.append(_version("git", "--version"))
    if binary := claude_binary():
        versions.append(_version(str(binary), "--version"))
    return f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {system}, {', '.join(versions)}."


def _version(*command: str) -> str:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent"}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()
    # uv adds where it was built, Claude Code puts its name behind the number.
    number, _, name = said.replace("git version", "git").partition(" (")
    return f"{name.rstrip(')')} {number}" if name.startswith("Claude") else number


def _write(text: str, figures: list[Figure], began: datetime) -> None:
    folder = FOLDER / "results"
    folder.mkdir(exist_ok=True)
    (folder / "latest.md").write_text(text, encoding="utf-8")
    data = {"at": began.isoformat(), "figures": [figure.as_data() for figure in figures]}
    (folder / "latest.json").write_text(json.dumps(data, indent=1), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
