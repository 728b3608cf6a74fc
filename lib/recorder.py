"""The recorder: looks at agents' windows and records what has changed, without ever holding up a beat for it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path

from lib import agents, holds, host, notices, recordings, store
from lib.config import RecordingSettings
from lib.errors import NotFound, OrchestratorError
from lib.judgement import cleaning
from lib.models import Agent, AgentState
from lib.recordings import Picture, Seen, Writer
from lib.records import dataclass
from lib.tmux import Pane, Tmux

log = logging.getLogger(__name__)

#: How many windows one look captures; the next one takes the others first.
MOST_CAPTURES = 40
#: While nothing changes looks become rarer, up to the daemon's own pause. A hook brings the next one at once.
_LONGEST_PAUSE_MS = 60_000
_PRUNE_EVERY_MS = 5 * 60_000
_TIDY_EVERY_MS = 60 * 60_000
#: How soon it is tried again what has failed.
AGAIN_MS = 10 * 60_000


@dataclass(frozen=True)
class _Capture:
    """How a pane was when it was last captured, and when that was (seconds of the clock on the wall)."""

    pane: str
    pid: int
    size: tuple[int, int]
    dead: bool
    printed_at: int
    taken_at: int


@dataclass
class Recorder:
    """What a daemon keeps of recording between two beats: nothing that its successor would miss."""

    writer: Writer | None = None
    captures: dict[int, _Capture] = field(default_factory=dict)
    looked_at: int | None = None
    pause_ms: int = 0
    pruned_at: int | None = None
    #: When it last failed and until when it rests (UTC milliseconds).
    failed_at: int | None = None
    rests_until: int | None = None
    #: Whether the history says that it fails; None while nobody has looked.
    is_told: bool | None = None

    def close(self) -> None:
        """End what is recorded."""
        if self.writer:
            self.writer.close()
        self.writer, self.captures = None, {}


@dataclass(frozen=True)
class Look:
    """A look: when the next one is due (UTC milliseconds; None while there is nobody to look at), what it captured."""

    due: int | None
    captured: Mapping[str, str] = field(default_factory=dict)  # by pane, with all control sequences


def look(
    db: sqlite3.Connection,
    tmux: Tmux,
    home: Path,
    recorder: Recorder,
    terms: RecordingSettings,
    *,
    is_lively: bool,
    now: int,
) -> Look:
    """Look at the windows of all live agents, if it is time, and record what has changed.

    One question to tmux says which windows a program has written to since, another one brings these. `is_lively` is
    whether agents' hooks have told something. Whatever is wrong with the file is told a person once; it is tried again
    later, and stops nothing.
    """
    if not terms.enabled:
        recorder.close()
        return Look(None)
    least_ms = round(terms.seconds * 1000)
    if (due := _due(recorder, least_ms, is_lively, now)) > now:
        return Look(due)
    recorder.looked_at = now
    team = agents.live(db)
    try:
        if not team and recorder.writer is None:
            _tidy(recorder, home, terms, now)
            return Look(None)
        view = _view(db, tmux, recorder, team)
        made = _record(recorder, home, team, view, now)
        _prune(recorder, terms, now)
    except OrchestratorError as error:  # who needs tmux for their work say so; here the next look is another try
        log.warning("windows could not be looked at: %s", error.sentence)
        return Look(_rest(recorder, _LONGEST_PAUSE_MS, now))
    except (sqlite3.Error, OSError) as error:
        _give_up(db, home, recorder, error, now)
        return Look(recorder.rests_until)
    _tell_recovery(db, recorder, now)
    if not team:
        recorder.close()
        return Look(None)
    is_still = not made and not view.has_missed
    return Look(_rest(recorder, max(least_ms, 2 * recorder.pause_ms if is_still else 0), now), view.by_pane)


def _rest(recorder: Recorder, pause_ms: int, now: int) -> int:
    """Have the next look wait for so long, or for the longest pause. Returns when it is due."""
    recorder.pause_ms = min(pause_ms, _LONGEST_PAUSE_MS)
    return now + recorder.pause_ms


def _due(recorder: Recorder, least_ms: int, is_lively: bool, now: int) -> int:
    """When the next look is due; a clock that was set back makes it due now."""
    if recorder.rests_until is not None and now < recorder.rests_until <= now + AGAIN_MS:
        return recorder.rests_until
    at = recorder.looked_at
    if at is None or at > now:
        return now
    return at + (least_ms if is_lively else max(recorder.pause_ms, least_ms))


def _changed(recorder: Recorder, panes: Mapping[int, Pane]) -> dict[int, Pane]:
    """The panes to capture, by agent: those that may show something else, the longest not captured first."""
    stale = [one for one in panes.items() if _may_differ(recorder.captures.get(one[0]), one[1])]
    stale.sort(key=lambda one: recorder.captures[one[0]].taken_at if one[0] in recorder.captures else 0)
    return dict(stale[:MOST_CAPTURES])


def _may_differ(last: _Capture | None, pane: Pane) -> bool:
    if last is None or (last.pane, last.pid, last.size, last.dead) != _key(pane):
        return True
    # tmux tells whole seconds: what was captured within the last one may have been written over since.
    return pane.printed_at != last.printed_at or last.taken_at <= pane.printed_at


def _key(pane: Pane) -> tuple[str, int, tuple[int, int], bool]:
    return pane.id, pane.pid, (pane.columns, pane.rows), pane.dead


@dataclass(frozen=True)
class _View:
    """What a look has seen: the panes of the team and what the agents did, by their ids, and what was captured."""

    panes: Mapping[int, Pane]
    states: Mapping[int, AgentState]
    captured: Mapping[int, str]
    #: Whether windows were to be captured, and one of them had gone.
    has_missed: bool

    @property
    def by_pane(self) -> dict[str, str]:
        return {self.panes[agent].id: screen for agent, screen in self.captured.items()}


def _view(db: sqlite3.Connection, tmux: Tmux, recorder: Recorder, team: Collection[Agent]) -> _View:
    of_agents = {pane.agent: pane for pane in tmux.panes() if pane.agent}
    panes = {agent.id: of_agents[str(agent.id)] for agent in team if str(agent.id) in of_agents}
    chosen = _changed(recorder, panes)
    captured = _capture(tmux, recorder, chosen)
    states = {agent.id: holds.state_of(db, agent) for agent in team}
    return _View(panes, states, captured, has_missed=len(captured) < len(chosen))


def _capture(tmux: Tmux, recorder: Recorder, chosen: Mapping[int, Pane]) -> dict[int, str]:
    taken_at = host.now_ms() // 1000
    try:
        shown = tmux.screens([pane.id for pane in chosen.values()])
    except NotFound:  # one has gone since it was listed: the next look does without it
        return {}
    for agent, pane in chosen.items():
        recorder.captures[agent] = _Capture(*_key(pane), pane.printed_at, taken_at)
    return {agent: shown[pane.id] for agent, pane in chosen.items()}


def _record(recorder: Recorder, home: Path, team: Collection[Agent], view: _View, now: int) -> int:
    """Record a look; returns how many shots that made."""
    writer = _writer(recorder, home, view, now)
    seen = {agent.id: one for agent in team if (one := _seen(writer, agent.id, view))}
    for agent_id in set(writer.followed) - {agent.id for agent in team}:
        seen[agent_id] = Seen(None, None)
        recorder.captures.pop(agent_id, None)
    return writer.add(seen, now=now)


def _writer(recorder: Recorder, home: Path, view: _View, now: int) -> Writer:
    if recorder.writer and not recorder.writer.is_in_place:
        log.info("the recording was removed: a new one begins")
        recorder.close()
    if recorder.writer is None:
        recorder.writer = Writer(home, now=now)
        # It knows of none that was captured for the one before.
        recorder.captures = {agent: last for agent, last in recorder.captures.items() if agent in view.captured}
    return recorder.writer


def _seen(writer: Writer, agent: int, view: _View) -> Seen | None:
    """What is known of an agent by this look; None while its window has still to be captured for the first time."""
    pane, state = view.panes.get(agent), view.states[agent]
    if pane is None:
        return Seen(state, None)
    if agent in view.captured:
        text = cleaning.coloured(view.captured[agent]).rstrip("\n")
        return Seen(state, Picture(pane.columns, pane.rows, text))
    before = writer.last_seen(agent)
    return before and Seen(state, before.picture)


def _prune(recorder: Recorder, terms: RecordingSettings, now: int) -> None:
    assert recorder.writer
    if recorder.pruned_at is not None and 0 <= now - recorder.pruned_at < _PRUNE_EVERY_MS:
        return
    has_more = recorder.writer.prune(now=now, days=terms.days, most_bytes=round(terms.megabytes * 1_000_000))
    recorder.pruned_at = None if has_more else now


def _tidy(recorder: Recorder, home: Path, terms: RecordingSettings, now: int) -> None:
    """While no team lives what is recorded grows old all the same."""
    is_done = recorder.pruned_at is not None and 0 <= now - recorder.pruned_at < _TIDY_EVERY_MS
    if not is_done and recordings.path_in(home).exists():
        recorder.writer = Writer(home, now=now)
        _prune(recorder, terms, now)
        recorder.close()


# -- what goes wrong --


def _give_up(db: sqlite3.Connection, home: Path, recorder: Recorder, error: Exception, now: int) -> None:
    """Rest for a while. A file that is damaged is moved aside, and the next look begins a new one."""
    recorder.close()
    reason = f"the screens of agents are not recorded in {recordings.path_in(home)}: {error}"
    # What is damaged again at once is left alone for a while too.
    is_first = recorder.failed_at is None or not 0 <= now - recorder.failed_at < AGAIN_MS
    recorder.failed_at, recorder.rests_until = now, now + AGAIN_MS
    if isinstance(error, sqlite3.DatabaseError) and recordings.is_damage(error):
        try:
            aside = recordings.set_aside(home)
        except OSError as trouble:
            reason += f"; and it cannot be moved aside: {trouble}"
        else:
            reason = f"the recording of screens was damaged ({error}): it is {aside} now, and a new one is begun"
            recorder.rests_until = now if is_first else recorder.rests_until
    log.warning("%s", reason)
    try:
        if not _is_told(db, recorder):
            with store.writing(db):
                store.record(db, "recording.failed", now=now, reason=reason)
                body = f"{reason}. The teams work on. To go without recordings: recording.enabled in config.yaml"
                notices.tell(db, "needs_attention", "screens are not recorded", body, now=now)
            recorder.is_told = True
    except (sqlite3.Error, OrchestratorError):  # of a full disk nothing can be told there either; the log has it
        log.exception("that could not be told")


def _is_told(db: sqlite3.Connection, recorder: Recorder) -> bool:
    """Whether it was told that recording fails, by this daemon or one before it, and not that it goes on."""
    if recorder.is_told is None:
        last = store.newest(db, "recording.failed", "recording.goes_on")
        recorder.is_told = last is not None and last.kind == "recording.failed"
    return recorder.is_told


def _tell_recovery(db: sqlite3.Connection, recorder: Recorder, now: int) -> None:
    """What has gone well for a while goes on: the next failure is news again."""
    recorder.rests_until = None
    is_well = recorder.failed_at is None or not 0 <= now - recorder.failed_at < AGAIN_MS
    if is_well and _is_told(db, recorder):
        with store.writing(db):
            store.record(db, "recording.goes_on", now=now)
        recorder.is_told = False
