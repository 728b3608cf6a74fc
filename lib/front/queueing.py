"""What the --queue-... forms of scheduler.py do and print."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib import agents, config, history, host, orchestrations, planning, service, store
from lib.errors import Usage
from lib.front import fleet_queue
from lib.front.cli import Output
from lib.judgement.batchfile import Wanted
from lib.models import Attempt, EntryStatus, QueueEntry
from lib.queue import draining, entries, evidence, intake
from lib.status import ago
from lib.tmux import Tmux


def add(
    output: Output,
    home: Path,
    words: Sequence[str],
    *,
    again: bool,
    priority: int,
    budget_minutes: int | None,
    no_ai: bool,
    fleet: bool = False,
    label: str | None = None,
) -> None:
    """SPEC PROJECT: queue one spec, here or in the fleet."""
    if len(words) != 2:
        raise Usage("--queue-add takes SPEC PROJECT", hint="scheduler.py --queue-add spec.md ~/projects/webapp")
    if fleet:
        options: dict[str, object] = {"no_ai": True} if no_ai else {}
        wanted = Wanted(
            spec=words[0], project=words[1], options=options, priority=priority, budget_minutes=budget_minutes
        )
        _put(output, home, wanted, label=label, again=again)
        return
    spec_path = planning.path_of(host.working_folder(), words[0]).resolve()
    spec = planning.read_spec(spec_path)
    project = planning.project_of(host.working_folder(), words[1])
    of_launch: dict[str, object] = {"no_ai": True} if no_ai else {}
    new = entries.NewEntry(
        *(spec_path, spec.text, project, of_launch), priority=priority, budget_minutes=budget_minutes, again=again
    )
    told(output, home, entries.add(store.connect(home), [new], now=host.now_ms()))


def _put(output: Output, home: Path, wanted: Wanted, *, label: str | None, again: bool) -> None:
    fleet_queue.check()
    db, settings = store.connect(home), config.load()
    found = intake.gather(db, home, settings, host.working_folder(), [wanted], force=False)
    fleet_queue.put(output, home, found, label=label, again=again)


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
        {**row(db, entry, now), "new": entry.id in added.new, **more.get(entry.project, {})} for entry in added.entries
    ]
    output.answer("\n".join(lines), rows)
    if added.new:
        say_who_drains(output, home)


def show_list(output: Output, home: Path) -> None:
    """Every entry: id, batch, spec, project, state, failures, age, running time, reason of the last failure."""
    db, now = store.connect(home), host.now_ms()
    found = entries.every(db)
    rows = [row(db, entry, now) for entry in found]
    if not found:
        text = "the queue is empty: scheduler.py --queue-add SPEC PROJECT"
    else:
        text = _table(rows)
    if since := entries.paused_at(db):
        text += f"\nthe queue is paused since {ago(now - since)}: scheduler.py --queue-resume"
    elif any(row["status"] == EntryStatus.QUEUED for row in rows) and not _drains(home):
        text += "\nno scheduler drains the queue: scheduler.py --queue-daemon"
    of_fleet, fleet_rows = fleet_queue.as_list(db, now)
    if of_fleet:
        text = f"{text}\n\n{of_fleet}" if found else of_fleet
    output.answer(text, {"paused": since is not None, "entries": rows, "fleet": fleet_rows})


def row(db: sqlite3.Connection, entry: QueueEntry, now: int) -> dict[str, object]:
    """An entry for --json; times are UTC milliseconds (`_at`), or spans of them (`_ms`)."""
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
        "added_at": entry.added_at,
        "started_at": made[-1].started_at if made else None,
        "due_at": entry.not_before if entry.status is EntryStatus.FAILED else None,
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


def show_entry(output: Output, home: Path, entry_id: int | str) -> None:
    """The whole story of an entry: each attempt with its reason, its research and its team."""
    if isinstance(entry_id, str):
        fleet_queue.show_entry(output, home, entry_id)
        return
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
    data = {**row(db, entry, now), "options": entry.options, "budget_minutes": entry.budget_minutes}
    output.answer("\n".join(lines), {**data, "story": [attempt_data(db, attempt) for attempt in made]})


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


def attempt_data(db: sqlite3.Connection, attempt: Attempt) -> dict[str, object]:
    """An attempt for --json, with its research and its team's session."""
    found = orchestrations.get(db, attempt.orchestration_id) if attempt.orchestration_id else None
    return {
        **vars(attempt),
        "research": json.loads(attempt.research) if attempt.research else None,
        "session": found.session if found else None,
    }


def cancel(output: Output, home: Path, entry_id: int | str) -> None:
    """End an entry for good; a running one with its team, whose work stays."""
    if isinstance(entry_id, str):
        fleet_queue.cancel(output, home, entry_id)
        return
    db, now = store.connect(home), host.now_ms()
    gone, had_team = draining.cancel(db, Tmux.from_environment(), home, entry_id, now=now)
    kept = "; its team has ended, worktrees and branches stay" if had_team else ""
    output.answer(f"cancelled entry {gone.id}: {gone.spec_path.name}{kept}", row(db, gone, now))


def retry(output: Output, home: Path, entry_id: int | str) -> None:
    """Queue an entry again."""
    if isinstance(entry_id, str):
        fleet_queue.retry(output, home, entry_id)
        return
    db, now = store.connect(home), host.now_ms()
    again = entries.retry(db, entry_id, now=now)
    output.answer(f"queued entry {again.id} again: {again.spec_path.name}", row(db, again, now))
    say_who_drains(output, home)


def order(output: Output, home: Path, words: Sequence[str]) -> None:
    """Have unfinished entries run in the order in which they are named, and show what waits then."""
    if not words:
        raise Usage("name the entries in their order", hint="scheduler.py --queue-order 7 3")
    if strange := [word for word in words if not word.isdecimal()]:
        raise Usage(f"{strange[0]!r} is no entry of this machine's queue", hint="scheduler.py --queue-list")
    db, now = store.connect(home), host.now_ms()
    rows = [row(db, entry, now) for entry in entries.reorder(db, list(map(int, words)), now=now)]
    output.answer(_table(rows), {"entries": rows})


def pause(output: Output, home: Path) -> None:
    """Start nothing more; what runs goes on."""
    _set_paused(output, home, True)


def resume(output: Output, home: Path) -> None:
    """Let the queue drain again, and say so when nobody drains it."""
    _set_paused(output, home, False)
    say_who_drains(output, home)


def _set_paused(output: Output, home: Path, paused: bool) -> None:
    changed = entries.set_paused(store.connect(home), paused, now=host.now_ms())
    word = "paused: what runs goes on, nothing more is started" if paused else "draining"
    output.answer(f"the queue is {'' if changed else 'already '}{word}", {"paused": paused, "changed": changed})


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
    if sentence := service.ensure(home):
        output.say(sentence)
    if service.running(home) and not service.drains_queue(home):
        output.say(
            "the scheduler that runs leaves the queue alone: scheduler.py --stop, then scheduler.py --queue-daemon"
        )


def _drains(home: Path) -> bool:
    return service.running(home) is not None and service.drains_queue(home)
