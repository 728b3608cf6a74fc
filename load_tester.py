#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Measures how many orchestrations this machine bears; the room is lib/front/load/."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from lib.errors import ExitCode
from lib.front import cli
from lib.front.cli import Output
from lib.front.load import report
from lib.judgement import loads

F = TypeVar("F", bound=Callable[..., object])

#: In a teams' day six messages a minute to each of five agents are many.
RATE = 0.5


def _rate(function: F) -> F:
    text = f"Messages a second to each orchestration (default {RATE:g})."
    return click.option("--rate", type=click.FloatRange(0.001, 1000), default=RATE, metavar="NUMBER", help=text)(
        function
    )


def _hold(function: F) -> F:
    text = "How long the most orchestrations are measured (default 60)."
    seconds = click.FloatRange(1, 86_400)
    return click.option("--hold", type=seconds, default=60.0, metavar="SECONDS", help=text)(function)


@cli.group(
    examples="""
    load_tester.py concurrent --count 10
    load_tester.py ramp --max 20 --duration 600 --hold 300
    """
)
def main() -> None:
    """Measure how many orchestrations of five rehearsal agents this machine bears.

    With a state home, HOME and tmux server of their own, of which nothing is left. The exit code is 1 when anything
    was lost.
    """


@cli.verb(
    main,
    examples="""
    load_tester.py concurrent --count 5 --hold 300
    load_tester.py concurrent --count 10 --interval 2 --hold 60
    load_tester.py concurrent --count 5 --json > load-test-results.json
    """,
)
@click.option("--count", type=click.IntRange(1, 200), default=5, metavar="N", help="Orchestrations (default 5).")
@click.option("--interval", type=click.FloatRange(0, 3600), default=1.0, metavar="SECONDS", help="Between starts (1).")
@_hold
@_rate
@cli.pass_output
def concurrent(output: Output, count: int, interval: float, hold: float, rate: float) -> int:
    """Start so many orchestrations and measure them all together."""
    return _code(report.run(output, loads.concurrent(count, interval=interval, hold=hold, rate=rate)))


@cli.verb(
    main,
    examples="""
    load_tester.py ramp --max 20 --duration 600 --hold 300
    load_tester.py ramp --max 15 --json > load-report.json
    """,
)
@click.option(
    "--max", "most", type=click.IntRange(1, 200), default=10, metavar="N", help="Orchestrations (default 10)."
)
@click.option(
    "--duration", type=click.FloatRange(1, 86_400), default=300.0, metavar="SECONDS", help="Of growing (default 300)."
)
@_hold
@_rate
@cli.pass_output
def ramp(output: Output, most: int, duration: float, hold: float, rate: float) -> int:
    """Start one orchestration after the other, measure each step, and find where it bends."""
    return _code(report.run(output, loads.ramp(most, duration=duration, hold=hold, rate=rate)))


def _code(is_well: bool) -> int:
    return ExitCode.DONE if is_well else ExitCode.FAILED


if __name__ == "__main__":
    cli.run(main)
