"""The fleet in the monitor and in the dashboard, from what a link has kept."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from rich.console import Console

from lib import errands, host, overview
from lib.fleet import accounts, members, totals, views
from lib.fleet.members import Sighting, Standing
from lib.fleet.totals import Told, Total
from lib.front import projects
from tests import browsers
from tests.conftest import Bench
from tests.dashboards import Dashboard, running


def record(**changed: object) -> dict[str, object]:
    return {
        **{"version": "0.1.0", "at": 1, "labels": ["gpu"], "agents": 3, "capacity": 8, "cpus": 4, "entries": 1},
        **{"memory_free_mb": 9000, "load": 1.5, "teams": [{"session": "webapp-impl", "status": "running"}]},
        **changed,
    }


@pytest.fixture
def hosts(bench: Bench) -> Iterator[Bench]:
    """A machine whose link has heard of four hosts: at work, ordered about, silent, and too new."""
    now = host.now_ms()
    with contextlib.closing(bench.db()) as db, errands.working(bench.home, members.LINK):
        members.tell_link(db, "tls://base:4222", host="box-1", now=now)
        silent = Sighting("box-3", record(teams=[]), now - 94_000, 0)
        new = Sighting("box-4", {}, now, 0, "another host writes version 9, and this one reads up to 1")
        odd = Sighting("box-2", record(agents=0, teams=[]), now, 65_000)
        members.saw(db, [Sighting("box-1", record(), now, 0), odd, silent, new], now=now)
        members.heard_order(db, "box-2", Standing.CORDONED)
        members.order(db, "box-3", Standing.DRAINING, now=now)
        _share_an_account(db, bench, now)
        yield bench


def _share_an_account(db: sqlite3.Connection, bench: Bench, now: int) -> None:
    """Its agents share an account with those of box-2, which has met a limit and has spent more."""
    account, day = "a" * 32, totals.day_of(now)
    totals.use(db, {bench.home / "rehearsal": account})
    own = Told("box-1", {account: {day: Total(3.2, 1000)}}, is_own=True)
    totals.heard(db, [own, Told("box-2", {account: {day: Total(5.9, 2000)}})], now=now)
    limit = {"kind": "five_hour", "resets_at": now + 3_600_000, "said": "limited", "tries": 0, "round": 1, "at": now}
    told = limit | {"state": "trying", "host": "box-2", "trier": "box-1", "term": 1}
    accounts.heard(db, account, 1, told, now=now)


@pytest.fixture
def dashboard(hosts: Bench) -> Iterator[Dashboard]:
    with running(hosts) as made:
        yield made


def test_the_monitor_shows_all_hosts(hosts: Bench) -> None:
    out = hosts.ok("multi_project_monitor.py").out
    assert "fleet: connected to tls://base:4222 as box-1" in out
    assert "box-2  seen" in out and "cordoned: it takes nothing new" in out
    assert "its clock is 1 min ahead of this host's" in out
    assert "box-3  not seen for 1 min" in out and "drain is on its way" in out
    assert "this one reads up to 1" in out and "webapp-impl (running)" in out
    assert max(map(len, out.splitlines())) <= 100
    found = hosts.ok("multi_project_monitor.py", "--json").json["fleet"]
    assert [one["free"] for one in found["hosts"]] == [5, 0, 5, 0]


SPENT = "$3.20 here, $9.10 on the 2 hosts of its account"


def test_status_and_costs_tell_of_the_account(hosts: Bench) -> None:
    path = Path(hosts.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("agent: rehearsal\nfleet: {url: 'nats://127.0.0.1:1', host: box-1}\n")
    done = hosts.ok("claude_control.py", "fleet", "status")
    assert f"spent:   {SPENT} today (UTC)" in done.out
    assert "five-hour limit until" in done.out and "met on box-2; this host tries whether it is over" in done.out
    found = hosts.ok("claude_control.py", "fleet", "status", "--json").json["accounts"]
    assert [one["total"]["tokens"] for one in found] == [3000]
    assert f"in the fleet today (UTC): {SPENT}" in hosts.ok("claude_control.py", "costs").out


def test_a_live_monitor_has_the_same(hosts: Bench) -> None:
    with contextlib.closing(hosts.db()) as db:
        now = host.now_ms()
        seen = overview.Overview(now, (), {}, False, views.look_if_any(db, hosts.home, now=now))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(projects.picture(seen, 140))
    shown = console.export_text()
    assert "Fleet  connected to tls://base:4222 as box-1" in shown
    assert "not seen for 1 min" in shown and "cordoned: it takes nothing new" in shown


def test_the_api_tells_of_it(dashboard: Dashboard) -> None:
    found = dashboard.get("/fleet")
    assert found["link"]["is_connected"] and found["waiting"] == ["drain box-3"]
    assert any("met on box-2" in line for line in found["accounts"]) and SPENT in found["accounts"][1]
    assert [(one["name"], one["is_seen"]) for one in found["hosts"]] == [
        *(("box-1", True), ("box-2", True), ("box-3", False), ("box-4", True))
    ]
    assert dashboard.get("/overview")["at"]


def test_a_machine_of_no_fleet_has_none(bench: Bench) -> None:
    with running(bench) as made:
        answer = made.ask("/api/v1/fleet")
        assert answer.status == 404 and "this machine is of no fleet" in answer.sentence


def test_the_page_shows_the_hosts(dashboard: Dashboard, tmp_path: Path) -> None:
    with browsers.chromium(tmp_path) as browser, browsers.page(browser, dashboard.url) as shown:
        shown.goto("/")
        card = shown.locator("section.card", has=shown.get_by_role("heading", name="Fleet"))
        expect(card).to_contain_text("connected to tls://base:4222 as box-1")
        expect(card).to_contain_text("3 of 8 agents")
        expect(card).to_contain_text("not seen for 1 min")
        expect(card).to_contain_text("cordoned: it takes nothing new")
        expect(card).to_contain_text("Waits to be sent: drain box-3")
        expect(card).to_contain_text(SPENT)
        for width in (1280, 420):
            shown.set_viewport_size({"width": width, "height": 900})
            assert (browsers.overflow(shown), browsers.faults(shown)) == (0, [])
