#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""The daemon that fires check-ins and delivers messages, and its commands (rooms: lib/scheduling.py, lib/daemon.py)."""

from __future__ import annotations

import click

from lib import cli, config, scheduling
from lib.errors import Usage


@cli.command(
    examples="""
    scheduler.py --daemon
    scheduler.py --status
    scheduler.py --list
    scheduler.py --add webapp-impl developer 1 30 "Check-in message"
    scheduler.py --add-note 30 "Review the auth work" webapp-impl:0
    scheduler.py --remove 5
    scheduler.py --stop
    """,
    text_arguments=True,
)
@click.option("--daemon", "action", flag_value="daemon", help="Run the scheduler in this terminal.")
@click.option("--once", "action", flag_value="once", help="Run one beat and leave.")
@click.option("--status", "action", flag_value="status", help="Show whether the scheduler runs.")
@click.option("--stop", "action", flag_value="stop", help="End the scheduler after its beat.")
@click.option("--list", "action", flag_value="list", help="List the check-ins to come.")
@click.option("--add", "action", flag_value="add", help="Schedule: SESSION ROLE WINDOW MINUTES NOTE.")
@click.option("--add-note", "action", flag_value="add-note", help="Schedule: MINUTES NOTE [TARGET].")
@click.option("--remove", type=click.IntRange(0, 2**63 - 1), metavar="ID", help="Cancel a check-in.")
@click.option("--recurring", is_flag=True, help="With --add or --add-note: again every so many MINUTES.")
@click.argument("words", metavar="[WORDS]...", nargs=-1)
@cli.pass_output
def main(output: cli.Output, action: str | None, remove: int | None, recurring: bool, words: tuple[str, ...]) -> None:
    """Fire check-ins and deliver messages; schedule, list and remove check-ins."""
    if (action is None) == (remove is None):
        raise Usage("name one thing to do", hint="scheduler.py --help")
    if words and action not in ("add", "add-note"):
        raise Usage(f"unexpected words: {' '.join(words)}", hint="scheduler.py --help")
    home = config.state_home()
    match action:
        case "daemon":
            scheduling.run_daemon(output, home)
        case "once":
            scheduling.run_once(output, home)
        case "status":
            scheduling.show_status(output, home)
        case "stop":
            scheduling.stop_daemon(output, home)
        case "list":
            scheduling.show_list(output, home)
        case "add":
            scheduling.add(output, home, words, recurring=recurring)
        case "add-note":
            scheduling.add_note(output, home, words, recurring=recurring)
        case _:
            scheduling.remove(output, home, remove or 0)


if __name__ == "__main__":
    cli.run(main)
