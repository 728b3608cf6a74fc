"""Claude Code without a window: one question, one answer in a given shape.

With claude.py and screens.py the only room that knows Claude Code's flags. Measured with 2.1.330: an answer that never
takes the shape ends with exit code 0 and without `structured_output`; an error of the API with exit code 1 and `is_error`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import claude
from lib.config import ResearchSettings, Settings
from lib.errors import Unavailable

#: It looks things up, and can neither write nor run anything.
_TOOLS = ("WebSearch", "WebFetch")


def ask(settings: Settings, prompt: str, schema: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Ask Claude Code one question and return its answer, an object of the shape of `schema`.

    It works in `folder`, which should be empty: no project's instructions, hooks or servers are read there, and the
    user's hooks do not run. Raises `Unavailable` with the reason when there is no answer of that shape.
    """
    executable = shutil.which(settings.claude_command)
    if executable is None:
        raise Unavailable(f"there is no command {settings.claude_command!r}", hint="./setup.sh")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [executable, *_options(settings.research, schema)]
    said, code = _run(command, prompt, folder, seconds=settings.research.timeout_seconds)
    try:
        answer = json.loads(said)
    except ValueError:
        words = [line.strip() for line in said.splitlines() if line.strip()]
        raise Unavailable(f"Claude Code left with {code}: {words[-1][:300] if words else 'it said nothing'}") from None
    if not isinstance(answer, dict) or code or answer.get("is_error"):
        reason = answer.get("result") if isinstance(answer, dict) else None
        raise Unavailable(f"Claude Code gave no answer: {str(reason or f'exit code {code}')[:300]}")
    found = answer.get("structured_output")
    if not isinstance(found, dict):
        raise Unavailable("Claude Code's answer has not the shape that was asked for")
    return found


def _options(research: ResearchSettings, schema: Mapping[str, Any]) -> list[str]:
    options = ["-p", "--output-format", "json", "--json-schema", json.dumps(schema)]
    # The user's own settings know the account; those of a project, and every hook, have no business here.
    options += ["--setting-sources", "user", "--settings", '{"disableAllHooks": true}']
    options += ["--no-session-persistence", "--strict-mcp-config", "--permission-mode", "dontAsk"]
    allowed = list(_TOOLS)
    if research.mcp_config:
        path = Path(research.mcp_config).expanduser()
        allowed += [f"mcp__{name}" for name in _servers(path)]
        options += ["--mcp-config", str(path)]
    options += ["--tools", ",".join(_TOOLS), "--allowedTools", ",".join(allowed)]
    return [*options, "--model", research.model] if research.model else options


def _servers(path: Path) -> list[str]:
    """The names of the servers of an MCP configuration. Raises `Unavailable` naming what is wrong with it."""
    hint = "research.mcp_config in config.yaml; docs/research.md has an example"
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["mcpServers"])
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f'{path} is no MCP configuration: it needs {{"mcpServers": {{...}}}}', hint=hint) from None


def _run(command: list[str], prompt: str, folder: Path, *, seconds: float) -> tuple[str, int]:
    """Run a command that reads `prompt`; it and all that it has started end after `seconds`."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=claude.without_identity(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be run: {error.strerror}") from error
    try:
        said, _ = process.communicate(prompt, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"Claude Code has not answered within {seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return said, process.returncode
