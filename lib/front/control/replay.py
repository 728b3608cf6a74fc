"""The verb that decides again what the daemon has decided: replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib import config, host, store
from lib.errors import ExitCode, Usage
from lib.front import cli, times
from lib.front.cli import Output
from lib.front.control import main

if TYPE_CHECKING:
    from lib.replay import Different, Replay

#: So many of those that come out otherwise are shown; --json has them all.
_SHOWN = 20


@cli.verb(
    main,
    examples="""
    claude_control.py replay
    claude_control.py replay --db copy-of-orchestrator.db --until 14:05
    claude_control.py replay --since 1d --json
    """,
)
@click.option(
    "--db",
    "path",
    type=click.Path(path_type=Path),
    metavar="COPY",
    help="A store, or a copy of one (default: the store of this machine).",
)
@click.option("--since", metavar="TIME", help=f"{times.FORMS} (default: the first decision).")
@click.option("--until", metavar="TIME", default="now", help="The same (default: now).")
@cli.pass_output
def replay(output: Output, path: Path | None, since: str | None, until: str) -> int:
    """Decide again what the daemon has decided, from what it was decided from, and compare.

    Nothing is written and nobody is told. The digest stands for all outcomes: before you update, it says whether the
    new version would have decided your past alike. It leaves with 1 when a decision comes out otherwise or an event
    lacks its decision, and with 5 when some could not be made again. docs/replay.md says which decisions are kept.
    """
    from lib import replay as room  # noqa: PLC0415 - the verbs beside this one need it not

    now = host.now_ms()
    begin, end = times.time_of(since, now=now) if since else 0, times.time_of(until, now=now)
    if begin >= end:
        raise Usage(f"--since ({times.full(begin)}) must be before --until ({times.full(end)})")
    db = store.open_copy(path or config.state_home() / "orchestrator.db")
    try:
        found = room.replay(db, since=begin, until=end)
    finally:
        db.close()
    output.answer("\n".join(_lines(found)), _data(found))
    if found.different or found.alone:
        return ExitCode.FAILED
    return ExitCode.NOT_NOW if found.not_made else ExitCode.DONE


def _lines(found: Replay) -> list[str]:
    if not found.total and not found.alone:
        return ["no decision is kept of that time"]
    lines = [f"{kind:10} {count:>7,}" for kind, count in sorted(found.counts.items())]
    lines += [f"otherwise  {_words(one)}" for one in found.different[:_SHOWN]]
    lines += [f"not made   {one.decision.kind} {one.decision.id}: {one.now}" for one in found.not_made[:_SHOWN]]
    lines += [f"alone      event {number} has no decision" for number in found.alone[:_SHOWN]]
    hidden = sum(max(0, len(one) - _SHOWN) for one in (found.different, found.not_made, found.alone))
    lines += [f"... and {hidden:,} more: --json"] if hidden else []
    return [*lines, _verdict(found), f"digest {found.digest}"]


def _words(one: Different) -> str:
    made, now = json.dumps(one.decision.made), json.dumps(one.now)
    return f"{times.full(one.decision.at)} {one.decision.kind} {one.decision.id}: it was {made}, and is {now}"


def _verdict(found: Replay) -> str:
    alike = found.total - len(found.different) - len(found.not_made)
    parts = [f"{alike:,} of {found.total:,} decisions come out the same"]
    parts += [f"{len(found.not_made):,} could not be made again"] if found.not_made else []
    parts += [f"{len(found.alone):,} events lack their decision"] if found.alone else []
    return "; ".join(parts)


def _data(found: Replay) -> dict[str, Any]:
    def told(one: Different) -> dict[str, Any]:
        return {**vars(one.decision), "now": one.now}

    return {
        "counts": found.counts,
        "different": [told(one) for one in found.different],
        "not_made": [told(one) for one in found.not_made],
        "alone": list(found.alone),
        "digest": found.digest,
    }
