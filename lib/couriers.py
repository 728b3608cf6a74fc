"""Couriers bring what waits for agents, a few at once, beside the daemon's beats."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from lib import agents, delivery, store
from lib.tmux import Tmux

#: How long one delivery may wait for its acknowledgement; others are delivered meanwhile.
ACKNOWLEDGED_WITHIN_SECONDS = 5.0
_AT_ONCE = 4


class Couriers:
    """Brings messages, and knows to whom one is under way.

    Whoever sends couriers out waits until all are back, or for `patience_seconds`. What takes longer then goes on by
    itself: with a hundred agents to bring something to, check-ins would otherwise come minutes late.
    """

    def __init__(self, patience_seconds: float | None = None) -> None:
        self._patience_seconds = patience_seconds
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="courier")
        self._under_way: dict[int, Future[None]] = {}

    def send(self, tmux: Tmux, home: Path, agent_ids: Iterable[int]) -> None:
        """Have brought what waits for these agents, in this order. Raises what kept a courier from it."""
        for agent_id in agent_ids:
            if agent_id not in self._under_way:
                self._under_way[agent_id] = self._pool.submit(_bring, tmux, home, agent_id)
        wait(self._under_way.values(), timeout=self._patience_seconds)
        back = {agent_id: courier for agent_id, courier in self._under_way.items() if courier.done()}
        self._under_way = {one: courier for one, courier in self._under_way.items() if one not in back}
        for courier in back.values():
            courier.result()

    def close(self) -> None:
        """Wait for those who bring something now; whoever has not set out stays."""
        self._pool.shutdown(cancel_futures=True)


def _bring(tmux: Tmux, home: Path, agent_id: int) -> None:
    db = store.connect(home)
    try:
        agent = agents.get(db, agent_id)
        delivery.deliver(delivery.Desk(db, tmux, home), agent, wait_seconds=ACKNOWLEDGED_WITHIN_SECONDS)
    finally:
        db.close()
