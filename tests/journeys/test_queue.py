"""Journey E: specs wait, run one after the other, fail and are tried again; by the daemon, with rehearsal agents."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lib import agents, checkins, config, daemon, holds, host, orchestrations, service, store
from lib.errands import Errands
from lib.models import AgentState, OrchestrationStatus
from lib.queue import entries
from tests.agents import a_team
from tests.conftest import SPEC, Bench, wait_for

FAILS = "# A spec that cannot be done\n\nrehearse: fail the API is gone\n"
HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
ALONE = "orchestrator"
#: What is resumed by an errand would start a daemon, which would do what the test does.
BY_HAND = "auto_start: false\nqueue: {retry_minutes: 0.005, linger_minutes: 0.005}"


def configure(bench: Bench, text: str = "") -> None:
    """Rehearsal agents, nothing starts by itself, and pauses that a test can wait for."""
    path = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"agent: rehearsal\n{text or 'queue: {retry_minutes: 0.005, linger_minutes: 0.005}'}\n")


def add(bench: Bench, project: Path, spec: str = SPEC, name: str = "spec.md", roles: Sequence[str] = (ALONE,)) -> int:
    """Queue a spec for a small team. Returns the entry's id."""
    path = bench.folder / "specs" / project.name / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec)
    new = entries.NewEntry(path, spec, project, options={"roles": list(roles)})
    db = bench.db()
    (entry,) = entries.add(db, [new], now=host.now_ms()).entries
    db.close()
    return entry.id


def state(bench: Bench, entry: int) -> str:
    return str(bench.ok("scheduler.py", "--queue-status", str(entry), "--json").json["state"])


def row(bench: Bench, entry: int) -> dict[str, Any]:
    return bench.rows("SELECT * FROM queue_entries WHERE id = ?", entry)[0]


def is_over(bench: Bench, *ids: int) -> bool:
    return all(row(bench, entry)["status"] in ("succeeded", "abandoned", "cancelled") for entry in ids)


def sessions(bench: Bench) -> set[str]:
    return {pane.session for pane in bench.tmux.panes()}


@pytest.fixture
def clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock, in a process that stands where the doors of this bench stand."""
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    return Clock(bench)


class TestQueue:
    def test_what_is_added_runs_to_its_end_and_its_windows_are_closed(self, bench: Bench) -> None:
        configure(bench)
        one, two = bench.project("one"), bench.project("two")
        done = bench.ok("scheduler.py", "--queue-add", str(one / "spec.md"), str(one))
        assert "queued entry 1" in done.out and "started the scheduler" in done.err
        assert "is this already" in bench.ok("scheduler.py", "--queue-add", "spec.md", ".", cwd=one).out
        bench.ok("scheduler.py", "--queue-add", str(two / "spec.md"), str(two))
        wait_for(lambda: is_over(bench, 1, 2), "both specs to be done", seconds=90)
        assert [entry["status"] for entry in bench.rows("SELECT status FROM queue_entries")] == ["succeeded"] * 2
        # One after the other: max_concurrent is 1.
        first, second = bench.rows("SELECT started_at, ended_at FROM attempts ORDER BY entry_id")
        assert second["started_at"] >= first["ended_at"]
        wait_for(lambda: sessions(bench) == set(), "the windows of what is over to be closed")
        assert (bench.folder / "one-tmux-worktrees" / "orchestrator").exists(), "the work stays"
        listed = bench.ok("scheduler.py", "--queue-list").out
        assert listed.count("succeeded") == 2 and max(map(len, listed.splitlines())) <= 100
        kinds = [notice["kind"] for notice in bench.rows("SELECT kind FROM notices ORDER BY id")]
        assert kinds == ["completed", "completed"]

    def test_a_batch_of_two_with_one_that_fails_three_times(self, bench: Bench) -> None:
        configure(bench)
        bad, good = bench.project("bad"), bench.project("good")
        (bench.folder / "bad.md").write_text(FAILS)
        db = bench.db()
        new = [
            entries.NewEntry(bench.folder / "bad.md", FAILS, bad, options={"roles": [ALONE]}),
            entries.NewEntry(good / "spec.md", SPEC, good, options={"roles": [ALONE]}),
        ]
        entries.add(db, new, now=host.now_ms())
        db.close()
        daemon_of(bench)
        wait_for(lambda: is_over(bench, 1, 2), "the batch to be over", seconds=90)
        assert (row(bench, 1)["status"], row(bench, 2)["status"]) == ("abandoned", "succeeded")
        attempts = bench.rows("SELECT * FROM attempts WHERE entry_id = 1 ORDER BY number")
        assert [attempt["reason"] for attempt in attempts] == ["the API is gone"] * 3
        assert len({attempt["orchestration_id"] for attempt in attempts}) == 3
        # What the batch had else to run came before the second attempt.
        (other,) = bench.rows("SELECT ended_at FROM attempts WHERE entry_id = 2")
        assert attempts[1]["started_at"] >= other["ended_at"]
        # The last screens are kept: they go with the windows, at once.
        kept = sorted((bench.home / "queue" / "1").glob("attempt-*/orchestrator.screen.txt"))
        assert len(kept) == 3 and all("A spec that cannot be done" in path.read_text() for path in kept)
        story = bench.ok("scheduler.py", "--queue-status", "1").out
        assert story.count("the API is gone") >= 3
        assert (bench.folder / "bad.md").read_text() == FAILS
        kinds = [notice["kind"] for notice in bench.rows("SELECT kind FROM notices ORDER BY id")]
        assert sorted(kinds) == ["abandoned", "batch", "completed"]

    def test_cancelling_ends_the_team_and_leaves_its_work(self, bench: Bench) -> None:
        configure(bench)
        project = bench.project()
        entry = add(bench, project, HOLDS)
        daemon_of(bench)
        wait_for(lambda: state(bench, entry) == "running", "the team")
        (agent,) = bench.rows("SELECT * FROM agents")
        done = bench.ok("scheduler.py", "--queue-cancel", str(entry), "--json")
        assert done.json["status"] == "cancelled"
        assert host.process(agent["pid"]) is None and sessions(bench) == set()
        assert Path(agent["worktree"]).exists()
        (team,) = bench.rows("SELECT status FROM orchestrations")
        assert team["status"] == "stopped"
        assert bench.door("scheduler.py", "--queue-cancel", str(entry)).code == 4
        # A person's second thought.
        again = bench.ok("scheduler.py", "--queue-retry", str(entry))
        assert "queued entry 1 again" in again.out
        wait_for(lambda: state(bench, entry) == "running", "the second team")

    def test_a_team_that_a_person_stops_is_not_tried_again(self, bench: Bench) -> None:
        configure(bench)
        entry = add(bench, bench.project(), HOLDS)
        daemon_of(bench)
        wait_for(lambda: state(bench, entry) == "running", "the team")
        bench.ok("claude_control.py", "stop", "webapp-impl")
        wait_for(lambda: row(bench, entry)["status"] == "cancelled", "the queue to hear of it")

    def test_entries_run_in_the_order_that_a_person_names(self, bench: Bench) -> None:
        configure(bench)
        ids = [add(bench, bench.project(name)) for name in ("one", "two", "three")]
        done = bench.ok("scheduler.py", "--queue-order", "3", "1")
        assert done.out.index("three") < done.out.index("one") < done.out.index("two")
        listed = bench.ok("scheduler.py", "--queue-order", "2", "--json").json["entries"]
        assert [entry["id"] for entry in listed] == [3, 1, 2], "it has no one that it could come before"
        for words, code, said in (
            ((), 2, "name the entries"),
            (("two",), 2, "'two' is no entry of this machine's queue"),
            (("2", "2"), 2, "named twice"),
            (("7",), 3, "no unfinished entry has the id 7"),
        ):
            refused = bench.door("scheduler.py", "--queue-order", *words)
            assert (refused.code, said in refused.err) == (code, True), refused.err
        daemon_of(bench)
        wait_for(lambda: is_over(bench, *ids), "all to be done", seconds=90)
        begun = bench.rows("SELECT entry_id FROM attempts ORDER BY started_at")
        assert [attempt["entry_id"] for attempt in begun] == [3, 1, 2]

    def test_a_pause_starts_nothing(self, bench: Bench) -> None:
        configure(bench)
        assert "paused" in bench.ok("scheduler.py", "--queue-pause").out
        assert "already paused" in bench.ok("scheduler.py", "--queue-pause").out
        entry = add(bench, bench.project())
        for _ in range(2):
            bench.ok("scheduler.py", "--once")
        assert row(bench, entry)["status"] == "queued"
        assert "the queue is paused" in bench.ok("scheduler.py", "--queue-list").out
        bench.ok("scheduler.py", "--queue-resume")
        wait_for(lambda: is_over(bench, entry), "the spec to be done", seconds=60)

    def test_a_budget_ends_in_attention_and_not_in_a_kill(self, bench: Bench, clock: Clock) -> None:
        configure(bench, "queue: {budget_minutes: 30}")
        entry, other = add(bench, bench.project("one"), HOLDS), add(bench, bench.project("two"))
        clock.until(lambda: state(bench, entry) == "running", "the team")
        clock.pass_minutes(25)
        assert state(bench, entry) == "running"
        orchestration = bench.rows("SELECT * FROM orchestrations")[0]
        db = bench.db()
        orchestrations.set_status(db, orchestration["id"], OrchestrationStatus.PAUSED, now=clock.now)
        clock.pass_minutes(60)
        orchestrations.set_status(db, orchestration["id"], OrchestrationStatus.RUNNING, now=clock.now)
        clock.pass_minutes(3)
        assert state(bench, entry) == "running", "a pause does not count"
        clock.pass_minutes(5)
        assert state(bench, entry) == "needs attention"
        team = agents.of_orchestration(db, orchestration["id"])
        assert agents.state_of(team[0]) is not AgentState.GONE
        (notice,) = bench.rows("SELECT kind, body FROM notices")
        assert notice["kind"] == "needs_attention" and "has worked for 30 minutes" in notice["body"]
        clock.until(lambda: is_over(bench, other), "the other project to go on meanwhile")
        # A person lets it go on; its budget is not told again.
        bench.ok("auto_orchestrate.py", "--project", str(bench.folder / "one"), "--resume")
        clock.pass_minutes(60)
        assert state(bench, entry) == "running"
        db.close()

    def test_a_usage_limit_stops_the_clock_of_a_budget(self, bench: Bench, clock: Clock) -> None:
        configure(bench, "queue: {budget_minutes: 10}")
        entry = add(bench, bench.project(), HOLDS)
        clock.until(lambda: state(bench, entry) == "running", "the team")
        clock.pass_minutes(3)
        db = bench.db()
        (agent,) = agents.live(db)
        bench.ok("claude_control.py", "send", agent.target, "rehearse: limit 600")
        clock.until(lambda: holds.state_of(db, agents.get(db, agent.id)) is AgentState.LIMITED, "the limit")
        before = bench.rows("SELECT active_ms FROM attempts")
        clock.pass_minutes(60)
        assert state(bench, entry) == "running"
        (after,) = bench.rows("SELECT active_ms FROM attempts")
        assert after["active_ms"] - before[0]["active_ms"] <= entries.MINUTE_MS
        db.close()

    def test_a_project_that_is_gone_is_a_failure_that_says_so(self, bench: Bench) -> None:
        configure(bench)
        project = bench.project()
        entry = add(bench, project)
        project.rename(bench.folder / "elsewhere")
        daemon_of(bench)
        wait_for(lambda: is_over(bench, entry), "the queue to give it up", seconds=60)
        assert row(bench, entry)["reason"] == f"no such folder: {project}"
        assert bench.rows("SELECT 1 FROM orchestrations") == []

    def test_what_cannot_be_had_now_is_looked_for_again_later(self, bench: Bench, clock: Clock) -> None:
        configure(bench, "claude_command: no-such-claude")
        project = bench.project()
        new = entries.NewEntry(project / "spec.md", SPEC, project, options={"agent": "claude", "roles": [ALONE]})
        db = bench.db()
        entries.add(db, [new], now=host.now_ms())
        clock.until(lambda: row(bench, 1)["reason"] is not None, "the first try")
        assert (row(bench, 1)["status"], row(bench, 1)["failures"]) == ("queued", 0)
        assert "Claude Code is not installed" in row(bench, 1)["reason"]
        db.close()

    def test_an_interrupted_launch_is_taken_up_by_the_daemon(self, bench: Bench, clock: Clock) -> None:
        # The errand has recorded the team and dies: the team is resumed, and no second one is made.
        configure(bench)
        entry = add(bench, bench.project(), HOLDS)
        db = bench.db()
        assert entries.claim(db, now=host.now_ms(), max_concurrent=1)
        number = bench.killed("run", 14, str(entry))
        assert number != 0
        clock.until(lambda: state(bench, entry) == "running", "the team")
        assert len(bench.rows("SELECT 1 FROM orchestrations")) == 1
        db.close()


def points(first: int, step: int, bench_of: Callable[[int], int]) -> int:
    """Kill at each point from the first on, until a run comes to its end. Returns how many were killed."""
    number, died = first, 0
    while bench_of(number) == -signal.SIGKILL:
        number += step
        died += 1
    return died


class TestKilled:
    """The daemon or an errand ends before any of its writes, as by a power cut: everything happens once."""

    @pytest.fixture
    def step(self, is_long: bool) -> int:
        return 4 if is_long else 32

    @pytest.mark.parametrize("first", range(1, 5))
    def test_a_beat_that_fires_and_claims(self, bench: Bench, clock: Clock, first: int, step: int) -> None:
        configure(bench, BY_HAND)
        project = bench.project()
        hub, agent = still_team(bench)
        numbers = iter(range(1000))

        def once(number: int) -> int:
            each = next(numbers)
            entry = add(bench, bench_project(bench, project, each), name=f"{each}.md", spec=f"{FAILS}{each}\n")
            db = bench.db()
            now = host.now_ms()
            note, again = f"note {each}", f"again {each}"
            check_in = checkins.add(db, agent, note, minutes=1, now=now - 2 * entries.MINUTE_MS)
            recurring = checkins.add(db, hub, again, minutes=60, now=now - 61 * entries.MINUTE_MS, recurring=True)
            code = bench.killed("beat", number)
            clock.until(lambda: row(bench, entry)["status"] != "queued", "the entry to be claimed")
            clock.until(lambda: row(bench, entry)["reason"] is not None, "its first outcome")
            for one in (check_in, recurring):
                told = [event for event in store.events(db, kind="check_in.fired") if event.data["check_in"] == one.id]
                assert len(told) == 1
            bodies = [body["body"] for body in bench.rows("SELECT body FROM messages WHERE kind = 'check_in'")]
            assert sum(note in body for body in bodies) == sum(again in body for body in bodies) == 1
            attempts = bench.rows("SELECT * FROM attempts WHERE entry_id = ?", entry)
            assert [attempt["outcome"] for attempt in attempts] == ["failed"]
            teams = bench.rows("SELECT 1 FROM orchestrations WHERE spec_text LIKE ?", f"%gone\n{each}\n")
            assert len(teams) == 1
            checkins.remove(db, recurring.id, now=now)
            db.execute("UPDATE messages SET status = 'cancelled' WHERE status = 'queued'")
            entries.cancel(db, entry, now=now)
            db.close()
            return code

        assert points(first, step, once) > 0

    @pytest.mark.parametrize("first", range(1, 5))
    def test_the_errand_that_launches_an_entry(self, bench: Bench, clock: Clock, first: int, step: int) -> None:
        configure(bench, BY_HAND)
        project = bench.project()
        numbers = iter(range(1000))

        def once(number: int) -> int:
            each = next(numbers)
            entry = add(bench, bench_project(bench, project, each), name=f"{each}.md", spec=f"{HOLDS}{each}\n")
            db = bench.db()
            assert entries.claim(db, now=host.now_ms(), max_concurrent=1000)
            code = bench.killed("run", number, str(entry))
            clock.until(lambda: state(bench, entry) == "running", "the team")
            teams = bench.rows("SELECT * FROM orchestrations WHERE spec_text LIKE ?", f"%hold\n{each}\n")
            assert len(teams) == 1
            (agent,) = agents.of_orchestration(db, teams[0]["id"])
            panes = [pane for pane in bench.tmux.panes() if pane.session == teams[0]["session"]]
            assert [(pane.agent, pane.pid) for pane in panes] == [(str(agent.id), agent.process and agent.process.pid)]
            briefings = bench.rows("SELECT status FROM messages WHERE agent_id = ? AND kind = 'briefing'", agent.id)
            assert briefings == [{"status": "acknowledged"}]
            recurring = bench.rows("SELECT status FROM check_ins WHERE agent_id = ?", agent.id)
            assert recurring == [{"status": "scheduled"}]
            db.close()
            bench.ok("scheduler.py", "--queue-cancel", str(entry))
            return code

        assert points(first, step, once) > 0

    @pytest.mark.parametrize("first", range(1, 5))
    def test_a_beat_that_settles_an_outcome(self, bench: Bench, clock: Clock, first: int, step: int) -> None:
        configure(bench, "auto_start: false\nqueue: {linger_minutes: 0.001}")
        project = bench.project()
        numbers = iter(range(1000))

        def once(number: int) -> int:
            each = next(numbers)
            entry = add(bench, bench_project(bench, project, each), name=f"{each}.md", spec=f"{HOLDS}{each}\n")
            clock.until(lambda: state(bench, entry) == "running", "the team")
            (team,) = bench.rows("SELECT * FROM orchestrations WHERE status = 'running'")
            db = bench.db()
            bench.ok("scheduler.py", "--queue-pause")
            completed = OrchestrationStatus.COMPLETED
            orchestrations.set_status(db, team["id"], completed, now=host.now_ms(), outcome="done")
            code = bench.killed("beat", number)
            clock.until(lambda: row(bench, entry)["status"] == "succeeded", "the outcome")
            clock.until(lambda: sessions(bench) == set(), "the windows to be closed")
            told = bench.rows("SELECT 1 FROM notices WHERE kind = 'completed' AND title LIKE ?", f"%: {each}.md%")
            assert len(told) == 1
            bench.ok("scheduler.py", "--queue-resume")
            db.close()
            return code

        assert points(first, step, once) > 0


def bench_project(bench: Bench, project: Path, number: int) -> Path:
    """A project of its own: a clone of one."""
    path = bench.folder / f"project{number}"
    subprocess.run(["git", "clone", "-q", str(project), str(path)], check=True)
    return path


def still_team(bench: Bench) -> list[int]:
    """The ids of a team of two, in whose windows nothing happens."""
    db = bench.db()
    team = a_team(db, ALONE, "developer", name="still", home=bench.home)
    bench.tmux.new_session("still-impl", orchestration=team[0].orchestration_id or "")
    for one in team:
        pane, pid = bench.tmux.new_window(
            "still-impl",
            index=one.window,
            name=one.role,
            cwd=bench.folder,
            agent=one.id,
            argv=["sleep", "1000"],
            replace=None,
        )
        process = host.process(pid)
        assert process
        agents.started(db, one.id, pane_id=pane, process=process)
    db.close()
    return [one.id for one in team]


def daemon_of(bench: Bench) -> None:
    """Have a daemon with the queue run."""
    bench.ok("scheduler.py", "--queue-resume")
    wait_for(lambda: host.is_alive(service.running(bench.home)), "the daemon")


class Clock:
    """Beats in the test's own hand: the time of the steps is virtual, the errands and agents are real."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now = host.now_ms()
        self.errands = Errands(bench.home)

    def beat(self) -> None:
        db = self.bench.db()
        beat = daemon.tick(
            db, self.bench.tmux, self.bench.home, now=self.now, life=daemon.Life(config.load(), self.errands)
        )
        failures = store.events(db, kind="daemon.step_failed")
        assert not beat.failed, failures[-1].data["trace"] if failures else "a step has failed"
        db.close()

    def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now += entries.MINUTE_MS
            self.beat()

    def until(self, look: Any, what: str) -> None:
        """Beat, in real time, until something has come about."""

        def looked() -> bool:
            self.now = max(self.now, host.now_ms())
            self.beat()
            return bool(look())

        wait_for(looked, what, seconds=60)
