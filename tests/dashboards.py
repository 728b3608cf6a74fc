"""A dashboard that runs, and browsers and programs that ask it; each request is one connection of plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from tests.conftest import ROOT, Bench

API = "/api/v1"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return str(self.json["error"]["sentence"])

    @property
    def cookie(self) -> str:
        return str(self.headers.get("Set-Cookie", "")).partition(";")[0]


@dataclass
class Dashboard:
    """A server process, and a client whose headers can be anything."""

    process: subprocess.Popen[str]
    url: str
    port: int
    token: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        data: object = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request. `data` is sent as JSON; headers come over those that the client always sends."""
        sent = {"Host": f"localhost:{self.port}", **self.headers, **(headers or {})}
        if data is not None:
            body = json.dumps(data).encode()
            sent.setdefault("Content-Type", "application/json")
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(link):
            link.request(method, path, body=body, headers=sent)
            answer = link.getresponse()
            is_endless = answer.getheader("Content-Type", "").startswith("text/event-stream")
            return Answer(answer.status, answer.headers, b"" if is_endless else answer.read())

    def get(self, path: str) -> Any:
        """What the API answers to a look that has to succeed."""
        answer = self.ask(f"{API}{path}")
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, data: object = None, **headers: str) -> Answer:
        """A change, as our own pages make it."""
        return self.ask(f"{API}{path}", method="POST", data={} if data is None else data, headers=headers)

    def visit(self) -> None:
        """Be a browser from now on: keep its cookie, and send what its pages send."""
        answer = self.ask(f"{API}/browser")
        self.headers |= {"Cookie": answer.cookie, "X-CSRF-Token": answer.json["csrf"]}

    @contextlib.contextmanager
    def listening(self, **headers: str) -> Iterator[Stream]:
        """An open page."""
        with contextlib.closing(Stream(self.port, {**self.headers, **headers})) as stream:
            yield stream

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


class Stream:
    """Server-sent events, as a browser takes them."""

    def __init__(self, port: int, headers: Mapping[str, str], path: str = f"{API}/stream") -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._link.request("GET", path, headers={"Host": f"localhost:{port}", **headers})
        self.answer = self._link.getresponse()
        self.last_id = ""

    def frames(self) -> Iterator[tuple[str, Any]]:
        """Each event with its data, as it comes."""
        name, data = "", ""
        for raw in self.answer:
            line = raw.decode().rstrip("\n")
            if line.startswith("id: "):
                self.last_id = line[4:]
            elif line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and name:
                yield name, json.loads(data)
                name, data = "", ""

    def until(self, wanted: str, **values: object) -> Any:
        """The data of the next event of this kind that holds these values."""
        for name, data in self.frames():
            if name == wanted and all(data.get(key) == value for key, value in values.items()):
                return data
        raise AssertionError(f"the stream ended before {wanted} {values}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._link.sock:
                self._link.sock.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self._link.close()


@contextlib.contextmanager
def running(bench: Bench, *words: str) -> Iterator[Dashboard]:
    """A dashboard at a free port of this machine."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "monitoring_dashboard.py"), "--port", "0", "--json", *words],
        env=bench.environment,
        cwd=bench.folder,
        stdout=subprocess.PIPE,
        stderr=(bench.folder / "dashboard.err").open("a"),
        text=True,
    )
    try:
        assert process.stdout
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, f"it ended: {(bench.folder / 'dashboard.err').read_text()}"
            said += line
        found = json.loads(said)
        url = str(found["url"]).partition("/login")[0]
        made = Dashboard(process, url, int(url.rpartition(":")[2]), found["token"])
        wait_until_it_answers(made)
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=15)


def wait_until_it_answers(dashboard: Dashboard) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            dashboard.ask("/healthz")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
