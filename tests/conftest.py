"""What every test stands on: a HOME, a state home, a tmux server and an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest

from lib import config, decisions, host, replay, service, store
from lib.errors import Unavailable
from lib.models import Process
from lib.tmux import Tmux
from tests import forking

if TYPE_CHECKING:
    from tests.nats import NatsServer

ROOT = Path(__file__).resolve().parent.parent

#: What a test may inherit: how programs are found and how uv finds its warm cache. Nothing of an account.
INHERITED = ("PATH", "UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "TMPDIR", "SSL_CERT_FILE")

#: The settings of whoever runs the tests, and those of a machine that has none.
OWN_CONFIG, NOWHERE = config.config_path(), Path("/nowhere/config.yaml")

Value = TypeVar("Value")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="every point of what is sampled otherwise, and whole days")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="with --long"))


def sampled(values: Iterable[Value], often: Container[Value]) -> list[Any]:
    """Parameters of which only some are tried `often`, and all with `--long`."""
    return [one if one in often else pytest.param(one, marks=pytest.mark.long) for one in values]


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for every point."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def every_decision_comes_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test has the rooms decide is decided again at once, from what is kept of it."""
    keep = decisions.note

    def note(db: sqlite3.Connection, kind: str, given: Mapping[str, object], made: object, **how: Any) -> None:
        keep(db, kind, given, made, **how)
        kept = json.loads(json.dumps(given, default=str))
        assert json.loads(json.dumps(replay.AGAIN[kind](kept))) == json.loads(json.dumps(made))

    monkeypatch.setattr(decisions, "note", note)


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs inside of a test has the defaults, whatever config.yaml and policy.yaml its user has."""
    find = config.config_path
    monkeypatch.setattr(config, "config_path", lambda: NOWHERE if find() == OWN_CONFIG else find())


SPEC = """# Greeting

PROJECT: Greeting
GOAL: Say hello.

DELIVERABLES:
1. A greeting file
2. A farewell file
"""


def wait_for(look: Callable[[], Value], what: str, *, seconds: float = 30.0) -> Value:
    """Wait until `look` returns something true, and return it. Fails with `what` after the limit."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {seconds:.0f} s for {what}")


def snapshot(*folders: Path) -> dict[Path, tuple[int, int, int, bytes]]:
    """All below folders, and these: mode, size, time of the last change, content."""
    found = {}
    for path in (path for folder in folders for path in (folder, *folder.rglob("*"))):
        is_plain = path.is_file() and not path.is_symlink()
        about = path.lstat()
        found[path] = (about.st_mode, about.st_size, about.st_mtime_ns, path.read_bytes() if is_plain else b"")
    return found


def commit_all(repository: Path, message: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
    for arguments in (("add", "-A"), (*identity, "commit", "-q", "--allow-empty", "-m", message)):
        subprocess.run(["git", *arguments], cwd=repository, check=True)


@dataclass
class Done:
    """A door that has run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Bench:
    """One isolated machine: its HOME, its environment, its tmux server, and the doors that run in it."""

    folder: Path
    environment: dict[str, str]
    tmux: Tmux

    @property
    def home(self) -> Path:
        return Path(self.environment["TMUX_ORCHESTRATOR_HOME"])

    def door(self, name: str, *arguments: str, cwd: Path | None = None, stdin: str = "", seconds: float = 120) -> Done:
        """Run a door as a user would; a Python door without uv's start, and where that makes no difference Python's."""
        path = str(ROOT / name)
        if name.endswith(".py") and forking.fits(self.environment):
            return self._forked(path, *arguments, cwd=cwd or self.folder, stdin=stdin, seconds=seconds)
        return self.run([*self.command(name), *arguments], cwd=cwd, stdin=stdin, seconds=seconds)

    def run(self, words: Sequence[str], *, cwd: Path | None = None, stdin: str = "", seconds: float = 120) -> Done:
        """Run a program on this machine."""
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def command(self, name: str) -> list[str]:
        """How a door is called; a Python door without uv's start."""
        path = str(ROOT / name)
        return [sys.executable, path] if name.endswith(".py") else [path]

    def ok(self, name: str, *arguments: str, cwd: Path | None = None, stdin: str = "") -> Done:
        """Run a door that has to succeed."""
        done = self.door(name, *arguments, cwd=cwd, stdin=stdin)
        assert done.code == 0, f"{name} {arguments} -> {done.code}\n{done.out}\n{done.err}"
        return done

    def python(self, program: str, *arguments: str) -> Done:
        """Run a program of a test that uses the rooms, as a process of this machine."""
        path = self.folder / "program.py"
        path.write_text(program, encoding="utf-8")
        return self._forked(str(path), *arguments, cwd=ROOT)

    def killed(self, part: str, number: int, *more: str) -> int:
        """Run a part of the daemon that kills itself before its write of this number. Returns its exit code."""
        done = self._forked(str(ROOT / "tests" / "killed.py"), part, str(number), *more, cwd=ROOT)
        assert done.code in (0, -signal.SIGKILL), done.err
        return done.code

    def _forked(self, *command: str, cwd: Path, stdin: str = "", seconds: float = 120) -> Done:
        return Done(*forking.run(forking.Call(command, cwd, self.environment), stdin=stdin, seconds=seconds))

    def project(self, name: str = "webapp", *, spec: str = SPEC) -> Path:
        """A git repository with one commit that holds `spec.md`."""
        path = self.folder / name
        path.mkdir()
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=path, check=True)
        (path / "spec.md").write_text(spec, encoding="utf-8")
        commit_all(path, "Start")
        return path

    def db(self) -> sqlite3.Connection:
        return store.connect(self.home)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        db = self.db()
        try:
            return [dict(row) for row in db.execute(query, values)]
        finally:
            db.close()

    def screen(self, target: str) -> str:
        return self.tmux.run("capture-pane", "-p", "-t", target)

    def end(self) -> None:
        """End what was started here: the daemon first, so that it starts nothing anew, then the agents, then the rest.

        Doors and errands end by themselves, or are killed when they take too long. An agent's door that is just
        running may start a daemon again, so all of it is looked at until nothing is left.
        """
        patience = time.monotonic() + 2

        def is_over() -> bool:
            running = service.running(self.home) if self.home.exists() else None
            if running and host.is_alive(running):
                os.kill(running.pid, signal.SIGTERM)
                return False
            if self.tmux.panes():
                self.tmux.run("kill-server")
            left = self.processes()
            for process in left if time.monotonic() > patience else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            return running is None and not left

        wait_for(is_over, "agents, their doors and the daemon to end", seconds=30)
        Path(f"/tmp/tmux-{os.getuid()}/{self.tmux.socket}").unlink(missing_ok=True)
        self.decide_again()

    def decide_again(self) -> None:
        """What the daemon has decided here comes out the same once more, and no event lacks its decision."""
        if not (self.home / "orchestrator.db").exists():
            return
        try:
            db = self.db()
        except Unavailable:  # a store that a test has damaged
            return
        with contextlib.closing(db):
            found = replay.replay(db, since=0, until=2**53)
        assert (found.different, found.not_made, found.alone) == ((), (), ())

    def processes(self) -> list[Process]:
        """Everything that runs with the state home of this machine, whoever has started it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TMUX_ORCHESTRATOR_HOME") == str(self.home):
                    found += [host.process(process.pid)]
        return [process for process in found if process and process.pid != os.getpid()]

    def command_lines(self) -> dict[int, list[str]]:
        """The words of everything that runs with its state home, by the process; of what has ended meanwhile none."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found[process.pid] = psutil.Process(process.pid).cmdline()
        return found


@contextlib.contextmanager
def isolated(folder: Path) -> Iterator[Bench]:
    """A machine of its own in a folder, for a fixture of any scope."""
    socket = f"orchestrator-test-{uuid.uuid4().hex[:12]}"
    user_home = folder / "home"
    user_home.mkdir()
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment |= {
        "HOME": str(user_home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TMUX_ORCHESTRATOR_HOME": str(folder / "state"),
        "TMUX_ORCHESTRATOR_SOCKET": socket,
        "TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0",
        # The environments of the doors are warm; a test never goes to the network.
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
        "UV_OFFLINE": "1",
    }
    made = Bench(folder, environment, Tmux(socket))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with isolated(tmp_path) as made:
        yield made


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    from tests import nats  # noqa: PLC0415 - it builds on this module

    if nats.PROGRAM is None:
        pytest.skip("this system has no nats-server; ./setup.sh --dev")
    with nats.running(tmp_path / "nats") as made:
        yield made
