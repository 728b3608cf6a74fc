"""Messages by several ways to the same kind of agent, in turns, under the conditions in which messages get lost."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

from benchmarks import ways
from benchmarks.figures import Alternative, Figure
from benchmarks.machine import claude, claude_binary, rehearsal, wait_for
from benchmarks.results import Unit
from benchmarks.teams import FIVE, HOLDS, Counts, launch
from benchmarks.ways import OURS, ByDelivery, ByDoor, ByKeys, Seat, Way
from lib.errors import NotFound
from lib.models import AgentState
from lib.probing.model import ModelServer, Request, stream_slowly, tool

#: So long after a way has done its work, and after nothing is in the way of a message, it counts as lost; one that its
#: way itself has put off is waited for.
_LOST_SECONDS, _PUT_OFF_SECONDS = 3.0, 20.0
_LOOK_AGAIN_SECONDS = 0.25
_BUSY_SECONDS = 2.0
#: Until somebody has seen a question and says no.
_ANSWERED_AFTER_SECONDS = 1.5


# -- what is in the way of it --


def _line(number: int) -> str:
    return f"Message {number:04d}: please look at the login page."


def _long(number: int) -> str:
    return (_line(number) + " ") * 200 + "That is all."


def _lines(number: int) -> str:
    return "\n".join([_line(number), *(f"- point {point} of it" for point in range(19))])


def _with_backslash(number: int) -> str:
    return f"{_line(number)} It is below C:\\"


@dataclass(frozen=True)
class Condition:
    name: str
    text: Callable[[int], str] = _line
    before: Callable[[Seat], None] = lambda seat: None
    is_question: bool = False


@dataclass(frozen=True)
class Outcome:
    has_arrived: bool
    is_told: bool
    seconds: float | None
    has_approved: bool = False


def _try(way: Way, condition: Condition, number: int, has_approved: Callable[[Seat, int], bool]) -> Outcome:
    seat, text = way.seat, condition.text(number)
    seat.tidy()
    condition.before(seat)
    start, began, is_sent = seat.size(), time.monotonic(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read_after, way, text, start, is_sent)
        try:
            way.send(text)
            approved = condition.is_question and _say_no(seat, start, began, has_approved)
        finally:
            is_sent.set()  # after a Ctrl-C too: the other thread waits for it
        read_at = reading.result()
    arrived = seat.read_since(start).count(text) == 1
    return Outcome(arrived, _is_told(way, text), None if read_at is None else read_at - began, approved)


def _read_after(way: Way, text: str, start: int, is_sent: threading.Event) -> float | None:
    """When the agent has come to read the text, by the monotonic clock; None when it is lost."""
    while not is_sent.is_set():
        if text in way.seat.read_since(start):
            return time.monotonic()
        time.sleep(0.01)
    lost_at, looked_at = time.monotonic() + _LOST_SECONDS, 0.0
    until = time.monotonic() + _PUT_OFF_SECONDS
    while (now := time.monotonic()) < lost_at:
        if text in way.seat.read_since(start):
            return now
        if now < until and now > looked_at + _LOOK_AGAIN_SECONDS:
            looked_at = now
            if way.seat.state is not AgentState.IDLE or way.is_pending(text):
                lost_at = now + _LOST_SECONDS
        time.sleep(0.01)
    return None


def _is_told(way: Way, text: str) -> bool:
    """Whether the way says that it has arrived, which it may know a moment later than the agent."""
    deadline = time.monotonic() + _LOST_SECONDS
    while way.is_pending(text) and time.monotonic() < deadline:
        time.sleep(0.05)
    return way.has_told(text)


def _say_no(seat: Seat, start: int, began: float, has_approved: Callable[[Seat, int], bool]) -> bool:
    """As a person who comes a little later: whether the question was approved meanwhile, by nobody."""
    time.sleep(max(0.0, began + _ANSWERED_AFTER_SECONDS - time.monotonic()))
    approved = has_approved(seat, start)
    if seat.state is AgentState.ASKING:
        seat.press("Escape")
    return approved


# -- both kinds of agents --


def to_claude(counts: Counts) -> list[Figure]:
    """Messages to the real Claude Code with a scripted model, in its permission mode `default`.

    `ours` is the script that agents call. A message has arrived when the agent has come to read it, once and
    unchanged; it is lost when the agent has been idle for 3 s without it, and its way does not say that it will
    bring it later. The agent is busy for 2 s, and after 1.5 s somebody says no to its question, which is approved
    when the command that it asks for has run before that. The composer is emptied between two messages, so that one
    loss makes no other one. `told so` is what the way itself says of a message that has arrived: send-keys and
    libtmux say nothing. CLI Agent Orchestrator launches its own Claude Code of the same version beside ours, with the
    same model, and is written to by its inbox, as its tool `send_message` does it.
    """
    binary = claude_binary()
    if binary is None:
        raise NotFound("the pinned Claude Code is missing", hint="./setup.sh --dev")

    def busy(seat: Seat) -> None:
        seat.types("Think about it")
        seat.wait_for(AgentState.WORKING)

    def asking(seat: Seat) -> None:
        (seat.folder / "approved").unlink(missing_ok=True)
        seat.types("Ask for it")
        seat.wait_for_question()

    def asks(request: Request) -> bool:
        return any("Ask for it" in text for text in request.said)

    conditions = [
        *_PLAIN,
        Condition("one line, ends in a backslash", text=_with_backslash),
        Condition("one line, busy", before=busy),
        Condition("one line, asks for a permission", before=asking, is_question=True),
    ]
    with ExitStack() as stack:
        server = stack.enter_context(ModelServer(keep=5000))
        server.on("Think about it", stream_slowly("word " * 100, _BUSY_SECONDS), repeat_last=True)
        server.on(asks, tool("Bash", {"command": "touch approved", "description": "Make a file"}), repeat_last=True)
        machine = stack.enter_context(claude(binary, server.url, settings="permission_mode: default\n"))
        launch(machine, FIVE, agent="claude")
        missing: list[Alternative] = []
        chosen: list[Way] = [
            ByDoor(machine, "developer"),
            ByDelivery(machine, "tester"),
            ByKeys(machine, Seat.of(machine, "testrunner")),
            *stack.enter_context(ways.by_libtmux(machine, "project_manager", missing)),
            *stack.enter_context(ways.by_cao(machine, missing)),
        ]
        return _figures(
            "Claude Code",
            _outcomes(chosen, conditions, counts.ways, lambda seat, at: (seat.folder / "approved").exists()),
            missing,
        )


def to_rehearsal(counts: Counts) -> list[Figure]:
    """The same to rehearsal agents, which swallow an Enter when they are told to.

    A question is approved when the agent says that the answer was yes.
    """

    def deaf(seat: Seat) -> None:
        start = seat.size()
        seat.types("rehearse: deaf 1")
        wait_for(lambda: seat.read_since(start), "the agent to read that it is deaf")
        seat.wait_for(AgentState.IDLE)

    def busy(seat: Seat) -> None:
        seat.types(f"rehearse: busy {_BUSY_SECONDS}")
        seat.wait_for(AgentState.WORKING)

    def asking(seat: Seat) -> None:
        seat.types("rehearse: ask")
        seat.wait_for_question()

    conditions = [
        *_PLAIN,
        Condition("one line, an Enter is swallowed", before=deaf),
        Condition("one line, busy", before=busy),
        Condition("one line, asks for a permission", before=asking, is_question=True),
    ]
    with rehearsal() as machine:
        launch(machine, FIVE, agent="rehearsal", spec=HOLDS)
        for role in FIVE.split(","):
            machine.wait_idle(role)
        missing: list[Alternative] = []
        with ways.by_libtmux(machine, "project_manager", missing) as libtmux:
            chosen: list[Way] = [
                ByDoor(machine, "developer"),
                ByDelivery(machine, "tester"),
                ByKeys(machine, Seat.of(machine, "testrunner")),
                *libtmux,
            ]
            return _figures(
                "rehearsal agent",
                _outcomes(chosen, conditions, counts.ways, lambda seat, at: seat.said_since(at, "The answer was yes.")),
                missing,
            )


_IDLE = "one line, idle"
_PLAIN = (
    Condition(_IDLE),
    Condition("20 lines", text=_lines),
    Condition("10 KB in one line", text=_long),
)


# -- what becomes of it --

_Outcomes = dict[str, dict[str, list[Outcome]]]


def _outcomes(
    chosen: Sequence[Way], conditions: Sequence[Condition], count: int, has_approved: Callable[[Seat, int], bool]
) -> _Outcomes:
    """Of each way, by the condition: in turns, so that a busy moment hits all."""
    found: _Outcomes = {one.name: {way.name: [] for way in chosen} for one in conditions}
    number = 0
    for condition in conditions:
        for _ in range(count):
            for way in chosen:
                number += 1
                found[condition.name][way.name].append(_try(way, condition, number, has_approved))
    return found


def _figures(whom: str, found: _Outcomes, missing: Sequence[Alternative]) -> list[Figure]:
    all_of = functools.reduce(_joined, found.values())
    count = len(all_of[OURS])
    whole = f"{whom}, messages under all of these conditions: arrived once, of {count}"
    whole_figure = _figure(whole, "%", _arrived(all_of), headline=True)
    figures = [replace(whole_figure, alternatives=(*whole_figure.alternatives, *missing))]
    for name, of_ways in found.items():
        condition = f"{whom}: {name}"
        asked = any(outcome.has_approved for outcomes in of_ways.values() for outcome in outcomes)
        figures += [
            _figure("arrived once", "%", _arrived(of_ways), condition),
            _figure("told so", "%", _share(of_ways, lambda one: one.is_told and one.has_arrived), condition),
            _figure(
                "told so wrongly", "%", _share(of_ways, lambda one: one.is_told and not one.has_arrived), condition
            ),
            _figure("from the start until it reads", "ms", _took(of_ways), condition, headline=name == _IDLE),
        ]
        if asked:
            approved = _share(of_ways, lambda one: one.has_approved)
            figures.append(_figure("has approved what was asked", "%", approved, condition))
    return figures


def _joined(one: dict[str, list[Outcome]], other: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
    return {way: [*outcomes, *other[way]] for way, outcomes in one.items()}


def _arrived(of_ways: dict[str, list[Outcome]]) -> dict[str, tuple[float, ...]]:
    return _share(of_ways, lambda one: one.has_arrived)


def _share(of_ways: dict[str, list[Outcome]], is_so: Callable[[Outcome], bool]) -> dict[str, tuple[float, ...]]:
    return {way: (100 * sum(map(is_so, outcomes)) / len(outcomes),) for way, outcomes in of_ways.items()}


def _took(of_ways: dict[str, list[Outcome]]) -> dict[str, tuple[float, ...]]:
    return {
        way: tuple(1000 * one.seconds for one in outcomes if one.has_arrived and one.seconds is not None)
        for way, outcomes in of_ways.items()
    }


def _figure(
    name: str, unit: Unit, values: dict[str, tuple[float, ...]], condition: str = "", *, headline: bool = False
) -> Figure:
    others = tuple(Alternative(way, found) for way, found in values.items() if way != OURS)
    return Figure(name, unit, values[OURS], alternatives=others, condition=condition, headline=headline)
