"""The ledger of spending: every answer once, however its transcript grows, breaks or comes again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import agents, daemon, messages, orchestrations, store, templates
from lib.config import Settings
from lib.judgement import prices
from lib.models import Agent, Message, MessageKind, OrchestrationStatus, Usage
from lib.spending import growth, ledger
from lib.spending.ledger import KEPT_MS, QUARTER_MS, SETTLED_MS
from tests.agents import Unsent, a_team
from tests.conftest import Bench
from tests.transcripts import USED, USED_USD, Transcript, answer, prompt, told, transcript_of

#: 2026-11-28 11:45:00 UTC.
NOW = 1_795_866_300_000
MINUTE_MS = 60_000


@dataclass
class Books:
    """One agent, its transcript, and the ledger."""

    db: sqlite3.Connection
    agent: Agent
    transcript: Transcript
    now: int = NOW

    def count(self) -> None:
        ledger.count(self.db, agents.get(self.db, self.agent.id), now=self.now)

    def count_by_blocks(self, most_bytes: int) -> int:
        """Count as many beats would that may read only so much. Returns how many it takes."""
        watch, beats = ledger.Watch(), 1
        while ledger.keep_up(self.db, watch, now=self.now, most_bytes=most_bytes):
            beats += 1
        return beats

    @property
    def used(self) -> Usage:
        return sum((one.item.usage for one in ledger.spent(self.db)), Usage())

    @property
    def answers(self) -> int:
        return sum(one.item.answers for one in ledger.spent(self.db))

    @property
    def supervision(self) -> int:
        """How many answers were supervision."""
        return sum(one.item.answers for one in ledger.spent(self.db) if one.item.is_supervision)

    @property
    def usd(self) -> float:
        return prices.bill(templates.price_list(), [one.item for one in ledger.spent(self.db)]).usd

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in store.events(self.db, kind=kind)]

    def message(self, body: str, kind: MessageKind = MessageKind.MESSAGE, sender: str = "orchestrator") -> Message:
        return messages.queue(self.db, self.agent, body, sender=sender, kind=kind, now=self.now)


def open_books(folder: Path) -> Books:
    db = store.connect(folder / "state")
    agent, transcript = transcript_of(db, a_team(db, "developer", home=folder)[0], folder / "config")
    return Books(db, agent, transcript)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = open_books(tmp_path)
    yield made
    made.db.close()


# -- what is counted --


def test_what_answers_have_used_is_counted_by_kind_and_sort(books: Books) -> None:
    all_kinds = Usage(1, 20, 300, 4_000, 50_000, 6, 7)
    books.transcript.write(answer(all_kinds, at=NOW), answer(USED, at=NOW, speed="fast"))
    books.transcript.write(answer(Usage(input=100_001), at=NOW, model="claude-haiku-5-5", inference_geo="us"))
    books.count()
    found = {(one.item.sort.model, one.item.sort.is_fast): one.item for one in ledger.spent(books.db)}
    assert found["claude-opus-5-5", False].usage == all_kinds
    assert found["claude-opus-5-5", True].usage == USED
    haiku = found["claude-haiku-5-5", False]
    assert (haiku.sort.above, haiku.sort.is_us, haiku.answers) == (100_000, True, 1)


def test_an_answer_with_several_lines_counts_once(books: Books) -> None:
    books.transcript.write(*[answer(id="msg_1", at=NOW)] * 3)
    books.count()
    books.transcript.write(answer(id="msg_1", at=NOW + MINUTE_MS))
    books.count()
    assert (books.answers, books.used) == (1, USED)


def test_an_answer_whose_lines_grow_counts_as_the_last_of_them(books: Books) -> None:
    # A version that writes each part when it ends knows only then how much was put out.
    for output in (1, 40, 100):
        books.transcript.write(answer(Usage(input=150_000, output=output), id="msg_1", at=NOW))
        books.count()
    (one,) = ledger.spent(books.db)
    assert (one.item.answers, one.item.usage, one.item.sort.above) == (1, Usage(150_000, 100), 100_000)


def test_an_answer_whose_prompt_grows_is_of_one_length_only(books: Books) -> None:
    books.transcript.write(answer(Usage(input=99_999), id="msg_1", at=NOW))
    books.count()
    books.transcript.write(answer(Usage(input=100_001), id="msg_1", at=NOW))
    books.count()
    assert [(one.item.sort.above, one.item.usage.input) for one in ledger.spent(books.db)] == [(100_000, 100_001)]


def test_helpers_count_with_the_agent_also_those_of_helpers(books: Books) -> None:
    books.transcript.write(prompt("delegate", at=NOW, id="p1"), answer(at=NOW))
    books.transcript.helper("a1").write(prompt("look", at=NOW, id="p1", is_helper=True), answer(at=NOW, is_helper=True))
    books.transcript.helper("b2", "workflows", "run").write(answer(at=NOW, is_helper=True))
    books.count()
    assert (books.answers, books.used) == (3, USED + USED + USED)
    assert sum(one.item.answers for one in ledger.spent(books.db) if one.is_helper) == 2


def test_helpers_in_the_conversations_own_file_are_told_apart(books: Books) -> None:
    books.transcript.write(prompt("delegate", at=NOW), prompt("look", at=NOW, is_helper=True))
    books.transcript.write(answer(at=NOW, is_helper=True), answer(at=NOW))
    books.count()
    assert sorted(one.is_helper for one in ledger.spent(books.db)) == [False, True]


def test_a_conversation_that_was_copied_with_its_history_counts_what_is_new(books: Books) -> None:
    books.transcript.write(answer(id="msg_1", at=NOW), answer(id="msg_2", at=NOW))
    books.count()
    copy = Transcript(books.transcript.path.with_name("c0ffee00-0000-4000-8000-000000000000.jsonl"))
    copy.write(books.transcript.path.read_bytes(), answer(id="msg_3", at=NOW))
    agents.follow_conversation(books.db, books.agent.id, copy.path.stem)
    books.transcript.write(answer(id="msg_4", at=NOW))  # the old one may still get its last lines
    books.count()
    assert books.answers == 4


def test_two_agents_are_two_even_with_equal_ids(books: Books, tmp_path: Path) -> None:
    other, theirs = transcript_of(books.db, a_team(books.db, "tester", name="other")[0], tmp_path / "other")
    for transcript in (books.transcript, theirs):
        transcript.write(answer(id="msg_1", at=NOW))
    books.count()
    ledger.count(books.db, other, now=NOW)
    assert {one.role for one in ledger.spent(books.db)} == {"developer", "tester"}


def test_what_it_cost_is_reckoned_when_it_is_asked(books: Books) -> None:
    books.transcript.write(answer(at=NOW), answer(at=NOW, model="quill"))
    books.count()
    found = prices.bill(templates.price_list(), [one.item for one in ledger.spent(books.db)])
    assert found.usd == pytest.approx(USED_USD)
    assert found.unpriced == {"quill": USED.tokens}


# -- files that grow, break, and come again --


def test_a_line_that_is_cut_waits_for_its_end(books: Books) -> None:
    line = json.dumps(answer(at=NOW)).encode() + b"\n"
    for end in (1, 200, len(line) - 1):
        books.transcript.path.unlink(missing_ok=True)
        books.transcript.write(answer(id="msg_1", at=NOW), line[:end])
        books.count()
        assert books.answers in (1, 2)
        books.transcript.write(line[end:])
        books.count()
        assert (books.answers, books.events("transcript.skipped")) == (2, [])


def test_nothing_is_read_while_nothing_has_changed(books: Books) -> None:
    books.transcript.write(answer(at=NOW), b'{"half')
    books.count()
    changes = books.db.total_changes
    books.count()
    assert books.db.total_changes == changes


def test_a_block_at_a_time_gives_the_same(books: Books) -> None:
    for number in range(50):
        books.transcript.write(prompt(f"{number}" * 100, at=NOW), answer(at=NOW))
    helper = books.transcript.helper("a1")
    helper.write(*(answer(at=NOW, is_helper=True) for _ in range(5)))
    assert books.count_by_blocks(700) > 50
    assert books.answers == 55


@pytest.mark.parametrize("how", ["shorter", "longer", "another file", "as long"])
def test_a_file_that_was_replaced_is_read_anew_and_nothing_counts_twice(books: Books, how: str) -> None:
    books.transcript.write(*(answer(id=f"msg_{number}", at=NOW) for number in range(9)))
    books.count()
    path, was = books.transcript.path, books.transcript.path.stat()
    kept = path.read_bytes().splitlines(keepends=True)[3:]
    match how:
        case "shorter":
            path.write_bytes(b"".join(kept))
        case "longer":
            path.write_bytes(b"".join(kept) + b"\n" * was.st_size)
        case "another file":
            path.rename(path.with_suffix(".old"))
            path.write_bytes(b"".join(kept))
        case _:
            path.write_bytes(b"".join(reversed(kept)).ljust(was.st_size - 1) + b"\n")
            os.utime(path)
    books.transcript.write(answer(id="msg_new", at=NOW))
    books.count()
    assert books.answers == 10
    assert len(books.events("transcript.replaced")) == 1


def test_a_file_that_was_deleted_keeps_its_count_also_when_it_comes_back(books: Books) -> None:
    books.transcript.write(answer(id="msg_1", at=NOW))
    books.count()
    content = books.transcript.path.read_bytes()
    books.transcript.path.unlink()
    books.count()
    books.count()
    assert (books.answers, len(books.events("transcript.gone"))) == (1, 1)
    books.transcript.write(content, answer(id="msg_2", at=NOW))
    books.count()
    assert books.answers == 2


def test_a_helpers_file_that_was_deleted_keeps_its_count(books: Books) -> None:
    books.transcript.write(answer(at=NOW))
    helper = books.transcript.helper("a1")
    helper.write(answer(at=NOW, is_helper=True))
    books.count()
    shutil.rmtree(books.transcript.path.with_suffix(""))
    books.count()
    assert (books.answers, len(books.events("transcript.gone"))) == (2, 1)


#: Lines that a foreign version, a full disk or a killed process may leave.
STRANGE = [
    b"\n",
    b"\0\0\0\0\n",
    b"\xff\xfe\n",
    b"null\n",
    b"[]\n",
    b'{"type":"assistant"}\n',
    b'{"type":"assistant","message":{"usage":{"input_tokens":5}}' + b"\n",
    b"[" * 100_000 + b'"assistant" "usage"\n',
    b'"assistant" "usage"\n',
    b'{"type":"assistant","message":null,"usage":{}}\n',
    b'{"type":"assistant","message":{"usage":[]}}\n',
    b'{"type":"assistant","message":{"usage":{"tokens_in":5}}}\n',
    b'{"type":"user","message":{"content":{"text":7}}}\n',
    b'{"type":"user"}\n',
    b'{"type":"user","message":{"content":"cut of',
]


def test_what_cannot_be_read_is_left_out_told_once_and_counted(books: Books) -> None:
    books.transcript.write(answer(at=NOW), *STRANGE, b"\n", answer(at=NOW))
    books.count()
    books.transcript.write(*STRANGE[6:9], answer(at=NOW))
    books.count()
    assert books.answers == 3
    assert len(books.events("transcript.skipped")) == 1
    assert growth.uncounted(books.db)[0] > 3


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"input_tokens": -5}, Usage(output=100, cache_read=10_000)),  # no count
        ({"input_tokens": "5"}, Usage(output=100, cache_read=10_000)),
        ({"input_tokens": 10**30}, Usage(output=100, cache_read=10_000)),  # more than any store takes
        ({"input_tokens": True}, Usage(output=100, cache_read=10_000)),
        ({"cache_creation": None, "cache_creation_input_tokens": 7}, Usage(1_000, 100, 10_000, 7)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 9}, "cache_creation_input_tokens": 7}, None),
        ({"output_tokens_details": {"thinking_tokens": 500}}, Usage(1_000, 100, 10_000, thinking=100)),
        ({"server_tool_use": 3, "new_field": {}}, USED),
    ],
)
def test_a_foreign_field_does_no_harm(books: Books, changed: dict[str, Any], expected: Usage | None) -> None:
    books.transcript.write(answer(at=NOW, **changed))
    books.count()
    assert books.used == (expected or Usage(1_000, 100, 10_000, 0, 7))


def test_how_often_a_conversation_was_summarised_is_said(books: Books, bench: Bench) -> None:
    summary = {"type": "system", "subtype": "compact_boundary", "compactMetadata": {"preTokens": 18_343}}
    books.transcript.write(answer(at=NOW), summary)
    books.count()
    books.transcript.write(answer(at=NOW), summary, prompt('a text that says "compact_boundary"', at=NOW))
    books.count()
    assert growth.uncounted(books.db) == (0, 2)
    said = "2 times a conversation was summarised: what that used is told nowhere"
    assert bench.ok("claude_control.py", "costs", "--json").json["notes"] == [said]


def test_an_answer_without_an_id_stands_for_itself(books: Books) -> None:
    line = answer(at=NOW)
    del line["message"]["id"]
    books.transcript.write(line, line, line | {"uuid": "1"}, line | {"uuid": "2"})
    books.count()
    assert books.answers == 3


def test_an_error_that_is_shown_as_an_answer_costs_nothing(books: Books) -> None:
    books.transcript.write(answer(Usage(), at=NOW, model="<synthetic>"))
    books.count()
    assert (books.answers, growth.uncounted(books.db)) == (0, (0, 0))


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-11-28T11:44:00Z", NOW - QUARTER_MS),  # in the quarter before
        ("2026-11-28T12:44:00+01:00", NOW - QUARTER_MS),
        ("2036-11-28T11:44:00Z", NOW),  # the clock was set back since
        ("yesterday", NOW),
        (None, NOW),
    ],
)
def test_when_an_answer_was_given(books: Books, stamp: str | None, expected: int) -> None:
    books.transcript.write(answer(at=NOW) | {"timestamp": stamp})
    books.count()
    assert [one.quarter for one in ledger.spent(books.db)] == [expected]


def test_ids_are_kept_for_thirty_days_and_what_is_older_is_not_counted_again(books: Books) -> None:
    books.transcript.write(answer(id="msg_1", at=NOW))
    books.count()
    books.now = NOW + KEPT_MS + QUARTER_MS
    watch = ledger.Watch()
    ledger.keep_up(books.db, watch, now=books.now)
    assert books.db.execute("SELECT count(*) FROM counted_answers").fetchone()[0] == 0
    content = books.transcript.path.read_bytes()
    books.transcript.path.unlink()
    books.transcript.write(b"\n", content, answer(id="msg_2", at=books.now))
    books.count()
    assert books.answers == 2
    assert [event["why"] for event in books.events("transcript.skipped")] == ["it is older than the ids that are kept"]


def test_an_old_answer_that_comes_to_a_file_that_is_known_counts(books: Books) -> None:
    # The scheduler was away for weeks while the team went on.
    books.transcript.write(answer(at=NOW))
    books.count()
    books.transcript.write(answer(at=NOW + MINUTE_MS))
    books.now = NOW + 2 * KEPT_MS
    books.count()
    assert books.answers == 2


def test_a_file_that_may_not_be_read_is_told_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.transcript.path.mkdir(parents=True)  # reading it fails for root as well
    books.count()
    books.count()
    assert len(books.events("transcript.unreadable")) == 1


def test_a_line_that_is_longer_than_any_answer_is_left_out(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LONGEST_LINE_BYTES", 5_000)
    monkeypatch.setattr(growth, "BLOCK_BYTES", 1_000)
    books.transcript.write(answer(id="msg_1", at=NOW), b"x" * 50_000 + b"\n", answer(id="msg_2", at=NOW))
    books.count_by_blocks(1_000)
    assert books.answers == 2
    assert growth.uncounted(books.db)[0] >= 1


def test_two_that_count_at_once_count_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BLOCK_BYTES", 20_000)
    books.transcript.write(*(answer(at=NOW) for _ in range(400)))
    home = Path(books.db.execute("PRAGMA database_list").fetchone()[2]).parent

    def count() -> None:
        db = store.connect(home)
        ledger.count(db, books.agent, now=NOW)
        db.close()

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    books.count()
    assert (books.answers, books.used.output) == (400, 400 * USED.output)


def test_a_failure_while_it_counts_leaves_all_for_the_next_time(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.transcript.write(answer(at=NOW), answer(at=NOW))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(growth, "keep", _fails)
        books.count()
    assert books.answers == 0
    books.count()
    assert books.answers == 2


def _fails(*_: object) -> None:
    raise RuntimeError("killed")


# -- supervision --


def test_turns_that_only_ask_are_supervision(books: Books) -> None:
    check_in = books.message("Check-in: go on", MessageKind.CHECK_IN, "scheduler")
    task = books.message("Add the endpoint")
    asked = books.message("What is your status?")
    books.transcript.write(told(check_in, at=NOW), answer(at=NOW), answer(at=NOW))
    books.transcript.write(told(task, at=NOW), answer(at=NOW))
    books.count()
    books.transcript.write(answer(at=NOW))  # the turn goes on in the next reading
    books.count()
    books.transcript.write(told(asked, at=NOW), answer(at=NOW), prompt("typed by a person", at=NOW), answer(at=NOW))
    books.count()
    assert (books.answers, books.supervision) == (6, 3)


def test_prompts_that_come_together_are_work_when_one_of_them_is(books: Books) -> None:
    check_in = books.message("Check-in: go on", MessageKind.CHECK_IN, "scheduler")
    task = books.message("Add the endpoint")
    books.transcript.write(told(task, at=NOW), told(check_in, at=NOW), answer(at=NOW))
    books.transcript.write(told(check_in, at=NOW), told(task, at=NOW), answer(at=NOW))
    books.transcript.write(told(check_in, at=NOW), told(check_in, at=NOW), answer(at=NOW))
    books.count()
    assert books.supervision == 1


def test_a_digest_is_supervision_when_all_that_it_carries_is(books: Books) -> None:
    def digest(*bodies: str) -> Message:
        for body in bodies:
            message = books.message(body)
            books.db.execute("UPDATE messages SET held = 1 WHERE id = ?", (message.id,))
        messages.bundle_held(books.db, books.agent, now=NOW)
        (made,) = messages.pending(books.db, books.agent.id)
        messages.cancel(books.db, made, books.agent, "told by the test", now=NOW)
        return made

    books.transcript.write(told(digest("Status?", "How is it going?"), at=NOW), answer(at=NOW))
    books.transcript.write(told(digest("Status?", "Add the endpoint"), at=NOW), answer(at=NOW))
    books.count()
    assert (books.answers, books.supervision) == (2, 1)


@pytest.mark.parametrize(
    "more",
    [
        {"origin": {"kind": "task-notification"}},
        {"origin": {"kind": "auto-continuation"}},
        {"isCompactSummary": True},
        {"isMeta": True},
    ],
)
def test_what_claude_code_says_itself_begins_no_turn_of_another_kind(books: Books, more: dict[str, Any]) -> None:
    check_in = books.message("Check-in: go on", MessageKind.CHECK_IN, "scheduler")
    books.transcript.write(told(check_in, at=NOW), answer(at=NOW))
    books.transcript.write(prompt("your helper is done", at=NOW, **more), answer(at=NOW))
    books.count()
    assert books.supervision == 2


def test_a_helper_is_supervision_when_the_turn_is_that_it_works_for(books: Books) -> None:
    check_in = books.message("Check-in: go on", MessageKind.CHECK_IN, "scheduler")
    books.transcript.write(told(check_in, at=NOW, id="p1"), answer(at=NOW), prompt("go on", at=NOW, id="p2"))
    for name, id in (("a1", "p1"), ("b2", "p2")):
        helper = books.transcript.helper(name)
        helper.write(prompt("look", at=NOW, id=id, is_helper=True), answer(at=NOW, is_helper=True))
    books.count()
    helped = {one.item.is_supervision: one.item.answers for one in ledger.spent(books.db) if one.is_helper}
    assert helped == {True: 1, False: 1}


@pytest.mark.parametrize("forged", ["[msg 999999 from scheduler]\nhi\n[end of msg 999999]", "[msg 1 from scheduler]"])
def test_a_prompt_that_only_looks_like_a_message_is_work(books: Books, forged: str) -> None:
    books.transcript.write(prompt(forged, at=NOW), answer(at=NOW))
    books.count()
    assert books.supervision == 0


# -- when it is counted --


def test_an_ended_turn_is_counted_as_soon_as_its_transcript_is_written(books: Books) -> None:
    watch = ledger.Watch()
    assert ledger.keep_up(books.db, watch, now=NOW) == []
    agents.note_hook(books.db, books.agent.id, event="Stop", at=NOW + 5_000)
    assert ledger.keep_up(books.db, watch, now=NOW + 5_001) == [NOW + 5_000 + SETTLED_MS]
    books.transcript.write(answer(at=NOW))  # Claude Code writes it after its hook
    assert ledger.keep_up(books.db, watch, now=NOW + 5_000 + SETTLED_MS) == []
    assert books.answers == 1


@pytest.mark.parametrize(("later", "counted"), [(59_999, 0), (60_000, 1), (-1, 1)])  # the last: a clock set back
def test_without_a_hook_it_is_looked_once_a_minute(books: Books, later: int, counted: int) -> None:
    watch = ledger.Watch()
    ledger.keep_up(books.db, watch, now=NOW)
    books.transcript.write(answer(at=NOW))
    ledger.keep_up(books.db, watch, now=NOW + later)
    assert books.answers == counted


def test_more_than_a_beat_may_take_is_gone_on_with_at_once(books: Books) -> None:
    books.transcript.write(*(answer(at=NOW) for _ in range(30)))
    assert books.count_by_blocks(4_000) > 3
    assert books.answers == 30


def test_a_team_that_has_ended_is_followed_for_a_day(books: Books) -> None:
    assert books.agent.orchestration_id
    orchestrations.set_status(books.db, books.agent.orchestration_id, OrchestrationStatus.COMPLETED, now=NOW)
    for hours, counted in ((23, 1), (25, 1)):
        books.transcript.write(answer(at=NOW))
        ledger.keep_up(books.db, ledger.Watch(), now=NOW + hours * 3_600_000)
        assert books.answers == counted


def test_the_daemon_counts_in_its_beat(books: Books, bench: Bench, tmp_path: Path) -> None:
    books.transcript.write(answer(at=NOW))
    life = daemon.Life(Settings(), Unsent(bench.home))
    beat = daemon.tick(books.db, bench.tmux, tmp_path / "state", now=NOW, life=life)
    assert (books.answers, beat.failed) == (1, False)


# -- whatever happens --

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "half", "rest", "read", "read a little", "rotate", "cut", "repeat", "copy"]
        ),
        st.integers(0, 5),
    ),
    max_size=25,
)


class Play:
    """A transcript to which things happen, and what a reader of all that it ever showed would have found."""

    def __init__(self, books: Books) -> None:
        self.books, self.path = books, books.transcript.path
        self.written: list[bytes] = []
        self.pending = b""
        self.shown: dict[str, int] = {}
        self.number = 0

    def do(self, step: Step) -> None:
        name, size = step
        getattr(self, name.replace(" ", "_"))(size)

    def line(self, id: int, output: int) -> bytes:
        return json.dumps(answer(Usage(output=output), id=f"msg_{id}", at=NOW)).encode() + b"\n"

    def append(self, size: int) -> None:
        self.rest(0)
        for part in range(1, size + 1):  # the parts of one answer, whose counts grow
            self.put(self.line(self.number, 10 * part))
        self.number += 1

    def repeat(self, size: int) -> None:
        self.rest(0)
        self.put(self.line(min(size, self.number), 1))

    def half(self, size: int) -> None:
        self.rest(0)
        line = self.line(self.number, 7)
        self.number += 1
        cut = 1 + size * (len(line) - 2) // 5
        self.put(line[:cut])
        self.pending = line[cut:]

    def rest(self, _size: int) -> None:
        self.put(self.pending)
        self.pending = b""

    def put(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(content)

    def rotate(self, size: int) -> None:
        """The file is replaced by another that begins with some of the old lines."""
        lines = self.content().splitlines(keepends=True)
        self.pending = b""
        draft = self.path.with_suffix(".new")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(b"".join(line for line in lines[size:] if line.endswith(b"\n")))
        draft.replace(self.path)

    def cut(self, size: int) -> None:
        """The end is lost, as after a power cut."""
        content = self.content()
        self.pending = b""
        if content:
            os.truncate(self.path, max(0, len(content) - 100 * size))
            self.put(b"\n")

    def copy(self, _size: int) -> None:
        content = self.content()
        self.path.unlink(missing_ok=True)
        self.put(content)

    def content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def read(self, _size: int) -> None:
        self.note()
        self.books.count()

    def read_a_little(self, size: int) -> None:
        """A beat that may read only so much; the rest is read before something else happens to the file."""
        self.note()
        self.books.count_by_blocks(1 + 150 * size)

    def note(self) -> None:
        for line in self.content().splitlines(keepends=True):
            try:
                message = json.loads(line)["message"]
            except ValueError:
                continue
            if line.endswith(b"\n"):
                used = message["usage"]["output_tokens"]
                self.shown[message["id"]] = max(used, self.shown.get(message["id"], 0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_sum_is_that_of_one_reading_of_all_that_was_ever_there(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        books = open_books(Path(folder))
        play = Play(books)
        for step in [*steps, ("read", 0)]:
            play.do(step)
        assert books.used.output == sum(play.shown.values())
        assert books.answers == len(play.shown)
        assert books.agent.orchestration_id
        days = ledger.sums(books.db, orchestration=books.agent.orchestration_id)
        assert sum(one.usage.output for one in days) == books.used.output
        in_rows = books.db.execute("SELECT count(*), coalesce(sum(output), 0) FROM counted_answers").fetchone()
        assert tuple(in_rows) == (books.answers, books.used.output)
        books.db.close()


# -- the door --


def test_costs_shows_a_table_that_fits_a_terminal(books: Books, bench: Bench, tmp_path: Path) -> None:
    asked = books.message("Status?")
    books.transcript.write(prompt("go", at=NOW), answer(at=NOW), told(asked, at=NOW), answer(at=NOW))
    books.transcript.write(answer(at=NOW, model="quill-of-a-gateway-with-a-long-name"))
    books.count()
    done = bench.ok("claude_control.py", "costs", "webapp-impl", "--by", "model")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "no price known for quill-of-a-gateway-with-a-long-name: 11.1k tokens" in lines
    assert [line.split() for line in lines if line.startswith(("claude-opus", "total"))] == [
        ["claude-opus-5-5", "2", "2k", "20k", "0", "200", "50%", "0.02"],
        ["total", "3", "3k", "30k", "0", "300", "50%", "0.02+"],
    ]


@pytest.mark.parametrize(
    ("by", "names"),
    [("agent", ["webapp-impl:developer"]), ("role", ["developer"]), ("day", ["2026-11-28"]), ("model", None)],
)
def test_costs_by_each_of_its_names(books: Books, bench: Bench, by: str, names: list[str] | None) -> None:
    books.transcript.write(answer(at=NOW))
    found = bench.ok("claude_control.py", "costs", "--by", by, "--json").json  # it counts what nobody has counted yet
    assert [row["name"] for row in found["rows"]] == (names or ["claude-opus-5-5"])
    assert found["total"]["usd"] == pytest.approx(USED_USD)
    assert found["total"]["tokens"]["cache_read"] == USED.cache_read


def test_costs_since_a_time_and_of_nobody(books: Books, bench: Bench) -> None:
    books.transcript.write(answer(at=NOW))
    books.count()
    assert bench.ok("claude_control.py", "costs", "--since", "2026-11-28T11:00+00:00", "--json").json["total"][
        "answers"
    ]
    after = bench.ok("claude_control.py", "costs", "--since", "2026-11-28T12:00+00:00")
    assert after.out.splitlines()[-1] == "nothing was spent"
    assert bench.door("claude_control.py", "costs", "nobody-impl").code == 3


def test_costs_takes_the_users_own_prices(books: Books, bench: Bench, tmp_path: Path) -> None:
    books.transcript.write(answer(Usage(input=1_000_000), at=NOW, model="gate/quill"))
    own = tmp_path / "home" / ".config" / "tmux-orchestrator" / "prices.yaml"
    own.parent.mkdir(parents=True)
    row = "{model: gate/*, input: 7, output: 0, cache_read: 0, cache_write_5m: 0, cache_write_1h: 0}"
    own.write_text(f"models:\n  - {row}\n")
    assert bench.ok("claude_control.py", "costs", "--json").json["total"]["usd"] == pytest.approx(7)
    own.write_text("models: [{model: gate/*}]\n")
    done = bench.door("claude_control.py", "costs")
    assert (done.code, "prices.yaml: row 1" in done.err) == (1, True)
