"""The verb that writes a report: report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib import host
from lib.errors import NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.costs import dollars
from lib.front.control.desk import caller
from lib.front.control.handovers import answered_words, lane_data, told_words, why_none
from lib.models import DeliveryStatus, Program

if TYPE_CHECKING:
    from lib.criteria import Criterion
    from lib.dossier import Dossier
    from lib.judgement.durations import LaneTimes
    from lib.judgement.prices import Bill

_ENDINGS = (".md", ".html")
#: Where the pictures' time begins and ends, in their units, and how high an agent's lane and the bars are.
_LEFT, _RIGHT, _LANE, _BARS = 170.0, 890.0, 28, 100.0
_WORDS = {
    "told": ("message arrived", "messages arrived"),
    "reported": ("completion reported", "completions reported"),
    "merged": ("commit merged", "commits merged"),
    "trouble": ("trouble", "troubles"),
}


@cli.verb(
    main,
    examples="""
    claude_control.py report
    claude_control.py report --output status-report.md
    claude_control.py report webapp-impl --output report.html
    """,
)
@click.argument("session", required=False)
@click.option("--output", "path", type=click.Path(path_type=Path), metavar="FILE", help="Write it: .md or .html.")
@cli.pass_output
def report(output: Output, session: str | None, path: Path | None) -> None:
    """Write what teams have done: time, messages, costs, commits and every event that matters.

    Of the team in SESSION, or of all that are live or ended within a day. HTML has pictures, and needs no network.
    """
    from lib import dossier, templates  # noqa: PLC0415 - the verbs beside this one need them not

    file = host.working_folder() / path.expanduser() if path else None
    if file and file.suffix not in _ENDINGS:
        raise Usage(f"{file}: a report is written as .md or .html")
    db, now = caller().db, host.now_ms()
    found = dossier.named(db, session, now=now)
    if session and not found:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    dossiers = [_told(dossier.of(db, one, now=now)) for one in found]
    made = _time(now)
    if file:
        _write(file, templates.page(f"report{file.suffix}", made=made, dossiers=dossiers))
        output.answer(f"written to {file}", {"file": str(file), "made": now, "teams": dossiers})
    else:
        text = templates.page("report.md", made=made, dossiers=dossiers)
        output.answer(text.rstrip("\n"), {"file": None, "made": now, "teams": dossiers})


def _write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _time(at: int, how: str = "%Y-%m-%d %H:%M") -> str:
    return datetime.fromtimestamp(at / 1000).strftime(how)


def _told(one: Dossier) -> dict[str, Any]:
    """A dossier in the words and places of a report."""
    from lib import criteria  # noqa: PLC0415 - as in `report`
    from lib.dossier import MOST_COMMITS  # noqa: PLC0415 - as in `report`
    from lib.status import ago  # noqa: PLC0415 - as in `report`

    team = one.team
    return {
        "session": team.session,
        "title": team.title,
        "status": team.status.replace("_", " "),
        "is_rehearsal": team.program == Program.REHEARSAL,
        "outcome": team.outcome,
        "project": team.project,
        "spec": team.spec,
        "since": _time(team.created_at),
        "until": _time(one.until),
        "took": ago(one.took),
        "work": _work(one),
        "spent": _spent(one.total, team.program),
        "messages": _messages(one),
        "criteria_counts": _sentence(str(criteria.count(one.criteria)) if one.criteria else "its spec has no criteria"),
        "criteria": [_criterion(found) for found in one.criteria],
        "handovers": [_lane(lane) for lane in one.lanes],
        "no_handovers": _sentence(why_none(one.lanes)),
        "agents": list(_agents(one)),
        "commits": [{"id": commit.id, "subject": commit.subject} for commit in one.commits[:MOST_COMMITS]],
        "more_commits": max(0, len(one.commits) - MOST_COMMITS),
        "commits_unseen": one.commits_unseen,
        "story": [
            {"at": entry.at, "time": _time(entry.at, "%Y-%m-%d %H:%M:%S"), "text": entry.text} for entry in one.story
        ],
        "left_out": one.left_out,
        "bars": list(_bars(one)),
        "most": f"{max(one.spent_parts):,.2f} $",
    }


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _work(one: Dossier) -> str:
    team = one.team
    if team.delivery_outcome:
        return team.delivery_outcome
    if team.delivery == DeliveryStatus.DUE:
        return "on its way to the starting branch"
    return f"brought together on {team.integration_branch}"


def _spent(bill: Bill, program: str) -> str:
    from lib.judgement.prices import short  # noqa: PLC0415 - as in `report`

    if program == Program.REHEARSAL:
        return "nothing: no model was asked"
    return f"{dollars(bill)} US dollars at list prices, {short(bill.usage.tokens)} tokens in {bill.answers} answers"


def _criterion(one: Criterion) -> dict[str, Any]:
    from lib import criteria  # noqa: PLC0415 - as in `report`

    shown = one.closing or one.last
    return {
        **{"id": one.id, "text": one.text, "state": one.state, "check": one.command},
        "exit_code": one.last.exit_code if one.last and not one.closing else None,
        "commit": shown.commit if shown else None,
        **{"at": shown.at if shown else None, "time": _time(shown.at) if shown else ""},
        "closed_by": one.closing.by if one.closing else None,
        "reason": one.closing.reason if one.closing else None,
        "evidence": criteria.evidence(one, when=_time),
    }


def _lane(one: LaneTimes) -> dict[str, Any]:
    return {**lane_data(one), "told_words": told_words(one), "answered_words": answered_words(one)}


def _messages(one: Dossier) -> str:
    found = one.traffic
    arrived = sum(found.arrived.values())
    failed = f", {found.failed} failed" if found.failed else ""
    if found.took.median is None:
        return f"none arrived{failed}"
    within, after = found.took.median, found.took.longest
    return f"{arrived} arrived, half of them within {within:g} s, the slowest after {after:g} s{failed}"


def _agents(one: Dossier) -> Iterator[dict[str, Any]]:
    from lib import status  # noqa: PLC0415 - as in `report`

    is_rehearsal = one.team.program == Program.REHEARSAL
    for place, agent in enumerate(one.team.agents):
        bill = one.bills.get(agent.role)
        yield {
            "role": agent.role,
            "state": agent.state,
            "reported": agent.reported,
            "messages": one.traffic.arrived.get(agent.role, 0),
            "spent": "" if is_rehearsal or bill is None else dollars(bill),
            "notes": ", ".join(note for note in status.notes(agent) if note != "reported done"),
            "marks": list(_marks(one, agent.role, _LANE * place + 16)),
        }


def _marks(one: Dossier, role: str, y: int) -> Iterator[dict[str, Any]]:
    for mark in one.marks:
        if mark.role == role:
            # Of several in one place the rarer kinds lie above, and all can be seen.
            radius = {"told": 4 + min(4, mark.count / 4), "trouble": 4}.get(mark.kind, 3.5)
            words = f"{mark.count} {_WORDS[mark.kind][mark.count != 1]}"
            x, _ = _span(mark.part)
            yield {"kind": mark.kind, "x": round(x, 1), "y": y, "r": round(radius, 1), "title": words}


def _bars(one: Dossier) -> Iterator[dict[str, Any]]:
    most = max(one.spent_parts)
    for part, usd in enumerate(one.spent_parts):
        if usd:
            x, width = _span(part)
            height = _BARS * usd / most
            yield {
                **{"x": round(x - width / 2 + 1, 1), "y": round(110 - height, 1)},
                **{"width": round(width - 2, 1), "height": round(height, 1), "title": f"{usd:,.4f} $"},
            }


def _span(part: int) -> tuple[float, float]:
    """The middle of a part of the time in the pictures, and how wide it is."""
    from lib.dossier import PARTS  # noqa: PLC0415 - as in `report`

    width = (_RIGHT - _LEFT) / PARTS
    return _LEFT + (part + 0.5) * width, width
