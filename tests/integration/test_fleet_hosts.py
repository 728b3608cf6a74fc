"""What hosts of a fleet know of one another, over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from lib import host, store
from lib.config import FleetSettings
from lib.fleet import connection, envelopes, founding, hosts, members, outbox
from lib.fleet.connection import Connection
from lib.fleet.link import Link, Parts
from lib.fleet.members import Standing
from tests.fleets import known, linked, until
from tests.integration.test_fleet_security import Fleet, fleet
from tests.nats import NatsServer

__all__ = ["fleet"]


async def other(server: NatsServer, name: str) -> Connection:
    """A bare connection of another host."""
    return await connection.connect(FleetSettings(url=server.url, host=name), Path("/nowhere"))


def record(**changed: object) -> dict[str, object]:
    return {
        **{"version": "0.1.0", "at": host.now_ms(), "labels": [], "agents": 2, "capacity": 8, "cpus": 4},
        **{"memory_free_mb": 8000, "load": 0.5, "teams": [], "entries": 0},
        **changed,
    }


async def tell(made: Connection, value: bytes) -> None:
    await made.js.publish(f"$KV.hosts.{made.host}", value)


def member(link: Link, name: str) -> members.Member:
    return next(one for one in members.every(link.db) if one.name == name)


def test_two_hosts_know_one_another(nats_server: NatsServer, tmp_path: Path) -> None:
    async def meet() -> None:
        async with linked(nats_server, tmp_path, "a", labels=("gpu",)) as a, linked(nats_server, tmp_path, "b") as b:
            await until(lambda: known(a) == known(b) == ["a", "b"], "both to be known")
            found = member(b, "a")
            assert found.is_seen(host.now_ms()) and found.standing is Standing.OPEN and found.trouble is None
            assert found.record["labels"] == ["gpu"] and found.capacity >= 1 and found.skew is None
            state = members.link_state(b.db, b.home)
            assert state and state.trouble is None and state.host == "b"

    asyncio.run(meet())


def test_a_host_that_is_silent_is_not_seen_and_nothing_more(nats_server: NatsServer, tmp_path: Path) -> None:
    async def fall_silent() -> None:
        async with linked(nats_server, tmp_path, "a") as a:
            async with linked(nats_server, tmp_path, "b"):
                await until(lambda: known(a) == ["a", "b"], "both to be known")
            found = member(a, "b")
            assert found.is_seen(found.seen_at + members.SEEN_MS)
            assert found.seen(found.seen_at + 40_000) == "not seen for 40 s"
            assert found.seen(found.seen_at + 3_000) == "seen 3 s ago"

    asyncio.run(fall_silent())


def test_a_host_that_was_silent_before_we_came_is_as_old_as_it_is(nats_server: NatsServer, tmp_path: Path) -> None:
    async def come_late() -> None:
        async with linked(nats_server, tmp_path, "b"):
            await asyncio.sleep(0)
            async with linked(nats_server, tmp_path, "first") as first:
                await until(lambda: "b" in known(first), "b to be known")
        await asyncio.sleep(3)
        # Its own clock is of no use here: it is an hour off.
        async with linked(nats_server, tmp_path, "c", clock=lambda: host.now_ms() + 3_600_000) as c:
            await until(lambda: known(c) == ["b", "c", "first"], "all to be known")
            silent, own = member(c, "b"), member(c, "c")
            assert own.seen_at - silent.seen_at > 2_500
            assert silent.seen(own.seen_at).endswith((" s ago",))

    asyncio.run(come_late())


def test_a_clock_that_is_a_minute_off_is_told_and_changes_nothing_else(nats_server: NatsServer, tmp_path: Path) -> None:
    async def differ() -> None:
        late = linked(nats_server, tmp_path, "late", clock=lambda: host.now_ms() - 61_000)
        async with linked(nats_server, tmp_path, "a") as a, late as b:
            await until(lambda: "late" in known(a) and "a" in known(b), "both to be known")
            assert member(a, "late").is_seen(host.now_ms())
            assert (member(a, "late").skew or "").startswith("its clock is 1 min behind this host's")
            assert (member(b, "a").skew or "").startswith("its clock is 1 min ahead of this host's")
            assert member(b, "a").is_seen(b.clock())

    asyncio.run(differ())


def test_the_clock_of_this_host_is_set_back(nats_server: NatsServer, tmp_path: Path) -> None:
    # Otherwise a host that is silent from now on would be told as seen for an hour.
    db, now = store.connect(tmp_path / "state"), host.now_ms()
    silent = members.Sighting("silent", record(), now, 0)
    members.saw(db, [silent], now=now)
    members.saw(db, [members.Sighting("b", record(), now - 3_600_000, 0)], now=now - 3_600_000)
    assert {one.seen_at for one in members.every(db)} == {now - 3_600_000}


def test_the_server_comes_back_and_the_link_by_itself(nats_server: NatsServer, tmp_path: Path) -> None:
    async def lose_the_server() -> None:
        async with linked(nats_server, tmp_path, "a") as a, linked(nats_server, tmp_path, "b") as b:
            await until(lambda: known(a) == known(b) == ["a", "b"], "both to be known")
            nats_server.kill()
            await until(lambda: not a.is_connected and not b.is_connected, "both to notice")
            await until(lambda: "cannot be reached" in trouble(a), "the reason")
            ordered = members.order(a.db, "b", Standing.CORDONED, now=host.now_ms())
            assert member(a, "b").wanted is Standing.CORDONED
            nats_server.start()
            before = member(b, "a").seen_at
            await until(lambda: not trouble(a), "the link to come back")
            await until(lambda: members.standing_of(b.db, "b") is Standing.CORDONED, "the order to arrive")
            await until(lambda: member(b, "a").seen_at > before, "news of a")
            await until(lambda: not outbox.waiting(a.db), f"order {ordered} to be sent")
            assert member(a, "b").wanted is None and member(a, "b").free == 0

    asyncio.run(lose_the_server())


def trouble(link: Link) -> str:
    state = members.link_state(link.db, link.home)
    return (state.trouble if state else None) or ""


def test_a_host_is_cordoned_drained_and_opened_again(nats_server: NatsServer, tmp_path: Path) -> None:
    async def order() -> None:
        async with linked(nats_server, tmp_path, "a") as a, linked(nats_server, tmp_path, "b") as b:
            await until(lambda: known(a) == ["a", "b"], "both to be known")
            for standing in (Standing.CORDONED, Standing.DRAINING, Standing.OPEN):
                members.order(a.db, "b", standing, now=host.now_ms())
                await until(partial(has_arrived, a, b, standing), f"{standing} to arrive and b to say so")

    asyncio.run(order())


def has_arrived(a: Link, b: Link, standing: Standing) -> bool:
    found = member(a, "b")
    return members.standing_of(b.db, "b") is found.standing is standing and found.record["standing"] == standing


@pytest.mark.parametrize(
    ("version", "readable_since", "is_read"),
    [
        (envelopes.VERSION - 1, envelopes.VERSION - 1, True),
        (envelopes.VERSION + 1, envelopes.VERSION, True),  # the next version, as the next version writes
        (envelopes.VERSION + 2, envelopes.VERSION + 1, False),
    ],
)
def test_hosts_of_neighbouring_versions_know_one_another(
    nats_server: NatsServer, tmp_path: Path, version: int, readable_since: int, is_read: bool
) -> None:
    async def differ() -> None:
        async with linked(nats_server, tmp_path, "a") as a:
            await until(lambda: known(a) == ["a"], "a to be known")
            made = await other(nats_server, "b")
            told = envelopes.pack(record(novelty=[1]), version=version, readable_since=readable_since)
            await tell(made, told)
            await until(lambda: known(a) == ["a", "b"], "b to be known")
            found = member(a, "b")
            assert (found.trouble is None) is is_read and found.is_seen(host.now_ms())
            assert found.agents == (2 if is_read else 0)
            assert is_read or "writes version" in (found.trouble or "")
            await made.close()

    asyncio.run(differ())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\x00\xff", "not what a host of a fleet writes"),
        (envelopes.pack({}), "cannot be read: at is not a whole number"),
        (envelopes.pack(record(labels="gpu")), "cannot be read: labels is not a list"),
    ],
)
def test_what_is_no_record_is_told_and_harms_nobody(
    nats_server: NatsServer, tmp_path: Path, value: bytes, said: str
) -> None:
    async def hear() -> None:
        async with linked(nats_server, tmp_path, "a") as a:
            made = await other(nats_server, "b")
            await until(lambda: known(a) == ["a"], "a to be known")
            await tell(made, value)
            await until(lambda: known(a) == ["a", "b"], "b to be known")
            assert said in (member(a, "b").trouble or "")
            await tell(made, envelopes.pack(record()))
            await until(lambda: member(a, "b").trouble is None, "what can be read")
            await made.close()

    asyncio.run(hear())


def test_a_record_brings_no_control_characters_to_a_terminal(tmp_path: Path) -> None:
    told = members.checked(record(version="1\x1b[2J\n", teams=[{"session": "x\x07", "status": "running"}]))
    assert (told["version"], told["teams"]) == ("1 ", [{"session": "x", "status": "running"}])


def test_a_host_that_was_taken_out_is_forgotten(nats_server: NatsServer, tmp_path: Path) -> None:
    async def take_out() -> None:
        async with linked(nats_server, tmp_path, "a") as a:
            await until(lambda: known(a) == ["a"], "a to be known")
            made = await other(nats_server, "b")
            await tell(made, envelopes.pack(record()))
            await until(lambda: known(a) == ["a", "b"], "b to be known")
            await (await made.js.key_value("hosts")).delete("b")
            await until(lambda: known(a) == ["a"], "b to be forgotten")
            # Nor does who was away keep it.
            members.saw(a.db, [members.Sighting("old", record(), 1, 0)], now=host.now_ms())
            nats_server.kill()
            await until(lambda: not a.is_connected, "the loss")
            nats_server.start()
            await until(lambda: known(a) == ["a"], "the old one to be forgotten")
            await made.close()

    asyncio.run(take_out())


def test_a_task_that_fails_begins_again_and_the_others_go_on(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.fleet.link.TASK_PAUSE_SECONDS", 0.05)
    tries: list[int] = []
    lives: list[int] = []

    async def fail(_: Link) -> None:
        tries.append(1)
        raise ZeroDivisionError("not expected")

    async def live(link: Link) -> None:
        lives.append(1)
        await asyncio.Event().wait()

    async def try_it() -> list[dict[str, object]]:
        async with linked(nats_server, tmp_path, "a", parts=Parts(tasks=(fail, live, hosts.tell))) as a:
            await until(lambda: len(tries) > 2, "three tries")
            events = store.events(a.db, kind="fleet.task_failed")
            return [event.data for event in events]

    found = asyncio.run(try_it())
    assert found[0] == {"task": "fail", "error": "ZeroDivisionError: not expected"}
    assert lives == [1]


def test_what_goes_on_without_a_connection(nats_server: NatsServer, tmp_path: Path) -> None:
    seen: list[bool] = []

    async def watch(link: Link) -> None:
        while True:
            seen.append(link.is_connected)
            await asyncio.sleep(0.02)

    async def try_it() -> None:
        async with linked(nats_server, tmp_path, "a", parts=Parts(always=(watch,))) as a:
            await until(lambda: a.is_connected and seen[-1], "the connection")
            nats_server.kill()
            await until(lambda: not seen[-1], "the loss")
            count = len(seen)
            await until(lambda: len(seen) > count + 3, "it to go on")

    asyncio.run(try_it())


def test_what_the_fleet_refuses_is_kept_with_the_reason_and_holds_up_nothing(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    sent: list[int] = []

    async def sender(_: Link, item: outbox.Item) -> None:
        if item.body.get("no"):
            raise outbox.Refused("not you")
        sent.append(item.id)

    async def try_it() -> None:
        async with linked(nats_server, tmp_path, "a", parts=Parts(senders={"x": sender})) as a:
            now = host.now_ms()
            no, unknown, yes = (outbox.add(a.db, *what, now=now) for what in (("x", {"no": 1}), ("y", {}), ("x", {})))
            await until(lambda: sent == [yes], "what is not refused")
            assert [(one.id, one.refusal) for one in outbox.refused(a.db)] == [(no, "not you")]
            assert [one.id for one in outbox.waiting(a.db)] == [unknown]

    asyncio.run(try_it())


@pytest.mark.parametrize(("hosts", "seconds"), [(1, 5), (25, 5), (50, 10), (200, 40), (10_000, 300)])
def test_in_a_large_fleet_each_host_tells_of_itself_less_often(hosts: int, seconds: float) -> None:
    assert members.heartbeat_seconds(hosts) == seconds


#: What a host says of how often it tells of itself, and for how many seconds it is seen then.
PACES = [(None, 15), (5, 15), (40.0, 120), (0, 15), (-1, 15), (1e9, 900), ("40", 15), (True, 15)]


@pytest.mark.parametrize(("said", "seconds"), PACES)
def test_a_host_is_seen_for_three_heartbeats(said: object, seconds: int) -> None:
    record = {} if said is None else {"every_seconds": said}
    found = members.Member("a", record, 1000, 0, None, members.Standing.OPEN, None)
    assert found.is_seen(1000 + seconds * 1000)
    assert not found.is_seen(1001 + seconds * 1000)


def test_a_host_tells_of_its_teams_and_what_it_has_room_for(tmp_path: Path) -> None:
    with contextlib.closing(store.connect(tmp_path)) as db:
        made = Link(tmp_path, FleetSettings(agents=3, host="a", labels=("gpu",)), db)
        made.connection = connection.Connection(None, None, "a", asyncio.Event())  # type: ignore[arg-type]
        told = hosts.record_of(made)
    assert json.loads(json.dumps(told)) == told
    assert (told["capacity"], told["agents"], told["teams"], told["labels"]) == (3, 0, [], ["gpu"])
    assert members.checked(told) == told


class TestFounded:
    """Over TLS, with an account for each host."""

    def test_only_the_founder_orders_other_hosts(self, fleet: Fleet) -> None:
        async def order() -> None:
            async with (
                linked(fleet.server, fleet.folder, "base") as base,
                linked(fleet.server, fleet.folder, "a") as a,
                linked(fleet.server, fleet.folder, "b") as b,
            ):
                await until(lambda: known(a) == known(b) == known(base) == ["a", "b", "base"], "all to be known")
                item = members.order(a.db, "b", Standing.DRAINING, now=host.now_ms())
                await until(lambda: outbox.refused(a.db), "the refusal")
                refused = outbox.get(a.db, item)
                assert refused.refusal and "this host may not order anything of b" in refused.refusal
                members.order(a.db, "a", Standing.CORDONED, now=host.now_ms())
                members.order(base.db, "b", Standing.CORDONED, now=host.now_ms())
                await until(partial(has_arrived, base, b, Standing.CORDONED), "the order to b")
                await until(lambda: members.standing_of(base.db, "a") is Standing.CORDONED, "the order of a to itself")

        asyncio.run(order())

    def test_a_host_that_is_removed_is_forgotten_and_not_connected(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hosts, "ROOM_SECONDS", 0.2)

        async def remove() -> None:
            async with (
                linked(fleet.server, fleet.folder, "base") as base,
                linked(fleet.server, fleet.folder, "a") as a,
                linked(fleet.server, fleet.folder, "b") as b,
            ):
                await until(lambda: known(a) == known(b) == known(base) == ["a", "b", "base"], "all to be known")
                founding.remove(fleet.home("base"), ["b"], datetime.now(UTC))
                fleet.reload()
                await until(lambda: not b.is_connected and "does not take this host" in trouble(b), "b to be cut off")
                await until(lambda: known(a) == known(base) == ["a", "base"], "b to be forgotten")

        asyncio.run(remove())
