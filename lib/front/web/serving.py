"""What monitoring_dashboard.py does: serves the dashboard until Ctrl-C, and says how to open it."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import segno
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server

from lib import config, store
from lib import host as machine
from lib.errors import Busy, OrchestratorError, Usage
from lib.front.cli import Output
from lib.front.web import access, app
from lib.front.web.live import MOST_PAGES, Live
from lib.front.web.security import Gate, is_local
from lib.front.web.site import Site
from lib.records import dataclass
from lib.tmux import Tmux

#: Beside the pages that listen, each of which holds one, so many threads answer (docs/decisions/dashboard.md).
_ANSWERING = 8
#: What a page has not taken yet is kept up to here; then its own stream waits, and nobody else.
_MOST_UNREAD = 1 << 20
#: A browser that does not even acknowledge for so long has gone to sleep: its place is free again.
_SILENT_MS = 30_000
#: A spec is text; the largest body is an upload of one.
MOST_BODY = 2 << 20


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    host: str = "127.0.0.1"
    port: int = 5000
    opens: bool = False
    is_read_only: bool = False
    takes_token: bool = False
    new_token: bool = False
    debug: bool = False


def serve(output: Output, home: Path, wanted: Request) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises `Busy` when the port is taken."""
    _log(wanted.debug)
    store.connect(home).close()  # it is made, or brought up to date, before anybody listens
    with _listening(wanted) as listener:
        port = listener.getsockname()[1]
        takes_token = wanted.takes_token or not is_local(wanted.host)
        token = _token(home, wanted) if takes_token else None
        gate = Gate.of(
            access.Keyring(home),
            wanted.host,
            port,
            names=config.load().dashboard.hosts,
            takes_token=takes_token,
            is_read_only=wanted.is_read_only,
        )
        tmux = Tmux.from_environment()
        live = Live(home, tmux)
        _leave_on_signals(live)
        server = _server(app.create(Site(home, tmux, gate, live, machine.now_ms())), listener)
        address = _address(wanted.host, port)
        _say(output, wanted, address, token, takes_token)
        live.start()
        if wanted.opens:
            webbrowser.open(address)  # without the token: arguments of programs can be seen by others
        server.run()


def _log(is_debug: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if is_debug else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Of a page that was closed while it was told something there is nothing to say.
    logging.getLogger("waitress").setLevel(logging.INFO if is_debug else logging.ERROR)


@contextlib.contextmanager
def _listening(wanted: Request) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(wanted.host or "0.0.0.0", wanted.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Usage(
            f"{wanted.host!r} is no address of this machine", hint="--host 127.0.0.1, or --host 0.0.0.0"
        ) from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except PermissionError:
            raise OrchestratorError(
                f"port {wanted.port} may not be used", hint="take one above 1023: --port 8080"
            ) from None
        except OSError as error:
            if error.errno == 98 or "in use" in str(error):
                hint = f"monitoring_dashboard.py --port {wanted.port + 1}"
                raise Busy(f"somebody listens at {wanted.host}:{wanted.port} already", hint=hint) from None
            raise Usage(f"{wanted.host!r} is no address of this machine: {error.strerror}") from None
        yield listener


def _token(home: Path, wanted: Request) -> str | None:
    """The token when it is a new one; of one that is there only the hash is known."""
    if wanted.new_token or access.keys(home).token_hash is None:
        return access.new_token(home)
    return None


def _server(made: app.Flask, listener: socket.socket) -> MultiSocketServer | BaseWSGIServer:
    listener.listen(128)
    server = create_server(
        made,
        sockets=[listener],
        threads=MOST_PAGES + _ANSWERING,
        connection_limit=4 * MOST_PAGES,
        channel_request_lookahead=1,  # so that a page that has gone is noticed while it is told something
        outbuf_high_watermark=_MOST_UNREAD,
        max_request_body_size=MOST_BODY,
        ident=None,
        clear_untrusted_proxy_headers=True,
    )
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        silent = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_MS)
        server.adj.socket_options = [*server.adj.socket_options, silent]
    return server


def _leave_on_signals(live: Live) -> None:
    def leave(_number: int, _frame: object) -> None:
        live.stop()  # before the server waits for the threads that listen
        raise SystemExit(0)  # Ctrl-C is how one leaves

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _address(host: str, port: int) -> str:
    name = {"127.0.0.1": "localhost", "0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _say(output: Output, wanted: Request, address: str, token: str | None, takes_token: bool) -> None:
    # After the # : no browser sends that to anybody, so it is in no log.
    url = f"{address}/login#{token}" if token else address
    output.answer(url, {"url": url, "token": token, "read_only": wanted.is_read_only})
    sys.stdout.flush()
    if token:
        output.say("this address holds the token, which is shown this once:")
        if not output.quiet and not output.json:
            segno.make(url, error="m").terminal(out=sys.stderr, compact=True)
    elif takes_token:
        output.say("it takes the token that was shown when it was made; --new-token makes another one")
    output.say("Ctrl-C ends it" + ("; nothing can be changed in it" if wanted.is_read_only else ""))
