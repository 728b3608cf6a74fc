"""The start of a door and of a hook, beside a bare Python, a script with the same imports, and uv alone."""

from __future__ import annotations

import json
import sys

from benchmarks.figures import Alternative, Figure
from benchmarks.machine import rehearsal
from benchmarks.teams import Counts, launch
from lib.config import ROOT

_BARE, _SAME, _UV = "`python -c pass`", "a script with the same imports", "`uv run` of an empty script"
#: What the doors of an agent import of other people's, and of the standard library.
_IMPORTS = (
    "import click, contextlib, dataclasses, datetime, enum, functools, json, os, pathlib, re, sqlite3, subprocess"
)
_EMPTY = "# /// script\n# requires-python = '>=3.11'\n# dependencies = []\n# ///\n"


def starts(counts: Counts) -> list[Figure]:
    """Doors through uv, warm, beside what a start costs at least: in turns, so that a busy moment hits all.

    `status` is the whole command with an empty store; of the others `--help`.
    """
    took: dict[str, list[float]] = {}
    with rehearsal() as machine:
        empty, same = machine.folder / "empty.py", machine.folder / "same.py"
        empty.write_text(_EMPTY, encoding="utf-8")
        same.write_text(f"{_IMPORTS}\n", encoding="utf-8")
        commands = {
            _BARE: (sys.executable, "-c", "pass"),
            _SAME: (sys.executable, str(same)),
            _UV: ("uv", "run", "--quiet", "--script", str(empty)),
            "send": (str(ROOT / "send-claude-message.sh"), "--help"),
            "complete": (str(ROOT / "report-completion.sh"), "--help"),
            "status": (str(ROOT / "claude_control.py"), "status"),
            "schedule": (str(ROOT / "schedule_with_note.sh"), "--help"),
        }
        for command in commands.values():
            machine.run(*command)
        for _ in range(counts.starts):
            for name, command in commands.items():
                took.setdefault(name, []).append(machine.run(*command)[0] * 1000)
    alternatives = tuple(Alternative(name, tuple(took[name])) for name in (_BARE, _SAME, _UV))

    def figure(name: str, key: str, *, headline: bool = False) -> Figure:
        return Figure(name, "ms", tuple(took[key]), target=250.0, alternatives=alternatives, headline=headline)

    return [
        figure("start of `send-claude-message.sh`, warm", "send", headline=True),
        figure("start of `report-completion.sh`, warm", "complete"),
        figure("`claude_control.py status`, warm, no teams", "status"),
        figure("start of `schedule_with_note.sh`, warm", "schedule"),
    ]


def hook(counts: Counts) -> list[Figure]:
    """What one event costs an agent: the very command of its settings file, through a shell as Claude Code runs it."""
    took, bare, usual = [], [], []
    with rehearsal() as machine:
        launch(machine, "orchestrator", agent="rehearsal")
        settings = json.loads((machine.home / "agents" / "1" / "settings.json").read_text(encoding="utf-8"))
        command = settings["hooks"]["Stop"][0]["hooks"][0]["command"]
        said = {"hook_event_name": "Stop", "session_id": "benchmark", "last_assistant_message": "x" * 2000}
        payload = json.dumps(said).encode()
        for _ in range(counts.starts):
            bare.append(machine.run("sh", "-c", f"exec {sys.executable} -I -S -c pass")[0] * 1000)
            usual.append(machine.run("sh", "-c", f"exec {sys.executable} -c 'import json'")[0] * 1000)
            took.append(machine.run("sh", "-c", command, stdin=payload)[0] * 1000)
    others = (
        Alternative("a bare isolated Python (`-I -S -c pass`)", tuple(bare)),
        Alternative("a Python that imports json", tuple(usual)),
    )
    return [Figure("one hook event", "ms", tuple(took), target=60.0, alternatives=others, headline=True)]
