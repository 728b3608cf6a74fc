"""Delivery, with real repositories: the starting branch has the work, or nothing was changed and it is said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lib import host, orchestrations
from lib.git import merges
from lib.merging import delivering, integrations, scratch
from lib.models import GitMode, OrchestrationStatus
from tests.conftest import Bench, commit_all
from tests.integration.offering_team import OfferingTeam, make, offering

__all__ = ["offering"]


def done(team: OfferingTeam) -> None:
    """A team whose work is complete: two roles have offered, and the Orchestrator has reported."""
    team.work("developer", a_txt="a\n")
    team.commit("orchestrator", b_txt="b\n")
    team.complete()


def kept_back(team: OfferingTeam) -> str:
    """Why nothing was delivered, as a person hears it in status and in a notice."""
    state = team.state()
    assert (state.delivery, state.tag) == ("kept_back", None)
    body: str = team.notices()[-1]["body"]
    assert body == state.outcome
    assert body.startswith("not delivered: ")
    return body


def today(team: OfferingTeam) -> str:
    """The tags of the project, without the day."""
    return " ".join(
        line[: len("stable-spec")] + line[len("stable-spec-2030-01-31") :] for line in team.git("tag").split()
    )


class TestDelivered:
    def test_onto_a_branch_that_is_checked_out_and_clean(self, offering: OfferingTeam) -> None:
        done(offering)
        offering.merge()
        assert offering.state().delivery == "delivered"
        assert offering.git("rev-parse", "main") == offering.git("rev-parse", offering.integration)
        assert (offering.project / "a.txt").read_text() == "a\n"
        assert offering.git("status", "--porcelain") == ""
        assert today(offering) == "stable-spec"
        assert offering.git("rev-parse", offering.git("tag")) == offering.git("rev-parse", "main")
        assert "delivered to main as" in (offering.state().outcome or "")

    def test_onto_a_branch_that_nobody_has_checked_out(self, offering: OfferingTeam) -> None:
        offering.git("checkout", "-q", "-b", "mine")
        (offering.project / "spec.md").write_text("I am at work here\n")
        done(offering)
        offering.merge()
        assert offering.git("rev-parse", "main") == offering.git("rev-parse", offering.integration)
        assert offering.git("rev-parse", "--abbrev-ref", "HEAD") == "mine"
        assert offering.git("status", "--porcelain") == "M spec.md"
        assert not (offering.project / "a.txt").exists()

    def test_into_another_checkout_that_has_it(self, offering: OfferingTeam, tmp_path: Path) -> None:
        offering.git("checkout", "-q", "-b", "mine")
        offering.git("worktree", "add", "-q", str(tmp_path / "other"), "main")
        done(offering)
        offering.merge()
        assert (tmp_path / "other" / "a.txt").exists()
        assert offering.git("status", "--porcelain", at=tmp_path / "other") == ""
        assert not (offering.project / "a.txt").exists()

    def test_onto_a_branch_that_has_moved_by_a_clean_merge(self, offering: OfferingTeam) -> None:
        (offering.project / "mine.txt").write_text("mine\n")
        commit_all(offering.project, "Mine")
        mine = offering.git("rev-parse", "main")
        done(offering)
        offering.merge()
        assert offering.files("main") == {"spec.md", "a.txt", "b.txt", "mine.txt"}
        assert offering.git("rev-parse", "main^1") == mine
        assert offering.git("rev-parse", "main^2") == offering.git("rev-parse", offering.integration)
        assert offering.git("status", "--porcelain") == ""

    @pytest.mark.parametrize("is_checked_out", [True, False])
    def test_onto_a_branch_that_moves_during_the_check(self, offering: OfferingTeam, is_checked_out: bool) -> None:
        (offering.project / "mine.txt").write_text("mine\n")
        commit_all(offering.project, "Mine")
        if not is_checked_out:
            offering.git("checkout", "-q", "-b", "other")
        script, once = offering.bench.folder / "check.sh", offering.bench.folder / "once"
        git = f"git -C {offering.project} -c user.name=Test -c user.email=test@localhost"
        more = f"$({git} commit-tree -p main -m More main^{{tree}})"
        # The first check of the merge with main finds itself overtaken.
        script.write_text(
            f"test ! -e mine.txt || test -e {once} || {{ touch {once}; {git} update-ref refs/heads/main {more}; }}"
        )
        offering.settings(f"check: sh {script}\n")
        done(offering)
        offering.merge()
        assert once.exists()
        assert offering.state().delivery == "delivered"
        assert "More" in offering.git("log", "--format=%s", "main").splitlines()
        assert offering.files("main") == {"spec.md", "a.txt", "b.txt", "mine.txt"}

    def test_beside_files_that_git_does_not_know(self, offering: OfferingTeam) -> None:
        (offering.project / "notes.txt").write_text("mine, and in no commit\n")
        done(offering)
        offering.merge()
        assert offering.state().delivery == "delivered"
        assert offering.git("status", "--porcelain") == "?? notes.txt"

    def test_a_tag_that_is_taken_stays_where_it_is(self, offering: OfferingTeam) -> None:
        start = offering.git("rev-parse", "main")
        now = host.now_ms()
        taken = delivering.ensure_tag(offering.project, "stable-spec", start, now=now)
        assert delivering.ensure_tag(offering.project, "stable-spec", start, now=now) == taken
        done(offering)
        offering.merge()
        assert offering.git("rev-parse", taken) == start
        assert today(offering) == "stable-spec stable-spec-2"

    def test_what_was_never_offered_is_named_and_not_in_it(self, offering: OfferingTeam) -> None:
        offering.commit("tester", c_txt="c\n")
        done(offering)
        offering.merge()
        assert "tester (1 commit on " in (offering.state().outcome or "")
        assert "c.txt" not in offering.files("main")

    @pytest.mark.parametrize("is_delivered", [True, False])
    def test_the_integration_branch_goes_with_what_is_cleared_away(
        self, offering: OfferingTeam, is_delivered: bool
    ) -> None:
        if not is_delivered:
            changed_files(offering)
        done(offering)
        offering.merge()
        offering.bench.ok("sync_coordinator.py", "clean", "webapp-impl", "--yes")
        branches = offering.git("branch", "--list", "--format=%(refname:short)", "orchestration/*").split()
        assert branches == ([] if is_delivered else [offering.integration])

    def test_it_is_done_once(self, offering: OfferingTeam) -> None:
        done(offering)
        offering.merge()
        offering.merge()
        assert (offering.events("integration.delivered"), today(offering)) == (1, "stable-spec")
        assert integrations.due(offering.db, now=host.now_ms()) == {}


def changed_files(team: OfferingTeam) -> None:
    (team.project / "spec.md").write_text("I am at work here\n")


def staged_files(team: OfferingTeam) -> None:
    (team.project / "new.txt").write_text("mine\n")
    team.git("add", "new.txt")


def in_the_way(team: OfferingTeam) -> None:
    (team.project / "a.txt").write_text("mine, and in no commit\n")


def under_way(team: OfferingTeam) -> None:
    team.git("branch", "side")
    (team.project / "x.txt").write_text("main\n")
    commit_all(team.project, "main")
    team.git("checkout", "-q", "side")
    (team.project / "x.txt").write_text("side\n")
    commit_all(team.project, "side")
    team.git("checkout", "-q", "main")
    assert merges.merge(team.project, "side", message="x").outcome == "conflict"
    team.git("checkout", "--ours", "x.txt")
    team.git("add", "x.txt")


def gone(team: OfferingTeam) -> None:
    team.git("branch", "-m", "main", "trunk")


def in_conflict(team: OfferingTeam) -> None:
    (team.project / "a.txt").write_text("mine\n")
    commit_all(team.project, "Mine")


def begun_anew(team: OfferingTeam) -> None:
    team.git("-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-q", "--amend", "-m", "Another start")


def red_together(team: OfferingTeam) -> None:
    team.settings("check: sh -c '! test -e mine.txt || ! test -e a.txt'\n")
    (team.project / "mine.txt").write_text("mine\n")
    team.git("add", "mine.txt")
    subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@localhost", "commit", "-qm", "Mine"],
        cwd=team.project,
        check=True,
    )


def red(team: OfferingTeam) -> None:
    team.settings("check: sh -c 'echo 1 failed; exit 1'\n")


def detached(team: OfferingTeam) -> None:
    team.db.execute("UPDATE orchestrations SET starting_branch = NULL")


def twice(team: OfferingTeam) -> None:
    team.git("worktree", "add", "-q", "--force", str(team.project.parent / "other"), "main")


KEPT_BACK = [
    (changed_files, "has 1 uncommitted change on main", "git -C"),
    (staged_files, "has 1 uncommitted change on main", "git -C"),
    # git itself refuses: nothing that it does not know is overwritten.
    (in_the_way, "would be overwritten", "git -C"),
    (under_way, "a merge is under way in", "git -C"),
    (gone, "the starting branch main is gone", "git -C"),
    (in_conflict, "main has moved, and is in conflict with it in a.txt", "git -C"),
    (begun_anew, "main has moved, and has no commit in common with it", "merge --allow-unrelated-histories"),
    (red_together, "main has moved, and together they fail", "git -C"),
    # Whose work went back has nobody to mend it any more.
    (red, "work (", "sync_coordinator.py merge webapp-impl"),
    (detached, "the team started from a detached HEAD", "git -C"),
    (twice, "main is checked out in 2 places", "git -C"),
]


class TestKeptBack:
    @pytest.mark.parametrize(
        ("obstacle", "reason", "hint"), KEPT_BACK, ids=lambda value: getattr(value, "__name__", "")
    )
    def test_nothing_is_changed_and_a_person_is_told_what_to_type(
        self, offering: OfferingTeam, obstacle: object, reason: str, hint: str
    ) -> None:
        assert callable(obstacle)
        obstacle(offering)
        refs = offering.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags")
        status, head = offering.git("status", "--porcelain"), offering.git("rev-parse", "HEAD")
        done(offering)
        offering.merge()
        said = kept_back(offering)
        assert reason in said and hint in said
        assert "never offered" not in said
        assert refs == offering.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags")
        assert (offering.git("status", "--porcelain"), offering.git("rev-parse", "HEAD")) == (status, head)
        assert not scratch.place(offering.bench.home, offering.id).exists()
        assert offering.status() == "completed"

    def test_what_was_in_its_way_may_go_and_it_is_tried_again(self, offering: OfferingTeam) -> None:
        changed_files(offering)
        done(offering)
        offering.merge()
        kept_back(offering)
        offering.git("checkout", "-q", "spec.md")
        again = offering.bench.ok("sync_coordinator.py", "merge", "webapp-impl")
        assert "its delivery is tried again" in again.out
        offering.merge()
        assert offering.state().delivery == "delivered"

    def test_a_person_can_switch_it_off(self, offering: OfferingTeam) -> None:
        config = Path(offering.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("git:\n  deliver: false\n")
        start = offering.git("rev-parse", "main")
        done(offering)
        offering.merge()
        assert offering.state().outcome == (
            "not delivered: git.deliver is off; next: merge it yourself:"
            f" git -C {offering.project} merge {offering.integration}"
        )
        assert (offering.git("rev-parse", "main"), offering.files()) == (start, {"spec.md", "a.txt", "b.txt"})
        assert [notice["kind"] for notice in offering.notices()] == ["completed"]

    @pytest.mark.parametrize("status", [OrchestrationStatus.FAILED, OrchestrationStatus.STOPPED])
    def test_a_team_that_did_not_complete_delivers_nothing(
        self, offering: OfferingTeam, status: OrchestrationStatus
    ) -> None:
        start = offering.git("rev-parse", "main")
        offering.work("developer", a_txt="a\n")
        offering.merge()
        orchestrations.set_status(offering.db, offering.id, status, now=host.now_ms())
        offering.merge()
        assert (offering.git("rev-parse", "main"), offering.state().delivery) == (start, "not_yet")


@pytest.mark.parametrize("is_checked_out", [True, False])
def test_killed_before_any_of_its_steps_it_delivers_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_long: bool, is_checked_out: bool
) -> None:
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    number, code = 0, -9
    while code:
        number += 1 if is_long else 14
        team = make(bench, f"webapp{number}", git_mode=GitMode.LOCAL)
        (team.project / "mine.txt").write_text("mine\n")
        commit_all(team.project, "Mine")  # so that delivery is a merge
        if not is_checked_out:
            team.git("checkout", "-q", "-b", "mine")
        team.commit("orchestrator", b_txt="b\n")
        team.complete()
        code = team.killed(number)
        assert code in (0, -9)
        if code:
            team.merge()
        assert team.state().delivery == "delivered", number
        assert team.files("main") == {"spec.md", "mine.txt", "b.txt"}
        assert team.git("rev-list", "--count", "--merges", "main") == "1"
        assert team.git("status", "--porcelain") == ""
        assert today(team) == "stable-spec"
        assert team.git("rev-parse", team.git("tag")) == team.git("rev-parse", "main")
        delivered = bench.rows(
            "SELECT 1 FROM events WHERE kind = 'integration.delivered' AND orchestration_id = ?", team.id
        )
        assert len(delivered) == 1
        assert not scratch.place(bench.home, team.id).exists()
        team.db.close()
    assert number > 20
