"""The other ways that benchmarks compare with do their jobs for real, and a benchmark that is ended leaves nothing."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks import alternatives, claims, looking, machine, teams, ways
from benchmarks.machine import Machine
from lib.errors import NotFound, OrchestratorError
from tests.conftest import ROOT, Bench, wait_for

#: What needs none of it to be measured: enough to see that it works.
ONCE = teams.Counts(launches=1, ways=1, looks=1, starts=1)


@pytest.fixture
def installed(request: pytest.FixtureRequest) -> str:
    """The script of the test's parameter, if what it needs can be installed here."""
    script: str = request.param
    try:
        alternatives.interpreter(script)
    except NotFound as missing:
        pytest.skip(missing.sentence)
    return script


@pytest.fixture(scope="module")
def team() -> Iterator[Machine]:
    with machine.rehearsal() as made:
        teams.launch(made, teams.THREE, agent="rehearsal", spec=teams.HOLDS)
        for role in teams.THREE.split(","):
            made.wait_idle(role)
        yield made


def arrives(way: ways.Way, text: str) -> bool:
    way.seat.tidy()
    start = way.seat.size()
    way.send(text)
    return bool(wait_for(lambda: way.seat.read_since(start).count(text) == 1, f"{text!r} in the transcript"))


class TestMessages:
    def test_a_message_by_each_of_our_ways_is_seen_and_told(self, team: Machine) -> None:
        for way in (ways.ByDoor(team, "developer"), ways.ByDelivery(team, "developer")):
            text = f"Look at the login page, {way.name}."
            assert arrives(way, text)
            assert wait_for(lambda: way.has_told(text), "the acknowledgement")  # noqa: B023
            assert not way.is_pending(text)

    def test_a_message_by_send_keys_is_seen_and_nobody_is_told(self, team: Machine) -> None:
        way = ways.ByKeys(team, ways.Seat.of(team, "tester"))
        assert arrives(way, "Look at the login page, keys.")
        assert not way.has_told("Look at the login page, keys.")

    @pytest.mark.parametrize("installed", ["libtmux_panes.py"], indirect=True)
    def test_a_message_by_libtmux_is_seen(self, team: Machine, installed: str) -> None:
        with alternatives.Program(installed, team.environment, str(team.tmux.socket)) as program:
            assert arrives(ways.ByLibtmux(program, ways.Seat.of(team, "tester")), "Look at the login page, libtmux.")
            with pytest.raises(OrchestratorError, match="it has ended"):
                program.ask(send={"pane": "%999", "text": "nobody is there"})

    def test_what_is_left_in_a_composer_is_not_left_for_the_next_message(self, team: Machine) -> None:
        seat = ways.Seat.of(team, "tester")
        team.tmux.run("send-keys", "-t", seat.pane, "half a thought")
        wait_for(lambda: "half a thought" in seat.draft, "the draft")
        seat.tidy()
        assert seat.draft == ""


@pytest.mark.parametrize("installed", ["libtmux_panes.py"], indirect=True)
def test_libtmux_looks_at_every_pane(team: Machine, installed: str) -> None:
    with alternatives.Program(installed, team.environment, str(team.tmux.socket)) as program:
        assert program.ask(look=True)["panes"] == len(team.tmux.panes())


@pytest.mark.parametrize("installed", ["huey_queue.py"], indirect=True)
def test_huey_works_off_what_was_put_in(tmp_path: Path, installed: str) -> None:
    command = [
        str(alternatives.interpreter(installed)),
        str(alternatives.FOLDER / installed),
        str(tmp_path / "q.db"),
        "lax",
    ]

    def done(*words: str) -> int:
        said = subprocess.run([*command, *words], input="!", check=True, capture_output=True, text=True).stdout
        found = re.fullmatch(r"ready\n[\d.]+ (\d+)\n", said)
        assert found, said
        return int(found[1])

    assert [done("fill", "3"), done("work", "0"), done("work", "0")] == [3, 3, 0]


def test_claims_and_looks_are_measured_with_all_that_is_installed() -> None:
    of_claims, of_looks = claims.claims(ONCE), looking.panes(ONCE)
    assert [len(figure.values) for figure in of_claims] == [2, 2, 2, 2]
    assert [len(figure.values) for figure in of_looks] == [1, 1]
    for figure in (*of_claims, *of_looks):
        assert all(other.values or "could not be installed" in other.note for other in figure.alternatives)


def test_what_cannot_be_installed_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nothing.py").write_text('# /// script\n# dependencies = ["no-such-thing-at-all==1.0"]\n# ///\n')
    monkeypatch.setattr(alternatives, "FOLDER", tmp_path)
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(NotFound, match=r"no-such-thing-at-all 1\.0 could not be installed: ."):
        alternatives.interpreter("nothing.py")


def test_a_benchmark_that_is_interrupted_leaves_nothing(bench: Bench) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        place = Path(name)
        words = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "-k", "ways-rehearsal"]
        with subprocess.Popen(words, env=bench.environment | {"TMPDIR": name}, stderr=subprocess.PIPE) as running:
            wait_for(lambda: list(place.glob("orchestrator-benchmark-*/state/agents/5")), "a team", seconds=60)
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
        assert (running.returncode, list(place.iterdir()), _with_state_below(place)) == (130, [], []), said.decode()


def _with_state_below(place: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMUX_ORCHESTRATOR_HOME", "").startswith(str(place)):
                found.append(process.pid)
    return found
