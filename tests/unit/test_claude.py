"""What is known of Claude Code: whether it can be used, how it is started, what it says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lib import host
from lib.claude import hooks, sessions, starting, transcripts
from lib.claude.hooks import HookReport
from lib.claude.installed import Installation, preflight
from lib.claude.starting import launch_command, passed_environment
from lib.claude.transcripts import prompts
from lib.config import ROOT, Settings
from lib.errors import Unavailable
from lib.models import Agent, AgentState, Process, Program
from tests.agents import an_agent

LOGGED_IN = '{"loggedIn": true, "authMethod": "claude.ai"}'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A HOME without a Claude Code; everything that could reach another one is gone from the environment."""
    for name in list(os.environ):
        if name.startswith(("CLAUDE", "ANTHROPIC")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("IS_SANDBOX", "1")
    (tmp_path / "bin").mkdir()
    yield tmp_path


def install(machine: Path, *, version: str = "2.1.330 (Claude Code)", login: str = LOGGED_IN, more: str = "") -> None:
    """A claude that answers what a look before a launch asks."""
    path = machine / "bin" / "claude"
    path.write_text(
        "#!/bin/sh\n"
        f"{more}\n"
        'case "$*" in\n'
        f"  --version) printf '%s\\n' {shlex.quote(version)} ;;\n"
        f"  'auth status --json') printf '%s\\n' {shlex.quote(login)} ;;\n"
        "  *) exit 9 ;;\n"
        "esac\n"
    )
    path.chmod(0o755)


def trust(machine: Path, *folders: Path, accepted: object = True) -> None:
    known = {str(folder): {"hasTrustDialogAccepted": accepted} for folder in folders}
    (machine / ".claude.json").write_text(json.dumps({"projects": known, "other": 1}))


def look(machine: Path, **changed: object) -> Installation:
    settings = replace(Settings(), **changed)  # type: ignore[arg-type]
    return preflight(settings, Program.CLAUDE, home=machine / "state", project=machine / "webapp")


class TestPreflight:
    def test_an_installed_and_trusted_claude_can_be_used(self, machine: Path) -> None:
        install(machine)
        trust(machine, machine / "webapp")
        found = look(machine)
        assert found.version == "2.1.330"
        assert found.command == (str(machine / "bin" / "claude"),)
        assert found.config_dir == machine / ".claude"

    def test_it_never_writes(self, machine: Path) -> None:
        install(machine)
        trust(machine, machine / "webapp")
        before = {path: path.stat().st_mtime_ns for path in machine.rglob("*")}
        look(machine)
        assert {path: path.stat().st_mtime_ns for path in machine.rglob("*")} == before

    def test_one_that_is_not_there_is_named(self, machine: Path) -> None:
        with pytest.raises(Unavailable, match="no command 'claude' on PATH") as raised:
            look(machine)
        assert "--agent rehearsal" in (raised.value.hint or "")

    @pytest.mark.parametrize(
        ("version", "words"),
        [
            ("2.0.99 (Claude Code)", "2.0.99 is too old"),
            ("1.9.0", "1.9.0 is too old"),
            # Another program of that name.
            ("claude, the network simulator", "does not tell its version: claude, the network simulator"),
            ("", "does not tell its version: it printed nothing"),
        ],
    )
    def test_a_version_that_cannot_be_used_is_refused(self, machine: Path, version: str, words: str) -> None:
        install(machine, version=version)
        with pytest.raises(Unavailable, match=words):
            look(machine, trust_project=True)

    @pytest.mark.parametrize("version", ["2.1.0", "2.1.330 (Claude Code)", "2.10.0", "3.0.0-beta"])
    def test_newer_versions_are_taken(self, machine: Path, version: str) -> None:
        install(machine, version=version)
        assert look(machine, trust_project=True).version == version.partition(" ")[0].partition("-")[0]

    @pytest.mark.parametrize(
        ("login", "words"),
        [
            ('{"loggedIn": false}', "is not logged in"),
            ('{"loggedIn": null}', "is not logged in"),
            ("error: no such command", "does not tell whether it is logged in: error: no such command"),
            ("{}", "does not tell whether it is logged in"),
            ("[]", "does not tell whether it is logged in"),
            ("", "does not tell whether it is logged in"),
        ],
    )
    def test_who_is_not_surely_logged_in_is_told_so(self, machine: Path, login: str, words: str) -> None:
        install(machine, login=login)
        with pytest.raises(Unavailable, match=words) as raised:
            look(machine, trust_project=True)
        assert "claude auth" in (raised.value.hint or "")

    def test_one_that_cannot_be_run_is_named(self, machine: Path) -> None:
        path = machine / "bin" / "claude"
        path.write_bytes(b"\x7fELF of another machine")
        path.chmod(0o755)
        with pytest.raises(Unavailable, match="cannot be run"):
            look(machine, trust_project=True)

    def test_it_asks_without_a_terminal(self, machine: Path) -> None:
        install(machine, more="[ -t 0 ] && exit 8; read -r line && exit 7; : ")
        assert look(machine, trust_project=True).version == "2.1.330"

    def test_root_needs_a_sandbox_to_bypass(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(machine)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setenv("IS_SANDBOX", "true")
        with pytest.raises(Unavailable, match="for root"):
            look(machine, trust_project=True)
        assert look(machine, trust_project=True, permission_mode="auto")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert look(machine, trust_project=True)

    def test_the_rehearsal_needs_nothing(self, machine: Path) -> None:
        found = preflight(Settings(), Program.REHEARSAL, home=machine / "state", project=machine)
        assert found.config_dir == machine / "state" / "rehearsal"
        assert found.command == (sys.executable, "-m", "lib.rehearsal")


class TestTrust:
    @pytest.mark.parametrize(
        ("folder", "accepted", "is_trusted"),
        [
            # The repository itself.
            ("webapp", True, True),
            # A folder above it, beside it, below it.
            ("", True, False),
            ("webapp2", True, False),
            ("webapp/lib", True, False),
            # It was shown the question and has not said yes.
            ("webapp", False, False),
        ],
    )
    def test_only_the_repository_itself_counts(
        self, machine: Path, folder: str, accepted: bool, is_trusted: bool
    ) -> None:
        install(machine)
        trust(machine, machine / folder if folder else machine, accepted=accepted)
        if is_trusted:
            assert look(machine)
        else:
            with pytest.raises(Unavailable, match="not been told to trust"):
                look(machine)

    def test_the_root_folder_does_not_count(self, machine: Path) -> None:
        install(machine)
        trust(machine, Path("/"))
        with pytest.raises(Unavailable, match="not been told to trust"):
            look(machine)

    @pytest.mark.parametrize(
        "content", ["{", "[]", '{"projects": []}', '{"projects": {"%s": 1}}', '{"projects": null}']
    )
    def test_a_file_of_another_shape_is_not_trust(self, machine: Path, content: str) -> None:
        install(machine)
        text = content.replace("%s", str(machine / "webapp"))
        (machine / ".claude.json").write_text(text)
        with pytest.raises(Unavailable):
            look(machine)

    def test_the_setting_says_yes_without_a_look(self, machine: Path) -> None:
        install(machine)
        (machine / ".claude.json").write_text("{")
        assert look(machine, trust_project=True)

    def test_the_named_config_folder_is_asked(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(machine)
        other = machine / "other"
        other.mkdir()
        trust(other, machine / "webapp")
        with pytest.raises(Unavailable):
            look(machine)
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(other))
        assert look(machine).config_dir == other


class TestStarting:
    def command(
        self,
        agent: Agent,
        program: Program = Program.CLAUDE,
        *,
        socket: str | None = None,
        resume: bool = False,
        settings: Settings | None = None,
    ) -> list[str]:
        installed = Installation(program, ("/opt/claude",), "2.1.330", Path("/srv/config"))
        return launch_command(
            installed, agent, settings or Settings(), home=Path("/srv/state"), socket=socket, resume=resume
        )

    def variables(self, command: list[str]) -> dict[str, str]:
        program = command.index("/opt/claude")
        return dict(word.split("=", 1) for word in command[:program] if "=" in word)

    def test_a_new_agent_gets_its_files_and_its_identity(self) -> None:
        agent = an_agent(id=7, epoch=3, role="developer", session="webapp-impl")
        command = self.command(agent)
        assert command[0] == "env"
        after = command[command.index("/opt/claude") :]
        assert after == [
            *("/opt/claude", "--session-id", agent.conversation_id),
            *("--settings", "/srv/state/agents/7/settings.json"),
            *("--mcp-config", "/srv/state/agents/7/mcp.json"),
            *("--append-system-prompt-file", "/srv/state/agents/7/role.md"),
            *("--permission-mode", "bypassPermissions", "--name", "webapp-impl:developer"),
        ]
        variables = self.variables(command)
        assert variables["TMUX_ORCHESTRATOR_AGENT"] == "7"
        assert variables["TMUX_ORCHESTRATOR_EPOCH"] == "3"
        assert variables["TMUX_ORCHESTRATOR_ROLE"] == "developer"
        assert variables["TMUX_ORCHESTRATOR_SESSION"] == "webapp-impl"
        assert variables["TMUX_ORCHESTRATOR_HOME"] == "/srv/state"
        assert variables["PATH"].split(os.pathsep)[0] == str(ROOT)
        assert {"TMUX_ORCHESTRATOR_SOCKET", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_SANDBOXED"} & set(variables) == set()

    def test_one_that_goes_on_resumes_its_conversation(self) -> None:
        agent = an_agent()
        command = self.command(agent, resume=True)
        assert command[command.index("--resume") + 1] == agent.conversation_id
        assert "--session-id" not in command

    def test_another_server_another_model_and_trust(self) -> None:
        chosen = Settings(model="opus", trust_project=True, permission_mode="auto")
        command = self.command(an_agent(), socket="other", settings=chosen)
        assert self.variables(command)["TMUX_ORCHESTRATOR_SOCKET"] == "other"
        assert self.variables(command)["CLAUDE_CODE_SANDBOXED"] == "1"
        assert command[-2:] == ["--model", "opus"]
        assert command[command.index("--permission-mode") + 1] == "auto"

    def test_the_rehearsal_never_gets_the_real_folder(self) -> None:
        variables = self.variables(self.command(an_agent(), Program.REHEARSAL))
        assert variables["CLAUDE_CONFIG_DIR"] == "/srv/config"

    def test_it_does_not_inherit_the_identity_of_the_agent_that_launches_it(self) -> None:
        command = self.command(an_agent())
        taken = {command[number + 1] for number, word in enumerate(command) if word == "-u"}
        assert {"CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_PID", "VIRTUAL_ENV"} <= taken

    def test_its_path_has_the_doors_once_and_not_the_environment_of_a_door(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = f"{sys.prefix}/bin"
        monkeypatch.setenv("PATH", os.pathsep.join([own, "/usr/bin", str(ROOT), "/bin"]))
        assert self.variables(self.command(an_agent()))["PATH"].split(os.pathsep) == [str(ROOT), "/usr/bin", "/bin"]

    def test_its_files_hold_the_role_and_the_hooks(self, tmp_path: Path) -> None:
        home = tmp_path / "state home's"
        agent = an_agent(id=7, epoch=3)
        folder = starting.write_launch_files(
            agent, home=home, socket=None, role_text="You write.\n", reminder="Go on.\n"
        )
        assert (folder / "role.md").read_text() == "You write.\n"
        settings = json.loads((folder / "settings.json").read_text())
        assert settings["disableAllHooks"] is False
        assert list(settings["hooks"]) == list(hooks.EVENTS)
        for entry in settings["hooks"].values():
            (hook,) = entry[0]["hooks"]
            words = shlex.split(hook["command"])
            assert words[1:] == ["-I", "-S", str(ROOT / "lib" / "front" / "hook.py"), str(home), "7", "3"]
            assert os.access(words[0], os.X_OK)
            assert not words[0].startswith(str(ROOT))

    def test_a_hook_for_compactions_alone_prints_the_reminder(self, tmp_path: Path) -> None:
        home = tmp_path / "state home's"
        folder = starting.write_launch_files(
            an_agent(id=7), home=home, socket=None, role_text="", reminder='Go on with "it".\n'
        )
        hooks = json.loads((folder / "settings.json").read_text())["hooks"]
        assert [len(entry) for entry in hooks.values()] == [2, *[1] * (len(hooks) - 1)]
        reminding = hooks["SessionStart"][1]
        assert reminding["matcher"] == "compact"
        command = ["sh", "-c", reminding["hooks"][0]["command"]]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["hookSpecificOutput"]
        assert told == {"hookEventName": "SessionStart", "additionalContext": 'Go on with "it".\n'}
        (folder / "reminder.json").unlink()
        without = subprocess.run(command, capture_output=True, check=True)
        assert (without.stdout, without.stderr) == (b"", b"")


PASSED = [
    # By pattern.
    ("ANTHROPIC_API_KEY", True),
    ("CLAUDE_CODE_USE_BEDROCK", True),
    ("CLAUDE_CONFIG_DIR", True),
    ("DISABLE_TELEMETRY", True),
    # By name, exactly.
    ("IS_SANDBOX", True),
    ("IS_SANDBOXED", False),
    # Who the launching agent is.
    ("CLAUDE_PID", False),
    ("CLAUDE_CODE_SESSION_ID", False),
    ("CLAUDE_PROJECT_DIR", False),
    ("CLAUDE_CODE_MESSAGING_TOKEN", False),
    # Nothing of theirs.
    ("CLAUDECODE", False),
    ("PATH", False),
    ("AWS_SECRET_ACCESS_KEY", False),
    ("anthropic_api_key", False),
    ("MY_ANTHROPIC_KEY", False),
]


@pytest.mark.parametrize(("name", "is_passed"), PASSED)
def test_agents_get_the_variables_that_are_named(name: str, is_passed: bool) -> None:
    assert passed_environment(Settings(), {name: "value"}) == ({name: "value"} if is_passed else {})


def test_the_user_names_the_variables() -> None:
    chosen = Settings(pass_environment=("MY_*",))
    assert passed_environment(chosen, {"MY_KEY": "1", "ANTHROPIC_API_KEY": "2"}) == {"MY_KEY": "1"}


def payload(**values: object) -> bytes:
    return json.dumps(values).encode()


EMPTY = HookReport(event="Stop", conversation_id="", prompt="", error="", last_message="", source="", notification="")
REPORTS = [
    # What is measured.
    (
        payload(hook_event_name="UserPromptSubmit", session_id="c", prompt="hello", cwd="/x", permission_mode="auto"),
        replace(EMPTY, event="UserPromptSubmit", conversation_id="c", prompt="hello"),
    ),
    (
        payload(hook_event_name="StopFailure", session_id="c", error="rate_limit", last_assistant_message="limit"),
        replace(EMPTY, event="StopFailure", conversation_id="c", error="rate_limit", last_message="limit"),
    ),
    (
        payload(hook_event_name="SessionStart", session_id="c", source="clear"),
        replace(EMPTY, event="SessionStart", conversation_id="c", source="clear"),
    ),
    # An event that we did not ask for.
    (payload(hook_event_name="PreCompact"), replace(EMPTY, event="PreCompact")),
    # Fields of another kind than they were.
    (payload(hook_event_name="Stop", session_id=3, prompt=["a"], error={"type": "x"}, source=None), EMPTY),
    # Half of a pair, which JSON can name.
    (b'{"hook_event_name": "Stop", "prompt": "\\ud83d"}', replace(EMPTY, prompt="?")),
    # No event, or none that is a name.
    (payload(session_id="c"), None),
    (payload(hook_event_name=7), None),
    (payload(hook_event_name=None), None),
    # Not a report: a list, a word, a number, nothing.
    (b"[]", None),
    (b'"Stop"', None),
    (b"1", None),
    (b"null", None),
    (b"", None),
    # Cut off; not text.
    (b'{"hook_event_name": "Stop"', None),
    (b'\xff\xfe{"hook_event_name": "Stop"}', None),
    # As deep as an attacker likes.
    (b"[" * 100_000, None),
]


@pytest.mark.parametrize(("content", "report"), REPORTS, ids=lambda value: ascii(value)[:40])
def test_a_hook_payload_is_read_or_is_none(content: bytes, report: HookReport | None) -> None:
    assert hooks.report(content) == report


def line(**entry: object) -> str:
    return json.dumps(entry)


TRANSCRIPTS = [
    # Typed, as a string and as blocks.
    ([line(type="user", message={"role": "user", "content": "hello"})], ["hello"]),
    ([line(type="user", message={"content": [{"type": "text", "text": "a"}, {"type": "image"}]})], ["a"]),
    # Accepted while busy, and taken up later.
    ([line(type="queue-operation", operation="enqueue", content="later")], ["later"]),
    ([line(type="queue-operation", operation="dequeue", content="later")], []),
    ([line(type="queue-operation", operation="remove")], []),
    # What the agent said and what tools returned.
    ([line(type="assistant", message={"content": [{"type": "text", "text": "[msg 1 from a]"}]})], []),
    ([line(type="user", message={"content": [{"type": "tool_result", "content": "x"}]})], []),
    # Other shapes.
    ([line(type="user")], []),
    ([line(type="user", message=None)], []),
    ([line(type="user", message="hello")], []),
    ([line(type="user", message={"content": None})], []),
    (["[]", "1", "null", '"user"', ""], []),
    # A line that is still in the writing: the ones before it count, and one after it too.
    ([line(type="user", message={"content": "a"}), '{"type":"user","mess'], ["a"]),
    (['{"type":"user","mess', line(type="user", message={"content": "b"})], ["b"]),
]


@pytest.mark.parametrize(("lines", "found"), TRANSCRIPTS)
def test_a_transcript_tells_what_was_submitted(tmp_path: Path, lines: list[str], found: list[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    assert list(prompts(path)) == found


SUBMISSIONS = [
    # Accepted while busy, and read later: once.
    (
        [
            line(type="queue-operation", operation="enqueue", content="later"),
            line(type="queue-operation", operation="dequeue", content="later"),
            line(type="user", message={"content": "later"}),
        ],
        ["later"],
    ),
    # Typed twice.
    ([line(type="user", message={"content": "a"}), line(type="user", message={"content": "a"})], ["a", "a"]),
    # Accepted and read, and then typed once more.
    (
        [
            line(type="queue-operation", operation="enqueue", content="a"),
            *[line(type="user", message={"content": "a"})] * 2,
        ],
        ["a", "a"],
    ),
    # Accepted twice, and read once so far.
    (
        [
            *[line(type="queue-operation", operation="enqueue", content="a")] * 2,
            line(type="user", message={"content": "a"}),
        ],
        ["a", "a"],
    ),
]


@pytest.mark.parametrize(("lines", "found"), SUBMISSIONS)
def test_what_was_accepted_and_then_read_was_submitted_once(tmp_path: Path, lines: list[str], found: list[str]) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    assert list(transcripts.submissions(path)) == found


def test_a_cut_character_at_the_end_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(line(type="user", message={"content": "a"}).encode() + b'\n{"type":"user","message":"\xc3')
    assert list(prompts(path)) == ["a"]


def test_a_transcript_is_found_by_its_conversation(tmp_path: Path) -> None:
    assert transcripts.find(tmp_path, "c1") is None
    path = tmp_path / "projects" / "-srv-webapp" / "c1.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    assert transcripts.find(tmp_path, "c1") == path
    assert transcripts.find(tmp_path, "c2") is None


class TestState:
    def say(self, folder: Path, process: Process, **values: object) -> AgentState:
        path = folder / "sessions" / f"{process.pid}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
        return sessions.state(folder, "c1", process)

    @pytest.mark.parametrize(
        ("status", "state"),
        [
            ("idle", AgentState.IDLE),
            ("busy", AgentState.WORKING),
            ("waiting", AgentState.ASKING),
            # A word of a later version: nothing is typed to it.
            ("shell", AgentState.WORKING),
            (None, AgentState.WORKING),
        ],
    )
    def test_the_session_file_tells_what_an_agent_does(
        self, tmp_path: Path, status: str | None, state: AgentState
    ) -> None:
        process = host.process(os.getpid())
        assert process
        assert self.say(tmp_path, process, sessionId="c1", status=status, procStart=str(process.started)) is state

    def test_a_file_of_another_life_says_nothing(self, tmp_path: Path) -> None:
        process = Process(4711, 100, "boot")
        assert sessions.state(tmp_path, "c1", process) is AgentState.STARTING
        assert self.say(tmp_path, process, sessionId="c2", status="idle") is AgentState.STARTING
        assert self.say(tmp_path, process, sessionId="c1", status="idle", procStart="99") is AgentState.STARTING
        assert self.say(tmp_path, process, sessionId="c1", status="idle", procStart=100) is AgentState.IDLE
        assert self.say(tmp_path, process, sessionId="c1", status="idle") is AgentState.IDLE

    @pytest.mark.parametrize("content", ["", "{", "[]", "null"])
    def test_a_file_in_the_writing_says_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "sessions").mkdir()
        (tmp_path / "sessions" / "4711.json").write_text(content)
        assert sessions.state(tmp_path, "c1", Process(4711, 100, "boot")) is AgentState.STARTING
