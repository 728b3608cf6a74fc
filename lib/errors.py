"""What can go wrong, and the exit code that says so."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every door (README, "Exit codes")."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    BUSY = 4
    NOT_NOW = 5
    BUG = 70
    INTERRUPTED = 130


class OrchestratorError(Exception):
    """Something failed: a sentence that names it, and a hint that names the next step."""

    exit_code = ExitCode.FAILED

    def __init__(self, sentence: str, *, hint: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


class Usage(OrchestratorError):
    """The words of the command are wrong."""

    exit_code = ExitCode.USAGE


class NotFound(OrchestratorError):
    """The thing is not there. "I could not look" is `Unavailable`."""

    exit_code = ExitCode.NOT_FOUND


class Busy(OrchestratorError):
    """Somebody else holds it: a live orchestration, a running daemon, a lock."""

    exit_code = ExitCode.BUSY


class Unavailable(OrchestratorError):
    """Not now: a tool is missing, logged out, too old, or could not be asked."""

    exit_code = ExitCode.NOT_NOW


class Gone(Unavailable):
    """Whom it is for has ended: it comes back when somebody brings it back, and not by waiting."""


def together(found: Sequence[OrchestratorError], title: str) -> OrchestratorError:
    """One error for all that was found: of the first one's kind, each with a line of its own below `title`."""
    lines = dict.fromkeys(f"{one.sentence}; next: {one.hint}" if one.hint else one.sentence for one in found)
    return found[0] if len(lines) == 1 else type(found[0])("\n  ".join([f"{title}:", *lines]))
