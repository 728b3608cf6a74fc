"""What a look at a hundred agents costs, and what the dashboard does to 20 open pages and to the machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.machine import Machine, rehearsal
from benchmarks.teams import Counts
from lib import agents, host, messages, orchestrations, status, store
from lib.config import ROOT
from lib.errors import NotFound
from lib.looks import ASK_AGAIN_MS, Looks
from lib.models import Agent, GitMode, MessageKind, Orchestration, OrchestrationStatus, Program

TEAMS, MEMBERS = 20, 5
#: How long the teams have been there.
AGE_MS = 3_600_000
PAGES = 20
MESSAGES = 20
#: How much of a conversation lies in each transcript.
TRANSCRIPT_BYTES = 300_000
#: While the machine is watched at work, so many events happen in a second.
EVENTS_PER_SECOND = 5


def dashboard(counts: Counts) -> list[Figure]:
    """The snapshot of 100 agents; then the server, with pages open and nothing going on, and with events.

    Git is asked in each of 20 repositories.
    """
    with rehearsal() as machine, hundred_agents(machine):
        looked = _looks(machine, counts.looks)
        with serving(machine) as server, _pages(server.port) as pages:
            opened = _requests(server.port, counts.looks)
            quiet = _watch(server, counts.idle_seconds)
            late = _events(machine, pages, counts.sends)
            with _busy(machine):
                busy = _watch(server, counts.idle_seconds)
            memory = server.memory()
    many = f"{PAGES} pages, {TEAMS * MEMBERS} agents"
    return [
        *looked,
        *opened,
        Figure(f"dashboard, {many}: from an event's commit until a page has it", "ms", tuple(late), target=300),
        Figure(f"dashboard, {many}, nothing happens: share of one core", "%", (quiet,), target=20),
        Figure(
            f"dashboard, {many}, {EVENTS_PER_SECOND} events a second: share of one core",
            "%",
            (busy,),
            target=20,
            headline=True,
        ),
        Figure(f"dashboard, {many}: memory (RSS)", "MB", (memory,), headline=True),
    ]


# -- the machine --


@contextlib.contextmanager
def hundred_agents(machine: Machine) -> Iterator[None]:
    """Twenty teams of five that live and do nothing, with repositories, transcripts and messages, for the block."""
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(TEAMS * MEMBERS)]
    db = machine.db()
    try:
        for number in range(TEAMS):
            _team(machine, db, number, sleepers[number * MEMBERS : (number + 1) * MEMBERS])
        yield
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def _team(machine: Machine, db: sqlite3.Connection, number: int, sleepers: list[subprocess.Popen[bytes]]) -> None:
    project, now = machine.folder / f"project{number}", host.now_ms()
    project.mkdir()
    identity = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
    machine.run("git", "-C", str(project), "init", "-q", "-b", "main")
    machine.run("git", "-C", str(project), *identity, "commit", "-q", "--allow-empty", "-m", "Start")
    _, head = machine.run("git", "-C", str(project), "rev-parse", "HEAD")
    found = _orchestration(machine, project, number, head.decode().strip(), now)
    with store.writing(db):
        orchestrations.add(db, found)
        for place, sleeper in enumerate(sleepers):
            branch = f"{found.branches}/role{place}"
            machine.run("git", "-C", str(project), "branch", branch)
            new = agents.NewAgent(f"role{place}", place, project, branch, str(uuid.uuid4()))
            agent_id = agents.add(db, found, new)
            process = host.process(sleeper.pid)
            assert process
            agents.started(db, agent_id, pane_id=f"%{number * MEMBERS + place}", process=process)
            _write_files(found.config_dir, agents.get(db, agent_id), sleeper.pid, process.started)
            for _ in range(MESSAGES):
                _arrived(db, agent_id, now)


def _orchestration(machine: Machine, project: Path, number: int, commit: str, now: int) -> Orchestration:
    return Orchestration(
        id=f"{number:06}",
        project=project,
        session=f"project{number}-impl",
        spec_path=Path("spec.md"),
        spec_title="Benchmark",
        spec_text="",
        status=OrchestrationStatus.RUNNING,
        program=Program.REHEARSAL,
        config_dir=machine.home / "rehearsal",
        starting_branch="main",
        starting_commit=commit,
        branches=f"orchestration/{number:06}-spec",
        git_mode=GitMode.LOCAL,
        messages_per_minute=10,
        unattended=False,
        outcome=None,
        created_at=now - AGE_MS,
        updated_at=now,
    )


def _write_files(config_dir: Path, agent: Agent, pid: int, started: int) -> None:
    """What Claude Code keeps of a session: its state, and its transcript."""
    sessions, folder = config_dir / "sessions", config_dir / "projects" / agent.role
    sessions.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    state = {"sessionId": agent.conversation_id, "status": "idle", "procStart": str(started), "statusUpdatedAt": 1}
    (sessions / f"{pid}.json").write_text(json.dumps(state))
    usage = {"input_tokens": 10, "cache_read_input_tokens": 50_000, "output_tokens": 200}
    entry = {"type": "assistant", "message": {"model": "m", "usage": usage, "content": [{"text": "x" * 1000}]}}
    line = json.dumps(entry) + "\n"
    (folder / f"{agent.conversation_id}.jsonl").write_text(line * (TRANSCRIPT_BYTES // len(line)))


def _arrived(db: sqlite3.Connection, agent_id: int, now: int) -> None:
    agent = agents.get(db, agent_id)
    sent = messages.queue(db, agent, "Look at the work.", sender="user", kind=MessageKind.MESSAGE, now=now)
    messages.pasting(db, sent, agent, now=now)
    messages.confirm(db, agent, sent, now=now)


# -- looks --


def _looks(machine: Machine, count: int) -> list[Figure]:
    db, looks = machine.db(), Looks()
    plain = [_ms(lambda: status.snapshot(db, now=host.now_ms())) for _ in range(count)]
    first = [_ms(lambda: status.snapshot(db, now=host.now_ms(), looks=Looks())) for _ in range(max(2, count // 5))]
    now = host.now_ms()
    status.snapshot(db, now=now, looks=looks)
    kept = [_ms(lambda: status.snapshot(db, now=now, looks=looks)) for _ in range(count)]
    late = now
    asked = []
    for _ in range(max(2, count // 5)):
        late += ASK_AGAIN_MS
        asked.append(_ms(lambda at=late: status.snapshot(db, now=at, looks=looks)))  # type: ignore[misc]
    return [
        Figure("status snapshot of 100 agents, from the store and session files", "ms", tuple(plain), target=30),
        Figure("the same with contexts and last commits, when they are looked for the first time", "ms", tuple(first)),
        Figure(
            "status of 100 agents with contexts and last commits, looked at again",
            "ms",
            tuple(kept),
            target=30,
            headline=True,
        ),
        Figure("the same, when git is asked again, every 3 s", "ms", tuple(asked)),
    ]


def _ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


# -- the server --


@dataclass
class _Server:
    process: psutil.Process
    port: int

    def seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        return float(self.process.memory_info().rss) / 1e6


@contextlib.contextmanager
def serving(machine: Machine) -> Iterator[_Server]:
    door = [str(ROOT / "monitoring_dashboard.py"), "--port", "0", "--json"]
    with subprocess.Popen(
        door, env=machine.environment, cwd=machine.folder, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout
            said = ""
            while not said.endswith("}\n"):
                line = child.stdout.readline()
                if not line:
                    raise NotFound("the dashboard has not started", hint="./setup.sh")
                said += line
            below = psutil.Process(child.pid)
            process = next((one for one in below.children(recursive=True) if "python" in one.name()), below)
            yield _Server(process, int(json.loads(said)["url"].rpartition(":")[2]))
            process.terminate()
        finally:
            child.terminate()


@dataclass
class _Page:
    """An open page: when it got each event."""

    link: http.client.HTTPConnection
    got: dict[int, float] = field(default_factory=dict)

    def read(self, answer: http.client.HTTPResponse) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in answer:
                if line.startswith(b"id: "):
                    self.got[int(line[4:])] = time.perf_counter()


@contextlib.contextmanager
def _pages(port: int) -> Iterator[list[_Page]]:
    pages = []
    for _ in range(PAGES):
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request("GET", "/api/v1/stream")
        page = _Page(link)
        threading.Thread(target=page.read, args=(link.getresponse(),), daemon=True).start()
        pages.append(page)
    time.sleep(3)  # what each gets at first is not what it costs to be open
    yield pages


def _requests(port: int, count: int) -> list[Figure]:
    found = {}
    for path in ("/", "/api/v1/orchestrations"):
        found[path] = tuple(_ms(lambda path=path: _get(port, path)) for _ in range(count))  # type: ignore[misc]
    return [
        Figure("dashboard, the page itself", "ms", found["/"]),
        Figure("dashboard, the API's answer with 100 agents", "ms", found["/api/v1/orchestrations"]),
    ]


def _get(port: int, path: str) -> None:
    link = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(link):
        link.request("GET", path)
        assert link.getresponse().read()


def _watch(server: _Server, seconds: float) -> float:
    before = server.seconds()
    time.sleep(seconds)
    return (server.seconds() - before) / seconds * 100


def _happen(db: sqlite3.Connection) -> tuple[int, float]:
    with store.writing(db):
        store.record(db, "pause.begun", now=host.now_ms(), orchestration="000000")
    return store.newest_event(db), time.perf_counter()


def _events(machine: Machine, pages: list[_Page], count: int) -> list[float]:
    """Milliseconds until each page had each event."""
    db, sent = machine.db(), []
    for _ in range(count):
        sent.append(_happen(db))
        time.sleep(0.37)  # no multiple of the time between two looks
    time.sleep(1)
    return [(page.got[number] - at) * 1000 for number, at in sent for page in pages]


@contextlib.contextmanager
def _busy(machine: Machine) -> Iterator[None]:
    over = threading.Event()

    def act() -> None:
        db = machine.db()
        while not over.wait(1 / EVENTS_PER_SECOND):
            _happen(db)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
