"""What measurements mean, as tables of values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib.judgement import findings
from lib.judgement.findings import AgentLoad, Daemon, Disk, Lateness, Load, Logs, Look, Orphan, Store, TeamLoad

GB = 1_000_000_000
MB = 1_000_000
AGENT = AgentLoad("webapp-impl:developer", 7, Load(1.0, 100 * MB, 2))
TEAM = TeamLoad("webapp-impl", "/nowhere/webapp", "running", Load(1.0, 100 * MB, 2), (AGENT,))
STORE = Store(MB, 0, 250, 0, 4096, 0.1, 0.2)
WELL = Look(
    at=0,
    cores=2,
    memory_bytes=8 * GB,
    memory_available_bytes=4 * GB,
    teams=(TEAM,),
    daemon=Daemon(True, 8, Load()),
    disks=(Disk("/nowhere", 50 * GB, 100 * GB),),
    tmux_ms=3.0,
    store=STORE,
    logs=Logs(MB, 3, None, None),
    check_ins=Lateness(3, 10, 20, 30),
    orphans=(),
    unseen=(),
)

FOUND = [
    (WELL, []),
    # Nobody looks after a live team; without one nobody is missed, and what was not seen is not absent.
    (replace(WELL, daemon=Daemon(False)), ["scheduler.py --daemon"]),
    (replace(WELL, daemon=Daemon(False), teams=()), []),
    (replace(WELL, daemon=Daemon(None)), []),
    # An agent has ended; of a team that is paused that is no news.
    (
        replace(WELL, teams=(replace(TEAM, agents=(replace(AGENT, load=None),)),)),
        ["auto_orchestrate.py --project /nowhere/webapp --resume"],
    ),
    (replace(WELL, teams=(replace(TEAM, status="paused", agents=(replace(AGENT, load=None),)),)), []),
    # A big disk with a twentieth left has room, a small one has not.
    (replace(WELL, disks=(Disk("/", 50 * GB, 1000 * GB),)), []),
    (replace(WELL, disks=(Disk("/", 4 * GB, 100 * GB),)), ["sync_coordinator.py clean"]),
    (replace(WELL, disks=(Disk("/", 2 * GB, 10 * GB),)), []),
    (replace(WELL, memory_available_bytes=GB // 2), ["claude_control.py stop webapp-impl"]),
    (replace(WELL, tmux_ms=300.0), ["claude_control.py stop webapp-impl"]),
    (replace(WELL, tmux_ms=None, store=None, logs=None, check_ins=None), []),
    (replace(WELL, store=replace(STORE, write_ms=150.0)), ["scheduler.py --status"]),
    (replace(WELL, store=replace(STORE, write_ms=None)), []),
    (replace(WELL, store=replace(STORE, wal_bytes=65 * MB)), ["performance_tuner.py"]),
    (
        replace(WELL, store=replace(STORE, pages=10_000, free_pages=5_000)),
        ["scheduler.py --stop && performance_tuner.py"],
    ),
    (replace(WELL, logs=Logs(21 * MB, 3, None, None)), ["performance_tuner.py --clean-logs"]),
    (replace(WELL, check_ins=Lateness(3, 10, 121_000, 200_000)), ["scheduler.py --status"]),
    # What a live agent has detached may still be wanted.
    (replace(WELL, orphans=(Orphan(9, "node", "webapp-impl:developer", False),)), ["kill 9"]),
    (replace(WELL, orphans=(Orphan(9, "node", "webapp-impl:developer", True),)), ["ps -fp 9"]),
]


@pytest.mark.parametrize(("look", "commands"), FOUND)
def test_a_finding_has_the_command_that_mends_it(look: Look, commands: list[str]) -> None:
    assert [one.command for one in findings.findings(look)] == commands


@pytest.mark.parametrize(
    ("pages", "free", "is_worth"),
    [(10_000, 2_501, True), (10_000, 2_500, False), (8_000, 2_441, False), (8_000, 2_442, True)],
    ids=["more than a quarter", "a quarter", "below 10 MB", "above 10 MB"],
)
def test_a_vacuum_is_worth_it_above_a_quarter_and_above_10_mb(pages: int, free: int, is_worth: bool) -> None:
    assert findings.is_vacuum_worth(pages, free, 4096) == is_worth


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2 * MB, "2.0 MB"), (5000 * GB, "5000.0 GB")]
)
def test_sizes_have_their_unit(number: int, said: str) -> None:
    assert findings.size(number) == said
