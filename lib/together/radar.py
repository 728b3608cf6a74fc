"""The radar: compares the worktrees of a team, committed or not, so that agents hear of an overlap before they commit.

What has to be written for that goes to a store of objects beside the repository, which is gone after the round: no
file, no index and no repository of an agent's is touched.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace
from typing import TypeVar

from lib import agents, host, orchestrations
from lib.errors import OrchestratorError, Unavailable
from lib.git import holdings, merges, repository, standing
from lib.git.repository import Objects
from lib.models import LIVE, Agent, Orchestration
from lib.records import dataclass
from lib.store import last_event, record, writing
from lib.together import overlaps
from lib.together.overlaps import Overlap

#: How often the worktrees of a team are compared.
EVERY_MS = 60_000
#: How soon it is looked again whether git has become new enough.
OFF_FOR_MS = 60 * 60_000
#: The errand that does it.
ERRAND = "radar"
#: No single question to git takes longer; what a round does not come to in its time, the next one does.
_GIT_SECONDS = 10.0
_ROUND_SECONDS = 45.0
_AT_ONCE = 4
#: An untracked file that is bigger (in bytes) is a product and no work of two: it is not packed every minute.
_BIGGEST = 1_000_000
#: The same work makes the same commit, whenever it is looked at.
_DATES = {f"GIT_{who}_DATE": "@0 +0000" for who in ("AUTHOR", "COMMITTER")}

_Of = TypeVar("_Of")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Swept:
    """What a round found of a team: its overlaps, and by role why somebody could not be looked at."""

    orchestration: Orchestration
    overlaps: tuple[Overlap, ...]
    problems: Mapping[str, str]


def next_due(db: sqlite3.Connection, *, now: int) -> int | None:
    """When the next round is due (UTC milliseconds); None while no live team has two agents."""
    marks = ", ".join("?" * len(LIVE))
    begun = db.execute(
        f"SELECT min(created_at) FROM orchestrations WHERE status IN ({marks}) AND"
        " (SELECT count(*) FROM agents WHERE orchestration_id = orchestrations.id) > 1",
        LIVE,
    ).fetchone()[0]
    if begun is None:
        return None
    swept_at, off = db.execute("SELECT swept_at, off FROM radar").fetchone()
    if swept_at is None:
        return int(begun) + EVERY_MS
    return now if host.was_set_back(swept_at, now) else int(swept_at) + (OFF_FOR_MS if off else EVERY_MS)


def teams(db: sqlite3.Connection) -> list[tuple[Orchestration, list[Agent]]]:
    """The teams in which two agents or more live, with those that do."""
    found = []
    for one in orchestrations.live(db):
        team = [agent for agent in agents.of_orchestration(db, one.id) if host.is_alive(agent.process)]
        found += [(one, team)] if len(team) > 1 else []
    return found


def why_off(db: sqlite3.Connection) -> str | None:
    """Why the radar is off, as of the last round; None when it is on."""
    off = db.execute("SELECT off FROM radar").fetchone()[0]
    return None if off is None else str(off)


def sweep(db: sqlite3.Connection, *, now: int) -> list[Swept]:
    """Compare the worktrees of every team, each pair that has changed since it was compared, and tell what is new.

    Raises `Unavailable` when this git cannot: each team has an event of it, once.
    """
    off, found = _why_it_cannot(), teams(db)
    with writing(db):
        db.execute("UPDATE radar SET swept_at = ?, off = ?", (now, off))
        for one, _ in found if off else ():
            if last_event(db, "radar.off", orchestration=one.id) is None:
                record(db, "radar.off", now=now, orchestration=one.id, reason=off)
    if off:
        raise Unavailable(off, hint="update git; all else works without it")
    until = time.monotonic() + _ROUND_SECONDS
    return [_sweep_team(db, one, team, now=now, until=until) for one, team in found]


def _why_it_cannot() -> str | None:
    found = repository.version()
    if found >= merges.WITHOUT_CHECKOUT:
        return None
    needed, has = (".".join(map(str, one)) for one in (merges.WITHOUT_CHECKOUT, found))
    return f"the radar is off: it needs git {needed}, and this is {has}"


def _sweep_team(
    db: sqlite3.Connection, found: Orchestration, team: Sequence[Agent], *, now: int, until: float
) -> Swept:
    rows = db.execute("SELECT agent_id, failure FROM radar_looks WHERE failure IS NOT NULL")
    before = {row["agent_id"]: row["failure"] for row in rows}
    problems: dict[str, str] = {}
    try:
        own = repository.objects_of(found.project, seconds=_GIT_SECONDS)
    except OrchestratorError as error:  # the project is gone, or git does not answer
        problems = {agent.role: error.sentence for agent in team}
    else:
        with repository.passing_objects(own) as objects:
            _compare_all(db, team, _Eyes(objects, until, problems), now=now)
    _note_problems(db, team, problems, before, now)
    return Swept(found, tuple(overlaps.of_team(db, found.id)), problems)


def _compare_all(db: sqlite3.Connection, team: Sequence[Agent], eyes: _Eyes, *, now: int) -> None:
    before = {row["agent_id"]: row for row in db.execute("SELECT * FROM radar_looks WHERE stamp IS NOT NULL")}
    compared = overlaps.compared(db)
    seen = eyes.each(lambda agent: eyes.glance(agent, before.get(agent.id)), team)
    pairs = _unlike(seen, compared)
    # Of a worktree with uncommitted work the objects of the last round are gone: they are written again.
    meant = {one.agent.id: one for pair in pairs for one in pair}
    ready = {one.agent.id: one for one in eyes.each(eyes.look_closely, meant.values())}
    seen = [ready.get(one.agent.id, one) for one in seen]
    _note_looks(db, seen, now)
    pairs = [pair for pair in _unlike(seen, compared) if all(one.agent.id in ready for one in pair)]
    for (one, other), files in eyes.each(eyes.compare, pairs):
        overlaps.note(db, one.agent, other.agent, files, compared=_states(one, other), now=now)


# -- what is seen --


@dataclass(frozen=True)
class _Sight:
    """A worktree as it was seen: the stamp of its standing, HEAD, and its tree; None when all is committed.

    `commit` is what stands for it in a merge, while the objects of the round are there.
    """

    agent: Agent
    stamp: str
    head: str
    tree: str | None
    commit: str | None = None


_Pair = tuple[_Sight, _Sight]


def _states(one: _Sight, other: _Sight) -> str:
    return " ".join(f"{sight.head}:{sight.tree or ''}" for sight in (one, other))


def _unlike(seen: Sequence[_Sight], compared: Mapping[tuple[int, int], str]) -> list[_Pair]:
    """The pairs that are not as they were when they were compared."""
    pairs = itertools.combinations(sorted(seen, key=lambda one: one.agent.id), 2)
    return [(a, b) for a, b in pairs if compared.get((a.agent.id, b.agent.id)) != _states(a, b)]


@dataclass(frozen=True)
class _Eyes:
    """How worktrees are looked at in one round. What fails is a problem of its role, and stops no other."""

    objects: Objects
    until: float
    problems: dict[str, str] = field(default_factory=dict)

    def each(self, look: Callable[[_Of], _Found | None], these: Iterable[_Of]) -> list[_Found]:
        """What comes of a look at each of these, a few at a time, as far as there is time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(lambda one: look(one) if time.monotonic() < self.until else None, these)
            return [one for one in found if one is not None]

    def glance(self, agent: Agent, before: sqlite3.Row | None) -> _Sight | None:
        """A worktree as it is: by one question to git as long as it is as before."""
        try:
            now = standing.look(agent.worktree, seconds=_GIT_SECONDS)
            if now.under_way or now.head is None:  # half of a merge is nobody's work; the next round sees it whole
                return None
            if before and before["stamp"] == now.stamp:
                return _Sight(agent, now.stamp, before["head"], before["tree"])
            if not now.dirty:
                return _Sight(agent, now.stamp, now.head, None)
            return self._hold(agent, now.stamp, now.head)
        except (OrchestratorError, OSError) as error:
            self.problems[agent.role] = str(error)
            return None

    def look_closely(self, sight: _Sight) -> _Sight | None:
        """The same with a commit that stands for it in a merge."""
        if sight.commit:
            return sight
        if sight.tree is None:
            return replace(sight, commit=sight.head)
        try:
            return self._hold(sight.agent, sight.stamp, sight.head)
        except (OrchestratorError, OSError) as error:
            self.problems[sight.agent.role] = str(error)
            return None

    def _hold(self, agent: Agent, stamp: str, head: str) -> _Sight:
        tree = holdings.tree_of(agent.worktree, objects=self.objects, biggest=_BIGGEST, seconds=_GIT_SECONDS)
        commit = repository.ask(
            agent.worktree,
            *("commit-tree", "--no-gpg-sign", "-p", head, "-m", "What is not committed", tree),
            environment={**repository.IDENTITY, **_DATES, **self.objects.environment},
            hooks=False,
            seconds=_GIT_SECONDS,
        ).strip()
        return _Sight(agent, stamp, head, tree, commit)

    def compare(self, pair: _Pair) -> tuple[_Pair, tuple[str, ...]] | None:
        """The files in which git could not merge the two."""
        one, other = pair
        assert one.commit and other.commit
        try:
            folder = one.agent.worktree
            files = merges.would_conflict(folder, one.commit, other.commit, seconds=_GIT_SECONDS, objects=self.objects)
        except OrchestratorError as error:
            self.problems[one.agent.role] = error.sentence
            return None
        return pair, files


# -- what is kept of it --


def _note_looks(db: sqlite3.Connection, seen: Sequence[_Sight], now: int) -> None:
    with writing(db):
        db.executemany(
            "INSERT OR REPLACE INTO radar_looks (agent_id, looked_at, stamp, head, tree) VALUES (?, ?, ?, ?, ?)",
            [(one.agent.id, now, one.stamp, one.head, one.tree) for one in seen],
        )


def _note_problems(
    db: sqlite3.Connection, team: Sequence[Agent], problems: Mapping[str, str], before: Mapping[int, str], now: int
) -> None:
    """Keep why somebody could not be looked at; an event when it is not what it was `before`."""
    with writing(db):
        for agent in team:
            problem = problems.get(agent.role)
            if problem is None:
                continue
            db.execute(
                "INSERT OR REPLACE INTO radar_looks (agent_id, looked_at, failure) VALUES (?, ?, ?)",
                (agent.id, now, problem),
            )
            if problem != before.get(agent.id):
                of = agent.orchestration_id
                record(db, "radar.failed", now=now, orchestration=of, agent=agent.id, reason=problem)
