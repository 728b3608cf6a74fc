"""How Claude Code is started: its launch files, its command line, its environment."""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lib.claude import hooks, installed
from lib.config import ROOT, Settings, config_path
from lib.models import Agent, Program

#: The name under which tmux shows a running Claude Code (`pane_current_command`).
COMMAND = "claude"
#: The server of our tools: its name is part of theirs (`mcp__tmux-orchestrator__send_message`).
TOOLS_NAME = "tmux-orchestrator"
#: Variables that Claude Code sets for its own children: an agent that is launched from inside another
#: agent must not inherit that one's identity.
_IDENTITY = (
    "CLAUDECODE",
    "CLAUDE_PID",
    "CLAUDE_EFFORT",
    "CLAUDE_ENV_FILE",
    "CLAUDE_PROJECT_DIR",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_MESSAGING_SOCKET",
    "CLAUDE_CODE_MESSAGING_TOKEN",
    "CLAUDE_CODE_SSE_PORT",
    "AI_AGENT",
)
_REHEARSAL_VARIABLES = ("TMUX_ORCHESTRATOR_REHEARSAL_PACE",)


def write_launch_files(
    agent: Agent,
    *,
    home: Path,
    socket: str | None,
    role_text: str,
    reminder: str,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
) -> Path:
    """Write the settings, the tools and the role text that an agent starts with. Returns their folder.

    `reminder` is what it is told after its conversation was summarised: by a hook for that alone, which prints a file.
    `allow` and `deny` are the rules of its role. Measured with 2.1.330: deny holds in bypassPermissions too.
    """
    folder = home / "agents" / str(agent.id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "role.md").write_text(role_text, encoding="utf-8")
    hook = shlex.join(
        [
            str(_base_python()),
            "-I",
            "-S",
            str(ROOT / "lib" / "front" / "hook.py"),
            str(home),
            str(agent.id),
            str(agent.epoch),
        ]
    )
    entry = [{"hooks": [{"type": "command", "command": hook, "timeout": 10}]}]
    launch_settings = {
        # A project may carry disableAllHooks: true; ours has the last word.
        "disableAllHooks": False,
        "skipDangerousModePermissionPrompt": True,
        # After a five-hour limit an agent goes on by itself, also when nobody is there to tell it to. Switched off,
        # Claude Code would open a dialog instead (docs/decisions/limits.md).
        "autoContinueAtUsageLimit": True,
        "hooks": {**dict.fromkeys(hooks.EVENTS, entry), "SessionStart": [*entry, _reminding(folder, reminder)]},
        # In a permission mode that asks, nobody would be there to say yes to a message.
        "permissions": {"allow": [f"mcp__{TOOLS_NAME}", *allow], "deny": [*deny]},
    }
    (folder / "settings.json").write_text(json.dumps(launch_settings, indent=1), encoding="utf-8")
    (folder / "mcp.json").write_text(json.dumps(_tools(agent, home, socket), indent=1), encoding="utf-8")
    return folder


def _reminding(folder: Path, reminder: str) -> dict[str, object]:
    """The hook that reminds an agent after a compaction, whatever becomes of the file that it prints."""
    path = folder / "reminder.json"
    told = {"hookEventName": "SessionStart", "additionalContext": reminder}
    path.write_text(json.dumps({"hookSpecificOutput": told}), encoding="utf-8")
    command = f"cat {shlex.quote(str(path))} 2>/dev/null; true"
    return {"matcher": "compact", "hooks": [{"type": "command", "command": command, "timeout": 10}]}


def _tools(agent: Agent, home: Path, socket: str | None) -> dict[str, object]:
    """The server of the team's tools, as --mcp-config takes it. Who the agent is stands in the environment."""
    server = {
        "type": "stdio",
        "command": str(ROOT / "mcp_server.py"),
        "args": [],
        "env": _identity(agent, home, socket),
        # The tools are few, and used all day: without this the model has to search for each before its first use.
        "alwaysLoad": True,
    }
    return {"mcpServers": {TOOLS_NAME: server}}


def _identity(agent: Agent, home: Path, socket: str | None) -> dict[str, str]:
    """The variables by which what an agent starts finds the state home, the tmux server and itself."""
    variables = {
        "TMUX_ORCHESTRATOR_HOME": str(home),
        # The tmux server may have another environment than the shell: settings and policy are the launch's.
        "TMUX_ORCHESTRATOR_CONFIG": str(config_path()),
        "TMUX_ORCHESTRATOR_AGENT": str(agent.id),
        "TMUX_ORCHESTRATOR_EPOCH": str(agent.epoch),
        "TMUX_ORCHESTRATOR_ROLE": agent.role,
        "TMUX_ORCHESTRATOR_SESSION": agent.session,
    }
    if socket:
        variables["TMUX_ORCHESTRATOR_SOCKET"] = socket
    return variables


def _base_python() -> Path:
    # Not the environment of a door: uv may clean that while agents run, and the hook needs no packages.
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def launch_command(
    installation: installed.Installation,
    agent: Agent,
    settings: Settings,
    *,
    home: Path,
    socket: str | None,
    resume: bool,
    variables: Mapping[str, str] = MappingProxyType({}),
    tools: Sequence[str] | None = None,
) -> list[str]:
    """The argument list that becomes the pane's process: env replaces itself by the agent's program.

    `variables` are the project's own for this agent. `tools` are the only ones of Claude Code's own that it has, or
    None for all: those of MCP servers stay (measured with 2.1.330).
    """
    folder = home / "agents" / str(agent.id)
    variables = {**variables, **_identity(agent, home, socket), "PATH": _path_with_doors()}
    if settings.trust_project:
        variables["CLAUDE_CODE_SANDBOXED"] = "1"
    if installation.program is Program.REHEARSAL:
        variables["CLAUDE_CONFIG_DIR"] = str(installation.config_dir)
        variables |= {name: os.environ[name] for name in _REHEARSAL_VARIABLES if name in os.environ}
    command = ["env"]
    for name in (*_IDENTITY, "VIRTUAL_ENV"):
        command += ["-u", name]
    command += [f"{name}={value}" for name, value in variables.items()]
    command += installation.command
    command += ["--resume" if resume else "--session-id", agent.conversation_id]
    command += ["--settings", str(folder / "settings.json")]
    if settings.mcp:
        command += ["--mcp-config", str(folder / "mcp.json")]
    command += ["--append-system-prompt-file", str(folder / "role.md")]
    command += ["--permission-mode", settings.permission_mode, "--name", agent.target]
    if settings.model:
        command += ["--model", settings.model]
    if tools is not None:
        command += ["--tools", ",".join(tools)]
    return command


def passed_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the launching shell that agents get (setting `pass_environment`)."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _IDENTITY and any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.pass_environment)
    }


def without_identity(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a Claude Code is nobody's child."""
    return {name: value for name, value in environment.items() if name not in _IDENTITY}


def _path_with_doors() -> str:
    own = str(Path(sys.prefix) / "bin")  # the environment of a door is not the agents'
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part not in (own, str(ROOT))]
    return os.pathsep.join([str(ROOT), *rest])
