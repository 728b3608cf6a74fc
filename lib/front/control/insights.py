"""Verbs about what teams have learned: insight."""

from __future__ import annotations

from dataclasses import asdict

import click

from lib import host, insights, orchestrations
from lib.errors import Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller
from lib.insights import Insight

_ACTIONS = ("add", "search", "list", "remove")


@cli.verb(
    main,
    examples="""
    claude_control.py insight add "The payment API wants amounts in cents" --tags api,payments
    claude_control.py insight search payment api --limit 5
    claude_control.py insight list --project ~/projects/webapp
    claude_control.py insight remove 3
    """,
)
@click.argument("action", metavar="|".join(_ACTIONS))
@click.argument("words", metavar="[TEXT|WORDS|ID]", nargs=-1)
@click.option("--project", metavar="PROJECT", help="A path, or a folder of PROJECTS_DIR (default: where you stand).")
@click.option("--tags", metavar="TAGS", help="With add: api,auth.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="With search and list (default 20).")
@cli.pass_output
def insight(
    output: Output, action: str, words: tuple[str, ...], project: str | None, tags: str | None, limit: int
) -> None:
    """Keep what a team has learned for the next: add, search, list, remove.

    New teams get those that fit their spec with their briefing. Outside of a project an insight is for all projects.
    """
    if action not in _ACTIONS:
        raise Usage(f"insight takes {', '.join(_ACTIONS)}, not {action!r}", hint="claude_control.py insight --help")
    if (action != "list") != bool(words):
        raise Usage(
            f"insight {action} takes {'no words' if words else 'words'}", hint="claude_control.py insight --help"
        )
    desk = caller()
    if action == "remove":
        gone = insights.remove(desk.db, _id(words), by=author(desk), now=host.now_ms())
        output.answer(f"withdrawn: {_line(gone)}", asdict(gone))
        return
    place, said = place_of(desk, project), " ".join(words)
    if action == "add":
        text, data = publish(desk, said, tuple(tags.split(",")) if tags else (), place)
        output.answer(text, data)
        return
    if action == "search":
        found = insights.search(desk.db, said, project=place, limit=limit)
    else:
        found = insights.listed(desk.db, project=place, limit=limit)
    output.answer("\n".join(map(_line, found)) or "no insights", [asdict(one) for one in found])


def publish(desk: Caller, text: str, tags: tuple[str, ...], place: str | None) -> tuple[str, dict[str, object]]:
    """Keep an insight in the caller's name. Returns what to say of it, and the same as data."""
    made, is_new = insights.add(desk.db, text, project=place, tags=tags, author=author(desk), now=host.now_ms())
    return f"{'kept' if is_new else 'known already'}: {_line(made)}", {**asdict(made), "is_new": is_new}


def author(desk: Caller) -> str:
    """Who speaks: an agent by its target."""
    return desk.agent.target if desk.agent else desk.name


def place_of(desk: Caller, named: str | None) -> str | None:
    """The project that is meant: the named one, an agent's own, or where a person stands; None outside of any."""
    if named is None and desk.agent:
        return None if desk.agent.is_guest else str(orchestrations.of_agent(desk.db, desk.agent).project)
    from lib import planning  # noqa: PLC0415 - asks git, which the other verbs need not

    cwd = host.working_folder()
    if named is not None:
        return str(planning.project_of(cwd, named))
    try:
        return str(planning.project_of(cwd, "."))
    except Usage:  # no project here: for all of them
        return None


def _id(words: tuple[str, ...]) -> int:
    if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > 18:
        raise Usage(f"insight remove takes an id, not {' '.join(words)!r}", hint="claude_control.py insight list")
    return int(words[0])


def _line(one: Insight) -> str:
    tags = f" [{', '.join(one.tags)}]" if one.tags else ""
    return f"{one.id}  {one.project or 'all projects'}  {one.author}{tags}  {one.quoted}"
