"""Founds a fleet, and says who belongs to it: the authority, the server's files, and a file for each host to join with.

All of it lies below `fleet/` in the state home of the machine that founds, whose user alone can read it: the authority
(`ca.pem`, `ca.key`), `founded.json` with who belongs to it, `server/`, and `hosts/` with the tickets.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from lib.config import HOST_FORM
from lib.errors import Busy, NotFound, Usage
from lib.fleet import certificates, permissions
from lib.fleet.certificates import Pair
from lib.fleet.roster import Fleet, Places, bracketed, founded
from lib.fleet.tickets import Ticket, host_file, write_private

#: The server's own certificate is made anew when it has less than this left.
_RENEW_BEFORE = datetime.timedelta(days=180)


#: Servers of a cluster speak to one another on a port that is so much above the one for hosts.
_ROUTES_ABOVE = 2000


def found(
    home: Path, name: str, addresses: Iterable[str], listen: str, now: datetime.datetime, servers: Sequence[str] = ()
) -> Fleet:
    """Found a fleet with this machine as its first host. Raises `Busy` when it belongs to one.

    With further `servers`, each ADDRESS or ADDRESS:PORT, its server is one of a cluster.
    """
    places = Places.of(home)
    if founded(home):
        raise Busy("this machine has founded a fleet already", hint="fleet.py init HOST lets others join it")
    if (places.folder / "host.pem").exists():
        raise Busy("this machine belongs to another fleet", hint=f"remove {places.folder} to leave that for good")
    if not re.fullmatch(r"\S+:[0-9]{1,5}", listen):
        raise Usage(f"--listen takes ADDRESS:PORT, not {listen!r}")
    fleet = Fleet(checked(name), listen, tuple(dict.fromkeys(addresses)), {name: 1}, {})
    if servers:
        others = tuple(dict.fromkeys(_with_port(one, fleet.port) for one in servers))
        if len(others) == 1:
            raise Usage(
                "a cluster needs three servers: of two neither goes on without the other",
                hint="name two others with --server",
            )
        fleet = replace(fleet, servers=others, secret=secrets.token_urlsafe(32))
    authority = certificates.authority(name, now)
    write_private(places.folder / "ca.pem", authority.certificate)
    write_private(places.folder / "ca.key", authority.key)
    write_private(places.server_conf, _server_conf(places.server, places.folder / "ca.pem", fleet))
    _bring_about(home, fleet, now)
    return fleet


def extend(home: Path, addresses: Iterable[str], now: datetime.datetime) -> Fleet:
    """Let the server be reached by further names and addresses."""
    fleet = _founded(home)
    fleet = replace(fleet, addresses=tuple(dict.fromkeys((*fleet.addresses, *addresses))))
    _bring_about(home, fleet, now)
    return fleet


def invite(home: Path, hosts: Sequence[str], now: datetime.datetime, *, renew: bool = False) -> Fleet:
    """Write the files with which hosts join. One that is there stays; `renew` makes those before it worthless."""
    fleet, numbers = _founded(home), dict[str, int]()
    for host in hosts:
        if host == fleet.founder and not renew:
            raise Usage(f"{host} is this machine, which has founded the fleet", hint="name other machines")
        number = fleet.hosts.get(checked(host))
        if number is None or renew:
            numbers[host] = (number or fleet.removed.get(host, 0)) + 1
            _old(home, fleet, host).unlink(missing_ok=True)
    removed = {host: number for host, number in fleet.removed.items() if host not in numbers}
    fleet = replace(fleet, hosts={**fleet.hosts, **numbers}, removed=removed)
    _bring_about(home, fleet, now)
    for host in hosts:
        if host != fleet.founder and not Places.of(home).ticket(host).exists():
            write_private(Places.of(home).ticket(host), _ticket(home, fleet, host, now).packed())
    return fleet


def _old(home: Path, fleet: Fleet, host: str) -> Path:
    """The file with the certificate of a host that has to be made anew."""
    places = Places.of(home)
    return places.folder / "host.pem" if host == fleet.founder else places.ticket(host)


def remove(home: Path, hosts: Sequence[str], now: datetime.datetime) -> Fleet:
    """Take hosts out of the fleet; the server knows them no more. Raises `NotFound` for one that is not in it."""
    fleet = _founded(home)
    for host in hosts:
        if host == fleet.founder:
            raise Usage(f"{host} has founded the fleet and cannot be removed from it")
        if host not in fleet.hosts:
            raise NotFound(f"the fleet has no host {host!r}; it has {', '.join(fleet.hosts)}")
    kept = {host: number for host, number in fleet.hosts.items() if host not in hosts}
    gone = {host: fleet.hosts[host] for host in hosts}
    fleet = replace(fleet, hosts=kept, removed={**fleet.removed, **gone})
    _bring_about(home, fleet, now)
    for host in hosts:
        Places.of(home).ticket(host).unlink(missing_ok=True)
    return fleet


def tell_server(home: Path) -> bool:
    """Have the server read its files again. False when none of this user runs here.

    What a new account may use of the fleet's has effect with the second reading only (nats-server 2.9.10). The third is
    for a busy machine, where a signal is lost that comes before the server has looked at the one before.
    """
    for pause in (0.0, 0.5, 0.5):
        time.sleep(pause)
        process = _server(Places.of(home).pid_file)
        if process is None:
            return False
        os.kill(process, signal.SIGHUP)
    return True


def _server(pid_file: Path) -> int | None:
    import psutil  # noqa: PLC0415 - 56 ms, and little of the fleet asks for it

    try:
        process = psutil.Process(int(pid_file.read_text(encoding="ascii")))
        is_it = process.name() == "nats-server" and process.uids().real == os.getuid()
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    return process.pid if is_it else None


def _founded(home: Path) -> Fleet:
    if fleet := founded(home):
        return fleet
    raise NotFound("this machine has founded no fleet", hint="scheduler.py --fleet-init")


def checked(host: str) -> str:
    """The name of a host. Raises `Usage` for what a name of a host cannot be."""
    if not re.fullmatch(HOST_FORM, host):
        raise Usage(f"a host's name is of the letters a to z, digits and dashes, not {host!r}")
    return host


def _bring_about(home: Path, fleet: Fleet, now: datetime.datetime) -> None:
    """Record the fleet, then make the server's files say so."""
    places = Places.of(home)
    write_private(places.record, json.dumps(asdict(fleet), indent=2) + "\n")
    _certify(home, places.server, _names(fleet), fleet, now)
    if not (places.folder / "host.pem").exists():
        own = certificates.for_host(_authority(home), fleet.user(fleet.founder), now)
        write_private(places.folder / "host.pem", host_file(fleet.founder, own))
    others = {host: fleet.user(host) for host in fleet.hosts if host != fleet.founder}
    accounts = permissions.accounts(fleet.user(fleet.founder), others)
    accounts = f"# Written anew by `fleet.py init`: do not edit.\n{accounts}"
    write_private(places.server / "accounts.conf", accounts)
    for server in fleet.servers:
        folder = places.other_server(server)
        _certify(home, folder, tuple(dict.fromkeys((_host_of(server), "localhost", "127.0.0.1"))), fleet, now)
        write_private(folder / "ca.pem", _authority(home).certificate)
        write_private(folder / "accounts.conf", accounts)
        write_private(folder / "server.conf", _server_conf(Path(), Path("ca.pem"), fleet, server))


def _certify(home: Path, folder: Path, names: Sequence[str], fleet: Fleet, now: datetime.datetime) -> None:
    """Have a server's certificate be good for these names, for some time."""
    if not _serves(folder / "server.pem", names, now):
        made = certificates.for_server(_authority(home), names, now, calls=bool(fleet.servers))
        write_private(folder / "server.key", made.key)
        write_private(folder / "server.pem", made.certificate)


def _with_port(server: str, port: int) -> str:
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s/@,:]+)(?::([0-9]{1,5}))?", server)
    if not found:
        raise Usage(f"--server takes ADDRESS or ADDRESS:PORT, not {server!r}")
    return f"{found[1]}:{found[2] or port}"


def _host_of(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")


def _names(fleet: Fleet) -> tuple[str, ...]:
    listens = fleet.listen.rpartition(":")[0].strip("[]")
    own = () if listens in ("0.0.0.0", "::") else (listens,)
    return tuple(dict.fromkeys((*fleet.addresses, *own, "localhost", "127.0.0.1")))


def _serves(path: Path, names: Iterable[str], now: datetime.datetime) -> bool:
    if not path.exists():
        return False
    certificate = path.read_text(encoding="utf-8")
    has_names = set(certificates.addresses_of(certificate)) >= set(names)
    return has_names and certificates.ends_at(certificate) - now > _RENEW_BEFORE


def _server_conf(folder: Path, authority: Path, fleet: Fleet, server: str | None = None) -> str:
    """The configuration of the founder's server, or of another one, whose files lie where it is started."""
    tls = {
        "cert_file": str(folder / "server.pem"),
        "key_file": str(folder / "server.key"),
        "ca_file": str(authority),
    }
    said: dict[str, object] = {
        "listen": _listens(server) if server else fleet.listen,
        "pid_file": str(folder / "server.pid"),
        "jetstream": {"store_dir": str(folder / "jetstream")},
        "tls": {**tls, "verify_and_map": True, "timeout": 5},
    }
    if fleet.servers:
        said["server_name"] = server or fleet.founder
        said["cluster"] = _cluster(str(said["listen"]), fleet, tls)
    lines = [f"{name}: {json.dumps(value)}" for name, value in said.items()]
    return "\n".join(["# The fleet's NATS server; yours to edit where it runs.", *lines, "include accounts.conf", ""])


def _cluster(listen: str, fleet: Fleet, tls: Mapping[str, object]) -> dict[str, object]:
    """How a server finds the others. A host's certificate is good for calling it too, so there is a secret as well."""
    address, _, port = listen.rpartition(":")
    login = {"user": "server", "password": fleet.secret}
    servers = (f"{bracketed(fleet.addresses[0])}:{fleet.port}", *fleet.servers)
    found = [(one.rpartition(":")[0], int(one.rpartition(":")[2]) + _ROUTES_ABOVE) for one in servers]
    return {
        "name": "fleet",
        "listen": f"{address}:{int(port) + _ROUTES_ABOVE}",
        "authorization": {**login, "timeout": 5},
        "tls": {**tls, "verify": True, "timeout": 5},
        "routes": [f"nats-route://server:{fleet.secret}@{host}:{number}" for host, number in found],
    }


def _listens(server: str) -> str:
    """Where another server listens: on loopback when it is reached there, else on all its addresses."""
    address, _, port = server.rpartition(":")
    is_here = address in ("localhost", "[::1]") or address.startswith("127.")
    return f"{address if is_here else '0.0.0.0'}:{port}"


def _authority(home: Path) -> Pair:
    folder = Places.of(home).folder
    return Pair((folder / "ca.pem").read_text(encoding="utf-8"), (folder / "ca.key").read_text(encoding="utf-8"))


def _ticket(home: Path, fleet: Fleet, host: str, now: datetime.datetime) -> Ticket:
    authority = _authority(home)
    made = certificates.for_host(authority, fleet.user(host), now)
    return Ticket(fleet.url, host, authority.certificate, made.certificate, made.key)
