"""Times as people say them on a command line, and as they are shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lib.errors import Usage

#: How a time may be said, for the help of an option.
FORMS = "1d, 2h, 30m or 90s ago, 14:05, or an ISO time"
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def time_of(text: str, *, now: int) -> int:
    """The time (UTC milliseconds) that a person means. Raises `Usage`.

    `1d`, `2h`, `30m`, `90s` are before now, `14:05` and `14:05:30` the last time that the clock showed this, `now` is
    now, and 13 digits are UTC milliseconds, as --json has them. An ISO time without a zone is local.
    """
    if text == "now":
        return now
    if found := re.fullmatch(r"([0-9]{1,6})([smhdw])", text):
        return now - int(found[1]) * _UNITS[found[2]]
    if re.fullmatch(r"[0-9]{13}", text):
        return int(text)
    try:
        if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
            return _last(text, now)
        return _milliseconds(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise Usage(f"TIME must be like 1d, 2h, 30m, 14:05 or 2030-01-31T08:00, not {text!r}") from None


def _last(clock: str, now: int) -> int:
    """The last time, today or yesterday, at which the clock on the wall showed this."""
    here = datetime.fromtimestamp(now / 1000)
    hours, minutes, seconds = [*map(int, clock.split(":")), 0][:3]
    then = here.replace(hour=hours, minute=minutes, second=seconds, microsecond=0)
    return _milliseconds(then if then <= here else then - timedelta(days=1))


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)


def full(at: int) -> str:
    """A time with its day, to the second, by the clock on the wall."""
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M:%S")
