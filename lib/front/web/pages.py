"""The pages themselves: the dashboard, and where a browser shows the token."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, render_template, request

from lib.front.web import ansi, security
from lib.front.web.answers import answer, trouble
from lib.front.web.site import site

part = Blueprint("pages", __name__)


@part.get("/")
def dashboard() -> Response:
    """The dashboard: a frame that its script fills from the API, and keeps up to date."""
    session, cookie = security.session_of(site().gate)
    gate = site().gate
    page = render_template("page.html", csrf=session.csrf, read_only=gate.is_read_only, logs_out=gate.takes_token)
    made = make_response(page)
    return security.set_cookie(gate, made, cookie) if cookie else made


@part.get("/static/ansi.css")
def colours() -> Response:
    """The colours of terminals."""
    return Response(ansi.stylesheet(), mimetype="text/css", headers={"Cache-Control": "max-age=86400"})


@part.get("/login")
def ask_for_token() -> Response:
    """Ask for the token; an address with it after the # needs no typing."""
    return make_response(render_template("login.html"))


@part.post("/login")
def log_in() -> Response:
    """Open a session for who shows the token."""
    gate = site().gate
    is_right, refusal = security.try_token(gate, request.form.get("token", ""))
    if refusal:
        return refusal
    made = _to("/")
    return security.set_cookie(gate, made, gate.keyring.sessions.begin(has_token=True)) if is_right else made


@part.post("/logout")
def log_out() -> Response:
    """End the session of this browser."""
    made = _to("/login")
    made.delete_cookie(site().gate.cookie, httponly=True, samesite="Strict")
    return made


def _to(path: str) -> Response:
    return make_response(redirect(path, 303))


@part.get("/healthz")
def health() -> Response:
    """Whether the server answers, and can look: for who supervises it. It tells nothing of the teams."""
    wrong = site().live.trouble
    return trouble(503, wrong) if wrong else answer({"status": "ok"})
