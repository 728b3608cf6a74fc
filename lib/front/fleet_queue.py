"""What the fleet's forms of queueing do and print: put, list, tell, cancel, queue again."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import config, host, service, store
from lib.errors import NotFound
from lib.fleet import entries, members, outbox
from lib.fleet.entries import Entry, Put, State
from lib.front.cli import Output
from lib.queue.intake import Ready
from lib.status import ago


def put(
    output: Output, home: Path, found: Sequence[Ready], *, label: str | None, again: bool, first: Sequence[str] = ()
) -> None:
    """Have specs queued in the fleet; what waits there already is not put twice. `first` are lines that come before."""
    check()
    db, now = store.connect(home), host.now_ms()
    lines, rows = [*first], []
    for ready in found:
        same = None if again else _same(db, ready)
        entry_id = same or entries.put(
            db, _body(ready, label or entries.ANY), project=ready.project, spec_path=ready.spec_path.resolve(), now=now
        )
        name = f"{ready.spec_path.name} in {ready.project}"
        lines.append(
            f"entry {same} is this already: {name}; --again for one more" if same else f"entry {entry_id}: {name}"
        )
        rows.append({"id": entry_id, "new": same is None, "spec": str(ready.spec_path), "project": str(ready.project)})
    lines.append(_on_its_way(db, home))
    output.answer("\n".join(lines), rows)
    if sentence := service.ensure(home):
        output.say(sentence)
    host.wake(home)


def check() -> None:
    """Raises `NotFound` when this machine is of no fleet."""
    if config.load().fleet.url is None:
        raise members.no_fleet()


def _same(db: sqlite3.Connection, ready: Ready) -> str | None:
    """The entry that this host has put for the same spec of the same project, and that is not over."""
    for one in entries.puts(db):
        if (one.spec_path, one.project) == (ready.spec_path.resolve(), ready.project):
            heard = entries.get(db, one.entry_id)
            if heard.state in entries.UNFINISHED if heard else one.entry_id in _waiting(db):
                return one.entry_id
    return None


def _body(ready: Ready, label: str) -> dict[str, object]:
    wanted = ready.wanted
    return {
        **{"path": str(ready.project), "spec": ready.spec.text, "spec_name": ready.spec_path.name},
        **{"options": dict(wanted.options), "tags": list(wanted.tags), "priority": wanted.priority},
        **{"budget_minutes": wanted.budget_minutes, "label": label, "agents": len(ready.team.roles)},
    }


def _on_its_way(db: sqlite3.Connection, home: Path) -> str:
    link = members.link_state(db, home)
    if link is not None and link.is_connected(host.now_ms()):
        return "the fleet gets it now: scheduler.py --queue-list"
    return "queued here until the fleet can be reached: claude_control.py fleet status"


def _waiting(db: sqlite3.Connection) -> Mapping[str, outbox.Item]:
    """What was put and has not been sent, by entry."""
    return {str(one.body["id"]): one for one in outbox.waiting(db, entries.PUT)}


# -- looking --


def as_list(db: sqlite3.Connection, now: int) -> tuple[str, list[dict[str, Any]]]:
    """The fleet's queue as lines, and as data; "" when there is none."""
    seen = {one.name: one for one in members.every(db)}
    rows = [_row(entry, now) for entry in entries.every(db)]
    rows += [_unsent_row(one, now) for one in _waiting(db).values()]
    if not rows:
        return "", []
    lines = [f"{'fleet':9} {'spec':24} {'project':15} {'state':15} {'host':16} {'age':>11}"]
    for row in rows:
        lines.append(
            f"{row['id']:9} {_short(row['spec'], 24):24} {_short(row['project'], 15):15} {_short(row['state'], 15):15}"
            f" {_short(row['host'] or '-', 16):16} {ago(row['age_ms']):>11}"
        )
        if row["status"] == State.RUNNING:
            member = seen.get(row["host"])
            if member and not member.is_seen(now):
                lines.append(f"{'':10}{row['host']} was {member.seen(now)}; after the ack wait another host gets it")
        elif row["reason"]:
            lines.append(f"{'':10}{_short(row['reason'], 88)}")
    return "\n".join(lines), rows


def _row(entry: Entry, now: int) -> dict[str, Any]:
    record = entry.record
    says = str(record.get("says") or "").partition(": ")[0]
    return {
        **{
            "id": entry.id,
            "spec": record["spec_name"],
            "project": record["project"].get("name"),
            "host": record.get("host"),
        },
        **{"status": record["state"], "state": says or record["state"], "origin": record["origin"]},
        **{
            "label": record["label"],
            "priority": record["priority"],
            "agents": record["agents"],
            "taken": record["term"],
        },
        **{"added_at": record["added_at"], "age_ms": now - record["added_at"], "reason": record.get("outcome")},
    }


def _unsent_row(item: outbox.Item, now: int) -> dict[str, Any]:
    body = item.body
    return {
        **{"id": body["id"], "spec": body["spec_name"], "project": Path(body["path"]).name, "host": None},
        **{"status": None, "state": "not sent yet", "origin": None, "label": body["label"]},
        **{"priority": body["priority"], "agents": body["agents"], "taken": 0},
        **{"added_at": item.queued_at, "age_ms": now - item.queued_at, "reason": None},
    }


def _short(value: object, longest: int) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def show_entry(output: Output, home: Path, entry_id: str) -> None:
    """The story of an entry of the fleet, as far as it is known here."""
    db, now = store.connect(home), host.now_ms()
    found, own = entries.get(db, entry_id), entries.put_of(db, entry_id)
    if found is None:
        _tell_unheard(output, db, own, entry_id, now)
        return
    record, lease = found.record, entries.lease_of(db, entry_id)
    kept, result = record.get("kept"), record.get("result")
    lines = [
        f"entry {found.id}: {record.get('says') or found.state}",
        f"  spec     {own.spec_path if own else record['spec_name']}",
        f"  project  {own.project if own else record['project'].get('name')}",
        f"  put by   {record['origin']}, {ago(now - record['added_at'])} ago, priority {record['priority']}",
        f"  needs    {record['agents']} agents"
        + (f", a host with the label {record['label']}" if record["label"] != entries.ANY else ""),
    ]
    if found.host:
        lines.append(f"  host     {found.host}{_again(found)}")
    if lease and lease.ended_at is None and lease.local_id is not None:
        lines.append(f"  here     scheduler.py --queue-status {lease.local_id}")
    if kept:
        roles = ", ".join(kept["team"])
        lines.append(f"  kept     {len(kept['branches'])} branches, {ago(now - kept['at'])} ago, of {roles}")
    if record.get("is_cancelled") and found.state is State.RUNNING:
        lines.append("  it is to be cancelled, when its host hears of it")
    if record.get("outcome"):
        lines.append(f"  {record['outcome']}")
    if result and not own:
        lines += [f"  branch   {name}" for name in sorted(result["branches"])]
    if own and own.outcome:
        lines += [f"  {line}" for line in own.outcome.splitlines()]
    data = {**_row(found, now), "record": dict(record), "home": own.outcome if own else None}
    output.answer("\n".join(lines), data)


def _again(found: Entry) -> str:
    return f", the {found.term}. time that it was taken" if found.term > 1 else ""


def _tell_unheard(output: Output, db: sqlite3.Connection, own: Put | None, entry_id: str, now: int) -> None:
    item = _waiting(db).get(entry_id)
    refused = [one for one in outbox.refused(db) if one.body.get("id") == entry_id]
    if own is None or (item is None and not refused and own.outcome is None):
        raise NotFound(f"the fleet has no entry {entry_id}, as far as is known here", hint="scheduler.py --queue-list")
    how = "over, and not kept by the fleet any more"
    if item or refused:
        how = "not sent yet" if item else f"refused: {refused[-1].refusal}"
    lines = [f"entry {entry_id}: {how}", f"  spec     {own.spec_path}", f"  project  {own.project}"]
    lines += [f"  {line}" for line in (own.outcome or "").splitlines()]
    output.answer("\n".join(lines), {"id": entry_id, "status": None, "state": how, "added_at": own.put_at})


# -- orders --


def cancel(output: Output, home: Path, entry_id: str) -> None:
    """End an entry of the fleet for good; one that runs with its team, whose work comes home."""
    _order(output, home, entries.CANCEL, entry_id, "is cancelled: its host ends it, and its branches come home")


def retry(output: Output, home: Path, entry_id: str) -> None:
    """Queue an entry of the fleet again."""
    _order(output, home, entries.RETRY, entry_id, "is queued again")


def _order(output: Output, home: Path, kind: str, entry_id: str, what: str) -> None:
    check()
    db, now = store.connect(home), host.now_ms()
    item = _waiting(db).get(entry_id)
    if item is not None and kind == entries.CANCEL:
        outbox.sent(db, item.id)
        output.answer(f"entry {entry_id} was not sent yet, and is not any more", {"id": entry_id, "sent": False})
        return
    found = entries.order(db, kind, entry_id, now=now)
    output.answer(f"entry {entry_id} {what}; {_on_its_way(db, home)}", {**_row(found, now), "sent": True})
    host.wake(home)
