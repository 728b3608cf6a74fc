"""What pages show of now, in pieces: each team, the queue, the limits, the machine. The API gives the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib import agents, authorizations, checkins, limits, overview, service, status, templates
from lib.errors import NotFound, OrchestratorError
from lib.fleet import views
from lib.fleet.views import Fleet
from lib.front import queueing
from lib.judgement import prices
from lib.looks import Looks
from lib.models import LIVE, CheckIn
from lib.queue import entries
from lib.spending import budgets, ledger, outlooks
from lib.status import OrchestrationStatus as Team
from lib.tmux import Tmux

#: What costs more than a look into the store is looked at this often.
_SLOW_MS = 5_000


class Eyes:
    """Looks again and again; what is slow is looked at now and then."""

    def __init__(self, tmux: Tmux) -> None:
        self._tmux, self._looks = tmux, Looks()
        self._slow: tuple[int, dict[str, object]] = (0, {})

    def look(self, db: sqlite3.Connection, home: Path, *, now: int) -> dict[str, object]:
        """All pieces by their names."""
        teams = status.snapshot(db, now=now, looks=self._looks)
        found: dict[str, object] = {f"orchestration/{one.id}": team_data(db, one) for one in teams}
        found["queue"] = queue(db, now=None)
        return found | self._slowly(db, home, now)

    def _slowly(self, db: sqlite3.Connection, home: Path, now: int) -> dict[str, object]:
        at, found = self._slow
        if not found or not 0 <= now - at < _SLOW_MS:
            found = {"limits": limits_now(db, now=now), "machine": machine(self._tmux, home)}
            if seen := views.look_if_any(db, home, now=now):
                found["fleet"] = fleet(seen)
            self._slow = (now, found)
        return found


def team_data(db: sqlite3.Connection, team: Team) -> dict[str, Any]:
    """A team: its snapshot, what it needs, what it has spent, and what asks for a person's answer."""
    need, why = overview.need_of(team)
    bill = prices.bill(templates.price_list(), ledger.sums(db, orchestration=team.id))
    data = asdict(team) | {"need": need.name.lower(), "why": why, "spent": spent(bill)}
    live = team.status in LIVE
    return data | {"asks": asks(db, team) if live else []}


def spent(bill: prices.Bill) -> dict[str, object]:
    """What a bill comes to; `usd` is None when nothing of it has a known price."""
    usd = None if bill.unpriced and not bill.usd else round(bill.usd, 6)
    return {"usd": usd, "tokens": bill.usage.tokens, "answers": bill.answers}


def asks(db: sqlite3.Connection, team: Team) -> list[dict[str, object]]:
    """The open authorizations of a team, oldest first."""
    roles = {agent.id: agent.role for agent in team.agents}
    return [
        asdict(one) | {"requester": roles[one.requester_id], "target": roles.get(one.target_id)}
        for one in authorizations.open_of(db, team.id)
    ]


def check_in(one: CheckIn) -> dict[str, object]:
    """A check-in that is ahead, or that died."""
    return asdict(one)


def check_ins(db: sqlite3.Connection, team: Team) -> list[dict[str, object]]:
    """The check-ins ahead of a team, by time."""
    members = {agent.id for agent in team.agents}
    return [check_in(one) for one in checkins.scheduled(db) if one.agent_id in members]


def budgets_of(db: sqlite3.Connection, orchestration_id: str) -> list[dict[str, object]]:
    """What a team may spend, and what of it is used."""
    found = []
    for one in budgets.of(db, orchestration_id):
        used, _ = budgets.used(db, one)
        found.append(asdict(one) | {"limit": one.limit, "used": used, "sentence": budgets.words(one)})
    return found


def queue(db: sqlite3.Connection, *, now: int | None) -> dict[str, object]:
    """The queue: what is unfinished, in the order in which it runs. Without `now` no ages: these always change."""
    rows = [queueing.row(db, entry, now or 0) for entry in entries.unfinished(db)]
    if now is None:
        moving = ("age_ms", "running_ms", "due_in_ms")
        rows = [{name: value for name, value in row.items() if name not in moving} for row in rows]
    return {"paused_at": entries.paused_at(db), "entries": rows}


def limits_now(db: sqlite3.Connection, *, now: int) -> dict[str, object]:
    """The usage limits that are in force, and the forecasts of budgets and windows."""
    found = []
    for limit in limits.open_limits(db):
        data = asdict(limit) | {"target": _target(db, limit.agent_id)}
        found.append(data)
    return {"limits": found, "forecasts": [one.as_data() for one in outlooks.every(db, now=now)]}


def _target(db: sqlite3.Connection, agent_id: int | None) -> str | None:
    try:
        return agents.get(db, agent_id).target if agent_id is not None else None
    except NotFound:
        return None


def fleet(seen: Fleet) -> dict[str, object]:
    """The hosts of the fleet, what is odd about each in words, and how the link stands."""
    return {
        "link": {
            "is_connected": seen.link is not None and seen.link.is_connected(seen.at),
            "sentence": views.link_line(seen.link, seen.at),
        },
        "hosts": [
            one.as_data(seen.at) | {"agents": one.agents, "capacity": one.capacity, "notes": views.notes(one)}
            for one in seen.hosts
        ],
        "waiting": [views.what(one) for one in seen.waiting],
        "accounts": views.account_lines(seen),
    }


def machine(tmux: Tmux, home: Path) -> dict[str, object]:
    """This machine: the scheduler, tmux, its load, and how much room the disk of the state home has (bytes)."""
    scheduler, disk = service.running(home), shutil.disk_usage(home)
    try:
        panes, trouble = len(tmux.panes()), None
    except OrchestratorError as error:
        panes, trouble = None, error.sentence
    return {
        "scheduler_pid": scheduler.pid if scheduler else None,
        "scheduler_since": service.running_since(home) if scheduler else None,
        "drains_queue": scheduler is not None and service.drains_queue(home),
        "panes": panes,
        "tmux_trouble": trouble,
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "disk_free": disk.free // 2**20 * 2**20,
        "disk_total": disk.total,
    }
