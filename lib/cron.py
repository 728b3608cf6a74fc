"""Cron lines: when their times come, by the clock on the wall of this machine."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta, tzinfo

from lib.errors import Usage

#: What nobody writes by hand is more than a line of cron.
_LONGEST = 100


class _LocalTime(tzinfo):
    """The zone of this machine as the C library knows it: by TZ, else by /etc/localtime.

    zoneinfo knows zones by their names only, and a fixed offset knows nothing of the next change.
    """

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return when.replace(tzinfo=None).astimezone().utcoffset() if when else None

    def dst(self, when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None) -> str | None:
        return None

    def fromutc(self, when: datetime) -> datetime:
        there = when.replace(tzinfo=UTC).astimezone()
        first = there.replace(tzinfo=None, fold=0)
        # The same reading of the clock stands for two times when it is set back.
        return first.replace(tzinfo=self, fold=int(first.astimezone().utcoffset() != there.utcoffset()))


_HERE = _LocalTime()


def after(line: str, at: int) -> int | None:
    """The first time of a line after `at` (both UTC milliseconds); None when there is none within 50 years.

    Raises `Usage` for a line that is none. A time that the clock jumps over comes right after the jump, one that it
    shows twice comes once; lines of every minute or every hour go on with the hours that really pass. That is Debian's
    cron, and cronsim's README.
    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only where a cron line is used

    if len(line.split()) != 5 or len(line) > _LONGEST:  # cronsim also takes six, with seconds
        raise _wrong(line, "it has five fields: minute, hour, day of the month, month, day of the week")
    try:
        for found in CronSim(line, _local(at)):
            milliseconds = int(found.timestamp() * 1000)
            # From within the hour that the clock shows twice it may begin with the first of the two.
            if milliseconds > at:
                return milliseconds
    except CronSimError as error:
        raise _wrong(line, str(error)) from None
    return None


def before(line: str, at: int, *, number: int) -> int | None:
    """The time of a line that lies about `number` times before `at`; None when there are not so many."""
    from cronsim import CronSim  # noqa: PLC0415 - only where a cron line is used

    back = CronSim(line, _local(at), reverse=True)
    found = list(itertools.islice(back, number))
    return int(found[-1].timestamp() * 1000) if len(found) == number else None


def offset_minutes(at: int) -> int:
    """How far the clock on the wall of this machine is ahead of UTC at a time (UTC milliseconds)."""
    offset = _local(at).utcoffset()
    assert offset is not None
    return round(offset.total_seconds() / 60)


def _local(at: int) -> datetime:
    time.tzset()  # the daemon lives long: the machine's zone may be another by now
    return datetime.fromtimestamp(at / 1000, _HERE)


def _wrong(line: str, why: str) -> Usage:
    return Usage(f"{line!r} is no cron line: {why}", hint='--cron "0 9 * * 1-5" is at 9:00 from Monday to Friday')
