"""Replay: what was decided comes out the same again, and what would come out otherwise is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import agents, checkins, host, limits, replay, store
from lib.config import LimitSettings, QueueSettings
from lib.errors import NotFound, Unavailable
from lib.judgement import choices, retries
from lib.judgement.occurrences import MINUTE_MS
from lib.models import LimitKind, LimitSource, Refusal
from lib.queue import entries
from tests.agents import a_team
from tests.conftest import Bench, wait_for

START = 1_700_000_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(store.connect(tmp_path)) as connection:
        yield connection


def a_day(db: sqlite3.Connection, folder: Path) -> None:
    """Check-ins at intervals and by a cron line, two entries of which one fails, and a limit."""
    agent = a_team(db, "developer")[0]
    checkins.add(db, agent.id, "How is it going?", now=START, minutes=30, recurring=True)
    checkins.add(db, agent.id, "Lunch", now=START, cron_line="0 12 * * *")
    for hours in range(1, 25):
        checkins.fire_due(db, now=START + hours * 60 * MINUTE_MS)
    specs = [
        entries.NewEntry(folder / f"{name}.md", f"# {name}\n", folder / name, priority=priority)
        for name, priority in (("shop", 0), ("blog", 5))
    ]
    entries.add(db, specs, now=START)
    attempt, _ = (entries.claim(db, now=START, max_concurrent=2) for _ in specs)
    assert attempt
    entries.fail(db, attempt, "it was not to be", QueueSettings(), now=START)
    refusal = Refusal(LimitKind.FIVE_HOUR, "resets 3am (UTC)", START + 60 * MINUTE_MS)
    limits.refused(db, agents.get(db, agent.id), refusal, LimitSource.HOOK, at=START, terms=LimitSettings())


def whole(db: sqlite3.Connection) -> replay.Replay:
    return replay.replay(db, since=0, until=2**53)


class TestTheSame:
    def test_a_day_comes_out_the_same(self, db: sqlite3.Connection, tmp_path: Path) -> None:
        a_day(db, tmp_path)
        found = whole(db)
        assert set(found.counts) == {"check_in", "queue", "retry", "limit"}
        assert found.total > 20
        assert (found.different, found.not_made, found.alone) == ((), (), ())

    def test_the_digest_stands_for_the_outcomes(self, db: sqlite3.Connection, tmp_path: Path) -> None:
        a_day(db, tmp_path)
        assert whole(db).digest == whole(db).digest
        before = whole(db)
        (last,) = db.execute("SELECT max(at) FROM decisions").fetchone()
        part = replay.replay(db, since=0, until=last - 1)
        assert 0 < part.total < before.total
        assert part.digest != before.digest

    def test_every_kind_that_is_kept_can_be_decided_again(self) -> None:
        import ast  # noqa: PLC0415 - the one test that reads sources

        kept = set()
        for path in (Path(replay.__file__).parent).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "decisions.note":
                    kept.add(ast.literal_eval(node.args[1]))
        assert kept == set(replay.AGAIN)


class TestOtherwise:
    @pytest.mark.parametrize(
        ("room", "rule", "kind"),
        [(retries, "next_attempt", "retry"), (retries, "next_trial", "limit"), (choices, "next_entry", "queue")],
    )
    def test_another_rule_is_noticed(
        self,
        db: sqlite3.Connection,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        room: object,
        rule: str,
        kind: str,
    ) -> None:
        a_day(db, tmp_path)
        as_it_was = whole(db).digest
        monkeypatch.setattr(room, rule, lambda *_, **__: 7)
        found = whole(db)
        assert {one.decision.kind for one in found.different} == {kind}
        assert {one.now for one in found.different} == {7}
        assert found.digest != as_it_was

    def test_another_grid_is_noticed(
        self, db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_day(db, tmp_path)
        monkeypatch.setattr(
            "lib.judgement.occurrences.on_grid", lambda planned, minutes, at: at + minutes * MINUTE_MS + 1
        )
        assert {one.decision.kind for one in whole(db).different} == {"check_in"}

    def test_an_event_whose_decision_is_gone_is_alone(self, db: sqlite3.Connection, tmp_path: Path) -> None:
        a_day(db, tmp_path)
        (event,) = db.execute("SELECT event_id FROM decisions WHERE kind = 'retry'").fetchone()
        db.execute("DELETE FROM decisions WHERE kind = 'retry'")
        assert whole(db).alone == (event,)

    def test_events_from_before_the_first_decision_are_not_alone(self, db: sqlite3.Connection, tmp_path: Path) -> None:
        with store.writing(db):
            store.record(db, "check_in.fired", now=START - 1)
        a_day(db, tmp_path)
        assert whole(db).alone == ()


class TestNotMade:
    def test_a_kind_that_this_version_does_not_know(self, db: sqlite3.Connection) -> None:
        decisions_note = "INSERT INTO decisions (at, kind, given, made) VALUES (1, 'fleet', '{}', '3')"
        db.execute(decisions_note)
        (one,) = whole(db).not_made
        assert "no decision of the kind 'fleet'" in one.now

    def test_what_another_version_decided_by_other_things(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO decisions (at, kind, given, made) VALUES (1, 'retry', '{\"moon\": 1}', '3')")
        (one,) = whole(db).not_made
        assert "moon" in one.now

    def test_a_cron_line_in_another_zone(
        self, db: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_day(db, tmp_path)
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        try:
            found = whole(db)
        finally:
            monkeypatch.undo()
            time.tzset()
        assert found.not_made and all("set TZ" in one.now for one in found.not_made)
        assert found.different == ()


class TestTheVerb:
    def test_it_says_that_all_is_the_same_and_changes_nothing(self, bench: Bench) -> None:
        with contextlib.closing(bench.db()) as db:
            a_day(db, bench.folder)
        copy = bench.folder / "copy.db"
        shutil.copyfile(bench.home / "orchestrator.db", copy)
        before = hashlib.sha256(copy.read_bytes()).digest()
        said = bench.ok("claude_control.py", "replay", "--db", str(copy)).out
        assert "decisions come out the same\ndigest " in said
        assert hashlib.sha256(copy.read_bytes()).digest() == before
        assert [path.name for path in bench.folder.glob("copy.db*")] == ["copy.db"]

    def test_it_shows_what_comes_out_otherwise(self, bench: Bench) -> None:
        with contextlib.closing(bench.db()) as db:
            a_day(db, bench.folder)
        copy = bench.folder / "copy.db"
        shutil.copyfile(bench.home / "orchestrator.db", copy)
        with contextlib.closing(sqlite3.connect(copy)) as db, db:
            db.execute("UPDATE decisions SET made = '1' WHERE kind = 'retry'")
        done = bench.door("claude_control.py", "replay", "--db", str(copy))
        assert done.code == 1
        assert "it was 1, and is 17000" in done.out
        told = bench.door("claude_control.py", "replay", "--db", str(copy), "--json").json
        assert [one["kind"] for one in told["different"]] == ["retry"]

    def test_until_a_time(self, bench: Bench) -> None:
        with contextlib.closing(bench.db()) as db:
            a_day(db, bench.folder)
        short = bench.ok("claude_control.py", "replay", "--until", str(START + 120 * MINUTE_MS), "--json").json
        whole_day = bench.ok("claude_control.py", "replay", "--json").json
        assert sum(short["counts"].values()) < sum(whole_day["counts"].values())
        assert "no decision is kept" in bench.ok("claude_control.py", "replay", "--until", str(START - 1)).out

    def test_a_real_team_is_decided_alike(self, bench: Bench) -> None:
        project = bench.project(spec="# Wait\n\nrehearse: hold\n")
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal")
        with contextlib.closing(bench.db()) as db:
            agent = agents.live(db)[0]
            checkins.add(db, agent.id, "How is it going?", now=host.now_ms() - 10 * MINUTE_MS, minutes=5)
        host.wake(bench.home)
        wait_for(lambda: bench.rows("SELECT 1 FROM decisions"), "the check-in to fire")
        assert "1 of 1 decisions come out the same" in bench.ok("claude_control.py", "replay").out

    @pytest.mark.parametrize(
        ("make", "code", "words"),
        [
            (lambda path: None, 3, "there is no store at"),
            (lambda path: path.write_text("no database"), 5, "cannot be read"),
            (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 1"), 5, "an older version"),
            (lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 999"), 5, "a newer version"),
        ],
    )
    def test_what_is_no_store_of_this_version(self, bench: Bench, make: object, code: int, words: str) -> None:
        assert callable(make)
        copy = bench.folder / "copy.db"
        make(copy)
        done = bench.door("claude_control.py", "replay", "--db", str(copy))
        assert (done.code, words in done.err) == (code, True), done.err


def test_a_store_is_opened_where_it_lies(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.open_copy(tmp_path / "none.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(NotFound):
        store.open_copy(tmp_path / "folder.db")
    (tmp_path / "text.db").write_text("x" * 5000)
    with pytest.raises(Unavailable):
        store.open_copy(tmp_path / "text.db")
