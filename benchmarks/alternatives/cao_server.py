# /// script
# requires-python = ">=3.11"
# dependencies = ["cli-agent-orchestrator==2.5.4"]
# ///
"""CLI Agent Orchestrator, asked by lines of JSON: starts its server, has it launch one Claude Code, and sends to that.

Its arguments are the folder for its state and the project. The message goes to the agent's inbox, as its own tool
`send_message` does it; that it is `delivered` there is all that its sender is told.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

PROFILE = """---
name: benchmark
description: An agent that is written to
permissionMode: default
---
You are an agent that is written to.
"""
_STARTED_WITHIN_SECONDS = 60


def main() -> None:
    folder, project = Path(sys.argv[1]), sys.argv[2]
    (folder / "agent-store").mkdir(parents=True)
    (folder / "agent-store" / "benchmark.md").write_text(PROFILE, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("cao-server"))],
            env=os.environ | {"CAO_API_PORT": port, "CAO_HOME_DIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        answer_all(f"http://127.0.0.1:{port}", project)
    finally:
        server.terminate()
        server.wait()


def answer_all(address: str, project: str) -> None:
    wait_until_up(address)
    words = {"agent_profile": "benchmark", "provider": "claude_code", "working_directory": project}
    terminal = call(address, "POST", "/sessions", session_name="benchmark", **words)
    for line in sys.stdin:
        question = json.loads(line)
        answer = terminal if "terminal" in question else question_of_messages(address, terminal["id"], question)
        print(json.dumps(answer), flush=True)


def question_of_messages(address: str, terminal: str, question: dict[str, Any]) -> dict[str, Any]:
    """Send a text, or say what became of one."""
    inbox = f"/terminals/{terminal}/inbox/messages"
    if "send" in question:
        sent: dict[str, Any] = call(address, "POST", inbox, sender_id=terminal, message=question["send"])
        return sent
    newest: list[dict[str, Any]] = call(address, "GET", inbox, limit="100")
    return next((one for one in newest if one["id"] == question["became"]), {"status": "unknown"})


def wait_until_up(address: str) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN_SECONDS
    while True:
        try:
            call(address, "GET", "/health")
            return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def call(address: str, method: str, path: str, **words: str) -> Any:
    request = urllib.request.Request(f"{address}{path}?{urllib.parse.urlencode(words)}", method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
