"""Who belongs to the fleet that this machine has founded, as recorded; loads neither NATS nor cryptography."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from lib.errors import OrchestratorError
from lib.records import dataclass

#: How `host.pem` begins; the name of the host follows.
HOST_LINE = "Host: "


@dataclass(frozen=True)
class Fleet:
    """What a founding machine knows of its fleet."""

    founder: str
    listen: str
    #: By which names and IP addresses hosts reach the server; they are told the first.
    addresses: tuple[str, ...]
    #: Of each host the number of its certificate: a new one makes those before it worthless.
    hosts: Mapping[str, int]
    #: The hosts that were removed, with their last number, so that no old certificate ever counts again.
    removed: Mapping[str, int]
    #: The other servers of the cluster, as ADDRESS:PORT.
    servers: tuple[str, ...] = ()
    #: By which the servers of the cluster know one another, beside their certificates.
    secret: str = ""

    @property
    def url(self) -> str:
        """Where the hosts find the server, or the servers."""
        return self._urls(f"{bracketed(self.addresses[0])}:{self.port}")

    @property
    def own_url(self) -> str:
        """Where the founding machine finds the server, which runs on it, and the others."""
        listens = self.listen.rpartition(":")[0]
        return self._urls(f"{'127.0.0.1' if listens in ('0.0.0.0', '[::]') else listens}:{self.port}")

    def _urls(self, own: str) -> str:
        return ",".join(f"tls://{one}" for one in (own, *self.servers))

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def user(self, host: str) -> str:
        """The user that the server knows a host as."""
        return f"{host}.{self.hosts[host]}"


@dataclass(frozen=True)
class Places:
    """Where the files of a fleet lie."""

    folder: Path

    @classmethod
    def of(cls, home: Path) -> Places:
        return cls(home / "fleet")

    @property
    def record(self) -> Path:
        return self.folder / "founded.json"

    @property
    def server(self) -> Path:
        return self.folder / "server"

    @property
    def server_conf(self) -> Path:
        return self.server / "server.conf"

    @property
    def pid_file(self) -> Path:
        return self.server / "server.pid"

    def other_server(self, server: str) -> Path:
        """What another server of the cluster runs with, by its ADDRESS:PORT."""
        return self.folder / "servers" / re.sub(r"[^\w.-]+", "-", server).strip("-")

    def ticket(self, host: str) -> Path:
        """The file that a host joins with."""
        return self.folder / "hosts" / f"{host}.fleet"


def founded(home: Path) -> Fleet | None:
    """The fleet that this machine has founded; None when it has founded none."""
    try:
        fields = json.loads(Places.of(home).record.read_text(encoding="utf-8"))
        lists = {name: tuple(fields.get(name, ())) for name in ("addresses", "servers")}
        return Fleet(**{**fields, **lists})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise OrchestratorError(f"{Places.of(home).record} cannot be read", hint="put it back from a backup") from None


def bracketed(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address
