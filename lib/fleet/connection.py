"""The connection of this host to the fleet's NATS server, and what the fleet keeps there."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import ssl
import time
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import UnexpectedEOF
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RePublish, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, KeyNotFoundError, NotFoundError

from lib.config import FleetSettings
from lib.errors import OrchestratorError, Unavailable
from lib.fleet import permissions, roster
from lib.records import dataclass

#: A host whose server has answered none of two questions within three of these takes the connection for lost.
PING_SECONDS = 5
_PATIENCE_SECONDS = 5
#: How often it looks whether nats-py takes it for lost.
_LOOK_SECONDS = 0.5
#: Of so many servers each keeps all of it: one may be lost.
REPLICAS = 3
_NO_STREAM = "NOTHING"


@dataclass(frozen=True)
class Connection:
    """A live connection. It is not mended: when `lost` is set, whoever needs it connects again."""

    nc: Client
    js: JetStreamContext
    #: The name of this host; with TLS the server knows it by its certificate.
    host: str
    lost: asyncio.Event
    #: Sets `lost`.
    watch: asyncio.Task[None] | None = None
    #: Since when it lives (seconds of `time.monotonic`): no server that it speaks to has started anew since.
    since: float = field(default_factory=time.monotonic)

    @property
    def is_of_a_cluster(self) -> bool:
        """Whether its server is one of several, of which another may have the say at any moment."""
        return bool(self.nc._server_info.get("cluster"))

    async def close(self) -> None:
        """End it; what was sent is flushed, unless the other side does not take it within some seconds."""
        if self.watch:
            self.watch.cancel()
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await asyncio.wait_for(self.nc.close(), _PATIENCE_SECONDS)
        # A side that is not there any more says no good-bye: nats-py would wait for that, or to send what is left.
        transport: Any = self.nc._transport
        transport._io_writer.transport.abort()


async def _watch(nc: Client, lost: asyncio.Event) -> None:
    """Tell that a connection is lost when nats-py takes it for that.

    nats-py tells so itself when it has closed it only. Measured with 2.16 and a cable that was pulled: 30 s after it
    has taken it for lost, which is how long TLS waits for the other side, and never when there was much to send.
    """
    while nc.is_connected and not lost.is_set():
        await asyncio.sleep(_LOOK_SECONDS)
    lost.set()


async def connect(settings: FleetSettings, home: Path) -> Connection:
    """Connect to a server of `fleet.url`. Raises `Unavailable` while none can be reached or takes this host."""
    servers = _servers(settings)
    for position, url in enumerate(random.sample(servers, len(servers)), start=1):
        try:
            return await _connect(url, settings.name(), home)
        except Unavailable:
            if position == len(servers):
                raise
    raise AssertionError("_servers gives one at least")


async def _connect(url: str, host: str, home: Path) -> Connection:
    context = _tls(home, host) if url.startswith("tls://") else None
    nc, lost, troubles = Client(), asyncio.Event(), list[Exception]()

    async def on_end() -> None:
        lost.set()

    async def on_error(error: Exception) -> None:
        # Only while connecting: what the server refuses later is told where it was asked for.
        if not nc.is_connected:
            troubles.append(error)

    try:
        await nc.connect(
            url,
            name=host,
            tls=context,
            inbox_prefix=permissions.inbox(host),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_PATIENCE_SECONDS,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=on_error,
            disconnected_cb=on_end,
            closed_cb=on_end,
        )
    except (TimeoutError, OSError, NatsError) as error:
        raise _refusal(url, troubles[-1] if troubles else error) from None
    watch = asyncio.create_task(_watch(nc, lost))
    made = Connection(nc, nc.jetstream(timeout=_PATIENCE_SECONDS), host, lost, watch)
    if context and (trouble := _distrust(nc, url)):
        await made.close()
        raise trouble
    if made.is_of_a_cluster and (trouble := await _loneliness(made, url)):
        await made.close()
        raise trouble
    return made


async def _loneliness(made: Connection, url: str) -> Unavailable | None:
    """Why a server of a cluster can do nothing for this host: it is cut off from most of the others.

    It reads and tells of streams all the same; that there is none of a name, only the cluster's leader says.
    """
    try:
        await made.js.stream_info(_NO_STREAM)
    except NotFoundError:
        return None
    except (APIError, NatsError, TimeoutError) as error:
        said = str(error) or "no answer"
        return Unavailable(f"the fleet's server {url} does not reach most of its cluster: {said}")
    return None


def _distrust(nc: Client, url: str) -> OrchestratorError | None:
    """Why a server is not one to talk to, although it has let this host connect.

    nats-py goes without TLS when the server's first line, which is in clear, does not ask for it; and it gives neither
    that nor what the server says of itself in another way.
    """
    transport: Any = nc._transport
    if transport._io_writer.get_extra_info("ssl_object") is None:
        return OrchestratorError(
            f"{url} answers without TLS", hint="somebody may stand between this host and its fleet"
        )
    if not nc._server_info.get("tls_verify"):
        return OrchestratorError(
            f"the fleet's server {url} asks nobody for a certificate",
            hint="start it with the server.conf that scheduler.py --fleet-init has written",
        )
    return None


def _refusal(url: str, error: Exception) -> OrchestratorError:
    text = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unavailable(
            f"{url} is not the server of this host's fleet: {error.verify_message}",
            hint="scheduler.py --fleet-init --address NAME, when the server has another name now",
        )
    # With TLS 1.3 the server looks at a host's certificate when the host is through already: it may only find it gone.
    is_refused = isinstance(error, ssl.SSLError | UnexpectedEOF | ConnectionResetError | BrokenPipeError)
    if is_refused or "authorization violation" in text.lower():
        return Unavailable(
            f"the fleet's server {url} does not take this host: {text}",
            hint="scheduler.py --fleet-join FILE, with a new file from where the fleet was founded",
        )
    return Unavailable(f"the fleet's server {url} cannot be reached: {text}")


def _servers(settings: FleetSettings) -> tuple[str, ...]:
    if not settings.url:
        raise Unavailable("this machine is of no fleet", hint="scheduler.py --fleet-join FILE")
    for url in settings.servers:
        if url.startswith("nats://") and not is_loopback(url):
            raise OrchestratorError(
                f"{url} has no TLS, and only a server on this machine may be without it",
                hint="scheduler.py --fleet-init makes a server with TLS; then fleet.url is tls://HOST:PORT",
            )
    return settings.servers


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine alone."""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _tls(home: Path, host: str) -> ssl.SSLContext:
    folder = home / "fleet"
    try:
        named = (folder / "host.pem").read_text(encoding="utf-8").partition("\n")[0]
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "host.pem")
    except FileNotFoundError:
        raise Unavailable(
            f"{folder} holds no certificate of this host", hint="scheduler.py --fleet-join FILE"
        ) from None
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"the certificates in {folder} cannot be used: {error}") from None
    if named.startswith(roster.HOST_LINE) and (own := named.removeprefix(roster.HOST_LINE)) != host:
        raise OrchestratorError(
            f"this host is {host} by config.yaml, and {own} by its certificate", hint=f"set fleet.host to {own} there"
        )
    return context


def may_found(settings: FleetSettings, home: Path) -> bool:
    """Whether this machine makes what the fleet keeps: the one that founded it, or each where there is no TLS."""
    return not (settings.url or "").startswith("tls://") or (home / "fleet" / "ca.key").exists()


async def prepare(made: Connection, settings: FleetSettings, home: Path) -> None:
    """Make what the fleet keeps for all its hosts, where this machine may; some may have come or gone since."""
    if not may_found(settings, home):
        return
    fleet = roster.founded(home)
    replicas = REPLICAS if len(settings.servers) >= REPLICAS else 1
    await found(made.js, fleet.hosts if fleet else [made.host], replicas=replicas)
    for host in fleet.removed if fleet else ():
        await _forget(made.js, host)


async def _forget(js: JetStreamContext, host: str) -> None:
    """Remove the records of a host that belongs to the fleet no more, and what was ordered of it."""
    for name in ("hosts", "orders", "spending"):
        bucket = await js.key_value(name)
        with contextlib.suppress(KeyNotFoundError):  # so is one that was deleted
            await bucket.get(host)
            await bucket.delete(host)


async def found(js: JetStreamContext, hosts: Iterable[str], *, replicas: int = 1) -> None:
    """Make the streams and buckets of the fleet, and for each host its bucket of projects; what is there stays.

    Each is kept by so many servers.
    """
    wanted = [
        *(_bucket(bucket) for bucket in permissions.BUCKETS),
        StreamConfig(
            name=permissions.QUEUE,
            subjects=[f"{permissions.QUEUE_SUBJECT}.*.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            duplicate_window=3600,
            deny_delete=True,
        ),
        *(_objects(permissions.projects_of(host)) for host in hosts),
    ]
    for one in wanted:
        await _ensure(js, one.evolve(num_replicas=replicas))


def _bucket(name: str) -> StreamConfig:
    """A key-value bucket of which no writer can remove what another wrote: neither rolled up nor purged."""
    return StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        allow_direct=True,
        allow_rollup_hdrs=False,
        deny_delete=True,
        deny_purge=True,
        republish=RePublish(src=f"$KV.{name}.>", dest=f"{permissions.NEWS_SUBJECT}.{name}.>"),
    )


def _objects(name: str) -> StreamConfig:
    """An object store, as NATS lays it out."""
    return StreamConfig(
        name=f"OBJ_{name}",
        subjects=[f"$O.{name}.C.>", f"$O.{name}.M.>"],
        discard=DiscardPolicy.NEW,
        allow_direct=True,
        allow_rollup_hdrs=True,
    )


async def _ensure(js: JetStreamContext, wanted: StreamConfig) -> None:
    assert wanted.name
    try:
        await js.stream_info(wanted.name)
    except NotFoundError:
        await js.add_stream(wanted)
