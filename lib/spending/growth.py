"""Growth: what agents' transcripts have gained since they were last counted, in blocks of whole lines, and up to where.

A file is known by its number, its length and what stands right before the place where its counting ended: one that was
replaced or cut is read anew. How far it was counted is recorded by whoever counts, in that transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import field
from typing import BinaryIO

from lib.claude import transcripts
from lib.models import Agent
from lib.records import dataclass
from lib.store import last_event, record, writing

#: How much of one file is read and counted at once; a beat counts so much in 20 to 40 ms.
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


@dataclass(frozen=True)
class File:
    """A transcript, what is recorded of it, and the one of the conversation when it is a helper's."""

    agent: Agent
    path: str
    row: sqlite3.Row | None
    helped: str | None = None


@dataclass(frozen=True)
class Block:
    """Whole lines of a transcript from `start` on. They end at `offset`, and it was read up to `size`."""

    file: File
    found: os.stat_result
    start: int
    lines: list[bytes]
    offset: int
    size: int
    ending: int


def gained(db: sqlite3.Connection, agent: Agent, now: int, most_bytes: int) -> tuple[list[Block], bool]:
    """The next block of each transcript of an agent that has grown, and whether that is all.

    A conversation comes before its helpers: it says which turn they work for.
    """
    blocks: list[Block] = []
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


def _transcripts(db: sqlite3.Connection, agent: Agent) -> Iterator[File]:
    """The transcripts of an agent: its conversations first, also those that it has left, then their helpers'."""
    rows = db.execute("SELECT * FROM transcript_offsets WHERE agent_id = ? ORDER BY is_helper", (agent.id,)).fetchall()
    known: dict[str, sqlite3.Row] = {row["path"]: row for row in rows}
    mains: list[str] = [row["path"] for row in rows if not row["is_helper"]]
    if not any(path.endswith(f"/{agent.conversation_id}.jsonl") for path in mains):
        found = transcripts.find(agent.config_dir, agent.conversation_id)
        mains += [str(found)] if found else []
    for path in mains:
        yield File(agent, path, known.pop(path, None))
    for main in mains:
        for path in transcripts.helpers(main):
            yield File(agent, path, known.pop(path, None), main)
    for path, row in known.items():  # helpers whose files are there no more
        yield File(agent, path, row, path)


def _next_block(db: sqlite3.Connection, file: File, now: int, most_bytes: int) -> Block | None:
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


def _read(content: BinaryIO, file: File, found: os.stat_result, most_bytes: int) -> Block:
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
    return Block(file, found, start, lines, start + end, size, _ending(content, start + end))


def _start(content: BinaryIO, row: sqlite3.Row | None, found: os.stat_result) -> int:
    """Where to go on in a file; at its beginning when it is not the one that was counted."""
    if row is None or found.st_ino != row["inode"] or found.st_size < row["offset"]:
        return 0
    return int(row["offset"]) if _ending(content, row["offset"]) == row["ending"] else 0


def _ending(content: BinaryIO, offset: int) -> int:
    content.seek(max(0, offset - _ENDING_BYTES))
    return zlib.crc32(content.read(min(offset, _ENDING_BYTES)))


@dataclass
class Place:
    """Where the counting of a transcript stands: what one block leaves to the next, and what it could not count."""

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
    summaries: int = 0
    why: str = ""

    def skip(self, why: str) -> None:
        self.skipped += 1
        self.why = self.why or why


def _row(db: sqlite3.Connection, path: str) -> sqlite3.Row | None:
    found: sqlite3.Row | None = db.execute("SELECT * FROM transcript_offsets WHERE path = ?", (path,)).fetchone()
    return found


def begin(db: sqlite3.Connection, block: Block, now: int) -> Place | None:
    """Where a block begins; None when another process has counted it meanwhile. In the transaction that counts it."""
    file, row = block.file, _row(db, block.file.path)
    if (row and tuple(row)) != (file.row and tuple(file.row)):
        return None
    if row and block.start < row["offset"]:
        _tell(db, "transcript.replaced", file.agent, now, path=file.path, size=block.found.st_size)
        row = None
    helped = _row(db, file.helped) if file.helped else None
    turns = json.loads(helped["turns"]) if helped else {}
    place = Place(file.agent, file.helped is not None, block.found.st_size, helped_turns=turns)
    if row:
        place.found_bytes, place.skipped_before, place.summaries = row["found_bytes"], row["skipped"], row["summaries"]
        place.is_supervision, place.is_answered = bool(row["is_supervision"]), bool(row["is_answered"])
        place.turns = json.loads(row["turns"])
    return place


def keep(db: sqlite3.Connection, place: Place, block: Block, now: int) -> None:
    """Record how far a file was counted, and once for each file that something in it could not be."""
    path, found = block.file.path, block.found
    if place.skipped and not place.skipped_before:
        _tell(db, "transcript.skipped", place.agent, now, path=path, lines=place.skipped, why=place.why)
    db.execute(
        "INSERT OR REPLACE INTO transcript_offsets (path, agent_id, is_helper, inode, modified, size, offset, ending,"
        " found_bytes, is_supervision, is_answered, turns, skipped, summaries)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(path, place.agent.id, place.is_helper, found.st_ino, found.st_mtime_ns),
            *(block.size, block.offset, block.ending, place.found_bytes),
            *(place.is_supervision, place.is_answered),
            *(json.dumps(dict(list(place.turns.items())[-_TURNS:])), place.skipped_before + place.skipped),
            place.summaries,
        ),
    )


def _note_gone(db: sqlite3.Connection, file: File, now: int) -> None:
    """A file that was deleted keeps what was counted of it; should it come back, it is read anew."""
    if file.row is None:
        return
    with writing(db):
        if db.execute("DELETE FROM transcript_offsets WHERE path = ?", (file.path,)).rowcount:
            _tell(db, "transcript.gone", file.agent, now, path=file.path, counted_bytes=file.row["offset"])


def _note_unreadable(db: sqlite3.Connection, file: File, error: OSError, now: int) -> None:
    """Told once for each agent and reason."""
    agent = file.agent
    assert agent.orchestration_id
    last = last_event(db, "transcript.unreadable", orchestration=agent.orchestration_id, agent=agent.id)
    if last is None or last.data["reason"] != str(error):
        with writing(db):
            _tell(db, "transcript.unreadable", agent, now, path=file.path, reason=str(error))


def _tell(db: sqlite3.Connection, kind: str, agent: Agent, now: int, **data: object) -> None:
    record(db, kind, now=now, orchestration=agent.orchestration_id, agent=agent.id, message=None, **data)


# -- what they tell --


def helpers_wrote_at(db: sqlite3.Connection, agent_id: int) -> int | None:
    """When a helper of an agent has last written to its transcript (UTC milliseconds), as far as that was counted."""
    row = db.execute(
        "SELECT max(modified) FROM transcript_offsets WHERE agent_id = ? AND is_helper = 1", (agent_id,)
    ).fetchone()
    return None if row[0] is None else int(row[0]) // 1_000_000


def uncounted(db: sqlite3.Connection, *, orchestration: str | None = None) -> tuple[int, int]:
    """How many lines of transcripts looked like answers and could not be counted; how often one was summarised."""
    row = db.execute(
        "SELECT coalesce(sum(skipped), 0), coalesce(sum(summaries), 0) FROM transcript_offsets"
        " JOIN agents ON agents.id = agent_id WHERE ? IS NULL OR orchestration_id = ?",
        (orchestration, orchestration),
    ).fetchone()
    return int(row[0]), int(row[1])
