"""A fleet is founded and joined by the doors, as two people at two machines do it."""

from __future__ import annotations

import datetime
import json
import shlex
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib import config
from lib.fleet import joining, tickets
from lib.fleet.roster import Places
from lib.front import founding
from lib.front.cli import Output
from tests import nats
from tests.conftest import ROOT, Bench, Done, isolated, wait_for


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "other machine"
    folder.mkdir()
    with isolated(folder) as made:
        yield made


def fleet_of(bench: Bench) -> Path:
    return bench.home / "fleet"


def settings_of(bench: Bench) -> Path:
    return Path(bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"


def found(bench: Bench, *words: str) -> Done:
    return bench.ok("fleet.py", "init", "--name", "base", "--address", "base.example.org", *words)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_lines_that_are_told_make_the_other_machine_a_host(bench: Bench, other: Bench) -> None:
    told = found(bench, "build-1", "--json").json["tickets"]["build-1"]
    copy, join = (shlex.split(line) for line in told["lines"])
    assert copy[0] == "scp" and copy[1].endswith(f"@base.example.org:{told['file']}")
    # What scp would do.
    (other.folder / "build-1.fleet").write_bytes(Path(told["file"]).read_bytes())
    door, *words = join
    done = other.ok(Path(door).name, *words)
    assert "this machine is the host build-1 of the fleet at tls://base.example.org:4222" in done.out
    read = config.load(settings_of(other)).fleet
    assert (read.url, read.name()) == ("tls://base.example.org:4222", "build-1")
    assert sorted(contents(fleet_of(other))) == ["ca.pem", "host.pem"]
    # The founder is a host too, and finds its server on itself.
    read = config.load(settings_of(bench)).fleet
    assert (read.url, read.name()) == ("tls://127.0.0.1:4222", "base")


def test_only_their_user_reads_the_files(bench: Bench, other: Bench) -> None:
    found(bench, "build-1")
    other.ok("fleet.py", "join", str(fleet_of(bench) / "hosts" / "build-1.fleet"))
    for place in (fleet_of(bench), fleet_of(other)):
        for path in (place, *place.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_authoritys_key_leaves_its_machine_in_no_ticket(bench: Bench) -> None:
    found(bench, "build-1", "build-2")
    key = (fleet_of(bench) / "ca.key").read_text()
    tickets = list((fleet_of(bench) / "hosts").iterdir())
    assert len(tickets) == 2
    for path in (*tickets, *(fleet_of(bench) / "server").iterdir()):
        assert key not in path.read_text() and json.dumps(key)[1:-1] not in path.read_text()


def test_init_again_keeps_all_that_is_there_and_adds(bench: Bench) -> None:
    found(bench, "build-1")
    conf = fleet_of(bench) / "server" / "server.conf"
    conf.write_text(conf.read_text() + "# a line of a person\n")
    before = contents(fleet_of(bench))
    done = bench.ok("fleet.py", "init", "build-1", "build-2", "--json")
    assert done.json["hosts"] == ["base", "build-1", "build-2"]
    after = contents(fleet_of(bench))
    assert {name for name in after if after[name] != before.get(name)} == {
        *("founded.json", "server/accounts.conf", "hosts/build-2.fleet")
    }
    # A further address needs another certificate of the server, and nothing else.
    bench.ok("fleet.py", "init", "--address", "10.0.0.7")
    last = contents(fleet_of(bench))
    changed = {"founded.json", "server/server.pem", "server/server.key"}
    assert {name for name in last if last[name] != after[name]} == changed


def test_a_removed_host_is_in_no_file_of_the_server(bench: Bench) -> None:
    found(bench, "build-1", "build-2")
    bench.ok("fleet.py", "remove", "build-1")
    accounts = (fleet_of(bench) / "server" / "accounts.conf").read_text()
    assert "build-1" not in accounts and "HOST-build-2" in accounts
    assert [path.name for path in (fleet_of(bench) / "hosts").iterdir()] == ["build-2.fleet"]
    assert bench.door("fleet.py", "remove", "build-1").code == 3


REFUSED: list[tuple[tuple[str, ...], int, str]] = [
    (("init", "Build_1"), 2, "a host's name is of the letters a to z"),
    (("init", "base", "--name", "base"), 2, "base is this machine"),
    (("init", "--listen", "4222"), 2, "--listen takes ADDRESS:PORT"),
    (("init", "--server", "b2"), 2, "a cluster needs three servers"),
    (("init", "--server", "b2 b3", "--server", "b4"), 2, "--server takes ADDRESS or ADDRESS:PORT"),
    (("remove", "build-1"), 3, "this machine has founded no fleet"),
    (("join", "nothing.fleet"), 3, "there is no file nothing.fleet"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), REFUSED)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    bench: Bench, words: tuple[str, ...], code: int, sentence: str
) -> None:
    done = bench.door("fleet.py", *words)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert not fleet_of(bench).exists() and not settings_of(bench).exists()


def _other_key(fields: dict[str, Any]) -> None:
    fields["key"] = fields["authority"]


def _other_host(fields: dict[str, Any]) -> None:
    fields["host"] = "build-2"


def _other_fleet(fields: dict[str, Any]) -> None:
    fields["url"] = "nats://10.0.0.7:4222"


BROKEN: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("its key is none", _other_key),
    ("it is for another host", _other_host),
    ("its server has no TLS", _other_fleet),
    ("its certificate is cut short", lambda fields: fields.update(certificate=fields["certificate"][:200])),
    ("it has no authority", lambda fields: fields.pop("authority")),
    ("it is of a version to come", lambda fields: fields.update(v=9, min=9)),
]


@pytest.mark.parametrize("damage", [damage for _, damage in BROKEN], ids=[name for name, _ in BROKEN])
def test_a_damaged_ticket_makes_nothing(bench: Bench, other: Bench, damage: Callable[[dict[str, Any]], object]) -> None:
    found(bench, "build-1")
    fields = json.loads((fleet_of(bench) / "hosts" / "build-1.fleet").read_text())
    damage(fields)
    ticket = other.folder / "build-1.fleet"
    ticket.write_text(json.dumps(fields))
    done = other.door("fleet.py", "join", str(ticket))
    assert (done.code, done.out) == (1, "")
    assert str(ticket) in done.err and "next: " in done.err
    assert not fleet_of(other).exists() and not settings_of(other).exists()


@pytest.mark.parametrize("kept", [0, 1, 500, -1], ids=["all", "one byte", "half", "the last byte"])
def test_a_ticket_that_was_cut_short_makes_nothing(bench: Bench, other: Bench, kept: int) -> None:
    found(bench, "build-1")
    ticket = other.folder / "build-1.fleet"
    ticket.write_bytes((fleet_of(bench) / "hosts" / "build-1.fleet").read_bytes()[:kept])
    done = other.door("fleet.py", "join", str(ticket))
    assert done.code == 1 and "no whole ticket" in done.err
    assert not fleet_of(other).exists()


def test_the_ticket_of_another_fleet_changes_no_host(bench: Bench, other: Bench) -> None:
    found(bench, "build-1")
    other.ok("fleet.py", "join", str(fleet_of(bench) / "hosts" / "build-1.fleet"))
    before = contents(fleet_of(other))
    fleet_of(bench).rename(bench.folder / "the first fleet")
    found(bench, "build-1")
    done = other.door("fleet.py", "join", str(fleet_of(bench) / "hosts" / "build-1.fleet"))
    assert done.code == 4 and "belongs to another fleet" in done.err
    assert contents(fleet_of(other)) == before
    # Nor does a machine that has founded one leave it by accident.
    done = bench.door("fleet.py", "join", str(bench.folder / "the first fleet" / "hosts" / "build-1.fleet"))
    assert done.code == 4 and "has founded a fleet" in done.err


class Killed(BaseException):
    """What ends an init in the middle."""


def kill_before_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    left = [number]

    def write(path: Path, text: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        tickets.write_private(path, text)

    monkeypatch.setattr("lib.fleet.founding.write_private", write)


#: The authority, its key, server.conf, founded.json, the server's key and certificate, host.pem, accounts.conf; then
#: founded.json and accounts.conf with the host, and its ticket.
WRITES = 11


@pytest.mark.parametrize("number", range(WRITES))
def test_an_init_that_was_killed_is_brought_to_its_end_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("TMUX_ORCHESTRATOR_CONFIG", str(tmp_path / "config.yaml"))
    home, now = tmp_path / "base", datetime.datetime.now(datetime.UTC)
    request = founding.Request(hosts=("b",), address=("127.0.0.1",))
    with monkeypatch.context() as patched:
        kill_before_write(patched, number)
        with pytest.raises(Killed):
            founding.init(Output(quiet=True), home, request)
    founding.init(Output(quiet=True), home, request)
    places = Places.of(home)
    assert joining.join(tmp_path / "b", places.ticket("b"), now).url == "tls://127.0.0.1:4222"
    # Every certificate is of the one authority and fits its key: TLS itself says so.
    context = ssl.create_default_context(cafile=places.folder / "ca.pem")
    context.load_cert_chain(places.folder / "host.pem")
    context.load_cert_chain(places.server / "server.pem", places.server / "server.key")
    if nats.PROGRAM:
        subprocess.run([nats.PROGRAM, "-t", "-c", str(places.server_conf)], check=True, capture_output=True)


def test_an_init_writes_no_more_than_what_is_tried_to_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX_ORCHESTRATOR_CONFIG", str(tmp_path / "config.yaml"))
    kill_before_write(monkeypatch, WRITES)
    founding.init(Output(quiet=True), tmp_path / "base", founding.Request(hosts=("b",), address=("127.0.0.1",)))


# -- a cluster --


def test_the_servers_of_a_cluster_get_files_of_their_own_and_hosts_hear_of_all(bench: Bench, other: Bench) -> None:
    words = ("--server", "b2.example.org", "--server", "b3.example.org:4300")
    told = found(bench, *words, "build-1", "--json").json
    urls = "tls://base.example.org:4222,tls://b2.example.org:4222,tls://b3.example.org:4300"
    assert told["url"] == urls
    assert list(told["servers"]) == ["b2.example.org:4222", "b3.example.org:4300"]
    folders = sorted((fleet_of(bench) / "servers").iterdir())
    for folder in folders:
        names = ["accounts.conf", "ca.pem", "server.conf", "server.key", "server.pem"]
        assert sorted(contents(folder)) == names
        assert "PRIVATE KEY" not in (folder / "ca.pem").read_text()
        if nats.PROGRAM:
            subprocess.run([nats.PROGRAM, "-t", "-c", "server.conf"], cwd=folder, check=True, capture_output=True)
    other.ok("fleet.py", "join", told["tickets"]["build-1"]["file"])
    assert config.load(settings_of(other)).fleet.url == urls
    # Who is removed is in no server's file, and each server has to be told.
    done = bench.ok("fleet.py", "remove", "build-1", "--json").json
    assert list(done["servers"]) == list(told["servers"])
    assert all("build-1" not in (folder / "accounts.conf").read_text() for folder in folders)
    assert bench.door("fleet.py", "init", *words).code == 2


# -- config.yaml --


def joined_with(bench: Bench, other: Bench, text: str) -> Done:
    found(bench, "build-1")
    settings_of(other).parent.mkdir(parents=True)
    settings_of(other).write_text(text)
    return other.ok("fleet.py", "join", str(fleet_of(bench) / "hosts" / "build-1.fleet"))


def test_the_example_keeps_its_comments_and_names_the_fleet(bench: Bench, other: Bench) -> None:
    example = (ROOT / "config.example.yaml").read_text()
    joined_with(bench, other, example)
    written = settings_of(other).read_text().splitlines()
    changed = [line for line in written if line not in example.splitlines()]
    assert changed == ["  url: tls://base.example.org:4222", "  host: build-1"]
    assert len(written) == len(example.splitlines())


SETTINGS = [
    "agent: rehearsal\n",
    "agent: rehearsal",
    "fleet:\nagent: rehearsal\n",
    "fleet:\n  labels: [gpu]\nagent: rehearsal\n",
    "# mine\nfleet: # what of it?\n  url:\n",
    "fleet: {labels: [gpu]}\n",
]


@pytest.mark.parametrize("text", SETTINGS)
def test_a_persons_settings_stay_what_they_are(bench: Bench, other: Bench, text: str) -> None:
    done = joined_with(bench, other, text)
    before, after = yaml.safe_load(text), yaml.safe_load(settings_of(other).read_text())
    if "stays as it is" in done.out:
        assert after == before and "  url: tls://base.example.org:4222\n  host: build-1" in done.out
        return
    said = {"url": "tls://base.example.org:4222", "host": "build-1"}
    assert settings_of(other).read_text().count("fleet:") == 1
    assert after == {**before, "fleet": {**(before.get("fleet") or {}), **said}}


def test_another_fleet_in_the_settings_is_left_to_the_person(bench: Bench, other: Bench) -> None:
    text = "fleet:\n  url: tls://elsewhere:4222\n"
    done = joined_with(bench, other, text)
    assert settings_of(other).read_text() == text
    assert "stays as it is; it has to say:\nfleet:\n  url: tls://base.example.org:4222\n  host: build-1" in done.out


def test_settings_that_cannot_be_read_are_told_of_before_anything_is_written(bench: Bench, other: Bench) -> None:
    found(bench, "build-1")
    settings_of(other).parent.mkdir(parents=True)
    settings_of(other).write_text("fleet: [\n")
    done = other.door("fleet.py", "join", str(fleet_of(bench) / "hosts" / "build-1.fleet"))
    assert done.code == 1 and "not valid YAML" in done.err
    assert not fleet_of(other).exists()


def test_the_scheduler_hands_over(bench: Bench) -> None:
    done = bench.ok("scheduler.py", "--fleet-init", "build-1", "--json")
    assert list(done.json["tickets"]) == ["build-1"]
    assert bench.door("scheduler.py", "--fleet-join", "nothing.fleet").code == 3
    assert bench.door("scheduler.py", "--fleet-join").code == 2


# -- from nothing to a fleet that works --


def seen(bench: Bench) -> list[str]:
    """The hosts that a machine sees now, while it is connected."""
    found = bench.ok("claude_control.py", "fleet", "status", "--json").json
    is_connected = (found["link"] or {}).get("is_connected")
    return [one["name"] for one in found["hosts"] if one["is_seen"]] if is_connected else []


def trouble(bench: Bench) -> str:
    return str((bench.ok("claude_control.py", "fleet", "status", "--json").json["link"] or {}).get("trouble"))


def start_scheduler(bench: Bench) -> None:
    code = "from pathlib import Path; import sys; from lib import service; service.start(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(bench.home)], cwd=ROOT, env=bench.environment, check=True)


@pytest.mark.skipif(nats.PROGRAM is None, reason="this system has no nats-server; ./setup.sh --dev")
def test_two_machines_become_a_fleet_by_what_they_are_told_to_type(bench: Bench, other: Bench) -> None:
    port = nats.free_port()
    listens = f"127.0.0.1:{port}"
    start_scheduler(bench)  # one that runs already takes the fleet up
    told = bench.ok(
        "fleet.py", "init", *("--name", "base", "--address", "127.0.0.1", "--listen", listens), "b", "--json"
    )
    with nats.running(bench.folder / "nats", port, Path(shlex.split(told.json["server"])[-1])) as server:
        other.ok("fleet.py", "join", told.json["tickets"]["b"]["file"])
        start_scheduler(other)
        wait_for(lambda: seen(bench) == ["b", "base"] == seen(other), "both to see both", seconds=90)
        bench.ok("claude_control.py", "fleet", "cordon", "b")
        wait_for(lambda: "cordoned" in other.ok("claude_control.py", "fleet", "hosts").out, "the order to arrive")
        assert bench.ok("fleet.py", "remove", "b", "--json").json == {"removed": ["b"], "server_has_read": True}
        wait_for(lambda: "does not take this host" in trouble(other), "the removed host to be told", seconds=60)
        wait_for(lambda: seen(bench) == ["base"], "the founder to go on alone", seconds=60)
        assert server.answers()
