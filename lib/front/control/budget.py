"""Verbs about what a team may spend: budget."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from lib import agents, host
from lib.errors import NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller, ensure_scheduler
from lib.models import Budget, BudgetPer, BudgetUnit

if TYPE_CHECKING:
    from lib.models import Orchestration

_ACTIONS = ("set", "show", "extend", "remove")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_MOST_USD = 1_000_000.0


def token_count(text: str) -> int:
    """A number of tokens as people write it: 5M, 1.5M, 800k, 20000. Raises `Usage`."""
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kmg]?)", text.lower())
    count = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not 0 < count < 10**15:
        raise Usage(f"--tokens is a number such as 5M or 800k, not {text!r}")
    return count


@cli.verb(
    main,
    examples="""
    claude_control.py budget show
    claude_control.py budget set webapp-impl --usd 20
    claude_control.py budget set webapp-impl --tokens 5M --per day
    claude_control.py budget set webapp-impl --usd 8 --role developer
    claude_control.py budget extend webapp-impl --usd 10
    claude_control.py budget remove webapp-impl --per day
    """,
)
@click.argument("action", metavar="|".join(_ACTIONS))
@click.argument("session", metavar="[SESSION]", required=False)
@click.option("--usd", type=click.FloatRange(0, _MOST_USD, min_open=True), metavar="DOLLARS", help="In US dollars.")
@click.option("--tokens", metavar="COUNT", help="In tokens: 5M, 800k.")
@click.option(
    "--per",
    type=click.Choice([str(per) for per in BudgetPer]),
    help="For all of the orchestration (default of set), for each day, or for all teams of its account each day.",
)
@click.option("--role", metavar="ROLE", help="Of one role; without it of the whole team.")
@cli.pass_output
def budget(
    output: Output,
    action: str,
    session: str | None,
    usd: float | None,
    tokens: str | None,
    per: str | None,
    role: str | None,
) -> None:
    """Set what a team may spend, show what is left, and extend it, which lets a paused team go on.

    At 80 % you are told. What is used up holds check-ins and new work, and the Orchestrator is told once to wrap up;
    after a grace the team is paused, and whoever is at work is interrupted. docs/costs.md tells more.
    """
    if action not in _ACTIONS:
        raise Usage(f"budget takes {', '.join(_ACTIONS)}, not {action!r}", hint="claude_control.py budget --help")
    if role is not None and per == BudgetPer.ACCOUNT_DAY:
        raise Usage("what all teams of an account spend is of no role", hint="leave out --role")
    desk = caller()
    if action == "show":
        _show(output, desk, session)
        return
    team = _team(desk, session)
    _check_role(desk, team, role)
    wanted = BudgetPer(per) if per else None
    if action == "remove":
        made = _remove(desk, team, wanted, role)
    else:
        made = [_change(desk, team, action, *_amount(usd, tokens, action), wanted, role)]
    ensure_scheduler(output, desk)
    head = f"removed from {team.session}" if action == "remove" else team.session
    output.answer("\n".join(f"{head}: {_line(desk, one)}" for one in made), [_data(desk, one, team) for one in made])


def _amount(usd: float | None, tokens: str | None, action: str) -> tuple[BudgetUnit, float]:
    if (usd is None) == (tokens is None):
        raise Usage("say how much, in one unit", hint=f"claude_control.py budget {action} SESSION --usd 20")
    return (BudgetUnit.USD, usd) if usd is not None else (BudgetUnit.TOKENS, float(token_count(tokens or "")))


def _change(
    desk: Caller,
    team: Orchestration,
    action: str,
    unit: BudgetUnit,
    amount: float,
    per: BudgetPer | None,
    role: str | None,
) -> Budget:
    from lib.spending import budgets, ledger  # noqa: PLC0415 - the verbs beside this one need them not

    now = host.now_ms()
    ledger.catch_up(desk.db, now=now)
    if action == "set":
        return budgets.add(desk.db, team.id, amount, unit, per or BudgetPer.ORCHESTRATION, role=role, now=now)
    chosen = budgets.chosen(budgets.of(desk.db, team.id), unit, role=role, per=per, session=team.session)
    return budgets.extend(desk.db, chosen, amount, now=now)


def _remove(desk: Caller, team: Orchestration, per: BudgetPer | None, role: str | None) -> list[Budget]:
    from lib.spending import budgets  # noqa: PLC0415 - as in `_change`

    found = [one for one in budgets.of(desk.db, team.id) if one.role == role and per in (None, one.per)]
    if not found:
        raise NotFound(f"{team.session} has no such budget", hint=f"claude_control.py budget show {team.session}")
    for one in found:
        budgets.remove(desk.db, one, now=host.now_ms())
    return found


def _team(desk: Caller, session: str | None) -> Orchestration:
    from lib import orchestrations  # noqa: PLC0415 - as in `_change`

    found = orchestrations.get(desk.db, agents.team_of(desk.db, session, desk.agent))
    orchestrations.check_runs(found)
    return found


def _check_role(desk: Caller, team: Orchestration, role: str | None) -> None:
    roles = [agent.role for agent in agents.of_orchestration(desk.db, team.id)]
    if role is not None and role not in roles:
        raise NotFound(f"no role {role!r} in {team.session}", hint=f"roles: {', '.join(roles)}")


def _show(output: Output, desk: Caller, session: str | None) -> None:
    from lib import orchestrations  # noqa: PLC0415 - as in `_change`
    from lib.spending import budgets, ledger  # noqa: PLC0415 - as in `_change`

    ledger.catch_up(desk.db, now=host.now_ms())
    if session is not None and not orchestrations.named(desk.db, session):
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    teams = orchestrations.live(desk.db) if session is None else orchestrations.named(desk.db, session)[-1:]
    found = [(team, one) for team in teams for one in budgets.of(desk.db, team.id)]
    lines = [f"{team.session}: {_line(desk, one)}" for team, one in found]
    output.answer("\n".join(lines) or "no budget is set", [_data(desk, one, team) for team, one in found])


def _line(desk: Caller, one: Budget) -> str:
    from lib.judgement import prices  # noqa: PLC0415 - as in `_change`
    from lib.spending import budgets  # noqa: PLC0415 - as in `_change`

    used, bill = budgets.used(desk.db, one)
    line = f"{budgets.words(one)}, {budgets.amount_text(used, one.unit)} used ({used / one.limit:.0%}), {one.status}"
    if one.per is BudgetPer.ACCOUNT_DAY:
        own = bill.usd if one.unit is BudgetUnit.USD else float(bill.usage.tokens)
        line += f"; {budgets.amount_text(own, one.unit)} of it on this machine" if own < used else ""
    if bill.unpriced and one.unit is BudgetUnit.USD:
        unseen = prices.short(sum(bill.unpriced.values()))
        line += f"; {unseen} tokens of {', '.join(sorted(bill.unpriced))} have no price and are not in it"
    return line


def _data(desk: Caller, one: Budget, team: Orchestration) -> dict[str, Any]:
    from lib.spending import budgets  # noqa: PLC0415 - as in `_change`

    used, bill = budgets.used(desk.db, one)
    return {"session": team.session, "limit": one.limit, "used": used, "no_price_known": bill.unpriced, **vars(one)}
