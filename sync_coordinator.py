#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Keeps what worktrees hold, and brings it together; the verbs are in lib/front/syncing/."""

from lib.front import cli
from lib.front.syncing import main

if __name__ == "__main__":
    cli.run(main)
