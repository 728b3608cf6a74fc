"""What a machine bears: the figures of each step of a load, where the knee is, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from lib.judgement.durations import Spread
from lib.models import PENDING, Message, MessageKind, MessageStatus
from lib.records import dataclass

#: Later than this a check-in is of no use to who waits for it (ms, the 99th of 100).
LATE_MS = 2000.0
#: So much slower than the fastest step, and slower than a person would call prompt (ms, the 95th of 100).
_SLOWER, _SLOW_MS = 3.0, 1000.0
#: Less of what was to be sent than this share means that senders have fallen behind.
_KEEPS_UP = 0.9


@dataclass(frozen=True)
class Taken:
    """What processes have taken in a step.

    `cpu_percent` is of one core, on average, and `started_cpu_percent` what programs took that they started and that
    have ended. Memory (resident bytes), file handles and processes are the most that was seen at once.
    """

    cpu_percent: float
    started_cpu_percent: float
    memory_bytes: int
    handles: int
    processes: int


@dataclass(frozen=True)
class Step:
    """The figures of a step: durations in ms, messages by when they were queued.

    `launches` are those that led to this step, `wanted` is how many messages were to be sent in it. `check_ins` is how
    late they were. `tester` are the senders, `busy_percent` is of all cores, whoever used them.
    """

    orchestrations: int
    agents: int
    seconds: float
    launches: Spread
    wanted: int
    messages: Spread
    check_ins: Spread
    beats: Spread
    scheduler: Taken
    agents_took: Taken
    tmux: Taken
    tester: Taken
    busy_percent: float
    lost: int


@dataclass(frozen=True)
class Losses:
    """What should not have happened, counted; a trial is well when all are 0.

    Messages that were not acknowledged, that are in no transcript, or twice in one; check-ins that were due and did
    not fire; agents that have ended; launches that failed; steps of the scheduler that failed.
    """

    unacknowledged: int = 0
    not_received: int = 0
    doubled: int = 0
    check_ins: int = 0
    agents: int = 0
    launches: int = 0
    scheduler_steps: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was lost or doubled, or has failed."""
        return any(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True)
class Knee:
    """Up to how many orchestrations all is well, and what bends after that; `bends_at` is None when nothing does."""

    orchestrations: int
    bends_at: int | None
    why: str


def is_delivered(message: Message) -> bool:
    """Whether a message is one that an agent should get as itself, and not as a command or within a digest."""
    return (
        message.kind is not MessageKind.COMMAND
        and message.carried_by is None
        and message.status is not MessageStatus.CANCELLED
    )


def is_lost(message: Message) -> bool:
    """Whether a message, at the end, has not arrived."""
    return message.status in PENDING or message.status is MessageStatus.FAILED


def losses_of(ledger: Iterable[Message], received: Mapping[int, int]) -> Losses:
    """What became of messages; `received` is how often an agent's own transcript holds each, by its id."""
    sent = [one for one in ledger if is_delivered(one)]
    arrived = [received.get(one.id, 0) for one in sent if not is_lost(one)]
    return Losses(
        unacknowledged=sum(map(is_lost, sent)),
        not_received=sum(1 for times in arrived if times == 0),
        doubled=sum(1 for times in received.values() if times > 1),
    )


def knee(steps: Sequence[Step]) -> Knee:
    """Where it bends: at the first step with a reason. Steps come in order of their orchestrations."""
    well, fastest = 0, None
    for step in steps:
        p95 = step.messages.p95
        if why := _why_it_bends(step, fastest):
            return Knee(well, step.orchestrations, why)
        fastest = p95 if fastest is None else min(fastest, p95 if p95 is not None else fastest)
        well = step.orchestrations
    return Knee(well, None, "nothing bends up to here")


def _why_it_bends(step: Step, fastest: float | None) -> str:
    p95, late = step.messages.p95, step.check_ins.p99
    if step.lost:
        return f"{step.lost} messages are lost"
    if step.messages.count < _KEEPS_UP * step.wanted:
        return f"{step.messages.count} of {step.wanted} messages were sent in time"
    if late is not None and late > LATE_MS:
        return f"check-ins are {late:.0f} ms late, p99"
    if p95 is not None and p95 > max(_SLOW_MS, _SLOWER * (fastest if fastest is not None else 0.0)):
        return f"messages take {p95:.0f} ms, p95"
    return ""
