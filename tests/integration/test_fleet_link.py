"""The link of a machine as its scheduler keeps it, and the doors that show a fleet: real processes, a real server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import agents, daemon, errands, host, messages, store
from lib.config import FleetSettings, Settings
from lib.errands import Errands
from lib.errors import ExitCode
from lib.fleet import members, outbox
from lib.models import MessageKind
from tests.conftest import ROOT, Bench, isolated, wait_for
from tests.fleets import configure, links
from tests.nats import NatsServer

NO_FLEET = """
import json, sys
from pathlib import Path
from lib import daemon, store
from lib.config import Settings
from lib.errands import Errands
from lib.tmux import Tmux
home = Path(sys.argv[1])
life = daemon.Life(Settings(), Errands(home))
beat = daemon.tick(store.connect(home), Tmux("orchestrator-test-none"), home, now=1_000_000, life=life)
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), beat.failed, life.linked_at]))
"""


def control(bench: Bench, *words: str) -> Any:
    return bench.ok("claude_control.py", "fleet", *words, "--json").json


def connected(bench: Bench) -> list[str]:
    """The names of the hosts that a machine sees now, while it is connected."""
    found = control(bench, "status")
    return (
        [one["name"] for one in found["hosts"] if one["is_seen"]] if (found["link"] or {}).get("is_connected") else []
    )


@pytest.fixture
def pair(nats_server: NatsServer, tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """Two machines, linked by their schedulers."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("box-1", "box-2"):
            folder = tmp_path / name
            folder.mkdir()
            made.append(stack.enter_context(isolated(folder)))
            configure(made[-1], nats_server, name)
            start(made[-1])
        wait_for(lambda: all(connected(one) == ["box-1", "box-2"] for one in made), "both to see both", seconds=60)
        yield made[0], made[1]


def start(bench: Bench) -> None:
    """Have the scheduler of a machine run, as a launch does."""
    code = "from pathlib import Path; import sys; from lib import service; service.start(Path(sys.argv[1]))"
    words = [sys.executable, "-c", code, str(bench.home)]
    subprocess.run(words, cwd=ROOT, env=bench.environment, check=True)


class TestAlone:
    def test_a_machine_of_no_fleet_loads_no_nats_and_starts_nothing(self, bench: Bench) -> None:
        words = [sys.executable, "-c", NO_FLEET, str(bench.home)]
        done = subprocess.run(words, cwd=ROOT, env=bench.environment, capture_output=True, text=True, check=True)
        loaded, failed, linked_at = json.loads(done.stdout)
        assert {"lib", "sqlite3"} <= set(loaded) and not {"nats", "asyncio", "cryptography"} & set(loaded)
        assert (failed, linked_at) == (False, None)
        assert not errands.is_at_work(bench.home, members.LINK)
        assert not (bench.home / "logs" / f"{members.LINK}.out").exists()

    @pytest.mark.parametrize("words", [("status",), ("hosts",), ("cordon", "box-2")])
    def test_it_says_so(self, bench: Bench, words: tuple[str, ...]) -> None:
        done = bench.door("claude_control.py", "fleet", *words)
        assert done.code == ExitCode.NOT_FOUND and "this machine is of no fleet: it works alone" in done.err
        assert "--fleet-init" in done.err

    def test_no_view_has_a_word_of_one(self, bench: Bench) -> None:
        for words in (("scheduler.py", "--status"), ("multi_project_monitor.py",), ("claude_control.py", "doctor")):
            assert "fleet" not in bench.door(*words).out
            assert "fleet" not in bench.door(*words, "--json").out

    def test_the_link_does_not_run_without_one(self, bench: Bench) -> None:
        assert bench.door("fleet.py", "link").code == ExitCode.NOT_FOUND

    @pytest.mark.parametrize(
        ("words", "said"),
        [(("dance",), "fleet takes"), (("cordon",), "names a host"), (("hosts", "box-1"), "takes no host")],
    )
    def test_wrong_words(self, bench: Bench, words: tuple[str, ...], said: str) -> None:
        done = bench.door("claude_control.py", "fleet", *words)
        assert done.code == ExitCode.USAGE and said in done.err


class Started(Errands):
    """Errands that only note what they should start."""

    def start_in_its_own(self, name: str, door: str, *arguments: str) -> bool:
        self._noted = [*getattr(self, "_noted", []), (name, door, *arguments)]
        return True

    @property
    def noted(self) -> list[tuple[str, ...]]:
        return list(getattr(self, "_noted", []))


def test_a_link_that_ends_at_once_is_not_started_without_a_pause(bench: Bench) -> None:
    started = Started(bench.home)
    life = daemon.Life(Settings(fleet=FleetSettings(url="nats://127.0.0.1:1")), started)
    dues: list[int] = []
    for now in range(1_000_000, 1_061_000, 1_000):
        beat = daemon.tick(bench.db(), bench.tmux, bench.home, now=now, life=life, steps=[daemon.keep_link])
        dues += beat.dues
        assert not beat.failed
    assert started.noted == [(members.LINK, "fleet.py", "link", "--quiet")] * 3
    assert min(dues) == 1_000_000 + daemon.LINK_AGAIN_MS


def test_what_is_kept_of_a_fleet_goes_when_the_machine_has_left_it(bench: Bench) -> None:
    db = bench.db()
    members.tell_link(db, "nats://127.0.0.1:1", host="box", now=1)
    there = agents.elsewhere(db, "box-2", "webapp-impl", "developer")
    sent = messages.queue(db, there, "hello", sender="user", kind=MessageKind.MESSAGE, now=1)
    life = daemon.Life(Settings(), Started(bench.home))
    daemon.tick(db, bench.tmux, bench.home, now=2, life=life, steps=[daemon.keep_link])
    assert not members.is_linked(db)
    assert messages.get(db, sent.id).reason == "this machine is of no fleet any more"
    assert "fleet" not in bench.ok("scheduler.py", "--status").out


class TestLinked:
    def test_every_view_shows_it(self, pair: tuple[Bench, Bench]) -> None:
        a, _ = pair
        assert "connected to nats://127.0.0.1" in a.ok("claude_control.py", "fleet", "status").out
        table = a.ok("claude_control.py", "fleet", "hosts").out.splitlines()
        assert [line.split()[0] for line in table] == ["host", "box-1", "box-2"]
        assert "seen" in table[1] and max(map(len, table)) <= 100
        assert "hosts: 2 of 2 seen" in a.ok("scheduler.py", "--status").out
        assert "box-2  seen" in a.ok("multi_project_monitor.py").out
        assert "2 of 2 seen" in a.ok("multi_project_monitor.py", "--summary").out
        found = {one["name"]: one for one in a.door("claude_control.py", "doctor", "--json").json["findings"]}
        assert found["fleet link"]["state"] == "found" and "as box-1" in found["fleet link"]["said"]

    def test_a_link_that_was_killed_is_started_again(self, pair: tuple[Bench, Bench]) -> None:
        a, _ = pair
        (old,) = links(a)
        # Its own start is longer ago than the pause: the machine has worked for a while.
        wait_for(lambda: control(a, "status")["at"] - started_at(a) > daemon.LINK_AGAIN_MS, "a while", seconds=60)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: links(a) not in ([], [old]), "another link", seconds=60)
        wait_for(lambda: connected(a) == ["box-1", "box-2"], "both to be seen", seconds=60)

    def test_the_scheduler_starts_again_and_the_link_stays_the_one(self, pair: tuple[Bench, Bench]) -> None:
        a, _ = pair
        (old,) = links(a)
        a.ok("scheduler.py", "--stop")
        start(a)
        a.ok("claude_control.py", "fleet", "status")
        wait_for(lambda: a.rows("SELECT 1 FROM fleet_hosts WHERE seen_at > ?", host.now_ms() - 2000), "news")
        assert links(a) == [old] and connected(a) == ["box-1", "box-2"]

    def test_a_machine_that_dies_is_not_seen_and_an_order_to_it_waits_there(
        self, pair: tuple[Bench, Bench], nats_server: NatsServer
    ) -> None:
        a, b = pair
        for process in b.processes():  # the scheduler, uv and the link at once, as when the power goes
            os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: connected(a) == ["box-1"], "box-2 not to be seen", seconds=60)
        table = a.ok("claude_control.py", "fleet", "hosts").out
        assert "box-2  not seen for " in table and "dead" not in table
        assert "takes nothing new" in a.ok("claude_control.py", "fleet", "cordon", "box-2").out
        start(b)
        wait_for(lambda: standing(b, "box-2") == "cordoned", "the order to arrive", seconds=60)
        wait_for(lambda: connected(a) == ["box-1", "box-2"], "box-2 to be seen", seconds=60)

    def test_an_order_waits_while_the_server_is_away(self, pair: tuple[Bench, Bench], nats_server: NatsServer) -> None:
        a, b = pair
        nats_server.kill()
        wait_for(lambda: not connected(a), "the loss to be noticed", seconds=60)
        done = a.ok("claude_control.py", "fleet", "drain", "box-2")
        assert "queued: drain box-2\nlink: not connected to" in done.out
        status = a.ok("claude_control.py", "fleet", "status").out
        assert "cannot be reached" in status and "drain box-2 waits to be sent" in status
        assert a.door("claude_control.py", "doctor").code == ExitCode.FAILED
        nats_server.start()
        wait_for(lambda: standing(b, "box-2") == "draining", "the order to arrive", seconds=60)
        wait_for(lambda: not control(a, "status")["outbox"], "the outbox to be empty")
        assert "nothing runs there any more" in a.ok("claude_control.py", "fleet", "hosts").out
        assert a.door("claude_control.py", "fleet", "drain", "box-9").code == ExitCode.NOT_FOUND

    def test_the_configuration_has_no_fleet_any_more(self, pair: tuple[Bench, Bench]) -> None:
        a, _ = pair
        configure(a, None, "")
        a.ok("scheduler.py", "--stop")
        wait_for(lambda: not links(a), "the link to end", seconds=30)
        start(a)
        wait_for(lambda: not members.is_linked(a.db()), "the fleet to be forgotten")
        assert a.door("claude_control.py", "fleet", "status").code == ExitCode.NOT_FOUND


def started_at(bench: Bench) -> int:
    """When the last link was started (UTC milliseconds)."""
    return round((bench.home / "logs" / f"{members.LINK}.out").stat().st_ctime * 1000)


def standing(bench: Bench, name: str) -> str:
    return str(members.standing_of(bench.db(), name))


def test_a_link_without_a_scheduler_ends_by_itself(
    bench: Bench, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(bench, nats_server, "box")
    code = (
        "import sys; from pathlib import Path; from lib.fleet import link; link.ALONE_SECONDS = 0.5\n"
        "from lib.front import cli, fleeting\nfleeting.link(cli.Output(), Path(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, str(bench.home)]
    done = subprocess.run(
        words, cwd=ROOT, env=bench.environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "the link has ended: the scheduler does not run\n"


def test_only_one_link_runs(bench: Bench, nats_server: NatsServer) -> None:
    configure(bench, nats_server, "box")
    with errands.working(bench.home, members.LINK):
        assert bench.door("fleet.py", "link").code == ExitCode.BUSY


def test_a_refused_order_is_an_error_of_the_door(bench: Bench, nats_server: NatsServer) -> None:
    # The server refuses it to hosts that did not found the fleet (test_fleet_security.py); here the link has said so.
    configure(bench, nats_server, "box")
    with contextlib.closing(store.connect(bench.home)) as db:
        now = host.now_ms()
        item = members.order(db, "box-2", members.Standing.DRAINING, now=now)
        outbox.refuse(db, item, "this host may not order anything of box-2", now=now)
    out = bench.ok("claude_control.py", "fleet", "status").out
    assert "refused: drain box-2: this host may not order anything of box-2" in out
