"""What an attempt leaves behind for whoever wants to know why it ended as it did."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lib import agents, store
from lib.errors import OrchestratorError
from lib.models import Attempt, Event
from lib.tmux import Tmux

#: How many lines of each window are kept.
_LINES = 200


def folder(home: Path, attempt: Attempt) -> Path:
    """Where files about an attempt are kept, and its enhanced spec."""
    return home / "queue" / str(attempt.entry_id) / f"attempt-{attempt.number}"


def keep_screens(db: sqlite3.Connection, tmux: Tmux, home: Path, attempt: Attempt) -> None:
    """Write the last screens of an attempt's team to files, one for each role."""
    assert attempt.orchestration_id
    place = folder(home, attempt)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for agent in agents.of_orchestration(db, attempt.orchestration_id):
        if agent.pane_id is None:
            continue
        try:
            text = tmux.run("capture-pane", "-p", "-J", "-S", f"-{_LINES}", "-t", agent.pane_id)
        except OrchestratorError:  # the window is gone, or tmux is: there is nothing to see
            continue
        draft = place / f"{agent.role}.screen.new"
        draft.write_text(text.rstrip() + "\n", encoding="utf-8", errors="replace")
        draft.replace(draft.with_suffix(".txt"))


def screens(home: Path, attempt: Attempt) -> dict[str, str]:
    """The last screens that were kept of an attempt, by role."""
    found = sorted(folder(home, attempt).glob("*.screen.txt"))
    return {path.name.removesuffix(".screen.txt"): path.read_text(encoding="utf-8") for path in found}


def history(db: sqlite3.Connection, attempt: Attempt, *, limit: int = 300) -> list[Event]:
    """The newest events of an attempt's team, oldest first."""
    if attempt.orchestration_id is None:
        return []
    return store.events(db, orchestration=attempt.orchestration_id, limit=100_000)[-limit:]
