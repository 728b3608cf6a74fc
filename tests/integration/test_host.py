"""This machine: processes that cannot be mistaken, locks that end with their holder, the wake-up pipe."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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

    def test_one_of_another_boot_is_another(self) -> None:
        me = host.process(os.getpid())
        assert me and me.boot == host.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert not host.is_alive(replace(me, boot="of-yesterday"))

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
            assert time.monotonic() - began >= 0.2

    def test_an_error_in_the_block_lets_it_go_and_the_file_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a.lock").write_text("kept")
        with pytest.raises(ZeroDivisionError), host.lock(tmp_path / "a.lock"):
            raise ZeroDivisionError
        with host.lock(tmp_path / "a.lock"):
            assert (tmp_path / "a.lock").read_text() == "kept"


class TestIsHeld:
    def test_a_holder_is_seen_and_its_end_too(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lock"
        assert not host.is_held(path)
        assert not path.exists(), "looking makes nothing"
        holder = hold(path)
        try:
            assert host.is_held(path)
        finally:
            holder.kill()
            holder.wait()
        assert not host.is_held(path)

    def test_a_descriptor_that_a_child_got_holds_it_too(self, tmp_path: Path) -> None:
        with host.lock(tmp_path / "a.lock") as descriptor:
            child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
        try:
            assert host.is_held(tmp_path / "a.lock")
        finally:
            child.kill()
            child.wait()
        assert not host.is_held(tmp_path / "a.lock")


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
        host.wake(tmp_path)  # waits for nobody

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


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    descriptor = host.make_wake_pipe(tmp_path)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def child() -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Process]]]:
    """Start a process that sleeps, and say which it is."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> tuple[subprocess.Popen[bytes], Process]:
        process = subprocess.Popen(["sleep", "60"])
        started.append(process)
        known = host.process(process.pid)
        assert known
        return process, known

    yield begin
    for process in started:
        process.kill()
        process.wait()


Child = Callable[[], "tuple[subprocess.Popen[bytes], Process]"]
#: Longer than any test may take: who waits so long was not woken.
FOR_EVER = 600.0


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class TestWatch:
    def test_the_time_is_over(self, pipe: int) -> None:
        with host.Watch() as watch:
            began = time.monotonic()
            assert not watch.wait(pipe, 0.2)
            assert time.monotonic() - began >= 0.2
            assert not watch.wait(pipe, 0)

    def test_the_pipe_wakes_once_however_much_was_written(self, pipe: int, tmp_path: Path) -> None:
        with host.Watch() as watch:
            threading.Timer(0.2, host.wake, [tmp_path]).start()
            assert watch.wait(pipe, FOR_EVER)
            for _ in range(5):
                host.wake(tmp_path)
            assert watch.wait(pipe, FOR_EVER)
            assert not watch.wait(pipe, 0)

    def test_the_end_of_a_process_wakes_once(self, pipe: int, child: Child) -> None:
        process, known = child()
        with host.Watch() as watch:
            watch.follow([known])
            assert not watch.wait(pipe, 0.05)
            threading.Timer(0.2, process.kill).start()
            assert watch.wait(pipe, FOR_EVER)
            assert not host.is_alive(known)
            for _ in range(2):  # the store still names it
                watch.follow([known])
                assert not watch.wait(pipe, 0.05)

    def test_one_that_has_ended_before_it_was_followed_wakes_once(self, pipe: int, child: Child) -> None:
        (zombie, known), (process, other) = child(), child()
        for one in (zombie, process):
            one.kill()
        process.wait()  # and for the other one nobody has waited yet
        wait_for(lambda: not host.is_alive(known), "the child to end")
        with host.Watch() as watch:
            for ended in (known, other):
                watch.follow([ended])
                assert watch.wait(pipe, FOR_EVER)
                watch.follow([ended])
                assert not watch.wait(pipe, 0.05)

    def test_a_later_process_with_the_pid_is_not_followed(self, pipe: int, child: Child) -> None:
        process, known = child()
        before = open_descriptors()
        with host.Watch() as watch:
            watch.follow([replace(known, started=known.started - 1)])
            assert watch.wait(pipe, FOR_EVER)  # that one has ended
            assert open_descriptors() == before
            process.kill()
            process.wait()
            assert not watch.wait(pipe, 0.1)

    def test_of_many_each_end_is_noticed(self, pipe: int, child: Child) -> None:
        many = [child() for _ in range(40)]
        before = open_descriptors()
        with host.Watch() as watch:
            left = {known for _, known in many}
            watch.follow(left)
            assert open_descriptors() == before + 40
            for process, known in many:
                process.kill()
                assert watch.wait(pipe, FOR_EVER)
                process.wait()
                left.discard(known)
                watch.follow(left)
            assert not watch.wait(pipe, 0)
            assert open_descriptors() == before

    def test_who_is_no_longer_followed_wakes_nobody(self, pipe: int, child: Child) -> None:
        (one, known), (_, other) = child(), child()
        before = open_descriptors()
        with host.Watch() as watch:
            watch.follow([known, other])
            watch.follow([other])
            one.kill()
            one.wait()
            assert not watch.wait(pipe, 0.1)
        assert open_descriptors() == before

    def test_without_descriptors_of_processes_it_waits_for_the_pipe_only(
        self, pipe: int, child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def no_more(pid: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        _, known = child()
        for stand_in in (no_more, None):
            if stand_in:
                monkeypatch.setattr(os, "pidfd_open", stand_in)
            else:
                monkeypatch.delattr(os, "pidfd_open")
            with host.Watch() as watch:
                watch.follow([known])
                assert not watch.wait(pipe, 0.05)
                host.wake(tmp_path)
                assert watch.wait(pipe, FOR_EVER)


class TestTellingSystemd:
    @pytest.mark.parametrize("abstract", [False, True])
    def test_the_service_manager_is_told(self, abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = f"{tmp_path}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{name}" if abstract else name)
            manager.settimeout(10)
            monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
            before = open_descriptors()
            host.tell_systemd("READY=1")
            assert manager.recv(100) == b"READY=1"
            assert open_descriptors() == before

    @pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@nobody-listens", "vsock:2:1234"])
    def test_nobody_asks_or_listens(self, address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        if address is not None:
            monkeypatch.setenv("NOTIFY_SOCKET", address)
        host.tell_systemd("READY=1")

    def test_a_process_without_a_descriptor_left_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_more(*words: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-listens")
        monkeypatch.setattr(socket, "socket", no_more)
        host.tell_systemd("WATCHDOG=1")


def test_now_is_utc_in_milliseconds() -> None:
    assert abs(host.now_ms() - time.time() * 1000) < 1000
