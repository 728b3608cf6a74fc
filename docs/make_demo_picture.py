#!/usr/bin/env -S uv run --quiet --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["tmux-orchestrator"]
# [tool.uv.sources]
# tmux-orchestrator = { path = "..", editable = true }
# ///
"""Makes docs/demo.svg: runs the demo on an isolated machine, and has docs/terminal_picture.py draw what it showed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from docs.terminal_picture import Frame, draw
from lib.config import ROOT
from lib.errors import OrchestratorError
from lib.front import cli
from lib.tmux import Tmux

PICTURE = ROOT / "docs" / "demo.svg"
COMMAND = "./auto_orchestrate.py --demo"
_SIZE = ("-x", "400", "-y", "100")  # wide: the drawing wraps, after the paths have been shortened
_LONGEST_SECONDS = 120.0


@cli.command(examples="docs/make_demo_picture.py")
@cli.pass_output
def main(output: cli.Output) -> None:
    """Run the demo and draw docs/demo.svg from what its terminal shows."""
    frames = record()
    PICTURE.write_text(draw(COMMAND, frames), encoding="utf-8")
    output.answer(f"wrote {PICTURE.relative_to(ROOT)}: {frames[-1].seconds:.1f} s in {len(frames)} frames")


def record() -> list[Frame]:
    """Run the demo in a terminal of its own, with an empty HOME, and keep every state of its screen."""
    folder = Path(tempfile.mkdtemp(prefix="picture-")).resolve()
    (folder / "home").mkdir()
    name = f"orchestrator-picture-{uuid.uuid4().hex[:8]}"
    terminal, agents = Tmux(f"{name}-terminal"), Tmux(f"{name}-agents")
    environment = {
        "PATH": f"{ROOT}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TMPDIR": str(folder),
        "UV_OFFLINE": "1",
        "TMUX_ORCHESTRATOR_SOCKET": str(agents.socket),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
    }
    try:
        return [Frame(frame.seconds, _shortened(frame.lines, folder)) for frame in _watch(terminal, environment)]
    finally:
        for door, words in (("claude_control.py", ("stop", "demo-impl")), ("scheduler.py", ("--stop",))):
            subprocess.run([ROOT / door, *words], env=environment, cwd=folder, capture_output=True, check=False)
        terminal.kill_session("demo")
        sockets = Path(os.environ.get("TMUX_TMPDIR", "/tmp")) / f"tmux-{os.getuid()}"
        for server in (terminal, agents):
            (sockets / str(server.socket)).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _watch(terminal: Tmux, environment: dict[str, str]) -> list[Frame]:
    variables = [f"{name}={value}" for name, value in environment.items()]
    script = f"cd {ROOT}; {COMMAND}; code=$?; echo; echo left with $code; exec sleep 60"
    words = ("-f", os.devnull, "new-session", "-d", "-s", "demo", *_SIZE, "env", "-i", *variables, "sh", "-c", script)
    subprocess.run(terminal.command(*words), env=environment, check=True)
    began, frames = time.monotonic(), list[Frame]()
    while time.monotonic() - began < _LONGEST_SECONDS:
        shown = terminal.run("capture-pane", "-e", "-p", "-J", "-S", "-", "-t", "=demo:").rstrip().splitlines()
        lines = tuple(line.rstrip() for line in shown)
        if lines and lines[-1].startswith("left with"):
            if lines[-1] != "left with 0":
                raise OrchestratorError(f"the demo failed: {lines[-3:]}")
            return frames
        if lines and (not frames or frames[-1].lines != lines):
            frames.append(Frame(time.monotonic() - began, lines))
        time.sleep(0.04)
    raise OrchestratorError("the demo has not ended")


def _shortened(lines: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The lines as they would be on a person's machine, without the folders of this run."""
    text = "\n".join(lines)
    text = re.sub(rf"{re.escape(str(folder))}/tmux-orchestrator-demo-\w+/demo", "~/demo", text)
    # A long line is cut by the demo itself, and may be cut inside such a path.
    text = re.sub(rf"{re.escape(str(folder.parent / 'picture-'))}\w*", "~", text.replace(str(folder / "home"), "~"))
    return tuple(text.splitlines())


if __name__ == "__main__":
    cli.run(main)
