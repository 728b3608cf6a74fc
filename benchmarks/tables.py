"""The tables of RESULTS.md and of README, from what is kept in results.json and from nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.results import Measured, Other, Row, Unit

BEGIN = "<!-- figures: benchmarks/run.py --publish writes what is between these marks -->"
END = "<!-- end of figures -->"

_DIGITS: dict[Unit, int] = {
    **{"s": 2, "ms": 0, "%": 0, "MB": 0, "KB": 0, "/s": 0, "h": 0},
    **{"messages": 0, "check-ins": 0, "requests": 0, "news": 0, "statements": 0},
}
#: Below ten these are shown more exactly.
_DIGITS_OF_FEW: dict[Unit, int] = {"ms": 1, "%": 2, "requests": 1}
_RUNS_FOR_P99 = 50
_HEAD = "# Measurements\n\n" + " ".join(
    (
        "Written by `benchmarks/run.py --publish` from `results.json`, which has the machine, the versions and the",
        "load of each. A ratio is ours in theirs, from the same run and, where it can be, in turns: at 0.5 ours took",
        "half, and of what arrives or is done in a second ours is half as much. Dates differ because each",
        "measurement is published when it was taken; *few* are those of `--quick`.",
        "On a busy machine compare ratios, not milliseconds: the load average of two cores stands behind each date.",
    )
)


def results_page(measured: Sequence[Measured]) -> str:
    """RESULTS.md: for each area what its measurements are about, and one table; one more where conditions differ."""
    parts = [_HEAD]
    for area, group in itertools.groupby(measured, key=lambda one: one.area):
        found = list(group)
        parts += [f"## {area}", "\n".join(f"- {one.about} {_circumstances(one)}" for one in found)]
        parts += filter(None, (as_markdown(found), _by_condition(found)))
    parts += ["## Machines", *_machines(measured)]
    return "\n\n".join(parts) + "\n"


def readme_table(measured: Sequence[Measured]) -> str:
    """The headlines, each with its alternatives and its date."""
    lines = ["| Figure | Ours | Target | Alternative | Ratio | Date |", "|---|--:|--:|---|--:|---|"]
    for one in measured:
        for row in one.rows:
            if row.headline:
                lines += _headline(row, one)
    return "\n".join(lines)


def with_table(readme: str, table: str) -> str:
    """README with this table between its marks. Raises `ValueError` when it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README has no place for the figures: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def as_markdown(measured: Sequence[Measured]) -> str:
    """One table of all figures, each followed by its alternatives; empty when there are none."""
    lines = ["| Figure | Median | p99 | n | Ratio | Target | Date | |", "|---|--:|--:|--:|--:|--:|---|---|"]
    for one in measured:
        for row in one.rows:
            if not row.condition:
                lines += _lines(row, one)
    return "\n".join(lines) if len(lines) > 2 else ""


def _lines(row: Row, one: Measured) -> Iterator[str]:
    met = {None: "", True: "met", False: "missed"}[row.is_met]
    remark = "; ".join(filter(None, (met, row.note)))
    yield f"| {row.name} | {_values(row, row)} | | {_target(row)} | {_date(one)} | {remark} |"
    for other in row.others:
        yield f"| — {other.name} | {_values(row, other)} | {_ratio(other)} | | | {other.note} |"


def _by_condition(measured: Sequence[Measured]) -> str:
    """One line for each way under each condition, with a column for each figure; empty when there are none."""
    rows = [(row, _date(one)) for one in measured for row in one.rows if row.condition]
    names = list(dict.fromkeys(row.name for row, _ in rows))
    lines = [f"| Condition | Way | {' | '.join(names)} | Date |", f"|---|---|{'--:|' * len(names)}---|"]
    for (condition, date), group in itertools.groupby(rows, key=lambda pair: (pair[0].condition, pair[1])):
        of_name = {row.name: row for row, _ in group}
        ways = list(dict.fromkeys(other.name for row in of_name.values() for other in row.others))
        for way in ["ours", *ways]:
            cells = [_cell(of_name[name], way) if name in of_name else "" for name in names]
            lines.append(f"| {condition} | {way} | {' | '.join(cells)} | {date} |")
    return "\n".join(lines) if rows else ""


def _cell(row: Row, way: str) -> str:
    value = row if way == "ours" else next((other for other in row.others if other.name == way), None)
    if value is None or value.median is None:
        return "—"
    if row.unit == "%":
        return f"{value.median:.0f} %"
    return f"{_shown(value.median, row.unit)}, p99 {_shown(value.p99, row.unit)}"


def _headline(row: Row, one: Measured) -> Iterator[str]:
    ours, target = _ours(row), _target(row) + (", missed" if row.is_met is False else "")
    if not row.others:
        yield f"| {_said(row)} | {ours} | {target} | | | {_date(one)} |"
    for number, other in enumerate(row.others):
        front = f"{_said(row)} | {ours} | {target}" if number == 0 else " | | "
        yield f"| {front} | {other.name}: {_shown(other.median, row.unit)} | {_ratio(other)} | {_date(one)} |"


def _ours(row: Row) -> str:
    """With p99 where there are enough runs for it to mean something."""
    slowest = f", p99 {_shown(row.p99, row.unit)}" if row.runs >= _RUNS_FOR_P99 else ""
    return _shown(row.median, row.unit) + slowest


def _said(row: Row) -> str:
    return f"{row.condition}: {row.name}" if row.condition else row.name


def _values(row: Row, value: Row | Other) -> str:
    return f"{_shown(value.median, row.unit)} | {_shown(value.p99, row.unit)} | {value.runs}"


def _shown(value: float | None, unit: Unit) -> str:
    if value is None:
        return "—"
    digits = _DIGITS_OF_FEW.get(unit, _DIGITS[unit]) if value < 10 else _DIGITS[unit]
    return f"{value:,.{digits}f} {unit}"


def _ratio(other: Other) -> str:
    return "" if other.ratio is None else f"{other.ratio:.2f}"


def _target(row: Row) -> str:
    return "" if row.target is None else f"{row.target:g} {row.unit}"


def _date(one: Measured) -> str:
    return f"{one.at:%Y-%m-%d}{', few' if one.is_quick else ''}"


def _circumstances(one: Measured) -> str:
    load = f", load {one.load[0]:.1f} to {one.load[1]:.1f}" if one.load else ""
    takes = f", takes {one.seconds:.0f} s" if one.seconds else ""
    return f"(`{one.by}`: {_date(one)}{load}{takes})"


def _machines(measured: Iterable[Measured]) -> Iterator[str]:
    """Each machine with its versions, and what was measured there."""
    places: dict[str, list[str]] = {}
    for one in measured:
        versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        places.setdefault(f"{one.machine}, {versions}", []).append(one.name)
    return (f"{place}: {', '.join(names)}." for place, names in places.items())
