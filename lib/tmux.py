"""tmux, in tmux's own words: the only room that runs the tmux command.

Facts about tmux were measured with 3.3a. Text for an agent never travels as an argument: it is pasted
from buffers that a private file of commands sets (see `paste`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import NotFound, OrchestratorError, Unavailable

#: Keys, as a terminal sends them.
ENTER, ESCAPE, CTRL_S = "\r", "\x1b", "\x13"

#: Older servers lack `-e` of new-window and nested formats that the guards use.
MINIMUM_VERSION = (3, 0)

#: What tmux says when nobody listens on the socket, or the server is just leaving; anything else is "could not look".
_NO_SERVER = re.compile(
    r"no server running on|error connecting to .*\(No such file or directory\)|no sessions|server exited unexpectedly"
    r"|no current target"
)
_NO_TARGET = ("can't find pane", "can't find window", "can't find session", "no such window")

_PANE_FORMAT = "\t".join(
    f"#{{{name}}}"
    for name in (
        "session_name",
        "window_index",
        "pane_id",
        "pane_pid",
        "pane_dead",
        "pane_current_command",
        "@orchestrator_agent",
        "pane_active",
        "window_name",
    )
)


@dataclass(frozen=True)
class Pane:
    """One pane as tmux lists it. `agent` is the id that we wrote on the pane, or ""."""

    session: str
    window: int
    id: str
    pid: int
    dead: bool
    command: str
    agent: str
    active: bool
    window_name: str


@dataclass(frozen=True)
class Look:
    """One look at a pane: liveness and screen from the same moment."""

    pid: int
    dead: bool
    in_mode: bool
    height: int
    screen: str


class Tmux:
    """A tmux server, by its socket: None is the user's default server, a name is -L, a path is -S."""

    def __init__(self, socket: str | None = None) -> None:
        self.socket = socket
        # Named even when it is the default one: inside of another server plain tmux would mean that one.
        self._server = ["-S" if socket and "/" in socket else "-L", socket or "default"]

    @classmethod
    def from_environment(cls) -> Tmux:
        """The server named by $TMUX_ORCHESTRATOR_SOCKET, else the user's default server."""
        return cls(os.environ.get("TMUX_ORCHESTRATOR_SOCKET") or None)

    def is_at(self, path: str) -> bool:
        """Whether this is the server whose socket is at `path` (the first field of $TMUX)."""
        if self.socket and "/" in self.socket:
            return Path(path) == Path(self.socket)
        return Path(path).name == (self.socket or "default")

    # -- asking --

    def check(self) -> str:
        """The version of tmux. Raises `Unavailable` when tmux is missing or too old."""
        if shutil.which("tmux") is None:
            raise Unavailable("tmux is not installed", hint="./setup.sh")
        text = self.run("-V").strip()
        number = re.search(r"(\d+)\.(\d+)", text)
        # "tmux master" and "tmux next-3.6" have no plain number in front and are newer than any release.
        if number and not text.startswith("tmux next") and (int(number[1]), int(number[2])) < MINIMUM_VERSION:
            raise Unavailable(
                f"{text} is too old: {'.'.join(map(str, MINIMUM_VERSION))} or newer is needed",
                hint="./setup.sh",
            )
        return text.removeprefix("tmux ")

    def panes(self) -> list[Pane]:
        """Every pane of the server; an empty list when no server runs. One tmux call."""
        try:
            lines = self.run("list-panes", "-a", "-F", _PANE_FORMAT).splitlines()
        except NotFound:
            return []
        return [_pane(line) for line in lines]

    def command(self, *arguments: str) -> list[str]:
        """The command line of this server, for a program that replaces itself by tmux."""
        return ["tmux", *self._server, *arguments]

    def has_target(self, target: str) -> bool:
        """Whether a session (`=name` for exactly this name) or pane exists."""
        try:
            self.run("has-session", "-t", target)
        except NotFound:
            return False
        return True

    def is_attached(self, session: str) -> bool:
        """Whether somebody looks at a session now; False as well when there is none of that name."""
        try:
            return self.run("display-message", "-p", "-t", f"={session}:", "#{session_attached}").strip() not in (
                "",
                "0",
            )
        except NotFound:
            return False

    def look(self, pane: str) -> Look:
        """Liveness and visible screen of a pane in one tmux call. Raises `NotFound`."""
        output = self.run(
            *("display-message", "-p", "-t", pane, "#{pane_pid} #{pane_dead} #{pane_in_mode} #{pane_height}"),
            *(";", "capture-pane", "-e", "-p", "-t", pane),
        )
        head, _, screen = output.partition("\n")
        pid, dead, in_mode, height = head.split()
        return Look(int(pid), dead == "1", in_mode == "1", int(height), screen)

    def text(self, pane: str, *, agent: int, lines: int | None = None) -> str | None:
        """What a pane of an agent shows, or its last lines with those scrolled out; None when it has no such pane."""
        if not any(one.id == pane and one.agent == str(agent) for one in self.panes()):
            return None
        above = () if lines is None else ("-S", f"-{lines}")
        try:
            shown = self.run("capture-pane", "-p", *above, "-t", pane).rstrip("\n").split("\n")
        except NotFound:
            return None
        return "\n".join(shown if lines is None else shown[-lines:])

    # -- changing --

    def new_session(self, name: str, *, orchestration: str, width: int = 200, height: int = 50) -> None:
        """Create a detached session that bears our mark, with one idle window out of the agents' way.

        That window keeps the session alive until the agents have theirs: `remove_placeholder` ends it.
        """
        target = f"={name}:"
        self.run(
            *("new-session", "-d", "-s", name, "-x", str(width), "-y", str(height), *_PLACEHOLDER_COMMAND),
            *(";", "set-option", "-t", target, "@orchestration", orchestration),
            *(";", "set-option", "-t", target, "renumber-windows", "off"),
            # A user's `on` would end the session as soon as nobody looks at it: at once.
            *(";", "set-option", "-t", target, "destroy-unattached", "off"),
            *(";", "move-window", "-s", target, "-t", f"{target}{_PLACEHOLDER_INDEX}"),
        )

    def remove_placeholder(self, name: str) -> None:
        """End the idle window of `new_session`; nothing happens when it has ended already."""
        panes = [pane for pane in self.panes() if pane.session == name and not pane.agent]
        if any(pane.window == _PLACEHOLDER_INDEX for pane in panes):
            self.run("kill-window", "-t", f"={name}:{_PLACEHOLDER_INDEX}")

    def orchestration_of(self, session: str) -> str | None:
        """The mark that `new_session` left on a session: an orchestration's id, "" for a foreign session, or None."""
        try:
            said = self.run("display-message", "-p", "-t", f"={session}:", "#{session_name}\t#{@orchestration}")
        except NotFound:
            return None
        # Of a session that is not there tmux prints empty fields, and no error.
        name, _, mark = said.rstrip("\n").partition("\t")
        return mark if name == session else None

    def set_environment(self, session: str, values: Mapping[str, str]) -> None:
        """Set variables of a session, by a private file: values may be secrets, and arguments can be seen."""
        lines = [f"set-environment -t {quote('=' + session)} {name} {quote(value)}" for name, value in values.items()]
        self._source(lines)

    def new_window(
        self,
        session: str,
        *,
        index: int,
        name: str,
        cwd: Path,
        agent: int,
        argv: Sequence[str],
        replace: str | None,
    ) -> tuple[str, int]:
        """Start a program as the pane's own process, with no shell beneath. Returns (pane id, pid).

        The pane stays when the program ends (`remain-on-exit`), so that its last screen can be read;
        every paste is guarded against that. `replace` names a pane to start in instead of a new window: what still
        runs there is ended.
        """
        if replace:
            start = ["respawn-pane", "-k", "-t", replace, "-c", _no_format(cwd), *_literal(argv)]
        else:
            start = [
                *("new-window", "-d", "-t", f"={session}:{index}", "-n", name, "-c", _no_format(cwd)),
                *_literal(argv),
            ]
        target = replace or f"={session}:{index}"
        output = self.run(
            *start,
            *(";", "set-option", "-w", "-t", target, "remain-on-exit", "on"),
            *(";", "set-option", "-w", "-t", target, "automatic-rename", "off"),
            *(";", "set-option", "-w", "-t", target, "allow-rename", "off"),
            *(";", "rename-window", "-t", target, name),
            *(";", "set-option", "-p", "-t", target, "@orchestrator_agent", str(agent)),
            *(";", "display-message", "-p", "-t", target, "#{pane_id} #{pane_pid}"),
        )
        pane, pid = output.split()
        return pane, int(pid)

    def paste(self, pane: str, pid: int, chunks: Sequence[str], *, command: str | None = None) -> None:
        """Paste chunks in order, each as a bracketed paste, and only while `pid` is the pane's live process.

        `command` names what must be in the foreground besides, for a program that runs in a shell.

        The guard is evaluated inside the server together with the pastes, and they run in one piece: pasting
        into a dead pane kills the server of tmux 3.3a, a pane whose process was replaced may be a shell, and a
        sender that dies half-way leaves all of the text or none.
        """
        # Bracketed here and not by `paste-buffer -p`, which leaves the brackets out in copy mode: then every end
        # of a line would be Enter.
        bracketed = ["\x1b[200~" + chunk.replace("\n", "\r") + "\x1b[201~" for chunk in chunks]
        self._paste_guarded(pane, pid, bracketed, command)

    def press(self, pane: str, pid: int, key: str, *, command: str | None = None) -> None:
        """Press a key (ENTER, ESCAPE, CTRL_S) under the same guard as `paste`.

        It goes by way of a buffer, which works in copy mode too and leaves that alone.
        """
        self._paste_guarded(pane, pid, [key], command)

    def _paste_guarded(self, pane: str, pid: int, chunks: Sequence[str], command: str | None) -> None:
        # Buffer names are global to the server: two senders with the same names damage each other's text.
        name = f"orchestrator-{os.getpid()}-{os.urandom(4).hex()}"
        names = [f"{name}-{number}" for number in range(len(chunks))]
        alive = f"#{{&&:#{{==:#{{pane_dead}},0}},#{{==:#{{pane_pid}},{pid}}}}}"
        if command is not None:
            alive = f"#{{&&:{alive},#{{==:#{{pane_current_command}},{command}}}}}"
        pastes = " ; ".join(f"paste-buffer -r -d -b {buffer} -t {pane}" for buffer in names)
        discards = " ; ".join(f"delete-buffer -b {buffer}" for buffer in names)
        self._source(
            [
                *(f"set-buffer -b {buffer} -- {quote(chunk)}" for buffer, chunk in zip(names, chunks, strict=True)),
                f"if-shell -F -t {pane} {quote(alive)} {quote(pastes)} {quote(discards)}",
            ]
        )

    def kill_session(self, name: str) -> None:
        """End a session of exactly this name; nothing happens when there is none."""
        try:
            self.run("kill-session", "-t", f"={name}")
        except NotFound:
            return

    # -- running --

    def run(self, *arguments: str) -> str:
        """Run tmux with arguments (`;` separates commands) and return what it prints.

        Raises `NotFound` when no server runs or the target is not there, `Unavailable` when tmux is missing,
        else `OrchestratorError` with tmux's own words.
        """
        try:
            # -u: how tmux prints what it captured must not depend on the caller's locale.
            done = subprocess.run(
                ["tmux", "-u", *self._server, *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except FileNotFoundError as error:
            raise Unavailable("tmux is not installed", hint="./setup.sh") from error
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
        words = done.stderr.decode("utf-8", "replace").strip()
        if _NO_SERVER.match(words):
            raise NotFound("no tmux server is running", hint="tmux ls")
        if words.startswith(_NO_TARGET):
            raise NotFound(words, hint="tmux list-windows -a")
        raise OrchestratorError(f"tmux: {words or f'exit code {done.returncode}'}")

    def _source(self, commands: Sequence[str]) -> None:
        """Run commands from a private file, for what must not be seen in a process list or is too long for one."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", prefix="tmux-orchestrator-") as file:
            file.write("\n".join(commands) + "\n")
            file.flush()
            self.run("source-file", file.name)


#: What keeps a new session alive until its agents are there, far from the indices that agents use.
_PLACEHOLDER_COMMAND = ("sleep", "86400")
_PLACEHOLDER_INDEX = 99


def quote(text: str) -> str:
    """Quote for tmux's command parser, which joins quoted pieces like a shell.

    Between single quotes nothing is special but the end of a line: the parser of 3.3a takes a backslash before it
    away, and the spaces and the #comment after it. So a line's end stands by itself, as an escape.
    """
    return "'" + text.replace("'", "'\"'\"'").replace("\n", "'\"\\n\"'") + "'"


def _no_format(path: Path) -> str:
    # tmux expands -c as a format, in which #( ) runs a command.
    return str(path).replace("#", "##")


def _literal(argv: Sequence[str]) -> list[str]:
    # A trailing ; of an argument would end the command.
    return [word[:-1] + "\\;" if word.endswith(";") else word for word in argv]


def _pane(line: str) -> Pane:
    session, window, pane, pid, dead, command, agent, active, window_name = line.split("\t", 8)
    return Pane(session, int(window), pane, int(pid), dead == "1", command, agent, active == "1", window_name)
