"""Claims of queued specs, beside huey on SQLite: one worker, and several at once on the same file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks import alternatives
from benchmarks.figures import Alternative, Figure
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib.config import ROOT
from lib.errors import NotFound, OrchestratorError

_HUEY = "huey_queue.py"
WORKERS = 4
#: A claim of ours looks at all that wait, and a person's queue is short: each process brings so many.
WAITING = 50
_VERBS = {"fill": "added", "work": "claimed and ended"}

_OURS = """
import sys, time
from pathlib import Path
from lib import store
from lib.queue import entries
home, what, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
db = store.connect(home)
print("ready", flush=True)
number = sys.stdin.read(1)
began = time.perf_counter()
done = 0
if what == "fill":
    for each in range(count):
        project = Path(f"/projects/{number}-{each}")
        entries.add(db, [entries.NewEntry(project / "spec.md", "x", project)], now=each)
        done += 1
else:
    while (attempt := entries.claim(db, now=count, max_concurrent=1_000_000)) is not None:
        entries.cancel(db, attempt.entry_id, now=count)
        done += 1
print(time.perf_counter() - began, done, flush=True)
"""


def claims(counts: Counts) -> list[Figure]:
    """How many specs are added, and claimed and ended, in a second.

    A claim of ours does more than huey's: in one transaction it looks whether the queue is paused and which
    projects have a live team, keeps one team per project and the order of batches, opens the attempt that evidence
    is kept for, and writes an event; ending it writes another, and a lost worker's claim is found again. huey takes
    a row out, and what a killed worker has taken is gone. Ours waits for the disk at each commit, so that a power
    cut loses nothing; huey does so with `fsync=True`, and by itself does not. A queue of ours holds teams that work
    for hours, a few a day.
    """
    took: dict[str, list[float]] = {}
    with rehearsal() as machine:
        ways = {"ours": [sys.executable, "-c", _OURS]}
        missing = ""
        try:
            huey = [str(alternatives.interpreter(_HUEY)), str(alternatives.FOLDER / _HUEY)]
            ways |= {"fsync": huey, "lax": huey}
        except NotFound as reason:
            missing = reason.sentence
        for number in range(max(2, counts.launches)):
            for workers in (1, WORKERS):
                for way, command in ways.items():
                    place = machine.folder / f"{way}-{number}-{workers}"
                    place.mkdir(mode=0o700)
                    arguments = [str(place)] if way == "ours" else [str(place / "huey.db"), way]
                    for verb, what in _VERBS.items():
                        words = [*command, *arguments, verb, str(WAITING)]
                        took.setdefault(f"{way} {workers} {what}", []).append(_rate(machine, words, workers))
    return [_figure(took, workers, what, missing) for workers in (1, WORKERS) for what in _VERBS.values()]


def _figure(took: Mapping[str, Sequence[float]], workers: int, what: str, missing: str) -> Figure:
    def theirs(name: str, way: str) -> Alternative:
        return Alternative(
            f"{alternatives.pinned(_HUEY)}{name}", tuple(took.get(f"{way} {workers} {what}", ())), missing
        )

    return Figure(
        f"specs {what} in a second, {'one process' if workers == 1 else f'{workers} processes at once'}",
        "/s",
        tuple(took[f"ours {workers} {what}"]),
        alternatives=(theirs(" with fsync", "fsync"), theirs("", "lax")),
        headline=what != "added",
    )


def _rate(machine: Machine, command: Sequence[str], workers: int) -> float:
    """How many a second, from the first process that begins to the last one that ends, as each says itself."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=machine.environment, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(workers)
    ]
    for process in started:
        process.stdout.readline()
    for number, process in enumerate(started):
        process.stdin.write(str(number))
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in started]
    done = sum(int(count) for _, count in said)
    if any(process.returncode for process in started) or done != workers * WAITING:
        raise OrchestratorError(f"{done} of {workers * WAITING} were done by {command[0]}")
    return done / max(float(seconds) for seconds, _ in said)
