"""A tmux server in memory, with the methods, the answers and the errors of `lib.tmux.Tmux`.

`test_tmux.py` runs one script of calls against this one and a real one, and compares what they say.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lib.errors import NotFound, OrchestratorError
from lib.tmux import Look, Pane, Tmux
from tests.simulation.world import SimulatedProcess, World

#: The size of a window; what agents draw is as wide.
COLUMNS, ROWS = 80, 24
_PLACEHOLDER_INDEX = 99
_NO_SERVER = NotFound("no tmux server is running", hint="tmux ls")


class Terminal(Protocol):
    """What runs in a pane: it takes bytes and has a screen."""

    process: SimulatedProcess

    def take(self, text: str) -> None:
        """Take what was typed or pasted."""

    def screen(self) -> str:
        """What it shows."""


#: Starts a program in a new pane.
Start = Callable[[str, Sequence[str], Path], Terminal]


@dataclass
class _Pane:
    id: str
    session: str
    window: int
    name: str
    terminal: Terminal
    agent: str = ""
    last_screen: str = ""
    #: Whether it stays when its program ends.
    stays: bool = False
    printed_at: int = 0

    @property
    def is_dead(self) -> bool:
        return not self.terminal.process.is_alive


@dataclass
class _Session:
    name: str
    orchestration: str
    environment: dict[str, str] = field(default_factory=dict)


class Shell:
    """A program that takes what is typed and shows it: a person's own, or what keeps a session alive."""

    def __init__(self, process: SimulatedProcess) -> None:
        self.process = process
        self.typed: list[str] = []

    def take(self, text: str) -> None:
        self.typed.append(text)

    def screen(self) -> str:
        return "\n".join(["$ ", *[""] * (ROWS - 1)])


class SimulatedTmux(Tmux):
    """The server. Every call is a crossing; one that hangs or fails is a fault's doing."""

    def __init__(self, world: World, start: Start) -> None:
        super().__init__("simulated")
        self._world, self._start = world, start
        self._sessions: dict[str, _Session] = {}
        self._panes: dict[str, _Pane] = {}
        self._count = 0
        #: Called with what changes a session or a pane: the verb, and the session's mark.
        self.on_change: Callable[[str, str], None] = lambda verb, mark: None

    # -- asking --

    def check(self) -> str:
        self._world.cross("tmux.check")
        return "3.3a"

    def check_stays(self) -> None:
        self._world.cross("tmux.check_stays")

    def panes(self) -> list[Pane]:
        self._world.cross("tmux.panes")
        return [self._pane(one) for one in self._in_order()]

    def _in_order(self) -> list[_Pane]:
        return sorted(self._panes.values(), key=lambda one: (one.session, one.window, int(one.id[1:])))

    @staticmethod
    def _pane(one: _Pane) -> Pane:
        command = "claude" if one.agent else "sh"
        return Pane(
            *(one.session, one.window, one.id, one.terminal.process.pid, one.is_dead, command, one.agent, True),
            *(one.printed_at, COLUMNS, ROWS, one.name),
        )

    def has_target(self, target: str) -> bool:
        self._world.cross("tmux.has_target")
        return target in self._panes or target.removeprefix("=") in self._sessions

    def is_attached(self, session: str) -> bool:
        self._world.cross("tmux.is_attached")
        return False

    def look(self, pane: str) -> Look:
        self._world.cross("tmux.look")
        found = self._at(pane)
        return Look(found.terminal.process.pid, found.is_dead, False, False, ROWS, self._screen(found))

    def screens(self, panes: Sequence[str]) -> dict[str, str]:
        if not panes:
            return {}
        self._world.cross("tmux.screens")
        return {pane: self._screen(self._at(pane)) for pane in panes}

    def text(self, pane: str, *, agent: int, lines: int | None = None, colours: bool = False) -> str | None:
        self._world.cross("tmux.text")
        found = self._panes.get(pane)
        return self._screen(found) if found and found.agent == str(agent) else None

    def last_words(self, pane: str) -> str:
        self._world.cross("tmux.last_words")
        if pane not in self._panes:
            return "its window is gone"
        lines = [line.strip() for line in self._screen(self._panes[pane]).splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"

    @staticmethod
    def _screen(pane: _Pane) -> str:
        if not pane.is_dead:
            pane.last_screen = pane.terminal.screen()
        return pane.last_screen

    def _at(self, pane: str) -> _Pane:
        if not self._sessions:
            raise _NO_SERVER
        if pane not in self._panes:
            raise NotFound(f"can't find pane: {pane}", hint="tmux list-windows -a")
        return self._panes[pane]

    # -- changing --

    def new_session(self, name: str, *, orchestration: str, width: int = COLUMNS, height: int = ROWS) -> None:
        self._world.cross("tmux.new_session")
        if name in self._sessions:
            raise OrchestratorError(f"tmux: duplicate session: {name}")
        self.add_session(name, orchestration, Shell(self._world.begin("placeholder")), _PLACEHOLDER_INDEX)

    def add_session(self, name: str, orchestration: str, terminal: Terminal, window: int) -> None:
        """A session with one window, as a person makes one."""
        self._world.tell(f"tmux session {name}")
        self._sessions[name] = _Session(name, orchestration)
        self._add(name, window, name, terminal)

    def _add(self, session: str, window: int, name: str, terminal: Terminal) -> _Pane:
        made = _Pane(f"%{self._count}", session, window, name, terminal)
        self._count += 1
        self._panes[made.id] = made
        terminal.process.at_end.append(lambda: self._ended(made, terminal))
        return made

    def _ended(self, pane: _Pane, terminal: Terminal) -> None:
        """A program has ended: its pane stays with what it showed last, or goes."""
        if pane.terminal is terminal and not pane.stays:
            self._remove(pane)

    def _remove(self, pane: _Pane) -> None:
        if self._panes.pop(pane.id, None) is None:
            return
        if not any(one.session == pane.session for one in self._panes.values()):
            self._sessions.pop(pane.session, None)
        if not self._sessions:
            self._count = 0  # the server leaves with its last session, and the next one counts anew

    def remove_placeholder(self, name: str) -> None:
        self._world.cross("tmux.remove_placeholder")
        for pane in self._in_order():
            if pane.session == name and pane.window == _PLACEHOLDER_INDEX and not pane.agent:
                self._world.end(pane.terminal.process)
                self._remove(pane)

    def orchestration_of(self, session: str) -> str | None:
        self._world.cross("tmux.orchestration_of")
        found = self._sessions.get(session)
        return found.orchestration if found else None

    def set_environment(self, session: str, values: Mapping[str, str]) -> None:
        self._world.cross("tmux.set_environment")
        self._session(session).environment.update(values)

    def _session(self, name: str) -> _Session:
        if not self._sessions:
            raise _NO_SERVER
        if name not in self._sessions:
            raise NotFound(f"can't find session: {name}", hint="tmux list-windows -a")
        return self._sessions[name]

    def new_window(
        self,
        session: str,
        *,
        index: int,
        name: str,
        cwd: Path,
        agent: int,
        argv: Sequence[str],
        replace: str | None,
    ) -> tuple[str, int]:
        self._world.cross("tmux.new_window")
        if replace:
            pane = self._at(replace)
            self.on_change("respawn-pane", self._sessions[pane.session].orchestration)
            self._world.end(pane.terminal.process, -9)
            pane.terminal = self._start(replace, argv, cwd)
            pane.terminal.process.at_end.append(functools.partial(self._ended, pane, pane.terminal))
        else:
            found = self._session(session)
            self._make_room(session, index)
            self.on_change("new-window", found.orchestration)
            pane = self._add(session, index, name, self._start(f"%{self._count}", argv, cwd))
        pane.agent, pane.stays, pane.name = str(agent), True, name
        pid = pane.terminal.process.pid
        self._world.cross("tmux.new_window.done")
        return pane.id, pid

    def _make_room(self, session: str, index: int) -> None:
        taken = {one.window: one for one in self._panes.values() if one.session == session}
        if index in taken:
            first = _PLACEHOLDER_INDEX + 1 + index
            taken[index].window = next(number for number in itertools.count(first) if number not in taken)

    def paste(self, pane: str, pid: int, chunks: Sequence[str], *, command: str | None = None) -> None:
        bracketed = ["\x1b[200~" + chunk.replace("\n", "\r") + "\x1b[201~" for chunk in chunks]
        self._type("tmux.paste", pane, pid, "".join(bracketed))

    def press(self, pane: str, pid: int, key: str, *, command: str | None = None) -> None:
        self._type("tmux.press", pane, pid, key)

    def _type(self, where: str, pane: str, pid: int, text: str) -> None:
        self._world.cross(where)
        if not self._sessions:
            raise _NO_SERVER
        found = self._panes.get(pane)  # tmux says nothing of a pane that is not there
        if found and not found.is_dead and found.terminal.process.pid == pid:
            self.on_change(where, self._sessions[found.session].orchestration)
            found.terminal.take(text)
            found.printed_at = self._world.wall_ms // 1000
        self._world.cross(f"{where}.done")

    def kill_session(self, name: str) -> None:
        self._world.cross("tmux.kill_session")
        if name in self._sessions:
            self.on_change("kill-session", self._sessions[name].orchestration)
            self._world.tell(f"tmux kill-session {name}")
            self._end([pane for pane in self._in_order() if pane.session == name])

    def _end(self, panes: Sequence[_Pane]) -> None:
        for pane in panes:
            self._remove(pane)
            self._world.end(pane.terminal.process, -1)

    def kill_server(self) -> None:
        """The server is killed, and with it goes all that runs in it."""
        self._world.tell("tmux server killed")
        self._end(self._in_order())

    # -- running --

    def run(self, *arguments: str) -> str:
        assert arguments[0] == "capture-pane", "no other command is run without a method of its own"
        return self.look(arguments[-1]).screen
