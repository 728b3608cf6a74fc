"""Usage limits with a virtual clock: who is held, what stands still, who goes first, and that nobody is told twice.

The agents are processes that do nothing; the test writes what their Claude Code would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lib import agents, authorizations, checkins, daemon, governor, holds, host, limits, messages, orchestrations, store
from lib.checkins import Terms
from lib.claude.hooks import HookReport
from lib.config import LimitSettings, Settings
from lib.models import (
    Agent,
    AgentState,
    AuthorizationStatus,
    CatchUp,
    Limit,
    LimitKind,
    LimitSource,
    MessageKind,
    OrchestrationStatus,
)
from lib.queue import draining, entries
from lib.tmux import Tmux
from tests.agents import a_team, an_agent
from tests.integration.test_keeping import Noted

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
#: Noon of a day in December.
NOON = round(datetime(2026, 12, 5, 12, 0, tzinfo=UTC).timestamp() * 1000)
TERMS = LimitSettings()
ROLES = ("orchestrator", "developer", "tester")
FIVE_HOUR = ("rate_limit", "You've hit your 5-hour limit · resets 5pm (UTC)", "five_hour")
AT_FIVE = NOON + 5 * HOUR
AT_SIX = ("rate_limit", "You've hit your 5-hour limit · resets 6pm (UTC)", "five_hour")
UNREADABLE = ("rate_limit", "You've hit your 5-hour limit · resets soon", "five_hour")
OVERLOADED = ("server_error", "API Error: 529 Overloaded.", "")
LOGGED_OUT = ("authentication_failed", "Please run /login", "")


@dataclass
class Account:
    """Teams whose agents share one account; nobody but the test does anything."""

    folder: Path
    db: Any
    team: list[Agent]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    observation: governor.Observation = field(default_factory=governor.Observation)

    def agent(self, role: str) -> Agent:
        return next(agents.get(self.db, one.id) for one in self.team if one.role == role)

    def start(self, agent: Agent) -> None:
        """Give an agent a process that lives, and says that it is idle."""
        self.processes.append(subprocess.Popen(["sleep", "1000"]))
        process = host.process(self.processes[-1].pid)
        assert process
        agents.started(self.db, agent.id, pane_id=f"%{agent.id}", process=process)
        self.be(agent.role, "idle")

    def be(self, role: str, status: str) -> None:
        agent = self.agent(role)
        assert agent.process
        folder = agent.config_dir / "sessions"
        folder.mkdir(parents=True, exist_ok=True)
        said = {"sessionId": agent.conversation_id, "procStart": str(agent.process.started), "status": status}
        (folder / f"{agent.process.pid}.json").write_text(json.dumps(said))

    def hook(self, role: str, event: str, at: int, *, prompt: str = "", **said: str) -> None:
        """A hook of an agent, as `signals` takes it from the spool."""
        agent = self.agent(role)
        values = {"error": "", "last_message": "", "source": "", "notification": ""} | said
        report = HookReport(event=event, conversation_id=agent.conversation_id, prompt=prompt, **values)
        with store.writing(self.db):
            agents.note_hook(self.db, agent.id, event=event, at=at)
            limits.hear(self.db, agent, report, at=at, terms=lambda: TERMS)

    def refuse(self, role: str, at: int, refusal: tuple[str, str, str] = FIVE_HOUR) -> None:
        self.hook(role, "StopFailure", at, error=refusal[0], last_message=refusal[1])

    def write(self, role: str, at: int, **entry: Any) -> Path:
        """An entry of an agent's transcript."""
        agent = self.agent(role)
        path = agent.config_dir / "projects" / "webapp" / f"{agent.conversation_id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {"type": "assistant", "timestamp": datetime.fromtimestamp(at / 1000, UTC).isoformat(), **entry}
        with path.open("a") as file:
            file.write(json.dumps(said) + "\n")
        os.utime(path, (at / 1000, at / 1000))
        return path

    def write_refusal(self, role: str, at: int, resets_at: int, refusal: tuple[str, str, str] = FIVE_HOUR) -> Path:
        info = {"rate_limit_info": {"resetsAt": resets_at // 1000, "rateLimitType": refusal[2]}}
        content = [{"type": "text", "text": refusal[1]}]
        return self.write(
            role,
            at,
            isApiErrorMessage=True,
            error=refusal[0],
            apiError="usage_limit_reached",
            apiErrorParams=info,
            message={"content": content},
        )

    def answer(self, role: str, at: int) -> None:
        self.write(role, at, message={"content": [{"type": "text", "text": "I go on."}]})

    def govern(self, now: int, *, shown: str | None = None) -> list[int]:
        return governor.govern(self.db, self.observation, now=now, terms=TERMS, look=lambda agent: shown)

    def say(self, role: str, text: str, at: int = NOON) -> None:
        messages.queue(self.db, self.agent(role), text, sender="user", kind=MessageKind.MESSAGE, now=at)

    @property
    def limit(self) -> Limit:
        (number,) = self.db.execute("SELECT max(id) FROM limits").fetchone()
        return limits.get(self.db, number)

    def held(self) -> set[str]:
        return {agent.role for agent in self.team if holds.of(self.db, agent)}

    def told(self) -> list[str]:
        """Whom a note has told to go on, in order."""
        notes = [one for one in messages.find(self.db, limit=100) if "Your last turn was cut off" in one.body]
        roles = {agent.id: agent.role for agent in self.team}
        return [roles[one.agent_id] for one in notes]

    def events(self, kind: str) -> int:
        return len(store.events(self.db, kind=kind))

    def end_well(self, role: str, at: int) -> None:
        """A turn of an agent that begins and ends well."""
        self.hook(role, "UserPromptSubmit", at - SECOND, prompt="go on")
        self.hook(role, "Stop", at)


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    db = store.connect(tmp_path / "state")
    made = Account(tmp_path, db, a_team(db, *ROLES, home=tmp_path))
    for agent in made.team:
        made.start(agent)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    db.close()


class TestHold:
    def test_a_refusal_holds_the_account_and_nobody_else(self, account: Account) -> None:
        others = a_team(account.db, "developer", name="elsewhere", home=account.folder / "other")
        account.refuse("developer", NOON)
        account.govern(NOON)
        assert account.held() == set(ROLES) and holds.of(account.db, others[0]) is None
        hold = holds.of(account.db, account.agent("tester"))
        assert hold and hold.why.startswith("limited until ") and hold.until == AT_FIVE
        assert holds.of_account(account.db, account.team[0].config_dir) == hold
        assert holds.of_account(account.db, others[0].config_dir) is None
        assert holds.state_of(account.db, account.agent("tester")) is AgentState.LIMITED
        account.be("tester", "busy")
        assert holds.state_of(account.db, account.agent("tester")) is AgentState.WORKING
        (notice,) = account.db.execute("SELECT kind, title FROM notices").fetchall()
        assert notice["kind"] == "limit" and "limited until" in notice["title"]

    def test_what_is_told_twice_or_by_several_is_one_limit(self, account: Account) -> None:
        for role in ROLES:
            account.refuse(role, NOON)
        account.refuse("tester", NOON)  # the spool is read again after a crash
        account.write_refusal("tester", NOON + 100, AT_FIVE + 30 * SECOND)
        account.govern(NOON + 200)
        assert (account.events("limit.hit"), account.events("limit.again")) == (1, 0)
        assert account.limit.source is LimitSource.TRANSCRIPT, "the words leave out the seconds"
        assert account.limit.resets_at == AT_FIVE + 30 * SECOND
        assert account.limit.look_at == AT_FIVE + 90 * SECOND
        assert len(account.db.execute("SELECT 1 FROM notices").fetchall()) == 1

    def test_the_entry_of_an_earlier_refusal_says_nothing_of_a_later_one(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.write_refusal("developer", NOON + 100, AT_FIVE)
        account.govern(AT_FIVE + MINUTE)
        again = AT_FIVE + 2 * MINUTE
        account.refuse("developer", again, AT_SIX)
        account.govern(again + 50)  # its entry is still to come
        assert account.limit.resets_at == AT_FIVE + HOUR
        account.write_refusal("developer", again + 100, AT_FIVE + HOUR + 9 * SECOND)
        account.govern(again + 200)
        assert account.limit.resets_at == AT_FIVE + HOUR + 9 * SECOND

    def test_a_later_limit_takes_the_place_of_an_earlier_one(self, account: Account) -> None:
        account.refuse("developer", NOON)
        weekly = ("rate_limit", "You've hit your weekly limit · resets Dec 9, 5pm (UTC)", "seven_day")
        account.refuse("tester", NOON + MINUTE, weekly)
        account.refuse("orchestrator", NOON + 2 * MINUTE)
        assert (account.limit.kind, account.limit.resets_at) == (LimitKind.WEEKLY, AT_FIVE + 96 * HOUR)
        assert (account.events("limit.hit"), account.events("limit.moved")) == (1, 1)

    def test_a_transcript_tells_when_no_hook_has(self, account: Account) -> None:
        account.answer("developer", NOON - MINUTE)
        account.govern(NOON - MINUTE)
        assert account.held() == set()
        account.write_refusal("developer", NOON, AT_FIVE)
        account.govern(NOON + 20 * SECOND)
        assert account.held() == set(ROLES) and account.limit.source is LimitSource.TRANSCRIPT

    def test_a_file_that_is_cut_or_gone_is_left_out_and_counted(self, account: Account) -> None:
        path = account.write("developer", NOON)
        account.govern(NOON)
        path.write_bytes(b'\xff\xfe{"type": "assistant", "isApiErr')
        account.govern(NOON + 20 * SECOND)
        path.unlink()
        account.govern(NOON + 40 * SECOND)
        assert account.observation.failures == 1 and account.held() == set()
        account.write_refusal("developer", NOON + 50 * SECOND, AT_FIVE)
        account.govern(NOON + 60 * SECOND)
        assert account.held() == set(ROLES)

    def test_a_guest_shares_the_limit_of_its_account(self, account: Account) -> None:
        account.db.execute(
            "INSERT INTO agents (id, session, role, window, program, config_dir, worktree, conversation_id)"
            " VALUES (90, 'mine', 'guest', 0, 'claude', ?, '/x', 'g')",
            (str(account.team[0].config_dir),),
        )
        guest = agents.get(account.db, 90)
        account.refuse("developer", NOON)
        assert holds.of(account.db, guest)
        account.end_well("developer", NOON + HOUR)
        assert holds.of(account.db, guest) is None, "nobody tells it to go on, and it waits for nobody"


class TestResume:
    def test_one_goes_first_and_the_others_follow_when_it_is_seen_at_work(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.refuse("tester", NOON + SECOND)
        assert account.govern(AT_FIVE) == [AT_FIVE + 60 * SECOND]
        assert account.held() == set(ROLES)
        at = AT_FIVE + 60 * SECOND
        account.govern(at)
        assert account.held() == {"orchestrator", "tester"} and account.told() == ["developer"]
        for later in range(2, 100, 2):
            account.govern(at + later * SECOND)
        assert account.held() == {"orchestrator", "tester"} and account.told() == ["developer"]
        at += 100 * SECOND
        account.answer("developer", at)
        assert account.govern(at + SECOND) == [at + SECOND]
        assert account.events("limit.over") == 1
        account.govern(at + SECOND)
        assert account.held() == set() and account.told() == ["developer", "tester"]
        assert account.limit.ended_at is not None

    def test_those_that_follow_go_five_seconds_apart(self, account: Account) -> None:
        for number, role in enumerate(ROLES):
            account.refuse(role, NOON + number * SECOND)
        account.govern(AT_FIVE + MINUTE)
        account.end_well("orchestrator", AT_FIVE + 2 * MINUTE)
        at = AT_FIVE + 2 * MINUTE
        assert account.govern(at) == [at + 5 * SECOND]
        assert account.told() == ["orchestrator", "developer"]
        assert account.govern(at + 4 * SECOND) == [at + 5 * SECOND]
        assert account.govern(at + 5 * SECOND) == []
        assert account.told() == ["orchestrator", "developer", "tester"] and account.held() == set()

    def test_it_is_still_in_force_at_its_reset(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.govern(AT_FIVE + MINUTE)
        account.refuse("developer", AT_FIVE + 61 * SECOND, AT_SIX)
        assert account.held() == set(ROLES)
        assert account.govern(AT_FIVE + 2 * MINUTE) == [AT_FIVE + HOUR + MINUTE]
        account.govern(AT_FIVE + HOUR + MINUTE)
        account.end_well("developer", AT_FIVE + HOUR + 2 * MINUTE)
        account.govern(AT_FIVE + HOUR + 2 * MINUTE)
        assert account.told() == ["developer", "developer"], "once for each refusal"
        assert (account.events("limit.hit"), account.events("limit.again")) == (1, 1)

    def test_one_that_follows_is_refused_and_all_wait_again(self, account: Account) -> None:
        for number, role in enumerate(ROLES):
            account.refuse(role, NOON + number * SECOND)
        account.govern(AT_FIVE + MINUTE)
        over = AT_FIVE + 2 * MINUTE
        account.end_well("orchestrator", over)
        account.govern(over)
        account.refuse("developer", over + SECOND, AT_SIX)
        assert account.held() == set(ROLES)
        assert account.govern(over + 10 * SECOND) == [AT_FIVE + HOUR + MINUTE]
        assert account.told() == ["orchestrator", "developer"]

    def test_a_reset_that_lies_behind_is_tried_less_and_less_often(self, account: Account) -> None:
        account.refuse("developer", NOON)
        at, waits = AT_FIVE + MINUTE, []
        for _ in range(3):
            account.govern(at)
            account.refuse("developer", at + SECOND, FIVE_HOUR)
            look_at = account.limit.look_at
            assert look_at
            waits.append(round((look_at - at) / MINUTE))
            at = look_at
        assert waits == [2, 4, 8]

    def test_a_time_that_cannot_be_read_means_a_look_in_a_quarter_of_an_hour(self, account: Account) -> None:
        account.refuse("developer", NOON, UNREADABLE)
        hold = holds.of(account.db, account.agent("tester"))
        assert hold and "looked at again at" in hold.why
        assert account.govern(NOON + MINUTE + 1) == [NOON + 15 * MINUTE]
        account.govern(NOON + 15 * MINUTE)
        assert account.told() == ["developer"]

    def test_the_window_is_the_last_to_be_asked(self, account: Account) -> None:
        shown = (Path(__file__).parents[1] / "unit/screens/limit-five-80x24-classic.ansi").read_text()
        account.refuse("developer", NOON, UNREADABLE)
        account.govern(NOON + SECOND, shown=shown)
        assert account.limit.source is LimitSource.SCREEN
        assert account.limit.resets_at and NOON < account.limit.resets_at < NOON + 24 * HOUR

    def test_when_nobody_waits_for_it_a_limit_just_ends(self, account: Account) -> None:
        account.refuse("developer", NOON)
        os.kill(account.processes[1].pid, signal.SIGKILL)
        account.processes[1].wait()
        account.govern(AT_FIVE + MINUTE)
        account.govern(AT_FIVE + MINUTE)
        assert account.limit.ended_at and account.told() == [] and account.held() == set()

    def test_the_first_may_be_one_that_only_has_messages(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.be("developer", "busy")
        os.kill(account.processes[1].pid, signal.SIGKILL)
        account.processes[1].wait()
        account.say("tester", "hello")
        account.govern(AT_FIVE + MINUTE)
        assert account.held() == {"orchestrator", "developer"} and account.told() == []

    def test_the_first_does_not_move_so_another_one_tries(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.refuse("tester", NOON + SECOND)
        account.govern(AT_FIVE + MINUTE)
        account.govern(AT_FIVE + 3 * MINUTE)
        assert account.told() == ["developer"]
        account.govern(AT_FIVE + 4 * MINUTE)
        assert account.told() == ["developer", "tester"]
        assert account.held() == {"orchestrator", "developer"}
        account.be("tester", "busy")  # it thinks for long
        account.govern(AT_FIVE + 40 * MINUTE)
        account.answer("tester", AT_FIVE + 41 * MINUTE)
        account.govern(AT_FIVE + 41 * MINUTE)
        account.govern(AT_FIVE + 41 * MINUTE)
        assert account.told() == ["developer", "tester"], "its note waits, and is not written again"

    def test_a_successor_knows_all_and_takes_nothing_old_for_new(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.write_refusal("developer", NOON + 100, AT_FIVE)
        account.govern(NOON + SECOND)
        account.observation = governor.Observation()  # killed and started again
        account.govern(AT_FIVE + MINUTE)
        account.observation = governor.Observation()
        account.end_well("developer", AT_FIVE + 2 * MINUTE)
        account.govern(AT_FIVE + 2 * MINUTE)
        account.observation = governor.Observation()
        account.govern(AT_FIVE + 3 * MINUTE)
        assert account.limit.ended_at and account.told() == ["developer"]
        assert account.events("limit.hit") == 1

    @pytest.mark.parametrize("moment", ["tried", "released"])
    def test_a_daemon_that_dies_between_any_two_writes_tells_nobody_twice(self, account: Account, moment: str) -> None:
        for number, role in enumerate(ROLES):
            account.refuse(role, NOON + number * SECOND)
        at = AT_FIVE + MINUTE
        if moment == "released":
            account.govern(at)
            account.end_well("orchestrator", at + SECOND)
            at += MINUTE
        expected = 1 if moment == "tried" else 2
        for number in range(1, 200):
            done = govern_until_killed(account, at, number)
            assert len(account.told()) <= expected
            if done:
                break
        assert number > 3 and len(account.told()) == expected


def govern_until_killed(account: Account, now: int, number: int) -> bool:
    """Govern in a process that kills itself before its write of this number. Returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        db, count = store.connect(account.folder / "state"), 0

        def look(statement: str) -> None:
            nonlocal count
            count += statement.lstrip().upper().startswith(("INSERT", "UPDATE", "COMMIT"))
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            db.set_trace_callback(look)
            governor.govern(db, governor.Observation(), now=now, terms=TERMS)
            os._exit(0)
        finally:  # whatever happens, it is not to go on as a second run of the tests
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code == 0


class TestByItself:
    """The real client goes on by itself after a reset within a day; the rehearsal does not."""

    @pytest.fixture(autouse=True)
    def real(self, account: Account) -> None:
        account.db.execute("UPDATE agents SET program = 'claude'")

    def test_who_goes_on_by_itself_is_not_told(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.refuse("tester", NOON + SECOND)
        account.govern(AT_FIVE + MINUTE)
        assert account.told() == [] and account.held() == set(ROLES)
        for role in ("developer", "tester"):
            account.hook(role, "Notification", AT_FIVE + 76 * SECOND, notification="quota_auto_resume_fired")
            prompt = "Your claude.ai usage limit has reset. Continue the task you were working on"
            account.hook(role, "UserPromptSubmit", AT_FIVE + 76 * SECOND, prompt=prompt)
        account.hook("tester", "Stop", AT_FIVE + 80 * SECOND)
        account.govern(AT_FIVE + 81 * SECOND)
        account.govern(AT_FIVE + 90 * SECOND)
        assert account.limit.ended_at and account.told() == [] and account.held() == set()

    def test_who_has_not_in_three_minutes_is(self, account: Account) -> None:
        account.refuse("developer", NOON)
        for seconds in range(60, 180, 2):
            account.govern(AT_FIVE + seconds * SECOND)
        assert account.told() == []
        account.govern(AT_FIVE + 3 * MINUTE)
        assert account.told() == ["developer"]

    @pytest.mark.parametrize(
        ("screen", "told"),
        [
            ("limit-five-80x24-classic", []),
            ("empty-bypass-80x24-classic", ["developer"]),  # somebody has pressed Escape
        ],
    )
    def test_its_window_says_whether_it_will(self, account: Account, screen: str, told: list[str]) -> None:
        found = next((Path(__file__).parents[1] / "unit" / "screens").glob(f"{screen.rsplit('-', 2)[0]}-*classic*"))
        account.refuse("developer", NOON)
        account.govern(AT_FIVE + MINUTE, shown=found.read_text())
        assert account.told() == told

    def test_who_has_just_gone_on_is_not_told_though_its_hook_is_still_on_the_way(self, account: Account) -> None:
        screens = Path(__file__).parents[1] / "unit" / "screens"
        account.refuse("developer", NOON)
        account.govern(AT_FIVE + MINUTE, shown=next(screens.glob("limit-five-*classic*")).read_text())
        account.be("developer", "busy")
        account.govern(AT_FIVE + 77 * SECOND, shown=next(screens.glob("empty-bypass-*classic*")).read_text())
        assert account.told() == []

    def test_who_was_started_again_meanwhile_does_not_and_has_a_note_of_its_own(self, account: Account) -> None:
        account.refuse("developer", NOON)
        agent = account.agent("developer")
        agents.start_epoch(account.db, agent.id, conversation_id=agent.conversation_id)
        account.start(agent)
        account.say("developer", "You were interrupted.")
        account.govern(AT_FIVE + MINUTE)
        assert account.told() == [] and account.held() == {"orchestrator", "tester"}

    def test_a_limit_that_is_over_early_leaves_nobody_waiting_for_its_reset(self, account: Account) -> None:
        account.refuse("developer", NOON)
        account.refuse("tester", NOON + SECOND)
        account.end_well("developer", NOON + HOUR)  # a person has gone on, and it worked
        account.govern(NOON + HOUR)
        assert account.told() == ["tester"] and account.held() == set()


class TestSuccess:
    @pytest.mark.parametrize(
        ("began", "ended", "is_over"),
        [
            (10, 20, True),  # asked and answered after the refusal
            (-300, 20, False),  # it was answered before, and has only come to its end
            (-300, 90, True),  # nothing that was answered before ends so late
        ],
    )
    def test_a_turn_of_another_agent(self, account: Account, began: int, ended: int, is_over: bool) -> None:
        account.refuse("developer", NOON)
        account.hook("tester", "UserPromptSubmit", NOON + began * SECOND, prompt="x")
        account.hook("tester", "Stop", NOON + ended * SECOND)
        assert (account.limit.over_at is not None) is is_over


class TestOthers:
    def test_an_overloaded_service_is_one_agents_and_its_pauses_grow(self, account: Account) -> None:
        at, pauses = NOON, []
        for _ in range(4):
            account.refuse("developer", at, OVERLOADED)
            assert account.held() == {"developer"}
            look_at = account.limit.look_at
            assert look_at
            pauses.append((look_at - at) // MINUTE)
            account.govern(look_at)
            assert account.held() == set()
            at = look_at + 2 * SECOND
        assert pauses == [1, 2, 5, 10] and account.told() == ["developer"] * 4
        account.end_well("developer", at)
        account.govern(at)
        assert account.limit.ended_at
        assert account.db.execute("SELECT 1 FROM notices").fetchall() == []

    def test_a_logged_out_account_needs_a_person_and_no_retry(self, account: Account) -> None:
        account.refuse("developer", NOON, LOGGED_OUT)
        found = orchestrations.live(account.db)[0]
        assert found.status is OrchestrationStatus.NEEDS_ATTENTION
        assert "claude auth login" in (found.outcome or "") and "--resume" in (found.outcome or "")
        assert account.govern(NOON + 24 * HOUR) == [] and account.told() == []
        kinds = [row["kind"] for row in account.db.execute("SELECT kind FROM notices")]
        assert kinds == ["needs_attention"]
        limits.lift(account.db, found.config_dir, now=NOON + 25 * HOUR)
        assert account.held() == set() and account.told() == ["developer"]
        assert orchestrations.live(account.db)[0].status is OrchestrationStatus.RUNNING

    def test_a_team_that_begins_on_such_an_account_needs_attention_too(self, account: Account) -> None:
        account.refuse("developer", NOON, LOGGED_OUT)
        (team,) = a_team(account.db, "developer", name="later", home=account.folder)
        account.govern(NOON + MINUTE)
        assert team.orchestration_id
        found = orchestrations.get(account.db, team.orchestration_id)
        assert found.status is OrchestrationStatus.NEEDS_ATTENTION

    def test_a_person_logs_in_elsewhere_and_the_usage_is_used_up(self, account: Account) -> None:
        account.refuse("developer", NOON, LOGGED_OUT)
        account.refuse("tester", NOON + HOUR)
        assert account.limit.kind is LimitKind.FIVE_HOUR
        assert orchestrations.live(account.db)[0].status is OrchestrationStatus.RUNNING
        kinds = [row["kind"] for row in account.db.execute("SELECT kind FROM notices ORDER BY id")]
        assert kinds == ["needs_attention", "limit"]

    def test_a_clock_that_is_set_back_makes_nobody_wait_for_it(self, account: Account) -> None:
        account.refuse("developer", NOON, UNREADABLE)
        account.govern(NOON - 24 * HOUR)
        assert account.told() == ["developer"]

    def test_the_queue_claims_nothing_for_a_limited_account(self, account: Account) -> None:
        home, project = account.folder / "state", account.folder / "new"
        entries.add(account.db, [entries.NewEntry(project / "spec.md", "# x", project)], now=NOON)
        (entry,) = entries.every(account.db)
        settings = Settings(agent=account.team[0].program)
        account.db.execute("UPDATE agents SET config_dir = ?", (str(home / "rehearsal"),))
        assert draining.hold_of(account.db, home, settings, entry, now=NOON) is None
        account.refuse("developer", NOON)
        assert draining.hold_of(account.db, home, settings, entry, now=NOON)
        assert entries.claim(account.db, now=NOON, max_concurrent=9, is_held=lambda one: True) is None
        assert entries.claim(account.db, now=NOON, max_concurrent=9) is not None


class TestFiveHours:
    def test_a_pause_of_five_hours_ends_nothing_and_comes_back_as_one_message_each(self, account: Account) -> None:
        db, home = account.db, account.folder / "state"
        developer, tester = account.agent("developer"), account.agent("tester")
        asked, _ = authorizations.request(db, developer, tester, "May I?", minutes=30, now=NOON - MINUTE)
        checkins.add(db, developer.id, "How is it?", now=NOON, minutes=30, recurring=True)
        every = Terms(catch_up=CatchUp.ALL)
        checkins.add(db, tester.id, "And you?", now=NOON, minutes=10, recurring=True, terms=every)
        checkins.add(db, tester.id, "Once.", now=NOON, minutes=20)
        account.refuse("developer", NOON + SECOND)
        account.refuse("tester", NOON + SECOND)
        before = len(messages.find(db, limit=100))
        life = daemon.Life(Settings(), Noted(home))
        beats = 0
        for now in range(NOON + MINUTE, AT_FIVE, 5 * MINUTE):
            beat = daemon.tick(db, Tmux("no-such-server"), home, now=now, life=life)
            assert not beat.failed and beat.waiting == []
            assert min(beat.dues, default=now + 1) > now
            beats += 1
        assert beats == 60 and len(messages.find(db, limit=100)) == before
        assert checkins.next_due(db, is_held=lambda agent: holds.of(db, agent) is not None) is None
        assert authorizations.get(db, asked.id).status is AuthorizationStatus.PENDING
        assert {one.status for one in orchestrations.live(db)} == {OrchestrationStatus.RUNNING}
        assert [account.events(kind) for kind in ("agent.nudged", "agent.stuck", "check_in.skipped")] == [0, 0, 0]
        # The limit is over.
        account.govern(AT_FIVE + MINUTE)
        account.end_well("developer", AT_FIVE + 2 * MINUTE)
        over = AT_FIVE + 2 * MINUTE
        account.govern(over)
        checkins.fire_due(db, now=over + 10 * SECOND, is_held=lambda agent: holds.of(db, agent) is not None)
        bodies = [one.body for one in messages.find(db, limit=100) if one.kind is MessageKind.CHECK_IN]
        assert sorted(body.partition(": ")[2] for body in bodies) == ["And you?", "How is it?", "Once."]
        assert authorizations.get(db, asked.id).due_at == NOON + 29 * MINUTE + (over - NOON - SECOND)


def test_a_hold_of_an_agent_that_nobody_knows_is_none(account: Account) -> None:
    assert holds.of(account.db, an_agent(id=77, config_dir=Path("/elsewhere"))) is None
