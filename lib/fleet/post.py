"""The post: letters to other hosts, and what becomes of those from them, each again until the other host has answered.

A letter is a question to the other host, and nothing of it stays in the server: what is not answered is asked again,
and known there by its name. The server vouches for who asks (lib/fleet/permissions.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from lib import agents, delivery, host, messages
from lib.errors import Busy, Gone, OrchestratorError, Unavailable
from lib.fleet import letters, members, permissions
from lib.fleet.envelopes import Unreadable, pack, unpack
from lib.fleet.letters import Letter, Outcome
from lib.fleet.link import Link
from lib.models import Agent, Message, MessageStatus
from lib.records import dataclass
from lib.tmux import Tmux

log = logging.getLogger(__name__)

#: A host that does not answer for so long does not answer; then it is asked again after this.
ASK_SECONDS, AGAIN_SECONDS = 2.0, 1.0
#: How often it looks for what is to be sent: when something was received a moment ago, and else.
LIVELY_SECONDS, LOOK_SECONDS = 0.05, 0.5
#: How long a moment is. An idle agent acknowledges within one; whoever is at work takes longer.
LIVELY_FOR_SECONDS = 10.0
#: A host that nobody knows for so long is of the fleet no more.
UNKNOWN_SECONDS = 60.0
#: More letters wait in the server, which lets them go when it has too many: their hosts ask again.
_MOST_WAITING = 1000


@dataclass
class Post:
    """What the parts of the post share. `woken` is set when there is something to look for."""

    link: Link
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    lively_until: float = 0.0


async def exchange(link: Link) -> None:
    """Exchange letters with the other hosts."""
    post = Post(link)
    async with asyncio.TaskGroup() as group:
        group.create_task(_receive(post))
        group.create_task(_send(post))
        group.create_task(_give_up(link))


# -- what comes --


async def _receive(post: Post) -> None:
    fleet, tmux = post.link.fleet, Tmux.from_environment()
    arrived = asyncio.Queue[Msg](_MOST_WAITING)
    boxes = [await fleet.nc.subscribe(box, cb=arrived.put) for box in permissions.letterbox(fleet.host)]
    try:
        while True:
            message = await arrived.get()
            answer = _answer(post, tmux, message.subject.rpartition(".")[2], message.data)
            if answer is not None and message.reply:
                await message.respond(pack(answer))
    finally:
        if not fleet.lost.is_set():
            for box in boxes:
                await box.unsubscribe()


def _answer(post: Post, tmux: Tmux, sender: str, data: bytes) -> Mapping[str, object] | None:
    """What is answered to a host; None when it cannot be said now, and it is to ask again."""
    try:
        _take(post, tmux, sender, unpack(data))
    except OrchestratorError as error:
        log.warning("a letter of %s: %s", sender, error.sentence)
        is_for_now = isinstance(error, Busy | Unavailable) and not isinstance(error, Gone)
        return None if is_for_now else {"refused": error.sentence}
    return {}


def _take(post: Post, tmux: Tmux, sender: str, fields: Mapping[str, Any]) -> None:
    link = post.link
    if "status" in fields:
        letters.hear_outcome(link.db, sender, fields, now=link.clock())
        return
    letter = Letter.of(fields)
    if letters.is_here(link.db, sender, letter.key):
        return
    agent = agents.resolve(link.db, tmux, letter.to)
    delivery.check_is_there(agent)
    letters.keep(link.db, agent, sender, letter, now=link.clock())
    host.wake(link.home)
    post.lively_until = time.monotonic() + LIVELY_FOR_SECONDS
    post.woken.set()


# -- what goes --


async def _send(post: Post) -> None:
    under_way: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        with _woken_by_doors(post):
            while True:
                for name in _written_to(post.link):
                    if name not in under_way or under_way[name].done():  # a host that is silent holds up no other
                        under_way[name] = group.create_task(_send_to(post, name))
                await _pause(post)


def _written_to(link: Link) -> set[str]:
    return {*messages.hosts_written_to(link.db, is_sent=False), *(one.host for one in letters.untold(link.db))}


async def _pause(post: Post) -> None:
    is_lively = time.monotonic() < post.lively_until
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(post.woken.wait(), LIVELY_SECONDS if is_lively else LOOK_SECONDS)
    post.woken.clear()


@contextlib.contextmanager
def _woken_by_doors(post: Post) -> Iterator[None]:
    pipe, loop = host.make_wake_pipe(post.link.home, letters.WAKE), asyncio.get_running_loop()

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(pipe, 4096)
        post.woken.set()

    loop.add_reader(pipe, drain)
    try:
        yield
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


async def _send_to(post: Post, name: str) -> None:
    """Send a host what there is for it."""
    link = post.link
    try:
        for outcome in letters.untold(link.db):
            if outcome.host == name:
                await _tell(link, outcome)
        for message in messages.pending_at(link.db, name):
            if message.status is MessageStatus.QUEUED:
                await _hand_over(link, name, message)
    except (nats.errors.Error, TimeoutError, OSError, OrchestratorError) as error:
        _say_why(link, name, error)
        await asyncio.sleep(AGAIN_SECONDS)


def _say_why(link: Link, name: str, error: Exception) -> None:
    why = f"waits for {name}, which does not answer"
    if isinstance(error, OrchestratorError):
        why = f"waits for {name}: {error.sentence}"
    for message in messages.pending_at(link.db, name):
        if message.status is MessageStatus.QUEUED:
            messages.hold(link.db, message, why if link.is_connected else messages.WAITS_FOR_FLEET)


async def _tell(link: Link, outcome: Outcome) -> None:
    try:
        await _ask(link, outcome.host, outcome.as_data(link.clock()))
    except Unreadable as error:  # it has heard it, and will not understand it better
        log.warning("%s: %s", outcome.host, error.sentence)
    letters.told(link.db, outcome)


async def _hand_over(link: Link, name: str, message: Message) -> None:
    agent: Agent = agents.get(link.db, message.agent_id)
    answer = await _ask(link, name, letters.letter_of(agent, message).as_data())
    if "refused" in answer:
        letters.refused(link.db, agent, message, answer["refused"], now=link.clock())
    else:
        letters.taken(link.db, agent, message, now=link.clock())


async def _ask(link: Link, name: str, fields: Mapping[str, object]) -> dict[str, Any]:
    subject = permissions.letter_to(name, link.fleet.host)
    return unpack((await link.fleet.nc.request(subject, pack(fields), timeout=ASK_SECONDS)).data)


# -- hosts that were removed --


async def _give_up(link: Link) -> None:
    unknown_since: dict[str, float] = {}
    while True:
        known = {one.name for one in members.every(link.db)}
        now = time.monotonic()
        unknown = letters.correspondents(link.db) - known if link.fleet.host in known else set()
        unknown_since = {name: unknown_since.get(name, now) for name in unknown}
        for name, since in unknown_since.items():
            if now - since >= UNKNOWN_SECONDS:
                letters.give_up(link.db, name, f"the fleet has no host {name} any more", now=link.clock())
        await asyncio.sleep(members.HEARTBEAT_SECONDS)
