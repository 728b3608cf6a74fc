"""Done means evidence, with real git and the errand really run: checks of commits, closing by hand, and the gate."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from lib import criteria, daemon, host, news, orchestrations, overview, reports, status, store
from lib.config import Settings
from lib.criteria import Criterion
from lib.errands import Errands
from lib.errors import OrchestratorError
from lib.front import projects
from lib.front.control import monitor
from lib.judgement import specs
from lib.merging import integrations, judging, scratch
from lib.models import OrchestrationStatus
from tests.conftest import wait_for
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
        offering.complete()
        assert reports.awaited(offering.db, offering.id) == ("C1", "C2"), "what has failed does not complete it"
        judge(offering)
        assert (offering.status(), len(told(offering))) == ("running", 2)
        (tmp_path / "later").touch()
        offering.complete()
        assert offering.status() == "running"
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

    def test_closing_and_reopening_have_the_errand_look_at_what_may_wait_for_it(self, offering: OfferingTeam) -> None:
        given(offering, ("It is fun", None))
        assert criteria.due(offering.db, now=host.now_ms()) == {}
        close(offering, "C1")
        assert criteria.due(offering.db, now=host.now_ms()).keys() == {offering.id}
        judge(offering)
        assert criteria.due(offering.db, now=host.now_ms()) == {}
        criteria.reopen(offering.db, one(offering), by="user", now=host.now_ms())
        assert criteria.due(offering.db, now=host.now_ms()).keys() == {offering.id}

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
        code = offering.bench.killed("criteria", number, offering.id)
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
    assert not scratch.place_of_checks(offering.bench.home, offering.id).exists(), (
        "of a run killed after its last check"
    )


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
        for reason in ("", " \n", "x" * 2_001):
            assert still_team.control("criteria", "close", "C2", "--reason", reason).code == 2, (
                "it says how it was seen"
            )
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


class TestViews:
    """Where criteria are shown beside the verb: the written report, both monitors, notices and status."""

    @pytest.fixture
    def judged(self, offering: OfferingTeam) -> OfferingTeam:
        """C1 holds and C2 fails by their checks, C3 is closed by hand, and C4 has a check that was not run."""
        given(offering, ("A page", HAS_PAGE), ("A | map", "test -e map.txt"), ("It is fun", None))
        offering.work("developer", page_txt="x\n")
        offering.merge()
        judge(offering)
        made = [specs.Criterion("C4", "Later", "make \x1b[31mlater", 4)]
        with store.writing(offering.db):
            criteria.begin(offering.db, offering.id, made)
        close(offering, "C3", is_person=False)
        return offering

    def test_the_written_report_has_each_with_its_evidence(self, judged: OfferingTeam, tmp_path: Path) -> None:
        head = judged.git("rev-parse", judged.integration)
        out = judged.bench.ok("claude_control.py", "report").out
        assert "\n### Criteria\n\nCriteria 2 of 4 hold, 1 closed by hand, C2 fails, C4 open.\n\n| |" in out
        lines = [line for line in out.splitlines() if line.startswith("| C")]
        plain = "test -e page.txt"
        assert lines[0].startswith("| C1 | A page | holds | ") and f"{plain}'\\` left with 0 after " in lines[0]
        assert lines[1].startswith("| C2 | A \\| map | fails | ") and f"at {head[:12]}, 20" in lines[1]
        assert lines[2].startswith("| C3 | It is fun | closed by hand | by orchestrator at ")
        assert lines[2].endswith(": Seen |")
        assert lines[3] == "| C4 | Later | open | not checked yet: \\`make later\\` |"
        judged.bench.ok("claude_control.py", "report", "--output", str(tmp_path / "r.html"))
        page = (tmp_path / "r.html").read_text()
        fails = f'<td><code>test -e map.txt</code></td><td class="number">1</td><td><code>{head[:10]}</code></td><td>20'
        assert f"<td>A | map</td><td>fails</td>{fails}" in page
        assert "<td>orchestrator: Seen</td>" in page
        (team,) = judged.bench.ok("claude_control.py", "report", "--json").json["teams"]
        shown = [(one["id"], one["state"], one["exit_code"], one["closed_by"]) for one in team["criteria"]]
        assert shown == [
            *(("C1", "holds", 0, None), ("C2", "fails", 1, None)),
            *(("C3", "closed by hand", None, "orchestrator"), ("C4", "open", None, None)),
        ]

    def test_a_report_of_a_team_without_criteria_says_so(self, offering: OfferingTeam, tmp_path: Path) -> None:
        assert (
            "### Criteria\n\nIts spec has no criteria.\n\n###" in offering.bench.ok("claude_control.py", "report").out
        )
        offering.bench.ok("claude_control.py", "report", "--output", str(tmp_path / "r.html"))
        assert "<p>Its spec has no criteria.</p>" in (tmp_path / "r.html").read_text()

    def test_both_monitors_have_the_share_that_holds(self, judged: OfferingTeam, tmp_path: Path) -> None:
        counts = {"total": 4, "hold": 2, "by_hand": 1, "fail": ["C2"], "open": ["C4"]}
        door = "multi_project_monitor.py"
        head, line, *_ = judged.bench.ok(door).out.splitlines()
        assert line[: len(head.partition(" waiting")[0])].endswith("  2/4"), "in the column of that name"
        (found,) = judged.bench.ok(door, "--json").json["projects"]
        assert found["criteria"] == counts
        judged.bench.ok(door, "--export", "figures.csv", cwd=tmp_path)
        (row,) = csv.DictReader((tmp_path / "figures.csv").open(newline="", encoding="utf-8"))
        assert (row["criteria"], row["criteria_hold"]) == ("4", "2")
        snapshots = status.snapshot(judged.db, now=host.now_ms())
        assert "criteria 2/4   running" in drawn(monitor.picture(0, snapshots, is_running=True))
        seen = overview.look(judged.db, now=host.now_ms())
        assert re.search(r"criteria +waiting.*\n.* 0/4 +2/4 +\d", drawn(projects.picture(seen, 110)))

    def test_a_team_without_criteria_has_no_share(self, offering: OfferingTeam) -> None:
        assert not re.search(r"\d/0", offering.bench.ok("multi_project_monitor.py").out)
        snapshots = status.snapshot(offering.db, now=host.now_ms())
        assert "criteria" not in drawn(monitor.picture(0, snapshots, is_running=True))

    def test_the_notice_of_the_end_has_the_evidence(self, offering: OfferingTeam) -> None:
        given(offering, ("A page", HAS_PAGE), ("It is fun", None))
        close(offering, "C2", is_person=False)
        head = offering.commit("orchestrator", page_txt="x\n")
        offering.complete()
        judge(offering)
        (notice,) = offering.notices()
        assert notice["kind"] == "completed"
        outcome, counts, *lines = notice["body"].replace("\n\n", "\n").splitlines()
        assert outcome.startswith("All is done (commit ")
        assert counts == "criteria 2 of 2 hold, 1 closed by hand"
        assert lines[0] == "C1 A page" and lines[1].startswith(f"    holds: `{HAS_PAGE}` left with 0 after ")
        assert f" at {head[:12]}, " in lines[1]
        assert lines[2] == "C2 It is fun" and lines[3].startswith("    closed by hand: by orchestrator at ")

    def test_the_notice_of_a_failure_has_what_failed_and_one_without_criteria_only_its_outcome(
        self, judged: OfferingTeam
    ) -> None:
        move = orchestrations.set_status
        move(judged.db, judged.id, OrchestrationStatus.NEEDS_ATTENTION, now=1, outcome="Look")
        move(judged.db, judged.id, OrchestrationStatus.FAILED, now=2, outcome="No way")
        attention, failed = judged.notices()
        assert attention["body"] == "Look"
        assert (
            failed["body"].startswith("No way\n\ncriteria 2 of 4 hold") and "    fails: `test -e map" in failed["body"]
        )

    def test_a_spec_says_nothing_to_the_terminal(self, still_team: StillTeam) -> None:
        given(still_team, ("A \x1b]0;mine\x07page", "make \x1b]0;mine\x07red"))
        shown = [still_team.control("criteria").out, still_team.control("report").out]
        words = ("criteria", "close", "C1", "--reason", "Seen")
        shown.append(still_team.control(*words, role="orchestrator").err)
        assert all("make red" in text and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) for text in shown)


def drawn(picture: RenderableType) -> str:
    """A picture as a terminal of 110 columns shows it."""
    console = Console(width=110, file=io.StringIO())
    with console.capture() as shown:
        console.print(picture)
    return shown.get()
