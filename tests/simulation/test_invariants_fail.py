"""Each invariant can fail: the code is broken on purpose, and exactly that check says so."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lib import checkins, delivery, holds, host, launch, limits, messages, preparing, signals, stopping
from lib.composer import Composer
from lib.git import merges
from lib.judgement import occurrences
from lib.merging import hub
from lib.models import Agent, Message
from lib.queue import draining, entries
from tests.simulation import invariants, runs
from tests.simulation.runs import Operation
from tests.simulation.tmux import SimulatedTmux

Patch = pytest.MonkeyPatch

#: One agent, which is briefed.
ALONE = Operation(0.0, "queue", (0, 0))
THREE = Operation(0.0, "queue", (0, 2))
MESSAGE = Operation(700.0, "send", (0, "user", 1, 1, 5.0))
#: It is accepted while the agent is at work.
URGENT = Operation(6.0, "send", (0, "user", 1, 3, 5.0))
NOTE = Operation(20.0, "note", (0, "a", 3, False, "once", 0))
LIMIT = Operation(600.0, "limit", (20.0, True, "session"))


def everybody_gets_everything(patch: Patch) -> None:
    """Messages are for whoever asks."""

    def pending(db: sqlite3.Connection, agent_id: int) -> list[Message]:
        rows = db.execute("SELECT id FROM messages WHERE status IN ('queued', 'pasted', 'submitted') ORDER BY id DESC")
        return [messages.get(db, row["id"]) for row in rows]

    patch.setattr(messages, "pending", pending)


def nothing_proves_anything(patch: Patch) -> None:
    """What an agent tells of a prompt is not heard: a message counts as lost, and is typed again."""
    patch.setattr(messages, "acknowledge", lambda *_, **__: False)
    patch.setattr(delivery, "_look_in_transcript", lambda *_: False)


def pasted_is_acknowledged(patch: Patch) -> None:
    """Nobody waits for the agent's word, or for Enter."""
    patch.setattr(
        messages, "submitting", lambda db, message, agent, *, now: messages.confirm(db, agent, message, now=now)
    )
    patch.setattr(Composer, "submit", lambda self: None)


def what_was_lost_stays_lost(patch: Patch) -> None:
    """What an agent had accepted and not read when it was killed is not sent again."""
    patch.setattr(launch, "_take_back_what_was_lost", lambda *_: None)


def holds_hold_nobody(patch: Patch) -> None:
    patch.setattr(holds, "of", lambda db, agent: None)


def limits_never_end(patch: Patch) -> None:
    patch.setattr(limits, "end", lambda *_, **__: None)
    patch.setattr(limits, "let_go", lambda *_, **__: None)


def check_ins_are_not_claimed(patch: Patch) -> None:
    claim = checkins._claim

    def again_in_a_minute(db: sqlite3.Connection, check_in: Any, *rest: Any) -> bool:
        is_ours = claim(db, check_in, *rest)
        db.execute(
            "UPDATE check_ins SET status = 'scheduled', due_at = ? WHERE id = ?", (rest[-1] + 60_000, check_in.id)
        )
        return is_ours

    patch.setattr(checkins, "_claim", again_in_a_minute)


def whoever_comes_back_has_to_wait(patch: Patch) -> None:
    """The check-ins that an agent has missed are tried later, although it is back."""
    patch.setattr(checkins, "revive", lambda *_: None)


def missed_occurrences_are_not_counted(patch: Patch) -> None:
    patch.setattr(occurrences, "_count", lambda *_: 1)


def whoever_lives_is_started_again(patch: Patch) -> None:
    """A resume looks at no process, and takes a new window."""
    new_window, indices = SimulatedTmux.new_window, itertools.count()

    def another(self: SimulatedTmux, session: str, *, index: int, **rest: Any) -> tuple[str, int]:
        return new_window(self, session, index=next(indices), **rest | {"replace": None})

    patch.setattr(SimulatedTmux, "new_window", another)
    patch.setattr(launch, "host", _Blind())


class _Blind:
    """`lib.host` that sees no process."""

    def __getattr__(self, name: str) -> Any:
        return (lambda process: False) if name == "is_alive" else getattr(host, name)


def whoever_goes_on_is_told_twice(patch: Patch) -> None:
    let_go = limits.let_go

    def twice(db: sqlite3.Connection, limit: Any, agent: Agent, *, now: int) -> None:
        let_go(db, limit, agent, now=now)
        db.execute("UPDATE limited_agents SET note_id = NULL WHERE limit_id = ?", (limit.id,))
        let_go(db, limit, agent, now=now)

    patch.setattr(limits, "let_go", twice)


def epochs_are_all_the_same(patch: Patch) -> None:
    apply = signals._apply

    def any_epoch(db: sqlite3.Connection, home: Any, agent_id: int, epoch: int, at: int, payload: bytes) -> None:
        found = db.execute("SELECT epoch FROM agents WHERE id = ?", (agent_id,)).fetchone()
        apply(db, home, agent_id, found["epoch"], at, payload)

    patch.setattr(signals, "_apply", any_epoch)


def windows_of_failed_teams_stay(patch: Patch) -> None:
    patch.setattr(draining, "_close", lambda *_: [])


def entries_are_not_settled(patch: Patch) -> None:
    patch.setattr(entries, "settle", lambda *_, **__: None)


def everything_in_tmux_is_ended(patch: Patch) -> None:
    end = stopping.end_processes

    def all_of_it(db: sqlite3.Connection, tmux: SimulatedTmux, *rest: Any, **more: Any) -> Any:
        tmux.kill_session("private")
        return end(db, tmux, *rest, **more)

    patch.setattr(stopping, "end_processes", all_of_it)


def merging_moves_a_persons_branch(patch: Patch) -> None:
    ensure = hub.ensure_branch

    def and_another(found: Any) -> str:
        merges.move(found.project, "refs/heads/wip", found.starting_commit, before=None, why="")
        return ensure(found)

    patch.setattr(hub, "ensure_branch", and_another)


def a_file_is_left_in_the_project(patch: Patch) -> None:
    prepare = preparing.prepare

    def and_note(db: sqlite3.Connection, found: Any, *rest: Any) -> Any:
        (found.project / "note.txt").write_text("we were here")
        return prepare(db, found, *rest)

    patch.setattr(preparing, "prepare", and_note)


Case = tuple[str, Callable[[Patch], None], tuple[Operation, ...], float]

CASES: list[Case] = [
    ("messages_go_to_whom_they_are_for", everybody_gets_everything, (THREE,), 0.1),
    ("messages_come_once", nothing_proves_anything, (ALONE,), 0.1),
    ("acknowledged_is_received", pasted_is_acknowledged, (ALONE,), 0.1),
    ("no_message_is_lost", what_was_lost_stays_lost, (ALONE, URGENT, Operation(10.0, "kill_agent", (0,))), 0.1),
    (
        "held_agents_get_nothing",
        holds_hold_nobody,
        (THREE, LIMIT, replace(MESSAGE, at=620.0), replace(MESSAGE, at=800.0)),
        0.4,
    ),
    ("nobody_is_held_for_nothing", limits_never_end, (ALONE, LIMIT, replace(MESSAGE, at=620.0)), 0.3),
    ("check_ins_fire_once", check_ins_are_not_claimed, (ALONE, NOTE), 0.2),
    (
        "no_check_in_is_lost",
        missed_occurrences_are_not_counted,
        (ALONE, Operation(20.0, "note", (0, "a", 2, True, "once", 0)), Operation(300.0, "reboot", (900.0,))),
        0.5,
    ),
    (
        "check_ins_are_on_time",
        whoever_comes_back_has_to_wait,
        (ALONE, NOTE, Operation(100.0, "reboot", (300.0,))),
        0.4,
    ),
    ("agents_live_once", whoever_lives_is_started_again, (ALONE, Operation(500.0, "resume", (0,))), 0.2),
    ("nobody_is_resumed_twice", whoever_goes_on_is_told_twice, (ALONE, LIMIT, replace(MESSAGE, at=620.0)), 0.6),
    (
        "old_epochs_are_history",
        epochs_are_all_the_same,
        (ALONE, Operation(600.0, "delay_hook", (40.0,)), MESSAGE, Operation(702.0, "kill_agent", (0,))),
        0.3,
    ),
    ("entries_run_once", windows_of_failed_teams_stay, (ALONE, Operation(500.0, "fail", (0,))), 0.3),
    ("no_entry_is_lost", entries_are_not_settled, (ALONE, Operation(500.0, "fail", (0,))), 0.3),
    ("foreign_windows_stay", everything_in_tmux_is_ended, (ALONE, Operation(500.0, "fail", (0,))), 0.3),
    ("foreign_branches_stay", merging_moves_a_persons_branch, (ALONE, Operation(500.0, "complete", (0,))), 0.3),
    ("foreign_files_stay", a_file_is_left_in_the_project, (ALONE,), 0.1),
]


@pytest.mark.parametrize(("invariant", "break_it", "plan", "hours"), CASES, ids=[case[0] for case in CASES])
def test_an_invariant_notices_code_that_is_broken(
    invariant: str,
    break_it: Callable[[Patch], None],
    plan: tuple[Operation, ...],
    hours: float,
    monkeypatch: Patch,
) -> None:
    whole = runs.live_through(1, plan, hours=hours)
    assert whole.broken is None, "without the mutation all holds"
    break_it(monkeypatch)
    verdict = runs.live_through(1, plan, hours=hours)
    assert verdict.invariant == invariant, verdict.broken


def test_every_invariant_is_among_them() -> None:
    raised = {name for name in vars(invariants) if callable(getattr(invariants, name)) and _raises(name)}
    assert raised == {case[0] for case in CASES}


def _raises(name: str) -> bool:
    code = getattr(getattr(invariants, name), "__code__", None)
    return code is not None and name in code.co_consts
