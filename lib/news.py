"""What is new for an agent: commits of others, messages, reports and checks since it was last told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from lib import agents, criteria, messages, orchestrations, reports, store
from lib.errors import OrchestratorError
from lib.git import worktrees
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, MessageKind, News, Orchestration

#: A git that takes longer could not look: the daemon has others to serve.
_GIT_SECONDS = 10.0
#: What comes from others; a report is counted as a report, and check-ins are no news.
_KINDS = (MessageKind.MESSAGE, MessageKind.COPY, MessageKind.NOTICE)

_MANY = {"criterion": "criteria"}

#: The branches of a team with their commits, or why nobody could look.
_Heads = dict[str, str] | OrchestratorError


class Looking:
    """Looks for what is new, for one round: each team's repository is asked once, however many of its agents ask."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._heads: dict[str, _Heads] = {}

    def __call__(self, agent: Agent, seen: str | None) -> News:
        """What is new for an agent since `seen`, which is `News.seen` of an earlier look.

        When git cannot be asked, that is news: the agent may have missed something. A guest has no team: for it only
        messages are news.
        """
        before = json.loads(seen) if seen else {}
        now = self._rows()
        commits, heads = self._commits(agent, before.get("heads", {}))
        words = [*commits, *self._words(agent, before)]
        return News(", ".join(words), json.dumps({"heads": heads, **now}))

    def seen(self, agent: Agent) -> str:
        """All that there is now, for a check-in that is scheduled now."""
        heads = self._look(agent)
        return json.dumps({"heads": {} if isinstance(heads, OrchestratorError) else heads, **self._rows()})

    def _rows(self) -> dict[str, int]:
        # Before anything is counted: what comes meanwhile is new the next time.
        return {
            "message": messages.newest_id(self._db),
            "report": reports.newest_id(self._db),
            "event": store.newest_event(self._db),
            "check": criteria.newest_check(self._db),
        }

    def _words(self, agent: Agent, before: Mapping[str, Any]) -> list[str]:
        message, report, event = (int(before.get(name, 0)) for name in ("message", "report", "event"))
        completions, checks = reports.by_others_since(self._db, agent, report)
        counts = {
            "message": messages.count_since(self._db, agent.id, message, _KINDS),
            "report": completions,
            "passed check": checks,
            "failed check": reports.failed_checks_since(self._db, agent, event),
        }
        words = [_counted(number, what) for what, number in counts.items() if number]
        return words + self._criteria(agent, int(before.get("check", 0)))

    def _criteria(self, agent: Agent, after: int) -> list[str]:
        """Which criteria began to hold or to fail: news for the one who closes the work."""
        if agent.orchestration_id is None or agent.role != ORCHESTRATOR:
            return []
        hold, fail = criteria.changed_since(self._db, agent.orchestration_id, after)
        words = [f"{_counted(hold, 'criterion')} met"] if hold else []
        return words + ([f"{_counted(fail, 'criterion')} failing"] if fail else [])

    def _commits(self, agent: Agent, before: Mapping[str, str]) -> tuple[list[str], Mapping[str, str]]:
        """What is new on the team's branches and the starting branch, in words, and what they stand on now."""
        heads = self._look(agent)
        if isinstance(heads, OrchestratorError):
            return ["the commits could not be looked at"], before
        if agent.is_guest:
            return [], {}
        found = orchestrations.of_agent(self._db, agent)
        own = heads.get(agent.branch, found.starting_commit)
        roles = {one.branch: one.role for one in agents.of_orchestration(self._db, found.id)}
        words = []
        for branch, head in heads.items():
            since = before.get(branch, found.starting_commit)
            if branch == agent.branch or head == since:
                continue
            name = branch if branch == found.starting_branch else branch.rpartition("/")[2]
            where = f"by {roles[branch]}" if branch in roles else f"on {name}"
            words += _new_commits(found, head, since, own, where)
        return words, heads

    def _look(self, agent: Agent) -> _Heads:
        if agent.orchestration_id is None:
            return {}
        if agent.orchestration_id not in self._heads:
            self._heads[agent.orchestration_id] = _heads(agent, orchestrations.of_agent(self._db, agent))
        return self._heads[agent.orchestration_id]


def _heads(agent: Agent, found: Orchestration) -> _Heads:
    team = agent.branch.rpartition("/")[0]
    names = [f"{team}/", *([found.starting_branch] if found.starting_branch else [])]
    try:
        return worktrees.heads(found.project, *names, seconds=_GIT_SECONDS)
    except OrchestratorError as error:
        return error


def _new_commits(found: Orchestration, head: str, since: str, own: str, where: str) -> list[str]:
    try:
        number = worktrees.count_new(found.project, head, beyond=(since, own), seconds=_GIT_SECONDS)
    except OrchestratorError:  # what it stood on is there no more: rewritten, and cleaned up
        return [f"commits {where}"]
    return [f"{_counted(number, 'commit')} {where}"] if number else []


def _counted(number: int, what: str) -> str:
    return f"{number} {_MANY.get(what, f'{what}s') if number != 1 else what}"
