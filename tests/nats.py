"""Real NATS servers on loopback, each with a store of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import wait_for

#: Debian's stands where the PATH of a person may not lead.
PROGRAM = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")

_ASKS = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as met:
    sys.stdout.write(met.recv(4).decode())
"""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def free_ports_of_a_cluster() -> list[int]:
    """Three ports that are free, and so are those 2000 above, for the other servers."""
    found: list[int] = []
    while len(found) < 3:
        port = free_port()
        with contextlib.suppress(OSError, OverflowError), socket.socket() as routes:
            routes.bind(("127.0.0.1", port + 2000))
            found += [port] if port not in found else []
    return found


@dataclass
class NatsServer:
    """A server of a test: `start`, `stop` and `kill` may be called in any order; its port and its store stay."""

    folder: Path
    port: int
    #: A configuration with its own port, store and TLS; None is the plain server without authentication.
    config: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    address: str = "127.0.0.1"
    #: The words that run a command where the server is: in this network without any.
    inside: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"{'tls' if self.config else 'nats'}://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert PROGRAM and self.process is None
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "store")]
        words = ["-c", str(self.config)] if self.config else plain
        with (self.folder / "log").open("ab") as log:
            folder = self.config.parent if self.config else None
            self.process = subprocess.Popen([*self.inside, PROGRAM, *words], cwd=folder, stdout=log, stderr=log)
        wait_for(self.answers, "the NATS server to answer", seconds=20)

    def answers(self) -> bool:
        """Whether it takes connections: a server says who it is before it is asked."""
        assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()
        if self.inside:
            words = [*self.inside, sys.executable, "-S", "-c", _ASKS, self.address, str(self.port)]
            return subprocess.run(words, capture_output=True, check=False).stdout == b"INFO"
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1) as met:
            return met.recv(4) == b"INFO"
        return False

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it; nothing when it does not run."""
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sign)
            self.process.wait(20)
            self.process = None

    def kill(self) -> None:
        """End it as a loss of power does."""
        self.stop(signal.SIGKILL)


@contextlib.contextmanager
def running(folder: Path, port: int | None = None, config: Path | None = None) -> Iterator[NatsServer]:
    """A server for the block: by a configuration with its port, else a plain one on a free loopback port."""
    made = NatsServer(folder, port or free_port(), config)
    made.start()
    try:
        yield made
    finally:
        made.stop()
