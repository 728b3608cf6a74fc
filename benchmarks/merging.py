"""The merge hub: from an offered commit to the integration branch that holds it, by the scheduler and its errand."""

from __future__ import annotations

import functools

from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal, wait_for
from benchmarks.teams import HOLDS, THREE, Counts
from lib import host
from lib.git import merges
from lib.merging import candidates
from lib.models import Candidate

_IDENTITY = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")


def merging(counts: Counts) -> list[Figure]:
    """One commit at a time, and one of each of three roles at once; the project has no check."""
    with rehearsal() as machine:
        project = machine.project()
        (project / "spec.md").write_text(HOLDS)
        spec = str(project / "spec.md")
        machine.door("auto_orchestrate.py", "--spec", spec, "--roles", THREE, "--agent", "rehearsal")
        roles = THREE.split(",")
        for role in roles:
            machine.wait_idle(role)
        alone, together = [], []
        for number in range(counts.launches):
            alone.append(_until_merged(machine, [_commit(machine, "developer", f"alone-{number}")]))
            commits = [_commit(machine, role, f"{role}-{number}") for role in roles]
            together.append(_until_merged(machine, commits))
    return [
        Figure(
            "merge hub: from an offer until the integration branch has moved, without a check",
            "s",
            tuple(alone),
            headline=True,
        ),
        Figure("merge hub: the same for three roles that offer at once", "s", tuple(together)),
    ]


def _commit(machine: Machine, role: str, name: str) -> tuple[str, str]:
    """A role and its new commit."""
    worktree = machine.agent(role).worktree
    (worktree / f"{name}.txt").write_text(f"{name}\n")
    machine.run("git", "-C", str(worktree), "add", "-A")
    machine.run("git", "-C", str(worktree), *_IDENTITY, "commit", "-q", "-m", name)
    return role, merges.head(worktree)


def _until_merged(machine: Machine, commits: list[tuple[str, str]]) -> float:
    db = machine.db()
    offered = [candidates.offer(db, machine.agent(role), head, now=host.now_ms()) for role, head in commits]
    host.wake(machine.home)
    wait_for(functools.partial(_all_settled, machine, offered), "the merge")
    settled = [candidates.get(db, one.id) for one in offered]
    assert all(one.status == "merged" for one in settled)
    return (max(one.settled_at or 0 for one in settled) - min(one.offered_at for one in settled)) / 1000


def _all_settled(machine: Machine, offered: list[Candidate]) -> bool:
    db = machine.db()
    return all(candidates.get(db, one.id).settled_at is not None for one in offered)
