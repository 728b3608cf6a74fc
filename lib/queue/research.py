"""Research: why earlier attempts of a spec have failed, and what the next one should know.

What is asked is made of texts by agents and programs: they are cleaned, bounded, and framed as what they are. What
comes back is checked, and becomes part of a spec; nothing of it is ever run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import agents, cleaning, headless, history, orchestrations, templates, worktrees
from lib.config import Settings
from lib.errors import OrchestratorError, Unavailable
from lib.models import Attempt, AttemptOutcome, Program, QueueEntry
from lib.planning import Stage
from lib.queue import entries, evidence

CATEGORIES = ("spec", "environment", "team", "limit", "tool", "unknown")
_TEXT = {"type": "string"}
_LIST = {"type": "array", "items": _TEXT}
#: The shape of an answer, as `claude --json-schema` takes it.
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

#: How much of each kind of evidence is sent; its end, where the failure is.
_SPEC_CHARACTERS = 60_000
_SCREEN_CHARACTERS = 4_000
_HISTORY_CHARACTERS = 8_000
_LOG_CHARACTERS = 4_000
#: Of all attempts together: the newest come first.
_ALL_CHARACTERS = 60_000


@dataclass(frozen=True)
class Story:
    """What is known of a failed attempt. `screens` and `logs` are by role."""

    number: int
    reason: str
    history: str
    screens: Mapping[str, str]
    logs: Mapping[str, str]

    @property
    def size(self) -> int:
        texts = [self.reason, self.history, *self.screens.values(), *self.logs.values()]
        return sum(map(len, texts))


def before_attempt(db: sqlite3.Connection, stage: Stage, entry: QueueEntry, attempt: Attempt, *, now: int) -> Attempt:
    """Analyse the failures before an attempt and give it an enhanced spec; without an answer it keeps the original.

    The enhanced spec is always made from the original. A kill in between asks again and writes the same file.
    """
    failed = [one for one in entries.attempts(db, entry.id) if one.outcome is AttemptOutcome.FAILED]
    if not failed:
        return attempt
    if why_not := _why_not(entry, stage.settings):
        return entries.note_research(db, attempt, {"why_not": why_not}, None, now=now)
    stories = [_story(db, stage.home, one) for one in failed]
    try:
        found = analyse(stage.settings, entry.spec_text, stories, home=stage.home)
    except Unavailable as error:
        return entries.note_research(db, attempt, {"why_not": error.sentence}, None, now=now)
    path = evidence.folder(stage.home, attempt) / entry.spec_path.name
    write_enhanced(path, entry.spec_text, found, failures=[one.reason or "" for one in failed])
    return entries.note_research(db, attempt, found, path, now=now)


def _why_not(entry: QueueEntry, settings: Settings) -> str | None:
    """Why nothing is asked; None when something is."""
    if not settings.research.enabled:
        return "research is off (research.enabled)"
    program = str(entry.options.get("agent") or settings.agent)
    return "its agents rehearse: no model is asked" if program == Program.REHEARSAL else None


def analyse(settings: Settings, spec_text: str, stories: Sequence[Story], *, home: Path) -> dict[str, Any]:
    """Ask why attempts at a spec have failed. Returns an answer of `SCHEMA`. Raises `Unavailable` with the reason."""
    told: list[Story] = []
    for story in reversed(stories):
        if told and sum(one.size for one in told) + story.size > _ALL_CHARACTERS:
            break
        told.insert(0, story)
    prompt = templates.render(
        "research.md", spec=_bounded(spec_text, _SPEC_CHARACTERS), stories=told, left_out=len(stories) - len(told)
    )
    return checked(headless.ask(settings, prompt, SCHEMA, folder=home / "queue" / "research"))


def checked(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer whose shape is that of `SCHEMA`, its texts cleaned. Raises `Unavailable` for another one."""
    found: dict[str, Any] = {}
    for name, shape in SCHEMA["properties"].items():
        value = answer.get(name)
        match shape["type"]:
            case "string" if isinstance(value, str) and value.strip() and value in shape.get("enum", (value,)):
                found[name] = cleaning.clean(value).strip()
            case "boolean" if isinstance(value, bool):
                found[name] = value
            case "array" if isinstance(value, list) and all(isinstance(item, str) for item in value):
                found[name] = [text for item in value if (text := cleaning.clean(item).strip())]
            case _:
                raise Unavailable(f"Claude Code's answer has no valid {name}")
    return found


def write_enhanced(path: Path, original: str, found: Mapping[str, Any], *, failures: Sequence[str]) -> None:
    """Write the original spec, verbatim and once, with what was found out after it; whole or not at all."""
    text = templates.render("enhanced_spec.md", spec=original, failures=failures, **found)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text, encoding="utf-8", newline="")
    draft.replace(path)


# -- evidence --


def _story(db: sqlite3.Connection, home: Path, attempt: Attempt) -> Story:
    told = [history.sentence(db, event) for event in evidence.history(db, attempt)]
    return Story(
        number=attempt.number,
        reason=_bounded(attempt.reason or "unknown", _LOG_CHARACTERS),
        history=_bounded("\n".join(sentence for sentence in told if sentence), _HISTORY_CHARACTERS),
        screens={role: _bounded(text, _SCREEN_CHARACTERS) for role, text in evidence.screens(home, attempt).items()},
        logs=_logs(db, attempt),
    )


def _logs(db: sqlite3.Connection, attempt: Attempt) -> dict[str, str]:
    """What each role of an attempt has committed; what cannot be looked at says so."""
    if attempt.orchestration_id is None:
        return {}
    found = orchestrations.get(db, attempt.orchestration_id)
    logs = {}
    for agent in agents.of_orchestration(db, found.id):
        try:
            text = worktrees.log_since(found.project, agent.branch, found.starting_commit)
        except OrchestratorError as error:
            text = f"(could not be looked at: {error.sentence})"
        if text.strip():
            logs[agent.role] = _bounded(text, _LOG_CHARACTERS)
    return logs


def _bounded(text: str, longest: int) -> str:
    text = cleaning.clean(text)
    return text if len(text) <= longest else f"[the beginning is left out]\n{text[-longest:]}"
