"""What the ledger counts of real conversations is what the model's server has billed, and what Claude Code reckons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lib import agents, host, store, templates
from lib.judgement import prices
from lib.models import Sort, Usage
from lib.probing.model import ModelServer, Turn, fail, say, say_forever, tool
from lib.spending import ledger
from tests.agents import a_team
from tests.conftest import Bench, wait_for

from .conftest import ClaudeHome, Person, working_alone

pytestmark = pytest.mark.claude_code

#: Every kind of token, as a server says it.
ALL_KINDS: Mapping[str, Any] = {
    "input_tokens": 11,
    "output_tokens": 220,
    "cache_read_input_tokens": 3_300,
    "cache_creation_input_tokens": 4_400 + 5_500,
    "cache_creation": {"ephemeral_5m_input_tokens": 4_400, "ephemeral_1h_input_tokens": 5_500},
    "output_tokens_details": {"thinking_tokens": 66},
}
BASH = ("Bash", {"command": "true", "description": "Do nothing"})


def billed(server: ModelServer) -> Usage:
    """All that the server has billed."""
    total = Usage()
    for one in server.billed:
        usage = one.usage
        written = usage.get("cache_creation") or {}
        total += Usage(
            usage["input_tokens"],
            usage["output_tokens"],
            usage["cache_read_input_tokens"],
            written.get("ephemeral_5m_input_tokens", 0),
            written.get("ephemeral_1h_input_tokens", 0),
            (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0),
        )
    return total


def counted(bench: Bench) -> Usage:
    """All that the ledger has counted, by the door."""
    found = bench.ok("claude_control.py", "costs", "--json").json
    assert found["notes"] == []
    return Usage(**found["total"]["tokens"])


def delegating(server: ModelServer, word: str) -> None:
    """Have the turn that is told `word` start a helper, which uses a tool and answers."""
    asking = {"description": "look", "prompt": f"HELP with {word}", "subagent_type": "general-purpose"}
    server.on(
        lambda request: f"HELP with {word}" in request.prompt and not request.tool_results, Turn("I look", (BASH,))
    )
    server.on(lambda request: f"HELP with {word}" in request.prompt, Turn("looked " * 40, usage=ALL_KINDS))
    server.on(lambda request: word in request.prompt and not request.tool_results, tool("Agent", asking))


def test_a_team_is_billed_as_its_server_has_billed_it(tmp_path: Path, claude_binary: Path) -> None:
    with working_alone(tmp_path, claude_binary) as person:
        server, bench = person.server, person.bench
        delegating(server, "DELEGATE")
        server.on("TOOLS", Turn("two at once", (BASH, BASH), usage=ALL_KINDS), say("both are done"))
        server.on("BUSY", fail(529, "overloaded_error", "Overloaded"), Turn("at last", usage=ALL_KINDS))
        for text in ("DELEGATE", "TOOLS", "BUSY", "What is your status?"):
            person.await_free()
            assert person.send(text).code == 0
            server.wait_for(text)
        person.await_free()
        wait_for(lambda: "looked" in str(person.server.requests[-1].body), "the helper's answer to come back")
        person.await_free()
        before = person.session["pid"]
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: person.session.get("pid") not in (None, before), "the scheduler to resume the agent")
        person.await_free()
        assert person.send("GO ON").code == 0
        server.wait_for("GO ON")
        person.await_free()
        wait_for(lambda: counted(bench) == billed(server), f"{counted(bench)} to be {billed(server)}", seconds=10)
        assert sum(one.usage.get("cache_read_input_tokens") == 3_300 for one in server.billed) == 3
        _check_supervision(person)


def _check_supervision(person: Person) -> None:
    total = person.bench.ok("claude_control.py", "costs", "--json").json["total"]
    asked = [one for one in person.server.billed if "status?" in one.request.prompt]
    assert len(asked) == 1
    assert total["supervision"]["tokens"]["input"] >= asked[0].usage["input_tokens"]
    assert 0 < total["supervision"]["share"] < 0.6


# -- budgets --

QUICK_GRACE = "messages_per_minute: 100000\nbudget: {grace_minutes: 0.05}\n"


def status(person: Person) -> str:
    return str(person.bench.rows("SELECT status FROM orchestrations")[0]["status"])


def await_status(person: Person, wanted: str) -> None:
    wait_for(lambda: status(person) == wanted, f"{wanted}, not {status(person)}", seconds=60)


def test_a_budget_stops_a_turn_that_has_no_end_and_an_extension_takes_it_up(
    tmp_path: Path, claude_binary: Path
) -> None:
    with working_alone(tmp_path, claude_binary, QUICK_GRACE) as person:
        server, bench, pid = person.server, person.bench, person.session["pid"]
        server.on("FOREVER", say_forever())
        assert person.send("FOREVER").code == 0
        server.wait_for("FOREVER")
        (Path(bench.rows("SELECT worktree FROM agents")[0]["worktree"]) / "draft.txt").write_text("not committed")
        bench.ok("claude_control.py", "budget", "set", "webapp-impl", "--tokens", "1000")  # the briefing has cost more
        await_status(person, "paused")
        person.await_status("idle")
        wait_for(lambda: bench.rows("SELECT * FROM budgets WHERE settled_at > 0"), "everybody to have stopped")
        assert person.session["pid"] == pid
        assert bench.rows("SELECT how FROM budget_stops") == [{"how": "interrupted"}]
        snapshots = bench.ok("sync_coordinator.py", "snapshots", "--json").json
        assert "before a budget pauses it" in str(snapshots)
        assert any("The budget of 1k tokens of this team is used up" in text for text in server.prompts())

        seen = len(server.turns())
        waits = person.send("STILL THERE?", "--priority", "emergency")
        assert "paused: the budget of 1k tokens is used up" in waits.out
        refused = bench.door("auto_orchestrate.py", "--project", str(tmp_path / "webapp"), "--resume")
        assert "claude_control.py budget extend webapp-impl --tokens 1M" in refused.err
        assert (refused.code, len(server.turns())) == (5, seen)

        bench.ok("claude_control.py", "budget", "extend", "webapp-impl", "--tokens", "10M")
        server.wait_for("Your last turn was stopped because a budget was used up")
        server.wait_for("STILL THERE?")
        assert (status(person), person.session["pid"]) == ("running", pid)
        assert bench.rows("SELECT * FROM budget_stops") == []


def test_a_budget_also_stops_helpers_that_were_left_at_work(tmp_path: Path, claude_binary: Path) -> None:
    with working_alone(tmp_path, claude_binary, QUICK_GRACE) as person:
        server, bench, pid = person.server, person.bench, person.session["pid"]
        asking = {"description": "look", "prompt": "HELP for ever", "subagent_type": "general-purpose"}
        server.on("HELP for ever", Turn("I look", (BASH,), wait_seconds=0.5), repeat_last=True)
        server.on(lambda request: "DELEGATE" in request.prompt and not request.tool_results, tool("Agent", asking))
        assert person.send("DELEGATE").code == 0
        server.wait_for("HELP for ever", times=3)
        bench.ok("claude_control.py", "budget", "set", "webapp-impl", "--tokens", "1000")
        await_status(person, "paused")
        wait_for(lambda: bench.rows("SELECT * FROM budgets WHERE settled_at > 0"), "all to have stopped", seconds=90)
        seen = len(server.turns("HELP"))
        # Escape ends the agent's own turn and no helper: its process had to go.
        assert (bench.rows("SELECT how FROM budget_stops"), host.process(pid)) == ([{"how": "ended"}], None)
        assert status(person) == "paused"
        bench.ok("claude_control.py", "budget", "extend", "webapp-impl", "--tokens", "10M")
        wait_for(lambda: person.session.get("pid") not in (None, pid), "the agent to be started again", seconds=60)
        server.wait_for("Your last turn was stopped because a budget was used up", timeout_seconds=40)
        assert len(server.turns("HELP")) <= seen + 1


def run(folder: Path, environment: Mapping[str, str], *words: str) -> dict[str, Any]:
    """One answer of Claude Code without a window."""
    command = ["claude", "-p", *words, "--dangerously-skip-permissions", "--output-format", "json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def folder(claude_home: ClaudeHome, tmp_path: Path) -> Path:
    made = tmp_path / "alone"
    made.mkdir()
    claude_home.trust(made)
    return made


def test_a_conversation_that_is_resumed_and_forked_costs_what_claude_code_says(
    folder: Path, tmp_path: Path, claude_home: ClaudeHome, claude_environment: dict[str, str], model_server: ModelServer
) -> None:
    delegating(model_server, "DELEGATE")
    model_server.on("TOOLS", Turn("two at once", (BASH, BASH), usage=ALL_KINDS))
    first = run(folder, claude_environment, "DELEGATE")
    run(folder, claude_environment, "TOOLS", "--resume", first["session_id"])
    forked = run(folder, claude_environment, "fork", "--resume", first["session_id"], "--fork-session")
    db = store.connect(tmp_path / "books")
    (agent,) = a_team(db, "developer")
    for conversation in (first, forked):  # the second holds the history of the first
        values = (conversation["session_id"], str(claude_home.path / ".claude"), agent.id)
        db.execute("UPDATE agents SET conversation_id = ?, config_dir = ? WHERE id = ?", values)
        ledger.count(db, agents.get(db, agent.id), now=host.now_ms())
    found = prices.bill(templates.price_list(), [one.item for one in ledger.spent(db)])
    assert found.usage == billed(model_server)
    assert found.usd == pytest.approx(forked["total_cost_usd"])  # of its whole history


#: One of each row of the list that differs in more than its name: what Claude Code makes of a million of each kind.
MODELS = ["claude-opus-5-5", "claude-fable-5-2", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-haiku-4-5-20251001"]


@pytest.mark.parametrize("model", MODELS)
def test_the_price_list_says_what_claude_code_reckons(
    folder: Path, claude_environment: dict[str, str], model_server: ModelServer, model: str
) -> None:
    more = {"server_tool_use": {"web_search_requests": 3}}
    model_server.on("PRICE", Turn("ok", usage={**ALL_KINDS, "cache_read_input_tokens": 100_000, **more}))
    found = run(folder, claude_environment, "PRICE", "--model", model)["modelUsage"]
    usage = Usage(11, 220, 100_000, 4_400, 5_500, 66, 3)
    sort = Sort(model, host.now_ms(), above=100_000)
    assert list(found) == [model]
    assert templates.price_list().cost(sort, usage) == pytest.approx(found[model]["costUSD"])
    assert found[model]["costBasis"] == "list"
