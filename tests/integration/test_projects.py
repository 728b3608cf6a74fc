"""What multi_project_monitor.py and `claude_control.py monitor` show: once, live, as JSON and as files."""

from __future__ import annotations

import csv
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lib import agents, host, messages, orchestrations
from lib.errors import ExitCode
from lib.models import MessageKind, OrchestrationStatus
from tests.agents import a_team
from tests.conftest import ROOT, Bench
from tests.integration.still_team import StillTeam, still_team
from tests.integration.watching import Watched, watched

__all__ = ["still_team", "watched"]

DOOR = "multi_project_monitor.py"


def move(db: sqlite3.Connection, name: str, status: OrchestrationStatus, outcome: str | None = None) -> None:
    """Record a team of two of which nothing runs, and its status."""
    agent = a_team(db, "orchestrator", "developer", name=name)[0]
    orchestrations.set_status(
        db, agents.get(db, agent.id).orchestration_id or "", status, now=host.now_ms(), outcome=outcome
    )


def say_hello(team: StillTeam) -> None:
    """Queue a message to the tester, which nobody delivers."""
    tester, now = team.agent("tester"), host.now_ms()
    messages.queue(team.db, tester, "Hello", sender="user", kind=MessageKind.MESSAGE, now=now)


@pytest.fixture
def several(still_team: StillTeam) -> StillTeam:
    """A team at work, and one of each other kind."""
    move(still_team.db, "over", OrchestrationStatus.COMPLETED, "All of it stands")
    move(still_team.db, "held", OrchestrationStatus.PAUSED)
    move(still_team.db, "asking", OrchestrationStatus.NEEDS_ATTENTION, "=cmd|' /C calc'!A0")
    return still_team


class TestOnce:
    def test_what_needs_a_person_comes_first(self, several: StillTeam) -> None:
        say_hello(several)
        lines = several.bench.ok(DOOR).out.splitlines()
        order = [line.split()[:2] for line in lines if line.split()[0] in ("asking", "held", "webapp", "over")]
        assert order == [
            *(["asking", "needs_attention"], ["held", "paused"]),
            *(["webapp", "running"], ["over", "completed"]),
        ]
        webapp = next(line for line in lines if line.startswith("webapp")).split()
        assert webapp[webapp.index("nothing") - 1] == "1", "the message that waits"
        assert lines[-1] == "the scheduler does not run: scheduler.py --daemon"
        assert max(map(len, lines)) <= 100

    def test_json_says_what_each_needs_and_why(self, several: StillTeam) -> None:
        found = several.bench.ok(DOOR, "--json").json
        needs = {line["session"]: (line["need"], line["why"]) for line in found["projects"]}
        assert needs["asking-impl"] == ("person", "=cmd|' /C calc'!A0")
        assert needs["over-impl"] == ("over", "All of it stands")
        assert needs["held-impl"][0] == "time"
        assert found["queue"] == {} and found["queue_paused"] is False

    def test_only_those_that_are_named(self, several: StillTeam) -> None:
        found = several.bench.ok(DOOR, "--projects", "webapp, held-impl", "--json").json
        assert {line["session"] for line in found["projects"]} == {"webapp-impl", "held-impl"}
        refused = several.bench.door(DOOR, "--projects", "webapp,nowhere")
        assert refused.code == ExitCode.NOT_FOUND and "'nowhere'" in refused.err and "held" in refused.err

    def test_a_summary(self, several: StillTeam) -> None:
        lines = several.bench.ok(DOOR, "--summary").out.splitlines()
        assert lines[0] == "3 live projects: 1 for you to settle, 1 waiting, 1 at work"
        assert lines[1] == "1 ended within a day"
        assert lines[2].startswith("8 agents: ")

    def test_of_nobody_is_a_sentence(self, bench: Bench) -> None:
        assert bench.ok(DOOR).out.startswith("no team is running")
        assert bench.ok(DOOR, "--summary").out.startswith("0 live projects\n")


class TestExport:
    def test_csv_has_a_row_for_each_and_no_formula(self, several: StillTeam, tmp_path: Path) -> None:
        several.bench.ok(DOOR, "--export", "figures.csv", cwd=tmp_path)
        with (tmp_path / "figures.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["session"]: row for row in csv.DictReader(file)}
        assert rows["asking-impl"]["why"] == "'=cmd|' /C calc'!A0"
        assert (rows["webapp-impl"]["agents"], rows["webapp-impl"]["status"]) == ("4", "running")
        assert [path.name for path in tmp_path.glob("*figures*")] == ["figures.csv"]

    def test_json_is_what_is_shown(self, several: StillTeam, tmp_path: Path) -> None:
        shown = several.bench.ok(DOOR, "--json", "--export", "figures.json", cwd=tmp_path).json
        assert json.loads((tmp_path / "figures.json").read_text()) == shown

    def test_another_ending_is_refused_and_a_folder_stays(self, bench: Bench, tmp_path: Path) -> None:
        assert bench.door(DOOR, "--export", "figures.xls", cwd=tmp_path).code == ExitCode.USAGE
        (tmp_path / "figures.csv").mkdir()
        assert bench.door(DOOR, "--export", "figures.csv", cwd=tmp_path).code == ExitCode.FAILED
        assert [path.name for path in tmp_path.glob("*figures*")] == ["figures.csv"]


def test_the_projects_are_watched_live(several: StillTeam, watched: Watched) -> None:
    watched.start(DOOR, "--refresh", "0.5", columns=100)
    screen = watched.shows("Projects", "webapp", "needs attention", "over")
    assert max(map(len, screen.splitlines())) <= 100
    several.end()
    watched.shows("stopped")
    watched.leave()
    assert watched.shows("left with 0").split("\n")[0] == "left with 0"


def test_the_agents_are_watched_live(still_team: StillTeam, watched: Watched) -> None:
    watched.start("claude_control.py", "monitor", "--interval", "0.5", columns=100)
    watched.shows("Agents", "webapp-impl", "testrunner")
    say_hello(still_team)
    watched.shows("1 waiting")
    watched.leave()
    watched.shows("left with 0")


def test_a_monitor_without_a_terminal_writes_a_line_of_json_for_each_look(still_team: StillTeam) -> None:
    command = [sys.executable, str(ROOT / "claude_control.py"), "monitor", "webapp-impl", "--interval", "0.5", "--json"]
    with subprocess.Popen(command, env=still_team.bench.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
    assert looks[0]["at"] < looks[1]["at"]
    assert [one["session"] for one in looks[1]["orchestrations"]] == ["webapp-impl"]


def test_a_monitor_of_nobody_is_refused(bench: Bench) -> None:
    assert bench.door("claude_control.py", "monitor", "nobody-impl").code == ExitCode.NOT_FOUND
