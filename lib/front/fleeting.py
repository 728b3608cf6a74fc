"""What `fleet.py link` does and prints."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

from lib import config, errands, logs, store
from lib.fleet import hosts, members, post, putting, record, sharing, taking, tidying, working
from lib.fleet.link import Link, Parts, run
from lib.front.cli import Output

#: All that a link does.
PARTS = Parts(
    tasks=(
        *(hosts.tell, hosts.hear_hosts, hosts.hear_orders, hosts.make_room, post.exchange),
        *(sharing.share_limits, sharing.tell_spending, sharing.hear_spending),
        *(record.hear, taking.make_consumers, taking.take, working.keep, putting.bring_home, tidying.tidy),
    ),
    senders={members.ORDER: hosts.send_order, **putting.SENDERS},
)


def link(output: Output, home: Path) -> None:
    """Keep this host linked to the fleet until that is not wanted any more."""
    settings = config.load().fleet
    if settings.url is None:
        raise members.no_fleet()
    with errands.working(home, members.LINK):
        logs.write_to(_log(home), older=2, of="lib")
        output.say(f"this host is being linked to {settings.url}; the log is {_log(home)}")
        why = asyncio.run(_until_ended(Link(home, settings, store.connect(home))))
    output.answer(f"the link has ended: {why}", {"ended": why})


async def _until_ended(made: Link) -> str:
    work = asyncio.ensure_future(run(made, PARTS))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await work
    return "it was asked to"


def _log(home: Path) -> Path:
    return home / "logs" / "fleet.log"
