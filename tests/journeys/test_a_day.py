"""A day of the daemon in minutes: the clock is virtual, everything that it drives is real."""

from __future__ import annotations

import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import agents, daemon, host, orchestrations, reports, store, templates
from lib.config import Settings
from lib.errands import Errands
from lib.merging import hub
from lib.models import Orchestration, Program
from lib.queue import draining, entries
from tests.conftest import Bench, commit_all, wait_for
from tests.journeys.test_queue import HOLDS

MINUTE_MS = entries.MINUTE_MS
HOUR = 60
ROLES = ("orchestrator", "developer", "tester", "testrunner", "project_manager")
SPECS = 3
#: What of a day every run lives through, and what one with --long does.
SHORT, WHOLE = 8 * HOUR, 24 * HOUR
#: A team has a third of the time for itself, less what starting and ending take.
RESERVE = 10


class InTurn(Errands):
    """Errands that are run at once and by the same clock."""

    def start(self, name: str, door: str, *arguments: str) -> bool:
        if arguments[0] == "merge-run":
            hub.run(self.home, arguments[1])
            return True
        if door == "sync_coordinator.py":
            return True  # snapshots have tests of their own
        assert arguments[0] == "--queue-run", "nothing of a day has to be mended"
        assert draining.run(self.home, int(arguments[1]))
        return True


@dataclass
class Day:
    """The clock, and the daemon that lives by it."""

    bench: Bench
    life: daemon.Life
    now: int

    def beat(self) -> None:
        db = store.connect(self.bench.home)
        beat = daemon.tick(db, self.bench.tmux, self.bench.home, now=self.now, life=self.life)
        failures = store.events(db, kind="daemon.step_failed")
        assert not beat.failed, failures[-1].data["trace"] if failures else "a step has failed"
        db.close()

    def minute(self) -> None:
        """A minute passes; whatever it brings arrives before the next."""
        self.now += MINUTE_MS
        self.beat()

        def all_has_arrived() -> bool:
            if not self.bench.rows("SELECT 1 FROM messages WHERE status IN ('queued', 'pasted', 'submitted')"):
                return True
            self.beat()
            return False

        wait_for(all_has_arrived, "every message to arrive")


@pytest.fixture
def day(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Day:
    bench.home.mkdir()
    settings = Settings(agent=Program.REHEARSAL)
    path = Path(bench.environment["HOME"]) / "config.yaml"
    path.write_text("agent: rehearsal\nauto_start: false\n")  # a daemon of its own would live by another clock
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMUX_ORCHESTRATOR_CONFIG", str(path))
    made = Day(bench, daemon.Life(settings, InTurn(bench.home)), host.now_ms())
    monkeypatch.setattr(host, "now_ms", lambda: made.now)
    return made


def report_done(day: Day, team: Orchestration) -> None:
    db = store.connect(day.bench.home)
    orchestrator = agents.of_orchestration(db, team.id)[0]
    (orchestrator.worktree / "done.txt").write_text("done\n")
    commit_all(orchestrator.worktree, "Done")
    reports.complete(db, orchestrator, "All is done", caller=None, sender="user", now=day.now)
    db.close()


@pytest.mark.timeout(900)
def test_five_agents_and_three_specs_for_a_day(day: Day, is_long: bool) -> None:
    bench, minutes_of_day = day.bench, WHOLE if is_long else SHORT
    works_minutes = minutes_of_day // SPECS - RESERVE
    db = store.connect(bench.home)
    for number in range(SPECS):
        project = bench.project(f"project{number}")
        new = entries.NewEntry(project / "spec.md", f"{HOLDS}{number}\n", project, options={"roles": list(ROLES)})
        entries.add(db, [new], now=day.now)
    start, memory = day.now, []
    while day.now < start + minutes_of_day * MINUTE_MS:
        day.minute()
        memory.append(len(bench.rows("SELECT 1 FROM check_ins")))
        for team in orchestrations.live(db):
            if day.now - team.created_at >= works_minutes * MINUTE_MS:
                report_done(day, team)
    assert [row["status"] for row in bench.rows("SELECT status FROM queue_entries ORDER BY id")] == ["succeeded"] * 3

    minutes = {role: templates.roles()[role].check_in_minutes for role in ROLES}
    sent = Counter(
        (row["session"], row["role"])
        for row in bench.rows(
            "SELECT session, role FROM messages JOIN agents ON agents.id = agent_id WHERE kind = 'check_in'"
        )
    )
    teams = bench.rows("SELECT session, updated_at - created_at AS worked FROM orchestrations ORDER BY created_at")
    assert len(teams) == SPECS
    computed = {
        (team["session"], role): team["worked"] // (interval * MINUTE_MS)
        for team in teams
        for role, interval in minutes.items()
    }
    assert sent == computed
    assert min(computed.values()) >= works_minutes // max(minutes.values()) > 4

    # Each is one message that has arrived, on time; nothing grows, nobody is flooded, nothing is left.
    counts = Counter(row["status"] for row in bench.rows("SELECT status FROM messages"))
    assert set(counts) == {"acknowledged"}
    assert bench.rows("SELECT 1 FROM messages WHERE body LIKE '%late)%'") == []
    assert set(memory) <= {len(ROLES) * number for number in range(SPECS + 1)}
    assert bench.rows("SELECT 1 FROM check_ins WHERE status = 'scheduled'") == []
    hourly = Counter(
        (row["agent_id"], row["hour"])
        for row in bench.rows(
            "SELECT agent_id, queued_at / ? AS hour FROM messages WHERE kind = 'check_in'", HOUR * MINUTE_MS
        )
    )
    assert max(hourly.values()) <= HOUR // min(minutes.values()) + 1
    day.minute()
    assert bench.tmux.panes() == [], "the windows of what is over are closed"
    first, second, third = bench.rows("SELECT started_at, ended_at FROM attempts ORDER BY entry_id")
    assert first["ended_at"] <= second["started_at"] and second["ended_at"] <= third["started_at"]
    branches = subprocess.run(
        ["git", "branch", "--list", "orchestration/*"],
        cwd=bench.folder / "project0",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert len(branches.splitlines()) == len(ROLES) + 1, "one for each role, and the integration"
    db.close()
