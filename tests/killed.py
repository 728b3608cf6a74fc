"""A part of the daemon that kills itself before a chosen write: `python -m tests.killed PART NUMBER`.

Every statement that changes the store counts, and every commit, over all connections of the process; of the merge hub
also what it has git change. The process ends with exit code 0 when it has come to its end before the chosen one.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
from pathlib import Path

from lib import config, daemon, host, launch, planning, store
from lib.errands import Errands
from lib.front import cli, control, noticing
from lib.merging import hub, judging
from lib.queue import draining
from lib.tmux import Tmux

#: What the merge hub and the errand of the criteria have git change.
_ACTS = frozenset(("worktree", "merge", "commit", "reset", "checkout", "update-ref", "push"))
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|COMMIT)\b", re.IGNORECASE)


def kill_before(number: int, *, is_with_git: bool = False) -> None:
    """Have this process end, as by a power cut, right before the write of this number."""
    count = 0
    connect = store.connect

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def look(statement: str) -> None:
        if _WRITES.match(statement):
            step()

    def look_at_git(event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen" and isinstance(arguments[1], list) and _ACTS & set(arguments[1]):
            step()

    def watched(home: Path, *, read_only: bool = False) -> sqlite3.Connection:
        db = connect(home, read_only=read_only)
        db.set_trace_callback(look)
        return db

    store.connect = watched
    if is_with_git:
        sys.addaudithook(look_at_git)


def beat(home: Path, now: int) -> None:
    daemon.tick(
        store.connect(home), Tmux.from_environment(), home, now=now, life=daemon.Life(config.load(), Errands(home))
    )


def main(part: str, number: str, more: str = "") -> None:
    home = config.state_home()
    store.connect(home).close()  # its making is not what is tested
    kill_before(int(number), is_with_git=part in ("merge", "criteria"))
    if part == "beat":
        beat(home, int(more) if more else host.now_ms())
    elif part == "resume":
        stage = planning.Stage(home, Tmux.from_environment(), config.load())
        launch.resume(store.connect(home), stage, Path(more), progress=lambda role, what: None)
    elif part == "merge":
        hub.run(home, more)
    elif part == "criteria":
        judging.run(home, more)
    elif part == "insight":
        control.main(["insight", "add", "Amounts are cents", "--project", more], standalone_mode=False)
    elif part == "notices":
        noticing.send_notices(cli.Output(), home)
    else:
        draining.run(home, int(more))


if __name__ == "__main__":
    main(*sys.argv[1:])
