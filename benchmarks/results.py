"""The store of what was published: one record for each measurement, with its figures, its time and its machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

PATH = Path(__file__).with_name("results.json")


#: What is measured in; tables.py shows each with its digits.
Unit = Literal["s", "ms", "%", "MB", "KB", "/s", "messages", "check-ins", "requests", "news", "statements", "h"]


@dataclass(frozen=True)
class Other:
    """The same job done by somebody else in the same run. `ratio` is ours in theirs: below 1 ours is less."""

    name: str
    median: float | None
    p99: float | None
    runs: int
    ratio: float | None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One figure. `median` is None when the job was not done once."""

    name: str
    unit: Unit
    median: float | None
    p99: float | None
    runs: int
    target: float | None = None
    note: str = ""
    condition: str = ""
    headline: bool = False
    others: tuple[Other, ...] = ()

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.target is None or self.median is None else self.median <= self.target

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        others = tuple(Other(**other) for other in values.get("others", ()))
        return cls(**{**values, "others": others})


@dataclass(frozen=True)
class Measured:
    """What one measurement has given, and where and when. `seconds` is how long it took, if that is known."""

    area: str
    name: str
    about: str
    at: datetime
    by: str
    is_quick: bool
    seconds: float | None
    load: tuple[float, float] | None
    machine: str
    versions: Mapping[str, str]
    rows: tuple[Row, ...]

    def as_data(self) -> dict[str, object]:
        """The record as JSON has it; a row without what it does not have."""
        rows = [_without_defaults(asdict(row)) for row in self.rows]
        return {**asdict(self), "at": self.at.isoformat(timespec="seconds"), "rows": rows}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        row = {"median": None, "p99": None}
        parsed = {
            "at": datetime.fromisoformat(values["at"]),
            "load": tuple(values["load"]) if values["load"] else None,
            "rows": tuple(Row.of(row | one) for one in values["rows"]),
        }
        return cls(**{**values, **parsed})


def _without_defaults(row: Mapping[str, object]) -> dict[str, object]:
    """Zero is a value."""
    return {name: value for name, value in row.items() if value is not False and value not in (None, "", ())}


def read(path: Path = PATH) -> dict[str, Measured]:
    """What was published, by the names of the measurements."""
    if not path.exists():
        return {}
    return {one["name"]: Measured.of(one) for one in json.loads(path.read_text(encoding="utf-8"))}


def write(measured: Iterable[Measured], path: Path = PATH) -> None:
    text = json.dumps([one.as_data() for one in measured], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def merged(before: Mapping[str, Measured], now: Iterable[Measured], *, order: Iterable[str]) -> list[Measured]:
    """What is published when `now` is added, in the order of the measurements; what nobody measures here comes last.

    A measurement replaces its own earlier one, whole. A quick look does not replace a whole one.
    """
    found = dict(before)
    for one in now:
        earlier = found.get(one.name)
        if earlier is None or earlier.is_quick or not one.is_quick:
            found[one.name] = one
    names = [name for name in order if name in found]
    return [found[name] for name in dict.fromkeys([*names, *found])]
