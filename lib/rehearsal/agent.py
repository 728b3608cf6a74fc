"""The rehearsal agent itself: one thread for the terminal, one for the turns, one for hooks beside a turn."""

from __future__ import annotations

import os
import queue
import re
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lib.rehearsal import play
from lib.rehearsal.hooks import Hooks
from lib.rehearsal.terminal import Key, Keyboard, Screen, View
from lib.rehearsal.transcript import INTERRUPTED, SessionFile, Transcript, entries
from lib.rehearsal.work import Hands, Interrupted, StepFailed

STEP_SECONDS = 0.2
FAREWELL_SECONDS = 1.0
READ_BYTES = 65536
ESCAPE_SECONDS = 0.05
TWICE_SECONDS = 2.0
#: When Claude Code 2.1.330 notifies (measured): so long after a dialog opened, and after a turn ended.
DIALOG_NOTICE_SECONDS = 6.0
IDLE_NOTICE_SECONDS = 60.0
#: A slash command, and what is said when one was run: there is nothing to do for any.
COMMAND = re.compile(r"/[A-Za-z][\w:-]*( [^\n]*)?")
COMMANDS = {"/compact": "Compacted", "/context": "A rehearsal uses no context"}
QUESTION = "Rehearsal agent asks for permission. Do you want to proceed?"


#: Work for a thread, one call after another; None ends the thread.
Lane = queue.SimpleQueue[Callable[[], object] | None]


class Limited(Exception):
    """The rehearsed usage limit is in force."""


class Leaving(Exception):
    """The process is about to end."""


def clock_time(epoch_seconds: int) -> str:
    """`3:10am (UTC)`, as Claude Code writes a reset time."""
    at = time.gmtime(epoch_seconds)
    return f"{at.tm_hour % 12 or 12}:{at.tm_min:02d}{'am' if at.tm_hour < 12 else 'pm'} (UTC)"


class Mind:
    """What the agent knows and has still to do; a resumed one knows it again from its transcript."""

    def __init__(self, facts: play.Facts, transcript: Transcript) -> None:
        self.facts = facts
        self.unfinished: list[play.Incoming] = []
        self.limited_until = 0
        for entry in entries(transcript):
            match entry.kind:
                case "user":
                    self.hear(entry.text)
                case "assistant":
                    self.facts = play.recall(self.facts, entry.text)
                case "limit":
                    self.limited_until = entry.resets_at
                case _:
                    self.unfinished.clear()

    def hear(self, text: str) -> list[play.Incoming]:
        """The messages of a prompt that are new; each of them is unfinished from now on."""
        new = []
        for message in play.read_messages(text):
            if message.id is None or message.id not in self.facts.seen:
                self.facts = play.learn(self.facts, message)
                new.append(message)
        self.unfinished += new
        return new

    def read_spec(self) -> str:
        path = Path(self.facts.spec) if self.facts.spec else None
        try:
            return path.read_text(encoding="utf-8", errors="replace") if path else ""
        except OSError as error:
            raise StepFailed(f"could not read the spec {path}: {error.strerror}") from error


class Agent:
    """All fields without a lock belong to the terminal's thread; other threads hand it calls by `_post`."""

    def __init__(
        self,
        *,
        session: SessionFile,
        transcript: Transcript,
        hooks: Hooks,
        role: str,
        pace: float,
        resumed: bool,
    ) -> None:
        self._session = session
        self._transcript = transcript
        self._hooks = hooks
        self._pace = pace
        self._resumed = resumed
        self._mind = Mind(play.Facts(role=role), transcript)
        self._stopped = threading.Event()
        # The environment that the real one gives to its hooks is also that of its tools.
        self._hands = Hands(role, Path(session.cwd), hooks.environment, self._stopped)
        self._prompt = ""
        self._last_said = ""
        self._answers: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._turns: Lane = queue.SimpleQueue()
        self._beside: Lane = queue.SimpleQueue()
        self._posted: deque[Callable[[], object]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

        self._screen = Screen()
        self._keyboard = Keyboard()
        self._draft = ""
        self._stash = ""
        self._waiting: deque[str] = deque()
        self._busy_since: float | None = None
        self._dialog_open = False
        self._chosen = 0
        self._notice_at: float | None = None
        self._interrupt_pressed = -TWICE_SECONDS
        self._deaf_for = 0
        self._leaving: tuple[int, str, str] | None = None

    def run(self) -> int:
        """Live until told to leave; the exit code."""
        for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(one, lambda *_: self._leave(0, "other"))
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        with self._screen:
            self._draw()
            self._session.write("idle")
            self._turns.put(lambda: self._hook("SessionStart", source="resume" if self._resumed else "startup"))
            threads = [self._start(lane) for lane in (self._turns, self._beside)]
            while self._leaving is None:
                self._beat()
        self._end(threads)
        code, reason, words = self._leaving
        if words:
            print(words, file=sys.stderr)
        self._hooks.run("SessionEnd", reason=reason)
        self._session.remove()
        return code

    def _start(self, lane: Lane) -> threading.Thread:
        thread = threading.Thread(target=self._work_off, args=(lane,), daemon=True)
        thread.start()
        return thread

    def _end(self, threads: list[threading.Thread]) -> None:
        """Stop the turn and its child; a hook that still runs is left to its own time limit."""
        self._stopped.set()
        self._answers.put(None)
        for lane in (self._turns, self._beside):
            lane.put(None)
        for thread in threads:
            thread.join(FAREWELL_SECONDS)

    # The terminal's thread.

    def _beat(self) -> None:
        ready = select.select([0, self._wake_read], [], [], self._patience())[0]
        if self._wake_read in ready:
            os.read(self._wake_read, READ_BYTES)
        while self._posted:
            self._posted.popleft()()
        if 0 in ready:
            self._read_keys()
        elif self._keyboard.holds_escape:
            self._press_all(self._keyboard.escape_alone())
        if self._notice_at is not None and time.monotonic() >= self._notice_at:
            self._notify()
        if not select.select([0], [], [], 0)[0]:
            self._draw()

    def _patience(self) -> float | None:
        waits = [1.0] if self._busy_since is not None else []
        if self._keyboard.holds_escape:
            waits.append(ESCAPE_SECONDS)
        if self._notice_at is not None:
            waits.append(max(self._notice_at - time.monotonic(), 0.0))
        return min(waits, default=None)

    def _read_keys(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._leave(0, "other")
        self._press_all(self._keyboard.feed(data))

    def _press_all(self, keys: list[Key]) -> None:
        for key in keys:
            if self._dialog_open:
                self._press_in_dialog(key)
            else:
                self._press(key)

    def _press(self, key: Key) -> None:
        match key.name:
            case "text" | "paste":
                self._draft += key.text
            case "newline":
                self._draft += "\n"
            case "backspace":
                self._draft = self._draft[:-1]
            case "enter" if self._deaf_for:
                self._deaf_for -= 1
            case "enter":
                self._submit()
            case "stash":
                # As measured: it puts a draft aside, and on an empty composer brings an older one back.
                self._draft, self._stash = ("", self._draft) if self._draft else (self._stash, "")
            case "escape":
                self._interrupt()
            case "interrupt":
                self._interrupt_or_leave()
            case "eof" if not self._draft:
                self._leave(0, "prompt_input_exit")

    def _press_in_dialog(self, key: Key) -> None:
        match key.name:
            case "enter":
                self._answer(self._chosen == 0)
            case "up" | "down":
                self._chosen = 1 - self._chosen
            case "text" if key.text in ("1", "2"):
                self._answer(key.text == "1")
            case "escape" | "interrupt":
                self._answer(None)

    def _submit(self) -> None:
        text = self._draft.rstrip()
        if not text:
            return
        self._draft, self._stash = self._stash, ""
        if text.strip() in ("/exit", "/quit"):
            self._leave(0, "prompt_input_exit")
        elif COMMAND.fullmatch(text):
            self._run_command(text)
        elif self._busy_since is None:
            self._begin_turn(text, source="typed")
        else:
            self._transcript.queue("enqueue", text)
            self._waiting.append(text)
            self._beside.put(lambda: self._hook("UserPromptSubmit", prompt=text))

    def _go_deaf(self, keys: int) -> None:
        self._deaf_for = keys

    def _run_command(self, text: str) -> None:
        name, _, arguments = text.partition(" ")
        self._screen.log("❯ ", text)
        if name in COMMANDS:
            self._transcript.command(name, arguments)
        self._screen.log("  ⎿ ", COMMANDS.get(name, f"Unknown command: {name}"))

    def _begin_turn(self, text: str, *, source: str) -> None:
        self._stopped.clear()
        self._busy_since = time.monotonic()
        self._notice_at = None
        self._session.write("busy")
        self._screen.log("❯ ", text)
        self._turns.put(lambda: self._turn(text, source))

    def _end_turn(self) -> None:
        self._dialog_open = False
        if self._waiting:
            self._begin_turn(self._waiting.popleft(), source="queued")
            return
        self._busy_since = None
        self._notice_at = time.monotonic() + IDLE_NOTICE_SECONDS
        self._session.write("idle")

    def _open_dialog(self) -> None:
        self._dialog_open, self._chosen = True, 0
        self._notice_at = time.monotonic() + DIALOG_NOTICE_SECONDS
        self._session.write("waiting", waiting_for="permission prompt")

    def _answer(self, answer: bool | None) -> None:
        self._dialog_open = False
        self._notice_at = None
        self._session.write("busy")
        self._answers.put(answer)

    def _notify(self) -> None:
        self._notice_at = None
        kind, words = ("idle_prompt", "Rehearsal agent is waiting for your input")
        if self._dialog_open:
            kind, words = ("permission_prompt", "Rehearsal agent needs your permission")
        self._beside.put(lambda: self._hook("Notification", message=words, notification_type=kind))

    def _interrupt(self) -> None:
        if self._busy_since is not None:
            self._stopped.set()

    def _interrupt_or_leave(self) -> None:
        now = time.monotonic()
        if now - self._interrupt_pressed < TWICE_SECONDS:
            self._leave(0, "prompt_input_exit")
        self._interrupt_pressed = now
        self._draft = ""
        self._interrupt()

    def _leave(self, code: int, reason: str, words: str = "") -> None:
        self._leaving = self._leaving or (code, reason, words)

    def _draw(self) -> None:
        busy_for = 0 if self._busy_since is None else int(time.monotonic() - self._busy_since)
        busy = self._busy_since is not None
        self._screen.draw(
            View(
                draft=self._draft,
                spinner=f"✽ Rehearsing… ({busy_for}s)" if busy and not self._dialog_open else "",
                queued=tuple(self._waiting),
                question=QUESTION if self._dialog_open else "",
                chosen=self._chosen,
                footer="rehearsal · esc to interrupt" if busy else "rehearsal",
            )
        )

    # The threads of turns and hooks.

    def _post(self, call: Callable[[], object]) -> None:
        self._posted.append(call)
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            return  # the pipe is full of calls to wake up, so one more changes nothing

    def _hook(self, event: str, **own: object) -> None:
        if not self._hooks.run(event, **own):
            self._post(lambda: self._screen.log("  ⎿ ", f"{event} hook failed"))

    def _say(self, text: str) -> None:
        self._last_said = text
        self._transcript.assistant(text, prompt=self._prompt)
        self._mind.facts = play.recall(self._mind.facts, text)
        self._post(lambda: self._screen.log("● ", text))

    def _turn(self, text: str, source: str) -> None:
        began = time.monotonic()
        self._prompt, self._last_said = text, ""
        if source == "queued":
            self._transcript.queue("dequeue", text)
        else:
            self._hook("UserPromptSubmit", prompt=text)
        self._transcript.user(text, source=source)
        try:
            self._work(text)
        except Interrupted:
            self._transcript.user(INTERRUPTED, source="system")
            self._post(lambda: self._screen.log("  ⎿ ", "Interrupted"))
        except Limited:
            self._hit_limit()
        except Leaving:
            return
        else:
            self._transcript.turn_over(int((time.monotonic() - began) * 1000))
            self._hook("Stop", stop_hook_active=False, last_assistant_message=self._last_said)
        self._post(self._end_turn)

    def _work(self, text: str) -> None:
        new = self._mind.hear(text)
        if time.time() < self._mind.limited_until:
            raise Limited
        for directive in [one for message in new for one in play.directives(message.body)]:
            self._obey(directive)
        if not self._mind.unfinished:
            self._say("This message came before; once is enough.")
        # An interrupted turn leaves its messages here, and the next turn carries on with them.
        while self._mind.unfinished:
            self._play(self._mind.unfinished[0])
            del self._mind.unfinished[0]

    def _play(self, message: play.Incoming) -> None:
        try:
            for step in play.plan(self._mind.facts, message, self._mind.read_spec):
                self._hands.wait(STEP_SECONDS * self._pace)
                self._say(self._hands.do(step))
        except StepFailed as failure:
            self._say(f"Failed: {failure}")
            self._tell_failure(str(failure))

    def _tell_failure(self, failure: str) -> None:
        orchestrator = self._mind.facts.member("orchestrator")
        if orchestrator is None or self._mind.facts.told_failure:
            return
        words = f"Rehearsal: the {self._mind.facts.role} cannot go on: {failure}"
        try:
            self._hands.do(play.Tell(orchestrator.target, words))
        except StepFailed as second:
            self._say(f"Failed: {second}")
        else:
            self._say(f"{play.TOLD_FAILURE}: {failure}")

    def _obey(self, directive: play.Directive) -> None:
        match directive.verb:
            case "busy":
                self._hands.wait(directive.amount)
                self._say(f"Was busy for {directive.amount:g} seconds, as told.")
            case "exit":
                self._post(lambda: self._leave(int(directive.amount), "other"))
                raise Leaving
            case "ask":
                self._ask()
            case "deaf":
                self._post(lambda: self._go_deaf(int(directive.amount)))
            case "commit" | "answer":
                pass  # it is in the plan of its message
            case _:
                self._mind.limited_until = int(time.time() + directive.amount * 60)
                raise Limited

    def _ask(self) -> None:
        self._post(self._open_dialog)
        self._hook("PermissionRequest", tool_name="Rehearsal", tool_input={"question": QUESTION})
        answer = self._answers.get()
        if answer is None:
            raise Interrupted
        self._say("The answer was yes." if answer else "The answer was no.")

    def _hit_limit(self) -> None:
        resets_at = self._mind.limited_until
        words = f"You've hit your 5-hour limit · resets {clock_time(resets_at)}"
        self._transcript.limit(words, resets_at)
        self._post(lambda: self._screen.log("  ⎿ ", f"{words} (a rehearsal of it)"))
        self._hook("StopFailure", error="rate_limit", last_assistant_message=words)

    def _work_off(self, lane: Lane) -> None:
        try:
            while call := lane.get():
                call()
        except OSError as error:
            # Without its transcript the agent would look busy for ever.
            words = f"Error: The rehearsal agent cannot write its files: {error}"
            self._post(lambda: self._leave(1, "other", words))
