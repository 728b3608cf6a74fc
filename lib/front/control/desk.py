"""What every verb begins with: the store, tmux, and who is speaking."""

from __future__ import annotations

from lib import agents, config, delivery, service, store
from lib.front.cli import Output
from lib.models import Agent
from lib.records import dataclass
from lib.tmux import Tmux

#: The sender of what a person sends from a shell.
PERSON = "user"


@dataclass(frozen=True)
class Caller(delivery.Desk):
    """A desk, and the agent in whose pane it is used; None for a person's shell."""

    agent: Agent | None

    @property
    def name(self) -> str:
        """The caller as a sender of messages."""
        return self.agent.role if self.agent else PERSON


def caller() -> Caller:
    """Open the store and look who calls."""
    home = config.state_home()
    db, tmux = store.connect(home), Tmux.from_environment()
    return Caller(db, tmux, home, agents.myself(db, tmux))


def ensure_scheduler(output: Output, desk: delivery.Desk) -> None:
    """Something waits to be done later: have somebody who does it, or say that nobody will."""
    if sentence := service.ensure(desk.home):
        output.say(sentence)
