"""Limits and budgets of an account over several hosts: links on a real server, governors as the scheduler has them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib import agents, config, errands, governor, holds, host, limits, service, store
from lib.config import LimitSettings, Settings
from lib.fleet import accounts, members, sharing, totals, trying, views
from lib.fleet.accounts import Asked, State
from lib.fleet.envelopes import Unreadable
from lib.fleet.link import Link
from lib.judgement import canaries
from lib.models import (
    Agent,
    Budget,
    BudgetPer,
    BudgetStatus,
    BudgetUnit,
    Limit,
    LimitKind,
    LimitSource,
    Refusal,
    Usage,
)
from lib.spending import budgets, ledger
from tests import nats
from tests.agents import a_team
from tests.fleets import known, linked, until
from tests.integration.test_limits import Account
from tests.nats import NatsServer
from tests.transcripts import answer, transcript_of

TERMS = LimitSettings(grace_seconds=0.3, spacing_seconds=0.1, look_again_minutes=0.02)
SECOND = 1000

pytestmark = pytest.mark.skipif(nats.PROGRAM is None, reason="nats-server is not installed: ./setup.sh --dev")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats.running(tmp_path / "nats") as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds between real hosts takes fractions of them here."""
    monkeypatch.setattr(config, "load", lambda: Settings(limits=TERMS))
    for name, value in {
        "lib.fleet.sharing.RENEWED_SECONDS": 0.3,
        "lib.fleet.sharing.SPENT_SECONDS": 0.2,
        "lib.fleet.sharing.TOGETHER_SECONDS": 0.2,
        "lib.judgement.canaries.SILENT_MS": 4_000,
        "lib.judgement.canaries.NOBODY_MS": 5_500,
        "lib.fleet.accounts.ALONE_MS": 1_000,
        "lib.fleet.accounts._LOOK_MS": 50,
    }.items():
        monkeypatch.setattr(name, value)


@dataclass
class Machine:
    """A host with a team of two, of whom the developer has work: its link runs, and its scheduler."""

    link: Link
    account: Account
    scheduler: asyncio.Task[None]

    @property
    def name(self) -> str:
        return self.link.fleet.host if self.link.connection else self.link.settings.name()

    @property
    def agent(self) -> Agent:
        return self.account.agent("developer")

    @property
    def limit(self) -> Limit | None:
        (number,) = self.link.db.execute(
            "SELECT max(id) FROM limits WHERE config_dir = ?", (str(self.agent.config_dir),)
        ).fetchone()
        return limits.get(self.link.db, number) if number else None

    @property
    def shared(self) -> accounts.Shared:
        (name,) = totals.accounts(self.link.db)
        return accounts.shared(self.link.db, name)

    def refuse(self, seconds: float) -> None:
        """The developer's turn is refused, for so long."""
        now = host.now_ms()
        refusal = Refusal(LimitKind.FIVE_HOUR, "You've hit your 5-hour limit", now + round(seconds * SECOND))
        limits.refused(self.link.db, self.agent, refusal, LimitSource.TRANSCRIPT, at=now, terms=TERMS)

    def is_held(self) -> bool:
        return holds.of(self.link.db, self.agent) is not None

    def tries(self) -> bool:
        return self.limit is not None and self.limit.tried_at is not None

    def is_over(self) -> bool:
        return self.limit is not None and self.limit.ended_at is not None

    def limits(self) -> int:
        """How many its team has had; other folders of the account have theirs."""
        folder = str(self.agent.config_dir)
        return len(self.link.db.execute("SELECT 1 FROM limits WHERE config_dir = ?", (folder,)).fetchall())

    def count(self, kind: str) -> int:
        return len(store.events(self.link.db, kind=kind))


@contextlib.asynccontextmanager
async def machine(
    server: NatsServer, folder: Path, name: str, *, account: str | None = "shared", wants: bool = True
) -> AsyncIterator[Machine]:
    home = folder / name
    async with linked(server, folder, name, account=account) as link:
        team = Account(home, link.db, a_team(link.db, "orchestrator", "developer", home=home))
        for agent in team.team:
            team.start(agent)
        if wants:
            team.say("developer", "there is work", host.now_ms())
        with errands.working(home, members.LINK), host.lock(service.lock_path(home)):
            made = Machine(link, team, asyncio.create_task(_govern(link)))
            try:
                await until(lambda: link.is_connected, f"{name} to be connected")
                yield made
            finally:
                made.scheduler.cancel()
                for process in team.processes:
                    process.kill()
                    process.wait()


def times(hosts: Sequence[Machine]) -> set[int | None]:
    """Until when the folders of these hosts wait."""
    return {one.resets_at for there in hosts for one in limits.open_limits(there.link.db)}


async def _govern(link: Link) -> None:
    observation = governor.Observation()
    while True:
        now = host.now_ms()
        governor.govern(link.db, observation, now=now, terms=TERMS, others=accounts.Others(link.db, link.home, now))
        await asyncio.sleep(0.05)


# -- limits --


def test_a_limit_of_one_host_holds_all_of_its_account_and_one_tries_for_all(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with (
            machine(server, tmp_path, "red") as red,
            machine(server, tmp_path, "blue") as blue,
            machine(server, tmp_path, "green", wants=False) as green,
            machine(server, tmp_path, "other", account=None) as other,
        ):
            hosts = [red, blue, green]
            await until(lambda: len(totals.hosts_of(red.link.db, red.shared.account)) == 3, "red to know of the others")
            red.refuse(2)
            await until(lambda: all(one.is_held() for one in hosts), "all to be held")
            hold = holds.of(blue.link.db, blue.agent)
            assert hold and hold.why.startswith("limited until ") and hold.why.endswith(" (met on red)")
            assert holds.of_account(blue.link.db, blue.agent.config_dir) is not None, (
                "nor does its queue start anything"
            )
            assert not other.is_held() and other.limit is None, "its account is another one"
            assert blue.limit and red.limit and blue.limit.resets_at == red.limit.resets_at
            assert "five-hour limit until" in views.account_lines(views.look(blue.link.db, blue.link.home, now=0))[0]
            await until(lambda: any(one.tries() for one in hosts), "one to try")
            await until(lambda: all(one.shared.state is State.TRYING for one in hosts), "all to hear of it")
            await asyncio.sleep(4.5)  # longer than who is silent keeps the others waiting
            (first,) = [one for one in hosts if one.tries()]
            assert first is not green, "nobody wants anything there"
            rest = [one for one in hosts if one is not first]
            assert all(one.is_held() for one in rest) and sum(one.count("limit.tried") for one in hosts) == 1
            # It is refused again: all wait for the new time.
            first.refuse(2)
            await until(lambda: all(one.limit.tries == 1 for one in hosts if one.limit), "all to hear of that")
            # A folder of the account that nobody uses waits as well: it would find the limit over at its old time.
            then = {first.limit.resets_at} if first.limit else set()
            await until(lambda: times(hosts) == then, "all folders to wait for the new time")
            await until(lambda: any(one.tries() for one in hosts), "one to try again")
            (second,) = [one for one in hosts if one.tries()]
            second.account.answer("developer", host.now_ms() + 1)
            await until(lambda: all(one.is_over() for one in hosts), "all to go on")
            assert sum(one.count("limit.tried") for one in hosts) == 2
            assert [one.limits() for one in hosts] == [1, 1, 1], "one limit on each"
            assert all(one.shared.state is State.OVER and not one.is_held() for one in hosts)
            assert other.count("limit.hit") == 0

    asyncio.run(live())


def test_the_host_that_tries_goes_silent_and_another_takes_over(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "blue", wants=False) as blue:
            async with machine(server, tmp_path, "red") as red:
                await until(lambda: "red" in known(blue.link), "blue to know red")
                red.refuse(0.5)
                await until(lambda: blue.is_held() and red.tries(), "red to try")
                blue.account.say("developer", "there is work", host.now_ms())
                await until(lambda: blue.shared.record.get("trier") == "red", "blue to hear of it")
            await until(blue.tries, "blue to try")
            assert blue.shared.record["trier"] == "blue" and blue.shared.record["term"] == 2
            blue.account.answer("developer", host.now_ms() + 1)
            await until(blue.is_over, "blue to go on")
            assert (blue.count("limit.tried"), blue.count("limit.alone")) == (1, 0)

    asyncio.run(live())


def test_what_was_asked_before_all_wait_again_is_not_done(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "red") as red, machine(server, tmp_path, "blue") as blue:
            red.refuse(3600)
            await until(blue.is_held, "blue to be held")
            for asked in (Asked.TRY, Asked.NOBODY):
                accounts.ask(blue.link.db, blue.shared.account, asked, now=host.now_ms())
                await asyncio.sleep(3 * trying.LOOK_SECONDS)
                assert (red.shared.state, red.shared.record["trier"]) == (State.HELD, None)
            assert blue.shared.wants_of_link(host.now_ms()) is Asked.NOBODY, "nobody has taken it back"

    asyncio.run(live())


def test_where_nobody_wants_anything_it_is_over_for_all(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with (
            machine(server, tmp_path, "red", wants=False) as red,
            machine(server, tmp_path, "blue", wants=False) as blue,
        ):
            red.refuse(0.5)
            await until(blue.is_held, "blue to be held")
            # Its turn was cut off, and it has gone on with it by hand since.
            red.link.db.execute("UPDATE limited_agents SET went_on_at = cut_off_at")
            await until(lambda: red.is_over() and blue.is_over(), "it to be over on both")
            assert red.count("limit.tried") + blue.count("limit.tried") == 0
            assert red.limit and red.limit.over_at and red.limit.look_at
            assert red.limit.over_at >= red.limit.look_at + canaries.NOBODY_MS, "others may have wanted something"

    asyncio.run(live())


def test_a_person_goes_on_by_hand_on_one_host_and_all_do(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "red") as red, machine(server, tmp_path, "blue") as blue:
            red.refuse(3600)
            await until(blue.is_held, "blue to be held")
            limits.succeeded(blue.link.db, blue.agent, host.now_ms() + 1, host.now_ms() + 2)
            await until(lambda: red.is_over() and blue.is_over(), "both to go on")
            assert red.count("limit.tried") + blue.count("limit.tried") == 0
            # What is met after that is another one.
            blue.refuse(3600)
            await until(red.is_held, "red to be held")
            assert red.limit and red.limit.host == "blue" and red.shared.round == 2

    asyncio.run(live())


def test_without_the_server_each_host_goes_by_what_it_knew_and_afterwards_all_agree(
    server: NatsServer, tmp_path: Path
) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "red") as red, machine(server, tmp_path, "blue") as blue:
            red.refuse(4)
            await until(blue.is_held, "blue to be held")
            server.kill()
            await until(lambda: red.tries() and blue.tries(), "each to try by itself")
            assert red.limit and blue.limit and red.limit.resets_at and blue.limit.resets_at
            assert host.now_ms() > max(red.limit.resets_at, blue.limit.resets_at), "not before its time"
            assert (red.count("limit.alone"), blue.count("limit.alone")) == (1, 1)
            red.account.answer("developer", host.now_ms() + 1)
            await until(red.is_over, "red to go on")
            assert blue.is_held() or blue.tries()
            server.start()
            await until(blue.is_over, "blue to hear of that")
            assert (red.count("limit.tried"), blue.count("limit.tried")) == (1, 1)
            # And what is met while it is away is told when it is back.
            server.stop()
            await until(lambda: not blue.link.is_connected, "blue to notice")
            blue.refuse(3600)
            assert not red.is_held()
            server.start()
            await until(red.is_held, "red to hear of it")
            # A server that has lost all it kept is told again, and forgets nobody.
            server.stop()
            shutil.rmtree(server.folder / "store")
            server.start()
            async with machine(server, tmp_path, "green") as green:
                await until(green.is_held, "green to hear of it")
                assert red.is_held() and blue.is_held() and red.limits() == blue.limits() == 2

    asyncio.run(live())


def test_what_a_host_has_told_that_was_removed_holds_nobody(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "blue") as blue:
            async with machine(server, tmp_path, "red") as red:
                red.refuse(3600)
                await until(lambda: blue.is_held() and "red" in known(blue.link), "blue to be held")
            await (await blue.link.fleet.js.key_value("hosts")).delete("red")
            await until(blue.is_over, "blue to go on")

    asyncio.run(live())


def test_what_a_newer_version_tells_is_left_alone_and_what_is_none_is_replaced(
    server: NatsServer, tmp_path: Path
) -> None:
    async def live() -> None:
        async with machine(server, tmp_path, "red") as red, machine(server, tmp_path, "blue") as blue:
            bucket = await red.link.fleet.js.key_value("limits")
            account = red.shared.account
            await bucket.put(account, b'{"v": 9, "min": 9}')
            await until(lambda: blue.shared.revision == 1 == red.shared.revision, "both to hear of it")
            lines = views.account_lines(views.look(red.link.db, red.link.home, now=0))
            assert "cannot be read" in lines[0] and "version 9" in lines[0]
            # Nobody waits for what it cannot read.
            red.refuse(0.3)
            await until(red.tries, "red to try by itself")
            assert "version 9" in str(store.events(red.link.db, kind="limit.alone")[0].data)
            red.account.answer("developer", host.now_ms() + 1)
            await until(red.is_over, "red to go on")
            await bucket.put(account, b"nothing")
            await until(lambda: red.shared.revision == 2, "red to hear of it")
            red.refuse(3600)
            await until(blue.is_held, "blue to be held")

    asyncio.run(live())


# -- what others may tell --

RECORD: dict[str, Any] = {
    **{"state": "held", "kind": "five_hour", "resets_at": 1_900_000_000_000, "said": "limited", "host": "red"},
    **{"tries": 0, "round": 1, "term": 0, "trier": None, "at": 1, "is_for_nobody": False},
}
WRONG_LIMITS: list[dict[str, Any]] = [
    {"state": "strange"},
    {"kind": "login"},
    {"kind": "overloaded"},
    {"resets_at": "soon"},
    {"resets_at": 10**30},
    {"tries": -1},
    {"tries": True},
    {"round": 2**53},
    {"said": ["x"]},
    {"host": "a b"},
    {"trier": "$(id)"},
]


@pytest.mark.parametrize("fields", WRONG_LIMITS, ids=str)
def test_a_record_that_is_no_limit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        accounts.checked({**RECORD, **fields})
    said = accounts.checked({**RECORD, "said": "a\x1b]0;x\x07" + "b\n" * 1000, "of_a_newer_version": 1})["said"]
    assert len(said) <= 300 and all(ord(letter) >= 32 for letter in said)


WRONG_TOTALS: list[Any] = [
    [],
    {"not a digest": {"0": [1, 1]}},
    {"a" * 32: {"today": [1, 1]}},
    {"a" * 32: {"0": [-1, 1]}},
    {"a" * 32: {"0": [float("nan"), 1]}},
    {"a" * 32: {"0": [1e300, 1]}},
    {"a" * 32: {"0": [1, 1.5]}},
    {"a" * 32: {"0": [True, 1]}},
    {"a" * 32: {"0": 1}},
    {"a" * 32: {str(day): [1, 1] for day in range(9)}},
    {f"{number:032x}": {} for number in range(100)},
]


@pytest.mark.parametrize("spent", WRONG_TOTALS, ids=lambda spent: str(spent)[:60])
def test_totals_that_are_none_are_refused(spent: Any) -> None:
    with pytest.raises(Unreadable):
        totals.checked("red", {"spent": spent})
    assert totals.checked("red", {"spent": {"a" * 32: {"0": [1, 1]}}}).spent["a" * 32][0] == (1.0, 1)


def test_no_lie_of_another_host_holds_for_longer_than_such_a_limit_can(tmp_path: Path) -> None:
    with contextlib.closing(store.connect(tmp_path)) as db:
        day, now, folder = 86_400_000, host.now_ms(), tmp_path / "config"

        def tell(kind: LimitKind, resets_at: int | None, at: int, tries: int = 0) -> Limit:
            limits.told(db, folder, Refusal(kind, "lies", resets_at), "red", tries=tries, now=at, terms=TERMS)
            found = limits.of_scope(db, folder, None)
            assert found and found.look_at
            return found

        assert tell(LimitKind.FIVE_HOUR, now + 30 * day, now).resets_at is None, "as if nobody knew until when"
        found = tell(LimitKind.SPEND, None, now)
        assert found.look_at and found.look_at <= now + 60 * SECOND, "an agent tries at last"
        for number in range(20):
            found = tell(LimitKind.WEEKLY, now + (number + 7) * day, now + number * day, tries=number)
        assert found.resets_at is not None and found.resets_at <= now + 16 * day


# -- budgets --


def _team(link: Link, usd: float) -> Budget:
    """A team that has spent so much today, and its budget: 10 dollars a day for all teams of the account."""
    (agent,) = a_team(link.db, "developer", home=link.home)
    now = host.now_ms()
    _, transcript = transcript_of(link.db, agent, agent.config_dir)
    transcript.write(answer(Usage(input=round(usd / 4 * 1_000_000)), at=now))
    ledger.count(link.db, agents.get(link.db, agent.id), now=now)
    per = BudgetPer.ACCOUNT_DAY
    return budgets.add(link.db, str(agent.orchestration_id), 10.0, BudgetUnit.USD, per, role=None, now=now)


def _status(link: Link, budget: Budget) -> BudgetStatus:
    budgets.govern(link.db, budgets.Watch(), grace_minutes=0, is_news=True, now=host.now_ms())
    return budgets.get(link.db, budget.id).status


def test_a_budget_of_an_account_counts_once_over_all_hosts(server: NatsServer, tmp_path: Path) -> None:
    async def live() -> None:
        async with (
            linked(server, tmp_path, "red", account="shared") as red,
            linked(server, tmp_path, "blue", account="shared") as blue,
            linked(server, tmp_path, "other", account="another") as other,
        ):
            apart = _team(other, 9.0)
            of_red = _team(red, 4.0)
            async with linked(server, tmp_path, "green", account="shared") as green:
                of_green = _team(green, 3.5)
                await until(lambda: budgets.used(red.db, of_red)[0] == 7.5, "red to hear of green")
                assert _status(red, of_red) is BudgetStatus.OPEN
                assert _status(green, of_green) is BudgetStatus.OPEN
            of_blue = _team(blue, 2.6)  # green is silent, and what it has spent still counts
            await until(lambda: _status(red, of_red) is not BudgetStatus.OPEN, "red to be halted")
            await until(lambda: _status(blue, of_blue) is not BudgetStatus.OPEN, "blue to be halted")
            assert {_status(red, of_red), _status(blue, of_blue)} <= {BudgetStatus.SPENT, BudgetStatus.PAUSED}
            assert round(budgets.used(blue.db, of_blue)[0], 4) == 10.1
            hold = holds.of_account(red.db, red.home / "rehearsal")
            assert hold and "$10.00 a day for all teams of the account" in hold.why
            assert _status(other, apart) is not BudgetStatus.SPENT and budgets.used(other.db, apart)[0] == 9.0

            def is_shown() -> bool:
                lines = views.account_lines(views.look(blue.db, blue.home, now=host.now_ms()))
                return any("$2.60 here, $10.10 on the 3 hosts of its account" in line for line in lines)

            await until(is_shown, "the sum of the account in the view")

    asyncio.run(live())


def test_on_one_machine_it_counts_the_teams_of_the_account(tmp_path: Path) -> None:
    with contextlib.closing(store.connect(tmp_path / "state")) as db:
        link = Link(tmp_path, config.FleetSettings(), db)
        of_first = _team(link, 6.0)
        budgets.extend(db, of_first, 5.0, now=host.now_ms())
        teams = (
            a_team(db, "developer", name="second", home=tmp_path),
            a_team(db, "developer", name="x", home=tmp_path / "x"),
        )
        made = []
        for (agent,) in teams:
            _, transcript = transcript_of(db, agent, agent.config_dir)
            transcript.write(answer(Usage(input=1_000_000), at=host.now_ms()))
            ledger.count(db, agents.get(db, agent.id), now=host.now_ms())
            per = BudgetPer.ACCOUNT_DAY
            made.append(
                budgets.add(db, str(agent.orchestration_id), 10.0, BudgetUnit.USD, per, role=None, now=host.now_ms())
            )
        assert [budgets.used(db, one)[0] for one in (of_first, *made)] == [10.0, 10.0, 4.0]
        assert _status(link, made[0]) is BudgetStatus.SPENT and _status(link, made[1]) is BudgetStatus.OPEN
        assert _status(link, of_first) is BudgetStatus.OPEN, "it was extended for this team"
        assert holds.of_account(db, tmp_path / "x" / "rehearsal") is None


def test_a_host_of_which_nothing_is_known_is_an_account_of_its_own(tmp_path: Path) -> None:
    def identities(name: str, account: str | None = None) -> set[str]:
        settings = config.FleetSettings(url="nats://127.0.0.1:1", host=name, account=account)
        with contextlib.closing(store.connect(tmp_path / name)) as db:
            return set(sharing.identities(Link(tmp_path / name, settings, db)).values())

    assert identities("red").isdisjoint(identities("blue"))
    assert identities("red", "ours") == identities("blue", "ours") != identities("blue", "theirs")
