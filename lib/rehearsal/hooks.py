"""Running the hook commands of a settings file the way Claude Code runs them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOOK_SECONDS = 10


class BadSettings(Exception):
    """The settings file cannot be used; the message is a sentence for the user."""


def read_settings(path: Path) -> dict[str, list[str]]:
    """The commands of each event in a settings file of Claude Code's shape."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(event): [
                str(hook["command"])
                for group in groups
                if not group.get("matcher")  # such a group is for a compaction, which nothing here does
                for hook in group.get("hooks", [])
                if hook.get("type") == "command"
            ]
            for event, groups in settings.get("hooks", {}).items()
        }
    except OSError as error:
        raise BadSettings(f"Error: Settings file not readable: {path}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BadSettings(f"Error: Settings file has not the shape of hooks: {path}: {error}") from error


def stop_group(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a child that leads its own process group, with all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)


class Hooks:
    """The hooks of one conversation; a hook that fails never stops the agent."""

    def __init__(self, commands: Mapping[str, list[str]], *, conversation: str, transcript: Path, cwd: str) -> None:
        self._commands = commands
        self._common = {"session_id": conversation, "transcript_path": str(transcript), "cwd": cwd}
        self.environment = {
            **os.environ,
            "CLAUDE_PID": str(os.getpid()),
            "CLAUDE_CODE_SESSION_ID": conversation,
            "CLAUDE_PROJECT_DIR": cwd,
        }

    def run(self, event: str, **own: object) -> bool:
        """Run every command of an event, one after another; False when one of them failed."""
        payload = json.dumps({**self._common, "hook_event_name": event, **own}, ensure_ascii=False)
        outcomes = [self._run_one(command, payload.encode()) for command in self._commands.get(event, [])]
        return all(outcomes)

    def _run_one(self, command: str, payload: bytes) -> bool:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._common["cwd"],
                env=self.environment,
                start_new_session=True,  # as measured in the real one: hooks have no controlling terminal
            )
        except OSError:
            return False
        try:
            process.communicate(payload, timeout=HOOK_SECONDS)
        except subprocess.TimeoutExpired:
            stop_group(process, signal.SIGKILL)
            process.wait()
        return process.returncode == 0
