"""Refining a team: what of an answer holds, and what the rules alone would change."""

from __future__ import annotations

from typing import Any

import pytest

from lib import templates
from lib.errors import Unavailable
from lib.judgement import refinements, shapes
from lib.judgement.teams import choose

ROLES = sorted(templates.roles())
TYPES = templates.team_types()
NEEDS = {one.name: one.needed_for for one in templates.roles().values() if one.needed_for}
TEAM = ("orchestrator", "developer", "tester")


def answer(add: dict[str, str] | None = None, leave_out: dict[str, str] | None = None) -> dict[str, Any]:
    def told(changes: dict[str, str] | None) -> list[dict[str, str]]:
        return [{"role": role, "why": why} for role, why in (changes or {}).items()]

    return {"summary": "It needs a host.", "add": told(add), "leave_out": told(leave_out)}


HOLDS = [
    # Nothing to change.
    (answer(), TEAM, ()),
    (answer(add={"devops": "x"}), (*TEAM, "devops"), ()),
    (answer(leave_out={"tester": "x"}), ("orchestrator", "developer"), ()),
    (
        answer(add={"devops": "x", "sysadmin": "y"}, leave_out={"developer": "z"}),
        ("orchestrator", "tester", "devops", "sysadmin"),
        (),
    ),
    # What changes nothing is told.
    (answer(add={"tester": "x"}), TEAM, ("it names tester, which is in the team already",)),
    (answer(leave_out={"devops": "x"}), TEAM, ("it names devops, which is not in the team",)),
    (
        answer(leave_out={"orchestrator": "x"}),
        TEAM,
        ("it would leave out the orchestrator: every team keeps it",),
    ),
]


@pytest.mark.parametrize(("found", "team", "notes"), HOLDS)
def test_an_answer_changes_a_team(found: dict[str, Any], team: tuple[str, ...], notes: tuple[str, ...]) -> None:
    refined = refinements.taken(found, TEAM, ROLES)
    assert refined.of(TEAM) == team
    assert refined.notes == notes
    assert refined.summary == "It needs a host."


REFUSED = [
    (answer(add={"wizard": "x"}), r"add\[0\].role must be one of .*, not 'wizard'"),
    (answer(leave_out={"Tester": "x"}), r"leave_out\[0\].role must be one of .*, not 'Tester'"),
    (answer(add={"devops": "x"}, leave_out={"devops": "y"}), "it adds devops and leaves it out"),
    (answer(leave_out={"developer": "x", "tester": "y"}), "it leaves nobody but the orchestrator"),
    ({"summary": "x", "add": []}, "the whole has no leave_out"),
    ({**answer(), "run": "rm"}, "the whole has run, which is not known"),
    ("no", "the whole must be an object"),
    ({**answer(), "add": [{"role": "devops"}]}, r"add\[0\] has no why"),
]


@pytest.mark.parametrize(("found", "words"), REFUSED)
def test_an_answer_that_does_not_hold_is_refused(found: object, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        refinements.taken(found, TEAM, ROLES)


def test_a_reason_is_one_short_line_without_what_a_terminal_acts_on() -> None:
    refined = refinements.taken(answer(add={"devops": "a\n\x1b[31mb\x07 " + "c" * 400}), TEAM, ROLES)
    (change,) = refined.add
    assert change.why.startswith("a b ccc") and change.why.endswith("...") and len(change.why) == 300
    refined = refinements.taken(answer(add={"devops": " \n"}), TEAM, ROLES)
    assert refined.add[0].why == "no reason was given"


def test_the_shape_knows_the_roles_and_uses_only_words_that_are_checked() -> None:
    assert shapes.misfit(answer(add={"devops": "x"}), refinements.schema(["devops"])) is None
    assert shapes.misfit(answer(add={"tester": "x"}), refinements.schema(["devops"]))


RULES = [
    # Files, words, the team, who comes, who goes.
    ("pyproject.toml", "", "orchestrator,developer", ["tester", "testrunner", "project_manager"], []),
    ("pyproject.toml", "", "orchestrator,developer,tester,testrunner,project_manager", [], []),
    # No more than the usual size.
    ("pyproject.toml", "", "orchestrator,developer,researcher,code_reviewer", ["tester"], []),
    # Who has nothing to do here goes, and makes room.
    (
        "main.tf",
        "",
        "orchestrator,developer,devops",
        ["tester", "sysadmin", "securityops"],
        ["developer"],
    ),
    # The spec needs a developer.
    ("main.tf", "Implement a module.", "orchestrator,developer,devops", ["tester", "sysadmin"], []),
    ("main.tf", "Implement it.", "orchestrator,devops,sysadmin,tester,securityops", ["developer"], []),
    ("main.tf", "Implement it.", "orchestrator,devops,sysadmin,networkops", ["developer"], []),
    # Who is needed comes also into a team that is full.
    (
        "pyproject.toml",
        "A database migration.",
        "orchestrator,developer,tester,testrunner,project_manager",
        ["databaseops"],
        [],
    ),
]


@pytest.mark.parametrize(("files", "spec", "team", "add", "leave_out"), RULES)
def test_the_rules_alone(files: str, spec: str, team: str, add: list[str], leave_out: list[str]) -> None:
    suggested = choose(spec, known_roles=ROLES, types=TYPES, files=files.split(), needs=NEEDS)
    refined = refinements.by_rules(team.split(","), suggested, TYPES[suggested.kind])
    assert [one.role for one in refined.add] == add
    assert [one.role for one in refined.leave_out] == leave_out
    assert all(one.why for one in (*refined.add, *refined.leave_out))
