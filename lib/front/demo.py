"""The demo: a throw-away repository, a bundled spec, a team of rehearsal agents, watched to its completion."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lib import config, history, host, orchestrations, planning, service, status, store
from lib.errors import OrchestratorError
from lib.front import starting
from lib.front.cli import Output
from lib.git import worktrees
from lib.models import LIVE, Orchestration, OrchestrationStatus, Program
from lib.tmux import Tmux

SPEC = config.ROOT / "examples" / "demo-spec.md"
ROLES = ("orchestrator", "developer", "tester", "testrunner")
_ENDS_WITHIN_SECONDS = 120.0


def run(output: Output, home: Path) -> None:
    """Run the demo and say where its result is. Raises `OrchestratorError` when the team does not complete."""
    tmux = Tmux.from_environment()
    tmux.check()
    project = _make_repository()
    output.say(f"demo: a throw-away repository at {project}")
    stage = planning.Stage(home, tmux, replace(config.load(), agent=Program.REHEARSAL))
    db = store.connect(home)
    decided = planning.decide(
        db,
        stage,
        project=project,
        spec_path=project / SPEC.name,
        program=Program.REHEARSAL,
        now=host.now_ms(),
        roles=ROLES,
    )
    service.start(home)  # whatever auto_start says: without it the demo might not end
    starting.start_team(output, stage, decided)
    found = _watch(output, db, decided.orchestration)
    work = worktrees.work_since(decided.agents[0].worktree, found.starting_commit, decided.agents[0].branch)
    output.answer(_result(found, work), {**status.as_data([status.of(db, found)])[0], "commit": work.head})


def _make_repository() -> Path:
    """A repository with one commit that holds the spec."""
    project = Path(tempfile.mkdtemp(prefix="tmux-orchestrator-demo-")) / "demo"
    project.mkdir()
    (project / SPEC.name).write_bytes(SPEC.read_bytes())
    worktrees.make_repository(project, author="Rehearsal", subject="The spec")
    return project.resolve()


def _watch(output: Output, db: sqlite3.Connection, started: Orchestration) -> Orchestration:
    """Tell each event as it happens, until the orchestration is over."""
    seen = 0
    deadline = time.monotonic() + _ENDS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        # The status first: what ended it is then among the events that are read after.
        found = orchestrations.get(db, started.id)
        for event in store.events(db, orchestration=started.id, after=seen):
            seen = event.id
            # Of a commit a report tells, a moment later.
            if event.kind != "branch.moved" and (line := history.sentence(db, event)):
                output.say(f"{(event.at - started.created_at) / 1000:6.1f} s  {line}")
        if found.status not in LIVE:
            if found.status is not OrchestrationStatus.COMPLETED:
                raise OrchestratorError(f"the demo is {found.status}", hint=f"claude_control.py status {found.session}")
            return found
        time.sleep(0.05)
    raise OrchestratorError(
        f"the demo has not completed within {_ENDS_WITHIN_SECONDS:.0f} s",
        hint=f"look at the agents: claude_control.py attach {started.session}",
    )


def _result(found: Orchestration, work: worktrees.Work) -> str:
    seconds = (found.updated_at - found.created_at) / 1000
    return "\n".join(
        (
            f"completed in {seconds:.0f} s: {work.commits} commits, {len(work.files)} files on {work.branch}",
            f"  the result:   git -C {found.project} log --stat {found.starting_commit[:12]}..{work.branch}",
            f"  the agents:   claude_control.py attach {found.session}   (detach with C-b d)",
            f"  end them:     claude_control.py stop {found.session}",
            "  for real:     auto_orchestrate.py --project YOUR_PROJECT --spec YOUR_SPEC",
        )
    )
