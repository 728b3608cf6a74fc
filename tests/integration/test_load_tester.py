"""load_tester.py: a small load for real; what is lost is told; nothing is left behind, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lib import agents, host, messages, service, store
from lib.errors import ExitCode, OrchestratorError
from lib.front import sandbox
from lib.front.load import traffic
from lib.front.sandbox import Sandbox
from lib.models import MessageKind
from tests import terminals
from tests.conftest import ROOT, Bench, wait_for

DOOR = "load_tester.py"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: that of a socket has room for a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="load-", dir="/tmp") as name:
        yield Path(name)


def of(folder: Path) -> list[int]:
    """The processes that run with anything below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in process.environ().get("TMUX_ORCHESTRATOR_HOME", ""):
                found.append(process.pid)
    return found


def assert_nothing_is_left(folder: Path) -> None:
    assert of(folder) == []
    assert list(folder.iterdir()) == []


@contextlib.contextmanager
def running(bench: Bench, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The door while it runs, with a folder of its own for all that it makes."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / DOOR), *words],
        env=bench.environment | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as door:
        try:
            yield door
        finally:
            if door.poll() is None:
                door.terminate()


def home_of(folder: Path) -> Path | None:
    """The state home of the load that is made in a folder, once its store is there."""
    return next((path.parent for path in folder.glob("orchestrator-load-*/state/orchestrator.db")), None)


def test_a_small_load_loses_nothing_and_leaves_nothing(bench: Bench, short: Path) -> None:
    with running(bench, short, "--json", "concurrent", "--count", "2", "--interval", "0", "--hold", "4") as door:
        out, err = door.communicate(timeout=170)
    found = json.loads(out)
    assert door.returncode == ExitCode.DONE, (found["losses"], found["failures"], err)
    assert err == "", "JSON is all that is said"
    (step,) = found["steps"]
    assert (step["orchestrations"], step["agents"]) == (2, 10)
    assert step["launches"]["count"] == 2
    assert step["messages"]["count"] >= 2
    assert step["check_ins"]["count"] >= 1
    assert step["beats"]["count"] >= 1
    for group, most in (("scheduler", 1), ("agents_took", 10), ("tmux", 1), ("tester", 1)):
        took = step[group]
        assert took["processes"] == most
        assert took["memory_bytes"] > 1_000_000
        assert took["handles"] > 0
    assert set(found["losses"].values()) == {0}
    assert found["ok"] is True
    assert_nothing_is_left(short)
    assert not bench.home.exists(), "the state home of who calls is not touched"


def test_a_ramp_measures_each_step_and_shows_it_in_lines(bench: Bench, short: Path) -> None:
    with running(bench, short, "ramp", "--max", "2", "--duration", "2", "--hold", "1", "--rate", "3") as door:
        out, err = door.communicate(timeout=170)
    assert door.returncode == ExitCode.DONE, out
    heads = [line.split(",")[0] for line in out.splitlines() if line[0].isdigit()][1:]
    assert heads == ["1 orchestrations", "2 orchestrations"]
    assert "lost: nothing" in out
    assert "2 of 2 orchestrations launched" in err
    assert_nothing_is_left(short)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_leaves_nothing(bench: Bench, short: Path, number: signal.Signals) -> None:
    with running(bench, short, "concurrent", "--count", "2", "--interval", "0", "--hold", "100") as door:
        # In the middle of a launch: some of it stands, and doors are about to start more.
        wait_for(lambda: (home := home_of(short)) and _agents_alive(home), "an agent")
        door.send_signal(number)
        time.sleep(0.1)
        door.send_signal(number)  # impatience changes nothing
        _, err = door.communicate(timeout=60)
    assert door.returncode == ExitCode.INTERRUPTED, err
    assert err.endswith("interrupted\n")
    assert_nothing_is_left(short)


def _agents_alive(home: Path) -> list[int]:
    db = store.connect(home)
    try:
        return [one.process.pid for one in agents.live(db) if one.process and host.is_alive(one.process)]
    finally:
        db.close()


def test_what_is_lost_is_told_and_fails(bench: Bench, short: Path) -> None:
    # An agent that is at work until long after the end takes nothing more.
    script = (
        "import sys; from lib.front.load import trial; trial._ARRIVES_WITHIN_SECONDS = 5.0;"
        f"sys.argv[0] = {str(ROOT / DOOR)!r}; sys.path.insert(0, {str(ROOT)!r});"
        "import load_tester; load_tester.cli.run(load_tester.main)"
    )
    command = [sys.executable, "-c", script, "--json", "concurrent", "--count", "1", "--hold", "12", "--rate", "5"]
    with subprocess.Popen(
        command, env=bench.environment | {"TMPDIR": str(short)}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as door:
        wait_for(lambda: (home := home_of(short)) and _has_messages(home), "the first message")
        home = home_of(short)
        assert home
        _keep_busy(home)
        out, _ = door.communicate(timeout=120)
    found: Any = json.loads(out)
    assert door.returncode == ExitCode.FAILED
    assert found["losses"]["unacknowledged"] >= 1
    assert found["ok"] is False
    assert_nothing_is_left(short)


def _keep_busy(home: Path) -> None:
    db = store.connect(home)
    try:
        one = agents.live(db)[0]
        messages.queue(db, one, "rehearse: busy 1000", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        host.wake(home)
    finally:
        db.close()


def _has_messages(home: Path) -> bool:
    db = store.connect(home)
    try:
        return bool(db.execute("SELECT 1 FROM messages WHERE body LIKE 'Message % of the load%'").fetchone())
    finally:
        db.close()


SHOWS = """
from lib.front.cli import Output
from lib.front.load import report
from lib.judgement import loads
with report.shown(Output(json={is_json}), loads.concurrent(2, interval=1, hold=60, rate=1)) as told:
    told("measuring [2] orchestrations", 30.0)
"""


@pytest.mark.parametrize("is_json", [False, True])
def test_a_person_at_a_terminal_sees_a_bar(bench: Bench, is_json: bool) -> None:
    command = [sys.executable, "-c", SHOWS.format(is_json=is_json)]
    code, shown = terminals.written(command, bench.environment | {"COLUMNS": "120"}, stderr=True)
    assert code == 0
    assert ("measuring [2] orchestrations" in shown, "━" in shown) == (not is_json, not is_json)


# -- the sandbox --


@pytest.fixture
def place(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    yield short


def test_a_sandbox_takes_nothing_of_an_account_along(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("TMUX", "/tmp/somebody,1,0")
    with sandbox.made("test", settings="agent: rehearsal\n", variables={"MORE": "1"}) as made:
        assert set(made.environment) & {"ANTHROPIC_API_KEY", "TMUX", "TMUX_PANE", "XDG_STATE_HOME"} == set()
        assert made.environment["MORE"] == "1"
        inside = [made.environment[name] for name in ("HOME", "TMPDIR", "TMUX_ORCHESTRATOR_HOME")]
        assert all(Path(one).is_relative_to(made.folder) for one in inside)
        assert Path(made.tmux.socket or "").is_relative_to(made.folder)
    assert_nothing_is_left(place)


def test_what_was_started_in_a_sandbox_ends_with_it(place: Path) -> None:
    with sandbox.made("test") as made:
        made.start("scheduler.py", "--daemon", "--quiet")
        subprocess.run(made.tmux.command("new-session", "-d", "sleep 1000"), env=made.environment, check=True)
        # Nobody's child any more, in a session of its own, deaf to all but SIGKILL.
        deaf = "import os,signal,time; os.fork() and os._exit(0); os.setsid(); signal.signal(15, 1); time.sleep(1000)"
        subprocess.run([sys.executable, "-c", deaf], env=made.environment, check=True)
        wait_for(lambda: service.running(made.home), "the scheduler")
        assert len(of(place)) >= 4
    assert_nothing_is_left(place)


KILLED = """
import os, signal
from lib.front import sandbox
with sandbox.made("test") as made:
    made.tmux.run("new-session", "-d", "sleep 1000")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_trial_has_left_the_next_of_its_name_removes(bench: Bench, place: Path) -> None:
    environment = bench.environment | {"TMPDIR": str(place)}
    subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=environment, check=False)
    (left,) = place.glob("orchestrator-test-*")
    with sandbox.made("other"):
        assert left.exists()
    with sandbox.made("test"):
        assert not left.exists()
    assert_nothing_is_left(place)


def test_a_trial_that_runs_is_left_alone_by_the_next_of_its_name(place: Path) -> None:
    with sandbox.made("test") as made:
        sandbox.remove_abandoned("test")
        assert made.folder.exists()


def test_what_does_not_end_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_ENDED_WITHIN_SECONDS", 0.1)
    monkeypatch.setattr(Sandbox, "processes", lambda self: [host.ended(1)])
    with pytest.raises(OrchestratorError, match="do not end: 1"), sandbox.made("test"):
        pass


def test_a_signal_ends_the_block_once_and_the_old_handlers_come_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Sandbox.end

    def end_disturbed(made: Sandbox) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        end(made)

    monkeypatch.setattr(Sandbox, "end", end_disturbed)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt), sandbox.made("test") as made:
        subprocess.run(made.tmux.command("new-session", "-d", "sleep 1000"), env=made.environment, check=True)
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert_nothing_is_left(place)


def test_messages_have_many_lengths_and_say_which_they_are() -> None:
    bodies = [traffic.body(number) for number in range(24)]
    assert len(set(bodies)) == 24
    assert {len(body) > 1000 for body in bodies} == {"\n" in body for body in bodies} == {True, False}
