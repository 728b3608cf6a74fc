"""Usage limits: what the API refuses, to whom, until when; and how agents go on afterwards (docs/limits.md).

A limit is recorded when an agent's turn is refused, waits for its time, is tried by one agent, and is over when that
one has been seen at work: then the others go on, one after another. Every step is a row before it is an act, so that
whoever comes after a crash resumes nobody twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from lib import agents, authorizations, checkins, decisions, host, messages, notices, orchestrations, templates
from lib.claude import refusals
from lib.claude.hooks import HookReport
from lib.config import LimitSettings
from lib.judgement import retries
from lib.models import (
    Agent,
    AgentState,
    Hold,
    Limit,
    LimitKind,
    LimitSource,
    MessageKind,
    Orchestration,
    OrchestrationStatus,
    Refusal,
)
from lib.records import dataclass
from lib.store import record, writing

SENDER = "scheduler"
MINUTE_MS = 60_000
#: A turn that ends well so long after a refusal was answered after it, whenever it began.
_SURELY_AFTER_MS = MINUTE_MS
#: The entry in the transcript and the hook of one refusal lie 0.1 s apart; two refusals of one agent never so near.
_SAME_MS = 1_000

#: No limit that another host tells of holds longer than one of its kind can, and all that it tells not longer than the
#: longest of a subscription: who tells what is not so holds nobody for ever.
TOLD_WITHIN_MS = {
    LimitKind.FIVE_HOUR: 6 * 60 * MINUTE_MS,
    LimitKind.WEEKLY: 8 * 24 * 60 * MINUTE_MS,
    LimitKind.SPEND: 32 * 24 * 60 * MINUTE_MS,
}
_ALL_TOLD_WITHIN_MS = TOLD_WITHIN_MS[LimitKind.WEEKLY]

#: What mends a login. The address at which credit is added stands in what the client has said.
_LOG_IN = "claude auth login"

_OPEN = "SELECT * FROM limits WHERE ended_at IS NULL"


# -- what holds whom --


def open_limits(db: sqlite3.Connection) -> list[Limit]:
    """The limits that are not over for everybody they cover, oldest first."""
    return [_limit(row) for row in db.execute(f"{_OPEN} ORDER BY id")]


def accounts_with_windows(db: sqlite3.Connection) -> dict[Path, int | None]:
    """The configuration folders whose account has met a five-hour limit, with the reset time of one that is open."""
    rows = db.execute(
        "SELECT config_dir, max(CASE WHEN over_at IS NULL THEN resets_at END) FROM limits WHERE kind = 'five_hour'"
        " GROUP BY config_dir"
    )
    return {Path(row[0]): row[1] for row in rows}


def hold_of(db: sqlite3.Connection, agent: Agent) -> Hold | None:
    """What keeps an agent from work now, or None. It costs one look at a table that is mostly empty."""
    row = db.execute(
        f"{_OPEN} AND (agent_id = ?1 OR (agent_id IS NULL AND config_dir = ?2)) AND NOT EXISTS (SELECT 1 FROM"
        " limited_agents WHERE limit_id = limits.id AND limited_agents.agent_id = ?1 AND released_at IS NOT NULL)"
        " AND (over_at IS NULL OR NOT ?3) ORDER BY agent_id IS NOT NULL LIMIT 1",
        # A guest is no part of what goes on one after another: whoever has started it goes on with it.
        (agent.id, str(agent.config_dir), agent.is_guest),
    ).fetchone()
    return _hold(_limit(row)) if row else None


def hold_of_account(db: sqlite3.Connection, config_dir: Path) -> Hold | None:
    """What keeps the account of a configuration folder from work now, or None."""
    found = of_scope(db, config_dir, None)
    return _hold(found) if found and found.over_at is None else None


def of_scope(db: sqlite3.Connection, config_dir: Path, agent_id: int | None) -> Limit | None:
    """The open limit of an account, or of one agent."""
    row = db.execute(f"{_OPEN} AND config_dir = ? AND agent_id IS ?", (str(config_dir), agent_id)).fetchone()
    return _limit(row) if row else None


def is_due(limit: Limit, now: int) -> bool:
    """Whether the time has come at which one agent tries."""
    if limit.look_at is None:
        return False
    # A time that was counted by a clock that was set back since would take as long as that to come.
    return now >= limit.look_at or (limit.resets_at is None and host.was_set_back(limit.refused_at, now))


def _hold(limit: Limit) -> Hold:
    """What a limit keeps whom it holds from, with the host that has met it when that is another one."""
    found = _held(limit)
    return replace(found, why=f"{found.why} (met on {limit.host})") if limit.host else found


def _held(limit: Limit) -> Hold:
    if limit.over_at is not None:
        return Hold("limited until now, and goes on after others", None)
    if limit.kind is LimitKind.LOGIN:
        return Hold(f"logged out; next: {_LOG_IN}", None)
    if limit.look_at is None:
        return Hold("out of credit", None)
    if limit.kind is LimitKind.OVERLOADED:
        return Hold(f"held until {clock(limit.look_at)}: the service is overloaded", limit.look_at)
    if limit.resets_at is None:
        return Hold(f"limited, nobody knows until when; looked at again at {clock(limit.look_at)}", limit.look_at)
    return Hold(f"limited until {clock(limit.resets_at)}", limit.resets_at)


def clock(at: int) -> str:
    """A time (UTC milliseconds) by the clock of this machine, with the date when that is more than a day ahead."""
    local = datetime.fromtimestamp(at / 1000)
    is_near = at - host.now_ms() < 24 * 3600 * 1000
    return local.strftime("%H:%M") if is_near else local.strftime("%b %-d, %H:%M")


# -- what agents' hooks tell --


def hear(
    db: sqlite3.Connection, agent: Agent, report: HookReport, *, at: int, terms: Callable[[], LimitSettings]
) -> None:
    """Take what a hook tells of limits: a refusal, a turn that has ended well, a turn that was taken up again.

    `agent` is as it was before this hook. Call it in the transaction that takes the hook; a hook told twice changes
    nothing.
    """
    if refusal := refusals.of_hook(report, now=at):
        refused(db, agent, refusal, LimitSource.HOOK, at=at, terms=terms())
    elif report.event == "Stop":
        began_at = agent.last_hook_at if agent.last_hook == "UserPromptSubmit" else None
        succeeded(db, agent, began_at, at)
    elif refusals.has_continued_by_itself(report):
        db.execute(
            "UPDATE limited_agents SET went_on_at = ?1 WHERE agent_id = ?2 AND cut_off_at <= ?1 AND went_on_at IS NULL",
            (at, agent.id),
        )


def refused(
    db: sqlite3.Connection,
    agent: Agent,
    refusal: Refusal,
    source: LimitSource,
    *,
    at: int,
    terms: LimitSettings,
) -> None:
    """Record that an agent's turn was refused at a time (UTC milliseconds). The same one told again changes nothing."""
    scope = agent.id if refusal.kind is LimitKind.OVERLOADED else None
    with writing(db):
        found = of_scope(db, agent.config_dir, scope)
        known_at = standing(db, found, agent.id).cut_off_at if found else None
        if found and known_at is not None and at < known_at + _SAME_MS:
            if at > known_at - _SAME_MS:
                _be_exact(db, found, refusal, source, terms)
            return  # told before, or before what was told
        if found is None:
            found = _begin(db, agent, refusal, source, at, terms)
        elif found.gone_on_since is not None and at >= found.gone_on_since:
            _begin_again(db, found, agent, refusal, source, at, terms)
        elif _outweighs(refusal, found):
            _change(db, found, agent, refusal, source, at, terms)
        db.execute(
            "INSERT INTO limited_agents (limit_id, agent_id, epoch, cut_off_at) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT (limit_id, agent_id) DO UPDATE SET epoch = ?3, cut_off_at = ?4, went_on_at = NULL,"
            " note_id = NULL, released_at = NULL",
            (found.id, agent.id, agent.epoch, at),
        )


def _begin(
    db: sqlite3.Connection, agent: Agent, refusal: Refusal, source: LimitSource, at: int, terms: LimitSettings
) -> Limit:
    scope = agent.id if refusal.kind is LimitKind.OVERLOADED else None
    number = db.execute(
        "INSERT INTO limits (config_dir, agent_id, kind, source, said, resets_at, look_at, refused_by, refused_at,"
        " began_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(str(agent.config_dir), scope, refusal.kind, source, refusal.said, refusal.resets_at),
            *(_look_at(refusal, 0, at, terms), agent.id, at, at),
        ),
    ).lastrowid
    found = get(db, int(number or 0))
    _tell(db, "limit.hit", found, agent.id, at)
    _note(db, refusal, 0, at, terms)
    if scope is None:
        _tell_person(db, found, agent, at)
    return found


def _begin_again(
    db: sqlite3.Connection,
    limit: Limit,
    agent: Agent,
    refusal: Refusal,
    source: LimitSource,
    at: int,
    terms: LimitSettings,
) -> None:
    """The first to try was refused, or one of those after it: all wait again, for the new time."""
    tries = limit.tries + 1
    _set(db, limit, refusal, source, _look_at(refusal, tries, at, terms), agent, at)
    db.execute(
        "UPDATE limits SET tries = ?, trier_id = NULL, tried_at = NULL, over_at = NULL WHERE id = ?", (tries, limit.id)
    )
    db.execute("UPDATE limited_agents SET released_at = NULL WHERE limit_id = ?", (limit.id,))
    _tell(db, "limit.again", get(db, limit.id), agent.id, at)
    _note(db, refusal, tries, at, terms)
    if refusal.kind in (LimitKind.LOGIN, LimitKind.SPEND):
        _tell_person(db, get(db, limit.id), agent, at)


def _outweighs(refusal: Refusal, limit: Limit) -> bool:
    """Whether a refusal says more than the limit that waits already: a later time, or what only a person can mend."""
    is_personal = LimitKind.LOGIN in (refusal.kind, limit.kind) or LimitKind.SPEND in (refusal.kind, limit.kind)
    if is_personal:
        return refusal.kind is not limit.kind
    return refusal.resets_at is not None and refusal.resets_at > (limit.resets_at or 0)


def outweighs(limit: Limit, refusal: Refusal) -> bool:
    """Whether a limit says more than what another host was refused, by more than words that are rounded differ."""
    if limit.kind is not refusal.kind and LimitKind.SPEND in (limit.kind, refusal.kind):
        return True
    return limit.resets_at is not None and limit.resets_at > (refusal.resets_at or 0) + MINUTE_MS


def _change(
    db: sqlite3.Connection,
    limit: Limit,
    agent: Agent,
    refusal: Refusal,
    source: LimitSource,
    at: int,
    terms: LimitSettings,
) -> None:
    _set(db, limit, refusal, source, _look_at(refusal, limit.tries, at, terms), agent, at)
    moved = refusal.resets_at is None or abs(refusal.resets_at - (limit.resets_at or 0)) > MINUTE_MS
    if refusal.kind is not limit.kind or moved:
        _tell(db, "limit.moved", get(db, limit.id), agent.id, at)
        _note(db, refusal, limit.tries, at, terms)
    if refusal.kind is not limit.kind:
        _withdraw_attention(db, limit, at)
        _tell_person(db, get(db, limit.id), agent, at)


def _set(
    db: sqlite3.Connection,
    limit: Limit,
    refusal: Refusal,
    source: LimitSource,
    look_at: int | None,
    agent: Agent,
    at: int,
) -> None:
    db.execute(
        "UPDATE limits SET kind = ?, source = ?, said = ?, resets_at = ?, look_at = ?, refused_by = ?, refused_at = ?,"
        " host = NULL WHERE id = ?",
        (refusal.kind, source, refusal.said, refusal.resets_at, look_at, agent.id, at, limit.id),
    )


def _be_exact(
    db: sqlite3.Connection, limit: Limit, refusal: Refusal, source: LimitSource, terms: LimitSettings
) -> None:
    """Take the exact time of a refusal that is known by its words: they leave out the seconds, or the time itself."""
    waits = limit.tried_at is None and limit.over_at is None
    if waits and source is LimitSource.TRANSCRIPT and limit.source is not source and limit.kind is refusal.kind:
        look_at = _look_at(refusal, limit.tries, limit.refused_at, terms)
        db.execute(
            "UPDATE limits SET source = ?, resets_at = ?, look_at = ? WHERE id = ?",
            (source, refusal.resets_at, look_at, limit.id),
        )


def _look_at(refusal: Refusal, tries: int, at: int, terms: LimitSettings) -> int | None:
    """When one agent tries; None when a person has to do something first."""
    return retries.next_trial(**_given(refusal, tries, at, terms))


def _given(refusal: Refusal, tries: int, at: int, terms: LimitSettings) -> retries.Refused:
    return {
        "kind": refusal.kind,
        "resets_at": refusal.resets_at,
        "tries": tries,
        "at": at,
        "again_ms": round(terms.look_again_minutes * MINUTE_MS),
        "grace_ms": round(terms.grace_seconds * 1000),
    }


def _note(db: sqlite3.Connection, refusal: Refusal, tries: int, at: int, terms: LimitSettings) -> None:
    """Keep until when a refusal has agents wait."""
    decisions.note(db, "limit", _given(refusal, tries, at, terms), _look_at(refusal, tries, at, terms), now=at)


# -- what another host tells --


def told(
    db: sqlite3.Connection,
    config_dir: Path,
    refusal: Refusal,
    by: str,
    *,
    tries: int,
    now: int,
    terms: LimitSettings,
) -> None:
    """Take that an agent of this account was refused on another host, as if it had been here. The same changes nothing.

    What only a person can mend here waits for that person; of what another host tells, one agent tries at last.
    """
    with writing(db):
        found = of_scope(db, config_dir, None)
        if found and found.host is None and found.look_at is None:
            return
        if found and now - found.began_at > _ALL_TOLD_WITHIN_MS:
            return
        refusal = replace(refusal, resets_at=_within(refusal, now))
        look_at = _look_at(refusal, tries, now, terms) or now + round(terms.look_again_minutes * MINUTE_MS)
        if found is None:
            kind, limit_id = "limit.hit", _begin_told(db, config_dir, refusal, by, tries, look_at, now)
        elif found.gone_on_since is not None:
            kind, limit_id = "limit.again", _wait_as_told(db, found, refusal, tries, look_at)
            db.execute("UPDATE limits SET trier_id = NULL, tried_at = NULL, over_at = NULL WHERE id = ?", (limit_id,))
            db.execute("UPDATE limited_agents SET released_at = NULL WHERE limit_id = ?", (limit_id,))
        elif tries > found.tries or _outweighs(refusal, found):
            kind, limit_id = "limit.moved", _wait_as_told(db, found, refusal, tries, look_at)
        else:
            return
        _tell(db, kind, get(db, limit_id), None, now)
        _note(db, refusal, tries, now, terms)


def _within(refusal: Refusal, now: int) -> int | None:
    longest = TOLD_WITHIN_MS.get(refusal.kind, 0)
    is_likely = refusal.resets_at is not None and refusal.resets_at <= now + longest
    return refusal.resets_at if is_likely else None


def _begin_told(
    db: sqlite3.Connection, config_dir: Path, refusal: Refusal, by: str, tries: int, look_at: int, now: int
) -> int:
    row = db.execute(
        "INSERT INTO limits (config_dir, kind, source, said, resets_at, look_at, host, refused_at, began_at, tries)"
        " VALUES (?, ?, 'fleet', ?, ?, ?, ?, ?, ?, ?)",
        (str(config_dir), refusal.kind, refusal.said, refusal.resets_at, look_at, by, now, now, tries),
    )
    return int(row.lastrowid or 0)


def _wait_as_told(db: sqlite3.Connection, limit: Limit, refusal: Refusal, tries: int, look_at: int) -> int:
    db.execute(
        "UPDATE limits SET kind = ?, said = ?, resets_at = ?, look_at = ?, tries = ? WHERE id = ?",
        (refusal.kind, refusal.said, refusal.resets_at, look_at, tries, limit.id),
    )
    return limit.id


def told_over(db: sqlite3.Connection, config_dir: Path, *, now: int) -> None:
    """Take that the limit of an account was found over on another host. A login that is missing here still is."""
    found = of_scope(db, config_dir, None)
    if found is not None and found.over_at is None and found.kind is not LimitKind.LOGIN:
        with writing(db):
            be_over(db, found, None, now=now)
            note_told(db, found, get(db, found.id).news or "")


def newest(db: sqlite3.Connection, folders: Iterable[Path]) -> list[Limit]:
    """The newest limit of each account's folder that concerns all hosts of the account, also one that has ended."""
    rows = (
        db.execute(
            "SELECT * FROM limits WHERE config_dir = ? AND agent_id IS NULL AND kind != 'login'"
            " ORDER BY id DESC LIMIT 1",
            (str(folder),),
        ).fetchone()
        for folder in folders
    )
    return [_limit(row) for row in rows if row is not None]


def note_told(db: sqlite3.Connection, limit: Limit, news: str) -> None:
    """Record what the fleet was told of a limit."""
    db.execute("UPDATE limits SET told = ? WHERE id = ?", (news, limit.id))


def succeeded(db: sqlite3.Connection, agent: Agent, began_at: int | None, at: int) -> None:
    """An agent's turn has ended well: what it was refused before is over, whoever has told it to try."""
    for scope in (agent.id, None):
        found = of_scope(db, agent.config_dir, scope)
        if found is None:
            continue
        db.execute(
            "UPDATE limited_agents SET went_on_at = ? WHERE limit_id = ? AND agent_id = ? AND cut_off_at < ?"
            " AND went_on_at IS NULL",
            (at, found.id, agent.id, at),
        )
        if found.over_at is None and max(began_at or 0, at - _SURELY_AFTER_MS) > found.refused_at:
            be_over(db, found, agent.id, now=at)


# -- how it goes on --


@dataclass(frozen=True)
class Standing:
    """What a limit means for one agent. Times are UTC milliseconds.

    `cut_off_at` is when its turn was refused, None for one that is only held; `went_on_at` when it took that up again;
    `note_id` the message that told it to; since `released_at` the limit does not hold it.
    """

    epoch: int
    cut_off_at: int | None
    went_on_at: int | None
    note_id: int | None
    released_at: int | None

    @property
    def is_cut_off(self) -> bool:
        """Whether a turn of it was refused that it has not taken up again."""
        return self.cut_off_at is not None and self.went_on_at is None


#: Of an agent of which nothing is recorded.
UNTOUCHED = Standing(0, None, None, None, None)


def standing(db: sqlite3.Connection, limit: Limit, agent_id: int) -> Standing:
    """What a limit means for an agent."""
    row = db.execute(
        "SELECT epoch, cut_off_at, went_on_at, note_id, released_at FROM limited_agents"
        " WHERE limit_id = ? AND agent_id = ?",
        (limit.id, agent_id),
    ).fetchone()
    return Standing(**dict(row)) if row else UNTOUCHED


def covers(limit: Limit, agent: Agent) -> bool:
    """Whether a limit is about an agent."""
    return agent.id == limit.agent_id if limit.agent_id else agent.config_dir == limit.config_dir


def is_history(db: sqlite3.Connection, agent: Agent, at: int) -> bool:
    """Whether the refusal of a time belongs to a limit that has ended: the agent has just had no turn since."""
    row = db.execute(
        "SELECT 1 FROM limited_agents JOIN limits ON limits.id = limit_id WHERE limited_agents.agent_id = ?"
        " AND cut_off_at > ? AND ended_at IS NOT NULL",
        (agent.id, at - _SAME_MS),
    ).fetchone()
    return row is not None


def read_in_window(db: sqlite3.Connection, limit: Limit, resets_at: int, *, now: int, terms: LimitSettings) -> None:
    """Take a reset time from an agent's window, when nothing that is more to be trusted has named one."""
    look_at = _look_at(Refusal(limit.kind, limit.said, resets_at), limit.tries, now, terms)
    db.execute(
        "UPDATE limits SET source = 'screen', resets_at = ?, look_at = ? WHERE id = ? AND resets_at IS NULL",
        (resets_at, look_at, limit.id),
    )


def begin_trial(db: sqlite3.Connection, limit: Limit, agent: Agent, *, now: int) -> bool:
    """One agent goes first; whoever went first before is held again. Call it in the transaction that lets it go.

    Returns whether an event tells of it: the same agent may be the first once more.
    """
    db.execute("UPDATE limits SET trier_id = ?, tried_at = ? WHERE id = ?", (agent.id, now, limit.id))
    db.execute("UPDATE limited_agents SET released_at = NULL WHERE limit_id = ?", (limit.id,))
    is_another = limit.trier_id != agent.id  # it may first have been left to go on by itself
    if is_another:
        _tell(db, "limit.tried", limit, agent.id, now)
    return is_another


def let_go(db: sqlite3.Connection, limit: Limit, agent: Agent, *, now: int) -> None:
    """Hold an agent no longer; when its turn was cut off, and it stands still, tell it to go on: once."""
    with writing(db):
        found = standing(db, limit, agent.id)
        note_id = found.note_id
        # One that is started again, or was, has a note of its own for that. One that is at work has just gone on by
        # itself, and its hook is still on the way.
        stands_still = agents.state_of(agent) not in (AgentState.GONE, AgentState.WORKING)
        if note_id is None and found.is_cut_off and found.epoch == agent.epoch and stands_still:
            text = templates.render("limit_over.md", kind=str(limit.kind))
            note_id = messages.queue(db, agent, text, sender=SENDER, kind=MessageKind.NOTICE, now=now).id
        db.execute(
            "INSERT INTO limited_agents (limit_id, agent_id, epoch, note_id, released_at) VALUES (?1, ?2, ?3, ?4, ?5)"
            " ON CONFLICT (limit_id, agent_id) DO UPDATE SET note_id = ?4, released_at = ?5",
            (limit.id, agent.id, agent.epoch, note_id, now),
        )
        checkins.wait_no_longer(db, agent.id, now=now)
        _tell(db, "limit.released", limit, agent.id, now, message=note_id)


def be_over(db: sqlite3.Connection, limit: Limit, agent_id: int | None, *, now: int) -> None:
    """The limit is over: `agent_id` was seen at work, or (None) nobody is there who could try, or has to."""
    with writing(db):
        changed = db.execute(
            "UPDATE limits SET over_at = ?, trier_id = NULL, tried_at = NULL WHERE id = ? AND over_at IS NULL",
            (now, limit.id),
        ).rowcount
        if not changed:
            return
        _tell(db, "limit.over", limit, agent_id, now)
        held = [agent.id for agent in agents.live(db) if covers(limit, agent)]
        authorizations.extend(db, held, since=limit.began_at, now=now)
        _withdraw_attention(db, limit, now)


def end(db: sqlite3.Connection, limit: Limit, *, now: int) -> None:
    """All whom it held go on."""
    with writing(db):
        db.execute("UPDATE limits SET ended_at = ? WHERE id = ? AND ended_at IS NULL", (now, limit.id))
        _tell(db, "limit.ended", limit, None, now)


def lift(db: sqlite3.Connection, config_dir: Path, *, now: int) -> None:
    """A person has come and launches: what only a person could mend counts as mended, until it is refused again."""
    found = of_scope(db, config_dir, None)
    if found is None or found.look_at is not None:
        return
    with writing(db):
        be_over(db, found, None, now=now)
        for agent in agents.live(db):
            if covers(found, agent):
                let_go(db, found, agent, now=now)
        end(db, found, now=now)


# -- who hears of it --


def _tell(
    db: sqlite3.Connection, kind: str, limit: Limit, agent_id: int | None, now: int, *, message: int | None = None
) -> None:
    """One event for each team that it is about."""
    told = {"limit": limit.id, "about": str(limit.kind), "resets_at": limit.resets_at, "source": str(limit.source)}
    told |= {"host": limit.host} if limit.host else {}
    agent = agents.get(db, agent_id) if agent_id else None
    record(
        db,
        kind,
        now=now,
        orchestration=agent.orchestration_id if agent else None,
        agent=agent_id,
        message=message,
        said=limit.said,
        **told,
    )


def _tell_person(db: sqlite3.Connection, limit: Limit, agent: Agent, now: int) -> None:
    """Once for an account: a notice, or that its teams need attention, when only a person can mend it."""
    if limit.look_at is not None:
        hold = _hold(limit)
        body = f"{agent.target} was told: {limit.said}\nAll agents of this account wait, and go on by themselves."
        notices.tell(db, "limit", f"Claude Code is {hold.why}", body, now=now)
    else:
        need_attention(db, limit, now=now)


def need_attention(db: sqlite3.Connection, limit: Limit, *, now: int) -> None:
    """The teams of an account need attention that only a person can mend, also those that began meanwhile."""
    who = agents.get(db, limit.refused_by).target if limit.refused_by else limit.host
    said = f"{who} was told: {limit.said or 'nothing'}"
    for found in _of_account(db, limit):
        if found.status is OrchestrationStatus.RUNNING:
            outcome = f"{said}; next: {_remedy(limit)}, then auto_orchestrate.py --project {found.project} --resume"
            orchestrations.set_status(db, found.id, OrchestrationStatus.NEEDS_ATTENTION, now=now, outcome=outcome)


def _remedy(limit: Limit) -> str:
    return _LOG_IN if limit.kind is LimitKind.LOGIN else "add credit"


def _withdraw_attention(db: sqlite3.Connection, limit: Limit, now: int) -> None:
    """What only a person could mend is mended."""
    if limit.kind not in (LimitKind.LOGIN, LimitKind.SPEND):
        return
    for found in _of_account(db, limit):
        if found.status is OrchestrationStatus.NEEDS_ATTENTION and _remedy(limit) in (found.outcome or ""):
            orchestrations.set_status(db, found.id, OrchestrationStatus.RUNNING, now=now)


def _of_account(db: sqlite3.Connection, limit: Limit) -> list[Orchestration]:
    return [found for found in orchestrations.live(db) if found.config_dir == limit.config_dir]


# -- rows --


def about(db: sqlite3.Connection, agent: Agent) -> list[Limit]:
    """The open limits of an agent and of its account."""
    found = (of_scope(db, agent.config_dir, scope) for scope in (agent.id, None))
    return [limit for limit in found if limit is not None]


def get(db: sqlite3.Connection, limit_id: int) -> Limit:
    return _limit(db.execute("SELECT * FROM limits WHERE id = ?", (limit_id,)).fetchone())


def _limit(row: sqlite3.Row) -> Limit:
    values = dict(row) | {
        "config_dir": Path(row["config_dir"]),
        "kind": LimitKind(row["kind"]),
        "source": LimitSource(row["source"]),
    }
    return Limit(**values)
