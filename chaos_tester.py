#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Breaks rehearsal teams on purpose and looks whether all comes back; the rooms are in lib/front/chaos/."""

from __future__ import annotations

import click

from lib.front import cli
from lib.front.chaos import running
from lib.front.chaos.running import Request
from lib.front.cli import Output
from lib.judgement.ordeals import KINDS, Severity


@cli.command(
    examples="""
    chaos_tester.py --duration 30 --dry-run
    chaos_tester.py --duration 15 --severity high
    chaos_tester.py --only kill-agent --only kill-server --duration 1
    chaos_tester.py --min-interval 60 --max-interval 300 --seed 7
    chaos_tester.py --duration 60 --json > chaos-results.json
    """
)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    default=10,
    metavar="MINUTES",
    help="Strike for so long (default 10).",
)
@click.option(
    "--severity",
    type=click.Choice([str(one) for one in Severity]),
    default=str(Severity.MEDIUM),
    help="What may be broken: a part, also the team, also the machine (default medium).",
)
@click.option(
    "--min-interval", type=click.FloatRange(0), default=10, metavar="SECONDS", help="Shortest pause (default 10)."
)
@click.option(
    "--max-interval", type=click.FloatRange(0), default=60, metavar="SECONDS", help="Longest pause (default 60)."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Make the same plan again.")
@click.option(
    "--only",
    type=click.Choice([kind.name for kind in KINDS]),
    multiple=True,
    metavar="KIND",
    help="Only this kind of strike; may be repeated.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=90,
    metavar="SECONDS",
    help="How long a recovery may take (default 90).",
)
@click.option("--session", metavar="SESSION", help="Hit this team of yours instead, by what it can bear; needs --yes.")
@click.option("--yes", is_flag=True, help="With --session: processes of it may be killed.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and break nothing.")
@cli.pass_output
def main(
    output: Output,
    duration: float,
    severity: str,
    min_interval: float,
    max_interval: float,
    seed: int | None,
    only: tuple[str, ...],
    patience: float,
    session: str | None,
    yes: bool,
    dry_run: bool,
) -> int:
    """Break rehearsal teams by a seeded plan, and tell whether each came back with nothing lost or doubled.

    They have a HOME, a state home and a tmux server of their own, which are removed at the end. It leaves with 1 when
    something did not hold.
    """
    intervals = (min_interval, max_interval)
    request = Request(duration * 60, Severity(severity), intervals, seed, only, patience, dry_run, session, yes)
    return running.run(output, request)


if __name__ == "__main__":
    cli.run(main)
