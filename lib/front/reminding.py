"""What the check-in forms of scheduler.py do and print."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lib import agents, checkins, host, news, orchestrations, service, store
from lib.checkins import Terms
from lib.errors import NotFound, Usage
from lib.front.cli import Output
from lib.judgement import cleaning
from lib.judgement.occurrences import MINUTE_MS
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, CatchUp, CheckIn, CheckInStatus
from lib.records import dataclass
from lib.status import ago
from lib.tmux import Tmux

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Options:
    """When and on what terms a check-in is to be told, as a person has asked for it."""

    recurring: bool = False
    cron: str | None = None
    catch_up: str | None = None
    deadline: int | None = None
    jitter: int = 0
    if_changed: bool = False

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, False, 0)]


def add(output: Output, home: Path, words: Sequence[str], options: Options) -> None:
    """SESSION ROLE WINDOW MINUTES NOTE: the role is the address; the window only helps when there is no role.

    A cron line takes the place of MINUTES.
    """
    if len(words) != (4 if options.cron is not None else 5):
        raise Usage(
            "--add takes SESSION ROLE WINDOW MINUTES NOTE, and with --cron LINE the same without MINUTES",
            hint='scheduler.py --add webapp-impl developer 1 30 "Commit what you have"',
        )
    session, role, window, *minutes, note = words
    db, tmux = store.connect(home), Tmux.from_environment()
    try:
        agent = agents.resolve(db, tmux, f"{session}:{role}")
    except NotFound:
        if not window.isdecimal() or role:
            raise
        agent = agents.resolve(db, tmux, f"{session}:{window}")
    _schedule(output, home, agent, note, minutes, options)


def add_note(output: Output, home: Path, words: Sequence[str], options: Options) -> None:
    """MINUTES NOTE [TARGET]: without a target an agent reminds itself, and a person the orchestrator."""
    minutes, rest = (words[:1], words[1:]) if options.cron is None else ((), words)
    if not 1 <= len(rest) <= 2:
        raise Usage(
            "it takes MINUTES NOTE [TARGET], and with --cron LINE the same without MINUTES",
            hint='schedule_with_note.sh 30 "Review the auth work" webapp-impl:0',
        )
    note, *target = rest
    db, tmux = store.connect(home), Tmux.from_environment()
    sender = agents.myself(db, tmux)
    if target:
        agent = agents.resolve(db, tmux, target[0], sender=sender)
    elif sender:
        agent = sender
    else:
        team = agents.of_orchestration(db, agents.team_of(db, None, None))
        agent = next((mate for mate in team if mate.role == ORCHESTRATOR), team[0])
    _schedule(output, home, agent, note, minutes, options)


def _schedule(output: Output, home: Path, agent: Agent, note: str, minutes: Sequence[str], options: Options) -> None:
    for word in minutes:
        # isdecimal: what isdigit takes, such as ², int does not; nor does it take thousands of digits.
        if not word.isdecimal() or len(word) > 9:
            raise Usage(f"MINUTES must be a whole number of at most 9 digits, not {word!r}")
    db, now = store.connect(home), host.now_ms()
    terms = Terms(
        catch_up=CatchUp(options.catch_up) if options.catch_up else None,
        deadline_minutes=options.deadline,
        jitter_seconds=options.jitter,
        if_changed=options.if_changed,
        seen=news.Looking(db).seen(agent) if options.if_changed else None,
    )
    with store.writing(db):
        made = checkins.add(
            db,
            agent.id,
            cleaning.clean(note),
            now=now,
            minutes=int(minutes[0]) if minutes else None,
            recurring=options.recurring,
            cron_line=options.cron,
            terms=terms,
        )
        orchestrations.check_takes_notes(db, agent)
    output.answer(f"check-in {made.id} for {made.target} {rhythm(made, now=now)}", vars(made))
    if sentence := service.ensure(home):
        output.say(sentence)


def rhythm(check_in: CheckIn, *, now: int) -> str:
    """When a check-in that was just made comes, in words."""
    if check_in.cron is not None:
        text = f"at {check_in.cron!r}, the next {_local(check_in.planned_at)}"
    elif check_in.interval_minutes is not None:
        text = f"every {check_in.interval_minutes} minutes"
    else:
        text = f"in {(check_in.planned_at - now) // MINUTE_MS} minutes"
    return f"{text}, if there is something new" if check_in.if_changed else text


def remove(output: Output, home: Path, check_in_id: int) -> None:
    """Cancel a check-in."""
    gone = checkins.remove(store.connect(home), check_in_id, now=host.now_ms())
    output.answer(f"removed check-in {gone.id} for {gone.target}", vars(gone))


def show_list(output: Output, home: Path) -> None:
    """The check-ins to come, and those that died."""
    found = checkins.scheduled(store.connect(home))
    lines = [_line("id", "next", "how", "agent", "note"), *map(_row, found)] if found else ["no check-in is scheduled"]
    output.answer("\n".join(lines), [vars(check_in) for check_in in found])


def _row(check_in: CheckIn) -> str:
    if check_in.status is CheckInStatus.DEAD:
        when, how = "dead", "its agent is gone"
    else:
        when = _local(check_in.due_at)
        how = f"every {check_in.interval_minutes} min" if check_in.interval_minutes else check_in.cron or "once"
        how += ", if changed" if check_in.if_changed else ""
    return _line(check_in.id, when, how, check_in.target, check_in.note.splitlines()[0])


def _line(number: object, when: str, how: str, target: str, note: str) -> str:
    """A line that fits 100 columns."""
    return f"{number:>4}  {when:16}  {how:24.24}  {target:24.24}  {note:.24}".rstrip()


def _local(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")


# -- how punctual it is --


def as_status(db: sqlite3.Connection, *, now: int) -> tuple[list[str], dict[str, object]]:
    """What `scheduler.py --status` tells of check-ins: lines and data."""
    found = checkins.scheduled(db)
    coming = [one for one in found if one.status is CheckInStatus.SCHEDULED]
    dead = len(found) - len(coming)
    day = checkins.figures(db, since=now - DAY_MS)
    due = coming[0].due_at if coming else None
    text = f"check-ins: {len(coming)} scheduled" if coming else "check-ins: none is scheduled"
    if due is not None:
        text += f", the next in {ago(due - now)}" if due > now else f", the next {ago(now - due)} overdue"
    lines = [text + (f"; {dead} dead: scheduler.py --list" if dead else "")]
    lines.append(f"  last 24 h: {day.fired} fired, {_counts(day.skipped, 'skipped')}, {_counts(day.missed, 'missed')}")
    late = {name: day.lateness_at(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
    if day.late_ms:
        lines.append("  late by: " + ", ".join(f"{name} {_duration(value or 0)}" for name, value in late.items()))
    data: dict[str, object] = {
        **{"scheduled": len(coming), "dead": dead, "next_due_at": due},
        "last_24_h": {
            **{"fired": day.fired, "stood_for": day.stood_for, "skipped": day.skipped, "missed": day.missed},
            "lateness_ms": late,
        },
    }
    return lines, data


def _counts(counts: dict[str, int], what: str) -> str:
    reasons = ", ".join(f"{reason} {number}" for reason, number in counts.items())
    return f"{sum(counts.values())} {what}{f' ({reasons})' if reasons else ''}"


def _duration(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds < 10_000 else ago(milliseconds)
