"""Notices that go out: to a real SMTP server and a real web server on loopback, by a virtual clock."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apprise
import pytest
import yaml

from lib import agents, config, daemon, host, limits, notices, notify, orchestrations, pings, service, store
from lib.config import NotifySettings
from lib.errands import Errands
from lib.front import noticing
from lib.models import NOTICE_KINDS, Agent, LimitKind, LimitSource, NoticeStatus, OrchestrationStatus, Refusal
from lib.notices import HOUR_MS, MINUTE_MS, MOST_ATTEMPTS, PAUSE_MINUTES
from lib.queue import entries
from lib.tmux import Tmux
from tests.agents import a_team, an_orchestration
from tests.conftest import ROOT, Bench, wait_for
from tests.listeners import Mailbox, Web, mailbox, text_of, web

pytestmark = [
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated"),
]

START = 1_700_000_000_000
#: A port of loopback where nobody listens.
CLOSED = "127.0.0.1:1"


def at(minutes: float) -> int:
    """The virtual clock: minutes since the start, as UTC milliseconds."""
    return START + round(minutes * MINUTE_MS)


@pytest.fixture
def db(bench: Bench) -> Iterator[sqlite3.Connection]:
    connection = store.connect(bench.home)
    yield connection
    connection.close()


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as made:
        yield made


def to(*urls: str, **changed: Any) -> NotifySettings:
    return NotifySettings(urls=urls, **changed)


def tell(
    db: sqlite3.Connection, title: str = "webapp-impl: completed", *, kind: str = "completed", now: int = START
) -> None:
    with store.writing(db):
        notices.tell(db, kind, title, f"Body of {title}", now=now)


def send(db: sqlite3.Connection, settings: NotifySettings, *, now: int = START) -> list[str | None]:
    """One pass of the errand. Returns the reasons, None for what was taken, by address."""
    answers = noticing.send_due(db, settings, now=now)
    return [answer.reason for answer in sorted(answers, key=lambda answer: answer.address.position)]


def statuses(db: sqlite3.Connection) -> list[tuple[str, str | None]]:
    return [(row["status"], row["reason"]) for row in db.execute("SELECT * FROM notices ORDER BY id")]


def kinds(db: sqlite3.Connection, of: str = "notice.") -> list[str]:
    return [event.kind for event in store.events(db) if event.kind.startswith(of)]


def configure(bench: Bench, **notify_lines: object) -> Path:
    path = Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"agent": "rehearsal", "notify": notify_lines}, allow_unicode=True))
    return path


def a_batch_that_is_over(db: sqlite3.Connection, tmp_path: Path) -> None:
    """Two specs of one batch: one succeeds, the other is abandoned after its one attempt."""
    new = [
        entries.NewEntry(tmp_path / f"{name}.md", "# A spec\n", tmp_path / project)
        for name, project in (("größer", "Käse"), ("small", "webapp"))
    ]
    entries.add(db, new, now=START)
    for status, said in (
        (OrchestrationStatus.COMPLETED, "Größe passt ✓"),
        (OrchestrationStatus.FAILED, "the API is gone"),
    ):
        attempt = entries.claim(db, now=START, max_concurrent=1)
        assert attempt
        team = an_orchestration(project=entries.get(db, attempt.entry_id).project, unattended=True)
        with store.writing(db):
            orchestrations.add(db, team)
            entries.link(db, attempt, team.id, now=START)
        orchestrations.set_status(db, team.id, status, now=START, outcome=said)
        entries.settle(db, attempt, orchestrations.get(db, team.id), config.QueueSettings(max_attempts=1), now=START)


class TestMail:
    def test_a_batch_that_is_over_arrives_as_one_mail_with_its_summary(
        self, bench: Bench, db: sqlite3.Connection, box: Mailbox, tmp_path: Path
    ) -> None:
        tell(db, "of long ago")
        notices.sort_out(db, (), (), now=START)
        a_batch_that_is_over(db, tmp_path)
        configure(bench, urls=[box.url()])
        done = bench.ok("scheduler.py", "--send-notices")
        assert "1 (mailto)           taken" in done.out
        (mail,) = box.mails
        assert mail["Subject"] == "3 notices, the last: batch 1 is over: 1 succeeded, 1 abandoned"
        assert (mail["From"], mail["To"]) == ("team@box.example", "me@box.example")
        text = text_of(mail)
        assert "completed: größer.md in Käse\n    Größe passt ✓" in text
        assert "abandoned after 1 failures: small.md in webapp\n    attempt 1: failed: the API is gone" in text
        assert "    1 succeeded: größer.md in Käse\n    2 abandoned: small.md in webapp (the API is gone)" in text
        assert [status for status, _ in statuses(db)] == ["sent"] * 3

    def test_one_notice_is_a_mail_of_its_own_and_its_text_is_no_markup(
        self, db: sqlite3.Connection, box: Mailbox
    ) -> None:
        with store.writing(db):
            notices.tell(
                db, "failed", "webapp-impl: gescheitert – Prüfung", "<b>fett</b> & *Stern* :tada: ∑", now=START
            )
        assert send(db, to(box.url())) == [None]
        (mail,) = box.mails
        assert mail["Subject"] == "webapp-impl: gescheitert – Prüfung"
        assert text_of(mail).startswith("<b>fett</b> & *Stern* :tada: ∑\n")

    def test_a_login_that_is_refused_is_a_reason(self, db: sqlite3.Connection, box: Mailbox) -> None:
        tell(db)
        (reason,) = send(db, to(box.url(password="falsch-4711")))
        assert reason and "535" in reason
        assert "falsch" not in reason and box.mails == []


class TestSending:
    def test_a_notice_is_sent_once(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db)
        assert send(db, to(site.url())) == [None]
        assert send(db, to(site.url()), now=at(600)) == []
        ((title, message),) = [(body["title"], body["message"]) for body in site.got()]
        assert title == "webapp-impl: completed" and message.startswith("Body of webapp-impl: completed\n")
        assert (statuses(db), kinds(db)) == ([("sent", None)], ["notice.sent"])
        assert notices.next_due(db, now=at(600)) is None

    def test_several_that_wait_go_as_one(self, db: sqlite3.Connection, site: Web) -> None:
        for title in ("one", "two", "three"):
            tell(db, title)
        send(db, to(site.url()))
        assert site.titles() == ["3 notices, the last: three"]
        assert [status for status, _ in statuses(db)] == ["sent"] * 3

    def test_what_comes_faster_than_allowed_arrives_together_an_hour_later(
        self, db: sqlite3.Connection, site: Web
    ) -> None:
        settings = to(site.url(), per_hour=2)
        for minute in range(5):
            tell(db, f"notice {minute}", now=at(minute))
            send(db, settings, now=at(minute))
        assert site.titles() == ["notice 0", "notice 1"]
        assert notices.next_due(db, now=at(5)) == at(60)
        assert send(db, settings, now=at(59)) == []
        assert send(db, settings, now=at(60)) == [None]
        assert site.titles()[2:] == ["3 notices, the last: notice 4"]
        # The digest counts as one: the next may go when the second is an hour old.
        tell(db, "later", now=at(60.5))
        assert send(db, settings, now=at(60.5)) == []
        assert notices.next_due(db, now=at(60.5)) == at(61)

    def test_each_address_has_a_limit_of_its_own(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db, "one")
        send(db, to(site.url("/a"), per_hour=1))
        tell(db, "two", now=at(1))
        send(db, to(site.url("/a"), site.url("/b"), per_hour=1), now=at(1))
        assert (site.titles("/a"), site.titles("/b")) == (["one"], ["two"])

    def test_a_kind_that_nobody_wants_is_dropped(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db, "wanted", kind="batch")
        tell(db, "not wanted", kind="stuck")
        send(db, to(site.url(), events=("batch",)))
        assert site.titles() == ["wanted"]
        assert statuses(db) == [("sent", None), ("dropped", "stuck is not in notify.events")]
        assert sorted(kinds(db)) == ["notice.dropped", "notice.sent"]

    def test_what_one_address_has_taken_it_does_not_get_again(self, db: sqlite3.Connection, site: Web) -> None:
        site.statuses["/b"] = 503
        settings = to(site.url("/a"), site.url("/b"))
        tell(db)
        first = send(db, settings)
        assert first[0] is None and first[1] and "503" in first[1]
        assert statuses(db) == [("queued", None)]
        assert send(db, settings, now=at(0.5)) == []
        site.statuses.clear()
        assert notices.next_due(db, now=at(0.5)) == at(1)
        assert send(db, settings, now=at(1)) == [None]
        assert (len(site.got("/a")), len(site.got("/b"))) == (1, 2)
        assert statuses(db) == [("sent", None)]

    def test_a_server_that_is_down_gets_it_when_it_is_up(self, db: sqlite3.Connection) -> None:
        with web() as gone:
            pass
        settings = to(gone.url())
        tell(db, "one")
        (reason,) = send(db, settings)
        assert reason and "Connection refused" in reason
        tell(db, "two", now=at(0.5))
        assert send(db, settings, now=at(1)) != [None]
        with web(gone.port) as site:
            assert send(db, settings, now=at(6)) == [None]
        assert site.titles() == ["2 notices, the last: two"]
        assert [status for status, _ in statuses(db)] == ["sent", "sent"]

    def test_the_pauses_grow_and_after_the_last_attempt_it_has_failed(
        self, bench: Bench, db: sqlite3.Connection, site: Web
    ) -> None:
        site.statuses["/"] = 500
        tell(db)
        now, pauses = START, []
        while (due := notices.next_due(db, now=now)) is not None:
            pauses.append((due - now) // MINUTE_MS)
            now = due
            send(db, to(site.url()), now=now)
        assert pauses == [0, *PAUSE_MINUTES] and len(site.got()) == MOST_ATTEMPTS
        ((status, reason),) = statuses(db)
        assert status == "failed" and reason and reason.startswith("1 (json): ") and "error=500" in reason
        assert kinds(db) == ["notice.failed"]
        assert notices.counts(db)[NoticeStatus.FAILED] == 1
        shown = bench.ok("scheduler.py", "--status").out
        assert "notices: 1 failed; the last failure, " in shown and reason in shown
        assert bench.ok("scheduler.py", "--status", "--json").json["notices"]["failed"] == 1

    def test_one_address_that_fails_for_good_is_named_though_another_took_it(
        self, db: sqlite3.Connection, site: Web
    ) -> None:
        settings = to(site.url(), "nosuch://address")
        tell(db)
        for hours in range(20):
            send(db, settings, now=at(hours * 60))
        assert len(site.got()) == 1
        ((status, reason),) = statuses(db)
        assert (status, reason) == ("failed", "2 (nosuch): Apprise does not take this address")

    def test_an_address_that_was_put_right_gets_what_waits(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db, "before")
        assert send(db, to("json://127.0.0.1:1/wrong", site.url("/a")))[0] is not None
        assert send(db, to(site.url("/b"), site.url("/a")), now=at(1)) == [None]
        assert (site.titles("/a"), site.titles("/b")) == (["before"], ["before"])
        assert statuses(db) == [("sent", None)]
        # What is over does not go to an address that comes later.
        assert send(db, to(site.url("/c")), now=at(2)) == []

    def test_the_only_address_that_is_taken_away_drops_what_waits_for_it(
        self, db: sqlite3.Connection, site: Web
    ) -> None:
        tell(db)
        send(db, to(f"json://{CLOSED}"))
        assert send(db, to(), now=at(1)) == []
        assert statuses(db) == [("dropped", "no address is configured")]

    def test_a_clock_that_was_far_ahead_holds_nothing_up(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db, now=at(60 * 24 * 365))
        assert notices.next_due(db, now=START) == START
        assert send(db, to(site.url())) == [None]

    def test_what_has_long_been_over_is_removed_and_what_waits_is_not(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db, "sent")
        send(db, to(site.url()))
        tell(db, "waits")
        notices.prune(db, now=START + 29 * 24 * HOUR_MS)
        assert len(statuses(db)) == 2
        notices.prune(db, now=START + 31 * 24 * HOUR_MS)
        assert statuses(db) == [("queued", None)]
        assert db.execute("SELECT count(*) FROM dispatches").fetchone()[0] == 0

    def test_one_that_does_not_answer_holds_nobody_up(self, site: Web) -> None:
        with web() as slow:
            slow.answers.clear()
            letters = [notify.Letter(address, "t", "b") for address in notify.addresses([slow.url(), site.url()])]
            answers = [(one.address.position, one.reason) for one in notify.send(letters, limit_seconds=1.5)]
        assert answers == [(2, None), (1, "no answer within 1.5 s")]


class TestKilled:
    def test_between_sending_and_recording_it_goes_once_more_and_is_not_lost(
        self, bench: Bench, db: sqlite3.Connection, site: Web
    ) -> None:
        configure(bench, urls=[site.url()])
        tell(db, now=host.now_ms())
        command = [sys.executable, str(ROOT / "scheduler.py"), "--send-notices"]
        process = subprocess.Popen(command, env=bench.environment, stdout=subprocess.DEVNULL)
        site.on_request = process.kill
        assert process.wait(30) == -signal.SIGKILL
        site.on_request = lambda: None
        assert (len(site.got()), statuses(db)) == (1, [("queued", None)])
        assert send(db, to(site.url()), now=host.now_ms()) == [], "not at once: its attempt is recorded"
        assert send(db, to(site.url()), now=host.now_ms() + MINUTE_MS) == [None]
        assert (len(site.got()), statuses(db)) == (2, [("sent", None)])

    def test_before_any_write_it_is_sent_in_the_end_and_at_most_twice(
        self, bench: Bench, db: sqlite3.Connection, site: Web
    ) -> None:
        configure(bench, urls=[site.url("/a"), site.url("/b")])
        for number in range(1, 100):
            tell(db, f"notice {number}", now=host.now_ms())
            code = bench.killed("notices", number)
            send(db, to(site.url("/a"), site.url("/b"), per_hour=1000), now=host.now_ms() + MINUTE_MS)
            assert statuses(db)[-1] == ("sent", None)
            for path in ("/a", "/b"):
                assert 1 <= site.titles(path).count(f"notice {number}") <= 2
            if code == 0:
                break
        assert number > 10, "there are some writes to be killed before"
        assert kinds(db) == ["notice.sent"] * number

    def test_one_whose_sending_is_cut_off_every_time_fails_in_the_end(self, db: sqlite3.Connection, site: Web) -> None:
        tell(db)
        notices.sort_out(db, ["key"], NOTICE_KINDS, now=START)
        now, begun = START, 0
        while (due := notices.next_due(db, now=now)) is not None:
            now = due
            begun += bool(notices.begin(db, "key", per_hour=12, now=now))
        assert begun == MOST_ATTEMPTS
        assert statuses(db) == [("failed", f"its sending was cut off {MOST_ATTEMPTS} times")]


class TestSecrets:
    def test_no_part_of_an_address_is_printed_logged_or_stored(
        self, bench: Bench, db: sqlite3.Connection, site: Web
    ) -> None:
        site.statuses = {"/pfadgeheimnis": 500}
        secret = f"json://nutzername:passwortgeheim@127.0.0.1:{site.port}/pfadgeheimnis?+X=kopfgeheimnis"
        urls = [
            secret,
            f"json://nutzername:passwortgeheim@{CLOSED}/pfadgeheimnis",
            f"mailto://nutzername:passwortgeheim@{CLOSED}?from=a@b.example&to=geheimadresse@b.example",
            "slack://TOKENGEHEIM/zweitgeheimnis",
            "mailto://nutzername:passwortgeheim@127.0.0.1",
            "nosuch://TOKENGEHEIM:passwortgeheim@pfadgeheimnis",
        ]
        configure(bench, urls=urls, ping_url=f"http://nutzername:passwortgeheim@{CLOSED}/pinggeheimnis")
        tell(db, now=host.now_ms())
        pings.want(db, now=host.now_ms())
        said = ""
        for words in (["--notify-test"], ["--notify-test", "--json", "-v"], ["--send-notices", "-v"], ["--status"]):
            done = bench.door("scheduler.py", *words)
            said += done.out + done.err
        errands_of = Errands(bench.home)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in bench.environment.items():
                patch.setenv(name, value)
            tell(db, "again", now=host.now_ms())
            errands_of.start("notices", "scheduler.py", "--send-notices")
            wait_for(lambda: errands_of.reap(), "the errand")
        assert (
            "1 (json)" in said
            and "6 (nosuch)" in said
            and "Invalid ~From~ email" in said
            and "error=500" in said
            and "Connection refused" in said
        )
        kept = b"".join(path.read_bytes() for path in bench.home.rglob("*") if path.is_file())
        assert b"1 (json)" in kept and len(site.asked) == 4
        for part in ("nutzername", "passwort", "geheim", "zweit"):
            assert part not in said.lower()
            assert part.encode() not in kept.lower()

    @pytest.mark.parametrize(
        ("lines", "words"),
        [
            ({"urls": "mailto://u:passwort@b.example"}, "notify.urls must be a list"),
            ({"urls": ["ntfy://topic", "u:passwort@b.example"]}, "notify.urls: entry 2 is no address with a scheme"),
            ({"ping_url": "passwort.example/x"}, "notify.ping_url must begin with http:// or https://"),
            ({"ping_url": "file:///passwort"}, "notify.ping_url must begin with http:// or https://"),
            ({"ping_url": ["passwort"]}, "notify.ping_url must be text"),
            ({"events": ["complete"]}, "notify.events must be one of completed, failed,"),
        ],
    )
    def test_a_wrong_line_of_the_configuration_is_named_without_what_it_holds(
        self, bench: Bench, lines: dict[str, object], words: str
    ) -> None:
        path = configure(bench, **lines)
        done = bench.door("scheduler.py", "--notify-test")
        assert done.code == 1
        assert words in done.err and str(path) in done.err
        assert "passwort" not in done.err

    def test_what_apprise_logs_goes_nowhere(self, db: sqlite3.Connection) -> None:
        heard = io.StringIO()
        handler = logging.StreamHandler(heard)
        logging.getLogger().addHandler(handler)
        try:
            tell(db)
            send(db, to(f"json://nutzername:passwortgeheim@{CLOSED}/pfad"))
        finally:
            logging.getLogger().removeHandler(handler)
        assert "json" not in heard.getvalue().lower()

    def test_the_examples_of_the_documentation_are_addresses(self) -> None:
        text = (ROOT / "docs" / "notifications.md").read_text()
        blocks = [yaml.safe_load(block)["notify"] for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
        urls = [url for block in blocks for url in block.get("urls", [])]
        assert {url.partition(":")[0] for url in urls} == {"ntfy", "ntfys", "mailtos", "slack", "tgram"}
        assert [url for url in urls if apprise.Apprise.instantiate(url) is None] == []
        assert all(set(block) <= {one.name for one in fields(NotifySettings)} for block in blocks)


class TestTest:
    def test_every_address_gets_one_and_the_table_says_how_it_went(self, bench: Bench, box: Mailbox, site: Web) -> None:
        configure(bench, urls=[box.url(), site.url()], events=["batch"], ping_url=f"http://127.0.0.1:{site.port}/ping")
        done = bench.ok("scheduler.py", "--notify-test")
        assert done.out.splitlines() == [
            "address              result   reason",
            "1 (mailto)           taken",
            "2 (json)             taken",
            "notify.ping_url      taken",
        ]
        (mail,) = box.mails
        assert mail["Subject"] == "A test of the notices" and "told of: batch." in text_of(mail)
        assert site.titles() == ["A test of the notices"] and site.got("/ping") == [None]

    def test_one_that_refuses_is_exit_code_1_and_the_others_are_tried(self, bench: Bench, site: Web) -> None:
        site.statuses["/ping"] = 404
        ping_url = f"http://127.0.0.1:{site.port}/ping"
        configure(bench, urls=["nosuch://x", f"json://{CLOSED}", site.url()], ping_url=ping_url)
        done = bench.door("scheduler.py", "--notify-test", "--json")
        assert done.code == 1 and "3 of 4 did not take it" in done.err
        assert [(row["address"], row["result"]) for row in done.json] == [
            ("1 (nosuch)", "refused"),
            ("2 (json)", "refused"),
            ("3 (json)", "taken"),
            ("notify.ping_url", "refused"),
        ]
        assert done.json[0]["reason"] == "Apprise does not take this address"
        assert "Connection refused" in done.json[1]["reason"] and done.json[3]["reason"] == "it answered 404"

    def test_without_an_address_it_says_where_to_put_one(self, bench: Bench) -> None:
        done = bench.door("scheduler.py", "--notify-test")
        assert done.code == 1
        assert "notify.urls" in done.err and "config.yaml is empty" in done.err and "docs/notifications.md" in done.err


WATCHER = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")
sys.addaudithook(note)
"""


def test_nothing_goes_outside_but_to_the_addresses(
    bench: Bench, db: sqlite3.Connection, box: Mailbox, site: Web, tmp_path: Path
) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(WATCHER)
    bench.environment |= {"PYTHONPATH": str(tmp_path / "hooks"), "WATCHED": str(tmp_path / "watched")}
    configure(bench, urls=[box.url(), site.url()], ping_url=f"http://127.0.0.1:{site.port}/ping")
    tell(db, now=host.now_ms())
    bench.ok("scheduler.py", "--send-notices")
    bench.ok("scheduler.py", "--notify-test")
    connections = [line for line in (tmp_path / "watched").read_text().splitlines() if line.startswith("socket.")]
    assert len(connections) > 5
    assert [line for line in connections if "127.0.0.1" not in line] == []


def beat(bench: Bench, db: sqlite3.Connection, life: daemon.Life, now: int) -> daemon.Beat:
    """The daemon's step alone."""
    made = daemon.Beat(db, Tmux(bench.tmux.socket), bench.home, now, life)
    daemon.send_notices(made)
    return made


class Started(Errands):
    """Errands that are only counted."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.begun: list[tuple[str, ...]] = []
        self.at_work = False

    def start(self, name: str, door: str, *arguments: str) -> bool:
        self.begun.append((name, door, *arguments))
        return not self.at_work


@pytest.fixture
def life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> daemon.Life:
    """A daemon's life with one address, that starts no errand."""
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    settings = config.Settings(notify=to(f"json://{CLOSED}"))
    return daemon.Life(settings, Started(bench.home))


def begun(life: daemon.Life) -> int:
    assert isinstance(life.errands, Started)
    return len(life.errands.begun)


class TestStep:
    def test_the_daemon_sends_what_is_told_and_sleeps_on(self, bench: Bench, db: sqlite3.Connection, site: Web) -> None:
        configure(bench, urls=[site.url()])
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler.py"), "--daemon"], env=bench.environment, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: host.is_alive(service.running(bench.home)), "the daemon")
            tell(db, now=host.now_ms())
            host.wake(bench.home)
            wait_for(lambda: statuses(db) == [("sent", None)], "the notice to be sent")
            assert site.titles() == ["webapp-impl: completed"]
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert "_sqlite3" in maps and "_ssl" not in maps, "the errand has what sending needs, and not the daemon"
        finally:
            process.terminate()
            process.wait(20)

    def test_without_an_address_they_are_dropped_and_no_errand_runs(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        life.settings = config.Settings()
        tell(db)
        assert beat(bench, db, life, START).dues == []
        assert (begun(life), statuses(db)) == (0, [("dropped", "no address is configured")])

    def test_an_address_that_the_configuration_has_got_meanwhile_is_not_overlooked(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        life.settings = config.Settings()
        configure(bench, urls=[f"json://{CLOSED}"])
        tell(db)
        beat(bench, db, life, START)
        assert (begun(life), statuses(db)) == (1, [("queued", None)])

    def test_a_configuration_that_cannot_be_read_drops_nothing(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        life.settings = config.Settings()
        configure(bench, urls=["no scheme"])
        tell(db)
        beat(bench, db, life, START)
        assert statuses(db) == [("queued", None)]

    def test_what_waits_for_its_time_wakes_the_daemon_then(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        assert beat(bench, db, life, START).dues == []
        tell(db)
        send(db, life.settings.notify)
        assert beat(bench, db, life, at(0.5)).dues == [at(1)]
        assert begun(life) == 0
        assert beat(bench, db, life, at(1)).dues == []
        assert begun(life) == 1

    def test_an_errand_that_came_to_nothing_is_not_started_at_every_beat(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        tell(db)
        for seconds in range(60):
            made = beat(bench, db, life, START + seconds * 1000)
        assert (begun(life), made.dues) == (1, [at(1)])
        beat(bench, db, life, at(1))
        assert begun(life) == 2
        # What is new does not wait for that.
        with store.writing(db):
            db.execute("UPDATE notices SET not_before = ?", (at(1) + 1,))
        beat(bench, db, life, at(1) + 1)
        assert begun(life) == 3

    def test_what_comes_while_the_errand_is_at_work_is_sent_when_it_is_over(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        assert isinstance(life.errands, Started)
        life.errands.at_work = True
        tell(db)
        assert beat(bench, db, life, START).dues == []
        beat(bench, db, life, START + 10)
        assert begun(life) == 2

    def test_an_idle_daemon_loads_nothing_that_only_sending_needs(self, bench: Bench, db: sqlite3.Connection) -> None:
        configure(bench, urls=[f"json://{CLOSED}"], ping_url=f"http://{CLOSED}/")
        program = (
            "import sys; from pathlib import Path; from lib import config, daemon, host, store\n"
            "from lib.errands import Errands; from lib.tmux import Tmux\n"
            "home = config.state_home(); life = daemon.Life(config.load(), Errands(home))\n"
            "daemon.tick(store.connect(home), Tmux.from_environment(), home, now=host.now_ms(), life=life)\n"
            "print(*sorted(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=bench.environment, capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        assert "lib.pings" in loaded and "lib.notices" in loaded
        assert loaded & {"apprise", "requests", "ssl", "urllib.request", "http.client", "smtplib"} == set()


def answers(agent: Agent, when: int, **entry: object) -> None:
    """Have an agent's model answer, as the transcript shows it."""
    folder = agent.config_dir / "projects" / "somewhere"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{agent.conversation_id}.jsonl"
    stamp = datetime.fromtimestamp(when / 1000, UTC).isoformat()
    with path.open("a") as lines:
        lines.write(json.dumps({"type": "assistant", "timestamp": stamp, **entry}) + "\n")
    os.utime(path, (when / 1000, when / 1000))


def is_limited(agent: Agent, db: sqlite3.Connection) -> None:
    """Have an agent live, idle, and at a usage limit that lasts."""
    process = host.process(os.getpid())
    assert process
    agents.started(db, agent.id, pane_id="%0", process=process)
    sessions = agent.config_dir / "sessions"
    sessions.mkdir(parents=True)
    said = {"sessionId": agent.conversation_id, "procStart": process.started, "status": "idle"}
    (sessions / f"{process.pid}.json").write_text(json.dumps(said))
    agents.note_hook(db, agent.id, event="StopFailure", at=at(2))
    refusal = Refusal(LimitKind.FIVE_HOUR, "You've hit your 5-hour limit", at(62))
    limits.refused(db, agent, refusal, LimitSource.HOOK, at=at(2), terms=config.LimitSettings())


def queue(db: sqlite3.Connection, tmp_path: Path) -> int:
    (entry,) = entries.add(db, [entries.NewEntry(tmp_path / "s.md", "# S\n", tmp_path / "p")], now=START).entries
    return entry.id


Arrange = Callable[[sqlite3.Connection, Path], object]


def _team(db: sqlite3.Connection, home: Path) -> Agent:
    return a_team(db, "orchestrator", "developer", home=home)[1]


def _set_status(db: sqlite3.Connection, home: Path, status: OrchestrationStatus) -> None:
    orchestrations.set_status(db, str(_team(db, home).orchestration_id), status, now=at(1))


def _fail_entry(db: sqlite3.Connection, home: Path) -> None:
    """An entry that failed and is to be tried again at minute 6."""
    queue(db, home)
    attempt = entries.claim(db, now=at(1), max_concurrent=1)
    assert attempt
    entries.fail(db, attempt, "said so", config.QueueSettings(), now=at(1))


#: What there is after a ping at minute 0, and whether the next one may be made at minute 5.
SITUATIONS: list[tuple[str, Arrange, bool]] = [
    ("nothing is to be done", lambda db, home: None, True),
    ("a team of which nobody was heard", _team, False),
    ("an answer of the model since", lambda db, home: answers(_team(db, home), at(3)), True),
    ("an answer from before", lambda db, home: answers(_team(db, home), at(-3)), False),
    ("an error instead of an answer", lambda db, home: answers(_team(db, home), at(3), isApiErrorMessage=True), False),
    ("a turn that ended", lambda db, home: agents.note_hook(db, _team(db, home).id, event="Stop", at=at(3)), True),
    (
        "a turn that ended with an error",
        lambda db, home: agents.note_hook(db, _team(db, home).id, event="StopFailure", at=at(3)),
        False,
    ),
    (
        "a prompt that it was given",
        lambda db, home: agents.note_hook(db, _team(db, home).id, event="UserPromptSubmit", at=at(3)),
        False,
    ),
    ("a usage limit", lambda db, home: is_limited(_team(db, home), db), True),
    ("a pause", lambda db, home: _set_status(db, home, OrchestrationStatus.PAUSED), True),
    ("a team that needs attention", lambda db, home: _set_status(db, home, OrchestrationStatus.NEEDS_ATTENTION), False),
    ("a team that is done", lambda db, home: _set_status(db, home, OrchestrationStatus.COMPLETED), True),
    ("a spec that waits and is not started", queue, False),
    (
        "a queue that is paused",
        lambda db, home: (queue(db, home), entries.set_paused(db, True, now=at(1))),
        True,
    ),
    ("a failure that waits for its next attempt", _fail_entry, True),
]


class TestPing:
    @pytest.fixture(autouse=True)
    def _one_was_made(self, db: sqlite3.Connection) -> None:
        pings.want(db, now=START)
        pings.note(db, None, now=START)

    @pytest.fixture
    def life(self, life: daemon.Life) -> daemon.Life:
        life.settings = config.Settings(notify=to(ping_url=f"http://{CLOSED}/ping"))
        return life

    @pytest.mark.parametrize(("situation", "arrange", "expected"), SITUATIONS, ids=[one[0] for one in SITUATIONS])
    def test_it_is_made_while_the_work_gets_on_or_there_is_none(
        self,
        bench: Bench,
        db: sqlite3.Connection,
        life: daemon.Life,
        situation: str,
        arrange: Arrange,
        expected: bool,
    ) -> None:
        arrange(db, bench.home)
        beat(bench, db, life, at(5))
        assert bool(begun(life)) is expected
        assert pings.is_wanted(db, now=at(5)) is expected

    def test_it_is_made_every_few_minutes(self, bench: Bench, db: sqlite3.Connection, life: daemon.Life) -> None:
        assert beat(bench, db, life, at(2)).dues == [at(5)]
        assert begun(life) == 0
        for number, minute in enumerate((5, 10, 15), start=1):
            beat(bench, db, life, at(minute))
            pings.note(db, None, now=at(minute))
            assert beat(bench, db, life, at(minute) + 1).dues == [at(minute + 5)]
            assert begun(life) == number

    def test_one_that_nobody_carried_out_is_wanted_again_a_minute_later(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        beat(bench, db, life, at(5))
        assert beat(bench, db, life, at(5.5)).dues == [at(6)]
        beat(bench, db, life, at(6))
        assert begun(life) == 2

    def test_none_is_made_while_a_step_fails(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def breaks(_: daemon.Beat) -> None:
            raise RuntimeError("out of order")

        steps = daemon.STEPS
        monkeypatch.setattr(daemon, "STEPS", (*steps, breaks))
        tmux = Tmux(bench.tmux.socket)
        daemon.tick(db, tmux, bench.home, now=at(4), life=life)
        monkeypatch.setattr(daemon, "STEPS", steps)
        daemon.tick(db, tmux, bench.home, now=at(5), life=life)
        assert begun(life) == 0, "the step failed a minute ago"
        daemon.tick(db, tmux, bench.home, now=at(9), life=life)
        assert begun(life) == 1

    def test_it_is_made_soon_after_an_agent_gets_on_again(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = _team(db, bench.home)
        looks: list[int] = []
        look = pings.gets_on

        def counted(db: sqlite3.Connection, *, now: int) -> bool:
            looks.append(now)
            return look(db, now=now)

        monkeypatch.setattr(pings, "gets_on", counted)
        for seconds in range(100):
            beat(bench, db, life, at(5) + seconds * 100)
        answers(agent, at(5.2))
        assert (begun(life), looks) == (0, [at(5)]), "files are not looked at ten times a second"
        beat(bench, db, life, at(5.5))
        assert begun(life) == 1

    def test_one_that_was_wanted_a_while_ago_is_not_made(self, db: sqlite3.Connection, site: Web) -> None:
        settings = to(ping_url=f"http://127.0.0.1:{site.port}/ping")
        assert noticing.send_ping(db, settings, now=at(0.5)) == [], "it has been made"
        pings.want(db, now=at(5))
        assert noticing.send_ping(db, settings, now=at(7)) == []
        assert noticing.send_ping(db, settings, now=at(5.1)) == [None]
        assert site.got("/ping") == [None]

    def test_an_address_that_does_not_answer_is_an_event_once_and_one_when_it_does(
        self, db: sqlite3.Connection, site: Web
    ) -> None:
        settings = to(ping_url=f"http://127.0.0.1:{site.port}/ping")
        site.statuses["/ping"] = 500
        for minute in (5, 6, 7):
            pings.want(db, now=at(minute))
            assert noticing.send_ping(db, settings, now=at(minute)) == ["it answered 500"]
        lines, _ = noticing.as_status(db, now=at(7))
        assert lines == ["ping: last answered 7 min ago; failed 3 times since: it answered 500"]
        found = pings.last(db)
        assert (found.failures, found.reason, found.pinged_at) == (3, "it answered 500", START)
        site.statuses.clear()
        pings.want(db, now=at(8))
        assert noticing.send_ping(db, settings, now=at(8)) == [None]
        assert kinds(db, "ping.") == ["ping.failed", "ping.answered"]
        assert pings.last(db) == pings.Ping(at(8), at(8), 0, None)

    def test_a_clock_that_was_set_back_holds_nothing_up(
        self, bench: Bench, db: sqlite3.Connection, life: daemon.Life
    ) -> None:
        beat(bench, db, life, at(-600))
        assert begun(life) == 1

    def test_an_address_that_hangs_is_given_up(self, site: Web) -> None:
        site.answers.clear()
        assert notify.ping(f"http://127.0.0.1:{site.port}/", limit_seconds=0.5) == "no answer within 0.5 s"

    def test_the_daemon_makes_it(self, bench: Bench, db: sqlite3.Connection, site: Web) -> None:
        configure(bench, ping_url=f"http://127.0.0.1:{site.port}/ping")
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scheduler.py"), "--daemon"], env=bench.environment, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: site.got("/ping"), "the ping")
            wait_for(lambda: (pings.last(db).pinged_at or 0) > START, "the ping to be recorded")
        finally:
            process.terminate()
            process.wait(20)
