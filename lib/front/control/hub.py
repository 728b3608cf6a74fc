"""Verbs about hub and spoke: compliance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from lib import host, hub
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller
from lib.front.control.mail import clock
from lib.front.times import time_of
from lib.models import Event

_VERDICTS = {"allow": "sent", "refuse": "refused", "hub": "rerouted"}


@cli.verb(
    main,
    examples="""
    claude_control.py compliance
    claude_control.py compliance --since 2h --session webapp-impl --json
    """,
)
@click.option("--since", metavar="TIME", default="1d", help="1d, 2h, 30m, or an ISO time (default 1d).")
@click.option("--session", metavar="SESSION", help="Only the messages of this team.")
@cli.pass_output
def compliance(output: Output, since: str, session: str | None) -> None:
    """Show what was sent through the hub and what the policy decided, a line each."""
    start = time_of(since, now=host.now_ms())
    found = hub.compliance(caller().db, since=start, session=session)
    output.answer("\n".join(_line(event) for event in found) or "nothing was routed", [_data(event) for event in found])


def _line(event: Event) -> str:
    data = event.data
    outcome = _VERDICTS[str(data["verdict"])]
    if event.message_id:
        outcome += f" as {event.message_id}"
    if data["copied"]:
        outcome += f", copied as {data['copy_id']}"
    who = f"{data['sender']} -> {data['recipient']}"
    return f"{clock(event.at)}  {who:50}  {data['class']:10}  {outcome} (rule {data['rule']})"


def _data(event: Event) -> dict[str, Any]:
    time = datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="milliseconds")
    return {"time": time, "at": event.at, "message_id": event.message_id, **event.data}
