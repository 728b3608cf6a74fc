"""An authorization: who may answer, what happens when nobody does, and that everything is told once."""

from __future__ import annotations

import sqlite3

import pytest

from lib import authorizations, daemon, messages, store
from lib.authorizations import DEFAULT_MINUTES
from lib.models import Authorization, AuthorizationStatus
from tests.agents import a_life
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

MINUTE = 60_000
START = 1_700_000_000_000


def ask(team: StillTeam, requester: str, target: str, *, minutes: int = DEFAULT_MINUTES) -> Authorization:
    """A request at START of the virtual clock."""
    return authorizations.request(
        team.db, team.agent(requester), team.agent(target), "Restart the host", minutes=minutes, now=START
    )[0]


def at(team: StillTeam, minutes: float) -> Authorization:
    """One beat of the daemon so many minutes after START; the only request as it then is."""
    beat = daemon.tick(team.db, team.bench.tmux, team.bench.home, now=START + round(minutes * MINUTE))
    assert not beat.failed
    return authorizations.get(team.db, 1)


class TestAsking:
    def test_the_target_gets_the_id_and_the_command(self, still_team: StillTeam) -> None:
        done = still_team.control("request-authorization", "tester", 'Drop the "old" table', role="developer")
        assert done.code == 0, done.err
        ((sender, text),) = still_team.told("tester", "message")
        assert sender == "developer"
        assert 'developer asks for your authorization: Drop the "old" table' in text
        assert "claude_control.py authorize 1 yes\n" in text
        assert "within 30 minutes the orchestrator is asked" in text
        found = authorizations.get(still_team.db, 1)
        assert found.due_at - found.requested_at == 30 * MINUTE

    def test_asking_again_is_the_same_request(self, still_team: StillTeam) -> None:
        words = ("request-authorization", "webapp-impl:tester", "Drop it", "--timeout", "5", "--json")
        ids = [still_team.control(*words, role="developer").json["id"] for _ in range(2)]
        assert ids == [1, 1]
        assert len(still_team.told("tester", "message")) == 1
        assert still_team.control("authorize", "1", "no").code == 0
        # What was decided may be asked for again.
        assert still_team.control(*words, role="developer").json["id"] == 2

    WRONG = (
        # Nobody authorizes itself.
        ("developer", ("developer", "Drop it"), 2, "cannot authorize itself"),
        # Nothing to decide.
        ("developer", ("tester", "   "), 2, "say what"),
        ("developer", ("tester",), 2, "say what"),
        # A wrong unit.
        ("developer", ("tester", "Drop it", "--timeout", "100000"), 2, "MINUTES must be between"),
        # A person needs none.
        (None, ("webapp-impl:tester", "Drop it"), 2, "only an agent asks"),
        # A role that is not there.
        ("developer", ("artist", "Drop it"), 3, "no agent at 'artist'"),
    )

    @pytest.mark.parametrize(("role", "words", "code", "sentence"), WRONG)
    def test_what_cannot_be_asked(
        self, still_team: StillTeam, role: str | None, words: tuple[str, ...], code: int, sentence: str
    ) -> None:
        done = still_team.control("request-authorization", *words, role=role)
        assert (done.code, sentence in done.err) == (code, True), done.err
        assert still_team.bench.rows("SELECT * FROM authorizations") == []


class TestAnswering:
    WHO = (
        # The one that was asked, the orchestrator, a person.
        ("tester", "tester"),
        ("orchestrator", "orchestrator"),
        (None, "user"),
    )

    @pytest.mark.parametrize(("role", "name"), WHO)
    def test_who_may_answer_and_the_requester_hears_once(
        self, still_team: StillTeam, role: str | None, name: str
    ) -> None:
        ask(still_team, "developer", "tester")
        done = still_team.control("authorize", "1", "yes", "--reason", "it is quiet", role=role)
        assert done.out == "authorization 1 is granted; webapp-impl:developer is told\n"
        assert still_team.control("authorize", "1", "yes", role=role).code == 0  # the same again says nothing new
        ((sender, text),) = still_team.told("developer", "notice")
        assert sender == name
        assert text.startswith(f"Authorization 1 is granted by {name}. You asked for: Restart the host")
        assert text.rstrip().endswith("Reason: it is quiet")
        assert still_team.events("authorization.granted") == 1

    @pytest.mark.parametrize("role", ["developer", "testrunner"])
    def test_neither_the_requester_nor_another_may_answer(self, still_team: StillTeam, role: str) -> None:
        ask(still_team, "developer", "tester")
        done = still_team.control("authorize", "1", "yes", role=role)
        assert done.code == 1
        assert f"is for tester or the orchestrator to answer: this is webapp-impl:{role}" in done.err
        assert authorizations.get(still_team.db, 1).status is AuthorizationStatus.PENDING

    def test_the_orchestrator_does_not_answer_itself(self, still_team: StillTeam) -> None:
        ask(still_team, "orchestrator", "tester")
        assert still_team.control("authorize", "1", "yes", role="orchestrator").code == 1

    def test_what_is_decided_stays(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester")
        still_team.control("authorize", "1", "no", role="tester")
        done = still_team.control("authorize", "1", "yes", role="orchestrator")
        assert done.code == 1
        assert "authorization 1 is already refused by tester" in done.err
        assert len(still_team.told("developer", "notice")) == 1

    def test_an_answer_is_yes_or_no(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester")
        assert still_team.control("authorize", "1", "maybe").code == 2
        assert still_team.control("authorize", "2", "yes").code == 3
        assert still_team.control("authorize", str(2**70), "yes").code == 2


class TestTime:
    def test_nobody_answers(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester")
        assert authorizations.next_due(still_team.db) == START + 30 * MINUTE
        assert at(still_team, 29.9).status is AuthorizationStatus.PENDING
        for minutes in (30, 30.1, 59.9):
            assert at(still_team, minutes).status is AuthorizationStatus.ESCALATED
        ((sender, text),) = still_team.told("orchestrator", "message")
        assert sender == "developer"
        assert "tester has not answered within 30 minutes" in text
        assert "claude_control.py authorize 1 no" in text
        assert still_team.told("developer", "notice") == []
        assert authorizations.next_due(still_team.db) == START + 60 * MINUTE
        for minutes in (60, 61, 1000):
            assert at(still_team, minutes).status is AuthorizationStatus.EXPIRED
        ((sender, text),) = still_team.told("developer", "notice")
        assert sender == "scheduler"
        assert "Authorization 1 got no answer: treat it as refused" in text
        assert len(still_team.told("orchestrator", "message")) == 1
        assert authorizations.next_due(still_team.db) is None
        late = still_team.control("authorize", "1", "yes", role="tester")
        assert late.code == 1
        assert "is already expired" in late.err

    def test_the_target_may_still_answer_what_the_orchestrator_was_asked(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester", minutes=5)
        assert at(still_team, 5).status is AuthorizationStatus.ESCALATED
        assert still_team.control("authorize", "1", "yes", role="tester").code == 0
        assert at(still_team, 100).status is AuthorizationStatus.GRANTED
        assert len(still_team.told("developer", "notice")) == 1

    def test_after_a_downtime_the_orchestrator_has_its_whole_period(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester")
        assert at(still_team, 600).status is AuthorizationStatus.ESCALATED
        assert at(still_team, 629).status is AuthorizationStatus.ESCALATED
        assert at(still_team, 630).status is AuthorizationStatus.EXPIRED

    @pytest.mark.parametrize(("requester", "target"), [("developer", "orchestrator"), ("orchestrator", "developer")])
    def test_the_orchestrator_is_not_asked_about_itself(
        self, still_team: StillTeam, requester: str, target: str
    ) -> None:
        ask(still_team, requester, target)
        ((_, text),) = still_team.told(target, "message")
        assert "within 30 minutes it counts as refused" in text
        assert at(still_team, 30).status is AuthorizationStatus.EXPIRED
        assert len(still_team.told(requester, "notice")) == 1

    def test_the_end_of_the_team_ends_its_requests(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester")
        still_team.end()
        assert authorizations.next_due(still_team.db) is None
        assert at(still_team, 100).reason == "the orchestration has ended"
        assert still_team.told("developer", "notice") == []


class TestOnce:
    @pytest.mark.parametrize("minutes", [30, 60])
    def test_a_daemon_that_dies_in_the_step_does_nothing_half_or_twice(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch, minutes: int
    ) -> None:
        ask(still_team, "developer", "tester")
        if minutes == 60:
            at(still_team, 30)
        before = authorizations.get(still_team.db, 1)
        told = messages.queue

        def die(*arguments: object, **named: object) -> object:
            told(*arguments, **named)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(messages, "queue", die)
            with pytest.raises(KeyboardInterrupt):
                at(still_team, minutes)
        assert authorizations.get(still_team.db, 1) == before
        at(still_team, minutes)
        at(still_team, minutes)
        role, kind = ("orchestrator", "message") if minutes == 30 else ("developer", "notice")
        assert len(still_team.told(role, kind)) == 1

    def test_an_answer_that_comes_while_the_step_looks_wins(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(still_team, "developer", "tester")
        get = authorizations.get

        def answered_meanwhile(db: sqlite3.Connection, authorization_id: int) -> Authorization:
            monkeypatch.setattr(authorizations, "get", get)
            db.execute("UPDATE authorizations SET status = 'granted', decided_by = 'tester' WHERE id = 1")
            return get(db, authorization_id)

        monkeypatch.setattr(authorizations, "get", answered_meanwhile)
        assert at(still_team, 30).status is AuthorizationStatus.GRANTED
        assert still_team.told("orchestrator", "message") == []

    def test_the_loop_wakes_for_the_next_one(self, still_team: StillTeam) -> None:
        ask(still_team, "developer", "tester", minutes=1)
        db = store.connect(still_team.bench.home)
        beat = daemon.Beat(db, still_team.bench.tmux, still_team.bench.home, START, a_life(still_team.bench.home))
        assert daemon._seconds_to_next(db, beat, START + 20_000) == pytest.approx(40)
        db.close()
