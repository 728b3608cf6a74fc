#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""See agents and talk to them; the verbs are in lib/front/control/."""

from lib.front import cli
from lib.front.control import main

if __name__ == "__main__":
    cli.run(main)
