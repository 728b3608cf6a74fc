"""The check-in forms of scheduler.py, as a person types them."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from lib import checkins, host, messages, service
from lib.errors import ExitCode
from lib.models import OrchestrationStatus
from lib.orchestrations import set_status
from lib.queue import entries
from tests.conftest import ROOT, Bench, Done, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

MINUTE_MS = 60_000
WEEKDAYS = "0 9 * * 1-5"


def schedule(team: StillTeam, *words: str) -> Any:
    """Schedule as a person does; returns what it tells as data."""
    return team.bench.ok("scheduler.py", *words, "--json").json


def refused(done: Done, *says: str) -> None:
    assert done.code == ExitCode.USAGE, done.out + done.err
    for words in says:
        assert words in done.err


class TestAdd:
    def test_a_cron_line_takes_the_place_of_the_minutes(self, still_team: StillTeam) -> None:
        for words in (
            ("--add", "webapp-impl", "orchestrator", "0", "Plan the day", "--cron", WEEKDAYS),
            ("--add-note", "--cron", WEEKDAYS, "Plan the day", "webapp-impl:0"),
            ("--add-note", "Plan the day", "--cron", WEEKDAYS),
        ):
            made = schedule(still_team, *words)
            assert (made["cron"], made["note"], made["interval_minutes"]) == (WEEKDAYS, "Plan the day", None)
            assert made["target"] == "webapp-impl:orchestrator"
            come = datetime.fromtimestamp(made["due_at"] / 1000)
            assert (come.hour, come.minute, come.weekday() < 5) == (9, 0, True)
        assert len(checkins.scheduled(still_team.db)) == 1, "the same note has one cron line"

    def test_the_small_door_takes_it_as_well(self, still_team: StillTeam) -> None:
        said = still_team.bench.ok("schedule_with_note.sh", "--cron", WEEKDAYS, "Plan the day", "webapp-impl:1").out
        assert "for webapp-impl:developer at '0 9 * * 1-5', the next 20" in said

    def test_every_term_is_kept(self, still_team: StillTeam) -> None:
        made = schedule(
            still_team,
            *("--add-note", "30", "Look", "webapp-impl:tester", "--recurring", "--catch-up", "all"),
            *("--deadline", "90", "--jitter", "60"),
        )
        terms = {name: made[name] for name in ("interval_minutes", "catch_up", "deadline_minutes", "jitter_seconds")}
        assert terms == {"interval_minutes": 30, "catch_up": "all", "deadline_minutes": 90, "jitter_seconds": 60}
        assert 0 <= made["due_at"] - made["planned_at"] <= 60_000

    def test_one_that_wants_news_knows_what_there_is_now(self, still_team: StillTeam) -> None:
        still_team.commit("tester")
        said = still_team.bench.ok("scheduler.py", "--add-note", "30", "Look", "webapp-impl:1", "--if-changed").out
        assert said.endswith("in 30 minutes, if there is something new\n")
        (made,) = checkins.scheduled(still_team.db)
        assert made.if_changed and made.seen and still_team.agent("tester").branch in made.seen

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            # MINUTES and a cron line.
            (("--add-note", "30", "Look", "webapp-impl:1", "--cron", WEEKDAYS), "without MINUTES"),
            (("--add", "webapp-impl", "developer", "1", "30", "Look", "--cron", WEEKDAYS), "without MINUTES"),
            (("--add", "webapp-impl", "developer", "1", "Look"), "SESSION ROLE WINDOW MINUTES NOTE"),
            (("--add-note", "Look", "--cron", WEEKDAYS, "--recurring"), "times of its own"),
            (("--add-note", "Look", "--cron", "every morning"), "five fields"),
            (("--add-note", "30", "Look", "--catch-up", "skip"), "comes again"),
            (("--add-note", "30", "Look", "--recurring", "--catch-up", "all", "--if-changed"), "nothing more to tell"),
            (("--add-note", "5", "Look", "--jitter", "300"), "shorter than"),
            (("--add-note", "5", "Look", "--deadline", "0"), "--deadline"),
            # What belongs to a check-in, with something else.
            (("--list", "--recurring"), "--recurring belongs to a check-in"),
            (("--remove", "1", "--cron", WEEKDAYS), "--cron belongs to a check-in"),
            (("--status", "--if-changed", "--jitter", "5"), "--jitter, --if-changed belongs to a check-in"),
            (("--daemon", "--catch-up", "once"), "--catch-up belongs to a check-in"),
        ],
    )
    def test_what_means_nothing_is_refused(self, still_team: StillTeam, words: tuple[str, ...], says: str) -> None:
        refused(still_team.bench.door("scheduler.py", *words), says)
        assert checkins.scheduled(still_team.db) == []

    @pytest.mark.parametrize("outcome", [OrchestrationStatus.COMPLETED, OrchestrationStatus.STOPPED])
    def test_nothing_is_scheduled_for_a_team_that_is_over(
        self, still_team: StillTeam, outcome: OrchestrationStatus
    ) -> None:
        set_status(still_team.db, still_team.id, outcome, now=host.now_ms())
        done = still_team.bench.door("scheduler.py", "--add-note", "30", "Look", "webapp-impl:developer")
        assert done.code in (ExitCode.FAILED, ExitCode.NOT_FOUND)
        assert checkins.scheduled(still_team.db) == []


class TestList:
    def test_it_shows_every_kind_in_lines_that_fit(self, still_team: StillTeam) -> None:
        bench, note = still_team.bench, "A note that is far too long to stand in one line of a list " * 3
        assert bench.ok("scheduler.py", "--list").out == "no check-in is scheduled\n"
        schedule(still_team, "--add-note", "30", note, "webapp-impl:developer")
        schedule(still_team, "--add-note", "99999", "Look", "webapp-impl:tester", "--recurring", "--if-changed")
        schedule(still_team, "--add-note", "--cron", "*/10 8-18 * * 1-5", f"{note}\nand more", "webapp-impl:testrunner")
        gone = schedule(still_team, "--add-note", "5", "Never", "webapp-impl:orchestrator")
        still_team.db.execute("UPDATE check_ins SET status = 'dead' WHERE id = ?", (gone["id"],))
        lines = bench.ok("scheduler.py", "--list").out.splitlines()
        assert lines[0].split() == ["id", "next", "how", "agent", "note"]
        assert max(map(len, lines)) <= 100
        text = "\n".join(lines)
        for words in ("once", "every 99999 min, if chan", "*/10 8-18 * * 1-5", "dead", "its agent is gone"):
            assert words in text
        data = bench.ok("scheduler.py", "--list", "--json").json
        assert {row["note"] for row in data} == {note.strip(), "Look", f"{note}\nand more", "Never"}

    def test_a_dead_one_can_be_removed(self, still_team: StillTeam) -> None:
        gone = schedule(still_team, "--add-note", "5", "Never", "webapp-impl:orchestrator")
        still_team.db.execute("UPDATE check_ins SET status = 'dead' WHERE id = ?", (gone["id"],))
        still_team.bench.ok("scheduler.py", "--remove", str(gone["id"]))
        assert checkins.scheduled(still_team.db) == []


class TestStatus:
    def test_nothing_has_happened_yet(self, bench: Bench) -> None:
        assert bench.ok("scheduler.py", "--status").out.splitlines() == [
            "not running",
            "check-ins: none is scheduled",
            "  last 24 h: 0 fired, 0 skipped, 0 missed",
            "queue: empty",
        ]
        data = bench.ok("scheduler.py", "--status", "--json").json
        assert (data["running"], data["pid"], data["since"], data["drains_queue"]) == (False, None, None, False)
        assert data["check_ins"]["next_due_at"] is None
        assert data["check_ins"]["last_24_h"]["lateness_ms"] == {"p50": None, "p95": None, "max": None}

    def test_how_punctual_it_was_and_what_is_to_come(self, still_team: StillTeam) -> None:
        db, now, developer = still_team.db, host.now_ms(), still_team.agent("developer")
        start, yesterday = now - 120 * MINUTE_MS, now - 25 * 60 * MINUTE_MS
        checkins.add(db, developer.id, "Once", minutes=10, now=yesterday)
        assert checkins.fire_due(db, now=yesterday + 10 * MINUTE_MS) == 1
        messages.cancel_pending(db, still_team.id, "for the test", now=0)
        checkins.add(db, developer.id, "Look", minutes=30, now=start, recurring=True)
        fired = []
        for minute, late in ((30, 100), (60, 200), (90, 300)):
            fired.append(checkins.fire_due(db, now=start + minute * MINUTE_MS + late))
            if minute != 30:  # what it got then still waits an interval later
                messages.cancel_pending(db, still_team.id, "for the test", now=0)
        assert fired == [1, 0, 1]
        tester = still_team.agent("tester")
        for minutes in (1, 100):
            checkins.add(db, tester.id, "Gone", minutes=minutes, now=now - 110 * MINUTE_MS)
        assert checkins.fire_due(db, now=now, is_gone=lambda agent: agent.id == tester.id) == 1
        text = still_team.bench.ok("scheduler.py", "--status").out
        day = still_team.bench.ok("scheduler.py", "--status", "--json").json["check_ins"]
        assert day["last_24_h"]["fired"] == 3
        assert day["last_24_h"]["skipped"] == {"the last one still waits": 1}
        assert day["last_24_h"]["missed"] == {"agent gone": 2}
        assert day["last_24_h"]["lateness_ms"] == {"p50": 100, "p95": 300, "max": 300}
        assert day["scheduled"] == 3
        assert "last 24 h: 3 fired, 1 skipped (the last one still waits 1), 2 missed (agent gone 2)" in text
        assert "late by: p50 0.1 s, p95 0.3 s, max 0.3 s" in text
        assert "check-ins: 3 scheduled, the next in " in text
        assert max(map(len, text.splitlines())) <= 100

    def test_the_queue_and_the_notices_are_counted(self, bench: Bench) -> None:
        db, now = bench.db(), host.now_ms()
        project = bench.project()
        for number in range(2):
            entries.add(db, [entries.NewEntry(project / f"{number}.md", "x\n", project)], now=now)
        entries.cancel(db, 1, now=now)
        entries.set_paused(db, True, now=now - 3 * MINUTE_MS)
        text = bench.ok("scheduler.py", "--status").out
        assert "queue: 1 queued, 1 cancelled, paused since 3 min" in text
        queue = bench.ok("scheduler.py", "--status", "--json").json["queue"]
        assert (queue["queued"], queue["cancelled"], queue["running"]) == (1, 1, 0)

    @pytest.mark.parametrize(("flag", "drains"), [("--daemon", False), ("--queue-daemon", True)])
    def test_it_tells_who_runs_since_when_and_for_what(self, bench: Bench, flag: str, drains: bool) -> None:
        bench.home.mkdir()
        before = host.now_ms()
        subprocess.Popen([sys.executable, str(ROOT / "scheduler.py"), flag], env=bench.environment)
        process = wait_for(lambda: service.running(bench.home), "the scheduler")
        data = bench.ok("scheduler.py", "--status", "--json").json
        assert process and (data["running"], data["pid"], data["drains_queue"]) == (True, process.pid, drains)
        assert before <= data["since"] <= host.now_ms()
        says = "it drains the queue" if drains else "it leaves the queue alone"
        assert says in bench.ok("scheduler.py", "--status").out.splitlines()[0]
