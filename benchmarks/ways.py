"""The ways to bring a text to an agent: ours, what most scripts do, and two other programs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks import alternatives
from benchmarks.figures import Alternative
from benchmarks.machine import Machine, wait_for
from benchmarks.messages import plain
from lib import delivery, host
from lib.claude import sessions, transcripts
from lib.errors import NotFound, OrchestratorError
from lib.judgement import screens
from lib.models import PENDING, Agent, AgentState, MessageStatus, Process
from lib.tmux import Tmux

#: Two Ctrl-C within two seconds end an agent.
_BETWEEN_INTERRUPTS_SECONDS = 2.2

OURS, IN_PROCESS = "ours", "ours, inside of a running process"
BY_KEYS = "send-keys, sleep 0.5, Enter"
_LIBTMUX, _CAO = "libtmux_panes.py", "cao_server.py"
BY_LIBTMUX, BY_CAO = alternatives.pinned(_LIBTMUX), alternatives.pinned(_CAO)


# -- where a message goes --


@dataclass
class Seat:
    """One agent in its pane, with what a person can see and do there."""

    tmux: Tmux
    pane: str
    config_dir: Path
    conversation: str
    process: Process
    folder: Path
    _interrupted_at: float = 0.0

    @classmethod
    def of(cls, machine: Machine, role: str) -> Seat:
        agent = machine.agent(role)
        assert agent.pane_id and agent.process
        return cls(machine.tmux, agent.pane_id, agent.config_dir, agent.conversation_id, agent.process, agent.worktree)

    @property
    def state(self) -> AgentState:
        return sessions.state(self.config_dir, self.conversation, self.process)

    @property
    def draft(self) -> str:
        return screens.read(self.tmux.look(self.pane).screen).draft

    def wait_for(self, state: AgentState) -> None:
        wait_for(lambda: self.state is state, f"{self.pane} to be {state}")

    def size(self) -> int:
        """Where its transcript ends now."""
        path = transcripts.find(self.config_dir, self.conversation)
        return path.stat().st_size if path else 0

    def read_since(self, start: int) -> list[str]:
        """The texts that the agent has come to read since its transcript had this size."""
        path = transcripts.find(self.config_dir, self.conversation)
        return [plain(text) for text in transcripts.prompts(path, start=start, has_read=True)] if path else []

    def said_since(self, start: int, words: str) -> bool:
        path = transcripts.find(self.config_dir, self.conversation)
        return path is not None and words.encode() in path.read_bytes()[start:]

    def types(self, text: str) -> None:
        """As a person: paste, see it there, press Enter."""
        self.tmux.run("set-buffer", "-b", "person", "--", text)
        self.tmux.run("paste-buffer", "-p", "-d", "-b", "person", "-t", self.pane)
        wait_for(lambda: text in self.draft, f"{text!r} to be shown")
        self.press("Enter")

    def wait_for_question(self) -> None:
        """It says that it asks a moment before the question is to be seen."""
        self.wait_for(AgentState.ASKING)
        wait_for(lambda: screens.dialog(self.tmux.look(self.pane).screen), "the question to be shown")

    def press(self, key: str) -> None:
        self.tmux.run("send-keys", "-t", self.pane, key)

    def tidy(self) -> None:
        """Say no to a question, wait for the end of a turn, and empty the composer: one loss makes no other one."""
        if self.state is AgentState.ASKING:
            self.press("Escape")
        self.wait_for(AgentState.IDLE)
        while self.draft:
            time.sleep(max(0.0, self._interrupted_at + _BETWEEN_INTERRUPTS_SECONDS - time.monotonic()))
            self.press("C-c")
            self._interrupted_at = time.monotonic()
            with suppress(OrchestratorError):  # it is tried again
                wait_for(lambda: not self.draft, "an empty composer", seconds=_BETWEEN_INTERRUPTS_SECONDS)


class Way(Protocol):
    """One way to bring a text to the agent that sits in its seat."""

    name: str
    seat: Seat

    def send(self, text: str) -> None: ...

    def has_told(self, text: str) -> bool:
        """Whether it says of a text that it has arrived."""
        ...

    def is_pending(self, text: str) -> bool:
        """Whether it says of a text that it will bring it later."""
        ...


@dataclass
class ByDoor:
    """`send-claude-message.sh`, as agents and people call it."""

    machine: Machine
    role: str
    name: str = OURS
    seat: Seat = field(init=False)

    def __post_init__(self) -> None:
        self.seat = Seat.of(self.machine, self.role)

    @property
    def agent(self) -> Agent:
        return self.machine.agent(self.role)

    def send(self, text: str) -> None:
        self.machine.door("send-claude-message.sh", self.agent.target, text)

    def has_told(self, text: str) -> bool:
        return self._status(text) == MessageStatus.ACKNOWLEDGED

    def is_pending(self, text: str) -> bool:
        return self._status(text) in PENDING

    def _status(self, text: str) -> str:
        row = self.machine.db().execute("SELECT status FROM messages WHERE body = ?", (text,)).fetchone()
        return str(row["status"]) if row else ""


@dataclass
class ByDelivery(ByDoor):
    """The same as the scheduler does it, which has its imports behind it."""

    name: str = IN_PROCESS

    def send(self, text: str) -> None:
        desk = delivery.Desk(self.machine.db(), self.machine.tmux, self.machine.home)
        delivery.send(desk, self.agent, text, sender="user", wait_seconds=10)


@dataclass
class ByKeys:
    """What most scripts do; they are told nothing."""

    machine: Machine
    seat: Seat
    name: str = BY_KEYS

    def send(self, text: str) -> None:
        self._keys(text)
        time.sleep(0.5)
        self._keys("Enter")

    def _keys(self, keys: str) -> None:
        words = self.machine.tmux.command("send-keys", "-t", self.seat.pane, keys)
        subprocess.run(words, env=self.machine.environment, check=False, capture_output=True)

    def has_told(self, text: str) -> bool:
        return False

    def is_pending(self, text: str) -> bool:
        return False


@dataclass
class ByLibtmux:
    """`Pane.send_keys` of libtmux, which is told nothing."""

    program: alternatives.Program
    seat: Seat
    name: str = BY_LIBTMUX

    def send(self, text: str) -> None:
        self.program.ask(send={"pane": self.seat.pane, "text": text})

    def has_told(self, text: str) -> bool:
        return False

    def is_pending(self, text: str) -> bool:
        return False


@dataclass
class ByCao:
    """The inbox of a CLI Agent Orchestrator, which has launched its own Claude Code."""

    program: alternatives.Program
    seat: Seat
    name: str = BY_CAO
    _sent: dict[str, int] = field(default_factory=dict)

    def send(self, text: str) -> None:
        self._sent[text] = self.program.ask(send=text)["message_id"]

    def has_told(self, text: str) -> bool:
        return self._status(text) == "delivered"

    def is_pending(self, text: str) -> bool:
        return self._status(text) == "pending"

    def _status(self, text: str) -> str:
        return str(self.program.ask(became=self._sent[text])["status"])


# -- the other programs --


@contextmanager
def by_libtmux(machine: Machine, role: str, missing: list[Alternative]) -> Iterator[Sequence[Way]]:
    """The way by libtmux; where that cannot be installed none, which is noted."""
    assert machine.tmux.socket
    try:
        program = alternatives.Program(_LIBTMUX, machine.environment, machine.tmux.socket)
    except NotFound as reason:
        missing.append(Alternative(BY_LIBTMUX, (), reason.sentence))
        yield ()
        return
    with program:
        yield (ByLibtmux(program, Seat.of(machine, role)),)


@contextmanager
def by_cao(machine: Machine, missing: list[Alternative]) -> Iterator[Sequence[Way]]:
    """The way by CLI Agent Orchestrator, on a tmux server of its own; where it cannot be installed none."""
    home, tmux_folder, project = (
        Path(machine.environment["HOME"]),
        machine.folder / "cao-tmux",
        machine.folder / "webapp",
    )
    tmux_folder.mkdir()
    # Its windows are login shells, which set PATH anew, and it takes variables that begin with CLAUDE away.
    (home / ".bash_profile").write_text(f"export PATH={machine.environment['PATH']}\n", encoding="utf-8")
    (home / ".claude").mkdir(exist_ok=True)
    kept = {"env": {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}}
    (home / ".claude" / "settings.json").write_text(json.dumps(kept), encoding="utf-8")
    environment = machine.environment | {"TMUX_TMPDIR": str(tmux_folder), "SHELL": "/bin/bash"}
    try:
        program = alternatives.Program(_CAO, environment, str(machine.folder / "cao"), str(project))
    except NotFound as reason:
        missing.append(Alternative(BY_CAO, (), reason.sentence))
        yield ()
        return
    tmux = Tmux(str(tmux_folder / f"tmux-{os.getuid()}" / "default"))
    with program:
        try:
            window = program.ask(terminal=True)
            yield (ByCao(program, _seat_of_cao(machine, tmux, f"{window['session_name']}:{window['name']}", project)),)
        finally:
            with suppress(NotFound):
                tmux.run("kill-server")


def _seat_of_cao(machine: Machine, tmux: Tmux, window: str, project: Path) -> Seat:
    pane, pid = tmux.run("display-message", "-p", "-t", f"={window}", "#{pane_id} #{pane_pid}").split()
    config_dir = machine.agent("developer").config_dir
    wait_for(lambda: sessions.conversation_in(config_dir, pane, int(pid)), "the conversation of its agent")
    found = sessions.conversation_in(config_dir, pane, int(pid))
    assert found
    process = host.process(found[1])
    assert process
    return Seat(tmux, pane, config_dir, found[0], process, project)
