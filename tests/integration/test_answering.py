"""What an agent asks in its window, seen and answered from a shell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

DEVELOPER = "webapp-impl:developer"


@pytest.fixture
def asking(bench: Bench) -> dict[str, Any]:
    """The question of a developer who waits for an answer to it, as the verb shows it."""
    project = bench.project(spec="# It takes its time\n\nrehearse: hold\n")
    words = ("--agent", "rehearsal", "--no-ai", "--roles", "orchestrator,developer")
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *words)
    bench.ok("send-claude-message.sh", DEVELOPER, "rehearse: ask")

    def shown() -> dict[str, Any]:
        done = bench.door("claude_control.py", "answer", DEVELOPER, "--json")
        assert done.code in (0, 3), done.err
        found: dict[str, Any] = done.json if done.code == 0 else {}
        return found

    return wait_for(shown, "the question")


def test_a_question_is_answered_by_whoever_has_read_it(bench: Bench, asking: dict[str, Any]) -> None:
    assert asking["choices"] == [{"key": "1", "text": "Yes"}, {"key": "2", "text": "No"}]
    text = bench.ok("claude_control.py", "answer", DEVELOPER).out
    assert asking["text"] in text and "  2  No" in text
    assert f"claude_control.py answer {DEVELOPER} KEY --question {asking['question']}" in text
    for words, code, said in (
        (("1",), 2, "a KEY goes with the --question"),
        (("--question", asking["question"]), 2, "a KEY goes with the --question"),
        (("1", "--question", "0" * 16), 3, "does not ask this any more"),
        (("7", "--question", asking["question"]), 3, "offers no choice '7'"),
    ):
        refused = bench.door("claude_control.py", "answer", DEVELOPER, *words)
        assert (refused.code, said in refused.err) == (code, True), refused.err
    assert bench.rows("SELECT 1 FROM events WHERE kind = 'agent.answered'") == []
    done = bench.ok("claude_control.py", "answer", DEVELOPER, "2", "--question", asking["question"])
    assert done.out == f"answered {DEVELOPER}: No\n"
    (pane,) = bench.rows("SELECT pane_id FROM agents WHERE role = 'developer'")
    wait_for(lambda: "The answer was no." in bench.screen(pane["pane_id"]), "what it makes of the answer")
    again = bench.door("claude_control.py", "answer", DEVELOPER)
    assert (again.code, f"{DEVELOPER} asks nothing now" in again.err) == (3, True)


def test_no_agent_answers_for_a_person(still_team: StillTeam) -> None:
    words = ("answer", DEVELOPER, "1", "--question", "0" * 16)
    refused = still_team.control(*words, role="orchestrator")
    assert (refused.code, "a person answers what" in refused.err) == (2, True)
    assert "asks nothing now" in still_team.control("answer", DEVELOPER).err
