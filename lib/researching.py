"""What auto_orchestrate.py --research does and prints: the research step alone, and nothing but JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lib import config, planning, specs
from lib.config import Settings
from lib.errors import ExitCode, OrchestratorError, Usage
from lib.queue import research

_FORM = '{"failed_projects": [{"spec_path": "spec.md", "error_message": "timeout"}], "session_id": "any-name"}'


def run(home: Path, cwd: Path, given: str) -> int:
    """Analyse each failed project that `given` names: JSON, `@FILE` or `-` for standard input.

    Prints one JSON object. Returns the exit code: 1 when some could not be analysed. Raises `Usage` for input of
    another form.
    """
    request = _read(given, cwd)
    settings = config.load()
    answers = [_analyse(settings, home, cwd, one, number) for number, one in enumerate(request["failed_projects"], 1)]
    answer = {"session_id": request.get("session_id"), "projects": answers}
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    return ExitCode.FAILED if any("error" in one for one in answers) else ExitCode.DONE


def _read(given: str, cwd: Path) -> dict[str, Any]:
    try:
        if given == "-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            given = (cwd / Path(given[1:]).expanduser()).read_text(encoding="utf-8")
        request = json.loads(given)
    except OSError as error:
        raise Usage(f"{given[1:]} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"{given[1:]} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise Usage(f"line {error.lineno}, column {error.colno} is no JSON: {error.msg}", hint=_FORM) from None
    projects = request.get("failed_projects") if isinstance(request, dict) else None
    if not isinstance(projects, list) or not projects:
        raise Usage("failed_projects must be a list with an entry for each failure", hint=_FORM)
    for number, one in enumerate(projects, 1):
        for name in ("spec_path", "error_message"):
            if not isinstance(one, dict) or not isinstance(one.get(name), str) or not one[name].strip():
                raise Usage(f"failed_projects, entry {number}: {name} must be text", hint=_FORM)
    return dict(request)


def _analyse(settings: Settings, home: Path, cwd: Path, one: Mapping[str, Any], number: int) -> dict[str, Any]:
    path = (cwd / Path(one["spec_path"]).expanduser()).resolve()
    answer: dict[str, Any] = {"spec_path": str(path), "error_message": one["error_message"]}
    try:
        spec = planning.read_spec(path)
        story = research.Story(1, one["error_message"], "", {}, {})
        found = research.analyse(settings, spec.text, [story], home=home)
        enhanced = home / "queue" / "research" / f"{number}-{specs.slug(path.stem)}-{spec.digest}.md"
        research.write_enhanced(enhanced, spec.text, found, failures=[one["error_message"]])
    except OrchestratorError as error:
        return {**answer, "error": error.sentence, "next": error.hint}
    return {**answer, **found, "enhanced_spec": str(enhanced)}
