"""What goes wrong: each fault has a place and a time, drawn from the seed, and strikes once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib import daemon
from lib.errors import OrchestratorError
from tests.simulation.world import SimulatedProcess, World

if TYPE_CHECKING:
    from tests.simulation.runs import Run


@dataclass
class _Armed:
    """Strikes a process whose name begins with `who`, where `where` begins the name of the crossing, after `skip`."""

    who: str
    where: str
    skip: int = 0

    def strikes(self, process: SimulatedProcess, where: str) -> bool:
        if not process.name.startswith(self.who) or not where.startswith(self.where):
            return False
        self.skip -= 1
        return self.skip < 0


@dataclass
class Kill(_Armed):
    """kill -9, at whatever it reaches for."""

    def strike(self, world: World, process: SimulatedProcess, where: str) -> None:
        world.die(process)


@dataclass
class Hang(_Armed):
    """It takes so long."""

    seconds: float = 10.0

    def strike(self, world: World, process: SimulatedProcess, where: str) -> None:
        world.sleep(self.seconds)


@dataclass
class Failure(_Armed):
    """It says that it cannot."""

    def strike(self, world: World, process: SimulatedProcess, where: str) -> None:
        if where.startswith("store"):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        if where.startswith("tmux"):
            raise OrchestratorError("tmux: lost server")
        raise OrchestratorError("git: fatal: unable to read the disk")


# -- what happens, by its name in a plan --


def kill_agent(run: Run, number: int) -> None:
    if sessions := list(run.anthropic.sessions.values()):
        run.world.kill(sessions[number % len(sessions)].process)


def kill_daemon(run: Run, skip: int) -> None:
    run.world.faults.append(Kill("daemon", "", skip))


def kill_errand(run: Run, skip: int) -> None:
    run.world.faults.append(Kill("errand", "", skip))


def kill_command(run: Run, skip: int) -> None:
    run.world.faults.append(Kill("person", "", skip))


def kill_server(run: Run) -> None:
    run.tmux.kill_server()


def tmux_fails(run: Run, skip: int) -> None:
    run.world.faults.append(Failure("", "tmux", skip))


def tmux_hangs(run: Run, skip: int, seconds: float) -> None:
    run.world.faults.append(Hang("", "tmux", skip, seconds))


def git_fails(run: Run, skip: int) -> None:
    run.world.faults.append(Failure("", "git", skip))


def git_hangs(run: Run, skip: int, seconds: float) -> None:
    run.world.faults.append(Hang("", "git", skip, seconds))


def disk_is_full(run: Run, skip: int) -> None:
    run.world.faults.append(Failure("", "store.commit", skip))


def store_is_busy(run: Run, skip: int, seconds: float) -> None:
    run.world.faults.append(Hang("", "store.commit", skip, seconds))


def swallow_keys(run: Run, number: int) -> None:
    run.anthropic.habits.swallowed_keys += number


def lose_paste(run: Run) -> None:
    run.anthropic.habits.lost_pastes += 1


def delay_paste(run: Run, seconds: float) -> None:
    run.anthropic.habits.late_pastes.append(seconds)


def lose_hook(run: Run) -> None:
    run.anthropic.habits.lost_hooks += 1


def delay_hook(run: Run, seconds: float) -> None:
    run.anthropic.habits.late_hooks.append(seconds)


def orphan_hook(run: Run, seconds: float) -> None:
    """An agent is killed while it waits for its hook, which tells of it when the next life has begun."""
    run.anthropic.habits.orphaned_hooks.append(seconds)


def ask(run: Run, number: int, seconds: float) -> None:
    """A dialog opens, and a person answers it after a while."""
    if sessions := list(run.anthropic.sessions.values()):
        asking = sessions[number % len(sessions)]
        asking.ask()
        run.world.after(seconds, asking.answer)


def type_draft(run: Run, number: int) -> None:
    """A person begins to type to an agent, and goes for a coffee."""
    if sessions := [one for one in run.anthropic.sessions.values() if not one.draft]:
        sessions[number % len(sessions)].draft = "could you please"


def set_clock(run: Run, seconds: float) -> None:
    run.world.tell(f"the clock is set by {seconds:.0f} s")
    run.world.wall_offset += seconds
    # Nobody tells a daemon that sleeps: it finds out when it looks around again.
    run.world.trouble(daemon.IDLE_SECONDS)


def reboot(run: Run, seconds: float) -> None:
    """The machine loses its power, and comes back later."""
    world = run.world
    world.tell("the machine loses its power")
    run.machine.is_off = True
    for process in list(world.processes.values()):
        world.kill(process)

    def boot() -> None:
        world.tell("the machine boots")
        world.trouble()
        world.boots += 1
        run.machine.is_off = False
        run.machine.start_daemon()

    world.after(seconds, boot)


def limit(run: Run, minutes: float, is_told: bool, word: str) -> None:
    """The account's usage limit is reached."""
    world = run.world
    for account in [run.anthropic.account(config) for config in run.configs]:
        account.limited_until = world.now + minutes * 60
        account.resets_at = round(world.wall_ms / 1000 + minutes * 60) if is_told else None
        account.word = word
    world.tell(f"a usage limit for {minutes:.0f} min")


FAULTS: dict[str, Callable[..., None]] = {
    one.__name__: one
    for one in (
        *(kill_agent, kill_daemon, kill_errand, kill_command, kill_server, tmux_fails, tmux_hangs, git_fails),
        *(git_hangs, disk_is_full, store_is_busy, swallow_keys, lose_paste, delay_paste, lose_hook, delay_hook),
        orphan_hook,
        *(ask, type_draft, set_clock, reboot, limit),
    )
}
