"""The gate: which requests are heard at all, who has to show the token, and what a browser may do with a page.

Against each attack there is one rule here and one test in tests/integration/test_dashboard_attacks.py. The API's
clients show the token as `Authorization: Bearer`; browsers have a session, and every change of theirs carries what
only our own pages can read.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil
from flask import Flask, Response, g, redirect, request

from lib.front.web.access import SESSION_SECONDS, BrowserSession, Keyring, Lockout
from lib.front.web.answers import trouble
from lib.records import dataclass

#: A page takes everything from here, runs nothing that stands in it, and stands in nobody's frame.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "font", "connect", "manifest")),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a form of our own would come with the origin `null`, as another site's does.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_LOOKS = ("GET", "HEAD", "OPTIONS")
#: What a browser needs to ask for the token, and a supervisor to see that the server lives.
_OPEN_TO_ALL = ("/login", "/logout", "/healthz")
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Gate:
    """The rules of one server. `names` are the hosts that it answers to; a name that is none is another site's."""

    keyring: Keyring
    lockout: Lockout
    names: frozenset[str]
    takes_token: bool
    is_read_only: bool
    cookie: str

    @classmethod
    def of(
        cls, keyring: Keyring, host: str, port: int, *, names: Iterable[str], takes_token: bool, is_read_only: bool
    ) -> Gate:
        """The gate of a server that listens at an address, and has other names besides."""
        # Browsers keep cookies by the host alone: two dashboards of one machine must not end each other's session.
        cookie = f"tmux-orchestrator-{port}"
        known = names_of(host) | {name.lower() for name in names}
        return cls(keyring, Lockout(), known, takes_token, is_read_only, cookie)


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens at an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str) -> frozenset[str]:
    """The names by which a server is asked that listens at an address."""
    if is_local(host):
        return _LOCAL_NAMES | {host}
    if host not in ("0.0.0.0", "::", ""):
        return _LOCAL_NAMES | {host.lower()}
    addresses = (address.address for found in psutil.net_if_addrs().values() for address in found)
    own = {socket.gethostname().lower(), socket.getfqdn().lower(), *(one.partition("%")[0] for one in addresses)}
    return _LOCAL_NAMES | own


def put_up(app: Flask, gate: Gate) -> None:
    """Have every request of an app pass the gate."""
    checks = (_check_host, _check_site, _check_token, _check_change)

    @app.before_request
    def enter() -> Response | None:
        g.session = gate.keyring.sessions.read(request.cookies.get(gate.cookie, ""))
        g.shows_token = False
        return next((refusal for check in checks if (refusal := check(gate))), None)

    @app.after_request
    def leave(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response


# -- the rules --


def _check_host(gate: Gate) -> Response | None:
    """Against DNS rebinding: a foreign name that was pointed at this machine is still a foreign name."""
    if _name(request.host) in gate.names:
        return None
    return trouble(421, f"this is no dashboard of {request.host!r}", "open it by the address that was printed")


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _check_site(gate: Gate) -> Response | None:
    """Against other sites that have a browser ask here: browsers say who is behind a request."""
    origin, behind = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    is_ours = origin is None or urlsplit(origin).netloc == request.host
    if request.method in _LOOKS:
        # A link on another site may lead to a page; what its scripts ask for is refused.
        is_visit = request.headers.get("Sec-Fetch-Mode") == "navigate"
        is_refused = not is_ours or (behind in ("cross-site", "same-site") and not is_visit)
    else:
        is_refused = not is_ours or behind not in ("same-origin", "none")
    return trouble(403, "another site asks for this") if is_refused else None


def _check_token(gate: Gate) -> Response | None:
    if shown := _shown():
        g.shows_token, refusal = try_token(gate, shown)
        if refusal:
            return refusal
    is_member = isinstance(g.session, BrowserSession) and g.session.has_token
    if not gate.takes_token or g.shows_token or is_member or _is_open(request.path):
        return None
    accepted = request.accept_mimetypes
    if request.method == "GET" and accepted.quality("text/html") > accepted.quality("application/json"):
        return redirect("/login")  # type: ignore[return-value]  # werkzeug's response, which app.response_class is not
    headers = {"WWW-Authenticate": "Bearer"}
    return trouble(401, "the token is missing", "send it as `Authorization: Bearer TOKEN`, or log in", headers)


def _is_open(path: str) -> bool:
    return path in _OPEN_TO_ALL or path.startswith("/static/")


def _shown() -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def try_token(gate: Gate, token: str) -> tuple[bool, Response | None]:
    """Whether a token is right; with what is answered to a wrong one, and to any during a lock-out."""
    if not gate.takes_token:  # nobody is asked for one: what a client shows anyway proves nothing
        return False, None
    address = request.remote_addr or ""
    if seconds := gate.lockout.seconds(address):
        headers = {"Retry-After": str(math.ceil(seconds))}
        return False, trouble(429, "too many wrong tokens", f"wait {math.ceil(seconds / 60)} min", headers)
    if gate.keyring.keys.opens(token):
        return True, None
    gate.lockout.note(address)
    hint = "monitoring_dashboard.py --new-token makes another one"
    return False, trouble(401, "this is not the token", hint, {"WWW-Authenticate": "Bearer"})


def _check_change(gate: Gate) -> Response | None:
    if request.method in _LOOKS or request.path in ("/login", "/logout"):
        return None
    if gate.is_read_only:
        return trouble(403, "this dashboard only shows", "start it without --read-only")
    sent = request.headers.get("X-CSRF-Token", "")
    # A client that shows the token itself cannot be made to do so by another site.
    if g.shows_token or (g.session and hmac.compare_digest(sent.encode(), g.session.csrf.encode())):
        return None
    return trouble(403, "the change does not come from a page of this dashboard", "GET /api/v1/browser has the token")


# -- sessions --


def session_of(gate: Gate) -> tuple[BrowserSession, str | None]:
    """The session of this request, and its cookie when it is a new one."""
    if g.session:
        found: BrowserSession = g.session
        return found, None
    cookie = gate.keyring.sessions.begin(has_token=False)
    made = gate.keyring.sessions.read(cookie)
    assert made
    return made, cookie


def set_cookie(gate: Gate, response: Response, cookie: str) -> Response:
    """Have the browser keep a session: no script reads it, and no other site's request carries it."""
    response.set_cookie(
        gate.cookie, cookie, max_age=SESSION_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure
    )
    return response
