"""The ledger: every step with its time, and nothing but the agent's own words as a proof."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import messages, orchestrations, store
from lib.errors import NotFound, Usage
from lib.judgement import framing
from lib.models import Agent, Message, MessageKind, MessageStatus, OrchestrationStatus
from tests.agents import a_team


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = store.connect(tmp_path)
    yield connection
    connection.close()


@pytest.fixture
def team(db: sqlite3.Connection) -> list[Agent]:
    return a_team(db, "orchestrator", "developer")


def queue(db: sqlite3.Connection, agent: Agent, body: str = "hello", *, now: int = 100) -> Message:
    return messages.queue(db, agent, body, sender="tester", kind=MessageKind.MESSAGE, now=now)


def prompt(message: Message, *, body: str | None = None, number: int | None = None) -> str:
    return framing.frame(number or message.id, message.sender, message.body if body is None else body)


def told(db: sqlite3.Connection, message: Message) -> list[str]:
    return [event.kind for event in store.events(db) if event.message_id == message.id]


def test_a_message_goes_through_its_statuses_with_a_time_for_each(db: sqlite3.Connection, team: list[Agent]) -> None:
    agent = team[1]
    message = queue(db, agent, now=100)
    assert (message.status, message.queued_at, message.attempts) == (MessageStatus.QUEUED, 100, 0)
    messages.pasting(db, message, agent, now=110)
    messages.submitting(db, message, agent, now=120)
    assert messages.get(db, message.id).status is MessageStatus.SUBMITTED
    assert messages.acknowledge(db, agent, prompt(message), proof="hook", now=130)
    found = messages.get(db, message.id)
    assert found.status is MessageStatus.ACKNOWLEDGED
    assert (found.pasted_at, found.submitted_at, found.acknowledged_at, found.attempts) == (110, 120, 130, 1)
    assert told(db, message) == ["message.queued", "message.pasted", "message.submitted", "message.acknowledged"]
    assert messages.pending(db, agent.id) == []


def test_what_is_recorded_is_what_a_terminal_can_carry(db: sqlite3.Connection, team: list[Agent]) -> None:
    assert queue(db, team[1], "a\r\nb\t\x1b[31mc\x00").body == "a\nb    c"


@pytest.mark.parametrize("body", ["", " \n\t", "\x1b[31m", "\u200b\x00"])
def test_a_message_without_text_is_refused(db: sqlite3.Connection, team: list[Agent], body: str) -> None:
    with pytest.raises(Usage, match="empty"):
        queue(db, team[1], body)
    assert db.execute("SELECT count(*) FROM messages").fetchone()[0] == 0


class TestProof:
    def test_a_proof_that_comes_twice_changes_nothing(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        assert messages.acknowledge(db, team[1], prompt(message), proof="hook", now=130)
        assert not messages.acknowledge(db, team[1], prompt(message), proof="transcript", now=140)
        assert messages.get(db, message.id).acknowledged_at == 130
        assert told(db, message).count("message.acknowledged") == 1

    def test_only_the_same_agent_counts(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        assert not messages.acknowledge(db, team[0], prompt(message), proof="hook", now=130)
        assert messages.get(db, message.id).status is MessageStatus.QUEUED

    @pytest.mark.parametrize(
        "changed",
        [
            # Another text: somebody's draft has got into it, or a part was lost.
            {"body": "hello "},
            {"body": "hell"},
            {"body": "draft hello"},
            {"body": ""},
            # Another id.
            {"number": 4711},
        ],
    )
    def test_only_the_same_id_and_text_count(
        self, db: sqlite3.Connection, team: list[Agent], changed: dict[str, object]
    ) -> None:
        message = queue(db, team[1])
        altered = prompt(message, **changed)  # type: ignore[arg-type]
        assert not messages.acknowledge(db, team[1], altered, proof="hook", now=130)
        assert messages.get(db, message.id).status is MessageStatus.QUEUED

    def test_a_quoted_message_proves_nothing(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        first = queue(db, team[1], "first")
        second = queue(db, team[1], f"he said:\n{prompt(first)}")
        assert messages.acknowledge(db, team[1], prompt(second), proof="hook", now=130)
        assert messages.get(db, first.id).status is MessageStatus.QUEUED
        assert not messages.acknowledge(db, team[1], f"see {prompt(first)}", proof="hook", now=140)

    def test_a_paste_that_was_marked_as_foreign_counts(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1], "one\ntwo\n")
        marked = f'\n\n<pasted_content id="bc00">\n{prompt(message)}\n</pasted_content id="bc00">\n'
        assert messages.acknowledge(db, team[1], marked, proof="hook", now=130)

    def test_a_body_about_those_marks_counts_too(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        body = 'strip this:\n\n<pasted_content id="bc00">\nx\n</pasted_content id="bc00">\nand <pasted_content>'
        message = queue(db, team[1], body)
        assert messages.acknowledge(db, team[1], prompt(message), proof="hook", now=130)

    @pytest.mark.parametrize(
        "text", ["", "hello", "[msg 99999999999999999999 from a]\nx\n[end of msg 99999999999999999999]"]
    )
    def test_a_prompt_of_somebody_else_is_no_proof_and_no_error(
        self, db: sqlite3.Connection, team: list[Agent], text: str
    ) -> None:
        assert not messages.acknowledge(db, team[1], text, proof="hook", now=130)

    def test_one_that_is_given_up_stays_given_up(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        messages.fail(db, message, team[1], "lost", now=120)
        assert not messages.acknowledge(db, team[1], prompt(message), proof="hook", now=130)
        assert messages.get(db, message.id).status is MessageStatus.FAILED


class TestOrder:
    def test_messages_wait_in_the_order_of_their_coming(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        made = [queue(db, team[1], f"text {number}").id for number in range(5)]
        queue(db, team[0], "somebody else's")
        assert [message.id for message in messages.pending(db, team[1].id)] == made
        assert messages.count_pending(db, team[1].id) == 5
        assert sorted(messages.agents_with_pending(db)) == [agent.id for agent in team]

    def test_what_may_stand_in_the_composer_comes_first(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        first, second = queue(db, team[1], "first"), queue(db, team[1], "second")
        messages.pasting(db, second, team[1], now=110)
        assert [message.id for message in messages.pending(db, team[1].id)] == [second.id, first.id]

    def test_one_that_is_put_back_is_tried_again(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        for attempt in (1, 2):
            messages.pasting(db, messages.get(db, message.id), team[1], now=110)
            messages.submitting(db, message, team[1], now=115)
            pasted = messages.get(db, message.id)
            messages.requeue(db, pasted, team[1], "not there", now=120)
            found = messages.get(db, message.id)
            assert (found.status, found.attempts, found.reason) == (MessageStatus.QUEUED, attempt, "not there")


class TestRaces:
    """Somebody else has changed the message since it was looked at."""

    @pytest.mark.parametrize("step", ["requeue", "fail"])
    def test_one_that_has_arrived_meanwhile_stays_arrived(
        self, db: sqlite3.Connection, team: list[Agent], step: str
    ) -> None:
        message = queue(db, team[1])
        messages.pasting(db, message, team[1], now=110)
        seen = messages.get(db, message.id)
        assert messages.acknowledge(db, team[1], prompt(message), proof="hook", now=120)
        if step == "requeue":
            messages.requeue(db, seen, team[1], "lost", now=130)
        else:
            messages.fail(db, seen, team[1], "lost", now=130)
        assert messages.get(db, message.id).status is MessageStatus.ACKNOWLEDGED
        assert told(db, message)[-1] == "message.acknowledged"

    def test_one_of_a_team_that_has_ended_is_not_pasted(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        assert team[1].orchestration_id
        orchestrations.set_status(db, team[1].orchestration_id, OrchestrationStatus.STOPPED, now=110)
        assert messages.get(db, message.id).status is MessageStatus.CANCELLED
        messages.pasting(db, message, team[1], now=120)
        assert messages.get(db, message.id).status is MessageStatus.CANCELLED

    def test_a_note_about_waiting_is_no_event(self, db: sqlite3.Connection, team: list[Agent]) -> None:
        message = queue(db, team[1])
        before = len(store.events(db))
        messages.hold(db, message, "developer is working")
        messages.hold(db, messages.get(db, message.id), "developer is working")
        assert messages.get(db, message.id).reason == "developer is working"
        assert len(store.events(db)) == before


def test_an_agent_has_one_briefing(db: sqlite3.Connection, team: list[Agent]) -> None:
    assert messages.briefing_of(db, team[1].id) is None
    made = messages.queue(db, team[1], "work", sender="scheduler", kind=MessageKind.BRIEFING, now=1)
    assert messages.briefing_of(db, team[1].id) == made
    with pytest.raises(sqlite3.IntegrityError):
        messages.queue(db, team[1], "work", sender="scheduler", kind=MessageKind.BRIEFING, now=2)


def test_an_id_that_is_none_is_said(db: sqlite3.Connection) -> None:
    with pytest.raises(NotFound, match="4711"):
        messages.get(db, 4711)


def test_the_messages_of_an_ended_team_are_cancelled(db: sqlite3.Connection, team: list[Agent]) -> None:
    other = a_team(db, "developer", name="other")[0]
    ended, kept = queue(db, team[1]), queue(db, other)
    assert team[1].orchestration_id
    orchestrations.set_status(db, team[1].orchestration_id, OrchestrationStatus.COMPLETED, now=110)
    assert messages.get(db, ended.id).status is MessageStatus.CANCELLED
    assert messages.get(db, ended.id).reason == "the orchestration is completed"
    assert messages.get(db, kept.id).status is MessageStatus.QUEUED


def test_what_a_digest_has_carried_that_was_lost_arrives_with_the_next_one(
    db: sqlite3.Connection, team: list[Agent]
) -> None:
    agent = team[1]
    first = [queue(db, agent, "one"), queue(db, agent, "two")]
    messages.hold_back(db, agent, "limited", now=200)
    messages.bundle_held(db, agent, now=200)
    lost = messages.pending(db, agent.id)[0]
    assert messages.pasting(db, lost, agent, now=300)
    messages.requeue(db, messages.get(db, lost.id), agent, "lost", now=400)
    late = queue(db, agent, "three", now=400)
    messages.hold_back(db, agent, "limited again", now=500)
    messages.bundle_held(db, agent, now=500)
    digest = messages.pending(db, agent.id)[0]
    assert messages.acknowledge(db, agent, prompt(digest), proof="hook", now=600)
    assert {messages.get(db, one.id).status for one in (*first, lost, late, digest)} == {MessageStatus.ACKNOWLEDGED}
    assert messages.agents_with_pending(db) == []
