"""A batch file: specs, each with what belongs to it (examples/batch.yaml). Pure: values in, values out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from lib.errors import OrchestratorError, together
from lib.judgement.teams import PLANS, SIZES
from lib.models import BUDGET_MINUTES, PRIORITIES, GitMode, Program
from lib.records import dataclass


@dataclass(frozen=True)
class Wanted:
    """What a person wants queued, in their own words. `spec` may be a file, a folder or a pattern.

    `options` are those of a launch: roles, add_roles, team_type, size, plan, agent, git_mode, no_ai; only those that
    were named. `number` is its place in a batch file, None on a command line.
    """

    spec: str
    project: str | None = None
    new_project: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    priority: int = 0
    budget_minutes: int | None = None
    number: int | None = None


#: What an entry may hold, and in which words a person is told.
_KINDS = {
    "spec": "a path",
    "project": "a path",
    "new_project": "true or false",
    "plan": f"one of {', '.join(PLANS)}",
    "size": f"one of {', '.join(SIZES)}",
    "team_type": "text",
    "roles": "a list of roles",
    "add_roles": "a list of roles",
    "no_ai": "true or false",
    "agent": f"one of {', '.join(Program)}",
    "git_mode": f"one of {', '.join(GitMode)}",
    "tags": "a list of texts",
    "priority": f"a whole number from {PRIORITIES[0]} to {PRIORITIES[1]}",
    "budget_minutes": f"a whole number from {BUDGET_MINUTES[0]} to {BUDGET_MINUTES[1]}",
}
_OPTIONS = ("roles", "add_roles", "team_type", "size", "plan", "agent", "git_mode", "no_ai")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    **{"plan": tuple(PLANS), "size": tuple(SIZES)},
    **{"agent": tuple(Program), "git_mode": tuple(GitMode)},
}
_RANGES = {"priority": PRIORITIES, "budget_minutes": BUDGET_MINUTES}


def parse(content: object, name: str) -> tuple[Wanted, ...]:
    """What a batch file asks for: `content` is what YAML or JSON has made of it, `name` is its name in errors.

    Raises `OrchestratorError` with all that is wrong, by the numbers of the entries.
    """
    problems: list[str] = []
    top = _lines(content, ("specs", "defaults"), "", problems)
    defaults = _values(top.get("defaults") or {}, [kind for kind in _KINDS if kind != "spec"], "defaults", problems)
    listed = top.get("specs")
    if not problems and not (isinstance(listed, list) and listed):
        problems.append("`specs:` must be a list of entries, each with `spec: PATH`")
    found = [
        _wanted(number, entry, defaults, problems)
        for number, entry in enumerate(listed if isinstance(listed, list) else [], start=1)
    ]
    if problems:
        hint = "examples/batch.yaml shows every line"
        raise together(
            [OrchestratorError(f"{name}: {one}", hint=hint if len(problems) == 1 else None) for one in problems],
            f"{name} cannot be taken",
        )
    return tuple(found)


def _wanted(number: int, entry: object, defaults: Mapping[str, Any], problems: list[str]) -> Wanted:
    where = f"entry {number}"
    own = _values(entry, list(_KINDS), where, problems)
    if "spec" not in own and isinstance(entry, dict) and "spec" not in entry:
        problems.append(f"{where} names no spec")
    if own.get("project") and own.get("new_project"):
        problems.append(f"{where} has both a project and new_project")
    # What an entry says of its project comes before what the defaults say of it.
    ours = dict(defaults)
    if own.get("project"):
        ours.pop("new_project", None)
    if own.get("new_project"):
        ours.pop("project", None)
    values = {**ours, **own}
    return Wanted(
        spec=values.get("spec", ""),
        project=values.get("project"),
        new_project=values.get("new_project", False),
        options={option: values[option] for option in _OPTIONS if values.get(option)},
        tags=tuple(values.get("tags", ())),
        priority=values.get("priority", 0),
        budget_minutes=values.get("budget_minutes"),
        number=number,
    )


def _lines(content: object, known: list[str] | tuple[str, ...], where: str, problems: list[str]) -> dict[str, Any]:
    """The `name: value` lines of a part of the file, without those that nobody knows."""
    if not isinstance(content, dict):
        problems.append(f"{where or 'it'} must hold `name: value` lines, not {_shown(content)}")
        return {}
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:100], known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            problems.append(f"{where}{' has' if where else 'it has'} an unknown line {str(name)[:100]!r}; {meant}")
    return {name: value for name, value in content.items() if name in known}


def _values(content: object, known: list[str], where: str, problems: list[str]) -> dict[str, Any]:
    found = {}
    for name, value in _lines(content, known, where, problems).items():
        if value is None:  # an empty line is none
            continue
        if _is_right(name, value):
            found[name] = value
        else:
            problems.append(f"{where}: {name} must be {_KINDS[name]}, not {_shown(value)}")
    return found


def _is_right(name: str, value: object) -> bool:
    # type() and not isinstance(): true is no number here.
    if name in _RANGES:
        low, high = _RANGES[name]
        return type(value) is int and low <= value <= high
    if name in _CHOICES:
        return isinstance(value, str) and value in _CHOICES[name]
    if name in ("roles", "add_roles", "tags"):
        return isinstance(value, list) and bool(value) and all(is_line(item) for item in value)
    if name in ("new_project", "no_ai"):
        return isinstance(value, bool)
    return is_line(value)


def is_line(value: object) -> bool:
    """Whether a value is a text that a path, a role or a tag may be: one line, and something in it."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _shown(value: object) -> str:
    # Not the whole of it: aliases of YAML can make a small file huge.
    if isinstance(value, dict | list):
        return ("this list" if value else "an empty list") if isinstance(value, list) else "`name: value` lines"
    return "nothing" if value is None else repr(value)[:80]
