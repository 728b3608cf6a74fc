"""Budgets: what an orchestration may spend, who is told when it is spent, and what it holds then (docs/costs.md).

A budget warns once, has the Orchestrator wrap up once, and pauses after a grace. Each step is a row before anything
follows from it. A day's budget is open again on the next day; any is when somebody extends it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lib import agents, checkins, decisions, host, messages, notices, orchestrations, templates
from lib.config import BudgetSettings
from lib.errors import NotFound, Usage
from lib.judgement import prices, teams, thresholds
from lib.judgement.prices import Bill
from lib.models import (
    Agent,
    AgentState,
    Budget,
    BudgetPer,
    BudgetStatus,
    BudgetUnit,
    Hold,
    MessageKind,
    Orchestration,
    OrchestrationStatus,
    Priority,
)
from lib.records import dataclass
from lib.store import record, writing

SENDER = "scheduler"
MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * MINUTE_MS
#: How often budgets are looked at when nothing was counted.
LOOK_EVERY_MS = 60_000
#: How soon an agent is stopped again that has not, or that has begun again by itself.
STOP_AGAIN_MS = 15_000
#: What a helper writes so long after its agent was stopped belongs to that turn.
_SETTLES_MS = 5_000

_HOLDING = (BudgetStatus.SPENT, BudgetStatus.PAUSED)
_IS_HOLDING = f"status IN ({', '.join(repr(str(status)) for status in _HOLDING)})"


# -- what there is --


def add(
    db: sqlite3.Connection,
    orchestration_id: str,
    amount: float,
    unit: BudgetUnit,
    per: BudgetPer,
    *,
    role: str | None,
    now: int,
) -> Budget:
    """Set a budget; one of the same role, unit and period gets this amount, and loses what it was extended by.

    What it has paused goes on when that leaves something to spend.
    """
    period = _period(per, now)
    with writing(db):
        db.execute(
            "INSERT INTO budgets (orchestration_id, role, per, unit, amount, period, status, changed_at)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open', ?7)"
            " ON CONFLICT (orchestration_id, coalesce(role, ''), per, unit) DO UPDATE SET amount = ?5, extra = 0",
            (orchestration_id, role, per, unit, amount, period, now),
        )
        found = next(one for one in of(db, orchestration_id) if (one.role, one.per, one.unit) == (role, per, unit))
        _tell(db, "budget.set", found, now, amount=amount, unit=unit, per=per)
        return _reopen(db, found, now) if found.status is not BudgetStatus.OPEN else found


def begin(db: sqlite3.Connection, orchestration_id: str, settings: BudgetSettings, *, now: int) -> None:
    """Give a new orchestration the budgets of the configuration; call it in the transaction that records it."""
    for amount, unit, per in (
        (settings.usd, BudgetUnit.USD, BudgetPer.ORCHESTRATION),
        (settings.usd_per_day, BudgetUnit.USD, BudgetPer.DAY),
        (settings.tokens, BudgetUnit.TOKENS, BudgetPer.ORCHESTRATION),
        (settings.tokens_per_day, BudgetUnit.TOKENS, BudgetPer.DAY),
        (settings.account_usd_per_day, BudgetUnit.USD, BudgetPer.ACCOUNT_DAY),
    ):
        if amount is not None:
            add(db, orchestration_id, float(amount), unit, per, role=None, now=now)


def extend(db: sqlite3.Connection, budget: Budget, amount: float, *, now: int) -> Budget:
    """Add to a budget, for a day's only on this day. What it has paused goes on when that leaves something to spend."""
    period = _period(budget.per, now)
    with writing(db):
        budget = get(db, budget.id)
        extra = amount + (budget.extra if budget.extra_period == period else 0.0)
        db.execute("UPDATE budgets SET extra = ?, extra_period = ? WHERE id = ?", (extra, period, budget.id))
        found = get(db, budget.id)
        _tell(db, "budget.extended", found, now, by=amount)
        return _reopen(db, found, now)


def remove(db: sqlite3.Connection, budget: Budget, *, now: int) -> None:
    """Take a budget away. What it has paused goes on, unless another holds it."""
    with writing(db):
        db.execute("DELETE FROM budgets WHERE id = ?", (budget.id,))
        _tell(db, "budget.removed", budget, now)
        if budget.status in _HOLDING:
            _let_go(db, budget, now)


def get(db: sqlite3.Connection, budget_id: int) -> Budget:
    """A budget by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM budgets WHERE id = ?", (budget_id,)).fetchone()
    if row is None:
        raise NotFound(f"no budget has the id {budget_id}", hint="claude_control.py budget show")
    return _budget(row)


def of(db: sqlite3.Connection, orchestration_id: str) -> list[Budget]:
    """The budgets of an orchestration, those of the whole team first."""
    rows = db.execute(
        "SELECT * FROM budgets WHERE orchestration_id = ? ORDER BY role IS NOT NULL, role, per DESC, unit DESC",
        (orchestration_id,),
    )
    return [_budget(row) for row in rows]


def chosen(
    found: Sequence[Budget], unit: BudgetUnit, *, role: str | None, per: BudgetPer | None, session: str
) -> Budget:
    """The one budget that somebody means: of this unit and role, and of two the one that holds something.

    Raises `NotFound` when there is none, `Usage` when it may be either.
    """
    fitting = [one for one in found if one.unit is unit and one.role == role and per in (None, one.per)]
    holding = [one for one in fitting if one.status in _HOLDING]
    if not fitting:
        whose = f"the role {role}" if role else session
        raise NotFound(f"{whose} has no such budget in {unit}", hint=f"claude_control.py budget show {session}")
    if len(fitting) > 1 and len(holding) != 1:
        raise Usage(f"{session} has more than one budget in {unit}", hint="say which: --per day")
    return (holding if len(fitting) > 1 else fitting)[0]


# -- what it holds --


def hold_of(db: sqlite3.Connection, agent: Agent) -> Hold | None:
    """What keeps an agent from new work because of a budget, or None. One look at an index that is mostly empty."""
    row = db.execute(
        f"SELECT * FROM budgets WHERE orchestration_id = ? AND {_IS_HOLDING} AND (role IS NULL OR role = ?)"
        " ORDER BY status = 'paused' DESC, id LIMIT 1",
        (agent.orchestration_id, agent.role),
    ).fetchone()
    return _hold(_budget(row), agent) if row else None


def _hold(budget: Budget, agent: Agent) -> Hold:
    if budget.status is BudgetStatus.PAUSED:
        return Hold(f"paused: the budget of {words(budget)} is used up", None)
    assert budget.pause_at is not None
    at = datetime.fromtimestamp(budget.pause_at / 1000).strftime("%H:%M")
    return Hold(f"wraps up until {at}: the budget of {words(budget)} is used up", budget.pause_at, lets_wrap_up=True)


def hold_of_account(db: sqlite3.Connection, config_dir: Path) -> Hold | None:
    """What keeps new teams of an account from work: what its teams may spend on this day is spent, as was last seen."""
    row = db.execute(
        "SELECT budgets.* FROM budgets JOIN orchestrations ON orchestrations.id = orchestration_id"
        " WHERE per = 'account-day' AND config_dir = ? AND period = ? ORDER BY budgets.changed_at DESC LIMIT 1",
        (str(config_dir), _period(BudgetPer.ACCOUNT_DAY, host.now_ms())),
    ).fetchone()
    found = _budget(row) if row else None
    return Hold(f"out of its budget of {words(found)}", None) if found and found.status in _HOLDING else None


def that_pauses(db: sqlite3.Connection, orchestration_id: str) -> Budget | None:
    """The budget that has paused a whole team, or None."""
    found = (one for one in of(db, orchestration_id) if one.status is BudgetStatus.PAUSED and one.role is None)
    return next(found, None)


def reason(budget: Budget, session: str) -> str:
    """Why a budget has paused a team, and what to do."""
    return f"the budget of {words(budget)} is used up; next: {remedy(budget, session)}"


def remedy(budget: Budget, session: str) -> str:
    """The command that lets go on what a budget has paused."""
    option = f"--usd {max(1, round(budget.amount / 2))}" if budget.unit is BudgetUnit.USD else "--tokens 1M"
    if budget.per is BudgetPer.ACCOUNT_DAY:
        option += f" --per {budget.per}"
    role = f" --role {budget.role}" if budget.role else ""
    return f"claude_control.py budget extend {session} {option}{role}"


def words(budget: Budget) -> str:
    """A budget's limit: `$20.00 a day for developer`."""
    per = {BudgetPer.DAY: " a day", BudgetPer.ACCOUNT_DAY: " a day for all teams of the account"}.get(budget.per, "")
    return f"{amount_text(budget.limit, budget.unit)}{per}{f' for {budget.role}' if budget.role else ''}"


def amount_text(amount: float, unit: BudgetUnit) -> str:
    """`$12.50`, `5M tokens`."""
    return f"${amount:,.2f}" if unit is BudgetUnit.USD else f"{prices.short(round(amount))} tokens"


# -- how it is kept --


@dataclass
class Watch:
    """When a daemon has last looked at budgets, and last had somebody stopped."""

    looked_at: int | None = None
    stopped_at: int | None = None


def govern(db: sqlite3.Connection, watch: Watch, *, grace_minutes: float, is_news: bool, now: int) -> list[int]:
    """Take every budget of a live team one step further, when something was counted or it is time.

    Returns when it is due again.
    """
    found = [(one, budget) for one in orchestrations.live(db) for budget in of(db, one.id)]
    pauses = [budget.pause_at for _, budget in found if budget.pause_at is not None]
    is_time = watch.looked_at is None or not 0 <= now - watch.looked_at < LOOK_EVERY_MS
    if found and (is_news or is_time or any(at <= now for at in pauses)):
        watch.looked_at = now
        for one, budget in found:
            _step(db, one, budget, grace_minutes, now)
    return [at for _, budget in found if (at := get(db, budget.id).pause_at) is not None]


def used(db: sqlite3.Connection, budget: Budget) -> tuple[float, Bill]:
    """What of a budget is used in its period, and the bill of it: of what other hosts have used, none is here."""
    from lib.spending import ledger  # noqa: PLC0415 - what only asks whether something is held need not pay for it

    if budget.per is BudgetPer.ACCOUNT_DAY:
        return _used_of_account(db, budget)
    items = ledger.sums(db, orchestration=budget.orchestration_id, role=budget.role, since=budget.period)
    bill = prices.bill(templates.price_list(), items)
    return (bill.usd if budget.unit is BudgetUnit.USD else float(bill.usage.tokens)), bill


def _used_of_account(db: sqlite3.Connection, budget: Budget) -> tuple[float, Bill]:
    """What all teams of a team's account have used on a day of UTC, in a fleet on all hosts."""
    from lib.fleet import totals  # noqa: PLC0415 - as in `used`: most budgets are a team's own
    from lib.spending import ledger  # noqa: PLC0415 - as in `used`

    folder = orchestrations.get(db, budget.orchestration_id).config_dir
    here = ledger.sums_of_folders(db, totals.folders_beside(db, folder), day=budget.period)
    bill = prices.bill(templates.price_list(), here)
    elsewhere = totals.elsewhere(db, totals.account_of(db, folder), budget.period)
    if budget.unit is BudgetUnit.USD:
        return bill.usd + elsewhere.usd, bill
    return float(bill.usage.tokens + elsewhere.tokens), bill


def _step(db: sqlite3.Connection, found: Orchestration, budget: Budget, grace_minutes: float, now: int) -> None:
    if budget.period != _period(budget.per, now):
        with writing(db):
            budget = _reopen(db, budget, now)
    amount, _ = used(db, budget)
    match thresholds.next_status(budget.status, used=amount, limit=budget.limit, is_over=_is_over(budget, now)):
        case BudgetStatus.SPENT:
            _be_spent(db, found, budget, amount, grace_minutes, now)
        case BudgetStatus.WARNED:
            _warn(db, found, budget, amount, now)
        case BudgetStatus.PAUSED:
            _pause(db, found, budget, amount, now)


def _is_over(budget: Budget, now: int) -> bool:
    return budget.pause_at is not None and (now >= budget.pause_at or host.was_set_back(budget.changed_at, now))


def _warn(db: sqlite3.Connection, found: Orchestration, budget: Budget, amount: float, now: int) -> None:
    with writing(db):
        if _move(db, budget, BudgetStatus.WARNED, now):
            body = f"{amount_text(amount, budget.unit)} of the budget of {words(budget)} are used. The team goes on."
            _tell(db, "budget.warned", budget, now, used=amount)
            _note(db, budget, BudgetStatus.WARNED, amount, now)
            notices.tell(db, "budget", f"{found.session}: {amount / budget.limit:.0%} of a budget used", body, now=now)


def _be_spent(
    db: sqlite3.Connection, found: Orchestration, budget: Budget, amount: float, grace_minutes: float, now: int
) -> None:
    pause_at = now + round(grace_minutes * MINUTE_MS)
    with writing(db):
        if not _move(db, budget, BudgetStatus.SPENT, now, pause_at=pause_at):
            return
        note = _have_wrapped_up(db, budget, amount, grace_minutes, now)
        _tell(db, "budget.spent", budget, now, message=note, used=amount, pause_at=pause_at)
        _note(db, budget, BudgetStatus.SPENT, amount, now)
        body = (
            f"{amount_text(amount, budget.unit)} are spent, and the budget was {words(budget)}."
            f" The Orchestrator was told to wrap up; in {grace_minutes:g} minutes {budget.role or 'the team'} is"
            f" paused. To go on: {remedy(budget, found.session)}"
        )
        notices.tell(db, "budget", f"{found.session}: a budget is used up", body, now=now)


def _have_wrapped_up(
    db: sqlite3.Connection, budget: Budget, amount: float, grace_minutes: float, now: int
) -> int | None:
    hub = agents.in_role(db, budget.orchestration_id, teams.ORCHESTRATOR)
    if hub is None:
        return None
    text = templates.render(
        "budget_wrap_up.md",
        amount=amount_text(budget.limit, budget.unit),
        used=amount_text(amount, budget.unit),
        role=budget.role,
        minutes=f"{grace_minutes:g}",
    )
    note = messages.queue(db, hub, text, sender=SENDER, kind=MessageKind.NOTICE, priority=Priority.EMERGENCY, now=now)
    return note.id


def _pause(db: sqlite3.Connection, found: Orchestration, budget: Budget, amount: float, now: int) -> None:
    with writing(db):
        if not _move(db, budget, BudgetStatus.PAUSED, now):
            return
        _tell(db, "budget.paused", budget, now, used=amount)
        _note(db, budget, BudgetStatus.PAUSED, amount, now)
        outcome = reason(budget, found.session)
        if budget.role is None:
            orchestrations.set_status(db, found.id, OrchestrationStatus.PAUSED, now=now, outcome=outcome)
        notices.tell(db, "budget", f"{found.session}: {budget.role or 'the team'} is paused", outcome, now=now)


def _note(db: sqlite3.Connection, before: Budget, status: BudgetStatus, amount: float, now: int) -> None:
    """Keep that a budget was moved on, and by what."""
    given = {"status": before.status, "used": amount, "limit": before.limit, "is_over": _is_over(before, now)}
    decisions.note(db, "budget", given, status, now=now)


def _move(
    db: sqlite3.Connection, budget: Budget, status: BudgetStatus, now: int, *, pause_at: int | None = None
) -> bool:
    """Move a budget on, unless somebody else has."""
    return bool(
        db.execute(
            "UPDATE budgets SET status = ?, changed_at = ?, pause_at = ?, settled_at = NULL"
            " WHERE id = ? AND status = ? AND period = ?",
            (status, now, pause_at, budget.id, budget.status, budget.period),
        ).rowcount
    )


def _reopen(db: sqlite3.Connection, budget: Budget, now: int) -> Budget:
    """Look at a budget anew: another day has begun, or its amount has changed."""
    period = _period(budget.per, now)
    db.execute(
        "UPDATE budgets SET status = 'open', period = ?, changed_at = ?, pause_at = NULL, settled_at = NULL"
        " WHERE id = ?",
        (period, now, budget.id),
    )
    again = get(db, budget.id)
    amount, _ = used(db, again)
    if amount >= again.limit and budget.status in _HOLDING and budget.period == period:
        db.execute(
            "UPDATE budgets SET status = ?, changed_at = ?, pause_at = ?, settled_at = ? WHERE id = ?",
            (budget.status, budget.changed_at, budget.pause_at, budget.settled_at, budget.id),
        )
        return get(db, budget.id)
    if thresholds.WARNED_AT * again.limit <= amount < again.limit:  # whoever has extended it knows
        db.execute("UPDATE budgets SET status = 'warned' WHERE id = ?", (budget.id,))
    if budget.status in _HOLDING:
        _let_go(db, budget, now)
    return get(db, budget.id)


def _period(per: BudgetPer, now: int) -> int:
    """The beginning of the day by the clock on the wall (UTC milliseconds); 0 for the whole.

    The day of an account is one of UTC, so that all hosts of a fleet mean the same.
    """
    if per is BudgetPer.ORCHESTRATION:
        return 0
    if per is BudgetPer.ACCOUNT_DAY:
        return now - now % _DAY_MS
    midnight = datetime.fromtimestamp(now / 1000).replace(hour=0, minute=0, second=0, microsecond=0)
    return round(midnight.timestamp() * 1000)


# -- who is stopped, and goes on --


def to_be_stopped(db: sqlite3.Connection, watch: Watch, *, now: int) -> bool:
    """Whether somebody is to be stopped now that a budget has paused; asked of the few that one has."""
    if watch.stopped_at is not None and 0 <= now - watch.stopped_at < STOP_AGAIN_MS:
        return False
    is_new = db.execute("SELECT 1 FROM budgets WHERE status = 'paused' AND settled_at IS NULL LIMIT 1").fetchone()
    return bool(is_new or any(spends(db, agent) for agent in paused(db)))


def is_pausing(db: sqlite3.Connection) -> bool:
    """Whether some budget holds what has to stay stopped."""
    return db.execute("SELECT 1 FROM budgets WHERE status = 'paused' LIMIT 1").fetchone() is not None


def paused(db: sqlite3.Connection) -> list[Agent]:
    """The agents of live teams that a budget has paused."""
    if not is_pausing(db):
        return []
    found = [(agent, hold_of(db, agent)) for agent in agents.live(db)]
    return [agent for agent, hold in found if hold is not None and not hold.lets_wrap_up]


def spends(db: sqlite3.Connection, agent: Agent) -> bool:
    """Whether an agent goes on spending: it is at work, or a helper of it still is that it has left running."""
    return agents.state_of(agent) is AgentState.WORKING or has_helpers(db, agent)


def has_helpers(db: sqlite3.Connection, agent: Agent) -> bool:
    """Whether helpers of an agent have written something since it was stopped."""
    from lib.spending import growth  # noqa: PLC0415 - as in `used`

    if agents.state_of(agent) is AgentState.GONE:
        return False
    row = db.execute("SELECT stopped_at FROM budget_stops WHERE agent_id = ?", (agent.id,)).fetchone()
    stopped_at = row["stopped_at"] if row else _paused_at(db, agent)
    written_at = growth.helpers_wrote_at(db, agent.id)
    return stopped_at is not None and written_at is not None and written_at > stopped_at + _SETTLES_MS


def _paused_at(db: sqlite3.Connection, agent: Agent) -> int | None:
    """When all had stopped whom the budget has paused that has paused an agent; None before that."""
    row = db.execute(
        "SELECT max(settled_at) FROM budgets WHERE orchestration_id = ? AND status = 'paused'"
        " AND (role IS NULL OR role = ?)",
        (agent.orchestration_id, agent.role),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def note_stopped(db: sqlite3.Connection, agent: Agent, how: str, *, now: int) -> None:
    """Record, before it happens, that an agent's turn is interrupted or its process ended."""
    with writing(db):
        db.execute(
            "INSERT OR REPLACE INTO budget_stops (agent_id, stopped_at, how) VALUES (?, ?, ?)", (agent.id, now, how)
        )
        record(db, f"agent.{how}", now=now, orchestration=agent.orchestration_id, agent=agent.id, why="budget")


def how_stopped(db: sqlite3.Connection, agent: Agent) -> str | None:
    """How an agent was stopped that has not gone on since: `interrupted`, `ended`, or None."""
    row = db.execute("SELECT how FROM budget_stops WHERE agent_id = ?", (agent.id,)).fetchone()
    return str(row["how"]) if row else None


def settle(db: sqlite3.Connection, *, now: int) -> None:
    """Record that everybody has stopped whom a budget has paused."""
    db.execute("UPDATE budgets SET settled_at = ? WHERE status = 'paused' AND settled_at IS NULL", (now,))


def _let_go(db: sqlite3.Connection, budget: Budget, now: int) -> None:
    """Have go on what a budget has held, unless another budget holds it; call it inside the transaction."""
    found = orchestrations.get(db, budget.orchestration_id)
    is_free = found.paused_at is None and that_pauses(db, found.id) is None
    if found.status is OrchestrationStatus.PAUSED and is_free:
        orchestrations.set_status(db, found.id, OrchestrationStatus.RUNNING, now=now)
    _tell(db, "budget.reopened", budget, now)
    if found.status in orchestrations.ENDED:
        return
    for agent in agents.of_orchestration(db, found.id):
        if hold_of(db, agent) is None and budget.role in (None, agent.role):
            _go_on(db, agent, now)


def _go_on(db: sqlite3.Connection, agent: Agent, now: int) -> None:
    was_stopped = db.execute("DELETE FROM budget_stops WHERE agent_id = ?", (agent.id,)).rowcount
    checkins.wait_no_longer(db, agent.id, now=now)
    if was_stopped or agent.role == teams.ORCHESTRATOR:
        text = templates.render("budget_go_on.md", interrupted=bool(was_stopped))
        messages.queue(db, agent, text, sender=SENDER, kind=MessageKind.NOTICE, priority=Priority.HIGH, now=now)


def _tell(
    db: sqlite3.Connection, kind: str, budget: Budget, now: int, *, message: int | None = None, **data: object
) -> None:
    told = {"budget": budget.id, "limit": words(budget), **data}
    record(db, kind, now=now, orchestration=budget.orchestration_id, agent=None, message=message, **told)


def _budget(row: sqlite3.Row) -> Budget:
    values = dict(row) | {
        "per": BudgetPer(row["per"]),
        "unit": BudgetUnit(row["unit"]),
        "status": BudgetStatus(row["status"]),
    }
    return Budget(**values)
