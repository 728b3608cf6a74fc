"""What agents' hooks have left in the spool becomes acknowledgements and events."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from lib import agents, config, host, limits, messages
from lib.claude import hooks
from lib.config import LimitSettings
from lib.errors import Busy, NotFound, OrchestratorError
from lib.judgement import framing
from lib.models import Agent
from lib.store import record, writing

#: How hooks name their files: nanoseconds, their pid, the agent's id and epoch; `.json` is Claude Code's, `.ref` git's.
#: Other files are not ours to judge.
_NAME = re.compile(r"[0-9]{20}(-[0-9]{1,18}){3}\.(json|ref)")

#: Hooks that are kept in the history; UserPromptSubmit is kept as the message that it acknowledges.
_IN_HISTORY = ("SessionStart", "Stop", "StopFailure", "Notification", "SessionEnd")


def ingest(db: sqlite3.Connection, home: Path) -> int:
    """Read what the spool holds, oldest first. Returns how many payloads were taken.

    Whoever waits for an acknowledgement calls this, and so does the daemon: one at a time, and the others go on
    without waiting, since the result is in the store for all. A payload is removed after its effect is committed;
    a crash between the two repeats an effect that changes nothing the second time.
    """
    spool = home / "spool"
    try:
        names = sorted(name for name in os.listdir(spool) if _NAME.fullmatch(name))  # noqa: PTH208 - every 10 ms
    except FileNotFoundError:
        return 0
    if not names:
        return 0
    try:
        with host.lock(home / "locks" / "spool.lock"):
            for name in names:
                _take(db, spool / name)
    except Busy:
        return 0
    return len(names)


def _take(db: sqlite3.Connection, path: Path) -> None:
    try:
        payload = path.read_bytes()
    except FileNotFoundError:  # taken by another process since the listing
        return
    nanoseconds, _, agent_id, epoch = map(int, path.stem.split("-"))
    apply = _apply if path.suffix == ".json" else _apply_ref
    apply(db, path.parents[1], agent_id, epoch, nanoseconds // 1_000_000, payload)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _apply_ref(db: sqlite3.Connection, home: Path, agent_id: int, epoch: int, at: int, payload: bytes) -> None:
    """What a guard has told counts whatever the epoch: a commit of an earlier life is a commit."""
    from lib import boundaries  # noqa: PLC0415 - only what git has told pays for it
    from lib.git import guards  # noqa: PLC0415 - the same

    word = guards.read(payload)
    with contextlib.suppress(NotFound):  # an agent that another state home knows
        agent = agents.get(db, agent_id)
        if word is None:
            with writing(db):
                _record_unreadable(db, agent, at, payload)
            return
        with writing(db):
            boundaries.note(db, agent, word, at=at)


def _record_unreadable(db: sqlite3.Connection, agent: Agent, at: int, payload: bytes) -> None:
    record(db, "hook.unreadable", now=at, orchestration=agent.orchestration_id, agent=agent.id, size=len(payload))


def _apply(db: sqlite3.Connection, home: Path, agent_id: int, epoch: int, at: int, payload: bytes) -> None:
    try:
        agent = agents.get(db, agent_id)
    except NotFound:  # a hook of an agent that another state home knows
        return
    report = hooks.report(payload)
    if report is None:
        with writing(db):
            _record_unreadable(db, agent, at, payload)
        return
    if epoch != agent.epoch:
        return
    with writing(db):
        agents.note_hook(db, agent.id, event=report.event, at=at)
        if report.event == "SessionStart" and report.conversation_id != agent.conversation_id:
            agents.follow_conversation(db, agent.id, report.conversation_id)
        if report.event == "UserPromptSubmit" and messages.acknowledge(db, agent, report.prompt, proof="hook", now=at):
            _sign_with(home, agent, report.prompt)
        limits.hear(db, agent, report, at=at, terms=_terms)
        if report.event in _IN_HISTORY:
            details = {"source": report.source, "error": report.error, "said": report.last_message[:2000]}
            details["about"] = report.notification
            record(
                db,
                f"hook.{report.event}",
                now=at,
                orchestration=agent.orchestration_id,
                agent=agent.id,
                details={name: value for name, value in details.items() if value},
            )


def _sign_with(home: Path, agent: Agent, prompt: str) -> None:
    """From now on the agent's commits bear the id of this message."""
    framed = framing.unframe(prompt) or framing.unframe(framing.unwrap(prompt))
    if framed and not agent.is_guest:
        from lib.git import guards  # noqa: PLC0415 - only an acknowledgement pays for it

        guards.note_message(home, agent.id, framed[0])


def _terms() -> LimitSettings:
    """Read only for a refusal, which is rare: whoever takes hooks all day need not read a file of settings for them."""
    try:
        return config.load().limits
    except OrchestratorError:  # whoever reads the settings for their own sake says so; a hook is taken all the same
        return LimitSettings()
