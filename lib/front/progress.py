"""Showing what is waited for, on stderr: on a terminal a picture that moves, elsewhere plain lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from lib.front.cli import Output

if TYPE_CHECKING:
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
    from rich.text import Text  # noqa: PLC0415 - as in `_live`

    with Console(stderr=True).status(Text(sentence)):  # a command in it may hold what rich takes for markup
        yield


#: Elsewhere than on a terminal what is over sooner needs no lines of its own.
_SOON_SECONDS = 2.0


@contextlib.contextmanager
def counted(output: Output, sentence: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show how many of so many things are done while the block runs, as `shown` does.

    What is given is to be called with the name of each as it is done, from any thread.
    """
    if output.quiet or output.json:
        yield lambda name: None
    elif sys.stderr.isatty():
        with _bar(sentence, total) as done:
            yield done
    else:
        yield _Lines(sentence, total).add


class _Lines:
    """A line for each thing that is done, once it has taken a while; the sentence stands above the first."""

    def __init__(self, sentence: str, total: int) -> None:
        self._sentence, self._total, self._began = sentence, total, time.monotonic()
        self._lock, self._done, self._is_headed = threading.Lock(), 0, False

    def add(self, name: str) -> None:
        with self._lock:
            self._done += 1
            seconds = time.monotonic() - self._began
            if seconds < _SOON_SECONDS:
                return
            if not self._is_headed:
                self._is_headed = True
                click.echo(self._sentence, err=True)
            click.echo(f"{seconds:5.1f} s  {self._done} of {self._total}  {name}", err=True)


@contextlib.contextmanager
def _bar(sentence: str, total: int) -> Iterator[Callable[[str], None]]:
    from rich.console import Console  # noqa: PLC0415 - as in `_live`
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("{task.fields[last]}", markup=False)),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(sentence, total=total, last="")
        yield lambda name: progress.update(task, advance=1, last=name)


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
