"""The ledger of spending: what agents' answers have used, counted from their transcripts as these grow (growth.py).

Each answer counts once, by its id, however many lines, files and readings it stands in; ids are kept for 30 days, which
is as long as Claude Code keeps transcripts.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import NamedTuple

from lib import agents, host, messages
from lib.claude import spending
from lib.claude.spending import Prompted, Summarised, Used
from lib.errors import NotFound
from lib.judgement import prices, supervising
from lib.judgement.framing import unframe, unwrap
from lib.judgement.prices import Item
from lib.models import LIVE, Agent, MessageKind, Sort, Usage
from lib.records import dataclass
from lib.spending import growth
from lib.spending.growth import Block, Place
from lib.store import writing

#: In what steps of time spending is kept: the days of every time zone begin at one of them.
QUARTER_MS = 15 * 60_000
DAY_MS = 24 * 60 * 60_000
#: How long the ids of answers are kept. What is older in a file that is read from its beginning was counted before.
KEPT_MS = 30 * DAY_MS
#: Claude Code writes the last entry of a turn 0.1 s after its hook.
SETTLED_MS = 500
#: How often every transcript is looked at, whatever hooks have said.
LOOK_EVERY_MS = 60_000
#: How long after its end a team's transcripts are still looked at.
FOLLOWED_MS = DAY_MS
#: So much is counted for a view, which takes a second or two; the scheduler counts the rest.
CATCH_UP_BYTES = 64 * 1024 * 1024
_ENDS_A_TURN = ("Stop", "StopFailure", "SessionEnd")


@dataclass
class Watch:
    """What a daemon knows of transcripts: whom to look at, and when. Its successor looks at all of them."""

    looked_at: int | None = None
    #: The newest end of a turn that was heard of.
    heard_until: int = 0
    #: Whether the last call has counted something.
    is_news: bool = False
    #: When an agent's transcripts are to be counted, by the agent's id.
    due: dict[int, int] = field(default_factory=dict)


def keep_up(db: sqlite3.Connection, watch: Watch, *, now: int, most_bytes: int = growth.BLOCK_BYTES) -> list[int]:
    """Count what has come since the last time, after the end of a turn and once a minute, and not more than so much.

    Returns when it is to be called again.
    """
    if watch.looked_at is None or not 0 <= now - watch.looked_at < LOOK_EVERY_MS:
        watch.looked_at = watch.heard_until = now
        watch.due = dict.fromkeys(_followed(db, now), now)
        _forget(db, now)
    for agent_id, at in _ended_turns(db, watch.heard_until):
        watch.heard_until = max(watch.heard_until, at)
        watch.due.setdefault(agent_id, min(at, now) + SETTLED_MS)
    due = [agent_id for agent_id, at in watch.due.items() if at <= now]
    watch.is_news = bool(due)
    for agent_id in _count_some(db, due, now, most_bytes):
        del watch.due[agent_id]
    return list(watch.due.values())


def catch_up(db: sqlite3.Connection, *, now: int, most_bytes: int = CATCH_UP_BYTES) -> bool:
    """Count what nobody has counted yet, for a view. Returns whether that was all."""
    left = _followed(db, now)
    while left and most_bytes > 0:
        done = set(_count_some(db, left, now, growth.BLOCK_BYTES))
        left = [agent_id for agent_id in left if agent_id not in done]
        most_bytes -= growth.BLOCK_BYTES
    return not left


def count(db: sqlite3.Connection, agent: Agent, *, now: int) -> None:
    """Count all that an agent's transcripts have gained."""
    while not _count_some(db, [agent.id], now, growth.BLOCK_BYTES):
        pass


def _count_some(db: sqlite3.Connection, agent_ids: Sequence[int], now: int, most_bytes: int) -> list[int]:
    """Count what agents' transcripts have gained, and not more than so many bytes. Returns whose was counted whole.

    Files are read before the transaction, and all are counted in one: each would wait for the disk.
    """
    blocks: list[Block] = []
    done: list[int] = []
    for agent_id in agent_ids:
        gained, is_all = growth.gained(db, agents.get(db, agent_id), now, most_bytes)
        blocks += gained
        most_bytes -= sum(block.size - block.start for block in gained)
        if is_all:
            done.append(agent_id)
        if most_bytes <= 0:
            break
    if blocks:
        with writing(db):
            for block in blocks:
                _count_block(db, block, now)
    return done


def _followed(db: sqlite3.Connection, now: int) -> list[int]:
    marks = ", ".join("?" * len(LIVE))
    rows = db.execute(
        "SELECT agents.id FROM agents JOIN orchestrations ON orchestrations.id = orchestration_id"
        f" WHERE status IN ({marks}) OR updated_at > ? ORDER BY agents.id",
        (*LIVE, now - FOLLOWED_MS),
    )
    return [row[0] for row in rows]


def _ended_turns(db: sqlite3.Connection, since: int) -> list[tuple[int, int]]:
    marks = ", ".join("?" * len(_ENDS_A_TURN))
    rows = db.execute(
        f"SELECT id, last_hook_at FROM agents WHERE last_hook_at > ? AND last_hook IN ({marks})"
        " AND orchestration_id IS NOT NULL",
        (since, *_ENDS_A_TURN),
    )
    return [(row[0], row[1]) for row in rows]


def _forget(db: sqlite3.Connection, now: int) -> None:
    if db.execute("SELECT 1 FROM counted_answers WHERE quarter < ? LIMIT 1", (now - KEPT_MS,)).fetchone():
        with writing(db):
            db.execute("DELETE FROM counted_answers WHERE quarter < ?", (now - KEPT_MS,))


# -- counting it --


class _Key(NamedTuple):
    """What an answer is counted under."""

    quarter: int
    model: str
    is_fast: bool
    is_us: bool
    is_supervision: bool
    is_helper: bool


_KEY = _Key._fields
_COUNTS = tuple(one.name for one in fields(Usage))


@dataclass
class _Tally:
    """The answers of a block, by their digest: what each is counted under, and the largest counts of its lines."""

    place: Place
    answers: dict[int, tuple[_Key, Usage]] = field(default_factory=dict)


def _count_block(db: sqlite3.Connection, block: Block, now: int) -> None:
    """Count a block and record how far that is, in the transaction of the caller."""
    place = growth.begin(db, block, now)
    if place is None:
        return
    tally = _Tally(place)
    for line in block.lines:
        _take_line(db, tally, line, now)
    _add_up(db, tally, was_there=block.start < place.found_bytes, now=now)
    growth.keep(db, place, block, now)


def _take_line(db: sqlite3.Connection, tally: _Tally, line: bytes, now: int) -> None:
    try:
        found = spending.read(line)
    except ValueError as error:
        tally.place.skip(str(error))
        return
    if isinstance(found, Prompted):
        _follow_turn(db, tally.place, found)
    elif isinstance(found, Summarised):
        tally.place.summaries += 1
    elif found:
        _take_answer(tally, found, now)


def _follow_turn(db: sqlite3.Connection, place: Place, prompt: Prompted) -> None:
    """Note which turn begins with a prompt: several that come before its answer are one, and work when one is."""
    if prompt.is_helper != place.is_helper:  # older versions write helpers into the conversation's own transcript
        return
    if place.is_helper:
        place.is_supervision = place.helped_turns.get(prompt.id, place.is_supervision)
        return
    if not prompt.goes_on:
        is_supervision = all(_is_supervision(db, place.agent, text) for text in prompt.texts)
        place.is_supervision = is_supervision and (place.is_answered or place.is_supervision)
        place.is_answered = False
    if prompt.id:
        place.turns.pop(prompt.id, None)
        place.turns[prompt.id] = place.is_supervision


def _is_supervision(db: sqlite3.Connection, agent: Agent, text: str) -> bool:
    """Whether a prompt is a message of ours that is supervision; what else is typed is work."""
    framed = unframe(text) or unframe(unwrap(text))
    if framed is None:
        return False
    try:
        message = messages.get(db, framed[0])
    except NotFound:
        return False
    told = messages.carried_by(db, message.id) if message.kind is MessageKind.DIGEST else [message]
    return message.agent_id == agent.id and all(
        supervising.is_supervision(one.kind, one.sender, one.body) for one in told
    )


def _take_answer(tally: _Tally, used: Used, now: int) -> None:
    place = tally.place
    if used.is_helper == place.is_helper:
        place.is_answered = True
    at = used.at if 0 < used.at <= now + host.CLOCK_SLACK_MS else now
    is_helper = place.is_helper or used.is_helper
    key = _Key(at - at % QUARTER_MS, used.model, used.is_fast, used.is_us, place.is_supervision, is_helper)
    digest = _digest(place.agent, used.id)
    before = tally.answers.get(digest)
    tally.answers[digest] = (before[0], before[1].at_least(used.usage)) if before else (key, used.usage)


def _digest(agent: Agent, answer: str) -> int:
    # Of the agent and the id: 64 bits are enough for billions of answers, and are a row's number.
    name = f"{agent.id} {answer}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), signed=True)


def _add_up(db: sqlite3.Connection, tally: _Tally, *, was_there: bool, now: int) -> None:
    """Count the answers of a block: those that are new, and what others have used more than was known.

    `was_there` is whether the file held the block already when it was begun with.
    """
    gained: dict[tuple[_Key, int], tuple[int, Usage]] = {}

    def add(key: _Key, usage: Usage, answers: int) -> None:
        place = (key, prices.step(usage.prompt))
        before = gained.get(place, (0, Usage()))
        gained[place] = (before[0] + answers, before[1] + (usage if answers > 0 else -usage))

    for digest, (key, usage) in tally.answers.items():
        row = db.execute("SELECT * FROM counted_answers WHERE digest = ?", (digest,)).fetchone()
        if row is None and was_there and key.quarter < now - KEPT_MS:
            tally.place.skip("it is older than the ids that are kept")
            continue
        if row is not None:
            key, before = _Key(*(row[name] for name in _KEY)), _usage(row)
            usage = before.at_least(usage)
            if usage == before:
                continue
            add(key, before, -1)
        add(key, usage, 1)
        _remember(db, digest, tally.place.agent, key, usage)
    _spend(db, tally.place.agent, gained)


def _remember(db: sqlite3.Connection, digest: int, agent: Agent, key: _Key, usage: Usage) -> None:
    values = (digest, agent.id, *key, *usage.counts)
    marks = ", ".join("?" * len(values))
    db.execute(
        f"INSERT OR REPLACE INTO counted_answers (digest, agent_id, {', '.join((*_KEY, *_COUNTS))}) VALUES ({marks})",
        values,
    )


def _spend(db: sqlite3.Connection, agent: Agent, gained: Mapping[tuple[_Key, int], tuple[int, Usage]]) -> None:
    columns = ("answers", *_COUNTS)
    grown = ", ".join(f"{name} = {name} + excluded.{name}" for name in columns)
    for table, time, step in (("spending", "quarter", QUARTER_MS), ("spending_days", "day", DAY_MS)):
        named = ("agent_id", time, *_KEY[1:], "above")
        marks = ", ".join("?" * len((*named, *columns)))
        db.executemany(
            f"INSERT INTO {table} ({', '.join((*named, *columns))}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(named)}) DO UPDATE SET {grown}",
            [
                (agent.id, key.quarter - key.quarter % step, *key[1:], above, answers, *usage.counts)
                for (key, above), (answers, usage) in gained.items()
            ],
        )


# -- what was spent --


@dataclass(frozen=True)
class Spent:
    """What an agent has used within a quarter of an hour, of one sort."""

    orchestration_id: str
    session: str
    role: str
    quarter: int
    is_helper: bool
    item: Item


def spent(
    db: sqlite3.Connection, *, orchestration: str | None = None, role: str | None = None, since: int = 0
) -> list[Spent]:
    """What was spent from the quarter of an hour on that `since` (UTC milliseconds) lies in, oldest first."""
    rows = db.execute(
        "SELECT spending.*, agents.orchestration_id, agents.session, agents.role FROM agents"
        " JOIN spending ON spending.agent_id = agents.id AND quarter >= ?"
        " WHERE (? IS NULL OR agents.orchestration_id = ?) AND (? IS NULL OR agents.role = ?) AND answers > 0"
        " ORDER BY quarter, agents.id",
        (since - since % QUARTER_MS, orchestration, orchestration, role, role),
    )
    return [_spent(row) for row in rows]


def sums(db: sqlite3.Connection, *, orchestration: str, role: str | None = None, since: int = 0) -> list[Item]:
    """What an orchestration, or a role of it, has spent since a time, added up by sort: prices hold for whole days.

    From the beginning on it is a few rows for each agent and day, since a budget is looked at after every turn.
    """
    table, time = ("spending", "quarter") if since else ("spending_days", "day")
    counts = ", ".join(f"sum({name}) AS {name}" for name in ("answers", *_COUNTS))
    rows = db.execute(
        f"SELECT model, above, is_fast, is_us, is_supervision, min({time}) AS quarter, {counts} FROM agents"
        f" JOIN {table} ON {table}.agent_id = agents.id AND {time} >= ?"
        " WHERE agents.orchestration_id = ? AND (? IS NULL OR agents.role = ?)"
        f" GROUP BY model, above, is_fast, is_us, is_supervision, {time} / {DAY_MS}",
        (since - since % QUARTER_MS, orchestration, role, role),
    )
    return [_item(row) for row in rows]


def sums_of_folders(db: sqlite3.Connection, folders: Sequence[Path], *, day: int) -> list[Item]:
    """What the agents of configuration folders have spent on a day of UTC that begins at `day`, added up by sort."""
    counts = ", ".join(f"sum({name}) AS {name}" for name in ("answers", *_COUNTS))
    rows = db.execute(
        f"SELECT model, above, is_fast, is_us, is_supervision, day AS quarter, {counts} FROM agents"
        " JOIN spending_days ON spending_days.agent_id = agents.id AND day = ?"
        f" WHERE agents.config_dir IN ({', '.join('?' * len(folders))})"
        " GROUP BY model, above, is_fast, is_us, is_supervision",
        (day, *map(str, folders)),
    )
    return [_item(row) for row in rows]


def activity(db: sqlite3.Connection, config_dir: Path, *, since: int) -> list[int]:
    """The quarters of an hour in which agents of a configuration folder used something, in order."""
    rows = db.execute(
        "SELECT DISTINCT quarter FROM agents JOIN spending ON spending.agent_id = agents.id AND quarter >= ?"
        " WHERE config_dir = ? ORDER BY quarter",
        (since, str(config_dir)),
    )
    return [int(row[0]) for row in rows]


def at_work(db: sqlite3.Connection, *, since: int) -> tuple[list[Item], int]:
    """What agents have used since a time, and in how many quarters of an hour they were at work, each by itself."""
    found = spent(db, since=since)
    quarters = {(one.orchestration_id, one.role, one.quarter) for one in found}
    return [one.item for one in found], len(quarters)


def _item(row: sqlite3.Row) -> Item:
    sort = Sort(row["model"], row["quarter"], row["above"], bool(row["is_fast"]), bool(row["is_us"]))
    return Item(sort, _usage(row), row["answers"], bool(row["is_supervision"]))


def _spent(row: sqlite3.Row) -> Spent:
    item = _item(row)
    return Spent(row["orchestration_id"], row["session"], row["role"], row["quarter"], bool(row["is_helper"]), item)


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(*(row[name] for name in _COUNTS))
