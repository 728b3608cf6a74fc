"""Check-ins by a virtual clock, on a real store: once, on their grid, and never a flood."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import checkins, messages, store
from lib.checkins import LONGEST_MINUTES, MINUTE_MS, RETRY_MINUTES, TRIES_WHEN_GONE, fire_due
from lib.errors import NotFound, Usage
from lib.models import Agent, CheckInStatus, Message
from tests.agents import a_team
from tests.conftest import ROOT

START = 1_700_000_000_000
HOUR = 60


def at(minutes: float) -> int:
    """The virtual clock: minutes since the start, as UTC milliseconds."""
    return START + int(minutes * MINUTE_MS)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = store.connect(tmp_path)
    yield connection
    connection.close()


@pytest.fixture
def agent(db: sqlite3.Connection) -> Agent:
    return a_team(db, "developer")[0]


def add(
    db: sqlite3.Connection,
    agent: Agent,
    minutes: int,
    note: str = "look around",
    *,
    recurring: bool = False,
    now: int = START,
) -> int:
    return checkins.add(db, agent.id, note, minutes=minutes, now=now, recurring=recurring).id


def sent(db: sqlite3.Connection) -> list[Message]:
    rows = db.execute("SELECT id FROM messages WHERE kind = 'check_in' ORDER BY id").fetchall()
    return [messages.get(db, row["id"]) for row in rows]


def arrive(db: sqlite3.Connection, agent: Agent, now: int) -> None:
    """Everything that waits for an agent arrives."""
    for message in messages.pending(db, agent.id):
        prompt = f"[msg {message.id} from {message.sender}]\n{message.body}\n[end of msg {message.id}]"
        assert messages.acknowledge(db, agent, prompt, proof="hook", now=now)


def kinds(db: sqlite3.Connection) -> Counter[str]:
    return Counter(event.kind for event in store.events(db) if event.kind.startswith("check_in."))


class TestOnce:
    def test_it_fires_at_its_time_and_once(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        assert fire_due(db, now=at(30) - 1) == 0
        assert fire_due(db, now=at(30)) == 1
        assert fire_due(db, now=at(30)) == 0
        assert fire_due(db, now=at(1000)) == 0
        (message,) = sent(db)
        assert (message.body, message.sender) == ("Check-in: look around", "scheduler")
        assert checkins.scheduled(db) == []
        assert checkins.next_due(db) is None

    def test_one_that_is_late_says_how_late(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        assert fire_due(db, now=at(30 + 2 * HOUR)) == 1
        (message,) = sent(db)
        assert message.body == "Check-in (2 h 0 min late): look around"
        (event,) = [event for event in store.events(db) if event.kind == "check_in.fired"]
        assert event.data["late_ms"] == 2 * HOUR * MINUTE_MS
        assert event.message_id == message.id

    def test_a_removed_one_does_not_fire(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30)
        assert checkins.remove(db, number, now=at(1)).status is CheckInStatus.CANCELLED
        assert fire_due(db, now=at(31)) == 0
        with pytest.raises(NotFound, match="already cancelled"):
            checkins.remove(db, number, now=at(2))

    def test_two_of_the_same_time_both_fire(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        add(db, agent, 30, "and look: around")
        assert fire_due(db, now=at(30)) == 2

    def test_equal_ones_are_one_while_the_first_still_waits(self, db: sqlite3.Connection, agent: Agent) -> None:
        late, later, again = (add(db, agent, minutes) for minutes in (30, 90, 150))
        assert fire_due(db, now=at(60)) == 1  # it says that it is late
        assert fire_due(db, now=at(90)) == 0
        assert [message.body for message in sent(db)] == ["Check-in (30 min late): look around"]
        assert {checkins.get(db, number).status for number in (late, later)} == {CheckInStatus.FIRED}
        assert kinds(db)["check_in.skipped"] == 1
        arrive(db, agent, at(100))
        assert fire_due(db, now=at(150)) == 1
        assert checkins.get(db, again).status is CheckInStatus.FIRED

    @pytest.mark.parametrize(
        ("note", "minutes"), [("", 5), (" \n", 5), ("look", 0), ("look", -1), ("look", LONGEST_MINUTES + 1)]
    )
    def test_what_is_out_of_bounds_is_refused(
        self, db: sqlite3.Connection, agent: Agent, note: str, minutes: int
    ) -> None:
        with pytest.raises(Usage):
            checkins.add(db, agent.id, note, minutes=minutes, now=START)
        assert checkins.scheduled(db) == []

    def test_a_note_of_control_characters_does_not_hold_up_the_others(
        self, db: sqlite3.Connection, agent: Agent
    ) -> None:
        checkins.add(db, agent.id, "\x1b[31m\x07", minutes=5, now=START)
        add(db, agent, 6)
        assert fire_due(db, now=at(10)) == 2


class TestRecurring:
    def test_it_keeps_its_grid(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        due = []
        for late in (0, 0.4, 7, 29.9):
            now = (checkins.next_due(db) or 0) + int(late * MINUTE_MS)
            assert fire_due(db, now=now) == 1
            arrive(db, agent, now)
            due.append(checkins.next_due(db))
        assert due == [at(60), at(90), at(120), at(150)]

    def test_missed_occurrences_fire_once(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        assert fire_due(db, now=at(200)) == 1
        assert fire_due(db, now=at(200)) == 0
        assert checkins.next_due(db) == at(210)
        assert "(2 h 50 min late)" in sent(db)[0].body

    def test_a_new_one_takes_the_place_of_the_old(self, db: sqlite3.Connection, agent: Agent) -> None:
        old = add(db, agent, 30, recurring=True)
        new = add(db, agent, 20, recurring=True)
        add(db, agent, 10)
        assert [one.id for one in checkins.scheduled(db) if one.interval_minutes] == [new]
        assert checkins.get(db, old).status is CheckInStatus.CANCELLED
        assert checkins.get(db, old).reason == "replaced"

    def test_one_that_still_waits_is_not_added_to(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        assert fire_due(db, now=at(30)) == 1
        assert fire_due(db, now=at(60)) == 0
        assert fire_due(db, now=at(90)) == 0
        assert len(sent(db)) == 1
        assert kinds(db)["check_in.skipped"] == 2
        # Delivered: the next one comes on the grid.
        arrive(db, agent, at(95))
        assert checkins.next_due(db) == at(120)
        assert fire_due(db, now=at(120)) == 1

    def test_a_note_of_a_person_is_never_skipped(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        add(db, agent, 40, "something of its own")
        assert fire_due(db, now=at(30)) == 1
        assert fire_due(db, now=at(40)) == 1


class TestGone:
    def test_one_whose_agent_is_gone_ends_as_dead(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30)
        now = at(30)
        for attempt in range(1, TRIES_WHEN_GONE + 1):
            assert fire_due(db, now=now, is_gone=lambda gone: True) == 0
            assert checkins.get(db, number).attempts == attempt
            # It is not tried again before its time.
            assert fire_due(db, now=now, is_gone=lambda gone: True) == 0
            now += RETRY_MINUTES * MINUTE_MS
        dead = checkins.get(db, number)
        assert dead.status is CheckInStatus.DEAD
        assert dead.reason == "webapp-impl:developer is gone"
        assert sent(db) == []
        assert [one.id for one in checkins.scheduled(db)] == [number]
        assert checkins.next_due(db) is None
        assert fire_due(db, now=at(10_000)) == 0

    def test_one_that_comes_back_in_time_gets_it(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        assert fire_due(db, now=at(30), is_gone=lambda gone: True) == 0
        assert fire_due(db, now=at(30 + RETRY_MINUTES)) == 1

    def test_the_dead_are_revived_with_their_agent(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        for minutes in (30, 35, 40):
            fire_due(db, now=at(minutes), is_gone=lambda gone: True)
        assert checkins.scheduled(db)[0].status is CheckInStatus.DEAD
        with store.writing(db):
            checkins.revive(db, agent.id)
        assert fire_due(db, now=at(100)) == 1

    def test_one_agent_that_is_gone_does_not_hold_up_another(self, db: sqlite3.Connection) -> None:
        gone, there = a_team(db, "orchestrator", "developer")
        add(db, gone, 30)
        add(db, there, 30)
        assert fire_due(db, now=at(30), is_gone=lambda one: one.id == gone.id) == 1


FIRES = """
import sys
from pathlib import Path
from lib import checkins, store
db = store.connect(Path(sys.argv[1]))
sys.stdin.read(1)
print(checkins.fire_due(db, now=int(sys.argv[2])))
"""


def test_two_processes_that_fire_at_once_fire_once(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    team = a_team(db, *[f"role{number}" for number in range(20)])
    for agent in team:
        add(db, agent, 30)
        add(db, agent, 30, recurring=True)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", FIRES, str(tmp_path), str(at(30))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin
        process.stdin.write("!")
        process.stdin.flush()
    fired = [int(process.communicate(timeout=30)[0]) for process in started]
    assert sum(fired) == len(sent(db))
    told = Counter(event.data["check_in"] for event in store.events(db, limit=10_000) if event.kind == "check_in.fired")
    assert set(told.values()) == {1}
    # A person's note always comes; a recurring one beside it may find it still waiting.
    assert len([one for one in checkins.scheduled(db) if one.interval_minutes is None]) == 0
    assert kinds(db)["check_in.fired"] + kinds(db)["check_in.skipped"] == 40


def test_a_day_of_five_agents_is_as_many_messages_as_computed(db: sqlite3.Connection) -> None:
    minutes = {"orchestrator": 20, "developer": 30, "tester": 30, "testrunner": 25, "project_manager": 45}
    team = a_team(db, *minutes)
    for agent in team:
        add(db, agent, minutes[agent.role], recurring=True)
    for minute in range(24 * HOUR + 1):
        fire_due(db, now=at(minute))
        for agent in team:
            arrive(db, agent, at(minute))
    counted = Counter(message.agent_id for message in sent(db))
    assert {agent.role: counted[agent.id] for agent in team} == {
        role: 24 * HOUR // interval for role, interval in minutes.items()
    }
    assert all("late" not in message.body for message in sent(db))
    # What is scheduled does not grow with what has happened.
    assert db.execute("SELECT count(*) FROM check_ins").fetchone()[0] == len(team)


def test_a_day_of_an_agent_that_takes_nothing_is_one_message(db: sqlite3.Connection, agent: Agent) -> None:
    add(db, agent, 20, recurring=True)
    for minute in range(24 * HOUR + 1):
        fire_due(db, now=at(minute))
    assert len(sent(db)) == 1


LATE = [
    # Below a minute nothing is said.
    (0, ""),
    (59_999, ""),
    (-5, ""),
    (MINUTE_MS, " (1 min late)"),
    (59 * MINUTE_MS, " (59 min late)"),
    (60 * MINUTE_MS, " (1 h 0 min late)"),
    (125 * MINUTE_MS + 59_000, " (2 h 5 min late)"),
    (49 * 60 * MINUTE_MS, " (49 h 0 min late)"),
]


@pytest.mark.parametrize(("late_ms", "text"), LATE)
def test_lateness_in_words(late_ms: int, text: str) -> None:
    assert checkins.lateness(late_ms) == text
