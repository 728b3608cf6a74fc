"""What is new for an agent, with real git: its teammates' commits, messages, reports and checks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import agents, checkins, daemon, host, messages, news, orchestrations, planning, reports, store, templates
from lib.config import Settings
from lib.errors import OrchestratorError
from lib.git import worktrees as git
from lib.models import Agent, MessageKind, Program
from tests.agents import a_life, a_team
from tests.conftest import Bench, commit_all
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

MINUTE_MS = 60_000


@pytest.fixture
def new_for(still_team: StillTeam) -> Callable[[str], str]:
    """What is new for a role since the last time that this was asked, or since the start."""
    seen = {role: news.Looking(still_team.db).seen(still_team.agent(role)) for role in ("developer", "orchestrator")}

    def new_for(role: str) -> str:
        found = news.Looking(still_team.db)(still_team.agent(role), seen[role])
        seen[role] = found.seen
        return found.text

    return new_for


def project_of(team: StillTeam) -> Path:
    return orchestrations.get(team.db, team.id).project


def report(team: StillTeam, role: str, summary: str, check: str | None = None) -> None:
    agent = team.agent(role)
    reports.complete(team.db, agent, summary, caller=agent, sender=role, now=host.now_ms(), check=check)


def write(team: StillTeam, to: str, kind: MessageKind) -> None:
    messages.queue(team.db, team.agent(to), "something", sender="tester", kind=kind, now=host.now_ms())


def run(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class TestCommits:
    def test_those_of_others_are_news_once_and_own_ones_are_not(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        assert new_for("developer") == ""
        still_team.commit("developer")
        assert new_for("developer") == ""
        for name in ("a", "b", "c"):
            still_team.commit("tester", name)
        still_team.commit("orchestrator")
        assert new_for("developer") == "1 commit by orchestrator, 3 commits by tester"
        assert new_for("developer") == ""

    def test_those_on_the_starting_branch_are(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        project = project_of(still_team)
        (project / "by-a-person.txt").write_text("x")
        commit_all(project, "Change the plan")
        assert new_for("developer") == "1 commit on main"
        assert new_for("developer") == ""

    def test_those_on_a_branch_that_nobody_starts_from_are_not(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        project = project_of(still_team)
        run(project, "checkout", "-q", "-b", "main2")
        (project / "elsewhere.txt").write_text("x")
        commit_all(project, "Elsewhere")
        assert new_for("developer") == ""

    def test_a_branch_of_the_team_without_an_agent_is_named(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        folder = still_team.agent("developer").branch.rpartition("/")[0]
        head = run(project_of(still_team), "commit-tree", "-p", "main", "-m", "Merged", "main^{tree}")
        run(project_of(still_team), "branch", f"{folder}/integration", head)
        assert new_for("developer") == "1 commit on integration"

    def test_a_merge_of_what_one_has_made_oneself_is_no_news(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        still_team.commit("developer")
        run(still_team.agent("tester").worktree, "merge", "-q", "--ff-only", still_team.agent("developer").branch)
        assert new_for("developer") == ""
        assert new_for("orchestrator") == "1 commit by developer, 1 commit by tester"

    def test_a_merge_counts_as_one(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        for name in ("a", "b"):
            still_team.commit("developer", name)
        tester = still_team.agent("tester").worktree
        run(tester, "merge", "-q", "--no-ff", "-m", "Merge", still_team.agent("developer").branch)
        assert new_for("orchestrator") == "2 commits by developer, 1 commit by tester"
        assert new_for("developer") == "1 commit by tester"

    def test_what_one_has_merged_already_is_no_news(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        still_team.commit("tester")
        run(still_team.agent("developer").worktree, "merge", "-q", "--ff-only", still_team.agent("tester").branch)
        assert new_for("developer") == ""

    def test_a_branch_that_was_rewritten_is_news_even_when_the_old_one_is_gone_for_good(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        still_team.commit("tester")
        assert new_for("developer") == "1 commit by tester"
        tester = still_team.agent("tester").worktree
        run(tester, "commit", "-q", "--amend", "-m", "Rewritten")
        assert new_for("developer") == "1 commit by tester"
        run(tester, "commit", "-q", "--amend", "-m", "Again")
        run(tester, "reflog", "expire", "--expire=now", "--all")
        run(project_of(still_team), "gc", "-q", "--prune=now")
        assert new_for("developer") == "commits by tester"

    def test_a_branch_that_is_removed_is_no_news(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        still_team.commit("tester")
        assert new_for("developer") == "1 commit by tester"
        project = project_of(still_team)
        run(project, "worktree", "remove", "--force", str(still_team.agent("tester").worktree))
        run(project, "branch", "-D", still_team.agent("tester").branch)
        assert new_for("developer") == ""

    def test_a_team_from_a_detached_head_has_its_own_branches(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        still_team.db.execute("UPDATE orchestrations SET starting_branch = NULL")
        still_team.commit("tester")
        commit_all(project_of(still_team), "On main")
        assert new_for("developer") == "1 commit by tester"


class TestRows:
    @pytest.mark.parametrize("kind", [MessageKind.MESSAGE, MessageKind.COPY, MessageKind.NOTICE])
    def test_messages_are_news(self, still_team: StillTeam, new_for: Callable[[str], str], kind: MessageKind) -> None:
        write(still_team, "developer", kind)
        write(still_team, "developer", kind)
        write(still_team, "orchestrator", kind)
        assert new_for("developer") == "2 messages"
        assert new_for("developer") == ""

    @pytest.mark.parametrize("kind", [MessageKind.CHECK_IN, MessageKind.DIGEST, MessageKind.BRIEFING])
    def test_what_the_scheduler_makes_is_not(
        self, still_team: StillTeam, new_for: Callable[[str], str], kind: MessageKind
    ) -> None:
        write(still_team, "developer", kind)
        assert new_for("developer") == ""

    def test_reports_of_others_are_news_with_their_checks(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        still_team.commit("tester")
        still_team.commit("testrunner")
        assert new_for("orchestrator") == "1 commit by tester, 1 commit by testrunner"
        report(still_team, "tester", "Tests are there")
        report(still_team, "testrunner", "All is green", check="true")
        with pytest.raises(OrchestratorError, match="is not done"):
            report(still_team, "testrunner", "Greener", check="false")
        assert new_for("orchestrator") == "2 reports, 1 passed check, 1 failed check"
        assert new_for("orchestrator") == ""

    def test_own_reports_and_checks_are_not(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        still_team.commit("developer")
        with pytest.raises(OrchestratorError, match="is not done"):
            report(still_team, "developer", "It is there", check="false")
        report(still_team, "developer", "It is there", check="true")
        assert new_for("developer") == ""

    def test_what_happens_in_another_team_is_not(self, still_team: StillTeam, new_for: Callable[[str], str]) -> None:
        (other,) = a_team(still_team.db, "developer", name="other")
        messages.queue(still_team.db, other, "hello", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        with store.writing(still_team.db):
            store.record(
                still_team.db, "report.check_failed", now=0, orchestration=other.orchestration_id, agent=other.id
            )
        assert new_for("developer") == ""


class TestLooking:
    def test_a_git_that_cannot_be_asked_is_told_and_nothing_is_lost(
        self, still_team: StillTeam, new_for: Callable[[str], str]
    ) -> None:
        still_team.commit("tester")
        assert new_for("developer") == "1 commit by tester"
        still_team.commit("tester", "more")
        write(still_team, "developer", MessageKind.MESSAGE)
        project = project_of(still_team)
        away = project.rename(project.with_name("away"))
        assert new_for("developer") == "the commits could not be looked at, 1 message"
        assert new_for("developer") == "the commits could not be looked at"
        away.rename(project)
        assert new_for("developer") == "1 commit by tester"

    def test_a_git_that_takes_too_long_could_not_look(
        self,
        still_team: StillTeam,
        new_for: Callable[[str], str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        slow = tmp_path / "slow"
        slow.mkdir()
        (slow / "git").write_text("#!/bin/sh\nexec sleep 100\n")
        (slow / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{slow}:{Path(shutil.which('sleep') or '').parent}")
        monkeypatch.setattr(news, "_GIT_SECONDS", 0.2)
        assert new_for("developer") == "the commits could not be looked at"

    def test_each_team_is_asked_once_in_a_round(self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Path] = []
        heads = git.heads

        def counted(project: Path, *names: str, seconds: float) -> dict[str, str]:
            asked.append(project)
            return heads(project, *names, seconds=seconds)

        monkeypatch.setattr(git, "heads", counted)
        looking = news.Looking(still_team.db)
        seen = {agent.id: looking.seen(agent) for agent in agents.of_orchestration(still_team.db, still_team.id)}
        for agent in agents.of_orchestration(still_team.db, still_team.id):
            assert looking(agent, seen[agent.id]).text == ""
        assert asked == [project_of(still_team)]

    def test_what_comes_while_somebody_looks_is_new_the_next_time(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looking = news.Looking(still_team.db)
        seen, count = looking.seen(still_team.agent("developer")), messages.count_since
        arrived: list[str] = []

        def late(*arguments: object, **named: object) -> int:
            found = count(*arguments, **named)  # type: ignore[arg-type]
            if not arrived:
                arrived.append("developer")
                write(still_team, "developer", MessageKind.MESSAGE)
            return found

        monkeypatch.setattr(messages, "count_since", late)
        first = looking(still_team.agent("developer"), seen)
        assert first.text == ""
        assert looking(still_team.agent("developer"), first.seen).text == "1 message"

    def test_for_a_guest_messages_are_all_that_is_new(self, still_team: StillTeam) -> None:
        db = still_team.db
        number = db.execute(
            "INSERT INTO agents (session, role, window, program, config_dir, worktree, conversation_id, pane_id)"
            " VALUES ('work', 'guest', 1, 'claude', '/nowhere', '/nowhere', 'x', '%99')"
        ).lastrowid
        guest = agents.get(db, int(number or 0))
        seen = news.Looking(db).seen(guest)
        still_team.commit("tester")
        assert news.Looking(db)(guest, seen).text == ""
        messages.queue(db, guest, "hello", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        assert news.Looking(db)(guest, seen).text == "1 message"

    def test_of_an_agent_that_nobody_has_looked_for_all_is_new(self, still_team: StillTeam) -> None:
        still_team.commit("tester")
        found = news.Looking(still_team.db)(still_team.agent("developer"), None)
        assert found.text == "1 commit by tester"
        assert set(json.loads(found.seen)) == {"heads", "message", "report", "event", "check"}


class TestTheDaemon:
    """A beat with a real repository and living processes."""

    def beat(self, team: StillTeam, now: int) -> None:
        daemon.tick(team.db, team.bench.tmux, team.bench.home, now=now, life=a_life(team.bench.home))

    def check_ins(self, team: StillTeam, agent: Agent) -> list[str]:
        rows = team.db.execute("SELECT body FROM messages WHERE agent_id = ? AND kind = 'check_in'", (agent.id,))
        return [row["body"] for row in rows]

    def test_a_check_in_that_wants_news_waits_for_them(self, still_team: StillTeam) -> None:
        db, agent, start = still_team.db, still_team.agent("developer"), host.now_ms()
        terms = checkins.Terms(if_changed=True, seen=news.Looking(db).seen(agent))
        checkins.add(db, agent.id, "Look", minutes=20, now=start, recurring=True, terms=terms)
        self.beat(still_team, start + 20 * MINUTE_MS)
        assert self.check_ins(still_team, agent) == []
        still_team.commit("tester")
        self.beat(still_team, start + 40 * MINUTE_MS)
        assert self.check_ins(still_team, agent) == ["Check-in: Look\n\nNew since the last one: 1 commit by tester"]
        skipped = store.events(db, kind="check_in.skipped")
        assert [event.data["reason"] for event in skipped] == ["nothing new"]


def test_a_role_can_want_news_from_the_start(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(templates.FOLDER, tmp_path / "templates")
    role = tmp_path / "templates" / "roles" / "tester.md"
    role.write_text(role.read_text().replace("check_in_minutes: 30", "check_in_minutes: 30\ncheck_in_if: changed"))
    monkeypatch.setattr(templates, "FOLDER", tmp_path / "templates")
    assert {name for name, one in templates.roles().items() if one.check_in_if_changed} == {"tester"}
    project, stage = bench.project(), planning.Stage(bench.home, bench.tmux, Settings())
    db = bench.db()
    decided = planning.decide(
        db,
        stage,
        project=project,
        spec_path=project / "spec.md",
        program=Program.REHEARSAL,
        now=host.now_ms(),
        roles=["orchestrator", "developer", "tester"],
    )
    planning.record(db, stage, decided)
    tester = agents.in_role(db, decided.orchestration.id, "tester")
    assert tester
    found = {one.target.partition(":")[2]: one for one in checkins.scheduled(db)}
    assert {name: one.if_changed for name, one in found.items()} == {
        "orchestrator": False,
        "developer": False,
        "tester": True,
    }
    # Before its branch and its worktree are there, it has seen where the work begins.
    assert news.Looking(db)(tester, found["tester"].seen).text == ""
    for new in decided.agents:
        git.ensure(project, new.worktree, new.branch, decided.orchestration.starting_commit)
    assert news.Looking(db)(tester, found["tester"].seen).text == ""
    commit_all(decided.agents[1].worktree, "Work")
    assert news.Looking(db)(tester, found["tester"].seen).text == "1 commit by developer"
    db.close()


def test_the_shipped_roles_are_told_whether_there_is_news_or_not() -> None:
    roles = templates.roles()
    assert not any(one.check_in_if_changed for one in roles.values()), "a check-in keeps an idle team going"
    minutes = {"orchestrator": 20, "project_manager": 25, "developer": 30, "tester": 30, "testrunner": 30}
    assert {name: roles[name].check_in_minutes for name in minutes} == minutes


def test_a_role_with_another_condition_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    path = tmp_path / "roles" / "tester.md"
    path.write_text("---\nsummary: Tests.\ncheck_in_minutes: 30\ncheck_in_if: always\n---\nYou test.\n")
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    with pytest.raises(OrchestratorError, match="check_in_if is changed or not there, not 'always'"):
        templates.roles()


def test_a_copy_of_the_hub_is_news_for_the_orchestrator(still_team: StillTeam, new_for: Callable[[str], str]) -> None:
    still_team.control("send", "webapp-impl:developer", "--hub", "--no-wait", "The deployment is done", role="tester")
    assert new_for("orchestrator") == "1 message"
    assert new_for("developer") == "1 message"
