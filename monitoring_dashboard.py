#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[web]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Shows all teams in a browser, live, and takes what a person wants of them; the rooms are lib/front/web/."""

from __future__ import annotations

import click

from lib import config
from lib.front import cli
from lib.front.cli import Output


@cli.command(
    examples="""
    monitoring_dashboard.py
    monitoring_dashboard.py --open
    monitoring_dashboard.py --port 8080 --host 0.0.0.0
    monitoring_dashboard.py --read-only
    monitoring_dashboard.py --debug
    """
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5000, metavar="PORT", help="Where it listens (default 5000)."
)
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Listen here; any but this machine itself takes a token."
)
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@click.option("--read-only", "is_read_only", is_flag=True, help="Refuse every change.")
@click.option("--token", "takes_token", is_flag=True, help="Take a token on this machine too: others use it as well.")
@click.option("--new-token", is_flag=True, help="Make and print a new token; whoever is logged in is so no more.")
@click.option("--debug", is_flag=True, help="Print every request, and more of what goes wrong.")
@cli.pass_output
def main(
    output: Output,
    port: int,
    host: str,
    opens: bool,
    is_read_only: bool,
    takes_token: bool,
    new_token: bool,
    debug: bool,
) -> None:
    """Watch and steer all teams in a browser: http://localhost:5000, until Ctrl-C."""
    from lib.front.web import serving  # noqa: PLC0415 - a web server, which --help need not wait for

    wanted = serving.Request(host, port, opens, is_read_only, takes_token, new_token, debug)
    serving.serve(output, config.state_home(), wanted)


if __name__ == "__main__":
    cli.run(main)
