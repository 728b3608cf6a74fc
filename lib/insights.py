"""Insights: what one team has learned, for the next. Notes by others: quoted as data wherever they are told."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass

from lib import store
from lib.errors import NotFound, Usage
from lib.judgement import cleaning, specs

LONGEST = 2_000
_MOST_TAGS = 20
#: More words than these make a search slower, and no better.
_MOST_WORDS = 60
_LONGEST_QUOTE = 300


@dataclass(frozen=True)
class Insight:
    """A note for a project, or for all of them when `project` is None; `author` is a person or an agent's target."""

    id: int
    project: str | None
    text: str
    tags: tuple[str, ...]
    author: str
    added_at: int

    @property
    def quoted(self) -> str:
        """The beginning of it as a quoted string in one line, as a briefing tells it."""
        line = " ".join(self.text.split())
        shown = line if len(line) <= _LONGEST_QUOTE else f"{line[: _LONGEST_QUOTE - 3]}..."
        return json.dumps(shown, ensure_ascii=False)


def add(
    db: sqlite3.Connection, text: str, *, project: str | None, tags: tuple[str, ...], author: str, now: int
) -> tuple[Insight, bool]:
    """Keep an insight; the same text for the same project is one. Returns it, and whether it is new."""
    text = cleaning.clean(text).strip()
    if not text or len(text) > LONGEST:
        raise Usage(f"an insight has 1 to {LONGEST:,} characters, not {len(text):,}")
    tags = _checked(tags)
    with store.writing(db):
        row = db.execute(
            "SELECT * FROM insights WHERE project IS ? AND text = ? AND withdrawn_at IS NULL", (project, text)
        ).fetchone()
        if row:
            return _insight(row), False
        made = db.execute(
            "INSERT INTO insights (project, text, tags, author, added_at) VALUES (?, ?, ?, ?, ?)",
            (project, text, json.dumps(tags), author, now),
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


def remove(db: sqlite3.Connection, insight_id: int, *, by: str, now: int) -> Insight:
    """Withdraw an insight: it is found no more. Raises `NotFound`."""
    with store.writing(db):
        found = get(db, insight_id)
        db.execute("UPDATE insights SET withdrawn_at = ? WHERE id = ?", (now, insight_id))
        db.execute("DELETE FROM insight_words WHERE rowid = ?", (insight_id,))
        store.record(db, "insight.withdrawn", now=now, insight=insight_id, by=by)
        return found


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
        row["id"], row["project"], row["text"], tuple(json.loads(row["tags"])), row["author"], row["added_at"]
    )
