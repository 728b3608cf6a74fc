"""Makes this machine a host of a fleet: its certificate below the state home, and the lines of config.yaml."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import replace
from pathlib import Path

from lib import config
from lib.config import HOST_FORM
from lib.errors import Busy, OrchestratorError
from lib.fleet import certificates, tickets
from lib.fleet.tickets import Ticket, write_private


def join(home: Path, path: Path, now: datetime.datetime) -> Ticket:
    """Become the host that a ticket is for; all of it is checked before anything is written."""
    ticket = tickets.read(path)
    try:
        user = certificates.user_of(ticket.pair, ticket.authority, now)
    except OrchestratorError as error:
        raise OrchestratorError(f"{path} cannot be joined with: {error.sentence}", hint=tickets.ANOTHER) from None
    if user.rpartition(".")[0] != ticket.host or not re.fullmatch(HOST_FORM, ticket.host):
        sentence = f"{path} cannot be joined with: its certificate is of another host"
        raise OrchestratorError(sentence, hint=tickets.ANOTHER)
    folder = home / "fleet"
    if (folder / "ca.key").exists():
        raise Busy("this machine has founded a fleet, and is a host of that", hint="take another machine")
    if _belongs_elsewhere(folder, ticket):
        raise Busy("this machine belongs to another fleet", hint=f"remove {folder} to leave that for good")
    write_private(folder / "ca.pem", ticket.authority)
    write_private(folder / "host.pem", tickets.host_file(ticket.host, ticket.pair))
    return ticket


def _belongs_elsewhere(folder: Path, ticket: Ticket) -> bool:
    authority = folder / "ca.pem"
    is_host = (folder / "host.pem").exists() and authority.exists()
    return is_host and authority.read_text(encoding="utf-8") != ticket.authority


def settle(path: Path, url: str, host: str) -> bool:
    """Have config.yaml name the server and this host. False when a person has to: what they have set stays theirs.

    Only lines without a value are filled; the rest of the file, its comments too, stays to the letter.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before = config.load(path)
    wanted = replace(before, fleet=replace(before.fleet, url=url, host=host))
    if before == wanted:
        return True
    if before.fleet.url or before.fleet.host:
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(mode=path.stat().st_mode & 0o777 if path.exists() else 0o600)
        draft.write_text(_filled(text, url, host), encoding="utf-8")
        if not _says(draft, wanted):
            return False
        draft.replace(path.resolve())
        return True
    finally:
        draft.unlink(missing_ok=True)


def lines(url: str, host: str) -> str:
    """What a person writes into config.yaml."""
    return f"fleet:\n  url: {url}\n  host: {host}\n"


def _filled(text: str, url: str, host: str) -> str:
    head = re.search(r"^fleet:[ \t]*(?:#.*)?$", text, re.MULTILINE)
    if not head and re.search(r"^[\"']?fleet\b", text, re.MULTILINE):
        return text  # in a form that only its person changes
    if not head:
        return (f"{text.rstrip()}\n\n" if text.strip() else "") + lines(url, host)
    block = re.compile(r"(?:[ \t]*(?:#.*)?\n|[ \t]+.*\n)*").match(text + "\n", head.end() + 1)
    end = block.end() if block else head.end() + 1
    body = text[head.end() + 1 : end]
    for name, value in (("host", host), ("url", url)):
        body, count = re.subn(rf"^([ \t]+{name}:)[ \t]*$", rf"\1 {value}", body, flags=re.MULTILINE)
        body = body if count else f"  {name}: {value}\n{body}"
    return f"{text[: head.end()]}\n{body}{text[end:]}"


def _says(draft: Path, wanted: config.Settings) -> bool:
    try:
        return config.load(draft) == wanted
    except OrchestratorError:
        return False
