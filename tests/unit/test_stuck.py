"""Who counts as stuck: two looks, and a row of looks with a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lib.judgement.stuck import LONGEST_LOOK_MS, Signs, Told, Watched, is_sign, watch

MINUTE = 60_000
NOW = 1_800_000_000_000
STUCK = 30 * MINUTE
BEFORE = Signs(epoch=1, written=5000, helped=0, hook="UserPromptSubmit", hook_at=NOW, screen="a")


@pytest.mark.parametrize(
    ("changed", "signs"),
    [
        # Nothing at all.
        ({}, False),
        # An own entry in its transcript; one of a helper; a transcript that was written anew and is shorter.
        ({"written": 5001}, True),
        ({"helped": 1}, True),
        ({"written": 10}, True),
        # A hook of its own: the turn has ended, and another has begun.
        ({"hook": "Stop", "hook_at": NOW + 1}, True),
        ({"hook": "Notification", "hook_at": NOW + 1}, True),
        # Somebody has typed something, which it has only taken; its window shows that.
        ({"hook_at": NOW + 1}, False),
        ({"hook_at": NOW + 1, "screen": "b"}, False),
        # Its window shows something new.
        ({"screen": "b"}, True),
        # Nobody has looked at its window, this time.
        ({"screen": None}, False),
        # It runs something.
        ({"has_child": True}, True),
        # It was started anew.
        ({"epoch": 2}, True),
    ],
)
def test_a_sign_between_two_looks(changed: dict[str, object], signs: bool) -> None:
    assert is_sign(BEFORE, replace(BEFORE, **changed)) is signs  # type: ignore[arg-type]  # the table's own names


def test_a_window_that_nobody_has_seen_before_shows_nothing_new() -> None:
    assert not is_sign(replace(BEFORE, screen=None), BEFORE)


def looks(times: Sequence[int], signs: Signs = BEFORE) -> list[Watched]:
    """Look at these times, and see the same each time."""
    seen: list[Watched] = []
    for now in times:
        seen.append(watch(seen[-1] if seen else None, signs, now=now, stuck_ms=STUCK))
    return seen


def every_minute(minutes: int) -> range:
    return range(NOW, NOW + minutes * MINUTE + 1, MINUTE)


def test_the_agent_is_told_after_half_an_hour_and_a_person_after_another() -> None:
    told = [look.told for look in looks(every_minute(200))]
    assert told == [Told.NOBODY] * 30 + [Told.AGENT] * 30 + [Told.PERSON] * 141


def test_a_sign_ends_the_episode_and_the_next_begins_anew() -> None:
    quiet = looks(every_minute(70))[-1]
    assert quiet.told is Told.PERSON
    moved = watch(quiet, replace(BEFORE, written=6000), now=NOW + 71 * MINUTE, stuck_ms=STUCK)
    assert (moved.told, moved.quiet_ms) == (Told.NOBODY, 0)
    again = [moved]
    for now in range(NOW + 72 * MINUTE, NOW + 102 * MINUTE, MINUTE):
        again.append(watch(again[-1], moved.signs, now=now, stuck_ms=STUCK))
    assert again[-2].told is Told.NOBODY and again[-1].told is Told.AGENT


@pytest.mark.parametrize(
    "times",
    [
        # The machine sleeps for a night: each look may count for two minutes at the most.
        [NOW, *range(NOW + 8 * 60 * MINUTE, NOW + (8 * 60 + 27) * MINUTE, MINUTE)],
        # The clock is set forward by a day, and back.
        [NOW, NOW + 24 * 60 * MINUTE, NOW + MINUTE, NOW + 25 * 60 * MINUTE],
        # The clock is set back by an hour, again and again.
        [NOW - number * 60 * MINUTE for number in range(50)],
    ],
)
def test_a_clock_that_jumps_makes_nobody_stuck(times: Sequence[int]) -> None:
    assert {look.told for look in looks(times)} == {Told.NOBODY}


def test_two_minutes_between_looks_count_in_full() -> None:
    times = range(NOW, NOW + 30 * MINUTE + 1, LONGEST_LOOK_MS)
    assert [look.told for look in looks(times)][-2:] == [Told.NOBODY, Told.AGENT]


def test_a_window_is_compared_with_its_last_look_even_when_others_lie_between() -> None:
    first = watch(None, BEFORE, now=NOW, stuck_ms=STUCK)
    unseen = watch(first, replace(BEFORE, screen=None), now=NOW + MINUTE, stuck_ms=STUCK)
    assert unseen.signs.screen == "a" and unseen.quiet_ms == MINUTE
    assert watch(unseen, replace(BEFORE, screen="b"), now=NOW + 2 * MINUTE, stuck_ms=STUCK).quiet_ms == 0


def test_what_was_typed_into_a_window_is_the_new_ground_to_compare_with() -> None:
    first = watch(None, BEFORE, now=NOW, stuck_ms=STUCK)
    typed = replace(BEFORE, hook_at=NOW + 1, screen="b")
    second = watch(first, typed, now=NOW + MINUTE, stuck_ms=STUCK)
    third = watch(second, typed, now=NOW + 2 * MINUTE, stuck_ms=STUCK)
    assert third.quiet_ms == 2 * MINUTE
