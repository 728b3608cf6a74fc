"""Verbs about when the work is done: criteria."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lib import agents, criteria, host, orchestrations, store
from lib.errors import ExitCode, NotFound, OrchestratorError, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller, ensure_scheduler
from lib.judgement.teams import ORCHESTRATOR
from lib.models import CriterionState

if TYPE_CHECKING:
    from lib.criteria import Criterion
    from lib.models import Orchestration

#: How often it is looked whether a check has ended.
_LOOK_AGAIN_SECONDS = 0.1
_ACTIONS = ("list", "close", "reopen", "check")


@cli.verb(
    main,
    "criteria",
    examples="""
    claude_control.py criteria webapp-impl
    claude_control.py criteria close C2 --reason "Looked at the page in light and dark"
    claude_control.py criteria reopen C2 webapp-impl
    claude_control.py criteria check webapp-impl --wait 600
    """,
)
@click.argument("words", metavar="[list|close|reopen|check] [C1 ...] [SESSION]", nargs=-1)
@click.option("--reason", metavar="TEXT", help="With close: how it was seen that it holds.")
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="With check: wait so long for the checks.",
)
@cli.pass_output
def criteria_verb(output: Output, words: tuple[str, ...], reason: str | None, wait: float | None) -> int:
    """Show when the work is done and what shows it; close by hand what nothing checks, and have checks run.

    The Orchestrator closes what has no check, a person anything. With --wait it fails when a check does.
    docs/criteria.md tells more.
    """
    action = words[0] if words and words[0] in _ACTIONS else "list"
    rest = words[1:] if words and words[0] in _ACTIONS else words
    ids = [word for word in rest if re.fullmatch(r"[Cc][0-9]+", word)]
    sessions = [word for word in rest if word not in ids]
    is_about_some = action in ("close", "reopen")
    if len(sessions) > 1 or is_about_some != bool(ids) or (reason is not None) != (action == "close"):
        raise Usage(
            f"unexpected words: {' '.join(words)}" if words else "--reason goes with close",
            hint='claude_control.py criteria close C2 [SESSION] --reason "..."',
        )
    if wait is not None and action != "check":
        raise Usage("--wait goes with check", hint="claude_control.py criteria check --wait 600")
    desk = caller()
    team = _team(desk, sessions[0] if sessions else None)
    if action == "list":
        found = criteria.of_orchestration(desk.db, team.id)
        output.answer(_text(desk, team, found), _data(desk, team, found))
        return ExitCode.DONE
    orchestrations.check_runs(team)
    _check_may_decide(desk, team, action)
    if action == "check":
        before = criteria.newest_check(desk.db)
        said: str = _ask_for_checks(desk, team)
        changed = criteria.of_orchestration(desk.db, team.id)
    else:
        chosen = [criteria.get(desk.db, team.id, one) for one in dict.fromkeys(map(str.upper, ids))]
        changed = _change(desk, team, action, chosen, reason or "")
        said = "\n".join(f"{team.session}: {_line(one)}" for one in changed)
    host.wake(desk.home)
    ensure_scheduler(output, desk)
    if wait is not None:
        changed = _checked(output, desk, team, before, wait)
        said = _text(desk, team, changed)
    output.answer(said, _data(desk, team, changed))
    has_failed = wait is not None and any(one.state is CriterionState.FAILS for one in changed)
    return ExitCode.FAILED if has_failed else ExitCode.DONE


def _team(desk: Caller, session: str | None) -> Orchestration:
    """The team that is meant; one that is over by its session or id."""
    if session and (found := orchestrations.named(desk.db, session)):
        return found[-1]
    return orchestrations.get(desk.db, agents.team_of(desk.db, session, desk.agent))


def _check_may_decide(desk: Caller, team: Orchestration, action: str) -> None:
    me = desk.agent
    if me is not None and action != "check" and (me.role != ORCHESTRATOR or me.orchestration_id != team.id):
        raise OrchestratorError(
            f"only the Orchestrator of {team.session} or a person can {action} a criterion: this is {me.target}",
            hint=f'send-claude-message.sh {team.session}:{ORCHESTRATOR} "what shows that it holds"',
        )


def _change(
    desk: Caller, team: Orchestration, action: str, chosen: Sequence[Criterion], reason: str
) -> list[Criterion]:
    """Close or reopen: all of them, or none."""
    now, is_person = host.now_ms(), desk.agent is None
    commit = _judged(desk, team) if action == "close" else ""
    with store.writing(desk.db):
        if action == "reopen":
            return [criteria.reopen(desk.db, one, by=desk.name, now=now) for one in chosen]
        return [
            criteria.close(desk.db, one, reason, by=desk.name, is_person=is_person, commit=commit, now=now)
            for one in chosen
        ]


def _judged(desk: Caller, team: Orchestration) -> str:
    """The commit that a completion would be about now: what the Orchestrator has."""
    from lib.git import removals  # noqa: PLC0415 - asks git, which only closing needs

    lead = agents.in_role(desk.db, team.id, ORCHESTRATOR)
    return (removals.branch_commit(team.project, lead.branch) if lead else None) or team.starting_commit


def _ask_for_checks(desk: Caller, team: Orchestration) -> str:
    checked = [one.id for one in criteria.of_orchestration(desk.db, team.id) if one.command and not one.closing]
    if not checked:
        raise NotFound(f"no criterion of {team.session} is left that has a check", hint="docs/specs.md: [check: ...]")
    with store.writing(desk.db):
        criteria.want(desk.db, team.id, now=host.now_ms(), is_progress=True, is_again=True)
    return f"{team.session}: {', '.join(checked)} {'is' if len(checked) == 1 else 'are'} checked at its integration now"


def _checked(output: Output, desk: Caller, team: Orchestration, before: int, seconds: float) -> list[Criterion]:
    """The criteria when all checks have run anew, when they cannot be run, or when the time is over."""
    from lib.front import progress  # noqa: PLC0415 - only who waits needs it

    wanted = {one.id for one in criteria.of_orchestration(desk.db, team.id) if one.command and not one.closing}
    deadline, told = time.monotonic() + seconds, set[str]()
    was = criteria.judging_of(desk.db, team.id)
    with progress.counted(output, "the criteria are checked", len(wanted)) as tell:
        while True:
            found = criteria.of_orchestration(desk.db, team.id)
            new = {one.id: one for one in found if one.id in wanted and one.last and one.last.id > before}
            for name in sorted(new.keys() - told):
                tell(f"{name} {new[name].state}")
            told |= new.keys()
            judging = criteria.judging_of(desk.db, team.id)
            is_done = judging is None or judging.done >= judging.wanted
            is_in_trouble = judging is not None and judging.trouble not in (None, was and was.trouble)
            if told >= wanted or is_done or is_in_trouble or time.monotonic() > deadline:
                return found
            time.sleep(_LOOK_AGAIN_SECONDS)


# -- what is shown --


def _text(desk: Caller, team: Orchestration, found: Sequence[Criterion]) -> str:
    if not found:
        return f"{team.session}: its spec has no criteria"
    lines = [f"{team.session}: {criteria.count(found)}"]
    for one in found:
        lines += [f"  {_line(one)}", f"      {criteria.evidence(one, when=_when)}"]
        if one.state is CriterionState.FAILS and one.last and one.last.output:
            lines += [f"        {line}" for line in one.last.output.splitlines()[-5:]]
    judging = criteria.judging_of(desk.db, team.id)
    if judging and judging.trouble:
        lines.append(f"  they are not checked now: {judging.trouble}")
    return "\n".join(lines)


def _line(one: Criterion) -> str:
    return f"{one.id:4} {one.state:14}  {one.text}"


def _when(at: int) -> str:
    from lib.front.control.mail import clock  # noqa: PLC0415 - a module that closing need not load

    return clock(at)


def _data(desk: Caller, team: Orchestration, found: Sequence[Criterion]) -> dict[str, Any]:
    return {
        "session": team.session,
        "counts": vars(criteria.counts(desk.db, team.id)),
        "criteria": [
            {
                **{"id": one.id, "state": one.state, "text": one.text, "check": one.command},
                "closed": vars(one.closing) if one.closing else None,
                "last_check": vars(one.last) if one.last else None,
            }
            for one in found
        ],
    }
