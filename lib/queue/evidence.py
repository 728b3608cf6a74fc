"""What an attempt leaves behind for whoever wants to know why it ended as it did."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lib import agents, history, orchestrations, store
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.judgement import cleaning
from lib.models import Agent, Attempt, Event, Orchestration
from lib.records import dataclass
from lib.tmux import Tmux

#: How many lines of each window are kept.
_LINES = 200
#: More of one text is not even looked at.
_LONGEST_TEXT = 200_000


@dataclass(frozen=True)
class Part:
    """One piece of evidence: what it is, in our words, and its text, which agents and programs have written."""

    title: str
    text: str


@dataclass(frozen=True)
class Failure:
    """What is known of a failure: how it is called, the reason in the words that ended it, and more evidence."""

    name: str
    reason: str
    parts: tuple[Part, ...] = ()


def folder(home: Path, attempt: Attempt) -> Path:
    """Where files about an attempt are kept, and its enhanced spec."""
    return home / "queue" / str(attempt.entry_id) / f"attempt-{attempt.number}"


# -- screens --


def keep_screens(db: sqlite3.Connection, tmux: Tmux, home: Path, attempt: Attempt) -> None:
    """Write the last screens of an attempt's team to files, one for each role."""
    assert attempt.orchestration_id
    place = folder(home, attempt)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for agent in agents.of_orchestration(db, attempt.orchestration_id):
        if agent.pane_id is None:
            continue
        try:
            text = tmux.run("capture-pane", "-p", "-J", "-S", f"-{_LINES}", "-t", agent.pane_id)
        except OrchestratorError:  # the window is gone, or tmux is: there is nothing to see
            continue
        draft = place / f"{agent.role}.screen.new"
        draft.write_text(text.rstrip() + "\n", encoding="utf-8", errors="replace")
        draft.replace(draft.with_suffix(".txt"))


def screens(home: Path, attempt: Attempt) -> dict[str, str]:
    """The last screens that were kept of an attempt, by role."""
    found = sorted(folder(home, attempt).glob("*.screen.txt"))
    return {path.name.removesuffix(".screen.txt"): path.read_text(encoding="utf-8") for path in found}


# -- a failure as a whole --


def of_attempt(db: sqlite3.Connection, home: Path, attempt: Attempt) -> Failure:
    """All that is known of a failed attempt, cleaned of what no terminal carries."""
    parts = [Part("what has happened", _told(db, attempt))]
    parts += [Part(f"the last screen of the {role}", text) for role, text in screens(home, attempt).items()]
    if attempt.orchestration_id:
        found = orchestrations.get(db, attempt.orchestration_id)
        for agent in agents.of_orchestration(db, found.id):
            parts.append(Part(f"the branch of the {agent.role}, {agent.branch}", _work(found, agent)))
    cleaned = (replace(part, text=_cleaned(part.text)) for part in parts)
    return Failure(
        name=f"attempt {attempt.number}",
        reason=_cleaned(attempt.reason or "no reason is known"),
        parts=tuple(part for part in cleaned if part.text),
    )


def _told(db: sqlite3.Connection, attempt: Attempt) -> str:
    """The events of an attempt's team as lines, each with the minutes since its start."""
    lines = []
    for event in _events(db, attempt):
        if sentence := history.sentence(db, event, longest=400):
            lines.append(f"{max(0, event.at - attempt.started_at) // 60_000:>4} min  {sentence}")
    return "\n".join(lines)


def _events(db: sqlite3.Connection, attempt: Attempt, *, most: int = 300) -> list[Event]:
    if attempt.orchestration_id is None:
        return []
    return store.events(db, orchestration=attempt.orchestration_id, limit=100_000)[-most:]


def _work(found: Orchestration, agent: Agent) -> str:
    """What an agent has committed, and what it has not; what cannot be looked at says so."""
    try:
        log = worktrees.log_since(found.project, agent.branch, found.starting_commit)
        left = worktrees.uncommitted(agent.worktree)
    except OrchestratorError as error:
        return f"(it cannot be looked at: {error.sentence})"
    return "\n\n".join([log or "nothing was committed", *([f"Not committed:\n{left}"] if left else [])])


def _cleaned(text: str) -> str:
    return cleaning.clean(text[-_LONGEST_TEXT:]).strip()


# -- how much of it fits --


def bounded(failures: Sequence[Failure], most_bytes: int, *, in_full: int = 3) -> list[Failure]:
    """Failures that hold at most so many bytes together; of those before the last few only the reason.

    What is short stays whole, and what is long shares the rest equally.
    """
    kept = [replace(one, parts=() if left >= in_full else one.parts) for left, one in _counted_down(failures)]
    sizes = [len(text.encode()) for one in kept for text in (one.reason, *(part.text for part in one.parts))]
    shares = iter(fair_shares(sizes, most_bytes))
    return [
        Failure(
            one.name,
            cleaning.shortened(one.reason, next(shares)),
            tuple(Part(part.title, cleaning.shortened(part.text, next(shares))) for part in one.parts),
        )
        for one in kept
    ]


def _counted_down(failures: Sequence[Failure]) -> Iterator[tuple[int, Failure]]:
    """Failures with the number of those that come after each."""
    return zip(range(len(failures) - 1, -1, -1), failures, strict=True)


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """How much each gets of a total: the small ones all that they need, the others the same."""
    left, shares = total, [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda number: sizes[number])
    for place, number in enumerate(order):
        shares[number] = min(sizes[number], left // (len(order) - place))
        left -= shares[number]
    return shares


# -- what research has said --


def of_research(attempt: Attempt) -> list[str]:
    """What the research before an attempt has come to, as lines for a person."""
    if attempt.research is None:
        return []
    found = json.loads(attempt.research)
    if why_not := found.get("why_not"):
        return [f"research: none, so its spec is the original: {why_not}"]
    lines = [f"research ({found['category']}): {' '.join(found['summary'].split())}"]
    if not found["worth_retrying"]:
        lines.append("  it doubts that another attempt can succeed")
    lines += [f"  a question for you: {' '.join(one.split())}" for one in found["questions_for_person"]]
    return lines + [f"  {note}" for note in found.get("notes", ())]
