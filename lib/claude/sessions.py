"""What Claude Code's session files say: what a live one does, and which conversation runs in a pane."""

from __future__ import annotations

import json
from pathlib import Path

from lib import host
from lib.models import AgentState, Process

_STATES = {"idle": AgentState.IDLE, "busy": AgentState.WORKING, "waiting": AgentState.ASKING}


def state(config_dir: Path, conversation_id: str, process: Process) -> AgentState:
    """What a live agent does, from its own session file; STARTING before it has written one."""
    session = _session_file(config_dir, process.pid)
    if session is None or session.get("sessionId") != conversation_id:
        return AgentState.STARTING
    if str(session.get("procStart", process.started)) != str(process.started):
        return AgentState.STARTING
    return _STATES.get(str(session.get("status")), AgentState.WORKING)


def state_since(config_dir: Path, process: Process) -> int | None:
    """Since when a live agent does what it does (UTC milliseconds), from its own session file; None before that."""
    session = _session_file(config_dir, process.pid)
    since = session.get("statusUpdatedAt") if session else None
    return since if isinstance(since, int) else None


def has_dialog_open(config_dir: Path, process: Process) -> bool:
    """Whether a live agent shows a dialog that a command or a key has opened, and not a question of its own."""
    session = _session_file(config_dir, process.pid)
    return session is not None and (session.get("status"), session.get("waitingFor")) == ("waiting", "dialog open")


def conversation_in(config_dir: Path, pane_id: str, pane_pid: int) -> tuple[str, int, Path] | None:
    """The live conversation in a pane of ours or of a person: its id, its pid, its working directory.

    Session files name their pane (`session:@window.%pane`), and outlive a killed process: the process must
    still be the one that wrote the file, and run in this pane and not in one of the same id elsewhere.
    """
    for path in sorted((config_dir / "sessions").glob("*.json")):
        session = _session_file(config_dir, int(path.stem)) if path.stem.isdigit() else None
        if session is None or not str(session.get("tmux", "")).endswith(f".{pane_id}"):
            continue
        pid = int(path.stem)
        process = host.process(pid)
        if process and str(session.get("procStart")) == str(process.started) and host.is_below(pid, pane_pid):
            return str(session.get("sessionId")), pid, Path(str(session.get("cwd")))
    return None


def _session_file(config_dir: Path, pid: int) -> dict[str, object] | None:
    try:
        content = json.loads((config_dir / "sessions" / f"{pid}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
