"""claude_control.py: its verbs, a module for each kind of them."""

from __future__ import annotations

from lib.front import cli


@cli.group(
    examples="""
    claude_control.py status
    claude_control.py send webapp-impl:developer "What is left to do?"
    claude_control.py attach webapp-impl:tester
    claude_control.py costs webapp-impl
    claude_control.py stop webapp-impl
    """
)
def main() -> None:
    """See the agents and talk to them."""


# The verbs register themselves with `main`.
from lib.front.control import (  # noqa: E402
    budget,
    commits,
    costs,
    criteria,
    hub,
    insights,
    mail,
    monitor,
    progress,
    report,
    team,
)

__all__ = [
    "budget",
    "commits",
    "costs",
    "criteria",
    "hub",
    "insights",
    "mail",
    "main",
    "monitor",
    "progress",
    "report",
    "team",
]
