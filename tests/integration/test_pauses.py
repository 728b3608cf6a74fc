"""Pauses by hand: nothing reaches a paused team, whoever was interrupted hears of it, and a budget holds on its own."""

from __future__ import annotations

import pytest

from lib import holds, host, orchestrations, pauses, store
from lib.errors import Busy, ExitCode, OrchestratorError
from lib.models import Budget, BudgetPer, BudgetUnit, OrchestrationStatus
from lib.spending import budgets
from tests.conftest import Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


def status(team: StillTeam) -> OrchestrationStatus:
    return orchestrations.get(team.db, team.id).status


def a_budget(team: StillTeam) -> Budget:
    """One US dollar for all of the team."""
    return budgets.add(team.db, team.id, 1.0, BudgetUnit.USD, BudgetPer.ORCHESTRATION, role=None, now=host.now_ms())


class TestPause:
    def test_holds_every_agent_until_it_is_resumed(self, still_team: StillTeam) -> None:
        out = still_team.control("pause").out
        assert out == "webapp-impl is paused; claude_control.py resume webapp-impl\n"
        assert status(still_team) is OrchestrationStatus.PAUSED
        held = [holds.of(still_team.db, still_team.agent(role)) for role in ("orchestrator", "tester")]
        assert all(hold and hold.why.startswith("paused by hand since ") for hold in held)
        assert "paused by hand since" in still_team.control("status").out
        assert still_team.control("resume").out == "webapp-impl is running\n"
        assert status(still_team) is OrchestrationStatus.RUNNING
        assert holds.of(still_team.db, still_team.agent("tester")) is None

    def test_twice_is_once(self, still_team: StillTeam) -> None:
        still_team.control("pause")
        assert "is paused already" in still_team.control("pause").out
        assert still_team.events("pause.begun") == 1
        still_team.control("resume")
        again = still_team.control("resume")
        assert again.code == ExitCode.USAGE and "is not paused by hand: it is running" in again.err

    def test_only_whoever_was_interrupted_and_the_orchestrator_hear_of_the_end(self, still_team: StillTeam) -> None:
        still_team.control("pause")
        now = host.now_ms()
        with store.writing(still_team.db):
            store.record(
                *(still_team.db, "agent.interrupted"),
                now=now,
                orchestration=still_team.id,
                agent=still_team.agent("developer").id,
                why="paused by hand",
            )
        still_team.control("resume")
        told = {role: still_team.told(role, "notice") for role in ("orchestrator", "developer", "tester")}
        assert "take up what you were doing" in told["developer"][0][1]
        assert "what was held meanwhile arrives now" in told["orchestrator"][0][1]
        assert told["tester"] == []
        # The interruption of an earlier pause is history.
        still_team.control("pause")
        still_team.control("resume")
        assert len(still_team.told("developer", "notice")) == 1

    def test_a_budget_that_is_used_up_meanwhile_holds_on(self, still_team: StillTeam) -> None:
        db, budget = still_team.db, a_budget(still_team)
        still_team.control("pause")
        db.execute("UPDATE budgets SET status = 'paused' WHERE id = ?", (budget.id,))
        assert still_team.control("resume").out.startswith("webapp-impl is paused: the budget of $1.00")
        assert "budget" in str(orchestrations.get(db, still_team.id).outcome)

    def test_an_extended_budget_does_not_end_it(self, still_team: StillTeam) -> None:
        db, budget = still_team.db, a_budget(still_team)
        db.execute("UPDATE budgets SET status = 'paused' WHERE id = ?", (budget.id,))
        still_team.control("pause")
        budgets.extend(db, budgets.get(db, budget.id), 5.0, now=host.now_ms())
        assert status(still_team) is OrchestrationStatus.PAUSED
        still_team.control("resume")
        assert status(still_team) is OrchestrationStatus.RUNNING

    def test_of_a_team_that_is_not_there_to_be_paused(self, still_team: StillTeam) -> None:
        found = orchestrations.get(still_team.db, still_team.id)
        still_team.db.execute("UPDATE orchestrations SET status = 'starting'")
        with pytest.raises(Busy, match="still being launched"):
            pauses.pause(still_team.db, found, now=host.now_ms())
        still_team.db.execute("UPDATE orchestrations SET status = 'running'")
        still_team.end()
        with pytest.raises(OrchestratorError):
            pauses.pause(still_team.db, found, now=host.now_ms())
        assert orchestrations.paused_at(still_team.db, still_team.id) is None


def test_a_paused_team_gets_no_message_and_is_not_started_until_it_goes_on(bench: Bench) -> None:
    bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "3"  # at work for as long as this looks
    project = bench.project()
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "developer", "--agent", "rehearsal")
    bench.ok("claude_control.py", "pause", "--now", "--if-paused")
    assert bench.rows("SELECT status FROM orchestrations") == [{"status": "running"}], "it was not paused"
    bench.ok("claude_control.py", "pause", "--now")
    bench.door("claude_control.py", "send", "webapp-impl:developer", "Are you there?")
    (message,) = [row for row in bench.rows("SELECT * FROM messages") if row["body"] == "Are you there?"]
    assert message["status"] == "queued" and "paused by hand" in str(message["reason"])
    refused = bench.door("auto_orchestrate.py", "--project", str(project), "--resume")
    assert refused.code == ExitCode.NOT_NOW and "claude_control.py resume webapp-impl" in refused.err
    bench.ok("claude_control.py", "resume")

    def arrived() -> bool:
        (row,) = bench.rows("SELECT status FROM messages WHERE id = ?", message["id"])
        return bool(row["status"] == "acknowledged")

    wait_for(arrived, "the message that was held")


class TestScreen:
    def test_prints_what_a_window_shows(self, still_team: StillTeam) -> None:
        pane = str(still_team.agent("tester").pane_id)
        still_team.bench.tmux.run("respawn-pane", "-k", "-t", pane, "seq 1 100; sleep 1000")
        wait_for(lambda: "100" in still_team.control("screen", "webapp-impl:tester").out, "the numbers")
        assert "\n42\n" not in still_team.control("screen", "webapp-impl:tester").out
        lines = still_team.control("screen", "webapp-impl:tester", "--lines", "60", "--json").json["lines"]
        assert len(lines) == 60 and "42" in lines

    def test_of_a_window_that_is_somebody_elses_shows_nothing(self, still_team: StillTeam) -> None:
        pane = str(still_team.agent("tester").pane_id)
        still_team.bench.tmux.run("set-option", "-p", "-t", pane, "@orchestrator_agent", "999")
        done = still_team.control("screen", "webapp-impl:tester")
        assert done.code == ExitCode.NOT_FOUND and "has no window now" in done.err
