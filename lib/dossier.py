"""The dossier of a team: all that a written report tells of it, from its beginning on."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from lib import agents, criteria, history, messages, orchestrations, status, store, templates
from lib.criteria import Criterion
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.git.worktrees import Commit
from lib.judgement import durations, prices
from lib.judgement.durations import LaneTimes, Took
from lib.judgement.prices import Bill
from lib.models import LIVE, Event, Orchestration
from lib.records import dataclass
from lib.spending import ledger
from lib.spending.ledger import Spent
from lib.status import OrchestrationStatus
from lib.together import handing_over

#: What a report holds at most: sentences of the story (the newest), commits (the newest).
MOST_SENTENCES = 200
MOST_COMMITS = 100
#: Into so many equal parts the time of a team is cut for its pictures.
PARTS = 48

_GIT_SECONDS = 20.0
_PAGE = 1000
#: What every message, check-in and commit leaves: the pictures or the commits show it, the story does without.
_TOO_MANY = ("message.acknowledged", "check_in.fired", "branch.moved")
_TROUBLES = ("candidate.red", "candidate.conflict", "report.check_failed", "limit.hit", "hook.StopFailure")
#: What the picture of a team's time shows of each agent.
MARKS = {
    "message.acknowledged": "told",
    "report.completion": "reported",
    "candidate.merged": "merged",
    "message.failed": "trouble",
    **dict.fromkeys(_TROUBLES, "trouble"),
}


@dataclass(frozen=True)
class Sentence:
    """What happened at a time (UTC milliseconds)."""

    at: int
    text: str


@dataclass(frozen=True)
class Mark:
    """Something of an agent's in one part of the time, 0 to `PARTS` - 1; `kind` is a value of `MARKS`."""

    role: str
    part: int
    kind: str
    count: int


@dataclass(frozen=True)
class Traffic:
    """The messages that arrived, by the role they went to, and how long that took; and how many failed."""

    arrived: dict[str, int]
    failed: int
    took: Took


@dataclass(frozen=True)
class Dossier:
    """One team. `until` is when it ended, or now. `spent_parts` are US dollars in each of `PARTS` parts of its time.

    `commits_unseen` says why the commits could not be looked at; None when they could.
    """

    team: OrchestrationStatus
    until: int
    story: tuple[Sentence, ...]
    left_out: int
    marks: tuple[Mark, ...]
    traffic: Traffic
    criteria: tuple[Criterion, ...]
    lanes: tuple[LaneTimes, ...]
    total: Bill
    bills: dict[str, Bill]
    spent_parts: tuple[float, ...]
    commits: tuple[Commit, ...]
    commits_unseen: str | None

    @property
    def took(self) -> int:
        """How long the team has worked, in milliseconds, at least one."""
        return max(1, self.until - self.team.created_at)


def of(db: sqlite3.Connection, found: Orchestration, *, now: int) -> Dossier:
    """The dossier of a team. What git cannot tell is said in it and stops nothing."""
    until = now if found.status in LIVE else found.updated_at
    took = max(1, until - found.created_at)
    happened = list(_events(db, found.id))
    roles = {agent.id: agent.role for agent in agents.of_orchestration(db, found.id)}
    story = [(event, text) for event in happened if (text := _told(db, event))]
    spent = ledger.spent(db, orchestration=found.id)
    price_list = templates.price_list()
    commits, unseen = _commits(found)
    return Dossier(
        team=status.of(db, found),
        until=until,
        story=tuple(Sentence(event.at, text) for event, text in story[-MOST_SENTENCES:]),
        left_out=max(0, len(story) - MOST_SENTENCES),
        marks=tuple(_marks(happened, roles, found.created_at, took)),
        traffic=_traffic(db, found.id, roles),
        criteria=tuple(criteria.of_orchestration(db, found.id)),
        lanes=handing_over.times_of(db, found.id, happened),
        total=prices.bill(price_list, [one.item for one in spent]),
        bills=_by_role(spent, price_list),
        spent_parts=_spent_parts(spent, price_list, found.created_at, took),
        commits=commits,
        commits_unseen=unseen,
    )


def named(db: sqlite3.Connection, session: str | None, *, now: int) -> list[Orchestration]:
    """The newest team of a session; without one the live teams, and those that ended within a day."""
    if session is not None:
        return orchestrations.named(db, session)[-1:]
    return orchestrations.recent(db, since=now - status.SHOWN_AFTER_END_MS)


def _events(db: sqlite3.Connection, orchestration_id: str) -> Iterator[Event]:
    after = 0
    while page := store.events(db, orchestration=orchestration_id, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def _told(db: sqlite3.Connection, event: Event) -> str | None:
    return None if event.kind in _TOO_MANY else history.sentence(db, event, longest=400)


def _part(at: int, since: int, took: int) -> int:
    return min(PARTS - 1, max(0, (at - since) * PARTS // took))


def _marks(happened: Iterable[Event], roles: dict[int, str], since: int, took: int) -> Iterator[Mark]:
    counts: Counter[tuple[str, int, str]] = Counter()
    for event in happened:
        kind, role = MARKS.get(event.kind), roles.get(event.agent_id or 0)
        if kind and role:
            counts[role, _part(event.at, since, took), kind] += 1
    for (role, part, kind), count in sorted(counts.items()):
        yield Mark(role, part, kind, count)


def _traffic(db: sqlite3.Connection, orchestration_id: str, roles: dict[int, str]) -> Traffic:
    rows = messages.ways(db, orchestration_id)
    return Traffic(
        arrived=dict(Counter(roles[agent_id] for agent_id, _, done in rows if done is not None)),
        failed=sum(done is None for _, _, done in rows),
        took=durations.took([done - begun for _, begun, done in rows if done is not None]),
    )


def _by_role(spent: Sequence[Spent], price_list: prices.Prices) -> dict[str, Bill]:
    items = defaultdict(list)
    for one in spent:
        items[one.role].append(one.item)
    return {role: prices.bill(price_list, found) for role, found in sorted(items.items())}


def _spent_parts(spent: Sequence[Spent], price_list: prices.Prices, since: int, took: int) -> tuple[float, ...]:
    parts = [0.0] * PARTS
    for one in spent:
        # What was spent is known by the quarter of an hour: the first one may have begun before the team.
        parts[_part(one.quarter, since, took)] += price_list.cost(one.item.sort, one.item.usage) or 0.0
    return tuple(round(usd, 6) for usd in parts)


def _commits(found: Orchestration) -> tuple[tuple[Commit, ...], str | None]:
    """What stands on the integration branch, newest first."""
    try:
        heads = worktrees.heads(found.project, found.integration_branch, seconds=_GIT_SECONDS)
        head = heads.get(found.integration_branch)
        if head is None:
            return (), f"the branch {found.integration_branch} is not there"
        gained = worktrees.gain(found.project, head, since=found.starting_commit, beyond=(), seconds=_GIT_SECONDS)
        return gained.commits, None
    except OrchestratorError as error:
        return (), error.sentence
