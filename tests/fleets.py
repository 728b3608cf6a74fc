"""Hosts of a fleet for tests: links in this process, each with a state home of its own, and real ones beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from lib import host, store
from lib.config import FleetSettings
from lib.fleet import members
from lib.fleet.link import Link, Parts, run
from lib.front.fleeting import PARTS
from tests.conftest import ROOT, Bench
from tests.nats import NatsServer


async def until(look: Callable[[], object], what: str, *, seconds: float = 30.0) -> None:
    """Wait in an event loop until `look` returns something true. Fails with `what` after the limit."""
    for _ in range(int(seconds / 0.02)):
        if look():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@contextlib.asynccontextmanager
async def linked(
    server: NatsServer,
    folder: Path,
    name: str,
    *,
    parts: Parts = PARTS,
    clock: Callable[[], int] = host.now_ms,
    labels: tuple[str, ...] = (),
    account: str | None = None,
) -> AsyncIterator[Link]:
    """A host that is linked to a server for the block, whether that runs or not."""
    home = folder / name
    made = Link(
        home, FleetSettings(url=server.url, host=name, labels=labels, account=account), store.connect(home), clock=clock
    )
    never = asyncio.Event()

    async def wanted(_: Link) -> str:
        await never.wait()
        return "the test is over"

    work = asyncio.create_task(run(made, parts, wanted))
    try:
        yield made
    finally:
        never.set()
        await work
        made.db.close()


def known(link: Link) -> list[str]:
    """The hosts that a host knows."""
    return [one.name for one in members.every(link.db)]


def configure(bench: Bench, server: NatsServer | None, name: str, **settings: object) -> None:
    """Write the configuration of a machine that is a host of a server's fleet; of none without a server."""
    path = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["agent: rehearsal"]
    if server:
        lines += ["fleet:", f"  url: {server.url}", f"  host: {name}"]
        lines += [f"  {key}: {value}" for key, value in settings.items()]
    path.write_text("\n".join([*lines, ""]))


def links(bench: Bench) -> list[int]:
    """The processes of a machine that are its link: not uv, which has started it and waits."""
    link = [str(ROOT / "fleet.py"), "link"]
    return [pid for pid, words in bench.command_lines().items() if words[1:3] == link]
