"""What hosts write for one another: fields in JSON, with the version that wrote them and the oldest that can read them.

A fleet is upgraded host by host, so two neighbouring versions read each other: a new version adds fields that the one
before may ignore, and stops writing a field only one version after it has stopped needing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lib.errors import OrchestratorError

#: The version that is written here.
VERSION = 1
#: The oldest version whose readers understand what is written here.
READABLE_SINCE = 1


class Unreadable(OrchestratorError):
    """What another host wrote cannot be read by this version, or by any."""


def pack(fields: Mapping[str, object], *, version: int = VERSION, readable_since: int = READABLE_SINCE) -> bytes:
    """Fields as an envelope; `v` and `min` are its own."""
    return json.dumps({**fields, "v": version, "min": readable_since}, separators=(",", ":")).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """The fields of an envelope with its `v`. Raises `Unreadable` for one that is too new, too old, or none."""
    fields = _object(data)
    version = fields.get("v")
    if type(version) is not int:
        raise Unreadable("it is not what a host of a fleet writes")
    least = fields.pop("min", version)
    if type(least) is not int or least > VERSION:
        raise Unreadable(
            f"another host writes version {version}, and this one reads up to {VERSION}",
            hint="upgrade the Tmux Orchestrator on this machine",
        )
    if version < VERSION - 1:
        raise Unreadable(
            f"another host writes version {version}, and this one reads from {VERSION - 1}",
            hint="upgrade the Tmux Orchestrator on the other machine",
        )
    return fields


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
