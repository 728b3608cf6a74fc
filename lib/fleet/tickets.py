"""The file with which a host joins a fleet: written where it was founded, read on the host."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from pathlib import Path

from lib.config import TLS_SERVERS_FORM
from lib.errors import NotFound, OrchestratorError
from lib.fleet import envelopes
from lib.fleet.certificates import Pair
from lib.fleet.roster import HOST_LINE
from lib.records import dataclass

ANOTHER = "copy it again, or make a new one where the fleet was founded: ./fleet.py init --renew HOST"


@dataclass(frozen=True)
class Ticket:
    """All that a host needs; its key is secret."""

    url: str
    host: str
    authority: str
    certificate: str
    key: str

    @property
    def pair(self) -> Pair:
        return Pair(self.certificate, self.key)

    def packed(self) -> str:
        """As the file holds it."""
        return envelopes.pack(asdict(self)).decode()


def read(path: Path) -> Ticket:
    """The ticket of a file. Raises `OrchestratorError` for one that is not whole."""
    try:
        fields = envelopes.unpack(path.read_bytes())
        ticket = Ticket(*(str(fields[name]) for name in ("url", "host", "authority", "certificate", "key")))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except KeyError:
        raise OrchestratorError(f"{path} is no whole ticket of a fleet", hint=ANOTHER) from None
    except envelopes.Unreadable as error:
        sentence = f"{path} is no whole ticket of a fleet: {error.sentence}"
        raise OrchestratorError(sentence, hint=error.hint or ANOTHER) from None
    if not re.fullmatch(TLS_SERVERS_FORM, ticket.url):
        raise OrchestratorError(f"{path} is no whole ticket of a fleet: it names no server", hint=ANOTHER)
    return ticket


def host_file(host: str, pair: Pair) -> str:
    """What `host.pem` holds: the name on a line that readers of PEM pass over, the key, the certificate."""
    return f"{HOST_LINE}{host}\n{pair.key}{pair.certificate}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.touch(mode=0o600, exist_ok=False)  # before anything secret stands in it
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
