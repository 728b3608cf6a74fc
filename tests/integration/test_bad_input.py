"""Bad words, files, settings and machines: one clear sentence, the right exit code, and nothing made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import errands
from lib.errors import ExitCode
from lib.merging import integrations
from tests.conftest import ROOT, SPEC, Bench, Done, isolated, wait_for

DOOR = "auto_orchestrate.py"
#: The only agent of the teams here.
HUB = "webapp-impl:orchestrator"
ALONE = ("--roles", "orchestrator", "--agent", "rehearsal")

#: What the real one answers (2.1.330): its version, and whether it is logged in.
GOOD_VERSION = "2.1.330 (Claude Code)"
LOGGED_IN = '{"loggedIn": true, "authMethod": "api_key"}'


#: An exit code, what is said, and the words of a door.
Case = tuple[ExitCode, str, *tuple[str, ...]]


@dataclass(frozen=True)
class Things:
    """All that a person has: every file outside of the state home, every pane with its screen, every team."""

    files: dict[str, bytes | str]
    panes: list[tuple[str, int, str, int, str]]
    teams: list[tuple[str, str]]


def things(bench: Bench) -> Things:
    files: dict[str, bytes | str] = {}
    for path in sorted(bench.folder.rglob("*")):
        name = str(path.relative_to(bench.folder))
        if path.is_symlink():
            files[name] = f"link to {path.readlink()}"
        elif not path.is_relative_to(bench.home):
            files[name] = path.read_bytes() if path.is_file() else "folder"
    panes = [
        # An agent at work shows for how long.
        (pane.session, pane.window, pane.window_name, pane.pid, re.sub(r"\(\d+s\)", "", bench.screen(pane.id)))
        for pane in bench.tmux.panes()
    ]
    return Things(files, panes, teams(bench))


def teams(bench: Bench) -> list[tuple[str, str]]:
    """Session and status of every orchestration in the store; none while there is no usable store."""
    try:
        db = sqlite3.connect(f"{(bench.home / 'orchestrator.db').as_uri()}?mode=ro", uri=True)
        return [tuple(row) for row in db.execute("SELECT session, status FROM orchestrations ORDER BY created_at")]
    except sqlite3.DatabaseError:
        return []


def said(done: Done) -> str:
    """The one sentence of a refusal, with its hint: no answer, no traceback, no second error."""
    assert done.out == ""
    assert len(re.findall(r"^error: ", done.err, re.MULTILINE | re.IGNORECASE)) == 1, done.err
    assert "Traceback" not in done.err and "bug:" not in done.err, done.err
    return done.err


def refused(bench: Bench, code: ExitCode, *command: str, says: tuple[str, ...], cwd: Path | None = None) -> Done:
    """Run a door that has to refuse: by this code, in words that hold `says`, with nothing changed."""
    before = things(bench)
    done = bench.door(*command, cwd=cwd)
    assert done.code == code, f"{command} -> {done.code}\n{done.out}\n{done.err}"
    words = said(done)
    assert [word for word in says if word not in words] == [], words
    after = things(bench)
    assert after.files == before.files
    assert after.panes == before.panes
    assert after.teams == before.teams
    return done


def launch(bench: Bench, project: Path, *more: str) -> Done:
    return bench.ok(DOOR, "--project", str(project), "--spec", str(project / "spec.md"), *(more or ALONE))


def program(folder: Path, name: str, script: str) -> Path:
    """A program of our own, first on the PATH when `folder` is."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def path_of_only(bench: Bench, *names: str) -> None:
    """Let the doors find only these programs."""
    folder = bench.folder / "bin"
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    bench.environment["PATH"] = str(folder)


def settings(bench: Bench, text: str | bytes) -> Path:
    path = bench.folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(path)
    return path


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A machine whose one team has done its work and waits: shared, since nothing may change it."""
    with isolated(tmp_path_factory.mktemp("idle")) as made:
        launch_to_the_end(made)
        yield made


def launch_to_the_end(bench: Bench) -> Path:
    """Launch a team of one in a new project, and wait until it has done its work and waits."""
    project = bench.project()
    launch(bench, project)
    wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
    wait_for(lambda: "idle" in bench.ok("claude_control.py", "status").out, "an idle agent")
    # The work moves the starting branch, the tag and the log of both in the user's repository, after the report.
    wait_for(lambda: is_delivered(bench), "the delivery")
    return project


def is_delivered(bench: Bench) -> bool:
    """Whether the only team's work is on the starting branch, and nobody is at it any more."""
    (row,) = bench.rows("SELECT orchestration_id, delivery FROM integrations")
    at_work = errands.is_at_work(bench.home, integrations.errand(row["orchestration_id"]))
    return bool(row["delivery"] == "delivered" and not at_work)


@pytest.fixture
def busy(bench: Bench) -> Bench:
    """A machine whose one team is at work, and has committed nothing yet."""
    bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = "50"
    launch(bench, bench.project())
    return bench


class TestProjectsThatCannotBeWorkedOn:
    def test_a_folder_that_is_no_repository(self, bench: Bench) -> None:
        plain = bench.folder / "plain"
        plain.mkdir()
        (plain / "spec.md").write_text(SPEC)
        words = (DOOR, "--project", str(plain), "--spec", str(plain / "spec.md"), *ALONE)
        refused(bench, ExitCode.USAGE, *words, says=(f"{plain} is not in a git repository", f"git init {plain}\n"))

    def test_a_folder_that_is_not_there(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        words = (DOOR, "--project", "nowhere", "--spec", str(spec), *ALONE)
        refused(bench, ExitCode.NOT_FOUND, *words, says=(f"no such folder: {bench.folder / 'nowhere'}",))

    def test_a_home_of_nobody(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        words = (DOOR, "--project", "~no-such-user/webapp", "--spec", str(spec), *ALONE)
        refused(bench, ExitCode.NOT_FOUND, *words, says=("~no-such-user/webapp",))

    def test_a_spec_alone_outside_of_a_repository(self, bench: Bench) -> None:
        spec = bench.folder / "spec.md"
        spec.write_text(SPEC)
        says = (f"{spec} is not in a git repository", "--project", f"git init {bench.folder}\n")
        refused(bench, ExitCode.USAGE, DOOR, "--spec", str(spec), *ALONE, says=says)

    def test_a_repository_without_a_commit(self, bench: Bench) -> None:
        fresh = bench.folder / "fresh"
        subprocess.run(["git", "init", "-q", str(fresh)], check=True)
        (fresh / "spec.md").write_text(SPEC)
        says = (f"{fresh} has no commit yet", "commit")
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(fresh / "spec.md"), *ALONE, says=says)

    def test_a_bare_repository(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        bare = bench.folder / "bare.git"
        subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
        words = (DOOR, "--project", str(bare), "--spec", str(spec), *ALONE)
        refused(bench, ExitCode.USAGE, *words, says=(f"{bare} is a bare repository",))

    def test_a_repository_that_git_will_not_touch(self, bench: Bench) -> None:
        if os.geteuid():
            pytest.skip("only root can give a folder to somebody else")
        project = bench.project()
        for path in (project, project / ".git"):
            os.chown(path, 65534, 65534)
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(project / "spec.md"), *ALONE, says=("dubious ownership",))

    def test_a_branch_in_the_way_of_the_branches_of_the_team(self, bench: Bench) -> None:
        project = bench.project()
        subprocess.run(["git", "branch", "orchestration"], cwd=project, check=True)
        says = ("orchestration", "git -C", "branch -m")
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(project / "spec.md"), *ALONE, says=says)

    def test_a_file_where_the_worktrees_would_be(self, bench: Bench) -> None:
        project = bench.project()
        (bench.folder / "webapp-tmux-worktrees").write_text("mine")
        says = (str(bench.folder / "webapp-tmux-worktrees"),)
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(project / "spec.md"), *ALONE, says=says)

    def test_a_path_that_is_not_unicode(self, bench: Bench) -> None:
        project = bench.project(os.fsdecode(b"caf\xe9"))
        says = ("is not UTF-8",)
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(project / "spec.md"), *ALONE, says=says)

    def test_a_working_folder_that_was_removed(self, bench: Bench) -> None:
        gone = bench.folder / "gone"
        gone.mkdir()
        door = [sys.executable, str(ROOT / DOOR)]
        # A shell removes the folder that it stands in, and becomes the door.
        command = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *door, "--spec", "spec.md"]
        done = subprocess.run(
            command, cwd=gone, env=bench.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == ExitCode.NOT_FOUND, done.stderr
        assert "the working folder is gone" in said(Done(done.returncode, done.stdout, done.stderr))


class TestSpecsThatCannotBeWorked:
    @pytest.mark.parametrize(
        ("content", "code", "sentence"),
        [
            (None, ExitCode.NOT_FOUND, "no spec at {spec}"),
            ("folder", ExitCode.NOT_FOUND, "no spec in the folder {spec}"),
            (b"", ExitCode.FAILED, "the spec {spec} is empty"),
            (b" \n\t\n", ExitCode.FAILED, "the spec {spec} is empty"),
            (b"# Tool\n\0\1\2", ExitCode.FAILED, "the spec {spec} is a binary file"),
            (b"# Caf\xe9\n", ExitCode.FAILED, "the spec {spec} is not UTF-8 text (line 1, byte 5)"),
            (b"# Big\n" + b"x" * 3_000_000, ExitCode.FAILED, "the spec {spec} has more than 1,000,000 bytes"),
        ],
        ids=["missing", "a_folder", "empty", "blank", "binary", "not_utf_8", "too_big"],
    )
    def test_a_spec_that_is(self, bench: Bench, content: bytes | str | None, code: ExitCode, sentence: str) -> None:
        spec = bench.project() / "wanted.md"
        if isinstance(content, bytes):
            spec.write_bytes(content)
        elif content:
            spec.mkdir()
        refused(bench, code, DOOR, "--spec", str(spec), *ALONE, says=(sentence.format(spec=spec),))

    def test_a_link_to_nowhere(self, bench: Bench) -> None:
        spec = bench.project() / "wanted.md"
        spec.symlink_to("nowhere.md")
        refused(bench, ExitCode.NOT_FOUND, DOOR, "--spec", str(spec), *ALONE, says=(f"no spec at {spec}",))


class TestWordsThatMakeNoSense:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--roles", "orchestrator,wizard"), ("unknown role wizard", "valid roles: ", "developer", "tester")),
            (("--roles", " , "), ("unknown role (none given)", "valid roles: ")),
            (("--team-type", "circus"), ("unknown team type 'circus'", "valid types: ", "code_project")),
            (("--plan", "gold"), ("'gold'", "pro", "max20")),
            (("--size", "huge"), ("'huge'", "small", "large")),
            (("--agent", "robot"), ("'robot'", "claude", "rehearsal")),
            (("--resume",), ("--resume", "leave --spec out")),
            (("extra",), ("extra",)),
        ],
        ids=lambda value: "-".join(value) if value and value[0].startswith(("--", "extra")) else "",
    )
    def test_a_launch_with(self, bench: Bench, words: tuple[str, ...], says: tuple[str, ...]) -> None:
        spec = bench.project() / "spec.md"
        refused(bench, ExitCode.USAGE, DOOR, "--spec", str(spec), *words, says=says)

    def test_no_spec_at_all(self, bench: Bench) -> None:
        project = bench.project()
        refused(bench, ExitCode.USAGE, DOOR, "--project", str(project), *ALONE, says=("--spec", "--demo"))

    def test_resuming_where_nothing_ever_ran(self, bench: Bench) -> None:
        project = bench.project()
        says = (f"{project} has no orchestration to resume", "--spec SPEC")
        refused(bench, ExitCode.NOT_FOUND, DOOR, "--project", str(project), "--resume", says=says)

    def test_resuming_what_has_ended(self, idle: Bench) -> None:
        says = ("no orchestration to resume: the last one is completed", "--spec SPEC")
        refused(idle, ExitCode.NOT_FOUND, DOOR, "--project", str(idle.folder / "webapp"), "--resume", says=says)

    def test_a_second_launch_of_a_project_that_has_a_team(self, busy: Bench) -> None:
        project = busy.folder / "webapp"
        before, panes = teams(busy), [pane.id for pane in busy.tmux.panes()]
        done = busy.door(DOOR, "--spec", str(project / "spec.md"), *ALONE)
        assert done.code == ExitCode.BUSY
        words = said(done)
        assert f"{project} has a live orchestration in session webapp-impl" in words
        assert "claude_control.py attach webapp-impl" in words
        assert f"auto_orchestrate.py --project {project} --resume" in words
        assert "claude_control.py stop webapp-impl" in words
        assert (teams(busy), [pane.id for pane in busy.tmux.panes()]) == (before, panes)


class TestSettingsThatMakeNoSense:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("claude_comand: claude", ("unknown setting 'claude_comand'", "did you mean 'claude_command'?")),
            ("42: x", ("unknown setting '42'", "config.example.yaml")),
            ("auto_start: perhaps", ("auto_start must be true or false, not 'perhaps'",)),
            ("model: 5", ("model must be text, not 5",)),
            ("pass_environment: HOME", ("pass_environment must be a list, not 'HOME'",)),
            ("launch_timeout_seconds: long", ("launch_timeout_seconds must be a number, not 'long'",)),
            ("launch_timeout_seconds: -1", ("launch_timeout_seconds must be above 0, not -1",)),
            ("launch_timeout_seconds: .nan", ("launch_timeout_seconds must be above 0, not nan",)),
            ("check_in_minutes: 5", ("check_in_minutes must be `role: minutes` lines, not 5",)),
            ("check_in_minutes: {orchestrator: often}", ("check_in_minutes of orchestrator must be a whole number",)),
            ("check_in_minutes: {orchestrator: 0}", ("check_in_minutes of orchestrator", "1 or more")),
            ("check_in_minutes: {develloper: 5}", ("check_in_minutes names develloper, which is no role", "developer")),
            ("agent: robot", ("agent must be one of claude, rehearsal, not 'robot'",)),
            ("agent: [claude]", ("agent must be one of claude, rehearsal, not ['claude']",)),
            ("permission_mode: yolo", ("permission_mode must be one of default", "not 'yolo'")),
            ("agent: [claude", ("is not valid YAML in line 1: ",)),
            ("- agent", ("must hold `name: value` lines",)),
            (b"agent: caf\xe9", ("it is not UTF-8 text (byte 10)",)),
        ],
        ids=lambda value: (
            re.sub(r"\W+", "_", value if isinstance(value, str) else "not utf-8")
            if isinstance(value, str | bytes)
            else ""
        ),
    )
    def test_a_configuration_with(self, bench: Bench, text: str | bytes, says: tuple[str, ...]) -> None:
        spec = bench.project() / "spec.md"
        path = settings(bench, text)
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(spec), *ALONE, says=(f"{path}", *says))


class TestMachinesThatLackSomething:
    def test_no_tmux(self, bench: Bench) -> None:
        path_of_only(bench, "git", "sh")
        spec = bench.project() / "spec.md"
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=("tmux is not installed", "setup.sh"))

    def test_a_tmux_that_is_too_old(self, bench: Bench) -> None:
        path_of_only(bench, "git", "sh")
        program(bench.folder / "bin", "tmux", 'echo "tmux 2.9a"')
        spec = bench.project() / "spec.md"
        says = ("tmux 2.9a is too old: 3.0 or newer is needed",)
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=says)

    def test_no_git(self, bench: Bench) -> None:
        path_of_only(bench, "tmux", "sh")
        spec = bench.project() / "spec.md"
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=("git is not installed", "setup.sh"))

    @pytest.mark.parametrize(
        ("version", "login", "says"),
        [
            (GOOD_VERSION, '{"loggedIn": false, "authMethod": "none"}', ("is not logged in", "claude auth login")),
            ("1.0.128 (Claude Code)", LOGGED_IN, ("1.0.128 is too old: 2.1.0 or newer", "claude update")),
            ("Segmentation fault", LOGGED_IN, ("does not tell its version: Segmentation fault",)),
            ("", LOGGED_IN, ("does not tell its version: it printed nothing",)),
            (GOOD_VERSION, "What do you mean?", ("does not tell whether it is logged in: What do you mean?",)),
            (GOOD_VERSION, "[]", ("does not tell whether it is logged in",)),
            (GOOD_VERSION, LOGGED_IN, ("has not been told to trust", "trust_project: true")),
        ],
        ids=["logged_out", "too_old", "garbage", "mute", "garbage_login", "odd_login", "folder_not_trusted"],
    )
    def test_a_claude_that_is(self, bench: Bench, version: str, login: str, says: tuple[str, ...]) -> None:
        refused(bench, ExitCode.NOT_NOW, *launch_of_claude(bench, version, login), says=says)

    @pytest.mark.parametrize("known", ["not JSON", "[]", '{"projects": []}', '{"projects": {"/": 5}}'])
    def test_a_claude_whose_own_file_is(self, bench: Bench, known: str) -> None:
        (bench.folder / "home" / ".claude.json").write_text(known)
        words = launch_of_claude(bench, GOOD_VERSION, LOGGED_IN)
        refused(bench, ExitCode.NOT_NOW, *words, says=(".claude.json" if known == "not JSON" else "trust",))

    def test_a_program_that_a_role_needs(self, bench: Bench) -> None:
        roles = settings(bench, "").parent / "roles"
        roles.mkdir()
        keys = "summary: Paints.\ncheck_in_minutes: 9\nprerequisites: [git, easel]"
        (roles / "painter.md").write_text(f"---\n{keys}\n---\nPaint.\n")
        words = (DOOR, "--spec", str(bench.project() / "spec.md"), "--agent", "rehearsal", "--dry-run", "--roles")
        says = ("the role painter needs easel, which PATH does not have", "--roles")
        refused(bench, ExitCode.NOT_NOW, *words, "painter", says=says)
        assert "painter" not in bench.ok(*words, "orchestrator").out

    def test_no_claude(self, bench: Bench) -> None:
        path_of_only(bench, "git", "tmux", "sh")
        spec = bench.project() / "spec.md"
        says = ("no command 'claude' on PATH", "--agent rehearsal")
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), "--roles", "orchestrator", says=says)

    def test_a_claude_that_cannot_be_run(self, bench: Bench) -> None:
        words = launch_of_claude(bench, GOOD_VERSION, LOGGED_IN)
        (bench.folder / "stubs" / "claude").write_text("#!/no/such/interpreter\n")
        refused(bench, ExitCode.NOT_NOW, *words, says=("claude cannot be run",))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
    def test_root_without_a_sandbox(self, bench: Bench) -> None:
        words = launch_of_claude(bench, GOOD_VERSION, LOGGED_IN)
        bench.environment["IS_SANDBOX"] = "yes"  # only 1 counts
        says = ("bypassPermissions for root", "IS_SANDBOX=1")
        refused(bench, ExitCode.NOT_NOW, *words, says=says)


def launch_of_claude(bench: Bench, version: str, login: str) -> tuple[str, ...]:
    """The words that launch a team of a Claude Code that answers so."""
    script = f"case $1 in --version) echo '{version}' ;; auth) echo '{login}' ;; *) exec sleep 600 ;; esac"
    program(bench.folder / "stubs", "claude", script)
    bench.environment["PATH"] = f"{bench.folder / 'stubs'}:{bench.environment['PATH']}"
    bench.environment["IS_SANDBOX"] = "1"
    return (DOOR, "--spec", str(bench.project() / "spec.md"), "--roles", "orchestrator", "--agent", "claude")


class TestStoresThatCannotBeUsed:
    def test_a_file_that_is_no_database(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        bench.home.mkdir()
        store = bench.home / "orchestrator.db"
        store.write_bytes(b"garbage\n" * 1000)
        for command in (
            (DOOR, "--spec", str(spec), *ALONE),
            ("claude_control.py", "status"),
            ("claude_control.py", "send", "webapp-impl:0", "hello"),
            ("scheduler.py", "--list"),
        ):
            refused(bench, ExitCode.NOT_NOW, *command, says=(f"the store {store} cannot be used: ",))
        assert store.read_bytes() == b"garbage\n" * 1000
        assert [path.name for path in bench.home.iterdir()] == ["orchestrator.db"]

    def test_a_database_with_a_damaged_page(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        bench.ok("claude_control.py", "status")
        store = bench.home / "orchestrator.db"
        db = sqlite3.connect(store)
        page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'orchestrations'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
        db.close()
        with store.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
        content = store.read_bytes()
        says = (str(store), "malformed")
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=says)
        refused(bench, ExitCode.NOT_NOW, "claude_control.py", "status", says=says)
        assert store.read_bytes() == content

    def test_a_database_of_a_later_version(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        bench.ok("claude_control.py", "status")
        db = sqlite3.connect(bench.home / "orchestrator.db")
        db.execute("PRAGMA user_version = 1000")
        db.close()
        says = ("written by a newer version", "update the checkout")
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=says)

    def test_a_state_home_that_is_a_file(self, bench: Bench) -> None:
        spec = bench.project() / "spec.md"
        bench.home.write_text("mine")
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=(str(bench.home),))
        assert bench.home.read_text() == "mine"
        bench.home.unlink()  # the end of the bench looks for a daemon in it


#: What is wrong with a message: the exit code, what is said, and the words of `send`.
UNSENDABLE = {
    "to_an_unknown_session": (ExitCode.NOT_FOUND, "no agent at 'other-impl:tester'", "other-impl:tester", "hi"),
    "to_a_prefix_of_a_session": (ExitCode.NOT_FOUND, f"agents: {HUB}", "webapp:orchestrator", "hi"),
    "to_an_unknown_role": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl:wizard'", "webapp-impl:wizard", "hi"),
    "to_an_unknown_window": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl:7'", "webapp-impl:7", "hi"),
    "to_an_odd_number": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl:²'", "webapp-impl:²", "hi"),
    "to_an_endless_number": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl:999", f"webapp-impl:{'9' * 5000}", "hi"),
    "to_a_session_alone": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl'", "webapp-impl", "hi"),
    "to_no_role": (ExitCode.NOT_FOUND, "no agent at 'webapp-impl:'", "webapp-impl:", "hi"),
    "to_a_role_alone": (ExitCode.NOT_FOUND, "no agent at 'orchestrator'", "orchestrator", "hi"),
    "to_an_unknown_pane": (ExitCode.NOT_FOUND, "'%99'", "%99", "hi"),
    "to_nobody": (ExitCode.NOT_FOUND, "no agent at ''", "", "hi"),
    "empty": (ExitCode.USAGE, "the message is empty", HUB, ""),
    "blank": (ExitCode.USAGE, "the message is empty", HUB, " \n"),
    "empty_standard_input": (ExitCode.USAGE, "the message is empty", HUB, "-"),
    "missing": (ExitCode.USAGE, "the message is missing", HUB),
    "missing_file": (ExitCode.FAILED, "none.md", HUB, "--file", "none.md"),
    "folder": (ExitCode.FAILED, "Is a directory", HUB, "--file", "."),
    "wait_without_a_number": (ExitCode.USAGE, "'long'", HUB, "--wait", "long", "hi"),
}


class TestMessagesThatCannotBeSent:
    @pytest.mark.parametrize("case", UNSENDABLE.values(), ids=UNSENDABLE)
    def test_nothing_is_typed(self, idle: Bench, case: Case) -> None:
        code, says, *words = case
        sent = idle.rows("SELECT count(*) AS n FROM messages")
        refused(idle, code, "claude_control.py", "send", *words, says=(says,))
        assert idle.rows("SELECT count(*) AS n FROM messages") == sent

    def test_the_short_door_tells_the_same(self, idle: Bench) -> None:
        says = ("no agent at 'webapp-impl:7'", "agents: webapp-impl:orchestrator")
        refused(idle, ExitCode.NOT_FOUND, "send-claude-message.sh", "webapp-impl:7", "hi", says=says)
        refused(idle, ExitCode.USAGE, "send-claude-message.sh", says=("Missing argument",))

    def test_no_tmux_server_and_no_team(self, bench: Bench) -> None:
        words = ("claude_control.py", "send", "webapp-impl:0", "hi")
        refused(bench, ExitCode.NOT_FOUND, *words, says=("no agent at 'webapp-impl:0'", "no team is running"))

    def test_a_tmux_server_that_has_ended(self, bench: Bench) -> None:
        launch_to_the_end(bench)
        bench.tmux.run("kill-server")
        pid = bench.rows("SELECT pid FROM agents")[0]["pid"]
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of the agent")
        words = ("claude_control.py", "send", "webapp-impl:orchestrator", "hi")
        says = ("webapp-impl:orchestrator is gone: its process has ended",)
        refused(bench, ExitCode.NOT_NOW, *words, says=says)
        assert bench.rows("SELECT id FROM messages WHERE kind = 'message'") == []

    def test_an_agent_that_was_killed(self, bench: Bench) -> None:
        launch_to_the_end(bench)
        os.kill(bench.rows("SELECT pid FROM agents")[0]["pid"], signal.SIGKILL)
        wait_for(lambda: any(pane.dead for pane in bench.tmux.panes()), "a dead pane")
        words = ("claude_control.py", "send", "webapp-impl:orchestrator", "hi")
        refused(bench, ExitCode.NOT_NOW, *words, says=("webapp-impl:orchestrator is gone",))
        assert bench.rows("SELECT id FROM messages WHERE kind = 'message'") == []


NOT_WHOLE = "MINUTES must be a whole number of at most 9 digits, not "
NOT_IN_RANGE = "MINUTES must be between 1 and 527040, not "
#: What is wrong with a check-in: the exit code, what is said, and the words of scheduler.py.
UNSCHEDULABLE = {
    "in_0": (ExitCode.USAGE, f"{NOT_IN_RANGE}0", "--add-note", "0", "note", HUB),
    "in_more_than_a_year": (ExitCode.USAGE, f"{NOT_IN_RANGE}527041", "--add-note", "527041", "note", HUB),
    "in_something_like_an_option": (ExitCode.USAGE, "-5", "--add-note", "-5", "note", HUB),
    "in_a_negative_number": (ExitCode.USAGE, f"{NOT_WHOLE}'-5'", "--add-note", "--", "-5", "note", HUB),
    "in_a_word": (ExitCode.USAGE, f"{NOT_WHOLE}'soon'", "--add-note", "soon", "note", HUB),
    "in_a_fraction": (ExitCode.USAGE, f"{NOT_WHOLE}'1.5'", "--add-note", "1.5", "note", HUB),
    "in_an_odd_number": (ExitCode.USAGE, f"{NOT_WHOLE}'²'", "--add-note", "²", "note", HUB),
    "in_nothing": (ExitCode.USAGE, f"{NOT_WHOLE}''", "--add-note", "", "note", HUB),
    "in_an_endless_number": (ExitCode.USAGE, NOT_WHOLE, "--add-note", "9" * 5000, "note", HUB),
    "blank": (ExitCode.USAGE, "the note is empty", "--add-note", "5", " ", HUB),
    "missing": (ExitCode.USAGE, "MINUTES NOTE [TARGET]", "--add-note", "5"),
    "at_an_unknown_window": (ExitCode.NOT_FOUND, "'webapp-impl:7'", "--add-note", "5", "note", "webapp-impl:7"),
    "in_an_unknown_session": (ExitCode.NOT_FOUND, "'other-impl:0'", "--add-note", "5", "note", "other-impl:0"),
    "for_an_unknown_role": (ExitCode.NOT_FOUND, "impl:wizard'", "--add", "webapp-impl", "wizard", "0", "5", "note"),
    "for_no_role": (ExitCode.NOT_FOUND, "no agent at", "--add", "webapp-impl", "", "²", "5", "note"),
    "without_a_note": (ExitCode.USAGE, "WINDOW MINUTES NOTE", "--add", "webapp-impl", "orchestrator", "0", "5"),
    "removed_by_an_unknown_id": (ExitCode.NOT_FOUND, "no check-in has the id 4711", "--remove", "4711"),
    "removed_by_0": (ExitCode.NOT_FOUND, "no check-in has the id 0", "--remove", "0"),
    "removed_by_an_endless_id": (ExitCode.USAGE, "999' is no id", "--remove", "9" * 30),
    "removed_by_a_word": (ExitCode.USAGE, "'one'", "--remove", "one"),
    "removed_and_listed": (ExitCode.USAGE, "name one thing to do", "--list", "--remove", "1"),
    "listed_with_words": (ExitCode.USAGE, "unexpected words: words", "--list", "words"),
    "nothing_at_all": (ExitCode.USAGE, "name one thing to do"),
}


class TestCheckInsThatCannotBe:
    @pytest.mark.parametrize("case", UNSCHEDULABLE.values(), ids=UNSCHEDULABLE)
    def test_nothing_is_scheduled(self, idle: Bench, case: Case) -> None:
        code, says, *words = case
        before = idle.rows("SELECT id, status FROM check_ins")
        refused(idle, code, "scheduler.py", *words, says=(says,))
        assert idle.rows("SELECT id, status FROM check_ins") == before

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (("0", "note", HUB), ExitCode.USAGE, "MINUTES must be between 1 and"),
            (("5", "note", "webapp-impl:7"), ExitCode.NOT_FOUND, "no agent at 'webapp-impl:7'"),
            ((), ExitCode.USAGE, "MINUTES NOTE [TARGET]"),
        ],
        ids=["minutes", "target", "nothing"],
    )
    def test_the_short_door_tells_the_same(
        self, idle: Bench, words: tuple[str, ...], code: ExitCode, says: str
    ) -> None:
        refused(idle, code, "schedule_with_note.sh", *words, says=(says,))

    def test_a_note_that_is_not_unicode_keeps_what_is(self, busy: Bench) -> None:
        busy.ok("scheduler.py", "--add-note", "5", os.fsdecode(b"caf\xe9s"), HUB)
        assert busy.rows("SELECT note FROM check_ins WHERE interval_minutes IS NULL") == [{"note": "cafs"}]

    def test_a_note_when_no_team_runs(self, bench: Bench) -> None:
        refused(bench, ExitCode.NOT_FOUND, "scheduler.py", "--add-note", "5", "note", says=("no team is running",))


class TestSchedulersThatCannotBe:
    def test_a_second_one(self, bench: Bench) -> None:
        first = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler.py"), "--daemon"],
            env=bench.environment,
            cwd=bench.folder,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: bench.ok("scheduler.py", "--status", "--json").json["pid"] == first.pid, "the first one")
            done = bench.door("scheduler.py", "--daemon")
            assert done.code == ExitCode.BUSY
            assert f"the scheduler is already running (pid {first.pid})" in done.err
            assert first.poll() is None
            refused(bench, ExitCode.BUSY, "scheduler.py", "--once", says=("the scheduler is running",))
        finally:
            first.terminate()
            assert first.wait(20) == ExitCode.DONE

    def test_stopping_none(self, bench: Bench) -> None:
        refused(bench, ExitCode.NOT_FOUND, "scheduler.py", "--stop", says=("the scheduler is not running",))

    def test_stopping_one_that_was_killed(self, bench: Bench) -> None:
        launch_to_the_end(bench)
        pid = bench.ok("scheduler.py", "--status", "--json").json["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not bench.ok("scheduler.py", "--status", "--json").json["running"], "its end")
        refused(bench, ExitCode.NOT_FOUND, "scheduler.py", "--stop", says=("the scheduler is not running",))


class TestTeamsThatAreNotThere:
    def test_the_status_of_an_unknown_session(self, idle: Bench) -> None:
        says = ("no team in session 'other-impl'", "claude_control.py status")
        refused(idle, ExitCode.NOT_FOUND, "claude_control.py", "status", "other-impl", says=says)

    @pytest.mark.parametrize("verb", ["stop", "attach"])
    def test_nothing_runs_to(self, bench: Bench, verb: str) -> None:
        refused(bench, ExitCode.NOT_FOUND, "claude_control.py", verb, says=("no team is running", DOOR))
        says = ("no team in session 'webapp-impl'",)
        refused(bench, ExitCode.NOT_FOUND, "claude_control.py", verb, "webapp-impl", says=says)

    def test_stopping_twice(self, busy: Bench) -> None:
        assert "webapp-impl: stopped" in busy.ok("claude_control.py", "stop", "webapp-impl").out
        assert busy.tmux.panes() == []
        says = ("no team in session 'webapp-impl'",)
        refused(busy, ExitCode.NOT_FOUND, "claude_control.py", "stop", "webapp-impl", says=says)
        assert teams(busy) == [("webapp-impl", "stopped")]

    def test_attaching_to_a_session_that_was_closed(self, bench: Bench) -> None:
        launch_to_the_end(bench)
        bench.tmux.run("kill-session", "-t", "=webapp-impl")
        says = ("the tmux session of webapp-impl is gone",)
        refused(bench, ExitCode.NOT_FOUND, "claude_control.py", "attach", "webapp-impl", says=says)

    def test_attaching_to_an_agent_that_is_not_there(self, idle: Bench) -> None:
        says = ("no agent at 'webapp-impl:tester'", f"agents: {HUB}")
        refused(idle, ExitCode.NOT_FOUND, "claude_control.py", "attach", "webapp-impl:tester", says=says)

    def test_completing_without_a_commit(self, busy: Bench) -> None:
        done = busy.door("report-completion.sh", "orchestrator", "All is done")
        assert done.code == ExitCode.FAILED
        words = said(done)
        assert "orchestrator has no commit on orchestration/" in words
        assert "commit the work in " in words
        assert busy.rows("SELECT id FROM reports") == []
        assert teams(busy) == [("webapp-impl", "running")]

    def test_completing_for_an_unknown_role(self, idle: Bench) -> None:
        words = ("claude_control.py", "complete", "wizard", "All is done", "--session", "webapp-impl")
        refused(idle, ExitCode.NOT_FOUND, *words, says=("no role 'wizard' in webapp-impl", "roles: orchestrator"))

    @pytest.mark.parametrize("words", [("orchestrator",), ()], ids=["no_message", "nothing"])
    def test_completing_without_words(self, idle: Bench, words: tuple[str, ...]) -> None:
        reports = idle.rows("SELECT id FROM reports")
        done = idle.door("claude_control.py", "complete", *words)
        assert done.code == ExitCode.USAGE
        assert "missing" in said(done).lower()
        assert idle.rows("SELECT id FROM reports") == reports
