"""tmux: text arrives exactly, and only where it was meant to; nothing of somebody else is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib.errors import NotFound, OrchestratorError, Unavailable
from lib.judgement.cleaning import clean
from lib.judgement.framing import chunks
from lib.tmux import ENTER, MINIMUM_VERSION, TESTED_VERSIONS, Tmux, is_tested, quote
from tests.conftest import ROOT, wait_for

#: A program that asks for bracketed pastes and keeps every byte that it is given.
LISTENER = """
import os, sys, termios, tty
tty.setraw(0)
os.write(1, b"\\x1b[?2004hready")
with open(sys.argv[1], "ab", buffering=0) as file:
    while data := os.read(0, 65536):
        file.write(data)
"""
BEGIN, END = b"\x1b[200~", b"\x1b[201~"


@dataclass
class Listener:
    """A pane that keeps what is typed into it."""

    tmux: Tmux
    pane: str
    pid: int
    path: Path

    def heard(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def end(self) -> None:
        os.kill(self.pid, 9)
        wait_for(lambda: self.tmux.look(self.pane).dead, "the pane to be dead", seconds=5)


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("TMUX", "TMUX_PANE"):
        monkeypatch.delenv(name, raising=False)
    server = Tmux(f"orchestrator-test-{uuid.uuid4().hex[:12]}")
    yield server
    if server.panes():
        server.run("kill-server")
    Path(f"/tmp/tmux-{os.getuid()}/{server.socket}").unlink(missing_ok=True)


@pytest.fixture
def session(tmux: Tmux) -> str:
    tmux.new_session("webapp-impl", orchestration="a1b2c3")
    return "webapp-impl"


def listen(tmux: Tmux, session: str, folder: Path, *, index: int = 0) -> Listener:
    path = folder / f"heard-{index}"
    argv = [sys.executable, "-c", LISTENER, str(path)]
    pane, pid = tmux.new_window(
        session, index=index, name="developer", cwd=folder, agent=index + 1, argv=argv, replace=None
    )
    wait_for(lambda: "ready" in tmux.look(pane).screen, "the listener")
    return Listener(tmux, pane, pid, path)


@pytest.fixture
def listener(tmux: Tmux, session: str, tmp_path: Path) -> Listener:
    return listen(tmux, session, tmp_path)


HOSTILE = [
    "hello",
    # The names of keys, options, tmux's own separators and formats.
    *("Enter", "C-c", "-R x", "--", "ends;", "ends\\;", ";", "a ; kill-server", "#{pane_id} #(touch PWNED) #[bold]"),
    # The shell.
    *("$(touch PWNED) `id` $HOME ~ * ?", 'it\'s "quoted" \\ back\\\\slash\\', "'", "''", '"', "%1 %if"),
    # Claude Code.
    *("/clear", "!rm", "#note", "@/etc/passwd"),
    # Lines, white space, signs.
    *("one\ntwo\n\nthree\n", "  indented   ", "päste ✓ 日本語 👩‍💻 e\u0301", "{ } [ ] ~", "set-buffer -b x -- 'y'"),
    # As a file of commands could end a line.
    *("a\\\nb", "a'\n'b", "\n'\nkill-server\n'", "# comment\nkill-server"),
]


class TestPaste:
    @pytest.mark.parametrize("text", [clean(text) for text in HOSTILE])
    def test_text_arrives_exactly(self, listener: Listener, text: str) -> None:
        listener.tmux.paste(listener.pane, listener.pid, [text])
        wanted = BEGIN + text.encode().replace(b"\n", b"\r") + END
        assert wait_for(lambda: listener.heard() if listener.heard().endswith(END) else b"", "the text") == wanted
        assert list(listener.path.parent.glob("PWNED")) == []

    def test_chunks_arrive_in_order_each_as_a_paste_of_its_own(self, listener: Listener) -> None:
        cut = [f"chunk {number}\n" for number in range(50)]
        listener.tmux.paste(listener.pane, listener.pid, cut)
        wanted = b"".join(BEGIN + chunk.encode().replace(b"\n", b"\r") + END for chunk in cut)
        wait_for(lambda: len(listener.heard()) >= len(wanted), "the chunks")
        assert listener.heard() == wanted

    def test_a_hundred_kilobytes_arrive_exactly(self, listener: Listener) -> None:
        text = "".join(f"line {number}: it's $HOME; päste ✓\n" for number in range(3000))
        assert len(text.encode()) > 90_000
        listener.tmux.paste(listener.pane, listener.pid, list(chunks(text)))
        wanted = text.encode().replace(b"\n", b"\r")

        def heard() -> bytes:
            return listener.heard().replace(BEGIN, b"").replace(END, b"")

        wait_for(lambda: len(heard()) >= len(wanted), "the text")
        assert heard() == wanted

    def test_no_buffer_and_no_file_is_left(self, listener: Listener, tmp_path: Path) -> None:
        listener.tmux.paste(listener.pane, listener.pid, ["a", "b"])
        listener.tmux.paste(listener.pane, listener.pid + 1, ["secret", "too"])
        assert listener.tmux.run("list-buffers") == ""
        assert list(tmp_path.glob("tmux-orchestrator-*")) == []

    def test_senders_at_once_do_not_mix(self, tmux: Tmux, session: str, tmp_path: Path) -> None:
        panes = [listen(tmux, session, tmp_path, index=index) for index in range(3)]
        program = (
            "import sys\nfrom lib.tmux import Tmux\n"
            "for n in range(10): Tmux(sys.argv[1]).paste(sys.argv[2], int(sys.argv[3]), [sys.argv[2]] * 20)\n"
        )
        started = [
            subprocess.Popen([sys.executable, "-c", program, str(tmux.socket), one.pane, str(one.pid)]) for one in panes
        ]
        assert [process.wait(60) for process in started] == [0, 0, 0]
        for one in panes:
            wanted = (BEGIN + one.pane.encode() + END) * 200
            wait_for(lambda one=one, wanted=wanted: len(one.heard()) >= len(wanted), "all pastes")  # type: ignore[misc]
            assert one.heard() == wanted


class TestGuard:
    def test_another_pid_gets_nothing(self, listener: Listener) -> None:
        listener.tmux.paste(listener.pane, listener.pid + 1, ["wrong"])
        listener.tmux.press(listener.pane, listener.pid + 1, ENTER)
        listener.tmux.paste(listener.pane, listener.pid, ["right"])
        wait_for(lambda: b"right" in listener.heard(), "the text")
        assert b"wrong" not in listener.heard() and b"\r" not in listener.heard()

    def test_a_dead_pane_gets_nothing_and_the_server_lives(self, tmux: Tmux, session: str, tmp_path: Path) -> None:
        dead, alive = (listen(tmux, session, tmp_path, index=index) for index in range(2))
        dead.end()
        for _ in range(3):
            tmux.paste(dead.pane, dead.pid, ["lost", "too"])
            tmux.press(dead.pane, dead.pid, ENTER)
        tmux.paste(alive.pane, alive.pid, ["hello"])
        wait_for(lambda: b"hello" in alive.heard(), "the text for the other")
        assert tmux.look(dead.pane).dead

    def test_a_process_that_took_its_place_gets_nothing(self, listener: Listener, tmp_path: Path) -> None:
        listener.end()
        shell = tmp_path / "shell"
        pane, pid = listener.tmux.new_window(
            "webapp-impl",
            index=0,
            name="developer",
            cwd=tmp_path,
            agent=1,
            argv=["sh", "-c", f"cat > {shell}"],
            replace=listener.pane,
        )
        assert pane == listener.pane and pid != listener.pid
        listener.tmux.paste(pane, listener.pid, ["touch PWNED"])
        listener.tmux.press(pane, listener.pid, ENTER)
        listener.tmux.paste(pane, pid, ["hello"])
        listener.tmux.press(pane, pid, ENTER)
        wait_for(lambda: shell.exists() and shell.read_text(), "the text")
        assert "hello" in shell.read_text() and "PWNED" not in shell.read_text()

    def test_a_pane_that_is_not_there_gets_nothing_and_leaves_nothing(self, listener: Listener) -> None:
        listener.tmux.paste("%4711", listener.pid, ["lost"])
        assert listener.tmux.run("list-buffers") == ""
        assert listener.heard() == b""
        assert listener.tmux.look(listener.pane).pid == listener.pid


class TestEnter:
    def test_enter_is_one_carriage_return(self, listener: Listener) -> None:
        listener.tmux.press(listener.pane, listener.pid, ENTER)
        wait_for(listener.heard, "Enter")
        assert listener.heard() == b"\r"

    def test_in_copy_mode_it_reaches_the_program_and_leaves_the_mode_alone(self, listener: Listener) -> None:
        listener.tmux.run("copy-mode", "-t", listener.pane)
        assert listener.tmux.look(listener.pane).in_mode
        listener.tmux.paste(listener.pane, listener.pid, ["hello"])
        listener.tmux.press(listener.pane, listener.pid, ENTER)
        look = listener.tmux.look(listener.pane)
        assert look.in_mode
        if look.is_frozen:
            assert listener.heard() == b""
            listener.tmux.run("send-keys", "-t", listener.pane, "-X", "cancel")
        wait_for(lambda: listener.heard().endswith(b"\r"), "Enter")
        assert listener.heard() == BEGIN + b"hello" + END + b"\r"


class TestSessions:
    def test_a_prefix_of_a_name_is_another_session(self, tmux: Tmux) -> None:
        tmux.new_session("webapp-impl-2", orchestration="other")
        assert tmux.orchestration_of("webapp-impl") is None
        assert tmux.orchestration_of("webapp-impl-2") == "other"
        assert not tmux.has_target("=webapp-impl")
        tmux.kill_session("webapp-impl")
        tmux.kill_session("webapp")
        assert tmux.has_target("=webapp-impl-2")

    def test_a_session_of_exactly_the_name_is_ended(self, tmux: Tmux) -> None:
        for name in ("webapp", "webapp-impl", "webapp-impl-2"):
            tmux.new_session(name, orchestration=name)
        tmux.kill_session("webapp-impl")
        assert {pane.session for pane in tmux.panes()} == {"webapp", "webapp-impl-2"}
        tmux.kill_session("webapp-impl")

    def test_a_session_that_a_person_made_has_no_mark(self, tmux: Tmux) -> None:
        tmux.run("new-session", "-d", "-s", "mine", "sleep", "60")
        assert tmux.orchestration_of("mine") == ""

    def test_a_name_that_is_taken_is_said(self, tmux: Tmux, session: str) -> None:
        with pytest.raises(OrchestratorError, match="duplicate session"):
            tmux.new_session(session, orchestration="other")
        assert tmux.orchestration_of(session) == "a1b2c3"

    def test_no_server_is_no_pane_and_no_error(self, tmux: Tmux) -> None:
        assert tmux.panes() == []
        assert tmux.orchestration_of("webapp-impl") is None
        tmux.kill_session("webapp-impl")
        with pytest.raises(NotFound):
            tmux.look("%0")

    def test_the_placeholder_goes_and_the_agents_stay(self, listener: Listener, session: str) -> None:
        assert len(listener.tmux.panes()) == 2
        listener.tmux.remove_placeholder(session)
        listener.tmux.remove_placeholder(session)
        assert [pane.id for pane in listener.tmux.panes()] == [listener.pane]

    def test_windows_keep_their_numbers_whatever_the_user_has_set(
        self, tmux: Tmux, session: str, tmp_path: Path
    ) -> None:
        tmux.run("set-option", "-g", "base-index", "1")
        tmux.run("set-option", "-g", "renumber-windows", "on")
        tmux.run("set-option", "-g", "automatic-rename", "on")
        made = [listen(tmux, session, tmp_path, index=index) for index in (0, 1, 2)]
        tmux.remove_placeholder(session)
        tmux.run("kill-window", "-t", made[1].pane)
        found = {pane.id: (pane.window, pane.window_name) for pane in tmux.panes()}
        assert found == {made[0].pane: (0, "developer"), made[2].pane: (2, "developer")}


class TestWindows:
    def test_arguments_reach_the_program_exactly(self, tmux: Tmux, session: str, tmp_path: Path) -> None:
        words = ["a b", "it's", "$HOME", "ends;", ";", "#{pane_id}", "", "-x", "ü", '"', "\\", "\\;"]
        path = tmp_path / "words"
        program = "import sys; open(sys.argv[1], 'w').write('\\0'.join(sys.argv[2:]))"
        tmux.new_window(
            session,
            index=0,
            name="developer",
            cwd=tmp_path,
            agent=1,
            argv=[sys.executable, "-c", program, str(path), *words],
            replace=None,
        )
        wait_for(lambda: path.exists() and path.read_text(), "the program")
        assert path.read_text().split("\0") == words

    def test_a_pane_tells_whose_it_is(self, listener: Listener) -> None:
        (pane,) = (pane for pane in listener.tmux.panes() if pane.agent)
        assert (pane.id, pane.pid, pane.agent, pane.dead) == (listener.pane, listener.pid, "1", False)
        assert (pane.session, pane.window, pane.window_name) == ("webapp-impl", 0, "developer")

    def test_a_name_with_a_colon_or_a_tab_does_not_confuse_the_list(self, listener: Listener) -> None:
        try:
            listener.tmux.run("rename-window", "-t", listener.pane, "a:b.c\td=#x")
        except OrchestratorError as error:  # tmux 3.7 and newer take no such name
            assert "invalid window name" in error.sentence
            listener.tmux.run("rename-window", "-t", listener.pane, "a b=x")
        (pane,) = (pane for pane in listener.tmux.panes() if pane.agent)
        assert pane.id == listener.pane
        assert pane.window_name.startswith(("a:b.c", "a b=x"))

    def test_a_window_that_a_person_opened_where_an_agents_belongs_is_moved(
        self, tmux: Tmux, session: str, tmp_path: Path
    ) -> None:
        for index, name in ((0, "mine"), (1, "mine too"), (100, "far")):
            tmux.run("new-window", "-d", "-t", f"={session}:{index}", "-n", name, "sleep", "600")
        made = listen(tmux, session, tmp_path, index=0)
        windows = {pane.window_name: pane.window for pane in tmux.panes()}
        # The placeholder is called after its program, as soon as tmux has looked.
        assert windows.items() >= {"developer": 0, "mine": 101, "mine too": 1, "far": 100}.items()
        assert {pane.window for pane in tmux.panes() if pane.id == made.pane} == {0}

    def test_hooks_that_split_and_start_again_leave_an_agents_pane_alone(
        self, tmux: Tmux, session: str, tmp_path: Path
    ) -> None:
        tmux.run("set-hook", "-g", "after-new-window", "split-window -h 'sleep 600'")
        tmux.run("set-hook", "-g", "pane-died", "respawn-pane")
        made = listen(tmux, session, tmp_path)
        assert [pane.id for pane in tmux.panes() if pane.window == 0] == [made.pane]
        made.end()
        (pane,) = (pane for pane in tmux.panes() if pane.agent)
        assert (pane.id, pane.dead) == (made.pane, True)

    @pytest.mark.parametrize(
        ("script", "words"),
        # The short sleep gives tmux the time to read what was said: without it the words may be lost.
        [("echo last words; sleep 0.5", "last words"), ("exit 3", "nothing that tmux kept, exit status 3")],
    )
    def test_the_last_words_of_a_program_that_ended_are_told(
        self, tmux: Tmux, session: str, tmp_path: Path, script: str, words: str
    ) -> None:
        argv = ["sh", "-c", script]
        pane, _ = tmux.new_window(session, index=0, name="x", cwd=tmp_path, agent=1, argv=argv, replace=None)
        wait_for(lambda: tmux.look(pane).dead, "the end")
        assert tmux.last_words(pane) == words

    def test_a_program_that_has_said_nothing_yet_and_a_window_that_is_gone_have_no_last_words(
        self, tmux: Tmux, session: str, tmp_path: Path
    ) -> None:
        argv = ["sleep", "600"]
        pane, _ = tmux.new_window(session, index=0, name="x", cwd=tmp_path, agent=1, argv=argv, replace=None)
        assert tmux.last_words(pane) == "nothing"
        tmux.run("kill-pane", "-t", pane)
        assert tmux.last_words(pane) == "its window is gone"


VALUES = {
    "PLAIN": "value",
    "EMPTY": "",
    "SPACES": "  two  words  ",
    "QUOTES": 'it\'s "quoted" `x` \\ \\\\',
    "DOLLAR": "$HOME ${HOME} #{pane_id} ~",
    "SEPARATORS": "a;b ; c",
    "SIGNS": "ü✓日本語",
    "LINES": "one\ntwo",
    "EQUALS": "a=b=c",
    "DASH": "-x",
}


def test_environment_values_arrive_exactly(tmux: Tmux, session: str, tmp_path: Path) -> None:
    tmux.set_environment(session, VALUES)
    path = tmp_path / "environment"
    program = f"import os; open({str(path)!r}, 'w').write(repr({{n: os.environ.get(n) for n in {list(VALUES)!r}}}))"
    tmux.new_window(
        session, index=0, name="x", cwd=tmp_path, agent=1, argv=[sys.executable, "-c", program], replace=None
    )
    wait_for(lambda: path.exists() and path.read_text(), "the program")
    assert eval(path.read_text(), {}) == VALUES
    assert tmux.run("show-environment", "-g").count("QUOTES") == 0


def test_no_values_are_no_command(tmux: Tmux, session: str) -> None:
    tmux.set_environment(session, {})


@pytest.mark.parametrize("text", ["", "a", "'", "''", "a'b", "\\", "$x", "#{x}", ";"])
def test_quoting_is_undone_by_tmux(tmux: Tmux, session: str, tmp_path: Path, text: str) -> None:
    commands = tmp_path / "commands"
    commands.write_text(f"set-option -g @quoted {quote(text)}\n")
    tmux.run("source-file", str(commands))
    assert tmux.run("show-option", "-gv", "@quoted") == text + "\n"


class TestServer:
    @pytest.mark.parametrize(
        ("socket", "path", "is_it"),
        [
            (None, "/tmp/tmux-0/default", True),
            (None, "/tmp/tmux-0/other", False),
            ("other", "/tmp/tmux-0/other", True),
            ("other", "/tmp/tmux-0/default", False),
            ("/srv/s", "/srv/s", True),
            ("/srv/s", "/tmp/s", False),
        ],
    )
    def test_a_server_is_known_by_its_socket(self, socket: str | None, path: str, is_it: bool) -> None:
        assert Tmux(socket).is_at(path) is is_it

    def test_a_path_names_a_server_too(self, tmp_path: Path, tmux: Tmux) -> None:
        other = Tmux(str(tmp_path / "socket"))
        other.new_session("x", orchestration="o")
        assert (tmp_path / "socket").exists()
        assert tmux.panes() == []
        other.run("kill-server")

    def test_the_version_is_checked(self, tmp_path: Path, tmux: Tmux, monkeypatch: pytest.MonkeyPatch) -> None:
        assert tmux.check()[0].isdigit()
        fake = tmp_path / "tmux"
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
            for said, is_taken in (("2.9a", False), ("3.0", True), ("next-3.6", True), ("master", True)):
                fake.write_text(f"#!/bin/sh\necho tmux {said}\n")
                fake.chmod(0o755)
                if is_taken:
                    assert tmux.check() == said
                else:
                    with pytest.raises(Unavailable, match=r"2\.9a is too old: 3\.0 or newer"):
                        tmux.check()

    @pytest.mark.parametrize(
        ("version", "is_so"),
        [("3.0a", False), ("3.1c", True), ("3.8", True), ("3.10", False), ("4.0", False), ("next-3.7", False)],
    )
    def test_which_versions_are_tested(self, version: str, is_so: bool) -> None:
        assert is_tested(version) is is_so

    def test_what_people_read_names_the_same_versions(self) -> None:
        needed, oldest, newest = (".".join(map(str, one)) for one in (MINIMUM_VERSION, *TESTED_VERSIONS))
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert f"| tmux | {needed} |" in readme and f"tmux {oldest} to {newest} was run" in readme
        assert f"readonly NEEDED_TMUX={needed}\n" in (ROOT / "setup.sh").read_text(encoding="utf-8")
        table = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
        assert f"| {oldest}" in table and f"| {newest} |" in table

    def test_a_server_that_ends_while_it_is_asked_shows_no_pane(
        self, tmp_path: Path, tmux: Tmux, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As tmux 3.3a was seen to do: no output, no words, exit code 0.
        (tmp_path / "tmux").write_text("#!/bin/sh\n")
        (tmp_path / "tmux").chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
            for ask in (lambda: tmux.look("%1"), lambda: tmux.screens(["%1", "%2"])):
                with pytest.raises(NotFound, match="has just ended"):
                    ask()

    def test_a_machine_without_tmux_is_told_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        for ask in (Tmux("x").check, Tmux("x").panes):
            with pytest.raises(Unavailable, match="not installed"):
                ask()

    def test_a_server_that_cannot_be_asked_is_not_one_without_panes(self, tmp_path: Path) -> None:
        (tmp_path / "socket").mkdir()
        with pytest.raises(OrchestratorError):
            Tmux(str(tmp_path / "socket" / ("x" * 200))).panes()
