"""The dashboard's pages in a real Chromium: what they show, what they do, and how they look."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from lib import agents, host, messages, recordings, store
from lib.config import ROOT
from lib.models import MessageKind
from tests import browsers
from tests.browsers import page
from tests.conftest import Bench, isolated, wait_for
from tests.dashboards import Dashboard, running

STATIC = ROOT / "templates" / "web" / "static"
SPEC = """# Greeting <img src=x onerror="window.hacked = true">

GOAL: Say hello.

SUCCESS CRITERIA:
- The greeting is there [check: true]
- Somebody has read it
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsers.chromium(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A machine whose team has done its work, and whose queue stands still: the tests of this module share it."""
    with isolated(tmp_path_factory.mktemp("pages")) as made:
        made.environment |= {"TMUX_ORCHESTRATOR_REHEARSAL_PACE": "0.2", "PROJECTS_DIR": str(made.folder)}
        config = made.folder / "home" / ".config" / "tmux-orchestrator" / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("agent: rehearsal\n")
        project = made.project(spec=SPEC)
        made.project("shop")
        made.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer,tester")
        made.ok("scheduler.py", "--queue-pause")
        yield made
        made.door("scheduler.py", "--stop")


@pytest.fixture(scope="module")
def dashboard(machine: Bench) -> Iterator[Dashboard]:
    with running(machine) as made:
        yield made


@contextlib.contextmanager
def team(browser: Browser, dashboard: Dashboard, session: str = "webapp-impl") -> Iterator[Page]:
    """A page that shows a team."""
    with page(browser, dashboard.url) as shown:
        shown.goto(f"/#/team/{session}")
        expect(shown.get_by_role("group", name="Agents")).to_be_visible()
        yield shown


def choose(shown: Page, role: str) -> None:
    shown.get_by_role("group", name="Agents").get_by_role("button", name=re.compile(f"^{role}")).click()


def status(machine: Bench, session: str) -> str:
    (row,) = machine.rows("SELECT status FROM orchestrations WHERE session = ?", session)
    return str(row["status"])


PAGES = {
    "overview": ("#/", "Machine"),
    "team": ("#/team/webapp-impl", "Messages between agents"),
    "queue": ("#/queue", "Add a spec"),
    "timeline": ("#/timeline", "What had happened"),
    "usage": ("#/usage", "Spent by day"),
    "nowhere": ("#/nowhere", "There is no such page"),
    "no-team": ("#/team/nobody", "No team in session nobody"),
}


COLOURS: list[Literal["light", "dark"]] = ["light", "dark"]


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_whole_for_eyes_ears_and_thumbs(
    dashboard: Dashboard, browser: Browser, name: str, width: int
) -> None:
    place, words = PAGES[name]
    with page(browser, dashboard.url, width=width) as shown:
        shown.goto(f"/{place}")
        expect(shown.get_by_role("heading", name=words).first).to_be_visible()
        shown.wait_for_load_state("load")
        for colours in COLOURS:
            shown.emulate_media(color_scheme=colours)
            browsers.picture(shown, f"{name}-{width}-{colours}")
            assert (colours, browsers.overflow(shown), browsers.faults(shown)) == (colours, 0, [])


def test_everything_that_a_page_loads_is_small_and_its_own(dashboard: Dashboard, browser: Browser) -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < 300_000
    with page(browser, dashboard.url) as shown:
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto("/#/usage")
        expect(shown.get_by_role("heading", name="Spent by day")).to_be_visible()
        assert asked and all(url.startswith(f"{dashboard.url}/") for url in asked)


class TestATeam:
    def test_text_of_agents_and_specs_stays_text(self, dashboard: Dashboard, browser: Browser) -> None:
        with page(browser, dashboard.url) as shown:
            shown.goto("/#/team/webapp-impl")
            expect(shown.get_by_text('<img src=x onerror="window.hacked = true">').first).to_be_visible()
            assert shown.evaluate("window.hacked") is None

    def test_a_message_is_followed_until_it_has_arrived(
        self, machine: Bench, dashboard: Dashboard, browser: Browser
    ) -> None:
        text = f"Look at <b>this</b> & that {uuid.uuid4().hex}"
        with team(browser, dashboard) as shown:
            choose(shown, "tester")
            shown.get_by_label("A message to tester").fill(text)
            shown.get_by_role("button", name="Send").click()
            expect(shown.get_by_text(re.compile(r"message \d+ acknowledged in"))).to_be_visible()
            expect(shown.get_by_role("group", name="What tester shows now")).to_contain_text(text[:40])
        rows = machine.rows("SELECT sender, status FROM messages WHERE body = ?", text)
        assert [(row["sender"], row["status"]) for row in rows] == [("user", "acknowledged")]

    def test_a_permission_dialog_is_answered(self, machine: Bench, dashboard: Dashboard, browser: Browser) -> None:
        with team(browser, dashboard) as shown:
            choose(shown, "developer")
            shown.get_by_label("A message to developer").fill("rehearse: ask")
            shown.get_by_role("button", name="Send").click()
            dialog = shown.get_by_role("group", name="A dialog is open")
            expect(dialog).to_be_visible()
            browsers.picture(shown, "dialog-1280-light")
            assert browsers.faults(shown) == []
            dialog.get_by_role("button", name="1. Yes").click()
            expect(shown.get_by_role("group", name="What developer shows now")).to_contain_text("The answer was yes.")
            expect(dialog).to_be_hidden()

    def test_the_keyboard_is_enough(self, dashboard: Dashboard, browser: Browser) -> None:
        with team(browser, dashboard) as shown:
            shown.keyboard.press("Tab")
            expect(shown.get_by_role("link", name="To the page")).to_be_focused()
            agent = shown.get_by_role("group", name="Agents").get_by_role("button").nth(1)
            for _ in range(40):
                if agent.evaluate("one => one === document.activeElement"):
                    break
                shown.keyboard.press("Tab")
            shown.keyboard.press("Enter")
            expect(agent).to_have_attribute("aria-pressed", "true")

    def test_the_graph_and_the_criteria_tell_in_words_too(self, dashboard: Dashboard, browser: Browser) -> None:
        with team(browser, dashboard) as shown:
            expect(shown.get_by_role("img", name=re.compile(r"orchestrator to developer: \d+ message"))).to_be_visible()
            criterion = shown.get_by_role("row").filter(has_text="The greeting is there")
            expect(criterion).to_contain_text("C1")

    def test_it_is_paused_goes_on_and_only_asked_twice_stopped(
        self, machine: Bench, dashboard: Dashboard, browser: Browser
    ) -> None:
        # A team that holds its work: one that reports the end of it in time would be completed, not stopped.
        project = machine.project("paused", spec="# Hold\n\nrehearse: hold\n")
        machine.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator,developer")
        with team(browser, dashboard, "paused-impl") as shown:
            shown.get_by_role("button", name="Pause", exact=True).click()
            shown.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
            shown.get_by_role("button", name="Let it go on").click()
            expect(shown.get_by_role("button", name="Pause", exact=True)).to_be_visible()
            shown.get_by_role("button", name="Stop", exact=True).click()
            shown.get_by_role("button", name="Leave it").click()
            assert status(machine, "paused-impl") == "running"
            shown.get_by_role("button", name="Stop", exact=True).click()
            shown.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
            wait_for(lambda: status(machine, "paused-impl") == "stopped", "the stop")
            expect(shown.get_by_role("button", name="Stop", exact=True)).to_have_count(0)


class TestTheQueue:
    def test_specs_are_added_ordered_cancelled_and_tried_again(
        self, machine: Bench, dashboard: Dashboard, browser: Browser
    ) -> None:
        shop = machine.folder / "shop"
        (shop / "second.md").write_text("# Second\n\nGOAL: Be the second.\n")
        upload = {"name": "first.md", "mimeType": "text/markdown", "buffer": b"# First\n\nGOAL: Be the first.\n"}
        with page(browser, dashboard.url) as shown:
            shown.goto("/#/queue")
            shown.get_by_label("Spec", exact=True).set_input_files(upload)  # type: ignore[arg-type]
            shown.get_by_label("Project", exact=True).fill(str(shop))
            shown.get_by_role("button", name="Queue it").click()
            expect(shown.get_by_role("button", name="first.md")).to_be_visible()
            shown.get_by_label("From").select_option("path")
            shown.get_by_label("Spec", exact=True).fill(str(shop / "second.md"))
            shown.get_by_label("Project", exact=True).fill(str(shop))
            shown.get_by_role("button", name="Queue it").click()
            expect(shown.get_by_role("button", name="second.md")).to_be_visible()
            row = shown.get_by_role("row").filter(has_text="second.md")
            row.get_by_role("button", name="Earlier").click()
            expect(row.get_by_role("button", name="Earlier")).to_have_count(0)
            order = machine.rows("SELECT spec_path FROM queue_entries ORDER BY priority DESC, id")
            assert [Path(one["spec_path"]).name for one in order] == ["second.md", "first.md"]
            row.get_by_role("button", name="Cancel").click()
            row.get_by_role("dialog").get_by_role("button", name="Cancel").click()
            expect(row).to_contain_text("cancelled")
            row.get_by_role("button", name="Again").click()
            expect(row).to_contain_text("queued")
            row.get_by_role("button", name="second.md").click()
            expect(shown.get_by_text("Not tried yet.")).to_be_visible()

    def test_a_path_outside_of_the_allowed_folders_is_refused_in_words(
        self, dashboard: Dashboard, browser: Browser
    ) -> None:
        with page(browser, dashboard.url) as shown:
            shown.goto("/#/queue")
            shown.get_by_label("From").select_option("path")
            shown.get_by_label("Spec", exact=True).fill("/etc/passwd")
            shown.get_by_label("Project", exact=True).fill("/etc")
            shown.get_by_role("button", name="Queue it").click()
            expect(shown.get_by_text("is not in a folder that the dashboard may use")).to_be_visible()


@contextlib.contextmanager
def filmed(machine: Bench) -> Iterator[str]:
    """The session of a team that is at work, and whose screen has been recorded since it was briefed."""
    project = machine.project("filmed")
    machine.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "60"
    machine.ok("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--roles", "orchestrator")
    machine.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "0.2"
    (agent,) = machine.rows("SELECT id FROM agents WHERE session = 'filmed-impl'")

    def is_recorded() -> bool:
        reader = recordings.reader(machine.home)
        shots = reader.at([agent["id"]], host.now_ms()) if reader else {}
        if reader:
            reader.close()
        pictures = (one.seen.picture for one in shots.values())
        return any("You are starting work on" in picture.text for picture in pictures if picture)

    wait_for(is_recorded, "the recording")
    yield "filmed-impl"
    machine.ok("claude_control.py", "stop", "filmed-impl")


class TestTheTimeline:
    def test_a_moment_is_shown_as_it_was(self, machine: Bench, dashboard: Dashboard, browser: Browser) -> None:
        with filmed(machine) as session, page(browser, dashboard.url) as shown:
            shown.goto(f"/#/timeline/{session}")
            expect(shown.get_by_role("group", name="Agents then").get_by_role("button")).to_have_count(1)
            screen = shown.get_by_role("group", name="What orchestrator showed then")
            expect(screen).to_contain_text("You are starting work on")
            before = shown.get_by_role("button", name="Event before")
            for _ in range(300):  # back to before there was a team
                if before.is_disabled():
                    break
                before.click()
            shown.get_by_label("Moment", exact=True).press("ArrowLeft")
            expect(shown.get_by_text("No team was running then.")).to_be_visible()

    def test_two_moments_are_compared(self, dashboard: Dashboard, browser: Browser) -> None:
        with page(browser, dashboard.url) as shown:
            shown.goto("/#/timeline/webapp-impl")
            shown.get_by_role("button", name="Compare two").click()
            expect(shown.get_by_role("heading", name="Commits")).to_be_visible()
            expect(shown.get_by_text(re.compile("developer's branch moves|developer reports")).first).to_be_visible()
            browsers.picture(shown, "compare-1280-light")
            assert browsers.faults(shown) == []


class TestALongNight:
    def test_a_page_that_slept_misses_nothing(self, machine: Bench, browser: Browser) -> None:
        db = store.connect(machine.home)
        agent = machine.rows("SELECT id FROM agents WHERE role = 'tester' ORDER BY id")[0]["id"]
        with running(machine) as first, page(browser, first.url) as shown:
            shown.goto("/")
            expect(shown.get_by_text("live", exact=True)).to_be_visible()
            first.end()
            expect(shown.get_by_text("reconnecting", exact=True)).to_be_visible()
            said = f"while it slept {uuid.uuid4().hex}"
            with store.writing(db):
                orchestration = db.execute("SELECT orchestration_id FROM agents WHERE id = ?", (agent,)).fetchone()[0]
                store.record(db, "orchestration.paused", now=host.now_ms(), orchestration=orchestration, outcome=said)
            with running(machine, "--port", str(first.port)):
                expect(shown.get_by_text("live", exact=True)).to_be_visible()
                expect(shown.get_by_text(said)).to_be_visible()

    def test_a_server_that_has_ended_is_said(self, machine: Bench, browser: Browser) -> None:
        with running(machine) as own, page(browser, own.url) as shown:
            shown.goto("/#/usage")
            expect(shown.get_by_role("heading", name="Spent by day")).to_be_visible()
            own.end()
            shown.get_by_label("Since").select_option("30")
            expect(shown.get_by_text("the dashboard's server does not answer").first).to_be_visible()


class TestWhoMayDoWhat:
    def test_read_only_pages_have_nothing_to_press(self, machine: Bench, browser: Browser) -> None:
        with running(machine, "--read-only") as own, team(browser, own) as shown:
            expect(shown.get_by_text("read only")).to_be_visible()
            for name in ("Pause", "Stop", "Send", "Let it go on"):
                expect(shown.get_by_role("button", name=name)).to_have_count(0)
            shown.goto("/#/queue")
            expect(shown.get_by_role("heading", name="Specs")).to_be_visible()
            expect(shown.get_by_role("button", name="Queue it")).to_have_count(0)

    def test_the_token_in_the_address_logs_in_and_leaves_it(self, machine: Bench, browser: Browser) -> None:
        with running(machine, "--token", "--new-token") as own, page(browser, own.url) as shown:
            shown.goto("/")
            expect(shown.get_by_label("Token")).to_be_visible()
            assert browsers.faults(shown) == []
            browsers.picture(shown, "login-1280-light")
            shown.goto(f"/login#{own.token}")
            expect(shown.get_by_role("heading", name="Machine")).to_be_visible()
            assert own.token and own.token not in shown.url
            shown.get_by_role("button", name="Log out").click()
            expect(shown.get_by_label("Token")).to_be_visible()


class TestNothingAndTooMuch:
    def test_a_machine_without_any_team(self, bench: Bench, browser: Browser) -> None:
        with running(bench) as own, page(browser, own.url) as shown:
            shown.goto("/")
            expect(shown.get_by_role("heading", name="No team is running")).to_be_visible()
            browsers.picture(shown, "empty-1280-light")
            assert browsers.faults(shown) == []
            shown.goto("/#/timeline")
            expect(shown.get_by_text("No team was running then.")).to_be_visible()

    def test_a_tmux_server_that_is_gone_and_a_message_of_a_megabyte(self, bench: Bench, browser: Browser) -> None:
        project = bench.project()
        bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"
        words = ("--spec", str(project / "spec.md"), "--agent", "rehearsal", "--roles", "orchestrator")
        bench.ok("auto_orchestrate.py", *words)
        bench.door("scheduler.py", "--stop")
        db = store.connect(bench.home)
        agent = bench.rows("SELECT id FROM agents")[0]["id"]
        long = "long words " * 90_000
        messages.queue(db, agents.get(db, agent), long, sender="user", kind=MessageKind.MESSAGE, now=host.now_ms())
        bench.tmux.run("kill-server")
        with running(bench) as own, page(browser, own.url, width=375) as shown:
            shown.goto("/")
            expect(shown.get_by_role("heading", name="Needs you")).to_be_visible()
            assert browsers.overflow(shown) == 0
            browsers.picture(shown, "trouble-375-light")
            shown.goto("/#/team/webapp-impl")
            expect(shown.get_by_text("has no window now")).to_be_visible()
            assert browsers.overflow(shown) == 0
