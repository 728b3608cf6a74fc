"""Messages between the agents of a trial, at a rate that does not wait for them to arrive."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from lib import agents, delivery, host, messages, store
from lib.errors import OrchestratorError
from lib.front.sandbox import Sandbox
from lib.models import PENDING, Agent, Message, MessageKind

#: So many deliver at once; a message whose turn does not come is brought by the scheduler.
_SENDERS = 16
#: As `claude_control.py send` waits.
_WAIT_SECONDS = 5.0
#: A team that has not begun yet takes no messages.
_NOBODY_SECONDS = 0.1
#: The lengths of messages that agents write to each other, from a word to a page (characters).
_LENGTHS = (40, 200, 650, 3000)


class Traffic:
    """A pacer that records each message at its time, and senders that bring it as the door does.

    A message is in the ledger before anybody is free to bring it: how long it then takes is in the figures, and not
    hidden by senders that wait for each other. What is spared is the start of a process for each.
    """

    def __init__(self, sandbox: Sandbox, *, rate: float) -> None:
        self._sandbox, self._rate = sandbox, rate
        self._ways: Sequence[tuple[Agent, Agent]] = ()
        self._teams = 0
        self._changed, self._stopped = threading.Event(), threading.Event()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        #: What kept senders from delivering; the scheduler has then brought the message.
        self.failures: list[str] = []

    def reach(self, teams: Sequence[Sequence[Agent]]) -> None:
        """From now on each agent of these teams gets messages from the one before it, each as often."""
        pairs = [list(zip([team[-1], *team[:-1]], team, strict=True)) for team in teams]
        # One of each team after the other, so that a team has one message on its way.
        self._ways = [way for ways in itertools.zip_longest(*pairs) for way in ways if way]
        self._teams = len(teams)
        self._changed.set()

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Send while the block runs; after it nothing is under way."""
        pool = ThreadPoolExecutor(_SENDERS, thread_name_prefix="sender")
        pacer = threading.Thread(target=self._pace, args=(pool,), name="pacer")
        pacer.start()
        try:
            yield
        finally:
            self._stopped.set()
            pacer.join()
            pool.shutdown(cancel_futures=True)
            for db in self._connections:
                db.close()

    def _pace(self, pool: ThreadPoolExecutor) -> None:
        db, due = self._connect(), time.monotonic()
        for number in itertools.count():
            while not self._ways:
                due = time.monotonic() + _NOBODY_SECONDS
                if self._stopped.wait(_NOBODY_SECONDS):
                    return
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            sender, agent = self._ways[number % len(self._ways)]
            due += 1 / (self._rate * self._teams)
            message = messages.queue(
                *(db, agent, body(number)), sender=sender.role, kind=MessageKind.MESSAGE, now=host.now_ms()
            )
            pool.submit(self._bring, agent.id, message)

    def _bring(self, agent_id: int, message: Message) -> None:
        try:
            desk = delivery.Desk(self._connect(), self._sandbox.tmux, self._sandbox.home)
            found = delivery.attempt(desk, agents.get(desk.db, agent_id), message, wait_seconds=_WAIT_SECONDS)
            if found.status in PENDING:
                host.wake(self._sandbox.home)
        except (OrchestratorError, OSError, sqlite3.Error) as error:
            self.failures.append(str(error))

    def _connect(self) -> sqlite3.Connection:
        """A connection of this thread's own."""
        if not hasattr(self._local, "db"):
            self._local.db = store.connect(self._sandbox.home)
            self._connections.append(self._local.db)
        db: sqlite3.Connection = self._local.db
        return db


def body(number: int) -> str:
    """The text of a message: one line or many, of a length that changes."""
    words = f"Message {number} of the load: please look at the login page. "
    length = _LENGTHS[number % len(_LENGTHS)]
    text = (words * (length // len(words) + 1))[:length].rstrip()
    return "\n".join(text[at : at + 72] for at in range(0, len(text), 72)) if number % 3 == 2 else text
