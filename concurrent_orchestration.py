#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""What holds projects: live orchestrations, and locks of names (rooms: lib/named_locks.py, lib/front/locking.py)."""

from __future__ import annotations

import click

from lib import config
from lib.front import cli, locking


@cli.command(
    examples="""
    concurrent_orchestration.py --list
    concurrent_orchestration.py --cleanup
    concurrent_orchestration.py --cleanup --yes
    concurrent_orchestration.py --start my-project
    concurrent_orchestration.py --start my-project -- make deploy
    """
)
@click.option("--list", "action", flag_value="list", help="List what holds projects now, and what is stale.")
@click.option("--cleanup", "action", flag_value="cleanup", help="Show what nobody stands behind; with --yes remove it.")
@click.option("--yes", is_flag=True, help="With --cleanup: do it.")
@click.option("--start", metavar="NAME", help="Keep launches away from projects of this name while COMMAND runs.")
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1)
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> int:
    """Show what holds projects, tidy what nobody stands behind, and hold a project's name yourself."""
    return locking.do(output, config.state_home(), locking.Request.of(options))


if __name__ == "__main__":
    cli.run(main)
