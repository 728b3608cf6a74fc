"""A role that waits for another hears of its completion once, whatever happens in between."""

from __future__ import annotations

import itertools

import pytest

from lib import dependencies, messages, reports, templates
from lib.errors import OrchestratorError
from lib.judgement import teams
from tests.conftest import SPEC, Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


def complete(team: StillTeam, role: str, summary: str = "Done") -> reports.Report:
    return reports.complete(team.db, team.agent(role), summary, caller=team.agent(role), sender=role, now=1)


class TestDepend:
    def test_the_one_that_waits_is_told_once(self, still_team: StillTeam) -> None:
        assert still_team.control("depend", "orchestrator", "--on", "tester").out == "orchestrator waits for tester\n"
        still_team.commit("tester")
        done = still_team.control("complete", "tester", 'Tests "pass"', role="tester")
        assert "told testrunner, orchestrator, who waited for it" in done.out
        ((sender, text),) = still_team.told("testrunner", "notice")
        assert sender == "tester"
        assert 'You waited for tester, which has reported completion: Tests "pass"' in text
        assert text.rstrip().endswith("You wait for nobody else.")
        # A second report is another report, and no second notice.
        still_team.commit("tester", "more.txt")
        assert complete(still_team, "tester", "More tests").notices == ()
        assert len(still_team.told("testrunner", "notice")) == len(still_team.told("orchestrator", "notice")) == 1
        assert still_team.events("dependency.resolved") == 2

    def test_each_of_several_is_told_of_and_the_rest_is_named(self, still_team: StillTeam) -> None:
        still_team.control("depend", "testrunner", "--on", "developer", "--on", "tester")
        for role in ("developer", "tester"):
            still_team.commit(role)
            complete(still_team, role)
        first, second = (text.rstrip() for _, text in still_team.told("testrunner", "notice"))
        assert first.endswith("You still wait for: tester.")
        assert second.endswith("You wait for nobody else.")

    def test_one_that_is_done_already_is_told_of_at_once(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        complete(still_team, "developer", "The login works")
        done = still_team.control("depend", "testrunner", "--on", "developer")
        assert done.out == "developer is done already; testrunner has been told\n"
        ((sender, text),) = still_team.told("testrunner", "notice")
        assert sender == "developer" and "The login works" in text
        # And not again.
        assert (
            still_team.control("depend", "testrunner", "--on", "developer").out == "testrunner was told of developer\n"
        )
        assert len(still_team.told("testrunner", "notice")) == 1

    def test_the_same_twice_is_one(self, still_team: StillTeam) -> None:
        for _ in range(2):
            assert still_team.control("depend", "orchestrator", "--on", "developer").code == 0
        assert still_team.events("dependency.added") == 1

    WRONG = (
        # A role that the team does not have, on either side.
        (("artist", "--on", "developer"), 3, "no role 'artist'"),
        (("tester", "--on", "artist"), 3, "no role 'artist'"),
        # Itself.
        (("tester", "--on", "tester"), 2, "cannot wait for itself"),
        # The end of everything.
        (("tester", "--on", "orchestrator"), 2, "its report ends the orchestration"),
        # Nobody.
        (("tester",), 2, "which role"),
        # A circle of two, and one of three.
        (("developer", "--on", "tester"), 1, "wait for each other: developer -> tester -> developer"),
        (("developer", "--on", "testrunner"), 1, "developer -> testrunner -> tester -> developer"),
    )

    @pytest.mark.parametrize(("words", "code", "sentence"), WRONG, ids=lambda value: str(value)[:40])
    def test_what_cannot_be(self, still_team: StillTeam, words: tuple[str, ...], code: int, sentence: str) -> None:
        before = dependencies.of_orchestration(still_team.db, still_team.id)
        done = still_team.control("depend", *words)
        assert (done.code, sentence in done.err) == (code, True), done.err
        assert dependencies.of_orchestration(still_team.db, still_team.id) == before

    def test_a_wait_that_is_over_closes_no_circle(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        complete(still_team, "developer")  # the tester no longer waits for it
        assert still_team.control("depend", "developer", "--on", "tester").code == 0

    def test_a_team_that_has_ended_waits_for_nobody(self, still_team: StillTeam) -> None:
        still_team.end()
        with pytest.raises(OrchestratorError, match="is over"):
            dependencies.add(still_team.db, still_team.id, "orchestrator", "tester", by="user", now=1)

    def test_the_status_tells_who_waits(self, still_team: StillTeam) -> None:
        assert "waits for developer" in still_team.control("status").out
        found = still_team.control("status", "--json").json["orchestrations"][0]["agents"]
        assert {one["role"]: one["waits_for"] for one in found} == {
            "orchestrator": [],
            "developer": [],
            "tester": ["developer"],
            "testrunner": ["tester"],
        }


class TestOnce:
    def test_report_and_notice_are_recorded_together_or_not_at_all(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The process dies when the notice was about to be written.
        still_team.commit("developer")
        queue = messages.queue

        def die_at_the_notice(*arguments: object, **named: object) -> object:
            if named["kind"] == "notice":
                raise KeyboardInterrupt
            return queue(*arguments, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(messages, "queue", die_at_the_notice)
            with pytest.raises(KeyboardInterrupt):
                complete(still_team, "developer")
        assert still_team.bench.rows("SELECT * FROM reports") == []
        assert still_team.told("orchestrator", "report") == []
        assert not any(one.resolved_at for one in dependencies.of_orchestration(still_team.db, still_team.id))
        assert len(complete(still_team, "developer").notices) == 1
        assert len(still_team.told("tester", "notice")) == len(still_team.told("orchestrator", "report")) == 1

    def test_the_store_itself_holds_one_notice_to_a_wait(self, still_team: StillTeam) -> None:
        still_team.commit("developer")
        (notice,) = complete(still_team, "developer").notices
        (found,) = (one for one in dependencies.of_orchestration(still_team.db, still_team.id) if one.resolved_at)
        assert (found.role, found.on_role, found.message_id) == ("tester", "developer", notice.id)


class TestTeams:
    KINDS = templates.team_types()

    @pytest.mark.parametrize("name", KINDS)
    def test_a_team_type_declares_roles_that_exist_and_no_circle(self, name: str) -> None:
        kind = self.KINDS[name]
        known = templates.roles()
        assert kind.depends, "every kind of work has an order"
        assert {*kind.depends, *itertools.chain(*kind.depends.values())} <= set(known)
        assert teams.ORCHESTRATOR not in itertools.chain(*kind.depends.values())
        left = dict(kind.depends)
        while free := [role for role, others in left.items() if not set(others) & set(left)]:
            for role in free:
                del left[role]
        assert left == {}

    CHOSEN: tuple[tuple[tuple[str, ...], set[tuple[str, str]]], ...] = (
        # Only roles of the team count.
        (("developer", "tester"), {("tester", "developer")}),
        (("tester", "testrunner"), {("testrunner", "tester")}),
        (("developer",), set()),
    )

    @pytest.mark.parametrize(("roles", "depends"), CHOSEN)
    def test_roles_that_are_not_in_the_team_are_not_waited_for(
        self, roles: tuple[str, ...], depends: set[tuple[str, str]]
    ) -> None:
        team = teams.choose(SPEC, known_roles=list(templates.roles()), types=self.KINDS, roles=roles)
        assert set(team.depends) == depends

    def test_a_small_team_waits_for_whom_it_has(self) -> None:
        team = teams.choose(
            SPEC, known_roles=list(templates.roles()), types=self.KINDS, team_type="web_application", size="small"
        )
        assert team.roles == ("orchestrator", "developer", "tester")
        assert team.depends == (("tester", "developer"),)

    def test_a_launched_team_waits_as_declared_and_is_told(self, bench: Bench) -> None:
        project = bench.project()
        bench.ok(
            *("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal"),
            *("--roles", "orchestrator,developer,tester"),
        )
        wait_for(
            lambda: bench.rows("SELECT 1 FROM dependencies WHERE resolved_at IS NOT NULL"), "the developer", seconds=60
        )
        (found,) = bench.rows(
            "SELECT dependencies.role, on_role, messages.kind, messages.sender, agents.role AS told FROM dependencies"
            " JOIN messages ON messages.id = message_id JOIN agents ON agents.id = agent_id"
        )
        assert found == {
            "role": "tester",
            "on_role": "developer",
            "kind": "notice",
            "sender": "developer",
            "told": "tester",
        }
