"""Guarding: which refs a policy opens to a role, beyond its own branch and the integration branch."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from lib.errors import OrchestratorError
from lib.judgement.routing import ANYBODY
from lib.records import dataclass

#: A pattern of refs: whole names from refs/ on, with * for any part. No git takes a space in a ref.
_PATTERN = re.compile(r"refs/[^\s\x00-\x1f\x7f\[\\]+")
_KEYS = ("role", "refs", "force")


@dataclass(frozen=True)
class Opening:
    """Refs that a role (or any, *) may make, move, delete and push to; with `force` also against git's own care."""

    role: str
    refs: tuple[str, ...]
    force: bool = False


@dataclass(frozen=True)
class Opened:
    """The patterns of refs that are open to one role."""

    free: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


def opened(openings: Collection[Opening], role: str) -> Opened:
    """What is open to a role."""
    mine = [one for one in openings if one.role in (ANYBODY, role)]
    return Opened(
        free=tuple(ref for one in mine if not one.force for ref in one.refs),
        forced=tuple(ref for one in mine if one.force for ref in one.refs),
    )


def parse(entries: Any, *, roles: Collection[str]) -> tuple[Opening, ...]:
    """The openings of a policy, from what stands under its `git:`. Raises `OrchestratorError` naming what is wrong."""
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise OrchestratorError("`git` must be a list")
    return tuple(_opening(f"entry {number} of `git`", entry, roles) for number, entry in enumerate(entries, 1))


def _opening(which: str, entry: Any, roles: Collection[str]) -> Opening:
    hint = f"an entry has {', '.join(_KEYS)}"
    if not isinstance(entry, Mapping):
        raise OrchestratorError(f"{which} must hold `role:` and `refs:`", hint=hint)
    if wrong := [str(key) for key in entry if key not in _KEYS]:
        raise OrchestratorError(f"{which} has an unknown key {wrong[0]!r}", hint=hint)
    role, refs, force = entry.get("role"), entry.get("refs"), entry.get("force", False)
    if role not in (ANYBODY, *roles):
        raise OrchestratorError(
            f"{which} names an unknown role {role!r}", hint=f"roles: {ANYBODY}, {', '.join(sorted(roles))}"
        )
    if not isinstance(force, bool):
        raise OrchestratorError(f"{which}: force must be true or false")
    if not isinstance(refs, list) or not refs:
        raise OrchestratorError(f"{which}: refs must be a list of names such as refs/heads/deploy/*")
    if strange := [str(ref) for ref in refs if not isinstance(ref, str) or not _PATTERN.fullmatch(ref)]:
        raise OrchestratorError(f"{which}: {strange[0]!r} is no name of refs", hint="such as refs/heads/deploy/*")
    return Opening(role, tuple(refs), force)
