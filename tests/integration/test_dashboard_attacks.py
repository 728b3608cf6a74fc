"""Each attack on the dashboard, tried against the server that runs; beside each the request that is let in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from lib import host, messages
from lib.front.web.access import MOST_WRONG
from lib.models import MessageKind
from tests.conftest import SPEC, Bench, commit_all
from tests.dashboards import API, Dashboard, running
from tests.integration.still_team import StillTeam, still_team

__all__ = ["still_team"]


@pytest.fixture
def local(still_team: StillTeam) -> Iterator[Dashboard]:
    """The dashboard as it is by default."""
    with running(still_team.bench) as found:
        yield found


@pytest.fixture
def shared(still_team: StillTeam) -> Iterator[Dashboard]:
    """The dashboard that other machines reach."""
    with running(still_team.bench, "--host", "0.0.0.0") as found:
        yield found


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


LOOKS = ("/", f"{API}/orchestrations", f"{API}/stream", f"{API}/openapi.json", "/metrics")


class TestByAForeignName:
    """DNS rebinding: a site's own name is pointed at 127.0.0.1, and the browser takes the dashboard for that site."""

    def test_nothing_is_answered(self, local: Dashboard) -> None:
        names = ("evil.example", "evil.example:5000", "localhost.evil.example", "", "[::1", "0x7f.1", "localhost@evil")
        paths = (*LOOKS, "/static/app.js", "/healthz", "/login")
        found = {(name, path): local.ask(path, headers={"Host": name}).status for name in names for path in paths}
        assert {asked: status for asked, status in found.items() if status not in (400, 421)} == {}

    def test_its_own_names_are_answered(self, local: Dashboard) -> None:
        for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080", "localhost."):
            assert local.ask(f"{API}/host", headers={"Host": name}).status == 200, name

    def test_two_names_are_one_too_many(self, local: Dashboard) -> None:
        with socket.create_connection(("127.0.0.1", local.port), timeout=10) as link:
            link.sendall(
                b"GET /api/v1/host HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            said = b"".join(iter(lambda: link.recv(65536), b""))
        assert said.split(b" ", 2)[1] in (b"400", b"421")

    def test_a_forwarded_name_counts_for_nothing(self, local: Dashboard) -> None:
        headers = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "Forwarded": "host=localhost"}
        assert local.ask(f"{API}/host", headers=headers).status == 421

    def test_a_name_of_the_settings_is_answered(self, still_team: StillTeam) -> None:
        config = Path(still_team.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        config.write_text("auto_start: false\ndashboard:\n  hosts: [team.example]\n")
        with running(still_team.bench) as found:
            assert found.ask(f"{API}/host", headers={"Host": "team.example"}).status == 200


class TestByAnotherSite:
    """CSRF: another site has the browser of a person ask here, with the person's cookies."""

    FOREIGN = (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},  # another program of this machine: browsers call it the same site
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    )

    def test_its_scripts_read_nothing(self, local: Dashboard) -> None:
        local.visit()
        for headers in self.FOREIGN:
            for path in (f"{API}/orchestrations", f"{API}/browser", f"{API}/stream"):
                answer = local.ask(path, headers=headers)
                assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers, headers

    def test_its_forms_change_nothing(self, local: Dashboard) -> None:
        local.visit()
        assert [local.post("/queue/pause", **headers).status for headers in self.FOREIGN] == [403] * len(self.FOREIGN)
        assert local.get("/queue")["paused_at"] is None

    def test_a_link_may_lead_to_the_page(self, local: Dashboard) -> None:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert local.ask("/", headers=headers).status == 200

    def test_a_change_needs_what_only_our_pages_read(self, local: Dashboard) -> None:
        local.visit()
        for token in ("", "0" * 64, "\xe9", local.headers["X-CSRF-Token"][:-1]):
            assert local.post("/queue/pause", **{"X-CSRF-Token": token}).status == 403, token
        del local.headers["X-CSRF-Token"]
        assert local.post("/queue/pause").status == 403
        assert local.get("/queue")["paused_at"] is None

    def test_the_token_of_another_session_is_none(self, local: Dashboard) -> None:
        local.visit()
        other = local.ask(f"{API}/browser", headers={"Cookie": ""})
        assert local.post("/queue/pause", **{"X-CSRF-Token": other.json["csrf"]}).status == 403
        assert local.post("/queue/pause").status == 200

    def test_what_a_form_can_send_is_no_body(self, local: Dashboard, still_team: StillTeam) -> None:
        local.visit()
        path = f"{API}/agents/{still_team.agent('developer').id}/messages"
        for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""):
            answer = local.ask(path, method="POST", body=b'{"text":"x"}', headers={"Content-Type": kind})
            assert answer.status == 400, kind
        assert messages.find(still_team.db, limit=1) == []

    def test_looks_change_nothing_and_changes_are_no_looks(self, local: Dashboard, still_team: StillTeam) -> None:
        local.visit()
        for path in ("/queue/pause", f"/orchestrations/{still_team.id}/stop"):
            answer = local.ask(f"{API}{path}")
            assert answer.status in (400, 404, 405)
        assert local.get("/orchestrations")["orchestrations"][0]["status"] == "running"

    def test_nothing_is_shown(self, shared: Dashboard) -> None:
        for path in LOOKS:
            answer = shared.ask(path)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path

    def test_a_browser_is_led_to_where_it_asks(self, shared: Dashboard) -> None:
        answer = shared.ask("/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert (answer.status, answer.headers["Location"]) == (302, "/login")
        assert shared.ask("/login").status == shared.ask("/static/login.js").status == 200

    def test_nothing_is_changed(self, shared: Dashboard) -> None:
        assert shared.post("/queue/pause").status == 401

    def test_the_state_of_the_server_tells_nothing_of_teams(self, shared: Dashboard) -> None:
        assert shared.ask("/healthz").json == {"status": "ok"}

    def test_a_program_shows_it_with_each_request(self, shared: Dashboard) -> None:
        assert shared.ask(f"{API}/host", headers=bearer(shared.token)).status == 200
        assert shared.post("/queue/pause", **bearer(shared.token)).status == 200

    def test_a_browser_shows_it_once(self, shared: Dashboard) -> None:
        body = f"token={shared.token}".encode()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = shared.ask("/login", method="POST", body=body, headers=form)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        about = answer.headers["Set-Cookie"]
        assert "HttpOnly" in about and "SameSite=Strict" in about
        shared.headers["Cookie"] = answer.cookie
        csrf = shared.get("/browser")["csrf"]
        assert shared.post("/queue/pause").status == 403
        assert shared.post("/queue/pause", **{"X-CSRF-Token": csrf}).status == 200
        out = shared.ask("/logout", method="POST")
        assert out.status == 303 and "Max-Age=0" in out.headers["Set-Cookie"]

    def test_a_visitor_of_before_is_no_member(self, still_team: StillTeam) -> None:
        with running(still_team.bench) as local:
            local.visit()
            cookie = local.headers["Cookie"]
        with running(still_team.bench, "--token", "--port", str(local.port)) as shared:
            shared.headers["Cookie"] = cookie
            assert shared.ask(f"{API}/host").status == 401

    def test_a_made_up_cookie_opens_nothing(self, shared: Dashboard) -> None:
        for made_up in ("member:x", "member:x.y.z", "a.b", "..", "x" * 5000):
            cookie = f"tmux-orchestrator-{shared.port}={made_up}"
            assert shared.ask(f"{API}/host", headers={"Cookie": cookie}).status in (400, 401), made_up

    def test_a_cookie_that_was_changed_opens_nothing(self, still_team: StillTeam) -> None:
        with running(still_team.bench, "--token") as shared:
            visitor = shared.ask("/login").cookie or shared.ask(f"{API}/browser", headers=bearer(shared.token)).cookie
            assert "visitor:" in visitor
            answer = shared.ask(f"{API}/host", headers={"Cookie": visitor.replace("visitor:", "member:")})
            assert answer.status == 401

    def test_a_new_token_ends_the_sessions_of_a_server_that_runs(self, still_team: StillTeam) -> None:
        with running(still_team.bench, "--token") as first:
            body, form = f"token={first.token}".encode(), {"Content-Type": "application/x-www-form-urlencoded"}
            first.headers["Cookie"] = first.ask("/login", method="POST", body=body, headers=form).cookie
            with first.listening() as stream:
                stream.until("here")
                with running(still_team.bench, "--token", "--new-token") as second:
                    assert first.ask(f"{API}/host").status == 401
                    assert first.ask(f"{API}/host", headers=bearer(first.token)).status == 401
                    assert first.ask(f"{API}/host", headers=bearer(second.token)).status == 200
                    for _ in stream.frames():  # an open page ends too: else this waits until its socket gives up
                        pass

    def test_a_new_token_ends_what_the_old_one_opened(self, still_team: StillTeam) -> None:
        with running(still_team.bench, "--token") as shared:
            old = shared.token
            body, form = f"token={old}".encode(), {"Content-Type": "application/x-www-form-urlencoded"}
            cookie = shared.ask("/login", method="POST", body=body, headers=form).cookie
            assert shared.ask(f"{API}/host", headers={"Cookie": cookie}).status == 200
        with running(still_team.bench, "--token", "--new-token", "--port", str(shared.port)) as again:
            assert again.ask(f"{API}/host", headers={"Cookie": cookie}).status == 401
            assert again.ask(f"{API}/host", headers=bearer(old)).status == 401
            assert again.ask(f"{API}/host", headers=bearer(again.token)).status == 200


class TestByTryingTokens:
    def test_an_address_is_locked_out(self, shared: Dashboard) -> None:
        for number in range(MOST_WRONG):
            assert shared.ask(f"{API}/host", headers=bearer(f"wrong {number}")).status == 401
        locked = shared.ask(f"{API}/host", headers=bearer(shared.token))
        assert locked.status == 429 and 0 < int(locked.headers["Retry-After"]) <= 900
        body, form = f"token={shared.token}".encode(), {"Content-Type": "application/x-www-form-urlencoded"}
        assert shared.ask("/login", method="POST", body=body, headers=form).status == 429

    def test_a_forwarded_address_counts_for_nothing(self, shared: Dashboard) -> None:
        for number in range(MOST_WRONG):
            shared.ask(f"{API}/host", headers={**bearer("wrong"), "X-Forwarded-For": f"203.0.113.{number}"})
        headers = {**bearer(shared.token), "X-Forwarded-For": "203.0.113.99"}
        assert shared.ask(f"{API}/host", headers=headers).status == 429

    def test_who_is_in_stays_in(self, shared: Dashboard) -> None:
        body, form = f"token={shared.token}".encode(), {"Content-Type": "application/x-www-form-urlencoded"}
        cookie = shared.ask("/login", method="POST", body=body, headers=form).cookie
        for _ in range(MOST_WRONG):
            shared.ask(f"{API}/host", headers=bearer("wrong"))
        assert shared.ask(f"{API}/host", headers={"Cookie": cookie}).status == 200


class TestByPaths:
    """No path of a browser leads out of the folders that are allowed."""

    @pytest.fixture
    def page(self, local: Dashboard) -> Dashboard:
        local.visit()
        return local

    def outside(self, bench: Bench) -> Path:
        place = bench.folder / "elsewhere"
        place.mkdir()
        (place / "secret.md").write_text(f"{SPEC}\nhunter2\n")
        return place

    def test_a_spec_outside_is_refused(self, page: Dashboard, still_team: StillTeam) -> None:
        outside, project = self.outside(still_team.bench), still_team.bench.folder / "webapp"
        (project / "link.md").symlink_to(outside / "secret.md")
        (project / "folder").symlink_to(outside)
        for path in (
            *(f"{outside}/secret.md", f"{project}/../elsewhere/secret.md", f"{project}/link.md"),
            *(f"{project}/folder/secret.md", "/etc/passwd", "/proc/self/environ", "spec.md", "~/spec.md"),
            *(f"{project}/none.md", f"{project}/spec.md\0.txt", f"{project}/spec.md/.."),
        ):
            answer = page.post("/queue", {"path": path, "project": str(project)})
            assert answer.status in (400, 403) and b"hunter2" not in answer.body, path
        assert page.get("/queue")["entries"] == []

    def test_a_project_outside_is_refused(self, page: Dashboard, still_team: StillTeam) -> None:
        outside = still_team.bench.project("elsewhere")
        (still_team.bench.folder / "webapp" / "inner").symlink_to(outside)
        for named in (outside, still_team.bench.folder / "webapp" / "inner", still_team.bench.folder):
            assert page.post("/queue/text", {"text": SPEC, "project": str(named)}).status == 403

    def test_what_is_there_and_what_is_not_sound_the_same(self, page: Dashboard, still_team: StillTeam) -> None:
        project = str(still_team.bench.folder / "webapp")
        there = page.post("/queue", {"path": "/etc/passwd", "project": project}).sentence
        not_there = page.post("/queue", {"path": "/etc/no-such", "project": project}).sentence
        assert there.replace("/etc/passwd", "") == not_there.replace("/etc/no-such", "")

    def test_a_folder_of_the_settings_is_allowed(self, still_team: StillTeam) -> None:
        outside = still_team.bench.project("elsewhere")
        commit_all(outside, "More")
        config = Path(still_team.bench.environment["HOME"]) / ".config" / "tmux-orchestrator" / "config.yaml"
        config.write_text(f"auto_start: false\ndashboard:\n  roots: [{outside}]\n")
        with running(still_team.bench) as found:
            found.visit()
            assert found.post("/queue", {"path": f"{outside}/spec.md", "project": str(outside)}).status == 201

    def test_the_name_of_a_text_leads_nowhere(self, page: Dashboard, still_team: StillTeam) -> None:
        project, sent = str(still_team.bench.folder / "webapp"), (still_team.bench.home / "queue" / "sent").resolve()
        for name in ("../../../orchestrator.db", "/etc/passwd", "..", ".", "", "a\nb", "%2e%2e/x", "x" * 200):
            answer = page.post("/queue/text", {"text": SPEC, "name": name, "project": project})
            assert answer.status == 201, name
            assert Path(answer.json["entries"][0]["spec"]).resolve().is_relative_to(sent), name

    def test_static_files_are_those_of_their_folder(self, local: Dashboard) -> None:
        for path in ("../page.html", "..%2f..%2f..%2fREADME.md", "%2e%2e/page.html", "//etc/passwd", "....//page.html"):
            assert local.ask(f"/static/{path}").status in (400, 404), path


class TestByWhatAgentsSay:
    """What agents and specs say is text: no page takes it for markup, and the policy runs nothing that got in."""

    def test_no_answer_is_a_page(self, local: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        evil = "<img src=x onerror=alert(1)>"
        sent = messages.queue(still_team.db, agent, evil, sender=evil, kind=MessageKind.MESSAGE, now=host.now_ms())
        for path in (f"/messages/{sent.id}", f"/agents/{agent.id}", f"/orchestrations/{still_team.id}/messages"):
            answer = local.ask(f"{API}{path}")
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert evil not in local.ask("/").body.decode()
        bad = local.ask(f"{API}/{evil.replace(' ', '%20')}")
        assert bad.status == 404 and bad.headers["Content-Type"] == "application/json"

    def test_an_event_stays_one_event(self, local: Dashboard, still_team: StillTeam) -> None:
        agent = still_team.agent("developer")
        with local.listening() as stream:
            stream.until("here")
            text = "one\n\nevent: happened\ndata: {}\n\nid: 99999\r\u2028\x0b"
            sent = messages.queue(still_team.db, agent, text, sender="tester\n\nid: 7", kind=MessageKind.MESSAGE, now=1)
            messages.confirm(still_team.db, agent, sent, now=2)
            told = stream.until("happened", kind="message.acknowledged")
            assert told["message"] == sent.id and int(stream.last_id) == told["id"]

    def test_figures_stay_figures(self, local: Dashboard, still_team: StillTeam) -> None:
        evil = 'x"} 7\nevil 1'
        still_team.db.execute("UPDATE orchestrations SET session = ?", (evil,))
        still_team.db.execute("UPDATE agents SET session = ?", (evil,))
        lines = local.ask("/metrics").body.decode().splitlines()
        assert 'tmux_orchestrator_messages_waiting{session="x\\"} 7\\nevil 1"} 0' in lines
        assert not any(line.startswith("evil") for line in lines)

    def test_the_policy_is_on_every_answer(self, local: Dashboard) -> None:
        with local.listening() as stream:
            found: list[Message] = [stream.answer.headers]
        paths = (*LOOKS, "/login", "/static/app.js", f"{API}/none")
        found += [local.ask(path).headers for path in paths if not path.endswith("stream")]
        found.append(local.ask("/", headers={"Host": "evil.example"}).headers)
        for headers in found:
            policy = headers["Content-Security-Policy"]
            for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
                assert part in policy
            assert "unsafe" not in policy and "*" not in policy
            assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "same-origin")


class TestByBadRequests:
    def test_a_body_that_is_none_is_refused(self, local: Dashboard, still_team: StillTeam) -> None:
        local.visit()
        path, kind = f"{API}/agents/{still_team.agent('developer').id}/messages", {"Content-Type": "application/json"}
        for body in (b"{", b"[1", b"\xff", b'{"text": "\\ud800"}', b"[" * 100_000, b"NaN", b'"x"', b"1" * 5000):
            answer = local.ask(path, method="POST", body=body, headers=kind)
            assert answer.status == 400 and answer.sentence, body[:20]

    def test_a_body_that_is_too_large_is_not_read(self, local: Dashboard, still_team: StillTeam) -> None:
        local.visit()
        with socket.create_connection(("127.0.0.1", local.port), timeout=10) as link:
            head = f"POST {API}/queue HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
            link.sendall(head.encode() + b"x" * 1000)
            assert link.recv(100).split(b" ", 2)[1] == b"413"

    def test_an_id_that_can_be_none_is_refused(self, local: Dashboard) -> None:
        for path in ("/agents/99999999999999999999", "/agents/-1", "/agents/0", "/orchestrations/a%00b"):
            assert local.ask(f"{API}{path}").status in (400, 404), path

    def test_methods_that_are_none(self, local: Dashboard) -> None:
        local.visit()
        for method in ("PUT", "DELETE", "PATCH"):
            answer = local.ask(f"{API}/queue", method=method)
            assert answer.status == 405 and {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
        assert local.ask(f"{API}/queue", method="TRACE").status in (400, 403, 405, 501)


class TestReadOnly:
    def test_it_refuses_every_change(self, still_team: StillTeam) -> None:
        with running(still_team.bench, "--read-only") as found:
            found.visit()
            document = found.get("/openapi.json")
            changes = [path for path, methods in document["paths"].items() if "post" in methods]
            assert len(changes) > 10
            values = {"agent": "1", "message": "1", "entry": "1", "authorization": "1", "orchestration": still_team.id}
            for path in changes:
                answer = found.ask(path.format(**values), method="POST", data={})
                assert (answer.status, answer.sentence) == (403, "this dashboard only shows")
            assert found.get("/browser")["read_only"] is True
            assert found.get("/orchestrations")["orchestrations"][0]["status"] == "running"

    def test_a_token_is_no_way_around_it(self, still_team: StillTeam) -> None:
        with running(still_team.bench, "--read-only", "--token") as found:
            assert found.post("/queue/pause", **bearer(found.token)).status == 403
            assert found.ask(f"{API}/queue", headers=bearer(found.token)).status == 200


def test_no_answer_names_the_server(local: Dashboard) -> None:
    for path in ("/", f"{API}/host", "/none"):
        assert "Server" not in local.ask(path).headers


def test_only_this_machine_reaches_it_by_default(local: Dashboard) -> None:
    with pytest.raises(OSError), socket.create_connection((_own_address(), local.port), timeout=5):
        pass


def _own_address() -> str:
    """An address of this machine that is not its loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])
