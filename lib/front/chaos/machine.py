"""The machine of a chaos test: its clock jumps, its disk is full or slow, for the processes of the ground alone.

It is done from outside, by a library that is preloaded into them (machine.c): no program of the toolkit has a switch.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lib.errors import OrchestratorError
from lib.records import dataclass

_SOURCE = Path(__file__).with_name("machine.c")
_COMPILES_WITHIN_SECONDS = 60


@dataclass
class Machine:
    """What can be changed of the machine. `folder` is for the library and what it is told; `disk` is what can be full.

    `why_not` says why nothing can be changed here; None when it can.
    """

    folder: Path
    disk: Path
    why_not: str | None = "the machine was not prepared"

    def prepare(self) -> dict[str, str]:
        """Compile the library. Returns the variables that load it; none when `why_not` says why not."""
        library = self.folder / "machine.so"
        self._told.write_bytes(struct.pack("=qqq", 0, 0, 0))
        self.why_not = _compile(library)
        if self.why_not:
            return {}
        return {"LD_PRELOAD": str(library), "CHAOS_MACHINE": str(self._told), "CHAOS_DISK": str(self.disk)}

    @property
    def _told(self) -> Path:
        return self.folder / "machine"

    @contextlib.contextmanager
    def clock_off(self, seconds: float) -> Iterator[None]:
        """The clock on the wall is off by so much, and jumps back at the end."""
        with self._tell(clock_ms=round(seconds * 1000)):
            yield

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """No write to a file of the disk succeeds."""
        with self._tell(is_full=1):
            yield

    @contextlib.contextmanager
    def slow_disk(self, seconds: float) -> Iterator[None]:
        """Every sync takes longer by so much."""
        with self._tell(sync_ms=round(seconds * 1000)):
            yield

    @contextlib.contextmanager
    def _tell(self, *, clock_ms: int = 0, is_full: int = 0, sync_ms: int = 0) -> Iterator[None]:
        if self.why_not:
            raise OrchestratorError(self.why_not)
        self._write(clock_ms, is_full, sync_ms)
        try:
            yield
        finally:
            self._write(0, 0, 0)

    def _write(self, *values: int) -> None:
        with self._told.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("=qqq", *values))


def _compile(library: Path) -> str | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "no C compiler (cc) is installed"
    if not Path("/proc/self/fd").exists():
        return "only Linux can be changed for some processes alone"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILES_WITHIN_SECONDS, check=False)
    return f"machine.c does not compile: {done.stderr.strip()[:200]}" if done.returncode else None
