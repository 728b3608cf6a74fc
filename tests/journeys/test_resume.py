"""Resuming a team after anything: by a person with --resume, and by the daemon itself; with rehearsal agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lib import agents, host, messages, orchestrations, service
from lib.claude import transcripts
from lib.judgement import framing
from lib.models import PENDING, Agent, AgentState, MessageKind, OrchestrationStatus, Process
from tests.conftest import ROOT, Bench, Done, commit_all, snapshot, wait_for

ROLES = ("orchestrator", "developer", "tester")
HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
HOUR_MS = 3600 * 1000


def launch(bench: Bench, name: str = "webapp", roles: Sequence[str] = ROLES) -> Path:
    """A team that is briefed and has nothing to do; no scheduler runs by itself."""
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("agent: rehearsal\nauto_start: false\n")
    project = bench.project(name, spec=HOLDS)
    bench.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", ",".join(roles))

    def are_idle() -> bool:
        new = {state for target, state in states(bench).items() if target.startswith(f"{name}-impl:")}
        return new == {AgentState.IDLE}

    wait_for(are_idle, "the end of the first turns")
    return project


def resume(bench: Bench, project: Path) -> Done:
    return bench.ok("auto_orchestrate.py", "--project", str(project), "--resume")


def team(bench: Bench) -> list[Agent]:
    db = bench.db()
    found = [agents.get(db, row["id"]) for row in bench.rows("SELECT id FROM agents ORDER BY id")]
    db.close()
    return found


def member(bench: Bench, role: str) -> Agent:
    return next(agent for agent in team(bench) if agent.role == role)


def states(bench: Bench) -> dict[str, AgentState]:
    return {agent.target: agents.state_of(agent) for agent in team(bench)}


def kill(process: Process | None) -> None:
    assert process
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not host.is_alive(process), "its end")


def kill_server(bench: Bench) -> None:
    processes = [agent.process for agent in team(bench)]
    bench.tmux.run("kill-server")
    wait_for(lambda: not any(host.is_alive(process) for process in processes), "the end of all agents")


def prompts(agent: Agent) -> list[str]:
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    return list(transcripts.prompts(path)) if path else []


def times_read(bench: Bench, message: dict[str, Any]) -> int:
    """How often the agent itself has got a message, by its own conversation."""
    agent = next(agent for agent in team(bench) if agent.id == message["agent_id"])
    framed = framing.frame(message["id"], message["sender"], message["body"])
    return sum(prompt == framed for prompt in prompts(agent))


def notes(bench: Bench, role: str) -> list[dict[str, Any]]:
    """The notes to an agent that it was interrupted, oldest first."""
    return bench.rows(
        "SELECT * FROM messages WHERE agent_id = ? AND body LIKE 'You were interrupted%' ORDER BY id",
        member(bench, role).id,
    )


def started(bench: Bench, kind: str = "orchestration.reviving") -> int:
    return len(bench.rows("SELECT 1 FROM events WHERE kind = ?", kind))


Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def scheduler(bench: Bench) -> Iterator[Start]:
    """Starts the daemon; whatever it is in the middle of, it is gone after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "scheduler.py"), "--daemon"]
        running.append(subprocess.Popen(command, env=bench.environment, stderr=subprocess.DEVNULL))
        wait_for(lambda: host.is_alive(service.running(bench.home)), "the scheduler")
        return running[-1]

    yield start
    for process in running:
        process.terminate()
        process.wait()


def all_are_back(bench: Bench, before: Sequence[Agent], *, ended: Sequence[str]) -> None:
    """Wait for the team as it was: everybody once, in the same conversation, worktree and window, and told of it once.

    `ended` are the roles whose processes had ended; the others have been left alone.
    """

    def is_back() -> bool:
        idle = all(state is AgentState.IDLE for state in states(bench).values())
        pending = bench.rows(f"SELECT 1 FROM messages WHERE status IN ({', '.join('?' * len(PENDING))})", *PENDING)
        running = bench.rows("SELECT 1 FROM orchestrations WHERE status = 'running'")
        return idle and not pending and bool(running)

    wait_for(is_back, "the team to be back", seconds=60)
    for old, new in zip(before, team(bench), strict=True):
        same = ("conversation_id", "worktree", "branch", "window", "session", "role")
        assert {name: getattr(new, name) for name in same} == {name: getattr(old, name) for name in same}
        if old.role in ended:
            assert (new.epoch, new.process == old.process) == (old.epoch + 1, False)
            (note,) = notes(bench, old.role)
            assert (note["status"], times_read(bench, note)) == ("acknowledged", 1)
        else:
            assert (new.epoch, new.process) == (old.epoch, old.process)
            assert notes(bench, old.role) == []
    panes = sorted((pane.window, pane.window_name, pane.pid) for pane in bench.tmux.panes())
    assert panes == [(agent.window, agent.role, agent.process and agent.process.pid) for agent in team(bench)]
    # Everything else once, too.
    briefings = bench.rows("SELECT * FROM messages WHERE kind = 'briefing'")
    assert [(row["attempts"], times_read(bench, row)) for row in briefings] == [(1, 1)] * len(before)
    armed = bench.rows("SELECT agent_id, status FROM check_ins ORDER BY agent_id")
    assert armed == [{"agent_id": agent.id, "status": "scheduled"} for agent in before]
    assert bench.rows("SELECT 1 FROM check_ins JOIN events ON kind = 'check_in.fired'") == []


class TestResume:
    """By a person, while no scheduler runs."""

    def test_a_killed_agent_comes_back_in_its_conversation(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        (before[1].worktree / "draft.txt").write_text("not committed")
        kill(before[1].process)
        done = resume(bench, project)
        all_are_back(bench, before, ended=["developer"])
        assert (before[1].worktree / "draft.txt").read_text() == "not committed"
        assert member(bench, "developer").pane_id == before[1].pane_id
        assert "running" in done.out

    def test_a_lost_tmux_server_comes_back(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        kill_server(bench)
        resume(bench, project)
        all_are_back(bench, before, ended=ROLES)

    def test_resuming_what_stands_does_nothing(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        resume(bench, project)
        resume(bench, project)
        all_are_back(bench, before, ended=[])

    def test_after_a_reboot_a_pid_that_somebody_else_has_is_no_agent(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        kill_server(bench)
        other = subprocess.Popen(["sleep", "600"])
        try:
            process = wait_for(lambda: host.process(other.pid), "the other process")
            assert process
            # Even the start is the same, in the ticks of another boot.
            bench.db().execute("UPDATE agents SET boot = 'before', pid = ?, started = ?", (other.pid, process.started))
            resume(bench, project)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()
        all_are_back(bench, before, ended=ROLES)

    def test_many_at_once_make_everything_once(self, bench: Bench, scheduler: Start) -> None:
        project = launch(bench)
        before = team(bench)
        scheduler()
        kill_server(bench)
        command = [sys.executable, str(ROOT / "auto_orchestrate.py"), "--project", str(project), "--resume"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        persons = [subprocess.Popen(command, env=bench.environment, cwd=bench.folder, **pipes) for _ in range(4)]
        said = [person.communicate(timeout=60)[0] for person in persons]
        assert [person.returncode for person in persons] == [0] * 4, said
        all_are_back(bench, before, ended=ROLES)

    def test_a_message_that_waited_arrives_once_and_after_the_note(self, bench: Bench) -> None:
        project = launch(bench)
        agent = member(bench, "developer")
        bench.ok("send-claude-message.sh", agent.target, "rehearse: busy 600")
        wait_for(lambda: states(bench)[agent.target] is AgentState.WORKING, "the developer to be at work")
        said = bench.ok("send-claude-message.sh", agent.target, "Have you seen this?")
        assert said.out.startswith("queued: developer is working")
        kill(agent.process)
        resume(bench, project)
        wait_for(lambda: bench.ok("scheduler.py", "--once") and states(bench)[agent.target] is AgentState.IDLE, "it")
        (row,) = bench.rows("SELECT * FROM messages WHERE body = 'Have you seen this?'")
        (note,) = notes(bench, "developer")
        wait_for(lambda: bench.ok("scheduler.py", "--once") and times_read(bench, row), "the message")
        assert (times_read(bench, row), times_read(bench, note)) == (1, 1)
        order = [prompt.partition("]")[0] for prompt in prompts(agent)]
        assert order.index(f"[msg {note['id']} from scheduler") < order.index(f"[msg {row['id']} from user")
        assert "- 1 message waits for you, from user, and will come now" in note["body"]

    def test_a_message_that_was_acknowledged_and_never_read_comes_again(self, bench: Bench) -> None:
        # The hook comes a moment before the entry in the transcript: here the agent was killed between the two.
        project = launch(bench)
        agent = member(bench, "developer")
        db = bench.db()
        message = messages.queue(db, agent, "Lost", sender="tester", kind=MessageKind.MESSAGE, now=host.now_ms())
        messages.pasting(db, message, agent, now=host.now_ms())
        framed = framing.frame(message.id, "tester", "Lost")
        assert messages.acknowledge(db, agent, framed, proof="hook", now=host.now_ms())
        kill(agent.process)
        resume(bench, project)
        (row,) = bench.rows("SELECT * FROM messages WHERE body = 'Lost'")
        wait_for(lambda: bench.ok("scheduler.py", "--once") and times_read(bench, row), "the message")
        assert bench.rows("SELECT status, attempts FROM messages WHERE body = 'Lost'") == [
            {"status": "acknowledged", "attempts": 2}
        ]
        # What has been read is not sent again.
        kill(member(bench, "developer").process)
        resume(bench, project)
        for _ in range(3):
            bench.ok("scheduler.py", "--once")
        assert times_read(bench, row) == 1
        db.close()

    def test_a_check_in_that_died_meanwhile_is_armed_again_once(self, bench: Bench) -> None:
        project = launch(bench)
        bench.db().execute("UPDATE check_ins SET status = 'dead', attempts = 3")
        kill_server(bench)
        resume(bench, project)
        assert bench.rows("SELECT status, attempts FROM check_ins") == [{"status": "scheduled", "attempts": 0}] * 3

    def test_a_pane_belongs_to_who_has_it_now(self, bench: Bench) -> None:
        # A new server counts its panes from the beginning: the first team's stay recorded until it is resumed.
        launch(bench, "one", ["orchestrator", "developer"])
        two = launch(bench, "two", ["orchestrator", "developer"])
        kill_server(bench)
        resume(bench, two)
        found = bench.rows("SELECT pane_id, count(*) AS number FROM agents WHERE pane_id IS NOT NULL GROUP BY pane_id")
        assert [row["number"] for row in found] == [1, 1]
        back = [agent for agent in team(bench) if agent.session == "two-impl"]
        for agent in back:
            said = bench.ok("claude_control.py", "inbox", agent.pane_id or "", "--json")
            assert said.json and {row["agent_id"] for row in said.json} == {agent.id}

    def test_one_that_needed_attention_runs_again_and_its_reason_is_gone(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        db = bench.db()
        found = orchestrations.live_in(db, project)
        assert found
        status = OrchestrationStatus.NEEDS_ATTENTION
        orchestrations.set_status(db, found.id, status, now=host.now_ms(), outcome="it has ended too often")
        kill(before[0].process)
        resume(bench, project)
        assert orchestrations.get(db, found.id).outcome is None
        (note,) = notes(bench, "orchestrator")
        assert "- the team needed a person's attention: it has ended too often" in note["body"]
        all_are_back(bench, before, ended=["orchestrator"])
        db.close()


class TestNote:
    def test_it_tells_what_has_happened_meanwhile(self, bench: Bench) -> None:
        project = launch(bench)
        orchestrator, developer, tester = team(bench)
        kill(orchestrator.process)
        # Two hours pass.
        path = transcripts.find(orchestrator.config_dir, orchestrator.conversation_id)
        assert path
        away = 2 * HOUR_MS + 5 * 60_000
        os.utime(path, ns=((host.now_ms() - away) * 1_000_000,) * 2)
        db = bench.db()
        db.execute("UPDATE agents SET last_hook_at = last_hook_at - ?", (away,))
        db.execute("UPDATE messages SET acknowledged_at = acknowledged_at - ?", (2 * away,))
        db.execute("UPDATE events SET at = at - ?", (2 * away,))
        (developer.worktree / "form.txt").write_text("a form\n")
        commit_all(developer.worktree, "Add a form")
        bench.ok("claude_control.py", "complete", "developer", "The form\nis there", "--session", "webapp-impl")
        kill(tester.process)
        resume(bench, project)
        (note,) = notes(bench, "orchestrator")
        lines = note["body"].splitlines()
        assert "Your last sign of life was 2 h 5 min ago, at " in lines[0]
        head = subprocess.run(
            ["git", "rev-parse", "--short=7", developer.branch], cwd=project, capture_output=True, text=True, check=True
        ).stdout.strip()
        assert [line for line in lines if line.startswith("- ")] == [
            "- also started again: tester",
            f"- the developer reported completion with commit {head}: The form is there",
            f"- the developer has 1 new commit, the newest {head}: Add a form",
            "- 1 message waits for you, from user, and will come now",
        ]
        (note,) = notes(bench, "tester")
        lines = note["body"].splitlines()
        assert "- also started again: orchestrator" in lines
        assert f"- the developer has 1 new commit, the newest {head}: Add a form" in lines
        db.close()

    def test_a_note_that_has_not_arrived_makes_place_for_the_next(self, bench: Bench) -> None:
        project = launch(bench)
        kill(member(bench, "developer").process)
        resume(bench, project)
        db = bench.db()
        # As if it had died before it came to the note, an hour ago.
        db.execute(
            "UPDATE messages SET status = 'queued', queued_at = queued_at - ? WHERE body LIKE 'You were inter%'",
            (HOUR_MS,),
        )
        kill(member(bench, "developer").process)
        resume(bench, project)
        first, second = notes(bench, "developer")
        assert (first["status"], first["reason"]) == ("cancelled", "a newer one takes its place")
        assert "Your last sign of life was 1 h 0 min ago" in second["body"]
        wait_for(lambda: bench.ok("scheduler.py", "--once") and times_read(bench, second) == 1, "the second note")
        db.close()

    def test_one_whose_conversation_was_lost_is_briefed_and_not_noted(self, bench: Bench) -> None:
        project = launch(bench)
        agent = member(bench, "developer")
        path = transcripts.find(agent.config_dir, agent.conversation_id)
        assert path
        kill(agent.process)
        path.unlink()
        resume(bench, project)
        assert notes(bench, "developer") == []
        assert member(bench, "developer").conversation_id != agent.conversation_id
        briefing = bench.rows(
            "SELECT status, attempts FROM messages WHERE kind = 'briefing' AND agent_id = ?", agent.id
        )
        assert briefing == [{"status": "acknowledged", "attempts": 2}]

    def test_a_repository_that_git_cannot_read_now_takes_nothing_from_the_resume(self, bench: Bench) -> None:
        project = launch(bench)
        agent, mate = member(bench, "developer"), member(bench, "tester")
        kill(agent.process)
        bench.db().execute("UPDATE orchestrations SET starting_commit = ?", ("0" * 40,))
        (mate.worktree / "more.txt").write_text("more\n")
        commit_all(mate.worktree, "More")
        resume(bench, project)
        (note,) = notes(bench, "developer")
        assert "new commit" not in note["body"]


class TestKilled:
    @pytest.mark.parametrize("first", range(1, 5))
    def test_a_resume_that_ends_before_any_of_its_writes_is_resumed(
        self, bench: Bench, first: int, is_long: bool
    ) -> None:
        project = launch(bench)
        number, died = first, 0
        while True:
            before = team(bench)
            known = {role: len(notes(bench, role)) for role in ROLES}
            kill_server(bench)
            code = bench.killed("resume", number, str(project))
            resume(bench, project)
            wait_for(lambda: bench.ok("scheduler.py", "--once") and not pending(bench), "all to arrive")
            for old, new in zip(before, team(bench), strict=True):
                assert (new.conversation_id, agents.state_of(new) is AgentState.GONE) == (old.conversation_id, False)
                arrived = [note for note in notes(bench, old.role)[known[old.role] :] if note["status"] != "cancelled"]
                assert [times_read(bench, note) for note in arrived] == [1], "each hears of it once"
            panes = sorted((pane.window, pane.pid) for pane in bench.tmux.panes())
            assert panes == [(agent.window, agent.process and agent.process.pid) for agent in team(bench)]
            armed = bench.rows("SELECT status FROM check_ins")
            assert armed == [{"status": "scheduled"}] * 3
            if code == 0:
                break
            died += 1
            number += 4 if is_long else 24
        assert died > 0


def pending(bench: Bench) -> list[dict[str, Any]]:
    return bench.rows("SELECT 1 FROM messages WHERE status IN ('queued', 'pasted', 'submitted')")


class TestByItself:
    """The daemon resumes what should run."""

    @pytest.mark.parametrize("roles", [["developer"], ["orchestrator", "tester"]], ids="+".join)
    def test_agents_that_are_killed_come_back(self, bench: Bench, scheduler: Start, roles: list[str]) -> None:
        launch(bench)
        before = team(bench)
        scheduler()
        for role in roles:
            kill(member(bench, role).process)
        all_are_back(bench, before, ended=roles)
        # Killed while the errand for the first was at work, the second has an errand of its own.
        assert 1 <= started(bench) <= len(roles)
        assert bench.rows("SELECT 1 FROM notices") == []

    def test_a_lost_tmux_server_comes_back(self, bench: Bench, scheduler: Start) -> None:
        launch(bench)
        before = team(bench)
        scheduler()
        kill_server(bench)
        all_are_back(bench, before, ended=ROLES)

    def test_server_and_scheduler_end_at_once(self, bench: Bench, scheduler: Start) -> None:
        launch(bench)
        before = team(bench)
        process = scheduler()
        process.kill()
        kill_server(bench)
        process.wait()
        scheduler()
        all_are_back(bench, before, ended=ROLES)

    def test_the_scheduler_is_killed_while_it_resumes(self, bench: Bench, scheduler: Start) -> None:
        launch(bench)
        before = team(bench)
        process = scheduler()
        kill_server(bench)
        wait_for(lambda: started(bench), "the revival")
        process.kill()
        process.wait()
        scheduler()
        all_are_back(bench, before, ended=ROLES)

    def test_the_machine_was_started_anew(self, bench: Bench, scheduler: Start) -> None:
        launch(bench)
        before = team(bench)
        kill_server(bench)
        other = subprocess.Popen(["sleep", "600"])
        try:
            process = wait_for(lambda: host.process(other.pid), "the other process")
            assert process
            bench.db().execute("UPDATE agents SET boot = 'before', pid = ?, started = ?", (other.pid, process.started))
            scheduler()
            all_are_back(bench, before, ended=ROLES)
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()

    def test_a_launch_that_was_killed_is_brought_to_its_end(self, bench: Bench, scheduler: Start) -> None:
        launch(bench, "other", ["orchestrator"])
        project = bench.project(spec=HOLDS)
        command = [sys.executable, str(ROOT / "auto_orchestrate.py"), "--spec", str(project / "spec.md")]
        command += ["--roles", ",".join(ROLES)]
        launching = subprocess.Popen(command, env=bench.environment, stderr=subprocess.DEVNULL)
        wait_for(lambda: bench.rows("SELECT 1 FROM agents WHERE session = 'webapp-impl' AND pid > 0"), "an agent")
        launching.kill()
        launching.wait()
        assert bench.rows("SELECT status FROM orchestrations WHERE session = 'webapp-impl'") == [{"status": "starting"}]
        scheduler()
        running = "SELECT 1 FROM orchestrations WHERE session = 'webapp-impl' AND status = 'running'"
        wait_for(lambda: bench.rows(running), "the team", seconds=60)
        assert all(state is not AgentState.GONE for state in states(bench).values())
        briefings = bench.rows("SELECT * FROM messages WHERE kind = 'briefing' ORDER BY id")
        assert [times_read(bench, row) for row in briefings] == [1] * 4
        assert len(bench.tmux.panes()) == 4
        assert len(bench.rows("SELECT 1 FROM check_ins WHERE status = 'scheduled'")) == 4

    def test_a_team_that_is_stopped_meanwhile_stays_stopped(self, bench: Bench, scheduler: Start) -> None:
        for number, wait in enumerate(("orchestration.reviving", "agent.starting", "hook.SessionStart")):
            name = f"webapp{number}"
            launch(bench, name)
            process = scheduler()
            before = started(bench, wait)
            kill_server(bench)
            wait_for(lambda wait=wait, before=before: started(bench, wait) > before, wait)  # type: ignore[misc]
            bench.ok("claude_control.py", "stop", f"{name}-impl")
            lock = bench.home / "locks"
            wait_for(lambda lock=lock: not any(map(host.is_held, lock.glob("launch-*"))), "the errand")  # type: ignore[misc]
            process.terminate()
            process.wait()
            wait_for(lambda lock=lock: not any(map(host.is_held, lock.glob("launch-*"))), "the errand")  # type: ignore[misc]
            assert set(states(bench).values()) == {AgentState.GONE}
            assert bench.tmux.panes() == []
            assert {row["status"] for row in bench.rows("SELECT status FROM orchestrations")} == {"stopped"}


class TestCrashLoop:
    def test_agents_that_end_at_once_are_started_five_times_and_then_left_to_a_person(self, bench: Bench) -> None:
        project = launch(bench)
        before = team(bench)
        good = bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"]
        bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "broken"  # it refuses to start
        kill(member(bench, "developer").process)
        (found,) = bench.rows("SELECT id FROM orchestrations")
        lock = bench.home / "locks" / f"launch-{found['id']}.lock"
        out = bench.home / "logs" / f"launch-{found['id']}.out"
        now, pauses = host.now_ms(), (0, 5, 15, 45, 120)
        for number, pause in enumerate(pauses, start=1):
            if pause:
                beat(bench, now + (pause - 1) * 1000)
                assert started(bench) == number - 1, "not before its pause is over"
            now += pause * 1000
            beat(bench, now)
            assert started(bench) == number
            wait_for(lambda: "ended at its start" in out.read_text() and not host.is_held(lock), "the errand's end")
        for later in (1, 60, 600, 3600, 86_400):
            beat(bench, now + later * 1000)
        assert started(bench) == 5
        (row,) = bench.rows("SELECT status, outcome FROM orchestrations")
        assert row["status"] == "needs_attention"
        assert "TMUX_ORCHESTRATOR_REHEARSAL_PACE must be a number" in row["outcome"]
        assert row["outcome"].count("--resume") == 1
        assert [notice["kind"] for notice in bench.rows("SELECT kind FROM notices")] == ["needs_attention"]
        assert [agent.process for agent in team(bench)][::2] == [agent.process for agent in before][::2]
        # A person mends it.
        bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = good
        resume(bench, project)
        assert bench.rows("SELECT status, outcome FROM orchestrations") == [{"status": "running", "outcome": None}]
        assert agents.state_of(member(bench, "developer")) is not AgentState.GONE
        kept = [note["status"] for note in notes(bench, "developer")]
        assert kept == ["cancelled"] * 5 + ["acknowledged"]


def beat(bench: Bench, now: int) -> None:
    """One beat at a time of the test's choice; its errands are real, and outlive it."""
    command = [sys.executable, "-m", "tests.killed", "beat", "0", str(now)]
    subprocess.run(command, cwd=ROOT, env=bench.environment, check=True, capture_output=True)


class TestStatusOnly:
    """Looking changes nothing, byte for byte."""

    def look(self, bench: Bench, project: Path, expected: str) -> None:
        before = snapshot(bench.folder), tmux(bench)
        for words in ((), ("--json",), ("--resume",)):
            done = bench.ok("auto_orchestrate.py", "--project", str(project), "--status-only", *words, cwd=Path("/"))
            assert expected in done.out
        assert (snapshot(bench.folder), tmux(bench)) == before

    def test_at_a_team_that_runs(self, bench: Bench) -> None:
        project = launch(bench)
        with frozen(bench):
            self.look(bench, project, "running")

    def test_at_a_team_that_has_ended(self, bench: Bench) -> None:
        project = launch(bench)
        bench.ok("claude_control.py", "stop", "webapp-impl")
        self.look(bench, project, "stopped")

    def test_right_after_the_scheduler_was_killed(self, bench: Bench, scheduler: Start) -> None:
        project = launch(bench)
        process = scheduler()
        log = bench.home / "orchestrator.db-wal"
        wait_for(lambda: log.exists() and log.stat().st_size > 0, "its first words in the store")
        with frozen(bench):
            process.kill()
            process.wait()
            assert log.stat().st_size > 0  # nobody was left to move it into the store
            self.look(bench, project, "running")

    def test_while_all_is_gone(self, bench: Bench, scheduler: Start) -> None:
        project = launch(bench)
        process = scheduler()
        process.kill()
        process.wait()
        kill_server(bench)
        self.look(bench, project, "gone")

    def test_what_is_written_and_not_checkpointed_is_seen(self, bench: Bench) -> None:
        project = launch(bench)
        kill_server(bench)
        program = (
            "import os\nfrom lib import config, host, orchestrations, store\n"
            "db = store.connect(config.state_home())\n(found,) = orchestrations.live(db)\n"
            "orchestrations.set_status(db, found.id, 'needs_attention', now=host.now_ms(), outcome='written last')\n"
            "os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=bench.environment, check=False)
        assert done.returncode == -signal.SIGKILL
        self.look(bench, project, "written last")

    def test_where_nothing_was_ever_launched(self, bench: Bench) -> None:
        project = bench.project()
        before = snapshot(bench.folder)
        done = bench.door("auto_orchestrate.py", "--project", str(project), "--status-only")
        assert done.code == 3
        assert snapshot(bench.folder) == before


class frozen:
    """Agents that do nothing for the block, so that what changes is the look's doing."""

    def __init__(self, bench: Bench) -> None:
        self._pids = [agent.process.pid for agent in team(bench) if agent.process]

    def __enter__(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT)


def tmux(bench: Bench) -> list[str]:
    """All that tmux has, and what its windows show."""
    panes = bench.tmux.panes()
    options = [bench.tmux.run("show-environment", "-t", pane.id) for pane in panes]
    return [*map(str, panes), *options, *(bench.screen(pane.id) for pane in panes)]
