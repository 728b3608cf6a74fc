"""What auto_orchestrate.py --research does and prints: the research step alone, and nothing but JSON."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lib import config, planning, store
from lib.config import Settings
from lib.errors import ExitCode, NotFound, OrchestratorError, Usage
from lib.front import progress
from lib.front.cli import Output
from lib.front.starting import Request
from lib.judgement import cleaning, shapes, specs
from lib.models import AttemptOutcome
from lib.queue import entries, evidence, research
from lib.queue.evidence import Failure

_EXAMPLE = '{"failed_projects": [{"spec_path": "spec.md", "error_message": "timeout"}], "session_id": "research-1"}'
_TEXT = {"type": "string", "minLength": 1}
#: What is asked for. Whatever else stands in it is somebody's own.
_FORM = {
    "type": "object",
    "properties": {
        "failed_projects": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"spec_path": _TEXT, "error_message": _TEXT},
                "required": ["spec_path", "error_message"],
            },
        },
        "session_id": _TEXT,
    },
    "required": ["failed_projects"],
}


def run(output: Output, home: Path, cwd: Path, given: str, others: Request) -> int:
    """Analyse each failed project that `given` names: JSON, `@FILE` or `-` for standard input.

    Prints one JSON object. Returns the exit code: 1 when some could not be analysed. Raises `Usage` for input of
    another form, and for other options beside it.
    """
    if others != Request():
        raise Usage("--research is a step of its own: it takes no other option", hint="auto_orchestrate.py --help")
    asked = _read(given, cwd)
    session_id = asked.get("session_id", "research")
    settings, db = config.load(), store.connect(home)
    answers, seconds = [], settings.research.timeout_seconds
    for number, one in enumerate(asked["failed_projects"], 1):
        answer = {name: one[name] for name in ("spec_path", "error_message")}
        try:
            research.check(settings)
            path = _path(cwd, one["spec_path"])
            enhanced = home / "research" / specs.slug(session_id) / f"{number}-{specs.slug(path.stem)}.md"
            answer |= {"spec_path": str(path)}
            with progress.waiting(output, f"Claude Code looks into {path}, for {seconds:g} s at most"):
                found = _analyse(db, settings, home, path, one["error_message"], enhanced)
            answers.append(answer | found)
        except OrchestratorError as error:
            answers.append(answer | {"error": error.sentence, "next": error.hint})
    told = json.dumps({"session_id": session_id, "projects": answers}, indent=2, ensure_ascii=False)
    # Half of a surrogate pair, which JSON can name, stays as it was named.
    click.echo(told.encode("utf-8", "backslashreplace"))
    return ExitCode.FAILED if any("error" in one for one in answers) else ExitCode.DONE


def _read(given: str, cwd: Path) -> dict[str, Any]:
    source = {"-": "standard input"}.get(given, given[1:] if given.startswith("@") else "--research")
    try:
        if given == "-":
            given = sys.stdin.buffer.read().decode("utf-8-sig")
        elif given.startswith("@"):
            given = planning.path_of(cwd, source).read_bytes().decode("utf-8-sig")
        asked = json.loads(given)
    except OSError as error:
        raise Usage(f"{source} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Usage(f"{source}: byte {error.start} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Usage(f"{source}: {where} is not JSON: {error.msg}", hint=f"the form is {_EXAMPLE}") from None
    except RecursionError:
        raise Usage(f"{source}: it is nested too deeply", hint=f"the form is {_EXAMPLE}") from None
    if wrong := shapes.misfit(asked, _FORM):
        raise Usage(f"{source}: {wrong}", hint=f"the form is {_EXAMPLE}")
    return dict(asked)


def _path(cwd: Path, named: str) -> Path:
    try:
        return planning.path_of(cwd, named).resolve()
    except ValueError:  # JSON can hold what no name of a file can
        raise NotFound(f"no file has the name {named!r}") from None


def _analyse(
    db: sqlite3.Connection, settings: Settings, home: Path, path: Path, message: str, enhanced: Path
) -> dict[str, Any]:
    """What is found out about one failed project. Raises `OrchestratorError` when nothing is."""
    spec = planning.read_spec(path)
    failures = [*_known(db, home, path), Failure("the failure at hand", cleaning.clean(message).strip())]
    analysis = research.analyse(settings, home, spec.text, failures)
    research.write_enhanced(enhanced, spec.text, analysis, failures)
    return {**analysis.data, "enhanced_spec": str(enhanced)}


def _known(db: sqlite3.Connection, home: Path, path: Path) -> list[Failure]:
    """What the queue knows of earlier failures of this spec."""
    found = [entry for entry in entries.every(db) if entry.spec_path == path]
    if not found:
        return []
    failed = [one for one in entries.attempts(db, found[-1].id) if one.outcome is AttemptOutcome.FAILED]
    told = (evidence.of_attempt(db, home, one) for one in failed)
    return [replace(one, name=f"{one.name} in the queue") for one in told]
