"""A door that kills itself before a chosen step outside of it: `python -m tests.killed_making NUMBER DOOR WORDS...`.

What counts: files that are made, written, renamed and removed, changing calls of git, and writes of the store. The
process ends with exit code 0 when it has come to its end before the chosen step.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import sqlite3
import sys
from pathlib import Path

from lib import config, store
from tests.conftest import ROOT

_FILES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STATEMENTS = re.compile(r"\s*(INSERT|UPDATE|DELETE|COMMIT)\b", re.IGNORECASE)
_CHANGES = ("init", "symbolic-ref", "add", "commit", "repair")


def counts(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether what the interpreter tells of (sys.audit) changes something outside of the process."""
    if event in _FILES:
        return True
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
    if event == "subprocess.Popen":
        words = [str(word) for word in arguments[1]] if isinstance(arguments[1], list) else []
        return any(word in words for word in _CHANGES) or {"config", "--local"} <= set(words)
    return False


def kill_before(number: int) -> None:
    """Have this process end, as by a power cut, right before the step of this number."""
    count = 0
    connect = store.connect

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(home: Path, *, read_only: bool = False) -> sqlite3.Connection:
        db = connect(home, read_only=read_only)
        db.set_trace_callback(lambda statement: step() if _STATEMENTS.match(statement) else None)
        return db

    store.connect = watched
    sys.addaudithook(lambda event, arguments: step() if counts(event, arguments) else None)


def main(number: str, door: str, *words: str) -> None:
    sys.dont_write_bytecode = True
    store.connect(config.state_home()).close()  # its making is not what is tested
    kill_before(int(number))
    sys.argv = [door, *words]
    runpy.run_path(str(ROOT / door), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
