"""Check-ins by a virtual clock, on a real store: once, on their grid, and never a flood."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib import agents, checkins, cron, host, launch, messages, orchestrations, store
from lib.checkins import (
    LONGEST_JITTER_SECONDS,
    LONGEST_MINUTES,
    MANY_WAIT,
    NOTHING_NEW,
    RETRY_MINUTES,
    STILL_WAITS,
    TRIES_WHEN_GONE,
    Terms,
    fire_due,
)
from lib.errors import NotFound, Usage
from lib.judgement import occurrences
from lib.judgement.occurrences import MINUTE_MS, MISSED, MOST_CAUGHT_UP, TOO_LATE, TOO_MANY
from lib.models import Agent, CatchUp, CheckIn, CheckInStatus, Message, News, OrchestrationStatus
from tests.agents import a_look, a_team
from tests.conftest import ROOT

START = 1_700_000_000_000
HOUR = 60
PLAIN = Terms()
#: 14 November 2023, 22:00 UTC.
ON_THE_HOUR = 1_699_999_200_000


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
    terms: Terms = PLAIN,
) -> int:
    return checkins.add(db, agent.id, note, minutes=minutes, now=now, recurring=recurring, terms=terms).id


def sent(db: sqlite3.Connection) -> list[Message]:
    rows = db.execute("SELECT id FROM messages WHERE kind = 'check_in' ORDER BY id").fetchall()
    return [messages.get(db, row["id"]) for row in rows]


def arrive(db: sqlite3.Connection, agent: Agent, now: int) -> None:
    """Everything that waits for an agent arrives."""
    for message in messages.pending(db, agent.id):
        prompt = f"[msg {message.id} from {message.sender}]\n{message.body}\n[end of msg {message.id}]"
        assert messages.acknowledge(db, agent, prompt, proof="hook", now=now)


def skipped(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """The reason and the count of everything that was left out, in order."""
    found = [event for event in store.events(db, limit=100_000) if event.kind == "check_in.skipped"]
    return [(str(event.data["reason"]), int(str(event.data["count"]))) for event in found]


def bodies(db: sqlite3.Connection) -> list[str]:
    return [message.body.removeprefix("Check-in") for message in sent(db)]


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
        assert checkins.get(db, late).status is CheckInStatus.FIRED
        assert checkins.get(db, later).status is CheckInStatus.SKIPPED
        assert checkins.get(db, later).reason == "an equal one still waits"
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


class TestCatchUp:
    """A downtime of two and a half hours, of what comes every half hour."""

    @pytest.fixture(params=["30 minutes", "*/30 * * * *"])
    def half_hourly(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        yield None if request.param == "30 minutes" else request.param
        monkeypatch.undo()
        time.tzset()

    def made(self, db: sqlite3.Connection, agent: Agent, line: str | None, catch_up: CatchUp) -> CheckIn:
        terms = Terms(catch_up=catch_up)
        if line is None:
            return checkins.add(db, agent.id, "look", minutes=30, recurring=True, now=ON_THE_HOUR, terms=terms)
        return checkins.add(db, agent.id, "look", cron_line=line, now=ON_THE_HOUR, terms=terms)

    @pytest.mark.parametrize(
        ("catch_up", "said", "left"),
        [
            (CatchUp.ONCE, [" (2 h 5 min late): look"], []),
            (CatchUp.SKIP, [], [(MISSED, 5)]),
            (
                CatchUp.ALL,
                [f"{late}: look" for late in (" (2 h 5 min late)", " (1 h 35 min late)", " (1 h 5 min late)")]
                + [" (35 min late): look", " (5 min late): look"],
                [],
            ),
        ],
    )
    def test_after_a_downtime(
        self,
        db: sqlite3.Connection,
        agent: Agent,
        half_hourly: str | None,
        catch_up: CatchUp,
        said: list[str],
        left: list[tuple[str, int]],
    ) -> None:
        made = self.made(db, agent, half_hourly, catch_up)
        now = ON_THE_HOUR + 155 * MINUTE_MS
        assert fire_due(db, now=now) == len(said)
        assert bodies(db) == said
        assert skipped(db) == left
        assert checkins.get(db, made.id).planned_at == ON_THE_HOUR + 180 * MINUTE_MS
        assert fire_due(db, now=now) == 0
        arrive(db, agent, now)
        assert fire_due(db, now=ON_THE_HOUR + 180 * MINUTE_MS) == 1
        assert bodies(db)[-1] == ": look"

    def test_all_of_a_month_is_bounded(self, db: sqlite3.Connection, agent: Agent, half_hourly: str | None) -> None:
        made = self.made(db, agent, half_hourly, CatchUp.ALL)
        occurrences_missed = 30 * 48
        assert fire_due(db, now=ON_THE_HOUR + 30 * 24 * HOUR * MINUTE_MS) == MOST_CAUGHT_UP
        # What is counted of a cron line has an end: nobody reads it.
        assert skipped(db) == [(TOO_MANY, occurrences_missed - MOST_CAUGHT_UP if half_hourly is None else 1000)]
        assert bodies(db)[-1] == ": look"
        assert checkins.get(db, made.id).planned_at == ON_THE_HOUR + (30 * 24 * HOUR + 30) * MINUTE_MS

    def test_all_does_not_pile_up_at_an_agent_that_takes_nothing(
        self, db: sqlite3.Connection, agent: Agent, half_hourly: str | None
    ) -> None:
        self.made(db, agent, half_hourly, CatchUp.ALL)
        for minute in range(0, 24 * HOUR + 1, 10):
            fire_due(db, now=ON_THE_HOUR + minute * MINUTE_MS)
        assert len(sent(db)) == MOST_CAUGHT_UP
        assert skipped(db) == [(MANY_WAIT, 1)] * 24

    def test_what_is_caught_up_arrives_by_the_rate(self, db: sqlite3.Connection) -> None:
        (agent,) = a_team(db, "developer", per_minute=10)
        add(db, agent, 30, recurring=True, terms=Terms(catch_up=CatchUp.ALL))
        assert fire_due(db, now=at(24 * HOUR)) == MOST_CAUGHT_UP
        now = at(24 * HOUR)
        for message in messages.pending(db, agent.id)[:10]:
            assert messages.next_place(db, agent, now=now) is None
            messages.pasting(db, message, agent, now=now)
        assert messages.next_place(db, agent, now=now) is not None

    def test_a_day_of_a_gone_agent_and_all(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, recurring=True, terms=Terms(catch_up=CatchUp.ALL))
        for minute in range(0, 60, 5):
            assert fire_due(db, now=at(minute), is_gone=lambda gone: True) == 0
        assert checkins.get(db, number).status is CheckInStatus.DEAD
        with store.writing(db):
            checkins.revive(db, agent.id)
        assert fire_due(db, now=at(24 * HOUR)) == MOST_CAUGHT_UP


class TestDeadline:
    def test_one_that_comes_once_and_too_late_ends_as_skipped(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, terms=Terms(deadline_minutes=60))
        assert fire_due(db, now=at(91)) == 0
        found = checkins.get(db, number)
        assert (found.status, found.reason, found.fired_at) == (CheckInStatus.SKIPPED, TOO_LATE, None)
        assert skipped(db) == [(TOO_LATE, 1)]
        assert checkins.scheduled(db) == []

    def test_what_is_within_it_is_told(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, terms=Terms(deadline_minutes=60))
        assert fire_due(db, now=at(90)) == 1

    def test_of_what_was_missed_the_newer_is_told(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True, terms=Terms(deadline_minutes=45))
        assert fire_due(db, now=at(130)) == 1
        assert bodies(db) == [" (40 min late): look around"]
        assert skipped(db) == [(TOO_LATE, 2)]
        (event,) = [event for event in store.events(db) if event.kind == "check_in.fired"]
        assert event.data["stands_for"] == 2

    def test_it_counts_while_the_agent_is_gone(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, terms=Terms(deadline_minutes=4))
        assert fire_due(db, now=at(30), is_gone=lambda gone: True) == 0
        assert fire_due(db, now=at(30 + RETRY_MINUTES), is_gone=lambda gone: True) == 0
        assert checkins.get(db, number).status is CheckInStatus.SKIPPED


class TestJitter:
    def test_it_is_due_within_it_and_not_late_by_it(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, recurring=True, terms=Terms(jitter_seconds=600))
        dues = []
        for occurrence in range(1, 20):
            found = checkins.get(db, number)
            assert found.planned_at == at(30 * occurrence), "the grid stays"
            assert 0 <= found.due_at - found.planned_at <= 600_000
            assert fire_due(db, now=found.due_at - 1) == 0
            assert fire_due(db, now=found.due_at) == 1
            arrive(db, agent, found.due_at)
            dues.append(found.due_at - found.planned_at)
        assert len(set(dues)) > 15
        assert set(bodies(db)) == {": look around"}

    def test_it_is_not_rolled_again(self, tmp_path: Path) -> None:
        db = store.connect(tmp_path)
        number = add(db, a_team(db, "developer")[0], 30, terms=Terms(jitter_seconds=600))
        due = checkins.get(db, number).due_at
        db.close()
        assert checkins.get(store.connect(tmp_path), number).due_at == due
        assert occurrences.due_at(number, at(30), 600) == due


class TestIfChanged:
    """What is looked at is news.py's; here somebody says what it has found."""

    def look(self, *texts: str) -> tuple[checkins.Look, list[str | None]]:
        """A look that finds these texts in turn, and what it was asked since."""
        asked: list[str | None] = []

        def look(agent: Agent, seen: str | None) -> News:
            asked.append(seen)
            return News(texts[len(asked) - 1], f"look {len(asked)}")

        return look, asked

    def test_it_is_told_with_what_is_new_and_else_skipped(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True, terms=Terms(if_changed=True, seen="look 0"))
        look, asked = self.look("3 commits by developer, 1 report", "", "", "1 message")
        fired = []
        for occurrence in range(1, 5):
            fired.append(fire_due(db, now=at(30 * occurrence), look=look))
            arrive(db, agent, at(30 * occurrence))
        assert fired == [1, 0, 0, 1]
        assert asked == ["look 0", "look 1", "look 2", "look 3"]
        assert bodies(db) == [
            ": look around\n\nNew since the last one: 3 commits by developer, 1 report",
            ": look around\n\nNew since the last one: 1 message",
        ]
        assert skipped(db) == [(NOTHING_NEW, 1)] * 2

    def test_what_was_not_told_is_still_new(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, recurring=True, terms=Terms(if_changed=True, seen="look 0"))
        look, asked = self.look("1 report", "2 reports", "2 reports")
        assert fire_due(db, now=at(30), look=look) == 1
        assert fire_due(db, now=at(60), look=look) == 0  # the first has not arrived
        assert checkins.get(db, number).reason == STILL_WAITS
        arrive(db, agent, at(70))
        assert fire_due(db, now=at(90), look=look) == 1
        assert asked == ["look 0", "look 1", "look 1"]

    def test_one_that_comes_once_ends_as_skipped(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, terms=Terms(if_changed=True))
        look, _ = self.look("")
        assert fire_due(db, now=at(30), look=look) == 0
        assert checkins.get(db, number).status is CheckInStatus.SKIPPED
        assert checkins.get(db, number).reason == NOTHING_NEW

    def test_the_others_are_not_looked_at(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        add(db, agent, 30, "with a deadline", terms=Terms(if_changed=True, deadline_minutes=1))
        look, asked = self.look()
        assert fire_due(db, now=at(60), look=look) == 1
        assert asked == []

    def test_an_agent_that_is_gone_is_not_looked_for(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, terms=Terms(if_changed=True))
        look, asked = self.look()
        assert fire_due(db, now=at(30), is_gone=lambda gone: True, look=look) == 0
        assert asked == []

    def test_equal_notes_are_equal_whatever_was_new(self, db: sqlite3.Connection, agent: Agent) -> None:
        for minutes in (30, 40):
            add(db, agent, minutes, terms=Terms(if_changed=True))
        look, _ = self.look("1 report", "2 reports")
        assert fire_due(db, now=at(40), look=look) == 1


class TestCron:
    @pytest.fixture(autouse=True)
    def in_utc(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()

    def test_it_comes_at_its_times(self, db: sqlite3.Connection, agent: Agent) -> None:
        checkins.add(db, agent.id, "plan", cron_line="0 9,17 * * *", now=ON_THE_HOUR)  # at 22:00
        hours = []
        for hour in range(1, 49):
            if fire_due(db, now=ON_THE_HOUR + hour * HOUR * MINUTE_MS):
                hours.append((22 + hour) % 24)
                arrive(db, agent, ON_THE_HOUR + hour * HOUR * MINUTE_MS)
        assert hours == [9, 17, 9, 17]
        assert bodies(db) == [": plan"] * 4

    def test_it_stands_beside_the_one_at_intervals_and_those_of_other_notes(
        self, db: sqlite3.Connection, agent: Agent
    ) -> None:
        add(db, agent, 30, recurring=True)
        for note, line in (("plan", "0 9 * * *"), ("look back", "0 17 * * *"), ("plan", "30 8 * * *")):
            checkins.add(db, agent.id, note, cron_line=line, now=START)
        found = {(one.note, one.cron, one.interval_minutes) for one in checkins.scheduled(db)}
        assert found == {("look around", None, 30), ("look back", "0 17 * * *", None), ("plan", "30 8 * * *", None)}
        add(db, agent, 45, recurring=True)
        assert len(checkins.scheduled(db)) == 3

    def test_it_is_told_beside_others_that_wait_and_not_beside_itself(
        self, db: sqlite3.Connection, agent: Agent
    ) -> None:
        add(db, agent, 30, recurring=True, now=ON_THE_HOUR)
        checkins.add(db, agent.id, "plan", cron_line="0 * * * *", now=ON_THE_HOUR)
        fired = [fire_due(db, now=ON_THE_HOUR + minutes * MINUTE_MS) for minutes in (30, 60, 120)]
        assert fired == [1, 1, 0]
        assert {reason for reason, _ in skipped(db)} == {STILL_WAITS}

    def test_one_that_has_no_further_time_ends(
        self, db: sqlite3.Connection, agent: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = checkins.add(db, agent.id, "plan", cron_line="0 * * * *", now=ON_THE_HOUR).id
        monkeypatch.setattr(cron, "after", lambda line, after: None)
        assert fire_due(db, now=ON_THE_HOUR + HOUR * MINUTE_MS) == 1
        assert checkins.get(db, number).status is CheckInStatus.FIRED


class TestClock:
    """The clock of the machine jumps."""

    @pytest.fixture(autouse=True)
    def in_utc(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()

    @pytest.mark.parametrize("back", [1, 20, 30, 45, 6 * HOUR, 400 * 24 * HOUR])
    @pytest.mark.parametrize("after", [0, 10, 29])
    def test_set_back_it_is_neither_early_nor_hours_late(
        self, db: sqlite3.Connection, agent: Agent, back: int, after: int
    ) -> None:
        add(db, agent, 30, recurring=True)
        assert fire_due(db, now=at(30)) == 1
        arrive(db, agent, at(30))
        # `after` minutes later the clock is set back by `back` minutes.
        waited = next(minutes for minutes in range(after + 1, 10_000) if fire_due(db, now=at(30 + minutes - back)))
        assert 30 <= waited <= 60

    @pytest.mark.parametrize("back", [10, 45, 24 * HOUR])
    def test_set_back_a_note_comes_once_and_in_time(self, db: sqlite3.Connection, agent: Agent, back: int) -> None:
        add(db, agent, 120)
        assert fire_due(db, now=at(60)) == 0
        fired = [minutes for minutes in range(61, 1000) if fire_due(db, now=at(minutes - back))]
        assert len(fired) == 1
        assert 120 <= fired[0] <= 240
        assert bodies(db) == [": look around"]

    @pytest.mark.parametrize(
        ("line", "back", "soonest", "latest"),
        [
            # Set back over a time that was told: it does not come again.
            ("0 23 * * *", 15, 23 * HOUR, 25 * HOUR),
            ("0 * * * *", 15, 60, 120),
            # Set back by hours: what comes often goes on by the new clock.
            ("*/10 * * * *", 3 * HOUR, 5, 20),
            # Set right after a year ahead: it does not wait for that year.
            ("0 23 * * *", 365 * 24 * HOUR, 12 * HOUR, 48 * HOUR),
        ],
    )
    def test_set_back_a_cron_line_is_neither_told_again_nor_kept_waiting(
        self, db: sqlite3.Connection, agent: Agent, line: str, back: int, soonest: int, latest: int
    ) -> None:
        checkins.add(db, agent.id, "plan", cron_line=line, now=ON_THE_HOUR)
        told = ON_THE_HOUR + HOUR * MINUTE_MS
        assert fire_due(db, now=told) == 1
        arrive(db, agent, told)
        waited = next(minutes for minutes in range(1, 10_000) if fire_due(db, now=told + (minutes - back) * MINUTE_MS))
        assert soonest <= waited <= latest

    def test_a_retry_does_not_wait_for_the_old_clock(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        assert fire_due(db, now=at(30), is_gone=lambda gone: True) == 0
        assert fire_due(db, now=at(30 - 600)) == 0
        assert fire_due(db, now=at(30 - 600 + RETRY_MINUTES)) == 1

    def test_a_moment_back_changes_nothing(self, db: sqlite3.Connection, agent: Agent) -> None:
        number = add(db, agent, 30, recurring=True)
        before = checkins.get(db, number)
        assert fire_due(db, now=START - 59_000) == 0
        assert checkins.get(db, number) == before

    @pytest.mark.parametrize("forward", [2 * HOUR, 400 * 24 * HOUR])
    def test_set_forward_is_a_downtime(self, db: sqlite3.Connection, agent: Agent, forward: int) -> None:
        add(db, agent, 30, recurring=True)
        add(db, agent, 40, "once")
        assert fire_due(db, now=at(20)) == 0
        assert fire_due(db, now=at(20 + forward)) == 2
        arrive(db, agent, at(20 + forward))
        assert fire_due(db, now=at(21 + forward)) == 0
        assert at(20 + forward) < (checkins.next_due(db) or 0) <= at(50 + forward)

    def test_forward_and_back_is_no_year_of_silence(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        assert fire_due(db, now=at(365 * 24 * HOUR)) == 1
        arrive(db, agent, at(365 * 24 * HOUR))
        fired = []
        for minute in range(31, 151):
            if fire_due(db, now=at(minute)):
                arrive(db, agent, at(minute))
                fired.append(minute)
        assert fired == [61, 91, 121]


class TestRefused:
    """What means nothing, or is out of bounds."""

    @pytest.mark.parametrize(
        ("says", "given"),
        [
            ("of its own", {"cron_line": "0 9 * * *", "minutes": 30}),
            ("of its own", {"cron_line": "0 9 * * *", "recurring": True}),
            ("MINUTES must be", {}),
            ("MINUTES must be", {"recurring": True}),
            ("no cron line", {"cron_line": "9 o'clock"}),
            ("no cron line", {"cron_line": ""}),
            ("never comes", {"cron_line": "* * */20 * 1L"}),
            ("comes again", {"minutes": 30, "terms": Terms(catch_up=CatchUp.SKIP)}),
            ("nothing more to tell", {"cron_line": "0 9 * * *", "terms": Terms(catch_up=CatchUp.ALL, if_changed=True)}),
            ("jitter must be", {"minutes": 300, "terms": Terms(jitter_seconds=LONGEST_JITTER_SECONDS + 1)}),
            ("jitter must be", {"minutes": 300, "terms": Terms(jitter_seconds=-1)}),
            ("shorter than", {"minutes": 5, "terms": Terms(jitter_seconds=300)}),
            ("deadline must be", {"minutes": 5, "terms": Terms(deadline_minutes=0)}),
            ("deadline must be", {"minutes": 5, "terms": Terms(deadline_minutes=LONGEST_MINUTES + 1)}),
            (
                "changes nothing",
                {
                    **{"minutes": 30, "recurring": True},
                    "terms": Terms(catch_up=CatchUp.SKIP, deadline_minutes=30),
                },
            ),
        ],
    )
    def test_it_is_refused_with_a_sentence(
        self, db: sqlite3.Connection, agent: Agent, says: str, given: dict[str, Any]
    ) -> None:
        with pytest.raises(Usage, match=says):
            checkins.add(db, agent.id, "look", now=START, **given)
        assert checkins.scheduled(db) == []

    def test_what_just_fits_is_taken(self, db: sqlite3.Connection, agent: Agent) -> None:
        terms = Terms(catch_up=CatchUp.SKIP, deadline_minutes=29, jitter_seconds=30 * 60 - 1, if_changed=True)
        assert checkins.get(db, add(db, agent, 30, recurring=True, terms=terms)).if_changed


def test_the_check_ins_of_a_team_end_with_it(db: sqlite3.Connection) -> None:
    gone, there = a_team(db, "developer", "tester")
    add(db, gone, 30)
    add(db, there, 60, recurring=True)
    checkins.add(db, there.id, "plan", cron_line="0 9 * * *", now=START)
    for minute in (30, 35, 40):
        fire_due(db, now=at(minute), is_gone=lambda one: one.id == gone.id)
    assert len(checkins.scheduled(db)) == 3, "a dead one is listed while its team works"
    assert gone.orchestration_id
    orchestrations.set_status(db, gone.orchestration_id, OrchestrationStatus.COMPLETED, now=at(50))
    assert checkins.scheduled(db) == []
    assert fire_due(db, now=at(100 * HOUR)) == 0


class TestFigures:
    def test_they_are_those_of_the_time_that_is_asked_for(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True)
        for minute in range(30, 24 * HOUR + 1, 30):
            fire_due(db, now=at(minute) + minute)  # later and later, by milliseconds
            if minute != 600:  # once it does not arrive
                arrive(db, agent, at(minute))
        day = checkins.figures(db, since=START)
        assert (day.fired, day.stood_for, day.skipped, day.missed) == (47, 47, {STILL_WAITS: 1}, {})
        assert [day.lateness_at(share) for share in (0.5, 0.95, 1.0)] == [750, 1380, 1440]
        later = checkins.figures(db, since=at(12 * HOUR + 1))
        assert later.fired == 24

    def test_what_was_missed_and_left_out_is_counted_by_occurrence(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30, recurring=True, terms=Terms(catch_up=CatchUp.SKIP))
        fire_due(db, now=at(200))
        fire_due(db, now=at(210), is_gone=lambda gone: True)
        found = checkins.figures(db, since=START)
        assert (found.skipped, found.missed) == ({MISSED: 6}, {"agent gone": 1})

    def test_of_nothing_there_is_no_lateness(self, db: sqlite3.Connection) -> None:
        found = checkins.figures(db, since=START)
        assert (found.fired, found.skipped, found.missed) == (0, {}, {})
        assert found.lateness_at(0.5) is None

    @pytest.mark.parametrize(("share", "found"), [(0.01, 1), (0.5, 5), (0.51, 6), (0.9, 9), (0.95, 10), (1.0, 10)])
    def test_a_share_of_them(self, share: float, found: int) -> None:
        figures = checkins.Figures(10, 10, {}, {}, tuple(range(1, 11)))
        assert figures.lateness_at(share) == found
        assert replace(figures, late_ms=(7,)).lateness_at(share) == 7

    def test_they_are_found_by_their_index(self, db: sqlite3.Connection) -> None:
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        checkins.figures(db, since=START)
        db.set_trace_callback(None)
        plan = "".join(row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}"))
        assert "events_of_check_ins" in plan


KILLED = """
import sys
from pathlib import Path
from lib import checkins, store
from tests import killed
killed.kill_before(int(sys.argv[2]))
from tests.agents import a_look
checkins.fire_due(store.connect(Path(sys.argv[1])), now=int(sys.argv[3]), look=a_look)
"""


class TestKilled:
    """The daemon is killed before each of its writes in turn; the next one goes on."""

    def made(self, db: sqlite3.Connection) -> int:
        """Check-ins of every kind, of an agent each; returns how many messages they come to when missed by hours."""
        roles = [
            "once",
            "at-intervals",
            "caught-up",
            "left-out",
            "too-late",
            "with-news",
            "without",
            "by-cron",
            "ahead",
        ]
        team = {agent.role: agent for agent in a_team(db, *roles)}
        add(db, team["once"], 30)
        add(db, team["at-intervals"], 30, recurring=True, terms=Terms(jitter_seconds=60))
        add(db, team["caught-up"], 30, recurring=True, terms=Terms(catch_up=CatchUp.ALL))
        add(db, team["left-out"], 30, recurring=True, terms=Terms(catch_up=CatchUp.SKIP))
        add(db, team["too-late"], 30, terms=Terms(deadline_minutes=1))
        add(db, team["with-news"], 30, recurring=True, terms=Terms(if_changed=True, seen="before"))
        add(db, team["without"], 30, recurring=True, terms=Terms(if_changed=True, seen="after"))
        checkins.add(db, team["by-cron"].id, "plan", cron_line="*/30 * * * *", now=START)
        add(db, team["ahead"], 30, recurring=True, now=at(10_000))  # by a clock that was set back since
        return 1 + 1 + 3 + 1 + 1

    def test_each_fires_once(self, tmp_path: Path, is_long: bool) -> None:
        now = at(110)
        rows: list[Sequence[object]] = []
        for number in range(1, 100, 1 if is_long else 4):
            home = tmp_path / str(number)
            db = store.connect(home)
            expected = self.made(db)
            code = subprocess.run(
                [sys.executable, "-c", KILLED, str(home), str(number), str(now)], cwd=ROOT, check=False
            ).returncode
            assert code in (0, -signal.SIGKILL)
            for _ in range(2):  # the next daemon, and its second beat
                fire_due(db, now=now, look=a_look)
            assert len(sent(db)) == expected, f"killed before write {number}"
            told = Counter(
                (event.data["check_in"], event.data["late_ms"])
                for event in store.events(db, limit=10_000)
                if event.kind == "check_in.fired"
            )
            assert set(told.values()) == {1} and sum(told.values()) == expected
            assert Counter(reason for reason, _ in skipped(db)) == {MISSED: 1, TOO_LATE: 1, NOTHING_NEW: 1}
            assert kinds(db)["check_in.moved"] == 1
            rows.append([tuple(row) for row in db.execute("SELECT * FROM check_ins ORDER BY id")])
            db.close()
            if code == 0:
                break
        else:
            pytest.fail("it never came to its end")
        assert number > 30, "its writes, or every fourth of them, were its ends"
        assert all(found == rows[0] for found in rows), "and what comes next is the same, wherever it was killed"


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

    def test_one_that_was_missed_once_is_due_when_its_agent_is_back(self, db: sqlite3.Connection, agent: Agent) -> None:
        add(db, agent, 30)
        assert fire_due(db, now=at(30), is_gone=lambda gone: True) == 0
        with store.writing(db):
            checkins.revive(db, agent.id)
        assert fire_due(db, now=at(31)) == 1
        assert fire_due(db, now=at(31 + RETRY_MINUTES)) == 0

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


def test_a_check_in_that_is_due_while_its_agent_is_just_started_does_not_wait(
    db: sqlite3.Connection, agent: Agent
) -> None:
    checkins.add(db, agent.id, "Look", minutes=30, now=at(0))
    started = agents.start_epoch(db, agent.id, conversation_id=agent.conversation_id)
    assert fire_due(db, now=at(30), is_gone=lambda one: one.process is None) == 0
    process = host.process(os.getpid())
    assert process
    launch._record_start(db, started, "%1", process)
    assert fire_due(db, now=at(30) + 1, is_gone=lambda one: one.process is None) == 1
