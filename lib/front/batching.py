"""What auto_orchestrate.py does with several specs, with batch files and with new projects."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import analysis, config, host, new_projects, orchestrations, planning, store
from lib.claude import installed
from lib.config import Settings
from lib.errors import OrchestratorError, Unavailable, Usage
from lib.front import checking, fleet_queue, queueing, starting
from lib.front.cli import Output
from lib.front.starting import Request
from lib.git import worktrees
from lib.judgement.batchfile import Wanted, is_line
from lib.models import Program
from lib.new_projects import Made
from lib.queue import entries, intake
from lib.queue.intake import Ready
from lib.tmux import Tmux


def orchestrate(output: Output, home: Path, cwd: Path, request: Request) -> None:
    """Queue several specs, make a new project and launch it, or do what one spec of a project needs.

    A folder, a pattern, a second --spec, --batch and --batch-file queue; how many specs they come to is the same.
    """
    if request.check_spec:
        _refuse(request, ("resume", "status_only", "batch_file"), "--check-spec only reads specs")
        checking.check(output, cwd, request)
        return
    is_queued = _is_queued(cwd, request)
    _check_words(request, is_queued)
    if is_queued:
        _queue(output, home, cwd, request)
    elif request.new_project and not request.resume:
        _launch_new(output, home, cwd, request)
    else:
        starting.orchestrate(output, home, cwd, request)


def _is_queued(cwd: Path, request: Request) -> bool:
    if request.resume or request.status_only:
        return False
    several = len(request.specs) > 1 or any(intake.names_several(cwd, named) for named in request.specs)
    return request.batch or request.fleet or request.batch_file is not None or several


def _check_words(request: Request, is_queued: bool) -> None:
    """Raises `Usage` for options that mean nothing together."""
    if request.resume or request.status_only:
        _refuse(request, (*_NEW, *_QUEUE, "batch", "fleet", "batch_file"), "--resume goes on with what is recorded")
    elif request.batch_file is not None:
        in_file = ("specs", "project", "new_project", *_TEAM, "priority", "tags", "budget")
        _refuse(request, in_file, "with --batch-file all of it stands in the file")
    else:
        if not is_queued:
            _refuse(request, _QUEUE, "one spec is launched at once, without the queue; --batch queues it")
        if not request.fleet:
            _refuse(request, ("label",), "this machine's own queue has no labels; --fleet queues in the fleet")
        if not request.new_project:
            _refuse(request, ("force",), "only --new-project finds a folder in its way")
        elif request.project:
            raise Usage("--new-project makes a project, and --project names one: leave one of them out")
        if not request.specs and (is_queued or request.new_project):
            raise Usage("name a spec with --spec", hint='a file, a folder or a pattern: --spec "specs/*.md"')


_NEW = ("new_project", "force")
_QUEUE = ("again", "priority", "tags", "budget", "label")
_TEAM = ("roles", "add_roles", "team_type", "plan", "size", "agent", "git_mode", "no_ai")


def _refuse(request: Request, names: Sequence[str], why: str) -> None:
    nothing = Request()
    given = [name for name in names if getattr(request, name) != getattr(nothing, name)]
    if given:
        flags = [f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in given]
        raise Usage(f"{', '.join(flags)}: {why}", hint="auto_orchestrate.py --help")


_FLAGS = {"specs": "spec", "tags": "tag"}


# -- one new project --


def _launch_new(output: Output, home: Path, cwd: Path, request: Request) -> None:
    settings = config.load()
    tmux = Tmux.from_environment()
    tmux.check()
    db = store.connect(home)
    with _making(output, home, request):
        (ready,) = intake.gather(db, home, settings, cwd, _from_words(request), force=request.force)
        if request.dry_run:
            output.answer(_dry_text(db, settings, [ready], "would make and launch"), _dry_data(db, [ready])[0])
            return
        # What would keep its agents from starting is told while there is nothing to be left behind. Nobody can have
        # told Claude Code yet to trust a folder that is not there.
        trusting = dataclasses.replace(settings, trust_project=True)
        program = Program(request.agent) if request.agent else settings.agent
        installed.preflight(trusting, program, home=home, project=ready.project)
        (made,) = _make(db, home, [ready], force=request.force)
    try:
        starting.launch_spec(
            *(output, home, request),
            project=ready.project,
            spec_path=ready.spec_path,
            spec=ready.spec,
            first=_made_lines([made]),
            more=_made_data(made),
        )
    except OrchestratorError as error:
        if orchestrations.latest_in(db, made.folder) is None:
            for line in _made_lines([made]):
                output.say(line)
            again = "then the same command again: it goes on with what is made"
            error.hint = f"{error.hint}; {again}" if error.hint else again
        raise


# -- the queue --


def _queue(output: Output, home: Path, cwd: Path, request: Request) -> None:
    settings = config.load()
    wanted: Sequence[Wanted]
    if request.batch_file is not None:
        path = planning.path_of(cwd, request.batch_file).absolute()
        wanted, cwd = intake.read_batch_file(path), path.parent
    else:
        wanted = _from_words(request)
    if request.fleet:
        fleet_queue.check()
    if request.force and not any(one.new_project for one in wanted):
        raise Usage("--force: no entry of the batch file makes a new project")
    db = store.connect(home)
    with _making(output, home, request) if any(one.new_project for one in wanted) else contextlib.nullcontext():
        found = intake.gather(db, home, settings, cwd, wanted, force=request.force)
        if request.dry_run:
            output.answer(_dry_text(db, settings, found, "would queue", again=request.again), _dry_data(db, found))
            return
        made = _make(db, home, found, force=request.force)
        if request.fleet:
            first = _made_lines(made)
            fleet_queue.put(output, home, found, label=request.label, again=request.again, first=first)
            return
        added = entries.add(db, [ready.entry(again=request.again) for ready in found], now=host.now_ms())
    of_project = {one.folder: _made_data(one) for one in made}
    queueing.told(output, home, added, first=_made_lines(made), of_project=of_project)
    if waits := _not_trusted(settings, found):
        output.say(
            f"Claude Code has not been told to trust {', '.join(waits)}: run claude once in each and accept, or set"
            " trust_project: true in config.yaml; until then what is queued for it waits"
        )


def _from_words(request: Request) -> list[Wanted]:
    """What the command line asks for: the same for each of its specs."""
    options: dict[str, object] = {name: value for name in _TEAM if (value := getattr(request, name))}
    for name in ("roles", "add_roles"):
        if names := getattr(request, name):
            options[name] = [role.strip() for named in names for role in named.split(",") if role.strip()]
    if wrong := [tag for tag in request.tags if not is_line(tag)]:
        raise Usage(f"{wrong[0]!r} is no tag: a tag is one line of text")
    return [
        Wanted(
            spec=named,
            project=request.project or None,
            new_project=request.new_project,
            options=options,
            tags=request.tags,
            priority=request.priority or 0,
            budget_minutes=request.budget,
        )
        for named in request.specs
    ]


def _not_trusted(settings: Settings, found: Sequence[Ready]) -> list[str]:
    waits: dict[str, None] = {}
    for ready in found:
        program = Program(str(ready.wanted.options.get("agent", settings.agent)))
        repository = worktrees.main_worktree(ready.project)
        try:
            installed.check_trust(settings, program, repository)
        except Unavailable:
            waits[str(repository)] = None
    return list(waits)


# -- new projects --


@contextlib.contextmanager
def _making(output: Output, home: Path, request: Request) -> Iterator[None]:
    if request.dry_run:
        yield
        return
    with new_projects.making(home) as taken_back:
        for sentence in taken_back:
            output.say(sentence)
        yield


def _make(db: sqlite3.Connection, home: Path, found: Sequence[Ready], *, force: bool) -> list[Made]:
    """Make the new projects, in order. One that fails leaves those before it, and says so."""
    keep = intake.keeps(home, found)
    made: list[Made] = []
    try:
        for ready in found:
            if ready.new:
                made.append(new_projects.make(db, home, ready.new, force=force, keep=keep, now=host.now_ms()))
    except OrchestratorError as error:
        if made:
            lines = "\n  ".join(_made_lines(made))
            error.sentence += f"; nothing is queued, and what was made before it stays:\n  {lines}"
            error.hint = f"{error.hint or 'mend that'}; then the same command again: it goes on with what is made"
        raise
    return made


def _made_lines(made: Sequence[Made]) -> list[str]:
    lines = []
    for one in made:
        if one.moved_to:
            lines.append(f"moved what was {one.folder} to {one.moved_to}")
        lines.append(f"{one.folder} was made before" if one.found else f"made {one.folder}")
    return lines


def _made_data(made: Made) -> dict[str, object]:
    return {"made": not made.found, "moved_to": str(made.moved_to) if made.moved_to else None}


# -- looking only --


def _dry_text(
    db: sqlite3.Connection, settings: Settings, found: Sequence[Ready], what: str, *, again: bool = False
) -> str:
    lines = [f"{what}:"]
    for ready in found:
        same = entries.same_as(db, ready.entry(again=again))
        lines.append(f"  {ready.spec_path.name} in {'the new project ' if ready.new else ''}{ready.project}")
        if same is not None:
            lines.append(f"    is entry {same} already; --again for one more")
        lines.append(f"    team {', '.join(ready.team.roles)} ({ready.team.reason})")
    if any(_will_be_asked(settings, ready) for ready in found):
        lines.append("no model was asked: what it says of a spec at its launch may change the team (--no-ai)")
    return "\n".join([*lines, "nothing was changed"])


def _will_be_asked(settings: Settings, ready: Ready) -> bool:
    program = Program(str(ready.wanted.options.get("agent", settings.agent)))
    return analysis.left_out(settings, program, use_ai=not ready.wanted.options.get("no_ai")) is None


def _dry_data(db: sqlite3.Connection, found: Sequence[Ready]) -> list[dict[str, object]]:
    return [
        {
            "spec": str(ready.spec_path),
            "project": str(ready.project),
            "new_project": ready.new is not None,
            "worktrees": str(ready.new.worktrees) if ready.new else None,
            "entry": entries.same_as(db, ready.entry(again=False)),
            "team": list(ready.team.roles),
            "options": dict(ready.wanted.options),
            "tags": list(ready.wanted.tags),
            "priority": ready.wanted.priority,
            "budget_minutes": ready.wanted.budget_minutes,
        }
        for ready in found
    ]
