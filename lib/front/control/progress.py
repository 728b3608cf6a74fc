"""Verbs about how the work gets on: complete, depend, request-authorization, authorize."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from lib import agents, delivery, host, orchestrations
from lib.errors import NotFound, Usage
from lib.front import cli
from lib.front.cli import Output
from lib.front.control import main
from lib.front.control.desk import Caller, caller, ensure_scheduler
from lib.front.control.mail import message_text
from lib.models import Agent, AgentState, Message, Orchestration

if TYPE_CHECKING:
    from lib import reports

#: Whoever is told is often busy: the message is recorded, and whoever delivers next brings it.
_WAIT_SECONDS = 1.0
_SESSION = "The team, when it cannot be told from where this runs."


@cli.verb(
    main,
    examples="""
    claude_control.py complete developer "Login endpoint and its tests are committed"
    claude_control.py complete tester "Every criterion has a test" --check "pytest -q"
    claude_control.py complete orchestrator --failed "The API that the spec needs has been shut down"
    """,
    text_arguments=True,
)
@click.argument("role")
@click.argument("words", metavar="MESSAGE", nargs=-1)
@click.option("--check", metavar="COMMAND", help="Report only when this succeeds in the role's worktree (no shell).")
@click.option(
    "--check-seconds",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="How long the check may take (default 600).",
)
@click.option("--failed", is_flag=True, help="The orchestrator only: the whole cannot be done, and this is why.")
@click.option("--session", metavar="SESSION", help=_SESSION)
@cli.pass_output
def complete(
    output: Output,
    role: str,
    words: tuple[str, ...],
    check: str | None,
    check_seconds: float,
    failed: bool,
    session: str | None,
) -> None:
    """Report that a role's part is done; the Orchestrator's report completes the orchestration."""
    desk = caller()
    agent = _member(desk, role, session)
    if failed:
        if check is not None:
            raise Usage("a failure needs no check: leave --check out")
        found, text = report_failure(desk, agent, message_text(words))
        output.answer(text, {"role": role, "session": found.session, "orchestration": found.status})
        return
    made, text = report(desk, output, agent, message_text(words), check=check, check_seconds=check_seconds)
    found = orchestrations.of_agent(desk.db, agent)
    output.answer(
        text,
        {
            "role": role,
            "session": found.session,
            "orchestration": found.status,
            "commit": made.commit,
            "check": vars(made.check) if made.check else None,
            "told": [agents.get(desk.db, notice.agent_id).role for notice in made.notices],
            "waits_for": list(made.waits_for),
            "new": made.is_new,
        },
    )


def report_failure(desk: Caller, agent: Agent, reason: str) -> tuple[Orchestration, str]:
    """Record that the whole cannot be done. Returns the orchestration, and a sentence about it."""
    from lib import reports  # noqa: PLC0415 - as in `report`

    found = reports.fail(desk.db, agent, reason, caller=desk.agent, now=host.now_ms())
    host.wake(desk.home)
    return found, f"recorded: the orchestration {found.session} has failed"


def report(
    desk: Caller, output: Output, agent: Agent, summary: str, *, check: str | None, check_seconds: float
) -> tuple[reports.Report, str]:
    """Record a completion and bring what it sends. Returns it, and a sentence about it."""
    from lib import reports  # noqa: PLC0415 - asks git, which the other verbs need not

    with _checking(output, check, check_seconds):
        made = reports.complete(
            desk.db,
            agent,
            summary,
            caller=desk.agent,
            sender=desk.name,
            now=host.now_ms(),
            check=check,
            check_seconds=check_seconds,
        )
    host.wake(desk.home)  # the merge hub or the errand of the criteria has something to do
    if made.waits_for:
        ensure_scheduler(output, desk)  # somebody has to check, and to tell of it
        names, are = ", ".join(made.waits_for), "is" if len(made.waits_for) == 1 else "are"
        recorded = "recorded" if made.is_new else "recorded before"
        return made, f"{recorded}: {names} {are} checked at {made.commit[:12]}; you hear of it"
    said = [f"{'recorded' if made.is_new else 'recorded before'}: {agent.role} is done with commit {made.commit[:12]}"]
    if made.check:
        said.append(f"the check `{made.check.command}` succeeded")
    if made.message:
        _bring(desk, output, made.message)
        said.append(f"reported to {agents.get(desk.db, made.message.agent_id).target}")
    else:
        ensure_scheduler(output, desk)  # somebody has to deliver the work
        found = orchestrations.of_agent(desk.db, agent)
        said.append(f"the orchestration {found.session} is {found.status}")
    told = [agents.get(desk.db, notice.agent_id).role for notice in made.notices]
    if told:
        said.append(f"told {', '.join(told)}, who waited for it")
    return made, "; ".join(said)


def _checking(output: Output, check: str | None, seconds: float) -> AbstractContextManager[None]:
    if check is None:
        return contextlib.nullcontext()
    from lib.front import progress  # noqa: PLC0415 - only who waits needs it

    return progress.waiting(output, f"the check runs, for {seconds:g} s at most: {check}")


@cli.verb(main, examples="claude_control.py depend tester --on developer")
@click.argument("role")
@click.option("--on", "on_roles", multiple=True, metavar="ROLE", help="The role to wait for; can be repeated.")
@click.option("--session", metavar="SESSION", help=_SESSION)
@cli.pass_output
def depend(output: Output, role: str, on_roles: tuple[str, ...], session: str | None) -> None:
    """Have a role be told once when another role reports completion."""
    from lib import dependencies  # noqa: PLC0415 - only this verb and `complete` need it

    if not on_roles:
        raise Usage("say which role it waits for", hint=f"claude_control.py depend {role} --on developer")
    desk = caller()
    team = agents.team_of(desk.db, session, desk.agent)
    lines, data = [], []
    for on_role in on_roles:
        found, notice = dependencies.add(desk.db, team, role, on_role, by=desk.name, now=host.now_ms())
        if notice:
            _bring(desk, output, notice)
            lines.append(f"{on_role} is done already; {role} has been told")
        else:
            lines.append(f"{role} {'was told of' if found.resolved_at else 'waits for'} {on_role}")
        data.append(vars(found))
    output.answer("\n".join(lines), data)


@cli.verb(
    main,
    "request-authorization",
    examples="""
    claude_control.py request-authorization orchestrator "May I change the database schema?"
    claude_control.py request-authorization webapp-impl:devops "Restart the staging host" --timeout 10
    """,
    text_arguments=True,
)
@click.argument("target")
@click.argument("words", metavar="WHAT", nargs=-1)
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=30,
    metavar="MINUTES",
    help="Ask the orchestrator after this long without an answer (default 30).",
)
@cli.pass_output
def request_authorization(output: Output, target: str, words: tuple[str, ...], timeout: int) -> None:
    """Ask a teammate to allow something; the answer comes as a message."""
    desk = caller()
    if desk.agent is None:
        raise Usage("only an agent asks for an authorization: run this in an agent's window")
    if not words:
        raise Usage("say what shall be authorized", hint=f'claude_control.py request-authorization {target} "WHAT"')
    made_id, text = ask(desk, output, desk.agent, target, message_text(words), minutes=timeout)
    output.answer(text, {"id": made_id, "target": target, "timeout_minutes": timeout})


def ask(desk: Caller, output: Output, requester: Agent, target: str, what: str, *, minutes: int) -> tuple[int, str]:
    """Record a request and bring it. Returns its id, and a sentence about it."""
    from lib import authorizations  # noqa: PLC0415 - only these two verbs need it

    asked = agents.resolve(desk.db, desk.tmux, target, sender=requester)
    made, message = authorizations.request(desk.db, requester, asked, what, minutes=minutes, now=host.now_ms())
    if message is None:
        return made.id, f"authorization {made.id} is asked for already: {asked.target} has not answered yet"
    _bring(desk, output, message)
    return made.id, f"authorization {made.id} is asked of {asked.target}; the answer comes as a message"


@cli.verb(
    main,
    examples="""
    claude_control.py authorize 3 yes
    claude_control.py authorize 3 no --reason "the release is tomorrow"
    """,
)
@click.argument("authorization_id", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.argument("verdict", metavar="yes|no")
@click.option("--reason", default="", metavar="TEXT", help="Tell the requester why.")
@cli.pass_output
def authorize(output: Output, authorization_id: int, verdict: str, reason: str) -> None:
    """Answer a request for an authorization."""
    from lib import authorizations  # noqa: PLC0415 - only these two verbs need it

    if verdict not in ("yes", "no"):
        raise Usage(
            f"the answer is yes or no, not {verdict!r}", hint=f"claude_control.py authorize {authorization_id} yes"
        )
    desk = caller()
    made, message = authorizations.answer(
        desk.db,
        authorization_id,
        yes=verdict == "yes",
        by=desk.agent,
        name=desk.name,
        reason=reason,
        now=host.now_ms(),
    )
    requester = agents.get(desk.db, made.requester_id)
    if message:
        _bring(desk, output, message)
    text = f"authorization {made.id} is {made.status}; {requester.target} {'is' if message else 'was'} told"
    output.answer(text, {**vars(made), "requester": requester.target})


def _member(desk: Caller, role: str, session: str | None) -> Agent:
    team = agents.of_orchestration(desk.db, agents.team_of(desk.db, session, desk.agent))
    agent = next((mate for mate in team if mate.role == role), None)
    if agent is None:
        raise NotFound(f"no role {role!r} in {team[0].session}", hint=f"roles: {', '.join(mate.role for mate in team)}")
    return agent


def _bring(desk: Caller, output: Output, message: Message) -> None:
    """Deliver a message now if its agent can take it, and have the scheduler do the rest."""
    agent = agents.get(desk.db, message.agent_id)
    if agents.state_of(agent) is not AgentState.GONE:
        delivery.deliver(desk, agent, until=message.id, wait_seconds=_WAIT_SECONDS)
    ensure_scheduler(output, desk)
