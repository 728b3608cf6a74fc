"""What was measured: values with their unit and target, and the table that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_DIGITS = {"s": 2, "ms": 0, "%": 2, "MB": 0, "x": 2}


@dataclass(frozen=True)
class Figure:
    """One row: every single value is kept. `target` is the most that the median may be, if there is one."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        if len(self.values) < 2:
            return self.values[0]
        return statistics.quantiles(self.values, n=100, method="inclusive")[98]

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.median <= self.target

    def as_data(self) -> dict[str, object]:
        """The row for --json and latest.json."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "p99": self.p99,
            "runs": len(self.values),
            "target": self.target,
            "met": self.is_met,
            "note": self.note,
            "values": list(self.values),
        }


def ratio(name: str, of: Sequence[float], to: Sequence[float], *, note: str = "") -> Figure:
    """How many times `to` fits into `of`, pair by pair: a busy machine slows both, so this moves less than either."""
    return Figure(name, "x", tuple(one / other for one, other in zip(of, to, strict=True)), note=note)


def as_markdown(figures: Sequence[Figure]) -> str:
    """The table of README and RESULTS.md."""
    lines = ["| Figure | Median | p99 | Runs | Target | |", "|---|--:|--:|--:|--:|---|"]
    for figure in figures:
        met = {None: "", True: "met", False: "missed"}[figure.is_met]
        target = "" if figure.target is None else f"{figure.target:g} {figure.unit}"
        remark = "; ".join(filter(None, (met, figure.note)))
        cells = (figure.name, _shown(figure, figure.median), _shown(figure, figure.p99))
        lines.append(f"| {' | '.join(cells)} | {len(figure.values)} | {target} | {remark} |")
    return "\n".join(lines)


def _shown(figure: Figure, value: float) -> str:
    return f"{value:.{_DIGITS[figure.unit]}f} {figure.unit}"
