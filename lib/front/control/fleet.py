"""Verbs about the machines of a fleet: fleet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from lib import config, host
from lib.errors import NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import caller, ensure_scheduler

if TYPE_CHECKING:
    from lib.fleet.members import Member, Standing
    from lib.front.control.desk import Caller

#: The actions that order something of a host, with what they order.
_ORDERS = {"cordon": "cordoned", "uncordon": "open", "drain": "draining"}
_ACTIONS = ("status", "hosts", *_ORDERS)
#: So long it is waited for an order to be sent.
_SENT_SECONDS = 3.0


@cli.verb(
    main,
    examples="""
    claude_control.py fleet status
    claude_control.py fleet hosts
    claude_control.py fleet hosts --json
    claude_control.py fleet cordon box-2
    claude_control.py fleet uncordon box-2
    claude_control.py fleet drain box-2
    """,
)
@click.argument("action", metavar="|".join(_ACTIONS))
@click.argument("name", metavar="[HOST]", required=False)
@cli.pass_output
def fleet(output: Output, action: str, name: str | None) -> None:
    """See the hosts of the fleet, and order something of one.

    `status` tells how this host is linked to it, and what waits to be sent; `hosts` what each host runs and has room
    for. `cordon` has a host take nothing new, `drain` also give back what it has, each entry at its next safe point;
    `uncordon` has it work again. While this host is not connected an order waits. docs/fleet.md tells more.
    """
    if action not in _ACTIONS:
        raise Usage(f"fleet takes {', '.join(_ACTIONS)}, not {action!r}", hint="claude_control.py fleet --help")
    if (name is None) == (action in _ORDERS):
        wanted = "names a host" if action in _ORDERS else "takes no host"
        raise Usage(f"fleet {action} {wanted}", hint="claude_control.py fleet hosts")
    from lib.fleet import members, views  # noqa: PLC0415 - the verbs beside this one need it not

    if config.load().fleet.url is None:
        raise members.no_fleet()
    desk = caller()
    if name is not None:
        _order(output, desk, name, members.Standing(_ORDERS[action]))
        return
    seen = views.look(desk.db, desk.home, now=host.now_ms())
    if action == "status":
        output.answer("\n".join(views.status_lines(seen)), seen.as_data())
        return
    if seen.link is None or not seen.link.is_connected(seen.at):
        output.say(f"link: {views.link_line(seen.link, seen.at)}")
    output.answer(views.table(seen), seen.as_data()["hosts"])


def _order(output: Output, desk: Caller, name: str, standing: Standing) -> None:
    from lib.fleet import members, views  # noqa: PLC0415 - as above

    known = [one.name for one in members.every(desk.db)]
    if name not in known:
        hint = f"known here: {', '.join(known)}" if known else "claude_control.py fleet status"
        raise NotFound(f"no host {name!r} in the fleet", hint=hint)
    item = members.order(desk.db, name, standing, now=host.now_ms())
    ensure_scheduler(output, desk)
    is_sent = _wait_until_sent(desk, item)
    seen = views.look(desk.db, desk.home, now=host.now_ms())
    if is_sent:
        text = _ordered(next(one for one in seen.hosts if one.name == name), standing)
    else:
        text = f"queued: {views.VERBS[standing]} {name}\nlink: {views.link_line(seen.link, seen.at)}"
    output.answer(text, {"host": name, "standing": standing, "is_sent": is_sent})


def _ordered(one: Member, standing: Standing) -> str:
    from lib.fleet import views  # noqa: PLC0415 - as above
    from lib.fleet.members import Standing  # noqa: PLC0415 - as above

    if standing is Standing.OPEN:
        return f"{one.name} takes work again"
    if standing is Standing.CORDONED:
        return f"{one.name} takes nothing new; what runs there goes on"
    return f"{one.name} takes nothing new, and gives back what it has; {views.still_runs(one)}"


def _wait_until_sent(desk: Caller, item: int) -> bool:
    """Wait a moment for the link to send an order. Returns whether it has. Raises `Refused` when the fleet does not."""
    from lib.fleet import members, outbox  # noqa: PLC0415 - as above

    until = time.monotonic() + _SENT_SECONDS
    while time.monotonic() < until:
        try:
            found = outbox.get(desk.db, item)
        except NotFound:
            return True
        if found.refusal:
            raise outbox.Refused(found.refusal)
        link = members.link_state(desk.db, desk.home)
        if link is None or not link.is_connected(host.now_ms()):
            return False
        time.sleep(0.05)
    return False
