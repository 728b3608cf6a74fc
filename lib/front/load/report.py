"""What load_tester.py prints: how it goes on, the table of steps, the knee, and what was lost."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from lib.front.cli import Output
from lib.front.load import trial
from lib.front.load.trial import Measured, Told
from lib.judgement import capacity
from lib.judgement.capacity import Losses, Step, Taken
from lib.judgement.durations import Spread
from lib.judgement.findings import size
from lib.judgement.loads import Plan

#: Elsewhere than on a terminal a line comes when something is new, and at least this often.
_LINE_EVERY_SECONDS = 30.0
_LOST_IN_WORDS = {
    "unacknowledged": "messages not acknowledged",
    "not_received": "messages in no transcript",
    "doubled": "messages twice in a transcript",
    "check_ins": "check-ins not fired",
    "agents": "agents ended",
    "launches": "launches failed",
    "scheduler_steps": "steps of the scheduler failed",
}


def run(output: Output, plan: Plan) -> bool:
    """Run a trial and print what came of it. Returns whether nothing was lost."""
    load = os.getloadavg()
    with shown(output, plan) as told:
        found = trial.run(plan, told)
    output.answer("\n".join(lines(found, load)), as_data(found, plan, load))
    return not found.losses.any


def as_data(found: Measured, plan: Plan, load: Sequence[float]) -> dict[str, object]:
    """A trial as JSON has it: durations in ms, memory in bytes."""
    return {
        "plan": asdict(plan),
        "load_average_before": load[0],
        "cores": os.cpu_count(),
        "steps": [asdict(one) for one in found.steps],
        "knee": asdict(capacity.knee(found.steps)),
        "losses": asdict(found.losses),
        "failures": list(found.failures),
        "ok": not found.losses.any,
    }


def lines(found: Measured, load: Sequence[float]) -> Iterator[str]:
    """A trial as plain lines."""
    yield f"{os.cpu_count()} cores; load average {load[0]:.1f} before the trial"
    for step in found.steps:
        yield from _step(step)
    knee = capacity.knee(found.steps)
    bend = "" if knee.bends_at is None else f"; at {knee.bends_at} "
    yield f"knee: well up to {knee.orchestrations} orchestrations{bend or ', '}{knee.why}"
    yield f"lost: {_lost(found.losses)}"
    yield from (f"failed: {sentence}" for sentence in found.failures)


def _step(step: Step) -> Iterator[str]:
    yield f"{step.orchestrations} orchestrations, {step.agents} agents, {step.seconds:.0f} s"
    rate = step.messages.count / step.seconds
    for name, figures in (
        ("launch", _durations(step.launches)),
        ("messages", f"{_durations(step.messages)}; {rate:.1f} a second, {step.lost} lost"),
        ("check-ins late", _durations(step.check_ins)),
        ("beat", _durations(step.beats)),
        ("scheduler", _taken(step.scheduler)),
        ("agents", _taken(step.agents_took)),
        ("tmux", _taken(step.tmux)),
        ("load tester", _taken(step.tester)),
        ("all cores", f"{step.busy_percent:.0f} % busy"),
    ):
        yield f"  {name:15} {figures}"


def _durations(found: Spread) -> str:
    if not found.count:
        return "none"
    shown = ", ".join(f"{name} {_time(value)}" for name, value in _ranks(found))
    return f"{found.count}: {shown}"


def _ranks(found: Spread) -> Sequence[tuple[str, float]]:
    ranks = (("p50", found.p50), ("p95", found.p95), ("p99", found.p99), ("max", found.longest))
    return [(name, value) for name, value in ranks if value is not None]


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 10_000 else f"{milliseconds:.0f} ms"


def _taken(found: Taken) -> str:
    return (
        f"{found.cpu_percent:.1f} % of a core, {found.started_cpu_percent:.1f} % in programs that it started;"
        f" {size(found.memory_bytes)}, {found.handles} handles, {found.processes} processes"
    )


def _lost(losses: Losses) -> str:
    return "; ".join(f"{count} {_LOST_IN_WORDS[name]}" for name, count in asdict(losses).items() if count) or "nothing"


# -- how it goes on --


@contextlib.contextmanager
def shown(output: Output, plan: Plan) -> Iterator[Told]:
    """Show how a trial goes on, on stderr: a bar on a terminal, lines elsewhere, nothing under --quiet and --json."""
    if output.quiet or output.json:
        yield lambda sentence, seconds: None
    elif sys.stderr.isatty():
        with _bar(plan) as told:
            yield told
    else:
        yield _Lines()


class _Lines:
    """A line when there is something new to say, and now and then."""

    def __init__(self) -> None:
        self._began, self._said, self._at = time.monotonic(), "", 0.0

    def __call__(self, sentence: str, _seconds: float) -> None:
        now = time.monotonic()
        if sentence != self._said or now > self._at + _LINE_EVERY_SECONDS:
            self._said, self._at = sentence, now
            click.echo(f"{now - self._began:6.1f} s  {sentence}", err=True)


@contextlib.contextmanager
def _bar(plan: Plan) -> Iterator[Told]:
    from rich.console import Console  # noqa: PLC0415 - 200 ms that only a person at a terminal pays
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=plan.seconds)
        yield lambda sentence, seconds: progress.update(task, description=sentence, completed=seconds)
