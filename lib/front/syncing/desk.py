"""What every verb begins with: the store, and the teams that a word names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lib import agents, config, orchestrations, store
from lib.errors import NotFound
from lib.models import Orchestration
from lib.records import dataclass
from lib.tmux import Tmux


@dataclass(frozen=True)
class Desk:
    """The store of a state home, and its tmux server."""

    db: sqlite3.Connection
    tmux: Tmux
    home: Path


def desk() -> Desk:
    """Open the store."""
    home = config.state_home()
    return Desk(store.connect(home), Tmux.from_environment(), home)


def of_session(db: sqlite3.Connection, session: str) -> list[Orchestration]:
    """The orchestrations of a session (live and over, oldest first), or the one of an id. Raises `NotFound`."""
    found = orchestrations.named(db, session)
    if not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    return found


def team(here: Desk, session: str | None) -> Orchestration:
    """The one team that a command is about: the last one of a session, one's own, or the only live one."""
    if session is not None:
        return of_session(here.db, session)[-1]
    return orchestrations.get(here.db, agents.team_of(here.db, None, agents.myself(here.db, here.tmux)))
