#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "..", editable = true }
# ///
"""Usage limits in the terminal: who is limited and until when (room: lib/front/watching.py)."""

from __future__ import annotations

import click

from lib import config
from lib.front import cli, watching


@cli.command(
    examples="""
    credit_management/credit_monitor.py
    credit_management/credit_monitor.py --once --json
    credit_management/credit_monitor.py --interval 300
    credit_management/credit_monitor.py --sessions "webapp-impl,backend-impl"
    credit_management/credit_monitor.py --auto-resume
    credit_management/credit_monitor.py --health webapp-impl --show-resets
    """
)
@click.argument("session", required=False)
@click.option("--interval", type=click.FloatRange(1, 86_400), default=60, metavar="SECONDS", help="How often (60).")
@click.option("--sessions", metavar="SESSION,...", help="Show only these.")
@click.option("--auto-resume", is_flag=True, help="Without a scheduler: let agents go on when their limit is over.")
@click.option("--once", is_flag=True, help="Look once.")
@click.option("--health", is_flag=True, help="Look once, and leave with 5 when an agent is limited.")
@click.option("--show-resets", is_flag=True, help="Also say what each limit is, and how it was read.")
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> int:
    """Show usage limits and what agents have used of their context, again and again until Ctrl-C.

    While the scheduler runs, it sees to limits, and this only shows.
    """
    return watching.watch(output, config.state_home(), watching.Wanted(**options))  # type: ignore[arg-type]  # click's


if __name__ == "__main__":
    cli.run(main)
