"""One commit from the developer to the tester: inside one repository, and by push and fetch through a remote."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import THREE, Counts
from lib.git import guards, snapshots
from lib.host import now_ms

FILES = 20_000
CHANGED = 10
#: What a remote at some distance costs a question and its answer.
ROUND_TRIP_SECONDS = 0.05
HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"


def hand_over(counts: Counts) -> list[Figure]:
    """Local-first against a remote on a big repository, the snapshot of one, and the way to the tester's window."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-benchmark-") as folder:
        place = Path(folder)
        project = _repository(place / "project")
        local, remote = [], []
        with _remote(place, project) as far:
            team = _Team(place, project, far)
            for number in range(counts.launches):
                local.append(team.by_the_repository(number) * 1000)
                remote.append(team.by_the_remote(number) * 1000)
        taken = [_snapshot(project, number) * 1000 for number in range(counts.launches)]
    situation = f"{FILES:,} files"
    return [
        Figure(f"hand-over of a commit in one repository of {situation}: git merge", "ms", tuple(local)),
        Figure(
            f"the same by a remote with {ROUND_TRIP_SECONDS * 1000:.0f} ms of round trip: push, fetch, merge",
            "ms",
            tuple(remote),
        ),
        ratio("hand-over by the remote, in hand-overs in one repository", remote, local),
        Figure(f"snapshot of {situation}, {CHANGED} changed", "ms", tuple(taken), target=300.0),
        Figure("from a commit until the tester's window has acknowledged it", "s", tuple(_told(counts)), target=5.0),
    ]


def guards_of_commits(counts: Counts) -> list[Figure]:
    """What the guards of an agent's worktree add to its commits: in turns, in a worktree with them and one without."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-benchmark-") as folder:
        place = Path(folder)
        project = place / "project"
        project.mkdir()
        _git(project, "init", "-q", "-b", "main")
        _commit(project, 0)
        (place / "state" / "spool").mkdir(parents=True)
        for role in ("guarded", "free"):
            _git(project, "worktree", "add", "-q", "-b", role, str(place / role))
        rules = guards.Rules("a1b2c3", "developer", "guarded", "integration")
        guards.arm(place / "guarded", rules, home=place / "state", agent_id=1, epoch=1)
        took: dict[str, list[float]] = {"guarded": [], "free": []}
        for number in range(1, counts.starts + 1):
            for role, values in took.items():
                (place / role / "work.txt").write_text(f"{number}\n")
                began = time.perf_counter()
                _git(place / role, "commit", "-q", "-a", "--allow-empty", "-m", f"Work {number}")
                values.append((time.perf_counter() - began) * 1000)
    return [
        Figure("a commit of an agent, with its guards", "ms", tuple(took["guarded"])),
        ratio("the same, in commits without guards", took["guarded"], took["free"]),
    ]


def _repository(folder: Path) -> Path:
    for number in range(FILES):
        path = folder / f"part-{number % 200}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "Start")
    return folder


def _git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost", "-c", "gc.auto=0")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *identity, *words], cwd=folder, env=environment, check=True, capture_output=True)


class _Team:
    """Developer and tester, twice: as worktrees of one repository, and as clones of a remote."""

    def __init__(self, place: Path, project: Path, far: str) -> None:
        self.near, self.far = [], []
        for role in ("developer", "tester"):
            _git(project, "worktree", "add", "-q", "-b", role, str(place / f"near-{role}"))
            self.near.append(place / f"near-{role}")
            _git(place, "clone", "-q", far, str(place / f"far-{role}"))
            _git(place / f"far-{role}", "checkout", "-q", "-b", role)
            self.far.append(place / f"far-{role}")

    def by_the_repository(self, number: int) -> float:
        developer, tester = self.near
        _commit(developer, number)
        began = time.perf_counter()
        _git(tester, "merge", "-q", "developer")
        return time.perf_counter() - began

    def by_the_remote(self, number: int) -> float:
        developer, tester = self.far
        _commit(developer, number)
        began = time.perf_counter()
        _git(developer, "push", "-q", "origin", "developer")
        _git(tester, "fetch", "-q", "origin")
        _git(tester, "merge", "-q", "origin/developer")
        return time.perf_counter() - began


def _commit(folder: Path, number: int) -> None:
    (folder / f"work-{number}.txt").write_text(f"{number}\n")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", f"Work {number}")


def _snapshot(project: Path, number: int) -> float:
    for changed in range(CHANGED):
        (project / f"part-{changed}" / f"file-{changed}.txt").write_text(f"changed {number}\n")
    began = time.perf_counter()
    snapshots.take(project, orchestration="a1b2c3", role="developer", branch="main", now=now_ms(), why="measured")
    return time.perf_counter() - began


def _told(counts: Counts) -> Sequence[float]:
    """From a commit in the developer's worktree, by hook and scheduler, to the tester's own acknowledgement."""
    took = []
    with rehearsal() as machine:
        project = machine.project()
        (project / "spec.md").write_text(HOLDS)
        spec = str(project / "spec.md")
        machine.door("auto_orchestrate.py", "--spec", spec, "--roles", THREE, "--agent", "rehearsal")
        machine.wait_idle("tester")
        worktree = machine.agent("developer").worktree
        for number in range(counts.launches):
            _commit(worktree, number)
            began = time.time()
            wait_for(functools.partial(_acknowledged, machine, began), "the tester to hear of it")
            took.append((_acknowledged(machine, began) or began) - began)
    return took


def _acknowledged(machine: Machine, since: float) -> float | None:
    told = "body LIKE 'developer has committed to %' AND queued_at >= ?"
    row = (
        machine.db().execute(f"SELECT max(acknowledged_at) FROM messages WHERE {told}", (int(since * 1000),)).fetchone()
    )
    return row[0] / 1000 if row[0] else None


# -- a remote at a distance --


@contextlib.contextmanager
def _remote(place: Path, project: Path) -> Iterator[str]:
    """A bare clone behind `git daemon` and a line that delays. Yields its address."""
    _git(place, "clone", "-q", "--bare", str(project), str(place / "remote.git"))
    near, far = _free_port(), _free_port()
    words = ("--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={near}")
    daemon = subprocess.Popen(
        ["git", "daemon", *words, f"--base-path={place}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with _line(far, near):
            wait_for(lambda: _listens(near), "git daemon")
            yield f"git://127.0.0.1:{far}/remote.git"
    finally:
        daemon.terminate()
        daemon.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def _line(port: int, to: int) -> Iterator[None]:
    """Pass connections on, each byte later by half of the round trip."""
    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=_accept, args=(server, to), daemon=True).start()
        yield


def _accept(server: socket.socket, to: int) -> None:
    with contextlib.suppress(OSError):  # closed at the end
        while True:
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_delay, args=(one, other), daemon=True).start()


def _delay(one: socket.socket, other: socket.socket) -> None:
    """Bytes are read as they come and written half a round trip later: the delay takes nothing of the width."""
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
    threading.Thread(target=_write, args=(waiting, other), daemon=True).start()
    data = b"x"
    while data:
        try:
            data = one.recv(65536)
        except OSError:
            data = b""
        waiting.put((time.monotonic() + ROUND_TRIP_SECONDS / 2, data))


def _write(waiting: queue.Queue[tuple[float, bytes]], other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            at, data = waiting.get()
            time.sleep(max(0.0, at - time.monotonic()))
            if not data:
                other.shutdown(socket.SHUT_WR)
                return
            other.sendall(data)
