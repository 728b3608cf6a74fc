"""Trying again what fails for one entry, while no other waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import nats.errors

from lib.errors import OrchestratorError
from lib.fleet import travel

log = logging.getLogger(__name__)

#: How often it looks for what it may take, and for what is due of what it has; and for all else.
LOOK_SECONDS, LOOK_AROUND_SECONDS = 0.5, 2.0

#: What has failed for one entry is tried again after this.
AGAIN_SECONDS = 5.0

#: What may fail for one entry without a fault of ours.
_FAILURES = (OrchestratorError, nats.errors.Error, TimeoutError, OSError)


async def guarded(name: str, again: dict[str, float], act: Callable[[], Awaitable[None]]) -> None:
    """Do something for one entry. What fails is tried again after a pause, and nothing else waits for it."""
    if time.monotonic() < again.get(name, 0.0):
        return
    try:
        await act()
    except _FAILURES as error:
        said = travel.in_words(error) if isinstance(error, OrchestratorError) else f"{type(error).__name__}: {error}"
        log.warning("entry %s: %s", name, said)
        again[name] = time.monotonic() + AGAIN_SECONDS
