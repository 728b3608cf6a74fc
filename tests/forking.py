"""Python doors for the tests without the start of a Python each: a server that has imported them all forks for a call.

What runs is a process of its own, with its own environment, folder, pipes and exit code, as any other start of the
door; only its imports are done. Starts count where they are what is tested: there, doors are started as users do it.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What a Python has read by the time that it is forked; with another value than the server's, it is started afresh.
_READ_AT_START = ("PATH", "LANG", "TMPDIR", "LD_PRELOAD")
_READ_AT_START_PREFIXES = ("PYTHON", "LC_", "COVERAGE", "GIT_PYTHON")


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a door with this environment would find its Python as the server is."""
    same = all(environment.get(name) == _environment().get(name) for name in _READ_AT_START)
    return same and not any(name.startswith(_READ_AT_START_PREFIXES) for name in environment)


@dataclass(frozen=True)
class Call:
    """A call of a door: the path of its file and its words, its folder and its environment."""

    command: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]


def run(call: Call, *, stdin: str, seconds: float) -> tuple[int, str, str]:
    """Run a door to its end: its exit code, output and error output.

    The code is -N for one that signal N has ended. Raises `subprocess.TimeoutExpired` after it was killed.
    """
    said = json.dumps([list(call.command), str(call.cwd), dict(call.environment)]).encode()
    ours, theirs = zip(*(reversed(os.pipe()) if end == 0 else os.pipe() for end in range(3)), strict=True)
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        try:
            connection.connect(_server())
            connection.sendmsg(
                [struct.pack("!I", len(said))],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))],
            )
            connection.sendall(said)
        finally:
            for end in theirs:
                os.close(end)
        return _attended(connection, call, ours, stdin, seconds)


def _attended(
    connection: socket.socket, call: Call, ends: Sequence[int], stdin: str, seconds: float
) -> tuple[int, str, str]:
    read: list[bytes] = [b"", b""]

    def give() -> None:
        with contextlib.suppress(BrokenPipeError), open(ends[0], "wb") as pipe:  # noqa: PTH123 - a pipe
            pipe.write(stdin.encode())

    def take(number: int) -> None:
        with open(ends[number + 1], "rb") as pipe:  # noqa: PTH123 - a pipe
            read[number] = pipe.read()

    hands = [threading.Thread(target=give), *(threading.Thread(target=take, args=(number,)) for number in range(2))]
    for hand in hands:
        hand.start()
    deadline = time.monotonic() + seconds
    connection.settimeout(seconds)
    pid = _received(connection)
    try:
        code = _received(connection)
        for hand in hands:
            hand.join(max(0.1, deadline - time.monotonic()))
            if hand.is_alive():
                raise TimeoutError
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise subprocess.TimeoutExpired(list(call.command), seconds) from None
    return code, read[0].decode(), read[1].decode()


def _received(connection: socket.socket) -> int:
    found = b""
    while len(found) < 4:
        part = connection.recv(4 - len(found))
        if not part:
            raise RuntimeError("the server that forks doors has ended")
        found += part
    number: int = struct.unpack("!i", found)[0]
    return number


@cache
def _environment() -> dict[str, str]:
    """The environment of the server: that of a test's machine, as far as a Python reads it at its start."""
    found = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return found | {"LANG": "C.UTF-8", "HOME": "/nonexistent"}


@cache
def _server() -> str:
    """The socket of the server of this process, which is started at first and ends with it."""
    folder = tempfile.mkdtemp(prefix="doors-")
    path = f"{folder}/socket"
    reading, lifeline = os.pipe()  # it ends when nobody holds the other end any more
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.forking", path, str(reading)],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=[reading],
        start_new_session=True,  # Ctrl-C at the tests is not meant for it
    )
    os.close(reading)
    assert started.stdout and started.stdout.readline() == b"ready\n", "the server that forks doors did not start"

    def end() -> None:
        os.close(lifeline)
        started.wait()
        Path(folder).rmdir()

    atexit.register(end)
    return path


def _serve(path: str, lifeline: int) -> None:
    """Fork for every connection until nobody holds the lifeline."""
    for door in sorted(ROOT.glob("*.py")):
        runpy.run_path(str(door), run_name=f"door_{door.stem}")
    for module in sorted((ROOT / "lib" / "front" / "control").glob("[!_]*.py")):  # they are loaded when they are run
        importlib.import_module(f"lib.front.control.{module.stem}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        gc.freeze()  # or its forks copy all that they only count
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for the attendants
        while lifeline not in select.select([listening.fileno(), lifeline], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                os.close(lifeline)
                _attend(connection)
            connection.close()
    Path(path).unlink()


def _attend(connection: socket.socket) -> None:
    """Fork once more for the door itself, and tell its pid and how it ended. Returns as the door, and only there."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pipes = array.array("i")
    head, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * pipes.itemsize))
    pipes.frombytes(ancillary[0][2])
    (size,) = struct.unpack("!I", head)
    said = b""
    while len(said) < size:
        said += connection.recv(size - len(said))
    pid = os.fork()
    if pid:
        for end in pipes:
            os.close(end)
        connection.sendall(struct.pack("!i", pid))
        connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        os._exit(0)
    connection.close()
    command, cwd, environment = json.loads(said)
    _become(Call(command, Path(cwd), environment), pipes)


def _become(call: Call, pipes: Sequence[int]) -> None:
    for number, end in enumerate(pipes):
        os.dup2(end, number)
        os.close(end)
    os.chdir(call.cwd)
    os.environ.clear()
    os.environ.update(call.environment)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None
    sys.argv = list(call.command)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    code: object = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as left:
        code = left.code
    threading._shutdown()  # type: ignore[attr-defined]  # what a Python does at its end, but taking itself apart
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
