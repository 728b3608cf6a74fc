"""Verbs about what teams have learned, and what related projects tell: insight, related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from lib import agents, host, insights, messages, orchestrations, relations
from lib.errors import NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import mail, main
from lib.front.control.desk import Caller, caller, ensure_scheduler
from lib.insights import Insight
from lib.models import MessageStatus
from lib.relations import Absent, Bulletin, Related

_ACTIONS = ("add", "search", "list", "remove")


@cli.verb(
    main,
    examples="""
    claude_control.py insight add "The payment API wants amounts in cents" --tags api,payments
    claude_control.py insight add "/api/v2/users replaces /api/users" --relates-to ../frontend
    claude_control.py insight search payment api --limit 5
    claude_control.py insight list --project ~/projects/webapp
    claude_control.py insight remove 3
    """,
)
@click.argument("action", metavar="|".join(_ACTIONS))
@click.argument("words", metavar="[TEXT|WORDS|ID]", nargs=-1)
@click.option("--project", metavar="PROJECT", help="A path, or a folder of PROJECTS_DIR (default: where you stand).")
@click.option("--tags", metavar="TAGS", help="With add: api,auth.")
@click.option(
    "--relates-to",
    multiple=True,
    metavar="PROJECT",
    help="With add: tell this project too, a path from the project's top or a folder beside it; can be repeated.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="With search and list (default 20).")
@cli.pass_output
def insight(
    output: Output,
    action: str,
    words: tuple[str, ...],
    project: str | None,
    tags: str | None,
    relates_to: tuple[str, ...],
    limit: int,
) -> None:
    """Keep what a team has learned for the next: add, search, list, remove.

    New teams get those that fit their spec with their briefing. Outside of a project an insight is for all projects.
    The projects that a project's own settings name (relates_to) are told of a new one at once.
    """
    if action not in _ACTIONS:
        raise Usage(f"insight takes {', '.join(_ACTIONS)}, not {action!r}", hint="claude_control.py insight --help")
    if (action != "list") != bool(words):
        raise Usage(
            f"insight {action} takes {'no words' if words else 'words'}", hint="claude_control.py insight --help"
        )
    if relates_to and action != "add":
        raise Usage(f"--relates-to goes with add, not with {action}", hint="claude_control.py insight --help")
    desk = caller()
    if action == "remove":
        me = desk.agent or agents.formerly(desk.db, desk.tmux)
        gone = insights.remove(desk.db, _id(words), caller=me, by=author(desk), now=host.now_ms())
        output.answer(f"withdrawn: {_line(gone)}", asdict(gone))
        return
    place, said = place_of(desk, project), " ".join(words)
    if action == "add":
        text, data = publish(desk, output, said, tuple(tags.split(",")) if tags else (), place, relates_to)
        output.answer(text, data)
        return
    if action == "search":
        found = insights.search(desk.db, said, project=place, limit=limit)
    else:
        found = insights.listed(desk.db, project=place, limit=limit)
    output.answer("\n".join(map(_line, found)) or "no insights", [asdict(one) for one in found])


@cli.verb(
    main,
    examples="""
    claude_control.py related
    claude_control.py related --project ~/projects/frontend --limit 5
    """,
)
@click.option("--project", metavar="PROJECT", help="A path, or a folder of PROJECTS_DIR (default: where you stand).")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="How many of the news (default 20).")
@cli.pass_output
def related(output: Output, project: str | None, limit: int) -> None:
    """Show which projects a project concerns, and what others have told it.

    Outside of any project it shows what all have told each other.
    """
    desk = caller()
    place = place_of(desk, project)
    concerned = relations.of(Path(place)) if place else Related()
    told = relations.listed(desk.db, place, limit=limit)
    lines = [f"concerns {one}" for one in concerned.projects] + list(concerned.missing)
    lines += [f"{mail.clock(one.made_at)}  {_way(desk, one)}  {one.line}" for one in told]
    data = {
        "project": place,
        "concerns": [str(one) for one in concerned.projects],
        "missing": list(concerned.missing),
        "told": [asdict(one) for one in told],
    }
    output.answer("\n".join(lines) or "nothing has been told", data)


def publish(
    desk: Caller,
    output: Output,
    text: str,
    tags: tuple[str, ...],
    place: str | None,
    relates_to: Sequence[str] = (),
) -> tuple[str, dict[str, object]]:
    """Keep an insight in the caller's name, and tell whom it concerns. Returns what to say of it, and the same as data.

    What an agent keeps for all projects comes from its own, and concerns whom that concerns. Raises as `relations.find`
    does for a name of `relates_to`, with nothing kept.
    """
    home = place or (place_of(desk, None) if desk.agent else None)
    concerned = relations.of(Path(home)) if home else Related()
    base = Path(home) if home else host.working_folder()
    named = _named(desk, relates_to, base)
    made = insights.publish(
        desk.db,
        text,
        project=place,
        tags=tags,
        author=author(desk),
        caller=desk.agent,
        concerned=[one for one in (*concerned.projects, *named.projects) if one != base],
        absent=(*concerned.absent, *named.absent),
        now=host.now_ms(),
    )
    if any(one.carrier_id for one in made.told):
        host.wake(desk.home)
        ensure_scheduler(output, desk)
    lines = [f"{'kept' if made.is_new else 'known already'}: {_line(made.insight)}"]
    lines += [f"  for {one.for_project}: {_way(desk, one)}" for one in made.told]
    untold = concerned.untold(made.told)
    lines += [f"  not told: {sentence}" for sentence in untold]
    told = [asdict(one) for one in made.told]
    data = {**asdict(made.insight), "is_new": made.is_new, "told": told, "not_told": untold}
    return "\n".join(lines), data


def _named(desk: Caller, names: Sequence[str], base: Path) -> Related:
    """The projects of these names, one that is not here only where a team of another host works on it.

    Raises as `relations.find` does.
    """
    found, absent = [], []
    for name in names:
        try:
            found.append(relations.find(name, base=base))
        except NotFound as error:
            absent.append(Absent(Path(name).name, error.sentence))
            if not relations.is_elsewhere(desk.db, absent[-1]):
                raise
    return Related(tuple(found), absent=tuple(absent))


def _way(desk: Caller, one: Bulletin) -> str:
    """How a bulletin gets to its project."""
    message = messages.get(desk.db, one.carrier_id) if one.carrier_id else None
    if message is None or message.status in (MessageStatus.CANCELLED, MessageStatus.FAILED):
        return "comes with the next briefing"
    return f"{message.kind} {message.id} to {agents.get(desk.db, message.agent_id).target}: {message.status}"


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
    return f"{one.id}  {one.where}  {one.author}{tags}  {one.quoted}"
