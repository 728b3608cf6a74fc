"""What hooks leave in the spool: read once, in order, of this life only, whatever is in it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import agents, messages, signals, store
from lib.judgement import framing
from lib.models import Agent, Message, MessageKind, MessageStatus
from tests.agents import a_team
from tests.conftest import ROOT

NOW = 1_700_000_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = store.connect(tmp_path)
    yield connection
    connection.close()


@pytest.fixture
def agent(db: sqlite3.Connection) -> Agent:
    """A developer in its second life."""
    made = a_team(db, "developer")[0]
    for _ in range(2):
        made = agents.start_epoch(db, made.id, conversation_id="c1")
    return made


def leave(home: Path, agent: Agent, content: bytes, *, at: int = NOW, epoch: int | None = None) -> Path:
    """Leave a payload as the hook does."""
    spool = home / "spool"
    spool.mkdir(exist_ok=True)
    path = spool / f"{at * 1_000_000:020d}-{at % 1000}-{agent.id}-{agent.epoch if epoch is None else epoch}.json"
    path.write_bytes(content)
    return path


def payload(event: str, **values: object) -> bytes:
    return json.dumps({"hook_event_name": event, "session_id": "c1", **values}).encode()


def queue(db: sqlite3.Connection, agent: Agent, body: str = "hello") -> Message:
    return messages.queue(db, agent, body, sender="tester", kind=MessageKind.MESSAGE, now=NOW)


def received(message: Message) -> bytes:
    return payload("UserPromptSubmit", prompt=framing.frame(message.id, message.sender, message.body))


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "spool").iterdir())


def kinds(db: sqlite3.Connection) -> list[str]:
    return [event.kind for event in store.events(db) if event.kind.startswith(("hook.", "message.acknowledged"))]


def test_nothing_was_left(tmp_path: Path, db: sqlite3.Connection) -> None:
    assert signals.ingest(db, tmp_path) == 0


def test_a_received_message_is_acknowledged_at_the_time_of_the_hook(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent
) -> None:
    message = queue(db, agent)
    leave(tmp_path, agent, received(message), at=NOW + 250)
    assert signals.ingest(db, tmp_path) == 1
    assert messages.get(db, message.id).acknowledged_at == NOW + 250
    assert left(tmp_path) == []
    assert agents.get(db, agent.id).last_hook == "UserPromptSubmit"
    assert agents.get(db, agent.id).last_hook_at == NOW + 250


def test_what_an_older_life_reports_is_not_acted_on(tmp_path: Path, db: sqlite3.Connection, agent: Agent) -> None:
    message = queue(db, agent)
    leave(tmp_path, agent, received(message), epoch=agent.epoch - 1)
    assert signals.ingest(db, tmp_path) == 1
    assert messages.get(db, message.id).status is MessageStatus.QUEUED
    assert agents.get(db, agent.id).last_hook is None
    assert left(tmp_path) == []


def test_hooks_are_read_in_the_order_of_their_time(tmp_path: Path, db: sqlite3.Connection, agent: Agent) -> None:
    for number, event in ((30, "Stop"), (10, "SessionStart"), (20, "Notification")):
        leave(tmp_path, agent, payload(event), at=NOW + number)
    signals.ingest(db, tmp_path)
    assert kinds(db) == ["hook.SessionStart", "hook.Notification", "hook.Stop"]
    assert agents.get(db, agent.id).last_hook == "Stop"


def test_a_late_hook_does_not_hide_a_newer_one(tmp_path: Path, db: sqlite3.Connection, agent: Agent) -> None:
    leave(tmp_path, agent, payload("Stop"), at=NOW + 20)
    signals.ingest(db, tmp_path)
    leave(tmp_path, agent, payload("UserPromptSubmit", prompt="x"), at=NOW + 10)
    signals.ingest(db, tmp_path)
    assert agents.get(db, agent.id).last_hook == "Stop"


def test_an_agent_that_begins_another_conversation_is_followed(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent
) -> None:
    leave(tmp_path, agent, json.dumps({"hook_event_name": "SessionStart", "session_id": "c2"}).encode())
    signals.ingest(db, tmp_path)
    assert agents.get(db, agent.id).conversation_id == "c2"


GARBAGE = [
    # Nothing, not text, cut off, of another shape, as deep as it goes.
    b"",
    b"\x00\xff\xfe",
    b'{"hook_event_name": "Sto',
    b"[]",
    b'{"hook_event_name": 7}',
    b"[" * 200_000,
]


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: ascii(content[:20]))
def test_garbage_is_an_event_and_does_not_hold_up_the_others(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent, content: bytes
) -> None:
    message = queue(db, agent)
    leave(tmp_path, agent, content, at=NOW)
    leave(tmp_path, agent, received(message), at=NOW + 1)
    signals.ingest(db, tmp_path)
    assert kinds(db) == ["hook.unreadable", "message.acknowledged"]
    assert left(tmp_path) == []


HOSTILE = [
    # Half of a pair in each text: no store takes it.
    {"prompt": "[msg 1 from tester]\n\ud83d\n[end of msg 1]"},
    {"session_id": "\ud83d"},
    # An id that no store can hold.
    {"prompt": f"[msg {10**30} from tester]\nx\n[end of msg {10**30}]"},
    # Digits of another script.
    {"prompt": "[msg \u0661 from tester]\nx\n[end of msg \u0661]"},
]


@pytest.mark.parametrize("values", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("event", ["UserPromptSubmit", "SessionStart", "Stop"])
def test_a_hostile_payload_does_not_hold_up_the_others(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent, event: str, values: dict[str, str]
) -> None:
    message = queue(db, agent)
    said = {"last_assistant_message": "\ud83d", "error": "\udc00"}
    leave(tmp_path, agent, payload(event, **{**said, **values}), at=NOW)
    leave(tmp_path, agent, received(message), at=NOW + 1)
    signals.ingest(db, tmp_path)
    assert messages.get(db, message.id).status is MessageStatus.ACKNOWLEDGED
    assert left(tmp_path) == []


NAMES = [
    "notes.json",
    "1-2-3.json",
    "1-2-3-4-5.json",
    "1-2-x-4.json",
    "1-2-4711-1.json",
    "99999999999999999999999-1-1-2.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_no_hook_of_ours_has_left_does_not_hold_up_the_others(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent, name: str
) -> None:
    message = queue(db, agent)
    leave(tmp_path, agent, received(message))
    (tmp_path / "spool" / name).write_bytes(payload("Stop"))
    signals.ingest(db, tmp_path)
    assert messages.get(db, message.id).status is MessageStatus.ACKNOWLEDGED


def test_a_file_in_the_writing_is_left(tmp_path: Path, db: sqlite3.Connection, agent: Agent) -> None:
    path = leave(tmp_path, agent, payload("Stop"))
    hidden = path.with_name(f".{path.stem}")
    path.rename(hidden)
    assert signals.ingest(db, tmp_path) == 0
    assert left(tmp_path) == [hidden.name]


def test_a_crash_between_effect_and_removal_repeats_without_effect(
    tmp_path: Path, db: sqlite3.Connection, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = queue(db, agent)
    leave(tmp_path, agent, received(message), at=NOW + 5)

    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", crash)
        signals.ingest(db, tmp_path)
    assert messages.get(db, message.id).status is MessageStatus.ACKNOWLEDGED
    assert len(left(tmp_path)) == 1
    assert signals.ingest(db, tmp_path) == 1
    assert kinds(db) == ["message.acknowledged"]
    assert left(tmp_path) == []


READS = """
import sys
from pathlib import Path
from lib import signals, store
db = store.connect(Path(sys.argv[1]))
sys.stdin.read(1)
while list((Path(sys.argv[1]) / "spool").glob("*.json")):
    signals.ingest(db, Path(sys.argv[1]))
"""


def test_readers_at_once_take_everything_once(tmp_path: Path, db: sqlite3.Connection, agent: Agent) -> None:
    made = [queue(db, agent, f"text {number}") for number in range(40)]
    for number, message in enumerate(made):
        leave(tmp_path, agent, received(message), at=NOW + 2 * number)
        leave(tmp_path, agent, payload("Stop"), at=NOW + 2 * number + 1)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READS, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdin
        reader.stdin.write("!")
        reader.stdin.flush()
    assert [reader.communicate(timeout=60)[1] for reader in readers] == ["", ""]
    assert kinds(db) == ["message.acknowledged", "hook.Stop"] * 40
    assert {messages.get(db, message.id).status for message in made} == {MessageStatus.ACKNOWLEDGED}
    assert left(tmp_path) == []
