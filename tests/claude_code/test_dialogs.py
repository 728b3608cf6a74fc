"""A person answers what the real Claude Code asks in its window, from the dashboard or a shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.probing.model import ModelServer, say, tool
from tests.conftest import Bench, wait_for
from tests.dashboards import Dashboard, running

from .conftest import launch, told

QUESTION = {
    "questions": [
        {
            "question": "Which database?",
            "header": "Database",
            "multiSelect": False,
            "options": [
                {"label": "SQLite", "description": "A file"},
                {"label": "Postgres", "description": "A server"},
            ],
        }
    ]
}


@pytest.fixture
def page(claude_bench: Bench, trusted_project: Path) -> Iterator[Dashboard]:
    """A dashboard beside a team whose permission mode asks."""
    config = Path(claude_bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("permission_mode: default\n")
    launch(claude_bench, trusted_project, "orchestrator", "developer")
    with running(claude_bench) as found:
        found.visit()
        yield found


def developer(page: Dashboard) -> dict[str, Any]:
    (team,) = page.get("/orchestrations")["orchestrations"]
    found: dict[str, Any] = next(one for one in team["agents"] if one["role"] == "developer")
    return found


def await_question(page: Dashboard) -> tuple[int, dict[str, Any]]:
    agent = int(developer(page)["id"])
    dialog = wait_for(lambda: page.get(f"/agents/{agent}/screen")["dialog"], "the question")
    return agent, dialog


def send(page: Dashboard, text: str) -> None:
    assert page.post(f"/agents/{developer(page)['id']}/messages", {"text": text}).status == 201


@pytest.mark.parametrize(("words", "is_done"), [("Yes", True), pytest.param("No", False, marks=pytest.mark.long)])
def test_a_permission(
    page: Dashboard, model_server: ModelServer, trusted_project: Path, words: str, is_done: bool
) -> None:
    made = trusted_project.parent / "made"
    command = {"command": f"mkdir {made}", "description": "Make a folder"}
    model_server.on(told("developer", "Make it."), tool("Bash", command), say("Done."))
    send(page, "Make it.")
    agent, dialog = await_question(page)
    assert f"mkdir {made}" in dialog["text"] and developer(page)["state"] == "asking"
    key = next(one["key"] for one in dialog["choices"] if one["text"].split(",")[0] == words)
    stale = page.post(f"/agents/{agent}/answer", {"dialog": "0" * 16, "key": key})
    assert stale.status == 404 and not made.exists()
    answer = page.post(f"/agents/{agent}/answer", {"dialog": dialog["name"], "key": key})
    assert answer.status == 200 and answer.json["choice"].startswith(words)
    if is_done:
        wait_for(made.exists, "the command to run")
    wait_for(lambda: developer(page)["state"] == "idle", "the turn to end")
    assert made.exists() is is_done
    assert page.post(f"/agents/{agent}/answer", {"dialog": dialog["name"], "key": key}).status == 404
    told_of = [one["sentence"] for one in page.get("/events?limit=1000")["events"] if one["kind"] == "agent.answered"]
    assert told_of == [f"a person answered developer in its window: {answer.json['choice']}"]


def test_a_question_with_answers_from_a_shell(claude_bench: Bench, page: Dashboard, model_server: ModelServer) -> None:
    model_server.on(told("developer", "Ask me."), tool("AskUserQuestion", QUESTION), say("Thanks."))
    send(page, "Ask me.")
    _, dialog = await_question(page)
    words = ("claude_control.py", "answer", "webapp-impl:developer")
    shown = claude_bench.ok(*words, "--json").json
    assert (shown["question"], shown["text"]) == (dialog["name"], dialog["text"])
    assert [one["text"] for one in shown["choices"]] == ["SQLite A file", "Postgres A server"]
    done = claude_bench.ok(*words, "2", "--question", shown["question"])
    assert done.out == "answered webapp-impl:developer: Postgres A server\n"
    turn = model_server.wait_for(told("developer", "Ask me."), times=2)[1]
    assert "Postgres" in turn.tool_results[0]
