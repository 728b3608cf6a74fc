"""The store: made once by whoever comes first, written by many, and never half."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import agents, checkins, messages, schema, store
from lib.errors import Unavailable
from lib.models import MessageKind
from tests.agents import a_team
from tests.conftest import ROOT, snapshot, wait_for


def run(*programs: str, home: Path, cwd: Path = ROOT) -> list[subprocess.Popen[str]]:
    """Start Python programs at the same moment; each gets the state home as its first argument."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, str(home)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for program in programs
    ]


def finish(started: list[subprocess.Popen[str]]) -> list[str]:
    done = [(process, *process.communicate(timeout=60)) for process in started]
    assert [error for process, _, error in done if process.returncode] == []
    return [out for _, out, _ in done]


def tables(db: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_state_home_gets_the_whole_schema(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "state"
    db = store.connect(home)
    assert {"orchestrations", "agents", "messages", "check_ins", "reports", "events"} <= tables(db)
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    home = tmp_path / "state"
    a_team(store.connect(home), "developer")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}


def test_connecting_again_changes_nothing(tmp_path: Path) -> None:
    store.connect(tmp_path).close()
    before = (tmp_path / "orchestrator.db").read_bytes()
    store.connect(tmp_path).close()
    assert (tmp_path / "orchestrator.db").read_bytes() == before


#: Every process has seen that there is no schema before one of them makes it.
CONNECTS = """
import sys, time
from pathlib import Path
from lib import store
migrate = store._migrate
def migrate_later(*words):
    time.sleep(0.5)
    migrate(*words)
store._migrate = migrate_later
db = store.connect(Path(sys.argv[1]))
print(db.execute("PRAGMA user_version").fetchone()[0])
"""


def test_processes_that_come_first_at_once_migrate_once(tmp_path: Path) -> None:
    versions = finish(run(*[CONNECTS] * 3, home=tmp_path))
    assert versions == [f"{len(schema.MIGRATIONS)}\n"] * 3
    assert "events" in tables(store.connect(tmp_path))


def test_a_first_opening_waits_for_another_one_in_the_middle_of_it(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "orchestrator.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (first,) = run(CONNECTS, home=tmp_path)
    time.sleep(1)
    other.execute("ROLLBACK")
    other.close()
    assert finish([first]) == [f"{len(schema.MIGRATIONS)}\n"]


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.connect(tmp_path).close()
    broken = "CREATE TABLE new_table (id INTEGER) STRICT;\nCREATE TABLE agents (id INTEGER) STRICT;\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    with pytest.raises(Unavailable, match="agents already exists"):
        store.connect(tmp_path)
    monkeypatch.undo()
    db = store.connect(tmp_path)
    assert "new_table" not in tables(db)


def test_a_later_migration_is_added_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = a_team(store.connect(tmp_path), "developer")[0]
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE new_table (id INTEGER) STRICT;\n"))
    db = store.connect(tmp_path)
    assert "new_table" in tables(db)
    assert agents.get(db, agent.id) == agent


def test_the_store_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Unavailable, match="newer version"):
        store.connect(tmp_path)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but some text\n" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_store_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "orchestrator.db").write_bytes(content)
    with pytest.raises(Unavailable, match="cannot be used") as raised:
        store.connect(tmp_path)
    assert str(tmp_path) in raised.value.sentence
    assert (tmp_path / "orchestrator.db").read_bytes() == content


HOLDS = """
import sys, time
from pathlib import Path
from lib import store
from tests.agents import a_team
home = Path(sys.argv[1])
db = store.connect(home)
a_team(db, "developer")
print("written", flush=True)
time.sleep(60)
"""


def left_by_a_killed_writer(home: Path) -> None:
    (writer,) = run(HOLDS, home=home)
    assert writer.stdout and writer.stdout.readline() == "written\n"
    writer.kill()
    writer.communicate()
    assert (home / "orchestrator.db-wal").stat().st_size > 0, "it is not checkpointed"


def left_in_order(home: Path) -> None:
    db = store.connect(home)
    a_team(db, "developer")
    db.close()
    assert sorted(path.name for path in home.iterdir()) == ["orchestrator.db"]


def left_without_its_shared_memory(home: Path) -> None:
    left_by_a_killed_writer(home)
    (home / "orchestrator.db-shm").unlink()


def left_with_an_empty_log(home: Path, *, size: int = 0) -> None:
    left_by_a_killed_writer(home)
    log = home / "orchestrator.db-wal"
    begin = log.read_bytes()[:size]
    db = store.connect(home)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shared = (home / "orchestrator.db-shm").read_bytes()
    db.close()
    for path, content in ((log, begin), (home / "orchestrator.db-shm", shared)):
        path.write_bytes(content)
        path.chmod(0o600)


def left_with_only_the_header_of_a_log(home: Path) -> None:
    left_with_an_empty_log(home, size=32)


@pytest.mark.parametrize(
    "leave",
    [
        left_in_order,
        left_by_a_killed_writer,
        left_without_its_shared_memory,
        left_with_an_empty_log,
        left_with_only_the_header_of_a_log,
    ],
)
def test_a_read_only_look_changes_no_file(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    home = tmp_path / "state"
    leave(home)
    before = snapshot(home)
    for _ in range(2):
        db = store.connect(home, read_only=True)
        assert agents.get(db, 1).role == "developer"
        with pytest.raises((sqlite3.OperationalError, Unavailable)), store.writing(db):
            db.execute("DELETE FROM messages")
        db.close()
    assert snapshot(home) == before


def test_a_read_only_look_beside_a_writer_sees_what_is_committed(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    before = snapshot(tmp_path)
    look = store.connect(tmp_path, read_only=True)
    assert agents.get(look, agent.id) == agent
    look.close()
    assert snapshot(tmp_path) == before
    db.close()


COMES_AND_GOES = """
import sys
from pathlib import Path
from lib import store
while True:
    db = store.connect(Path(sys.argv[1]))
    for number in range(5):
        with store.writing(db):
            store.record(db, "written", now=number)
    db.close()
"""


def test_a_read_only_look_succeeds_while_writers_come_and_go(tmp_path: Path) -> None:
    store.connect(tmp_path).close()
    writers = run(COMES_AND_GOES, COMES_AND_GOES, home=tmp_path)
    try:
        seen = 0
        while seen < 500:
            db = store.connect(tmp_path, read_only=True)
            found = len(store.events(db, limit=1_000_000))
            assert found >= seen, "what was committed is seen"
            seen = found
            db.close()
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_a_read_only_look_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        store.connect(tmp_path / "state", read_only=True)
    assert list(tmp_path.iterdir()) == []


WRITES = """
import sys
from pathlib import Path
from lib import agents, messages, store
from lib.models import MessageKind
db = store.connect(Path(sys.argv[1]))
agent = agents.get(db, 1)
for number in range(30):
    messages.queue(db, agent, f"text {number}", sender="tester", kind=MessageKind.MESSAGE, now=number)
"""


def test_ten_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    a_team(db, "developer")
    finish(run(*[WRITES] * 10, home=tmp_path))
    counted = db.execute("SELECT count(*), count(DISTINCT id) FROM messages").fetchone()
    assert tuple(counted) == (300, 300)
    told = db.execute("SELECT count(DISTINCT message_id) FROM events WHERE kind = 'message.queued'").fetchone()
    assert told[0] == 300


STOPS_BETWEEN = """
import sys, time
from pathlib import Path
from lib import agents, messages, store
from lib.models import MessageKind
db = store.connect(Path(sys.argv[1]))
agent = agents.get(db, 1)
def stop(*words, **more):
    print("between", flush=True)
    time.sleep(60)
messages.record = stop
messages.queue(db, agent, "half", sender="tester", kind=MessageKind.MESSAGE, now=1)
"""


def test_a_process_killed_between_a_change_and_its_event_leaves_neither(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    (process,) = run(STOPS_BETWEEN, home=tmp_path)
    assert process.stdout and process.stdout.readline() == "between\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert db.execute("SELECT count(*) FROM messages").fetchone()[0] == 0
    # Its lock has ended with it, and the next message is whole.
    messages.queue(db, agent, "whole", sender="tester", kind=MessageKind.MESSAGE, now=2)
    assert [event.kind for event in store.events(db) if event.message_id] == ["message.queued"]


def test_an_error_in_a_transaction_undoes_all_of_it(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    before = len(store.events(db))
    with pytest.raises(ZeroDivisionError), store.writing(db):
        checkins.add(db, agent.id, "look", minutes=5, now=0)
        raise ZeroDivisionError
    assert checkins.scheduled(db) == []
    assert len(store.events(db)) == before
    assert not db.in_transaction


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    db, reader = store.connect(tmp_path), store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    with store.writing(db):
        messages.queue(db, agent, "not yet", sender="tester", kind=MessageKind.MESSAGE, now=1)
        assert messages.pending(reader, agent.id) == []
    assert len(messages.pending(reader, agent.id)) == 1


def test_a_status_that_is_none_is_refused(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    message = messages.queue(db, agent, "text", sender="tester", kind=MessageKind.MESSAGE, now=1)
    with pytest.raises(sqlite3.IntegrityError), store.writing(db):
        db.execute("UPDATE messages SET status = 'sent' WHERE id = ?", (message.id,))


def test_events_are_read_in_order_from_an_id_on(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    for number in range(5):
        store.record(db, "test.event", now=number, orchestration="a" if number % 2 else None, number=number, text="ä✓")
    assert [event.data["number"] for event in store.events(db)] == [0, 1, 2, 3, 4]
    third = store.events(db)[2]
    assert third.data == {"number": 2, "text": "ä✓"}
    assert [event.data["number"] for event in store.events(db, after=third.id)] == [3, 4]
    assert [event.data["number"] for event in store.events(db, orchestration="a")] == [1, 3]
    assert [event.data["number"] for event in store.events(db, limit=2)] == [0, 1]
    store.record(db, "test.other", now=5, number=5)
    store.record(db, "test.third", now=6, number=6)
    assert [event.data["number"] for event in store.events(db, kind="test.other")] == [5]
    assert [event.data["number"] for event in store.events(db, kind=("test.third", "test.other"))] == [5, 6]


FULL = """
import sys
from pathlib import Path
from lib import agents, messages, store
from lib.errors import Unavailable
from lib.models import MessageKind
db = store.connect(Path(sys.argv[1]))
agent = agents.get(db, 1)
db.execute("PRAGMA max_page_count = " + str(db.execute("PRAGMA page_count").fetchone()[0]))
try:
    messages.queue(db, agent, "x" * 1_000_000, sender="tester", kind=MessageKind.MESSAGE, now=1)
except Unavailable as error:
    print(error.sentence)
"""


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    a_team(db, "developer")
    (said,) = finish(run(FULL, home=tmp_path))
    assert "cannot be written" in said
    assert db.execute("SELECT count(*) FROM messages").fetchone()[0] == 0
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_store_that_somebody_else_holds_is_waited_for(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    (process,) = run(STOPS_BETWEEN, home=tmp_path)
    assert process.stdout and process.stdout.readline() == "between\n"
    (writer,) = run(WRITES, home=tmp_path)
    time.sleep(0.5)
    assert writer.poll() is None
    process.kill()
    process.communicate()
    finish([writer])
    wait_for(lambda: len(messages.pending(db, agent.id)) == 30, "the waiting writer's messages", seconds=5)
