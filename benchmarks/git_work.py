"""What git costs: a look at the worktrees of a team of twenty, and a round of the radar over them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Alternative, Figure
from benchmarks.idle import AGENTS, fill
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib import host, orchestrations
from lib.together import radar
from lib.together.sync_status import Looking

#: The files of the project, and how many of them each agent has changed and not committed.
FILES = 2000
DIRTY = 5
_IDENTITY = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")


def worktrees(counts: Counts) -> list[Figure]:
    """`sync_coordinator.py status` and the dashboard: the first look, and one that looks again."""
    with _team() as (machine, places):
        db = machine.db()
        found = orchestrations.live(db)
        looking = Looking()
        first, again, bare = [], [], []
        for _ in range(counts.completions):  # in turns, so that a busy moment hits all
            bare.append(_took(lambda: [machine.run("git", "-C", str(place), "status", "-s") for place in places]))
            first.append(_took(lambda: Looking().board(db, found, now=host.now_ms())))
            looking.board(db, found, now=host.now_ms())
            again.append(_took(lambda: looking.board(db, found, now=host.now_ms())))
        door = [machine.door("sync_coordinator.py", "status", "--json")[0] * 1000 for _ in range(counts.completions)]
        assert all(one.dirty == DIRTY and one.ahead == 1 for one in looking.board(db, found, now=0).teams[0].agents)
    what = f"{len(places)} worktrees of {FILES} files, {DIRTY} of each not committed"
    other = (Alternative("`git status` in each, one after the other", tuple(bare)),)
    return [
        Figure(f"a first look at {what}", "ms", tuple(first), target=500.0, alternatives=other),
        Figure(f"{what}, looked at again", "ms", tuple(again), target=500.0, alternatives=other, headline=True),
        Figure("the same by `sync_coordinator.py status`", "ms", tuple(door)),
    ]


def radar_rounds(counts: Counts) -> list[Figure]:
    """The first round compares every pair, the next ones what has changed."""
    with _team() as (machine, places):
        db = machine.db()

        def sweep() -> object:
            return radar.sweep(db, now=host.now_ms())

        first = _took(sweep)
        still = [_took(sweep) for _ in range(counts.completions)]
        moved = []
        for number in range(counts.completions):
            (places[number % len(places)] / "new.txt").write_text(f"{number}\n", encoding="utf-8")
            moved.append(_took(sweep))
    pairs = len(places) * (len(places) - 1) // 2
    return [
        Figure(f"radar, the first round over {len(places)} worktrees: {pairs} pairs", "ms", (first,)),
        Figure("radar, a round in which nothing has changed", "ms", tuple(still)),
        Figure("radar, a round in which one worktree has changed", "ms", tuple(moved)),
    ]


def _took(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def _team() -> Iterator[tuple[Machine, list[Path]]]:
    """Agents that live, each with a commit and uncommitted work of its own in a project of many files."""
    with rehearsal() as machine, fill(machine):
        project = machine.project()
        for number in range(FILES):
            file = project / f"folder{number % 40}" / f"file{number}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{number}\n" * 50, encoding="utf-8")
        _commit(machine, project)
        places = [machine.folder / f"role{number}" for number in range(AGENTS)]
        for number, place in enumerate(places):
            machine.run("git", "-C", str(project), "worktree", "add", "-q", "-b", f"branch{number}", str(place))
            (place / f"own{number}.txt").write_text("own\n", encoding="utf-8")
            _commit(machine, place)
            for changed in range(DIRTY):
                name = f"file{number * DIRTY + changed}.txt"
                (place / f"folder{(number * DIRTY + changed) % 40}" / name).write_text("changed\n", encoding="utf-8")
        yield machine, places


def _commit(machine: Machine, folder: Path) -> None:
    machine.run("git", "-C", str(folder), "add", "-A")
    machine.run("git", "-C", str(folder), *_IDENTITY, "commit", "-q", "-m", "Work")
