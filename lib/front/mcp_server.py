"""The tools of an agent: the verbs that it uses all day, without a shell and its quoting, over MCP.

Who speaks is not an argument: it is the agent whose process has started this server. Claude Code starts one for
every agent (docs/mcp.md has what that costs).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator

from lib import agents, checkins, config, host, hub, messages, news, orchestrations, status, store
from lib.errors import NotFound, OrchestratorError, Unavailable, Usage
from lib.front.cli import Output
from lib.front.control import desk, insights, mail, progress
from lib.front.control.desk import Caller
from lib.judgement import cleaning, framing
from lib.models import PENDING, Agent, Priority
from lib.tmux import Tmux

INSTRUCTIONS = (
    "Tools of the team that you work in. They take any text as it is, and speak in your name."
    " Messages to you arrive by themselves; read_inbox shows them again."
)

#: The answers of tools go to a model: what is said meanwhile would reach nobody.
_SILENT = Output(quiet=True)


# -- who speaks --


def myself(db: sqlite3.Connection) -> Agent:
    """The agent that this process works for. Raises `OrchestratorError` when that cannot be shown.

    The environment says which agent and which of its lives; both must be what the store has now, and this process
    must run below that agent's own process. So nobody speaks as another by setting a variable.
    """
    named, epoch = os.environ.get("TMUX_ORCHESTRATOR_AGENT", ""), os.environ.get("TMUX_ORCHESTRATOR_EPOCH", "")
    if not (named.isdecimal() and epoch.isdecimal()):
        raise Unavailable("this server was not started by an agent of a team: it speaks for nobody")
    try:
        agent = agents.get(db, int(named[:18]))
    except NotFound:
        raise Unavailable(f"this state home knows no agent {named}: this server speaks for nobody") from None
    if int(epoch[:18]) != agent.epoch:
        raise Unavailable(f"{agent.target} has been started again since: this server speaks for its earlier life")
    if agent.process is None or not host.is_alive(agent.process) or not host.is_below(os.getpid(), agent.process.pid):
        raise Unavailable(f"this server does not run below the process of {agent.target}: it cannot speak for it")
    orchestrations.check_runs(orchestrations.of_agent(db, agent))
    return agent


@contextlib.contextmanager
def _desk() -> Iterator[tuple[Caller, Agent]]:
    """A desk for one call, and the agent at it: whatever held an hour ago is looked at again."""
    home = config.state_home()
    db = store.connect(home)
    try:
        agent = myself(db)
        yield Caller(db, Tmux.from_environment(), home, agent), agent
    finally:
        db.close()


# -- the tools: a docstring is what the model reads --


def send_message(target: str, text: str, priority: str = "normal") -> str:
    """Send a message to a teammate. It arrives exactly as given, and is delivered later if the teammate is busy.

    target: a role of your team, such as "tester"; or SESSION:ROLE; or HOST/SESSION:ROLE.
    text: the message, any length and any characters.
    priority: low, normal, high, or emergency (goes in between two tool calls of the teammate).
    """
    names = [one.name.lower() for one in Priority]
    if priority not in names:
        raise Usage(f"priority is one of {', '.join(names)}, not {priority!r}")
    with _desk() as (caller, agent):
        sent = hub.send(
            caller,
            hub.recipient(caller, target, sender=agent),
            text,
            caller=agent,
            sender=caller.name,
            wait_seconds=mail.DEFAULT_WAIT_SECONDS,
            priority=Priority[priority.upper()],
        )
        if any(one.status in PENDING for one in (sent.message, sent.copy) if one):
            desk.ensure_scheduler(_SILENT, caller)
        return mail.what_is_known_of(caller, sent)


def report_completion(summary: str, check: str = "", check_seconds: float = 600) -> str:
    """Report that your part is done and committed; the commit of your branch is the evidence.

    summary: what was done, and how to see it.
    check: a command that has to succeed in your worktree first, such as "pytest -q" (no shell); its end is attached.
    check_seconds: how long the check may take.
    """
    if check_seconds <= 0:
        raise Usage("check_seconds must be above 0")
    with _desk() as (caller, agent):
        return progress.report(caller, _SILENT, agent, summary, check=check or None, check_seconds=check_seconds)[1]


def report_failure(reason: str) -> str:
    """The orchestrator only: report that the spec as a whole cannot be done. It ends the work of the whole team.

    reason: what stands in the way, and what was tried. Whoever tries again reads it.
    """
    with _desk() as (caller, agent):
        return progress.report_failure(caller, agent, reason)[1]


def schedule_check_in(
    minutes: int, note: str, target: str = "", recurring: bool = False, if_changed: bool = False
) -> str:
    """Have a note come back as a message in so many minutes.

    minutes: in how many minutes, and with recurring also how often.
    note: what to be reminded of.
    target: whom to remind: a role of your team. Yourself when left out.
    recurring: again and again; it takes the place of the last recurring one.
    if_changed: only when there is something new by then: commits of others, messages, reports, checks.
    """
    with _desk() as (caller, agent):
        reminded = agents.resolve(caller.db, caller.tmux, target, sender=agent) if target else agent
        seen = news.Looking(caller.db).seen(reminded) if if_changed else None
        with store.writing(caller.db):
            made = checkins.add(
                caller.db,
                reminded.id,
                cleaning.clean(note),
                minutes=minutes,
                now=host.now_ms(),
                recurring=recurring,
                terms=checkins.Terms(if_changed=if_changed, seen=seen),
            )
            orchestrations.check_takes_notes(caller.db, reminded)
        desk.ensure_scheduler(_SILENT, caller)
        how = f"every {minutes} minutes" if recurring else f"in {minutes} minutes"
        return f"check-in {made.id} for {made.target} {how}{', if there is something new' if if_changed else ''}"


def list_team() -> str:
    """Show your team: every role, what it does now, what still waits for it, and who has reported completion."""
    with _desk() as (caller, agent):
        found = status.of(caller.db, orchestrations.of_agent(caller.db, agent))
        return f"you are {agent.target} on branch {agent.branch}\n{status.as_text([found], now=host.now_ms())}"


def read_inbox(limit: int = 10) -> str:
    """Show the newest messages to you again, oldest first, for instance after your context was compacted.

    limit: how many.
    """
    with _desk() as (caller, agent):
        found = messages.find(caller.db, agent_id=agent.id, limit=max(1, min(limit, 100)))
        parts = [
            f"{mail.clock(one.queued_at)} {one.status}\n{framing.frame(one.id, one.sender, one.body)}" for one in found
        ]
        return "\n\n".join(parts) or "no messages"


def request_authorization(target: str, what: str, timeout_minutes: int = 30) -> str:
    """Ask a teammate to allow something. The answer comes later as a message; without one it counts as refused.

    target: a role of your team, usually "orchestrator".
    what: what you want to do, and why.
    timeout_minutes: after this long without an answer the orchestrator is asked.
    """
    with _desk() as (caller, agent):
        return progress.ask(caller, _SILENT, agent, target, what, minutes=timeout_minutes)[1]


def publish_insight(text: str, tags: str = "", everywhere: bool = False, relates_to: list[str] | None = None) -> str:
    """Keep what you have learned for later teams: a fact about the project that its files do not say.

    text: the fact, at most 2,000 characters.
    tags: words such as "api,auth".
    everywhere: it holds for all projects, not only for this one.
    relates_to: other projects whose teams should hear of it, such as "../frontend" as seen from your project's top.
    """
    with _desk() as (caller, _):
        place = None if everywhere else insights.place_of(caller, None)
        split = tuple(tags.split(",")) if tags else ()
        return insights.publish(caller, _SILENT, text, split, place, relates_to or ())[0]


TOOLS: tuple[Callable[..., str], ...] = (
    send_message,
    report_completion,
    report_failure,
    schedule_check_in,
    list_team,
    read_inbox,
    request_authorization,
    publish_insight,
)


def serve() -> None:
    """Answer on standard input and output until the agent ends."""
    from mcp.server.mcpserver import MCPServer  # noqa: PLC0415 - 0.9 s, and in the environment of this door only

    server: MCPServer[None] = MCPServer("tmux-orchestrator", instructions=INSTRUCTIONS, log_level="ERROR")
    for tool in TOOLS:
        # The answer is one text; the same text once more as structured data would cost the model twice.
        server.add_tool(_told(tool), structured_output=False)
    server.run()


def _told(tool: Callable[..., str]) -> Callable[..., str]:
    """A tool whose errors are told to the model in the words of the doors."""
    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415 - as in `serve`

    @functools.wraps(tool)
    def told(*arguments: object, **named: object) -> str:
        try:
            return tool(*arguments, **named)
        except OrchestratorError as error:
            hint = f"\nnext: {error.hint}" if error.hint else ""
            raise ToolError(f"error: {error.sentence}{hint}") from error

    return told
