"""What fleet.py init, join and remove do and print."""

from __future__ import annotations

import contextlib
import datetime
import getpass
import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lib import config, host, service
from lib.errors import Usage
from lib.fleet import founding, joining
from lib.fleet.roster import Fleet, Places, founded
from lib.front.cli import Output
from lib.records import dataclass

DEFAULT_LISTEN = "0.0.0.0:4222"


@dataclass(frozen=True)
class Request:
    """The options of fleet.py init."""

    hosts: tuple[str, ...] = ()
    name: str | None = None
    listen: str | None = None
    address: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    renew: bool = False

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


def init(output: Output, home: Path, request: Request) -> None:
    """Found a fleet on this machine, or bring hosts and addresses into the one that it has founded."""
    for name in request.hosts:
        founding.checked(name)
    with _alone(home):
        before = founded(home)
        fleet = _extended(home, request) if before else _founded(home, request)
        fleet = founding.invite(home, request.hosts, _now(), renew=request.renew)
        reads = founding.tell_server(home)
    path = config.config_path()
    settled = joining.settle(path, fleet.own_url, fleet.founder)
    _tell_scheduler(home)
    tickets = {name: _lines(home, fleet, name) for name in request.hosts if name != fleet.founder}
    servers = {one: _server_lines(home, fleet, one, is_new=before is None) for one in fleet.servers}
    server = f"nats-server -c {shlex.quote(str(Places.of(home).server_conf))}"
    text = [
        f"{'the fleet of' if before else 'founded the fleet of'} {fleet.founder}: hosts find its server as {fleet.url}",
        *(["its server has read who belongs to it"] if reads else ["start its server on this machine:", f"  {server}"]),
        *([] if settled else _by_hand(path, fleet.own_url, fleet.founder)),
        *_told(servers),
        *_told(tickets),
    ]
    output.answer(
        "\n".join(text),
        {
            **{"founder": fleet.founder, "url": fleet.url, "hosts": list(fleet.hosts), "config_written": settled},
            **{"server": server, "server_has_read": reads, "servers": servers},
            "tickets": {
                name: {"file": str(Places.of(home).ticket(name)), "lines": two} for name, two in tickets.items()
            },
        },
    )


def remove(output: Output, home: Path, hosts: Sequence[str]) -> None:
    """Take hosts out of the fleet."""
    with _alone(home):
        fleet = founding.remove(home, hosts, _now())
        reads = founding.tell_server(home)
    names = ", ".join(hosts)
    end = "its server has cut them off" if reads else "its server does not run here; it will not know them"
    servers = {one: _server_lines(home, fleet, one, is_new=False) for one in fleet.servers}
    text = [f"removed from the fleet: {names}; {end}", *_told(servers)]
    said = {"removed": list(hosts), "server_has_read": reads}
    output.answer("\n".join(text), {**said, "servers": servers} if servers else said)


def join(output: Output, home: Path, path: Path) -> None:
    """Make this machine a host of a fleet."""
    config.load()  # a file that cannot be read is told of before anything is written
    with _alone(home):
        ticket = joining.join(home, path, _now())
    settings = config.config_path()
    settled = joining.settle(settings, ticket.url, ticket.host)
    text = [
        f"this machine is the host {ticket.host} of the fleet at {ticket.url}",
        *([f"{settings} says so"] if settled else _by_hand(settings, ticket.url, ticket.host)),
        f"{path} holds its key and is not needed any more: rm {shlex.quote(str(path))}",
        "the scheduler reads its configuration again" if _tell_scheduler(home) else "next: scheduler.py --daemon",
    ]
    output.answer("\n".join(text), {"host": ticket.host, "url": ticket.url, "config_written": settled})


def _founded(home: Path, request: Request) -> Fleet:
    name = request.name or config.load().fleet.name()
    if name in request.hosts:
        raise Usage(f"{name} is this machine", hint="name other machines, or give this one another --name")
    addresses = request.address or (os.uname().nodename,)
    return founding.found(home, name, addresses, request.listen or DEFAULT_LISTEN, _now(), request.server)


def _extended(home: Path, request: Request) -> Fleet:
    if request.server:
        raise Usage("--server is for the first time: what one server keeps does not become a cluster's")
    if request.name or request.listen:
        conf = Places.of(home).server_conf
        raise Usage("--name and --listen are for the first time", hint=f"where the server listens stands in {conf}")
    return founding.extend(home, request.address, _now())


def _lines(home: Path, fleet: Fleet, name: str) -> tuple[str, str]:
    """What is typed on a host, in its checkout: copy the ticket, join."""
    ticket = Places.of(home).ticket(name)
    source = f"{getpass.getuser()}@{fleet.addresses[0]}:{ticket}"
    return f"scp {shlex.quote(source)} .", f"./scheduler.py --fleet-join {ticket.name}"


def _server_lines(home: Path, fleet: Fleet, server: str, *, is_new: bool) -> tuple[str, str]:
    """What is typed on the machine of a further server: get its files, and have it read them."""
    folder = Places.of(home).other_server(server)
    source = f"{getpass.getuser()}@{fleet.addresses[0]}:{folder}"
    if is_new:
        return f"scp -r {shlex.quote(source)} fleet-server", "cd fleet-server && nats-server -c server.conf"
    again = "kill -HUP $(cat fleet-server/server.pid)"
    return f"scp {shlex.quote(f'{source}/accounts.conf')} fleet-server/", f"{again}; sleep 1; {again}"


def _told(lines: Mapping[str, Sequence[str]]) -> list[str]:
    return [line for name, two in lines.items() for line in (f"on {name} type:", *(f"  {one}" for one in two))]


def _by_hand(path: Path, url: str, name: str) -> list[str]:
    return [f"{path} stays as it is; it has to say:", *joining.lines(url, name).splitlines()]


def _tell_scheduler(home: Path) -> bool:
    if process := service.running(home):
        os.kill(process.pid, signal.SIGHUP)
    return process is not None


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    with host.lock(home / "fleet.lock", sentence="another fleet.py changes who belongs to the fleet"):
        yield


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
