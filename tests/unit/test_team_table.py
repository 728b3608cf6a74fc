"""A table of teams: files, words of the spec and options, and literally who comes and why."""

from __future__ import annotations

import re

import pytest

from lib import templates
from lib.judgement.teams import DEVELOPER, PLANS, SIZES

from .test_detection import team

#: Files, spec, options; the reason of the team; its roles after the orchestrator, each with its place among the roles
#: of the type or with the sentence that says why it is in.
TABLE: list[tuple[str, str, dict[str, object], str, str]] = [
    (
        "",
        "",
        {},
        "code_project by the words of the spec, medium size",
        "developer 2; tester 3; testrunner 4; project_manager 5",
    ),
    ("", "", {"size": "small"}, "code_project by the words of the spec, small size", "developer 2; tester 3"),
    (
        "",
        "",
        {"size": "large"},
        "code_project by the words of the spec, large size",
        "developer 2; tester 3; testrunner 4; project_manager 5; code_reviewer 6; documentation_writer 7; researcher 8",
    ),
    ("", "", {"plan": "pro"}, "code_project by the words of the spec, medium size, plan pro", "developer 2; tester 3"),
    (
        "",
        "",
        {"plan": "max20", "size": "large"},
        "code_project by the words of the spec, large size, plan max20",
        "developer 2; tester 3; testrunner 4; project_manager 5; code_reviewer 6; documentation_writer 7; researcher 8",
    ),
    ("", "", {"most": 2}, "code_project by the words of the spec, at most 2", "developer 2"),
    ("", "", {"most": 1}, "code_project by the words of the spec, at most 1", ""),
    (
        "",
        "",
        {"most": 20},
        "code_project by the words of the spec, at most 20",
        "developer 2; tester 3; testrunner 4; project_manager 5; code_reviewer 6; documentation_writer 7; researcher 8",
    ),
    (
        "pyproject.toml",
        "Implement a parser.",
        {},
        "code_project by the files of the project, medium size",
        "developer: the spec says 'implement', 'parser'; tester 3; testrunner 4; project_manager 5",
    ),
    (
        "pyproject.toml",
        "Implement a parser.",
        {"most": 2},
        "code_project by the files of the project, at most 2",
        "developer: the spec says 'implement', 'parser'",
    ),
    ("pyproject.toml", "Implement a parser.", {"most": 1}, "code_project by the files of the project, at most 1", ""),
    (
        "pyproject.toml",
        "A database migration.",
        {},
        "code_project by the files of the project, medium size",
        "developer 2; tester 3; testrunner 4; databaseops: the spec says 'database migration'",
    ),
    (
        "pyproject.toml",
        "A database migration.",
        {"size": "small"},
        "code_project by the files of the project, small size",
        "developer 2; databaseops: the spec says 'database migration'",
    ),
    (
        "pyproject.toml",
        "Fix the bug in the database migration.",
        {"size": "small"},
        "code_project by the files of the project, small size",
        "developer: the spec says 'bug'; databaseops: the spec says 'database migration'",
    ),
    (
        "pyproject.toml",
        "Find every vulnerability.",
        {},
        "code_project by the files of the project, medium size",
        "developer 2; tester 3; testrunner 4; securityops: the spec says 'vulnerability'",
    ),
    (
        "pyproject.toml",
        "A security audit of the API.",
        {"plan": "pro"},
        "code_project by the files of the project, medium size, plan pro",
        "developer: the spec says 'api'; securityops: the spec says 'security audit'",
    ),
    (
        "package.json a.csv b.csv c.csv",
        "",
        {},
        "code_project by the files of the project, medium size",
        "developer 2; tester 3; testrunner 4; project_manager 5",
    ),
    (
        "package.json a.csv b.csv c.csv",
        "",
        {"size": "small"},
        "code_project by the files of the project, small size",
        "developer 2; tester 3",
    ),
    (
        "a.csv b.csv",
        "",
        {},
        "data_pipeline by the files of the project, medium size",
        "developer 2; tester 3; testrunner 5; databaseops 4",
    ),
    (
        "a.csv b.csv",
        "Implement a parser.",
        {"most": 2},
        "data_pipeline by the files of the project, at most 2",
        "developer: the spec says 'implement', 'parser'",
    ),
    (
        "dbt_project.yml models/a.sql",
        "",
        {},
        "data_pipeline by the files of the project, medium size",
        "developer 2; tester 3; testrunner 5; databaseops 4",
    ),
    (
        "dags/a.py dags/b.py dags/c.py",
        "An ETL job.",
        {"size": "large"},
        "data_pipeline by the files of the project and the words of the spec, large size",
        "developer 2; tester 3; testrunner 5; project_manager 6; databaseops 4; devops 7; monitoringops 8",
    ),
    (
        "package.json vite.config.ts",
        "",
        {},
        "web_application by the files of the project, medium size",
        "developer 2; tester 3; testrunner 4; project_manager 5",
    ),
    (
        "package.json vite.config.ts",
        "A React page.",
        {"size": "large"},
        "web_application by the files of the project and the words of the spec, large size",
        "developer 2; tester 3; testrunner 4; project_manager 5; devops 6; code_reviewer 7; documentation_writer 8",
    ),
    (
        "",
        "A React page.",
        {"size": "small"},
        "web_application by the words of the spec, small size",
        "developer 2; tester 3",
    ),
    (
        "main.tf",
        "",
        {},
        "infrastructure_as_code by the files of the project, medium size",
        "tester 4; devops 2; sysadmin 3; securityops 5",
    ),
    (
        "main.tf",
        "",
        {"size": "small"},
        "infrastructure_as_code by the files of the project, small size",
        "devops 2; sysadmin 3",
    ),
    (
        "main.tf",
        "",
        {"size": "large"},
        "infrastructure_as_code by the files of the project, large size",
        "tester 4; devops 2; sysadmin 3; securityops 5; networkops 6; monitoringops 7; code_reviewer 8",
    ),
    (
        "main.tf",
        "Implement it.",
        {},
        "infrastructure_as_code by the files of the project, medium size",
        "developer: the spec says 'implement'; tester 4; devops 2; sysadmin 3",
    ),
    (
        "main.tf",
        "Implement it.",
        {"size": "small"},
        "infrastructure_as_code by the files of the project, small size",
        "developer: the spec says 'implement'; devops 2",
    ),
    (
        "main.tf",
        "Implement it.",
        {"most": 2},
        "infrastructure_as_code by the files of the project, at most 2",
        "developer: the spec says 'implement'",
    ),
    (
        "main.tf",
        "Implement it.",
        {"size": "large"},
        "infrastructure_as_code by the files of the project, large size",
        "developer: the spec says 'implement'; tester 4; devops 2; sysadmin 3; securityops 5; networkops 6; "
        "monitoringops 7",
    ),
    (
        "main.tf",
        "Implement it after the database migration.",
        {"size": "small"},
        "infrastructure_as_code by the files of the project, small size",
        "developer: the spec says 'implement'; databaseops: the spec says 'database migration'",
    ),
    (
        "main.tf",
        "Implement it after the database migration.",
        {"most": 2},
        "infrastructure_as_code by the files of the project, at most 2",
        "developer: the spec says 'implement'",
    ),
    (
        "app.service",
        "",
        {},
        "system_deployment by the files of the project, medium size",
        "project_manager 5; sysadmin 2; devops 3; securityops 4",
    ),
    (
        "app.service",
        "Fix the bug.",
        {},
        "system_deployment by the files of the project, medium size",
        "developer: the spec says 'bug'; sysadmin 2; devops 3; securityops 4",
    ),
    (
        "app.service",
        "Fix the bug.",
        {"plan": "pro"},
        "system_deployment by the files of the project, medium size, plan pro",
        "developer: the spec says 'bug'; sysadmin 2",
    ),
    (
        "",
        "Set up nginx.",
        {},
        "system_deployment by the words of the spec, medium size",
        "project_manager 5; sysadmin 2; devops 3; securityops 4",
    ),
    (
        "",
        "Set up nginx, then harden: hardening.",
        {"size": "small"},
        "system_deployment by the words of the spec, small size",
        "sysadmin 2; securityops: the spec says 'hardening'",
    ),
    (
        "main.tf",
        "Implement it.",
        {"team_type": "system_deployment"},
        "system_deployment, medium size",
        "project_manager 5; sysadmin 2; devops 3; securityops 4",
    ),
    (
        "main.tf",
        "Implement it.",
        {"team_type": "code_project", "size": "small"},
        "code_project, small size",
        "developer: the spec says 'implement'; tester 3",
    ),
    (
        "main.tf",
        "Implement it.",
        {"team_type": "data_pipeline", "plan": "pro", "size": "large"},
        "data_pipeline, large size, plan pro",
        "developer: the spec says 'implement'; tester 3",
    ),
    ("main.tf", "Implement it.", {"roles": ("tester",)}, "named by --roles", "tester: named by --roles"),
    (
        "main.tf",
        "Implement it.",
        {"roles": ("tester,devops",), "team_type": "code_project", "size": "small", "plan": "pro"},
        "named by --roles",
        "tester: named by --roles; devops: named by --roles",
    ),
    (
        "",
        "",
        {"team_type": "web_application", "size": "small", "plan": "max20"},
        "web_application, small size, plan max20",
        "developer 2; tester 3",
    ),
]


@pytest.mark.parametrize(("files", "spec", "options", "reason", "roles"), TABLE)
def test_who_comes_and_why(files: str, spec: str, options: dict[str, object], reason: str, roles: str) -> None:
    found = team(files, spec, **options)
    assert found.reason == reason
    assert found.roles[0] == "orchestrator"
    assert found.whys["orchestrator"] == "every team has one: it takes the reports and closes the work"
    told = "; ".join(f"{role}: {found.whys[role]}" for role in found.roles[1:])
    place = rf": number (\d) of the roles of {found.kind}, most needed first"
    assert re.sub(place, r" \1", told) == roles


CODING = "Implement it after the database migration, and do a security audit."
CAPS: list[dict[str, object]] = [
    *[dict[str, object](size=size, plan=plan) for size in SIZES for plan in PLANS],
    *[dict[str, object](most=most) for most in range(2, 9)],
]


@pytest.mark.parametrize("files", ["", "main.tf"])
@pytest.mark.parametrize("options", CAPS, ids=str)
def test_a_coding_spec_has_a_developer_under_every_cap(files: str, options: dict[str, object]) -> None:
    assert DEVELOPER in team(files, CODING, **options).roles


@pytest.mark.parametrize("manifest", ["package.json", "pyproject.toml", "Cargo.toml", "go.mod"])
@pytest.mark.parametrize("count", [3, 4, 300])
def test_data_files_never_outvote_a_manifest(manifest: str, count: int) -> None:
    assert team(" ".join([manifest, *(f"data/{number}.csv" for number in range(count))])).kind == "code_project"


def test_every_type_is_in_the_table() -> None:
    assert all(any(reason.startswith(kind) for *_, reason, _ in TABLE) for kind in templates.team_types())
    assert len(TABLE) >= 40
