"""The agents table: who is in which window, worktree and conversation; and how people name them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import host, messages
from lib.claude import installed, sessions, starting
from lib.errors import NotFound, Usage
from lib.models import LIVE, Agent, AgentState, Orchestration, Process, Program
from lib.records import dataclass
from lib.store import writing
from lib.tmux import Pane, Tmux

#: How many messages a minute a guest gets: no launch has recorded another figure for it.
GUEST_MESSAGES_PER_MINUTE = 10

_SELECT = f"""
SELECT agents.*, orchestrations.status, coalesce(messages_per_minute, {GUEST_MESSAGES_PER_MINUTE}) AS per_minute
FROM agents LEFT JOIN orchestrations ON orchestrations.id = agents.orchestration_id
"""
_IS_LIVE = f"orchestrations.status IN ({', '.join(repr(str(status)) for status in LIVE)})"


@dataclass(frozen=True)
class NewAgent:
    """What is decided about an agent before anything of it exists."""

    role: str
    window: int
    worktree: Path
    branch: str
    conversation_id: str


# -- rows --


def add(db: sqlite3.Connection, found: Orchestration, new: NewAgent) -> int:
    """Record an agent; call it in the transaction that records its orchestration. Returns its id."""
    cursor = db.execute(
        "INSERT INTO agents (orchestration_id, session, role, window, program, config_dir, worktree, branch,"
        " conversation_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(found.id, found.session, new.role, new.window, found.program, str(found.config_dir)),
            *(str(new.worktree), new.branch, new.conversation_id),
        ),
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


def in_role(db: sqlite3.Connection, orchestration_id: str | None, role: str) -> Agent | None:
    """The member of a team that holds a role, or None."""
    row = db.execute(f"{_SELECT} WHERE orchestration_id = ? AND role = ?", (orchestration_id, role)).fetchone()
    return _agent(row) if row else None


def live(db: sqlite3.Connection) -> list[Agent]:
    """The agents of every orchestration that is not over, by session and window."""
    rows = db.execute(f"{_SELECT} WHERE {_IS_LIVE} ORDER BY agents.session, window")
    return [_agent(row) for row in rows]


def with_process(db: sqlite3.Connection) -> list[Agent]:
    """Every agent that a process is recorded for, guests and those of ended teams too; it may have ended."""
    return [_agent(row) for row in db.execute(f"{_SELECT} WHERE agents.pid IS NOT NULL ORDER BY agents.id")]


def elsewhere(db: sqlite3.Connection, host_name: str, session: str, role: str) -> Agent:
    """An agent of another host of the fleet, of which only that host knows whether it is there."""
    with writing(db):
        db.execute(
            "INSERT INTO agents (host, session, role, window, program, config_dir, worktree, conversation_id)"
            " VALUES (?, ?, ?, 0, 'claude', '', '', '') ON CONFLICT DO NOTHING",
            (host_name, session, role),
        )
        found = "agents.host = ? AND agents.session = ? AND agents.role = ?"
        return _agent(db.execute(f"{_SELECT} WHERE {found}", (host_name, session, role)).fetchone())


def newest_at(db: sqlite3.Connection, worktree: Path) -> int | None:
    """The id of the last agent that a worktree was recorded for: a path may be used again."""
    row = db.execute("SELECT max(id) FROM agents WHERE worktree = ?", (str(worktree),)).fetchone()
    return int(row[0]) if row[0] is not None else None


# -- names --


def resolve(db: sqlite3.Connection, tmux: Tmux, target: str, *, sender: Agent | None = None) -> Agent:
    """The agent that `target` names: `session:role`, `session:window` by number or name, a pane id, or a role of the
    sender's team.

    A window or pane that is not ours is taken when a Claude Code runs in it. Raises `NotFound` with the
    targets that exist: nothing is guessed, an unknown name is never somebody else.
    """
    session, _, name = target.rpartition(":")
    candidates = _candidates(db)
    found: Agent | None = None
    if target.startswith("%"):
        found = _first(agent for agent in candidates if agent.pane_id == target)
        found = found or _guest(db, tmux, target, [pane for pane in tmux.panes() if pane.id == target])
    elif session:
        team = [agent for agent in candidates if agent.session == session]
        found = _first(agent for agent in team if agent.role == name)
        if found is None and name.isdecimal() and len(name) < 10:
            found = _at_window(db, tmux, team, target, session, int(name))
        if found is None and not name.isdecimal():
            windows = {pane.id for pane in tmux.panes() if (pane.session, pane.window_name) == (session, name)}
            found = _first(agent for agent in team if agent.pane_id in windows)
    elif sender and sender.orchestration_id:
        candidates = of_orchestration(db, sender.orchestration_id)
        found = _first(agent for agent in candidates if agent.role == target)
    if found is None:
        known = ", ".join(agent.target for agent in candidates)
        raise NotFound(
            f"no agent at {target!r}", hint=f"agents: {known}" if known else "no team is running: auto_orchestrate.py"
        )
    return found


def _first(found: Iterator[Agent]) -> Agent | None:
    return next(found, None)


def _candidates(db: sqlite3.Connection) -> list[Agent]:
    # A live team comes before an ended one of the same session name, a later one before an earlier one.
    rows = db.execute(
        f"{_SELECT} WHERE {_IS_LIVE} OR orchestrations.status = 'completed'"
        " ORDER BY orchestrations.status = 'completed', orchestrations.created_at DESC, window"
    )
    return [_agent(row) for row in rows]


def is_session_here(db: sqlite3.Connection, tmux: Tmux, session: str) -> bool:
    """Whether this machine has a session of this name: of a team that is not over, or a person's."""
    return any(agent.session == session for agent in _candidates(db)) or session in {p.session for p in tmux.panes()}


def _at_window(
    db: sqlite3.Connection, tmux: Tmux, team: Sequence[Agent], target: str, session: str, window: int
) -> Agent | None:
    # Windows can be moved by a person: tmux knows where a pane is now, the store where it was put.
    there = [pane for pane in tmux.panes() if pane.session == session and pane.window == window]
    for pane in there:
        for agent in team:
            if agent.pane_id == pane.id:
                return agent
    if not there:
        return _first(agent for agent in team if agent.window == window)
    return _guest(db, tmux, target, there)


def myself(db: sqlite3.Connection, tmux: Tmux) -> Agent | None:
    """The agent in whose pane this process runs, by $TMUX_PANE; None for a person's shell.

    A pane of another tmux server can have the same id, so the server of $TMUX must be ours.
    """
    row = db.execute(f"{_SELECT} WHERE pane_id = ? AND {_IS_LIVE}", (_own_pane(tmux),)).fetchone()
    return _agent(row) if row else None


def formerly(db: sqlite3.Connection, tmux: Tmux) -> Agent | None:
    """The agent below whose process this one runs, when its team is over: it speaks for nobody, and is no person."""
    rows = db.execute(f"{_SELECT} WHERE pane_id = ? AND NOT {_IS_LIVE}", (_own_pane(tmux),))
    there = (agent for agent in map(_agent, rows.fetchall()) if agent.process and host.is_alive(agent.process))
    return _first(agent for agent in there if agent.process and host.is_below(os.getpid(), agent.process.pid))


def _own_pane(tmux: Tmux) -> str | None:
    pane, server = os.environ.get("TMUX_PANE"), os.environ.get("TMUX", "").split(",")[0]
    return pane if pane and tmux.is_at(server) else None


def team_of(db: sqlite3.Connection, session: str | None, sender: Agent | None) -> str:
    """The id of the orchestration that a command is about: named, the sender's own, or the only live one."""
    if session is not None:
        agent = _first(agent for agent in _candidates(db) if agent.session == session)
        if agent is None or agent.orchestration_id is None:
            raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
        return agent.orchestration_id
    if sender and sender.orchestration_id:
        return sender.orchestration_id
    # A team that has completed is still there to be looked at, until it is stopped.
    there = live(db) or [agent for agent in _candidates(db) if host.is_alive(agent.process)]
    running = {agent.session: agent.orchestration_id for agent in there}
    if not running:
        raise NotFound("no team is running", hint="auto_orchestrate.py --spec SPEC")
    if len(running) > 1:
        raise Usage(f"several teams are running: {', '.join(running)}", hint="name one with --session")
    return next(iter(running.values())) or ""


# -- lives --


def state_of(agent: Agent) -> AgentState:
    """What an agent does right now, by its process and its own session file; what holds it is asked of holds.py."""
    if not host.is_alive(agent.process) or agent.process is None:
        return AgentState.GONE
    return sessions.state(agent.config_dir, agent.conversation_id, agent.process)


def state_since(agent: Agent) -> int | None:
    """Since when a live agent does what it does (UTC milliseconds), by its own session file."""
    return sessions.state_since(agent.config_dir, agent.process) if agent.process else None


def screen(tmux: Tmux, agent: Agent) -> str | None:
    """What an agent's window shows, with its colours; None when it has none."""
    try:
        return tmux.look(agent.pane_id).screen if agent.pane_id else None
    except NotFound:
        return None


def has_dialog_open(agent: Agent) -> bool:
    """Whether a live agent shows a dialog that is no question of its own, such as the one of a weekly limit."""
    return agent.process is not None and sessions.has_dialog_open(agent.config_dir, agent.process)


def start_epoch(db: sqlite3.Connection, agent_id: int, *, conversation_id: str) -> Agent:
    """Begin a new life of an agent, before its process is started: what older ones report is history."""
    db.execute(
        "UPDATE agents SET epoch = epoch + 1, conversation_id = ?, pane_pid = NULL, pid = NULL, started = NULL,"
        " boot = NULL, last_hook = NULL, last_hook_at = NULL WHERE id = ?",
        (conversation_id, agent_id),
    )
    return get(db, agent_id)


def started(db: sqlite3.Connection, agent_id: int, *, pane_id: str, process: Process) -> Agent:
    """Record where an agent runs, as the pane's own process."""
    with writing(db):
        # A new tmux server counts its panes from %0 again: whoever had this one under the old server has it no more.
        rows = db.execute(
            f"{_SELECT} WHERE pane_id = ? AND agents.id != ? AND orchestration_id IS NOT NULL", (pane_id, agent_id)
        ).fetchall()
        stale = [(row["id"],) for row in rows if not host.is_alive(_process(row))]
        db.executemany("UPDATE agents SET pane_id = NULL WHERE id = ?", stale)
        db.execute(
            "UPDATE agents SET pane_id = ?, pane_pid = ?, pid = ?, started = ?, boot = ? WHERE id = ?",
            (pane_id, process.pid, process.pid, process.started, process.boot, agent_id),
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


# -- guests --


def _guest(db: sqlite3.Connection, tmux: Tmux, target: str, panes: Sequence[Pane]) -> Agent:
    """The Claude Code that a person has started in one of these panes. Raises `NotFound` with what runs instead."""
    if not panes:
        raise NotFound(f"no pane at {target!r}", hint="tmux list-panes -a")
    pane = next((pane for pane in panes if pane.active), panes[0])
    running = sessions.conversation_in(installed.config_dir(), pane.id, pane.pid)
    if running is None or pane.dead or pane.command != starting.COMMAND:
        raise NotFound(
            f"no agent at {target!r}: it runs {'nothing any more' if pane.dead else pane.command}",
            hint="start claude in it, or name another target: claude_control.py status",
        )
    conversation_id, pid, folder = running
    process = host.process(pid) or host.ended(pid)
    with writing(db):
        row = db.execute(f"{_SELECT} WHERE agents.orchestration_id IS NULL AND pane_id = ?", (pane.id,)).fetchone()
        agent_id = row["id"] if row else _add_guest(db, pane, conversation_id, folder)
        if row is None or _process(row) != process:
            messages.fail_pending(db, agent_id, "the Claude Code that it was for has ended", now=host.now_ms())
            start_epoch(db, agent_id, conversation_id=conversation_id)
        follow_conversation(db, agent_id, conversation_id)
        db.execute(
            "UPDATE agents SET session = ?, window = ?, pane_pid = ?, pid = ?, started = ?, boot = ?, worktree = ?"
            " WHERE id = ?",
            (pane.session, pane.window, pane.pid, pid, process.started, process.boot, str(folder), agent_id),
        )
    return get(db, agent_id)


def follow_guest(db: sqlite3.Connection, agent: Agent) -> Agent:
    """The guest as it is now: the person who started it may have gone on in another conversation."""
    assert agent.pane_id and agent.pane_pid and agent.process
    running = sessions.conversation_in(agent.config_dir, agent.pane_id, agent.pane_pid)
    if running is None or running[1] != agent.process.pid or running[0] == agent.conversation_id:
        return agent
    follow_conversation(db, agent.id, running[0])
    return get(db, agent.id)


def _add_guest(db: sqlite3.Connection, pane: Pane, conversation_id: str, folder: Path) -> int:
    cursor = db.execute(
        "INSERT INTO agents (session, role, window, program, config_dir, worktree, conversation_id, pane_id)"
        " VALUES (?, 'guest', ?, 'claude', ?, ?, ?, ?)",
        (pane.session, pane.window, str(installed.config_dir()), str(folder), conversation_id, pane.id),
    )
    return int(cursor.lastrowid or 0)


def _process(row: sqlite3.Row) -> Process | None:
    return Process(row["pid"], row["started"], row["boot"]) if row["pid"] else None


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
        branch=row["branch"] or "",
        conversation_id=row["conversation_id"],
        epoch=row["epoch"],
        pane_id=row["pane_id"],
        pane_pid=row["pane_pid"],
        process=_process(row),
        messages_per_minute=row["per_minute"],
        last_hook=row["last_hook"],
        last_hook_at=row["last_hook_at"],
        host=row["host"],
    )
