"""Insights: a search among ten thousand, as a briefing and as a person asks; publishing one, also to other projects."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.machine import rehearsal
from benchmarks.teams import Counts
from lib import insights, store
from tests.agents import a_team

_INSIGHTS = 10_000
_PROJECTS = 20
_WORDS_EACH = 30
_VOCABULARY = 5_000
_LIVE = 5
_PROJECT = "/srv/projects/7"


def among_many(counts: Counts) -> list[Figure]:
    """Words are as frequent as in a language: the most frequent stands in nearly every text.

    The slowest of what is told also loads the templates.
    """
    chance = random.Random(1)
    with rehearsal() as machine:
        db = machine.db()
        _fill(db, chance)
        live = [Path(f"/srv/live/{number}") for number in range(_LIVE)]
        for project in live:
            a_team(db, "orchestrator", name=project.name, home=project.parent)
        few, many = ([_words(chance, number) for _ in range(counts.sends)] for number in (3, 400))
        found = [_timed(insights.search, db, words, project=None, limit=20) for words in few]
        fitting = [_timed(insights.search, db, words, project=_PROJECT, limit=5) for words in many]
        alone = [_timed(_publish, db, _words(chance, _WORDS_EACH), []) for _ in few]
        told = [_timed(_publish, db, _words(chance, _WORDS_EACH), live) for _ in few]
        door = [1000 * machine.door("claude_control.py", "insight", "search", one)[0] for one in few[: counts.starts]]
        db.close()
    said = f"{_INSIGHTS:,} insights"
    return [
        Figure(f"{said}: a search for 3 words", "ms", tuple(found), target=50.0),
        Figure(f"{said}: the search of a briefing, by the words of a spec", "ms", tuple(fitting), target=100.0),
        Figure(f"{said}: a search by `claude_control.py insight search`", "ms", tuple(door)),
        Figure(f"{said}: publishing one more", "ms", tuple(alone), target=10.0),
        Figure(f"{said}: publishing one more that is told to {_LIVE} live teams", "ms", tuple(told)),
    ]


def _fill(db: sqlite3.Connection, chance: random.Random) -> None:
    with store.writing(db):
        for number in range(_INSIGHTS):
            insights.add(
                db,
                f"{number} {_words(chance, _WORDS_EACH)}",
                project=f"/srv/projects/{number % _PROJECTS}",
                tags=("api",),
                author="user",
                now=number,
            )


def _words(chance: random.Random, number: int) -> str:
    ranks = range(1, _VOCABULARY + 1)
    return " ".join(f"word{one}" for one in chance.choices(ranks, [1 / rank for rank in ranks], k=number))


def _publish(db: sqlite3.Connection, text: str, concerned: list[Path]) -> None:
    insights.publish(db, text, project=_PROJECT, tags=(), author="user", caller=None, concerned=concerned, now=1)


def _timed(call: Callable[..., object], *arguments: object, **named: object) -> float:
    """The milliseconds of a call."""
    began = time.perf_counter()
    call(*arguments, **named)
    return 1000 * (time.perf_counter() - began)
