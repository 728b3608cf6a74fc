"""What was measured: values with their unit and target, and the same job done by others in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.results import Other, Row, Unit


@dataclass(frozen=True)
class Alternative:
    """Somebody else's way to do the same job. Without values it has not done it once; `note` may say why."""

    name: str
    values: tuple[float, ...]
    note: str = ""

    def beside(self, ours: Sequence[float]) -> Other:
        """As it is kept, with how many times its value fits into ours."""
        middle, slowest = (median(self.values), p99(self.values)) if self.values else (None, None)
        return Other(self.name, middle, slowest, len(self.values), ratio(ours, self.values), self.note)


@dataclass(frozen=True)
class Figure:
    """One figure. `target` is the most that the median may be, if there is one.

    `condition` puts figures that differ in what was measured into one line of a table. A `headline` stands in
    README as well, so its name has to say everything.
    """

    name: str
    unit: Unit
    values: tuple[float, ...]
    target: float | None = None
    note: str = ""
    alternatives: tuple[Alternative, ...] = ()
    condition: str = ""
    headline: bool = False

    def row(self) -> Row:
        """As it is kept."""
        return Row(
            name=self.name,
            unit=self.unit,
            median=median(self.values) if self.values else None,
            p99=p99(self.values) if self.values else None,
            runs=len(self.values),
            target=self.target,
            note=self.note,
            condition=self.condition,
            headline=self.headline,
            others=tuple(other.beside(self.values) for other in self.alternatives),
        )


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """How many times theirs fits into ours; None when there is nothing to compare.

    Measured in turns, pair by pair: a busy machine slows both, so that this moves less than either.
    """
    if not ours or not theirs or 0 in theirs:
        return median(ours) / median(theirs) if ours and theirs and median(theirs) else None
    if len(ours) == len(theirs):
        return median([one / other for one, other in zip(ours, theirs, strict=True)])
    return median(ours) / median(theirs)
