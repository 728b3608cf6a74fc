"""From a commit of one role until another role has read that it is there: ours, and by fetching again and again."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Alternative, Figure
from benchmarks.hand_over import commit, git
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import HOLDS, THREE, Counts, launch
from benchmarks.ways import ByKeys, Seat

EVERY_SECONDS = 1.0


def telling(counts: Counts) -> list[Figure]:
    """Ours: the hook of the commit wakes the scheduler, which waits 1 s for more commits, and tells the tester with
    the list of files and the command to take it. The other way is a script: the author pushes to a bare repository
    on the same disk, the taker's clone fetches every second, and what is new is typed with send-keys, sleep 0.5 and
    Enter. It fetches 86,400 times a day for each role, also when nothing happens; ours does nothing then.
    """
    took, polled = [], []
    with rehearsal() as machine:
        launch(machine, THREE, agent="rehearsal", spec=HOLDS)
        for role in THREE.split(","):
            machine.wait_idle(role)
        with _polling(machine) as author:
            for number in range(2 * counts.launches):
                took.append(_told(machine, number))
                time.sleep(random.uniform(0, EVERY_SECONDS))  # or all commits fall into the same moment of a round
                polled.append(_fetched(machine, author, number))
    name = "from a commit until the role that takes it on has read of it"
    other = Alternative("push, `git fetch` every second, send-keys", tuple(polled))
    return [Figure(name, "s", tuple(took), target=5.0, alternatives=(other,), headline=True)]


def _told(machine: Machine, number: int) -> float:
    """From a commit in the developer's worktree, by hook and scheduler, to the tester's own acknowledgement."""
    machine.wait_idle("tester")
    commit(machine.agent("developer").worktree, f"work-{number}")
    began = time.time()
    wait_for(functools.partial(_acknowledged, machine, began), "the tester to hear of it")
    return (_acknowledged(machine, began) or began) - began


def _acknowledged(machine: Machine, since: float) -> float | None:
    told = "body LIKE 'developer has committed to %' AND queued_at >= ?"
    rows = machine.db().execute(f"SELECT max(acknowledged_at) FROM messages WHERE {told}", (int(since * 1000),))
    at = rows.fetchone()[0]
    return at / 1000 if at else None


def _fetched(machine: Machine, author: Path, number: int) -> float:
    seat = Seat.of(machine, "orchestrator")
    seat.tidy()
    commit(author, f"other-{number}")
    began, start = time.time(), seat.size()
    git(author, "push", "-q", "origin", "main")
    wait_for(lambda: any(text.startswith("New:") for text in seat.read_since(start)), "the message of the poller")
    return time.time() - began


@contextlib.contextmanager
def _polling(machine: Machine) -> Iterator[Path]:
    """The author's clone; beside it a taker's clone that is fetched again and again, and tells the orchestrator."""
    bare, author, taker = (machine.folder / name for name in ("other.git", "author", "taker"))
    git(machine.folder, "clone", "-q", "--bare", str(machine.folder / "webapp"), str(bare))
    for clone in (author, taker):
        git(machine.folder, "clone", "-q", str(bare), str(clone))
    way, ended = ByKeys(machine, Seat.of(machine, "orchestrator")), threading.Event()

    def poll() -> None:
        known = git(taker, "rev-parse", "origin/main")
        while not ended.wait(EVERY_SECONDS):
            git(taker, "fetch", "-q", "origin")
            if (now := git(taker, "rev-parse", "origin/main")) != known:
                way.send("New: " + git(taker, "log", "-1", "--format=%h %s", "origin/main"))
                known = now

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        yield author
    finally:
        ended.set()
        poller.join()
