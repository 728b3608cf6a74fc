"""What `claude_control.py report` writes: text, Markdown and HTML; whatever agents say in it is text."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lib import dossier, host, messages, orchestrations, store
from lib.errors import ExitCode
from lib.judgement.durations import Took
from lib.models import MessageKind, OrchestrationStatus
from lib.spending import ledger
from lib.templates import plain
from tests.conftest import Bench, commit_all
from tests.integration.still_team import StillTeam, still_team
from tests.transcripts import USED_USD, answer, transcript_of

__all__ = ["still_team"]

HOUR_MS = 3_600_000
EVIL = "<script>alert(1)</script> | [x](http://nowhere) `code`\n# Heading"


def happen(team: StillTeam, kind: str, role: str, *, at: int, **data: Any) -> None:
    with store.writing(team.db):
        store.record(team.db, kind, now=at, orchestration=team.id, agent=team.agent(role).id, **data)


def arrive(team: StillTeam, role: str, *, after_seconds: float) -> None:
    """A message to a role that it has acknowledged so much later."""
    agent, now = team.agent(role), host.now_ms()
    made = messages.queue(team.db, agent, "Hello", sender="user", kind=MessageKind.MESSAGE, now=now)
    messages.confirm(team.db, agent, made, now=now + int(after_seconds * 1000))


class Reader(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


class TestDossier:
    def test_tells_what_has_happened_in_the_time_of_a_team(self, still_team: StillTeam) -> None:
        arrive(still_team, "tester", after_seconds=2)
        arrive(still_team, "tester", after_seconds=4)
        found = orchestrations.get(still_team.db, still_team.id)
        took = 48_000
        happen(still_team, "candidate.red", "developer", at=found.created_at + took // 2, reason="the check is red")
        one = dossier.of(still_team.db, found, now=found.created_at + took)
        assert one.took == took and one.until == found.created_at + took
        assert (one.traffic.arrived, one.traffic.took) == ({"tester": 2}, Took(2, 3.0, 4.0))
        assert dossier.Mark("developer", dossier.PARTS // 2, "trouble", 1) in one.marks
        assert one.story[-1].text == "developer's work went back: the check is red"
        assert not any("Hello" in entry.text for entry in one.story), "messages are in the picture alone"

    def test_of_one_that_is_over_ends_with_it(self, still_team: StillTeam) -> None:
        still_team.end()
        found = orchestrations.get(still_team.db, still_team.id)
        assert dossier.of(still_team.db, found, now=host.now_ms() + 3_600_000).until == found.updated_at

    def test_has_the_newest_of_a_long_story_and_says_how_many_are_left_out(self, still_team: StillTeam) -> None:
        now = host.now_ms()
        for number in range(dossier.MOST_SENTENCES + 5):
            happen(still_team, "overlap.cleared", "developer", at=now, other=f"tester{number}")
        one = dossier.of(still_team.db, orchestrations.get(still_team.db, still_team.id), now=now)
        assert len(one.story) == dossier.MOST_SENTENCES and one.left_out >= 5
        assert f"tester{dossier.MOST_SENTENCES + 4}" in one.story[-1].text

    def test_has_what_was_spent_by_role_and_over_the_time(self, still_team: StillTeam, tmp_path: Path) -> None:
        begun = (host.now_ms() - 48 * HOUR_MS) // HOUR_MS * HOUR_MS
        still_team.db.execute("UPDATE orchestrations SET created_at = ?, program = 'claude'", (begun,))
        _, transcript = transcript_of(still_team.db, still_team.agent("tester"), tmp_path)
        transcript.write(answer(at=begun + HOUR_MS // 2), answer(at=begun + 24 * HOUR_MS + 1))
        ledger.count(still_team.db, still_team.agent("tester"), now=host.now_ms())
        found = orchestrations.get(still_team.db, still_team.id)
        one = dossier.of(still_team.db, found, now=begun + 48 * HOUR_MS)
        assert {part: usd for part, usd in enumerate(one.spent_parts) if usd} == {0: USED_USD, 24: USED_USD}
        assert list(one.bills) == ["tester"] and one.total.usd == pytest.approx(2 * USED_USD)
        still_team.control("report", "--output", str(tmp_path / "r.html"))
        page = Reader((tmp_path / "r.html").read_text())
        assert page.elements.count("rect") == 2 and "0.02 US dollars at list prices" in page.text

    def test_has_the_commits_of_the_integration_branch(self, still_team: StillTeam) -> None:
        found = orchestrations.get(still_team.db, still_team.id)
        unseen = dossier.of(still_team.db, found, now=host.now_ms()).commits_unseen
        assert unseen == f"the branch {found.integration_branch} is not there"
        still_team.commit("developer")
        developer = still_team.agent("developer").branch
        subprocess.run(["git", "branch", "-q", found.integration_branch, developer], cwd=found.project, check=True)
        one = dossier.of(still_team.db, found, now=host.now_ms())
        assert [commit.subject for commit in one.commits] == ["Add work.txt"] and one.commits_unseen is None


class TestReport:
    def test_is_markdown_when_nothing_else_is_said(self, still_team: StillTeam) -> None:
        out = still_team.control("report").out
        assert out.startswith("# Report of ") and "## webapp-impl: Greeting" in out
        assert "| tester | " in out and "None is merged" not in out

    def test_is_written_whole_or_not_at_all(self, still_team: StillTeam, tmp_path: Path) -> None:
        done = still_team.control("report", "--output", str(tmp_path / "status-report.md"))
        assert done.out == f"written to {tmp_path / 'status-report.md'}\n"
        assert (tmp_path / "status-report.md").read_text().startswith("# Report of ")
        (tmp_path / "report.html").mkdir()
        assert still_team.control("report", "--output", str(tmp_path / "report.html")).code == ExitCode.FAILED
        assert sorted(path.name for path in tmp_path.iterdir() if "report" in path.name) == [
            *("report.html", "status-report.md")
        ]

    @pytest.mark.parametrize("ending", ["md", "html"])
    def test_what_agents_say_is_text(self, still_team: StillTeam, tmp_path: Path, ending: str) -> None:
        still_team.db.execute("UPDATE orchestrations SET spec_title = ?", (EVIL,))
        happen(still_team, "report.completion", "developer", at=host.now_ms(), commit="0" * 40, summary=EVIL)
        project = orchestrations.get(still_team.db, still_team.id)
        still_team.agent("developer").worktree.joinpath("x").write_text("x\n")
        commit_all(still_team.agent("developer").worktree, EVIL.splitlines()[0])
        branch = still_team.agent("developer").branch
        subprocess.run(["git", "branch", project.integration_branch, branch], cwd=project.project, check=True)
        still_team.control("report", "--output", str(tmp_path / f"r.{ending}"))
        text = (tmp_path / f"r.{ending}").read_text()
        if ending == "html":
            page = Reader(text)
            assert "script" not in page.elements and "a" not in page.elements
            assert page.text.count("<script>alert(1)</script>") == 3, "title, commit, what was reported"
        else:
            assert "<script" not in text.replace("\\<", "") and "\n# Heading" not in text
            assert text.count("\\<script\\>") == 3 and "\\[x\\]" in text

    def test_a_page_has_a_lane_for_each_agent_and_needs_no_network(self, still_team: StillTeam, tmp_path: Path) -> None:
        arrive(still_team, "tester", after_seconds=1)
        still_team.control("report", "webapp-impl", "--output", str(tmp_path / "r.html"))
        page = Reader((tmp_path / "r.html").read_text())
        assert page.elements.count("circle") == 1 and page.elements.count("line") == 4
        assert "1 message arrived" in page.text
        assert not {"img", "link", "script", "iframe"} & set(page.elements)

    def test_of_nobody(self, bench: Bench, tmp_path: Path) -> None:
        assert bench.door("claude_control.py", "report", "nobody-impl").code == ExitCode.NOT_FOUND
        assert bench.door("claude_control.py", "report", "--output", "r.pdf", cwd=tmp_path).code == ExitCode.USAGE
        assert bench.ok("claude_control.py", "report").out.startswith("# Report of ")
        bench.ok("claude_control.py", "report", "--output", "r.html", cwd=tmp_path)
        assert "No team is live" in (tmp_path / "r.html").read_text()

    def test_is_of_those_that_ended_within_a_day_too(self, still_team: StillTeam) -> None:
        orchestrations.set_status(
            still_team.db, still_team.id, OrchestrationStatus.FAILED, now=host.now_ms(), outcome="The API is gone"
        )
        found = still_team.control("report", "--json").json["teams"]
        assert [(one["session"], one["outcome"]) for one in found] == [("webapp-impl", "The API is gone")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain line", "a plain line"),
        ("two\nlines\tand | a cell", "two lines and \\| a cell"),
        ("<b>&amp;</b>", "\\<b\\>\\&amp;\\</b\\>"),
        ("[a](b) `c` *d* _e_ #f !g ~h~ \\i", "\\[a\\](b) \\`c\\` \\*d\\* \\_e\\_ \\#f \\!g \\~h\\~ \\\\i"),
    ],
)
def test_a_value_in_markdown_means_nothing(text: str, shown: str) -> None:
    assert plain(text) == shown
