"""Where worktrees stand: `sync_coordinator.py status` and sync_dashboard.py, once, live in a terminal, and as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import agents, host, orchestrations, safekeeping
from lib.errors import ExitCode
from lib.models import OrchestrationStatus
from lib.together import radar, sync_status
from lib.together.sync_status import Board, Looking, WorktreeStanding
from tests.agents import a_team
from tests.conftest import Bench, commit_all, snapshot, wait_for
from tests.integration.still_team import StillTeam, still_team
from tests.integration.watching import Watched, watched

__all__ = ["still_team", "watched"]

MINUTE = 60_000


def git(folder: Path, *words: str, check: bool = True) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Shop:
    """A team in every state that there is to see; the project has gone on by one commit."""

    still: StillTeam

    def board(self, looking: Looking | None = None) -> Board:
        found = orchestrations.live(self.still.db)
        return (looking or Looking()).board(self.still.db, found, now=host.now_ms())

    def of(self, role: str) -> WorktreeStanding:
        (team,) = self.board().teams
        return next(one for one in team.agents if one.role == role)

    def worktree(self, role: str) -> Path:
        return self.still.agent(role).worktree

    @property
    def project(self) -> Path:
        return orchestrations.get(self.still.db, self.still.id).project


@pytest.fixture
def shop(still_team: StillTeam) -> Shop:
    found = Shop(still_team)
    for role, text in (("developer", "developer\n"), ("tester", "tester\n")):
        (found.worktree(role) / "app.py").write_text(text)
    commit_all(found.worktree("developer"), "Add the app")
    (found.worktree("developer") / "draft.txt").write_text("draft\n")
    (found.project / "README").write_text("by the user\n")
    commit_all(found.project, "The project goes on")
    return found


def kill(still: StillTeam, *roles: str) -> None:
    for role in roles:
        process = still.agent(role).process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda process=process: not host.is_alive(process), f"the end of {role}")  # type: ignore[misc]


class TestALook:
    def test_tells_commits_and_uncommitted_files(self, shop: Shop) -> None:
        one = shop.of("developer")
        assert (one.ahead, one.behind, one.dirty, one.subject) == (1, 1, 1, "Add the app")
        assert one.is_alive and one.on == one.branch and one.problem is None
        assert one.head == git(shop.worktree("developer"), "rev-parse", "HEAD")
        assert one.committed_at == int(git(shop.worktree("developer"), "show", "-s", "--format=%ct")) * 1000
        assert (shop.of("tester").ahead, shop.of("tester").dirty) == (0, 1)

    def test_counts_against_the_starting_branch_as_it_is_now(self, shop: Shop) -> None:
        (team,) = shop.board().teams
        assert (team.starting_branch, team.starting_commit) == ("main", git(shop.project, "rev-parse", "main"))
        shop.still.db.execute("UPDATE orchestrations SET starting_branch = NULL")
        assert shop.of("developer").behind == 0

    def test_tells_of_overlaps_and_snapshots(self, shop: Shop) -> None:
        radar.sweep(shop.still.db, now=host.now_ms())
        taken = host.now_ms() - 5 * MINUTE
        safekeeping.take(shop.still.agent("tester"), why="a test", now=taken)
        one = shop.of("tester")
        assert [(mate.role, mate.files) for mate in one.overlaps] == [("developer", ("app.py",))]
        assert one.snapshot_at == taken // 1000 * 1000 and shop.of("developer").snapshot_at is None

    def test_tells_of_conflicts_under_way(self, shop: Shop) -> None:
        commit_all(shop.worktree("tester"), "Another app")
        git(shop.worktree("tester"), "merge", shop.still.agent("developer").branch, check=False)
        one = shop.of("tester")
        assert (one.under_way, one.conflicts) == ("merge", ("app.py",))

    @pytest.mark.parametrize(
        ("words", "shown"),
        [
            (("switch", "-q", "-c", "elsewhere"), "elsewhere"),
            (("switch", "-q", "--detach"), "detached"),
            ((), "tester"),
        ],
        ids=["other", "detached", "own"],
    )
    def test_names_what_is_checked_out(self, shop: Shop, words: tuple[str, ...], shown: str) -> None:
        if words:
            git(shop.worktree("tester"), *words)
        assert sync_status.short_branch(shop.of("tester")) == shown

    def test_goes_on_when_a_worktree_cannot_be_looked_at(self, shop: Shop) -> None:
        (shop.worktree("tester") / ".git").unlink()
        assert "is no worktree any more" in str(shop.of("tester").problem)
        assert shop.of("developer").ahead == 1

    def test_goes_on_when_a_project_cannot_be_asked(self, shop: Shop) -> None:
        a_team(shop.still.db, "orchestrator", "developer", name="elsewhere")
        board = {team.session: team for team in shop.board().teams}
        assert board["elsewhere-impl"].problem and "is gone" in str(board["elsewhere-impl"].agents[0].problem)
        assert board["webapp-impl"].problem is None and board["webapp-impl"].agents[1].ahead == 1

    def test_changes_nothing(self, shop: Shop) -> None:
        before = snapshot(shop.project, shop.worktree("tester").parent)
        shop.board()
        assert snapshot(shop.project, shop.worktree("tester").parent) == before

    def test_again_sees_what_is_new(self, shop: Shop) -> None:
        looking = Looking()
        shop.board(looking)
        commit_all(shop.worktree("tester"), "Caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}")
        commit_all(shop.project, "And on")
        (team,) = shop.board(looking).teams
        one = team.agents[2]
        assert (one.ahead, one.behind, one.dirty) == (1, 2, 0)
        assert one.subject == "Caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}"


class TestStatus:
    def test_is_a_table_of_a_hundred_columns(self, shop: Shop) -> None:
        radar.sweep(shop.still.db, now=host.now_ms())
        main = git(shop.project, "rev-parse", "main")
        lines = shop.still.bench.ok("sync_coordinator.py", "status").out.splitlines()
        assert lines[0] == "webapp-impl: running  Greeting" and lines[1].endswith(f"from main at {main[:7]}")
        assert max(map(len, lines[2:])) <= 100
        developer = next(line.split() for line in lines if line.startswith("  developer"))
        assert developer[:5] == ["developer", "developer", "1", "1", "1"] and developer[-3:] == ["Add", "the", "app"]
        assert "      overlaps with tester in app.py" in lines

    def test_has_all_of_it_as_json(self, shop: Shop) -> None:
        (team,) = shop.still.bench.ok("sync_coordinator.py", "status", "webapp-impl", "--json").json["teams"]
        developer = team["agents"][1]
        assert (team["session"], developer["role"], developer["ahead"], developer["dirty"]) == (
            *("webapp-impl", "developer"),
            *(1, 1),
        )

    def test_of_nobody_is_a_sentence(self, bench: Bench) -> None:
        assert bench.ok("sync_coordinator.py", "status").out.startswith("no team is running")
        assert bench.door("sync_coordinator.py", "status", "nobody-impl").code == ExitCode.NOT_FOUND

    def test_of_a_team_whose_agents_have_ended_is_a_sentence(self, shop: Shop) -> None:
        kill(shop.still, "orchestrator", "developer", "tester", "testrunner")
        out = shop.still.bench.ok("sync_coordinator.py", "status").out
        assert "no agent of it lives: auto_orchestrate.py --project " in out and "ahead" not in out

    def test_of_a_team_that_is_over_is_a_sentence(self, shop: Shop) -> None:
        kill(shop.still, "orchestrator", "developer", "tester", "testrunner")
        shop.still.end()
        out = shop.still.bench.ok("sync_coordinator.py", "status", "webapp-impl").out
        assert "it is stopped; its worktrees stay: sync_coordinator.py clean webapp-impl" in out

    def test_marks_an_agent_that_has_ended(self, shop: Shop) -> None:
        kill(shop.still, "tester")
        lines = shop.still.bench.ok("sync_coordinator.py", "status").out.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("  tester "))
        assert lines[place + 1] == "      has ended" and lines.count("      has ended") == 1


class TestOnce:
    def test_is_plain_when_nobody_sees_it(self, shop: Shop) -> None:
        bench = shop.still.bench
        out, same = bench.ok("sync_dashboard.py").out, bench.ok("sync_coordinator.py", "status").out
        assert re.sub(r"\d+ s", "", out) == re.sub(r"\d+ s", "", same)
        assert "\x1b" not in out

    def test_of_one_project(self, shop: Shop, tmp_path: Path) -> None:
        a_team(shop.still.db, "orchestrator", "developer", name="elsewhere")
        bench = shop.still.bench
        for place in (shop.project, shop.project / ".git" / ".."):
            out = bench.ok("sync_dashboard.py", "--once", "--project", str(place)).out
            assert "webapp-impl" in out and "elsewhere-impl" not in out
        assert bench.door("sync_dashboard.py", "--project", str(tmp_path / "none")).code == ExitCode.NOT_FOUND
        other = bench.project("other")
        assert bench.ok("sync_dashboard.py", "--project", str(other)).out.startswith(f"no team is running in {other}:")

    def test_exports_what_it_shows(self, shop: Shop, tmp_path: Path) -> None:
        bench = shop.still.bench
        done = bench.ok("sync_dashboard.py", "--once", "--json", "--export", "board.json", cwd=tmp_path)
        assert json.loads((tmp_path / "board.json").read_text()) == done.json
        assert [path.name for path in tmp_path.glob("*board.json*")] == ["board.json"]

    def test_leaves_an_export_as_it_was_when_it_cannot_write(self, shop: Shop, tmp_path: Path) -> None:
        place = tmp_path / "board.json"
        place.mkdir()
        done = shop.still.bench.door("sync_dashboard.py", "--once", "--export", str(place))
        assert done.code == ExitCode.FAILED and "board.json" in done.err
        assert place.is_dir() and not list(tmp_path.glob(".board*"))

    def test_refuses_to_look_all_the_time(self, bench: Bench) -> None:
        assert bench.door("sync_dashboard.py", "--refresh", "0").code == ExitCode.USAGE


class TestLive:
    @pytest.mark.parametrize("columns", [100, 140])
    def test_shows_every_worktree_in_its_columns(self, shop: Shop, watched: Watched, columns: int) -> None:
        radar.sweep(shop.still.db, now=host.now_ms())
        watched.start("sync_dashboard.py", "--refresh", "60", columns=columns)
        lines = watched.shows("Worktrees", "testrunner ", "overlaps with tester in app.py").splitlines()
        head = next(line for line in lines if line.split()[:2] == ["role", "branch"])
        assert head.split() == ["role", "branch", "ahead", "behind", "dirty", "conflicts", "last", "commit", "snapshot"]
        row = next(line for line in lines if line.startswith(" developer "))
        for column, value in (("branch", "developer"), ("conflicts", "overlap: 1")):
            assert row[head.index(column) :].startswith(value)
        for column, value in (("ahead", "1"), ("behind", "1"), ("dirty", "1")):
            assert row[: head.index(column) + len(column)].endswith(value)
        assert "Add the app" in row and max(map(len, lines)) <= columns
        assert " developer overlaps with tester in app.py" in lines
        assert sum("overlaps with" in line for line in lines) == 1, "once for the two"

    def test_goes_on_looking_and_exports_each_look(self, shop: Shop, watched: Watched) -> None:
        file = shop.still.bench.folder / "board.json"
        watched.start("sync_dashboard.py", "--refresh", "0.5", "--export", str(file), columns=100)
        watched.shows("Add the app")
        commit_all(shop.worktree("tester"), "Something new")
        watched.shows("Something new")
        shop.still.end()
        watched.shows("no team is running")
        wait_for(lambda: json.loads(file.read_text())["teams"] == [], "the export of it")

    def test_takes_another_size_at_once(self, shop: Shop, watched: Watched) -> None:
        watched.start("sync_dashboard.py", "--refresh", "600", columns=100)
        watched.shows("Add the app")
        commit_all(shop.worktree("tester"), "x")
        shop.still.bench.tmux.run("resize-window", "-t", "watch:watch", "-x", "140", "-y", "24")
        wait_for(lambda: max(map(len, shop.still.bench.screen("watch:watch").splitlines())) > 130, "the wide screen")

    def test_leaves_the_terminal_as_it_was(self, shop: Shop, watched: Watched) -> None:
        watched.start("sync_dashboard.py", columns=100)
        watched.shows("Add the app")
        shop.still.bench.tmux.run("send-keys", "-t", "watch:watch", "C-c")
        assert watched.shows("left with 0").split("\n")[0] == "left with 0"

    def test_once_has_colours(self, shop: Shop, watched: Watched) -> None:
        watched.start("sync_dashboard.py", "--once", columns=100)
        watched.shows("Add the app", "left with 0")
        assert "\x1b[" in shop.still.bench.tmux.run("capture-pane", "-p", "-e", "-t", "watch:watch")

    def test_says_when_nobody_looks_after_the_teams(self, shop: Shop, watched: Watched) -> None:
        watched.start("sync_dashboard.py", "--once", columns=100)
        watched.shows("the scheduler does not run: scheduler.py --daemon")


def test_a_paused_team_is_live_and_one_that_is_over_is_not(bench: Bench) -> None:
    db = bench.db()
    for name, status in (("paused", OrchestrationStatus.PAUSED), ("over", OrchestrationStatus.STOPPED)):
        agent = a_team(db, "orchestrator", name=name)[0]
        orchestrations.set_status(db, agents.get(db, agent.id).orchestration_id or "", status, now=1)
    sessions = [team["session"] for team in bench.ok("sync_dashboard.py", "--json").json["teams"]]
    assert sessions == ["paused-impl"]
