"""The hands of the rehearsal: carries out the steps of the play with files, git and the two doors."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from lib.rehearsal import play
from lib.rehearsal.hooks import stop_group

#: A door waits for the receiver's acknowledgement; it has to give up by itself well before this.
CHILD_SECONDS = 120


class StepFailed(Exception):
    """A step of the play could not be done; the message is a sentence."""


class Interrupted(Exception):
    """Somebody pressed Esc."""


class Hands:
    """Works in one worktree, as one role; every wait ends at once when `stopped` is set."""

    def __init__(self, role: str, cwd: Path, environment: Mapping[str, str], stopped: threading.Event) -> None:
        self._role = role
        self._cwd = cwd
        self._environment = environment
        self._stopped = stopped
        self._checked = "not there"

    def wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Interrupted

    def do(self, step: play.Step) -> str:
        """Carry out one step and say in one line what was done; raises StepFailed or Interrupted."""
        match step:
            case play.Say(text):
                return text
            case play.Look(worktree, branch):
                return self._look(worktree, branch)
            case play.Write(path, text):
                return self._write(path, text)
            case play.Commit(subject, paths):
                return self._commit(subject, paths)
            case play.Merge(branch, author):
                return self._merge(branch, author)
            case play.Check(needed):
                return self._check(needed=needed)
            case play.Tell(target, text):
                said = self._filled(text)
                self._door("send-claude-message.sh", target, said)
                return f"Told {target}: {said}"
            case play.CloseCriteria(reason):
                return self._close_criteria(reason)
            case play.GiveUp(text):
                return self._give_up(text)
            case play.Report(text):
                said = self._filled(text)
                self._door("report-completion.sh", self._role, said)
                return f"{play.REPORTED}: {said}"

    def _give_up(self, reason: str) -> str:
        self._door("report-completion.sh", self._role, "--failed", reason)
        return f"{play.REPORTED}: failed: {reason}"

    def _close_criteria(self, reason: str) -> str:
        code, said = self._run(["claude_control.py", "criteria", "--json", "--quiet"])
        if code != 0:
            raise StepFailed(f"claude_control.py criteria failed with exit code {code}: {_last_line(said)}")
        found = [one for one in json.loads(said)["criteria"] if not one["check"] and not one["closed"]]
        names = [str(one["id"]) for one in found]
        if names:
            self._door("claude_control.py", "criteria", "close", *names, "--reason", reason)
        return f"Closed by hand: {', '.join(names) or 'nothing'}"

    def _look(self, worktree: str | None, branch: str) -> str:
        if worktree and Path(worktree).resolve() != self._cwd.resolve():
            raise StepFailed(f"my worktree is {worktree}, but I stand in {self._cwd}")
        on = self._git_or_fail("symbolic-ref", "--short", "HEAD")
        if on != branch:
            raise StepFailed(f"my branch is {branch}, but {self._cwd} is on {on}")
        return f"In {self._cwd}, on {branch}."

    def _write(self, path: str, text: str) -> str:
        file = self._cwd / path
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StepFailed(f"could not write {path}: {error.strerror}") from error
        return f"Wrote {path}"

    def _commit(self, subject: str, paths: tuple[str, ...]) -> str:
        # -f: a project that ignores the folder still gets to see what a rehearsal does.
        self._git_or_fail("add", "-f", "--", *paths)
        if self._git("diff", "--cached", "--quiet", "--", *paths)[0] == 0:
            return f"Already committed: {', '.join(paths)}"
        self._git_or_fail("commit", "--quiet", "-m", f"rehearsal: {subject}", "--", *paths)
        return f"Committed {self._newest()}: {subject}"

    def _merge(self, branch: str, author: play.Member) -> str:
        code, words = self._git("merge", "--no-edit", "-m", f"rehearsal: merge {branch}", branch)
        if code == 0:
            return f"Merged {branch}"
        if self._git("rev-parse", "--quiet", "--verify", "MERGE_HEAD")[0] != 0:
            raise StepFailed(f"could not merge {branch}: {_last_line(words)}")
        self._git_or_fail("merge", "--abort")
        conflict = f"merging {branch} conflicts with my branch; I undid the merge"
        self._door("send-claude-message.sh", author.target, f"Rehearsal: {conflict}.")
        raise StepFailed(f"{conflict} and told {author.role}")

    def _check(self, *, needed: bool) -> str:
        if not (self._cwd / play.CHECK).exists():
            if needed:
                raise StepFailed(f"{play.CHECK} is not there")
            self._checked = "not there"
            return f"No {play.CHECK} to run"
        code, words = self._run(["sh", play.CHECK])
        if code != 0:
            raise StepFailed(f"{play.CHECK} failed: {_last_line(words)}")
        self._checked = f"passed ({_last_line(words)})"
        return f"{play.CHECK}: {_last_line(words)}"

    def _filled(self, text: str) -> str:
        if "{commit}" in text:
            text = text.replace("{commit}", self._newest())
        return text.replace("{check}", self._checked)

    def _newest(self) -> str:
        return self._git_or_fail("rev-parse", "--short", "HEAD")

    def _door(self, door: str, *words: str) -> None:
        code, said = self._run([door, *words])
        if code != 0:
            raise StepFailed(f"{door} {words[0]} failed with exit code {code}: {_last_line(said)}")

    def _git(self, *words: str) -> tuple[int, str]:
        person = ("-c", f"user.name=Rehearsal {self._role}", "-c", "user.email=rehearsal@localhost")
        # Signing needs a person's key, and tidying the user's repository is not ours to start.
        return self._run(["git", *person, "-c", "commit.gpgsign=false", "-c", "gc.auto=0", *words])

    def _git_or_fail(self, *words: str) -> str:
        code, said = self._git(*words)
        if code != 0:
            raise StepFailed(f"git {words[0]} failed: {_last_line(said)}")
        return said.strip()

    def _run(self, argv: list[str]) -> tuple[int, str]:
        """Exit code and output of a child; a grandchild that keeps the pipe open does not hold us up."""
        try:
            child = subprocess.Popen(
                argv,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StepFailed(f"could not run {argv[0]}: {error.strerror}") from error
        with child:
            return self._collect(child, argv[0])

    def _collect(self, child: subprocess.Popen[bytes], name: str) -> tuple[int, str]:
        assert child.stdout is not None  # opened as a pipe above
        pipe, said, deadline = child.stdout.fileno(), bytearray(), time.monotonic() + CHILD_SECONDS
        open_still = True
        while True:
            if open_still and select.select([pipe], [], [], 0.05)[0]:
                data = os.read(pipe, 65536)
                said += data
                open_still = bool(data)
            elif child.poll() is not None:
                return child.returncode, said.decode("utf-8", "replace")
            elif not open_still:
                self._stopped.wait(0.01)
            if self._stopped.is_set():
                _end(child)
                raise Interrupted
            if time.monotonic() > deadline:
                _end(child)
                raise StepFailed(f"{name} did not end within {CHILD_SECONDS} seconds")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask first: git removes its lock files when it is asked."""
    stop_group(child, signal.SIGTERM)
    try:
        child.wait(timeout=3)
    except subprocess.TimeoutExpired:
        stop_group(child, signal.SIGKILL)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
