"""Overlaps: in which files two agents' worktrees could not be merged now, and what both have been told of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from lib import messages, templates
from lib.git.repository import legible
from lib.models import Agent, MessageKind
from lib.records import dataclass
from lib.store import record, writing

#: How many files a message names.
MOST_FILES = 20
_SENDER = "scheduler"


@dataclass(frozen=True)
class Overlap:
    """Two agents, by their ids, and the files that are in each other's way since a time (UTC milliseconds)."""

    agent: int
    other: int
    files: tuple[str, ...]
    since: int


def of_team(db: sqlite3.Connection, orchestration_id: str) -> list[Overlap]:
    """The overlaps of a team, as the radar last saw them."""
    rows = db.execute(
        "SELECT overlaps.* FROM overlaps JOIN agents ON agents.id = agent_id"
        " WHERE since IS NOT NULL AND orchestration_id = ? ORDER BY agent_id, other_id",
        (orchestration_id,),
    )
    return [
        Overlap(row["agent_id"], row["other_id"], tuple(json.loads(row["files"])), int(row["since"])) for row in rows
    ]


def compared(db: sqlite3.Connection) -> dict[tuple[int, int], str]:
    """What was compared last, by the ids of each pair of agents."""
    rows = db.execute("SELECT agent_id, other_id, compared FROM overlaps")
    return {(row["agent_id"], row["other_id"]): row["compared"] for row in rows}


def note(db: sqlite3.Connection, one: Agent, other: Agent, files: Sequence[str], *, compared: str, now: int) -> None:
    """Record what a comparison has found. Both agents are told of files that they have not been told of.

    An overlap that is cleared is forgotten with all that was told of it; until then a file that comes and goes is told
    once.
    """
    with writing(db):
        row = db.execute(
            "SELECT told, since FROM overlaps WHERE agent_id = ? AND other_id = ?", (one.id, other.id)
        ).fetchone()
        told = json.loads(row["told"]) if row else []
        new = [name for name in files if name not in told]
        since = (row["since"] if row and row["since"] is not None else now) if files else None
        db.execute(
            "INSERT OR REPLACE INTO overlaps (agent_id, other_id, compared, files, told, since)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (one.id, other.id, compared, json.dumps(files), json.dumps([*told, *new] if files else []), since),
        )
        if new:
            for agent, mate in ((one, other), (other, one)):
                text = _text(mate, files, new if told else ())
                messages.queue(db, agent, text, sender=_SENDER, kind=MessageKind.NOTICE, now=now)
            _tell(db, "overlap.found", one, other, now, files=[*map(legible, files)], new=[*map(legible, new)])
        elif told and not files:
            _tell(db, "overlap.cleared", one, other, now, files=[*map(legible, told)])


def _text(mate: Agent, files: Sequence[str], new: Sequence[str]) -> str:
    # What is new stands first: of a long list only the beginning is named.
    named = [*new, *(name for name in files if name not in new)]
    return templates.render(
        "overlap.md",
        role=mate.role,
        target=mate.target,
        branch=mate.branch,
        files=[*map(legible, named[:MOST_FILES])],
        new=[*map(legible, new)],
        more=max(0, len(files) - MOST_FILES),
    )


def _tell(db: sqlite3.Connection, kind: str, one: Agent, other: Agent, now: int, **files: Sequence[str]) -> None:
    record(db, kind, now=now, orchestration=one.orchestration_id, agent=one.id, message=None, other=other.role, **files)
