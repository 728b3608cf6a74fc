"""The folder templates/: roles, team types, prices, and every sentence that is said to agents.

The user's own roles and team types, in folders beside config.yaml, stand before ours of the same name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import config
from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.judgement import prices
from lib.judgement.prices import Prices
from lib.judgement.teams import ORCHESTRATOR, ClaudePlan, TeamType
from lib.records import dataclass

if TYPE_CHECKING:
    import jinja2

FOLDER = ROOT / "templates"


@dataclass(frozen=True)
class Role:
    """A job description: front matter and the text that becomes part of the agent's system prompt.

    `hands_over_to` are the roles that hear of its commits, `needed_for` words of a spec that needs the role.
    `prerequisites` are programs that it cannot work without. `tools` are the only ones of Claude Code's own that it
    has; None stands for all. `allow` and `deny` are rules for its tools, in Claude Code's own words.
    """

    name: str
    summary: str
    check_in_minutes: int
    check_in_if_changed: bool
    hands_over_to: tuple[str, ...]
    text: str
    needed_for: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    window_name: str = ""
    prerequisites: tuple[str, ...] = ()
    tools: tuple[str, ...] | None = None

    @property
    def window(self) -> str:
        """The name of its tmux windows."""
        return self.window_name or self.name


def roles() -> dict[str, Role]:
    """Every role, by name. Raises `OrchestratorError` naming a wrong file of the user's."""
    return {name: _role(path) for name, path in _files("roles", ".md").items()}


def role_names() -> list[str]:
    """The names of every role, without reading them."""
    return list(_files("roles", ".md"))


def team_types() -> dict[str, TeamType]:
    """Every team type, by name. Raises as `roles` does."""
    known = role_names()
    return {name: _team_type(path, known) for name, path in _files("team_types", ".yaml").items()}


def _files(folder: str, ending: str) -> dict[str, Path]:
    found = {path.stem: path for path in (FOLDER / folder).glob(f"*{ending}")}
    for path in config.own_folder(folder).glob(f"*{ending}"):
        # The name becomes a window, a branch and a folder.
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", path.stem):
            raise OrchestratorError(f"{path}: its name must be of small letters, digits, - and _")
        found[path.stem] = path
    return dict(sorted(found.items()))


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
    # The texts are for terminals and models: values are data, and are not rendered again.
    return _environment("messages", is_html=False).get_template(name).render(**values)


def page(name: str, **values: object) -> str:
    """A text of templates/reports. In .html values are escaped; in .md the filter `plain` takes their marks away."""
    return _environment("reports", is_html=name.endswith(".html")).get_template(name).render(**values)


@functools.cache  # a text is compiled once: that is most of the time which a briefing takes
def _environment(folder: str, *, is_html: bool) -> jinja2.Environment:
    import jinja2  # noqa: PLC0415 - 60 ms that a door which says nothing to agents need not pay

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=is_html,
    )
    made.filters["plain"] = plain
    return made


def plain(value: object) -> str:
    """A value as one line of Markdown in which nothing has a meaning: no link, no HTML, no cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", " ".join(str(value).split()))


def _role(path: Path) -> Role:
    parts = _text(path).split("---\n", 2)
    if len(parts) != 3 or parts[0]:
        raise OrchestratorError(f"{path}: a role begins with a line ---, `name: value` lines and a line ---")
    values = _values(path, _yaml(path, parts[1]))
    condition, minutes = values.get("check_in_if"), values.get("check_in_minutes")
    if condition not in (None, "changed"):
        raise OrchestratorError(f"{path}: check_in_if is changed or not there, not {condition!r}")
    if type(minutes) is not int or minutes < 1:
        raise OrchestratorError(f"{path}: check_in_minutes must be a whole number of minutes, 1 or more")
    rules = _permissions(path, values.get("permissions"))
    return Role(
        path.stem,
        _summary(path, values),
        minutes,
        condition == "changed",
        _names(path, "hands_over_to", values.get("hands_over_to")),
        parts[2].strip(),
        _names(path, "needed_for", values.get("needed_for")),
        rules["allow"],
        rules["deny"],
        _window(path, values.get("window")),
        _words(path, "prerequisites", values.get("prerequisites"), r"\w[\w.+-]*", "the name of a program") or (),
        _words(path, "tools", values.get("tools"), r"[A-Za-z]\w*", "the name of a tool, such as Bash"),
    )


def _window(path: Path, found: object) -> str:
    # tmux takes `:` and `.` of a target apart, expands `#`, and finds a window by its number first.
    if found is not None and not (isinstance(found, str) and re.fullmatch(r"[A-Za-z][\w -]{0,29}", found)):
        raise OrchestratorError(f"{path}: window must begin with a letter, then letters, digits, spaces, - and _")
    return found or ""


def _words(path: Path, name: str, found: object, form: str, what: str) -> tuple[str, ...] | None:
    """A list of words of one form; None when it is not there."""
    if found is None:
        return None
    for word in (words := _names(path, name, found)):
        if not re.fullmatch(form, word):
            raise OrchestratorError(f"{path}: {name}: {word!r} is not {what}")
    return words


def _permissions(path: Path, found: object) -> dict[str, tuple[str, ...]]:
    """The rules of a role. A rule that is misspelled would guard nothing, so its form is checked."""
    entries = {} if found is None else found
    if not isinstance(entries, dict) or entries.keys() - {"allow", "deny"}:
        raise OrchestratorError(f"{path}: permissions must hold allow and deny, each a list of rules")
    rules = {name: _names(path, f"permissions.{name}", entries.get(name)) for name in ("allow", "deny")}
    for name, listed in rules.items():
        for rule in listed:
            # A tool, such as Bash or mcp__github, or a tool with what of it: Bash(git push *).
            if not re.fullmatch(r"[A-Za-z][\w-]*(\([^()\n]*\))?", rule):
                raise OrchestratorError(
                    f"{path}: permissions.{name}: {rule!r} is no rule of Claude Code's", hint="such as Bash(git push *)"
                )
    return rules


def _team_type(path: Path, known: list[str]) -> TeamType:
    values = _values(path, _yaml(path, _text(path)))
    roles = _names(path, "roles", values.get("roles"))
    depends = values.get("depends") or {}
    if not isinstance(depends, dict):
        raise OrchestratorError(f"{path}: depends must hold `role: [roles]` lines")
    waits = {str(role): _names(path, f"depends.{role}", others) for role, others in depends.items()}
    named = (*roles, *waits, *(other for others in waits.values() for other in others))
    if unknown := [role for role in named if role not in known]:
        raise OrchestratorError(f"{path}: {unknown[0]!r} is no role", hint=f"valid roles: {', '.join(known)}")
    # Somebody has to take the reports: its place is the first.
    roles = tuple(dict.fromkeys((ORCHESTRATOR, *roles)))
    words, files = (_weights(path, name, values.get(name)) for name in ("words", "files"))
    return TeamType(path.stem, _summary(path, values), roles, words, waits, files)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OrchestratorError(f"{path} cannot be read: {error}") from None


def _yaml(path: Path, text: str) -> object:
    import yaml  # noqa: PLC0415 - as jinja2

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OrchestratorError(f"{path} is not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _values(path: Path, values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise OrchestratorError(f"{path} must hold `name: value` lines")
    return values


def _summary(path: Path, values: Mapping[str, Any]) -> str:
    if not isinstance(values.get("summary"), str):
        raise OrchestratorError(f"{path}: summary must be a sentence")
    return str(values["summary"])


def _names(path: Path, name: str, found: object) -> tuple[str, ...]:
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise OrchestratorError(f"{path}: {name} must be a list of words")
    return tuple(found)


def _weights(path: Path, name: str, found: object) -> dict[str, float]:
    entries = {} if found is None else found
    if not isinstance(entries, dict):
        raise OrchestratorError(f"{path}: {name} must be a list of `word: weight`")
    for word, weight in entries.items():
        if type(weight) not in (int, float) or not 0 < weight < float("inf"):
            raise OrchestratorError(f"{path}: {name}: the weight of {word} must be a number above 0")
    return {str(word): weight for word, weight in entries.items()}
