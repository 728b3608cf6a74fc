"""Which command checks a project: a table of what its files tell."""

from __future__ import annotations

import pytest

from lib.config import ProjectSettings
from lib.merging.checks import Facts, choose

ALL = ("pytest", "npm", "cargo", "go", "make")
REACT = '{"scripts": {"test": "jest"}, "devDependencies": {"jest": "30"}}'
PLAIN = '{"scripts": {"test": "node --test"}}'

DETECTED = [
    # Nothing tells of tests.
    ({}, None, "no tests were found"),
    ({"pytest.ini": ""}, "pytest -q", "there is a pytest.ini"),
    ({"pyproject.toml": "[tool.pytest.ini_options]"}, "pytest -q", "pyproject.toml names pytest"),
    ({"setup.cfg": "[tool:pytest]"}, "pytest -q", "setup.cfg names pytest"),
    # A project of Python without tests.
    ({"pyproject.toml": "[project]"}, None, "no tests were found"),
    ({"package.json": PLAIN}, "npm test", "package.json has a test script"),
    # What `npm init` writes says that there is none, and fails.
    ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'}, None, "no tests"),
    ({"package.json": '{"scripts": {}}'}, None, "no tests"),
    # Not JSON, and JSON of another shape.
    ({"package.json": "{"}, None, "no tests"),
    ({"package.json": "[]"}, None, "no tests"),
    ({"package.json": '{"scripts": {"test": 1}}'}, None, "no tests"),
    # Its packages are not in the scratch worktree: it would be red for everybody.
    ({"package.json": REACT}, None, "npm test needs packages"),
    ({"Cargo.toml": ""}, "cargo test", "there is a Cargo.toml"),
    ({"go.mod": ""}, "go test ./...", "there is a go.mod"),
    ({"Makefile": "all:\n\ttrue\ntest: all\n\ttrue\n"}, "make test", "Makefile has a target test"),
    ({"makefile": "test :\n\ttrue\n"}, "make test", "makefile has a target test"),
    # Variables and other targets are none.
    ({"Makefile": "test := yes\ntests:\n\ttrue\nmy-test:\n"}, None, "no tests"),
    # The surest comes first.
    ({"Makefile": "test:\n", "Cargo.toml": "", "pytest.ini": ""}, "pytest -q", "there is a pytest.ini"),
]


@pytest.mark.parametrize(("texts", "command", "why"), DETECTED)
def test_files_tell_how_a_project_is_checked(texts: dict[str, str], command: str | None, why: str) -> None:
    found = choose(ProjectSettings(), Facts(texts), ALL.__contains__)
    assert found.command == command
    assert why in found.why


def test_what_the_project_names_comes_before_all_that_is_found() -> None:
    found = choose(ProjectSettings(check="make check"), Facts({"pytest.ini": ""}), lambda _: False)
    assert (found.command, found.well) == ("make check", (0,))


def test_a_program_that_is_not_installed_leaves_the_next() -> None:
    facts = Facts({"pytest.ini": "", "Makefile": "test:\n"})
    assert choose(ProjectSettings(), facts, lambda program: program == "make").command == "make test"
    found = choose(ProjectSettings(), facts, lambda _: False)
    assert found.command is None
    assert found.why == (
        "pytest is not installed (there is a pytest.ini); make is not installed (Makefile has a target test)"
    )


def test_no_test_yet_is_no_failure_of_tests_that_were_detected() -> None:
    assert choose(ProjectSettings(), Facts({}, has_python_tests=True), ALL.__contains__).well == (0, 5)


def test_packages_that_are_there_are_enough() -> None:
    facts = Facts({"package.json": REACT}, has_node_modules=True)
    assert choose(ProjectSettings(), facts, ALL.__contains__).command == "npm test"
