"""A terminal that a door writes to, and what it has been told when the door ends."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def written(
    command: Sequence[str], environment: Mapping[str, str], *, stdout: bool = False, stderr: bool = False
) -> tuple[int, str]:
    """Run a command with one of its outputs on a terminal. Returns its exit code and all that the terminal got."""
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        command,
        stdout=writing if stdout else subprocess.DEVNULL,
        stderr=writing if stderr else subprocess.DEVNULL,
        env=dict(environment),
    )
    os.close(writing)
    found = b""
    try:
        while part := os.read(reading, 65536):
            found += part
    except OSError:  # Linux says so when nobody can write any more
        pass
    os.close(reading)
    return process.wait(), found.decode()
