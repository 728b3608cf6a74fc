"""The recording of screens: real windows of tmux and a real file; the clock is virtual."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib import daemon, host, recorder, recordings, store
from lib.config import RecordingSettings, Settings
from lib.errands import Errands
from lib.errors import OrchestratorError, Unavailable
from lib.models import AgentState
from lib.recorder import Recorder
from lib.recordings import Picture, Seen, Writer
from lib.tmux import Look, Pane, Tmux
from tests.conftest import ROOT, Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

SECOND = 1000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
RED = "\x1b[31m"


class Studio:
    """A team whose windows are recorded, look by look."""

    def __init__(self, team: StillTeam) -> None:
        self.team, self.db, self.bench = team, team.db, team.bench
        self.recorder, self.now = Recorder(), 1_000_000 * SECOND
        self.terms = RecordingSettings()

    def id(self, role: str) -> int:
        return self.team.agent(role).id

    def shows(self, role: str, text: str) -> None:
        """Have a program write to a role's window, and wait until tmux has it."""
        pane = self.team.agent(role).pane_id or ""
        tty = self.bench.tmux.run("display-message", "-p", "-t", pane, "#{pane_tty}").strip()
        before = self.bench.tmux.screens([pane])
        with Path(tty).open("w", encoding="utf-8", newline="") as terminal:
            terminal.write(text)
        wait_for(lambda: self.bench.tmux.screens([pane]) != before, "the window to change")

    def look(self, seconds: float = 2, *, is_lively: bool = True) -> recorder.Look:
        self.now += round(seconds * SECOND)
        return recorder.look(
            self.db, self.bench.tmux, self.bench.home, self.recorder, self.terms, is_lively=is_lively, now=self.now
        )

    def shots(self) -> int:
        with sqlite3.connect(recordings.path_in(self.bench.home)) as db:
            return int(db.execute("SELECT count(*) FROM shots").fetchone()[0])

    def at(self, role: str, moment: int) -> Seen | None:
        """What is known of a role at a time; None for nothing."""
        reader = recordings.reader(self.bench.home)
        if reader is None:
            return None
        found = reader.at([self.id(role)], moment)
        reader.close()
        return found[self.id(role)].seen if found else None

    def text(self, role: str, moment: int | None = None) -> str | None:
        """What a role's window showed; None when it had none. Fails when nothing is known."""
        seen = self.at(role, self.now if moment is None else moment)
        assert seen
        return seen.picture.text if seen.picture else None

    def notices(self) -> list[str]:
        return [row["body"] for row in self.bench.rows("SELECT body FROM notices ORDER BY id")]


@pytest.fixture
def studio(still_team: StillTeam) -> Iterator[Studio]:
    made = Studio(still_team)
    yield made
    made.recorder.close()


class TestLook:
    def test_a_screen_comes_back_as_it_was_at_each_time(self, studio: Studio) -> None:
        shown = {}
        for number in range(5):
            studio.shows("developer", f"{RED}step {number}\x1b[0m done\r\n")
            studio.look()
            shown[studio.now] = studio.bench.tmux.look(studio.team.agent("developer").pane_id or "").screen
        for at, screen in shown.items():
            assert studio.text("developer", at) == screen.rstrip("\n")
            assert studio.text("developer", at + SECOND) == screen.rstrip("\n")
        assert f"{RED}step 4" in (studio.text("developer") or "")
        seen = studio.at("developer", studio.now)
        assert seen and seen.picture and (seen.picture.columns, seen.picture.rows) == (200, 50)

    def test_a_blank_screen_no_window_and_nothing_recorded_are_three_things(self, studio: Studio) -> None:
        before = studio.now
        studio.look()
        assert studio.text("tester") == ""
        assert studio.at("tester", before) is None
        studio.bench.tmux.run("kill-pane", "-t", studio.team.agent("tester").pane_id or "")
        studio.look()
        assert studio.at("tester", studio.now) == Seen(AgentState.GONE, None)
        assert studio.text("tester", studio.now - SECOND) == ""

    def test_what_has_not_changed_is_neither_captured_nor_recorded(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studio.shows("developer", "still\r\n")
        studio.look()
        time.sleep(1.1)  # tmux tells whole seconds: only now is it sure that nothing came after the capture
        studio.look()
        shots, screens = studio.shots(), Tmux.screens
        asked: list[list[str]] = []

        def noted(tmux: Tmux, panes: list[str]) -> dict[str, str]:
            asked.append(panes)
            return screens(tmux, panes)

        monkeypatch.setattr(Tmux, "screens", noted)
        studio.look()
        assert asked == [[]] and studio.shots() == shots
        assert "still" in (studio.text("developer") or "")
        studio.shows("developer", "moved\r\n")
        asked.clear()
        studio.look()
        assert asked == [[studio.team.agent("developer").pane_id]]
        assert studio.shots() == shots + 1

    def test_of_many_windows_a_look_takes_some_and_the_next_the_others(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recorder, "MOST_CAPTURES", 3)
        assert len(studio.look().captured) == 3
        assert [role for role in ("orchestrator", "developer", "tester", "testrunner") if studio.at(role, studio.now)]
        studio.look()
        assert all(studio.at(role, studio.now) for role in ("orchestrator", "developer", "tester", "testrunner"))

    def test_a_window_that_goes_while_it_is_looked_at_costs_one_look(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = studio.bench.tmux.panes()
        studio.bench.tmux.run("kill-pane", "-t", studio.team.agent("tester").pane_id or "")
        with monkeypatch.context() as late:
            late.setattr(Tmux, "panes", lambda _: listed)
            studio.recorder.pause_ms = MINUTE
            due = studio.look().due
        assert due == studio.now + 2 * SECOND
        assert studio.at("developer", studio.now) is None
        studio.look(is_lively=False)
        assert studio.text("developer") == "" and studio.text("tester") is None

    def test_looks_become_rarer_while_nothing_changes_and_a_hook_brings_one(self, studio: Studio) -> None:
        pauses = []
        for _ in range(8):
            due = studio.look(studio.recorder.pause_ms / SECOND or 2, is_lively=False).due
            assert due
            pauses.append((due - studio.now) / SECOND)
        assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
        assert studio.look(30, is_lively=False).captured == {}  # it is not due yet
        studio.shows("developer", "at work\r\n")
        assert studio.look(1, is_lively=True).captured
        assert studio.recorder.pause_ms == 2 * SECOND

    def test_an_agent_of_a_team_that_has_ended_is_followed_no_more(self, studio: Studio) -> None:
        studio.look()
        studio.team.end()
        assert studio.look().due is None
        assert studio.at("developer", studio.now) is None
        assert studio.at("developer", studio.now - SECOND)
        assert studio.recorder.writer is None

    def test_what_was_captured_for_the_recording_is_not_captured_again_in_the_same_beat(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studio.shows("developer", "once\r\n")
        life = daemon.Life(Settings(), Errands(studio.bench.home))
        beat = daemon.Beat(studio.db, studio.bench.tmux, studio.bench.home, host.now_ms(), life)
        daemon.record_screens(beat)

        def refuse(*_: object) -> Look:
            raise AssertionError

        monkeypatch.setattr(Tmux, "look", refuse)
        assert "once" in (daemon._window(beat, studio.team.agent("developer")) or "")
        life.recorder.close()

    @pytest.mark.parametrize("enabled", [True, False])
    def test_the_setting_turns_it_off(self, studio: Studio, enabled: bool) -> None:
        settings = Settings(recording=replace(studio.terms, enabled=enabled))
        life = daemon.Life(settings, Errands(studio.bench.home))
        daemon.tick(studio.db, studio.bench.tmux, studio.bench.home, now=host.now_ms(), life=life)
        life.recorder.close()
        assert recordings.path_in(studio.bench.home).exists() == enabled

    def test_no_other_control_sequences_than_colours_are_kept(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studio.shows("developer", "\x1b]0;title\x07\x1b)0\x0elqk\x0f \x1b[1;31mred\x1b[0m\r\n")
        studio.look()
        assert "┌─┐ \x1b[1m\x1b[31mred" in (studio.text("developer") or "")
        # A later tmux captures the addresses of links as well.
        linked = "\x1b]8;;http://x/\x1b\\a link\x1b]8;;\x1b\\ \x1b[2J\n"
        monkeypatch.setattr(Tmux, "screens", lambda _, panes: dict.fromkeys(panes, linked))
        studio.recorder = Recorder()
        studio.look()
        assert studio.text("developer") == "a link "

    def test_the_files_are_for_this_user_alone(self, studio: Studio) -> None:
        before = os.umask(0)
        try:
            studio.look()
        finally:
            os.umask(before)
        files = list(studio.bench.home.glob("screens.db*"))
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


class TestGaps:
    def test_while_nobody_looked_nothing_is_known(self, studio: Studio) -> None:
        studio.look()
        last = studio.now
        studio.look(3600)  # the machine slept
        assert studio.at("developer", last + recordings.GAP_MS)
        assert studio.at("developer", last + recordings.GAP_MS + 1) is None
        assert studio.at("developer", studio.now)

    def test_a_clock_that_was_set_back_begins_a_new_run(self, studio: Studio) -> None:
        studio.look()
        studio.shows("developer", "later\r\n")
        studio.look()
        studio.look(-600)
        assert "later" in (studio.text("developer") or "")

    def test_a_scheduler_that_begins_anew_records_on(self, studio: Studio) -> None:
        studio.shows("developer", "first\r\n")
        studio.look()
        first = studio.now
        studio.recorder = Recorder()  # the one before was killed
        studio.shows("developer", "second\r\n")
        studio.look(20)
        assert "second" not in (studio.text("developer", first) or "")
        assert "second" in (studio.text("developer") or "")

    def test_a_scheduler_killed_at_any_write_leaves_a_file_that_can_be_read_and_goes_on(
        self, studio: Studio, bench: Bench, is_long: bool
    ) -> None:
        program = (
            "import os, signal, sqlite3, sys\nfrom lib import config\nfrom lib.models import AgentState\n"
            "from lib.recordings import Picture, Seen, Writer\nconnect, said = sqlite3.connect, []\n"
            "def look(statement):\n"
            "    said.append(statement)\n"
            "    if len(said) == int(sys.argv[1]):\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "def watched(*words, **more):\n"
            "    db = connect(*words, **more)\n"
            "    db.set_trace_callback(look)\n"
            "    return db\n"
            "sqlite3.connect = watched\nwriter = Writer(config.state_home(), now=0)\n"
            "for number in range(4):\n"
            "    picture = Picture(80, 24, f'{number} ' * 50)\n"
            "    writer.add({7: Seen(AgentState.WORKING, picture)}, now=1000 * number)\n"
            "writer.prune(now=4000, days=1, most_bytes=10**9)\nprint('whole')\n"
        )
        for number in range(1, 200):
            for path in bench.home.glob("screens.db*"):
                path.unlink()
            done = subprocess.run(
                [sys.executable, "-c", program, str(number)], cwd=ROOT, env=bench.environment, capture_output=True
            )
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            reader = recordings.reader(bench.home)
            found = reader.at([7], 10_000) if reader else {}
            if reader:
                reader.close()
            assert all(shot.seen.picture for shot in found.values())
            writer = Writer(bench.home, now=20_000)
            writer.add({7: Seen(AgentState.IDLE, Picture(80, 24, "on"))}, now=20_000)
            writer.close()
            reader = recordings.reader(bench.home)
            assert reader
            assert reader.at([7], 20_000)[7].seen.picture == Picture(80, 24, "on")
            reader.close()
            if done.returncode == 0:
                break
        assert done.stdout == b"whole\n" and number > 30


class TestTrouble:
    def test_a_damaged_file_is_moved_aside_and_told_once(self, studio: Studio) -> None:
        path = recordings.path_in(studio.bench.home)
        path.write_bytes(b"no database at all " * 500)
        studio.look()
        assert path.with_name("screens.db.damaged").exists()
        studio.look()
        assert studio.text("developer") == ""
        assert len(studio.notices()) == 1 and "was damaged" in studio.notices()[0]
        studio.recorder.close()
        path.write_bytes(b"again " * 5000)
        for _ in range(3):
            studio.look()
        assert len(studio.notices()) == 1  # what is damaged again at once is one trouble, and left alone for a while
        assert not path.exists()
        studio.look(recorder.AGAIN_MS / SECOND)
        assert studio.text("developer") == ""

    def test_a_file_that_is_damaged_while_it_is_recorded_stops_nothing(self, studio: Studio) -> None:
        studio.look()
        assert studio.recorder.writer
        studio.recorder.writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path = recordings.path_in(studio.bench.home)
        with path.open("r+b") as file:
            file.write(b"\0" * path.stat().st_size)
        studio.shows("developer", "after\r\n")
        studio.look()
        studio.recorder = Recorder()  # the next scheduler finds out
        for _ in range(3):
            studio.look()
        assert "after" in (studio.text("developer") or "")
        assert len(studio.notices()) == 1

    def test_what_cannot_be_written_is_told_once_tried_again_and_told_when_it_goes_on(self, studio: Studio) -> None:
        path = recordings.path_in(studio.bench.home)
        path.mkdir()
        for _ in range(5):
            studio.look()
        studio.recorder = Recorder()  # another scheduler knows that it was told
        for _ in range(3):
            studio.look(recorder.AGAIN_MS / SECOND)
        assert len(studio.notices()) == 1 and str(path) in studio.notices()[0]
        path.rmdir()
        for _ in range(3):
            studio.look(recorder.AGAIN_MS / SECOND)
        assert studio.text("developer") == ""
        kinds = [event.kind for event in store.events(studio.db) if event.kind.startswith("recording.")]
        assert kinds == ["recording.failed", "recording.goes_on"]

    def test_a_full_disk_loses_no_shot_that_is_there(self, studio: Studio) -> None:
        studio.shows("developer", "before\r\n")
        studio.look()
        kept = studio.now
        assert studio.recorder.writer
        db = studio.recorder.writer._db
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        for number in range(40):
            studio.shows("developer", os.urandom(1500).hex() + f"{number}\r\n")
            studio.look()
            if studio.notices():
                break
        assert "full" in studio.notices()[0]
        assert "before" in (studio.text("developer", kept) or "")
        studio.look(recorder.AGAIN_MS / SECOND)  # there is room again: a connection of its own has no such limit
        assert studio.text("developer")

    def test_a_tmux_that_cannot_be_asked_is_asked_again_later(
        self, studio: Studio, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studio.look()
        seen = studio.now

        def fail(*_: object) -> list[Pane]:
            raise OrchestratorError("tmux: lost server")

        with monkeypatch.context() as broken:
            broken.setattr(Tmux, "panes", fail)
            due = studio.look().due
        assert due == studio.now + MINUTE
        assert studio.at("developer", studio.now) == studio.at("developer", seen)  # it is not gone: nobody could look
        studio.look(60)
        assert studio.text("developer") == ""

    def test_a_step_of_a_beat_never_fails_over_it(self, studio: Studio) -> None:
        recordings.path_in(studio.bench.home).mkdir()
        life = daemon.Life(Settings(), Errands(studio.bench.home))
        beat = daemon.tick(studio.db, studio.bench.tmux, studio.bench.home, now=host.now_ms(), life=life)
        assert not beat.failed

    def test_a_file_that_a_person_has_removed_is_begun_anew(self, studio: Studio) -> None:
        studio.shows("developer", "secret\r\n")
        studio.look()
        then = studio.now
        recordings.path_in(studio.bench.home).unlink()
        for _ in range(2):
            studio.look()
        assert studio.at("developer", then) is None
        assert "secret" in (studio.text("developer") or "")
        assert studio.notices() == []

    def test_a_file_that_holds_something_else_says_so_to_who_reads_it(self, bench: Bench) -> None:
        bench.home.mkdir()
        recordings.path_in(bench.home).write_bytes(b"no database at all " * 500)
        with pytest.raises(Unavailable, match="cannot be read"):
            recordings.reader(bench.home)


class TestPruning:
    """By the file alone: an agent at work, one that is still, one that was let go."""

    @pytest.fixture
    def writer(self, tmp_path: Path) -> Iterator[Writer]:
        made = Writer(tmp_path, now=0)
        yield made
        made.close()

    def record(self, writer: Writer, *, days: int, noise: int = 20) -> int:
        """Record a shot in each minute of so many days; returns the time of the last."""
        still, now = Seen(AgentState.IDLE, Picture(80, 24, "still")), 0
        for number in range(days * 24 * 60):
            now = number * MINUTE
            seen = {1: Seen(AgentState.WORKING, Picture(80, 24, f"{number} {os.urandom(noise).hex()}")), 2: still}
            seen[3] = still if number < 30 else Seen(None, None)
            writer.add(seen, now=now)
        return now

    def prune(self, writer: Writer, now: int, *, days: float = 1000, most_bytes: int = 10**12) -> None:
        for _ in range(200):
            if not writer.prune(now=now, days=days, most_bytes=most_bytes):
                return
        pytest.fail("pruning never comes to its end")

    def at(self, home: Path, agent: int, moment: int) -> str | None:
        reader = recordings.reader(home)
        assert reader
        shot = reader.at([agent], moment).get(agent)
        reader.close()
        return shot.seen.picture.text if shot and shot.seen.picture else None

    def test_what_is_older_goes_and_what_still_shows_stays(self, writer: Writer, tmp_path: Path) -> None:
        now = self.record(writer, days=3)
        self.prune(writer, now, days=1)
        assert self.at(tmp_path, 1, now - 2 * DAY) is None
        assert self.at(tmp_path, 1, now - DAY + MINUTE)
        assert self.at(tmp_path, 2, now - DAY + MINUTE) == "still"  # of which the only shot is three days old
        assert self.at(tmp_path, 3, 10 * MINUTE) is None
        rows = writer._db.execute("SELECT agent_id, count(*) FROM shots GROUP BY agent_id").fetchall()
        assert [agent for agent, _ in rows] == [1, 2]
        assert rows[0][1] <= 24 * 60 + 16

    def test_what_ended_before_goes_with_its_run(self, tmp_path: Path) -> None:
        first = Writer(tmp_path, now=0)
        self.record(first, days=1)
        first.close()
        second = Writer(tmp_path, now=5 * DAY)
        second.add({9: Seen(AgentState.IDLE, Picture(80, 24, "new"))}, now=5 * DAY)
        self.prune(second, 5 * DAY, days=1)
        assert second._db.execute("SELECT DISTINCT agent_id FROM shots").fetchall() == [(9,)]
        assert second._db.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        second.close()

    def test_of_too_much_the_oldest_goes_and_the_disk_gets_it_back(self, writer: Writer, tmp_path: Path) -> None:
        now = self.record(writer, days=3, noise=400)
        path = recordings.path_in(tmp_path)
        writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        self.prune(writer, now, most_bytes=before // 3)
        for _ in range(20):
            writer.prune(now=now, days=1000, most_bytes=before // 3)
        writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before // 2
        assert self.at(tmp_path, 1, MINUTE) is None
        assert self.at(tmp_path, 1, now) and self.at(tmp_path, 2, now) == "still"

    def test_it_grows_old_while_no_team_lives_too(self, tmp_path: Path) -> None:
        first = Writer(tmp_path, now=0)
        self.record(first, days=1)
        first.close()
        made, terms = Recorder(), RecordingSettings(days=1)
        db = store.connect(tmp_path / "other")
        tmux = Tmux("orchestrator-test-nobody")
        for hour in range(10):
            now = 5 * DAY + hour * 60 * MINUTE
            assert recorder.look(db, tmux, tmp_path, made, terms, is_lively=False, now=now).due is None
        assert made.writer is None
        reader = Writer(tmp_path, now=6 * DAY)
        assert reader._db.execute("SELECT count(*) FROM shots").fetchone() == (0,)
        reader.close()
        db.close()

    def test_a_call_removes_only_so_much(self, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
        now = self.record(writer, days=1)
        monkeypatch.setattr(recordings, "PRUNED_AT_ONCE", 50)
        before = writer._db.execute("SELECT count(*) FROM shots").fetchone()[0]
        assert writer.prune(now=now + 10 * DAY, days=1, most_bytes=10**12)
        assert 0 < before - writer._db.execute("SELECT count(*) FROM shots").fetchone()[0] <= 100
