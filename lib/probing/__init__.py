"""Probing: whether an installed Claude Code does what everything here relies on, seen before a team has to.

It runs in a scratch folder, with an environment made from nothing, a tmux server of its own, and a scripted model on
127.0.0.1: no account is used, and none could be. Each check is one thing that a room relies on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lib import config
from lib.errors import Unavailable
from lib.records import dataclass

if TYPE_CHECKING:
    import psutil

#: The longest that a whole probe may take: 20 s where all holds, 16 s more for each check that waits in vain.
MOST_SECONDS = 600.0
#: How long a check waits for what it looks for; most is there within one.
LOOK_SECONDS = 15.0
#: How much longer something is looked for that was not seen at first: a machine at work may be slow.
_PATIENCE = 2.0
#: How often it is looked for what a probe has started; what is killed may just have started something.
_ROUNDS = 10
#: Nobody listens there: whatever does not go to the scripted model fails at once, and inside this machine.
_NOWHERE = "http://127.0.0.1:9"


class Verdict(StrEnum):
    """What came of a check of a probe."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSEEN = "not looked at"


@dataclass(frozen=True)
class Result:
    """One check of a probe: what was relied on, and for what does not hold a sentence that says what was seen."""

    name: str
    verdict: Verdict
    said: str = ""


def judge(executable: str, *, tell: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Probe an installed Claude Code; what has failed counts only when it fails again. Raises as `probe` does."""
    results = {one.name: one for one in probe(executable, tell=tell)}
    failed = [one.name for one in results.values() if one.verdict is Verdict.FAILS]
    if failed:
        # After one that the others need, all of them are still to be looked at.
        is_cut = any(one.verdict is Verdict.UNSEEN for one in results.values())
        again = probe(executable, names=() if is_cut else failed, seconds=_PATIENCE * LOOK_SECONDS, tell=tell)
        results |= {one.name: one for one in again if is_cut or one.name in failed}
    return list(results.values())


def probe(
    executable: str,
    *,
    names: Sequence[str] = (),
    seconds: float = LOOK_SECONDS,
    tell: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Check an installed Claude Code by its path, in a process of its own. `tell` hears each result as it comes.

    `names` are the only checks, beside those without which nothing can be seen; none stands for all. `seconds` is how
    long each thing is looked for.

    Raises `Unavailable` when the probe itself could not be made or did not come to its end: that says nothing of
    Claude Code.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_place(), ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "lib.probing", folder, executable, str(seconds), *names]
        with _running(command, environment(Path(folder), os.environ), Path(folder)) as lines:
            results = []
            for line in lines:
                results.append(_result(line))
                if results[-1].name != END:
                    tell(results[-1])
    if not results or results[-1].name != END:
        raise Unavailable("the probe did not come to its end", hint="claude_control.py doctor --probe --verbose")
    return results[:-1]


def _place() -> str:
    """Where the scratch folder is made: the path of a socket takes 103 bytes at most (macOS; Linux 107)."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) < 60 else "/tmp"


_PREFIX = "orch-probe-"
#: The name of the line that says that a probe has come to its end.
END = "end"


def environment(folder: Path, of_shell: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a probe in a scratch folder. Of the shell it has where programs are, and no more."""
    return {
        "PATH": of_shell.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "TMUX_TMPDIR": str(folder / "tmp"),
        "TERM": "xterm-256color",
        "TMUX_ORCHESTRATOR_HOME": str(folder / "state"),
        "TMUX_ORCHESTRATOR_CONFIG": str(folder / "config.yaml"),
        "TMUX_ORCHESTRATOR_SOCKET": "probe",
        "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-not-a-real-token",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # lets root use bypassPermissions
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[Iterator[str]]:
    """The lines that a probe prints, while it runs; all that it has started is gone at the end of the block."""
    with (folder / "complaints").open("w+") as complaints:
        process = subprocess.Popen(
            command,
            cwd=config.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        timer = threading.Timer(MOST_SECONDS, process.kill)
        timer.start()
        try:
            yield iter(process.stdout)
            code, is_late = process.wait(), not timer.is_alive()
            if code:
                complaints.seek(0)
                words = complaints.read().strip().splitlines() or [f"it left with exit code {code}"]
                why = f"it took longer than {MOST_SECONDS:.0f} s" if is_late else words[-1]
                raise Unavailable(f"the probe did not come to its end: {why}")
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
            end_all(environment)


def end_all(environment: Mapping[str, str]) -> None:
    """End all that a probe has started: its tmux server, so that nothing starts anew, then whatever has its home."""
    import psutil  # noqa: PLC0415 - only a probe needs it

    from lib.tmux import Tmux  # noqa: PLC0415 - as above

    if shutil.which("tmux"):
        command = Tmux(environment["TMUX_ORCHESTRATOR_SOCKET"]).command("kill-server")
        subprocess.run(command, env=dict(environment), check=False, capture_output=True, timeout=20)
    for _ in range(_ROUNDS):
        left = [one for one in psutil.process_iter() if _has_home(one, environment["HOME"])]
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=1)


def _has_home(process: psutil.Process, home: str) -> bool:
    import psutil  # noqa: PLC0415 - as above

    try:
        return process.environ().get("HOME") == home and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # it has ended, or is another user's
        return False


def _result(line: str) -> Result:
    values = json.loads(line)
    return Result(values["name"], Verdict(values["verdict"]), values["said"])
