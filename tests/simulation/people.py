"""What people and agents do: each operation is a command of its own, which runs as a process and may be killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lib import agents, checkins, delivery, host, launch, orchestrations, pauses, planning, reports, store
from lib.delivery import Desk
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, CatchUp, Orchestration, OrchestrationStatus, Priority
from lib.queue import draining, entries

if TYPE_CHECKING:
    from sqlite3 import Connection

    from tests.simulation.runs import Run

#: The files that agents change: few, so that they meet.
FILES = ("README", "app.py", "tests.py", "docs.md")


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An operation that runs as a command, with a connection of its own, and wakes the daemon at its end."""

    def made(call: Callable[..., None]) -> Callable[..., None]:
        def start(run: Run, *words: object) -> None:
            def live() -> None:
                db = store.connect(run.world.home)
                call(run, db, *words)
                host.wake(run.world.home)

            run.machine.command(f"person {name}", live)

        start.__name__ = call.__name__
        return start

    return made


def _agent(db: Connection, number: int) -> Agent | None:
    live = agents.live(db)
    return live[number % len(live)] if live else None


def _team(db: Connection, number: int) -> Orchestration | None:
    live = orchestrations.live(db)
    return live[number % len(live)] if live else None


@_command("queues")
def queue(run: Run, db: Connection, project: int, roles: int) -> None:
    """Add a spec of a project to the queue."""
    names = [ORCHESTRATOR, "developer", "tester"][: 1 + roles]
    path = run.projects[project % len(run.projects)]
    spec = f"# Spec {project}\n\nDo it.\n"
    new = entries.NewEntry(path / "spec.md", spec, path, options={"roles": names})
    entries.add(db, [new], now=host.now_ms())


@_command("sends")
def send(run: Run, db: Connection, number: int, sender: str, lines: int, priority: int, seconds: float) -> None:
    """Write to an agent."""
    if agent := _agent(db, number):
        body = "\n".join(f"line {line} of {lines}" for line in range(lines))
        desk = Desk(db, run.tmux, run.world.home)
        delivery.send(desk, agent, body, sender=sender, wait_seconds=seconds, priority=Priority(priority))


@_command("notes")
def note(run: Run, db: Connection, number: int, text: str, minutes: int, again: bool, terms: str, jitter: int) -> None:
    """Schedule a check-in, once or again and again."""
    if agent := _agent(db, number):
        orchestrations.check_takes_notes(db, agent)
        catch_up = CatchUp(terms) if again else None
        found = checkins.Terms(catch_up, None, jitter if minutes > 1 else 0)
        checkins.add(db, agent.id, text, now=host.now_ms(), minutes=minutes, recurring=again, terms=found)


@_command("pauses")
def pause(run: Run, db: Connection, number: int) -> None:
    """Have a team stand still."""
    if (found := _team(db, number)) and pauses.pause(db, found, now=host.now_ms()):
        pauses.interrupt(Desk(db, run.tmux, run.world.home), found, now=host.now_ms())


@_command("goes on")
def go_on(run: Run, db: Connection, number: int) -> None:
    """Have a paused team go on."""
    if found := _team(db, number):
        pauses.resume(db, found, now=host.now_ms())


def work(run: Run, number: int, file: int) -> None:
    """An agent commits."""
    sessions = list(run.anthropic.sessions.values())
    if sessions:
        session = sessions[number % len(sessions)]
        run.git.work(session.cwd, FILES[file % len(FILES)])


@_command("reports")
def report(run: Run, db: Connection, number: int) -> None:
    """An agent reports that its part is done."""
    agent = _agent(db, number)
    if agent and agent.role != ORCHESTRATOR:
        now = host.now_ms()
        reports.complete(db, agent, f"Done at {now}", caller=agent, sender=agent.role, now=now)


@_command("completes")
def complete(run: Run, db: Connection, number: int) -> None:
    """The whole is done."""
    if found := _team(db, number):
        hub = agents.of_orchestration(db, found.id)[0]
        if hub.worktree in run.git.checkouts():
            run.git.work(hub.worktree, "README")
            reports.complete(db, hub, "All is done", caller=None, sender="user", now=host.now_ms())


@_command("fails")
def fail(run: Run, db: Connection, number: int) -> None:
    """The whole cannot be done."""
    if found := _team(db, number):
        hub = agents.of_orchestration(db, found.id)[0]
        reports.fail(db, hub, "It cannot be done", caller=None, now=host.now_ms())


@_command("cancels")
def cancel(run: Run, db: Connection, number: int) -> None:
    """Take an entry out of the queue."""
    found = entries.unfinished(db)
    if found:
        draining.cancel(db, run.tmux, run.world.home, found[number % len(found)].id, now=host.now_ms())


@_command("resumes")
def resume(run: Run, db: Connection, number: int) -> None:
    """Look after a team, and have it brought about again."""
    if found := _team(db, number):
        stage = planning.Stage(run.world.home, run.tmux, run.machine.settings)
        launch.resume(db, stage, found.project, progress=lambda role, what: None)


def restart_daemon(run: Run) -> None:
    """The service is restarted."""
    if run.machine.daemon:
        run.world.end(run.machine.daemon, -15)


OPERATIONS: dict[str, Callable[..., None]] = {
    one.__name__: one
    for one in (queue, send, note, pause, go_on, work, report, complete, fail, cancel, resume, restart_daemon)
}


# -- when no more goes wrong --


def finish(run: Run) -> None:
    """What people do every few minutes at the end: look after what needs them, and see teams to their end."""
    db = run.looking
    rows = db.execute("SELECT * FROM orchestrations WHERE status NOT IN ('completed', 'failed', 'stopped')").fetchall()
    for number, row in enumerate(rows):
        if row["paused_at"] is not None:
            go_on(run, number)
        elif row["status"] == OrchestrationStatus.NEEDS_ATTENTION:
            resume(run, number)
        elif row["status"] == OrchestrationStatus.RUNNING and _is_at_rest(run, row["id"]):
            complete(run, number)


def _is_at_rest(run: Run, orchestration: str) -> bool:
    """Whether all of a team are there and idle, nothing waits for any, and no note is still to come once."""
    team = run.looking.execute("SELECT id FROM agents WHERE orchestration_id = ?", (orchestration,)).fetchall()
    waits = run.looking.execute(
        "SELECT (SELECT count(*) FROM messages JOIN agents ON agents.id = agent_id WHERE orchestration_id = ?1"
        " AND status IN ('queued', 'pasted', 'submitted')) + (SELECT count(*) FROM check_ins JOIN agents ON"
        " agents.id = agent_id WHERE orchestration_id = ?1"
        " AND (status = 'dead' OR (status = 'scheduled' AND interval_minutes IS NULL)))",
        (orchestration,),
    ).fetchone()[0]
    sessions = [run.anthropic.of_agent(row["id"]) for row in team]
    return not waits and all(one is not None and one.status == "idle" for one in sessions)
