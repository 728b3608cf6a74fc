"""The chaos tester: it holds on the code as it is, notices code that was broken on purpose, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.judgement.ordeals import KINDS
from tests.conftest import ROOT, Bench, Done, sampled, wait_for

NAMES = [kind.name for kind in KINDS]
#: What a run without --long takes.
QUICK = ("kill-daemon",)


@pytest.fixture
def place(bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A machine whose folder for what is passing is its own, so that anything left in it is seen."""
    passing = tmp_path / "passing"
    passing.mkdir()
    # tmux takes a socket's path of at most 107 bytes.
    short = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    bench.environment["TMPDIR"] = str(short)
    yield bench
    shutil.rmtree(short, ignore_errors=True)


def left(bench: Bench) -> list[str]:
    """What a tester has left: files, and processes of its ground."""
    folder = Path(bench.environment["TMPDIR"])
    found = [path.name for path in folder.iterdir()]
    said = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in said.splitlines() if f"{folder}/" in line]


def once(bench: Bench, kind: str, *, checkout: Path = ROOT, patience: int = 90) -> dict[str, Any]:
    """One strike of a kind, by the doors of a checkout. Returns what the scorecard says of it."""
    words = ("--only", kind, "--duration", "0.01", "--seed", "1", "--patience", str(patience), "--json")
    done = run(bench, *words, checkout=checkout)
    (strike,) = done.json["strikes"]
    assert done.code == (1 if strike["problems"] else 0)
    return dict(strike)


def run(bench: Bench, *words: str, checkout: Path = ROOT) -> Done:
    done = subprocess.run(
        [sys.executable, str(checkout / "chaos_tester.py"), *words],
        env=bench.environment,
        cwd=bench.folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class TestPlan:
    def test_a_dry_run_prints_the_plan_at_once_and_makes_nothing(self, place: Bench) -> None:
        words = ("chaos_tester.py", "--duration", "30", "--dry-run", "--seed", "7")
        done = place.ok(*words)
        assert done.out == place.ok(*words).out
        assert done.out.startswith("plan of seed 7: ")
        assert (left(place), place.home.exists()) == ([], False)

    def test_a_plan_without_a_seed_names_the_one_that_makes_it_again(self, place: Bench) -> None:
        drawn = place.ok("chaos_tester.py", "--dry-run", "--json").json
        again = place.ok("chaos_tester.py", "--dry-run", "--json", "--seed", str(drawn["seed"])).json
        assert drawn == again

    def test_intervals_that_mean_nothing_together_are_refused(self, place: Bench) -> None:
        done = place.door("chaos_tester.py", "--min-interval", "9", "--max-interval", "3", "--dry-run")
        assert done.code == 2
        assert "--min-interval is longer than --max-interval" in done.err


class TestStrikes:
    @pytest.mark.parametrize("kind", sampled(NAMES, QUICK))
    def test_a_team_comes_back_from_it(self, place: Bench, kind: str) -> None:
        found = once(place, kind)
        if found["skipped"]:
            pytest.skip(found["skipped"])
        assert found["problems"] == []
        assert found["promises"] > 6
        assert found["recovered_seconds"] is not None
        assert left(place) == []


class TestTeamOfAPerson:
    """With --session; the person's own team is one of rehearsal agents here."""

    @pytest.fixture
    def webapp(self, place: Bench) -> Bench:
        config = Path(place.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("agent: rehearsal\n")
        project = place.project(spec="# It takes its time\n\nrehearse: hold\n")
        place.ok(
            "auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer", "--no-ai"
        )
        return place

    def test_nothing_is_touched_without_a_word_or_that_is_not_its_own(self, webapp: Bench) -> None:
        webapp.tmux.run("new-session", "-d", "-s", "mine", "sleep", "600")
        before = webapp.rows("SELECT pid, epoch FROM agents")
        for words, code, said in (
            (("webapp-impl",), 2, "say so with --yes"),
            (("webapp-impl", "--yes", "--only", "kill-server"), 2, "kill-server is for rehearsal teams only"),
            (("mine", "--yes", "--only", "kill-agent"), 3, "no team in session 'mine'"),
        ):
            done = run(webapp, "--session", *words)
            assert (done.code, said in done.err) == (code, True), done.err
        assert webapp.rows("SELECT pid, epoch FROM agents") == before
        assert webapp.tmux.has_target("=mine")

    @pytest.mark.long
    def test_it_comes_back_and_lives_on(self, webapp: Bench) -> None:
        before = webapp.rows("SELECT conversation_id, epoch FROM agents ORDER BY id")
        words = ("--session", "webapp-impl", "--yes", "--seed", "1", "--patience", "20", "--duration", "0.01")
        done = run(webapp, *words, "--only", "kill-agent")
        assert done.code == 0, done.out
        done = run(webapp, *words, "--only", "kill-daemon")
        assert done.code == 0, done.out
        after = webapp.rows("SELECT conversation_id, epoch FROM agents ORDER BY id")
        assert [row["conversation_id"] for row in after] == [row["conversation_id"] for row in before]
        assert sum(row["epoch"] for row in after) == sum(row["epoch"] for row in before) + 1
        assert webapp.rows("SELECT status FROM orchestrations") == [{"status": "running"}]
        assert webapp.rows("SELECT 1 FROM check_ins WHERE status = 'scheduled' AND note LIKE 'chaos%'") == []
        assert not list(webapp.folder.rglob("draft.txt"))
        assert [one for one in left(webapp) if "orchestrator-chaos" in one] == []


class TestLeavesNothing:
    @pytest.mark.parametrize("how", sampled([signal.SIGINT, signal.SIGTERM], [signal.SIGINT]))
    def test_after_ctrl_c_nothing_is_left(self, place: Bench, how: signal.Signals) -> None:
        tester = begun(place)
        tester.send_signal(how)
        assert tester.wait(timeout=60) == 130
        assert left(place) == []

    @pytest.mark.long
    def test_what_a_killed_tester_has_left_the_next_one_removes(self, place: Bench) -> None:
        tester = begun(place)
        tester.kill()
        tester.wait()
        assert left(place) != []
        once(place, "kill-agent")
        assert left(place) == []


def begun(bench: Bench) -> subprocess.Popen[bytes]:
    """A tester in the middle of its work: agents run on its ground."""
    command = [sys.executable, str(ROOT / "chaos_tester.py"), "--only", "kill-agent", "--seed", "1"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    tester = subprocess.Popen(command, env=bench.environment, cwd=bench.folder, **quiet)
    wait_for(lambda: any("lib.rehearsal" in line for line in left(bench)), "its agents")
    assert os.getpgid(tester.pid)
    return tester
