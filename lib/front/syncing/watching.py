"""The verb radar: a round of the radar now, as the scheduler does it every minute."""

from __future__ import annotations

from typing import Any

from lib import agents, errands, host
from lib.errors import ExitCode
from lib.front import cli
from lib.front.cli import Output
from lib.front.syncing import main
from lib.front.syncing.desk import Desk, desk
from lib.git.repository import legible
from lib.together import radar
from lib.together.radar import Swept


@cli.verb(
    main,
    "radar",
    examples="""
    sync_coordinator.py radar
    sync_coordinator.py radar --json
    """,
)
@cli.pass_output
def look_around(output: Output) -> int:
    """Compare the worktrees of each team now, and tell agents whose work overlaps.

    The scheduler does the same every minute.
    """
    here = desk()
    with errands.working(here.home, radar.ERRAND):
        found = radar.sweep(here.db, now=host.now_ms())
    lines = [line for one in found for line in _lines(here, one)]
    output.answer("\n".join(lines) or "no team has two agents that live", [_data(here, one) for one in found])
    return ExitCode.FAILED if any(one.problems for one in found) else ExitCode.DONE


def _lines(here: Desk, one: Swept) -> list[str]:
    session = one.orchestration.session
    lines = [f"{session}: {role} could not be looked at: {why}" for role, why in one.problems.items()]
    for overlap in one.overlaps:
        first, second = (agents.get(here.db, each).role for each in (overlap.agent, overlap.other))
        lines.append(f"{session}: {first} and {second} overlap in {', '.join(map(legible, overlap.files))}")
    return lines or [f"{session}: nothing overlaps"]


def _data(here: Desk, one: Swept) -> dict[str, Any]:
    return {
        "session": one.orchestration.session,
        "orchestration": one.orchestration.id,
        "overlaps": [
            {
                "roles": [agents.get(here.db, each).role for each in (overlap.agent, overlap.other)],
                "files": list(map(legible, overlap.files)),
                "since": overlap.since,
            }
            for overlap in one.overlaps
        ],
        "problems": dict(one.problems),
    }
