"""The daemon resumes a team of the real Claude Code CLI, and asks one of them that hangs."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import agents, host, keeping, store
from lib.claude import transcripts
from lib.judgement import framing
from lib.models import Agent, AgentState
from lib.probing.model import ModelServer, hang, say, stream_slowly
from tests.conftest import Bench, wait_for

from .conftest import ClaudeHome, Person, launch, told, working_alone

pytestmark = pytest.mark.claude_code

MINUTE_MS = 60_000


def framed(row: dict[str, Any]) -> str:
    return framing.frame(row["id"], row["sender"], row["body"])


class TestByItself:
    def test_a_lost_tmux_server_comes_back_with_every_conversation(
        self, claude_bench: Bench, claude_home: ClaudeHome, model_server: ModelServer, trusted_project: Path
    ) -> None:
        bench = claude_bench
        words = {"orchestrator": "pomegranate", "developer": "quince"}
        for role, word in words.items():
            model_server.on(told(role, "Worktree:"), say(f"I remember the word {word}."))
        model_server.on(told("developer", "Think about it"), stream_slowly("hmm " * 600, 120))
        launch(bench, trusted_project, *words)
        before = {row["role"]: row for row in bench.rows("SELECT * FROM agents")}

        def transcript(role: str) -> str:
            path = transcripts.find(claude_home.path / ".claude", before[role]["conversation_id"])
            return path.read_text() if path else ""

        for role, word in words.items():
            wait_for(lambda role=role, word=word: word in transcript(role), f"the first turn of {role}")  # type: ignore[misc]
        # The developer is in the middle of something, and a message waits for it.
        bench.ok("send-claude-message.sh", "webapp-impl:developer", "Think about it")
        wait_for(lambda: "hmm hmm" in bench.screen(before["developer"]["pane_id"]), "the developer's thoughts")
        said = bench.ok("send-claude-message.sh", "webapp-impl:developer", "Have you seen this?")
        assert said.out.startswith("queued: developer is working")

        bench.tmux.run("kill-server")
        wait_for(lambda: not any(host.process(row["pid"]) for row in before.values()), "the end of all agents")

        # Nobody does anything.
        def is_over() -> bool:
            waiting = bench.rows("SELECT 1 FROM messages WHERE status IN ('queued', 'pasted', 'submitted')")
            epochs = [row["epoch"] for row in bench.rows("SELECT epoch FROM agents")]
            return epochs == [2, 2] and not waiting

        wait_for(is_over, "the team to be back, with all its messages", seconds=90)
        after = {row["role"]: row for row in bench.rows("SELECT * FROM agents")}
        for role, word in words.items():
            assert after[role]["conversation_id"] == before[role]["conversation_id"]
            (note,) = bench.rows(
                "SELECT * FROM messages WHERE agent_id = ? AND body LIKE 'You were interrupted%'", after[role]["id"]
            )
            request = model_server.wait_for(told(role, "You were interrupted"))[0]
            assert word in json.dumps(request.body["messages"]), "it remembers what was before"
            assert model_server.prompts(told(role, "")).count(framed(note)) == 1
            assert "- the whole team was interrupted and is started again" in note["body"].splitlines()
            wait_for(lambda role=role: "You were interrupted" in transcript(role), "the note in it")  # type: ignore[misc]
            assert word in transcript(role)
        (message,) = bench.rows("SELECT * FROM messages WHERE body = 'Have you seen this?'")
        wait_for(lambda: framed(message) in model_server.prompts(told("developer", "")), "the message")
        assert model_server.prompts(told("developer", "")).count(framed(message)) == 1
        windows = {(pane.window, pane.window_name) for pane in bench.tmux.panes()}
        assert windows == {(0, "orchestrator"), (1, "developer")}
        assert bench.rows("SELECT status FROM check_ins") == [{"status": "scheduled"}] * 2
        assert len(bench.rows("SELECT 1 FROM events WHERE kind = 'orchestration.reviving'")) == 1


@pytest.fixture(scope="class")
def person(tmp_path_factory: pytest.TempPathFactory, claude_binary: Path) -> Iterator[Person]:
    with working_alone(tmp_path_factory.mktemp("stuck"), claude_binary) as made:
        yield made


class Looks:
    """Looks of a scheduler whose minutes are fifths of a second: the window goes on meanwhile."""

    def __init__(self, person: Person, db: sqlite3.Connection) -> None:
        self.person, self.db = person, db
        self.now = host.now_ms()
        self.observation = keeping.Observation()

    def look(self, minutes: int) -> None:
        for _ in range(minutes):
            time.sleep(0.2)
            self.now += MINUTE_MS
            keeping.look_for_stuck(self.db, self.window, self.observation, stuck_minutes=30, now=self.now)

    def window(self, agent: Agent) -> str | None:
        return agents.screen(self.person.bench.tmux, agent)

    @property
    def episode(self) -> list[str]:
        return [event.kind for event in store.events(self.db, limit=100_000) if event.kind in keeping._EPISODE]


class TestStuck:
    @pytest.fixture
    def looks(self, person: Person) -> Iterator[Looks]:
        db = person.bench.db()
        db.execute("DELETE FROM events")
        yield Looks(person, db)
        db.close()

    def test_one_that_speaks_slowly_is_not_asked(self, person: Person, looks: Looks) -> None:
        person.server.on("Speak slowly", stream_slowly("word " * 900, 600))
        person.send("Speak slowly")
        person.await_screen("word word")
        looks.look(65)
        assert person.session["status"] == "busy", "it still speaks"
        assert looks.episode == []
        person.press("Escape")
        person.await_free()

    def test_one_that_hangs_is_asked_and_left_as_it_is(self, person: Person, looks: Looks) -> None:
        person.server.on("Think for ever", hang(600))
        person.await_free()
        person.send("Think for ever")
        person.await_screen("Think for ever")
        person.await_status("busy")
        # Its spinner tells the seconds from the third on.
        wait_for(lambda: re.search(r"\S… \(.*\d+s", person.bench.screen(person.pane)), "the spinner")
        pid = person.session["pid"]
        first = person.bench.screen(person.pane)
        looks.look(31)
        assert person.bench.screen(person.pane) != first, "its spinner has gone on"
        assert looks.episode == ["agent.nudged"]
        nudge = person.message()
        assert nudge["body"].startswith("You have been at work for 30 minutes")
        host.wake(person.bench.home)
        person.await_message(nudge["id"], "acknowledged")
        person.await_screen("Queued")
        looks.look(29)
        assert looks.episode == ["agent.nudged"]
        looks.look(31)
        assert looks.episode == ["agent.nudged", "agent.stuck"]
        assert [row["kind"] for row in person.bench.rows("SELECT kind FROM notices")] == ["stuck"]
        # It is where it was: the same process in the same turn.
        assert (person.session["pid"], person.session["status"]) == (pid, "busy")
        assert re.search(r"\S… \(.*\d+s", person.bench.screen(person.pane))
        assert person.bench.screen(person.pane).count("Interrupted") == first.count("Interrupted")
        assert agents.state_of(agents.get(looks.db, 1)) is AgentState.WORKING
        # A person ends the turn: the question is read then, and the episode is over.
        person.press("Escape")
        person.got(nudge["id"])
        person.await_free()
        looks.look(1)
        assert looks.episode == ["agent.nudged", "agent.stuck", "agent.got_on"]
