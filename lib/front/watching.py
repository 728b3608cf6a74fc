"""What `credit_management/` does and prints: usage limits, and what agents have used of their context."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from lib import agents, config, daemon, holds, host, limits, store
from lib.claude import transcripts
from lib.errands import Errands
from lib.errors import Busy, ExitCode, NotFound, Usage
from lib.front.cli import Output
from lib.models import Agent, AgentState, Limit
from lib.records import dataclass
from lib.status import ago
from lib.tmux import Tmux


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    session: str | None = None
    interval: float = 60.0
    sessions: str | None = None
    auto_resume: bool = False
    once: bool = False
    health: bool = False
    show_resets: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The sessions to show; none means all."""
        named = [*(self.sessions or "").split(","), self.session or ""]
        return tuple(name.strip() for name in named if name.strip())


@dataclass(frozen=True)
class Health:
    """One agent: its state, its context in tokens (None before its first answer), what holds it and until when."""

    target: str
    state: AgentState
    context_tokens: int | None
    context_window: int | None
    held: str | None
    until: int | None

    @property
    def context(self) -> str:
        """Its use of the context in percent, `-` before its first answer."""
        if self.context_tokens is None or self.context_window is None:
            return "-"
        return f"{100 * self.context_tokens / self.context_window:.0f} %"


def watch(output: Output, home: Path, wanted: Wanted) -> int:
    """Look, print what has changed, and wait for the next look, until Ctrl-C or once. Returns the exit code."""
    _check(wanted)
    db, tmux, settings = store.connect(home), Tmux.from_environment(), config.load()
    life = daemon.Life(settings, Errands(home))
    printed = None
    while True:
        due = _step(db, tmux, home, life, wanted)
        now = host.now_ms()
        found = look(db, wanted.names)
        text = _text(db, found, wanted, now)
        if text != printed:
            output.answer(text if wanted.once or wanted.health else f"{_clock(now)}\n{text}", _data(db, found, now))
            printed = text
        if wanted.health and any(one.held for one in found):
            return ExitCode.NOT_NOW
        if wanted.once or wanted.health:
            return ExitCode.DONE
        time.sleep(max(0.2, min(wanted.interval, (due - host.now_ms()) / 1000 if due else wanted.interval)))


def _check(wanted: Wanted) -> None:
    if wanted.session and not wanted.health:
        raise Usage("SESSION goes with --health; to watch one, name it with --sessions")
    if wanted.health and wanted.auto_resume:
        raise Usage("--health only looks: leave out --auto-resume")


def _step(db: sqlite3.Connection, tmux: Tmux, home: Path, life: daemon.Life, wanted: Wanted) -> int | None:
    """Do what the scheduler does about limits, unless it runs. Returns when something is due (UTC milliseconds)."""
    steps = daemon.RESUME_STEPS if wanted.auto_resume else daemon.LIMIT_STEPS
    try:
        with host.lock(home / "scheduler.lock"):
            beat = daemon.tick(db, tmux, home, now=host.now_ms(), life=life, steps=steps)
    except Busy:
        return None
    return min(beat.dues, default=None)


def look(db: sqlite3.Connection, names: Sequence[str]) -> list[Health]:
    """The agents of these sessions, or of all. Raises `NotFound` for a session that is none."""
    live = agents.live(db)
    for name in names:
        if all(agent.session != name for agent in live):
            raise NotFound(f"no team in session {name!r}", hint="claude_control.py status")
    return [_health(db, agent) for agent in live if not names or agent.session in names]


def _health(db: sqlite3.Connection, agent: Agent) -> Health:
    hold = holds.of(db, agent)
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    try:
        used = transcripts.context_used(path) if path else None
    except OSError:  # removed since it was found
        used = None
    return Health(
        target=agent.target,
        state=holds.state_of(db, agent),
        context_tokens=used[0] if used else None,
        context_window=used[1] if used else None,
        held=hold.why if hold else None,
        until=hold.until if hold else None,
    )


def _text(db: sqlite3.Connection, found: Sequence[Health], wanted: Wanted, now: int) -> str:
    if not found:
        return "no team is running"
    width = max(len(one.target) for one in found)
    lines = [f"{'agent':{width}}  {'state':8}  {'context':>7}  limit"]
    for one in found:
        held = f"{one.held or '-'}{_in(one.until, now)}"
        lines.append(f"{one.target:{width}}  {one.state:8}  {one.context:>7}  {held}")
    if wanted.show_resets:
        lines += [_of_limit(db, limit, now) for limit in limits.open_limits(db)] or ["no limit is in force"]
    return "\n".join(lines)


def _of_limit(db: sqlite3.Connection, limit: Limit, now: int) -> str:
    scope = agents.get(db, limit.agent_id).target if limit.agent_id else f"the account of {limit.config_dir}"
    resets = f"resets {_date(limit.resets_at)}{_in(limit.resets_at, now)}" if limit.resets_at else "no reset time"
    source = f"as host {limit.host} has told" if limit.host else f"by its {limit.source}"
    return f"{str(limit.kind).replace('_', '-')} limit of {scope}: {resets}, {source}: {limit.said}"


def _in(at: int | None, now: int) -> str:
    return f", in {ago(at - now)}" if at is not None and at > now else ""


def _date(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%b %-d, %H:%M")


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%H:%M:%S")


def _data(db: sqlite3.Connection, found: Sequence[Health], now: int) -> dict[str, object]:
    in_force = [asdict(limit) for limit in limits.open_limits(db)]
    return {"at": now, "agents": [asdict(one) for one in found], "limits": in_force}
