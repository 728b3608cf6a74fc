"""The strikes: each breaks one thing while messages are under way, and ends what it has begun."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping

from lib import agents, checkins, host
from lib.errors import OrchestratorError
from lib.front.chaos.ground import wait_for
from lib.front.chaos.ordeal import Ordeal
from lib.front.sandbox import kill
from lib.judgement.ordeals import Promise
from lib.models import AgentState, CandidateStatus, Process
from lib.tmux import ENTER

#: A strike raises `OrchestratorError` when it could not be done.
Strike = Callable[[Ordeal], None]

_ENDS_WITHIN_SECONDS = 10.0
_STANDS_STILL_SECONDS = 5.0
_SENDERS_ROUNDS = 4
#: Most deliveries take less from their record to their acknowledgement.
_A_DELIVERY_MS = 120
_MERGES_WITHIN_SECONDS = 20.0
_LIMIT_SECONDS = 3.0
_SYNC_SECONDS = 0.5
_JUMP_SECONDS = 7200.0


def kill_agent(ordeal: Ordeal) -> None:
    """kill -9 of an agent, with messages to everybody on their way."""
    ordeal.tell_all()
    ordeal.order_commit()
    ordeal.moment()
    if process := ordeal.victim().process:
        kill(process, signal.SIGKILL)


def kill_daemon(ordeal: Ordeal) -> None:
    """kill -9 of the scheduler, with messages on their way and a check-in due. The next command starts it again."""
    ordeal.tell_all()
    ordeal.remind(seconds=0.3)
    ordeal.moment()
    _kill_daemon(ordeal)
    _command(ordeal)


def kill_server(ordeal: Ordeal) -> None:
    """tmux kill-server: all agents end with their windows."""
    ordeal.tell_all()
    ordeal.moment()
    ordeal.ground.tmux.run("kill-server")


def stop_server(ordeal: Ordeal) -> None:
    """SIGSTOP of the tmux server for some seconds: no window hears or shows anything.

    An agent alone cannot be stopped: tmux 3.3a continues the process of a pane at once (`server_child_stopped`).
    """
    _stop(ordeal, host.process(int(ordeal.ground.tmux.run("display-message", "-p", "#{pid}"))))


def stop_daemon(ordeal: Ordeal) -> None:
    """SIGSTOP of the scheduler for some seconds, with a check-in due meanwhile."""
    _stop(ordeal, ordeal.ground.daemon())


def _stop(ordeal: Ordeal, process: Process | None) -> None:
    if process is None:
        raise OrchestratorError("what was to be stopped does not run")
    kill(process, signal.SIGSTOP)
    try:
        ordeal.tell_all()
        ordeal.order_commit()
        ordeal.remind(seconds=0.5)
        time.sleep(_STANDS_STILL_SECONDS)
    finally:
        kill(process, signal.SIGCONT)


def swallowed_enter(ordeal: Ordeal) -> None:
    """An agent does not hear the Enter after a message."""
    ordeal.tell(ordeal.victim().role, "rehearse: deaf 1")
    ordeal.settle()
    wait_for(lambda: ordeal.team.lacks() is None, seconds=_ENDS_WITHIN_SECONDS)
    ordeal.tell_all()


def kill_sender(ordeal: Ordeal) -> None:
    """kill -9 of all senders when the first has begun to be recorded, and a little later each time."""
    for number in range(_SENDERS_ROUNDS):
        before = ordeal.ground.newest_event()
        ordeal.tell_all()
        wait_for(lambda before=before: ordeal.ground.newest_event() > before, seconds=_ENDS_WITHIN_SECONDS)  # type: ignore[misc]
        time.sleep((ordeal.strike.draw // 7 + number * 37) % _A_DELIVERY_MS / 1000)
        for sender in ordeal.senders():
            sender.kill()
        ordeal.settle()


def dialog(ordeal: Ordeal) -> None:
    """An agent asks a question in its window, and messages come meanwhile. Somebody there says yes."""
    victim = ordeal.victim()
    ordeal.tell(victim.role, "rehearse: ask")
    if not wait_for(lambda: agents.state_of(victim) is AgentState.ASKING, seconds=_ENDS_WITHIN_SECONDS):
        raise OrchestratorError(f"{victim.role} has not asked")
    ordeal.tell_all()
    ordeal.settle()
    if agents.state_of(victim) is not AgentState.ASKING:
        raise OrchestratorError(f"a message has answered the question of {victim.role}")
    if victim.pane_id and victim.pane_pid:
        ordeal.ground.tmux.press(victim.pane_id, victim.pane_pid, ENTER)


def usage_limit(ordeal: Ordeal) -> None:
    """The account is at its limit for three seconds: an agent is refused, and nobody gets new work until it is over."""
    ordeal.tell(ordeal.victim().role, f"rehearse: limit {_LIMIT_SECONDS / 60}")
    ordeal.settle()
    ordeal.tell_all()


def git_lock(ordeal: Ordeal) -> None:
    """A git that was killed has left its lock on the integration branch. It is removed after the first failure."""
    _commit_and_settle(ordeal)
    found = ordeal.team.orchestration()
    lock = found.project / ".git" / "refs" / "heads" / f"{found.integration_branch}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    try:
        ordeal.ground.ok("sync_coordinator.py", "merge", found.session, "--role", "developer")
        wait_for(lambda: ordeal.team.integration_trouble(), seconds=_MERGES_WITHIN_SECONDS)
        if CandidateStatus.MERGED in ordeal.team.offered().values():
            raise OrchestratorError("the integration branch was moved in spite of its lock")
    finally:
        lock.unlink()
    ordeal.expect_offers({"developer": CandidateStatus.MERGED})


def conflict(ordeal: Ordeal) -> None:
    """Two agents have committed the same file with other words: one is merged, and the other hears of it once."""
    _commit_and_settle(ordeal, "tester")
    ordeal.ground.ok("sync_coordinator.py", "merge", ordeal.team.orchestration().session)
    ordeal.expect_offers({"developer": CandidateStatus.MERGED, "tester": CandidateStatus.CONFLICT})
    ordeal.promises.append(Promise("notice", "Your work was not merged"))


def _commit_and_settle(ordeal: Ordeal, *others: str) -> None:
    ordeal.order_commit(*others)
    ordeal.settle()
    wait_for(lambda: ordeal.team.lacks() is None, seconds=_ENDS_WITHIN_SECONDS)


def slow_disk(ordeal: Ordeal) -> None:
    """Every sync takes half a second longer, while everything is under way."""
    with ordeal.ground.machine.slow_disk(_SYNC_SECONDS):
        ordeal.tell_all()
        ordeal.order_commit()
        ordeal.remind()
        ordeal.settle()


def full_disk(ordeal: Ordeal) -> None:
    """The disk of the state home is full for some seconds: what cannot be kept is refused, and nothing else is lost."""
    ordeal.tell_all()
    ordeal.moment()
    with ordeal.ground.machine.full_disk():
        ordeal.settle()
        ordeal.tell_all()
        ordeal.settle()
        time.sleep(_STANDS_STILL_SECONDS)


def torn_log(ordeal: Ordeal) -> None:
    """A power cut in the middle of a write: the store's log ends with half a page that nobody has committed."""
    ordeal.tell_all()
    ordeal.settle()
    _kill_daemon(ordeal)
    log = ordeal.ground.home / "orchestrator.db-wal"
    with log.open("ab") as file:
        file.write(ordeal.strike.draw.to_bytes(4, "big") * 600)
    log.with_name("orchestrator.db-shm").unlink(missing_ok=True)  # it is memory, which a power cut empties
    _command(ordeal)


def clock_jump(ordeal: Ordeal) -> None:
    """The clock jumps two hours ahead, over the time of a check-in, and some seconds later back."""
    ordeal.remind(seconds=1800)
    with ordeal.ground.machine.clock_off(_JUMP_SECONDS):
        ordeal.tell_all()
        host.wake(ordeal.ground.home)
        ordeal.settle()
        wait_for(lambda: not ordeal.missing(), seconds=_ENDS_WITHIN_SECONDS)
        ordeal.remind(seconds=_STANDS_STILL_SECONDS, clock_off=_JUMP_SECONDS)
    ordeal.tell_all()


def reboot(ordeal: Ordeal) -> None:
    """Everything ends at once, and another boot begins, in which a stranger has an agent's pid."""
    ordeal.tell_all()
    ordeal.moment()
    for _ in range(3):  # what was just starting another
        for process in ordeal.ground.processes():
            kill(process, signal.SIGKILL)
    ordeal.settle()
    ordeal.stranger = ordeal.ground.stranger()
    ordeal.team.forget_boot(ordeal.victim(), ordeal.stranger.pid)
    _command(ordeal)


def _kill_daemon(ordeal: Ordeal) -> None:
    if process := ordeal.ground.daemon():
        kill(process, signal.SIGKILL)
        wait_for(lambda: not host.is_alive(process), seconds=_ENDS_WITHIN_SECONDS)


def _command(ordeal: Ordeal) -> None:
    """The next command of a person that needs the scheduler: it starts one. What it has scheduled is taken back."""
    note = f"chaos test, strike {ordeal.strike.number}: nothing to do"
    ordeal.ground.ok("scheduler.py", "--add-note", "600", note, ordeal.team.worker().target)
    with ordeal.ground.store() as db:
        for one in checkins.scheduled(db):
            if one.note == note:
                checkins.remove(db, one.id, now=host.now_ms())


STRIKES: Mapping[str, Strike] = {
    "kill-agent": kill_agent,
    "kill-daemon": kill_daemon,
    "kill-sender": kill_sender,
    "stop-daemon": stop_daemon,
    "swallowed-enter": swallowed_enter,
    "dialog": dialog,
    "kill-server": kill_server,
    "stop-server": stop_server,
    "usage-limit": usage_limit,
    "git-lock": git_lock,
    "conflict": conflict,
    "slow-disk": slow_disk,
    "full-disk": full_disk,
    "torn-log": torn_log,
    "clock-jump": clock_jump,
    "reboot": reboot,
}
#: What the machine has to do, which not every machine can.
BY_THE_MACHINE = frozenset(("slow-disk", "full-disk", "clock-jump"))
