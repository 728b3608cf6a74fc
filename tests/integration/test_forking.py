"""Doors that are forked for the tests, beside the same doors as they are started otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from lib import service
from tests import forking
from tests.conftest import ROOT, Bench, wait_for

CALLS: list[tuple[str, tuple[str, ...]]] = [
    ("claude_control.py", ("--help",)),
    ("claude_control.py", ("status", "--json")),
    ("claude_control.py", ("status", "nobody")),
    ("claude_control.py", ("send", "nobody:0", "-")),
    ("scheduler.py", ("--nonsense",)),
    ("auto_orchestrate.py", ("--spec", "here.md")),
]


@pytest.mark.parametrize(("door", "words"), CALLS, ids=lambda one: one if isinstance(one, str) else "-".join(one))
def test_a_forked_door_does_what_a_started_one_does(bench: Bench, door: str, words: Sequence[str]) -> None:
    assert forking.fits(bench.environment)
    command = [str(ROOT / door), *words]
    call = forking.Call(command, bench.folder, bench.environment)
    forked = forking.run(call, stdin="What was piped", seconds=60)
    started = subprocess.run(
        [sys.executable, *command],
        cwd=bench.folder,
        env=bench.environment,
        input="What was piped",
        capture_output=True,
        text=True,
        check=False,
    )
    assert forked == (started.returncode, started.stdout, started.stderr)


def test_what_a_python_reads_at_its_start_is_not_forked(bench: Bench) -> None:
    values = {"PATH": "/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "TMPDIR": str(bench.folder), "LD_PRELOAD": "clock.so"}
    for name, value in values.items():
        assert not forking.fits(bench.environment | {name: value})


def test_one_that_takes_too_long_is_killed(bench: Bench) -> None:
    call = forking.Call([str(ROOT / "scheduler.py"), "--daemon"], bench.folder, bench.environment)
    with pytest.raises(subprocess.TimeoutExpired):
        forking.run(call, stdin="", seconds=3)
    wait_for(lambda: service.running(bench.home) is None, "the end of what was killed")
