"""The verbs merge, merge-run and criteria-run: what is committed is offered to the merge hub, or only looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from lib import agents, criteria, host, orchestrations, service, store
from lib.errors import ExitCode, NotFound, OrchestratorError
from lib.front import cli, progress
from lib.front.cli import Output
from lib.front.syncing import main
from lib.front.syncing.desk import Desk, desk, team
from lib.git import merges, removals
from lib.merging import candidates, hub, integrations, judging
from lib.models import LIVE, OFFERED, WENT_BACK, Agent, Candidate, CandidateStatus, Orchestration, OrchestrationStatus
from lib.records import dataclass

#: How often it is looked whether the merge hub has come to an end.
_LOOK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Offer:
    """What became of offering a role's branch: its candidate, or why there is none."""

    agent: Agent
    candidate: Candidate | None
    why_not: str | None = None


@cli.verb(
    main,
    examples="""
    sync_coordinator.py merge webapp-impl --dry-run
    sync_coordinator.py merge webapp-impl --role developer --wait 600
    sync_coordinator.py merge
    """,
)
@click.argument("session", required=False)
@click.option("--role", metavar="ROLE", help="Only this role's branch.")
@click.option("--dry-run", is_flag=True, help="Say what would merge cleanly, and change nothing.")
@click.option(
    "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Wait so long for what becomes of it."
)
@cli.pass_output
def merge(output: Output, session: str | None, role: str | None, dry_run: bool, wait: float) -> int:
    """Offer what agents have committed to the merge hub, which checks it and brings it together.

    In an agent's window it offers that agent's own branch. With --wait it fails when something goes back to its author.
    """
    here = desk()
    found = team(here, session)
    chosen = _chosen(here, found, role, is_offer=not dry_run)
    if dry_run:
        _show_what_would(output, found, chosen)
        return ExitCode.DONE
    offers = _offer(here, found, chosen)
    is_again = _deliver_again(here, found)
    host.wake(here.home)
    if integrations.due(here.db, now=host.now_ms()) and (sentence := service.ensure(here.home)):
        output.say(sentence)
    offers = _settled(output, here, offers, wait) if wait else offers
    lines = [_offer_line(one) for one in offers]
    lines += ["its delivery is tried again"] if is_again else []
    waiting = candidates.waiting(here.db, found.id)
    lines.append(f"{len(waiting)} of {found.session} wait to be merged into {found.integration_branch}")
    data = {"session": found.session, "integration_branch": found.integration_branch, "waiting": len(waiting)}
    output.answer("\n".join(lines), data | {"offers": [_offer_data(one) for one in offers]})
    has_come_back = wait and any(one.candidate and one.candidate.status in WENT_BACK for one in offers)
    return ExitCode.FAILED if has_come_back else ExitCode.DONE


def _chosen(here: Desk, found: Orchestration, role: str | None, *, is_offer: bool) -> list[Agent]:
    """The agents that a command is about. Raises `NotFound` for a role that nobody has, and for another's branch."""
    mates = agents.of_orchestration(here.db, found.id)
    myself = agents.myself(here.db, here.tmux)
    if is_offer and myself and not myself.is_guest:
        if myself.orchestration_id != found.id or role not in (None, myself.role):
            raise OrchestratorError(
                f"{myself.target} offers its own branch only", hint="sync_coordinator.py merge, without more words"
            )
        role = myself.role
    chosen = [agent for agent in mates if role in (None, agent.role)]
    if not chosen:
        raise NotFound(
            f"nobody in {found.session} is the {role}", hint=f"roles: {', '.join(agent.role for agent in mates)}"
        )
    return chosen


# -- offering --


def _offer(here: Desk, found: Orchestration, chosen: Sequence[Agent]) -> list[Offer]:
    if found.status not in (*LIVE, OrchestrationStatus.COMPLETED):
        raise OrchestratorError(
            f"{found.session} is {found.status}: nobody merges for it any more",
            hint=f"merge it yourself: git -C {found.project} merge {found.branches}/ROLE",
        )
    return [_offer_one(here, found, agent) for agent in chosen]


def _offer_one(here: Desk, found: Orchestration, agent: Agent) -> Offer:
    head = removals.branch_commit(found.project, agent.branch)
    if head is None:
        return Offer(agent, None, "it has no branch")
    if merges.contains(found.project, _integration(found), head):
        return Offer(agent, None, "all that it has committed is merged")
    return Offer(agent, candidates.offer_again(here.db, agent, head, now=host.now_ms()))


def _settled(output: Output, here: Desk, offers: Sequence[Offer], seconds: float) -> list[Offer]:
    """The offers as they stand when the hub has settled them all, or the time is over."""
    open_ones = {one.candidate.id: one for one in offers if one.candidate and one.candidate.status in OFFERED}
    deadline, now = time.monotonic() + seconds, dict[int, Candidate]()
    with progress.counted(output, "the merge hub merges and checks", len(open_ones)) as tell:
        while len(now) < len(open_ones) and time.monotonic() < deadline:
            for number in open_ones.keys() - now.keys():
                if (one := candidates.get(here.db, number)).status not in OFFERED:
                    now[number] = one
                    tell(f"{open_ones[number].agent.role} is {one.status}")
            time.sleep(_LOOK_AGAIN_SECONDS)
    return [
        replace(one, candidate=now.get(one.candidate.id, one.candidate)) if one.candidate else one for one in offers
    ]


def _integration(found: Orchestration) -> str:
    return removals.branch_commit(found.project, found.integration_branch) or found.starting_commit


def _deliver_again(here: Desk, found: Orchestration) -> bool:
    """Have a delivery that was kept back tried again."""
    state = integrations.of(here.db, found.id)
    if found.status is not OrchestrationStatus.COMPLETED or state is None or state.delivery == "delivered":
        return False
    with store.writing(here.db):
        integrations.want_delivery(here.db, found.id, now=host.now_ms())
    return True


def _offer_line(one: Offer) -> str:
    said = one.why_not or f"{one.candidate.head[:12]} is {one.candidate.status}" if one.candidate else one.why_not
    return f"  {one.agent.role:20}  {said}"


def _offer_data(one: Offer) -> dict[str, Any]:
    found = one.candidate
    return {
        "role": one.agent.role,
        "branch": one.agent.branch,
        "commit": found.head if found else None,
        "status": found.status if found else None,
        "why_not": one.why_not,
    }


# -- looking only --


def _show_what_would(output: Output, found: Orchestration, chosen: Sequence[Agent]) -> None:
    targets = {"integration": _integration(found)}
    if found.starting_branch and (start := removals.branch_commit(found.project, found.starting_branch)):
        targets["starting branch"] = start
    lines, data = [f"{found.session}: {found.integration_branch}, {found.starting_branch or 'a detached HEAD'}"], []
    with progress.counted(output, "merges are tried, without a checkout", len(chosen)) as tell:
        tried = [_try_each(found, targets, agent, tell) for agent in chosen]
    for agent, (head, into) in zip(chosen, tried, strict=True):
        lines += [f"  {agent.role:20}  {name + ':':16} {said}" for name, (said, _) in into.items()]
        data.append(
            {
                **{"role": agent.role, "branch": agent.branch, "commit": head},
                **{
                    name.replace(" ", "_"): {"says": said, "conflicts": list(files)}
                    for name, (said, files) in into.items()
                },
            }
        )
    output.answer("\n".join([*lines, "nothing was changed"]), data)


def _try_each(
    found: Orchestration, targets: Mapping[str, str], agent: Agent, tell: Callable[[str], None]
) -> tuple[str | None, dict[str, tuple[str, tuple[str, ...]]]]:
    """The head of a branch, and what its merge into each target would come to."""
    head = removals.branch_commit(found.project, agent.branch)
    into = {name: _would(found, target, head) for name, target in targets.items()}
    tell(agent.role)
    return head, into


def _would(found: Orchestration, target: str, head: str | None) -> tuple[str, tuple[str, ...]]:
    """What a merge of a branch would come to, in words, and the files in conflict."""
    if head is None:
        return "no branch", ()
    if merges.contains(found.project, target, head):
        return "nothing new", ()
    if not merges.are_related(found.project, target, head):
        return "no commit in common", ()
    if files := merges.would_conflict(found.project, target, head):
        return f"conflict in {', '.join(files)}", files
    count = merges.distance(found.project, head, target).ahead
    return f"merges cleanly, {count} commit{'' if count == 1 else 's'}", ()


# -- the errand --


@cli.verb(main, "merge-run", examples="sync_coordinator.py merge-run a1b2c3")
@click.argument("orchestration", metavar="ID")
@cli.pass_output
def merge_run(output: Output, orchestration: str) -> None:
    """Merge what a team has offered and deliver what is due, as the scheduler does."""
    here = desk()
    hub.run(here.home, orchestrations.get(here.db, orchestration).id)
    found = orchestrations.get(here.db, orchestration)
    last = list(candidates.last_of_each(here.db, found.id).values())
    state = integrations.of(here.db, found.id)
    counts = {
        "merged": sum(one.status is CandidateStatus.MERGED for one in last),
        "went_back": sum(one.status in WENT_BACK for one in last),
        "waiting": sum(one.status in OFFERED for one in last),
    }
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    delivery = state.delivery if state else "not_yet"
    output.answer(f"{found.session}: {said}; delivery: {delivery.replace('_', ' ')}", counts | {"delivery": delivery})


@cli.verb(main, "criteria-run", examples="sync_coordinator.py criteria-run a1b2c3")
@click.argument("orchestration", metavar="ID")
@cli.pass_output
def criteria_run(output: Output, orchestration: str) -> None:
    """Check what criteria of a team are to be checked, as the scheduler does."""
    here = desk()
    judging.run(here.home, orchestrations.get(here.db, orchestration).id)
    found = orchestrations.get(here.db, orchestration)
    counts = criteria.counts(here.db, found.id)
    output.answer(f"{found.session}: {counts}", vars(counts))
