"""The queue of a fleet: real hosts on a real server; one is lost, one is cut off, and nothing runs twice at once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import nats
from tests.conftest import SPEC, Bench, commit_all, wait_for
from tests.fleet_machines import Host, fleet
from tests.nats import NatsServer

HOLDS = "# A spec that takes its time\n\nrehearse: hold\n"
OVER = ("succeeded", "abandoned", "cancelled")

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats.running(tmp_path / "nats") as made:
        yield made


@pytest.fixture
def hosts(tmp_path: Path, server: NatsServer) -> Iterator[Callable[..., list[Host]]]:
    """Hosts that run: the first only puts and looks, the others work."""
    stack = []

    def make(*names: str) -> list[Host]:
        made = fleet(tmp_path, server.url, *names)
        found = made.__enter__()
        stack.append(made)
        for number, one in enumerate(found):
            one.start(works=number > 0)
        return found

    yield make
    for one in stack:
        one.__exit__(None, None, None)


def branches(project: Path) -> dict[str, str]:
    said = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split() for line in said.stdout.splitlines())


def is_over(one: Host, *ids: str) -> bool:
    """Whether these entries are over, and their results are home."""
    home = {row["entry_id"] for row in one.bench.rows("SELECT * FROM fleet_puts WHERE fetched_at IS NOT NULL")}
    return all(one.entry(entry).get("state") in OVER for entry in ids) and set(ids) <= home


def has_running_team(one: Host) -> bool:
    return [team["status"] for team in one.teams()] == ["running"]


def holder(found: list[Host]) -> Host:
    """The host whose team works."""
    return next(one for one in found if one.teams())


def others(found: list[Host], one: Host) -> list[Host]:
    return [other for other in found if other.name != one.name]


def commit(one: Host, number: int) -> str:
    """Have the team of a host commit, and wait until that is pushed. Returns the commit."""
    (team,) = one.teams()
    (agent,) = one.bench.rows("SELECT * FROM agents WHERE orchestration_id = ?", team["id"])
    before = branches(Path(team["project"]))[agent["branch"]]
    one.bench.ok("claude_control.py", "send", f"{team['session']}:orchestrator", f"rehearse: commit {number}")

    def made() -> str:
        now = branches(Path(team["project"]))[agent["branch"]]
        return now if now != before else ""

    return wait_for(made, "the team to commit")


def pushed(one: Host, entry: str) -> dict[str, str]:
    """The branches of an entry that were pushed, as a host has heard of it."""
    kept = one.entry(entry).get("kept") or {}
    return dict(kept.get("branches", {}))


def lease(one: Host, entry: str) -> dict[str, Any]:
    return one.bench.rows("SELECT * FROM fleet_leases WHERE entry_id = ?", entry)[0]


class TestDraining:
    def test_three_hosts_drain_a_queue_and_each_spec_runs_once(self, hosts: Callable[..., list[Host]]) -> None:
        home, *workers = hosts("home", "red", "green", "blue")
        project = home.bench.project()
        ids = [home.put(project, f"{SPEC}\n{number}\n", f"spec{number}.md") for number in range(5)]
        wait_for(lambda: is_over(home, *ids), "the queue to be drained", seconds=120)
        assert [home.entry(entry)["state"] for entry in ids] == ["succeeded"] * 5
        ran = [row["project"] for one in workers for row in one.bench.rows("SELECT project FROM orchestrations")]
        assert sorted(Path(path).parent.name for path in ran) == sorted(f"{entry}-1" for entry in ids)
        assert home.bench.rows("SELECT 1 FROM orchestrations") == []
        assert len({home.entry(entry)["host"] for entry in ids}) > 1, "no host has drained it alone"
        # What came home are the branches of the teams, and the person's own stays.
        found = branches(project)
        assert {name.split("/")[0] for name in found if name != "main"} == {"orchestration"}
        assert sum(name.endswith("/orchestrator") for name in found) == 5
        told = home.bench.rows("SELECT title FROM notices WHERE kind = 'completed'")
        assert len(told) == 5 and all("in webapp" in one["title"] for one in told)
        assert [one.bench.rows("SELECT 1 FROM notices") for one in workers] == [[], [], []]
        listed = home.bench.ok("scheduler.py", "--queue-list").out
        assert listed.count("succeeded") == 5 and max(map(len, listed.splitlines())) <= 100

    def test_what_has_a_higher_priority_is_taken_first_and_a_label_by_whoever_has_it(
        self, hosts: Callable[..., list[Host]], server: NatsServer
    ) -> None:
        home, red = hosts("home", "red")
        project = home.bench.project()
        first = home.put(project, HOLDS, "first.md")
        wait_for(lambda: has_running_team(red), "the first team", seconds=60)
        for_gpu = home.put(project, SPEC, "gpu.md", "--label", "gpu", "--priority", "9")
        low = home.put(project, f"{SPEC}low", "low.md", "--priority", "-3")
        high = home.put(project, f"{SPEC}high", "high.md", "--priority", "5")
        wait_for(lambda: home.entry(high) and home.entry(low) and home.entry(for_gpu), "all of it to be there")
        home.bench.ok("scheduler.py", "--queue-cancel", first)
        wait_for(lambda: is_over(home, first, low, high), "what red can do", seconds=90)
        assert home.entry(first)["state"] == "cancelled"
        order = [row["project"] for row in red.bench.rows("SELECT project FROM orchestrations ORDER BY created_at")]
        assert [Path(path).parent.name for path in order] == [f"{first}-1", f"{high}-1", f"{low}-1"]
        assert home.entry(for_gpu)["state"] == "queued"
        red.configure(server.url, labels="[gpu]")
        wait_for(lambda: is_over(home, for_gpu), "the link to read its label", seconds=90)

    def test_what_is_put_without_a_server_waits_and_is_put_once(
        self, hosts: Callable[..., list[Host]], server: NatsServer
    ) -> None:
        home, red = hosts("home", "red")
        server.stop()
        wait_for(lambda: not home.is_connected(), "home to notice")
        entry = home.put(home.bench.project(), SPEC, "spec.md")
        assert "not sent yet" in home.bench.ok("scheduler.py", "--queue-list").out
        assert "not sent yet" in home.bench.ok("scheduler.py", "--queue-status", entry).out
        server.start()
        wait_for(lambda: is_over(home, entry), "it to be done", seconds=90)
        # A link that was killed between sending and noting that: the outbox carries it again.
        db = home.bench.db()
        (row,) = home.bench.rows("SELECT * FROM sqlite_sequence WHERE name = 'fleet_outbox'")
        assert row["seq"] == 1
        db.close()
        assert len(red.bench.rows("SELECT 1 FROM orchestrations")) == 1


class TestLost:
    def test_a_host_that_is_lost_gives_its_entry_back_and_the_next_goes_on_from_what_was_pushed(
        self, hosts: Callable[..., list[Host]]
    ) -> None:
        home, *workers = hosts("home", "red", "green")
        project = home.bench.project()
        entry = home.put(project, HOLDS, "holds.md")
        wait_for(lambda: any(has_running_team(one) for one in workers), "a team", seconds=60)
        lost = holder(workers)
        (other,) = others(workers, lost)
        (team,) = lost.teams()
        made = commit(lost, 2)
        wait_for(lambda: made in pushed(home, entry).values(), "the commit to be pushed")
        lost.lose()
        wait_for(lambda: has_running_team(other), "another host to have it", seconds=60)
        (again,) = other.teams()
        assert again["id"] != team["id"] and home.entry(entry)["term"] == 2
        found = branches(Path(again["project"]))
        assert found[f"{again['branches']}/orchestrator"] == made, "the next team goes on from there"
        assert "What another host has begun" in again["spec_text"] and again["spec_text"].startswith(HOLDS)
        more = commit(other, 1)
        home.bench.ok("scheduler.py", "--queue-cancel", entry)
        wait_for(lambda: is_over(home, entry), "it to end", seconds=60)
        at_home = branches(project)
        assert at_home[f"{team['branches']}/orchestrator"] == made, "what the lost host had pushed came home too"
        assert at_home[f"{again['branches']}/orchestrator"] == more
        # The lost host comes back, and finds that it is another's.
        lost.start()
        wait_for(lambda: lease(lost, entry)["ended_at"], "it to hear of that", seconds=60)
        assert lost.teams() == []
        assert branches(Path(team["project"]))[f"{team['branches']}/orchestrator"] == made

    def test_a_link_that_is_killed_is_started_again_and_goes_on(self, hosts: Callable[..., list[Host]]) -> None:
        home, red = hosts("home", "red")
        entry = home.put(home.bench.project(), HOLDS, "holds.md")
        wait_for(lambda: has_running_team(red), "a team", seconds=60)
        (team,) = red.teams()
        red.signal_link(signal.SIGKILL)
        wait_for(lambda: lease(red, entry)["fenced_at"], "its team to stand still", seconds=30)
        wait_for(lambda: red.teams()[0]["status"] == "paused", "its team to be paused")
        wait_for(lambda: has_running_team(red), "its team to go on", seconds=90)
        assert (red.teams()[0]["id"], home.entry(entry)["term"]) == (team["id"], 1)
        assert (lease(red, entry)["fenced_at"], lease(red, entry)["ended_at"]) == (None, None)


class TestCutOff:
    def test_a_team_stands_still_before_another_host_has_its_entry_and_is_stopped_after(
        self, hosts: Callable[..., list[Host]]
    ) -> None:
        home, *workers = hosts("home", "red", "green")
        entry = home.put(home.bench.project(), HOLDS, "holds.md")
        wait_for(lambda: any(has_running_team(one) for one in workers), "a team", seconds=60)
        cut_off = holder(workers)
        (other,) = others(workers, cut_off)
        (team,) = cut_off.teams()
        made = commit(cut_off, 1)
        wait_for(lambda: made in pushed(home, entry).values(), "the commit to be pushed")
        cut_off.signal_link(signal.SIGSTOP)
        try:
            wait_for(lambda: has_running_team(other), "another host to have it", seconds=60)
            (held,) = cut_off.teams()
            fenced_at = lease(cut_off, entry)["fenced_at"]
            begun = other.bench.rows("SELECT started_at FROM attempts")[0]["started_at"]
            assert held["status"] == "paused" and held["paused_at"] <= fenced_at < begun
        finally:
            cut_off.signal_link(signal.SIGCONT)
        wait_for(lambda: not cut_off.teams(), "the superseded team to be stopped", seconds=30)
        (stopped,) = cut_off.bench.rows("SELECT status FROM orchestrations")
        assert stopped["status"] == "stopped"
        wait_for(lambda: cut_off.bench.tmux.panes() == [], "its agents to be ended")
        assert branches(Path(team["project"]))[f"{team['branches']}/orchestrator"] == made
        (row,) = cut_off.bench.rows("SELECT status, reason FROM queue_entries")
        assert row["status"] == "cancelled" and f"running on {other.name}" in row["reason"]
        assert has_running_team(other) and home.entry(entry)["host"] == other.name

    def test_whoever_follows_one_that_has_proved_its_entry_waits_until_that_one_must_know(
        self, hosts: Callable[..., list[Host]]
    ) -> None:
        home, red, green = hosts("home", "red", "green")
        green.bench.ok("scheduler.py", "--queue-pause")
        entry = home.put(home.bench.project(), HOLDS, "holds.md")
        wait_for(lambda: has_running_team(red), "a team", seconds=60)
        red.signal_link(signal.SIGSTOP)
        wait_for(lambda: lease(red, entry)["fenced_at"], "its team to stand still", seconds=30)
        red.signal_link(signal.SIGCONT)
        wait_for(lambda: lease(red, entry)["fenced_at"] is None, "red to prove that it has it", seconds=30)
        wait_for(lambda: has_running_team(red), "its team to go on")
        green.bench.ok("scheduler.py", "--queue-resume")
        red.lose()
        wait_for(lambda: has_running_team(green), "green to have it", seconds=60)
        begins_at = lease(green, entry)["begins_at"]
        assert begins_at > home.entry(entry)["taken_at"], "it did not begin when it took it"
        assert green.bench.rows("SELECT added_at FROM queue_entries")[0]["added_at"] >= begins_at

    def test_a_server_that_is_away_for_longer_than_the_ack_wait_leaves_one_holder(
        self, hosts: Callable[..., list[Host]], server: NatsServer
    ) -> None:
        home, *workers = hosts("home", "red", "green")
        entry = home.put(home.bench.project(), HOLDS, "holds.md")
        wait_for(lambda: any(has_running_team(one) for one in workers), "a team", seconds=60)
        had_it = holder(workers)
        server.kill()
        wait_for(lambda: lease(had_it, entry)["fenced_at"], "its team to stand still", seconds=30)
        wait_for(lambda: had_it.teams()[0]["status"] == "paused", "its team to be paused")
        server.start()

        def is_settled() -> bool:
            found = [one for one in workers if has_running_team(one)]
            return (
                len(found) == 1
                and found[0].name == home.entry(entry)["host"]
                and not any(row["fenced_at"] for row in found[0].bench.rows("SELECT fenced_at FROM fleet_leases"))
            )

        wait_for(is_settled, "one host to have it", seconds=60)
        (one,) = [one for one in workers if has_running_team(one)]
        wait_for(lambda: not others(workers, one)[0].teams(), "the other to have no team")

    def test_a_drained_host_gives_back_what_it_has_not_begun(self, hosts: Callable[..., list[Host]]) -> None:
        home, red, green = hosts("home", "red", "green")
        green.bench.ok("scheduler.py", "--queue-pause")
        entry = home.put(home.bench.project(), "# Fails\n\nrehearse: fail the API is gone\n", "fails.md")
        path = Path(red.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        path.write_text(path.read_text().replace("retry_minutes: 0.005", "retry_minutes: 60"))
        red.bench.ok("scheduler.py", "--stop")
        red.start()
        wait_for(lambda: "failed" in str(home.entry(entry).get("says")), "its first attempt to fail", seconds=60)
        red.bench.ok("claude_control.py", "fleet", "drain", "red")
        wait_for(lambda: home.entry(entry)["state"] == "queued", "red to give it back", seconds=30)
        green.bench.ok("scheduler.py", "--queue-resume")
        wait_for(lambda: home.entry(entry).get("host") == "green", "green to take it", seconds=30)
        (row,) = red.bench.rows("SELECT status, reason FROM queue_entries")
        assert row == {"status": "cancelled", "reason": "given back: this host is being drained"}


class TestProjects:
    def test_a_project_with_a_remote_is_fetched_from_there(self, hosts: Callable[..., list[Host]]) -> None:
        home, *_ = hosts("home", "red")
        project, remote = home.bench.project(), home.bench.folder / "remote.git"
        subprocess.run(["git", "clone", "-q", "--bare", str(project), str(remote)], check=True)
        for words in (["remote", "add", "origin", f"file://{remote}"], ["fetch", "-q", "origin"]):
            subprocess.run(["git", *words], cwd=project, check=True)
        entry = home.put(project, SPEC, "spec.md")
        wait_for(lambda: is_over(home, entry), "it to be done", seconds=90)
        assert home.entry(entry)["project"]["remote"] == f"file://{remote}"
        assert home.entry(entry)["project"]["chain"] == [], "no bundle was needed"
        assert any(name.startswith("orchestration/") for name in branches(project))
        # A host that cannot reach the remote gets bundles from who has put it.
        (project / "more").write_text("more")
        commit_all(project, "More")
        subprocess.run(["git", "push", "-q", "origin", "main"], cwd=project, check=True)
        remote.rename(remote.with_name("away.git"))
        again = home.put(project, f"{SPEC}again", "again.md")
        wait_for(lambda: is_over(home, again), "it to be done all the same", seconds=90)
        assert home.entry(again)["state"] == "succeeded" and len(home.entry(again)["project"]["chain"]) == 1

    def test_the_second_spec_of_a_project_brings_only_what_is_new(self, hosts: Callable[..., list[Host]]) -> None:
        home, red = hosts("home", "red")
        project = home.bench.project()
        first = home.put(project, SPEC, "one.md")
        wait_for(lambda: is_over(home, first), "the first", seconds=90)
        (project / "more").write_text("more")
        commit_all(project, "More")
        second = home.put(project, f"{SPEC}two", "two.md")
        wait_for(lambda: is_over(home, second), "the second", seconds=90)
        assert len(home.entry(first)["project"]["chain"]) == 1
        assert len(home.entry(second)["project"]["chain"]) == 2
        assert (home.entry(second)["state"], red.bench.rows("SELECT 1 FROM fleet_leases")) != ("abandoned", [])


class TestFounded:
    """With TLS and the least permissions: each host by its own certificate, as `fleet.py init` makes it."""

    def test_hosts_that_have_joined_drain_the_queue(self, tmp_path: Path) -> None:
        port = nats.free_port()
        with fleet(tmp_path, f"tls://127.0.0.1:{port}", "home", "red") as (home, red):
            words = ("--name", "home", "--address", "127.0.0.1", "--listen", f"127.0.0.1:{port}")
            home.bench.ok("fleet.py", "init", *words, "red")
            place = home.bench.home / "fleet"
            red.bench.ok("fleet.py", "join", str(place / "hosts" / "red.fleet"))
            server = NatsServer(tmp_path / "nats", port, place / "server" / "server.conf")
            server.start()
            try:
                home.start(works=False)
                red.start()
                project = home.bench.project()
                done = home.put(project, SPEC, "spec.md", "--priority", "-7")
                wait_for(lambda: is_over(home, done), "it to be done", seconds=60)
                assert home.entry(done)["state"] == "succeeded"
                holds = home.put(project, HOLDS, "holds.md")
                wait_for(lambda: has_running_team(red), "a team", seconds=60)
                made = commit(red, 1)
                wait_for(lambda: made in pushed(home, holds).values(), "the commit to be pushed")
                home.bench.ok("scheduler.py", "--queue-cancel", holds)
                wait_for(lambda: is_over(home, holds), "it to end", seconds=60)
                assert made in branches(project).values()
                failed = home.bench.rows("SELECT data FROM events WHERE kind = 'fleet.task_failed'")
                assert (failed, red.bench.rows("SELECT data FROM events WHERE kind = 'fleet.task_failed'")) == ([], [])
            finally:
                server.stop()


def test_without_a_fleet_its_forms_say_so(bench: Bench) -> None:
    project = bench.project()
    done = bench.door("auto_orchestrate.py", "--fleet", "--spec", str(project / "spec.md"))
    assert done.code == 3 and "of no fleet" in done.err
    done = bench.door("scheduler.py", "--queue-add", str(project / "spec.md"), str(project), "--fleet")
    assert done.code == 3 and "of no fleet" in done.err
    assert bench.door("scheduler.py", "--queue-status", "f0123abcd").code == 3
    assert bench.door("scheduler.py", "--queue-list", "--label", "gpu").code == 2
    assert bench.door("auto_orchestrate.py", "--spec", "x.md", "--label", "gpu").code == 2
