#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[dev]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Runs the tests from the command line; the tests themselves are in tests/."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import click

from lib.config import ROOT
from lib.errors import ExitCode, NotFound, Unavailable
from lib.front import cli

TESTS = ROOT / "tests"
CLAUDE = ".dev/claude/node_modules/@anthropic-ai/claude-code-*/claude"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROME_ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"

#: The classes that the README names: each is all test files about one subject, below tests/.
SUBJECTS = {
    "TestFullOrchestration": ("journeys/test_launch.py",),
    "TestMessaging": (
        *("integration/test_messages.py", "integration/test_delivery.py", "integration/test_delivery_faults.py"),
        *("integration/test_hub.py", "claude_code/test_messages.py"),
    ),
    "TestScheduling": (
        *("journeys/test_a_day.py", "integration/test_checkins.py", "integration/test_cron.py"),
        *("integration/test_daemon.py", "integration/test_reminding.py"),
    ),
    "TestQueue": ("journeys/test_queue.py", "integration/test_queue.py", "integration/test_intake.py"),
    "TestRecovery": (
        *("journeys/test_resume.py", "integration/test_keeping.py", "integration/test_nothing_is_lost.py"),
        "claude_code/test_resume.py",
    ),
    "TestGit": (
        *("journeys/test_branches.py", "journeys/test_merging.py", "integration/test_worktrees.py"),
        *("integration/test_snapshots.py", "integration/test_merges.py", "integration/test_merge_hub.py"),
        *("integration/test_guards.py", "integration/test_syncing.py", "integration/test_delivering.py"),
    ),
    "TestLimits": ("journeys/test_limits.py", "integration/test_limits.py", "claude_code/test_limits.py"),
    "TestDashboard": (
        *("integration/test_dashboard.py", "integration/test_dashboard_attacks.py"),
        *("integration/test_dashboard_contract.py", "integration/test_dashboard_live.py"),
        "integration/test_dashboard_pages.py",
    ),
    "TestRealClaudeCode": ("claude_code",),
}

#: What reaches the tests of the shell that they are started from: nothing that could name an account,
#: only what programs need to run, and what package clients need to reach their registries.
KEPT = (
    *("PATH", "HOME", "LANG", "TERM", "TMPDIR", "UV_CACHE_DIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *(
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    ),
)
KEPT_PREFIXES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_PYTHON", "PIP_", "NPM_CONFIG_", "npm_config_")

#: pytest's exit codes in the words of the house; its own 5 ("no test ran") would mean "not now" here.
EXIT_CODES = {
    0: ExitCode.DONE,
    1: ExitCode.FAILED,
    2: ExitCode.INTERRUPTED,
    3: ExitCode.BUG,
    4: ExitCode.USAGE,
    5: ExitCode.NOT_FOUND,
}


@cli.command(
    examples="""
    ./test_integration.py
    ./test_integration.py TestFullOrchestration
    ./test_integration.py -v -k check_in
    ./test_integration.py --coverage
    ./test_integration.py --long
    """
)
@click.argument("test_class", metavar="[CLASS]", required=False)
@click.option("-k", "expression", metavar="EXPR", help="Run the tests whose names match, as pytest's -k.")
@click.option("--coverage", is_flag=True, help="Tell which lines of lib/ no test runs.")
@click.option("--long", "is_long", is_flag=True, help="Every point of what is sampled otherwise: half an hour.")
@cli.pass_output
def main(output: cli.Output, test_class: str | None, expression: str | None, coverage: bool, is_long: bool) -> int:
    """Run the tests, all or those of one class. Installs nothing: ./setup.sh --dev does.

    CLASS is one of a test file, or a subject: a name of the README that stands for all files about it.
    """
    words = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"]
    words += selection(test_class, expression)
    check_tools(output, required=not (test_class or expression))
    words += ["--cov=lib", "--cov-report=term-missing"] if coverage else []
    words += ["--long"] if is_long else []
    words += ["-v"] if output.verbose else ["-q"] if output.quiet else []
    if not output.json:
        return run_pytest(words)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = run_pytest([*words, f"--junit-xml={report}"], stdout=sys.stderr)
        output.answer("", summary(report) | {"exit_code": code})
    return code


def selection(test_class: str | None, expression: str | None) -> list[str]:
    """pytest's words for what was asked for: a subject by its files, a class by its name. Raises `NotFound`."""
    files = SUBJECTS.get(test_class or "", ())
    if test_class and not files:
        check_class(test_class)
    named = [test_class] if test_class and not files else []
    names = " and ".join(f"({part})" for part in (*named, expression) if part)
    return [*(["-k", names] if names else []), *(str(TESTS / file) for file in files)]


def check_class(name: str) -> None:
    """Raise `NotFound` with the subjects, and the classes that exist."""
    classes = sorted(
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
    )
    if name not in classes:
        hint = f"a subject: {', '.join(SUBJECTS)}; or a class: {', '.join(classes)}"
        raise NotFound(f"no test class {name}", hint=hint)


def check_tools(output: cli.Output, *, required: bool) -> None:
    """Name what is missing before anything starts; for a selection of tests it may not matter."""
    missing = [name for name in ("tmux", "git", "shellcheck") if not shutil.which(name)]
    if not any(os.access(path, os.X_OK) for path in ROOT.glob(CLAUDE)):
        missing.append("the pinned Claude Code")
    if not any(map(shutil.which, CHROMIUMS)) and not os.access(CHROME_ON_MACOS, os.X_OK):
        missing.append("chromium")
    if missing and required:
        raise Unavailable(f"the tests need {', '.join(missing)}", hint="./setup.sh --dev")
    if missing:
        output.say(f"missing: {', '.join(missing)}; tests that need it will fail. To get it: ./setup.sh --dev")


def environment() -> dict[str, str]:
    """The environment of the tests. Homes made by tests share uv's warm cache."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "uv"
    return {"LANG": "C.UTF-8", "TERM": "xterm-256color", "UV_CACHE_DIR": str(cache)} | kept


def run_pytest(words: list[str], *, stdout: TextIO | None = None) -> int:
    """Run pytest; the end of its output, its summary, is the end of ours."""
    command = [sys.executable, "-m", "pytest", *words]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=stdout) as pytest:
        while True:
            try:
                return EXIT_CODES.get(pytest.wait(), ExitCode.FAILED)
            except KeyboardInterrupt:
                continue  # pytest got it too: it stops its workers and tells what failed so far


def summary(report: Path) -> dict[str, object]:
    """The counts of a JUnit report; empty when pytest ended before it wrote one."""
    if not report.exists():
        return {}
    suites = list(ElementTree.parse(report).iter("testsuite"))
    counts = {name: sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors")}
    skipped = sum(int(suite.get("skipped", "0")) for suite in suites)
    passed = counts["tests"] - counts["failures"] - counts["errors"] - skipped
    seconds = sum(float(suite.get("time", "0")) for suite in suites)
    return {"passed": passed, **counts, "skipped": skipped, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    cli.run(main)
