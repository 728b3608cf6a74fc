"""A machine of its own for a trial: HOME, state home, tmux server, an environment from nothing; gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import psutil

from lib import config, host, service
from lib.errors import OrchestratorError
from lib.models import Process
from lib.records import dataclass
from lib.tmux import Tmux

_PREFIX = "orchestrator-"
#: Names, in a sandbox's folder, the process that it is for.
_OWNER = "owner.json"
#: All that is taken over: how programs are found, and how uv finds what it has. Nothing of an account.
INHERITED = ("PATH", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "UV_OFFLINE", "SSL_CERT_FILE", "TMPDIR")
#: What ends a trial early, and has it leave nothing behind all the same.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: So long may doors and errands take to end by themselves.
_PATIENCE_SECONDS = 2.0
_ENDED_WITHIN_SECONDS = 30.0


@dataclass
class Sandbox:
    """Doors run here as a person runs them, and touch nothing outside of `folder`."""

    folder: Path
    environment: dict[str, str]
    tmux: Tmux

    @property
    def home(self) -> Path:
        """The state home."""
        return Path(self.environment["TMUX_ORCHESTRATOR_HOME"])

    def start(self, door: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a Python door by the interpreter of this process. A Ctrl-C in this terminal does not reach it."""
        return subprocess.Popen(
            command(door, arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def processes(self) -> list[Process]:
        """All that runs with this state home, whoever has started it; not this process."""
        found = [host.process(one.pid) for one in self.running()]
        return [one for one in found if one and one.pid != os.getpid()]

    def running(self) -> Iterator[psutil.Process]:
        """The same as the system knows it, each as long as it is looked at."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("TMUX_ORCHESTRATOR_HOME") == str(self.home):
                    yield process

    def end(self) -> None:
        """End all that was started here: the scheduler first, so that it starts nothing anew, then the agents.

        Doors and errands may end by themselves for a while, and start something meanwhile: so all is looked at until
        nothing is left. Raises `OrchestratorError` when something stays.
        """
        began = time.monotonic()
        while left := self.processes():
            waited = time.monotonic() - began
            if waited > _ENDED_WITHIN_SECONDS:
                pids = " ".join(str(one.pid) for one in left)
                raise OrchestratorError(f"processes of the trial do not end: {pids}", hint=f"kill -9 {pids}")
            if waited > _PATIENCE_SECONDS:
                for one in left:
                    kill(one, signal.SIGKILL)
            elif running := service.running(self.home):
                kill(running, signal.SIGTERM)
            elif self.tmux.panes():
                self.tmux.run("kill-server")
            time.sleep(0.05)


def command(door: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a Python door, run by the interpreter of this process."""
    return [sys.executable, str(config.ROOT / door), *arguments]


def kill(process: Process, how: signal.Signals) -> None:
    """Send a signal to exactly this process; nothing happens when it has ended."""
    if host.is_alive(process):
        with contextlib.suppress(ProcessLookupError):  # it has ended since the look
            os.kill(process.pid, how)


@contextlib.contextmanager
def made(name: str, *, settings: str = "", variables: Mapping[str, str] | None = None) -> Iterator[Sandbox]:
    """A sandbox for the block, with these settings (YAML) and further variables.

    However the block ends, all that was started there is ended and its folder is removed. SIGINT, SIGTERM and SIGHUP
    end the block with KeyboardInterrupt, and are not listened to while it is tidied up. What a trial of this name has
    left that was killed itself is removed before.
    """
    with _listening(_Ending()) as ending:
        remove_abandoned(name)
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-")).resolve()
        try:
            (folder / _OWNER).write_text(json.dumps(vars(host.process(os.getpid()))))
            sandbox = _furnished(folder, settings, variables or {})
            try:
                ending.arm()
                yield sandbox
            finally:
                ending.disarm()
                sandbox.end()
        finally:
            shutil.rmtree(folder)


@contextlib.contextmanager
def tidied(tidy: Callable[[], None]) -> Iterator[None]:
    """The block and, however it ends, `tidy` after it; signals are as for `made`."""
    with _listening(_Ending()) as ending:
        try:
            ending.arm()
            yield
        finally:
            ending.disarm()
            tidy()


def remove_abandoned(name: str) -> None:
    """End and remove what trials of this name have left that were killed themselves."""
    for note in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{name}-*/{_OWNER}"):
        try:
            owner = Process(**json.loads(note.read_text()))
        except (OSError, ValueError, TypeError):  # another's, or just being made or removed
            continue
        if note.stat().st_uid == os.getuid() and not host.is_alive(owner):
            _in(note.parent, {}).end()
            shutil.rmtree(note.parent)


def _furnished(folder: Path, settings: str, variables: Mapping[str, str]) -> Sandbox:
    made = _in(folder, variables)
    path = Path(made.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(settings, encoding="utf-8")
    Path(made.environment["TMPDIR"]).mkdir()
    return made


def _in(folder: Path, variables: Mapping[str, str]) -> Sandbox:
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TMPDIR": str(folder / "tmp"),  # a sender that is killed leaves its file there
        "TMUX_ORCHESTRATOR_HOME": str(folder / "state"),
        "TMUX_ORCHESTRATOR_SOCKET": str(folder / "tmux"),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
    }
    return Sandbox(folder, environment | dict(variables), Tmux(str(folder / "tmux")))


class _Ending:
    """Takes the signals that end a trial: a first one interrupts the block, and what comes later changes nothing."""

    def __init__(self) -> None:
        self._is_armed, self._is_asked = False, False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self._is_asked = True
        if self._is_armed:
            self._is_armed = False
            raise KeyboardInterrupt

    def arm(self) -> None:
        """From now on a signal interrupts; one that has come already does so now."""
        self._is_armed = True
        if self._is_asked:
            self._is_armed = False
            raise KeyboardInterrupt

    def disarm(self) -> None:
        """From now on nothing interrupts."""
        self._is_armed = False


@contextlib.contextmanager
def _listening(ending: _Ending) -> Iterator[_Ending]:
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    for number in _ENDS:
        before[number] = signal.signal(number, ending)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
