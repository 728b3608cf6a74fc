#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""From a spec to a running team: launch, resume, look, rehearse (rooms: lib/launch.py, lib/starting.py)."""

from __future__ import annotations

import click

from lib import cli, config, demo, host, starting
from lib.models import Program
from lib.teams import PLANS, SIZES


@cli.command(
    examples="""
    auto_orchestrate.py --demo
    auto_orchestrate.py --spec spec.md
    auto_orchestrate.py --project ~/projects/webapp --spec spec.md --dry-run
    auto_orchestrate.py --project ~/projects/webapp --spec spec.md --roles orchestrator,developer,tester
    auto_orchestrate.py --spec spec.md --agent rehearsal
    auto_orchestrate.py --project ~/projects/webapp --resume
    """
)
@click.option("--project", metavar="PATH", help="The git repository to work on (default: the spec's own).")
@click.option("--spec", "specs", metavar="PATH", multiple=True, help="The Markdown spec to work.")
@click.option("--roles", metavar="ROLE,...", multiple=True, help="Exactly these roles; may be repeated.")
@click.option("--team-type", metavar="TYPE", help="Choose the team by this type of project.")
@click.option("--plan", type=click.Choice(list(PLANS)), help="Your Claude plan; caps the team.")
@click.option("--size", type=click.Choice(list(SIZES)), help="How big a team (default: medium).")
@click.option("--agent", type=click.Choice([str(p) for p in Program]), help="What the agents run (default: claude).")
@click.option("--resume", is_flag=True, help="Start again what is missing of the project's team.")
@click.option("--status-only", is_flag=True, help="With --resume: only show; change nothing.")
@click.option("--dry-run", is_flag=True, help="Show what a launch would do; change nothing.")
@click.option("--demo", is_flag=True, help="See a team of rehearsal agents work a bundled spec, in under a minute.")
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> None:
    """Turn a Markdown spec into a working team of agents."""
    if options.pop("demo"):
        demo.run(output, config.state_home())
    else:
        starting.orchestrate(output, config.state_home(), host.working_folder(), starting.Request.of(options))


if __name__ == "__main__":
    cli.run(main)
