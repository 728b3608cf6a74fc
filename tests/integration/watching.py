"""A terminal in which somebody watches what a door shows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT, Bench, wait_for


@dataclass
class Watched:
    """A window of the test's tmux server in which a door runs as for a person."""

    bench: Bench

    def start(self, name: str, *words: str, columns: int) -> None:
        door = shlex.join([sys.executable, str(ROOT / name), *words])
        given = shlex.join(f"{name}={value}" for name, value in self.bench.environment.items())
        size = ("-x", str(columns), "-y", "24")
        # Its own SIGINT would end the shell too.
        script = f"trap : INT; env -i {given} {door}; echo left with $?; exec cat"
        self.bench.tmux.run("new-session", "-d", "-s", "watch", *size, "-n", "watch", f"sh -c {shlex.quote(script)}")

    def leave(self) -> None:
        """Press Ctrl-C."""
        self.bench.tmux.run("send-keys", "-t", "watch:watch", "C-c")

    def shows(self, *texts: str) -> str:
        def look() -> str:
            screen = self.bench.screen("watch:watch")
            return screen if all(text in screen for text in texts) else ""

        return wait_for(look, f"{texts} on the screen")


@pytest.fixture
def watched(bench: Bench) -> Iterator[Watched]:
    yield Watched(bench)
