"""The merge hub's errand: what waits is merged together in the scratch worktree, checked, and becomes the integration.

The integration branch is moved only by comparison with where it was, and only to what was checked. Between two runs
nothing is remembered but the candidates and the branch: what the branch holds is merged, whoever was killed meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from lib import agents, config, criteria, errands, host, messages, orchestrations, store, templates
from lib.config import ProjectSettings, Settings
from lib.errors import Busy, OrchestratorError
from lib.git import merges, removals
from lib.git.merges import Outcome
from lib.merging import candidates, checks, delivering, integrations, scratch, sharing
from lib.merging.checks import Verdict
from lib.models import (
    LIVE,
    Agent,
    Candidate,
    CandidateStatus,
    MessageKind,
    Orchestration,
    OrchestrationStatus,
    Priority,
)
from lib.records import dataclass

#: The sender of what the hub says to agents.
SENDER = "merge-hub"
#: A conflict that its author could not settle so often is a person's.
MOST_TRIES = 2


@dataclass
class Bench:
    """What one run works with: a team's scratch worktree, where it has the integration, and what it knows of trees."""

    db: sqlite3.Connection
    found: Orchestration
    team: dict[int, Agent]
    settings: ProjectSettings
    checkout: Path
    base: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.found.project

    def role(self, one: Candidate) -> str:
        """Who has offered a candidate."""
        return self.team[one.agent_id].role


def run(home: Path, orchestration_id: str) -> None:
    """Merge all that a team has offered, then deliver it when that is due. Raises `Busy` when another is at it.

    What keeps the hub from working is recorded, and tried again later; after some tries a person is told.
    """
    with errands.working(home, integrations.errand(orchestration_id)):
        db = store.connect(home)
        found = orchestrations.get(db, orchestration_id)
        state = integrations.of(db, found.id)
        if state is None:
            return
        if state.failures >= integrations.MOST_FAILURES:
            _give_up(db, found, state.trouble or "the errand was ended again and again")
            return
        integrations.begin(db, found.id, now=host.now_ms())
        try:
            _work(db, home, found)
        except OrchestratorError as error:
            integrations.note_trouble(db, found.id, error.sentence, now=host.now_ms())
            raise
        integrations.end(db, found.id)


def _work(db: sqlite3.Connection, home: Path, found: Orchestration) -> None:
    settings = config.load()
    while batch := candidates.take(db, found.id, now=host.now_ms()):
        base = ensure_branch(found)
        with scratch.worktree(found.project, scratch.place(home, found.id), base) as checkout:
            team = {agent.id: agent for agent in agents.of_orchestration(db, found.id)}
            bench = Bench(db, found, team, config.load_project(found.project), checkout, base)
            settle(bench, batch)
    scratch.remove(found.project, scratch.place(home, found.id))  # of a run that was killed after its last candidate
    _deliver(db, home, orchestrations.get(db, found.id), settings)


def _deliver(db: sqlite3.Connection, home: Path, found: Orchestration, settings: Settings) -> None:
    if integrations.is_delivering(db, found.id) and found.status is OrchestrationStatus.COMPLETED:
        delivering.deliver(db, home, found, settings)


def ensure_branch(found: Orchestration) -> str:
    """The commit of a team's integration branch, which is made from the starting commit when it is not there."""
    name = found.integration_branch
    commit = removals.branch_commit(found.project, name)
    if commit is None:
        merges.move(found.project, f"refs/heads/{name}", found.starting_commit, before=None, why="integration begins")
        return found.starting_commit
    return commit


# -- merging --


def settle(bench: Bench, batch: Sequence[Candidate]) -> None:
    """Merge candidates together, oldest first, and check once; when that is red, find the ones that are to blame.

    One that is in conflict with another of them waits for the next round, when that other is decided.
    """
    ready = [one for one in batch if not _is_there(bench, one)]
    _confirm(bench, [one for one in batch if one not in ready])
    if not ready:
        return
    taken, head = _merge(bench, ready)
    if not taken:
        return
    verdict = checks.weigh(_verdict(bench, head), lambda: _verdict(bench, bench.base))
    if verdict.is_green:
        _advance(bench, taken, head, verdict)
    elif len(taken) == 1:
        _send_back_red(bench, taken[0], verdict)
    else:
        middle = len(taken) // 2
        settle(bench, taken[:middle])
        settle(bench, taken[middle:])


def _is_there(bench: Bench, one: Candidate) -> bool:
    return merges.contains(bench.project, bench.base, one.head)


def _merge(bench: Bench, ready: Sequence[Candidate]) -> tuple[list[Candidate], str]:
    """Merge what can be merged onto the integration. Returns that, and the commit that it makes together."""
    scratch.reset(bench.checkout, bench.base)
    taken: list[Candidate] = []
    for one in ready:
        if not merges.are_related(bench.project, bench.base, one.head):
            _send_back_unrelated(bench, one)
            continue
        message = f"Merge the work of {bench.role(one)} ({one.head[:12]})"
        made = merges.merge(bench.checkout, one.head, message=message, seconds=scratch.LONGEST_SECONDS)
        if made.outcome is not Outcome.CONFLICT:
            taken.append(one)
            continue
        merges.abort(bench.checkout)
        if not taken:  # in conflict with the integration itself: nothing of this round decides that
            _send_back_conflict(bench, one, made.conflicts)
    return taken, merges.head(bench.checkout)


def _verdict(bench: Bench, commit: str) -> Verdict:
    """What the check says of a commit. The same files are not checked twice in one run."""
    tree = merges.tree(bench.project, commit)
    if tree not in bench.verdicts:
        scratch.reset(bench.checkout, commit)
        bench.verdicts[tree] = checks.run(bench.checkout, bench.settings)
    return bench.verdicts[tree]


def _advance(bench: Bench, taken: Sequence[Candidate], head: str, verdict: Verdict) -> None:
    """Move the integration branch to what was checked, and record what is merged by that."""
    name = bench.found.integration_branch
    for place in removals.places(bench.project).values():
        if place.branch == name:
            raise Busy(f"{name} is checked out in {place.path}", hint="check out another branch there")
    roles = ", ".join(map(bench.role, taken))
    merges.move(bench.project, f"refs/heads/{name}", head, before=bench.base, why=f"merge of {roles}")
    bench.base = head
    _confirm(bench, taken, verdict)
    sharing.push(bench.db, bench.found, name, now=host.now_ms())


def _confirm(bench: Bench, there: Sequence[Candidate], verdict: Verdict | None = None) -> None:
    with store.writing(bench.db):
        for one in there:
            reason = verdict.why if verdict else "the integration holds it"
            candidates.settle(bench.db, one, CandidateStatus.MERGED, now=host.now_ms(), reason=reason)
        if there:  # so that it is seen how far the work has come
            criteria.want(bench.db, bench.found.id, now=host.now_ms(), is_progress=True)


# -- what goes back --


def _send_back_red(bench: Bench, one: Candidate, verdict: Verdict) -> None:
    log = verdict.ran.output if verdict.ran else ""
    text = templates.render(
        "candidate_red.md",
        role=bench.role(one),
        commit=one.head,
        integration=bench.found.integration_branch,
        why=verdict.why,
        command=verdict.ran.command if verdict.ran else "",
        log=log,
    )
    with store.writing(bench.db):
        if candidates.settle(bench.db, one, CandidateStatus.RED, now=host.now_ms(), reason=verdict.why, log=log):
            _tell_author(bench, one, text)


def _send_back_conflict(bench: Bench, one: Candidate, paths: Sequence[str]) -> None:
    reason = f"conflict with the integration in {', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}"
    base = merges.merge_base(bench.project, bench.base, one.head)
    text = templates.render(
        "candidate_conflict.md",
        role=bench.role(one),
        commit=one.head,
        integration=bench.found.integration_branch,
        merge_base=base or "(nothing in common)",
        paths=[(path, _other_author(bench, one, path, base)) for path in paths[:20]],
        more=max(0, len(paths) - 20),
    )
    _send_back(bench, one, reason, text, f"merge {bench.found.integration_branch}")


def _send_back_unrelated(bench: Bench, one: Candidate) -> None:
    integration = bench.found.integration_branch
    command = f"merge --allow-unrelated-histories {integration}"
    text = templates.render("candidate_unrelated.md", commit=one.head, integration=integration, command=command)
    _send_back(bench, one, f"it has no commit in common with {integration}", text, command)


def _send_back(bench: Bench, one: Candidate, reason: str, text: str, command: str) -> None:
    """What cannot be merged goes to its author; after too many times a person is told which `git` command helps."""
    with store.writing(bench.db):
        if not candidates.settle(bench.db, one, CandidateStatus.CONFLICT, now=host.now_ms(), reason=reason):
            return
        _tell_author(bench, one, text)
        if (tries := candidates.get(bench.db, one.id).tries) >= MOST_TRIES:
            outcome = (
                f"{bench.role(one)}'s work could not be merged {tries} times: {reason};"
                f" next: git -C {bench.team[one.agent_id].worktree} {command}"
            )
            status = OrchestrationStatus.NEEDS_ATTENTION
            orchestrations.set_status(bench.db, bench.found.id, status, now=host.now_ms(), outcome=outcome)


def _other_author(bench: Bench, one: Candidate, path: str, base: str | None) -> str:
    """Who else has changed a path since the two lines parted: a role and its commit, as far as it can be told."""
    commit = merges.last_change(bench.project, path, since=base, until=bench.base)
    if commit is None:
        return "nobody since the merge base"
    for other in candidates.merged(bench.db, bench.found.id):
        if other.agent_id != one.agent_id and merges.contains(bench.project, other.head, commit):
            return f"{bench.role(other)} in {commit[:12]}"
    return f"somebody else in {commit[:12]}"


def _tell_author(bench: Bench, one: Candidate, text: str) -> None:
    """Nobody works any more in a team that is over: then a person hears of it, with the delivery."""
    if orchestrations.get(bench.db, bench.found.id).status in LIVE:
        author = bench.team[one.agent_id]
        messages.queue(
            bench.db,
            author,
            text,
            sender=SENDER,
            kind=MessageKind.NOTICE,
            priority=Priority.HIGH,
            now=host.now_ms(),
        )


def _give_up(db: sqlite3.Connection, found: Orchestration, trouble: str) -> None:
    """The hub cannot work for this team: a person is told, and what waits goes on waiting."""
    again = f"sync_coordinator.py merge {found.session}"
    reason = f"the merge hub cannot work: {trouble}"
    if integrations.is_delivering(db, found.id):
        delivering.keep_back(db, found, reason, again, now=host.now_ms())
    else:
        status, outcome = OrchestrationStatus.NEEDS_ATTENTION, f"{reason}; next: {again}"
        orchestrations.set_status(db, found.id, status, now=host.now_ms(), outcome=outcome)
    integrations.begin(
        db, found.id, now=host.now_ms()
    )  # the last time: whoever is killed before it tells nothing twice
