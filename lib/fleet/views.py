"""The fleet as people see it: one look at its hosts, the link and the outbox, for every view."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lib import limits, messages
from lib.fleet import accounts, members, outbox, totals
from lib.fleet.accounts import Shared, State
from lib.fleet.members import LinkState, Member, Standing
from lib.fleet.outbox import Item
from lib.fleet.totals import Total
from lib.records import dataclass

#: What a person types to have a host stand so.
VERBS = {Standing.CORDONED: "cordon", Standing.OPEN: "uncordon", Standing.DRAINING: "drain"}


@dataclass(frozen=True)
class Account:
    """An account that agents of this host use: what holds it in the fleet, and what was spent on it today by UTC.

    `limit` is a sentence, None when nothing holds it; `here` was spent on this host, `total` on all `hosts`.
    """

    name: str
    limit: str | None
    here: Total
    total: Total
    hosts: tuple[str, ...]

    @property
    def spent(self) -> str:
        """What was spent on it, in words."""
        if len(self.hosts) < 2:
            return f"${self.here.usd:,.2f} here"
        return f"${self.here.usd:,.2f} here, ${self.total.usd:,.2f} on the {len(self.hosts)} hosts of its account"


@dataclass(frozen=True)
class Fleet:
    """The fleet at one moment. `waiting` is what waits to be sent, `refused` what never will be.

    `unsent` is how many messages to agents of other hosts wait as well.
    `unread` is what hosts have told of their spending that cannot be read, as a host and the reason.
    """

    at: int
    link: LinkState | None
    hosts: tuple[Member, ...]
    waiting: tuple[Item, ...]
    refused: tuple[Item, ...]
    accounts: tuple[Account, ...]
    unread: tuple[tuple[str, str], ...]
    unsent: int = 0

    def as_data(self) -> dict[str, object]:
        """The same for --json."""
        link = vars(self.link) | {"is_connected": self.link.is_connected(self.at)} if self.link else None
        return {
            "at": self.at,
            "link": link,
            "hosts": [one.as_data(self.at) for one in self.hosts],
            "outbox": [vars(one) for one in self.waiting],
            "refused": [vars(one) for one in self.refused],
            "unsent_messages": self.unsent,
            "accounts": [
                vars(one) | {"here": one.here._asdict(), "total": one.total._asdict()} for one in self.accounts
            ],
            "unread": dict(self.unread),
        }


def look(db: sqlite3.Connection, home: Path, *, now: int) -> Fleet:
    """All that is known of the fleet here."""
    return Fleet(
        at=now,
        link=members.link_state(db, home),
        hosts=tuple(members.every(db)),
        waiting=tuple(outbox.waiting(db)),
        refused=tuple(outbox.refused(db)),
        unsent=messages.count_unsent(db),
        accounts=tuple(_account(db, name, now) for name in totals.accounts(db)),
        unread=tuple((one.host, one.trouble) for one in totals.every(db) if one.trouble),
    )


def _account(db: sqlite3.Connection, name: str, now: int) -> Account:
    day = totals.day_of(now)
    here = totals.here(db, name, day)
    total = here.and_also(totals.elsewhere(db, name, day))
    limit = limit_line(accounts.shared(db, name), members.own_name(db))
    return Account(name, limit, here, total, tuple(totals.hosts_of(db, name)))


def limit_line(found: Shared, me: str | None) -> str | None:
    """What the fleet has of an account's limit, in words; None when nothing holds it."""
    if trouble := found.record.get("trouble"):
        return f"what the fleet has of it cannot be read, and this host goes by what it knows: {trouble}"
    if found.state is State.OVER:
        return None
    told = found.record
    until = f"until {limits.clock(told['resets_at'])}" if told["resets_at"] else "nobody knows until when"
    who = "this host" if told["host"] == me else told["host"]
    line = f"{str(told['kind']).replace('_', '-')} limit {until}, met on {who}"
    if found.state is State.TRYING:
        line += f"; {'this host' if told['trier'] == me else told['trier']} tries whether it is over"
    return line


def look_if_any(db: sqlite3.Connection, home: Path, *, now: int) -> Fleet | None:
    """The same; None on a machine that has never been linked to one, or has left it."""
    return look(db, home, now=now) if members.is_linked(db) else None


def link_line(link: LinkState | None, now: int) -> str:
    """How the link stands, with the next step when it does not."""
    if link is None:
        return "it has never run; next: scheduler.py --daemon"
    return link.sentence(now) + (f"; next: {link.next_step}" if not link.is_connected(now) and link.next_step else "")


def count_line(seen: Fleet) -> str:
    """The hosts in a few words."""
    heard = [one for one in seen.hosts if one.is_seen(seen.at)]
    agents, free = sum(one.agents for one in heard), sum(one.free for one in heard)
    return f"{len(heard)} of {len(seen.hosts)} seen, {agents} agents, room for {free} more"


def status_lines(seen: Fleet) -> list[str]:
    """The link, the hosts as one, what is odd about some of them, and what waits to be sent."""
    odd = [(one.name, one.seen(seen.at)) for one in seen.hosts if not one.is_seen(seen.at)]
    odd += [(one.name, said) for one in seen.hosts for said in (one.trouble, one.skew) if said]
    return [
        f"link:    {link_line(seen.link, seen.at)}",
        f"hosts:   {count_line(seen)}",
        *(f"         {name}: {said}" for name, said in odd),
        f"outbox:  {', '.join(_waiting(seen)) or 'nothing'} waits to be sent",
        *(f"refused: {what(one)}: {one.refusal}" for one in seen.refused),
        *account_lines(seen),
        *(f"{host}: {trouble}" for host, trouble in seen.unread),
    ]


def _waiting(seen: Fleet) -> list[str]:
    messages_ = [f"{seen.unsent} {'message' if seen.unsent == 1 else 'messages'}"] if seen.unsent else []
    return [*map(what, seen.waiting), *messages_]


def account_lines(seen: Fleet) -> list[str]:
    """What holds the accounts of this host, and what was spent on them; nothing of those of which there is nothing."""
    is_linked = seen.link is not None and seen.link.is_connected(seen.at)
    as_known = "" if is_linked else " (as it was last heard)"
    lines = [f"limit:   {one.limit}{as_known}" for one in seen.accounts if one.limit]
    used = [one for one in seen.accounts if one.total.tokens]
    return [*lines, *(f"spent:   {one.spent} today (UTC){as_known}" for one in used)]


def what(item: Item) -> str:
    """Something in the outbox, in words."""
    if item.kind != members.ORDER:
        return f"{item.kind} {item.id}"
    return f"{VERBS[Standing(item.body['standing'])]} {item.body['host']}"


def table(seen: Fleet) -> str:
    """The hosts as plain lines that fit a terminal of 100 columns."""
    if not seen.hosts:
        return "no host is known yet"
    width = max(4, *(len(one.name) for one in seen.hosts))
    head = f"{'agents':>8} {'free':>5} {'load':>6} {'memory':>8}  {'version':9} labels"
    lines = [f"{'host':{width}}  {'':22} {head}"]
    for one in seen.hosts:
        shown = figures(one)
        cells = "{:>8} {:>5} {:>6} {:>8}  {:9} {}".format(*shown) if shown else ""
        lines.append(f"{one.name:{width}}  {one.seen(seen.at):22} {cells}".rstrip())
        lines += [f"{'':{width}}  {said}" for said in (*notes(one), *teams(one))]
    return "\n".join(lines)


def figures(one: Member) -> tuple[str, ...]:
    """Agents, room for more, load, free memory, version and labels of a host; nothing when it cannot be read."""
    if one.trouble:
        return ()
    told = one.record
    return (
        f"{one.agents}/{one.capacity}",
        str(one.free),
        f"{told['load']:.1f}",
        f"{told['memory_free_mb'] / 1000:.1f} GB",
        str(told["version"]),
        ",".join(map(str, told["labels"])),
    )


def notes(one: Member) -> list[str]:
    """What is odd about a host, a sentence each."""
    found = [one.trouble] if one.trouble else []
    if one.standing is Standing.CORDONED:
        found.append("cordoned: it takes nothing new")
    if one.standing is Standing.DRAINING:
        found.append(f"draining: it takes nothing new and gives back what it has; {still_runs(one)}")
    if one.wanted is not None and one.wanted is not one.standing:
        found.append(f"{VERBS[one.wanted]} is on its way")
    return [*found, one.skew] if one.skew else found


def still_runs(one: Member) -> str:
    """What a host still has to give back, or that it has nothing."""
    entries = int(one.record.get("entries", 0))
    if not entries and not one.agents:
        return "nothing runs there any more"
    return f"{entries} {'entry' if entries == 1 else 'entries'} and {one.agents} agents still run there"


def teams(one: Member) -> list[str]:
    """The teams of a host, in a few words each."""
    found = [team for team in one.record.get("teams", []) if isinstance(team, dict)]
    return [f"{team.get('session')} ({str(team.get('status')).replace('_', ' ')})" for team in found]
