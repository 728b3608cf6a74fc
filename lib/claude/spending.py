"""What a line of a transcript says of what was used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lib.claude import transcripts
from lib.models import Usage
from lib.records import dataclass

_IS_USER = re.compile(rb'"type": ?"user"')
_GOES_ON = ("task-notification", "auto-continuation")
_INTERRUPTED = "[Request interrupted"
#: More than any answer has; what is larger is no count.
_MOST_TOKENS = 10**12


@dataclass(frozen=True)
class Used:
    """What a line of a transcript says of an answer of the model.

    An answer has a line for each of its parts, with one id and, in some versions, growing counts. `at` is 0 when the
    line has no time that can be read.
    """

    id: str
    at: int
    model: str
    usage: Usage
    is_fast: bool
    is_us: bool
    is_helper: bool


@dataclass(frozen=True)
class Prompted:
    """What a line of a transcript says of the beginning of a turn.

    `goes_on` is whether Claude Code itself has written the prompt, for what was begun before: a helper is done, a
    limit is over, a conversation was summarised.
    """

    id: str
    texts: tuple[str, ...]
    goes_on: bool
    is_helper: bool


@dataclass(frozen=True)
class Summarised:
    """That a conversation was summarised: Claude Code (2.1.330) keeps no entry of what asking for that has used.

    Its own sum, which it writes when it ends, holds it; until then nobody knows.
    """


def read(line: bytes) -> Used | Prompted | Summarised | None:
    """What a line of a transcript says of what was used. Raises `ValueError` for an answer that cannot be read.

    Most lines say nothing of it, and many are long: those are not parsed.
    """
    if b'"usage"' in line and b'"assistant"' in line:
        entry = _parsed(line)
        return _used(entry, line) if entry.get("type") == "assistant" else None
    # Inside of a text these marks would have other quotes.
    if b'"tool_use_id"' not in line and _IS_USER.search(line):
        entry = _parsed(line)
        return _prompted(entry) if entry.get("type") == "user" else None
    if b'"compact_boundary"' in line:
        return Summarised() if _parsed(line).get("subtype") == "compact_boundary" else None
    return None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    return entry


def _used(entry: Mapping[str, Any], line: bytes) -> Used | None:
    message = entry.get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(usage, dict):
        raise ValueError("an answer without what it has used")
    if "input_tokens" not in usage and "output_tokens" not in usage:
        raise ValueError("an answer that says what it has used in other words")
    counts = _usage(usage)
    if counts == Usage():  # an error that Claude Code shows as an answer
        return None
    # Without an id the line stands for itself.
    named = message.get("id") or entry.get("requestId") or entry.get("uuid") or line
    return Used(
        id=str(named),
        at=transcripts.written_at(entry),
        model=_plain(message.get("model")) or "unknown",
        usage=counts,
        is_fast=usage.get("speed") == "fast",
        is_us=usage.get("inference_geo") == "us",
        is_helper=entry.get("isSidechain") is True,
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    written = _count(usage.get("cache_creation_input_tokens"))
    kept, details, tools = (
        found if isinstance(found := usage.get(name), dict) else {}
        for name in ("cache_creation", "output_tokens_details", "server_tool_use")
    )
    # What is not said to be kept for an hour is kept for five minutes.
    for_an_hour = min(_count(kept.get("ephemeral_1h_input_tokens")), written)
    output = _count(usage.get("output_tokens"))
    return Usage(
        input=_count(usage.get("input_tokens")),
        output=output,
        cache_read=_count(usage.get("cache_read_input_tokens")),
        cache_write_5m=written - for_an_hour,
        cache_write_1h=for_an_hour,
        thinking=min(_count(details.get("thinking_tokens")), output),
        web_searches=_count(tools.get("web_search_requests")),
    )


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else 0


def _plain(value: object) -> str:
    """A text without what no store and no terminal takes."""
    return "".join(c for c in value if c.isprintable())[:100] if isinstance(value, str) else ""


def _prompted(entry: Mapping[str, Any]) -> Prompted | None:
    texts = tuple(transcripts.texts_in(transcripts.content_of(entry)))
    if not texts or entry.get("isMeta") is True:
        return None
    origin = entry.get("origin")
    by_itself = isinstance(origin, dict) and origin.get("kind") in _GOES_ON
    return Prompted(
        id=_plain(entry.get("promptId")),
        texts=texts,
        goes_on=by_itself or entry.get("isCompactSummary") is True or texts[0].startswith(_INTERRUPTED),
        is_helper=entry.get("isSidechain") is True,
    )
