"""What every page and every answer of the dashboard stands on: the state home, tmux, the live view, and the rules."""

from __future__ import annotations

from pathlib import Path

from flask import current_app, g

from lib import service, store
from lib.errors import OrchestratorError
from lib.front.control.desk import Caller
from lib.front.web.live import Live
from lib.front.web.security import Gate
from lib.records import dataclass
from lib.tmux import Tmux


@dataclass(frozen=True)
class Site:
    """One dashboard. `started_at` is UTC milliseconds."""

    home: Path
    tmux: Tmux
    gate: Gate
    live: Live
    started_at: int


def site() -> Site:
    """The dashboard that answers now."""
    found: Site = current_app.extensions["dashboard"]
    return found


def desk() -> Caller:
    """The desk of this request: who sits in front of the browser is a person, wherever the server was started."""
    if "desk" not in g:
        here = site()
        g.desk = Caller(store.connect(here.home), here.tmux, here.home, None)
    found: Caller = g.desk
    return found


def close_desk(_: BaseException | None) -> None:
    """Close the store of a request that is over."""
    if found := g.pop("desk", None):
        found.db.close()


def have_scheduler() -> str | None:
    """Have somebody who does what waits to be done later; what a person should hear of it, or why there is nobody.

    What was recorded is recorded: a scheduler that does not start is no reason to say otherwise.
    """
    try:
        return service.ensure(site().home)
    except OrchestratorError as error:
        return error.sentence
