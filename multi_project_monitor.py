#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Shows all projects with a team, what needs a person first; the room is lib/front/projects.py."""

from __future__ import annotations

from pathlib import Path

import click

from lib import config, host
from lib.front import cli, projects
from lib.front.cli import Output
from lib.front.projects import Request


@cli.command(
    examples="""
    multi_project_monitor.py
    multi_project_monitor.py --projects "webapp,backend,mobile"
    multi_project_monitor.py --summary
    multi_project_monitor.py --export project-metrics.csv
    multi_project_monitor.py --once --json
    """
)
@click.option("--projects", "names", metavar="NAME,...", multiple=True, help="Only these: folder, path or session.")
@click.option("--summary", is_flag=True, help="All projects in a few lines.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures: .csv or .json.")
@click.option("--once", is_flag=True, help="Look once and leave, as it also does when nobody sees it.")
@click.option(
    "--refresh", type=click.FloatRange(0.5), default=5, metavar="SECONDS", help="How often to look again (default 5)."
)
@cli.pass_output
def main(
    output: Output, names: tuple[str, ...], summary: bool, export: Path | None, once: bool, refresh: float
) -> None:
    """Watch the teams of all projects: the live ones, and those that ended within a day.

    What needs you comes first. Ctrl-C leaves. Nothing is changed.
    """
    file = host.working_folder() / export.expanduser() if export else None
    wanted = tuple(dict.fromkeys(name.strip() for entry in names for name in entry.split(",") if name.strip()))
    projects.show(output, config.state_home(), Request(wanted, refresh, summary, once, file))


if __name__ == "__main__":
    cli.run(main)
