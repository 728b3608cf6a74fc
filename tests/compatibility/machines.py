"""Machines for the compatibility tests: which tmux runs there, what its user has set, and who is attached."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.tmux import Tmux
from tests.conftest import Bench, isolated, wait_for

#: Programs to test besides the installed one, separated as in PATH.
VARIABLE = "TMUX_ORCHESTRATOR_TEST_TMUX"
INSTALLED = "installed"


def others() -> dict[str, Path]:
    """Each tmux but the installed one, by its version: those that the variable names, and those that were built."""
    named = [Path(word) for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmux-orchestrator" / "tmux"
    built = {path.parent.name: path for path in sorted(cache.glob("*/tmux"))}
    return built | {version_of(path): path for path in named}


def version_of(program: Path) -> str:
    said = subprocess.run([str(program), "-V"], capture_output=True, text=True, check=True).stdout
    return said.strip().removeprefix("tmux ")


@contextlib.contextmanager
def machine(folder: Path, patch: pytest.MonkeyPatch, *, program: Path | None = None, conf: str = "") -> Iterator[Bench]:
    """A machine of its own with this tmux (None: the installed one) and this ~/.tmux.conf."""
    if program:
        # A program of another name or place is found as `tmux` by a link: the tests ask the server as the doors do.
        (folder / "programs").mkdir()
        (folder / "programs" / "tmux").symlink_to(program)
        patch.setenv("PATH", f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}")
    for name in ("TMUX", "TMUX_PANE"):
        patch.delenv(name, raising=False)
    with isolated(folder) as made:
        home = made.environment["HOME"]
        patch.setenv("HOME", home)
        (Path(home) / ".tmux.conf").write_text(conf)
        yield made


@dataclass
class Person:
    """Somebody who sits at a terminal that is attached to a session."""

    terminal: int
    process: subprocess.Popen[bytes]

    def press(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def leave(self) -> None:
        """Have the terminal go, with the command that may have locked it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def attached(
    tmux: Tmux, session: str, environment: Mapping[str, str], *, columns: int = 80, rows: int = 24
) -> Iterator[Person]:
    """Attach a terminal of this size to a session, as `tmux attach` does; it reads all that it is shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        tmux.command("attach-session", "-t", f"={session}"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    )
    os.close(theirs)
    reader = threading.Thread(target=_read_all, args=(ours,), daemon=True)
    reader.start()
    person = Person(ours, process)
    try:
        wait_for(lambda: tmux.is_attached(session), "the terminal to be attached")
        yield person
    finally:
        person.leave()
        reader.join(5)
        os.close(ours)


def _read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):  # Linux says so when nobody can write any more
        while os.read(terminal, 65536):
            pass
