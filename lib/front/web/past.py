"""The API's looks back: what has happened, teams as they were at a moment, and what has changed between two."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lib import host, moments, orchestrations, recordings, store
from lib.errors import NotFound
from lib.front.web import ansi, schemas
from lib.front.web.contract import Contract
from lib.front.web.live import told
from lib.front.web.site import desk
from lib.models import Orchestration
from lib.moments import Difference, Known, MessageThen, Screen, TeamThen
from lib.recordings import Reader

contract = Contract("past")
part = contract.part

_TIME = {"type": "integer", "minimum": 0, "maximum": 2**53}
#: A team by its id, or the newest of a session.
_TEAM = {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}
_AGENT = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
#: A page is drawn at every step of a slider: more than this nobody reads there.
_MOST_EVENTS = 100
_MOST_MARKS = 1000

_CHANGE = schemas.things(name=schemas.TEXT, before=schemas.MAYBE_TEXT, after=schemas.MAYBE_TEXT)
_THEN = schemas.things(
    id=schemas.TEXT,
    session=schemas.TEXT,
    status=schemas.TEXT,
    is_paused=schemas.YES,
    agents=schemas.listed(schemas.ANYTHING),
    criteria=schemas.listed(schemas.ANYTHING),
)


@contract.get(
    "/timeline",
    "What has happened after a time, up to and with another: the newest of it, oldest first.",
    schemas.things(since=schemas.WHOLE, until=schemas.WHOLE, events=schemas.listed(schemas.EVENT)),
    {"since": _TIME, "until": _TIME, "orchestration": _TEAM},
)
def timeline(since: int = 0, until: int | None = None, orchestration: str | None = None) -> dict[str, object]:
    """Events of all teams or of one; without `until` up to now."""
    since, until = _in_order(since, until)
    db, team = desk().db, _named(orchestration)
    found = store.between(db, since, until, orchestration=team.id if team else None, limit=_MOST_MARKS)
    return {"since": since, "until": until, "events": [told(db, event) for event in found]}


@contract.get(
    "/moment",
    "Teams as they were at a time, with what had happened since another; `agent` names whose screen is told.",
    schemas.things(
        at=schemas.WHOLE,
        since=schemas.WHOLE,
        shown=schemas.MAYBE_WHOLE,
        teams=schemas.listed(_THEN),
        messages=schemas.listed(schemas.ANYTHING),
        events=schemas.listed(schemas.EVENT),
    ),
    {"at": _TIME, "since": _TIME, "orchestration": _TEAM, "agent": _AGENT},
)
def moment(
    at: int | None = None, since: int = 0, orchestration: str | None = None, agent: int | None = None
) -> dict[str, object]:
    """A moment; without `at` this one. `shown` is whose screen is told, by itself the first one that was recorded."""
    since, at = _in_order(since, at)
    db = desk().db
    with _recording() as recording:
        seen = moments.look(db, recording, at, since=since, team=_named(orchestration))
    everyone = {one.id: one.screen.known for team in seen.teams for one in team.agents}
    recorded = (one for one, known in everyone.items() if known is Known.SHOWN)
    shown = agent if agent in everyone else next(recorded, next(iter(everyone), None))
    return {
        "at": seen.at,
        "since": seen.since,
        "shown": shown,
        "teams": [_team_data(team, shown) for team in seen.teams],
        "messages": [_message_data(one) for one in seen.messages[-_MOST_EVENTS:]],
        "events": [told(db, event) for event in seen.events[-_MOST_EVENTS:]],
    }


@contract.get(
    "/changes",
    "What has changed from one time to another.",
    schemas.things(
        since=schemas.WHOLE,
        until=schemas.WHOLE,
        teams=schemas.listed(_CHANGE),
        agents=schemas.listed(_CHANGE),
        criteria=schemas.listed(_CHANGE),
        messages=schemas.listed(schemas.ANYTHING),
        commits=schemas.listed(schemas.EVENT),
        screens=schemas.listed(schemas.ANYTHING),
    ),
    {"since": _TIME, "until": _TIME, "orchestration": _TEAM},
)
def changes(since: int = 0, until: int | None = None, orchestration: str | None = None) -> dict[str, Any]:
    """Two moments, compared; without `until` the second one is now."""
    since, until = _in_order(since, until)
    db, team = desk().db, _named(orchestration)
    with _recording() as recording:
        first, second = (moments.look(db, recording, at, since=since - 1, team=team) for at in (since, until))
    return _difference_data(moments.compare(db, first, second, team=team))


def _in_order(one: int, other: int | None) -> tuple[int, int]:
    """Two times, the earlier one first, whichever was named first; without the second one it is now."""
    first, second = sorted((one, host.now_ms() if other is None else other))
    return first, second


def _named(orchestration: str | None) -> Orchestration | None:
    if orchestration is None:
        return None
    if not (found := orchestrations.named(desk().db, orchestration)):
        raise NotFound(f"no team {orchestration!r}", hint="GET /api/v1/orchestrations")
    return found[-1]


@contextlib.contextmanager
def _recording() -> Iterator[Reader | None]:
    found = recordings.reader(desk().home)
    try:
        yield found
    finally:
        if found:
            found.close()


def _team_data(team: TeamThen, shown: int | None) -> dict[str, Any]:
    mates = [
        {
            **{"id": one.id, "target": one.target, "role": one.role, "state": one.state, "was_seen": one.was_seen},
            "screen": _screen_data(one.screen, is_told=one.id == shown),
        }
        for one in team.agents
    ]
    return {**asdict(team), "agents": mates}


def _screen_data(screen: Screen, *, is_told: bool) -> dict[str, object]:
    """A screen; only one is told at a time, since a hundred take a second to be made into HTML."""
    html = ansi.render(screen.picture.text)[1] if screen.picture and is_told else None
    return {"known": screen.known, "since": screen.since, "html": html}


def _message_data(one: MessageThen) -> dict[str, object]:
    told_of = one.message
    return {
        **{"id": told_of.id, "sender": told_of.sender, "target": one.target, "status": one.status},
        **{"queued_at": told_of.queued_at, "body": told_of.body[:500]},
    }


def _difference_data(found: Difference) -> dict[str, Any]:
    db = desk().db
    return {
        **{"since": found.since, "until": found.until},
        **{name: [asdict(one) for one in getattr(found, name)] for name in ("teams", "agents", "criteria", "screens")},
        "messages": [_message_data(one) | {"before": was} for one, was in found.messages[-_MOST_EVENTS:]],
        "commits": [told(db, event) for event in found.commits[-_MOST_EVENTS:]],
    }
