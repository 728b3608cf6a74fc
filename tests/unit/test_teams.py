"""Choosing a team: by its roles, its type, its size and the plan, always the same way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import templates
from lib.errors import Usage
from lib.judgement.teams import DEFAULT_TYPE, PLANS, SIZES, TeamType, choose, detect

ROLES = sorted(templates.roles())
TYPES = templates.team_types()
FIGURES = templates.plans()


def team(
    *,
    spec: str = "Write a library.",
    roles: tuple[str, ...] = (),
    team_type: str | None = None,
    size: str | None = None,
    plan: str | None = None,
) -> tuple[str, ...]:
    known = {"known_roles": ROLES, "types": TYPES, "plans": FIGURES}
    return choose(spec, **known, roles=roles, team_type=team_type, size=size, plan=plan).roles  # type: ignore[arg-type]


NAMED = [
    # A list with commas, and repetition.
    (("orchestrator,developer,tester",), ("orchestrator", "developer", "tester")),
    (("orchestrator", "developer", "tester"), ("orchestrator", "developer", "tester")),
    (("orchestrator,developer", "tester"), ("orchestrator", "developer", "tester")),
    # White space and empty places.
    ((" orchestrator , developer,, ",), ("orchestrator", "developer")),
    # Twice is once.
    (("developer,developer", "developer"), ("orchestrator", "developer")),
    # Somebody has to close the work.
    (("developer",), ("orchestrator", "developer")),
    # The first windows have their order, the others that of the list.
    (
        ("devops,project_manager,testrunner,tester,developer,sysadmin,orchestrator",),
        ("orchestrator", "developer", "tester", "testrunner", "project_manager", "devops", "sysadmin"),
    ),
    # No role of the first windows but the orchestrator.
    (("orchestrator,sysadmin,devops,securityops",), ("orchestrator", "sysadmin", "devops", "securityops")),
]


@pytest.mark.parametrize(("given_roles", "roles"), NAMED)
def test_named_roles_are_the_team(given_roles: tuple[str, ...], roles: tuple[str, ...]) -> None:
    assert team(roles=given_roles) == roles
    # They win over everything else.
    assert team(roles=given_roles, team_type="system_deployment", size="small", plan="pro") == roles


ORDER = [
    # Roles go before a type, and a type before what the spec says; the smaller of size and plan cuts the team.
    ({"plan": "pro"}, 3, "code_project"),
    ({"plan": "pro", "size": "small"}, 3, "code_project"),
    ({"plan": "console", "size": "medium"}, 5, "code_project"),
    ({"plan": "console", "size": "large", "team_type": "system_deployment"}, 8, "system_deployment"),
    ({"plan": "pro", "size": "large", "team_type": "system_deployment"}, 3, "system_deployment"),
    ({"plan": "pro", "size": "small", "team_type": "system_deployment", "roles": ("tester,devops,sysadmin",)}, 4, None),
]


@pytest.mark.parametrize(("said", "count", "kind"), ORDER)
def test_who_says_more_exactly_goes_first(said: dict[str, Any], count: int, kind: str | None) -> None:
    found = choose("Write code.", known_roles=list(ROLES), types=TYPES, plans=FIGURES, **said)
    assert len(found.roles) == count
    of_kind = TYPES[kind].roles[:count] if kind else ("orchestrator", "tester", "devops", "sysadmin")
    assert set(found.roles) == set(of_kind)


REFUSED = [
    (("developr",), "developr"),
    (("orchestrator,developr,testr",), "developr, testr"),
    (("Developer",), "Developer"),
    ((",",), "none given"),
    (("",), "none given"),
]


@pytest.mark.parametrize(("given_roles", "words"), REFUSED)
def test_an_unknown_role_is_refused_with_the_valid_ones(given_roles: tuple[str, ...], words: str) -> None:
    with pytest.raises(Usage, match=words) as raised:
        team(roles=given_roles)
    assert all(role in (raised.value.hint or "") for role in ROLES)


def test_an_unknown_type_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(Usage, match="code_projekt") as raised:
        team(team_type="code_projekt")
    assert all(name in (raised.value.hint or "") for name in TYPES)


CAPPED = [
    # Nothing said: five of the type's roles.
    (None, None, ("orchestrator", "developer", "tester", "testrunner", "project_manager")),
    # A size is a number.
    ("small", None, ("orchestrator", "developer", "tester")),
    # The smaller of plan and size counts.
    (None, "pro", ("orchestrator", "developer", "tester")),
    ("large", "pro", ("orchestrator", "developer", "tester")),
    ("small", "max20", ("orchestrator", "developer", "tester")),
    ("medium", "console", ("orchestrator", "developer", "tester", "testrunner", "project_manager")),
    (
        "large",
        "max20",
        (
            *("orchestrator", "developer", "tester", "testrunner", "project_manager"),
            *("code_reviewer", "documentation_writer", "researcher"),
        ),
    ),
]


@pytest.mark.parametrize(("size", "plan", "roles"), CAPPED)
def test_size_and_plan_cap_the_team(size: str | None, plan: str | None, roles: tuple[str, ...]) -> None:
    assert team(size=size, plan=plan) == roles


def test_every_plan_that_can_be_named_has_its_figures() -> None:
    assert tuple(FIGURES) == PLANS
    assert [plan.agents for plan in FIGURES.values()] == [3, 5, 8, 10]
    assert [plan.window_hours for plan in FIGURES.values()] == [5, 5, 5, None]


@pytest.mark.parametrize("team_type", TYPES)
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("size", SIZES)
def test_a_cap_is_never_exceeded(team_type: str, plan: str, size: str) -> None:
    roles = team(team_type=team_type, plan=plan, size=size)
    assert len(roles) == min(FIGURES[plan].agents, SIZES[size], len(TYPES[team_type].roles))
    assert roles[0] == "orchestrator"
    assert len(set(roles)) == len(roles)


def test_a_type_brings_its_roles() -> None:
    chosen = {"orchestrator", "project_manager", "sysadmin", "devops", "securityops"}
    assert set(team(team_type="system_deployment")) == chosen


DETECTED = [
    # The words of one type.
    ("Set up nginx and systemd on the production host.", "system_deployment"),
    ("A React frontend with a login page.", "web_application"),
    ("An ETL pipeline into the warehouse.", "data_pipeline"),
    ("Terraform for the Kubernetes cluster.", "infrastructure_as_code"),
    # No word at all.
    ("Write a library.", DEFAULT_TYPE),
    ("", DEFAULT_TYPE),
    # As many words of two types.
    ("A dashboard for the pipeline.", DEFAULT_TYPE),
    # More words of one type than of the other.
    ("A React dashboard with a login page for the pipeline.", "web_application"),
    # A word inside another one is not that word.
    ("Reactive clustering, observer pattern.", DEFAULT_TYPE),
    # A word that comes often is one word.
    ("nginx nginx nginx, and a React frontend", "web_application"),
]


@pytest.mark.parametrize(("spec", "name"), DETECTED)
def test_the_words_of_a_spec_choose_the_type(spec: str, name: str) -> None:
    assert detect(spec, TYPES).name == name
    assert choose(spec, known_roles=ROLES, types=TYPES).reason.startswith(f"{name} by the words of the spec")


@given(st.text())
def test_the_order_of_the_types_does_not_matter(spec: str) -> None:
    names = sorted(TYPES, reverse=True)
    turned: dict[str, TeamType] = {name: TYPES[name] for name in names}
    assert choose(spec, known_roles=ROLES, types=turned) == choose(spec, known_roles=ROLES, types=TYPES)


def test_the_reason_tells_what_was_chosen() -> None:
    kind = {"team_type": "data_pipeline", "size": "large", "plan": "max5"}
    chosen = choose("x", known_roles=ROLES, types=TYPES, plans=FIGURES, **kind)  # type: ignore[arg-type]
    assert chosen.reason == "data_pipeline, large size, plan max5"
    assert choose("x", known_roles=ROLES, types=TYPES, roles=("tester",)).reason == "named by --roles"
