"""Commands of a project's own: what they leave with, what is kept of their output, and that nothing is left running."""

from __future__ import annotations

import os
import sys

import pytest

from lib import commands
from lib.errors import Usage
from tests.conftest import Bench

CODES = [
    # What it leaves with is its own.
    ("true", 0, ""),
    ("sh -c 'exit 3'", 3, ""),
    # Both outputs, in order.
    ("sh -c 'echo one; echo two >&2'", 0, "one\ntwo"),
    # A command that is not there.
    ("no-such-command --now", 127, "no-such-command: No such file or directory"),
    # A signal, as shells count it.
    ("sh -c 'kill -9 $$'", 137, ""),
    # Control characters of a colourful runner do not reach the message.
    ("printf '\\033[31mred\\033[0m'", 0, "red"),
    # Nobody types an answer.
    ("cat", 0, ""),
]


@pytest.mark.parametrize(("command", "code", "output"), CODES)
def test_a_command_says_how_it_ended(bench: Bench, command: str, code: int, output: str) -> None:
    ran = commands.run(command, bench.folder, seconds=20)
    assert (ran.exit_code, ran.output) == (code, output)


def test_the_end_of_a_long_output_is_kept(bench: Bench) -> None:
    ran = commands.run(f'{sys.executable} -c \'print("x" * 5_000_000); print("2 failed")\'', bench.folder, seconds=20)
    assert ran.output.endswith("x\n2 failed")
    assert len(ran.output) <= commands.OUTPUT_BYTES


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(bench: Bench) -> None:
    ran = commands.run("sh -c 'echo begun; sleep 1000 & echo $! > pid; wait'", bench.folder, seconds=0.5)
    assert (ran.exit_code, ran.output) == (124, "begun\n(ended after 0.5 s)")
    pid = int((bench.folder / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("command", ["", "   ", "echo 'open"])
def test_a_command_that_cannot_be_read_is_wrong_usage(bench: Bench, command: str) -> None:
    with pytest.raises(Usage):
        commands.run(command, bench.folder, seconds=1)


def test_the_projects_programs_are_not_looked_for_beside_the_door(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([f"{sys.prefix}/bin", "/usr/bin", "/bin"]))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    ran = commands.run("sh -c 'echo $PATH ${VIRTUAL_ENV-none}'", bench.folder, seconds=20)
    assert ran.output == "/usr/bin:/bin none"


def test_what_is_added_to_the_environment_is_there(bench: Bench) -> None:
    ran = commands.run("sh -c 'echo $PORT'", bench.folder, seconds=20, environment={"PORT": "4001"})
    assert ran.output == "4001"
