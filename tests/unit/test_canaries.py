"""Which host tries first whether a limit is over, as a table."""

from __future__ import annotations

import pytest

from lib.judgement.canaries import NOBODY_MS, PATIENCE_MS, SILENT_MS, TRIES_WITHIN_MS, Claim, Move, next_move

FRESH = Claim(is_own=False, is_for_nobody=False, silent_ms=4_000, lasts_ms=9_000)
SILENT = Claim(is_own=False, is_for_nobody=False, silent_ms=SILENT_MS, lasts_ms=SILENT_MS)
ENDLESS = Claim(is_own=False, is_for_nobody=False, silent_ms=1_000, lasts_ms=TRIES_WITHIN_MS)
#: Heard of before this host's clock was set back.
OF_TOMORROW = Claim(is_own=False, is_for_nobody=False, silent_ms=-86_400_000, lasts_ms=-86_400_000)
OWN = Claim(is_own=True, is_for_nobody=False, silent_ms=4_000, lasts_ms=9_000)
OWN_FOR_NOBODY = Claim(is_own=True, is_for_nobody=True, silent_ms=4_000, lasts_ms=9_000)


@pytest.mark.parametrize(
    ("claim", "wants", "due_for_ms", "is_cut_off", "move"),
    [
        # Nobody tries yet: who has an agent that wants something does at once, the others leave it to them for a while.
        (None, True, 0, False, Move.CLAIM),
        (None, False, 0, False, Move.WAIT),
        (None, False, NOBODY_MS, False, Move.CLAIM_FOR_NOBODY),
        # This host has it recorded that it tries.
        (OWN, True, 0, False, Move.TRY),
        (OWN, False, 0, False, Move.PASS),
        (OWN_FOR_NOBODY, False, NOBODY_MS, False, Move.TRY),
        (OWN_FOR_NOBODY, True, NOBODY_MS, False, Move.TRY),
        # Another host tries: it is waited for, unless it is silent, or takes for ever.
        (FRESH, True, 0, False, Move.WAIT),
        (FRESH, False, NOBODY_MS, False, Move.WAIT),
        (SILENT, True, SILENT_MS, False, Move.CLAIM),
        (SILENT, False, SILENT_MS, False, Move.CLAIM_FOR_NOBODY),
        (ENDLESS, True, TRIES_WITHIN_MS, False, Move.CLAIM),
        (OF_TOMORROW, True, 0, False, Move.CLAIM),
        # Without the fleet this host goes by what it knows.
        (None, True, 0, True, Move.TRY),
        (FRESH, True, 0, True, Move.TRY),
        (FRESH, False, 0, True, Move.TRY),
        # Whoever holds the others by claiming again and again holds nobody for ever.
        (FRESH, True, PATIENCE_MS + 1, False, Move.TRY),
    ],
)
def test_what_a_host_does_whose_limit_may_be_over(
    claim: Claim | None, wants: bool, due_for_ms: int, is_cut_off: bool, move: Move
) -> None:
    assert next_move(claim, wants=wants, due_for_ms=due_for_ms, is_cut_off=is_cut_off) is move
