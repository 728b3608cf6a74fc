"""Shapes: whether a value that came as JSON is what was asked for, by the few words of JSON Schema that we use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, str]] = {
    "object": (dict, "an object"),
    "array": (list, "a list"),
    "string": (str, "text"),
    "boolean": (bool, "true or false"),
    "integer": (int, "a whole number"),
}
#: A schema with another word is a mistake of ours: what is not understood here would not be checked.
_WORDS = frozenset(
    (
        *(
            "type",
            "enum",
            "items",
            "minItems",
            "uniqueItems",
            "minLength",
            "maxLength",
            "pattern",
            "minimum",
            "maximum",
        ),
        *("properties", "required", "additionalProperties", "description", "default"),
    )
)


def misfit(value: object, schema: Schema, place: str = "") -> str | None:
    """What of a value is not as a schema says, in one sentence that names its place; None when all is."""
    assert schema.keys() <= _WORDS, f"unknown words of JSON Schema: {sorted(schema.keys() - _WORDS)}"
    kind, words = _TYPES[schema["type"]]
    name = place or "the whole"
    if type(value) is not kind:
        return f"{name} must be {words}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} must be one of {', '.join(schema['enum'])}, not {value!r}"
    if isinstance(value, list | str) and len(value) < max(schema.get("minItems", 0), schema.get("minLength", 0)):
        return f"{name} must not be empty"
    if isinstance(value, list) and schema.get("uniqueItems") and any(one in value[:at] for at, one in enumerate(value)):
        return f"{name} must not name anything twice"
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        return f"{name} must not be longer than {schema['maxLength']:,} characters"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{name} must fit {schema['pattern']}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{name} must be from {schema.get('minimum')} to {schema.get('maximum')}, not {value}"
    if isinstance(value, dict):
        for missing in (one for one in schema.get("required", ()) if one not in value):
            return f"{name} has no {missing}"
        strange = [str(one) for one in value if one not in schema["properties"]]
        if strange and schema.get("additionalProperties") is False:
            return f"{name} has {', '.join(strange)}, which is not known"
    inside = (misfit(part, shape, where) for part, shape, where in _inside(value, schema, place))
    return next((found for found in inside if found), None)


def _inside(value: object, schema: Schema, place: str) -> Iterator[tuple[object, Schema, str]]:
    if isinstance(value, dict):
        for name, shape in schema["properties"].items():
            if name in value:
                yield value[name], shape, f"{place}.{name}" if place else name
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield item, schema["items"], f"{place}[{number}]"
