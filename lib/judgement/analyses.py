"""An analysis of a spec: what a model makes of it before a team is launched, read from its answer and bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.judgement import cleaning, teams
from lib.records import dataclass

_TEXT = {"type": "string", "minLength": 1}
_LIST = {"type": "array", "items": {"type": "string"}}
_ROLE = {
    "type": "object",
    "properties": {"role": _TEXT, "why": _TEXT, "tasks": _LIST},
    "required": ["role", "why", "tasks"],
    "additionalProperties": False,
}
#: The shape of an answer.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": _TEXT,
        "milestones": _LIST,
        "roles": {"type": "array", "items": _ROLE, "minItems": 1},
        "risks": _LIST,
        "size": {"type": "string", "enum": list(teams.SIZES)},
    },
    "required": ["summary", "milestones", "roles", "risks", "size"],
    "additionalProperties": False,
}

#: How much of an answer is taken: characters of a text, and how many of a list. The plan is read by the Orchestrator in
#: one message, so what is longer helps nobody.
_LONGEST_SUMMARY = 1_000
_LONGEST_ITEM = 300
_LONGEST_NAME = 40
_MOST_MILESTONES = 12
_MOST_ROLES = 15
_MOST_TASKS = 10
_MOST_RISKS = 10
_MOST_NOTES = 10


@dataclass(frozen=True)
class Analysis:
    """What a model has made of a spec: in plain lines, cleaned and bounded.

    `roles` have the why of each, most needed first; `tasks` are those of a role. `notes` are what of the answer was
    not taken, or did not work on the way.
    """

    summary: str
    milestones: tuple[str, ...]
    roles: Mapping[str, str]
    tasks: Mapping[str, tuple[str, ...]]
    risks: tuple[str, ...]
    size: str
    cost_usd: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, Any]:
        """All of it as JSON takes it; `of_data` is the way back."""
        return {
            "summary": self.summary,
            "milestones": list(self.milestones),
            "roles": dict(self.roles),
            "tasks": {role: list(tasks) for role, tasks in self.tasks.items()},
            "risks": list(self.risks),
            "size": self.size,
            "cost_usd": self.cost_usd,
            "notes": list(self.notes),
        }


def of_data(data: Mapping[str, Any]) -> Analysis:
    """An analysis from its own data."""
    return Analysis(
        summary=data["summary"],
        milestones=tuple(data["milestones"]),
        roles=data["roles"],
        tasks={role: tuple(tasks) for role, tasks in data["tasks"].items()},
        risks=tuple(data["risks"]),
        size=data["size"],
        cost_usd=data["cost_usd"],
        notes=tuple(data["notes"]),
    )


def read(
    found: Mapping[str, Any], known_roles: Sequence[str], *, cost_usd: float | None = None, notes: Sequence[str] = ()
) -> Analysis:
    """An answer of the shape of `SCHEMA`. A role that is none is left out, which a note says."""
    roles: dict[str, str] = {}
    tasks: dict[str, tuple[str, ...]] = {}
    said = list(notes)
    for one in found["roles"]:
        name = _line(one["role"], _LONGEST_NAME)
        role = "_".join(name.lower().replace("-", " ").split())
        if role not in known_roles:
            said.append(f"the analysis names {name!r}, which is no role: left out")
        elif len(roles) < _MOST_ROLES or role in roles:
            roles.setdefault(role, _line(one["why"], _LONGEST_ITEM))
            tasks[role] = _lines((*tasks.get(role, ()), *one["tasks"]), _MOST_TASKS)
    return Analysis(
        summary=_line(found["summary"], _LONGEST_SUMMARY),
        milestones=_lines(found["milestones"], _MOST_MILESTONES),
        roles=roles,
        tasks={role: given for role, given in tasks.items() if given},
        risks=_lines(found["risks"], _MOST_RISKS),
        size=found["size"],
        cost_usd=cost_usd,
        notes=_lines(said, _MOST_NOTES),
    )


def _lines(texts: Iterable[str], most: int) -> tuple[str, ...]:
    lines = dict.fromkeys(_line(text, _LONGEST_ITEM) for text in texts)
    return tuple(line for line in lines if line)[:most]


def _line(text: str, longest: int) -> str:
    """A text as one line that a terminal can carry."""
    # What is far too long is not cleaned at all.
    line = " ".join(cleaning.clean(text[: 10 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def team(
    analysis: Analysis, rules: Sequence[str], kind_roles: Sequence[str], *, most: int, size: str | None = None
) -> tuple[str, ...]:
    """The roles of a team, most needed first: those of the analysis, within the caps.

    `rules` are the roles that the rules choose, and `kind_roles` all roles of the type of project. The size of a
    person's comes before that of the analysis: then the rules fill the team up to it.
    """
    cap = min(most, teams.SIZES[size or analysis.size])
    wanted = [role for role in analysis.roles if role != teams.ORCHESTRATOR]
    if size:
        wanted += [role for role in rules if role not in (teams.ORCHESTRATOR, *wanted)]
    if not wanted:
        return tuple(rules)
    picked = wanted[: cap - 1]
    # Nobody else of a team writes the code.
    if teams.DEVELOPER in kind_roles and teams.DEVELOPER not in picked:
        picked = [teams.DEVELOPER, *picked[: cap - 2]]
    return (teams.ORCHESTRATOR, *picked)
