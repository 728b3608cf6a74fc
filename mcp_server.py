#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[mcp]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""The verbs that agents use all day as tools, over MCP; every agent starts one (room: lib/front/mcp_server.py)."""

from __future__ import annotations

import sys

from lib.errors import Usage
from lib.front import cli, mcp_server


@cli.command(examples="mcp_server.py")
def main() -> None:
    """Serve the team's tools over standard input and output to the agent that starts this."""
    if sys.stdin.isatty():
        raise Usage("an agent starts this, and talks to it; a person has the verbs", hint="claude_control.py --help")
    mcp_server.serve()


if __name__ == "__main__":
    cli.run(main)
