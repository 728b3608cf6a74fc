#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Shows where the worktrees of all live teams stand; the room is lib/front/sync_board.py."""

from __future__ import annotations

from pathlib import Path

import click

from lib import config, host
from lib.front import cli, sync_board
from lib.front.cli import Output
from lib.front.sync_board import Request


@cli.command(
    examples="""
    sync_dashboard.py
    sync_dashboard.py --refresh 5
    sync_dashboard.py --project ~/projects/webapp
    sync_dashboard.py --once --export sync-status.json
    """
)
@click.option(
    "--refresh", type=click.FloatRange(0.5), default=5, metavar="SECONDS", help="How often to look again (default 5)."
)
@click.option("--project", type=click.Path(path_type=Path), metavar="PATH", help="Only the team of this project.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Also write each look as JSON.")
@click.option("--once", is_flag=True, help="Look once and leave, as it also does when nobody sees it.")
@cli.pass_output
def main(output: Output, refresh: float, project: Path | None, export: Path | None, once: bool) -> None:
    """Watch the worktrees of all live teams: commits, uncommitted files, conflicts and snapshots.

    Ctrl-C leaves. Nothing is changed.
    """
    where = host.working_folder()
    named = where / project.expanduser() if project else None
    file = where / export.expanduser() if export else None
    sync_board.show(output, config.state_home(), Request(refresh, named, file, once))


if __name__ == "__main__":
    cli.run(main)
