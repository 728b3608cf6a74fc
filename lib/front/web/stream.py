"""GET /api/v1/stream: what has happened and what is now, as server-sent events (the room: live.py)."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request

from lib.errors import Usage
from lib.front.web.answers import trouble
from lib.front.web.contract import PREFIX
from lib.front.web.live import MOST_PAGES
from lib.front.web.site import site

part = Blueprint("stream", __name__)

#: A page that finds no place tries again after so many seconds.
_AGAIN_SECONDS = "10"


@part.get(f"{PREFIX}/stream")
def listen() -> Response:
    """Tell a page all from the event on that it names: by the header of a browser that comes back, or by `after`."""
    after = _after()
    leave = site().live.open()
    if leave is None:
        sentence = f"{MOST_PAGES} pages listen already"
        return trouble(503, sentence, "close one, or look at the API", {"Retry-After": _AGAIN_SECONDS})
    response = Response(site().live.tell(after, _may_end()), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # a reverse proxy must not collect it
    response.call_on_close(leave)
    return response


def _may_end() -> Callable[[], bool]:
    """Whether a stream is to end: its page has gone, or a new token has ended its session."""
    gate = site().gate
    has_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    secret = gate.keyring.keys.secret
    return lambda: has_gone() or (gate.takes_token and gate.keyring.keys.secret != secret)


def _after() -> int | None:
    named = request.headers.get("Last-Event-ID") or request.args.get("after")
    if not named:
        return None
    if not (named.isascii() and named.isdecimal() and len(named) < 19):
        raise Usage(f"{named!r} is no id of an event")
    return int(named)
