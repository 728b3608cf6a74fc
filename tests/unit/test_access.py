"""Wrong tokens: who is locked out, by whom, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lib.front.web.access import (
    LOCKED_SECONDS,
    MOST_WRONG,
    MOST_WRONG_IN_ALL,
    SESSION_SECONDS,
    BrowserSessions,
    Lockout,
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wrong(lockout: Lockout, address: str, times: int) -> None:
    for _ in range(times):
        lockout.note(address)


def test_a_few_wrong_tokens_are_forgiven(clock: Clock) -> None:
    lockout = Lockout(clock)
    wrong(lockout, "a", MOST_WRONG - 1)
    assert lockout.seconds("a") == 0


def test_then_the_address_waits_and_no_other(clock: Clock) -> None:
    lockout = Lockout(clock)
    wrong(lockout, "a", MOST_WRONG)
    assert lockout.seconds("a") == LOCKED_SECONDS and lockout.seconds("b") == 0
    clock.now += LOCKED_SECONDS - 1
    assert lockout.seconds("a") == 1
    clock.now += 2
    assert lockout.seconds("a") == 0


def test_after_the_lock_out_it_may_be_wrong_as_often_again(clock: Clock) -> None:
    lockout = Lockout(clock)
    wrong(lockout, "a", MOST_WRONG)
    clock.now += LOCKED_SECONDS + 1
    assert lockout.seconds("a") == 0
    wrong(lockout, "a", MOST_WRONG - 1)
    assert lockout.seconds("a") == 0


def test_many_addresses_lock_everybody_out(clock: Clock) -> None:
    lockout = Lockout(clock)
    for number in range(MOST_WRONG_IN_ALL):
        lockout.note(f"address {number}")
    assert lockout.seconds("another") == LOCKED_SECONDS


def test_slow_guessing_is_not_remembered_for_ever(clock: Clock) -> None:
    lockout = Lockout(clock)
    for number in range(10_000):
        lockout.note(f"address {number}")
        clock.now += LOCKED_SECONDS / 10
        assert lockout.seconds("another") == 0
    assert len(lockout._wrong) < 20


def test_a_session_is_signed_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = BrowserSessions("secret")
    cookie = sessions.begin(has_token=True)
    found = sessions.read(cookie)
    assert found and found.has_token and len(found.csrf) == 64
    assert BrowserSessions("another").read(cookie) is None
    assert sessions.read(cookie[:-1]) is None and sessions.read("") is None
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4e9)
    late = sessions.begin(has_token=True)
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4e9 + SESSION_SECONDS + 2)
    assert sessions.read(late) is None
