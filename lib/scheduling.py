"""What scheduler.py does and prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lib import agents, checkins, cleaning, daemon, host, queueing, store
from lib.cli import Output
from lib.errors import NotFound, Usage
from lib.models import CheckIn, CheckInStatus
from lib.status import ago
from lib.teams import ORCHESTRATOR
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
    if ids:
        _BY_ID_DO[asked[0]](output, home, ids[asked[0]])
        return
    match asked[0]:
        case "daemon":
            run_daemon(output, home, queue=request.queue_daemon)
        case "add":
            add(output, home, request.words, recurring=request.recurring)
        case "add-note":
            add_note(output, home, request.words, recurring=request.recurring)
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
    """Whether the daemon runs, and what comes next."""
    db = store.connect(home)
    process = daemon.running(home)
    due, now = checkins.next_due(db), host.now_ms()
    come = f"the next check-in is due in {ago(due - now)}" if due is not None else "no check-in is scheduled"
    text = f"running (pid {process.pid}); {come}" if process else f"not running; {come}"
    output.answer(text, {"running": process is not None, "pid": process.pid if process else None, "next_due_at": due})


def stop_daemon(output: Output, home: Path) -> None:
    """End the daemon."""
    process = daemon.stop(home)
    output.answer(f"stopped (it was pid {process.pid})", {"stopped": process.pid})


def show_list(output: Output, home: Path) -> None:
    """The check-ins to come, and those that died."""
    found = checkins.scheduled(store.connect(home))
    lines = [_line(check_in) for check_in in found]
    output.answer("\n".join(lines) or "no check-in is scheduled", [vars(check_in) for check_in in found])


def _line(check_in: CheckIn) -> str:
    if check_in.status is CheckInStatus.DEAD:
        when = f"dead: {check_in.reason}"
    else:
        when = datetime.fromtimestamp(check_in.due_at / 1000).strftime("%Y-%m-%d %H:%M")
        when += f" every {check_in.interval_minutes} min" if check_in.interval_minutes else ""
    return f"{check_in.id:>5}  {when:30}  {check_in.target:35}  {check_in.note.splitlines()[0]}"


def add(output: Output, home: Path, words: Sequence[str], *, recurring: bool) -> None:
    """SESSION ROLE WINDOW MINUTES NOTE: the role is the address; the window only helps when there is no role."""
    if len(words) != 5:
        raise Usage("--add takes SESSION ROLE WINDOW MINUTES NOTE")
    session, role, window, minutes, note = words
    db, tmux = store.connect(home), Tmux.from_environment()
    try:
        agent = agents.resolve(db, tmux, f"{session}:{role}")
    except NotFound:
        if not window.isdecimal() or role:
            raise
        agent = agents.resolve(db, tmux, f"{session}:{window}")
    _schedule(output, home, agent.id, note, minutes, recurring)


def add_note(output: Output, home: Path, words: Sequence[str], *, recurring: bool) -> None:
    """MINUTES NOTE [TARGET]: without a target an agent reminds itself, and a person the orchestrator."""
    if not 2 <= len(words) <= 3:
        raise Usage(
            "it takes MINUTES NOTE [TARGET]",
            hint='schedule_with_note.sh 30 "Review the auth work" webapp-impl:0',
        )
    minutes, note, *target = words
    db, tmux = store.connect(home), Tmux.from_environment()
    sender = agents.myself(db, tmux)
    if target:
        agent = agents.resolve(db, tmux, target[0], sender=sender)
    elif sender:
        agent = sender
    else:
        team = agents.of_orchestration(db, agents.team_of(db, None, None))
        agent = next((mate for mate in team if mate.role == ORCHESTRATOR), team[0])
    _schedule(output, home, agent.id, note, minutes, recurring)


def _schedule(output: Output, home: Path, agent_id: int, note: str, minutes: str, recurring: bool) -> None:
    # isdecimal: what isdigit takes, such as ², int does not; nor does it take thousands of digits.
    if not minutes.isdecimal() or len(minutes) > 9:
        raise Usage(f"MINUTES must be a whole number of at most 9 digits, not {minutes!r}")
    db = store.connect(home)
    made = checkins.add(
        db, agent_id, cleaning.clean(note), minutes=int(minutes), now=host.now_ms(), recurring=recurring
    )
    how = f"every {minutes} minutes" if recurring else f"in {minutes} minutes"
    output.answer(f"check-in {made.id} for {made.target} {how}", vars(made))
    if sentence := daemon.ensure(home):
        output.say(sentence)


def remove(output: Output, home: Path, check_in_id: int) -> None:
    """Cancel a check-in."""
    gone = checkins.remove(store.connect(home), check_in_id, now=host.now_ms())
    output.answer(f"removed check-in {gone.id} for {gone.target}", vars(gone))


_ACTIONS: Mapping[str, Callable[[Output, Path], None]] = {
    "once": run_once,
    "status": show_status,
    "stop": stop_daemon,
    "list": show_list,
    "queue-list": queueing.show_list,
    "queue-pause": lambda output, home: queueing.set_paused(output, home, True),
    "queue-resume": lambda output, home: queueing.set_paused(output, home, False),
}
_BY_ID_DO: Mapping[str, Callable[[Output, Path, int], None]] = {
    "remove": remove,
    "queue_status": queueing.show_entry,
    "queue_cancel": queueing.cancel,
    "queue_retry": queueing.retry,
    "queue_run": queueing.run_entry,
}
