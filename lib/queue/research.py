"""Research: why earlier attempts of a spec have failed, and what the next one should know."""

from __future__ import annotations

import sqlite3

from lib.models import Attempt, QueueEntry
from lib.planning import Stage
from lib.queue import entries


def before_attempt(db: sqlite3.Connection, stage: Stage, entry: QueueEntry, attempt: Attempt, *, now: int) -> Attempt:
    """Analyse the failures before an attempt and give it an enhanced spec; without an answer it keeps the original."""
    return entries.note_research(db, attempt, {"why_not": "not built yet"}, None, now=now)
