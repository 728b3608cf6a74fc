"""What the forms of scheduler.py print that are about the daemon itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lib import daemon, delivery, errands, host, service, store
from lib.fleet import views
from lib.front import noticing, progress, reminding
from lib.front.cli import Output
from lib.models import EntryStatus
from lib.queue import entries
from lib.spending import halting, outlooks
from lib.status import ago
from lib.tmux import Tmux


def run_daemon(output: Output, home: Path, *, queue: bool) -> None:
    """Beat until SIGTERM or Ctrl-C; with --verbose the log has a line for each beat."""
    output.say(f"the scheduler runs; its log is {home / 'logs' / 'scheduler.log'}")
    daemon.run(home, Tmux.from_environment(), queue=queue, logs_beats=output.verbose)


def run_once(output: Output, home: Path) -> None:
    """One beat, under the daemon's lock."""
    with host.lock(home / "scheduler.lock", sentence="the scheduler is running and needs no help"):
        beat = daemon.tick(store.connect(home), Tmux.from_environment(), home, now=host.now_ms())
    waiting = [agent.target for agent in beat.waiting]
    output.answer(f"one beat; messages wait for: {', '.join(waiting) or 'nobody'}", {"waiting": waiting})


def show_status(output: Output, home: Path) -> None:
    """Whether the daemon runs and since when, what waits for it, and how punctual it was."""
    db, now, process = store.connect(home), host.now_ms(), service.running(home)
    since = service.running_since(home) if process else None
    drains = process is not None and service.drains_queue(home)
    text = f"running (pid {process.pid})" if process else "not running"
    text += f" since {ago(now - since)}" if since is not None else ""
    if process:
        text += "; it drains the queue" if drains else "; it leaves the queue alone: scheduler.py --queue-daemon"
    check_in_lines, of_check_ins = reminding.as_status(db, now=now)
    notice_lines, of_notices = noticing.as_status(db, now=now)
    counts = Counter(entry.status for entry in entries.every(db))
    paused_at = entries.paused_at(db)
    found = [f"{counts[status]} {status}" for status in EntryStatus if counts[status]]
    found += [f"paused since {ago(now - paused_at)}"] if paused_at is not None else []
    seen = outlooks.every(db, now=now)
    fleet = views.look_if_any(db, home, now=now)
    of_fleet = [f"fleet: {views.link_line(fleet.link, now)}; hosts: {views.count_line(fleet)}"] if fleet else []
    output.answer(
        "\n".join(
            [
                *(text, *check_in_lines, f"queue: {', '.join(found) or 'empty'}", *notice_lines),
                *(one.sentence for one in seen),
                *of_fleet,
            ]
        ),
        {
            **{"running": process is not None, "pid": process.pid if process else None, "since": since},
            **{"drains_queue": drains, "check_ins": of_check_ins},
            "queue": {"paused_at": paused_at, **{str(status): counts[status] for status in EntryStatus}},
            **of_notices,
            "outlook": [one.as_data() for one in seen],
            **({"fleet": fleet.as_data()} if fleet else {}),
        },
    )


def stop_daemon(output: Output, home: Path) -> None:
    """End the daemon."""
    with progress.waiting(output, "the scheduler ends its beat"):
        process = service.stop(home)
    output.answer(f"stopped (it was pid {process.pid})", {"stopped": process.pid})


def stop_spending(output: Output, home: Path) -> None:
    """Stop whom a budget has paused."""
    with errands.working(home, halting.ERRAND):
        found = halting.halt(delivery.Desk(store.connect(home), Tmux.from_environment(), home))
    lines = [f"{one.agent.target}: {one.how}" for one in found]
    data = [{"target": one.agent.target, "how": one.how} for one in found]
    output.answer("\n".join(lines) or "no budget has paused anybody", data)
