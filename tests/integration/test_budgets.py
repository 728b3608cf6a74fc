"""Budgets: told once, held by the one gate, paused after a grace, and open again; whoever is killed in between."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lib import agents, checkins, daemon, holds, host, limits, messages, orchestrations, store
from lib.config import BudgetSettings, LimitSettings, Settings
from lib.errors import NotFound, Usage
from lib.front.control.budget import token_count
from lib.judgement import forecasts
from lib.models import (
    Agent,
    Budget,
    BudgetPer,
    BudgetStatus,
    BudgetUnit,
    CatchUp,
    LimitKind,
    LimitSource,
    MessageKind,
    OrchestrationStatus,
    Priority,
    Refusal,
)
from lib.models import Usage as Used
from lib.spending import budgets, ledger, outlooks
from tests.agents import Unsent, a_team
from tests.conftest import Bench
from tests.transcripts import Transcript, answer, transcript_of

MINUTE_MS = 60_000
DAY_MS = 86_400_000
#: Noon by the clock on the wall: a day has no end near it.
NOON = round(datetime(2026, 11, 28, 12).timestamp() * 1000)
GRACE = 10.0


@dataclass
class Team:
    """An orchestrator and two others of whom nothing runs, and what they spend."""

    db: sqlite3.Connection
    members: dict[str, Agent]
    transcripts: dict[str, Transcript]
    watch: budgets.Watch
    now: int = NOON

    @property
    def id(self) -> str:
        return str(self.members["orchestrator"].orchestration_id)

    def spend(self, usd: float, role: str = "developer") -> None:
        """Have a role use input tokens for so many dollars, and have them counted."""
        self.transcripts[role].write(answer(Used(input=round(usd / 4 * 1_000_000)), at=self.now))
        ledger.count(self.db, agents.get(self.db, self.members[role].id), now=self.now)

    def beat(self) -> list[int]:
        return budgets.govern(self.db, self.watch, grace_minutes=GRACE, is_news=True, now=self.now)

    def later(self, minutes: float) -> None:
        self.now += round(minutes * MINUTE_MS)

    def set(
        self,
        amount: float,
        unit: BudgetUnit = BudgetUnit.USD,
        per: BudgetPer = BudgetPer.ORCHESTRATION,
        role: str | None = None,
    ) -> Budget:
        return budgets.add(self.db, self.id, amount, unit, per, role=role, now=self.now)

    def status(self, budget: Budget) -> BudgetStatus:
        return budgets.get(self.db, budget.id).status

    def team_status(self) -> OrchestrationStatus:
        return orchestrations.get(self.db, self.id).status

    def notices(self) -> list[str]:
        return [row["title"] for row in self.db.execute("SELECT title FROM notices WHERE kind = 'budget' ORDER BY id")]

    def events(self) -> list[str]:
        return [event.kind for event in store.events(self.db, orchestration=self.id) if "budget" in event.kind]

    def waiting(self, role: str) -> list[str]:
        return [one.body for one in messages.pending(self.db, self.members[role].id)]

    def why(self, role: str) -> str | None:
        hold = holds.of(self.db, self.members[role])
        return hold.why if hold else None


def a_team_in(folder: Path, db: sqlite3.Connection, name: str = "webapp") -> Team:
    members, transcripts = {}, {}
    for agent in a_team(db, "orchestrator", "developer", "tester", name=name, home=folder):
        members[agent.role], transcripts[agent.role] = transcript_of(db, agent, folder / "config" / name)
    return Team(db, members, transcripts, budgets.Watch())


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    db = store.connect(tmp_path / "state")
    yield a_team_in(tmp_path, db)
    db.close()


# -- from the first dollar to the pause --


def test_a_budget_warns_has_wrapped_up_and_pauses_each_once(team: Team) -> None:
    budget = team.set(10)
    team.spend(7.9)
    team.beat()
    assert (team.status(budget), team.notices()) == (BudgetStatus.OPEN, [])
    team.spend(0.1)
    for _ in range(3):
        team.beat()
    assert (team.status(budget), team.notices()) == (BudgetStatus.WARNED, ["webapp-impl: 80% of a budget used"])
    assert team.why("developer") is None
    team.spend(2)
    for _ in range(3):
        assert team.beat() == [team.now + 10 * MINUTE_MS]
    assert (team.status(budget), team.notices()[1:]) == (BudgetStatus.SPENT, ["webapp-impl: a budget is used up"])
    (told,) = team.waiting("orchestrator")
    assert "The budget of $10.00 of this team is used up: $10.00 are spent. In 10 minutes everybody is paused" in told
    team.later(9.9)
    team.beat()
    assert team.team_status() is OrchestrationStatus.RUNNING
    team.later(0.1)
    for _ in range(3):
        assert team.beat() == []
    assert (team.status(budget), team.notices()[2:]) == (BudgetStatus.PAUSED, ["webapp-impl: the team is paused"])
    assert team.team_status() is OrchestrationStatus.PAUSED
    assert len(team.waiting("orchestrator")) == 1
    assert team.events() == ["budget.set", "budget.warned", "budget.spent", "budget.paused"]


def test_what_is_spent_at_one_go_warns_no_more(team: Team) -> None:
    team.set(10)
    team.spend(50)
    team.beat()
    assert team.notices() == ["webapp-impl: a budget is used up"]


def test_a_budget_in_tokens_counts_all_kinds(team: Team) -> None:
    budget = team.set(1_000, BudgetUnit.TOKENS)
    team.transcripts["tester"].write(answer(Used(100, 200, 300, 150, 150, thinking=200), at=team.now))
    ledger.count(team.db, agents.get(team.db, team.members["tester"].id), now=team.now)
    team.beat()
    assert budgets.used(team.db, budget)[0] == 900
    assert team.status(budget) is BudgetStatus.WARNED


def test_a_role_has_a_budget_of_its_own(team: Team) -> None:
    budget = team.set(10, role="developer")
    team.spend(50, "tester")
    team.beat()
    assert team.status(budget) is BudgetStatus.OPEN
    team.spend(10, "developer")
    team.beat()
    (told,) = team.waiting("orchestrator")
    assert "of developer is used up" in told
    team.later(10)
    team.beat()
    assert team.team_status() is OrchestrationStatus.RUNNING  # the others go on
    assert team.why("developer") == "paused: the budget of $10.00 for developer is used up"
    assert team.why("tester") is None


def test_another_team_is_not_concerned(team: Team, tmp_path: Path) -> None:
    (other,) = a_team(team.db, "developer", name="other", home=tmp_path)
    team.set(1)
    team.spend(2)
    team.beat()
    assert holds.of(team.db, other) is None


def test_a_model_without_a_price_is_not_in_a_budget_in_dollars_and_that_is_said(team: Team, bench: Bench) -> None:
    team.set(10)
    team.transcripts["developer"].write(answer(Used(input=1_000_000), at=team.now, model="quill"))
    done = bench.ok("claude_control.py", "budget", "show")
    assert "$0.00 used (0%), open; 1M tokens of quill have no price and are not in it" in done.out


@pytest.mark.parametrize("minutes", [-180, 600])
def test_a_clock_that_is_set_neither_pauses_early_nor_never(team: Team, minutes: int) -> None:
    budget = team.set(10)
    team.spend(10)
    team.beat()
    team.later(minutes)
    team.beat()
    assert team.status(budget) is BudgetStatus.PAUSED


# -- what is held --


def test_during_the_grace_the_team_may_wrap_up_and_nothing_else(team: Team) -> None:
    team.set(10)
    team.spend(10)
    team.beat()
    at = datetime.fromtimestamp((team.now + 10 * MINUTE_MS) / 1000).strftime("%H:%M")
    assert team.why("developer") == f"wraps up until {at}: the budget of $10.00 is used up"
    hold = holds.of(team.db, team.members["developer"])
    assert hold is not None and hold.until == team.now + 10 * MINUTE_MS
    for role, sender, kind, is_kept_back in [
        ("developer", "orchestrator", MessageKind.MESSAGE, False),
        ("orchestrator", "developer", MessageKind.REPORT, False),
        ("orchestrator", "scheduler", MessageKind.NOTICE, False),
        ("orchestrator", "user", MessageKind.MESSAGE, False),
        ("orchestrator", "scheduler", MessageKind.CHECK_IN, True),
        ("developer", "tester", MessageKind.MESSAGE, True),
        ("developer", "user", MessageKind.MESSAGE, True),
        ("developer", "scheduler", MessageKind.CHECK_IN, True),
    ]:
        agent = team.members[role]
        message = messages.queue(team.db, agent, "hello", sender=sender, kind=kind, now=team.now)
        assert holds.keeps_back(hold, agent, message) is is_kept_back, (role, sender, kind)


def test_check_ins_wait_and_come_once_when_the_team_goes_on(team: Team) -> None:
    budget = team.set(10)
    developer = team.members["developer"]
    checkins.add(team.db, developer.id, "once", minutes=5, now=team.now)
    every = checkins.Terms(catch_up=CatchUp.ALL)
    checkins.add(team.db, developer.id, "each time", minutes=5, now=team.now, recurring=True, terms=every)
    team.spend(10)
    team.beat()
    team.later(60)
    team.beat()
    held = {"is_held": lambda agent: holds.of(team.db, agent) is not None}
    assert checkins.fire_due(team.db, now=team.now, **held) == 0  # type: ignore[arg-type]
    budgets.extend(team.db, budget, 5, now=team.now)
    assert checkins.fire_due(team.db, now=team.now, **held) == 2  # type: ignore[arg-type]


def test_a_paused_team_gets_nothing_not_even_what_is_urgent(team: Team) -> None:
    team.set(10)
    team.spend(10)
    team.beat()
    team.later(10)
    team.beat()
    hold = holds.of(team.db, team.members["orchestrator"])
    assert hold is not None and hold.until is None
    message = messages.queue(
        team.db,
        team.members["orchestrator"],
        "now",
        sender="user",
        kind=MessageKind.MESSAGE,
        priority=Priority.EMERGENCY,
        now=team.now,
    )
    assert holds.keeps_back(hold, team.members["orchestrator"], message)


# -- going on --


def paused(team: Team, amount: float = 10, **terms: Any) -> Budget:
    budget = team.set(amount, **terms)
    team.spend(amount)
    team.beat()
    team.later(10)
    team.beat()
    assert team.status(budget) is BudgetStatus.PAUSED
    budgets.note_stopped(team.db, team.members["developer"], "interrupted", now=team.now)
    return budget


def test_an_extended_budget_lets_the_team_go_on_and_tells_whom_it_stopped(team: Team) -> None:
    budget = paused(team)
    extended = budgets.extend(team.db, budget, 10, now=team.now)
    assert (extended.limit, extended.status) == (20, BudgetStatus.OPEN)
    assert team.team_status() is OrchestrationStatus.RUNNING
    assert team.why("developer") is None
    assert [body.partition(":")[0] for body in team.waiting("developer")] == [
        "Your last turn was stopped because a budget was used up. There is budget again"
    ]
    assert ["goes on" in body for body in team.waiting("orchestrator")] == [False, True]
    assert team.waiting("tester") == []
    budgets.extend(team.db, extended, 10, now=team.now)
    assert len(team.waiting("developer")) == 1


def test_an_extension_that_is_too_small_changes_nothing(team: Team) -> None:
    budget = paused(team)
    team.spend(5)
    assert budgets.extend(team.db, budget, 4, now=team.now).status is BudgetStatus.PAUSED
    assert team.team_status() is OrchestrationStatus.PAUSED
    assert budgets.extend(team.db, budget, 0.5, now=team.now).status is BudgetStatus.PAUSED
    again = budgets.extend(team.db, budgets.get(team.db, budget.id), 5, now=team.now)
    assert (again.limit, again.status) == (19.5, BudgetStatus.OPEN)  # 15 are less than 80 %


def test_an_extended_budget_warns_again_only_for_what_is_new(team: Team) -> None:
    budget = paused(team)
    before = len(team.notices())
    assert budgets.extend(team.db, budget, 1, now=team.now).status is BudgetStatus.WARNED  # who extends it knows
    team.beat()
    assert len(team.notices()) == before


def test_a_higher_amount_lets_go_on_and_so_does_no_budget(team: Team) -> None:
    paused(team)
    assert team.set(30).status is BudgetStatus.OPEN
    assert team.team_status() is OrchestrationStatus.RUNNING
    budget = paused(team, 12, role="developer")
    budgets.remove(team.db, budgets.get(team.db, budget.id), now=team.now)
    assert team.why("developer") is None


def test_a_team_goes_on_only_when_no_other_budget_holds_it(team: Team) -> None:
    whole = team.set(10)
    of_the_day = paused(team, per=BudgetPer.DAY)
    assert team.status(whole) is BudgetStatus.PAUSED
    budgets.extend(team.db, budgets.get(team.db, of_the_day.id), 100, now=team.now)
    assert team.team_status() is OrchestrationStatus.PAUSED
    assert team.waiting("developer") == []
    budgets.extend(team.db, budgets.get(team.db, whole.id), 100, now=team.now)
    assert team.team_status() is OrchestrationStatus.RUNNING
    assert len(team.waiting("developer")) == 1


def test_a_days_budget_is_open_again_on_the_next_day(team: Team) -> None:
    budget = paused(team, per=BudgetPer.DAY)
    budgets.extend(team.db, budget, 1, now=team.now)
    team.spend(2)
    team.beat()
    team.later(10)
    team.beat()
    assert team.status(budget) is BudgetStatus.PAUSED
    team.now = NOON + DAY_MS
    team.beat()
    assert team.status(budget) is BudgetStatus.OPEN
    assert team.team_status() is OrchestrationStatus.RUNNING
    assert budgets.get(team.db, budget.id).limit == 10  # what was added was for that day
    team.spend(9)
    team.beat()
    assert team.status(budget) is BudgetStatus.WARNED


def test_a_team_that_has_ended_is_left_alone(team: Team) -> None:
    budget = team.set(10)
    team.spend(10)
    team.beat()
    orchestrations.set_status(team.db, team.id, OrchestrationStatus.COMPLETED, now=team.now)
    team.later(10)
    team.beat()
    assert team.team_status() is OrchestrationStatus.COMPLETED
    budgets.remove(team.db, budgets.get(team.db, budget.id), now=team.now)
    assert team.team_status() is OrchestrationStatus.COMPLETED


def test_an_interrupted_daemon_tells_nobody_twice(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = team.set(10)
    team.spend(10)
    for step in ("_have_wrapped_up", "_tell"):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(budgets, step, _killed)
            team.beat()
        assert (team.status(budget), team.waiting("orchestrator"), team.notices()) == (BudgetStatus.OPEN, [], [])
    team.watch = budgets.Watch()
    team.beat()
    assert (len(team.waiting("orchestrator")), len(team.notices())) == (1, 1)
    team.later(10)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(orchestrations, "set_status", _killed)
        team.beat()
    assert team.status(budget) is BudgetStatus.SPENT
    team.beat()
    assert (team.status(budget), len(team.notices())) == (BudgetStatus.PAUSED, 2)


def _killed(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_a_beat_that_is_killed_before_any_write_tells_and_counts_all_once(bench: Bench, is_long: bool) -> None:
    db, now, kills = bench.db(), NOON, 0
    for number in range(1, 200, 1 if is_long else 4):
        team = a_team_in(bench.folder, db, f"team{number}")
        team.set(10)
        team.transcripts["developer"].write(answer(Used(input=3_000_000), at=now))
        codes = []
        for moment in (now, now + 10 * MINUTE_MS):  # what is spent in the first is paused in the second
            codes.append(bench.killed("beat", number, str(moment)))
            life = daemon.Life(Settings(), Unsent(bench.home))
            beat = daemon.tick(db, bench.tmux, bench.home, now=moment, life=life)
            assert not beat.failed
        assert [one for one in team.events() if one != "budget.set"] == ["budget.spent", "budget.paused"]
        told = db.execute("SELECT count(*) FROM notices WHERE title LIKE ?", (f"team{number}-impl%",)).fetchone()[0]
        assert (told, len(team.waiting("orchestrator"))) == (2, 1)
        assert team.team_status() is OrchestrationStatus.PAUSED
        assert sum(one.item.answers for one in ledger.spent(db, orchestration=team.id)) == 1
        orchestrations.set_status(db, team.id, OrchestrationStatus.STOPPED, now=now)
        kills += codes.count(-signal.SIGKILL)
        if codes == [0, 0]:
            break
    assert kills > 3, "there are some writes to be killed before"
    db.close()


# -- which budget is meant --


def test_the_budget_that_holds_something_is_the_one_that_is_meant(team: Team) -> None:
    team.set(100)
    of_the_day = paused(team, per=BudgetPer.DAY)
    found = budgets.of(team.db, team.id)
    assert budgets.chosen(found, BudgetUnit.USD, role=None, per=None, session="s").id == of_the_day.id
    with pytest.raises(NotFound):
        budgets.chosen(found, BudgetUnit.TOKENS, role=None, per=None, session="s")
    budgets.extend(team.db, of_the_day, 100, now=team.now)
    with pytest.raises(Usage, match="more than one budget in usd"):
        budgets.chosen(budgets.of(team.db, team.id), BudgetUnit.USD, role=None, per=None, session="s")


@pytest.mark.parametrize(
    ("text", "count"), [("5M", 5_000_000), ("1.5m", 1_500_000), ("800k", 800_000), ("20000", 20_000), ("1G", 10**9)]
)
def test_numbers_of_tokens(text: str, count: int) -> None:
    assert token_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "M", "-5M", "5MM", "1e9", "٥M", "9999999999999", "0.0000001"])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(Usage):
        token_count(text)


def test_a_new_orchestration_has_the_budgets_of_the_configuration(team: Team) -> None:
    budgets.begin(team.db, team.id, BudgetSettings(usd_per_day=20, tokens=5_000_000), now=team.now)
    found = {(one.unit, one.per): one.amount for one in budgets.of(team.db, team.id)}
    assert found == {
        (BudgetUnit.USD, BudgetPer.DAY): 20,
        (BudgetUnit.TOKENS, BudgetPer.ORCHESTRATION): 5_000_000,
    }


# -- the outlook --


def test_the_scheduler_says_when_a_budget_is_used_up(team: Team, bench: Bench) -> None:
    now = host.now_ms()
    team.now, created_at = now, now - 30 * MINUTE_MS
    team.db.execute("UPDATE orchestrations SET created_at = ?", (created_at,))
    team.set(10)
    team.set(1_000_000, BudgetUnit.TOKENS, role="tester")
    for _ in range(10):
        team.spend(0.1)
    found = bench.ok("scheduler.py", "--status", "--json").json["outlook"]
    assert [one["session"] for one in found] == ["webapp-impl", "webapp-impl"]
    assert found[0]["at"] == pytest.approx(now + 270 * MINUTE_MS, abs=MINUTE_MS)  # a dollar in half an hour
    assert found[1]["sentence"].startswith("not enough history to say when the budget of 1M tokens for tester")
    assert "webapp-impl: at this rate the budget of $10.00 is used up at " in bench.ok("scheduler.py", "--status").out


def test_the_window_of_an_account_that_has_met_its_limit(team: Team) -> None:
    assert outlooks.of_windows(team.db, now=team.now) == []
    team.spend(1)
    refusal = Refusal(LimitKind.FIVE_HOUR, "limit reached", team.now + 3 * 3_600_000)
    developer = agents.get(team.db, team.members["developer"].id)
    limits.refused(team.db, developer, refusal, LimitSource.HOOK, at=team.now, terms=LimitSettings())
    (told,) = outlooks.of_windows(team.db, now=team.now)
    assert told.sentence == "the five-hour window ends at 15:00"
    team.later(4 * 60)
    (reckoned,) = outlooks.of_windows(team.db, now=team.now)
    assert reckoned.sentence == "the five-hour window ends at about 17:00"


def test_a_dry_run_says_what_the_team_would_cost(team: Team, bench: Bench) -> None:
    project = bench.project("other")
    run = ("auto_orchestrate.py", "--spec", str(project / "spec.md"), "--agent", "rehearsal", "--dry-run")
    assert "outlook  not enough history to say what it would cost: 0 answers" in bench.ok(*run).out
    team.now = host.now_ms()
    for role in ("developer", "tester"):
        for number in range(4):
            team.now -= number * 15 * MINUTE_MS
            team.spend(0.5, role)
    (bench.folder / "config.yaml").write_text("budget: {usd_per_day: 20}\n")
    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(bench.folder / "config.yaml")
    found = bench.ok(*run, "--json").json
    hourly = 2.0 * len(found["agents"])
    assert [one["sentence"] for one in found["outlook"]] == [
        f"agents have cost $2.00 in an hour of work each: ${hourly:.2f} for {len(found['agents'])} of them",
        f"the budget of a day of $20.00 lasts {forecasts.duration(20 / hourly * 3_600_000)} of that",
    ]


# -- the doors --


def test_budget_by_the_door(team: Team, bench: Bench) -> None:
    def budget(*words: str) -> str:
        return bench.ok("claude_control.py", "budget", *words).out.strip()

    bench.environment["TMUX_ORCHESTRATOR_CONFIG"] = str(bench.folder / "config.yaml")
    (bench.folder / "config.yaml").write_text("auto_start: false\n")
    assert budget("show") == "no budget is set"
    team.spend(5)
    assert budget("set", "webapp-impl", "--usd", "20") == "webapp-impl: $20.00, $5.00 used (25%), open"
    assert budget("set", "webapp-impl", "--tokens", "2M", "--per", "day", "--role", "developer").startswith(
        "webapp-impl: 2M tokens a day for developer"
    )
    assert budget("extend", "webapp-impl", "--usd", "5") == "webapp-impl: $25.00, $5.00 used (20%), open"
    assert len(budget("show", "webapp-impl").splitlines()) == 2
    assert budget("remove", "webapp-impl", "--role", "developer").startswith("removed from webapp-impl: 2M tokens")
    (left,) = bench.ok("claude_control.py", "budget", "show", "--json").json
    assert (left["limit"], left["used"], left["status"]) == (25, pytest.approx(5), "open")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("grow", "webapp-impl"), 2),
        (("set", "webapp-impl"), 2),
        (("set", "webapp-impl", "--usd", "5", "--tokens", "5M"), 2),
        (("set", "webapp-impl", "--usd", "0"), 2),
        (("set", "webapp-impl", "--usd", "5", "--role", "poet"), 3),
        (("extend", "webapp-impl", "--usd", "5"), 3),
        (("remove", "webapp-impl"), 3),
        (("set", "nobody-impl", "--usd", "5"), 3),
        (("show", "nobody-impl"), 3),
    ],
)
def test_what_the_door_refuses(team: Team, bench: Bench, words: tuple[str, ...], code: int) -> None:
    assert bench.door("claude_control.py", "budget", *words).code == code


def test_the_daemon_keeps_budgets_in_its_beat(team: Team, bench: Bench) -> None:
    budget, errands = team.set(10), Unsent(bench.home)
    life = daemon.Life(Settings(), errands)
    for minutes, expected in ((0, BudgetStatus.WARNED), (1, BudgetStatus.SPENT), (10, BudgetStatus.PAUSED)):
        team.transcripts["developer"].write(answer(Used(input=2_000_000), at=team.now))
        team.later(minutes)
        beat = daemon.tick(team.db, bench.tmux, bench.home, now=team.now, life=life)
        assert not beat.failed
        assert team.status(budget) is expected
        assert ("stop-spending" in errands.sent) is (expected is BudgetStatus.PAUSED)
