"""What has to hold after every step, whatever has gone wrong: each invariant is a function of its own.

They compare what the store says with what the simulated agents have really received, what really runs, and what was
really written. None asks the code that it judges: a mistake there must not hide itself.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.claude import Session
from tests.simulation.world import Broken

if TYPE_CHECKING:
    from tests.simulation.runs import Run

_TAIL = re.compile(r"\[end of msg (\d+)\]\s*\Z")
#: Between the look whether something holds an agent and the paste: a draft may be put aside meanwhile.
_HELD_FOR_SECONDS = 10.0
#: A check-in of an agent that lives and that nothing holds is told within this: a beat takes less than a second.
_ON_TIME_SECONDS = 8.0
_MINUTE_MS = 60_000


@dataclass
class Seen:
    """What the invariants remember of what has happened."""

    event: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    #: (agent, message) that an agent was given.
    given: set[tuple[int, int]] = field(default_factory=set)
    #: Since when an agent is held, in the world's seconds.
    held_since: dict[int, float] = field(default_factory=dict)
    #: When an agent was last started or let go.
    free_since: dict[int, float] = field(default_factory=dict)
    #: Of a check-in: how often it has fired, which occurrence was the last, and how far its times account for.
    fired: dict[int, int] = field(default_factory=dict)
    occurrence: dict[int, int] = field(default_factory=dict)
    accounted_ms: dict[int, int] = field(default_factory=dict)
    #: Notes that tell an agent to go on: (limit, agent, when it was cut off).
    notes: dict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))


class Watcher:
    """Looks after each step at what is new, and at the end at all."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seen = Seen()
        heard = run.anthropic.heard
        heard.on_submit, heard.on_read, heard.on_start = self._submitted, self._read, self._started
        heard.on_hook = self._told
        run.tmux.on_change = self._changed
        run.git.on_move = self._moved

    # -- as it happens --

    def _submitted(self, session: Session, text: str) -> None:
        if found := _TAIL.search(text):
            self.seen.given.add((session.agent, int(found[1])))
            messages_go_to_whom_they_are_for(self, session, int(found[1]))

    def _read(self, session: Session, message: int) -> None:
        messages_come_once(self, session, message)

    def _told(self, session: Session, at: int) -> None:
        if session.epoch != self.seen.epochs.get(session.agent):
            self.run.anthropic.heard.late.append((session.agent, at))

    def _started(self, session: Session) -> None:
        agents_live_once(self, session)

    def _changed(self, verb: str, mark: str) -> None:
        foreign_windows_stay(self, verb, mark)
        if verb in ("new-window", "respawn-pane"):
            entries_run_once(self, mark)

    def _moved(self, ref: str, forward: bool) -> None:
        foreign_branches_stay(self, ref, forward)

    # -- after each step --

    def look(self) -> None:
        """Look at what was just committed."""
        for agent, at in self.run.anthropic.heard.late:
            if self._one("SELECT 1 FROM agents WHERE id = ? AND last_hook_at = ?", agent, at):
                raise Broken("old_epochs_are_history", f"agent {agent} is as a hook of an earlier life of it told")
        for event in self._new():
            data = json.loads(event["data"])
            kind = event["kind"]
            self._follow(kind, event, data)
            if kind.startswith("hook.") or (kind == "message.acknowledged" and data.get("proof") == "hook"):
                old_epochs_are_history(self, event)
            if kind == "message.acknowledged":
                acknowledged_is_received(self, event)
            elif kind in ("message.pasted", "check_in.fired"):
                held_agents_get_nothing(self, event)
            if kind == "check_in.fired":
                check_ins_fire_once(self, event, data)
                check_ins_are_on_time(self, event, data)
            elif kind == "limit.released" and event["message_id"]:
                nobody_is_resumed_twice(self, event, data)

    def _new(self) -> list[sqlite3.Row]:
        found = self.run.looking.execute("SELECT * FROM events WHERE id > ? ORDER BY id", (self.seen.event,)).fetchall()
        if found:
            self.seen.event = found[-1]["id"]
        return found

    def _follow(self, kind: str, event: sqlite3.Row, data: dict[str, Any]) -> None:
        """Keep what later checks need."""
        seen = self.seen
        if kind == "agent.starting":
            seen.epochs[event["agent_id"]] = data["epoch"]
            seen.free_since[event["agent_id"]] = self.run.world.now
        elif kind.startswith(("limit.", "pause.", "orchestration.")):
            held = set(self._held())
            for agent in seen.held_since.keys() - held:
                del seen.held_since[agent]
                seen.free_since[agent] = self.run.world.now
            for agent in held:
                seen.held_since.setdefault(agent, self.run.world.now)
        elif kind == "check_in.scheduled":
            seen.accounted_ms[data["check_in"]] = event["at"] + (data["minutes"] or 0) * _MINUTE_MS
        elif kind == "check_in.moved":
            seen.accounted_ms[data["check_in"]] -= data["clock_went_back_ms"]
            seen.occurrence.pop(data["check_in"], None)
        elif kind in ("check_in.fired", "check_in.skipped"):
            minutes = self._one("SELECT interval_minutes FROM check_ins WHERE id = ?", data["check_in"])
            number = data["stands_for"] if kind == "check_in.fired" else data["count"]
            seen.accounted_ms[data["check_in"]] += (minutes or 0) * number * _MINUTE_MS

    def _held(self) -> Iterator[int]:
        rows = self.run.looking.execute(
            "SELECT agents.id FROM agents JOIN orchestrations ON orchestrations.id = orchestration_id"
            " WHERE paused_at IS NOT NULL OR EXISTS (SELECT 1 FROM limits WHERE ended_at IS NULL"
            " AND (limits.agent_id = agents.id OR (limits.agent_id IS NULL AND limits.config_dir = agents.config_dir))"
            " AND NOT EXISTS (SELECT 1 FROM limited_agents WHERE limit_id = limits.id"
            " AND limited_agents.agent_id = agents.id AND released_at IS NOT NULL))"
        )
        return (row[0] for row in rows)

    def _one(self, query: str, *values: object) -> Any:
        row = self.run.looking.execute(query, values).fetchone()
        return row[0] if row else None

    # -- at the end --

    def settle(self) -> None:
        """Look at all, when nothing has gone wrong for a while."""
        nobody_is_held_for_nothing(self)
        no_message_is_lost(self)
        no_check_in_is_lost(self)
        no_entry_is_lost(self)


# -- messages --


def messages_go_to_whom_they_are_for(watcher: Watcher, session: Session, message: int) -> None:
    """What an agent is given is a message to it, in a life of it that goes on."""
    to = watcher._one("SELECT agent_id FROM messages WHERE id = ?", message)
    if to != session.agent:
        raise Broken("messages_go_to_whom_they_are_for", f"{session.name} got message {message}, which is for {to}")
    if (epoch := watcher.seen.epochs.get(session.agent)) != session.epoch:
        sentence = f"{session.name} got message {message} in an old life: epoch {epoch} has begun"
        raise Broken("messages_go_to_whom_they_are_for", sentence)


def messages_come_once(watcher: Watcher, session: Session, message: int) -> None:
    """No agent reads a message twice."""
    if watcher.run.anthropic.heard.read[session.agent, message] > 1:
        raise Broken("messages_come_once", f"{session.name} has read message {message} twice")


def acknowledged_is_received(watcher: Watcher, event: sqlite3.Row) -> None:
    """What the store calls acknowledged was given to the agent, itself or in a digest."""
    agent, message = event["agent_id"], event["message_id"]
    row = watcher.run.looking.execute("SELECT carried_by, kind FROM messages WHERE id = ?", (message,)).fetchone()
    if row["kind"] != "command" and (agent, row["carried_by"] or message) not in watcher.seen.given:
        raise Broken("acknowledged_is_received", f"message {message} is acknowledged, and agent {agent} never got it")


def no_message_is_lost(watcher: Watcher) -> None:
    """At the end every message was read, or its sender can learn why not."""
    looking, heard = watcher.run.looking, watcher.run.anthropic.heard
    count, last = looking.execute("SELECT count(*), max(id) FROM messages").fetchone()
    if count != (last or 0):
        raise Broken("no_message_is_lost", f"there are {count} messages of {last}")
    for row in looking.execute("SELECT * FROM messages ORDER BY id"):
        named = f"message {row['id']} ({row['kind']}) to agent {row['agent_id']}"
        if row["status"] in ("queued", "pasted", "submitted"):
            raise Broken("no_message_is_lost", f"{named} is still {row['status']}: {row['reason']}")
        if row["status"] in ("failed", "cancelled") and not row["reason"]:
            raise Broken("no_message_is_lost", f"{named} is {row['status']}, and nobody knows why")
        agent, came_as = row["agent_id"], row["carried_by"] or row["id"]
        is_lost_with_its_team = came_as in heard.left.get(agent, ())
        if row["status"] == "acknowledged" and not heard.read.get((agent, came_as)) and not is_lost_with_its_team:
            raise Broken("no_message_is_lost", f"{named} is acknowledged, and was never read")


# -- check-ins --


def check_ins_fire_once(watcher: Watcher, event: sqlite3.Row, data: dict[str, Any]) -> None:
    """A note that is told once fires once; of one that comes again each occurrence does."""
    number, seen = data["check_in"], watcher.seen
    seen.fired[number] = seen.fired.get(number, 0) + 1
    row = watcher.run.looking.execute("SELECT * FROM check_ins WHERE id = ?", (number,)).fetchone()
    comes_again = row["interval_minutes"] is not None or row["cron"] is not None
    if not comes_again and seen.fired[number] > 1:
        raise Broken("check_ins_fire_once", f"check-in {number} has fired {seen.fired[number]} times")
    occurrence = event["at"] - data["late_ms"]
    last = seen.occurrence.get(number)
    if comes_again and data["late_ms"] and last is not None and occurrence <= last:
        raise Broken("check_ins_fire_once", f"check-in {number} has fired twice for {occurrence}")
    seen.occurrence[number] = occurrence


def check_ins_are_on_time(watcher: Watcher, event: sqlite3.Row, data: dict[str, Any]) -> None:
    """A check-in waits for nothing but its agent, what holds that, and what has gone wrong."""
    world, agent = watcher.run.world, event["agent_id"]
    due = world.now - data["late_ms"] / 1000
    waited = world.now - max(due, world.troubled_at, watcher.seen.free_since.get(agent, 0.0))
    if waited > _ON_TIME_SECONDS:
        raise Broken("check_ins_are_on_time", f"check-in {data['check_in']} has waited {waited:.0f} s for nothing")


def no_check_in_is_lost(watcher: Watcher) -> None:
    """At the end each note has come to something, and the occurrences of a recurring one add up."""
    for row in watcher.run.looking.execute("SELECT * FROM check_ins ORDER BY id"):
        number, status = row["id"], row["status"]
        if status == "dead":
            raise Broken("no_check_in_is_lost", f"check-in {number} is dead, and its agent is back: {row['reason']}")
        if row["interval_minutes"] is None and row["cron"] is None:
            if status == "scheduled" and row["due_at"] < watcher.run.world.wall_ms - _MINUTE_MS:
                raise Broken("no_check_in_is_lost", f"check-in {number} was due and has not fired: {row['reason']}")
            if status == "fired" and watcher.seen.fired.get(number) != 1:
                raise Broken("no_check_in_is_lost", f"check-in {number} is called fired, and was never told")
        elif row["cron"] is None and row["planned_at"] != watcher.seen.accounted_ms[number]:
            off = (row["planned_at"] - watcher.seen.accounted_ms[number]) / (row["interval_minutes"] * _MINUTE_MS)
            raise Broken(
                "no_check_in_is_lost", f"{off:g} occurrences of check-in {number} were neither told nor skipped"
            )


# -- lives --


def agents_live_once(watcher: Watcher, session: Session) -> None:
    """No agent and no conversation runs twice at once."""
    for other in watcher.run.anthropic.sessions.values():
        if other is session or not other.process.is_alive:
            continue
        if other.agent == session.agent or other.conversation == session.conversation:
            raise Broken("agents_live_once", f"{session.name} was started while {other.name} runs")


def nobody_is_resumed_twice(watcher: Watcher, event: sqlite3.Row, data: dict[str, Any]) -> None:
    """One refused turn is taken up once."""
    agent, limit = event["agent_id"], data["limit"]
    cut_off = watcher._one("SELECT cut_off_at FROM limited_agents WHERE limit_id = ? AND agent_id = ?", limit, agent)
    notes = watcher.seen.notes[limit, agent, cut_off or 0] = _with(
        watcher.seen.notes.get((limit, agent, cut_off or 0), 0), event["message_id"]
    )
    if notes < 0:
        raise Broken("nobody_is_resumed_twice", f"agent {agent} was told twice to go on after limit {limit}")
    if cut_off and watcher.run.anthropic.heard.continued.get(agent, 0) > cut_off:
        raise Broken("nobody_is_resumed_twice", f"agent {agent} goes on by itself, and is told to after limit {limit}")


def _with(before: int, message: int) -> int:
    """The message that tells to go on; -1 when there is another one already."""
    return message if before in (0, message) else -1


def old_epochs_are_history(watcher: Watcher, event: sqlite3.Row) -> None:
    """What a hook of an earlier life tells changes nothing."""
    agent = event["agent_id"]
    told, now = watcher.run.anthropic.heard.hooks.get((agent, event["at"])), watcher.seen.epochs.get(agent)
    if told is None:
        raise Broken("old_epochs_are_history", f"{event['kind']} of agent {agent} was told by no hook")
    if told != now:
        raise Broken("old_epochs_are_history", f"{event['kind']} of agent {agent} is of epoch {told}, and {now} lives")


def held_agents_get_nothing(watcher: Watcher, event: sqlite3.Row) -> None:
    """While something holds an agent, nothing is typed to it and no check-in of it fires."""
    since, now = watcher.seen.held_since.get(event["agent_id"]), watcher.run.world.now
    if since is not None and now - since > _HELD_FOR_SECONDS:
        sentence = f"{event['kind']} of agent {event['agent_id']}, which is held since {now - since:.0f} s"
        raise Broken("held_agents_get_nothing", sentence)


def nobody_is_held_for_nothing(watcher: Watcher) -> None:
    """At the end nothing holds anybody any more."""
    for agent in watcher._held():
        if not watcher.run.is_over(agent):
            raise Broken("nobody_is_held_for_nothing", f"agent {agent} is still held")
    if limit := watcher._one("SELECT id FROM limits WHERE ended_at IS NULL"):
        raise Broken("nobody_is_held_for_nothing", f"limit {limit} has not ended, although its time has come")


# -- the queue --


def entries_run_once(watcher: Watcher, orchestration: str) -> None:
    """Of an entry one team runs at a time, and each team is of an entry."""
    looking = watcher.run.looking
    entry = watcher._one("SELECT entry_id FROM attempts WHERE orchestration_id = ?", orchestration)
    if entry is None:
        raise Broken("entries_run_once", f"team {orchestration} is started, and no entry of the queue has it")
    rows = looking.execute("SELECT orchestration_id FROM attempts WHERE entry_id = ?", (entry,)).fetchall()
    others = {row[0] for row in rows} - {orchestration, None}
    for session in watcher.run.anthropic.sessions.values():
        team = watcher._one("SELECT orchestration_id FROM agents WHERE id = ?", session.agent)
        if team in others:
            raise Broken("entries_run_once", f"entry {entry} runs as {orchestration} while {team} still does")


def no_entry_is_lost(watcher: Watcher) -> None:
    """At the end every entry is over, and says why when it has failed."""
    for row in watcher.run.looking.execute("SELECT * FROM queue_entries ORDER BY id"):
        if row["status"] in ("queued", "running", "failed"):
            raise Broken("no_entry_is_lost", f"entry {row['id']} is still {row['status']}: {row['reason']}")
        if row["status"] in ("abandoned", "cancelled") and not row["reason"]:
            raise Broken("no_entry_is_lost", f"entry {row['id']} is {row['status']}, and nobody knows why")


# -- what is not ours --


def foreign_windows_stay(watcher: Watcher, verb: str, mark: str) -> None:
    """Nothing is typed into, put into or taken from a tmux session that is not a team's."""
    if watcher._one("SELECT 1 FROM orchestrations WHERE id = ?", mark) is None:
        raise Broken("foreign_windows_stay", f"{verb} in a session of somebody else")


def foreign_branches_stay(watcher: Watcher, ref: str, forward: bool) -> None:
    """Only our own branches and tags are moved; the starting branch goes forward."""
    is_ours = ref.startswith(("refs/heads/orchestration/", "refs/tags/stable-"))
    if not is_ours and not (ref == "refs/heads/main" and forward):
        raise Broken("foreign_branches_stay", f"{ref} was moved{'' if forward else ', and not forward'}")


def foreign_files_stay(run: Run, path: str) -> None:
    """Nothing is written but below the state home, in worktrees and in the folder of Claude Code."""
    if not path.startswith(run.own_folders) and "__pycache__" not in path:
        raise Broken("foreign_files_stay", f"{run.world.current.name if run.world.current else '?'} wrote {path}")
