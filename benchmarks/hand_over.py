"""One commit from the developer to the tester: inside one repository, and by push and fetch through a remote."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Alternative, Figure
from benchmarks.machine import rehearsal, wait_for
from benchmarks.teams import Counts
from lib.git import guards, snapshots
from lib.host import now_ms

FILES = 20_000
CHANGED = 10
#: What a remote at some distance costs a question and its answer.
ROUND_TRIP_SECONDS = 0.05


def hand_over(counts: Counts) -> list[Figure]:
    """One commit taken over on a big repository: by `git merge` between two worktrees of it, as teams do it, and by
    push, fetch and merge between clones, with a bare repository on the same disk and with a remote at some
    distance. Then the snapshot of a worktree of that size.
    """
    with rehearsal() as machine:
        place = machine.folder
        project = _repository(place / "project")
        took: dict[str, list[float]] = {}
        with _remote(place, project) as far:
            git(place, "clone", "-q", "--bare", str(project), str(place / "disk.git"))
            near = _worktrees(place, project)
            pairs = {"disk": _clones(place, "disk", str(place / "disk.git")), "far": _clones(place, "far", far)}
            for number in range(counts.launches):
                took.setdefault("near", []).append(_by_the_repository(near, number) * 1000)
                for name, pair in pairs.items():
                    took.setdefault(name, []).append(_by_a_remote(pair, number) * 1000)
        taken = [_snapshot(project, number) * 1000 for number in range(counts.launches)]
    situation = f"{FILES:,} files"
    others = (
        Alternative("push, fetch, merge by a bare repository on disk", tuple(took["disk"])),
        Alternative(f"the same by a remote with {ROUND_TRIP_SECONDS * 1000:.0f} ms of round trip", tuple(took["far"])),
    )
    name = f"a commit taken over in one repository of {situation}: `git merge`"
    return [
        Figure(name, "ms", tuple(took["near"]), alternatives=others, headline=True),
        Figure(f"snapshot of {situation}, {CHANGED} changed", "ms", tuple(taken), target=300.0, headline=True),
    ]


def guards_of_commits(counts: Counts) -> list[Figure]:
    """What the guards of an agent's worktree add to its commits: in turns, in a worktree with them and one without."""
    with rehearsal() as machine:
        place = machine.folder
        project = place / "project"
        project.mkdir()
        git(project, "init", "-q", "-b", "main")
        commit(project, "start")
        (place / "state" / "spool").mkdir(parents=True)
        for role in ("guarded", "free"):
            git(project, "worktree", "add", "-q", "-b", role, str(place / role))
        rules = guards.Rules("a1b2c3", "developer", "guarded", "integration")
        guards.arm(place / "guarded", rules, home=place / "state", agent_id=1, epoch=1)
        took: dict[str, list[float]] = {"guarded": [], "free": []}
        for number in range(1, counts.starts + 1):
            for role, values in took.items():
                (place / role / "work.txt").write_text(f"{number}\n")
                began = time.perf_counter()
                git(place / role, "commit", "-q", "-a", "--allow-empty", "-m", f"Work {number}")
                values.append((time.perf_counter() - began) * 1000)
    other = Alternative("the same without guards", tuple(took["free"]))
    name = "a commit of an agent, with its guards"
    return [Figure(name, "ms", tuple(took["guarded"]), alternatives=(other,), headline=True)]


def _repository(folder: Path) -> Path:
    for number in range(FILES):
        path = folder / f"part-{number % 200}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def git(folder: Path, *words: str) -> str:
    """Run git in a folder without anybody's settings. Returns what it prints."""
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost", "-c", "gc.auto=0")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


_Pair = tuple[Path, Path]


def _worktrees(place: Path, project: Path) -> _Pair:
    """Developer and tester in worktrees of one repository."""
    for role in ("developer", "tester"):
        git(project, "worktree", "add", "-q", "-b", role, str(place / f"near-{role}"))
    return place / "near-developer", place / "near-tester"


def _clones(place: Path, name: str, remote: str) -> _Pair:
    """Developer and tester in clones of a remote."""
    for role in ("developer", "tester"):
        git(place, "clone", "-q", remote, str(place / f"{name}-{role}"))
        git(place / f"{name}-{role}", "checkout", "-q", "-b", role)
    return place / f"{name}-developer", place / f"{name}-tester"


def _by_the_repository(pair: _Pair, number: int) -> float:
    developer, tester = pair
    commit(developer, f"work-{number}")
    began = time.perf_counter()
    git(tester, "merge", "-q", "developer")
    return time.perf_counter() - began


def _by_a_remote(pair: _Pair, number: int) -> float:
    developer, tester = pair
    commit(developer, f"work-{number}")
    began = time.perf_counter()
    git(developer, "push", "-q", "origin", "developer")
    git(tester, "fetch", "-q", "origin")
    git(tester, "merge", "-q", "origin/developer")
    return time.perf_counter() - began


def commit(folder: Path, name: str) -> None:
    """Commit one new file in a checkout."""
    (folder / f"{name}.txt").write_text(f"{name}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", f"Add {name}")


def _snapshot(project: Path, number: int) -> float:
    for changed in range(CHANGED):
        (project / f"part-{changed}" / f"file-{changed}.txt").write_text(f"changed {number}\n")
    began = time.perf_counter()
    snapshots.take(project, orchestration="a1b2c3", role="developer", branch="main", now=now_ms(), why="measured")
    return time.perf_counter() - began


# -- a remote at a distance --


@contextlib.contextmanager
def _remote(place: Path, project: Path) -> Iterator[str]:
    """A bare clone behind `git daemon` and a line that delays. Yields its address."""
    git(place, "clone", "-q", "--bare", str(project), str(place / "remote.git"))
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
