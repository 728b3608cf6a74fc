"""The scripted model server, as the real Claude Code CLI sees it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lib.probing.model import (
    ModelServer,
    briefed,
    fail,
    hang,
    say,
    say_and_tool,
    say_forever,
    stream_slowly,
    tool,
)

from .conftest import ClaudeHome, ClaudeTerminal

pytestmark = pytest.mark.claude_code


@pytest.fixture
def project(tmp_path: Path, claude_home: ClaudeHome) -> Path:
    folder = tmp_path / "webapp"
    folder.mkdir()
    claude_home.trust(folder)
    return folder


@pytest.fixture
def run_claude(claude_environment: dict[str, str], project: Path) -> Any:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["claude", "-p", *words],
            cwd=project,
            env=claude_environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_headless_turn_says_what_the_script_says(run_claude: Any, model_server: ModelServer) -> None:
    model_server.on("how are you", say("rehearsing, thank you"))

    answer = run_claude("how are you")

    assert (answer.returncode, answer.stdout.strip()) == (0, "rehearsing, thank you")
    assert model_server.prompts() == ["how are you"]


def test_a_tool_turn_is_carried_out_by_the_cli(run_claude: Any, model_server: ModelServer, project: Path) -> None:
    touch = say_and_tool("I touch it.", "Bash", {"command": "touch proof.txt && echo touched"})
    model_server.on("touch the file", touch, say("done"))

    answer = run_claude("--dangerously-skip-permissions", "please touch the file")

    assert answer.stdout.strip() == "done"
    assert (project / "proof.txt").exists()
    assert model_server.turns()[-1].tool_results == ("touched",)
    assert model_server.prompts() == ["please touch the file"]


def test_agents_are_told_apart_by_their_system_prompt(run_claude: Any, model_server: ModelServer) -> None:
    model_server.on(briefed("You are the tester"), say("I test"))
    model_server.on(briefed("You are the developer"), say("I build"))

    developer = run_claude("--append-system-prompt", "You are the developer.", "who are you")
    tester = run_claude("--append-system-prompt", "You are the tester.", "who are you")

    assert (developer.stdout.strip(), tester.stdout.strip()) == ("I build", "I test")
    assert len({turn.conversation for turn in model_server.turns()}) == 2


def test_an_unscripted_prompt_is_answered_ok(run_claude: Any, model_server: ModelServer) -> None:
    assert run_claude("anything").stdout.strip() == "ok"


def test_a_retry_after_an_overload_is_one_prompt_and_two_turns(run_claude: Any, model_server: ModelServer) -> None:
    model_server.on("build it", fail(529, "overloaded_error", "Overloaded"), say("built"))

    assert run_claude("build it").stdout.strip() == "built"
    assert model_server.prompts() == ["build it"]
    assert len(model_server.turns()) == 2


def test_a_final_error_ends_the_turn(run_claude: Any, model_server: ModelServer) -> None:
    limit = fail(429, "rate_limit_error", "slow down", {"x-should-retry": "false"})
    model_server.on("build it", limit, repeat_last=True)

    answer = run_claude("build it")

    assert answer.returncode == 1
    assert "429" in answer.stdout + answer.stderr


def test_structured_output_is_a_tool_turn_and_not_a_side_call(run_claude: Any, model_server: ModelServer) -> None:
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    model_server.on("plan a team", tool("StructuredOutput", {"size": 3}), say("planned"))

    answer = run_claude("--output-format", "json", "--json-schema", json.dumps(schema), "plan a team")

    assert json.loads(answer.stdout)["structured_output"] == {"size": 3}


def test_a_conversation_without_tools_is_still_a_turn(run_claude: Any, model_server: ModelServer) -> None:
    model_server.on("only talk", say("talking"))

    assert run_claude("only talk", "--tools", "").stdout.strip() == "talking"
    assert model_server.prompts() == ["only talk"]


def test_a_pasted_prompt_is_answered_on_the_screen(
    claude_terminal: ClaudeTerminal, claude_home: ClaudeHome, model_server: ModelServer, project: Path
) -> None:
    model_server.on("build the login page", say("The login page is built."))
    claude_terminal.start(project, "claude")
    claude_terminal.wait_until(lambda screen: "❯\xa0" in screen and bool(claude_home.sessions()))

    claude_terminal.paste("please build the login page")
    claude_terminal.wait_until(lambda screen: "build the login page" in screen)
    claude_terminal.press("Enter")

    claude_terminal.wait_until(lambda screen: "The login page is built." in screen)
    assert model_server.prompts() == ["please build the login page"]
    assert [request.path for request in model_server.requests if request.method == "POST"] == ["/v1/messages?beta=true"]


def test_what_the_user_says_while_a_tool_runs_is_seen_in_the_same_turn(
    claude_terminal: ClaudeTerminal, claude_home: ClaudeHome, model_server: ModelServer, project: Path
) -> None:
    model_server.on("start", tool("Bash", {"command": "touch begun; while [ ! -e go ]; do :; done"}))
    claude_terminal.start(project, "claude", "--dangerously-skip-permissions", "--settings", _NO_WARNING)
    claude_terminal.wait_until(lambda screen: "❯\xa0" in screen and bool(claude_home.sessions()))
    claude_terminal.paste("start")
    claude_terminal.press("Enter")
    claude_terminal.wait_until(lambda _: (project / "begun").exists())

    claude_terminal.paste("and mind the tests")
    claude_terminal.wait_until(lambda screen: "and mind the tests" in screen)
    claude_terminal.press("Enter")
    claude_terminal.wait_until(lambda screen: "Queued" in screen)
    (project / "go").touch()

    model_server.wait_for(lambda request: "and mind the tests" in "".join(request.said))
    assert len(model_server.turns()) == 2


_NO_WARNING = json.dumps({"skipDangerousModePermissionPrompt": True})


def _post(url: str, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


_TALK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def _streaming(server: ModelServer) -> urllib.request.Request:
    body = json.dumps(_TALK | {"stream": True}).encode()
    return urllib.request.Request(f"{server.url}/v1/messages", body, method="POST")


def test_a_request_without_streaming_gets_one_message(model_server: ModelServer) -> None:
    model_server.on("hello", say_and_tool("look", "Bash", {"command": "ls"}))

    message = _post(f"{model_server.url}/v1/messages", _TALK)

    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["stop_reason"] == "tool_use"


def test_tokens_are_counted_without_using_a_turn(model_server: ModelServer) -> None:
    model_server.on("hello", say("first"))

    assert _post(f"{model_server.url}/v1/messages/count_tokens", _TALK)["input_tokens"] > 0
    assert _post(f"{model_server.url}/v1/messages", _TALK)["content"][0]["text"] == "first"
    assert len(model_server.turns()) == 1


def test_anything_else_is_not_found_and_recorded(model_server: ModelServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{model_server.url}/api/hello", timeout=10)

    assert answer.value.code == 404
    assert [request.path for request in model_server.requests] == ["/api/hello"]
    assert model_server.turns() == []


def test_a_slow_stream_takes_its_time_and_loses_no_word(model_server: ModelServer) -> None:
    text = "one two\nthree  four"
    model_server.on("hello", stream_slowly(text, 0.4))

    began = time.monotonic()
    with urllib.request.urlopen(_streaming(model_server), timeout=10) as response:
        lines = response.read().decode().splitlines()

    assert time.monotonic() - began >= 0.4
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    said = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(said) == text and len(said) == 4
    assert [events[0]["type"], events[1]["type"], events[-1]["type"]] == [
        "message_start",
        "ping",
        "message_stop",
    ]


def test_the_end_of_the_server_ends_an_endless_answer() -> None:
    with ModelServer() as server:
        server.on("hello", say_forever())
        response = urllib.request.urlopen(_streaming(server), timeout=10)
        while b"still thinking" not in response.readline():
            pass

    assert b"message_stop" in response.read()


def test_a_hanging_answer_comes_late_but_comes(model_server: ModelServer) -> None:
    model_server.on("hello", hang(0.3, then="late"))

    began = time.monotonic()
    message = _post(f"{model_server.url}/v1/messages", _TALK)

    assert (message["content"][0]["text"], time.monotonic() - began >= 0.3) == ("late", True)


def test_waiting_for_a_turn_that_never_comes_says_what_came(model_server: ModelServer) -> None:
    _post(f"{model_server.url}/v1/messages", _TALK)

    with pytest.raises(TimeoutError, match="0 of 1 turns came; the prompts: \\['hello'\\]"):
        model_server.wait_for("goodbye", timeout_seconds=0.1)


def test_only_the_newest_requests_are_kept() -> None:
    with ModelServer(keep=2) as server:
        for word in ("one", "two", "three"):
            _post(f"{server.url}/v1/messages", {"messages": [{"role": "user", "content": word}]})

        assert server.prompts() == ["two", "three"]
