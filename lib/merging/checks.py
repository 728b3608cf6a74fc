"""Which command checks a project: the one that it names, else the tests that its files tell of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lib import commands
from lib.commands import Ran
from lib.config import PROJECT_FILE, ProjectSettings
from lib.records import dataclass

#: How much of a red check's output is kept, and told to its author.
LOG_BYTES = 4_000
#: pytest's word for "there is no test": the tests that were detected may not be written yet.
_NO_TESTS = 5
_FILES = ("pytest.ini", "pyproject.toml", "setup.cfg", "package.json", "Cargo.toml", "go.mod", "Makefile", "makefile")


@dataclass(frozen=True)
class Facts:
    """What a checkout's files tell: the texts of some at its top, whether it has tests and installed packages."""

    texts: dict[str, str]
    has_python_tests: bool = False
    has_node_modules: bool = False


@dataclass(frozen=True)
class Choice:
    """The command that checks, and why this one; None when there is none. `well` are the exit codes of success."""

    command: str | None
    why: str
    well: tuple[int, ...] = (0,)


def choose(settings: ProjectSettings, facts: Facts, is_installed: Callable[[str], bool]) -> Choice:
    """Decide on the command. One that the project names is taken as it is."""
    if settings.check is not None:
        return Choice(settings.check, f"{PROJECT_FILE} names it")
    lacking = []
    for choice, program, lack in _detected(facts):
        if lack:
            lacking.append(lack)
        elif is_installed(program):
            return choice
        else:
            lacking.append(f"{program} is not installed ({choice.why})")
    return Choice(None, "; ".join(lacking) or f"no tests were found; name a command with `check:` in {PROJECT_FILE}")


def _detected(facts: Facts) -> Sequence[tuple[Choice, str, str | None]]:
    """What the files tell of, the surest first: the command, its program, and what else it lacks."""
    found: list[tuple[Choice, str, str | None]] = []
    if why := _pytest(facts):
        found.append((Choice("pytest -q", why, (0, _NO_TESTS)), "pytest", None))
    if package := _npm(facts):
        needs = {**_entries(package, "dependencies"), **_entries(package, "devDependencies")}
        lack = "npm test needs packages: name `setup:` commands, such as npm ci, in " + PROJECT_FILE
        found.append(
            (
                Choice("npm test", "package.json has a test script"),
                "npm",
                lack if needs and not facts.has_node_modules else None,
            )
        )
    if "Cargo.toml" in facts.texts:
        found.append((Choice("cargo test", "there is a Cargo.toml"), "cargo", None))
    if "go.mod" in facts.texts:
        found.append((Choice("go test ./...", "there is a go.mod"), "go", None))
    for name in ("Makefile", "makefile"):
        if re.search(r"^test\s*:(?!=)", facts.texts.get(name, ""), re.MULTILINE):
            found.append((Choice("make test", f"{name} has a target test"), "make", None))
    return found


def _pytest(facts: Facts) -> str | None:
    if "pytest.ini" in facts.texts:
        return "there is a pytest.ini"
    named = [name for name in ("pyproject.toml", "setup.cfg") if "pytest" in facts.texts.get(name, "")]
    if named:
        return f"{named[0]} names pytest"
    return "tests/ holds tests of Python" if facts.has_python_tests else None


def _npm(facts: Facts) -> dict[str, object] | None:
    try:
        package = json.loads(facts.texts.get("package.json", ""))
    except ValueError:
        return None
    script = _entries(package, "scripts").get("test") if isinstance(package, dict) else None
    # What `npm init` writes is no test: it says so and fails.
    return package if isinstance(script, str) and script and "no test specified" not in script else None


def _entries(package: dict[str, object], name: str) -> dict[str, object]:
    found = package.get(name)
    return found if isinstance(found, dict) else {}


# -- with a checkout --


def look(folder: Path) -> Facts:
    """What the files of a checkout tell."""
    texts = {}
    for name in _FILES:
        if (folder / name).is_file():
            texts[name] = (folder / name).read_text(encoding="utf-8", errors="replace")
    tests = folder / "tests"
    has_tests = tests.is_dir() and any(True for pattern in ("test_*.py", "*_test.py") for _ in tests.rglob(pattern))
    return Facts(texts, has_tests, (folder / "node_modules").is_dir())


@dataclass(frozen=True)
class Verdict:
    """What a check says of a checkout; `ran` is None when nothing was there to run, for the reason `why`.

    A guess is one whose command was detected, and not named by the project.
    """

    is_green: bool
    why: str
    ran: Ran | None = None
    is_guess: bool = False


def weigh(verdict: Verdict, without: Callable[[], Verdict]) -> Verdict:
    """What a verdict says of somebody's work: a guess that is red `without` it too says nothing, and blocks nobody."""
    if verdict.is_green or not verdict.is_guess or without().is_green:
        return verdict
    return Verdict(True, f"{verdict.why}, without this work too; name a check with `check:` in {PROJECT_FILE}")


def run(folder: Path, settings: ProjectSettings) -> Verdict:
    """Check a checkout: the project's setup commands first, then the command that is chosen for it."""
    environment = {"CI": "true"}  # test runners that would watch for changes run once
    is_needed = settings.check is not None or _detected(look(folder))
    for command in settings.setup if is_needed else ():
        seconds = settings.setup_timeout_seconds
        ran = commands.run(command, folder, seconds=seconds, environment=environment, output_bytes=LOG_BYTES)
        if ran.exit_code:
            return Verdict(False, f"the setup `{command}` left with {ran.exit_code}", ran)
    choice = choose(settings, look(folder), lambda program: commands.find(program) is not None)
    if choice.command is None:
        return Verdict(True, choice.why)
    seconds = settings.check_timeout_seconds
    ran = commands.run(choice.command, folder, seconds=seconds, environment=environment, output_bytes=LOG_BYTES)
    why = f"`{choice.command}` left with {ran.exit_code}"
    return Verdict(ran.exit_code in choice.well, why, ran, is_guess=settings.check is None)
