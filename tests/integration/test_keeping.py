"""Keeping teams: when the daemon resumes one by itself, and whom it takes for stuck. The clock is virtual."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lib import agents, daemon, delivery, host, keeping, messages, orchestrations, store
from lib.claude import transcripts
from lib.config import RecoverySettings, Settings
from lib.errands import Errands
from lib.models import Agent, AgentState, Message, MessageStatus, OrchestrationStatus, Priority
from lib.tmux import Look, Tmux
from tests.conftest import Bench, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

SECOND = 1000
MINUTE = 60 * SECOND


@dataclass
class Noted(Errands):
    """Errands that are only noted; a name in `busy` is taken for one that runs."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    def start(self, name: str, door: str, *arguments: str) -> bool:
        self.asked.append((name, door, *arguments))
        return True

    def is_running(self, name: str) -> bool:
        return name in self.busy or super().is_running(name)


@pytest.fixture
def noted(bench: Bench) -> Noted:
    return Noted(bench.home)


def kill(team: StillTeam, *roles: str) -> None:
    for role in roles:
        process = team.agent(role).process
        assert process
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda process=process: not host.is_alive(process), f"the end of {role}")  # type: ignore[misc]


def revivals(team: StillTeam) -> list[str]:
    return [str(event.data["missing"]) for event in store.events(team.db, kind="orchestration.reviving")]


class TestRevive:
    def test_a_whole_team_is_left_alone(self, still_team: StillTeam, noted: Noted) -> None:
        assert keeping.revive(still_team.db, still_team.bench.home, noted, now=host.now_ms()) == []
        assert noted.asked == [] and revivals(still_team) == []

    @pytest.mark.parametrize(
        ("roles", "missing"),
        [
            (["developer"], "developer has ended"),
            (["orchestrator", "testrunner"], "orchestrator, testrunner have ended"),
        ],
    )
    def test_what_has_ended_is_resumed_at_once(
        self, still_team: StillTeam, noted: Noted, roles: list[str], missing: str
    ) -> None:
        kill(still_team, *roles)
        keeping.revive(still_team.db, still_team.bench.home, noted, now=host.now_ms())
        project = str(orchestrations.get(still_team.db, still_team.id).project)
        errand = f"launch-{still_team.id}"
        assert noted.asked == [
            (errand, "auto_orchestrate.py", "--project", project, "--resume", "--unattended", "--quiet")
        ]
        assert revivals(still_team) == [missing]

    def test_after_a_reboot_nobody_lives_whatever_has_its_pid_now(self, still_team: StillTeam, noted: Noted) -> None:
        # The processes of the windows are there: with the pids of the agents, and of another boot.
        still_team.db.execute("UPDATE agents SET boot = 'the boot before'")
        keeping.revive(still_team.db, still_team.bench.home, noted, now=host.now_ms())
        assert revivals(still_team) == ["orchestrator, developer, tester, testrunner have ended"]

    @pytest.mark.parametrize(
        "status", [one for one in OrchestrationStatus if one not in ("starting", "running")], ids=str
    )
    def test_a_team_that_need_not_run_is_left_alone(
        self, still_team: StillTeam, noted: Noted, status: OrchestrationStatus
    ) -> None:
        kill(still_team, "developer")
        orchestrations.set_status(still_team.db, still_team.id, status, now=host.now_ms())
        for later in (0, MINUTE, 60 * MINUTE):
            now = host.now_ms() + later
            assert keeping.revive(still_team.db, still_team.bench.home, noted, now=now) == []
        assert noted.asked == [] and revivals(still_team) == []

    def test_the_setting_turns_it_off(self, still_team: StillTeam, noted: Noted) -> None:
        kill(still_team, "developer")
        for enabled, asked in ((False, 0), (True, 1)):
            life = daemon.Life(Settings(recovery=RecoverySettings(enabled=enabled)), noted)
            daemon.tick(still_team.db, still_team.bench.tmux, still_team.bench.home, now=host.now_ms(), life=life)
            assert len(noted.asked) == asked

    @pytest.mark.parametrize(
        ("age_seconds", "resumed", "due_in_seconds"),
        [
            # It may not have come to its lock yet.
            (0, False, [5]),
            (4, False, [1]),
            # It has ended before its end, or the clock was set back since it began.
            (5, True, []),
            (3600, True, []),
            (-3600, True, []),
        ],
    )
    def test_a_launch_that_was_killed_is_taken_up(
        self, still_team: StillTeam, noted: Noted, age_seconds: int, resumed: bool, due_in_seconds: list[int]
    ) -> None:
        now = host.now_ms()
        still_team.db.execute(
            "UPDATE orchestrations SET status = 'starting', created_at = ?", (now - age_seconds * SECOND,)
        )
        dues = keeping.revive(still_team.db, still_team.bench.home, noted, now=now)
        assert dues == [now + seconds * SECOND for seconds in due_in_seconds]
        assert revivals(still_team) == (["its launch did not end"] if resumed else [])

    def test_a_launch_that_goes_on_is_left_alone(self, still_team: StillTeam, noted: Noted) -> None:
        kill(still_team, "developer")
        lock = still_team.bench.home / "locks" / f"launch-{still_team.id}.lock"
        with host.lock(lock):
            keeping.revive(still_team.db, still_team.bench.home, noted, now=host.now_ms())
        assert revivals(still_team) == []
        noted.busy = {f"launch-{still_team.id}"}  # started, and not yet at its lock
        keeping.revive(still_team.db, still_team.bench.home, noted, now=host.now_ms())
        assert revivals(still_team) == []


class TestCrashLoop:
    """The errand comes to nothing each time: the developer stays ended."""

    @pytest.fixture
    def in_a_loop(self, still_team: StillTeam, noted: Noted) -> Iterator[StillTeam]:
        kill(still_team, "developer")
        (still_team.bench.home / "logs").mkdir(exist_ok=True)
        said = "team: developer\nerror: developer ended at its start: no such model\n  next: look\n"
        (still_team.bench.home / "logs" / f"launch-{still_team.id}.out").write_text(said)
        yield still_team

    def beat_for(self, team: StillTeam, noted: Noted, start: int, seconds: int) -> list[int]:
        """A beat every second. Returns after how many seconds each revival was started."""
        started = []
        for second in range(seconds + 1):
            before = len(noted.asked)
            keeping.revive(team.db, team.bench.home, noted, now=start + second * SECOND)
            started += [second] * (len(noted.asked) - before)
        return started

    def test_five_revivals_then_a_person_is_told_once(self, in_a_loop: StillTeam, noted: Noted) -> None:
        start = host.now_ms()
        assert self.beat_for(in_a_loop, noted, start, 1200) == [0, 5, 20, 65, 185]
        found = orchestrations.get(in_a_loop.db, in_a_loop.id)
        assert found.status is OrchestrationStatus.NEEDS_ATTENTION
        assert found.outcome == (
            "developer has ended, and resuming it 5 times within 15 minutes has not helped: developer ended at its"
            f" start: no such model; next: look; next: auto_orchestrate.py --project {found.project} --resume"
        )
        notices = in_a_loop.bench.rows("SELECT kind, title, body FROM notices")
        assert notices == [{"kind": "needs_attention", "title": "webapp-impl: needs attention", "body": found.outcome}]

    def test_after_a_person_has_looked_after_it_the_count_begins_anew(self, in_a_loop: StillTeam, noted: Noted) -> None:
        start = host.now_ms()
        self.beat_for(in_a_loop, noted, start, 190)
        at = start + 190 * SECOND
        orchestrations.set_status(in_a_loop.db, in_a_loop.id, OrchestrationStatus.RUNNING, now=at)
        assert orchestrations.get(in_a_loop.db, in_a_loop.id).outcome is None
        assert self.beat_for(in_a_loop, noted, at, 300) == [0, 5, 20, 65, 185]
        assert len(in_a_loop.bench.rows("SELECT 1 FROM notices")) == 2

    def test_now_and_then_is_no_loop(self, in_a_loop: StillTeam, noted: Noted) -> None:
        start = host.now_ms()
        for number in range(20):
            keeping.revive(in_a_loop.db, in_a_loop.bench.home, noted, now=start + number * 4 * MINUTE)
        assert len(noted.asked) == 20

    def test_the_due_time_of_the_next_try_is_told(self, in_a_loop: StillTeam, noted: Noted) -> None:
        start, home = host.now_ms(), in_a_loop.bench.home
        assert keeping.revive(in_a_loop.db, home, noted, now=start) == []
        assert keeping.revive(in_a_loop.db, home, noted, now=start + 2 * SECOND) == [start + 5 * SECOND]

    @pytest.mark.parametrize("jump", [-3600 * SECOND, -3 * SECOND, 3600 * SECOND], ids=str)
    def test_a_clock_that_jumps_holds_nothing_up(self, in_a_loop: StillTeam, noted: Noted, jump: int) -> None:
        start = host.now_ms()
        self.beat_for(in_a_loop, noted, start, 6)
        assert self.beat_for(in_a_loop, noted, start + 6 * SECOND + jump, 30)[0] <= 20
        assert orchestrations.get(in_a_loop.db, in_a_loop.id).status is OrchestrationStatus.RUNNING


@dataclass
class Worker:
    """An agent that says it is at work, and a scheduler that looks at it as time passes."""

    bench: Bench
    db: sqlite3.Connection
    id: int
    now: int = field(default_factory=host.now_ms)
    observation: keeping.Observation = field(default_factory=keeping.Observation)

    @property
    def agent(self) -> Agent:
        return agents.get(self.db, self.id)

    @property
    def state(self) -> AgentState:
        return agents.state_of(self.agent)

    def window(self, agent: Agent) -> str | None:
        return agents.screen(self.bench.tmux, agent)

    def look(self, minutes: int, *, every: int = MINUTE, stuck_minutes: float = 30) -> None:
        for _ in range(minutes):
            self.now += every
            keeping.look_for_stuck(self.db, self.window, self.observation, stuck_minutes=stuck_minutes, now=self.now)

    def restart_scheduler(self) -> None:
        self.observation = keeping.Observation()

    @property
    def episode(self) -> list[str]:
        """What was recorded of it, in order."""
        events = store.events(self.db, limit=100_000)
        return [event.kind.partition(".")[2] for event in events if event.kind in keeping._EPISODE]

    def nudges(self) -> list[Message]:
        found = messages.find(self.db, agent_id=self.id, limit=1000)
        return [message for message in found if message.body.startswith("You have been at work for ")]

    def deliver(self) -> None:
        delivery.deliver(delivery.Desk(self.db, self.bench.tmux, self.bench.home), self.agent, wait_seconds=10)

    def notices(self) -> list[str]:
        return [row["title"] for row in self.bench.rows("SELECT title FROM notices WHERE kind = 'stuck'")]


class TestRehearsalAtWork:
    """A rehearsal agent that is busy: it writes nothing, runs nothing, and its spinner turns."""

    @pytest.fixture
    def busy(self, bench: Bench) -> Iterator[Worker]:
        path = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("agent: rehearsal\nauto_start: false\n")
        project = bench.project(spec="# Wait\n\nrehearse: hold\n")
        bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator")
        db = bench.db()
        (row,) = bench.rows("SELECT id FROM agents")
        worker = Worker(bench, db, row["id"])
        wait_for(lambda: worker.state is AgentState.IDLE, "the end of the first turn")
        self.be_busy(worker)
        yield worker
        db.close()

    def be_busy(self, worker: Worker) -> None:
        directive = "rehearse: busy 600"
        worker.bench.ok("send-claude-message.sh", "webapp-impl:orchestrator", "--no-wait", directive)
        path = transcripts.find(worker.agent.config_dir, worker.agent.conversation_id)
        assert path
        turns = sum(directive in prompt for prompt in transcripts.prompts(path))

        def is_busy() -> bool:
            worker.deliver()
            has_begun = sum(directive in prompt for prompt in transcripts.prompts(path)) > turns
            return has_begun and worker.state is AgentState.WORKING

        wait_for(is_busy, "the agent to be at work")

    def test_it_is_asked_once_and_then_a_person_is_told_once(self, busy: Worker) -> None:
        process = busy.agent.process
        busy.look(30)
        assert (busy.episode, busy.nudges()) == ([], [])
        busy.look(1)
        assert busy.episode == ["nudged"]
        (nudge,) = busy.nudges()
        assert (nudge.priority, nudge.sender) == (Priority.EMERGENCY, "scheduler")
        assert nudge.body.startswith("You have been at work for 30 minutes without a sign of it")
        busy.deliver()
        assert busy.nudges()[0].status is MessageStatus.ACKNOWLEDGED
        # That it has taken the question, and shows it, is no sign.
        busy.look(29)
        assert (busy.episode, busy.notices()) == (["nudged"], [])
        busy.look(1)
        assert (busy.episode, busy.notices()) == (["nudged", "stuck"], ["webapp-impl:orchestrator may be stuck"])
        busy.look(200)
        assert (busy.episode, len(busy.nudges()), len(busy.notices())) == (["nudged", "stuck"], 1, 1)
        assert busy.agent.process == process and host.is_alive(process)
        assert busy.state is AgentState.WORKING, "no key has ended its turn"

    def test_a_scheduler_that_is_started_again_asks_nobody_twice(self, busy: Worker) -> None:
        busy.look(31)
        busy.deliver()
        busy.restart_scheduler()
        busy.look(30)
        assert (busy.episode, len(busy.nudges())) == (["nudged"], 1)
        busy.look(1)
        assert busy.episode == ["nudged", "stuck"]
        busy.restart_scheduler()
        busy.look(100)
        assert (busy.episode, len(busy.notices())) == (["nudged", "stuck"], 1)

    def test_one_that_got_on_while_no_scheduler_ran_is_in_a_new_episode(self, busy: Worker) -> None:
        busy.look(31)
        busy.deliver()
        busy.bench.tmux.run("send-keys", "-t", busy.agent.pane_id or "", "Escape")
        wait_for(lambda: busy.state is AgentState.IDLE, "the end of the turns")
        self.be_busy(busy)
        busy.restart_scheduler()
        busy.look(30)
        assert busy.episode == ["nudged", "got_on"]
        busy.look(1)
        assert busy.episode == ["nudged", "got_on", "nudged"]

    def test_the_end_of_its_turn_ends_the_episode_and_withdraws_a_question_that_waits(self, busy: Worker) -> None:
        busy.look(31)
        busy.bench.tmux.run("send-keys", "-t", busy.agent.pane_id or "", "Escape")
        wait_for(lambda: busy.state is AgentState.IDLE, "the end of the turn")
        busy.look(100)
        assert busy.episode == ["nudged", "got_on"]
        (nudge,) = busy.nudges()
        assert (nudge.status, nudge.reason) == (MessageStatus.CANCELLED, "orchestrator is not at work as it was")

    def test_one_that_ends_is_left_to_the_revival(self, busy: Worker) -> None:
        busy.look(31)
        assert busy.agent.process
        os.kill(busy.agent.process.pid, signal.SIGKILL)
        wait_for(lambda: busy.state is AgentState.GONE, "its end")
        busy.look(100)
        assert (busy.episode, busy.notices()) == (["nudged"], [])
        assert busy.nudges()[0].status is MessageStatus.CANCELLED, "it would come with the resume"
        busy.bench.ok("auto_orchestrate.py", "--project", str(busy.bench.folder / "webapp"), "--resume")
        wait_for(lambda: busy.state is AgentState.IDLE, "the agent to be back")
        self.be_busy(busy)
        busy.look(31)
        assert busy.episode == ["nudged", "nudged"]

    def test_the_machine_sleeps_for_a_night(self, busy: Worker) -> None:
        busy.look(5)
        busy.now += 8 * 60 * MINUTE
        busy.look(23)
        assert busy.episode == []

    def test_the_setting_says_after_how_long(self, busy: Worker) -> None:
        busy.look(6, stuck_minutes=5)
        assert busy.episode == ["nudged"]
        busy.look(5, stuck_minutes=5)
        assert busy.episode == ["nudged", "stuck"]

    def test_the_daemons_step_asks_and_delivers(self, busy: Worker) -> None:
        settings = Settings(recovery=RecoverySettings(stuck_minutes=2))
        life = daemon.Life(settings, Noted(busy.bench.home))
        off = daemon.Life(replace(settings, recovery=RecoverySettings(False, 2)), Noted(busy.bench.home))
        for _ in range(4):
            busy.now += MINUTE
            for one in (off, life):
                daemon.tick(busy.db, busy.bench.tmux, busy.bench.home, now=busy.now, life=one)
        assert busy.episode == ["nudged"]
        assert busy.nudges()[0].status is MessageStatus.ACKNOWLEDGED
        assert store.events(busy.db, kind="daemon.step_failed") == []


class TestSigns:
    """A process that stands for an agent: its files and its window are written by the test."""

    @pytest.fixture
    def worker(self, still_team: StillTeam) -> Worker:
        agent = still_team.agent("developer")
        worker = Worker(still_team.bench, still_team.db, agent.id)
        self.say(worker, "busy")
        self.transcript(worker).parent.mkdir(parents=True)
        self.write(worker, type="user")
        return worker

    def say(self, worker: Worker, status: str) -> None:
        process = worker.agent.process
        assert process
        said = {"sessionId": worker.agent.conversation_id, "procStart": str(process.started), "status": status}
        path = worker.agent.config_dir / "sessions" / f"{process.pid}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(said))

    def transcript(self, worker: Worker) -> Path:
        return worker.agent.config_dir / "projects" / "webapp" / f"{worker.agent.conversation_id}.jsonl"

    def write(self, worker: Worker, **entry: object) -> None:
        with self.transcript(worker).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def test_without_any_it_is_asked(self, worker: Worker) -> None:
        worker.look(31)
        assert worker.episode == ["nudged"]

    def test_an_entry_in_its_transcript_is_one(self, worker: Worker) -> None:
        for _ in range(10):
            worker.look(20)
            self.write(worker, type="assistant")
        assert worker.episode == []

    def test_a_text_that_it_has_only_taken_is_none(self, worker: Worker) -> None:
        for _ in range(2):
            worker.look(15)
            self.write(worker, type="queue-operation", operation="enqueue", content="hello")
            agents.note_hook(worker.db, worker.id, event="UserPromptSubmit", at=worker.now)
        worker.look(1)
        assert worker.episode == ["nudged"]

    def test_the_work_of_a_subagent_is_one(self, worker: Worker) -> None:
        folder = self.transcript(worker).with_suffix("") / "subagents"
        folder.mkdir(parents=True)
        for _ in range(10):
            worker.look(20)
            with (folder / "agent-a1.jsonl").open("a") as file:
                file.write("{}\n")
        assert worker.episode == []

    def test_a_hook_of_its_own_is_one(self, worker: Worker) -> None:
        for _ in range(10):
            worker.look(20)
            agents.note_hook(worker.db, worker.id, event="Notification", at=worker.now)
        assert worker.episode == []

    def test_something_new_in_its_window_is_one(self, worker: Worker) -> None:
        tty = worker.bench.tmux.run("display-message", "-p", "-t", worker.agent.pane_id or "", "#{pane_tty}").strip()
        for number in range(10):
            worker.look(20)
            Path(tty).write_text(f"line {number} of a long test run\r\n")
            wait_for(lambda number=number: f"line {number} " in worker.bench.screen(worker.agent.pane_id or ""), "it")  # type: ignore[misc]
        assert worker.episode == []

    def test_a_process_that_it_has_started_is_one_while_it_runs(
        self, still_team: StillTeam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "START_UP_SECONDS", 1.0)
        # A server that starts with it, and later something that it works with.
        program = "sleep 1000 & sleep 2; sleep 1001 & echo $! > work.pid; wait"
        agent = still_team.agent("tester")
        pane, pid = still_team.bench.tmux.new_window(
            agent.session,
            index=agent.window,
            name=agent.role,
            cwd=agent.worktree,
            agent=agent.id,
            argv=["sh", "-c", program],
            replace=agent.pane_id,
        )
        process = host.process(pid)
        assert process
        agents.started(still_team.db, agent.id, pane_id=pane, process=process)
        worker = Worker(still_team.bench, still_team.db, agent.id)
        self.say(worker, "busy")
        note = agent.worktree / "work.pid"
        child = int(wait_for(lambda: note.exists() and note.read_text().strip(), "its child"))
        worker.look(200)
        assert worker.episode == []
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: host.process(child) is None, "the end of its child")
        worker.look(31)
        assert worker.episode == ["nudged"]
        assert len(host.children(pid)) == 1

    @pytest.mark.parametrize("status", ["idle", "waiting"])
    def test_who_is_not_at_work_is_not_asked(self, worker: Worker, status: str) -> None:
        self.say(worker, status)
        worker.look(200)
        assert worker.episode == []

    def test_a_team_that_is_paused_is_not_looked_at(self, worker: Worker, still_team: StillTeam) -> None:
        worker.look(20)
        orchestrations.set_status(worker.db, still_team.id, OrchestrationStatus.PAUSED, now=worker.now)
        worker.look(200)
        orchestrations.set_status(worker.db, still_team.id, OrchestrationStatus.RUNNING, now=worker.now)
        worker.look(8)
        assert worker.episode == []
        worker.look(3)
        assert worker.episode == ["nudged"]

    def test_it_is_looked_at_once_a_minute(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        looks: list[str] = []
        look = Tmux.look

        def noted(tmux: Tmux, pane: str) -> Look:
            looks.append(pane)
            return look(tmux, pane)

        monkeypatch.setattr(Tmux, "look", noted)
        worker.look(600, every=SECOND)
        assert len(looks) == 10
        # While it gives signs without that, nobody looks at its window.
        for _ in range(10):
            self.write(worker, type="assistant")
            worker.look(1)
        assert len(looks) == 10

    @pytest.mark.parametrize("number", range(1, 8))
    def test_a_scheduler_that_is_killed_while_it_asks_asks_once(
        self, worker: Worker, bench: Bench, number: int
    ) -> None:
        program = (
            "import sys\nfrom lib import agents, config, keeping, store\nfrom lib.tmux import Tmux\n"
            "from tests import killed\n"
            "home, start = config.state_home(), int(sys.argv[2])\nseen = keeping.Observation()\n"
            "killed.kill_before(int(sys.argv[1]))\ndb = store.connect(home)\n"
            "for minute in range(32):\n"
            "    keeping.look_for_stuck(db, lambda agent: agents.screen(Tmux.from_environment(), agent), seen,"
            " stuck_minutes=30, now=start + minute * 60_000)\n"
        )
        done = bench.python(program, str(number), str(worker.now))
        assert done.code in (0, -signal.SIGKILL)
        worker.now += 32 * MINUTE
        worker.look(31)
        assert len(worker.nudges()) == 1
        assert worker.episode.count("nudged") == 1
