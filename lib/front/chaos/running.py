"""What chaos_tester.py does and prints: the plan, each strike with what became of it, the scorecard."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence

from lib.errors import ExitCode, OrchestratorError, Usage
from lib.front.chaos.checks import CHECKS
from lib.front.chaos.ground import Ground, borrowed, ground, wait_for
from lib.front.chaos.ordeal import Ordeal
from lib.front.chaos.strikes import BY_THE_MACHINE, STRIKES
from lib.front.chaos.team import Team
from lib.front.cli import Output
from lib.judgement import ordeals
from lib.judgement.ordeals import Outcome, Severity, Strike
from lib.records import dataclass


@dataclass(frozen=True)
class Request:
    """What a person wants; durations and intervals in seconds."""

    duration: float
    severity: Severity
    intervals: tuple[float, float]
    seed: int | None
    only: tuple[str, ...]
    #: A team that is not whole again after so long has not recovered.
    patience: float
    dry_run: bool
    #: A person's own team, instead of rehearsal teams; `is_sure` that its processes may be killed.
    session: str | None = None
    is_sure: bool = False


def run(output: Output, request: Request) -> ExitCode:
    """Print the plan, or carry it out and print the scorecard. The code is 1 when something did not hold."""
    if request.intervals[0] > request.intervals[1]:
        raise Usage("--min-interval is longer than --max-interval")
    if request.session and not (request.is_sure or request.dry_run):
        raise Usage(f"it kills processes of {request.session} and of your scheduler: say so with --yes")
    seed = secrets.randbelow(1_000_000) if request.seed is None else request.seed
    strikes = ordeals.plan(
        seed,
        duration=request.duration,
        severity=request.severity,
        intervals=request.intervals,
        only=_kinds(request),
    )
    if request.dry_run:
        output.answer("\n".join(_plan_lines(seed, strikes)), {"seed": seed, "plan": [_planned(one) for one in strikes]})
        return ExitCode.DONE
    outcomes = _carry_out(output, request, seed, strikes)
    output.answer("\n".join(_score_lines(seed, outcomes)), _score(seed, outcomes))
    return ExitCode.FAILED if any(one.problems for one in outcomes) else ExitCode.DONE


def _kinds(request: Request) -> tuple[str, ...]:
    """The kinds that are named; of a person's own team those that it can bear. Raises `Usage` for others."""
    if request.session is None:
        return request.only
    sparing = [kind.name for kind in ordeals.KINDS if kind.is_sparing]
    if others := [name for name in request.only if name not in sparing]:
        raise Usage(f"{others[0]} is for rehearsal teams only", hint=f"with --session: {', '.join(sparing)}")
    return request.only or tuple(sparing)


def _carry_out(output: Output, request: Request, seed: int, strikes: Sequence[Strike]) -> list[Outcome]:
    where = f"on your team {request.session}" if request.session else "on a ground of their own"
    output.say(f"chaos: {_counted(len(strikes))} by seed {seed}, {where}")
    began, outcomes = time.monotonic(), list[Outcome]()
    with borrowed() if request.session else ground() as there:
        if request.session:
            Team.of(there, request.session)
        for strike in strikes:
            time.sleep(max(0.0, began + strike.at - time.monotonic()))
            outcomes.append(undergo(there, strike, request))
            output.say(_outcome_line(outcomes[-1]))
    return outcomes


def undergo(there: Ground, strike: Strike, request: Request) -> Outcome:
    """Launch a team, unless one is named, hit it, and look whether all is as before.

    What cannot be done at all is a problem too.
    """
    if there.machine.why_not and strike.kind.name in BY_THE_MACHINE:
        return Outcome(strike, skipped=there.machine.why_not)
    try:
        name = request.session
        team = Team.of(there, name) if name else Team.launch(there, f"ordeal-{strike.number}")
        ordeal = Ordeal(team, strike, request.patience)
        ordeal.prepare()
        STRIKES[strike.kind.name](ordeal)
        outcome = _look(ordeal)
        if there.is_own:
            team.stop()
    except (OrchestratorError, sqlite3.Error, OSError) as error:  # of what is broken, the tester is the one to tell
        return Outcome(strike, problems=(str(error),))
    return outcome


def _look(ordeal: Ordeal) -> Outcome:
    """Wait until all is back, give the team something more to do, and check everything."""
    began = time.monotonic()
    ordeal.settle()
    is_back = wait_for(lambda: _lacks(ordeal) is None, seconds=ordeal.patience)
    recovered = time.monotonic() - began if is_back else None
    problems = [] if is_back else [f"it has not recovered: {_lacks(ordeal)}"]
    if is_back:
        ordeal.tell_all()
        ordeal.settle()
        wait_for(lambda: _lacks(ordeal) is None, seconds=ordeal.patience)
    problems += [wrong for check in CHECKS for wrong in check(ordeal)]
    return Outcome(ordeal.strike, recovered=recovered, promises=len(ordeal.promises), problems=tuple(problems))


def _lacks(ordeal: Ordeal) -> str | None:
    lost = [one for one in ordeal.missing() if one.endswith("is lost")]
    return ordeal.team.lacks() or (lost[0] if lost else None)


# -- what is printed --


def _plan_lines(seed: int, strikes: Sequence[Strike]) -> list[str]:
    lines = [f"{one.at:8.1f} s  {one.kind.name:16} {one.kind.words}" for one in strikes]
    return [f"plan of seed {seed}: {len(strikes)} strikes", *lines]


def _planned(one: Strike) -> Mapping[str, object]:
    return {"number": one.number, "at_seconds": one.at, "kind": one.kind.name, "severity": str(one.kind.severity)}


def _counted(strikes: int) -> str:
    return "1 strike" if strikes == 1 else f"{strikes} strikes"


def _outcome_line(one: Outcome) -> str:
    head = f"{one.strike.number:3}  {one.strike.kind.name:16}"
    if one.skipped is not None:
        return f"{head} skipped: {one.skipped}"
    time_words = "not recovered" if one.recovered is None else f"recovered in {one.recovered:4.1f} s"
    held = f"{one.promises} promises kept" if one.held else "; ".join(one.problems)
    return f"{head} {time_words}, {held}"


def _score_lines(seed: int, outcomes: Sequence[Outcome]) -> list[str]:
    failed = [one for one in outcomes if one.problems]
    skipped = [one for one in outcomes if one.skipped is not None]
    head = f"seed {seed}: {_counted(len(outcomes))}, {sum(one.held for one in outcomes)} held"
    head += f", {len(failed)} failed" if failed else ""
    head += f", {len(skipped)} skipped" if skipped else ""
    return [*map(_outcome_line, outcomes), head]


def _score(seed: int, outcomes: Sequence[Outcome]) -> Mapping[str, object]:
    return {
        "seed": seed,
        "held": sum(one.held for one in outcomes),
        "failed": sum(bool(one.problems) for one in outcomes),
        "skipped": sum(one.skipped is not None for one in outcomes),
        "strikes": [
            {
                **_planned(one.strike),
                "skipped": one.skipped,
                "recovered_seconds": None if one.recovered is None else round(one.recovered, 2),
                "promises": one.promises,
                "problems": list(one.problems),
            }
            for one in outcomes
        ],
    }
