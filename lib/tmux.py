"""tmux, in tmux's own words: the only room that runs the tmux command.

Facts about tmux were measured with 3.3a. Text for an agent never travels as an argument: it is pasted
from buffers that a private file of commands sets (see `paste`).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.records import dataclass

#: Keys, as a terminal sends them.
ENTER, ESCAPE, CTRL_S = "\r", "\x1b", "\x13"

#: Older servers lack options of panes, regular expressions in formats, and escapes in quoted text.
MINIMUM_VERSION = (3, 0)
#: The oldest and the newest that did everything in the tests (docs/compatibility.md).
TESTED_VERSIONS = ((3, 1), (3, 8))

#: True of servers whose paste-buffer types ^[ for an escape, as from 3.7 on, unless it is told -S.
_MAKES_KEYS_VISIBLE = "#{m/r:^(next-)?(3[.]([7-9]|[1-9][0-9])|[4-9])|master,#{version}}"

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
        "window_activity",
        "pane_width",
        "pane_height",
        "window_name",
    )
)

_IS_FROZEN = "#{&&:#{m/r:^3[.][01][a-z]?$,#{version}},#{pane_in_mode}}"
_LOOK_FORMAT = "\t".join(("#{pane_pid}", "#{pane_dead}", "#{pane_in_mode}", _IS_FROZEN, "#{pane_height}"))


@dataclass(frozen=True)
class Pane:
    """One pane as tmux lists it. `agent` is the id that we wrote on the pane, or "".

    `printed_at` is when a program last wrote to its window, in seconds of the clock on the wall; `columns` and `rows`
    are its size in cells. tmux 3.8 knows no `pid` of a dead pane: then it is 0.
    """

    session: str
    window: int
    id: str
    pid: int
    dead: bool
    command: str
    agent: str
    active: bool
    printed_at: int
    columns: int
    rows: int
    window_name: str


@dataclass(frozen=True)
class Look:
    """One look at a pane: liveness and screen from the same moment. `pid` as in `Pane`.

    A pane in a mode, such as copy mode, `is_frozen` before tmux 3.2: its program is told nothing, and shows nothing.
    """

    pid: int
    dead: bool
    in_mode: bool
    is_frozen: bool
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

    def check_stays(self) -> None:
        """Raise `Unavailable` when the server that runs now would end, with all agents, once nobody is attached."""
        try:
            _check_stays(self.run("show-options", "-sv", "exit-unattached"))
        except NotFound:  # the server that the first session starts is asked then
            return

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
            *("display-message", "-p", "-t", pane, _LOOK_FORMAT),
            *(";", "capture-pane", "-e", "-p", "-t", pane),
        )
        head, _, screen = output.partition("\n")
        if not head:
            raise _ended_meanwhile()
        pid, dead, in_mode, is_frozen, height = head.split("\t")
        return Look(int(pid or 0), dead == "1", in_mode != "0", is_frozen == "1", int(height), screen)

    def last_words(self, pane: str) -> str:
        """The last line of what a pane's program printed, to be told of one that ended or does not begin.

        A program that ends at once may have printed more than there is: tmux (3.3a, 1.7 % of 3,000 tries on a busy
        machine) throws away what it has not read by then. So where there is nothing the exit status is told.
        """
        try:
            # tmux 3.3a may miss that a child has ended; the end of another one makes it look for all of them.
            # With the lines above: remain-on-exit scrolls the screen by one, and the first line may be the only one.
            output = self.run(
                *("run-shell", "true", ";", "display-message", "-p", "-t", pane, "#{pane_dead_status}"),
                *(";", "capture-pane", "-p", "-S", "-20", "-t", pane),
            )
        except NotFound:
            return "its window is gone"
        status, _, text = output.partition("\n")
        # The line that remain-on-exit adds says only that the pane is dead.
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Pane is dead")]
        if lines:
            return lines[-1]
        return f"nothing that tmux kept, exit status {status}" if status else "nothing"

    def screens(self, panes: Sequence[str]) -> dict[str, str]:
        """The visible screens of several panes, with their colours, in one tmux call.

        Raises `NotFound` when one of them has just gone.
        """
        if not panes:
            return {}
        # What a program draws cannot hold the line that separates two screens: it is made here and now.
        mark = f"orchestrator-{os.urandom(8).hex()}"
        captures = [
            word
            for pane in panes
            for word in ("display-message", "-p", mark, ";", "capture-pane", "-e", "-p", "-t", pane, ";")
        ]
        shown = self.run(*captures[:-1]).split(f"{mark}\n")[1:]
        if len(shown) < len(panes):
            raise _ended_meanwhile()
        return dict(zip(panes, shown, strict=True))

    def text(self, pane: str, *, agent: int, lines: int | None = None, colours: bool = False) -> str | None:
        """What a pane of an agent shows, or its last lines with those scrolled out; None when it has no such pane.

        With `colours` the text has the escape sequences of its colours.
        """
        if not any(one.id == pane and one.agent == str(agent) for one in self.panes()):
            return None
        how = ("-e",) if colours else ()
        above = () if lines is None else ("-S", f"-{lines}")
        try:
            shown = self.run("capture-pane", "-p", *how, *above, "-t", pane).rstrip("\n").split("\n")
        except NotFound:
            return None
        return "\n".join(shown if lines is None else shown[-lines:])

    # -- changing --

    def new_session(self, name: str, *, orchestration: str, width: int = 200, height: int = 50) -> None:
        """Create a detached session that bears our mark, with one idle window out of the agents' way.

        That window keeps the session alive until the agents have theirs: `remove_placeholder` ends it. Raises as
        `check_stays` does.
        """
        target = f"={name}:"
        said = self.run(
            *("new-session", "-d", "-s", name, "-x", str(width), "-y", str(height), *_PLACEHOLDER_COMMAND),
            *(";", "set-option", "-t", target, "@orchestration", orchestration),
            *(";", "set-option", "-t", target, "renumber-windows", "off"),
            # A user's `on` would end the session as soon as nobody looks at it: at once.
            *(";", "set-option", "-t", target, "destroy-unattached", "off"),
            # A user's hook that splits a new window would have its pane marked as the agent's.
            *(";", "set-hook", "-t", target, "after-new-window", ""),
            # The first one, whatever a hook has opened after it.
            *(";", "move-window", "-s", f"{target}^", "-t", f"{target}{_PLACEHOLDER_INDEX}"),
            *(";", "show-options", "-sv", "exit-unattached"),
        )
        _check_stays(said)

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
        runs there is ended. A window that somebody has opened at `index` is moved to a higher one.
        """
        if replace:
            start = ["respawn-pane", "-k", "-t", replace, "-c", _no_format(cwd), *_literal(argv)]
        else:
            self._clear_index(session, index)
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
            # A user's hook that starts what has ended would start an agent that nobody knows of.
            *(";", "set-hook", "-t", target, "pane-died", ""),
            *(";", "rename-window", "-t", target, name),
            *(";", "set-option", "-p", "-t", target, "@orchestrator_agent", str(agent)),
            *(";", "display-message", "-p", "-t", target, "#{pane_id} #{pane_pid}"),
        )
        pane, pid = output.split()
        return pane, int(pid)

    def _clear_index(self, session: str, index: int) -> None:
        taken = {pane.window for pane in self.panes() if pane.session == session}
        if index in taken:
            free = next(number for number in itertools.count(_PLACEHOLDER_INDEX + 1 + index) if number not in taken)
            self.run("move-window", "-d", "-s", f"={session}:{index}", "-t", f"={session}:{free}")

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
        discards = " ; ".join(f"delete-buffer -b {buffer}" for buffer in names)

        def guarded(flags: str) -> str:
            pastes = " ; ".join(f"paste-buffer {flags} -b {buffer} -t {pane}" for buffer in names)
            return f"if-shell -F -t {pane} {quote(alive)} {quote(pastes)} {quote(discards)}"

        self._source(
            [
                *(f"set-buffer -b {buffer} -- {quote(chunk)}" for buffer, chunk in zip(names, chunks, strict=True)),
                *(f'%if "{_MAKES_KEYS_VISIBLE}"', guarded("-r -d -S"), "%else", guarded("-r -d"), "%endif"),
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


def _check_stays(said: str) -> None:
    if said.split()[-1:] == ["on"]:  # a user's hooks may say something before
        raise Unavailable(
            "tmux has exit-unattached on: it ends all agents as soon as nobody looks at it",
            hint="tmux set-option -s exit-unattached off, also in ~/.tmux.conf",
        )


def _ended_meanwhile() -> NotFound:
    """tmux 3.3a leaves with 0 and prints nothing when its server is killed while it waits for the answer."""
    return NotFound("the tmux server has just ended", hint="tmux ls")


#: What keeps a new session alive until its agents are there, far from the indices that agents use.
_PLACEHOLDER_COMMAND = ("sleep", "86400")
_PLACEHOLDER_INDEX = 99


def is_tested(version: str) -> bool:
    """Whether a version, as `check` returns it, is in the range of those that were tested."""
    number = re.match(r"(\d+)\.(\d+)", version)
    oldest, newest = TESTED_VERSIONS
    return number is not None and oldest <= (int(number[1]), int(number[2])) <= newest


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
    session, window, pane, pid, dead, command, agent, active, printed, columns, rows, name = line.split("\t", 11)
    return Pane(
        *(session, int(window), pane, int(pid or 0), dead == "1", command, agent, active == "1"),
        *(int(printed or 0), int(columns), int(rows), name),
    )
