"""Insights: what one team has learned, for the next. Notes by others: quoted as data wherever they are told."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lib import orchestrations, relations, store, templates
from lib.errors import NotFound, OrchestratorError, Usage
from lib.judgement import cleaning, specs
from lib.judgement.teams import ORCHESTRATOR
from lib.models import LIVE, Agent
from lib.records import dataclass
from lib.relations import Absent, Bulletin, Change

LONGEST = 2_000
_MOST_TAGS = 20
#: More words than these make a search slower, and no better.
_MOST_WORDS = 60
_LONGEST_QUOTE = 300


@dataclass(frozen=True)
class Insight:
    """A note for a project, or for all of them when `project` is None.

    `author` is a person or an agent's target, `agent_id` that agent: a later one may have the same target.
    """

    id: int
    project: str | None
    text: str
    tags: tuple[str, ...]
    author: str
    added_at: int
    agent_id: int | None = None

    @property
    def quoted(self) -> str:
        """The beginning of it as a quoted string in one line, as a briefing tells it."""
        return cleaning.quoted(self.text, _LONGEST_QUOTE)

    @property
    def where(self) -> str:
        """The project that it is about, in words."""
        return self.project or "all projects"


@dataclass(frozen=True)
class Published:
    """What became of a text: the insight, whether it is new, and who is told of it now."""

    insight: Insight
    is_new: bool
    told: tuple[Bulletin, ...]


def publish(
    db: sqlite3.Connection,
    text: str,
    *,
    project: str | None,
    tags: tuple[str, ...],
    author: str,
    caller: Agent | None,
    concerned: Sequence[Path],
    absent: Sequence[Absent] = (),
    now: int,
) -> Published:
    """Keep an insight and tell the projects that it concerns: both or neither. Raises as `add` does.

    Published again it tells only those who were not told yet.
    """
    with store.writing(db):
        agent_id = caller.id if caller else None
        made, is_new = add(db, text, project=project, tags=tags, author=author, agent_id=agent_id, now=now)
        is_told = bool(concerned or absent)
        told = relations.tell(db, _change(made), concerned, absent=absent, now=now) if is_told else []
    return Published(made, is_new, tuple(told))


def _change(made: Insight) -> Change:
    line = f"{made.where}: insight {made.id} by {made.author}: {made.quoted}"
    quoted, place = json.dumps(made.text, ensure_ascii=False), shlex.quote(made.project) if made.project else None
    text = templates.render("related_insight.md", insight=made, text=quoted, place=place)
    return Change(made.project, line, text, author=made.author, insight_id=made.id)


def add(
    db: sqlite3.Connection,
    text: str,
    *,
    project: str | None,
    tags: tuple[str, ...],
    author: str,
    now: int,
    agent_id: int | None = None,
) -> tuple[Insight, bool]:
    """Keep an insight; the same text for the same project is one. Returns it, and whether it is new."""
    text = cleaning.clean(text).strip()
    if not text or len(text) > LONGEST:
        raise Usage(f"an insight has 1 to {LONGEST:,} characters, not {len(text):,}")
    tags = _checked(tags)
    with store.writing(db):
        row = db.execute(
            # As the index has it: looking through ten thousand texts takes as long as writing one.
            "SELECT * FROM insights WHERE coalesce(project, '') = ? AND text = ? AND withdrawn_at IS NULL",
            (project or "", text),
        ).fetchone()
        if row:
            return _insight(row), False
        made = db.execute(
            "INSERT INTO insights (project, text, tags, author, agent_id, added_at) VALUES (?, ?, ?, ?, ?, ?)",
            (project, text, json.dumps(tags), author, agent_id, now),
        ).lastrowid
        db.execute("INSERT INTO insight_words (rowid, text, tags) VALUES (?, ?, ?)", (made, text, " ".join(tags)))
        store.record(db, "insight.added", now=now, insight=made, project=project, author=author)
        return get(db, int(made or 0)), True


def _checked(tags: tuple[str, ...]) -> tuple[str, ...]:
    if len(tags) > _MOST_TAGS:
        raise Usage(f"an insight has at most {_MOST_TAGS} tags, not {len(tags)}")
    if wrong := [tag for tag in tags if not tag or specs.slug(tag) != tag]:
        raise Usage(f"a tag is lower-case letters, digits and dashes, not {wrong[0]!r}", hint="--tags api,auth")
    return tuple(dict.fromkeys(tags))


def get(db: sqlite3.Connection, insight_id: int) -> Insight:
    """One that is not withdrawn. Raises `NotFound`."""
    row = db.execute("SELECT * FROM insights WHERE id = ? AND withdrawn_at IS NULL", (insight_id,)).fetchone()
    if row is None:
        raise NotFound(f"no insight {insight_id}", hint="claude_control.py insight list")
    return _insight(row)


def remove(db: sqlite3.Connection, insight_id: int, *, caller: Agent | None, by: str, now: int) -> Insight:
    """Withdraw an insight: it is found no more, and who has not heard of it will not.

    `caller` is the agent that asks, None for a person. Raises `NotFound`, and `OrchestratorError` for an agent that is
    neither the author nor the Orchestrator that works in the insight's project now.
    """
    with store.writing(db):
        found = get(db, insight_id)
        _check_may_withdraw(db, found, caller)
        relations.withdraw(db, insight_id, now=now)
        db.execute("UPDATE insights SET withdrawn_at = ? WHERE id = ?", (now, insight_id))
        db.execute("DELETE FROM insight_words WHERE rowid = ?", (insight_id,))
        store.record(db, "insight.withdrawn", now=now, insight=insight_id, by=by)
        return found


def _check_may_withdraw(db: sqlite3.Connection, found: Insight, caller: Agent | None) -> None:
    if caller is None or caller.id == found.agent_id:
        return
    if found.project and caller.role == ORCHESTRATOR and not caller.is_guest:
        team = orchestrations.of_agent(db, caller)
        if str(team.project) == found.project and team.status in LIVE:
            return
    lead = f", the live Orchestrator of {found.project}" if found.project else ""
    raise OrchestratorError(
        f"only its author ({found.author}){lead} or a person can withdraw insight {found.id}: this is {caller.target}",
        hint="publish what is right as an insight of your own, with the same tags",
    )


def listed(db: sqlite3.Connection, *, project: str | None, limit: int) -> list[Insight]:
    """The newest first: those of a project and of all; without a project every one."""
    rows = db.execute(
        "SELECT * FROM insights WHERE withdrawn_at IS NULL AND (?1 IS NULL OR project IS NULL OR project = ?1)"
        " ORDER BY added_at DESC, id DESC LIMIT ?2",
        (project, limit),
    )
    return [_insight(row) for row in rows]


def search(db: sqlite3.Connection, words: str, *, project: str | None, limit: int) -> list[Insight]:
    """Those with any of the words, the best first: of a project and of all; without a project of every one."""
    wanted = _quoted(words)
    if not wanted:
        return []
    rows = db.execute(
        "SELECT insights.* FROM insight_words JOIN insights ON insights.id = insight_words.rowid"
        " WHERE insight_words MATCH ?1 AND (?2 IS NULL OR project IS NULL OR project = ?2)"
        " ORDER BY bm25(insight_words), added_at DESC, id DESC LIMIT ?3",
        (wanted, project, limit),
    )
    return [_insight(row) for row in rows]


def _quoted(words: str) -> str:
    # Each word is a string of FTS5: no word of a user is an operator.
    found = dict.fromkeys(re.findall(r"[^\W_]+", cleaning.clean(words)))
    return " OR ".join(f'"{word}"' for word in list(found)[:_MOST_WORDS])


def _insight(row: sqlite3.Row) -> Insight:
    return Insight(
        id=row["id"],
        project=row["project"],
        text=row["text"],
        tags=tuple(json.loads(row["tags"])),
        author=row["author"],
        added_at=row["added_at"],
        agent_id=row["agent_id"],
    )
