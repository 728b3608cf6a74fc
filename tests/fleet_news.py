"""What is written of a fleet's entries, heard beside the hosts: each record as the server has stored it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, wait_for
from tests.fleet_machines import Host

_HEARS = """
import asyncio, json, sys
from pathlib import Path
from lib.config import FleetSettings
from lib.errors import OrchestratorError
from lib.fleet import connection

home, url, name, path = sys.argv[1:]

async def hear(file):
    async def keep(message):
        key = message.subject.rpartition(".")[2]
        file.write(json.dumps([key, json.loads(message.data)]) + "\\n")
        file.flush()

    while True:
        try:
            made = await connection.connect(FleetSettings(url=url, host=name), Path(home))
        except OrchestratorError:
            await asyncio.sleep(0.2)
            continue
        await made.nc.subscribe("fleet.news.entries.*", cb=keep)
        await made.nc.flush()
        Path(path + ".hears").touch()
        await made.lost.wait()

with open(path, "a", encoding="utf-8") as file:
    asyncio.run(hear(file))
"""


_COUNTS = """
import asyncio, sys
from pathlib import Path
from lib.config import FleetSettings
from lib.fleet import connection, permissions

async def count(home, url, name):
    made = await connection.connect(FleetSettings(url=url, host=name), Path(home))
    print((await made.js.stream_info(permissions.QUEUE)).state.messages)
    await made.close()

asyncio.run(count(*sys.argv[1:]))
"""


@dataclass
class News:
    """All that was heard."""

    path: Path
    #: The words that run a program as the host does, by its source.
    runs: Sequence[str]
    #: What each of them is told: the state home, the server, the host's name.
    told: Sequence[str]

    def waiting(self) -> int:
        """How many messages the fleet's queue holds."""
        words = [*self.runs, _COUNTS, *self.told]
        return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    def of(self, entry: str) -> list[dict[str, Any]]:
        """The records of an entry, in the order in which they were written."""
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [record for key, record in lines if key == entry]


@contextlib.contextmanager
def listening(host: Host, url: str, *inside: str) -> Iterator[News]:
    """Hear as a host does, from a process of its own; what is written while the server is away is not heard."""
    path = host.bench.folder / "news"
    runs, told = [*inside, sys.executable, "-c"], [str(host.bench.home), url, host.name]
    process = subprocess.Popen([*runs, _HEARS, *told, str(path)], cwd=ROOT)
    try:
        wait_for(lambda: path.with_name("news.hears").exists(), "somebody to listen")
        yield News(path, runs, told)
    finally:
        process.kill()
        process.wait()
