"""A Claude Code in a pane: composer, turns, dialogs, limits, hooks and transcript, as lib/ sees them from outside.

Its files and its hooks are real ones; the hook is run as it is. What its model does is drawn from the seed.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from lib.front import hook
from lib.judgement import framing
from lib.rehearsal.terminal import View, below
from tests.simulation.tmux import COLUMNS, ROWS
from tests.simulation.world import SimulatedProcess, World

#: The folder of all transcripts.
FOLDER = "simulated"
_FOOTER = "rehearsal"
#: How long after the reset of a limit Claude Code goes on by itself (seconds).
_CONTINUES_AFTER = (5.0, 110.0)
_CONTINUATION = "Your claude.ai usage limit has reset. Continue from where you left off."
_QUESTION = "Do you want to proceed?"
_PASTES = re.compile(r"\x1b\[200~(.*?)\x1b\[201~", re.DOTALL)


@dataclass
class Account:
    """What the agents of one configuration folder share: a usage limit, while it lasts (seconds of the world)."""

    limited_until: float = 0.0
    #: When the limit resets by the clock on the wall (seconds), None when nobody says.
    resets_at: int | None = None
    word: str = "session"


@dataclass
class Habits:
    """How Claude Code behaves just now; faults change this for a while. Times are seconds."""

    start: tuple[float, float] = (0.5, 4.0)
    shows: tuple[float, float] = (0.01, 0.2)
    hook: tuple[float, float] = (0.03, 0.15)
    work: tuple[float, float] = (2.0, 400.0)
    #: How many of the next things go wrong, by what they are.
    swallowed_keys: int = 0
    lost_pastes: int = 0
    lost_hooks: int = 0
    late_hooks: deque[float] = field(default_factory=deque)
    #: Who is killed while a hook runs; the hook lives on, and tells so much later.
    orphaned_hooks: deque[float] = field(default_factory=deque)
    late_pastes: deque[float] = field(default_factory=deque)


@dataclass
class Heard:
    """What agents were really given: for the invariants, which compare it with what the store says."""

    #: What an agent has accepted or read: (agent, text).
    submitted: list[tuple[int, str]] = field(default_factory=list)
    #: How often an agent has read a message, by (agent, message).
    read: dict[tuple[int, int], int] = field(default_factory=dict)
    #: What the last life of an agent had accepted and not read when it ended.
    left: dict[int, set[int]] = field(default_factory=dict)
    #: When an agent has last taken up a refused turn by itself (UTC milliseconds).
    continued: dict[int, int] = field(default_factory=dict)
    #: Which epoch a hook was of, by (agent, time in UTC milliseconds).
    hooks: dict[tuple[int, int], int] = field(default_factory=dict)
    #: The hooks that came when their life was over: (agent, time).
    late: list[tuple[int, int]] = field(default_factory=list)
    #: Called when an agent is given a text, with the agent and the message.
    on_submit: Callable[[Session, str], None] = lambda session, text: None
    on_read: Callable[[Session, int], None] = lambda session, message: None
    on_start: Callable[[Session], None] = lambda session: None
    on_hook: Callable[[Session, int], None] = lambda session, at: None


class Anthropic:
    """All Claude Codes of a world, their accounts and their habits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance("claude")
        self.habits = Habits()
        self.heard = Heard()
        self.accounts: dict[Path, Account] = {}
        self.sessions: dict[int, Session] = {}
        #: What each says of itself, by its configuration folder and pid.
        self.session_files: dict[tuple[Path, int], dict[str, Any]] = {}
        self._last_hook_ms = 0
        #: A hook has told something.
        self.on_hook: Callable[[], None] = lambda: None

    def start(self, pane: str, argv: Sequence[str], cwd: Path) -> Session:
        """What a launch command starts in a pane."""
        words = dict(word.split("=", 1) for word in argv if re.match(r"[A-Z_]+=", word))
        config = Path(words.get("CLAUDE_CONFIG_DIR") or self.world.home.parent / "claude")
        how = "--resume" if "--resume" in argv else "--session-id"
        made = Session(
            of=self,
            process=self.world.begin(f"claude {words['TMUX_ORCHESTRATOR_AGENT']}"),
            agent=int(words["TMUX_ORCHESTRATOR_AGENT"]),
            epoch=int(words["TMUX_ORCHESTRATOR_EPOCH"]),
            conversation=argv[argv.index(how) + 1],
            config=config,
            cwd=cwd,
            is_resumed=how == "--resume",
            continues="claude" in argv,
        )
        self.sessions[made.process.pid] = made
        made.process.at_end.append(made.leave)
        self.world.tell(f"starts {made.name} {how}")
        self.heard.on_start(made)
        self.heard.left.pop(made.agent, None)
        made.begin()
        return made

    def account(self, config: Path) -> Account:
        return self.accounts.setdefault(config, Account())

    def of_agent(self, agent: int) -> Session | None:
        """The newest living Claude Code of an agent."""
        found = [one for one in self.sessions.values() if one.agent == agent and one.process.is_alive]
        return found[-1] if found else None

    def draw(self, bounds: tuple[float, float]) -> float:
        return self.chance.uniform(*bounds)

    def draw_work(self) -> float:
        """How long a turn takes: most are short."""
        least, most = map(math.log, self.habits.work)
        return math.exp(self.chance.uniform(least, most))

    def hook_time(self) -> int:
        """When a hook is told of: no two in the same millisecond, so that each is known by its time."""
        self._last_hook_ms = max(self.world.wall_ms, self._last_hook_ms + 1 if self._is_near() else 0)
        return self._last_hook_ms

    def _is_near(self) -> bool:
        return abs(self._last_hook_ms - self.world.wall_ms) < 1000


@dataclass
class Session:
    """One Claude Code, from its start to its end."""

    of: Anthropic
    process: SimulatedProcess
    agent: int
    epoch: int
    conversation: str
    config: Path
    cwd: Path
    is_resumed: bool
    #: Whether it takes up a refused turn by itself, as Claude Code does and the rehearsal does not.
    continues: bool
    status: str = "starting"
    draft: str = ""
    stash: str = ""
    queue: deque[str] = field(default_factory=deque)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=4))
    has_dialog: bool = False
    turn: int = 0
    footer: str = _FOOTER
    #: What the turn has begun with, until it is read.
    unread: str = ""

    @property
    def name(self) -> str:
        return f"claude {self.agent}.{self.epoch}"

    @property
    def transcript(self) -> Path:
        return self.config / "projects" / FOLDER / f"{self.conversation}.jsonl"

    def _after(self, seconds: float, call: Callable[[], object]) -> None:
        """Have something happen to it later, if it still lives then."""
        self.of.world.after(seconds, lambda: call() if self.process.is_alive else None)

    # -- its files --

    def _write(self, status: str, *, waiting_for: str | None = None) -> None:
        self.status = status
        said: dict[str, Any] = {
            "pid": self.process.pid,
            "sessionId": self.conversation,
            "cwd": str(self.cwd),
            "procStart": str(self.process.identity.started),
            "status": status,
            "statusUpdatedAt": self.of.world.wall_ms,
        }
        if waiting_for:
            said["waitingFor"] = waiting_for
        self.of.session_files[self.config, self.process.pid] = said

    def _add(self, entry: dict[str, Any]) -> None:
        at = self.of.world.wall_ms
        moment = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**entry, "timestamp": moment, "sessionId": self.conversation}) + "\n"
        self.transcript.parent.mkdir(parents=True, exist_ok=True)
        with self.transcript.open("a") as file:
            file.write(line)
        os.utime(self.transcript, ns=(at * 1_000_000, at * 1_000_000))

    def _user(self, text: str) -> None:
        self._add({"type": "user", "message": {"role": "user", "content": text}})

    def _assistant(self, text: str, **more: Any) -> None:
        usage = {"input_tokens": 10, "output_tokens": 10}
        told = {"id": f"msg_{self.process.pid}_{self.turn}", "model": "rehearsal", "role": "assistant", "usage": usage}
        self._add({"type": "assistant", "message": {**told, "content": [{"type": "text", "text": text}]}, **more})

    def _hook(self, event: str, **own: object) -> None:
        """Run the hook of an event: it is a process of its own, which may come late, or come to nothing."""
        habits = self.of.habits
        if habits.lost_hooks:
            habits.lost_hooks -= 1
            self.of.world.tell(f"{self.name} loses the hook {event}")
            return
        delay = habits.late_hooks.popleft() if habits.late_hooks else self.of.draw(habits.hook)
        if habits.orphaned_hooks:
            delay = habits.orphaned_hooks.popleft()
            self.of.world.after(0.0, lambda: self.of.world.kill(self.process))
        payload = json.dumps({"session_id": self.conversation, "hook_event_name": event, **own}).encode()
        self.of.world.after(delay, lambda: self._tell(event, payload))

    def _tell(self, event: str, payload: bytes) -> None:
        world, at = self.of.world, self.of.hook_time()
        self.of.heard.hooks[self.agent, at] = self.epoch
        self.of.heard.on_hook(self, at)
        clock = SimpleNamespace(time_ns=lambda: at * 1_000_000)
        given = SimpleNamespace(argv=[], stdin=SimpleNamespace(buffer=io.BytesIO(payload)))
        world.tell(f"{self.name} hook {event}")
        with (
            mock.patch.object(hook, "time", clock),
            mock.patch.object(hook, "sys", given),
            contextlib.suppress(OSError),  # no daemon to wake by the real pipe
        ):
            hook.main(str(world.home), str(self.agent), str(self.epoch))
        self.of.on_hook()

    # -- its life --

    def begin(self) -> None:
        self._after(self.of.draw(self.of.habits.start), self._show_composer)

    def leave(self) -> None:
        """It has ended: what it had only accepted is lost with it."""
        self.of.sessions.pop(self.process.pid, None)
        found = (framing.unframe(text) for text in (self.unread, *self.queue))
        self.of.heard.left[self.agent] = {one[0] for one in found if one}

    def _show_composer(self) -> None:
        self._write("idle")
        self._hook("SessionStart", source="resume" if self.is_resumed else "startup")

    def screen(self) -> str:
        if self.status == "starting":
            return "\n".join([""] * ROWS)
        busy = self.status == "busy"
        shown, *_ = below(
            View(
                draft=self.draft,
                spinner=f"✽ Working… ({self.turn}s)" if busy else "",
                question=_QUESTION if self.has_dialog else "",
                footer="rehearsal · esc to interrupt" if busy else self.footer,
            ),
            COLUMNS,
            ROWS,
        )
        lines = [f"  {line}" for line in self.log] + [line.rstrip() for line in shown]
        return "\n".join([*[""] * (ROWS - len(lines)), *lines][-ROWS:])

    # -- keys --

    def take(self, text: str) -> None:
        habits = self.of.habits
        if text.startswith("\x1b[200~"):
            if habits.lost_pastes:
                habits.lost_pastes -= 1
                self.of.world.tell(f"{self.name} loses a paste")
                return
            pieces = [one.replace("\r", "\n") for one in _PASTES.findall(text)]
            delay = habits.late_pastes.popleft() if habits.late_pastes else self.of.draw(habits.shows)
            self._after(delay, lambda: self._paste("".join(pieces)))
        elif habits.swallowed_keys:
            habits.swallowed_keys -= 1
            self.of.world.tell(f"{self.name} swallows a key")
        else:
            self._after(self.of.draw(habits.shows), lambda: self._press(text))

    def _paste(self, text: str) -> None:
        if not self.has_dialog:
            self.draft += text

    def _press(self, key: str) -> None:
        if self.has_dialog:
            self.answer()
        elif key == "\r":
            self._submit()
        elif key == "\x13":
            self.draft, self.stash = ("", self.draft) if self.draft else (self.stash, "")
        elif key == "\x1b" and self.status == "busy":
            self.footer = _FOOTER
            self._user("[Request interrupted by user]")
            self._end_turn()

    def _submit(self) -> None:
        text = self.draft.rstrip()
        if not text:
            return
        self.draft, self.stash = self.stash, ""
        self.of.heard.submitted.append((self.agent, text))
        self.of.heard.on_submit(self, text)
        if self.status == "idle":
            self._begin_turn(text, is_queued=False)
        else:
            self._add({"type": "queue-operation", "operation": "enqueue", "content": text})
            self.queue.append(text)
            self._hook("UserPromptSubmit", prompt=text)

    # -- turns --

    def _begin_turn(self, text: str, *, is_queued: bool) -> None:
        self.turn += 1
        turn, self.unread = self.turn, text
        self._write("busy")
        if is_queued:
            self._add({"type": "queue-operation", "operation": "dequeue", "content": text})
        else:
            self._hook("UserPromptSubmit", prompt=text)
        self._after(self.of.draw((0.1, 0.3)), lambda: self._read(text) if self.turn == turn else None)
        self._after(self.of.draw_work(), lambda: self._finish() if self.turn == turn else None)

    def _read(self, text: str) -> None:
        """The prompt stands in the transcript: from now on the conversation knows it."""
        self.unread = ""
        self._user(text)
        self.log.append(text.split("\n")[0][:60])
        framed = framing.unframe(text)
        if framed:
            self.of.heard.read[self.agent, framed[0]] = self.of.heard.read.get((self.agent, framed[0]), 0) + 1
            self.of.heard.on_read(self, framed[0])
        if self.of.world.now < self.of.account(self.config).limited_until:
            self._be_refused()

    def _be_refused(self) -> None:
        account = self.of.account(self.config)
        words = f"You've hit your {account.word} limit"
        more: dict[str, Any] = {"isApiErrorMessage": True, "error": "rate_limit", "apiError": "usage_limit_reached"}
        if account.resets_at is not None:
            clock = datetime.fromtimestamp(account.resets_at, UTC)
            words += f" · resets {clock.hour % 12 or 12}:{clock.minute:02d}{'am' if clock.hour < 12 else 'pm'} (UTC)"
            about = {"status": "rejected", "resetsAt": account.resets_at, "rateLimitType": "five_hour"}
            more["apiErrorParams"] = {"rate_limit_info": about}
        self._assistant(words, **more)
        self._hook("StopFailure", error="rate_limit", last_assistant_message=words)
        self.of.world.tell(f"{self.name} is refused")
        self._end_turn()
        if self.continues and account.resets_at is not None:
            self.footer = f"Usage limit reached · limit resets {words[-13:]} Continuing automatically shortly"
            self._continue_at(account.resets_at + self.of.draw(_CONTINUES_AFTER))

    def _continue_at(self, at: float) -> None:
        """Take up the refused turn at a time by the clock on the wall (seconds), unless another has ended well."""
        left = at - self.of.world.wall_ms / 1000

        def go_on() -> None:
            if self.footer == _FOOTER or self.status != "idle":
                return
            if self.of.world.wall_ms / 1000 < at:
                self._continue_at(at)
                return
            self.of.world.tell(f"{self.name} goes on by itself")
            self.of.heard.continued[self.agent] = self.of.world.wall_ms
            self.footer = _FOOTER
            self._begin_turn(_CONTINUATION, is_queued=False)

        self._after(max(left, 1.0), go_on)

    def _finish(self) -> None:
        if self.has_dialog:  # it goes on when that is answered
            turn = self.turn
            self._after(5.0, lambda: self._finish() if self.turn == turn else None)
            return
        self.footer = _FOOTER
        self._assistant("Done.")
        self._hook("Stop", last_assistant_message="Done.")
        self._end_turn()

    def _end_turn(self) -> None:
        self.turn += 1
        if self.queue:
            self._begin_turn(self.queue.popleft(), is_queued=True)
        else:
            self._write("idle")

    def ask(self) -> None:
        """Ask a person for a permission, in the middle of a turn."""
        if self.status == "busy" and not self.has_dialog:
            self.has_dialog = True
            self._write("waiting", waiting_for="permission prompt")

    def answer(self) -> None:
        """Its question is answered."""
        if self.has_dialog:
            self.has_dialog = False
            self._write("busy")
