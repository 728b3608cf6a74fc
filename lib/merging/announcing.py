"""Announcing: what other projects are told of a delivery, in the words of git's log."""

from __future__ import annotations

import shlex

from lib import templates
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.git.worktrees import Commit
from lib.judgement.cleaning import quoted
from lib.models import Orchestration
from lib.records import dataclass
from lib.relations import Change

_MOST_COMMITS = 10
_MOST_FILES = 15
_GIT_SECONDS = 30.0


@dataclass(frozen=True)
class _Gain:
    """What a branch has won; `trouble` is why git could not be asked for it."""

    commits: tuple[Commit, ...] = ()
    files: tuple[str, ...] = ()
    trouble: str = ""


def change(found: Orchestration, branch: str, before: str, after: str) -> Change | None:
    """What the delivery of a team means for others: its branch has gone from one commit to another.

    None when that has changed nothing. When git cannot be asked it is told without its commits: it has happened.
    """
    won = _look(found, before, after)
    if won is None:
        return None
    title, place = quoted(found.spec_title), shlex.quote(str(found.project))
    before, after = before[:12], after[:12]
    text = templates.render(
        "related_delivery.md",
        project=found.project,
        branch=branch,
        title=title,
        trouble=won.trouble,
        count=len(won.commits),
        commits=[f"{one.id[:10]} {quoted(one.subject)}" for one in won.commits[:_MOST_COMMITS]],
        file_count=len(won.files),
        files=[quoted(one) for one in won.files[:_MOST_FILES]],
        place=place,
        before=before,
        after=after,
    )
    line = f"{found.project}: {title} is delivered to {branch}: git -C {place} log --stat {before}..{after}"
    return Change(str(found.project), line, text, delivered=found.id)


def _look(found: Orchestration, before: str, after: str) -> _Gain | None:
    try:
        commits = worktrees.new_commits(found.project, after, beyond=(before,), seconds=_GIT_SECONDS)
        files = worktrees.changed_files(found.project, before, after, seconds=_GIT_SECONDS)
    except OrchestratorError as error:
        return _Gain(trouble=error.sentence)
    return _Gain(commits, files) if commits or files else None
