"""What a chaos test does and what it comes to: the seeded plan of its strikes, and what of its promises was broken."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

from lib.records import dataclass


class Severity(StrEnum):
    """How much a strike takes away: a part that is started again, the team, or the machine."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class Kind:
    """A kind of strike, by its name on the command line and in words."""

    name: str
    severity: Severity
    words: str
    #: Whether it hits nothing but the team and the scheduler: a team of a person's own can bear it.
    is_sparing: bool = False


#: In the order of the documentation; a severity includes those below it.
KINDS = (
    Kind("kill-agent", Severity.LOW, "kill -9 of an agent", is_sparing=True),
    Kind("kill-daemon", Severity.LOW, "kill -9 of the scheduler", is_sparing=True),
    Kind("kill-sender", Severity.LOW, "kill -9 of senders in the middle of their messages", is_sparing=True),
    Kind("stop-daemon", Severity.LOW, "SIGSTOP of the scheduler", is_sparing=True),
    Kind("swallowed-enter", Severity.LOW, "an agent does not hear Enter"),
    Kind("dialog", Severity.LOW, "an agent asks a question while messages come"),
    Kind("kill-server", Severity.MEDIUM, "tmux kill-server"),
    Kind("stop-server", Severity.MEDIUM, "SIGSTOP of the tmux server"),
    Kind("usage-limit", Severity.MEDIUM, "the account is at its usage limit"),
    Kind("git-lock", Severity.MEDIUM, "git left a lock on the integration branch"),
    Kind("conflict", Severity.MEDIUM, "two agents commit what cannot be merged"),
    Kind("slow-disk", Severity.HIGH, "every sync takes longer"),
    Kind("full-disk", Severity.HIGH, "the disk of the state home is full"),
    Kind("torn-log", Severity.HIGH, "a power cut in the middle of a write to the store's log"),
    Kind("clock-jump", Severity.HIGH, "the clock jumps two hours ahead, and back"),
    Kind("reboot", Severity.HIGH, "everything ends, and another boot begins"),
)


@dataclass(frozen=True)
class Strike:
    """One strike of a plan: not before `at` seconds after the start; `draw` decides whom it hits."""

    number: int
    at: float
    kind: Kind
    draw: int


def plan(
    seed: int,
    *,
    duration: float,
    severity: Severity,
    intervals: tuple[float, float],
    only: Collection[str] = (),
) -> tuple[Strike, ...]:
    """The strikes within `duration` seconds, the first at once, with pauses between the two intervals (seconds).

    The same seed and words make the same plan, on every machine and with every version of Python. No kind comes a
    second time before each has come once. `only` names the kinds, whatever their severity.
    """
    kinds = [kind for kind in KINDS if (kind.name in only if only else _is_within(kind, severity))]
    draws, strikes, at = _draws(seed), list[Strike](), 0.0
    bag: list[Kind] = []
    while at <= duration and kinds:
        bag = bag or list(kinds)
        kind = bag.pop(next(draws) % len(bag))
        strikes.append(Strike(len(strikes) + 1, at, kind, next(draws)))
        low, high = intervals
        at = round(at + low + (high - low) * (next(draws) % 1000) / 999, 1)
    return tuple(strikes)


def _is_within(kind: Kind, severity: Severity) -> bool:
    order = list(Severity)
    return order.index(kind.severity) <= order.index(severity)


def _draws(seed: int) -> Iterator[int]:
    """Numbers that only the seed decides; `random` promises that for one version of Python only."""
    number = 0
    while True:
        number += 1
        yield int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Promise:
    """Something that has to arrive once, by a mark that nothing else has.

    It is certain when the command that took it has said so; else it may also not have happened at all.
    """

    what: str
    mark: str
    is_certain: bool = True


def broken(promises: Sequence[Promise], seen: Mapping[str, int]) -> list[str]:
    """What was lost or came more than once, in words; `seen` counts how often each mark was found where it belongs."""
    found = []
    for one in promises:
        count = seen.get(one.mark, 0)
        if one.is_certain and count == 0:
            found.append(f"{one.what} {one.mark} is lost")
        if count > 1:
            found.append(f"{one.what} {one.mark} came {count} times")
    return found


@dataclass(frozen=True)
class Outcome:
    """What a strike has come to.

    `skipped` says why it was not done. `recovered` is how many seconds it took until all was as before, None when that
    did not happen. `promises` counts what had to survive it.
    """

    strike: Strike
    skipped: str | None = None
    recovered: float | None = None
    promises: int = 0
    problems: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether it was done, and all was as it should be afterwards."""
        return self.skipped is None and not self.problems
