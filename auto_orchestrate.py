#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""From specs to teams: launch, queue, resume, look, rehearse (rooms: lib/front/starting.py, lib/front/batching.py)."""

from __future__ import annotations

import click

from lib import config, host
from lib.front import batching, cli, demo, researching, starting
from lib.judgement.teams import PLANS, SIZES
from lib.models import BUDGET_MINUTES, PRIORITIES, GitMode, Program


@cli.command(
    examples="""
    auto_orchestrate.py --demo
    auto_orchestrate.py --spec spec.md
    auto_orchestrate.py --project ~/projects/webapp --spec spec.md --dry-run
    auto_orchestrate.py --project ~/projects/webapp --spec spec.md --roles orchestrator,developer,tester
    auto_orchestrate.py --spec spec.md --check-spec
    auto_orchestrate.py --spec spec.md --agent rehearsal
    auto_orchestrate.py --spec checkout.md --spec search.md --spec "ideas/*.md"
    auto_orchestrate.py --batch-file batch.yaml --dry-run
    auto_orchestrate.py --fleet --spec spec.md
    auto_orchestrate.py --new-project --spec specs/word-counter.md
    auto_orchestrate.py --project ~/projects/webapp --resume
    """
)
@click.option("--project", metavar="PATH", help="The git repository to work on (default: the spec's own).")
@click.option(
    "--spec",
    "specs",
    metavar="PATH",
    multiple=True,
    help="The Markdown spec to work. Several, a folder and a quoted pattern are queued.",
)
@click.option("--new-project", is_flag=True, help="Make a new repository beside the spec's own, for each spec.")
@click.option("--force", is_flag=True, help="--new-project: move what has the name to NAME.backup-TIME.")
@click.option("--batch", is_flag=True, help="Queue, also when it is one spec.")
@click.option("--batch-file", metavar="PATH", help="Queue what a JSON or YAML file names (examples/batch.yaml).")
@click.option("--again", is_flag=True, help="Queue: also when the same spec of the project is there already.")
@click.option("--priority", type=click.IntRange(*PRIORITIES), metavar="NUMBER", help="Queue: higher goes first.")
@click.option("--tag", "tags", metavar="TEXT", multiple=True, help="Queue: a mark of your own; may be repeated.")
@click.option(
    "--budget", type=click.IntRange(*BUDGET_MINUTES), metavar="MINUTES", help="Queue: how long a team may work."
)
@click.option("--fleet", is_flag=True, help="Queue in the fleet, for whichever host has room (docs/fleet.md).")
@click.option("--label", type=cli.Label(), metavar="LABEL", help="--fleet: only for a host with this label.")
@click.option("--roles", metavar="ROLE,...", multiple=True, help="Exactly these roles; may be repeated.")
@click.option("--add-roles", metavar="ROLE,...", multiple=True, help="These roles too, whatever chooses the team.")
@click.option("--team-type", metavar="TYPE", help="Choose the team by this type of project.")
@click.option("--plan", type=click.Choice(list(PLANS)), help="Your Claude plan; caps the team.")
@click.option("--size", type=click.Choice(list(SIZES)), help="How big a team (default: medium).")
@click.option("--agent", type=click.Choice([str(p) for p in Program]), help="What the agents run (default: claude).")
@click.option(
    "--git-mode",
    type=click.Choice([str(mode) for mode in GitMode]),
    help="Also push the merged work and open a pull request, or not (default: local; docs/merging.md).",
)
@click.option("--no-ai", is_flag=True, help="Ask no model about the spec: rules choose the team (docs/analysis.md).")
@click.option("--resume", is_flag=True, help="Start again what is missing of the project's team.")
@click.option("--unattended", is_flag=True, help="With --resume: not with a Claude Code whose probe has failed.")
@click.option("--status-only", is_flag=True, help="With --resume: only show; change nothing.")
@click.option(
    "--dry-run", is_flag=True, help="Show what a launch would do; change nothing. A model is asked as for a launch."
)
@click.option(
    "--check-spec", is_flag=True, help="Only read the spec: what was understood, or what is wrong in which line."
)
@click.option("--research", metavar="JSON", help="Analyse failures, and only that; prints JSON (docs/research.md).")
@click.option("--demo", is_flag=True, help="See a team of rehearsal agents work a bundled spec, in under a minute.")
@cli.pass_output
def main(output: cli.Output, /, **options: object) -> int:
    """Turn a Markdown spec into a working team of agents."""
    research = options.pop("research")
    if options.pop("demo"):
        demo.run(output, config.state_home())
    elif research is not None:
        others = starting.Request.of(options)
        return researching.run(output, config.state_home(), host.working_folder(), str(research), others)
    else:
        batching.orchestrate(output, config.state_home(), host.working_folder(), starting.Request.of(options))
    return 0


if __name__ == "__main__":
    cli.run(main)
