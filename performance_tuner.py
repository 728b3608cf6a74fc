#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Measures what the teams use of the machine, and tidies the state home; the room is lib/front/tuning.py."""

from __future__ import annotations

import click

from lib import config
from lib.front import cli, tuning
from lib.front.cli import Output
from lib.front.tuning import Request


@cli.command(
    examples="""
    performance_tuner.py
    performance_tuner.py --watch --interval 30
    performance_tuner.py --clean-logs
    performance_tuner.py --no-optimize-db --json
    """
)
@click.option("--watch", is_flag=True, help="Measure again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(1), metavar="SECONDS", help="With --watch: how often (default 10).")
@click.option("--clean-logs", is_flag=True, help="First rotate large logs and remove those older than 30 days.")
@click.option("--no-optimize-db", is_flag=True, help="Leave the store as it is.")
@cli.pass_output
def main(output: Output, watch: bool, interval: float | None, clean_logs: bool, no_optimize_db: bool) -> None:
    """Measure agents, scheduler, disk, tmux, store and logs, and tell what is not as it should be.

    It also optimizes the store, once and without being in anybody's way. Processes are never ended.
    """
    tuning.run(output, config.state_home(), Request(watch, interval, clean_logs, not no_optimize_db))


if __name__ == "__main__":
    cli.run(main)
