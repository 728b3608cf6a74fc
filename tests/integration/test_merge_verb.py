"""sync_coordinator.py merge: what it offers, for whom, and what it only says; and what status shows of it."""

from __future__ import annotations

from typing import Any

import pytest

from lib import orchestrations
from lib.models import OrchestrationStatus
from tests.integration.offering_team import OfferingTeam, offering
from tests.integration.still_team import StillTeam, still_team

__all__ = ["offering", "still_team"]


def refs(team: OfferingTeam) -> str:
    return team.git("for-each-ref")


def would(team: OfferingTeam, role: str) -> Any:
    """What a dry run says of a role."""
    return next(
        one
        for one in team.bench.ok("sync_coordinator.py", "merge", "webapp-impl", "--dry-run", "--json").json
        if one["role"] == role
    )


class TestADryRun:
    def test_says_what_would_merge_and_what_not(self, offering: OfferingTeam) -> None:
        offering.work("developer", spec_md="by the developer\n")
        offering.merge()
        offering.commit("tester", spec_md="by the tester\n", b_txt="b\n")
        before = refs(offering)
        out = offering.bench.ok("sync_coordinator.py", "merge", "webapp-impl", "--dry-run").out
        assert [" ".join(line.split()) for line in out.splitlines()] == [
            f"webapp-impl: {offering.integration}, main",
            "orchestrator integration: nothing new",
            "orchestrator starting branch: nothing new",
            "developer integration: nothing new",
            "developer starting branch: merges cleanly, 1 commit",
            "tester integration: conflict in spec.md",
            "tester starting branch: merges cleanly, 1 commit",
            "testrunner integration: nothing new",
            "testrunner starting branch: nothing new",
            "nothing was changed",
        ]
        assert would(offering, "tester")["integration"] == {"says": "conflict in spec.md", "conflicts": ["spec.md"]}
        assert refs(offering) == before
        assert offering.states() == {"developer": "merged"}

    def test_says_what_has_no_commit_in_common(self, offering: OfferingTeam) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        offering.git(*identity, "commit", "-q", "--amend", "-m", "Another start", at=offering.worktree("tester"))
        said = {"says": "no commit in common", "conflicts": []}
        assert [would(offering, "tester")[name] for name in ("integration", "starting_branch")] == [said, said]

    def test_of_one_role_says_nothing_of_the_others(self, offering: OfferingTeam) -> None:
        words = ("merge", "webapp-impl", "--dry-run", "--role", "tester", "--json")
        assert [one["role"] for one in offering.bench.ok("sync_coordinator.py", *words).json] == ["tester"]


class TestOffering:
    def test_a_person_offers_what_every_branch_holds(self, offering: OfferingTeam) -> None:
        offering.commit("developer", a_txt="a\n")
        offering.commit("tester", b_txt="b\n")
        offering.bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(no_scheduler(offering))
        data = offering.bench.ok("sync_coordinator.py", "merge", "webapp-impl", "--json").json
        assert data["waiting"] == 2
        assert {one["role"]: one["status"] for one in data["offers"]} == {
            **{"developer": "queued", "tester": "queued"},
            **{"orchestrator": None, "testrunner": None},
        }
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "merged"}

    def test_what_went_back_is_taken_again(self, offering: OfferingTeam) -> None:
        offering.settings("check: 'false'\n")
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert offering.states() == {"developer": "red"}
        offering.settings("check: 'true'\n")
        offering.offer("developer")
        assert offering.states() == {"developer": "red"}
        offering.bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(no_scheduler(offering))
        offering.bench.ok("sync_coordinator.py", "merge", "webapp-impl", "--role", "developer")
        assert offering.states() == {"developer": "queued"}
        offering.merge()
        assert offering.states() == {"developer": "merged"}

    def test_a_team_that_was_stopped_offers_nothing(self, offering: OfferingTeam) -> None:
        offering.commit("developer", a_txt="a\n")
        orchestrations.set_status(offering.db, offering.id, OrchestrationStatus.STOPPED, now=2)
        done = offering.bench.door("sync_coordinator.py", "merge", "webapp-impl")
        assert (done.code, offering.states()) == (1, {})
        assert "is stopped: nobody merges for it any more" in done.err

    def test_a_role_that_nobody_has_is_named(self, offering: OfferingTeam) -> None:
        done = offering.bench.door("sync_coordinator.py", "merge", "webapp-impl", "--role", "devops")
        assert done.code == 3
        assert "roles: orchestrator, developer, tester, testrunner" in done.err

    def test_an_agent_offers_its_own_branch_only(self, still_team: StillTeam) -> None:
        for role in ("developer", "tester"):
            still_team.commit(role, f"{role}.txt")
        data = still_team.door("sync_coordinator.py", "merge", "--json", role="developer").json
        assert [(one["role"], one["status"]) for one in data["offers"]] == [("developer", "queued")]
        refused = still_team.door("sync_coordinator.py", "merge", "--role", "tester", role="developer")
        assert refused.code == 1
        assert "webapp-impl:developer offers its own branch only" in refused.err
        # Looking is free.
        assert still_team.door("sync_coordinator.py", "merge", "--dry-run", role="developer").code == 0


def no_scheduler(team: OfferingTeam) -> Any:
    """Settings with which nobody merges behind the test's back."""
    path = team.bench.folder / "config.yaml"
    path.write_text("auto_start: false\n")
    return path


SHOWN = [
    ("check: 'true'\n", "merged", None),
    ("check: 'false'\n", "red", "went back: the check is red"),
]


@pytest.mark.parametrize(("settings", "status", "words"), SHOWN)
def test_status_says_in_a_word_what_became_of_an_offer(
    offering: OfferingTeam, settings: str, status: str, words: str | None
) -> None:
    offering.settings(settings)
    offering.work("developer", a_txt="a\n")
    assert "waits to be merged" in offering.bench.ok("claude_control.py", "status").out
    offering.merge()
    shown = offering.bench.ok("claude_control.py", "status").out
    assert ("went back" in shown, "waits to be merged" in shown) == (words is not None, False)
    assert words is None or words in shown
    (team,) = offering.bench.ok("claude_control.py", "status", "--json").json["orchestrations"]
    assert {agent["role"]: agent["candidate"] for agent in team["agents"]} == {
        **{"developer": status, "orchestrator": None},
        **{"tester": None, "testrunner": None},
    }
    assert (team["delivery"], team["integration_branch"]) == ("not_yet", offering.integration)
