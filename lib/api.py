"""Anthropic's API without Claude Code: one question, one answer in a given shape, by the official SDK.

The key is ANTHROPIC_API_KEY, and another address is ANTHROPIC_BASE_URL: the SDK reads both. It is the only room that
imports the SDK, which is an extra of the doors that ask.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from lib import host, templates
from lib.errors import Unavailable
from lib.headless import Answer
from lib.judgement import prices, shapes
from lib.models import Sort, Usage
from lib.records import dataclass

if TYPE_CHECKING:
    from anthropic.types import Message

KEY = "ANTHROPIC_API_KEY"
#: The API takes no short names such as `sonnet`.
DEFAULT_MODEL = "claude-sonnet-5-5"
#: An answer is a few sentences; what the model thinks counts too.
_MOST_TOKENS = 8_000


@dataclass(frozen=True)
class Asking:
    """How to ask: the model, and how long it may take."""

    model: str = DEFAULT_MODEL
    seconds: float = 300.0


def has_key() -> bool:
    """Whether there is a key to ask with."""
    return bool(os.environ.get(KEY))


def ask(asking: Asking, prompt: str, schema: shapes.Schema) -> Answer:
    """Ask the API one question. Raises `Unavailable` with the reason when there is no answer of the shape.

    It is asked once: a person stands there, and a second try would take the time twice.
    """
    if not has_key():
        raise Unavailable(f"there is no key for Anthropic's API: {KEY} is not set")
    import anthropic  # noqa: PLC0415 - a second, which only a question to the API pays

    try:
        with anthropic.Anthropic(max_retries=0, timeout=asking.seconds) as client:
            message = client.messages.create(
                model=asking.model,
                max_tokens=_MOST_TOKENS,
                messages=[{"role": "user", "content": prompt}],
                output_config={"format": {"type": "json_schema", "schema": dict(schema)}},
            )
    except anthropic.APITimeoutError:
        raise Unavailable(f"Anthropic's API has not answered within {asking.seconds:g} s") from None
    except anthropic.APIStatusError as error:
        raise Unavailable(f"Anthropic's API refuses with {error.status_code}: {_words(error.body)}") from None
    except anthropic.APIConnectionError as error:
        raise Unavailable(f"Anthropic's API cannot be reached: {error.__cause__ or error}") from None
    except (anthropic.AnthropicError, UnicodeError) as error:  # such as a key that no header can hold
        raise Unavailable(f"Anthropic's API could not be asked: {type(error).__name__}") from None
    return Answer(_found(message, schema), _cost(message), ())


def _words(body: object) -> str:
    """What an error says: the API's own words, or nothing of a page that a proxy has sent."""
    inner = body.get("error") if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    return " ".join(str(said or "it does not say why").split())[:300]


def _found(message: Message, schema: shapes.Schema) -> dict[str, Any]:
    if message.stop_reason == "refusal":
        raise Unavailable("Claude refuses to answer this")
    if message.stop_reason == "max_tokens":
        raise Unavailable(f"Claude's answer is cut off: it is longer than {_MOST_TOKENS} tokens")
    text = "".join(part.text for part in message.content if part.type == "text")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Unavailable("Claude's answer has not the shape that was asked for: it is not JSON") from None
    if wrong := shapes.misfit(found, schema):
        raise Unavailable(f"Claude's answer has not the shape that was asked for: {wrong}")
    assert isinstance(found, dict)
    return found


def _cost(message: Message) -> float | None:
    """What an answer has cost by the list of prices; None for a model that it does not have."""
    sort = Sort(prices.plain_name(message.model), host.now_ms())
    price = templates.price_list().find(sort)
    used = Usage(input=message.usage.input_tokens, output=message.usage.output_tokens)
    return price.of(sort, used) if price else None
