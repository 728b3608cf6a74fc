"""CLI Agent Orchestrator, as benchmarks compare with it, brings a message to the real Claude Code, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import alternatives, machine, ways
from benchmarks.figures import Alternative
from benchmarks.teams import launch
from lib.errors import NotFound
from lib.probing.model import ModelServer
from tests.conftest import wait_for

pytestmark = pytest.mark.claude_code


@pytest.mark.long
def test_a_message_by_its_inbox_is_read_by_the_agent_that_it_has_launched(
    claude_binary: Path, model_server: ModelServer
) -> None:
    try:
        alternatives.interpreter("cao_server.py")
    except NotFound as reason:
        pytest.skip(reason.sentence)
    missing: list[Alternative] = []
    with machine.claude(claude_binary, model_server.url, settings="permission_mode: default\n") as made:
        launch(made, "developer", agent="claude")
        with ways.by_cao(made, missing) as (way,):
            start, text = way.seat.size(), "Please look at the login page."
            way.send(text)
            wait_for(lambda: text in way.seat.read_since(start), "the message in the transcript")
            wait_for(lambda: way.has_told(text), "its own word for it")
    assert missing == []
