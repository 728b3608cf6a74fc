"""The API's part of the queue: specs in, by a path or as a text, and what becomes of them."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Blueprint, Response
from werkzeug.exceptions import Forbidden

from lib import config, host, orchestrations
from lib.errors import NotFound, Usage
from lib.front import queueing
from lib.front.web import actions, contract, past, pieces, schemas, views
from lib.front.web.answers import answer
from lib.front.web.contract import Contract
from lib.front.web.site import desk, have_scheduler
from lib.judgement.batchfile import Wanted
from lib.judgement.shapes import Schema
from lib.models import BUDGET_MINUTES, PRIORITIES
from lib.queue import draining, entries, intake

_queue = Contract("queue")
part = Blueprint("specs", __name__)
part.register_blueprint(_queue.part)

_PATH = {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": r"^[^\x00]*$"}
_PAUSED = schemas.things(paused=schemas.YES, changed=schemas.YES)


@part.get(f"{contract.PREFIX}/openapi.json")
def document() -> Response:
    """This API, for programs that read such."""
    return answer(contract.document(views.contract, past.contract, actions.contract, _queue))


# -- looking --


@_queue.get(
    "/queue",
    "The queue: what is unfinished, in the order in which it runs; with `all` also what is over.",
    schemas.QUEUE,
    {"all": {"type": "boolean"}},
)
def show(all: bool = False) -> dict[str, object]:
    """Every entry."""
    db, now = desk().db, host.now_ms()
    if not all:
        return pieces.queue(db, now=now)
    return {"paused_at": entries.paused_at(db), "entries": [queueing.row(db, one, now) for one in entries.every(db)]}


@_queue.get(
    "/queue/{entry}",
    "One entry with the story of each attempt.",
    schemas.things(**schemas.ENTRY["properties"], story=schemas.listed(schemas.ANYTHING)),
)
def story(entry: int) -> dict[str, object]:
    """An entry, its spec, and what became of each attempt."""
    db = desk().db
    found = entries.get(db, entry)
    told = [queueing.attempt_data(db, one) for one in entries.attempts(db, entry)]
    more = {"options": found.options, "budget_minutes": found.budget_minutes, "spec_text": found.spec_text}
    return queueing.row(db, found, host.now_ms()) | more | {"story": told}


# -- adding --


_HOW: dict[str, Schema] = {
    "project": _PATH,
    "roles": {"type": "array", "items": {"type": "string"}},
    "team_type": {"type": "string"},
    "priority": {"type": "integer", "minimum": PRIORITIES[0], "maximum": PRIORITIES[1]},
    "budget_minutes": {"type": "integer", "minimum": BUDGET_MINUTES[0], "maximum": BUDGET_MINUTES[1]},
    "again": {"type": "boolean", "description": "Also when the same spec of the same project is there already."},
}
_ADDED = schemas.things(entries=schemas.listed(schemas.ENTRY))


@_queue.post(
    "/queue",
    "Queue a spec by its path, which has to be inside the allowed folders.",
    _ADDED,
    {"path": _PATH, **_HOW},
    needs=("path", "project"),
    status=201,
)
def add(path: str, project: str, **how: Any) -> dict[str, object]:
    """Queue a file that is on this machine."""
    allowed = roots(desk().db)
    return _add(inside(allowed, path), inside(allowed, project, is_folder=True), **how)


@_queue.post(
    "/queue/text",
    "Queue a spec that is sent as a text.",
    _ADDED,
    {
        "text": {"type": "string", "minLength": 1, "maxLength": 1_000_000},
        "name": {"type": "string", "maxLength": 200, "description": "What its file is called (default spec.md)."},
        **_HOW,
    },
    needs=("text", "project"),
    status=201,
)
def send(text: str, project: str, name: str = "spec.md", **how: Any) -> dict[str, object]:
    """Keep a text in the state home, and queue it."""
    here = desk()
    folder = inside(roots(here.db), project, is_folder=True)
    return _add(keep_upload(here.home, name, text), folder, **how)


def _add(
    spec: Path,
    project: Path,
    *,
    again: bool = False,
    priority: int = 0,
    budget_minutes: int | None = None,
    **options: object,
) -> dict[str, object]:
    """Read and check a spec as `scheduler.py --queue-add` does, and queue it. Raises as that, and `NotFound`."""
    here, now = desk(), host.now_ms()
    wanted = Wanted(str(spec), str(project), options=options, priority=priority, budget_minutes=budget_minutes)
    try:
        ready = intake.gather(here.db, here.home, config.load(), Path("/"), [wanted], force=False)
    except Usage as error:  # the request is well formed: what it names, a role or a team type, does not exist here
        raise NotFound(error.sentence, hint=error.hint) from error
    added = entries.add(here.db, [one.entry(again=again) for one in ready], now=now)
    rows = [queueing.row(here.db, one, now) | {"new": one.id in added.new} for one in added.entries]
    return {"entries": rows, "said": have_scheduler()}


def roots(db: sqlite3.Connection) -> list[Path]:
    """The folders from which a browser may name files: those of the settings, and the projects that are known."""
    named = [Path(one).expanduser() for one in config.load().dashboard.roots]
    projects = config.projects_dir()
    known = [*orchestrations.projects(db), *(entry.project for entry in entries.every(db))]
    return list(dict.fromkeys(one.resolve() for one in (*named, *([projects] if projects else []), *known)))


def inside(allowed: Sequence[Path], named: str, *, is_folder: bool = False) -> Path:
    """Where a path leads that a browser has named. Raises `Forbidden` when that is outside of the allowed folders.

    What is behind symbolic links counts, and that is what is opened then.
    """
    try:
        place = Path(named)
        found = place.resolve(strict=True) if place.is_absolute() else None
    except (OSError, ValueError, RuntimeError):
        found = None
    # A folder would stand for all that lies in it, and links in it may lead anywhere.
    is_kind = found is not None and (found.is_dir() if is_folder else found.is_file())
    if found is None or not is_kind or not any(found.is_relative_to(root) for root in allowed):
        # The same words for what is not there: a browser learns nothing of the disk outside.
        raise Forbidden(f"{named} is not in a folder that the dashboard may use (setting dashboard.roots)")
    return found


def keep_upload(home: Path, name: str, text: str) -> Path:
    """Keep a spec that was sent, by its content: sent twice it is the same file. Returns where."""
    stem = re.sub(r"[^\w-]+", "-", Path(name).name.rpartition(".md")[0] or name).strip("-")[:60] or "spec"
    content = text.encode()
    place = home / "queue" / "sent" / hashlib.sha256(content).hexdigest()[:16] / f"{stem}.md"
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.write_bytes(content)
    return place


# -- changing --


@_queue.post("/queue/pause", "Start nothing more; what runs goes on.", _PAUSED)
def pause() -> dict[str, object]:
    """Pause the queue."""
    return _set_paused(True)


@_queue.post("/queue/resume", "Start again what waits.", _PAUSED)
def resume() -> dict[str, object]:
    """Let the queue go on."""
    return _set_paused(False)


def _set_paused(paused: bool) -> dict[str, object]:
    here = desk()
    changed = entries.set_paused(here.db, paused, now=host.now_ms())
    return {"paused": paused, "changed": changed, "said": None if paused else have_scheduler()}


@_queue.post(
    "/queue/order",
    "Have unfinished entries run in this order.",
    schemas.QUEUE,
    {
        "ids": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
        }
    },
    needs=("ids",),
)
def reorder(ids: list[int]) -> dict[str, object]:
    """Raise priorities as far as the order needs it."""
    here = desk()
    entries.reorder(here.db, ids, now=host.now_ms())
    host.wake(here.home)
    return pieces.queue(here.db, now=host.now_ms())


@_queue.post("/queue/{entry}/retry", "Queue an entry again, at once and with all its attempts.", schemas.ENTRY)
def retry(entry: int) -> dict[str, object]:
    """Try it once more."""
    here, now = desk(), host.now_ms()
    found = entries.retry(here.db, entry, now=now)
    return queueing.row(here.db, found, now) | {"said": have_scheduler()}


@_queue.post("/queue/{entry}/cancel", "End an entry for good; a running one with its team.", schemas.ENTRY)
def cancel(entry: int) -> dict[str, object]:
    """Cancel it; worktrees and branches of its team stay."""
    here, now = desk(), host.now_ms()
    gone, _ = draining.cancel(here.db, here.tmux, here.home, entry, now=now)
    return queueing.row(here.db, gone, now)
