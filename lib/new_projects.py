"""New projects: a repository of its own for a spec, made whole or not at all.

It is built in a hidden folder beside its place and then renamed. What is about to happen is noted in the state home
first; a note that is found again tells what an interrupted run has left, and what has to be taken back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePath

from lib import agents, host, orchestrations
from lib.errors import Busy, OrchestratorError, Usage
from lib.git import worktrees
from lib.models import LIVE
from lib.queue import entries
from lib.records import dataclass

#: The longest name of a project in bytes: a backup's worktrees have it with 33 more, and a file system takes 255.
_LONGEST_NAME = 120


@dataclass(frozen=True)
class NewProject:
    """A repository that is to be made: its folder, and the spec that it will hold, byte for byte."""

    folder: Path
    spec_name: str
    content: bytes

    @property
    def worktrees(self) -> Path:
        return _worktrees_of(self.folder)


@dataclass(frozen=True)
class Made:
    """A project that is there now. `moved_to` is where the folder is that had its name; `found` when it was there."""

    folder: Path
    moved_to: Path | None = None
    found: bool = False


# -- deciding --


def name_of(spec_path: PurePath) -> str:
    """The name of a spec's project: that of its file, in letters, digits, `_`, `-` and `.`, beginning with neither
    of the last two (a hidden folder, an option)."""
    stem = unicodedata.normalize("NFC", spec_path.stem)
    # The marks of Indic and other scripts are parts of letters.
    name = "".join(c if c.isalnum() or c in "_-." or unicodedata.category(c)[0] == "M" else " " for c in stem)
    name = re.sub(r"-* [- ]*", "-", name.strip(" .-"))
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore").strip(".-") or "project"


def folder_for(spec_path: Path) -> Path:
    """Where the project of a spec goes: beside the repository that holds the spec, else beside the spec's folder."""
    try:
        # A linked worktree is a part of its repository: nothing of somebody else's belongs among the worktrees.
        holder = worktrees.main_worktree(worktrees.project_root(spec_path))
    except Usage:
        holder = spec_path.parent.resolve()
    if holder == holder.parent:
        raise OrchestratorError(
            f"{spec_path} lies in {holder}, which has no folder beside it", hint="move the spec into a folder"
        )
    return holder.parent / name_of(spec_path)


def check(db: sqlite3.Connection, new: NewProject, *, force: bool, keep: Sequence[Path]) -> bool:
    """Look whether a project can be made; changes nothing. Returns whether it stands already, made and not begun.

    Raises `OrchestratorError` when its name is taken, unless `force`: then what has the name must be movable, and
    hold none of `keep`. Raises `Busy` when a team works there, or an entry of the queue is to be worked there.
    """
    if _is_made(db, new):
        return True
    folder = new.folder
    if os.path.lexists(folder) and not force:
        raise OrchestratorError(
            f"{folder} exists already",
            hint=f"--force moves it to {folder.name}.backup-TIME; or give the spec another name",
        )
    if waiting := [entry for entry in entries.unfinished(db) if _is_in(entry.project, folder)]:
        raise Busy(
            f"entry {waiting[0].id} of the queue is to be worked in {folder}",
            hint=f"scheduler.py --queue-cancel {waiting[0].id}",
        )
    if os.path.lexists(folder):
        _check_movable(db, new, keep)
    moves_along = force and _own_worktrees(folder) == new.worktrees
    if not moves_along and os.path.lexists(new.worktrees) and not _is_empty_folder(new.worktrees):
        raise OrchestratorError(
            f"{new.worktrees} exists already, and the worktrees of {folder.name} would go there",
            hint=f"move {new.worktrees} away, or give the spec another name",
        )
    if not os.access(folder.parent, os.W_OK):
        raise OrchestratorError(f"{folder.parent} cannot be written", hint=f"ls -ld {folder.parent}")
    return False


def _is_made(db: sqlite3.Connection, new: NewProject) -> bool:
    """Whether exactly this project stands, was never queued, and no team has left a branch in it."""
    folder = new.folder
    return (
        _own_worktrees(folder) == new.worktrees
        and not any(entry.project == folder for entry in entries.every(db))
        and worktrees.is_untouched(folder, new.spec_name, new.content)
    )


def _check_movable(db: sqlite3.Connection, new: NewProject, keep: Sequence[Path]) -> None:
    folder = new.folder
    if held := [path for path in keep if _is_in(path, folder)]:
        raise OrchestratorError(
            f"{folder} holds {held[0]}, so that --force will not move it", hint="give the spec another name"
        )
    if not folder.is_symlink() and (folder / ".git").is_file():
        raise OrchestratorError(
            f"{folder} is a part of another repository, which would lose it", hint="give the spec another name"
        )
    for found in orchestrations.recent(db, since=0):
        team = agents.of_orchestration(db, found.id)
        places = [found.project, *(agent.worktree for agent in team)]
        if not any(_is_in(place, folder) or _is_in(place, new.worktrees) for place in places):
            continue
        if found.status in LIVE:
            raise orchestrations.already_running(found, found.project)
        if any(host.is_alive(agent.process) for agent in team):
            raise Busy(
                f"the agents of {found.session} are still there, and their work is in {folder}",
                hint=f"claude_control.py stop {found.session}",
            )
    if _is_repository(folder) and worktrees.linked(folder):
        worktrees.check_relinks()


# -- making --


@contextlib.contextmanager
def making(home: Path) -> Iterator[list[str]]:
    """Hold the right to make new projects. First takes back what an interrupted run has left; yields what that was."""
    sentence = "another command is just making new projects"
    with host.lock(home / "locks" / "new-projects.lock", wait_seconds=30, sentence=sentence):
        for draft in _notes(home).glob("*.new"):  # half a note: nothing of it was begun
            draft.unlink()
        yield [told for note in sorted(_notes(home).glob("*.json")) if (told := _take_back(note))]


def make(db: sqlite3.Connection, home: Path, new: NewProject, *, force: bool, keep: Sequence[Path], now: int) -> Made:
    """Make a project; call it inside of `making`. Raises as `check`, and leaves everything as it was when it fails."""
    if check(db, new, force=force, keep=keep):
        return Made(new.folder, found=True)
    token = secrets.token_hex(8)
    step = _Step(
        folder=new.folder,
        draft=new.folder.with_name(f".{new.folder.name}.new-{token}"),
        backup=_backup_of(new.folder, now) if os.path.lexists(new.folder) else None,
        linked=tuple(worktrees.linked(new.folder)) if _is_repository(new.folder) else (),
        own_worktrees=_own_worktrees(new.folder) == new.worktrees and new.worktrees.is_dir(),
    )
    note = _notes(home) / f"{token}.json"
    step.write(note)
    try:
        _build(step.draft, new)
        if step.backup:
            _move_away(step)
        if os.path.lexists(new.folder):
            raise OrchestratorError(f"{new.folder} has just been made by somebody else")
        step.draft.rename(new.folder)
    except (OSError, OrchestratorError) as error:
        why = error.sentence if isinstance(error, OrchestratorError) else f"{error.strerror}: {error.filename}"
        told = _take_back(note)
        raise OrchestratorError(f"{new.folder} cannot be made: {why}", hint=told if note.exists() else None) from error
    finally:
        _take_back(note)
    return Made(new.folder, moved_to=step.backup)


@dataclass(frozen=True)
class _Step:
    """What making a project is about to do. `linked` are the worktrees of the folder that is moved away, and
    `own_worktrees` says that their folder goes with it."""

    folder: Path
    draft: Path
    backup: Path | None
    linked: tuple[Path, ...]
    own_worktrees: bool

    def write(self, note: Path) -> None:
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        values = {**vars(self), "linked": [str(path) for path in self.linked]}
        draft = note.with_suffix(".new")
        draft.write_text(json.dumps(values, default=str), encoding="utf-8")
        draft.replace(note)

    @classmethod
    def read(cls, note: Path) -> _Step:
        values = json.loads(note.read_text(encoding="utf-8"))
        return cls(
            folder=Path(values["folder"]),
            draft=Path(values["draft"]),
            backup=Path(values["backup"]) if values["backup"] else None,
            linked=tuple(map(Path, values["linked"])),
            own_worktrees=values["own_worktrees"],
        )

    def moved(self, path: Path) -> Path:
        """Where a worktree is after the move."""
        assert self.backup
        pairs = [(self.folder, self.backup)]
        if self.own_worktrees:
            pairs.append((_worktrees_of(self.folder), _worktrees_of(self.backup)))
        return next((after / path.relative_to(before) for before, after in pairs if _is_in(path, before)), path)


def _build(draft: Path, new: NewProject) -> None:
    draft.mkdir()
    (draft / new.spec_name).write_bytes(new.content)
    worktrees.make_repository(draft, subject=f"The spec {new.spec_name}")
    worktrees.remember_folder(draft, new.worktrees)


def _move_away(step: _Step) -> None:
    """Move a folder to its backup, and its worktrees' folder with it. Their links are mended after each move, and
    looked at in the end."""
    assert step.backup
    step.folder.rename(step.backup)
    _relink(step.backup, [step.moved(path) for path in step.linked if _is_in(path, step.folder)], step.linked)
    if step.own_worktrees:
        place, goal = _worktrees_of(step.folder), _worktrees_of(step.backup)
        place.rename(goal)
        _relink(step.backup, [step.moved(path) for path in step.linked if _is_in(path, place)], step.linked)
        worktrees.remember_folder(step.backup, goal)
    if step.linked and not worktrees.find_each_other(step.backup, [step.moved(path) for path in step.linked]):
        raise OrchestratorError(f"git does not find the worktrees of {step.folder} again after a move")


def _take_back(note: Path) -> str | None:
    """Undo what a note tells of, unless it has come to its end, and forget it. Returns what a person should hear.

    Until the draft has become the folder, everything is put back as it was.
    """
    try:
        if not note.exists():
            return None
        step = _Step.read(note)
        if not step.folder.parent.is_dir():  # a disk that is not there now
            return f"{step.folder}: its making was interrupted, and {step.folder.parent} is not there to look at"
        told = None
        if step.draft.name.endswith(f".new-{note.stem}") and step.draft.is_dir():
            if step.backup and os.path.lexists(step.backup):
                told = _move_back(step)
            shutil.rmtree(step.draft)
            told = told or f"removed {step.draft.name}, which an interrupted run has left in {step.draft.parent}"
        note.unlink()
    except (OSError, OrchestratorError) as error:
        return f"what an interrupted run has left is not taken back ({note}): {error}"
    return told


def _move_back(step: _Step) -> str | None:
    assert step.backup
    place, goal = _worktrees_of(step.folder), _worktrees_of(step.backup)
    if os.path.lexists(step.folder):
        return f"the folder that was {step.folder} is {step.backup}: another one has its name"
    if step.own_worktrees and goal.is_dir() and not os.path.lexists(place):
        goal.rename(place)
        _relink(step.backup, [path for path in step.linked if _is_in(path, place)], step.linked)
    step.backup.rename(step.folder)
    _relink(step.folder, list(step.linked), step.linked)
    if step.own_worktrees:
        worktrees.remember_folder(step.folder, place)
    return f"moved {step.folder} back, which an interrupted run had moved to {step.backup}"


def _relink(repository: Path, moved: Sequence[Path], linked: Sequence[Path]) -> None:
    if linked:
        worktrees.relink(repository, *(path for path in moved if (path / ".git").is_file()))


# -- places --


def _notes(home: Path) -> Path:
    return home / "new-projects"


def _worktrees_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_worktrees")


def _backup_of(folder: Path, now: int) -> Path:
    """A name that nothing has, nor would its worktrees' folder find it taken."""
    stamp = datetime.fromtimestamp(now / 1000).strftime("%Y%m%d-%H%M%S")
    names = (f"{folder.name}.backup-{stamp}{f'-{number}' if number > 1 else ''}" for number in range(1, 1000))
    places = (folder.with_name(name) for name in names)
    return next(place for place in places if not any(map(os.path.lexists, (place, _worktrees_of(place)))))


def _own_worktrees(folder: Path) -> Path | None:
    """Where a project's worktrees go, when it is a repository that stands at this place itself."""
    return worktrees.folder_of(folder) if _is_repository(folder) else None


def _is_repository(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / ".git").is_dir()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _is_in(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
