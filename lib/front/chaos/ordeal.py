"""One ordeal: what is promised to a team before, while and after a strike hits it, and what became of that."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import field

from lib import checkins, host
from lib.errors import OrchestratorError
from lib.front.chaos.ground import Ground, wait_for
from lib.front.chaos.team import Team
from lib.judgement.ordeals import Promise, Strike, broken
from lib.models import Agent, CandidateStatus
from lib.records import dataclass

_MINUTE_MS = 60_000
#: How long a `send` may wait for its acknowledgement; after that it says that the message waits.
_WAIT_SECONDS = 5


@dataclass
class Ordeal:
    """A team and a strike, with all that was promised so far."""

    team: Team
    strike: Strike
    #: How many seconds a recovery may take.
    patience: float
    promises: list[Promise] = field(default_factory=list)
    #: Sends that run, each with its mark: what they promise is known when they have ended.
    _sending: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _draft: str = ""
    #: A team of a person's own may have undergone others.
    _tag: str = field(default_factory=lambda: secrets.token_hex(3))
    #: The team as it was before the strike.
    before: list[Agent] = field(default_factory=list)
    #: The newest event before the strike.
    after_event: int = 0
    #: Another's process, which has the pid of an agent of before.
    stranger: subprocess.Popen[bytes] | None = None
    _count: int = 0

    @property
    def ground(self) -> Ground:
        return self.team.ground

    def victim(self) -> Agent:
        """The agent that the strike hits, as the plan has drawn it."""
        return self.before[self.strike.draw % len(self.before)]

    def moment(self) -> None:
        """Let a drawn moment pass, up to 0.4 s: a strike hits what is under way anywhere in its course."""
        time.sleep(self.strike.draw // 7 % 400 / 1000)

    # -- what is promised --

    def prepare(self) -> None:
        """Give the team something to lose: messages, a commit, a file that is not committed, a check-in to come."""
        self.tell_all()
        self.order_commit()
        self.remind()
        if self.ground.is_own:
            self._draft = f"not committed in ordeal {self.strike.number}\n"
            (self.team.worker().worktree / "draft.txt").write_text(self._draft)
        self.settle()
        self.before = self.team.members()
        self.after_event = self.ground.newest_event()

    def tell_all(self) -> None:
        """Send a message to everybody, at once and beside what follows."""
        for agent in self.team.members():
            self.tell(agent.role)

    def tell(self, role: str, *lines: str) -> None:
        """Send a message to one role, beside what follows; `lines` are orders for the rehearsal."""
        mark = self._mark(role)
        target = self.team.member(role).target
        body = "\n".join((f"{mark}: is this read once?", *lines))
        words = ("send", target, body, "--wait", str(_WAIT_SECONDS), "--quiet")
        self._sending[mark] = self.ground.begin("claude_control.py", *words)

    def senders(self) -> list[subprocess.Popen[bytes]]:
        """The sends that run."""
        return [sender for sender in self._sending.values() if sender.poll() is None]

    def order_commit(self, *others: str) -> str:
        """Have the worker commit something of its own; `others` the same file with other words. Returns the subject.

        Only a rehearsal takes such orders: nothing happens with a team of a person's own.
        """
        if not self.ground.is_own:
            return ""
        self._count += 1
        number = self.strike.number * 1000 + self._count
        for role in (self.team.worker().role, *others):
            self.tell(role, f"rehearse: commit {number}")
        mark = f"rehearsal: commit {number}"
        self.promises.append(Promise("commit", mark))
        return mark

    def remind(self, *, seconds: float = 1.0, clock_off: float = 0.0) -> None:
        """Schedule a check-in of the worker that is due in so many seconds: a note of a minute, from a minute ago.

        `clock_off` is by how many seconds the clock of the ground is off.
        """
        mark = self._mark("check-in")
        with self.ground.store() as db:
            at = host.now_ms() - _MINUTE_MS + round((seconds + clock_off) * 1000)
            checkins.add(db, self.team.worker().id, f"{mark}: is this told once?", now=at, minutes=1)
        host.wake(self.ground.home)
        self.promises.append(Promise("check-in", mark))

    def settle(self) -> None:
        """Wait for the sends that run. Whoever has said that a message is safe has promised it."""
        for mark, sender in self._sending.items():
            code = sender.wait(timeout=60)
            self.promises.append(Promise("message", mark, is_certain=code == 0))
        self._sending.clear()

    def expect_offers(self, wanted: Mapping[str, CandidateStatus]) -> None:
        """Wait until the offers of these roles have come to this. Raises `OrchestratorError` when they do not."""

        def has_come() -> bool:
            found = self.team.offered()
            return all(found.get(role) is status for role, status in wanted.items())

        if not wait_for(has_come, seconds=self.patience):
            found = ", ".join(f"{role} {status}" for role, status in self.team.offered().items())
            raise OrchestratorError(f"the merge hub has come to: {found or 'nothing'}")

    def _mark(self, of: str) -> str:
        self._count += 1
        return f"[chaos {self._tag} {self.strike.number}.{self._count} {of}]"

    # -- what became of it --

    def missing(self) -> list[str]:
        """What of the promises has not arrived, or more than once."""
        return broken(self.promises, self.seen())

    def seen(self) -> Mapping[str, int]:
        """How often each mark was found where it belongs: in its agent's conversation, on the worker's branch."""
        counts: Counter[str] = Counter()
        worker = self.team.worker()
        for agent in self.team.members():
            told = self.team.read(agent)
            subjects = self.team.commits(agent) if agent.id == worker.id else []
            for one in self.promises:
                counts[one.mark] += sum(one.mark in text for text in told) if one.what != "commit" else 0
                counts[one.mark] += subjects.count(one.mark)
        return counts

    def draft(self) -> str | None:
        """What is wrong with the file that nobody has committed; None when it is as it was."""
        if not self._draft:
            return None
        path = self.team.worker().worktree / "draft.txt"
        try:
            return None if path.read_text() == self._draft else f"{path.name} has other words than before"
        except FileNotFoundError:
            return f"{path.name}, which was not committed, is gone"
        except OSError as error:
            raise OrchestratorError(f"could not look at {path}: {error.strerror}") from error
