"""Refinements of a team: the shape of an answer, what of an answer holds, and the one that the rules alone give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lib.errors import Unavailable
from lib.judgement import cleaning, shapes
from lib.judgement.teams import DEFAULT_SIZE, ORCHESTRATOR, SIZES, Team, TeamType
from lib.records import dataclass

#: So much of a reason is shown.
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Change:
    """A role that comes into a team or is left out of it, and why."""

    role: str
    why: str


@dataclass(frozen=True)
class Refinement:
    """What is changed in a team. `notes` are what an answer held that changes nothing, in sentences."""

    add: tuple[Change, ...]
    leave_out: tuple[Change, ...]
    summary: str
    notes: tuple[str, ...] = ()

    def of(self, team: Sequence[str]) -> tuple[str, ...]:
        """The team after the changes."""
        gone = {one.role for one in self.leave_out}
        return (*(role for role in team if role not in gone), *(one.role for one in self.add))


def schema(known: Sequence[str]) -> dict[str, Any]:
    """The shape of an answer; its roles are those of `known`."""
    change = {
        "type": "object",
        "properties": {"role": {"type": "string", "enum": list(known)}, "why": {"type": "string"}},
        "required": ["role", "why"],
        "additionalProperties": False,
    }
    changes = {"type": "array", "items": change}
    return {
        "type": "object",
        "properties": {"summary": {"type": "string"}, "add": changes, "leave_out": changes},
        "required": ["summary", "add", "leave_out"],
        "additionalProperties": False,
    }


def taken(found: object, team: Sequence[str], known: Sequence[str]) -> Refinement:
    """What of an answer holds. Raises `Unavailable` when it is not of the shape, or contradicts itself."""
    if wrong := shapes.misfit(found, schema(known)):
        raise Unavailable(f"the answer is refused: {wrong}")
    assert isinstance(found, dict)
    add, idle = _changes(found["add"], lambda role: role not in team, "is in the team already")
    leave_out, absent = _changes(found["leave_out"], lambda role: role in team, "is not in the team")
    if both := {one.role for one in add} & {one["role"] for one in found["leave_out"]}:
        raise Unavailable(f"the answer is refused: it adds {min(both)} and leaves it out")
    kept = tuple(one for one in leave_out if one.role != ORCHESTRATOR)
    notes = [*idle, *absent]
    if kept != leave_out:
        notes.append(f"it would leave out the {ORCHESTRATOR}: every team keeps it")
    refined = Refinement(add, kept, line(found["summary"]), tuple(notes))
    if set(refined.of(team)) == {ORCHESTRATOR}:
        raise Unavailable(f"the answer is refused: it leaves nobody but the {ORCHESTRATOR}")
    return refined


def _changes(
    found: Sequence[Mapping[str, str]], holds: Callable[[str], bool], otherwise: str
) -> tuple[tuple[Change, ...], list[str]]:
    by_role = {one["role"]: Change(one["role"], line(one["why"]) or "no reason was given") for one in found}
    idle = [f"it names {role}, which {otherwise}" for role in by_role if not holds(role)]
    return tuple(one for role, one in by_role.items() if holds(role)), idle


def line(text: str) -> str:
    """A text by somebody else in one line that a terminal can show, and no longer than it should be."""
    whole = " ".join(cleaning.clean(text).split())
    return whole if len(whole) <= _LONGEST_REASON else f"{whole[: _LONGEST_REASON - 3]}..."


def by_rules(team: Sequence[str], suggested: Team, kind: TeamType) -> Refinement:
    """The refinement by the rules alone. `suggested` is the team that a launch would get, of the type `kind`.

    Who is no role of the type and is not needed by the spec goes. Who is needed comes; then the suggested roles, until
    the team has the usual size.
    """
    gone = [role for role in team if role not in kind.roles and role not in suggested.roles]
    kept = [role for role in team if role not in gone]
    new = [role for role in suggested.roles if role not in kept]
    room = max(0, SIZES[DEFAULT_SIZE] - len(kept) - sum(role in suggested.needed for role in new))
    others = [role for role in kind.roles if role in new and role not in suggested.needed][:room]
    add = [role for role in new if role in suggested.needed or role in others]
    return Refinement(
        tuple(Change(role, suggested.whys[role]) for role in add),
        tuple(Change(role, f"no role of {kind.name}, and the spec does not need it") for role in gone),
        suggested.reason,
    )
