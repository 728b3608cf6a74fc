"""The API's looks: what the verbs of the doors show, by the same rooms."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Response

from lib import agents, criteria, dialogs, history, host, messages, orchestrations, overview, status, store
from lib.errors import NotFound, Unavailable
from lib.fleet import members
from lib.fleet import views as fleet_views
from lib.front.control import costs, handovers, mail
from lib.front.web import ansi, pieces, schemas, security
from lib.front.web.answers import answer
from lib.front.web.contract import Contract
from lib.front.web.live import told
from lib.front.web.site import desk, site
from lib.looks import Looks
from lib.models import Agent
from lib.together import handing_over, sync_status

contract = Contract("views")
part = contract.part

_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000}
_AFTER = {"type": "integer", "minimum": 0, "maximum": 2**62}
_LOOKS = Looks()
_LOOKING = sync_status.Looking()


@contract.get(
    "/browser",
    "Who asks, and what its changes must carry in the header X-CSRF-Token.",
    schemas.things(csrf=schemas.TEXT, read_only=schemas.YES, takes_token=schemas.YES),
)
def browser() -> Response:
    """The session of a browser; one without gets it now."""
    gate = site().gate
    found, cookie = security.session_of(gate)
    made = answer({"csrf": found.csrf, "read_only": gate.is_read_only, "takes_token": gate.takes_token})
    return security.set_cookie(gate, made, cookie) if cookie else made


# -- teams --


@contract.get("/overview", "A line for each team, what needs a person first.", schemas.ANYTHING)
def lines() -> dict[str, object]:
    """The overview of all projects."""
    return overview.look(desk().db, now=host.now_ms()).as_data()


@contract.get(
    "/orchestrations",
    "The live teams, and those that ended within a day.",
    schemas.things(at=schemas.WHOLE, orchestrations=schemas.listed(schemas.TEAM)),
)
def teams() -> dict[str, object]:
    """Every team with its agents."""
    db, now = desk().db, host.now_ms()
    found = status.snapshot(db, now=now, looks=_LOOKS)
    return {"at": now, "orchestrations": [pieces.team_data(db, one) for one in found]}


@contract.get(
    "/orchestrations/{orchestration}",
    "One team: agents, messages between them, check-ins ahead, criteria, budgets.",
    schemas.things(
        **schemas.TEAM["properties"],
        flows=schemas.listed(schemas.FLOW),
        check_ins=schemas.listed(schemas.CHECK_IN),
        budgets=schemas.listed(schemas.BUDGET),
        spec_text=schemas.TEXT,
    ),
)
def team(orchestration: str) -> dict[str, object]:
    """All that the store has of a team now."""
    db = desk().db
    found = orchestrations.get(db, orchestration)
    seen = status.of(db, found, now=host.now_ms(), looks=_LOOKS)
    return pieces.team_data(db, seen) | {
        "flows": [asdict(one) for one in messages.flows(db, found.id)],
        "check_ins": pieces.check_ins(db, seen),
        "budgets": pieces.budgets_of(db, found.id),
        "spec_text": found.spec_text,
    }


@contract.get(
    "/orchestrations/{orchestration}/handovers",
    "How long work takes from role to role, in seconds (docs/git.md).",
    schemas.things(lanes=schemas.listed(schemas.LANE)),
)
def handovers_of(orchestration: str) -> dict[str, object]:
    """The lanes of a team by its events."""
    db = desk().db
    found = handing_over.times(db, orchestrations.get(db, orchestration).id)
    return {"lanes": [handovers.lane_data(one) for one in found]}


@contract.get(
    "/orchestrations/{orchestration}/messages",
    "The newest messages to a team, oldest of them first.",
    schemas.things(messages=schemas.listed(schemas.MESSAGE)),
    {"before": _AFTER, "limit": _LIMIT},
)
def messages_of(orchestration: str, before: int | None = None, limit: int = 100) -> dict[str, object]:
    """The ledger of a team, a page at a time: `before` is the smallest id of the page after it."""
    db = desk().db
    found = messages.of_team(db, orchestrations.get(db, orchestration).id, before=before, limit=limit)
    return {"messages": [mail.data_of(one, agents.get(db, one.agent_id)) for one in found]}


@contract.get(
    "/orchestrations/{orchestration}/criteria",
    "The criteria of a team's spec, each with its evidence.",
    schemas.things(criteria=schemas.listed(schemas.CRITERION)),
)
def criteria_of(orchestration: str) -> dict[str, object]:
    """What is known of each criterion."""
    db = desk().db
    found = criteria.of_orchestration(db, orchestrations.get(db, orchestration).id)
    return {"criteria": [asdict(one) | {"state": one.state} for one in found]}


@contract.get(
    "/orchestrations/{orchestration}/git",
    "Where the worktrees of a team stand: commits, conflicts, overlaps, snapshots.",
    schemas.things(agents=schemas.listed(schemas.things(role=schemas.TEXT, branch=schemas.TEXT))),
)
def git_of(orchestration: str) -> dict[str, object]:
    """One look at the worktrees; it takes as long as git takes."""
    db = desk().db
    (seen,) = _LOOKING.board(db, [orchestrations.get(db, orchestration)], now=host.now_ms()).teams
    return asdict(seen)


@contract.get(
    "/orchestrations/{orchestration}/events",
    "What has happened in a team, after an event.",
    schemas.things(events=schemas.listed(schemas.EVENT)),
    {"after": _AFTER, "limit": _LIMIT},
)
def events_of(orchestration: str, after: int = 0, limit: int = 200) -> dict[str, object]:
    """A page of a team's history; an event without a sentence is of use to a program only."""
    db = desk().db
    found = store.events(db, orchestration=orchestrations.get(db, orchestration).id, after=after, limit=limit)
    return {"events": [told(db, event) for event in found]}


@contract.get(
    "/events",
    "What has happened anywhere, after an event.",
    schemas.things(newest=schemas.WHOLE, events=schemas.listed(schemas.EVENT)),
    {"after": _AFTER, "limit": _LIMIT},
)
def events(after: int | None = None, limit: int = 200) -> dict[str, object]:
    """A page of the history; without `after` the newest ones."""
    db = desk().db
    newest = store.newest_event(db)
    found = store.events(db, after=max(0, newest - limit) if after is None else after, limit=limit)
    return {"newest": newest, "events": [told(db, event) for event in found]}


# -- agents and messages --


@contract.get("/agents/{agent}", "One agent, and the messages that it got last.", schemas.ANYTHING)
def agent_of(agent: int) -> dict[str, object]:
    """What is known of an agent."""
    db = desk().db
    found = agents.get(db, agent)
    if found.orchestration_id is None:
        raise NotFound(f"{found.target} is a guest, of which only its messages are known")
    seen = status.of(db, orchestrations.get(db, found.orchestration_id), now=host.now_ms(), looks=_LOOKS)
    one = next(mate for mate in seen.agents if mate.id == agent)
    last = messages.find(db, agent_id=agent, limit=50)
    return asdict(one) | {"orchestration": seen.id, "messages": [mail.data_of(message, found) for message in last]}


@contract.get(
    "/agents/{agent}/screen",
    "What an agent's window shows, as text and as escaped HTML, and the question that it asks.",
    schemas.SCREEN,
    {"lines": {"type": "integer", "minimum": 1, "maximum": 5000}},
)
def screen(agent: int, lines: int | None = None) -> dict[str, object]:
    """The window now, or its last lines with those scrolled out."""
    here = desk()
    found = agents.get(here.db, agent)
    text, html = ansi.render(_capture(found, lines))
    asked = dialogs.shown(here, found)
    dialog = asdict(asked) | {"name": dialogs.name(asked)} if asked else None
    return {"target": found.target, "text": text, "html": html, "dialog": dialog}


def _capture(agent: Agent, lines: int | None) -> str:
    tmux = desk().tmux
    shown = tmux.text(agent.pane_id, agent=agent.id, lines=lines, colours=True) if agent.pane_id else None
    if shown is None:
        raise NotFound(f"{agent.target} has no window now", hint="claude_control.py status")
    return shown


@contract.get(
    "/messages/{message}",
    "One message with its whole way.",
    schemas.things(**schemas.MESSAGE["properties"], history=schemas.listed(schemas.ANYTHING)),
)
def message_of(message: int) -> dict[str, object]:
    """A message, and each step of its delivery."""
    db = desk().db
    found = messages.get(db, message)
    past = [
        {"id": event.id, "at": event.at, "kind": event.kind, "step": history.step(event)}
        for event in store.events(db, message=message)
    ]
    return mail.data_of(found, agents.get(db, found.agent_id)) | {"history": past}


# -- the machine --


@contract.get(
    "/costs",
    "What agents have used, at list prices.",
    schemas.COSTS,
    {
        "by": {"type": "string", "enum": list(costs.BY)},
        "orchestration": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
        "since": {"type": "integer", "minimum": 0, "maximum": 2**53},
    },
)
def costs_of(by: str = "agent", orchestration: str | None = None, since: int = 0) -> dict[str, Any]:
    """A bill for each agent, role, day or model; of one team, or of all, since a time (UTC milliseconds)."""
    here = desk()
    found = orchestrations.get(here.db, orchestration) if orchestration else None
    return costs.as_data(costs.look(here, found, by, since, host.now_ms()), by, found)


@contract.get("/limits", "Usage limits in force, and forecasts.", schemas.LIMITS)
def limits_of() -> dict[str, object]:
    """What is refused, until when, and when budgets and windows end."""
    return pieces.limits_now(desk().db, now=host.now_ms())


@contract.get("/host", "This machine: scheduler, tmux, load, disk.", schemas.MACHINE)
def machine() -> dict[str, object]:
    """The machine now. Raises `Unavailable` when its disk cannot be asked."""
    try:
        return pieces.machine(site().tmux, Path(site().home))
    except OSError as error:
        raise Unavailable(f"{site().home}: {error.strerror}") from None


@contract.get("/fleet", "The hosts of the fleet, and how this one is linked to it.", schemas.FLEET)
def fleet_of() -> dict[str, object]:
    """What is known of the fleet here. Raises `NotFound` on a machine that is of none."""
    seen = fleet_views.look_if_any(desk().db, Path(site().home), now=host.now_ms())
    if seen is None:
        raise members.no_fleet()
    return pieces.fleet(seen)
