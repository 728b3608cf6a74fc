"""What is the user's stays the user's: tmux sessions and settings, checkouts, folders, and a disk that is full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from lib import agents, checkins, host, service
from lib.errors import ExitCode
from lib.tmux import Tmux
from tests.conftest import ROOT, SPEC, Bench, Done, commit_all, wait_for
from tests.integration.test_bad_input import ALONE, DOOR, HUB, launch, path_of_only, program, refused, said, teams

TWO = ("--roles", "orchestrator,developer", "--agent", "rehearsal")
AT_WORK = "50"


def person(bench: Bench, *arguments: str) -> str:
    """tmux as the person at this machine runs it."""
    command = ["tmux", "-L", str(bench.tmux.socket), *arguments]
    return subprocess.run(command, env=bench.environment, check=True, capture_output=True, text=True).stdout


def shell(bench: Bench, session: str) -> None:
    """A person's own session, with a shell that has just answered."""
    person(bench, "new-session", "-d", "-s", session, "-n", "mine", "-x", "80", "-y", "24", "PS1='me> ' ENV= sh")
    wait_for(lambda: "me>" in bench.screen(f"={session}:"), f"the shell of {session}")
    person(bench, "send-keys", "-t", f"={session}:", "echo mine", "Enter")
    wait_for(lambda: "\nmine\n" in bench.screen(f"={session}:"), f"the answer of {session}")


@dataclass(frozen=True)
class Belongings:
    """A person's session as it is: its windows, their processes, screens and options."""

    windows: list[tuple[int, str, str, int, str]]
    options: str


def belongings(bench: Bench, session: str) -> Belongings:
    panes = [pane for pane in bench.tmux.panes() if pane.session == session]
    windows = [(pane.window, pane.window_name, pane.id, pane.pid, bench.screen(pane.id)) for pane in panes]
    return Belongings(windows, bench.tmux.run("show-options", "-t", f"={session}:"))


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def windows(bench: Bench, session: str) -> dict[int, str]:
    return {pane.window: pane.window_name for pane in bench.tmux.panes() if pane.session == session}


def own(folder: Path) -> dict[str, bytes]:
    """Every file of a checkout that is the person's: all but git's own files."""
    files = (path for path in folder.rglob("*") if ".git" not in path.parts and path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def at_work(bench: Bench) -> None:
    """Let the teams that are launched from here work slowly: nothing completes meanwhile."""
    bench.environment["TMUX_ORCHESTRATOR_REHEARSAL_PACE"] = AT_WORK


def is_briefed(bench: Bench, agents: int = 1) -> None:
    """Every agent of the one team runs and has acknowledged its briefing, once."""
    assert [status for _, status in teams(bench)][-1:] in (["running"], ["completed"])
    briefings = bench.rows("SELECT status FROM messages WHERE kind = 'briefing'")
    assert briefings == [{"status": "acknowledged"}] * agents


#: Lines of a ~/.tmux.conf that people have.
SETTINGS_OF_TMUX = {
    "counts_from_1": "set -g base-index 1\nsetw -g pane-base-index 1\nset -g renumber-windows on",
    "keeps_and_renames_windows": "setw -g remain-on-exit on\nsetw -g automatic-rename on\nset -g allow-rename on",
    "runs_another_shell": "set -g default-shell /bin/sh\nset -g default-command 'exec cat'",
    "ends_sessions_that_nobody_looks_at": "set -g destroy-unattached on",
    "has_hooks": "set-hook -g after-new-window 'rename-window mine'\nset-hook -g after-new-session 'split-window'",
    "has_a_mistake": "set -g no-such-option on\nno-such-command",
}


class TestAUserWhoseTmux:
    @pytest.mark.parametrize("text", SETTINGS_OF_TMUX.values(), ids=SETTINGS_OF_TMUX)
    def test_has_a_team_in_its_windows(self, bench: Bench, text: str) -> None:
        (bench.folder / "home" / ".tmux.conf").write_text(text + "\n")
        at_work(bench)
        launch(bench, bench.project(), *TWO)
        assert windows(bench, "webapp-impl") == {0: "orchestrator", 1: "developer"}
        is_briefed(bench, agents=2)
        for window, role in enumerate(("orchestrator", "developer")):
            sent = bench.ok("claude_control.py", "send", f"webapp-impl:{window}", "hello", "--no-wait", "--json")
            assert sent.json["target"] == f"webapp-impl:{role}"
        bench.ok("claude_control.py", "stop", "webapp-impl")
        assert windows(bench, "webapp-impl") == {}


class TestAUsersSessions:
    def test_one_of_our_name_is_left_alone(self, bench: Bench) -> None:
        at_work(bench)
        shell(bench, "webapp-impl")
        before = belongings(bench, "webapp-impl")
        project = bench.project()
        launch(bench, project)
        assert teams(bench) == [("webapp-impl-2", "running")]
        done = bench.door("claude_control.py", "send", "webapp-impl:0", "echo typed")
        assert done.code == ExitCode.NOT_FOUND
        assert "no agent at 'webapp-impl:0'" in said(done)
        bench.ok(DOOR, "--project", str(project), "--resume")
        bench.ok("claude_control.py", "stop", "webapp-impl-2")
        assert belongings(bench, "webapp-impl") == before

    def test_those_with_names_like_ours_are_left_alone(self, bench: Bench) -> None:
        names = ("webapp", "webapp-imp", "webapp-impl-old", "webapp-impl2")
        at_work(bench)
        for name in names:
            shell(bench, name)
        before = [belongings(bench, name) for name in names]
        project = bench.project()
        launch(bench, project)
        assert teams(bench) == [("webapp-impl", "running")]
        bench.ok("claude_control.py", "send", HUB, "hello", "--no-wait")
        bench.tmux.run("kill-session", "-t", "=webapp-impl")
        bench.ok(DOOR, "--project", str(project), "--resume")
        assert [belongings(bench, name) for name in names] == before
        bench.tmux.run("kill-session", "-t", "=webapp-impl")
        bench.ok("claude_control.py", "stop", "webapp-impl")
        assert [belongings(bench, name) for name in names] == before

    def test_one_that_took_our_name_meanwhile_is_left_alone(self, bench: Bench) -> None:
        at_work(bench)
        shell(bench, "mine")  # without any session the server would end too
        project = bench.project()
        launch(bench, project)
        bench.tmux.run("kill-session", "-t", "=webapp-impl")
        shell(bench, "webapp-impl")
        before = belongings(bench, "webapp-impl")
        done = bench.door(DOOR, "--project", str(project), "--resume")
        assert done.code == ExitCode.FAILED
        assert "the tmux session webapp-impl is not ours" in said(done)
        assert belongings(bench, "webapp-impl") == before
        bench.ok("claude_control.py", "stop", "webapp-impl")
        assert belongings(bench, "webapp-impl") == before
        assert teams(bench) == [("webapp-impl", "stopped")]

    @pytest.mark.parametrize("target", ["mine:0", "mine", "mine:sh", "%0"])
    def test_a_shell_is_never_typed_to(self, bench: Bench, target: str) -> None:
        shell(bench, "mine")
        before = belongings(bench, "mine")
        says = (f"no agent at '{target}'",)
        refused(bench, ExitCode.NOT_FOUND, "claude_control.py", "send", target, "touch PWNED", says=says)
        refused(bench, ExitCode.NOT_FOUND, "scheduler.py", "--add-note", "1", "touch PWNED", target, says=says)
        assert belongings(bench, "mine") == before

    def test_a_shell_in_a_window_of_the_team_is_never_typed_to(self, bench: Bench) -> None:
        at_work(bench)
        launch(bench, bench.project())
        person(bench, "new-window", "-d", "-t", "=webapp-impl:5", "PS1='me> ' ENV= sh")
        wait_for(lambda: "me>" in bench.screen("=webapp-impl:5"), "the shell")
        before = bench.screen("=webapp-impl:5")
        done = bench.door("claude_control.py", "send", "webapp-impl:5", "touch PWNED")
        assert done.code == ExitCode.NOT_FOUND
        assert "no agent at 'webapp-impl:5'" in said(done)
        assert bench.screen("=webapp-impl:5") == before

    def test_a_shell_in_the_pane_of_an_agent_is_never_typed_to(self, bench: Bench) -> None:
        at_work(bench)
        launch(bench, bench.project())
        pane = bench.tmux.panes()[0].id
        (agent,) = bench.rows("SELECT pid FROM agents")
        person(bench, "respawn-pane", "-k", "-t", pane, "PS1='me> ' ENV= sh")
        wait_for(lambda: "me>" in bench.screen(pane), "the shell")
        wait_for(lambda: not psutil.pid_exists(agent["pid"]), "the end of the agent")
        before = bench.screen(pane)
        for target in (HUB, "webapp-impl:0", pane):
            done = bench.door("claude_control.py", "send", target, "touch PWNED")
            assert done.code != ExitCode.DONE
            assert HUB in said(done) or target in said(done)
        bench.ok("scheduler.py", "--stop")
        assert bench.screen(pane) == before
        assert not list(bench.folder.rglob("PWNED"))


#: Texts that an option parser, a shell or tmux would take for something else.
TEXTS = (
    "-rf is what I would not write here",
    "--json and other options",
    "$(touch PWNED) `touch PWNED` ; touch PWNED",
    "'; touch PWNED; '",
    "#(touch PWNED) #{pane_id} %0",
    "ends in ;",
)


def test_the_text_of_a_message_arrives_as_it_is_and_never_runs(bench: Bench) -> None:
    launch(bench, bench.project())
    wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
    for text in TEXTS:
        bench.ok("send-claude-message.sh", HUB, text, cwd=bench.folder)
    sent = [{"body": text, "status": "acknowledged"} for text in TEXTS]
    row = "SELECT body, status FROM messages WHERE kind = 'message' AND sender = 'user' ORDER BY id"
    wait_for(lambda: bench.rows(row) == sent, "the acknowledgements")
    screen = bench.tmux.run("capture-pane", "-p", "-S", "-500", "-t", "=webapp-impl:0")
    assert [text for text in TEXTS if text not in screen] == []
    assert not list(bench.folder.rglob("PWNED"))


#: Names that a shell, tmux, git or an option parser would take for something else.
NAMES = {
    "spaces_and_quotes": "my \"great\" 'web app'",
    "commands_and_variables": "$(touch PWNED) `touch PWNED` $HOME ${LANG}",
    "formats_of_tmux": "C#S #{pane_id} #(touch PWNED) ;",
    "letters_of_all_kinds": "größe 日本 🙂",
    "a_leading_dash": "-rf a.b:c=%0",
}


class TestAProjectWhoseName:
    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
    def test_is_odd_is_worked_on_to_its_end(self, bench: Bench, name: str) -> None:
        project = bench.project(name)
        spec = project / f"{name}.md"
        spec.write_text(SPEC)
        bench.ok(DOOR, "--project", name, "--spec", f"{name}/{name}.md", *ALONE)
        agent = bench.rows("SELECT * FROM agents")[0]
        assert agent["worktree"] == str(bench.folder / f"{name}-tmux-worktrees" / "orchestrator")
        assert Path(f"/proc/{agent['pid']}/cwd").readlink() == Path(agent["worktree"])
        wait_for(lambda: [status for _, status in teams(bench)] == ["completed"], "the end of the work")
        assert "rehearsal:" in git(Path(agent["worktree"]), "log", "--format=%s", "HEAD")
        assert not list(bench.folder.rglob("PWNED"))
        bench.ok("claude_control.py", "stop", teams(bench)[0][0])


class TestACheckout:
    def test_that_is_dirty_stays_as_it_is(self, bench: Bench) -> None:
        project = bench.project()
        (project / "kept.txt").write_text("first\n")
        (project / "gone.txt").write_text("first\n")
        (project / ".gitignore").write_text("ignored.txt\n")
        commit_all(project, "More")
        config = project / ".git" / "config"
        config.write_text(config.read_text() + "# a comment of mine\n[alias]\n\tst = status ; another\n")
        (project / "kept.txt").write_text("staged\n")
        git(project, "add", "kept.txt")
        (project / "kept.txt").write_text("changed again\n")
        (project / "gone.txt").unlink()
        (project / "new.txt").write_text("not known to git\n")
        (project / "ignored.txt").write_text("a secret\n")
        written = config.read_text()
        looks = (("status", "--porcelain=v2", "--branch", "--ignored"), ("diff",), ("diff", "--cached"))
        before = (own(project), [git(project, *look) for look in looks])
        refs = git(project, "for-each-ref").splitlines()

        launch(bench, project)
        wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
        wait_for(lambda: bench.rows("SELECT 1 FROM integrations WHERE delivery = 'kept_back'"), "its delivery")
        bench.ok("claude_control.py", "stop", "webapp-impl")

        assert (own(project), [git(project, *look) for look in looks]) == before
        more = [line for line in git(project, "for-each-ref").splitlines() if line not in refs]
        # The branch of its one agent, the integration, and a snapshot.
        assert [line.split()[2].split("/")[2] for line in more] == ["orchestration", "orchestration", "snapshots"]
        assert [line for line in refs if line not in git(project, "for-each-ref").splitlines()] == []
        assert config.read_text().startswith(written)

    def test_with_a_detached_head_is_worked_from_there(self, bench: Bench) -> None:
        project = bench.project()
        first = git(project, "rev-parse", "HEAD").strip()
        commit_all(project, "Second")
        git(project, "checkout", "-q", "--detach", first)
        launch(bench, project)
        wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
        found = bench.rows("SELECT starting_branch, starting_commit FROM orchestrations")
        assert found == [{"starting_branch": None, "starting_commit": first}]
        assert git(project, "rev-parse", "HEAD").strip() == first
        assert subprocess.run(["git", "symbolic-ref", "-q", "HEAD"], cwd=project, check=False).returncode == 1
        assert "nothing unmerged" not in bench.ok("claude_control.py", "stop", "webapp-impl").out

    def test_that_is_named_by_a_folder_in_it(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        below = project / "packages" / "web"
        below.mkdir(parents=True)
        (below / "spec.md").write_text(SPEC)
        bench.ok(DOOR, "--project", "packages/web", "--spec", "packages/web/spec.md", *ALONE, cwd=project)
        assert bench.rows("SELECT project, session FROM orchestrations") == [
            {"project": str(project), "session": "webapp-impl"}
        ]
        bench.ok(DOOR, "--resume", cwd=below)
        assert teams(bench) == [("webapp-impl", "running")]

    def test_that_is_a_linked_worktree_itself(self, bench: Bench) -> None:
        project = bench.project()
        git(project, "worktree", "add", "-q", "-b", "feature", str(bench.folder / "feature"))
        linked = bench.folder / "feature"
        launch(bench, linked)
        wait_for(lambda: teams(bench) == [("feature-impl", "completed")], "the end of the work")
        assert bench.rows("SELECT starting_branch FROM orchestrations") == [{"starting_branch": "feature"}]
        assert git(linked, "status", "--porcelain") == git(project, "status", "--porcelain") == ""

    def test_of_somebody_without_a_name(self, bench: Bench) -> None:
        bench.environment |= {"GIT_CONFIG_NOSYSTEM": "1", "EMAIL": ""}
        project = bench.project()
        asked = subprocess.run(["git", "config", "user.email"], cwd=project, env=bench.environment, check=False)
        assert asked.returncode == 1
        launch(bench, project)
        wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
        assert "rehearsal:" in git(project, "log", "--all", "--format=%s")

    def test_is_not_the_one_that_a_git_hook_names(self, bench: Bench) -> None:
        other = bench.project("other")
        before = git(other, "for-each-ref"), (other / ".git" / "config").read_text()
        project = bench.project()
        bench.environment |= {
            "GIT_DIR": str(other / ".git"),
            "GIT_WORK_TREE": str(other),
            "GIT_INDEX_FILE": str(other / ".git" / "index"),
        }
        launch(bench, project)
        wait_for(lambda: teams(bench) == [("webapp-impl", "completed")], "the end of the work")
        assert bench.rows("SELECT project FROM orchestrations") == [{"project": str(project)}]
        assert (git(other, "for-each-ref"), (other / ".git" / "config").read_text()) == before
        assert "refs/heads/orchestration/" in git(project, "for-each-ref")


class TestAFolderOfTheWorktrees:
    def test_that_is_taken_is_left_alone(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        folder = bench.folder / "webapp-tmux-worktrees"
        (folder / "orchestrator").mkdir(parents=True)
        (folder / "orchestrator" / "precious.txt").write_text("precious")
        (folder / "developer").mkdir()
        (folder / "tester").write_text("precious")
        (folder / "testrunner").symlink_to("nowhere")
        launch(bench, project, "--roles", "orchestrator,developer,tester,testrunner", "--agent", "rehearsal")
        for row in bench.rows("SELECT role, worktree, orchestration_id FROM agents"):
            assert row["worktree"] == str(folder / f"{row['role']}-{row['orchestration_id']}")
        assert own(folder / "orchestrator") == {"precious.txt": b"precious"}
        assert list((folder / "developer").iterdir()) == []
        assert (folder / "tester").read_text() == "precious"
        assert (folder / "testrunner").readlink() == Path("nowhere")
        is_briefed(bench, agents=4)

    def test_that_only_git_remembers_is_not_taken(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        place = bench.folder / "webapp-tmux-worktrees" / "orchestrator"
        git(project, "worktree", "add", "-q", "-b", "precious", str(place))
        place.rename(bench.folder / "not-mounted")
        launch(bench, project)
        (row,) = bench.rows("SELECT worktree, orchestration_id FROM agents")
        assert row["worktree"] == f"{place}-{row['orchestration_id']}"
        (bench.folder / "not-mounted").rename(place)
        assert git(place, "rev-parse", "--abbrev-ref", "HEAD").strip() == "precious"

    def test_of_an_earlier_team_keeps_its_work(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        launch(bench, project)
        first = Path(bench.rows("SELECT worktree FROM agents")[0]["worktree"])
        (first / "draft.txt").write_text("not committed")
        branch = git(first, "rev-parse", "--abbrev-ref", "HEAD")
        bench.ok("claude_control.py", "stop", "webapp-impl")
        launch(bench, project)
        assert teams(bench) == [("webapp-impl", "stopped"), ("webapp-impl", "running")]
        assert (first / "draft.txt").read_text() == "not committed"
        assert git(first, "rev-parse", "--abbrev-ref", "HEAD") == branch


class TestALaunch:
    def test_from_inside_the_pane_of_an_agent_does_not_pass_its_identity_on(self, bench: Bench) -> None:
        at_work(bench)
        inner = {
            "TMUX_ORCHESTRATOR_AGENT": "77",
            "TMUX_ORCHESTRATOR_EPOCH": "9",
            "TMUX_ORCHESTRATOR_ROLE": "spy",
            "TMUX_ORCHESTRATOR_SESSION": "outer-impl",
            "CLAUDE_CONFIG_DIR": str(bench.folder / "outer-claude"),
        }
        identity = dict.fromkeys(
            (
                *("CLAUDECODE", "CLAUDE_PID", "CLAUDE_PROJECT_DIR", "CLAUDE_CODE_SESSION_ID", "CLAUDE_ENV_FILE"),
                *("CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_MESSAGING_SOCKET", "CLAUDE_CODE_MESSAGING_TOKEN"),
                *("CLAUDE_EFFORT", "AI_AGENT", "VIRTUAL_ENV"),
            ),
            "outer",
        )
        bench.environment |= {**inner, **identity, "TMUX": f"{bench.folder / 'outer'},1,0", "TMUX_PANE": "%0"}
        launch(bench, bench.project())
        agent = bench.rows("SELECT * FROM agents")[0]
        text = Path(f"/proc/{agent['pid']}/environ").read_text()
        seen = dict(entry.split("=", 1) for entry in text.split("\0") if entry)
        assert [name for name in identity if name in seen] == []
        assert {name: seen[name] for name in inner} == {
            "TMUX_ORCHESTRATOR_AGENT": str(agent["id"]),
            "TMUX_ORCHESTRATOR_EPOCH": "1",
            "TMUX_ORCHESTRATOR_ROLE": "orchestrator",
            "TMUX_ORCHESTRATOR_SESSION": "webapp-impl",
            "CLAUDE_CONFIG_DIR": str(bench.home / "rehearsal"),
        }
        assert seen["TMUX_PANE"] == agent["pane_id"]
        assert not (bench.folder / "outer-claude").exists()

    def test_from_another_tmux_server_goes_to_the_default_one(self, bench: Bench) -> None:
        at_work(bench)
        folder = bench.folder / "sockets"
        folder.mkdir(mode=0o700)
        bench.environment["TMUX_TMPDIR"] = str(folder)
        del bench.environment["TMUX_ORCHESTRATOR_SOCKET"]
        sockets = folder / f"tmux-{os.getuid()}"
        project = bench.project()
        subprocess.run(["tmux", "-L", "other", "new-session", "-d", "-s", "mine"], env=bench.environment, check=True)
        default, other = Tmux(str(sockets / "default")), Tmux(str(sockets / "other"))
        bench.tmux = default  # what the end of the bench ends
        try:
            bench.environment["TMUX"] = f"{sockets / 'other'},1,0"
            launch(bench, project)
            assert {pane.session for pane in default.panes()} == {"webapp-impl"}
            assert {pane.session for pane in other.panes()} == {"mine"}
            del bench.environment["TMUX"]
            assert "gone" not in bench.ok("claude_control.py", "status").out
        finally:
            other.run("kill-server")

    def test_of_a_project_that_another_one_launches_at_the_same_moment(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        command = [sys.executable, str(ROOT / DOOR), "--spec", str(project / "spec.md"), *TWO]
        both = [
            subprocess.Popen(command, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        done = sorted((Done(one.wait(), *one.communicate()) for one in both), key=lambda one: one.code)
        assert [one.code for one in done] == [ExitCode.DONE, ExitCode.BUSY], [one.err for one in done]
        assert f"error: {project} has a live orchestration in session webapp-impl" in done[1].err
        assert teams(bench) == [("webapp-impl", "running")]
        assert windows(bench, "webapp-impl") == {0: "orchestrator", 1: "developer"}
        is_briefed(bench, agents=2)
        assert git(project, "branch", "--list", "orchestration/*").count("\n") == 2
        assert git(project, "worktree", "list").count("\n") == 3

    def test_of_two_projects_of_the_same_name_at_the_same_moment(self, bench: Bench) -> None:
        at_work(bench)
        both = []
        for place in ("one", "other"):
            (bench.folder / place).mkdir()
            project = bench.project(f"{place}/webapp")
            command = [sys.executable, str(ROOT / DOOR), "--spec", str(project / "spec.md"), *ALONE]
            both.append(subprocess.Popen(command, env=bench.environment, stderr=subprocess.PIPE, text=True))
        codes = [(one.wait(), one.communicate()[1]) for one in both]
        assert [code for code, _ in codes] == [ExitCode.DONE, ExitCode.DONE], codes
        assert sorted(teams(bench)) == [("webapp-impl", "running"), ("webapp-impl-2", "running")]
        assert windows(bench, "webapp-impl") == windows(bench, "webapp-impl-2") == {0: "orchestrator"}

    @pytest.mark.parametrize("moment", ["team:", "session", "worktree", "ready"])
    def test_that_is_interrupted_is_completed_by_resuming(self, bench: Bench, moment: str) -> None:
        at_work(bench)
        project = bench.project()
        done = interrupt(bench, [DOOR, "--spec", str(project / "spec.md"), *TWO], at=moment)
        assert done.code == ExitCode.INTERRUPTED, done.err
        assert "Traceback" not in done.err and "error: bug" not in done.err
        if teams(bench):
            assert f"auto_orchestrate.py --project {project} --resume" in done.err
            bench.ok(DOOR, "--project", str(project), "--resume")
        else:
            launch(bench, project, *TWO)
        assert teams(bench) == [("webapp-impl", "running")]
        assert windows(bench, "webapp-impl") == {0: "orchestrator", 1: "developer"}
        is_briefed(bench, agents=2)
        assert git(project, "worktree", "list").count("\n") == 3

    def test_that_waits_for_an_agent_is_interrupted_at_once(self, bench: Bench) -> None:
        program(bench.folder / "stubs", "claude", STUB_THAT_NEVER_STARTS)
        bench.environment |= {"PATH": f"{bench.folder / 'stubs'}:{bench.environment['PATH']}", "IS_SANDBOX": "1"}
        project = bench.project()
        known = {"projects": {str(project): {"hasTrustDialogAccepted": True}}}
        (bench.folder / "home" / ".claude.json").write_text(json.dumps(known))
        words = [DOOR, "--spec", str(project / "spec.md"), "--roles", "orchestrator"]
        words += ["--agent", "claude", "--no-ai"]  # a model would be waited for as long
        done = interrupt(bench, words, at="started", seconds=10)
        assert done.code == ExitCode.INTERRUPTED, done.err
        assert teams(bench) == [("webapp-impl", "starting")]
        bench.ok("claude_control.py", "stop", "webapp-impl")
        assert bench.tmux.panes() == []


STUB_THAT_NEVER_STARTS = """case $1 in
--version) echo '2.1.330 (Claude Code)' ;;
auth) echo '{"loggedIn": true}' ;;
*) exec sleep 600 ;;
esac"""


def interrupt(bench: Bench, words: list[str], *, at: str, seconds: float = 30) -> Done:
    """Run a door, and press Ctrl-C when it has said `at`: the whole foreground group gets the signal."""
    door, *arguments = words
    command = [sys.executable, str(ROOT / door), *arguments]
    running = subprocess.Popen(
        command,
        env=bench.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout and running.stderr
    heard = ""
    for line in running.stderr:
        heard += line
        if at in line:
            break
    assert at in heard, heard
    os.killpg(running.pid, signal.SIGINT)
    try:
        out, rest = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        pytest.fail(f"still running {seconds:.0f} s after Ctrl-C")
    return Done(running.returncode, out, heard + rest)


@dataclass
class Disk:
    """A file system of its own for one folder."""

    path: Path

    def mount(self, options: str) -> None:
        self.path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], check=True)

    def change(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A place for a file system that can be full or read-only, which even root has to respect."""
    if os.geteuid():
        pytest.skip("only root may mount a file system")
    made = Disk(tmp_path / "disk")
    try:
        made.mount("size=1m")
    except subprocess.CalledProcessError:
        pytest.skip("this machine does not let root mount a tmpfs")
    subprocess.run(["umount", str(made.path)], check=True)
    yield made
    while subprocess.run(["umount", "-l", str(made.path)], check=False, capture_output=True).returncode == 0:
        pass


@pytest.fixture
def small(disk: Disk, bench: Bench) -> Iterator[Disk]:
    """The disk, holding the state home; what runs in it has ended before the disk goes."""
    bench.environment["TMUX_ORCHESTRATOR_HOME"] = str(disk.path / "state")
    at_work(bench)
    yield disk
    bench.end()
    bench.environment["TMUX_ORCHESTRATOR_HOME"] = str(bench.folder / "nothing")


class TestAStateHome:
    def test_that_is_read_only_is_named(self, bench: Bench, small: Disk) -> None:
        small.mount("size=1m")
        small.change("ro,size=1m")
        spec = bench.project() / "spec.md"
        says = (str(bench.home), "Read-only file system")
        refused(bench, ExitCode.NOT_NOW, DOOR, "--spec", str(spec), *ALONE, says=says)
        refused(bench, ExitCode.NOT_NOW, "claude_control.py", "status", says=says)
        small.change("rw,size=8m")
        bench.ok(DOOR, "--spec", str(spec), *ALONE)

    @pytest.mark.parametrize("kilobytes", [4, 20, 132, 228, 244, 340])
    def test_on_a_full_disk_goes_on_when_there_is_room(self, bench: Bench, small: Disk, kilobytes: int) -> None:
        small.mount(f"size={kilobytes}k")
        project = bench.project()
        words = (DOOR, "--spec", str(project / "spec.md"), *ALONE)
        done = bench.door(*words)
        assert done.code in (ExitCode.FAILED, ExitCode.NOT_NOW), (done.code, done.out, done.err)
        assert str(bench.home) in said(done) or "disk is full" in said(done)
        small.change("size=16m")
        if teams(bench):
            assert "--resume" in done.err
            bench.ok(DOOR, "--project", str(project), "--resume")
        else:
            assert bench.tmux.panes() == []
            assert git(project, "for-each-ref").count("\n") == 1
            bench.ok(*words)
        assert [status for _, status in teams(bench)] == ["running"]
        is_briefed(bench)

    def test_that_fills_up_under_the_daemon_is_served_again_when_there_is_room(self, bench: Bench, small: Disk) -> None:
        small.mount("size=16m")
        (project, other) = (bench.project(name) for name in ("webapp", "shop"))
        bench.ok(DOOR, "--spec", str(project / "spec.md"), *ALONE)
        is_briefed(bench)
        process = service.running(bench.home)
        assert process
        db = bench.db()
        (agent,) = agents.live(db)
        now = host.now_ms()
        # Due while the disk is full.
        check_in = checkins.add(db, agent.id, "when it was full", minutes=1, now=now - 57_000)
        host.wake(bench.home)
        filler = small.path / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while file.write(b"x" * 4096):
                pass
        words = ("scheduler.py", "--queue-add", str(other / "spec.md"), str(other))
        refused(bench, ExitCode.NOT_NOW, *words, says=(str(bench.home),))
        wait_for(lambda: host.now_ms() > check_in.due_at + 1500, "the time of the check-in")
        assert host.is_alive(process), "the daemon has ended"
        assert checkins.get(db, check_in.id).status == "scheduled"
        filler.unlink()
        wait_for(lambda: checkins.get(db, check_in.id).status == "fired", "the check-in")
        assert bench.rows("SELECT count(*) AS n FROM messages WHERE body LIKE '%when it was full'") == [{"n": 1}]
        assert host.is_alive(process) and service.running(bench.home) == process
        bench.ok(*words)
        db.close()

    def test_that_becomes_read_only_is_named(self, bench: Bench, small: Disk) -> None:
        small.mount("size=16m")
        project = bench.project()
        bench.ok("scheduler.py", "--queue-pause")
        bench.ok("scheduler.py", "--stop") if service.running(bench.home) else None
        small.change("ro,size=16m")
        words = ("scheduler.py", "--queue-add", str(project / "spec.md"), str(project))
        refused(bench, ExitCode.NOT_NOW, *words, says=(str(bench.home),))
        refused(bench, ExitCode.FAILED, "scheduler.py", "--queue-daemon", says=("Read-only file system",))
        small.change("rw,size=16m")
        bench.ok(*words)

    def test_with_half_of_the_spec_is_mended_by_resuming(self, bench: Bench) -> None:
        at_work(bench)
        project = bench.project()
        launch(bench, project)
        (copy,) = bench.home.glob("orchestrations/*/spec.md")
        copy.write_text(SPEC[:20])
        (project / "spec.md").write_text("changed since the launch")
        bench.ok(DOOR, "--project", str(project), "--resume")
        assert copy.read_text() == SPEC


class TestAProjectOnADisk:
    def test_that_is_full_goes_on_when_there_is_room(self, bench: Bench, disk: Disk) -> None:
        disk.mount("size=2m")
        at_work(bench)
        project = bench.project("disk/webapp")
        (project / "data.bin").write_bytes(os.urandom(700_000))
        commit_all(project, "Data")
        words = (DOOR, "--spec", str(project / "spec.md"), *TWO)
        done = bench.door(*words)
        assert done.code in (ExitCode.FAILED, ExitCode.NOT_NOW), done.err
        assert "unable to write file" in said(done)
        assert "--resume" in done.err
        disk.change("size=32m")
        bench.ok(DOOR, "--project", str(project), "--resume")
        is_briefed(bench, agents=2)
        assert git(project, "status", "--porcelain") == ""

    def test_that_is_read_only_is_left_before_anything_is_made(self, bench: Bench, disk: Disk) -> None:
        disk.mount("size=8m")
        project = bench.project("disk/webapp")
        disk.change("ro,size=8m")
        says = (f"{project}", "cannot be written")
        refused(bench, ExitCode.FAILED, DOOR, "--spec", str(project / "spec.md"), *ALONE, says=says)
        assert teams(bench) == []


class TestAMachineWithoutAClaude:
    def test_runs_a_rehearsal_with_nothing_else_on_the_path(self, bench: Bench) -> None:
        path_of_only(bench, "git", "tmux", "env", "sh", "sleep", "cat")
        launch(bench, bench.project())
        is_briefed(bench)
