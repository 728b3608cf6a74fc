"""Keeping teams: what has ended is started again, with a stop for crash loops; who may be stuck is asked, then told of.

Nothing here ends a process or a turn.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import asdict, field, replace
from pathlib import Path

from lib import (
    agents,
    checkins,
    decisions,
    errands,
    holds,
    host,
    messages,
    notices,
    orchestrations,
    store,
    templates,
)
from lib.claude import transcripts
from lib.errands import Errands
from lib.judgement import retries, screens, stuck
from lib.judgement.stuck import Signs, Told, Watched
from lib.models import Agent, AgentState, MessageKind, Orchestration, OrchestrationStatus, Priority
from lib.records import dataclass

#: A launch holds its lock soon after it is recorded; one that is younger may not have come to that yet.
_JUST_RECORDED_MS = 5_000

#: How often agents at work are looked at.
LOOK_EVERY_MS = 60_000
#: What an agent starts within its first seconds are its MCP servers, which run as long as it does.
START_UP_SECONDS = 30.0
#: The three events of an episode without a sign.
_EPISODE = ("agent.nudged", "agent.stuck", "agent.got_on")


# -- what has ended --


def revive(db: sqlite3.Connection, home: Path, running: Errands, *, now: int) -> list[int]:
    """Resume every team that should run and of which something has ended. Returns when it has to be looked at again.

    A team that was resumed too often in a short time needs attention: it is left alone and a person is told.
    """
    dues: list[int] = []
    for found in orchestrations.live(db):
        errand = f"launch-{found.id}"
        if found.status not in (OrchestrationStatus.STARTING, OrchestrationStatus.RUNNING):
            continue
        missing = _missing(db, found)
        if not missing or running.is_running(errand):
            continue
        is_held = holds.of_account(db, found.config_dir) is not None
        revived_at = _revivals(db, found, now, is_held=is_held)
        at = _launched_by(found, now) or retries.next_revival(revived_at, now=now)
        if at is None and is_held:
            dues.append(now + retries.CRASH_LOOP_MS)  # when it may work again, it is looked at anew
        elif at is None:
            with store.writing(db):
                _give_up(db, home, found, missing, now)
                decisions.note(db, "revival", {"revived_at": revived_at, "now": now}, None, now=now, is_told=False)
        elif at > now:
            dues.append(at)
        else:
            with store.writing(db):
                store.record(
                    db, "orchestration.reviving", now=now, orchestration=found.id, missing=missing, held=is_held
                )
                decisions.note(db, "revival", {"revived_at": revived_at, "now": now}, at, now=now)
            how = ("--resume", "--unattended", "--quiet")
            running.start(errand, "auto_orchestrate.py", "--project", str(found.project), *how)
    return dues


def _missing(db: sqlite3.Connection, found: Orchestration) -> str | None:
    """What a team lacks, in words; None when nothing does."""
    if found.status is OrchestrationStatus.STARTING:
        return "its launch did not end"
    team = agents.of_orchestration(db, found.id)
    gone = [agent.role for agent in team if agents.state_of(agent) is AgentState.GONE]
    return f"{', '.join(gone)} {'has' if len(gone) == 1 else 'have'} ended" if gone else None


def _launched_by(found: Orchestration, now: int) -> int | None:
    """Until when a launch that was just recorded is left to begin (UTC milliseconds); None for any other team."""
    if found.status is OrchestrationStatus.STARTING and 0 <= now - found.created_at < _JUST_RECORDED_MS:
        return found.created_at + _JUST_RECORDED_MS
    return None


def _revivals(db: sqlite3.Connection, found: Orchestration, now: int, *, is_held: bool) -> list[int]:
    """When a team was started again of late, as far as that counts (UTC milliseconds)."""
    # Whoever brought it out of needs_attention has looked after it: what was before does not count.
    needed = store.last_event(db, "orchestration.needs_attention", orchestration=found.id)
    told = store.events(
        db,
        orchestration=found.id,
        kind="orchestration.reviving",
        since=now - retries.CRASH_LOOP_MS,
        after=needed.id if needed else 0,
    )
    # What ends while something holds it says nothing of how it ends at work.
    return [event.at for event in told if is_held or not event.data.get("held")]


def _give_up(db: sqlite3.Connection, home: Path, found: Orchestration, missing: str, now: int) -> None:
    said = errands.last_words(home, f"launch-{found.id}")
    again = f"auto_orchestrate.py --project {found.project} --resume"
    outcome = (
        f"{missing}, and resuming it {retries.CRASH_LOOP_REVIVALS} times within"
        f" {retries.CRASH_LOOP_MS // retries.MINUTE_MS} minutes has not helped{f': {said}' if said else ''}"
    )
    outcome += "" if again in outcome else f"; next: {again}"
    orchestrations.set_status(db, found.id, OrchestrationStatus.NEEDS_ATTENTION, now=now, outcome=outcome)


# -- who may be stuck --


@dataclass
class Observation:
    """What a daemon has seen of agents at work. What its successor needs of it stands in the events."""

    watched: dict[int, Watched] = field(default_factory=dict)
    looked_at: int | None = None


def look_for_stuck(
    db: sqlite3.Connection,
    window: Callable[[Agent], str | None],
    observation: Observation,
    *,
    stuck_minutes: float,
    now: int,
) -> None:
    """Look, once a minute, at every agent that says it is at work; `window` says what an agent's window shows.

    One without a sign of that for `stuck_minutes` is asked, once; after as long again a person is told, once. Any sign
    ends the episode. Nothing else is done: no key is pressed, no process ended.
    """
    if observation.looked_at is None:
        observation.watched = _open_episodes(db, now)
    elif 0 <= now - observation.looked_at < LOOK_EVERY_MS:
        return
    observation.looked_at = now
    watched, live = observation.watched, set()
    for found in orchestrations.live(db):
        for agent in agents.of_orchestration(db, found.id):
            live.add(agent.id)
            if found.status is not OrchestrationStatus.RUNNING:
                continue
            before = watched.get(agent.id)
            after = None  # while something holds it its time stands, and begins anew when it goes on
            if not holds.of(db, agent):
                after = _look_at(window, agent, before, stuck_ms=_in_ms(stuck_minutes), now=now)
            _tell(db, agent, before, after, stuck_minutes, now)
            watched.pop(agent.id, None)
            if after:
                watched[agent.id] = after
    for ended in watched.keys() - live:
        del watched[ended]


def _open_episodes(db: sqlite3.Connection, now: int) -> dict[int, Watched]:
    """The agents that were told of before this daemon began, as they were then."""
    found = {}
    for agent in agents.live(db):
        assert agent.orchestration_id
        last = store.last_event(db, *_EPISODE, orchestration=agent.orchestration_id, agent=agent.id)
        if last and last.kind != "agent.got_on":
            told = Told.AGENT if last.kind == "agent.nudged" else Told.PERSON
            found[agent.id] = Watched(Signs(**last.data["signs"]), now, told=told)  # type: ignore[arg-type]  # as recorded
    return found


def _look_at(
    window: Callable[[Agent], str | None], agent: Agent, before: Watched | None, *, stuck_ms: int, now: int
) -> Watched | None:
    """The next look at an agent; None for one that is not at work."""
    if agents.state_of(agent) is not AgentState.WORKING:
        return None
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    signs = Signs(
        epoch=agent.epoch,
        written=transcripts.written(path, known=before.signs.written if before else 0) if path else 0,
        helped=transcripts.written_by_helpers(path) if path else 0,
        hook=agent.last_hook,
        hook_at=agent.last_hook_at,
    )
    if before is None or not stuck.is_sign(before.signs, signs):  # the dearer looks only when the others show nothing
        signs = replace(signs, screen=_screen(window(agent)), has_child=_has_child(agent))
    return stuck.watch(before, signs, now=now, stuck_ms=stuck_ms)


def _screen(shown: str | None) -> str | None:
    return None if shown is None else f"{zlib.crc32(screens.without_clock(shown).encode()):08x}"


def _has_child(agent: Agent) -> bool:
    first = agent.process
    if first is None:
        return False
    return any(host.started_after_seconds(one, first) > START_UP_SECONDS for one in host.children(first.pid))


def _tell(
    db: sqlite3.Connection, agent: Agent, before: Watched | None, after: Watched | None, minutes: float, now: int
) -> None:
    was = before.told if before else Told.NOBODY
    is_now = after.told if after else Told.NOBODY
    if is_now == was:
        return
    with store.writing(db):
        if after is None or is_now is Told.NOBODY:
            _withdraw_nudge(db, agent, now)
            if agents.state_of(agent) is not AgentState.GONE:
                _record(db, "agent.got_on", agent, now)
        elif is_now is Told.AGENT:
            text = templates.render("nudge.md", minutes=f"{minutes:g}")
            nudge = messages.queue(
                db,
                agent,
                text,
                sender=checkins.SENDER,
                kind=MessageKind.MESSAGE,
                priority=Priority.EMERGENCY,
                now=now,
            )
            _record(db, "agent.nudged", agent, now, message=nudge.id, signs=vars(after.signs), minutes=minutes)
            _note(db, before, after, minutes, now)
        else:
            _record(db, "agent.stuck", agent, now, signs=vars(after.signs), minutes=minutes)
            _note(db, before, after, minutes, now)
            body = (
                f"{agent.target} has shown no sign of work for {2 * minutes:g} minutes, although it says that it works:"
                " no new entry in its conversation, nothing new on its screen, no process that it has started. It was"
                " asked, and has not answered. Nothing was ended."
                f" Look: claude_control.py attach {agent.target}"
            )
            notices.tell(db, "stuck", f"{agent.target} may be stuck", body, now=now)


def _note(db: sqlite3.Connection, before: Watched | None, after: Watched, minutes: float, now: int) -> None:
    """Keep from which two looks at an agent it follows that it shows no sign of work."""
    assert before
    given = {
        "before": asdict(before),
        "signs": asdict(after.signs),
        "stuck_ms": _in_ms(minutes),
        "now": now,
    }
    decisions.note(db, "stuck", given, after.told, now=now)


def _in_ms(minutes: float) -> int:
    return round(minutes * retries.MINUTE_MS)


def _withdraw_nudge(db: sqlite3.Connection, agent: Agent, now: int) -> None:
    """A question that has not arrived yet is answered, or nobody is there to answer it."""
    assert agent.orchestration_id
    asked = store.last_event(db, "agent.nudged", orchestration=agent.orchestration_id, agent=agent.id)
    if asked and asked.message_id:
        messages.cancel(
            db, messages.get(db, asked.message_id), agent, f"{agent.role} is not at work as it was", now=now
        )


def _record(
    db: sqlite3.Connection, kind: str, agent: Agent, now: int, *, message: int | None = None, **data: object
) -> None:
    store.record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=message, **data)
