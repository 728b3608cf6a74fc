"""Where a probe plays: a scratch machine with one agent, the model that it talks to, and what can be seen of both."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from lib import agents, config, host
from lib.claude import hooks, starting, transcripts
from lib.claude.hooks import HookReport
from lib.claude.installed import Installation
from lib.composer import Composer
from lib.config import Settings
from lib.errors import NotFound, OrchestratorError
from lib.git import repository
from lib.judgement import framing, screens
from lib.judgement.screens import Screen, ScreenKind
from lib.models import Agent, AgentState, Program
from lib.probing.model import ModelServer
from lib.records import dataclass
from lib.tmux import Tmux

#: Text that only the role file holds.
ROLE_MARK = "probe-role-5f1c"

#: tmux may show the last words of a process a moment after its end.
_WORDS_WITHIN_SECONDS = 1.0

Value = TypeVar("Value")


class Missed(Exception):
    """What a check looks for was not seen; the message is the sentence that says so."""


@dataclass
class Scene:
    """One agent in a scratch machine: that of the last `start`. `seconds` is how long something is looked for."""

    folder: Path
    installation: Installation
    tmux: Tmux
    model: ModelServer
    agent: Agent
    seconds: float
    sent: int = 0

    @classmethod
    @contextlib.contextmanager
    def made(cls, folder: Path, executable: str, *, seconds: float) -> Iterator[Scene]:
        """A scene in an empty folder, by the environment of `probing.environment`; nothing is started yet."""
        for name in ("home/.claude", "tmp", "state"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        with ModelServer() as model:
            os.environ["ANTHROPIC_BASE_URL"] = model.url
            installation = Installation(Program.CLAUDE, (executable,), "", folder / "home" / ".claude")
            scene = cls(folder, installation, Tmux.from_environment(), model, _agent(folder, "trusted"), seconds)
            scene._onboard(["trusted"])
            for name in ("trusted", "untrusted"):
                repository.ask(folder, "init", "-q", str(folder / name))
            # What our own tools cannot do is no fault of Claude Code: it ends the probe here.
            scene.tmux.new_session(scene.agent.session, orchestration="probe", width=120, height=40)
            yield scene

    @property
    def state_home(self) -> Path:
        return self.folder / "state"

    def _onboard(self, trusted: Sequence[str]) -> None:
        """Leave Claude Code nothing to ask but whether it may trust the other folders."""
        projects = {str((self.folder / name).resolve()): {"hasTrustDialogAccepted": True} for name in trusted}
        onboarded = {"hasCompletedOnboarding": True, "theme": "dark", "projects": projects}
        (self.folder / "home" / ".claude.json").write_text(json.dumps(onboarded), encoding="utf-8")

    # -- the agent --

    def start(self, folder: str = "trusted", *, mode: str = "bypassPermissions", resume: bool = False) -> None:
        """Start Claude Code as a launch does, in a window of its own; with `resume` the last one's conversation."""
        epoch = self.agent.epoch + 1
        agent = dataclasses.replace(
            _agent(self.folder, folder),
            epoch=epoch,
            conversation_id=self.agent.conversation_id if resume else str(uuid.uuid4()),
        )
        settings = Settings(permission_mode=mode)
        launch = starting.write_launch_files(
            agent,
            home=self.state_home,
            socket=self.tmux.socket,
            role_text=f"You are a probe: {ROLE_MARK}.",
            reminder="You are a probe.",
        )
        _serve_from_here(launch / "mcp.json")
        command = starting.launch_command(
            self.installation, agent, settings, home=self.state_home, socket=self.tmux.socket, resume=resume
        )
        pane, pid = self.tmux.new_window(
            agent.session,
            index=epoch,
            name=agent.role,
            cwd=agent.worktree,
            agent=agent.id,
            argv=command,
            replace=None,
        )
        process = host.process(pid) or host.ended(pid)
        self.agent = dataclasses.replace(agent, pane_id=pane, pane_pid=pid, process=process)

    def end(self, *, by_force: bool = False) -> None:
        """End the agent with its window; by force as a crash does."""
        if by_force and self.agent.process and host.is_alive(self.agent.process):
            os.kill(self.agent.process.pid, 9)
            self.until(lambda: self.state is AgentState.GONE, "the killed process is still there")
        with contextlib.suppress(NotFound):
            self.tmux.run("kill-window", "-t", str(self.agent.pane_id))

    @property
    def composer(self) -> Composer:
        return Composer(self.tmux, self.agent)

    def send(self, body: str) -> str:
        """Put a framed message into the composer and press Enter, as delivery does. Returns what was submitted."""
        text = self.put(body)
        self.composer.submit()
        return text

    def put(self, body: str) -> str:
        """Put a framed message into the composer, and see it stand there."""
        self.sent += 1
        text = framing.frame(self.sent, "probe", body)
        self.composer.put(framing.chunks(text))
        last = text.rsplit("\n", 1)[-1]
        self.until(lambda: self.composer.ends_with(last), "the composer did not show the text that was pasted")
        return text

    # -- what is seen --

    def until(self, look: Callable[[], Value | None], sentence: str) -> Value:
        """Wait until `look` returns something true, and return it. Raises `Missed` with the sentence."""
        deadline = time.monotonic() + self.seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise Missed(sentence)
            time.sleep(0.05)
        return found

    @property
    def state(self) -> AgentState:
        return agents.state_of(self.agent)

    @property
    def screen(self) -> Screen:
        shown = agents.screen(self.tmux, self.agent)
        return Screen(ScreenKind.OTHER, "", busy=False) if shown is None else screens.read(shown)

    def hooks(self, event: str) -> list[HookReport]:
        """What hooks of one kind have left of this life of the agent, oldest first."""
        found = []
        for path in sorted((self.state_home / "spool").glob(f"*-{self.agent.id}-{self.agent.epoch}.json")):
            report = hooks.report(path.read_bytes())
            found += [report] if report and report.event == event else []
        return found

    def transcript(self) -> Path:
        """The file of the conversation."""
        return self.until(
            lambda: transcripts.find(self.agent.config_dir, self.agent.conversation_id),
            "no transcript of the conversation is below ~/.claude/projects",
        )

    def free(self) -> None:
        """Wait until the agent is idle with an empty composer."""
        self.until(
            lambda: self.state is AgentState.IDLE and self.screen == Screen(ScreenKind.COMPOSER, "", busy=False),
            f"it did not come back to an empty composer: its session file says {self.state}",
        )

    def last_line(self) -> str:
        """The last line that the window shows, for who wants to know why nothing else was seen."""
        deadline = time.monotonic() + _WORDS_WITHIN_SECONDS
        while not (lines := self._lines()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return lines[-1][:160] if lines else ""

    def _lines(self) -> list[str]:
        try:
            # With what has scrolled out: that a pane is dead is told in a line of its own, which scrolls.
            shown = self.tmux.run("capture-pane", "-p", "-S", "-100", "-t", str(self.agent.pane_id))
        except OrchestratorError:
            return []
        return [line.strip() for line in shown.splitlines() if line.strip() and not line.startswith("Pane is dead")]


def _agent(folder: Path, project: str) -> Agent:
    return Agent(
        id=1,
        orchestration_id="probe",
        session="probe",
        role="probe",
        window=0,
        program=Program.CLAUDE,
        config_dir=folder / "home" / ".claude",
        worktree=folder / project,
        branch="probe",
        conversation_id=str(uuid.uuid4()),
        epoch=0,
        pane_id=None,
        pane_pid=None,
        process=None,
        messages_per_minute=1000,
        last_hook=None,
        last_hook_at=None,
    )


def _serve_from_here(path: Path) -> None:
    """Have the team's tools be served by this interpreter: uv would have to find its environment anew."""
    servers = json.loads(path.read_text(encoding="utf-8"))
    for one in servers["mcpServers"].values():
        one.update(command=sys.executable, args=[str(config.ROOT / "mcp_server.py")])
    path.write_text(json.dumps(servers), encoding="utf-8")
