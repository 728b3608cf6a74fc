"""A trial: grow by the plan, measure each step, wait for what is under way, and count what was lost."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from lib import agents, checkins, host, logs, messages, service, store
from lib.claude import transcripts
from lib.errors import Unavailable
from lib.front import sandbox
from lib.front.load.fleet import Fleet, Launch, check_launched
from lib.front.load.meter import Meter
from lib.front.load.traffic import Traffic
from lib.front.sandbox import Sandbox
from lib.judgement import capacity, framing
from lib.judgement.capacity import Losses, Step
from lib.judgement.durations import spread
from lib.judgement.loads import Plan, Rung
from lib.models import PENDING, Agent, Message, MessageKind
from lib.records import dataclass

#: The limit against floods is for agents that talk too much; here it would be what is measured.
SETTINGS = "messages_per_minute: 100000\n"
#: Rehearsal agents answer at once: what is measured is the toolkit.
VARIABLES = {"TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0"}
#: When nothing more has arrived for so long, what is left is lost. Too much at once is late, and not lost.
_ARRIVES_WITHIN_SECONDS = 60.0
_SETTLING_SECONDS = 0.5
_SCHEDULER_WITHIN_SECONDS = 15.0
_TOLD_EVERY_SECONDS = 1.0

#: Is told what happens, and how many of the plan's seconds are over.
Told = Callable[[str, float], None]


@dataclass(frozen=True)
class Measured:
    """All that came of a trial."""

    steps: tuple[Step, ...]
    losses: Losses
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Window:
    """A step that is over: what was measured in it, and its time (UTC milliseconds)."""

    since: int
    until: int
    launches: tuple[Launch, ...]
    teams: int
    agents: int
    meter: Meter


def run(plan: Plan, told: Told) -> Measured:
    """Run a trial on a machine of its own, of which nothing is left. Raises `OrchestratorError` if it cannot begin."""
    with sandbox.made("load", settings=SETTINGS, variables=VARIABLES) as place:
        place.tmux.check()
        _start_scheduler(place)
        fleet, traffic = Fleet(place), Traffic(place, rate=plan.rate)
        began = time.monotonic()
        with traffic.flowing():
            windows = [_climb(rung, plan, fleet, traffic, told, began) for rung in plan.rungs]
        told("waiting for what is under way", plan.seconds)
        _settle(place, windows[-1].until)
        return _measured(place, plan, windows, fleet, traffic)


def _start_scheduler(place: Sandbox) -> None:
    door = place.start("scheduler.py", "--queue-daemon", "--verbose", "--quiet")
    deadline = time.monotonic() + _SCHEDULER_WITHIN_SECONDS
    while service.running(place.home) is None:
        if door.poll() is not None or time.monotonic() > deadline:
            raise Unavailable("the scheduler of the trial did not start", hint="scheduler.py --daemon --verbose")
        time.sleep(0.05)


def _climb(rung: Rung, plan: Plan, fleet: Fleet, traffic: Traffic, told: Told, began: float) -> _Window:
    """Grow to a rung and measure it."""
    known, start = len(fleet.launches), time.monotonic()

    def launched(count: int) -> None:
        told(f"{count} of {rung.orchestrations} orchestrations launched", min(plan.seconds, time.monotonic() - began))

    fleet.grow_to(rung.orchestrations, interval=plan.interval_seconds, told=launched)
    check_launched(fleet)
    seconds = max(rung.least_seconds, rung.seconds - (time.monotonic() - start))
    fleet.remind(within_seconds=seconds)
    teams = fleet.teams()
    traffic.reach(teams)
    since = host.now_ms()
    with Meter(fleet.sandbox).running() as meter:
        _hold(seconds, len(teams), plan, told, began)
    return _Window(since, host.now_ms(), tuple(fleet.launches[known:]), len(teams), sum(map(len, teams)), meter)


def _hold(seconds: float, teams: int, plan: Plan, told: Told, began: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        told(f"measuring {teams} orchestrations", min(plan.seconds, time.monotonic() - began))
        time.sleep(min(left, _TOLD_EVERY_SECONDS))


def _settle(place: Sandbox, until: int) -> None:
    """Wait for all messages and check-ins that were due by a time, as long as some still arrive.

    An agent's hook acknowledges a message before its transcript holds it.
    """
    with _store(place) as db:
        left, changed_at = _left(db, until), time.monotonic()
        while left and time.monotonic() < changed_at + _ARRIVES_WITHIN_SECONDS:
            time.sleep(_SETTLING_SECONDS)
            before, left = left, _left(db, until)
            changed_at = time.monotonic() if left != before else changed_at


def _left(db: sqlite3.Connection, until: int) -> int:
    """How many of what was due by a time have not arrived."""
    ledger = _ledger(db, 0, until)
    if left := _overdue(db, until) + sum(1 for one in ledger if one.status in PENDING):
        return left
    return capacity.losses_of(ledger, _received(agents.live(db))).not_received


@contextlib.contextmanager
def _store(place: Sandbox) -> Iterator[sqlite3.Connection]:
    db = store.connect(place.home)
    try:
        yield db
    finally:
        db.close()


def _ledger(db: sqlite3.Connection, since: int, until: int) -> list[Message]:
    return messages.between(db, since, until, limit=-1)


def _overdue(db: sqlite3.Connection, until: int) -> int:
    return sum(1 for one in checkins.scheduled(db) if one.due_at <= until)


# -- what came of it --


def _measured(place: Sandbox, plan: Plan, windows: list[_Window], fleet: Fleet, traffic: Traffic) -> Measured:
    with _store(place) as db:
        team, until = agents.live(db), windows[-1].until
        found = capacity.losses_of(_ledger(db, 0, until), _received(team))
        failed_steps = store.events(db, kind="daemon.step_failed", limit=-1)
        failures = [one.failure for one in fleet.launches if one.failure]
        losses = replace(
            found,
            check_ins=_overdue(db, until),
            agents=sum(1 for agent in team if not host.is_alive(agent.process)),
            launches=len(failures),
            scheduler_steps=len(failed_steps),
        )
        beats = logs.beats(place.home)
        steps = tuple(_step(db, plan, window, beats) for window in windows)
    said = [*failures, *traffic.failures, *(f"{one.data['step']}: {one.data['error']}" for one in failed_steps)]
    return Measured(steps, losses, tuple(dict.fromkeys(said)))


def _received(team: list[Agent]) -> Counter[int]:
    """How often agents' own transcripts hold each framed message."""
    paths = (transcripts.find(agent.config_dir, agent.conversation_id) for agent in team)
    prompts = (prompt for path in paths if path for prompt in transcripts.submissions(path))
    return Counter(framed[0] for prompt in prompts if (framed := framing.unframe(prompt)))


def _step(db: sqlite3.Connection, plan: Plan, window: _Window, beats: list[tuple[int, float]]) -> Step:
    ledger = [one for one in _ledger(db, window.since, window.until) if capacity.is_delivered(one)]
    sent = [one for one in ledger if one.kind is MessageKind.MESSAGE]
    fired = store.events(db, kind="check_in.fired", since=window.since, limit=-1)
    meter = window.meter
    return Step(
        orchestrations=window.teams,
        agents=window.agents,
        seconds=round(meter.seconds, 1),
        launches=spread(one.milliseconds for one in window.launches if not one.failure),
        wanted=int(plan.rate * window.teams * meter.seconds),
        messages=spread(one.acknowledged_at - one.queued_at for one in sent if one.acknowledged_at),
        check_ins=spread(float(str(one.data["late_ms"])) for one in fired if one.at <= window.until),
        beats=spread(took for at, took in beats if window.since <= at <= window.until),
        scheduler=meter.taken("scheduler"),
        agents_took=meter.taken("agents"),
        tmux=meter.taken("tmux"),
        tester=meter.taken("tester"),
        busy_percent=meter.busy_percent,
        lost=sum(map(capacity.is_lost, ledger)),
    )
