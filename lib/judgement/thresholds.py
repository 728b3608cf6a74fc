"""Thresholds: when a budget warns, when it is used up, and when it pauses."""

from __future__ import annotations

from lib.models import BudgetStatus

#: From this share on a budget warns.
WARNED_AT = 0.8


def next_status(status: BudgetStatus, *, used: float, limit: float, is_over: bool) -> BudgetStatus | None:
    """What a budget becomes now; None when it stays what it is.

    `is_over` is whether the time is over that was given to wrap up.
    """
    if status in (BudgetStatus.OPEN, BudgetStatus.WARNED) and used >= limit:
        return BudgetStatus.SPENT
    if status is BudgetStatus.OPEN and used >= WARNED_AT * limit:
        return BudgetStatus.WARNED
    if status is BudgetStatus.SPENT and is_over:
        return BudgetStatus.PAUSED
    return None
