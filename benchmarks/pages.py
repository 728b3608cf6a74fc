"""How soon the dashboard's pages can be used, in a real Chromium with 20 teams of 5 agents."""

from __future__ import annotations

import time

from playwright.sync_api import Browser, Page

from benchmarks import recording
from benchmarks.dashboard import MEMBERS, TEAMS, hundred_agents, serving
from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib import agents, host, store
from tests import browsers

#: A slider is moved, and the moment is drawn: what the browser itself measures.
_STEP = """async (at) => {
    const slider = document.querySelector('input[type=range]'), page = document.querySelector('main');
    const drawn = new Promise((done, never) => {
        const look = (_, watch) => page.querySelector(`[data-at="${at}"]`) && (watch.disconnect(), done());
        new MutationObserver(look).observe(page, { subtree: true, childList: true, attributes: true });
        setTimeout(() => never('the moment was not drawn'), 10000);
    });
    const began = performance.now();
    slider.value = at;
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await drawn;
    return performance.now() - began;
}"""


def pages(counts: Counts) -> list[Figure]:
    """In Chromium: the overview until a team can be clicked, an event until it is read, a step of the timeline."""
    with rehearsal() as machine, hundred_agents(machine), serving(machine) as server:
        _history(machine)
        with browsers.chromium(machine.folder) as browser:
            url = f"http://localhost:{server.port}"
            opened = tuple(_open(browser, url) for _ in range(counts.looks))
            told = _told(browser, url, machine, counts.looks)
            steps = _steps(browser, url, counts.looks)
    many = f"{TEAMS} teams, {TEAMS * MEMBERS} agents"
    return [
        Figure(
            f"the dashboard's overview, {many}: from the address until it can be used",
            "s",
            opened,
            target=1,
            headline=True,
        ),
        Figure(
            f"the dashboard, {many}: from an event's commit until it can be read", "ms", told, target=300, headline=True
        ),
        Figure(
            f"the timeline, {many}, {recording.EVENTS:,} events: a step until it is drawn",
            "ms",
            steps,
            target=100,
            headline=True,
        ),
    ]


def _history(machine: Machine) -> None:
    """Ten thousand events, and screens that change a hundred times, in the last 1,000 seconds."""
    db, began = machine.db(), host.now_ms() - recording.EVENTS * 100
    ids = [agent.id for agent in agents.live(db)]
    recording.happen(db, ids, began)
    recording.show(machine.home, ids, began)


def _open(browser: Browser, url: str) -> float:
    with browsers.page(browser, url) as shown:
        began = time.perf_counter()
        shown.goto("/", wait_until="commit")
        shown.get_by_role("region", name="Teams at work").get_by_role("link").nth(TEAMS - 1).wait_for()
        return time.perf_counter() - began


def _told(browser: Browser, url: str, machine: Machine, count: int) -> tuple[float, ...]:
    db, found = machine.db(), []
    with browsers.page(browser, url) as shown:
        shown.goto("/")
        shown.get_by_role("list", name="Events").wait_for()
        for number in range(count):
            outcome = f"event {number} of {id(db)}"
            with store.writing(db):
                store.record(db, "orchestration.paused", now=host.now_ms(), orchestration="000000", outcome=outcome)
            began = time.perf_counter()
            shown.get_by_text(outcome).wait_for()
            found.append((time.perf_counter() - began) * 1000)
            time.sleep(0.37)  # no multiple of the time between two looks
    return tuple(found)


def _steps(browser: Browser, url: str, count: int) -> tuple[float, ...]:
    with browsers.page(browser, url) as shown:
        shown.goto("/#/timeline")
        shown.get_by_role("heading", name="What had happened").wait_for()
        return tuple(_step(shown, number) for number in range(count))


def _step(shown: Page, number: int) -> float:
    slider = shown.get_by_label("Moment", exact=True)
    earliest, latest = (int(slider.get_attribute(name) or 0) for name in ("min", "max"))
    steps = (latest - earliest) // 1000
    return float(shown.evaluate(_STEP, earliest + 1000 * (steps - 20 - 37 * number % 900)))
