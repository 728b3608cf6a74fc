"""Questions that an agent asks in its window: a permission, a choice; and a person's answer to one, from elsewhere."""

from __future__ import annotations

import hashlib

from lib import delivery, host, store
from lib.composer import Composer
from lib.delivery import Desk
from lib.errors import NotFound, OrchestratorError
from lib.judgement.screens import Dialog
from lib.models import Agent

_WAIT_SECONDS = 2.0


def shown(desk: Desk, agent: Agent) -> Dialog | None:
    """The question that an agent asks now, or None."""
    return Composer(desk.tmux, agent).dialog()


def name(dialog: Dialog) -> str:
    """What tells a question from another one: an answer is for the one that was read."""
    words = "\n".join([dialog.text, *(f"{one.key} {one.text}" for one in dialog.choices)])
    return hashlib.sha256(" ".join(words.split()).encode()).hexdigest()[:16]


def answer(desk: Desk, agent: Agent, named: str, key: str, *, now: int) -> str:
    """Take a choice of the question that has this name. Returns the words of the choice.

    Raises `NotFound` when the question is not asked any more or has no such choice, `Busy` while a message is on its
    way to the agent.
    """
    with host.lock(
        delivery.lock_of(desk, agent), wait_seconds=_WAIT_SECONDS, sentence=f"a message to {agent.target} is on its way"
    ):
        asked = shown(desk, agent)
        if asked is None or name(asked) != named:
            raise NotFound(
                f"{agent.target} does not ask this any more", hint=f"claude_control.py screen {agent.target}"
            )
        words = next((one.text for one in asked.choices if one.key == key), None)
        if words is None:
            raise NotFound(f"{agent.target} offers no choice {key!r}")
        with store.writing(desk.db):  # before it happens: whatever the agent does then, this is why
            store.record(
                desk.db,
                "agent.answered",
                now=now,
                orchestration=agent.orchestration_id,
                agent=agent.id,
                asked=asked.text[-500:],
                choice=words,
            )
        if not Composer(desk.tmux, agent).answer(asked, key):
            raise OrchestratorError(
                f"{agent.target} has not taken the answer", hint=f"claude_control.py attach {agent.target}"
            )
    return words
