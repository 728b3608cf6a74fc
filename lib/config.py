"""The settings: where state and configuration live, what the user has set, and the defaults."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lib.errors import OrchestratorError
from lib.models import Program

#: The checkout: doors stand here, templates below it.
ROOT = Path(__file__).resolve().parent.parent

PERMISSION_MODES = ("default", "acceptEdits", "plan", "auto", "dontAsk", "bypassPermissions")


def state_home() -> Path:
    """The folder of the database, logs and spool; never in a checkout and never in a user's repository."""
    if named := os.environ.get("TMUX_ORCHESTRATOR_HOME"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "tmux-orchestrator"


def config_path() -> Path:
    """The user's config.yaml."""
    if named := os.environ.get("TMUX_ORCHESTRATOR_CONFIG"):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser().absolute() / "tmux-orchestrator" / "config.yaml"


def policy_path() -> Path:
    """The user's policy of who may write to whom, beside config.yaml."""
    return config_path().with_name("policy.yaml")


@dataclass(frozen=True)
class Settings:
    """Every setting with its default; config.example.yaml explains each in the same order."""

    agent: Program = Program.CLAUDE
    claude_command: str = "claude"
    permission_mode: str = "bypassPermissions"
    model: str | None = None
    trust_project: bool = False
    mcp: bool = True
    pass_environment: tuple[str, ...] = ("ANTHROPIC_*", "CLAUDE_*", "DISABLE_*", "IS_SANDBOX")
    auto_start: bool = True
    launch_timeout_seconds: float = 60.0
    messages_per_minute: int = 10
    check_in_minutes: dict[str, int] = field(default_factory=dict)


def load(path: Path | None = None) -> Settings:
    """Read config.yaml; a missing file means the defaults. Raises `OrchestratorError` naming a wrong entry."""
    path = path or config_path()
    if not path.exists():
        return Settings()
    entries = read_yaml(path) or {}
    if not isinstance(entries, dict):
        raise OrchestratorError(f"{path} must hold `name: value` lines")
    return Settings(**{name: _checked(name, value, path) for name, value in entries.items()})


def read_yaml(path: Path, *, hint: str | None = None) -> Any:
    """What a YAML file of the user's holds. Raises `OrchestratorError` naming the file and the line."""
    import yaml  # noqa: PLC0415 - 22 ms, and the hot doors read no such file

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise OrchestratorError(f"{path} is not valid YAML: it is not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise OrchestratorError(f"{path} is not valid YAML{where}: {why}", hint=hint) from None


def _checked(name: str, value: object, path: Path) -> Any:
    known = {field.name: field for field in fields(Settings)}
    if name not in known:
        import difflib  # noqa: PLC0415 - only for a mistake

        near = difflib.get_close_matches(str(name), known, n=1)
        raise OrchestratorError(
            f"{path}: unknown setting {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "config.example.yaml lists every setting",
        )
    default = getattr(Settings(), name)
    if name == "agent":
        return _one_of(name, value, [str(program) for program in Program], path, Program)
    if name == "permission_mode":
        return _one_of(name, value, PERMISSION_MODES, path, str)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(str(item) for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if default is None and (value is None or isinstance(value, str)):
        return value
    # type() and not isinstance(): true is no number here.
    if default is None or type(value) is not type(default):
        raise OrchestratorError(f"{path}: {name} must be {_KINDS[type(default)]}, not {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < float("inf"):
        raise OrchestratorError(f"{path}: {name} must be above 0, not {value:g}")
    if name == "check_in_minutes" and isinstance(value, dict):
        return _minutes(value, path)
    return value


def _minutes(value: dict[object, object], path: Path) -> dict[str, int]:
    wrong = [role for role, minutes in value.items() if type(minutes) is not int or minutes < 1]
    if wrong:
        raise OrchestratorError(f"{path}: check_in_minutes of {wrong[0]} must be a whole number of minutes, 1 or more")
    return {str(role): int(str(minutes)) for role, minutes in value.items()}


def _one_of(name: str, value: object, choices: Any, path: Path, make: Any) -> Any:
    if value not in choices:
        raise OrchestratorError(f"{path}: {name} must be one of {', '.join(choices)}, not {value!r}")
    return make(value)


#: The types of settings in the words of who writes YAML.
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "text",
    tuple: "a list",
    dict: "`role: minutes` lines",
}


def projects_dir() -> Path | None:
    """Where the user's projects are: `$PROJECTS_DIR`, else the line that setup.sh wrote to config.local.sh."""
    if named := os.environ.get("PROJECTS_DIR"):
        return Path(named).expanduser()
    local = ROOT / "config.local.sh"
    if not local.exists():
        return None
    line = re.search(r"^export PROJECTS_DIR=(.+)$", local.read_text(encoding="utf-8"), re.MULTILINE)
    if not line:
        return None
    words = shlex.split(line[1].replace("$HOME", str(Path.home())))
    return Path(words[0]) if words and words[0] else None
