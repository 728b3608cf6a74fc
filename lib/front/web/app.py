"""The application: its pages, its API, and how what goes wrong is answered."""

from __future__ import annotations

import logging
import sqlite3

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from lib import config, store
from lib.errors import Busy, Gone, NotFound, OrchestratorError, Unavailable, Usage
from lib.front.web import actions, metrics, pages, past, security, specs, stream, views
from lib.front.web.answers import trouble
from lib.front.web.contract import Digits
from lib.front.web.site import Site, close_desk, site

__all__ = ["Flask", "create"]

_log = logging.getLogger(__name__)

_FOLDER = config.ROOT / "templates" / "web"
#: A failure that is none of these is one of the thing itself: as it stands now, this cannot be done with it.
_STATUS = {Usage: 400, NotFound: 404, Busy: 409, Unavailable: 503, Gone: 409}
_FAILED = 409


def create(made: Site) -> Flask:
    """The application of one dashboard."""
    app = Flask(__name__, static_folder=str(_FOLDER / "static"), template_folder=str(_FOLDER))
    app.extensions["dashboard"] = made
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = 2 << 20
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 0
    security.put_up(app, made.gate)
    app.after_request(_note)
    app.url_map.merge_slashes = False  # a path is what it is
    app.url_map.converters["digits"] = Digits
    app.teardown_appcontext(close_desk)
    for part in (pages.part, views.part, past.part, actions.part, specs.part, stream.part, metrics.part):
        app.register_blueprint(part)
    app.register_error_handler(OrchestratorError, _failed)
    app.register_error_handler(sqlite3.Error, _store_failed)
    app.register_error_handler(HTTPException, _refused)
    return app


def _note(response: Response) -> Response:
    _log.debug("%s %s %d", request.method, request.full_path.rstrip("?"), response.status_code)
    return response


def _failed(error: OrchestratorError) -> Response:
    return trouble(_STATUS.get(type(error), _FAILED), error.sentence, error.hint)


def _store_failed(error: sqlite3.Error) -> Response:
    found = store.trouble(error, site().home)
    return _failed(found) if found else _bug(error)


def _refused(error: HTTPException) -> Response:
    if isinstance(error, InternalServerError):
        return _bug(error.original_exception or error)
    headers = dict(error.get_headers(request.environ))
    kept = {name: value for name, value in headers.items() if name in ("Allow", "Retry-After")}
    return trouble(error.code or 500, error.description or error.name, headers=kept)


def _bug(error: BaseException) -> Response:
    _log.error("%s %s", request.method, request.path, exc_info=error)
    return trouble(500, f"bug: {type(error).__name__}", "the traceback is where monitoring_dashboard.py runs")
