"""Moments and the timeline: the store, the recording and windows of tmux are real."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from lib import criteria, host, messages, moments, orchestrations, recordings, store
from lib.front import times
from lib.judgement.specs import Criterion
from lib.models import AgentState, CriterionState, MessageKind, MessageStatus, OrchestrationStatus
from lib.moments import Change, Known, Moment
from tests import terminals
from tests.conftest import ROOT
from tests.integration.still_team import StillTeam, still_team
from tests.integration.test_recording import RED, SECOND, Studio

__all__ = ["still_team"]


class Story(Studio):
    """A team to which things happen, each at a time of its own."""

    def __init__(self, team: StillTeam) -> None:
        super().__init__(team)
        # It began an hour ago: a person looks back at it.
        with store.writing(self.db):
            self.db.execute("UPDATE orchestrations SET created_at = created_at - 3600000")
            self.db.execute("UPDATE events SET at = at - 3600000")
        self.began = orchestrations.get(self.db, team.id).created_at
        self.now = self.began + 600 * SECOND

    def later(self, seconds: float = 1) -> int:
        self.now += round(seconds * SECOND)
        return self.now

    def happens(self, kind: str, role: str | None = None, *, message: int | None = None, **data: object) -> int:
        at = self.later()
        agent = self.team.agent(role).id if role else None
        with store.writing(self.db):
            store.record(self.db, kind, now=at, orchestration=self.team.id, agent=agent, message=message, **data)
        return at

    def sends(self, role: str, text: str) -> int:
        agent, at = self.team.agent(role), self.later()
        return messages.queue(self.db, agent, text, sender="tester", kind=MessageKind.MESSAGE, now=at).id

    def moment(self, at: int | None = None, *, minutes: float = 10) -> Moment:
        when = self.now if at is None else at
        recording = recordings.reader(self.bench.home)
        try:
            return moments.look(self.db, recording, when, since=when - round(minutes * 60 * SECOND))
        finally:
            if recording:
                recording.close()

    def state(self, role: str, at: int | None = None) -> AgentState | None:
        (team,) = self.moment(at).teams
        return next(agent.state for agent in team.agents if agent.role == role)

    def status(self, message: int, at: int) -> MessageStatus | None:
        return next((one.status for one in self.moment(at).messages if one.message.id == message), None)


@pytest.fixture
def story(still_team: StillTeam) -> Iterator[Story]:
    made = Story(still_team)
    yield made
    made.recorder.close()


class TestMoment:
    def test_before_its_launch_a_team_is_not_there(self, story: Story) -> None:
        assert story.moment(story.began - 1).teams == ()
        (team,) = story.moment(host.now_ms()).teams
        assert (team.session, team.status) == ("webapp-impl", OrchestrationStatus.RUNNING)
        assert [agent.role for agent in team.agents] == ["orchestrator", "developer", "tester", "testrunner"]

    def test_an_orchestration_has_the_status_that_it_had_then(self, story: Story) -> None:
        paused = story.happens("pause.begun")
        on = story.happens("pause.over")
        ended = story.later()
        orchestrations.set_status(story.db, story.team.id, OrchestrationStatus.FAILED, now=ended, outcome="why")
        seen = {at: story.moment(at).teams[0] for at in (paused, on, ended - 1, ended)}
        assert [seen[at].status for at in (paused, ended - 1, ended)] == ["running", "running", "failed"]
        assert [seen[at].is_paused for at in (paused - 1, paused, on) if at in seen] == [True, False]
        assert story.moment(ended + moments.SHOWN_AFTER_END_MS + 1).teams == ()

    def test_what_an_agent_did_is_told_by_its_events_while_nothing_is_recorded(self, story: Story) -> None:
        first = story.later()
        steps = [
            (story.happens("agent.starting", "developer"), AgentState.STARTING),
            (story.happens("hook.SessionStart", "developer"), AgentState.IDLE),
            (
                story.happens("message.acknowledged", "developer", message=story.sends("developer", "go")),
                AgentState.WORKING,
            ),
            (story.happens("hook.Notification", "developer", about="permission_prompt"), AgentState.ASKING),
            (story.happens("hook.Notification", "developer", about="auto_continued"), AgentState.WORKING),
            (story.happens("hook.Stop", "developer"), AgentState.IDLE),
            (story.happens("limit.hit", "developer", about="five hours", said="no"), AgentState.LIMITED),
            (story.happens("hook.SessionEnd", "developer"), AgentState.GONE),
        ]
        assert story.state("developer", first) is None
        assert [story.state("developer", at) for at, _ in steps] == [state for _, state in steps]
        assert story.state("tester") is None

    def test_who_was_stopped_is_gone_from_then_on(self, story: Story) -> None:
        working = story.happens("hook.SessionStart", "developer")
        stopped = story.later()
        orchestrations.set_status(story.db, story.team.id, OrchestrationStatus.STOPPED, now=stopped)
        assert [story.state("developer", at) for at in (working, stopped)] == [AgentState.IDLE, AgentState.GONE]

    def test_what_was_seen_counts_more_than_what_was_told(self, story: Story) -> None:
        story.happens("hook.SessionEnd", "tester")
        story.look()
        (team,) = story.moment().teams
        tester = next(agent for agent in team.agents if agent.role == "tester")
        assert (tester.state, tester.was_seen) == (AgentState.STARTING, True)  # its process lives

    def test_a_message_has_the_status_that_it_had_then(self, story: Story) -> None:
        number = story.sends("developer", "hello")
        queued = story.now
        agent, message = story.team.agent("developer"), messages.get(story.db, number)
        pasted = story.later()
        messages.pasting(story.db, message, agent, now=pasted)
        submitted = story.later()
        messages.submitting(story.db, message, agent, now=submitted)
        arrived = story.later()
        messages.confirm(story.db, agent, message, now=arrived)
        assert story.status(number, queued - 1) is None
        assert [story.status(number, at) for at in (queued, pasted, submitted, arrived)] == [
            *("queued", "pasted", "submitted", "acknowledged"),
        ]
        assert story.status(number, arrived + 11 * 60 * SECOND) is None  # it is not of these ten minutes

    @pytest.mark.parametrize("how", ["ended", "given up"])
    def test_a_message_that_never_arrives_says_so_from_then_on(self, story: Story, how: str) -> None:
        number = story.sends("developer", "hello")
        before, after = story.now, story.later()
        if how == "ended":
            orchestrations.set_status(story.db, story.team.id, OrchestrationStatus.STOPPED, now=after)
        else:
            message, agent = messages.get(story.db, number), story.team.agent("developer")
            messages.fail(story.db, message, agent, "no way", now=after)
        assert story.status(number, before) == "queued"
        assert story.status(number, after) == ("cancelled" if how == "ended" else "failed")

    def test_criteria_stand_as_they_stood(self, story: Story) -> None:
        with store.writing(story.db):
            criteria.begin(
                story.db,
                story.team.id,
                [Criterion("C1", "It works", "true", 1), Criterion("C2", "It is nice", None, 2)],
            )
        checked = story.happens("criterion.holds", criterion="C1", text="It works")
        closed = story.happens("criterion.closed", criterion="C2", text="It is nice", by="user", reason="looked")
        broken = story.happens("criterion.fails", criterion="C1", text="It works")
        opened = story.happens("criterion.reopened", criterion="C2", text="It is nice", by="user")
        found = [[one.state for one in story.moment(at).teams[0].criteria] for at in (checked, closed, broken, opened)]
        assert found == [
            [CriterionState.HOLDS, CriterionState.OPEN],
            [CriterionState.HOLDS, CriterionState.CLOSED],
            [CriterionState.FAILS, CriterionState.CLOSED],
            [CriterionState.FAILS, CriterionState.OPEN],
        ]

    def test_a_screen_is_known_blank_gone_or_not_recorded(self, story: Story) -> None:
        story.shows("developer", "words\r\n")
        story.bench.tmux.run("kill-pane", "-t", story.team.agent("tester").pane_id or "")
        story.look()
        screens = {agent.role: agent.screen for agent in story.moment().teams[0].agents}
        assert {role: screen.known for role, screen in screens.items()} == {
            "orchestrator": Known.SHOWN,
            "developer": Known.SHOWN,
            "tester": Known.NO_WINDOW,
            "testrunner": Known.SHOWN,
        }
        assert screens["orchestrator"].picture and screens["orchestrator"].picture.text == ""
        (team,) = story.moment(story.now - 1).teams
        assert {agent.screen.known for agent in team.agents} == {Known.NOT_RECORDED}

    def test_of_many_events_the_newest_are_there(self, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(moments, "MOST", 3)
        times = [story.happens("branch.moved", "developer", new=str(number)) for number in range(5)]
        assert [event.at for event in story.moment().events] == times[-3:]


class TestCompare:
    def test_it_says_what_has_changed_and_nothing_else(self, story: Story) -> None:
        with store.writing(story.db):
            criteria.begin(story.db, story.team.id, [Criterion("C1", "It works", "true", 1)])
        story.shows("developer", "one\r\ntwo\r\n")
        story.look()
        old = story.sends("tester", "still waiting")
        before = story.moment()
        agent, message = story.team.agent("tester"), messages.get(story.db, old)
        messages.pasting(story.db, message, agent, now=story.later())  # and back again
        messages.requeue(story.db, messages.get(story.db, old), agent, "not there", now=story.later())
        number = story.sends("developer", "hello")
        message, agent = messages.get(story.db, number), story.team.agent("developer")
        messages.confirm(story.db, agent, message, now=story.later())
        story.happens("criterion.holds", criterion="C1", text="It works")
        commit = story.happens("branch.moved", "developer", old="0" * 40, new="1" * 40)
        story.shows("developer", f"{RED}three\x1b[0m\r\n")
        story.bench.tmux.run("kill-pane", "-t", story.team.agent("tester").pane_id or "")
        story.look()
        after = story.moment()
        found = moments.compare(story.db, after, before)  # in either order
        assert (found.since, found.until) == (before.at, after.at)
        assert found.criteria == (Change("webapp-impl C1", "open", "holds"),)
        assert [(one.message.id, one.status, was) for one, was in found.messages] == [(number, "acknowledged", None)]
        assert [event.at for event in found.commits] == [commit]
        changed = {one.target: one for one in found.screens}
        assert sorted(changed) == ["webapp-impl:developer", "webapp-impl:tester"]
        assert changed["webapp-impl:developer"].diff[-3:] == (" one", " two", "+three")
        assert changed["webapp-impl:tester"].after is Known.NO_WINDOW
        assert old not in [one.message.id for one, _ in found.messages]
        nothing = moments.compare(story.db, after, after)
        assert (nothing.agents, nothing.messages, nothing.commits, nothing.screens) == ((), (), (), ())

    def test_of_many_changes_the_newest_are_there(self, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(moments, "MOST", 2)
        before = story.moment()
        sent = [story.sends("developer", f"number {number}") for number in range(4)]
        times = [story.happens("branch.moved", "developer", new=str(number)) for number in range(4)]
        found = moments.compare(story.db, before, story.moment())
        assert [one.message.id for one, _ in found.messages] == sent[-2:]
        assert [event.at for event in found.commits] == times[-2:]


class TestVerbs:
    def test_the_timeline_tells_what_happened_with_its_time(self, story: Story) -> None:
        story.happens("report.completion", "developer", commit="a" * 40, summary="done")
        story.happens("hook.Stop", "developer")
        text = story.team.control("timeline", "webapp-impl")
        assert text.code == 0, text.err
        assert (
            f"{times.full(story.now - SECOND)[11:]}  developer reports completion with commit aaaaaaa: done" in text.out
        )
        told = story.team.control("timeline", "webapp-impl", "--json").json
        kinds = [event["kind"] for event in told["events"]]
        assert kinds[-2:] == ["report.completion", "hook.Stop"]
        assert [event["text"] for event in told["events"] if event["kind"] == "hook.Stop"] == [None]

    def test_a_stretch_and_a_limit_choose(self, story: Story) -> None:
        times = [story.happens("branch.moved", "developer", new=f"{number:040}") for number in range(6)]
        words = ("timeline", "webapp-impl", "--since", str(times[1]), "--until", str(times[4]), "--json")
        assert [event["at"] for event in story.team.control(*words).json["events"]] == times[2:5]
        found = story.team.control(*words, "--limit", "2").json
        assert ([event["at"] for event in found["events"]], found["left_out"]) == (times[3:5], 1)
        assert "1 earlier events are left out" in story.team.control(*words[:-1], "--limit", "2").out

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (("timeline", "nobody"), 3, "no team in session 'nobody'"),
            (("timeline", "--since", "1h", "--until", "2h"), 2, "must be before"),
            (("moment",), 2, "say when"),
            (("moment", "--at", "2999-01-01"), 2, "has not come yet"),
            (("moment", "--at", "soon"), 2, "TIME must be like"),
            (("moment", "nobody", "--at", "now"), 3, "no team in session 'nobody'"),
        ],
    )
    def test_what_cannot_be_shown_is_said(self, story: Story, words: tuple[str, ...], code: int, said: str) -> None:
        done = story.team.control(*words)
        assert (done.code, said in done.err) == (code, True), done.err

    def test_a_moment_is_shown_with_its_screens(self, story: Story) -> None:
        story.shows("developer", f"{RED}words\x1b[0m\r\n")
        story.look(1)
        at = str(story.now)
        short, long = (story.team.control("moment", "--at", at, *more).out for more in ((), ("--screens",)))
        assert "words" not in short and "webapp-impl: running" in short
        assert "words" in long and "\x1b" not in long  # it is no terminal
        assert "(blank)" in long
        data = story.team.control("moment", "--at", at, "--screens", "--json").json
        developer = data["teams"][0]["agents"][1]
        assert developer["screen"]["known"] == "shown" and f"{RED}words" in developer["screen"]["picture"]["text"]
        assert (
            "text"
            not in story.team.control("moment", "--at", at, "--json").json["teams"][0]["agents"][1]["screen"]["picture"]
        )
        assert "not recorded" in story.team.control("moment", "--at", str(story.now - SECOND), "--screens").out

    def test_two_moments_are_compared(self, story: Story) -> None:
        story.look()
        first = story.now
        story.shows("developer", "words\r\n")
        story.sends("developer", "hello")
        story.look()
        words = ("moment", "webapp-impl", "--at", str(first), "--compare", str(story.now))
        assert "screens that changed: webapp-impl:developer (--screens shows how)" in story.team.control(*words).out
        shown = story.team.control(*words, "--screens").out
        assert "\n+words\n" in f"{shown}\n" and "hello" in shown
        assert story.team.control(*words, "--json").json["messages"][0]["body"] == "hello"
        same = story.team.control("moment", "--at", str(first), "--compare", str(first)).out
        assert "nothing has changed" in same

    def test_a_damaged_recording_is_said_and_the_timeline_goes_without(self, story: Story) -> None:
        recordings.path_in(story.bench.home).write_bytes(b"no database at all " * 500)
        done = story.team.control("moment", "--at", "now")
        assert done.code == 5 and "cannot be read" in done.err
        assert story.team.control("timeline").code == 0

    def test_text_of_others_commands_no_terminal(self, story: Story) -> None:
        evil = "\x1b]0;owned\x07 \x1b[2Jx\x9b31m\ny"
        story.happens("report.completion", "developer", commit="a" * 40, summary=evil)
        story.shows("developer", f"{RED}red\x1b[0m \x1b]0;owned\x07\r\n")
        story.look(1)
        at = str(story.now)
        for words in (("timeline",), ("moment", "--at", at, "--screens"), ("moment", "--at", at, "--compare", "now")):
            for more in ((), ("--json",)):
                out = on_terminal(story, *words, *more)
                left = out.replace(RED, "").replace("\x1b[39m", "").replace("\x1b[0m", "").replace("\r\n", "\n")
                assert [char for char in left if char != "\n" and (char < " " or "\x7f" <= char < "\xa0")] == []
        assert RED in on_terminal(story, "moment", "--at", at, "--screens")


def on_terminal(story: Story, *words: str) -> str:
    """What a verb writes to a terminal."""
    command = [sys.executable, str(ROOT / "claude_control.py"), *words]
    code, found = terminals.written(command, story.bench.environment, stdout=True)
    assert code == 0, found
    return found
