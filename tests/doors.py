"""Doors seen from outside: which there are, and how a command line is parsed by one without being run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from tests.conftest import ROOT

SHEBANG = "#!/usr/bin/env -S uv run --quiet --script"

#: A shell door is one line that becomes a Python door: $(dirname "$(readlink -f "$0")")/NAME WORDS "$@"
_EXEC = re.compile(
    r'^exec "\$\(dirname "\$\(readlink -f "\$0"\)"\)/(?P<door>[\w./-]+)"(?P<words>.*) "\$@"$', re.MULTILINE
)
_OPTIONS_OF_A_CASE = re.compile(r"^\s*(?P<names>-[\w-]+(?:\s*\|\s*-[\w-]+)*)\)", re.MULTILINE)


@dataclass(frozen=True)
class Refused(Exception):
    """A command line that a door does not take, in the door's own words."""

    words: str


def python_doors() -> list[Path]:
    """Every script with uv's shebang, at the root and one folder below; of the tests also in their rings."""
    paths = sorted([*ROOT.glob("*.py"), *ROOT.glob("[!.]*/*.py"), *ROOT.glob("tests/*/*.py")])
    return [path for path in paths if path.read_bytes().startswith(b"#!")]


def shell_doors() -> list[Path]:
    """Every shell script that stands for a Python door."""
    paths = sorted([*ROOT.glob("*.sh"), *ROOT.glob("[!.]*/*.sh")])
    return [path for path in paths if _EXEC.search(path.read_text(encoding="utf-8"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def load(path: Path) -> click.Command:
    """The click command of a Python door, by importing it and calling nothing."""
    name = f"door_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    command = module.main
    assert isinstance(command, click.Command)
    return command


def parse(path: Path, words: Sequence[str]) -> None:
    """Have a script parse its words. Raises `Refused`; nothing of the script's body runs."""
    if path.suffix == ".py":
        _parse_click(load(path), path.name, list(words))
        return
    text = path.read_text(encoding="utf-8")
    if found := _EXEC.search(text):
        parse((path.parent / found["door"]).resolve(), [*shlex.split(found["words"]), *words])
    else:
        _parse_shell(path, text, words)


def _parse_click(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    try:
        with command.make_context(name, words, parent=parent) as context:
            if isinstance(command, click.Group):
                rest = [*context._protected_args, *context.args]
                verb_name, verb, left = command.resolve_command(context, rest)
                assert verb is not None
                _parse_click(verb, verb_name or "", left, context)
    except click.exceptions.Exit as left_early:  # --help has printed and is done
        if left_early.exit_code:
            raise Refused(f"{name} leaves with {left_early.exit_code}") from None
    except click.UsageError as error:
        raise Refused(f"{name}: {error.format_message()}") from None


def _parse_shell(path: Path, text: str, words: Sequence[str]) -> None:
    known = {name.strip() for found in _OPTIONS_OF_A_CASE.finditer(text) for name in found["names"].split("|")}
    unknown = [word for word in words if word.startswith("-") and word not in known]
    if unknown:
        raise Refused(f"{path.name} has no option {unknown[0]}")


@dataclass(frozen=True)
class Line:
    """One call of a script in a line of shell: its path as it was written, and its words."""

    script: str
    words: tuple[str, ...]

    @property
    def path(self) -> Path:
        return (ROOT / self.script).resolve()

    def check(self) -> None:
        """Raises `Refused` when the script is not there or does not take the words."""
        if not self.path.is_file():
            raise Refused(f"there is no {self.script}")
        parse(self.path, self.words)


def calls(line: str) -> list[Line]:
    """The calls of scripts in a line of shell: what follows `sudo`, `uv run` and variables, up to `|`, `>` and `&`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if set(word) <= set("();<>|&"):
            redirected = word.startswith((">", "<"))
            if not redirected:
                commands.append([])
        elif redirected:
            redirected = False
        else:
            commands[-1].append(word)
    return [found for command in commands if (found := _call(command))]


def _call(command: list[str]) -> Line | None:
    words = list(command)
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("sudo", "nohup", "time")):
        del words[0]
    if words[:2] == ["uv", "run"]:
        del words[:2]
    if not words or not re.fullmatch(r"(\./|\w+/)*[\w-]+\.(py|sh)", words[0]):
        return None
    return Line(words[0].removeprefix("./"), tuple(words[1:]))
