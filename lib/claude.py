"""Claude Code: how it is started, what its hooks and files say, and whether it can be used at all.

The only room, with screens.py and headless.py, that knows Claude Code's flags, settings, hook payloads and transcript.
Facts are measured with Claude Code 2.1.330 in tmux 3.3a. The rehearsal agent has the same outside shape,
so that everything below serves both; only its command and its configuration folder differ.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib import host, resets
from lib.config import ROOT, Settings, config_path
from lib.errors import Unavailable
from lib.models import Agent, AgentState, LimitKind, Process, Program, Refusal, Usage

#: `--session-id`, `--settings` with hooks, and the session files that are read here.
MINIMUM_VERSION = (2, 1, 0)

#: The name under which tmux shows a running Claude Code (`pane_current_command`).
COMMAND = "claude"

#: Events whose payloads are read. An event name that the installed version does not know opens a blocking
#: dialog at its start, so the list holds only what every supported version has.
HOOK_EVENTS = ("SessionStart", "UserPromptSubmit", "Stop", "StopFailure", "Notification", "SessionEnd")

#: The server of our tools: its name is part of theirs (`mcp__tmux-orchestrator__send_message`).
TOOLS_NAME = "tmux-orchestrator"

#: Variables that Claude Code sets for its own children: an agent that is launched from inside another
#: agent must not inherit that one's identity.
_IDENTITY = (
    "CLAUDECODE",
    "CLAUDE_PID",
    "CLAUDE_EFFORT",
    "CLAUDE_ENV_FILE",
    "CLAUDE_PROJECT_DIR",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_MESSAGING_SOCKET",
    "CLAUDE_CODE_MESSAGING_TOKEN",
    "CLAUDE_CODE_SSE_PORT",
    "AI_AGENT",
)

_REHEARSAL_VARIABLES = ("TMUX_ORCHESTRATOR_REHEARSAL_PACE",)

_STATES = {"idle": AgentState.IDLE, "busy": AgentState.WORKING, "waiting": AgentState.ASKING}


@dataclass(frozen=True)
class Installation:
    """A program that agents can run. `config_dir` is where it keeps sessions and transcripts."""

    program: Program
    command: tuple[str, ...]
    version: str
    config_dir: Path


@dataclass(frozen=True)
class HookReport:
    """One hook payload: which event, of which conversation, with the texts that matter here."""

    event: str
    conversation_id: str
    prompt: str
    error: str
    last_message: str
    source: str
    notification: str


# -- can it be used? --


def preflight(settings: Settings, program: Program, *, home: Path, project: Path) -> Installation:
    """Look, before anything is created, whether agents of this program would start without asking a person.

    Raises `Unavailable` with the one thing to do. Reads Claude Code's files and never writes them.
    """
    if program is Program.REHEARSAL:
        return rehearsal(home)
    executable = shutil.which(settings.claude_command)
    if executable is None:
        raise Unavailable(
            f"Claude Code is not installed: no command {settings.claude_command!r} on PATH",
            hint="npm install -g @anthropic-ai/claude-code, or try the toolkit with --agent rehearsal",
        )
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only a launch asks

    with ThreadPoolExecutor(2) as pool:  # each takes 0.1 to 0.4 s of Claude Code's own start
        version = pool.submit(_ask, executable, "--version")
        login = pool.submit(_ask, executable, "auth", "status", "--json")
    found = _check_version(version.result())
    _check_login(login.result())
    _check_permission_mode(settings.permission_mode)
    check_trust(settings, program, project)
    return Installation(Program.CLAUDE, (executable,), found, config_dir())


def rehearsal(home: Path) -> Installation:
    """The rehearsal agent of this checkout; its sessions and transcripts live in the state home."""
    folder = config_dir_of(Program.REHEARSAL, home)
    return Installation(Program.REHEARSAL, (sys.executable, "-m", "lib.rehearsal"), "rehearsal", folder)


def config_dir_of(program: Program, home: Path) -> Path:
    """The configuration folder of agents that are started now; those of one folder share an account and its limits."""
    return home / "rehearsal" if program is Program.REHEARSAL else config_dir()


def config_dir() -> Path:
    """Claude Code's own folder for sessions and transcripts."""
    return Path(os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude").expanduser()


def _ask(executable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [executable, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{executable} cannot be run: {error}", hint=f"{executable} --version") from error


def _check_version(answer: subprocess.CompletedProcess[str]) -> str:
    number = re.match(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if not number:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        raise Unavailable(f"{answer.args[0]} does not tell its version: {said[0] if said else 'it printed nothing'}")
    if tuple(map(int, number.groups())) < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        raise Unavailable(f"Claude Code {number[0]} is too old: {needed} or newer is needed", hint="claude update")
    return number[0]


def _check_login(answer: subprocess.CompletedProcess[str]) -> None:
    try:
        logged_in = bool(json.loads(answer.stdout)["loggedIn"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise Unavailable(
            f"Claude Code does not tell whether it is logged in: {answer.stderr.strip() or answer.stdout.strip()}",
            hint="claude auth status",
        ) from error
    if not logged_in:
        raise Unavailable("Claude Code is not logged in", hint="claude auth login, then launch again")


def _check_permission_mode(mode: str) -> None:
    # IS_SANDBOX must be exactly "1": "yes" and "true" are refused.
    if mode == "bypassPermissions" and os.geteuid() == 0 and os.environ.get("IS_SANDBOX") != "1":
        raise Unavailable(
            "Claude Code refuses permission_mode bypassPermissions for root",
            hint="launch as another user, set permission_mode: auto, or set IS_SANDBOX=1 on a sandboxed machine",
        )


def check_trust(settings: Settings, program: Program, project: Path) -> None:
    """Raises `Unavailable` when Claude Code would ask somebody whether they trust a repository.

    A repository is trusted when its own top folder was accepted, and then its git worktrees are too. An accepted
    folder above the repository does not count, nor does one linked worktree for another.
    """
    if program is Program.REHEARSAL or settings.trust_project:
        return
    path = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home()) / ".claude.json"
    try:
        is_trusted = json.loads(path.read_text(encoding="utf-8"))["projects"][str(project)]["hasTrustDialogAccepted"]
    except (FileNotFoundError, KeyError, TypeError):
        is_trusted = False
    except (OSError, ValueError) as error:
        raise Unavailable(f"{path} cannot be read: {error}", hint="claude doctor") from error
    if not is_trusted:
        raise Unavailable(
            f"Claude Code has not been told to trust {project}",
            hint=f"run claude once in {project} and accept, or set trust_project: true in config.yaml",
        )


# -- starting it --


def write_launch_files(
    agent: Agent,
    *,
    home: Path,
    socket: str | None,
    role_text: str,
    reminder: str,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
) -> Path:
    """Write the settings, the tools and the role text that an agent starts with. Returns their folder.

    `reminder` is what it is told after its conversation was summarised: by a hook for that alone, which prints a file.
    `allow` and `deny` are the rules of its role. Measured with 2.1.330: deny holds in bypassPermissions too.
    """
    folder = home / "agents" / str(agent.id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "role.md").write_text(role_text, encoding="utf-8")
    hook = shlex.join(
        [
            str(_base_python()),
            "-I",
            "-S",
            str(ROOT / "lib" / "front" / "hook.py"),
            str(home),
            str(agent.id),
            str(agent.epoch),
        ]
    )
    entry = [{"hooks": [{"type": "command", "command": hook, "timeout": 10}]}]
    launch_settings = {
        # A project may carry disableAllHooks: true; ours has the last word.
        "disableAllHooks": False,
        "skipDangerousModePermissionPrompt": True,
        # After a five-hour limit an agent goes on by itself, also when nobody is there to tell it to. Switched off,
        # Claude Code would open a dialog instead (docs/decisions/limits.md).
        "autoContinueAtUsageLimit": True,
        "hooks": {**dict.fromkeys(HOOK_EVENTS, entry), "SessionStart": [*entry, _reminding(folder, reminder)]},
        # In a permission mode that asks, nobody would be there to say yes to a message.
        "permissions": {"allow": [f"mcp__{TOOLS_NAME}", *allow], "deny": [*deny]},
    }
    (folder / "settings.json").write_text(json.dumps(launch_settings, indent=1), encoding="utf-8")
    (folder / "mcp.json").write_text(json.dumps(_tools(agent, home, socket), indent=1), encoding="utf-8")
    return folder


def _reminding(folder: Path, reminder: str) -> dict[str, object]:
    """The hook that reminds an agent after a compaction, whatever becomes of the file that it prints."""
    path = folder / "reminder.json"
    told = {"hookEventName": "SessionStart", "additionalContext": reminder}
    path.write_text(json.dumps({"hookSpecificOutput": told}), encoding="utf-8")
    command = f"cat {shlex.quote(str(path))} 2>/dev/null; true"
    return {"matcher": "compact", "hooks": [{"type": "command", "command": command, "timeout": 10}]}


def _tools(agent: Agent, home: Path, socket: str | None) -> dict[str, object]:
    """The server of the team's tools, as --mcp-config takes it. Who the agent is stands in the environment."""
    server = {
        "type": "stdio",
        "command": str(ROOT / "mcp_server.py"),
        "args": [],
        "env": _identity(agent, home, socket),
        # The tools are few, and used all day: without this the model has to search for each before its first use.
        "alwaysLoad": True,
    }
    return {"mcpServers": {TOOLS_NAME: server}}


def _identity(agent: Agent, home: Path, socket: str | None) -> dict[str, str]:
    """The variables by which what an agent starts finds the state home, the tmux server and itself."""
    variables = {
        "TMUX_ORCHESTRATOR_HOME": str(home),
        # The tmux server may have another environment than the shell: settings and policy are the launch's.
        "TMUX_ORCHESTRATOR_CONFIG": str(config_path()),
        "TMUX_ORCHESTRATOR_AGENT": str(agent.id),
        "TMUX_ORCHESTRATOR_EPOCH": str(agent.epoch),
        "TMUX_ORCHESTRATOR_ROLE": agent.role,
        "TMUX_ORCHESTRATOR_SESSION": agent.session,
    }
    if socket:
        variables["TMUX_ORCHESTRATOR_SOCKET"] = socket
    return variables


def _base_python() -> Path:
    # Not the environment of a door: uv may clean that while agents run, and the hook needs no packages.
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def launch_command(
    installation: Installation,
    agent: Agent,
    settings: Settings,
    *,
    home: Path,
    socket: str | None,
    resume: bool,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """The argument list that becomes the pane's process: env replaces itself by the agent's program.

    `variables` are the project's own for this agent.
    """
    folder = home / "agents" / str(agent.id)
    variables = {**variables, **_identity(agent, home, socket), "PATH": _path_with_doors()}
    if settings.trust_project:
        variables["CLAUDE_CODE_SANDBOXED"] = "1"
    if installation.program is Program.REHEARSAL:
        variables["CLAUDE_CONFIG_DIR"] = str(installation.config_dir)
        variables |= {name: os.environ[name] for name in _REHEARSAL_VARIABLES if name in os.environ}
    command = ["env"]
    for name in (*_IDENTITY, "VIRTUAL_ENV"):
        command += ["-u", name]
    command += [f"{name}={value}" for name, value in variables.items()]
    command += installation.command
    command += ["--resume" if resume else "--session-id", agent.conversation_id]
    command += ["--settings", str(folder / "settings.json")]
    if settings.mcp:
        command += ["--mcp-config", str(folder / "mcp.json")]
    command += ["--append-system-prompt-file", str(folder / "role.md")]
    command += ["--permission-mode", settings.permission_mode, "--name", agent.target]
    if settings.model:
        command += ["--model", settings.model]
    return command


def passed_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the launching shell that agents get (setting `pass_environment`)."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _IDENTITY and any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.pass_environment)
    }


def without_identity(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a Claude Code is nobody's child."""
    return {name: value for name, value in environment.items() if name not in _IDENTITY}


def _path_with_doors() -> str:
    own = str(Path(sys.prefix) / "bin")  # the environment of a door is not the agents'
    rest = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part not in (own, str(ROOT))]
    return os.pathsep.join([str(ROOT), *rest])


# -- what it says --


def state(config_dir: Path, conversation_id: str, process: Process) -> AgentState:
    """What a live agent does, from its own session file; STARTING before it has written one."""
    session = _session_file(config_dir, process.pid)
    if session is None or session.get("sessionId") != conversation_id:
        return AgentState.STARTING
    if str(session.get("procStart", process.started)) != str(process.started):
        return AgentState.STARTING
    return _STATES.get(str(session.get("status")), AgentState.WORKING)


def has_dialog_open(config_dir: Path, process: Process) -> bool:
    """Whether a live agent shows a dialog that a command or a key has opened, and not a question of its own."""
    session = _session_file(config_dir, process.pid)
    return session is not None and (session.get("status"), session.get("waitingFor")) == ("waiting", "dialog open")


def conversation_in(config_dir: Path, pane_id: str, pane_pid: int) -> tuple[str, int, Path] | None:
    """The live conversation in a pane of ours or of a person: its id, its pid, its working directory.

    Session files name their pane (`session:@window.%pane`), and outlive a killed process: the process must
    still be the one that wrote the file, and run in this pane and not in one of the same id elsewhere.
    """
    for path in sorted((config_dir / "sessions").glob("*.json")):
        session = _session_file(config_dir, int(path.stem)) if path.stem.isdigit() else None
        if session is None or not str(session.get("tmux", "")).endswith(f".{pane_id}"):
            continue
        pid = int(path.stem)
        process = host.process(pid)
        if process and str(session.get("procStart")) == str(process.started) and host.is_below(pid, pane_pid):
            return str(session.get("sessionId")), pid, Path(str(session.get("cwd")))
    return None


def _session_file(config_dir: Path, pid: int) -> dict[str, object] | None:
    try:
        content = json.loads((config_dir / "sessions" / f"{pid}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def hook_report(payload: bytes) -> HookReport | None:
    """Read one hook payload; None when it is none (cut off, or of a foreign shape)."""
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("hook_event_name"), str):
        return None

    def text(name: str) -> str:
        value = values.get(name)
        # JSON can name half of a surrogate pair, which no store and no terminal takes.
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""

    return HookReport(
        event=text("hook_event_name"),
        conversation_id=text("session_id"),
        prompt=text("prompt"),
        error=text("error"),
        last_message=text("last_assistant_message"),
        source=text("source"),
        notification=text("notification_type"),
    )


def transcript(config_dir: Path, conversation_id: str) -> Path | None:
    """The transcript of a conversation, or None before its first turn.

    Found by its name: the folder's name is made from the working directory by a rule that has changed
    between versions.
    """
    return next(config_dir.glob(f"projects/*/{conversation_id}.jsonl"), None)


def prompts(path: Path, *, start: int = 0, since: int = 0) -> Iterator[str]:
    """What a transcript says was submitted to the agent: typed prompts, and those accepted while it was busy.

    `start` is a position in bytes, such as the file's size before something was typed; `since` a time in UTC
    milliseconds.
    """
    for entry in _entries(path, start):
        if since and _at(entry) < since:
            continue
        if entry.get("type") == "user" or entry.get("subtype") == "local_command":
            yield from _texts(_content(entry))
        elif entry.get("type") == "queue-operation" and entry.get("operation") == "enqueue":
            yield from _texts(entry.get("content"))


def unread(path: Path) -> list[str]:
    """The prompts that were accepted while the agent was busy and that it never came to read.

    Claude Code keeps them in memory: they are lost when it is killed, and `--resume` does not bring them back.
    """
    waiting: list[str] = []
    read: set[str] = set()
    for entry in _entries(path, 0):
        if entry.get("type") == "user":
            read.update(_texts(_content(entry)))
        elif entry.get("type") == "queue-operation":
            if entry.get("operation") == "enqueue":
                waiting += _texts(entry.get("content"))
            elif waiting:  # dequeue, remove: in the order in which they came
                waiting.pop(0)
    # What was lost with an earlier life and sent again since then has been read.
    return [prompt for prompt in waiting if prompt not in read]


def written(path: Path, *, known: int = 0) -> int:
    """Where in a transcript the last entry ends that the agent has made itself, in bytes.

    A text that it has only accepted while it was busy is not its doing. `known` is what an earlier call has said.
    """
    size = path.stat().st_size
    end = at = known if 0 < known <= size else max(0, size - _TAIL_BYTES)
    if at == size:
        return end
    with path.open("rb") as lines:
        lines.seek(at)
        for line in lines:
            at += len(line)
            if line.endswith(b"\n") and not _is_acceptance(line):
                end = at
    return end


def _is_acceptance(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # cut off at the beginning
        return True
    return isinstance(entry, dict) and (entry.get("type"), entry.get("operation")) == ("queue-operation", "enqueue")


def written_by_helpers(path: Path) -> int:
    """The bytes of the transcripts of a conversation's subagents; its own does not grow while they work."""
    return sum(Path(helper).stat().st_size for helper in helpers(path))


def helpers(path: Path | str) -> list[str]:
    """The transcripts of the subagents that work for a conversation, also of those that these have started."""
    folder = f"{str(path).removesuffix('.jsonl')}/subagents"
    if not os.path.isdir(folder):  # noqa: PTH112 - asked of every agent every minute; globbing takes ten times as long
        return []
    found = [f"{place}/{name}" for place, _, names in os.walk(folder) for name in names if name.endswith(".jsonl")]
    return sorted(found)


def ran_command(path: Path, command: str, *, start: int, since: int) -> bool:
    """Whether a transcript, from a position and a time on, says that a slash command was run."""
    name = command.split()[0]
    told = prompts(path, start=start, since=since)
    return any(f"<command-name>{name}</command-name>" in prompt for prompt in told)


#: What an agent has said last stands in one of the last entries; reading so much takes a millisecond.
_TAIL_BYTES = 64 * 1024


# -- what the API refuses it --

#: Why a turn ended, in the words of the hook StopFailure and of the transcript (2.1.330 has thirteen). The others,
#: such as `invalid_request` and `model_not_found`, are about one request or setting, and no limit.
_REFUSALS = {
    "billing_error": LimitKind.SPEND,
    "authentication_failed": LimitKind.LOGIN,
    "oauth_org_not_allowed": LimitKind.LOGIN,
    "account_on_hold": LimitKind.LOGIN,
    "verification_required": LimitKind.LOGIN,
    "cloud_credential_error": LimitKind.LOGIN,
    "server_error": LimitKind.OVERLOADED,
    "overloaded": LimitKind.OVERLOADED,
    "rate_limit": LimitKind.OVERLOADED,  # unless its words or its parameters say that the account's limit is reached
}
_UNREACHABLE = re.compile(r"connect|network|socket|timed? ?out|ECONN|ENOTFOUND|ETIMEDOUT|fetch failed", re.IGNORECASE)
_USAGE = re.compile(r"\bhit your\b.*\blimit\b|\blimit reached\b|\blimit will reset\b", re.IGNORECASE)
#: Which limit it is, in the client's names for them; the first that fits.
_USAGE_KINDS = (
    (re.compile(r"\b(5-hour|five_hour|session) ?", re.IGNORECASE), LimitKind.FIVE_HOUR),
    (re.compile(r"\b(weekly|seven_day\w*|7-day|Opus|Sonnet|Fable)\b", re.IGNORECASE), LimitKind.WEEKLY),
    (re.compile(r"\b(spend|credits?|overage|extra usage|monthly)\b", re.IGNORECASE), LimitKind.SPEND),
)
#: How Claude Code has an agent go on by itself after a limit; the prompt fires UserPromptSubmit.
_AUTO_CONTINUATION = "Your claude.ai usage limit has reset."
_AUTO_CONTINUED = "quota_auto_resume_fired"
#: It does so within two minutes of the reset (measured: 76 s). When that is further off than a day it opens a dialog
#: instead, whatever the setting says.
AUTO_CONTINUES_WITHIN_MS = 3 * 60_000
_AUTO_CONTINUES_BELOW_MS = 24 * 3600 * 1000


def refusal_of_hook(report: HookReport, *, now: int) -> Refusal | None:
    """What a StopFailure hook says of a limit; None when the turn has failed for another reason, or not at all."""
    if report.event != "StopFailure":
        return None
    return _refusal(report.error, report.last_message, now)


def last_refusal(path: Path) -> tuple[Refusal, int] | None:
    """The refusal that a transcript ends with, and when (UTC milliseconds); None when it ends otherwise."""
    start = max(0, path.stat().st_size - _TAIL_BYTES)
    answers = [entry for entry in _entries(path, start) if entry.get("type") == "assistant"]
    if not answers or not answers[-1].get("isApiErrorMessage"):
        return None
    entry, at = answers[-1], _at(answers[-1])
    about = _dictionary(_dictionary(entry.get("apiErrorParams")).get("rate_limit_info"))
    found = _refusal(str(entry.get("error")), "\n".join(_texts(_content(entry))), at)
    if found and (about or entry.get("apiError") == "usage_limit_reached"):
        kind = _usage_kind(str(about.get("rateLimitType") or "")) or _usage_kind(found.said) or LimitKind.FIVE_HOUR
        found = Refusal(kind, found.said, resets.checked(about.get("resetsAt"), now=at) or found.resets_at)
    return (found, at) if found and at else None


def _refusal(error: str, words: str, at: int) -> Refusal | None:
    kind = _REFUSALS.get(error)
    if kind is None and error == "unknown" and _UNREACHABLE.search(words):
        kind = LimitKind.OVERLOADED
    if kind is None:
        return None
    if error in ("rate_limit", "billing_error") and _USAGE.search(words):
        kind = _usage_kind(words) or (LimitKind.FIVE_HOUR if error == "rate_limit" else kind)
    is_timed = kind in (LimitKind.FIVE_HOUR, LimitKind.WEEKLY, LimitKind.SPEND)
    return Refusal(kind, " ".join(words.split())[:500], resets.parse(words, now=at) if is_timed else None)


def _usage_kind(words: str) -> LimitKind | None:
    return next((kind for pattern, kind in _USAGE_KINDS if pattern.search(words)), None)


def continues_by_itself(program: Program, refusal: LimitKind, resets_at: int | None, refused_at: int) -> bool:
    """Whether a Claude Code whose turn was refused takes it up again by itself, soon after the reset.

    It does so as long as it lives, unless somebody presses Escape in its window or another turn succeeds before.
    """
    if program is not Program.CLAUDE or refusal not in (LimitKind.FIVE_HOUR, LimitKind.WEEKLY) or resets_at is None:
        return False
    return resets_at - refused_at < _AUTO_CONTINUES_BELOW_MS


def has_continued_by_itself(report: HookReport) -> bool:
    """Whether a hook tells that Claude Code has just taken up a refused turn by itself."""
    return report.prompt.startswith(_AUTO_CONTINUATION) or report.notification == _AUTO_CONTINUED


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


#: How much a model takes in at once; the transcript does not say it.
_CONTEXT_WINDOW, _LONG_CONTEXT_WINDOW = 200_000, 1_000_000


def context_used(path: Path) -> tuple[int, int] | None:
    """How many tokens a transcript's last answer took in and added, and how many its model takes; None without one.

    A model with the long window is known by its name (`[1m]`), or by having taken in more than the others can.
    """
    for entry in reversed(list(_entries(path, max(0, path.stat().st_size - _TAIL_BYTES)))):
        if entry.get("type") != "assistant" or entry.get("isApiErrorMessage") or entry.get("isSidechain"):
            continue
        message = _dictionary(entry.get("message"))
        usage = _dictionary(message.get("usage"))
        counts = [value for name, value in usage.items() if name in _CONTEXT_COUNTS and isinstance(value, int)]
        if counts:
            is_long = "[1m]" in str(message.get("model")) or sum(counts) > _CONTEXT_WINDOW
            return sum(counts), _LONG_CONTEXT_WINDOW if is_long else _CONTEXT_WINDOW
    return None


_CONTEXT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def has_answered_since(path: Path, since: int) -> bool:
    """Whether a transcript ends with an answer of the model from after a time (UTC milliseconds); an error is none."""
    found = path.stat()
    if found.st_mtime * 1000 <= since:
        return False
    return any(
        entry.get("type") == "assistant" and not entry.get("isApiErrorMessage") and _at(entry) > since
        for entry in _entries(path, max(0, found.st_size - _TAIL_BYTES))
    )


# -- what it uses --


@dataclass(frozen=True)
class Used:
    """What a line of a transcript says of an answer of the model.

    An answer has a line for each of its parts, with one id and, in some versions, growing counts. `at` is 0 when the
    line has no time that can be read.
    """

    id: str
    at: int
    model: str
    usage: Usage
    is_fast: bool
    is_us: bool
    is_helper: bool


@dataclass(frozen=True)
class Prompted:
    """What a line of a transcript says of the beginning of a turn.

    `goes_on` is whether Claude Code itself has written the prompt, for what was begun before: a helper is done, a
    limit is over, a conversation was summarised.
    """

    id: str
    texts: tuple[str, ...]
    goes_on: bool
    is_helper: bool


@dataclass(frozen=True)
class Summarised:
    """That a conversation was summarised: Claude Code (2.1.330) keeps no entry of what asking for that has used.

    Its own sum, which it writes when it ends, holds it; until then nobody knows.
    """


_IS_USER = re.compile(rb'"type": ?"user"')
_GOES_ON = ("task-notification", "auto-continuation")
_INTERRUPTED = "[Request interrupted"
#: More than any answer has; what is larger is no count.
_MOST_TOKENS = 10**12


def spending_in(line: bytes) -> Used | Prompted | Summarised | None:
    """What a line of a transcript says of what was used. Raises `ValueError` for an answer that cannot be read.

    Most lines say nothing of it, and many are long: those are not parsed.
    """
    if b'"usage"' in line and b'"assistant"' in line:
        entry = _parsed(line)
        return _used(entry, line) if entry.get("type") == "assistant" else None
    # Inside of a text these marks would have other quotes.
    if b'"tool_use_id"' not in line and _IS_USER.search(line):
        entry = _parsed(line)
        return _prompted(entry) if entry.get("type") == "user" else None
    if b'"compact_boundary"' in line:
        return Summarised() if _parsed(line).get("subtype") == "compact_boundary" else None
    return None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    return entry


def _used(entry: Mapping[str, Any], line: bytes) -> Used | None:
    message = entry.get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(usage, dict):
        raise ValueError("an answer without what it has used")
    if "input_tokens" not in usage and "output_tokens" not in usage:
        raise ValueError("an answer that says what it has used in other words")
    counts = _usage(usage)
    if counts == Usage():  # an error that Claude Code shows as an answer
        return None
    # Without an id the line stands for itself.
    named = message.get("id") or entry.get("requestId") or entry.get("uuid") or line
    return Used(
        id=str(named),
        at=_at(entry),
        model=_plain(message.get("model")) or "unknown",
        usage=counts,
        is_fast=usage.get("speed") == "fast",
        is_us=usage.get("inference_geo") == "us",
        is_helper=entry.get("isSidechain") is True,
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    written = _count(usage.get("cache_creation_input_tokens"))
    kept, details, tools = (
        found if isinstance(found := usage.get(name), dict) else {}
        for name in ("cache_creation", "output_tokens_details", "server_tool_use")
    )
    # What is not said to be kept for an hour is kept for five minutes.
    for_an_hour = min(_count(kept.get("ephemeral_1h_input_tokens")), written)
    output = _count(usage.get("output_tokens"))
    return Usage(
        input=_count(usage.get("input_tokens")),
        output=output,
        cache_read=_count(usage.get("cache_read_input_tokens")),
        cache_write_5m=written - for_an_hour,
        cache_write_1h=for_an_hour,
        thinking=min(_count(details.get("thinking_tokens")), output),
        web_searches=_count(tools.get("web_search_requests")),
    )


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else 0


def _plain(value: object) -> str:
    """A text without what no store and no terminal takes."""
    return "".join(c for c in value if c.isprintable())[:100] if isinstance(value, str) else ""


def _prompted(entry: Mapping[str, Any]) -> Prompted | None:
    texts = tuple(_texts(_content(entry)))
    if not texts or entry.get("isMeta") is True:
        return None
    origin = entry.get("origin")
    by_itself = isinstance(origin, dict) and origin.get("kind") in _GOES_ON
    return Prompted(
        id=_plain(entry.get("promptId")),
        texts=texts,
        goes_on=by_itself or entry.get("isCompactSummary") is True or texts[0].startswith(_INTERRUPTED),
        is_helper=entry.get("isSidechain") is True,
    )


def _entries(path: Path, start: int) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the last line may be in the writing, the first be cut by `start`
                continue
            if isinstance(entry, dict):
                yield entry


def _content(entry: Mapping[str, Any]) -> object:
    message = entry.get("message")
    return message.get("content") if isinstance(message, dict) else entry.get("content")


def _at(entry: Mapping[str, Any]) -> int:
    """When an entry was written (UTC milliseconds); 0 when it does not say."""
    try:
        return int(datetime.fromisoformat(str(entry.get("timestamp"))).timestamp() * 1000)
    except ValueError:
        return 0


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                yield block["text"]
