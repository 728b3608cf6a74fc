"""Who tries first of all hosts that share an account, and what one host does about it: for limits of a fleet."""

from __future__ import annotations

from enum import StrEnum

from lib.records import dataclass

#: A host that tries says so every few seconds. One that has not for so long may be gone: another takes over.
SILENT_MS = 20_000
#: And so does another when one has tried for so long, whatever it says.
TRIES_WITHIN_MS = 10 * 60_000
#: A host of which no agent wants anything leaves it for so long to those that have one that does.
NOBODY_MS = 15_000
#: A host that waits for others for so long, after the time that the limit has named, tries by itself.
PATIENCE_MS = 30 * 60_000


class Move(StrEnum):
    """What a host does whose limit's time has come."""

    TRY = "try"
    WAIT = "wait"
    #: It has itself recorded as the host that tries.
    CLAIM = "claim"
    #: The same, though nobody wants anything there: the limit is over then, as far as anybody knows.
    CLAIM_FOR_NOBODY = "claim_for_nobody"
    #: It lets another host try.
    PASS = "pass"


@dataclass(frozen=True)
class Claim:
    """That a host tries, as another has heard of it; how long ago it last said so, and for how long it has tried."""

    is_own: bool
    is_for_nobody: bool
    silent_ms: int
    lasts_ms: int


def next_move(claim: Claim | None, *, wants: bool, due_for_ms: int, is_cut_off: bool) -> Move:
    """What a host does about a limit whose time came so long ago.

    `wants` is whether an agent here would ask its model something; `is_cut_off` that the fleet cannot be asked.
    """
    if is_cut_off or due_for_ms > PATIENCE_MS:
        return Move.TRY
    if claim and claim.is_own:
        return Move.TRY if wants or claim.is_for_nobody else Move.PASS
    if claim and 0 <= claim.silent_ms < SILENT_MS and 0 <= claim.lasts_ms < TRIES_WITHIN_MS:
        return Move.WAIT
    if wants:
        return Move.CLAIM
    return Move.CLAIM_FOR_NOBODY if due_for_ms >= NOBODY_MS else Move.WAIT
