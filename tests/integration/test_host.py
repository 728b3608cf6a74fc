"""This machine: processes that cannot be mistaken, locks that end with their holder, the wake-up pipe."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lib import host
from lib.errors import Busy
from lib.models import Process
from tests.conftest import ROOT, wait_for

HOLDS = """
import sys, time
from pathlib import Path
from lib import host
with host.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


class TestProcess:
    def test_this_process_is_alive(self) -> None:
        me = host.process(os.getpid())
        assert me and me.pid == os.getpid() and me.started > 0
        assert host.process(os.getpid()) == me
        assert host.is_alive(me)

    def test_a_later_one_with_the_same_pid_is_another(self) -> None:
        me = host.process(os.getpid())
        assert me
        assert not host.is_alive(replace(me, started=me.started - 1))

    def test_no_process_is_not_alive(self) -> None:
        assert not host.is_alive(None)
        assert host.process(2**22 + 1) is None
        assert not host.is_alive(Process(2**22 + 1, 1, host.boot_id()))

    def test_one_that_has_ended_and_was_not_waited_for_is_not_alive(self) -> None:
        child = subprocess.Popen(["sleep", "60"])
        known = wait_for(lambda: host.process(child.pid), "the child")
        assert host.is_alive(known)
        child.kill()
        wait_for(lambda: not host.is_alive(known), "the child to end", seconds=5)
        assert child.wait() == -signal.SIGKILL

    def test_a_command_with_brackets_and_spaces_is_read(self, tmp_path: Path) -> None:
        program = tmp_path / "a) R 1 2 (b"
        program.symlink_to("/bin/sleep")
        child = subprocess.Popen([str(program), "60"])
        try:
            one, other = host.process(child.pid), host.process(os.getpid())
            assert one and other
            assert abs(one.started - other.started) < 10**7
            assert one.started >= other.started
        finally:
            child.kill()
            child.wait()


class TestLock:
    def test_one_holds_it_and_another_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "a.lock"
        holder = hold(path)
        try:
            with pytest.raises(Busy, match=r"a\.lock is held by another process"), host.lock(path):
                pytest.fail("two hold the lock")
            with pytest.raises(Busy, match="come later"), host.lock(path, sentence="come later"):
                pytest.fail("two hold the lock")
        finally:
            holder.kill()
            holder.wait()

    def test_it_ends_with_its_holder_however_that_ends(self, tmp_path: Path) -> None:
        for how in (signal.SIGKILL, signal.SIGTERM):
            holder = hold(tmp_path / "a.lock")
            holder.send_signal(how)
            holder.wait()
            with host.lock(tmp_path / "a.lock"):
                assert (tmp_path / "a.lock").exists()

    def test_a_child_of_the_holder_does_not_keep_it(self, tmp_path: Path) -> None:
        with host.lock(tmp_path / "a.lock"):
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
        try:
            with host.lock(tmp_path / "a.lock"):
                assert child.poll() is None
        finally:
            child.kill()
            child.wait()

    def test_threads_of_one_process_exclude_each_other(self, tmp_path: Path) -> None:
        with host.lock(tmp_path / "a.lock"), pytest.raises(Busy), host.lock(tmp_path / "a.lock"):
            pytest.fail("two hold the lock")

    def test_who_waits_gets_it(self, tmp_path: Path) -> None:
        holder = hold(tmp_path / "a.lock")
        threading.Timer(0.3, holder.kill).start()
        with host.lock(tmp_path / "a.lock", wait_seconds=10):
            assert holder.wait() == -signal.SIGKILL

    def test_who_waits_in_vain_is_told_after_the_time(self, tmp_path: Path) -> None:
        with host.lock(tmp_path / "a.lock"):
            began = time.monotonic()
            with pytest.raises(Busy), host.lock(tmp_path / "a.lock", wait_seconds=0.2):
                pytest.fail("two hold the lock")
            assert 0.2 <= time.monotonic() - began < 5

    def test_an_error_in_the_block_lets_it_go_and_the_file_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a.lock").write_text("kept")
        with pytest.raises(ZeroDivisionError), host.lock(tmp_path / "a.lock"):
            raise ZeroDivisionError
        with host.lock(tmp_path / "a.lock"):
            assert (tmp_path / "a.lock").read_text() == "kept"


def is_readable(pipe: int, seconds: float = 0) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])


class TestWake:
    def test_a_listener_is_woken_and_the_pipe_never_ends(self, tmp_path: Path) -> None:
        pipe = host.make_wake_pipe(tmp_path)
        assert not is_readable(pipe)
        for _ in range(2):
            host.wake(tmp_path)
            assert is_readable(pipe, 5)
            assert os.read(pipe, 4096) == b"!"
            assert not is_readable(pipe)
        os.close(pipe)
        assert stat.S_IMODE((tmp_path / "wake").stat().st_mode) == 0o600

    def test_nobody_has_ever_listened(self, tmp_path: Path) -> None:
        host.wake(tmp_path)
        assert not (tmp_path / "wake").exists()

    def test_nobody_listens_any_more(self, tmp_path: Path) -> None:
        os.close(host.make_wake_pipe(tmp_path))
        began = time.monotonic()
        host.wake(tmp_path)
        assert time.monotonic() - began < 1

    def test_a_full_pipe_does_not_hold_up_the_caller(self, tmp_path: Path) -> None:
        pipe = host.make_wake_pipe(tmp_path)
        try:
            while True:
                os.write(pipe, b"!" * 4096)
        except BlockingIOError as error:
            assert error.errno == errno.EAGAIN
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        host.wake(tmp_path)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        assert is_readable(pipe)
        os.close(pipe)

    def test_a_second_listener_takes_the_pipe_that_is_there(self, tmp_path: Path) -> None:
        os.close(host.make_wake_pipe(tmp_path))
        pipe = host.make_wake_pipe(tmp_path)
        host.wake(tmp_path)
        assert is_readable(pipe, 5)
        os.close(pipe)


def test_now_is_utc_in_milliseconds() -> None:
    assert abs(host.now_ms() - time.time() * 1000) < 1000
