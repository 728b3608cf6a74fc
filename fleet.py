#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator[fleet]"]
# [tool.uv.sources]
# tmux-orchestrator = { path = ".", editable = true }
# ///
"""Many machines as one: founds a fleet, joins one, links this host to it (lib/front/founding.py, fleeting.py)."""

from __future__ import annotations

from pathlib import Path

import click

from lib import config
from lib.front import cli
from lib.front.cli import Output


@cli.group(
    examples="""
    fleet.py init
    fleet.py init --address base.example.org build-1 build-2
    fleet.py join build-1.fleet
    fleet.py remove build-2
    """
)
def main() -> None:
    """Make machines a fleet: found one here, join one, and keep this host linked."""


@cli.verb(
    main,
    examples="""
    fleet.py init
    fleet.py init --address base.example.org --address 10.0.0.7 build-1 build-2
    fleet.py init --address base.example.org --server b2.example.org --server b3.example.org
    fleet.py init build-3
    fleet.py init --renew build-1
    """,
)
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--name", metavar="NAME", help="How the fleet names this machine (default: its own short name).")
@click.option("--listen", metavar="ADDRESS:PORT", help="Where the server listens (default 0.0.0.0:4222).")
@click.option("--address", multiple=True, metavar="NAME", help="By which name or IP address hosts reach this machine.")
@click.option("--server", multiple=True, metavar="ADDRESS", help="A further server of a cluster; two at least.")
@click.option("--renew", is_flag=True, help="Make these hosts' certificates anew; those before are worth nothing.")
@cli.pass_output
def init(output: Output, /, **options: object) -> None:
    """Found a fleet on this machine, or let further hosts join the one that it has founded."""
    from lib.front import founding  # noqa: PLC0415 - cryptography: 0.2 s, and the link runs for ever without it

    founding.init(output, config.state_home(), founding.Request.of(options))


@cli.verb(main, examples="fleet.py join build-1.fleet")
@click.argument("file", type=click.Path(path_type=Path))
@cli.pass_output
def join(output: Output, file: Path) -> None:
    """Make this machine a host of a fleet, by the file that `init` has written for it."""
    from lib.front import founding  # noqa: PLC0415 - as above

    founding.join(output, config.state_home(), file)


@cli.verb(main, examples="fleet.py remove build-2")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@cli.pass_output
def remove(output: Output, hosts: tuple[str, ...]) -> None:
    """Take hosts out of the fleet that this machine has founded."""
    from lib.front import founding  # noqa: PLC0415 - as above

    founding.remove(output, config.state_home(), hosts)


@cli.verb(main, examples="fleet.py link")
@cli.pass_output
def link(output: Output) -> None:
    """Keep this host linked to the fleet, as the scheduler has it done.

    It ends by itself when no scheduler runs for a minute, or `fleet:` of the configuration changes.
    """
    from lib.front import fleeting  # noqa: PLC0415 - NATS: 0.2 s

    fleeting.link(output, config.state_home())


if __name__ == "__main__":
    cli.run(main)
