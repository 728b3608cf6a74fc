"""The merge hub, with real repositories and real checks: what waits is merged, checked, and goes on or back."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lib import daemon, errands, host, orchestrations
from lib.config import Settings
from lib.errands import Errands
from lib.errors import Busy, OrchestratorError
from lib.merging import candidates, integrations, scratch
from lib.models import CandidateStatus, OrchestrationStatus
from tests.conftest import Bench, commit_all, snapshot
from tests.integration.offering_team import OfferingTeam, make, offering

__all__ = ["offering"]

#: A check that is red while a file of this name is there.
NO_RED_FILES = "check: sh -c 'echo checked; test ! -e red.txt && test ! -e red2.txt'\n"
PERSON = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


class TestMerging:
    def test_what_is_offered_becomes_the_integration(self, offering: OfferingTeam) -> None:
        head = offering.work("developer", a_txt="a\n").head
        offering.merge()
        assert offering.git("rev-parse", offering.integration) == head
        assert offering.states() == {"developer": "merged"}

    def test_what_waits_is_merged_together_and_checked_once(self, offering: OfferingTeam, tmp_path: Path) -> None:
        offering.settings(f"check: sh -c 'echo checked >> {tmp_path}/log'\n")
        for role in ("developer", "tester", "testrunner"):
            offering.work(role, **{f"{role}_txt": "x\n"})
        offering.merge()
        assert offering.files() == {"spec.md", "developer.txt", "tester.txt", "testrunner.txt"}
        assert (tmp_path / "log").read_text() == "checked\n"
        subjects = offering.git("log", "--format=%an: %s", "--merges", offering.integration).splitlines()
        assert [line.rpartition(" (")[0] for line in subjects] == [
            "Tmux Orchestrator: Merge the work of testrunner",
            "Tmux Orchestrator: Merge the work of tester",
        ]

    def test_the_users_checkout_does_not_notice(self, offering: OfferingTeam) -> None:
        def checkout() -> dict[Path, tuple[int, int, int, bytes]]:
            return {path: about for path, about in snapshot(offering.project).items() if ".git" not in path.parts}

        before, main, index = checkout(), offering.git("rev-parse", "main"), offering.project / ".git" / "index"
        index_before = index.read_bytes()
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert (checkout(), index.read_bytes()) == (before, index_before)
        assert offering.git("rev-parse", "main") == main
        assert str(offering.bench.home) not in offering.git("worktree", "list")
        assert not scratch.place(offering.bench.home, offering.id).exists()

    def test_a_newer_commit_takes_the_place_of_one_that_waits(self, offering: OfferingTeam) -> None:
        first = offering.work("developer", a_txt="1\n")
        second = offering.work("developer", a_txt="2\n")
        assert candidates.get(offering.db, first.id).status is CandidateStatus.SUPERSEDED
        offering.merge()
        assert candidates.get(offering.db, second.id).status is CandidateStatus.MERGED
        assert offering.merged("a.txt") == "2"

    @pytest.mark.parametrize("is_merged", [False, True])
    def test_the_same_commit_is_not_offered_twice(self, offering: OfferingTeam, is_merged: bool) -> None:
        first = offering.work("developer", a_txt="1\n")
        if is_merged:
            offering.merge()
        assert offering.offer("developer").id == first.id

    def test_a_completion_report_offers_the_branch(self, offering: OfferingTeam) -> None:
        head = offering.commit("developer", a_txt="a\n")
        offering.complete("developer", "The file is there")
        (one,) = candidates.waiting(offering.db, offering.id)
        assert one.head == head

    def test_a_team_that_is_stopped_merges_nothing_more(self, offering: OfferingTeam) -> None:
        offering.work("developer", a_txt="a\n")
        orchestrations.set_status(offering.db, offering.id, OrchestrationStatus.STOPPED, now=2)
        offering.merge()
        assert offering.states() == {"developer": "withdrawn"}
        assert integrations.due(offering.db, now=3) == {}

    def test_hooks_of_the_user_do_not_run(self, offering: OfferingTeam) -> None:
        for name in ("post-checkout", "post-merge", "pre-merge-commit", "reference-transaction", "commit-msg"):
            hook = offering.project / ".git" / "hooks" / name
            hook.parent.mkdir(exist_ok=True)
            hook.write_text("#!/bin/sh\nexit 1\n")
        offering.work("developer", a_txt="a\n")
        offering.work("tester", b_txt="b\n")
        for hook in (offering.project / ".git" / "hooks").iterdir():
            hook.chmod(0o755)
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "merged"}

    def test_an_integration_that_somebody_has_checked_out_is_not_moved(
        self, offering: OfferingTeam, tmp_path: Path
    ) -> None:
        offering.work("developer", a_txt="a\n")
        offering.merge()
        offering.git("worktree", "add", "-q", str(tmp_path / "look"), offering.integration)
        before = offering.git("rev-parse", offering.integration)
        offering.work("tester", b_txt="b\n")
        with pytest.raises(Busy, match="is checked out in"):
            offering.merge()
        assert offering.git("rev-parse", offering.integration) == before
        offering.git("worktree", "remove", str(tmp_path / "look"))
        offering.merge()
        assert offering.states()["tester"] == "merged"

    def test_what_a_person_commits_to_the_integration_stays(self, offering: OfferingTeam) -> None:
        offering.work("developer", a_txt="a\n")
        offering.merge()
        tree, parent = offering.git("rev-parse", "main^{tree}"), offering.git("rev-parse", offering.integration)
        mine = offering.git(*PERSON, "commit-tree", "-m", "Mine", "-p", parent, tree)
        offering.git("update-ref", f"refs/heads/{offering.integration}", mine)
        offering.work("tester", b_txt="b\n")
        offering.merge()
        offering.git("merge-base", "--is-ancestor", mine, offering.integration)
        assert "b.txt" in offering.files()

    def test_an_integration_that_moves_during_the_check_is_not_set_back(self, offering: OfferingTeam) -> None:
        offering.work("developer", a_txt="a\n")
        offering.merge()
        script, once = offering.bench.folder / "check.sh", offering.bench.folder / "once"
        git = f"git -C {offering.project} {' '.join(PERSON)}"
        mine = f"$({git} commit-tree -p {offering.integration} -m Mine {offering.integration}^{{tree}})"
        move = f"{git} update-ref refs/heads/{offering.integration} {mine}"
        script.write_text(f"test -e {once} || {{ touch {once}; {move}; }}")
        offering.settings(f"check: sh {script}\n")
        offering.work("tester", b_txt="b\n")
        with pytest.raises(Busy, match="has moved meanwhile"):
            offering.merge()
        offering.merge()
        assert offering.states()["tester"] == "merged"
        assert "Mine" in offering.git("log", "--format=%s", offering.integration).splitlines()


class TestRed:
    def test_a_red_candidate_goes_back_with_what_it_printed(self, offering: OfferingTeam) -> None:
        offering.settings("check: sh -c 'echo one test failed; exit 3'\n")
        one = offering.work("developer", a_txt="a\n")
        offering.merge()
        found = candidates.get(offering.db, one.id)
        assert (found.status, found.log) == (CandidateStatus.RED, "one test failed")
        (text,) = offering.told("developer")
        assert "left with 3" in text and "one test failed" in text and one.head in text
        assert f"git merge {offering.integration}" in text and "sync_coordinator.py merge" in text
        assert offering.git("rev-parse", offering.integration) == offering.git("rev-parse", "main")

    def test_a_new_commit_is_a_new_try(self, offering: OfferingTeam) -> None:
        offering.settings(NO_RED_FILES)
        offering.work("developer", red_txt="x\n")
        offering.merge()
        (offering.worktree("developer") / "red.txt").unlink()
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert (offering.states(), offering.files()) == ({"developer": "merged"}, {"spec.md", "a.txt"})

    @pytest.mark.parametrize("culprits", [("developer",), ("tester",), ("testrunner",), ("developer", "testrunner")])
    def test_only_the_culprits_of_a_red_batch_go_back(self, offering: OfferingTeam, culprits: tuple[str, ...]) -> None:
        offering.settings(NO_RED_FILES)
        for role, name in (("developer", "red_txt"), ("tester", "red2_txt"), ("testrunner", "red_txt")):
            offering.work(role, **({name: "x\n"} if role in culprits else {f"{role}_txt": "x\n"}))
        offering.merge()
        expected = {role: "red" if role in culprits else "merged" for role in ("developer", "tester", "testrunner")}
        assert offering.states() == expected
        assert [role for role in expected if offering.told(role)] == list(culprits)

    def test_two_that_are_red_only_together_lose_the_later_one(self, offering: OfferingTeam) -> None:
        offering.settings("check: sh -c '! test -e a.txt || ! test -e b.txt'\n")
        offering.work("developer", a_txt="a\n")
        offering.work("tester", b_txt="b\n")
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "red"}

    def test_a_check_that_takes_too_long_is_ended_and_red(self, offering: OfferingTeam) -> None:
        offering.settings("check: sh -c 'echo begun; sleep 1000 & wait'\ncheck_timeout_seconds: 0.3\n")
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert "left with 124" in offering.told("developer")[0]

    def test_a_check_that_writes_into_the_checkout_leaves_nothing_behind(self, offering: OfferingTeam) -> None:
        offering.settings("check: sh -c 'echo x > spec.md; mkdir new; echo x > new/file; test ! -e red.txt'\n")
        offering.work("developer", red_txt="x\n")
        offering.work("tester", b_txt="b\n")
        offering.merge()
        assert offering.states() == {"developer": "red", "tester": "merged"}
        assert offering.files() == {"spec.md", "b.txt"}

    def test_setup_commands_come_before_the_check(self, offering: OfferingTeam) -> None:
        offering.settings("setup: [touch ready]\ncheck: test -e ready\n")
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert offering.states() == {"developer": "merged"}

    @pytest.mark.parametrize(
        ("test", "status"),
        [
            # Green before, and red by this work.
            ("test ! -e red.txt", "red"),
            # Red before as well, such as for a library that is missing: a guess of ours blocks nobody.
            ("false", "merged"),
        ],
    )
    def test_a_command_that_was_only_detected_judges_what_it_can(
        self, offering: OfferingTeam, test: str, status: str
    ) -> None:
        (offering.project / "Makefile").write_text(f"test:\n\t{test}\n")
        commit_all(offering.project, "Tests")
        start = offering.git("rev-parse", "main")
        offering.db.execute("UPDATE orchestrations SET starting_commit = ?", (start,))
        offering.git("merge", "-q", "main", at=offering.worktree("developer"))
        one = offering.work("developer", red_txt="x\n")
        offering.merge()
        assert offering.states() == {"developer": status}
        assert "`make test` left with 2" in (candidates.get(offering.db, one.id).reason or "")

    def test_without_a_check_it_is_said(self, offering: OfferingTeam) -> None:
        one = offering.work("developer", a_txt="a\n")
        offering.merge()
        assert "no tests were found" in (candidates.get(offering.db, one.id).reason or "")


class TestConflicts:
    def test_a_conflict_goes_back_with_files_authors_and_what_to_type(self, offering: OfferingTeam) -> None:
        base = offering.git("rev-parse", "main")
        first = offering.work("developer", spec_md="by the developer\n", z_txt="z\n")
        offering.merge()
        second = offering.work("tester", spec_md="by the tester\n", a_txt="a\n")
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "conflict"}
        (text,) = offering.told("tester")
        assert f"- spec.md: by you, and by developer in {first.head[:12]}" in text
        assert base in text and second.head in text and f"git merge {offering.integration}" in text
        assert not offering.told("developer")

    def test_what_has_no_commit_in_common_goes_back_with_what_joins_it(self, offering: OfferingTeam) -> None:
        worktree = offering.worktree("developer")
        offering.git(*PERSON, "commit", "-q", "--amend", "-m", "Another start", at=worktree)  # of the first commit
        offering.work("developer", a_txt="a\n")
        offering.merge()
        offering.work("developer", b_txt="b\n")
        offering.merge()
        assert offering.states() == {"developer": "conflict"}
        (notice,) = offering.notices()
        assert f"next: git -C {worktree} merge --allow-unrelated-histories {offering.integration}" in notice["body"]
        *_, text = offering.told("developer")
        (line,) = [line for line in text.splitlines() if "--allow-unrelated-histories" in line]
        offering.git(*PERSON, *line.split("`")[1].split()[1:], "--no-edit", at=worktree)
        offering.work("developer", c_txt="c\n")
        offering.merge()
        assert offering.states() == {"developer": "merged"}
        assert (offering.merged("a.txt"), offering.merged("c.txt")) == ("a", "c")

    def test_a_conflict_that_its_author_resolves_is_merged(self, offering: OfferingTeam) -> None:
        offering.work("developer", spec_md="by the developer\n")
        offering.merge()
        offering.work("tester", spec_md="by the tester\n")
        offering.merge()
        worktree = offering.worktree("tester")
        with pytest.raises(subprocess.CalledProcessError):
            offering.git(*PERSON, "merge", offering.integration, at=worktree)
        assert offering.git("diff", "--name-only", "--diff-filter=U", at=worktree) == "spec.md"
        offering.work("tester", spec_md="by both\n")
        offering.merge()
        assert offering.states()["tester"] == "merged"
        assert offering.merged("spec.md") == "by both"
        assert candidates.get(offering.db, 1).tries == 0

    def test_the_second_try_that_fails_needs_a_person(self, offering: OfferingTeam) -> None:
        offering.work("developer", spec_md="by the developer\n")
        offering.merge()
        for text in ("by the tester\n", "by the tester again\n"):
            assert offering.status() == "running"
            offering.work("tester", spec_md=text)
            offering.merge()
        assert offering.status() == "needs_attention"
        (notice,) = offering.notices()
        assert notice["kind"] == "needs_attention"
        assert "tester's work could not be merged 2 times" in notice["body"]

    def test_two_that_wait_and_are_in_conflict_with_each_other(self, offering: OfferingTeam) -> None:
        offering.work("developer", spec_md="by the developer\n")
        offering.work("tester", spec_md="by the tester\n")
        offering.work("testrunner", c_txt="c\n")
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "conflict", "testrunner": "merged"}

    def test_a_conflict_with_one_that_is_red_is_none(self, offering: OfferingTeam) -> None:
        offering.settings(NO_RED_FILES)
        offering.work("developer", spec_md="by the developer\n", red_txt="x\n")
        offering.work("tester", spec_md="by the tester\n")
        offering.merge()
        assert offering.states() == {"developer": "red", "tester": "merged"}


class TestTrouble:
    def test_what_keeps_the_hub_from_working_is_told_once_and_in_the_end_to_a_person(
        self, offering: OfferingTeam
    ) -> None:
        offering.work("developer", a_txt="a\n")
        offering.settings("check: 7\n")
        for _ in range(integrations.MOST_FAILURES):
            with pytest.raises(OrchestratorError, match="check must be text"):
                offering.merge()
        assert (offering.events("merging.failed"), offering.notices()) == (1, [])
        assert "is not merged now:" in offering.bench.ok("claude_control.py", "status").out
        offering.merge()
        assert offering.status() == "needs_attention"
        assert "check must be text" in offering.notices()[0]["body"]
        assert integrations.due(offering.db, now=2**60) == {}

    @pytest.mark.parametrize("left", ["all of it", "only what git knows", "a folder that git does not know"])
    def test_what_a_crash_has_left_of_a_scratch_worktree_is_no_hindrance(
        self, offering: OfferingTeam, left: str
    ) -> None:
        place = scratch.place(offering.bench.home, offering.id)
        if left == "a folder that git does not know":
            place.mkdir(parents=True)
            (place / "file.txt").write_text("x\n")
        else:
            offering.git("worktree", "add", "-q", "--detach", str(place))
            offering.git("worktree", "lock", str(place))
        if left == "only what git knows":
            shutil.rmtree(place)
        offering.work("developer", a_txt="a\n")
        offering.merge()
        assert offering.states() == {"developer": "merged"}
        assert str(place) not in offering.git("worktree", "list")

    def test_a_new_offer_lets_it_begin_anew(self, offering: OfferingTeam) -> None:
        offering.work("developer", a_txt="a\n")
        offering.settings("check: 7\n")
        with pytest.raises(OrchestratorError):
            offering.merge()
        begun = host.now_ms()
        assert integrations.due(offering.db, now=begun)[offering.id] > begun
        offering.settings("")
        offering.work("tester", b_txt="b\n")
        assert integrations.due(offering.db, now=begun)[offering.id] <= host.now_ms()
        offering.merge()
        assert offering.states() == {"developer": "merged", "tester": "merged"}
        assert offering.state().trouble is None

    def test_two_hubs_do_not_work_for_one_team(self, offering: OfferingTeam) -> None:
        with errands.working(offering.bench.home, integrations.errand(offering.id)), pytest.raises(Busy):
            offering.merge()


@dataclass
class Sent(Errands):
    """Errands that are only noted."""

    noted: list[tuple[str, ...]] = field(default_factory=list)

    def start(self, name: str, door: str, *arguments: str) -> bool:
        self.noted.append((name, door, *arguments))
        return True


def test_a_beat_sends_the_errand_when_it_is_due(offering: OfferingTeam) -> None:
    def beat(now: int) -> tuple[list[tuple[str, ...]], list[int]]:
        sent = Sent(offering.bench.home)
        life = daemon.Life(Settings(), sent)
        made = daemon.Beat(offering.db, offering.bench.tmux, offering.bench.home, now, life)
        daemon.merge_candidates(made)
        return sent.noted, made.dues

    assert beat(host.now_ms()) == ([], [])
    offering.work("developer", a_txt="a\n")
    words = (f"merge-{offering.id}", "sync_coordinator.py", "merge-run", offering.id, "--quiet")
    assert beat(host.now_ms()) == ([words], [])
    # It has begun, and was killed.
    begun = host.now_ms()
    integrations.begin(offering.db, offering.id, now=begun)
    due = begun + 1000 * integrations.PAUSE_SECONDS[0]
    assert beat(begun) == ([], [due])
    assert beat(due) == ([words], [])
    # The clock is set back by a day.
    assert beat(begun - 86_400_000) == ([words], [])


#: Of one run: a merge that is green, a conflict, and a red one.
MIXED = {"developer": "merged", "tester": "conflict", "testrunner": "red"}


def test_killed_before_any_of_its_steps_it_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    number, code, made = 0, -9, 0
    while code:
        number += 1 if is_long else 14
        team, made = make(bench, f"webapp{number}"), made + 1
        team.settings(NO_RED_FILES)
        team.work("developer", spec_md="by the developer\n")
        team.work("tester", spec_md="by the tester\n")
        team.work("testrunner", red_txt="x\n")
        code = team.killed(number)
        assert code in (0, -9)
        if code:
            team.merge()
        assert team.states() == MIXED, number
        assert team.files() == {"spec.md"}
        assert team.merged("spec.md") == "by the developer"
        assert {role: len(team.told(role)) for role in MIXED} == {"developer": 0, "tester": 1, "testrunner": 1}
        for status in set(MIXED.values()):
            assert team.events(f"candidate.{status}") == made, "told once"
        assert not scratch.place(bench.home, team.id).exists()
        assert team.state().failures == 0
        team.db.close()
    assert number > 50
