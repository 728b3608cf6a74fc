"""Outlooks: what the forecasts say of the budgets, windows and queue that there are; for every view the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta

from lib import limits, orchestrations, templates
from lib.config import BudgetSettings
from lib.judgement import forecasts, prices
from lib.judgement.forecasts import Forecast, Waiting
from lib.models import Budget, BudgetPer, BudgetUnit, EntryStatus, Orchestration
from lib.queue import entries
from lib.records import dataclass
from lib.spending import budgets, ledger

_DAY_MS = 24 * forecasts.HOUR_MS


@dataclass(frozen=True)
class Outlook:
    """A forecast, and the session that it is about; None for the machine."""

    session: str | None
    forecast: Forecast

    @property
    def sentence(self) -> str:
        head = f"{self.session}: " if self.session else ""
        return head + self.forecast.sentence

    def as_data(self) -> dict[str, object]:
        """The same for --json."""
        return {"session": self.session, "sentence": self.forecast.sentence, "at": self.forecast.at}


def every(db: sqlite3.Connection, *, now: int) -> list[Outlook]:
    """Of every live team's budgets, then of the windows of usage limits."""
    return [*of_budgets(db, now=now), *of_windows(db, now=now)]


def of_budgets(db: sqlite3.Connection, *, now: int) -> list[Outlook]:
    """When each budget of a live team is used up."""
    return [
        Outlook(found.session, _of_budget(db, found, budget, now))
        for found in orchestrations.live(db)
        for budget in budgets.of(db, found.id)
    ]


def _of_budget(db: sqlite3.Connection, found: Orchestration, budget: Budget, now: int) -> Forecast:
    used, _ = budgets.used(db, budget)
    is_of_account = budget.per is BudgetPer.ACCOUNT_DAY
    whose = None if is_of_account else found.id
    rows = ledger.spent(db, orchestration=whose, role=budget.role, since=now - 2 * forecasts.PACE_MS)
    price_list = templates.price_list()
    is_usd = budget.unit is BudgetUnit.USD
    spent = [
        (
            one.quarter,
            (price_list.cost(one.item.sort, one.item.usage) or 0.0) if is_usd else float(one.item.usage.tokens),
            one.item.answers,
        )
        for one in rows
    ]
    return forecasts.used_up(
        f"the budget of {budgets.words(budget)}",
        limit=budget.limit,
        used=used,
        pace=forecasts.pace(spent, since=0 if is_of_account else found.created_at, now=now),
        now=now,
        until=_ends_at(budget, now),
        clock=clock_at(now),
    )


def _ends_at(budget: Budget, now: int) -> int | None:
    if budget.per is BudgetPer.ACCOUNT_DAY:
        return budget.period + _DAY_MS
    return _next_midnight(now) if budget.per is BudgetPer.DAY else None


def of_windows(db: sqlite3.Connection, *, now: int) -> list[Outlook]:
    """When the windows end that run now, of accounts that have met their limit, and what does not get done before."""
    waiting, took_ms, found = _queue(db, now), entries.took_ms(db), []
    # Every plan that has windows has the same.
    hours = max(plan.window_hours or 0 for plan in templates.plans().values())
    for config_dir, resets_at in limits.accounts_with_windows(db).items():
        runs = forecasts.window(ledger.activity(db, config_dir, since=now - 3 * _DAY_MS), hours=hours, now=now)
        ends_at = resets_at if resets_at is not None and resets_at > now else runs[1] if runs else None
        if ends_at is not None:
            told = ends_at == resets_at
            said = forecasts.window_ends(ends_at, waiting, took_ms, hours=hours, is_told=told, clock=clock_at(now))
            found.append(Outlook(None, said))
    return found


def _queue(db: sqlite3.Connection, now: int) -> list[Waiting]:
    """The entries that run, by when they began, and the next one as if it began now."""
    running = [Waiting(attempt.entry_id, attempt.started_at) for attempt in entries.open_attempts(db)]
    queued = (one for one in entries.unfinished(db) if one.status is EntryStatus.QUEUED)
    first = next(queued, None)
    return [*running, *([Waiting(first.id, now)] if first else [])]


def of_launch(db: sqlite3.Connection, agents: int, settings: BudgetSettings, *, now: int) -> list[Outlook]:
    """What a team of so many agents would spend, and how long the configured budgets would last."""
    items, quarters = ledger.at_work(db, since=now - 30 * _DAY_MS)
    bill = prices.bill(templates.price_list(), items)
    history = forecasts.Pace(bill.usd, 15.0 * quarters, bill.answers)
    wanted = [("the budget", settings.usd), ("the budget of a day", settings.usd_per_day)]
    named = [(f"{name} of ${amount:,.2f}", amount) for name, amount in wanted if amount is not None]
    found = [Outlook(None, one) for one in forecasts.of_a_launch(agents, named, history)]
    return [*found, *of_windows(db, now=now)]


def _next_midnight(now: int) -> int:
    today = datetime.fromtimestamp(now / 1000).replace(hour=0, minute=0, second=0, microsecond=0)
    # By the calendar: a day on which the clocks are changed is longer or shorter.
    return round((today + timedelta(days=1)).timestamp() * 1000)


def clock_at(now: int) -> Callable[[int], str]:
    """A clock that shows the day with the time of what is not today or this midnight."""

    def clock(at: int) -> str:
        moment = datetime.fromtimestamp(at / 1000)
        if at == _next_midnight(now):
            return "midnight"
        is_today = moment.date() == datetime.fromtimestamp(now / 1000).date()
        return moment.strftime("%H:%M" if is_today else "%b %-d, %H:%M")

    return clock
