"""Relations: what is new in a project is told once to each project that it says it concerns.

New is an insight, or what a team has delivered; both are recorded together with their bulletins. A bulletin becomes a
message to the Orchestrator that works in the other project then, here or on another host of the fleet, else a line of
the next one's briefing here. What is told never causes another bulletin, so two projects that concern each other come
to rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib import agents, config, messages, orchestrations, templates
from lib.errors import NotFound, OrchestratorError, Unavailable, Usage
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, MessageKind, MessageStatus
from lib.records import dataclass
from lib.store import record, writing

#: The sender of what is told.
SENDER = "related-project"
_HINT = "name a path such as ../frontend, or a folder beside the project"

#: Whoever was to be told of it has got it. Once a team is over, what has not arrived by then never will.
_HAS_ARRIVED = (
    "EXISTS (SELECT 1 FROM messages"
    " WHERE messages.id IN (message_id, elsewhere_id) AND messages.status = 'acknowledged')"
)


@dataclass(frozen=True)
class Absent:
    """A project that is not on this machine, by the name of its folder; another host may have it."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Related:
    """The projects that one concerns, and a sentence for each entry that names none; `absent` are those not here."""

    projects: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()

    def untold(self, told: Iterable[Bulletin]) -> list[str]:
        """Why some were not told, when these are all that were."""
        names = {one.for_project for one in told}
        reached = {one.sentence for one in self.absent if one.name in names}
        return [sentence for sentence in self.missing if sentence not in reached]


@dataclass(frozen=True)
class Change:
    """Something new in a project: the insight of an id, or what the orchestration of an id has delivered.

    `line` is all of it in one line, `text` is the whole message; both quote what others have written. `author` is the
    target of the agent that it comes from.
    """

    project: str | None
    line: str
    text: str
    author: str = ""
    insight_id: int | None = None
    delivered: str | None = None


@dataclass(frozen=True)
class Bulletin:
    """One change for one project, and how it gets there: by which message of whose Orchestrator.

    `elsewhere_id` is the message to a team on another host. A project that is not here has a name and no path.
    """

    id: int
    project: str | None
    for_project: str
    insight_id: int | None
    delivered: str | None
    line: str
    made_at: int
    orchestration_id: str | None
    message_id: int | None
    elsewhere_id: int | None = None

    @property
    def carrier_id(self) -> int | None:
        """The message that carries it; None while none does."""
        return self.message_id or self.elsewhere_id


# -- which projects --


def of(project: Path) -> Related:
    """The projects that a project's own settings name.

    What cannot be read or found becomes a sentence and no error: what is to be told has happened already.
    """
    try:
        names = config.load_project(project).relates_to
    except OrchestratorError as error:
        return Related(missing=(error.sentence,))
    except OSError as error:
        return Related(missing=(f"{project / config.PROJECT_FILE} cannot be read: {error.strerror}",))
    found = resolve(names, base=project)
    where = f"{config.PROJECT_FILE}: relates_to: "
    return Related(
        found.projects,
        tuple(where + one for one in found.missing),
        tuple(Absent(one.name, where + one.sentence) for one in found.absent),
    )


def resolve(names: Iterable[str], *, base: Path) -> Related:
    """The projects of these names, each once and without `base` itself; as `find` does it, without errors."""
    found: dict[Path, None] = {}
    missing, absent = [], []
    for name in names:
        try:
            found[find(name, base=base)] = None
        except OrchestratorError as error:
            missing.append(error.sentence)
            if isinstance(error, NotFound) and Path(name).name != base.name:
                absent.append(Absent(Path(name).name, error.sentence))
    found.pop(base, None)
    return Related(tuple(found), tuple(missing), tuple(absent))


def find(name: str, *, base: Path) -> Path:
    """The project of a name: a path that begins at `base`, or a folder of PROJECTS_DIR or beside `base`.

    Raises `NotFound` when there is none, and `Unavailable` when nobody could look.
    """
    from lib.git import worktrees  # noqa: PLC0415 - asks git, which whoever concerns nobody need not

    try:
        places = [base / Path(name).expanduser()]
        if "/" not in name and name not in (".", "..", "~"):
            folder = config.projects_dir()
            places = [*([folder / name] if folder else []), base.parent / name]
        return worktrees.project_root(next((place for place in places if place.exists()), places[-1]))
    except (NotFound, Usage) as error:
        raise NotFound(f"{name!r} names no project: {error.sentence}", hint=_HINT) from None
    except RuntimeError:  # the home of a user that is none
        raise NotFound(f"{name!r} names no project: there is no such user", hint=_HINT) from None
    except OSError as error:
        raise Unavailable(f"{name!r} could not be looked at: {error.strerror}") from None


# -- telling --


def tell(
    db: sqlite3.Connection, new: Change, concerned: Iterable[Path], *, absent: Iterable[Absent] = (), now: int
) -> list[Bulletin]:
    """Tell projects of a change; call it in the transaction that records the change.

    Those that are `absent` are told where a team of another host works on them now. Returns the new bulletins: a
    project that was told of this change before is left out, and so are the project itself and the author of the change.
    """
    made = [_tell(db, new, str(project), now) for project in concerned if str(project) != new.project]
    made += [_tell(db, new, one.name, now) for one in absent if _leads_elsewhere(db, one.name)]
    return [one for one in made if one]


def is_elsewhere(db: sqlite3.Connection, one: Absent) -> bool:
    """Whether a team of another host works on a project."""
    return bool(_leads_elsewhere(db, one.name))


def _leads_elsewhere(db: sqlite3.Connection, project: str) -> list[tuple[str, str]]:
    """The teams of other hosts that work on a project, by the name of its folder: host and session."""
    from lib.fleet import members  # noqa: PLC0415 - only who has something to tell needs it

    return members.teams_of(db, project)


def _tell(db: sqlite3.Connection, new: Change, project: str, now: int) -> Bulletin | None:
    team = orchestrations.live_in(db, Path(project))  # a project has one at most
    lead = agents.in_role(db, team.id, ORCHESTRATOR) if team else None
    if lead and lead.target == new.author:
        return None
    row = db.execute(
        "INSERT INTO bulletins (project, for_project, insight_id, delivered, line, made_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (new.project, project, new.insight_id, new.delivered, new.line, now),
    ).fetchone()
    if row is None:
        return None
    if lead is None:
        _tell_elsewhere(db, new, project, row["id"], now)
    else:
        message = messages.queue(db, lead, new.text, sender=SENDER, kind=MessageKind.NOTICE, now=now)
        db.execute(
            "UPDATE bulletins SET orchestration_id = ?, message_id = ? WHERE id = ?",
            (lead.orchestration_id, message.id, row["id"]),
        )
    made = _bulletin(db.execute("SELECT * FROM bulletins WHERE id = ?", (row["id"],)).fetchone())
    _record(db, made, lead, now)
    return made


def _tell_elsewhere(db: sqlite3.Connection, new: Change, project: str, bulletin_id: int, now: int) -> None:
    """Tell the Orchestrators of other hosts that work on a project; the bulletin knows of the first."""
    from lib.fleet import members  # noqa: PLC0415 - as above

    for host, session in _leads_elsewhere(db, Path(project).name):
        there = agents.elsewhere(db, host, session, ORCHESTRATOR)
        text = templates.render("related_elsewhere.md", host=members.own_name(db), text=new.text)
        sent = messages.queue(db, there, text, sender=SENDER, kind=MessageKind.NOTICE, now=now)
        db.execute("UPDATE bulletins SET elsewhere_id = coalesce(elsewhere_id, ?) WHERE id = ?", (sent.id, bulletin_id))


def _record(db: sqlite3.Connection, made: Bulletin, lead: Agent | None, now: int) -> None:
    record(
        db,
        "bulletin.made",
        now=now,
        orchestration=made.orchestration_id,
        agent=lead.id if lead else None,
        message=made.carrier_id,
        bulletin=made.id,
        project=made.project,
        for_project=made.for_project,
    )


def note_missing(db: sqlite3.Connection, orchestration_id: str, missing: Sequence[str], *, now: int) -> None:
    """Record which projects could not be told of what a team has done."""
    for reason in missing:
        record(db, "bulletin.not_made", now=now, orchestration=orchestration_id, reason=reason)


def withdraw(db: sqlite3.Connection, insight_id: int, *, now: int) -> None:
    """Tell nobody of an insight any more who has not heard of it; call it in the transaction that withdraws it.

    What stands in somebody's composer already still arrives.
    """
    rows = db.execute(f"SELECT * FROM bulletins WHERE insight_id = ? AND NOT {_HAS_ARRIVED}", (insight_id,))
    for one in [_bulletin(row) for row in rows.fetchall()]:
        _cancel(db, one, now)
        db.execute("DELETE FROM bulletins WHERE id = ?", (one.id,))


def _cancel(db: sqlite3.Connection, one: Bulletin, now: int) -> None:
    message = messages.get(db, one.carrier_id) if one.carrier_id else None
    if message is None or message.kind is not MessageKind.NOTICE or message.carried_by is not None:
        return  # a briefing and a digest carry more than this
    if message.status is MessageStatus.QUEUED:
        messages.cancel(db, message, agents.get(db, message.agent_id), "the insight was withdrawn", now=now)


# -- briefing --


def claim(db: sqlite3.Connection, orchestration_id: str, project: Path) -> None:
    """Have a new team's briefing tell what nobody in its project has got; call it in the transaction that records it.

    That is what came while no team was live, and what the one before ended without.
    """
    db.execute(
        f"UPDATE bulletins SET orchestration_id = ?, message_id = NULL WHERE for_project = ? AND NOT {_HAS_ARRIVED}",
        (orchestration_id, str(project)),
    )


def for_briefing(db: sqlite3.Connection, orchestration_id: str) -> list[Bulletin]:
    """What the briefing of a team's Orchestrator is to tell, the newest first; nothing once it is written."""
    rows = db.execute(
        "SELECT * FROM bulletins WHERE orchestration_id = ? AND message_id IS NULL ORDER BY id DESC",
        (orchestration_id,),
    )
    return [_bulletin(row) for row in rows]


def note_briefed(db: sqlite3.Connection, told: Iterable[Bulletin], message_id: int) -> None:
    """Record that a briefing carries these; call it in the transaction that queues it."""
    with writing(db):
        db.executemany("UPDATE bulletins SET message_id = ? WHERE id = ?", [(message_id, one.id) for one in told])


# -- looking --


def listed(db: sqlite3.Connection, project: str | None, *, limit: int) -> list[Bulletin]:
    """The newest first: those for a project; without one all."""
    rows = db.execute(
        "SELECT * FROM bulletins WHERE ?1 IS NULL OR for_project = ?1 ORDER BY id DESC LIMIT ?2", (project, limit)
    )
    return [_bulletin(row) for row in rows]


def _bulletin(row: sqlite3.Row) -> Bulletin:
    return Bulletin(**dict(row))
