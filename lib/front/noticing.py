"""What `scheduler.py --send-notices` and `--notify-test` do and print."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from lib import config, errands, host, notices, notify, pings, service, store
from lib.config import NotifySettings
from lib.errors import OrchestratorError
from lib.front import progress
from lib.front.cli import Output
from lib.notify import Answer, Letter
from lib.status import ago


def send_notices(output: Output, home: Path) -> None:
    """Send what is due, and call the dead man's switch when the scheduler has just found all well."""
    with errands.working(home, "notices"):
        db, settings = store.connect(home), config.load().notify
        rows = [_row("ping", reason) for reason in send_ping(db, settings, now=host.now_ms())]
        rows += [_row(answer.address.name, answer.reason) for answer in send_due(db, settings, now=host.now_ms())]
        notices.prune(db, now=host.now_ms())
    output.answer(_table(rows) if rows else "nothing is to be sent", rows)


def send_ping(db: sqlite3.Connection, settings: NotifySettings, *, now: int) -> list[str | None]:
    """Call the dead man's switch when that is wanted. Returns the reason of the one call, None when all went well."""
    if settings.ping_url is None or not pings.is_wanted(db, now=now):
        return []
    reason = notify.ping(settings.ping_url)
    pings.note(db, reason, now=now)
    return [reason]


def send_due(db: sqlite3.Connection, settings: NotifySettings, *, now: int) -> list[Answer]:
    """Send every address what it is to get now; what becomes of it is recorded as soon as it is known."""
    addresses = notify.addresses(settings.urls)
    notices.sort_out(db, [address.key for address in addresses], settings.events, now=now)
    machine, letters, begun = os.uname().nodename, [], {}
    for address in addresses:
        found = notices.begin(db, address.key, per_hour=settings.per_hour, now=now)
        if found:
            begun[address] = [notice.id for notice in found]
            letters.append(Letter(address, *notices.as_letter(found, machine=machine)))
    answers = []
    for answer in notify.send(letters):
        if answer.reason is None:
            notices.taken(db, answer.address.key, begun[answer.address], now=now)
        else:
            reason = f"{answer.address.name}: {answer.reason}"
            notices.refused(db, answer.address.key, begun[answer.address], reason, now=now)
        answers.append(answer)
    return answers


def as_status(db: sqlite3.Connection, *, now: int) -> tuple[list[str], dict[str, object]]:
    """What `scheduler.py --status` tells of notices and pings: lines, none when there is nothing, and data."""
    counts, failed, ping = notices.counts(db), notices.last_failure(db), pings.last(db)
    lines = []
    if any(counts.values()):
        words = {"queued": "to be sent"}
        found = [f"{count} {words.get(status, status)}" for status, count in counts.items() if count]
        why = f"; the last failure, {ago(now - failed.queued_at)} ago: {failed.reason}" if failed else ""
        lines.append(f"notices: {', '.join(found)}{why}")
    if ping.pinged_at or ping.failures:
        last = f"last answered {ago(now - ping.pinged_at)} ago" if ping.pinged_at else "never answered"
        lines.append(
            f"ping: {last}" + (f"; failed {ping.failures} times since: {ping.reason}" if ping.failures else "")
        )
    data: dict[str, object] = {"notices": counts, "last_failure": failed.reason if failed else None, "ping": vars(ping)}
    return lines, data


def try_addresses(output: Output, home: Path) -> None:
    """Send a notice to every address of the configuration, call the dead man's switch, and show how it went."""
    settings = config.load().notify
    if not settings.urls and not settings.ping_url:
        raise OrchestratorError(
            f"no address is configured: notify.urls in {config.config_path()} is empty",
            hint="docs/notifications.md has examples",
        )
    kinds = ", ".join(settings.events) or "nothing, since notify.events is empty"
    text = f"This address is told of: {kinds}.\n\n{os.uname().nodename}"
    letters = [Letter(address, "A test of the notices", text) for address in notify.addresses(settings.urls)]
    with progress.waiting(output, "a test is sent to every address"):
        answers = sorted(notify.send(letters), key=lambda answer: answer.address.position)
        rows = [_row(answer.address.name, answer.reason) for answer in answers]
        if settings.ping_url:
            rows.append(_row("notify.ping_url", notify.ping(settings.ping_url)))
    output.answer(_table(rows), rows)
    if process := service.running(home):
        output.say(f"a scheduler that is running reads a changed configuration after: kill -HUP {process.pid}")
    refused = sum(row["result"] == "refused" for row in rows)
    if refused:
        raise OrchestratorError(
            f"{refused} of {len(rows)} did not take it", hint=f"docs/notifications.md; {config.config_path()}"
        )


def _row(address: str, reason: str | None) -> dict[str, str | None]:
    return {"address": address, "result": "taken" if reason is None else "refused", "reason": reason}


def _table(rows: list[dict[str, str | None]]) -> str:
    lines = [("address", "result", "reason"), *((row["address"], row["result"], row["reason"] or "") for row in rows)]
    return "\n".join(f"{address:20} {result:8} {reason}".rstrip() for address, result, reason in lines)
