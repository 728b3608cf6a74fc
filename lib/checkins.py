"""Check-ins: notes that become messages at their time, once or again and again (docs/check-ins.md)."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lib import agents, cron, decisions, host, messages
from lib.errors import NotFound, Usage
from lib.judgement import occurrences
from lib.judgement.occurrences import MINUTE_MS, MOST_CAUGHT_UP, Left, Turn
from lib.models import Agent, CatchUp, CheckIn, CheckInStatus, MessageKind, News
from lib.records import dataclass
from lib.store import record, writing

SENDER = "scheduler"
#: How often a check-in looks for an agent that is gone before it ends as dead, and how long apart.
TRIES_WHEN_GONE = 3
RETRY_MINUTES = 5
#: A year; a later time is more likely a wrong unit.
LONGEST_MINUTES = 366 * 24 * 60
LONGEST_JITTER_SECONDS = 3600

NOTHING_NEW = "nothing new"
STILL_WAITS = "the last one still waits"
EQUAL_WAITS = "an equal one still waits"
WAS_HELD = "its agent was held"
MANY_WAIT = f"{MOST_CAUGHT_UP} of them still wait"
#: Between the note of a check-in and what is new.
_NEWS = "\n\nNew since the last one: "

#: What of a check-in decides about its turn.
_DECISIVE = (
    *("id", "agent_id", "planned_at", "due_at", "decided_at", "interval_minutes", "cron", "catch_up"),
    *("deadline_minutes", "jitter_seconds"),
)

_SELECT = """
SELECT check_ins.*, agents.session || ':' || iif(agents.orchestration_id IS NULL, agents.window, agents.role) AS target
FROM check_ins JOIN agents ON agents.id = check_ins.agent_id
"""

#: What is new for an agent since what it has seen (`News.seen`); lib/news.py looks.
Look = Callable[[Agent, str | None], News]


@dataclass(frozen=True)
class Terms:
    """On what terms a note is told. `seen` is what there is when it is scheduled, for `if_changed`."""

    catch_up: CatchUp | None = None
    deadline_minutes: int | None = None
    jitter_seconds: int = 0
    if_changed: bool = False
    seen: str | None = None


_AS_EVER = Terms()


def add(
    db: sqlite3.Connection,
    agent_id: int,
    note: str,
    *,
    now: int,
    minutes: int | None = None,
    recurring: bool = False,
    cron_line: str | None = None,
    terms: Terms = _AS_EVER,
) -> CheckIn:
    """Schedule a note for an agent: in `minutes`, every so many when recurring, or at the times of a cron line.

    An agent has one check-in at intervals, and one at the times of a cron line for each note: a new one takes the place
    of the old. Raises `Usage` for what is empty, out of bounds, or means nothing together.
    """
    agent, note = agents.get(db, agent_id), note.strip()
    if not note:
        raise Usage("the note is empty")
    _check(minutes, recurring, cron_line)
    _check_terms(terms, minutes, recurring or cron_line is not None)
    planned_at = cron.after(cron_line, now) if cron_line is not None else now + (minutes or 0) * MINUTE_MS
    if planned_at is None:
        raise Usage(f"the cron line {cron_line!r} never comes", hint="name a day that there is")
    interval = minutes if recurring else None
    with writing(db):
        _take_the_place(db, agent_id, note, interval, cron_line)
        cursor = db.execute(
            "INSERT INTO check_ins (agent_id, note, planned_at, due_at, decided_at, interval_minutes, cron, catch_up,"
            " deadline_minutes, jitter_seconds, if_changed, seen, status)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'scheduled')",
            (
                *(agent_id, note, planned_at, planned_at, now, interval, cron_line, terms.catch_up or CatchUp.ONCE),
                *(terms.deadline_minutes, terms.jitter_seconds, terms.if_changed, terms.seen),
            ),
        )
        check_in_id = int(cursor.lastrowid or 0)
        due_at = occurrences.due_at(check_in_id, planned_at, terms.jitter_seconds)
        db.execute("UPDATE check_ins SET due_at = ? WHERE id = ?", (due_at, check_in_id))
        how = {"minutes": minutes, "recurring": recurring, "cron": cron_line}
        _tell(db, "check_in.scheduled", agent, now, check_in=check_in_id, **how)
    return get(db, check_in_id)


def _check(minutes: int | None, recurring: bool, cron_line: str | None) -> None:
    if cron_line is not None and (minutes is not None or recurring):
        raise Usage("a cron line has times of its own: leave out MINUTES and --recurring")
    if cron_line is None and (minutes is None or not 0 < minutes <= LONGEST_MINUTES):
        raise Usage(f"MINUTES must be between 1 and {LONGEST_MINUTES}, not {minutes}")


def _check_terms(terms: Terms, minutes: int | None, comes_again: bool) -> None:
    if terms.catch_up and not comes_again:
        raise Usage("--catch-up is about what comes again: it needs --recurring or --cron")
    if terms.catch_up is CatchUp.ALL and terms.if_changed:
        raise Usage("--if-changed tells at once all that is new: --catch-up all would have nothing more to tell")
    if not 0 <= terms.jitter_seconds <= LONGEST_JITTER_SECONDS:
        raise Usage(f"the jitter must be between 0 and {LONGEST_JITTER_SECONDS} seconds, not {terms.jitter_seconds}")
    if minutes and terms.jitter_seconds >= minutes * 60:
        raise Usage(f"the jitter must be shorter than the {minutes} minutes that it is added to")
    if terms.deadline_minutes is None:
        return
    if not 0 < terms.deadline_minutes <= LONGEST_MINUTES:
        raise Usage(f"the deadline must be between 1 and {LONGEST_MINUTES} minutes, not {terms.deadline_minutes}")
    if terms.catch_up is CatchUp.SKIP and minutes and terms.deadline_minutes >= minutes:
        raise Usage(f"--catch-up skip tells nothing that is {minutes} minutes late: such a --deadline changes nothing")


def _take_the_place(
    db: sqlite3.Connection, agent_id: int, note: str, interval: int | None, cron_line: str | None
) -> None:
    db.execute(
        "UPDATE check_ins SET status = 'cancelled', reason = 'replaced' WHERE agent_id = ?1 AND status = 'scheduled'"
        " AND (?2 IS NOT NULL AND interval_minutes IS NOT NULL"
        " OR ?3 IS NOT NULL AND cron IS NOT NULL AND note = ?4)",
        (agent_id, interval, cron_line, note),
    )


def get(db: sqlite3.Connection, check_in_id: int) -> CheckIn:
    """A check-in by its id. Raises `NotFound`."""
    row = db.execute(f"{_SELECT} WHERE check_ins.id = ?", (check_in_id,)).fetchone()
    if row is None:
        raise NotFound(f"no check-in has the id {check_in_id}", hint="scheduler.py --list")
    return _check_in(row)


def scheduled(db: sqlite3.Connection) -> list[CheckIn]:
    """Every check-in that is still to come, by time, and those that died, which a person should see."""
    rows = db.execute(f"{_SELECT} WHERE check_ins.status IN ('scheduled', 'dead') ORDER BY due_at, check_ins.id")
    return [_check_in(row) for row in rows]


def next_due(db: sqlite3.Connection, *, is_held: Callable[[Agent], bool] = lambda agent: False) -> int | None:
    """When the next check-in is due (UTC milliseconds) of an agent that nothing holds, or None."""
    rows = db.execute(
        "SELECT agent_id, min(due_at) AS due_at FROM check_ins WHERE status = 'scheduled' GROUP BY agent_id"
        " ORDER BY min(due_at)"
    )
    return next((int(row["due_at"]) for row in rows if not is_held(agents.get(db, row["agent_id"]))), None)


def remove(db: sqlite3.Connection, check_in_id: int, *, now: int) -> CheckIn:
    """Cancel a check-in. Raises `NotFound` when there is none that is still to come."""
    found = get(db, check_in_id)
    if found.status not in (CheckInStatus.SCHEDULED, CheckInStatus.DEAD):
        raise NotFound(f"check-in {check_in_id} is already {found.status}", hint="scheduler.py --list")
    with writing(db):
        db.execute(
            "UPDATE check_ins SET status = 'cancelled' WHERE id = ? AND status IN ('scheduled', 'dead')", (check_in_id,)
        )
        _tell(db, "check_in.cancelled", agents.get(db, found.agent_id), now, check_in=check_in_id)
    return get(db, check_in_id)


def cancel_all(db: sqlite3.Connection, orchestration_id: str) -> None:
    """Cancel the check-ins of a team that has ended, dead ones too; call it in the transaction that ends it."""
    db.execute(
        "UPDATE check_ins SET status = 'cancelled', reason = 'the orchestration has ended'"
        " WHERE status IN ('scheduled', 'dead') AND agent_id IN (SELECT id FROM agents WHERE orchestration_id = ?)",
        (orchestration_id,),
    )


# -- firing --


def fire_due(
    db: sqlite3.Connection,
    *,
    now: int,
    is_gone: Callable[[Agent], bool] = lambda agent: False,
    is_held: Callable[[Agent], bool] = lambda agent: False,
    look: Look | None = None,
) -> int:
    """Turn every due check-in into a message, an event and its next occurrence, each in one transaction.

    What becomes of missed ones is decided by `catch_up` and the deadline (occurrences.py). Not told is one that finds
    the last of the same agent still undelivered, a note of which an equal one waits, and one that wants news when
    `look` finds none; without `look` it is told. One whose agent is gone is tried again a few times and then ends as
    dead. One whose agent something holds waits. Returns how many fired.
    """
    _follow_clock(db, now)
    rows = db.execute(f"{_SELECT} WHERE check_ins.status = 'scheduled' AND due_at <= ? ORDER BY due_at", (now,))
    due = [_check_in(row) for row in rows]
    held = {number for number in {one.agent_id for one in due} if is_held(agents.get(db, number))}
    return sum(_fire(db, found, now, is_gone, look) for found in due if found.agent_id not in held)


def wait_no_longer(db: sqlite3.Connection, agent_id: int, *, now: int) -> None:
    """Nothing holds an agent any more: of what it would have been told meanwhile, each note is due once.

    Call it in the transaction that lets the agent go on.
    """
    rows = db.execute(
        f"{_SELECT} WHERE check_ins.status = 'scheduled' AND due_at <= ? AND agent_id = ? AND catch_up = 'all'",
        (now, agent_id),
    ).fetchall()
    for check_in in map(_check_in, rows):
        newest, count = check_in.planned_at, 0
        while (later := _after(check_in, newest)) is not None and later <= now:
            newest, count = later, count + 1
        if count:
            db.execute("UPDATE check_ins SET planned_at = ?, decided_at = ? WHERE id = ?", (newest, now, check_in.id))
            agent = agents.get(db, agent_id)
            _tell(db, "check_in.skipped", agent, now, check_in=check_in.id, reason=WAS_HELD, count=count)


def _fire(
    db: sqlite3.Connection, check_in: CheckIn, now: int, is_gone: Callable[[Agent], bool], look: Look | None
) -> int:
    """Fire a check-in until it is not due any more: with catch_up all that may be several times. Returns how many."""
    agent, fired = agents.get(db, check_in.agent_id), 0
    while check_in.status is CheckInStatus.SCHEDULED and check_in.due_at <= now:
        turn, news = turn_of(check_in, now), None
        if turn.told is not None:
            if is_gone(agent):
                _miss(db, check_in, agent, now)
                break
            news = look(agent, check_in.seen) if look and check_in.if_changed else None
        done = _settle(db, check_in, agent, turn, news, now)
        if done is None:  # somebody else has fired or cancelled it
            break
        fired, check_in = fired + done, get(db, check_in.id)
    return fired


def turn_of(check_in: CheckIn, now: int) -> Turn:
    """What becomes of a check-in that is due, by its times alone."""
    return occurrences.turn(
        check_in, after=lambda at: _after(check_in, at), newest=lambda at: _newest(check_in, at), now=now
    )


def _after(check_in: CheckIn, at: int) -> int | None:
    if check_in.cron is not None:
        return cron.after(check_in.cron, at)
    if check_in.interval_minutes is not None:
        return occurrences.on_grid(check_in.planned_at, check_in.interval_minutes, at)
    return None


def _newest(check_in: CheckIn, at: int) -> int | None:
    """From which occurrence on there are about as many before `at` as are caught up with."""
    if check_in.interval_minutes is not None:
        return at - MOST_CAUGHT_UP * check_in.interval_minutes * MINUTE_MS
    assert check_in.cron is not None
    found = cron.before(check_in.cron, at, number=MOST_CAUGHT_UP)
    # What the line says backwards may differ in the hour of a change: forwards is what counts.
    return cron.after(check_in.cron, found - 1) if found is not None else None


def _settle(
    db: sqlite3.Connection, check_in: CheckIn, agent: Agent, turn: Turn, news: News | None, now: int
) -> int | None:
    """Do what was decided, in one transaction. Returns whether it was told; None when it was not ours any more."""
    with writing(db):
        left, told, why = list(turn.left), turn.told, None
        if told is not None and (why := _why_skipped(db, check_in, news)):
            left.append(Left(why, turn.stands_for))
            told = None
        if not _claim(db, check_in, turn, told, left, news, now):
            return None
        for one in left:
            _tell(db, "check_in.skipped", agent, now, check_in=check_in.id, reason=one.reason, count=one.count)
        if told is None:
            _note(db, check_in, turn, why, now)
            return 0
        late_ms = max(0, now - occurrences.due_at(check_in.id, told, check_in.jitter_seconds))
        body = f"Check-in{lateness(late_ms)}: {check_in.note}{f'{_NEWS}{news.text}' if news else ''}"
        message = messages.queue(db, agent, body, sender=SENDER, kind=MessageKind.CHECK_IN, now=now)
        _tell(
            db,
            "check_in.fired",
            agent,
            now,
            check_in=check_in.id,
            message_id=message.id,
            late_ms=late_ms,
            stands_for=turn.stands_for,
        )
        _note(db, check_in, turn, why, now)
    return 1


def _note(db: sqlite3.Connection, check_in: CheckIn, turn: Turn, why_skipped: str | None, now: int) -> None:
    """Keep what has become of a check-in, and by what; the zone only where its times depend on one."""
    fields = {name: getattr(check_in, name) for name in _DECISIVE}
    zone = cron.offset_minutes(check_in.planned_at) if check_in.cron else None
    given = {"check_in": fields, "why_skipped": why_skipped, "zone_minutes": zone, "now": now}
    decisions.note(db, "check_in", given, as_decided(turn, why_skipped), now=now)


def as_decided(turn: Turn, why_skipped: str | None) -> dict[str, Any]:
    """What was decided of a check-in, as JSON has it."""
    left = [[one.reason, one.count] for one in turn.left]
    if turn.told is not None and why_skipped:
        left.append([why_skipped, turn.stands_for])
    return {"told": None if why_skipped else turn.told, "left": left, "next_at": turn.next_at}


def _claim(
    db: sqlite3.Connection,
    check_in: CheckIn,
    turn: Turn,
    told: int | None,
    left: Sequence[Left],
    news: News | None,
    now: int,
) -> bool:
    """Move a check-in on to its next occurrence, or end it. False when it has moved or ended meanwhile."""
    if turn.next_at is None:
        status = CheckInStatus.FIRED if told is not None else CheckInStatus.SKIPPED
        planned_at, due_at = check_in.planned_at, check_in.due_at
    else:
        status, planned_at = CheckInStatus.SCHEDULED, turn.next_at
        due_at = occurrences.due_at(check_in.id, planned_at, check_in.jitter_seconds)
    # What there is to see now was told, or there was nothing of it to tell.
    is_seen = news is not None and (told is not None or (left and left[-1].reason == NOTHING_NEW))
    return bool(
        db.execute(
            "UPDATE check_ins SET status = ?, planned_at = ?, due_at = ?, decided_at = ?, attempts = 0, reason = ?,"
            " fired_at = coalesce(?, fired_at), seen = coalesce(?, seen)"
            " WHERE id = ? AND status = 'scheduled' AND planned_at = ? AND due_at = ?",
            (
                *(status, planned_at, due_at, now, left[-1].reason if left else None),
                *(now if told is not None else None, news.seen if news and is_seen else None),
                *(check_in.id, check_in.planned_at, check_in.due_at),
            ),
        ).rowcount
    )


def _why_skipped(db: sqlite3.Connection, check_in: CheckIn, news: News | None) -> str | None:
    """Why a due check-in is not told now; None when it is."""
    if news is not None and not news.text:
        return NOTHING_NEW
    bodies = messages.pending_bodies(db, check_in.agent_id, MessageKind.CHECK_IN)
    # What stands before the first ": " is only how late it was.
    equal = [body for body in bodies if body.partition(": ")[2].partition(_NEWS)[0] == check_in.note]
    if check_in.catch_up is CatchUp.ALL:
        return MANY_WAIT if len(equal) >= MOST_CAUGHT_UP else None
    if check_in.interval_minutes is not None:
        return STILL_WAITS if bodies else None
    if check_in.cron is not None:
        return STILL_WAITS if equal else None
    return EQUAL_WAITS if equal else None


def _miss(db: sqlite3.Connection, check_in: CheckIn, agent: Agent, now: int) -> None:
    """Note that the agent is gone: look again later, or end as dead."""
    reason, attempt = f"{agent.target} is gone", check_in.attempts + 1
    is_dead = attempt >= TRIES_WHEN_GONE
    with writing(db):
        changed = db.execute(
            "UPDATE check_ins SET status = ?, attempts = ?, due_at = ?, decided_at = ?, reason = ?"
            " WHERE id = ? AND status = 'scheduled' AND planned_at = ? AND due_at = ?",
            (
                *(CheckInStatus.DEAD if is_dead else CheckInStatus.SCHEDULED, attempt),
                *(check_in.due_at if is_dead else now + RETRY_MINUTES * MINUTE_MS, now, reason),
                *(check_in.id, check_in.planned_at, check_in.due_at),
            ),
        ).rowcount
        if changed:
            _tell(db, "check_in.missed", agent, now, check_in=check_in.id, attempt=attempt, reason="agent gone")


def _follow_clock(db: sqlite3.Connection, now: int) -> None:
    """Have what was decided by a clock that was set back since wait no longer than it was to wait then."""
    rows = db.execute(
        f"{_SELECT} WHERE check_ins.status = 'scheduled' AND decided_at > ?", (now + host.CLOCK_SLACK_MS,)
    ).fetchall()
    for check_in in map(_check_in, rows):
        moved = _by_the_new_clock(check_in, now)
        with writing(db):
            changed = db.execute(
                "UPDATE check_ins SET planned_at = ?, due_at = ?, decided_at = ?"
                " WHERE id = ? AND status = 'scheduled' AND decided_at = ?",
                (moved.planned_at, moved.due_at, now, check_in.id, check_in.decided_at),
            ).rowcount
            if changed:
                agent = agents.get(db, check_in.agent_id)
                back_ms = check_in.decided_at - now
                _tell(db, "check_in.moved", agent, now, check_in=check_in.id, clock_went_back_ms=back_ms)


def _by_the_new_clock(check_in: CheckIn, now: int) -> CheckIn:
    """A check-in with its next occurrence as a clock has it that was set back.

    Minutes begin to count again. Of a cron line it is the first time that is not the last one once more: that lies at
    least half as far off as the next one did.
    """
    shift = now - check_in.decided_at
    planned_at: int | None = check_in.planned_at + shift
    if check_in.cron is not None and not check_in.attempts:
        planned_at = cron.after(check_in.cron, now + max(0, check_in.planned_at - check_in.decided_at) // 2)
    if planned_at is None or check_in.attempts:
        return replace(check_in, planned_at=check_in.planned_at + shift, due_at=check_in.due_at + shift)
    due_at = occurrences.due_at(check_in.id, planned_at, check_in.jitter_seconds)
    return replace(check_in, planned_at=planned_at, due_at=due_at)


def lateness(late_ms: int) -> str:
    """` (2 h 5 min late)`, or nothing below a minute."""
    minutes = late_ms // MINUTE_MS
    if minutes < 1:
        return ""
    hours, minutes = divmod(minutes, 60)
    return f" ({f'{hours} h ' if hours else ''}{minutes} min late)"


def revive(db: sqlite3.Connection, agent_id: int) -> None:
    """Take up the check-ins that an agent has missed while it was gone; call it in the transaction that brings it back.

    Those that died come again, and those that were to be tried later are due now.
    """
    db.execute(
        "UPDATE check_ins SET due_at = decided_at, attempts = 0, reason = NULL"
        " WHERE agent_id = ? AND status = 'scheduled' AND attempts > 0",
        (agent_id,),
    )
    db.execute(
        "UPDATE OR IGNORE check_ins SET status = 'scheduled', attempts = 0, reason = NULL"
        " WHERE agent_id = ? AND status = 'dead'",
        (agent_id,),
    )


# -- figures --


@dataclass(frozen=True)
class Figures:
    """What has become of check-ins since a time: how many fired, and for how many occurrences; what was left out, by
    reason; how often an agent was gone; how late those that fired were (milliseconds, in order)."""

    fired: int
    stood_for: int
    skipped: dict[str, int]
    missed: dict[str, int]
    late_ms: tuple[int, ...]

    def lateness_at(self, share: float) -> int | None:
        """The lateness that this share of those that fired kept to; None when none has fired."""
        if not self.late_ms:
            return None
        return self.late_ms[max(0, math.ceil(share * len(self.late_ms)) - 1)]


def figures(db: sqlite3.Connection, *, since: int) -> Figures:
    """The figures since a time (UTC milliseconds)."""
    rows = db.execute(
        "SELECT kind, data FROM events WHERE kind IN ('check_in.fired', 'check_in.skipped', 'check_in.missed')"
        " AND at >= ?",
        (since,),
    )
    fired: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for kind, data in ((row["kind"], json.loads(row["data"])) for row in rows):
        match kind:
            case "check_in.fired":
                fired.append(data)
            case "check_in.skipped":
                skipped[data["reason"]] += data["count"]
            case _:
                missed[data["reason"]] += 1
    return Figures(
        fired=len(fired),
        stood_for=sum(data["stands_for"] for data in fired),
        skipped=dict(skipped.most_common()),
        missed=dict(missed.most_common()),
        late_ms=tuple(sorted(data["late_ms"] for data in fired)),
    )


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    message_id = data.pop("message_id", None)
    record(
        db,
        kind,
        now=now,
        orchestration=agent.orchestration_id,
        agent=agent.id,
        message=message_id if isinstance(message_id, int) else None,
        **data,
    )


def _check_in(row: sqlite3.Row) -> CheckIn:
    return CheckIn(
        id=row["id"],
        agent_id=row["agent_id"],
        target=row["target"],
        note=row["note"],
        planned_at=row["planned_at"],
        due_at=row["due_at"],
        decided_at=row["decided_at"],
        interval_minutes=row["interval_minutes"],
        cron=row["cron"],
        catch_up=CatchUp(row["catch_up"]),
        deadline_minutes=row["deadline_minutes"],
        jitter_seconds=row["jitter_seconds"],
        if_changed=bool(row["if_changed"]),
        seen=row["seen"],
        status=CheckInStatus(row["status"]),
        attempts=row["attempts"],
        reason=row["reason"],
        fired_at=row["fired_at"],
    )
