"""The way into the queue: batch files, folders and patterns become specs that are read and checked, all of them
before anything is made or queued."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import config, new_projects, planning
from lib.config import Settings
from lib.errors import NotFound, OrchestratorError, Usage, together
from lib.git import worktrees
from lib.judgement import batchfile, specs, teams
from lib.judgement.batchfile import Wanted
from lib.new_projects import NewProject
from lib.queue import entries
from lib.records import dataclass

#: More is no batch file.
_LONGEST_FILE = 1_000_000


@dataclass(frozen=True)
class Ready:
    """A spec that was read and checked, with the team that it would get. `new` is the project that is to be made."""

    wanted: Wanted
    spec_path: Path
    spec: specs.Spec
    project: Path
    team: teams.Team
    new: NewProject | None

    def entry(self, *, again: bool) -> entries.NewEntry:
        """What is queued of it. A new project has nothing behind it: what its namesake came to does not count."""
        return entries.NewEntry(
            spec_path=self.spec_path.resolve(),
            spec_text=self.spec.text,
            project=self.project,
            options=self.wanted.options,
            tags=self.wanted.tags,
            priority=self.wanted.priority,
            budget_minutes=self.wanted.budget_minutes,
            again=again or self.new is not None,
        )


# -- a batch file --


def read_batch_file(path: Path) -> tuple[Wanted, ...]:
    """What a batch file asks for, in its order. Raises `NotFound` or `OrchestratorError` naming what is wrong."""
    try:
        if not path.exists():
            raise NotFound(f"no batch file at {path}")
        if not path.is_file():  # a pipe would be waited for
            raise OrchestratorError(f"the batch file {path} is not a file")
        if path.stat().st_size > _LONGEST_FILE:
            raise OrchestratorError(f"the batch file {path} has more than {_LONGEST_FILE:,} bytes")
        content = _json(path) if path.suffix.lower() == ".json" else config.read_yaml(path)
    except OSError as error:
        raise OrchestratorError(f"the batch file {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise OrchestratorError(f"the batch file {path} is nested too deeply") from None
    return batchfile.parse(content, str(path))


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise OrchestratorError(f"{path} is not valid JSON: it is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise OrchestratorError(f"{path} is not valid JSON in line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits
        raise OrchestratorError(f"{path} is not valid JSON: {error}") from None


# -- folders and patterns --


def names_several(cwd: Path, named: str) -> bool:
    """Whether a person has named a folder or a pattern of specs, and not one file; how many it holds is the same."""
    place = planning.path_of(cwd, named)
    return place.is_dir() or (glob.has_magic(named) and not os.path.lexists(place))


def files_of(cwd: Path, named: str) -> list[Path]:
    """The spec files that a person names: a file, a folder (its *.md files) or a pattern, sorted by name.

    Hidden files are left out, and a README unless it is named as such. Raises `NotFound` when there is none.
    """
    place = planning.path_of(cwd, named)
    if not names_several(cwd, named):
        return [place.absolute()]
    try:
        found = _in_folder(place) if place.is_dir() else _by_pattern(cwd, named)
    except OSError as error:
        raise OrchestratorError(f"{error.filename or place} cannot be read: {error.strerror}") from None
    taken = [path for path in found if path.name.lower() != "readme.md" or Path(named).name.lower() == "readme.md"]
    if not taken:
        left_out = f"; {found[0].name} is left out" if found else ""
        if place.is_dir():
            hint = "its specs are the *.md files in it; hidden ones and a README are none"
            raise NotFound(f"no spec in the folder {place}{left_out}", hint=hint)
        raise NotFound(f"no spec matches {named}{left_out}", hint="a pattern is seen from the folder where you are")
    return taken


def _in_folder(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".md" and not path.name.startswith(".")]
    return sorted(path.absolute() for path in found if not path.is_dir())


def _by_pattern(cwd: Path, named: str) -> list[Path]:
    parts = Path(named).parts
    if named.startswith("~"):
        root, pattern = planning.path_of(cwd, parts[0]), Path(*parts[1:])
    elif Path(named).is_absolute():
        root, pattern = Path(parts[0]), Path(*parts[1:])
    else:
        root, pattern = cwd, Path(named)
    firm = root.joinpath(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    if firm.is_dir():
        os.scandir(firm).close()  # glob itself says nothing of a folder that may not be read
    matches = glob.glob(str(pattern), root_dir=root, recursive=True)  # noqa: PTH207 - pathlib's takes hidden files
    found = [root / match for match in matches]
    return sorted(path.absolute() for path in found if not path.is_dir())


# -- checking --


def gather(
    db: sqlite3.Connection, home: Path, settings: Settings, cwd: Path, wanted: Sequence[Wanted], *, force: bool
) -> tuple[Ready, ...]:
    """Read and check all that is wanted, in its order; a spec that is named twice for one project is one.

    `cwd` is where relative paths are seen from, `force` allows the move of what has a new project's name. Changes
    nothing. Raises one error with all that is wrong.
    """
    problems: list[OrchestratorError] = []
    found: list[Ready] = []
    for one in wanted:
        try:
            paths = _files(cwd, one)
        except OrchestratorError as error:
            problems.append(_of_entry(one, error))
            continue
        for path in paths:
            try:
                ready = _ready(settings, cwd, one, path)
                if _is_new(ready, found):
                    found.append(ready)
            except OrchestratorError as error:
                problems.append(_of_entry(one, error))
    keep = keeps(home, found)
    for ready in found:
        try:
            if ready.new:
                new_projects.check(db, ready.new, force=force, keep=keep)
        except OrchestratorError as error:
            problems.append(_of_entry(ready.wanted, error))
    if problems:
        raise together(problems, "nothing is queued or made, because")
    return tuple(found)


def keeps(home: Path, found: Sequence[Ready]) -> list[Path]:
    """What no folder that is moved away may hold: the specs, the state home, this checkout."""
    return [*(ready.spec_path.resolve() for ready in found), home.resolve(), config.ROOT]


def _files(cwd: Path, one: Wanted) -> list[Path]:
    if not batchfile.is_line(one.spec):  # such as an unset variable of a shell: it would be the folder itself
        raise Usage(f"{one.spec!r} is no spec")
    return files_of(cwd, one.spec)


def _ready(settings: Settings, cwd: Path, one: Wanted, path: Path) -> Ready:
    content = planning.spec_content(path)
    spec = specs.parse(content, path)
    if one.new_project:
        project = new_projects.folder_for(path)
    elif one.project is not None:
        project = planning.project_of(cwd, one.project)
    else:
        project = worktrees.project_root(path)
    planning.check_names(path.resolve(), path, project)
    team = _team(settings, spec.text, one, None if one.new_project else project)
    if not one.new_project:
        planning.check_project(project)
    new = NewProject(project, path.name, content) if one.new_project else None
    return Ready(one, path, spec, project, team, new)


def _team(settings: Settings, text: str, one: Wanted, project: Path | None) -> teams.Team:
    values: dict[str, Any] = dict(one.options)
    return planning.choose_team(
        settings,
        text,
        project,
        roles=values.get("roles", ()),
        team_type=values.get("team_type"),
        size=values.get("size"),
        team_plan=values.get("plan"),
        add_roles=values.get("add_roles", ()),
    )


def _is_new(ready: Ready, found: Sequence[Ready]) -> bool:
    """Whether a spec is not among the ones before it. Raises `OrchestratorError` when it would be in one's way."""
    for other in found:
        if (other.spec_path.resolve(), other.project) == (ready.spec_path.resolve(), ready.project):
            if dataclasses.replace(other.wanted, spec="", number=None) != dataclasses.replace(
                ready.wanted, spec="", number=None
            ):
                raise OrchestratorError(f"{ready.spec_path} is named twice for {ready.project}, with different options")
            return False
        if not (ready.new and other.new):
            continue
        # Some file systems take big and small letters for the same.
        names = [str(path).casefold() for path in (ready.project, ready.new.worktrees)]
        if {str(other.project).casefold(), str(other.new.worktrees).casefold()} & set(names):
            raise OrchestratorError(
                f"{other.spec_path} and {ready.spec_path} would both make {ready.project}", hint="rename one of them"
            )
    return True


def _of_entry(one: Wanted, error: OrchestratorError) -> OrchestratorError:
    if one.number is None:
        return error
    kind = OrchestratorError if isinstance(error, Usage) else type(error)  # the command line is right
    return kind(f"entry {one.number}: {error.sentence}", hint=error.hint)
