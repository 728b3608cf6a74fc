"""Each strike against code that was broken on purpose: the chaos tester has to say what is wrong.

The code is a copy of the checkout with one place changed, so that doors, scheduler and errands run it for real.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.judgement.ordeals import KINDS
from tests.conftest import ROOT, Bench, sampled
from tests.integration.test_chaos import left, once, place

__all__ = ["place"]  # the fixture


@dataclass(frozen=True)
class Defect:
    """A place of the code, what stands there, what is put there, and what the tester has to say."""

    kind: str
    file: str
    was: str
    becomes: str
    said: str
    #: How many seconds a recovery may take. Sound code recovers from most strikes in less than this.
    patience: int = 15


DEFECTS = (
    # Nobody starts agents again.
    Defect(
        "kill-agent",
        "lib/daemon.py",
        "if beat.life.settings.recovery.enabled:\n        beat.dues",
        "if False:\n        beat.dues",
        "is gone",
    ),
    Defect("kill-server", "lib/keeping.py", "missing = _missing(db, found)", "missing = None", "is gone"),
    # A command that needs the scheduler does not start it.
    Defect(
        "kill-daemon", "lib/front/reminding.py", "if sentence := service.ensure(home):", "if False:", "no scheduler"
    ),
    # Nobody delivers what a sender that died has left.
    Defect(
        "kill-sender",
        "lib/daemon.py",
        "waiting = [agent for agent in _with_messages(beat) if not _says_why_it_waits(beat, agent)]",
        "waiting: list[Agent] = []",
        "messages wait",
    ),
    # Enter is pressed once and never again.
    Defect(
        "swallowed-enter",
        "lib/composer.py",
        'return screens.ends_with_line(self.draft() or "", line)',
        "return False",
        "messages wait",
    ),
    # Whatever stands in a window is put away with Escape.
    Defect(
        "dialog",
        "lib/composer.py",
        "            case AgentState.ASKING:\n",
        "            case AgentState.ASKING:\n                self._press(ESCAPE)\n",
        "has answered the question",
    ),
    # Whoever asks tmux does not wait for the answer.
    Defect(
        "stop-server",
        "lib/tmux.py",
        "                stdin=subprocess.DEVNULL,\n                check=False,",
        "                stdin=subprocess.DEVNULL,\n                check=False,\n                timeout=2,",
        "a door met a bug",
    ),
    # What was due while nobody looked is left out.
    Defect(
        "stop-daemon",
        "lib/checkins.py",
        "    _follow_clock(db, now)\n",
        "    _follow_clock(db, now)\n"
        "    late = \"status = 'scheduled' AND due_at < ?\"\n"
        "    db.execute(f\"UPDATE check_ins SET status = 'dead' WHERE {late}\", [now - 2000])\n",
        "is lost",
    ),
    # Nobody lets agents go on after a limit.
    Defect(
        "usage-limit", "lib/governor.py", "    if limits.is_due(limit, turn.now):", "    if False:", "messages wait"
    ),
    # A merge that failed is not tried again.
    Defect("git-lock", "lib/merging/integrations.py", "PAUSE_SECONDS = (2,", "PAUSE_SECONDS = (600,", "merge hub"),
    # The author of what cannot be merged does not hear of it.
    Defect(
        "conflict", "lib/merging/hub.py", "        _tell_author(bench, one, text)\n        if", "        if", "is lost"
    ),
    # Whoever finds the store locked does not wait.
    Defect("slow-disk", "lib/store.py", "_BUSY_SECONDS = 30.0", "_BUSY_SECONDS = 0.2", "locked"),
    # A door that has failed leaves with 0.
    Defect(
        "full-disk",
        "lib/front/cli.py",
        "        sys.exit(error.exit_code)\n    except (Key",
        "        sys.exit(0)\n    except (Key",
        "is lost",
    ),
    # A cut that takes more than what was being written: nothing could bring that back.
    Defect("torn-log", "lib/front/chaos/strikes.py", 'log.open("ab")', 'log.open("r+b")', ""),
    # What was decided by the clock of before is waited for.
    Defect("clock-jump", "lib/checkins.py", "    _follow_clock(db, now)\n", "", "is lost", patience=80),
    # A process is known by its pid alone.
    Defect("reboot", "lib/host.py", "and process(known.pid) == known", "and process(known.pid) is not None", ""),
)
QUICK = ("conflict",)


def broken_copy(folder: Path, defect: Defect) -> Path:
    """A checkout whose code has the defect."""
    copy = folder / "checkout"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "benchmarks")
    shutil.copytree(ROOT, copy, ignore=ignored)
    path = copy / defect.file
    text = path.read_text()
    assert text.count(defect.was) == 1, f"{defect.file} has changed: make the defect of {defect.kind} anew"
    path.write_text(text.replace(defect.was, defect.becomes))
    return copy


def test_there_is_a_defect_for_each_strike() -> None:
    assert sorted(defect.kind for defect in DEFECTS) == sorted(kind.name for kind in KINDS)


@pytest.mark.parametrize("kind", sampled([defect.kind for defect in DEFECTS], QUICK))
def test_it_is_noticed(place: Bench, tmp_path: Path, kind: str) -> None:
    (defect,) = (defect for defect in DEFECTS if defect.kind == kind)
    found = once(place, defect.kind, checkout=broken_copy(tmp_path, defect), patience=defect.patience)
    if found["skipped"]:
        pytest.skip(found["skipped"])
    assert found["problems"] != []
    assert any(defect.said in one for one in found["problems"]), found["problems"]
    assert left(place) == []
