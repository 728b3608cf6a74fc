"""Real servers on loopback that stand where the world would be: one for mail, one for the web."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "wachmann", "Geheim/@: 4711"


@dataclass
class Mailbox:
    """An SMTP server that asks for a login, and what it was sent."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)

    def url(self, password: str = PASSWORD) -> str:
        """How Apprise is told to write here."""
        return (
            f"mailto://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}?from=team@box.example&to=me@box.example"
        )

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"


def text_of(mail: EmailMessage) -> str:
    """The plain text of a mail."""
    part = mail.get_body(("plain",))
    assert part
    return str(part.get_content()).replace("\r\n", "\n").strip()


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
    good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=good)


@contextlib.contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A mail server for the block."""
    box, loop = Mailbox(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def serve() -> SMTP:
        return SMTP(
            box, hostname="box.example", authenticator=_login, auth_required=True, auth_require_tls=False, loop=loop
        )

    async def begin() -> asyncio.Server:
        return await loop.create_server(serve, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@dataclass
class Web:
    """A web server, what it was asked, and how it answers: by the status of a path, 200 when none is set."""

    port: int = 0
    asked: list[tuple[str, Any]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    #: While cleared, nothing is answered.
    answers: threading.Event = field(default_factory=threading.Event)
    #: Called with each request before it is answered.
    on_request: Callable[[], None] = lambda: None

    def url(self, path: str = "/") -> str:
        return f"json://127.0.0.1:{self.port}{path}"

    def got(self, path: str = "/") -> list[Any]:
        """What came to a path: JSON, or None for a request without a body."""
        return [body for place, body in self.asked if place == path]

    def titles(self, path: str = "/") -> list[str]:
        return [body["title"] for body in self.got(path)]


@contextlib.contextmanager
def web(port: int = 0) -> Iterator[Web]:
    """A web server for the block."""
    made = Web()
    made.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            made.asked.append((self.path, json.loads(self.rfile.read(size)) if size else None))
            made.on_request()
            made.answers.wait(60)
            with contextlib.suppress(OSError):  # who asked may be gone
                self.send_response(made.statuses.get(self.path, 200))
                self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.answers.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
