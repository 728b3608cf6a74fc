"""Command lines of a project's own: run in a folder of it within a limit, and ended with all that they started."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from lib.errors import Usage
from lib.judgement import cleaning
from lib.records import dataclass

#: How much of an output is kept: its end, where test runners put their summary.
OUTPUT_BYTES = 2048
#: What shells say of a command that is not there, and `timeout` of one that took too long.
NOT_FOUND, TOO_LONG = 127, 124
_ENDS_WITHIN_SECONDS = 2.0


@dataclass(frozen=True)
class Ran:
    """A command line that was run: its exit code, and the end of what it printed."""

    command: str
    exit_code: int
    output: str


def run(
    command: str,
    folder: Path,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    output_bytes: int = OUTPUT_BYTES,
) -> Ran:
    """Run a command line in a folder, without a shell and with nobody to answer it.

    One that is not there counts as exit code 127, one that takes longer than `seconds` as 124; in the end all that it
    has started is ended. `environment` is added to the caller's. Raises `Usage` when it cannot be split into words.
    """
    words = words_of(command)
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=_environment(os.environ) | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Ran(command, NOT_FOUND, f"{words[0]}: {error.strerror}")
        try:
            ended = process.wait(timeout=seconds)
            code, note = ended if ended >= 0 else 128 - ended, ""  # by a signal: as shells count it
        except subprocess.TimeoutExpired:
            code, note = TOO_LONG, f"(ended after {seconds:g} s)"
        finally:
            _end_group(process)
        end = output.seek(0, os.SEEK_END)
        output.seek(max(0, end - output_bytes))
        tail = cleaning.clean(output.read().decode("utf-8", "replace")).strip()
    return Ran(command, code, "\n".join(part for part in (tail, note) if part))


def words_of(command: str) -> list[str]:
    """A command line as words. Raises `Usage` when it is empty or cannot be split."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Usage(f"the command {command!r} cannot be read: {error}") from None
    if not words:
        raise Usage("the command is empty", hint='for example "pytest -q"')
    return words


def find(program: str) -> str | None:
    """Where the program is that `run` would start; None when it is not installed."""
    return shutil.which(program, path=_environment(os.environ)["PATH"])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what a command has left running: nobody would look after it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.01)
        except ProcessLookupError:
            return


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    # A door runs in an environment of its own: the project's python and pytest must not be looked for in it.
    own = str(Path(sys.prefix) / "bin")
    path = [part for part in variables.get("PATH", os.defpath).split(os.pathsep) if part != own]
    return {
        **{name: value for name, value in variables.items() if name != "VIRTUAL_ENV"},
        "PATH": os.pathsep.join(path),
    }
