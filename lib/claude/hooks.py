"""What Claude Code's hooks say."""

from __future__ import annotations

import json

from lib.records import dataclass

#: Events whose payloads are read. An event name that the installed version does not know opens a blocking
#: dialog at its start, so the list holds only what every supported version has.
EVENTS = ("SessionStart", "UserPromptSubmit", "Stop", "StopFailure", "Notification", "SessionEnd")


@dataclass(frozen=True)
class HookReport:
    """One hook payload: which event, of which conversation, with the texts that matter here."""

    event: str
    conversation_id: str
    prompt: str
    error: str
    last_message: str
    source: str
    notification: str


def report(payload: bytes) -> HookReport | None:
    """Read one hook payload; None when it is none (cut off, or of a foreign shape)."""
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("hook_event_name"), str):
        return None

    def text(name: str) -> str:
        value = values.get(name)
        # JSON can name half of a surrogate pair, which no store and no terminal takes.
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""

    return HookReport(
        event=text("hook_event_name"),
        conversation_id=text("session_id"),
        prompt=text("prompt"),
        error=text("error"),
        last_message=text("last_assistant_message"),
        source=text("source"),
        notification=text("notification_type"),
    )
