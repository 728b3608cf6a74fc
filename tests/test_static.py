"""What can be said of the files without running them: style, types, shell, and no traces of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Places where packages come from. A file that names one installs from there whatever its reader has set.
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|registry\.yarnpkg|deb\.debian\.org|index-url")
#: Somebody's home. Before the slash nothing that makes it a part of a longer path or of an address.
HOMES = re.compile(r"(?<![\w.~}$-])(?:/root|/home/[a-z]\w*|/Users/[A-Za-z]\w*)(?=/)")


def project_files(pattern: str = "*") -> list[Path]:
    """The files that are in git or would be with the next `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in sorted(set(listed.split("\0"))) if name]
    return [path for path in paths if path.is_file()]


def shell_scripts() -> list[Path]:
    def is_shell(path: Path) -> bool:
        with path.open("rb") as file:
            return path.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", file.readline()) is not None

    return [path for path in project_files() if is_shell(path)]


def check(*command: str) -> None:
    """Fail with all that a checker says when it is not content."""
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        pytest.fail(f"{checked.stdout}{checked.stderr}exit {checked.returncode}", pytrace=False)


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in project_files():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    return found


def test_ruff_finds_nothing() -> None:
    check(sys.executable, "-m", "ruff", "check", ".")


def test_every_file_is_formatted() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", ".")


@pytest.mark.timeout(600)
def test_every_type_holds() -> None:
    sources = [str(path.relative_to(ROOT)) for path in project_files("*.py")]
    assert {"lib/errors.py", "test_integration.py"} <= set(sources)
    check(sys.executable, "-m", "mypy", *sources)


def test_every_shell_script_is_clean() -> None:
    scripts = [str(path.relative_to(ROOT)) for path in shell_scripts()]
    assert {"setup.sh", ".ci/run"} <= set(scripts)
    check("shellcheck", *scripts)


def test_no_file_names_a_package_registry() -> None:
    this_file = f"{Path(__file__).relative_to(ROOT)}:"
    assert [place for place in lines_with(REGISTRIES) if not place.startswith(this_file)] == []


def test_no_file_names_somebodys_home() -> None:
    assert lines_with(HOMES) == []


def test_no_file_names_the_place_of_this_checkout() -> None:
    # A checkout one level below the root has a name that ordinary text can hold, as in /src.
    if len(ROOT.parts) > 2:
        assert lines_with(re.compile(re.escape(str(ROOT)) + r"\b")) == []


def test_every_locked_package_has_its_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\S)", lock) if not entry.startswith("#")]
    assert len(entries) > 10
    assert [
        entry for entry in entries if not re.match(r"[a-z0-9.-]+==\S+", entry) or "--hash=sha256:" not in entry
    ] == []


@pytest.mark.parametrize(
    ("words", "is_home"),
    [
        (("", "home", "ada", "projects"), True),
        (("", "Users", "Ada", "projects"), True),
        (("", "root", ".cache"), True),
        (("see ", "home", "ada", "x"), True),  # in a sentence
        (("docs", "home", "index", "x"), False),  # a part of a relative path
        (("{tmp}", "home", "ada", "x"), False),  # below a folder that the program made
        (("https://example.org", "root", "x"), False),  # an address
        (("", "rooted", "x"), False),
    ],
)
def test_what_counts_as_somebodys_home(words: tuple[str, ...], is_home: bool) -> None:
    assert bool(HOMES.search("/".join(words))) is is_home
