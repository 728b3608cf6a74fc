#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[dev]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "..", editable = true }
# ///
"""Makes docs/dashboard.png: a rehearsal team at work on an isolated machine, as a browser shows it."""

from __future__ import annotations

from playwright.sync_api import expect

from benchmarks.dashboard import serving
from benchmarks.machine import Machine, rehearsal
from lib.config import ROOT
from lib.front import cli
from tests import browsers

PICTURE = ROOT / "docs" / "dashboard.png"
ROLES = "orchestrator,developer,tester,testrunner"
SPEC = """# A shop that says hello

GOAL: A small shop that greets whoever comes in.

SUCCESS CRITERIA:
- The greeting is there [check: true]
- The shop is documented [check: test -e README.md]
- Somebody has read it aloud
"""


@cli.command(examples="docs/make_dashboard_picture.py")
@cli.pass_output
def main(output: cli.Output) -> None:
    """Launch a team, wait until its agents write to each other, and draw docs/dashboard.png."""
    with rehearsal() as machine, serving(machine) as server, browsers.chromium(machine.folder) as browser:
        launch(machine)
        with browsers.page(browser, f"http://localhost:{server.port}") as shown:
            shown.goto("/#/team/shop-impl")
            graph = shown.get_by_role("img", name="developer to tester")
            expect(graph).to_be_visible(timeout=120_000)
            shown.get_by_role("group", name="Agents").get_by_role("button", name="tester").first.click()
            expect(shown.get_by_role("group", name="What tester shows now")).to_contain_text("msg")
            shown.evaluate("scrollTo(0, 0)")
            shown.screenshot(path=PICTURE)
    output.answer(f"wrote {PICTURE.relative_to(ROOT)}")


def launch(machine: Machine) -> None:
    """Start a team that takes its time."""
    machine.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "12"
    project = machine.project().rename(machine.folder / "shop")
    (project / "spec.md").write_text(SPEC, encoding="utf-8")
    machine.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal", "--roles", ROLES)


if __name__ == "__main__":
    cli.run(main)
