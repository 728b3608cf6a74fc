"""Research and what it is made of, on a real store, git and tmux; nothing here asks a model."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lib import headless, host, orchestrations, planning, store
from lib.config import QueueSettings, ResearchSettings, Settings
from lib.errors import Unavailable
from lib.models import Attempt, OrchestrationStatus, Program, QueueEntry
from lib.queue import draining, entries, evidence, research
from tests.conftest import Bench, commit_all, wait_for
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]

#: An answer as it is kept, of a model that was asked.
FOUND: dict[str, Any] = {
    "summary": "It was\ncold.",
    "root_cause": "The window.",
    "category": "environment",
    "evidence": [],
    "advice": ["Close it."],
    "questions_for_person": ["Who has\nthe key?"],
    "worth_retrying": False,
    "notes": ["asked without the server grok: failed"],
}
SCHEMA = {"type": "object", "properties": {}, "required": []}


def the_attempt(db: sqlite3.Connection, entry: QueueEntry) -> Attempt:
    found = entries.open_attempt(db, entry.id)
    assert found
    return found


def retry(db: sqlite3.Connection, bench: Bench, project: Path, reason: str = "no wind") -> tuple[QueueEntry, Attempt]:
    """An entry whose first attempt has failed, and its second."""
    new = entries.NewEntry(project / "spec.md", (project / "spec.md").read_text(), project)
    (entry,) = entries.add(db, [new], now=host.now_ms()).entries
    entries.claim(db, now=host.now_ms(), max_concurrent=1)
    entries.fail(db, the_attempt(db, entry), reason, QueueSettings(retry_minutes=1e-9), now=host.now_ms())
    wait_for(lambda: entries.claim(db, now=host.now_ms(), max_concurrent=1), "the second attempt")
    return entry, the_attempt(db, entry)


def researched(db: sqlite3.Connection, bench: Bench, settings: Settings, project: Path) -> Attempt:
    entry, attempt = retry(db, bench, project)
    stage = planning.Stage(bench.home, bench.tmux, settings)
    return research.before_attempt(db, stage, entry, attempt, now=host.now_ms())


NOT_ASKED = [
    (Settings(agent=Program.REHEARSAL), "rehearsal agents: no model is asked"),
    (Settings(research=ResearchSettings(enabled=False)), "it is switched off (research.enabled)"),
    (Settings(claude_command="no-such-claude"), "Claude Code is not installed: no command 'no-such-claude' on PATH"),
]


@pytest.mark.parametrize(("settings", "why_not"), NOT_ASKED)
def test_where_nobody_is_asked_the_retry_is_plain_and_says_so(bench: Bench, settings: Settings, why_not: str) -> None:
    db = bench.db()
    attempt = researched(db, bench, settings, bench.project())
    assert attempt.spec_path is None
    assert json.loads(attempt.research or "") == {"why_not": why_not}
    assert evidence.of_research(attempt) == [f"research: none, so its spec is the original: {why_not}"]
    assert [event.data["enhanced"] for event in store.events(db) if event.kind == "queue.researched"] == [False]


def test_what_was_put_off_is_asked_again(bench: Bench) -> None:
    """No login, say: neither the research nor the launch can be done, and both are when there is one."""
    db = bench.db()
    attempt = researched(db, bench, Settings(claude_command="no-such-claude"), bench.project())
    entries.defer(db, attempt, "not logged in", now=0)
    again = entries.claim(db, now=host.now_ms(), max_concurrent=1)
    assert again and again.number == 2 and again.research is None
    # An enhanced spec is not made twice.
    kept = entries.note_research(db, again, FOUND, Path("/enhanced.md"), now=host.now_ms())
    entries.defer(db, kept, "not logged in", now=0)
    third = entries.claim(db, now=host.now_ms(), max_concurrent=1)
    assert third and third.research == kept.research and third.spec_path == Path("/enhanced.md")


def test_an_attempt_that_was_cancelled_meanwhile_keeps_no_research(bench: Bench) -> None:
    db = bench.db()
    entry, attempt = retry(db, bench, bench.project())
    entries.cancel(db, entry.id, now=host.now_ms())
    entries.note_research(db, attempt, FOUND, None, now=host.now_ms())
    assert entries.attempts(db, entry.id)[-1].research is None
    assert [event for event in store.events(db) if event.kind == "queue.researched"] == []


def test_attempts_that_have_not_failed_are_no_matter_of_research(bench: Bench) -> None:
    db, project = bench.db(), bench.project()
    new = entries.NewEntry(project / "spec.md", "# A spec\n", project)
    (entry,) = entries.add(db, [new], now=host.now_ms()).entries
    entries.claim(db, now=host.now_ms(), max_concurrent=1)
    entries.cancel(db, entry.id, now=host.now_ms())
    entries.retry(db, entry.id, now=host.now_ms())
    attempt = entries.claim(db, now=host.now_ms(), max_concurrent=1)
    assert attempt and attempt.number == 2
    stage = planning.Stage(bench.home, bench.tmux, Settings())
    assert research.before_attempt(db, stage, entry, attempt, now=host.now_ms()) == attempt


def test_the_story_and_the_last_notice_tell_what_research_has_said(bench: Bench) -> None:
    db = bench.db()
    entry, attempt = retry(db, bench, bench.project())
    attempt = entries.note_research(db, attempt, FOUND, Path("/enhanced.md"), now=host.now_ms())
    said = [
        "research (environment): It was cold.",
        "  it doubts that another attempt can succeed",
        "  a question for you: Who has the key?",
        "  asked without the server grok: failed",
    ]
    assert evidence.of_research(attempt) == said
    told = bench.ok("scheduler.py", "--queue-status", str(entry.id)).out.splitlines()
    assert [f"    {line}" for line in said] == told[told.index(f"    {said[0]}") :][: len(said)]
    entries.fail(db, attempt, "no wind again", QueueSettings(max_attempts=2), now=host.now_ms())
    (notice,) = bench.rows("SELECT * FROM notices WHERE kind = 'abandoned'")
    assert notice["body"].splitlines() == ["attempt 1: failed: no wind", *said, "attempt 2: failed: no wind again"]


def test_title_and_team_are_the_original_s_and_the_team_reads_the_enhanced_spec(bench: Bench) -> None:
    db, project = bench.db(), bench.project()
    entry, attempt = retry(db, bench, project)
    stage = planning.Stage(bench.home, bench.tmux, Settings(agent=Program.REHEARSAL))
    plain = draining._decide(db, stage, entry, attempt)
    path = bench.folder / "enhanced.md"
    path.write_bytes(f"{entry.spec_text}\n\nPROJECT: Another\nterraform kubernetes deployment server\r\n".encode())
    decided = draining._decide(db, stage, entry, dataclasses.replace(attempt, spec_path=path))
    assert decided.team == plain.team
    assert decided.orchestration.spec_title == plain.orchestration.spec_title == "Greeting"
    assert decided.orchestration.spec_text.encode() == path.read_bytes()
    assert plain.orchestration.spec_text == entry.spec_text
    path.unlink()
    with pytest.raises(Exception, match=r"its enhanced spec .* cannot be read: No such file"):
        draining._decide(db, stage, entry, dataclasses.replace(attempt, spec_path=path))


class TestEvidence:
    """What a team has left that has failed."""

    @pytest.fixture
    def attempt(self, still_team: StillTeam) -> Attempt:
        db = still_team.db
        found = orchestrations.get(db, still_team.id)
        new = entries.NewEntry(found.spec_path, found.spec_text, found.project)
        (entry,) = entries.add(db, [new], now=host.now_ms()).entries
        with store.writing(db):
            db.execute(
                "INSERT INTO attempts (entry_id, number, started_at, counted_at) VALUES (?, 1, ?, 0)",
                (entry.id, found.created_at),
            )
            entries.link(db, the_attempt(db, entry), found.id, now=host.now_ms())
        return the_attempt(db, entry)

    def parts(self, team: StillTeam, attempt: Attempt) -> dict[str, str]:
        found = evidence.of_attempt(team.db, team.bench.home, attempt)
        return {part.title.partition(",")[0]: part.text for part in found.parts}

    def test_events_screens_and_work_of_each_role(self, still_team: StillTeam, attempt: Attempt) -> None:
        team, worktree = still_team, still_team.agent("developer").worktree
        team.commit("developer", "one.txt")
        (worktree / "two.txt").write_text("not yet\n")
        (worktree / "caf\udce9.txt").write_text("a name of other days\n")
        pane = team.agent("tester").pane_id or ""
        team.bench.tmux.run("respawn-pane", "-k", "-t", pane, "printf 'last words \\033[31mred\\n'; sleep 1000")
        wait_for(lambda: "last words" in team.bench.screen(pane), "the last words")
        evidence.keep_screens(team.db, team.bench.tmux, team.bench.home, attempt)
        orchestrations.set_status(
            team.db, team.id, OrchestrationStatus.FAILED, now=host.now_ms() + 125_000, outcome="no wind " * 20
        )
        found = self.parts(team, attempt)
        assert found["what has happened"].endswith(
            f"   2 min  the orchestration is failed: {('no wind ' * 20).strip()}"
        )
        assert found["the last screen of the tester"].splitlines()[0] == "last words red"
        work = found["the branch of the developer"]
        assert "Test, " in work and ": Add one.txt" in work and "one.txt | 1 +" in work
        assert "Not committed:\n" in work and "?? two.txt" in work
        assert found["the branch of the tester"] == "nothing was committed"
        for text in found.values():
            text.encode()

    def test_work_that_was_merged_is_there_once_as_a_commit(self, still_team: StillTeam, attempt: Attempt) -> None:
        team = still_team
        team.commit("developer", "one.txt")
        lead = team.agent("orchestrator").worktree
        identity = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        merge = ("merge", "-q", "--no-ff", "-m", "Take the developer's", team.agent("developer").branch)
        subprocess.run(["git", *identity, *merge], cwd=lead, check=True)
        work = self.parts(team, attempt)["the branch of the orchestrator"]
        assert "Take the developer's" in work and "Add one.txt" not in work and "one.txt | 1 +" in work

    def test_what_is_gone_says_so_and_stops_nothing(self, still_team: StillTeam, attempt: Attempt) -> None:
        team = still_team
        agent = team.agent("developer")
        project = orchestrations.get(team.db, team.id).project
        for words in (["worktree", "remove", "--force", str(agent.worktree)], ["branch", "-q", "-D", agent.branch]):
            subprocess.run(["git", *words], cwd=project, check=True)
        assert self.parts(team, attempt)["the branch of the developer"] == "nothing was committed"
        project.rename(project.with_name("elsewhere"))
        assert self.parts(team, attempt)["the branch of the developer"].startswith("(it cannot be looked at: git ")

    def test_git_is_read_whatever_the_user_has_set(self, still_team: StillTeam, attempt: Attempt) -> None:
        team = still_team
        team.commit("developer", "one.txt")
        project = orchestrations.get(team.db, team.id).project
        for setting in ("color.ui=always", "diff.external=/no/such", "log.showSignature=true", "status.short=false"):
            subprocess.run(["git", "config", *setting.split("=")], cwd=project, check=True)
        work = self.parts(team, attempt)["the branch of the developer"]
        assert "Add one.txt" in work and "one.txt | 1 +" in work and "\x1b" not in work

    def test_an_attempt_without_a_team_has_its_reason(self, bench: Bench) -> None:
        db = bench.db()
        entry, _ = retry(db, bench, bench.project(), reason="\x1b[1mthe project is gone\n")
        (first, _) = entries.attempts(db, entry.id)
        assert evidence.of_attempt(db, bench.home, first) == evidence.Failure("attempt 1", "the project is gone")


class TestEnhancedSpec:
    ANALYSIS = research.Analysis({name: value for name, value in FOUND.items() if name != "notes"}, None, ())

    def test_it_is_there_whole_or_not_at_all(self, bench: Bench) -> None:
        path = bench.folder / "place" / "spec.md"
        research.write_enhanced(path, "first\n", self.ANALYSIS, [])
        assert path.read_text().startswith("first\n")
        research.write_enhanced(path, "second\r\n", self.ANALYSIS, [])
        assert path.read_bytes().startswith(b"second\r\n")
        assert list(path.parent.iterdir()) == [path]
        with pytest.raises(Unavailable, match="cannot be written: File exists"):
            research.write_enhanced(path / "spec.md", "third\n", self.ANALYSIS, [])
        (path.parent / "enhanced.new").mkdir()
        with pytest.raises(Unavailable, match="cannot be written: Is a directory"):
            research.write_enhanced(path, "third\n", self.ANALYSIS, [])
        assert path.read_bytes().startswith(b"second\r\n")


class TestOtherPrograms:
    """A command of that name that is no Claude Code, or a broken one."""

    def ask(self, bench: Bench, script: str, *, seconds: float = 60.0) -> str:
        command = bench.folder / "claude"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o700)
        with pytest.raises(Unavailable) as caught:
            headless.ask(headless.Asking(str(command), seconds=seconds), "?", SCHEMA, folder=bench.folder / "empty")
        return caught.value.sentence

    @pytest.mark.parametrize(
        ("script", "sentence"),
        [
            ("echo 'error: unknown option --tools' >&2; exit 1", "error: unknown option --tools"),
            ("echo hello; echo '[1]'; echo '{}'", "it left with exit code 0"),
            ("kill -9 $$", "it left with exit code -9"),
            ('yes \'{"type": "system"}\'', "Claude Code has printed more than 32,000,000 bytes"),
            # What was printed besides is no reason.
            ('echo note >&2; echo \'{"type": "result", "result": "no"}\'; exit 7', "Claude Code gave no answer: no"),
            # It answers, and its answer is another one: an older version, which checks less.
            (
                'echo \'{"type": "result", "structured_output": 7}\'',
                "Claude Code's answer has not the shape that was asked for: the whole must be an object",
            ),
        ],
    )
    def test_what_it_says_is_told(self, bench: Bench, script: str, sentence: str) -> None:
        assert self.ask(bench, script).removeprefix("Claude Code gave no answer: ") in (
            sentence,
            sentence.removeprefix("Claude Code gave no answer: "),
        )

    def test_one_that_cannot_be_run_is_told(self, bench: Bench) -> None:
        (bench.folder / "claude").write_bytes(b"\0\0")
        (bench.folder / "claude").chmod(0o700)
        with pytest.raises(Unavailable, match="cannot be run: Exec format error"):
            asking = headless.Asking(str(bench.folder / "claude"))
            headless.ask(asking, "?", SCHEMA, folder=bench.folder / "empty")

    def test_one_that_does_not_end_when_it_is_asked_to_is_killed_with_its_children(self, bench: Bench) -> None:
        mark = bench.folder / "pid"
        script = f"trap '' TERM; sleep 1000 & echo $! > {mark}; while :; do sleep 1; done"
        assert self.ask(bench, script, seconds=1) == "Claude Code has not answered within 1 s"
        wait_for(lambda: host.process(int(mark.read_text())) is None, "its child to be gone")


INPUTS = [
    ("", "--research: line 1, column 1 is not JSON"),
    ('{"failed_projects": [}', "--research: line 1, column 22 is not JSON"),
    ("[]", "--research: the whole must be an object"),
    ("{}", "the whole has no failed_projects"),
    ('{"failed_projects": []}', "failed_projects must not be empty"),
    ('{"failed_projects": [{"spec_path": "a", "error_message": "b"}, {"spec_path": 1}]}', "failed_projects[1]"),
    ('{"failed_projects": [{"spec_path": "", "error_message": "b"}]}', "failed_projects[0].spec_path must not be"),
    ('{"failed_projects": [{"spec_path": "a", "error_message": "b"}], "session_id": 7}', "session_id must be text"),
    ("@no-such-file", "no-such-file cannot be read: No such file or directory"),
    ("@.", ". cannot be read: Is a directory"),
    ("@binary", "binary: byte 0 is not UTF-8 text"),
    ("[" * 100_000, "--research: it is nested too deeply"),
    ("-", "standard input: line 1, column 2 is not JSON"),
]


@pytest.mark.parametrize(("given", "words"), INPUTS, ids=lambda value: value[:40])
def test_input_of_another_form_is_refused_and_its_place_is_named(bench: Bench, given: str, words: str) -> None:
    (bench.folder / "binary").write_bytes(b"\xff\xfe")
    done = bench.door("auto_orchestrate.py", "--research", given, stdin="{nope")
    assert (done.code, done.out) == (2, "")
    assert words in done.err and done.err.startswith("error: "), done.err
    assert not (bench.home / "research").exists()


def test_it_is_a_step_of_its_own(bench: Bench) -> None:
    given = '{"failed_projects": [{"spec_path": "a", "error_message": "b"}]}'
    done = bench.door("auto_orchestrate.py", "--research", given, "--spec", "spec.md")
    assert (done.code, done.out) == (2, "")
    assert "takes no other option" in done.err


def test_the_answer_is_json_whatever_is_said_meanwhile(bench: Bench) -> None:
    bench.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0"}
    given = {"failed_projects": [{"spec_path": "für.md", "error_message": "\ud800"}], "session_id": "é"}
    done = bench.door("auto_orchestrate.py", "--json", "-v", "--research", json.dumps(given))
    assert done.code == 1 and done.json["session_id"] == "é"
    assert done.json["projects"][0]["error_message"] == "\ud800"


def test_nothing_of_a_user_is_changed(bench: Bench) -> None:
    project = bench.project()
    commit_all(project, "Nothing")
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    given = {"failed_projects": [{"spec_path": str(project / "spec.md"), "error_message": "x"}]}
    config = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("claude_command: no-such-claude\n")
    assert bench.door("auto_orchestrate.py", "--research", json.dumps(given)).code == 1
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before
