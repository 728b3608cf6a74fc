"""`python -m lib.rehearsal`: the command line of the rehearsal agent, in the shape of Claude Code's."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from lib.rehearsal import VERSION
from lib.rehearsal.agent import Agent
from lib.rehearsal.hooks import BadSettings, Hooks, read_settings
from lib.rehearsal.transcript import SessionFile, Transcript, transcript_path

WITH_VALUE = (
    "--session-id",
    "--resume",
    "--settings",
    "--mcp-config",
    "--append-system-prompt-file",
    "--permission-mode",
    "--model",
    "--name",
    "--tools",
)
ALONE = ("--dangerously-skip-permissions", "--version")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Refused(Exception):
    """We do not start; the message is the sentence for the user."""


def read_flags(words: list[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    left = iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag in ALONE and not equals:
            flags[flag] = ""
        elif flag in WITH_VALUE:
            given = value if equals else next(left, None)
            if given is None:
                raise Refused(f"Error: {flag} needs a value.")
            flags[flag] = given
        else:
            raise Refused(f"Error: The rehearsal agent does not know the option '{word}'.")
    return flags


def config_dir(environment: Mapping[str, str]) -> Path:
    named = environment.get("CLAUDE_CONFIG_DIR")
    if not named:
        raise Refused("Error: CLAUDE_CONFIG_DIR is not set. A rehearsal never writes into a real ~/.claude.")
    config = Path(named).absolute()
    home = environment.get("HOME")
    if home and config.resolve() == (Path(home) / ".claude").resolve():
        raise Refused("Error: CLAUDE_CONFIG_DIR is the real ~/.claude. Give another folder.")
    return config


def pace_of(environment: Mapping[str, str]) -> float:
    named = environment.get("TMUX_ORCHESTRATOR_REHEARSAL_PACE", "1")
    try:
        pace = float(named)
    except ValueError:
        pace = -1.0
    if not 0 <= pace < float("inf"):
        raise Refused(f"Error: TMUX_ORCHESTRATOR_REHEARSAL_PACE must be a number from 0 on, not '{named}'.")
    return pace


def prepare(flags: Mapping[str, str], environment: Mapping[str, str], cwd: str) -> Agent:
    config, pace = config_dir(environment), pace_of(environment)
    fresh, resumed = flags.get("--session-id"), flags.get("--resume")
    if (fresh is None) == (resumed is None):
        raise Refused("Error: Give one of --session-id UUID and --resume UUID.")
    conversation = fresh or resumed or ""
    if not UUID.fullmatch(conversation):
        raise Refused("Error: Invalid session ID. Must be a valid UUID.")
    path = transcript_path(config, cwd, conversation)
    if fresh and path.exists():
        raise Refused(f"Error: Session ID {conversation} is already in use.")
    if resumed and not path.exists():
        raise Refused(f"No conversation found with session ID: {conversation}")
    briefing = flags.get("--append-system-prompt-file")
    if briefing and not Path(briefing).is_file():
        raise Refused(f"Error: Append system prompt file not found: {briefing}")
    settings = flags.get("--settings")
    hooks = Hooks(
        read_settings(Path(settings)) if settings else {}, conversation=conversation, transcript=path, cwd=cwd
    )
    return Agent(
        session=SessionFile(config, conversation, cwd, flags.get("--name") or Path(cwd).name),
        transcript=Transcript(path, conversation, cwd),
        hooks=hooks,
        role=environment.get("TMUX_ORCHESTRATOR_ROLE", "rehearsal"),
        pace=pace,
        resumed=resumed is not None,
    )


def main(words: list[str]) -> int:
    try:
        flags = read_flags(words)
        if "--version" in flags:
            print(f"{VERSION} (rehearsal of Claude Code)")
            return 0
        agent = prepare(flags, os.environ, str(Path.cwd()))
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise Refused("Error: The rehearsal agent needs a terminal.")
    except (Refused, BadSettings) as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return agent.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
