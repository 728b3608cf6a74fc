"""Each check of the chaos tester, on a team that is whole until one thing is spoiled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lib import host, messages, store
from lib.front.chaos import checks
from lib.front.chaos.checks import CHECKS, Check
from lib.front.chaos.ground import ground, wait_for
from lib.front.chaos.ordeal import Ordeal
from lib.front.chaos.team import Team
from lib.judgement import ordeals
from lib.judgement.ordeals import Promise, Severity
from lib.models import MessageKind
from lib.tmux import ENTER
from tests.conftest import sampled


@pytest.fixture
def ordeal() -> Iterator[Ordeal]:
    """A team with promises that are all kept, which nothing has hit."""
    (strike,) = ordeals.plan(1, duration=1, severity=Severity.LOW, intervals=(9, 9), only=("kill-agent",))
    with ground() as there:
        made = Ordeal(Team.launch(there, "whole"), strike, 30.0)
        made.prepare()
        assert wait_for(lambda: made.team.lacks() is None and not made.missing(), seconds=30)
        assert wrong(made) == {}
        yield made


def wrong(ordeal: Ordeal) -> dict[Check, list[str]]:
    return {check: said for check in CHECKS if (said := check(ordeal))}


def lose_a_message(ordeal: Ordeal) -> None:
    ordeal.promises.append(Promise("message", "never sent"))


def say_it_twice(ordeal: Ordeal) -> None:
    mark = next(one.mark for one in ordeal.promises if one.what == "message")
    agent = next(one for one in ordeal.team.members() if f" {one.role}]" in mark)
    pane, pid = str(agent.pane_id), int(agent.pane_pid or 0)
    ordeal.ground.tmux.paste(pane, pid, [f"{mark}: once more"])
    ordeal.ground.tmux.press(pane, pid, ENTER)
    assert wait_for(ordeal.missing, seconds=10)


def spoil_the_draft(ordeal: Ordeal) -> None:
    (ordeal.team.worker().worktree / "draft.txt").write_text("other words")


def lose_the_draft(ordeal: Ordeal) -> None:
    (ordeal.team.worker().worktree / "draft.txt").unlink()


def begin_another_conversation(ordeal: Ordeal) -> None:
    ordeal.before[0] = replace(ordeal.before[0], conversation_id="an older one")


def run_an_agent_twice(ordeal: Ordeal) -> None:
    conversation = ordeal.before[0].conversation_id
    command = [sys.executable, "-c", "import time; time.sleep(60)", "--resume", conversation]
    subprocess.Popen(command, env=ordeal.ground.environment, start_new_session=True)
    assert wait_for(lambda: ordeal.ground.lives()[conversation] == 2, seconds=10)


def close_a_window(ordeal: Ordeal) -> None:
    with ordeal.ground.store() as db:
        db.execute("UPDATE orchestrations SET status = 'paused'")  # so that nobody brings it back
    ordeal.ground.tmux.run("kill-pane", "-t", str(ordeal.before[1].pane_id))


def give_a_message_up(ordeal: Ordeal) -> None:
    agent, now = ordeal.before[0], host.now_ms()
    with ordeal.ground.store() as db:
        one = messages.queue(db, agent, "hopeless", sender="user", kind=MessageKind.MESSAGE, now=now)
        messages.fail(db, one, agent, "given up", now=now)


def damage_the_store(ordeal: Ordeal) -> None:
    """Of a copy: SQLite may mend what it still holds in memory, and a daemon has it open."""
    copy = ordeal.ground.folder / "copy"
    copy.mkdir()
    with ordeal.ground.store() as db:
        db.execute("VACUUM INTO ?", (str(copy / "orchestrator.db"),))
    with (copy / "orchestrator.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 2)
    elsewhere = ordeal.ground.environment | {"TMUX_ORCHESTRATOR_HOME": str(copy)}
    ordeal.team = Team(replace(ordeal.ground, environment=elsewhere), ordeal.team.id)


def meet_a_bug(ordeal: Ordeal) -> None:
    (ordeal.ground.home / "logs" / "bugs.log").write_text("['a door']\nTypeError: a bug\n")


def fail_a_step(ordeal: Ordeal) -> None:
    with ordeal.ground.store() as db, store.writing(db):
        store.record(db, "daemon.step_failed", now=host.now_ms(), step="deliver_messages", error="spoiled")


def end_the_scheduler(ordeal: Ordeal) -> None:
    process = ordeal.ground.daemon()
    assert process
    os.kill(process.pid, signal.SIGKILL)
    assert wait_for(lambda: not host.is_alive(process), seconds=10)


def end_the_stranger(ordeal: Ordeal) -> None:
    ordeal.stranger = ordeal.ground.stranger()
    ordeal.stranger.kill()
    ordeal.stranger.wait()


SPOILED: list[tuple[Callable[[Ordeal], None], Check, str]] = [
    (lose_a_message, checks.promises_are_kept, "message never sent is lost"),
    (say_it_twice, checks.promises_are_kept, "came 2 times"),
    (spoil_the_draft, checks.uncommitted_work_is_there, "other words"),
    (lose_the_draft, checks.uncommitted_work_is_there, "is gone"),
    (begin_another_conversation, checks.agents_are_who_they_were, "another conversation"),
    (run_an_agent_twice, checks.nobody_is_there_twice, "runs 2 times"),
    (close_a_window, checks.nobody_is_there_twice, "has 0 panes"),
    (give_a_message_up, checks.no_message_has_failed, "1 messages to orchestrator have failed"),
    (damage_the_store, checks.the_store_is_sound, "the store is damaged"),
    (meet_a_bug, checks.nothing_has_gone_wrong_inside, "TypeError: a bug"),
    (fail_a_step, checks.nothing_has_gone_wrong_inside, "deliver_messages failed: spoiled"),
    (end_the_scheduler, checks.the_scheduler_runs, "no scheduler runs"),
    (end_the_stranger, checks.a_stranger_lives, "of a stranger was ended"),
]


def test_every_check_is_spoiled_once() -> None:
    assert {check for _, check, _ in SPOILED} == set(CHECKS)


@pytest.mark.parametrize("spoil", sampled([spoil for spoil, _, _ in SPOILED], [lose_a_message]))
def test_a_check_notices(ordeal: Ordeal, spoil: Callable[[Ordeal], None]) -> None:
    ((check, said),) = ((check, said) for one, check, said in SPOILED if one is spoil)
    spoil(ordeal)
    assert wait_for(lambda: any(said in one for one in check(ordeal)), seconds=10), wrong(ordeal)
