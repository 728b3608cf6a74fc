"""Showing how a launch goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import click

from lib.front.cli import Output
from lib.launch import Progress

#: The steps of an agent's launch, in order; each fills one more field of its bar.
STEPS = ("worktree", "started", "ready", "briefed")


@contextlib.contextmanager
def shown(output: Output, roles: Sequence[str]) -> Iterator[Progress]:
    """Show the progress of a launch while the block runs, on stderr; nothing under --quiet and --json."""
    if output.quiet or output.json:
        yield lambda role, step: None
    elif sys.stderr.isatty():
        with _live(roles) as report:
            yield report
    else:
        began = time.monotonic()
        yield lambda role, step: click.echo(f"{time.monotonic() - began:5.1f} s  {role:20} {step}", err=True)


@contextlib.contextmanager
def waiting(output: Output, sentence: str) -> Iterator[None]:
    """Show that something is waited for while the block runs, as `shown` does."""
    if output.quiet or output.json or not sys.stderr.isatty():
        if not output.json:
            output.say(sentence)
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - as in `_live`

    with Console(stderr=True).status(sentence):
        yield


@contextlib.contextmanager
def _live(roles: Sequence[str]) -> Iterator[Progress]:
    from rich.console import Console  # noqa: PLC0415 - 200 ms that only a person at a terminal pays
    from rich.live import Live  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    reached: dict[str, str] = dict.fromkeys(roles, "")
    lock = threading.Lock()

    def table() -> Table:
        view = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for role, step in reached.items():
            done = STEPS.index(step) + 1 if step in STEPS else int(bool(step))
            bar = "━" * (4 * done) + "[dim]" + "━" * (4 * (len(STEPS) - done)) + "[/dim]"
            colour = "green" if step == STEPS[-1] else "cyan"
            view.add_row(role, f"[{colour}]{bar}[/{colour}]", step)
        return view

    with Live(table(), console=Console(stderr=True), refresh_per_second=12) as live:

        def report(role: str, step: str) -> None:
            with lock:
                if role in reached:
                    reached[role] = step
                live.update(table())

        yield report
