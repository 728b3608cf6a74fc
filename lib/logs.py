"""The logs of the processes that run for long, and the beats that the scheduler's may have."""

from __future__ import annotations

import logging
import logging.handlers
import re
from pathlib import Path

#: Of a log so much is kept in one file.
_MOST_BYTES = 1_000_000
#: When a beat began (UTC milliseconds), and how long it took.
_BEAT = "beat of %d took %.1f ms"
_BEAT_LINE = re.compile(r"DEBUG lib\.logs: beat of (\d+) took (\d+\.\d) ms$")

log = logging.getLogger(__name__)


def scheduler_path(home: Path) -> Path:
    """The scheduler's log."""
    return home / "logs" / "scheduler.log"


def write_to(path: Path, *, older: int, of: str | None = None) -> None:
    """Have this process write its log there, and keep so many files of what was before.

    What is only of interest is written `of` one package, or of all.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_MOST_BYTES, backupCount=older)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger(of).setLevel(logging.INFO)


def note_beat(at: int, milliseconds: float) -> None:
    """A line for a beat, when this log has them."""
    log.debug(_BEAT, at, milliseconds)


def beats(home: Path) -> list[tuple[int, float]]:
    """The beats in the log of a scheduler that logs them: when each began (UTC milliseconds), how long it took (ms)."""
    path, found = scheduler_path(home), list[tuple[int, float]]()
    for one in path.parent.glob(f"{path.name}*"):
        lines = one.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [(int(line[1]), float(line[2])) for line in map(_BEAT_LINE.search, lines) if line]
    return sorted(found)
