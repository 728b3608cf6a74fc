"""What of agents stands outside of the store: how full each one's context is, and its last commit.

A look costs a question to git for each team, and the end of a transcript for each agent. Who looks again and again
keeps the `Looks`: what cannot have changed is not read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.claude import transcripts
from lib.errors import OrchestratorError
from lib.git import repository
from lib.git.repository import legible
from lib.models import LIVE, Agent, Orchestration
from lib.records import dataclass

#: A team's branches are asked for again after so long.
ASK_AGAIN_MS = 3_000
_GIT_SECONDS = 5.0


@dataclass(frozen=True)
class Context:
    """How many tokens an agent's last answer took in and added, and how many its model takes at most."""

    tokens: int
    most: int

    @property
    def share(self) -> float:
        """How full it is: 0 is empty, 1 is full."""
        return self.tokens / self.most


@dataclass(frozen=True)
class LastCommit:
    """The commit that an agent's branch stands on; `at` is UTC milliseconds. `is_own`: not the one it began with."""

    id: str
    subject: str
    at: int
    is_own: bool


@dataclass(frozen=True)
class Seen:
    """What a look has found of one agent; None is what is not there. `Looks.trouble` is why a commit may be missing."""

    context: Context | None = None
    commit: LastCommit | None = None


@dataclass(frozen=True)
class _Heads:
    """The heads of a team's branches: commit, time and subject; or why they could not be asked for."""

    found: Mapping[str, tuple[str, int, str]]
    trouble: str | None = None


class Looks:
    """Looks again and again, and remembers."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Path, str], Path] = {}
        self._contexts: dict[Path, tuple[tuple[int, int], Context | None]] = {}
        self._branches: dict[str, tuple[int, _Heads]] = {}

    def of(self, found: Orchestration, team: Sequence[Agent], *, now: int) -> dict[int, Seen]:
        """What is seen of each agent of a team, by its id."""
        heads = self._heads(found, team, now).found
        return {agent.id: Seen(self._context(agent), _commit(found, heads.get(agent.branch))) for agent in team}

    def trouble(self, found: Orchestration) -> str | None:
        """Why a team's commits could not be looked at the last time, or None."""
        known = self._branches.get(found.id)
        return known[1].trouble if known else None

    def _context(self, agent: Agent) -> Context | None:
        path = self._transcript(agent)
        try:
            found = path.stat() if path else None
        except FileNotFoundError:
            found = None
        if path is None or found is None:
            self._paths.pop((agent.config_dir, agent.conversation_id), None)
            return None
        mark, known = (found.st_size, found.st_mtime_ns), self._contexts.get(path)
        if known and known[0] == mark:
            return known[1]
        used = transcripts.context_used(path)
        context = Context(*used) if used else None
        self._contexts[path] = (mark, context)
        return context

    def _transcript(self, agent: Agent) -> Path | None:
        key = (agent.config_dir, agent.conversation_id)
        if key not in self._paths and (path := transcripts.find(*key)):
            self._paths[key] = path
        return self._paths.get(key)

    def _heads(self, found: Orchestration, team: Sequence[Agent], now: int) -> _Heads:
        known = self._branches.get(found.id)
        if known and (found.status not in LIVE or 0 <= now - known[0] < ASK_AGAIN_MS):
            return known[1]
        heads = _ask(found.project, [agent.branch for agent in team])
        self._branches[found.id] = (now, heads)
        return heads


def _ask(project: Path, branches: Sequence[str]) -> _Heads:
    form = "--format=%(refname) %(objectname) %(committerdate:unix) %(contents:subject)"
    refs = [f"refs/heads/{name}" for name in branches if name]
    if not refs:
        return _Heads({})
    try:
        said = repository.ask(project, "for-each-ref", form, *refs, seconds=_GIT_SECONDS)
    except OrchestratorError as error:
        return _Heads({}, error.sentence)
    heads = {}
    for line in said.splitlines():
        ref, commit, at, subject = line.split(" ", 3)
        heads[ref.removeprefix("refs/heads/")] = (commit, int(at) * 1000, legible(subject))
    return _Heads(heads)


def _commit(found: Orchestration, head: tuple[str, int, str] | None) -> LastCommit | None:
    if head is None:
        return None
    commit, at, subject = head
    return LastCommit(commit, subject, at, commit != found.starting_commit)
