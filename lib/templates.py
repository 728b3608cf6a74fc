"""The folder templates/: roles, team types, prices, and every sentence that is said to agents."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from lib import config
from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.judgement import prices
from lib.judgement.prices import Prices
from lib.judgement.teams import ClaudePlan, TeamType

FOLDER = ROOT / "templates"


@dataclass(frozen=True)
class Role:
    """A job description: front matter and the text that becomes part of the agent's system prompt.

    `hands_over_to` are the roles that hear of its commits.
    """

    name: str
    summary: str
    check_in_minutes: int
    check_in_if_changed: bool
    hands_over_to: tuple[str, ...]
    text: str


def roles() -> dict[str, Role]:
    """Every role, by name."""
    return {path.stem: _role(path) for path in sorted((FOLDER / "roles").glob("*.md"))}


def role_names() -> list[str]:
    """The names of every role, without reading them."""
    return sorted(path.stem for path in (FOLDER / "roles").glob("*.md"))


def team_types() -> dict[str, TeamType]:
    """Every team type, by name."""
    return {path.stem: _team_type(path) for path in sorted((FOLDER / "team_types").glob("*.yaml"))}


def plans() -> dict[str, ClaudePlan]:
    """Claude's plans with their figures, by name."""
    import yaml  # noqa: PLC0415 - as jinja2

    found = yaml.safe_load((FOLDER / "plans.yaml").read_text(encoding="utf-8"))
    return {
        name: ClaudePlan(
            name, values["summary"], int(values["agents"]), values["window_hours"], tuple(values["weekly_windows"])
        )
        for name, values in found.items()
    }


def price_list() -> Prices:
    """What models cost: the user's own rows first. Raises `OrchestratorError` naming a wrong one."""
    published, own = FOLDER / "prices.yaml", config.prices_path()
    return _price_list(*((path, path.stat().st_mtime_ns if path.exists() else None) for path in (own, published)))


@functools.lru_cache(maxsize=1)  # the daemon asks once a minute, and reading takes 20 ms
def _price_list(*files: tuple[Path, int | None]) -> Prices:
    lists = [prices.read(config.read_yaml(path), str(path)) for path, changed in files if changed is not None]
    return functools.reduce(prices.joined, lists)


def render(name: str, **values: object) -> str:
    """A text of templates/messages with its values filled in. A value that is missing is an error."""
    import jinja2  # noqa: PLC0415 - 60 ms that a door which says nothing to agents need not pay

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "messages"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the texts are for terminals and models; values are data and are not rendered again
    )
    return environment.get_template(name).render(**values)


def _role(path: Path) -> Role:
    import yaml  # noqa: PLC0415 - as jinja2

    _, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(front)
    condition = values.get("check_in_if")
    if condition not in (None, "changed"):
        raise OrchestratorError(f"{path}: check_in_if is changed or not there, not {condition!r}")
    return Role(
        path.stem,
        values["summary"],
        int(values["check_in_minutes"]),
        condition == "changed",
        tuple(values.get("hands_over_to", ())),
        text.strip(),
    )


def _team_type(path: Path) -> TeamType:
    import yaml  # noqa: PLC0415 - as jinja2

    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    depends = {role: tuple(others) for role, others in values.get("depends", {}).items()}
    return TeamType(path.stem, values["summary"], tuple(values["roles"]), tuple(values.get("words", ())), depends)
