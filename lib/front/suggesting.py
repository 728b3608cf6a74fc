"""What dynamic_team.py does and prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lib import config, host, planning, templates
from lib.errors import OrchestratorError
from lib.front.cli import Output
from lib.judgement.teams import Team
from lib.records import dataclass

#: The first line of what is exported: by it an older export is known, and may be replaced.
_MARK = "# A team type written by dynamic_team.py."


@dataclass(frozen=True)
class Request:
    """The options of dynamic_team.py."""

    project: str
    team_type: str | None = None
    most: int | None = None
    spec: str | None = None
    export: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Request:
        return cls(**options)  # type: ignore[arg-type]  # click has checked the types


def suggest(output: Output, request: Request) -> None:
    """Print the team that a launch would get, and why. Raises as `planning.choose_team` does."""
    cwd = host.working_folder()
    project = planning.project_of(cwd, request.project)
    text = planning.read_spec(planning.path_of(cwd, request.spec)).text if request.spec else ""
    team = planning.choose_team(config.load(), text, project, team_type=request.team_type, most=request.most)
    data = _data(project, team)
    lines = _lines(project, team)
    if request.export:
        path = planning.path_of(cwd, request.export)
        _export(path, project, team)
        data["exported"] = str(path)
        lines.append(f"written to {path}; to use it, copy it to {config.own_folder('team_types')}")
    output.answer("\n".join(lines), data)


def _lines(project: Path, team: Team) -> list[str]:
    lines = [f"{project}: {team.kind}, {_why_type(team)}"]
    lines += [f"  {one.sentence}" for one in (team.detection.evidence if team.detection else ())]
    width = max(map(len, team.roles))
    return [*lines, f"{len(team.roles)} roles:", *(f"  {role:{width}}  {team.whys[role]}" for role in team.roles)]


def _why_type(team: Team) -> str:
    if team.detection is None:
        return "named by --type"
    scores = team.detection.scores
    if not scores[0][1]:
        return "the default: nothing in the files or the spec speaks for a type"
    if len(scores) > 1 and scores[0][1] == scores[1][1]:
        tied = [name for name, score in scores if score == scores[0][1]]
        return f"the default: as much speaks for {' as for '.join(tied)}"
    others = [f"{name} {score:g}" for name, score in scores[1:] if score]
    return f"detected with a weight of {scores[0][1]:g}" + (f"; {', '.join(others)}" if others else "")


def _data(project: Path, team: Team) -> dict[str, object]:
    found = team.detection
    return {
        "project": str(project),
        "type": team.kind,
        "why": _why_type(team),
        "evidence": [asdict(one) for one in found.evidence] if found else [],
        "scores": dict(found.scores) if found else {},
        "roles": [{"role": role, "why": team.whys[role]} for role in team.roles],
        "reason": team.reason,
    }


def _export(path: Path, project: Path, team: Team) -> None:
    import yaml  # noqa: PLC0415 - 22 ms that only an export pays

    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise OrchestratorError(f"{path} is there and is not from dynamic_team.py", hint="name another file")
    depends: dict[str, list[str]] = {}
    for role, other in team.depends:
        depends.setdefault(role, []).append(other)
    kind = templates.team_types()[team.kind]
    # Most needed first, as a team type has them: a smaller team keeps the first ones.
    roles = [role for role in (*kind.roles, *team.roles) if role in team.roles]
    values = {
        "summary": f"The team of {project.name}, after {team.kind}.",
        "roles": list(dict.fromkeys(roles)),
        "depends": depends,
        "words": {},
        "files": {},
    }
    note = "# --team-type names it. With `words` and `files` (docs/teams.md) it would be detected too.\n"
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path.write_text(f"{_MARK}\n{note}{text}", encoding="utf-8")
