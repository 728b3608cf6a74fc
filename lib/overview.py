"""The overview: a line for each team, what needs a person first, with what it has spent; and the queue."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path

from lib import status, templates
from lib.criteria import Counts
from lib.fleet import views
from lib.fleet.views import Fleet
from lib.judgement import prices
from lib.models import AgentState, CandidateStatus, DeliveryStatus, EntryStatus, OrchestrationStatus, Program
from lib.queue import entries
from lib.records import dataclass
from lib.spending import ledger
from lib.status import AgentStatus
from lib.status import OrchestrationStatus as Team


class Need(IntEnum):
    """What a team needs, the most urgent first."""

    PERSON = 0
    LOOK = 1
    TIME = 2
    NOTHING = 3
    OVER = 4


@dataclass(frozen=True)
class Line:
    """One team. `why` says in a sentence what it needs, and is empty when it needs nothing; `criteria` how many hold.

    `usd` is what it has spent at list prices; None when nothing that it used has a known price.
    """

    session: str
    project: str
    title: str
    program: str
    status: str
    need: Need
    why: str
    agents: int
    states: dict[str, int]
    reported: int
    criteria: Counts
    waiting: int
    usd: float | None
    tokens: int
    created_at: int
    updated_at: int
    seen_at: int | None

    @property
    def name(self) -> str:
        """The project's folder."""
        return Path(self.project).name


@dataclass(frozen=True)
class Overview:
    """All teams at one moment, and how many specs of the queue are in each status that is not over.

    `fleet` is what is known of it on a host of one.
    """

    at: int
    lines: tuple[Line, ...]
    queue: dict[str, int]
    queue_paused: bool
    fleet: Fleet | None = None

    def as_data(self) -> dict[str, object]:
        """The same for --json."""
        found = asdict(self)
        for line in found["lines"]:
            line["need"] = Need(line["need"]).name.lower()
        told = {"at": self.at, "projects": found["lines"], "queue": self.queue, "queue_paused": self.queue_paused}
        return told | ({"fleet": self.fleet.as_data()} if self.fleet else {})


def look(db: sqlite3.Connection, *, now: int, projects: Collection[str] = ()) -> Overview:
    """The live teams, and those that ended within a day; of some projects when these are named (see `is_named`)."""
    price_list = templates.price_list()
    found = []
    for team in status.snapshot(db, now=now):
        if projects and not any(is_named(team, name) for name in projects):
            continue
        found.append(_line(team, prices.bill(price_list, ledger.sums(db, orchestration=team.id))))
    waiting = Counter(str(one.status) for one in entries.unfinished(db))
    lines = sorted(found, key=lambda line: (line.need, -line.updated_at, line.session))
    return Overview(now, tuple(lines), dict(waiting), entries.paused_at(db) is not None)


def is_named(team: Team, name: str) -> bool:
    """Whether a person means a team by its project's folder name or path, or by its session."""
    return name in (team.session, Path(team.project).name) or Path(name).expanduser() == Path(team.project)


def _line(team: Team, bill: prices.Bill) -> Line:
    need, why = need_of(team)
    return Line(
        session=team.session,
        project=team.project,
        title=team.title,
        program=team.program,
        status=team.status,
        need=need,
        why=why,
        agents=len(team.agents),
        states=dict(Counter(str(agent.state) for agent in team.agents)),
        reported=sum(agent.reported for agent in team.agents),
        criteria=team.criteria,
        waiting=sum(agent.waiting for agent in team.agents),
        usd=None if bill.unpriced and not bill.usd else round(bill.usd, 6),
        tokens=bill.usage.tokens,
        created_at=team.created_at,
        updated_at=team.updated_at,
        seen_at=max((agent.seen_at for agent in team.agents if agent.seen_at), default=None),
    )


def need_of(team: Team) -> tuple[Need, str]:
    """What a team needs, and why; the most urgent thing counts."""
    return min(_needs(team), key=lambda one: one[0])


def _needs(team: Team) -> Iterator[tuple[Need, str]]:
    if team.delivery == DeliveryStatus.KEPT_BACK:
        yield Need.PERSON, team.delivery_outcome or "its work is kept back from the starting branch"
    if team.status in (OrchestrationStatus.COMPLETED, OrchestrationStatus.FAILED, OrchestrationStatus.STOPPED):
        yield Need.OVER, team.outcome or ""
        return
    if team.status == OrchestrationStatus.NEEDS_ATTENTION:
        yield Need.PERSON, team.outcome or "it needs attention"
    if team.status == OrchestrationStatus.PAUSED:
        yield Need.TIME, team.outcome or "it is paused"
    if team.merge_trouble:
        yield Need.LOOK, f"its work is not merged now: {team.merge_trouble}"
    for agent in team.agents:
        yield from _of_agent(agent, team)
    yield Need.NOTHING, ""


def _of_agent(agent: AgentStatus, team: Team) -> Iterator[tuple[Need, str]]:
    if agent.state is AgentState.ASKING:
        yield Need.PERSON, f"{agent.role} asks: claude_control.py answer {agent.target}"
    if agent.state is AgentState.GONE and team.status == OrchestrationStatus.RUNNING:
        yield Need.LOOK, f"{agent.role} has ended"
    if agent.candidate in (CandidateStatus.CONFLICT, CandidateStatus.RED):
        yield Need.TIME, f"the work of {agent.role} {status.CANDIDATES[agent.candidate]}"
    if agent.held:
        yield Need.TIME, f"{agent.role} is {agent.held}"


# -- as text --


def as_text(one: Overview, *, now: int) -> str:
    """The overview as plain lines that fit a terminal of 100 columns."""
    if not one.lines:
        nobody = "no team is running: auto_orchestrate.py --spec SPEC, or --demo"
        return "\n".join([nobody, *queue_lines(one), *fleet_lines(one)])
    found = [f"{'project':18} {'status':15} {'agents':28} {'met':>5} {'waiting':>7} {'spent':>9}  last heard"]
    for line in one.lines:
        seen = f"{status.ago(now - line.seen_at)} ago" if line.seen_at else "never"
        name = line.name if len(line.name) <= 18 else f"{line.name[:15]}..."
        figures = f"{line.criteria.share:>5} {line.waiting:>7} {spent(line):>9}  {seen}"
        found.append(f"{name:18} {line.status:15} {states(line):28} {figures}")
        found += [f"  {line.why}"] if line.why else []
    return "\n".join([*found, *queue_lines(one), *fleet_lines(one)])


def summary(one: Overview) -> str:
    """All teams in a few lines."""
    live = [line for line in one.lines if line.need is not Need.OVER]
    needs = Counter(line.need for line in live)
    words = {Need.PERSON: "for you to settle", Need.LOOK: "to look at", Need.TIME: "waiting", Need.NOTHING: "at work"}
    parts = [f"{needs[need]} {text}" for need, text in words.items() if needs[need]]
    states_of_all: Counter[str] = Counter()
    for line in live:
        states_of_all.update(line.states)
    real = [line for line in one.lines if line.program != Program.REHEARSAL]
    usd, tokens = sum(line.usd or 0.0 for line in real), sum(line.tokens for line in real)
    found = [
        f"{len(live)} live {'project' if len(live) == 1 else 'projects'}" + (f": {', '.join(parts)}" if parts else ""),
        f"{len(one.lines) - len(live)} ended within a day",
        f"{sum(line.agents for line in live)} agents" + (f": {_counted(states_of_all)}" if live else ""),
        f"{sum(line.waiting for line in one.lines)} messages wait",
        f"{usd:,.2f} USD spent at list prices, {prices.short(tokens)} tokens",
    ]
    found += [f"fleet: {views.count_line(one.fleet)}"] if one.fleet else []
    return "\n".join([*found, *queue_lines(one)])


def queue_lines(one: Overview) -> list[str]:
    """The queue in one line; none when it is empty and drains."""
    if not one.queue and not one.queue_paused:
        return []
    words = {EntryStatus.RUNNING: "at work", EntryStatus.QUEUED: "waiting", EntryStatus.FAILED: "to be tried again"}
    parts = [f"{one.queue[name]} {text}" for name, text in words.items() if name in one.queue]
    return [f"queue: {', '.join(parts) or 'empty'}" + ("; it is paused" if one.queue_paused else "")]


def fleet_lines(one: Overview) -> list[str]:
    """The fleet's hosts; nothing on a machine that is of none."""
    if not one.fleet:
        return []
    return ["", f"fleet: {views.link_line(one.fleet.link, one.at)}", *views.table(one.fleet).splitlines()]


def states(line: Line) -> str:
    """How many agents do what, or how many there were when the team is over."""
    return str(line.agents) if line.need is Need.OVER else _counted(Counter(line.states))


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{found[state]} {state}" for state in AgentState if found[state])


def spent(line: Line) -> str:
    """What a team has spent at list prices."""
    if line.program == Program.REHEARSAL:
        return "nothing"
    return "no price" if line.usd is None else f"{line.usd:,.2f} $"
