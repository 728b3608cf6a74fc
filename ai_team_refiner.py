#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[api]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Asks Claude to improve a team, and changes nothing; the room is lib/front/refining.py."""

from __future__ import annotations

import click

from lib.front import cli, refining


@cli.command(
    examples="""
    ai_team_refiner.py --project ~/projects/webapp --team orchestrator,developer,tester --spec spec.md
    ai_team_refiner.py --project ~/projects/webapp --spec spec.md --by claude --model opus
    ai_team_refiner.py --project ~/projects/webapp --team orchestrator,developer --mock
    """
)
@click.option("--project", default=".", metavar="PATH", help="The repository (default: where you are), or its name.")
@click.option(
    "--team", metavar="ROLE,...", multiple=True, help="The team to improve (default: the one a launch would get)."
)
@click.option("--spec", metavar="SPEC", help="The spec that the team is to work.")
@click.option("--mock", is_flag=True, help="Ask nobody: what the rules alone would change, always the same.")
@click.option(
    "--by",
    type=click.Choice(list(refining.ASKED)),
    help="Ask Claude Code, or Anthropic's API (default: the API when ANTHROPIC_API_KEY is set).",
)
@click.option("--model", metavar="NAME", help="The model to ask (default: Claude Code's own, or Sonnet).")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(1, 3600),
    default=300.0,
    metavar="SECONDS",
    help="Wait this long for the answer (default 300).",
)
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> None:
    """Ask Claude which roles a team lacks and which it can do without.

    Prints the differences with their reasons, and the command that launches the result. Changes nothing and launches
    nothing. Sends the spec and names of tracked files, and no other content.
    """
    refining.refine(output, refining.Request.of(options))


if __name__ == "__main__":
    cli.run(main)
