"""The simulated tmux server answers as the real one does: one script of calls, run against both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib.errors import OrchestratorError
from lib.tmux import ENTER, Pane, Tmux
from tests.conftest import wait_for
from tests.simulation.tmux import COLUMNS, ROWS, Shell, SimulatedTmux, Terminal
from tests.simulation.world import World

TEAM = "webapp-impl"
CAT = ("cat",)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(f"orchestrator-test-{uuid.uuid4().hex[:12]}")
    yield made
    if made.panes():
        made.run("kill-server")


@pytest.fixture
def simulated(tmp_path: Path) -> Tmux:
    world = World(1, tmp_path)

    def start(pane: str, argv: Sequence[str], cwd: Path) -> Terminal:
        return Shell(world.begin(argv[0]))

    return SimulatedTmux(world, start)


def said(call: Callable[[], Any]) -> Any:
    """What a call answers, or the class and the words of what it raises."""
    try:
        return call()
    except OrchestratorError as error:
        # Where exactly something is not found is in tmux's words, which name what was asked for.
        return type(error).__name__, error.sentence


def without_machine(panes: list[Pane]) -> list[Pane]:
    """Panes without what differs from machine to machine."""
    return [replace(pane, pid=0, command="", printed_at=0, columns=0, rows=0) for pane in panes]


def end_program(tmux: Tmux, pane: str, pid: int) -> None:
    """The program of a pane ends, and its pane shows that."""
    if isinstance(tmux, SimulatedTmux):
        tmux._world.kill(tmux._world.processes[pid])
        tmux._world.run(1.0)
    else:
        tmux.run("run-shell", f"kill -9 {pid}")
    wait_for(lambda: tmux.look(pane).dead, "the pane to be dead")


def script(tmux: Tmux, folder: Path) -> list[Any]:
    """All that is asked of tmux, and what it says."""
    found: list[Any] = []

    def note(call: Callable[[], Any]) -> Any:
        found.append(answer := said(call))
        return answer

    def window(index: int, agent: int, pane: str | None = None) -> tuple[str, int]:
        made = tmux.new_window(TEAM, index=index, name=f"agent{agent}", cwd=folder, agent=agent, argv=CAT, replace=pane)
        found.append(made[0])
        return made

    # No server.
    note(tmux.panes)
    note(lambda: tmux.has_target(f"={TEAM}"))
    note(lambda: tmux.orchestration_of(TEAM))
    note(lambda: tmux.look("%0"))
    note(lambda: tmux.paste("%0", 1, ["text"]))
    note(lambda: tmux.kill_session(TEAM))
    # A session, and its first window.
    note(lambda: tmux.new_session(TEAM, orchestration="a1b2c3", width=COLUMNS, height=ROWS))
    note(lambda: tmux.orchestration_of(TEAM))
    note(lambda: tmux.orchestration_of("webapp"))
    note(lambda: tmux.is_attached(TEAM))
    note(lambda: tmux.set_environment(TEAM, {"NAME": "value"}))
    pane, pid = window(0, 7)
    other, other_pid = window(1, 8)
    note(lambda: tmux.remove_placeholder(TEAM))
    note(lambda: tmux.remove_placeholder(TEAM))
    note(lambda: without_machine(tmux.panes()))
    note(lambda: [tmux.has_target(name) for name in (pane, "%77", f"={TEAM}", "=other")])
    # An index that somebody has taken; a pane and a session that are not there.
    note(lambda: window(0, 9)[0])
    note(lambda: tmux.look("%77"))
    note(lambda: tmux.screens([pane, "%77"]))
    note(lambda: tmux.paste("%77", pid, ["text"]))
    note(lambda: tmux.text(pane, agent=8))
    # Typing: only while the process is the one that is meant.
    note(lambda: tmux.paste(pane, pid, ["text"]))
    note(lambda: tmux.press(pane, other_pid, ENTER))
    note(lambda: (lambda look: (look.pid == pid, look.dead, look.in_mode, look.height))(tmux.look(pane)))
    # A program that has ended leaves its pane, and nothing can be typed there; another one starts in it.
    end_program(tmux, other, other_pid)
    note(lambda: without_machine(tmux.panes()))
    note(lambda: tmux.paste(other, other_pid, ["text"]))
    again, again_pid = window(1, 8, other)
    note(lambda: (again == other, again_pid != other_pid, tmux.look(again).dead))
    # The end of a session is the end of the server.
    note(lambda: tmux.kill_session(TEAM))
    note(tmux.panes)
    note(lambda: tmux.look(pane))
    note(lambda: tmux.last_words(pane))
    return found


def test_both_servers_give_the_same_answers(real: Tmux, simulated: Tmux, tmp_path: Path) -> None:
    assert script(simulated, tmp_path) == script(real, tmp_path)


def test_the_simulated_server_has_no_method_of_its_own_way() -> None:
    own = {name for name in vars(Tmux) if not name.startswith("_") and callable(getattr(Tmux, name))}
    shared = {"from_environment", "is_at", "command"}  # they ask no server
    assert own - shared <= vars(SimulatedTmux).keys()
