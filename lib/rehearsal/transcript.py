"""The files that Claude Code keeps about a conversation, in the same places and shapes, for the rehearsal."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from lib.records import dataclass
from lib.rehearsal import VERSION

INTERRUPTED = "[Request interrupted by user]"


def now_ms() -> int:
    return int(time.time() * 1000)


def fresh_id() -> str:
    """A random UUID (version 4), without the cost of importing uuid at start."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def process_start(pid: int) -> str:
    """What tells a process from a later one with its pid: field 22 of /proc/PID/stat, else ps's words."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        return stat.read_text().rpartition(")")[2].split()[19]
    asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def transcript_path(config: Path, cwd: str, conversation: str) -> Path:
    return config / "projects" / cwd.replace("/", "-") / f"{conversation}.jsonl"


@dataclass
class SessionFile:
    """`<config>/sessions/<pid>.json`: who runs here and whether it is idle, busy or waiting."""

    config: Path
    conversation: str
    cwd: str
    name: str
    pid: int = field(default_factory=os.getpid)
    started_at: int = field(default_factory=now_ms)

    def __post_init__(self) -> None:
        self._process_start = process_start(self.pid)

    @property
    def path(self) -> Path:
        return self.config / "sessions" / f"{self.pid}.json"

    def write(self, status: str, *, waiting_for: str | None = None) -> None:
        now = now_ms()
        said = {
            "pid": self.pid,
            "sessionId": self.conversation,
            "cwd": self.cwd,
            "startedAt": self.started_at,
            "procStart": self._process_start,
            "version": VERSION,
            "rehearsal": True,
            "kind": "interactive",
            "name": self.name,
            "status": status,
            **({"waitingFor": waiting_for} if waiting_for else {}),
            "updatedAt": now,
            "statusUpdatedAt": now,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half = self.path.with_name(f".{self.pid}.new")
        half.write_text(json.dumps(said, separators=(",", ":")))
        half.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Transcript:
    """One conversation as JSON lines; the file begins with the first turn, as Claude Code's does."""

    def __init__(self, path: Path, conversation: str, cwd: str) -> None:
        self.path = path
        self._conversation = conversation
        self._cwd = cwd
        self._lock = threading.Lock()
        self._end_cut_line()

    def user(self, text: str, *, source: str) -> None:
        self._add({"type": "user", "message": {"role": "user", "content": text}, "promptSource": source})

    def command(self, name: str, arguments: str) -> None:
        """What Claude Code 2.1.330 writes when a slash command has run."""
        self._add(
            {
                "type": "user",
                "message": {
                    "role": "user",
                    "content": f"<command-name>{name}</command-name>\n"
                    f"            <command-message>{name[1:]}</command-message>\n"
                    f"            <command-args>{arguments}</command-args>",
                },
            }
        )

    def assistant(self, text: str, *, prompt: str) -> None:
        # Nothing is spent; the sizes are a quarter of the characters, so that views have something to show.
        usage = {
            "input_tokens": len(prompt) // 4,
            "output_tokens": len(text) // 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }
        self._add({"type": "assistant", "message": _spoken(text, model="rehearsal", usage=usage)})

    def limit(self, text: str, resets_at: int) -> None:
        """The line that Claude Code 2.1.330 writes at a five-hour limit; `resets_at` is in epoch seconds."""
        usage = dict.fromkeys(
            ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), 0
        )
        about = {"status": "rejected", "resetsAt": resets_at, "rateLimitType": "five_hour"}
        self._add(
            {
                "type": "assistant",
                "message": _spoken(text, model="<synthetic>", usage=usage),
                "isApiErrorMessage": True,
                "error": "rate_limit",
                "apiErrorStatus": 429,
                "apiErrorType": "rate_limit_error",
                "apiError": "usage_limit_reached",
                "apiErrorParams": {"rate_limit_info": about},
            }
        )

    def queue(self, operation: str, text: str) -> None:
        self._add({"type": "queue-operation", "operation": operation, "content": text})

    def turn_over(self, duration_ms: int) -> None:
        self._add({"type": "system", "subtype": "turn_duration", "durationMs": duration_ms})

    def lines(self) -> Iterator[dict[str, object]]:
        """Every whole line of the file; a line cut short by a crash is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def _end_cut_line(self) -> None:
        """A crash in the middle of a line must not swallow the next one."""
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")

    def _add(self, entry: dict[str, object]) -> None:
        at = time.time()
        entry |= {
            "uuid": fresh_id(),
            "timestamp": time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(at * 1000) % 1000:03d}Z", time.gmtime(at)),
            "sessionId": self._conversation,
            "cwd": self._cwd,
            "version": VERSION,
            "rehearsal": True,
        }
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)


def _spoken(text: str, *, model: str, usage: dict[str, int]) -> dict[str, object]:
    return {
        "id": f"msg_rehearsal_{os.urandom(8).hex()}",
        "type": "message",
        "model": model,
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "usage": usage,
    }


@dataclass(frozen=True)
class Entry:
    """One line of the transcript, as far as a resumed rehearsal needs it."""

    kind: str  # "user", "assistant", "limit" or "over"
    text: str = ""
    resets_at: int = 0


def entries(transcript: Transcript) -> Iterator[Entry]:
    for line in transcript.lines():
        match line:
            case {"type": "user", "message": {"content": str(text)}, "promptSource": _} if text != INTERRUPTED:
                yield Entry("user", text)
            case {"apiErrorParams": {"rate_limit_info": {"resetsAt": int(resets_at)}}}:
                yield Entry("limit", resets_at=resets_at)
            case {"type": "assistant", "message": {"content": [{"text": str(text)}]}}:
                yield Entry("assistant", text)
            case {"type": "system", "subtype": "turn_duration"}:
                yield Entry("over")
