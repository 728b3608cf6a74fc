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
    """Run the tests, all or those of one class. Installs nothing: ./setup.sh --dev does."""
    if test_class:
        check_class(test_class)
    selection = " and ".join(f"({part})" for part in (test_class, expression) if part)
    check_tools(output, required=not selection)
    words = ["-n", str(max(2, (os.cpu_count() or 1) + 1)), "--dist", "worksteal"]
    words += ["-k", selection] if selection else []
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


def check_class(name: str) -> None:
    """Raise `NotFound` with the classes that exist."""
    classes = sorted(
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
    )
    if name not in classes:
        hint = f"one of: {', '.join(classes)}" if classes else "there are none; -k EXPR selects by name"
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
