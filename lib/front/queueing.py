"""What the --queue-... forms of scheduler.py do and print."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib import agents, daemon, history, host, orchestrations, planning, stopping, store
from lib.errors import Usage
from lib.front.cli import Output
from lib.models import Attempt, EntryStatus, OrchestrationStatus, QueueEntry
from lib.queue import draining, entries, evidence
from lib.status import ago
from lib.tmux import Tmux


def add(
    output: Output, home: Path, words: Sequence[str], again: bool, priority: int, budget_minutes: int | None
) -> None:
    """SPEC PROJECT: queue one spec."""
    if len(words) != 2:
        raise Usage("--queue-add takes SPEC PROJECT", hint="scheduler.py --queue-add spec.md ~/projects/webapp")
    spec_path = planning.path_of(host.working_folder(), words[0]).resolve()
    spec = planning.read_spec(spec_path)
    project = planning.project_of(host.working_folder(), words[1])
    new = entries.NewEntry(spec_path, spec.text, project, priority=priority, budget_minutes=budget_minutes, again=again)
    told(output, home, entries.add(store.connect(home), [new], now=host.now_ms()))


def told(
    output: Output,
    home: Path,
    added: entries.Added,
    *,
    first: Sequence[str] = (),
    of_project: Mapping[Path, Mapping[str, object]] | None = None,
) -> None:
    """Say what adding has come to, and have a scheduler that drains the queue.

    `first` are lines that come before, `of_project` is what belongs to the data of a project's entries.
    """
    db, now, more = store.connect(home), host.now_ms(), of_project or {}
    lines = [*first]
    for entry in added.entries:
        name = f"{entry.spec_path.name} in {entry.project}"
        if entry.id in added.new:
            lines.append(f"queued entry {entry.id}: {name}")
        else:
            lines.append(
                f"entry {entry.id} is this already ({draining.status_of(db, entry)}): {name}; --again for one more"
            )
    rows = [
        {**_row(db, entry, now), "new": entry.id in added.new, **more.get(entry.project, {})} for entry in added.entries
    ]
    output.answer("\n".join(lines), rows)
    if added.new:
        say_who_drains(output, home)


def show_list(output: Output, home: Path) -> None:
    """Every entry: id, batch, spec, project, state, failures, age, running time, reason of the last failure."""
    db, now = store.connect(home), host.now_ms()
    found = entries.every(db)
    rows = [_row(db, entry, now) for entry in found]
    if not found:
        text = "the queue is empty: scheduler.py --queue-add SPEC PROJECT"
    else:
        text = _table(rows)
    if since := entries.paused_at(db):
        text += f"\nthe queue is paused since {ago(now - since)}: scheduler.py --queue-resume"
    elif any(row["status"] == EntryStatus.QUEUED for row in rows) and not _drains(home):
        text += "\nno scheduler drains the queue: scheduler.py --queue-daemon"
    output.answer(text, {"paused": since is not None, "entries": rows})


def _row(db: sqlite3.Connection, entry: QueueEntry, now: int) -> dict[str, object]:
    made = entries.attempts(db, entry.id)
    return {
        "id": entry.id,
        "batch": entry.batch_id,
        "spec": str(entry.spec_path),
        "project": str(entry.project),
        "status": entry.status,
        "state": draining.status_of(db, entry),
        "priority": entry.priority,
        "tags": list(entry.tags),
        "attempts": len(made),
        "retries": max(0, len(made) - 1),
        "age_ms": now - entry.added_at,
        "running_ms": _running_ms(made[-1], now) if made else None,
        "due_in_ms": max(0, entry.not_before - now) if entry.status is EntryStatus.FAILED else None,
        "reason": entry.reason,
    }


def _running_ms(attempt: Attempt, now: int) -> int:
    return (attempt.ended_at or now) - attempt.started_at


def _table(rows: Sequence[dict[str, object]]) -> str:
    """Lines that fit 100 columns; the reason stands below, where it has room."""
    lines = [f"{'id':>4} {'batch':>5}  {'spec':24} {'project':15} {'state':15} {'retries':>7} {'age':>11} {'ran':>11}"]
    for row in rows:
        ran = ago(int(str(row["running_ms"]))) if row["running_ms"] is not None else "-"
        lines.append(
            f"{row['id']:>4} {row['batch']:>5}  {_short(Path(str(row['spec'])).name, 24):24}"
            f" {_short(Path(str(row['project'])).name, 15):15} {_short(str(row['state']), 15):15} {row['retries']:>7}"
            f" {ago(int(str(row['age_ms']))):>11} {ran:>11}"
        )
        if row["reason"]:
            first = str(row["reason"]).splitlines()[0]
            again = f"; again in {ago(int(str(row['due_in_ms'])))}" if row["due_in_ms"] else ""
            lines.append(f"{'':12}{_short(first, 80)}{again}")
    return "\n".join(lines)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def show_entry(output: Output, home: Path, entry_id: int) -> None:
    """The whole story of an entry: each attempt with its reason, its research and its team."""
    db, now = store.connect(home), host.now_ms()
    entry = entries.get(db, entry_id)
    made = entries.attempts(db, entry_id)
    lines = [
        f"entry {entry.id} (batch {entry.batch_id}): {draining.status_of(db, entry)}",
        f"  spec     {entry.spec_path}",
        f"  project  {entry.project}",
        f"  added    {ago(now - entry.added_at)} ago, priority {entry.priority}",
    ]
    if entry.options:
        lines.append(f"  options  {', '.join(f'{name} {_plain(value)}' for name, value in entry.options.items())}")
    if entry.tags:
        lines.append(f"  tags     {', '.join(entry.tags)}")
    if entry.budget_minutes:
        lines.append(f"  budget   {entry.budget_minutes} min of work")
    if entry.status is EntryStatus.FAILED:
        lines.append(f"  again    in {ago(entry.not_before - now)}, when nothing else of its batch is left to run")
    if not made:
        lines.append("  no attempt yet")
    for attempt in made:
        lines += _story(db, attempt, now)
    data = {**_row(db, entry, now), "options": entry.options, "budget_minutes": entry.budget_minutes}
    output.answer("\n".join(lines), {**data, "story": [_attempt_data(db, attempt) for attempt in made]})


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _story(db: sqlite3.Connection, attempt: Attempt, now: int) -> list[str]:
    how = str(attempt.outcome) if attempt.outcome else "not over"
    lines = [
        f"  attempt {attempt.number}: {how}, {ago(_running_ms(attempt, now))}, {ago(now - attempt.started_at)} ago"
    ]
    if attempt.reason:
        lines += [f"    {line}" for line in attempt.reason.splitlines()]
    lines += [f"    {line}" for line in evidence.of_research(attempt)]
    if attempt.spec_path:
        lines.append(f"    its spec: {attempt.spec_path}")
    if attempt.orchestration_id:
        found_team = orchestrations.get(db, attempt.orchestration_id)
        lines.append(f"    team {found_team.session} ({found_team.id}): {found_team.status}")
        for agent in agents.of_orchestration(db, found_team.id):
            lines.append(f"      {agent.role:20} {agent.branch}")
        told = [history.sentence(db, event) for event in store.events(db, orchestration=found_team.id, limit=100_000)]
        lines += [f"      {sentence}" for sentence in [one for one in told if one][-5:]]
    return lines


def _attempt_data(db: sqlite3.Connection, attempt: Attempt) -> dict[str, object]:
    found = orchestrations.get(db, attempt.orchestration_id) if attempt.orchestration_id else None
    return {
        **vars(attempt),
        "research": json.loads(attempt.research) if attempt.research else None,
        "session": found.session if found else None,
    }


def cancel(output: Output, home: Path, entry_id: int) -> None:
    """End an entry for good; a running one with its team, whose work stays."""
    db, now = store.connect(home), host.now_ms()
    with store.writing(db):
        attempt = entries.open_attempt(db, entry_id)
        gone = entries.cancel(db, entry_id, now=now)
        if attempt and attempt.orchestration_id:
            orchestrations.set_status(db, attempt.orchestration_id, OrchestrationStatus.STOPPED, now=now)
    if attempt and attempt.orchestration_id:
        stopping.end_processes(db, Tmux.from_environment(), orchestrations.get(db, attempt.orchestration_id))
        entries.close(db, attempt, now=now)
    host.wake(home)
    kept = "; its team has ended, worktrees and branches stay" if attempt and attempt.orchestration_id else ""
    output.answer(f"cancelled entry {gone.id}: {gone.spec_path.name}{kept}", _row(db, gone, now))


def retry(output: Output, home: Path, entry_id: int) -> None:
    """Queue an entry again."""
    db, now = store.connect(home), host.now_ms()
    again = entries.retry(db, entry_id, now=now)
    output.answer(f"queued entry {again.id} again: {again.spec_path.name}", _row(db, again, now))
    say_who_drains(output, home)


def set_paused(output: Output, home: Path, paused: bool) -> None:
    """Start nothing more, or go on."""
    changed = entries.set_paused(store.connect(home), paused, now=host.now_ms())
    word = "paused: what runs goes on, nothing more is started" if paused else "draining"
    output.answer(f"the queue is {'' if changed else 'already '}{word}", {"paused": paused, "changed": changed})
    if not paused:
        say_who_drains(output, home)


def run_entry(output: Output, home: Path, entry_id: int) -> None:
    """Launch an entry that is claimed: what the scheduler has done for it."""
    entries.get(store.connect(home), entry_id)
    found = draining.run(home, entry_id)
    entry = entries.get(store.connect(home), entry_id)
    if found is None:
        text = f"entry {entry_id} is {entry.status}{f': {entry.reason}' if entry.reason else ''}; nothing was launched"
    else:
        text = f"entry {entry_id} runs in session {found.session}"
    output.answer(text, {"id": entry_id, "status": entry.status, "session": found.session if found else None})


def say_who_drains(output: Output, home: Path) -> None:
    """Have a scheduler that drains the queue, or say why there is none."""
    if sentence := daemon.ensure(home):
        output.say(sentence)
    if daemon.running(home) and not daemon.drains_queue(home):
        output.say(
            "the scheduler that runs leaves the queue alone: scheduler.py --stop, then scheduler.py --queue-daemon"
        )


def _drains(home: Path) -> bool:
    return daemon.running(home) is not None and daemon.drains_queue(home)
