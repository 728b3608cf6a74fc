"""What the hosts of a fleet have worked at, as their own stores and what was written of the entries say."""

from __future__ import annotations

import itertools
import subprocess
import time
from typing import Any

from tests.conftest import wait_for
from tests.fleet_machines import Host
from tests.fleet_news import News


def check(hosts: list[Host], news: News, entries: list[str], lost: dict[str, int] | None = None) -> None:
    """Each entry has succeeded once, no host has written of what it had no more, and no two worked at one at once.

    The first host has put them; of what was `lost` it is told when.
    """
    home, *workers = hosts
    for entry in entries:
        told = news.of(entry)
        assert home.entry(entry)["state"] == "succeeded"
        assert [one["term"] for one in told] == sorted(one["term"] for one in told), "nobody has written afterwards"
        assert sum(one["state"] == "succeeded" for one in told) <= 1
        home_again = home.bench.rows("SELECT data FROM events WHERE kind = 'fleet.brought_home'")
        assert sum(entry in row["data"] for row in home_again) == 1
        spans = sorted(span for one in workers for span in work_at(one, entry, (lost or {}).get(one.name)))
        assert spans and all(span[1] <= after[0] for span, after in itertools.pairwise(spans)), spans
    wait_for(lambda: news.waiting() == 0, "nothing to be left in the queue")


def finish(workers: list[Host], done: set[str]) -> None:
    """Have whoever holds an entry report that it is done; the queue may have given it to anybody. `done` grows."""
    for one in workers:
        for team in one.teams():
            if team["status"] == "running" and team["id"] not in done and complete(one, team):
                done.add(team["id"])


def work_at(one: Host, entry: str, lost_at: int | None) -> list[tuple[int, int]]:
    """From when until when a host worked at an entry, a span for each time that it had it.

    All in UTC milliseconds by the clock of the tests, `lost_at` as well.
    """
    events = one.bench.rows(
        "SELECT kind, at, data FROM events WHERE json_extract(data, '$.entry') = ? AND kind IN"
        " ('fleet.taken', 'fleet.fenced', 'fleet.unfenced', 'fleet.ended') ORDER BY id",
        entry,
    )
    begun = [
        row["started_at"]
        for row in one.bench.rows(
            "SELECT attempts.started_at FROM attempts JOIN queue_entries ON queue_entries.id = attempts.entry_id"
            " WHERE json_extract(queue_entries.options, '$.fleet') = ? ORDER BY started_at",
            entry,
        )
    ]
    spans: list[tuple[int, int]] = []
    since: int | None = None
    for event in [*events, {"kind": "the end", "at": None}]:
        if event["kind"] == "fleet.taken":
            since = next((at for at in begun if at >= event["at"]), None)
        elif event["kind"] == "fleet.unfenced":
            since = event["at"]
        elif since is not None:
            ends = [at for at in (event["at"], lost_at and lost_at + one.ahead_ms) if at is not None and at >= since]
            assert ends, f"{one.name} is at work at {entry} still"
            spans.append((since, min(ends)))
            since = None
    return [(begin - one.ahead_ms, end - one.ahead_ms) for begin, end in spans]


def is_at_work(one: Host) -> bool:
    return bool(at_work(one))


def at_work(one: Host) -> list[str]:
    """The sessions of a host's teams that are at work."""
    return [team["session"] for team in one.teams() if team["status"] == "running"]


def entries_of(one: Host) -> list[str]:
    """The entries of the fleet that a host has, and has begun."""
    rows = one.bench.rows("SELECT entry_id FROM fleet_leases WHERE ended_at IS NULL AND local_id IS NOT NULL")
    return [row["entry_id"] for row in rows]


def entry_of(one: Host) -> str:
    (entry,) = entries_of(one)
    return entry


def complete(one: Host, team: dict[str, Any]) -> bool:
    """Have a team commit something and report that it is done. False when it could not: it may have been superseded."""
    branch = f"{team['branches']}/orchestrator"
    before = commit_of(team["project"], branch)
    one.bench.door("claude_control.py", "send", f"{team['session']}:orchestrator", "rehearse: commit 1")
    for _ in range(100):
        if commit_of(team["project"], branch) != before:
            break
        time.sleep(0.1)
    words = ("complete", "orchestrator", "It is done", "--session", team["session"])
    return one.bench.door("claude_control.py", *words).code == 0


def commit_of(project: str, branch: str) -> str:
    return subprocess.run(["git", "rev-parse", branch], cwd=project, capture_output=True, text=True, check=True).stdout


def is_home(home: Host, entries: list[str]) -> bool:
    rows = home.bench.rows("SELECT entry_id FROM fleet_puts WHERE fetched_at IS NOT NULL")
    return set(entries) <= {row["entry_id"] for row in rows}


def ended(one: Host, entry: str) -> str:
    """Why a host has had no part in an entry any more, the last time."""
    rows = one.bench.rows(
        "SELECT json_extract(data, '$.why') AS why FROM events WHERE kind = 'fleet.ended'"
        " AND json_extract(data, '$.entry') = ? ORDER BY id",
        entry,
    )
    return str(rows[-1]["why"]) if rows else ""
