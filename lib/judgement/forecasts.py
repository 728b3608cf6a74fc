"""Forecasts: when a budget is used up, when a window of a usage limit ends, and what gets done before.

They are made from own history. With too little of it there is no forecast, and that is what is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from lib.records import dataclass

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
QUARTER_MS = 15 * MINUTE_MS
#: A pace is of so many answers and so many minutes at least.
FEWEST_ANSWERS = 5
FEWEST_MINUTES = 10
#: How much of the history a pace is taken from: what a team did before lunch says little of now.
PACE_MS = HOUR_MS
#: How many specs have to be done before it is said how long one takes.
FEWEST_SPECS = 3
#: What lasts longer than this is not worth a time.
FAR_MS = 10 * 24 * HOUR_MS
_WORDS = {5: "five"}

#: Shows a time (UTC milliseconds) as people read it.
Clock = Callable[[int], str]


@dataclass(frozen=True)
class Pace:
    """What was spent within some minutes, by so many answers."""

    amount: float
    minutes: float
    answers: int

    @property
    def is_enough(self) -> bool:
        """Whether it says anything of what comes."""
        return self.answers >= FEWEST_ANSWERS and self.minutes >= FEWEST_MINUTES

    @property
    def per_ms(self) -> float:
        return self.amount / (self.minutes * MINUTE_MS)


@dataclass(frozen=True)
class Forecast:
    """A sentence, and the time (UTC milliseconds) that it is about; None when there is none."""

    sentence: str
    at: int | None = None


def pace(spent: Iterable[tuple[int, float, int]], *, since: int, now: int) -> Pace:
    """The pace of the last hour. `spent` are quarters of an hour by their beginning, amounts and answers.

    `since` is when the work began.
    """
    start = max(since, (now - PACE_MS) // QUARTER_MS * QUARTER_MS)
    lately = [(amount, answers) for at, amount, answers in spent if at + QUARTER_MS > start]
    minutes = max(0.0, (now - start) / MINUTE_MS)
    return Pace(sum(amount for amount, _ in lately), minutes, sum(answers for _, answers in lately))


def used_up(what: str, *, limit: float, used: float, pace: Pace, now: int, until: int | None, clock: Clock) -> Forecast:
    """When a budget is used up at a pace. `what` names it; at `until` it begins anew, None when it never does."""
    if used >= limit:
        return Forecast(f"{what} is used up", now)
    if not pace.is_enough:
        history = f"{_counted(pace.answers, 'answer')} in {pace.minutes:.0f} minutes"
        return Forecast(f"not enough history to say when {what} is used up: {history}")
    if pace.amount <= 0:
        return Forecast(f"{what} lasts: nothing was spent in the last {pace.minutes:.0f} minutes")
    lasts_ms = (limit - used) / pace.per_ms
    if until is not None and now + lasts_ms >= until:
        return Forecast(f"at this rate {what} lasts until {clock(until)}, when it begins anew")
    if lasts_ms > FAR_MS:
        return Forecast(f"at this rate {what} lasts for more than {FAR_MS // (24 * HOUR_MS)} days")
    at = round(now + lasts_ms)
    return Forecast(f"at this rate {what} is used up at {clock(at)}", at)


def window(active: Sequence[int], *, hours: int, now: int) -> tuple[int, int] | None:
    """The window of a plan that runs now, from the times (UTC milliseconds, in order) at which something was used.

    One begins with the first use after the one before has ended. None when none runs.
    """
    length = hours * HOUR_MS
    start: int | None = None
    for at in active:
        if start is None or at >= start + length:
            start = at
    return (start, start + length) if start is not None and now < start + length else None


@dataclass(frozen=True)
class Waiting:
    """An entry of the queue, and when it began or would begin (UTC milliseconds)."""

    entry: int
    begins_at: int


def window_ends(
    ends_at: int, entries: Sequence[Waiting], took_ms: Sequence[int], *, hours: int, is_told: bool, clock: Clock
) -> Forecast:
    """What does not get done before a window ends, by how long specs took (milliseconds).

    `is_told` is whether Claude Code has told when it ends, or it is reckoned from what was used.
    """
    head = f"the {_WORDS.get(hours, hours)}-hour window ends at {'' if is_told else 'about '}{clock(ends_at)}"
    if not entries:
        return Forecast(head, ends_at)
    if len(took_ms) < FEWEST_SPECS:
        had = _counted(len(took_ms), "finished spec")
        return Forecast(f"{head}; not enough history to say what gets done before: {had}", ends_at)
    typical = statistics.median(took_ms)
    late = [one.entry for one in entries if one.begins_at + typical > ends_at]
    if not late:
        return Forecast(f"{head}; what is queued gets done before", ends_at)
    names = ", ".join(map(str, sorted(late)))
    noun = "queue entry" if len(late) == 1 else "queue entries"
    return Forecast(f"{head}; {noun} {names} will not finish before: a spec takes {duration(typical)}", ends_at)


def of_a_launch(agents: int, budgets: Sequence[tuple[str, float]], history: Pace) -> list[Forecast]:
    """What a team of so many agents would spend, and how long budgets would last, by what agents have spent at work.

    `budgets` are names and amounts in US dollars; the minutes of `history` are those in which an agent was at work.
    """
    if not history.is_enough or history.minutes < 60:
        had = f"{_counted(history.answers, 'answer')} in {history.minutes:.0f} minutes of work"
        return [Forecast(f"not enough history to say what it would cost: {had}")]
    hourly = history.per_ms * HOUR_MS
    if hourly <= 0:
        return [Forecast("agents have cost nothing so far")]
    together = hourly * agents
    said = f"agents have cost ${hourly:,.2f} in an hour of work each: ${together:,.2f} for {agents} of them"
    lasts = [f"{name} lasts {duration(amount / together * HOUR_MS)} of that" for name, amount in budgets]
    return [Forecast(said), *map(Forecast, lasts)]


def duration(milliseconds: float) -> str:
    """`40 min`, `2 h 5 min`, `3 d 4 h`."""
    minutes = round(milliseconds / MINUTE_MS)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
