"""Supervision: which messages to an agent only ask how its work gets on, and which are the work."""

from __future__ import annotations

import re

from lib.models import MessageKind

#: The scheduler as a sender: what it says of itself is supervision, but for the briefing.
_SCHEDULER = "scheduler"
#: A question about the state of the work is short; a longer text has something else to say as well.
_LONGEST_QUESTION = 200

_STATUS = re.compile(
    r"^\W*(?:(?:quick|just a|please|hi|hello|hey)\b\W*)*"
    r"(?:status|progress|update|eta)(?: (?:check|report|update|please))*\W*$"
    r"|\b(?:status|progress) (?:update|report|check)\b"
    r"|\b(?:what|how)(?:'s| is| are)\b.{0,40}\b(?:status|progress|eta)\b"
    r"|\b(?:your|the|current) (?:status|progress)\s*\?"
    r"|\bhow (?:far|much longer|close)\b.{0,60}\?"
    r"|\bhow (?:is|are) (?:it|you|things|the work|that)\b.{0,40}\b(?:going|doing|coming)\b"
    r"|\bwhat(?:'s| is) (?:left|still open|remaining)\b.{0,40}\?"
    r"|\bare you (?:still|stuck|blocked|done|there|alive|ok|okay)\b.{0,60}\?"
    r"|\bwhat are you (?:doing|working on)\b",
    re.IGNORECASE,
)


def is_supervision(kind: MessageKind, sender: str, body: str) -> bool:
    """Whether a turn that a message begins is supervision. What cannot be told is work.

    Check-ins, what the scheduler asks and tells by itself, and a teammate's bare question how it goes. A digest is
    judged by what it carries.
    """
    if kind is MessageKind.CHECK_IN:
        return True
    if kind is MessageKind.BRIEFING:
        return False
    if sender == _SCHEDULER:
        return True
    return kind is MessageKind.MESSAGE and is_status_question(body)


def is_status_question(body: str) -> bool:
    """Whether a text only asks how the work gets on. English only: in another language it is work."""
    return len(body) <= _LONGEST_QUESTION and _STATUS.search(body) is not None
