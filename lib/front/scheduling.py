"""What scheduler.py does and prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from lib import daemon, delivery, errands, host, store
from lib.errors import Usage
from lib.front import noticing, queueing, reminding
from lib.front.cli import Output
from lib.front.reminding import Options
from lib.models import EntryStatus
from lib.queue import entries
from lib.spending import halting, outlooks
from lib.status import ago
from lib.tmux import Tmux


@dataclass(frozen=True)
class Request:
    """The options of scheduler.py: one thing to do, with what belongs to it."""

    action: str | None = None
    daemon: bool = False
    queue_daemon: bool = False
    remove: int | None = None
    queue_status: int | None = None
    queue_cancel: int | None = None
    queue_retry: int | None = None
    queue_run: int | None = None
    recurring: bool = False
    cron: str | None = None
    catch_up: str | None = None
    deadline: int | None = None
    jitter: int = 0
    if_changed: bool = False
    again: bool = False
    priority: int = 0
    budget: int | None = None
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


#: The flags that name an entry or a check-in, and take no words.
_BY_ID = ("remove", "queue_status", "queue_cancel", "queue_retry", "queue_run")
_WITH_WORDS = ("add", "add-note", "queue-add")


def do(output: Output, home: Path, request: Request) -> None:
    """Do the one thing that is asked. Raises `Usage` when it is none, or several."""
    ids = {name: number for name in _BY_ID if (number := getattr(request, name)) is not None}
    asked = [*ids, *([request.action] if request.action else [])]
    asked += ["daemon"] if request.daemon or request.queue_daemon else []
    if len(asked) != 1:
        raise Usage("name one thing to do", hint="scheduler.py --help")
    if request.words and asked[0] not in _WITH_WORDS:
        raise Usage(f"unexpected words: {' '.join(request.words)}", hint="scheduler.py --help")
    options = Options(**{one.name: getattr(request, one.name) for one in fields(Options)})
    if asked[0] not in ("add", "add-note") and options.given():
        raise Usage(
            f"{', '.join(options.given())} belongs to a check-in: --add or --add-note", hint="scheduler.py --help"
        )
    if ids:
        _BY_ID_DO[asked[0]](output, home, ids[asked[0]])
        return
    match asked[0]:
        case "daemon":
            run_daemon(output, home, queue=request.queue_daemon)
        case "add":
            reminding.add(output, home, request.words, options)
        case "add-note":
            reminding.add_note(output, home, request.words, options)
        case "queue-add":
            queueing.add(output, home, request.words, request.again, request.priority, request.budget)
        case action:
            _ACTIONS[action](output, home)


def run_daemon(output: Output, home: Path, *, queue: bool) -> None:
    """Beat until SIGTERM or Ctrl-C."""
    output.say(f"the scheduler runs; its log is {home / 'logs' / 'scheduler.log'}")
    daemon.run(home, Tmux.from_environment(), queue=queue)


def run_once(output: Output, home: Path) -> None:
    """One beat, under the daemon's lock."""
    with host.lock(home / "scheduler.lock", sentence="the scheduler is running and needs no help"):
        beat = daemon.tick(store.connect(home), Tmux.from_environment(), home, now=host.now_ms())
    waiting = [agent.target for agent in beat.waiting]
    output.answer(f"one beat; messages wait for: {', '.join(waiting) or 'nobody'}", {"waiting": waiting})


def show_status(output: Output, home: Path) -> None:
    """Whether the daemon runs and since when, what waits for it, and how punctual it was."""
    db, now, process = store.connect(home), host.now_ms(), daemon.running(home)
    since = daemon.running_since(home) if process else None
    drains = process is not None and daemon.drains_queue(home)
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
    output.answer(
        "\n".join(
            [
                *(text, *check_in_lines, f"queue: {', '.join(found) or 'empty'}", *notice_lines),
                *(one.sentence for one in seen),
            ]
        ),
        {
            **{"running": process is not None, "pid": process.pid if process else None, "since": since},
            **{"drains_queue": drains, "check_ins": of_check_ins},
            "queue": {"paused_at": paused_at, **{str(status): counts[status] for status in EntryStatus}},
            **of_notices,
            "outlook": [one.as_data() for one in seen],
        },
    )


def stop_daemon(output: Output, home: Path) -> None:
    """End the daemon."""
    process = daemon.stop(home)
    output.answer(f"stopped (it was pid {process.pid})", {"stopped": process.pid})


def stop_spending(output: Output, home: Path) -> None:
    """Stop whom a budget has paused."""
    with errands.working(home, halting.ERRAND):
        found = halting.halt(delivery.Desk(store.connect(home), Tmux.from_environment(), home))
    lines = [f"{one.agent.target}: {one.how}" for one in found]
    data = [{"target": one.agent.target, "how": one.how} for one in found]
    output.answer("\n".join(lines) or "no budget has paused anybody", data)


_ACTIONS: Mapping[str, Callable[[Output, Path], None]] = {
    "once": run_once,
    "status": show_status,
    "stop": stop_daemon,
    "list": reminding.show_list,
    "queue-list": queueing.show_list,
    "queue-pause": lambda output, home: queueing.set_paused(output, home, True),
    "queue-resume": lambda output, home: queueing.set_paused(output, home, False),
    "send-notices": noticing.send_notices,
    "stop-spending": stop_spending,
    "notify-test": noticing.try_addresses,
}
_BY_ID_DO: Mapping[str, Callable[[Output, Path, int], None]] = {
    "remove": reminding.remove,
    "queue_status": queueing.show_entry,
    "queue_cancel": queueing.cancel,
    "queue_retry": queueing.retry,
    "queue_run": queueing.run_entry,
}
