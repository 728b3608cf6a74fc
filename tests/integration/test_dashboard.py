"""The dashboard: what it shows and what it does, asked of the real server of a team that stands still."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import authorizations, host, messages, store
from lib.errors import ExitCode
from lib.models import MessageKind, OrchestrationStatus
from lib.queue import entries
from tests.conftest import ROOT, SPEC, Bench, wait_for
from tests.dashboards import Dashboard, running
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


@pytest.fixture
def page(still_team: StillTeam) -> Iterator[Dashboard]:
    """A browser at the dashboard of a team."""
    with running(still_team.bench) as found:
        found.visit()
        yield found


class TestTheDoor:
    def test_it_serves_until_it_is_told_to_end(self, bench: Bench) -> None:
        with running(bench) as dashboard:
            assert dashboard.url == f"http://localhost:{dashboard.port}" and dashboard.token is None
            assert dashboard.ask("/healthz").json == {"status": "ok"}
            with dashboard.listening() as stream:
                stream.until("here")
                assert dashboard.end() == 0

    def test_a_port_that_is_taken_is_named(self, bench: Bench) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = bench.door("monitoring_dashboard.py", "--port", str(port))
        assert done.code == ExitCode.BUSY
        assert f"somebody listens at 127.0.0.1:{port} already" in done.err and f"--port {port + 1}" in done.err

    @pytest.mark.parametrize("address", ["no.such.host.invalid", "203.0.113.7", "not an address"])
    def test_an_address_that_is_not_ours_is_wrong_usage(self, bench: Bench, address: str) -> None:
        done = bench.door("monitoring_dashboard.py", "--port", "0", "--host", address)
        assert done.code == ExitCode.USAGE and "is no address of this machine" in done.err

    def test_debug_prints_requests_and_is_no_console(self, bench: Bench) -> None:
        with running(bench, "--debug") as dashboard:
            assert dashboard.ask("/console").status == 404
            assert dashboard.ask("/?__debugger__=yes&cmd=resource&f=debugger.js").status == 200
        assert "GET /console 404" in (bench.folder / "dashboard.err").read_text()

    def test_a_token_comes_once_and_as_a_picture(self, bench: Bench) -> None:
        words = [sys.executable, str(ROOT / "monitoring_dashboard.py"), "--port", "0", "--token"]
        with subprocess.Popen(
            words, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout and process.stderr
            address = process.stdout.readline().strip()
            while "Ctrl-C" not in (line := process.stderr.readline()):
                assert line
                picture = line
            process.terminate()
            assert process.wait(timeout=15) == 0
        assert "/login#" in address
        assert set(picture.strip()) & set("█▀▄"), "the code is drawn in the terminal"
        with running(bench, "--token") as again:
            assert again.token is None
            bearer = {"Authorization": f"Bearer {address.partition('#')[2]}"}
            assert again.ask("/api/v1/host", headers=bearer).status == 200

    def test_the_store_of_keys_holds_no_token_and_is_private(self, bench: Bench) -> None:
        with running(bench, "--token") as dashboard:
            kept = bench.home / "dashboard.json"
            assert dashboard.token and dashboard.token not in kept.read_text()
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    def test_damaged_keys_are_named(self, bench: Bench) -> None:
        bench.home.mkdir()
        (bench.home / "dashboard.json").write_text("{")
        done = bench.door("monitoring_dashboard.py", "--port", "0")
        assert done.code == ExitCode.FAILED and f"rm {bench.home / 'dashboard.json'}" in done.err


class TestWhatItShows:
    def test_a_team_with_its_agents(self, page: Dashboard, still_team: StillTeam) -> None:
        (team,) = page.get("/orchestrations")["orchestrations"]
        assert (team["id"], team["status"], team["need"]) == (still_team.id, "running", "nothing")
        developer = next(one for one in team["agents"] if one["role"] == "developer")
        assert developer["id"] == still_team.agent("developer").id and developer["state"] == "starting"
        assert developer["commit"]["subject"] == "Start" and not developer["commit"]["is_own"]
        assert developer["works_on"] is None and developer["context"] is None

    def test_a_commit_and_what_it_works_on_appear(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        still_team.commit("developer")
        sent = messages.queue(
            still_team.db, agent, "\nLook at it\nplease", sender="tester", kind=MessageKind.MESSAGE, now=1000
        )
        messages.confirm(still_team.db, agent, sent, now=2000)
        found = page.get(f"/agents/{agent.id}")
        assert found["commit"]["subject"] == "Add work.txt" and found["commit"]["is_own"]
        assert found["works_on"] == {"message": sent.id, "sender": "tester", "text": "Look at it", "since": 2000}
        assert [one["body"] for one in found["messages"]] == ["\nLook at it\nplease"]

    def test_all_of_one_team(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        for sender in ("tester", "tester", "user"):
            messages.queue(still_team.db, agent, "hello", sender=sender, kind=MessageKind.MESSAGE, now=host.now_ms())
        found = page.get(f"/orchestrations/{still_team.id}")
        flows = {(one["sender"], one["role"]): one["messages"] for one in found["flows"]}
        assert flows == {("tester", "developer"): 2, ("user", "developer"): 1}
        assert found["spec_text"] == SPEC

    def test_messages_a_page_at_a_time(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        ids = [
            messages.queue(still_team.db, agent, f"number {n}", sender="user", kind=MessageKind.MESSAGE, now=n).id
            for n in range(5)
        ]
        path = f"/orchestrations/{still_team.id}/messages"
        newest = page.get(f"{path}?limit=2")["messages"]
        assert [one["id"] for one in newest] == ids[-2:]
        assert [one["id"] for one in page.get(f"{path}?limit=2&before={ids[-2]}")["messages"]] == ids[1:3]

    def test_what_happened_after_an_event(self, page: Dashboard, still_team: StillTeam) -> None:
        newest = page.get("/events")["newest"]
        page.post(f"/orchestrations/{still_team.id}/pause")
        found = page.get(f"/orchestrations/{still_team.id}/events?after={newest}")["events"]
        assert [one["sentence"] for one in found if one["kind"] == "pause.begun"] == ["a person has paused the team"]

    def test_worktrees_and_conflicts(self, page: Dashboard, still_team: StillTeam) -> None:
        still_team.commit("developer")
        found = page.get(f"/orchestrations/{still_team.id}/git")["agents"]
        assert {one["role"]: one["ahead"] for one in found}["developer"] == 1

    def test_a_window_as_text_and_as_html(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        words = r"printf '\033[1;31mred\033[0m <script>alert(1)</script> \033]0;title\007'; sleep 1000"
        still_team.bench.tmux.run("respawn-pane", "-k", "-t", agent.pane_id or "", "sh", "-c", words)
        for _ in range(100):
            found = page.get(f"/agents/{agent.id}/screen")
            if "red" in found["text"]:
                break
        assert found["text"].startswith("red <script>alert(1)</script>")
        assert '<span class="bold fg-1">red</span>' in found["html"]
        assert "&lt;script&gt;" in found["html"] and "<script" not in found["html"]
        assert found["dialog"] is None

    def test_costs_limits_and_the_machine(self, page: Dashboard) -> None:
        assert page.get("/costs?by=role")["rows"] == []
        assert page.get("/limits") == {"limits": [], "forecasts": []}
        assert page.get("/host")["panes"] == 5
        assert page.get("/overview")["projects"][0]["need"] == "nothing"

    def test_what_is_not_there_is_not_found(self, page: Dashboard) -> None:
        for path in ("/orchestrations/abc", "/agents/999", "/messages/999", "/queue/999", "/agents/999/screen"):
            answer = page.ask(f"/api/v1{path}")
            assert answer.status == 404 and answer.sentence

    def test_wrong_words_are_refused_by_name(self, page: Dashboard) -> None:
        for path, words in (
            ("/events?limit=0", "limit must be from 1 to 1000, not 0"),
            ("/events?limit=x", "limit must be a whole number"),
            ("/events?colour=red", "'colour' is not known here"),
            ("/agents/0", "agent must be from 1 to 9223372036854775807, not 0"),
            ("/costs?by=colour", "by must be one of agent, role, day, model, not 'colour'"),
            ("/queue?all=maybe", "all must be true or false"),
        ):
            answer = page.ask(f"/api/v1{path}")
            assert (answer.status, answer.sentence) == (400, words)


class TestWhatItDoes:
    def test_a_message_is_recorded_and_its_way_is_told(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        answer = page.post(f"/agents/{agent.id}/messages", {"text": "What is left?", "priority": "high"})
        assert answer.status == 201 and answer.json["status"] == "queued" and answer.json["sender"] == "user"
        found = page.get(f"/messages/{answer.json['id']}")
        assert found["body"] == "What is left?" and found["priority"] == "high"
        assert found["history"][0]["kind"] == "message.queued"

    def test_a_slash_command_is_one(self, page: Dashboard, still_team: StillTeam) -> None:
        path = f"/agents/{still_team.agent('developer').id}/commands"
        assert page.post(path, {"command": "/compact keep the plan"}).json["kind"] == "command"
        assert page.post(path, {"command": "compact"}).status == page.post(path, {"command": "/x\n/y"}).status == 400

    def test_a_message_to_one_that_is_gone_is_not_recorded(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        assert agent.process
        os.kill(agent.process.pid, 9)
        wait_for(lambda: not host.is_alive(agent.process), "its end")
        answer = page.post(f"/agents/{agent.id}/messages", {"text": "hello"})
        assert (answer.status, answer.sentence) == (409, "webapp-impl:developer is gone: its process has ended")
        assert messages.find(still_team.db, agent_id=agent.id, limit=1) == []

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ({}, "the body has no text"),
            ({"text": " \n "}, "text must fit"),
            ({"text": 7}, "text must be text"),
            ({"text": "x", "priority": "loud"}, "priority must be one of"),
            ({"text": "x", "volume": 11}, "the body has volume, which is not known"),
            ({"text": "x" * 50_001}, "text must not be longer than 50,000 characters"),
            (["text"], "the body must be an object"),
        ],
    )
    def test_a_message_of_another_shape_is_refused(
        self, page: Dashboard, still_team: StillTeam, data: object, words: str
    ) -> None:
        answer = page.post(f"/agents/{still_team.agent('developer').id}/messages", data)
        assert answer.status == 400 and answer.sentence.startswith(words)

    def test_a_team_is_paused_and_goes_on(self, page: Dashboard, still_team: StillTeam) -> None:
        path = f"/orchestrations/{still_team.id}"
        assert page.post(f"{path}/pause").json["status"] == "paused"
        assert page.post(f"{path}/pause").json["new"] is False
        assert page.post(f"{path}/resume").json["status"] == "running"
        again = page.post(f"{path}/resume")
        assert again.status == 409 and "is not paused by hand" in again.sentence

    def test_a_team_is_stopped_and_its_work_is_named(self, page: Dashboard, still_team: StillTeam) -> None:
        still_team.commit("developer")
        found = page.post(f"/orchestrations/{still_team.id}/stop").json
        assert found["status"] == OrchestrationStatus.STOPPED
        assert {one["role"]: one["unmerged"] for one in found["left"]}["developer"] == 1
        assert still_team.bench.tmux.panes() == []

    def test_a_person_answers_a_request(self, page: Dashboard, still_team: StillTeam) -> None:
        asked, _ = authorizations.request(
            still_team.db,
            still_team.agent("developer"),
            still_team.agent("orchestrator"),
            "May I <b>deploy</b>?",
            now=host.now_ms(),
        )
        (team,) = page.get("/orchestrations")["orchestrations"]
        assert [one["what"] for one in team["asks"]] == ["May I <b>deploy</b>?"]
        answer = page.post(f"/authorizations/{asked.id}", {"yes": True, "reason": "go on"})
        assert answer.status == 200 and answer.json["status"] == "granted"
        assert page.post(f"/authorizations/{asked.id}", {"yes": False}).status == 409

    def test_no_question_is_no_answer(self, page: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        answer = page.post(f"/agents/{agent.id}/answer", {"dialog": "0" * 16, "key": "1"})
        assert (answer.status, answer.sentence) == (404, "webapp-impl:developer does not ask this any more")


class TestTheQueue:
    def test_a_spec_that_is_sent(self, page: Dashboard, still_team: StillTeam) -> None:
        project = str(still_team.bench.folder / "webapp")
        answer = page.post("/queue/text", {"text": SPEC, "name": "my spec.md", "project": project, "priority": 3})
        assert answer.status == 201
        (entry,) = answer.json["entries"]
        assert (entry["status"], entry["priority"], entry["new"]) == ("queued", 3, True)
        assert Path(entry["spec"]).name == "my-spec.md" and Path(entry["spec"]).read_text() == SPEC
        again = page.post("/queue/text", {"text": SPEC, "name": "my spec.md", "project": project})
        assert again.json["entries"][0]["id"] == entry["id"] and again.json["entries"][0]["new"] is False

    def test_a_spec_by_its_path(self, page: Dashboard, still_team: StillTeam) -> None:
        project = still_team.bench.folder / "webapp"
        answer = page.post("/queue", {"path": str(project / "spec.md"), "project": str(project)})
        assert answer.status == 201 and answer.json["entries"][0]["spec"] == str(project / "spec.md")

    @pytest.mark.parametrize("named", [{"team_type": "orchestra"}, {"roles": ["conductor"]}])
    def test_a_team_of_what_there_is_not(
        self, page: Dashboard, still_team: StillTeam, named: dict[str, object]
    ) -> None:
        project = str(still_team.bench.folder / "webapp")
        answer = page.post("/queue/text", {"text": SPEC, "project": project, **named})
        assert answer.status == 404 and answer.sentence.startswith("unknown ")
        assert page.get("/queue?all=true")["entries"] == []

    def test_order_pause_cancel_and_retry(self, page: Dashboard, still_team: StillTeam) -> None:
        project = str(still_team.bench.folder / "webapp")
        page.post("/queue/pause")
        ids = [
            page.post("/queue/text", {"text": f"{SPEC}\n{n}", "project": project}).json["entries"][0]["id"]
            for n in range(3)
        ]
        wanted = [ids[2], ids[0], ids[1]]
        assert [one["id"] for one in page.post("/queue/order", {"ids": wanted}).json["entries"]] == wanted
        assert page.get("/queue")["paused_at"]
        assert page.post(f"/queue/{ids[0]}/cancel").json["status"] == "cancelled"
        assert page.post(f"/queue/{ids[0]}/cancel").status == 409
        assert [one["id"] for one in page.get("/queue")["entries"]] == [ids[2], ids[1]]
        assert len(page.get("/queue?all=true")["entries"]) == 3
        assert page.post(f"/queue/{ids[0]}/retry").json["status"] == "queued"
        assert page.post("/queue/resume").json == {"paused": False, "changed": True, "said": AUTO_START_IS_OFF}

    def test_the_story_of_an_entry(self, page: Dashboard, still_team: StillTeam) -> None:
        project = still_team.bench.folder / "other"
        still_team.bench.project("other")
        added = entries.add(
            still_team.db, [entries.NewEntry(project / "spec.md", SPEC, project)], now=host.now_ms()
        ).entries[0]
        attempt = entries.claim(still_team.db, now=host.now_ms(), max_concurrent=1)
        assert attempt
        found = page.get(f"/queue/{added.id}")
        assert found["spec_text"] == SPEC and [one["number"] for one in found["story"]] == [1]


AUTO_START_IS_OFF = "the scheduler is not running, and auto_start is off: start it with scheduler.py --daemon"


def test_figures_for_prometheus(page: Dashboard, still_team: StillTeam) -> None:
    text = page.ask("/metrics").body.decode()
    assert "# TYPE tmux_orchestrator_agents gauge" in text
    assert 'tmux_orchestrator_agents{session="webapp-impl",state="starting"} 4' in text
    assert f"tmux_orchestrator_events_total {store.newest_event(still_team.db)}" in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_the_pages_load_what_they_name(page: Dashboard) -> None:
    for path in ("/", "/login"):
        text = page.ask(path).body.decode()
        names = [part.partition('"')[0] for part in text.replace("src=", "href=").split('href="')[1:]]
        assert [name for name in names if name.startswith("/") and page.ask(name).status != 200] == []
        assert "<style" not in text and "style=" not in text and "onclick" not in text


def test_a_store_that_cannot_be_read_is_told(page: Dashboard, still_team: StillTeam) -> None:
    store_path = still_team.bench.home / "orchestrator.db"
    store_path.rename(still_team.bench.home / "elsewhere.db")
    store_path.mkdir()
    answer = page.ask("/api/v1/orchestrations")
    assert answer.status == 503 and "the store" in json.loads(answer.body)["error"]["sentence"]
