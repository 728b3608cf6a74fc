"""A completion is a report with evidence: who may give it, what has to hold, and that it counts once."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from lib import reports
from lib.errors import OrchestratorError
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


def test_a_report_holds_the_evidence_and_is_told_to_the_orchestrator(still_team: StillTeam) -> None:
    still_team.commit("developer", "login.py")
    done = still_team.control("complete", "developer", 'Login "works"', role="developer")
    assert done.code == 0, done.err
    (report,) = still_team.bench.rows("SELECT * FROM reports")
    assert (report["summary"], report["commits"], json.loads(report["files"])) == ('Login "works"', 1, ["login.py"])
    assert report["branch"] == still_team.agent("developer").branch
    assert (report["check_command"], report["check_exit"], report["check_output"]) == (None, None, None)
    ((sender, text),) = still_team.told("orchestrator", "report")
    assert sender == "developer"
    assert 'Completion report from developer: Login "works"' in text
    assert report["head"] in text and "login.py" in text
    assert "Check:" not in text


def test_without_a_commit_there_is_no_completion(still_team: StillTeam) -> None:
    done = still_team.control("complete", "developer", "Done", role="developer")
    assert done.code == 1
    assert "developer has no commit" in done.err
    assert still_team.bench.rows("SELECT * FROM reports") == []


def test_the_same_report_again_is_not_a_second_one(still_team: StillTeam) -> None:
    still_team.commit("developer")
    first = still_team.control("complete", "developer", "Done", "--json", role="developer")
    again = still_team.control("complete", "developer", " Done ", "--json", role="developer")
    assert (first.json["new"], again.json["new"], again.code) == (True, False, 0)
    assert len(still_team.told("orchestrator", "report")) == 1
    assert still_team.events("report.completion") == 1
    # Another commit is another report.
    still_team.commit("developer", "more.txt")
    assert still_team.control("complete", "developer", "Done", "--json", role="developer").json["new"]
    assert len(still_team.told("orchestrator", "report")) == 2


def test_an_agent_reports_only_for_itself_and_a_person_for_all(still_team: StillTeam) -> None:
    still_team.commit("tester")
    done = still_team.control("complete", "tester", "Done", role="developer")
    assert done.code == 1
    assert "only webapp-impl:tester or a person can report for it: this is webapp-impl:developer" in done.err
    assert still_team.bench.rows("SELECT * FROM reports") == []
    assert still_team.control("complete", "tester", "Done").code == 0
    assert [sender for sender, _ in still_team.told("orchestrator", "report")] == ["user"]


def test_what_has_ended_takes_no_report(still_team: StillTeam) -> None:
    still_team.commit("developer")
    still_team.end()
    done = still_team.control("complete", "developer", "Done", "--session", "webapp-impl")
    assert done.code == 3  # a team that was stopped is no longer addressed
    with pytest.raises(OrchestratorError, match="webapp-impl is over: stopped"):
        reports.complete(still_team.db, still_team.agent("developer"), "Done", caller=None, sender="user", now=0)
    assert still_team.bench.rows("SELECT * FROM reports") == []


def test_after_the_orchestrators_report_nothing_is_reported(still_team: StillTeam) -> None:
    for role in ("orchestrator", "developer"):
        still_team.commit(role)
    done = still_team.control("complete", "orchestrator", "All is merged", role="orchestrator")
    assert "webapp-impl is completed" in done.out
    late = still_team.control("complete", "developer", "Done")
    assert late.code == 1
    assert "webapp-impl is over: completed" in late.err


class TestAFailure:
    def test_of_the_whole_ends_the_orchestration_without_a_commit(self, still_team: StillTeam) -> None:
        done = still_team.control(
            "complete", "orchestrator", "--failed", "The API is gone", "--json", role="orchestrator"
        )
        assert done.json["orchestration"] == "failed"
        (row,) = still_team.bench.rows("SELECT status, outcome FROM orchestrations")
        assert row == {"status": "failed", "outcome": "The API is gone"}
        assert still_team.bench.rows("SELECT 1 FROM check_ins WHERE status = 'scheduled'") == []
        (notice,) = still_team.bench.rows("SELECT kind, title, body FROM notices")
        assert notice == {"kind": "failed", "title": "webapp-impl: failed", "body": "The API is gone"}

    def test_again_changes_nothing(self, still_team: StillTeam) -> None:
        for reason in ("The API is gone", "It is still gone"):
            agent = still_team.agent("orchestrator")
            reports.fail(still_team.db, agent, reason, caller=None, now=0)
        assert still_team.bench.rows("SELECT outcome FROM orchestrations") == [{"outcome": "The API is gone"}]
        assert still_team.events("orchestration.failed") == 1

    @pytest.mark.parametrize(
        ("role", "by"), [("developer", "developer"), ("orchestrator", "developer"), ("developer", None)]
    )
    def test_is_the_orchestrators_to_report(self, still_team: StillTeam, role: str, by: str | None) -> None:
        done = still_team.control("complete", role, "--failed", "I give up", role=by)
        assert done.code == 1
        assert "only the orchestrator" in done.err and "send-claude-message.sh webapp-impl:orchestrator" in done.err
        assert still_team.bench.rows("SELECT status FROM orchestrations") == [{"status": "running"}]

    def test_of_what_is_over_is_refused(self, still_team: StillTeam) -> None:
        still_team.end()
        done = still_team.control("complete", "orchestrator", "--failed", "Late", "--session", "webapp-impl")
        assert done.code != 0
        assert still_team.bench.rows("SELECT status FROM orchestrations") == [{"status": "stopped"}]

    def test_says_why_and_needs_no_check(self, still_team: StillTeam) -> None:
        words = ("complete", "orchestrator", "--failed")
        assert still_team.control(*words, "  ", role="orchestrator").code == 2
        assert still_team.control(*words, "Why", "--check", "true", role="orchestrator").code == 2


def test_an_empty_report_is_refused(still_team: StillTeam) -> None:
    still_team.commit("developer")
    assert still_team.control("complete", "developer", "  ", role="developer").code == 2


class TestCheck:
    def test_one_that_succeeds_is_part_of_the_report(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        # It runs in the agent's worktree, whose file it reads, and without a shell.
        done = still_team.control(
            "complete", "developer", "Done", "--check", "cat work.txt '$HOME'/../work.txt", role="developer"
        )
        assert done.code == 1
        done = still_team.control(
            "complete", "developer", "Done", "--check", "cat work.txt", "--json", role="developer"
        )
        assert done.json["check"] == {"command": "cat work.txt", "exit_code": 0, "output": "by developer"}
        (report,) = still_team.bench.rows("SELECT * FROM reports")
        assert (report["check_command"], report["check_exit"]) == ("cat work.txt", 0)
        assert report["check_output"] == "by developer"
        ((_, text),) = still_team.told("orchestrator", "report")
        assert "Check: `cat work.txt` left with 0." in text
        assert text.rstrip().endswith("by developer")

    def test_one_that_fails_means_no_completion(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        done = still_team.control(
            "complete", "developer", "Done", "--check", "sh -c 'echo 3 tests failed >&2; exit 7'", role="developer"
        )
        assert done.code == 1
        assert "left with 7, so developer is not done" in done.err
        assert "3 tests failed" in done.err
        assert still_team.bench.rows("SELECT * FROM reports") == []
        assert still_team.told("orchestrator", "report") == []
        (event,) = still_team.bench.rows("SELECT * FROM events WHERE kind = 'report.check_failed'")
        assert event["agent_id"] == still_team.agent("developer").id
        assert json.loads(event["data"]) == {
            "command": "sh -c 'echo 3 tests failed >&2; exit 7'",
            "exit": 7,
            "output": "3 tests failed",
        }

    def test_a_commit_during_it_is_not_what_was_checked(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        commit = "git -c user.name=T -c user.email=t@localhost commit --allow-empty -qm More"
        done = still_team.control("complete", "developer", "Done", "--check", commit, role="developer")
        assert done.code == 1
        assert "got new commits during the check" in done.err
        assert still_team.bench.rows("SELECT * FROM reports") == []

    def test_the_orchestration_can_end_during_it(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])"
        words = (sys.executable, "-c", program, str(still_team.bench.home / "orchestrator.db"))
        check = shlex.join([*words, "UPDATE orchestrations SET status = 'stopped'"])
        done = still_team.control("complete", "developer", "Done", "--check", check, role="developer")
        assert done.code == 1, done.out
        assert "is over: stopped" in done.err
        assert still_team.bench.rows("SELECT * FROM reports") == []
