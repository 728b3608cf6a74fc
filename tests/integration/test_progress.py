"""What is waited for is shown on stderr: a bar on a terminal, lines elsewhere, nothing under --quiet and --json."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from lib import criteria, store
from lib.front import progress
from lib.front.cli import Output
from lib.judgement import specs
from tests import terminals
from tests.conftest import ROOT, Bench, wait_for
from tests.integration.offering_team import offering
from tests.integration.still_team import StillTeam, still_team

__all__ = ["offering", "still_team"]


def on_terminal(bench: Bench, door: str, *words: str) -> tuple[int, str]:
    """Exit code of a door, and what it writes to a terminal as its stderr."""
    command = [sys.executable, str(ROOT / door), *words]
    return terminals.written(command, bench.environment | {"COLUMNS": "120"}, stderr=True)


WAITS: Sequence[tuple[Sequence[str], str]] = [
    (("sync_coordinator.py", "sync", "webapp-impl"), "the starting branch comes into the agents' branches"),
    (("sync_coordinator.py", "snapshot", "webapp-impl"), "snapshots of worktrees are taken"),
    (("sync_coordinator.py", "merge", "webapp-impl", "--dry-run"), "merges are tried, without a checkout"),
    (("sync_coordinator.py", "resolve", "webapp-impl", "--strategy", "ours"), "conflicts are settled"),
    (("claude_control.py", "stop", "webapp-impl"), "snapshots of the worktrees are taken, then the agents are ended"),
]


@pytest.mark.parametrize(("words", "sentence"), WAITS, ids=lambda one: one[1] if isinstance(one, tuple) else "")
def test_a_person_at_a_terminal_sees_what_is_waited_for(
    still_team: StillTeam, words: Sequence[str], sentence: str
) -> None:
    code, shown = on_terminal(still_team.bench, *words)
    assert code == 0 and sentence in shown
    if "stop" not in words:
        assert "4/4" in shown


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_who_wants_the_answer_only_sees_nothing(still_team: StillTeam, option: str) -> None:
    assert on_terminal(still_team.bench, "sync_coordinator.py", "sync", "webapp-impl", option) == (0, "")


def test_elsewhere_what_is_over_soon_says_nothing_and_what_takes_long_a_line_for_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.counted(Output(), "things are done", 3) as tell:
        tell("first")
        now = 3.0
        tell("second")
        now = 4.5
        tell("third")
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == "things are done\n  3.0 s  2 of 3  second\n  4.5 s  3 of 3  third\n"


def test_a_command_that_looks_like_markup_is_shown_as_it_is(still_team: StillTeam) -> None:
    still_team.commit("developer")
    check = "test '[/x]' != y"
    words = ("complete", "developer", "done", "--session", "webapp-impl", "--check", check)
    code, shown = on_terminal(still_team.bench, "claude_control.py", *words)
    assert code == 0, shown
    assert check in shown


def waiting(bench: Bench, *words: str) -> subprocess.Popen[str]:
    door, *rest = words
    command = [sys.executable, str(ROOT / door), *rest]
    return subprocess.Popen(command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestWaitForTheHub:
    @pytest.mark.parametrize(("check", "code", "said"), [("true", 0, "merged"), ("false", 1, "red")])
    def test_merge_waits_for_what_becomes_of_the_offers(
        self, still_team: StillTeam, check: str, code: int, said: str
    ) -> None:
        project = still_team.bench.folder / "webapp"
        (project / ".tmux-orchestrator.yaml").write_text(f"check: '{check}'\n")
        still_team.commit("developer")
        words = ("sync_coordinator.py", "merge", "webapp-impl", "--role", "developer", "--wait", "60")
        process = waiting(still_team.bench, *words)
        wait_for(lambda: still_team.bench.rows("SELECT 1 FROM candidates"), "the offer")
        assert process.poll() is None
        still_team.bench.ok("sync_coordinator.py", "merge-run", still_team.id)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert f"is {said}" in out

    def test_who_waits_for_too_short_hears_how_it_stands(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        done = still_team.door("sync_coordinator.py", "merge", "webapp-impl", "--wait", "0.3")
        assert done.code == 0 and "is queued" in done.out and "1 of webapp-impl wait" in done.out


class TestWaitForTheChecks:
    @pytest.mark.parametrize(("check", "code", "said"), [("true", 0, "holds"), ("false", 1, "fails")])
    def test_check_waits_for_its_checks(self, still_team: StillTeam, check: str, code: int, said: str) -> None:
        with store.writing(still_team.db):
            criteria.begin(still_team.db, still_team.id, [specs.Criterion("C1", "It works", check, 1)])
        process = waiting(still_team.bench, "claude_control.py", "criteria", "check", "webapp-impl", "--wait", "60")
        wait_for(lambda: still_team.bench.rows("SELECT 1 FROM judgings"), "the asking")
        assert process.poll() is None
        still_team.bench.ok("sync_coordinator.py", "criteria-run", still_team.id)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert said in out

    def test_only_check_waits(self, still_team: StillTeam) -> None:
        done = still_team.control("criteria", "webapp-impl", "--wait", "5")
        assert done.code == 2 and "--wait goes with check" in done.err
