"""The dashboard's stream: an event is there at once, a browser that slept misses nothing, and pages cost little."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from lib import host, messages, orchestrations, pauses, store
from lib.front.web import live
from lib.front.web.live import MOST_PAGES
from lib.models import MessageKind
from lib.tmux import Tmux
from tests.conftest import Bench, wait_for
from tests.dashboards import Dashboard, running
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


@pytest.fixture
def dashboard(still_team: StillTeam) -> Iterator[Dashboard]:
    with running(still_team.bench) as found:
        yield found


def record(team: StillTeam, count: int = 1) -> int:
    """Have so many events happen. Returns the id of the last."""
    with store.writing(team.db):
        for _ in range(count):
            store.record(team.db, "pause.begun", now=host.now_ms(), orchestration=team.id)
    return store.newest_event(team.db)


def test_a_page_gets_what_is_now_and_then_what_happens(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening() as stream:
        assert stream.answer.getheader("Content-Type", "").startswith("text/event-stream")
        team = stream.until("changed", piece=f"orchestration/{still_team.id}")["value"]
        assert (team["status"], len(team["agents"])) == ("running", 4)
        agent = still_team.agent("developer")
        sent = messages.queue(still_team.db, agent, "hello", sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        told = stream.until("happened", kind="message.queued")
        assert (told["message"], told["role"], told["session"]) == (sent.id, "developer", "webapp-impl")
        while (team := stream.until("changed", piece=f"orchestration/{still_team.id}")["value"]) is None:
            pass
        assert {one["role"]: one["waiting"] for one in team["agents"]}["developer"] == 1


def test_an_agent_that_dies_is_seen_though_nobody_writes_it(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening() as stream:
        stream.until("changed", piece=f"orchestration/{still_team.id}")
        process = still_team.agent("tester").process
        assert process
        os.kill(process.pid, 9)
        team = stream.until("changed", piece=f"orchestration/{still_team.id}")["value"]
        assert {one["role"]: one["state"] for one in team["agents"]}["tester"] == "gone"


def test_a_browser_that_slept_misses_nothing(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening() as stream:
        stream.until("here")
        record(still_team)
        stream.until("happened")
        last = int(stream.last_id)
    newest = record(still_team, 1200)  # more than is kept, and more than one page of the store
    with dashboard.listening(**{"Last-Event-ID": str(last)}) as stream:
        ids: list[int] = []
        for name, data in stream.frames():
            ids += [data["id"]] if name == "happened" else []
            if ids and ids[-1] == newest:
                break
    assert ids == list(range(last + 1, newest + 1))


def test_a_browser_that_slept_while_another_listened_misses_nothing(
    dashboard: Dashboard, still_team: StillTeam
) -> None:
    with dashboard.listening() as awake:
        awake.until("here")
        last = record(still_team)
        for _ in range(2):  # together more than is kept for pages
            newest = record(still_team, 750)
            awake.until("happened", id=newest)
        with dashboard.listening(**{"Last-Event-ID": str(last)}) as stream:
            ids: list[int] = []
            while not ids or ids[-1] != newest:
                ids.append(stream.until("happened")["id"])
    assert ids == list(range(last + 1, newest + 1))


def test_what_happens_while_a_page_catches_up_comes_once_and_in_order(
    dashboard: Dashboard, still_team: StillTeam
) -> None:
    first = record(still_team, 900)
    with dashboard.listening(**{"Last-Event-ID": str(first - 900)}) as stream:
        stream.until("happened")
        newest = record(still_team, 900)
        ids = [first - 899]
        for name, data in stream.frames():
            ids += [data["id"]] if name == "happened" else []
            if ids[-1] == newest:
                break
    assert ids == list(range(first - 899, newest + 1))


def test_who_has_missed_too_much_begins_anew(dashboard: Dashboard, still_team: StillTeam) -> None:
    first = record(still_team)
    newest = record(still_team, 5100)
    with dashboard.listening(**{"Last-Event-ID": str(first)}) as stream:
        stream.until("behind")
        assert int(stream.last_id) == newest
        record(still_team)
        assert stream.until("happened")["id"] == newest + 1


def test_an_id_of_another_store_is_no_reason_to_wait(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening(**{"Last-Event-ID": "999999999"}) as stream:
        stream.until("here")
        newest = record(still_team)
        assert stream.until("happened")["id"] == newest


@pytest.mark.parametrize("named", ["x", "-1", "1" * 30, "²"])
def test_an_id_that_is_none_is_refused(dashboard: Dashboard, named: str) -> None:
    answer = dashboard.ask("/api/v1/stream?after=" + named.replace("²", "%C2%B2"))
    assert answer.status == 400 and "is no id of an event" in answer.sentence


def test_places_are_limited_and_given_back(dashboard: Dashboard) -> None:
    with contextlib.ExitStack() as pages:
        streams = [pages.enter_context(dashboard.listening()) for _ in range(MOST_PAGES)]
        for stream in streams:
            stream.until("here")
        answer = dashboard.ask("/api/v1/stream")
        assert (answer.status, answer.sentence) == (503, f"{MOST_PAGES} pages listen already")
        assert answer.headers["Retry-After"] == "10"
        assert dashboard.ask("/api/v1/overview").status == 200, "the others are answered all the same"
        metrics = dashboard.ask("/metrics").body.decode()
        assert f"tmux_orchestrator_pages {MOST_PAGES}" in metrics
    wait_for(lambda: "tmux_orchestrator_pages 0" in dashboard.ask("/metrics").body.decode(), "the places to be free")
    with dashboard.listening() as stream:
        stream.until("here")


def test_a_page_that_reads_nothing_is_in_nobodys_way(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening() as slow, dashboard.listening() as quick:
        slow.until("here")
        quick.until("here")
        for _ in range(5):
            newest = record(still_team, 900)
            while quick.until("happened")["id"] != newest:
                pass
        ids: list[int] = []
        while not ids or ids[-1] != newest:
            ids.append(slow.until("happened")["id"])
    assert ids == list(range(ids[0], newest + 1)) and len(ids) == 4500


def test_a_team_that_is_gone_is_taken_away(bench: Bench) -> None:
    looks = live.Live(bench.home, Tmux("none"))
    looks.open()
    looks._put({"orchestration/1": {"id": "1"}, "queue": {}}, looks._audience)
    looks._put({"queue": {}}, looks._audience)
    assert looks._pieces["orchestration/1"].text.endswith(b'"value":null}\n\n')
    assert looks._pieces["queue"].number == 1, "what is as it was is not told again"


def test_the_first_look_of_a_page_is_a_new_one(dashboard: Dashboard, still_team: StillTeam) -> None:
    with dashboard.listening() as stream:
        stream.until("changed", piece=f"orchestration/{still_team.id}")
    wait_for(lambda: "tmux_orchestrator_pages 0" in dashboard.ask("/metrics").body.decode(), "it to be noticed")
    pauses.pause(still_team.db, orchestrations.get(still_team.db, still_team.id), now=host.now_ms())
    with dashboard.listening() as stream:
        value = stream.until("changed", piece=f"orchestration/{still_team.id}")["value"]
    assert value["status"] == "paused"


def test_a_look_that_was_begun_for_pages_that_have_gone_is_told_to_nobody(bench: Bench) -> None:
    looks = live.Live(bench.home, Tmux("none"))
    leave, begun_for = looks.open(), looks._audience
    assert leave is not None
    leave()
    looks.open()
    looks._put({"queue": {"paused": False}}, begun_for)
    assert not looks._pieces, "whoever came since would read what was so before"
    looks._put({"queue": {"paused": True}}, looks._audience)
    assert b'"paused":true' in looks._pieces["queue"].text


def test_a_thread_that_has_ended_is_told(bench: Bench) -> None:
    looks = live.Live(bench.home, Tmux("none"))
    assert looks.trouble is None
    looks._thread = threading.Thread(target=int)
    looks._thread.start()
    looks._thread.join()
    assert looks.trouble == "the thread that looks has ended: start the dashboard again"


def test_what_cannot_be_looked_at_is_told_and_looked_at_again(dashboard: Dashboard, still_team: StillTeam) -> None:
    still_team.db.execute("ALTER TABLE candidates RENAME TO hidden")
    with dashboard.listening() as stream:
        stream.until("here")
        wait_for(lambda: dashboard.ask("/healthz").status == 503, "the trouble to be told")
        assert "no such table: candidates" in dashboard.ask("/healthz").sentence
        still_team.db.execute("ALTER TABLE hidden RENAME TO candidates")
        stream.until("changed", piece=f"orchestration/{still_team.id}")
        wait_for(lambda: dashboard.ask("/healthz").status == 200, "all to be well")
