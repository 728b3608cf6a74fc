"""Who comes first: the queue's next entry, and the agent that goes first after a limit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry of the queue that waits.

    `has_failed` is whether it is to be tried again, `waits_until` when its pause is over (UTC milliseconds),
    `has_fresh_siblings` whether its batch has something else to run, `is_held` whether something holds the account
    that its agents would use.
    """

    id: int
    project: str
    has_failed: bool
    waits_until: int
    has_fresh_siblings: bool
    is_held: bool = False


def may_run(one: Candidate, busy: Collection[str], *, now: int) -> bool:
    """Whether an entry may be started now; `busy` are the projects that a team works in."""
    if one.is_held or now < one.waits_until or one.project in busy:
        return False
    return not (one.has_failed and one.has_fresh_siblings)


def next_entry(candidates: Sequence[Candidate], busy: Collection[str], *, now: int) -> int | None:
    """The id of the first of the queue, which is in its order, that may be started now; None when none may."""
    return next((one.id for one in candidates if may_run(one, busy, now=now)), None)


def first_to_try(patience: Sequence[tuple[int, int]]) -> int:
    """The agent that goes first, of pairs of an agent's id and until when it is left to go on by itself.

    It is the one that need not be waited for, or not for long; of several the first.
    """
    return min(patience, key=lambda one: one[1])[0]
