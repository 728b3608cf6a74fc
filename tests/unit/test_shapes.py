"""Values that came as JSON, against the words of JSON Schema that we use."""

from __future__ import annotations

import pytest

from lib.judgement.shapes import Schema, misfit

MISFITS: list[tuple[Schema, object, str | None]] = [
    # A whole number within its bounds, at its bounds, and beyond.
    ({"type": "integer", "minimum": 1, "maximum": 3}, 2, None),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 3, None),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 4, "x must be from 1 to 3, not 4"),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 0, "x must be from 1 to 3, not 0"),
    # True is no number, and a number is no text.
    ({"type": "integer"}, True, "x must be a whole number"),
    ({"type": "integer"}, 1.5, "x must be a whole number"),
    ({"type": "string"}, 1, "x must be text"),
    # A text that is too long, that does not fit, and that does.
    ({"type": "string", "maxLength": 3}, "four", "x must not be longer than 3 characters"),
    ({"type": "string", "maxLength": 4}, "four", None),
    ({"type": "string", "pattern": "^a"}, "ba", "x must fit ^a"),
    ({"type": "string", "pattern": "^a"}, "ab", None),
    # A list that names something twice.
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2, 1], "x must not name anything twice"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], None),
    ({"type": "array", "items": {"type": "integer"}}, [1, 1], None),
]


@pytest.mark.parametrize(("schema", "value", "words"), MISFITS)
def test_a_misfit_is_named(schema: Schema, value: object, words: str | None) -> None:
    assert misfit(value, schema, "x") == words


def test_a_word_that_is_not_understood_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="multipleOf"):
        misfit(2, {"type": "integer", "multipleOf": 2})
