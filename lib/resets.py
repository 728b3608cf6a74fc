"""When a usage limit resets, from the words in which Claude Code says so.

Its forms, read in Claude Code 2.1.330 and in captured screens: a time alone within a day (`resets 3am (UTC)`,
`resets 8:10am (Europe/Berlin)`), with a date beyond that (`resets Oct 3, 5pm (America/New_York)`), with a year in
another year (`resets Jan 2, 2027, 5pm (UTC)`), and a date alone for what is paid by the month (`resets Aug 8`). Older
versions say `will reset at 3pm`, or append the time in seconds (`limit reached|1795335000`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_RESETS = re.compile(
    r"\breset(?:s|ting)?:?\s+(?:at\s+|on\s+)?"
    rf"(?:(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?\s+(?P<day>\d{{1,2}})(?:,\s*(?P<year>\d{{4}}))?(?:,|\s+at)?\s*)?"
    r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>[ap]m)?)?"
    r"(?:\s*\((?P<zone>[^()]{1,60})\))?",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"\blimit reached\s*\|\s*(\d{10})\b", re.IGNORECASE)
#: A time without a date is the next one. One that has just passed is meant as well: the words round to the minute
#: before, and take their way; that is never the same time tomorrow.
_JUST_PASSED = timedelta(minutes=10)
#: No limit lasts longer: what lies further ahead was not meant so.
LONGEST_MS = 400 * 24 * 3600 * 1000


def parse(words: str, *, now: int, zone: tzinfo | None = None) -> int | None:
    """The reset time that words name (UTC milliseconds); None when they name none that can be read.

    `now` is when they were said, `zone` whose clock they mean when they do not say (the machine's).
    """
    if epoch := _EPOCH.search(words):
        return checked(int(epoch[1]), now=now)
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - 3 ms, and limits are rarer than messages

    said_at = datetime.fromtimestamp(now / 1000, UTC)
    for found in _RESETS.finditer(words):
        try:
            at = _at(found, said_at, ZoneInfo(found["zone"]) if found["zone"] else zone)
        except (ValueError, KeyError, OSError):  # no such day, hour or zone
            continue
        if at is not None:
            return round(at.timestamp() * 1000)
    return None


def checked(seconds: object, *, now: int) -> int | None:
    """A reset time in epoch seconds as UTC milliseconds; None for what cannot be one."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    at = seconds * 1000
    return round(at) if 0 < at < now + LONGEST_MS else None


def _at(found: re.Match[str], said_at: datetime, zone: tzinfo | None) -> datetime | None:
    local = said_at.astimezone(zone)
    time = _time(found)
    if found["month"] is None:
        return None if time is None else _next_time(local, *time, zone)
    hour, minute = time or (0, 0)
    month, day = _MONTHS.index(found["month"].lower()) + 1, int(found["day"])
    years = [int(found["year"])] if found["year"] else [local.year, local.year + 1]
    dates = [datetime(year, month, day, hour, minute, tzinfo=zone).astimezone() for year in years]
    # A date without a year is within one: in December, January is the next year's.
    return next((at for at in dates if at >= said_at - timedelta(days=1)), None)


def _time(found: re.Match[str]) -> tuple[int, int] | None:
    if found["hour"] is None or (found["half"] is None and found["minute"] is None):
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    if found["half"] is None:
        return hour, minute
    if not 1 <= hour <= 12:
        raise ValueError(f"no hour of half a day: {hour}")
    return hour % 12 + (12 if found["half"].lower() == "pm" else 0), minute


def _next_time(local: datetime, hour: int, minute: int, zone: tzinfo | None) -> datetime | None:
    """The next time that clocks of the zone show this; in the night of a change they may show it twice, or not."""
    for days in (-1, 0, 1, 2):
        date = local.date() + timedelta(days=days)
        for fold in (0, 1):
            at = datetime(date.year, date.month, date.day, hour, minute, tzinfo=zone, fold=fold).astimezone(UTC)
            if at >= local - _JUST_PASSED:
                return at
    return None
