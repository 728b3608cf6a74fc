"""When a limit resets, from the words of the client: its own forms, other clocks, and what is no time at all."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from lib import resets

#: A Saturday evening in November, in UTC.
NOW = datetime(2026, 11, 28, 18, 30, tzinfo=UTC)


def ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "at"),
    [
        # As Claude Code 2.1.330 says it: within a day the time alone, with its zone.
        ("You've hit your 5-hour limit · resets 8:10pm (UTC)", utc(2026, 11, 28, 20, 10)),
        ("You've hit your session limit · resets 11pm (UTC)", utc(2026, 11, 28, 23)),
        ("You've hit your 5-hour limit · resets 1:02am (UTC)", utc(2026, 11, 29, 1, 2)),
        ("You've hit your 5-hour limit · resets 12am (UTC)", utc(2026, 11, 29)),
        ("You've hit your 5-hour limit · resets 12:30pm (UTC)", utc(2026, 11, 29, 12, 30)),
        ("You've hit your 5-hour limit · resets 3am (America/New_York)", utc(2026, 11, 29, 8)),
        ("You've hit your 5-hour limit · resets 1:30am (Asia/Kolkata)", utc(2026, 11, 28, 20)),
        # Beyond a day with the date, in another year with the year.
        ("You've hit your weekly limit · resets Dec 3, 5pm (America/New_York)", utc(2026, 12, 3, 22)),
        ("You've hit your weekly limit · resets Nov 30, 6:10am (UTC)", utc(2026, 11, 30, 6, 10)),
        ("You've hit your Opus limit · resets Jan 2, 2027, 5pm (UTC)", utc(2027, 1, 2, 17)),
        ("You've hit your weekly limit · resets Jan 2, 5pm (UTC)", utc(2027, 1, 2, 17)),
        ("You've hit your monthly spend limit · your weekly limit resets Dec 3, 5pm (UTC)", utc(2026, 12, 3, 17)),
        ("spend limit reached · resets Dec 8", utc(2026, 12, 8)),
        # As it stands below the composer, without a zone: the machine's.
        ("Usage limit reached · limit resets 8:10pm", utc(2026, 11, 28, 20, 10)),
        ("resets Dec 3, 5pm", utc(2026, 12, 3, 17)),
        # Older versions.
        ("Claude usage limit reached. Your limit will reset at 11pm (UTC).", utc(2026, 11, 28, 23)),
        ("5-hour limit reached ∙ resets 3am", utc(2026, 11, 29, 3)),
        ("Claude AI usage limit reached|1795910400", utc(2026, 11, 29)),
        ("Your limit resets at 21:15 (UTC)", utc(2026, 11, 28, 21, 15)),
        # The words leave out the seconds, and take their way: just passed is now, and not tomorrow.
        ("resets 6:30pm (UTC)", utc(2026, 11, 28, 18, 30)),
        ("resets 6:21pm (UTC)", utc(2026, 11, 28, 18, 21)),
        ("resets 6:10pm (UTC)", utc(2026, 11, 29, 18, 10)),
        # The first that can be read.
        ("it resets soon · resets 9pm (UTC)", utc(2026, 11, 28, 21)),
    ],
)
def test_a_reset_time_is_read(words: str, at: datetime) -> None:
    assert resets.parse(words, now=ms(NOW), zone=UTC) == ms(at)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "You've hit your limit",
        "API Error: Request rejected (429)",
        "You've hit your limit. It resets .",
        "resets 25:00 (UTC)",  # no such hour
        "resets 13pm (UTC)",
        "resets 0am (UTC)",
        "resets Feb 30, 5pm (UTC)",  # no such day
        "resets 3am (Middle/Earth)",  # no such zone
        "resets 3am (../../etc/passwd)",
        "resets 3",  # of what?
        "the password resets 3 times",
        "limit reached|17",
    ],
)
def test_what_is_no_time_is_none(words: str) -> None:
    assert resets.parse(words, now=ms(NOW), zone=UTC) is None


def test_a_time_is_that_of_its_zone_on_that_day() -> None:
    # New York goes back an hour in the night to November 1: 3am after it is UTC-5, and 11pm before it UTC-4.
    evening = datetime(2026, 10, 31, 22, 0, tzinfo=ZoneInfo("America/New_York"))
    said = "resets 3am (America/New_York)"
    assert resets.parse(said, now=ms(evening)) == ms(utc(2026, 11, 1, 8))
    assert resets.parse("resets 11pm (America/New_York)", now=ms(evening)) == ms(utc(2026, 11, 1, 3))


def test_a_time_that_comes_twice_is_the_one_to_come() -> None:
    # 1:30am comes twice in that night; after the first one it is the second.
    between = utc(2026, 11, 1, 5, 45)
    assert resets.parse("resets 1:30am (America/New_York)", now=ms(between)) == ms(utc(2026, 11, 1, 6, 30))


@pytest.mark.parametrize("value", [None, "1795910400", True, -5, 0, 10**15, 1.0e30, [], {}])
def test_seconds_that_cannot_be_a_reset_time(value: object) -> None:
    assert resets.checked(value, now=ms(NOW)) is None


def test_seconds_become_milliseconds() -> None:
    assert resets.checked(1795910400, now=ms(NOW)) == ms(utc(2026, 11, 29))
