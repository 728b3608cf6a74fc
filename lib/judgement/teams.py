"""Which roles work on a spec: rules, in the order --roles, --team-type, --size, --plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib.errors import Usage

ORCHESTRATOR = "orchestrator"

#: The first windows of every team that has these roles (ARCHITECTURE.md, "Names").
WINDOW_ORDER = (ORCHESTRATOR, "developer", "tester", "testrunner", "project_manager")

#: How many agents a size means.
SIZES = {"small": 3, "medium": 5, "large": 8}
#: The names of Claude's plans; templates/plans.yaml has their figures.
PLANS = ("pro", "max5", "max20", "console")

DEFAULT_TYPE = "code_project"
DEFAULT_SIZE = "medium"


@dataclass(frozen=True)
class TeamType:
    """A kind of project: its roles, most needed first, words of a spec that speak for it, and who waits for whom."""

    name: str
    summary: str
    roles: tuple[str, ...]
    words: tuple[str, ...]
    depends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaudePlan:
    """What a plan of Claude's carries. `window_hours` is None when its usage is not counted by windows."""

    name: str
    summary: str
    agents: int
    window_hours: int | None
    weekly_windows: tuple[str, ...]


@dataclass(frozen=True)
class Team:
    """The roles chosen, in window order, and why. `depends` are pairs: a role, and one that it waits for."""

    roles: tuple[str, ...]
    reason: str
    depends: tuple[tuple[str, str], ...] = ()


def choose(
    spec_text: str,
    *,
    known_roles: Sequence[str],
    types: Mapping[str, TeamType],
    plans: Mapping[str, ClaudePlan] = {},
    roles: Sequence[str] = (),
    team_type: str | None = None,
    size: str | None = None,
    plan: str | None = None,
) -> Team:
    """The team for a spec. The same values always give the same team. Raises `Usage` listing what is valid."""
    if team_type and team_type not in types:
        raise Usage(f"unknown team type {team_type!r}", hint=f"valid types: {', '.join(types)}")
    kind = types[team_type] if team_type else detect(spec_text, types)
    if roles:
        named = _in_window_order(_named(roles, known_roles))
        return Team(named, "named by --roles", _depends(kind, named))
    most = min(SIZES[size or DEFAULT_SIZE], plans[plan].agents if plan else SIZES["large"])
    said = [f"{kind.name}{'' if team_type else ' by the words of the spec'}", f"{size or DEFAULT_SIZE} size"]
    if plan:
        said.append(f"plan {plan}")
    chosen = _in_window_order(kind.roles[:most])
    return Team(chosen, ", ".join(said), _depends(kind, chosen))


def detect(spec_text: str, types: Mapping[str, TeamType]) -> TeamType:
    """The type whose words the spec uses most; a tie, or no word at all, is the default type."""
    scores = {name: _score(spec_text, kind.words) for name, kind in types.items()}
    best = max(scores.values())
    winners = [name for name, score in scores.items() if score == best]
    return types[winners[0]] if best and len(winners) == 1 else types[DEFAULT_TYPE]


def _score(text: str, words: Sequence[str]) -> int:
    return sum(1 for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _named(roles: Sequence[str], known_roles: Sequence[str]) -> tuple[str, ...]:
    # Comma lists and repetition both work; a role that is named twice is one role.
    wanted = [role.strip() for entry in roles for role in entry.split(",") if role.strip()]
    unknown = [role for role in wanted if role not in known_roles]
    if unknown or not wanted:
        raise Usage(
            f"unknown role {', '.join(unknown) or '(none given)'}",
            hint=f"valid roles: {', '.join(known_roles)}",
        )
    # Somebody has to take the reports and close the work.
    return tuple(dict.fromkeys([ORCHESTRATOR, *wanted]))


def _in_window_order(roles: Sequence[str]) -> tuple[str, ...]:
    first = [role for role in WINDOW_ORDER if role in roles]
    return tuple(dict.fromkeys([*first, *roles]))


def _depends(kind: TeamType, roles: Sequence[str]) -> tuple[tuple[str, str], ...]:
    # Only roles that are in the team count: nobody waits for one that never reports.
    return tuple((role, other) for role in roles for other in kind.depends.get(role, ()) if other in roles)
