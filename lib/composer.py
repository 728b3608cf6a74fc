"""One agent's composer: look at it, put text into it, press a key. Nothing is typed anywhere else.

Every look asks for the same living process, and every paste is guarded by tmux itself: between a look and a
paste an agent may have died, and what is in its place may be a shell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lib import agents
from lib.claude import sessions, starting
from lib.errors import NotFound
from lib.judgement import framing, screens
from lib.judgement.screens import Dialog
from lib.models import Agent, AgentState
from lib.records import dataclass
from lib.tmux import CTRL_S, ENTER, ESCAPE, Look, Tmux

#: A draft that has not changed for this long is not being typed: it is put aside while a message goes through.
_DRAFT_RESTS_SECONDS = 1.0
_KEY_SHOWS_WITHIN_SECONDS = 2.0
#: An answered question has left the window within 0.2 s.
_ANSWER_SHOWS_WITHIN_SECONDS = 1.0
_ANSWER_TRIES = 3


@dataclass(frozen=True)
class Composer:
    """The composer of one agent in one tmux server."""

    tmux: Tmux
    agent: Agent

    def look(self) -> Look | None:
        """The agent's pane, or None when it is not the living process that we know."""
        if self.agent.pane_id is None or self.agent.pane_pid is None:
            return None
        try:
            look = self.tmux.look(self.agent.pane_id)
        except NotFound:
            return None
        return None if look.dead or look.pid != self.agent.pane_pid else look

    def obstacle(
        self, *, between_tools: bool = False, is_over: Callable[[int], bool] = lambda message_id: False
    ) -> str | None:
        """Why nothing may be typed now, or None. `between_tools`: an agent at work is no obstacle.

        What stands there of messages of which none is under way any more (`is_over`), since a window showed a paste
        long after it was given up, is put aside as a draft is.
        """
        role = self.agent.role
        look = self.look()
        if look and look.is_frozen:
            return f"somebody reads in {role}'s window, and this tmux holds it still meanwhile"
        match agents.state_of(self.agent) if look else AgentState.GONE:
            case AgentState.GONE:
                return f"{role} is gone" if self.agent.process else f"{role} has not started yet"
            case AgentState.STARTING:
                return f"{role} is starting"
            case AgentState.WORKING if not between_tools:
                return f"{role} is working"
            case AgentState.ASKING:
                if not self.close_limit_dialog():
                    return f"{role} waits for an answer in its window"
                look = self.look()
        screen = screens.read(look.screen) if look else None
        if screen is None or screen.kind is not screens.ScreenKind.COMPOSER:
            return f"{role}'s window shows something else than its composer"
        if not all(map(is_over, framing.framed_in(screen.draft))):
            return f"somebody has typed to {role} after a message: Enter sends both"
        if screen.draft:
            return self._put_aside(screen.draft)
        return None

    def put(self, chunks: Iterable[str]) -> None:
        """Paste text, as typed by the user."""
        pane_id, pid, command = self._guard()
        self.tmux.paste(pane_id, pid, list(chunks), command=command)

    def submit(self) -> None:
        """Press Enter; call it only when the composer is known to hold what shall be submitted."""
        self._press(ENTER)

    def interrupt(self, *, within_seconds: float) -> bool:
        """Press Escape on an agent at work and see it become idle. Returns whether it did."""
        if agents.state_of(self.agent) is not AgentState.WORKING:
            return True
        self._press(ESCAPE)
        return _becomes(lambda: agents.state_of(self.agent) is AgentState.IDLE, within_seconds)

    def close_dialog(self) -> bool:
        """Press Escape on a dialog that a command has opened and see it closed. Returns whether there was one."""
        process = self.agent.process
        if not process or not self.look() or not sessions.has_dialog_open(self.agent.config_dir, process):
            return False
        self._press(ESCAPE)
        return _becomes(lambda: agents.state_of(self.agent) is AgentState.IDLE, _KEY_SHOWS_WITHIN_SECONDS)

    def dialog(self) -> Dialog | None:
        """The question that the agent asks now, None when it asks none that a key answers.

        Not what a command has opened, such as a choice of models or of what to pay: those are for who sits there.
        """
        look = self.look()
        if look is None or agents.state_of(self.agent) is not AgentState.ASKING or agents.has_dialog_open(self.agent):
            return None
        return screens.dialog(look.screen)

    def answer(self, dialog: Dialog, key: str) -> bool:
        """Press the key of a choice while exactly this question is asked. Returns whether it was taken.

        Claude Code 2.1.330 takes no key in the first moments of a question: then it is pressed again.
        """
        for before in range(_ANSWER_TRIES):
            if self.dialog() != dialog:
                return before > 0
            self._press(key)
            if _becomes(lambda: self.dialog() != dialog, _ANSWER_SHOWS_WITHIN_SECONDS):
                return True
        return False

    def close_limit_dialog(self) -> bool:
        """Close the dialog of a usage limit that is over, and see it closed. Returns whether it was one.

        It offers to wait and to pay. Escape chooses nothing, and leaves the composer.
        """
        look = self.look()
        return look is not None and screens.has_limit_dialog(look.screen) and self.close_dialog()

    def ends_with(self, line: str) -> bool:
        """Whether the composer is there, and its text ends with this line."""
        return screens.ends_with_line(self.draft() or "", line)

    def _put_aside(self, draft: str) -> str | None:
        """Put a person's half-typed draft aside: Claude Code brings it back after the next submit."""
        typing = f"somebody is typing to {self.agent.role}"
        time.sleep(_DRAFT_RESTS_SECONDS)
        if self.draft() != draft:
            return typing
        self._press(CTRL_S)
        return None if _becomes(lambda: self.draft() == "", _KEY_SHOWS_WITHIN_SECONDS) else typing

    def draft(self) -> str | None:
        """What stands in the composer, as far as it is visible; None when something else is shown."""
        look = self.look()
        screen = screens.read(look.screen) if look else None
        return screen.draft if screen and screen.kind is screens.ScreenKind.COMPOSER else None

    def _press(self, key: str) -> None:
        pane_id, pid, command = self._guard()
        self.tmux.press(pane_id, pid, key, command=command)

    def _guard(self) -> tuple[str, int, str | None]:
        assert self.agent.pane_id and self.agent.pane_pid  # look() has seen both
        # A guest runs in a person's shell: the pane's process lives on when Claude Code has ended.
        return self.agent.pane_id, self.agent.pane_pid, starting.COMMAND if self.agent.is_guest else None


def _becomes(is_so: Callable[[], bool], within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True
