"""The daemon: one beat is a list of steps; the loop wakes for the next due time or for a signal, and not in between."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from lib import (
    agents,
    authorizations,
    checkins,
    config,
    criteria,
    delivery,
    governor,
    holds,
    host,
    keeping,
    logs,
    messages,
    news,
    notices,
    pings,
    recorder,
    safekeeping,
    service,
    signals,
    store,
)
from lib.config import Settings
from lib.couriers import Couriers
from lib.errands import Errands
from lib.errors import Busy, OrchestratorError
from lib.fleet import fencing, members
from lib.merging import integrations
from lib.models import Agent, AgentState, MessageStatus, Priority
from lib.queue import draining
from lib.records import dataclass
from lib.spending import budgets, halting, ledger
from lib.tmux import Tmux
from lib.together import handing_over, radar

log = logging.getLogger(__name__)

#: With nothing due the daemon still looks around this often: a lost wake-up costs at most this.
IDLE_SECONDS = 60.0
#: While messages wait for a busy agent: its turn-end hook wakes the daemon at once, this covers an interrupted turn.
WAITING_SECONDS = 2.0
#: After a hook the agent's own state follows within 0.3 s; while messages wait, look again this soon.
SETTLING_SECONDS = 0.1
SETTLING_FOR_SECONDS = 1.0
#: The share of one core that the daemon takes when something wakes it all the time: after a beat it rests so long.
BUSY_SHARE = 0.2
#: The longest rest; nothing that is due comes later by more than this.
LONGEST_REST_SECONDS = 0.5
#: So long does a beat wait for what it has delivered: most of it has arrived by then, and the beat knows of it.
DELIVERING_SECONDS = 0.5
#: How soon the errand of the notices is started again that has come to nothing.
NOTICES_AGAIN_MS = 60_000
#: How soon the errand of the snapshots is started again that has come to nothing.
SNAPSHOTS_AGAIN_MS = 300_000
#: How soon the link to the fleet is started again that has ended, and how often it is looked whether it has.
LINK_AGAIN_MS = 30_000
#: How soon it is looked again whether some agent gets on.
STANDSTILL_AGAIN_MS = 20_000


@dataclass
class Life:
    """What a daemon keeps between two beats: nothing that its successor would miss."""

    settings: Settings
    errands: Errands
    #: Whether the spec queue drains in this daemon.
    queue: bool = True
    #: When a step has last failed (UTC milliseconds).
    failed_at: int | None = None
    #: When it was last seen that no agent gets on (UTC milliseconds).
    stood_still_at: int | None = None
    #: For which due time the errand of the notices was last started, and when.
    sent_for: tuple[int, int] | None = None
    #: When the errand of the snapshots was last started (UTC milliseconds).
    kept_at: int | None = None
    #: When the errand of the radar was last started (UTC milliseconds).
    swept_at: int | None = None
    #: When the link to the fleet was last started (UTC milliseconds).
    linked_at: int | None = None
    #: Whether nothing is kept here of a fleet that this machine is no host of any more.
    is_alone: bool = False
    #: Who brings messages.
    couriers: Couriers = field(default_factory=Couriers)
    #: What was seen of transcripts.
    transcripts: governor.Observation = field(default_factory=governor.Observation)
    #: What is known of agents' transcripts.
    counting: ledger.Watch = field(default_factory=ledger.Watch)
    #: When budgets were last looked at.
    budgets: budgets.Watch = field(default_factory=budgets.Watch)
    #: What was seen of the agents that are at work.
    observation: keeping.Observation = field(default_factory=keeping.Observation)
    #: What records screens.
    recorder: recorder.Recorder = field(default_factory=recorder.Recorder)


@dataclass
class Beat:
    """What a step works with, and what the loop learns from it."""

    db: sqlite3.Connection
    tmux: Tmux
    home: Path
    now: int
    life: Life
    #: When something is due again (UTC milliseconds).
    dues: list[int] = field(default_factory=list)
    #: Hooks read, messages fired: something may have become possible.
    activity: bool = False
    #: A step has failed: it is not tried again at once.
    failed: bool = False
    #: Agents with messages that could not be delivered yet.
    waiting: list[Agent] = field(default_factory=list)
    #: The screens that were captured in this beat, by pane.
    captured: Mapping[str, str] = field(default_factory=dict)


def read_signals(beat: Beat) -> None:
    """Take what agents' hooks have reported."""
    beat.activity |= bool(signals.ingest(beat.db, beat.home))


def record_screens(beat: Beat) -> None:
    """Record what agents' windows show, where that has changed."""
    found = recorder.look(
        beat.db,
        beat.tmux,
        beat.home,
        beat.life.recorder,
        beat.life.settings.recording,
        is_lively=beat.activity,
        now=beat.now,
    )
    beat.captured = found.captured
    beat.dues += [found.due] if found.due is not None else []


def notice_limits(beat: Beat) -> None:
    """Notice limits that no hook has told of."""
    governor.notice(beat.db, beat.life.transcripts, now=beat.now, terms=beat.life.settings.limits)


def govern_limits(beat: Beat) -> None:
    """The same, and let agents go on when their limits are over."""
    beat.dues += governor.govern(
        beat.db,
        beat.life.transcripts,
        now=beat.now,
        terms=beat.life.settings.limits,
        look=lambda agent: _window(beat, agent),
        others=_others(beat),
    )


def _others(beat: Beat) -> governor.Others:
    """The other hosts that share an account with this one, where there is a fleet."""
    if beat.life.settings.fleet.url is None:
        return governor.Nobody()
    from lib.fleet import accounts  # noqa: PLC0415 - a machine alone need not load it

    return accounts.Others(beat.db, beat.home, beat.now)


def _window(beat: Beat, agent: Agent) -> str | None:
    """What an agent's window shows; None when it has none. What was captured in this beat is not captured again."""
    return beat.captured.get(agent.pane_id or "") or agents.screen(beat.tmux, agent)


def _asks_holds(db: sqlite3.Connection) -> Callable[[Agent], bool]:
    return lambda agent: holds.of(db, agent) is not None


def fire_check_ins(beat: Beat) -> None:
    """Turn due check-ins into messages."""
    fired = checkins.fire_due(
        beat.db,
        now=beat.now,
        is_gone=lambda agent: agents.state_of(agent) is AgentState.GONE,
        is_held=_asks_holds(beat.db),
        look=news.Looking(beat.db),
    )
    beat.activity |= bool(fired)


def hand_over_commits(beat: Beat) -> None:
    """Tell a role of the commits whose work it takes on."""
    beat.dues += handing_over.hand_over(beat.db, now=beat.now)


def escalate_authorizations(beat: Beat) -> None:
    """Take requests that nobody has answered in time one step further."""
    beat.activity |= bool(authorizations.escalate_due(beat.db, now=beat.now, is_held=_asks_holds(beat.db)))


def deliver_messages(beat: Beat) -> None:
    """Have delivered what waits: an agent that does not answer holds up neither the others nor the next beat."""
    waiting = [agent for agent in _with_messages(beat) if not _says_why_it_waits(beat, agent)]
    ready = [agent for agent in waiting if _may_take_text(beat, agent)]
    beat.life.couriers.send(beat.tmux, beat.home, [agent.id for agent in ready])
    still = set(messages.agents_with_pending(beat.db))
    # What waits for an agent that is gone waits for its resume, which delivers it.
    beat.waiting = [agent for agent in waiting if agent.id in still and agents.state_of(agent) is not AgentState.GONE]


def _with_messages(beat: Beat) -> list[Agent]:
    return [agents.get(beat.db, agent_id) for agent_id in messages.agents_with_pending(beat.db)]


def _says_why_it_waits(beat: Beat, agent: Agent) -> bool:
    """Whether something holds an agent; then what waits for it says so, and nothing is looked at until it ends."""
    hold = holds.of(beat.db, agent)
    if hold is None or agent.is_guest:  # of a guest nobody else learns that it ends
        return False
    waiting = messages.pending(beat.db, agent.id)
    if not all(holds.keeps_back(hold, agent, one) for one in waiting):
        return False
    if not waiting or waiting[0].status is not MessageStatus.QUEUED:
        return False  # it stands in the composer: its delivery goes on
    delivery.keep_waiting(beat.db, agent, waiting, hold, now=beat.now)
    return True


def _may_take_text(beat: Beat, agent: Agent) -> bool:
    """Whether it is worth to look at an agent's window; most of the day an agent with messages waiting is at work."""
    state = agents.state_of(agent)
    if state is AgentState.GONE:
        return agent.is_guest  # it does not come back: delivering finds that out and gives its messages up
    if state is AgentState.IDLE or agents.has_dialog_open(agent):  # a limit's dialog is closed by who delivers
        return True
    first = next(iter(messages.pending(beat.db, agent.id)), None)  # it may have arrived meanwhile
    return first is not None and (first.status is not MessageStatus.QUEUED or first.priority is Priority.EMERGENCY)


def count_spending(beat: Beat) -> None:
    """Count what agents have used since the last time."""
    beat.dues += ledger.keep_up(beat.db, beat.life.counting, now=beat.now)


def keep_budgets(beat: Beat) -> None:
    """Warn of budgets, have work wrapped up and pause teams by them, and have whoever they pause be stopped."""
    life = beat.life
    beat.dues += budgets.govern(
        beat.db,
        life.budgets,
        grace_minutes=life.settings.budget.grace_minutes,
        is_news=life.counting.is_news or _is_told_of_spending(beat),
        now=beat.now,
    )
    if budgets.to_be_stopped(beat.db, life.budgets, now=beat.now):
        life.budgets.stopped_at = beat.now
        life.errands.start(halting.ERRAND, "scheduler.py", "--stop-spending", "--quiet")
    if budgets.is_pausing(beat.db):
        beat.dues.append(beat.now + budgets.STOP_AGAIN_MS)


def _is_told_of_spending(beat: Beat) -> bool:
    """Whether another host of the fleet has told what it has spent since budgets were looked at."""
    if beat.life.settings.fleet.url is None:
        return False
    from lib.fleet import totals  # noqa: PLC0415 - as in `_others`

    return totals.heard_at(beat.db) >= (beat.life.budgets.looked_at or 0)


def keep_teams(beat: Beat) -> None:
    """Start again what has ended of a team that should run."""
    if beat.life.settings.recovery.enabled:
        beat.dues += keeping.revive(beat.db, beat.home, beat.life.errands, now=beat.now)


def look_for_stuck(beat: Beat) -> None:
    """Ask agents that have shown no sign of work for long, then tell a person of them."""
    recovery = beat.life.settings.recovery
    if recovery.enabled:
        keeping.look_for_stuck(
            beat.db,
            lambda agent: _window(beat, agent),
            beat.life.observation,
            stuck_minutes=recovery.stuck_minutes,
            now=beat.now,
        )


def drain_queue(beat: Beat) -> None:
    """Settle the queue's attempts that are over, and start what may run."""
    if beat.life.queue:
        beat.dues += draining.drain(beat.db, beat.tmux, beat.home, beat.life.errands, beat.life.settings, now=beat.now)


def send_notices(beat: Beat) -> None:
    """Have the notices sent that are due, and the dead man's switch called while all is well."""
    due, ping = _due_notices(beat), _due_ping(beat)
    found = [at for at in (due, ping) if at is not None]
    beat.dues += [at for at in found if at > beat.now]
    if any(at <= beat.now for at in found):
        started = beat.life.errands.start("notices", "scheduler.py", "--send-notices", "--quiet")
        if started and due is not None and due <= beat.now:
            beat.life.sent_for = (due, beat.now)


def _due_notices(beat: Beat) -> int | None:
    """When notices are to be sent, or None. With no address they are dropped here, without an errand."""
    life, due = beat.life, notices.next_due(beat.db, now=beat.now)
    if due is None or due > beat.now:
        return due
    # The errand moves what is due, whatever comes of it. One that has ended without that is not started at every beat.
    if life.sent_for and life.sent_for[0] == due and abs(beat.now - life.sent_for[1]) < NOTICES_AGAIN_MS:
        return life.sent_for[1] + NOTICES_AGAIN_MS
    if _has_addresses(life):
        return due
    notices.sort_out(beat.db, (), life.settings.notify.events, now=beat.now)
    notices.prune(beat.db, now=beat.now)
    return None


def _has_addresses(life: Life) -> bool:
    """Whether notices can be sent. What is dropped is gone, so the configuration of now is asked before."""
    try:
        return bool(life.settings.notify.urls or config.load().notify.urls)
    except OrchestratorError as error:
        log.error("notices wait: %s", error.sentence)
        return True


def _due_ping(beat: Beat) -> int | None:
    """When the dead man's switch is to be called; None while something is wrong, or nobody gets on."""
    settings, failed_at = beat.life.settings.notify, beat.life.failed_at
    if settings.ping_url is None:
        return None
    every_ms = round(settings.ping_minutes * 60_000)
    due = pings.next_due(beat.db, every_ms=every_ms, now=beat.now)
    if due > beat.now:
        return due
    if failed_at is not None and abs(beat.now - failed_at) < every_ms:
        return None
    # It looks at files of every agent, and beats may come ten times a second.
    if beat.life.stood_still_at is not None and abs(beat.now - beat.life.stood_still_at) < STANDSTILL_AGAIN_MS:
        return None
    if not pings.gets_on(beat.db, now=beat.now):
        beat.life.stood_still_at = beat.now
        return None
    pings.want(beat.db, now=beat.now)
    return beat.now


def merge_candidates(beat: Beat) -> None:
    """Have what teams have offered merged, and what is complete delivered, each team's by an errand of its own."""
    for team, at in integrations.due(beat.db, now=beat.now).items():
        if at > beat.now:
            beat.dues.append(at)
        else:
            beat.life.errands.start(integrations.errand(team), "sync_coordinator.py", "merge-run", team, "--quiet")


def check_criteria(beat: Beat) -> None:
    """Have criteria checked, and completions settled that wait for them, each team's by an errand of its own."""
    for team, at in criteria.due(beat.db, now=beat.now).items():
        if at > beat.now:
            beat.dues.append(at)
        else:
            beat.life.errands.start(criteria.errand(team), "sync_coordinator.py", "criteria-run", team, "--quiet")


def keep_worktrees(beat: Beat) -> None:
    """Have a snapshot taken of the worktrees of live agents, and old ones pruned, when that is due."""
    life, due = beat.life, safekeeping.next_due(beat.db, now=beat.now)
    if due is None:
        return
    # The errand moves what is due, whatever comes of it. One that has ended without that is not started at every beat.
    if life.kept_at is not None and abs(beat.now - life.kept_at) < SNAPSHOTS_AGAIN_MS:
        due = max(due, life.kept_at + SNAPSHOTS_AGAIN_MS)
    if due > beat.now:
        beat.dues.append(due)
    elif life.errands.start(safekeeping.ERRAND, "sync_coordinator.py", "snapshot", "--all", "--quiet"):
        life.kept_at = beat.now


def watch_overlaps(beat: Beat) -> None:
    """Have the worktrees of each team compared, once a minute, while two of its agents live."""
    life, due = beat.life, radar.next_due(beat.db, now=beat.now)
    if due is None:
        return
    # As with the snapshots, and whether agents live is asked only when it is time.
    if life.swept_at is not None and abs(beat.now - life.swept_at) < radar.EVERY_MS:
        due = max(due, life.swept_at + radar.EVERY_MS)
    if due > beat.now:
        beat.dues.append(due)
    elif radar.teams(beat.db) and life.errands.start(radar.ERRAND, "sync_coordinator.py", "radar", "--quiet"):
        life.swept_at = beat.now


def keep_link(beat: Beat) -> None:
    """Have the link to the fleet run, where there is a fleet. It outlives this daemon, and knows when to end."""
    life = beat.life
    if life.settings.fleet.url is None:
        if not life.is_alone:
            if members.is_linked(beat.db):
                from lib.fleet import accounts  # noqa: PLC0415 - as in `_others`

                accounts.leave(beat.db)
            members.leave(beat.db, now=beat.now)
            life.is_alone = True
        return
    life.is_alone = False
    beat.dues.append(beat.now + LINK_AGAIN_MS)
    if life.linked_at is not None and abs(beat.now - life.linked_at) < LINK_AGAIN_MS:
        beat.dues.append(life.linked_at + LINK_AGAIN_MS)
    # By its shebang: the environment of the daemon has no NATS.
    elif life.errands.start_in_its_own(members.LINK, "fleet.py", "link", "--quiet"):
        life.linked_at = beat.now


def fence_teams(beat: Beat) -> None:
    """Have the teams stand still whose entries of the fleet's queue may be another host's by now."""
    beat.dues += fencing.fence(beat.db, beat.life.errands, now=beat.now)


STEPS: tuple[Callable[[Beat], None], ...] = (
    read_signals,
    fence_teams,
    record_screens,
    govern_limits,
    count_spending,
    keep_budgets,
    fire_check_ins,
    escalate_authorizations,
    hand_over_commits,
    deliver_messages,
    keep_teams,
    look_for_stuck,
    merge_candidates,
    check_criteria,
    drain_queue,
    keep_worktrees,
    watch_overlaps,
    keep_link,
    send_notices,
)


#: What concerns usage limits alone, for who runs no daemon (`watching.py`): to notice them, and to go on after them.
LIMIT_STEPS = (read_signals, notice_limits)
RESUME_STEPS = (read_signals, govern_limits, deliver_messages)


def tick(
    db: sqlite3.Connection,
    tmux: Tmux,
    home: Path,
    *,
    now: int,
    life: Life | None = None,
    steps: Sequence[Callable[[Beat], None]] | None = None,
) -> Beat:
    """One beat, of all steps or of these. A step that fails is an event with its traceback, and the others go on."""
    beat = Beat(db, tmux, home, now, life or Life(config.load(), Errands(home)))
    for step in STEPS if steps is None else steps:
        try:
            step(beat)
        except Exception as error:
            beat.failed = True
            beat.life.failed_at = now
            log.exception("the step %s failed", step.__name__)
            _record_failure(db, step.__name__, error, now)
    return beat


def _record_failure(db: sqlite3.Connection, step: str, error: Exception, now: int) -> None:
    try:
        with store.writing(db):
            store.record(db, "daemon.step_failed", now=now, step=step, error=str(error), trace=traceback.format_exc())
    except (sqlite3.Error, OrchestratorError):
        log.exception("the failure of %s could not be recorded", step)  # a full disk: the log has it


def run(home: Path, tmux: Tmux, *, queue: bool = True, logs_beats: bool = False) -> None:
    """Hold the lock of this state home and beat until SIGTERM. Raises `Busy` when another daemon runs.

    `queue` is whether the spec queue drains as well, `logs_beats` whether the log has a line for each beat
    (`logs.beats`). SIGHUP reads the configuration again.
    """
    logs.log.setLevel(logging.DEBUG if logs_beats else logging.INFO)
    try:
        # Who asks whether a daemon runs holds the lock for an instant: that is no daemon.
        with host.lock(service.lock_path(home), wait_seconds=0.5):
            life = Life(config.load(), Errands(home), queue, couriers=Couriers(DELIVERING_SECONDS))
            service.write_who_runs(home, queue=life.queue)
            logs.write_to(logs.scheduler_path(home), older=5)
            _beat_until_stopped(home, tmux, life)
    except Busy:
        raise service.already_running(home, wants_queue=queue) from None


def _beat_until_stopped(home: Path, tmux: Tmux, life: Life) -> None:
    asked: set[int] = set()

    def note(number: int, _frame: object) -> None:
        asked.add(number)
        host.wake(home)

    # SIGCHLD: an errand has ended.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, note)
    # Only now: who finds the pipe may send a signal.
    pipe = host.make_wake_pipe(home)
    db = store.connect(home)
    log.info("started, pid %d", os.getpid())
    host.tell_systemd("READY=1")
    settle_until, spent = 0.0, time.process_time()
    with host.Watch() as watch:
        while not asked & {signal.SIGTERM, signal.SIGINT}:
            if signal.SIGHUP in asked:
                asked.discard(signal.SIGHUP)
                _reload(life)
            began = time.perf_counter()
            beat = tick(db, tmux, home, now=host.now_ms(), life=life)
            logs.note_beat(beat.now, (time.perf_counter() - began) * 1000)
            host.tell_systemd("WATCHDOG=1")
            if beat.activity:
                settle_until = time.monotonic() + SETTLING_FOR_SECONDS
            settling = beat.waiting and time.monotonic() < settle_until
            pause = SETTLING_SECONDS if settling else _seconds_to_next(db, beat, host.now_ms())
            watch.follow([agent.process for agent in agents.live(db) if agent.process])
            spent = rest(since=spent)
            if watch.wait(pipe, pause):
                settle_until = time.monotonic() + SETTLING_FOR_SECONDS
        host.tell_systemd("STOPPING=1")
    life.couriers.close()
    life.recorder.close()
    db.close()
    log.info("stopped")


def rest(*, since: float) -> float:
    """Rest for what has been spent, `since` a time of the processor (s), and return that time now.

    With a few agents a beat takes milliseconds, and so does the rest. With a hundred whose hooks come ten times a
    second what woke the daemon is taken together by the next beat.
    """
    spent = time.process_time()
    time.sleep(min((spent - since) * (1 / BUSY_SHARE - 1), LONGEST_REST_SECONDS))
    return spent


def _reload(life: Life) -> None:
    """Read the configuration again; one that is wrong is told in the log, and the old one stays."""
    try:
        life.settings = config.load()
        log.info("the configuration was read again")
    except OrchestratorError as error:
        log.error("the configuration stays as it was: %s", error.sentence)


def _seconds_to_next(db: sqlite3.Connection, beat: Beat, now: int) -> float:
    seconds = WAITING_SECONDS if beat.waiting else IDLE_SECONDS
    is_held = _asks_holds(db)
    dues = [
        due
        for due in (checkins.next_due(db, is_held=is_held), authorizations.next_due(db, is_held=is_held), *beat.dues)
        if due is not None
    ]
    if beat.failed:  # what is due may be what fails: trying again without a pause would fill the history
        return WAITING_SECONDS
    return min([seconds, *(max(0.0, (due - now) / 1000) for due in dues)])
