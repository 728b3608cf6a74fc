"""The governor: what the daemon does about usage limits, and how it learns of those of which no hook tells.

It lets one agent go first when a limit's time has come, watches for its model's answer, and then lets the others go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from lib import agents, decisions, host, limits, messages, orchestrations, resets
from lib.claude import refusals, transcripts
from lib.config import LimitSettings
from lib.judgement import choices, screens
from lib.models import Agent, AgentState, Limit, LimitKind, LimitSource, OrchestrationStatus
from lib.records import dataclass
from lib.store import writing

MINUTE_MS = 60_000
#: How long the first agent may take to be seen at work before another one tries.
_TRIAL_MS = 3 * MINUTE_MS
#: While one tries, its transcript is looked at so often; less when that takes long and nobody else wants to.
_LOOK_MS = 2_000
_LOOK_LATER_MS = 15_000
#: The entry in the transcript follows the hook by 0.1 s.
_WRITTEN_WITHIN_MS = 300
#: How often transcripts are looked at for refusals of which no hook has told.
_TRANSCRIPTS_EVERY_MS = 10_000

#: What an agent's window shows, as tmux captures it; None when it has none.
Look = Callable[[Agent], str | None]


class Others(Protocol):
    """The other hosts of a fleet that share an account with this one."""

    def wait_until(self, limit: Limit, *, wants: bool) -> int | None:
        """Until when to wait before it is asked again (UTC milliseconds); None when an agent may try here now.

        `wants` is whether one here would ask its model something.
        """

    def turns(self, limit: Limit) -> tuple[int, int]:
        """How many of the hosts go on before this one, and how many there are, so that all go on one after another."""


class Nobody:
    """A machine alone."""

    def wait_until(self, limit: Limit, *, wants: bool) -> int | None:
        return None

    def turns(self, limit: Limit) -> tuple[int, int]:
        return 0, 1


@dataclass
class Observation:
    """What was seen of transcripts, so that only those that have changed are read. A successor reads them anew."""

    looked_at: int | None = None
    paths: dict[int, tuple[str, Path]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    #: Transcripts that could not be read.
    failures: int = 0


@dataclass(frozen=True)
class _Turn:
    """What one step works with."""

    db: sqlite3.Connection
    limit: Limit
    covered: Sequence[Agent]
    now: int
    terms: LimitSettings
    look: Look
    others: Others


def govern(
    db: sqlite3.Connection,
    observation: Observation,
    *,
    now: int,
    terms: LimitSettings,
    look: Look = lambda agent: None,
    others: Others | None = None,
) -> list[int]:
    """Take every open limit one step further. Returns when something is due again (UTC milliseconds)."""
    notice(db, observation, now=now, terms=terms)
    found = limits.open_limits(db)
    live = agents.live(db) if found else []
    dues = []
    for limit in found:
        covered = [agent for agent in live if limits.covers(limit, agent)]
        dues.append(_step(_Turn(db, limit, covered, now, terms, look, others or Nobody())))
    return [due for due in dues if due is not None]


# -- refusals of which no hook tells --


def notice(db: sqlite3.Connection, observation: Observation, *, now: int, terms: LimitSettings) -> None:
    """Look for them in the transcripts that have grown since the last look."""
    if observation.looked_at is not None and 0 <= now - observation.looked_at < _TRANSCRIPTS_EVERY_MS:
        return
    observation.looked_at = now
    for agent in agents.live(db):
        known = observation.paths.get(agent.id)
        if known is None or known[0] != agent.conversation_id:
            path = transcripts.find(agent.config_dir, agent.conversation_id)
            if path is None:
                continue
            known = observation.paths[agent.id] = (agent.conversation_id, path)
        _look_at_transcript(db, agent, known[1], observation, terms)


def _look_at_transcript(
    db: sqlite3.Connection, agent: Agent, path: Path, observation: Observation, terms: LimitSettings
) -> None:
    try:
        size = path.stat().st_size
        if observation.sizes.get(agent.id) == size:
            return
        observation.sizes[agent.id] = size
        found = refusals.last(path)
    except OSError:  # removed meanwhile, or not ours to read: the next look finds another, or none
        observation.paths.pop(agent.id, None)
        observation.failures += 1
        return
    if found and not limits.is_history(db, agent, found[1]):
        limits.refused(db, agent, found[0], LimitSource.TRANSCRIPT, at=found[1], terms=terms)


def look_at_guest(db: sqlite3.Connection, agent: Agent, *, now: int, terms: LimitSettings) -> None:
    """Look how the last turn of a guest has ended, of which no hook of ours tells."""
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    if path is None:
        return
    _look_at_transcript(db, agent, path, Observation(), terms)
    for found in limits.about(db, agent):
        if _has_answered(agent, found.refused_at + MINUTE_MS):
            limits.succeeded(db, agent, now, now)


# -- one step of one limit --


def _step(turn: _Turn) -> int | None:
    if turn.limit.over_at is not None:
        return _release(turn)
    if turn.limit.tried_at is not None:
        return _watch_trial(turn, turn.limit.tried_at)
    if turn.limit.resets_at is None or turn.limit.source is LimitSource.HOOK:
        _read_time_again(turn)
    limit = limits.get(turn.db, turn.limit.id)
    if limit.look_at is None:
        limits.need_attention(turn.db, limit, now=turn.now)
        return None
    if limits.is_due(limit, turn.now):
        return _try(turn)
    is_fresh = limit.source is LimitSource.HOOK and 0 <= turn.now - limit.refused_at < _LOOK_MS
    return turn.now + _WRITTEN_WITHIN_MS if is_fresh else limit.look_at


def _read_time_again(turn: _Turn) -> None:
    """Look for the exact time: in the transcript, which follows the hook; in the window when it is nowhere else."""
    agent = next((one for one in turn.covered if one.id == turn.limit.refused_by), None)
    if agent is None or abs(turn.now - turn.limit.refused_at) > MINUTE_MS:
        return
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    if path:
        _look_at_transcript(turn.db, agent, path, Observation(), turn.terms)
    limit = limits.get(turn.db, turn.limit.id)
    if limit.resets_at is not None or limit.kind not in (LimitKind.FIVE_HOUR, LimitKind.WEEKLY):
        return
    resets_at = resets.parse(screens.limit(turn.look(agent) or "") or "", now=turn.now)
    if resets_at is not None:
        limits.read_in_window(turn.db, limit, resets_at, now=turn.now, terms=turn.terms)


def _has_answered(agent: Agent, since: int) -> bool:
    """Whether an agent's model has answered it since a time: its transcript says so."""
    path = transcripts.find(agent.config_dir, agent.conversation_id)
    try:
        return path is not None and transcripts.has_answered_since(path, since)
    except OSError:  # removed since it was found
        return False


def _patience_until(turn: _Turn, agent: Agent) -> int:
    """Until when an agent is left to go on by itself (UTC milliseconds); 0 when it does not.

    Whoever waits for the reset of a limit that is over before it waits in vain.
    """
    resets_at, over_at = turn.limit.resets_at, turn.limit.over_at
    found = limits.standing(turn.db, turn.limit, agent.id)
    if resets_at is None or (over_at is not None and over_at < resets_at):
        return 0
    if not found.is_cut_off or found.cut_off_at is None or found.epoch != agent.epoch:
        return 0
    if not refusals.continues_by_itself(agent.program, turn.limit.kind, resets_at, found.cut_off_at):
        return 0
    shown = turn.look(agent)
    does = shown is None or screens.continues_by_itself(shown) is not False
    return resets_at + refusals.AUTO_CONTINUES_WITHIN_MS if does else 0


def _wants_something(turn: _Turn, agent: Agent) -> bool:
    """Whether an agent would ask its model something if nothing held it."""
    return limits.standing(turn.db, turn.limit, agent.id).is_cut_off or messages.count_pending(turn.db, agent.id) > 0


# -- one goes first --


def _try(turn: _Turn, *, but: int | None = None) -> int:
    """Let one agent go on and see what comes of it. When nobody is there who wants to, the limit is over."""
    there = [agent for agent in turn.covered if agent.id != but and _can_try(turn.db, agent)]
    wants = [agent for agent in there if _wants_something(turn, agent)]
    if turn.limit.agent_id is None:
        until = turn.others.wait_until(turn.limit, wants=bool(wants))
        if until is not None:
            return until
    if not wants:
        limits.be_over(turn.db, turn.limit, None, now=turn.now)
        return turn.now
    patience = {agent.id: _patience_until(turn, agent) for agent in wants}
    chosen = choices.first_to_try(list(patience.items()))
    first = next(agent for agent in wants if agent.id == chosen)
    with writing(turn.db):
        is_told = limits.begin_trial(turn.db, turn.limit, first, now=turn.now)
        given = {"patience": list(patience.items())}
        decisions.note(turn.db, "trial", given, chosen, now=turn.now, is_told=is_told)
        if turn.now >= patience[chosen]:
            limits.let_go(turn.db, turn.limit, first, now=turn.now)
    return turn.now + _LOOK_MS


def _can_try(db: sqlite3.Connection, agent: Agent) -> bool:
    if agents.state_of(agent) is AgentState.GONE:
        return False
    return orchestrations.of_agent(db, agent).status is not OrchestrationStatus.PAUSED


def _watch_trial(turn: _Turn, tried_at: int) -> int:
    first = next((agent for agent in turn.covered if agent.id == turn.limit.trier_id), None)
    if first is None or not _can_try(turn.db, first):
        return _try(turn, but=turn.limit.trier_id)
    if _has_answered(first, tried_at):
        limits.be_over(turn.db, turn.limit, first.id, now=turn.now)
        return turn.now
    if limits.standing(turn.db, turn.limit, first.id).released_at is None:
        if turn.now >= _patience_until(turn, first):  # it was to go on by itself, and has not
            with writing(turn.db):
                limits.begin_trial(turn.db, turn.limit, first, now=turn.now)
                limits.let_go(turn.db, turn.limit, first, now=turn.now)
    elif not 0 <= turn.now - tried_at < _TRIAL_MS and agents.state_of(first) is not AgentState.WORKING:
        others = (agent for agent in turn.covered if agent.id != first.id and _can_try(turn.db, agent))
        if any(_wants_something(turn, agent) for agent in others):
            return _try(turn, but=first.id)
        return turn.now + _LOOK_LATER_MS
    return turn.now + _LOOK_MS


# -- the others follow --


def _release(turn: _Turn) -> int | None:
    """Let the next agent go on when it is its turn; who has nothing to do waits for nobody."""
    found = {agent.id: limits.standing(turn.db, turn.limit, agent.id) for agent in turn.covered}
    place, count = turn.others.turns(turn.limit)
    one_ms = round(turn.terms.spacing_seconds * 1000)
    # With many hosts not longer than a minute, so that nobody waits for hours.
    spacing_ms = max(one_ms, min(one_ms * count, MINUTE_MS))
    next_at = max((one.released_at for one in found.values() if one.released_at is not None), default=0) + spacing_ms
    next_at = max(next_at, (turn.limit.over_at or 0) + spacing_ms * place // count)
    dues = []
    held = [agent for agent in turn.covered if found[agent.id].released_at is None]
    for agent in sorted(held, key=lambda agent: not found[agent.id].is_cut_off):
        patience, wants = _patience_until(turn, agent), _wants_something(turn, agent)
        its_turn_at = max(patience, next_at if wants else 0)
        if turn.now < its_turn_at and not host.was_set_back(its_turn_at, turn.now + refusals.AUTO_CONTINUES_WITHIN_MS):
            dues.append(its_turn_at)
            continue
        limits.let_go(turn.db, turn.limit, agent, now=turn.now)
        if wants:
            next_at = turn.now + spacing_ms
    if dues:
        return min(dues)
    limits.end(turn.db, turn.limit, now=turn.now)
    return None
