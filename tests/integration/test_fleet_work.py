"""The fleet's queue in parts: what is put twice is one, who was superseded writes nothing, what is wrong is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib import orchestrations, store
from lib.config import FleetSettings
from lib.errands import Errands
from lib.errors import Busy, NotFound, OrchestratorError
from lib.fleet import (
    buckets,
    connection,
    entries,
    fencing,
    hosts,
    outbox,
    permissions,
    putting,
    record,
    taking,
    tidying,
    travel,
)
from lib.fleet.entries import Entry, State
from lib.fleet.envelopes import Unreadable, pack
from lib.fleet.link import Link, Parts
from lib.fleet.travel import Ground
from lib.models import OrchestrationStatus
from lib.queue import entries as local_entries
from lib.queue.entries import NewEntry
from tests import nats
from tests.agents import an_orchestration
from tests.conftest import SPEC, Bench, commit_all
from tests.fleets import linked, until
from tests.nats import NatsServer

NOW = 1_900_000_000_000
WAIT = 60_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(store.connect(tmp_path / "store")) as made:
        yield made


def an_entry(entry_id: str = "f00000001", *, revision: int = 1, **fields: Any) -> Entry:
    record: dict[str, Any] = {
        **{"id": entry_id, "state": "queued", "label": "any", "priority": 0, "added_at": NOW, "origin": "home"},
        **{"project": {"name": "webapp"}, "spec_name": "spec.md", "options": {}, "agents": 1, "term": 0, "host": None},
    }
    return Entry(entry_id, revision, {**record, **fields})


# -- what is heard --


def test_what_is_older_than_what_is_known_changes_nothing(db: sqlite3.Connection) -> None:
    entries.heard(db, [an_entry(revision=5, state="running", host="red")])
    entries.heard(db, [an_entry(revision=4)])
    found = entries.get(db, "f00000001")
    assert found and (found.state, found.host, found.revision) == (State.RUNNING, "red", 5)


def test_the_order_in_which_a_host_looks_for_work(db: sqlite3.Connection) -> None:
    entries.heard(
        db,
        [
            an_entry("f00000001", priority=0, added_at=NOW),
            an_entry("f00000002", priority=7, added_at=NOW + 1),
            an_entry("f00000003", priority=7, label="gpu", added_at=NOW),
            an_entry("f00000004", priority=9, label="arm"),
            an_entry("f00000005", priority=8, state="running", host="red"),
            an_entry("f00000006", priority=6, state="running", host="green"),
            an_entry("f00000007", priority=5, state="succeeded"),
        ],
    )
    # What others have comes back when they are lost; what this host has does not.
    assert entries.subjects(db, ["gpu"], host="red") == [("gpu", 7), ("any", 7), ("any", 6), ("any", 0)]
    assert entries.subjects(db, [], host="green") == [("any", 8), ("any", 7), ("any", 0)]


WRONG: list[dict[str, Any]] = [
    {"state": "strange"},
    {"priority": "0"},
    {"priority": True},
    {"project": None},
    {"agents": 1.5},
    {"label": None},
]


@pytest.mark.parametrize("fields", WRONG)
def test_a_record_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        entries.checked({**an_entry().record, **fields})
    assert entries.checked({**an_entry().record, "of_a_newer_version": 1})


def test_no_text_of_another_host_reaches_a_terminal_as_a_command() -> None:
    record = {**an_entry().record, "outcome": "a\x1b]0;title\x07\nb", "project": {"name": "web\x1b[2Japp"}}
    found = entries.checked(record)
    assert not any(ord(letter) < 32 for letter in found["outcome"] + found["project"]["name"])


def test_orders_to_what_is_not_there_or_over_are_refused(db: sqlite3.Connection) -> None:
    with pytest.raises(NotFound):
        entries.order(db, entries.CANCEL, "f00000001", now=NOW)
    entries.heard(db, [an_entry(), an_entry("f00000002", state="succeeded")])
    entries.order(db, entries.CANCEL, "f00000001", now=NOW)
    with pytest.raises(Busy):
        entries.order(db, entries.RETRY, "f00000001", now=NOW)
    with pytest.raises(Busy):
        entries.order(db, entries.CANCEL, "f00000002", now=NOW)
    entries.order(db, entries.RETRY, "f00000002", now=NOW)
    assert [one.kind for one in outbox.waiting(db)] == [entries.CANCEL, entries.RETRY]


# -- what comes from others and goes to git --

COMMIT = "a" * 40
GROUND: dict[str, Any] = {"key": "webapp-1", "name": "webapp", "commit": COMMIT, "branch": "main", "remote": None}
HOSTILE: list[dict[str, Any]] = [
    {"key": "../../etc"},
    {"name": ".."},
    {"name": "a/b"},
    {"commit": "--upload-pack=touch x"},
    {"commit": "HEAD"},
    {"branch": "--orphan"},
    {"branch": ""},
    {"remote": "--upload-pack=touch x"},
    {"remote": 7},
    {"chain": [{"host": "home", "name": "x", "commit": "main"}]},
    {"chain": [{"host": "home"}]},
]


@pytest.mark.parametrize("fields", HOSTILE)
def test_a_ground_that_git_must_not_be_given_is_refused(fields: dict[str, Any]) -> None:
    assert Ground.of(GROUND).commit == COMMIT
    with pytest.raises(Unreadable):
        Ground.of({**GROUND, **fields})


@pytest.mark.parametrize(
    "branches",
    [
        {"main": COMMIT},
        {"orchestration/a1-spec/developer": "HEAD"},
        {"orchestration/../main": COMMIT + "x"},
        {"orchestration/a 1/x": COMMIT},
        {"refs/heads/main": COMMIT},
        ["main"],
        None,
    ],
)
def test_branches_that_are_no_teams_are_refused(branches: object) -> None:
    assert travel.branches_in({"branches": {"orchestration/a1-spec/developer": COMMIT}})
    with pytest.raises(Unreadable):
        travel.branches_in({"branches": branches})


def test_a_program_in_an_address_is_not_run(bench: Bench, tmp_path: Path) -> None:
    ground = Ground.of({**GROUND, "remote": f"ext::touch {tmp_path / 'run'}"})
    with pytest.raises(travel.Unreachable):
        asyncio.run(travel.receive_project(None, ground, kept=tmp_path / "kept", into=tmp_path / "new"))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists() and not (tmp_path / "new").exists()


def test_a_login_in_an_address_stays_here(bench: Bench) -> None:
    project = bench.project()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True
    ).stdout.strip()
    for words in (
        ("remote", "add", "origin", "https://me:secret@git.example.org/webapp.git"),
        ("update-ref", "refs/remotes/origin/main", commit),
    ):
        subprocess.run(["git", *words], cwd=project, check=True)
    assert travel.remote_with(project, commit) == "https://git.example.org/webapp.git"
    (project / "more").write_text("more")
    commit_all(project, "More")
    head = travel.ground_of("home", project)
    assert head.commit != commit and head.remote is None, "it was not pushed"


# -- fencing --


@pytest.fixture
def team(db: sqlite3.Connection) -> str:
    """A team that works an entry of the fleet, which the host has said at NOW."""
    new = NewEntry(Path("/specs/spec.md"), SPEC, Path("/projects/webapp"), {"fleet": "f00000001"}, again=True)
    (entry,) = local_entries.add(db, [new], now=NOW).entries
    lease = entries.take(db, an_entry(term=1), message=1, ack="$JS.ACK.x", ack_wait_ms=WAIT, begins_at=NOW, now=NOW)
    entries.queued_here(db, lease, entry.id)
    assert local_entries.claim(db, now=NOW, max_concurrent=1)
    found = an_orchestration(project=entry.project, unattended=True)
    attempt = local_entries.open_attempt(db, entry.id)
    assert attempt
    with store.writing(db):
        orchestrations.add(db, found)
        local_entries.link(db, attempt, found.id, now=NOW)
    return found.id


class Told(Errands):
    """Errands that are only noted."""

    def start(self, name: str, door: str, *arguments: str) -> bool:
        (self.home / "told").write_text(json.dumps([name, door, *arguments]))
        return True


def status_of(db: sqlite3.Connection, team: str) -> OrchestrationStatus:
    return orchestrations.get(db, team).status


#: How long after the host said that it has the entry its daemon looks, by its clock; whether the team is held then.
CLOCKS = [
    (0, False),
    (WAIT * 2 // 3 - 1, False),
    (WAIT * 2 // 3, True),
    (WAIT * 100, True),
    (-1_000, False),
    # Set back by more than a clock is mended by: nothing is known.
    (-10 * WAIT, True),
]


@pytest.mark.parametrize(("passed", "is_held"), CLOCKS)
def test_a_team_is_held_when_another_host_could_have_its_entry(
    db: sqlite3.Connection, team: str, tmp_path: Path, passed: int, is_held: bool
) -> None:
    dues = fencing.fence(db, Told(tmp_path), now=NOW + passed)
    assert status_of(db, team) is (OrchestrationStatus.PAUSED if is_held else OrchestrationStatus.RUNNING)
    assert dues == ([] if is_held else [NOW + WAIT * 2 // 3])
    assert (tmp_path / "told").exists() is is_held, "whoever is at work is interrupted"
    assert not is_held or "--if-paused" in (tmp_path / "told").read_text(), "it may go on before that is begun"
    assert (fencing.hold_of(db, 1, now=NOW + passed) is not None) is is_held


def test_a_held_team_goes_on_when_it_is_proved_and_not_if_a_person_has_paused_it(
    db: sqlite3.Connection, team: str, tmp_path: Path
) -> None:
    fencing.fence(db, Told(tmp_path), now=NOW + WAIT)
    fencing.fence(db, Told(tmp_path), now=NOW + WAIT + 1)
    (lease,) = entries.leases(db)
    assert (lease.fenced_at, lease.has_paused) == (NOW + WAIT, 1)
    entries.extended(db, lease, now=NOW + 2 * WAIT)
    fencing.go_on(db, lease, now=NOW + 2 * WAIT)
    assert status_of(db, team) is OrchestrationStatus.RUNNING
    kinds = [event.kind for event in store.events(db) if event.kind.startswith("fleet.")]
    assert kinds == ["fleet.taken", "fleet.fenced", "fleet.unfenced"]
    # The next time a person has been faster.
    with store.writing(db):
        orchestrations.set_paused(db, team, NOW + 2 * WAIT)
        orchestrations.set_status(db, team, OrchestrationStatus.PAUSED, now=NOW + 2 * WAIT)
    fencing.fence(db, Told(tmp_path), now=NOW + 9 * WAIT)
    (lease,) = entries.leases(db)
    assert (lease.fenced_at, lease.has_paused) == (NOW + 9 * WAIT, 0)
    fencing.go_on(db, lease, now=NOW + 9 * WAIT)
    assert status_of(db, team) is OrchestrationStatus.PAUSED


def test_a_link_without_a_scheduler_has_its_teams_stand_still(
    db: sqlite3.Connection, team: str, tmp_path: Path
) -> None:
    fencing.fence(db, Told(tmp_path), now=NOW + 1, is_alone=True)
    assert status_of(db, team) is OrchestrationStatus.PAUSED


# -- taking what another host has had --

#: How a host meets what the queue gives out of another's: whether that one has proved it, whether the server is one of
#: several, and for how many seconds this host has been connected; whether the other one may be at work then.
MEETS = [
    (False, False, 100.0, False),
    (True, False, 100.0, True),
    # Another server may have taken over, and know less.
    (False, True, 100.0, True),
    # The server may have started anew: 2.9.10 gives out at once what it has given out a second time.
    (False, False, 59.0, True),
    (False, False, 61.0, False),
]


@pytest.mark.parametrize(("has_proved", "is_cluster", "connected_seconds", "may_be_at_work"), MEETS)
def test_who_has_had_an_entry_may_be_at_work(
    db: sqlite3.Connection,
    tmp_path: Path,
    has_proved: bool,
    is_cluster: bool,
    connected_seconds: float,
    may_be_at_work: bool,
) -> None:
    link = Link(tmp_path, FleetSettings(), db)
    server: Any = SimpleNamespace(_server_info={"cluster": "fleet"} if is_cluster else {})
    since = time.monotonic() - connected_seconds
    link.connection = connection.Connection(server, None, "red", asyncio.Event(), since=since)  # type: ignore[arg-type]
    found = an_entry(state="running", host="green", term=3, proved=3 if has_proved else 2)
    assert taking._may_be_at_work(link, found, 60.0) is may_be_at_work


# -- with a server --


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    if nats.PROGRAM is None:
        pytest.skip("this system has no nats-server; ./setup.sh --dev")
    with nats.running(tmp_path / "nats") as made:
        yield made


PARTS = Parts(tasks=(record.hear, taking.make_consumers), senders={})


@contextlib.asynccontextmanager
async def two_hosts(server: NatsServer, folder: Path) -> AsyncIterator[tuple[Link, Link]]:
    """Two hosts that hear of the queue, and do with it what a test does."""
    async with linked(server, folder, "home", parts=PARTS) as home, linked(server, folder, "red", parts=PARTS) as red:
        await until(lambda: home.is_connected and red.is_connected, "both to be connected")
        yield home, red


def put(link: Link, project: Path, spec: str = SPEC) -> outbox.Item:
    body = {
        **{"path": str(project), "spec": spec, "spec_name": "spec.md", "options": {}, "tags": [], "priority": 0},
        **{"budget_minutes": None, "label": "any", "agents": 1},
    }
    entries.put(link.db, body, project=project, spec_path=project / "spec.md", now=NOW)
    return outbox.waiting(link.db)[-1]


def in_a_fleet(server: NatsServer, folder: Path, act: Callable[[Link, Link], Awaitable[None]]) -> None:
    async def run() -> None:
        async with two_hosts(server, folder) as (home, red):
            await act(home, red)

    asyncio.run(run())


def test_what_the_outbox_carries_twice_is_one_entry(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        item = put(home, project)
        await putting.send_put(home, item)
        await putting.send_put(home, item)
        await until(lambda: entries.every(red.db), "red to hear of it")
        (found,) = entries.every(red.db)
        assert (found.state, found.term, found.revision) == (State.QUEUED, 0, 1)
        info = await home.fleet.js.stream_info(permissions.QUEUE)
        assert info.state.messages == 1

    in_a_fleet(server, bench.folder, act)


def test_a_long_spec_arrives_whole(server: NatsServer, bench: Bench) -> None:
    project, spec = bench.project("webapp"), SPEC + "Füll text\n" * 80_000

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project, spec))
        await until(lambda: entries.every(red.db), "red to hear of it")
        (found,) = entries.every(red.db)
        parcel = travel.Parcel.of(found.record["spec"])
        await buckets.get_object(red.fleet, parcel.host, parcel.name, bench.folder / "copy")
        assert (bench.folder / "copy").read_text() == spec
        assert len(json.dumps(found.record)) < 2000, "the record does not carry it about"

    in_a_fleet(server, bench.folder, act)


def test_a_project_that_is_gone_is_refused_and_told(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        item = put(home, project)
        project.rename(bench.folder / "elsewhere")
        with pytest.raises(outbox.Refused):
            await putting.send_put(home, item)
        assert entries.every(home.db) == []

    in_a_fleet(server, bench.folder, act)


def test_whoever_was_superseded_writes_nothing(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project))
        await until(lambda: entries.every(red.db) and entries.every(home.db), "both to hear of it")
        (queued,) = entries.every(home.db)
        bucket = await home.fleet.js.key_value("entries")
        taken = {**queued.record, "state": "running", "host": "home", "term": 1}
        revision = await bucket.update(queued.id, pack(taken), last=queued.revision)
        lease = entries.take(
            home.db,
            Entry(queued.id, revision, taken),
            message=1,
            ack="$JS.ACK.x",
            ack_wait_ms=WAIT,
            begins_at=NOW,
            now=NOW,
        )
        await record.change_own(home, lease, {"says": "running"})
        # The queue gives it to red, which writes over what it has read.
        found = await record.read(red, queued.id)
        assert found and found.record["says"] == "running"
        await bucket.update(queued.id, pack({**found.record, "host": "red", "term": 2}), last=found.revision)
        with pytest.raises(record.Superseded, match="running on red"):
            await record.change_own(home, lease, {"says": "mine"})
        now = await record.read(home, queued.id)
        assert now and (now.host, now.record["says"]) == ("red", "running")

    in_a_fleet(server, bench.folder, act)


def test_an_entry_that_is_cancelled_and_queued_again_is_one(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project))
        await until(lambda: entries.every(red.db), "red to hear of it")
        (found,) = entries.every(red.db)
        entries.order(red.db, entries.CANCEL, found.id, now=NOW)
        await putting.send_cancel(red, outbox.waiting(red.db)[-1])
        with pytest.raises(outbox.Refused):
            await putting.send_cancel(red, outbox.waiting(red.db)[-1])
        entries.order(red.db, entries.RETRY, found.id, now=NOW)
        for _ in range(2):
            await putting.send_retry(red, outbox.waiting(red.db)[-1])
        again = await record.read(home, found.id)
        assert again and again.state is State.QUEUED and again.record["outcome"] is None
        info = await home.fleet.js.stream_info(permissions.QUEUE)
        assert info.state.messages == 2, "the first one's message is taken off by whoever gets it"

    in_a_fleet(server, bench.folder, act)


def test_a_bundle_that_lies_damaged_in_the_store_is_not_taken_in(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project))
        await until(lambda: entries.every(red.db), "red to hear of it")
        (found,) = entries.every(red.db)
        ground = Ground.of(found.record["project"])
        (parcel, _), *_ = ground.chain
        (bench.folder / "wrong").write_bytes(b"# v2 git bundle\nnothing of the kind\n")
        await buckets.put_object(home.fleet, parcel.name, bench.folder / "wrong")
        kept = bench.folder / "kept"
        with pytest.raises(OrchestratorError):
            await travel.receive_project(red.fleet, ground, kept=kept, into=bench.folder / "new")
        assert not (bench.folder / "new").exists()

    in_a_fleet(server, bench.folder, act)


# -- what is over for long --

DAY = tidying.DAY_MS


async def in_a_month(link: Link, days: int = 31) -> None:
    """This host's clock is so much later than when what it has put came home."""
    for one in entries.puts(link.db):
        entries.fetched(link.db, one.entry_id, "succeeded on red", now=link.clock() - days * DAY)


async def is_over(home: Link, *others: Link) -> Entry:
    """What home has put is over, and all have heard of it."""
    await until(lambda: entries.every(home.db), "home to hear of it")
    (found,) = entries.every(home.db)
    await record.change(home, found.id, lambda _: {"state": "succeeded", "ended_at": NOW})
    await until(
        lambda: all(one.state is State.SUCCEEDED for link in (home, *others) for one in entries.every(link.db)), "all"
    )
    return entries.every(home.db)[0]


def test_what_is_over_for_long_goes_from_the_fleet_and_from_every_host(
    server: NatsServer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project))
        await until(lambda: entries.every(red.db), "red to hear of it")
        found = await is_over(home, red)
        names = {one.name for one in await buckets.objects(home.fleet)}
        assert f"{found.id}/spec" in names and len(names) == 2
        await in_a_month(home, days=29)
        assert await tidying.drop_records(home) == [], "it is kept for 30 days"
        await in_a_month(home)
        assert await tidying.drop_records(red) == [], "it is another's"
        assert await tidying.drop_records(home) == [found.id]
        await until(lambda: not entries.every(red.db) and not entries.every(home.db), "both to forget it")
        assert await record.read(red, found.id) is None
        await hosts.tell_once(home)
        assert await tidying.drop_files(home) == [], "what was just put may be named in a moment"
        monkeypatch.setattr(tidying, "YOUNG_MS", 0)
        assert set(await tidying.drop_files(home)) == names
        assert await buckets.objects(home.fleet) == []
        # The next entry of this project brings all again.
        await putting.send_put(home, put(home, project, SPEC + "more"))
        assert len(await buckets.objects(home.fleet)) == 2

    in_a_fleet(server, bench.folder, act)


def test_a_file_that_a_record_names_stays(server: NatsServer, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    project = bench.project("webapp")
    monkeypatch.setattr(tidying, "YOUNG_MS", 0)

    async def act(home: Link, red: Link) -> None:
        await putting.send_put(home, put(home, project))
        await hosts.tell_once(home)
        assert await tidying.drop_files(home) == []
        found = await is_over(home)
        await in_a_month(home)
        # Queued again just now, which home has not heard of.
        await record.change(red, found.id, lambda _: {"state": "queued"})
        entries.heard(home.db, [Entry(found.id, found.revision + 9, found.record)])
        assert await tidying.drop_records(home) == []
        assert await tidying.drop_files(home) == []
        await buckets.put_object(home.fleet, "of/nobody", project / "spec.md")
        bucket = await home.fleet.js.key_value("entries")
        await bucket.put("f0000000f", b"of a newer version")
        assert await tidying.drop_files(home) == [], "what cannot be read may name any file"
        await bucket.delete("f0000000f")
        await hosts.tell_once(home)
        assert await tidying.drop_files(home) == ["of/nobody"]

    in_a_fleet(server, bench.folder, act)


def test_no_file_is_taken_away_while_another_is_put_before_its_record(server: NatsServer, bench: Bench) -> None:
    project = bench.project("webapp")

    async def act(home: Link, red: Link) -> None:
        async with home.files:
            works: list[asyncio.Task[object]] = [asyncio.create_task(tidying.drop_files(home))]
            works += [asyncio.create_task(putting.send_put(home, put(home, project)))]
            done, _ = await asyncio.wait(works, timeout=0.5)
            assert not done
        await asyncio.gather(*works)

    in_a_fleet(server, bench.folder, act)
