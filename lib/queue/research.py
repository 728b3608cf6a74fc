"""Research: why earlier attempts of a spec have failed, and what the next one should know.

What is asked is made of texts by agents and programs: they are cleaned, bounded, and framed as what they are. What
comes back is checked, and becomes part of a spec; nothing of it is ever run.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import headless, planning, templates
from lib.config import Settings, config_path
from lib.errors import NotFound, Unavailable
from lib.judgement import cleaning
from lib.models import Attempt, AttemptOutcome, Program, QueueEntry
from lib.planning import Stage
from lib.queue import entries, evidence
from lib.queue.evidence import Failure
from lib.records import dataclass

CATEGORIES = ("spec", "environment", "team", "limit", "tool", "unknown")
_TEXT = {"type": "string", "minLength": 1}
_LIST = {"type": "array", "items": {"type": "string"}}
#: The shape of an answer.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": _TEXT,
        "root_cause": _TEXT,
        "category": {"type": "string", "enum": list(CATEGORIES)},
        "evidence": _LIST,
        "advice": _LIST,
        "questions_for_person": _LIST,
        "worth_retrying": {"type": "boolean"},
    },
    "required": ["summary", "root_cause", "category", "evidence", "advice", "questions_for_person", "worth_retrying"],
    "additionalProperties": False,
}

#: How much is sent: of the spec, and in all.
_SPEC_BYTES = 20_000
_MOST_BYTES = 60_000
#: How much of an answer becomes part of a spec: of one text, and how many of a list.
_TEXT_BYTES = 2_000
_MOST_ITEMS = 20
#: A spec that is shorter may well stand in an answer by chance.
_SHORT_SPEC = 40


@dataclass(frozen=True)
class Analysis:
    """An answer of `SCHEMA`, its texts cleaned and bounded; what it cost, and what did not work on the way."""

    found: dict[str, Any]
    cost_usd: float | None
    notes: tuple[str, ...]

    @property
    def data(self) -> dict[str, Any]:
        return {**self.found, "cost_usd": self.cost_usd, "notes": list(self.notes)}


def before_attempt(db: sqlite3.Connection, stage: Stage, entry: QueueEntry, attempt: Attempt, *, now: int) -> Attempt:
    """Analyse the failures before an attempt and give it an enhanced spec; without an answer it keeps the original.

    The enhanced spec is always made from the original. Killed in between, it asks again and writes the same file.
    """
    failed = [one for one in entries.attempts(db, entry.id) if one.outcome is AttemptOutcome.FAILED]
    if not failed:
        return attempt
    path = evidence.folder(stage.home, attempt) / f"{_stem(entry.spec_path)}.md"
    try:
        check(stage.settings, agent=entry.options.get("agent"), unasked=True)
        failures = [evidence.of_attempt(db, stage.home, one) for one in failed]
        analysis = analyse(stage.settings, stage.home, entry.spec_text, failures)
        write_enhanced(path, entry.spec_text, analysis, failures)
    except (Unavailable, NotFound) as error:
        return entries.note_research(db, attempt, {"why_not": error.sentence}, None, now=now)
    return entries.note_research(db, attempt, analysis.data, path, now=now)


def check(settings: Settings, *, agent: object = None, unasked: bool = False) -> None:
    """Raises `Unavailable` when no model is to be asked: for rehearsal agents, or `unasked` when research is off."""
    if str(agent or settings.agent) == Program.REHEARSAL:
        raise Unavailable("rehearsal agents: no model is asked")
    if unasked and not settings.research.enabled:
        raise Unavailable("it is switched off (research.enabled)")


def analyse(settings: Settings, home: Path, spec_text: str, failures: Sequence[Failure]) -> Analysis:
    """Ask why the attempts at a spec have failed. Raises `Unavailable` with the reason."""
    research = settings.research
    # Seen from the file that names it.
    servers = planning.path_of(config_path().parent, research.mcp_config) if research.mcp_config else None
    asking = headless.Asking(settings.claude_command, research.model, servers, research.timeout_seconds)
    answer = headless.ask(asking, question(spec_text, failures), SCHEMA, folder=home / "headless")
    found = taken(answer.found, spec_text)
    return Analysis(found, answer.cost_usd, tuple(_line(note, spec_text) for note in answer.notes))


def question(spec_text: str, failures: Sequence[Failure]) -> str:
    """What is asked. Every text of somebody else's stands in a frame that no text can close."""
    spec = cleaning.shortened(cleaning.clean(spec_text), _SPEC_BYTES)
    kept = evidence.bounded(failures, _MOST_BYTES - len(spec.encode()))
    # Minted after the texts were written: none of them can hold it.
    return templates.render("research.md", mark=f"data-{secrets.token_hex(6)}", spec=spec, failures=kept)


def taken(found: Mapping[str, Any], spec_text: str) -> dict[str, Any]:
    """An answer as it may stand below a spec: cleaned, bounded, and without that spec's own text a second time."""
    kept = dict(found)
    for name, value in found.items():
        if isinstance(value, str):
            kept[name] = _text(value, spec_text)
        elif isinstance(value, list):
            texts = (_text(item, spec_text) for item in value)
            kept[name] = [text for text in texts if text][:_MOST_ITEMS]
    return kept


def _text(text: str, spec_text: str) -> str:
    whole = spec_text.strip()
    if len(whole) >= _SHORT_SPEC:
        text = text.replace(whole, "[the spec]")
    return cleaning.shortened(cleaning.clean(text).strip(), _TEXT_BYTES)


def _line(text: str, spec_text: str) -> str:
    return " ".join(_text(text, spec_text).split())


# -- the enhanced spec --


def write_enhanced(path: Path, original: str, analysis: Analysis, failures: Sequence[Failure]) -> None:
    """Write the original spec, verbatim and once, and the analysis below it; whole or not at all.

    Raises `Unavailable` when it cannot be written.
    """
    content = enhanced(original, analysis, failures).encode()
    draft = path.with_name("enhanced.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise Unavailable(f"the enhanced spec {path} cannot be written: {error.strerror}") from error


def enhanced(original: str, analysis: Analysis, failures: Sequence[Failure]) -> str:
    """The text of an enhanced spec. It begins with the original, byte for byte."""
    reasons = [(one.name, cleaning.shortened(_line(one.reason, original), 500)) for one in failures]
    return templates.render(
        "enhanced_spec.md", spec=original, size=len(original.encode()), reasons=reasons, **analysis.found
    )


def _stem(path: Path) -> str:
    """A spec's name without its ending, and short enough to be given another one."""
    return path.stem[:60]
