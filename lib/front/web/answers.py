"""Answers of the API: any value of ours as JSON, and what went wrong in the words of a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response


def as_json(data: object) -> bytes:
    """Any value of ours as one line of JSON; half a surrogate pair, which JSON can name, becomes a question mark."""
    return json.dumps(data, ensure_ascii=False, default=str, separators=(",", ":")).encode("utf-8", "replace")


def answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of the API."""
    return Response(as_json(data) + b"\n", status, headers, mimetype="application/json")


def trouble(status: int, sentence: str, hint: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """What went wrong, in the same words as on a command line."""
    error: dict[str, Any] = {"sentence": sentence, "hint": hint}
    return answer({"error": error}, status, headers)
