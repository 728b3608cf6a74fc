"""Done means evidence, with real git and the errand really run: checks of commits, closing by hand, and the gate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lib import criteria, daemon, host, news, orchestrations, reports, status, store
from lib.config import Settings
from lib.criteria import Criterion
from lib.errands import Errands
from lib.errors import OrchestratorError
from lib.judgement import specs
from lib.merging import integrations, judging, scratch
from lib.models import OrchestrationStatus
from tests.conftest import ROOT, wait_for
from tests.integration.offering_team import OfferingTeam, offering
from tests.integration.still_team import StillTeam, still_team

__all__ = ["offering", "still_team"]

HAS_PAGE = "sh -c 'echo looked; test -e page.txt'"


def given(team: OfferingTeam | StillTeam, *found: tuple[str, str | None]) -> None:
    """The criteria of a team's spec, as a launch records them: texts and checks."""
    made = [specs.Criterion(f"C{n}", text, check, n) for n, (text, check) in enumerate(found, 1)]
    with store.writing(team.db):
        criteria.begin(team.db, team.id, made)


def judge(team: OfferingTeam) -> None:
    judging.run(team.bench.home, team.id)


def states(team: OfferingTeam | StillTeam) -> dict[str, str]:
    return {one.id: str(one.state) for one in criteria.of_orchestration(team.db, team.id)}


def one(team: OfferingTeam, name: str = "C1") -> Criterion:
    return criteria.get(team.db, team.id, name)


def told(team: OfferingTeam) -> list[str]:
    """What the Orchestrator has heard of its criteria."""
    query = "SELECT body FROM messages WHERE agent_id = ? AND sender = 'criteria' ORDER BY id"
    return [row["body"] for row in team.bench.rows(query, team.agent("orchestrator").id)]


def close(team: OfferingTeam, name: str, *, is_person: bool = True) -> None:
    who = "user" if is_person else "orchestrator"
    commit = team.git("rev-parse", "main")
    criteria.close(team.db, one(team, name), "Seen", by=who, is_person=is_person, commit=commit, now=host.now_ms())


class TestProgress:
    def test_a_merge_has_the_checks_run_on_the_integration(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE), ("A map", "test -e map.txt"), ("It is fun", None))
        offering.work("developer", page_txt="x\n")
        offering.merge()
        assert criteria.due(offering.db, now=host.now_ms()).keys() == {offering.id}
        judge(offering)
        assert states(offering) == {"C1": "holds", "C2": "fails", "C3": "open"}
        last = one(offering).last
        assert last
        assert (last.commit, last.exit_code, last.output) == (
            offering.git("rev-parse", offering.integration),
            0,
            "looked",
        )
        assert criteria.due(offering.db, now=host.now_ms()) == {}
        assert not scratch.place_of_checks(offering.bench.home, offering.id).exists()
        assert (offering.events("criterion.holds"), offering.events("criterion.fails")) == (1, 1)

    def test_the_same_files_are_not_checked_again_unless_it_is_asked_for(
        self, offering: OfferingTeam, tmp_path: Path
    ) -> None:
        given(offering, ("Runs", f"sh -c 'echo x >> {tmp_path}/log'"))
        offering.work("developer", page_txt="x\n")
        offering.merge()
        for is_again in (False, False, True):
            criteria.want(offering.db, offering.id, now=host.now_ms(), is_progress=True, is_again=is_again)
            judge(offering)
        assert (tmp_path / "log").read_text() == "x\n" * 2

    def test_each_check_finds_a_clean_checkout_with_its_setup(self, offering: OfferingTeam) -> None:
        offering.settings("setup: [touch ready]\n")
        leaves = "sh -c 'test -e ready && test ! -e left && touch left && echo > spec.md'"
        given(offering, ("One", leaves), ("Two", leaves), ("Three", "test -s spec.md"))
        offering.work("developer", page_txt="x\n")
        offering.merge()
        judge(offering)
        assert set(states(offering).values()) == {"holds"}

    def test_a_setup_that_fails_is_why(self, offering: OfferingTeam) -> None:
        offering.settings("setup: [\"sh -c 'exit 9'\"]\n")
        given(offering, ("One", "true"))
        criteria.want(offering.db, offering.id, now=host.now_ms(), is_progress=True)
        judge(offering)
        last = one(offering).last
        assert last and last.exit_code == 9 and "the setup `sh -c 'exit 9'` left with 9" in last.output

    def test_a_team_without_criteria_costs_no_errand(self, offering: OfferingTeam) -> None:
        offering.work("developer", page_txt="x\n")
        offering.merge()
        assert criteria.judging_of(offering.db, offering.id) is None

    def test_what_is_over_is_not_checked(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        criteria.want(offering.db, offering.id, now=host.now_ms(), is_progress=True)
        orchestrations.set_status(offering.db, offering.id, OrchestrationStatus.STOPPED, now=2)
        assert criteria.due(offering.db, now=host.now_ms()) == {}
        judge(offering)
        assert one(offering).last is None

    def test_it_is_news_for_the_orchestrator_once(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE), ("A map", "test -e map.txt"))
        lead, look = offering.agent("orchestrator"), news.Looking(offering.db)
        seen = look.seen(lead)
        criteria.want(offering.db, offering.id, now=host.now_ms(), is_progress=True)
        judge(offering)
        first = look(lead, seen)
        assert first.text == "2 criteria failing"
        criteria.want(offering.db, offering.id, now=host.now_ms(), is_progress=True, is_again=True)
        judge(offering)
        assert look(lead, first.seen).text == ""
        assert look(offering.agent("developer"), seen).text == ""


class TestCompletion:
    def test_an_open_criterion_refuses_at_once_and_names_what_closes_it(self, offering: OfferingTeam) -> None:
        given(offering, ("It is fun", None), ("A page", HAS_PAGE), ("It is fast", None))
        offering.commit("orchestrator", page_txt="x\n")
        with pytest.raises(OrchestratorError, match="C1, C3 are open: nothing checks them") as raised:
            offering.complete()
        assert raised.value.hint == 'claude_control.py criteria close C1 C3 webapp-impl --reason "how it was seen"'
        assert offering.bench.rows("SELECT * FROM reports") == []

    def test_it_waits_for_its_checks_and_completes_when_all_hold(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE), ("It is fun", None))
        close(offering, "C2", is_person=False)
        head = offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        assert offering.status() == "running"
        assert integrations.of(offering.db, offering.id) is None
        assert reports.reported_roles(offering.db, offering.id) == set()
        (shown,) = status.snapshot(offering.db, now=host.now_ms())
        assert (shown.waits_for, shown.criteria.hold, shown.criteria.by_hand) == (("C1",), 1, 1)
        assert "report  of the Orchestrator waits for C1" in status.as_text([shown], now=0)
        judge(offering)
        assert offering.status() == "completed"
        assert (offering.state().delivery, reports.reported_roles(offering.db, offering.id)) == (
            "due",
            {"orchestrator"},
        )
        last = one(offering).last
        assert last and last.commit == head
        offering.merge()
        assert offering.merged("page.txt", ref="main") == "x"

    def test_what_fails_is_told_with_its_output_and_can_be_mended(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE), ("Green", "true"))
        head = offering.commit("orchestrator", other_txt="x\n")
        offering.complete()
        judge(offering)
        assert offering.status() == "running"
        (text,) = told(offering)
        assert "C1 fails: A page" in text and "left with 1" in text and "looked" in text and head in text
        assert "C2" not in text
        assert reports.waiting(offering.db, offering.id) is None
        offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        judge(offering)
        assert (offering.status(), len(told(offering))) == ("completed", 1)

    def test_the_same_report_again_has_only_what_failed_checked_again(
        self, offering: OfferingTeam, tmp_path: Path
    ) -> None:
        given(offering, ("Green", f"sh -c 'echo x >> {tmp_path}/log'"), ("Later", f"test -e {tmp_path}/later"))
        offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        judge(offering)
        (tmp_path / "later").touch()
        offering.complete()
        judge(offering)
        assert offering.status() == "completed"
        assert (tmp_path / "log").read_text() == "x\n"

    def test_what_has_held_on_the_same_files_completes_at_once(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", page_txt="x\n")
        offering.offer("orchestrator")
        offering.merge()
        judge(offering)
        offering.complete()
        assert offering.status() == "completed"

    def test_what_is_not_committed_does_not_count(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", other_txt="x\n")
        (offering.worktree("orchestrator") / "page.txt").write_text("x\n")
        offering.complete()
        judge(offering)
        assert (offering.status(), states(offering)) == ("running", {"C1": "fails"})
        assert (offering.worktree("orchestrator") / "page.txt").read_text() == "x\n"

    def test_a_person_closes_what_a_report_waits_for(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", other_txt="x\n")
        offering.complete()
        close(offering, "C1")
        judge(offering)
        assert offering.status() == "completed"
        assert one(offering).last is None

    def test_a_newer_report_takes_the_place_of_one_that_waits(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", other_txt="x\n")
        offering.complete()
        head = offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        judge(offering)
        assert (offering.status(), told(offering)) == ("completed", [])
        rows = offering.bench.rows("SELECT status, head = ? AS newer FROM reports ORDER BY id", head)
        assert rows == [{"status": "superseded", "newer": 0}, {"status": "done", "newer": 1}]

    def test_another_roles_report_waits_for_nothing(self, offering: OfferingTeam) -> None:
        given(offering, ("It is fun", None), ("A page", HAS_PAGE))
        offering.commit("developer", other_txt="x\n")
        offering.complete("developer", "My part")
        assert reports.reported_roles(offering.db, offering.id) == {"developer"}

    def test_a_spec_without_criteria_completes_as_ever(self, offering: OfferingTeam) -> None:
        offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        assert offering.status() == "completed"

    def test_an_errand_that_cannot_work_again_and_again_calls_a_person(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        offering.settings("check: [broken\n")
        for _ in range(criteria.MOST_FAILURES):
            with pytest.raises(OrchestratorError):
                judge(offering)
        assert offering.status() == "running"
        judge(offering)
        assert offering.status() == "needs_attention"
        assert "claude_control.py criteria check webapp-impl" in offering.notices()[0]["body"]
        assert criteria.due(offering.db, now=host.now_ms()) == {}
        offering.settings("")
        criteria.want(offering.db, offering.id, now=host.now_ms())
        judge(offering)
        assert offering.status() == "completed"

    def test_the_daemon_starts_the_errand(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE))
        offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        home = offering.bench.home
        life = daemon.Life(Settings(), Errands(home))
        steps = (daemon.check_criteria,)
        daemon.tick(offering.db, offering.bench.tmux, home, now=host.now_ms(), life=life, steps=steps)
        wait_for(lambda: offering.status() == "completed", "the errand to settle the report")


def test_killed_between_any_two_steps_and_started_again(offering: OfferingTeam, tmp_path: Path) -> None:
    given(offering, ("A page", HAS_PAGE), ("Green", "true"))
    offering.commit("orchestrator", page_txt="x\n")
    offering.complete()
    number, killed = 1, 0
    # Each try goes on where the one before was killed: it comes to its end nevertheless.
    while offering.status() != "completed":
        command = [sys.executable, "-m", "tests.killed", "criteria", str(number), offering.id]
        code = subprocess.run(command, cwd=ROOT, env=offering.bench.environment, check=False).returncode
        killed += code != 0
        assert (
            code == 0 or offering.id in criteria.due(offering.db, now=host.now_ms()) or offering.status() == "completed"
        )
        # So that it is not given up after a few.
        criteria.want(offering.db, offering.id, now=host.now_ms())
        number += 1
        assert number < 60
    assert killed > 10
    rows = offering.bench.rows("SELECT status FROM reports")
    assert rows == [{"status": "done"}]
    assert offering.events("report.completion") == 1
    assert offering.events("orchestration.completed") == 1
    assert set(states(offering).values()) == {"holds"}
    assert told(offering) == []


class TestTheVerb:
    def test_lists_states_and_evidence(self, still_team: StillTeam) -> None:
        given(still_team, ("A page", "test -e page.txt"), ("It is fun", None))
        done = still_team.control("criteria", "webapp-impl")
        assert "webapp-impl: criteria 0 of 2 hold, C1, C2 open" in done.out
        assert "not checked yet: `test -e page.txt`" in done.out and "nothing checks it" in done.out
        still_team.control("criteria", "close", "c2", "--reason", "I laughed", role="orchestrator")
        judged = still_team.door("sync_coordinator.py", "criteria-run", still_team.id)
        assert judged.code == 0
        data = still_team.control("criteria", "--json").json
        assert data["counts"] == {"total": 2, "hold": 1, "by_hand": 1, "fail": [], "open": ["C1"]}
        first, second = data["criteria"]
        assert (first["state"], first["check"], first["last_check"]) == ("open", "test -e page.txt", None)
        assert second["state"] == "closed by hand"
        assert (second["closed"]["by"], second["closed"]["reason"]) == ("orchestrator", "I laughed")
        assert len(second["closed"]["commit"]) == 40

    def test_who_may_close_what(self, still_team: StillTeam) -> None:
        given(still_team, ("A page", "test -e page.txt"), ("It is fun", None))
        words = ("criteria", "close", "--reason", "Seen")
        done = still_team.control(*words, "C2", role="developer")
        assert done.code == 1 and "only the Orchestrator of webapp-impl or a person can close" in done.err
        done = still_team.control(*words, "C2", "C1", role="orchestrator")
        assert done.code == 1 and "C1 has a check, `test -e page.txt`, which decides" in done.err
        assert states(still_team) == {"C1": "open", "C2": "open"}, "all or none"
        assert still_team.control(*words, "C1", "C2").code == 0
        assert states(still_team) == {"C1": "closed by hand", "C2": "closed by hand"}
        assert still_team.control("criteria", "reopen", "C1", role="developer").code == 1
        assert still_team.control("criteria", "reopen", "C1", "C2", role="orchestrator").code == 0
        assert states(still_team) == {"C1": "open", "C2": "open"}
        assert still_team.control("criteria", "reopen", "C1").code == 1
        assert still_team.events("criterion.closed") == still_team.events("criterion.reopened") == 2

    def test_asks_for_a_check_now(self, still_team: StillTeam) -> None:
        given(still_team, ("A spec", "test -e spec.md"))
        done = still_team.control("criteria", "check", "webapp-impl")
        assert "webapp-impl: C1 is checked at its integration now" in done.out
        assert still_team.door("sync_coordinator.py", "criteria-run", still_team.id).code == 0
        assert "C1   holds" in still_team.control("criteria").out
        assert still_team.control("criteria", "check", "other-impl").code == 3

    def test_takes_no_other_words(self, still_team: StillTeam) -> None:
        for words in ("close C1", "close --reason x", "list C1", "check --reason x", "a-impl b-impl"):
            assert still_team.control("criteria", *words.split()).code == 2, words

    def test_the_door_tells_the_reporter(self, still_team: StillTeam) -> None:
        given(still_team, ("A page", "test -e page.txt"), ("It is fun", None))
        still_team.commit("orchestrator", "page.txt")
        report = ("orchestrator", "All is done")
        done = still_team.door("report-completion.sh", *report, role="orchestrator")
        assert done.code == 1 and "C2 is open" in done.err and "criteria close C2 webapp-impl" in done.err
        still_team.control("criteria", "close", "C2", "--reason", "I laughed", role="orchestrator")
        done = still_team.door("report-completion.sh", *report, role="orchestrator")
        head = still_team.bench.rows("SELECT head FROM reports")[0]["head"]
        assert (done.code, done.out) == (0, f"recorded: C1 is checked at {head[:12]}; you hear of it\n")
        again = still_team.control("complete", *report, "--json", role="orchestrator").json
        assert (again["waits_for"], again["new"], again["orchestration"]) == (["C1"], False, "running")
        assert still_team.door("sync_coordinator.py", "criteria-run", still_team.id).code == 0
        assert "webapp-impl: completed" in still_team.control("status").out
        late = still_team.control("criteria", "reopen", "C2", still_team.id)
        assert late.code == 1 and "is over: completed" in late.err
