"""Cron lines by the clock on the wall, over both changes of the clock: real zones, the real C library."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib import cron
from lib.errors import Usage
from tests.conftest import ROOT

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
#: The same by rule instead of by name, for which no database of zones is needed.
BERLIN_BY_RULE = "CET-1CEST,M3.5.0,M10.5.0/3"
HOUR_MS = 3_600_000


@pytest.fixture
def zone() -> Iterator[Callable[[str], None]]:
    """Sets the zone of this machine, for the test."""
    patch = pytest.MonkeyPatch()

    def set_to(name: str) -> None:
        patch.setenv("TZ", name)
        time.tzset()

    yield set_to
    patch.undo()
    time.tzset()


def utc(text: str) -> int:
    """`2026-03-29 00:30` as UTC milliseconds."""
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp() * 1000)


def wall(at: int) -> str:
    """What the clock on the wall shows, with its distance from UTC."""
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%d %H:%M%z")


def times(line: str, at: int, number: int) -> list[str]:
    found = []
    for _ in range(number):
        after = cron.after(line, at)
        assert after is not None and after > at
        found.append(wall(after))
        at = after
    return found


# Debian's cron: https://manpages.debian.org/cron.8, "Notes"; cronsim's README, "DST Transitions".
CHANGES = [
    # Berlin, 29 March 2026: at 02:00 the clock jumps to 03:00.
    # A time that does not exist comes right after the jump, and the next day at its own time.
    (BERLIN, "30 2 * * *", "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
    (BERLIN, "15,45 1-3 * * *", "2026-03-29 00:30", ["29 01:45+0100", "29 03:00+0200", "29 03:15+0200"]),
    # Every hour goes on with the hours that pass.
    (BERLIN, "0 * * * *", "2026-03-28 23:30", ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]),
    (BERLIN, "*/30 * * * *", "2026-03-29 00:10", ["29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]),
    # A time of the day keeps its place on the wall, 23 hours after the last one.
    (BERLIN, "0 9 * * *", "2026-03-28 05:00", ["28 09:00+0100", "29 09:00+0200", "30 09:00+0200"]),
    # Berlin, 25 October 2026: at 03:00 the clock is set back to 02:00.
    # A time that exists twice comes once, the first time.
    (BERLIN, "30 2 * * *", "2026-10-24 12:00", ["25 02:30+0200", "26 02:30+0100"]),
    (BERLIN, "0 2,3 * * *", "2026-10-24 23:00", ["25 02:00+0200", "25 03:00+0100", "26 02:00+0100"]),
    # Also when it is looked for between the two.
    (BERLIN, "30 2 * * *", "2026-10-25 01:15", ["26 02:30+0100"]),
    (BERLIN, "30 2 * * *", "2026-10-25 00:15", ["25 02:30+0200", "26 02:30+0100"]),
    # Every hour goes on with the hours that pass.
    (BERLIN, "0 * * * *", "2026-10-24 23:30", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
    (BERLIN, "*/30 * * * *", "2026-10-25 00:10", ["25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"]),
    (BERLIN, "0 9 * * *", "2026-10-24 05:00", ["24 09:00+0200", "25 09:00+0100", "26 09:00+0100"]),
    # New York, 8 March 2026: at 02:00 the clock jumps to 03:00.
    (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", ["08 03:00-0400", "09 02:30-0400"]),
    (NEW_YORK, "0 * * * *", "2026-03-08 05:30", ["08 01:00-0500", "08 03:00-0400", "08 04:00-0400"]),
    (NEW_YORK, "*/20 * * * *", "2026-03-08 06:30", ["08 01:40-0500", "08 03:00-0400", "08 03:20-0400"]),
    # New York, 1 November 2026: at 02:00 the clock is set back to 01:00.
    (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", ["01 01:30-0400", "02 01:30-0500"]),
    (NEW_YORK, "30 1 * * *", "2026-11-01 06:15", ["02 01:30-0500"]),
    (NEW_YORK, "0 * * * *", "2026-11-01 04:30", ["01 01:00-0400", "01 01:00-0500", "01 02:00-0500"]),
    # A zone by rule is understood as well.
    (BERLIN_BY_RULE, "30 2 * * *", "2026-03-28 12:00", ["29 03:00+0200", "30 02:30+0200"]),
    (BERLIN_BY_RULE, "0 * * * *", "2026-10-24 23:30", ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"]),
    ("UTC", "30 2 * * *", "2026-03-28 12:00", ["29 02:30+0000", "30 02:30+0000"]),
]


@pytest.mark.parametrize(("name", "line", "start", "found"), CHANGES)
def test_over_a_change_of_the_clock(
    zone: Callable[[str], None], name: str, line: str, start: str, found: list[str]
) -> None:
    zone(name)
    assert times(line, utc(start), len(found)) == found


@pytest.mark.parametrize("name", [BERLIN, NEW_YORK])
@pytest.mark.parametrize(
    "line", ["30 2 * * *", "30 1 * * *", "0 * * * *", "*/20 * * * *", "15,45 1-3 * * *", "0 9 * * 1-5"]
)
@pytest.mark.parametrize("start", ["2026-03-08 00:00", "2026-03-29 00:00", "2026-10-25 00:00", "2026-11-01 00:00"])
def test_whoever_asks_when_gets_the_same_times(zone: Callable[[str], None], name: str, line: str, start: str) -> None:
    # A daemon that is started anew in the middle asks from there.
    zone(name)
    begin = utc(start)
    one_by_one = [begin]
    while one_by_one[-1] < begin + 12 * HOUR_MS:
        after = cron.after(line, one_by_one[-1])
        assert after is not None
        one_by_one.append(after)
    for moment in range(begin, begin + 12 * HOUR_MS, 300_000):
        assert cron.after(line, moment) == next(time for time in one_by_one if time > moment)


def test_the_zone_is_the_one_of_now(zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    zone(BERLIN)
    assert times("0 9 * * *", utc("2026-06-01 00:00"), 1) == ["01 09:00+0200"]
    monkeypatch.setenv("TZ", NEW_YORK)  # a laptop that travels; nobody tells the daemon
    after = cron.after("0 9 * * *", utc("2026-06-01 00:00"))
    assert after == utc("2026-06-01 13:00")


@pytest.mark.parametrize(
    ("line", "start", "first"),
    [
        # Names, lists, steps, the last day, the first Monday, a leap day.
        ("0 9 * * mon-fri", "2026-11-28 12:00", "2026-11-30 09:00"),
        ("0 9,17 * * *", "2026-11-28 12:00", "2026-11-28 17:00"),
        ("0 0 L * *", "2026-11-28 12:00", "2026-11-30 00:00"),
        ("0 0 * * MON#1", "2026-11-28 12:00", "2026-12-07 00:00"),
        ("0 0 29 2 *", "2026-11-28 12:00", "2028-02-29 00:00"),
        # A day of the month or of the week, as cron has it.
        ("0 0 13 * 5", "2026-11-14 12:00", "2026-11-20 00:00"),
        # Never at the time itself.
        ("0 12 * * *", "2026-11-28 12:00", "2026-11-29 12:00"),
    ],
)
def test_what_lines_mean(zone: Callable[[str], None], line: str, start: str, first: str) -> None:
    zone("UTC")
    assert cron.after(line, utc(start)) == utc(first)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "five fields"),
        ("0 9 * *", "five fields"),
        # cronsim would take six, the first of them seconds.
        ("0 0 9 * * 1", "five fields"),
        ("60 9 * * *", "Bad minute"),
        ("0 24 * * *", "Bad hour"),
        ("0 9 31 2 *", "Bad day-of-month"),
        ("0 9 * * funday", "Bad day-of-week"),
        ("@daily", "five fields"),
        ("0 9 * * " + "1," * 60 + "1", "five fields"),
        ("0 9 * * ²", "Bad day-of-week"),
    ],
)
def test_a_line_that_is_none_is_refused(line: str, says: str) -> None:
    with pytest.raises(Usage, match=says):
        cron.after(line, 0)


def test_a_line_that_never_comes_is_found_out() -> None:
    assert cron.after("* * */20 * 1L", utc("2020-01-01 00:00")) is None


_FIELD = st.text("0123456789*/,-#LW?abcdefMON ", max_size=8)


@given(st.lists(_FIELD, min_size=5, max_size=5).map(" ".join))
@example("9" * 90 + " * * * *")
@example("0 9 * * 1#1-3")
@example("0 9 L/2 * *")
def test_whatever_somebody_types_is_a_time_or_a_sentence(line: str) -> None:
    at = utc("2026-11-28 12:00")
    try:
        found = cron.after(line, at)
    except Usage as refused:
        assert "no cron line" in refused.sentence
    else:
        assert found is None or found > at


@pytest.mark.parametrize("line", ["*/10 * * * *", "0 9 * * 1-5", "30 2 * * *", "* * * 1 *"])
@pytest.mark.parametrize("end", ["2026-03-29 12:00", "2026-10-25 12:00", "2026-07-01 00:00"])
def test_so_many_before(zone: Callable[[str], None], line: str, end: str) -> None:
    zone(BERLIN)
    found = cron.before(line, utc(end), number=24)
    assert found is not None
    number, at = 0, found - 1
    while (after := cron.after(line, at)) is not None and after < utc(end):
        number, at = number + 1, after
    assert number == 24


def test_there_are_not_so_many_before() -> None:
    assert cron.before("* * */20 * 1L", utc("2026-07-01 00:00"), number=24) is None


WITHOUT = """
import sys
from pathlib import Path
from lib import checkins, store, daemon
from tests.agents import a_team
db = store.connect(Path(sys.argv[1]))
agent = a_team(db, "developer")[0]
checkins.add(db, agent.id, "look", minutes=1, now=0, recurring=True)
checkins.fire_due(db, now=10_000_000)
print("cronsim" in sys.modules)
checkins.add(db, agent.id, "look", cron_line="0 9 * * *", now=0)
print("cronsim" in sys.modules)
"""


def test_the_library_is_loaded_only_where_a_line_is_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
