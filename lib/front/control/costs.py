"""Verbs about what the work costs: costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lib import host
from lib.errors import NotFound
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller
from lib.front.control.mail import clock
from lib.front.times import time_of
from lib.records import dataclass

if TYPE_CHECKING:
    from lib.judgement.prices import Bill
    from lib.models import Orchestration
    from lib.spending.ledger import Spent

_LONGEST_NAME = 33


def _day(one: Spent) -> str:
    return datetime.fromtimestamp(one.quarter / 1000).strftime("%Y-%m-%d")


#: By what costs are added up.
BY: dict[str, Callable[[Spent], str]] = {
    "agent": lambda one: f"{one.session}:{one.role}",
    "role": lambda one: one.role,
    "day": _day,
    "model": lambda one: one.item.sort.model,
}


@dataclass(frozen=True)
class Found:
    """What the table shows: a bill for each name, the bill of all, and what else has to be said."""

    bills: dict[str, Bill]
    total: Bill
    notes: list[str]


@cli.verb(
    main,
    examples="""
    claude_control.py costs
    claude_control.py costs webapp-impl --by role
    claude_control.py costs --by day --since 7d --json
    """,
)
@click.argument("session", required=False)
@click.option("--by", type=click.Choice(list(BY)), default="agent", help="A line for each of these (default agent).")
@click.option("--since", metavar="TIME", help="1d, 2h, 30m, or an ISO time; rounded to a quarter of an hour.")
@cli.pass_output
def costs(output: Output, session: str | None, by: str, since: str | None) -> None:
    """Show what agents have used, in tokens and at list prices, and how much of it was supervision.

    SESSION is a team's session or id; of several teams of one session the newest. docs/costs.md says what is counted.
    """
    desk, now = caller(), host.now_ms()
    team = _team(desk, session) if session else None
    start = time_of(since, now=now) if since else 0
    found = look(desk, team, by, start, now)
    output.answer("\n".join(_lines(found, _title(team, start), by)), as_data(found, by, team))


def _team(desk: Caller, session: str) -> Orchestration:
    from lib import orchestrations  # noqa: PLC0415 - the verbs beside this one need it not

    named = orchestrations.named(desk.db, session)
    if not named:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    return named[-1]


def look(desk: Caller, team: Orchestration | None, by: str, since: int, now: int) -> Found:
    """What was spent since a time (UTC milliseconds), of a team or of all, a bill for each name `by`."""
    from lib import analysis, templates  # noqa: PLC0415 - the verbs beside this one need them not
    from lib.judgement import prices  # noqa: PLC0415 - the verbs beside this one need them not
    from lib.spending import growth, ledger  # noqa: PLC0415 - the verbs beside this one need them not

    team_id = team.id if team else None
    is_all = ledger.catch_up(desk.db, now=now)
    price_list, rows = templates.price_list(), defaultdict(list)
    everything = ledger.spent(desk.db, orchestration=team_id, since=since)
    for one in everything:
        rows[BY[by](one)].append(one.item)
    total = prices.bill(price_list, [one.item for one in everything])
    notes = [
        f"no price known for {model}: {prices.short(count)} tokens" for model, count in sorted(total.unpriced.items())
    ]
    skipped, summaries = growth.uncounted(desk.db, orchestration=team_id)
    notes += [f"{skipped} lines of transcripts could not be counted"] if skipped else []
    notes += [f"{summaries} times a conversation was summarised: what that used is told nowhere"] if summaries else []
    if before := analysis.cost(desk.db, orchestration=team_id, since=since):
        notes.append(f"analyses before launches cost ${before:.2f} more, which no budget counts")
    notes += _of_fleet(desk, now) if team is None else []
    if not is_all:
        notes.append("transcripts are still being counted: the scheduler goes on with them")
    return Found({name: prices.bill(price_list, rows[name]) for name in sorted(rows)}, total, notes)


def _of_fleet(desk: Caller, now: int) -> list[str]:
    """What all hosts of a fleet have spent on the accounts of this one, beside what this machine has."""
    from lib.fleet import views  # noqa: PLC0415 - as in `look`

    seen = views.look_if_any(desk.db, desk.home, now=now)
    shared = [one for one in seen.accounts if len(one.hosts) > 1 and one.total.tokens] if seen else []
    return [f"in the fleet today (UTC): {one.spent}" for one in shared]


def _title(team: Orchestration | None, since: int) -> str:
    what = f"{team.session} ({team.id})" if team else "all teams"
    return f"{what}, {f'since {clock(since)}' if since else 'since the beginning'}, in US dollars at list prices"


def _lines(found: Found, title: str, by: str) -> list[str]:
    if not found.bills:
        return [title, "nothing was spent by agents" if found.notes else "nothing was spent", *found.notes]
    width = min(_LONGEST_NAME, max(len(by), *map(len, found.bills), len("total")))
    lines = [title, _line(by, width, "answers", "input", "cached", "written", "output", "superv.", "USD")]
    lines += [_bill_line(name, width, one) for name, one in found.bills.items()]
    return [*lines, _bill_line("total", width, found.total), *found.notes]


def _bill_line(name: str, width: int, one: Bill) -> str:
    from lib.judgement.prices import short  # noqa: PLC0415 - as in `look`

    share, used = one.supervision_share, one.usage
    return _line(
        name,
        width,
        str(one.answers),
        *map(short, (used.input, used.cache_read, used.cache_write_5m + used.cache_write_1h, used.output)),
        f"{share:.0%}" if share is not None else "-",
        dollars(one),
    )


def _line(name: str, width: int, *cells: str) -> str:
    shown = name if len(name) <= width else f"{name[: width - 3]}..."
    return f"{shown:{width}}" + "".join(f" {cell:>8}" for cell in cells[:-1]) + f" {cells[-1]:>12}"


def dollars(one: Bill) -> str:
    """What a bill comes to; with a plus when something in it has no price."""
    if one.unpriced and not one.usd:
        return "no price"
    return f"{one.usd:,.2f}{'+' if one.unpriced else ''}"


def as_data(found: Found, by: str, team: Orchestration | None) -> dict[str, Any]:
    """The same for --json."""
    return {
        "by": by,
        "session": team.session if team else None,
        "orchestration": team.id if team else None,
        "rows": [{"name": name, **_bill_data(one)} for name, one in found.bills.items()],
        "total": _bill_data(found.total),
        "notes": found.notes,
    }


def _bill_data(one: Bill) -> dict[str, Any]:
    return {
        "answers": one.answers,
        "tokens": vars(one.usage),
        "usd": round(one.usd, 6),
        "supervision": {
            "tokens": vars(one.supervision),
            "usd": round(one.supervision_usd, 6),
            "share": one.supervision_share,
        },
        "no_price_known": dict(one.unpriced),
    }
