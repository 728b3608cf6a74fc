"""What scheduler.py does and prints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from lib.config import ROOT
from lib.errors import Usage
from lib.front import reminding
from lib.front.cli import Output
from lib.front.reminding import Options
from lib.records import dataclass


@dataclass(frozen=True)
class Request:
    """The options of scheduler.py: one thing to do, with what belongs to it."""

    action: str | None = None
    daemon: bool = False
    queue_daemon: bool = False
    remove: int | None = None
    queue_status: int | str | None = None
    queue_cancel: int | str | None = None
    queue_retry: int | str | None = None
    queue_run: int | None = None
    recurring: bool = False
    cron: str | None = None
    catch_up: str | None = None
    deadline: int | None = None
    jitter: int = 0
    if_changed: bool = False
    again: bool = False
    no_ai: bool = False
    priority: int = 0
    budget: int | None = None
    fleet: bool = False
    label: str | None = None
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


#: The flags that name an entry or a check-in, and take no words.
_BY_ID = ("remove", "queue_status", "queue_cancel", "queue_retry", "queue_run")
_WITH_WORDS = ("add", "add-note", "queue-add", "queue-order", "fleet-init", "fleet-join")

#: Which module of this folder does what, and by which function. To schedule a check-in loads no daemon and no queue.
_DOES = {
    "daemon": ("beating", "run_daemon"),
    "once": ("beating", "run_once"),
    "status": ("beating", "show_status"),
    "stop": ("beating", "stop_daemon"),
    "stop-spending": ("beating", "stop_spending"),
    "list": ("reminding", "show_list"),
    "remove": ("reminding", "remove"),
    "queue-add": ("queueing", "add"),
    "queue-list": ("queueing", "show_list"),
    "queue-order": ("queueing", "order"),
    "queue-pause": ("queueing", "pause"),
    "queue-resume": ("queueing", "resume"),
    "queue_status": ("queueing", "show_entry"),
    "queue_cancel": ("queueing", "cancel"),
    "queue_retry": ("queueing", "retry"),
    "queue_run": ("queueing", "run_entry"),
    "send-notices": ("noticing", "send_notices"),
    "notify-test": ("noticing", "try_addresses"),
}


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
    if (request.fleet or request.label) and asked[0] != "queue-add":
        raise Usage("--fleet and --label belong to --queue-add", hint="scheduler.py --help")
    if request.label and not request.fleet:
        raise Usage("--label belongs to --fleet: this machine's own queue has no labels", hint="scheduler.py --help")
    match asked[0]:
        case "daemon":
            _who_does("daemon")(output, home, queue=request.queue_daemon)
        case "add":
            reminding.add(output, home, request.words, options)
        case "add-note":
            reminding.add_note(output, home, request.words, options)
        case "queue-add":
            _who_does("queue-add")(
                *(output, home, request.words),
                again=request.again,
                priority=request.priority,
                budget_minutes=request.budget,
                no_ai=request.no_ai,
                fleet=request.fleet,
                label=request.label,
            )
        case "queue-order":
            _who_does("queue-order")(output, home, request.words)
        case "fleet-init" | "fleet-join":
            hand_over(asked[0].removeprefix("fleet-"), request.words, as_json=output.json)
        case asks:
            _who_does(asks)(output, home, *ids.values())


def _who_does(what: str) -> Callable[..., None]:
    module, function = _DOES[what]
    found: Callable[..., None] = getattr(import_module(f"lib.front.{module}"), function)
    return found


def hand_over(verb: str, words: Sequence[str], *, as_json: bool) -> NoReturn:
    """Become fleet.py, whose libraries this door does not load."""
    door = str(ROOT / "fleet.py")
    os.execv(door, [door, verb, *(["--json"] if as_json else []), "--", *words])
