"""Which messages only ask how the work gets on."""

from __future__ import annotations

import pytest

from lib.judgement.supervising import is_status_question, is_supervision
from lib.models import MessageKind

LONG = "Please add the login endpoint with its tests, and keep the names of the old one. " * 3


@pytest.mark.parametrize(
    "body",
    [
        "Status?",
        "status",
        "Hi, quick status update please",
        "Status report, please.",
        "What is your status?",
        "What's the progress on the parser?",
        "How far are you with the tests?",
        "How is it going?",
        "How are things coming along?",
        "What is left to do?",
        "Are you stuck?",
        "Are you done with the endpoint?",
        "What are you working on?",
        "ETA?",
        "Please give me a progress report.",
    ],
)
def test_a_bare_question_how_it_goes(body: str) -> None:
    assert is_status_question(body)


@pytest.mark.parametrize(
    "body",
    [
        "Please implement the login endpoint",
        "Return HTTP status 404 when there is no such user",  # a word of the work
        "The status column must hold one of five values",
        "Add a progress bar to the upload",
        "Should the tests go to tests/unit?",
        "What is the schema of the table?",
        "How is the password hashed?",
        "You are done with this one; go on with the parser.",
        f"{LONG} What is your status?",  # it says more than that
        "",
    ],
)
def test_what_has_to_do_with_the_work_is_work(body: str) -> None:
    assert not is_status_question(body)


@pytest.mark.parametrize(
    ("kind", "sender", "body", "expected"),
    [
        (MessageKind.CHECK_IN, "scheduler", "Check-in: look at your commits", True),
        (MessageKind.CHECK_IN, "orchestrator", "Check-in: go on", True),  # whoever has made it
        (MessageKind.BRIEFING, "scheduler", "You are the developer", False),
        (MessageKind.MESSAGE, "scheduler", "You have shown no sign of work", True),  # a nudge
        (MessageKind.NOTICE, "scheduler", "Nobody has answered your question", True),
        (MessageKind.NOTICE, "developer", "developer has reported completion", False),  # what tester waited for
        (MessageKind.MESSAGE, "orchestrator", "Status?", True),
        (MessageKind.MESSAGE, "user", "What is left to do?", True),
        (MessageKind.MESSAGE, "orchestrator", "Add the endpoint", False),
        (MessageKind.COPY, "tester", "Status?", False),  # it tells the Orchestrator of what others said
        (MessageKind.REPORT, "developer", "status update: all is done", False),
    ],
)
def test_what_a_turn_is_that_a_message_begins(kind: MessageKind, sender: str, body: str, expected: bool) -> None:
    assert is_supervision(kind, sender, body) is expected
