"""Looking back at a team that has really worked: its scheduler has recorded it, and is killed once."""

from __future__ import annotations

import os
import signal

from lib import host, recordings, service
from tests.conftest import Bench, wait_for


def test_what_a_team_showed_can_be_seen_afterwards(bench: Bench) -> None:
    project = bench.project(spec="# Wait\n\nrehearse: hold\n")
    words = ("--roles", "orchestrator,developer", "--agent", "rehearsal")
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), *words)
    began = host.now_ms()

    def shows(text: str, *more: str) -> bool:
        return text in bench.ok("claude_control.py", "moment", "webapp-impl", "--at", "now", "--screens", *more).out

    wait_for(lambda: recordings.path_in(bench.home).exists() and shows("not a real Claude Code"), "a recorded screen")
    first = host.now_ms()
    bench.ok("send-claude-message.sh", "webapp-impl:developer", "Say that it is Tuesday")
    wait_for(lambda: shows("it is Tuesday"), "the message on a recorded screen")
    process = service.running(bench.home)
    assert process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not host.is_alive(process), "the end of the scheduler")
    second = daemon_again(bench)
    assert second != process.pid
    bench.ok("send-claude-message.sh", "webapp-impl:developer", "Say that it is Wednesday")
    wait_for(lambda: shows("it is Wednesday"), "what the next scheduler has recorded")
    then = bench.ok("claude_control.py", "moment", "webapp-impl", "--at", str(first), "--screens").out
    assert "it is Tuesday" not in then and "not recorded" not in then
    changed = bench.ok(
        "claude_control.py", "moment", "webapp-impl", "--at", str(first), "--compare", "now", "--screens"
    )
    assert "Tuesday" in changed.out and "webapp-impl:developer: shown -> shown" in changed.out
    told = bench.ok("claude_control.py", "timeline", "webapp-impl", "--since", str(began)).out
    assert "user -> developer" in told and "it is Wednesday" in told
    bench.ok("claude_control.py", "stop", "webapp-impl")
    wait_for(lambda: shows("not recorded"), "the end of the recording")


def daemon_again(bench: Bench) -> int:
    bench.ok("claude_control.py", "send", "webapp-impl:orchestrator", "--no-wait", "Say hello")
    process = wait_for(lambda: service.running(bench.home), "the next scheduler")
    assert process
    return process.pid
