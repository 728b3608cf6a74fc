"""Machines with networks of their own: network namespaces that are joined to a bridge, which stands in one as well.

Nothing of it touches the network of this machine: every link is made inside of a namespace, and none leads out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import Bench, Done

_IP = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
#: Where the bridge and the server are.
HUB = "hub"
#: Of the range for benchmarks of networks (RFC 2544), which no machine has.
_NETWORK = "198.18.77"


@functools.cache
def trouble() -> str | None:
    """Why there can be no such machines here; None when there can."""
    if _IP is None:
        return "this system has no iproute2; ./setup.sh --dev"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    try:
        with network("one"):
            return None
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made here: {error.stderr.strip()}"


@dataclass
class Network:
    """A bridge and the machines at it, by name; the first part of all names is this network's own."""

    prefix: str
    #: The last number of each machine's address.
    numbers: dict[str, int] = field(default_factory=dict)

    def address(self, name: str) -> str:
        """By which address the others reach a machine."""
        return f"{_NETWORK}.{self.numbers[name]}"

    def inside(self, name: str) -> tuple[str, ...]:
        """The words that run a command on a machine."""
        assert _IP
        return (_IP, "netns", "exec", self._space(name))

    def cut(self, name: str) -> None:
        """Cut a machine off, as by a pulled cable: nobody is told, and what was sent is on its way."""
        self._hub("link", "set", f"to-{self.numbers[name]}", "down")

    def heal(self, name: str) -> None:
        """Put the cable back."""
        self._hub("link", "set", f"to-{self.numbers[name]}", "up")

    def add(self, name: str) -> None:
        """A machine at the bridge."""
        number = len(self.numbers) + 1
        _ip("netns", "add", self._space(name))
        self.numbers[name] = number
        _ip("-n", self._space(name), "link", "set", "lo", "up")
        if name == HUB:
            self._hub("link", "add", "bridge", "type", "bridge")
            self._hub("address", "add", f"{self.address(name)}/24", "dev", "bridge")
            self._hub("link", "set", "bridge", "up")
            return
        peer = ("peer", "name", "eth0", "netns", self._space(name))
        self._hub("link", "add", f"to-{number}", "type", "veth", *peer)
        self._hub("link", "set", f"to-{number}", "master", "bridge", "up")
        _ip("-n", self._space(name), "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        _ip("-n", self._space(name), "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Take all of it away; the links go with their namespaces."""
        for name in self.numbers:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._space(name))

    def _space(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _hub(self, *words: str) -> None:
        _ip("-n", self._space(HUB), *words)


@contextlib.contextmanager
def network(*names: str) -> Iterator[Network]:
    """A network for the block with these machines, and the hub."""
    made = Network(f"orchestrator-test-{uuid.uuid4().hex[:8]}")
    try:
        for name in (HUB, *names):
            made.add(name)
        yield made
    finally:
        made.remove()


@dataclass
class Inside(Bench):
    """A machine whose doors run in a namespace, and all that they start."""

    inside: tuple[str, ...] = ()

    def door(self, name: str, *arguments: str, cwd: Path | None = None, stdin: str = "", seconds: float = 120) -> Done:
        """Run a door there, with a Python of its own: the ones that are forked have the network of the tests."""
        words = [*self.inside, *self.command(name), *arguments]
        return self.run(words, cwd=cwd, stdin=stdin, seconds=seconds)


def _ip(*words: str) -> None:
    assert _IP
    subprocess.run([_IP, *words], capture_output=True, text=True, check=True)
