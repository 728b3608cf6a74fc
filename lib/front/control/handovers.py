"""The verb about work that goes from role to role: handovers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lib import host
from lib.errors import NotFound
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lib.judgement.durations import LaneTimes, Took
    from lib.models import Orchestration


@cli.verb(
    main,
    examples="""
    claude_control.py handovers
    claude_control.py handovers webapp-impl --json
    """,
)
@click.argument("session", required=False)
@cli.pass_output
def handovers(output: Output, session: str | None) -> None:
    """Show how long work takes from role to role: from a commit until its taker is told, and until that one goes on.

    Of the team in SESSION, or of all that are live or ended within a day. docs/git.md says what each time means.
    """
    from lib import dossier  # noqa: PLC0415 - the verbs beside this one need them not
    from lib.together import handing_over  # noqa: PLC0415 - as above

    db = caller().db
    teams = dossier.named(db, session, now=host.now_ms())
    if session and not teams:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    found = [(team, handing_over.times(db, team.id)) for team in teams]
    text = "\n".join(line for team, lanes in found for line in _lines(team, lanes))
    output.answer(text or "no team is live, and none has ended within a day", [_data(*one) for one in found])


def _lines(team: Orchestration, lanes: Sequence[LaneTimes]) -> list[str]:
    if nothing := why_none(lanes):
        return [f"{team.session}: {nothing}"]
    lines = [f"{team.session}:"]
    for one in lanes:
        lines.append(f"  {one.role} -> {one.taker}")
        lines += [f"    told      {told_words(one)}", f"    answered  {answered_words(one)}"]
    return lines


def why_none(lanes: Sequence[LaneTimes]) -> str:
    """Why there are no times to show; empty when there are some."""
    if not lanes:
        return "no role of this team hands its work over to another"
    if not any(one.told.count or one.not_arrived for one in lanes):
        return "no hand-over is recorded yet"
    return ""


def told_words(one: LaneTimes) -> str:
    """How long it took until takers were told: `3 times, half within 1.2 s, the slowest after 4.1 s; 1 not arrived`."""
    return _words(one.told) + (f"; {one.not_arrived} not arrived" if one.not_arrived else "")


def answered_words(one: LaneTimes) -> str:
    """How long it took from then until takers committed or reported: `once, after 4 min; 1 not answered`."""
    return _words(one.answered) + (f"; {one.unanswered} not answered" if one.unanswered else "")


def _words(took: Took) -> str:
    if took.median is None or took.longest is None:
        return "never"
    if took.count == 1:
        return f"once, after {_lasting(took.longest)}"
    return f"{took.count} times, half within {_lasting(took.median)}, the slowest after {_lasting(took.longest)}"


def _lasting(seconds: float) -> str:
    """A duration as a person reads it: seconds up to two minutes, then minutes, hours and days."""
    from lib.status import ago  # noqa: PLC0415 - as in `handovers`

    return f"{seconds:g} s" if seconds < 120 else ago(round(seconds * 1000))


def _data(team: Orchestration, lanes: Sequence[LaneTimes]) -> dict[str, Any]:
    return {"session": team.session, "orchestration": team.id, "lanes": [lane_data(one) for one in lanes]}


def lane_data(one: LaneTimes) -> dict[str, Any]:
    """One lane for --json; times in seconds."""
    return {
        **{"role": one.role, "taker": one.taker, "told": vars(one.told), "answered": vars(one.answered)},
        **{"not_arrived": one.not_arrived, "unanswered": one.unanswered},
    }
