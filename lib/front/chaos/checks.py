"""The checks after a strike: what has to be as before, whatever has happened."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable

from lib import host, messages, store
from lib.front.chaos.ordeal import Ordeal

#: A check says what is wrong, in sentences; nothing when all is as it should be.
Check = Callable[[Ordeal], list[str]]

#: What an agent keeps, however often it is started again.
_KEPT = ("conversation_id", "worktree", "branch", "window", "session", "role")


#: While the disk takes nothing, steps of the scheduler fail, and say so.
_OF_THE_DISK = ("full-disk",)


def promises_are_kept(ordeal: Ordeal) -> list[str]:
    """Every message, check-in and commit is where it belongs, once."""
    return ordeal.missing()


def uncommitted_work_is_there(ordeal: Ordeal) -> list[str]:
    """What nobody has committed is as it was."""
    return [wrong] if (wrong := ordeal.draft()) else []


def agents_are_who_they_were(ordeal: Ordeal) -> list[str]:
    """Everybody has the conversation, worktree, branch and window of before."""
    pairs = zip(ordeal.before, ordeal.team.members(), strict=True)
    return [
        f"{old.role} has another {name.removesuffix('_id')}: {getattr(new, name)}"
        for old, new in pairs
        for name in _KEPT
        if getattr(old, name) != getattr(new, name)
    ]


def nobody_is_there_twice(ordeal: Ordeal) -> list[str]:
    """Every agent has one pane, which is its process, and no other process is it."""
    team = {str(agent.id): agent for agent in ordeal.team.members()}
    panes = [pane for pane in ordeal.ground.tmux.panes() if pane.agent in team]
    found = [
        f"{agent.role} has {count} panes"
        for key, agent in team.items()
        if (count := sum(pane.agent == key for pane in panes)) != 1
    ]
    known = {agent.process.pid for agent in team.values() if agent.process}
    found += [f"pane {pane.id} runs process {pane.pid}, which is no agent's" for pane in panes if pane.pid not in known]
    lives = ordeal.ground.lives()
    return found + [
        f"{agent.role} runs {count} times" for agent in team.values() if (count := lives[agent.conversation_id]) != 1
    ]


def no_message_has_failed(ordeal: Ordeal) -> list[str]:
    """The ledger has given nothing up."""
    with ordeal.ground.store() as db:
        flows = messages.flows(db, ordeal.team.id)
    failed: Counter[str] = Counter()
    for flow in flows:
        failed[flow.role] += flow.failed
    return [f"{count} messages to {role} have failed" for role, count in failed.items() if count]


def the_store_is_sound(ordeal: Ordeal) -> list[str]:
    """SQLite finds nothing wrong with the store."""
    try:
        with ordeal.ground.store() as db:
            said = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    return [] if said == ["ok"] else [f"the store is damaged: {said[0]}"]


def nothing_has_gone_wrong_inside(ordeal: Ordeal) -> list[str]:
    """No door has kept the traceback of a bug, and no step of the scheduler has failed."""
    bugs = ordeal.ground.home / "logs" / "bugs.log"
    found = [f"a door met a bug: {bugs.read_text().splitlines()[-1]}"] if bugs.exists() else []
    if ordeal.strike.kind.name in _OF_THE_DISK:
        return found
    with ordeal.ground.store() as db:
        failed = store.events(db, kind="daemon.step_failed", after=ordeal.after_event)
    return found + [
        f"the scheduler's step {event.data.get('step')} failed: {event.data.get('error')}" for event in failed
    ]


def the_scheduler_runs(ordeal: Ordeal) -> list[str]:
    """There is a scheduler."""
    return [] if host.is_alive(ordeal.ground.daemon()) else ["no scheduler runs"]


def a_stranger_lives(ordeal: Ordeal) -> list[str]:
    """Whoever has an agent's old pid was left alone."""
    if ordeal.stranger is None or ordeal.stranger.poll() is None:
        return []
    return [f"process {ordeal.stranger.pid} of a stranger was ended"]


CHECKS: tuple[Check, ...] = (
    promises_are_kept,
    uncommitted_work_is_there,
    agents_are_who_they_were,
    nobody_is_there_twice,
    no_message_has_failed,
    the_store_is_sound,
    nothing_has_gone_wrong_inside,
    the_scheduler_runs,
    a_stranger_lives,
)
