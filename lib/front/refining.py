"""What ai_team_refiner.py does and prints: what Claude would change in a team. It changes nothing itself."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lib import api, config, headless, host, planning, templates
from lib.config import Settings
from lib.errors import Unavailable, Usage
from lib.front import progress
from lib.front.cli import Output
from lib.git import repository
from lib.judgement import cleaning, refinements, specs
from lib.judgement.refinements import Change, Refinement
from lib.judgement.teams import Team
from lib.records import dataclass

#: Who is asked: Claude Code without a window, or the API.
ASKED = ("claude", "api")

#: How much is sent of a spec, and how many names of files: those nearest to the top.
_SPEC_BYTES = 40_000
_MOST_FILES = 200
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Request:
    """The options of ai_team_refiner.py. Without `by` the API is asked when there is a key for it."""

    project: str
    team: tuple[str, ...] = ()
    spec: str | None = None
    mock: bool = False
    by: str | None = None
    model: str | None = None
    seconds: float = 300.0

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


@dataclass(frozen=True)
class _Refined:
    """A refinement with all that is told of it: who gave it, and the team before and after."""

    project: Path
    spec: Path | None
    by: str
    before: Team
    after: Team
    change: Refinement
    cost_usd: float | None


def refine(output: Output, request: Request) -> None:
    """Print what would make a team better, and the command that launches it.

    Raises `Unavailable` when nobody answers, or the answer is refused.
    """
    if request.mock and (request.by or request.model):
        raise Usage("--mock asks nobody: it takes neither --by nor --model")
    cwd, settings = host.working_folder(), config.load()
    project = planning.project_of(cwd, request.project)
    path = planning.path_of(cwd, request.spec) if request.spec else None
    spec = planning.read_spec(path) if path else None
    suggested = planning.choose_team(settings, spec.text if spec else "", project)
    team = planning.choose_team(settings, "", project, roles=request.team) if request.team else suggested
    by, change, cost = _asked(output, settings, request, project, spec, team, suggested)
    after = planning.choose_team(settings, "", project, roles=change.of(team.roles))
    refined = _Refined(project, path, by, team, after, change, cost)
    output.answer("\n".join(_lines(refined)), _data(refined))


def _asked(
    output: Output,
    settings: Settings,
    request: Request,
    project: Path,
    spec: specs.Spec | None,
    team: Team,
    suggested: Team,
) -> tuple[str, Refinement, float | None]:
    """Who has refined a team, how, and what it cost."""
    if request.mock:
        return "rules", refinements.by_rules(team.roles, suggested, templates.team_types()[suggested.kind]), None
    by = request.by or ("api" if api.has_key() else "claude")
    known = templates.role_names()
    prompt = question(project, spec.text if spec else "", team, suggested)
    try:
        with progress.waiting(output, f"asking {_NAMES[by]}, for {request.seconds:g} s at the most"):
            answer = _ask(settings, request, by, prompt, refinements.schema(known))
        return by, refinements.taken(answer.found, team.roles, known), answer.cost_usd
    except Unavailable as error:
        raise Unavailable(error.sentence, hint=error.hint or _NEXT[by]) from None


_NAMES = {"claude": "Claude Code", "api": "Anthropic's API", "rules": "the rules alone (--mock): no AI was asked"}
_NEXT = {
    "claude": "claude auth login, another try, or --mock for what the rules say",
    "api": "another try, --by claude, or --mock for what the rules say",
}


def _ask(settings: Settings, request: Request, by: str, prompt: str, schema: Mapping[str, object]) -> headless.Answer:
    if by == "api":
        return api.ask(api.Asking(request.model or api.DEFAULT_MODEL, request.seconds), prompt, schema)
    asking = headless.Asking(settings.claude_command, request.model, seconds=request.seconds)
    return headless.ask(asking, prompt, schema, folder=config.state_home() / "headless")


def question(project: Path, spec_text: str, team: Team, suggested: Team) -> str:
    """What is asked. Every text of somebody else's stands in a frame that no text can close."""
    files = sorted(repository.tracked_files(project), key=lambda path: (path.count("/"), path))
    names = [repository.legible(one)[:_LONGEST_NAME] for one in files[:_MOST_FILES]]
    found = suggested.detection
    return templates.render(
        "refine_team.md",
        # Minted after the texts were written: none of them can hold it.
        mark=f"data-{secrets.token_hex(6)}",
        spec=cleaning.shortened(cleaning.clean(spec_text), _SPEC_BYTES),
        tracked=cleaning.clean("\n".join(names)),
        more=len(files) - len(names),
        kind=suggested.kind,
        evidence=[one.sentence for one in found.evidence] if found else [],
        chosen=team.roles,
        choosable=[(one.name, one.summary) for one in templates.roles().values()],
    )


def _lines(refined: _Refined) -> list[str]:
    change = refined.change
    width = max(map(len, (*refined.before.roles, *refined.after.roles)))
    lines = [f"{refined.project}: {', '.join(refined.before.roles)}", f"by {_NAMES[refined.by]}"]
    lines += [f"  + {one.role:{width}}  {one.why}" for one in change.add]
    lines += [f"  - {one.role:{width}}  {one.why}" for one in change.leave_out]
    if not (change.add or change.leave_out):
        lines.append("  nothing to change")
    lines += [f"summary: {change.summary}"] if change.summary else []
    lines += [f"note: {one}" for one in change.notes]
    if refined.cost_usd is not None:
        lines.append(f"asking has cost about ${refined.cost_usd:.3f} at list prices")
    return [*lines, "nothing is launched; this launches it:", f"  {_command(refined)}"]


def _command(refined: _Refined) -> str:
    spec = shlex.quote(str(refined.spec)) if refined.spec else "SPEC"
    roles = ",".join(refined.after.roles)
    return f"auto_orchestrate.py --project {shlex.quote(str(refined.project))} --spec {spec} --roles {roles}"


def _data(refined: _Refined) -> dict[str, object]:
    def told(changes: Sequence[Change]) -> list[dict[str, object]]:
        return [asdict(one) for one in changes]

    return {
        "project": str(refined.project),
        "spec": str(refined.spec) if refined.spec else None,
        "by": refined.by,
        "mock": refined.by == "rules",
        "team": list(refined.before.roles),
        "add": told(refined.change.add),
        "leave_out": told(refined.change.leave_out),
        "roles": list(refined.after.roles),
        "summary": refined.change.summary,
        "notes": list(refined.change.notes),
        "cost_usd": refined.cost_usd,
        "command": _command(refined),
    }
