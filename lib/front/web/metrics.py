"""GET /metrics: what a monitoring collects, in Prometheus' text format 0.0.4."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from flask import Blueprint, Response

from lib import checkins, host, limits, notices, overview, service, store
from lib.front.web.site import desk, site
from lib.models import NoticeStatus, Program
from lib.overview import Line

part = Blueprint("metrics", __name__)

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DAY_MS = 24 * 3600 * 1000

Labels = Mapping[str, str]


@part.get("/metrics")
def collect() -> Response:
    """Every figure at this moment."""
    here = desk()
    return Response("".join(_figures(here.db, here.home)), content_type=_TYPE)


def _figures(db: sqlite3.Connection, home: Path) -> Iterator[str]:
    now = host.now_ms()
    seen, punctual = overview.look(db, now=now), checkins.figures(db, since=now - _DAY_MS)
    statuses = Counter(line.status for line in seen.lines)
    real = [line for line in seen.lines if line.program != Program.REHEARSAL]
    yield from _metric("up", "Whether the scheduler runs.", [({}, int(service.running(home) is not None))])
    yield from _metric(
        "orchestrations", "Live orchestrations, and those that ended within a day.", _by("status", statuses)
    )
    yield from _metric("agents", "Agents by orchestration and state.", _agents(seen.lines))
    yield from _metric("messages_waiting", "Messages that have not arrived.", _of(seen.lines, "waiting"))
    yield from _metric("spent_dollars", "Spent, at list prices.", [(_name(one), one.usd or 0.0) for one in real])
    yield from _metric("used_tokens", "Tokens used.", [(_name(one), one.tokens) for one in real])
    yield from _metric("queue_entries", "Specs of the queue that are not over.", _by("status", seen.queue))
    yield from _metric("queue_paused", "Whether the queue is paused.", [({}, int(seen.queue_paused))])
    yield from _metric("limits", "Usage limits in force.", [({}, len(limits.open_limits(db)))])
    yield from _metric("check_ins_missed", "Check-ins of the last day that nobody got.", _by("reason", punctual.missed))
    yield from _metric(
        "notices_waiting", "Notices that are not sent.", [({}, notices.counts(db).get(NoticeStatus.QUEUED, 0))]
    )
    yield from _metric("events_total", "Events recorded.", [({}, store.newest_event(db))], kind="counter")
    yield from _metric("pages", "Pages of the dashboard that listen.", [({}, site().live.pages)])


def _name(line: Line) -> Labels:
    return {"session": line.session}


def _by(label: str, counts: Mapping[str, int]) -> list[tuple[Labels, float]]:
    return [({label: name}, count) for name, count in sorted(counts.items())]


def _of(lines: Iterable[Line], figure: str) -> list[tuple[Labels, float]]:
    return [(_name(line), getattr(line, figure)) for line in lines]


def _agents(lines: Iterable[Line]) -> list[tuple[Labels, float]]:
    return [({**_name(line), "state": state}, count) for line in lines for state, count in sorted(line.states.items())]


def _metric(name: str, words: str, values: Iterable[tuple[Labels, float]], *, kind: str = "gauge") -> Iterator[str]:
    full = f"tmux_orchestrator_{name}"
    yield f"# HELP {full} {words}\n# TYPE {full} {kind}\n"
    # Of several teams of one session the figures are one: a name with the same labels may stand here once.
    sums: Counter[tuple[tuple[str, str], ...]] = Counter()
    for labels, value in values:
        sums[tuple(labels.items())] += value  # type: ignore[assignment]  # a counter of dollars
    for key, value in sums.items():
        shown = ",".join(f'{label}="{_quoted(text)}"' for label, text in key)
        yield f"{full}{f'{{{shown}}}' if shown else ''} {value:g}\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
