"""The hook as a program: whatever it is given, and whatever is missing, it is silent and leaves with 0."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib import host, signals, store
from tests.agents import a_team
from tests.conftest import ROOT

HOOK = [sys.executable, "-I", "-S", str(ROOT / "lib" / "front" / "hook.py")]


def run(
    *arguments: str, payload: bytes = b"{}", before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*HOOK, *arguments], input=payload, capture_output=True, env={}, preexec_fn=before, timeout=30, check=False
    )


def is_silent(done: subprocess.CompletedProcess[bytes]) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_payload_of_a_megabyte_arrives_whole(tmp_path: Path) -> None:
    payload = json.dumps({"hook_event_name": "UserPromptSubmit", "prompt": "päste " * 200_000}).encode()
    assert len(payload) > 1_000_000
    assert is_silent(run(str(tmp_path), "7", "3", payload=payload))
    (path,) = (tmp_path / "spool").iterdir()
    assert path.read_bytes() == payload
    nanoseconds, _, agent, epoch = path.stem.split("-")
    assert (agent, epoch) == ("7", "3")
    assert abs(int(nanoseconds) - time.time_ns()) < 60 * 10**9
    assert path.stat().st_mode & 0o077 == 0


def test_what_it_leaves_is_what_is_read(tmp_path: Path) -> None:
    db = store.connect(tmp_path)
    agent = a_team(db, "developer")[0]
    run(str(tmp_path), str(agent.id), str(agent.epoch), payload=b'{"hook_event_name": "Stop", "session_id": "c"}')
    assert signals.ingest(db, tmp_path) == 1
    assert store.events(db)[-1].kind == "hook.Stop"


def test_many_at_once_leave_one_file_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda number: run(str(tmp_path), str(number), "1", payload=b"%d" % number), range(40)))
    assert all(map(is_silent, done))
    found = sorted(int(path.read_bytes()) for path in (tmp_path / "spool").iterdir())
    assert found == list(range(40))


def test_a_daemon_that_listens_is_woken(tmp_path: Path) -> None:
    pipe = host.make_wake_pipe(tmp_path)
    assert is_silent(run(str(tmp_path), "1", "1"))
    assert os.read(pipe, 10) == b"!"
    os.close(pipe)


def test_a_full_pipe_is_no_obstacle(tmp_path: Path) -> None:
    pipe = host.make_wake_pipe(tmp_path)
    while True:
        try:
            os.write(pipe, b"!" * 4096)
        except BlockingIOError:
            break
    assert is_silent(run(str(tmp_path), "1", "1"))
    assert len(list((tmp_path / "spool").glob("*.json"))) == 1
    os.close(pipe)


def make_file(home: Path) -> None:
    home.write_text("a file where the folder should be")


def make_gone_daemon(home: Path) -> None:
    home.mkdir()
    os.close(host.make_wake_pipe(home))


def make_spool_a_file(home: Path) -> None:
    home.mkdir()
    (home / "spool").write_text("")


@pytest.mark.parametrize("make", [None, make_file, make_gone_daemon, make_spool_a_file])
def test_a_state_home_that_cannot_be_used_is_no_obstacle(tmp_path: Path, make: Callable[[Path], None] | None) -> None:
    home = tmp_path / "state"
    if make:
        make(home)
    assert is_silent(run(str(home), "1", "1"))


def test_a_state_home_that_nobody_can_make_is_no_obstacle() -> None:
    assert is_silent(run("/proc/nowhere", "1", "1"))


@pytest.mark.parametrize("arguments", [(), ("/tmp",), ("/tmp", "1")])
def test_missing_arguments_are_no_obstacle(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 0


def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = run(str(tmp_path), "1", "1", payload=b"x" * 5000, before=fill)
    assert is_silent(done)
    assert list((tmp_path / "spool").glob("*.json")) == []


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="a small file system needs root")
def test_a_disk_without_room_leaves_nothing_half(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k none "$1" && head -c 60000 /dev/zero > "$1/filler"; shift; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), *HOOK, str(tmp_path), "1", "1"],
        input=b"x" * 50_000,
        capture_output=True,
        check=False,
    )
    if b"unshare" in done.stderr or b"mount" in done.stderr:
        pytest.skip("no mount namespace here")
    assert is_silent(done)


def test_closed_streams_are_no_obstacle(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *HOOK, str(tmp_path), "1", "1"], check=False, env={"PATH": "/bin"}
    )
    assert done.returncode == 0
