"""Preparing a worktree: what comes along, what runs once, and what only one agent of all has."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lib import orchestrations, preparing
from lib.config import ProjectSettings
from lib.errors import OrchestratorError, Usage
from tests.conftest import Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

THREE = ("--roles", "orchestrator,developer,tester", "--agent", "rehearsal")


def prepare(team: StillTeam, role: str = "developer", **settings: tuple[str, ...]) -> dict[str, str]:
    found = orchestrations.get(team.db, team.id)
    return preparing.prepare(team.db, found, team.agent(role), ProjectSettings(**settings))  # type: ignore[arg-type]  # all are tuples


@pytest.fixture
def project(still_team: StillTeam) -> Path:
    path = orchestrations.get(still_team.db, still_team.id).project
    (path / ".gitignore").write_text(".env*\nlocal/\n*.log\n")
    return path


class TestWhatComesAlong:
    def test_ignored_files_that_are_named_do(self, still_team: StillTeam, project: Path) -> None:
        (project / ".worktreeinclude").write_text("# settings\n.env*\nlocal/*\n!local/secret.txt\n")
        (project / "local" / "deep").mkdir(parents=True)
        for name in (".env", ".env.test", "local/deep/ü x.txt", "local/secret.txt", "noise.log"):
            (project / name).write_text(name)
        (project / ".env").chmod(0o600)
        (project / ".env.link").symlink_to(".env")
        prepare(still_team)
        worktree = still_team.agent("developer").worktree
        found = {str(path.relative_to(worktree)) for path in worktree.rglob("*") if path.is_file()}
        assert found - {".git", "spec.md"} == {".env", ".env.link", ".env.test", "local/deep/ü x.txt"}
        assert (worktree / ".env").stat().st_mode & 0o777 == 0o600
        assert (worktree / ".env.link").readlink() == Path(".env")

    def test_what_git_does_not_ignore_stays_out_of_the_agents_next_commit(
        self, still_team: StillTeam, project: Path
    ) -> None:
        (project / ".worktreeinclude").write_text("*.txt\n")
        (project / "plain.txt").write_text("x")
        found = orchestrations.get(still_team.db, still_team.id)
        worktree = still_team.agent("developer").worktree
        included = preparing.include(found.project, worktree)
        assert included.left_out == {"plain.txt": "git does not ignore it"}
        assert not (worktree / "plain.txt").exists()

    def test_nothing_is_overwritten(self, still_team: StillTeam, project: Path) -> None:
        (project / ".worktreeinclude").write_text(".env\n")
        (project / ".env").write_text("of the project")
        worktree = still_team.agent("developer").worktree
        (worktree / ".env").write_text("of the agent")
        prepare(still_team)
        assert (worktree / ".env").read_text() == "of the agent"

    def test_a_mountain_is_refused(self, still_team: StillTeam, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preparing, "MOST_BYTES", 10)
        (project / ".worktreeinclude").write_text(".env\n")
        (project / ".env").write_text("x" * 11)
        with pytest.raises(OrchestratorError, match="names more than"):
            prepare(still_team)

    def test_without_the_file_nothing_does(self, still_team: StillTeam, project: Path) -> None:
        (project / ".env").write_text("x")
        prepare(still_team)
        assert not (still_team.agent("developer").worktree / ".env").exists()


class TestSetup:
    def test_it_runs_once_in_each_worktree_after_the_files_have_come(
        self, still_team: StillTeam, project: Path
    ) -> None:
        (project / ".worktreeinclude").write_text(".env\n")
        (project / ".env").write_text("x")
        command = "sh -c 'cat .env >> done && pwd >> done'"
        for role in ("developer", "developer", "tester"):
            prepare(still_team, role, setup=(command,))
        for role in ("developer", "tester"):
            worktree = still_team.agent(role).worktree
            assert (worktree / "done").read_text() == f"x{worktree}\n"
        assert still_team.events("worktree.prepared") == 2

    def test_one_that_fails_says_so_with_its_last_words_and_is_tried_again(self, still_team: StillTeam) -> None:
        with pytest.raises(OrchestratorError) as error:
            prepare(still_team, setup=("true", "sh -c 'echo no such package; exit 3'"))
        assert "exit code 3" in error.value.sentence and "no such package" in error.value.sentence
        assert still_team.events("worktree.prepared") == 0
        prepare(still_team, setup=("touch done",))
        assert (still_team.agent("developer").worktree / "done").exists()

    def test_one_that_takes_too_long_is_ended(self, still_team: StillTeam) -> None:
        found, agent = orchestrations.get(still_team.db, still_team.id), still_team.agent("developer")
        settings = ProjectSettings(setup=("sleep 600",), setup_timeout_seconds=0.2)
        with pytest.raises(OrchestratorError, match="exit code 124"):
            preparing.prepare(still_team.db, found, agent, settings)

    def test_a_worktree_that_is_made_anew_is_prepared_anew(self, still_team: StillTeam) -> None:
        prepare(still_team, setup=("touch done",))
        (still_team.agent("developer").worktree / "done").unlink()
        preparing.forget(still_team.db, still_team.agent("developer"))
        prepare(still_team, setup=("touch done",))
        assert (still_team.agent("developer").worktree / "done").exists()


class TestLeases:
    def test_each_agent_has_a_port_and_a_database_of_its_own_and_keeps_them(self, still_team: StillTeam) -> None:
        wanted = ("port", "port:API_PORT", "database")
        first = prepare(still_team, "developer", lease=wanted)
        assert set(first) == {"PORT", "API_PORT", "DATABASE_NAME"}
        assert prepare(still_team, "developer", lease=wanted) == first
        second = prepare(still_team, "tester", lease=wanted)
        ports = [variables[name] for variables in (first, second) for name in ("PORT", "API_PORT")]
        assert len(set(ports)) == 4
        assert first["DATABASE_NAME"] == f"webapp_impl_developer_{still_team.id}" != second["DATABASE_NAME"]

    def test_a_port_that_somebody_listens_on_is_passed_over(self, still_team: StillTeam) -> None:
        with socket.socket() as one:
            for port in preparing.PORTS:
                try:
                    one.bind(("127.0.0.1", port))
                    break
                except OSError:
                    continue
            one.listen()
            assert int(prepare(still_team, lease=("port",))["PORT"]) != port

    def test_a_lease_ends_with_its_team(self, still_team: StillTeam) -> None:
        prepare(still_team, lease=("port", "database"))
        agent = still_team.agent("developer")
        still_team.end()
        preparing.lease(still_team.db, still_team.agent("tester"), ("port",))
        rows = still_team.bench.rows("SELECT * FROM leases WHERE agent_id = ?", agent.id)
        assert rows == []

    @pytest.mark.parametrize("wanted", ["ports", "port:", "port:1X", "port:A B", ""])
    def test_what_cannot_be_leased_is_named(self, wanted: str) -> None:
        with pytest.raises(Usage, match="lease"):
            preparing.check_leases((wanted,))


def test_an_agent_starts_in_a_prepared_worktree_with_its_variables(bench: Bench) -> None:
    project = bench.project()
    (project / ".tmux-orchestrator.yaml").write_text("lease: [port]\nsetup:\n  - sh -c 'echo $PORT > .git-port'\n")
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
    agents = bench.rows("SELECT * FROM agents ORDER BY window")
    ports = [Path(agent["worktree"], ".git-port").read_text().strip() for agent in agents]
    assert len(set(ports)) == 3
    for agent, port in zip(agents, ports, strict=True):
        environment = Path(f"/proc/{agent['pid']}/environ").read_bytes().split(b"\0")
        assert f"PORT={port}".encode() in environment


def test_a_setup_that_fails_stops_the_launch_and_resuming_goes_on(bench: Bench) -> None:
    project = bench.project()
    settings = project / ".tmux-orchestrator.yaml"
    settings.write_text("setup: [sh -c 'echo not yet; exit 1']\n")
    done = bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
    assert done.code == 1 and "not yet" in done.err and "--resume" in done.err
    settings.write_text("setup: ['true']\n")
    bench.ok("auto_orchestrate.py", "--project", str(project), "--resume")
    wait_for(lambda: len(bench.rows("SELECT 1 FROM preparations")) == 3, "all worktrees to be prepared")


def test_a_message_to_one_that_is_yet_to_start_waits_and_comes_after_its_briefing(bench: Bench) -> None:
    project = bench.project()
    settings = project / ".tmux-orchestrator.yaml"
    settings.write_text("setup: ['false']\n")
    assert bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE).code == 1
    done = bench.ok("send-claude-message.sh", "webapp-impl:developer", "Begin with the greeting")
    assert done.out.startswith("queued: developer has not started yet")
    settings.write_text("setup: ['true']\n")
    bench.ok("auto_orchestrate.py", "--project", str(project), "--resume")

    def arrived() -> list[str]:
        rows = bench.rows(
            "SELECT kind FROM messages JOIN agents ON agents.id = agent_id WHERE role = 'developer'"
            " AND status = 'acknowledged' ORDER BY acknowledged_at, messages.id"
        )
        return [row["kind"] for row in rows]

    wait_for(lambda: "message" in arrived(), "the message")
    assert arrived()[:2] == ["briefing", "message"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lease: [door]", "'door'"),
        ("setups: []", "setups"),
        ("setup_timeout_seconds: -1", "above 0"),
        ("setup: [", "not valid YAML"),
    ],
)
def test_settings_of_a_project_that_are_wrong_stop_a_launch_before_it_begins(
    bench: Bench, text: str, says: str
) -> None:
    project = bench.project()
    (project / ".tmux-orchestrator.yaml").write_text(text)
    done = bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), *THREE)
    assert done.code in (1, 2) and says in done.err
    assert not (bench.folder / "webapp-tmux-worktrees").exists()
