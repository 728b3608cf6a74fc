"""The API keeps to its own description: schemathesis reads openapi.json and finds nothing wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.dashboards import running
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

#: How many requests are made up for each operation, beside those at the edges of its schema.
EXAMPLES = 4


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(still_team: StillTeam, is_long: bool) -> None:
    bench = still_team.bench
    with running(bench) as dashboard:
        dashboard.visit()
        session = [f"{name}: {value}" for name, value in dashboard.headers.items()]
        command = [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"http://localhost:{dashboard.port}/api/v1/openapi.json",
            ),
            *(word for header in session for word in ("--header", header)),
            *("--checks", "all", "--seed", "1", "--no-color"),
            *("--max-examples", str(300 if is_long else EXAMPLES), "--generation-database", ":memory:"),
        ]
        done = subprocess.run(
            command, cwd=bench.folder, env=bench.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert dashboard.ask("/healthz").status == 200
    assert "bug:" not in (bench.folder / "dashboard.err").read_text()
