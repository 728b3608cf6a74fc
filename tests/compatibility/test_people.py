"""People at a team's windows: what they open, read and press there, and settings that a team cannot live with."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from lib import agents
from lib.models import AgentState, MessageStatus
from tests.compatibility import jobs
from tests.compatibility.machines import attached, machine
from tests.conftest import Bench, wait_for
from tests.integration.test_delivery import Crew, crew

__all__ = ["crew"]


def pane(crew: Crew) -> str:
    assert crew.agent.pane_id
    return crew.agent.pane_id


class TestModes:
    """What a person has open in the agent's pane is left open, and a message arrives meanwhile."""

    @pytest.mark.parametrize(
        "command",
        [
            ("copy-mode",),
            ("copy-mode", "-u"),
            ("choose-tree",),
            ("choose-buffer",),
            ("choose-client",),
            ("clock-mode",),
        ],
        ids=" ".join,
    )
    def test_a_message_arrives_and_the_mode_stays(self, crew: Crew, command: tuple[str, ...]) -> None:
        crew.tmux.run("set-buffer", "a person's own")  # choose-buffer opens nothing without one
        with attached(crew.tmux, crew.agent.session, crew.bench.environment):
            crew.tmux.run(command[0], *command[1:], "-t", pane(crew))
            wait_for(lambda: crew.tmux.look(pane(crew)).in_mode, "the mode")
            message = crew.send(jobs.LETTER)
            assert message.status is MessageStatus.ACKNOWLEDGED, message.reason
            assert crew.times_received(message) == 1
            assert crew.tmux.look(pane(crew)).in_mode

    def test_numbers_of_panes_a_prompt_and_a_menu_are_no_obstacle(self, crew: Crew) -> None:
        with attached(crew.tmux, crew.agent.session, crew.bench.environment) as person:
            for key, closes in ((":", "\x1b"), ("s", "q"), ("w", "q"), ("q", "")):  # after the prefix C-b
                person.press(f"\x02{key}")
                message = crew.send(f"after {key}")
                assert message.status is MessageStatus.ACKNOWLEDGED, message.reason
                assert crew.times_received(message) == 1
                person.press(closes)


class TestPanes:
    def test_text_reaches_no_other_pane_of_a_synchronized_window(self, crew: Crew) -> None:
        heard = crew.bench.folder / "heard"
        crew.tmux.run("set-option", "-w", "-t", pane(crew), "synchronize-panes", "on")
        crew.tmux.run("split-window", "-t", pane(crew), f"cat > {shlex.quote(str(heard))}")
        wait_for(heard.exists, "the other pane")
        message = crew.send(jobs.LETTER)
        assert (message.status, crew.times_received(message)) == (MessageStatus.ACKNOWLEDGED, 1)
        # What reached the other pane would be in its file once it ends.
        (other,) = (one for one in crew.tmux.panes() if one.window == crew.agent.window and not one.agent)
        crew.tmux.run("set-option", "-w", "-t", pane(crew), "synchronize-panes", "off")
        crew.tmux.run("send-keys", "-t", other.id, "mine", "Enter", "C-d")
        wait_for(lambda: heard.read_text(), "what the other pane was told")
        assert heard.read_text() == "mine\n"

    def test_a_zoomed_split_and_a_swapped_pane_are_found(self, crew: Crew) -> None:
        crew.tmux.run("split-window", "-b", "-t", pane(crew), "sleep 600")
        crew.tmux.run("resize-pane", "-Z", "-t", pane(crew))
        crew.tmux.run("break-pane", "-d", "-s", pane(crew))
        message = crew.send("Where are you?")
        assert (message.status, crew.times_received(message)) == (MessageStatus.ACKNOWLEDGED, 1)

    def test_a_tmux_inside_of_the_session_is_another_server(self, crew: Crew) -> None:
        inner = f"{crew.tmux.socket}-inner"
        given = {**crew.bench.environment, "TMUX": "/no/such/server,1,0", "TMUX_PANE": "%0"}
        words = ("claude_control.py", "send", crew.agent.target, "--wait", "20", "--json", "From inside")
        crew.tmux.run("new-window", "-d", "-t", f"={crew.agent.session}:", f"env -u TMUX tmux -L {inner} new-session")
        try:
            wait_for(lambda: [inner] if _has_server(inner) else [], "the inner tmux")
            crew.bench.environment.update(given)
            sent = crew.bench.ok(*words).json
            assert (sent["status"], sent["sender"]) == ("acknowledged", "user")
        finally:
            subprocess.run(["tmux", "-L", inner, "kill-server"], check=False, capture_output=True)


def _has_server(name: str) -> bool:
    return subprocess.run(["tmux", "-L", name, "has-session"], check=False, capture_output=True).returncode == 0


class TestExitUnattached:
    """A server that ends as soon as nobody looks at it is no place for a team."""

    def launch(self, bench: Bench) -> tuple[int, str]:
        project = bench.project(spec=jobs.HOLDS)
        words = ("--roles", "orchestrator,developer", "--agent", "rehearsal")
        done = bench.door("auto_orchestrate.py", "--spec", str(project / "spec.md"), *words)
        return done.code, done.err

    def test_a_launch_says_so_and_goes_on_when_it_is_mended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with machine(tmp_path, monkeypatch, conf="set -s exit-unattached on\n") as bench:
            code, said = self.launch(bench)
            assert code == 5
            assert "exit-unattached" in said and "--resume" in said
            (Path(bench.environment["HOME"]) / ".tmux.conf").write_text("")
            bench.ok("auto_orchestrate.py", "--project", str(bench.folder / "webapp"), "--resume")
            assert {agents.state_of(agent) for agent in jobs.team(bench)} <= {AgentState.IDLE, AgentState.WORKING}

    def test_nothing_is_begun_on_a_server_that_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with machine(tmp_path, monkeypatch) as bench:
            bench.tmux.run("new-session", "-d", "-s", "mine", "sleep", "600")
            with attached(bench.tmux, "mine", bench.environment):
                bench.tmux.run("set-option", "-s", "exit-unattached", "on")
                code, said = self.launch(bench)
                assert code == 5 and "set-option -s exit-unattached off" in said
                assert bench.rows("SELECT 1 FROM orchestrations") == []
                bench.tmux.run("set-option", "-s", "exit-unattached", "off")
