"""What people see of a spec and of a plan before a launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib import planning
from lib.analysis import Asked
from lib.judgement import cleaning, specs
from lib.judgement.analyses import Analysis
from lib.judgement.teams import Team


def spec_lines(spec: specs.Spec) -> list[str]:
    """The criteria and deliverables of a spec by their ids, as a terminal can carry them."""
    rows = [(one.id, f"{one.text} [check: {one.check}]" if one.check else one.text) for one in spec.criteria]
    rows += [(one.id, one.text) for one in spec.deliverables]
    return [f"{name:>4}  {line(text)}" for name, text in rows]


def spec_data(spec: specs.Spec) -> dict[str, Any]:
    """The same for --json, with the lines of the file."""
    return {
        "title": spec.title,
        "criteria": [vars(one) for one in spec.criteria],
        "deliverables": [vars(one) for one in spec.deliverables],
    }


def analysis_lines(found: Analysis) -> list[str]:
    """What a model has made of a spec. Its texts were cleaned when they were read."""
    lines = [found.summary]
    lines += [f"  {number}. {one}" for number, one in enumerate(found.milestones, 1)]
    lines += [f"  risk: {one}" for one in found.risks]
    lines += [f"  note: {one}" for one in found.notes]
    return [*lines, *([f"  it cost ${found.cost_usd:.2f}"] if found.cost_usd is not None else [])]


def team_lines(team: Team) -> list[str]:
    """Each role and why it is in a team."""
    width = max(map(len, team.roles))
    return [f"  {role:{width}}  {team.whys.get(role, '')}".rstrip() for role in team.roles]


def analysis_data(asked: Asked) -> dict[str, Any]:
    """What came of an analysis, for --json."""
    return {"analysis": asked.found.data if asked.found else None, "no_analysis": asked.why_not}


def plan_text(decided: planning.Plan, outlook: Sequence[str]) -> str:
    """All that a launch would do."""
    found, asked = decided.orchestration, decided.asked
    lines = [
        f"would start {found.session}: {line(found.spec_title)}",
        f"  project  {found.project} at {found.starting_branch or 'a detached HEAD'} ({found.starting_commit[:12]})",
        f"  agents   {found.program}",
        f"  spec     {found.spec_path}",
        *(f"    {one}" for one in spec_lines(decided.spec)),
    ]
    if asked.found:
        first, *more = analysis_lines(asked.found)
        lines += [f"  plan     {first}", *(f"  {one}" for one in more)]
        lines += [f"    {role}: {task}" for role, tasks in asked.found.tasks.items() for task in tasks]
    elif asked.why_not:
        lines.append(f"  plan     none ({asked.why_not})")
    lines += [f"  team     {decided.team.reason}", *(f"  {one}" for one in team_lines(decided.team))]
    lines.append("  worktrees and branches")
    lines += [f"    {new.window:>2} {new.role:20} {new.worktree}  {new.branch}" for new in decided.agents]
    lines.append(f"  merged   to {found.integration_branch} ({found.git_mode})")
    lines += [f"  outlook  {sentence}" for sentence in outlook]
    return "\n".join([*lines, "nothing was changed"])


def plan_data(decided: planning.Plan) -> dict[str, Any]:
    """The same for --json. Ids are minted by a launch: branches name `planning.SHOWN_ID` in its place."""
    found = decided.orchestration
    return {
        "session": found.session,
        "project": str(found.project),
        "spec": str(found.spec_path),
        **spec_data(decided.spec),
        "program": found.program,
        "starting_branch": found.starting_branch,
        "starting_commit": found.starting_commit,
        "integration_branch": found.integration_branch,
        "git_mode": found.git_mode,
        "reason": decided.team.reason,
        "agents": [
            {
                **{"role": new.role, "window": new.window, "worktree": str(new.worktree), "branch": new.branch},
                "why": decided.team.whys.get(new.role),
            }
            for new in decided.agents
        ],
        **analysis_data(decided.asked),
    }


def line(text: str) -> str:
    """A text of a user's as one line that a terminal can carry."""
    return " ".join(cleaning.clean(text).split())
