"""The queue on a real store by a virtual clock: what is the same, what runs when, and how it ends."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import criteria, orchestrations, store
from lib.config import QueueSettings
from lib.errors import Busy, NotFound, OrchestratorError, Usage
from lib.judgement import specs
from lib.models import Attempt, AttemptOutcome, EntryStatus, OrchestrationStatus
from lib.queue import entries
from lib.queue.entries import DEFER_MS, MINUTE_MS, NewEntry
from tests.agents import an_orchestration
from tests.conftest import ROOT

START = 1_700_000_000_000
SETTINGS = QueueSettings()


def at(minutes: float) -> int:
    """The virtual clock: minutes since the start, as UTC milliseconds."""
    return START + int(minutes * MINUTE_MS)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = store.connect(tmp_path)
    yield connection
    connection.close()


def new(project: str = "webapp", spec: str = "spec.md", *, text: str = "# A spec\n", priority: int = 0) -> NewEntry:
    return NewEntry(Path(f"/specs/{spec}"), text, Path(f"/projects/{project}"), priority=priority)


def queue(db: sqlite3.Connection, *wanted: NewEntry, now: int = START, again: bool = False) -> list[int]:
    named = [dataclasses.replace(one, again=again) for one in wanted]
    return [entry.id for entry in entries.add(db, named, now=now).entries]


def claim(db: sqlite3.Connection, *, now: int = START, at_once: int = 1) -> int | None:
    attempt = entries.claim(db, now=now, max_concurrent=at_once)
    return attempt.entry_id if attempt else None


def the_attempt(db: sqlite3.Connection, entry_id: int) -> Attempt:
    attempt = entries.open_attempt(db, entry_id)
    assert attempt
    return attempt


def start_team(db: sqlite3.Connection, entry_id: int, *, now: int = START) -> str:
    """Tie the open attempt of an entry to a running orchestration. Returns that one's id."""
    team = an_orchestration(project=entries.get(db, entry_id).project, unattended=True)
    with store.writing(db):
        orchestrations.add(db, team)
        entries.link(db, the_attempt(db, entry_id), team.id, now=now)
    return team.id


def end_team(
    db: sqlite3.Connection, entry_id: int, status: OrchestrationStatus, *, outcome: str = "said so", now: int = START
) -> None:
    attempt = the_attempt(db, entry_id)
    assert attempt.orchestration_id
    orchestrations.set_status(db, attempt.orchestration_id, status, now=now, outcome=outcome)
    entries.settle(db, attempt, orchestrations.get(db, attempt.orchestration_id), SETTINGS, now=now)


def run(
    db: sqlite3.Connection,
    entry_id: int,
    status: OrchestrationStatus = OrchestrationStatus.COMPLETED,
    *,
    now: int = START,
) -> None:
    """One whole attempt of the entry that has to be next."""
    assert claim(db, now=now) == entry_id
    start_team(db, entry_id, now=now)
    end_team(db, entry_id, status, now=now)


def statuses(db: sqlite3.Connection) -> dict[int, str]:
    return {entry.id: entry.status.value for entry in entries.every(db)}


def notices(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return [(row["kind"], row["title"]) for row in db.execute("SELECT kind, title FROM notices ORDER BY id")]


def kinds(db: sqlite3.Connection) -> list[str]:
    return [event.kind for event in store.events(db) if event.kind.startswith("queue.")]


class TestAdding:
    def test_what_is_added_together_is_a_batch_in_its_order(self, db: sqlite3.Connection) -> None:
        added = entries.add(db, [new("b"), new("a")], now=START)
        assert [entry.project.name for entry in added.entries] == ["b", "a"]
        assert {entry.batch_id for entry in added.entries} == {added.batch_id}
        assert added.new == {1, 2}
        assert entries.add(db, [new("c")], now=START).batch_id != added.batch_id

    def test_the_same_spec_of_the_same_project_is_the_same_entry(self, db: sqlite3.Connection) -> None:
        (first,) = queue(db, new())
        again = entries.add(db, [new(), new()], now=at(1))
        assert [entry.id for entry in again.entries] == [first]
        assert (again.new, again.batch_id) == (frozenset(), None)
        assert queue(db, new("other")) == [2]
        assert queue(db, new(spec="other.md")) == [3]
        assert queue(db, new(), again=True) == [4]
        assert db.execute("SELECT count(*) FROM batches").fetchone()[0] == 4

    def test_one_that_waits_takes_the_new_text(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new(text="old"))
        assert queue(db, new(text="new")) == [entry]
        assert entries.get(db, entry).spec_text == "new"
        claim(db)
        assert queue(db, new(text="newer")) == [entry]
        assert entries.get(db, entry).spec_text == "new", "its team works by what it was started with"

    def test_one_that_is_over_is_queued_anew_for_another_text_only(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        run(db, entry)
        assert queue(db, new()) == [entry]
        assert queue(db, new(text="more to do")) == [entry + 1]

    def test_one_that_was_cancelled_is_queued_anew(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        entries.cancel(db, entry, now=at(1))
        assert queue(db, new()) == [entry + 1]


class TestOrder:
    def test_priority_then_age(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("b", priority=-1), new("c", priority=5), new("d"))
        order = []
        while (entry := claim(db, at_once=10)) is not None:
            order.append(entries.get(db, entry).project.name)
        assert order == ["c", "a", "d", "b"]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
    def test_any_order_that_a_person_wants(self, db: sqlite3.Connection, order: tuple[int, ...]) -> None:
        ids = queue(db, *(new(f"p{n}", priority=n % 2) for n in range(4)))
        wanted = [ids[place] for place in order]
        assert [one.id for one in entries.reorder(db, wanted, now=START)] == wanted
        assert [one.id for one in entries.unfinished(db)] == wanted

    def test_an_order_of_some_leaves_the_others_where_they_are(self, db: sqlite3.Connection) -> None:
        first, second, third = queue(db, new("a", priority=9), new("b"), new("c"))
        assert [one.id for one in entries.reorder(db, [third, second], now=START)] == [first, third, second]
        assert entries.get(db, second).priority == 0 and entries.get(db, first).priority == 9

    def test_an_order_has_bounds_and_names_each_once(self, db: sqlite3.Connection) -> None:
        first, second = queue(db, new("a", priority=1000), new("b"))
        with pytest.raises(Usage, match="above 1000"):
            entries.reorder(db, [second, first], now=START)
        with pytest.raises(Usage, match="twice"):
            entries.reorder(db, [first, first], now=START)
        with pytest.raises(NotFound, match="no unfinished entry has the id 99"):
            entries.reorder(db, [99], now=START)
        assert entries.get(db, second).priority == 0, "nothing of a refused order is kept"

    def test_so_many_at_once_and_no_more(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("b"), new("c"))
        assert [claim(db, at_once=2) for _ in range(3)] == [1, 2, None]
        start_team(db, 1)
        end_team(db, 1, OrchestrationStatus.COMPLETED)
        assert claim(db, at_once=2) == 3

    def test_a_project_has_one_team_at_a_time(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("a", "more.md"), new("b"))
        assert [claim(db, at_once=10) for _ in range(3)] == [1, 3, None]
        start_team(db, 1)
        end_team(db, 1, OrchestrationStatus.COMPLETED)
        assert claim(db, at_once=10) == 2

    def test_the_schema_holds_it_too(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("a", "more.md"))
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE queue_entries SET status = 'running'")

    def test_a_team_of_a_person_holds_its_project(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"))
        team = an_orchestration(project=Path("/projects/a"))
        with store.writing(db):
            orchestrations.add(db, team)
        assert claim(db) is None
        orchestrations.set_status(db, team.id, OrchestrationStatus.STOPPED, now=at(1))
        assert claim(db) == 1

    def test_a_team_that_needs_attention_does_not_hold_up_other_projects(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("a", "more.md"), new("b"))
        assert claim(db) == 1
        team = start_team(db, 1)
        assert claim(db) is None
        orchestrations.set_status(db, team, OrchestrationStatus.NEEDS_ATTENTION, now=at(1), outcome="stuck")
        assert claim(db) == 3
        assert claim(db) is None, "its own project waits for it"

    def test_a_pause_starts_nothing_and_ends_nothing(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("b"))
        claim(db)
        assert entries.set_paused(db, True, now=at(1))
        assert not entries.set_paused(db, True, now=at(2))
        assert (entries.paused_at(db), claim(db, at_once=5), entries.next_due(db)) == (at(1), None, None)
        assert statuses(db) == {1: "running", 2: "queued"}
        assert entries.set_paused(db, False, now=at(3))
        assert claim(db, at_once=5) == 2


class TestFailing:
    def test_three_failures_with_growing_pauses_and_one_notice(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        now = START
        pauses = []
        for number in (1, 2, 3):
            run(db, entry, OrchestrationStatus.FAILED, now=now)
            found = entries.get(db, entry)
            assert (found.failures, found.reason) == (number, "said so")
            if number < 3:
                assert found.status is EntryStatus.FAILED
                pauses.append((found.not_before - now) / MINUTE_MS)
                assert claim(db, now=found.not_before - 1) is None
                assert entries.next_due(db) == found.not_before
                now = found.not_before
        assert pauses == [5, 30]
        assert entries.get(db, entry).status is EntryStatus.ABANDONED
        assert claim(db, now=at(10_000)) is None
        assert [kind for kind, _ in notices(db)] == ["abandoned"]
        (body,) = (row["body"] for row in db.execute("SELECT body FROM notices"))
        assert body.count("said so") == 3
        assert [attempt.outcome for attempt in entries.attempts(db, entry)] == [AttemptOutcome.FAILED] * 3

    def test_a_failure_waits_until_its_batch_has_nothing_else_to_run(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("b"))
        queue(db, new("c"))
        run(db, 1, OrchestrationStatus.FAILED)
        later = at(60)
        assert claim(db, now=later) == 2
        assert claim(db, now=later, at_once=5) == 3, "another batch's entry goes on meanwhile, the failed one waits"
        start_team(db, 2)
        end_team(db, 2, OrchestrationStatus.COMPLETED, now=later)
        assert claim(db, now=later, at_once=5) == 1

    def test_a_batch_of_two_with_one_failing_three_times(self, db: sqlite3.Connection) -> None:
        bad, good = queue(db, new("bad"), new("good"))
        run(db, bad, OrchestrationStatus.FAILED, now=at(0))
        run(db, good, now=at(1))
        run(db, bad, OrchestrationStatus.FAILED, now=at(100))
        assert "batch" not in {kind for kind, _ in notices(db)}
        run(db, bad, OrchestrationStatus.FAILED, now=at(200))
        assert statuses(db) == {bad: "abandoned", good: "succeeded"}
        assert [kind for kind, _ in notices(db)] == ["completed", "abandoned", "batch"]
        assert notices(db)[-1] == ("batch", "batch 1 is over: 1 succeeded, 1 abandoned")

    def test_the_notice_of_a_success_has_the_outcome_and_the_criteria(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        team = start_team(db, entry)
        with store.writing(db):
            criteria.begin(db, team, [specs.Criterion("C1", "It is fun", None, 1)])
        (one,) = criteria.of_orchestration(db, team)
        criteria.close(db, one, "Seen", by="orchestrator", is_person=False, commit="0" * 40, now=START)
        end_team(db, entry, OrchestrationStatus.COMPLETED)
        (body,) = (row["body"] for row in db.execute("SELECT body FROM notices"))
        assert body.startswith(
            "said so\n\ncriteria 1 of 1 hold, 1 closed by hand\nC1 It is fun\n    closed by hand: by"
        )

    def test_what_is_not_to_be_had_is_no_failure(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        for number in range(5):
            now = START + number * DEFER_MS
            assert claim(db, now=now) == entry
            entries.begin_launch(db, the_attempt(db, entry))
            entries.defer(db, the_attempt(db, entry), "Claude Code is not logged in", now=now)
            assert claim(db, now=now + DEFER_MS - 1) is None
        found = entries.get(db, entry)
        assert (found.status, found.failures, found.reason) == ("queued", 0, "Claude Code is not logged in")
        (attempt,) = entries.attempts(db, entry)
        assert attempt.launches == 1, "counted anew each time"
        run(db, entry, now=at(60))
        assert [one.outcome for one in entries.attempts(db, entry)] == [AttemptOutcome.SUCCEEDED]

    def test_a_clock_that_was_set_back_does_not_hold_up_an_attempt(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        run(db, entry, OrchestrationStatus.FAILED, now=at(100))
        assert claim(db, now=at(104)) is None
        assert claim(db, now=at(3)) == entry

    def test_what_an_errand_puts_off_during_a_beat_is_not_claimed_by_it(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        entries.defer(db, the_attempt(db, entry), "Claude Code is not installed", now=at(0.01))
        assert claim(db, now=at(0)) is None, "the beat's own time is a little older"
        assert claim(db, now=at(6)) == entry

    def test_a_retry_by_hand_has_all_attempts_again(self, db: sqlite3.Connection) -> None:
        first, second = queue(db, new("a"), new("b"))
        for minutes in (0, 100, 200):
            if minutes == 100:
                run(db, second, now=at(50))
            run(db, first, OrchestrationStatus.FAILED, now=at(minutes))
        entries.retry(db, first, now=at(300))
        run(db, first, OrchestrationStatus.FAILED, now=at(300))
        assert entries.get(db, first).status is EntryStatus.FAILED
        run(db, first, now=at(400))
        assert [one.number for one in entries.attempts(db, first)] == [1, 2, 3, 4, 5]
        assert [title for kind, title in notices(db) if kind == "batch"] == [
            "batch 1 is over: 1 succeeded, 1 abandoned",
            "batch 1 is over: 2 succeeded",
        ]


class TestByHand:
    def test_cancelling_ends_it(self, db: sqlite3.Connection) -> None:
        queue(db, new("a"), new("b"))
        claim(db)
        assert entries.cancel(db, 1, now=at(1)).status is EntryStatus.CANCELLED
        assert entries.cancel(db, 2, now=at(1)).status is EntryStatus.CANCELLED
        assert entries.attempts(db, 1)[0].outcome is AttemptOutcome.CANCELLED
        assert claim(db) is None
        with pytest.raises(Busy, match="already cancelled"):
            entries.cancel(db, 1, now=at(2))

    def test_a_team_that_a_person_has_stopped_is_cancelled_and_not_tried_again(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        run(db, entry, OrchestrationStatus.STOPPED)
        found = entries.get(db, entry)
        assert (found.status, found.reason) == ("cancelled", "its team was stopped")
        assert claim(db, now=at(1000)) is None

    def test_what_runs_is_not_queued_again(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        with pytest.raises(Busy, match="is running"):
            entries.retry(db, entry, now=at(1))

    def test_an_id_that_is_none_is_named(self, db: sqlite3.Connection) -> None:
        for do in (entries.cancel, entries.retry):
            with pytest.raises(NotFound, match="no queue entry has the id 9"):
                do(db, 9, now=START)


class TestOnce:
    def test_an_outcome_counts_once(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        start_team(db, entry)
        attempt = the_attempt(db, entry)
        end_team(db, entry, OrchestrationStatus.FAILED)
        ended = orchestrations.get(db, attempt.orchestration_id or "")
        entries.fail(db, attempt, "again", SETTINGS, now=at(1))
        entries.defer(db, attempt, "again", now=at(1))
        entries.settle(db, attempt, ended, SETTINGS, now=at(1))
        found = entries.get(db, entry)
        assert (found.failures, found.reason, found.updated_at) == (1, "said so", START)
        assert kinds(db).count("queue.failed") == 1

    def test_an_attempt_that_was_cancelled_gets_no_team(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        attempt = the_attempt(db, entry)
        entries.cancel(db, entry, now=at(1))
        team = an_orchestration(project=Path("/projects/webapp"))
        with pytest.raises(OrchestratorError, match="has ended meanwhile"), store.writing(db):
            orchestrations.add(db, team)
            entries.link(db, attempt, team.id, now=at(2))
        assert orchestrations.live(db) == []


class TestTime:
    def test_only_time_at_work_counts(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        start_team(db, entry)
        longest = 5 * MINUTE_MS
        counted = []
        for minutes, active in (
            (1, True),
            (2, True),
            (4, False),
            (5, True),
            (60, True),
            (61, True),
            (30, True),
            (31, True),
        ):
            attempt = entries.count_time(db, the_attempt(db, entry), active=active, longest_ms=longest, now=at(minutes))
            counted.append(attempt.active_ms / MINUTE_MS)
        # A pause of two minutes, a sleep of 55, and a clock that was set back by 31 are not counted.
        assert counted == [1, 2, 2, 3, 3, 4, 4, 5]

    def test_two_that_count_at_once_count_once(self, db: sqlite3.Connection) -> None:
        (entry,) = queue(db, new())
        claim(db)
        before = the_attempt(db, entry)
        for _ in range(2):
            after = entries.count_time(db, before, active=True, longest_ms=10 * MINUTE_MS, now=at(3))
        assert after.active_ms == 3 * MINUTE_MS


CLAIMS = """
import json, sys
from pathlib import Path
from lib import store
from lib.queue import entries
db = store.connect(Path(sys.argv[1]))
number = int(sys.argv[2])
sys.stdin.read(1)
taken = []
for each in range(20):
    new = [entries.NewEntry(Path(f"/specs/{number}-{each}.md"), "x", Path(f"/projects/{number}-{each}"))]
    new.append(entries.NewEntry(Path(f"/specs/shared-{each}.md"), "x", Path(f"/projects/shared-{each}")))
    entries.add(db, new, now=each)
    while attempt := entries.claim(db, now=each, max_concurrent=1000):
        taken.append([attempt.entry_id, attempt.number])
print(json.dumps(taken))
"""


def test_ten_processes_enqueue_and_claim_at_once(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS, str(tmp_path), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(10)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write("!")
        process.stdin.flush()
    taken = [tuple(one) for process in started for one in json.loads(process.communicate(timeout=120)[0])]
    assert all(process.returncode == 0 for process in started)
    assert len(taken) == len(set(taken)) == 10 * 20 + 20, "each entry once, and what all have added is one entry"
    assert set(statuses(db).values()) == {"running"}
    assert db.execute("SELECT count(*) FROM attempts").fetchone()[0] == len(taken)
    told = db.execute("SELECT count(*) FROM events WHERE kind = 'queue.started'").fetchone()[0]
    assert told == len(taken)
