#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Suggests a team for a project and says why; the room is lib/front/suggesting.py."""

from __future__ import annotations

import click

from lib.front import cli, suggesting


@cli.command(
    examples="""
    dynamic_team.py --project ~/projects/webapp
    dynamic_team.py --project ~/projects/infra --type infrastructure_as_code
    dynamic_team.py --project ~/projects/startup --max-size 3
    dynamic_team.py --project ~/projects/api --spec spec.md --json
    dynamic_team.py --project ~/projects/api --export team-config.yaml
    """
)
@click.option("--project", default=".", metavar="PATH", help="The repository (default: where you are), or its name.")
@click.option("--type", "team_type", metavar="TYPE", help="The team type; without it the type is detected.")
@click.option("--max-size", "most", type=click.IntRange(1), metavar="N", help="At most so many agents (default 5).")
@click.option("--spec", metavar="SPEC", help="A spec, whose words count too.")
@click.option("--export", metavar="FILE", help="Also write the team as a team type of your own.")
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> None:
    """Suggest a team for a project: the type with its evidence, and each role with its reason.

    Nothing is launched, and nothing but FILE is written.
    """
    suggesting.suggest(output, suggesting.Request.of(options))


if __name__ == "__main__":
    cli.run(main)
