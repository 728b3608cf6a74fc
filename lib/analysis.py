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
from lib.config import Settings
from lib.errors import OrchestratorError, Unavailable
from lib.git import repository
from lib.judgement import analyses, cleaning
from lib.judgement.analyses import Analysis
from lib.models import Program

#: How much is sent: of the spec, of the list of files, and of the README.
_SPEC_BYTES = 60_000
_FILES_BYTES = 8_000
_README_BYTES = 6_000
_READMES = ("README.md", "README.rst", "README.txt", "README", "readme.md")


def check(settings: Settings, program: Program) -> None:
    """Raises `Unavailable` when no model is to be asked: for rehearsal agents, or when it is switched off."""
    if program is Program.REHEARSAL:
        raise Unavailable("rehearsal agents: no model is asked")
    if not settings.analysis.enabled:
        raise Unavailable("it is switched off (analysis.enabled)")


def ask(settings: Settings, home: Path, project: Path | None, spec_text: str, *, team: Sequence[str] = ()) -> Analysis:
    """Ask what a spec needs. `team` are the roles that a person has named. Raises `Unavailable` with the reason."""
    asking = headless.Asking(
        settings.claude_command, settings.analysis.model, None, settings.analysis.timeout_seconds, tools=()
    )
    asked = question(spec_text, _parts(project) if project else (), team=team)
    answer = headless.ask(asking, asked, analyses.SCHEMA, folder=home / "headless")
    return analyses.read(answer.found, templates.role_names(), cost_usd=answer.cost_usd, notes=answer.notes)


def question(spec_text: str, parts: Sequence[tuple[str, str]], *, team: Sequence[str] = ()) -> str:
    """What is asked. Every text of somebody else's stands in a frame that no text can close."""
    return templates.render(
        "analysis.md",
        # Minted after the texts were written: none of them can hold it.
        mark=f"data-{secrets.token_hex(6)}",
        spec=_data(spec_text, _SPEC_BYTES),
        parts=parts,
        roles={role.name: role.summary for role in templates.roles().values()},
        team=team,
        reads=False,
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


def record(
    db: sqlite3.Connection, orchestration_id: str, analysis: Analysis | None, why_not: str | None, *, now: int
) -> None:
    """Keep what the analysis of an orchestration has found and cost, or why there is none, in its transaction."""
    with store.writing(db):
        if analysis is None:
            if why_not:
                store.record(db, "analysis.left_out", now=now, orchestration=orchestration_id, reason=why_not)
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


def tasks_of(analysis: Analysis | None, role: str) -> tuple[str, ...]:
    """The first pieces of work of a role, for its briefing."""
    return analysis.tasks.get(role, ()) if analysis else ()


def plan_text(analysis: Analysis, team: Collection[str]) -> str:
    """The plan as the Orchestrator of a team reads it: with the tasks of all, also of roles that its team has not."""
    return templates.render("plan.md", analysis=analysis, tasks=dict(analysis.tasks), team=team).strip()
