"""Guests: a real Claude Code that a person has started in a shell. No hooks of ours; the proof is its transcript."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import agents, delivery, host
from lib.judgement import framing
from lib.models import MessageStatus
from lib.probing.model import say, tool
from lib.tmux import Tmux
from tests.conftest import wait_for

from .conftest import Person, machine

pytestmark = pytest.mark.claude_code

DANGEROUS = "$(touch PWNED)\ntouch PWNED\n`touch PWNED`; touch PWNED"


def start_shell(person: Person) -> None:
    """A person's own tmux session with a shell in it."""
    server = ("tmux", "-L", str(person.bench.tmux.socket), "-f", "/dev/null")
    shell = (
        "new-session",
        "-d",
        "-s",
        "desk",
        "-x",
        "120",
        "-y",
        "40",
        "-c",
        str(person.bench.folder),
        "bash",
        "--norc",
    )
    subprocess.run([*server, *shell], env=person.bench.environment, check=True)
    person.pane = person.bench.tmux.panes()[0].id


def start_claude(person: Person) -> None:
    wait_for(lambda: person.bench.tmux.panes()[0].command == "bash", "the shell")
    person.press("-l", "claude")
    person.press("Enter")
    person.await_free()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, claude_binary: Path) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("desk")
    with machine(folder, claude_binary, "messages_per_minute: 100000\n") as (bench, server, home):
        home.trust(folder)
        made = Person(bench, server, home, "desk:0", "")
        start_shell(made)
        yield made
        assert not list(folder.rglob("PWNED"))


@pytest.fixture
def guest(desk: Person) -> Person:
    """The person's Claude Code, running and free."""
    if desk.bench.tmux.panes()[0].command != "claude":
        start_claude(desk)
    desk.await_free()
    return desk


def test_a_message_reaches_a_claude_that_a_person_has_started(guest: Person) -> None:
    for target in ("desk:0", guest.pane):
        guest.await_free()
        done = guest.bench.ok("send-claude-message.sh", target, "-", stdin=DANGEROUS)
        assert done.out.startswith("acknowledged in ")
        number = guest.message()["id"]
        assert guest.got(number) == [framing.frame(number, "user", DANGEROUS)]
        events = guest.bench.rows(
            "SELECT data FROM events WHERE message_id = ? AND kind = 'message.acknowledged'", number
        )
        assert '"transcript"' in events[0]["data"]


def test_a_note_for_later_reaches_it(guest: Person) -> None:
    guest.bench.ok("schedule_with_note.sh", "30", "Look at the tests", "desk:0")
    db = guest.bench.db()
    db.execute("UPDATE check_ins SET due_at = ?", (host.now_ms() - 1000,))
    db.close()
    host.wake(guest.bench.home)
    request = guest.server.wait_for("Look at the tests")[0]
    assert request.prompt.splitlines()[1] == "Check-in: Look at the tests"


def test_a_half_typed_draft_is_put_aside_and_comes_back(guest: Person) -> None:
    guest.press("-l", "half a line of my own")
    wait_for(lambda: guest.screen().draft == "half a line of my own", "the draft")
    guest.send("Excuse me")
    number = guest.message()["id"]
    guest.await_message(number, "acknowledged")
    assert guest.got(number) == [framing.frame(number, "user", "Excuse me")]
    wait_for(lambda: guest.screen().draft == "half a line of my own", "the draft to come back")
    guest.press("C-u")


def test_a_permission_is_not_given_by_a_message(guest: Person) -> None:
    guest.server.on("Read that file", tool("Read", {"file_path": "/etc/hostname"}), say("Read."))
    guest.send("Read that file")
    guest.await_status("waiting")
    done = guest.send("yes, 1", "--priority", "emergency", "--wait", "2")
    assert done.out.startswith("queued: guest waits for an answer in its window")
    assert guest.session["status"] == "waiting"
    number = guest.message()["id"]
    guest.press("Escape")
    guest.await_message(number, "acknowledged")
    assert guest.got(number) == [framing.frame(number, "user", "yes, 1")]
    secret = Path("/etc/hostname").read_text().strip()
    assert not [request for request in guest.server.turns() if any(secret in text for text in request.tool_results)]


def test_a_message_follows_it_into_another_conversation(guest: Person) -> None:
    before = guest.session["sessionId"]
    guest.press("-l", "/clear")
    wait_for(lambda: guest.screen().draft == "/clear", "the command")
    guest.press("Enter")
    wait_for(lambda: guest.session["sessionId"] != before, "another conversation")
    guest.await_free()
    done = guest.send("After the clearing")
    assert done.out.startswith("acknowledged in ")


def test_a_claude_that_ends_between_look_and_paste_leaves_the_shell_alone(
    guest: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    paste = Tmux.paste

    def paste_too_late(self: Tmux, *arguments: object, **named: object) -> None:
        os.kill(guest.session["pid"], signal.SIGKILL)
        wait_for(lambda: guest.bench.tmux.panes()[0].command == "bash", "the shell")
        paste(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Tmux, "paste", paste_too_late)
    monkeypatch.setenv("HOME", guest.bench.environment["HOME"])
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    db = guest.bench.db()
    agent = agents.resolve(db, guest.bench.tmux, "desk:0")
    desk = delivery.Desk(db, guest.bench.tmux, guest.bench.home)
    message = delivery.send(desk, agent, DANGEROUS, sender="user", wait_seconds=1)
    assert message.status is MessageStatus.PASTED
    assert "PWNED" not in guest.bench.screen(guest.pane).rpartition("Killed")[2]
    # It is known to be lost, and nobody waits for it for ever.
    delivery.deliver(desk, agents.get(db, agent.id))
    db.close()
    row = guest.message(message.id)
    assert (row["status"], row["reason"]) == ("failed", "the Claude Code that it was for has ended")


def test_a_pane_that_runs_something_else_is_refused(desk: Person) -> None:
    if desk.bench.tmux.panes()[0].command == "claude":
        desk.await_free()
        desk.press("-l", "/exit")
        wait_for(lambda: desk.screen().draft == "/exit", "the command")
        desk.press("Enter")
    wait_for(lambda: desk.bench.tmux.panes()[0].command == "bash", "the shell", seconds=60)
    before = desk.bench.screen(desk.pane)
    for target in ("desk:0", desk.pane):
        done = desk.bench.door("claude_control.py", "send", target, "-", stdin=DANGEROUS)
        assert done.code == 3
        assert "it runs bash" in done.err
        done = desk.bench.door("schedule_with_note.sh", "1", "touch PWNED", target)
        assert done.code == 3
    assert desk.bench.screen(desk.pane) == before
