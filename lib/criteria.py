"""The criteria of an orchestration: when its work is done, and the evidence for each.

A criterion holds when its newest check left with 0, or when somebody has closed it by hand and says why. What checks
it is the project's own command, run by the toolkit on a commit and in a clean worktree (`merging/judging.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime

from lib.commands import Ran
from lib.errors import NotFound, OrchestratorError, Usage
from lib.judgement import cleaning, specs
from lib.models import LIVE, CriterionState
from lib.records import dataclass
from lib.store import record, writing

#: Seconds until an errand that did not come to its end is started again, by how often that has happened.
PAUSE_SECONDS = (2, 30, 120, 600)
#: After so many a person has to look.
MOST_FAILURES = len(PAUSE_SECONDS)
_LONGEST_PAUSE_MS = max(PAUSE_SECONDS) * 1000
_LONGEST_REASON = 2_000
#: What a notice tells of one criterion's evidence at most, so that it has room for others.
_LONGEST_TOLD = 300


@dataclass(frozen=True)
class Check:
    """One run of a criterion's check, on a commit; `at` is when it ended (UTC milliseconds)."""

    id: int
    commit: str
    tree: str
    exit_code: int
    output: str
    duration_ms: int
    at: int


@dataclass(frozen=True)
class Closing:
    """That somebody has closed a criterion by hand: who, why, and at which commit. `at` is UTC milliseconds."""

    by: str
    reason: str
    commit: str
    at: int


@dataclass(frozen=True)
class Criterion:
    """A criterion, its check if it has one, and its evidence; `last` is its newest check on whatever commit."""

    key: int
    orchestration_id: str
    id: str
    text: str
    command: str | None
    closing: Closing | None
    last: Check | None

    @property
    def state(self) -> CriterionState:
        """Whether it holds, by what is known now."""
        if self.closing:
            return CriterionState.CLOSED
        if self.last is None:
            return CriterionState.OPEN
        return CriterionState.HOLDS if self.last.exit_code == 0 else CriterionState.FAILS


@dataclass(frozen=True)
class Counts:
    """How many criteria there are, and how many hold; `by_hand` of these were closed by hand."""

    total: int
    hold: int
    by_hand: int
    fail: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def share(self) -> str:
        """The same where there is little room: `3/5`; empty without criteria."""
        return f"{self.hold}/{self.total}" if self.total else ""

    def __str__(self) -> str:
        """The same in a line: `criteria 3 of 5 hold`."""
        parts = [f"criteria {self.hold} of {self.total} hold"]
        parts += [f"{self.by_hand} closed by hand"] if self.by_hand else []
        parts += [f"{', '.join(self.fail)} {'fails' if len(self.fail) == 1 else 'fail'}"] if self.fail else []
        return ", ".join([*parts, *([f"{', '.join(self.open)} open"] if self.open else [])])


@dataclass(frozen=True)
class Standing:
    """How the criteria stand at one commit, but for those that hold there.

    Nothing checks the open ones, and nobody has closed them; those without an answer have a check that is to be run.
    """

    open: tuple[Criterion, ...]
    unanswered: tuple[Criterion, ...]
    failing: tuple[tuple[Criterion, Check], ...]


@dataclass(frozen=True)
class Judging:
    """How checking an orchestration's criteria goes.

    `wanted` counts how often it was asked for, `done` up to where that was answered. `progress` is the last asking
    that was about the integration, and `fresh_after` the newest check that is too old for it. `failures` counts how
    often the errand has begun since it last came to its end.
    """

    orchestration_id: str
    wanted: int
    done: int
    progress: int
    fresh_after: int
    failures: int
    not_before: int
    trouble: str | None


def begin(db: sqlite3.Connection, orchestration_id: str, found: Sequence[specs.Criterion]) -> None:
    """Record what a spec says of when the work is done. Call it in the transaction of the launch.

    The texts are recorded as a terminal can carry them; a check is run as it was written.
    """
    db.executemany(
        "INSERT INTO criteria (orchestration_id, id, text, command) VALUES (?, ?, ?, ?)",
        [(orchestration_id, one.id, cleaning.clean(one.text), one.check) for one in found],
    )


def of_orchestration(db: sqlite3.Connection, orchestration_id: str) -> list[Criterion]:
    """The criteria of an orchestration, in the order of its spec."""
    rows = db.execute(
        "SELECT criteria.*, last.id AS check_id, last.head, last.tree, last.exit_code, last.output, last.duration_ms,"
        " last.at FROM criteria LEFT JOIN criterion_checks AS last"
        " ON last.id = (SELECT max(id) FROM criterion_checks WHERE criterion_key = criteria.key)"
        " WHERE orchestration_id = ? ORDER BY criteria.key",
        (orchestration_id,),
    )
    return [_criterion(row) for row in rows]


def get(db: sqlite3.Connection, orchestration_id: str, criterion_id: str) -> Criterion:
    """A criterion by its id, in either case. Raises `NotFound` naming those that there are."""
    found = of_orchestration(db, orchestration_id)
    for one in found:
        if one.id == criterion_id.upper():
            return one
    there = ", ".join(one.id for one in found)
    raise NotFound(f"no criterion {criterion_id}", hint=f"criteria: {there}" if there else "its spec has no criteria")


def counts(db: sqlite3.Connection, orchestration_id: str) -> Counts:
    """How many criteria of an orchestration hold."""
    return count(of_orchestration(db, orchestration_id))


def count(found: Sequence[Criterion]) -> Counts:
    """How many of these criteria hold."""
    by_hand = sum(one.state is CriterionState.CLOSED for one in found)
    return Counts(
        total=len(found),
        hold=by_hand + sum(one.state is CriterionState.HOLDS for one in found),
        by_hand=by_hand,
        fail=tuple(one.id for one in found if one.state is CriterionState.FAILS),
        open=tuple(one.id for one in found if one.state is CriterionState.OPEN),
    )


def evidence(one: Criterion, *, when: Callable[[int], str]) -> str:
    """What shows how a criterion stands, in a sentence; `when` writes a time (UTC milliseconds)."""
    if closing := one.closing:
        return f"by {closing.by} at {closing.commit[:12]}, {when(closing.at)}: {closing.reason}"
    command = cleaning.clean(one.command or "")
    if last := one.last:
        left = f"`{command}` left with {last.exit_code} after {last.duration_ms / 1000:.1f} s"
        return f"{left} at {last.commit[:12]}, {when(last.at)}"
    return f"not checked yet: `{command}`" if command else "nothing checks it: close it by hand"


def story(db: sqlite3.Connection, orchestration_id: str) -> str:
    """How the criteria of an orchestration stand and what shows it, for a notice; empty when it has none."""
    found = of_orchestration(db, orchestration_id)
    if not found:
        return ""
    lines = [str(count(found))]
    for one in found:
        shown = f"{one.state}: {' '.join(evidence(one, when=_moment).split())}"
        lines += [
            f"{one.id} {one.text}",
            f"    {shown if len(shown) <= _LONGEST_TOLD else shown[: _LONGEST_TOLD - 1] + '…'}",
        ]
    return "\n".join(lines)


def standing(db: sqlite3.Connection, orchestration_id: str, tree: str, *, after: int = 0) -> Standing:
    """How criteria stand at a commit, by its tree: another commit with the same files is as good.

    What failed there counts when it was run `after` the check of this id: who asks again has it run again.
    """
    left = [one for one in of_orchestration(db, orchestration_id) if not one.closing]
    checked = [(one, _at(db, one, tree)) for one in left if one.command]
    return Standing(
        open=tuple(one for one in left if not one.command),
        unanswered=tuple(one for one, last in checked if last is None or (last.exit_code and last.id <= after)),
        failing=tuple((one, last) for one, last in checked if last and last.exit_code and last.id > after),
    )


def lacking(db: sqlite3.Connection, orchestration_id: str, tree: str, *, after: int) -> list[Criterion]:
    """The criteria that were not checked on these files since the check of this id; the result does not matter."""
    found = [one for one in of_orchestration(db, orchestration_id) if one.command and not one.closing]
    return [one for one in found if (last := _at(db, one, tree)) is None or last.id <= after]


def open_ids(db: sqlite3.Connection, orchestration_id: str) -> tuple[str, ...]:
    """The criteria that nothing checks and nobody has closed."""
    return tuple(one.id for one in of_orchestration(db, orchestration_id) if not one.command and not one.closing)


def newest_check(db: sqlite3.Connection) -> int:
    """The id of the newest check of anybody; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM criterion_checks").fetchone()[0])


def changed_since(db: sqlite3.Connection, orchestration_id: str, after: int) -> tuple[int, int]:
    """How many criteria hold since the check of this id that did not before, and how many fail."""
    hold = fail = 0
    for one in of_orchestration(db, orchestration_id):
        if one.last is None or one.last.id <= after:
            continue
        row = db.execute(
            "SELECT exit_code FROM criterion_checks WHERE criterion_key = ? AND id <= ? ORDER BY id DESC LIMIT 1",
            (one.key, after),
        ).fetchone()
        holds = one.last.exit_code == 0
        if row is None or (row["exit_code"] == 0) is not holds:
            hold, fail = hold + holds, fail + (not holds)
    return hold, fail


def add_check(
    db: sqlite3.Connection, one: Criterion, ran: Ran, *, commit: str, tree: str, duration_ms: int, now: int
) -> None:
    """Record a run of a criterion's check. That it begins to hold, or to fail, is an event."""
    with writing(db):
        before = get(db, one.orchestration_id, one.id).last
        db.execute(
            "INSERT INTO criterion_checks (criterion_key, command, head, tree, exit_code, output, duration_ms, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (one.key, ran.command, commit, tree, ran.exit_code, ran.output, duration_ms, now),
        )
        if before is None or (before.exit_code == 0) is not (ran.exit_code == 0):
            kind = "criterion.fails" if ran.exit_code else "criterion.holds"
            _tell(db, kind, one, now, commit=commit, exit=ran.exit_code, command=ran.command)


# -- by hand --


def close(
    db: sqlite3.Connection, one: Criterion, reason: str, *, by: str, is_person: bool, commit: str, now: int
) -> Criterion:
    """Close a criterion by hand. Raises `OrchestratorError` when it has a check and no person closes it.

    Who is judged by a check does not overrule it.
    """
    reason = cleaning.clean(reason).strip()
    if not reason or len(reason) > _LONGEST_REASON:
        raise Usage(
            f"say in 1 to {_LONGEST_REASON:,} characters how it was seen that {one.id} holds", hint='--reason "..."'
        )
    if one.command and not is_person:
        raise OrchestratorError(
            f"{one.id} has a check, `{cleaning.clean(one.command)}`, which decides; only a person closes it by hand",
            hint="mend what the check shows, commit, and report again",
        )
    with writing(db):
        db.execute(
            "UPDATE criteria SET closed_by = ?, closed_reason = ?, closed_commit = ?, closed_at = ? WHERE key = ?",
            (by, reason, commit, now, one.key),
        )
        _tell(db, "criterion.closed", one, now, by=by, reason=reason, commit=commit)
        want(db, one.orchestration_id, now=now)  # a completion may wait for this one alone
    return get(db, one.orchestration_id, one.id)


def reopen(db: sqlite3.Connection, one: Criterion, *, by: str, now: int) -> Criterion:
    """Take back that a criterion was closed by hand. Raises `OrchestratorError` when it was not."""
    if one.closing is None:
        raise OrchestratorError(f"{one.id} is not closed by hand", hint="claude_control.py criteria")
    with writing(db):
        db.execute(
            "UPDATE criteria SET closed_by = NULL, closed_reason = NULL, closed_commit = NULL, closed_at = NULL"
            " WHERE key = ?",
            (one.key,),
        )
        _tell(db, "criterion.reopened", one, now, by=by)
        want(db, one.orchestration_id, now=now)
    return get(db, one.orchestration_id, one.id)


# -- the errand --


def errand(orchestration_id: str) -> str:
    """The name of the errand that checks an orchestration's criteria."""
    return f"criteria-{orchestration_id}"


def want(
    db: sqlite3.Connection, orchestration_id: str, *, now: int, is_progress: bool = False, is_again: bool = False
) -> None:
    """Have the errand look at what a completion waits for, and with `is_progress` check the integration too.

    Call it in the transaction of what the reason is. With `is_again` nothing counts that was checked before. Without a
    criterion there is nothing to look at.
    """
    if not db.execute("SELECT 1 FROM criteria WHERE orchestration_id = ?", (orchestration_id,)).fetchone():
        return
    db.execute(
        "INSERT INTO judgings (orchestration_id, not_before) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (orchestration_id, now),
    )
    db.execute(
        "UPDATE judgings SET wanted = wanted + 1, failures = 0, not_before = ?,"
        " progress = CASE WHEN ? THEN wanted + 1 ELSE progress END,"
        " fresh_after = CASE WHEN ? THEN ? ELSE fresh_after END WHERE orchestration_id = ?",
        (now, is_progress, is_again, newest_check(db), orchestration_id),
    )


def judging_of(db: sqlite3.Connection, orchestration_id: str) -> Judging | None:
    """How checking goes; None before anything was asked for."""
    row = db.execute("SELECT * FROM judgings WHERE orchestration_id = ?", (orchestration_id,)).fetchone()
    return Judging(**dict(row)) if row else None


def due(db: sqlite3.Connection, *, now: int) -> dict[str, int]:
    """The orchestrations whose criteria are to be looked at, and when the errand may begin (UTC milliseconds)."""
    live = ", ".join("?" * len(LIVE))
    rows = db.execute(
        "SELECT orchestration_id, not_before FROM judgings JOIN orchestrations ON orchestrations.id = orchestration_id"
        f" WHERE wanted > done AND failures <= ? AND status IN ({live})",
        (MOST_FAILURES, *LIVE),
    )
    # A pause that is longer than any was written before the clock was set back.
    return {
        row["orchestration_id"]: now if row["not_before"] > now + _LONGEST_PAUSE_MS else row["not_before"]
        for row in rows
    }


def begin_judging(db: sqlite3.Connection, orchestration_id: str, *, now: int) -> None:
    """Record, before it begins, that the errand is at it: one that is killed leaves the count behind."""
    with writing(db):
        found = judging_of(db, orchestration_id)
        pause = PAUSE_SECONDS[min(found.failures if found else 0, len(PAUSE_SECONDS) - 1)]
        db.execute(
            "UPDATE judgings SET failures = failures + 1, not_before = ? WHERE orchestration_id = ?",
            (now + pause * 1000, orchestration_id),
        )


def end_judging(db: sqlite3.Connection, asked: Judging) -> None:
    """Record that the errand has come to its end; what was asked for meanwhile stays to be done."""
    with writing(db):
        db.execute(
            "UPDATE judgings SET done = ?, trouble = NULL, failures = 0,"
            " not_before = CASE WHEN wanted > ? THEN 0 ELSE not_before END WHERE orchestration_id = ?",
            (asked.wanted, asked.wanted, asked.orchestration_id),
        )


def note_trouble(db: sqlite3.Connection, orchestration_id: str, trouble: str, *, now: int) -> None:
    """Record why the errand did not come to its end; the same is told once."""
    with writing(db):
        before = judging_of(db, orchestration_id)
        if before is None or before.trouble != trouble:
            record(db, "criteria.failed", now=now, orchestration=orchestration_id, reason=trouble)
        db.execute("UPDATE judgings SET trouble = ? WHERE orchestration_id = ?", (trouble, orchestration_id))


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")


def _at(db: sqlite3.Connection, one: Criterion, tree: str) -> Check | None:
    row = db.execute(
        "SELECT id AS check_id, * FROM criterion_checks WHERE criterion_key = ? AND tree = ? ORDER BY id DESC LIMIT 1",
        (one.key, tree),
    ).fetchone()
    return _check(row) if row else None


def _tell(db: sqlite3.Connection, kind: str, one: Criterion, now: int, **data: object) -> None:
    of = one.orchestration_id
    record(db, kind, now=now, orchestration=of, agent=None, message=None, criterion=one.id, text=one.text, **data)


def _criterion(row: sqlite3.Row) -> Criterion:
    closing = (
        Closing(row["closed_by"], row["closed_reason"], row["closed_commit"], row["closed_at"])
        if row["closed_at"] is not None
        else None
    )
    last = _check(row) if row["check_id"] is not None else None
    return Criterion(row["key"], row["orchestration_id"], row["id"], row["text"], row["command"], closing, last)


def _check(row: sqlite3.Row) -> Check:
    return Check(
        row["check_id"], row["head"], row["tree"], row["exit_code"], row["output"], row["duration_ms"], row["at"]
    )
