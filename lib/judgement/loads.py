"""How a load grows: the steps of a trial, decided before anything is started."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lib.records import dataclass

#: A step has time for enough messages to say something, so a long ramp has no more of them than this.
_MOST_STEPS = 10
#: A launch takes its time: at least this share of its step is measured with all of its orchestrations.
_LEAST_MEASURED = 0.5


@dataclass(frozen=True)
class Rung:
    """Grow to so many orchestrations, then measure.

    `seconds` is for both, and `least_seconds` of them for the measuring, however long the launches took.
    """

    orchestrations: int
    seconds: float
    least_seconds: float


@dataclass(frozen=True)
class Plan:
    """A trial. Seconds lie between two starts; `rate` is messages a second to each orchestration."""

    rungs: tuple[Rung, ...]
    interval_seconds: float
    rate: float

    @property
    def seconds(self) -> float:
        """How long it is to last, without the launches that nobody can know."""
        return sum(one.seconds for one in self.rungs)

    @property
    def most(self) -> int:
        """The orchestrations at the end."""
        return self.rungs[-1].orchestrations


def concurrent(count: int, *, interval: float, hold: float, rate: float) -> Plan:
    """All at once: so many orchestrations, held for `hold` seconds."""
    return Plan((Rung(count, hold, hold),), interval, rate)


def ramp(most: int, *, duration: float, hold: float, rate: float) -> Plan:
    """From few to `most` within `duration` seconds, in up to ten steps; the last is held for `hold` seconds more."""
    counts = _counts(most)
    each = duration / len(counts)
    rungs = [Rung(count, each, _LEAST_MEASURED * each) for count in counts[:-1]]
    last = Rung(counts[-1], each + hold, _LEAST_MEASURED * each + hold)
    return Plan((*rungs, last), 0.0, rate)


def _counts(most: int) -> Sequence[int]:
    steps = min(most, _MOST_STEPS)
    return [math.ceil(most * step / steps) for step in range(1, steps + 1)]
