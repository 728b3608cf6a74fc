"""What recording screens takes: of a beat, of the disk; and how long a look back takes."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import idle
from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib import agents, host, moments, recorder, recordings, store
from lib.config import RecordingSettings
from lib.models import AgentState
from lib.recordings import Picture, Seen, Writer

AGENTS = 100
EVENTS = 10_000
SHOTS = 100
#: New lines at each look: an agent that reads files and runs tests.
LINES = 5
TERMS = RecordingSettings()
LOOK_MS = round(TERMS.seconds * 1000)
LOOKS_PER_HOUR = 3_600_000 // LOOK_MS


def recording(counts: Counts) -> list[Figure]:
    """A look at a hundred windows, what an hour of a busy agent takes, and moments of a full history.

    What other programs take of a look is in its milliseconds, and not in the scheduler's own work.
    """
    return [*_looks(counts), _busy(counts), _chatty(counts), *_moments(counts)]


def _looks(counts: Counts) -> list[Figure]:
    with rehearsal() as machine, _windows(machine, AGENTS) as shows:
        made, db, now = recorder.Recorder(), machine.db(), host.now_ms()

        def look() -> tuple[float, float]:
            """Milliseconds on the clock, and those of them that this process worked."""
            nonlocal now
            now += LOOK_MS
            worked = time.process_time()
            took = _timed(lambda: recorder.look(db, machine.tmux, machine.home, made, TERMS, is_lively=True, now=now))
            return took, (time.process_time() - worked) * 1000

        for _ in range(1 + AGENTS // recorder.MOST_CAPTURES):
            look()
        time.sleep(1.1)  # tmux tells whole seconds
        look()
        still = [look() for _ in range(counts.looks)]
        busy = []
        for _ in range(counts.looks):
            for number in range(AGENTS):
                shows(number, LINES)
            busy.append(look())
        made.close()
    print_all = f"recording, {AGENTS} agents, all of them print: a look at {recorder.MOST_CAPTURES} of them"
    return [
        *_clocked(f"recording, {AGENTS} agents, nothing new: a look", still, target=50.0),
        *_clocked(print_all, busy, target=100.0),
    ]


def _clocked(name: str, looks: Sequence[tuple[float, float]], *, target: float) -> list[Figure]:
    return [
        Figure(name, "ms", tuple(took for took, _ in looks), target=target),
        Figure(f"{name}, the scheduler's own work of that", "ms", tuple(worked for _, worked in looks)),
    ]


def _busy(counts: Counts) -> Figure:
    """A rehearsal agent at work, whose spinner turns, in real time."""
    with rehearsal() as machine:
        project = machine.project()
        (project / "spec.md").write_text("# Wait\n\nrehearse: hold\n", encoding="utf-8")
        machine.door(
            "auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator", "--agent", "rehearsal"
        )
        machine.wait_idle("orchestrator")
        machine.door("send-claude-message.sh", machine.agent("orchestrator").target, "rehearse: busy 600")
        time.sleep(counts.idle_seconds)  # the daemon records
        return Figure(
            "recording, a rehearsal agent at work: an hour",
            "KB",
            (_bytes_per_look(machine.home) * LOOKS_PER_HOUR / 1000,),
            note=f"reckoned from {counts.idle_seconds:.0f} s",
        )


def _chatty(counts: Counts) -> Figure:
    with rehearsal() as machine, _windows(machine, 1) as shows:
        made, db, now = recorder.Recorder(), machine.db(), host.now_ms()
        for _ in range(10 * counts.looks):
            shows(0, LINES)
            now += LOOK_MS
            recorder.look(db, machine.tmux, machine.home, made, TERMS, is_lively=True, now=now)
        made.close()
        per_look = _bytes_per_look(machine.home)
    return Figure(
        f"recording, an agent that prints {LINES} lines at each look: an hour",
        "KB",
        (per_look * LOOKS_PER_HOUR / 1000,),
        note=f"reckoned from {10 * counts.looks} looks",
    )


#: What a shot takes beside its text: its row, and its entry in the index.
_ROW_BYTES = 60


def _bytes_per_look(home: Path) -> float:
    """Bytes of a look, as they are in a long recording: the wholes are spread over the time that they serve."""
    reader = recordings.reader(home)
    assert reader
    reader.close()
    with contextlib.closing(store.open_read_only(recordings.path_in(home))) as db:
        (parts, number), wholes = (
            db.execute(
                "SELECT coalesce(sum(length(packed)), 0), count(*) FROM shots WHERE whole_id IS NOT NULL"
            ).fetchone(),
            db.execute(
                "SELECT avg(length(packed)) FROM shots WHERE whole_id IS NULL AND packed IS NOT NULL"
            ).fetchone()[0],
        )
        looks = db.execute("SELECT max(at) - min(at) FROM shots").fetchone()[0] / LOOK_MS
    return float((parts + number * _ROW_BYTES) / looks + wholes * LOOK_MS / recordings.WHOLE_FOR_MS)


@contextlib.contextmanager
def _windows(machine: Machine, number: int) -> Iterator[Callable[[int, int], None]]:
    """Live agents, each with a window of 200x50 that holds text; what is given prints lines into one of them."""
    with idle.fill(machine, agents_number=number):
        db, chance, ttys = machine.db(), random.Random(1), []
        machine.tmux.new_session("webapp-impl", orchestration="000000")
        for agent in agents.live(db):
            pane, _ = machine.tmux.new_window(
                *("webapp-impl",),
                index=100 + agent.window,  # beyond the one that keeps a new session alive
                name=agent.role,
                cwd=machine.folder,
                agent=agent.id,
                argv=["sleep", "1000"],
                replace=None,
            )
            db.execute("UPDATE agents SET pane_id = ? WHERE id = ?", (pane, agent.id))
            ttys.append(Path(machine.tmux.run("display-message", "-p", "-t", pane, "#{pane_tty}").strip()))

        def shows(place: int, lines: int) -> None:
            words = (f"\x1b[3{chance.randrange(8)}m{_words(chance)}\x1b[0m\r\n" for _ in range(lines))
            ttys[place].write_text("".join(words), encoding="utf-8", newline="")

        for place in range(number):
            shows(place, 50)
        yield shows


def _words(chance: random.Random) -> str:
    """A line like those of programs: words that come again, and numbers that do not."""
    common = ("def test", "self", "return", "assert", "lib/front", "commit", "error:", "passed", "in", "the")
    return " ".join(f"{chance.choice(common)} {chance.randrange(10_000)}" for _ in range(8))


def _moments(counts: Counts) -> list[Figure]:
    with rehearsal() as machine, idle.fill(machine, agents_number=AGENTS):
        db, began = machine.db(), host.now_ms()
        ids = [agent.id for agent in agents.live(db)]
        happen(db, ids, began)
        show(machine.home, ids, began)
        times = [began + (place + 1) * EVENTS * 100 // (counts.looks + 1) for place in range(counts.looks)]

        def look(at: int, recording: recordings.Reader | None) -> moments.Moment:
            return moments.look(db, recording, at, since=at - 600_000)

        reader = recordings.reader(machine.home)
        steps = [_timed(lambda at=at: look(at, reader)) for at in times]  # type: ignore[misc]
        without = [_timed(lambda at=at: look(at, None)) for at in times]  # type: ignore[misc]
        first = look(times[0], reader)
        compared = [_timed(lambda at=at: moments.compare(db, first, look(at, reader))) for at in times[-3:]]  # type: ignore[misc]
        assert reader
        reader.close()
    said = f"{EVENTS:,} events, {AGENTS} agents"
    return [
        Figure(f"a moment of {said}, with screens", "ms", tuple(steps), target=100.0, headline=True),
        Figure(f"a moment of {said}, without a recording", "ms", tuple(without), target=100.0),
        Figure("two of them compared, with the second one", "ms", tuple(compared)),
    ]


def happen(db: sqlite3.Connection, ids: list[int], began: int) -> None:
    """A history like that of a busy team: hooks, messages, commits."""
    kinds = ("message.acknowledged", "hook.Stop", "hook.SessionStart", "branch.moved", "check_in.fired")
    with store.writing(db):
        store.record(db, "orchestration.running", now=began, orchestration="000000")
        for number in range(EVENTS):
            kind, agent = kinds[number % len(kinds)], ids[number % len(ids)]
            store.record(db, kind, now=began + number * 100, orchestration="000000", agent=agent, new="a" * 40)


def show(home: Path, ids: list[int], began: int) -> None:
    chance, writer = random.Random(1), Writer(home, now=began)
    screens = {agent: [_words(chance) for _ in range(50)] for agent in ids}
    for number in range(SHOTS):
        for lines in screens.values():
            lines[:] = [*lines[LINES:], *(_words(chance) for _ in range(LINES))]
        seen = {agent: Seen(AgentState.WORKING, Picture(200, 50, "\n".join(lines))) for agent, lines in screens.items()}
        writer.add(seen, now=began + number * EVENTS * 100 // SHOTS)
    writer.close()


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
