"""The rehearsal agent as a pane's own process: a private tmux server, real git, recording hooks and doors."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lib.rehearsal import hooks, play
from lib.rehearsal.agent import clock_time
from lib.rehearsal.work import Hands, Interrupted, StepFailed

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 40.0
EVENTS = (
    "SessionStart",
    "UserPromptSubmit",
    "Stop",
    "StopFailure",
    "Notification",
    "PermissionRequest",
    "SessionEnd",
)
#: One file per hook call, complete when it appears, named by its order in time.
RECORDER = """#!/bin/sh
half=$(mktemp "$STAGE_HOOKS/.XXXXXXXX")
{ printf '%s\\n%s\\n%s\\n' "$CLAUDE_PID" "$CLAUDE_CODE_SESSION_ID" "$CLAUDE_PROJECT_DIR"; cat; } > "$half"
mv "$half" "$STAGE_HOOKS/$(date +%s%N)-$$"
"""
#: A door that records its arguments, each ended by a NUL, and what git says of the sender.
DOOR = """#!/bin/sh
half=$(mktemp "$STAGE_POST/.XXXXXXXX")
printf '%s\\0' "${0##*/}" "$TMUX_ORCHESTRATOR_ROLE" "$@" > "$half"
mv "$half" "$STAGE_POST/$(date +%s%N)-$$"
"""
Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], what: str) -> Found:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {LIMIT_SECONDS:g} s in vain for {what}")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass
class Stage:
    """A folder of its own, a tmux server of its own and a clean environment for rehearsal agents."""

    folder: Path
    socket: str
    posted: int = field(default=0)

    def __post_init__(self) -> None:
        for name in ("home", "hooks", "post", "config", "doors"):
            (self.folder / name).mkdir()
        recorder = script(self.folder / "record.sh", RECORDER)
        self.settings = self.folder / "settings.json"
        entry = [{"hooks": [{"type": "command", "command": shlex.quote(str(recorder))}]}]
        self.settings.write_text(json.dumps({"hooks": dict.fromkeys(EVENTS, entry)}))
        for door in ("send-claude-message.sh", "report-completion.sh"):
            script(self.folder / "doors" / door, DOOR)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'doors'}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CLAUDE_CONFIG_DIR": str(self.folder / "config"),
            "STAGE_HOOKS": str(self.folder / "hooks"),
            "STAGE_POST": str(self.folder / "post"),
            "TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0",
        }

    def tmux(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.socket, "-f", "/dev/null", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, f"tmux {words[0]}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def launch(self, *flags: str, role: str = "developer", cwd: Path | None = None) -> Actor:
        """An agent in a new window; without flags of its own it begins a new conversation."""
        conversation = str(uuid.uuid4())
        flags = flags or ("--session-id", conversation)
        place = cwd or self.folder / "home"
        command = ["env", f"TMUX_ORCHESTRATOR_ROLE={role}", sys.executable, "-m", "lib.rehearsal"]
        command += [*flags, "--settings", str(self.settings)]
        first = not self.running()
        begin = ("new-session", "-d", "-s", "stage", "-x", "90", "-y", "30") if first else ("new-window", "-d")
        pane = self.tmux(*begin, "-P", "-F", "#{pane_id} #{pane_pid}", "-c", str(place), *command)
        self.tmux("set-option", "-g", "remain-on-exit", "on")
        return Actor(self, pane.split()[0], int(pane.split()[1]), flags[1], place)

    def running(self) -> bool:
        asked = ["tmux", "-L", self.socket, "has-session"]
        return subprocess.run(asked, capture_output=True, env=self.environment, check=False).returncode == 0

    def letters(self) -> list[list[str]]:
        """What the doors were called with since the last look: door, sender's role, arguments."""
        every = sorted(path for path in (self.folder / "post").iterdir() if path.name[0] != ".")
        fresh, self.posted = every[self.posted :], len(every)
        return [path.read_text().split("\0")[:-1] for path in fresh]


@dataclass
class Actor:
    """One rehearsal agent in its pane."""

    stage: Stage
    pane: str
    pid: int
    conversation: str
    cwd: Path

    @property
    def session_file(self) -> Path:
        return self.stage.folder / "config" / "sessions" / f"{self.pid}.json"

    def session(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.session_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    def wait_until(self, status: str) -> Actor:
        wait_for(lambda: self.session().get("status") == status, f"status {status}")
        return self

    def paste(self, text: str) -> None:
        buffer = uuid.uuid4().hex
        self.stage.tmux("load-buffer", "-b", buffer, "-", stdin=text)
        self.stage.tmux("paste-buffer", "-p", "-d", "-b", buffer, "-t", self.pane)

    def press(self, *keys: str) -> None:
        self.stage.tmux("send-keys", "-t", self.pane, *keys)

    def send(self, text: str) -> None:
        self.paste(text)
        self.press("Enter")

    def screen(self, *flags: str) -> str:
        return self.stage.tmux("capture-pane", "-p", *flags, "-t", self.pane)

    def wait_for_screen(self, words: str) -> None:
        wait_for(lambda: words in self.screen(), f"{words!r} on the screen")

    def hooks(self, event: str) -> list[dict[str, Any]]:
        """The payloads of this agent's hooks of one kind, in order."""
        calls = sorted(path for path in (self.stage.folder / "hooks").iterdir() if path.name[0] != ".")
        found = []
        for call in calls:
            pid, conversation, project, payload = call.read_text().split("\n", 3)
            said = json.loads(payload)
            if said["session_id"] == self.conversation and said["hook_event_name"] == event:
                assert (conversation, project) == (self.conversation, str(self.cwd))
                found.append({**said, "pid": int(pid)})
        return found

    def wait_for_hooks(self, event: str, number: int = 1) -> list[dict[str, Any]]:
        wait_for(lambda: len(self.hooks(event)) >= number, f"{number} {event} hooks")
        return self.hooks(event)

    @property
    def transcript_path(self) -> Path:
        folder = str(self.cwd).replace("/", "-")
        return self.stage.folder / "config" / "projects" / folder / f"{self.conversation}.jsonl"

    def transcript(self, kind: str) -> list[dict[str, Any]]:
        if not self.transcript_path.exists():
            return []
        lines = self.transcript_path.read_bytes().split(b"\n")[:-1]  # the last is empty or half written
        return [entry for entry in map(json.loads, lines) if entry["type"] == kind]

    def said(self) -> list[str]:
        return [entry["message"]["content"][0]["text"] for entry in self.transcript("assistant")]

    def wait_for_words(self, words: str) -> None:
        wait_for(lambda: any(words in line for line in self.said()), f"the agent to say {words!r}")

    def wait_until_dead(self) -> int:
        """The exit code, or the number of the signal that ended the process."""
        wait_for(lambda: self._pane("#{pane_dead}") == "1", "the process to end")
        return int(wait_for(self._end, "the exit code"))

    def _end(self) -> str:
        # tmux 3.3a under load misses a SIGCHLD now and then (5 of 25 here) and keeps the zombie without
        # a status; the end of any other child makes it look again.
        self.stage.tmux("run-shell", "true")
        return self._pane("#{pane_dead_status}#{pane_dead_signal}")

    def _pane(self, field: str) -> str:
        return self.stage.tmux("display-message", "-p", "-t", self.pane, field)


@pytest.fixture
def stage_empty(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, f"stage-{uuid.uuid4().hex[:12]}")
    yield stage
    socket = stage.tmux("display-message", "-p", "#{socket_path}") if stage.running() else None
    if socket:
        stage.tmux("kill-server")
        Path(socket).unlink(missing_ok=True)


@pytest.fixture
def stage_actor(stage_empty: Stage) -> Actor:
    """An agent that is ready: composer, status and SessionStart hook are there."""
    actor = stage_empty.launch().wait_until("idle")
    actor.wait_for_hooks("SessionStart")
    return actor


def refused(stage: Stage, *flags: str, without: str = "", cwd: Path | None = None, **more: str) -> tuple[int, str]:
    environment = {key: value for key, value in {**stage.environment, **more}.items() if key != without}
    done = subprocess.run(
        [sys.executable, "-m", "lib.rehearsal", *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd or stage.folder,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


FRESH = ("--session-id", "11111111-1111-4111-8111-111111111111")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--version",), 0, "0.1.0 (rehearsal of Claude Code)\n"),
        (("--sing",), 1, "does not know the option '--sing'"),
        (("hello",), 1, "does not know the option 'hello'"),
        (("--model",), 1, "--model needs a value"),
        ((), 1, "--session-id UUID"),
        (("--session-id", "../../x"), 1, "Must be a valid UUID"),
        ((*FRESH, "--resume", FRESH[1]), 1, "one of --session-id UUID and --resume UUID"),
        (("--resume", FRESH[1]), 1, f"No conversation found with session ID: {FRESH[1]}"),
        ((*FRESH, "--settings", "/nowhere.json"), 1, "Settings file not readable"),
        ((*FRESH, "--append-system-prompt-file", "/nowhere.md"), 1, "not found: /nowhere.md"),
        (FRESH, 1, "needs a terminal"),
    ],
)
def test_a_start_that_cannot_work_is_refused_with_a_sentence(
    stage_empty: Stage, flags: tuple[str, ...], code: int, words: str
) -> None:
    got, said = refused(stage_empty, *flags)
    assert (got, words in said) == (code, True), said
    assert not (stage_empty.folder / "config" / "sessions").exists()


def test_a_rehearsal_never_starts_in_the_real_configuration(stage_empty: Stage) -> None:
    assert refused(stage_empty, *FRESH, without="CLAUDE_CONFIG_DIR")[0] == 1
    real = str(stage_empty.folder / "home" / ".claude")
    code, said = refused(stage_empty, *FRESH, CLAUDE_CONFIG_DIR=real)
    assert code == 1
    assert "is the real ~/.claude" in said
    assert not Path(real).exists()


def test_settings_that_are_not_hooks_are_refused(stage_empty: Stage) -> None:
    stage_empty.settings.write_text('{"hooks": {"Stop": ["x"]}}')
    code, said = refused(stage_empty, *FRESH, "--settings", str(stage_empty.settings))
    assert (code, "has not the shape of hooks" in said) == (1, True)


def test_a_ready_agent_shows_an_empty_composer_and_says_who_it_is(stage_actor: Actor) -> None:
    rows = stage_actor.screen("-e").splitlines()
    prompt = next(n for n, row in enumerate(rows) if "❯\xa0\x1b[7m" in row)
    assert "─" * 90 in rows[prompt - 1]
    assert "─" * 90 in rows[prompt + 1]
    assert rows[prompt + 2].strip() == "rehearsal"
    assert "Rehearsal agent - not a real Claude Code" in rows[0]
    session = stage_actor.session()
    started = Path(f"/proc/{stage_actor.pid}/stat")
    if started.exists():
        assert session["procStart"] == started.read_text().rpartition(")")[2].split()[19]
    assert (session["pid"], session["sessionId"]) == (stage_actor.pid, stage_actor.conversation)
    assert (session["cwd"], session["kind"], session["name"]) == (str(stage_actor.cwd), "interactive", "home")
    assert abs(session["startedAt"] / 1000 - time.time()) < 120
    assert "waitingFor" not in session
    begun = stage_actor.hooks("SessionStart")[0]
    assert (begun["source"], begun["cwd"], begun["pid"]) == ("startup", str(stage_actor.cwd), stage_actor.pid)
    assert begun["transcript_path"] == str(stage_actor.transcript_path)


@pytest.mark.parametrize(
    "text",
    [
        "one line",
        "[msg 7 from user]\nthree\n\n  lines, $(touch PWNED) `id` \"q\" 'q' \\ ; # !\n[end of msg 7]",
        "emoji 👩‍👩‍👧 🇫🇷 漢字 é",
        "\n  leading space stays",
        "x" * 700 + "\n" + "".join(f"row {n} äöü\n" for n in range(1500)) + "end",
        "".join(f"{n:06d} " for n in range(15000)) + "end",
    ],
    ids=["plain", "framed", "unicode", "leading", "20KB", "100KB"],
)
def test_a_pasted_prompt_arrives_exactly_and_once(stage_actor: Actor, text: str) -> None:
    stage_actor.send(text)
    stage_actor.wait_for_hooks("Stop")
    assert [call["prompt"] for call in stage_actor.hooks("UserPromptSubmit")] == [text]
    (entry,) = stage_actor.transcript("user")
    assert (entry["message"], entry["promptSource"]) == ({"role": "user", "content": text}, "typed")
    assert not (stage_actor.cwd / "PWNED").exists()


def test_a_draft_stays_in_the_composer_until_enter(stage_actor: Actor) -> None:
    stage_actor.paste("first\nlast漢")
    stage_actor.wait_for_screen("❯\xa0first\n  last漢")
    stage_actor.press("BSpace", "C-j", "C-a", "x")
    stage_actor.wait_for_screen("❯\xa0first\n  last\n  x")
    assert stage_actor.hooks("UserPromptSubmit") == []
    stage_actor.press("Enter")
    assert stage_actor.wait_for_hooks("UserPromptSubmit")[0]["prompt"] == "first\nlast\nx"


def test_the_screen_is_drawn_anew_at_another_size(stage_actor: Actor) -> None:
    stage_actor.paste("a draft " * 8)
    stage_actor.wait_for_screen("a draft")
    stage_actor.stage.tmux("resize-window", "-t", stage_actor.pane, "-x", "40", "-y", "12")
    wait_for(lambda: stage_actor.screen().splitlines().count("─" * 40) == 2, "two rules of 40 cells")
    shown = stage_actor.screen()
    assert "Rehearsal agent" in shown
    assert shown.count("❯\xa0a draft") == 1


def test_rows_that_leave_the_screen_are_kept_in_the_terminals_history(stage_actor: Actor) -> None:
    for n in range(25):
        stage_actor.send(f"prompt {n}")
        stage_actor.wait_for_hooks("Stop", n + 1)
    stage_actor.wait_until("idle")
    wait_for(lambda: "● Noted, from user: prompt 24" in stage_actor.screen(), "the last answer")
    history = stage_actor.screen("-S", "-").splitlines()
    assert [row for row in history if row.startswith("❯ ")] == [f"❯ prompt {n}" for n in range(25)]


@pytest.mark.parametrize("keys", [("C-d",), ("C-c", "C-c"), ("/exit", "Enter")])
def test_a_clean_exit_fires_session_end_and_removes_the_session_file(stage_actor: Actor, keys: tuple[str, ...]) -> None:
    stage_actor.press(*keys)
    assert stage_actor.wait_until_dead() == 0
    assert [call["reason"] for call in stage_actor.hooks("SessionEnd")] == ["prompt_input_exit"]
    assert not stage_actor.session_file.exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_turn_ends_the_agent_cleanly(stage_actor: Actor, how: signal.Signals) -> None:
    stage_actor.send("rehearse: busy 600")
    stage_actor.wait_until("busy")
    os.kill(stage_actor.pid, how)
    stage_actor.wait_until_dead()
    assert [call["reason"] for call in stage_actor.hooks("SessionEnd")] == ["other"]
    assert not stage_actor.session_file.exists()


def test_killing_the_window_fires_session_end(stage_actor: Actor) -> None:
    stage_actor.stage.tmux("new-window", "-d", "sleep 600")
    stage_actor.stage.tmux("kill-window", "-t", stage_actor.pane)
    assert stage_actor.wait_for_hooks("SessionEnd")[0]["reason"] == "other"
    wait_for(lambda: not stage_actor.session_file.exists(), "the session file to be removed")


def test_messages_to_a_busy_agent_are_queued_and_handed_over_one_after_another(stage_actor: Actor) -> None:
    stage_actor.send("rehearse: busy 600")
    stage_actor.wait_until("busy")
    stage_actor.wait_for_screen("✽ Rehearsing… (")
    stage_actor.wait_for_screen("esc to interrupt")
    for n in (1, 2):
        stage_actor.send(f"message {n}")
        assert stage_actor.wait_for_hooks("UserPromptSubmit", n + 1)[n]["prompt"] == f"message {n}"
    stage_actor.wait_for_screen("Queued: message 2")
    assert [entry["operation"] for entry in stage_actor.transcript("queue-operation")] == ["enqueue"] * 2
    assert stage_actor.hooks("Stop") == []
    stage_actor.press("Escape")
    stops = stage_actor.wait_for_hooks("Stop", 2)
    stage_actor.wait_until("idle")
    assert "message 2" in stops[1]["last_assistant_message"]
    queue = [(entry["operation"], entry["content"]) for entry in stage_actor.transcript("queue-operation")]
    assert queue[2:] == [("dequeue", "message 1"), ("dequeue", "message 2")]
    sources = [entry["promptSource"] for entry in stage_actor.transcript("user")]
    assert sources == ["typed", "system", "queued", "queued"]
    assert len(stage_actor.hooks("UserPromptSubmit")) == 3


def test_escape_interrupts_a_turn_without_any_hook(stage_actor: Actor) -> None:
    stage_actor.send("rehearse: busy 600")
    stage_actor.wait_until("busy")
    stage_actor.press("Escape")
    stage_actor.wait_until("idle")
    stage_actor.wait_for_screen("Interrupted")
    assert stage_actor.hooks("Stop") + stage_actor.hooks("StopFailure") == []
    stage_actor.send("go on")
    stage_actor.wait_for_words("Noted, from user: go on")


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (("Enter",), "The answer was yes."),
        (("Down", "Enter"), "The answer was no."),
        (("2",), "The answer was no."),
    ],
)
def test_a_permission_dialog_waits_and_swallows_pasted_text(
    stage_actor: Actor, keys: tuple[str, ...], answer: str
) -> None:
    stage_actor.send("rehearse: ask")
    stage_actor.wait_until("waiting")
    assert stage_actor.session()["waitingFor"] == "permission prompt"
    assert stage_actor.wait_for_hooks("PermissionRequest")[0]["tool_name"] == "Rehearsal"
    stage_actor.wait_for_screen("❯ 1. Yes\n  2. No")
    assert "❯\xa0" not in stage_actor.screen()
    stage_actor.paste("lost words")
    stage_actor.press(*keys)
    stage_actor.wait_for_words(answer)
    stage_actor.wait_for_hooks("Stop")
    stage_actor.wait_until("idle")
    assert "waitingFor" not in stage_actor.session()
    assert "lost words" not in stage_actor.screen()


def test_escape_on_a_dialog_ends_the_turn_without_any_hook(stage_actor: Actor) -> None:
    stage_actor.send("rehearse: ask")
    stage_actor.wait_for_screen("Esc to cancel")
    stage_actor.press("Escape")
    stage_actor.wait_until("idle")
    assert stage_actor.hooks("Stop") == []


def test_a_dialog_that_stays_open_is_notified(stage_actor: Actor) -> None:
    stage_actor.send("rehearse: ask")
    assert stage_actor.wait_for_hooks("Notification")[0]["notification_type"] == "permission_prompt"


def test_a_usage_limit_answers_as_the_real_client_does_until_it_is_over(stage_actor: Actor) -> None:
    stage_actor.send("rehearse: limit 90")
    failure = stage_actor.wait_for_hooks("StopFailure")[0]
    stage_actor.wait_until("idle")
    (line,) = stage_actor.transcript("assistant")
    info = line["apiErrorParams"]["rate_limit_info"]
    assert abs(info["resetsAt"] - time.time() - 90 * 60) < 120
    assert (info["rateLimitType"], line["isApiErrorMessage"]) == ("five_hour", True)
    assert (line["error"], line["apiErrorStatus"]) == ("rate_limit", 429)
    assert line["apiError"] == "usage_limit_reached"
    words = f"You've hit your 5-hour limit · resets {clock_time(info['resetsAt'])}"
    assert (failure["error"], failure["last_assistant_message"]) == ("rate_limit", words)
    stage_actor.wait_for_screen("You've hit your 5-hour limit")
    stage_actor.send("are you back?")
    stage_actor.wait_for_hooks("StopFailure", 2)
    assert stage_actor.hooks("Stop") == []


def test_work_that_met_a_limit_is_done_after_it(stage_actor: Actor) -> None:
    stage_actor.send("[msg 1 from user]\nrehearse: limit 0.02\n[end of msg 1]")
    stage_actor.wait_for_hooks("StopFailure")
    resets_at = stage_actor.transcript("assistant")[0]["apiErrorParams"]["rate_limit_info"]["resetsAt"]
    wait_for(lambda: time.time() > resets_at, "the limit to end")
    stage_actor.wait_until("idle")
    stage_actor.send("go on")
    stage_actor.wait_for_words("Noted, from user: rehearse: limit 0.02")
    stage_actor.wait_for_words("Noted, from user: go on")


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (0, "12:00am (UTC)"),
        (3 * 3600 + 600, "3:10am (UTC)"),
        (12 * 3600, "12:00pm (UTC)"),
        (86399, "11:59pm (UTC)"),
    ],
)
def test_reset_times_read_as_the_real_client_writes_them(at: int, words: str) -> None:
    assert clock_time(at) == words


def test_an_agent_told_to_exit_ends_with_that_code(stage_actor: Actor) -> None:
    stage_actor.send("[msg 4 from user]\nrehearse: exit 7\n[end of msg 4]")
    assert stage_actor.wait_until_dead() == 7
    assert not stage_actor.session_file.exists()


def test_after_kill_9_the_session_file_stays_and_resume_goes_on_with_the_conversation(
    stage_actor: Actor,
) -> None:
    stage = stage_actor.stage
    stage_actor.send("[msg 1 from user]\nhello\n[end of msg 1]")
    stage_actor.wait_for_hooks("Stop")
    stage_actor.send("[msg 2 from user]\nrehearse: busy 600\nsecond\n[end of msg 2]")
    wait_for(lambda: len(stage_actor.transcript("user")) == 2, "the second message in the transcript")
    os.kill(stage_actor.pid, signal.SIGKILL)
    stage_actor.wait_until_dead()
    assert stage_actor.session()["status"] == "busy"
    with stage_actor.transcript_path.open("a") as file:
        file.write('{"type":"assistant","mess')

    again = stage.launch("--resume", stage_actor.conversation).wait_until("idle")
    wait_for(lambda: len(again.hooks("SessionStart")) == 2, "the second SessionStart hook")
    assert again.hooks("SessionStart")[1]["source"] == "resume"
    again.send("[msg 1 from user]\nhello\n[end of msg 1]")
    again.wait_for_hooks("Stop", 2)
    lines = again.transcript_path.read_text().splitlines()
    lines.remove('{"type":"assistant","mess')
    again.transcript_path.write_text("\n".join(lines) + "\n")
    # The message that was cut off is answered now, without being busy again; the repeated one is not.
    assert again.said() == ["Noted, from user: hello", "Noted, from user: rehearse: busy 600"]


def test_a_conversation_that_exists_cannot_be_begun_again(stage_actor: Actor) -> None:
    stage_actor.send("hello")
    stage_actor.wait_for_hooks("Stop")
    flags = ("--session-id", stage_actor.conversation)
    code, said = refused(stage_actor.stage, *flags, cwd=stage_actor.cwd)
    assert (code, said) == (1, f"Error: Session ID {stage_actor.conversation} is already in use.\n")


def test_a_hook_that_fails_or_hangs_never_stops_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "HOOK_SECONDS", 0.3)
    commands = {"Stop": ["exit 3", "sleep 600", f"cat > {shlex.quote(str(tmp_path))}/payload"]}
    ours = hooks.Hooks(commands, conversation="c", transcript=tmp_path / "t.jsonl", cwd=str(tmp_path))
    assert ours.run("Stop", last_assistant_message="é") is False
    said = json.loads((tmp_path / "payload").read_text())
    assert (said["hook_event_name"], said["last_assistant_message"]) == ("Stop", "é")
    gone = hooks.Hooks(commands, conversation="c", transcript=tmp_path / "t", cwd=str(tmp_path / "gone"))
    assert gone.run("Stop") is False
    assert gone.run("SessionEnd") is True


def test_a_failed_hook_is_shown_and_the_turn_goes_on(stage_empty: Stage) -> None:
    entry = [{"hooks": [{"type": "command", "command": "exit 1"}]}]
    stage_empty.settings.write_text(json.dumps({"hooks": {"UserPromptSubmit": entry}}))
    actor = stage_empty.launch().wait_until("idle")
    actor.send("hello")
    actor.wait_for_words("Noted, from user: hello")
    actor.wait_for_screen("⎿ UserPromptSubmit hook failed")


# The play, against real git.

SPEC = "# Wishlist\n\n## Deliverables\n1. Wishlist model\n2. Wishlist page\n"
TEAM = ("orchestrator", "developer", "tester")


def git(place: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    person = ["-c", "user.name=Somebody", "-c", "user.email=somebody@localhost"]
    done = subprocess.run(
        ["git", "-C", str(place), *person, *words],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return done.stdout.strip()


START = "Rehearsal hand-over from orchestrator: please start."


@dataclass(frozen=True)
class Production:
    """A repository with one worktree and branch for each member of the team."""

    project: Path
    spec: Path
    team: tuple[str, ...]

    def worktree(self, role: str) -> Path:
        return self.project.with_name("worktrees") / role

    def branch(self, role: str) -> str:
        return f"orchestration/ab12-demo/{role}"

    def briefing(self, role: str) -> str:
        members = "\n".join(f"- demo-impl:{one} (branch {self.branch(one)})" for one in self.team)
        place = f"Spec: {self.spec}\nWorktree: {self.worktree(role)}\nBranch: {self.branch(role)}"
        return f"You are the {role}.\n{place}\n\nTeam:\n{members}"


def produce(folder: Path, team: tuple[str, ...] = TEAM) -> Production:
    project = folder / "demo"
    project.mkdir()
    git(project, "init", "-q", "-b", "main")
    (project / "README.md").write_text("demo\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "begin")
    spec = folder / "spec.md"
    spec.write_text(SPEC)
    production = Production(project, spec, team)
    for role in team:
        git(project, "worktree", "add", "-q", "-b", production.branch(role), str(production.worktree(role)))
    return production


@pytest.fixture
def stage_production(stage_empty: Stage) -> Production:
    return produce(stage_empty.folder)


def frame(number: int, sender: str, body: str) -> str:
    return f"[msg {number} from {sender}]\n{body}\n[end of msg {number}]"


def test_a_whole_play_ends_with_everything_on_the_orchestrators_branch(
    stage_empty: Stage, stage_production: Production
) -> None:
    actors = {
        role: stage_empty.launch("--session-id", str(uuid.uuid4()), role=role, cwd=stage_production.worktree(role))
        for role in TEAM
    }
    for number, role in enumerate(TEAM):
        actors[role].wait_until("idle").send(frame(number, "user", stage_production.briefing(role)))

    post: list[list[str]] = []

    def deliver() -> bool:
        """What the real doors do, with the test as the postman; true after the orchestrator's report."""
        for letter in stage_empty.letters():
            door, sender, target, words = letter
            post.append(letter)
            if door == "send-claude-message.sh":
                actors[target.removeprefix("demo-impl:")].send(frame(100 + len(post), sender, words))
            elif target != "orchestrator":
                report = f"Completion report from {target}: {words}"
                actors["orchestrator"].send(frame(100 + len(post), sender, report))
        return any(letter[:3] == ["report-completion.sh", *["orchestrator"] * 2] for letter in post)

    wait_for(deliver, f"the orchestrator's report after {post}")

    for actor in actors.values():
        actor.wait_until("idle")
    assert sorted(letter[:3] for letter in post) == [
        ["report-completion.sh", "developer", "developer"],
        ["report-completion.sh", "orchestrator", "orchestrator"],
        ["report-completion.sh", "tester", "tester"],
        ["send-claude-message.sh", "developer", "demo-impl:tester"],
        ["send-claude-message.sh", "orchestrator", "demo-impl:developer"],
    ]
    place = stage_production.worktree("orchestrator")
    newest = git(place, "rev-parse", "--short", "HEAD")
    report = next(letter[3] for letter in post if letter[1] == "orchestrator" and letter[0][0] == "r")
    assert newest in report
    assert "rehearsal check passed: 2 files" in report
    names = [path.name for path in sorted((place / "rehearsal").iterdir())]
    assert names == ["01-wishlist-model.md", "02-wishlist-page.md", "check.sh"]
    assert play.NOTICE in (place / "rehearsal" / "01-wishlist-model.md").read_text()
    commits = git(place, "log", "--format=%an|%ae|%s", "main..HEAD").splitlines()
    assert len(commits) >= 3
    for commit in commits:
        author, mail, subject = commit.split("|")
        assert author.startswith("Rehearsal ")
        assert mail == "rehearsal@localhost"
        assert subject.startswith("rehearsal: ")
    assert git(stage_production.project, "log", "--format=%s", "main") == "begin"
    for role in TEAM:
        assert git(stage_production.worktree(role), "status", "--porcelain") == ""


def test_a_developer_killed_in_its_work_finishes_it_after_resume(
    stage_empty: Stage, stage_production: Production
) -> None:
    place = stage_production.worktree("developer")
    # The first door call hangs, so the kill falls between the last commit and the hand-over.
    door = stage_empty.folder / "doors" / "send-claude-message.sh"
    script(door, '#!/bin/sh\necho $$ > "$STAGE_HOOKS/.hanging"\nexec sleep 600\n')
    actor = stage_empty.launch("--session-id", str(uuid.uuid4()), role="developer", cwd=place).wait_until("idle")
    actor.send(frame(1, "user", stage_production.briefing("developer")))
    actor.wait_for_hooks("Stop", 1)
    actor.wait_until("idle").send(frame(4, "orchestrator", START))
    hanging = stage_empty.folder / "hooks" / ".hanging"
    child = wait_for(lambda: hanging.exists() and hanging.read_text(), "the hand-over")
    os.kill(actor.pid, signal.SIGKILL)
    os.kill(int(child), signal.SIGKILL)
    actor.wait_until_dead()
    script(door, DOOR)

    again = stage_empty.launch("--resume", actor.conversation, role="developer", cwd=place).wait_until("idle")
    again.send(frame(2, "scheduler", "You were restarted. Go on."))
    again.wait_for_words(play.REPORTED)
    assert [letter[:3] for letter in stage_empty.letters()] == [
        ["send-claude-message.sh", "developer", "demo-impl:tester"],
        ["report-completion.sh", "developer", "developer"],
    ]
    assert len(git(place, "log", "--format=%s", "main..HEAD").splitlines()) == 2
    again.wait_until("idle").send(frame(3, "user", stage_production.briefing("developer")))
    again.wait_for_words("Nothing is left to do")
    assert stage_empty.letters() == []


def test_a_failing_step_is_told_to_the_orchestrator_once_and_the_agent_lives(
    stage_empty: Stage, stage_production: Production
) -> None:
    place = stage_production.worktree("developer")
    git(place, "switch", "-q", "-c", "elsewhere")
    actor = stage_empty.launch("--session-id", str(uuid.uuid4()), role="developer", cwd=place).wait_until("idle")
    actor.send(frame(1, "user", stage_production.briefing("developer")))
    for number in (2, 3):
        actor.wait_for_hooks("Stop", number - 1)
        actor.wait_until("idle").send(frame(number, "orchestrator", START))
    actor.wait_for_hooks("Stop", 3)
    letters = stage_empty.letters()
    assert [letter[:3] for letter in letters] == [["send-claude-message.sh", "developer", "demo-impl:orchestrator"]]
    assert "is on elsewhere" in letters[0][3]
    assert len([line for line in actor.said() if line.startswith("Failed: my branch is")]) == 2
    assert git(place, "log", "--format=%s") == "begin"


@dataclass
class Doors:
    """Hands that work outside of any terminal, and what they sent."""

    hands: Hands
    stage: Stage
    stopped: threading.Event


def hands_of(stage: Stage, production: Production, role: str) -> Doors:
    stopped = threading.Event()
    environment = {**stage.environment, "TMUX_ORCHESTRATOR_ROLE": role}
    return Doors(Hands(role, production.worktree(role), environment, stopped), stage, stopped)


def test_a_conflict_is_undone_and_told_to_its_author(stage_empty: Stage, stage_production: Production) -> None:
    for role in ("developer", "tester"):
        place = stage_production.worktree(role)
        (place / "README.md").write_text(f"{role}\n")
        git(place, "commit", "-q", "-a", "-m", f"by {role}")
    place = stage_production.worktree("tester")
    before = git(place, "rev-parse", "HEAD")
    doors = hands_of(stage_empty, stage_production, "tester")
    author = play.Member("demo-impl:developer", "developer", stage_production.branch("developer"))
    with pytest.raises(StepFailed, match="conflicts with my branch"):
        doors.hands.do(play.Merge(author.branch, author))
    assert git(place, "rev-parse", "HEAD") == before
    assert git(place, "status", "--porcelain") == ""
    assert [letter[2] for letter in stage_empty.letters()] == ["demo-impl:developer"]
    with pytest.raises(StepFailed, match="could not merge nowhere"):
        doors.hands.do(play.Merge("nowhere", author))
    assert stage_empty.letters() == []


def test_a_commit_takes_only_its_own_files(stage_empty: Stage, stage_production: Production) -> None:
    place = stage_production.worktree("developer")
    (place / "README.md").write_text("somebody's own change\n")
    git(place, "add", "README.md")
    (place / ".gitignore").write_text("rehearsal/\n")
    hands = hands_of(stage_empty, stage_production, "developer").hands
    hands.do(play.Write("rehearsal/a.md", "text\n"))
    assert hands.do(play.Commit("write a", ("rehearsal/a.md",))).startswith("Committed")
    assert hands.do(play.Commit("write a", ("rehearsal/a.md",))).startswith("Already committed")
    assert git(place, "show", "--format=", "--name-only", "HEAD") == "rehearsal/a.md"
    assert git(place, "diff", "--cached", "--name-only") == "README.md"


def test_a_check_that_fails_names_what_is_missing(stage_empty: Stage, stage_production: Production) -> None:
    hands = hands_of(stage_empty, stage_production, "tester").hands
    with pytest.raises(StepFailed, match="is not there"):
        hands.do(play.Check(needed=True))
    assert hands.do(play.Check(needed=False)) == "No rehearsal/check.sh to run"
    paths = [path for path, _ in play.files(SPEC)]
    hands.do(play.Write(play.CHECK, play.check_script(paths)))
    hands.do(play.Write(paths[0], "there\n"))
    with pytest.raises(StepFailed, match=f"missing: {paths[1]}"):
        hands.do(play.Check(needed=True))
    hands.do(play.Write(paths[1], "there too\n"))
    assert hands.do(play.Check(needed=True)).endswith("rehearsal check passed: 2 files")


def test_words_reach_a_door_as_one_argument_and_no_shell_reads_them(
    stage_empty: Stage, stage_production: Production
) -> None:
    hands = hands_of(stage_empty, stage_production, "tester").hands
    words = "-x $(touch PWNED) `id` 'q' \"q\"\nsecond line;"
    hands.do(play.Tell("demo-impl:developer", words))
    assert stage_empty.letters() == [["send-claude-message.sh", "tester", "demo-impl:developer", words]]
    script(stage_empty.folder / "doors" / "report-completion.sh", "#!/bin/sh\necho no such agent >&2\nexit 3\n")
    with pytest.raises(StepFailed, match="exit code 3: no such agent"):
        hands.do(play.Report("done"))


def test_a_door_that_leaves_a_process_behind_does_not_hold_the_agent_up(
    stage_empty: Stage, stage_production: Production
) -> None:
    left = stage_empty.folder / "left.pid"
    door = stage_empty.folder / "doors" / "report-completion.sh"
    script(door, f"#!/bin/sh\nsleep 1000 &\necho $! > {shlex.quote(str(left))}\necho done\n")
    try:
        hands_of(stage_empty, stage_production, "tester").hands.do(play.Report("done"))
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)


def test_an_interrupt_ends_the_child_of_the_step(stage_empty: Stage, stage_production: Production) -> None:
    left = stage_empty.folder / "left.pid"
    door = stage_empty.folder / "doors" / "report-completion.sh"
    script(door, f"#!/bin/sh\necho $$ > {shlex.quote(str(left))}\nexec sleep 600\n")
    doors = hands_of(stage_empty, stage_production, "tester")

    def interrupt() -> None:
        wait_for(lambda: left.exists() and left.read_text(), "the door's pid")
        doors.stopped.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted):
        doors.hands.do(play.Report("done"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(left.read_text()), 0)
