"""What every door has in common: its head, its help, its options and its exit codes."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lib.front import control
from tests import doors
from tests.conftest import ROOT, Bench
from tests.doors import SHEBANG, name_of

MOST_LINES = 100
#: Doors that may be longer, since they have no room in lib/: it knows nothing of what checks it.
WITHOUT_ROOM = ("test_integration.py", "benchmarks/run.py", "tests/simulation/run.py")

PYTHON_DOORS = doors.python_doors()
SHELL_DOORS = doors.shell_doors()

#: A sentence that tells a person what to do begins with a plain verb: not with an article, not with "Runs".
NOT_IMPERATIVE = re.compile(r"^(The|A|An|This|It|All|Every|Your)\b|^\w+(s|ing)\b")


def commands() -> list[tuple[Path, tuple[str, ...]]]:
    """Every door and every verb of it, as the words that name it."""
    found: list[tuple[Path, tuple[str, ...]]] = []
    for path in PYTHON_DOORS:
        door = doors.load(path)
        found.append((path, ()))
        if isinstance(door, click.Group):
            found += [(path, (verb,)) for verb in verbs_of(door)]
    return found


def verbs_of(door: click.Group) -> dict[str, click.Command]:
    """The verbs of a door, each loaded as when it is run."""
    context = click.Context(door)
    found = {verb: door.get_command(context, verb) for verb in door.list_commands(context)}
    return {verb: command for verb, command in found.items() if command}


def command_of(path: Path, words: tuple[str, ...]) -> click.Command:
    door = doors.load(path)
    return verbs_of(door)[words[0]] if words and isinstance(door, click.Group) else door


def words_of(command: click.Command) -> list[str]:
    """One word for every argument that has to be there."""
    return ["1"] * sum(1 for one in command.params if isinstance(one, click.Argument) and one.required)


def examples_of(command: click.Command) -> list[str]:
    _, mark, text = (command.epilog or "").partition("Examples:\n")
    assert mark, f"{command.name} shows no examples"
    return [line.strip() for line in text.splitlines() if line.strip()]


def shown(value: object) -> str:
    """The id of a parameter of a test."""
    return name_of(value) if isinstance(value, Path) else " ".join(value) if isinstance(value, tuple) else ""


EVERY_DOOR = pytest.mark.parametrize("path", PYTHON_DOORS, ids=name_of)
EVERY_COMMAND = pytest.mark.parametrize(("path", "words"), commands(), ids=shown)


def test_every_python_file_at_the_root_is_a_door() -> None:
    assert sorted(ROOT.glob("*.py")) == [path for path in PYTHON_DOORS if path.parent == ROOT]
    assert {"auto_orchestrate.py", "claude_control.py", "scheduler.py"} <= {path.name for path in PYTHON_DOORS}


@EVERY_DOOR
def test_a_door_begins_with_the_shebang_and_its_dependencies(path: Path) -> None:
    up = "/".join([".."] * (len(path.relative_to(ROOT).parts) - 1)) or "."
    head = [
        re.escape(SHEBANG),
        "# /// script",
        r'# requires-python = ">=3\.11"',
        r'# dependencies = \["tmux-orchestrator(\[[a-z]+\])?"\]',
        r"# \[tool\.uv\.sources\]",
        rf'# tmux-orchestrator = \{{ path = "{re.escape(up)}", editable = true \}}',
        "# ///",
    ]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line, wanted in zip(lines, head, strict=False) if not re.fullmatch(wanted, line)] == []
    assert os.access(path, os.X_OK)


@EVERY_DOOR
def test_a_door_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and re.fullmatch(r"[A-Z].*[.:]", docstring.partition("\n")[0])
    assert text.count("\n") <= MOST_LINES or name_of(path) in WITHOUT_ROOM


@EVERY_COMMAND
def test_help_begins_with_what_to_do_and_has_examples(path: Path, words: tuple[str, ...], bench: Bench) -> None:
    command = command_of(path, words)
    sentence = (command.help or "").strip()
    assert re.match(r"[A-Z][a-z]+\b", sentence)
    assert not NOT_IMPERATIVE.match(sentence), sentence
    assert sentence.partition("\n")[0].rstrip().endswith((".", "and", ","))
    assert examples_of(command)


@EVERY_DOOR
def test_help_is_printed(path: Path, bench: Bench) -> None:
    done = bench.ok(name_of(path), "--help")
    assert done.out.startswith(f"Usage: {path.name} ")
    assert "\n  Examples:\n" in done.out
    assert done.err == ""
    assert max(map(len, done.out.splitlines())) <= 120


@EVERY_COMMAND
def test_every_example_of_the_help_is_parsed(path: Path, words: tuple[str, ...]) -> None:
    for example in examples_of(command_of(path, words)):
        found = doors.calls(example)
        assert [line.path for line in found] == [path], f"{example!r} is no example of {path.name}"
        found[0].check()
        assert found[0].words[: len(words)] == words, f"{example!r} is no example of {' '.join(words)}"


def test_every_verb_is_named_with_the_module_that_has_it() -> None:
    named = set(control.main.list_commands(click.Context(control.main)))
    for module in control.VERBS:
        importlib.import_module(f"lib.front.control.{module}")
    assert set(control.main.commands) == named
    folder = Path(control.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == {*control.VERBS, "__init__", "desk"}


@EVERY_COMMAND
@pytest.mark.parametrize("option", ["--json", "-q", "--quiet", "-v", "--verbose"])
def test_the_common_options_are_taken_before_and_after_a_verb(path: Path, words: tuple[str, ...], option: str) -> None:
    command = command_of(path, words)
    if isinstance(command, click.Group):
        verb, command = sorted(verbs_of(command).items())[0]
        words = (verb,)
    needed = words_of(command)
    doors.parse(path, [option, *words, *needed])
    doors.parse(path, [*words, option, *needed])
    doors.parse(path, [*words, *needed, option])


@EVERY_COMMAND
def test_a_short_help_option_works_everywhere(path: Path, words: tuple[str, ...]) -> None:
    doors.parse(path, [*words, "-h"])
    doors.parse(path, [*words, "--help"])


@EVERY_DOOR
def test_an_unknown_option_is_wrong_usage(path: Path, bench: Bench) -> None:
    done = bench.door(name_of(path), "--no-such-option")
    assert done.code == 2
    assert done.out == ""
    assert "--no-such-option" in done.err
    assert not bench.home.exists(), "wrong usage leaves no trace"


@EVERY_COMMAND
def test_an_unknown_option_of_a_verb_is_refused(path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(doors.Refused, match="--no-such-option"):
        doors.parse(path, [*words, "--no-such-option"])


@pytest.mark.parametrize("path", SHELL_DOORS, ids=name_of)
def test_a_shell_door_only_becomes_a_python_door(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/bin/sh"
    assert len(lines) < 10
    assert os.access(path, os.X_OK)
    code = [line for line in lines[1:] if line and not line.startswith("#")]
    assert len(code) == 1 and code[0].startswith("exec ")
    doors.parse(path, ["--help"])


def test_every_shell_script_at_the_root_is_a_door_or_a_setup() -> None:
    others = {path.name for path in ROOT.glob("*.sh")} - {path.name for path in SHELL_DOORS}
    assert others <= {"setup.sh", "config.local.sh"}
    assert "send-claude-message.sh" in {path.name for path in SHELL_DOORS}


def test_a_door_runs_from_anywhere_by_its_link(bench: Bench, tmp_path: Path) -> None:
    link = tmp_path / "send"
    link.symlink_to(ROOT / "send-claude-message.sh")
    done = subprocess.run(
        [str(link), "--help"], cwd=tmp_path, env=bench.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "send [OPTIONS] TARGET" in done.stdout


def test_a_bug_leaves_with_70_and_is_kept(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "door.py"
    script.write_text(
        "from lib.front import cli\n"
        '@cli.command(examples="")\n'
        "def main():\n"
        "    raise ZeroDivisionError('not expected')\n"
        "cli.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env=bench.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70
    assert "bug: ZeroDivisionError: not expected" in done.stderr
    assert "ZeroDivisionError: not expected" in (bench.home / "logs" / "bugs.log").read_text()
    assert "Traceback" not in done.stderr
