"""Whom a target names where there is a fleet: an agent here, or one of another host; loads no NATS."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lib import agents
from lib.errors import NotFound, Usage
from lib.fleet import members
from lib.fleet.members import Member
from lib.judgement import cleaning
from lib.models import Agent
from lib.tmux import Tmux

#: No name of an agent is longer.
MOST_CHARACTERS = 200


def resolve(db: sqlite3.Connection, tmux: Tmux, target: str, *, sender: Agent | None = None) -> Agent:
    """The agent that `target` names: `host/session:role`, or what `agents.resolve` takes.

    A session that does not run here is looked for on the other hosts, as they tell of themselves. Raises `Usage` with
    the hosts when there are several, and `NotFound`; whether a named host has such an agent is known there only.
    """
    host, slash, there = target.partition("/")
    hosts = members.every(db) if members.is_linked(db) else []
    if slash and host == members.own_name(db):
        return agents.resolve(db, tmux, there, sender=sender)
    if slash and any(one.name == host for one in hosts):
        return _at(db, host, there)
    try:
        return agents.resolve(db, tmux, target, sender=sender)
    except NotFound:
        if slash and hosts:
            known = ", ".join(one.name for one in hosts)
            raise NotFound(f"the fleet has no host {host!r}", hint=f"hosts: {known}") from None
        session, own = target.rpartition(":")[0], members.own_name(db)
        found = [one.name for one in hosts if one.name != own and session in sessions(one)]
        if not found or agents.is_session_here(db, tmux, session):
            raise
    return _at_only(db, found, target)


def _at_only(db: sqlite3.Connection, found: Sequence[str], target: str) -> Agent:
    if len(found) > 1:
        session = target.rpartition(":")[0]
        raise Usage(f"several hosts run {session!r}: {', '.join(found)}", hint=f"name one: {found[0]}/{target}")
    return _at(db, found[0], target)


def sessions(one: Member) -> set[str]:
    """The sessions of the teams that a host has told of."""
    return {str(team.get("session")) for team in one.record.get("teams", ()) if isinstance(team, dict)}


def _at(db: sqlite3.Connection, host: str, there: str) -> Agent:
    session, _, role = there.rpartition(":")
    if not session or not role:
        raise NotFound(
            f"{there!r} names no agent of {host}", hint=f"{host}/SESSION:ROLE; claude_control.py fleet hosts"
        )
    if len(there) > MOST_CHARACTERS or cleaning.one_line(there) != there:
        raise Usage(f"the name of an agent of {host} is one line of at most {MOST_CHARACTERS} characters")
    return agents.elsewhere(db, host, session, role)
