"""Briefings: the texts that an agent begins with, and the one that it is reminded by.

The stable part becomes part of the system prompt, so that it survives a compaction; it holds nothing of the user's
spec. The task part is the first message: what it tells of the spec, of an analysis and of insights is quoted as data.
The reminder is what an agent reads after its conversation was summarised.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lib import analysis, insights, relations, templates
from lib.judgement import specs
from lib.judgement.analyses import Analysis
from lib.judgement.cleaning import quoted
from lib.judgement.teams import ORCHESTRATOR
from lib.models import Agent, Orchestration
from lib.records import dataclass
from lib.relations import Bulletin

#: No text is longer, whatever the user's values are.
MOST_BYTES = 6_000
_LONGEST_TITLE = 200
#: How many criteria, tasks and insights are told: as many as the text has room for.
_KEPT = (12, 8, 5, 3, 1, 0)
#: How much of the spec is looked through for the insights that fit.
_LONGEST_SEARCH = 4_000
_MOST_INSIGHTS = 5


@dataclass(frozen=True)
class Places:
    """Where a team reads its spec, and the plan if there is one."""

    spec: Path
    plan: Path

    @classmethod
    def of(cls, home: Path, orchestration_id: str) -> Places:
        folder = home / "orchestrations" / orchestration_id
        return cls(folder / "spec.md", folder / "plan.md")


@dataclass(frozen=True)
class Matter:
    """What a briefing tells beside names and places."""

    spec: specs.Spec
    analysis: Analysis | None
    insights: Sequence[insights.Insight]
    #: What related projects tell the Orchestrator.
    bulletins: Sequence[Bulletin] = ()


def matter(db: sqlite3.Connection, found: Orchestration) -> Matter:
    """What the briefings of a team tell: criteria, the analysis, what others have learned, news of related projects."""
    spec = specs.parse(found.spec_text.encode(), found.spec_path)
    items = " ".join(item for section in spec.sections.values() for item in section)
    words = f"{found.spec_title} {items[:_LONGEST_SEARCH]}"
    fitting = insights.search(db, words, project=str(found.project), limit=_MOST_INSIGHTS)
    return Matter(spec, analysis.of(db, found.id), fitting, relations.for_briefing(db, found.id))


def stable_part(agent: Agent, role: templates.Role) -> str:
    """What an agent knows in every turn."""
    return templates.render(
        "role.md",
        role=agent.role,
        role_text=role.text,
        session=agent.session,
        worktree=agent.worktree,
        branch=agent.branch,
    )


def task_part(found: Orchestration, agent: Agent, team: Sequence[Agent], places: Places, told: Matter) -> str:
    """The first message to an agent."""
    for most in _KEPT:
        text = _task_part(found, agent, team, places, told, most)
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def _task_part(
    found: Orchestration, agent: Agent, team: Sequence[Agent], places: Places, told: Matter, most: int
) -> str:
    criteria, tasks = told.spec.criteria, analysis.tasks_of(told.analysis, agent.role)
    bulletins = told.bulletins if agent.role == ORCHESTRATOR else ()
    return templates.render(
        "briefing.md",
        title=quoted(found.spec_title, _LONGEST_TITLE),
        spec=places.spec,
        plan=places.plan if told.analysis else None,
        role=agent.role,
        worktree=agent.worktree,
        branch=agent.branch,
        starting_branch=found.starting_branch or "(detached HEAD)",
        starting_commit=found.starting_commit,
        session=found.session,
        team=team,
        criteria=[(one.id, quoted(one.text), quoted(one.check) if one.check else "") for one in criteria[:most]],
        more_criteria=max(0, len(criteria) - most),
        tasks=[quoted(task) for task in tasks[:most]],
        insights=told.insights[:most],
        bulletins=[one.line for one in bulletins[:most]],
        more_bulletins=max(0, len(bulletins) - most),
    )


def reminder(agent: Agent, team: Sequence[Agent], places: Places, *, has_plan: bool) -> str:
    """What an agent is told of itself after its conversation was summarised."""
    return templates.render(
        "reminder.md",
        role=agent.role,
        session=agent.session,
        worktree=agent.worktree,
        branch=agent.branch,
        spec=places.spec,
        plan=places.plan if has_plan else None,
        mates=[mate.role for mate in team if mate.id != agent.id],
    )
