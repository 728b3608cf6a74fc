"""The verb that looks again and again: monitor."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from lib import host
from lib.errors import NotFound
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lib.status import OrchestrationStatus

#: The colour of each state, and of a team's status.
_COLOURS = {"working": "green", "asking": "bold red", "limited": "yellow", "gone": "red", "idle": "default"}


@cli.verb(
    main,
    examples="""
    claude_control.py monitor
    claude_control.py monitor webapp-impl --interval 5
    claude_control.py monitor --json
    """,
)
@click.argument("session", required=False)
@click.option(
    "--interval", type=click.FloatRange(0.5), default=5, metavar="SECONDS", help="How often to look (default 5)."
)
@cli.pass_output
def monitor(output: Output, session: str | None, interval: float) -> None:
    """Watch what every agent does, of all teams or of one, until Ctrl-C; with --json a line for each look."""
    from lib.front import live  # noqa: PLC0415 - the verbs beside this one need it not

    desk = caller()
    if session and not _look(desk, session)[1]:
        raise NotFound(f"no team in session {session!r}", hint="claude_control.py status")
    if live.is_seen(output):
        live.watch(
            lambda: _look(desk, session), lambda seen, _: picture(*seen, how=live.how(interval)), seconds=interval
        )
    else:
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how one leaves
            _print(output, desk, session, interval)


def _look(desk: Caller, session: str | None) -> tuple[int, list[OrchestrationStatus], bool]:
    from lib import service, status  # noqa: PLC0415 - the view's own rooms

    now = host.now_ms()
    return now, status.snapshot(desk.db, now=now, session=session), service.running(desk.home) is not None


def _print(output: Output, desk: Caller, session: str | None, seconds: float) -> None:
    from lib import status  # noqa: PLC0415 - as above
    from lib.front.control.mail import clock  # noqa: PLC0415 - as above

    while True:
        now, found, is_running = _look(desk, session)
        if output.json:
            data = {"at": now, "orchestrations": status.as_data(found), "scheduler_runs": is_running}
            click.echo(cli.as_json(data))
        else:
            click.echo(f"{clock(now)}\n{status.as_text(found, now=now)}\n")
        sys.stdout.flush()
        time.sleep(seconds)


def picture(now: int, teams: list[OrchestrationStatus], is_running: bool, *, how: str = "") -> RenderableType:
    """The agents for a terminal; made for 100 columns and more. `how` is how it is shown."""
    from rich.console import Group  # noqa: PLC0415 - 200 ms that only a person at a terminal pays
    from rich.padding import Padding  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    from lib.front import live  # noqa: PLC0415 - as in `monitor`
    from lib.overview import need_of  # noqa: PLC0415 - as in `monitor`

    warning = "" if is_running or not teams else "the scheduler does not run: scheduler.py --daemon"
    parts: list[RenderableType] = [live.head("Agents", now, warning=warning, how=how)]
    if not teams:
        parts += [Text(), Text(" no team is running: auto_orchestrate.py --spec SPEC, or --demo")]
    for team in teams:
        state = Text(team.status.replace("_", " "), style="green" if team.status == "running" else "yellow")
        met = (f"criteria {team.criteria.share}   ", "bright_black") if team.criteria.total else ""
        head = live.spread(Text.assemble((team.session, "bold cyan"), f"  {team.title}"), Text.assemble(met, state))
        _, why = need_of(team)
        shown = [head, Text(why, style="yellow")] if why else [head]
        parts += [Text(), *(Padding(one, (0, 0, 0, 1)) for one in (*shown, _table(team, now)))]
    return Group(*parts)


def _table(team: OrchestrationStatus, now: int) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    from lib import status  # noqa: PLC0415 - as above

    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True, width=2)
    table.add_column(no_wrap=True, width=20)
    table.add_column(no_wrap=True, width=9)
    table.add_column(justify="right", no_wrap=True, width=12)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    for agent in team.agents:
        seen = status.ago(now - agent.seen_at) if agent.seen_at else "not heard"
        state = Text(agent.state, style=_COLOURS.get(agent.state, "bright_black"))
        table.add_row(
            str(agent.window), agent.role, state, Text(seen, style="bright_black"), ", ".join(status.notes(agent))
        )
    return table
