"""The queue's tables: entries, their attempts, and the batches in which they were added.

Every transition is one transaction with its event and, where a person should hear of it, its notice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path

from lib import decisions, host, notices, orchestrations
from lib.config import QueueSettings
from lib.errors import Busy, NotFound, OrchestratorError, Usage
from lib.judgement import choices, retries
from lib.judgement.choices import Candidate
from lib.models import (
    PRIORITIES,
    UNFINISHED,
    Attempt,
    AttemptOutcome,
    EntryStatus,
    Orchestration,
    OrchestrationStatus,
    QueueEntry,
)
from lib.queue import evidence
from lib.records import dataclass
from lib.store import record, writing

MINUTE_MS = retries.MINUTE_MS
#: When what an attempt needs is not to be had (no login, a project that somebody holds), it is looked for again.
DEFER_MS = 5 * MINUTE_MS
#: A launch that ends without a word so often is a failure.
MOST_LAUNCHES = 5
#: Why an entry ends that a person has cancelled.
BY_HAND = "cancelled by hand"
#: Of how many entries before the one that was chosen it is kept why they were passed over.
_MOST_KEPT = 100


@dataclass(frozen=True)
class NewEntry:
    """A spec to be queued. `options` are those of a launch: roles, add_roles, team_type, size, plan,
    agent, git_mode, no_ai; of an entry of the fleet also its id there (`fleet`), and by role the commits on which
    another host's team has left off (`begin_from`).
    """

    spec_path: Path
    spec_text: str
    project: Path
    options: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    priority: int = 0
    budget_minutes: int | None = None
    #: Also when the same spec of the same project is there already.
    again: bool = False


@dataclass(frozen=True)
class Added:
    """What adding has come to: the entries in the order in which they were named, and which of them are new."""

    batch_id: int | None
    entries: tuple[QueueEntry, ...]
    new: frozenset[int]


# -- adding --


def add(db: sqlite3.Connection, wanted: Sequence[NewEntry], *, now: int) -> Added:
    """Queue specs as one batch. The same spec of the same project is the same entry unless it is to be `again`.

    An entry that still waits takes the spec's new text; one that is over is queued anew only for another text.
    """
    with writing(db):
        batch_id: int | None = None
        ids: list[int] = []
        new: set[int] = set()
        for one in wanted:
            same = same_as(db, one)
            if same is None:
                if batch_id is None:
                    batch_id = int(db.execute("INSERT INTO batches (created_at) VALUES (?)", (now,)).lastrowid or 0)
                same = _insert(db, batch_id, one, now)
                new.add(same)
            elif same not in new:
                db.execute(
                    "UPDATE queue_entries SET spec_text = ?, updated_at = ? WHERE id = ? AND status = 'queued'"
                    " AND spec_text != ?",
                    (one.spec_text, now, same, one.spec_text),
                )
            ids.append(same)
    return Added(batch_id, tuple(get(db, number) for number in dict.fromkeys(ids)), frozenset(new))


def same_as(db: sqlite3.Connection, one: NewEntry) -> int | None:
    """The id of the entry that a new one would be, or None."""
    if one.again:
        return None
    row = db.execute(
        "SELECT id FROM queue_entries WHERE spec_path = ? AND project = ? AND status != 'cancelled'"
        " AND (status IN ('queued', 'running', 'failed') OR spec_text = ?) ORDER BY id DESC LIMIT 1",
        (str(one.spec_path), str(one.project), one.spec_text),
    ).fetchone()
    return int(row["id"]) if row else None


def _insert(db: sqlite3.Connection, batch_id: int, one: NewEntry, now: int) -> int:
    cursor = db.execute(
        "INSERT INTO queue_entries (batch_id, spec_path, spec_text, project, options, tags, priority, budget_minutes,"
        " status, not_before, added_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
        (
            *(batch_id, str(one.spec_path), one.spec_text, str(one.project), json.dumps(dict(one.options))),
            *(json.dumps(one.tags), one.priority, one.budget_minutes, now, now, now),
        ),
    )
    entry_id = int(cursor.lastrowid or 0)
    record(db, "queue.added", now=now, entry=entry_id, batch=batch_id, spec=str(one.spec_path))
    return entry_id


# -- reading --


def get(db: sqlite3.Connection, entry_id: int) -> QueueEntry:
    """An entry by its id. Raises `NotFound`."""
    row = db.execute("SELECT * FROM queue_entries WHERE id = ?", (entry_id,)).fetchone()
    if row is None:
        raise NotFound(f"no queue entry has the id {entry_id}", hint="scheduler.py --queue-list")
    return _entry(row)


def every(db: sqlite3.Connection) -> list[QueueEntry]:
    """All entries, oldest first."""
    return [_entry(row) for row in db.execute("SELECT * FROM queue_entries ORDER BY id")]


def unfinished(db: sqlite3.Connection) -> list[QueueEntry]:
    """The entries that have still something to do, in the order in which they run."""
    rows = db.execute(
        "SELECT * FROM queue_entries WHERE status IN ('queued', 'running', 'failed') ORDER BY priority DESC, id"
    )
    return [_entry(row) for row in rows]


def attempts(db: sqlite3.Connection, entry_id: int) -> list[Attempt]:
    """The attempts of an entry, first one first."""
    rows = db.execute("SELECT * FROM attempts WHERE entry_id = ? ORDER BY number", (entry_id,))
    return [_attempt(row) for row in rows]


def open_attempts(db: sqlite3.Connection) -> list[Attempt]:
    """The attempts that have not ended."""
    return [_attempt(row) for row in db.execute("SELECT * FROM attempts WHERE outcome IS NULL ORDER BY entry_id")]


def open_attempt(db: sqlite3.Connection, entry_id: int) -> Attempt | None:
    """The attempt of an entry that has not ended, or None."""
    row = db.execute("SELECT * FROM attempts WHERE entry_id = ? AND outcome IS NULL", (entry_id,)).fetchone()
    return _attempt(row) if row else None


def not_closed(db: sqlite3.Connection) -> list[Attempt]:
    """The attempts that have ended and whose teams may still have windows."""
    rows = db.execute(
        "SELECT * FROM attempts WHERE outcome IS NOT NULL AND orchestration_id IS NOT NULL AND closed_at IS NULL"
        " ORDER BY ended_at"
    )
    return [_attempt(row) for row in rows]


def took_ms(db: sqlite3.Connection) -> list[int]:
    """How long the last attempts took that have succeeded, in milliseconds."""
    rows = db.execute(
        "SELECT ended_at - started_at FROM attempts WHERE outcome = 'succeeded' AND ended_at >= started_at"
        " ORDER BY ended_at DESC LIMIT 20"
    )
    return [int(row[0]) for row in rows]


def paused_at(db: sqlite3.Connection) -> int | None:
    """Since when the queue starts nothing, or None when it drains."""
    value = db.execute("SELECT paused_at FROM queue_switch").fetchone()["paused_at"]
    return int(value) if value is not None else None


# -- what a person does --


def set_paused(db: sqlite3.Connection, paused: bool, *, now: int) -> bool:
    """Have the queue start nothing more, or go on; what runs is left alone. Returns whether that changed anything."""
    with writing(db):
        changed = db.execute(
            "UPDATE queue_switch SET paused_at = ? WHERE (paused_at IS NULL) = ?", (now if paused else None, paused)
        ).rowcount
        if changed:
            record(db, "queue.paused" if paused else "queue.resumed", now=now)
    return bool(changed)


def retry(db: sqlite3.Connection, entry_id: int, *, now: int) -> QueueEntry:
    """Queue an entry again, at once and with all its attempts. Raises `Busy` while it runs."""
    with writing(db):
        entry = get(db, entry_id)
        if entry.status is EntryStatus.RUNNING:
            raise Busy(f"entry {entry_id} is running", hint=f"scheduler.py --queue-status {entry_id}")
        db.execute(
            "UPDATE queue_entries SET status = 'queued', failures = 0, not_before = ?, updated_at = ? WHERE id = ?",
            (now, now, entry_id),
        )
        db.execute("UPDATE batches SET summarized_at = NULL WHERE id = ?", (entry.batch_id,))
        record(db, "queue.retried", now=now, entry=entry_id)
    return get(db, entry_id)


def reorder(db: sqlite3.Connection, wanted: Sequence[int], *, now: int) -> list[QueueEntry]:
    """Have unfinished entries run in this order, by raising priorities where that is needed; the others keep theirs.

    Returns all that is unfinished, in its order. Raises `NotFound` for an entry that is over, `Usage` for
    one that is named twice or would need a priority that is out of bounds.
    """
    if len(set(wanted)) != len(wanted):
        raise Usage("an entry is named twice")
    with writing(db):
        known = {entry.id: entry for entry in unfinished(db)}
        if strange := [str(number) for number in wanted if number not in known]:
            raise NotFound(f"no unfinished entry has the id {', '.join(strange)}", hint="scheduler.py --queue-list")
        least, before = PRIORITIES[0], 0
        for number in reversed(wanted):
            # Among equals the older one goes first.
            priority = max(known[number].priority, least + (number > before > 0))
            if priority > PRIORITIES[1]:
                raise Usage(f"entry {number} would need a priority above {PRIORITIES[1]}")
            if priority != known[number].priority:
                db.execute(
                    "UPDATE queue_entries SET priority = ?, updated_at = ? WHERE id = ?", (priority, now, number)
                )
                record(db, "queue.reordered", now=now, entry=number, priority=priority)
            least, before = priority, number
    return unfinished(db)


def cancel(db: sqlite3.Connection, entry_id: int, *, now: int, reason: str = BY_HAND) -> QueueEntry:
    """End an entry without another attempt. Its team, when it has one, is the caller's to stop first.

    Raises `Busy` when it is over already.
    """
    with writing(db):
        entry = get(db, entry_id)
        if entry.status not in UNFINISHED:
            raise Busy(f"entry {entry_id} is already {entry.status}", hint=f"scheduler.py --queue-status {entry_id}")
        attempt = open_attempt(db, entry_id)
        if attempt:
            _end_attempt(db, attempt, AttemptOutcome.CANCELLED, reason, now)
        _move(db, entry, EntryStatus.CANCELLED, reason, now, attempt)
        _summarize(db, entry.batch_id, now)
    return get(db, entry_id)


# -- running --


def claim(
    db: sqlite3.Connection,
    *,
    now: int,
    max_concurrent: int,
    is_held: Callable[[QueueEntry], bool] = lambda entry: False,
) -> Attempt | None:
    """Take the next entry that may run and open its attempt, in one transaction; None when none may.

    One team per project; at most `max_concurrent` over all, of which a team that needs attention is none. A failed
    entry runs again when its pause is over and its batch has nothing else to run. One that `is_held` waits.
    """
    with writing(db):
        if paused_at(db) is not None:
            return None
        live = orchestrations.live(db)
        stuck = {found.id for found in live if found.status is OrchestrationStatus.NEEDS_ATTENTION}
        waiting = unfinished(db)
        of_entry = {attempt.entry_id: attempt for attempt in open_attempts(db)}
        running = [entry for entry in waiting if entry.status is EntryStatus.RUNNING]
        at_work = [entry for entry in running if of_entry[entry.id].orchestration_id not in stuck]
        if len(at_work) >= max_concurrent:
            return None
        busy = {str(found.project) for found in live} | {str(entry.project) for entry in running}
        batches = {entry.batch_id for entry in at_work} | {
            entry.batch_id for entry in waiting if entry.status is EntryStatus.QUEUED
        }
        looked_at: list[Candidate] = []
        for entry in waiting:
            if entry.status is EntryStatus.RUNNING:
                continue
            one = _candidate(entry, batches, now)
            if choices.may_run(one, busy, now=now) and is_held(entry):
                one = replace(one, is_held=True)
            looked_at.append(one)
            if choices.may_run(one, busy, now=now):
                attempt = _open(db, entry, now)
                _note_claim(db, looked_at, busy, now)
                return attempt
    return None


def _candidate(entry: QueueEntry, batches: Container[int], now: int) -> Candidate:
    return Candidate(
        id=entry.id,
        project=str(entry.project),
        has_failed=entry.status is EntryStatus.FAILED,
        waits_until=entry.not_before if is_paused(entry, now) else 0,
        has_fresh_siblings=entry.batch_id in batches,
    )


def _note_claim(db: sqlite3.Connection, looked_at: Sequence[Candidate], busy: Collection[str], now: int) -> None:
    """Keep which entry was chosen, the last of these, and what of those before it kept them from it."""
    last = looked_at[-_MOST_KEPT:]
    named = sorted({one.project for one in last} & set(busy))
    given = {"candidates": [asdict(one) for one in last], "busy": named, "now": now}
    decisions.note(db, "queue", given, last[-1].id, now=now)


def is_paused(entry: QueueEntry, now: int) -> bool:
    """Whether an entry waits for its next attempt; not when the clock was set back since its last change."""
    return now < entry.not_before and not host.was_set_back(entry.updated_at, now)


def _open(db: sqlite3.Connection, entry: QueueEntry, now: int) -> Attempt:
    before = attempts(db, entry.id)
    if before and before[-1].outcome is AttemptOutcome.DEFERRED:
        number = before[-1].number  # nothing of it was begun
        db.execute(
            # What could not be asked then may be asked now.
            "UPDATE attempts SET outcome = NULL, ended_at = NULL, reason = NULL, launches = 0, started_at = ?,"
            " counted_at = ?, research = iif(spec_path IS NULL, NULL, research) WHERE entry_id = ? AND number = ?",
            (now, now, entry.id, number),
        )
    else:
        number = len(before) + 1
        db.execute(
            "INSERT INTO attempts (entry_id, number, started_at, counted_at) VALUES (?, ?, ?, ?)",
            (entry.id, number, now, now),
        )
    db.execute("UPDATE queue_entries SET status = 'running', updated_at = ? WHERE id = ?", (now, entry.id))
    record(db, "queue.started", now=now, entry=entry.id, attempt=number)
    found = open_attempt(db, entry.id)
    assert found
    return found


def next_due(db: sqlite3.Connection) -> int | None:
    """When the next entry's pause is over (UTC milliseconds), or None; whether it may run then is another question."""
    if paused_at(db) is not None:
        return None
    row = db.execute("SELECT min(not_before) FROM queue_entries WHERE status IN ('queued', 'failed')").fetchone()
    return int(row[0]) if row[0] is not None else None


def waits_to_start(db: sqlite3.Connection, *, now: int) -> bool:
    """Whether an entry has not begun that should: the queue is not paused, and its pause after a failure is over."""
    row = db.execute(
        "SELECT 1 FROM queue_entries WHERE status = 'queued' OR (status = 'failed' AND not_before <= ?) LIMIT 1", (now,)
    ).fetchone()
    return row is not None and paused_at(db) is None


def begin_launch(db: sqlite3.Connection, attempt: Attempt) -> Attempt:
    """Count that an attempt's launch is begun, before it is."""
    db.execute(
        "UPDATE attempts SET launches = launches + 1 WHERE entry_id = ? AND number = ? AND outcome IS NULL",
        (attempt.entry_id, attempt.number),
    )
    return open_attempt(db, attempt.entry_id) or attempt


def note_research(
    db: sqlite3.Connection, attempt: Attempt, found: Mapping[str, object], spec_path: Path | None, *, now: int
) -> Attempt:
    """Keep what the research before an attempt has found, and the enhanced spec when there is one."""
    with writing(db):
        noted = db.execute(
            "UPDATE attempts SET research = ?, spec_path = ? WHERE entry_id = ? AND number = ? AND outcome IS NULL",
            (
                *(json.dumps(dict(found), ensure_ascii=False), str(spec_path) if spec_path else None),
                *(attempt.entry_id, attempt.number),
            ),
        ).rowcount
        if noted:
            record(
                db,
                "queue.researched",
                now=now,
                entry=attempt.entry_id,
                attempt=attempt.number,
                enhanced=bool(spec_path),
            )
    return open_attempt(db, attempt.entry_id) or attempt


def link(db: sqlite3.Connection, attempt: Attempt, orchestration_id: str, *, now: int) -> None:
    """Tie an attempt to the orchestration that works it; call it in the transaction that records that.

    Raises `OrchestratorError` when the attempt has ended meanwhile, so that nothing is recorded.
    """
    changed = db.execute(
        "UPDATE attempts SET orchestration_id = ?, counted_at = ? WHERE entry_id = ? AND number = ?"
        " AND outcome IS NULL AND orchestration_id IS NULL",
        (orchestration_id, now, attempt.entry_id, attempt.number),
    ).rowcount
    if not changed:
        raise OrchestratorError(f"attempt {attempt.number} of entry {attempt.entry_id} has ended meanwhile")


def count_time(db: sqlite3.Connection, attempt: Attempt, *, active: bool, longest_ms: int, now: int) -> Attempt:
    """Add the time since the last count to an attempt's active time, when its team was at work.

    At most `longest_ms` at once: what lies between two beats further apart is a sleep of the machine, a downtime
    or a jump of the clock.
    """
    passed = max(0, now - attempt.counted_at)
    db.execute(
        "UPDATE attempts SET active_ms = active_ms + ?, counted_at = ? WHERE entry_id = ? AND number = ?"
        " AND outcome IS NULL AND counted_at = ?",
        (passed if active and passed <= longest_ms else 0, now, attempt.entry_id, attempt.number, attempt.counted_at),
    )
    return open_attempt(db, attempt.entry_id) or attempt


def note_over_budget(db: sqlite3.Connection, attempt: Attempt) -> bool:
    """Record once that an attempt is over its budget; call it in the transaction of what follows from that."""
    return bool(
        db.execute(
            "UPDATE attempts SET over_budget = 1 WHERE entry_id = ? AND number = ? AND over_budget = 0",
            (attempt.entry_id, attempt.number),
        ).rowcount
    )


def close(db: sqlite3.Connection, attempt: Attempt, *, now: int) -> None:
    """Record that an attempt's team has no processes any more."""
    db.execute(
        "UPDATE attempts SET closed_at = ? WHERE entry_id = ? AND number = ?", (now, attempt.entry_id, attempt.number)
    )


# -- how an attempt ends --


def defer(db: sqlite3.Connection, attempt: Attempt, reason: str, *, now: int) -> None:
    """What an attempt needs is not to be had now: it is no failure, and begins again later."""
    with writing(db):
        if not _end_attempt(db, attempt, AttemptOutcome.DEFERRED, reason, now):
            return
        db.execute(
            "UPDATE queue_entries SET status = 'queued', reason = ?, not_before = ?, updated_at = ? WHERE id = ?",
            (reason, now + DEFER_MS, now, attempt.entry_id),
        )
        record(db, "queue.deferred", now=now, entry=attempt.entry_id, attempt=attempt.number, reason=reason)


def fail(db: sqlite3.Connection, attempt: Attempt, reason: str, settings: QueueSettings, *, now: int) -> None:
    """An attempt has failed: decide in the same transaction when it is tried again, or that it was the last."""
    with writing(db):
        if not _end_attempt(db, attempt, AttemptOutcome.FAILED, reason, now):
            return
        entry = get(db, attempt.entry_id)
        failures = entry.failures + 1
        most, pause = settings.max_attempts, settings.retry_minutes
        later = retries.next_attempt(failures, max_attempts=most, first_pause_minutes=pause, now=now)
        db.execute(
            "UPDATE queue_entries SET failures = ?, not_before = ? WHERE id = ?", (failures, later or now, entry.id)
        )
        _move(db, entry, EntryStatus.ABANDONED if later is None else EntryStatus.FAILED, reason, now, attempt)
        given = {"failures": failures, "max_attempts": most, "first_pause_minutes": pause, "now": now}
        decisions.note(db, "retry", given, later, now=now)
        if later is not None:
            return
        story = "\n".join(line for one in attempts(db, entry.id) for line in _story(one))
        if not entry.of_fleet:  # the host that has put it tells of it
            notices.tell(db, "abandoned", f"abandoned after {failures} failures: {_name(entry)}", story, now=now)
        _summarize(db, entry.batch_id, now)


def _story(attempt: Attempt) -> list[str]:
    return [*evidence.of_research(attempt), f"attempt {attempt.number}: {attempt.outcome}: {attempt.reason}"]


def settle(
    db: sqlite3.Connection, attempt: Attempt, ended: Orchestration, settings: QueueSettings, *, now: int
) -> None:
    """Take the outcome of an attempt's orchestration, which is over, as the attempt's own."""
    match ended.status:
        case OrchestrationStatus.COMPLETED:
            _succeed(db, attempt, ended, now)
        case OrchestrationStatus.FAILED:
            fail(db, attempt, ended.outcome or "the team has failed", settings, now=now)
        case OrchestrationStatus.STOPPED:
            cancel(db, attempt.entry_id, now=now, reason="its team was stopped")


def _succeed(db: sqlite3.Connection, attempt: Attempt, ended: Orchestration, now: int) -> None:
    with writing(db):
        if not _end_attempt(db, attempt, AttemptOutcome.SUCCEEDED, ended.outcome or "completed", now):
            return
        entry = get(db, attempt.entry_id)
        _move(db, entry, EntryStatus.SUCCEEDED, None, now, attempt)
        if not entry.of_fleet:
            notices.tell(db, "completed", f"completed: {_name(entry)}", orchestrations.told_of(db, ended), now=now)
        _summarize(db, entry.batch_id, now)


def _end_attempt(db: sqlite3.Connection, attempt: Attempt, outcome: AttemptOutcome, reason: str, now: int) -> bool:
    return bool(
        db.execute(
            "UPDATE attempts SET outcome = ?, reason = ?, ended_at = ? WHERE entry_id = ? AND number = ?"
            " AND outcome IS NULL",
            (outcome, reason, now, attempt.entry_id, attempt.number),
        ).rowcount
    )


def _move(
    db: sqlite3.Connection,
    entry: QueueEntry,
    status: EntryStatus,
    reason: str | None,
    now: int,
    attempt: Attempt | None,
) -> None:
    db.execute(
        "UPDATE queue_entries SET status = ?, reason = ?, updated_at = ? WHERE id = ?", (status, reason, now, entry.id)
    )
    record(
        db,
        f"queue.{status}",
        now=now,
        orchestration=attempt.orchestration_id if attempt else None,
        entry=entry.id,
        attempt=attempt.number if attempt else None,
        reason=reason,
    )


def _summarize(db: sqlite3.Connection, batch_id: int, now: int) -> None:
    """Tell once that a batch of several is over."""
    rows = db.execute("SELECT * FROM queue_entries WHERE batch_id = ? ORDER BY id", (batch_id,))
    members = [_entry(row) for row in rows]
    if len(members) < 2 or any(member.status in UNFINISHED for member in members):
        return
    if not db.execute(
        "UPDATE batches SET summarized_at = ? WHERE id = ? AND summarized_at IS NULL", (now, batch_id)
    ).rowcount:
        return
    counts = {status: sum(member.status is status for member in members) for status in EntryStatus}
    title = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    lines = [
        f"{member.id} {member.status}: {_name(member)}{f' ({member.reason})' if member.reason else ''}"
        for member in members
    ]
    record(db, "queue.batch_over", now=now, batch=batch_id, counts={str(key): value for key, value in counts.items()})
    notices.tell(db, "batch", f"batch {batch_id} is over: {title}", "\n".join(lines), now=now)


def _name(entry: QueueEntry) -> str:
    return f"{entry.spec_path.name} in {entry.project.name}"


def _entry(row: sqlite3.Row) -> QueueEntry:
    return QueueEntry(
        id=row["id"],
        batch_id=row["batch_id"],
        spec_path=Path(row["spec_path"]),
        spec_text=row["spec_text"],
        project=Path(row["project"]),
        options=json.loads(row["options"]),
        tags=tuple(json.loads(row["tags"])),
        priority=row["priority"],
        budget_minutes=row["budget_minutes"],
        status=EntryStatus(row["status"]),
        failures=row["failures"],
        not_before=row["not_before"],
        reason=row["reason"],
        added_at=row["added_at"],
        updated_at=row["updated_at"],
    )


def _attempt(row: sqlite3.Row) -> Attempt:
    return Attempt(
        entry_id=row["entry_id"],
        number=row["number"],
        orchestration_id=row["orchestration_id"],
        spec_path=Path(row["spec_path"]) if row["spec_path"] else None,
        research=row["research"],
        launches=row["launches"],
        active_ms=row["active_ms"],
        counted_at=row["counted_at"],
        over_budget=bool(row["over_budget"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        closed_at=row["closed_at"],
        outcome=AttemptOutcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
    )
