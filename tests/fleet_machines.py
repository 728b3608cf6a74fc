"""Hosts of a fleet for tests: each a machine of its own, all on one NATS server on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import errands, host
from lib.fleet import members
from lib.models import Process
from tests.conftest import Bench, isolated, wait_for

#: So short that a test can wait for it, so long that a busy machine keeps up with it.
ACK_WAIT_SECONDS = 6


@dataclass
class Host:
    """A host of a fleet."""

    name: str
    bench: Bench
    #: How many entries run here at once.
    most: int = 1
    #: How far its clock is ahead of the clock of the tests.
    ahead_ms: int = 0

    def configure(self, url: str, **more: object) -> None:
        """Its config.yaml: rehearsal agents, and a fleet."""
        fleet = {"url": url, "host": self.name, "ack_wait_seconds": ACK_WAIT_SECONDS, "snapshot_minutes": 0.02, **more}
        queue = f"queue: {{max_concurrent: {self.most}, retry_minutes: 0.005, linger_minutes: 0.005}}"
        limits = "limits: {grace_seconds: 1, spacing_seconds: 1}"
        lines = ["agent: rehearsal", queue, limits, "fleet:"]
        lines += [f"  {name}: {value}" for name, value in fleet.items()]
        path = Path(self.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    def start(self, *, works: bool = True) -> None:
        """Have its scheduler run, and its link be connected. One that does not work only puts and looks."""
        self.bench.ok("scheduler.py", "--queue-resume")
        if not works:
            self.bench.ok("scheduler.py", "--queue-pause")
        wait_for(self.is_connected, f"{self.name} to be connected", seconds=60)

    def is_connected(self) -> bool:
        """Whether its link says that it is connected."""
        if not (self.bench.home / "orchestrator.db").exists():
            return False
        with contextlib.closing(self.bench.db()) as db:
            state = members.link_state(db, self.bench.home)
        return state is not None and state.is_connected(self.now_ms())

    def now_ms(self) -> int:
        """What its clock shows, in UTC milliseconds."""
        return host.now_ms() + self.ahead_ms

    def put(self, project: Path, spec: str, name: str, *more: str) -> str:
        """Put a spec for one orchestrator into the fleet's queue. Returns the entry's id."""
        path = self.bench.folder / "specs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spec)
        words = ("--fleet", "--project", str(project), "--spec", str(path), "--roles", "orchestrator", *more, "--json")
        (row,) = self.bench.ok("auto_orchestrate.py", *words).json
        return str(row["id"])

    def entry(self, entry_id: str) -> dict[str, Any]:
        """An entry as this host has last heard of it; {} when it has not."""
        found = self.bench.rows("SELECT record FROM fleet_entries WHERE id = ?", entry_id)
        return dict(json.loads(found[0]["record"])) if found else {}

    def teams(self) -> list[dict[str, Any]]:
        """Its teams that live."""
        return self.bench.rows("SELECT * FROM orchestrations WHERE status IN ('starting', 'running', 'paused')")

    def link(self) -> list[int]:
        """The processes of its link: Python's, and uv's that waits for it."""
        lines = self.bench.command_lines().items()
        return [pid for pid, words in lines if "link" in words and any(word.endswith("fleet.py") for word in words)]

    def signal_link(self, sign: signal.Signals) -> None:
        """Send a signal to its link."""
        for pid in self.link():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)

    def lose(self) -> None:
        """Lose the host as by a cut of its power: scheduler, link, tmux and all else at once."""
        for process in [*self.bench.processes(), *self._tmux_server()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not [one for one in self.bench.processes() if host.is_alive(one)], "the host to be lost")

    def _tmux_server(self) -> list[Process]:
        said = self.bench.tmux.run("display-message", "-p", "#{pid}") if self.bench.tmux.panes() else ""
        found = host.process(int(said)) if said.strip() else None
        return [found] if found else []


@contextlib.contextmanager
def fleet(folder: Path, url: str, *names: str) -> Iterator[list[Host]]:
    """Hosts of a fleet for the block, configured and not started."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in names:
            place = folder / name
            place.mkdir()
            one = Host(name, stack.enter_context(isolated(place)))
            one.configure(url)
            made.append(one)
        try:
            yield made
        finally:
            for one in made:  # it would outlive its scheduler by a minute
                one.signal_link(signal.SIGKILL)


def is_linked(one: Host) -> bool:
    """Whether the link of a host runs."""
    return errands.is_at_work(one.bench.home, members.LINK)
