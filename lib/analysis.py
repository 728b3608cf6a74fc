"""The analysis of a spec before a launch: asked of Claude Code without a window, and kept with its orchestration.

What is asked holds texts of other people: they are cleaned, bounded, and framed as what they are. What comes back is
checked, and chooses roles and words; nothing of it is ever run.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path

from lib import headless, store, templates
from lib.claude import installed
from lib.config import Settings
from lib.errors import OrchestratorError, Unavailable
from lib.git import repository
from lib.judgement import analyses, cleaning
from lib.judgement.analyses import Analysis
from lib.models import Program
from lib.records import dataclass

#: How much is sent: of the spec, of the list of files, and of the README.
_SPEC_BYTES = 60_000
_FILES_BYTES = 8_000
_README_BYTES = 6_000
_READMES = ("README.md", "README.rst", "README.txt", "README", "readme.md")

#: The user's own command that makes Claude Code know a project.
_PRIMER = "context-prime"


@dataclass(frozen=True)
class Asked:
    """What came of an analysis before a launch: what was found, or why nothing was.

    `failure` is the reason when a model was to be asked, `left_out` when none was.
    """

    found: Analysis | None = None
    failure: str | None = None
    left_out: str | None = None

    @property
    def why_not(self) -> str | None:
        """Why there is none."""
        return self.failure or self.left_out


def for_launch(
    settings: Settings,
    home: Path,
    *,
    project: Path,
    spec_text: str,
    team: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Asked:
    """Ask before a launch, and never stand in its way: what fails is an answer too."""
    try:
        return Asked(ask(settings, home, project, spec_text, team=team, also=also))
    except OrchestratorError as error:
        return Asked(failure=error.sentence)
    except OSError as error:
        return Asked(failure=f"{error.filename or home}: {error.strerror}")


def left_out(settings: Settings, program: Program, *, use_ai: bool = True) -> str | None:
    """Why no model is to be asked before a launch; None when one is."""
    if not use_ai:
        return "--no-ai"
    try:
        check(settings, program)
    except Unavailable as error:
        return error.sentence
    return None


def check(settings: Settings, program: Program) -> None:
    """Raises `Unavailable` when no model is to be asked: for rehearsal agents, or when it is switched off."""
    if program is Program.REHEARSAL:
        raise Unavailable("rehearsal agents: no model is asked")
    if not settings.analysis.enabled:
        raise Unavailable("it is switched off (analysis.enabled)")


def ask(
    settings: Settings,
    home: Path,
    project: Path,
    spec_text: str,
    *,
    team: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Analysis:
    """Ask what a spec needs. `team` are the roles that a person has named, `also` those that come to the others.

    Raises `Unavailable` with the reason.
    """
    primed, trouble = _primer()
    asking = headless.Asking(
        settings.claude_command,
        settings.analysis.model,
        None,
        settings.analysis.timeout_seconds,
        tools=headless.READING if primed else (),
        primer=primed,
    )
    asked = question(spec_text, _parts(project), team=team, also=also, reads=bool(primed))
    answer = headless.ask(asking, asked, analyses.SCHEMA, folder=project if primed else home / "headless")
    notes = [*answer.notes, *([trouble] if trouble else [])]
    return analyses.read(answer.found, templates.role_names(), cost_usd=answer.cost_usd, notes=notes)


def _primer() -> tuple[str | None, str | None]:
    """The user's command that primes Claude Code for a project, if it can be used; and why it cannot."""
    path = installed.config_dir() / "commands" / f"{_PRIMER}.md"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"asked without /{_PRIMER}: {path} cannot be read ({error.strerror})"
    if "!`" in text or "```!" in text:
        return None, f"asked without /{_PRIMER}: it runs shell commands, and here nothing may run"
    return _PRIMER, None


def question(
    spec_text: str,
    parts: Sequence[tuple[str, str]],
    *,
    team: Sequence[str] = (),
    also: Sequence[str] = (),
    reads: bool = False,
) -> str:
    """What is asked. Every text of somebody else's stands in a frame that no text can close."""
    return templates.render(
        "analysis.md",
        # Minted after the texts were written: none of them can hold it.
        mark=f"data-{secrets.token_hex(6)}",
        spec=_data(spec_text, _SPEC_BYTES),
        parts=parts,
        roles={role.name: role.summary for role in templates.roles().values()},
        team=team,
        also=also,
        reads=reads,
    )


def _parts(project: Path) -> list[tuple[str, str]]:
    """What a question tells of a project: its tracked files, and how its README begins."""
    try:
        files = repository.tracked_files(project)
    except OrchestratorError:  # what is not known of a project is left out
        return []
    parts = [("the tracked files of the project", _data("\n".join(files), _FILES_BYTES))] if files else []
    if name := next((one for one in _READMES if one in files), None):
        # As committed: a file in the checkout may be a link to anywhere.
        read = repository.run(project, "cat-file", "blob", f"HEAD:{name}")
        if not read.returncode and read.stdout.strip():
            parts.append((f"the beginning of {name}", _data(read.stdout[:_README_BYTES], _README_BYTES)))
    return parts


def _data(text: str, most_bytes: int) -> str:
    return cleaning.shortened(cleaning.clean(text).strip(), most_bytes)


# -- kept with the orchestration --


def record(db: sqlite3.Connection, orchestration_id: str, asked: Asked, *, now: int) -> None:
    """Keep what the analysis of an orchestration has found and cost, or why it has failed, in its transaction."""
    analysis = asked.found
    with store.writing(db):
        if asked.failure:
            store.record(db, "analysis.failed", now=now, orchestration=orchestration_id, reason=asked.failure)
        if analysis is None:
            return
        db.execute(
            "INSERT INTO analyses (orchestration_id, found, cost_usd, at) VALUES (?, ?, ?, ?)",
            (orchestration_id, json.dumps(analysis.data), analysis.cost_usd, now),
        )
        store.record(
            db,
            "analysis.made",
            now=now,
            orchestration=orchestration_id,
            summary=analysis.summary,
            cost_usd=analysis.cost_usd,
        )


def of(db: sqlite3.Connection, orchestration_id: str) -> Analysis | None:
    """What the analysis before an orchestration has found; None when there was none."""
    row = db.execute("SELECT found FROM analyses WHERE orchestration_id = ?", (orchestration_id,)).fetchone()
    return analyses.of_data(json.loads(row["found"])) if row else None


def cost(db: sqlite3.Connection, *, orchestration: str | None = None, since: int = 0) -> float:
    """What analyses have cost in US dollars, as Claude Code said it: of an orchestration, or of all."""
    row = db.execute(
        "SELECT coalesce(sum(cost_usd), 0.0) FROM analyses WHERE (?1 IS NULL OR orchestration_id = ?1) AND at >= ?2",
        (orchestration, since),
    ).fetchone()
    return float(row[0])


def tasks_of(analysis: Analysis | None, role: str) -> tuple[str, ...]:
    """The first pieces of work of a role, for its briefing."""
    return analysis.tasks.get(role, ()) if analysis else ()


def plan_text(analysis: Analysis, team: Collection[str]) -> str:
    """The plan as the Orchestrator of a team reads it: with the tasks of all, also of roles that its team has not."""
    return templates.render("plan.md", analysis=analysis, tasks=dict(analysis.tasks), team=team).strip()
