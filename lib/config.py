"""The settings: where state and configuration live, what the user has set, and the defaults."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, TypeVar

from lib.errors import OrchestratorError
from lib.models import NOTICE_KINDS, Program
from lib.records import dataclass

#: The checkout: doors stand here, templates below it.
ROOT = Path(__file__).resolve().parent.parent

PERMISSION_MODES = ("default", "acceptEdits", "plan", "auto", "dontAsk", "bypassPermissions")


#: How the names of a fleet's hosts and labels look.
HOST_FORM = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


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


def prices_path() -> Path:
    """The user's own prices of models, beside config.yaml."""
    return config_path().with_name("prices.yaml")


def own_folder(name: str) -> Path:
    """The folder of the user's own roles or team types, beside config.yaml."""
    return config_path().with_name(name)


@dataclass(frozen=True)
class QueueSettings:
    """How the queue of specs drains."""

    max_concurrent: int = 1
    max_attempts: int = 3
    retry_minutes: float = 5.0
    budget_minutes: int | None = None
    linger_minutes: float = 10.0


@dataclass(frozen=True)
class RecoverySettings:
    """What the scheduler does by itself for a team that should run."""

    enabled: bool = True
    stuck_minutes: float = 30.0


@dataclass(frozen=True)
class LimitSettings:
    """How agents go on after a usage limit."""

    grace_seconds: float = 60.0
    spacing_seconds: float = 5.0
    look_again_minutes: float = 15.0


@dataclass(frozen=True)
class BudgetSettings:
    """What a new orchestration may spend."""

    usd: float | None = None
    usd_per_day: float | None = None
    tokens: int | None = None
    tokens_per_day: int | None = None
    account_usd_per_day: float | None = None
    grace_minutes: float = 10.0


@dataclass(frozen=True)
class AnalysisSettings:
    """How a spec is analysed before a launch."""

    enabled: bool = True
    model: str | None = None
    timeout_seconds: float = 120.0


@dataclass(frozen=True)
class ResearchSettings:
    """How failures are analysed before a spec is tried again."""

    enabled: bool = True
    model: str | None = None
    mcp_config: str | None = None
    timeout_seconds: float = 600.0


@dataclass(frozen=True)
class NotifySettings:
    """Whom to tell, and of what."""

    urls: tuple[str, ...] = ()
    events: tuple[str, ...] = NOTICE_KINDS
    per_hour: int = 12
    ping_url: str | None = None
    ping_minutes: float = 5.0


@dataclass(frozen=True)
class RecordingSettings:
    """How agents' screens are recorded."""

    enabled: bool = True
    seconds: float = 2.0
    days: float = 14.0
    megabytes: float = 500.0


@dataclass(frozen=True)
class GitSettings:
    """What is kept in the projects' repositories."""

    deliver: bool = True
    snapshot_days: int = 30
    sync_strategy: str = "ours"


@dataclass(frozen=True)
class DashboardSettings:
    """What the web dashboard takes from browsers, and by which names it is asked."""

    roots: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FleetSettings:
    """The fleet that this machine is a host of; without an address it is of none (docs/fleet.md)."""

    url: str | None = None
    host: str | None = None
    labels: tuple[str, ...] = ()
    agents: int | None = None
    ack_wait_seconds: float = 60.0
    snapshot_minutes: float = 5.0
    keep_days: int = 30
    account: str | None = None

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses in `url`: of one server, or of the servers of a cluster."""
        return tuple(self.url.split(",")) if self.url else ()

    def name(self) -> str:
        """By which name the fleet knows this machine: the one that is set, else the machine's own short name."""
        return (
            self.host or re.sub(r"[^a-z0-9]+", "-", os.uname().nodename.partition(".")[0].lower()).strip("-") or "host"
        )


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
    queue: QueueSettings = QueueSettings()
    recovery: RecoverySettings = RecoverySettings()
    limits: LimitSettings = LimitSettings()
    budget: BudgetSettings = BudgetSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    research: ResearchSettings = ResearchSettings()
    notify: NotifySettings = NotifySettings()
    git: GitSettings = GitSettings()
    dashboard: DashboardSettings = DashboardSettings()
    recording: RecordingSettings = RecordingSettings()
    fleet: FleetSettings = FleetSettings()


@dataclass(frozen=True)
class ProjectSettings:
    """What a project says of itself in `.tmux-orchestrator.yaml` at its top (docs/git.md, docs/insights.md)."""

    setup: tuple[str, ...] = ()
    setup_timeout_seconds: float = 600.0
    lease: tuple[str, ...] = ()
    check: str | None = None
    check_timeout_seconds: float = 900.0
    git_mode: str = "local"
    relates_to: tuple[str, ...] = ()


#: The file of a project's own settings, at the top of its repository.
PROJECT_FILE = ".tmux-orchestrator.yaml"

_Group = TypeVar("_Group")


def load(path: Path | None = None) -> Settings:
    """Read config.yaml; a missing file means the defaults. Raises `OrchestratorError` naming a wrong entry."""
    path = path or config_path()
    if not path.exists():
        return Settings()
    return _group(Settings, read_yaml(path), path, "")


def load_project(folder: Path) -> ProjectSettings:
    """Read a project's own settings from a checkout of it; without the file the defaults. Raises as `load` does."""
    path = folder / PROJECT_FILE
    return _group(ProjectSettings, read_yaml(path), path, "") if path.is_file() else ProjectSettings()


def _group(kind: type[_Group], entries: object, path: Path, prefix: str) -> _Group:
    """The settings of one group from its lines; those of an inner group have its name and a dot as `prefix`."""
    if entries is None:
        return kind()
    if not isinstance(entries, dict):
        raise OrchestratorError(f"{path}{f': {prefix[:-1]}' if prefix else ''} must hold `name: value` lines")
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]  # every group is a dataclass
    for name in entries:
        if name not in known:
            import difflib  # noqa: PLC0415 - only for a mistake

            near = difflib.get_close_matches(str(name), known, n=1)
            raise OrchestratorError(
                f"{path}: unknown setting {f'{prefix}{name}'!r}",
                hint=f"did you mean {f'{prefix}{near[0]}'!r}?" if near else "config.example.yaml lists every setting",
            )
    return kind(**{name: _checked(known[name], value, path, prefix) for name, value in entries.items()})


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


def _checked(one: Field[Any], value: object, path: Path, prefix: str) -> Any:
    name, kind = f"{prefix}{one.name}", str(one.type)
    if kind in _GROUPS:
        return _group(_GROUPS[kind], value, path, f"{name}.")
    if name in _CHOICES:
        choices, make = _CHOICES[name]
        if isinstance(value, list) and kind.startswith("tuple"):
            return tuple(_one_of(name, item, choices, path, make) for item in value)
        return _one_of(name, value, choices, path, make)
    if kind.endswith("| None") and value is None:
        return None
    if name == "relates_to" and isinstance(value, list):
        return tuple(_project_name(item, position, path) for position, item in enumerate(value, start=1))
    if kind.startswith("tuple") and isinstance(value, list):
        items = tuple(str(item) for item in value)
        if name == "notify.urls":
            _check_addresses(items, path)
        if name == "fleet.labels":
            for item in items:
                _check_form(name, item, path)
        return items
    kind = kind.partition(" | ")[0].partition("[")[0]
    if kind == "float" and type(value) is int:
        value = float(value)
    # type() and not isinstance(): true is no number here.
    if type(value).__name__ != kind:
        # What may hold a password is not repeated: errors go to the terminal and to logs.
        found = "" if name in _WITH_SECRETS else f", not {value!r}"
        raise OrchestratorError(f"{path}: {name} must be {_KINDS[kind]}{found}")
    if name in _FORMS:
        _check_form(name, value, path)
    if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < float("inf"):
        raise OrchestratorError(f"{path}: {name} must be above 0, not {value:g}")
    if name == "check_in_minutes" and isinstance(value, dict):
        return _minutes(value, path)
    return value


def _check_form(name: str, value: object, path: Path) -> None:
    form, words = _FORMS[name]
    if not re.fullmatch(form, str(value)):
        raise OrchestratorError(f"{path}: {name} must {words}")


def _check_addresses(urls: Sequence[str], path: Path) -> None:
    wrong = [position for position, url in enumerate(urls, start=1) if not re.match(r"[A-Za-z][\w.+-]*://", url)]
    if wrong:
        raise OrchestratorError(
            f"{path}: notify.urls: entry {wrong[0]} is no address with a scheme, such as ntfy://",
            hint="docs/notifications.md has examples",
        )


def _project_name(value: object, position: int, path: Path) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise OrchestratorError(
            f"{path}: relates_to: entry {position} must be the path or the name of a project, not {value!r}",
            hint="docs/insights.md has examples",
        )
    return value


def _minutes(value: dict[object, object], path: Path) -> dict[str, int]:
    wrong = [role for role, minutes in value.items() if type(minutes) is not int or minutes < 1]
    if wrong:
        raise OrchestratorError(f"{path}: check_in_minutes of {wrong[0]} must be a whole number of minutes, 1 or more")
    return {str(role): int(str(minutes)) for role, minutes in value.items()}


def _one_of(name: str, value: object, choices: Sequence[str], path: Path, make: Callable[[str], object]) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise OrchestratorError(f"{path}: {name} must be one of {', '.join(choices)}, not {value!r}")
    return make(value)


def _addresses(scheme: str) -> str:
    return rf"{scheme}://[^\s/@,]+(,{scheme}://[^\s/@,]+)*"


#: The servers of a fleet, one or the several of a cluster.
TLS_SERVERS_FORM = _addresses("tls")
#: What a text has to look like, and that in words. Names of hosts and labels become parts of NATS subjects.
_FORMS = {
    "notify.ping_url": (r"https?://\S+", "begin with http:// or https://"),
    "fleet.url": (
        f"{TLS_SERVERS_FORM}|{_addresses('nats')}",
        "be nats://HOST:PORT or tls://HOST:PORT, without a login; for a cluster several with commas between",
    ),
    "fleet.host": (HOST_FORM, "be of the letters a to z, digits and dashes"),
    "fleet.labels": (HOST_FORM, "be of the letters a to z, digits and dashes"),
    "fleet.account": (HOST_FORM, "be of the letters a to z, digits and dashes"),
}
_WITH_SECRETS = ("notify.urls", "notify.ping_url")
#: The types of settings, as their annotations name them, in the words of who writes YAML.
_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "tuple": "a list",
    "dict": "`role: minutes` lines",
}
_GROUPS: dict[str, type[Any]] = {
    group.__name__: group
    for group in (
        *(QueueSettings, RecoverySettings, LimitSettings, BudgetSettings, ResearchSettings),
        *(AnalysisSettings, NotifySettings, GitSettings, DashboardSettings, RecordingSettings),
        FleetSettings,
    )
}
_CHOICES: dict[str, tuple[Sequence[str], Callable[[str], object]]] = {
    "agent": ([str(program) for program in Program], Program),
    "permission_mode": (PERMISSION_MODES, str),
    "notify.events": (NOTICE_KINDS, str),
    "git_mode": (("local", "github"), str),
    "git.sync_strategy": (("ours", "theirs", "union"), str),
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
