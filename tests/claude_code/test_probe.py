"""The probe: the tested Claude Code passes it, and one that lacks a thing fails in the check that is about it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lib import agents, host, probing, verdicts
from lib.claude.installed import TESTED_VERSIONS
from lib.composer import Composer
from lib.errors import Unavailable
from lib.models import AgentState
from lib.probing import Result, Verdict
from lib.probing.checks import CHECKS, run
from lib.probing.scene import Scene
from tests.conftest import Bench, wait_for

from .conftest import launch

pytestmark = pytest.mark.claude_code

#: What is not there is not looked for as long as on a machine of which nothing is known.
SECONDS = 8.0

#: A program before the real one, which takes something from it. `words` are its arguments.
WRAPPER = """#!{python}
import json, os, sys
real, words = {real!r}, sys.argv[1:]

def without(flag):
    place = words.index(flag) if flag in words else len(words)
    del words[place : place + 2]

def unhook(event):
    if "--settings" in words and words[0] != "-p":
        path = words[words.index("--settings") + 1]
        settings = json.load(open(path))
        settings["hooks"].pop(event, None)
        json.dump(settings, open(path, "w"))

def is_idle():
    sessions = os.path.expanduser("~/.claude/sessions")
    os.makedirs(sessions, exist_ok=True)
    said = dict(sessionId=words[words.index("--session-id") + 1], status="idle")
    json.dump(said, open("%s/%d.json" % (sessions, os.getpid()), "w"))

in_window = "--name" in words
{defect}
os.execv(real, [real, *words])
"""

#: What a deaf composer shows.
COMPOSER = r"""
if in_window and "untrusted" not in os.getcwd():
    is_idle()
    rule = "\u2500" * 118
    print("\n%s\n\u276f\u00a0\x1b[7m \x1b[0m\n%s\n  ? for shortcuts" % (rule, rule), flush=True)
    os.execvp("sh", ["sh", "-c", "stty -echo raw; exec sleep 600"])
"""

#: The check that fails, and what was taken from Claude Code.
DEFECTS = {
    "login": 'if words[0] == "auth": sys.exit("unknown command: auth")',
    "headless": 'if words[0] == "-p": without("--json-schema")',
    "trust question": 'os.environ["CLAUDE_CODE_SANDBOXED"] = "1"',
    "start and flags": 'if "--append-system-prompt-file" in words: sys.exit("error: unknown option")',
    "composer": 'if in_window: is_idle(); os.execvp("sleep", ["sleep", "600"])',
    "hook SessionStart": 'unhook("SessionStart")',
    "paste": COMPOSER,
    "submit": 'unhook("UserPromptSubmit")',
    "role text": 'without("--append-system-prompt-file")',
    "tools": 'without("--mcp-config")',
    "state": 'unhook("Stop")',
    "transcript": 'if in_window: open(os.path.expanduser("~/.claude/projects"), "a").close()',
    "resume": 'if "--resume" in words: words[words.index("--resume")] = "--session-id"',
    "limit": 'unhook("StopFailure")',
    "balance": 'unhook("StopFailure")',
    "question": 'words = ["bypassPermissions" if word == "default" else word for word in words]',
}
#: What can be taken at once, since nothing else needs it.
TOGETHER = ("headless", "trust question", "role text", "tools", "limit", "balance", "question")


@pytest.fixture
def lacking(tmp_path: Path, claude_binary: Path) -> Callable[[str], str]:
    """Makes a Claude Code that lacks something. Returns its path."""

    def make(defect: str) -> str:
        path = tmp_path / "claude"
        path.write_text(WRAPPER.format(python=sys.executable, real=str(claude_binary), defect=defect))
        path.chmod(0o755)
        return str(path)

    return make


def by_name(results: list[Result]) -> dict[str, Result]:
    return {one.name: one for one in results}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="orch-", dir="/tmp") as folder:
        yield Path(folder)


def test_the_tested_version_passes_and_leaves_nothing(claude_bench: Bench, scratch: Path) -> None:
    claude_bench.environment["TMPDIR"] = str(scratch)
    done = claude_bench.door("claude_control.py", "doctor", "--probe", "--json", seconds=300)
    assert [(one["name"], one["said"]) for one in done.json["probe"] if one["verdict"] != "holds"] == []
    assert len(done.json["probe"]) == len(CHECKS)
    (kept,) = claude_bench.rows("SELECT version, failed FROM verdicts")
    assert kept["failed"] == "[]"
    assert list(scratch.iterdir()) == []
    # The probe has a home of its own: nothing of it is in the user's.
    assert not list((Path(claude_bench.environment["HOME"]) / ".claude").glob("projects/*"))
    assert claude_bench.rows("SELECT * FROM agents") == []


@pytest.mark.parametrize("names", [TOGETHER, *((name,) for name in DEFECTS if name not in TOGETHER)], ids="+".join)
def test_a_claude_that_lacks_something_fails_in_its_check(lacking: Callable[[str], str], names: tuple[str]) -> None:
    defects = "\n".join(DEFECTS[name] for name in names)
    found = by_name(probing.probe(lacking(defects), names=names, seconds=SECONDS))
    failed = [one.name for one in found.values() if one.verdict is Verdict.FAILS and one.said]
    assert failed == list(names), found


class TestHands:
    """What no program before the real one can take from it: here it is our own hand that does nothing."""

    @pytest.fixture
    def scene(self, tmp_path: Path, claude_binary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
        folder = tmp_path / "probe"
        folder.mkdir()
        environment = probing.environment(folder, os.environ)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "")  # so that it is as before afterwards
        with Scene.made(folder, str(claude_binary), seconds=SECONDS) as made:
            yield made
        probing.end_all(environment)

    def test_long_text_is_pasted_as_one(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lib.probing.scene.framing.chunks", lambda text: [text])
        found = by_name(list(run(scene, ("long text",))))["long text"]
        assert (found.verdict, "pasted" in found.said) == (Verdict.FAILS, True)

    def test_enter_does_nothing_while_it_works(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        submit = Composer.submit

        def when_idle(self: Composer) -> None:
            if agents.state_of(self.agent) is AgentState.IDLE:
                submit(self)

        monkeypatch.setattr(Composer, "submit", when_idle)
        assert by_name(list(run(scene, ("queue",))))["queue"].verdict is Verdict.FAILS

    def test_escape_does_nothing(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lib.composer.ESCAPE", "\x01")  # the composer takes it for "to the beginning of the line"
        found = by_name(list(run(scene, ("interrupt",))))["interrupt"]
        assert (found.verdict, "after Escape" in found.said) == (Verdict.FAILS, True)


def test_nothing_of_an_account_reaches_a_probe() -> None:
    of_shell = {"PATH": "/bin", "ANTHROPIC_API_KEY": "real", "HOME": "/real", "CLAUDE_CONFIG_DIR": "/real/c"}
    made = probing.environment(Path("/scratch"), of_shell)
    assert [value for value in made.values() if "real" in value] == [made["CLAUDE_CODE_OAUTH_TOKEN"]]
    assert made["CLAUDE_CODE_OAUTH_TOKEN"].endswith("not-a-real-token")


def test_every_check_was_seen_to_fail() -> None:
    assert {one.name for one in CHECKS} == {*DEFECTS, "long text", "queue", "interrupt"}


def test_after_a_vital_check_the_others_are_not_looked_at(lacking: Callable[[str], str]) -> None:
    results = probing.probe(lacking(DEFECTS["start and flags"]), seconds=2.0)
    after = [one.verdict for one in results[4:]]
    assert after == [Verdict.UNSEEN] * len(after)
    assert "unknown option" in by_name(results)["start and flags"].said


def test_a_probe_that_cannot_be_made_is_no_verdict(
    claude_bench: Bench, lacking: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "MOST_SECONDS", 1.0)
    with pytest.raises(Unavailable, match="took longer than 1 s"):
        probing.probe(lacking(""))


def test_a_tmux_that_does_nothing_is_no_verdict(
    lacking: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmux = tmp_path / "bin" / "tmux"
    tmux.parent.mkdir()
    tmux.write_text("#!/bin/sh\necho 'lost server' >&2\nexit 1\n")
    tmux.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmux.parent}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match=r"did not come to its end: .*lost server"):
        probing.probe(lacking(""))


def test_a_long_path_of_temporary_files_is_no_obstacle(
    lacking: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("x" * 90)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    results = probing.probe(lacking(""), names=("paste",))
    assert {one.verdict for one in results} == {Verdict.HOLDS}


@pytest.mark.parametrize(("name", "again"), [("composer", ()), ("role text", ("role text",))])
def test_what_fails_once_is_looked_at_again(monkeypatch: pytest.MonkeyPatch, name: str, again: tuple[str]) -> None:
    """All of it when others have waited for what has failed; the looks of a probe are made up here."""
    asked: list[tuple[str, ...]] = []

    def probe(
        executable: str, *, names: Sequence[str] = (), tell: Callable[[Result], None], **_: object
    ) -> list[Result]:
        asked.append(tuple(names))
        failed, made = False, list[Result]()
        for check in CHECKS:
            if not names or check.name in names or check.is_vital:
                fails = check.name == name and len(asked) == 1
                made.append(Result(check.name, Verdict.FAILS if fails else Verdict.UNSEEN if failed else Verdict.HOLDS))
                tell(made[-1])
                failed |= fails and check.is_vital
        return made

    monkeypatch.setattr(probing, "probe", probe)
    told: list[Result] = []
    results = probing.judge("claude", tell=told.append)
    assert asked == [(), again]
    assert [one.verdict for one in told if one.name == name] == [Verdict.FAILS, Verdict.HOLDS]
    assert [(one.name, one.verdict) for one in results] == [(one.name, Verdict.HOLDS) for one in CHECKS]


def test_a_failed_probe_keeps_who_runs_by_itself(claude_bench: Bench, trusted_project: Path) -> None:
    launch(claude_bench, trusted_project, "orchestrator")
    (agent,) = claude_bench.rows("SELECT * FROM agents")
    verdicts.keep(claude_bench.db(), TESTED_VERSIONS[0], [("hooks", "no hook ran")], now=1)
    claude_bench.ok("scheduler.py", "--stop")
    os.kill(agent["pid"], signal.SIGKILL)
    wait_for(lambda: host.process(agent["pid"]) is None, "its end")
    words = ("--project", str(trusted_project), "--resume")
    refused = claude_bench.door("auto_orchestrate.py", *words, "--unattended")
    assert (refused.code, "doctor --force" in refused.err) == (5, True)
    told = claude_bench.ok("auto_orchestrate.py", *words)
    assert "does not do all that a team needs (hooks)" in told.err


def test_a_failed_probe_keeps_the_queue_waiting(claude_bench: Bench, trusted_project: Path) -> None:
    verdicts.keep(claude_bench.db(), TESTED_VERSIONS[0], [("hooks", "no hook ran")], now=1)
    spec = str(trusted_project / "spec.md")
    claude_bench.ok("scheduler.py", "--queue-add", "--no-ai", spec, str(trusted_project))
    (attempt,) = wait_for(
        lambda: claude_bench.rows("SELECT * FROM attempts WHERE outcome IS NOT NULL"), "the attempt to be over"
    )
    assert (attempt["outcome"], "hooks" in str(attempt)) == ("deferred", True)
    assert claude_bench.rows("SELECT * FROM agents") == []
