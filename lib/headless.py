"""Claude Code without a window: one question, one answer in a given shape.

With claude/ and screens.py the only room that knows Claude Code's flags and output. Measured with 2.1.330:

- The answer comes by a tool of Claude Code's own, StructuredOutput, which refuses what is not of the shape. When the
  model never calls it, it leaves with 0 and no `structured_output`; when it never gets it right, with 1 and `errors`;
  after an error of the API or without a login with 1, `is_error` and the words in `result`.
- `--setting-sources user` keeps the user's login (also an apiKeyHelper) and reads nothing of a project, neither
  CLAUDE.md nor hooks, from the folders above either; `disableAllHooks` silences the user's hooks. `--restricted` and
  `--bare` would lose the login, `--safe-mode` the servers.
- `--tools` takes the others away. In the mode dontAsk what is not allowed is refused, and asks nobody. Servers that are
  slow to start are waited for; one that does not start is named in the first message and changes nothing else.
- In that mode Read, Grep and Glob work below the folder and are refused outside of it, also through a link, as long as
  they are not allowed by name: `--allowedTools Read` opens the whole disk.
- A word that begins with @ and names a file is attached to the question, whoever wrote it, from anywhere on the disk,
  and without any tool. A backslash before it keeps it text.
- A question that begins with /NAME goes to the user's own command of that name: it stands behind the command's text, or
  where that says $ARGUMENTS. Shell lines of a command (!`...`) are refused without Bash, and then no model is asked. A
  command of the project's is not known.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lib.claude import starting
from lib.errors import Unavailable
from lib.judgement import shapes
from lib.records import dataclass

#: What reads in the folder alone, because it is not allowed by name.
READING = ("Read", "Grep", "Glob")
#: What is attached: measured after white space, at the beginning, and after what is no ASCII.
_ATTACHED = re.compile(r"(?<![!-~])@")
#: More than this of what it prints is no answer.
_MOST_BYTES = 32_000_000
#: How long a server may take to start, unless the user says otherwise: npx and uvx fetch it first.
_SERVER_START_MS = "60000"
#: How long it has to put its own things away when it is ended.
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Asking:
    """How to ask: the command, the model, a file of MCP servers, how long it may take, with which tools and primer."""

    command: str = "claude"
    model: str | None = None
    servers: Path | None = None
    seconds: float = 600.0
    #: What it may use. It can neither run a command nor write a file.
    tools: tuple[str, ...] = ("WebSearch", "WebFetch")
    #: A command of the user's own that gets the question.
    primer: str | None = None


@dataclass(frozen=True)
class Answer:
    """An object of the shape that was asked for. `notes` are what did not work on the way, in sentences."""

    found: dict[str, Any]
    cost_usd: float | None
    notes: tuple[str, ...]


def ask(asking: Asking, prompt: str, schema: shapes.Schema, *, folder: Path) -> Answer:
    """Ask Claude Code one question. It works in `folder`, which is made, and should be empty unless it may read.

    Raises `Unavailable` with the reason when there is no answer of the shape of `schema`.
    """
    executable = shutil.which(asking.command)
    if executable is None:
        raise Unavailable(
            f"Claude Code is not installed: no command {asking.command!r} on PATH",
            hint="npm install -g @anthropic-ai/claude-code",
        )
    asked = _ATTACHED.sub(r"\@", prompt)
    if asking.primer:
        asked = f"/{asking.primer} {asked}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    servers, trouble = _servers(asking.servers)
    code, said, complained = _run([executable, *_options(asking, schema, servers)], asked, folder, asking.seconds)
    messages = _messages(said)
    result = next((one for one in reversed(messages) if one.get("type") == "result"), None)
    found = result.get("structured_output") if result else None
    if result is None or code or result.get("is_error") or found is None:
        raise Unavailable(f"Claude Code gave no answer: {_why(result, code, complained)}")
    if wrong := shapes.misfit(found, schema):
        raise Unavailable(f"Claude Code's answer has not the shape that was asked for: {wrong}")
    cost = result.get("total_cost_usd")
    notes = [trouble] if trouble else _missing(servers, messages)
    return Answer(found, float(cost) if isinstance(cost, int | float) else None, tuple(notes))


def _options(asking: Asking, schema: shapes.Schema, servers: Sequence[str]) -> list[str]:
    options = ["-p", "--output-format", "stream-json", "--verbose", "--json-schema", json.dumps(schema)]
    options += ["--setting-sources", "user", "--settings", json.dumps({"disableAllHooks": True})]
    options += ["--no-session-persistence", "--strict-mcp-config", "--permission-mode", "dontAsk"]
    # In the name of a tool whatever is no letter, digit, dash or underscore of its server's name is an underscore.
    allowed = [one for one in asking.tools if one not in READING]
    allowed += [f"mcp__{re.sub(r'[^A-Za-z0-9_-]', '_', name)}" for name in servers]
    options += ["--tools", ",".join(asking.tools)]
    if allowed:
        options += ["--allowedTools", ",".join(allowed)]
    if servers:
        options += ["--mcp-config", str(asking.servers)]
    return [*options, "--model", asking.model] if asking.model else options


def _servers(path: Path | None) -> tuple[list[str], str | None]:
    """The names of the servers in an MCP configuration; or none, and why it is asked without them."""
    if path is None:
        return [], None
    try:
        servers = json.loads(path.read_text(encoding="utf-8"))["mcpServers"]
        if isinstance(servers, dict) and all(isinstance(one, dict) for one in servers.values()):
            return list(servers), None
        why = "mcpServers must be an object of objects"
    except OSError as error:
        why = f"it cannot be read ({error.strerror})"
    except (KeyError, TypeError):
        why = 'it must be {"mcpServers": {...}}'
    except (ValueError, RecursionError) as error:
        why = f"it is not JSON ({error})"
    return [], f"asked without the servers of {path}: {why}"


def _missing(servers: Sequence[str], messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which servers it had to do without."""
    first = next((one for one in messages if one.get("subtype") == "init"), {})
    status = {one.get("name"): one.get("status") for one in first.get("mcp_servers") or () if isinstance(one, dict)}
    missing = {name: status.get(name, "refused") for name in servers if status.get(name) != "connected"}
    return [f"asked without the server {name}: {how}" for name, how in missing.items()]


def _messages(said: bytes) -> list[dict[str, Any]]:
    found = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # whatever it prints besides
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _why(result: Mapping[str, Any] | None, code: int, complained: str) -> str:
    """Why there is no answer, in Claude Code's own words where it has some."""
    if result is None:
        words = [complained]
    elif code or result.get("is_error"):
        words = [
            str(one) for one in (result.get("result"), *(result.get("errors") or ()), result.get("subtype")) if one
        ]
    else:
        words = ["it never took the shape that was asked for"]
    line = " ".join(" ".join(words[:1]).split())
    return line[:300] or f"it left with exit code {code}"


# -- the process --


def _run(command: Sequence[str], prompt: str, folder: Path, seconds: float) -> tuple[int, bytes, str]:
    """Run a command that reads `prompt`. Returns its exit code, what it has printed, and the end of its complaints.

    It and all that it has started are gone then. Raises `Unavailable` when it takes or says too much.
    """
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as complaints:
        question.write(prompt.encode("utf-8", "replace"))
        question.seek(0)
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(),
                stdin=question,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
                preexec_fn=_ends_with_parent(),
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} cannot be run: {error.strerror}") from error
        try:
            assert process.stdout
            said = _read(process.stdout, time.monotonic() + seconds)
            process.wait(_PATIENCE_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise Unavailable(f"Claude Code has not answered within {seconds:g} s") from None
        finally:
            _end(process)
        complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - 4096))
        return process.returncode, said, complaints.read().decode("utf-8", "replace")


def _ends_with_parent() -> Callable[[], object] | None:
    """What a new process does first, so that it is ended when this one is: by itself it would go on asking the model.

    Measured: without a reader of its output and without a time limit it does so for as long as the model answers.
    """
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - only a question needs it

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _environment() -> dict[str, str]:
    """That of this process, as if Claude Code were started by hand, in no agent, in no window, and by no door."""
    kept = starting.without_identity(os.environ)
    for name in ("TMUX", "TMUX_PANE", "VIRTUAL_ENV"):
        kept.pop(name, None)
    own = str(Path(sys.prefix) / "bin")
    folders = [one for one in kept.get("PATH", os.defpath).split(os.pathsep) if one != own]
    kept["PATH"] = os.pathsep.join(folders)
    # What the user has written for agents that work on code (CLAUDE.md in their home) has no business here.
    return {"MCP_TIMEOUT": _SERVER_START_MS, **kept, "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1"}


def _read(stream: IO[bytes], deadline: float) -> bytes:
    """All that a process prints. Raises `TimeoutError` at the deadline (of the monotonic clock)."""
    said = bytearray()
    while len(said) <= _MOST_BYTES:
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            return bytes(said)
        said += piece
    raise Unavailable(f"Claude Code has printed more than {_MOST_BYTES:,} bytes")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, which removes its own files when it is asked to, and then whatever is left of its group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
