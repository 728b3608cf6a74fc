"""Letters: messages between agents of two hosts, as the ledgers of both have them; loads no NATS.

Each host has a row of its own ledger. The sender's says what the other host has told of it; the receiver's is a message
like any other. A letter is named by its sender, so what comes twice is known; `post.py` carries it.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import agents, host, messages
from lib.errors import NotFound, Usage
from lib.fleet import members
from lib.fleet.envelopes import Unreadable
from lib.judgement import cleaning
from lib.models import PENDING, Agent, Message, MessageKind, MessageStatus, Priority
from lib.records import dataclass
from lib.store import writing

#: The pipe at which the link waits for what is to be sent.
WAKE = "wake-link"
#: As JSON it is three times as much at most, and a server takes 1 MB.
MOST_BYTES = 256 * 1024
#: What a letter may be: all else is between a team and its own host.
KINDS = (MessageKind.MESSAGE, MessageKind.COMMAND, MessageKind.NOTICE)

_MOST_CHARACTERS, _MOST_OF_REASON = 200, 500
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Letter:
    """A message on its way to another host: `to` and `sender` are named as on their own hosts."""

    key: str
    to: str
    sender: str
    kind: MessageKind
    priority: Priority
    body: str

    def as_data(self) -> dict[str, object]:
        """What is sent."""
        return {
            **{"key": self.key, "to": self.to, "from": self.sender, "kind": self.kind},
            **{"priority": int(self.priority), "body": self.body},
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Letter:
        """What has come, whoever has written it. Raises `Unreadable` for what is no letter."""
        key, to, sender = (_name(fields, name) for name in ("key", "to", "from"))
        body, kind, priority = fields.get("body"), fields.get("kind"), fields.get("priority")
        if not isinstance(body, str) or len(body.encode("utf-8", "replace")) > MOST_BYTES:
            raise Unreadable(f"the text of a letter has at most {MOST_BYTES // 1024} KB")
        if kind not in KINDS or type(priority) is not int or priority not in list(Priority):
            raise Unreadable("it is no letter that this version knows")
        return cls(key, to, sender, MessageKind(kind), Priority(priority), body)


def _name(fields: Mapping[str, Any], name: str) -> str:
    """A name as the frame of a message can hold it."""
    found = fields.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= _MOST_CHARACTERS:
        raise Unreadable(f"{name!r} of a letter cannot be read")
    if not found.isprintable() or re.search(r"[\[\]/]", found):
        raise Unreadable(f"{name!r} of a letter has characters that no name has")
    return found


# -- the host that sends --


def sender_of(caller: Agent | None, name: str) -> str:
    """The sender as the other host names it: an agent with its session, for answers to it."""
    return caller.target if caller else name


def check(agent: Agent, body: str, *, interrupt: bool) -> None:
    """Raise `Usage` for what cannot be sent to an agent of another host."""
    if interrupt:
        raise Usage("--interrupt reaches the agents of this host only", hint="--priority emergency")
    if len(body.encode()) > MOST_BYTES:
        raise Usage(
            f"a message to another host has at most {MOST_BYTES // 1024} KB", hint=f"tell {agent.target} where to look"
        )


def follow(db: sqlite3.Connection, home: Path, message: Message, *, wait_seconds: float) -> Message:
    """Have a message go, and wait for its outcome while the fleet can be reached. Returns it as the ledger has it."""
    host.wake(home, WAKE)
    state, deadline = members.link_state(db, home), time.monotonic() + wait_seconds
    is_connected = state is not None and state.is_connected(host.now_ms())
    while (found := messages.get(db, message.id)).status in PENDING:
        if not is_connected or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    return found


def key_of(message: Message) -> str:
    """The name of a letter: of this message, and of this attempt at it, in this store."""
    return f"{message.id}-{message.queued_at}-{message.attempts}"


def letter_of(agent: Agent, message: Message) -> Letter:
    """A message as it goes to the host of its agent."""
    to = f"{agent.session}:{agent.role}"
    return Letter(key_of(message), to, message.sender, message.kind, message.priority, message.body)


def taken(db: sqlite3.Connection, agent: Agent, message: Message, *, now: int) -> None:
    """Record that the other host has a message."""
    messages.handed_over(db, message, agent, f"{agent.host} has it", now=now)


def refused(db: sqlite3.Connection, agent: Agent, message: Message, sentence: object, *, now: int) -> None:
    """Record that the other host does not take a message, by its own words."""
    messages.fail(db, message, agent, _said_by(agent.host or "", sentence), now=now)


def hear_outcome(db: sqlite3.Connection, teller: str, fields: Mapping[str, Any], *, now: int) -> None:
    """Record what a host tells of a message that it was sent; of one that it was not sent nothing.

    Its clock does not matter: it says how long ago the agent has got it.
    """
    message = _sent_to(db, teller, fields.get("key"))
    status, reason, age = fields.get("status"), fields.get("reason"), fields.get("ago_ms")
    if message is None:
        return
    agent = agents.get(db, message.agent_id)
    if status == MessageStatus.ACKNOWLEDGED:
        at = now - age if type(age) is int and age > 0 else now
        messages.arrived(db, message, agent, at=min(now, max(at, message.queued_at)), now=now)
    elif status == MessageStatus.FAILED:
        messages.fail(db, message, agent, _said_by(teller, reason), now=now)
    elif status == MessageStatus.CANCELLED:
        messages.cancel(db, message, agent, _said_by(teller, reason), now=now)
    else:
        messages.handed_over(db, message, agent, f"{teller} has it", now=now)
        messages.hold(db, message, f"{teller} has it: {_plain(reason)}" if reason else f"{teller} has it")


def _sent_to(db: sqlite3.Connection, host_name: str, key: object) -> Message | None:
    parts = key.split("-") if isinstance(key, str) else []
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 19 for part in parts):
        return None
    try:
        message = messages.get(db, int(parts[0]))
    except NotFound:
        return None
    is_its_own = agents.get(db, message.agent_id).host == host_name
    return message if is_its_own and key_of(message) == key else None


def _said_by(host_name: str, sentence: object) -> str:
    return f"{host_name}: {_plain(sentence) or 'it gives no reason'}"


def _plain(text: object) -> str:
    return cleaning.clean(cleaning.one_line(text))[:_MOST_OF_REASON] if isinstance(text, str) else ""


# -- the host that receives --


def is_here(db: sqlite3.Connection, sender: str, key: str) -> bool:
    """Whether a letter of a host has come before."""
    return db.execute("SELECT 1 FROM fleet_letters WHERE host = ? AND key = ?", (sender, key)).fetchone() is not None


def keep(db: sqlite3.Connection, agent: Agent, sender: str, letter: Letter, *, now: int) -> None:
    """Make a message to an agent of this host of a letter from another; once, however often it comes."""
    with writing(db):
        if is_here(db, sender, letter.key):
            return
        name = f"{sender}/{letter.sender}"
        made = messages.queue(db, agent, letter.body, sender=name, kind=letter.kind, now=now, priority=letter.priority)
        db.execute("INSERT INTO fleet_letters (host, key, message_id) VALUES (?, ?, ?)", (sender, letter.key, made.id))


@dataclass(frozen=True)
class Outcome:
    """What the host of a letter's sender is to hear of it."""

    host: str
    key: str
    message_id: int
    status: MessageStatus
    reason: str | None
    acknowledged_at: int | None

    @property
    def said(self) -> str:
        return f"{self.status} {self.reason or ''}"

    def as_data(self, now: int) -> dict[str, object]:
        """What is sent."""
        age = now - self.acknowledged_at if self.acknowledged_at is not None else None
        return {"key": self.key, "status": self.status, "reason": self.reason, "ago_ms": age}


def untold(db: sqlite3.Connection) -> list[Outcome]:
    """What has become of letters since their hosts were told, oldest first."""
    rows = db.execute(
        "SELECT fleet_letters.host, key, message_id, status, reason, acknowledged_at"
        " FROM fleet_letters JOIN messages ON messages.id = message_id"
        " WHERE is_settled = 0 AND status || ' ' || coalesce(reason, '') != coalesce(told, 'queued ')"
        " ORDER BY message_id"
    )
    return [Outcome(**{**dict(row), "status": MessageStatus(row["status"])}) for row in rows]


def told(db: sqlite3.Connection, outcome: Outcome) -> None:
    """Record what a host has heard of its letter."""
    with writing(db):
        db.execute(
            "UPDATE fleet_letters SET told = ?, is_settled = ? WHERE host = ? AND key = ?",
            (outcome.said, outcome.status not in PENDING, outcome.host, outcome.key),
        )


# -- hosts that are of the fleet no more --


def correspondents(db: sqlite3.Connection) -> set[str]:
    """The hosts with which something is not settled."""
    rows = db.execute("SELECT DISTINCT host FROM fleet_letters WHERE is_settled = 0")
    return {row[0] for row in rows} | set(messages.hosts_written_to(db))


def give_up(db: sqlite3.Connection, host_name: str, reason: str, *, now: int) -> None:
    """Settle everything with a host that nobody will hear of again."""
    with writing(db):
        for message in messages.pending_at(db, host_name):
            messages.fail(db, message, agents.get(db, message.agent_id), reason, now=now)
        db.execute("UPDATE fleet_letters SET is_settled = 1 WHERE host = ?", (host_name,))
