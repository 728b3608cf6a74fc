"""sync_coordinator.py: its verbs, a module for each kind of them."""

from __future__ import annotations

from lib.front import cli


@cli.group(
    examples="""
    sync_coordinator.py merge webapp-impl --dry-run
    sync_coordinator.py snapshots webapp-impl
    sync_coordinator.py restore developer/20300131T080000Z
    sync_coordinator.py clean
    """
)
def main() -> None:
    """Keep what worktrees hold, and bring it together."""


from lib.front.syncing import clean, merge, snapshots, together, watching  # noqa: E402 - the verbs register themselves with `main`

__all__ = ["clean", "main", "merge", "snapshots", "together", "watching"]
