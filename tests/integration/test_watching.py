"""`credit_management/`: what it shows, its exit codes, and when it does the scheduler's part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lib import agents, host, limits
from lib.config import LimitSettings
from lib.models import Agent, LimitKind, LimitSource, Refusal
from tests.agents import a_team
from tests.conftest import Bench

MONITOR, HEALTH = "credit_management/credit_monitor.py", "credit_management/check_agent_health.sh"
MINUTE = 60_000


@dataclass
class Shown:
    """A team of two of whom nothing runs, in the state home of a bench."""

    bench: Bench
    db: Any
    team: list[Agent]

    def refuse(self, *, resets_in_minutes: float, kind: LimitKind = LimitKind.FIVE_HOUR) -> None:
        now = host.now_ms()
        refusal = Refusal(kind, "You've hit your limit", now + round(resets_in_minutes * MINUTE))
        limits.refused(self.db, self.team[1], refusal, LimitSource.HOOK, at=now - 600 * MINUTE, terms=LimitSettings())

    def limit(self) -> dict[str, Any]:
        return self.bench.rows("SELECT * FROM limits")[0]


@pytest.fixture
def shown(bench: Bench) -> Iterator[Shown]:
    db = bench.db()
    yield Shown(bench, db, a_team(db, "orchestrator", "developer", home=bench.folder))
    db.close()


class TestHealth:
    def test_all_is_well(self, shown: Shown) -> None:
        done = shown.bench.ok(HEALTH)
        assert done.out.splitlines()[0].split() == ["agent", "state", "context", "limit"]
        assert "webapp-impl:developer" in done.out
        assert shown.bench.ok(HEALTH, "--show-resets").out.endswith("no limit is in force\n")

    def test_somebody_is_limited(self, shown: Shown) -> None:
        shown.refuse(resets_in_minutes=131)
        done = shown.bench.door(HEALTH, "webapp-impl", "--show-resets")
        assert done.code == 5
        assert "limited until " in done.out and ", in 2 h 1" in done.out
        assert "five-hour limit of the account of " in done.out and "You've hit your limit" in done.out
        _, developer = shown.bench.door(HEALTH, "--json").json["agents"]
        assert developer["held"].startswith("limited until ") and developer["until"] == shown.limit()["resets_at"]

    def test_how_much_of_its_context_an_agent_has_used(self, shown: Shown) -> None:
        agent = shown.team[0]
        path = agent.config_dir / "projects" / "x" / f"{agent.conversation_id}.jsonl"
        path.parent.mkdir(parents=True)
        usage = {
            "input_tokens": 10,
            "cache_read_input_tokens": 49_000,
            "output_tokens": 990,
            "tier": "x",
        }
        lines = [
            json.dumps({"type": "assistant", "message": {"model": "some-model", "usage": usage}}),
            json.dumps({"type": "assistant", "isApiErrorMessage": True, "message": {"usage": {"input_tokens": 0}}}),
            '{"type": "assis',
        ]
        path.write_text("\n".join(lines))
        assert " 25 %" in shown.bench.ok(HEALTH).out
        path.write_text(lines[0].replace("49000", "249000"))
        assert " 25 %" in shown.bench.ok(HEALTH).out, "it takes a million, or could not have taken so much"

    def test_a_session_that_is_none(self, shown: Shown) -> None:
        assert shown.bench.door(HEALTH, "nothing-impl").code == 3
        assert shown.bench.door(MONITOR, "--once", "--sessions", "webapp-impl, nothing-impl").code == 3
        assert shown.bench.door(MONITOR, "webapp-impl").code == 2

    def test_no_team(self, bench: Bench) -> None:
        assert bench.ok(HEALTH).out == "no team is running\n"


class TestMonitor:
    def test_without_being_told_to_it_only_shows(self, shown: Shown) -> None:
        shown.refuse(resets_in_minutes=-2)
        shown.bench.ok(MONITOR, "--once")
        assert shown.limit()["over_at"] is None

    def test_it_does_the_schedulers_part_while_that_does_not_run(self, shown: Shown) -> None:
        shown.refuse(resets_in_minutes=-2)
        shown.bench.ok(MONITOR, "--once", "--auto-resume")
        assert shown.limit()["over_at"], "nobody is there who waits for it"

    def test_it_leaves_that_to_a_scheduler_that_runs(self, shown: Shown) -> None:
        shown.refuse(resets_in_minutes=-2)
        with host.lock(shown.bench.home / "scheduler.lock"):
            data = shown.bench.ok(MONITOR, "--once", "--auto-resume", "--json", "--sessions", "webapp-impl").json
        assert shown.limit()["over_at"] is None
        assert [limit["kind"] for limit in data["limits"]] == ["five_hour"]

    def test_what_a_hook_has_left_is_taken(self, shown: Shown) -> None:
        agent = agents.start_epoch(shown.db, shown.team[0].id, conversation_id="c")
        spool = shown.bench.home / "spool"
        spool.mkdir()
        said = {
            "hook_event_name": "StopFailure",
            "error": "rate_limit",
            "last_assistant_message": "You've hit your limit",
        }
        name = f"{host.now_ms() * 1_000_000:020d}-1-{agent.id}-{agent.epoch}.json"
        (spool / name).write_text(json.dumps(said))
        done = shown.bench.ok(MONITOR, "--once")
        assert "nobody knows until when; looked at again at" in done.out
        assert list(spool.iterdir()) == []
