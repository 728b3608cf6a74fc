"""The ledger of spending: what agents' answers have used, counted from their transcripts as these grow.

How far each file was counted is kept in the same transaction as what was counted. Each answer counts once, by its id,
however many lines, files and readings it stands in; ids are kept for 30 days, which is as long as Claude Code keeps
transcripts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import BinaryIO, NamedTuple

from lib import agents, claude, host, messages, prices, supervising
from lib.claude import Prompted, Used
from lib.errors import NotFound
from lib.framing import unframe, unwrap
from lib.models import LIVE, Agent, MessageKind, Sort, Usage
from lib.prices import Item
from lib.store import last_event, record, writing

#: In what steps of time spending is kept: the days of every time zone begin at one of them.
QUARTER_MS = 15 * 60_000
#: How long the ids of answers are kept. What is older in a file that is read from its beginning was counted before.
KEPT_MS = 30 * 24 * 60 * 60_000
#: Claude Code writes the last entry of a turn 0.1 s after its hook.
SETTLED_MS = 500
#: How often every transcript is looked at, whatever hooks have said.
LOOK_EVERY_MS = 60_000
#: How long after its end a team's transcripts are still looked at.
FOLLOWED_MS = 24 * 60 * 60_000
#: How much of one file is read and counted at once; a beat counts so much in 40 ms.
BLOCK_BYTES = 2 * 1024 * 1024
#: A line that is longer is no answer.
LONGEST_LINE_BYTES = 64 * 1024 * 1024
#: So much right before the place up to which a file was counted must be the same, or it is another file. A line ends
#: with what all lines have; its own id and time stand within 400 bytes before that.
_ENDING_BYTES = 1024
#: Of so many turns it is known whether they were supervision, for helpers that go on working.
_TURNS = 64
#: Stands for a line that was too long to be read: it looks like an answer that cannot be.
_TOO_LONG = b'"usage" "assistant" too long'
_ENDS_A_TURN = ("Stop", "StopFailure", "SessionEnd")


@dataclass
class Watch:
    """What a daemon knows of transcripts: whom to look at, and when. Its successor looks at all of them."""

    looked_at: int | None = None
    #: The newest end of a turn that was heard of.
    heard_until: int = 0
    #: When an agent's transcripts are to be counted, by the agent's id.
    due: dict[int, int] = field(default_factory=dict)


def keep_up(db: sqlite3.Connection, watch: Watch, *, now: int, most_bytes: int = BLOCK_BYTES) -> list[int]:
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
    for agent_id in _count_some(db, due, now, most_bytes):
        del watch.due[agent_id]
    return list(watch.due.values())


def catch_up(db: sqlite3.Connection, *, now: int, most_bytes: int) -> bool:
    """Count what nobody has counted yet, for a view. Returns whether that was all."""
    left = _followed(db, now)
    while left and most_bytes > 0:
        done = set(_count_some(db, left, now, BLOCK_BYTES))
        left = [agent_id for agent_id in left if agent_id not in done]
        most_bytes -= BLOCK_BYTES
    return not left


def count(db: sqlite3.Connection, agent: Agent, *, now: int) -> None:
    """Count all that an agent's transcripts have gained."""
    while not _count_some(db, [agent.id], now, BLOCK_BYTES):
        pass


def _count_some(db: sqlite3.Connection, agent_ids: Sequence[int], now: int, most_bytes: int) -> list[int]:
    """Count what agents' transcripts have gained, and not more than so many bytes. Returns whose was counted whole.

    Files are read before the transaction, and all are counted in one: each would wait for the disk.
    """
    blocks: list[_Block] = []
    done: list[int] = []
    for agent_id in agent_ids:
        gained, is_all = _gained(db, agents.get(db, agent_id), now, most_bytes)
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


# -- what a file has gained --


@dataclass(frozen=True)
class _File:
    """A transcript, what is recorded of it, and the one of the conversation when it is a helper's."""

    agent: Agent
    path: str
    row: sqlite3.Row | None
    helped: str | None = None


@dataclass(frozen=True)
class _Block:
    """Whole lines of a transcript from `start` on. They end at `offset`, and it was read up to `size`."""

    file: _File
    found: os.stat_result
    start: int
    lines: list[bytes]
    offset: int
    size: int
    ending: int


def _gained(db: sqlite3.Connection, agent: Agent, now: int, most_bytes: int) -> tuple[list[_Block], bool]:
    """The next block of each transcript of an agent that has grown, and whether that is all.

    A conversation comes before its helpers: it says which turn they work for.
    """
    blocks: list[_Block] = []
    for file in _transcripts(db, agent):
        if most_bytes <= 0:
            return blocks, False
        block = _next_block(db, file, now, most_bytes)
        if block is None:
            continue
        blocks.append(block)
        most_bytes -= block.size - block.start
        if block.size < block.found.st_size:
            return blocks, False
    return blocks, True


def _transcripts(db: sqlite3.Connection, agent: Agent) -> Iterator[_File]:
    """The transcripts of an agent: its conversations first, also those that it has left, then their helpers'."""
    rows = db.execute("SELECT * FROM transcript_offsets WHERE agent_id = ? ORDER BY is_helper", (agent.id,)).fetchall()
    known: dict[str, sqlite3.Row] = {row["path"]: row for row in rows}
    mains: list[str] = [row["path"] for row in rows if not row["is_helper"]]
    if not any(path.endswith(f"/{agent.conversation_id}.jsonl") for path in mains):
        found = claude.transcript(agent.config_dir, agent.conversation_id)
        mains += [str(found)] if found else []
    for path in mains:
        yield _File(agent, path, known.pop(path, None))
    for main in mains:
        for path in claude.helpers(main):
            yield _File(agent, path, known.pop(path, None), main)
    for path, row in known.items():  # helpers whose files are there no more
        yield _File(agent, path, row, path)


def _next_block(db: sqlite3.Connection, file: _File, now: int, most_bytes: int) -> _Block | None:
    """The next lines of a transcript; None when it is as it was, or cannot be read."""
    try:
        found = os.stat(file.path)  # noqa: PTH116 - of two thousand files a minute; a Path costs more than the look
        if file.row and _is_as_it_was(file.row, found):
            return None
        with open(file.path, "rb") as content:  # noqa: PTH123 - the same
            return _read(content, file, found, min(most_bytes, BLOCK_BYTES))
    except FileNotFoundError:
        _note_gone(db, file, now)
    except OSError as error:
        _note_unreadable(db, file, error, now)
    return None


def _is_as_it_was(row: sqlite3.Row, found: os.stat_result) -> bool:
    # The number of a file that was removed goes to the next one, which may be as long.
    now = (found.st_ino, found.st_mtime_ns, found.st_size)
    return now == (row["inode"], row["modified"], row["size"])


def _read(content: BinaryIO, file: _File, found: os.stat_result, most_bytes: int) -> _Block:
    """The next whole lines. One whose end is not there yet waits for it; one that is too long is left out."""
    start = _start(content, file.row, found)
    content.seek(start)
    text = content.read(most_bytes)
    end = text.rfind(b"\n") + 1
    while not end and len(text) <= LONGEST_LINE_BYTES and (more := content.read(BLOCK_BYTES)):
        text += more
        end = text.rfind(b"\n") + 1
    size = start + len(text)
    lines = text[:end].split(b"\n")[:-1]
    if len(text) > LONGEST_LINE_BYTES and not end:
        lines, end = [b"", _TOO_LONG], len(text)
    return _Block(file, found, start, lines, start + end, size, _ending(content, start + end))


def _start(content: BinaryIO, row: sqlite3.Row | None, found: os.stat_result) -> int:
    """Where to go on in a file; at its beginning when it is not the one that was counted."""
    if row is None or found.st_ino != row["inode"] or found.st_size < row["offset"]:
        return 0
    return int(row["offset"]) if _ending(content, row["offset"]) == row["ending"] else 0


def _ending(content: BinaryIO, offset: int) -> int:
    content.seek(max(0, offset - _ENDING_BYTES))
    return zlib.crc32(content.read(min(offset, _ENDING_BYTES)))


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
class _Reading:
    """What a block of a transcript begins with, and leaves to the next one."""

    agent: Agent
    is_helper: bool
    #: How long the file was when it was begun with.
    found_bytes: int
    is_supervision: bool = False
    is_answered: bool = True
    #: The last prompts by their ids, and whether each began supervision; of the conversation that a helper works for.
    turns: dict[str, bool] = field(default_factory=dict)
    helped_turns: dict[str, bool] = field(default_factory=dict)
    skipped_before: int = 0
    skipped: int = 0
    why: str = ""
    #: The answers of the block, by their digest: what each is counted under, and the largest counts of its lines.
    answers: dict[int, tuple[_Key, Usage]] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        self.skipped += 1
        self.why = self.why or why


def _row(db: sqlite3.Connection, path: str) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute("SELECT * FROM transcript_offsets WHERE path = ?", (path,)).fetchone()
    return found


def _count_block(db: sqlite3.Connection, block: _Block, now: int) -> None:
    """Count a block and record how far that is, in the transaction of the caller."""
    file, row = block.file, _row(db, block.file.path)
    if (row and tuple(row)) != (file.row and tuple(file.row)):
        return  # another process has counted it meanwhile
    if row and block.start < row["offset"]:
        _tell(db, "transcript.replaced", file.agent, now, path=file.path, size=block.found.st_size)
        row = None
    reading = _begin(db, file, row, block.found.st_size)
    for line in block.lines:
        _take_line(db, reading, line, now)
    _add_up(db, reading, was_there=block.start < reading.found_bytes, now=now)
    _keep(db, reading, block, now)


def _begin(db: sqlite3.Connection, file: _File, row: sqlite3.Row | None, size: int) -> _Reading:
    helped = _row(db, file.helped) if file.helped else None
    turns = json.loads(helped["turns"]) if helped else {}
    reading = _Reading(file.agent, file.helped is not None, size, helped_turns=turns)
    if row:
        reading.found_bytes, reading.skipped_before = row["found_bytes"], row["skipped"]
        reading.is_supervision, reading.is_answered = bool(row["is_supervision"]), bool(row["is_answered"])
        reading.turns = json.loads(row["turns"])
    return reading


def _keep(db: sqlite3.Connection, reading: _Reading, block: _Block, now: int) -> None:
    """Record how far a file was counted, and once for each file that something in it could not be."""
    path, found = block.file.path, block.found
    if reading.skipped and not reading.skipped_before:
        _tell(db, "transcript.skipped", reading.agent, now, path=path, lines=reading.skipped, why=reading.why)
    db.execute(
        "INSERT OR REPLACE INTO transcript_offsets (path, agent_id, is_helper, inode, modified, size, offset, ending,"
        " found_bytes, is_supervision, is_answered, turns, skipped) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(path, reading.agent.id, reading.is_helper, found.st_ino, found.st_mtime_ns),
            *(block.size, block.offset, block.ending, reading.found_bytes),
            *(reading.is_supervision, reading.is_answered),
            *(json.dumps(dict(list(reading.turns.items())[-_TURNS:])), reading.skipped_before + reading.skipped),
        ),
    )


def _note_gone(db: sqlite3.Connection, file: _File, now: int) -> None:
    """A file that was deleted keeps what was counted of it; should it come back, it is read anew."""
    if file.row is None:
        return
    with writing(db):
        if db.execute("DELETE FROM transcript_offsets WHERE path = ?", (file.path,)).rowcount:
            _tell(db, "transcript.gone", file.agent, now, path=file.path, counted_bytes=file.row["offset"])


def _note_unreadable(db: sqlite3.Connection, file: _File, error: OSError, now: int) -> None:
    """Told once for each agent and reason."""
    agent = file.agent
    assert agent.orchestration_id
    last = last_event(db, "transcript.unreadable", orchestration=agent.orchestration_id, agent=agent.id)
    if last is None or last.data["reason"] != str(error):
        with writing(db):
            _tell(db, "transcript.unreadable", agent, now, path=file.path, reason=str(error))


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)


def _take_line(db: sqlite3.Connection, reading: _Reading, line: bytes, now: int) -> None:
    try:
        found = claude.spending_in(line)
    except ValueError as error:
        reading.skip(str(error))
        return
    if isinstance(found, Prompted):
        _follow_turn(db, reading, found)
    elif found:
        _take_answer(reading, found, now)


def _follow_turn(db: sqlite3.Connection, reading: _Reading, prompt: Prompted) -> None:
    """Note which turn begins with a prompt: several that come before its answer are one, and work when one is."""
    if prompt.is_helper != reading.is_helper:  # older versions write helpers into the conversation's own transcript
        return
    if reading.is_helper:
        reading.is_supervision = reading.helped_turns.get(prompt.id, reading.is_supervision)
        return
    if not prompt.goes_on:
        is_supervision = all(_is_supervision(db, reading.agent, text) for text in prompt.texts)
        reading.is_supervision = is_supervision and (reading.is_answered or reading.is_supervision)
        reading.is_answered = False
    if prompt.id:
        reading.turns.pop(prompt.id, None)
        reading.turns[prompt.id] = reading.is_supervision


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


def _take_answer(reading: _Reading, used: Used, now: int) -> None:
    if used.is_helper == reading.is_helper:
        reading.is_answered = True
    at = used.at if 0 < used.at <= now + host.CLOCK_SLACK_MS else now
    is_helper = reading.is_helper or used.is_helper
    key = _Key(at - at % QUARTER_MS, used.model, used.is_fast, used.is_us, reading.is_supervision, is_helper)
    digest = _digest(reading.agent, used.id)
    before = reading.answers.get(digest)
    reading.answers[digest] = (before[0], before[1].at_least(used.usage)) if before else (key, used.usage)


def _digest(agent: Agent, answer: str) -> int:
    # Of the agent and the id: 64 bits are enough for billions of answers, and are a row's number.
    name = f"{agent.id} {answer}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), signed=True)


def _add_up(db: sqlite3.Connection, reading: _Reading, *, was_there: bool, now: int) -> None:
    """Count the answers of a block: those that are new, and what others have used more than was known.

    `was_there` is whether the file held the block already when it was begun with.
    """
    gained: dict[tuple[_Key, int], tuple[int, Usage]] = {}

    def add(key: _Key, usage: Usage, answers: int) -> None:
        place = (key, prices.step(usage.prompt))
        before = gained.get(place, (0, Usage()))
        gained[place] = (before[0] + answers, before[1] + (usage if answers > 0 else -usage))

    for digest, (key, usage) in reading.answers.items():
        row = db.execute("SELECT * FROM counted_answers WHERE digest = ?", (digest,)).fetchone()
        if row is None and was_there and key.quarter < now - KEPT_MS:
            reading.skip("it is older than the ids that are kept")
            continue
        if row is not None:
            key, before = _Key(*(row[name] for name in _KEY)), _usage(row)
            usage = before.at_least(usage)
            if usage == before:
                continue
            add(key, before, -1)
        add(key, usage, 1)
        _remember(db, digest, reading.agent, key, usage)
    _spend(db, reading.agent, gained)


def _remember(db: sqlite3.Connection, digest: int, agent: Agent, key: _Key, usage: Usage) -> None:
    values = (digest, agent.id, *key, *usage.counts)
    marks = ", ".join("?" * len(values))
    db.execute(
        f"INSERT OR REPLACE INTO counted_answers (digest, agent_id, {', '.join((*_KEY, *_COUNTS))}) VALUES ({marks})",
        values,
    )


def _spend(db: sqlite3.Connection, agent: Agent, gained: Mapping[tuple[_Key, int], tuple[int, Usage]]) -> None:
    named = ("agent_id", *_KEY, "above")
    columns = ("answers", *_COUNTS)
    marks = ", ".join("?" * len((*named, *columns)))
    grown = ", ".join(f"{name} = {name} + excluded.{name}" for name in columns)
    db.executemany(
        f"INSERT INTO spending ({', '.join((*named, *columns))}) VALUES ({marks})"
        f" ON CONFLICT ({', '.join(named)}) DO UPDATE SET {grown}",
        [(agent.id, *key, above, answers, *usage.counts) for (key, above), (answers, usage) in gained.items()],
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


def skipped_lines(db: sqlite3.Connection, *, orchestration: str | None = None) -> int:
    """How many lines of transcripts looked like answers and could not be counted."""
    row = db.execute(
        "SELECT coalesce(sum(skipped), 0) FROM transcript_offsets JOIN agents ON agents.id = agent_id"
        " WHERE ? IS NULL OR orchestration_id = ?",
        (orchestration, orchestration),
    ).fetchone()
    return int(row[0])


def _spent(row: sqlite3.Row) -> Spent:
    sort = Sort(row["model"], row["quarter"], row["above"], bool(row["is_fast"]), bool(row["is_us"]))
    item = Item(sort, _usage(row), row["answers"], bool(row["is_supervision"]))
    return Spent(row["orchestration_id"], row["session"], row["role"], row["quarter"], bool(row["is_helper"]), item)


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(*(row[name] for name in _COUNTS))
