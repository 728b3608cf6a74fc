#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""See agents and talk to them: status, send, complete, attach, stop (rooms: lib/status.py, lib/delivery.py)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lib import cli, config, talk

AGENT = "TARGET"


@cli.group(
    examples="""
    claude_control.py status
    claude_control.py send webapp-impl:developer "What is left to do?"
    claude_control.py attach webapp-impl:tester
    claude_control.py stop webapp-impl
    """
)
def main() -> None:
    """See the agents and talk to them."""


@cli.verb(main, examples="claude_control.py status\nclaude_control.py status webapp-impl --json")
@click.argument("session", required=False)
@cli.pass_output
def status(output: cli.Output, session: str | None) -> None:
    """Show every team and what each agent does now."""
    talk.status(output, config.state_home(), session)


@cli.verb(
    main,
    examples="""
    claude_control.py send webapp-impl:1 "Please implement the login endpoint"
    claude_control.py send webapp-impl:developer --file notes.md
    git diff | claude_control.py send webapp-impl:tester -
    """,
    text_arguments=True,
)
@click.argument("target", metavar=AGENT)
@click.argument("words", metavar="MESSAGE", nargs=-1)
@click.option("--file", "path", type=click.Path(path_type=Path), metavar="PATH", help="Send what this file holds.")
@click.option("--wait", type=float, metavar="SECONDS", help="Wait this long for the acknowledgement (default 5).")
@click.option("--no-wait", is_flag=True, help="Record it and leave the delivery to the scheduler.")
@cli.pass_output
def send(
    output: cli.Output,
    target: str,
    words: tuple[str, ...],
    path: Path | None,
    wait: float | None,
    no_wait: bool,
) -> int:
    """Send a message to an agent and see it arrive. MESSAGE may be - for standard input."""
    text = talk.message_text(words, path)
    return talk.send(output, config.state_home(), target, text, wait_seconds=0.0 if no_wait else wait)


@cli.verb(
    main,
    examples='claude_control.py complete developer "Login endpoint and its tests are committed"',
    text_arguments=True,
)
@click.argument("role")
@click.argument("words", metavar="MESSAGE", nargs=-1)
@click.option("--session", metavar="SESSION", help="The team, when it cannot be told from where this runs.")
@cli.pass_output
def complete(output: cli.Output, role: str, words: tuple[str, ...], session: str | None) -> None:
    """Report that a role's part is done; the Orchestrator's report completes the orchestration."""
    talk.complete(output, config.state_home(), role, talk.message_text(words, None), session)


@cli.verb(main, examples="claude_control.py attach webapp-impl\nclaude_control.py attach webapp-impl:developer")
@click.argument("target", metavar="[TARGET]", required=False)
def attach(target: str | None) -> None:
    """Look at a team or an agent in your terminal (detach with C-b d)."""
    command = talk.attach_command(config.state_home(), target)
    os.execvp(command[0], command)


@cli.verb(main, examples="claude_control.py stop webapp-impl")
@click.argument("session", required=False)
@cli.pass_output
def stop(output: cli.Output, session: str | None) -> None:
    """End a team's agents; worktrees and branches stay, and what is unmerged is named."""
    talk.stop(output, config.state_home(), session)


if __name__ == "__main__":
    cli.run(main)
