"""Prices: what answers of models cost by a dated list, and what that makes for many of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

from lib.errors import OrchestratorError
from lib.models import PROMPT_STEPS, Sort, Usage
from lib.records import dataclass

_DAY_MS = 24 * 60 * 60_000
#: The ordinal of 1970-01-01, from which times count.
_FIRST_DAY = 719_163
_MILLION = 1_000_000

NOTHING = Usage()
#: The kinds of tokens that have a price; thinking is output.
KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


@dataclass(frozen=True)
class Price:
    """What a million tokens of each kind cost, in US dollars, from a time on (UTC milliseconds).

    `model` is a pattern. `fast` and `long` are how many times as much it is in the fast mode, and for an answer whose
    prompt is longer than `long_above` tokens.
    """

    model: str
    since: int
    input: float
    output: float
    cache_read: float
    cache_write_5m: float
    cache_write_1h: float
    fast: float = 1.0
    long: float = 1.0
    long_above: int | None = None

    def of(self, sort: Sort, usage: Usage) -> float:
        """What answers of this sort cost."""
        plain = sum(float(getattr(usage, kind) * getattr(self, kind)) for kind in KINDS) / _MILLION
        is_long = self.long_above is not None and sort.above >= self.long_above
        return plain * (self.long if is_long else 1.0) * (self.fast if sort.is_fast else 1.0)


@dataclass(frozen=True)
class Prices:
    """A list of prices; the first row whose pattern fits a model says which rows count for it."""

    rows: tuple[Price, ...]
    thousand_web_searches: float = 0.0
    us_only: float = 1.0

    def find(self, sort: Sort) -> Price | None:
        """The row that holds for a sort of answers; None when none does."""
        name = plain_name(sort.model)
        pattern = next((row.model for row in self.rows if fnmatchcase(name, row.model)), None)
        rows = [row for row in self.rows if row.model == pattern and row.since <= sort.at]
        return max(rows, key=lambda row: row.since, default=None)

    def cost(self, sort: Sort, usage: Usage) -> float | None:
        """What answers of a sort cost, in US dollars; None when no price is known."""
        price = self.find(sort)
        if price is None:
            return None
        answers = price.of(sort, usage) * (self.us_only if sort.is_us else 1.0)
        return answers + usage.web_searches * self.thousand_web_searches / 1000


def plain_name(model: str) -> str:
    """A model's name without its date and the mark of a long context: `claude-opus-4-5-20251101[1m]`."""
    return re.sub(r"(-[0-9]{8})?(\[[0-9]+m\])?$", "", model.strip().lower())


def step(prompt: int) -> int:
    """The largest of the lengths above which a model may cost more that a prompt is longer than."""
    return max(length for length in PROMPT_STEPS if prompt > length or length == 0)


def short(count: int) -> str:
    """A number of tokens in three digits: `950`, `12.3k`, `1.21M`."""
    size, sign = float(count), ""
    for sign in ("", "k", "M", "G"):  # noqa: B007 - the last one counts after the loop
        if size < 999.5:
            break
        size /= 1000
    return f"{size:.3g}{sign}" if sign else str(count)


# -- reading a list --


def read(values: object, where: str) -> Prices:
    """A list of prices from what a YAML file holds. Raises `OrchestratorError` naming `where` and the row."""
    if not isinstance(values, dict) or not isinstance(values.get("models"), list):
        raise OrchestratorError(f"{where} must hold a list `models`")
    _check_names(values, ("thousand_web_searches", "us_only", "models"), where)
    rows = tuple(_row(row, f"{where}: row {number}") for number, row in enumerate(values["models"], start=1))
    searches, us_only = values.get("thousand_web_searches", 0), values.get("us_only", 1)
    return Prices(rows, _number(searches, f"{where}: thousand_web_searches"), _number(us_only, f"{where}: us_only"))


def joined(first: Prices, then: Prices) -> Prices:
    """Two lists as one: the rows of the first come before."""
    return Prices((*first.rows, *then.rows), then.thousand_web_searches, then.us_only)


def _row(values: object, where: str) -> Price:
    if not isinstance(values, dict) or not isinstance(values.get("model"), str):
        raise OrchestratorError(f"{where} must name a model")
    _check_names(values, ("model", "from", *KINDS, "fast", "long", "long_above"), where)
    missing = [kind for kind in KINDS if kind not in values]
    if missing:
        raise OrchestratorError(f"{where} ({values['model']}) has no price for {', '.join(missing)}")
    above = values.get("long_above")
    if above is not None and (type(above) is not int or above not in PROMPT_STEPS):
        raise OrchestratorError(f"{where}: long_above must be one of {', '.join(map(str, PROMPT_STEPS))}")
    numbers = {name: _number(values[name], f"{where}: {name}") for name in (*KINDS, "fast", "long") if name in values}
    return Price(plain_name(values["model"]), _since(values.get("from"), where), long_above=above, **numbers)


def _check_names(values: Mapping[Any, object], known: Sequence[str], where: str) -> None:
    if unknown := [str(name) for name in values if name not in known]:
        raise OrchestratorError(f"{where}: unknown {', '.join(unknown)}", hint=f"known are {', '.join(known)}")


def _number(value: object, where: str) -> float:
    if type(value) not in (int, float) or not 0 <= float(str(value)) < _MILLION:
        raise OrchestratorError(f"{where} must be a number, 0 or more, not {value!r}")
    return float(str(value))


def _since(day: object, where: str) -> int:
    if day is None:
        return 0
    count = getattr(day, "toordinal", None)  # YAML makes a date of what looks like one
    if count is None:
        raise OrchestratorError(f"{where}: from must be a day such as 2026-11-28, not {day!r}")
    return int(count() - _FIRST_DAY) * _DAY_MS


# -- many answers --


@dataclass(frozen=True)
class Item:
    """Answers of one sort, and whether they were supervision."""

    sort: Sort
    usage: Usage
    answers: int = 1
    is_supervision: bool = False


@dataclass(frozen=True)
class Bill:
    """What many answers have used and cost. `unpriced` are the tokens of models of which no price is known."""

    answers: int = 0
    usage: Usage = NOTHING
    usd: float = 0.0
    supervision: Usage = NOTHING
    supervision_usd: float = 0.0
    unpriced: Mapping[str, int] = field(default_factory=dict)

    @property
    def supervision_share(self) -> float | None:
        """Which share of it was supervision: of the cost, or of the tokens when nothing has a price."""
        if self.usd > 0:
            return self.supervision_usd / self.usd
        return self.supervision.tokens / self.usage.tokens if self.usage.tokens else None


def bill(prices: Prices, items: Iterable[Item]) -> Bill:
    """The bill of answers."""
    answers, usage, supervision = 0, NOTHING, NOTHING
    usd, supervision_usd = 0.0, 0.0
    unpriced: Counter[str] = Counter()
    for item in items:
        answers, usage = answers + item.answers, usage + item.usage
        cost = prices.cost(item.sort, item.usage)
        if cost is None:
            unpriced[item.sort.model] += item.usage.tokens
        usd += cost or 0.0
        if item.is_supervision:
            supervision, supervision_usd = supervision + item.usage, supervision_usd + (cost or 0.0)
    return Bill(answers, usage, usd, supervision, supervision_usd, dict(unpriced))
