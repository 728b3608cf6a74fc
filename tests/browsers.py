"""The system's Chromium, driven by Playwright: isolated as everything else that tests start."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import ROOT

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
#: Git-ignored; what is in it can be looked at after a run.
PICTURES = ROOT / "tests" / "artefacts"


@contextlib.contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """A browser with nothing of this machine in it but how programs are found."""
    found = next(filter(None, map(shutil.which, _NAMES)), _ON_MACOS)
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment: dict[str, str | float | bool] = {**inherited, "HOME": str(home)}
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=as_root, env=environment)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page(browser: Browser, url: str, *, width: int = 1280) -> Iterator[Page]:
    """A page of its own; whatever goes wrong in it, such as a script that throws, fails the test at its end."""
    context = browser.new_context(base_url=url, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    made, wrong = context.new_page(), list[str]()
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    try:
        yield made
        # What the server refuses on purpose is told by the page itself.
        assert [one for one in wrong if not one.startswith("Failed to load resource")] == []
    finally:
        context.close()


def faults(shown: Page) -> list[str]:
    """What axe-core calls serious or critical, each with the elements."""
    return [
        f"{one['id']}: {one['help']}: {', '.join(str(node['target']) for node in one['nodes'])}"
        for one in Axe().run(shown).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def overflow(shown: Page) -> int:
    """By how many pixels a page is wider than its window."""
    return int(shown.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def picture(shown: Page, name: str) -> None:
    """Keep what a page looks like."""
    PICTURES.mkdir(exist_ok=True)
    shown.screenshot(path=PICTURES / f"{name}.png", full_page=True)
