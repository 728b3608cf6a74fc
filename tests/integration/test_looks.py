"""What of agents stands outside of the store: read when it may have changed, and not else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lib import agents, host, orchestrations, status
from lib.git import repository
from lib.looks import ASK_AGAIN_MS, Looks, Seen
from lib.models import Agent, OrchestrationStatus
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


def look(team: StillTeam, looks: Looks, *, now: int = 0) -> Seen:
    """What is seen of the developer."""
    found = orchestrations.get(team.db, team.id)
    return looks.of(found, agents.of_orchestration(team.db, team.id), now=now)[team.agent("developer").id]


def answer(agent: Agent, tokens: int) -> Path:
    """Let the agent's model answer once more, after so many tokens."""
    folder = agent.config_dir / "projects" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{agent.conversation_id}.jsonl"
    entry = {"type": "assistant", "message": {"model": "m", "usage": {"input_tokens": tokens}}}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return path


def test_a_context_grows_and_goes(still_team: StillTeam) -> None:
    looks, agent = Looks(), still_team.agent("developer")
    assert look(still_team, looks).context is None
    path = answer(agent, 50_000)
    found = look(still_team, looks).context
    assert found and (found.tokens, found.most, found.share) == (50_000, 200_000, 0.25)
    answer(agent, 120_000)
    found = look(still_team, looks).context
    assert found and found.tokens == 120_000
    path.unlink()
    assert look(still_team, looks).context is None
    answer(agent, 7)
    found = look(still_team, looks).context
    assert found and found.tokens == 7


def test_a_transcript_that_has_not_changed_is_not_read_again(
    still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks()
    answer(still_team.agent("developer"), 5)
    first = look(still_team, looks)
    monkeypatch.setattr("lib.claude.transcripts.context_used", lambda path: pytest.fail(f"{path} was read again"))
    assert look(still_team, looks).context == first.context


def test_git_is_asked_once_in_a_while(still_team: StillTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, asked, ask = Looks(), [], repository.ask

    def note(folder: Path, *words: str, seconds: float) -> str:
        asked.append(words)
        return ask(folder, *words, seconds=seconds)

    monkeypatch.setattr(repository, "ask", note)
    before = look(still_team, looks, now=1000).commit
    assert before and not before.is_own
    still_team.commit("developer")
    assert look(still_team, looks, now=1000 + ASK_AGAIN_MS - 1).commit == before and len(asked) == 1
    after = look(still_team, looks, now=1000 + ASK_AGAIN_MS).commit
    assert after and after.is_own and after.subject == "Add work.txt" and len(asked) == 2
    orchestrations.set_status(still_team.db, still_team.id, OrchestrationStatus.STOPPED, now=host.now_ms())
    look(still_team, looks, now=1_000_000)
    assert len(asked) == 2, "nothing happens any more on the branches of a team that is over"


def test_a_repository_that_is_gone_is_told(still_team: StillTeam) -> None:
    found = orchestrations.get(still_team.db, still_team.id)
    shutil.rmtree(found.project / ".git")
    seen = status.of(still_team.db, found, looks=Looks())
    assert seen.commits_unseen and str(found.project) in seen.commits_unseen
    assert [agent.commit for agent in seen.agents] == [None] * 4


def test_the_status_tells_of_a_context_that_fills_up(still_team: StillTeam) -> None:
    answer(still_team.agent("developer"), 150_000)
    answer(still_team.agent("tester"), 10_000)
    text = still_team.control("status").out
    assert "context 75% full" in text and text.count("context") == 1
    data = still_team.control("status", "--json").json["orchestrations"][0]
    developer = next(one for one in data["agents"] if one["role"] == "developer")
    assert developer["context"] == {"tokens": 150_000, "most": 200_000} and developer["commit"]["subject"] == "Start"
