"""The agents table: who is in which window, worktree and conversation; and how people name them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import NotFound, Usage
from lib.models import LIVE, Agent, Process, Program
from lib.tmux import Tmux

_SELECT = """
SELECT agents.*, orchestrations.session, orchestrations.program, orchestrations.config_dir, orchestrations.status
FROM agents JOIN orchestrations ON orchestrations.id = agents.orchestration_id
"""


@dataclass(frozen=True)
class NewAgent:
    """What is decided about an agent before anything of it exists."""

    role: str
    window: int
    worktree: Path
    branch: str
    conversation_id: str


def add(db: sqlite3.Connection, orchestration_id: str, new: NewAgent) -> int:
    """Record an agent; call it in the transaction that records its orchestration. Returns its id."""
    cursor = db.execute(
        "INSERT INTO agents (orchestration_id, role, window, worktree, branch, conversation_id)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (orchestration_id, new.role, new.window, str(new.worktree), new.branch, new.conversation_id),
    )
    return int(cursor.lastrowid or 0)


def get(db: sqlite3.Connection, agent_id: int) -> Agent:
    """An agent by its id. Raises `NotFound`."""
    row = db.execute(f"{_SELECT} WHERE agents.id = ?", (agent_id,)).fetchone()
    if row is None:
        raise NotFound(f"no agent has the id {agent_id}", hint="claude_control.py status")
    return _agent(row)


def of_orchestration(db: sqlite3.Connection, orchestration_id: str) -> list[Agent]:
    """The team of an orchestration, by window."""
    rows = db.execute(f"{_SELECT} WHERE orchestration_id = ? ORDER BY window", (orchestration_id,))
    return [_agent(row) for row in rows]


def live(db: sqlite3.Connection) -> list[Agent]:
    """The agents of every orchestration that is not over, by session and window."""
    marks = ", ".join("?" * len(LIVE))
    rows = db.execute(f"{_SELECT} WHERE status IN ({marks}) ORDER BY session, window", LIVE)
    return [_agent(row) for row in rows]


def resolve(db: sqlite3.Connection, tmux: Tmux, target: str, *, sender: Agent | None = None) -> Agent:
    """The agent that `target` names: `session:role`, `session:window`, a pane id, or a role of the sender's team.

    Raises `NotFound` with the targets that exist. Nothing is guessed: an unknown name is never somebody else.
    """
    session, _, name = target.rpartition(":")
    candidates = _candidates(db)
    if target.startswith("%"):
        found = [agent for agent in candidates if agent.pane_id == target]
    elif session:
        team = [agent for agent in candidates if agent.session == session]
        found = [agent for agent in team if agent.role == name]
        if not found and name.isdigit():
            found = _at_window(tmux, team, session, int(name))
    elif sender:
        team = of_orchestration(db, sender.orchestration_id)
        found = [agent for agent in team if agent.role == target]
        candidates = team
    else:
        found = []
    if not found:
        known = ", ".join(agent.target for agent in candidates)
        raise NotFound(
            f"no agent at {target!r}",
            hint=f"agents: {known}" if known else "no team is running: auto_orchestrate.py",
        )
    return found[0]


def _candidates(db: sqlite3.Connection) -> list[Agent]:
    # A live team comes before an ended one of the same session name, a later one before an earlier one.
    marks = ", ".join("?" * len(LIVE))
    rows = db.execute(
        f"{_SELECT} WHERE status IN ({marks}, 'completed')"
        " ORDER BY status = 'completed', orchestrations.created_at DESC, window",
        LIVE,
    )
    return [_agent(row) for row in rows]


def _at_window(tmux: Tmux, team: Sequence[Agent], session: str, window: int) -> list[Agent]:
    # Windows can be moved by a person: tmux knows where a pane is now, the store where it was put.
    for pane in tmux.panes():
        if pane.session == session and pane.window == window:
            return [agent for agent in team if agent.pane_id == pane.id]
    return [agent for agent in team if agent.window == window]


def myself(db: sqlite3.Connection, tmux: Tmux) -> Agent | None:
    """The agent in whose pane this process runs, by $TMUX_PANE; None for a person's shell.

    A pane of another tmux server can have the same id, so the server of $TMUX must be ours.
    """
    pane, server = os.environ.get("TMUX_PANE"), os.environ.get("TMUX", "").split(",")[0]
    if not pane or not tmux.is_at(server):
        return None
    marks = ", ".join("?" * len(LIVE))
    row = db.execute(f"{_SELECT} WHERE pane_id = ? AND status IN ({marks})", (pane, *LIVE)).fetchone()
    return _agent(row) if row else None


def team_of(db: sqlite3.Connection, session: str | None, sender: Agent | None) -> str:
    """The id of the orchestration that a command is about: named, the sender's own, or the only live one."""
    found = {agent.session: agent.orchestration_id for agent in reversed(_candidates(db))}
    if session is not None:
        if session not in found:
            raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
        return found[session]
    if sender:
        return sender.orchestration_id
    running = {agent.session: agent.orchestration_id for agent in live(db)}
    if not running:
        raise NotFound("no team is running", hint="auto_orchestrate.py --spec SPEC")
    if len(running) > 1:
        raise Usage(f"several teams are running: {', '.join(running)}", hint="name one with --session")
    return next(iter(running.values()))


def start_epoch(db: sqlite3.Connection, agent_id: int, *, conversation_id: str) -> Agent:
    """Begin a new life of an agent, before its process is started: what older ones report is history."""
    db.execute(
        "UPDATE agents SET epoch = epoch + 1, conversation_id = ?, pid = NULL, started = NULL,"
        " last_hook = NULL, last_hook_at = NULL WHERE id = ?",
        (conversation_id, agent_id),
    )
    return get(db, agent_id)


def started(db: sqlite3.Connection, agent_id: int, *, pane_id: str, process: Process) -> Agent:
    """Record where an agent runs."""
    db.execute(
        "UPDATE agents SET pane_id = ?, pid = ?, started = ? WHERE id = ?",
        (pane_id, process.pid, process.started, agent_id),
    )
    return get(db, agent_id)


def note_hook(db: sqlite3.Connection, agent_id: int, *, event: str, at: int) -> None:
    """Record the newest hook of an agent."""
    db.execute(
        "UPDATE agents SET last_hook = ?, last_hook_at = ? WHERE id = ? AND coalesce(last_hook_at, 0) <= ?",
        (event, at, agent_id, at),
    )


def follow_conversation(db: sqlite3.Connection, agent_id: int, conversation_id: str) -> None:
    """The agent itself went on in another conversation (a person typed /clear)."""
    db.execute("UPDATE agents SET conversation_id = ? WHERE id = ?", (conversation_id, agent_id))


def _agent(row: sqlite3.Row) -> Agent:
    return Agent(
        id=row["id"],
        orchestration_id=row["orchestration_id"],
        session=row["session"],
        role=row["role"],
        window=row["window"],
        program=Program(row["program"]),
        config_dir=Path(row["config_dir"]),
        worktree=Path(row["worktree"]),
        branch=row["branch"],
        conversation_id=row["conversation_id"],
        epoch=row["epoch"],
        pane_id=row["pane_id"],
        process=Process(row["pid"], row["started"]) if row["pid"] else None,
        last_hook=row["last_hook"],
        last_hook_at=row["last_hook_at"],
    )
