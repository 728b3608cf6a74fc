"""The team's tools in the hands of the real Claude Code CLI: only the model behind it is scripted."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from lib import host
from lib.claude import starting
from lib.probing.model import ModelServer, Request, say, tool
from tests.conftest import Bench, sampled, wait_for

from .conftest import ClaudeHome, launch, told

pytestmark = pytest.mark.claude_code

GIT = "git -c user.name=Developer -c user.email=developer@localhost"
SEND = "mcp__tmux-orchestrator__send_message"
REPORT = "mcp__tmux-orchestrator__report_completion"
NASTY = """He said "it's `done`", $(touch PWNED) & $HOME \\ that's 100 %
  <b>é 🙂</b>; second line, indented
!not a command
/nor this, and it ends in a backslash \\"""


def offers_tools(request: Request) -> bool:
    """Whether the CLI offers our tools to the model in this turn."""
    return SEND in {one["name"] for one in request.body.get("tools", ())}


def below(ancestor: int, name: str) -> list[int]:
    """The processes below another whose command line holds a name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if name in words and host.is_below(int(folder.name), ancestor):
            found.append(int(folder.name))
    return found


def wait_for_tools(bench: Bench, model_server: ModelServer, role: str) -> None:
    """A server comes up beside its agent, which is asked again until it has the tools."""
    numbers = itertools.count()

    def has_tools() -> bool:
        question = f"Ready? ({next(numbers)})"
        bench.ok("send-claude-message.sh", f"webapp-impl:{role}", question)
        return offers_tools(model_server.wait_for(told(role, question))[0])

    wait_for(has_tools, f"the tools of the {role}", seconds=60)


def test_an_agent_works_with_the_tools_alone(
    claude_bench: Bench, model_server: ModelServer, trusted_project: Path
) -> None:
    commit = f"echo hello > greeting.txt && git add greeting.txt && {GIT} commit -qm 'Add the greeting'"
    model_server.on(
        told("developer", "Go ahead."),
        tool("Bash", {"command": commit}),
        tool(SEND, {"target": "tester", "text": NASTY}),
        tool(REPORT, {"summary": 'The "greeting"\nis written', "check": "cat greeting.txt"}),
        say("My part is done."),
    )
    launch(claude_bench, trusted_project, "orchestrator", "developer", "tester")
    wait_for_tools(claude_bench, model_server, "developer")
    claude_bench.ok("send-claude-message.sh", "webapp-impl:developer", "Go ahead.")

    # Byte for byte, as a prompt of its own, in the name of who sent it.
    arrived = wait_for(
        lambda: [text for text in model_server.prompts(told("tester", "")) if "not a command" in text],
        "the message at the tester",
        seconds=60,
    )
    (message,) = claude_bench.rows("SELECT * FROM messages WHERE body = ?", NASTY)
    assert arrived == [f"[msg {message['id']} from developer]\n{NASTY}\n[end of msg {message['id']}]"]
    request = model_server.wait_for(told("orchestrator", "Completion report from developer"), timeout_seconds=60)[0]
    assert 'The "greeting"\nis written' in request.prompt
    assert "Check: `cat greeting.txt` left with 0." in request.prompt
    # The tester waited for the developer, and no tool has asked a person anything.
    (notice,) = claude_bench.rows("SELECT * FROM messages WHERE kind = 'notice' AND sender = 'developer'")
    assert notice["body"].startswith("You waited for developer")
    turns = model_server.wait_for(told("developer", "Go ahead."), times=4)
    results = [text for turn in turns for text in turn.tool_results]
    assert any(text.startswith(("acknowledged in", "queued:")) for text in results), results
    assert any("reported to webapp-impl:orchestrator; told tester" in text for text in results), results
    assert not list(trusted_project.parent.rglob("PWNED"))


def test_no_agent_speaks_as_another(
    claude_bench: Bench, model_server: ModelServer, trusted_project: Path, tmp_path: Path
) -> None:
    launch(claude_bench, trusted_project, "orchestrator", "developer")
    team = {row["role"]: row for row in claude_bench.rows("SELECT * FROM agents")}
    # A server started by hand in the developer's window, in the name of the orchestrator.
    script = tmp_path / "forge.py"
    script.write_text(FORGE)
    forge = f"TMUX_ORCHESTRATOR_AGENT={team['orchestrator']['id']} python3 {script} $(command -v mcp_server.py)"
    own = f"python3 {script} $(command -v mcp_server.py)"
    model_server.on(
        told("developer", "Forge."), tool("Bash", {"command": forge}), tool("Bash", {"command": own}), say("Hm.")
    )
    claude_bench.ok("send-claude-message.sh", "webapp-impl:developer", "Forge.")
    model_server.wait_for(told("developer", "Forge."), times=3, timeout_seconds=90)
    first, second = (turn.tool_results[0] for turn in model_server.turns(told("developer", "Forge."))[1:3])
    assert "does not run below the process of webapp-impl:orchestrator" in first
    # Its own name it may use: the message says who it is, whatever the arguments are.
    assert "message" in second and "speaks for" not in second
    assert [
        row["sender"] for row in claude_bench.rows("SELECT sender FROM messages WHERE body = 'I am somebody else'")
    ] == ["developer"]


#: One call over standard input and output, in the words of the protocol.
FORGE = """
import json, subprocess, sys
server = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def say(**words):
    server.stdin.write(json.dumps({"jsonrpc": "2.0", **words}) + "\\n")
    server.stdin.flush()
say(id=1, method="initialize", params={"protocolVersion": "2025-06-18", "capabilities": {},
    "clientInfo": {"name": "by hand", "version": "1"}})
server.stdout.readline()
say(method="notifications/initialized")
arguments = {"target": "orchestrator", "text": "I am somebody else", "sender": "orchestrator", "role": "orchestrator"}
say(id=2, method="tools/call", params={"name": "send_message", "arguments": arguments})
print(json.loads(server.stdout.readline())["result"]["content"][0]["text"])
server.stdin.close()
server.wait()
"""


def test_every_agent_has_its_server_and_it_ends_with_the_agent(
    claude_bench: Bench, model_server: ModelServer, trusted_project: Path
) -> None:
    launch(claude_bench, trusted_project, "orchestrator", "developer")
    for agent in claude_bench.rows("SELECT * FROM agents"):
        pids = wait_for(lambda pid=agent["pid"]: below(pid, "mcp_server.py"), "the server", seconds=60)  # type: ignore[misc]
        config = json.loads((claude_bench.home / "agents" / str(agent["id"]) / "mcp.json").read_text())
        assert config["mcpServers"][starting.TOOLS_NAME]["env"]["TMUX_ORCHESTRATOR_AGENT"] == str(agent["id"])
        os.kill(agent["pid"], 9)
        wait_for(lambda pids=pids: not any(map(host.process, pids)), "the server to end with its agent")  # type: ignore[misc]


def test_a_team_can_do_without(claude_bench: Bench, model_server: ModelServer, trusted_project: Path) -> None:
    config = Path(claude_bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("mcp: false\n")
    launch(claude_bench, trusted_project, "orchestrator")
    claude_bench.ok("send-claude-message.sh", "webapp-impl:orchestrator", "Second turn.")
    request = model_server.wait_for(told("orchestrator", "Second turn."))[0]
    assert "mcp__" not in json.dumps(request.body)
    (agent,) = claude_bench.rows("SELECT * FROM agents")
    assert below(agent["pid"], "mcp_server.py") == []


@pytest.mark.parametrize("mode", sampled(["default", "dontAsk"], ["default"]))
def test_no_permission_mode_asks_about_the_tools(
    claude_bench: Bench, model_server: ModelServer, trusted_project: Path, mode: str
) -> None:
    config = Path(claude_bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"permission_mode: {mode}\n")
    launch(claude_bench, trusted_project, "orchestrator", "developer")
    wait_for_tools(claude_bench, model_server, "developer")
    model_server.on(
        told("developer", "Go ahead."), tool(SEND, {"target": "orchestrator", "text": "Hello"}), say("Sent.")
    )
    claude_bench.ok("send-claude-message.sh", "webapp-impl:developer", "Go ahead.")
    turn = model_server.wait_for(told("developer", "Go ahead."), times=2)[1]
    assert turn.tool_results[0].startswith(("acknowledged in", "queued:"))


def test_a_role_has_its_own_window_and_only_its_tools(
    claude_bench: Bench, claude_home: ClaudeHome, model_server: ModelServer, trusted_project: Path
) -> None:
    roles = claude_home.path / ".config" / "tmux-orchestrator" / "roles"
    roles.mkdir(parents=True)
    keys = "summary: Draws.\ncheck_in_minutes: 9\nwindow: The Studio\ntools: [Bash, Read]\nprerequisites: [git]"
    (roles / "artist.md").write_text(f"---\n{keys}\n---\nDraw.\n")
    launch(claude_bench, trusted_project, "orchestrator", "artist")
    windows = claude_bench.tmux.run("list-windows", "-t", "webapp-impl", "-F", "#{window_name}").split("\n")
    assert windows[:2] == ["orchestrator", "The Studio"]
    wait_for_tools(claude_bench, model_server, "artist")
    # The name that a person sees in tmux is a target too.
    claude_bench.ok("send-claude-message.sh", "webapp-impl:The Studio", "Paint it blue.")
    offered = {one["name"] for one in model_server.wait_for(told("artist", "Paint it blue."))[0].body["tools"]}
    assert SEND in offered
    # The placeholder does nothing: the client always has it.
    own = {name for name in offered if not name.startswith("mcp__")} - {"DeferredToolPlaceholder"}
    assert own == {"Bash", "Read"}
