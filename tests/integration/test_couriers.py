"""Couriers: who is on the way holds up nobody, and nobody sets out twice to the same agent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lib import couriers, delivery
from lib.couriers import Couriers
from lib.errors import Busy
from tests.conftest import wait_for
from tests.integration.still_team import ROLES, StillTeam, still_team

__all__ = ["still_team"]


@dataclass
class Road:
    """Takes the place of a delivery: it ends when the way is open."""

    team: StillTeam
    open: threading.Event = field(default_factory=threading.Event)
    set_out: list[int] = field(default_factory=list)
    trouble: Exception | None = None

    @property
    def ids(self) -> list[int]:
        """All agents'."""
        return [self.team.agent(role).id for role in ROLES]

    def deliver(self, _desk: delivery.Desk, agent: Any, **_: object) -> None:
        self.set_out.append(agent.id)
        assert self.open.wait(30)
        if self.trouble:
            raise self.trouble

    def send(self, by: Couriers, *agent_ids: int) -> None:
        by.send(self.team.bench.tmux, self.team.bench.home, agent_ids)


@pytest.fixture
def road(still_team: StillTeam, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    made = Road(still_team)
    monkeypatch.setattr(delivery, "deliver", made.deliver)
    yield made
    made.open.set()


def test_a_courier_that_does_not_come_back_is_not_waited_for(road: Road) -> None:
    sent = Couriers(patience_seconds=0)
    first, second = road.ids[:2]
    road.send(sent, first)
    road.send(sent, first, second)
    wait_for(lambda: len(road.set_out) == 2, "both couriers")
    assert sorted(road.set_out) == sorted([first, second]), "nobody sets out twice"
    road.open.set()
    sent.close()
    road.send(Couriers(), first)
    assert sorted(road.set_out) == sorted([first, first, second])


def test_without_patience_all_come_back(road: Road) -> None:
    road.open.set()
    sent = Couriers()
    road.send(sent, *road.ids)
    assert sorted(road.set_out) == sorted(road.ids)
    road.send(sent, road.ids[0])
    assert sorted(road.set_out) == sorted([*road.ids, road.ids[0]]), "who is back can set out again"


def test_what_keeps_a_courier_from_it_is_told_when_it_is_back(road: Road) -> None:
    sent, road.trouble = Couriers(patience_seconds=0), Busy("the store is locked")
    road.send(sent, road.ids[0])
    wait_for(lambda: road.set_out, "the courier")
    road.open.set()

    def is_told() -> bool:
        try:
            road.send(sent)
        except Busy:
            return True
        return False

    wait_for(is_told, "what the courier has to tell")


def test_who_has_not_set_out_at_the_end_stays(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "_AT_ONCE", 1)
    sent = Couriers(patience_seconds=0)
    road.send(sent, *road.ids)
    wait_for(lambda: road.set_out, "the first courier")
    ending = threading.Thread(target=sent.close)
    ending.start()
    wait_for(lambda: all(one.cancelled() for one in list(sent._under_way.values())[1:]), "the others to stay")
    road.open.set()
    ending.join(30)
    assert not ending.is_alive()
    assert road.set_out == road.ids[:1]
