"""Whether an agent at work is stuck: by its own evidence alone, and in time that it had."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

from lib.records import dataclass

#: What an agent's hooks call a text that it has taken. It is somebody else's doing, and no sign of its own.
PROMPT = "UserPromptSubmit"

#: How far apart two looks may lie for the time between them to count: more is a sleep of the machine or a downtime,
#: in which no agent could do anything.
LONGEST_LOOK_MS = 2 * 60_000


class Told(IntEnum):
    """Who has heard of it in this episode."""

    NOBODY = 0
    AGENT = 1
    PERSON = 2


@dataclass(frozen=True)
class Signs:
    """What can be seen of an agent in one look; two looks are compared.

    `written` is where in its transcript its last own entry ends, `helped` how much its subagents have written, both
    in bytes. `screen` is a digest of its
    window without spinners and clocks, None when nobody looked. `has_child` is whether a process runs that it has
    started for its work.
    """

    epoch: int
    written: int
    helped: int
    hook: str | None
    hook_at: int | None
    screen: str | None = None
    has_child: bool = False


@dataclass(frozen=True)
class Watched:
    """An agent at work under observation: `quiet_ms` is its own time without a sign, or since the last telling."""

    signs: Signs
    looked_at: int
    quiet_ms: int = 0
    told: Told = Told.NOBODY


def is_sign(before: Signs, after: Signs) -> bool:
    """Whether an agent has done something between two looks."""
    if after.has_child or (after.epoch, after.written, after.helped) != (before.epoch, before.written, before.helped):
        return True
    has_new_hook = after.hook_at != before.hook_at
    if has_new_hook and after.hook != PROMPT:
        return True
    # A text that was typed into its window changes that as well.
    both = before.screen is not None and after.screen is not None
    return both and not has_new_hook and after.screen != before.screen


def watch(before: Watched | None, signs: Signs, *, now: int, stuck_ms: int) -> Watched:
    """The next look at an agent at work. Who has to be told is who is `told` after it and was not before.

    Times are UTC milliseconds. A clock that jumps, or a machine that sleeps, makes nobody stuck.
    """
    if before is None or is_sign(before.signs, signs):
        return Watched(signs, now)
    seen = signs if signs.screen is not None else replace(signs, screen=before.signs.screen)
    quiet = before.quiet_ms + min(max(now - before.looked_at, 0), LONGEST_LOOK_MS)
    if quiet < stuck_ms or before.told is Told.PERSON:
        return Watched(seen, now, quiet, before.told)
    return Watched(seen, now, 0, Told(before.told + 1))
