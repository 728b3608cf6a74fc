"""Other ways to do the same jobs: each a script with dependencies of its own, which uv installs outside of the project.

A script is a program that is asked by lines of JSON on its standard input and answers each by one line, so that its
start is not measured with its work. `huey_queue.py` does its whole work in one call.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lib.errors import NotFound, OrchestratorError
from lib.front.sandbox import INHERITED

FOLDER = Path(__file__).resolve().parent
_INSTALLED_WITHIN_SECONDS = 300


def pinned(script: str) -> str:
    """What a script needs, as it is called in the tables: its name and version."""
    found = re.search(
        r'^# dependencies = \["([\w-]+)==([\w.]+)"\]$', (FOLDER / script).read_text("utf-8"), re.MULTILINE
    )
    assert found
    return f"{found[1]} {found[2]}"


def interpreter(script: str) -> Path:
    """The Python that has what a script needs, installed now if need be. Raises `NotFound` when it cannot be."""
    path = str(FOLDER / script)
    if _uv("sync", "--offline", "--script", path).returncode:
        done = _uv("sync", "--script", path)
        if done.returncode:
            cause = next((line.strip() for line in done.stderr.splitlines() if line.strip()), "uv said nothing")
            raise NotFound(f"{pinned(script)} could not be installed: {cause}", hint=f"uv sync --script {path}")
    return Path(_uv("python", "find", "--script", path).stdout.strip())


def _uv(*words: str) -> subprocess.CompletedProcess[str]:
    # Of this environment only what finds programs and packages: an active virtual environment would be taken for it.
    environment = {name: value for name, value in os.environ.items() if name in (*INHERITED, "HOME")}
    command = ["uv", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALLED_WITHIN_SECONDS
    )


class Program:
    """A script that runs until the end of the block, and is asked."""

    def __init__(self, script: str, environment: dict[str, str], *arguments: str) -> None:
        self._script = script
        self._process = subprocess.Popen(
            [str(interpreter(script)), str(FOLDER / script), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Its end of input is its end."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, **question: object) -> dict[str, Any]:
        """Ask, and wait for the answer. Raises `OrchestratorError` when the program has ended or says so."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it has ended"}
        if "error" in answer:
            raise OrchestratorError(f"{self._script}: {answer['error']}")
        return answer
