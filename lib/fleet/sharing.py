"""Limits and spending of accounts over all hosts: what the link tells of them, hears of them, and settles.

The limit of an account is one record of the fleet, changed by comparing its revision, as entries are: whoever is
refused writes it, whoever tries claims it, whoever finds it over says so. What a host has spent is a record of its own.
docs/fleet.md tells what follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nats.js.errors import KeyWrongLastSequenceError

from lib import config, host, limits, orchestrations, service, templates
from lib.claude import installed, logins
from lib.fleet import accounts, buckets, members, record, totals, trying
from lib.fleet.accounts import SHARED_KINDS, Asked, Shared, State
from lib.fleet.buckets import Stored
from lib.fleet.envelopes import Unreadable, pack, unpack
from lib.fleet.link import Link
from lib.fleet.totals import Told, Total
from lib.judgement import canaries, prices
from lib.judgement.canaries import Move
from lib.models import Limit, Program
from lib.spending import ledger

log = logging.getLogger(__name__)

LIMITS, SPENDING = "limits", "spending"
#: How often a host that tries says so; `canaries.SILENT_MS` is four of these.
RENEWED_SECONDS = 5.0
#: How often it is looked whether this host has spent something.
SPENT_SECONDS = 5.0
#: What comes of spending within so long is written to the store together.
TOGETHER_SECONDS = 2.0
#: How often it is looked who is logged in.
LOGINS_SECONDS = 10.0


# -- whose logins --


def identities(link: Link) -> dict[Path, str]:
    """The account of each configuration folder that agents use here, or would if they were started now.

    Where nothing tells whose it is the host counts as an account of its own.
    """
    folders = {installed.config_dir_of(program, link.home) for program in Program}
    folders |= {one.config_dir for one in orchestrations.live(link.db)}
    return {folder: _identity(link, folder) for folder in sorted(folders)}


def _identity(link: Link, folder: Path) -> str:
    if link.settings.account:
        return logins.digest("named", link.settings.account)
    is_rehearsal = folder == installed.config_dir_of(Program.REHEARSAL, link.home)
    found = None if is_rehearsal else logins.account(folder, os.environ)
    return found or logins.digest("host", link.settings.name(), folder.name)


# -- spending --


async def tell_spending(link: Link) -> None:
    """Tell what this host has spent on each account, today and yesterday by UTC, when it has changed."""
    told: object = None
    while True:
        spent = spending_of(link)
        if spent != told:
            fields = {"at": link.clock(), **totals.packed(spent)}
            await link.fleet.js.publish(f"$KV.{SPENDING}.{link.fleet.host}", pack(fields))
            told = spent
        await asyncio.sleep(SPENT_SECONDS)


def spending_of(link: Link) -> dict[str, dict[int, Total]]:
    """What this host has spent, by account and day."""
    today = totals.day_of(link.clock())
    return {
        account: {day: _spent(link, folders, day) for day in (today - totals.DAY_MS, today)}
        for account, folders in totals.accounts(link.db).items()
    }


def _spent(link: Link, folders: Sequence[Path], day: int) -> Total:
    items = ledger.sums_of_folders(link.db, folders, day=day)
    bill = prices.bill(templates.price_list(), items)
    return Total(round(bill.usd, 4), bill.usage.tokens)


async def hear_spending(link: Link) -> None:
    """Keep what hosts have spent."""
    found = await buckets.every(link.fleet, SPENDING)
    totals.are(link.db, [_told(link, one) for one in found if one.value is not None], now=link.clock())
    news: dict[str, Stored] = {}
    async with asyncio.TaskGroup() as group:
        writing_them = group.create_task(_write_spending(link, news))
        with contextlib.suppress(TimeoutError):  # from the beginning now and then, as with entries
            async with asyncio.timeout(record.HEAR_ANEW_SECONDS):
                async for stored in buckets.watch(link.fleet, SPENDING):
                    news[stored.key] = stored
        writing_them.cancel()


async def _write_spending(link: Link, news: dict[str, Stored]) -> None:
    """Keep what has come together as one: with many hosts some spend something all the time."""
    while True:
        if news:
            there = [one for one in news.values() if one.value is not None]
            gone = [one.key for one in news.values() if one.value is None]
            totals.heard(link.db, [_told(link, one) for one in there], gone, now=link.clock())
            if set(news) != {link.fleet.host}:
                host.wake(link.home)
            news.clear()
        await asyncio.sleep(TOGETHER_SECONDS)


def _told(link: Link, stored: Stored) -> Told:
    is_own = stored.key == link.fleet.host
    try:
        return totals.checked(stored.key, unpack(stored.value or b""), is_own=is_own)
    except Unreadable as error:
        log.warning("the spending of %s: %s", stored.key, error.sentence)
        return Told(stored.key, {}, error.sentence, is_own)


# -- limits --


async def share_limits(link: Link) -> None:
    """Keep the limits of this host's accounts as the fleet has them, and tell the fleet of those met here.

    It ends now and then, and when other accounts are used, to hear all anew: news may be lost on the way.
    """
    totals.use(link.db, identities(link))
    accounts.begin_anew(link.db)
    for stored in await buckets.every(link.fleet, LIMITS):
        _hear(link, stored)
    news = asyncio.Event()
    tasks = [asyncio.create_task(_hear_all(link, news)), asyncio.create_task(_settle_all(link, news))]
    try:
        wait_seconds = record.HEAR_ANEW_SECONDS
        ended, _ = await asyncio.wait(tasks, timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _hear_all(link: Link, news: asyncio.Event) -> None:
    async for stored in buckets.watch(link.fleet, LIMITS):
        if _hear(link, stored):
            news.set()


def _hear(link: Link, stored: Stored) -> bool:
    """Keep the limit of an account of this host. Returns whether that is news; nothing that cannot be read is."""
    if stored.key not in totals.accounts(link.db):
        return False
    try:
        found = accounts.checked(unpack(stored.value or b""))
    except Unreadable as error:
        log.warning("the limit of the account %s: %s", stored.key, error.sentence)
        # Of a newer version it may be right: this host goes by what it knows itself, and leaves it alone.
        found = {"trouble": error.sentence} if error.hint else {}
    return accounts.heard(link.db, stored.key, stored.revision, found, now=link.clock())


async def _settle_all(link: Link, news: asyncio.Event) -> None:
    """Settle each account whenever something is heard, and every moment; ends when this host uses other accounts."""
    looked_at = time.monotonic()
    while time.monotonic() - looked_at < LOGINS_SECONDS or not totals.use(link.db, identities(link)):
        if time.monotonic() - looked_at >= LOGINS_SECONDS:
            looked_at = time.monotonic()
        for account, folders in totals.accounts(link.db).items():
            with contextlib.suppress(KeyWrongLastSequenceError):  # another host was faster: it is heard of now
                await settle(link, account, folders)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(news.wait(), trying.LOOK_SECONDS)
        news.clear()


async def settle(link: Link, account: str, folders: Sequence[Path]) -> None:
    """Bring together what this host and the fleet know of the limit of an account: tell, then take, then try."""
    found = accounts.shared(link.db, account)
    if found.record.get("trouble"):
        return
    teller: Path | None = None
    for one in limits.newest(link.db, folders):
        is_untold = one.news is not None and one.told != one.news
        if is_untold or (not found.record and one.over_at is None):
            wanted = news_of(link.fleet.host, found, one)
            if wanted is not None:
                found, teller = await _write(link, found, wanted), one.config_dir
                accounts.apply(link.db, found)
                found = accounts.shared(link.db, account)
            limits.note_told(link.db, one, one.news or "")
    if teller or found.revision > found.applied:
        _take(link, found, folders, teller)
    await _try(link, found, folders)


def news_of(me: str, found: Shared, one: Limit) -> dict[str, Any] | None:
    """What a limit of this host changes of the fleet's record; None when nothing."""
    if one.over_at is not None:
        # Of a refusal that came after it, this host has to hear first.
        is_same = found.record and found.round == found.record["round"]
        return {"state": State.OVER, "trier": None} if found.state is not State.OVER and is_same else None
    if one.kind not in SHARED_KINDS:
        return None
    told = found.record
    if found.state is State.OVER:
        # What the others have found over while this host could not hear it, is.
        is_older = found.revision > found.applied and told.get("at", 0) >= one.refused_at
        is_news = not told or not is_older
    elif found.state is State.TRYING and told["trier"] == me:
        is_news = one.tries > told["tries"]
    else:
        is_news = limits.outweighs(one, found.refusal)
    if not is_news:
        return None
    return {
        **{"state": State.HELD, "kind": one.kind, "resets_at": one.resets_at, "said": one.said, "host": me},
        **{"tries": one.tries, "round": accounts.after(told.get("round", found.round)), "trier": None},
        **{"term": int(told.get("term", 0)), "is_for_nobody": False},
    }


async def _write(link: Link, found: Shared, changes: Mapping[str, object]) -> Shared:
    """Write the limit of an account that nobody has written since it was heard of, else raise."""
    bucket = await link.fleet.js.key_value(LIMITS)
    fields = {**found.record, **changes, "at": link.clock()}
    try:
        if found.revision:
            revision = await bucket.update(found.account, pack(fields), last=found.revision)
        else:
            revision = await bucket.create(found.account, pack(fields))
    except KeyWrongLastSequenceError:
        for stored in await buckets.every(link.fleet, LIMITS, found.account):
            _hear(link, stored)
        raise
    accounts.heard(link.db, found.account, revision, fields, now=link.clock())
    host.wake(link.home)
    return accounts.shared(link.db, found.account)


def _take(link: Link, found: Shared, folders: Sequence[Path], teller: Path | None) -> None:
    """Have the limits of this host be as the fleet's record says, which the limit of the folder `teller` was told to.

    The other folders of that account know no more of it than other hosts do.
    """
    now, told, terms = link.clock(), found.record, config.load().limits
    for folder in folders if told else ():
        is_heard = found.round == told["round"] and (len(folders) == 1 or limits.of_scope(link.db, folder, None))
        is_known = folder == teller if teller else is_heard
        if found.state is State.OVER:
            limits.told_over(link.db, folder, now=now)
        elif not is_known:
            limits.told(link.db, folder, found.refusal, told["host"], tries=told["tries"], now=now, terms=terms)
    accounts.apply(link.db, found)
    host.wake(link.home)


async def _try(link: Link, found: Shared, folders: Sequence[Path]) -> None:
    """Claim the trial for this host when its scheduler asks for it, and keep it while it tries."""
    me, now = link.fleet.host, link.clock()
    if found.state is State.OVER:
        return
    told, claim = found.record, found.claim(me, now)
    asked = found.wants_of_link(now)
    is_free = canaries.next_move(claim, wants=True, due_for_ms=0, is_cut_off=False) is Move.CLAIM
    if now - found.heard_at > canaries.SILENT_MS and not members.is_known(link.db, told["host"]):
        # What a host has told that was removed from the fleet does not hold the others.
        await _write(link, found, {"state": State.OVER, "trier": None})
    elif asked in (Asked.TRY, Asked.NOBODY) and is_free and _is_due(link, folders, now):
        mine = {
            "state": State.TRYING,
            "trier": me,
            "term": accounts.after(told["term"]),
            "is_for_nobody": asked is Asked.NOBODY,
        }
        await _write(link, found, mine)
        log.info("this host tries whether the limit of %s is over", found.account)
    elif claim and claim.is_own and asked is Asked.PASS:
        await _write(link, found, {"state": State.HELD, "trier": None})
    elif claim and claim.is_own and claim.silent_ms >= RENEWED_SECONDS * 1000 and _is_at_it(link, folders):
        await _write(link, found, {})


def _is_due(link: Link, folders: Sequence[Path], now: int) -> bool:
    """Whether the time of a limit here has come: what was asked before all were to wait again does not count."""
    found = (limits.of_scope(link.db, folder, None) for folder in folders)
    return any(limits.is_due(one, now) for one in found if one)


def _is_at_it(link: Link, folders: Sequence[Path]) -> bool:
    """Whether this host does try: a scheduler runs, and the limit waits or is tried."""
    if not host.is_held(service.lock_path(link.home)):
        return False
    return any(one.over_at is None for folder in folders if (one := limits.of_scope(link.db, folder, None)))
