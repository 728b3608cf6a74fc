"""A look at a hundred panes of tmux, as every view needs it: in one call, in one call for each, and by libtmux."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import alternatives
from benchmarks.figures import Alternative, Figure
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import Counts
from lib.errors import NotFound

PANES = 100
_LIBTMUX = "libtmux_panes.py"
#: What each pane shows: as much as a screen holds.
_FILLED = "for number in range(45): print(f'line {number} of what an agent has printed')\nimport time\ntime.sleep(1000)"


def panes(counts: Counts) -> list[Figure]:
    """The state of every pane (what the snapshot, `status` and recovery need), and its screen as well (what the
    recorder looks at): ours in one call of tmux each, the others as most scripts and libraries do it. libtmux runs
    already, so its 264 ms of import are not in it.
    """
    took: dict[str, list[float]] = {}
    with rehearsal() as machine, ExitStack() as stack:
        _open(machine)
        ids = [pane.id for pane in machine.tmux.panes()]
        looks: dict[str, Callable[[], object]] = {
            "state": machine.tmux.panes,
            "state by calls": lambda: [_display(machine, pane) for pane in ids],
            "screens": lambda: (machine.tmux.panes(), machine.tmux.screens(ids)),
            "screens by calls": lambda: [(_display(machine, pane), _capture(machine, pane)) for pane in ids],
        }
        missing = ""
        try:
            program = alternatives.Program(_LIBTMUX, machine.environment, str(machine.tmux.socket))
            stack.enter_context(program)
            looks["screens by libtmux"] = lambda: program.ask(look=True)
        except NotFound as reason:
            missing = reason.sentence
        for _ in range(counts.looks):
            for name, look in looks.items():
                began = time.perf_counter()
                look()
                took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
    by_libtmux = Alternative(alternatives.pinned(_LIBTMUX), tuple(took.get("screens by libtmux", ())), missing)
    by_calls = f"{PANES} calls of tmux"
    return [
        Figure(
            f"the state of {PANES} panes",
            "ms",
            tuple(took["state"]),
            alternatives=(Alternative(by_calls, tuple(took["state by calls"])),),
            headline=True,
        ),
        Figure(
            f"state and screens of {PANES} panes",
            "ms",
            tuple(took["screens"]),
            alternatives=(Alternative(f"two times {by_calls}", tuple(took["screens by calls"])), by_libtmux),
            headline=True,
        ),
    ]


def _open(machine: Machine) -> None:
    """One session for each pane: a window that is too small to be split a hundred times would hide most of them."""
    for number in range(PANES):
        size = ("-x", "200", "-y", "50")
        words = ("new-session", "-d", "-s", f"pane{number}", *size, sys.executable, "-c", _FILLED)
        machine.run(*machine.tmux.command("-f", "/dev/null", *words))
    ids = [pane.id for pane in machine.tmux.panes()]
    wait_for(lambda: all("line 44" in screen for screen in machine.tmux.screens(ids).values()), "all panes to be full")


def _display(machine: Machine, pane: str) -> object:
    return machine.run(
        *machine.tmux.command("display-message", "-p", "-t", pane, "#{pane_pid} #{pane_current_command}")
    )


def _capture(machine: Machine, pane: str) -> object:
    return machine.run(*machine.tmux.command("capture-pane", "-e", "-p", "-t", pane))
