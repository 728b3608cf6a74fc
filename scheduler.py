#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""The daemon that fires check-ins and drains the queue, and its commands (lib/daemon.py, lib/front/scheduling.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from lib import config
from lib.front import cli, scheduling
from lib.models import BUDGET_MINUTES, PRIORITIES

F = TypeVar("F", bound=Callable[..., object])


def _action(name: str, text: str) -> Callable[[F], F]:
    return click.option(f"--{name}", "action", flag_value=name, help=text)


def _number(
    name: str, unit: str, bounds: tuple[int, int | None], text: str, *, default: int | None = None
) -> Callable[[F], F]:
    return click.option(f"--{name}", metavar=unit, type=click.IntRange(*bounds), help=text, default=default)


def _on_entry(name: str, text: str, *, is_own: bool = False) -> Callable[[F], F]:
    return click.option(f"--{name}", type=cli.RowId() if is_own else cli.EntryId(), metavar="ID", help=text)


@cli.command(
    examples="""
    scheduler.py --daemon
    scheduler.py --queue-daemon
    scheduler.py --status
    scheduler.py --list
    scheduler.py --add webapp-impl developer 1 30 "Check-in message"
    scheduler.py --add-note 30 "Review the auth work" webapp-impl:0
    scheduler.py --add-note --cron "0 9 * * 1-5" "Plan the day" webapp-impl:0
    scheduler.py --queue-add spec.md ~/projects/webapp
    scheduler.py --queue-add spec.md ~/projects/webapp --fleet
    scheduler.py --queue-list
    scheduler.py --queue-status 1
    scheduler.py --fleet-init build-1
    scheduler.py --fleet-join build-1.fleet
    scheduler.py --stop
    """,
    text_arguments=True,
)
@click.option("--daemon", is_flag=True, help="Run the scheduler in this terminal: check-ins, messages, teams.")
@click.option("--queue-daemon", is_flag=True, help="The same, and drain the queue.")
@_action("once", "Run one beat and leave.")
@_action("status", "Show whether the scheduler runs, and how punctual it is.")
@_action("stop", "End the scheduler after its beat.")
@_action("list", "List the check-ins to come.")
@_action("add", "Schedule a check-in: SESSION ROLE WINDOW MINUTES NOTE.")
@_action("add-note", "Schedule a check-in: MINUTES NOTE [TARGET].")
@_on_entry("remove", "Cancel a check-in.", is_own=True)
@_action("queue-add", "Queue a spec: SPEC PROJECT.")
@_action("queue-list", "List the queue.")
@_on_entry("queue-status", "Show the whole story of an entry.")
@_on_entry("queue-cancel", "End an entry for good; a running one with its team, whose work stays.")
@_on_entry("queue-retry", "Queue an entry again.")
@_action("queue-order", "Have unfinished entries run in this order: ID...")
@_action("queue-pause", "Start nothing more; what runs goes on.")
@_action("queue-resume", "Let the queue drain again.")
@_on_entry("queue-run", "Launch an entry that the scheduler has claimed, as it does.", is_own=True)
@_action("send-notices", "Send the notices that wait, as the scheduler does.")
@_action("stop-spending", "Stop the agents that a budget has paused, as the scheduler does.")
@_action("notify-test", "Send a notice to every address of the configuration, and say how it went.")
@_action("fleet-init", "Found a fleet on this machine, or let a HOST join it (more: fleet.py init --help).")
@_action("fleet-join", "Make this machine a host of a fleet: FILE.")
@click.option("--recurring", is_flag=True, help="A check-in: again every so many MINUTES.")
@click.option("--cron", metavar="LINE", help="A check-in: at these times instead of MINUTES, which is left out.")
@click.option("--catch-up", type=click.Choice(["once", "skip", "all"]), help="Of what was missed (default: once).")
@_number("deadline", "MINUTES", (1, None), "A check-in: not at all when later than this.")
@_number("jitter", "SECONDS", (0, None), "A check-in: later by up to this.", default=0)
@click.option("--if-changed", is_flag=True, help="A check-in: only when there is something new for the agent.")
@click.option("--again", is_flag=True, help="--queue-add: also when the same spec of the project is there already.")
@_number("priority", "NUMBER", PRIORITIES, "--queue-add: higher goes first (default 0).", default=0)
@_number("budget", "MINUTES", BUDGET_MINUTES, "--queue-add: how long its team may work.")
@click.option("--fleet", is_flag=True, help="--queue-add: in the queue of the fleet, for whichever host has room.")
@click.option("--label", type=cli.Label(), metavar="LABEL", help="--fleet: only for a host with this label.")
@click.option("--no-ai", is_flag=True, help="--queue-add: ask no model about the spec before its launch.")
@click.argument("words", metavar="[WORDS]...", nargs=-1)
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> None:
    """Fire check-ins, deliver messages, keep teams running and drain the queue of specs."""
    scheduling.do(output, config.state_home(), scheduling.Request.of(options))


if __name__ == "__main__":
    cli.run(main)
