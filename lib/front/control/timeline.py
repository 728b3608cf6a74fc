"""Verbs that look back: timeline, moment."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lib import history, host, orchestrations, store
from lib.errors import NotFound, Usage
from lib.front import cli, times
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller
from lib.models import Event, Orchestration

if TYPE_CHECKING:
    from lib.moments import AgentThen, Difference, MessageThen, Moment, Screen, TeamThen
    from lib.recordings import Reader

#: How far back a timeline of all teams begins when nothing else is said.
_DAY_MS = 24 * 3600 * 1000


@cli.verb(
    main,
    examples="""
    claude_control.py timeline
    claude_control.py timeline webapp-impl --since 2h
    claude_control.py timeline webapp-impl --since 14:00 --until 14:30 --json
    """,
)
@click.argument("session", required=False)
@click.option("--since", metavar="TIME", help=f"{times.FORMS} (default: a day ago; of one team its beginning).")
@click.option("--until", metavar="TIME", default="now", help="The same (default: now).")
@click.option("--limit", type=click.IntRange(1), default=500, metavar="COUNT", help="The newest of them (default 500).")
@cli.pass_output
def timeline(output: Output, session: str | None, since: str | None, until: str, limit: int) -> None:
    """Show what has happened, of all teams or of one: a line for each event that a person can read.

    With --json all events are there, also those that are only of use to a program.
    """
    desk, now = caller(), host.now_ms()
    team = _team(desk, session)
    begin = times.time_of(since, now=now) if since else team.created_at - 1 if team else now - _DAY_MS
    end = times.time_of(until, now=now)
    if begin >= end:
        raise Usage(f"--since ({times.full(begin)}) must be before --until ({times.full(end)})")
    only = team.id if team else None
    found = store.between(desk.db, begin, end, orchestration=only, limit=limit)
    left_out = 0 if len(found) < limit else store.count_between(desk.db, begin, end, orchestration=only) - len(found)
    told = [(event, history.sentence(desk.db, event)) for event in found]
    sessions = _sessions(desk, found)
    data = [_event_data(event, text, sessions) for event, text in told] if output.json else []
    lines = list(_event_lines(told, {} if team else sessions))
    if left_out:
        lines.insert(0, f"{left_out:,} earlier events are left out: --limit {len(found) + left_out}")
    output.answer(
        "\n".join(lines) or "nothing happened", {"since": begin, "until": end, "left_out": left_out, "events": data}
    )


@cli.verb(
    main,
    examples="""
    claude_control.py moment --at 14:05
    claude_control.py moment webapp-impl --at 10m --screens
    claude_control.py moment webapp-impl --at 2h --compare now
    """,
)
@click.argument("session", required=False)
@click.option("--at", metavar="TIME", help=f"{times.FORMS}.")
@click.option("--compare", metavar="TIME", help="Show only what has changed between the two.")
@click.option("--screens", is_flag=True, help="With what each window showed; compared, with the lines that changed.")
@click.option(
    "--window",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    metavar="MINUTES",
    help="How long before that messages and events are shown (default 10).",
)
@cli.pass_output
def moment(
    output: Output, session: str | None, at: str | None, compare: str | None, screens: bool, window: float
) -> None:
    """Show teams as they were at a time: what each agent did, messages, events, criteria and screens.

    A screen that was not recorded is another thing than a blank one. docs/timeline.md says what is recorded.
    """
    from lib import moments  # noqa: PLC0415 - the verbs beside these need it not

    if at is None:
        raise Usage("say when", hint="claude_control.py moment --at 10m")
    desk, now = caller(), host.now_ms()
    team = _team(desk, session)
    wanted = [_past(text, now) for text in (at, compare) if text is not None]
    with _recording(desk) as recording:
        seen = [moments.look(desk.db, recording, one, since=one - round(window * 60_000), team=team) for one in wanted]
    if compare is None:
        output.answer(_moment_text(desk, seen[0], now, with_screens=screens), _moment_data(desk, seen[0], screens))
        return
    changed = moments.compare(desk.db, *seen, team=team)
    output.answer(_difference_text(desk, changed, with_screens=screens), _difference_data(desk, changed, screens))


def _team(desk: Caller, session: str | None) -> Orchestration | None:
    """The newest team of a session, or the one of this id; None for all teams."""
    if session is None:
        return None
    found = orchestrations.named(desk.db, session)
    if not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    return found[-1]


def _past(text: str, now: int) -> int:
    at = times.time_of(text, now=now)
    if at > now:
        raise Usage(f"{times.full(at)} has not come yet")
    return at


@contextlib.contextmanager
def _recording(desk: Caller) -> Iterator[Reader | None]:
    from lib import recordings  # noqa: PLC0415 - as above

    found = recordings.reader(desk.home)
    try:
        yield found
    finally:
        if found:
            found.close()


# -- events --


def _sessions(desk: Caller, found: list[Event]) -> dict[str, str]:
    ids = {event.orchestration_id for event in found if event.orchestration_id}
    return {one.id: one.session for one in orchestrations.every(desk.db) if one.id in ids}


def _event_lines(told: list[tuple[Event, str | None]], sessions: dict[str, str]) -> Iterator[str]:
    """A line for each event, with a line before the first one of each day."""
    width, day = max((len(name) for name in sessions.values()), default=0), ""
    for event, text in told:
        if text is None:
            continue
        then = datetime.fromtimestamp(event.at / 1000)
        if f"{then:%Y-%m-%d}" != day:
            day = f"{then:%Y-%m-%d}"
            yield day
        who = f"{sessions.get(event.orchestration_id or '', ''):{width}}  " if width else ""
        yield f"  {then:%H:%M:%S}  {who}{text}"


def _event_data(event: Event, text: str | None, sessions: dict[str, str]) -> dict[str, Any]:
    return {**vars(event), "session": sessions.get(event.orchestration_id or ""), "text": text}


# -- a moment --


def _moment_text(desk: Caller, one: Moment, now: int, *, with_screens: bool) -> str:
    from lib.status import ago  # noqa: PLC0415 - as in `moment`

    lines = [f"{times.full(one.at)}, {ago(now - one.at)} ago"]
    for team in one.teams:
        lines += ["", *_team_lines(team, one.at)]
    if not one.teams:
        lines += ["", "no team was there"]
    minutes = f"{(one.at - one.since) / 60_000:g} minutes before"
    if one.messages:
        lines += ["", f"messages of the {minutes}", *map(_message_line, one.messages)]
    told = [(event, history.sentence(desk.db, event)) for event in one.events]
    if any(text for _, text in told):
        lines += ["", f"events of the {minutes}", *_event_lines(told, _sessions(desk, list(one.events)))]
    if with_screens:
        for agent in (agent for team in one.teams for agent in team.agents):
            lines += ["", *_screen_lines(agent)]
    return "\n".join(lines)


def _team_lines(team: TeamThen, at: int) -> Iterator[str]:
    yield f"{team.session}: {team.status}{', paused by hand' if team.is_paused else ''}  {_line(team.title)}"
    if team.criteria:
        yield "  criteria  " + ", ".join(f"{one.id} {one.state}" for one in team.criteria)
    for agent in team.agents:
        yield f"  {agent.window:>2} {agent.role:20} {agent.state or 'unknown':9}  {_screen_note(agent.screen, at)}"


def _screen_note(screen: Screen, at: int) -> str:
    from lib.status import ago  # noqa: PLC0415 - as in `moment`

    if screen.since is None:
        return "screen not recorded"
    if screen.picture is None:
        return "no window"
    kind = "screen" if screen.picture.text else "blank screen"
    return f"{kind} unchanged for {ago(at - screen.since)}"


def _message_line(one: MessageThen) -> str:
    found = one.message
    first = next((line for line in found.body.splitlines() if line.strip()), "")
    who = f"{_line(found.sender)} -> {one.target}"
    return f"  {found.id:>5}  {_clock(found.queued_at)}  {one.status:12}  {who:40}  {_line(first)[:60]}"


def _screen_lines(agent: AgentThen) -> list[str]:
    picture = agent.screen.picture
    size = f", {picture.columns}x{picture.rows}" if picture else ""
    since = f", since {times.full(agent.screen.since)}" if agent.screen.since is not None else ""
    if picture is None:
        return [f"== {agent.target}: {agent.screen.known}{since}"]
    return [f"== {agent.target}{since}{size}", _shown(picture.text) if picture.text else "(blank)"]


def _shown(text: str) -> str:
    """A recorded screen: with its colours on a terminal, which has its own back afterwards, and without elsewhere."""
    from lib.judgement import cleaning  # noqa: PLC0415 - as in `moment`

    return f"{cleaning.coloured(text)}\x1b[0m" if sys.stdout.isatty() else cleaning.uncoloured(text)


def _line(text: str) -> str:
    from lib.judgement import cleaning  # noqa: PLC0415 - as in `moment`

    return cleaning.one_line(text)


def _clock(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%H:%M:%S")


def _moment_data(desk: Caller, one: Moment, with_screens: bool) -> dict[str, Any]:
    sessions = _sessions(desk, list(one.events))
    teams = [asdict(team) for team in one.teams]
    for agent in (agent for team in teams for agent in team["agents"]):
        if not with_screens and agent["screen"]["picture"]:
            agent["screen"]["picture"].pop("text")
    return {
        **{"at": one.at, "since": one.since, "teams": teams},
        "messages": [{**vars(each.message), "target": each.target, "status": each.status} for each in one.messages],
        "events": [_event_data(event, history.sentence(desk.db, event), sessions) for event in one.events],
    }


# -- two moments --


def _difference_text(desk: Caller, one: Difference, *, with_screens: bool) -> str:
    lines = [f"from {times.full(one.since)} to {times.full(one.until)}"]
    for title, changes in (("teams", one.teams), ("agents", one.agents), ("criteria", one.criteria)):
        if changes:
            lines += ["", title]
            lines += [f"  {each.name:32}  {each.before or 'unknown'} -> {each.after or 'unknown'}" for each in changes]
    if one.messages:
        lines += ["", "messages"]
        lines += [f"{_message_line(each)}{f'  (was {was})' if was else ''}" for each, was in one.messages]
    if one.commits:
        lines += ["", "commits"]
        lines += _event_lines([(event, history.sentence(desk.db, event)) for event in one.commits], {})
    for screen in one.screens:
        lines += ["", f"== {screen.target}: {screen.before} -> {screen.after}"] if with_screens else []
        lines += (screen.diff or ["only colours have changed"]) if with_screens else []
    if one.screens and not with_screens:
        lines += ["", f"screens that changed: {', '.join(each.target for each in one.screens)} (--screens shows how)"]
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}: nothing has changed"


def _difference_data(desk: Caller, one: Difference, with_screens: bool) -> dict[str, Any]:
    found = asdict(one)
    sessions = _sessions(desk, list(one.commits))
    found["messages"] = [
        {**vars(each.message), "target": each.target, "status": each.status, "before": was}
        for each, was in one.messages
    ]
    found["commits"] = [_event_data(event, history.sentence(desk.db, event), sessions) for event in one.commits]
    for screen in found["screens"] if not with_screens else ():
        screen.pop("diff")
    return found
